"""What a thread keeps from one run to the next: labels of the fields, and half-full joins.

A run that ended in success leaves its state, with the labels that the service reports. What the
nodes of an unfinished run wrote (it was denied, failed, or waits for an answer) has labels that
only its session knows. When such a thread gets new input, these writes are taken back: the run
begins with the state before the unfinished one, its input and the new input.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langgraph.channels.base import BaseChannel

from langchain_sequrity.errors import BadReply
from langchain_sequrity.graph import _langgraph
from langchain_sequrity.graph.calling.tools import ClientTools
from langchain_sequrity.graph.carrying.channels import with_content
from langchain_sequrity.graph.keeping.mirror import Settled, content_of, settled
from langchain_sequrity.graph.program import CAME, Program
from langchain_sequrity.graph.reading.spec import GraphSpec
from langchain_sequrity.labels import Labels
from langchain_sequrity.wire.dual_llm import DualLLMResult
from langchain_sequrity.wire.json_text import dumps, loads

Channels = dict[str, BaseChannel[Any, Any, Any]]
Variables = dict[str, dict[str, Any]]
Meta = dict[str, list[str]]

_NO_LABELS = Labels().to_wire()
_KEPT = "kept"
_KINDS = ("producers", "consumers", "tags")


def is_unfinished(run: Mapping[str, Any] | None) -> bool:
    """Whether what the shell's channel says of a run is not of one that ended in success."""
    return run is not None and _KEPT not in run


@dataclass(frozen=True, slots=True)
class Start:
    """With what a run begins.

    Attributes:
        variables: Context variables of the state: name → `{value, meta}`.
        taken_back: The state as it is without the writes of an unfinished run; empty if there were
            none.
    """

    variables: Variables
    taken_back: dict[str, Settled]


@dataclass(frozen=True, slots=True)
class Ending:
    """With what a run ends in success.

    Attributes:
        kept: What the thread keeps.
        final: The whole final state.
        told: The state that LangGraph tells of last, where a step that wrote nothing has cleared
            fields since; `None` where it is the final one.
    """

    kept: dict[str, Any]
    final: dict[str, Settled]
    told: dict[str, Settled] | None


class Threads:
    """Carries what a thread keeps.

    Args:
        spec: The user's graph.
        program: The graph as a program.
        tools: The client side of its tools.
    """

    def __init__(self, spec: GraphSpec, program: Program, tools: ClientTools) -> None:
        self._channels = spec.channels
        returned = spec.schemas[spec.output_schema]
        self._returned = [field for field in returned if field in spec.channels]
        self._program = program
        self._tools = tools

    def start(
        self, state: Mapping[str, Any], last: Mapping[str, Any] | None, given: list[tuple[str, Any]]
    ) -> Start:
        """The beginning of a run.

        Args:
            state: What the shell shows, new input included.
            last: What the shell's channel says of the last run; `None` without one.
            given: The new input, as writes.
        """
        if last is not None and is_unfinished(last):
            return self._instead_of(loads(last["variables"]), given)
        kept = {} if last is None else last[_KEPT]
        came = kept.get("came", {})
        return Start(self._variables(self.taken(state), kept.get("labels", {}), came, given), {})

    def _instead_of(self, variables: Variables, given: list[tuple[str, Any]]) -> Start:
        """The beginning of a run on a thread whose last run is not finished."""
        empty = self._tools.initial({key: one.copy() for key, one in self._channels.items()})
        fields = {
            # The run may be that of an older graph, which had fewer fields.
            field: variables.get(name, {"value": empty[name], "meta": _NO_LABELS})
            for field, name in self._program.variables.items()
        }
        keys = self._program.keys
        channels = self._tools.final({keys[field]: one["value"] for field, one in fields.items()})
        for field, channel in channels.items():
            channel.update([value for name, value in given if name == field])
        labels = {field: one["meta"] for field, one in fields.items()}
        came = variables.get(self._program.came or "", {"value": {}})["value"]
        taken_back = {field: settled(channel) for field, channel in channels.items()}
        return Start(self._variables(channels, labels, came, given), taken_back)

    def _variables(
        self,
        channels: Channels,
        labels: Mapping[str, Meta],
        came: Mapping[str, bool],
        given: list[tuple[str, Any]],
    ) -> Variables:
        replaced = {name for name, _ in given if self._plan(name) == "last"}
        values = self._tools.initial(channels)
        found = {}
        for field, name in self._program.variables.items():
            # An input that replaces a value has no labels; one that adds to it joins with it.
            meta = _NO_LABELS if field in replaced else labels.get(field, _NO_LABELS)
            found[name] = {"value": values[name], "meta": meta}
        if self._program.came is not None:
            found[self._program.came] = {"value": dict(came), "meta": _NO_LABELS}
        return found

    def _plan(self, field: str) -> str | None:
        plan = self._program.plans.get(field)
        return None if plan is None else plan.kind

    def kept(self, result: DualLLMResult) -> dict[str, Any]:
        """What a run that ended in success leaves for the next one.

        Where the service does not report variables, each field has the labels of the whole value.
        """
        whole = (result.labels or Labels()).to_wire()
        snapshot = result.namespace_snapshot or {}
        labels = {
            field: _meta_of(snapshot[name], field) if name in snapshot else whole
            for field, name in self._program.state.items()
        }
        came = result.value.get(CAME, {})
        if not isinstance(came, dict):
            msg = "The final value of the run does not say which joins are half full."
            raise BadReply(msg)
        return {_KEPT: {"labels": labels, "came": came}}

    def taken(self, state: Mapping[str, Any]) -> Channels:
        """The graph's own channels with what the shell shows."""
        return {
            key: with_content(channel, state.get(key, _langgraph.MISSING))
            for key, channel in self._channels.items()
        }

    def updates_at(
        self, ending: Ending, state: Mapping[str, Any]
    ) -> tuple[dict[str, Settled], dict[str, Settled]]:
        """What the shell does not show yet of the state told last, and what is cleared after it.

        Args:
            ending: How the run ends.
            state: What the shell shows.
        """
        if ending.told is None:
            return self._differing(ending.final, state), {}
        cleared = {
            field: update for field, update in ending.final.items() if update != ending.told[field]
        }
        told = self._differing(ending.told, state)
        return (told, cleared) if told else (cleared, {})

    def _differing(
        self, final: Mapping[str, Settled], state: Mapping[str, Any]
    ) -> dict[str, Settled]:
        """What of a state the shell does not show yet.

        Args:
            final: The whole state.
            state: What the shell shows.
        """
        shown = self.taken(state)
        settled_to = {
            field: with_content(self._channels[field], content_of(update))
            for field, update in final.items()
        }
        wanted = [
            field
            for field, channel in settled_to.items()
            if self._written(field, channel) != self._written(field, shown[field])
        ]
        told = [one for one in self._returned if settled_to[one].is_available()]
        if wanted and not set(wanted) & set(told):
            # LangGraph does not tell of a state in which fields were only cleared.
            wanted += told[:1]
        return {field: final[field] for field in wanted}

    def _written(self, field: str, channel: BaseChannel[Any, Any, Any]) -> str:
        return dumps(self._tools.write_field(field, channel))


def _meta_of(variable: Any, field: str) -> Meta:
    """The labels of a variable in the service's report; the next run is begun with them."""
    meta = variable.get("meta") if isinstance(variable, Mapping) else None
    lists: list[Any] = [meta.get(kind) if isinstance(meta, Mapping) else None for kind in _KINDS]
    if not all(isinstance(one, list) and all(isinstance(it, str) for it in one) for one in lists):
        msg = f"The service reports the field `{field}` without labels that it could have."
        raise BadReply(msg)
    return dict(zip(_KINDS, lists, strict=True))
