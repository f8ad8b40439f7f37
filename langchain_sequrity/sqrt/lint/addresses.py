"""Patterns that guard an address and let through what is not one address.

The wildcard `w"*@museum.example"` as the only allowed `to` denies `eve@evil.example`, and lets
`eve@evil.example,ada@museum.example` through: whoever sends the mail sees two addresses. Such a
text is looked for and tried on the rule itself, so that a warning always has one that passes.
"""

import re
import string
import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from langchain_sequrity.display import plain
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt.compiler import Report
from langchain_sequrity.sqrt.context import Argument, Call, Context
from langchain_sequrity.sqrt.nodes import (
    Bindings,
    In,
    Policy,
    Text,
    TextDomain,
    Value,
    bindings_of,
    elements_of,
    parts_of,
    tests_of,
    tools_of,
)
from langchain_sequrity.sqrt.patterns import Budget
from langchain_sequrity.sqrt.predicates import Test
from langchain_sequrity.sqrt.values import matcher
from langchain_sequrity.sqrt.verdict import CompiledTool

_PIECE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{\d*(?:,\d*)?\}|.", re.DOTALL)
_SECONDS = 1.0  # for all patterns of a policy; then no more is found
_ADDRESS = re.compile(
    r"(?i)to|b?cc|from|sender|(recipient|receiver|addressee|e?mail|attendee|invitee|participant)s?"
    r"|address(es)?|destinations?"
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_FOREIGN = ("eve@evil.example", "eve@evil", "eve", "e", "")
_SEPARATORS = (",", ";", " ", "\t", "\n", "\r", "\0", "\x1b", "\x7f", "\x85", "\u2028", "@")
_BETWEEN = re.compile(r"[,;\s]+")
_ANYTHING = "-"  # what matches this guards no address
_SAFE = "[A-Za-z0-9._+-]"
_MOST = 4  # texts that are made of one regex
_LONGEST = 200
_DEEPEST = 50
_Pattern = Text | TextDomain


def find_leaks(policy: Policy, tools: Sequence[CompiledTool], report: Report) -> None:
    """Warn of patterns that guard an address and let through what is not one address.

    Args:
        policy: A policy without errors.
        tools: Its compiled blocks and one-liners, in source order.
        report: Takes what is found.
    """
    budget = Budget(_SECONDS)
    for guard in _guards(policy, tools):
        passing = (text for text in _strangers(guard.pattern, budget) if guard.passed(text, budget))
        if text := next(passing, None):
            report(
                "warning",
                f"This pattern lets through what is not one address: `{plain(text, limit=80)}`",
                guard.pattern.at,
                f"Name the characters that may stand there, as in "
                f"`{plain(safe_pattern(guard.pattern), limit=400)}`",
                lets_through=True,
            )


# Rules


class _Guard(NamedTuple):
    """A pattern that lets addresses through where it matches.

    Attributes:
        pattern: The pattern.
        argument: The argument that holds the address.
        test: The condition in which the pattern stands.
        restricts: Whether the condition denies, or adds labels, where it holds.
        denials: The conditions of all hard denials for the tool.
    """

    pattern: _Pattern
    argument: str
    test: Test
    restricts: bool
    denials: tuple[Test, ...]

    def passed(self, text: str, budget: Budget) -> bool:
        """Whether a text passes the condition, and all denials, if other arguments are right."""
        context = Context(Call("", {self.argument: Argument(text)}), Labels())
        context.budget = budget
        return self.test(context) is not self.restricts and not any(
            test(context) is True for test in self.denials
        )


def _guards(policy: Policy, tools: Sequence[CompiledTool]) -> Iterator[_Guard]:
    bindings = bindings_of(policy)
    for node, tool in zip(tools_of(policy), tools, strict=True):
        tests = [check.test for check in tool.checks] + [step.test for step in tool.steps]
        denials = tuple(
            check.test for check in tool.checks
            if check.test and (check.reason.strength, check.reason.verdict) == ("hard", "deny")
        )  # fmt: skip
        for part, test in zip(parts_of(node), tests, strict=True):
            if test:
                passing = not part.restricts
                for pattern, argument in _patterns(part.condition, bindings, passes=passing):
                    yield _Guard(pattern, argument, test, part.restricts, denials)


def _patterns(
    condition: object, bindings: Bindings, *, passes: bool
) -> Iterator[tuple[_Pattern, str]]:
    """The patterns for addresses in a condition that let through what they match."""
    for test, passing in tests_of(condition, bindings, passes=passes):
        match test:
            case In(value=Value(scope="arg", argument=argument), set=members) if passing:
                for element in elements_of(members, bindings):
                    if isinstance(element, Text | TextDomain) and _is_address(argument, element):
                        yield element, argument


def _is_address(argument: str, pattern: _Pattern) -> bool:
    text = _text(pattern)
    words = _WORD.findall(argument)
    named = bool(words) and _ADDRESS.fullmatch(words[-1]) is not None
    return text.kind != "plain" and (named or "@" in text.raw)


def _text(pattern: _Pattern) -> Text:
    return pattern.text if isinstance(pattern, TextDomain) else pattern


def safe_pattern(pattern: _Pattern) -> str:
    """The pattern with all its characters named, if it is a wildcard, or an example."""
    text = _text(pattern)
    if text.kind != "like" or "@" not in text.raw or "**" in text.raw:
        return f'str matching r"^{_SAFE}+@museum[.]example$"'
    stands = {"*": f"{_SAFE}+", "?": _SAFE}
    safe = string.ascii_letters + string.digits + "@-_"
    written = (stands.get(one) or (one if one in safe else f"[{one}]") for one in text.raw)
    return f'str matching r"^{"".join(written)}$"'


# Texts that are not one address


def _strangers(pattern: _Pattern, budget: Budget) -> Iterator[str]:
    """Texts that match for sure and are not one address, those first that tell most."""
    if budget.left <= 0:
        return
    test, text = matcher(pattern), _text(pattern)
    samples = _samples(text.raw) if text.kind == "matching" else [re.sub("[*?]", "a", text.raw)]

    def matches(text: str) -> bool:
        return test(text, budget) is True

    def is_known(part: str) -> bool:
        return not part or (matches(part) and part.count("@") <= 1)

    if matches(_ANYTHING):
        return
    for sample in samples:
        for one in _changed(sample[:_LONGEST]):
            if budget.left <= 0:
                return
            if matches(one) and (_acts(one) or not all(map(is_known, _BETWEEN.split(one)))):
                yield one


def _acts(text: str) -> bool:
    """Whether a text has line breaks or other control characters."""
    return any(unicodedata.category(one) in {"Cc", "Zl", "Zp"} for one in text)


def _changed(sample: str) -> Iterator[str]:
    """A text with something foreign in it, at its ends and at every other place."""
    yield sample
    for separator in _SEPARATORS:
        for foreign in _FOREIGN:
            yield f"{foreign}{separator}{sample}"
            yield f"{sample}{separator}{foreign}"
        for at in range(len(sample)):
            yield sample[:at] + separator + sample[at:]
            yield sample[:at] + separator + sample[at + 1 :]


def _samples(raw: str) -> list[str]:
    """Texts that a regex may match, with each repeat once; whether they do is for others to say."""
    if raw.count("(") > _DEEPEST:
        return []
    raw = re.sub(r"\(\?[aiLmsux]+\)|\(\?#[^)]*\)", "", raw)
    raw = re.sub(r"\(\?(?:P?<\w+>|[aiLmsux-]*:|>)", "(", raw)
    return _alternatives(deque(piece[0] for piece in _PIECE.finditer(raw)))


def _alternatives(pieces: deque[str]) -> list[str]:
    found = _sequence(pieces)
    while pieces and pieces.popleft() == "|":
        found += _sequence(pieces)
    return found[:_MOST]


def _sequence(pieces: deque[str]) -> list[str]:
    texts = [""]
    while pieces and pieces[0] not in {"|", ")"}:
        piece = pieces.popleft()
        items = _group(pieces) if piece == "(" else [_character(piece)]
        times = _times(pieces)
        texts = [(one + item * times)[:_LONGEST] for one in texts for item in items][:_MOST]
    return texts


def _group(pieces: deque[str]) -> list[str]:
    looks_around = bool(pieces) and pieces[0] == "?"
    found = _alternatives(pieces)
    return [""] if looks_around else found


def _times(pieces: deque[str]) -> int:
    """How often an item is to stand, by the quantifier after it."""
    times = 1
    if pieces and (pieces[0] in {"*", "+", "?"} or pieces[0][0] == "{"):
        low = re.match(r"\{(\d+)", pieces.popleft())
        times = min(int(low[1]), _LONGEST) if low else 1
        if pieces and pieces[0] in {"?", "+"}:
            pieces.popleft()
    return max(times, 1)


def _character(piece: str) -> str:
    """A character that a piece of a regex matches, if it is one for a character."""
    try:
        return next((one for one in "aA1" + string.printable if re.fullmatch(piece, one)), "")
    except re.error:
        return ""
