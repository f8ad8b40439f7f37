"""The messages of a session, stored compactly: a message object of LangChain takes 2 kB."""

import json
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cache
from itertools import islice, takewhile
from typing import Any, Self, overload

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_sequrity.local.growing import GrowingList
from langchain_sequrity.strict_json import dumps

_CLASSES: dict[str, type[BaseMessage]] = {
    "human": HumanMessage,
    "ai": AIMessage,
    "system": SystemMessage,
    "tool": ToolMessage,
    "function": FunctionMessage,
}
MESSAGE_TYPES = tuple(_CLASSES)
_REQUIRED = {"tool": {"tool_call_id": ""}, "function": {"name": ""}}


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message.

    Attributes:
        type: Its type, as LangChain names it.
        content: Its content, the same object as in the message.
        fields: Its other fields that differ from their defaults, as JSON text; as they are if JSON
            cannot express them.
    """

    type: str
    content: Any
    fields: Any

    @classmethod
    def from_message(cls, message: BaseMessage) -> "StoredMessage":
        """Store a message."""
        message_type = message.type
        defaults = _defaults(message_type)
        fields = {
            name: value
            for name, value in (*vars(message).items(), *(message.model_extra or {}).items())
            if name not in defaults or value != defaults[name]
        }
        fields.pop("content", None)
        return cls(message_type, message.content, _as_json(fields))

    def message(self) -> BaseMessage:
        """The message."""
        fields = json.loads(self.fields) if isinstance(self.fields, str) else self.fields
        # A copy is made fifty times as fast as a message. Its containers must be its own.
        containers = {name: copy(value) for name, value in _containers(self.type).items()}
        return _empty(self.type).model_copy(
            update={**containers, "content": self.content, **fields}
        )


@cache
def _empty(message_type: str) -> BaseMessage:
    return _CLASSES[message_type](content="", **_REQUIRED.get(message_type, {}))


@cache
def _defaults(message_type: str) -> dict[str, Any]:
    values = vars(_empty(message_type)).items()
    return {name: value for name, value in values if name != "tool_call_id"}


@cache
def _containers(message_type: str) -> dict[str, Any]:
    values = _defaults(message_type).items()
    return {name: value for name, value in values if isinstance(value, list | dict)}


def _as_json(fields: dict[str, Any]) -> Any:
    if not fields:
        return "{}"
    if not _is_small(fields):  # the text would be a second copy
        return fields
    try:
        text = dumps(fields)
    except (TypeError, ValueError):
        return fields
    return text if json.loads(text) == fields else fields


def _is_small(fields: dict[str, Any]) -> bool:
    """Whether fields have few parts and short texts, without reading all of large ones."""
    unvisited: list[Any] = [fields]
    size = 0
    while unvisited and size < _SMALL:
        part = unvisited.pop()
        if isinstance(part, str):
            size += len(part)
        elif isinstance(part, dict):
            size += len(part)
            unvisited += [*islice(part, _SMALL), *islice(part.values(), _SMALL)]
        elif isinstance(part, list):
            size += len(part)
            unvisited += part[:_SMALL]
    return size < _SMALL


_SMALL = 4_000
"""Characters and parts. Fields of this size take a few kB as objects."""


@dataclass(slots=True, eq=False, repr=False)
class Conversation(Sequence[BaseMessage]):
    """The messages of a session. It does not change; a longer one shares its messages.

    Attributes:
        stored: The messages as they are stored.

    Example:
        ```python
        from langchain_core.messages import HumanMessage
        from langchain_sequrity.local.stored_messages import Conversation

        conversation = Conversation.from_messages([HumanMessage("Hi")])
        assert conversation.followed_by([HumanMessage("Bye")])[-1].text == "Bye"
        ```
    """

    stored: GrowingList[StoredMessage] = field(default_factory=GrowingList)

    @classmethod
    def from_messages(cls, messages: Iterable[BaseMessage]) -> Self:
        """A conversation of these messages."""
        return cls(GrowingList(map(StoredMessage.from_message, messages)))

    def first(self, count: int) -> Self:
        """The first `count` messages."""
        return type(self)(self.stored.first(count))

    def followed_by(self, messages: Iterable[BaseMessage]) -> Self:
        """This conversation with further messages."""
        stored = self.stored.copy()
        stored.extend(map(StoredMessage.from_message, messages))
        return type(self)(stored)

    def replaced_by(self, messages: Iterable[BaseMessage]) -> Self:
        """A conversation of these messages, which shares those that both begin with."""
        new = [*map(StoredMessage.from_message, messages)]
        pairs = zip(self.stored, new, strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        stored = self.stored.copy().first(common)
        stored.extend(new[common:])
        return type(self)(stored)

    def __len__(self) -> int:
        """The number of messages."""
        return len(self.stored)

    @overload
    def __getitem__(self, index: int) -> BaseMessage: ...
    @overload
    def __getitem__(self, index: slice) -> list[BaseMessage]: ...
    def __getitem__(self, index: int | slice) -> BaseMessage | list[BaseMessage]:
        """The message at an index, or a list of those in a slice."""
        if isinstance(index, slice):
            return [stored.message() for stored in self.stored[index]]
        return self.stored[index].message()

    def __iter__(self) -> Iterator[BaseMessage]:
        """All messages."""
        return (stored.message() for stored in self.stored)

    def __eq__(self, other: object) -> bool:
        """Whether another sequence has equal messages."""
        return isinstance(other, Sequence) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment] # as for a list

    def __repr__(self) -> str:
        """Show the messages."""
        return f"{type(self).__name__}({[*self]!r})"
