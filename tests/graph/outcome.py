"""The outcome of a graph run, in a form that can be compared with another run."""

import asyncio
import dataclasses
import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages.base import BaseMessage, TextAccessor
from langgraph.errors import GraphRecursionError
from langgraph.types import Interrupt, Send
from pydantic import BaseModel

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        error: The type of the exception that it ended with, if any.
        value: The returned state in the form of `describe`.
        seen: What nodes and routers noted while they ran, sorted, because the tasks of one step
            run in parallel. Empty if the run failed within a step: which other tasks of the step
            still ran is then a race.
        message: The text of the exception; not compared.
    """

    error: str | None
    value: Any
    seen: tuple[str, ...]
    message: str = field(default="", compare=False)


def outcome(call: Callable[[], Any], seen: Iterable[Any] = ()) -> Outcome:
    """Make a run and return its outcome. The run fills `seen`."""
    try:
        value = call()
    except Exception as error:  # noqa: BLE001 - compared by type
        kind = f"{type(error).__module__}.{type(error).__qualname__}"
        between_steps = isinstance(error, GraphRecursionError)
        return Outcome(kind, None, _sorted(seen) if between_steps else (), str(error))
    return Outcome(None, describe(value), _sorted(seen))


def _sorted(notes: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted(repr(describe_seen(note)) for note in notes))


def invoke(graph: Any, value: Any, *, in_loop: bool = False, **options: Any) -> Any:
    """Call `graph.invoke`, or `graph.ainvoke` in an event loop of its own."""
    if in_loop:
        return asyncio.run(graph.ainvoke(value, **options))
    return graph.invoke(value, **options)


def describe(value: Any) -> Any:
    """A value with the types of all its parts; the order of a dict's keys does not count.

    Random ids, such as LangGraph gives to messages, become numbers in order of appearance.
    """
    return _Description().of(value)


def describe_seen(value: Any) -> Any:
    """The same without random ids of messages: whether a message has one yet may be a race."""
    return _Note().of(value)


class _Description:
    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def of(self, value: Any) -> Any:
        # A message's `text` is a `str` with methods. It is stored and sent as a plain string.
        kind = str if isinstance(value, TextAccessor) else type(value)
        return kind.__name__, self._parts(value)

    def _parts(self, value: Any) -> Any:
        match value:
            case str():
                return _UUID.sub(self._numbered, value)
            case dict():
                parts = {repr(self.of(key)): self.of(one) for key, one in value.items()}
                return dict(sorted(parts.items()))
            case set() | frozenset():
                return sorted(repr(self.of(one)) for one in value)
            case list() | tuple():
                return [self.of(one) for one in value]
            case _:
                fields = _fields(value)
                return repr(value) if fields is None else self._parts(fields)

    def _numbered(self, found: re.Match[str]) -> str:
        return self._ids.setdefault(found[0], f"id-{len(self._ids)}")


class _Note(_Description):
    """What a node saw while other nodes ran in parallel.

    `add_messages` gives ids to the messages of an `Overwrite` in place. It may run for a router of
    one node while another node of the step reads these messages. Whether that node sees an id is
    a race.
    """

    def _parts(self, value: Any) -> Any:
        if isinstance(value, BaseMessage) and (value.id is None or _UUID.fullmatch(value.id)):
            return super()._parts({**dict(value), "id": "random or none"})
        return super()._parts(value)


def _fields(value: Any) -> dict[str, Any] | None:
    """The fields of an object, if it has any. The random id of an interrupt is left out.

    A `repr` shows the sets in an object in their own order, which differs between equal sets.
    """
    if isinstance(value, BaseModel):
        return dict(value)
    if isinstance(value, Interrupt):
        return {"value": value.value}
    if isinstance(value, Send):
        return {"node": value.node, "arg": value.arg}
    if isinstance(value, deque):
        return {"items": list(value), "maxlen": value.maxlen}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    return None
