"""Which tools two blocks of a policy have in common, as far as their names and regexes say."""

import re
from functools import cache

from langchain_sequrity import patterns
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.matchers import INSTALL, MatchBudget, Truth, matcher
from langchain_sequrity.sqrt.nodes import TextLiteral, ToolId

_LITERAL_START = re.compile(r"\^([A-Za-z0-9_-]*)([?*{]?)")
# No flags, comments, references or nested classes: so each mark means itself.
_IS_UNDERSTOOD = re.compile(
    r"(?:[A-Za-z0-9_.*+?$|{},^-]|\\[dw.]|\[\^?[A-Za-z0-9_-]+\]|\((?:\?:|(?!\?))|\))*"
)
_CLASS = re.compile(r"\[[^\]]*\]")


def is_exact(tool: ToolId) -> bool:
    """Whether a block is for one tool, whose name has one reading."""
    return tool.text.kind == "plain" and "\\" not in tool.text.raw


def applies(tool: ToolId, name: str) -> Truth:
    """Whether a block is for the tool of a name; unknown if a regex matches a part of it.

    Raises:
        UsageError: If a regex decides this and the package `regex` is not installed.
    """
    if is_exact(tool):
        return tool.text.raw == name
    if tool.text.kind == "matching" and not patterns.has_engine():
        msg = (
            "Policies with blocks for many tools are combined with the package `regex`, which is "
            f"not installed ({INSTALL})."
        )
        raise UsageError(msg)
    return _matches(tool.text, name)


@cache
def _matches(text: TextLiteral, name: str) -> Truth:
    try:
        return matcher(text)(name, MatchBudget())
    except ValueError:  # only the service can read this regex
        return None


def may_overlap(tool: ToolId, other: ToolId) -> bool:
    """Whether some tool may belong to both blocks."""
    for first, second in ((tool, other), (other, tool)):
        if is_exact(first):
            return applies(second, first.text.raw) is not False
    starts = _literal_start(tool.text), _literal_start(other.text)
    if None in starts:
        return True
    left, right = sorted(map(str, starts), key=len)
    return right.startswith(left)


def _literal_start(text: TextLiteral) -> str | None:
    """The characters with which each matched name begins; `None` if they are unknown."""
    raw = text.raw
    if text.kind != "matching" or not _IS_UNDERSTOOD.fullmatch(raw) or _has_alternatives(raw):
        return None
    start = _LITERAL_START.match(raw)
    if start is None:
        return None
    return start[1][:-1] if start[2] else start[1]


def _has_alternatives(raw: str) -> bool:
    """Whether a regex has `|` outside of groups."""
    depth = 0
    for mark in _CLASS.sub("", raw):
        depth += (mark == "(") - (mark == ")")
        if mark == "|" and depth == 0:
            return True
    return False
