"""Arguments of a tool call as a node's input, and a node's updates.

What it reads is an input of the node, so it has to come with the call, where policies see it and
its labels.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, NoReturn

from langgraph.constants import END
from langgraph.errors import (
    EmptyChannelError,
    ErrorCode,
    InvalidUpdateError,
    ParentCommand,
    create_error_message,
)
from langgraph.types import Command, Send
from typing_extensions import override

from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply, UsageError
from langchain_sequrity.graph import _compat
from langchain_sequrity.graph._compat import MISSING
from langchain_sequrity.graph.analysis.spec import Mapper
from langchain_sequrity.graph.codec.channels import AnyChannel, Field
from langchain_sequrity.graph.codec.types import Kinds
from langchain_sequrity.graph.codec.values import TYPE, VALUE, Json, decode, encode
from langchain_sequrity.graph.program import ABSENT, ToolSpec
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

    writes: list[Write] = dataclasses.field(default_factory=list)
    gotos: list[str] = dataclasses.field(default_factory=list)
    sends: list[Send] = dataclasses.field(default_factory=list)
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
            return [one for one in _compat.command_writes(output) if one[0] in self._known]
        if _has_commands(output):
            return [write for one in output for write in self._updates(one)]
        writes = _compat.object_writes(output, self._fields)
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
                found += _compat.command_writes(one)
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


Arguments = Mapping[str, Json]
_ORDERED, _KEYS = "ordered", "keys"


_UNKNOWN = object()


class Signature:
    """What a tool's arguments mean.

    Args:
        tool: The tool.
        schema_fields: Fields and managed values of its input's schema, in LangGraph's order.
        managed: Which of these are managed values.
        mapper: Makes the input from a dict of fields, if its schema is a class.
        fields: The graph's fields.
        anything: What the input of a `Send` may hold.
    """

    def __init__(
        self,
        tool: ToolSpec,
        schema_fields: Sequence[str],
        *,
        managed: Iterable[str],
        mapper: Mapper | None,
        fields: Mapping[str, Field],
        anything: Kinds,
    ) -> None:
        self.tool = tool
        self._mapper = mapper
        self._anything = anything
        self._is_root = tuple(schema_fields) == (ROOT,)
        self._rank = {name: place for place, name in enumerate(schema_fields)}
        self.managed = tuple(name for name in schema_fields if name in managed)
        self._parts = sorted(
            (
                (one.name, one.field, fields[one.field])
                for one in tool.parameters
                if one.field is not None
            ),
            key=lambda part: self._rank.get(part[1], len(self._rank)),
        )
        self._send = next((one.name for one in tool.parameters if one.kind == "send"), None)
        self.is_whole = len(self._parts) == len(fields)
        self._names = frozenset(name for name, _, _ in self._parts)
        self._names_of_send = self._names | {self._send} if self._send else self._names
        self.parameter_of = {field: name for name, field, _ in self._parts}

    def read(
        self,
        arguments: Arguments,
        managed: Mapping[str, Any] | None = None,
        unsaved: Mapping[str, Any] = MappingProxyType({}),
    ) -> Any:
        """What the node or router gets.

        Args:
            arguments: Those of the call.
            managed: LangGraph's managed values.
            unsaved: LangGraph's values of fields that no checkpoint has; `MISSING` for none.

        Raises:
            BadReply: If the arguments are not those of the tool.
            Exception: Whatever a reducer of the user's raises, or the class of the input.
        """
        given = arguments.keys()
        if given == self._names:
            return self._read_state(arguments, managed or {}, unsaved)
        if self._send is not None and given == self._names_of_send:
            return self._read_send(arguments, arguments[self._send])
        return self._refuse(given)

    @property
    def takes_packets(self) -> bool:
        """Whether it has a parameter for what a `Send` carries."""
        return self._send is not None

    def is_send(self, arguments: Arguments) -> bool:
        """Whether a call answers a `Send`."""
        return self._send is not None and self._send in arguments

    def brings_state(self, arguments: Arguments) -> bool:
        """Whether a call brings the state, and not only what a `Send` carries."""
        return self.tool.sees_state or not self.is_send(arguments)

    def state(self, arguments: Arguments, unsaved: Mapping[str, Any]) -> Any:
        """What an edge would give, of a call that brings the state."""
        return self._read_state(arguments, {}, unsaved)

    def channels(self, arguments: Arguments, unsaved: Mapping[str, Any]) -> dict[str, AnyChannel]:
        """The fields that a call brings, with all that their channels hold."""
        return {
            field: about.read_channel(arguments[name], is_lost=unsaved.get(field) is MISSING)
            for name, field, about in self._parts
        }

    def fields_of(self, arguments: Arguments) -> dict[str, Any]:
        """The fields that a call brings, as an update.

        Raises:
            BadReply: If the arguments are not those of the tool.
        """
        if arguments.keys() != self._names:
            self._refuse(arguments.keys())
        return {field: about.read_value(arguments[name]) for name, field, about in self._parts}

    def pack(self, argument: Any, where: str) -> dict[str, Json]:
        """Write the argument of a `Send` for this tool, part by part.

        Args:
            argument: Any value; it comes back exactly as it was.
            where: The place, as the start of a sentence.
        """
        found: dict[str, Json] = {}
        fields: list[str] = []
        rest: Any = argument
        if type(argument) is dict and not self._is_root and not self.tool.sees_state:
            rest = dict(argument)
            for name, field, about in self._parts:
                if field in rest:
                    found[name] = encode(rest.pop(field), f"{where}, key `{field}`", about.kinds)
                    fields.append(field)
        is_done = type(rest) is dict and not rest
        packed = ABSENT if is_done else encode(rest, where, self._anything)
        if fields and list(argument) != [*fields, *rest]:
            keys = encode(list(argument), where, self._anything)
            packed = {TYPE: _ORDERED, _KEYS: keys, VALUE: packed}
        return {"fields": found, "input": packed}

    def _read_state(
        self,
        arguments: Arguments,
        managed: Mapping[str, Any],
        unsaved: Mapping[str, Any] = MappingProxyType({}),
    ) -> Any:
        values: dict[str, Any] = {name: managed[name] for name in self.managed if name in managed}
        for name, field, about in self._parts:
            if self.tool.own is not None and field not in self.tool.own:
                continue
            known = unsaved.get(field, _UNKNOWN)
            if known is MISSING:  # a thread that waited has lost it
                continue
            try:
                value = about.read(arguments[name])
            except InvalidUpdateError:
                if known is _UNKNOWN:
                    raise
                value = known  # of two writes in one step the thread has lost one
            if value is not MISSING:
                values[field] = value
        if managed:
            values = dict(sorted(values.items(), key=lambda one: self._rank[one[0]]))
        if self._is_root:
            if ROOT not in values and any(field == ROOT for _, field, _ in self._parts):
                raise EmptyChannelError
            return values.get(ROOT)  # nothing for a node that was found not to look at it
        return values if self._mapper is None else self._mapper(values)

    def _read_send(self, arguments: Arguments, packed: Json) -> Any:
        where = f"The input of a `Send` to `{self.tool.node}`"
        keys, packed = _unwrapped(packed)
        rest = {} if packed == ABSENT else decode(packed, where, self._anything)
        values: dict[str, Any] = {}
        for name, field, about in () if self.tool.sees_state else self._parts:
            if arguments[name] != ABSENT:
                values[field] = decode(arguments[name], f"{where}, key `{field}`", about.kinds)
        if not values:
            return rest
        if type(rest) is not dict or values.keys() & rest.keys():
            _not_packed(where)
        whole = {**values, **rest}
        if keys is None:
            return whole
        found = _ordered(whole, decode(keys, where, self._anything))
        return _not_packed(where) if found is None else found

    def _refuse(self, given: Any) -> NoReturn:
        missing, unknown = sorted(self._names - given), sorted(given - self._names_of_send)
        what = (
            f"lacks `{missing[0]}`"
            if missing
            else f"has `{plain(unknown[0])}`, which it does not take"
        )
        msg = f"The service's call of `{self.tool.name}` {what}."
        raise BadReply(msg)


def _unwrapped(packed: Json) -> tuple[Json | None, Json]:
    """The order of keys, where it had to be said, and the rest of what was sent."""
    if isinstance(packed, dict) and packed.get(TYPE) == _ORDERED:
        return packed.get(_KEYS), packed.get(VALUE)
    return None, packed


def _ordered(values: dict[Any, Any], keys: Any) -> dict[Any, Any] | None:
    """The values in the order of these keys; `None` if they are not those of the values."""
    try:
        found = {key: values[key] for key in keys}
    except (KeyError, TypeError):
        return None
    return found if len(found) == len(values) else None


def _not_packed(where: str) -> NoReturn:
    msg = f"{where} is not what was packed."
    raise BadReply(msg)


class CallState(Mapping[str, AnyChannel]):
    """Channels of the fields that a call brings, made when they are looked at.

    Args:
        signature: What the arguments of the tool mean.
        arguments: Those of the call.
        unsaved: LangGraph's values of fields that no checkpoint has; `MISSING` for none.
    """

    def __init__(
        self, signature: Signature, arguments: Arguments, unsaved: Mapping[str, Any]
    ) -> None:
        self._signature = signature
        self._arguments = arguments
        self._unsaved = unsaved

    def for_tools(self) -> Any:
        """The state for a `ToolNode`: as an edge would give it to a node that a `Send` started."""
        signature = self._signature
        if not signature.brings_state(self._arguments):
            return _NotBrought(signature.tool.node, {})
        if signature.is_send(self._arguments):
            return signature.state(self._arguments, self._unsaved)
        held = {name: one.get() for name, one in self._channels.items() if one.is_available()}
        return held if signature.is_whole else _NotBrought(signature.tool.node, held)

    @cached_property
    def _channels(self) -> dict[str, AnyChannel]:
        if self._signature.brings_state(self._arguments):
            return self._signature.channels(self._arguments, self._unsaved)
        return {}

    @override
    def __getitem__(self, field: str) -> AnyChannel:
        if field not in self._channels:
            _refuse(self._signature.tool.node, field)
        return self._channels[field]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._channels)

    @override
    def __len__(self) -> int:
        return len(self._channels)


class _NotBrought(Mapping[str, Any]):
    """Stands for the state where a call does not bring all of it: whoever looks is told."""

    def __init__(self, node: str, held: Mapping[str, Any]) -> None:
        self._node = node
        self._held = held

    @override
    def __getitem__(self, field: str) -> Any:
        if field not in self._held:
            _refuse(self._node, field)
        return self._held[field]

    @override
    def __iter__(self) -> Iterator[str]:
        _refuse(self._node)

    @override
    def __len__(self) -> int:  # noqa: PLE0303 - it never returns
        _refuse(self._node)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what copying and pickling ask for
            raise AttributeError(name)
        _refuse(self._node, name)


def _refuse(node: str, field: str | None = None) -> NoReturn:
    what = "the state" if field is None else f"`{field}` of the state"
    msg = (
        f"Node `{node}` reads {what} through its config, and the call does not bring it. Make the "
        "`ToolNode` itself the node, or pass what it needs in the argument of the `Send`; for a "
        f"node that an edge starts, declare it: `nodes={{{node!r}: NodeOptions(reads=[…])}}`."
    )
    raise UsageError(msg)
