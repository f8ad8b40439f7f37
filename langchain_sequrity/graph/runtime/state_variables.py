"""The variables in which a run begins: the state of the graph, and the start point.

A run begins with an input, or with a state that the service did not make: one that somebody
edited, or that an older run or the plain graph has left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.channels.base import BaseChannel
from langgraph.graph import START

from langchain_sequrity import _compat
from langchain_sequrity.graph.journal import DeniedCall, ProgramRun
from langchain_sequrity.graph.limits import PACKETS_PER_PROGRAM, STEPS_PER_PROGRAM
from langchain_sequrity.graph.program import BeginsAt
from langchain_sequrity.graph.runtime.parts import ExecutorParts
from langchain_sequrity.labels import Labels, WireLabels
from langchain_sequrity.strict_json import dumps, loads

FieldLabels = Mapping[str, WireLabels]

Channels = Mapping[str, BaseChannel[Any, Any, Any]]

NO_LABELS = Labels().to_wire()

_UNLIMITED = 10**9


@dataclass(slots=True)
class ProgramLimits:
    """How much a program takes before the next one begins.

    Attributes:
        steps: Its highest number of steps.
        packets: Its highest number of packets.
    """

    steps: int = STEPS_PER_PROGRAM
    packets: int = PACKETS_PER_PROGRAM

    def portion(self, first: int, packets: int) -> Sequence[int]:
        """The packets that the next program takes, if it cannot take all packets of a step.

        Args:
            first: Index of the first packet that no program has taken.
            packets: Number of packets of the step.
        """
        if first == 0 and packets <= self.packets:
            return ()
        return [first, min(first + self.packets, packets)]


class StateVariables:
    """Makes the variables in which runs begin.

    Args:
        parts: The parts that all runs of the executor share.
    """

    def __init__(self, parts: ExecutorParts) -> None:
        self._parts = parts
        self._program = parts.program

    def in_new_session(self, run: ProgramRun, approved: list[DeniedCall]) -> ProgramRun:
        """The run as it begins again in a new session; its program takes results of approved calls.

        Args:
            run: The run. Its variables have no results of approved calls, or those of `approved`.
            approved: Calls that were approved and made.
        """
        program, variables = None, self._complete(loads(run.variables), run.begins_at)
        if approved:
            base = self._program.that_begins_at(run.begins_at).text
            program, results = self._parts.denials.program_after(approved, base)
            variables |= results
        return replace(
            run,
            session=None,
            program=program,
            stored_variables=dumps(variables),
            approvals=len(approved),
            location=self._parts.exchange.location,
        )

    def variables(self, channels: Channels, labels: FieldLabels) -> dict[str, Any]:
        """The context variables of the fields: name → `{value, meta}`."""
        fields = {name: channels[name] for name in self._parts.spec.channels}
        values = self._parts.tools.initial(fields)
        return {
            variable: {"value": values[variable], "meta": labels.get(name, NO_LABELS)}
            for name, variable in self._program.fields.variables.items()
        }

    def messages(self, channels: Channels) -> list[BaseMessage]:
        """The messages in the fields of a state: they show whether it has earlier turns."""
        available = (channels[name] for name in self._parts.spec.channels)
        values = [channel.get() for channel in available if channel.is_available()]
        lists = [value for value in values if isinstance(value, list)]
        return max(
            ([item for item in items if isinstance(item, BaseMessage)] for items in lists),
            key=len,
            default=[],
        )

    def entry(
        self,
        loop: _compat.PregelLoop,
        packet_labels: Labels,
        portion: Sequence[int],
        limits: ProgramLimits,
        *,
        is_routing: bool,
    ) -> dict[str, Any]:
        """The variables with the start point of a run, and where it stops.

        Args:
            loop: LangGraph's loop; its due tasks are the start point.
            packet_labels: The labels of the packets among them.
            portion: See `ProgramRun`.
            limits: The limits of the program.
            is_routing: Whether the routers of START decide it.
        """
        parts, entry = self._parts, self._program.entry
        tasks = [task for task in loop.tasks.values() if task.name in parts.spec.nodes]
        sent = [task for task in tasks if _compat.is_packet(task)]
        pulled = [task.name for task in tasks if not _compat.is_packet(task)]
        waiting = _compat.waiting_nodes(loop.channels, parts.spec.nodes)
        names = dict.fromkeys((*pulled, *waiting))
        if portion:
            first, end = portion
            sent, names = sent[first:end], {} if first else names
        packets = [parts.tools.pack(task.name, task.input) for task in sent]
        tokens = [self._program.tokens[name] for name in names]
        came = {
            flag: _compat.join_source_has_finished(loop.channels, sources, target, source)
            for ((sources, target), source), flag in self._program.flags.items()
        }
        came |= {flag: True for name, flag in self._program.ready.items() if name in pulled}
        if is_routing:
            [start] = [task for task in loop.tasks.values() if task.name == START]
            tokens += [*self.first_tokens(), *_compat.started_nodes(start, self._program.tokens)]
        values = {
            entry.begins: is_routing,
            entry.start_at: list(dict.fromkeys(tokens)),
            entry.packets: packets,
            entry.came: came,
            entry.stop_after: 1 if portion else limits.steps,
            entry.most_packets: limits.packets,
        }
        variables = {name: {"value": value, "meta": NO_LABELS} for name, value in values.items()}
        if packets:  # they were made from some fields, and it is unknown from which
            variables[entry.packets]["meta"] = packet_labels.to_wire()
        return variables

    def is_usual(self, entry: Mapping[str, Any]) -> bool:
        """Whether a run begins at the targets of START's edges."""
        names = self._program.entry
        is_there = set(entry[names.start_at]["value"]) == set(self.first_tokens())
        return is_there and not entry[names.packets]["value"]

    def begins_at(self, entry: Mapping[str, Any]) -> BeginsAt:
        """The program that a run from a state needs."""
        program = self._program
        receivers = {program.tokens[node] for node in program.receivers}
        sent = {packet["node"] for packet in entry[program.entry.packets]["value"]}
        return "state" if sent <= receivers else "packets"

    def first_tokens(self) -> list[str]:
        """The tokens of the targets of START's edges."""
        spec, tokens = self._parts.spec, self._program.tokens
        return [tokens[to] for source, to in spec.edges if source == START and to in tokens]

    def up_to_step(self, run: ProgramRun, done: int) -> dict[str, Any]:
        """The variables of a run, for a program that stops after a step."""
        # An older graph may have had fewer fields, and a structured program has no start point.
        variables = {**self.variables(self._parts.spec.channels, {}), **loads(run.variables)}
        variables = self._complete(variables, "state")
        variables[self._program.entry.stop_after] = {"value": done, "meta": NO_LABELS}
        return variables

    def _complete(self, variables: dict[str, Any], begins_at: BeginsAt) -> dict[str, Any]:
        """The variables with a start point, and those that a run of an earlier version lacks.

        Args:
            variables: The variables of a run.
            begins_at: The start point of the program that gets them.
        """
        if self._program.kind == "structured" and begins_at == "start":
            return variables
        entry = self._program.entry
        defaults = {
            entry.begins: True,
            entry.start_at: self.first_tokens(),
            entry.packets: [],
            entry.came: {},
            entry.stop_after: _UNLIMITED,
            entry.most_packets: _UNLIMITED,
        }
        unlabelled = {name: {"value": value, "meta": NO_LABELS} for name, value in defaults.items()}
        return unlabelled | variables

    def labels_of(self, run: ProgramRun) -> tuple[dict[str, WireLabels], Labels]:
        """The labels of the fields and of the packets with which a run began."""
        metas = {name: variable["meta"] for name, variable in loads(run.variables).items()}
        fields = self._program.fields.variables.items()
        labels = {name: metas[variable] for name, variable in fields if variable in metas}
        return labels, Labels.from_wire(metas.get(self._program.entry.packets, NO_LABELS))
