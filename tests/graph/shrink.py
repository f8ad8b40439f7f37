"""Makes a plan smaller while it still shows a problem, so that a person can read the graph."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from tests.graph.plans import Decision, Node, Plan, Router

_T = TypeVar("_T")


def shrink(plan: Plan, shows: Callable[[Plan], bool]) -> Plan:
    """Remove parts as long as `shows` holds."""
    at = 0  # earlier changes did not help; they are tried again at the end
    while True:
        tried = enumerate(_smaller(plan))
        found = next(
            ((i, one) for i, one in tried if i >= at and one.has_entry() and shows(one)), None
        )
        if found is not None:
            at, plan = found
        elif at == 0:
            return plan
        else:
            at = 0


def _smaller(plan: Plan) -> Iterator[Plan]:
    for node in plan.nodes:
        yield plan.without(node.name)
    for name in ("edges", "joins", "routers", "given", "inputs", "outputs"):
        for fewer in _fewer(getattr(plan, name)):
            part: dict[str, Any] = {name: fewer}
            yield replace(plan, **part)
    for i, node in enumerate(plan.nodes):
        yield from (replace(plan, nodes=_with(plan.nodes, i, one)) for one in _simpler_node(node))
    for i, router in enumerate(plan.routers):
        for one in _simpler_router(router):
            yield replace(plan, routers=_with(plan.routers, i, one))
    yield from _simpler_frame(plan)


def _simpler_frame(plan: Plan) -> Iterator[Plan]:
    if plan.state != "TypedDict":
        yield replace(plan, state="TypedDict")
    if plan.limit > 1:
        yield replace(plan, limit=plan.limit - 1)
    used = {"n", "log", *plan.given, *plan.inputs, *plan.outputs}
    for reads in [node.reads for node in plan.nodes] + [router.reads for router in plan.routers]:
        used.update(reads)
    used |= {write.field for node in plan.nodes for write in node.writes}
    if not used.issuperset(plan.fields):
        yield replace(plan, fields=tuple(one for one in plan.fields if one in used))


def _simpler_node(node: Node) -> Iterator[Node]:
    changes: dict[str, Any] = {"goto": None, "style": "update", "wrapped": "", "access": "inferred"}
    changes |= {"scalar": False, "defer": False, "fused": False, "declared": "literal"}
    for name, value in changes.items():
        if getattr(node, name) != value:
            yield replace(node, **{name: value})
    if node.goto is not None:
        yield from (replace(node, goto=one) for one in _simpler_decision(node.goto))
    yield from (replace(node, reads=one) for one in _fewer(node.reads))
    yield from (replace(node, writes=one) for one in _fewer(node.writes))
    for i, write in enumerate(node.writes):
        if write.every > 1:
            yield replace(node, writes=_with(node.writes, i, replace(write, every=1)))


def _simpler_router(router: Router) -> Iterator[Router]:
    if router.declared != "list":
        yield replace(router, declared="list")
    yield from (replace(router, reads=one) for one in _fewer(router.reads))
    yield from (replace(router, decision=one) for one in _simpler_decision(router.decision))


def _simpler_decision(decision: Decision) -> Iterator[Decision]:
    if decision.stop is not None:
        yield replace(decision, stop=None)
    for choices in _fewer(decision.choices):
        if choices:
            yield replace(decision, choices=choices)
    for i, row in enumerate(decision.choices):
        for fewer in _fewer(row):
            if fewer:
                yield replace(decision, choices=_with(decision.choices, i, fewer))


def _fewer(items: tuple[_T, ...]) -> Iterator[tuple[_T, ...]]:
    for i in range(len(items)):
        yield items[:i] + items[i + 1 :]


def _with(items: tuple[_T, ...], i: int, item: _T) -> tuple[_T, ...]:
    return (*items[:i], item, *items[i + 1 :])
