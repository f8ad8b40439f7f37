"""State values as JSON, and back.

LangGraph keeps any object in a state. The service gets a handle in its place, with the class's name
and what pydantic can show of it, so that policies see that; its labels are those of the value that
holds it. The object itself is stored with the result or the state that it came in, by the user's
checkpointer, as LangGraph stores the state.

Plain JSON stays as it is. What JSON lacks is written as an object with one reserved key,
`{"__type__": "set", "value": […]}`; a dict of the user's that has this key, or a key that is no
text, is written as `{"__type__": "dict", "value": [[key, value], …]}`. An object that has no form,
or that the field's annotation does not name, stays here, and a handle goes out for it (`objects`).

What comes back is checked like any input from outside. It makes no object but of the classes that
the field is annotated with (`kinds`), and a handle is only that of an object of this run.
"""

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn
from uuid import uuid4

from langchain_core import messages as lc
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic_core import to_jsonable_python
from typing_extensions import TypeIs

from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply, UsageError
from langchain_sequrity.graph.codec.types import (
    BY_CLASS,
    BY_NAME,
    Kinds,
    form_of,
    put_together,
    take_apart,
)
from langchain_sequrity.graph.program import ABSENT
from langchain_sequrity.labels import LabeledUpdate

_SERDE = JsonPlusSerializer()
_here: ContextVar["Objects | None"] = ContextVar("objects of the run", default=None)


class Objects:
    """The objects of a run, by handle.

    Args:
        serde: Tells equal objects from others, as the checkpointer stores them.
    """

    def __init__(self, serde: SerializerProtocol = _SERDE) -> None:
        self._serde = serde
        self._known: dict[str, Any] = {}
        self._stored: set[str] = set()
        self._unsaved: dict[int, str] = {}
        self.fresh: dict[str, Any] = {}

    @contextmanager
    def in_use(self) -> Iterator["Objects"]:
        """Take objects and give them back within; `fresh` has those that are to be stored."""
        own = copy.copy(self)
        own.fresh = {}
        token = _here.set(own)
        try:
            yield own
        finally:
            _here.reset(token)

    def load(self, stored: Mapping[str, Any]) -> None:
        """Take objects that are stored."""
        self._known.update(stored)
        self._stored.update(stored)

    def handle(self, value: Any) -> str:
        """The handle of an object: the same for one that is stored alike."""
        try:
            kind, data = self._serde.dumps_typed(value)
        except Exception:  # noqa: BLE001 - a serializer raises what it likes
            # Where it would have to be stored, LangGraph says so.
            handle = self._unsaved.setdefault(id(value), uuid4().hex)
            self._known[handle] = value
            return handle
        handle = hashlib.sha256(kind.encode() + data).hexdigest()[:32]
        self._known.setdefault(handle, value)
        if handle not in self._stored:
            self.fresh[handle] = value
        return handle

    def __contains__(self, handle: str) -> bool:
        """Whether there is such an object."""
        return handle in self._known

    def __getitem__(self, handle: str) -> Any:
        """The object of a handle."""
        return self._known[handle]


def objects_here() -> Objects | None:
    """The objects of the run that this code belongs to, if there is one."""
    return _here.get()


def shown(value: Any) -> Any:
    """What policies see of an object: its fields as plain data, else its class's name."""
    try:
        return to_jsonable_python(
            value, bytes_mode="base64", inf_nan_mode="strings", fallback=_name_of
        )
    except Exception:  # noqa: BLE001 - whatever the object's own code raises
        return _name_of(value)


def _name_of(value: Any) -> str:
    return type(value).__name__


Json = Any
TYPE = "__type__"
VALUE = "value"
HANDLED = "kept"
"""Type of what stands for an object that stays here."""

MAX_DEPTH = 64
"""Levels of a value; with what stands around it in a request, servers that stop at 100 take it."""

PLAIN = Kinds()
_MESSAGES: dict[str, type[lc.BaseMessage]] = {
    cls.__name__: cls
    for cls in (
        lc.AIMessage, lc.AIMessageChunk, lc.ChatMessage, lc.ChatMessageChunk, lc.FunctionMessage,
        lc.FunctionMessageChunk, lc.HumanMessage, lc.HumanMessageChunk, lc.RemoveMessage,
        lc.SystemMessage, lc.SystemMessageChunk, lc.ToolMessage, lc.ToolMessageChunk,
    )
}  # fmt: skip
_DEFAULTS: dict[type, dict[str, Any]] = {
    cls: {
        name: info.get_default(call_default_factory=True)
        for name, info in cls.model_fields.items()
        if not info.is_required()
    }
    for cls in _MESSAGES.values()
}
_DEFAULTS[lc.RemoveMessage]["content"] = ""  # which its constructor does not take
_SAFE_INT = range(-(2**63), 2**63)  # what every JSON library keeps as it is


class _Refused(Exception):
    """A value without a form; the text says what it is and what to do."""


def encode(value: Any, where: str, kinds: Kinds = PLAIN) -> Json:
    """Write a value as JSON. The value is copied, never changed.

    Args:
        value: Any value.
        where: The place, as the start of a sentence: "Field `x` of node `a`".
        kinds: Which objects the place may hold.

    Raises:
        UsageError: If the value has no form. The text names the place and what to do, and shows
            nothing of the value.
    """
    try:
        return _encode(value, 0, kinds)
    except _Refused as refused:
        msg = f"{where} cannot be sent: {refused}."
        raise UsageError(msg) from None


def decode(value: Json, where: str = "A value", kinds: Kinds = PLAIN) -> Any:
    """Read what `encode` wrote. The JSON is copied, so nobody shares what a node may change.

    Args:
        value: The JSON, from anybody.
        where: The place, as the start of a sentence.
        kinds: Which objects the place may hold.

    Raises:
        BadReply: If it is nothing that `encode` writes for this place.
    """
    try:
        return _decode(value, 0, kinds)
    except _Refused as refused:
        msg = f"{where} is not what was sent there: {refused}."
        raise BadReply(msg) from refused.__cause__


def _encode(value: Any, depth: int, kinds: Kinds) -> Json:
    kind = type(value)
    if (scalar := _SCALARS.get(kind)) is not None:
        return scalar(value)
    if depth > MAX_DEPTH:
        _refuse(f"it is nested deeper than {MAX_DEPTH} levels, or holds itself. Flatten it")
    if kind is list:
        return [_encode(item, depth + 1, kinds) for item in value]
    if kind is dict:
        return _encode_dict(value, depth, kinds)
    if (form := BY_CLASS.get(kind)) is None:
        return _encode_object(value, kind, depth, kinds)
    written = _encode(form.write(value), depth + 1, kinds)
    if form.is_unordered:  # what is sent twice must be the same
        written.sort(key=_sort_key)
    return {TYPE: form.name, VALUE: written}


def _encode_nothing(value: bool | None) -> Json:  # noqa: FBT001 - it is the value itself
    return value


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


_SCALARS: dict[type, Callable[[Any], Json]] = {
    str: _encode_text,
    type(None): _encode_nothing,
    bool: _encode_nothing,
    int: _encode_int,
    float: _encode_float,
}


def _encode_dict(value: dict[Any, Any], depth: int, kinds: Kinds) -> Json:
    written = {}
    for key, item in value.items():
        if type(key) is not str or key == TYPE:
            pairs = [[_encode(one, depth + 2, kinds) for one in pair] for pair in value.items()]
            return {TYPE: "dict", VALUE: pairs}
        if not key.isascii():
            _check_utf8(key)
        written[key] = _encode(item, depth + 1, kinds)
    return written


def _encode_object(value: Any, kind: type, depth: int, kinds: Kinds) -> Json:
    if kind is LabeledUpdate:
        _refuse(
            "`with_labels` stands within a value. Put it around the whole update of the node; "
            "labels of one field need a node of their own"
        )
    if isinstance(value, lc.BaseMessage):
        if kinds.messages and _MESSAGES.get(kind.__name__) is kind:
            return _encode_message(value, kind, depth, kinds)
    elif form := form_of(kind):
        name = kinds.name(kind)
        if name is not None and (items := take_apart(value, form)) is not None:
            fields = {key: _encode(item, depth + 2, kinds) for key, item in items.items()}
            return {TYPE: "object", "class": name, "fields": fields}
    else:
        for base in (str, int, float):  # such as the text of a message; equal to what it becomes
            if isinstance(value, base):
                return _encode(base(value), depth, kinds)
    return _encode_handle(value, kind, depth)


def _encode_handle(value: Any, kind: type, depth: int) -> Json:
    objects = objects_here()
    if objects is None:
        _refuse(f"it holds a `{kind.__module__}.{kind.__qualname__}`, which has no form in JSON")
    view = _encode(shown(value), depth + 1, PLAIN)
    return {TYPE: HANDLED, "class": kind.__name__, "handle": objects.handle(value), VALUE: view}


def _encode_message(value: lc.BaseMessage, kind: type, depth: int, kinds: Kinds) -> Json:
    usual = _DEFAULTS[kind]
    said = {
        name: item
        for name, item in value.__dict__.items()
        if name not in usual or item != usual[name]
    }
    said |= value.__pydantic_extra__ or {}
    fields = {name: _encode(item, depth + 2, kinds) for name, item in said.items()}
    return {TYPE: "message", "class": kind.__name__, "fields": fields}


def _sort_key(value: Json) -> str:
    return json.dumps(value, sort_keys=True)


def _decode(value: Json, depth: int, kinds: Kinds) -> Any:
    kind = type(value)
    if kind is dict:
        if depth > 2 * MAX_DEPTH:
            _refuse("it is nested too deeply")
        if TYPE in value:
            return _decode_tagged(value, depth, kinds)
        return {key: _decode(item, depth + 1, kinds) for key, item in value.items()}
    if kind is list:
        if depth > 2 * MAX_DEPTH:
            _refuse("it is nested too deeply")
        return [_decode(item, depth + 1, kinds) for item in value]
    return value


def _decode_tagged(value: dict[str, Json], depth: int, kinds: Kinds) -> Any:
    name = value[TYPE]
    try:
        if name in {"message", "object"}:
            return _decode_object(name, value, depth, kinds)
        if name == HANDLED:
            return _decode_handle(value)
        form, payload = BY_NAME[name], value[VALUE]
        if len(value) == 2 and (form.payload is None or type(payload) is form.payload):  # noqa: PLR2004
            return form.read(_decode(payload, depth + 1, kinds))
    except _Refused:
        raise
    except Exception as error:  # the class's own checks raise what they like
        msg = f"nothing can be made of a {_named(value)} in it ({type(error).__name__})"
        raise _Refused(msg) from error
    return _refuse(f"it holds a {_named(value)} of another shape")


def _decode_object(name: str, value: dict[str, Json], depth: int, kinds: Kinds) -> Any:
    known, fields = value["class"], value["fields"]
    cls: type | None
    if name == "message":
        cls = _MESSAGES.get(known) if kinds.messages else None
    else:
        cls = kinds.find(known)
    if cls is None or not _is_fields(fields):
        _refuse(f"it holds a {_named(value)}, and its annotation does not name such a thing")
    made = {key: _decode(item, depth + 2, kinds) for key, item in fields.items()}
    return cls(**made) if name == "message" else put_together(cls, made)


def _decode_handle(value: dict[str, Json]) -> Any:
    objects, handle = objects_here(), value.get("handle")
    if objects is None or not isinstance(handle, str) or handle not in objects:
        _refuse(f"it holds a {_named(value)} that nobody has sent")
    return objects[handle]


def _named(value: dict[str, Json]) -> str:
    name, known = value[TYPE], value.get("class")
    return f"`{plain(str(known if type(known) is str else name), limit=60)}`"


def _is_fields(fields: Json) -> TypeIs[dict[str, Json]]:
    return type(fields) is dict


def _refuse(reason: str) -> NoReturn:
    raise _Refused(reason)
