"""The model that answers when there is no other: from the request alone, always the same."""

from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessageChunk

from langchain_sequrity.local.answers import Answer, stream_answer
from langchain_sequrity.local.brains import BrainContext
from langchain_sequrity.local.clues import Clues
from langchain_sequrity.local.conversation import last_user, text_of, tool_results
from langchain_sequrity.local.policy_writing.skeleton import TooManyTools, skeleton
from langchain_sequrity.local.programs import echo, program_for, quoted_object
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.results import looks_like_error
from langchain_sequrity.local.schema_filling import fill
from langchain_sequrity.local.screening.keywords import score
from langchain_sequrity.local.tool_choosing import arguments_for, chosen_tools, tool_name
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.json_text import dumps
from langchain_sequrity.wire.policy_generation import PolicyRequest

_ECHOED = 500
_MOST_RESULTS = 20


class DeterministicModel:
    """Answers from the request alone: the same request has the same answer.

    - A forced tool is called; with `tool_choice` `auto`, the tool whose name, description and
      parameters share most words with what the user said, and none if they share none.
    - Arguments and structured answers are filled from their JSON Schema and the user's words.
    - After a tool has answered, the answer quotes the results.
    - Otherwise the answer echoes what the user said.
    - As a planner it writes a program that does the same, as a classifier it counts telling words,
      as a writer of policies it makes a cautious draft of the tools alone.

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
            context: Who is asked: a planner writes a program, a classifier gives a score, a writer
                of policies a policy.

        Returns:
            The pieces of the answer.

        Raises:
            StatusError: 400 for more tools than a policy can be about.
        """
        if context.role == "planner" and context.plan is not None:
            return stream_answer(Answer(text=program_for(request, context.plan)), request)
        if context.role == "classifier" and context.classifier:
            score = _score(context.classifier, text_of(last_user(request.messages)))
            return stream_answer(Answer(text=f"{score:g}"), request)
        if context.role == "policy" and context.policy is not None:
            return stream_answer(Answer(text=_policy(context.policy)), request)
        return stream_answer(_answer(request), request)


def _score(classifier: str, text: str) -> float:
    return float(looks_like_error(text)) if classifier == "tool_error" else score(classifier, text)


def _policy(request: PolicyRequest) -> str:
    try:
        return skeleton(
            request.tools,
            description=request.description,
            internal_tools=request.internal_tool_names,
            mode=request.mode,
        )
    except TooManyTools as problem:
        refuse(400, str(problem))


def _answer(request: ChatRequest) -> Answer:
    prompt = text_of(last_user(request.messages))
    tools = chosen_tools(request, prompt)
    if tools:
        clues = Clues(prompt)
        calls = tuple((tool_name(tool), arguments_for(tool, clues)) for tool in tools)
        return Answer(reasoning=_reasoning(request, prompt, tools), calls=calls)
    return Answer(text=_text(request, prompt), reasoning=_reasoning(request, prompt, []))


def _reasoning(request: ChatRequest, prompt: str, tools: list[dict[str, Any]]) -> str:
    if request.options.get("reasoning_effort") in (None, "none"):
        return ""
    names = " and ".join(f"`{tool_name(tool)}`" for tool in tools)
    plan = f"I call {names}." if tools else "I answer directly."
    return f"The user asks: {prompt[:_ECHOED]}\n{plan}" if prompt else plan


# What is said


def _text(request: ChatRequest, prompt: str) -> str:
    form = request.response_format or {}
    if form.get("type") == "json_schema":
        return dumps(fill(form["json_schema"]["schema"], Clues(prompt)))
    if form.get("type") == "json_object":
        return dumps(quoted_object(request, prompt))
    if results := tool_results(request.messages):
        return "\n".join(
            f"The tool `{name}` returned: {result[:_ECHOED]}"
            for name, result in results[-_MOST_RESULTS:]
        )
    return echo(request, prompt)
