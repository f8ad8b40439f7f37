"""LangChain messages to the body of a chat/completions request.

LangChain content blocks to the content parts of chat/completions.

Blocks of any dialect (`media`) end as one OpenAI part each (`docs/protocol.md`, Chat completions).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
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
from langchain_sequrity.wire.media import Block, non_standard, openai_audio, read_media, unfit
from langchain_sequrity.wire.tool_results import has_failed, whole_results, write_tool_result
from langchain_sequrity.wire.tools import neutral, read_function, text_of, texts_of

Part = dict[str, Any]

_FORMAT = "chat/completions"

_RAN_ELSEWHERE = ("_tool_use", "_tool_result", "_call", "_output")


def write_parts(content: str | list[Any]) -> str | list[Part]:
    """Write a message's content: text stays text, blocks become parts.

    Args:
        content: Content of a LangChain message.

    Returns:
        The text, or the list of parts. Blocks that say nothing on this wire (tool calls, which
        have a place of their own, and reasoning) are left out.

    Raises:
        UsageError: For a block that chat/completions cannot carry.
    """
    if isinstance(content, str):
        return content
    return [part for block in content if (part := _write_part(block)) is not None]


def _write_part(block: Any) -> Part | None:
    if isinstance(block, str):
        return {"type": "text", "text": block}
    kind = block.get("type")
    if kind is None and "text" in block:
        kind = "text"
    write = _PART_WRITERS.get(kind)
    if write is not None:
        return write(block)
    # Calls that another provider's service ran itself have no meaning here; unknown kinds go out
    # as they are: the service may know more than this table.
    ran_elsewhere = str(kind).endswith(_RAN_ELSEWHERE) or str(kind).startswith("mcp_")
    return None if ran_elsewhere else dict(block)


def _text(block: Block) -> Part:
    part = {"type": "text", "text": block["text"]}
    if "cache_control" in block:  # OpenRouter, the default provider, honours it on text parts
        part["cache_control"] = block["cache_control"]
    return part


def _as_is(block: Block) -> Part:
    return dict(block)


def _refusal(block: Block) -> Part:
    return {"type": "refusal", "refusal": block["refusal"]}


def _left_out(_block: Block) -> None:
    return None


def _image(block: Block) -> Part:
    media = read_media(block)
    url = media.url
    if media.data is not None:
        if not media.mime_type:
            raise _unfit(block, "Add `mime_type`, such as `image/png`.")
        url = f"data:{media.mime_type};base64,{media.data}"
    if url is None:
        raise _unfit(block, "Give the image as `url` or as `base64` with `mime_type`.")
    image: Part = {"url": url}
    if detail := media.extras.get("detail"):
        image["detail"] = detail
    return {"type": "image_url", "image_url": image}


def _image_url(block: Block) -> Part:
    image = block.get("image_url")
    return {**block, "image_url": {"url": image}} if isinstance(image, str) else dict(block)


def _file(block: Block) -> Part:
    if "file" in block:  # already OpenAI's form
        return dict(block)
    media = read_media(block)
    if media.file_id is not None:
        return {"type": "file", "file": {"file_id": media.file_id}}
    if media.data is None or not media.mime_type:
        raise _unfit(block, "Give the file as `base64` with `mime_type`, or as `file_id`.")
    return {
        "type": "file",
        "file": {
            "filename": media.name or f"file.{media.mime_type.split('/')[-1]}",
            "file_data": f"data:{media.mime_type};base64,{media.data}",
        },
    }


def _document(block: Block) -> Part:
    source = block.get("source") or {}
    if source.get("type") == "text":
        return {"type": "text", "text": source.get("data", "")}
    return _file(block)


def _plain_text(block: Block) -> Part:
    if "text" not in block:
        raise _unfit(block, "Give the text itself as `text`.")
    return {"type": "text", "text": block["text"]}


def _video(block: Block) -> Part:
    raise _unfit(block, "Chat/completions has no video; send single frames as images.")


def _non_standard(block: Block) -> Part:
    return non_standard(block, _FORMAT)


def _unfit(block: Block, way_out: str) -> UsageError:
    return unfit(block, _FORMAT, way_out)


_PART_WRITERS: dict[str | None, Callable[[Block], Part | None]] = {
    "text": _text,
    "text-plain": _plain_text,
    "image": _image,
    "image_url": _image_url,
    "audio": partial(openai_audio, format_name=_FORMAT),
    "input_audio": _as_is,
    "input_image": _image,
    "input_file": _file,
    "input_text": _text,
    "output_text": _text,
    "file": _file,
    "document": _document,
    "video": _video,
    "refusal": _refusal,
    "non_standard": _non_standard,
    "reasoning": _left_out,
    "reasoning_content": _left_out,
    "thinking": _left_out,
    "redacted_thinking": _left_out,
    "tool_use": _left_out,
    "tool_call": _left_out,
    "tool_call_chunk": _left_out,
    "invalid_tool_call": _left_out,
    "function_call": _left_out,
    "input_json_delta": _left_out,
    "server_tool_use": _left_out,
    "server_tool_call": _left_out,
    "server_tool_result": _left_out,
}


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
