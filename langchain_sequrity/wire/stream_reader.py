"""The base of the formats' stream readers: the increments of a reply, and a stream that is cut."""

from abc import ABC, abstractmethod

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk

from langchain_sequrity.errors import StreamInterrupted
from langchain_sequrity.wire.exchange import Describe, Event, Reply
from langchain_sequrity.wire.tools import end_of_arguments, write_calls


def as_chunk(message: AIMessage) -> AIMessageChunk:
    """Return a whole message as one chunk, for services that answer a stream with one reply."""
    calls = [
        tool_call_chunk(name=name, args=args, id=call_id, index=index)
        for index, (call_id, name, args) in enumerate(write_calls(message))
    ]
    for call in calls[len(message.tool_calls) :]:  # the invalid ones
        args = call["args"] or ""
        call["args"] = args + (end_of_arguments(args, is_unfinished=True) or "")
    return AIMessageChunk(
        content=message.content,
        additional_kwargs=message.additional_kwargs,
        tool_call_chunks=calls,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        id=message.id,
    )


class FormatReader(ABC):
    """The part of a stream reader that all formats share.

    Each chunk holds its own increment only. Facts about the whole reply (model, finish reason,
    session, usage) come once, because LangChain joins strings and adds counts that are repeated.

    Args:
        describe: Makes additional `response_metadata` for the last chunk.
    """

    def __init__(self, describe: Describe) -> None:
        self._describe = describe
        self._head = Reply(200, {})
        self.done = False

    def start(self, head: Reply) -> None:
        """Take status and headers."""
        self._head = head

    @staticmethod
    @abstractmethod
    def read_reply(reply: Reply, describe: Describe) -> list[AIMessage]:
        """Read a whole reply."""

    @abstractmethod
    def feed(self, event: Event) -> tuple[AIMessageChunk, ...]:
        """Return the chunk that an event completes: one or none.

        Raises:
            BadReply: If the event is not one of this format.
            StatusError: If it is an error.
        """

    @abstractmethod
    def end(self) -> tuple[AIMessageChunk, ...]:
        """Return the remaining chunk at the end of the stream: one or none.

        Raises:
            StreamInterrupted: If the reply was not finished.
        """

    def whole(self, reply: Reply) -> tuple[AIMessageChunk, ...]:
        """Read the plain JSON of a service that does not stream."""
        return (as_chunk(self.read_reply(reply, self._describe)[0]),)

    def _interrupted(self) -> StreamInterrupted:
        msg = "The stream ended before the reply was finished."
        return StreamInterrupted(msg)
