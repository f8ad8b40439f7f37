"""Writes a plan as the text of a module that a person can read, run and send to others."""

from collections.abc import Iterable, Iterator

from tests.graph.plans import END, FIELDS, PRIVATE, Decision, Node, Packet, Plan, Router, Target

_HEAD = """
import operator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal, TypedDict

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.channels import AnyValue, DeltaChannel, EphemeralValue, Topic, UntrackedValue
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Overwrite, Send, interrupt
from pydantic import BaseModel, Field

seen = []
failed = {}


def note(*what):
    seen.append(deepcopy(what))  # reducers may change messages in place later
    if len(seen) > 300:
        raise OverflowError("too many steps")


def fail(me, times):
    failed[me] = failed.get(me, 0) + 1
    if failed[me] <= times:
        raise ArithmeticError(me)


def shifted(old, new):
    return (old * 10 + new) % 1_000_003


def unique_(old, new):
    return old + [one for one in new if one not in old]


def extended(state, batch):
    return [*state, *(f"{len(batch)}:{one}" for update in batch for one in update)]
"""


def text_of(plan: Plan) -> str:
    """A module with `build`, `INPUT`, `LIMIT`, `OPTIONS` and `seen`."""
    parts = [_HEAD, *_schemas(plan)]
    parts += [_node(plan, node) for node in plan.nodes]
    parts += [_router(plan, router) for router in plan.routers]
    given = {name: FIELDS[name].given for name in plan.given}
    parts += [
        _build(plan),
        f"INPUT = {_dict(given)}\nLIMIT = {plan.limit}\nOPTIONS = {_options(plan)!r}\n",
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _dict(items: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key!r}: {value}" for key, value in items.items()) + "}"


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _schemas(plan: Plan) -> Iterator[str]:
    public = [name for name in plan.fields if name not in (*PRIVATE, "item")]
    if plan.state == "TypedDict":
        yield _typed_dict("State", public)
    else:
        fields = [_with_default(plan.state, name) for name in public]
        head = (
            "class State(BaseModel):" if plan.state == "BaseModel" else "@dataclass\nclass State:"
        )
        yield f"{head}\n{_indented(fields)}"
    used = {node.schema for node in plan.nodes} | {router.schema for router in plan.routers}
    if "Private" in used:
        private = [name for name in plan.fields if name in ("n", "log", *PRIVATE)]
        yield _typed_dict("Private", private)
    if "Work" in used:
        yield _typed_dict("Work", [name for name in plan.fields if name in ("n", "log", "item")])
    if plan.inputs:
        yield _typed_dict("Input", plan.inputs)
    if plan.outputs:
        yield _typed_dict("Output", plan.outputs)


def _typed_dict(name: str, fields: Iterable[str]) -> str:
    lines = [f"{one}: {FIELDS[one].annotation}" for one in fields] or ["pass"]
    return f"class {name}(TypedDict, total=False):\n{_indented(lines)}"


def _with_default(state: str, name: str) -> str:
    kind = FIELDS[name]
    factory = "Field" if state == "BaseModel" else "field"
    return f"{name}: {kind.annotation} = {factory}(default_factory=lambda: {kind.default})"


# -- functions


def _node(plan: Plan, node: Node) -> str:
    annotation = "" if node.scalar else f": {node.schema}"
    returned = ""
    if node.goto is not None and node.declared == "literal" and not node.scalar:
        returned = f" -> Command[Literal[{', '.join(map(repr, node.goto.targets()))}]]"
    lines = [f"me = {node.name!r}"]
    if node.scalar:
        lines += [
            "if not isinstance(state, dict):",
            "    note(me, state)",
            "    return {'n': 1, 'log': [state]}",
        ]
    get = "state.get"
    if node.access == "opaque":
        lines += ["note(me, dict(state) if isinstance(state, dict) else state)"]
    if node.access == "declared" and plan_reads_dicts(plan, node.schema):
        lines, get = [*lines, "get = dict(state).get"], "get"
    lines += _reading(plan, node.schema, node.reads, get)
    lines += [f"fail(me, {node.fails})"] if node.fails else []
    lines += ["k += len(str(interrupt([me, k])))"] if node.asks else []
    lines += _updating(node)
    if node.goto is not None:
        lines += _deciding(node.goto, None, "goto = {}")
    lines += _returning(node)
    return f"def {node.function}(state{annotation}){returned}:\n{_indented(lines)}"


def plan_reads_dicts(plan: Plan, schema: str) -> bool:
    """Whether a value of this schema is a dict."""
    return schema != "State" or plan.state == "TypedDict"


def _reading(plan: Plan, schema: str, reads: Iterable[str], get: str) -> list[str]:
    lines = []
    for name in reads:
        read = f"{get}({name!r}, {FIELDS[name].default})"
        lines.append(f"{name} = {read if plan_reads_dicts(plan, schema) else f'state.{name}'}")
    terms = " + ".join(f"{i + 1} * {FIELDS[name].term}" for i, name in enumerate(reads))
    noted = "".join(f", {name}" for name in reads)
    return [*lines, f"note('at', me{noted})", f"k = ({terms or '0'}) % 1000"]


def _updating(node: Node) -> list[str]:
    always = {one.field: one.expression for one in node.writes if one.every == 1}
    lines = [f"update = {_dict(always)}"]
    for one in node.writes:
        if one.every > 1:
            lines += [f"if k % {one.every} == 0:", f"    update[{one.field!r}] = {one.expression}"]
    return lines


def _returning(node: Node) -> list[str]:
    goto = "" if node.goto is None else ", goto=goto"
    match node.style:
        case "pairs":
            return [f"return Command(update=list(update.items()) + [('n', 0)]{goto})"]
        case "list":
            return [
                f"return [{{'n': 0}}, Command(update=update{goto}), Command(update={{'n': 0}})]"
            ]
        case "none" if node.goto is None:
            return ["if k % 5 == 4:", "    return None", "return update"]
        case "none":
            return ["if k % 5 == 4:", "    return update", f"return Command(update=update{goto})"]
        case _ if node.goto is not None:
            return [f"return Command(update=update{goto})"]
        case _:
            return ["return update"]


def _router(plan: Plan, router: Router) -> str:
    annotation = f": {router.schema}" if router.schema else ""
    returned = ""
    if router.declared == "literal":
        returned = f" -> Literal[{', '.join(map(repr, router.decision.targets()))}]"
    labels = path_map(router)
    lines = [
        f"me = {router.function!r}",
        *_reading(plan, router.schema or "State", router.reads, "state.get"),
        *_deciding(router.decision, labels, "return {}"),
    ]
    return f"def {router.function}(state{annotation}){returned}:\n{_indented(lines)}"


def path_map(router: Router) -> dict[str, str] | None:
    """The text of the label of each target, if there are labels."""
    if router.declared != "map":
        return None
    targets = router.decision.targets()
    if len(targets) == 2:
        return dict(zip(targets, ["True", "False"], strict=True))
    return {target: repr(f"to {target}") if i % 2 else str(i) for i, target in enumerate(targets)}


def _deciding(decision: Decision, labels: dict[str, str] | None, form: str) -> list[str]:
    """Lines that choose the targets; `form` is "return {}" or "goto = {}"."""
    rows = [_row(row, labels) for row in decision.choices]
    lines = [f"options = [{', '.join(rows)}]"]
    chosen = f"options[k % {len(rows)}]"
    if decision.stop is None:
        return [*lines, form.format(chosen)]
    end = _target(END, labels)
    return [*lines, form.format(f"{end} if n >= {decision.stop} else {chosen}")]


def _row(row: tuple[Target, ...], labels: dict[str, str] | None) -> str:
    words = [_target(one, labels) for one in row]
    return words[0] if len(words) == 1 else f"[{', '.join(words)}]"


def _target(target: Target, labels: dict[str, str] | None) -> str:
    if isinstance(target, Packet):
        return f"Send({target.node!r}, {target.argument})"
    if target is None or labels is None:
        return repr(target)
    return labels[target]


# -- the graph


def _build(plan: Plan) -> str:
    schemas = ""
    if plan.inputs:
        schemas += ", input_schema=Input"
    if plan.outputs:
        schemas += ", output_schema=Output"
    lines = [f"graph = StateGraph(State{schemas})"]
    for node in plan.nodes:
        lines += _adding(node)
    lines += [f"graph.add_edge({source!r}, {target!r})" for source, target in plan.edges]
    lines += [f"graph.add_edge({list(sources)!r}, {target!r})" for sources, target in plan.joins]
    for router in plan.routers:
        labels = path_map(router)
        way = ""
        if labels is not None:
            way = ", {" + ", ".join(f"{text}: {name!r}" for name, text in labels.items()) + "}"
        elif router.declared == "list":
            way = f", {router.decision.targets()!r}"
        lines.append(f"graph.add_conditional_edges({router.source!r}, {router.function}{way})")
    return f"def build():\n{_indented([*lines, 'return graph'])}"


def _adding(node: Node) -> list[str]:
    extra = ", defer=True" if node.defer else ""
    if node.goto is not None and (
        node.declared == "destinations" or (node.scalar and node.declared == "literal")
    ):
        extra += f", destinations={tuple(node.goto.targets())!r}"
    match node.wrapped:
        case "partial":
            action = f"partial({node.function})"
        case "lambda":
            action = f"RunnableLambda({node.function})"
        case "subgraph":
            return [
                f"inner = StateGraph({node.schema})",
                f"inner.add_node('inner', {node.function})",
                "inner.add_edge(START, 'inner')",
                f"graph.add_node({node.name!r}, inner.compile(){extra})",
            ]
        case _:
            action = node.function
    return [f"graph.add_node({node.name!r}, {action}{extra})"]


def _options(plan: Plan) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for node in plan.nodes:
        options: dict[str, object] = {}
        if node.access == "declared":
            options["reads"] = sorted(node.reads)
            written = {"n", *(["log"] if node.scalar else []), *(one.field for one in node.writes)}
            options["writes"] = sorted(written & plan.channels())
        if node.fused:
            options["fuse_router"] = True
        if options:
            found[node.name] = options
    return found
