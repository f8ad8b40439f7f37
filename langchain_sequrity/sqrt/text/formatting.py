"""The layout of policies: what stands between the words of a text, and nothing else.

The nodes say how a text is built, its tokens are written as they are: no spelling is changed, no
parenthesis comes or goes, so that what `check` warns of stays to be seen.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.given import AnyPolicy, policy_of, text_of
from langchain_sequrity.sqrt.nodes import (
    Binding,
    Block,
    BoolDomain,
    CheckRule,
    Combined,
    Declaration,
    Domain,
    Edited,
    Members,
    Meta,
    Number,
    NumberDomain,
    OneLiner,
    Policy,
    Predicate,
    Set,
    Step,
    TextDomain,
    TimeDomain,
    ToolBlock,
    Update,
)
from langchain_sequrity.sqrt.parser import parse
from langchain_sequrity.sqrt.text.expression_layout import ExpressionLayout
from langchain_sequrity.sqrt.tokens import MAX_CHARACTERS

_Item = TypeVar("_Item")


def format_policy(policy: AnyPolicy) -> str:
    """Lay a policy out: one rule a line, long sets and conditions broken, comments kept.

    Args:
        policy: Its text; or the parsed policy, a `PolicyHeader`, or an engine, whose text it is.

    Returns:
        The same words and comments in the same order. Formatting it again changes nothing.

    Raises:
        PolicySyntaxError: If the text is not SQRT.
        UsageError: If it would become longer than a policy may be, and for what is no policy.

    Example:
        ```python
        from langchain_sequrity import sqrt

        text = 'tool "ship" {must deny when "raw" in crate.tags;} // for now'
        assert sqrt.format(text).splitlines() == [
            'tool "ship" {',
            '    must deny when "raw" in crate.tags;',
            "} // for now",
        ]
        ```
    """
    formatted = laid_out(
        parse(text_of(policy) if isinstance(policy, str | Path) else policy_of(policy).text)
    )
    if len(formatted) > MAX_CHARACTERS:
        msg = (
            f"Formatted, this policy has {len(formatted)} characters, and at most "
            f"{MAX_CHARACTERS} are allowed. Drop comments or shorten it."
        )
        raise UsageError(msg)
    return formatted


def laid_out(policy: Policy) -> str:
    """The text of a parsed policy in the layout of `format_policy`."""
    return _Formatter(policy.text).policy(policy)


class _Formatter(ExpressionLayout):
    """Goes through tokens and nodes side by side."""

    def policy(self, policy: Policy) -> str:
        """Write all declarations, tool blocks apart from their neighbours."""
        last: Declaration | None = None
        for node in policy.declarations:
            apart = isinstance(node, ToolBlock) or isinstance(last, ToolBlock)
            self._begin_item(first=last is None, apart=apart)
            self._declaration(node)
            last = node
        self._last_comments(first=last is None)
        return self._out.written()

    def _declaration(self, node: Declaration) -> None:
        match node:
            case Binding(value=value):
                self._put(3)
                self._bound(value)
                self._put()
            case OneLiner():
                self._one_liner(node)
            case ToolBlock(priorities=priorities, checks=checks, blocks=blocks):
                self._put(2)
                items: list[Number | CheckRule | Block] = [*priorities, *checks, *blocks]
                self._braces(sorted(items, key=lambda item: item.at), self._item)

    def _bound(self, value: Predicate | Set | Domain) -> None:
        match value:
            case BoolDomain() | NumberDomain() | TextDomain() | TimeDomain():
                self._domain(value)
            case Members() | Meta() | Combined() | Edited():
                self._set(value)
            case _:
                self._predicate(value)

    def _one_liner(self, node: OneLiner) -> None:
        self._out.begin()
        self._out.indent()
        self._put(2)
        if node.priority is not None:
            self._put()
            self._number(space=False)
            self._put(space=False)
        while not self._is("@"):
            self._put()
        (update,) = node.step.updates
        self._change(update)
        if node.step.condition is not None:
            self._out.line()
            self._put()
            self._predicate(node.step.condition)
        self._put()
        self._out.dedent()
        self._out.end()

    # Blocks

    def _item(self, node: Number | CheckRule | Block) -> None:
        match node:
            case Number():
                self._put()
                self._number()
                self._put()
            case CheckRule(condition=condition):
                self._put(3)
                if condition is not None:
                    self._predicate(condition)
                self._put()
            case Block(phase=phase, steps=steps):
                self._put(1 if phase == "result" else 2)
                lone = len(steps) == 1 and steps[0].condition is None
                self._braces(steps, self._step, short=lone)

    def _step(self, node: Step) -> None:
        if node.condition is None:
            self._update(node.updates[0])
            return
        self._put()
        self._predicate(node.condition)
        self._braces(node.updates, self._update, short=len(node.updates) == 1)

    def _update(self, node: Update) -> None:
        self._change(node)
        self._put()

    def _change(self, node: Update) -> None:
        self._meta(node.target)
        self._put()
        self._set(node.set)

    def _braces(
        self, items: Sequence[_Item], write: Callable[[_Item], None], *, short: bool = False
    ) -> None:
        """Write a block; a `short` one stays on the line if it fits."""
        self._out.begin()
        self._put()
        self._out.indent()
        for number, item in enumerate(items):
            self._begin_item(first=number == 0, short=short)
            write(item)
        self._last_comments(first=not items)
        self._close(space=bool(items))

    def _begin_item(self, *, first: bool, apart: bool = False, short: bool = False) -> None:
        """Begin a line with the comments that stand before an item, and keep one free line."""
        gap = self._gaps[self._index]
        self._out.line() if short else self._out.hard()
        for comment in gap.take(own=True):
            self._own_comment(comment, blank=not first and (comment.blank or apart))
            first = apart = False
        if not first and (gap.blank or apart):
            self._out.blank()
        while self._tokens[self._index].kind == "doc":
            self._put()
            self._out.hard()
