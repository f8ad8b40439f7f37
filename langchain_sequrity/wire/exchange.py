"""One exchange as data: what goes out, what comes back. Nothing here does I/O.

What a client takes of a reply, in bytes: a server may send without end.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from langchain_core.messages import BaseMessage

from langchain_sequrity.errors import BadReply
from langchain_sequrity.sizes import of_json, of_part, of_value

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has not been sent yet.

    Attributes:
        path: Path below the base URL, such as `/control/chat/v1/chat/completions`.
        headers: All headers as bytes, in the order they go out. They hold keys, so they are
            kept out of `repr`.
        body: The JSON body.
        resend: Whether the request may be sent again after it may have been processed. True for
            the first turn of a conversation only (`docs/behaviour.md`, Retries).
        session_id: The session that is resumed, if any.
        method: The HTTP method.
    """

    path: str
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    body: bytes = field(repr=False)
    resend: bool = True
    session_id: str | None = None
    method: str = field(default="POST", repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply. Names of `headers` are looked up in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)


class Event(NamedTuple):
    """One server-sent event: `name` is empty where the stream gave none."""

    name: str
    data: str


class StreamReader(Protocol[T_co]):
    """Reads one streamed reply of some format.

    The transport makes a new one for each attempt, hands it the head of the reply, and then
    either every event in turn and the end, or the whole body where the server did not stream.
    """

    def start(self, head: Reply) -> None:
        """Take status and headers, before any event."""

    def feed(self, event: Event) -> Iterable[T_co]:
        """Return what one event completes. Raises `ServiceError` for an error event."""

    def end(self) -> Iterable[T_co]:
        """Return what the end of the stream completes. Raises if the stream was cut short."""

    def whole(self, reply: Reply) -> Iterable[T_co]:
        """Return what a plain JSON reply holds: the server did not stream."""

    @property
    def done(self) -> bool:
        """Whether the stream has said that it is over; what follows is not read."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a chat endpoint was asked, whatever the format: the local server's view of a body.

    Attributes:
        model: Model name as sent, `"planner"` or `"planner,worker"`.
        messages: The conversation as LangChain messages.
        tools: Function tools in the nested OpenAI form.
        tool_choice: `None`, `"auto"`, `"none"`, `"required"`, or the name of one tool as
            `{"name": …}`.
        response_format: As in chat/completions, or `None`.
        stop: Stop sequences.
        max_tokens: Limit on output tokens.
        stream: Whether server-sent events were asked for.
        stream_usage: Whether a usage chunk was asked for.
        parallel_tool_calls: Whether several calls in one reply are allowed.
        server_tools: Tools that the service runs itself, in the format's own words.
        previous_reply: Id of the reply that this request goes on from, where the format has that.
        options: Every other field of the body, unchanged.
    """

    model: str
    messages: list[BaseMessage]
    tools: list[dict[str, Any]] = field(default_factory=list)
    tool_choice: str | dict[str, str] | None = None
    response_format: dict[str, Any] | None = None
    stop: list[str] = field(default_factory=list)
    max_tokens: int | None = None
    stream: bool = False
    stream_usage: bool = False
    parallel_tool_calls: bool = True
    server_tools: list[dict[str, Any]] = field(default_factory=list)
    previous_reply: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReplyHead:
    """What a reply says of itself, whatever the answer: the local server's side.

    Attributes:
        id: Id of the reply, in the format's own form.
        created: Unix time in seconds.
        request: What is answered.
        documented: Whether only what the service documents may be written.
    """

    id: str
    created: int
    request: ChatRequest
    documented: bool = False


KIB, MIB = 1024, 1024 * 1024

REPLY = 64 * MIB
ERROR = 1 * MIB  # of a reply with an error status
STREAM = 256 * MIB
EVENT = 16 * MIB
# What JSON becomes once it is parsed.
PARSED = 128 * MIB
# What is kept of a stream until it ends, and what is held back of it.
KEPT = 32 * MIB

_SURELY_FINE = 64 * KIB  # of JSON, whatever is in it


def check_json(data: bytes | str) -> None:
    """Refuse JSON that would take too much memory, before it is parsed.

    Raises:
        BadReply: If it takes more than 128 MiB.
    """
    if len(data) > _SURELY_FINE and of_json(data) > PARSED:
        msg = f"The reply takes more than {PARSED} bytes of memory once it is parsed."
        raise BadReply(msg)


class Kept:
    """Counts what is kept of a stream, which may have no end.

    Example:
        ```python
        from langchain_sequrity.wire.exchange import Kept

        kept = Kept()
        kept.add({"type": "text"})
        ```
    """

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = 0

    def add(self, value: Any) -> None:
        """Count a value.

        Raises:
            BadReply: If all together takes more than 32 MiB.
        """
        self._count(of_value(value))

    def add_text(self, text: str) -> None:
        """Count a part of a text, which is added to the parts before it.

        Raises:
            BadReply: If all together takes more than 32 MiB.
        """
        self._count(of_part(text))

    def add_json(self, text: str) -> None:
        """Count a part of a JSON text, such as arguments, as what it will be once it is parsed.

        Raises:
            BadReply: If all together takes more than 32 MiB.
        """
        self._count(of_json(text))

    def _count(self, amount: int) -> None:
        self._bytes += amount
        if self._bytes > KEPT:
            msg = f"The stream sent more than {KEPT} bytes that have to be kept until its end."
            raise BadReply(msg)
