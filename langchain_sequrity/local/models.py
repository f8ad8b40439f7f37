"""The model that answers when there is no other: from the request alone, always the same."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessageChunk

from langchain_sequrity.local.answers import Answer, stream_answer
from langchain_sequrity.local.brains import BrainContext
from langchain_sequrity.local.clues import Clues, quoted, words
from langchain_sequrity.local.conversation import (
    attachments,
    called_tools,
    last_user,
    text_of,
    this_turn,
    tool_results,
)
from langchain_sequrity.local.schema_filling import fill
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.json_text import dumps

_ECHOED = 500
_MOST_RESULTS = 20
_MOST_CALLS = 8
_MOST_KEYS = 30
_NAME_WEIGHT = 3
_ASKING = ("system", "human")
_KEY = re.compile(r"[A-Za-z_][\w-]{0,40}\Z")
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


class DeterministicModel:
    """Answers from the request alone: the same request has the same answer.

    - A forced tool is called; with `tool_choice` `auto`, the tool whose name, description and
      parameters share most words with what the user said, and none if they share none.
    - Arguments and structured answers are filled from their JSON Schema and the user's words.
    - After a tool has answered, the answer quotes the results.
    - Otherwise the answer echoes what the user said.

    Example:
        ```python
        from langchain_core.messages import HumanMessage
        from langchain_sequrity.local.brains import BrainContext
        from langchain_sequrity.local.models import DeterministicModel
        from langchain_sequrity.wire.exchange import ChatRequest

        request = ChatRequest(model="any/model", messages=[HumanMessage("Hello")])
        chunks = list(DeterministicModel().stream(request, BrainContext()))
        assert "".join(chunk.text for chunk in chunks) == "You said: Hello"
        ```
    """

    def stream(self, request: ChatRequest, context: BrainContext) -> Iterator[AIMessageChunk]:
        """Answer in pieces.

        Args:
            request: What is asked.
            context: Not used: every role is answered alike.

        Returns:
            The pieces of the answer.
        """
        del context
        return stream_answer(_answer(request), request)


def _answer(request: ChatRequest) -> Answer:
    prompt = text_of(last_user(request.messages))
    tools = _chosen_tools(request, prompt)
    if tools:
        clues = Clues(prompt)
        calls = tuple((_name(tool), _arguments(tool, clues)) for tool in tools)
        return Answer(reasoning=_reasoning(request, prompt, tools), calls=calls)
    return Answer(text=_text(request, prompt), reasoning=_reasoning(request, prompt, []))


def _reasoning(request: ChatRequest, prompt: str, tools: list[dict[str, Any]]) -> str:
    if request.options.get("reasoning_effort") in (None, "none"):
        return ""
    names = " and ".join(f"`{_name(tool)}`" for tool in tools)
    plan = f"I call {names}." if tools else "I answer directly."
    return f"The user asks: {prompt[:_ECHOED]}\n{plan}" if prompt else plan


# Which tools


def _name(tool: Mapping[str, Any]) -> str:
    return str(tool["function"]["name"])


def _chosen_tools(request: ChatRequest, prompt: str) -> list[dict[str, Any]]:
    choice = request.tool_choice
    if choice == "none" or not request.tools:
        return []
    if isinstance(choice, dict):
        return [tool for tool in request.tools if _name(tool) == choice["name"]][:1]
    if choice == "required":
        return _required(request, prompt)
    return [] if tool_results(request.messages) else _fitting(request, prompt)


def _required(request: ChatRequest, prompt: str) -> list[dict[str, Any]]:
    """A tool must be called: one that has not been called in this turn, so that agents end."""
    called = set(called_tools(this_turn(request.messages)).values())
    tools = [tool for tool in request.tools if _name(tool) not in called] or request.tools[-1:]
    return [max(tools, key=lambda tool: _overlap(tool, prompt))]


def _fitting(request: ChatRequest, prompt: str) -> list[dict[str, Any]]:
    named = [tool for tool in request.tools if _is_named(tool, prompt)]
    if len(named) > 1 and request.parallel_tool_calls:
        return named[:_MOST_CALLS]
    best = max(named or request.tools, key=lambda tool: _overlap(tool, prompt))
    return [best] if named or _overlap(best, prompt) else []


def _is_named(tool: Mapping[str, Any], prompt: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(_name(tool))}(?![\w-])", prompt) is not None


def _overlap(tool: Mapping[str, Any], prompt: str) -> int:
    function = tool["function"]
    said = _telling(prompt) | {word for sign in _SIGN.findall(prompt) for word in _SIGNS[sign]}
    parameters = _properties(function.get("parameters"))
    about = _telling(f"{function.get('description') or ''} {' '.join(parameters)}")
    return _NAME_WEIGHT * len(said & _telling(_name(tool))) + len(said & about)


def _telling(text: str) -> set[str]:
    return {_stem(word) for word in words(text) if word not in _EMPTY and not word.isdigit()}


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") else word  # noqa: PLR2004 - "gas"


def _properties(schema: Any) -> list[str]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return list(map(str, properties)) if isinstance(properties, Mapping) else []


def _arguments(tool: Mapping[str, Any], clues: Clues) -> dict[str, Any]:
    schema = tool["function"].get("parameters")
    if not isinstance(schema, Mapping):
        return {}
    filled = fill({"type": "object", **schema}, clues)
    return filled if isinstance(filled, dict) else {}


# What is said


def _text(request: ChatRequest, prompt: str) -> str:
    form = request.response_format or {}
    if form.get("type") == "json_schema":
        return dumps(fill(form["json_schema"]["schema"], Clues(prompt)))
    if form.get("type") == "json_object":
        return dumps(_object(request, prompt))
    if results := tool_results(request.messages):
        return "\n".join(
            f"The tool `{name}` returned: {result[:_ECHOED]}"
            for name, result in results[-_MOST_RESULTS:]
        )
    return _echo(request, prompt)


def _echo(request: ChatRequest, prompt: str) -> str:
    sent = attachments(last_user(request.messages))[:_MOST_RESULTS]
    said = f"You said: {prompt.strip()[:_ECHOED]}" if prompt.strip() else ""
    seen = f"You sent {' and '.join(sent)}." if sent else ""
    return " ".join(filter(None, (seen, said))) or "You said nothing. What can I do for you?"


def _object(request: ChatRequest, prompt: str) -> dict[str, Any]:
    """An object with the keys that the conversation quotes."""
    texts = [text_of(message) for message in request.messages if message.type in _ASKING]
    keys = dict.fromkeys(key for text in texts for key in quoted(text) if _KEY.match(key))
    names = list(keys)[:_MOST_KEYS] or ["answer"]
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
    filled: dict[str, Any] = fill(schema, Clues(prompt, taken=names))
    return filled
