"""Types as data: `list[Item]`, `int | None`, and models, as pydantic's schemas and JSON Schemas.

A model is a name with fields. It never becomes a class of Python: pydantic's validators get data
only, and no code of the program. They see values without labels; afterwards each field takes all
labels of the value that was given for it.
"""

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic_core import PydanticKnownError, SchemaError, SchemaValidator
from pydantic_core import ValidationError as Refusal

from langchain_sequrity.local.interpreter.faults import Raised, ValidationError
from langchain_sequrity.local.interpreter.formatting import written_size
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.regexes import search_once
from langchain_sequrity.local.interpreter.values import (
    DictValue,
    ErrorType,
    ErrorValue,
    ListValue,
    Mark,
    Marker,
    Opaque,
    Record,
    SetValue,
    TypeValue,
    Value,
    add_labels,
    join_labels,
    split_labels,
)

Schema = dict[str, Any]
NO_DEFAULT = object()
_FINAL = frozenset({str, float, bool, type(None), Record})  # what pydantic made, or a default
_LARGEST = 500
_LONGEST_TEXT = 1_000  # characters of an error, which may quote a type
_ERROR_SIZE = 1_000  # bytes of one of pydantic's errors


@dataclass(eq=False, repr=False)
class DataType(Opaque):
    """A type.

    Attributes:
        core: Its schema for `SchemaValidator`.
        json: Its JSON Schema, in which models are references.
        parts: The types directly within it.
        alternatives: The members of a union, as the program wrote them.
        size: The number of types in it, itself included, each counted as often as it occurs. The
            values of a long `Literal` count as well: an error copies them.
        width: An upper estimate of the bytes of its JSON Schema.
    """

    core: Schema
    json: Schema
    parts: tuple["DataType", ...] = ()
    alternatives: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        """Add up the sizes. A type that a loop built could be exponentially large."""
        values = 2 * written_size(tuple(self.core.get("expected", ())))
        self.width: int = 500 + values + sum(part.width for part in self.parts)
        self.size: int = 1 + (values >> 13) + sum(part.size for part in self.parts)
        if self.size > _LARGEST:
            msg = f"A type may consist of at most {_LARGEST} types, or of fewer with long values."
            raise ValueError(msg)


DataType.__name__ = "GenericAlias"


@dataclass(frozen=True, slots=True)
class ModelField:
    """One field of a model.

    Attributes:
        data_type: Its type.
        default: Its value if none is given.
        notes: Entries of its JSON Schema besides the type, such as `description`.
    """

    data_type: DataType
    default: Value = NO_DEFAULT
    notes: Mapping[str, Any] = field(default_factory=dict)


class Model(DataType):
    """A model: the result of a class statement with the base `BaseModel`.

    Attributes:
        ancestry: The model and all its ancestors.
        is_complete: Whether its class statement has ended. A default may make an instance before.
    """

    def __init__(self, name: str, parent: "Model | None", description: str) -> None:
        reference = f"#/$defs/{name}"
        core = {"type": "definition-ref", "schema_ref": f"{name} {id(self)}"}
        super().__init__(core, {"$ref": reference})
        self.name = name
        self.parent = parent
        self.description = description
        self.fields: dict[str, ModelField] = {**parent.fields} if parent is not None else {}
        self.ancestry: tuple[Model, ...] = (self, *(parent.ancestry if parent else ()))
        self.is_complete = False
        self._made_of: tuple[SchemaValidator, bool] | None = None

    def object_schema(self) -> Schema:
        """The JSON Schema that the reference means."""
        fields = self.fields.items()
        properties = {name: {**one.data_type.json, **one.notes} for name, one in fields}
        schema: Schema = {"title": self.name, "type": "object", "properties": properties}
        required = [name for name, one in fields if one.default is NO_DEFAULT]
        if required:
            schema["required"] = required
        if self.description:
            schema["description"] = self.description
        return schema

    @property
    def object_width(self) -> int:
        """An upper estimate of the bytes of `object_schema`."""
        notes = [written_size(note) for one in self.fields.values() for note in one.notes.values()]
        types = sum(one.data_type.width for one in self.fields.values())
        return 500 + 400 * len(self.fields) + types + 2 * sum(notes) + len(self.description)

    # -- validation

    def _validator(self, machine: Machine) -> tuple[SchemaValidator, bool]:
        """The validator, and whether data decide which of several types a field has."""
        if self._made_of is not None:
            return self._made_of
        models = models_of(self)
        size = sum(model.object_width for model in models)
        machine.pay_steps(size >> 4)
        machine.pay_memory(size)
        definitions = [model.definition() for model in models]
        core: Any = {"type": "definitions", "schema": self.core, "definitions": definitions}
        types = [one.data_type for model in models for one in model.fields.values()]
        is_choosing = any(one.alternatives for kind in types for one in _within(kind))
        made = SchemaValidator(core), is_choosing
        if all(model.is_complete for model in models):
            self._made_of = made
        return made

    @cached_property
    def _largest(self) -> int:
        return max((one.data_type.size for one in self.fields.values()), default=1)

    @cached_property
    def _parts(self) -> int:
        return sum(one.data_type.size for one in self.fields.values())

    def complete(self) -> None:
        """End the class statement: all fields are there."""
        self.is_complete = True
        for name in ("_largest", "_parts"):
            vars(self).pop(name, None)

    def definition(self) -> Schema:
        """The schema for `SchemaValidator` that the reference means."""
        fields = {
            name: {
                "type": "typed-dict-field",
                "schema": one.data_type.core,
                "required": one.default is NO_DEFAULT,
            }
            for name, one in self.fields.items()
        }
        return {
            "type": "function-wrap",
            "function": {"type": "with-info", "function": self._made},
            "schema": {"type": "typed-dict", "fields": fields},
            "ref": self.core["schema_ref"],
        }

    def _made(self, given: Value, validate: Callable[[Value], dict[str, Any]], info: Any) -> Record:
        """Accept an instance unchanged; make one from a dict. Unknown names are ignored."""
        machine: Machine = info.context
        if self.is_type_of(given):
            instance: Record = given
            return instance
        # A union may try many types for each element of the value.
        count = machine.count(given)
        machine.pay_steps(count * self._largest)
        machine.pay_memory(100 * (count + self._parts) + 80)
        try:
            found = validate(given)
        except Refusal as refusal:  # it lists all wrong fields, with all types of their unions
            machine.pay_memory(_ERROR_SIZE * refusal.error_count())
            raise
        fields: dict[str, Value] = {}
        for name, one in self.fields.items():
            item = found.get(name, one.default)
            if type(item) not in _FINAL:
                make = _from_pydantic if name in found else copy_containers
                item = make(machine, item)
            fields[name] = item
        return Record(self, fields)

    def is_type_of(self, inner: Value) -> bool:
        """Whether a bare value is an instance of this model, or of one that is derived from it."""
        return type(inner) is Record and self in inner.model.ancestry

    def read(self, machine: Machine, value: Value, bare: Value, labels: Mark) -> Value:
        """Make an instance from a dict, and accept one unchanged.

        Args:
            machine: The run.
            value: The dict or instance.
            bare: The same without labels.
            labels: All labels in it.

        Raises:
            pydantic_core.ValidationError: If the value does not fit.
        """
        inner, mark = split_labels(value)
        if self.is_type_of(inner):
            return value
        validator, is_choosing = self._validator(machine)
        if is_choosing and labels is not None:
            machine.check_branch(labels)
        record: Record = validator.validate_python(bare, context=machine)
        for name in self.fields if labels is not None else ():
            if name not in inner:
                continue
            if self.fields[name].data_type is ANYTHING:
                record.fields[name] = inner[name]
            else:
                given = machine.labels_of([inner[name]])
                record.fields[name] = add_labels(record.fields[name], given)
        record.labels = mark
        return record

    def instantiate(self, machine: Machine, args: list[Value], named: dict[str, Value]) -> Value:
        """Call the model, as in `Item(name="a")`."""
        if args:
            machine.fail(TypeError, f"{self.name}() takes keyword arguments only")
        return validated(machine, self, DictValue(named))


def validated(machine: Machine, model: Model, value: Value, /) -> Value:
    """Read a value as this model; if it does not fit, raise the program's `ValidationError`."""
    bare, mark = machine.strip_labels(value)
    machine.may_fail(mark)
    try:
        return model.read(machine, value, bare, mark)
    except Refusal as refusal:
        first = refusal.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(map(str, first["loc"])) or "value"  # with keys of dicts
        text = (
            f"1 validation error for {model.name}\n{path:.{_LONGEST_TEXT}}"
            f"\n  {first['msg']:.{_LONGEST_TEXT}}"
        )
        kind = ErrorType("ValidationError", ValidationError)
        raise Raised(ErrorValue(kind, (text,), join_labels(mark, machine.branch))) from None


def _within(data_type: DataType) -> Iterator[DataType]:
    yield data_type
    for part in data_type.parts:
        yield from _within(part)


def models_of(data_type: DataType) -> list[Model]:
    """The models that a type refers to, also through others; a model comes before its fields'."""
    found: dict[Model, None] = {}
    waiting = [data_type]
    while waiting:
        one = waiting.pop()
        parts: Sequence[DataType] = one.parts
        if isinstance(one, Model):
            parts = [part.data_type for part in one.fields.values()] if one not in found else ()
            found[one] = None
        waiting += reversed(parts)
    return [*found]


def json_schema(machine: Machine, data_type: DataType) -> Schema:
    """A self-contained JSON Schema. A model that refers to itself is a reference."""
    models = models_of(data_type)
    machine.pay_memory(data_type.width + sum(model.object_width for model in models))
    definitions: Schema = {}
    for model in models:
        definitions.setdefault(model.name, model.object_schema())
    schema = data_type.json
    if isinstance(data_type, Model) and json.dumps(schema)[1:-1] not in json.dumps(definitions):
        schema = definitions.pop(data_type.name)
    return {"$defs": definitions, **schema} if definitions else {**schema}


def copy_containers(machine: Machine, value: Value, *, as_dicts: bool = False) -> Value:
    """A copy of containers in containers, in which each element keeps its labels.

    Args:
        machine: The run.
        value: Any value.
        as_dicts: Whether instances are copied too, as dicts.
    """
    inner, mark = split_labels(value)
    kind = type(inner)
    made: Value
    if kind is ListValue or kind is tuple:
        machine.pay_items(len(inner))
        made = kind(copy_containers(machine, item, as_dicts=as_dicts) for item in inner)
    elif kind is DictValue or (kind is Record and as_dicts):
        items = (inner.fields if kind is Record else inner).items()
        machine.pay_items(len(items), 100)
        made = DictValue(
            (key, copy_containers(machine, item, as_dicts=as_dicts)) for key, item in items
        )
    elif kind is SetValue:
        machine.pay_items(len(inner), 100)
        made = SetValue(dict(inner.items))
    else:
        return value
    return add_labels(made, mark)


def _from_pydantic(machine: Machine, found: Any) -> Value:
    """What pydantic made, as a value of the program. The memory of containers was paid for."""
    kind = type(found)
    if kind is list:
        return ListValue(_from_pydantic(machine, item) for item in found)
    if kind is tuple:
        return tuple(_from_pydantic(machine, item) for item in found)
    if kind is dict:
        names = machine.with_clock_checks(found)
        return DictValue((name, _from_pydantic(machine, found[name])) for name in names)
    if kind is int:
        machine.pay_bits(found.bit_length())
    if kind is dt.datetime or kind is dt.time:
        # pydantic has its own class for offsets, which programs must not see.
        offset = found.utcoffset()
        return found if offset is None else found.replace(tzinfo=dt.timezone(offset))
    return found


def _timed(key: Any, info: Any) -> Any:
    info.context.check_time()
    return key


def _as_set(items: list[Any], info: Any) -> SetValue:
    try:
        return SetValue(dict.fromkeys(info.context.with_clock_checks(items)))
    except TypeError:
        msg = "The elements of a set must be hashable"
        raise ValueError(msg) from None


# -- the types


def _scalar(core: str, kind: str, text_format: str | None = None) -> DataType:
    form = {} if text_format is None else {"format": text_format}
    return DataType({"type": core}, {"type": kind, **form})


def _list_of(item: DataType) -> DataType:
    core = {"type": "list", "items_schema": item.core, "fail_fast": True}
    return DataType(core, {"type": "array", "items": item.json}, (item,))


def _set_of(item: DataType) -> DataType:
    items = _list_of(item)
    after = {"type": "with-info", "function": _as_set}
    core = {"type": "function-after", "function": after, "schema": items.core}
    return DataType(core, {**items.json, "uniqueItems": True}, (item,))


def _tuple_of(item: DataType) -> DataType:
    core = {"type": "tuple", "items_schema": [item.core], "variadic_item_index": 0}
    return DataType({**core, "fail_fast": True}, {"type": "array", "items": item.json}, (item,))


def _positions(*items: DataType) -> DataType:
    core = {"type": "tuple", "items_schema": [item.core for item in items]}
    size = {"minItems": len(items), "maxItems": len(items)}
    prefix = [item.json for item in items]
    return DataType(core, {"type": "array", "prefixItems": prefix, **size}, items)


def _dict_of(key: DataType, value: DataType) -> DataType:
    keys = key.core
    if keys["type"] != "str":  # whose hashes nobody can choose
        after = {"type": "with-info", "function": _timed}
        keys = {"type": "function-after", "function": after, "schema": keys}
    schemas = {"keys_schema": keys, "values_schema": value.core}
    inner = {"type": "object", "additionalProperties": value.json}
    return DataType({"type": "dict", **schemas, "fail_fast": True}, inner, (key, value))


def _union(options: tuple[DataType, ...], alternatives: tuple[Value, ...]) -> DataType:
    others = [one for one in options if one is not NOTHING]
    named = [(one.core, getattr(one, "name", one.core["type"])) for one in options]
    core: Schema = {"type": "union", "choices": named}
    if len(others) == 1 and len(options) == 2:  # noqa: PLR2004 - so that errors have a short path
        core = {"type": "nullable", "schema": others[0].core}
    return DataType(core, {"anyOf": [one.json for one in options]}, options, alternatives)


def _literal(values: tuple[Value, ...]) -> DataType:
    choice = {"const": values[0]} if len(values) == 1 else {"enum": [*values]}
    kinds = {type(value) for value in values}
    name = {str: "string", int: "integer"}.get(kinds.pop()) if len(kinds) == 1 else None
    core = {"type": "literal", "expected": [*values]}
    return DataType(core, {**choice, **({"type": name} if name else {})})


ANYTHING = DataType({"type": "any"}, {})
NOTHING = _scalar("none", "null")
_GENERIC: dict[type, Callable[..., DataType]] = {
    ListValue: _list_of,
    SetValue: _set_of,
    tuple: _tuple_of,
}
_DICT = _dict_of(ANYTHING, ANYTHING)
_SCALARS: dict[type, DataType] = {
    bool: _scalar("bool", "boolean"),
    int: _scalar("int", "integer"),
    float: _scalar("float", "number"),
    str: _scalar("str", "string"),
    dt.date: _scalar("date", "string", "date"),
    dt.datetime: _scalar("datetime", "string", "date-time"),
    dt.time: _scalar("time", "string", "time"),
    dt.timedelta: _scalar("timedelta", "string", "duration"),
    DictValue: _DICT,
    **{kind: make(ANYTHING) for kind, make in _GENERIC.items()},
}
_MARKERS: dict[str, type] = {
    "Dict": DictValue,
    "List": ListValue,
    "Mapping": DictValue,
    "Sequence": ListValue,
    "Iterable": ListValue,
    "Set": SetValue,
    "Tuple": tuple,
}
# Limits of `Field` by the type of the schema, with their names in JSON Schema.
_NUMERIC = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}
_LIMITS: dict[str, Mapping[str, str]] = {
    "int": _NUMERIC,
    "float": _NUMERIC,
    "str": {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"},
    "list": {"min_length": "minItems", "max_length": "maxItems"},
}


def constrained(data_type: DataType, limits: Mapping[str, Any]) -> DataType | None:
    """A type with limits such as `ge`; `None` if it does not support them.

    Of a union, each type that supports them is constrained; at least one has to.
    """
    if data_type.alternatives:
        narrowed = [constrained(part, limits) for part in data_type.parts]
        pairs = zip(narrowed, data_type.parts, strict=True)
        parts = tuple(one or other for one, other in pairs)
        return _union(parts, data_type.alternatives) if any(narrowed) else None
    names = _LIMITS.get(data_type.core["type"], {})
    pattern = limits.get("pattern", "")
    if not names.keys() >= limits.keys() or type(pattern) is not str:
        return None
    own = {name: limit for name, limit in limits.items() if name != "pattern"}
    try:
        SchemaValidator({"type": data_type.core["type"], **own})
    except SchemaError:
        return None
    core = {**data_type.core, **own}
    if "pattern" in limits:
        # Searched here: pydantic would compile it without a limit.
        after = {"type": "with-info", "function": _matching(pattern)}
        core = {"type": "function-after", "function": after, "schema": core}
    shown = {names[name]: limit for name, limit in limits.items()}
    return DataType(core, {**data_type.json, **shown}, data_type.parts)


def _matching(pattern: str) -> Callable[[str, Any], str]:
    def check(text: str, info: Any) -> str:
        if search_once(info.context, "search", pattern, text) is None:
            raise PydanticKnownError(
                "string_pattern_mismatch",  # noqa: EM101 - a name that pydantic knows
                {"pattern": pattern},
            )
        return text

    return check


def as_data_type(value: Value) -> DataType | None:
    """The type that a bare value stands for; `None` if the value is not a type."""
    if isinstance(value, DataType):
        return value
    if isinstance(value, TypeValue):
        return _SCALARS.get(value.types[0])
    if isinstance(value, Marker):
        return ANYTHING if value.name == "Any" else _SCALARS.get(_MARKERS.get(value.name, Marker))
    return NOTHING if value is None else None


def _data_types(values: Sequence[Value]) -> tuple[DataType, ...] | None:
    known = tuple(one for one in map(as_data_type, values) if one is not None)
    return known if len(known) == len(values) else None


def union_type(members: tuple[Value, ...]) -> DataType | None:
    """`X | Y`, and `Union[X, Y]`."""
    flat: list[Value] = []
    for member in members:
        flat += getattr(member, "alternatives", ()) or [member]
    options = _data_types(flat)
    return None if options is None else _union(options, tuple(flat))


def parametrized(generic: Value, arguments: tuple[Value, ...]) -> DataType | None:
    """`list[X]` and the like; `None` if the arguments do not fit the generic type."""
    name = generic.name if isinstance(generic, Marker) else ""
    if name == "Literal":
        return _literal(arguments) if all(map(_is_literal, arguments)) and arguments else None
    if name == "Union" or (name == "Optional" and len(arguments) == 1):
        return union_type(arguments if name == "Union" else (*arguments, None))
    kind = _MARKERS.get(name) or (generic.types[0] if isinstance(generic, TypeValue) else None)
    is_open = kind is tuple and arguments[-1:] == (...,)
    items = _data_types(arguments[:-1] if is_open else arguments)
    if items is None or kind is None:
        return None
    if kind is tuple and not is_open:
        return _positions(*items)
    if kind is DictValue:
        return _dict_of(*items) if len(items) == 2 else None  # noqa: PLR2004 - keys and values
    make = _GENERIC.get(kind)
    return make(*items) if make is not None and len(items) == 1 else None


def _is_literal(value: Value) -> bool:
    return value is None or isinstance(value, str | int)
