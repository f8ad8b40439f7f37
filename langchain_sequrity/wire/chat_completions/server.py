"""The server's side of chat/completions: reads requests; writes replies, whole or streamed.

Bodies are untrusted; `checks` refuses what the protocol does not describe.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import orjson
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata

from langchain_sequrity.wire import checks
from langchain_sequrity.wire.checks import array, between, optional, tagged_union, text_or
from langchain_sequrity.wire.exchange import (
    DENIED,
    ChatRequest,
    Event,
    ReplyHead,
    ServerFormat,
    StreamTotals,
)
from langchain_sequrity.wire.tools import parse_calls, write_calls

# Other fields may have no effect; a recorded service answered `stream` with plain JSON
# (`docs/behaviour.md`, P4).
DOCUMENTED = frozenset(
    {
        "user_provided_program",
        "context_vars",
        "messages",
        "model",
        "temperature",
        "top_p",
        "tools",
        "seed",
        "reasoning_effort",
        "response_format",
    }
)

# The form of a body

_TEXT = {"text": str}
_PART = {
    "text": _TEXT,
    "image_url": {
        "image_url": {"url": checks.IMAGE_URL, "detail": optional(Literal["auto", "low", "high"])}
    },
    "input_audio": {"input_audio": checks.AUDIO},
    "file": {
        "file": checks.with_one_of(
            {"file_id": optional(str), "file_data": optional(checks.DATA_URI)},
            "file_id",
            "file_data",
        )
    },
}


def _content(parts: Mapping[str, Any]) -> Any:
    return text_or(array(tagged_union("type", parts), least=1), "parts")


_CALL = {"id": str, "function": {"name": str, "arguments": str}}
_SYSTEM = {"name": optional(str), "content": _content({"text": _TEXT})}
_USER = {"name": optional(str), "content": _content(_PART)}
_ASSISTANT = {
    "name": optional(str),
    "content": optional(_content({"text": _TEXT, "refusal": {"refusal": str}})),
    "refusal": optional(str),
    "audio": optional({"id": str}),
    "tool_calls": optional(array(_CALL)),
}
_MESSAGE = {
    "system": _SYSTEM,
    "developer": _SYSTEM,
    "user": _USER,
    "assistant": checks.with_check(
        _ASSISTANT,
        lambda message: (
            message.get("content") is not None
            or any(map(message.get, ("refusal", "audio", "tool_calls")))
        ),
        "have `content` or `tool_calls`",
        possible=False,
    ),
    "tool": {**_USER, "tool_call_id": str, "is_error": optional(bool)},
    "function": {**_SYSTEM, "name": str},
}

_FUNCTION = {
    "name": checks.TOOL_NAME,
    "parameters": optional(checks.JSON_SCHEMA),
    "output_schema": optional(checks.JSON_SCHEMA),
}
_TOOLS = checks.Body(
    {"tools": optional(array({"type": Literal["function"], "function": _FUNCTION}))}
)

_FORMAT = {
    "text": {},
    "json_object": {},
    "json_schema": {"json_schema": checks.with_schema(optional(checks.JSON_SCHEMA), {"name": str})},
}


def _chosen_name(choice: Any) -> Any:
    function = choice.get("function") if isinstance(choice, dict) else None
    return function.get("name") if isinstance(function, dict) else None


BODY = checks.Body(
    {
        "model": str,
        "messages": array(tagged_union("role", _MESSAGE)),
        "tool_choice": checks.tool_choice_form(_chosen_name, "{type: function, function: {name}}"),
        "response_format": optional(tagged_union("type", _FORMAT)),
        **checks.OPENAI_FIELDS,
        "max_tokens": optional(checks.at_least(1)),
        "max_completion_tokens": optional(checks.at_least(1)),
        "n": optional(between(1, 128, int)),
        "frequency_penalty": optional(between(-2, 2)),
        "presence_penalty": optional(between(-2, 2)),
    }
)


# Requests


def read_request(body: Any) -> ChatRequest:
    """Check and read the body of a request.

    Args:
        body: The parsed JSON.

    Returns:
        The request, with LangChain messages.

    Raises:
        InvalidRequest: With `status` 422 or 400 and `body={"detail": …}`.
    """
    BODY.check(body)
    if not body["messages"]:
        checks.refuse_request("`messages` is empty. Send at least one message.")
    options = dict(body)
    take = options.pop
    tools, _ = read_tools({"tools": take("tools", None)})
    choice = take("tool_choice", None)
    limit, older_limit = take("max_completion_tokens", None), take("max_tokens", None)
    return ChatRequest(
        model=take("model"),
        messages=[_READERS[message["role"]](message) for message in take("messages")],
        tools=tools,
        tool_choice=checks.neutral_choice(choice, _chosen_name(choice), tools),
        response_format=_response_format(take("response_format", None)),
        stop=checks.stop_list(take("stop", None)),
        max_tokens=limit or older_limit,
        stream=take("stream", None) or False,
        stream_usage=(take("stream_options", None) or {}).get("include_usage") is True,
        parallel_tool_calls=take("parallel_tool_calls", None) is not False,
        options=options,
    )


def read_tools(body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Function tools in neutral form, and an empty list: the format has no other tools."""
    tools: list[dict[str, Any]] = _TOOLS.check(body).get("tools") or []
    checks.distinct_tools(tools)
    return tools, []


def _response_format(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    format_type = value["type"]
    if format_type != "json_schema":
        return {"type": format_type}
    inner = checks.plain_schema(value["json_schema"])
    schema = inner.get("schema") or {"type": "object"}
    return {"type": format_type, "json_schema": {**inner, "schema": schema}}


def _system(message: dict[str, Any]) -> BaseMessage:
    role = message["role"]
    return SystemMessage(
        content=message["content"],
        name=message.get("name"),
        additional_kwargs={"__openai_role__": role} if role == "developer" else {},
    )


def _user(message: dict[str, Any]) -> BaseMessage:
    return HumanMessage(content=message["content"], name=message.get("name"))


def _assistant(message: dict[str, Any]) -> BaseMessage:
    content, refusal, audio = map(message.get, ("content", "refusal", "audio"))
    extra = {} if refusal is None else {"refusal": refusal}
    # A call that a reply did not finish stays in the history, with an error as its result.
    calls, invalid = parse_calls(
        (call["function"]["name"], call["function"]["arguments"], call["id"], False)
        for call in message.get("tool_calls") or ()
    )
    return AIMessage(
        content="" if content is None else content,
        name=message.get("name"),
        additional_kwargs=extra if audio is None else {**extra, "audio": {"id": audio["id"]}},
        tool_calls=calls,
        invalid_tool_calls=invalid,
    )


def _tool_result(message: dict[str, Any]) -> BaseMessage:
    return ToolMessage(
        content=message["content"],
        tool_call_id=message["tool_call_id"],
        status=checks.status_of(message),
    )


def _function_result(message: dict[str, Any]) -> BaseMessage:
    return FunctionMessage(content=message["content"], name=message["name"])


_READERS: Mapping[str, Callable[[dict[str, Any]], BaseMessage]] = {
    "system": _system,
    "developer": _system,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool_result,
    "function": _function_result,
}


# Replies


def new_reply_id(session_id: str, *, dual_llm: bool = False) -> str:
    """Make the id of a reply: the session's id after a dual-LLM turn, otherwise a random id."""
    return session_id if dual_llm else f"chatcmpl-{secrets.token_hex(12)}"


def write_reply(messages: Sequence[AIMessage], head: ReplyHead) -> dict[str, Any]:
    """Write a whole reply.

    Args:
        messages: One message per choice. `finish_reason` and `logprobs` come from
            `response_metadata`. Usage counts the prompt once and the output of all choices.
        head: Facts of the reply.

    Returns:
        The JSON body.
    """
    body: dict[str, Any] = {
        **_common(head, "chat.completion"),
        "choices": [_choice(index, message) for index, message in enumerate(messages)],
    }
    if len(messages) == 1:  # the field cannot name one of several choices
        body |= head.policy_check(messages[0].response_metadata)
    if usage := _usage_of_all(messages):
        body["usage"] = _write_usage(usage)
    return body


def _common(head: ReplyHead, type_: str) -> dict[str, Any]:
    return {"id": head.id, "object": type_, "created": head.created, "model": head.request.model}


def write_stream(chunks: Iterable[AIMessageChunk], head: ReplyHead) -> Iterator[Event]:
    """Write a streamed reply.

    Args:
        chunks: Chunks of one message. Any of them may have the `finish_reason`.
        head: Facts of the reply. Usage comes last, in a separate event, if the request asked for
            it.

    Yields:
        The events, `[DONE]` at the end.
    """
    common = _common(head, "chat.completion.chunk")
    role: dict[str, Any] = {"role": "assistant", "content": ""}
    totals = StreamTotals()
    for chunk in chunks:
        totals.add(chunk)
        delta, logprobs = _delta(chunk), chunk.response_metadata.get("logprobs")
        if delta or logprobs or role:
            yield _chunk(common, {**role, **delta}, logprobs=logprobs)
            role = {}
    finish_reason = _finish_reason(totals.metadata, called=bool(totals.calls))
    check = head.policy_check(totals.metadata)
    yield _chunk({**common, **check}, role, finish_reason=finish_reason)
    if head.request.stream_usage and totals.usage is not None:
        yield _event({**common, "choices": [], "usage": _write_usage(totals.usage)})
    yield Event("", "[DONE]")


def write_error(message: str, status: int) -> Event:
    """Write an error that happens during a stream."""
    return _event({"error": {"message": message, "code": status}})


def _event(body: Mapping[str, Any]) -> Event:
    return Event("", orjson.dumps(body).decode())


def _usage_of_all(messages: Sequence[AIMessage]) -> UsageMetadata | None:
    first = messages[0].usage_metadata
    if first is None or len(messages) == 1:
        return first
    counts = (message.usage_metadata or {"output_tokens": 0} for message in messages)
    output = sum(count["output_tokens"] for count in counts)
    return {**first, "output_tokens": output, "total_tokens": first["input_tokens"] + output}


def _write_usage(usage: UsageMetadata) -> dict[str, Any]:
    """Write token counts with this format's names."""
    inputs = usage.get("input_token_details", {})
    outputs = usage.get("output_token_details", {})
    body: dict[str, Any] = {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
    }
    prompt = {"cached_tokens": inputs.get("cache_read"), "audio_tokens": inputs.get("audio")}
    completion = {
        "reasoning_tokens": outputs.get("reasoning"),
        "audio_tokens": outputs.get("audio"),
    }
    if details := _without_none(prompt):
        body["prompt_tokens_details"] = details
    if details := _without_none(completion):
        body["completion_tokens_details"] = details
    return body


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _choice(index: int, message: AIMessage) -> dict[str, Any]:
    body: dict[str, Any] = {
        "role": "assistant",
        "content": str(message.text),
        "refusal": message.additional_kwargs.get("refusal"),
    }
    if reasoning := message.additional_kwargs.get("reasoning_content"):
        body["reasoning_content"] = reasoning
    called = bool(message.tool_calls or message.invalid_tool_calls)
    if called:
        body["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}
            for call_id, name, text in write_calls(message)
        ]
    metadata = message.response_metadata
    return {
        "index": index,
        "message": body,
        "finish_reason": _finish_reason(metadata, called=called),
        "logprobs": metadata.get("logprobs"),
    }


def _finish_reason(metadata: Mapping[str, Any], *, called: bool) -> str:
    reason = metadata.get("finish_reason") or ("tool_calls" if called else "stop")
    # A client that does not read `refusal` must not take the empty message for an answer.
    return "content_filter" if reason == DENIED else reason


def _delta(chunk: AIMessageChunk) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if text := str(chunk.text):
        delta["content"] = text
    for key in ("reasoning_content", "refusal"):
        if value := chunk.additional_kwargs.get(key):
            delta[key] = value
    if chunk.tool_call_chunks:
        delta["tool_calls"] = [_fragment(dict(call)) for call in chunk.tool_call_chunks]
    return delta


def _fragment(call: dict[str, Any]) -> dict[str, Any]:
    fragment: dict[str, Any] = {
        "index": call["index"],
        "function": {"arguments": call["args"] or ""},
    }
    if call["id"] is not None:
        fragment |= {"id": call["id"], "type": "function"}
    if call["name"] is not None:
        fragment["function"]["name"] = call["name"]
    return fragment


def _chunk(
    common: Mapping[str, Any],
    delta: Mapping[str, Any],
    *,
    finish_reason: str | None = None,
    logprobs: Any = None,
) -> Event:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
    return _event({**common, "choices": [choice]})


FORMAT = ServerFormat(
    DOCUMENTED,
    {"full": "stop", "documented": "error"},
    read_request,
    new_reply_id,
    write_reply,
    write_stream,
    write_error,
)
