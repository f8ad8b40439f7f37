"""The variables in which a run begins: the state of the graph, and the start point.

A run begins with an input, or with a state that the service did not make: one that somebody
edited, or that an older run or the plain graph has left.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.channels.base import BaseChannel
from langgraph.graph import START

from langchain_sequrity import _compat
from langchain_sequrity.graph.journal import DeniedCall, ProgramRun
from langchain_sequrity.graph.limits import STEPS_PER_PROGRAM
from langchain_sequrity.graph.program import BeginsAt
from langchain_sequrity.graph.runtime.parts import ExecutorParts
from langchain_sequrity.labels import Labels, WireLabels
from langchain_sequrity.strict_json import dumps, loads

FieldLabels = Mapping[str, WireLabels]

Channels = Mapping[str, BaseChannel[Any, Any, Any]]

NO_LABELS = Labels().to_wire()


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
        program, variables = None, run.variables
        if approved:
            base = self._program.that_begins_at(run.begins_at).text
            program, results = self._parts.denials.program_after(approved, base)
            variables = dumps({**loads(variables), **results})
        return replace(
            run,
            session=None,
            program=program,
            stored_variables=variables,
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
        self, loop: _compat.PregelLoop, packet_labels: Labels, *, is_routing: bool
    ) -> dict[str, Any]:
        """The variables with the start point of a run.

        Args:
            loop: LangGraph's loop; its due tasks are the start point.
            packet_labels: The labels of the packets among them.
            is_routing: Whether the routers of START decide it.
        """
        parts, entry = self._parts, self._program.entry
        tasks = [task for task in loop.tasks.values() if task.name in parts.spec.nodes]
        sent = [task for task in tasks if _compat.is_packet(task)]
        packets = [parts.tools.pack(task.name, task.input) for task in sent]
        waiting = _compat.waiting_nodes(loop.channels, parts.spec.nodes)
        pulled = [task.name for task in tasks if task not in sent]
        names = dict.fromkeys((*pulled, *waiting))
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
            entry.stop_after: STEPS_PER_PROGRAM,
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
        entry = self._program.entry
        for name, value in (
            (entry.begins, True),
            (entry.start_at, self.first_tokens()),
            (entry.packets, []),
            (entry.came, {}),
        ):
            variables.setdefault(name, {"value": value, "meta": NO_LABELS})
        variables[entry.stop_after] = {"value": done, "meta": NO_LABELS}
        return variables
