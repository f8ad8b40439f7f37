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
- A text or bytes that are too long for the service stay on the client too. They never change, so
  their handle is made of their content: equal texts have equal handles in every process.

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
    NewType,
    NoReturn,
    NotRequired,
    Required,
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
from typing_extensions import ReadOnly, TypeAliasType, is_typeddict, override

from langchain_sequrity import _compat
from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply, UsageError
from langchain_sequrity.graph.limits import TEXT_BYTES, TEXT_CHARACTERS, VALUE_DEPTH
from langchain_sequrity.graph.program import ABSENT
from langchain_sequrity.labels import LabeledUpdate


class Encoding(NamedTuple):
    """How objects of one class become JSON."""

    name: str
    payload_type: type | None  # type of `value`; `None` for any
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    is_unordered: bool = False


def _identity(value: Any) -> Any:
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
    earlier = value.replace(tzinfo=zoneinfo.ZoneInfo(zone.removesuffix("]")))
    # The offset distinguishes the two hours with one name when clocks go back.
    return earlier if earlier.utcoffset() == value.utcoffset() else earlier.replace(fold=1)


def _read_absent(text: str) -> str:
    if text != ABSENT:
        msg = "a text that needs no escape"
        raise ValueError(msg)
    return text


_ENCODINGS: dict[type | None, Encoding] = {
    None: Encoding("str", str, _identity, _read_absent),
    int: Encoding("int", str, hex, lambda text: int(text, 16)),
    dict: Encoding("dict", list, _pairs, dict),
    tuple: Encoding("tuple", list, list, tuple),
    set: Encoding("set", list, list, set, is_unordered=True),
    frozenset: Encoding("frozenset", list, list, frozenset, is_unordered=True),
    deque: Encoding(
        "deque", list, lambda d: [d.maxlen, *d], lambda parts: deque(parts[1:], parts[0])
    ),
    OrderedDict: Encoding("OrderedDict", list, _pairs, OrderedDict),
    Counter: Encoding("Counter", list, _pairs, lambda pairs: Counter(dict(pairs))),
    bytes: Encoding("bytes", str, _write_bytes, _read_bytes),
    bytearray: Encoding("bytearray", str, _write_bytes, lambda text: bytearray(_read_bytes(text))),
    dt.datetime: Encoding("datetime", str, _write_datetime, _read_datetime),
    dt.date: Encoding("date", str, dt.date.isoformat, dt.date.fromisoformat),
    dt.time: Encoding("time", str, dt.time.isoformat, dt.time.fromisoformat),
    dt.timedelta: Encoding(
        "timedelta", list, lambda d: [d.days, d.seconds, d.microseconds],
        lambda parts: dt.timedelta(*parts),
    ),
    Decimal: Encoding("Decimal", str, str, Decimal),
    UUID: Encoding("UUID", str, str, UUID),
    type(Path()): Encoding("Path", str, str, Path),
    Overwrite: Encoding("overwrite", None, lambda value: value.value, Overwrite),
}  # fmt: skip

ENCODING_OF_CLASS = {cls: encoding for cls, encoding in _ENCODINGS.items() if cls is not None}

_ENCODING_OF_NAME = {encoding.name: encoding for encoding in _ENCODINGS.values()}


class ObjectForm(NamedTuple):
    """How objects of one kind of class become their fields, and back.

    Attributes:
        fields: Gives the fields of an object; `None` if they are not all of its content.
        make: Makes an object of a class from its fields, with the class's own checks. It raises any
            exception of the class for fields that it does not accept.
    """

    fields: Callable[[Any], Mapping[str, Any] | None]
    make: Callable[[Any, Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class AllowedTypes:
    """What a field may hold besides plain data, by its annotations.

    Attributes:
        messages: Whether it may hold LangChain's messages.
        classes: Pydantic models, dataclasses, named tuples and enums.
    """

    messages: bool = False
    classes: frozenset[type] = frozenset()
    _class_of_name: dict[str, type] = field(default_factory=dict, compare=False, repr=False)

    def join(self, other: "AllowedTypes") -> "AllowedTypes":
        """The union of both."""
        return AllowedTypes(self.messages or other.messages, self.classes | other.classes)

    def name_of(self, cls: type) -> str | None:
        """The name of a class in JSON; `None` if the field may not hold it."""
        return cls.__name__ if self.class_named(cls.__name__) is cls else None

    def class_named(self, name: str) -> type | None:
        """The class with this name; `None` if there is not exactly one."""
        if name not in self._class_of_name:
            matches = {cls for cls in _with_subclasses(self.classes) if cls.__name__ == name}
            if len(matches) != 1:
                return None
            self._class_of_name[name] = matches.pop()
        return self._class_of_name[name]


def allowed_types(annotations: Iterable[Any]) -> AllowedTypes:
    """Find out what a field with these annotations may hold."""
    seen_ids: set[int] = set()
    classes: set[type] = set()
    messages = False
    # The list keeps every annotation alive, so no id is used twice.
    todo = list(annotations)
    for annotation in todo:
        if id(annotation) in seen_ids:
            continue
        seen_ids.add(id(annotation))
        if inspect.isclass(annotation) and get_origin(annotation) is None:
            if issubclass(annotation, lc.BaseMessage):
                messages = True
                continue
            if object_form(annotation) is not None:
                classes.add(annotation)
        todo.extend(_inner_annotations(annotation))
    return AllowedTypes(messages, frozenset(classes))


def object_form(cls: type) -> ObjectForm | None:
    """The form of the objects of a class; `None` if they do not become JSON."""
    if issubclass(cls, BaseModel):
        return _MODEL if cls is not BaseModel else None
    if dataclasses.is_dataclass(cls):
        return _RECORD
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _TUPLE
    if issubclass(cls, Enum):
        return _ENUM if len(cls) else None
    return None


def _model_fields(value: BaseModel) -> Mapping[str, Any] | None:
    cls = type(value)
    private = value.__pydantic_private__ or {}
    for name, attribute in cls.__private_attributes__.items():
        if attribute.default_factory or private.get(name, attribute.default) != attribute.default:
            return None
    if _extra_attributes(value, cls.model_fields):
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
    names = {f.name for f in dataclasses.fields(cls)}
    parameters: Mapping[str, Any] = inspect.signature(cls).parameters
    for name, parameter in parameters.items():
        if name not in names and parameter.default is inspect.Parameter.empty:
            return None
    fields = {name: getattr(value, name) for name in names if hasattr(value, name)}
    if extra := _extra_attributes(value, names):
        with suppress(Exception):  # the class's own code may raise anything
            if extra == _extra_attributes(_make_record(cls, fields), names):
                return fields  # `__post_init__` sets them again
        return None
    return fields


def _extra_attributes(value: Any, fields: Container[str]) -> dict[str, Any]:
    """The attributes of an object that are not fields, without the caches of its properties."""
    cls = type(value)
    return {
        name: attribute
        for name, attribute in getattr(value, "__dict__", {}).items()
        if name not in fields and not isinstance(getattr(cls, name, None), cached_property)
    }


def _make_record(cls: Any, fields: Mapping[str, Any]) -> Any:
    init_by_field = {f.name: f.init for f in dataclasses.fields(cls)}
    if unknown := fields.keys() - init_by_field.keys():
        msg = f"unknown fields {sorted(unknown)}"
        raise ValueError(msg)
    record = cls(**{name: value for name, value in fields.items() if init_by_field[name]})
    for name, value in fields.items():
        if not init_by_field[name]:
            object.__setattr__(record, name, value)
    return record


def _tuple_fields(value: Any) -> Mapping[str, Any]:
    return dict(zip(value._fields, value, strict=True))


_MODEL = ObjectForm(_model_fields, _make_model)
_RECORD = ObjectForm(_record_fields, _make_record)
_TUPLE = ObjectForm(_tuple_fields, lambda cls, fields: cls(**fields))
_ENUM = ObjectForm(lambda value: {"name": value.name}, lambda cls, fields: cls[fields["name"]])


def _with_subclasses(classes: Iterable[type]) -> Iterator[type]:
    for cls in classes:
        yield cls
        yield from _with_subclasses(type.__subclasses__(cls))


def meaning_of(annotation: Any) -> Any:
    """What an alias, a new type or a qualifier stands for; else the annotation itself."""
    if isinstance(annotation, TypeAliasType):
        return annotation.__value__
    if isinstance(annotation, NewType):
        return annotation.__supertype__
    is_qualified = get_origin(annotation) in (Annotated, Required, NotRequired, ReadOnly)
    return get_args(annotation)[0] if is_qualified else annotation


def _inner_annotations(annotation: Any) -> Iterator[Any]:
    """The annotations within one: arguments, fields, the value of an alias."""
    if isinstance(annotation, TypeVar):
        yield from annotation.__constraints__
        yield annotation.__bound__
    elif (meaning := meaning_of(annotation)) is not annotation:
        yield meaning
    elif get_origin(annotation) is Literal:
        yield from (type(value) for value in get_args(annotation) if isinstance(value, Enum))
    elif inspect.isclass(annotation) and get_origin(annotation) is None:
        yield from _field_annotations(annotation)
    else:
        yield get_origin(annotation)
        for argument in get_args(annotation):
            # The parameters of a `Callable` are a list.
            yield from argument if isinstance(argument, list) else [argument]


def _field_annotations(cls: Any) -> Iterable[Any]:
    if issubclass(cls, BaseModel):
        return [info.annotation for info in cls.model_fields.values()]
    if is_typeddict(cls) or object_form(cls) in (_RECORD, _TUPLE):
        try:
            return get_type_hints(cls, include_extras=True).values()
        except NameError:  # no class can be made from a name that cannot be resolved
            return []
    return []


_SERDE = JsonPlusSerializer()  # as the checkpointer's: equal bytes mean equal objects

_current: ContextVar["ObjectHandles | None"] = ContextVar("objects of the run", default=None)


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
        if all(getattr(cls, name) is getattr(object, name) for name in _PICKLE_METHODS):
            return NotImplemented
        if cls.__module__.partition(".")[0] in sys.stdlib_module_names:
            return NotImplemented  # all of their content; other attributes are caches
        # An exception reduces to another form once its `__dict__` was read, so that comes first.
        attributes = getattr(obj, "__dict__", None), _slots_of(obj)
        reduced = obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        if not isinstance(reduced, str):  # an iterator refers to the object alone
            reduced = [list(part) if isinstance(part, Iterator) else part for part in reduced]
        return object, (), (reduced, attributes)


_PICKLE_METHODS = ("__reduce_ex__", "__reduce__", "__getstate__")


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


class _OnlyAttributes:
    """The size of an object that has nothing but attributes."""


def _has_only_attributes(cls: type) -> bool:
    """Whether all of an object of a class is in its `__dict__`: no slots, no data of C code."""
    sizes = (cls.__basicsize__, cls.__itemsize__, cls.__dictoffset__)
    if sizes != (_OnlyAttributes.__basicsize__, 0, _OnlyAttributes.__dictoffset__):
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


_NOT_READ = object()


LongText = str | bytes


def _is_long(value: LongText) -> bool:
    """Whether a text, or bytes as Base64, are longer than what the service takes."""
    if isinstance(value, bytes):
        return 4 * -(-len(value) // 3) > TEXT_CHARACTERS
    if len(value) > TEXT_CHARACTERS:
        return True
    return len(json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")) > TEXT_BYTES


_SHORT = TEXT_BYTES // len(r"\u0000")
"""A text of at most so many characters is never long: a character has at most six bytes in JSON."""


def _long_text_handle(value: LongText) -> str:
    """A handle that tells nothing but whether another text is equal, and of the same type."""
    digest = hashlib.sha256(f"{type(value).__name__}:".encode())
    digest.update(value.encode() if isinstance(value, str) else value)
    return digest.hexdigest()


class ObjectHandles:
    """The objects of a run, by handle. A handle is for an object with its content.

    Attributes:
        by_handle: Handle → object.
        texts: Handle → long text or bytes.
        fresh: What must be stored: texts, and copies of objects, which a node may change.
        serde: The serializer of the checkpointer; without one, that of the cache.
    """

    def __init__(self) -> None:
        self.by_handle: dict[str, Any] = {}
        self.texts: dict[str, LongText] = {}
        self.serde: Any = None
        self._stored: dict[str, Any] = {}
        self._handles: dict[tuple[int, str, bytes | None], str] = {}
        self._text_handles: dict[int, str] = {}
        self._contents: dict[str, bytes | None] = {}
        self._content_when_read: dict[int, Any] = {}
        self._digest_counts: Counter[str] = Counter()
        self.fresh: dict[str, Any] = {}

    @contextmanager
    def in_use(self) -> Iterator["ObjectHandles"]:
        """Make these the current objects. `fresh` has those that must be stored."""
        active = object.__new__(ObjectHandles)  # `copy.copy` takes several times as long
        active.__dict__ = {**self.__dict__, "fresh": {}}
        token = _current.set(active)
        try:
            yield active
        finally:
            _current.reset(token)

    def load(self, stored: Mapping[str, Any]) -> None:
        """Add stored objects. A node gets a copy, so what is stored stays as it is."""
        for handle, value in stored.items():
            if type(value) in (str, bytes):
                self.texts.setdefault(handle, value)
                continue
            if handle not in self.by_handle:
                make_copy = self._digest_and_copier(value)[1]
                self.by_handle[handle] = value if make_copy is None else make_copy()
            self._stored[handle] = value

    def as_stored(self) -> "ObjectHandles":
        """The objects as they were before a node changed them."""
        stored = ObjectHandles()
        stored.by_handle, stored.texts = self._stored, self.texts
        return stored

    def text_handle(self, text: LongText) -> str:
        """The handle of a long text or of bytes. It is stored with each value that has it."""
        handle = self._text_handles.get(id(text))
        if handle is None or self.texts[handle] is not text:
            handle = _long_text_handle(text)
            text = self.texts.setdefault(handle, text)
            self._text_handles[id(text)] = handle
        self.fresh[handle] = text
        return handle

    def handle(self, value: Any) -> str:
        """The handle of an object with its content. Equal objects have handles of their own."""
        digest, make_copy = self._digest_and_copier(value)
        content = content_digest(value)
        handle = self._handles.get((id(value), digest, content))
        if handle is None or self.by_handle[handle] is not value:
            handle = self._new_handle(digest)
            self._handles[id(value), digest, content] = handle
        if make_copy is not None and handle not in self._stored:
            self.fresh[handle] = value if self.serde is None else make_copy()
        self.by_handle[handle], self._contents[handle] = value, content
        return handle

    def _new_handle(self, digest: str) -> str:
        if not digest:
            return uuid4().hex
        number = self._digest_counts[digest]
        self._digest_counts[digest] += 1
        return f"{digest}.{number}" if number else digest

    def find(self, handle: str) -> Any:
        """The object or the long text of a handle.

        Raises:
            KeyError: If the run does not have it.
            _ChangedObjectError: If its content is no longer that of the handle.
        """
        if (text := self.texts.get(handle)) is not None:
            return text
        value = self.by_handle[handle]
        content = content_digest(value)
        if self._contents.setdefault(handle, content) != content:
            raise _ChangedObjectError(type(value).__name__)
        self._content_when_read[id(value)] = content
        return value

    def digest_when_read(self, value: Any) -> bytes | None:
        """The digest of an object when `find` last gave it."""
        content = self._content_when_read.get(id(value), _NOT_READ)
        return content_digest(value) if content is _NOT_READ else content

    def _digest_and_copier(self, value: Any) -> tuple[str, Callable[[], Any] | None]:
        """The digest of what is stored of an object, and how to copy it; "" if it is not stored.

        Then LangGraph raises an error if the object has to be stored.
        """
        for serde in (_SERDE, self.serde):
            with suppress(Exception):  # it may raise anything, also because there is none
                type_name, data = serde.dumps_typed(value)
                digest = hashlib.sha256(type_name.encode() + data).hexdigest()[:32]
                return digest, partial(serde.loads_typed, (type_name, data))
        return "", None


def current_objects() -> ObjectHandles | None:
    """The objects of the current run; `None` outside a run."""
    return _current.get()


def view_for_policies(value: Any) -> Any:
    """What policies see of an object: its fields as plain data, or its class's name."""
    try:
        return to_jsonable_python(
            value, bytes_mode="base64", inf_nan_mode="strings", fallback=_class_name_of
        )
    except Exception:  # noqa: BLE001 - the object's own code may raise anything
        return _class_name_of(value)


def _class_name_of(value: Any) -> str:
    return type(value).__name__


Json = Any

TYPE = "__type__"

VALUE = "value"

OBJECT_HANDLE = "kept"
"""Type name of a handle for an object or a long text that stays on the client."""

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

_MESSAGE_DEFAULTS: dict[type, dict[str, Any]] = {
    cls: {
        name: info.get_default(call_default_factory=True)
        for name, info in cls.model_fields.items()
        if not info.is_required()
    }
    for cls in _MESSAGES.values()
}

_MESSAGE_DEFAULTS[lc.RemoveMessage]["content"] = ""  # its constructor does not take it

_SAFE_INT = range(-(2**63), 2**63)  # every JSON library keeps these exact


class _CodecError(Exception):
    """A value that cannot be encoded or decoded; the text has the reason and a way out."""


class _ChangedObjectError(_CodecError):
    """An object that no longer has the content of its handle."""


def encode(value: Any, where: str, allowed: AllowedTypes = PLAIN) -> Json:
    """Write a value as JSON. The value is copied, never changed.

    Args:
        value: Any value.
        where: The place, as the start of a sentence: "Field `x` of node `a`".
        allowed: Which objects the place may hold.

    Raises:
        UsageError: If the value cannot become JSON. The text names the place and a way out, and
            does not show the value.
    """
    try:
        return _encode(value, 0, allowed)
    except _CodecError as error:
        msg = f"{where} cannot be sent: {error}."
        raise UsageError(msg) from None


def decode(value: Json, where: str = "A value", allowed: AllowedTypes = PLAIN) -> Any:
    """Read the JSON that `encode` wrote. It is copied, so a node may change the value.

    Args:
        value: The JSON; it is not trusted.
        where: The place, as the start of a sentence.
        allowed: Which objects the place may hold.

    Raises:
        BadReply: If `encode` cannot have written it for this place.
        UsageError: If an object in it was changed in place, and the service does not know that.
    """
    try:
        return _decode(value, 0, allowed)
    except _ChangedObjectError as error:
        msg = (
            f"{where} holds a `{error}` that other code has changed in place since it was "
            "written: the policy has not seen this content. Change an object only in a node that "
            "reads it from this field, and have no other field or parallel node with it."
        )
        raise UsageError(msg) from None
    except _CodecError as error:
        msg = f"{where} is not what was sent there: {error}."
        raise BadReply(msg) from error.__cause__


def _encode(value: Any, depth: int, allowed: AllowedTypes) -> Json:
    cls = type(value)
    if (encode_scalar := SCALARS.get(cls)) is not None:
        return encode_scalar(value)
    if depth > VALUE_DEPTH:
        _refuse(f"it is nested deeper than {VALUE_DEPTH} levels, or holds itself. Flatten it")
    if cls is list:
        return [_encode(item, depth + 1, allowed) for item in value]
    if cls is dict:
        return _encode_dict(value, depth, allowed)
    if (encoding := ENCODING_OF_CLASS.get(cls)) is None:
        return _encode_object(value, cls, depth, allowed)
    if cls is bytes and _is_long(value) and (objects := current_objects()) is not None:
        return _encode_long_text(value, objects)
    payload = _encode(encoding.write(value), depth + 1, allowed)
    if encoding.is_unordered:  # a value that is sent twice must be the same
        payload.sort(key=lambda item: json.dumps(item, sort_keys=True))
    return {TYPE: encoding.name, VALUE: payload}


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
    if len(value) > _SHORT and _is_long(value) and (objects := current_objects()) is not None:
        return _encode_long_text(value, objects)
    return value


def _encode_long_text(value: LongText, objects: ObjectHandles) -> Json:
    size = {"characters" if isinstance(value, str) else "bytes": len(value)}
    return _handle(type(value), objects.text_handle(value), size)


def _handle(cls: type, handle: str, view: Json) -> dict[str, Json]:
    return {TYPE: OBJECT_HANDLE, "class": cls.__name__, "handle": handle, VALUE: view}


def long_text_in(value: Json) -> str | None:
    """The size of a long text that a value has by its handle; `None` if it has none."""
    objects = current_objects()
    texts = {} if objects is None else objects.texts
    todo = [value] if texts else []
    for part in todo:
        if isinstance(part, dict):
            if part.get(TYPE) == OBJECT_HANDLE and part["handle"] in texts:
                [(unit, size)] = part[VALUE].items()
                return f"{size:,} {unit}"
            todo += part.values()
        elif isinstance(part, list):
            todo += part
    return None


def _check_utf8(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        _refuse("it holds half a character (a lone surrogate), which UTF-8 does not have")


SCALARS: dict[type, Callable[[Any], Json]] = {
    str: _encode_text,
    type(None): _identity,
    bool: _identity,
    int: _encode_int,
    float: _encode_float,
}


def _encode_dict(value: dict[Any, Any], depth: int, allowed: AllowedTypes) -> Json:
    encoded = {}
    for key, item in value.items():
        if type(key) is not str or key == TYPE or (len(key) > _SHORT and _is_long(key)):
            pairs = [[_encode(part, depth + 2, allowed) for part in pair] for pair in value.items()]
            return {TYPE: "dict", VALUE: pairs}
        if not key.isascii():
            _check_utf8(key)
        encoded[key] = _encode(item, depth + 1, allowed)
    return encoded


def _encode_object(value: Any, cls: type, depth: int, allowed: AllowedTypes) -> Json:
    if cls is LabeledUpdate:
        _refuse(
            "`with_labels` is within a value. Put it around the whole update of the node; labels "
            "of one field need a node of their own"
        )
    if isinstance(value, lc.BaseMessage):
        if allowed.messages and _MESSAGES.get(cls.__name__) is cls:
            return _encode_message(value, cls, depth, allowed)
    elif form := object_form(cls):
        name = allowed.name_of(cls)
        if name is not None and (fields := form.fields(value)) is not None:
            encoded = {key: _encode(item, depth + 2, allowed) for key, item in fields.items()}
            return {TYPE: "object", "class": name, "fields": encoded}
    else:
        for base in (str, int, float):  # for example the text of a message; equal to its copy
            if isinstance(value, base):
                return _encode(base(value), depth, allowed)
    return _encode_handle(value, cls, depth)


def stays_on_client(value: Any, allowed: AllowedTypes) -> bool:
    """Whether a value is an object that stays on the client."""
    cls = type(value)
    if cls in SCALARS or cls is list or cls is dict or cls in ENCODING_OF_CLASS:
        return False
    if isinstance(value, lc.BaseMessage):
        return not (allowed.messages and _MESSAGES.get(cls.__name__) is cls)
    if form := object_form(cls):
        return allowed.name_of(cls) is None or form.fields(value) is None
    return not isinstance(value, str | int | float)


def _encode_handle(value: Any, cls: type, depth: int) -> Json:
    objects = current_objects()
    if objects is None:
        _refuse(f"it holds a `{cls.__module__}.{cls.__qualname__}`, which has no form in JSON")
    with objects.in_use():  # long texts in the view are not stored: the object has them
        view = _encode(view_for_policies(value), depth + 1, PLAIN)
    return _handle(cls, objects.handle(value), view)


def _encode_message(value: lc.BaseMessage, cls: type, depth: int, allowed: AllowedTypes) -> Json:
    defaults = _MESSAGE_DEFAULTS[cls]
    set_fields = {
        name: item
        for name, item in value.__dict__.items()
        if name not in defaults or item != defaults[name]
    }
    set_fields |= value.__pydantic_extra__ or {}
    fields = {name: _encode(item, depth + 2, allowed) for name, item in set_fields.items()}
    return {TYPE: "message", "class": cls.__name__, "fields": fields}


def _decode(value: Json, depth: int, allowed: AllowedTypes) -> Any:
    cls = type(value)
    if cls is not dict and cls is not list:
        return value
    if depth > 2 * VALUE_DEPTH:
        _refuse("it is nested too deeply")
    if cls is list:
        return [_decode(item, depth + 1, allowed) for item in value]
    if TYPE in value:
        return _decode_tagged(value, depth, allowed)
    return {key: _decode(item, depth + 1, allowed) for key, item in value.items()}


def _decode_tagged(value: dict[str, Json], depth: int, allowed: AllowedTypes) -> Any:
    tag = value[TYPE]
    try:
        if tag in {"message", "object"}:
            return _decode_object(tag, value, depth, allowed)
        if tag == OBJECT_HANDLE:
            return _decode_handle(value)
        encoding = _ENCODING_OF_NAME[tag]
        payload = _decode(value[VALUE], depth + 1, allowed)  # it may be the handle of a long text
        if len(value) == 2 and encoding.payload_type in (None, type(payload)):  # noqa: PLR2004
            return encoding.read(payload)
    except _CodecError:
        raise
    except Exception as error:  # the class's own checks may raise anything
        msg = f"a {_displayed_type(value)} in it cannot be made ({type(error).__name__})"
        raise _CodecError(msg) from error
    return _refuse(f"it holds a {_displayed_type(value)} of another shape")


def _decode_object(tag: str, value: dict[str, Json], depth: int, allowed: AllowedTypes) -> Any:
    class_name, fields = value["class"], value["fields"]
    cls: type | None
    if tag == "message":
        cls = _MESSAGES.get(class_name) if allowed.messages else None
    else:
        cls = allowed.class_named(class_name)
    if cls is None or type(fields) is not dict:
        _refuse(f"it holds a {_displayed_type(value)}, which its annotation does not name")
    decoded = {key: _decode(item, depth + 2, allowed) for key, item in fields.items()}
    form = object_form(cls) if tag == "object" else None
    return cls(**decoded) if form is None else form.make(cls, decoded)


def _decode_handle(value: dict[str, Json]) -> Any:
    objects, handle = current_objects(), value.get("handle")
    if objects is not None and isinstance(handle, str):
        with suppress(KeyError):
            return objects.find(handle)
    return _refuse(f"it holds a {_displayed_type(value)} that was never sent")


def _displayed_type(value: dict[str, Json]) -> str:
    tag, class_name = value[TYPE], value.get("class")
    return f"`{plain(str(class_name if type(class_name) is str else tag), limit=60)}`"


def _refuse(reason: str) -> NoReturn:
    raise _CodecError(reason)
