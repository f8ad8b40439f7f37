"""One spelling of a text for the rules to read, and the way back to the text as it came.

Full-width letters, digits of any script and invisible characters would otherwise hide a URL or a
number from a rule, but not from whoever reads it.
"""

import unicodedata
from dataclasses import dataclass

_HYPHENS = frozenset("\u2010\u2011\u2012\u2013\u2212")
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)
# Other punctuation stays: a full-width comma ends a URL in Chinese, a plain one does not.
_STRUCTURE = frozenset("./:@-_+%#&=~\\[]")


@dataclass(frozen=True, slots=True)
class Folded:
    """A text in the one spelling.

    Attributes:
        text: The text to read.
        origins: For each of its characters, the index in the text as it came; `None` if the two
            are the same.
    """

    text: str
    origins: list[int] | None = None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The place in the text as it came, for one in the folded text that is not empty."""
        if self.origins is None:
            return start, end
        return self.origins[start], self.origins[end - 1] + 1


def fold(text: str) -> Folded:
    """Fold a text.

    Args:
        text: Any text.

    Returns:
        Its folded spelling, with the way back.

    Example:
        ```python
        from langchain_sequrity.local.screening.folding import fold

        assert fold("ht\u200btp\uff1a//x").text == "http://x"
        ```
    """
    if text.isascii():
        return Folded(text)
    table = {char: _fold(char) for char in set(text)}
    if all(char == plain for char, plain in table.items()):
        return Folded(text)
    pieces = [table[char] for char in text]
    origins = [index for index, piece in enumerate(pieces) for _ in piece]
    return Folded("".join(pieces), origins)


def _fold(char: str) -> str:
    if char.isascii():
        return char
    category = unicodedata.category(char)
    if category == "Cf" or ord(char) in _VARIATION_SELECTORS:
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category == "Zs":
        return " "
    if char in _HYPHENS:
        return "-"
    plain = unicodedata.normalize("NFKC", char)
    folds = plain.isascii() and (plain.isalnum() or plain in _STRUCTURE)
    return plain if folds else char
