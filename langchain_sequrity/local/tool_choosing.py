"""Which tools fit what the user says, and with which arguments; no model is asked."""

import re
from collections.abc import Mapping
from typing import Any

from langchain_sequrity.local.clues import Clues, words
from langchain_sequrity.local.conversation import called_tools, this_turn, tool_results
from langchain_sequrity.local.schema_filling import fill
from langchain_sequrity.wire.exchange import ChatRequest

_MOST_CALLS = 8
_NAME_WEIGHT = 3
_SIGNS = {
    "+": ("add", "adder", "sum", "plus"),
    "*": ("multiply", "times", "product"),
    "/": ("divide", "quotient"),
}
_SIGN = re.compile(r"(?<=\d)\s?([+*/])\s?(?=\d)")
# Words that say nothing about which tool is meant.
_EMPTY = frozenset(
    """
    a about after all an and any are as at be but by call can could do does for from function get
    give given hello hi how i if in input into is it its json let me my name named no not of on one
    or output please return returns show so some string tell text that the their then there they
    this to tool tools up us use used user uses using value want was we what when where which who
    will with would you your int str integer number list object type arg args
    """.split()  # noqa: SIM905 - eighty quoted strings read worse
)


def tool_name(tool: Mapping[str, Any]) -> str:
    """The name of a function tool."""
    return str(tool["function"]["name"])


def chosen_tools(request: ChatRequest, prompt: str) -> list[dict[str, Any]]:
    """Choose the tools to call: those that are asked for, or that share most words with the prompt.

    Args:
        request: What is asked; its `tool_choice` counts.
        prompt: What the user said last.

    Returns:
        The tools, none if none fits or a tool has answered already.
    """
    choice = request.tool_choice
    if choice == "none" or not request.tools:
        return []
    if isinstance(choice, dict):
        return [tool for tool in request.tools if tool_name(tool) == choice["name"]][:1]
    if choice == "required":
        return _required(request, prompt)
    return [] if tool_results(request.messages) else _fitting(request, prompt)


def _required(request: ChatRequest, prompt: str) -> list[dict[str, Any]]:
    """A tool must be called: one that has not been called in this turn, so that agents end."""
    called = set(called_tools(this_turn(request.messages)).values())
    tools = [tool for tool in request.tools if tool_name(tool) not in called] or request.tools[-1:]
    return [max(tools, key=lambda tool: _overlap(tool, prompt))]


def _fitting(request: ChatRequest, prompt: str) -> list[dict[str, Any]]:
    named = [tool for tool in request.tools if _is_named(tool, prompt)]
    if len(named) > 1 and request.parallel_tool_calls:
        return named[:_MOST_CALLS]
    best = max(named or request.tools, key=lambda tool: _overlap(tool, prompt))
    return [best] if named or _overlap(best, prompt) else []


def _is_named(tool: Mapping[str, Any], prompt: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(tool_name(tool))}(?![\w-])", prompt) is not None


def _overlap(tool: Mapping[str, Any], prompt: str) -> int:
    function = tool["function"]
    said = _telling(prompt) | {word for sign in _SIGN.findall(prompt) for word in _SIGNS[sign]}
    parameters = _properties(function.get("parameters"))
    about = _telling(f"{function.get('description') or ''} {' '.join(parameters)}")
    return _NAME_WEIGHT * len(said & _telling(tool_name(tool))) + len(said & about)


def _telling(text: str) -> set[str]:
    return {_stem(word) for word in words(text) if word not in _EMPTY and not word.isdigit()}


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") else word  # noqa: PLR2004 - "gas"


def _properties(schema: Any) -> list[str]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return list(map(str, properties)) if isinstance(properties, Mapping) else []


def arguments_for(tool: Mapping[str, Any], clues: Clues) -> dict[str, Any]:
    """Fill the arguments of a call from the tool's schema and the user's words."""
    schema = tool["function"].get("parameters")
    if not isinstance(schema, Mapping):
        return {}
    filled = fill({"type": "object", **schema}, clues)
    return filled if isinstance(filled, dict) else {}
