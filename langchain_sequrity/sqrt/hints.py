"""What to write instead of what looks possible and is not."""

from collections.abc import Sequence

from langchain_sequrity.display import plain

_STRENGTH = "A rule begins with its strength: `must deny …` or `should allow …`"
_STRENGTHS = ("must", "hard", "should", "soft")
_BLOCK = "Labels change inside `result { … }`, `session before { … }`, `session after { … }`"
_LEFT = "The left side is one set of labels: `a.tags overlaps {…}`; join several with `or`"
_BOUND = 'Only predicates, sets and domains have names: `{"x"}`, `int 5`, `str "x"`'
_MEMBER = 'Write `"x" in a.tags` or `a.tags overlaps {"x"}`'
_DOMAIN = "Write `a.value in {str matching …}` or `a.value in {str like …}`"
_OVERLAPS = 'Write `a.tags overlaps {"x"}` or `"x" in a.tags`'
_AND = "Conditions are joined with `and`; `&` joins sets"
_OR = "Conditions are joined with `or`; `|` joins sets"
_ADD = "Labels are added with `|=`; there is no arithmetic"
_RANGE = "A range says what lies in it: `{int 1..5}` or `{float 0.5..2.0}`"
_OUTSIDE = "Rules stand beside `result { … }` and `session … { … }`, not inside"
_INSIDE = 'Rules stand in the block of a tool: `tool "name" { … }`'
_RULE = f"A rule begins with its strength: `must deny when p;`. {_BLOCK}"
_TOOLS = 'A regex stands for many tools: `tool r"^send_.*$"`'
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
    "&": _AND,
    "|": _OR,
    "..": _RANGE,
    "..<": _RANGE,
    "<..": _RANGE,
    "<..<": _RANGE,
    "+": _ADD,
    "priority": "`priority 3;` stands by itself in the block",
    "not": "`not` stands in front: `not a.tags is empty`",
    "@": _BLOCK,
    "@result": "A one-liner takes the short form: `-> @tags |= {…}`",
    "@args": "The labels of all arguments can be read, not changed, and have no value",
    ".value": "Only `arg.value`, `@result.value` and `@session.value` are values",
}
_PAIRS = {
    ("session", "{"): "Write `session before {` or `session after {`",
    **{(rule, end): _OUTSIDE for rule in _STRENGTHS for end in ("allow", "deny")},
    **{(end, "when"): _RULE for end in "{;}"},
    ("==", "{"): "Write `a.value in {…}`",
    (".value", "."): "Nothing inside a value can be looked at",
}
_ENDS = (("`;`",), ("`)`",), ("`{`",))  # of a condition
_NAME = 60
_KEYWORDS = ("let", "tool", "must", "hard", "should", "soft", "allow", "deny", "when", "always")


def hint(before: Sequence[str], found: str, expected: Sequence[str] = ()) -> str:
    """Say what to write instead.

    Args:
        before: The texts of the last tokens before the fault, the nearest last.
        found: The text of the token that does not fit.
        expected: What would fit, in words.

    Returns:
        A sentence without its full stop, or an empty text.
    """
    last = before[-1] if before else ""
    if found == ";" and list(before[-2:-1]) == ["="]:
        return _BOUND
    if found.lower() in _KEYWORDS and found not in _KEYWORDS:
        return f"Keywords are in lower case: `{found.lower()}`"
    meant = _instead(last, found, expected)
    return meant or _PAIRS.get((last, found)) or _FOUND.get(found, "")


def _instead(last: str, found: str, expected: Sequence[str]) -> str:  # noqa: PLR0911 - one per slip
    """What to write where the same text would mean something else at another place."""
    if "`overlaps`" in expected:  # behind labels
        return _OVERLAPS if found == "in" else _LEFT if found in {"|", "&", "^", "-"} else ""
    if "`|=`" in expected:
        return _ADD if found == "|" else ""
    if "`let`" in expected:
        return _INSIDE if found in _STRENGTHS else ""
    if found in {"in", "=="} and expected in _ENDS and last.isidentifier():
        name = plain(last, limit=_NAME)
        return f"The value of an argument is `{name}.value`: `{name}.value {found} …`"
    what = expected[0] if expected else ""
    if '"' in found or found[:1].isdigit():
        shown = plain(f"datetime {found}" if found[0] == "d" else found, limit=_NAME)
        if what.startswith("a set,"):
            return f"A set stands in braces: `{{{shown}}}`"
        if what.startswith("a value,"):
            return f"Write `in {{{shown}}}`"
        if what.startswith("the name of a tool"):
            return _TOOLS
    return ""
