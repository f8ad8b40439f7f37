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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any, Literal, Self

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer
from langgraph.errors import GraphBubbleUp

from langchain_sequrity import _compat
from langchain_sequrity.denials import NOT_REPORTED, Denial
from langchain_sequrity.errors import PolicyDenied, TurnFailed
from langchain_sequrity.graph.journal import DeniedCall, ProgramCall
from langchain_sequrity.graph.program import ToolSpec
from langchain_sequrity.graph.runtime.requests import CallsRequested, RunFinished, ServiceAnswer
from langchain_sequrity.graph.runtime.run_log import RunLog
from langchain_sequrity.wire.denials import checked_tool, read_call, read_check, reasons_in


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
    checks = [(entry, checked_tool(entry)) for entry in history if isinstance(entry, Mapping)]
    return [_read(entry, tool) for entry, tool in checks if tool is not None]


def checks_by_call(
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
    unused = {
        tool: iter(of_tool) if len(of_tool) == calls[tool] else iter(())
        for tool, of_tool in passed.items()
    }
    return [next(unused.get(tool, iter(())), None) for tool in tools], others


def _read(entry: Mapping[str, Any], tool: str) -> ReportedCheck:
    if (denial := read_check(entry)) is not None:
        return _denied(tool, denial)
    allowed = reasons_in(entry, "allowed")
    verdict = str(entry.get("verdict") or entry.get("final_verdict") or "")
    first: Mapping[str, Any] = allowed[0] if allowed else {}
    certain = entry.get("certain")
    _, labels = read_call(None, entry.get("arguments"))
    return ReportedCheck(
        tool,
        "allowed" if allowed or verdict.endswith("allowed") else NOT_REPORTED,
        is_certain=certain if isinstance(certain, bool) else None,
        rule=_text(first.get("rule")),
        reason=_text(first.get("reason") or first.get("checker_description")),
        labels=labels or {},
    )


def _denied(tool: str, denial: Denial) -> ReportedCheck:
    return ReportedCheck(
        tool,
        "denied",
        is_certain=denial.certain,
        rule=denial.rule or NOT_REPORTED,
        reason=denial.reason or NOT_REPORTED,
        labels=denial.labels or {},
        values=denial.arguments or {},
    )


def _text(reported: Any) -> str:
    return reported if isinstance(reported, str) and reported else NOT_REPORTED


NAME = "sequrity"
"""The stream mode of the events, and their `type`."""

RunEvent = dict[str, Any]


Heard = ServiceAnswer | DeniedCall | Exception
"""A reply, a denied call that a human has approved or rejected, or an error."""


@contextmanager
def call_watch(call: ProgramCall, run: Mapping[str, str], config: RunnableConfig) -> Iterator[None]:
    """Report the run of a node or a router. One that is cancelled is not reported.

    Args:
        call: The call that it answers.
        run: Identity of the run.
        config: The config of the task.
    """
    manager = config.get("callbacks")
    handlers = manager.handlers if isinstance(manager, BaseCallbackManager) else []
    listeners: list[Any] = list(filter(is_listener, handlers))
    started = perf_counter()

    def tell(error: str | None) -> None:
        seconds = perf_counter() - started
        named = {"call": call.id, "tool": call.tool, "seconds": seconds, "error": error}
        for listener in listeners:
            listener.heard({"type": NAME, "event": "ran", "run": run, **named})

    try:
        yield
    except Exception as error:
        tell(type(error).__name__)
        raise
    tell(None)


class RequestWatch:
    """Reports requests of a run, and the error with which they end.

    A run that is cancelled is not reported, so it stops at once.

    Args:
        tools: The program's tools.
        log: The log of the run.
        run: Identity of the run.
        loop: LangGraph's loop of the run.
    """

    def __init__(
        self,
        tools: Mapping[str, ToolSpec],
        log: RunLog,
        run: Mapping[str, str],
        loop: _compat.PregelLoop,
    ) -> None:
        self._heard: Heard | None = None
        self._tools, self._log, self._run, self._loop = tools, log, run, loop
        self._handlers: list[BaseCallbackHandler] = loop.manager.handlers if loop.manager else []
        self._listeners: list[Any] = list(filter(is_listener, self._handlers))
        self._started = perf_counter()

    def __enter__(self) -> Self:
        """Begin the requests."""
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        """Report the error, unless it is reported already."""
        is_reported = isinstance(error, GraphBubbleUp) or isinstance(self._heard, Exception)
        if isinstance(error, Exception) and not is_reported:
            self.report(error)

    def report(self, outcome: Heard) -> None:
        """Report a reply, a decision or an error."""
        self._heard, now = outcome, perf_counter()
        seconds, self._started = now - self._started, now
        is_streamed = self._loop.stream is not None and NAME in self._loop.stream.modes
        if not self._handlers and not is_streamed:
            return
        session = getattr(outcome, "session_id", None) or self._log.session_id
        events = [{"type": NAME, **event, "session_id": session} for event in self._events(outcome)]
        if not events:
            return
        _compat.emit(self._loop, NAME, lambda: iter(events))
        if self._loop.manager is not None:
            _note(_trace_metadata(events[-1]), self._handlers, str(self._loop.manager.run_id))
        for listener in self._listeners:
            has_values = getattr(listener, "wants_values", False)
            for event in self._detailed(events, outcome, has_values=has_values):
                listener.heard({**event, "run": self._run, "seconds": seconds})

    def _events(self, outcome: Heard) -> Iterator[RunEvent]:
        match outcome:
            case CallsRequested(calls=calls):
                for call in calls:
                    if self._is_result(call.tool):
                        continue
                    yield {"event": "tool_call", **self._tool_facts(call.tool)}
                    yield {"event": "allowed", **self._tool_facts(call.tool)}
            case PolicyDenied(tool=tool, rule=rule, reason=reason):
                if tool != NOT_REPORTED:
                    yield {"event": "tool_call", **self._tool_facts(tool)}
                yield {"event": "denied", **self._tool_facts(tool), "rule": rule, "reason": reason}
            case DeniedCall():
                event = "approved" if outcome.is_approved else "rejected"
                yield {"event": event, **self._tool_facts(outcome.tool)}
            case RunFinished():
                yield {"event": "finished"}
            case Exception():
                yield {"event": "failed", "error": type(outcome).__name__}

    def _is_result(self, tool: str) -> bool:
        return tool in self._tools and self._tools[tool].role == "result"

    def _tool_facts(self, tool: str) -> RunEvent:
        spec = self._tools.get(tool)
        role, node = (spec.role, spec.node) if spec else (None, None)
        return {"tool": tool, "node": node, "role": role}

    def _detailed(
        self, events: Sequence[RunEvent], outcome: Heard, *, has_values: bool
    ) -> Iterator[RunEvent]:
        """The events with the details for a callback handler."""
        all_calls = [call for batch in self._log.journal.batches for call in batch.calls]
        all_calls += outcome.calls if isinstance(outcome, CallsRequested) else ()
        calls = [call for call in all_calls if not self._is_result(call.tool)]
        index = len(calls) - sum(event["event"] == "allowed" for event in events)
        for event in events:
            more: RunEvent = {}
            if isinstance(outcome, DeniedCall):
                check = _denied(outcome.tool, outcome.denial)
                more = {"call": outcome.call.id, "check": _plain(check, has_values=has_values)}
            elif event["event"] == "allowed":
                more = {"call": calls[index].id, "index": index}
                more |= {"arguments": calls[index].arguments} if has_values else {}
                index += 1
            elif event["event"] != "tool_call":
                more = self._checked(calls, outcome, has_values=has_values)
            yield {**event, **more}

    def _checked(
        self, calls: Sequence[ProgramCall], outcome: Heard, *, has_values: bool
    ) -> RunEvent:
        """All calls with the reported checks, and the checks without a call."""
        result = outcome.result if isinstance(outcome, RunFinished | TurnFailed) else None
        checks = read_checks(() if result is None else result.policy_check_history)
        of_nodes = [check for check in checks if not self._is_result(check.tool)]
        by_call, others = checks_by_call([call.tool for call in calls], of_nodes)
        plain = partial(_plain, has_values=has_values)
        return {
            "calls": [
                {**self._tool_facts(call.tool), "call": call.id, "check": check and plain(check)}
                for call, check in zip(calls, by_call, strict=True)
            ],
            "other_checks": [
                {**self._tool_facts(check.tool), "check": plain(check)} for check in others
            ],
        }


def _plain(check: ReportedCheck, *, has_values: bool) -> RunEvent:
    return asdict(check if has_values else replace(check, values={}))


def _trace_metadata(event: RunEvent) -> RunEvent:
    """Metadata for the executor's run in a tracer."""
    facts = {"session_id": event["session_id"]}
    if event["event"] in {"finished", "denied", "failed"}:
        facts["outcome"] = event["event"]
    facts |= {key: event[key] for key in ("tool", "rule", "reason") if event["event"] == "denied"}
    return {f"sequrity_{key}": value for key, value in facts.items()}


def note_call(call: ProgramCall, config: RunnableConfig) -> None:
    """Add the call to the metadata of the running node in the tracers.

    Args:
        call: The call that it answers.
        config: The config of the node.
    """
    manager = config.get("callbacks")
    if isinstance(manager, BaseCallbackManager):
        facts = {"sequrity_tool": call.tool, "sequrity_verdict": "allowed"}
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
