"""Nodes to closures: names resolved, regexes compiled, constants folded, once per policy.

A predicate becomes a function from a `Context` to a truth; a set becomes two functions: its names,
and whether a value is in it. What has no meaning is reported with its place; who compiles decides
whether a report is an exception or a finding.

The height of what was compiled is bounded, and the value of a binding is remembered within a
context: a policy can neither exhaust the stack nor double its work with each `let`.

Elements that are legal and hardly meant so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from langchain_sequrity.display import plain
from langchain_sequrity.labels import ALL
from langchain_sequrity.sqrt import predicates
from langchain_sequrity.sqrt.context import MISSING
from langchain_sequrity.sqrt.doubts import Elements, Leaf, Leaves
from langchain_sequrity.sqrt.nodes import (
    Binding,
    BoolDomain,
    Boolean,
    Both,
    Combined,
    Compared,
    Constant,
    Edited,
    Either,
    Element,
    In,
    Members,
    Meta,
    Moment,
    Name,
    Not,
    NumberDomain,
    Operand,
    Operator,
    Position,
    Predicate,
    Range,
    Same,
    Set,
    Text,
    TextDomain,
    TimeDomain,
    Value,
)
from langchain_sequrity.sqrt.patterns import INSTALL, expanded, has_engine, looks_slow
from langchain_sequrity.sqrt.predicates import (
    UNKNOWN_SET,
    CompiledSet,
    Read,
    ReadNames,
    Test,
    unknown,
)
from langchain_sequrity.sqrt.values import Matcher, before, instant, matcher, readings
from langchain_sequrity.suggestions import nearest


def remarks(element: Any) -> Iterator[tuple[str, str]]:
    """What is odd about an element or a literal, each with advice."""
    match element:
        case Text():
            yield from _on_text(element)
        case NumberDomain(kind=kind, range=bounds):
            yield from _on_range(bounds, whole=kind == "int")
        case TextDomain(text=text, length=length):
            yield from _on_text(text)
            if length is not None:
                yield from _on_range(length, whole=True)
        case TimeDomain():
            yield from _on_times(element)


def _on_text(text: Text) -> Iterator[tuple[str, str]]:
    if text.kind == "plain" and "\\" in text.raw:
        yield "How a backslash in a text is read is unknown", "Avoid it"
    elif text.kind == "like" and ("[" in text.raw or "\\" in text.raw):
        yield "How `[` and backslashes in a wildcard are read is unknown", "Use a regex"
    elif text.kind == "matching":
        yield from _on_regex(text.raw)


def _on_regex(raw: str) -> Iterator[tuple[str, str]]:
    if "\\\\" in raw:
        yield "How a doubled backslash in a regex is read is unknown", "Write `[.]` for `\\\\.`"
    if looks_slow(raw):
        yield "This regex can take exponential time", "Do not repeat what is itself repeated"
    if not has_engine():
        yield (
            "Without the package `regex` no regex is evaluated: each is unknown, which denies",
            f"Run `{INSTALL}`",
        )


def _on_range(bounds: Range, *, whole: bool) -> Iterator[tuple[str, str]]:
    ends = [end.value for end in (bounds.low, bounds.high) if end is not None]
    if whole and any(isinstance(end, float) and not _is_infinite(end) for end in ends):
        yield "The bounds of whole numbers are whole", "Drop the fraction"
    if len(ends) > 1 and (
        ends[0] > ends[1] or (ends[0] == ends[1] and (bounds.low_open or bounds.high_open))
    ):
        yield "No number lies in this range", "The smaller bound comes first"


def _is_infinite(number: float) -> bool:
    return number in {float("inf"), float("-inf")}


def _on_times(domain: TimeDomain) -> Iterator[tuple[str, str]]:
    low = domain.low and instant(domain.low.written)
    high = domain.high and instant(domain.high.written)
    if not low or not high:
        return
    closed = not (domain.low_open or domain.high_open)
    if before(low, high, or_same=closed) is False:
        yield "No time lies in this range", "The earlier bound comes first"
    if not low.zoned or not high.zoned:
        yield "The zone of a time without one is unknown", "Write it, as `…T00:00:00Z`"


Severity = Literal["error", "warning"]
MAX_HEIGHT = 100
MAX_REGEXES = 50_000
_DOMAINS = (BoolDomain, NumberDomain, TextDomain, TimeDomain)


class Report(Protocol):
    """Takes a finding; it may raise instead of coming back."""

    def __call__(
        self,
        severity: Severity,
        message: str,
        at: Position,
        hint: str = "",
        *,
        lets_through: bool = False,
    ) -> None:
        """Take it; `lets_through` says that a rule protects less than it seems to."""


def unheard(*_: object, **__: object) -> None:
    """A report that nobody reads."""


@dataclass(slots=True)
class Uses:
    """What a compiled thing looks at, its bindings included.

    Attributes:
        arguments: Names of arguments, each with a place where it is used.
        result: A place where the result is used, if any.
        short: A place of the short form `@field`, if any.
        height: How deep its evaluation goes.
        leaves: The single tests in it, to ask afterwards which of them was in doubt.
    """

    arguments: dict[str, Position] = field(default_factory=dict)
    result: Position | None = None
    short: Position | None = None
    height: int = 0
    leaves: Leaves = field(default_factory=list)

    def add(self, other: "Uses", depth: int) -> None:
        """Take over what a binding uses, which is evaluated at some depth."""
        for name, at in other.arguments.items():
            self.arguments.setdefault(name, at)
        self.result = self.result or other.result
        self.short = self.short or other.short
        self.height = max(self.height, depth + other.height)
        if other.leaves:
            self.leaves.append(other.leaves)


@dataclass(frozen=True, slots=True)
class Bound:
    """A compiled binding; exactly one of `test` and `set` is there."""

    node: Binding
    test: Test | None
    set: CompiledSet | None
    uses: Uses
    elements: Elements


class Compiler:
    """Compiles one policy; `uses` collects what is looked at until it is replaced."""

    def __init__(self, report: Report, *, later: dict[str, Position]) -> None:
        self._report = report
        self._later = later  # all names of the text, also those that come further down
        self._depth = 0
        self._regexes = 0
        self._elements: Elements = []  # of the set that is being compiled
        self.bindings: dict[str, Bound] = {}
        self.uses = Uses()

    # Bindings

    def bind(self, node: Binding) -> None:
        """Compile a binding and make its name known."""
        self.uses = Uses()
        self._elements = []
        test: Test | None = None
        members: CompiledSet | None = None
        if isinstance(node.value, Name):
            test, members = self._alias(node.value)
        elif isinstance(node.value, _DOMAINS):
            members = self._members(Members((node.value,), node.value.at))
        elif isinstance(node.value, Members | Meta | Combined | Edited):
            members = self.set(node.value)
        else:
            test = self.test(node.value)
        if node.name in self.bindings:
            line = self.bindings[node.name].node.at.line
            self._report("error", f"`{node.name}` is already defined in line {line}", node.at)
        if test is not None:
            test = predicates.remembered(node.name, test)
        elif members is not None:
            members = predicates.remembered_set(node.name, members)
        self.bindings[node.name] = Bound(node, test, members, self.uses, self._elements)

    def _alias(self, name: Name) -> tuple[Test | None, CompiledSet | None]:
        bound = self._bound(name)
        return (unknown, None) if bound is None else (bound.test, bound.set)

    def _bound(self, name: Name) -> Bound | None:
        bound = self.bindings.get(name.name)
        if bound is None:
            message, advice = self._undefined(name.name)
            self._report("error", message, name.at, advice)
            return None
        self.uses.add(bound.uses, self._depth + 1)
        self._check_height(name.at)
        return bound

    def _undefined(self, name: str) -> tuple[str, str]:
        if name in self._later:
            line = self._later[name].line
            return f"`{name}` is used before its definition in line {line}", "Move the `let` up"
        if name in {"true", "false"}:
            return f"`{name}` is a name here, not a constant", "Write `always`"
        return f"`{plain(name, limit=80)}` is not defined", nearest(name, self.bindings)

    def _check_height(self, at: Position) -> None:
        if self.uses.height > MAX_HEIGHT:
            self.uses.height = 0  # said once
            self._report("error", "This builds on too many names that build on names", at)

    # Predicates

    def test(self, node: Predicate) -> Test:
        """Compile a predicate."""
        self._depth += 1
        self.uses.height = max(self.uses.height, self._depth)
        try:
            return self._test(node)
        finally:
            self._depth -= 1

    def _test(self, node: Predicate) -> Test:
        match node:
            case Name():
                return self._named_test(node)
            case Not(inner=inner):
                return predicates.negation(self.test(inner))
            case Both(parts=parts):
                return predicates.conjunction([self.test(part) for part in parts])
            case Either(parts=parts):
                return predicates.disjunction([self.test(part) for part in parts])
            case In() | Same() | Compared():
                return self._leaf(node)

    def _leaf(self, node: In | Same | Compared) -> Test:
        elements, self._elements = self._elements, []
        uses, self.uses = self.uses, Uses()
        match node:
            case In():
                test = self._in(node)
            case Same():
                test = self._same(node)
            case Compared():
                test = self._compared(node)
        uses.add(self.uses, 0)
        uses.leaves.append(Leaf(node, test, tuple(self.uses.arguments), self._elements))
        self._elements, self.uses = elements, uses
        return test

    def _named_test(self, node: Name) -> Test:
        bound = self._bound(node)
        if bound is None:
            return unknown
        if bound.test is None:
            self._report(
                "error", f"`{node.name}` is a set, not a predicate", node.at,
                f"Write `arg.value in {node.name}` or `arg.tags overlaps {node.name}`",
            )  # fmt: skip
            return unknown
        return bound.test

    def _in(self, node: In) -> Test:
        members = self.set(node.set)
        if isinstance(node.value, Value):
            return predicates.contained(self._read(node.value), members)
        self._matcher(node.value)  # reports what is wrong with it
        test = predicates.constant_contained(_meant(node.value), members)
        # To texts and labels a time is how it is written, which says little of other writings.
        return predicates.maybe(test) if isinstance(node.value, Moment) else test

    def _same(self, node: Same) -> Test:
        if isinstance(node.left, Value):
            return self._is(node.left, node.right)
        if isinstance(node.right, Value):
            return self._is(node.right, node.left)
        # Of a time and a text, the time knows how to compare.
        left, right = sorted((node.left, node.right), key=lambda one: isinstance(one, Moment))
        return predicates.constants_match(_meant(left), self._matcher(right))

    def _is(self, value: Value, other: Operand) -> Test:
        read = self._read(value)
        if isinstance(other, Value):
            return predicates.same(read, self._read(other))
        return predicates.matches(read, self._matcher(other))

    def _read(self, node: Value) -> Read:
        if node.scope == "arg":
            name = node.argument
            self.uses.arguments.setdefault(name, node.at)
            return lambda context: (
                MISSING if (found := context.arguments.get(name)) is None else found.value
            )
        if node.scope == "result":
            self.uses.result = self.uses.result or node.at
            return lambda context: MISSING if context.result is None else context.result.value
        self._report("warning", "What `@session.value` holds is unknown, and so is this", node.at)
        return lambda _: MISSING

    def _compared(self, node: Compared) -> Test:
        read = self._labels(node.left)
        if node.right is None:
            return predicates.labels_are(node.test, read)
        members = self.set(node.right)
        if not members.patterned:
            return predicates.labels_compare(node.test, read, members.names)
        self._report(
            "warning", "How labels compare with patterns, numbers and domains is unknown",
            node.at, "Use plain texts here",
        )  # fmt: skip
        return predicates.labels_match(node.test, read, members)

    # Sets

    def set(self, node: Set) -> CompiledSet:
        """Compile a set."""
        self._depth += 1
        self.uses.height = max(self.uses.height, self._depth)
        try:
            return self._set(node)
        finally:
            self._depth -= 1

    def _set(self, node: Set) -> CompiledSet:
        match node:
            case Members():
                return self._members(node)
            case Meta():
                return predicates.of_labels(self._labels(node))
            case Name():
                return self._named_set(node)
            case Combined():
                return self._combined(node)
            case Edited(base=base, edits=edits):
                steps: list[tuple[Operator, CompiledSet]] = [
                    ("|" if adds else "-", self._members(Members((element,), element.at)))
                    for adds, element in edits
                ]
                return predicates.folded(self.set(base), steps)

    def _combined(self, node: Combined) -> CompiledSet:
        if node.bare:
            self._report(
                "warning", "Union binds tighter than intersection: `a & b | c` is `a & (b | c)`",
                node.at, "Write the parentheses",
            )  # fmt: skip
        first, *rest = [self.set(operand) for operand in node.operands]
        return predicates.folded(first, [(node.operator, operand) for operand in rest])

    def _named_set(self, node: Name) -> CompiledSet:
        bound = self._bound(node)
        if bound is None:
            return UNKNOWN_SET
        if bound.set is None:
            self._report("error", f"`{node.name}` is a predicate, not a set", node.at)
            return UNKNOWN_SET
        self._elements.append(bound.elements)
        return bound.set

    def _members(self, node: Members) -> CompiledSet:
        texts, patterns = {}, []
        for element in node.elements:
            test = self._matcher(element)
            if isinstance(element, Text) and element.kind == "plain" and "\\" not in element.raw:
                texts[element.raw] = test
            else:
                patterns.append(test)
        return predicates.members(texts, patterns, universal=ALL in texts)

    def _labels(self, node: Meta) -> ReadNames:
        if node.scope == "arg":
            self.uses.arguments.setdefault(node.argument, node.at)
        elif node.scope == "result":
            self.uses.result = self.uses.result or node.at
        elif node.scope == "short":
            self.uses.short = self.uses.short or node.at
        return lambda context: context.names(node)

    def _matcher(self, element: Element | Moment | Boolean) -> Matcher:
        for message, advice in remarks(element):
            self._report("warning", message, element.at, advice)
        try:
            self._count(element)
            found = matcher(element)
        except ValueError as error:
            reason = plain(str(error), limit=200)
            self._report("error", f"This cannot be read: {reason}", element.at)
            return lambda *_: None
        self._elements.append((element, found))
        return found

    def _count(self, element: Element | Moment | Boolean) -> None:
        """Bound what all regexes of a policy take together, before they are compiled."""
        text = element.text if isinstance(element, TextDomain) else element
        if isinstance(text, Text) and text.kind == "matching":
            self._regexes += expanded(text.raw)
            if self._regexes > MAX_REGEXES:
                msg = f"the regexes of a policy come to more than {MAX_REGEXES} parts"
                raise ValueError(msg)

    def tool_id(self, text: Text) -> Matcher:
        """Compile the name of a tool, or the regex for names."""
        return self._matcher(text)

    def target(self, node: Meta) -> None:
        """Note what an update writes."""
        self._labels(node)

    def fresh(self) -> Uses:
        """Start collecting anew what is looked at."""
        self.uses = Uses()
        return self.uses


def _meant(node: Constant) -> Sequence[Any]:
    """What a literal may mean: one value, but for a text with backslashes."""
    if isinstance(node, Text):
        return readings(node.raw)
    return (node.written if isinstance(node, Moment) else node.value,)
