"""One exchange as data: the call, the reply, its events; and how much of a reply a client takes.

Nothing here does I/O. A server is untrusted and may send without end, so every reader of replies
limits bytes and memory, and a reply of an unexpected shape is a `BadReply`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, TypeVar, cast

import orjson
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata

from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply
from langchain_sequrity.sizes import MOST_PER_CHARACTER, of_json, of_part, of_value
from langchain_sequrity.strict_json import dumps, loads

if TYPE_CHECKING:
    from langchain_core.messages.tool import ToolCallChunk

T_co = TypeVar("T_co", covariant=True)

METADATA_KEY = "sequrity"
"""Key of `response_metadata` for what this package adds: session, envelope, denial."""
KEEPS_HISTORY = "x-keeps-history"
"""The header of a reply with which the local server says that requests need not repeat the
conversation of their session. The service is not known to have such a header."""
CHECK_KEY = "policy_check"
"""Key of a reply for the check that denied a call; only the local server writes it."""
REFERENCE_KEY = "reply"
"""Key of `response_metadata`, on the server, for the id of the reply that a message was sent in."""
DENIED = "denied"
"""The server's own finish reason of a refusal that is not a model's; each format has its word."""


@dataclass(frozen=True, slots=True)
class ServiceCall:
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


_LONGEST_SESSION = 1024  # characters; ids of sessions have 36


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply. Names in `headers` are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)

    @property
    def has_usable_session(self) -> bool:
        """Whether the session that it names, if any, could be sent as a header again."""
        session_id = self.headers.get("x-session-id", "")
        fits = len(session_id) <= _LONGEST_SESSION
        return fits and session_id.isascii() and session_id.isprintable()


class Event(NamedTuple):
    """One server-sent event; `name` is empty if the stream gave none."""

    name: str
    data: str


Describe = Callable[[Reply], Mapping[str, Any]]
"""Makes additional `response_metadata` from the head of a reply."""


class StreamReader(Protocol[T_co]):
    """Reads one streamed reply of some format.

    The transport makes a new one for each attempt and hands it the head of the reply. Then come
    either the events and the end, or the whole body if the server did not stream.
    """

    def start(self, head: Reply) -> None:
        """Take status and headers, before any event."""

    def feed(self, event: Event) -> Iterable[T_co]:
        """Return what one event completes. Raises `ServiceError` for an error event."""

    def end(self) -> Iterable[T_co]:
        """Return what the end of the stream completes. Raises if the stream was cut short."""

    def whole(self, reply: Reply) -> Iterable[T_co]:
        """Return the content of a plain JSON reply, from a server that did not stream."""

    @property
    def done(self) -> bool:
        """Whether the stream has announced its end; later events are not read."""


@dataclass(frozen=True, slots=True)
class ClientFormat:
    """A chat format, as the client uses it.

    Attributes:
        write_request: Writes messages, parameters and `dual_llm` as a body.
        write_results: Writes ids of calls and contents of results as messages of a body.
        read_reply: Reads a whole reply as messages.
        stream_reader: Makes the reader of a stream; its second argument is the body of the request.
        tells_dual_llm: Whether replies show marks of a dual-LLM session (`docs/behaviour.md`, P2).
    """

    write_request: Callable[..., dict[str, Any]]
    write_results: Callable[[Sequence[tuple[str, str]]], list[dict[str, Any]]]
    read_reply: Callable[[Reply, Describe], list[AIMessage]]
    stream_reader: Callable[[Describe, Mapping[str, Any]], StreamReader[AIMessageChunk]]
    tells_dual_llm: bool = False


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request to a chat endpoint in any format, as the local server sees it.

    Attributes:
        model: Model name as sent, `"planner"` or `"planner,worker"`.
        messages: The conversation as LangChain messages.
        tools: Function tools in the nested OpenAI form.
        tool_choice: `None`, `"auto"`, `"none"`, `"required"`, or the name of one tool as
            `{"name": …}`.
        response_format: As in chat/completions, or `None`.
        stop: Stop sequences.
        max_tokens: Limit on output tokens.
        stream: Whether the client wants server-sent events.
        stream_usage: Whether the client wants a usage chunk.
        parallel_tool_calls: Whether several calls in one reply are allowed.
        server_tools: Tools that the service runs itself, as the format writes them.
        previous_reply: Id of the reply that this request continues, in formats that have it.
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
    """Facts of a reply that do not depend on the answer, on the local server's side.

    Attributes:
        id: Id of the reply, in the format's own form.
        created: Unix time in seconds.
        request: The request that is answered.
        documented: Whether to write documented fields only.
    """

    id: str
    created: int
    request: ChatRequest
    documented: bool = False

    def policy_check(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return the field with the check that denied a call, or no field.

        Args:
            metadata: The `response_metadata` of the refusal.
        """
        check = metadata.get(CHECK_KEY)
        return {} if check is None or self.documented else {CHECK_KEY: check}


@dataclass(frozen=True, slots=True)
class ServerFormat:
    """A chat format, as the local server uses it.

    Attributes:
        documented: Fields of the body that the service documents (`docs/protocol.md`).
        failed_turn: Finish reason of a dual-LLM turn that failed, by fidelity.
        read_request: Checks and reads a body; raises `InvalidRequest`.
        new_reply_id: Makes the id of a reply, of the session's id and `dual_llm`.
        write_reply: Writes a whole reply.
        write_stream: Writes a streamed reply, event by event.
        write_error: Writes an error inside a stream, of its text and status.
    """

    documented: frozenset[str]
    failed_turn: Mapping[str, str]
    read_request: Callable[[Any], ChatRequest]
    new_reply_id: Callable[..., str]
    write_reply: Callable[[Sequence[AIMessage], ReplyHead], dict[str, Any]]
    write_stream: Callable[[Iterable[AIMessageChunk], ReplyHead], Iterator[Event]]
    write_error: Callable[[str, int], Event]


_TEXTS = ("reasoning_content", "reasoning_signature", "refusal")


class StreamTotals:
    """What the chunks of a streamed reply say about the whole reply, on the local server's side.

    Attributes:
        usage: Token counts.
        metadata: The `response_metadata` of all chunks.
        extra: Reasoning, its signature and the refusal, as `additional_kwargs`.
    """

    def __init__(self) -> None:
        self.usage: UsageMetadata | None = None
        self.metadata: dict[str, Any] = {}
        self.extra: dict[str, str] = {}
        self._fragments: dict[int | None, list[ToolCallChunk]] = {}

    def add(self, chunk: AIMessageChunk) -> None:
        """Add a chunk."""
        self.usage = chunk.usage_metadata or self.usage
        self.metadata |= {key: value for key, value in chunk.response_metadata.items() if value}
        for key in _TEXTS:
            if text := chunk.additional_kwargs.get(key):
                self.extra[key] = self.extra.get(key, "") + text
        for fragment in chunk.tool_call_chunks:
            self._fragments.setdefault(fragment["index"], []).append(fragment)

    @property
    def calls(self) -> list[tuple[str | None, str | None, str]]:
        """Id, name and arguments of each call; backends may mix the fragments of several calls."""
        return [
            (
                next((fragment["id"] for fragment in fragments if fragment["id"]), None),
                next((fragment["name"] for fragment in fragments if fragment["name"]), None),
                "".join(fragment["args"] or "" for fragment in fragments),
            )
            for fragments in self._fragments.values()
        ]


# Limits


MIB = 1024 * 1024

MAX_REPLY_BYTES = 64 * MIB
MAX_ERROR_BYTES = 1 * MIB  # a body with an error status
MAX_STREAM_BYTES = 256 * MIB
MAX_EVENT_BYTES = 16 * MIB
_MAX_PARSED_BYTES = 128 * MIB  # memory of parsed JSON
_MAX_KEPT_BYTES = 32 * MIB  # what a reader keeps of a stream until its end
_SMALL = _MAX_PARSED_BYTES // MOST_PER_CHARACTER  # JSON of this length is always within the limit


def check_json(data: bytes | str) -> None:
    """Refuse JSON that would take too much memory, before it is parsed.

    Raises:
        BadReply: If it takes more than 128 MiB.
    """
    if len(data) > _SMALL and of_json(data) > _MAX_PARSED_BYTES:
        msg = f"The reply takes more than {_MAX_PARSED_BYTES} bytes of memory when parsed."
        raise BadReply(msg)


class StreamMemory:
    """Counts what a reader keeps of a stream, which may have no end.

    Each method raises `BadReply` as soon as the sum is more than 32 MiB.

    Example:
        ```python
        from langchain_sequrity.wire.exchange import StreamMemory

        memory = StreamMemory()
        memory.add({"type": "text"})
        ```
    """

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = 0

    def add(self, value: Any) -> None:
        """Count a value."""
        self._count(of_value(value))

    def add_text(self, text: str) -> None:
        """Count a part of a text that is joined to the parts before it."""
        self._count(of_part(text))

    def add_json(self, text: str) -> None:
        """Count a part of a JSON text, such as arguments, with the memory of its parsed value."""
        self._count(of_json(text))

    def _count(self, amount: int) -> None:
        self._bytes += amount
        if self._bytes > _MAX_KEPT_BYTES:
            msg = (
                f"The stream sent more than {_MAX_KEPT_BYTES} bytes that have to be kept until "
                "its end."
            )
            raise BadReply(msg)


class ChunkSum:
    """The sum of chunks of one message. Unsummed chunks take far more memory than their content.

    Chunks are added in groups, and groups likewise, so that no chunk is copied often.
    """

    _GROUP = 32

    def __init__(self, chunks: Iterable[AIMessageChunk] = ()) -> None:
        # List `n` has sums of 32ⁿ chunks. Higher lists have earlier chunks.
        self._levels: list[list[AIMessageChunk]] = []
        for chunk in chunks:
            self.add(chunk)

    def add(self, chunk: AIMessageChunk, level: int = 0) -> None:
        """Add a chunk."""
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(chunk)
        if len(self._levels[level]) == self._GROUP:
            chunks, self._levels[level] = self._levels[level], []
            self.add(chunks[0] + chunks[1:], level + 1)

    def __iter__(self) -> Iterator[AIMessageChunk]:
        """The partial sums, few and in order."""
        return chain.from_iterable(reversed(self._levels))

    def total(self) -> AIMessageChunk | None:
        """The sum of all chunks, or `None` without chunks."""
        chunks = list(self)
        return chunks[0] + chunks[1:] if len(chunks) > 1 else chunks[0] if chunks else None


# The body of a reply


MISSHAPEN = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""Errors that reading a reply of the wrong shape raises."""
_EXCERPT = 200
# To find a long number in this way takes a twentieth of the time of a pattern.
_DIGITS_AS_0 = bytes.maketrans(b"0123456789", b"0" * 10)
_LONG_NUMBER = b"0" * 19


def read_object(data: bytes | str, *, exact: bool = False) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        data: The text.
        exact: Whether integers beyond 64 bits keep all digits.

    Returns:
        The object.

    Raises:
        BadReply: If the text is not a JSON object, or would take too much memory.
    """
    check_json(data)
    try:
        body = orjson.loads(data)
        if exact and _has_long_number(data if isinstance(data, bytes) else data.encode()):
            body = loads(data.decode() if isinstance(data, bytes) else data)
    except ValueError:
        refuse_reply("JSON", data)
    if not isinstance(body, dict):
        refuse_reply("a JSON object", body)
    return body


def _has_long_number(data: bytes) -> bool:
    return _LONG_NUMBER in data.translate(_DIGITS_AS_0)


def refuse_reply(expected: str, body: Any) -> NoReturn:
    """Refuse a reply. The transport adds its status, session and request id to the error.

    Args:
        expected: A description of what was expected, such as `a message with `content``.
        body: What came.

    Raises:
        BadReply: Always.
    """
    msg = f"The service's reply is not {expected}. It begins with: {excerpt(body, _EXCERPT)!r}."
    body = body.decode(errors="replace") if isinstance(body, bytes) else body
    raise BadReply(msg, body=body) from None


def token_count(usage: Mapping[str, Any], name: str) -> int | None:
    """Return the token count under a name, if there is one. Raises `TypeError` for other values."""
    count = usage.get(name)
    if isinstance(count, float) and count.is_integer():  # JSON has one type of number
        count = int(count)
    if count is not None and (type(count) is not int or count < 0):
        msg = f"`{name}` is not a number of tokens."
        raise TypeError(msg)
    return count


def usage_metadata(
    input_tokens: int,
    output_tokens: int,
    total_tokens: int = 0,
    *,
    inputs: Mapping[str, int | None],
    outputs: Mapping[str, int | None],
) -> UsageMetadata:
    """Make LangChain's token counts.

    Args:
        input_tokens: Tokens of the input.
        output_tokens: Tokens of the output.
        total_tokens: Their sum as the service counts it; 0 to compute it.
        inputs: Details of the input; `None` is skipped.
        outputs: Details of the output; likewise.
    """
    usage = UsageMetadata(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=total_tokens or input_tokens + output_tokens,
    )
    if details := {name: number for name, number in inputs.items() if number is not None}:
        usage["input_token_details"] = cast("Any", details)
    if details := {name: number for name, number in outputs.items() if number is not None}:
        usage["output_token_details"] = cast("Any", details)
    return usage


def openai_usage(
    usage: Mapping[str, Any] | None, inputs: str, outputs: str
) -> UsageMetadata | None:
    """Read the token counts of OpenAI's formats.

    Args:
        usage: The counts, if there are any.
        inputs: How the format names the input: `prompt` or `input`.
        outputs: How it names the output: `completion` or `output`.
    """
    if not usage:
        return None
    read = usage.get(f"{inputs}_tokens_details") or {}
    written = usage.get(f"{outputs}_tokens_details") or {}
    return usage_metadata(
        token_count(usage, f"{inputs}_tokens") or 0,
        token_count(usage, f"{outputs}_tokens") or 0,
        token_count(usage, "total_tokens") or 0,
        inputs={
            "cache_read": token_count(read, "cached_tokens"),
            "cache_creation": token_count(read, "cache_write_tokens"),
            "audio": token_count(read, "audio_tokens"),
        },
        outputs={
            "reasoning": token_count(written, "reasoning_tokens"),
            "audio": token_count(written, "audio_tokens"),
        },
    )


def reply_metadata(
    body: Mapping[str, Any], skipped: Collection[str], provider: str
) -> dict[str, Any]:
    """Make the `response_metadata` of a reply, with LangChain's names.

    Args:
        body: The body of the reply.
        skipped: Fields that are not kept. Others are kept under their own names.
        provider: The `model_provider`.
    """
    fields = {key: value for key, value in body.items() if key not in skipped and value is not None}
    return {
        **fields,
        "model_name": body.get("model") or "",
        "model_provider": provider,
        "id": body.get("id"),
    }


def excerpt(value: Any, limit: int) -> str:
    """Return the beginning of a JSON value or text, safe to show.

    Args:
        value: The value.
        limit: The maximum number of characters.
    """
    if isinstance(value, bytes):
        return plain(value[: 4 * limit].decode(errors="replace"), limit=limit)
    try:
        return plain(value if isinstance(value, str) else dumps(value), limit=limit)
    except ValueError:
        return "(nested too deeply)"
