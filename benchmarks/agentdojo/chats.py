"""A turn of a dual-LLM chat: a scripted planner and reader, and a caller who runs the tools."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Turn:
    """What a planner and a reader say in one turn.

    Attributes:
        program: What the planner writes.
        answers: What the reader answers, in order.
        obeys: Makes what a reader says that obeys the attacker, from the right answer.
    """

    program: str
    answers: Sequence[Mapping[str, Any]] = ()
    obeys: Callable[[Any], Any] | None = None


@dataclass
class Outcome:
    """How turns ended.

    Attributes:
        state: `denied` by the policy, `stopped` by an error, or `ended`.
        answer: The answer of the last turn.
        reason: Why the turn did not end.
        denial: The denial that ended it.
    """

    state: str
    answer: str = ""
    reason: str = ""
    denial: Denial | None = None


class Desk:
    """A server, with the turn that it plays now.

    One at a time: the script looks up what planner and reader say in the current turn.
    """

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._turn = Turn("")
        self._answers: Iterator[Mapping[str, Any]] = iter(())

    @classmethod
    @contextmanager
    def opened(cls) -> Iterator["Desk"]:
        """Start a server."""
        desks: list[Desk] = []
        script = [
            {"when": {"role": "planner"}, "answer": lambda _: {"program": desks[0].program}},
            {"when": {"role": "quarantined"}, "answer": lambda _: {"value": desks[0].read()}},
        ]
        with LocalServer(script=script) as server:
            desks.append(cls(server))
            yield desks[0]

    @property
    def program(self) -> str:
        """The program of the current turn."""
        return self._turn.program

    def read(self) -> Mapping[str, Any]:
        """The next answer of the reader."""
        answer = next(self._answers, {"have_enough_info": False})
        if self._turn.obeys is not None:
            answer = {name: self._turn.obeys(value) for name, value in answer.items()}
        return {"have_enough_info": True, **answer}

    def run(
        self, pair: Pair, world: World, turns: Sequence[Turn], policy: PolicyHeader
    ) -> Outcome:
        """Play the turns of one session; a turn that does not end is the last one."""
        model = ChatSequrity(
            "any/planner",
            base_url=self._server.base_url,
            features={"agent_arch": "dual-llm"},
            policy=policy,
            session_config={"fsm": {"max_pllm_steps": 1, "max_pllm_failed_steps": 1}},
            max_retries=0,
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
        while True:
            try:
                reply: AIMessage = model.invoke(messages)
            except SequrityError as error:
                return _failure(error)
            messages.append(reply)
            if not reply.tool_calls:
                return Outcome(ENDED, _answer(reply))
            messages += [_result(world, call) for call in reply.tool_calls]


def _result(world: World, call: Any) -> ToolMessage:
    done = world.call(call["name"], call["args"])
    if done.error:
        return ToolMessage(done.error, tool_call_id=call["id"], status="error")
    # Texts are JSON too: the text of a file that is itself JSON stays a text.
    return ToolMessage(json.dumps(done.result), tool_call_id=call["id"])


def _answer(reply: AIMessage) -> str:
    result = dual_llm_result(reply)
    value = reply.text if result is None else result.value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _failure(error: SequrityError) -> Outcome:
    if isinstance(error, PolicyDenied):
        return Outcome(DENIED, reason=str(error), denial=error.denial)
    return Outcome(STOPPED, reason=str(error))
