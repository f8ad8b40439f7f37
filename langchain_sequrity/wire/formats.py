"""All chat formats by the last part of their path: what the local server mounts."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from langchain_core.messages import AIMessage, AIMessageChunk

from langchain_sequrity.wire import chat_completions, messages, responses
from langchain_sequrity.wire.exchange import ChatRequest, Event, ReplyHead


class ServerFormat(Protocol):
    """What each chat format offers to a server."""

    @property
    def DOCUMENTED(self) -> frozenset[str]:  # noqa: N802
        """Fields of the body that the service documents (`docs/protocol.md`)."""

    @property
    def FAILED_TURN(self) -> Mapping[str, str]:  # noqa: N802
        """Finish reason of a dual-LLM turn that failed, by fidelity."""

    @property
    def read_request(self) -> Callable[[Any], ChatRequest]:
        """Check and read a body; raises `InvalidRequest`."""

    def new_reply_id(self, session_id: str, *, dual_llm: bool = False) -> str:
        """Make the id of a reply of a session."""

    @property
    def write_reply(self) -> Callable[[Sequence[AIMessage], ReplyHead], dict[str, Any]]:
        """Write a whole reply."""

    @property
    def write_stream(
        self,
    ) -> Callable[[Iterable[AIMessageChunk], ReplyHead], Iterator[Event]]:
        """Write a streamed reply, event by event."""

    @property
    def write_error(self) -> Callable[[str, int], Event]:
        """Write an error that comes up within a stream."""


FORMATS: Mapping[str, ServerFormat] = {
    "chat/completions": chat_completions,
    "messages": messages,
    "responses": responses,
}
