"""The classes a state field may hold, their forms in JSON, and their JSON Schemas.

A form is a name, what stands under `value`, and a function each way. Readers get input from
outside: they raise whatever they like for what they cannot read, and run no code of a user's.

Values come back from the service as JSON, and JSON is data that somebody else may have written. So
an object is only made of a class that the field's own annotation names (or of a subclass of it),
and messages only in fields that are annotated with messages.

A schema says what an annotation says, and what the executor itself may send in the place of such a
value: `ABSENT`, and the forms of what JSON lacks (`values`). LangGraph does not hold nodes to
annotations, so a schema tells and enforces nothing, and `None` is in each. What is not known for
sure is left open: fields of a pydantic model too, for it makes its values of others, such as 1 of
"1", only for a node.
"""

import base64
import dataclasses
import datetime as dt
import inspect
import zoneinfo
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Required,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)
from uuid import UUID

from langchain_core.messages import BaseMessage
from langgraph.types import Overwrite
from pydantic import BaseModel, RootModel
from typing_extensions import ReadOnly, TypeAliasType, is_typeddict

from langchain_sequrity.graph.program import ABSENT, Plan


class Form(NamedTuple):
    """How objects of one class are written."""

    name: str
    payload: type | None  # what stands under `value`; `None` for anything
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    is_unordered: bool = False


def _same(value: Any) -> Any:
    return value


def _pairs(value: Mapping[Any, Any]) -> list[list[Any]]:
    return [[key, item] for key, item in value.items()]


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _read_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _write_datetime(value: dt.datetime) -> str:
    """ISO 8601; a named zone follows in brackets, as RFC 9557 has it."""
    zone = value.tzinfo.key if isinstance(value.tzinfo, zoneinfo.ZoneInfo) else None
    return f"{value.isoformat()}[{zone}]" if zone else value.isoformat()


def _read_datetime(text: str) -> dt.datetime:
    iso, _, zone = text.partition("[")
    value = dt.datetime.fromisoformat(iso)
    if not zone:
        return value
    first = value.replace(tzinfo=zoneinfo.ZoneInfo(zone.removesuffix("]")))
    # An hour that is there twice is told apart by its offset.
    return first if first.utcoffset() == value.utcoffset() else first.replace(fold=1)


def _read_absent(text: str) -> str:
    if text != ABSENT:
        msg = "a text that needs no escape"
        raise ValueError(msg)
    return text


_FORMS: dict[type | None, Form] = {
    None: Form("str", str, _same, _read_absent),
    int: Form("int", str, hex, lambda text: int(text, 16)),
    dict: Form("dict", list, _pairs, dict),
    tuple: Form("tuple", list, list, tuple),
    set: Form("set", list, list, set, is_unordered=True),
    frozenset: Form("frozenset", list, list, frozenset, is_unordered=True),
    deque: Form("deque", list, lambda one: [one.maxlen, *one], lambda row: deque(row[1:], row[0])),
    OrderedDict: Form("OrderedDict", list, _pairs, OrderedDict),
    Counter: Form("Counter", list, _pairs, lambda pairs: Counter(dict(pairs))),
    bytes: Form("bytes", str, _write_bytes, _read_bytes),
    bytearray: Form("bytearray", str, _write_bytes, lambda text: bytearray(_read_bytes(text))),
    dt.datetime: Form("datetime", str, _write_datetime, _read_datetime),
    dt.date: Form("date", str, dt.date.isoformat, dt.date.fromisoformat),
    dt.time: Form("time", str, dt.time.isoformat, dt.time.fromisoformat),
    dt.timedelta: Form(
        "timedelta", list, lambda one: [one.days, one.seconds, one.microseconds],
        lambda parts: dt.timedelta(*parts),
    ),
    Decimal: Form("Decimal", str, str, Decimal),
    UUID: Form("UUID", str, str, UUID),
    type(Path()): Form("Path", str, str, Path),
    Overwrite: Form("overwrite", None, lambda value: value.value, Overwrite),
}  # fmt: skip
BY_CLASS = {cls: form for cls, form in _FORMS.items() if cls is not None}
BY_NAME = {form.name: form for form in _FORMS.values()}


Shape = Literal["model", "record", "tuple", "enum"]


@dataclass(frozen=True, slots=True)
class Kinds:
    """What a field may hold beside plain data.

    Attributes:
        messages: Whether it may hold LangChain's messages.
        classes: Pydantic models, dataclasses, named tuples and enums.
    """

    messages: bool = False
    classes: frozenset[type] = frozenset()
    _names: dict[str, type] = field(default_factory=dict, compare=False, repr=False)

    def join(self, other: "Kinds") -> "Kinds":
        """What a place may hold that takes values of both."""
        return Kinds(self.messages or other.messages, self.classes | other.classes)

    def name(self, cls: type) -> str | None:
        """The name of a class on the wire, or `None` if the field may not hold it."""
        known = self._names.get(cls.__name__) or self.find(cls.__name__)
        return cls.__name__ if known is cls else None

    def find(self, name: str) -> type | None:
        """The class of that name, or `None`: there is none, or more than one."""
        if name not in self._names:
            found = {cls for cls in _with_subclasses(self.classes) if cls.__name__ == name}
            if len(found) != 1:
                return None
            self._names[name] = found.pop()
        return self._names[name]


def kinds_of(annotations: Iterable[Any]) -> Kinds:
    """Read what fields with these annotations may hold."""
    seen: set[int] = set()
    classes: set[type] = set()
    messages = False
    # The list keeps every annotation alive, so that no id is used twice.
    todo = list(annotations)
    for one in todo:
        if id(one) in seen:
            continue
        seen.add(id(one))
        if inspect.isclass(one) and get_origin(one) is None:
            if issubclass(one, BaseMessage):
                messages = True
                continue
            if form_of(one) is not None:
                classes.add(one)
        todo.extend(_inside(one))
    return Kinds(messages, frozenset(classes))


def form_of(cls: type) -> Shape | None:
    """How objects of a class are written; `None` if they are not."""
    if issubclass(cls, BaseModel):
        return "model" if cls is not BaseModel else None
    if dataclasses.is_dataclass(cls):
        return "record"
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return "tuple"
    if issubclass(cls, Enum):
        return "enum" if len(cls) else None
    return None


def take_apart(value: Any, form: Shape) -> Mapping[str, Any] | None:
    """Read the fields of an object; `None` if they do not say all that it holds."""
    match form:
        case "model":
            return _model_fields(value)
        case "record":
            return _record_fields(value)
        case "tuple":
            return dict(zip(value._fields, value, strict=True))
        case "enum":
            return {"name": value.name}


def put_together(cls: type, fields: Mapping[str, Any]) -> Any:
    """Make an object of its fields, through the class's own checks.

    Raises:
        Exception: Whatever the class raises for fields that it does not accept.
    """
    match form_of(cls):
        case "model":
            return _make_model(cls, fields)
        case "record":
            return _make_record(cls, fields)
        case "enum":
            return cls[fields["name"]]  # type: ignore[index] # an Enum
        case _:
            return cls(**fields)


def _model_fields(value: BaseModel) -> Mapping[str, Any] | None:
    cls = type(value)
    private = value.__pydantic_private__ or {}
    for name, attribute in cls.__private_attributes__.items():
        if attribute.default_factory or private.get(name, attribute.default) != attribute.default:
            return None
    # A default that nobody set stays unset, as `model_dump(exclude_unset=True)` shows it.
    fields = {
        name: getattr(value, name)
        for name, info in cls.model_fields.items()
        if name in value.model_fields_set or getattr(value, name) != info.default
    }
    return {**fields, **(value.model_extra or {})}


def _make_model(cls: Any, fields: Mapping[str, Any]) -> Any:
    if issubclass(cls, RootModel):
        return cls.model_validate(fields["root"])
    if any(info.validation_alias or info.alias for info in cls.model_fields.values()):
        return cls.model_validate(fields, by_alias=False, by_name=True)
    return cls.model_validate(fields)


def _record_fields(value: Any) -> Mapping[str, Any] | None:
    cls = type(value)
    names = {one.name for one in dataclasses.fields(cls)}
    parameters: Mapping[str, Any] = inspect.signature(cls).parameters
    for name, parameter in parameters.items():
        if name not in names and parameter.default is inspect.Parameter.empty:
            return None
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _make_record(cls: Any, fields: Mapping[str, Any]) -> Any:
    known = {one.name: one.init for one in dataclasses.fields(cls)}
    if unknown := fields.keys() - known.keys():
        msg = f"unknown fields {sorted(unknown)}"
        raise ValueError(msg)
    made = cls(**{name: value for name, value in fields.items() if known[name]})
    for name, value in fields.items():
        if not known[name]:
            object.__setattr__(made, name, value)
    return made


def _with_subclasses(classes: Iterable[type]) -> Iterator[type]:
    for cls in classes:
        yield cls
        yield from _with_subclasses(type.__subclasses__(cls))


def _inside(annotation: Any) -> Iterator[Any]:
    """The annotations within one: arguments, fields, what an alias stands for."""
    if isinstance(annotation, TypeVar):
        yield from annotation.__constraints__
        yield annotation.__bound__
    elif isinstance(annotation, TypeAliasType):
        yield annotation.__value__
    elif get_origin(annotation) is Literal:
        yield from (type(value) for value in get_args(annotation) if isinstance(value, Enum))
    elif get_origin(annotation) is Annotated:
        yield get_args(annotation)[0]
    elif hasattr(annotation, "__supertype__"):
        yield annotation.__supertype__
    elif inspect.isclass(annotation) and get_origin(annotation) is None:
        yield from _fields(annotation)
    else:
        yield get_origin(annotation)
        for argument in get_args(annotation):
            # The parameters of a `Callable` come as a list.
            yield from argument if isinstance(argument, list) else [argument]


def _fields(cls: Any) -> Iterable[Any]:
    if issubclass(cls, BaseModel):
        return [info.annotation for info in cls.model_fields.values()]
    if is_typeddict(cls) or form_of(cls) in {"record", "tuple"}:
        try:
            return get_type_hints(cls, include_extras=True).values()
        except NameError:  # names that nobody can resolve hold nothing that we could make
            return []
    return []


Schema = dict[str, Any]

_TYPES: dict[Any, str] = {
    str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null",
    dict: "object", Mapping: "object", list: "array",
}  # fmt: skip
_NULL: Schema = {"type": "null"}
_ABSENT: Schema = {"const": ABSENT}
_FORM: Schema = {"type": "object"}  # of integers beyond 64 bits, and of the text `ABSENT` itself
_SUMS: dict[type, str] = {int: "number", str: "string", list: "array"}
_MOST = 8
"""Alternatives that are told; a union of more is left open."""
_DEEPEST = 4
_WRAPPERS = (Annotated, Required, NotRequired, ReadOnly)


def schema_of(annotations: Iterable[Any], plan: Plan) -> Schema:
    """The schema of a field as an argument of a tool.

    Args:
        annotations: What the graph's schemas say about it.
        plan: How it is carried.

    Returns:
        The schema; an empty one where nothing is known for sure.
    """
    if plan.kind == "log":
        return {"type": "array"}
    if plan.kind == "sum":
        return {"type": _SUMS[type(plan.zero)]}
    found = _union(list(annotations), 0)
    if not found:
        return {}
    others = [_NULL] if {"type": "string"} in found else [_NULL, _ABSENT]
    return {"anyOf": [*found, *(one for one in others if one not in found)]}


def _union(annotations: Sequence[Any], depth: int) -> list[Schema] | None:
    """The alternatives of several annotations; `None` if one of them is open."""
    found: list[Schema] = []
    for one in annotations:
        several = _alternatives(one, depth)
        if several is None:
            return None
        found += [schema for schema in several if schema not in found]
    return found if len(found) <= _MOST else None


def _alternatives(annotation: Any, depth: int) -> list[Schema] | None:
    annotation = _unwrapped(annotation)
    origin, inside = get_origin(annotation), get_args(annotation)
    if depth > _DEEPEST:
        return None
    if origin is Union or origin is UnionType:
        return _union(inside, depth + 1)
    if origin is Literal:
        return _literal(inside)
    if origin is list:
        items = _union(inside, depth + 1)
        return [{"type": "array", "items": _any_of(items)}] if items else [{"type": "array"}]
    return _plain(annotation if origin is None else origin)


def _unwrapped(annotation: Any) -> Any:
    """What an annotation is of, without what stands around it and names for it."""
    for _ in range(_DEEPEST):
        if isinstance(annotation, TypeAliasType):
            annotation = annotation.__value__
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif get_origin(annotation) in _WRAPPERS:
            annotation = get_args(annotation)[0]
        else:
            break
    return annotation


def _plain(kind: Any) -> list[Schema] | None:
    """The alternatives of a class without arguments."""
    if kind is None:
        return [_NULL]
    if (name := _TYPES.get(kind) if isinstance(kind, Hashable) else None) is not None:
        known: Schema = {"type": name}
        return [known] if kind not in (str, int) else [known, _FORM]
    if not inspect.isclass(kind):
        return None
    is_object = is_typeddict(kind) or kind in BY_CLASS
    is_object = is_object or (kind is not BaseModel and form_of(kind) is not None)
    return [_FORM] if is_object else None


def _literal(values: Sequence[Any]) -> list[Schema] | None:
    if len(values) > _MOST or not all(isinstance(one, str | int | bool | None) for one in values):
        return None
    plain = [one for one in values if type(one) in (str, int, bool, NoneType)]
    return [{"enum": plain}] if len(plain) == len(values) and ABSENT not in plain else None


def _any_of(alternatives: Sequence[Schema]) -> Schema:
    return dict(alternatives[0]) if len(alternatives) == 1 else {"anyOf": list(alternatives)}
