"""The calls in exported traces, as calls to try.

A trace has no labels. So the labels of arguments are assumed, as `PolicyMiddleware` does it without
a server: the model may have used each result that it had seen, so each argument has the labels of
all of them. A model has seen the results that its conversation had when it began. A call that no
model asked for may have used all results before it.

The runs of a trace may be in any order, so all of them are read before the first call is tried.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count
from typing import Any, Self

from langchain_sequrity.display import plain
from langchain_sequrity.display.progress import WorkProgress, number_of, progress
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import NO_LABELS, Labels
from langchain_sequrity.sqrt.audited_calls import AuditedTrial, AuditReader
from langchain_sequrity.sqrt.trace_formats import (
    RequestedCall,
    TracedRun,
    has_runs,
    may_have_runs,
    runs_in,
)
from langchain_sequrity.sqrt.trials import (
    MAX_DEPTH,
    AnyTrial,
    Trial,
    call_of_line,
    check_is_list_of_calls,
    is_blank,
    not_json,
)

_NOT_READABLE = "its arguments are not in the trace, or cannot be read"
_WAITS = "it did not run, and waits for an earlier call of its message, which changes the session"


@dataclass(frozen=True, slots=True)
class TracedTrial(Trial):
    """A call of a trace; made by `traced_calls`.

    An argument with `uses` or `labels` has these labels. Those of all others are assumed.

    Attributes:
        seen_until: The results that had come until then may be in the arguments: when the model
            began, in nanoseconds since 1970. Without a model it is when the call began.
        ended: When it ended; `None` if it did not run, because it was denied, for example.
        is_requested: Whether the run of a model asks for it.
        unknown_results: How many results the model had seen that are not in the trace.
        unjudged: Why the policy cannot judge the call, or an empty text.
    """

    seen_until: int = 0
    ended: int | None = None
    is_requested: bool = True
    unknown_results: int = 0
    unjudged: str = ""

    @property
    def assumed(self) -> tuple[str, ...]:
        """The arguments whose labels are assumed."""
        with_labels = {*self.uses, *self.labels}
        return tuple(name for name in self.arguments if name not in with_labels)

    def waiting(self) -> "TracedTrial":
        """The same call, which an earlier one of its message has stopped."""
        return replace(self, unjudged=_WAITS, expect="not_reached")

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is assumed and what is unknown, in words."""
        remarks: list[str] = []
        if self.assumed and self.is_requested:
            remarks.append(
                "arguments are assumed to have the labels of all results that the model had seen"
            )
        if self.assumed and not self.is_requested:
            remarks.append(
                "arguments are assumed to have the labels of all earlier results, because no run "
                "of a model asks for the call"
            )
        if self.ended is None:
            remarks.append("a model asked for the call, and it did not run")
        if self.unknown_results:
            remarks.append(
                "the model had seen results that are not in the trace, and whose labels are unknown"
            )
        return tuple(remarks)


@dataclass(frozen=True, slots=True)
class UnreadableRun:
    """A part of a trace that cannot be read.

    Attributes:
        number: Its number among the calls or lines.
        is_line: Whether it is a line.
        reason: Why.
    """

    number: int
    is_line: bool
    reason: str


class CallReader(AuditReader):
    """Reads a call to try, which may be one of an audit log or of a trace."""

    __slots__ = ()

    def read(self) -> Trial:
        """The call. Raises like `TrialReader`."""
        call = self._call
        if isinstance(call, UnreadableRun):
            self._number, self._word = call.number, "Line" if call.is_line else "Call"
            self.fail(f"it cannot be read as a part of a trace: {call.reason}", "Leave it out")
        if not isinstance(call, TracedTrial):
            return super().read()
        checked = self._checked(call)
        return replace(call, arguments=checked.arguments, labels=checked.labels, uses=checked.uses)


# From runs to calls


@dataclass(slots=True)
class _Trace:
    """The runs that were read so far.

    Attributes:
        runs: Those of tools and models, by trace and id.
        threads: The conversations of traces.
        unreadable: What could not be read.
    """

    runs: dict[tuple[str, str], TracedRun] = field(default_factory=dict)
    threads: dict[str, str] = field(default_factory=dict)
    unreadable: list[UnreadableRun] = field(default_factory=list)

    def take(self, number: int, call: AnyTrial) -> bool:
        """Read a part of a trace. Returns whether it is one."""
        is_line = isinstance(call, bytes)
        try:
            data: Any = call
            if isinstance(call, bytes):
                if not may_have_runs(call):
                    return False
                data = call_of_line(call)
            if not has_runs(data):
                return False
            for run in runs_in(data):
                self._add(run)
        except ValueError as error:
            self.unreadable.append(UnreadableRun(number, is_line, plain(str(error), limit=200)))
        return True

    def _add(self, run: TracedRun) -> None:
        if run.thread:
            self.threads.setdefault(run.trace, run.thread)
        if run.run_type:
            self.runs[run.trace, run.id] = run

    def trials(self) -> list[TracedTrial]:
        """The calls, in the order in which they were decided."""
        runs = sorted(self.runs.values(), key=lambda run: run.start)
        return _Matching(runs, _Conversations(runs, self.threads)).trials()


class _Conversations:
    """Which runs belong to one conversation.

    Traces of one thread do. So do traces without a thread if a model had the results of another
    one: a program that keeps its messages itself passes them on.
    """

    def __init__(self, runs: Sequence[TracedRun], threads: Mapping[str, str]) -> None:
        self._threads = threads
        self._continued: dict[str, str] = {}
        self._made_in: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        for run in runs:
            ids = {run.call_id, *(request.id for request in run.requests)} - {""}
            for call_id in ids:
                self._made_in[call_id].append((run.start, self._thread(run)))
        for run in runs:
            for call_id in run.answered:
                self._join(run, call_id)

    def _thread(self, run: TracedRun) -> str:
        return self._threads.get(run.trace, run.trace)

    def name(self, run: TracedRun) -> str:
        """The name of a run's conversation."""
        return self._first(self._thread(run))

    def unknown_results(self, run: TracedRun) -> int:
        """How many results a model had seen whose calls are nowhere."""
        return sum(call_id not in self._made_in for call_id in run.answered)

    def _first(self, thread: str) -> str:
        while (earlier := self._continued.get(thread)) is not None:
            thread = earlier
        return thread

    def _join(self, run: TracedRun, call_id: str) -> None:
        threads = [thread for start, thread in self._made_in.get(call_id, ()) if start <= run.start]
        conversation = self.name(run)
        if threads and conversation not in map(self._first, threads):
            self._continued[conversation] = self._first(threads[-1])


class _Matching:
    """Which run of a tool made which call that a model asked for."""

    def __init__(self, runs: Sequence[TracedRun], conversations: _Conversations) -> None:
        self._conversations = conversations
        self._models = [run for run in runs if run.run_type == "model"]
        self._tools = {(run.trace, run.id): run for run in runs if run.run_type == "tool"}
        self._waiting: defaultdict[tuple[str, ...], deque[TracedRun]] = defaultdict(deque)
        for run in self._tools.values():
            self._waiting[conversations.name(run), run.tool, run.call_id].append(run)

    def trials(self) -> list[TracedTrial]:
        requested = [
            self._requested(model, request, position)
            for model in self._models
            for position, request in enumerate(model.requests)
        ]
        others = [self._trial(run, run.arguments) for run in self._tools.values()]
        return sorted([*requested, *others], key=lambda trial: trial.seen_until)

    def _requested(self, model: TracedRun, request: RequestedCall, position: int) -> TracedTrial:
        session = self._conversations.name(model)
        unknown = self._conversations.unknown_results(model)
        run = self._take_run(session, model, request)
        if run is not None:
            arguments = run.arguments if request.arguments is None else request.arguments
            trial = self._trial(run, arguments)
            return replace(
                trial, seen_until=model.start, is_requested=True, unknown_results=unknown
            )
        return _judged(
            TracedTrial(
                request.tool, id=f"{model.id}/{position + 1}", session=session,
                seen_until=model.start, unknown_results=unknown,
            ),
            request.arguments,
        )  # fmt: skip

    def _take_run(self, session: str, model: TracedRun, request: RequestedCall) -> TracedRun | None:
        """The first run for a request that no other has; without ids, of the same arguments."""
        for call_id in dict.fromkeys((request.id, "")):
            runs = self._waiting.get((session, request.tool, call_id), deque())
            is_known = bool(call_id)
            for run in runs:
                if run.start >= model.start and (is_known or run.arguments == request.arguments):
                    runs.remove(run)
                    del self._tools[run.trace, run.id]
                    return run
        return None

    def _trial(self, run: TracedRun, arguments: dict[str, Any] | None) -> TracedTrial:
        trial = TracedTrial(
            run.tool, id=run.id, result=run.result, is_error=run.is_error,
            session=self._conversations.name(run), seen_until=run.start, ended=run.end,
            is_requested=False,
        )  # fmt: skip
        return _judged(trial, arguments)


def _judged(trial: TracedTrial, arguments: dict[str, Any] | None) -> TracedTrial:
    """The call with its arguments. Without them, the policy cannot judge it."""
    if arguments is None or not_json(arguments, MAX_DEPTH):
        return replace(trial, unjudged=_NOT_READABLE, expect="not_reached")
    return replace(trial, arguments=arguments)


def calls_progress(
    title: str, calls: Iterable[Any], *, waits: bool = False
) -> AbstractContextManager[WorkProgress]:
    """The progress of work on calls; the arguments are those of `display.progress.progress`."""
    return progress(title, total=number_of(calls), unit="calls", waits=waits)


def with_traced_calls(
    calls: Iterable[AnyTrial], reading: WorkProgress
) -> Iterator[tuple[int, Any]]:
    """The calls with their numbers; runs of traces among them become calls at the end.

    Args:
        calls: The calls. Blank lines are left out.
        reading: Gets the number of calls or lines with runs, before their calls.
    """
    trace, last, parts = _Trace(), 0, 0
    for number, call in enumerate(calls, 1):
        if is_blank(call):
            continue
        if trace.take(number, call):
            parts += 1
            reading.update(parts, unit="parts of traces")
            continue
        last = number
        yield number, call
    if parts:
        yield from zip(count(last + 1), [*trace.unreadable, *trace.trials()], strict=False)


def traced_calls(runs: Iterable[Mapping[str, Any] | bytes]) -> list[TracedTrial]:
    """Read the calls in exported traces.

    `simulate`, `coverage` and `diff` do this themselves. Use it to say from which results an
    argument is made: `dataclasses.replace(call, uses={"to": [other.id]})`. An argument without
    `uses` and `labels` is assumed to have the labels of all results that the model had seen.

    Args:
        runs: Runs of LangSmith as plain data; batches of OTLP, or spans of OpenTelemetry, as plain
            data, with the attributes of OpenInference or of the conventions for GenAI; or lines of
            JSON with these, as bytes. A binary file of such lines is accepted too.

    Returns:
        The calls, in the order in which they were decided. Each conversation is a session: a
        thread, or a trace without a thread. The `id` of a call is that of its run.

    Raises:
        UsageError: If an item is not a part of a trace.

    Example:
        ```python
        from langchain_sequrity.sqrt import simulate, traced_calls

        run = {
            "run_type": "tool",
            "name": "pay",
            "id": "a",
            "trace_id": "t",
            "inputs": {"input": "{'euros': 500}"},
            "outputs": {"output": "paid"},
            "start_time": "2027-01-01T10:00:00",
            "end_time": "2027-01-01T10:00:01",
        }
        (call,) = traced_calls([run])
        assert call.arguments == {"euros": 500}
        (decision,) = simulate('tool "pay" { must deny when euros.value in {int 100..}; }', [run])
        assert decision.denied
        ```
    """
    check_is_list_of_calls(runs)
    calls: list[TracedTrial] = []
    with calls_progress("Reading traces", runs) as reading:
        for number, item in with_traced_calls(runs, reading):
            call = CallReader(number, item).read()
            if not isinstance(call, TracedTrial):
                msg = (
                    f"Call {number} is not a part of a trace. Pass runs of LangSmith, or spans of "
                    "OpenTelemetry."
                )
                raise UsageError(msg)
            calls.append(call)
    return calls


def observed_tools(
    calls: Iterable[AnyTrial],
    *,
    on_invalid: Callable[[str], None] | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Definitions of the tools that some calls name, with the arguments that they have.

    Args:
        calls: The calls, as for `simulate`.
        on_invalid: Gets the reason why a call is invalid, which is then left out.

    Returns:
        The definitions, and the number of calls.

    Raises:
        UsageError: If a call is invalid and there is no `on_invalid`.
    """
    check_is_list_of_calls(calls)
    tools: dict[str, dict[str, None]] = {}
    read = 0
    with calls_progress("Reading calls", calls) as reading:
        for number, call in with_traced_calls(calls, reading):
            read += 1
            reading.update(read)
            try:
                trial = CallReader(number, call).read()
            except UsageError as error:
                if on_invalid is None:
                    raise
                on_invalid(str(error))
                continue
            declared = trial.declared if isinstance(trial, AuditedTrial) else ()
            tools.setdefault(trial.tool, {}).update(dict.fromkeys((*trial.arguments, *declared)))
    return [_definition(tool, names) for tool, names in tools.items()], read


def _definition(tool: str, arguments: Iterable[str]) -> dict[str, Any]:
    properties = {name: dict[str, Any]() for name in arguments}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"name": tool, "parameters": schema}


# Labels in a conversation


@dataclass(slots=True)
class Conversation:
    """A session of traced calls, under each policy.

    Attributes:
        seen: The labels of the results that the model has seen.
        closed_by: The last message of which a call changes the session when it ends, by the time
            when its model began. As in the middleware, later calls of this message wait.
    """

    seen: list[Labels]
    closed_by: list[int]
    _unseen: list[tuple[int, int, tuple[Labels | None, ...]]] = field(default_factory=list)

    @classmethod
    def of_policies(cls, number: int) -> Self:
        """An empty one."""
        return cls([NO_LABELS] * number, [-1] * number)

    def see(self, until: int) -> None:
        """The model has seen all results that had come by a time. Times must not go back."""
        while self._unseen and self._unseen[0][0] <= until:
            _, _, labels = heappop(self._unseen)
            pairs = zip(self.seen, labels, strict=True)
            self.seen = [seen.join(result or NO_LABELS) for seen, result in pairs]

    def add_result(self, number: int, ended: int, labels: tuple[Labels | None, ...]) -> None:
        """Add the labels of a result. A policy that denies the call has none for it."""
        heappush(self._unseen, (ended, number, labels))
