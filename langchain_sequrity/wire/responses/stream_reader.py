"""Streamed replies of Responses to pieces of LangChain messages.

Replies are untrusted: every event of the wrong shape becomes a `BadReply`. Events that are not
known here are skipped, whatever they say (`docs/protocol.md`, Responses).
"""

from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.messages import AIMessageChunk

from langchain_sequrity.errors import StreamInterrupted
from langchain_sequrity.wire.call_texts import with_texts
from langchain_sequrity.wire.chunks import as_chunk
from langchain_sequrity.wire.exchange import Event, Reply
from langchain_sequrity.wire.reply_body import (
    MISSHAPEN,
    OK,
    Describe,
    error_inside,
    read_object,
    refuse,
)
from langchain_sequrity.wire.responses.from_server import (
    failure,
    is_failed,
    read_metadata,
    read_reply,
    read_usage,
    texts_in,
)
from langchain_sequrity.wire.responses.increments import Increments, Place
from langchain_sequrity.wire.responses.items import string

_TEXT = "response.output_text.delta"
_LAST = ("response.completed", "response.incomplete", "response.failed")
# Fields of the request whose reply has more than text, so that content is a list from the start.
_RICH = ("tools", "reasoning", "include")


class StreamReader:
    """Reads one streamed reply, event by event.

    Each piece carries its own increment only. What describes the whole reply (model, finish
    reason, session, usage) comes once, with the piece that finishes it: LangChain joins strings and
    adds counts that are repeated.

    Args:
        describe: Gives what to add to `response_metadata` of the finishing piece.
        asked: Fields of the request's body. Content is text while the reply is nothing else,
            unless they ask for more.
    """

    def __init__(self, describe: Describe, asked: Mapping[str, Any]) -> None:
        self._describe = describe
        self._head = Reply(OK, {})
        self._output = Increments(plain=not any(asked.get(field) for field in _RICH))
        self.done = False

    def start(self, head: Reply) -> None:
        """Take status and headers."""
        self._head = head

    def feed(self, event: Event) -> tuple[AIMessageChunk, ...]:
        """Return the piece of the message that an event brings: one or none.

        Raises:
            BadReply: If the event is not one of a response.
            StatusError: If it is an error, or the end of a response that failed without text.
            StreamInterrupted: If it is `[DONE]`, and the response was not finished.
        """
        if event.data == "[DONE]":  # not of this format, but some proxies end every stream with it
            return self.end()
        body = read_object(event.data, self._head)
        kind = body.get("type") or event.name
        if kind == "error" or (body.get("error") and kind not in _LAST):
            raise error_inside(body, self._head)
        try:
            if kind == _TEXT:
                return self._output.text(_place(body), body.get("item_id"), string(body, "delta"))
            if kind in _LAST:
                status = kind.removeprefix("response.")
                return self._finish({"status": status, **body["response"]})
            take = _EVENTS.get(kind)
            if take is not None:
                take(self._output, body)
                return self._output.take()
        except MISSHAPEN:
            refuse("an event of a response", body, self._head)
        if not isinstance(kind, str) or not kind:
            refuse("an event of a response", body, self._head)
        return ()

    def end(self) -> tuple[AIMessageChunk, ...]:
        """Check that the stream was not cut short.

        Raises:
            StreamInterrupted: If the response was not finished.
        """
        if not self.done:
            raise self._interrupted()
        return ()

    def whole(self, reply: Reply) -> tuple[AIMessageChunk, ...]:
        """Read the plain JSON of a service that does not stream."""
        return (as_chunk(read_reply(reply, self._describe)[0]),)

    def _interrupted(self) -> StreamInterrupted:
        msg = "The stream ended before the reply was finished."
        return StreamInterrupted(msg, session_id=self._head.headers.get("x-session-id"))

    def _finish(self, response: dict[str, Any]) -> tuple[AIMessageChunk, ...]:
        output = self._output
        items = output.finish(response.get("output") or ())
        if is_failed(response) and not output.said:
            raise failure(response, self._head)
        self.done = True
        metadata = read_metadata(response, items, called=output.called)
        usage = read_usage(response.get("usage"))
        metadata = with_texts({**metadata, **self._describe(self._head)}, texts_in(items))
        return output.take(metadata, usage)


def _number(body: Mapping[str, Any]) -> Any:
    return body.get("output_index", 0)  # some servers leave out what is the first


def _place(body: Mapping[str, Any]) -> Place:
    return _number(body), body.get("content_index", 0)


def _text_done(output: Increments, body: Mapping[str, Any]) -> None:
    output.whole_text(_place(body), body.get("item_id"), string(body, "text"))


def _refusal_done(output: Increments, body: Mapping[str, Any]) -> None:
    part = {"type": "refusal", "refusal": body["refusal"]}
    output.part(_place(body), body.get("item_id"), part)


def _annotation(output: Increments, body: Mapping[str, Any]) -> None:
    output.annotation(_place(body), body.get("item_id"), body["annotation"])


def _refusal(output: Increments, body: Mapping[str, Any]) -> None:
    output.refusal(_place(body), body.get("item_id"), string(body, "delta"))


def _part_done(output: Increments, body: Mapping[str, Any]) -> None:
    output.part(_place(body), body.get("item_id"), body["part"])


def _arguments(output: Increments, body: Mapping[str, Any]) -> None:
    output.arguments(_number(body), string(body, "delta"))


def _arguments_done(output: Increments, body: Mapping[str, Any]) -> None:
    output.arguments(_number(body), string(body, "arguments"), whole=True)


def _thought(key: str, number: str, field: str) -> Callable[[Increments, Mapping[str, Any]], None]:
    """Reads an event of reasoning: of which list, which key numbers the part, which has text."""

    def take(output: Increments, body: Mapping[str, Any]) -> None:
        place = _number(body), body.get(number, 0)
        whole = field != "delta"
        output.thought(key, place, body.get("item_id"), string(body, field), whole=whole)

    return take


def _summary_done(output: Increments, body: Mapping[str, Any]) -> None:
    place = _number(body), body.get("summary_index", 0)
    output.thought("summary", place, body.get("item_id"), string(body["part"], "text"), whole=True)


def _item_added(output: Increments, body: Mapping[str, Any]) -> None:
    output.begin(_number(body), body["item"])


def _item_done(output: Increments, body: Mapping[str, Any]) -> None:
    output.end(_number(body), body["item"])


_EVENTS: dict[Any, Callable[[Increments, Mapping[str, Any]], None]] = {
    "response.output_item.added": _item_added,
    "response.output_item.done": _item_done,
    "response.content_part.done": _part_done,
    "response.output_text.done": _text_done,
    "response.output_text.annotation.added": _annotation,
    "response.refusal.delta": _refusal,
    "response.refusal.done": _refusal_done,
    "response.function_call_arguments.delta": _arguments,
    "response.function_call_arguments.done": _arguments_done,
    "response.reasoning_summary_text.delta": _thought("summary", "summary_index", "delta"),
    "response.reasoning_summary_text.done": _thought("summary", "summary_index", "text"),
    "response.reasoning_summary_part.done": _summary_done,
    "response.reasoning_text.delta": _thought("content", "content_index", "delta"),
    "response.reasoning_text.done": _thought("content", "content_index", "text"),
}
