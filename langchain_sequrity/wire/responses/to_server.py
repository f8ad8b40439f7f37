"""LangChain messages to the body of a Responses request."""

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
from langchain_sequrity.wire.responses.assistant import write_assistant
from langchain_sequrity.wire.responses.content import TEXT, Part, write_parts
from langchain_sequrity.wire.responses.params import write_params
from langchain_sequrity.wire.tool_results import has_failed, whole_results, write_tool_result

Item = dict[str, Any]


def write_request(
    messages: Sequence[BaseMessage], params: Mapping[str, Any], *, dual_llm: bool = False
) -> dict[str, Any]:
    """Build the body of a request.

    Args:
        messages: The conversation, or what is new in it where `previous_response_id` is given.
        params: Every other field of the body, such as `model` and `tools`, in the neutral words of
            chat/completions or in the format's own. `None` is left out.
        dual_llm: Whether an interpreter reads the results of tools, and is told which failed.

    Returns:
        The body as JSON-ready objects.

    Raises:
        UsageError: If a message has no place in this format.
    """
    body = write_params(params)
    body["input"] = write_input(messages, dual_llm=dual_llm)
    return body


def write_results(results: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Write tool results whose content is written already.

    Args:
        results: Id of the call and content, in the order of the calls.
    """
    return [
        {"type": "function_call_output", "call_id": call_id, "output": content}
        for call_id, content in results
    ]


def write_input(messages: Iterable[BaseMessage], *, dual_llm: bool = False) -> list[Item]:
    """Write a conversation as items.

    Args:
        messages: The conversation. Names of messages have no place here.
        dual_llm: See `write_request`.

    Returns:
        The items: those of the assistant are several per message.

    Raises:
        UsageError: For a message that has no place in it.
    """
    items: list[Item] = []
    for message in messages:
        results, others = whole_results(message.content)
        if results:
            artifact = getattr(message, "artifact", None)
            for block in results:
                content = block.get("content") or ""
                output = _output(block.get("tool_use_id"), content, artifact)
                items.append(_marked(output, dual_llm and block.get("is_error")))
            if not others:
                continue
            message = HumanMessage(others)  # noqa: PLW2901 - what was said beside the results
        written = _writer(message)(message)
        items += [_marked(one, dual_llm and has_failed(message)) for one in written]
    return items


def _marked(item: Item, has_failed: object) -> Item:
    """A result with the mark of Messages, which this format lacks (`docs/behaviour.md`, P7)."""
    return {**item, "is_error": True} if has_failed else item


def _writer(message: BaseMessage) -> Callable[[Any], list[Item]]:
    writer = _WRITERS.get(type(message))
    if writer is not None:
        return writer
    for kind, candidate in _WRITERS.items():  # chunks and the user's own subclasses
        if isinstance(message, kind):
            return candidate
    msg = (
        f"A `{type(message).__name__}` cannot be sent. Expected system, human, AI, tool or chat "
        "messages."
    )
    raise UsageError(msg)


def _system(message: SystemMessage) -> list[Item]:
    role = message.additional_kwargs.get("__openai_role__", "system")
    return [{"role": role, "content": _content(message)}]


def _content(message: BaseMessage) -> str | list[Part]:
    # An empty list of parts is not legal: blocks that say nothing on this wire were all there was.
    return write_parts(message.content) or ""


def _human(message: HumanMessage) -> list[Item]:
    return [{"role": "user", "content": _content(message)}]


def _chat(message: ChatMessage) -> list[Item]:
    if message.role == "assistant":
        return write_assistant(AIMessage(message.content))
    if message.role in ("tool", "function"):
        raise _no_call_id(message)
    return [{"role": message.role, "content": _content(message)}]


def _function(message: FunctionMessage) -> list[Item]:
    raise _no_call_id(message)


def _no_call_id(message: BaseMessage) -> UsageError:
    msg = (
        f"A `{type(message).__name__}` says nothing of the call that it answers, which Responses "
        "needs. Use a `ToolMessage` with the id of the call."
    )
    return UsageError(msg)


def _tool(message: ToolMessage) -> list[Item]:
    return [_output(message.tool_call_id, message.content, message.artifact)]


def _output(call_id: str | None, content: str | list[Any], artifact: Any) -> Item:
    output = write_tool_result(_result(content), artifact)
    if not isinstance(output, str):
        output = [{**part, "type": TEXT} if part.get("type") == "text" else part for part in output]
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def _result(content: str | list[Any]) -> str | list[Part]:
    """A tool's result: text, which is all that is documented, or parts if there is more.

    Text in parts is of type `text` as long as labels are looked for in it (`tool_results`).
    """
    parts = write_parts(content)
    if isinstance(parts, str):
        return parts
    if all(part.get("type") == TEXT for part in parts):
        return "".join(part["text"] for part in parts)
    return [{**part, "type": "text"} if part.get("type") == TEXT else part for part in parts]


_WRITERS: dict[type[BaseMessage], Callable[[Any], list[Item]]] = {
    HumanMessage: _human,
    AIMessage: write_assistant,
    ToolMessage: _tool,
    SystemMessage: _system,
    ChatMessage: _chat,
    FunctionMessage: _function,
}
