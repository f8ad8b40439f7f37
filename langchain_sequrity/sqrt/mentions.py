"""Names that a policy mentions: bindings that nothing uses, and labels that look misspelt.

Which labels exist is decided elsewhere, by tools and nodes. But a policy that says `untrusted` in
one place and `untrused` in another hardly means two tags, and a rule for a tag that nothing has
protects nothing.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import get_args

from langchain_sequrity.display import plain
from langchain_sequrity.sqrt.compiler import Report
from langchain_sequrity.sqrt.nodes import (
    Binding,
    Both,
    Combined,
    Compared,
    Edited,
    Either,
    Element,
    Field,
    In,
    Members,
    Meta,
    Name,
    Not,
    OneLiner,
    Policy,
    Position,
    Predicate,
    Set,
    Step,
    Text,
    ToolBlock,
)
from langchain_sequrity.sqrt.slips import Spellings

_COMPARED: dict[Field, str] = {"tags": "tag", "producers": "producer"}
"""Whose slips are looked for: consumers are people, and people are called Anna and Anne."""
_SETS = get_args(Set)


def find_slips(policy: Policy, report: Report) -> set[tuple[Field, str]]:
    """Warn of bindings that nothing uses, and of labels that are nearly others.

    Args:
        policy: A policy without errors: its names are defined once, above where they are used.
        report: Takes what is found.

    Returns:
        The labels that were warned of.
    """
    told: set[tuple[Field, str]] = set()
    mentions = _Mentions(policy)
    has_rules = any(not isinstance(node, Binding) for node in policy.declarations)
    for name, binding in mentions.bindings.items():
        # Of a name with a doc comment somebody has said what it is there for.
        if has_rules and name not in mentions.used and not binding.doc:
            report("warning", f"Nothing uses `{plain(name, limit=60)}`", binding.at)
    for field, kind in _COMPARED.items():
        found, spellings = mentions.labels[field], Spellings()
        for name, at in sorted(found.items(), key=lambda item: item[1]):
            if other := spellings.near(name):
                line = found[other].line
                report(
                    "warning", f"This {kind} is nearly `{plain(other)}` of line {line}",
                    at, "One of them may be misspelt",
                )  # fmt: skip
                told |= {(field, name), (field, other)}
            spellings.add(name)
    return told


class _Mentions:
    """What a policy mentions.

    Attributes:
        bindings: Name → binding; the first where there are several.
        used: Names of bindings that something refers to.
        labels: Field → label → where it stands first.
    """

    def __init__(self, policy: Policy) -> None:
        self.bindings: dict[str, Binding] = {}
        self.used: set[str] = set()
        self.labels: defaultdict[Field, dict[str, Position]] = defaultdict(dict)
        self._fields: dict[str, Field | None] = {}
        self._resolved: set[tuple[str, Field]] = set()
        for node in policy.declarations:
            if isinstance(node, Binding):
                self._bound(node)
            else:
                for predicate, step in _parts(node):
                    self._predicate(predicate)
                    for update in step.updates if step else ():
                        self._set(update.set, update.target.field)

    def _bound(self, node: Binding) -> None:
        self.bindings.setdefault(node.name, node)
        if isinstance(node.value, _SETS):
            self._fields[node.name] = self._field(node.value)
            self._set(node.value, self._fields[node.name])
        else:
            self._predicate(node.value)

    def _predicate(self, root: object) -> None:
        waiting = [root]
        while waiting:
            node = waiting.pop()
            if isinstance(node, Name):
                self.used.add(node.name)
            elif isinstance(node, Not):
                waiting.append(node.inner)
            elif isinstance(node, Both | Either):
                waiting += reversed(node.parts)
            elif isinstance(node, In):
                field = self._field(node.set)
                if isinstance(node.value, Text):
                    self._label(node.value, field)
                self._set(node.set, field)
            elif isinstance(node, Compared) and node.right is not None:
                self._set(node.right, node.left.field)

    def _field(self, node: Set) -> Field | None:
        """Whose labels a set holds; `None` for a set of values, or of what nothing says."""
        for part in _operands(node):
            if isinstance(part, Meta):
                return part.field
            if isinstance(part, Name) and (field := self._fields.get(part.name)):
                return field
        return None

    def _set(self, root: Set, field: Field | None) -> None:
        """Take what a set names, and the bindings in it, for labels of one field."""
        waiting = [root]
        while waiting:
            for part in _operands(waiting.pop()):
                if isinstance(part, Members):
                    for element in part.elements:
                        self._label(element, field)
                elif isinstance(part, Edited):
                    for _, element in part.edits:
                        self._label(element, field)
                elif isinstance(part, Name):
                    self.used.add(part.name)
                    waiting += self._named(part.name, field)

    def _named(self, name: str, field: Field | None) -> Iterator[Set]:
        """The set that has a name, if it is to be taken for labels and is not yet."""
        bound = self.bindings.get(name)
        if bound and field and (name, field) not in self._resolved:
            self._resolved.add((name, field))
            if isinstance(bound.value, _SETS):
                yield bound.value

    def _label(self, element: Element, field: Field | None) -> None:
        if field is not None and isinstance(element, Text) and element.kind == "plain":
            at = self.labels[field].setdefault(element.raw, element.at)
            self.labels[field][element.raw] = min(at, element.at)


def _parts(node: ToolBlock | OneLiner) -> Iterator[tuple[Predicate | None, Step | None]]:
    """Conditions of a tool's rules and steps, each with the step."""
    if isinstance(node, OneLiner):
        yield node.step.condition, node.step
        return
    for rule in node.checks:
        yield rule.condition, None
    for block in node.blocks:
        for step in block.steps:
            yield step.condition, step


def _operands(root: Set) -> Iterator[Set]:
    """A set and all that it is combined of."""
    waiting: list[Set] = [root]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, Combined):
            waiting += reversed(node.operands)
        elif isinstance(node, Edited):
            waiting.append(node.base)
