"""LangChain messages to the body of a Messages request.

Turns alternate: consecutive messages of one side become one turn, tool results are part of the
user's, and system messages stand in a field of their own, wherever they were
(`docs/protocol.md`, Messages).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from langchain_sequrity.wire.messages.content import (
    Block,
    as_is,
    write_block,
    write_blocks,
    write_result,
)
from langchain_sequrity.wire.messages.ids import legal_id
from langchain_sequrity.wire.messages.params import write_params
from langchain_sequrity.wire.tool_results import write_tool_result

Turn = dict[str, Any]

_CALLS = frozenset(
    {"tool_use", "tool_call", "function_call", "invalid_tool_call", "tool_call_chunk"}
)
# Where the arguments of a call are no JSON, the format still demands an object.
_INVALID = "INVALID_JSON"


def write_request(messages: Sequence[BaseMessage], params: Mapping[str, Any]) -> dict[str, Any]:
    """Build the body of a request.

    Args:
        messages: The conversation.
        params: Every other field of the body, such as `model` and `tools`, in the neutral words
            of chat/completions or in the format's own. `None` is left out.

    Returns:
        The body as JSON-ready objects.

    Raises:
        UsageError: If a message or a parameter has no place in this format.
    """
    body = write_params(params)
    system, turns = write_messages(messages)
    if given := body.get("system"):
        system = [*write_blocks(given), *_blocks(system)]
    if system:
        body["system"] = system
    body["messages"] = turns
    return body


def write_messages(messages: Iterable[BaseMessage]) -> tuple[str | list[Block], list[Turn]]:
    """Write a conversation.

    Returns:
        The system prompt, empty where there is none, and the turns.

    Raises:
        UsageError: For a message that has no place in it.
    """
    system: str | list[Block] = ""
    turns: list[Turn] = []
    for message in messages:
        role, content = _writer(message)(message)
        if role == "system":
            system = _joined(system, content) if system else content
        elif not content and role == "assistant":
            continue  # it said nothing, which the format refuses
        elif turns and turns[-1]["role"] == role:
            turns[-1]["content"] = _joined(turns[-1]["content"], content)
        else:
            turns.append({"role": role, "content": content})
    if turns and turns[-1]["role"] == "assistant":
        turns[-1]["content"] = _without_trailing_space(turns[-1]["content"])
    return system, turns


Content = str | list[Block]
Written = tuple[str, Content]


def _joined(first: Content, second: Content) -> list[Block]:
    return [*_blocks(first), *_blocks(second)]


def _blocks(content: Content) -> list[Block]:
    return write_blocks(content) if isinstance(content, str) else content


def _without_trailing_space(content: Content) -> Content:
    """The start of an answer, which the format refuses to end in white space."""
    if isinstance(content, str):
        return content.rstrip()
    last = content[-1]
    if last["type"] != "text":
        return content
    return [*content[:-1], {**last, "text": last["text"].rstrip()}]


def _writer(message: BaseMessage) -> Callable[[Any], Written]:
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


def _content(message: BaseMessage) -> Content:
    content = message.content
    return content if isinstance(content, str) else write_blocks(content)


def _system(message: SystemMessage) -> Written:
    return "system", _content(message)


def _human(message: HumanMessage) -> Written:
    # Where blocks said nothing on this wire, the service is to say what it makes of it.
    return "user", _content(message) or ""


def _chat(message: ChatMessage) -> Written:
    role = {"human": "user", "ai": "assistant", "developer": "system"}.get(
        message.role, message.role
    )
    if role not in ("user", "assistant", "system"):
        msg = f"The Messages format has no role `{message.role}`. Use `user` or `assistant`."
        raise UsageError(msg)
    return role, _content(message)


def _function(message: FunctionMessage) -> Written:
    msg = (
        f"The Messages format has no function messages (here of `{message.name}`). Use a "
        "`ToolMessage` with the id of the call."
    )
    raise UsageError(msg)


def _tool(message: ToolMessage) -> Written:
    if whole := _whole_results(message):
        return "user", [write_result(block, message.artifact) for block in whole]
    content = _content(message)
    result: Block = {
        "type": "tool_result",
        "tool_use_id": legal_id(message.tool_call_id),
        "content": write_tool_result(content, message.artifact),
    }
    if message.status == "error":
        result["is_error"] = True
    return "user", [result]


def _whole_results(message: ToolMessage) -> list[dict[str, Any]]:
    """The content where it is nothing but whole results, as Anthropic's users write them."""
    content = message.content if isinstance(message.content, list) else []
    results = [block for block in content if isinstance(block, dict)]
    is_whole = len(results) == len(content) and all(
        block.get("type") == "tool_result" for block in results
    )
    return results if is_whole else []


def _ai(message: AIMessage) -> Written:
    content = message.content
    calls = _calls(message)
    if isinstance(content, str) and not calls:
        return "assistant", _said(content, message)
    blocks = []
    for block in [content] if isinstance(content, str) else content:
        if isinstance(block, dict) and block.get("type") in _CALLS:
            written = _call_block(block, calls, message)
        else:
            written = write_block(block)
        if written is not None:
            blocks.append(written)
    blocks += calls.values()
    return "assistant", blocks or _said("", message)


def _said(text: str, message: AIMessage) -> Content:
    """Text alone; a refusal without text is said in its place, so that the turn is not lost."""
    return text if text.strip() else str(message.additional_kwargs.get("refusal") or "")


def _calls(message: AIMessage) -> dict[str | None, Block]:
    """The message's tool calls by their ids: they decide, users edit them and not the content."""
    calls = {
        call["id"]: _tool_use(call["id"], call["name"], call["args"]) for call in message.tool_calls
    }
    for bad in message.invalid_tool_calls:
        # Its result says what is wrong with it: both go back.
        calls[bad["id"]] = _tool_use(bad["id"], bad["name"] or "", {_INVALID: bad["args"] or ""})
    return calls


def _tool_use(call_id: str | None, name: str, args: Mapping[str, Any]) -> Block:
    return {"type": "tool_use", "id": legal_id(call_id), "name": name, "input": args}


def _call_block(
    block: Mapping[str, Any], calls: dict[str | None, Block], message: AIMessage
) -> Block | None:
    """A call where the content has it; one that was taken out of `tool_calls` is gone."""
    call_id = block.get("call_id") or block.get("id")
    call = calls.pop(call_id, None)
    is_own = block["type"] == "tool_use"
    if call is not None:
        kept = (
            {key: value for key, value in block.items() if key not in _OF_CALLS} if is_own else {}
        )
        return {**call, **kept}
    if message.tool_calls or message.invalid_tool_calls or not is_own:
        return None
    return {**as_is(block), "id": legal_id(call_id), "input": block.get("input") or {}}


_OF_CALLS = frozenset({"type", "id", "name", "input", "index", "partial_json"})

_WRITERS: dict[type[BaseMessage], Callable[[Any], Written]] = {
    HumanMessage: _human,
    AIMessage: _ai,
    ToolMessage: _tool,
    SystemMessage: _system,
    ChatMessage: _chat,
    FunctionMessage: _function,
}
