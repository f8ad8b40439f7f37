"""What a trace keeps of runs, as data, and how it is shown."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langchain_sequrity.display import plain
from langchain_sequrity.display.tables import Cell, Row, Table
from langchain_sequrity.graph.running.checks import NOT_REPORTED, Meta
from langchain_sequrity.labels import ALL, RESERVED_PREFIX

_SHORT = 60
_SESSION_SHOWN = 8


@dataclass(frozen=True, slots=True)
class TracedCall:
    """A tool call of a run.

    Attributes:
        node: The node; of a router, the node it follows. `None` if the graph has none.
        role: Whether it is a node or a router; `None` for the service's own tools.
        tool: The tool.
        verdict: What the policy said, or a human after it ("approved", "rejected"). A call that the
            service asks for is allowed.
        rule: The rule that decided, or "not reported"; so is `reason`.
        reason: Why, in words.
        is_certain: Whether all readings of the policy agree; `None` if that is not reported.
        labels: Argument → its producers, consumers and tags; `None` if they are not reported.
        values: Argument → its value as it was sent; `None` unless the trace was to keep them.
        node_seconds: How long the node ran, the last time if several; `None` if it did not run in
            this trace (a cached result, one from before a resume, a denied call).
        request_seconds: How long the request took that brought the call; `None` as above.
        error: Class of the exception with which the node ended last, if it did.
    """

    node: str | None
    role: Literal["node", "router"] | None
    tool: str
    verdict: Literal["allowed", "denied", "approved", "rejected", "not reported"]
    rule: str = NOT_REPORTED
    reason: str = NOT_REPORTED
    is_certain: bool | None = None
    labels: Mapping[str, Meta] | None = None
    values: Mapping[str, Any] | None = None
    node_seconds: float | None = None
    request_seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TracedRun:
    """One run of an executor, from `invoke` (or a resume) to where it stopped.

    Attributes:
        graph: Name of the graph.
        mode: Whether it ran sync or async.
        session_id: The session that it ended in.
        outcome: "finished"; "denied" or "failed"; "open" if it goes on, waits for an interrupt, or
            ended with an exception of a node.
        error: Class of the exception, where it failed.
        calls: Its calls in order, those from before a resume among them; denied ones and the
            service's own tools at the end.
    """

    graph: str
    mode: Literal["sync", "async"]
    session_id: str | None
    outcome: Literal["open", "finished", "denied", "failed"]
    error: str | None
    calls: tuple[TracedCall, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data, fit for JSON."""
        calls = [{name: getattr(call, name) for name in call.__slots__} for call in self.calls]
        return {name: getattr(self, name) for name in self.__slots__} | {"calls": calls}

    def table(self) -> Table:
        """The run as a table."""
        session = (
            f"session {self.session_id[:_SESSION_SHOWN]}…" if self.session_id else "no session"
        )
        ended = self.outcome if self.error is None else f"{self.outcome} ({self.error})"
        return Table(
            title=f"{self.graph}: {ended}, {self.mode}, {session}",
            columns=("#", "node", "tool", "arguments", "verdict", "rule", "node", "request"),
            rows=tuple(_row(number, call) for number, call in enumerate(self.calls, 1)),
        )


def _row(number: int, call: TracedCall) -> Row:
    node = call.node or "(none)"
    verdict = call.verdict if call.is_certain is not False else f"{call.verdict} (in doubt)"
    why = dict.fromkeys((call.rule, call.reason))
    return (
        (str(number),),
        (f"router after {node}" if call.role == "router" else node,),
        (call.tool,),
        _arguments(call),
        (verdict,),
        tuple(why),
        (_time(call.node_seconds), *((call.error,) if call.error else ())),
        (_time(call.request_seconds),),
    )


def _arguments(call: TracedCall) -> Cell:
    names = dict.fromkeys([*(call.labels or ()), *(call.values or ())])
    lines = [_argument(name, call) for name in names]
    return tuple(lines) if call.labels is not None else (*lines, f"labels {NOT_REPORTED}")


def _argument(name: str, call: TracedCall) -> str:
    values, labels = call.values or {}, call.labels or {}
    value = f" = {_shortened(values[name])}" if name in values else ""
    return f"{name}{value}{_labels(labels[name]) if name in labels else ''}"


def _labels(meta: Meta) -> str:
    """Labels in a line: where from, tags, who may have it; what says nothing is left out."""
    tags = [tag for tag in meta["tags"] if not tag.startswith(RESERVED_PREFIX)]
    parts = [f" ← {', '.join(meta['producers'])}"] if meta["producers"] else []
    parts += [f" [{', '.join(tags)}]"] if tags else []
    if meta["consumers"] != [ALL]:
        parts.append(f" → {', '.join(meta['consumers']) or 'nobody'}")
    return "".join(parts)


def _shortened(value: Any) -> str:
    return plain(json.dumps(value, ensure_ascii=False, default=str), limit=_SHORT)


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1_000:,.1f} ms"
