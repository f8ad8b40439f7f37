"""Random turns with failures: no call is made again.

A turn orders some calls, sometimes the same one twice. Its first programs make some of the calls
and fail; the last one makes all of them. After each call something may happen: the history is
summarized or loses its beginning, the server loses the paused program, the request is sent twice,
or the tool fails. At the end each call was made exactly as often as it was ordered, and the program
has the results.

`python -m tests.local.dual_llm.repeats --count 1000` plays 1000 turns.
"""

import argparse
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_sequrity import ChatSequrity, SequrityMessages, dual_llm_result
from langchain_sequrity.display.progress import hide, tracked
from tests.local.dual_llm.conversation import Stage, Teller

CLIENTS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (ChatSequrity, {}),
    (ChatSequrity, {"use_responses_api": True}),
    (ChatSequrity, {"use_responses_api": True, "use_previous_response_id": True}),
    (SequrityMessages, {}),
]
FAULTS = ("1 / 0", "undefined_name", "exit(1)", "[][0]", "send_to_nobody()", "import os", "def")
EVENTS = ("nothing", "summary", "cut", "lost", "twice")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": name,
            "parameters": {"type": "object", "properties": {"to": {"type": "string"}}},
        },
    }
    for name in ("pay", "mail")
]


class Turn:
    """A random turn; the same number always makes the same turn.

    Attributes:
        kinds: Names of its settings and events.
    """

    def __init__(self, number: int) -> None:
        dice = random.Random(f"turn {number}")  # noqa: S311 - no secret
        self._dice = dice
        self._orders = [
            (dice.choice(("pay", "mail")), dice.choice("ab")) for _ in range(dice.randint(1, 4))
        ]
        self._policy = dice.choice((None, "continue", "restart_turn"))
        self._client, self._fields = dice.choice(CLIENTS)
        self._tool_fails = dice.random() < 0.2
        self._steps = dice.random() < 0.2
        self._is_streamed = dice.random() < 0.3
        failing = [self._failing() for _ in range(dice.randint(0, 2 - self._tool_fails))]
        self._programs = [*failing, self._whole()]
        self._events = [dice.choice(EVENTS) for _ in range(40)]
        self._times = Counter[tuple[str, str]]()
        self._results: dict[tuple[str, str], list[str]] = {}
        self.kinds = {*self._events, str(self._policy), *(["repair"] if failing else [])}
        self.kinds |= {"tool fails"} if self._tool_fails else set()
        self.kinds |= {"steps"} if self._steps else set()

    def _lines(self, orders: Sequence[tuple[str, str]]) -> list[str]:
        return [f"r{n} = {tool}(to={to!r})" for n, (tool, to) in enumerate(orders)]

    def _failing(self) -> str:
        part = self._orders[: self._dice.randint(0, len(self._orders))]
        return "\n".join([*self._lines(part), self._dice.choice(FAULTS)])

    def _whole(self) -> str:
        names = ", ".join(f"r{n}" for n in range(len(self._orders)))
        return "\n".join([*self._lines(self._orders), f"final_return_value = [{names}]"])

    def played(self, stage: Stage) -> str:
        """Play the turn.

        Returns:
            The problem; empty if each call was made as often as it was ordered.
        """
        fsm: dict[str, Any] = {"detect_tool_errors": "regex", "max_pllm_failed_steps": 9}
        if self._policy is not None:
            fsm["history_mismatch_policy"] = self._policy
        if self._steps:
            fsm["enable_multistep_planning"] = True
        teller = Teller("planner", *self._programs)
        model = stage.model(teller, of=self._client, session_config={"fsm": fsm}, **self._fields)
        self._agent = model.bind_tools(TOOLS)
        history: list[BaseMessage] = [HumanMessage("Pay and write.")]
        reply = self._ask(history)
        for event in self._events:
            if not reply.tool_calls:
                break
            history += [reply, *map(self._made, reply.tool_calls)]
            if event == "summary":
                history = [HumanMessage("Summary: the user wants to pay and write."), *history[-2:]]
            elif event == "cut" and len(history) > 3:
                history = history[-3:]
            elif event == "lost":
                stage.server._services.runs.close()
            elif event == "twice":
                self._ask(history)
            reply = self._ask(history)
        return self._judged(reply)

    def _ask(self, history: list[BaseMessage]) -> AIMessage:
        messages = [SystemMessage("You work for a bank."), *history]
        if not self._is_streamed:
            found: AIMessage = self._agent.invoke(messages)
            return found
        first, *others = self._agent.stream(messages)
        for one in others:
            first += one
        return AIMessage(
            first.content, tool_calls=first.tool_calls, id=first.id,
            response_metadata=first.response_metadata, additional_kwargs=first.additional_kwargs,
        )  # fmt: skip

    def _made(self, call: Any) -> ToolMessage:
        order = (call["name"], call["args"]["to"])
        if self._tool_fails:
            self._tool_fails = False
            return ToolMessage("Error: try later", tool_call_id=call["id"])
        self._times[order] += 1
        known = self._results.setdefault(order, [])
        known.append(f"{'/'.join(order)}/{len(known)}")
        return ToolMessage(known[-1], tool_call_id=call["id"])

    def _judged(self, reply: AIMessage) -> str:
        if self._times != Counter(self._orders):
            return f"{self._orders} were ordered, and made {dict(self._times)}"
        left = {order: iter(results) for order, results in self._results.items()}
        expected = [next(left[order]) for order in self._orders]
        end = dual_llm_result(reply)
        if end is None or end.value != expected:
            return f"the end is {reply.text!r}, and not {expected}"
        return ""


def main() -> int:
    """Play turns; print those with a problem, and totals."""
    parser = argparse.ArgumentParser(description="Random turns in which no call is repeated.")
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
            kinds.update(turn.kinds)
            if told := turn.played(stage):
                wrong += 1
                hide()
                sys.stdout.write(f"turn {number}: {told}\n")
    sys.stdout.write(f"{options.count} turns, {wrong} of them with a call repeated or lost; ")
    sys.stdout.write(f"{dict(kinds)}\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
