"""A policy as the checks see it: its rules with their compiled conditions, and walks over them."""

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.coerce import ToolArguments
from langchain_sequrity.sqrt.compiler import (
    CompiledTool,
    CompiledUpdate,
    ConditionParts,
    Reporter,
    Test,
)
from langchain_sequrity.sqrt.matchers import MatchBudget
from langchain_sequrity.sqrt.nodes import ToolId

LabelName = tuple[nodes.Field, str]
Owner = Literal["values", "session"]
"""Whose labels: those of values, which results inherit, or of the session."""

_MOST_ELEMENTS = 1_000_000  # of all sets, counted at each use


class CheckedTool(NamedTuple):
    """A block or a one-liner.

    Attributes:
        node: The block or one-liner as a node.
        compiled: The block or one-liner as functions.
        matched_tools: The tools that match it, with their arguments; `None` if unknown.
    """

    node: nodes.ToolBlock | nodes.OneLiner
    compiled: CompiledTool
    matched_tools: Mapping[str, ToolArguments] | None


class Clause(NamedTuple):
    """A rule or a step.

    Attributes:
        tool: Its block or one-liner.
        node: The rule or step as a node.
        test: Its condition as a function, or `None` for `always`.
        parts: The parts of all conditions of the policy.
        phase: When a step runs; `None` for a rule.
        changes: The updates of a step as functions.
    """

    tool: CheckedTool
    node: nodes.CheckRule | nodes.UpdateStep
    test: Test | None
    parts: ConditionParts
    phase: nodes.Phase | None = None
    changes: tuple[CompiledUpdate, ...] = ()

    @property
    def rule(self) -> nodes.CheckRule | None:
        """The rule; `None` for a step."""
        return self.node if isinstance(self.node, nodes.CheckRule) else None

    @property
    def updates(self) -> tuple[nodes.Update, ...]:
        """The updates of a step; empty for a rule."""
        return () if isinstance(self.node, nodes.CheckRule) else self.node.updates

    @property
    def restricts(self) -> bool:
        """Whether it denies, adds labels or removes consumers if its condition holds."""
        if isinstance(self.node, nodes.CheckRule):
            return self.node.decision == "deny"
        return any(
            update.target.field == "consumers" or update.assignment in {"=", "|=", "^="}
            for update in self.node.updates
        )


class LabelReads(NamedTuple):
    """The labels that a condition reads.

    Attributes:
        tests: Its single tests, each with what it compares: values, sets of labels, constants.
        metas: All sets of labels in them.
        positions: The positions of these, and of the texts that are compared with them.
        open_tests: The tests that labels do not decide, each with its shape without position, and
            whether it reads the result's value.
    """

    tests: tuple[tuple[nodes.Tests, Sequence[Any]], ...]
    metas: tuple[nodes.Meta, ...]
    positions: frozenset[nodes.Position]
    open_tests: Mapping[nodes.Position, tuple[Hashable, bool]]


class CheckedPolicy:
    """A policy that compiles.

    Args:
        policy: The policy.
        tools: Its compiled blocks and one-liners, in source order.
        matched: The tools that match each block, with their arguments; `None` if unknown.
        report: Receives findings.

    Attributes:
        declarations: Its declarations.
        tools: Its blocks and one-liners, in source order.
        report: Receives findings.
    """

    def __init__(
        self,
        policy: nodes.Policy,
        tools: Sequence[CompiledTool],
        matched: Mapping[ToolId, Mapping[str, ToolArguments]] | None,
        report: Reporter,
    ) -> None:
        self.declarations = policy.declarations
        self.bindings = nodes.bindings_of(policy)
        self.tools = [
            CheckedTool(node, compiled, None if matched is None else matched.get(node.tool, {}))
            for node, compiled in zip(nodes.tools_of(policy), tools, strict=True)
        ]
        self.report = report
        self._elements_left = _MOST_ELEMENTS
        self._label_reads: dict[int, LabelReads] = {}

    @property
    def is_read_in_part(self) -> bool:
        """Whether `elements` has left elements out, so that nothing can be said to be missing."""
        return self._elements_left <= 0

    @cached_property
    def all_nodes(self) -> list[Any]:
        """All nodes, each before the nodes in it."""
        return list(nodes.walk(self.declarations))

    @cached_property
    def clauses(self) -> list[Clause]:
        """The rules and steps of each tool, rules first."""
        clauses = []
        for tool in self.tools:
            clauses += [Clause(tool, c.node, c.test, c.parts) for c in tool.compiled.checks]
            clauses += [
                Clause(tool, step.node, step.test, step.parts, step.phase, step.updates)
                for step in tool.compiled.steps
            ]
        return clauses

    def tests(self, clause: Clause) -> Iterator[tuple[nodes.Tests, bool]]:
        """The single tests of a condition, each with whether a call passes more easily with it."""
        return nodes.tests_of(clause.node.condition, self.bindings, passes=not clause.restricts)

    def label_reads(self, clause: Clause) -> LabelReads:
        """The labels that the condition of a rule or a step of this policy reads."""
        reads = self._label_reads.get(id(clause.node))
        if reads is None:
            reads = self._label_reads[id(clause.node)] = self._read_labels(clause)
        return reads

    def _read_labels(self, clause: Clause) -> LabelReads:
        tests: list[tuple[nodes.Tests, Sequence[Any]]] = []
        positions: set[nodes.Position] = set()
        metas: dict[nodes.Meta, None] = {}
        open_tests: dict[nodes.Position, tuple[Hashable, bool]] = {}
        for test, _ in self.tests(clause):
            elements = [
                element
                for side in operands_of(test)
                for element in self.elements(side, removed=True)
            ]
            read = metas_in(elements)
            tests.append((test, elements))
            metas |= dict.fromkeys(read)
            if read:
                positions |= {meta.at for meta in read}
                positions |= {text.at for text in elements if isinstance(text, nodes.TextLiteral)}
            if not is_decided(elements):
                values = (e for e in elements if isinstance(e, nodes.ValueRef))
                reads_result = any(value.scope == "result" for value in values)
                open_tests[test.at] = shape_of(test, {"at"}), reads_result
        return LabelReads(tuple(tests), tuple(metas), frozenset(positions), open_tests)

    def elements(self, members: object, *, removed: bool = False) -> Iterator[Any]:
        """As `elements_of`, or a part of them if there are very many."""
        for element in nodes.elements_of(members, self.bindings, removed=removed):
            if self._elements_left <= 0:
                return
            self._elements_left -= 1
            yield element

    def texts(self, members: object) -> Iterator[nodes.TextLiteral]:
        """The texts and patterns in a set, or the single text."""
        for element in self.elements(members):
            text = text_of(element)
            if isinstance(text, nodes.TextLiteral):
                yield text

    def labels(self, test: nodes.Tests) -> Iterator[tuple[nodes.Meta, nodes.TextLiteral]]:
        """The names of labels in a test, each with the labels among which it is looked for."""
        match test:
            case nodes.Membership(value=nodes.TextLiteral() as text, set=members):
                for element in self.elements(members):
                    if isinstance(element, nodes.Meta):
                        yield element, text
            case nodes.LabelTest(left=meta, right=members):
                for text in self.texts(members):
                    yield meta, text


def may_overlap(block: CheckedTool, other: CheckedTool) -> bool:
    """Whether two blocks may apply to the same tool."""
    if block.matched_tools is not None and other.matched_tools is not None:
        return not block.matched_tools.keys().isdisjoint(other.matched_tools)
    for first, second in ((block, other), (other, block)):
        if second.node.tool.text.kind == "plain":
            return first.compiled.matches(second.node.tool.text.raw, MatchBudget()) is not False
    return True  # two regexes are not compared


def owner_of(meta: nodes.Meta, clause: Clause) -> Owner:
    """The owner of labels in a rule or a step."""
    is_short = meta.scope == "short" and clause.phase != "result"
    return "session" if meta.scope == "session" or is_short else "values"


def short_scope(clause: Clause) -> str:
    """What the short form means in a condition; empty if it has no known meaning."""
    if clause.phase is None or isinstance(clause.tool.node, nodes.OneLiner):
        return ""
    return "result" if clause.phase == "result" else "session"


def metas_in(elements: Sequence[Any]) -> list[nodes.Meta]:
    """The sets of labels among the elements of a test."""
    return [element for element in elements if isinstance(element, nodes.Meta)]


def is_decided(elements: Sequence[Any], sought: Collection[str] = ()) -> bool:
    """Whether the labels of a call, and the values that are sought among them, decide a test."""
    for element in elements:
        if isinstance(element, nodes.ValueRef):
            if element.scope != "arg" or element.argument not in sought:
                return False
        elif isinstance(element, nodes.TextLiteral):
            if element.kind != "plain" or "\\" in element.raw:
                return False
        elif not (element is None or isinstance(element, nodes.Meta)):
            return False
    return True


def is_whole(test: nodes.Tests, metas: Sequence[nodes.Meta]) -> bool:
    """Whether the labels in a test are not only looked for by name."""
    match test:
        case nodes.Membership(value=nodes.TextLiteral()) | nodes.Equality():
            return False
        case nodes.Membership():
            return True
        case nodes.LabelTest(test=comparison):
            return len(metas) > 1 or comparison not in {"overlaps", "superset"}


def text_of(element: Any) -> Any:
    """The text of an element `str "…"`; other elements are unchanged."""
    return element.text if isinstance(element, nodes.TextDomain) else element


def operands_of(test: nodes.Tests) -> tuple[Any, Any]:
    """Both operands of a test."""
    match test:
        case nodes.Membership():
            return test.value, test.set
        case nodes.Equality() | nodes.LabelTest():
            return test.left, test.right


def value_test(test: nodes.Tests) -> tuple[nodes.ValueRef, object] | None:
    """The value in a test, and what it is compared with, if that is no value."""
    match operands_of(test):
        case (nodes.ValueRef(), nodes.ValueRef()):
            return None
        case (nodes.ValueRef() as value, members) | (members, nodes.ValueRef() as value):
            return value, members
    return None


def constant_effect(rule: nodes.CheckRule, *, holds: bool) -> str:
    """The effect of a rule whose condition always or never holds."""
    if (rule.strength, rule.decision) == ("soft", "allow"):
        return "allows every call" if holds else "does nothing"
    return "denies every call" if denies(rule, holds=holds) else "denies nothing"


def denies(rule: nodes.CheckRule, *, holds: bool) -> bool:
    """Whether a rule denies more than intended if its condition always or never holds."""
    return holds is (rule.decision == "deny")


def shape_of(node: Any, ignored: Collection[str]) -> Hashable:
    """A node without some of its fields. Numbers keep their type: 1 and 1.0 can differ."""
    if isinstance(node, tuple):
        return tuple(shape_of(part, ignored) for part in node)
    names = getattr(node, "__dataclass_fields__", None)
    if names is None:
        return type(node).__name__, node
    parts = (getattr(node, name) for name in names if name not in ignored)
    return type(node).__name__, *(shape_of(part, ignored) for part in parts)


def enum_values(schema: Mapping[str, Any]) -> list[Any] | None:
    """The values that a schema lists, or `None`."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return list(values) if isinstance(values, list | tuple) else None
