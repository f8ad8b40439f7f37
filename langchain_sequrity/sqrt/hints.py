"""What to write instead of what looks possible and is not."""

import difflib
from collections.abc import Iterable, Sequence
from itertools import islice

from langchain_sequrity.display import plain

_STRENGTH = "A rule begins with its strength: `must deny …` or `should allow …`"
_BLOCK = "Labels change inside `result { … }`, `session before { … }`, `session after { … }`"
_LEFT = "The left side is one set of labels: `a.tags overlaps {…}`; join several with `or`"
_BOUND = 'Only predicates, sets and domains have names: `{"x"}`, `int 5`, `str "x"`'
_MEMBER = 'Write `"x" in a.tags` or `a.tags overlaps {"x"}`'
_DOMAIN = "Write `a.value in {str matching …}` or `a.value in {str like …}`"
_FOUND = {
    "allow": _STRENGTH,
    "deny": _STRENGTH,
    "contains": _MEMBER,
    "matching": _DOMAIN,
    "like": _DOMAIN,
    "overlaps": _LEFT,
    "subset": _LEFT,
    "superset": _LEFT,
    "if": "Write `when`",
    "not": "`not` stands in front: `not a.tags is empty`",
    "@": _BLOCK,
    "@result": "A one-liner takes the short form: `-> @tags |= {…}`",
    "@args": "The labels of all arguments can be read, not changed, and have no value",
    ".value": "Only `arg.value`, `@result.value` and `@session.value` are values",
}
_PAIRS = {
    ("{", "when"): _BLOCK,
    (";", "when"): _BLOCK,
    ("session", "{"): "Write `session before {` or `session after {`",
    (".value", "."): "Nothing inside a value can be looked at",
}
_NAME = 60
_SLIP = 3
_KEYWORDS = ("let", "tool", "must", "hard", "should", "soft", "allow", "deny", "when", "always")


def hint(before: Sequence[str], found: str) -> str:
    """Say what to write instead.

    Args:
        before: The texts of the last tokens before the fault, the nearest last.
        found: The text of the token that does not fit.

    Returns:
        A sentence without its full stop, or an empty text.
    """
    last = before[-1] if before else ""
    if found == ";" and list(before[-2:-1]) == ["="]:
        return _BOUND
    if found.lower() in _KEYWORDS and found not in _KEYWORDS:
        return f"Keywords are in lower case: `{found.lower()}`"
    return _PAIRS.get((last, found)) or _FOUND.get(found, "")


def nearest(name: str, names: Iterable[str]) -> str:
    """Ask whether a name that looks much the same was meant.

    Comparing takes time that grows with the square of what is compared, so only names of usual
    length are, and not more than fifty of them.
    """
    alike = (one for one in names if abs(len(one) - len(name)) <= _SLIP)
    near = difflib.get_close_matches(name, islice(alike, 50), 1) if len(name) <= _NAME else []
    return f"Did you mean `{plain(near[0])}`?" if near else ""
