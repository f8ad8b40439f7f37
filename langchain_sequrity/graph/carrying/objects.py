"""Objects of a state that have no form in JSON: they stay here, and a handle goes out for each.

LangGraph keeps any object in a state. The service gets a handle in its place, with the class's name
and what pydantic can show of it, so that policies see that; its labels are those of the value that
holds it. The object itself is stored with the result or the state that it came in, by the user's
checkpointer, as LangGraph stores the state.
"""

import copy
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic_core import to_jsonable_python

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
