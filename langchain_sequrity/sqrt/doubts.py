"""Why a condition is in doubt, in words that a reader can act on and that show no value.

Each single test of a condition is kept beside what was compiled of it. Only when a verdict is in
doubt are they asked again, one by one, which of them nobody can know; and of a set, which element.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from langchain_sequrity.display import plain
from langchain_sequrity.sqrt.context import MISSING, Context
from langchain_sequrity.sqrt.nodes import (
    BoolDomain,
    Boolean,
    Compared,
    Element,
    In,
    Meta,
    Moment,
    Number,
    NumberDomain,
    Same,
    Text,
    TextDomain,
    TimeDomain,
    Value,
)
from langchain_sequrity.sqrt.patterns import INSTALL, LINE_BREAK, has_engine
from langchain_sequrity.sqrt.predicates import Test
from langchain_sequrity.sqrt.values import SCALARS, Matcher

Elements = list["tuple[Element | Moment | Boolean, Matcher] | Elements"]
"""Elements of a set with their tests, and those of the named sets in it."""


class Leaf(NamedTuple):
    """One test of a condition: what was compiled of it, what it looks at and compares with."""

    node: In | Same | Compared
    test: Test
    arguments: tuple[str, ...]
    elements: Elements


Leaves = list["Leaf | Leaves"]
"""The tests of a condition, and those of the named conditions in it."""

_MOST_TESTS = 1_000
_MOST_NAMES = 5


def cause(leaves: Leaves, context: Context, *, names: bool = False) -> str:
    """Say why a condition is in doubt.

    Args:
        leaves: Its tests.
        context: The call.
        names: Whether it is in doubt that the rule is for this tool at all.

    Returns:
        The rest of a sentence that begins with `because`.
    """
    absent: dict[str, None] = {}
    found: dict[str, None] = {}
    for number, leaf in enumerate(_flat(leaves)):
        if number >= _MOST_TESTS:
            break
        if leaf.test(context) is None:
            missing = [name for name in leaf.arguments if name not in context.arguments]
            absent |= dict.fromkeys(missing)
            if not missing:
                found.setdefault(_of(leaf, context))
    said = [_absent(list(absent))] if absent else []
    said += list(found)[: 1 if said else 2]
    if names:
        said.insert(0, "its regex matches only a part of the tool's name")
    return ", and ".join(said) or "readings of the rule differ"


def _absent(names: list[str]) -> str:
    shown = " and ".join(f"`{plain(name, limit=80)}`" for name in names[:_MOST_NAMES])
    return f"the call has no argument {shown}"


def _flat(root: Any) -> Iterator[Any]:
    """What a list and the lists in it hold, each list once."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if not isinstance(node, list):
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            waiting += reversed(node)


def _of(leaf: Leaf, context: Context) -> str:  # noqa: PLR0911 - one per cause
    node = leaf.node
    if isinstance(node, Compared):
        return _of_labels(node)
    sides = (node.value,) if isinstance(node, In) else (node.left, node.right)
    values = [side for side in sides if isinstance(side, Value)]
    if not values:
        return _of_labels(node)
    read = [_value(one, context) for one in values]
    name = _name(values[0])
    if MISSING in read:
        return f"what {name} holds is not known"
    value = read[0]
    if len(values) > 1:
        other = _kind(read[1])
        return f"{name} is {_kind(value)}, and {_name(values[1])} is {other}"
    if not isinstance(value, SCALARS):
        return f"{name} is {_kind(value)}, into which no rule can look"
    for element, matches in _flat(leaf.elements):
        if matches(value, context.budget) is None:
            return _of_element(name, value, element, context)
    return f"whether {name} is in that set can be read in several ways"


def _value(node: Value, context: Context) -> Any:
    if node.scope == "arg":
        return context.arguments[node.argument].value
    return MISSING if node.scope == "session" or context.result is None else context.result.value


def _name(node: Value) -> str:
    return f"`{plain(node.argument or f'@{node.scope}.value', limit=80)}`"


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a float", str: "a text"}
    kinds |= {list: "a list", dict: "an object", type(None): "null"}
    return kinds.get(type(value), "a value")


def _of_element(name: str, value: Any, element: object, context: Context) -> str:
    match element:
        case NumberDomain(kind=kind):
            meant = f"`{kind}`"
        case Number(value=number):
            meant = _kind(number)
        case BoolDomain() | Boolean():
            meant = "true or false"
        case Moment() | TimeDomain():
            if not isinstance(value, str):
                return f"{name} is {_kind(value)}, which may count seconds or milliseconds"
            return f"{name} is written in another form than `2027-01-31T10:00:00Z`"
        case Text() | TextDomain() if isinstance(value, str):
            return _of_text(name, value, element, context)
        case _:
            meant = "a text"
    return f"{name} is {_kind(value)}, and the rule means {meant}"


def _of_text(  # noqa: PLR0911 - one per cause
    name: str, value: str, element: Text | TextDomain, context: Context
) -> str:
    text = element.text if isinstance(element, TextDomain) else element
    if text.kind == "plain" or "\\\\" in text.raw or (text.kind == "like" and "\\" in text.raw):
        return "how a backslash in the rule is read is not known"
    if text.kind == "matching":
        if not has_engine():
            return f"no regex is evaluated without the package `regex` (`{INSTALL}`)"
        if context.budget.left <= 0:
            return "a regex took too long"
        return f"a regex matches only a part of {name}, or took too long"
    if "[" in text.raw:
        return "how `[` in a wildcard is read is not known"
    if LINE_BREAK.search(value):
        return f"{name} has a line break, and a wildcard may stop there"
    return f"{name} is too long for a wildcard, or its length differs in characters and bytes"


def _of_labels(node: In | Same | Compared) -> str:
    meta = node.left if isinstance(node, Compared) else node.set if isinstance(node, In) else None
    if isinstance(meta, Meta) and meta.scope == "short":
        return f"what `@{meta.field}` means here is not known"
    return "how these labels compare is not known"
