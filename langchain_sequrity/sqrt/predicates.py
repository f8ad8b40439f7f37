"""Predicates, compiled: functions from a context to a truth.

Sets, compiled: each can be asked for its names, and whether a value is in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_sequrity.sqrt.context import MISSING, OPERATIONS, UNIVERSAL, Context, Names, compared
from langchain_sequrity.sqrt.nodes import MetaTest, Operator
from langchain_sequrity.sqrt.patterns import Budget, Truth, agreed, any_of, either, negated
from langchain_sequrity.sqrt.values import SCALARS, Matcher, equal, may_equal

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


def _among(names: Names | None, value: Any, budget: Budget) -> Truth:
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


Test = Callable[[Context], Truth]
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
