"""The labels of the state's fields.

The service reports them when a run ends. A run that has not ended is replayed to get them.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from typing import Any

from langchain_sequrity import _compat
from langchain_sequrity.errors import BadReply, PolicyDenied
from langchain_sequrity.graph.journal import (
    APPROVED,
    CallResult,
    Journal,
    JournalRecord,
    ProgramRun,
    ReplayMismatch,
    read_journal,
)
from langchain_sequrity.graph.program import SEND
from langchain_sequrity.graph.runtime.parts import ExecutorParts
from langchain_sequrity.graph.runtime.replay import replay
from langchain_sequrity.graph.runtime.requests import RunFinished, ServiceAnswer
from langchain_sequrity.graph.runtime.state_variables import FieldLabels, StateVariables
from langchain_sequrity.graph.runtime.stored_run import newest_of_run, version_number
from langchain_sequrity.labels import BadLabels, Labels, WireLabels
from langchain_sequrity.strict_json import dumps, loads
from langchain_sequrity.wire.dual_llm import DualLLMResult
from langchain_sequrity.wire.exchange import ServiceCall


class StateLabels:
    """Knows the labels of the state's fields, with which runs begin.

    Args:
        parts: The parts that all runs of the executor share.
        variables: Makes the variables of runs.

    Attributes:
        packet_labels: The labels of packets: those of any field may be in them.
        sent_labels: The labels of the packets that the last program has sent and not taken.
    """

    def __init__(self, parts: ExecutorParts, variables: StateVariables) -> None:
        self._parts, self._variables = parts, variables
        self._program = parts.program
        self.packet_labels = self.sent_labels = Labels()
        self._unsent_labels: dict[str, WireLabels] = {}

    def after(
        self, run: ProgramRun, records: Sequence[JournalRecord]
    ) -> Generator[tuple[ServiceCall, str | None], ServiceAnswer, dict[str, WireLabels]]:
        """The labels of the fields after the last finished step of a run.

        Only the session knows them, and reports them at the end of its program. So the program runs
        again in a new session, up to that step, and the journal answers its calls. Policies check
        each call again, and no node runs.

        Args:
            run: The run.
            records: Its journal.

        Raises:
            PolicyDenied: If a policy now denies a recorded call.
        """
        parts = self._parts
        journal = read_journal(records, run.session)
        done = max((batch.step for batch in journal.batches), default=0)
        query = replace(
            run,
            stored_variables=dumps(self._variables.up_to_step(run, done)),
            is_labelled=True,
            begins_at="state" if run.begins_at == "start" else run.begins_at,
        )
        query = self._variables.in_new_session(query, journal.approved)
        answer: ServiceAnswer | PolicyDenied | None = None
        with suppress(ReplayMismatch):  # the run of another graph, whose program is unknown
            answer = (yield from replay(parts.exchange, query, journal, [done])).answer
        if isinstance(answer, PolicyDenied):
            raise answer
        if not isinstance(answer, RunFinished):  # or LangGraph counts an unfinished step
            self._unsent_labels = self.all_labels(records, run)
            return self._unsent_labels
        labels = self.reported(answer.result, run.earlier_labels if done else None)
        if journal.refused is not None:  # it quotes arguments
            labels[parts.denials.field] = _join_all(labels.values()).to_wire()
        self._unsent_labels = self._labels_of_unsent(journal, records, run, labels)
        return self.with_other_sessions(records, run.session, labels)

    def with_other_sessions(
        self, records: Iterable[JournalRecord], session: str | None, labels: FieldLabels
    ) -> dict[str, WireLabels]:
        """The labels, with those of results from other sessions.

        The labels of the arguments of their calls are unknown. So all fields get all labels.
        """
        results = [result for result in _results_in(records) if result.session != session]
        if not results:
            return dict(labels)
        self._unsent_labels = self._all_labels(results, labels.values())
        return self._unsent_labels

    def all_labels(
        self, records: Iterable[JournalRecord], run: ProgramRun
    ) -> dict[str, WireLabels]:
        """All labels of a run, for each field; used if the labels per field are unknown."""
        metas = (variable["meta"] for variable in loads(run.variables).values())
        return self._all_labels(_results_in(records), metas)

    def _all_labels(
        self, results: Iterable[CallResult], of_variables: Iterable[WireLabels]
    ) -> dict[str, WireLabels]:
        joined = _join_all(of_variables).join(self.packet_labels)
        for result in results:
            labels = joined.join(result.labels)
            value = loads(result.value)
            joined = self._parts.denials.labels_after(result.tool, value, labels)
        self.packet_labels = joined
        return {name: joined.to_wire() for name in self._parts.spec.channels}

    def _labels_of_unsent(
        self,
        journal: Journal,
        records: Iterable[JournalRecord],
        run: ProgramRun,
        labels: FieldLabels,
    ) -> dict[str, WireLabels]:
        """The labels of the writes in a step that was edited before it was finished.

        The service does not have these results. So they get all labels of the run, of the nodes,
        and those that the policy adds to results.

        Raises:
            UsageError: If the policy's labels are unknown.
        """
        calls = {call.id for batch in journal.batches for call in batch.calls}
        handles = journal.calls_by_handle
        unsent = [
            result
            for result in _results_in(records)
            if result.session == run.session
            and (result.handle not in handles if result.handle else result.id not in calls)
            and not result.id.startswith(APPROVED)
        ]
        if not unsent:
            return {}
        joined = self._all_labels(unsent, labels.values())
        written = {name for result in unsent for name in self._program.tools[result.tool].writes}
        return {name: meta for name, meta in joined.items() if name in written}

    def reported(
        self, result: DualLLMResult, earlier: FieldLabels | None = None
    ) -> dict[str, WireLabels]:
        """The labels of the fields, as a run reports them at its end.

        If the service does not report variables, each field has the labels of the whole value.

        Args:
            result: The end of the run.
            earlier: See `ProgramRun.earlier_labels`.
        """
        whole = (result.labels or Labels()).to_wire()
        snapshot = result.namespace_snapshot or {}
        labels = {
            name: _meta_of(snapshot[variable], name) if variable in snapshot else whole
            for name, variable in self._program.fields.state.items()
        }
        packets = snapshot.get(self._program.packets)
        sent = whole if packets is None else _meta_of(packets, self._program.packets)
        if earlier is not None:
            sent = _join_all([sent, earlier[SEND]]).to_wire()
            labels = {name: _join_all([labels[name], earlier[name]]).to_wire() for name in labels}
        self.sent_labels = Labels.from_wire(sent)
        self.packet_labels = _join_all([*labels.values(), sent])
        return labels

    def after_portion(self, result: DualLLMResult, run: ProgramRun) -> dict[str, WireLabels]:
        """The labels after a portion of a step; see `ProgramRun.earlier_labels`."""
        labels = self.reported(result, run.earlier_labels)
        return {**labels, SEND: self.sent_labels.to_wire()}

    def labels_after_edits(
        self, loop: _compat.PregelLoop, labels: FieldLabels, since: Any = None
    ) -> dict[str, WireLabels]:
        """The labels after edits from outside. By default a new value has no labels."""
        versions: Mapping[str, Any] = loop.checkpoint["channel_versions"]
        of_run = newest_of_run(versions, since)
        self.packet_labels = self.packet_labels.join(
            _join_all(labels.values())
        )  # packets may hold them
        if of_run is not None and not self._parts.keeps_labels:
            newer = (name for name, version in versions.items() if version_number(version) > of_run)
            labels = self.without_replaced(labels, newer)
        return {**labels, **self._unsent_labels}

    def without_replaced(
        self, labels: FieldLabels, replaced: Iterable[str]
    ) -> dict[str, WireLabels]:
        """The labels without those of replaced fields. A field that only adds keeps its labels."""
        plans, replaced = self._program.fields.plans, frozenset(replaced)
        return {
            name: meta
            for name, meta in labels.items()
            if not (name in replaced and name in plans and plans[name].kind == "last")
        }

    # Variables


def _results_in(records: Iterable[JournalRecord]) -> Iterator[CallResult]:
    return (record for record in records if isinstance(record, CallResult))


def _join_all(labels: Iterable[WireLabels]) -> Labels:
    return reduce(Labels.join, map(Labels.from_wire, labels), Labels())


def _meta_of(variable: Any, name: str) -> WireLabels:
    """The labels of a variable in the service's report; the next run begins with them."""
    meta = variable.get("meta") if isinstance(variable, Mapping) else None
    try:
        return Labels.from_wire(meta, unknown="ignore").to_wire()
    except BadLabels:
        msg = f"The service reports the field `{name}` without valid labels."
        raise BadReply(msg) from None
