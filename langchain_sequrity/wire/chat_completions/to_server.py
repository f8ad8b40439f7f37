"""LangChain messages to the body of a chat/completions request."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_sequrity.errors import UsageError
from langchain_sequrity.wire.call_texts import text_of, texts_of
from langchain_sequrity.wire.chat_completions.content import write_parts
from langchain_sequrity.wire.tool_results import has_failed, whole_results, write_tool_result
from langchain_sequrity.wire.tools import neutral, read_function

Message = dict[str, Any]


def write_request(
    messages: Sequence[BaseMessage], params: Mapping[str, Any], *, dual_llm: bool = False
) -> dict[str, Any]:
    """Build the body of a request.

    Args:
        messages: The conversation.
        params: Every other field of the body, such as `model` and `tools`. `None` is left out.
        dual_llm: Whether an interpreter reads the results of tools, and is told which failed.

    Returns:
        The body as JSON-ready objects.

    Raises:
        UsageError: If a message has no place in this format.
    """
    body = {key: value for key, value in params.items() if value is not None}
    if tools := body.get("tools"):
        body["tools"] = [write_tool(tool) for tool in tools]
    body["messages"] = write_messages(messages, dual_llm=dual_llm)
    return body


def write_results(results: Sequence[tuple[str, str]]) -> list[Message]:
    """Write tool results whose content is written already.

    Args:
        results: Id of the call and content, in the order of the calls.
    """
    return [
        {"role": "tool", "content": content, "tool_call_id": call_id}
        for call_id, content in results
    ]


def write_tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write a tool: a function tool in the words of another format, in those of this one."""
    if "function" in tool or (function := read_function(tool)) is None:
        return tool
    return neutral(function)


def write_messages(messages: Sequence[BaseMessage], *, dual_llm: bool = False) -> list[Message]:
    """Write a conversation; raises `UsageError` for a message that has no place in it."""
    written: list[Message] = []
    for message in messages:
        results, others = whole_results(message.content)
        if results:
            artifact = getattr(message, "artifact", None)
            written += [
                _marked(_result(block, artifact), dual_llm and block.get("is_error"))
                for block in results
            ]
            if not others:
                continue
            message = HumanMessage(others)  # noqa: PLW2901 - what was said beside the results
        out = _writer(message)(message)
        written.append(_marked(out, dual_llm and has_failed(message)))
    return written


def _marked(out: Message, has_failed: object) -> Message:
    """A result with the mark of Messages, which this format lacks (`docs/behaviour.md`, P7)."""
    return {**out, "is_error": True} if has_failed else out


def _result(block: Mapping[str, Any], artifact: Any) -> Message:
    content = write_parts(block.get("content") or "") or ""
    return {
        "role": "tool",
        "content": write_tool_result(content, artifact),
        "tool_call_id": block.get("tool_use_id"),
    }


def _writer(message: BaseMessage) -> Callable[[Any], Message]:
    writer = _WRITERS.get(type(message))
    if writer is not None:
        return writer
    for kind, candidate in _WRITERS.items():  # chunks and the user's own subclasses
        if isinstance(message, kind):
            return candidate
    msg = (
        f"A `{type(message).__name__}` cannot be sent. Expected system, human, AI, tool, function "
        "or chat messages."
    )
    raise UsageError(msg)


def _named(out: Message, message: BaseMessage) -> Message:
    if message.name is not None:
        out["name"] = message.name
    return out


def _system(message: SystemMessage) -> Message:
    role = message.additional_kwargs.get("__openai_role__", "system")
    return _named({"role": role, "content": _content(message)}, message)


def _content(message: BaseMessage) -> str | list[Message]:
    # An empty list of parts is not legal: blocks that say nothing on this wire were all there was.
    return write_parts(message.content) or ""


def _human(message: HumanMessage) -> Message:
    return _named({"role": "user", "content": _content(message)}, message)


def _chat(message: ChatMessage) -> Message:
    content = _content(message)
    if message.role in ("tool", "function"):
        content = write_tool_result(content, None)
    return _named({"role": message.role, "content": content}, message)


def _function(message: FunctionMessage) -> Message:
    return {
        "role": "function",
        "name": message.name,
        "content": write_tool_result(_content(message), None),
    }


def _tool(message: ToolMessage) -> Message:
    return {
        "role": "tool",
        "content": write_tool_result(_content(message), message.artifact),
        "tool_call_id": message.tool_call_id,
    }


def _ai(message: AIMessage) -> Message:
    out: Message = {"role": "assistant", "content": _content(message)}
    if message.tool_calls or message.invalid_tool_calls:
        out["tool_calls"] = _tool_calls(message)
    extra = message.additional_kwargs
    if extra:
        if "refusal" in extra:
            out["refusal"] = extra["refusal"]
        audio = extra.get("audio")
        if isinstance(audio, dict) and audio.get("id"):
            out["audio"] = {"id": audio["id"]}
    return _named(out, message)


def _tool_calls(message: AIMessage) -> list[Message]:
    texts = texts_of(message)
    calls = [
        _tool_call(call["id"], call["name"], text_of(call, texts)) for call in message.tool_calls
    ]
    # A call whose arguments did not parse was answered with an error message: both go back.
    calls += [
        _tool_call(call["id"], call["name"] or "", call["args"] or "")
        for call in message.invalid_tool_calls
    ]
    return calls


def _tool_call(call_id: str | None, name: str, arguments: str) -> Message:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


_WRITERS: dict[type[BaseMessage], Callable[[Any], Message]] = {
    HumanMessage: _human,
    AIMessage: _ai,
    ToolMessage: _tool,
    SystemMessage: _system,
    ChatMessage: _chat,
    FunctionMessage: _function,
}
