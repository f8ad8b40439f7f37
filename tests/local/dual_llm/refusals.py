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
from collections.abc import Callable
from typing import Any, Literal

from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ToolCallLimitMiddleware,
    wrap_tool_call,
)
from langchain.agents.middleware.tool_call_limit import ToolCallLimitExceededError
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langchain_sequrity.errors import SequrityError
from langchain_sequrity.middleware import PolicyMiddleware
from tests.local.dual_llm.conversation import Stage, Teller
from tests.local.dual_llm.repeats import CLIENTS

TOOLS = ("pay", "mail", "look")
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
LIMIT = "Tool call limit exceeded. Do not make additional tool calls."
ERRORS = (
    f"Error: {DATA}",
    LIMIT,
    "User rejected the tool call for `pay` with reason: no",
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
    found: dict[Any, set[str]] = {}
    for name, head in LISTS.items():
        match = re.search(rf"{head}: ((?:`\w+`(?:, )?)+)\.", text)
        found[name] = set(re.findall(r"`(\w+)`", match[1])) if match else set()
    return found


class Turn:
    """A random turn; the same number always makes the same turn.

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
        self.ran: Counter[Order] = Counter()
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
        def run(to: str) -> str:
            self.ran[name, to] += 1
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
        """Play the turn; returns the problem, or an empty text."""
        planner = Teller("planner", *self._programs)
        fields = {**self._fields, "policy": POLICY, "session_config": {"fsm": self._fsm}}
        model = stage.model(planner, of=self._client, **fields)
        agent: Any = create_agent(
            model,
            [self._tool(name) for name in TOOLS],
            middleware=self._middleware(),
            checkpointer=InMemorySaver(),
        )
        config: Any = {"configurable": {"thread_id": "1"}}
        error = ""

        def run(value: Any) -> Any:
            if self._is_async:
                return asyncio.run(agent.ainvoke(value, config))
            return agent.invoke(value, config)

        try:
            state = run({"messages": "Do it."})
            while questions := state.get("__interrupt__"):
                decision = self._decision(questions[0].value)
                is_batch = self._guard == "batched"
                state = run(Command(resume={"decisions": [decision]} if is_batch else decision))
        except (SequrityError, ToolCallLimitExceededError) as failed:
            error = str(failed)
            self.kinds.add("failed turn")
        messages = agent.get_state(config).values["messages"]
        return self._judged(stage, planner, messages, error)

    # The laws

    def _judged(self, stage: Stage, planner: Teller, messages: list[Any], error: str) -> str:
        answers = {one.tool_call_id: one for one in messages if isinstance(one, ToolMessage)}
        outcomes: list[tuple[Order, Outcome]] = []
        for message in messages:
            for call in message.tool_calls if isinstance(message, AIMessage) else ():
                order = (call["name"], call["args"]["to"])
                if (order, "refused") in outcomes or (order, "stated") in outcomes:
                    return f"{order} was refused and requested again"
                if call["id"] in answers:
                    outcomes.append((order, self._outcome(answers[call["id"]])))
        tools: dict[Outcome, set[str]] = {"made": set(), "refused": set(), "stated": set()}
        for (name, _), outcome in outcomes:
            tools[outcome].add(name)
            self.kinds.add(outcome)
        refused = {order for order, outcome in outcomes if outcome == "refused"}
        made = {order for order, outcome in outcomes if outcome == "made"}
        if found := refused & self.ran.keys() - made - {(name, "c") for name in TOOLS}:
            return f"{found} were refused and have run"
        lists = listed(error)
        if self._fsm.get("enable_multistep_planning"):  # successful steps are not listed
            lists["made"] |= tools["made"]
        if "(code" in error and lists != tools:
            return f"the lists are {lists}, and not {tools}: {error}"
        shown = "\n".join(planner.prompts)
        if leaked := [text for text in (REASON, DATA, "reason:", "limit exc") if text in shown]:
            return f"the planner sees {leaked}"
        session = next(
            (
                one.response_metadata["sequrity"]["session_id"]
                for one in messages
                if one.type == "ai"
            ),
            None,
        )
        stored: Any = session and stage.server._services.store.find(session)
        if isinstance(messages[-1], AIMessage) and not messages[-1].response_metadata:
            tools["stated"] -= {outcomes[-1][0][0]}  # the limit ended the run; nobody was told
        if stored and (got := set(stored.state.labels.tags)) != tools["made"] | tools["stated"]:
            return f"the session has the labels {got} after {tools}"
        return ""

    def _outcome(self, message: ToolMessage) -> Outcome:
        data = message.additional_kwargs.get("lc_data") or {}
        if message.status != "error":
            return "made"
        if data.get("decision") == "reject":
            return "refused"
        return "stated" if message.content in (LIMIT, LIMIT_OF_PAY) else "made"


LIMIT_OF_PAY = "Tool call limit exceeded. Do not call 'pay' again."


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
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # each fork in the history is one
    kinds: Counter[str] = Counter()
    problems = 0
    with Stage() as stage:
        for number in range(options.start, options.start + options.count):
            turn = Turn(number)
            if problem := turn.played(stage):
                problems += 1
                print(f"turn {number}: {problem}", flush=True)
            kinds.update(turn.kinds)
    print(f"{options.count} turns, {problems} with a problem; {dict(sorted(kinds.items()))}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
