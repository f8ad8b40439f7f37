"""Graphs under a policy: CPU time of the client per node, and the bytes that it sends.

The executor, the vendor's runner, LangGraph without any policy, and a bare loop run a chain of
nodes. The loop posts the executor's own bodies and reads the replies. The local server is a
separate process, so that its work is not measured.
"""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypedDict

import httpx
from langgraph.graph import START, StateGraph
from sequrity import SequrityClient  # type: ignore[import-untyped] # the package has no type information
from sequrity.control import (  # type: ignore[import-untyped] # as above
    ControlConfig,
    FeaturesHeader,
    FineGrainedConfigHeader,
)

from benchmarks.formats import KEY, MODEL, UNSET, VENDOR
from benchmarks.measure import Effort, Samples, cpu, interleaved, ratio
from benchmarks.report import Goal, Row
from langchain_sequrity import ChatSequrity, LangGraphExecutor
from langchain_sequrity.graph.runtime.requests import History

_SIZES = (20, 80)
_LOOP, _PLAIN = "bare loop", "LangGraph"
_MOST_GROWTH = 1.1
_ROOT = Path(__file__).parent.parent
_SERVER = """
import sys
from langchain_sequrity.local import LocalServer
with LocalServer() as server:
    print(server.base_url, flush=True)
    sys.stdin.read()
"""


class State(TypedDict):
    """State of the chain."""

    text: str
    count: int


def measure(_: str, effort: Effort) -> list[Row]:
    with _local_server() as base_url:
        measured = {history: _samples(base_url, history, effort) for history in _HISTORIES}
        sizes = {size: _bytes(base_url, size) for size in _SIZES}
        small, large = (len(_bodies(base_url, size, "new")[-1]) for size in _SIZES)
    case = f"graph of {_SIZES[1]} nodes, new history: bytes of its last request"
    rows = [Row(case, {UNSET: large}, goals=[Goal(f"/ of {_SIZES[0]}", large / small, 1.05)])]
    for history, samples in measured.items():
        rows += [_row(samples, size, history) for size in _SIZES]
        small_run, large_run = ((UNSET, size) for size in _SIZES)
        grown = ratio(samples, large_run, (small_run,))
        # The figures are per node, so the growth of a run has an exponent that is larger by 1.
        exponent = 1 + math.log(grown) / math.log(_SIZES[1] / _SIZES[0])
        goal = Goal("exponent", exponent, _MOST_GROWTH)
        case = f"graph, {history} history: growth of a run"
        rows.append(Row(case, {UNSET: exponent}, goals=[goal]))
    for size, sent in sizes.items():
        goal = Goal("/ vendor", sent[UNSET] / sent[VENDOR], 1)
        rows.append(Row(f"graph of {size} nodes: kB sent in a run", sent, goals=[goal]))
    return rows


_HISTORIES: tuple[History, ...] = ("whole", "new")


@contextmanager
def _local_server() -> Iterator[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _SERVER]
    with subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, text=True) as process:  # noqa: S603  # our own text
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _node(name: str) -> Any:
    def run(state: State) -> dict[str, Any]:
        return {"text": f"seen by {name}", "count": state["count"] + 1}

    run.__name__ = name
    return run


def _nodes(size: int) -> dict[str, Any]:
    return {f"node_{number}": _node(f"node_{number}") for number in range(size)}


def _chain(size: int) -> "StateGraph[State]":
    graph = StateGraph(State)
    before = START
    for name, run in _nodes(size).items():
        graph.add_node(name, run)
        graph.add_edge(before, name)
        before = name
    return graph


_INPUT: State = {"text": "", "count": 0}


@dataclass
class _Recorder(httpx.BaseTransport):
    """Passes requests on, and stores their bodies."""

    inner: httpx.BaseTransport
    bodies: list[bytes]

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(request.read())
        return self.inner.handle_request(request)


def _executor(
    base_url: str, size: int, history: History, client: httpx.Client | None = None
) -> LangGraphExecutor:
    model = ChatSequrity(MODEL, base_url=base_url, api_key=KEY, http_client=client)
    return LangGraphExecutor(_chain(size), model, history=history)


def _run_ours(executor: LangGraphExecutor, size: int) -> None:
    result = executor.invoke(dict(_INPUT), {"recursion_limit": size + 1})
    assert result["count"] == size


def _vendor(base_url: str, size: int, sent: list[bytes] | None = None) -> Callable[[], None]:
    control = ControlConfig(
        endpoint_type="lang-graph",
        provider="openai",
        llm_api_key="llm-test",
        features=FeaturesHeader.dual_llm(),
        fine_grained_config=FineGrainedConfigHeader.dual_llm(max_tool_calls_per_step=1000),
    )
    client = SequrityClient(api_key=KEY, base_url=base_url, control=control)
    if sent is not None:
        hook: Callable[[httpx.Request], None] = lambda request: sent.append(request.read())  # noqa: E731
        client._http_client.event_hooks["request"].append(hook)  # noqa: SLF001 - it takes no client
    graph, nodes = _chain(size), _nodes(size)

    def run() -> None:
        state = client.control.langgraph.run(
            graph, dict(_INPUT), MODEL, node_functions=nodes, max_exec_steps=size + 2
        )
        assert state["count"] == size

    return run


class _Loop:
    """Posts the bodies of the executor, and reads the replies."""

    def __init__(self, base_url: str, size: int, history: History) -> None:
        bodies: list[bytes] = []
        requests: list[httpx.Request] = []
        with httpx.Client(
            transport=_Recorder(httpx.HTTPTransport(), bodies),
            event_hooks={"request": [requests.append]},
        ) as client:
            _run_ours(_executor(base_url, size, history, client), size)
        self._first, *self._rest = (json.loads(body) for body in bodies)
        self._headers = {
            name: value
            for name, value in requests[0].headers.items()
            if name not in {"host", "content-length", "connection", "idempotency-key"}
        }
        self._path = str(requests[0].url)
        self._client = httpx.Client()
        self._history = history

    def run(self) -> None:
        body, headers = self._first, self._headers
        messages = list(body["messages"])
        response = self._client.post(self._path, json=body, headers=headers)
        headers = {**headers, "X-Session-ID": response.headers["x-session-id"]}
        for prepared in self._rest:
            assert response.status_code == httpx.codes.OK, response.text
            said = response.json()["choices"][0]["message"]
            result = {**prepared["messages"][-1], "tool_call_id": said["tool_calls"][0]["id"]}
            if self._history == "whole":
                messages += [said, result]
                body = {**self._first, "messages": messages}
            else:
                body = {**prepared, "messages": [result]}
            response = self._client.post(self._path, json=body, headers=headers)
        ended = json.loads(response.json()["choices"][0]["message"]["content"])
        assert ended["status"] == "success"


Peer = tuple[str, int]
"""The name of a peer, and the number of nodes of its graph."""


def _samples(base_url: str, history: History, effort: Effort) -> Samples[Peer]:
    work: dict[Peer, Callable[[], float]] = {}
    for size in _SIZES:
        for name, run in _peers(base_url, size, history).items():
            work[name, size] = _each(run, size, effort)
    return interleaved(work, effort)


def _peers(base_url: str, size: int, history: History) -> dict[str, Callable[[], object]]:
    executor, plain = _executor(base_url, size, history), _chain(size).compile()
    return {
        UNSET: lambda: _run_ours(executor, size),
        _LOOP: _Loop(base_url, size, history).run,
        _PLAIN: lambda: plain.invoke(_INPUT, {"recursion_limit": size + 1}),
        VENDOR: _vendor(base_url, size),
    }


def _each(run: Callable[[], object], size: int, effort: Effort) -> Callable[[], float]:
    whole = cpu(run, effort)
    return lambda: whole() / size


def _row(samples: Samples[Peer], size: int, history: History) -> Row:
    found = ratio(samples, (UNSET, size), ((_LOOP, size), (_PLAIN, size)))
    worst = quantiles(samples[UNSET, size], n=100, method="inclusive")[-1] * 1e6
    case = f"graph of {size} nodes, {history} history: a node, p99 {worst:.3g}"
    figures = {name: median(values) * 1e6 for (name, of), values in samples.items() if of == size}
    return Row(case, figures, goals=[Goal("/ (loop + LangGraph)", found, 1.4)])


def _bytes(base_url: str, size: int) -> dict[str, float]:
    vendors: list[bytes] = []
    _vendor(base_url, size, vendors)()
    sent = {UNSET: _bodies(base_url, size, "whole"), VENDOR: vendors}
    return {name: sum(map(len, bodies)) / 1000 for name, bodies in sent.items()}


def _bodies(base_url: str, size: int, history: History) -> list[bytes]:
    """The bodies that the executor sends in a run."""
    bodies: list[bytes] = []
    with httpx.Client(transport=_Recorder(httpx.HTTPTransport(), bodies)) as client:
        _run_ours(_executor(base_url, size, history, client), size)
    return bodies
