"""Which tools two blocks of a policy have in common, as far as their names and regexes say."""

import re
from functools import cache

from langchain_sequrity import patterns
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.matchers import INSTALL, MatchBudget, Truth, matcher
from langchain_sequrity.sqrt.nodes import TextLiteral, ToolId

# The start of a regex: `^`, alternatives in a group, and a text, of which the last character may
# be optional.
_START = re.compile(r"\^(?:\(([A-Za-z0-9_|-]+)\)(?![?*+{]))?([A-Za-z0-9_-]*)([?*{]?)")
_ALL_WITH_START = re.compile(r"\^(?:\([A-Za-z0-9_|-]+\))?[A-Za-z0-9_-]*\.\*\$")
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
    starts, others = _starts(tool.text), _starts(other.text)
    if starts is None or others is None:
        return True
    return any(a.startswith(b) or b.startswith(a) for a in starts for b in others)


def includes(tool: ToolId, other: ToolId) -> bool:
    """Whether a block is certainly for all tools that another block is for."""
    if is_exact(other):
        return applies(tool, other.text.raw) is True
    raw, inside = tool.text.raw, other.text.raw
    if (tool.text.kind, raw) == (other.text.kind, inside):
        return True
    if not (tool.text.kind == other.text.kind == "matching" and _IS_UNDERSTOOD.fullmatch(inside)):
        return False
    if "[^" in inside:  # it matches line breaks, which `.` may not match
        return False
    if raw == ".*":
        return True
    others = _starts(other.text) if _ALL_WITH_START.fullmatch(raw) else None
    starts = tuple(_starts(tool.text) or ())
    return others is not None and all(start.startswith(starts) for start in others)


def always_includes(tool: ToolId, other: ToolId) -> bool:
    """Whether a block includes another, and each is certainly for a tool or not.

    A name with a line break does not count, for which all regexes are in doubt.
    """
    is_certain = is_exact(other) or (_is_anchored(tool.text) and _is_anchored(other.text))
    return is_certain and includes(tool, other)


def _is_anchored(text: TextLiteral) -> bool:
    raw = text.raw
    is_whole = raw == ".*" or (raw.startswith("^") and raw.endswith("$"))
    return (
        is_whole
        and text.kind == "matching"
        and _IS_UNDERSTOOD.fullmatch(raw) is not None
        and not _has_alternatives(raw)
    )


def _starts(text: TextLiteral) -> list[str] | None:
    """Texts with one of which each matched name begins; `None` if they are unknown."""
    raw = text.raw
    if text.kind != "matching" or not _IS_UNDERSTOOD.fullmatch(raw) or _has_alternatives(raw):
        return None
    start = _START.match(raw)
    if start is None:
        return None
    rest = start[2][:-1] if start[3] else start[2]
    return [alternative + rest for alternative in (start[1] or "").split("|")]


def _has_alternatives(raw: str) -> bool:
    """Whether a regex has `|` outside of groups."""
    depth = 0
    for mark in _CLASS.sub("", raw):
        depth += (mark == "(") - (mark == ")")
        if mark == "|" and depth == 0:
            return True
    return False
