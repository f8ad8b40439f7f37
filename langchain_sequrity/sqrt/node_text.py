"""Nodes to SQRT text. `formatter` gives it the layout of `format_policy`.

There is one spelling for each construct. Doc comments are kept, and a block has the order
priorities, rules, updates. Operators get the parentheses that they need.

How the service reads a backslash in a text is unknown (`docs/policies.md`, What is in doubt), and
without one a text cannot contain a quote. A regex can contain both without doubt.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from math import isinf
from typing import Any, Literal

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.matchers import regex_test
from langchain_sequrity.sqrt.nodes import PHASES
from langchain_sequrity.sqrt.parser import MAX_DEPTH

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RAW = re.compile(r'(?:[^"\\]|\\[^\n])*')
_PIECE = re.compile(r"\\.|.", re.DOTALL)
_IN_REGEX = {'"': '\\"', "\\\\": "\\x5c", "\\\n": "\\n"}
_LIMIT = 80
_INDENT = "    "


def checked_name(name: str) -> str:
    """Check and return a name.

    Raises:
        UsageError: If SQRT cannot write it.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        msg = (
            f"`{plain(str(name), limit=_LIMIT)}` is not a name in SQRT. Names have ASCII letters, "
            "digits and `_`, and do not begin with a digit. Rename it."
        )
        raise UsageError(msg)
    return name


def checked_raw(raw: str) -> str:
    """Check and return a text to be written between quotes.

    Raises:
        UsageError: If it contains a quote that would end it.
    """
    if _RAW.fullmatch(raw) is None:
        msg = f"`{plain(raw, limit=_LIMIT)}` cannot be written in quotes: it contains a quote."
        raise UsageError(msg)
    return raw


def unambiguous_text(text: str, noun: Literal["text", "wildcard"] = "text") -> str:
    """Check and return a text or a wildcard with exactly one reading.

    Raises:
        UsageError: If it has a quote, a backslash, a bracket in a wildcard, or a lone surrogate.
    """
    if any(char in text for char in ('"\\' if noun == "text" else '"\\[')):
        msg = (
            f"The {noun} `{plain(text, limit=_LIMIT)}` has a quote or a backslash (or `[` in a "
            "wildcard), and how the service reads these is unknown. Use a regex, as "
            "`matching(re.escape(text))`, or a label without them."
        )
        raise UsageError(msg)
    return encodable(text)


def unambiguous_regex(pattern: str) -> str:
    r"""Make an equivalent regex with exactly one reading.

    Returns:
        The pattern; a quote in it is written `\"`, and a doubled backslash `\x5c`.

    Raises:
        UsageError: If it does not compile.
    """
    try:
        regex_test(pattern)
    except ValueError as error:
        quoted, reason = plain(pattern, limit=_LIMIT), plain(str(error), limit=200)
        msg = f"The regex `{quoted}` cannot be used: {reason}."
        raise UsageError(msg) from None
    return encodable("".join(_IN_REGEX.get(piece, piece) for piece in _PIECE.findall(pattern)))


def encodable(text: str) -> str:
    """Check and return a text that UTF-8 can encode.

    Raises:
        UsageError: If it has a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        msg = f"`{plain(text, limit=_LIMIT)}` has a lone surrogate, which a policy cannot contain."
        raise UsageError(msg) from None
    return text


PREFIXES = {"plain": "", "matching": "r", "like": "w"}
_TESTS = {
    "subset": "subset of",
    "superset": "superset of",
    "empty": "is empty",
    "universal": "is universal",
}
_STRENGTHS = {"hard": "must", "soft": "should"}
# How loosely operators bind: one that binds too loosely for its place gets parentheses.
_ATOM, _NOT, _AND, _OR = range(4)
_EDITED = 1
_OPERATORS: dict[nodes.Operator, int] = {"|": 2, "&": 3, "-": 4, "^": 5}
_ANYTHING = 6
_LOOSENESS = {nodes.Or: _OR, nodes.And: _AND, nodes.Not: _NOT, nodes.SetEdit: _EDITED}


Node = nodes.Predicate | nodes.Set | nodes.Domain | nodes.ValueRef | nodes.Update

# Predicates and sets


def printed_node(  # noqa: C901, PLR0911, PLR0912 - one per construct
    node: Node, depth: int = 0, loosest: int = _ANYTHING
) -> str:
    """Write a predicate, a set, a domain, a value or a change of labels."""
    if _looseness(node) > loosest:
        return f"({printed_node(node, _deeper(depth))})"
    match node:
        case nodes.Or(parts=parts):
            return " or ".join(printed_node(part, depth, _AND) for part in parts)
        case nodes.And(parts=parts):
            return " and ".join(printed_node(part, depth, _NOT) for part in parts)
        case nodes.Not(inner=inner):
            return f"not {printed_node(inner, _deeper(depth), _NOT)}"
        case nodes.Name(name=name):
            return checked_name(name)
        case nodes.Membership(value=value, set=members):
            return f"{printed_value(value)} in {printed_node(members, depth)}"
        case nodes.Equality():
            return f"{printed_value(node.left)} == {printed_value(node.right)}"
        case nodes.LabelTest(left=labels, test=test, right=other):
            rest = "" if other is None else f" {printed_node(other, depth)}"
            return f"{printed_meta(labels)} {_TESTS.get(test, test)}{rest}"
        case nodes.SetLiteral(elements=elements):
            return f"{{{', '.join(map(printed_value, elements))}}}"
        case nodes.Meta():
            return printed_meta(node)
        case nodes.SetOperation(operator=operator, operands=operands, bare=bare):
            tighter = _OPERATORS[operator] - 1
            if operator == "&" and not bare:
                tighter = _EDITED  # not needed, but `check` asks for parentheses around a union
            return f" {operator} ".join(
                printed_node(operand, depth, tighter) for operand in operands
            )
        case nodes.SetEdit(base=base, edits=edits):
            steps = (
                f" {'with' if adds else 'without'} {printed_value(edit)}" for adds, edit in edits
            )
            return f"{printed_node(base, depth, _ATOM)}{''.join(steps)}"
        case nodes.Update(target=target, assignment=assignment, set=members):
            return f"{printed_meta(target)} {assignment} {printed_node(members)}"
        case _:
            return printed_value(node)


def _looseness(node: Node) -> int:
    if isinstance(node, nodes.SetOperation):
        return _OPERATORS[node.operator]
    return _LOOSENESS.get(type(node), _ATOM)


def _deeper(depth: int) -> int:
    if depth == MAX_DEPTH:
        msg = (
            f"This policy is nested more than {MAX_DEPTH} deep, the limit of SQRT. Name parts "
            "of it with `let`."
        )
        raise UsageError(msg)
    return depth + 1


def printed_meta(node: nodes.Meta) -> str:
    """Write labels with their owner."""
    if node.scope == "arg":
        return f"{checked_name(node.argument)}.{node.field}"
    scope = "" if node.scope == "short" else f"{node.scope}."
    return f"@{scope}{node.field}{'.intersect' if node.intersect else ''}"


# Values and elements


def printed_value(node: nodes.Operand | nodes.Element) -> str:  # noqa: C901, PLR0911 - one each
    """Write a value, a literal or a domain."""
    match node:
        case nodes.ValueRef(scope="arg", argument=argument):
            return f"{checked_name(argument)}.value"
        case nodes.ValueRef(scope=scope):
            return f"@{scope}.value"
        case nodes.BooleanLiteral(value=flag):
            return "true" if flag else "false"
        case nodes.NumberLiteral(value=value):
            return _number(value)
        case nodes.TimeLiteral(written=written):
            return f'd"{checked_raw(written)}"' if isinstance(written, str) else _number(written)
        case nodes.TextLiteral():
            return f'{PREFIXES[node.kind]}"{checked_raw(node.raw)}"'
        case nodes.BoolDomain(value=flag):
            return f"bool {'true' if flag else 'false'}"
        case nodes.NumberDomain(kind=number_type, range=bounds):
            return f"{number_type} {_range(bounds)}"
        case nodes.TimeDomain():
            return f"datetime {_range(node)}"
        case nodes.TextDomain(text=text, length=length):
            keyword = "" if text.kind == "plain" else f"{text.kind} "
            size = "" if length is None else f" length {_range(length)}"
            return f"str {keyword}{printed_value(text)}{size}"


def _range(node: nodes.Range[Any]) -> str:
    low, high = ("" if end is None else printed_value(end) for end in (node.low, node.high))
    marks = f"{'<' if node.low_open else ''}..{'<' if node.high_open else ''}"
    return low if low == high and marks == ".." else f"{low}{marks}{high}"


def _number(value: float) -> str:
    """A number without an exponent, which SQRT does not have; a float keeps its point."""
    if isinstance(value, int):
        return str(value)
    if isinf(value):
        return "inf" if value > 0 else "-inf"
    digits = f"{Decimal(repr(value)):f}"
    return digits if "." in digits else f"{digits}.0"


# Declarations


def declarations_text(declarations: Sequence[nodes.Declaration]) -> str:
    """Write declarations, one rule per line; long lines are not broken.

    Raises:
        UsageError: If they cannot be written: they are nested too deeply, or have a name or text
            that SQRT cannot write.
    """
    return "".join(_declarations(declarations))


def _declarations(declarations: Sequence[nodes.Declaration]) -> Iterator[str]:
    """Their texts, with a blank line between declarations of different kinds."""
    last: nodes.Declaration | None = None
    for node in declarations:
        if last is not None and type(last) is not type(node):
            yield "\n"
        yield _declaration(node)
        last = node


def _declaration(node: nodes.Declaration) -> str:
    match node:
        case nodes.Binding(name=name, value=value, doc=doc):
            return f"{_doc(doc)}let {checked_name(name)} = {printed_node(value)};\n"
        case nodes.ToolBlock(tool=tool, doc=doc):
            priorities = (f"{_INDENT}priority {printed_value(n)};\n" for n in node.priorities)
            items = (*priorities, *map(_check, node.checks), *map(_block, node.blocks))
            return f"{_doc(doc)}tool {printed_value(tool.text)} {_braces(items)}"
        case nodes.OneLiner(tool=tool, priority=priority, phase=phase, step=step):
            rank = "" if priority is None else f"[{printed_value(priority)}] "
            scope = "" if phase == "result" else f"{PHASES[phase]} "
            (update,) = step.updates
            when = "" if step.condition is None else f" when {printed_node(step.condition)}"
            head = f"{_doc(step.doc)}tool {printed_value(tool.text)}"
            return f"{head} {rank}-> {scope}{printed_node(update)}{when};\n"


def _braces(items: Iterable[str], indent: str = "") -> str:
    lines = "".join(items)
    return f"{{\n{lines}{indent}}}\n" if lines else "{}\n"


def _doc(doc: str, indent: str = "") -> str:
    return "".join(f"{indent}/// {line}\n" for line in doc.split("\n")) if doc else ""


def _check(node: nodes.CheckRule) -> str:
    when = "always" if node.condition is None else f"when {printed_node(node.condition)}"
    rule = f"{_STRENGTHS[node.strength]} {node.decision} {when};"
    return f"{_doc(node.doc, _INDENT)}{_INDENT}{rule}\n"


def _block(node: nodes.UpdateBlock) -> str:
    steps = _braces(map(_step, node.steps), _INDENT)
    return f"{_doc(node.doc, _INDENT)}{_INDENT}{PHASES[node.phase]} {steps}"


def _step(node: nodes.UpdateStep) -> str:
    indent = _INDENT * 2
    doc = _doc(node.doc, indent)
    updates = [f"{printed_node(update)};\n" for update in node.updates]
    if node.condition is None:
        return f"{doc}{''.join(f'{indent}{update}' for update in updates)}"
    lines = _braces((f"{indent}{_INDENT}{update}" for update in updates), indent)
    return f"{doc}{indent}when {printed_node(node.condition)} {lines}"
