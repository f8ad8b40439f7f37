"""What to write instead of a line that is not Python: the smallest change after which it is.

Candidates are tried one after the other with Python's own parser. Nothing that is found here runs:
it is shown to whoever wrote the line.
"""

import difflib
import re
from collections.abc import Callable, Iterator
from keyword import kwlist

from langchain_sequrity.local.interpreter.faults import indent_of

Parse = Callable[[str], SyntaxError | None]
"""Parses a text; returns the error, if there is one."""

_LONGEST = 8_000
_MOST_ERRORS = 3
_MOST_CANDIDATES = 60
_PAIRS = {"(": ")", "[": "]", "{": "}"}
_HEAD = re.compile(r"\s*(?:if|elif|else|for|while|def|class|try|except|finally|match|case)\b")
_STRING = re.compile(r"""[rbfRBF]{0,2}("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|#.*""")
_OPERATORS = (("&&", " and "), ("||", " or "), ("else if", "elif"), ("=>", ">="), ("=<", "<="))
_QUOTES = str.maketrans(
    {
        **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2018\u2019\u201a", "'"),
    }
)


def repaired(source: str, parse: Parse) -> str | None:
    """A text like this one that is valid Python, with as many lines.

    Args:
        source: The text.
        parse: Python's parser.

    Returns:
        The text, or `None` if no small change leads to one.
    """
    error = parse(source) if len(source) <= _LONGEST else None
    for _ in range(_MOST_ERRORS):
        if error is None:
            return None
        best, best_error = source, error
        for number, candidate in enumerate(_candidates(source, error)):
            if number >= _MOST_CANDIDATES:
                break
            new_error = parse(candidate)
            if new_error is None:
                return candidate
            if (new_error.lineno or 0) > (best_error.lineno or 0):
                best, best_error = candidate, new_error
        if best is source:
            return None
        source, error = best, best_error
    return None


def _candidates(source: str, error: SyntaxError) -> Iterator[str]:
    """Texts with one change each, the most likely first."""
    straight = source.translate(_QUOTES)
    if straight != source:
        yield straight
    lines = source.expandtabs(4).split("\n")
    if lines != source.split("\n"):
        yield "\n".join(lines)
    last = min(max(error.lineno or 1, 1), len(lines)) - 1
    before = next((i for i in range(last - 1, -1, -1) if lines[i].strip()), last)
    for index in dict.fromkeys((last, before)):
        column = (error.offset or 1) - 1 if index == last else len(lines[index])
        for line in _changed_lines(lines, index, column):
            yield "\n".join([*lines[:index], line, *lines[index + 1 :]])
    yield from _indented_blocks(lines, last)


def _changed_lines(  # noqa: C901 - one per mistake
    lines: list[str], index: int, column: int
) -> Iterator[str]:
    line = lines[index]
    code = line.rstrip()
    bare = _STRING.sub(lambda match: " " * len(match[0]), code)
    if _HEAD.match(code) and not bare.rstrip().endswith(":"):
        yield f"{code}:"
        yield f"{code}{_unclosed(bare)}:"
        yield f"{code.rstrip(';,{')}:"
    for old, new in _OPERATORS:
        if old in bare:
            changed = code.replace(old, new)
            yield re.sub(r" {2,}(?=\S)", " ", changed) if old[0] in "&|" else changed
    if unclosed := _unclosed(bare):
        yield code + unclosed
        yield f"{code.rstrip(':')}{unclosed}:"
        yield f"{code.rstrip(',')}{unclosed},"
    for closing in "\"'":
        for end in ("):", ")", "]", "}", "),", ":", ","):
            if code.endswith(end):
                yield f"{code[: -len(end)]}{closing}{end}"
        yield f"{code}{closing}"
        yield f"{code}{closing})"
    for match in re.finditer(r"[)\]}]", bare):
        yield code[: match.start()] + code[match.end() :]
    yield re.sub(r"(?<![=!<>:])=(?!=)", "==", code) if _HEAD.match(code) else code
    yield re.sub(r"(\w+)\+\+", r"\1 += 1", code)
    yield re.sub(r"!(?!=)\s*", "not ", code)
    yield from _with_keyword(code, bare)
    yield re.sub(r"^(\s*)(?:let|var|const)\s+", r"\1", code).rstrip(";")
    for match in re.finditer(r"\s+(?=[\w\"'{(\[])", bare[: column + 40]):  # a comma is missing
        yield f"{code[: match.start()]},{code[match.start() :]}"
    for indent in {0, *(indent_of(earlier) for earlier in lines[:index] if earlier.strip())}:
        yield " " * indent + code.lstrip()
    if index and lines[index - 1].rstrip().endswith(":"):
        yield " " * (indent_of(lines[index - 1]) + 4) + code.lstrip()
    if re.match(r"\s*[A-Z][^()=]*$", code):  # a sentence
        yield f"{' ' * indent_of(code)}# {code.lstrip()}"


def _with_keyword(code: str, bare: str) -> Iterator[str]:
    """A line with a misspelt keyword put right."""
    for match in re.finditer(r"[a-z]{2,}", bare):
        for keyword in difflib.get_close_matches(match[0], kwlist, n=3, cutoff=0.6):
            if keyword != match[0]:
                yield f"{code[: match.start()]}{keyword}{code[match.end() :]}"


def _unclosed(code: str) -> str:
    """The brackets that a piece of code leaves open."""
    pending: list[str] = []
    for char in code:
        if char in _PAIRS:
            pending.append(_PAIRS[char])
        elif pending and char == pending[-1]:
            pending.pop()
    return "".join(reversed(pending))


def _indented_blocks(lines: list[str], index: int) -> Iterator[str]:
    """The block after a line that ends with `:` indented, up to a line of its depth or less."""
    head = next((i for i in range(index, -1, -1) if lines[i].rstrip().endswith(":")), None)
    if head is None:
        return
    depth = indent_of(lines[head])
    for end in range(head + 2, min(len(lines), head + 10) + 1):
        block = [
            " " * (depth + 4) + line.lstrip() if line.strip() else line
            for line in lines[head + 1 : end]
        ]
        yield "\n".join([*lines[: head + 1], *block, *lines[end:]])
