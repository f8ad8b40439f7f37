"""Nodes to closures: names resolved, regexes compiled, constants folded, once per policy.

A predicate becomes a function from an `EvaluationContext` to a truth. A set becomes two functions:
one gives its names, the other tells whether a value is in it. A reporter receives each mistake with
its place, and decides whether it is an exception or a finding.

Depth is bounded, and the value of a binding is cached per context. So a policy can neither exhaust
the stack nor double its work with each `let`.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

from langchain_sequrity.display import plain
from langchain_sequrity.labels import ALL
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.context import (
    EMPTY,
    MISSING,
    OPERATIONS,
    UNIVERSAL,
    EvaluationContext,
    LabelSet,
    compare_labels,
)
from langchain_sequrity.sqrt.matchers import (
    SCALARS,
    MatchBudget,
    Matcher,
    Truth,
    any_of,
    either,
    equal,
    expanded_size,
    literal_warnings,
    matcher,
    may_equal,
    negated,
    readings,
    unanimous,
)
from langchain_sequrity.sqrt.nodes import Policy, Position
from langchain_sequrity.sqrt.verdict import Reason
from langchain_sequrity.suggestions import suggest

Severity = Literal["error", "warning"]
MAX_HEIGHT = 100
MAX_REGEXES = 50_000

# Sets

ReadNames = Callable[[EvaluationContext], LabelSet | None]


@dataclass(frozen=True, slots=True)
class CompiledSet:
    """A compiled set.

    Attributes:
        names: Its names in a context; `None` if they are unknown.
        holds: Whether a value is in it.
        patterned: Whether it has elements other than plain texts: patterns, numbers, domains.
    """

    names: ReadNames
    holds: Callable[[EvaluationContext, Any], Truth]
    patterned: bool


UNKNOWN_SET = CompiledSet(lambda _: None, lambda *_: None, patterned=False)


def _label_set(read: ReadNames) -> CompiledSet:
    """Labels as a set, as `a.tags`."""
    return CompiledSet(
        read,
        lambda context, value: _is_among(read(context), value, context.budget),
        patterned=False,
    )


def _is_among(names: LabelSet | None, value: Any, budget: MatchBudget) -> Truth:
    if names is None:
        return None
    if isinstance(value, str):
        return names.has(value)
    if names.negated:
        return None
    # A value may have many labels, which each rule would compare again.
    return budget.run(lambda: any_of(may_equal(name, value, budget) for name in names.items))


def _set_literal(texts: dict[str, Matcher], patterns: list[Matcher]) -> CompiledSet:
    """A set with its elements written out.

    Args:
        texts: Its plain texts with their tests. `*` may mean itself or everything.
        patterns: The tests of all its other elements.
    """
    universal = ALL in texts
    names = UNIVERSAL if universal else LabelSet(frozenset(texts))
    start: Truth = None if universal else False
    all_tests = [*patterns, *texts.values()]

    def holds(context: EvaluationContext, value: Any) -> Truth:
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


def _joined_sets(
    first: CompiledSet, steps: list[tuple[nodes.Operator, CompiledSet]]
) -> CompiledSet:
    """Sets joined by operators, from left to right."""
    patterned = first.patterned or any(operand.patterned for _, operand in steps)

    def names(context: EvaluationContext) -> LabelSet | None:
        joined = first.names(context)
        for operator, operand in steps:
            operand_names = operand.names(context)
            if joined is None or operand_names is None:
                return None
            joined = OPERATIONS[operator](joined, operand_names)
        return joined

    def holds(context: EvaluationContext, value: Any) -> Truth:
        if not patterned and isinstance(value, str):
            return _is_among(names(context), value, context.budget)
        truth = first.holds(context, value)
        for operator, operand in steps:
            truth = _joined_truth(operator, truth, operand.holds(context, value))
        return truth

    return CompiledSet(names, holds, patterned)


def _joined_truth(operator: nodes.Operator, left: Truth, right: Truth) -> Truth:
    """Membership in a combination of sets with patterns.

    Whether `{"ab"}` minus `{w"a*"}` is empty is unknown. So a value in both sides is unknown,
    except for a union.
    """
    if operator == "|":
        return either(left, right)
    if left is not False and right is not False:
        return None
    if operator == "&":
        return False
    return left if operator == "-" or right is False else right


def _memoized(
    key: Hashable, context: EvaluationContext, read: Callable[[EvaluationContext], Any]
) -> Any:
    """What a function gives for a context; it is called once per context."""
    memo = context.memo
    if key not in memo:
        memo[key] = read(context)
    return memo[key]


def _memoized_binding(bound: "Test | CompiledSet") -> "Test | CompiledSet":
    """A named predicate or set that is evaluated once per context."""
    if not isinstance(bound, CompiledSet):
        return partial(_memoized, bound, read=bound)

    def holds(context: EvaluationContext, value: Any) -> Truth:
        key = (bound.holds, type(value), value)
        truth: Truth = _memoized(key, context, lambda context: bound.holds(context, value))
        return truth

    return CompiledSet(partial(_memoized, bound.names, read=bound.names), holds, bound.patterned)


# Predicates

Test = Callable[[EvaluationContext], Truth]
Read = Callable[[EvaluationContext], Any]


def _unknown(_: EvaluationContext) -> Truth:
    return None


def _joined_tests(tests: Sequence[Test], end: bool) -> Test:  # noqa: FBT001 - a truth value
    """`and` (`end` is false) or `or` (`end` is true) of tests; it stops at the first `end`."""

    def run(context: EvaluationContext) -> Truth:
        truth: Truth = not end
        for test in tests:
            outcome = test(context)
            if outcome is end:
                return end
            if outcome is None:
                truth = None
        return truth

    return run


def _value_test(read: Read, holds: Callable[[EvaluationContext, Any], Truth]) -> Test:
    """`a.value in {…}`, `a.value == 5`; unknown for lists and objects, which SQRT cannot search."""

    def run(context: EvaluationContext) -> Truth:
        value = read(context)
        return holds(context, value) if isinstance(value, SCALARS) else None

    return run


def _equality_test(read_left: Read, read_right: Read) -> Test:
    """`a.value == b.value`."""

    def run(context: EvaluationContext) -> Truth:
        left, right = read_left(context), read_right(context)
        return None if left is MISSING or right is MISSING else equal(left, right, context.budget)

    return run


def _label_test(comparison: nodes.MetaTest, read_left: ReadNames, read_right: ReadNames) -> Test:
    """`a.tags overlaps {…}`."""

    def run(context: EvaluationContext) -> Truth:
        left, right = read_left(context), read_right(context)
        return None if left is None or right is None else compare_labels(comparison, left, right)

    return run


def _label_pattern_test(comparison: nodes.MetaTest, read: ReadNames, right: CompiledSet) -> Test:
    """Labels against patterns: false if no reading of the patterns matches, else unknown."""

    def run(context: EvaluationContext) -> Truth:
        names = read(context)
        if names is None or names.negated or comparison not in {"overlaps", "subset"}:
            return None
        truths = [right.holds(context, name) for name in names.items]
        if comparison == "overlaps":
            return False if all(truth is False for truth in truths) else None
        return False if any(truth is False for truth in truths) else None

    return run


# The parts of a compiled policy


class ConditionParts(NamedTuple):
    """The parts of a policy's conditions by position, to find out later which one was unknown.

    Attributes:
        tests: The single tests.
        matchers: The tests for the elements of sets, and for literals.
        bindings: The bindings by name, also those defined further down.
    """

    tests: dict[Position, Test]
    matchers: dict[Position, Matcher]
    bindings: nodes.Bindings


@dataclass(slots=True)
class Operands:
    """The operands of a compiled rule or binding, including those of the bindings in it.

    Attributes:
        arguments: Names of arguments, each with a place where it is used.
        result: A place where the result is used, if any.
        short: A place of the short form `@field`, if any.
        height: The depth of its evaluation.
    """

    arguments: dict[str, Position] = field(default_factory=dict)
    result: Position | None = None
    short: Position | None = None
    height: int = 0

    def add(self, other: "Operands", depth: int) -> None:
        """Add the operands of a binding that is evaluated at some depth."""
        for name, position in other.arguments.items():
            self.arguments.setdefault(name, position)
        self.result = self.result or other.result
        self.short = self.short or other.short
        self.height = max(self.height, depth + other.height)


@dataclass(frozen=True, slots=True)
class CompiledBinding:
    """A compiled binding."""

    node: nodes.Binding
    value: Test | CompiledSet
    uses: Operands


class CompiledCheck(NamedTuple):
    """A compiled check rule.

    Attributes:
        node: The rule.
        reason: The rule, as a verdict names it.
        rank: The order of soft rules.
        test: Its condition, or `None` for `always`.
        required: Whether it denies if its condition fails and no other rule allows.
        arguments: The arguments in its condition.
        parts: The parts of all conditions of the policy.
    """

    node: nodes.CheckRule
    reason: Reason
    rank: tuple[int | float, bool]
    test: Test | None
    required: bool
    arguments: tuple[str, ...]
    parts: ConditionParts


class CompiledUpdate(NamedTuple):
    """A compiled update.

    Attributes:
        node: The update.
        set: Its right side.
        honoured: Whether the service is known to change these labels here.
    """

    node: nodes.Update
    set: CompiledSet
    honoured: bool


class CompiledStep(NamedTuple):
    """Updates under a condition.

    Attributes:
        node: The step.
        phase: When it runs.
        test: Its condition, or `None` if it always runs.
        updates: The updates.
        is_one_liner: Whether it is a one-line declaration.
        parts: The parts of all conditions of the policy.
    """

    node: nodes.UpdateStep
    phase: nodes.Phase
    test: Test | None
    updates: tuple[CompiledUpdate, ...]
    is_one_liner: bool
    parts: ConditionParts


class CompiledTool(NamedTuple):
    """One block or one-liner; `may_be_field` if it may be for a field of a result."""

    matches: Matcher
    checks: tuple[CompiledCheck, ...]
    steps: tuple[CompiledStep, ...]
    may_be_field: bool


# Compilation


class Reporter(Protocol):
    """Receives findings; it may raise."""

    def __call__(
        self,
        severity: Severity,
        message: str,
        position: Position,
        /,
        hint: str = "",
        *,
        lets_through: bool = False,
    ) -> None:
        """Receive one; `lets_through` means that a rule protects less than it seems to."""


def ignore_findings(*_: object, **__: object) -> None:
    """A reporter that ignores all findings."""


Visit = Callable[[nodes.ToolId, Matcher, Operands], None]


def compiled_tools(
    policy: Policy, report: Reporter, visit: Visit = lambda *_: None
) -> Iterator[CompiledTool]:
    """Compile the tools of a policy in source order.

    Args:
        policy: The policy.
        report: Receives mistakes; it may raise.
        visit: Receives the operands of each rule and step of a tool.

    Yields:
        Blocks and one-liners.
    """
    compiler = _Compiler(policy, report, visit)
    for node in policy.declarations:
        if isinstance(node, nodes.Binding):
            compiler.bind(node)
        else:
            yield compiler.tool(node)


class _Compiler:
    """Compiles one policy; `_uses` collects the operands of one rule or binding."""

    def __init__(self, policy: Policy, report: Reporter, visit: Visit) -> None:
        self._report = report
        self._visit = visit
        self._depth = 0
        self._regexes = 0
        self._parts = ConditionParts({}, {}, nodes.bindings_of(policy))
        self._bindings: dict[str, CompiledBinding] = {}
        self._uses = Operands()
        self._visit_uses: Callable[[Operands], None]  # of the tool that is being compiled

    # Bindings

    def bind(self, node: nodes.Binding) -> None:
        """Compile a binding and define its name."""
        self._uses = Operands()
        value = self._value(node.value)
        if node.name in self._bindings:
            line = self._bindings[node.name].node.at.line
            self._report("error", f"`{node.name}` is already defined in line {line}", node.at)
        self._bindings[node.name] = CompiledBinding(node, _memoized_binding(value), self._uses)

    def _value(self, value: nodes.Predicate | nodes.Set | nodes.Domain) -> Test | CompiledSet:
        if isinstance(value, nodes.Name):
            return self._used_binding(value) or _unknown
        if isinstance(value, nodes.Domain):
            return self._set_literal(nodes.SetLiteral((value,), value.at))
        return self._set(value) if isinstance(value, nodes.Set) else self._test(value)

    def _used_binding(self, name: nodes.Name) -> Test | CompiledSet | None:
        binding = self._bindings.get(name.name)
        if binding is None:
            message, advice = self._undefined(name.name)
            self._report("error", message, name.at, advice)
            return None
        self._uses.add(binding.uses, self._depth + 1)
        if self._uses.height > MAX_HEIGHT:
            self._uses.height = 0  # reported once
            message = f"Names within names are nested more than {MAX_HEIGHT} deep here"
            self._report("error", message, name.at, "Write some of them out")
        return binding.value

    def _undefined(self, name: str) -> tuple[str, str]:
        if name in self._parts.bindings:
            line = self._parts.bindings[name].at.line
            return f"`{name}` is used before its definition in line {line}", "Move the `let` up"
        if name in {"true", "false"}:
            return f"`{name}` is a name here, not a constant", "Write `always`"
        return f"`{plain(name, limit=80)}` is not defined", suggest(name, self._bindings)

    # Tools

    def tool(self, node: nodes.ToolBlock | nodes.OneLiner) -> CompiledTool:
        """Compile one block or one-liner."""
        matches = self._matcher(node.tool.text)
        self._visit_uses = partial(self._visit, node.tool, matches)
        self._visit_uses(Operands())  # a block may have no rules
        checks: tuple[CompiledCheck, ...] = ()
        if isinstance(node, nodes.OneLiner):
            if node.priority is not None and node.priority.value:
                self._report(
                    "warning", "Whether a priority changes the order of updates is unknown",
                    node.priority.at, "Updates run in the order of the text here",
                )  # fmt: skip
        else:
            for extra in node.priorities[1:]:
                self._report("warning", "Which of several priorities counts is unknown", extra.at)
            priority = node.priorities[-1].value if node.priorities else 0
            checks = tuple(self._check(check, priority) for check in node.checks)
        is_one_liner = isinstance(node, nodes.OneLiner)
        steps = (
            self._step(step, phase, is_one_liner=is_one_liner)
            for phase, step in nodes.steps_of(node)
        )
        return CompiledTool(matches, checks, tuple(steps), "/" in node.tool.text.raw)

    def _check(self, node: nodes.CheckRule, priority: float) -> CompiledCheck:
        test = self._condition(node.condition, None)
        return CompiledCheck(
            node,
            Reason(node.text, node.at, node.doc, node.strength, node.decision),
            (priority, test is not None),
            test,
            node.decision == "allow" and node.strength == "hard",
            tuple(self._uses.arguments),
            self._parts,
        )

    def _step(
        self, node: nodes.UpdateStep, phase: nodes.Phase, *, is_one_liner: bool
    ) -> CompiledStep:
        test = self._condition(node.condition, phase, short_is_known=not is_one_liner)
        updates = tuple(self._update(update, phase) for update in node.updates)
        return CompiledStep(node, phase, test, updates, is_one_liner, self._parts)

    def _condition(
        self,
        node: nodes.Predicate | None,
        phase: nodes.Phase | None,
        *,
        short_is_known: bool = False,
    ) -> Test | None:
        uses = self._uses = Operands()
        test = None if node is None else self._test(node)
        if uses.short and not short_is_known:
            self._report(
                "warning", "What `@tags` and the like mean here is unknown", uses.short,
                "Write `@session.tags` or `@result.tags`",
            )  # fmt: skip
        self._check_result(phase)
        self._visit_uses(uses)
        return test

    def _update(self, node: nodes.Update, phase: nodes.Phase) -> CompiledUpdate:
        uses = self._uses = Operands()
        self._labels(node.target)
        members = self._set(node.set)
        self._check_result(phase)
        self._visit_uses(uses)
        if members.patterned:
            self._report(
                "error", "Labels are plain texts; these are patterns, numbers or domains",
                node.set.at, 'Name each label, such as `{"raw"}`',
            )  # fmt: skip
        honoured = node.target.scope in {"short", "result" if phase == "result" else "session"}
        if not honoured:
            self._report(
                "warning", "Whether the service changes these labels here is unknown", node.at
            )
        return CompiledUpdate(node, members, honoured)

    def _check_result(self, phase: nodes.Phase | None) -> None:
        if self._uses.result and phase in {None, "before"}:
            self._report(
                "error", "There is no `@result` before the call", self._uses.result,
                "Use a `result` or a `session after` block",
            )  # fmt: skip

    # Predicates

    def _test(self, node: nodes.Predicate) -> Test:
        with self._nested():
            match node:
                case nodes.Name():
                    return self._named_test(node)
                case nodes.Not(inner=inner):
                    inner_test = self._test(inner)
                    return lambda context: negated(inner_test(context))
                case nodes.And(parts=parts):
                    return _joined_tests([self._test(part) for part in parts], end=False)
                case nodes.Or(parts=parts):
                    return _joined_tests([self._test(part) for part in parts], end=True)
                case nodes.Membership():
                    test = self._membership_test(node)
                case nodes.Equality():
                    test = self._equality_test(node)
                case nodes.LabelTest():
                    test = self._label_test(node)
        self._parts.tests[node.at] = test
        return test

    @contextmanager
    def _nested(self) -> Iterator[None]:
        self._depth += 1
        self._uses.height = max(self._uses.height, self._depth)
        yield
        self._depth -= 1

    def _named_test(self, node: nodes.Name) -> Test:
        value = self._used_binding(node)
        if isinstance(value, CompiledSet):
            self._report(
                "error", f"`{node.name}` is a set, not a predicate", node.at,
                f"Write `arg.value in {node.name}` or `arg.tags overlaps {node.name}`",
            )  # fmt: skip
            return _unknown
        return value or _unknown

    def _membership_test(self, node: nodes.Membership) -> Test:
        members = self._set(node.set)
        if isinstance(node.value, nodes.ValueRef):
            return _value_test(self._read(node.value), members.holds)
        self._matcher(node.value)  # reports mistakes in it
        holds, values = members.holds, _literal_readings(node.value)
        if isinstance(node.value, nodes.TimeLiteral):
            # Texts and labels match a time by its spelling. One time has several, so a mismatch is
            # unknown.
            return lambda context: unanimous([holds(context, value) for value in values]) or None
        return lambda context: unanimous([holds(context, value) for value in values])

    def _equality_test(self, node: nodes.Equality) -> Test:
        left, right = node.left, node.right
        if isinstance(left, nodes.ValueRef):
            return self._equals(left, right)
        if isinstance(right, nodes.ValueRef):
            return self._equals(right, left)
        # If one side is a time and the other a text, the matcher of the time compares.
        left, right = sorted((left, right), key=lambda side: isinstance(side, nodes.TimeLiteral))
        values, test = _literal_readings(left), self._matcher(right)
        return lambda context: unanimous([test(value, context.budget) for value in values])

    def _equals(self, value: nodes.ValueRef, other: nodes.Operand) -> Test:
        read = self._read(value)
        if isinstance(other, nodes.ValueRef):
            return _equality_test(read, self._read(other))
        test = self._matcher(other)
        return _value_test(read, lambda context, value: test(value, context.budget))

    def _read(self, node: nodes.ValueRef) -> Read:
        if node.scope == "arg":
            name = node.argument
            self._uses.arguments.setdefault(name, node.at)
            return lambda context: context.value(name)
        if node.scope == "result":
            self._uses.result = self._uses.result or node.at
            return lambda context: MISSING if context.result is None else context.result.value
        self._report(
            "warning",
            "The value of `@session.value` is unknown, so this test is unknown too",
            node.at,
        )
        return lambda _: MISSING

    def _label_test(self, node: nodes.LabelTest) -> Test:
        read = self._labels(node.left)
        if node.right is None:
            return _label_test(node.test, read, lambda _: EMPTY)
        members = self._set(node.right)
        if not members.patterned:
            return _label_test(node.test, read, members.names)
        self._report(
            "warning", "How labels compare with patterns, numbers and domains is unknown",
            node.at, "Use plain texts here",
        )  # fmt: skip
        return _label_pattern_test(node.test, read, members)

    # Sets

    def _set(self, node: nodes.Set) -> CompiledSet:
        with self._nested():
            match node:
                case nodes.SetLiteral():
                    return self._set_literal(node)
                case nodes.Meta():
                    return _label_set(self._labels(node))
                case nodes.Name():
                    return self._named_set(node)
                case nodes.SetOperation():
                    return self._combined(node)
                case nodes.SetEdit(base=base, edits=edits):
                    sets = ((adds, nodes.SetLiteral((e,), e.at)) for adds, e in edits)
                    steps: list[tuple[nodes.Operator, CompiledSet]] = [
                        ("|" if adds else "-", self._set_literal(literal)) for adds, literal in sets
                    ]
                    return _joined_sets(self._set(base), steps)

    def _combined(self, node: nodes.SetOperation) -> CompiledSet:
        if node.bare:
            self._report(
                "warning", "Union binds tighter than intersection: `a & b | c` is `a & (b | c)`",
                node.at, "Write the parentheses",
            )  # fmt: skip
        first, *rest = [self._set(operand) for operand in node.operands]
        return _joined_sets(first, [(node.operator, operand) for operand in rest])

    def _named_set(self, node: nodes.Name) -> CompiledSet:
        value = self._used_binding(node)
        if isinstance(value, CompiledSet):
            return value
        if value is not None:
            self._report("error", f"`{node.name}` is a predicate, not a set", node.at)
        return UNKNOWN_SET

    def _set_literal(self, node: nodes.SetLiteral) -> CompiledSet:
        texts, patterns = {}, []
        for element in node.elements:
            test = self._matcher(element)
            match element:
                case nodes.TextLiteral(kind="plain", raw=raw) if "\\" not in raw:
                    texts[raw] = test
                case _:
                    patterns.append(test)
        return _set_literal(texts, patterns)

    def _labels(self, node: nodes.Meta) -> ReadNames:
        if node.scope == "arg":
            self._uses.arguments.setdefault(node.argument, node.at)
        elif node.scope == "result":
            self._uses.result = self._uses.result or node.at
        elif node.scope == "short":
            self._uses.short = self._uses.short or node.at
        return lambda context: context.names(node)

    def _matcher(
        self, element: nodes.Element | nodes.TimeLiteral | nodes.BooleanLiteral
    ) -> Matcher:
        for message, advice in literal_warnings(element):
            self._report("warning", message, element.at, advice)
        try:
            self._count_regex(element)
            test = matcher(element)
        except ValueError as error:
            reason = plain(str(error), limit=200)
            self._report("error", f"This cannot be read: {reason}", element.at)
            return lambda *_: None
        self._parts.matchers[element.at] = test
        return test

    def _count_regex(
        self, element: nodes.Element | nodes.TimeLiteral | nodes.BooleanLiteral
    ) -> None:
        """Limit the total size of a policy's regexes before they are compiled."""
        text = element.text if isinstance(element, nodes.TextDomain) else element
        if isinstance(text, nodes.TextLiteral) and text.kind == "matching":
            self._regexes += expanded_size(text.raw)
            if self._regexes > MAX_REGEXES:
                msg = f"the regexes of a policy have more than {MAX_REGEXES} parts"
                raise ValueError(msg)


def _literal_readings(node: nodes.Constant) -> Sequence[Any]:
    """The values that a literal may mean: one, or several for a text with backslashes."""
    if isinstance(node, nodes.TextLiteral):
        return readings(node.raw)
    return (node.written if isinstance(node, nodes.TimeLiteral) else node.value,)
