"""Policies in colour, for notebooks and for rich.

A policy may be untrusted: control characters are shown as escapes, markup is shown as text, and
quoted text cannot reorder the text around it (`docs/security.md`, rule 11). Colours come from the
tokens, so a text with mistakes has them, too.
"""

import html
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from langchain_sequrity.display import plain, rich_text
from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.sqrt.diagnostics import not_a_text
from langchain_sequrity.sqrt.lexer import COMMENT, MAX_CHARACTERS, Token, tokens

if TYPE_CHECKING:
    import rich.text


Tone = Literal[
    "", "keyword", "allow", "deny", "text", "pattern", "number", "labels", "comment", "mistake"
]


# Readable on white and on black.
_COLOURS: dict[Tone, str] = {
    "keyword": "#8b6cef",
    "allow": "#2da44e",
    "deny": "#e5484d",
    "text": "#a87900",
    "pattern": "#c2569b",
    "number": "#0f8fa8",
    "labels": "#3b82d6",
    "comment": "#808080",
    "mistake": "#e5484d",
}
PRE = '<pre dir="ltr" style="font-family: monospace; text-align: left">'
"""The beginning of a policy in HTML: some viewers of notebooks have another font for `pre`."""
_LABEL_FIELDS = {"tags", "producers", "consumers"}  # `nodes`, which shows policies in colour
_WORDS: dict[str, Tone] = {
    **dict.fromkeys([
        "let", "tool", "must", "hard", "should", "soft", "always", "when", "priority",
        "result", "session", "before", "after", "and", "or", "not", "in", "overlaps",
        "subset", "superset", "of", "is", "empty", "universal", "union", "intersect", "minus",
        "xor", "with", "without", "from", "args", "bool", "int", "float", "str",
        "datetime", "matching", "like", "length",
    ], "keyword"),
    **dict.fromkeys(["true", "false", "inf"], "number"),
    "allow": "allow",
    "deny": "deny",
}  # fmt: skip
_NAMED = {".", ".value"}


def highlight(text: str) -> str:
    """A policy as HTML, in colour.

    Args:
        text: The policy; it may contain mistakes.

    Returns:
        A `pre` element. A text that cannot be split into tokens has no colours and a first line
        that says why.

    Example:
        ```python
        from langchain_sequrity.sqrt import highlight

        assert "<b>" not in highlight("// <b>bold</b>")
        ```
    """
    spans = "".join(_span(tone, piece) for tone, piece in toned_pieces(text))
    return f"{PRE}{spans}</pre>"


def highlighted(text: str) -> "rich.text.Text":
    """A policy for a rich console, in colour.

    Args:
        text: The policy; it may contain mistakes.

    Returns:
        A rich `Text` with the same colours as `highlight`.
    """
    coloured = rich_text("")
    for tone, piece in toned_pieces(text):
        coloured.append(_safe(piece), _COLOURS.get(tone, ""))
    return coloured


def _span(tone: Tone, piece: str) -> str:
    escaped = html.escape(_safe(piece))
    if not tone:
        return escaped
    # Isolated, because right-to-left letters would reorder the punctuation around them.
    return f'<span style="color: {_COLOURS[tone]}; unicode-bidi: isolate">{escaped}</span>'


def _safe(piece: str) -> str:
    return plain(piece, limit=MAX_CHARACTERS, lines=True)


def toned_pieces(text: str) -> Iterator[tuple[Tone, str]]:
    """The whole text in pieces of one colour."""
    if not isinstance(text, str):
        raise not_a_text(text)
    text = text.replace("\r\n", "\n")
    if len(text) > MAX_CHARACTERS:
        yield "mistake", f"This text is longer than a policy may be: {len(text)} characters\n"
        yield "", text
        return
    try:
        all_tokens = tokens(text)
    except PolicySyntaxError as error:
        yield "mistake", f"This is not SQRT: {str(error).removesuffix(error.source).rstrip()}\n"
        yield "", text
        return
    end = 0
    for index, token in enumerate(all_tokens):
        yield from _gap(text[end : token.start])
        yield _tone(all_tokens, index), token.text
        end = token.end


def _gap(between: str) -> Iterator[tuple[Tone, str]]:
    end = 0
    for comment in COMMENT.finditer(between):
        yield "", between[end : comment.start()]
        yield "comment", comment[0]
        end = comment.end()
    yield "", between[end:]


def _tone(all_tokens: Sequence[Token], index: int) -> Tone:
    token = all_tokens[index]
    match token.kind:
        case "doc":
            return "comment"
        case "text":
            return "text" if token.text[0] == '"' else "pattern"
        case "number":
            return "number"
        case "word":
            before = all_tokens[index - 1].text if index else ""
            return _word_tone(before, token.text, all_tokens[index + 1].text)
        case _:
            return "labels" if token.text.startswith("@") else ""


def _word_tone(before: str, word: str, after: str) -> Tone:
    """The colour of a word. No word is reserved, so its neighbours tell a keyword from a name."""
    if before in {".", "@"} and word in _LABEL_FIELDS:
        return "labels"
    return "" if before == "let" or after in _NAMED else _WORDS.get(word, "")
