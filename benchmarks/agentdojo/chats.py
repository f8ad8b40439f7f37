"""A turn of a dual-LLM chat: a scripted planner and reader, and a caller who runs the tools."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from benchmarks.agentdojo.worlds import Pair, World, tools_of
from langchain_sequrity import ChatSequrity, dual_llm_result
from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import PolicyDenied, SequrityError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.local import LocalServer

DENIED = "denied"
STOPPED = "stopped"
ENDED = "ended"
_CONFIG = {
    "fsm": {"max_pllm_steps": 1, "max_pllm_failed_steps": 1},
    "response_format": {"include_policy_check_history": True},
}
Reader = Callable[[str], Mapping[str, Any]]
"""Answers a query."""


@dataclass(frozen=True)
class Turn:
    """What a planner and a reader say in one turn.

    Attributes:
        program: What the planner writes.
        answers: What the reader answers, in order.
        reader: Computes the answers from the queries instead.
        obeys: Makes what a reader says that obeys the attacker, from the right answer.
    """

    program: str
    answers: Sequence[Mapping[str, Any]] = ()
    reader: Reader | None = None
    obeys: Callable[[Any], Any] | None = None

    def obeying(self, obeys: Callable[[Any], Any]) -> "Turn":
        """The same turn with a reader that obeys an attacker."""
        return replace(self, obeys=obeys)


@dataclass
class Outcome:
    """How turns ended.

    Attributes:
        state: `denied` by the policy, `stopped` by an error, or `ended`.
        answer: The answer of the last turn.
        reason: Why the turn did not end.
        denial: The denial that ended it.
        questions: How many calls a person approved.
    """

    state: str
    answer: str = ""
    reason: str = ""
    denial: Denial | None = None
    questions: int = 0


class Desk:
    """A server, with the turn that it plays now.

    One at a time: the script looks up what planner and reader say in the current turn.
    """

    def __init__(self) -> None:
        self._turn = Turn("")
        self._answers: Iterator[Mapping[str, Any]] = iter(())
        self._server = LocalServer(
            script=[
                {"when": {"role": "planner"}, "answer": lambda _: {"program": self._turn.program}},
                {"when": {"role": "quarantined"}, "answer": lambda a: {"value": self._read(a)}},
            ]
        )

    def __enter__(self) -> Self:
        """Start the server."""
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self._server.stop()

    def _read(self, asked: Any) -> Mapping[str, Any]:
        """The next answer of the reader."""
        if self._turn.reader is not None:
            answer = self._turn.reader(_query(asked))
        else:
            answer = next(self._answers, {"have_enough_info": False})
        if self._turn.obeys is not None:
            answer = {name: self._turn.obeys(value) for name, value in answer.items()}
        return {"have_enough_info": True, **answer}

    def run(
        self,
        pair: Pair,
        world: World,
        turns: Sequence[Turn],
        policy: PolicyHeader,
        *,
        approves: bool = False,
    ) -> Outcome:
        """Play the turns of one session; a turn that does not end is the last one.

        Args:
            pair: The task and the goal.
            world: What the tools do.
            turns: What planner and reader say.
            policy: The policy.
            approves: Whether a person approves each call that is denied softly.
        """
        model = ChatSequrity(
            "any/planner",
            base_url=self._server.base_url,
            features={"agent_arch": "dual-llm"},
            policy=policy,
            session_config=_CONFIG,
            max_retries=0,
            on_denied="interrupt" if approves else "raise",
        ).bind_tools(tools_of(pair.suite))
        messages: list[BaseMessage] = []
        outcome = Outcome(ENDED)
        for turn in turns:
            self._turn, self._answers = turn, iter(turn.answers)
            messages.append(HumanMessage(world.prompt))
            outcome = self._answered(model, messages, world)
            if outcome.state != ENDED:
                break
        return outcome

    def _answered(self, model: Any, messages: list[BaseMessage], world: World) -> Outcome:
        """Ask until there are no more calls to run, as a caller's loop does."""
        questions = 0
        while True:
            try:
                reply: AIMessage = model.invoke(messages)
            except PolicyDenied as error:
                if error.approval is None:
                    return _failure(error)
                questions, reply = questions + 1, error.approval.approve()
            except SequrityError as error:
                return _failure(error)
            messages.append(reply)
            if not reply.tool_calls:
                return replace(_ended(reply), questions=questions)
            messages += [_result(world, call) for call in reply.tool_calls]


def _result(world: World, call: Any) -> ToolMessage:
    done = world.call(call["name"], call["args"])
    if done.error:
        return ToolMessage(done.error, tool_call_id=call["id"], status="error")
    # Texts are JSON too: the text of a file that is itself JSON stays a text.
    return ToolMessage(json.dumps(done.result), tool_call_id=call["id"])


def _ended(reply: AIMessage) -> Outcome:
    result = dual_llm_result(reply)
    if result is None:
        return Outcome(ENDED, reply.text)
    value = result.value
    answer = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return Outcome(ENDED, answer)


def _failure(error: SequrityError) -> Outcome:
    if isinstance(error, PolicyDenied):
        return Outcome(DENIED, reason=str(error), denial=error.denial)
    return Outcome(STOPPED, reason=str(error))


def _query(asked: Any) -> str:
    return str(asked.messages[-1].text)
