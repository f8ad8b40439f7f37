"""Long work: how cost grows with the steps, packets, turns and calls of a graph or an agent.

The processor time is that of client, server and programs together: all run in this process. Peers
are LangGraph and LangChain without a policy, on the same data. Times are measured once, because
they are long; a ratio between two sizes shows what grows.
"""

import json
import math
import operator
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from typing_extensions import override

from benchmarks.formats import KEY, MODEL, UNSET
from benchmarks.measure import FULL, Effort
from benchmarks.report import Goal, Row
from langchain_sequrity import ChatSequrity, LangGraphExecutor
from langchain_sequrity.graph.runtime.requests import History
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.memory_sessions import MemorySessions
from langchain_sequrity.middleware import PolicyMiddleware

_PLAIN = "LangGraph"
_MOST_GROWTH = 1.1


class State(TypedDict, total=False):
    """State of all graphs here."""

    count: int
    items: Annotated[list[int], operator.add]


def _loop(steps: int) -> Any:
    def step(state: State) -> dict[str, Any]:
        return {"count": state["count"] + 1}

    def route(state: State) -> str:
        return "step" if state["count"] < steps else END

    graph = StateGraph(State).add_node("step", step).add_edge(START, "step")
    return graph.add_conditional_edges("step", route, ["step", END])


def _sends(packets: int) -> Any:
    def start(state: State) -> list[Send]:
        return [Send("work", {"number": number}) for number in range(packets + 0 * state["count"])]

    def work(packet: Any) -> dict[str, Any]:
        return {"items": [packet["number"]]}

    graph: Any = StateGraph(State)
    graph.add_node("work", work)
    return graph.add_conditional_edges(START, start, ["work"])


def _chain(nodes: int) -> Any:
    def node(state: State) -> dict[str, Any]:
        return {"count": state["count"] + 1}

    names = [f"node_{number}" for number in range(nodes)]
    graph = StateGraph(State)
    for name in names:
        graph.add_node(name, node)
    for source, target in pairwise([START, *names, END]):
        graph.add_edge(source, target)
    return graph


@contextmanager
def _server() -> Iterator[LocalServer]:
    with LocalServer(isolated_programs=False) as server:
        yield server


def _executor(server: LocalServer, graph: Any, **options: Any) -> LangGraphExecutor:
    model = ChatSequrity(MODEL, base_url=server.base_url, api_key=KEY)
    return LangGraphExecutor(graph, model, **options)


def _config(thread: str = "1") -> Any:
    return {"recursion_limit": 20_000, "configurable": {"thread_id": thread}}


def _seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def _exponent(by_size: Mapping[int, float]) -> float:
    """The exponent of the growth from the smallest size to the largest."""
    small, large = min(by_size), max(by_size)
    return math.log(by_size[large] / by_size[small]) / math.log(large / small)


def measure(effort: Effort) -> list[Row]:
    """Measure all kinds of long work; without full effort, with smaller sizes."""
    scale = 1 if effort is FULL else 10
    rows = [
        *_growth("loop of {} steps", _loop, (100, 1000, 5000), scale),
        *_growth("{} packets in a step", _sends, (100, 1000, 5000), scale),
        *_growth("chain of {} nodes", _chain, (100, 200, 500), scale),
        _whole(1000 // scale),
        _session((100 // scale, 200 // scale, 400 // scale)),
        *_histories((100 // scale, 200 // scale, 400 // scale)),
        _stored("loop of {} steps", _loop, 900 // scale, runs=1, most=2.0),
        _stored("{} turns", lambda _: _chain(3), 200 // scale, runs=200 // scale, most=1.3),
    ]
    return [*rows, *_agents(200 // scale), *_simulation(1_000_000 // scale)]


def _growth(title: str, make: Callable[[int], Any], sizes: Sequence[int], scale: int) -> list[Row]:
    sizes = [size // scale for size in sizes]
    ours, plain = dict[int, float](), dict[int, float]()
    with _server() as server:
        for size in sizes:
            executor, compiled = _executor(server, make(size)), make(size).compile()
            run = partial(executor.invoke, {"count": 0}, _config())
            ours[size] = _seconds(run)
            plain[size] = _seconds(partial(compiled.invoke, {"count": 0}, _config()))
    per_step = {size: seconds / size for size, seconds in ours.items()}
    first, second, *_ = sizes
    rows = [
        Row(f"{title.format(size)}: CPU per step", {UNSET: ours[size] / size * 1e6,
             _PLAIN: plain[size] / size * 1e6})
        for size in sizes
    ]  # fmt: skip
    goals = [
        Goal("exponent", _exponent(ours), _MOST_GROWTH),
        Goal(f"step at {second} / {first}", per_step[second] / per_step[first], 1.2),
    ]
    return [*rows, Row(f"{title.format('n')}: growth", {UNSET: goals[0].measured}, goals=goals)]


def _whole(steps: int) -> Row:
    seconds = dict[str, float]()
    with _server() as server:
        for history in _HISTORIES:
            executor = _executor(server, _loop(steps), history=history)
            seconds[history] = _seconds(partial(executor.invoke, {"count": 0}, _config()))
    goal = Goal("/ new", seconds["whole"] / seconds["new"], 3)
    return Row(f"loop of {steps} steps, whole histories: CPU s", seconds, goals=[goal])


_HISTORIES: tuple[History, ...] = ("whole", "new")


def _session(sizes: Sequence[int]) -> Row:
    """The memory that the server counts for the session of a chain, in MB."""
    megabytes = dict[int, float]()
    for size in sizes:
        sessions = MemorySessions()
        with LocalServer(isolated_programs=False, store=sessions) as server:
            _executor(server, _chain(size)).invoke({"count": 0}, _config())
            megabytes[size] = sum(s.size for s in sessions._sessions.values()) / 1e6  # noqa: SLF001  # no other way
    largest = megabytes[sizes[-1]]
    goals = [Goal("MB", largest, 8), Goal("exponent", _exponent(megabytes), _MOST_GROWTH)]
    return Row(f"session of a chain of {sizes[-1]} nodes: MB", {UNSET: largest}, goals=goals)


def _histories(sizes: Sequence[int]) -> list[Row]:
    ours, plain = dict[int, float](), dict[int, float]()
    with TemporaryDirectory() as directory, _server() as server:
        for size in sizes:
            for seconds, make in (
                (ours, partial(_executor, server, _loop(size))),
                (plain, _loop(size).compile),
            ):
                path = Path(directory) / f"{size}-{seconds is ours}"
                with SqliteSaver.from_conn_string(str(path)) as saver:
                    graph = make(checkpointer=saver)
                    graph.invoke({"count": 0}, _config())
                    history = partial(graph.get_state_history, _config())
                    seconds[size] = _seconds(lambda read=history: list(read()))  # type: ignore[misc]
    largest = sizes[-1]
    figures = {UNSET: ours[largest] * 1e3, _PLAIN: plain[largest] * 1e3}
    goals = [
        Goal(f"/ {_PLAIN}", ours[largest] / plain[largest], 2),
        Goal("exponent", _exponent(ours), _MOST_GROWTH),
    ]
    return [Row(f"history of {largest} states: ms", figures, goals=goals)]


def _stored(title: str, make: Callable[[int], Any], size: int, *, runs: int, most: float) -> Row:
    kilobytes = dict[str, float]()
    with _server() as server, TemporaryDirectory() as directory:
        for name, compiled in (
            (UNSET, partial(_executor, server, make(size))),
            (_PLAIN, make(size).compile),
        ):
            path = Path(directory) / name.replace(" ", "").replace(",", "")
            with SqliteSaver.from_conn_string(str(path)) as saver:
                graph = compiled(checkpointer=saver)
                for _ in range(runs):
                    graph.invoke({"count": 0, "items": [1]}, _config())
            kilobytes[name] = path.stat().st_size / 1000
    goal = Goal(f"/ {_PLAIN}", kilobytes[UNSET] / kilobytes[_PLAIN], most)
    return Row(f"stored thread, {title.format(size)}: kB", kilobytes, goals=[goal])


# Agents


class _Calls(GenericFakeChatModel):
    """A model that calls a tool until it has said all its messages."""

    @override
    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def _agent(calls: int, policy: str | None, saver: InMemorySaver) -> Any:
    @tool
    def look_up(number: int) -> str:
        """Look up a number."""
        return f"It is {number}."

    messages = [
        AIMessage("", tool_calls=[{"name": "look_up", "args": {"number": n}, "id": f"call-{n}"}])
        for n in range(calls)
    ]
    model = _Calls(messages=iter([*messages, AIMessage("Done.")]))
    tools: list[BaseTool] = [look_up]
    middleware = [] if policy is None else [PolicyMiddleware(policy)]
    return create_agent(model, tools, middleware=middleware, checkpointer=saver)


def _stored_bytes(saver: InMemorySaver) -> int:
    blobs = sum(len(data) for _, data in saver.blobs.values())
    checkpoints = [
        len(part[1])
        for by_namespace in saver.storage.values()
        for checkpoints in by_namespace.values()
        for saved in checkpoints.values()
        for part in saved[:2]
    ]
    writes = sum(len(w[2][1]) for written in saver.writes.values() for w in written.values())
    return blobs + sum(checkpoints) + writes


def _run_agent(calls: int, policy: str | None) -> float:
    saver = InMemorySaver()
    agent = _agent(calls, policy, saver)
    agent.invoke({"messages": [HumanMessage("Look up the numbers.")]}, _config())
    return _stored_bytes(saver) / 1000


def _tagging(tags: int) -> str:
    names = ", ".join(f'"tag-{number}"' for number in range(tags))
    return f'tool "look_up" {{ result {{ @tags |= {{{names}}}; }} must allow always; }}'


def _agents(calls: int) -> list[Row]:
    allowing = 'tool "look_up" { must allow always; }'
    ours, plain = _run_agent(calls, allowing), _run_agent(calls, None)
    many, single = (_run_agent(calls // 4, _tagging(tags)) for tags in (200, 1))
    return [
        Row(f"stored agent, {calls} calls: kB", {UNSET: ours, _PLAIN: plain},
            goals=[Goal("/ without", ours / plain, 1.2)]),
        Row(f"stored agent, {calls // 4} calls, 200 tags: kB", {UNSET: many},
            goals=[Goal("/ one tag", many / single, 1.5)]),
    ]  # fmt: skip


# Policies


_POLICY = """
tool "send_mail" {
    must deny when not to.value in {str matching r"^[a-z0-9]+@office[.]example$"};
    must deny when body.tags overlaps {"outside"};
    should allow always;
}
tool "read_mail" { session after { @tags |= {"mailed"}; } }
"""


def _call(number: int) -> dict[str, Any]:
    session = {"session": f"session-{number % 5000}"}
    if number % 3 == 0:
        return {"tool": "read_mail", "arguments": {"number": number}, **session}
    mail = {"to": f"ada{number}@office.example", "body": "Lunch?"}
    return {"tool": "send_mail", "arguments": mail, **session}


def _simulation(calls: int) -> list[Row]:
    """The command with two processes: seconds, and the peak of the memory of all of them."""
    with TemporaryDirectory() as directory:
        policy, lines = Path(directory) / "mail.sqrt", Path(directory) / "calls.jsonl"
        policy.write_text(_POLICY)
        with lines.open("w") as file:
            file.writelines(f"{json.dumps(_call(number))}\n" for number in range(calls))
        command = [sys.executable, "-m", "langchain_sequrity.cli", "policy", "simulate"]
        start = time.monotonic()
        with subprocess.Popen(  # noqa: S603  # our own command
            [*command, str(policy), "--calls", str(lines), "--jobs", str(_JOBS)],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            megabytes = 0.0
            while process.poll() is None:
                megabytes = max(megabytes, _megabytes_of(process.pid))
                time.sleep(0.1)
        seconds = time.monotonic() - start
    assert process.returncode == 0
    return [
        Row(f"simulate {calls:,} calls: s", {UNSET: seconds}, goals=[Goal("s", seconds, 40)]),
        Row(f"simulate {calls:,} calls: MB of all processes", {UNSET: megabytes},
            goals=[Goal("MB", megabytes, 200)]),
    ]  # fmt: skip


_JOBS = 2


def _megabytes_of(session: int) -> float:
    """The resident memory of all processes of a session; pages that they share count twice."""
    pages = 0
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ProcessLookupError):
            if os.getsid(int(directory.name)) == session:
                pages += int((directory / "statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6
