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
from langchain_sequrity.wire.json_text import read_arguments
from langchain_sequrity.wire.messages.content import (
    Block,
    write_block,
    write_blocks,
    write_result,
)
from langchain_sequrity.wire.messages.params import INVALID, legal_id, write_params
from langchain_sequrity.wire.tool_results import write_tool_result

Turn = dict[str, Any]

_CALLS = frozenset(
    {"tool_use", "tool_call", "function_call", "invalid_tool_call", "tool_call_chunk"}
)


def write_request(
    messages: Sequence[BaseMessage], params: Mapping[str, Any], *, dual_llm: bool = False
) -> dict[str, Any]:
    """Build the body of a request.

    Args:
        messages: The conversation.
        params: Every other field of the body, such as `model` and `tools`, in the neutral words
            of chat/completions or in the format's own. `None` is left out.
        dual_llm: Whether an interpreter reads the results of tools; it makes no difference here.

    Returns:
        The body as JSON-ready objects.

    Raises:
        UsageError: If a message or a parameter has no place in this format.
    """
    del dual_llm
    body = write_params(params)
    system, turns = write_messages(messages)
    if given := body.get("system"):
        system = [*write_blocks(given), *_blocks(system)]
    if system:
        body["system"] = system
    body["messages"] = turns
    return body


def write_results(results: Sequence[tuple[str, str]]) -> list[Turn]:
    """Write tool results whose content is written already.

    Args:
        results: Id of the call and content, in the order of the calls.
    """
    blocks = [
        {"type": "tool_result", "tool_use_id": legal_id(call_id), "content": content}
        for call_id, content in results
    ]
    return [{"role": "user", "content": blocks}]


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
    for turn in turns:
        content = turn["content"]
        if turn["role"] == "user" and isinstance(content, list) and len(content) > 1:
            turn["content"] = _results_first(content)
    return system, turns


Content = str | list[Block]
Written = tuple[str, Content]


def _joined(first: Content, second: Content) -> list[Block]:
    if isinstance(first, str):
        return [*_blocks(first), *_blocks(second)]
    first += _blocks(second)  # a list made here, of a turn that may have many messages
    return first


def _results_first(blocks: list[Block]) -> list[Block]:
    """The format wants results of tools before what the user says; tools can say things too."""
    kinds = [block.get("type") == "tool_result" for block in blocks]
    if kinds == sorted(kinds, reverse=True):
        return blocks
    return sorted(blocks, key=lambda block: block.get("type") != "tool_result")


def _blocks(content: Content) -> list[Block]:
    return write_blocks(content) if isinstance(content, str) else content


def _without_trailing_space(content: Content) -> Content:
    """The start of an answer, which the format refuses to end in white space."""
    if isinstance(content, str):
        return content.rstrip()
    last = content[-1]
    if last.get("type") != "text":
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
    content: Content
    mark = None
    if isinstance(message.content, str):
        content = message.content
    elif whole := _whole_results(message.content):
        return "user", [write_result(block, message.artifact) for block in whole]
    else:
        content = write_blocks(message.content)
        mark = _cache_mark(content)
    result: Block = {
        "type": "tool_result",
        "tool_use_id": legal_id(message.tool_call_id),
        "content": write_tool_result(content, message.artifact),
    }
    if message.status == "error":
        result["is_error"] = True
    if mark is not None:
        result["cache_control"] = mark
    return "user", [result]


def _whole_results(content: list[str | dict[Any, Any]]) -> list[dict[str, Any]]:
    """The content where it is nothing but whole results, as Anthropic's users write them."""
    results = [block for block in content if isinstance(block, dict)]
    is_whole = len(results) == len(content) and all(
        block.get("type") == "tool_result" for block in results
    )
    return results if is_whole else []


def _cache_mark(content: list[Block]) -> Any:
    """A mark on a block within a result is one on the result: its text may be wrapped."""
    marks = [block.pop("cache_control", None) for block in content]
    return next(filter(None, reversed(marks)), None)


def _ai(message: AIMessage) -> Written:
    content = message.content
    if isinstance(content, str):
        if not (message.tool_calls or message.invalid_tool_calls):
            return "assistant", _said(content, message)
        return "assistant", [*write_blocks(content), *_Calls(message).left]
    blocks: list[Block] = []
    calls = _Calls(message)
    is_foreign = _is_foreign(message)
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        if isinstance(block, dict) and kind in _CALLS:
            written = calls.take(block)
        elif is_foreign and kind in _THOUGHTS:
            written = None
        else:
            written = write_block(block)
        if written is not None:
            blocks.append(written)
    blocks += calls.left
    return "assistant", blocks or _said("", message)


def _said(text: str, message: AIMessage) -> Content:
    """Text alone; a refusal without text is said in its place, so that the turn is not lost."""
    return text if text.strip() else str(message.additional_kwargs.get("refusal") or "")


def _is_foreign(message: AIMessage) -> bool:
    """Whether thoughts were signed by another provider: a signature is good at home only."""
    provider = message.response_metadata.get("model_provider")
    return provider is not None and not str(provider).startswith(_HOMES)


class _Calls:
    """Tool calls of one message. `tool_calls` decide: users edit them, and not the content.

    Args:
        message: The message.

    Attributes:
        left: Calls that have no block in the content, or none yet.

    Raises:
        UsageError: If two calls have the same id.
    """

    def __init__(self, message: AIMessage) -> None:
        # A message that was read knows all of its calls, one that was written by hand perhaps not.
        self._decides = "id" in message.response_metadata
        self.left = [
            _tool_use(call["id"] or f"call {number}", call["name"], call["args"])
            for number, call in enumerate(message.tool_calls)
        ]
        for bad in message.invalid_tool_calls:
            # Its result says what is wrong with it: both go back.
            args = {INVALID: bad["args"] or ""}
            self.left.append(_tool_use(bad["id"], bad["name"] or _NAMELESS, args))
        self._decides = self._decides or bool(self.left)
        if len(self.left) > 1 and len({call["id"] for call in self.left}) != len(self.left):
            msg = "Two tool calls of one message have the same id. Give each an id of its own."
            raise UsageError(msg)

    def take(self, block: Mapping[str, Any]) -> Block | None:
        """The call that stands here in the content; one that was taken out of the calls is gone."""
        call_id = legal_id(block.get("call_id") or block.get("id"))
        is_own = block["type"] == "tool_use"
        for place, call in enumerate(self.left):
            if call["id"] == call_id:
                del self.left[place]
                return {**call, **_beside(block)}
        if self._decides or not is_own:
            return None
        args = block.get("input") or read_arguments(block.get("partial_json"))[0] or {}
        return _tool_use(call_id, block["name"], args) | _beside(block)


def _tool_use(call_id: str | None, name: str, args: Mapping[str, Any]) -> Block:
    return {"type": "tool_use", "id": legal_id(call_id), "name": name, "input": args}


def _beside(block: Mapping[str, Any]) -> Block:
    """What is said beside a call, in its own block or in LangChain's standard one."""
    found = {**(block.get("extras") or {}), **block}
    return {key: found[key] for key in _BESIDE if found.get(key) is not None}


_BESIDE = ("cache_control", "caller", "toolset_name")
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")
_HOMES = ("anthropic", "bedrock", "google_vertexai")
_NAMELESS = "invalid_call"

_WRITERS: dict[type[BaseMessage], Callable[[Any], Written]] = {
    HumanMessage: _human,
    AIMessage: _ai,
    ToolMessage: _tool,
    SystemMessage: _system,
    ChatMessage: _chat,
    FunctionMessage: _function,
}
