"""Calls tried on policies one by one, in sessions, in this process or in several.

What is held does not grow with the number of calls, so they may come from an iterator without end:

- of each session that has other labels than in the beginning, its labels;
- of each call with an id, the id and the labels of its result, for later calls of its session;
- what a tally holds.

Processes share the sessions. Calls of one session are tried by one process, in order, unless they
cannot influence each other. So the decisions, their order and their sums do not depend on the
number of processes.
"""

import json
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from heapq import merge
from multiprocessing import get_context
from operator import itemgetter
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeVar, cast
from zlib import crc32

import orjson

from langchain_sequrity.display.progress import WorkProgress
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import KINDS, NO_LABELS, Labels
from langchain_sequrity.sqrt.audited_calls import AuditedTrial
from langchain_sequrity.sqrt.coerce import AnyTool, ToolArguments
from langchain_sequrity.sqrt.context import AllBut, Argument, Call, equally_labelled
from langchain_sequrity.sqrt.decisions import Decision
from langchain_sequrity.sqrt.engine import Engine
from langchain_sequrity.sqrt.gate import Gate, ToolReturn
from langchain_sequrity.sqrt.traces import (
    CallReader,
    Conversation,
    TracedTrial,
    calls_progress,
    with_traced_calls,
)
from langchain_sequrity.sqrt.trials import (
    AnyTrial,
    Expectation,
    NameCheck,
    Trial,
    TrialReader,
    check_is_list_of_calls,
    known_tools,
    picklable_tools,
    quoted,
    state_of,
    type_of,
)
from langchain_sequrity.suggestions import suggest

Numbered = tuple[int, AnyTrial]
_BLOCK_CALLS = 1_000
_BLOCK_BYTES = 1_000_000
_BLOCKS_AHEAD = 4  # so that no process waits for the slowest
_MOST_SHARED = 10_000


class Tally(Protocol):
    """A sum over decisions. Other processes get it empty and return it."""

    def add(self, decisions: Sequence[Decision], /) -> None:
        """Add the decisions on a call, of each policy."""

    def merge(self, other: Any, /) -> None:
        """Add the sum of another process."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a process needs to try calls.

    Attributes:
        engines: The policies. Each has sessions of its own.
        arguments: The arguments of all tools; `None` if the tools are not known.
        named_in: The policies that show which tools there are, if they are not known.
        session: The labels of each session in the beginning.
        tallies: The sums.
        writes_results: Whether decisions are written as lines of JSON.
    """

    engines: tuple[Engine, ...]
    arguments: Mapping[str, ToolArguments] | None
    named_in: tuple[Engine, ...]
    session: Labels
    tallies: tuple[Tally, ...]
    writes_results: bool


class Outcome(NamedTuple):
    """What is to be written or told about a call.

    Attributes:
        number: The call's number.
        line: A line of JSON, or nothing.
        fault: Why the call is invalid, or an empty text.
    """

    number: int
    line: bytes
    fault: str = ""


def run_trials(
    calls: Iterable[AnyTrial],
    engines: Sequence[Engine],
    tallies: Sequence[Tally],
    *,
    session: Labels = NO_LABELS,
    tools: Iterable[AnyTool] | None = None,
    named_in: Sequence[Engine] | None = None,
    jobs: int = 1,
    results: BinaryIO | None = None,
    on_invalid: Callable[[str], None] | None = None,
    shows_progress: bool = True,
) -> int:
    """Try calls on policies.

    Args:
        calls: The calls; each is dropped when it has been tried.
        engines: The policies.
        tallies: They get the decisions of each call.
        session: The labels of each session in the beginning.
        tools: All tools, as for `simulate`.
        named_in: The policies in which a tool is spelt correctly, without `tools`; by default all.
        jobs: The number of processes that try calls; with 1, this one does.
        results: A file that gets the decision of the first policy on each call as a line of JSON.
        on_invalid: Gets the reason why a call is invalid, which is then left out.
        shows_progress: Whether a person waits for it here, and not at the other end of a request.

    Returns:
        The number of calls that were read, with invalid ones and without blank lines.

    Raises:
        UsageError: If an argument is invalid, or a call is and there is no `on_invalid`.
    """
    check_is_list_of_calls(calls)
    if not isinstance(session, Labels):
        msg = (
            f"Expected `Labels` as `session`, got {type_of(session)}. "
            'Write `Labels(tags=frozenset({"name"}))`.'
        )
        raise UsageError(msg)
    if not isinstance(jobs, int) or jobs < 1:
        msg = f"`jobs` must be a number of processes from 1; got {jobs!r}."
        raise UsageError(msg)
    settings = RunSettings(
        tuple(engines),
        known_tools(tools),
        tuple(engines if named_in is None else named_in),
        session,
        tuple(tallies),
        writes_results=results is not None,
    )
    try_all = _in_this_process if jobs == 1 else _in_processes
    count = 0
    calls_line = calls_progress("Trying calls", calls, waits=jobs > 1)
    with calls_line if shows_progress else nullcontext(WorkProgress()) as trying:
        for read, outcomes in try_all(with_traced_calls(calls, trying), settings, jobs):
            for outcome in outcomes:
                if results is not None:
                    results.write(outcome.line)
                if outcome.fault and on_invalid is None:
                    raise UsageError(outcome.fault)
                if outcome.fault and on_invalid is not None:
                    on_invalid(outcome.fault)
            count += read
            trying.update(count)
    return count


_Outcomes = Iterator[tuple[int, Iterable[Outcome]]]
"""Numbers of calls that were read, with their outcomes in order."""


def _in_this_process(calls: Iterable[Numbered], settings: RunSettings, _: int) -> _Outcomes:
    sessions = Sessions(settings)
    for numbered in calls:
        yield 1, sessions.try_calls((numbered,))


# Several processes


def _in_processes(calls: Iterable[Numbered], settings: RunSettings, jobs: int) -> _Outcomes:
    if settings.arguments is not None:
        settings = replace(settings, arguments=picklable_tools(settings.arguments))
    shares_labels = any(engine.uses_session for engine in settings.engines)
    with ExitStack() as stack:
        # Each is a pool of one process, which has the state of its sessions.
        pools = [
            stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"), _begin, (settings,)))
            for _ in range(jobs)
        ]
        ahead: deque[tuple[int, list[Future[list[Outcome]]]]] = deque()
        for block in _blocks(calls):
            parts = _parts(block, jobs, shares_labels=shares_labels)
            futures = [
                pool.submit(_try_block, part)
                for pool, part in zip(pools, parts, strict=True)
                if part
            ]
            ahead.append((len(block), futures))
            if len(ahead) > _BLOCKS_AHEAD:
                yield _joined(*ahead.popleft())
        while ahead:
            yield _joined(*ahead.popleft())
        # A process without calls starts only now, and has to get the tallies while they are empty.
        for sums in [pool.submit(_sums) for pool in pools]:
            for tally, other in zip(settings.tallies, sums.result(), strict=True):
                tally.merge(other)


def _joined(read: int, futures: Iterable[Future[list[Outcome]]]) -> tuple[int, Iterable[Outcome]]:
    return read, merge(*(future.result() for future in futures), key=itemgetter(0))


def _blocks(calls: Iterable[Numbered]) -> Iterator[list[Numbered]]:
    block: list[Numbered] = []
    size = 0
    for number, call in calls:
        block.append((number, call))
        size += len(call) if isinstance(call, bytes) else 0
        if len(block) >= _BLOCK_CALLS or size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _parts(
    block: Iterable[Numbered], jobs: int, *, shares_labels: bool
) -> Sequence[Sequence[Numbered]]:
    """The calls for each process; those that may influence each other are for the same one."""
    parts: list[list[Numbered]] = [[] for _ in range(jobs)]
    for number, call in block:
        session, has_results = state_of(call)
        if shares_labels or has_results:
            index = crc32(session.encode(errors="surrogatepass"))
        else:
            index = number
        parts[index % jobs].append((number, call))
    return parts


_of_this_process: "list[Sessions]" = []


def _begin(settings: RunSettings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the main process, and it this one
    _of_this_process.append(Sessions(settings))


def _try_block(block: Sequence[Numbered]) -> list[Outcome]:
    return _of_this_process[0].try_calls(block)


def _sums() -> tuple[Tally, ...]:
    return _of_this_process[0].settings.tallies


# Sessions


class _Result(NamedTuple):
    """The result of a call with an id.

    Attributes:
        number: The call's number.
        labels: The labels of the result under each policy; `None` without a result.
    """

    number: int
    labels: tuple[Labels | None, ...]


_SomeLabels = TypeVar("_SomeLabels", bound=tuple[Labels | None, ...])
_Results = Mapping[str, _Result]
_NO_RESULTS: _Results = MappingProxyType({})


class Sessions:
    """The sessions in which calls are tried."""

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings
        self._gates = [Gate((engine,), settings.arguments or {}) for engine in settings.engines]
        self._names = NameCheck(settings.arguments, settings.named_in)
        self._first_labels = (settings.session,) * len(settings.engines)
        self._labels: dict[str, tuple[Labels, ...]] = {}  # of sessions with others than these
        self._results: dict[str, dict[str, _Result]] = {}
        self._conversations: dict[str, Conversation] = {}
        self._shared: dict[tuple[Labels | None, ...], tuple[Labels | None, ...]] = {}

    def try_calls(self, calls: Iterable[Numbered]) -> list[Outcome]:
        """Try calls and add them to the tallies."""
        outcomes: list[Outcome] = []
        writes = self.settings.writes_results
        for number, call in calls:
            try:
                decisions = self._decide(number, call)
            except UsageError as error:
                fault = str(error)
                line = _json_line({"number": number, "error": fault}) if writes else b""
                outcomes.append(Outcome(number, line, fault))
                continue
            for tally in self.settings.tallies:
                tally.add(decisions)
            if writes:
                outcomes.append(Outcome(number, _json_line(decisions[0].result_json())))
        return outcomes

    def _decide(self, number: int, call: AnyTrial) -> list[Decision]:
        reader = CallReader(number, call)
        trial = reader.read()
        if isinstance(trial, AuditedTrial):
            return [_audited_decision(gate, number, trial) for gate in self._gates]
        results = self._results.get(trial.session, _NO_RESULTS)
        _check_ids(reader, trial, results)
        if fault := self._names.fault(trial):
            reader.fail(*fault)
        before = self._labels.get(trial.session, self._first_labels)
        if isinstance(trial, TracedTrial):
            return self._decide_traced(number, trial, before)
        decisions = [
            _decision(gate, number, trial, _labelled_call(trial, results, index), session)
            for index, (gate, session) in enumerate(zip(self._gates, before, strict=True))
        ]
        self._remember(trial, decisions)
        return decisions

    def _decide_traced(
        self, number: int, trial: TracedTrial, before: Sequence[Labels]
    ) -> list[Decision]:
        results = self._results.get(trial.session, _NO_RESULTS)
        if trial.session not in self._conversations:
            self._conversations[trial.session] = Conversation.of_policies(len(self._gates))
        conversation = self._conversations[trial.session]
        conversation.see(trial.seen_until)
        decisions: list[Decision] = []
        for index, gate in enumerate(self._gates):
            session, seen = before[index], conversation.seen[index]
            labelled = _labelled_call(trial, results, index, seen)
            waits = trial.ended is None and conversation.closed_by[index] == trial.seen_until
            tried = trial.waiting() if waits else trial
            if tried.unjudged:
                decision = _unjudged_decision(gate, number, tried, labelled.call, (seen, session))
            else:
                decision = _decision(gate, number, tried, labelled, session)
            decisions.append(decision)
            ends_in_session = self.settings.engines[index].ends_in_session
            if decision.allowed and ends_in_session(trial.tool):
                conversation.closed_by[index] = trial.seen_until
        self._remember(trial, decisions)
        if trial.ended is not None:
            labels = tuple(decision.result_labels for decision in decisions)
            conversation.add_result(number, trial.ended, labels)
        return decisions

    def _remember(self, trial: Trial, decisions: Sequence[Decision]) -> None:
        if any(decision.session_after is not decision.session_before for decision in decisions):
            after = tuple(decision.session_after for decision in decisions)
            self._labels[trial.session] = self._once(after)
        if not trial.id:
            return
        number = decisions[0].number
        labels = self._once(tuple(decision.result_labels for decision in decisions))
        self._results.setdefault(trial.session, {})[trial.id] = _Result(number, labels)

    def _once(self, labels: _SomeLabels) -> _SomeLabels:
        """Equal labels, as one object for all sessions and results that have them."""
        if any(type(getattr(entry, name, None)) is AllBut for entry in labels for name in KINDS):
            return labels  # "all but X" is equal to the empty set, and means something else
        if len(self._shared) >= _MOST_SHARED:
            self._shared.clear()
        return cast("_SomeLabels", self._shared.setdefault(labels, labels))


def _check_ids(reader: TrialReader, trial: Trial, results: _Results) -> None:
    """Check that its id is unique, and that the results that it uses come before it."""
    if trial.id in results:
        reader.fail(
            f"call {results[trial.id].number} already has the id {quoted(trial.id)}",
            "Give each call its own id, or no id",
        )
    for name, ids in trial.uses.items():
        for call_id in ids:
            if call_id not in results:
                reader.fail(
                    f"`uses` of {quoted(name)} names {quoted(call_id)}, but no earlier call "
                    "has this id",
                    suggest(call_id, results) or "Give this id to an earlier call",
                )


def _decision(
    gate: Gate, number: int, trial: Trial, labelled: "_LabelledCall", session: Labels
) -> Decision:
    call, waits_for = labelled
    if waits_for:
        return Decision(number, trial, call, None, session, session, waits_for=waits_for)
    begun = gate.begin(call, session)
    verdict = gate.verdict(begun)
    if isinstance(trial, TracedTrial) and trial.ended is None:  # so no verdict is expected
        trial = replace(trial, expect=cast("Expectation", verdict.final_verdict))
        return Decision(number, trial, call, verdict, session, begun.session)
    if not verdict.allowed:
        return Decision(number, trial, call, verdict, session, begun.session)
    labels, after = gate.result_labels(call, _returned(trial), begun.session)
    return Decision(number, trial, call, verdict, session, after, labels)


def _unjudged_decision(
    gate: Gate, number: int, trial: TracedTrial, call: Call, labels: tuple[Labels, Labels]
) -> Decision:
    """What is known of a call that cannot be judged: the labels of its result, if it ran."""
    seen, session = labels
    if trial.ended is None:
        return Decision(number, trial, call, None, session, session)
    result_labels, after = gate.result_labels(call, _returned(trial), session, seen)
    return Decision(number, trial, call, None, session, after, result_labels)


def _returned(trial: Trial) -> ToolReturn:
    return ToolReturn(trial.result, trial.result_labels, trial.combine, trial.is_error)


class _LabelledCall(NamedTuple):
    """A call with the labels of its arguments.

    Attributes:
        call: The call.
        waits_for: Ids of calls without a result, whose results it uses.
    """

    call: Call
    waits_for: tuple[str, ...]


def _labelled_call(
    trial: Trial, results: _Results, policy: int, seen: Labels = NO_LABELS
) -> _LabelledCall:
    arguments = equally_labelled(trial.arguments, seen)
    missing: dict[str, None] = {}
    for name, value in trial.arguments.items():
        if name not in trial.labels and name not in trial.uses:
            continue
        labels = trial.labels.get(name, NO_LABELS)
        for call_id in trial.uses.get(name, ()):
            result_labels = results[call_id].labels[policy]
            if result_labels is None:
                missing[call_id] = None
            else:
                labels = labels.join(result_labels)
        arguments[name] = Argument(value, labels)
    return _LabelledCall(Call(trial.tool, arguments), tuple(missing))


def _audited_decision(gate: Gate, number: int, trial: AuditedTrial) -> Decision:
    call, session = trial.call(), trial.session_labels
    unjudged = trial.unjudged
    if not unjudged:
        begun = gate.begin(call, session)
        verdict = gate.verdict(begun)
        # A doubt may come from a value that is not in the log.
        if verdict.certain or not trial.hidden:
            return Decision(number, trial, call, verdict, session, begun.session)
        unjudged = "its verdict may depend on a value that was cut or hashed"
    trial = replace(trial, unjudged=unjudged, expect="not_reached")
    return Decision(number, trial, call, None, session, session, waits_for=trial.hidden)


def _json_line(result: Mapping[str, Any]) -> bytes:
    """A line of JSON in ASCII, which contains no control characters."""
    try:
        line = orjson.dumps(result)
    except TypeError:  # lone surrogates
        line = b"\xff"
    if not line.isascii():
        line = json.dumps(result).encode()
    return line.replace(b"\x7f", b"\\u007f") + b"\n"
