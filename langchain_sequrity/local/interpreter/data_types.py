"""Types as data: `list[Item]`, `int | None` and other types of a model's fields.

A data type can write itself as JSON Schema, and validate and convert a value as pydantic does.
pydantic's own validators handle numbers, texts and times; they are built from data, without code of
the program. Containers are validated here, so that every element keeps its labels.
"""

import datetime as dt
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pydantic_core import SchemaError, SchemaValidator
from pydantic_core import ValidationError as Refusal

from langchain_sequrity.local.interpreter.formatting import written_size
from langchain_sequrity.local.interpreter.iteration import collect
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.regexes import search_once
from langchain_sequrity.local.interpreter.values import (
    DictValue,
    IteratorValue,
    ListValue,
    Mark,
    Marker,
    Opaque,
    SetValue,
    TypeValue,
    Value,
    add_labels,
    join_labels,
    split_labels,
    unbox,
)

Schema = dict[str, Any]
_LARGEST = 500
_MAX_EXAMPLES = 20  # values of a choice that an error message lists


class TypeMismatch(Exception):
    """A value does not fit a type.

    Attributes:
        path: Fields and indices that lead to the value, outermost first.
        reason: What is wrong.
    """

    def __init__(self, reason: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path


class DataType(Opaque):
    """A type."""

    @cached_property
    def size(self) -> int:
        """The number of types in it, itself included, each counted as often as it occurs."""
        return 1 + sum(part.size for part in self.parts())

    def parts(self) -> tuple["DataType", ...]:
        """The types directly within it."""
        return ()

    def mentioned(self) -> tuple["DataType", ...]:
        """Like `parts`, with the types of a model's fields. These references may be circular."""
        return self.parts()

    @property
    def width(self) -> int:
        """An upper estimate of the bytes of its own part of a JSON Schema."""
        return 500

    def schema(self, definitions: Schema) -> Schema:
        """Its JSON Schema. Models are added to `definitions` and referred to."""
        raise NotImplementedError

    def read(self, machine: Machine, value: Value) -> Value:
        """Validate a value and convert it to this type.

        Args:
            machine: The run.
            value: Any value.

        Raises:
            TypeMismatch: If it does not fit.
        """
        raise NotImplementedError

    def constrain(self, _: Mapping[str, Any]) -> "DataType | None":
        """This type with limits such as `ge`; `None` if it does not support them."""
        return None

    def json_schema(self) -> Schema:
        """A self-contained JSON Schema."""
        definitions: Schema = {}
        schema = self.schema(definitions)
        return {"$defs": definitions, **schema} if definitions else schema


class AnyType(DataType):
    """`Any`."""

    def schema(self, _: Schema) -> Schema:
        """Allow everything."""
        return {}

    def read(self, _: Machine, value: Value) -> Value:
        """Return it unchanged."""
        return value


_KEYWORDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "min_length": "minLength",
    "max_length": "maxLength",
}
_NUMERIC = frozenset({"ge", "gt", "le", "lt", "multiple_of"})
_LENGTHS = frozenset({"min_length", "max_length"})


@dataclass(frozen=True, repr=False)
class ScalarType(DataType):
    """A number, a text, a time or `None`."""

    core: Mapping[str, Any]
    json: Mapping[str, Any]
    allowed: frozenset[str] = frozenset()
    pattern: str | None = None  # searched here: pydantic would compile it without a limit
    validator: SchemaValidator = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Build pydantic's validator."""
        object.__setattr__(self, "validator", SchemaValidator(dict(self.core)))

    def schema(self, _: Schema) -> Schema:
        """The type's name, and the limits under their names in JSON Schema."""
        limits = {_KEYWORDS[k]: v for k, v in self.core.items() if k in _KEYWORDS}
        pattern = {} if self.pattern is None else {"pattern": self.pattern}
        return {**self.json, **limits, **pattern}

    def read(self, machine: Machine, value: Value) -> Value:
        """Validate with pydantic."""
        inner, mark = split_labels(value)
        if isinstance(inner, str | bytes):
            machine.pay_text(len(inner), inner)
            machine.pay_steps(len(inner) >> 6)
        try:
            result = self.validator.validate_python(inner)
        except Refusal as refusal:
            raise TypeMismatch(refusal.errors(include_url=False)[0]["msg"]) from None
        machine.has_converted |= type(result) is not type(inner)
        pattern = self.pattern
        if pattern is not None and search_once(machine, "search", pattern, result) is None:
            msg = f"String should match pattern '{pattern}'"
            raise TypeMismatch(msg)
        if isinstance(result, int):
            machine.pay_bits(result.bit_length())
        if isinstance(result, dt.tzinfo | dt.datetime | dt.time):
            result = _plain_zone(result)
        return add_labels(result, mark)

    def constrain(self, limits: Mapping[str, Any]) -> DataType | None:
        """Give the limits to pydantic, except for a pattern."""
        if not self.allowed.issuperset(limits) or type(limits.get("pattern", "")) is not str:
            return None
        core_limits = {name: limit for name, limit in limits.items() if name != "pattern"}
        try:
            core = {**self.core, **core_limits}
            return replace(self, core=core, pattern=limits.get("pattern", self.pattern))
        except SchemaError:
            return None


def _plain_zone(value: Any) -> Any:
    # pydantic has its own class for offsets, which programs must not see.
    offset = value.utcoffset() if value.tzinfo is not None else None
    return value if offset is None else value.replace(tzinfo=dt.timezone(offset))


@dataclass(frozen=True, repr=False)
class ArrayType(DataType):
    """A list, a set, or a tuple of any length."""

    container_type: type
    item: DataType
    limits: Mapping[str, int] = field(default_factory=dict)

    def parts(self) -> tuple[DataType, ...]:
        """The type of its elements."""
        return (self.item,)

    def schema(self, definitions: Schema) -> Schema:
        """An array."""
        schema: Schema = {"type": "array", "items": self.item.schema(definitions)}
        if self.container_type is SetValue:
            schema["uniqueItems"] = True
        names = {"min_length": "minItems", "max_length": "maxItems"}
        return {**schema, **{names[name]: limit for name, limit in self.limits.items()}}

    def read(self, machine: Machine, value: Value) -> Value:
        """Validate each element."""
        items, mark = _elements(machine, value, self.container_type)
        machine.pay_steps(len(items))
        least, most = self.limits.get("min_length", 0), self.limits.get("max_length", len(items))
        if not least <= len(items) <= most:
            msg = f"It has {len(items)} items, but {least} to {most} are allowed."
            raise TypeMismatch(msg)
        read = [read_part(index, self.item, machine, item) for index, item in enumerate(items)]
        return _make_container(machine, self.container_type, read, mark)

    def constrain(self, limits: Mapping[str, Any]) -> DataType | None:
        """Lengths only."""
        if not _LENGTHS.issuperset(limits) or not all(type(n) is int for n in limits.values()):
            return None
        return replace(self, limits={**self.limits, **limits})


@dataclass(frozen=True, repr=False)
class TupleType(DataType):
    """A tuple with a type for each position."""

    items: tuple[DataType, ...]

    def parts(self) -> tuple[DataType, ...]:
        """The types of its positions."""
        return self.items

    def schema(self, definitions: Schema) -> Schema:
        """An array with `prefixItems`."""
        prefix = [item.schema(definitions) for item in self.items]
        size = len(prefix)
        return {"type": "array", "prefixItems": prefix, "minItems": size, "maxItems": size}

    def read(self, machine: Machine, value: Value) -> Value:
        """Validate each position."""
        items, mark = _elements(machine, value, tuple)
        if len(items) != len(self.items):
            msg = f"It has {len(items)} items, but needs {len(self.items)}."
            raise TypeMismatch(msg)
        pairs = enumerate(zip(self.items, items, strict=True))
        read = [read_part(index, data_type, machine, item) for index, (data_type, item) in pairs]
        return add_labels(tuple(read), mark)


@dataclass(frozen=True, repr=False)
class DictType(DataType):
    """A dict."""

    key: DataType
    value: DataType

    def parts(self) -> tuple[DataType, ...]:
        """The types of keys and values."""
        return self.key, self.value

    def schema(self, definitions: Schema) -> Schema:
        """An object."""
        return {"type": "object", "additionalProperties": self.value.schema(definitions)}

    def read(self, machine: Machine, value: Value) -> Value:
        """Validate each key and value."""
        inner, mark = split_labels(value)
        if type(inner) is not DictValue:
            msg = "Input should be a valid dictionary"
            raise TypeMismatch(msg)
        machine.pay_items(len(inner), 100)
        machine.pay_steps(len(inner))
        result: DictValue[Any, Value] = DictValue()
        for key, item in zip(machine.with_clock_checks(inner), inner.values(), strict=True):
            step = str(key) if isinstance(key, str | int) else "key"
            name = read_part(step, self.key, machine, key)
            result[name] = read_part(step, self.value, machine, item)
        machine.label_changed(result, mark)
        return result


@dataclass(frozen=True, repr=False)
class UnionType(DataType):
    """Several types. The first that fits without conversion is used, else the first that fits."""

    members: tuple[Value, ...]
    options: tuple[DataType, ...]

    def parts(self) -> tuple[DataType, ...]:
        """Its alternatives."""
        return self.options

    def schema(self, definitions: Schema) -> Schema:
        """`anyOf`."""
        return {"anyOf": [option.schema(definitions) for option in self.options]}

    def read(self, machine: Machine, value: Value) -> Value:
        """Try the types in order."""
        # Which type fits depends on every part of the value.
        mark = machine.strip_labels(value)[1]
        before = machine.has_converted
        converted: list[Value] = []
        reason = ""
        for option in self.options:
            machine.pay_steps(1)
            machine.has_converted = False
            try:
                result = option.read(machine, value)
            except TypeMismatch as mismatch:
                reason = reason or mismatch.reason
            else:
                if not machine.has_converted:
                    machine.has_converted = before
                    return add_labels(result, mark)
                converted.append(result)
            machine.check_branch(mark)
        if not converted:
            raise TypeMismatch(reason)
        machine.has_converted = True
        return add_labels(converted[0], mark)

    def constrain(self, limits: Mapping[str, Any]) -> DataType | None:
        """Constrain each type that supports the limits; at least one has to."""
        narrowed = [option.constrain(limits) for option in self.options]
        if not any(narrowed):
            return None
        pairs = zip(narrowed, self.options, strict=True)
        return UnionType(self.members, tuple(new or old for new, old in pairs))


@dataclass(frozen=True, repr=False)
class LiteralType(DataType):
    """`Literal`."""

    values: tuple[Value, ...]

    @property
    def width(self) -> int:
        """The size of its values."""
        return 500 + 2 * sum(map(written_size, self.values))

    def schema(self, _: Schema) -> Schema:
        """`enum`, or `const` for one value."""
        choices = [*self.values]
        choice = {"const": choices[0]} if len(choices) == 1 else {"enum": choices}
        return {**choice, **_type_of_all(choices)}

    def read(self, machine: Machine, value: Value) -> Value:
        """Accept one of the values."""
        inner, mark = machine.strip_labels(value)
        machine.pay_steps(len(self.values) >> 2)
        for choice in self.values:
            if type(choice) is type(inner) and choice == inner:
                return add_labels(choice, mark)
        raise TypeMismatch(_expected_values(self.values))


def _expected_values(values: Collection[Value]) -> str:
    examples = [f"{value!r:.40}" for value in itertools.islice(values, _MAX_EXAMPLES)]
    rest = len(values) - len(examples)
    return f"Input should be {' or '.join(examples)}{f' or one of {rest} others' if rest else ''}"


def _type_of_all(values: list[Value]) -> Schema:
    types = {type(value) for value in values}
    name = {str: "string", int: "integer"}.get(types.pop()) if len(types) == 1 else None
    return {"type": name} if name else {}


def read_part(step: object, data_type: DataType, machine: Machine, value: Value) -> Value:
    """Read a part of a value; an error says at which step."""
    try:
        return data_type.read(machine, value)
    except TypeMismatch as mismatch:
        raise TypeMismatch(mismatch.reason, (str(step), *mismatch.path)) from None


def _elements(machine: Machine, value: Value, expected: type) -> tuple[list[Value], Mark]:
    inner = unbox(value)
    machine.has_converted |= type(inner) is not expected
    if type(inner) not in (ListValue, tuple, SetValue, range):
        name = expected.__name__
        is_iterator = type(inner) is IteratorValue
        msg = f"Input should be a valid {name}{', not an iterator' if is_iterator else ''}"
        raise TypeMismatch(msg)
    return collect(machine, value)


def _make_container(machine: Machine, cls: type, items: list[Value], mark: Mark) -> Value:
    if cls is tuple:
        return add_labels(tuple(items), mark)
    if cls is ListValue:
        container = ListValue(items)
        machine.label_changed(container, mark)
        return container
    bare, inner = machine.strip_all_labels(items)
    if any(type(item).__hash__ is None for item in bare):
        msg = "The elements of a set must be hashable"
        raise TypeMismatch(msg)
    return SetValue(dict.fromkeys(machine.with_clock_checks(bare)), join_labels(mark, inner))


def pay_for_schema(machine: Machine, data_type: DataType) -> None:
    """Pay for the JSON Schema of a type, before it is written."""
    pending, seen = [data_type], {id(data_type)}
    while pending:
        current = pending.pop()
        machine.pay_memory(current.width)
        parts = [part for part in current.mentioned() if id(part) not in seen]
        seen.update(map(id, parts))
        pending += parts


ANYTHING = AnyType()
NOTHING = ScalarType({"type": "none"}, {"type": "null"})
TEXT = ScalarType({"type": "str"}, {"type": "string"}, _LENGTHS | {"pattern"})
for _form in (ArrayType, DictType, LiteralType, TupleType, UnionType):
    _form.__name__ = "GenericAlias"  # as Python names the types of `list[X]` and the like
_SCALARS: dict[type, DataType] = {
    bool: ScalarType({"type": "bool"}, {"type": "boolean"}),
    int: ScalarType({"type": "int"}, {"type": "integer"}, _NUMERIC),
    float: ScalarType({"type": "float"}, {"type": "number"}, _NUMERIC),
    str: TEXT,
    bytes: ScalarType({"type": "bytes"}, {"type": "string", "format": "binary"}, _LENGTHS),
    dt.date: ScalarType({"type": "date"}, {"type": "string", "format": "date"}),
    dt.datetime: ScalarType({"type": "datetime"}, {"type": "string", "format": "date-time"}),
    dt.time: ScalarType({"type": "time"}, {"type": "string", "format": "time"}),
    dt.timedelta: ScalarType({"type": "timedelta"}, {"type": "string", "format": "duration"}),
    ListValue: ArrayType(ListValue, ANYTHING),
    SetValue: ArrayType(SetValue, ANYTHING),
    tuple: ArrayType(tuple, ANYTHING),
    DictValue: DictType(ANYTHING, ANYTHING),
}
_MARKERS: dict[str, DataType] = {
    "Any": ANYTHING,
    **dict.fromkeys(("Dict", "Mapping"), _SCALARS[DictValue]),
    **dict.fromkeys(("List", "Sequence", "Iterable"), _SCALARS[ListValue]),
    "Set": _SCALARS[SetValue],
    "Tuple": _SCALARS[tuple],
}


def as_data_type(value: Value) -> DataType | None:
    """The type that a bare value stands for; `None` if the value is not a type."""
    if isinstance(value, DataType):
        return value
    if isinstance(value, TypeValue):
        return _SCALARS.get(value.types[0])
    if isinstance(value, Marker):
        return _MARKERS.get(value.name)
    return NOTHING if value is None else None


def _data_types(values: Sequence[Value]) -> tuple[DataType, ...] | None:
    types = tuple(t for t in map(as_data_type, values) if t is not None)
    return types if len(types) == len(values) else None


def union_type(members: tuple[Value, ...]) -> DataType | None:
    """`X | Y`, and `Union[X, Y]`."""
    flat: list[Value] = []
    for member in members:
        flat += member.members if type(member) is UnionType else [member]
    options = _data_types(flat)
    return None if options is None else _check_type_size(UnionType(tuple(flat), options))


def _check_type_size(data_type: DataType) -> DataType:
    # A type that a loop built could be exponentially large.
    if data_type.size > _LARGEST:
        msg = f"A type may consist of at most {_LARGEST} types."
        raise ValueError(msg)
    return data_type


def parametrized(generic: Value, arguments: tuple[Value, ...]) -> DataType | None:
    """`list[X]` and the like; `None` if the arguments do not fit the generic type."""
    name = generic.name if isinstance(generic, Marker) else ""
    if name == "Literal":
        return LiteralType(arguments) if all(map(_is_literal, arguments)) and arguments else None
    if name == "Union" or (name == "Optional" and len(arguments) == 1):
        return union_type(arguments if name == "Union" else (*arguments, None))
    data_type = as_data_type(generic)
    is_tuple = isinstance(data_type, ArrayType) and data_type.container_type is tuple
    is_open = is_tuple and arguments[-1:] == (...,)
    inner = _data_types(arguments[:-1] if is_open else arguments)
    match data_type, inner:
        case ArrayType(), tuple() as items if is_tuple and not is_open:
            return _check_type_size(TupleType(items))
        case ArrayType(), (item,):
            return _check_type_size(ArrayType(data_type.container_type, item))
        case DictType(), (key, value):
            return _check_type_size(DictType(key, value))
        case _:
            return None


def _is_literal(value: Value) -> bool:
    return value is None or isinstance(value, str | int | bytes)
