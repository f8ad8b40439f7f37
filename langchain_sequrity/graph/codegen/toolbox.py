"""The tools of a program: one for each node and each router, with names and parameters."""

import builtins
import keyword
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from langchain_sequrity.errors import GraphNotSupported, UsageError
from langchain_sequrity.graph import _compat
from langchain_sequrity.graph.analysis import access
from langchain_sequrity.graph.analysis.access import (
    Access,
    field_router_of,
    is_model,
    node_access,
    router_access,
)
from langchain_sequrity.graph.analysis.returns import union
from langchain_sequrity.graph.analysis.spec import Branch, GraphSpec
from langchain_sequrity.graph.codec.channels import plan_of
from langchain_sequrity.graph.codec.types import schema_of
from langchain_sequrity.graph.options import FieldRouter, NodeOptions
from langchain_sequrity.graph.program import Parameter, ToolSpec

LONGEST = 64
"""Characters of a tool's name that every provider takes."""

KEYWORDS = frozenset(keyword.kwlist) | frozenset(keyword.softkwlist)
INTERNAL_TOOLS = ("parse_with_ai", "verify_hypothesis", "set_policy", "complete_turn")
"""The service's own tools, which a program may call by these names."""

TAKEN = (
    KEYWORDS
    | frozenset(dir(builtins))
    | frozenset(INTERNAL_TOOLS)
    | {"final_return_value", "datetime", "json", "re", "math"}
)
"""Names that mean something in a program already."""

_OTHERS = re.compile(r"[^A-Za-z0-9_]+")
_MOST_SHOWN = 80


def is_plain(name: str) -> bool:
    """Whether a name can be used as it is: an ASCII identifier, no keyword, no dunder."""
    return (
        name.isidentifier()
        and name.isascii()
        and len(name) <= LONGEST
        and name not in KEYWORDS
        and not name.startswith("__")
    )


def shown(name: str) -> str:
    """A name for a comment: on one line, printable ASCII, not too long."""
    text = ascii(name)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


class Names:
    """A namespace that gives each name once.

    Args:
        taken: Names that are not given.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        """Give nothing yet."""
        self._taken = set(taken)

    def take(self, wish: str, *, otherwise: str = "x") -> str:
        """A free name like the wished one.

        Args:
            wish: Any text.
            otherwise: What to start from if nothing of the wish can be in a name.

        Returns:
            The wish itself if it is a free ASCII identifier, else the nearest that is.
        """
        stem = wish if is_plain(wish) else _stem(wish, otherwise)
        name, number = stem, 1
        while name in self._taken or not is_plain(name):
            number += 1
            ending = f"_{number}"
            name = stem[: LONGEST - len(ending)] + ending
        self._taken.add(name)
        return name

    def copy(self) -> "Names":
        """A namespace in which the same names are taken."""
        return Names(self._taken)

    def claim(self, name: str) -> bool:
        """Take exactly this name; whether it was free."""
        if name in self._taken:
            return False
        self._taken.add(name)
        return True


def _stem(wish: str, otherwise: str) -> str:
    stem = _OTHERS.sub("_", wish).strip("_") or otherwise
    return (f"{otherwise}_{stem}" if stem[0].isdigit() else stem)[:LONGEST]


_PLAIN = NodeOptions()


@dataclass(frozen=True, slots=True)
class RouterTool:
    """A conditional edge: a tool, or a field that is looked up."""

    branch: Branch
    tool: ToolSpec | None
    field: FieldRouter | None


class Toolbox:
    """Makes the tools of one graph.

    Names are given out in one order, so that the same graph has the same names: fields, tools that
    were named, nodes that can keep their name, other nodes, routers.

    Args:
        spec: The graph.
        options: Options by node.

    Attributes:
        keys: State field → its name as a parameter and in results.
        names: The program's namespace; tools are taken in it.
        nodes: Node → tool.
        routers: Node or START → its routers, in LangGraph's order.
    """

    def __init__(self, spec: GraphSpec, options: Mapping[str, NodeOptions]) -> None:
        """Make all tools."""
        self.spec, self.options = spec, options
        parameters = Names(KEYWORDS)
        self.keys = _take_all(parameters, list(spec.channels), otherwise="field")
        self._send_input = parameters.take("send_input")
        said = access.of_fields(spec)
        models = [fields for schema, fields in spec.schemas.items() if is_model(schema)]
        made = {field for fields in models for field in fields}
        self._schemas = {
            field: schema_of([Any] if field in made else said[field], plan_of(channel))
            for field, channel in spec.channels.items()
        }
        self.names = Names(TAKEN)
        self._tool_names = self._claimed()
        unnamed = sorted(node for node in spec.nodes if node not in self._tool_names)
        self._tool_names |= _take_all(self.names, unnamed, otherwise="node")
        self.routers: dict[str, list[RouterTool]] = {}
        for branch in spec.branches:
            self.routers.setdefault(branch.source, []).append(self._router(branch))
        self.nodes = {node: self._node(node) for node in sorted(spec.nodes)}

    def option(self, node: str) -> NodeOptions:
        """The options of a node or of START."""
        return self.options.get(node, _PLAIN)

    def for_packets(self, node: str) -> ToolSpec:
        """The tool of a node that a `Send` may start: it takes what a Send carries."""
        if internal := self.option(node).internal_tool:
            msg = (
                f"Node {node!r} is the internal tool `{internal}`, but a router or a `Command` may "
                "send it packets, whose input fits no parameter. Route to it by its name."
            )
            raise GraphNotSupported(msg, node=node)
        tool = self.nodes[node]
        packet = Parameter(self._send_input, None, "send")
        sees_state = _compat.reads_state(self.spec.nodes[node].runnable)
        # A Send carries what it likes under the names of fields, or leaves them out.
        fields = (replace(one, schema={}) for one in tool.parameters)
        return replace(tool, parameters=(*fields, packet), sees_state=sees_state)

    def _claimed(self) -> dict[str, str]:
        found = {}
        for node, option in self.options.items():
            name = option.tool_name
            if name is None:
                continue
            if not is_plain(name) or not self.names.claim(name):
                msg = (
                    f"`NodeOptions(tool_name={name!r})` of node {node!r} is no free name. A tool's "
                    "name is an identifier of at most 64 ASCII characters, no keyword or built-in "
                    "of Python, and no other tool's name."
                )
                raise UsageError(msg)
            found[node] = name
        return found

    def _router(self, branch: Branch) -> RouterTool:
        field = field_router_of(branch)
        if field is not None:
            return RouterTool(branch, None, field)
        access = router_access(self.spec, branch)
        after = self._tool_names.get(branch.source, "start")
        tool = ToolSpec(
            name=self.names.take(f"{branch.name}__from__{after}", otherwise="router"),
            role="router",
            node=branch.source,
            branch=branch.name,
            parameters=self._parameters(access.reads),
            description=access.description or f"Decides what follows {branch.source!r}.",
            writes=(),
            definite=frozenset(),
        )
        return RouterTool(branch, _with(access, tool), None)

    def _node(self, node: str) -> ToolSpec:
        option = self.option(node)
        access = node_access(self.spec, self.spec.nodes[node], option)
        tool = ToolSpec(
            name=self._tool_names[node],
            role="node",
            node=node,
            branch=None,
            parameters=self._parameters(access.reads),
            description=access.description or f"Node {node!r}.",
            writes=(),
            definite=frozenset(),
        )
        tool = _with(access, tool)
        return self._fused(tool) if option.fuse_router else tool

    def _fused(self, tool: ToolSpec) -> ToolSpec:
        """A node's tool with its routers in it."""
        inner = [one.tool for one in self.routers.get(tool.node, ()) if one.tool is not None]
        if not inner:
            msg = (
                f"`NodeOptions(fuse_router=True)` of node {tool.node!r}: it has no router that "
                "needs a call of its own. Leave the option out."
            )
            raise UsageError(msg)
        everyone = [tool, *inner]
        reads = {str(one.field) for each in everyone for one in each.parameters}
        return replace(
            tool,
            parameters=self._parameters(field for field in self.spec.channels if field in reads),
            own=frozenset(str(one.field) for one in tool.parameters),
            targets=reduce(union, (one.targets for one in everyone)),
            sends=reduce(union, (one.sends for one in everyone)),
            single=len(inner) == 1 and not tool.targets and inner[0].single,
            may_end=all(one.may_end for one in everyone),
            fused=tuple(inner),
        )

    def _parameters(self, reads: Iterable[str]) -> tuple[Parameter, ...]:
        # Managed values are LangGraph's own and have no labels: they go to the node past the call.
        return tuple(
            Parameter(self.keys[field], field, "field", self._schemas[field])
            for field in reads
            if field in self.keys
        )


def _take_all(names: Names, wishes: list[str], *, otherwise: str) -> dict[str, str]:
    """A name for each wish; those that can have what they wish come first."""
    first = sorted(wishes, key=lambda wish: not is_plain(wish))
    given = {wish: names.take(wish, otherwise=otherwise) for wish in first}
    return {wish: given[wish] for wish in wishes}


def _with(access: Access, tool: ToolSpec) -> ToolSpec:
    """A tool with what is known about its access."""
    return replace(
        tool,
        writes=access.writes,
        definite=access.definite,
        targets=access.targets,
        sends=access.sends,
        single=access.single,
        may_end=access.may_end,
        overwrites=access.overwrites,
        reads_from=access.reads_from,
        writes_from=access.writes_from,
    )
