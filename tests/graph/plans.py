"""A random graph as data. `random_graphs` makes it, `graph_text` writes it, `shrink` reduces it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

END = "__end__"
START = "__start__"


@dataclass(frozen=True)
class Kind:
    """A kind of field.

    Attributes:
        annotation: The annotation in a schema.
        default: The value that a node uses if the field has none.
        term: An expression that makes an integer from the field.
        writes: Expressions that a node may write; `me` is the node, `k` depends on all it read.
        given: The value that an input may have.
    """

    annotation: str
    default: str
    term: str
    writes: tuple[str, ...]
    given: str


FIELDS = {
    "n": Kind("Annotated[int, operator.add]", "0", "n", ("1",), "2"),
    "total": Kind("Annotated[int, operator.add]", "0", "total", ("k % 7", "-1"), "10"),
    "text": Kind("Annotated[str, operator.add]", "''", "len(text)", ("me", "f'{me}{k};'", "''"), "'given'"),
    "log": Kind("Annotated[list, operator.add]", "[]", "len(log)", ("[me]", "[f'{me}{k}']", "[k, {'at': k}]", "[]"), "['given']"),
    "bag": Kind("Annotated[dict, operator.or_]", "{}", "len(bag)", ("{f'k{k % 3}': k}", "{me: n}", "{}"), "{'k1': -1}"),
    "names": Kind("Annotated[set, operator.or_]", "set()", "len(names)", ("{me}", "{k % 4}"), "{'given'}"),
    "chat": Kind("Annotated[list, add_messages]", "[]", "len(chat)", ("[HumanMessage(me, id=f'm{k % 3}')]", "[AIMessage(f'{me}{k}')]", "[('user', me), AIMessage('x', id=me)]"), "[('user', 'given')]"),
    "digits": Kind("Annotated[int, shifted]", "0", "digits", ("k % 10", "1"), "7"),
    "unique": Kind("Annotated[list, unique_]", "[]", "len(unique)", ("[me, k % 3]", "[k % 5]"), "['given']"),
    "x": Kind("int", "0", "x", ("k", "x + 1", "n"), "5"),
    "y": Kind("str", "''", "len(y)", ("me", "f'{me}{k}'"), "'given'"),
    "z": Kind("list", "[]", "len(z)", ("[me, k]", "z + [me]"), "['given']"),
    "p": Kind("int", "0", "p", ("k", "p + 1"), "3"),
    "q": Kind("Annotated[list, operator.add]", "[]", "len(q)", ("[me]",), "[0]"),
    "item": Kind("int", "0", "item", ("k",), "4"),
    "flash": Kind("Annotated[int, EphemeralValue]", "0", "flash", ("k",), "6"),
    "topic": Kind("Annotated[list, Topic(int)]", "[]", "len(topic)", ("[k]", "k", "[k, 1]"), "[1]"),
    "kept": Kind("Annotated[list, Topic(int, accumulate=True)]", "[]", "len(kept)", ("[k]", "k"), "[2]"),
    "any": Kind("Annotated[int, AnyValue]", "0", "any", ("n", "7"), "8"),
    "loose": Kind("Annotated[int, UntrackedValue]", "0", "loose", ("k",), "9"),
    "delta": Kind("Annotated[list, DeltaChannel(extended)]", "[]", "len(delta)", ("[me]", "[me, k]"), "['given']"),
}  # fmt: skip

PRIVATE = ("p", "q")
OVERWRITABLE = ("total", "text", "log", "bag", "chat", "digits", "unique", "delta")


@dataclass(frozen=True)
class Packet:
    """A `Send`."""

    node: str
    argument: str


Target = str | Packet | None


@dataclass(frozen=True)
class Decision:
    """A choice of targets that depends on what was read.

    Attributes:
        choices: Rows of targets; one row is chosen.
        stop: The number of node runs (`n`) from which the target is the end; `None` for never.
    """

    choices: tuple[tuple[Target, ...], ...]
    stop: int | None = None

    def targets(self) -> list[str]:
        """The names of the targets, each once, without `None`."""
        found = [
            one.node if isinstance(one, Packet) else one for row in self.choices for one in row
        ]
        found += [END] if self.stop is not None else []
        return list(dict.fromkeys(one for one in found if one is not None))


@dataclass(frozen=True)
class Write:
    """A field that a node writes, the expression, and when (every `every`-th value of `k`)."""

    field: str
    expression: str
    every: int = 1


@dataclass(frozen=True)
class Node:
    """A node.

    Attributes:
        name: Its name.
        function: The name of its function.
        schema: The schema of its input.
        reads: The fields that it reads.
        writes: What it writes.
        goto: Where its `Command` goes, if it returns one.
        declared: How these targets are declared: "literal", "destinations" or "no".
        style: How it returns its update: "update", "pairs", "list" or "none" (sometimes nothing).
        access: How its fields are known: "inferred", "declared" or "opaque".
        wrapped: What its function is wrapped in: "", "partial", "lambda" or "subgraph".
        scalar: Whether it may get an argument that is not a dict.
        defer: Whether it is deferred.
        fused: Whether its routers are fused with it.
        asks: Whether it interrupts with a question before it writes.
        fails: How many of its runs fail before one succeeds.
    """

    name: str
    function: str
    schema: str
    reads: tuple[str, ...]
    writes: tuple[Write, ...]
    goto: Decision | None = None
    declared: str = "literal"
    style: str = "update"
    access: str = "inferred"
    wrapped: str = ""
    scalar: bool = False
    defer: bool = False
    fused: bool = False
    asks: bool = False
    fails: int = 0


@dataclass(frozen=True)
class Router:
    """A conditional edge; `declared` is "literal", "map", "list" or "no"; `schema` may be empty."""

    source: str
    function: str
    schema: str
    reads: tuple[str, ...]
    decision: Decision
    declared: str


@dataclass(frozen=True)
class Plan:
    """A whole graph and one run of it."""

    state: str  # "TypedDict", "dataclass" or "BaseModel"
    fields: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]
    joins: tuple[tuple[tuple[str, ...], str], ...]
    routers: tuple[Router, ...]
    given: tuple[str, ...]
    limit: int

    def without(self, name: str) -> "Plan":
        """The same plan without a node, and without everything that leads to it or from it."""
        return replace(
            self,
            nodes=tuple(
                replace(node, goto=_decision_without(node.goto, name))
                for node in self.nodes
                if node.name != name
            ),
            edges=tuple(edge for edge in self.edges if name not in edge),
            joins=tuple(
                (sources, end) for sources, end in self.joins if name not in (*sources, end)
            ),
            routers=tuple(
                replace(router, decision=decision)
                for router in self.routers
                if router.source != name
                and (decision := _decision_without(router.decision, name)) is not None
            ),
        )

    def channels(self) -> set[str]:
        """The fields that the graph has: those of the schemas that it uses."""
        used = {node.schema for node in self.nodes} | {router.schema for router in self.routers}
        hidden = set() if "Private" in used else set(PRIVATE)
        hidden |= set() if "Work" in used else {"item"}
        return set(self.fields) - hidden

    def has_entry(self) -> bool:
        """Whether an edge or a router leads from the start."""
        starts = [source for source, _ in self.edges] + [router.source for router in self.routers]
        return START in starts


def _decision_without(decision: Decision | None, name: str) -> Decision | None:
    if decision is None:
        return None
    rows = tuple(tuple(_targets_without(row, name)) for row in decision.choices)
    rows = tuple(row for row in rows if row)
    return replace(decision, choices=rows) if rows else None


def _targets_without(row: tuple[Target, ...], name: str) -> Iterator[Target]:
    for one in row:
        if (one.node if isinstance(one, Packet) else one) != name:
            yield one
