"""Replies of chat/completions, whole or streamed, to LangChain messages.

Replies are untrusted: every shape that is not the protocol's becomes a `BadReply`. Fields that are
not known here are kept, under the names they came with.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import (
    ToolCall,
    ToolCallChunk,
    invalid_tool_call,
    tool_call,
    tool_call_chunk,
)

from langchain_sequrity.errors import StreamInterrupted
from langchain_sequrity.wire.blocks import MODEL_PROVIDER
from langchain_sequrity.wire.envelope_stream import as_chunk
from langchain_sequrity.wire.exchange import Event, Kept, Reply
from langchain_sequrity.wire.json_text import read_arguments
from langchain_sequrity.wire.reply_body import (
    MISSHAPEN,
    OK,
    Describe,
    count,
    error_inside,
    read_object,
    refuse,
)
from langchain_sequrity.wire.tools import with_texts

# Fields of the reply and of its message that are read by name; the others are kept as they are.
_REPLY_FIELDS = {"choices", "usage", "object", "created", "model", "id"}
_MESSAGE_FIELDS = {"role", "content", "tool_calls", "reasoning_content", "reasoning", "refusal"}


def read_reply(reply: Reply, describe: Describe) -> list[AIMessage]:
    """Read a whole reply.

    Args:
        reply: The reply with status 2xx.
        describe: Gives what to add to each message's `response_metadata`.

    Returns:
        One message per choice. `response_metadata` holds `model_name`, `model_provider`,
        `finish_reason`, `id`, and whatever else the reply said. `usage_metadata` is on the first
        message only, since it is that of the whole reply.

    Raises:
        BadReply: If the body is not a chat completion.
        StatusError: If the body is an error object.
    """
    body = read_object(reply.body, reply)
    if body.get("error"):
        raise error_inside(body, reply)
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        refuse("a chat completion with `choices`", body, reply)
    shared = {**_metadata(body), **describe(reply)}
    try:
        for choice in choices:
            if choice.get("error"):
                raise error_inside(choice, reply)
        messages = [_read_choice(choice, shared) for choice in choices]
        usage = body.get("usage")
        messages[0].usage_metadata = _usage(usage) if usage else None
    except MISSHAPEN:
        refuse("choices with a `message`", body, reply)
    return messages


def read_calls(reply: Reply) -> tuple[dict[str, Any], list[ToolCall]] | None:
    """Read a reply that asks for calls, for those who need no message of LangChain's.

    Args:
        reply: The reply with status 2xx.

    Returns:
        The message as it came, and its calls; `None` for every reply that is not plainly such a
        one: `read_reply` says what it is.

    Raises:
        BadReply: If the body is no JSON object.
    """
    body = read_object(reply.body, reply, exact=True)
    try:
        (choice,) = body["choices"]
        message = choice["message"]
        _content(message.get("content"))  # raises for what is none
        calls, invalid = _tool_calls(message["tool_calls"])
        are_named = all(type(call["id"]) is type(call["name"]) is str for call in calls)
        has_error = bool(body.get("error") or choice.get("error"))
    except MISSHAPEN:
        return None
    return (message, calls) if calls and are_named and not (invalid or has_error) else None


def _metadata(body: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        key: value
        for key, value in body.items()
        if key not in _REPLY_FIELDS and value is not None and key != "error"
    }
    return {
        **kept,
        "model_name": body.get("model") or "",
        "model_provider": MODEL_PROVIDER,
        "id": body.get("id"),
    }


def _read_choice(choice: Mapping[str, Any], shared: Mapping[str, Any]) -> AIMessage:
    message = choice["message"]
    content, refusal = _content(message.get("content"))
    extra = _extra(message)
    if refusal and "refusal" not in extra:
        extra["refusal"] = refusal
    calls, invalid = _tool_calls(message.get("tool_calls") or ())
    metadata = with_texts(
        {**shared, "finish_reason": choice.get("finish_reason")},
        _texts(message.get("tool_calls") or ()),
    )
    if choice.get("logprobs"):
        metadata["logprobs"] = choice["logprobs"]
    return AIMessage(
        content=content,
        additional_kwargs=extra,
        tool_calls=calls,
        invalid_tool_calls=invalid,
        response_metadata=metadata,
    )


def _content(content: str | list[Mapping[str, Any]] | None) -> tuple[str, str]:
    """Text and refusal of a message's content."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    text = "".join(part["text"] for part in content if part.get("type") == "text")
    return text, "".join(part["refusal"] for part in content if part.get("type") == "refusal")


def _extra(message: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into `additional_kwargs`: reasoning, refusal, and all that is not known here."""
    extra = {
        key: value
        for key, value in message.items()
        if key not in _MESSAGE_FIELDS and value is not None and value != []
    }
    # Two spellings in use; LangChain knows the first.
    if reasoning := message.get("reasoning_content") or message.get("reasoning"):
        extra["reasoning_content"] = reasoning
    if refusal := message.get("refusal"):
        extra["refusal"] = refusal
    return extra


def _tool_calls(
    calls: Iterable[Mapping[str, Any]],
) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    good: list[ToolCall] = []
    bad: list[InvalidToolCall] = []
    for call in calls:
        function = call["function"]
        name, text, call_id = function["name"], function.get("arguments"), call.get("id")
        args, problem = read_arguments(text)
        if args is None:
            bad.append(invalid_tool_call(name=name, args=text, id=call_id, error=problem))
        else:
            good.append(tool_call(name=name, args=args, id=call_id))
    return good, bad


def _texts(calls: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Any, Any]]:
    """Ids and arguments of calls as they came."""
    return ((call.get("id"), call["function"].get("arguments")) for call in calls)


def _usage(usage: Mapping[str, Any]) -> UsageMetadata:
    prompt, completion = count(usage, "prompt_tokens"), count(usage, "completion_tokens")
    result = UsageMetadata(
        input_tokens=prompt,
        output_tokens=completion,
        total_tokens=count(usage, "total_tokens") or prompt + completion,
    )
    prompt_details = usage.get("prompt_tokens_details") or {}
    completion_details = usage.get("completion_tokens_details") or {}
    inputs = {
        "cache_read": prompt_details.get("cached_tokens"),
        "cache_creation": prompt_details.get("cache_write_tokens"),
        "audio": prompt_details.get("audio_tokens"),
    }
    outputs = {
        "reasoning": completion_details.get("reasoning_tokens"),
        "audio": completion_details.get("audio_tokens"),
    }
    if found := {key: count for key, count in inputs.items() if count is not None}:
        result["input_token_details"] = cast("Any", found)
    if found := {key: count for key, count in outputs.items() if count is not None}:
        result["output_token_details"] = cast("Any", found)
    return result


class StreamReader:
    """Reads one streamed reply, event by event.

    Each piece carries its own increment only. What describes the whole reply (model, finish
    reason, session, logprobs) comes once, with the piece that finishes it, and usage once after
    that: LangChain joins strings and adds counts that are repeated.

    Args:
        describe: Gives what to add to `response_metadata` of the finishing piece.
        _asked: The body of the request; streams of this format read alike for all.
    """

    def __init__(self, describe: Describe, _asked: Mapping[str, Any]) -> None:
        self._describe = describe
        self._head = Reply(OK, {})
        self._metadata: dict[str, Any] = {}
        self._logprobs: dict[str, list[Any]] = {}
        self._kept = Kept()
        self._calls = _CallIndices(self._kept)
        self._last: Mapping[str, Any] = {}
        self._finished = False
        self._counted = False
        self.done = False

    def start(self, head: Reply) -> None:
        """Take status and headers."""
        self._head = head

    def feed(self, event: Event) -> tuple[AIMessageChunk, ...]:
        """Return the piece of the message that an event brings: one or none.

        Raises:
            BadReply: If the event is not a chunk of a chat completion.
            StatusError: If it is an error object.
        """
        if event.data == "[DONE]":
            self.done = True
            return () if self._finished else self._unfinished_piece()
        body = self._last = read_object(event.data, self._head)
        if body.get("error") or event.name == "error":
            raise error_inside(body, self._head)
        choices = body.get("choices")
        try:
            # A choice beyond the first only comes with `n` > 1, which is not sent with a stream.
            if choices and choices[0].get("index", 0) == 0:
                return self._piece(body, choices[0])
            if usage := body.get("usage"):
                return self._usage_piece(usage)
        except MISSHAPEN:
            refuse("a chunk of a chat completion", body, self._head)
        if choices is None:
            refuse("a chunk of a chat completion", body, self._head)
        return ()

    def end(self) -> tuple[AIMessageChunk, ...]:
        """Check that the stream was not cut short.

        Raises:
            StreamInterrupted: If neither a finish reason nor `[DONE]` has come.
        """
        if not (self.done or self._finished):
            msg = "The stream ended before the reply was finished."
            raise StreamInterrupted(msg, session_id=self._head.headers.get("x-session-id"))
        return ()

    def whole(self, reply: Reply) -> tuple[AIMessageChunk, ...]:
        """Read the plain JSON of a service that does not stream."""
        return (as_chunk(read_reply(reply, self._describe)[0]),)

    def _piece(self, body: dict[str, Any], choice: dict[str, Any]) -> tuple[AIMessageChunk, ...]:
        delta = choice.get("delta") or {}
        finish_reason = choice.get("finish_reason")
        if choice.get("logprobs"):
            self._collect_logprobs(choice["logprobs"])
        if not finish_reason and not body.get("usage"):
            text = delta.get("content")
            is_plain = len(delta) == 1 or (len(delta) == _WITH_ROLE and "role" in delta)
            if is_plain and text and isinstance(text, str):
                return (AIMessageChunk(content=text, response_metadata=_PROVIDER),)
            return self._delta_piece(delta, {})
        if not finish_reason or self._finished:  # some repeat the finishing chunk
            return self._delta_piece(delta, {}, self._usage_once(body))
        if choice.get("error"):
            raise error_inside(choice, self._head)
        self._finished = True
        metadata = self._whole_metadata(body, finish_reason)
        return self._delta_piece(delta, metadata, self._usage_once(body))

    def _unfinished_piece(self) -> tuple[AIMessageChunk, ...]:
        """What describes the reply, where the stream ends without a finish reason."""
        self._finished = True
        return self._delta_piece({}, self._whole_metadata(self._last, None))

    def _whole_metadata(self, body: Mapping[str, Any], finish_reason: str | None) -> dict[str, Any]:
        metadata = {
            **_metadata(body),
            **self._describe(self._head),
            "finish_reason": finish_reason,
        }
        if self._logprobs:
            metadata["logprobs"] = self._logprobs
        return metadata

    def _delta_piece(
        self,
        delta: Mapping[str, Any],
        metadata: Mapping[str, Any],
        usage: UsageMetadata | None = None,
    ) -> tuple[AIMessageChunk, ...]:
        content, refusal = _content(delta.get("content"))
        extra = _extra(delta)
        if refusal:
            extra.setdefault("refusal", refusal)
        calls = [self._calls.place(call) for call in delta.get("tool_calls") or ()]
        if not (content or extra or calls or metadata or usage):
            return ()
        if metadata:
            metadata = with_texts(metadata, self._calls.texts())
        return (
            AIMessageChunk(
                content=content,
                additional_kwargs=extra,
                tool_call_chunks=calls,
                response_metadata={**metadata, **_PROVIDER},
                usage_metadata=usage,
            ),
        )

    def _usage_once(self, body: Mapping[str, Any]) -> UsageMetadata | None:
        usage = body.get("usage")
        if not usage or self._counted:
            return None
        self._counted = True
        return _usage(usage)

    def _usage_piece(self, usage: Mapping[str, Any]) -> tuple[AIMessageChunk, ...]:
        if self._counted:
            return ()
        self._counted = True
        return (
            AIMessageChunk(content="", response_metadata=_PROVIDER, usage_metadata=_usage(usage)),
        )

    def _collect_logprobs(self, logprobs: Mapping[str, Any]) -> None:
        for kind, tokens in logprobs.items():
            if tokens:
                self._kept.add(tokens)
                self._logprobs.setdefault(kind, []).extend(tokens)


_WITH_ROLE = 2  # `role` and `content`
_PROVIDER = {"model_provider": MODEL_PROVIDER}


class _CallIndices:
    """Gives each tool call of a stream an index of its own.

    Servers number calls carelessly: all with index 0, or not at all, or with the id repeated on
    each fragment. LangChain joins fragments by index, so two calls would become one.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._ids: list[str | None] = []
        self._texts: list[list[str]] = []
        self._by_id: dict[str, int] = {}
        self._named: set[int] = set()
        self._by_wire: dict[Any, int] = {}

    def place(self, call: Mapping[str, Any]) -> ToolCallChunk:
        function = call.get("function") or {}
        call_id, wire = call.get("id") or None, call.get("index")
        index = self._by_wire.get(wire)
        starts = index is None if call_id is None else call_id not in self._by_id
        if index is None and call_id is None and wire is None and self._ids:
            index, starts = len(self._ids) - 1, False
        if call_id is not None and not starts:
            index = self._by_id[call_id]
        if starts or index is None:
            index = len(self._ids)
            self._kept.add((call_id, wire, function.get("name")))
            self._ids.append(call_id)
            self._texts.append([])
            self._by_id.setdefault(call_id or "", index)
            self._by_wire[wire] = index
        else:
            call_id = None
        name = None if index in self._named else function.get("name") or None
        if name is not None:
            self._named.add(index)
        args = function.get("arguments") or ""
        self._kept.add_json(args)
        self._kept.add_text(args)
        self._texts[index].append(args)
        return tool_call_chunk(name=name, args=args, id=call_id, index=index)

    def texts(self) -> Iterator[tuple[str | None, str]]:
        """Ids and arguments of all calls so far, as they came."""
        return (
            (call_id, "".join(text)) for call_id, text in zip(self._ids, self._texts, strict=True)
        )
