"""`Trace`: what a run did, call by call, and what the policy said of it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import override

from langchain_sequrity.graph.looking.flow import mermaid
from langchain_sequrity.graph.looking.listening import Listener
from langchain_sequrity.graph.looking.traced import TracedCall, TracedRun
from langchain_sequrity.graph.running.checks import NOT_REPORTED
from langchain_sequrity.graph.running.watching import Event

if TYPE_CHECKING:
    import rich.console


class Trace(Listener):
    """Keeps what the runs of a `LangGraphExecutor` do, also of those that are denied or fail.

    It is a callback handler: give it to a run, to several, or to a graph that has the executor as
    a node. Print it, show it in a notebook, or read `runs`. Labels and rules stand in the service's
    last reply, so they are there when a run has come to its end, and those of a call that a human
    was asked about when the human has decided; what a service does not report is "not reported".

    Args:
        values: Whether to keep the values of arguments as well. Without it a trace holds none.

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
        ```
    """

    def __init__(self, *, values: bool = False) -> None:
        self.wants_values = values
        self._lock = Lock()
        self._runs: dict[str, _Run] = {}

    @property
    def runs(self) -> tuple[TracedRun, ...]:
        """The runs so far, in the order in which they began."""
        with self._lock:
            return tuple(run.traced() for run in self._runs.values())

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data, fit for JSON."""
        return {"runs": [run.to_dict() for run in self.runs]}

    def to_json(self) -> str:
        """All of it as JSON text, in ASCII."""
        return json.dumps(self.to_dict(), indent=2, default=str)

    def to_mermaid(self) -> str:
        """Which data reached which node, by the labels, as a Mermaid flowchart."""
        return mermaid(self.runs)

    @override
    def heard(self, event: Event) -> None:
        found = event["run"]
        with self._lock:
            run = self._runs.get(found["id"])
            if run is None:
                run = self._runs[found["id"]] = _Run(found["graph"], found["mode"])
            run.take(event)

    def __str__(self) -> str:
        """A table for each run."""
        return "\n\n".join(run.table().text() for run in self.runs) or "No run has been traced."

    def __repr__(self) -> str:
        """How much is in it: configs are shown with their callbacks."""
        return f"<Trace of {len(self._runs)} runs>"

    def __rich__(self) -> "rich.console.Group":
        """A rich table for each run."""
        from rich.console import Group  # noqa: PLC0415 - rich belongs to an extra

        return Group(*(run.table().rich() for run in self.runs))

    def _repr_html_(self) -> str:
        return "".join(run.table().html() for run in self.runs)


@dataclass(slots=True)
class _Call:
    """A call as far as it is known; `facts` are those of `TracedCall`."""

    id: str | None
    facts: dict[str, Any]

    def check(self, found: dict[str, Any] | None) -> None:
        """Take what a policy check says."""
        if found is not None:
            names = ("rule", "reason", "is_certain", "labels")
            self.facts.update({name: found[name] for name in names})
            self.facts["values"] = found["values"] or self.facts.get("values")


@dataclass(slots=True)
class _Run:
    """A run as far as it is known."""

    graph: str
    mode: Literal["sync", "async"]
    session_id: str | None = None
    outcome: Literal["open", "finished", "denied", "failed"] = "open"
    error: str | None = None
    calls: list[_Call] = field(default_factory=list)
    placed: dict[int, _Call] = field(default_factory=dict)
    others: list[_Call] = field(default_factory=list)
    ran: dict[str, Event] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Take an event."""
        self.session_id = event.get("session_id") or self.session_id
        match event["event"]:
            case "ran":
                self.ran[event["call"]] = event
            case "allowed" | "approved" | "rejected" as verdict:
                seen = {"request_seconds": event["seconds"], "values": event.get("arguments")}
                call = _Call(event["call"], {**_place(event), "verdict": verdict, **seen})
                call.check(event.get("check"))
                self.calls.append(call)
                if verdict == "allowed":
                    self.placed[event["index"]] = call
                elif verdict == "rejected":
                    self.outcome = "denied"
            case "finished" | "denied" | "failed" as outcome:
                self.outcome, self.error = outcome, event.get("error")
                self._settle(event)

    def _settle(self, event: Event) -> None:
        """Take what the last reply says of all calls, those from before a resume among them."""
        earlier = []
        for index, found in enumerate(event["calls"]):
            call = self.placed.get(index)
            if call is None:
                call = _Call(found["call"], {**_place(found), "verdict": "allowed"})
                earlier.append(call)
            call.check(found["check"])
        self.calls[:0] = earlier
        self.others = []
        for found in event["other_checks"]:
            other = _Call(None, {**_place(found), "verdict": found["check"]["verdict"]})
            other.check(found["check"])
            self.others.append(other)
        if event["event"] == "denied":
            self._deny(event)

    def _deny(self, event: Event) -> None:
        """Take what is said of the denied call, where its check does not say it."""
        found = [one for one in self.others if one.facts["verdict"] == "denied"]
        if not found:
            found = [_Call(None, {**_place(event), "verdict": "denied"})]
            self.others += found
        last = found[-1].facts
        last["request_seconds"] = event["seconds"]
        for name in ("rule", "reason"):
            if last.get(name, NOT_REPORTED) == NOT_REPORTED:
                last[name] = event[name]

    def traced(self) -> TracedRun:
        """What is known, for others to keep."""
        return TracedRun(
            self.graph, self.mode, self.session_id, self.outcome, self.error, tuple(self._traced())
        )

    def _traced(self) -> Iterator[TracedCall]:
        for call in (*self.calls, *self.others):
            ran = self.ran.get(call.id or "", {})
            times = {"node_seconds": ran.get("seconds"), "error": ran.get("error")}
            yield TracedCall(**{**call.facts, **times})


def _place(event: Event) -> dict[str, Any]:
    return {name: event[name] for name in ("node", "role", "tool")}
