"""SQRT text to nodes, by recursive descent.

No word is reserved, so each method decides by the next two or three tokens whether a word is a
keyword or a name. On the right side of `let`, a predicate, a set and a domain can begin with
the same tokens. There the parser tries all three. If all fail, it reports the error of the attempt
that read furthest.
"""

import re
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, TypeVar, cast

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.diagnostics import hint, not_a_text, syntax_error
from langchain_sequrity.sqrt.lexer import MAX_CHARACTERS, Token, tokens
from langchain_sequrity.sqrt.nodes import Policy, Position

MAX_DEPTH = 50
_LINE_END = re.compile("\n")


class Mismatch(Exception):
    """The token at `index` was not expected.

    It has no text and no caret: most mismatches are discarded, because another reading fits.
    """

    def __init__(self, index: int, expected: tuple[str, ...], advice: str = "") -> None:
        super().__init__(index, expected)
        self.index = index
        self.expected = expected
        self.advice = advice


class Cursor:
    """Reads the tokens of a text from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._index = 0
        self._depth = 0
        self._lines = [0, *(match.end() for match in _LINE_END.finditer(text))]
        self._next = self._tokens[0]

    def _advance(self) -> Token:
        """Take the next token. The caller has checked that it is not the end."""
        token = self._next
        self._index += 1
        self._next = self._tokens[self._index]
        return token

    def _rewind(self, index: int) -> None:
        self._index, self._next, self._depth = index, self._tokens[index], 0

    def _peek(self, ahead: int) -> Token:
        return self._tokens[min(self._index + ahead, len(self._tokens) - 1)]

    def _is(self, *texts: str) -> bool:
        return self._next.text in texts

    def _expect(self, *texts: str) -> Token:
        if self._next.text not in texts:
            raise self._mismatch(*(f"`{text}`" for text in texts))
        return self._advance()

    def _accept(self, *texts: str) -> bool:
        if self._next.text in texts:
            self._advance()
            return True
        return False

    def _position(self, token: Token | None = None) -> Position:
        start = (token or self._next).start
        line = bisect_right(self._lines, start)
        return Position(line, start - self._lines[line - 1] + 1)

    def _mismatch(self, *expected: str, advice: str = "") -> Mismatch:
        return Mismatch(self._index, expected, advice)

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            msg = f"This is nested more than {MAX_DEPTH} deep; name parts of it with `let`"
            raise syntax_error(self._text, self._position(), msg)

    def error(self, mismatch: Mismatch) -> PolicySyntaxError:
        """The error for a mismatch, with its place, what was found and what to write instead."""
        token = self._tokens[mismatch.index]
        text = "the end of the text" if token.kind == "end" else f"`{plain(token.text, limit=40)}`"
        before = [t.text for t in self._tokens[max(0, mismatch.index - 2) : mismatch.index]]
        advice = mismatch.advice or hint(before, token.text, mismatch.expected)
        message = f"Expected {' or '.join(mismatch.expected)}, found {text}"
        message = f"{message}. {advice}" if advice else message
        return syntax_error(self._text, self._position(token), message, expected=mismatch.expected)


DOMAINS = ("bool", "int", "float", "str", "datetime")
_JUNCTIONS = (("or", nodes.Or), ("and", nodes.And))  # loosest first
_LEVELS = (("^", "xor"), ("-", "minus"), ("&", "intersect"), ("|", "union"))  # loosest first
RANGES = ("<..<", "<..", "..<", "..")
_AFTER_NAME = {";", ")", "{", "", ".", ".value"}
_TEXT_KINDS = {'"': "plain", "r": "matching", "w": "like"}
_CONDITION = "a condition"
_VALUE = "a value, such as `arg.value`, a text or a number"
_TIME = 'a time `d"…"`'
_NUMBER = "a number"
_INTEGER = "an integer"
_SET = "a set, such as `{…}`, `arg.tags` or a name"
_ELEMENT = "an element (a text, a regex, a wildcard, a number or a domain)"
_LITERALS = {'"': "a text", "r": 'a regex `r"…"`', "w": 'a wildcard `w"…"`'}
MAX_DIGITS = 300  # beyond it `int` is slow, and a float is infinite
_Node = TypeVar("_Node")


class ExpressionParser(Cursor):
    """Parses predicates, sets, values and domains."""

    def _predicate(self, level: int = 0) -> nodes.Predicate:
        if level == len(_JUNCTIONS):
            return self._negated()
        position = self._position()
        word, node_type = _JUNCTIONS[level]
        parts = [self._predicate(level + 1)]
        while self._accept(word):
            parts.append(self._predicate(level + 1))
        return parts[0] if len(parts) == 1 else node_type(tuple(parts), position)

    def _in_parentheses(self, inner: Callable[[], _Node]) -> _Node:
        self._enter()
        node = inner()
        self._expect(")")
        self._depth -= 1
        return node

    def _negated(self) -> nodes.Predicate:
        if not (self._is("not") and self._negates()):
            return self._test()
        position = self._position(self._advance())
        self._enter()
        inner = self._negated()
        self._depth -= 1
        return nodes.Not(inner, position)

    def _negates(self) -> bool:
        """Whether this `not` is the keyword or a name.

        `and` and `or` may be names as well. In a row of them operators and names alternate, so the
        token after the row tells whether the row began with an operator or a name.
        """
        ahead = 1
        while self._peek(ahead).text in {"and", "or"}:
            ahead += 1
        return (ahead % 2 == 0) == (self._peek(ahead).text in _AFTER_NAME)

    def _test(self) -> nodes.Predicate:
        position = self._position()
        if self._accept("("):
            return self._in_parentheses(self._predicate)
        if self._at_meta():
            return self._compared(self._meta(), position)
        if self._at_value():
            return self._value_test(self._value(), position)
        if self._next.kind == "word":
            return nodes.Name(self._advance().text, position)
        raise self._mismatch(_CONDITION)

    def _compared(self, labels: nodes.Meta, position: Position) -> nodes.LabelTest:
        test = self._expect("overlaps", "subset", "superset", "==", "is").text
        if test == "is":
            test = self._expect("empty", "universal").text
            return nodes.LabelTest(labels, cast("nodes.MetaTest", test), None, position)
        if test in {"subset", "superset"}:
            self._expect("of")
        return nodes.LabelTest(labels, cast("nodes.MetaTest", test), self._set(), position)

    def _value_test(self, operand: nodes.Operand, position: Position) -> nodes.Predicate:
        if self._expect("in", "==").text == "in":
            return nodes.Membership(operand, self._set(), position)
        if not self._at_value(after=()):
            raise self._mismatch(_VALUE)
        return nodes.Equality(operand, self._value(), position)

    # Values

    def _at_value(self, after: tuple[str, ...] = ("in", "==")) -> bool:
        """Whether a value begins here.

        `true`, `false` and `inf` are literals only if a token of `after` follows, else names.
        """
        token, following = self._next, self._peek(1).text
        if token.kind == "text":
            return token.text[0] in 'd"'
        if token.kind == "word":
            literal = token.text in {"true", "false", "inf"} and (not after or following in after)
            return literal or following == ".value"
        if token.text in {"@result", "@session"}:
            return following == ".value"
        return self._at_number()

    def _value(self) -> nodes.Operand:
        position = self._position()
        token = self._next
        if token.kind == "text":
            return self._moment() if token.text[0] == "d" else self._quoted()
        if self._peek(1).text == ".value":
            self._advance()
            self._advance()
            if token.kind == "word":
                return nodes.ValueRef("arg", token.text, position)
            return nodes.ValueRef("result" if token.text == "@result" else "session", "", position)
        if self._accept("true", "false"):
            return nodes.BooleanLiteral(token.text == "true", position)
        return self._number()

    def _quoted(self) -> nodes.TextLiteral:
        position = self._position()
        text = self._advance().text
        text_kind = _TEXT_KINDS[text[0]]
        return nodes.TextLiteral(text[text.index('"') + 1 : -1], cast("Any", text_kind), position)

    def _moment(self) -> nodes.TimeLiteral:
        position = self._position()
        if not self._at_moment():
            raise self._mismatch(_TIME)
        return nodes.TimeLiteral(self._advance().text[2:-1], position)

    def _at_number(self) -> bool:
        signed = self._is("-", "+") and self._peek(1).start == self._next.end
        token = self._peek(1) if signed else self._next
        if token.text == "inf":
            return self._peek(2 if signed else 1).text not in {".", ".value"}
        return token.kind == "number" and not self._is("+")

    def _number(self) -> nodes.NumberLiteral:
        if not self._at_number():
            raise self._mismatch(_NUMBER)
        position = self._position()
        sign = -1 if self._is("-") else 1
        self._accept("-", "+")
        text = self._advance().text
        if len(text) > MAX_DIGITS:
            raise syntax_error(self._text, position, f"A number has at most {MAX_DIGITS} digits")
        return nodes.NumberLiteral(
            sign * (float(text) if text == "inf" or "." in text else int(text)), position
        )

    def _integer(self) -> nodes.NumberLiteral:
        token = self._peek(1) if self._is("-") else self._next
        if not self._at_number() or not token.text.isdigit():
            raise self._mismatch(_INTEGER)
        return self._number()

    # Sets

    def _set(self, level: int = 0) -> nodes.Set:
        if level == len(_LEVELS):
            return self._edited()
        position = self._position()
        symbol, word = _LEVELS[level]
        operands: list[nodes.Set] = []
        bare = False
        while not operands or self._accept(symbol, word):
            opened = self._is("(")
            operands.append(self._set(level + 1))
            bare = bare or (symbol == "&" and not opened and _is_union(operands[-1]))
        if len(operands) == 1:
            return operands[0]
        return nodes.SetOperation(cast("nodes.Operator", symbol), tuple(operands), position, bare)

    def _edited(self) -> nodes.Set:
        position = self._position()
        base = self._set_atom()
        edits = []
        while self._is("with", "without"):
            adds = self._advance().text == "with"
            edits.append((adds, self._element()))
        return nodes.SetEdit(base, tuple(edits), position) if edits else base

    def _set_atom(self) -> nodes.Set:
        position = self._position()
        if self._accept("("):
            return self._in_parentheses(self._set)
        if self._is("{"):
            return self._members()
        if self._at_meta():
            return self._meta()
        if self._next.kind == "word":
            return nodes.Name(self._advance().text, position)
        raise self._mismatch(_SET)

    def _members(self) -> nodes.SetLiteral:
        position = self._position(self._advance())
        if self._accept("}"):
            return nodes.SetLiteral((), position)
        elements = [self._element()]
        while not self._accept("}"):
            self._expect(",", "}")
            elements.append(self._element())
        return nodes.SetLiteral(tuple(elements), position)

    def _element(self) -> nodes.Element:
        if self._next.kind == "text" and self._next.text[0] != "d":
            return self._quoted()
        if self._is(*DOMAINS):
            return self._domain()
        if self._at_number():
            return self._number()
        raise self._mismatch(_ELEMENT)

    # Labels

    def _at_meta(self) -> bool:
        token, following = self._next, self._peek(1).text
        if token.kind == "word":
            aggregates = following == "of" and token.text in {"union", "intersect"}
            return aggregates or following == "."
        return token.text in {"@", "@args"} or (
            token.text in {"@result", "@session"} and following == "."
        )

    def _meta(self) -> nodes.Meta:
        position = self._position()
        token = self._advance()
        if token.text in {"union", "intersect"} and self._is("of"):
            self._expect("of")
            field = self._field()
            self._expect("from")
            self._expect("args")
            return nodes.Meta("args", field, "", intersect=token.text == "intersect", at=position)
        if token.text == "@":
            return nodes.Meta("short", self._field(), "", intersect=False, at=position)
        self._expect(".")
        field = self._field()
        if token.kind == "word":
            return nodes.Meta("arg", field, token.text, intersect=False, at=position)
        scope = cast("nodes.LabelOwner", token.text[1:])
        intersect = False
        if scope == "args" and self._accept("."):
            intersect = self._expect("union", "intersect").text == "intersect"
        return nodes.Meta(scope, field, "", intersect=intersect, at=position)

    def _field(self) -> nodes.Field:
        return cast("nodes.Field", self._expect(*nodes.FIELDS).text)

    # Domains

    def _domain(self) -> nodes.Domain:
        token = self._expect(*DOMAINS)
        position = self._position(token)
        if token.text == "bool":
            return nodes.BoolDomain(self._expect("true", "false").text == "true", position)
        if token.text == "str":
            return self._text_domain(position)
        if token.text == "datetime":
            return self._time_domain(position)
        return nodes.NumberDomain(cast("Any", token.text), self._range(), position)

    def _text_domain(self, position: Position) -> nodes.TextDomain:
        prefix = {"matching": "r", "like": "w"}.get(self._next.text, '"')
        self._accept("matching", "like")
        if self._next.kind != "text" or self._next.text[0] != prefix:
            raise self._mismatch(_LITERALS[prefix])
        text = self._quoted()
        return nodes.TextDomain(text, self._range() if self._accept("length") else None, position)

    def _range(self) -> nodes.NumberRange:
        return self._bounds(nodes.Range, self._number, self._at_number)

    def _time_domain(self, position: Position) -> nodes.TimeDomain:
        token = self._next
        if token.kind == "text" and token.text[0] == '"':
            moment = nodes.TimeLiteral(self._quoted().raw, position)
        elif self._at_number():
            moment = nodes.TimeLiteral(self._number().value, position)
        else:
            return self._bounds(nodes.TimeDomain, self._moment, self._at_moment)
        return nodes.TimeDomain(moment, moment, low_open=False, high_open=False, at=position)

    def _at_moment(self) -> bool:
        return self._next.text.startswith('d"')

    def _bounds(
        self, make: Callable[..., _Node], bound: Callable[[], Any], begins: Callable[[], bool]
    ) -> _Node:
        """`a`, `a..b`, `a..`, `..b`, and with `<` on a side whose bound is excluded."""
        position = self._position()
        low = None if self._is("..", "..<") else bound()
        if low is not None and not self._is(*RANGES):
            return make(low, low, low_open=False, high_open=False, at=position)
        mark = self._advance().text
        needed = low is None or mark.endswith(".<")
        high = bound() if needed or begins() else None
        return make(low, high, low_open=mark[0] == "<", high_open=mark[-1] == "<", at=position)


def _is_union(node: nodes.Set) -> bool:
    return isinstance(node, nodes.SetOperation) and node.operator == "|"


_STRENGTHS = {"must": "hard", "hard": "hard", "should": "soft", "soft": "soft"}
_DECLARATIONS = ("`let`", "`tool`")
_NAME = "a name"
_AFTER_TOOL = ("`{`", "`[`", "`->`")
_TOOL = ("the name of a tool in quotes", 'a regex `r"…"`')
_LABELS = "labels to change, such as `@tags`"
_UPDATES = (_LABELS, "`}`")
_ITEMS = ("`must`", "`should`", "`priority`", "`result`", "`session`", "`}`")
_NESTED = "One `when` cannot contain another; combine the conditions with `and`"
_ASSIGNMENTS = ("=", "|=", "&=", "-=", "^=")


def parse(text: str, *, max_characters: int = MAX_CHARACTERS) -> Policy:
    """Parse a SQRT text.

    Args:
        text: The policy. It may be empty.
        max_characters: The maximum length of the text.

    Returns:
        The policy as nodes with positions. Only syntax is checked; `check` finds other mistakes.

    Raises:
        UsageError: If `text` is not a string.
        PolicySyntaxError: If the text is not SQRT, is too long or is nested too deeply.

    Example:
        ```python
        from langchain_sequrity.sqrt import parse

        policy = parse('tool "ship" { must deny when "raw" in crate.tags; }')
        assert policy.declarations[0].checks[0].text == 'must deny when "raw" in crate.tags;'
        ```
    """
    if not isinstance(text, str):
        raise not_a_text(text)
    if len(text) > max_characters:
        msg = f"A policy has at most {max_characters} characters; this one has {len(text)}"
        raise syntax_error(text, Position(1, 1), msg)
    parser = PolicyParser(text)
    try:
        return parser.policy()
    except Mismatch as mismatch:
        raise parser.error(mismatch) from None


class PolicyParser(ExpressionParser):
    """Parses declarations; each method parses one construct."""

    def policy(self) -> Policy:
        """Parse the whole text."""
        declarations = []
        while self._next.kind != "end":
            declarations.append(self._declaration())
        return Policy(tuple(declarations), self._text)

    def _declaration(self) -> nodes.Declaration:
        doc = self._doc()
        if self._is("let"):
            return self._binding(doc)
        if self._is("tool"):
            return self._tool(doc)
        raise self._mismatch(*_DECLARATIONS)

    def _doc(self) -> str:
        lines = []
        while self._next.kind == "doc":
            lines.append(self._advance().text.lstrip("/").strip())
        return "\n".join(lines)

    def _binding(self, doc: str) -> nodes.Binding:
        position = self._position(self._advance())
        if self._next.kind != "word":
            raise self._mismatch(_NAME)
        name = self._advance().text
        self._expect("=")
        return nodes.Binding(name, self._binding_value(), doc, position)

    def _binding_value(self) -> nodes.Predicate | nodes.Set | nodes.Domain:
        start = self._index
        mismatches = []
        domain = (self._domain,) if self._is(*DOMAINS) else ()
        for parse_value in (*domain, self._predicate, self._set):
            try:
                value: nodes.Predicate | nodes.Set | nodes.Domain = parse_value()
                self._expect(";")
            except Mismatch as mismatch:
                mismatches.append(mismatch)
                self._rewind(start)
            else:
                return value
        raise max(mismatches, key=lambda mismatch: mismatch.index)

    def _tool(self, doc: str) -> nodes.ToolBlock | nodes.OneLiner:
        position = self._position(self._advance())
        tool = self._tool_id()
        if self._is("{"):
            return self._tool_block(tool, doc, position)
        if self._is("[", "->"):
            return self._one_liner(tool, doc, position)
        raise self._mismatch(*_AFTER_TOOL)

    def _tool_id(self) -> nodes.ToolId:
        position = self._position()
        if self._next.kind != "text" or self._next.text[0] not in '"r':
            raise self._mismatch(*_TOOL)
        return nodes.ToolId(self._quoted(), position)

    def _tool_block(self, tool: nodes.ToolId, doc: str, position: Position) -> nodes.ToolBlock:
        self._advance()
        priorities, checks, blocks = [], [], []
        while not self._accept("}"):
            item_doc = self._doc()
            if self._is("priority"):
                self._advance()
                priorities.append(self._integer())
                self._expect(";")
            elif self._next.text in _STRENGTHS:
                checks.append(self._check(item_doc))
            elif self._is("result", "session"):
                blocks.append(self._block(item_doc))
            else:
                raise self._mismatch(*_ITEMS)
        return nodes.ToolBlock(tool, tuple(priorities), tuple(checks), tuple(blocks), doc, position)

    def _check(self, doc: str) -> nodes.CheckRule:
        first = self._advance()
        strength = cast("nodes.Strength", _STRENGTHS[first.text])
        decision = cast("nodes.Effect", self._expect("allow", "deny").text)
        condition = None if self._expect("always", "when").text == "always" else self._predicate()
        end = self._expect(";").end
        text = self._text[first.start : end]
        return nodes.CheckRule(strength, decision, condition, text, doc, self._position(first))

    def _block(self, doc: str) -> nodes.UpdateBlock:
        first = self._advance()
        phase = "result" if first.text == "result" else self._expect("before", "after").text
        self._expect("{")
        steps = []
        while not self._accept("}"):
            steps.append(self._step())
        return nodes.UpdateBlock(
            cast("nodes.Phase", phase), tuple(steps), doc, self._position(first)
        )

    def _step(self) -> nodes.UpdateStep:
        doc = self._doc()
        position = self._position()
        if self._is("when") and self._peek(1).text != ".":
            self._advance()
            condition = self._predicate()
            self._expect("{")
            updates = []
            while not self._accept("}"):
                if self._is("when") and self._peek(1).text != ".":
                    raise self._mismatch(*_UPDATES, advice=_NESTED)
                updates.append(self._update())
            return nodes.UpdateStep(condition, tuple(updates), doc, position)
        return nodes.UpdateStep(None, (self._update(),), doc, position)

    def _update(self) -> nodes.Update:
        if not (self._next.kind == "word" or self._is("@", "@result", "@session")):
            raise self._mismatch(*_UPDATES)
        update = self._change()
        self._expect(";")
        return update

    def _change(self) -> nodes.Update:
        position = self._position()
        target = self._meta()
        assignment = cast("nodes.Assignment", self._expect(*_ASSIGNMENTS).text)
        return nodes.Update(target, assignment, self._set(), position)

    def _one_liner(self, tool: nodes.ToolId, doc: str, position: Position) -> nodes.OneLiner:
        priority = None
        if self._accept("["):
            priority = self._integer()
            self._expect("]")
        self._expect("->")
        phase: nodes.Phase = "result"
        if not self._accept("result") and self._accept("session"):
            phase = "before" if self._is("before") else "after"
            self._accept("before", "after")
        if not self._is("@"):
            raise self._mismatch(_LABELS)
        update = self._change()
        condition = self._predicate() if self._accept("when") else None
        self._expect(";")
        step = nodes.UpdateStep(condition, (update,), doc, update.at)
        return nodes.OneLiner(tool, priority, phase, step, position)
