"""Events of a run for `Trace` and `Progress`, and the policy checks of each call.

The shape of a policy report is not published (`docs/protocol.md`, Dual-LLM content). Facts that are
missing at the places where the local server and recordings have them are "not reported"; none is
guessed.

The events go to:

- the stream mode `sequrity`: `{"type": "sequrity", "event": …, "node": …, "tool": …, …}`
- `Trace` and `Progress`: the same and more
- tracers: session, tool and outcome become metadata of their runs

The events of a call are `tool_call`, then `allowed` or `denied`, and `approved` or `rejected` after
a human's decision. The last event is `finished` or `failed`. Calls are in the checkpoint, so no
event is repeated when a run is resumed. `Trace` also gets `ran` for each attempt of a node.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Literal, Self
from uuid import uuid4

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer
from langgraph.errors import GraphBubbleUp

from langchain_sequrity.errors import PolicyDenied, TurnFailed
from langchain_sequrity.graph import _compat
from langchain_sequrity.graph.journal import DeniedCall, ProgramCall
from langchain_sequrity.graph.program import ToolSpec
from langchain_sequrity.graph.runtime.requests import CallsRequested, RunFinished, ServiceAnswer
from langchain_sequrity.wire.denials import checked_tool, read_labels

NOT_REPORTED: Final = "not reported"

Meta = dict[str, list[str]]
"""Labels as the protocol has them: producers, consumers, tags."""


@dataclass(frozen=True, slots=True)
class ReportedCheck:
    """One policy check.

    Attributes:
        tool: Name of the tool.
        verdict: The verdict.
        is_certain: Whether all readings of the policy agree; `None` if that is not reported.
        rule: The rule that decided.
        reason: The reason in words.
        labels: Reported labels of the arguments.
        values: Values of the arguments; reported for denied calls only.
    """

    tool: str
    verdict: Literal["allowed", "denied", "not reported"] = NOT_REPORTED
    is_certain: bool | None = None
    rule: str = NOT_REPORTED
    reason: str = NOT_REPORTED
    labels: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


def read_checks(history: Iterable[Any]) -> list[ReportedCheck]:
    """Read a `policy_check_history`; entries without a tool are left out."""
    named = [(one, checked_tool(one)) for one in history if isinstance(one, Mapping)]
    return [_read(entry, tool) for entry, tool in named if tool is not None]


def assigned(
    tools: Sequence[str], checks: Iterable[ReportedCheck]
) -> tuple[list[ReportedCheck | None], list[ReportedCheck]]:
    """Find the check of each call.

    Checks are in the order of the calls, mixed with those of denied calls and of the service's own
    tools. If the number of a tool's allowed checks differs from the number of its calls, its checks
    are not used: the labels of another call would mislead.

    Args:
        tools: The tool of each call, in order.
        checks: All checks, in order.

    Returns:
        The check of each call, or `None`; and the checks without a call.
    """
    passed: dict[str, list[ReportedCheck]] = defaultdict(list)
    others: list[ReportedCheck] = []
    calls = Counter(tools)
    for check in checks:
        is_call = check.verdict != "denied" and check.tool in calls
        (passed[check.tool] if is_call else others).append(check)
    left = {
        tool: iter(found) if len(found) == calls[tool] else iter(())
        for tool, found in passed.items()
    }
    return [next(left.get(tool, iter(())), None) for tool in tools], others


def _read(entry: Mapping[str, Any], tool: str) -> ReportedCheck:
    denied = _reasons(entry.get("denied")) or _reasons(entry.get("denial_reasons"))
    allowed = _reasons(entry.get("allowed"))
    verdict = str(entry.get("verdict") or entry.get("final_verdict") or "")
    is_denied = bool(denied) or verdict.endswith("denied")
    is_allowed = not is_denied and (bool(allowed) or verdict.endswith("allowed"))
    first = next(iter(denied if is_denied else allowed), {})
    certain = entry.get("certain")
    values = first.get("arguments")
    return ReportedCheck(
        tool=tool,
        verdict="denied" if is_denied else "allowed" if is_allowed else NOT_REPORTED,
        is_certain=certain if isinstance(certain, bool) else None,
        rule=_text(first.get("rule")),
        reason=_text(first.get("reason") or first.get("checker_description")),
        labels=_labels(entry.get("arguments")),
        values={
            str(name): one["value"]
            for name, one in (values if isinstance(values, Mapping) else {}).items()
            if isinstance(one, Mapping) and "value" in one
        },
    )


def _reasons(found: Any) -> list[Mapping[str, Any]]:
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _text(found: Any) -> str:
    return found if isinstance(found, str) and found else NOT_REPORTED


def _labels(found: Any) -> dict[str, Meta]:
    if not isinstance(found, Mapping):
        return {}
    read = {str(name): read_labels(meta) for name, meta in found.items()}
    return {name: meta for name, meta in read.items() if meta is not None}


NAME = "sequrity"
"""The stream mode of the events, and their `type`."""

Event = dict[str, Any]


def new_run(graph: str) -> dict[str, str]:
    """The identity of a run, for its events.

    Args:
        graph: Name of the graph.
    """
    return {"id": uuid4().hex, "graph": graph, "mode": "sync"}


@dataclass(frozen=True, slots=True)
class HumanDecided:
    """A human's decision about a denied call.

    Attributes:
        denial: The denied call.
        is_approved: Whether the human approved it.
    """

    denial: DeniedCall
    is_approved: bool

    @property
    def check(self) -> ReportedCheck:
        """The policy check of the call, as the human saw it."""
        denial = self.denial.denial
        return ReportedCheck(
            self.denial.tool,
            "denied",
            is_certain=denial.certain,
            rule=denial.rule or NOT_REPORTED,
            reason=denial.reason or NOT_REPORTED,
            labels=self.denial.labels,
            values=self.denial.arguments,
        )


Heard = ServiceAnswer | HumanDecided | Exception


class CallWatch:
    """Reports the run of a node or a router.

    Args:
        call: The call that it answers.
        run: Identity of the run.
        config: The config of the task.
    """

    def __init__(self, call: ProgramCall, run: Mapping[str, str], config: RunnableConfig) -> None:
        self._call = call
        self._run = run
        manager = config.get("callbacks")
        found = manager.handlers if isinstance(manager, BaseCallbackManager) else []
        self._listeners: list[Any] = [one for one in found if is_listener(one)]
        self._started = perf_counter()

    def __enter__(self) -> Self:
        """Start."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Report the end."""
        if not self._listeners or not (error is None or isinstance(error, Exception)):
            return
        event: Event = {
            "type": NAME,
            "event": "ran",
            "run": self._run,
            "call": self._call.id,
            "tool": self._call.tool,
            "seconds": perf_counter() - self._started,
            "error": None if error is None else type(error).__name__,
        }
        for one in self._listeners:
            one.heard(event)


class RequestWatch:
    """Reports the requests of a run.

    Args:
        tools: The program's tools.
        calls: Gives the calls so far, in order.
        session_id: The session so far.
        run: Identity of the run.
        loop: LangGraph's loop of the run.
    """

    def __init__(
        self,
        tools: Mapping[str, ToolSpec],
        calls: Callable[[], Sequence[ProgramCall]],
        session_id: str | None,
        run: Mapping[str, str],
        loop: _compat.PregelLoop,
    ) -> None:
        self._tools = tools
        self._calls = calls
        self._session = session_id
        self._run = run
        self._loop = loop
        self._handlers: list[BaseCallbackHandler] = loop.manager.handlers if loop.manager else []
        self._listeners: list[Any] = [one for one in self._handlers if is_listener(one)]
        self._heard: Heard | None = None
        self._seconds = 0.0
        self._started = perf_counter()

    def __enter__(self) -> Self:
        """Start."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Report the end."""
        # A cancelled run is not reported, so it stops at once.
        if isinstance(error, GraphBubbleUp) or not isinstance(error, Exception):
            return
        if not isinstance(self._heard, Exception):
            self.tell(error)

    def tell(self, outcome: Heard) -> None:
        """Report a reply, a decision or an error."""
        self._heard = outcome
        self._seconds = perf_counter() - self._started
        self._started = perf_counter()
        self._session = getattr(outcome, "session_id", None) or self._session
        self._tell(outcome)

    def _tell(self, outcome: Heard) -> None:
        is_streamed = self._loop.stream is not None and NAME in self._loop.stream.modes
        if not self._handlers and not is_streamed:
            return
        events = [
            {"type": NAME, **event, "session_id": self._session} for event in self._events(outcome)
        ]
        if not events:
            return
        _compat.tell(self._loop, NAME, lambda: iter(events))
        if self._loop.manager is not None:
            _note(_facts(events[-1]), self._handlers, str(self._loop.manager.run_id))
        for event in self._detailed(events) if self._listeners else ():
            for one in self._listeners:
                one.heard(event)

    def _events(self, outcome: Heard) -> Iterator[Event]:
        match outcome:
            case CallsRequested(calls=calls):
                for call in calls:
                    if self._is_result(call.tool):
                        continue
                    yield {"event": "tool_call", **self._place(call.tool)}
                    yield {"event": "allowed", **self._place(call.tool)}
            case PolicyDenied(tool=tool, rule=rule, reason=reason):
                if tool != NOT_REPORTED:
                    yield {"event": "tool_call", **self._place(tool)}
                yield {"event": "denied", **self._place(tool), "rule": rule, "reason": reason}
            case HumanDecided(denial=denial, is_approved=is_approved):
                event = "approved" if is_approved else "rejected"
                yield {"event": event, **self._place(denial.tool)}
            case RunFinished():
                yield {"event": "finished"}
            case Exception():
                yield {"event": "failed", "error": type(outcome).__name__}

    def _is_result(self, tool: str) -> bool:
        return tool in self._tools and self._tools[tool].role == "result"

    def _place(self, tool: str) -> Event:
        found = self._tools.get(tool)
        role, node = (found.role, found.node) if found else (None, None)
        return {"tool": tool, "node": node, "role": role}

    def _detailed(self, events: Sequence[Event]) -> list[Event]:
        """The events with the details for callback handlers."""
        wants_values = any(getattr(one, "wants_values", False) for one in self._listeners)
        made = [
            *self._calls(),
            *(self._heard.calls if isinstance(self._heard, CallsRequested) else ()),
        ]
        calls = [call for call in made if not self._is_result(call.tool)]
        index = len(calls) - sum(event["event"] == "allowed" for event in events)
        detailed = []
        for event in events:
            more: Event = {"run": self._run, "seconds": self._seconds}
            if isinstance(self._heard, HumanDecided):
                check = _plain(self._heard.check, wants_values)
                more |= {"call": self._heard.denial.call.id, "check": check}
            elif event["event"] == "allowed":
                more |= {"call": calls[index].id, "index": index}
                more |= {"arguments": calls[index].arguments} if wants_values else {}
                index += 1
            elif event["event"] != "tool_call":
                more |= self._checked(calls, wants_values=wants_values)
            detailed.append({**event, **more})
        return detailed

    def _checked(self, calls: Sequence[ProgramCall], *, wants_values: bool) -> Event:
        """All calls with the reported checks, and the checks without a call."""
        checks = read_checks(_history(self._heard))
        told = [one for one in checks if not self._is_result(one.tool)]
        found, others = assigned([call.tool for call in calls], told)
        return {
            "calls": [
                {"call": call.id, **self._place(call.tool), "check": _plain(check, wants_values)}
                for call, check in zip(calls, found, strict=True)
            ],
            "other_checks": [
                {**self._place(check.tool), "check": _plain(check, wants_values)}
                for check in others
            ],
        }


def _history(outcome: Heard | None) -> Sequence[Any]:
    result = (
        getattr(outcome, "result", None) if isinstance(outcome, RunFinished | TurnFailed) else None
    )
    return () if result is None else result.policy_check_history


def _plain(check: ReportedCheck | None, wants_values: bool) -> Event | None:  # noqa: FBT001 - private
    if check is None:
        return None
    return asdict(check if wants_values else replace(check, values={}))


def call_facts(call: ProgramCall) -> Event:
    """Metadata for a node's run in a tracer."""
    return {"sequrity_tool": call.tool, "sequrity_verdict": "allowed"}


def _facts(event: Event) -> Event:
    """Metadata for the executor's run in a tracer."""
    facts = {"session_id": event["session_id"]}
    if event["event"] in {"finished", "denied", "failed"}:
        facts["outcome"] = event["event"]
    facts |= {key: event[key] for key in ("tool", "rule", "reason") if event["event"] == "denied"}
    return {f"sequrity_{key}": value for key, value in facts.items()}


def note(facts: Mapping[str, Any], config: RunnableConfig) -> None:
    """Add metadata to the running node in the tracers.

    Args:
        facts: The metadata.
        config: The config of the node.
    """
    manager = config.get("callbacks")
    if isinstance(manager, BaseCallbackManager):
        _note(facts, manager.handlers, str(manager.parent_run_id))


def _note(facts: Mapping[str, Any], handlers: Sequence[BaseCallbackHandler], run_id: str) -> None:
    for handler in handlers:
        if isinstance(handler, BaseTracer | AsyncBaseTracer):
            run = handler.run_map.get(run_id)
            if run is not None:
                run.extra.setdefault("metadata", {}).update(facts)


def is_listener(handler: Any) -> bool:
    """Whether a callback handler gets these events: see `graph.tracing.Listener`."""
    return getattr(type(handler), "hears_runs", False) is True
