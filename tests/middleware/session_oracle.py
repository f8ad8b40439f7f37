"""Random conversations under `PolicyMiddleware` against one engine that gets every call that ran.

The engine is the oracle: it is fed with the calls of all agents, turns, branches and processes of a
conversation, in the order in which they were decided. No call may run that it denies. Where an
agent loses its session, the run must be a `SessionLost`; nowhere else may there be one.

`python -m tests.middleware.session_oracle --count 2000` runs 2,000 conversations and prints a table.
"""

import argparse
import asyncio
import json
import logging
import random
import re
import sqlite3
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from threading import Lock
from typing import Any

from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, RemoveMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.errors import GraphRecursionError
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.managed import RemainingSteps
from langgraph.types import Command, Send
from langgraph_supervisor import create_supervisor
from langgraph_swarm import SwarmState, create_handoff_tool, create_swarm
from typing_extensions import override

from langchain_sequrity.display.progress import tracked
from langchain_sequrity.errors import PolicyDenied, SessionLost
from langchain_sequrity.labels import Labels
from langchain_sequrity.middleware import (
    PolicyEvent,
    PolicyMiddleware,
    SharedSessionState,
    guarded_subagents,
)
from langchain_sequrity.sqrt import Argument, Call, Engine, compile_policy

COUNTS = """
tool "pay" {
    must deny when "third" in @session.tags;
    session before {
        when "second" in @tags { @tags |= {"third"}; }
        when "first" in @tags { @tags |= {"second"}; }
        @tags |= {"first"};
    }
}
tool "break_down" { session before { @tags |= {"first"}; } }
"""
TAGS = """
tool "read" { session after { @tags |= {"mail"}; } }
tool "pay" {
    must deny when "mail" in @session.tags;
    must deny when "broken" in @session.tags;
}
tool "break_down" { session before { @tags |= {"broken"}; } }
"""
REMOVES = """
tool "read" { session after { @tags |= {"open"}; } }
tool "pay" {
    must allow when "open" in @session.tags;
    should deny always;
    session after { @tags -= {"open"}; }
}
tool "break_down" { session before { @tags -= {"open"}; } }
"""
POLICIES = (COUNTS, TAGS, REMOVES)
AGENTS = ("ada", "bob")
Plan = dict[str, list[list[str]]]
"""For each agent its steps in the turn, each the tools that it calls at once."""


class Follows(BaseChatModel):
    """A model that follows the plan of its agent in the newest message of the user."""

    agent: str

    @property
    def _llm_type(self) -> str:
        return "follows"

    @override
    def bind_tools(self, tools: Any, **_: Any) -> "Follows":
        return self

    @override
    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        users = [n for n, message in enumerate(messages) if isinstance(message, HumanMessage)]
        turn = users[-1] if users else 0
        text = messages[turn].text if users else ""
        steps = json.loads(text)["plan"].get(self.agent, []) if text.startswith("{") else []
        done = sum(
            isinstance(message, AIMessage) and message.name == self.agent
            for message in messages[turn:]
        )
        calls = [
            {"name": name, "args": _arguments(name, text), "id": f"call-{next(_IDS)}"}
            for name in (steps[done] if done < len(steps) else [])
        ]
        message = AIMessage("" if calls else "Done.", tool_calls=calls, name=self.agent)
        return ChatResult(generations=[ChatGeneration(message=message)])


_IDS = count()


def _arguments(name: str, turn: str) -> dict[str, Any]:
    if name == "ask":
        return {"question": turn}
    return {"description": turn, "subagent_type": "bob"} if name == "task" else {}


@dataclass
class Log:
    """What happened in a conversation, in its order."""

    entries: list[tuple[str, str, str]] = field(default_factory=list)
    """Each a kind ("decided", "started", "ended"), a tool and the id of its call."""
    lock: Lock = field(default_factory=Lock)

    def add(self, kind: str, name: str, call_id: str) -> None:
        with self.lock:
            self.entries.append((kind, name, call_id))

    def on_event(self, event: PolicyEvent) -> None:
        if event.outcome == "allowed":
            self.add("decided", event.tool, event.call_id)

    def tools(self) -> list[BaseTool]:
        from langchain.tools import ToolRuntime  # noqa: PLC0415 - annotations are read at run time

        @tool
        def read(runtime: ToolRuntime) -> str:
            """Read the newest mail."""
            self.add("started", "read", str(runtime.tool_call_id))
            self.add("ended", "read", str(runtime.tool_call_id))
            return "a mail"

        @tool
        def pay(runtime: ToolRuntime) -> str:
            """Pay somebody."""
            self.add("started", "pay", str(runtime.tool_call_id))
            self.add("ended", "pay", str(runtime.tool_call_id))
            return "paid"

        @tool
        def break_down(runtime: ToolRuntime) -> str:
            """Raise an error."""
            self.add("started", "break_down", str(runtime.tool_call_id))
            raise BrokenTool

        return [read, pay, break_down]


class BrokenTool(Exception):
    """The error of a tool."""


def denied_calls(engine: Engine, entries: Sequence[tuple[str, str, str]]) -> list[str]:
    """The calls that ran although the oracle denies them.

    A call is decided when it was checked last before it ran.
    """
    decisions: set[int] = set()  # the entries that decide on a call that started
    open_decisions: dict[str, int] = {}
    for index, (kind, _, call_id) in enumerate(entries):
        if kind == "decided":
            open_decisions[call_id] = index
        elif kind == "started":
            decisions.add(open_decisions.pop(call_id, index))
    session, denied = Labels(), []
    for index, (kind, name, call_id) in enumerate(entries):
        call = Call(name, {})
        if index in decisions:
            session = engine.before(call, session)
            if not engine.decide(call, session).allowed:
                denied.append(call_id)
        if kind == "ended":
            _, session = engine.after(call, Argument("done"), session)
    return denied


# The agents


class TeamState(MessagesState, SharedSessionState):
    """The state of a graph of agents."""


class SwarmTeamState(SwarmState, SharedSessionState):
    """The state of a swarm."""


class SupervisedState(MessagesState, SharedSessionState):
    """The state of a supervisor."""

    remaining_steps: RemainingSteps


class Wrapper(AgentMiddleware[Any, Any, Any]):
    """Other middleware around the policy, which makes something else of the result of a call."""

    def __init__(self, change: str) -> None:
        super().__init__()
        self._change = change

    @override
    def wrap_tool_call(self, request: Any, handler: Callable[..., Any]) -> Any:
        try:
            results = [handler(request) for _ in range(self._attempts)]
        except BrokenTool as error:
            return self._answer(request, error)
        return self._changed(results[0])

    @override
    async def awrap_tool_call(self, request: Any, handler: Callable[..., Any]) -> Any:
        try:
            results = [await handler(request) for _ in range(self._attempts)]
        except BrokenTool as error:
            return self._answer(request, error)
        return self._changed(results[0])

    @property
    def _attempts(self) -> int:
        return 2 if self._change == "repeats" else 1

    def _answer(self, request: Any, error: BrokenTool) -> ToolMessage:
        if self._change != "answers":
            raise error
        return ToolMessage(repr(error), tool_call_id=request.tool_call["id"])

    def _changed(self, result: Any) -> Any:
        """The result without the update of the policy. A handoff stays what it is."""
        is_command = isinstance(result, Command) and result.graph is None and not result.goto
        if self._change not in ("unwraps", "rebuilds") or not is_command:
            return result
        [message] = result.update["messages"]
        if self._change == "rebuilds":
            return ToolMessage(message.text, tool_call_id=message.tool_call_id)
        return message


WRAPPERS = ("", "", "unwraps", "rebuilds", "repeats", "answers")


@dataclass
class Case:
    """One conversation.

    Attributes:
        structure: How its agents are arranged.
        policy: The text of their policy.
        on_denied: The policy's option.
        mode: How a turn runs: "invoke", "stream" or "async".
        wrapper: What other middleware makes of results.
        saver: The checkpointer.
        log: What happened.
    """

    structure: str
    policy: str
    on_denied: Any
    mode: str
    wrapper: str
    saver: Any
    log: Log = field(default_factory=Log)

    def middleware(self, *, is_shared: bool = False) -> PolicyMiddleware:
        return PolicyMiddleware(
            self.policy,
            tools=None,
            on_denied=self.on_denied,
            on_event=self.log.on_event,
            shared_session=is_shared,
        )

    def agent(
        self, name: str, *more_tools: BaseTool, is_shared: bool = False, **options: Any
    ) -> Any:
        return create_agent(
            Follows(agent=name),
            [*self.log.tools(), *more_tools],
            middleware=[Wrapper(self.wrapper), self.middleware(is_shared=is_shared)],
            name=name,
            **options,
        )

    def graph(self) -> Any:
        """The compiled graph."""
        name, _, option = self.structure.partition(", ")
        return STRUCTURES[name](self, is_shared=option != "not shared")

    @property
    def loses(self) -> bool:
        """Whether its agents have no state of earlier turns."""
        return "not shared" in self.structure or self.structure == "history"


def _alone(case: Case, *, is_shared: bool) -> Any:  # noqa: ARG001 - one signature for all
    return case.agent("ada", checkpointer=case.saver)


def _history(case: Case, *, is_shared: bool) -> Any:  # noqa: ARG001 - one signature for all
    return case.agent("ada")


def _nodes(case: Case, *, is_shared: bool) -> Any:
    graph = StateGraph(TeamState)
    graph.add_node("ada", case.agent("ada", is_shared=is_shared))
    graph.add_node("bob", case.agent("bob", is_shared=is_shared))
    graph.add_edge(START, "ada")
    graph.add_edge("ada", "bob")
    return graph.compile(checkpointer=case.saver)


def _send(case: Case, *, is_shared: bool) -> Any:
    graph = StateGraph(TeamState)
    for name in AGENTS:
        graph.add_node(name, case.agent(name, is_shared=is_shared))

    def fan_out(state: TeamState) -> list[Send]:
        part = {**state, "messages": state["messages"][-1:]}
        return [Send(name, part) for name in AGENTS]

    graph.add_conditional_edges(START, fan_out, [*AGENTS])
    return graph.compile(checkpointer=case.saver)


def _called(case: Case, *, is_shared: bool) -> Any:
    agents = [case.agent(name, is_shared=is_shared) for name in AGENTS]

    def call(state: TeamState) -> Any:
        update: dict[str, Any] = dict(state)
        turn = state["messages"][-1:]
        for agent in agents:
            update = agent.invoke({**update, "messages": turn})
        return update

    graph = StateGraph(TeamState)
    graph.add_node("call", call)
    graph.add_edge(START, "call")
    return graph.compile(checkpointer=case.saver)


def _swarm(case: Case, *, is_shared: bool) -> Any:
    to_bob = create_handoff_tool(agent_name="bob", name="hand_over")
    to_ada = create_handoff_tool(agent_name="ada", name="hand_over")
    agents = [
        case.agent("ada", to_bob, is_shared=is_shared),
        case.agent("bob", to_ada, is_shared=is_shared),
    ]
    swarm = create_swarm(agents, default_active_agent="ada", state_schema=SwarmTeamState)
    return swarm.compile(checkpointer=case.saver)


def _supervisor(case: Case, *, is_shared: bool, output_mode: Any = "last_message") -> Any:
    workflow = create_supervisor(
        [case.agent(name, is_shared=is_shared) for name in AGENTS],
        model=Follows(agent="supervisor"),
        output_mode=output_mode,
        state_schema=SupervisedState,
    )
    return workflow.compile(checkpointer=case.saver)


def _full_supervisor(case: Case, *, is_shared: bool) -> Any:
    return _supervisor(case, is_shared=is_shared, output_mode="full_history")


def _in_a_tool(case: Case, *, is_shared: bool) -> Any:  # noqa: ARG001 - one signature for all
    bob = case.agent("bob")

    @tool
    def ask(question: str) -> str:
        """Ask Bob."""
        return str(bob.invoke({"messages": question})["messages"][-1].text)

    return case.agent("ada", ask, checkpointer=case.saver)


def _deep(case: Case, *, is_shared: bool) -> Any:  # noqa: ARG001 - one signature for all
    policy = case.middleware()
    bob: Any = {
        "name": "bob", "description": "Helps.", "system_prompt": "", "model": Follows(agent="bob"),
        "middleware": [Wrapper(case.wrapper)],
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return create_deep_agent(
            Follows(agent="ada"),
            case.log.tools(),
            middleware=[Wrapper(case.wrapper), policy],
            subagents=guarded_subagents(policy, [bob]),  # type: ignore[arg-type]
            checkpointer=case.saver,
            name="ada",
        )


STRUCTURES: dict[str, Callable[..., Any]] = {
    "agent": _alone,
    "history": _history,
    "nodes": _nodes,
    "send": _send,
    "called in a node": _called,
    "swarm": _swarm,
    "supervisor (last message)": _supervisor,
    "supervisor (full history)": _full_supervisor,
    "agent in a tool": _in_a_tool,
    "deep agent": _deep,
}
UNSHARED = ("nodes", "send", "called in a node", "swarm", *[n for n in STRUCTURES if "super" in n])
ALL_STRUCTURES = (*STRUCTURES, *(f"{name}, not shared" for name in UNSHARED))


# Turns

THREAD: Any = {"configurable": {"thread_id": "t"}}
TOOLS = ("read", "pay", "pay", "pay", "break_down")
WEIGHTS = (2, 3, 3, 3, 1)
ALLOWED_ERRORS = (PolicyDenied, BrokenTool, GraphRecursionError)


def random_plan(dice: random.Random, structure: str) -> Plan:
    """What the agents do in a turn."""
    plan = {name: _random_steps(dice) for name in AGENTS}
    first, second = dice.sample(AGENTS, 2)
    if structure.startswith("swarm"):
        for name in (first, second)[: dice.randint(0, 2)]:
            plan[name].append([*_random_steps(dice)[0], "hand_over"])
    if structure.startswith("supervisor"):
        transfers = [[f"transfer_to_{name}"] for name in (first, second)[: dice.randint(1, 2)]]
        plan["supervisor"] = (
            [[transfer for step in transfers for transfer in step]]
            if (dice.random() < 0.3)
            else transfers
        )
    if structure in ("agent in a tool", "deep agent") and dice.random() < 0.7:
        inner = "ask" if structure == "agent in a tool" else "task"
        plan["ada"].insert(dice.randint(0, len(plan["ada"])), [inner, *_random_steps(dice)[0]])
    return plan


def _random_steps(dice: random.Random) -> list[list[str]]:
    return [
        dice.choices(TOOLS, WEIGHTS, k=dice.choice((1, 1, 2))) for _ in range(dice.randint(1, 2))
    ]


@dataclass
class Outcome:
    """What a conversation showed.

    Attributes:
        turns: How many turns it had.
        calls: How many calls ran.
        denied: The calls that ran although the oracle denies them.
        losses: The turns that were `SessionLost`.
        silent: Whether a turn without the state of the earlier ones was no `SessionLost`.
        false_alarm: A `SessionLost` where nothing was lost.
        events: What happened between turns.
    """

    turns: int = 0
    calls: int = 0
    denied: list[str] = field(default_factory=list)
    losses: int = 0
    silent: bool = False
    false_alarm: str = ""
    events: Counter[str] = field(default_factory=Counter)

    @property
    def is_right(self) -> bool:
        return not (self.denied or self.silent or self.false_alarm)


def converse(seed: int, structure: str = "") -> Outcome:
    """Run a conversation."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    structure = structure or dice.choice(ALL_STRUCTURES)
    mode = dice.choice(("invoke", "stream", "async"))
    saver: Any = InMemorySaver() if mode == "async" else new_saver()
    on_denied = dice.choice(("message", "raise"))
    wrapper = random.Random(f"wrapper {seed}").choice(WRAPPERS)  # noqa: S311 - no secret
    case = Case(structure, dice.choice(POLICIES), on_denied, mode, wrapper, saver)
    graph, outcome, history = case.graph(), Outcome(), list[BaseMessage]()
    for turn in range(dice.randint(2, 6)):
        config, event = THREAD, ""
        if turn and structure != "history":
            config, event = _between(dice, case, graph)
            outcome.events[event] += 1
            if event == "restart":
                graph = case.graph()
        text = json.dumps({"plan": random_plan(dice, structure), "turn": turn})
        limit = dice.choice((6, 60, 60)) if not case.loses else 60
        turn_input = None if event == "replay" else {"messages": [*history, HumanMessage(text)]}
        outcome.turns += 1
        try:
            state = _run(case, graph, turn_input, {**config, "recursion_limit": limit})
        except SessionLost as error:
            outcome.losses += 1
            if not case.loses:
                outcome.false_alarm = str(error)
            break
        except ALLOWED_ERRORS:
            history = [*history, HumanMessage(text)] if structure == "history" else []
            continue
        if structure == "history":
            history = state["messages"]
        if case.loses and turn:
            outcome.silent = True
            break
    outcome.calls = sum(kind == "started" for kind, _, _ in case.log.entries)
    outcome.denied = denied_calls(compile_policy(case.policy), case.log.entries)
    return outcome


def _run(case: Case, graph: Any, turn_input: Any, config: Any) -> Any:
    if case.mode == "async":
        return asyncio.run(graph.ainvoke(turn_input, config))
    if case.mode == "stream":
        return [*graph.stream(turn_input, config, stream_mode="values"), None][-2]
    return graph.invoke(turn_input, config)


def _between(dice: random.Random, case: Case, graph: Any) -> tuple[Any, str]:
    """Change the thread between two turns; returns the config of the next one, and the event."""
    events = ["", "", "edit", "trim", "summary", "fork", "replay"]
    if isinstance(case.saver, SqliteSaver):
        events.append("restart")
    event = dice.choice(events)
    if event == "restart":
        case.saver = in_another_process(case.saver)
    if event in ("fork", "replay"):
        history = list(graph.get_state_history(THREAD))
        if event == "replay":
            history = [snapshot for snapshot in history if snapshot.next]
        return (dice.choice(history).config, event) if history else (THREAD, "")
    if event in ("edit", "trim", "summary"):
        messages = graph.get_state(THREAD).values.get("messages") or [HumanMessage("{}")]
        update: list[BaseMessage] = [RemoveMessage(REMOVE_ALL_MESSAGES)]
        if event == "edit":
            update = [messages[-1].model_copy(update={"content": "Something else."})]
        elif event == "trim":
            update += messages[-1:] if isinstance(messages[-1], HumanMessage) else []
        else:
            update.append(HumanMessage("A summary of the conversation."))
        graph.update_state(THREAD, {"messages": update}, as_node=START)
    return THREAD, event


# Another process: the same checkpoints with sessions that this process does not know


def new_saver() -> SqliteSaver:
    """A checkpointer that another process can copy."""
    return SqliteSaver(sqlite3.connect(":memory:", check_same_thread=False))


def in_another_process(saver: SqliteSaver) -> SqliteSaver:
    """The checkpoints as another process finds them: it knows none of their sessions."""
    other = new_saver()
    saver.conn.backup(other.conn)
    other.conn.create_function("renamed", 1, _with_other_sessions)
    other.conn.execute("UPDATE checkpoints SET checkpoint = renamed(checkpoint)")
    other.conn.execute("UPDATE writes SET value = renamed(value)")
    other.conn.commit()
    return other


def _with_other_sessions(value: bytes) -> bytes:
    return _SESSION_ID.sub(lambda match: match[1] + match[2][::-1], value)


_SESSION_ID = re.compile(rb'("session_id": ?")([0-9a-f]{32})')


def main(arguments: list[str]) -> int:
    """Run the conversations, and return 1 if any was wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--structure", default="")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)  # the supervisor writes fields that its graph does not have
    warnings.simplefilter("ignore")
    wrong: list[str] = []
    totals: dict[str, Counter[str]] = {}
    for seed in tracked(
        range(options.first, options.first + options.count), "Playing", unit="conversations"
    ):
        structure = options.structure or ALL_STRUCTURES[seed % len(ALL_STRUCTURES)]
        outcome = converse(seed, structure)
        total = totals.setdefault(structure, Counter())
        total.update(
            conversations=1,
            turns=outcome.turns,
            calls=outcome.calls,
            losses=outcome.losses,
            wrong=not outcome.is_right,
        )
        total.update(outcome.events)
        if not outcome.is_right:
            wrong.append(f"{seed} {structure}: {outcome}")
    for structure, total in totals.items():
        sys.stdout.write(f"{structure}: {dict(total)}\n")
    sys.stdout.write("\n".join([*wrong, f"{options.count} conversations, {len(wrong)} wrong", ""]))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
