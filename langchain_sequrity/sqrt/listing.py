"""The rules of a policy one by one, with all that the block around each says."""

from collections.abc import Iterator
from dataclasses import dataclass

from langchain_sequrity.sqrt.nodes import (
    Binding,
    Block,
    CheckRule,
    Declaration,
    Number,
    OneLiner,
    Phase,
    Policy,
    Position,
    Step,
    ToolBlock,
    ToolId,
)

PHASES: dict[Phase, str] = {
    "before": "session before", "result": "result", "after": "session after",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Listed:
    """A name, a priority, a check rule or a change of labels.

    Attributes:
        node: What it is; a block only if it has no steps.
        at: Where it stands.
        kind: `name`, `priority`, `must deny`, …, `result`, `session before` or `session after`.
        tool: The tools that it is for; names are for all.
        docs: Doc comments, that of the block around it first.
        phase: When a change runs.
        priority: That of a one-liner, or what a check rule has of its block.
        one_liner: Whether it is one.
    """

    node: Binding | Number | CheckRule | Step | Block
    at: Position
    kind: str
    tool: ToolId | None = None
    docs: tuple[str, ...] = ()
    phase: Phase = "result"
    priority: float = 0
    one_liner: bool = False


def has_rules(policy: Policy) -> bool:
    """Whether a policy decides about any call, or changes labels."""
    return any(
        isinstance(one.node, CheckRule | Step)
        for declaration in policy.declarations
        for one in listed(declaration)
    )


def listed(node: Declaration) -> list[Listed]:
    """What a declaration holds, in source order."""
    if isinstance(node, Binding):
        return [Listed(node, node.at, "name", docs=(node.doc,))]
    if isinstance(node, OneLiner):
        step, phase = node.step, node.phase
        kind, docs = PHASES[phase], (step.doc,)
        priority = 0 if node.priority is None else node.priority.value
        return [Listed(step, step.at, kind, node.tool, docs, phase, priority, one_liner=True)]
    found = [Listed(one, one.at, "priority", node.tool) for one in node.priorities]
    found += (*_checks(node), *_changes(node))
    return sorted(found, key=lambda one: one.at)


def _checks(node: ToolBlock) -> Iterator[Listed]:
    priority = node.priorities[-1].value if node.priorities else 0
    for check in node.checks:
        kind = f"{'must' if check.strength == 'hard' else 'should'} {check.decision}"
        yield Listed(check, check.at, kind, node.tool, (check.doc,), priority=priority)


def _changes(node: ToolBlock) -> Iterator[Listed]:
    for block in node.blocks:
        kind, phase = PHASES[block.phase], block.phase
        if not block.steps:
            yield Listed(block, block.at, kind, node.tool, (block.doc,), phase)
        for step in block.steps:
            yield Listed(step, step.at, kind, node.tool, (block.doc, step.doc), phase)
