"""Models: what a `BaseModel` statement makes, and the instances of it.

A model is a name and fields. Nothing of it is ever a class of Python, and nothing in it is ever
evaluated but the program's own expressions.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langchain_sequrity.local.interpreter.border import come_in, go_out
from langchain_sequrity.local.interpreter.calls import (
    ATTRIBUTES,
    METHODS,
    MISSING,
    Implementation,
    call_value,
    looking,
    operations,
    precise,
    sized,
)
from langchain_sequrity.local.interpreter.faults import Raised, ValidationError
from langchain_sequrity.local.interpreter.formatting import written_size
from langchain_sequrity.local.interpreter.forms import (
    Form,
    Items,
    Misfit,
    Schema,
    Sequence,
    Union,
    pay_for_schema,
)
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.modules import MODULES
from langchain_sequrity.local.interpreter.values import (
    TYPE_NAMES,
    Builtin,
    DictValue,
    ErrorType,
    ErrorValue,
    ListValue,
    Mark,
    Record,
    SetValue,
    Tagged,
    Value,
    changed_by_calls,
    join,
    tag,
    take,
)

Args = list[Value]
Named = dict[str, Value]
_NO_DEFAULT = object()
_MISSING = "Field required"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a model.

    Attributes:
        form: Its type.
        default: Its value where none is given.
        factory: A function that makes it, in place of `default`.
        notes: What its JSON Schema says besides the type, such as `description`.
    """

    form: Form
    default: Value = _NO_DEFAULT
    factory: Value = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_required(self) -> bool:
        """Whether a value must be given."""
        return self.default is _NO_DEFAULT and self.factory is None


@dataclass(eq=False, slots=True, repr=False)
class Model(Form):
    """What a `BaseModel` statement makes; see `classes`."""

    name: str
    fields: dict[str, Field]
    parents: tuple["Model", ...] = ()
    description: str = ""
    ancestry: tuple["Model", ...] = field(init=False)

    def __post_init__(self) -> None:
        """Note the model and all it is derived from, each once."""
        above = (one for parent in self.parents for one in parent.ancestry)
        self.ancestry = tuple(dict.fromkeys((self, *above)))

    def mentioned(self) -> tuple[Form, ...]:
        """The forms of its fields."""
        return tuple(field.form for field in self.fields.values())

    @property
    def width(self) -> int:
        """That of its names and notes."""
        notes = [written_size(note) for one in self.fields.values() for note in one.notes.values()]
        return 500 + 400 * len(self.fields) + 2 * sum(notes) + len(self.description)

    def schema(self, definitions: Schema) -> Schema:
        """A reference; the object itself goes to `definitions`."""
        if self.name not in definitions:
            definitions[self.name] = {}  # ends the recursion of a model that holds itself
            definitions[self.name] = self._object(definitions)
        return {"$ref": f"#/$defs/{self.name}"}

    def json_schema(self) -> Schema:
        """The object itself, unless it refers to itself."""
        definitions: Schema = {}
        self.schema(definitions)
        if f'"#/$defs/{self.name}"' in json.dumps(definitions):
            return {"$defs": definitions, "$ref": f"#/$defs/{self.name}"}
        own = definitions.pop(self.name)
        return {"$defs": definitions, **own} if definitions else dict(own)

    def _object(self, definitions: Schema) -> Schema:
        properties = {
            name: {**one.form.schema(definitions), **one.notes} for name, one in self.fields.items()
        }
        schema: Schema = {"title": self.name, "type": "object", "properties": properties}
        required = [name for name, one in self.fields.items() if one.is_required]
        if required:
            schema["required"] = required
        if self.description:
            schema["description"] = self.description
        return schema

    def read(self, machine: Machine, value: Value, *, is_exact: bool = False) -> Value:
        """Take an instance as it is, and make one of a dict."""
        inner, mark = take(value)
        if type(inner) is Record and self in inner.model.ancestry:
            return value
        if type(inner) is not DictValue:
            msg = f"Input should be a valid dictionary or instance of {self.name}"
            raise Misfit(msg)
        return self.make(machine, inner, mark, is_exact=is_exact)

    def make(
        self, machine: Machine, given: Mapping[str, Value], mark: Mark, *, is_exact: bool = False
    ) -> Record:
        """Make an instance of values by name; names it does not know are left out."""
        machine.make_items(len(self.fields), 100)
        fields: dict[str, Value] = {}
        for name, one in self.fields.items():
            if name in given:
                try:
                    fields[name] = one.form.read(machine, given[name], is_exact=is_exact)
                except Misfit as misfit:
                    raise misfit.within(name) from None
            elif one.factory is not None:
                make = partial(call_value, machine, one.factory, [], {})
                fields[name] = machine.under(mark, make)
            elif one.is_required:
                raise Misfit(_MISSING, (name,))
            else:
                fields[name] = _fresh(machine, one.default)
        return Record(self, fields, mark)

    def instantiate(self, machine: Machine, args: Args, named: Named) -> Value:
        """`Item(name="a")`."""
        if args:
            machine.fail(TypeError, f"{self.name}() takes keyword arguments only")
        given = DictValue(named)
        machine.mark(given, None)  # which names there are was decided by the open branches
        return validated(machine, self, given)


def _fresh(machine: Machine, value: Value) -> Value:
    """A copy of a default, so that instances do not share lists."""
    kind = type(value)
    if kind is Tagged:
        return tag(_fresh(machine, value.value), value.labels)
    made: Value
    if kind is ListValue:
        machine.make_items(len(value))
        made = ListValue(_fresh(machine, item) for item in value)
    elif kind is DictValue:
        machine.make_items(len(value), 100)
        made = DictValue((key, _fresh(machine, item)) for key, item in value.items())
    elif kind is SetValue:
        machine.make_items(len(value), 100)
        made = SetValue(dict(value.items))
    else:
        return value
    machine.mark(made, value.labels)
    return made


def validated(machine: Machine, form: Form, value: Value) -> Value:
    """The value as this type, or a `ValidationError` of the program."""
    mark = machine.bare(value)[1]
    machine.may_fail(mark)
    _decide_on_defaults(machine, form, mark)
    try:
        return form.read(machine, value)
    except Misfit as misfit:
        name = form.name if isinstance(form, Model) else "value"
        path = ".".join(misfit.path) or "value"
        text = f"1 validation error for {name}\n{path}\n  {misfit.reason}"
        kind = ErrorType("ValidationError", ValidationError)
        # It looked at any part of the value to find what does not fit, and read its iterators.
        mark = machine.bare(value)[1]
        raise Raised(ErrorValue(kind, (text,), join(mark, machine.branch))) from None
    finally:
        _decide_on_defaults(machine, form, machine.bare(value)[1])


def _decide_on_defaults(machine: Machine, form: Form, mark: Mark) -> None:
    """Note that a value decides how often its form calls functions that make defaults."""
    if mark is None:
        return
    for factory in _factories(form):
        machine.steer(mark)
        for changed in changed_by_calls(factory):
            machine.mark(changed, mark)


def _factories(form: Form) -> Iterator[Value]:
    """The functions of the program that reading a value may call."""
    waiting, seen = [form], {id(form)}
    while waiting:
        one = waiting.pop()
        if isinstance(one, Model):
            yield from (f.factory for f in one.fields.values() if f.factory is not None)
        parts = [part for part in one.mentioned() if id(part) not in seen]
        seen.update(map(id, parts))
        waiting += parts


def plain(machine: Machine, value: Value) -> Value:
    """A value with dicts in place of instances, each element with its labels."""
    inner, mark = take(value)
    kind = type(inner)
    if kind is Record:
        return tag(plain_fields(machine, inner), mark)
    if kind is ListValue:
        machine.make_items(len(inner))
        return tag(ListValue(plain(machine, item) for item in inner), mark)
    if kind is tuple:
        machine.make_items(len(inner))
        return tag(tuple(plain(machine, item) for item in inner), mark)
    if kind is DictValue:
        machine.make_items(len(inner), 100)
        return tag(DictValue((k, plain(machine, item)) for k, item in inner.items()), mark)
    return value


def plain_fields(machine: Machine, record: Record) -> DictValue[str, Value]:
    """The fields of an instance as a dict."""
    machine.make_items(len(record.fields), 100)
    return DictValue((name, plain(machine, item)) for name, item in record.fields.items())


def _only(machine: Machine, name: str, args: Args, named: Named, *allowed: str) -> None:
    if len(args) > 1 or any(key not in allowed for key in named):
        options = ", ".join(allowed) or "none"
        machine.fail(TypeError, f"{name}() has other options; here there are: {options}")


def _dump(machine: Machine, args: Args, named: Named) -> Value:
    _only(machine, "model_dump", args, named, "exclude_none")
    inner, mark = take(args[0])
    fields = plain_fields(machine, inner)
    without, without_mark = take(named.get("exclude_none", False))
    if without:
        kept = [(name, item) for name, item in fields.items() if take(item)[0] is not None]
        for item in fields.values():
            mark = join(mark, take(item)[1])
        fields = DictValue(kept)
    return tag(fields, join(mark, without_mark))


def _dump_json(machine: Machine, args: Args, named: Named) -> Value:
    _only(machine, "model_dump_json", args, named, "indent")
    out = go_out(machine, _dump(machine, args, {}))
    dumps: Implementation = MODULES["json"]["dumps"].call
    indent = named.get("indent")
    separators = (",", ":") if indent is None else (",", ": ")
    options = {"indent": indent, "separators": separators, "ensure_ascii": False}
    return dumps(machine, [come_in(machine, out)], options)


def _copy(machine: Machine, args: Args, named: Named) -> Value:
    _only(machine, "model_copy", args, named, "update", "deep")
    inner, mark = take(args[0])
    update, update_mark = take(named.get("update"))
    update = DictValue() if update is None else update
    if type(update) is not DictValue or any(key not in inner.fields for key in update):
        machine.fail(TypeError, "model_copy() takes an update of fields that there are")
    fields = {name: _fresh(machine, value) for name, value in inner.fields.items()}
    return Record(inner.model, {**fields, **update}, join(mark, update_mark))


def _validate(machine: Machine, args: Args, named: Named) -> Value:
    if len(args) != 2 or named:  # noqa: PLR2004 - the model and one value
        machine.fail(TypeError, "model_validate() takes one value")
    return validated(machine, args[0], args[1])


def _validate_json(machine: Machine, args: Args, named: Named) -> Value:
    model, *given = args
    loads: Implementation = MODULES["json"]["loads"].call
    return _validate(machine, [model, loads(machine, given, named)], {})


def _schema(machine: Machine, model: Model) -> Schema:
    pay_for_schema(machine, model)
    return model.json_schema()


_OF_MODELS = operations(
    {
        "model_validate": precise(_validate),
        "model_validate_json": _validate_json,
        "model_json_schema": sized(_schema),
    }
)


def _model_attribute(model: Model, name: str) -> Value:
    function = _OF_MODELS.get(name)
    if function is None:
        return MISSING
    return Builtin(name, lambda machine, args, named: function(machine, [model, *args], named))


METHODS[Record] = operations(
    {
        "model_copy": precise(_copy),
        "model_dump": precise(_dump),
        "model_dump_json": looking(_dump_json),
    }
)
RESERVED = frozenset({*METHODS[Record], *_OF_MODELS})
ATTRIBUTES[Record] = lambda record, name: record.fields.get(name, MISSING)
ATTRIBUTES[Model] = _model_attribute
TYPE_NAMES[Model] = "ModelMetaclass"
for _form in (Items, Sequence, Union):
    TYPE_NAMES[_form] = "GenericAlias"
