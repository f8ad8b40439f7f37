"""State values as JSON, and back.

LangGraph keeps any object in a state. Each class has one of these forms in JSON:

- Plain JSON stays as it is.
- What JSON lacks is an object with one reserved key, `{"__type__": "set", "value": […]}`. A user's
  dict with this key, or with a key that is not a text, is written as
  `{"__type__": "dict", "value": [[key, value], …]}`.
- An object of a class that the field's annotation names is written with its fields.
- Any other object stays on the client. The service gets a handle, with the name of the class and
  what pydantic can show of the object, so that policies see that. Its labels are those of the value
  that holds it. The user's checkpointer stores the object, as LangGraph stores the state.

Values come back from the service as JSON, and JSON is data that somebody else may have written. So
an object is only made of a class that the field's own annotation names, or of a subclass. Messages
are only made in fields that are annotated with messages. A handle must be that of an object of this
run. Readers raise any exception for what they cannot read, and run no code of a user.
"""

import base64
import dataclasses
import datetime as dt
import hashlib
import inspect
import io
import json
import math
import pickle
import sys
import types
import zoneinfo
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from functools import cached_property, partial
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NoReturn,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)
from uuid import UUID, uuid4

import ormsgpack
from langchain_core import messages as lc
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Overwrite
from pydantic import BaseModel, RootModel
from pydantic_core import to_jsonable_python
from typing_extensions import TypeAliasType, is_typeddict, override

from langchain_sequrity import _compat
from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply, UsageError
from langchain_sequrity.graph.limits import VALUE_DEPTH
from langchain_sequrity.graph.program import ABSENT
from langchain_sequrity.labels import LabeledUpdate


class Encoding(NamedTuple):
    """How objects of one class become JSON."""

    name: str
    payload: type | None  # type of `value`; `None` for any
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    is_unordered: bool = False


def _unchanged(value: Any) -> Any:
    return value


def _pairs(value: Mapping[Any, Any]) -> list[list[Any]]:
    return [[key, item] for key, item in value.items()]


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _read_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _write_datetime(value: dt.datetime) -> str:
    """ISO 8601; the name of a zone follows in brackets, as in RFC 9557."""
    zone = value.tzinfo.key if isinstance(value.tzinfo, zoneinfo.ZoneInfo) else None
    return f"{value.isoformat()}[{zone}]" if zone else value.isoformat()


def _read_datetime(text: str) -> dt.datetime:
    iso, _, zone = text.partition("[")
    value = dt.datetime.fromisoformat(iso)
    if not zone:
        return value
    first = value.replace(tzinfo=zoneinfo.ZoneInfo(zone.removesuffix("]")))
    # The offset distinguishes the two hours with one name when clocks go back.
    return first if first.utcoffset() == value.utcoffset() else first.replace(fold=1)


def _read_absent(text: str) -> str:
    if text != ABSENT:
        msg = "a text that needs no escape"
        raise ValueError(msg)
    return text


_ENCODINGS: dict[type | None, Encoding] = {
    None: Encoding("str", str, _unchanged, _read_absent),
    int: Encoding("int", str, hex, lambda text: int(text, 16)),
    dict: Encoding("dict", list, _pairs, dict),
    tuple: Encoding("tuple", list, list, tuple),
    set: Encoding("set", list, list, set, is_unordered=True),
    frozenset: Encoding("frozenset", list, list, frozenset, is_unordered=True),
    deque: Encoding(
        "deque", list, lambda one: [one.maxlen, *one], lambda row: deque(row[1:], row[0])
    ),
    OrderedDict: Encoding("OrderedDict", list, _pairs, OrderedDict),
    Counter: Encoding("Counter", list, _pairs, lambda pairs: Counter(dict(pairs))),
    bytes: Encoding("bytes", str, _write_bytes, _read_bytes),
    bytearray: Encoding("bytearray", str, _write_bytes, lambda text: bytearray(_read_bytes(text))),
    dt.datetime: Encoding("datetime", str, _write_datetime, _read_datetime),
    dt.date: Encoding("date", str, dt.date.isoformat, dt.date.fromisoformat),
    dt.time: Encoding("time", str, dt.time.isoformat, dt.time.fromisoformat),
    dt.timedelta: Encoding(
        "timedelta", list, lambda one: [one.days, one.seconds, one.microseconds],
        lambda parts: dt.timedelta(*parts),
    ),
    Decimal: Encoding("Decimal", str, str, Decimal),
    UUID: Encoding("UUID", str, str, UUID),
    type(Path()): Encoding("Path", str, str, Path),
    Overwrite: Encoding("overwrite", None, lambda value: value.value, Overwrite),
}  # fmt: skip

BY_CLASS = {cls: form for cls, form in _ENCODINGS.items() if cls is not None}

BY_NAME = {form.name: form for form in _ENCODINGS.values()}

ObjectKind = Literal["model", "record", "tuple", "enum"]


@dataclass(frozen=True, slots=True)
class AllowedTypes:
    """What a field may hold besides plain data, by its annotations.

    Attributes:
        messages: Whether it may hold LangChain's messages.
        classes: Pydantic models, dataclasses, named tuples and enums.
    """

    messages: bool = False
    classes: frozenset[type] = frozenset()
    _names: dict[str, type] = field(default_factory=dict, compare=False, repr=False)

    def join(self, other: "AllowedTypes") -> "AllowedTypes":
        """The union of both."""
        return AllowedTypes(self.messages or other.messages, self.classes | other.classes)

    def name(self, cls: type) -> str | None:
        """The name of a class in JSON; `None` if the field may not hold it."""
        return cls.__name__ if self.find(cls.__name__) is cls else None

    def find(self, name: str) -> type | None:
        """The class with this name; `None` if there is not exactly one."""
        if name not in self._names:
            found = {cls for cls in _with_subclasses(self.classes) if cls.__name__ == name}
            if len(found) != 1:
                return None
            self._names[name] = found.pop()
        return self._names[name]


def allowed_types(annotations: Iterable[Any]) -> AllowedTypes:
    """Find out what a field with these annotations may hold."""
    seen: set[int] = set()
    classes: set[type] = set()
    messages = False
    # The list keeps every annotation alive, so no id is used twice.
    todo = list(annotations)
    for one in todo:
        if id(one) in seen:
            continue
        seen.add(id(one))
        if inspect.isclass(one) and get_origin(one) is None:
            if issubclass(one, lc.BaseMessage):
                messages = True
                continue
            if object_kind(one) is not None:
                classes.add(one)
        todo.extend(_inner_annotations(one))
    return AllowedTypes(messages, frozenset(classes))


def object_kind(cls: type) -> ObjectKind | None:
    """The kind of a class; `None` if its objects do not become JSON."""
    if issubclass(cls, BaseModel):
        return "model" if cls is not BaseModel else None
    if dataclasses.is_dataclass(cls):
        return "record"
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return "tuple"
    if issubclass(cls, Enum):
        return "enum" if len(cls) else None
    return None


def object_fields(value: Any, form: ObjectKind) -> Mapping[str, Any] | None:
    """The fields of an object; `None` if they are not all of its content."""
    match form:
        case "model":
            return _model_fields(value)
        case "record":
            return _record_fields(value)
        case "tuple":
            return dict(zip(value._fields, value, strict=True))
        case "enum":
            return {"name": value.name}


def make_object(cls: type, fields: Mapping[str, Any]) -> Any:
    """Make an object from its fields, with the class's own checks.

    Raises:
        Exception: Any exception of the class for fields that it does not accept.
    """
    match object_kind(cls):
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
    if _attributes_beside(value, cls.model_fields):
        return None
    # Unset fields stay unset, as in `model_dump(exclude_unset=True)`.
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
    fields = {name: getattr(value, name) for name in names if hasattr(value, name)}
    if beside := _attributes_beside(value, names):
        with suppress(Exception):  # the class's own code may raise anything
            if beside == _attributes_beside(_make_record(cls, fields), names):
                return fields  # `__post_init__` sets them again
        return None
    return fields


def _attributes_beside(value: Any, fields: Container[str]) -> dict[str, Any]:
    """The attributes of an object that are not fields, without the caches of its properties."""
    cls = type(value)
    return {
        name: one
        for name, one in getattr(value, "__dict__", {}).items()
        if name not in fields and not isinstance(getattr(cls, name, None), cached_property)
    }


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


def _inner_annotations(annotation: Any) -> Iterator[Any]:
    """The annotations within one: arguments, fields, the value of an alias."""
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
            # The parameters of a `Callable` are a list.
            yield from argument if isinstance(argument, list) else [argument]


def _fields(cls: Any) -> Iterable[Any]:
    if issubclass(cls, BaseModel):
        return [info.annotation for info in cls.model_fields.values()]
    if is_typeddict(cls) or object_kind(cls) in {"record", "tuple"}:
        try:
            return get_type_hints(cls, include_extras=True).values()
        except NameError:  # no class can be made from a name that cannot be resolved
            return []
    return []


_SERDE = JsonPlusSerializer()  # as the checkpointer's: equal bytes mean equal objects

_here: ContextVar["ObjectHandles | None"] = ContextVar("objects of the run", default=None)


_PLAIN_ONLY = (
    ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)


def plain_bytes(value: Any) -> bytes | None:
    """Lists, dicts, texts, bytes and numbers as bytes; `None` if there is anything else in it."""
    try:
        return ormsgpack.packb(value, option=_PLAIN_ONLY)
    except TypeError:
        return None


class _ContentPickler(pickle.Pickler):
    """Pickles an object to compare it: all of its content, whatever its class would store.

    What is global is only named: classes, modules, functions without variables.
    """

    @override
    def persistent_id(self, obj: Any) -> int | None:
        if isinstance(obj, types.FunctionType):
            return None if _variables_of(obj) else id(obj)
        return id(obj) if isinstance(obj, type | types.ModuleType) else None

    @override
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.FunctionType):
            return object, (), (id(obj), _variables_of(obj))
        cls = type(obj)
        if all(getattr(cls, name) is getattr(object, name) for name in _PICKLING):
            return NotImplemented
        if cls.__module__.partition(".")[0] in sys.stdlib_module_names:
            return NotImplemented  # all of their content; other attributes are caches
        # An exception reduces to another form once its `__dict__` was read, so that comes first.
        attributes = getattr(obj, "__dict__", None), _slots_of(obj)
        reduced = obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        if not isinstance(reduced, str):  # an iterator refers to the object alone
            reduced = [list(part) if isinstance(part, Iterator) else part for part in reduced]
        return object, (), (reduced, attributes)


_PICKLING = ("__reduce_ex__", "__reduce__", "__getstate__")


def _variables_of(function: types.FunctionType) -> list[Any]:
    """What a function can change besides global variables."""
    cells = [_compat.cell_value(cell) for cell in function.__closure__ or ()]
    variables = (cells, function.__defaults__, function.__kwdefaults__, function.__dict__)
    return [values for values in variables if values]


def _slots_of(value: Any) -> list[Any]:
    return [
        (name, getattr(value, name, None))
        for cls in type(value).__mro__
        for name, attribute in vars(cls).items()
        if isinstance(attribute, types.MemberDescriptorType)
    ]


class _Attributes:
    """The size of an object that has nothing but attributes."""


def _has_only_attributes(cls: type) -> bool:
    """Whether all of an object of a class is in its `__dict__`: no slots, no data of C code."""
    sizes = (cls.__basicsize__, cls.__itemsize__, cls.__dictoffset__)
    if sizes != (_Attributes.__basicsize__, 0, _Attributes.__dictoffset__):
        return False
    # A slot may have the place of the list of weak references.
    return not any(vars(base).get("__slots__") for base in cls.__mro__)


def content_digest(value: Any) -> bytes | None:
    """All that can be reached from an object, or its digest, for this process; `None` if unknown.

    What is stored of an object is not all of it: a dataclass is stored without other attributes,
    and a class may leave out what it likes.
    """
    cls = type(value)
    plain_content = None
    if isinstance(value, BaseModel):
        extra, private = value.__pydantic_extra__, value.__pydantic_private__
        plain_content = plain_bytes([id(cls), vars(value), extra, private])
    elif _has_only_attributes(cls):
        plain_content = plain_bytes([id(cls), vars(value)])
    if plain_content is not None:
        return plain_content
    data = io.BytesIO()
    try:
        _ContentPickler(data, pickle.HIGHEST_PROTOCOL).dump(value)
    except Exception:  # noqa: BLE001 - the object's own code may raise anything
        return None
    return hashlib.sha256(data.getbuffer()).digest()


_NEVER = object()


class ObjectHandles:
    """The objects of a run, by handle. A handle is for an object with its content.

    Attributes:
        known: Handle → object.
        fresh: Those of them that must be stored, as copies: a node may change the object.
        serde: The serializer of the checkpointer; without one, that of the cache.
    """

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.serde: Any = None
        self._stored: dict[str, Any] = {}
        self._handles: dict[tuple[int, str, bytes | None], str] = {}
        self._contents: dict[str, bytes | None] = {}
        self._given: dict[int, Any] = {}
        self._numbers: Counter[str] = Counter()
        self.fresh: dict[str, Any] = {}

    @contextmanager
    def in_use(self) -> Iterator["ObjectHandles"]:
        """Make these the current objects. `fresh` has those that must be stored."""
        in_use = object.__new__(ObjectHandles)  # `copy.copy` takes several times as long
        in_use.__dict__ = {**self.__dict__, "fresh": {}}
        token = _here.set(in_use)
        try:
            yield in_use
        finally:
            _here.reset(token)

    def load(self, stored: Mapping[str, Any]) -> None:
        """Add stored objects. A node gets a copy, so what is stored stays as it is."""
        for handle, value in stored.items():
            if handle not in self.known:
                copied = self._stored_form(value)[1]
                self.known[handle] = value if copied is None else copied()
        self._stored.update(stored)

    def as_stored(self) -> "ObjectHandles":
        """The objects as they were before a node changed them."""
        stored = ObjectHandles()
        stored.known = self._stored
        return stored

    def handle(self, value: Any) -> str:
        """The handle of an object with its content. Equal objects have handles of their own."""
        digest, copied = self._stored_form(value)
        content = content_digest(value)
        handle = self._handles.get((id(value), digest, content))
        if handle is None or self.known[handle] is not value:
            handle = self._new_handle(digest)
            self._handles[id(value), digest, content] = handle
        if copied is not None and handle not in self._stored:
            self.fresh[handle] = value if self.serde is None else copied()
        self.known[handle], self._contents[handle] = value, content
        return handle

    def _new_handle(self, digest: str) -> str:
        if not digest:
            return uuid4().hex
        number = self._numbers[digest]
        self._numbers[digest] += 1
        return f"{digest}.{number}" if number else digest

    def find(self, handle: str) -> Any:
        """The object of a handle.

        Raises:
            KeyError: If the run does not have it.
            _ChangedObjectError: If its content is no longer that of the handle.
        """
        value = self.known[handle]
        content = content_digest(value)
        if self._contents.setdefault(handle, content) != content:
            raise _ChangedObjectError(type(value).__name__)
        self._given[id(value)] = content
        return value

    def digest_given(self, value: Any) -> bytes | None:
        """The digest of an object when `find` last gave it."""
        content = self._given.get(id(value), _NEVER)
        return content_digest(value) if content is _NEVER else content

    def _stored_form(self, value: Any) -> tuple[str, Callable[[], Any] | None]:
        """The digest of what is stored of an object, and how to copy it; "" if it is not stored.

        Then LangGraph raises an error if the object has to be stored.
        """
        for serde in (_SERDE, self.serde):
            with suppress(Exception):  # it may raise anything, also because there is none
                kind, data = serde.dumps_typed(value)
                digest = hashlib.sha256(kind.encode() + data).hexdigest()[:32]
                return digest, partial(serde.loads_typed, (kind, data))
        return "", None


def current_objects() -> ObjectHandles | None:
    """The objects of the current run; `None` outside a run."""
    return _here.get()


def view_for_policies(value: Any) -> Any:
    """What policies see of an object: its fields as plain data, or its class's name."""
    try:
        return to_jsonable_python(
            value, bytes_mode="base64", inf_nan_mode="strings", fallback=_name_of
        )
    except Exception:  # noqa: BLE001 - the object's own code may raise anything
        return _name_of(value)


def _name_of(value: Any) -> str:
    return type(value).__name__


Json = Any

TYPE = "__type__"

VALUE = "value"

OBJECT_HANDLE = "kept"
"""Type name of a handle for an object that stays on the client."""

PLAIN = AllowedTypes()

_MESSAGES: dict[str, type[lc.BaseMessage]] = {
    cls.__name__: cls
    for cls in (
        lc.AIMessage, lc.AIMessageChunk, lc.ChatMessage, lc.ChatMessageChunk, lc.FunctionMessage,
        lc.FunctionMessageChunk, lc.HumanMessage, lc.HumanMessageChunk, lc.RemoveMessage,
        lc.SystemMessage, lc.SystemMessageChunk, lc.ToolMessage, lc.ToolMessageChunk,
    )
}  # fmt: skip

MESSAGE_CLASSES = frozenset(_MESSAGES.values())

_DEFAULTS: dict[type, dict[str, Any]] = {
    cls: {
        name: info.get_default(call_default_factory=True)
        for name, info in cls.model_fields.items()
        if not info.is_required()
    }
    for cls in _MESSAGES.values()
}

_DEFAULTS[lc.RemoveMessage]["content"] = ""  # its constructor does not take it

_SAFE_INT = range(-(2**63), 2**63)  # every JSON library keeps these exact


class _CodecError(Exception):
    """A value that cannot be encoded or decoded; the text has the reason and a way out."""


class _ChangedObjectError(_CodecError):
    """An object that no longer has the content of its handle."""


def encode(value: Any, where: str, kinds: AllowedTypes = PLAIN) -> Json:
    """Write a value as JSON. The value is copied, never changed.

    Args:
        value: Any value.
        where: The place, as the start of a sentence: "Field `x` of node `a`".
        kinds: Which objects the place may hold.

    Raises:
        UsageError: If the value cannot become JSON. The text names the place and a way out, and
            does not show the value.
    """
    try:
        return _encode(value, 0, kinds)
    except _CodecError as refused:
        msg = f"{where} cannot be sent: {refused}."
        raise UsageError(msg) from None


def decode(value: Json, where: str = "A value", kinds: AllowedTypes = PLAIN) -> Any:
    """Read the JSON that `encode` wrote. It is copied, so a node may change the value.

    Args:
        value: The JSON; it is not trusted.
        where: The place, as the start of a sentence.
        kinds: Which objects the place may hold.

    Raises:
        BadReply: If `encode` cannot have written it for this place.
        UsageError: If an object in it was changed in place, and the service does not know that.
    """
    try:
        return _decode(value, 0, kinds)
    except _ChangedObjectError as changed:
        msg = (
            f"{where} holds a `{changed}` that other code has changed in place since it was "
            "written: the policy has not seen this content. Change an object only in a node that "
            "reads it from this field, and have no other field or parallel node with it."
        )
        raise UsageError(msg) from None
    except _CodecError as refused:
        msg = f"{where} is not what was sent there: {refused}."
        raise BadReply(msg) from refused.__cause__


def _encode(value: Any, depth: int, kinds: AllowedTypes) -> Json:
    kind = type(value)
    if (scalar := SCALARS.get(kind)) is not None:
        return scalar(value)
    if depth > VALUE_DEPTH:
        _refuse(f"it is nested deeper than {VALUE_DEPTH} levels, or holds itself. Flatten it")
    if kind is list:
        return [_encode(item, depth + 1, kinds) for item in value]
    if kind is dict:
        return _encode_dict(value, depth, kinds)
    if (form := BY_CLASS.get(kind)) is None:
        return _encode_object(value, kind, depth, kinds)
    written = _encode(form.write(value), depth + 1, kinds)
    if form.is_unordered:  # a value that is sent twice must be the same
        written.sort(key=lambda one: json.dumps(one, sort_keys=True))
    return {TYPE: form.name, VALUE: written}


def _encode_int(value: int) -> Json:
    return value if value in _SAFE_INT else {TYPE: "int", VALUE: hex(value)}


def _encode_float(value: float) -> Json:
    if not math.isfinite(value):
        _refuse(f"it holds {value}, which JSON does not have. Use `None` or a text")
    return value


def _encode_text(value: str) -> Json:
    if value == ABSENT:
        return {TYPE: "str", VALUE: value}
    if not value.isascii():
        _check_utf8(value)
    return value


def _check_utf8(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        _refuse("it holds half a character (a lone surrogate), which UTF-8 does not have")


SCALARS: dict[type, Callable[[Any], Json]] = {
    str: _encode_text,
    type(None): _unchanged,
    bool: _unchanged,
    int: _encode_int,
    float: _encode_float,
}


def _encode_dict(value: dict[Any, Any], depth: int, kinds: AllowedTypes) -> Json:
    written = {}
    for key, item in value.items():
        if type(key) is not str or key == TYPE:
            pairs = [[_encode(one, depth + 2, kinds) for one in pair] for pair in value.items()]
            return {TYPE: "dict", VALUE: pairs}
        if not key.isascii():
            _check_utf8(key)
        written[key] = _encode(item, depth + 1, kinds)
    return written


def _encode_object(value: Any, kind: type, depth: int, kinds: AllowedTypes) -> Json:
    if kind is LabeledUpdate:
        _refuse(
            "`with_labels` is within a value. Put it around the whole update of the node; labels "
            "of one field need a node of their own"
        )
    if isinstance(value, lc.BaseMessage):
        if kinds.messages and _MESSAGES.get(kind.__name__) is kind:
            return _encode_message(value, kind, depth, kinds)
    elif form := object_kind(kind):
        name = kinds.name(kind)
        if name is not None and (items := object_fields(value, form)) is not None:
            fields = {key: _encode(item, depth + 2, kinds) for key, item in items.items()}
            return {TYPE: "object", "class": name, "fields": fields}
    else:
        for base in (str, int, float):  # for example the text of a message; equal to its copy
            if isinstance(value, base):
                return _encode(base(value), depth, kinds)
    return _encode_handle(value, kind, depth)


def stays_here(value: Any, types: AllowedTypes) -> bool:
    """Whether a value is an object that stays on the client."""
    cls = type(value)
    if cls in SCALARS or cls is list or cls is dict or cls in BY_CLASS:
        return False
    if isinstance(value, lc.BaseMessage):
        return not (types.messages and _MESSAGES.get(cls.__name__) is cls)
    if form := object_kind(cls):
        return types.name(cls) is None or object_fields(value, form) is None
    return not isinstance(value, str | int | float)


def _encode_handle(value: Any, kind: type, depth: int) -> Json:
    objects = current_objects()
    if objects is None:
        _refuse(f"it holds a `{kind.__module__}.{kind.__qualname__}`, which has no form in JSON")
    view = _encode(view_for_policies(value), depth + 1, PLAIN)
    return {
        TYPE: OBJECT_HANDLE,
        "class": kind.__name__,
        "handle": objects.handle(value),
        VALUE: view,
    }


def _encode_message(value: lc.BaseMessage, kind: type, depth: int, kinds: AllowedTypes) -> Json:
    usual = _DEFAULTS[kind]
    said = {
        name: item
        for name, item in value.__dict__.items()
        if name not in usual or item != usual[name]
    }
    said |= value.__pydantic_extra__ or {}
    fields = {name: _encode(item, depth + 2, kinds) for name, item in said.items()}
    return {TYPE: "message", "class": kind.__name__, "fields": fields}


def _decode(value: Json, depth: int, kinds: AllowedTypes) -> Any:
    kind = type(value)
    if kind is not dict and kind is not list:
        return value
    if depth > 2 * VALUE_DEPTH:
        _refuse("it is nested too deeply")
    if kind is list:
        return [_decode(item, depth + 1, kinds) for item in value]
    if TYPE in value:
        return _decode_tagged(value, depth, kinds)
    return {key: _decode(item, depth + 1, kinds) for key, item in value.items()}


def _decode_tagged(value: dict[str, Json], depth: int, kinds: AllowedTypes) -> Any:
    name = value[TYPE]
    try:
        if name in {"message", "object"}:
            return _decode_object(name, value, depth, kinds)
        if name == OBJECT_HANDLE:
            return _decode_handle(value)
        form, payload = BY_NAME[name], value[VALUE]
        if len(value) == 2 and (form.payload is None or type(payload) is form.payload):  # noqa: PLR2004
            return form.read(_decode(payload, depth + 1, kinds))
    except _CodecError:
        raise
    except Exception as error:  # the class's own checks may raise anything
        msg = f"a {_named(value)} in it cannot be made ({type(error).__name__})"
        raise _CodecError(msg) from error
    return _refuse(f"it holds a {_named(value)} of another shape")


def _decode_object(name: str, value: dict[str, Json], depth: int, kinds: AllowedTypes) -> Any:
    known, fields = value["class"], value["fields"]
    cls: type | None
    if name == "message":
        cls = _MESSAGES.get(known) if kinds.messages else None
    else:
        cls = kinds.find(known)
    if cls is None or type(fields) is not dict:
        _refuse(f"it holds a {_named(value)}, which its annotation does not name")
    made = {key: _decode(item, depth + 2, kinds) for key, item in fields.items()}
    return cls(**made) if name == "message" else make_object(cls, made)


def _decode_handle(value: dict[str, Json]) -> Any:
    objects, handle = current_objects(), value.get("handle")
    if objects is None or not isinstance(handle, str) or handle not in objects.known:
        _refuse(f"it holds a {_named(value)} that was never sent")
    return objects.find(handle)


def _named(value: dict[str, Json]) -> str:
    name, known = value[TYPE], value.get("class")
    return f"`{plain(str(known if type(known) is str else name), limit=60)}`"


def _refuse(reason: str) -> NoReturn:
    raise _CodecError(reason)
