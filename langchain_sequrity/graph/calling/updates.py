"""What a node's output says: writes, where to go, labels. As `CompiledStateGraph` reads it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraph.constants import END
from langgraph.errors import ErrorCode, InvalidUpdateError, ParentCommand, create_error_message
from langgraph.types import Command, Send

from langchain_sequrity.errors import UsageError
from langchain_sequrity.graph import _langgraph
from langchain_sequrity.labels import Combine, LabeledUpdate, Labels

ROOT = "__root__"
Write = tuple[str, Any]


@dataclass(slots=True)
class Output:
    """A node's output, taken apart.

    Attributes:
        writes: (field, value), in order; of known fields only, but for a `Command` at the root.
        gotos: Names of nodes that a `Command` goes to.
        sends: Packets of a `Command`.
        labels: Labels of `with_labels`, joined; `None` if there are none.
        combine: How they combine with those of the arguments.
    """

    writes: list[Write] = field(default_factory=list)
    gotos: list[str] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)
    labels: Labels | None = None
    combine: Combine = "merge"


class OutputReader:
    """Reads outputs of the nodes of one graph.

    Args:
        fields: State fields and managed values, in LangGraph's order.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = tuple(fields)
        self._known = frozenset(fields)
        self._is_root = self._fields == (ROOT,)

    def read(self, output: Any) -> Output:
        """Take an output apart, without changing it.

        Raises:
            InvalidUpdateError: If it is no update.
            ParentCommand: If it is a command for the graph around.
            UsageError: If it has two labels that combine in different ways.
        """
        if type(output) is dict and not self._is_root:  # what most nodes return
            return Output([one for one in output.items() if one[0] in self._known])
        found = Output()
        found.writes += self._root(output) if self._is_root else self._updates(output)
        if isinstance(output, Send):
            found.sends.append(output)
        for command in _commands(output):
            if command.graph == Command.PARENT:
                raise ParentCommand(command)
            _add_targets(command, found)
        _add_labels(output, found)
        return found

    def _updates(self, output: Any) -> list[Write]:
        if output is None:
            return []
        if isinstance(output, dict):
            return [one for one in output.items() if one[0] in self._known]
        if isinstance(output, Command):
            if output.graph == Command.PARENT:
                return []
            return [one for one in _langgraph.command_writes(output) if one[0] in self._known]
        if _has_commands(output):
            return [write for one in output for write in self._updates(one)]
        writes = _langgraph.object_writes(output, self._fields)
        if writes is None:
            msg = create_error_message(
                message=f"Expected dict, got {output}",
                error_code=ErrorCode.INVALID_GRAPH_NODE_RETURN_VALUE,
            )
            raise InvalidUpdateError(msg)
        return list(writes)

    def _root(self, output: Any) -> list[Write]:
        if output is None:
            return []
        if not _has_commands(output):
            output = [output]
        found: list[Write] = []
        for one in output:
            if not isinstance(one, Command):
                found.append((ROOT, dict(one) if isinstance(one, LabeledUpdate) else one))
            elif one.graph != Command.PARENT:
                found += _langgraph.command_writes(one)
        return found


def _has_commands(output: Any) -> bool:
    return isinstance(output, list | tuple) and any(isinstance(one, Command) for one in output)


def _commands(output: Any) -> list[Command[Any]]:
    several = output if isinstance(output, list | tuple) else [output]
    return [one for one in several if isinstance(one, Command)]


def _add_targets(command: Command[Any], found: Output) -> None:
    goto = command.goto
    for target in [goto] if isinstance(goto, Send | str) else goto:
        if isinstance(target, Send):
            found.sends.append(target)
        elif isinstance(target, str) and target != END:
            found.gotos.append(target)


def _add_labels(output: Any, found: Output) -> None:
    several = output if isinstance(output, list | tuple) else [output]
    updates = [one.update if isinstance(one, Command) else one for one in several]
    for update in updates:
        if not isinstance(update, LabeledUpdate):
            continue
        if found.labels is not None and found.combine != update.combine:
            msg = (
                f"A node returned labels that combine in two ways, `{found.combine}` and "
                f"`{update.combine}`. A node's result has one: use the same `combine` in each "
                "`with_labels`."
            )
            raise UsageError(msg)
        joined = update.labels if found.labels is None else found.labels.join(update.labels)
        found.labels, found.combine = joined, update.combine
