"""Sets, compiled: each can be asked for its names, and whether a value is in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_sequrity.sqrt.coercion import may_equal
from langchain_sequrity.sqrt.context import Context
from langchain_sequrity.sqrt.names import OPERATIONS, UNIVERSAL, Names
from langchain_sequrity.sqrt.nodes import Operator
from langchain_sequrity.sqrt.patterns import Budget
from langchain_sequrity.sqrt.truth import Truth, any_of, either
from langchain_sequrity.sqrt.values import Matcher

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


def remembered(name: str, found: CompiledSet) -> CompiledSet:
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
