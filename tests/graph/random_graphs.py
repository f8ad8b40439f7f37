"""Random graphs: the same mix of features and the same seed always give the same plan."""

import argparse
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TypeVar

from tests.graph.plans import (
    END,
    FIELDS,
    OVERWRITABLE,
    PRIVATE,
    START,
    Decision,
    Node,
    Packet,
    Plan,
    Router,
    Target,
    Write,
)

_T = TypeVar("_T")
_PLAIN = ("x", "y", "z", "loose", "flash")
_ODD = ("call model-1", "if", "it's", "t", "ta", "tab", "ä b", "2nd", "len", "state")


@dataclass(frozen=True)
class Mix:
    """How often each feature is used: a probability between 0 and 1, except for the first two.

    Attributes:
        fields: The fields besides `n` and `log`.
        nodes: The maximum number of nodes.
        back: An edge leads back.
        router: A node has a router; a second one with half the probability.
        command: A node returns a `Command`.
        send: A choice of targets consists of packets.
        scalar: A packet's argument is not a dict.
        join: There is a join; a second one with half the probability.
        defer: A node is deferred.
        plain: A node writes a given plain field (two writes in a step are a conflict).
        overwrite: A write is an `Overwrite`.
        maybe: A write happens only in some cases.
        private: A node has a private schema.
        schemas: There are schemas for input and output.
        models: The state is a dataclass or a pydantic model.
        odd: Nodes have unusual names.
        wrapped: A node is not a plain function.
        undeclared: Targets are not declared.
        opaque: The analysis cannot know what a node reads.
        fused: A node's routers are fused with it.
        wrong: A router returns an invalid target.
    """

    fields: tuple[str, ...] = ("total", "text", "x", "y")
    nodes: int = 6
    back: float = 0.0
    router: float = 0.4
    command: float = 0.0
    send: float = 0.0
    scalar: float = 0.0
    join: float = 0.0
    defer: float = 0.0
    plain: float = 0.15
    overwrite: float = 0.0
    maybe: float = 0.3
    private: float = 0.0
    schemas: float = 0.0
    models: float = 0.0
    odd: float = 0.0
    wrapped: float = 0.0
    undeclared: float = 0.3
    opaque: float = 0.0
    fused: float = 0.0
    wrong: float = 0.0


_REDUCED = ("total", "text", "bag", "names", "chat", "digits", "unique")
_CHANNELS = ("flash", "topic", "kept", "any", "loose", "delta")
_ALL = tuple(name for name in FIELDS if name not in ("n", "log", "item"))

MIXES = {
    "dags": Mix(join=0.5, defer=0.1, maybe=0.4),
    "cycles": Mix(back=0.4, join=0.3, maybe=0.4),
    "commands": Mix(back=0.25, command=0.5, join=0.2),
    "sends": Mix(back=0.2, send=0.4, command=0.2, scalar=0.2, join=0.1),
    "deferred": Mix(back=0.15, defer=0.4, join=0.5, send=0.1),
    "reducers": Mix(fields=(*_REDUCED, "x", "z"), back=0.2, join=0.2, overwrite=0.08, command=0.1),
    "overwrites": Mix(fields=("total", "text", "chat", "digits"), overwrite=0.25, back=0.2, command=0.1),
    "channels": Mix(fields=(*_CHANNELS, "x"), back=0.25, join=0.2, command=0.1, send=0.1),
    "schemas": Mix(fields=("total", "x", *PRIVATE), private=0.4, schemas=0.7, back=0.2, send=0.1, odd=0.3),
    "models": Mix(fields=("total", "text", "bag", "x", "z"), models=1.0, back=0.2, join=0.2, command=0.2),
    "access": Mix(opaque=0.4, wrapped=0.4, fused=0.4, back=0.2, command=0.2, send=0.1),
    "all": Mix(
        fields=_ALL, nodes=8, back=0.2, router=0.5, command=0.3, send=0.2, scalar=0.1, join=0.5,
        defer=0.15, plain=0.08, overwrite=0.03, private=0.2, schemas=0.3, odd=0.2, wrapped=0.1,
        opaque=0.1, fused=0.15, wrong=0.03,
    ),
}  # fmt: skip


def options_of(
    module: str, count: int, mixes: Collection[str] = tuple(MIXES)
) -> argparse.ArgumentParser:
    """The command-line options of a long run over random graphs."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.graph.{module}")
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--mix", action="append", choices=mixes)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=None)
    return parser


def cases_of(
    options: argparse.Namespace, mixes: Collection[str] = tuple(MIXES)
) -> Iterator[tuple[str, int]]:
    """The mixes and seeds of a long run."""
    chosen = tuple(options.mix or mixes)
    for number in range(options.count):
        yield chosen[number % len(chosen)], options.seed + number // len(chosen)


def plan_of(mix: Mix, seed: int | str) -> Plan:
    """The plan of this mix and seed."""
    return _Planner(mix, random.Random(f"{seed}")).plan()  # noqa: S311 - no secret


class _Planner:
    def __init__(self, mix: Mix, dice: random.Random) -> None:
        self.mix, self.dice = mix, dice
        count = (
            dice.randint(1, mix.nodes) if self.chance(0.2) else dice.randint(3, max(3, mix.nodes))
        )
        names = _ODD if self.chance(mix.odd) else tuple("abcdefghij")
        self.names = dice.sample(names, count)
        modelled = self.chance(mix.models)
        self.state = dice.choice(["dataclass", "BaseModel"]) if modelled else "TypedDict"
        self.fields = ("n", "log", *mix.fields) + (("item",) if mix.send else ())
        self.public = tuple(one for one in self.fields if one not in (*PRIVATE, "item"))
        self.scalars: set[str] = set()
        self.schemas = [self.schema() for _ in self.names]

    def chance(self, probability: float) -> bool:
        return self.dice.random() < probability

    def some(self, items: tuple[_T, ...], probability: float) -> tuple[_T, ...]:
        return tuple(one for one in items if self.chance(probability))

    def plan(self) -> Plan:
        gotos = [
            self.decision(i, commanded=True) if self.chance(self.mix.command) else None
            for i in range(len(self.names))
        ]
        edges, routers = self.ways(gotos)
        # Any decision may send a packet without a dict, so nodes are made after all decisions.
        routed = {router.source for router in routers}
        nodes = [self.node(i, goto, routed=self.names[i] in routed) for i, goto in enumerate(gotos)]
        self.dice.shuffle(nodes)
        with_schemas = self.chance(self.mix.schemas)
        inputs = ("n", *self.some(self.public[1:], 0.6)) if with_schemas else ()
        outputs = ("n", *self.some(self.public[1:], 0.6)) if with_schemas else ()
        looped = self.mix.back or self.mix.send or self.mix.command
        return Plan(
            state=self.state,
            fields=self.fields,
            inputs=inputs,
            outputs=outputs,
            nodes=tuple(nodes),
            edges=edges,
            joins=self.joins(),
            routers=routers,
            given=self.some(inputs or self.public, 0.35),
            limit=self.dice.randint(3, 20) if looped or self.chance(0.3) else 25,
        )

    def schema(self) -> str:
        if self.mix.send and self.chance(0.3):
            return "Work"
        return "Private" if self.chance(self.mix.private) else "State"

    # -- edges and routers

    def target(self, i: int, *, always: bool = False) -> str:
        """The target of an edge or router of the i-th node; -1 is the start.

        Unconditional edges lead back less often, because most such graphs never end.
        """
        if i >= 0 and self.chance(self.mix.back / 4 if always else self.mix.back):
            return self.names[self.dice.randint(0, i)]
        further = self.names[i + 1 :]
        return self.dice.choice(further[:3]) if further and not self.chance(0.1) else END

    def ways(
        self, gotos: list[Decision | None]
    ) -> tuple[tuple[tuple[str, str], ...], tuple[Router, ...]]:
        edges: list[tuple[str, str]] = []
        routers: list[Router] = []
        if self.chance(0.75):
            edges += {(START, self.target(-1)) for _ in range(self.dice.choice([1, 1, 2, 3]))}
        if not edges or self.chance(0.15):
            routers.append(self.router(-1, 0))
        for i, goto in enumerate(gotos):
            routed = self.chance(self.mix.router)
            if routed:
                routers += [
                    self.router(i, at) for at in range(2 if self.chance(self.mix.router / 2) else 1)
                ]
            if (goto is None and not routed) or self.chance(0.15):
                edges += {
                    (self.names[i], self.target(i, always=True))
                    for _ in range(self.dice.choice([1, 1, 2]))
                }
        return tuple(sorted(set(edges))), tuple(routers)

    def router(self, i: int, at: int) -> Router:
        source = self.names[i] if i >= 0 else START
        # A router without a schema gets the schema of its node.
        bare = (i < 0 or self.schemas[i] == "State") and self.chance(0.2)
        schema = "" if bare else "Private" if self.chance(self.mix.private) else "State"
        decision = self.decision(i)
        declared = self.dice.choice(["literal", "map", "list"])
        wrong = any(one is None for row in decision.choices for one in row)
        return Router(
            source=source,
            function=f"route_{i + 1}_{at}",
            schema=schema,
            reads=self.reads(schema or "State"),
            decision=decision,
            declared="no" if wrong or self.chance(self.mix.undeclared) else declared,
        )

    def decision(self, i: int, *, commanded: bool = False) -> Decision:
        rows = [self.row(i, commanded=commanded) for _ in range(self.dice.choice([1, 2, 2, 3]))]
        wide = any(isinstance(one, Packet) for row in rows for one in row)
        bounded = wide or self.chance(2 * self.mix.back)
        return Decision(tuple(rows), self.dice.randint(3, 8) if bounded else None)

    def row(self, i: int, *, commanded: bool) -> tuple[Target, ...]:
        if not commanded and self.chance(self.mix.wrong):
            return (None,)
        if self.chance(self.mix.send):
            packets: list[Target] = [self.packet(i) for _ in range(self.dice.choice([1, 2, 2, 3]))]
            return tuple(packets if self.chance(0.7) else [*packets, self.target(i)])
        return tuple(self.target(i) for _ in range(self.dice.choice([1, 1, 1, 2, 3])))

    def packet(self, i: int) -> Packet:
        name = self.target(i)
        if name == END:
            name = self.names[max(i, 0)]
        if self.chance(self.mix.scalar):
            self.scalars.add(name)
            return Packet(name, self.dice.choice(["k", "f'{k}'", "[k, me]", "(k, me)"]))
        extra = self.dice.choice(["", ", 'x': k", ", 'stray': me", ", 'log': [me]"])
        return Packet(name, f"{{'item': k, 'n': n + 1{extra}}}")

    def joins(self) -> tuple[tuple[tuple[str, ...], str], ...]:
        found = []
        for probability in (self.mix.join, self.mix.join / 2):
            if len(self.names) > 2 and self.chance(probability):
                *sources, end = self.dice.sample(
                    range(len(self.names)), self.dice.choice([3, 3, min(4, len(self.names))])
                )
                if not self.mix.back:
                    *sources, end = sorted([*sources, end])
                found.append((tuple(self.names[one] for one in sources), self.names[end]))
        return tuple(found)

    # -- nodes

    def node(self, i: int, goto: Decision | None, *, routed: bool) -> Node:
        scalar = self.names[i] in self.scalars
        schema = "State" if scalar else self.schemas[i]
        dict_state = self.state == "TypedDict"
        plain = schema == "State" and dict_state
        wraps = (
            ("partial", "lambda", "subgraph")
            if goto is None and not scalar and not self.mix.back and not self.mix.send
            else ("partial", "lambda")
        )
        known = ["inferred", "inferred", "declared"] if dict_state else ["inferred"]
        access = "opaque" if self.chance(self.mix.opaque) else self.dice.choice(known)
        return Node(
            name=self.names[i],
            function=f"node_{i + 1}",
            schema=schema,
            reads=self.reads(schema),
            writes=tuple(self.writes()),
            goto=goto,
            declared="no"
            if self.chance(self.mix.undeclared / 2)
            else self.dice.choice(["literal", "destinations"]),
            style=self.dice.choice(
                ["update"] * 5 + (["none", "pairs", "list"] if self.mix.command else ["none"])
            ),
            access=access,
            wrapped=self.dice.choice(wraps) if plain and self.chance(self.mix.wrapped) else "",
            scalar=scalar,
            defer=self.chance(self.mix.defer),
            fused=routed and self.chance(self.mix.fused),
        )

    def reads(self, schema: str) -> tuple[str, ...]:
        readable = {
            "State": self.public,
            "Private": ("n", "log", *(one for one in PRIVATE if one in self.fields)),
            "Work": ("n", "log", "item"),
        }[schema]
        return ("n", *self.some(readable[1:], 0.4))

    def writes(self) -> list[Write]:
        found = [Write("n", "1")]
        for name in self.fields[1:]:
            often = self.mix.plain if name in (*_PLAIN, "p", "item") else 0.4
            if not self.chance(0.8 if name == "log" else often):
                continue
            expression = self.dice.choice(FIELDS[name].writes)
            if name == "z" and "z" in expression:
                expression = "[k]"
            if name in ("x", "p") and name in expression:
                expression = "k"
            if name in OVERWRITABLE and self.chance(self.mix.overwrite):
                expression = f"Overwrite({expression})"
            found.append(
                Write(
                    name,
                    expression,
                    1 if not self.chance(self.mix.maybe) else self.dice.choice([2, 3]),
                )
            )
        return found
