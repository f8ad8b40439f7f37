"""The layout of policies: the white space between the tokens of a text.

The formatter writes each token as it is: it changes no spelling and no parenthesis, so the warnings
of `check` stay the same. The nodes tell it which words are operators, and which braces are sets.
Comments stay with the token that they precede. A comment that begins on the line of the previous
token trails it; any other comment has its own lines.

Lines break as in the pretty printer of Oppen. Parentheses, sets, blocks and chains of operators are
groups. A group that fits on its line stays there; otherwise it breaks at all its places. All tokens
are measured once, so that the width of any group is a difference.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.coerce import policy_of
from langchain_sequrity.sqrt.lexer import COMMENT, MAX_CHARACTERS, Token, tokens
from langchain_sequrity.sqrt.node_text import declarations_text
from langchain_sequrity.sqrt.nodes import Policy, Position
from langchain_sequrity.sqrt.parser import RANGES, parse
from langchain_sequrity.sqrt.policy_forms import AnyPolicy

WIDTH = 100
_INDENT = "    "


class StandaloneComment(NamedTuple):
    """A comment with lines of its own; `blank` if a blank line precedes it."""

    text: str
    blank: bool


@dataclass(slots=True)
class Gap:
    """The text between a token and the previous one.

    Attributes:
        trailing: The comments on the line of the previous token.
        standalone: The comments after these.
        blank: Whether a blank line stands between the comments and the token.
    """

    trailing: list[str] = field(default_factory=list)
    standalone: list[StandaloneComment] = field(default_factory=list)
    blank: bool = False

    @property
    def ends_line(self) -> bool:
        """Whether what follows the comments must begin a line."""
        return bool(self.standalone or (self.trailing and self.trailing[-1].startswith("//")))

    def take_standalone(self) -> list[StandaloneComment]:
        """Remove and return the comments with lines of their own."""
        comments, self.standalone = self.standalone, []
        return comments


def gaps(text: str, tokens: Sequence[Token]) -> list[Gap]:
    """The gap before each token. Comments that would move `;` or `,` go after it."""
    all_gaps = []
    moved = Gap()
    end = 0
    for token in tokens:
        gap = moved
        _read_gap(gap, text[end : token.start], at_start=end == 0)
        moved = Gap()
        if token.text in {";", ","} and gap.ends_line:
            gap, moved = moved, gap
        all_gaps.append(gap)
        end = token.end
    return all_gaps


def _read_gap(gap: Gap, between: str, *, at_start: bool) -> None:
    """Add the comments between two tokens to a gap."""
    end = 0
    for comment in COMMENT.finditer(between):
        lines = between[end : comment.start()].count("\n")
        text = "\n".join(line.rstrip() for line in comment[0].split("\n"))
        if lines > 0 or (at_start and end == 0) or gap.ends_line:
            gap.standalone.append(StandaloneComment(text, blank=lines > 1))
        else:
            gap.trailing.append(text)
        end = comment.end()
    gap.blank = between.count("\n", end) > 1


def format_policy(policy: AnyPolicy) -> str:
    """Lay out a policy: one rule per line, long sets and conditions broken, comments kept.

    Args:
        policy: Text, a parsed policy, a `PolicyHeader`, or an engine.

    Returns:
        The same tokens and comments in the same order. Formatting it again changes nothing.

    Raises:
        PolicySyntaxError: If the text is not SQRT.
        UsageError: If the result is longer than a policy may be, or `policy` is not a policy.

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
    parsed = policy_of(policy)
    # The places of given nodes may be those of another text.
    formatted = formatted_text(parsed if isinstance(policy, str | Path) else parse(parsed.text))
    if len(formatted) > MAX_CHARACTERS:
        msg = (
            f"Formatted, this policy has {len(formatted)} characters; the limit is "
            f"{MAX_CHARACTERS}. Remove comments or shorten it."
        )
        raise UsageError(msg)
    return formatted


def printed(policy: Policy) -> str:
    """Write a policy.

    Args:
        policy: The policy; its positions and text are ignored.

    Returns:
        A text that parses to the same nodes, except for positions and texts.

    Raises:
        UsageError: If `policy` is not a parsed policy, or cannot be written: it is nested too
            deeply, or has a name or text that SQRT cannot write.

    Example:
        ```python
        from langchain_sequrity.sqrt import parse, printed

        policy = parse('tool "ship" { soft deny when ((raw)); }')
        assert printed(policy).splitlines()[1] == "    should deny when raw;"
        ```
    """
    if not isinstance(policy, Policy):
        msg = (
            f"`printed` takes a parsed policy; got {type(policy).__name__}. Use `parse` to parse a "
            "text, or `format` to lay it out."
        )
        raise UsageError(msg)
    text = declarations_text(policy.declarations)
    return formatted_text(parse(text, max_characters=len(text)))


def formatted_text(policy: Policy) -> str:
    """The formatted text of a parsed policy."""
    return _Formatter(policy).written()


_GLUED_AFTER = frozenset({".", "@", "[", "("})
_GLUED_BEFORE = frozenset({";", ",", ".", ".value", "]", ")"})


class _Formatter:
    """Writes the tokens of a policy in order. Of several breaks in a row, the last one counts.

    Args:
        policy: The policy.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._tokens = tokens(policy.text)
        self._gaps = gaps(policy.text, self._tokens)
        self._closing = _closing_brackets(self._tokens)
        self._sets: set[int] = set()
        """The braces that begin or end a set; all others are those of a block."""
        self._operators: set[int] = set()
        self._chains: defaultdict[int, deque[list[int]]] = defaultdict(deque)
        """The operators of each chain by the token with which it begins, outer chains first."""
        self._find_structure()
        self._measure()
        self._index = 0
        self._depth = 0
        self._breaks = True  # whether the current group breaks
        self._parts: list[str] = []
        self._column = 0
        self._next_depth: int | None = 0  # of a new line that is still empty
        self._leave_blank = False
        self._after_comment = False

    def written(self) -> str:
        """The formatted text, with blank lines around tool blocks."""
        last: nodes.Declaration | None = None
        for node in self._policy.declarations:
            apart = isinstance(node, nodes.ToolBlock) or isinstance(last, nodes.ToolBlock)
            self._begin_item(first=last is None, apart=apart)
            self._statement(is_declaration=True)
            last = node
        self._last_comments(first=last is None)
        text = "".join(self._parts)
        return f"{text}\n" if text else ""

    # Structure and widths

    def _find_structure(self) -> None:
        lines = [0, *accumulate(len(line) + 1 for line in self._policy.text.split("\n"))]
        indexes = {token.start: index for index, token in enumerate(self._tokens)}

        def index_of(position: Position) -> int:
            return indexes[lines[position.line - 1] + position.column - 1]

        for node in nodes.walk(self._policy.declarations):
            match node:
                case nodes.SetLiteral(at=start):
                    self._sets |= {index_of(start), self._closing[index_of(start)]}
                case nodes.Or(at=start, parts=parts) | nodes.And(at=start, parts=parts):
                    self._add_chain(index_of(start), [index_of(part.at) for part in parts[1:]])
                case nodes.SetOperation(at=start, operands=operands):
                    self._add_chain(index_of(start), [index_of(part.at) for part in operands[1:]])
                case nodes.SetEdit(at=start, edits=edits):
                    self._add_chain(index_of(start), [index_of(element.at) for _, element in edits])
                case nodes.OneLiner(tool=tool, step=step):  # `when` is its operator
                    condition = step.condition
                    after_when = [] if condition is None else [index_of(condition.at)]
                    self._add_chain(index_of(tool.at), after_when)

    def _add_chain(self, start: int, parts: Sequence[int]) -> None:
        operators = []
        for index in parts:
            # Parentheses, and the word of a range of times, precede the place of a node.
            while self._tokens[index - 1].text in {"(", "datetime"}:
                index -= 1  # noqa: PLW2901 - back to the operator
            operators.append(index - 1)
        self._chains[start].append(operators)
        self._operators.update(operators)

    def _measure(self) -> None:
        """Sum up from the end of the text: widths, hard breaks, and widths up to a break."""
        count = len(self._tokens)
        self._spaced = [self._is_spaced(index) for index in range(count)]
        self._widths, self._hard, self._rests = ([0] * (count + 1) for _ in range(3))
        width = hard = rest = 0
        for index in range(count - 1, -1, -1):
            gap, token = self._gaps[index], self._tokens[index]
            size = len(token.text) + self._spaced[index]
            width, rest = width + size, rest + size
            hard += len(gap.standalone) + (token.kind == "doc")
            if gap.standalone or self._is_break(index):
                rest = 0
            self._widths[index], self._hard[index], self._rests[index] = width, hard, rest
            for comment in reversed(gap.trailing):
                if comment.startswith("//"):
                    hard, rest = hard + 1, 0
                else:
                    width, rest = width + len(comment), rest + len(comment)

    def _is_break(self, index: int) -> bool:
        """Whether a line may break before a token."""
        before, token = self._tokens[index - 1], self._tokens[index]
        return (
            index in self._operators
            or token.text in {")", "}"}
            or before.text in {"(", "{", ",", ";"}
            or before.kind == "doc"
            or (before.text == "}" and index - 1 not in self._sets)
        )

    def _is_spaced(self, index: int) -> bool:
        """Whether a space precedes a token within a line."""
        before, token = self._tokens[index - 1], self._tokens[index]
        if token.text in _GLUED_BEFORE or before.text in _GLUED_AFTER:
            return False
        if self._is_sign(index - 1) or (before.text == "{" and index - 1 in self._sets):
            return False
        if token.text == "}":
            return index not in self._sets and before.text != "{"
        if token.text in RANGES:  # without a lower end
            return before.kind == "word" and before.text != "inf"
        if before.text in RANGES:  # without an upper end
            is_end = token.kind in {"number", "text"} or token.text == "inf"
            return not is_end and not self._is_sign(index)
        return True

    def _is_sign(self, index: int) -> bool:
        return self._tokens[index].text in {"-", "+"} and index not in self._operators

    def _is_block(self, index: int) -> bool:
        return self._tokens[index].text == "{" and index not in self._sets

    # Statements and blocks

    def _statement(self, *, is_declaration: bool) -> None:
        """Write a declaration, a rule, a step or a change of labels."""
        end = self._index
        while self._tokens[end].text != ";" and not self._is_block(end):
            end = self._closing.get(end, end) + 1
        self._until(end)
        if self._is_block(end):
            self._block(short=not is_declaration and self._has_one_change(end))
        else:
            self._write_token()

    def _has_one_change(self, start: int) -> bool:
        """Whether a block contains one change of labels and nothing else."""
        inside = range(start + 1, self._closing[start])
        changes = sum(self._tokens[index].text == ";" for index in inside)
        return changes == 1 and not any(map(self._is_block, inside))

    def _block(self, *, short: bool) -> None:
        """Write a block; a `short` one stays on one line if it fits."""
        close = self._closing[self._index]
        outer = self._begin_group(close + 1)
        self._breaks = self._breaks or not (short or close == self._index + 1)
        self._write_token()
        self._depth += 1
        first = True
        while self._index < close:
            self._begin_item(first=first)
            self._statement(is_declaration=False)
            first = False
        self._end_brackets(outer, first=first)

    def _begin_item(self, *, first: bool, apart: bool = False) -> None:
        """Begin a line, with the comments before an item and at most one blank line."""
        gap = self._gaps[self._index]
        self._line()
        for comment in gap.take_standalone():
            self._standalone_comment(comment, blank=not first and (comment.blank or apart))
            first = apart = False
        if not first and (gap.blank or apart):
            self._leave_blank = self._next_depth is not None
        while self._tokens[self._index].kind == "doc":
            self._write_token()
            self._break(self._depth)

    # Expressions

    def _until(self, end: int) -> None:
        """Write the tokens up to one that is outside of all brackets which begin here."""
        while self._index < end:
            if chains := self._chains.get(self._index):
                self._chain(chains.popleft(), end)
            elif self._index in self._closing:
                self._brackets()
            else:
                self._write_token()
                if self._tokens[self._index - 1].text == ",":
                    self._line()

    def _chain(self, operators: Sequence[int], end: int, *, indent: int = 1) -> None:
        """Write parts with operators between them."""
        outer = self._begin_group(end)
        self._depth += indent
        for operator in operators:
            self._until(operator)
            self._line()
            self._write_token()
        self._until(end)
        self._depth -= indent
        self._breaks = outer

    def _brackets(self) -> None:
        """Write parentheses or a set."""
        close = self._closing[self._index]
        outer = self._begin_group(close + 1)
        self._write_token()
        self._depth += 1
        self._line()
        if chains := self._chains.get(self._index):
            self._chain(chains.popleft(), close, indent=0)
        self._until(close)
        self._end_brackets(outer, first=True)

    def _begin_group(self, end: int) -> bool:
        """Begin the group up to a token; return whether the outer group breaks."""
        outer = self._breaks
        column = self._column if self._next_depth is None else self._next_depth * len(_INDENT)
        width = self._widths[self._index] - self._widths[end] + self._rests[end]
        is_hard = self._hard[self._index] > self._hard[end]
        self._breaks = outer and (is_hard or column + width > WIDTH)
        return outer

    def _end_brackets(self, outer: bool, *, first: bool) -> None:  # noqa: FBT001 - private
        self._last_comments(first=first)
        self._depth -= 1
        self._line()
        self._write_token()
        self._breaks = outer

    def _last_comments(self, *, first: bool) -> None:
        for comment in self._gaps[self._index].take_standalone():
            self._standalone_comment(comment, blank=comment.blank and not first)
            first = False

    # Tokens, comments and lines

    def _write_token(self) -> None:
        """Write the next token as it is, with the comments around it."""
        for comment in self._gaps[self._index].take_standalone():
            self._comment_lines(comment.text)
        token = self._tokens[self._index]
        text = token.text.rstrip() if token.kind == "doc" else token.text
        after_comment = self._after_comment and text not in {";", ","}
        self._write(text, space=self._spaced[self._index] or after_comment)
        self._index += 1
        for trailing in self._gaps[self._index].trailing:
            self._write(trailing, space=True)
            self._after_comment = True
            if trailing.startswith("//"):
                self._break(self._depth + 1)

    def _standalone_comment(self, comment: StandaloneComment, *, blank: bool) -> None:
        self._break(self._depth)
        self._leave_blank = self._leave_blank or blank
        self._comment_lines(comment.text)

    def _comment_lines(self, comment: str) -> None:
        depth = self._depth + 1 if self._next_depth is None else self._next_depth
        self._break(depth)
        self._write(_aligned(comment, depth), space=False)
        self._break(depth)

    def _line(self) -> None:
        """Break the line if the group breaks."""
        if self._breaks:
            self._break(self._depth)

    def _break(self, depth: int) -> None:
        self._next_depth = depth
        self._after_comment = False

    def _write(self, text: str, *, space: bool) -> None:
        if self._next_depth is not None:
            if self._parts:
                self._parts.append("\n\n" if self._leave_blank else "\n")
            indent = _INDENT * self._next_depth
            self._column = len(indent)
            self._parts.append(indent)
            self._next_depth, self._leave_blank = None, False
        elif space:
            text = f" {text}"
        self._parts.append(text)
        self._after_comment = False
        _, newline, last = text.rpartition("\n")
        self._column = len(last) + (0 if newline else self._column)


def _aligned(comment: str, depth: int) -> str:
    """Align the stars of a block comment whose lines begin with stars."""
    first, *rest = comment.split("\n")
    if not all(line.lstrip().startswith("*") for line in rest):
        return comment
    return "\n".join([first, *(f"{_INDENT * depth} {line.lstrip()}" for line in rest)])


def _closing_brackets(all_tokens: Sequence[Token]) -> dict[int, int]:
    """The index of the closing bracket for each `(` and `{`."""
    closing, opened = {}, []
    for index, token in enumerate(all_tokens):
        if token.text in {"(", "{"}:
            opened.append(index)
        elif token.text in {")", "}"}:
            closing[opened.pop()] = index
    return closing
