"""A policy as the checks see it: its rules with their compiled conditions, and walks over them."""

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cached_property
from typing import Any, NamedTuple

from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.coerce import Arguments
from langchain_sequrity.sqrt.compiler import CompiledCheck, CompiledTool, Reporter, Test
from langchain_sequrity.sqrt.nodes import Clause, ToolId

LabelName = tuple[nodes.Field, str]
_MOST_ELEMENTS = 1_000_000  # of all sets, counted at each use


class CheckedTool(NamedTuple):
    """A block or a one-liner.

    Attributes:
        node: It as a node.
        compiled: It as functions.
        known: The tools that match it, with their arguments; `None` if the tools are not known.
    """

    node: nodes.ToolBlock | nodes.OneLiner
    compiled: CompiledTool
    known: Mapping[str, Arguments] | None

    @property
    def clauses(self) -> Iterator[tuple[Clause, Test | None]]:
        """Its rules, then its steps, each with its compiled condition."""
        tests = [check.test for check in self.compiled.checks]
        tests += [step.test for step in self.compiled.steps]
        return zip(nodes.clauses_of(self.node), tests, strict=True)

    @property
    def rules(self) -> Iterator[tuple[nodes.CheckRule, CompiledCheck]]:
        """Its rules; a one-liner has none."""
        found = (clause.rule for clause, _ in self.clauses if clause.rule)
        return zip(found, self.compiled.checks, strict=True)


class CheckedPolicy:
    """A policy that compiles.

    Args:
        policy: The policy.
        tools: Its compiled blocks and one-liners, in source order.
        found: The tools that match each block, with their arguments; `None` if the tools are not
            known.
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
        found: Mapping[ToolId, Mapping[str, Arguments]] | None,
        report: Reporter,
    ) -> None:
        self.declarations = policy.declarations
        self.bindings = nodes.bindings_of(policy)
        self.tools = [
            CheckedTool(node, compiled, None if found is None else found.get(node.tool, {}))
            for node, compiled in zip(nodes.tools_of(policy), tools, strict=True)
        ]
        self.report = report
        self._left = _MOST_ELEMENTS

    @cached_property
    def all_nodes(self) -> list[Any]:
        """All nodes, each before the nodes in it."""
        return list(nodes.walk(self.declarations))

    @cached_property
    def clauses(self) -> list[tuple[CheckedTool, Clause, Test | None]]:
        """All rules and steps, each with its tool and its compiled condition."""
        return [(tool, clause, test) for tool in self.tools for clause, test in tool.clauses]

    def tests(self, clause: Clause) -> Iterator[tuple[nodes.Tests, bool]]:
        """The single tests of a condition, each with whether a call passes more easily with it."""
        return nodes.tests_of(clause.condition, self.bindings, passes=not clause.restricts)

    def elements(self, members: object) -> Iterator[Any]:
        """The elements and labels of a set, or a single operand; none if there were very many."""
        for element in nodes.elements_of(members, self.bindings):
            if self._left <= 0:
                return
            self._left -= 1
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
            case nodes.In(value=nodes.TextLiteral() as text, set=members):
                for element in self.elements(members):
                    if isinstance(element, nodes.Meta):
                        yield element, text
            case nodes.Compared(left=meta, right=members):
                for text in self.texts(members):
                    yield meta, text


def text_of(element: Any) -> Any:
    """The text of an element `str "…"`; other elements are unchanged."""
    return element.text if isinstance(element, nodes.TextDomain) else element


def sides_of(test: nodes.Tests) -> tuple[Any, Any]:
    """Both operands of a test."""
    match test:
        case nodes.In(value=one, set=other) | nodes.Same(left=one, right=other):
            return one, other
        case nodes.Compared(left=left, right=right):
            return left, right


def value_test(test: nodes.Tests) -> tuple[nodes.Value, object] | None:
    """The value in a test, and what it is compared with, if that is no value."""
    match sides_of(test):
        case (nodes.Value(), nodes.Value()):
            return None
        case (nodes.Value() as value, members) | (members, nodes.Value() as value):
            return value, members
    return None


def effect(rule: nodes.CheckRule, *, held: bool) -> str:
    """The effect of a rule whose condition always or never holds."""
    if (rule.strength, rule.decision) == ("soft", "allow"):
        return "allows every call" if held else "does nothing"
    return "denies every call" if denies(rule, held=held) else "denies nothing"


def denies(rule: nodes.CheckRule, *, held: bool) -> bool:
    """Whether a rule denies more than intended if its condition always or never holds."""
    return held is (rule.decision == "deny")


def shape_of(node: Any, unseen: Collection[str]) -> Hashable:
    """A node without some of its fields. Numbers keep their type: 1 and 1.0 can differ."""
    if isinstance(node, tuple):
        return tuple(shape_of(one, unseen) for one in node)
    if not is_dataclass(node):
        return type(node).__name__, node
    kept = (name for name in node.__dataclass_fields__ if name not in unseen)
    return type(node).__name__, *(shape_of(getattr(node, name), unseen) for name in kept)


def listed(schema: Mapping[str, Any]) -> list[Any] | None:
    """The values that a schema lists, or `None`."""
    given = [schema["const"]] if "const" in schema else schema.get("enum")
    return list(given) if isinstance(given, list | tuple) else None
