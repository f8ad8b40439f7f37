"""Predicates, compiled: functions from a context to a truth."""

from collections.abc import Callable, Sequence
from typing import Any

from langchain_sequrity.sqrt.context import MISSING, Context
from langchain_sequrity.sqrt.names import compared
from langchain_sequrity.sqrt.nodes import MetaTest
from langchain_sequrity.sqrt.sets import CompiledSet, ReadNames
from langchain_sequrity.sqrt.truth import Truth, agreed, negated
from langchain_sequrity.sqrt.values import SCALARS, Matcher, equal

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
