"""A tool call on the client: its arguments → a node's input, the node's output → the result.

It does what LangGraph does between its channels and a node, with JSON in place of the channels.
What a node or router reads is its input, so it comes with the call, where policies see it and its
labels.

`labeled_tool_result` puts labels into the artifact of a tool's message, sealed. A node's result has
one set of labels, so they are joined to the labels of the node.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import reduce
from types import MappingProxyType
from typing import Any, NoReturn

from langchain_core.messages import ToolMessage
from langgraph.channels import BinaryOperatorAggregate, UntrackedValue
from langgraph.channels.base import BaseChannel
from langgraph.constants import END, START
from langgraph.errors import EmptyChannelError, InvalidUpdateError, ParentCommand
from langgraph.types import Command, Send

from langchain_sequrity import _compat
from langchain_sequrity._compat import MISSING
from langchain_sequrity.connection import Connection
from langchain_sequrity.display import plain
from langchain_sequrity.errors import (
    BadReply,
    GraphNotSupported,
    UnknownAccess,
    UsageError,
    warn,
)
from langchain_sequrity.graph.analysis.reads_and_writes import (
    annotations_of_fields,
    annotations_of_packets,
    quoted,
)
from langchain_sequrity.graph.analysis.spec import ROOT, GraphSpec, NodeSpec
from langchain_sequrity.graph.codec.channels import (
    AnyChannel,
    FieldCodec,
    field_codecs,
    id_giver,
)
from langchain_sequrity.graph.codec.snapshots import Snapshot
from langchain_sequrity.graph.codec.values import (
    TYPE,
    VALUE,
    AllowedTypes,
    Json,
    allowed_types,
    decode,
    encode,
    long_text_in,
)
from langchain_sequrity.graph.limits import TEXT_CHARACTERS
from langchain_sequrity.graph.options import NodeOptions
from langchain_sequrity.graph.program import (
    ABSENT,
    CHANGED,
    GOTO,
    HANDLED,
    OVERWRITE,
    SEND,
    GraphProgram,
    ToolSpec,
)
from langchain_sequrity.labels import Combine, LabeledUpdate, Labels, read_artifact
from langchain_sequrity.sqrt.coerce import ENOUGH, OUTPUT_SCHEMA, has_enough_flag
from langchain_sequrity.strict_json import dumps, loads

Write = tuple[str, Any]


def _targets_of(output: Any) -> list[Send | str]:
    """The targets of a node's output, without END.

    Raises:
        ParentCommand: If it is a command for the parent graph.
    """
    if isinstance(output, Send):
        return [output]
    targets: list[Send | str] = []
    for command in output if isinstance(output, list | tuple) else [output]:
        if not isinstance(command, Command):
            continue
        if command.graph == Command.PARENT:
            raise ParentCommand(command)
        goto = [command.goto] if isinstance(command.goto, Send | str) else command.goto
        targets += [target for target in goto if isinstance(target, Send | str) and target != END]
    return targets


def _labels_in(output: Any) -> tuple[Labels | None, Combine]:
    """The labels of `with_labels` in a node's output, and how they combine; `None` without.

    Raises:
        UsageError: If two of them combine in different ways.
    """
    labels: Labels | None = None
    combine: Combine = "merge"
    for part in output if isinstance(output, list | tuple) else [output]:
        update = part.update if isinstance(part, Command) else part
        if not isinstance(update, LabeledUpdate):
            continue
        if labels is not None and combine != update.combine:
            msg = (
                f"A node returned labels that combine in two ways, `{combine}` and "
                f"`{update.combine}`. Use the same `combine` in each `with_labels` of a node."
            )
            raise UsageError(msg)
        labels = update.labels if labels is None else labels.join(update.labels)
        combine = update.combine
    return labels, combine


Arguments = Mapping[str, Json]

_ORDERED, _KEYS = "ordered", "keys"

_UNKNOWN = object()


class ToolInput:
    """The meaning of a tool's arguments.

    Args:
        spec: The graph.
        tool: The tool.
        fields: The codecs of the graph's fields.
        types: The types that the fields may hold.

    Attributes:
        ends: The path map of a router; `None` without.
    """

    def __init__(
        self, spec: GraphSpec, tool: ToolSpec, fields: Mapping[str, FieldCodec], types: AllowedTypes
    ) -> None:
        reader = spec.reader(tool.node, tool.branch)
        self.tool = tool
        self._mapper = _compat.pick_mapper(list(reader.input_fields), reader.input_schema)
        self.ends = None if isinstance(reader, NodeSpec) else reader.ends
        packet_annotations = annotations_of_packets(reader) if isinstance(reader, NodeSpec) else []
        self._send_types = types.join(allowed_types(packet_annotations))
        self._is_root = reader.input_fields == (ROOT,)
        self._position = {name: index for index, name in enumerate(reader.input_fields)}
        self.managed = tuple(name for name in reader.input_fields if name in spec.managed)
        self._parameters = sorted(
            ((p.name, p.field, fields[p.field]) for p in tool.parameters if p.field is not None),
            key=lambda parameter: self._position.get(parameter[1], len(self._position)),
        )
        self.send_parameter = next((p.name for p in tool.parameters if p.kind == "send"), None)
        self.is_whole = len(self._parameters) == len(fields)
        self._names = frozenset(name for name, _, _ in self._parameters)
        self._names_of_send = frozenset(p.name for p in tool.parameters)
        self.parameter_of = {field: name for name, field, _ in self._parameters}

    def read(
        self, arguments: Arguments, channels: Mapping[str, AnyChannel], managed: Mapping[str, Any]
    ) -> Any:
        """The input of the node or router: the state, or the argument of a `Send`.

        A router gets the state before the step, with the writes of its node.

        Args:
            arguments: Those of the call.
            channels: The fields of the call.
            managed: LangGraph's managed values.

        Raises:
            BadReply: If the arguments are not those of the tool.
            Exception: Any exception of a user's reducer, or of the input's class.
        """
        names = arguments.keys()
        if names == self._names:
            return self.state(channels, managed)
        if self.send_parameter is not None and names == self._names_of_send:
            return self._read_send(arguments, arguments[self.send_parameter])
        return self._refuse(names)

    def brings_state(self, arguments: Arguments) -> bool:
        """Whether a call has the state, not only the argument of a `Send`."""
        return self.tool.sees_state or not self.tool.is_sent(arguments)

    def channels(self, arguments: Arguments, unsaved: Mapping[str, Any]) -> dict[str, AnyChannel]:
        """The fields of a call, as channels with their content.

        Args:
            arguments: Those of the call.
            unsaved: LangGraph's values of fields that no checkpoint has; `MISSING` for none.
        """
        channels = {}
        for name, field, codec in self._parameters:
            value = unsaved.get(field, _UNKNOWN)
            try:  # a thread that was interrupted has lost the value
                channels[field] = codec.read_channel(arguments[name], is_lost=value is MISSING)
            except InvalidUpdateError:
                if value is _UNKNOWN:
                    raise
                channels[field] = codec.with_content(value)  # of two writes in a step, one is lost
        return channels

    def snapshots(self, channels: Mapping[str, AnyChannel]) -> dict[str, Snapshot]:
        """The fields that the code gets and can change, before it runs."""
        return {
            field: snapshot
            for _, field, codec in self._parameters
            if (self.tool.own_reads is None or field in self.tool.own_reads)
            and (snapshot := codec.snapshot(channels[field])) is not None
        }

    def changes(
        self,
        arguments: Arguments,
        channels: Mapping[str, AnyChannel],
        snapshots: Mapping[str, Snapshot],
    ) -> dict[str, Json]:
        """The fields that the code has changed in place, with their new content."""
        changes = {}
        for name, field, codec in self._parameters:
            snapshot = snapshots.get(field)
            if snapshot is None:
                continue
            opaque = snapshot.opaque_objects() if self.tool.role == "node" else ()
            if opaque:  # a node may have changed the object without notice
                text = (
                    f"Field `{field}` holds a `{type(opaque[0]).__name__}`, whose changes cannot "
                    f"be noticed. So node `{self.tool.node}`, which reads the field, counts as "
                    "writing it: the field gets all labels of the node. Have the object outside "
                    "the state, for example in the context."
                )
                warn(text, UnknownAccess)
            elif not snapshot.is_changed():
                continue
            written = codec.write(channels[field])
            # What a changed object was like is lost, so it cannot be written again.
            is_certain = opaque or snapshot.is_plain or snapshot.changed_objects()
            if is_certain or dumps(written) != dumps(codec.rewrite(arguments[name])):
                changes[field] = written
        return changes

    def fields_of(self, arguments: Arguments) -> dict[str, Any]:
        """The fields of a call, as an update.

        Raises:
            BadReply: If the arguments are not those of the tool.
        """
        if arguments.keys() != self._names:
            self._refuse(arguments.keys())
        return {field: codec.read_value(arguments[name]) for name, field, codec in self._parameters}

    def pack(self, argument: Any, where: str) -> dict[str, Json]:
        """Encode the argument of a `Send` for this tool, by its fields.

        Args:
            argument: Any value; `read` gives an equal one.
            where: The place, as the start of a sentence.
        """
        fields: dict[str, Json] = {}
        order: list[str] = []
        rest: Any = argument
        if type(argument) is dict and not self._is_root and not self.tool.sees_state:
            rest = dict(argument)
            for name, field, codec in self._parameters:
                if field in rest:
                    fields[name] = encode(rest.pop(field), f"{where}, key `{field}`", codec.allowed)
                    order.append(field)
        is_empty = type(rest) is dict and not rest
        packed = ABSENT if is_empty else encode(rest, where, self._send_types)
        if order and list(argument) != [*order, *rest]:
            keys = encode(list(argument), where, self._send_types)
            packed = {TYPE: _ORDERED, _KEYS: keys, VALUE: packed}
        return {"fields": fields, "input": packed}

    def state(self, channels: Mapping[str, AnyChannel], managed: Mapping[str, Any]) -> Any:
        """The input that an edge gives, from a call with the state; see `read`."""
        values: dict[str, Any] = {name: managed[name] for name in self.managed if name in managed}
        for field, channel in channels.items():
            if self.tool.own_reads is not None and field not in self.tool.own_reads:
                continue
            if channel.is_available():
                values[field] = channel.get()
        if managed:
            values = dict(sorted(values.items(), key=lambda pair: self._position[pair[0]]))
        if self._is_root:
            if ROOT not in values and any(field == ROOT for _, field, _ in self._parameters):
                raise EmptyChannelError
            return values.get(ROOT)  # `None` for a node that does not read it
        return values if self._mapper is None else self._mapper(values)

    def _read_send(self, arguments: Arguments, packed: Json) -> Any:
        where = f"The input of a `Send` to `{self.tool.node}`"
        keys: Json = None
        if isinstance(packed, dict) and packed.get(TYPE) == _ORDERED:
            keys, packed = packed.get(_KEYS), packed.get(VALUE)
        rest = {} if packed == ABSENT else decode(packed, where, self._send_types)
        values: dict[str, Any] = {}
        for name, field, codec in () if self.tool.sees_state else self._parameters:
            if arguments[name] != ABSENT:
                values[field] = decode(arguments[name], f"{where}, key `{field}`", codec.allowed)
        if not values:
            return rest
        try:
            merged = {**values, **rest}
            order = merged if keys is None else decode(keys, where, self._send_types)
            ordered = {key: merged[key] for key in order}
            is_consistent = len(values) + len(rest) == len(merged) == len(ordered)
        except (KeyError, TypeError):
            is_consistent = False
        if not is_consistent:
            msg = f"{where} is not what was sent there."
            raise BadReply(msg)
        return ordered

    def _refuse(self, names: AbstractSet[str]) -> NoReturn:
        refuse_arguments(self.tool.name, names, self._names, names - self._names_of_send)


def refuse_arguments(
    tool: str,
    names: AbstractSet[str],
    needed: AbstractSet[str],
    unknown: AbstractSet[str],
    session_id: str | None = None,
) -> NoReturn:
    """Refuse a call of the service, because of the names of its arguments.

    Args:
        tool: The tool.
        names: The names.
        needed: The names of the arguments that it needs.
        unknown: Names of others, which it does not take.
        session_id: The session.
    """
    missing = sorted(needed - names)
    problem = (
        f"lacks `{missing[0]}`"
        if missing
        else f"has `{plain(min(unknown))}`, which it does not take"
    )
    msg = f"The service's call of `{tool}` {problem}. The call is not made."
    raise BadReply(msg, session_id=session_id)


_log = logging.getLogger(__name__)

_LARGE = 100_000  # bytes of JSON

_MOST_NAMED = 5

_DECLARE = {
    "node": "`add_node(…, destinations=(…))`, or annotate the node `-> Command[Literal[…]]`",
    "router": "add it to the path map of `add_conditional_edges`",
}


def _title(tool: ToolSpec) -> str:
    if tool.role == "node":
        return f"node `{tool.node}`"
    return f"router `{tool.branch}` of `{tool.node}`"


def _refuse_change(subject: str, field: str, way_out: str) -> NoReturn:
    msg = (
        f"The {subject} changed the field `{field}` in place, and the program does not look for "
        f"that. {way_out}"
    )
    raise UsageError(msg)


def _check_target(node: str, declared: frozenset[str] | None, verb: str, tool: ToolSpec) -> None:
    if declared is not None and node not in declared:
        msg = (
            f"The {_title(tool)} {verb} `{node}`, which is not among its declared or detected "
            f"targets, so the program does not look for it. Declare it: {_DECLARE[tool.role]}."
        )
        raise GraphNotSupported(msg, node=tool.node)


def with_tool_labels(labels: Labels | None, values: Iterable[Any]) -> Labels | None:
    """The labels of a node's result, joined with those of tool results in it.

    Args:
        labels: Those of `with_labels`; `None` without.
        values: The values that the node writes: messages, lists of messages or anything else.

    Returns:
        All labels. A tool's `replace` is read as `merge`: it is about one message, and the update
        may hold more.

    Raises:
        UsageError: For labels with an invalid seal.
    """
    for value in values:
        is_overwrite, inner = _compat.read_overwrite(value)
        written = inner if is_overwrite else value
        for message in written if isinstance(written, list | tuple) else [written]:
            if not isinstance(message, ToolMessage):
                continue
            tool_labels, combine = read_artifact(message.artifact) or (None, "ignore")
            if tool_labels is not None and combine != "ignore":
                labels = tool_labels if labels is None else labels.join(tool_labels)
    return labels


@dataclass(frozen=True, slots=True)
class NodeResult:
    """The result of a node's output.

    Attributes:
        wire: The tool's result as JSON.
        writes: (field, value) as LangGraph writes them; messages have their ids.
        labels: Labels of `with_labels` and of tools; `None` without.
        combine: How they combine with those of the arguments.
        raw: The written values as the node returned them.
        goto: The nodes that a `Command` names, and its packets.
    """

    wire: dict[str, Json]
    writes: tuple[Write, ...]
    labels: Labels | None = None
    combine: Combine = "merge"
    raw: tuple[Any, ...] = ()
    goto: tuple[Send | str, ...] = ()


TextReader = Callable[[str | None], str]


def text_readers(connection: Connection, options: Mapping[str, NodeOptions]) -> TextReader:
    """What at the service has to read a text, so that no long one of it can stay on the client.

    Args:
        connection: Policy and features of the runs.
        options: Options by node.

    Returns:
        A function from a field, or `None` for the argument of a `Send`, to what reads it; empty if
        nothing does.
    """
    if connection.is_screened:
        return lambda _: "the classifiers and blockers of `features` check"
    readers: dict[str | None, str] = {
        field: f"the service's own tool `{option.internal_tool}` (node `{node}`) reads"
        for node, option in options.items()
        if option.internal_tool is not None
        for field in option.reads or ()
    }
    return lambda field: readers.get(field, "")


class ClientTools:
    """The client side of all tools of a program.

    Args:
        spec: The user's graph.
        program: The graph as a program.
        text_reader: What at the service has to read the texts of a field; see `text_readers`.

    Attributes:
        inputs: Tool → the meaning of its arguments.
        unsaved: Fields that no checkpoint has.
    """

    def __init__(
        self, spec: GraphSpec, program: GraphProgram, text_reader: TextReader = lambda _: ""
    ) -> None:
        self._spec = spec
        self._program = program
        self._text_reader = text_reader
        self._fields = field_codecs(spec.channels, annotations_of_fields(spec))
        self.unsaved = [
            name for name, channel in spec.channels.items() if isinstance(channel, UntrackedValue)
        ]
        self._without_ids = frozenset(
            name
            for name, channel in spec.channels.items()
            if isinstance(channel, BinaryOperatorAggregate) and id_giver(channel) is not None
        )
        self._is_root = tuple(spec.channels) == (ROOT,)
        self._updates = _compat.output_reader(spec.builder)
        self._types = reduce(
            AllowedTypes.join, (codec.allowed for codec in self._fields.values()), AllowedTypes()
        )
        tools = [tool for tool in program.tools.values() if tool.role != "result"]
        tools += [router for tool in tools for router in tool.fused]
        self.inputs = {
            tool.name: ToolInput(spec, tool, self._fields, self._types) for tool in tools
        }
        self._receivers = {
            tool.node: self.inputs[tool.name] for tool in tools if tool.role == "node"
        }

    # State

    def pack(self, node: str, argument: Any) -> dict[str, Json]:
        """A packet for a node, as in the variables of a run."""
        if self._receivers[node].send_parameter is None:
            msg = (
                f"A `Send` from outside names node `{node}`, which is one of the service's own "
                f"tools: it cannot take a packet. Use its name: `Command(goto={node!r}, update=…)`."
            )
            raise GraphNotSupported(msg, node=node)
        return self._packet(node, argument, f"The argument of a `Send` to `{node}`")

    def _packet(self, node: str, argument: Any, where: str) -> dict[str, Json]:
        packed = self._receivers[node].pack(argument, where)
        self._check_texts(None, packed, where)
        return {"node": self._program.tokens[node], **packed}

    def initial(self, values: Mapping[str, BaseChannel[Any, Any, Any]]) -> dict[str, Json]:
        """The context variables with the initial state.

        Args:
            values: A channel for each field.
        """
        written = {name: codec.write(values[name]) for name, codec in self._fields.items()}
        for name, value in written.items():
            self._check_texts(name, value, f"Field `{name}`")
        if self._program.parses:
            _check_schema(written[OUTPUT_SCHEMA], "The field")
        return {self._program.fields.variables[name]: value for name, value in written.items()}

    def describe_sizes(self, channels: Mapping[str, AnyChannel]) -> str:
        """Which fields of a state are large, for an error about a limit of the service.

        Args:
            channels: The state.

        Returns:
            A text; empty if no field is large.
        """
        sizes: dict[str, int] = {}
        for name, codec in self._fields.items():
            try:
                sizes[name] = len(dumps(codec.write(channels[name])))
            except UsageError as error:  # a sum has grown too long
                return str(error)
        large = [name for name, size in sizes.items() if size > _LARGE]
        if not large:
            return ""
        tools = [tool for tool in self._program.tools.values() if tool.role != "result"]
        parts = []
        for name in sorted(large, key=sizes.__getitem__, reverse=True)[:_MOST_NAMED]:
            readers = [tool.name for tool in tools if name in tool.reads]
            calls = f", in each call of {quoted(readers)}" if readers else ""
            parts.append(f"`{name}` has {sizes[name]:,} bytes as JSON{calls}")
        return f"Large fields of the state: {'; '.join(parts)}."

    def _check_texts(self, field: str | None, value: Json, where: str) -> None:
        """Refuse a long text that something at the service has to read.

        Args:
            field: The field; `None` for the argument of a `Send`.
            value: Its value.
            where: The place, as the start of a sentence.
        """
        reader = self._text_reader(field)
        size = long_text_in(value) if reader else None
        if size is not None:
            msg = (
                f"{where} has a text of {size}, and {reader} it. The service gets texts of at most "
                f"{TEXT_CHARACTERS:,} characters. Write a shorter text, or several of them one "
                "after the other."
            )
            raise UsageError(msg)

    # Nodes

    def handover_result(self, tool: ToolSpec, arguments: Arguments) -> NodeResult:
        """The answer of the service's own tool that replaces a node, as that node's result.

        Raises:
            BadReply: If the arguments are not those of the tool.
        """
        writes = tuple(self.inputs[tool.name].fields_of(arguments).items())
        return NodeResult({}, writes, raw=tuple(value for _, value in writes))

    def node_result(
        self,
        tool: ToolSpec,
        output: Any,
        changes: Mapping[str, Json] = MappingProxyType({}),
        *,
        handled: bool = False,
    ) -> NodeResult:
        """The result of a node's output. The output is not changed.

        Args:
            tool: The node's tool.
            output: The output.
            changes: The fields that the node has changed in place.
            handled: Whether the node failed and this is the output of its error handler.

        Raises:
            InvalidUpdateError: As LangGraph, if it is not an update, or has two for one field.
            ParentCommand: As LangGraph, for a command to the parent graph.
            UsageError: For an undeclared write, or a value that cannot be sent.
            GraphNotSupported: For an undeclared target.
        """
        updates, targets = self._updates(output) or (), _targets_of(output)
        update_labels, combine = _labels_in(output)
        by_field: dict[str, list[Any]] = {
            field: [] for field in tool.writes if self._fields[field].plan.kind == "log"
        }
        writes, raw = [], []
        for name, value in updates:
            codec = self._fields.get(name)
            if codec is None:  # for example a managed value
                _log.warning("Node %s wrote to unknown channel %s, ignoring it.", tool.node, name)
                continue
            if name not in tool.writes:
                msg = (
                    f"Node `{tool.node}` wrote the field `{name}`, which is not among its declared "
                    f"or detected writes. Declare it: `nodes={{{tool.node!r}: "
                    f"NodeOptions(writes={[*tool.writes, name]!r})}}`."
                )
                raise UsageError(msg)
            if self._is_root and isinstance(value, LabeledUpdate):
                value = dict(value)  # noqa: PLW2901 - the update without its labels
            raw.append(value)
            value = codec.with_ids(value)  # noqa: PLW2901 - the same update, with ids
            writes.append((name, value))
            by_field.setdefault(name, []).append(value)
        wire = self._encode(tool, by_field)
        wire |= self._encode_changes(tool, changes)
        if not handled:
            self._check_definite(tool, wire)
        else:
            wire[HANDLED] = True
        if targets:
            wire |= {key: value for key, value in self._route(tool, targets).items() if value}
        # "ignore" is not sent, or the program would also ignore the node's name and the labels of
        # its tools.
        if combine == "ignore":
            update_labels, combine = None, "merge"
        labels = with_tool_labels(update_labels, (value for _, value in writes))
        return NodeResult(wire, tuple(writes), labels, combine, tuple(raw), tuple(targets))

    @property
    def stores_no_ids(self) -> bool:
        """Whether LangGraph stores messages of some field without the ids that they get."""
        return bool(self._without_ids)

    def without_ids(self, result: NodeResult) -> dict[int, Any]:
        """For the `id` of each value that a node wrote, the value as LangGraph stores it.

        Only a `DeltaChannel` stores the ids that messages get.
        """
        return {
            id(value): raw
            for raw, (field, value) in zip(result.raw, result.writes, strict=True)
            if field in self._without_ids
        }

    def give_ids(self, writes: MutableSequence[Write], result: str) -> None:
        """Give the stored messages of a task the ids that they have in the result of its call."""
        fields, wire = [field for field, _ in writes], None
        for field in self._without_ids.intersection(fields):
            wire = wire or loads(result)
            updates = wire.get(self._program.fields.keys[field], [])
            indices = [index for index, name in enumerate(fields) if name == field]
            # What the node's code wrote itself (`push_message`) precedes what it returned.
            for index, update in zip(indices[len(indices) - len(updates) :], updates, strict=True):
                writes[index] = (field, self._fields[field].read_value(update))

    def has_unsaved(self, wire: Mapping[str, Json]) -> bool:
        """Whether a result has, or may have, values of fields that no checkpoint has."""
        keys = [self._program.fields.keys[name] for name in self.unsaved]
        return any(wire.get(key) for key in (SEND, *keys, *(CHANGED + key for key in keys)))

    def _encode(self, tool: ToolSpec, by_field: Mapping[str, Sequence[Any]]) -> dict[str, Json]:
        wire = {}
        for name, values in by_field.items():
            where = f"Field `{name}` of what node `{tool.node}` returned"
            prefix, value = self._fields[name].update(values, where)
            self._check_texts(name, value, where)
            if prefix and name not in self._program.fields.overwritable:
                msg = (
                    f"Node `{tool.node}` overwrites the field `{name}`, but its code does not name "
                    "`Overwrite`, so the program does not look for it. Import `Overwrite` from "
                    "`langgraph.types` in the module that defines the node."
                )
                raise GraphNotSupported(msg, node=tool.node)
            if self._program.parses and name == OUTPUT_SCHEMA:
                _check_schema(value, f"What node `{tool.node}` wrote to")
            wire[prefix + self._program.fields.keys[name]] = value
        return wire

    def _encode_changes(self, tool: ToolSpec, changes: Mapping[str, Json]) -> dict[str, Json]:
        wire = {}
        for field, value in changes.items():
            if field in tool.changes:
                where = f"Field `{field}`, which node `{tool.node}` changed in place,"
                self._check_texts(field, value, where)
                wire[CHANGED + self._program.fields.keys[field]] = value
            elif field not in tool.definite:
                _refuse_change(_title(tool), field, f"Return it, as in `return {{{field!r}: …}}`.")
        return wire

    def check_changes(self, results: Sequence[tuple[str, Json]], *, is_parallel: bool) -> None:
        """Check that the changes in place of a step have the order in which the program sees them.

        Args:
            results: The nodes of the step and the results of their calls, in the program's order.
            is_parallel: Whether the nodes ran side by side.

        Raises:
            UsageError: If two nodes wrote or changed a field and one of them would be lost.
        """
        for field, key in self._program.fields.keys.items():
            plan, writers = self._fields[field].plan, list[str]()
            replacing_key = {"last": key, "sum": OVERWRITE + key}.get(plan.kind)
            if sum(replacing_key in result for _, result in results) > 1:
                continue  # LangGraph refuses that
            for node, result in results:
                is_changed, is_replaced = CHANGED + key in result, replacing_key in result
                if writers and (is_changed or (is_replaced and is_parallel)):
                    msg = (
                        f"The nodes `{writers[0]}` and `{node}` of one step wrote the field "
                        f"`{field}`, and one of them changed it in place. Return the values that "
                        "they write and use a reducer, or run the nodes one after the other."
                    )
                    raise UsageError(msg)
                if is_replaced or (is_changed and is_parallel):
                    writers.append(node)

    def snapshots(self, state: Any) -> dict[str, Snapshot]:
        """Snapshots of the fields of a state as LangGraph has it."""
        fields = state if isinstance(state, dict) else {"state": state}
        return {name: Snapshot(value, self._types) for name, value in fields.items()}

    def apply_changes(self, result: Json, channels: MutableMapping[str, AnyChannel]) -> None:
        """Change the fields of a state that a node has changed in place.

        Args:
            result: The result of its call.
            channels: The state.
        """
        for field, key in self._program.fields.keys.items():
            if CHANGED + key in result:
                channels[field] = self._fields[field].read_channel(result[CHANGED + key])

    def has_changes(self, results: Iterable[Json], channels: Mapping[str, AnyChannel]) -> bool:
        """Whether a state has what nodes have changed in place and nobody has written since.

        Args:
            results: The results of the calls of a run, in order.
            channels: The state.
        """
        changed: dict[str, Json] = {}
        for result in results:
            for field, key in self._program.fields.keys.items():
                if CHANGED + key in result:
                    changed[field] = result[CHANGED + key]
                is_log = self._fields[field].plan.kind == "log"
                if OVERWRITE + key in result or (result.get(key) if is_log else key in result):
                    changed.pop(field, None)
        return all(
            self._fields[name].write(channels[name]) == value for name, value in changed.items()
        )

    def without_changes(self, result: Mapping[str, Json]) -> dict[str, Json]:
        """A result without what the node has changed in place."""
        keys = [CHANGED + key for key in self._program.fields.keys.values()]
        return {key: value for key, value in result.items() if key not in keys}

    def _check_definite(self, tool: ToolSpec, wire: Mapping[str, Json]) -> None:
        for name in tool.definite:
            key = self._program.fields.keys[name]
            if key not in wire and OVERWRITE + key not in wire:
                msg = (
                    f"Node `{tool.node}` did not return `{name}`, which its source writes each "
                    f"time. Declare what it may write: `nodes={{{tool.node!r}: "
                    f"NodeOptions(writes={list(tool.writes)!r})}}`."
                )
                raise UsageError(msg)

    # Routers

    def router_result(
        self, tool: ToolSpec, output: Any, changes: Iterable[str] = ()
    ) -> dict[str, Json]:
        """The targets of a router, as the tool's result.

        Args:
            tool: The router.
            output: What it returned.
            changes: The fields that it has changed in place.

        Raises:
            UsageError: If there are any: only a node may change the state.
            ValueError: As LangGraph, for START or None.
            InvalidUpdateError: As LangGraph, for a packet to END.
            KeyError: As LangGraph, for an answer that the path map does not have.
            GraphNotSupported: For an undeclared target.
        """
        for field in changes:
            _refuse_change(_title(tool), field, "Change it in a node.")
        ends = self.inputs[tool.name].ends
        answers = output if isinstance(output, list | tuple) else [output]
        if ends:
            answers = [answer if isinstance(answer, Send) else ends[answer] for answer in answers]
        if any(answer is None or answer == START for answer in answers):
            msg = "Branch did not return a valid destination"
            raise ValueError(msg)
        if any(isinstance(answer, Send) and answer.node == END for answer in answers):
            msg = "Cannot send a packet to the END node"
            raise InvalidUpdateError(msg)
        return self._route(tool, [answer for answer in answers if answer != END])

    def _route(self, tool: ToolSpec, targets: Iterable[Any]) -> dict[str, list[Json]]:
        """Encode names of nodes and packets; unknown nodes are dropped and logged, as in LangGraph.

        Args:
            tool: The node or router.
            targets: Its targets, without END.

        Raises:
            GraphNotSupported: For a target that the program does not look for.
            UsageError: For a packet whose argument cannot be sent.
        """
        gotos: dict[str, None] = {}
        packets = []
        tokens = self._program.tokens
        for target in targets:
            if isinstance(target, Send):
                if target.node not in self._receivers:
                    _log.warning("Ignoring unknown node name %s in pending sends", target.node)
                    continue
                _check_target(target.node, tool.sends, "sends a packet to", tool)
                where = f"The argument of a `Send` to `{target.node}` by the {_title(tool)}"
                packets.append(self._packet(target.node, target.arg, where))
                continue
            # As in LangGraph, it need not be a text; a member of an enum may be one.
            name = str.__str__(target) if isinstance(target, str) else f"{target}"
            if name not in tokens:
                _log.warning("The %s goes to unknown node %s, ignoring it.", _title(tool), name)
                continue
            _check_target(name, tool.targets, "goes to", tool)
            gotos[tokens[name]] = None
        if tool.single and len(gotos) + len(packets) > 1:
            msg = (
                f"The {_title(tool)} named several targets, but its source shows at most one. "
                "Annotate it `-> list[str]`."
            )
            raise GraphNotSupported(msg, node=tool.node)
        return {GOTO: list(gotos), SEND: packets}

    def fused_arguments(
        self, tool: ToolSpec, router: ToolSpec, arguments: Arguments, result: NodeResult
    ) -> dict[str, Json]:
        """The arguments of a router that runs within its node's call.

        Args:
            tool: The node's tool.
            router: The router's.
            arguments: Those of the node's call.
            result: The node's result.
        """
        fields, node_parameters = self._program.fields, self.inputs[tool.name].parameter_of
        router_arguments = {}
        for field, parameter in self.inputs[router.name].parameter_of.items():
            before = arguments[node_parameters[field]]
            before = result.wire.get(CHANGED + fields.keys[field], before)
            router_arguments[parameter] = fields.value_after(field, before, result.wire)
        return router_arguments

    def with_route(self, result: NodeResult, route: Mapping[str, Json]) -> NodeResult:
        """A node's result with the targets of a router within its call."""
        wire = dict(result.wire)
        for key in (GOTO, SEND):
            if route[key]:
                wire[key] = [*wire.get(key, []), *route[key]]
        return replace(result, wire=wire)


def _check_schema(value: Json, subject: str) -> None:
    """Refuse a schema that the service does not accept for `parse_with_ai`.

    `None` and an unset field are allowed: a node may set the field before it is read.
    """
    if value is None or value == ABSENT:
        return
    if not has_enough_flag(value):
        msg = (
            f"{subject} `{OUTPUT_SCHEMA}` has no boolean property `{ENOUGH}`, which the service "
            "requires in a schema for `parse_with_ai`: with it the model says whether the query "
            f"has enough information. Add `{ENOUGH}: bool` to the pydantic model whose "
            "`model_json_schema()` it is."
        )
        raise UsageError(msg)
