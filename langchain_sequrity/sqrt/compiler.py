"""Nodes to closures: names resolved, regexes compiled, constants folded, once per policy."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from langchain_sequrity.display import plain
from langchain_sequrity.labels import ALL
from langchain_sequrity.sqrt.context import MISSING, OPERATIONS, UNIVERSAL, Context, Names, compared
from langchain_sequrity.sqrt.matchers import (
    SCALARS,
    MatchBudget,
    Matcher,
    Truth,
    agreed,
    any_of,
    either,
    equal,
    expanded,
    matcher,
    may_equal,
    negated,
    readings,
    remarks,
)
from langchain_sequrity.sqrt.nodes import (
    Binding,
    BoolDomain,
    Boolean,
    Both,
    CheckRule,
    Combined,
    Compared,
    Constant,
    Edited,
    Either,
    Element,
    In,
    Members,
    Meta,
    MetaTest,
    Moment,
    Name,
    Not,
    NumberDomain,
    OneLiner,
    Operand,
    Operator,
    Phase,
    Policy,
    Position,
    Predicate,
    Same,
    Set,
    Step,
    Text,
    TextDomain,
    TimeDomain,
    ToolBlock,
    ToolId,
    Update,
    Value,
)
from langchain_sequrity.sqrt.verdict import Reason
from langchain_sequrity.suggestions import nearest

Test = Callable[[Context], Truth]

Elements = list["tuple[Element | Moment | Boolean, Matcher] | Elements"]
"""Elements of a set with their tests, and those of the named sets in it."""


class Leaf(NamedTuple):
    """One test of a condition: what was compiled of it, what it looks at and compares with."""

    node: In | Same | Compared
    test: Test
    arguments: tuple[str, ...]
    elements: Elements


Leaves = list["Leaf | Leaves"]
"""The tests of a condition, and those of the named conditions in it."""


ReadNames = Callable[[Context], Names | None]


@dataclass(frozen=True, slots=True)
class CompiledSet:
    """A set, ready to be asked.

    Attributes:
        names: Its names in a context, or `None` if they cannot be known.
        holds: Whether a value is in it.
        patterned: Whether it has elements other than plain texts: patterns, numbers, domains.
    """

    names: ReadNames
    holds: Callable[[Context, Any], Truth]
    patterned: bool


UNKNOWN_SET = CompiledSet(lambda _: None, lambda *_: None, patterned=False)


def of_labels(read: ReadNames) -> CompiledSet:
    """A set of labels, as `a.tags`."""
    return CompiledSet(
        read, lambda context, value: _among(read(context), value, context.budget), patterned=False
    )


def _among(names: Names | None, value: Any, budget: MatchBudget) -> Truth:
    if names is None:
        return None
    if isinstance(value, str):
        return names.has(value)
    return None if names.negated else any_of(may_equal(name, value, budget) for name in names.items)


def members(texts: dict[str, Matcher], patterns: list[Matcher], *, universal: bool) -> CompiledSet:
    """A set that is written out.

    Args:
        texts: Its plain texts, each with the test whether a value is that text.
        patterns: The tests of all its other elements.
        universal: Whether `*` is among the texts: it may mean itself or everything.
    """
    names = UNIVERSAL if universal else Names(frozenset(texts))
    start: Truth = None if universal else False
    all_tests = [*patterns, *texts.values()]

    def holds(context: Context, value: Any) -> Truth:
        is_text = isinstance(value, str)
        if is_text and value in texts:
            return True
        truth = start
        for test in patterns if is_text else all_tests:
            truth = either(truth, test(value, context.budget))
            if truth is True:
                break
        return truth

    return CompiledSet(lambda _: names, holds, patterned=bool(patterns))


def folded(first: CompiledSet, steps: list[tuple[Operator, CompiledSet]]) -> CompiledSet:
    """Sets joined by operators, from left to right."""
    patterned = first.patterned or any(operand.patterned for _, operand in steps)

    def names(context: Context) -> Names | None:
        found = first.names(context)
        for operator, operand in steps:
            other = operand.names(context)
            if found is None or other is None:
                return None
            found = OPERATIONS[operator](found, other)
        return found

    def holds(context: Context, value: Any) -> Truth:
        if not patterned and isinstance(value, str):
            return _among(names(context), value, context.budget)
        truth = first.holds(context, value)
        for operator, operand in steps:
            truth = _combined(operator, truth, operand.holds(context, value))
        return truth

    return CompiledSet(names, holds, patterned)


def _combined(operator: Operator, left: Truth, right: Truth) -> Truth:
    """Membership in a combination of sets with patterns.

    Whether `{"ab"}` minus `{w"a*"}` is empty is unknown, so what is in both sides is unknown but
    for a union.
    """
    if operator == "|":
        return either(left, right)
    if left is not False and right is not False:
        return None
    if operator == "&":
        return False
    return left if operator == "-" or right is False else right


def remembered_set(name: str, found: CompiledSet) -> CompiledSet:
    """A named set, which is worked out once in a context however often it is named."""

    def names(context: Context) -> Names | None:
        if name not in context.memo:
            context.memo[name] = found.names(context)
        known: Names | None = context.memo[name]
        return known

    def holds(context: Context, value: Any) -> Truth:
        key = (name, type(value), value)
        if key not in context.memo:
            context.memo[key] = found.holds(context, value)
        known: Truth = context.memo[key]
        return known

    return CompiledSet(names, holds, found.patterned)


Read = Callable[[Context], Any]


def unknown(_: Context) -> Truth:
    """What nobody can know."""
    return None


def negation(test: Test) -> Test:
    """`not p`."""
    return lambda context: negated(test(context))


def conjunction(tests: Sequence[Test]) -> Test:
    """`p and q and …`; what follows a false one is not looked at."""

    def run(context: Context) -> Truth:
        truth: Truth = True
        for test in tests:
            found = test(context)
            if found is False:
                return False
            if found is None:
                truth = None
        return truth

    return run


def disjunction(tests: Sequence[Test]) -> Test:
    """`p or q or …`; what follows a true one is not looked at."""

    def run(context: Context) -> Truth:
        truth: Truth = False
        for test in tests:
            found = test(context)
            if found is True:
                return True
            if found is None:
                truth = None
        return truth

    return run


def remembered(name: str, test: Test) -> Test:
    """A named predicate, which is tested once in a context however often it is named."""

    def run(context: Context) -> Truth:
        memo = context.memo
        if name not in memo:
            memo[name] = test(context)
        found: Truth = memo[name]
        return found

    return run


# Values


def contained(read: Read, members: CompiledSet) -> Test:
    """`a.value in {…}`; lists and objects are in no set, and SQRT cannot look into them."""
    holds = members.holds

    def run(context: Context) -> Truth:
        value = read(context)
        return holds(context, value) if isinstance(value, SCALARS) else None

    return run


def constant_contained(readings: Sequence[Any], members: CompiledSet) -> Test:
    """`"x" in a.tags`, where the text may be read in several ways."""
    return lambda context: agreed([members.holds(context, value) for value in readings])


def maybe(test: Test) -> Test:
    """What some reading may see fulfilled although this one does not."""
    return lambda context: test(context) or None


def constants_match(readings: Sequence[Any], test: Matcher) -> Test:
    """`5 == 5`."""
    return lambda context: agreed([test(value, context.budget) for value in readings])


def matches(read: Read, test: Matcher) -> Test:
    """`a.value == 5`."""

    def run(context: Context) -> Truth:
        value = read(context)
        return test(value, context.budget) if isinstance(value, SCALARS) else None

    return run


def same(left: Read, right: Read) -> Test:
    """`a.value == b.value`."""

    def run(context: Context) -> Truth:
        one, other = left(context), right(context)
        return None if one is MISSING or other is MISSING else equal(one, other, context.budget)

    return run


# Labels


def labels_are(kind: MetaTest, read: ReadNames) -> Test:
    """`a.tags is empty`."""

    def run(context: Context) -> Truth:
        names = read(context)
        return None if names is None else compared(kind, names)

    return run


def labels_compare(kind: MetaTest, read: ReadNames, right: ReadNames) -> Test:
    """`a.tags overlaps {…}`."""

    def run(context: Context) -> Truth:
        one, two = read(context), right(context)
        return None if one is None or two is None else compared(kind, one, two)

    return run


def labels_match(kind: MetaTest, read: ReadNames, right: CompiledSet) -> Test:
    """A test against patterns: certain only where no element could match a label as a pattern."""

    def run(context: Context) -> Truth:
        names = read(context)
        if names is None or names.negated or kind not in {"overlaps", "subset"}:
            return None
        found = [right.holds(context, name) for name in names.items]
        if kind == "overlaps":
            return False if all(one is False for one in found) else None
        return False if any(one is False for one in found) else None

    return run


Severity = Literal["error", "warning"]

MAX_HEIGHT = 100

MAX_REGEXES = 50_000

_DOMAINS = (BoolDomain, NumberDomain, TextDomain, TimeDomain)


class Reporter(Protocol):
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

    def __init__(self, report: Reporter, *, later: dict[str, Position]) -> None:
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
            test = remembered(node.name, test)
        elif members is not None:
            members = remembered_set(node.name, members)
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
                return negation(self.test(inner))
            case Both(parts=parts):
                return conjunction([self.test(part) for part in parts])
            case Either(parts=parts):
                return disjunction([self.test(part) for part in parts])
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
            return contained(self._read(node.value), members)
        self._matcher(node.value)  # reports what is wrong with it
        test = constant_contained(_meant(node.value), members)
        # To texts and labels a time is how it is written, which says little of other writings.
        return maybe(test) if isinstance(node.value, Moment) else test

    def _same(self, node: Same) -> Test:
        if isinstance(node.left, Value):
            return self._is(node.left, node.right)
        if isinstance(node.right, Value):
            return self._is(node.right, node.left)
        # Of a time and a text, the time knows how to compare.
        left, right = sorted((node.left, node.right), key=lambda one: isinstance(one, Moment))
        return constants_match(_meant(left), self._matcher(right))

    def _is(self, value: Value, other: Operand) -> Test:
        read = self._read(value)
        if isinstance(other, Value):
            return same(read, self._read(other))
        return matches(read, self._matcher(other))

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
            return labels_are(node.test, read)
        members = self.set(node.right)
        if not members.patterned:
            return labels_compare(node.test, read, members.names)
        self._report(
            "warning", "How labels compare with patterns, numbers and domains is unknown",
            node.at, "Use plain texts here",
        )  # fmt: skip
        return labels_match(node.test, read, members)

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
                return of_labels(self._labels(node))
            case Name():
                return self._named_set(node)
            case Combined():
                return self._combined(node)
            case Edited(base=base, edits=edits):
                steps: list[tuple[Operator, CompiledSet]] = [
                    ("|" if adds else "-", self._members(Members((element,), element.at)))
                    for adds, element in edits
                ]
                return folded(self.set(base), steps)

    def _combined(self, node: Combined) -> CompiledSet:
        if node.bare:
            self._report(
                "warning", "Union binds tighter than intersection: `a & b | c` is `a & (b | c)`",
                node.at, "Write the parentheses",
            )  # fmt: skip
        first, *rest = [self.set(operand) for operand in node.operands]
        return folded(first, [(node.operator, operand) for operand in rest])

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
        return members(texts, patterns, universal=ALL in texts)

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


class CompiledCheck(NamedTuple):
    """A check rule, ready to vote.

    Attributes:
        reason: The rule.
        rank: What orders soft rules.
        test: Its condition, or `None` for `always`.
        required: Whether it denies where its condition fails and nothing else allows.
        arguments: The arguments that its condition looks at.
        leaves: The single tests in its condition.
    """

    reason: Reason
    rank: tuple[int | float, bool]
    test: Test | None
    required: bool
    arguments: tuple[str, ...]
    leaves: Leaves


class CompiledUpdate(NamedTuple):
    """An update, ready to run.

    Attributes:
        node: The update.
        set: Its right side.
        honoured: Whether the service is known to change these labels at this place.
    """

    node: Update
    set: CompiledSet
    honoured: bool


class CompiledStep(NamedTuple):
    """Updates under a condition."""

    node: Step
    phase: Phase
    test: Test | None
    updates: tuple[CompiledUpdate, ...]
    is_one_liner: bool


class CompiledTool(NamedTuple):
    """One block or one-liner."""

    matches: Matcher
    checks: tuple[CompiledCheck, ...]
    steps: tuple[CompiledStep, ...]


Visit = Callable[[ToolId, Matcher, Uses], None]


def compiled_tools(
    policy: Policy, report: Reporter, visit: Visit = lambda *_: None
) -> Iterator[CompiledTool]:
    """Compile the tools of a policy in source order.

    Args:
        policy: The policy.
        report: Takes what is wrong; it may raise.
        visit: Is told what each rule and step of a tool looks at.

    Yields:
        Blocks and one-liners.
    """
    names: dict[str, Position] = {}
    for node in policy.declarations:
        if isinstance(node, Binding):
            names.setdefault(node.name, node.at)
    compiler = Compiler(report, later=names)
    for node in policy.declarations:
        if isinstance(node, Binding):
            compiler.bind(node)
        else:
            yield _ToolCompiler(node, compiler, report, visit).compiled()


class _ToolCompiler:
    """Compiles one block or one-liner."""

    def __init__(
        self, node: ToolBlock | OneLiner, compiler: Compiler, report: Reporter, visit: Visit
    ) -> None:
        self._node = node
        self._compiler = compiler
        self._report = report
        self._visit = visit
        self._matches = compiler.tool_id(node.tool.text)

    def compiled(self) -> CompiledTool:
        node = self._node
        self._visit(node.tool, self._matches, Uses())  # a block may have no rules
        if isinstance(node, OneLiner):
            if node.priority is not None and node.priority.value:
                self._report(
                    "warning", "Whether a priority changes the order of updates is unknown",
                    node.priority.at, "Updates run in the order of the text here",
                )  # fmt: skip
            return CompiledTool(self._matches, (), (self._step(node.step, node.phase),))
        for extra in node.priorities[1:]:
            self._report("warning", "Which of several priorities counts is unknown", extra.at)
        priority = node.priorities[-1].value if node.priorities else 0
        checks = tuple(self._check(check, priority) for check in node.checks)
        steps = tuple(
            self._step(step, block.phase) for block in node.blocks for step in block.steps
        )
        return CompiledTool(self._matches, checks, steps)

    def _check(self, node: CheckRule, priority: float) -> CompiledCheck:
        reason = Reason(node.text, node.at, node.doc, node.strength, node.decision)
        test = self._condition(node.condition, None)
        required = node.decision == "allow" and node.strength == "hard"
        uses = self._compiler.uses
        return CompiledCheck(
            reason, (priority, test is not None), test, required, tuple(uses.arguments), uses.leaves
        )

    def _step(self, node: Step, phase: Phase) -> CompiledStep:
        is_one_liner = isinstance(self._node, OneLiner)
        test = self._condition(node.condition, phase, short_is_known=not is_one_liner)
        updates = tuple(self._update(update, phase) for update in node.updates)
        return CompiledStep(node, phase, test, updates, is_one_liner)

    def _condition(
        self, node: Predicate | None, phase: Phase | None, *, short_is_known: bool = False
    ) -> Test | None:
        uses = self._compiler.fresh()
        test = None if node is None else self._compiler.test(node)
        if uses.short and not short_is_known:
            self._report(
                "warning", "What `@tags` and the like mean here is unknown", uses.short,
                "Write `@session.tags` or `@result.tags`",
            )  # fmt: skip
        self._looked_at(uses, phase)
        return test

    def _update(self, node: Update, phase: Phase) -> CompiledUpdate:
        uses = self._compiler.fresh()
        self._compiler.target(node.target)
        members = self._compiler.set(node.set)
        self._looked_at(uses, phase)
        if members.patterned:
            self._report(
                "error", "Labels are plain texts; here stand patterns, numbers or domains",
                node.set.at, 'Name each label, as `{"raw"}`',
            )  # fmt: skip
        honoured = node.target.scope in {"short", "result" if phase == "result" else "session"}
        if not honoured:
            self._report(
                "warning", "Whether the service changes these labels here is unknown", node.at
            )
        return CompiledUpdate(node, members, honoured)

    def _looked_at(self, uses: Uses, phase: Phase | None) -> None:
        if uses.result and phase in {None, "before"}:
            self._report(
                "error", "There is no `@result` before the call", uses.result,
                "Use a `result` or a `session after` block",
            )  # fmt: skip
        self._visit(self._node.tool, self._matches, uses)
