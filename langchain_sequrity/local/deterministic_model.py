"""The default model: it answers from the request alone, always with the same answer."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessageChunk

from langchain_sequrity.local import conversation
from langchain_sequrity.local.answers import ModelAnswer, stream_answer
from langchain_sequrity.local.backends import BackendContext, PlanContext
from langchain_sequrity.local.interpreter.signatures import is_argument_name
from langchain_sequrity.local.policy_skeleton import skeleton
from langchain_sequrity.local.schema_values import PromptFacts, quoted, value_for_schema
from langchain_sequrity.local.screening.topics import score
from langchain_sequrity.local.tool_words import words
from langchain_sequrity.sqrt.coerce import ENOUGH
from langchain_sequrity.sqrt.context import looks_like_error
from langchain_sequrity.sqrt.engine import PARSE_WITH_AI
from langchain_sequrity.strict_json import dumps
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.policy_generation import PolicyRequest

_ECHOED = 500
_MOST = 20
_SHORTEST_WORD = 4
_KEY = re.compile(r"[A-Za-z_][\w-]{0,40}\Z")
_READ = "answer"


class DeterministicModel:
    """Answers from the request alone: the same request has the same answer.

    - A forced tool is called. With `tool_choice` `auto`, it calls the tools whose names are in the
      user's last message; if there are none, the tool with most words of its name in the message.
      Words of fewer than four letters do not count.
    - Arguments and structured answers are filled from their JSON Schema, and from values that the
      message states (`limit: 5`, `city="Rome"`) or quotes; see `value_for_schema` for the order.
    - After a tool has answered, the answer quotes the results.
    - Otherwise the answer echoes the user's text.
    - As a planner it writes a program that does the same. As a classifier it counts typical words.
      As a policy writer it makes a cautious draft from the tools alone.

    Example:
        ```python
        from langchain_core.messages import HumanMessage
        from langchain_sequrity.local.backends import BackendContext
        from langchain_sequrity.local.deterministic_model import DeterministicModel
        from langchain_sequrity.wire.exchange import ChatRequest

        request = ChatRequest(model="any/model", messages=[HumanMessage("Hello")])
        chunks = list(DeterministicModel().stream(request, BackendContext()))
        assert "".join(chunk.text for chunk in chunks) == "You said: Hello"
        ```
    """

    def stream(self, request: ChatRequest, context: BackendContext) -> Iterator[AIMessageChunk]:
        """Answer in pieces.

        Args:
            request: The request.
            context: The role: a planner writes a program, a classifier returns a score, a policy
                writer a policy.

        Returns:
            The chunks of the answer.

        Raises:
            StatusError: 400 for more tools than a policy can have.
        """
        user_text = conversation.text_of(conversation.last_user(request.messages))
        if context.role == "planner" and context.plan is not None:
            answer = ModelAnswer(text=_program(request, context.plan, user_text))
        elif context.role == "classifier" and context.classifier:
            answer = ModelAnswer(text=f"{_score(context.classifier, user_text):g}")
        elif context.role == "policy" and context.policy is not None:
            answer = ModelAnswer(text=_policy(context.policy))
        else:
            calls = _calls(request, user_text)
            text = "" if calls else _text(request, user_text)
            reasoning = _reasoning(request, user_text, calls)
            answer = ModelAnswer(text=text, reasoning=reasoning, calls=calls)
        return stream_answer(answer, request)


def _score(classifier: str, text: str) -> float:
    return float(looks_like_error(text)) if classifier == "tool_error" else score(classifier, text)


def _policy(request: PolicyRequest) -> str:
    return skeleton(
        request.tools,
        description=request.description,
        internal_tools=request.internal_tool_names,
        mode=request.mode,
    )


# Calls


def _calls(request: ChatRequest, user_text: str) -> tuple[tuple[str, dict[str, Any]], ...]:
    prompt = PromptFacts(user_text)
    return tuple((_name(tool), _arguments(tool, prompt)) for tool in _chosen(request, prompt))


def _name(tool: Mapping[str, Any]) -> str:
    return str(tool["function"]["name"])


def _arguments(tool: Mapping[str, Any], prompt: PromptFacts) -> dict[str, Any]:
    schema = {"type": "object", **(tool["function"].get("parameters") or {})}
    filled = value_for_schema(schema, prompt)
    return filled if isinstance(filled, dict) else {}


def _chosen(request: ChatRequest, prompt: PromptFacts) -> list[dict[str, Any]]:
    """The tools to call: forced or named ones; no tools after tools have answered."""
    choice, tools = request.tool_choice, request.tools
    if choice == "none" or not tools:
        return []
    if isinstance(choice, dict):
        return [tool for tool in tools if _name(tool) == choice["name"]][:1]
    if choice == "required":
        # A tool that was not yet called in this turn, so that agents terminate.
        called = {*conversation.called_tools(conversation.this_turn(request.messages)).values()}
        tools = [tool for tool in tools if _name(tool) not in called] or tools[-1:]
    elif conversation.tool_results(request.messages):
        return []
    user_words = set(words(prompt.text))
    best = max(tools, key=lambda tool: _words_in(tool, user_words))
    if named := [tool for tool in tools if prompt.mentions(_name(tool))]:
        return named[: _MOST if request.parallel_tool_calls else 1]
    return [best] if choice == "required" or _words_in(best, user_words) else []


def _words_in(tool: Mapping[str, Any], user_words: set[str]) -> int:
    """How many words of a tool's name the user said."""
    return len({word for word in words(_name(tool)) if len(word) >= _SHORTEST_WORD} & user_words)


# Texts


def _reasoning(request: ChatRequest, user_text: str, calls: tuple[tuple[str, Any], ...]) -> str:
    if request.options.get("reasoning_effort") in (None, "none"):
        return ""
    names = " and ".join(f"`{name}`" for name, _ in calls)
    plan = f"I call {names}." if calls else "I answer directly."
    return f"The user asks: {user_text[:_ECHOED]}\n{plan}" if user_text else plan


def _text(request: ChatRequest, user_text: str) -> str:
    form = request.response_format or {}
    if form.get("type", "text") != "text":
        return dumps(_structured(form, request, user_text))
    if results := conversation.tool_results(request.messages)[-_MOST:]:
        return "\n".join(_returned(name, result[:_ECHOED]) for name, result in results)
    return _echo(user_text)


def _returned(name: str, result: str) -> str:
    return f"The tool `{name}` returned: {result}"


def _structured(form: Mapping[str, Any], request: ChatRequest, user_text: str) -> Any:
    """An answer with the requested schema; without one, with the keys that the messages quote."""
    if form["type"] == "json_schema":
        return value_for_schema(form["json_schema"]["schema"], PromptFacts(user_text))
    texts = (conversation.text_of(m) for m in request.messages if m.type in {"system", "human"})
    keys = dict.fromkeys(key for text in texts for key in quoted(text) if _KEY.match(key))
    names = [*keys][:_MOST] or ["answer"]
    prompt = PromptFacts(user_text)
    prompt.quotes = [quote for quote in prompt.quotes if quote not in names]
    return value_for_schema({"properties": {name: {} for name in names}}, prompt)


def _echo(user_text: str) -> str:
    text = user_text.strip()[:_ECHOED]
    return f"You said: {text}" if text else "You said nothing. What can I do for you?"


# Programs


def _program(request: ChatRequest, plan: PlanContext, user_text: str) -> str:
    """A program that makes the same calls, and returns the results."""
    allowed = replace(request, tools=[*plan.tools], tool_choice=plan.tool_choice)
    calls = _calls(allowed, user_text)
    lines = [
        f"result_{number} = {name}({_keywords(arguments)})\n"
        for number, (name, arguments) in enumerate(calls, 1)
    ]
    results = [_returned(name, f"{{result_{number}}}") for number, (name, _) in enumerate(calls, 1)]
    value = _value(request, plan, user_text, "\n".join(results))
    return f"{''.join(lines)}final_return_value = {value}\n"


def _keywords(arguments: Mapping[str, Any]) -> str:
    plain = [f"{name}={value!r}" for name, value in arguments.items() if is_argument_name(name)]
    others = {name: value for name, value in arguments.items() if not is_argument_name(name)}
    return ", ".join([*plain, f"**{others!r}"] if others else plain)


def _value(request: ChatRequest, plan: PlanContext, user_text: str, results: str) -> str:
    form = plan.response_format or {}
    if results and form.get("type") == "json_schema" and PARSE_WITH_AI in plan.internal_tools:
        shape = _read_as(form["json_schema"]["schema"])
        return f"{PARSE_WITH_AI}(query=f{results!r}, output_schema={shape!r})['{_READ}']"
    if form.get("type", "text") != "text":
        return repr(_structured(form, request, user_text))
    return f"f{results!r}" if results else repr(_echo(user_text))


def _read_as(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema for the data model: the requested one, and the required boolean."""
    # References name definitions at the root.
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    inner = {key: value for key, value in schema.items() if key not in shared}
    properties = {ENOUGH: {"type": "boolean"}, _READ: inner}
    return {"type": "object", "properties": properties, "required": [*properties], **shared}
