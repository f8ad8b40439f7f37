"""A tool call on the client: arguments to the user's code, its output to a result.

A tool's `labeled_tool_result` puts them into the artifact of its message, sealed. A node's result
has one set of labels, so they join those of the node.

It is what LangGraph does between its channels and a node, with JSON in place of the channels.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from types import MappingProxyType
from typing import Any

from langchain_core.messages import ToolMessage
from langgraph.channels import UntrackedValue
from langgraph.channels.base import BaseChannel
from langgraph.constants import END, START
from langgraph.errors import InvalidUpdateError
from langgraph.types import Send

from langchain_sequrity.errors import GraphNotSupported, UsageError
from langchain_sequrity.graph import _compat
from langchain_sequrity.graph.analysis import access
from langchain_sequrity.graph.analysis.spec import Branch, GraphSpec
from langchain_sequrity.graph.codec.channels import fields_of
from langchain_sequrity.graph.codec.types import Kinds, kinds_of
from langchain_sequrity.graph.codec.values import Json
from langchain_sequrity.graph.dispatch.arguments import (
    Arguments,
    CallState,
    OutputReader,
    Signature,
    Write,
)
from langchain_sequrity.graph.program import (
    ABSENT,
    GOTO,
    HANDLED,
    OUTPUT_SCHEMA,
    OVERWRITE,
    SEND,
    Program,
    ToolSpec,
)
from langchain_sequrity.labels import Combine, Labels, read_artifact
from langchain_sequrity.strict_json import dumps

_log = logging.getLogger(__name__)
_DECLARE = {
    "node": "`add_node(…, destinations=(…))`, or annotate the node `-> Command[Literal[…]]`",
    "router": "add it to the path map of `add_conditional_edges`",
}


class Targets:
    """Writes targets for one program.

    Args:
        tokens: Node → its token.
        signatures: Node → what its arguments mean.
    """

    def __init__(self, tokens: Mapping[str, str], signatures: Mapping[str, Signature]) -> None:
        self._tokens = tokens
        self._signatures = signatures

    def write(self, tool: ToolSpec, targets: Iterable[Any]) -> dict[str, list[Json]]:
        """Write names of nodes and packets; unknown ones are dropped and logged, as in LangGraph.

        Args:
            tool: The node or router that goes there.
            targets: What it named, without END.

        Raises:
            GraphNotSupported: For a target that the program does not look for.
            UsageError: For a packet whose argument cannot be sent.
        """
        gotos: dict[str, None] = {}
        packets = []
        for target in targets:
            if isinstance(target, Send):
                if target.node not in self._signatures:
                    _log.warning("Ignoring unknown node name %s in pending sends", target.node)
                    continue
                _check(target.node, tool.sends, "sends a packet to", tool)
                where = f"The argument of a `Send` to `{target.node}` by the {_named(tool)}"
                packets.append(self.packet(target.node, target.arg, where))
                continue
            # LangGraph does not ask for a text either, and a member of an enum may be one.
            name = str.__str__(target) if isinstance(target, str) else f"{target}"
            if name not in self._tokens:
                _log.warning("The %s goes to unknown node %s, ignoring it.", _named(tool), name)
                continue
            _check(name, tool.targets, "goes to", tool)
            gotos[self._tokens[name]] = None
        if tool.single and len(gotos) + len(packets) > 1:
            msg = (
                f"The {_named(tool)} named several targets, and was found to name one. Annotate it "
                "`-> list[str]`."
            )
            raise GraphNotSupported(msg, node=tool.node)
        return {GOTO: list(gotos), SEND: packets}

    def takes_packets(self, node: str) -> bool:
        """Whether a node's tool has a parameter for what a `Send` carries."""
        return self._signatures[node].takes_packets

    def packet(self, node: str, argument: Any, where: str) -> dict[str, Json]:
        """A packet for a node.

        Args:
            node: The node.
            argument: What the `Send` carries.
            where: The place, as the start of a sentence.

        Raises:
            UsageError: If it cannot be sent.
        """
        return {"node": self._tokens[node], **self._signatures[node].pack(argument, where)}


def _named(tool: ToolSpec) -> str:
    if tool.role == "node":
        return f"node `{tool.node}`"
    return f"router `{tool.branch}` of `{tool.node}`"


def _check(node: str, declared: frozenset[str] | None, verb: str, tool: ToolSpec) -> None:
    if declared is not None and node not in declared:
        msg = (
            f"The {_named(tool)} {verb} `{node}`, which it was not found to do, so the program "
            f"does not look for it. Declare it: {_DECLARE[tool.role]}."
        )
        raise GraphNotSupported(msg, node=tool.node)


def with_tool_labels(labels: Labels | None, values: Iterable[Any]) -> Labels | None:
    """The labels of a node's result together with those of tool results in it.

    Args:
        labels: Those of `with_labels`; `None` without.
        values: What the node writes, each a message, a list of messages or anything else.

    Returns:
        Both joined. A tool's `replace` is read as `merge`: it speaks for one message, and the
        update may hold more.

    Raises:
        UsageError: For labels whose seal does not hold.
    """
    for value in values:
        is_overwrite, inner = _compat.read_overwrite(value)
        held = inner if is_overwrite else value
        for message in held if isinstance(held, list | tuple) else [held]:
            found = read_artifact(message.artifact) if isinstance(message, ToolMessage) else None
            if found is None or found[1] == "ignore":
                continue
            labels = found[0] if labels is None else labels.join(found[0])
    return labels


_ENOUGH = "have_enough_info"


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What a node's output comes to.

    Attributes:
        wire: The tool's result.
        writes: (field, value) as LangGraph would write them; messages have their ids.
        labels: Labels of `with_labels` and of tools; `None` without.
        combine: How they combine with those of the arguments.
        raw: What is written, as the node returned it.
        gotos: Nodes that a `Command` names.
        sends: Packets of a `Command`.
    """

    wire: dict[str, Json]
    writes: tuple[Write, ...]
    labels: Labels | None = None
    combine: Combine = "merge"
    raw: tuple[Any, ...] = ()
    gotos: tuple[str, ...] = ()
    sends: tuple[Send, ...] = ()


class ClientTools:
    """The client side of all tools of a program.

    Args:
        spec: The user's graph.
        program: The graph as a program.
    """

    def __init__(self, spec: GraphSpec, program: Program) -> None:
        self._spec = spec
        self._program = program
        self._fields = fields_of(spec.channels, access.of_fields(spec))
        self.unsaved = [
            name for name, one in spec.channels.items() if isinstance(one, UntrackedValue)
        ]
        self._outputs = OutputReader([*spec.channels, *spec.managed])
        self._branches = {(one.source, one.name): one for one in spec.branches}
        anything = reduce(Kinds.join, (one.kinds for one in self._fields.values()), Kinds())
        tools = [tool for tool in program.tools.values() if tool.role != "result"]
        tools += [router for tool in tools for router in tool.fused]
        self._signatures = {tool.name: self._signature(tool, anything) for tool in tools}
        self._targets = Targets(
            program.tokens,
            {tool.node: self._signatures[tool.name] for tool in tools if tool.role == "node"},
        )
        self._where = {
            (tool.name, field): f"Field `{field}` of what node `{tool.node}` returned"
            for tool in tools
            for field in tool.writes
        }

    def _signature(self, tool: ToolSpec, anything: Kinds) -> Signature:
        if tool.role == "node":
            node = self._spec.nodes[tool.node]
            mapper, fields = self._spec.mapper_of(node.input_schema), node.input_fields
            anything = anything.join(kinds_of(access.of_packets(node)))
        else:
            branch = self._branch(tool)
            mapper, fields = branch.mapper, branch.input_fields
        return Signature(
            tool,
            fields,
            managed=self._spec.managed,
            mapper=mapper,
            fields=self._fields,
            anything=anything,
        )

    def _branch(self, tool: ToolSpec) -> Branch:
        return self._branches[tool.node, str(tool.branch)]

    # State

    def managed_of(self, tool: ToolSpec) -> tuple[str, ...]:
        """The managed values that a node's or router's input has."""
        return self._signatures[tool.name].managed

    def pack(self, node: str, argument: Any) -> dict[str, Json]:
        """A packet for a node, as the program has those that are due."""
        if not self._targets.takes_packets(node):
            msg = (
                f"A `Send` from outside names node `{node}`, which is a tool of the service's own: "
                f"it takes no packet. Go there by name: `Command(goto={node!r}, update=…)`."
            )
            raise GraphNotSupported(msg, node=node)
        where = f"The argument of a `Send` to `{node}`"
        return self._targets.packet(node, argument, where)

    def initial(self, values: Mapping[str, BaseChannel[Any, Any, Any]]) -> dict[str, Json]:
        """The context variables with the state at the start.

        Args:
            values: A channel for each field.
        """
        written = {name: field.write(values[name]) for name, field in self._fields.items()}
        if self._program.parses:
            _check_schema(written[OUTPUT_SCHEMA], "The field")
        return {self._program.variables[name]: value for name, value in written.items()}

    # Nodes

    def node_input(
        self,
        tool: ToolSpec,
        arguments: Arguments,
        managed: Mapping[str, Any] | None = None,
        unsaved: Mapping[str, Any] = MappingProxyType({}),
    ) -> Any:
        """What a node gets: its input's schema, or the argument of a `Send` as it was.

        Args:
            tool: The node's tool.
            arguments: Those of the call.
            managed: LangGraph's managed values.
            unsaved: LangGraph's own values of these fields; `MISSING` for one that is gone.

        Raises:
            BadReply: If the arguments are not those of the tool.
            Exception: Whatever a reducer of the user's raises, or the class of the input.
        """
        return self._signatures[tool.name].read(arguments, managed, unsaved)

    def handed_over(self, tool: ToolSpec, arguments: Arguments) -> NodeResult:
        """What the service's own tool answered in the place of a node, as that node's result.

        Raises:
            BadReply: If the arguments are not those of the tool.
        """
        writes = tuple(self._signatures[tool.name].fields_of(arguments).items())
        return NodeResult({}, writes, raw=tuple(value for _, value in writes))

    def node_result(self, tool: ToolSpec, output: Any, *, handled: bool = False) -> NodeResult:
        """What a node's output comes to. The output is not changed.

        Args:
            tool: The node's tool.
            output: What the node returned.
            handled: Whether the node failed and this is of its error handler.

        Raises:
            InvalidUpdateError: As LangGraph, for what is no update, or two for one field.
            ParentCommand: As LangGraph, for a command to the graph around.
            UsageError: For a write that was not declared, or a value that cannot be sent.
            GraphNotSupported: For a target that was not declared.
        """
        found = self._outputs.read(output)
        by_field: dict[str, list[Any]] = {
            field: [] for field in tool.writes if self._fields[field].plan.kind == "log"
        }
        writes, raw = [], []
        for name, value in found.writes:
            field = self._fields.get(name)
            if field is None:  # a managed value, say
                _log.warning("Node %s wrote to unknown channel %s, ignoring it.", tool.node, name)
                continue
            if name not in tool.writes:
                raise _undeclared(tool, name)
            raw.append(value)
            value = field.with_ids(value)  # noqa: PLW2901 - the same update, with ids
            writes.append((name, value))
            by_field.setdefault(name, []).append(value)
        wire = self._wire(tool, by_field)
        if not handled:
            self._check_definite(tool, wire)
        else:
            wire[HANDLED] = True
        if found.gotos or found.sends:
            route = self._targets.write(tool, [*found.gotos, *found.sends])
            wire |= {key: value for key, value in route.items() if value}
        # The program is not told: it would ignore the node's name and its tools' labels too.
        is_own = found.combine != "ignore"
        labels, combine = (found.labels, found.combine) if is_own else (None, "merge")
        labels = with_tool_labels(labels, (value for _, value in writes))
        gotos, sends = tuple(found.gotos), tuple(found.sends)
        return NodeResult(wire, tuple(writes), labels, combine, tuple(raw), gotos, sends)

    def has_unsaved(self, wire: Mapping[str, Json]) -> bool:
        """Whether a result says something of fields that no checkpoint has, or may do so."""
        if any(wire.get(self._program.keys[name]) for name in self.unsaved):
            return True
        packets = dumps(wire.get(SEND, []))
        parameters = {
            name
            for signature in self._signatures.values()
            for field, name in signature.parameter_of.items()
            if field in self.unsaved
        }
        return any(dumps(name) in packets for name in {*self.unsaved, *parameters})

    def _wire(self, tool: ToolSpec, by_field: Mapping[str, Sequence[Any]]) -> dict[str, Json]:
        wire = {}
        for name, values in by_field.items():
            prefix, value = self._fields[name].update(values, self._where[tool.name, name])
            if prefix and name not in self._program.overwritable:
                msg = (
                    f"Node `{tool.node}` overwrites the field `{name}`, but nothing in its code "
                    "names `Overwrite`, so the program does not look for it. Import `Overwrite` "
                    "from `langgraph.types` in the module that defines the node."
                )
                raise GraphNotSupported(msg, node=tool.node)
            if self._program.parses and name == OUTPUT_SCHEMA:
                _check_schema(value, f"What node `{tool.node}` wrote to")
            wire[prefix + self._program.keys[name]] = value
        return wire

    def _check_definite(self, tool: ToolSpec, wire: Mapping[str, Json]) -> None:
        for name in tool.definite:
            key = self._program.keys[name]
            if key not in wire and OVERWRITE + key not in wire:
                msg = (
                    f"Node `{tool.node}` returned no `{name}`, which it was found to write each "
                    f"time. Say what it may write: `nodes={{{tool.node!r}: "
                    f"NodeOptions(writes={list(tool.writes)!r})}}`."
                )
                raise UsageError(msg)

    def state_of(
        self, tool: ToolSpec, arguments: Arguments, unsaved: Mapping[str, Any]
    ) -> CallState:
        """The state that a call brings, for code that does not get it as its input."""
        return CallState(self._signatures[tool.name], arguments, unsaved)

    # Routers

    def router_input(
        self,
        tool: ToolSpec,
        arguments: Arguments,
        managed: Mapping[str, Any] | None = None,
        unsaved: Mapping[str, Any] = MappingProxyType({}),
    ) -> Any:
        """What a router gets: the state before the step, with what its node wrote.

        Args:
            tool: The router's tool.
            arguments: Those of the call.
            managed: LangGraph's managed values.
            unsaved: See `node_input`.

        Raises:
            BadReply: If the arguments are not those of the tool.
            Exception: Whatever a reducer of the user's raises, or the class of the input.
        """
        return self._signatures[tool.name].read(arguments, managed, unsaved)

    def router_result(self, tool: ToolSpec, output: Any) -> dict[str, Json]:
        """Where a router goes, as the tool's result.

        Raises:
            ValueError: As LangGraph, for START or None.
            InvalidUpdateError: As LangGraph, for a packet to END.
            KeyError: As LangGraph, for an answer that the path map does not have.
            GraphNotSupported: For a target that was not declared.
        """
        ends = self._branch(tool).ends
        answers = output if isinstance(output, list | tuple) else [output]
        if ends:
            answers = [one if isinstance(one, Send) else ends[one] for one in answers]
        if any(one is None or one == START for one in answers):
            msg = "Branch did not return a valid destination"
            raise ValueError(msg)
        if any(isinstance(one, Send) and one.node == END for one in answers):
            msg = "Cannot send a packet to the END node"
            raise InvalidUpdateError(msg)
        return self._targets.write(tool, [one for one in answers if one != END])

    def fused_input(
        self,
        tool: ToolSpec,
        router: ToolSpec,
        arguments: Arguments,
        result: NodeResult,
        *,
        managed: Mapping[str, Any],
        unsaved: Mapping[str, Any],
    ) -> Any:
        """What a router gets that runs within its node's call: see `router_input`.

        Args:
            tool: The node's tool.
            router: The router's.
            arguments: Those of the node's call.
            result: What the node's output came to.
            managed: LangGraph's managed values.
            unsaved: See `node_input`.
        """
        of_node, of_router = self._signatures[tool.name], self._signatures[router.name]
        if of_node.is_send(arguments):
            msg = (
                f"The router of `{tool.node}` cannot run within its call, because the call answers "
                f"a `Send` and does not bring the state. Set `fuse_router=False` for {tool.node!r}."
            )
            raise GraphNotSupported(msg, node=tool.node)
        fresh = {}
        for field, parameter in of_router.parameter_of.items():
            before = arguments[of_node.parameter_of[field]]
            fresh[parameter] = self._after(field, before, result.wire)
        return of_router.read(fresh, managed, unsaved)

    def _after(self, field: str, before: Json, wire: Mapping[str, Json]) -> Json:
        """A field after a result, as the program has it."""
        if field not in self._fields:
            return before
        key, kind = self._program.keys[field], self._fields[field].plan.kind
        if kind == "log":
            return [*before, wire.get(key, [])]
        if OVERWRITE + key in wire:
            return wire[OVERWRITE + key]
        if kind == "last" or key not in wire:
            return wire.get(key, before)
        return before + wire[key]

    def with_route(self, result: NodeResult, route: Mapping[str, Json]) -> NodeResult:
        """A node's result together with where a router within its call goes."""
        wire = dict(result.wire)
        for key in (GOTO, SEND):
            if route[key]:
                wire[key] = [*wire.get(key, []), *route[key]]
        return replace(result, wire=wire)


def _check_schema(value: Json, what: str) -> None:
    """Refuse a schema that the service does not take for an answer of `parse_with_ai`.

    `None`, and a field that is not set, are left for a node that sets it before it is read.
    """
    if value is None or value == ABSENT:
        return
    found = _top_of(value)
    properties = found.get("properties") if isinstance(found, Mapping) else None
    enough = properties.get(_ENOUGH) if isinstance(properties, Mapping) else None
    if not (isinstance(enough, Mapping) and enough.get("type") == "boolean"):
        msg = (
            f"{what} `{OUTPUT_SCHEMA}` has no boolean property `{_ENOUGH}`, without which the "
            "service takes no schema for `parse_with_ai`: by it the model says whether the query "
            f"holds enough for an answer. Add `{_ENOUGH}: bool` to the pydantic model whose "
            "`model_json_schema()` it is."
        )
        raise UsageError(msg)


def _top_of(schema: Json) -> Json:
    """A schema, or the definition that it refers to: of a model that holds itself."""
    named = schema.get("$ref") if isinstance(schema, Mapping) else None
    definitions = schema.get("$defs") if isinstance(schema, Mapping) else None
    if not isinstance(named, str) or not isinstance(definitions, Mapping):
        return schema
    return definitions.get(named.removeprefix("#/$defs/"))


def _undeclared(tool: ToolSpec, field: str) -> UsageError:
    return UsageError(
        f"Node `{tool.node}` wrote the field `{field}`, which it was not found to write. Say so: "
        f"`nodes={{{tool.node!r}: NodeOptions(writes={[*tool.writes, field]!r})}}`."
    )
