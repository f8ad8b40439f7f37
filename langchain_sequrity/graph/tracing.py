"""`Trace` and `Progress`: the calls of a run, and what the policy decided.

This only makes text; nothing is sent to a service that draws it. In Mermaid, names become quoted
labels: each character with a meaning there, or in the page around it, becomes an entity code.
"""

import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, TextIO

from langchain_core.callbacks import BaseCallbackHandler
from typing_extensions import override

from langchain_sequrity.denials import NOT_REPORTED
from langchain_sequrity.display import plain
from langchain_sequrity.display.flow import (
    Flow,
    FlowCall,
    flow_of_calls,
    label_text,
    outcome_tone,
)
from langchain_sequrity.display.progress import is_active
from langchain_sequrity.display.tables import Cell, Row, Table, TableMixin, Tone
from langchain_sequrity.graph.runtime.events import RunEvent
from langchain_sequrity.labels import WireLabels
from langchain_sequrity.pictures import PictureMixin

if TYPE_CHECKING:
    import rich.console


class Listener(BaseCallbackHandler):
    """A callback handler for the events of `runtime.events`.

    It ignores all other events, so LangChain does not call it for them.
    """

    hears_runs = True
    wants_values = False
    """Whether events come with the values of arguments."""

    def heard(self, event: RunEvent) -> None:
        """Handle an event. Several threads may call this at once."""
        raise NotImplementedError

    ignore_chain = True
    ignore_llm = True
    ignore_chat_model = True
    ignore_agent = True
    ignore_retriever = True
    ignore_retry = True


_REWRITE_LINE = "\r\x1b[2K"
_LINE_CHARACTERS = 120


class Progress(Listener):
    """Shows in a terminal the current call of each run of a `LangGraphExecutor`.

    It is a callback handler: `executor.invoke(state, config={"callbacks": [Progress()]})`. It
    rewrites one line. Nothing is shown if standard error is not a terminal, or in a `batch`, which
    has one line for all its runs.

    Args:
        stream: Where to write; standard error by default.
        force: Whether to write also to a stream that is not a terminal, one line per call.
    """

    def __init__(self, stream: TextIO | None = None, *, force: bool = False) -> None:
        self._stream = stream
        self._force = force
        self._lock = Lock()
        self._calls: dict[str, int] = {}

    @override
    def heard(self, event: RunEvent) -> None:
        stream = self._stream or sys.stderr
        if not (stream.isatty() or self._force) or (stream.isatty() and is_active()):
            return
        with self._lock:
            line = self._line(event)
            if line is not None:
                self._write(stream, line, is_last=event["event"] != "allowed")

    def _line(self, event: RunEvent) -> str | None:
        run = event["run"]["id"]
        match event["event"]:
            case "allowed":
                self._calls[run] = event["index"] + 1
                role = "router after" if event["role"] == "router" else "node"
                end = f"call {event['index'] + 1}, {role} {event['node']}"
            case "finished" | "denied" | "failed" as outcome:
                end = f"{outcome} after {self._calls.pop(run, 0)} calls"
            case "ran" if event["error"] is not None:
                end = f"stopped in call {self._calls.get(run, 0)} ({event['error']})"
            case _:
                return None
        return f"{event['run']['graph']}: {end}"

    @staticmethod
    def _write(stream: TextIO, line: str, *, is_last: bool) -> None:
        line = plain(line, limit=_LINE_CHARACTERS)
        if not stream.isatty():
            stream.write(f"{line}\n")
        else:
            width = shutil.get_terminal_size().columns - 1
            stream.write(f"{_REWRITE_LINE}{line[:width]}{chr(10) if is_last else ''}")
        stream.flush()


_NO_RUN = "No run has been traced."
_VALUE_CHARACTERS = 60
_SESSION_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class TracedCall:
    """A tool call of a run.

    Attributes:
        node: The node; of a router, the node before it. `None` for a tool without a node.
        role: "node" or "router"; `None` for the service's own tools.
        tool: The tool.
        verdict: Of the policy, or of a human after it ("approved", "rejected"). A call that the
            service asks for is allowed.
        rule: The rule that decided, or "not reported".
        reason: The reason in words, or "not reported".
        is_certain: Whether all readings of the policy agree; `None` if that is not reported.
        labels: Argument → its producers, consumers and tags; `None` if they are not reported.
        values: Argument → its value as it was sent; `None` if the trace does not keep values.
        node_seconds: Duration of the node's last attempt; `None` if it did not run in this trace
            (a cached result, one from before a resume, a denied call).
        request_seconds: Duration of the request whose reply had the call; `None` as above.
        error: Class of the exception of the node's last attempt; `None` without.
    """

    node: str | None
    role: Literal["node", "router"] | None
    tool: str
    verdict: Literal["allowed", "denied", "approved", "rejected", "not reported"]
    rule: str = NOT_REPORTED
    reason: str = NOT_REPORTED
    is_certain: bool | None = None
    labels: Mapping[str, WireLabels] | None = None
    values: Mapping[str, Any] | None = None
    node_seconds: float | None = None
    request_seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TracedRun(TableMixin, PictureMixin):
    """One run of an executor, from `invoke` (or a resume) to where it stopped.

    Print it, show it in a notebook, or save its picture: which data reached which call.

    Attributes:
        graph: Name of the graph.
        mode: "sync" or "async".
        session_id: Its last session.
        outcome: "finished", "denied" or "failed"; "open" if it still runs, waits for an interrupt,
            or ended with an exception of a node.
        error: Class of the exception, if it failed.
        calls: Its calls in order, with those from before a resume. Denied calls and the service's
            own tools are at the end.
    """

    graph: str
    mode: Literal["sync", "async"]
    session_id: str | None
    outcome: Literal["open", "finished", "denied", "failed"]
    error: str | None
    calls: tuple[TracedCall, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON data."""
        calls = [{name: getattr(call, name) for name in call.__slots__} for call in self.calls]
        return {name: getattr(self, name) for name in self.__slots__} | {"calls": calls}

    @override
    def table(self) -> Table:
        """The run as a table."""
        session = (
            f"session {self.session_id[:_SESSION_CHARACTERS]}…" if self.session_id else "no session"
        )
        return Table(
            title=f"{self._ending}, {self.mode}, {session}",
            columns=("#", "call", "arguments", "verdict", "why", "ran", "request"),
            rows=tuple(_row(number, call) for number, call in enumerate(self.calls, 1)),
            code=frozenset({"call", "arguments", "why"}),
        )

    @property
    def _ending(self) -> str:
        ended = self.outcome if self.error is None else f"{self.outcome} ({self.error})"
        return f"{self.graph}: {ended}"

    @override
    def flows(self) -> tuple[Flow, ...]:
        """Which data reached which call, by the labels of arguments."""
        return (flow_of_calls(self._ending, map(_flow_call, self.calls)),)


def verdict_words(call: TracedCall) -> str:
    """The verdict on a call, and what is remarkable about it."""
    words = call.verdict if call.is_certain is not False else f"{call.verdict} (in doubt)"
    return f"{words}, raised {call.error}" if call.error else words


def call_tone(call: TracedCall) -> Tone:
    """The colour of a call."""
    return outcome_tone(call.verdict)


def rule_or_reason(call: TracedCall) -> str:
    """Why a call was denied."""
    return next((text for text in (call.rule, call.reason) if text != NOT_REPORTED), "")


def _flow_call(call: TracedCall) -> FlowCall:
    """A call under the name that it has as a producer: that of its node."""
    is_router = call.role == "router"
    return FlowCall(
        call.tool if is_router else call.node or call.tool,
        verdict_words(call),
        call_tone(call),
        call.labels,
        rule_or_reason(call),
        shape="router" if is_router else "call",
    )


def _row(number: int, call: TracedCall) -> Row:
    verdict = call.verdict if call.is_certain is not False else f"{call.verdict} (in doubt)"
    return (
        (str(number),),
        _call_cell(call),
        _arguments(call),
        (verdict,),
        _reasons(call),
        (_time(call.node_seconds), *((call.error,) if call.error else ())),
        (_time(call.request_seconds),),
    )


def _call_cell(call: TracedCall) -> Cell:
    """The tool; also the node, if it has another name."""
    if call.role == "router":
        return call.tool, f"router after {call.node}"
    if call.node is None:
        return call.tool, "no node"
    return (call.tool,) if call.tool == call.node else (call.tool, f"node {call.node}")


def _reasons(call: TracedCall) -> Cell:
    """The rule and the reason, without a rule that the reason quotes."""
    rule, reason = (" ".join(text.split()) for text in (call.rule, call.reason))
    rule = rule.removesuffix(";")
    return (reason,) if rule in reason else (rule, reason)


def _arguments(call: TracedCall) -> Cell:
    names = dict.fromkeys([*(call.labels or ()), *(call.values or ())])
    lines = [_argument(name, call) for name in names]
    return tuple(lines) if call.labels is not None else (*lines, f"labels {NOT_REPORTED}")


def _argument(name: str, call: TracedCall) -> str:
    values, labels = call.values or {}, call.labels or {}
    value = f" = {_shortened(values[name])}" if name in values else ""
    return f"{name}{value}{label_text(labels[name]) if name in labels else ''}"


def _shortened(value: Any) -> str:
    return plain(json.dumps(value, ensure_ascii=False, default=str), limit=_VALUE_CHARACTERS)


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1_000:,.1f} ms"


_HARMLESS = frozenset(" _.,-")
_LABEL_CHARACTERS = 80
_DENIED = "classDef denied stroke:#c00,stroke-width:3px,stroke-dasharray:4"
# The brackets around the label of a vertex.
_SHAPES = {"node": ("[", "]"), "router": ("{", "}"), "source": ("([", "])")}

Vertex = tuple[str, str]
"""Shape and name: two vertices of different shapes may have the same name."""


def _mermaid_part(prefix: str, run: TracedRun) -> Iterator[str]:
    """A run as a subgraph, with an arrow from each producer of an argument to its node."""
    nodes = {call.node for call in run.calls if call.role == "node"}
    vertices: dict[Vertex, str] = {}
    arrows: dict[tuple[str, str], set[str]] = defaultdict(set)
    denied = set()

    def vertex(shape: str, name: str) -> str:
        return vertices.setdefault((shape, name), f"{prefix}n{len(vertices)}")

    for call in run.calls:
        shape, name = "node", call.node or call.tool
        if call.role == "router":
            shape, name = "router", call.tool
        target = vertex(shape, name)
        if call.verdict in {"denied", "rejected"}:
            denied.add(target)
        for argument, labels in (call.labels or {}).items():
            for producer in labels["producers"]:
                source = vertex("node" if producer in nodes else "source", producer)
                arrows[source, target].add(argument)
    yield f'subgraph {prefix}["{_escaped(f"{run.graph}, {run.outcome}")}"]'
    for (shape, name), key in vertices.items():
        opening, closing = _SHAPES[shape]
        yield f'  {key}{opening}"{_escaped(name)}"{closing}{":::denied" if key in denied else ""}'
    for (source, target), arguments in arrows.items():
        yield f'  {source} -->|"{_escaped(", ".join(sorted(arguments)))}"| {target}'
    yield "end"


def _escaped(text: str) -> str:
    label = plain(text, limit=_LABEL_CHARACTERS)
    return "".join(
        char if char in _HARMLESS or char.isalnum() else f"#{ord(char)};" for char in label
    )


class Trace(Listener, PictureMixin):
    """Records the runs of a `LangGraphExecutor`, also those that are denied or fail.

    It is a callback handler: give it to one run, to several, or to a graph that has the executor as
    a node. Print it, show it in a notebook, save its picture, or read `runs`. Labels and rules are
    in the service's last reply, so they are known at the end of a run. Those of a call that a human
    reviews are known after the decision. What a service does not report is "not reported".

    Args:
        values: Whether to keep the values of arguments as well. By default a trace has no values.

    Example:
        ```python
        from typing import TypedDict
        from langgraph.graph import StateGraph
        from langchain_sequrity import ChatSequrity, LangGraphExecutor, Trace
        from langchain_sequrity.local import LocalServer


        class State(TypedDict):
            text: str


        def shout(state: State):
            return {"text": state["text"].upper()}


        graph = StateGraph(State).add_sequence([shout]).set_entry_point("shout")
        trace = Trace()
        with LocalServer() as server:
            model = ChatSequrity("any/model", base_url=server.base_url)
            secure = LangGraphExecutor(graph, model)
            secure.invoke({"text": "hi"}, config={"callbacks": [trace]})
        assert [call.tool for call in trace.runs[0].calls] == ["shout"]
        print(trace)
        picture = trace.svg()  # or trace.save("run.svg")
        ```
    """

    def __init__(self, *, values: bool = False) -> None:
        self.wants_values = values
        self._lock = Lock()
        self._runs: dict[str, _RunBuilder] = {}

    @property
    def runs(self) -> tuple[TracedRun, ...]:
        """The runs so far, in the order in which they began."""
        with self._lock:
            return tuple(run.traced() for run in self._runs.values())

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON data."""
        return {"runs": [run.to_dict() for run in self.runs]}

    def to_json(self) -> str:
        """All of it as JSON text in ASCII."""
        return json.dumps(self.to_dict(), indent=2, default=str)

    def to_mermaid(self) -> str:
        """Which data reached which node, by the labels, as a Mermaid flowchart."""
        parts = [_mermaid_part(f"r{number}", run) for number, run in enumerate(self.runs, 1)]
        lines = [line for part in parts for line in part]
        return "\n".join(["flowchart LR", *(f"  {line}" for line in [*lines, _DENIED])])

    @override
    def flows(self) -> tuple[Flow, ...]:
        """Which data reached which call, for each run."""
        flows = tuple(flow for run in self.runs for flow in run.flows())
        return flows or (Flow(_NO_RUN, ()),)

    @override
    def heard(self, event: RunEvent) -> None:
        run_info = event["run"]
        with self._lock:
            run = self._runs.get(run_info["id"])
            if run is None:
                run = self._runs[run_info["id"]] = _RunBuilder(run_info["graph"], run_info["mode"])
            run.add(event)

    def __str__(self) -> str:
        """A table for each run."""
        return "\n\n".join(run.table().text() for run in self.runs) or _NO_RUN

    def __repr__(self) -> str:
        """The number of runs only: a printed config shows its callbacks."""
        return f"<Trace of {len(self._runs)} runs>"

    def __rich__(self) -> "rich.console.Group":
        """A rich table for each run."""
        from rich.console import Group  # noqa: PLC0415 - rich belongs to an extra

        return Group(*(run.table().rich() for run in self.runs))

    @override
    def _repr_html_(self) -> str:
        return "".join(run.table().html() for run in self.runs)


_Facts = dict[str, Any]
"""The attributes of a `TracedCall` so far, and the `id` of the call."""


@dataclass(slots=True)
class _RunBuilder:
    """A run so far."""

    graph: str
    mode: Literal["sync", "async"]
    session_id: str | None = None
    outcome: Literal["open", "finished", "denied", "failed"] = "open"
    error: str | None = None
    calls: list[_Facts] = field(default_factory=list)
    calls_by_index: dict[int, _Facts] = field(default_factory=dict)
    other_calls: list[_Facts] = field(default_factory=list)
    ran_events: dict[str, RunEvent] = field(default_factory=dict)

    def add(self, event: RunEvent) -> None:
        """Add an event."""
        self.session_id = event.get("session_id") or self.session_id
        match event["event"]:
            case "ran":
                self.ran_events[event["call"]] = event
            case "allowed" | "approved" | "rejected" as verdict:
                call = _call(event, verdict, event["seconds"])
                self.calls.append(call)
                if verdict == "allowed":
                    self.calls_by_index[event["index"]] = call
                elif verdict == "rejected":
                    self.outcome = "denied"
            case "finished" | "denied" | "failed" as outcome:
                self.outcome, self.error = outcome, event.get("error")
                self._settle(event)

    def _settle(self, event: RunEvent) -> None:
        """Add the last reply's report on all calls, including those from before a resume."""
        earlier = []
        for index, report in enumerate(event["calls"]):
            if index in self.calls_by_index:
                _add_check(self.calls_by_index[index], report["check"])
            else:
                earlier.append(_call(report, "allowed"))
        self.calls[:0] = earlier
        self.other_calls = [_call(call, call["check"]["verdict"]) for call in event["other_checks"]]
        if event["event"] == "denied":
            self._deny(event)

    def _deny(self, event: RunEvent) -> None:
        """Add the facts of the denied call that its check does not report."""
        denied = [call for call in self.other_calls if call["verdict"] == "denied"]
        if not denied:
            denied = [_call(event, "denied")]
            self.other_calls += denied
        last = denied[-1]
        last["request_seconds"] = event["seconds"]
        for name in ("rule", "reason"):
            if last.get(name, NOT_REPORTED) == NOT_REPORTED:
                last[name] = event[name]

    def traced(self) -> TracedRun:
        """The run as an immutable record."""
        calls = tuple(map(self._traced, (*self.calls, *self.other_calls)))
        return TracedRun(self.graph, self.mode, self.session_id, self.outcome, self.error, calls)

    def _traced(self, call: _Facts) -> TracedCall:
        event = self.ran_events.get(call["id"], {})
        facts = {name: fact for name, fact in call.items() if name != "id"}
        return TracedCall(**facts, node_seconds=event.get("seconds"), error=event.get("error"))


def _call(event: RunEvent, verdict: str, seconds: float | None = None) -> _Facts:
    call = {name: event[name] for name in ("node", "role", "tool")}
    call |= {"id": event.get("call"), "verdict": verdict, "request_seconds": seconds}
    call["values"] = event.get("arguments")
    _add_check(call, event.get("check"))
    return call


def _add_check(call: _Facts, check: Mapping[str, Any] | None) -> None:
    """Add the result of a policy check."""
    if check is not None:
        call |= {name: check[name] for name in ("rule", "reason", "is_certain", "labels")}
        call["values"] = check["values"] or call["values"]
