"""An agent with a scripted model under a guard, and how its run ended."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import CodeType
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from typing_extensions import override

from benchmarks.side_by_side.guards import Guard, Guarded, Setting

_OF_USER, _OF_ATTACKER = "user", "attacker"
"""How ids of calls begin: who wants them."""


class _NextCall(BaseException):
    """The program has come to a call without a result.

    Not an `Exception`, so that a program that handles errors does not catch it.
    """

    def __init__(self, tool: str, arguments: Mapping[str, Any]) -> None:
        self.tool, self.arguments = tool, arguments


class CallFailed(Exception):
    """A guard refused a call, or the tool failed."""


@dataclass(frozen=True)
class Script:
    """What the model does, as a function of the messages that it gets.

    For each message it runs its program again, with the results that it has seen, up to the first
    call without a result. So it knows no more of the data than the guard lets through.

    Attributes:
        program: Python, with the tools as functions. `final_return_value` is the answer.
        answers: What the model understands of the texts that its program asks about, in order.
        reader: Computes these answers from the questions instead.
        injection: A part of the attacker's text. Who has read it makes the attacker's calls first.
        goal: The attacker's calls, each a tool and its arguments.
    """

    program: str
    answers: Sequence[Mapping[str, Any]] = ()
    reader: Callable[[str], Mapping[str, Any]] | None = None
    injection: str = ""
    goal: Sequence[tuple[str, Mapping[str, Any]]] = ()

    def next_message(self, messages: Sequence[BaseMessage], tools: Sequence[str]) -> AIMessage:
        """A call, or the answer."""
        results = [message for message in messages if isinstance(message, ToolMessage)]
        of_user = [result for result in results if result.tool_call_id.startswith(_OF_USER)]
        tried = len(results) - len(of_user)
        if tried < len(self.goal) and any(self.injection in result.text for result in of_user):
            return _calling(f"{_OF_ATTACKER}-{tried}", *self.goal[tried])
        return self._continue(of_user, tools)

    def _continue(self, results: Sequence[ToolMessage], tools: Sequence[str]) -> AIMessage:
        remaining, answers = iter(results), iter(self.answers)
        read = self.reader or (lambda _: next(answers))
        names: dict[str, Any] = {tool: _function(tool, remaining) for tool in tools}
        names["parse_with_ai"] = lambda query, **_: {"have_enough_info": True, **read(query)}
        try:
            exec(_compiled(self.program), names)  # noqa: S102 - a plan of this repository
        except _NextCall as call:
            return _calling(f"{_OF_USER}-{len(results)}", call.tool, call.arguments)
        except CallFailed as failure:
            return AIMessage(f"I could not do that: {failure}")
        value = names["final_return_value"]
        answer = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return AIMessage(answer, response_metadata={"done": True})


@cache
def _compiled(program: str) -> CodeType:
    return compile(program, "<program>", "exec")


def _calling(call_id: str, tool: str, arguments: Mapping[str, Any]) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": tool, "args": dict(arguments), "id": call_id}])


def _function(tool: str, results: Iterator[ToolMessage]) -> Callable[..., Any]:
    """A tool as a function of a program: it takes the next result, or asks for the call."""

    def call(**arguments: Any) -> Any:
        result = next(results, None)
        if result is None:
            raise _NextCall(tool, arguments)
        return _value(result)

    return call


def _value(result: ToolMessage) -> Any:
    """What a tool has returned. agent-airlock refuses calls in an object with `success`."""
    if result.status == "error":
        raise CallFailed(result.text)
    value = json.loads(result.text)
    if isinstance(value, dict) and value.get("success") is False:
        raise CallFailed(result.text)
    return value


class ScriptedModel(BaseChatModel):
    """A chat model that follows a script."""

    script: Script
    tools: Sequence[str] = ()

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @override
    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.model_copy(update={"tools": [tool.name for tool in tools]})

    @override
    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        message = self.script.next_message(messages, self.tools)
        return ChatResult(generations=[ChatGeneration(message=message)])


def agent_of(guarded: Guarded, script: Script, checkpointer: InMemorySaver | None = None) -> Any:
    """An agent that follows a script."""
    return create_agent(
        ScriptedModel(script=script),
        guarded.tools,
        middleware=guarded.middleware,
        checkpointer=checkpointer,
    )


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        answer: The agent's answer.
        is_done: Whether the program ran to its end.
        questions: How often a person was asked about a call.
    """

    answer: str = ""
    is_done: bool = False
    questions: int = 0


def run(guard: Guard, setting: Setting, script: Script, prompt: str, *, approves: bool) -> Outcome:
    """Run an agent under a guard, with a person who approves or rejects every call."""
    guarded = guard.protect(setting)
    agent = agent_of(guarded, script, InMemorySaver() if guard.asks else None)
    outcome = Outcome()
    config = {"configurable": {"thread_id": "1"}}
    command: Any = {"messages": prompt}
    while command is not None:
        try:
            state = agent.invoke(command, config)
        except guarded.refusals as refusal:
            outcome.answer = str(refusal)
            return outcome
        command = _decisions(state, outcome, approves=approves)
    answer: AIMessage = state["messages"][-1]
    outcome.answer, outcome.is_done = answer.text, "done" in answer.response_metadata
    return outcome


def _decisions(
    state: Mapping[str, Any], outcome: Outcome, *, approves: bool
) -> Command[Any] | None:
    """The person's decisions on the calls that they are asked about, if any."""
    interrupts = state.get("__interrupt__", ())
    if not interrupts:
        return None
    decision = {"type": "approve" if approves else "reject"}
    (interrupt,) = interrupts
    requests = interrupt.value["action_requests"]
    outcome.questions += len(requests)
    return Command(resume={"decisions": [decision for _ in requests]})
