"""Random turns of agents in which calls are refused: by a person, a limit, a policy or a wrapper.

The planner writes random programs, which call tools, sometimes catch errors, and sometimes fail.
The agent is LangChain's `create_agent` with one middleware that lets calls pass or answers them in
place of the tool. Tools may fail with texts of anybody, also with texts that refusals have. After
the turn:

- no call that was refused has run, and none of them was requested again
- the error of a failed turn lists as made what has run, and apart from that what was refused
- the session has the labels of the tools that have run, and not of calls that were refused
- no reason and no text of a tool has reached the planner

`python -m tests.local.dual_llm.refusals --count 1000` plays 1000 turns.
"""

import argparse
import asyncio
import logging
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ToolCallLimitMiddleware,
    wrap_tool_call,
)
from langchain.agents.middleware.tool_call_limit import ToolCallLimitExceededError
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, ToolException
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.errors import SequrityError
from langchain_sequrity.middleware import PolicyMiddleware
from tests.local.dual_llm.conversation import Stage, Teller
from tests.local.dual_llm.repeats import CLIENTS
from tests.local.stores import find

TOOLS = ("pay", "mail", "look")
CONFIG: Any = {"configurable": {"thread_id": "1"}}
Order = tuple[str, str]
GUARDS = ("batched", "per_call", "limit", "policy", "wrapper", "none")
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"detect_tool_errors": "none"},
    {"detect_tool_errors": "regex"},
    {"wrap_tool_result": True},
    {"enable_multistep_planning": True},
    {"strict_tool_result_parsing": True},
)
DECISIONS = ("approve", "approve", "reject", "reject with a message", "edit", "respond")
POLICY = "\n".join(
    f'tool "{tool}" {{ session after {{ @tags |= {{"{tool}"}}; }} }}' for tool in TOOLS
)
DENIES = 'tool "mail" { /// reason: no mails to b\n must deny when to.value == "b"; }'
REASON, DATA = "reason: too much", "a text of the tool"
STATED = (
    "Tool call limit exceeded. Do not make additional tool calls.",
    "Tool call limit exceeded. Do not call 'pay' again.",
    "User rejected the tool call for `pay` with reason: no",
)
ERRORS = (
    f"Error: {DATA}",
    *STATED,
    "The call 1 was refused, and its tool did not run. ",
)
LISTS = {
    "made": "Calls were made before",
    "refused": "Calls were refused, and not made",
    "stated": "Calls were refused, as their results say",
}
Outcome = Literal["made", "refused", "stated"]


def listed(text: str) -> dict[Outcome, set[str]]:
    """The tools in the lists of calls at the end of an error."""
    lists: dict[Any, set[str]] = {}
    for name, head in LISTS.items():
        match = re.search(rf"{head}: ((?:`\w+`(?:, )?)+)\.", text)
        lists[name] = set(re.findall(r"`(\w+)`", match[1])) if match else set()
    return lists


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """A call that the server requested, and that somebody answered.

    Attributes:
        turn: The number of its turn.
        id: Its id.
        order: The tool and its argument.
        outcome: What its answer says.
    """

    turn: int
    id: str
    order: Order
    outcome: Outcome


class Turn:
    """A random turn, or two; the same number always makes the same turn.

    Attributes:
        kinds: Names of its settings and of what happened.
    """

    def __init__(self, number: int) -> None:
        dice = random.Random(f"refusals {number}")  # noqa: S311 - no secret
        self._dice = dice
        self._client, self._fields = dice.choice(CLIENTS)
        self._guard = dice.choice(GUARDS)
        self._is_async = dice.random() < 0.2 and self._guard != "wrapper"
        self._fsm: dict[str, Any] = dice.choice(SETTINGS)
        self._programs = [self._program() for _ in range(dice.randint(1, 3))]
        self._failing = {tool: dice.choice(ERRORS) for tool in TOOLS if dice.random() < 0.2}
        self._ran: set[str] = set()
        self._has_second_turn = self._guard != "limit" and dice.random() < 0.3
        self.kinds = {self._guard, *self._fsm, *(("failing tool",) if self._failing else ())}

    def _program(self) -> str:
        lines = []
        for number in range(self._dice.randint(1, 4)):
            call = f'r{number} = {self._dice.choice(TOOLS)}(to="{self._dice.choice("ab")}")'
            if self._dice.random() < 0.4:
                call = f"try:\n    {call}\nexcept ToolError:\n    r{number} = 'nothing'"
            lines.append(call)
        end = self._dice.choice(("final_return_value = 'done'", "final_return_value = r0", "1 / 0"))
        return "\n".join([*lines, "if len('a') == 2:\n    final_return_value = 1", end])

    # The agent

    def _tool(self, name: str) -> BaseTool:
        def run(to: str, call_id: Annotated[str, InjectedToolCallId]) -> str:  # noqa: ARG001
            self._ran.add(call_id)
            if name in self._failing:
                raise ToolException(self._failing[name])
            return DATA

        return StructuredTool.from_function(
            run, name=name, description=name, handle_tool_error=True
        )

    def _middleware(self) -> list[AgentMiddleware[Any, Any, Any]]:
        match self._guard:
            case "batched" | "per_call":
                names = self._dice.sample(TOOLS, 2)
                on: Any = dict.fromkeys(names, True)
                return [HumanInTheLoopMiddleware(interrupt_on=on, interrupt_mode=self._guard)]
            case "limit":
                return [
                    ToolCallLimitMiddleware(
                        tool_name=self._dice.choice((None, "pay")),
                        run_limit=self._dice.randint(1, 3),
                        exit_behavior=self._dice.choice(("continue", "continue", "end", "error")),
                    )
                ]
            case "policy":
                return [PolicyMiddleware(DENIES)]
            case "wrapper":
                return [refuse_payments]
        return []

    def _decision(self, question: Any) -> dict[str, Any]:
        action = question["action_requests"][0] if "action_requests" in question else question
        name = action["name"]
        decision = self._dice.choice(DECISIONS)
        self.kinds.add(decision)
        match decision:
            case "reject with a message":
                return {"type": "reject", "message": REASON}
            case "edit":
                edited = {"name": name, "args": {"to": "c"}}
                return {"type": "edit", "edited_action": edited}
            case "respond":
                return {"type": "respond", "message": REASON}
        return {"type": decision}

    def played(self, stage: Stage) -> str:
        """Play the turns; returns the problem, or an empty text."""
        planner = Teller("planner", *self._programs)
        model = stage.model(
            planner, of=self._client, policy=POLICY, session_config={"fsm": self._fsm},
            **self._fields,
        )  # fmt: skip
        self._agent: Any = create_agent(
            model,
            [self._tool(name) for name in TOOLS],
            middleware=self._middleware(),
            checkpointer=InMemorySaver(),
        )
        error = self._answered("Do it.")
        if self._has_second_turn:
            error = self._answered("Do it again.")
        calls = list(self._calls())
        shown = "\n".join(planner.prompts)
        if leaked := [text for text in (REASON, DATA, "reason:", "limit exc") if text in shown]:
            return f"the planner sees {leaked}"
        if wrong := [call for call in calls if call.outcome == "refused" and call.id in self._ran]:
            return f"{wrong} were refused, and have run"
        return _repeated(calls) or self._listed(calls, error) or self._labelled(stage, calls)

    def _answered(self, question: str) -> str:
        """Run a turn; returns its error."""
        try:
            state = self._run({"messages": question})
            while questions := state.get("__interrupt__"):
                decision: Any = self._decision(questions[0].value)
                if self._guard == "batched":
                    decision = {"decisions": [decision]}
                state = self._run(Command(resume=decision))
        except (SequrityError, ToolCallLimitExceededError) as failed:
            self.kinds.add("failed turn")
            return str(failed)
        return ""

    def _run(self, value: Any) -> Any:
        if self._is_async:
            return asyncio.run(self._agent.ainvoke(value, CONFIG))
        return self._agent.invoke(value, CONFIG)

    def _calls(self) -> Iterator[AnsweredCall]:
        """The answered calls of the thread."""
        messages = self._agent.get_state(CONFIG).values["messages"]
        answers = {
            message.tool_call_id: message
            for message in messages
            if isinstance(message, ToolMessage)
        }
        turn = 0
        for message in messages:
            turn += message.type == "human"
            for call in message.tool_calls if isinstance(message, AIMessage) else ():
                if call["id"] in answers:
                    outcome = _outcome(answers[call["id"]])
                    self.kinds.add(outcome)
                    order = (call["name"], call["args"]["to"])
                    yield AnsweredCall(turn, call["id"], order, outcome)
        last = messages[-1]
        self._session = next(map(_session_of, filter(_is_of_server, messages)), "")
        # The limit may end the run with a message of its own, and the server gets no result.
        self._is_cut = isinstance(last, AIMessage) and not _is_of_server(last)

    # The laws

    def _listed(self, calls: Sequence[AnsweredCall], error: str) -> str:
        last = max((call.turn for call in calls), default=0)
        if "(code" not in error or last != 1 + self._has_second_turn:
            return ""
        expected = {
            outcome: {
                call.order[0] for call in calls if (call.turn, call.outcome) == (last, outcome)
            }
            for outcome in LISTS
        }
        lists = listed(error)
        if self._fsm.get("enable_multistep_planning"):  # calls of successful steps are not listed
            lists["made"] |= expected["made"]
        return "" if lists == expected else f"the lists are {lists}, and not {expected}"

    def _labelled(self, stage: Stage, calls: Sequence[AnsweredCall]) -> str:
        stored: Any = self._session and find(stage.server._services.store, self._session)
        if not stored:
            return ""
        answered = calls[:-1] if self._is_cut else calls
        expected = {call.order[0] for call in answered if call.outcome != "refused"}
        labels = set(stored.state.labels.tags)
        return "" if labels == expected else f"the session has {labels}, and not {expected}"


def _repeated(calls: Sequence[AnsweredCall]) -> str:
    refused = set()
    for call in calls:
        if (call.turn, call.order) in refused:
            return f"{call.order} was refused, and requested again"
        if call.outcome != "made":
            refused.add((call.turn, call.order))
    return ""


def _outcome(message: ToolMessage) -> Outcome:
    data = message.additional_kwargs.get("lc_data") or {}
    if message.status == "success":
        return "made"
    if data.get("decision") == "reject":
        return "refused"
    return "stated" if message.content in STATED else "made"


def _is_of_server(message: Any) -> bool:
    return isinstance(message, AIMessage) and "sequrity" in message.response_metadata


def _session_of(message: Any) -> str:
    session: str = message.response_metadata["sequrity"]["session_id"]
    return session


@wrap_tool_call
def refuse_payments(request: Any, handler: Callable[[Any], Any]) -> Any:
    """Refuse all payments to `a`, with the mark that the documentation describes."""
    call = request.tool_call
    if (call["name"], call["args"]["to"]) != ("pay", "a"):
        return handler(request)
    return ToolMessage(
        f"No. {REASON}",
        tool_call_id=call["id"],
        status="error",
        additional_kwargs={"lc_source": "my_app", "lc_data": {"decision": "reject"}},
    )


def main() -> int:
    """Play turns; print those with a problem, and totals."""
    parser = argparse.ArgumentParser(description="Random turns of agents with refused calls.")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    wrong, kinds = 0, Counter[str]()
    with Stage() as stage:
        for number in tracked(
            range(options.seed, options.seed + options.count), "Playing", unit="turns"
        ):
            turn = Turn(number)
            if problem := turn.played(stage):
                wrong += 1
                hide()
                sys.stdout.write(f"turn {number}: {problem}\n")
            kinds.update(turn.kinds)
    sys.stdout.write(f"{options.count} turns, {wrong} of them with a problem; {dict(kinds)}\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
