"""`invoke` with an agent's long history and ten tools: costs that grow with the conversation."""

from collections.abc import Callable
from functools import partial
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from benchmarks.formats import FORMATS, MODEL, OURS, Format
from benchmarks.measure import Effort, Samples, cpu, interleaved, ratio
from benchmarks.peers import CONSTANT, HTTPX, BareHttpx, chat_models
from benchmarks.report import Goal, Row, compare

_SIZES = (200, 400)
_TOOLS = 10
_TEXT = (
    "The report of the third quarter names {} open orders, most of them from the harbour office."
)


def measure(base_url: str, effort: Effort) -> list[Row]:
    return [row for wire_format in FORMATS for row in _rows(wire_format, base_url, effort)]


def _rows(wire_format: Format, base_url: str, effort: Effort) -> list[Row]:
    work: dict[tuple[str, int], Callable[[], float]] = {}
    for size in _SIZES:
        for name, action in _actions(wire_format, base_url, history(size)).items():
            work[name, size] = cpu(action, effort)
    samples = interleaved(work, effort)
    small, large = _SIZES
    doubled = max(ratio(samples, (name, large), [(name, small)]) for name in OURS)
    linear = Goal(f"/ {small} messages", doubled, limit=2.2)
    case, limit = f"{wire_format.title}invoke", wire_format.limits.history
    return [
        compare(f"{case}, {small} messages", _of(samples, small), rival=limit),
        compare(f"{case}, {large} messages", _of(samples, large), more=[linear]),
    ]


def history(size: int) -> list[BaseMessage]:
    """A conversation: a system message, then question, tool call, result and answer in turn."""
    messages: list[BaseMessage] = [SystemMessage(_TEXT.format("all"))]
    for turn in range(size):
        text, call_id = _TEXT.format(turn), f"call_{turn}"
        call: Any = {"name": "lookup_1", "args": {"subject": text, "limit": turn}, "id": call_id}
        messages += [
            HumanMessage(text),
            AIMessage("", tool_calls=[call]),
            ToolMessage(text, tool_call_id=call_id),
            AIMessage(text),
        ]
    return [*messages[: size - 1], HumanMessage("Which orders are open?")]


def _actions(
    wire_format: Format, base_url: str, messages: list[BaseMessage]
) -> dict[str, Callable[[], object]]:
    tools = _tools()
    written = [convert_to_openai_tool(tool) for tool in tools]
    models = chat_models(wire_format, base_url)
    constant = models.pop(CONSTANT).bind(tools=written)
    body = wire_format.write(messages, {"model": MODEL, "tools": written})
    actions: dict[str, Callable[[], object]] = {
        name: partial(model.bind_tools(tools).invoke, messages) for name, model in models.items()
    }
    actions[CONSTANT] = partial(constant.invoke, messages)
    actions[HTTPX] = partial(BareHttpx(wire_format, base_url).post, body)
    return actions


def _tools() -> list[BaseTool]:
    def lookup(subject: str, limit: int = 10, *, exact: bool = False) -> str:
        """Look up what is known about a subject."""
        return f"{subject} {limit} {exact}"

    return [StructuredTool.from_function(lookup, name=f"lookup_{one}") for one in range(_TOOLS)]


def _of(samples: Samples[tuple[str, int]], size: int) -> Samples[str]:
    return {name: figures for (name, of_size), figures in samples.items() if of_size == size}
