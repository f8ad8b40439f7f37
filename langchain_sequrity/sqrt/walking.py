"""Conditions and sets, walked through the names in them: what a rule looks at, and which way."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from langchain_sequrity.sqrt.nodes import (
    Binding,
    Both,
    CheckRule,
    Combined,
    Compared,
    Edited,
    Either,
    Element,
    In,
    Members,
    Meta,
    Name,
    Not,
    OneLiner,
    Phase,
    Policy,
    Predicate,
    Same,
    Set,
    Step,
    ToolBlock,
    Update,
)

Bindings = Mapping[str, Binding]
Tests = In | Same | Compared


class Part(NamedTuple):
    """A rule or a step of a tool.

    Attributes:
        condition: Its condition, or `None` for `always`.
        rule: The rule, or `None` for a step.
        step: The step, or `None` for a rule.
        phase: When a step runs, `None` for a rule.
        restricts: Whether a call is worse off where the condition holds: it is denied, labels are
            added, readers are taken away.
    """

    condition: Predicate | None
    rule: CheckRule | None
    step: Step | None
    phase: Phase | None
    restricts: bool


def bindings_of(policy: Policy) -> dict[str, Binding]:
    """The names of a policy."""
    return {node.name: node for node in policy.declarations if isinstance(node, Binding)}


def tools_of(policy: Policy) -> list[ToolBlock | OneLiner]:
    """The blocks and one-liners of a policy, in source order."""
    return [node for node in policy.declarations if not isinstance(node, Binding)]


def parts_of(node: ToolBlock | OneLiner) -> Iterator[Part]:
    """The rules of a tool, then its steps."""
    if isinstance(node, OneLiner):
        yield _step(node.step, node.phase)
        return
    for rule in node.checks:
        yield Part(rule.condition, rule, None, None, rule.decision == "deny")
    for block in node.blocks:
        for step in block.steps:
            yield _step(step, block.phase)


def _step(step: Step, phase: Phase) -> Part:
    return Part(step.condition, None, step, phase, any(map(_restricts, step.updates)))


def _restricts(update: Update) -> bool:
    return update.target.field == "consumers" or update.assignment in {"=", "|=", "^="}


def tests_of(
    condition: object, bindings: Bindings, *, passes: bool
) -> Iterator[tuple[Tests, bool]]:
    """The single tests of a condition.

    Args:
        condition: The condition.
        bindings: What the names in it stand for.
        passes: Whether a call passes where the condition holds.

    Yields:
        Each test, with whether a call passes where that test holds.
    """
    waiting: list[tuple[object, bool]] = [(condition, passes)]
    seen = set()
    while waiting:
        node, passes = waiting.pop()
        parts: Sequence[object] = ()
        match node:
            case Name(name=name) if name in bindings and (name, passes) not in seen:
                seen.add((name, passes))
                parts = (bindings[name].value,)
            case Not(inner=inner):
                parts, passes = (inner,), not passes
            case Both(parts=parts) | Either(parts=parts):
                pass
            case In() | Same() | Compared():
                yield node, passes
        waiting += ((part, passes) for part in reversed(parts))


def elements_of(root: object, bindings: Bindings) -> Iterator[Element | Meta]:
    """What a set is written of: elements, and sets of labels; without what is taken out of it."""
    waiting: list[Set | object] = [root]
    seen = set()
    while waiting:
        node = waiting.pop()
        match node:
            case Name(name=name) if name in bindings and name not in seen:
                seen.add(name)
                waiting.append(bindings[name].value)
            case Members(elements=elements):
                yield from elements
            case Meta():
                yield node
            case Combined(operator="-", operands=operands):
                waiting.append(operands[0])
            case Combined(operands=operands):
                waiting += reversed(operands)
            case Edited(base=base, edits=edits):
                yield from (element for adds, element in edits if adds)
                waiting.append(base)
            case Name():
                pass
            case _:  # a domain that has a name
                yield node  # type: ignore[misc]
