"""Errors that show their place in a policy, hints what to write instead, and misspelt names."""

import re
from collections.abc import Sequence

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError, UsageError

_WIDTH = 160


def position_at(text: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset in a text, both from 1."""
    start = text.rfind("\n", 0, offset) + 1
    return text.count("\n", 0, start) + 1, offset - start + 1


def not_a_text(value: object) -> UsageError:
    """Build the error for a value that should be the text of a policy."""
    return UsageError(
        f"Expected the text of a policy, got {type(value).__name__}. Pass `text` of a parsed "
        "policy, `codes.code` of a `PolicyHeader`, the content of a file, or for several policies "
        "`sqrt.combine(…).text`."
    )


def syntax_error(
    text: str, position: tuple[int, int], message: str, *, expected: tuple[str, ...] = ()
) -> PolicySyntaxError:
    """Build the error for a place in a text."""
    line, column = position
    return PolicySyntaxError(
        f"{message} (line {line}, column {column})",
        line=line,
        column=column,
        source=caret_excerpt(text, position),
        expected=expected,
    )


def caret_excerpt(text: str, position: tuple[int, int]) -> str:
    """The line at a place, with a caret below."""
    number, column = position
    line = text.split("\n", number)[number - 1].replace("\t", " ")
    cut = max(0, column - _WIDTH // 2)
    before = plain(line[cut : column - 1])
    return f"  {before}{plain(line[column - 1 : cut + _WIDTH])}\n  {' ' * len(before)}^"


_STRENGTHS = ("must", "hard", "should", "soft")
_BLOCK = "Labels change inside `result { … }`, `session before { … }`, `session after { … }`"
_LEFT = "The left side is one set of labels: `a.tags overlaps {…}`; join conditions with `or`"
_OVERLAPS = 'Write `a.tags overlaps {"x"}` or `"x" in a.tags`'
_ADD = "Labels are added with `|=`; there is no arithmetic"
_HINTS = {
    **dict.fromkeys(
        ("allow", "deny"), "A rule begins with its strength: `must deny …` or `should allow …`"
    ),
    **dict.fromkeys(
        ("matching", "like"), "Write `a.value in {str matching …}` or `a.value in {str like …}`"
    ),
    **dict.fromkeys(("overlaps", "subset", "superset"), _LEFT),
    **dict.fromkeys(
        ("..", "..<", "<..", "<..<"),
        "A range begins with its kind: `{int 1..5}` or `{float 0.5..2.0}`",
    ),
    "contains": _OVERLAPS,
    "if": "Write `when`",
    "&": "Conditions are joined with `and`; `&` joins sets",
    "|": "Conditions are joined with `or`; `|` joins sets",
    "+": _ADD,
    "priority": "`priority 3;` is a statement of its own in the block",
    "not": "`not` comes first: `not a.tags is empty`",
    "@": _BLOCK,
    "@result": "A one-liner takes the short form: `-> @tags |= {…}`",
    "@args": "`@args` has labels, which rules can read but not change, and no value",
    ".value": "Only `arg.value`, `@result.value` and `@session.value` are values",
}
_OUTSIDE = "Write rules beside `result { … }` and `session … { … }`, not inside"
_RULE = f"A rule begins with its strength: `must deny when p;`. {_BLOCK}"
_PAIRS = {
    ("session", "{"): "Write `session before {` or `session after {`",
    **{(rule, end): _OUTSIDE for rule in _STRENGTHS for end in ("allow", "deny")},
    **{(end, "when"): _RULE for end in "{;}"},
    ("==", "{"): "Write `a.value in {…}`",
    (".value", "."): "Rules cannot read inside a value",
}
_INSIDE = 'Write rules in the block of a tool: `tool "name" { … }`'
_ENDS = (("`;`",), ("`)`",), ("`{`",))  # of a condition
_NAME = 60
_KEYWORDS = ("let", "tool", "must", "hard", "should", "soft", "allow", "deny", "when", "always")


def hint(before: Sequence[str], actual: str, expected: Sequence[str] = ()) -> str:
    """Suggest what to write instead of a token that does not fit.

    Args:
        before: The texts of the last tokens before the fault, the nearest last.
        actual: The text of the token.
        expected: The tokens that would fit, in words.

    Returns:
        A sentence without its full stop, or an empty text.
    """
    last = before[-1] if before else ""
    if actual == ";" and list(before[-2:-1]) == ["="]:
        return 'Only predicates, sets and domains have names: `{"x"}`, `int 5`, `str "x"`'
    if actual.lower() in _KEYWORDS and actual not in _KEYWORDS:
        return f"Keywords are in lower case: `{actual.lower()}`"
    suggestion = _suggestion(last, actual, expected)
    return suggestion or _PAIRS.get((last, actual)) or _HINTS.get(actual, "")


def _suggestion(last: str, actual: str, expected: Sequence[str]) -> str:  # noqa: PLR0911 - one per slip
    """A suggestion that depends on the expected tokens."""
    if "`overlaps`" in expected:  # after labels
        return _OVERLAPS if actual == "in" else _LEFT if actual in {"|", "&", "^", "-"} else ""
    if "`|=`" in expected:
        return _ADD if actual == "|" else ""
    if "`let`" in expected:
        return _INSIDE if actual in _STRENGTHS else ""
    if actual in {"in", "=="} and expected in _ENDS and last.isidentifier():
        name = plain(last, limit=_NAME)
        return f"The value of an argument is `{name}.value`: `{name}.value {actual} …`"
    first_expected = expected[0] if expected else ""
    if '"' in actual or actual[:1].isdigit():
        literal = plain(f"datetime {actual}" if actual[0] == "d" else actual, limit=_NAME)
        if first_expected.startswith("a set,"):
            return f"Write a set in braces: `{{{literal}}}`"
        if first_expected.startswith("a value,"):
            return f"Write `in {{{literal}}}`"
        if first_expected.startswith("the name of a tool"):
            return 'A regex matches many tools: `tool r"^send_.*$"`'
    return ""


_SHORTEST, _LONGEST = 5, 60  # shorter names differ by one letter too often
_SHORTEST_WORD = 3
_BETWEEN_WORDS = re.compile(r"[\W_]+")


class SpellingIndex:
    """Names, indexed to find one that differs from another by one typing slip.

    Two such names are equal after one letter is removed from each, so no pairs are compared.
    """

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def add(self, name: str) -> None:
        """Add a name."""
        for key in _keys(name):
            self._first.setdefault(key, name)

    def near(self, name: str) -> str:
        """An added name that is one slip away, or an empty text."""
        candidates = (self._first.get(key, name) for key in _keys(name))
        return next((c for c in candidates if c != name and is_slip(name, c)), "")


def is_slip(name: str, other: str) -> bool:
    """Whether names differ by case, a hyphen, one letter, or two swapped letters.

    Differences in numbers, in words of one or two letters, and in addresses are intended: `step_1`,
    `team_a`, `ana@bank.example`.
    """
    name, other = _normalized(name), _normalized(other)
    start = next((i for i, (a, b) in enumerate(zip(name, other, strict=False)) if a != b), None)
    if start is None:
        start = min(len(name), len(other))
    if _is_intended(name, other, start):
        return False
    rest, other_rest = name[start:], other[start:]
    is_swapped = rest[:2] == other_rest[1::-1] and rest[2:] == other_rest[2:]
    return is_swapped or rest[1:] in (other_rest, other_rest[1:]) or rest == other_rest[1:]


def _is_intended(name: str, other: str, start: int) -> bool:
    """Whether names that first differ at `start` differ in a part that people choose freely."""
    letters = name[start : start + 1] + other[start : start + 1]
    if "@" in name or any(letter.isdigit() for letter in letters):
        return True
    words, others = _BETWEEN_WORDS.split(name), _BETWEEN_WORDS.split(other)
    if len(words) != len(others):
        return False
    pairs = zip(words, others, strict=True)
    return any(a != b and min(len(a), len(b)) < _SHORTEST_WORD for a, b in pairs)


def _keys(name: str) -> list[str]:
    """A name and all its variants with one letter removed; a short name itself."""
    if len(name) > _LONGEST:
        return []
    spelt = _normalized(name)
    if len(name) < _SHORTEST:
        return [f"={spelt}"]  # equal to no variant of another name
    return [spelt, *(spelt[:i] + spelt[i + 1 :] for i in range(len(spelt)))]


def _normalized(name: str) -> str:
    """A name in one of its equivalent spellings."""
    return name.strip().casefold().replace("-", "_").replace(" ", "_")
