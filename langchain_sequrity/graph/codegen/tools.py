"""The tools of a program, one for each node and router, and which task starts which.

A parameter's JSON Schema says what the annotation of the field says, and what the executor itself
may send in its place: `ABSENT`, and the forms of what JSON lacks (`codec.values`). LangGraph does
not hold nodes to annotations, so a schema only informs, and each allows `None`. What is not certain
is left open. That includes the fields of a pydantic model, which converts values, such as "1" to 1,
only for a node.
"""

import builtins
import dataclasses
import datetime as dt
import inspect
import keyword
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from enum import Enum
from functools import cached_property, reduce
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin
from uuid import UUID

from langgraph.graph import END
from pydantic import BaseModel
from typing_extensions import is_typeddict

from langchain_sequrity import _compat
from langchain_sequrity.errors import GraphNotSupported, UsageError
from langchain_sequrity.graph.analysis.reads_and_writes import (
    annotations_of_fields,
    field_router_of,
    is_model,
    node_access,
    router_access,
)
from langchain_sequrity.graph.analysis.source import union
from langchain_sequrity.graph.analysis.spec import Branch, GraphSpec
from langchain_sequrity.graph.codec.channels import field_plan
from langchain_sequrity.graph.codec.values import ENCODING_OF_CLASS, encode, meaning_of, object_form
from langchain_sequrity.graph.limits import TOOL_NAME_CHARACTERS
from langchain_sequrity.graph.options import FieldRouter, NodeOptions
from langchain_sequrity.graph.program import (
    ABSENT,
    Access,
    FieldPlan,
    FieldVariables,
    Join,
    Parameter,
    ToolSpec,
)
from langchain_sequrity.sqrt.coerce import INTERNAL_TOOLS

KEYWORDS = frozenset(keyword.kwlist) | frozenset(keyword.softkwlist)

RESERVED_NAMES = (
    KEYWORDS
    | frozenset(dir(builtins))
    | frozenset(INTERNAL_TOOLS)
    | {"final_return_value", "datetime", "json", "re", "math"}
)
"""Names with a meaning in programs."""

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_]+")

_COMMENT_CHARACTERS = 80

_Key = TypeVar("_Key")


def is_plain(name: str) -> bool:
    """Whether a name needs no change: an ASCII identifier that is not a keyword or dunder."""
    return (
        name.isidentifier()
        and name.isascii()
        and len(name) <= TOOL_NAME_CHARACTERS
        and name not in KEYWORDS
        and not name.startswith("__")
    )


def for_comment(name: str) -> str:
    """A name for a comment: one line of printable ASCII, not too long."""
    quoted = ascii(name)
    return quoted if len(quoted) <= _COMMENT_CHARACTERS else f"{quoted[:_COMMENT_CHARACTERS]}..."


class Namespace:
    """A namespace that gives each name once.

    Args:
        used: Names that are already in use.
    """

    def __init__(self, used: Iterable[str] = ()) -> None:
        """Start with the used names."""
        self._used = set(used)

    def unique_name(self, preferred: str, *, fallback: str = "x") -> str:
        """A free name like the wanted one.

        Args:
            preferred: Any text.
            fallback: The base of the name if no character of the text can be in a name.

        Returns:
            The text itself if it is a free ASCII identifier, otherwise a similar one.
        """
        stem = preferred if is_plain(preferred) else _stem(preferred, fallback)
        name, number = stem, 1
        while name in self._used or not is_plain(name):
            number += 1
            suffix = f"_{number}"
            name = stem[: TOOL_NAME_CHARACTERS - len(suffix)] + suffix
        self._used.add(name)
        return name

    def unique_names(self, template: str, stems: Mapping[_Key, str]) -> dict[_Key, str]:
        """A free name for each stem, like the template with the stem in it."""
        return {key: self.unique_name(template.format(stem)) for key, stem in stems.items()}

    def copy(self) -> "Namespace":
        """A copy with the same used names."""
        return Namespace(self._used)


def _stem(preferred: str, fallback: str) -> str:
    stem = _NOT_IN_NAMES.sub("_", preferred).strip("_") or fallback
    return (f"{fallback}_{stem}" if stem[0].isdigit() else stem)[:TOOL_NAME_CHARACTERS]


_NO_OPTIONS = NodeOptions()


@dataclass(frozen=True, slots=True)
class ProgramRouter:
    """A conditional edge.

    Attributes:
        tool: The tool that decides; `None` if a field decides.
        field: That field.
        values: Node or END → values of the field that lead there, as program text.
    """

    tool: ToolSpec | None
    field: str = ""
    values: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


class Toolbox:
    """Makes the tools of one graph.

    Names are taken in a fixed order, so the same graph always has the same names: fields, tools
    with a `tool_name`, nodes that can keep their name, other nodes, routers.

    Args:
        spec: The graph.
        options: Options by node.

    Attributes:
        keys: State field → its name as a parameter and in results.
        plans: State field → how the program keeps it.
        names: The program's namespace, with the names of the tools.
        nodes: Node → tool.
        routers: Node or START → its routers, in LangGraph's order.
    """

    def __init__(self, spec: GraphSpec, options: Mapping[str, NodeOptions]) -> None:
        """Make all tools."""
        self.spec, self.options = spec, options
        parameters = Namespace(KEYWORDS)
        self.keys = _unique_names(parameters, list(spec.channels), fallback="field")
        self._send_input = parameters.unique_name("send_input")
        annotations = annotations_of_fields(spec)
        models = [fields for schema, fields in spec.schemas.items() if is_model(schema)]
        validated = {field for fields in models for field in fields}
        self.plans = {field: field_plan(channel) for field, channel in spec.channels.items()}
        self._schemas = {
            field: schema_of([Any] if field in validated else annotations[field], plan)
            for field, plan in self.plans.items()
        }
        self._mutable = {
            f for f in spec.channels if not all(map(_is_immutable, annotations[f] or [Any]))
        }
        self.names = Namespace(RESERVED_NAMES)
        self._tool_names = self._names_from_options()
        unnamed = sorted(node for node in spec.nodes if node not in self._tool_names)
        self._tool_names |= _unique_names(self.names, unnamed, fallback="node")
        self.routers: dict[str, list[ProgramRouter]] = {}
        for branch in spec.branches:
            self.routers.setdefault(branch.source, []).append(self._router(branch))
        self.nodes = {node: self._node(node) for node in sorted(spec.nodes)}

    def option(self, node: str) -> NodeOptions:
        """The options of a node or of START."""
        return self.options.get(node, _NO_OPTIONS)

    def for_packets(self, node: str) -> ToolSpec:
        """The tool of a node that a `Send` may start, with a parameter for the argument."""
        if internal := self.option(node).internal_tool:
            msg = (
                f"Node {node!r} is the internal tool `{internal}`, but a router or a `Command` may "
                "send it packets, and it has no parameter for their input. Route to it by its name."
            )
            raise GraphNotSupported(msg, node=node)
        tool = self.nodes[node]
        packet = Parameter(self._send_input, None, "send")
        sees_state = _compat.reads_state(self.spec.nodes[node].runnable)
        # A Send may have any value under the name of a field, or none.
        fields = (replace(parameter, schema={}) for parameter in tool.parameters)
        return replace(tool, parameters=(*fields, packet), sees_state=sees_state)

    def _names_from_options(self) -> dict[str, str]:
        options = self.options.items()
        names = {node: o.tool_name for node, o in options if o.tool_name is not None}
        for node, name in names.items():
            if self.names.unique_name(name) != name:
                msg = (
                    f"`NodeOptions(tool_name={name!r})` of node {node!r} is not a free name. A "
                    "tool's name is a unique identifier of at most 64 ASCII characters, and not a "
                    "keyword or built-in of Python."
                )
                raise UsageError(msg)
        return names

    def _router(self, branch: Branch) -> ProgramRouter:
        field_router = field_router_of(branch)
        if field_router is not None:
            return _lookup_router(self.spec, branch, field_router)
        access = router_access(self.spec, branch)
        source = self._tool_names.get(branch.source, "start")
        name = self.names.unique_name(f"{branch.name}__from__{source}", fallback="router")
        return ProgramRouter(self._tool(name, branch.source, branch.name, access))

    def _node(self, node: str) -> ToolSpec:
        option = self.option(node)
        access = node_access(self.spec, self.spec.nodes[node], option)
        tool = self._tool(self._tool_names[node], node, None, access)
        if option.internal_tool is None:
            tool = replace(tool, changes=tuple(self._changes(access)))
        return self._fused(tool) if option.fuse_router else tool

    def _changes(self, access: Access) -> Iterator[str]:
        """The fields that a node may change in place, and does not replace each time."""
        for field in access.reads:
            is_replaced = field in access.definite and self.plans[field].kind == "last"
            if field in self._mutable and not is_replaced:
                yield field

    def _tool(self, name: str, node: str, branch: str | None, access: Access) -> ToolSpec:
        default = f"Node {node!r}." if branch is None else f"Decides what follows {node!r}."
        access_fields = {f.name: getattr(access, f.name) for f in fields(access)}
        access_fields["description"] = access.description or default
        access_fields["role"] = "node" if branch is None else "router"
        parameters = self._parameters(access.reads)
        return ToolSpec(name=name, node=node, branch=branch, parameters=parameters, **access_fields)

    def _fused(self, tool: ToolSpec) -> ToolSpec:
        """A node's tool with its routers in it."""
        routers = [r.tool for r in self.routers.get(tool.node, ()) if r.tool is not None]
        if not routers:
            msg = (
                f"`NodeOptions(fuse_router=True)` of node {tool.node!r}: it has no router that "
                "needs a call of its own. Leave the option out."
            )
            raise UsageError(msg)
        tools = [tool, *routers]
        read_fields = {field for t in tools for field in t.reads}
        reads = tuple(field for field in self.spec.channels if field in read_fields)
        return replace(
            tool,
            reads=reads,
            parameters=self._parameters(reads),
            own_reads=frozenset(str(parameter.field) for parameter in tool.parameters),
            targets=reduce(union, (t.targets for t in tools)),
            sends=reduce(union, (t.sends for t in tools)),
            single=len(routers) == 1 and not tool.targets and routers[0].single,
            may_end=all(t.may_end for t in tools),
            fused=tuple(routers),
        )

    def _parameters(self, reads: Iterable[str]) -> tuple[Parameter, ...]:
        # Managed values are LangGraph's own and have no labels. They are not part of the call.
        return tuple(
            Parameter(self.keys[field], field, "field", self._schemas[field])
            for field in reads
            if field in self.keys
        )


def _unique_names(namespace: Namespace, preferred: list[str], *, fallback: str) -> dict[str, str]:
    """A name for each wanted name. Names that need no change are taken first."""
    plain_first = sorted(preferred, key=lambda name: not is_plain(name))
    assigned = {name: namespace.unique_name(name, fallback=fallback) for name in plain_first}
    return {name: assigned[name] for name in preferred}


def _lookup_router(spec: GraphSpec, branch: Branch, router: FieldRouter) -> ProgramRouter:
    """A router whose field the program looks up, without a call."""
    _check_field_router(spec, branch, router)
    values: dict[str, tuple[str, ...]] = {}
    for value, target in router.routes.items():
        text = ascii(encode(value, f"A route of {router!r}"))
        values[target] = (*values.get(target, ()), text)
    return ProgramRouter(None, router.field, values)


def _check_field_router(spec: GraphSpec, branch: Branch, router: FieldRouter) -> None:
    unknown = [node for node in router.routes.values() if node not in spec.nodes and node != END]
    if router.field not in spec.channels or router.field not in branch.input_fields:
        why = f"looks up `{router.field}`, which is not a state field. Use a state field."
    elif field_plan(spec.channels[router.field]).kind == "log":
        why = (
            f"looks up `{router.field}`, whose reducer the program does not know. Use a function "
            "as the router."
        )
    elif branch.ends is not None:
        why = "also has a path map. Leave it out: the routes are the path map."
    elif unknown:
        why = f"leads to {unknown[0]!r}, which is not a node. Use a node or END."
    else:
        return
    msg = f"{router!r} after {branch.source!r} {why}"
    raise GraphNotSupported(msg, edge=(branch.source, branch.name))


Schema = dict[str, Any]

_TYPES: dict[Any, str] = {
    str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null",
    None: "null", dict: "object", Mapping: "object", list: "array",
}  # fmt: skip

_NULL: Schema = {"type": "null"}

_ABSENT: Schema = {"const": ABSENT}

_ENCODED: Schema = {"type": "object"}  # of integers beyond 64 bits, and of the text `ABSENT` itself

_SUM_TYPES: dict[type, str] = {int: "number", str: "string", list: "array"}

_MAX_ALTERNATIVES = 8
"""Highest number of alternatives; a larger union is left open."""

_MAX_DEPTH = 8
"""Deepest level of an annotation that is read; an alias may contain itself."""


def schema_of(annotations: Iterable[Any], plan: FieldPlan) -> Schema:
    """The schema of a field as an argument of a tool.

    Args:
        annotations: Its annotations in the graph's schemas.
        plan: How the program keeps it.

    Returns:
        The schema; empty if nothing is certain.
    """
    if plan.kind == "log":
        return {"type": "array"}
    if plan.kind == "sum":
        return {"type": _SUM_TYPES[type(plan.zero)]}
    alternatives = _union(list(annotations), 0)
    if not alternatives:
        return {}
    extra = [_NULL] if {"type": "string"} in alternatives else [_NULL, _ABSENT]
    return {"anyOf": [*alternatives, *(schema for schema in extra if schema not in alternatives)]}


_IMMUTABLE = (
    str, int, float, complex, bytes, NoneType, Enum, PurePath, UUID, Decimal,
    dt.date, dt.time, dt.timedelta, dt.tzinfo,
)  # fmt: skip


def _is_immutable(annotation: Any, depth: int = 0) -> bool:
    """Whether no code can change a value of an annotation in place."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if depth > _MAX_DEPTH:
        return False
    if (meaning := meaning_of(annotation)) is not annotation:
        return _is_immutable(meaning, depth + 1)
    if origin is Literal or annotation is None or annotation is Ellipsis:
        return True
    if arguments and origin in (Union, UnionType, tuple, frozenset):
        return all(_is_immutable(argument, depth + 1) for argument in arguments)
    return inspect.isclass(annotation) and origin is None and issubclass(annotation, _IMMUTABLE)


def _union(annotations: Sequence[Any], depth: int) -> list[Schema] | None:
    """The alternatives of several annotations; `None` if one of them is open."""
    schemas: list[Schema] = []
    for annotation in annotations:
        alternatives = _alternatives(annotation, depth)
        if alternatives is None:
            return None
        schemas += [schema for schema in alternatives if schema not in schemas]
    return schemas if len(schemas) <= _MAX_ALTERNATIVES else None


def _alternatives(annotation: Any, depth: int) -> list[Schema] | None:  # noqa: PLR0911 - one per kind
    origin, arguments = get_origin(annotation), get_args(annotation)
    if depth > _MAX_DEPTH:
        return None
    if (meaning := meaning_of(annotation)) is not annotation:
        return _alternatives(meaning, depth + 1)
    if origin is Union or origin is UnionType:
        return _union(arguments, depth + 1)
    if origin is Literal:
        has_plain_values = all(type(value) in (str, int, bool, NoneType) for value in arguments)
        return [{"enum": [*arguments]}] if has_plain_values and ABSENT not in arguments else None
    if origin is list:
        items = _union(arguments, depth + 1)
        if not items:
            return [{"type": "array"}]
        return [{"type": "array", "items": items[0] if len(items) == 1 else {"anyOf": items}}]
    return _class_alternatives(annotation if origin is None else origin)


def _class_alternatives(cls: Any) -> list[Schema] | None:
    """The alternatives of a class without arguments."""
    if isinstance(cls, Hashable) and cls in _TYPES:
        schema: Schema = {"type": _TYPES[cls]}
        return [schema] if cls not in (str, int) else [schema, _ENCODED]
    if not inspect.isclass(cls) or cls is BaseModel:
        return None
    is_object = is_typeddict(cls) or cls in ENCODING_OF_CLASS or object_form(cls) is not None
    return [_ENCODED] if is_object else None


@dataclass(frozen=True, slots=True)
class ProgramTask:
    """A node or START, with its successors.

    Attributes:
        node: LangGraph's name.
        tool: Its tool; that of START is never called.
        internal: The service's own tool that replaces it.
        edges: Unconditional successors, sorted, without END.
        routers: Conditional edges with calls of their own.
        fused: Conditional edges within its own call, unless a packet started it.
        has_handler: Whether an error handler may have made its result.
        is_deferred: Whether it waits until all other nodes are done.
    """

    node: str
    tool: ToolSpec
    internal: str | None
    edges: tuple[str, ...]
    routers: tuple[ProgramRouter, ...]
    fused: tuple[ProgramRouter, ...]
    has_handler: bool
    is_deferred: bool

    @property
    def routing_tools(self) -> tuple[ToolSpec, ...]:
        """The tools whose results may route; the node's own is first."""
        return (self.tool, *(router.tool for router in self.routers if router.tool is not None))

    @property
    def is_routed(self) -> bool:
        """Whether more than its edges decides its successors."""
        return bool(self.routers) or any(tool.targets != frozenset() for tool in self.routing_tools)

    @property
    def has_lookup_router(self) -> bool:
        """Whether a field decides its successors."""
        return any(router.tool is None for router in self.routers)

    @property
    def may_end(self) -> bool:
        """Whether it may have no successor; for nodes that start at most one task."""
        if self.edges:
            return False
        if self.has_lookup_router:
            return any(END in router.values for router in self.routers)
        return not self.is_routed or any(
            tool.may_end for tool in self.routing_tools if tool.role == "router" or not self.routers
        )

    @property
    def may_start_several(self) -> bool:
        """Whether more than one task may follow it in one step."""
        no_nodes: frozenset[str] = frozenset()
        exits = len(self.edges) + len(self.routers) + (self.tool.targets != no_nodes)
        return exits > 1 or any(
            t.sends != no_nodes or (t.targets != no_nodes and not t.single)
            for t in self.routing_tools
        )


@dataclass(frozen=True)
class TaskGraph:
    """A graph with its tools.

    Attributes:
        spec: The graph.
        start: START and what it starts.
        tasks: Nodes by name, sorted as LangGraph applies their writes.
        tokens: Node → routing token.
        fields: The state fields in the program.
        is_wide: Whether any node may be started from outside, beside others.
        takes_packets: Whether a packet from outside may go to any node.
    """

    spec: GraphSpec
    start: ProgramTask
    tasks: Mapping[str, ProgramTask]
    tokens: Mapping[str, str]
    fields: FieldVariables
    is_wide: bool = False
    takes_packets: bool = False

    @property
    def start_and_tasks(self) -> tuple[ProgramTask, ...]:
        """START and all nodes."""
        return (self.start, *self.tasks.values())

    @cached_property
    def joins(self) -> tuple[Join, ...]:
        """The joins that start a node, each source once."""
        return tuple(
            Join(tuple(dict.fromkeys(join.sources)), join.target)
            for join in self.spec.joins
            if join.target in self.tasks
        )

    @cached_property
    def receivers(self) -> frozenset[str]:
        """Nodes that may get a packet."""
        receivers: set[str] = set()
        if self.takes_packets:  # the service's own tools have no parameter for one
            receivers |= {node for node, task in self.tasks.items() if task.internal is None}
        for task in self.start_and_tasks:
            for tool in task.routing_tools:
                receivers |= self.tasks.keys() if tool.sends is None else tool.sends
        return frozenset(receivers)

    @cached_property
    def has_undeclared_targets(self) -> bool:
        """Whether a tool may route to any node."""
        return any(
            tool.targets is None for task in self.start_and_tasks for tool in task.routing_tools
        )

    @cached_property
    def is_parallel(self) -> bool:
        """Whether two tasks may run in one step."""
        starts_several = any(task.may_start_several for task in self.start_and_tasks)
        return self.is_wide or bool(self.joins) or starts_several

    @property
    def written(self) -> frozenset[str]:
        """Fields that some node may write."""
        return frozenset(field for task in self.tasks.values() for field in task.tool.writes)

    def overwritable(self) -> frozenset[str]:
        """Sums that some node may overwrite."""
        return frozenset(
            field
            for task in self.tasks.values()
            if task.tool.overwrites
            for field in task.tool.writes
            if self.fields.plans[field].kind == "sum"
        )

    def written_by_several(self) -> frozenset[str]:
        """Fields that may get several writes in a step."""
        if not self.is_parallel:
            return frozenset()
        receivers = self.receivers
        writers = Counter(
            field
            for node, task in self.tasks.items()
            for field in task.tool.writes * (2 if node in receivers else 1)
        )
        return frozenset(field for field, count in writers.items() if count > 1)

    @cached_property
    def split_nodes(self) -> frozenset[str]:
        """Nodes whose calls precede all nodes of their step, if several are due."""
        if not self.is_parallel:
            return frozenset()
        return frozenset(node for node, task in self.tasks.items() if not task.tool.not_split)

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The tools that the service gets."""
        tools = [
            task.tool if task.internal is None else self._handover_tool(task.tool)
            for task in self.tasks.values()
        ]
        routers = [router.tool for task in self.start_and_tasks for router in task.routers]
        for node in self.in_order(self.receivers):
            routers += [router.tool for router in self.tasks[node].fused]
        return (*tools, *(router for router in routers if router is not None))

    def _handover_tool(self, tool: ToolSpec) -> ToolSpec:
        """The tool that passes on the answer of the service's own tool for the replaced node."""
        field = tool.writes[0]
        answer = Parameter(self.fields.keys[field], field, "field")
        return replace(
            tool,
            reads=(field,),
            parameters=(answer,),
            writes=(),
            definite=frozenset(),
            changes=(),
            is_handover=True,
        )

    def in_order(self, nodes: Iterable[str]) -> list[str]:
        """These nodes in the order of the tasks."""
        chosen = frozenset(nodes)
        return [node for node in self.tasks if node in chosen]

    @cached_property
    def successors(self) -> dict[str, list[str]]:
        """Node (or START) → nodes that may run because it did."""
        successors: dict[str, list[str]] = {}
        for task in self.start_and_tasks:
            targets = set(task.edges)
            for tool in task.routing_tools:
                for names in (tool.targets, tool.sends):
                    targets |= self.tasks.keys() if names is None else names
            targets |= {node for router in task.routers for node in router.values}
            targets |= {join.target for join in self.joins if task.node in join.sources}
            successors[task.node] = self.in_order(targets)
        return successors

    def longest_run(self) -> int | None:
        """The highest number of steps of a run; `None` without a simple bound.

        Without a cycle, it is the length of the longest path. A deferred node waits for more than
        its path shows.
        """
        if any(task.is_deferred for task in self.tasks.values()):
            return None
        try:
            order = list(TopologicalSorter(self.successors).static_order())
        except CycleError:
            return None
        longest: dict[str, int] = {}
        for node in order:  # successors come first
            longest[node] = 1 + max(map(longest.__getitem__, self.successors[node]), default=0)
        return max(longest.values()) if self.is_wide else longest[self.start.node] - 1
