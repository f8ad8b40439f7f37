"""A place between the tokens of a text, and the error that says what was expected there.

A misfit is a light exception without the text around it: where a text may be read in several ways
most misfits are thrown away, and only the one that is shown is worth its line and caret.
"""

import re
from bisect import bisect_right

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.sqrt.faults import fault
from langchain_sequrity.sqrt.hints import hint
from langchain_sequrity.sqrt.nodes import Position
from langchain_sequrity.sqrt.tokens import Token, tokens

MAX_DEPTH = 50
_LINE_END = re.compile("\n")


class Misfit(Exception):
    """The token at `index` is none of those that were expected."""

    def __init__(self, index: int, expected: tuple[str, ...], advice: str = "") -> None:
        super().__init__(index, expected)
        self.index = index
        self.expected = expected
        self.advice = advice


class Cursor:
    """The tokens of a text, read from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._index = 0
        self._depth = 0
        self._lines = [0, *(found.end() for found in _LINE_END.finditer(text))]
        self._next = self._tokens[0]

    def _advance(self) -> Token:
        """Take the next token, which the caller has looked at: it is never the end."""
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

    def _take(self, *texts: str) -> Token:
        if self._next.text not in texts:
            raise self._misfit(*(f"`{text}`" for text in texts))
        return self._advance()

    def _took(self, *texts: str) -> bool:
        if self._next.text in texts:
            self._advance()
            return True
        return False

    def _at(self, token: Token | None = None) -> Position:
        start = (token or self._next).start
        line = bisect_right(self._lines, start)
        return Position(line, start - self._lines[line - 1] + 1)

    def _misfit(self, *expected: str, advice: str = "") -> Misfit:
        return Misfit(self._index, expected, advice)

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            msg = f"This is nested more than {MAX_DEPTH} deep; name parts of it with `let`"
            raise fault(self._text, self._at(), msg)

    def shown(self, misfit: Misfit) -> PolicySyntaxError:
        """The error for a misfit, with its place, what was found and what to write instead."""
        token = self._tokens[misfit.index]
        found = "the end of the text" if token.kind == "end" else f"`{plain(token.text, limit=40)}`"
        before = [one.text for one in self._tokens[max(0, misfit.index - 2) : misfit.index]]
        advice = misfit.advice or hint(before, token.text, misfit.expected)
        message = f"Expected {' or '.join(misfit.expected)}, found {found}"
        message = f"{message}. {advice}" if advice else message
        return fault(self._text, self._at(token), message, expected=misfit.expected)
