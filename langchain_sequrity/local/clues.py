"""What a prompt offers for filling in arguments: numbers, quotes, names, dates, addresses.

Each pattern is linear: repetitions have small bounds, and the text itself is cut.
"""

import math
import re
from collections.abc import Iterable

MOST_CHARACTERS = 8_000

_NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3}){1,5}|\d{1,15})(?:\.\d{1,15})?(?!\w)")
_QUOTED = re.compile(
    r"""(?<!\w)(?:'([^'\n]{1,400})'(?!\w)|"([^"\n]{1,400})"|`([^`\n]{1,400})`"""
    r"""|\u201c([^\u201d\n]{1,400})\u201d|\u2018([^\u2019\n]{1,400})\u2019|\u300c([^\u300d\n]{1,400})\u300d|\xab([^\xbb\n]{1,400})\xbb)"""
)
_NAME = r"[A-Z][\w'\u2019.-]{0,40}"
_AFTER_PREPOSITION = re.compile(
    r"\b(?:in|at|near|from|to|for|about|of|on|named|called)\s{1,3}"
    rf"(?:the\s)?({_NAME}(?:,?\s{_NAME}){{0,5}}|[^\W\d][\w'\u2019-]{{0,40}}(?:\s[\w'\u2019-]{{1,40}}){{0,3}})"
)
_NAMES = re.compile(rf"(?<=[a-z,;:]\s)({_NAME}(?:\s{_NAME}){{0,4}})")
_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}")
_URI = re.compile(r"\b[a-z]{2,8}://[^\s'\"<>`]{1,500}")
_DATE_TIME = re.compile(r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2})?(?:Z|[+-]\d{2}:\d{2})?")
_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")
_TIME = re.compile(r"\b\d{2}:\d{2}(?::\d{2})?\b")
_UUID = re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b")
_FORMATS = {
    "email": _EMAIL,
    "uri": _URI,
    "date-time": _DATE_TIME,
    "date": _DATE,
    "time": _TIME,
    "uuid": _UUID,
}
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[^\W_]{1,64}")
_END = " \t\n.,;:!?"
# A pattern is made of what is looked for, and compiling has no time limit.
_MOST_WORDS = 50
_LONGEST_VALUE = 1_000
_NEGATIONS = r"(?:no|not|without|never|exclude|omit|disable|skip|don't)"


def words(text: str) -> list[str]:
    """Words in lower case; `snake_case` and `camelCase` come apart."""
    return [word.lower() for word in _WORD.findall(_CAMEL.sub(" ", text[:MOST_CHARACTERS]))]


class Clues:
    """The clues in one prompt. What was handed out is not handed out again.

    Args:
        prompt: The text.
        taken: Quoted texts that are no values, such as the keys of an answer in JSON mode.
    """

    def __init__(self, prompt: str, taken: Iterable[str] = ()) -> None:
        self.prompt = prompt[:MOST_CHARACTERS].strip()
        self._lower = self.prompt.lower()
        self._words = set(words(self.prompt))
        self._formats = {name: _found(form, self.prompt) for name, form in _FORMATS.items()}
        plain = self.prompt
        for form in (_UUID, _URI, _EMAIL, _DATE_TIME, _DATE, _TIME):
            plain = form.sub(" ", plain)
        self.numbers = [_number(text) for text in _found(_NUMBER, plain)]
        excluded = set(taken)
        self.quotes = [text for text in quoted(self.prompt) if text not in excluded]
        self._phrases = [text.strip(_END) for text in _AFTER_PREPOSITION.findall(self.prompt)]
        self._phrases += [text.strip(_END) for text in _NAMES.findall(self.prompt)]

    def mentions(self, name: str) -> bool:
        """Whether all words of a name occur."""
        wanted = words(name)
        return 0 < len(wanted) <= _MOST_WORDS and self._words.issuperset(wanted)

    def contains(self, value: str) -> bool:
        """Whether a text occurs as a whole."""
        value = value.lower()
        if not 0 < len(value) <= _LONGEST_VALUE or value not in self._lower:
            return False
        return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", self._lower) is not None

    def denies(self, name: str) -> bool:
        """Whether a name is ruled out: "no punchline", "without a title"."""
        if not self.mentions(name):
            return False
        spaced = r"[\s_-]".join(map(re.escape, words(name)))
        pattern = rf"\b{_NEGATIONS}\s(?:(?:a|an|any|the)\s)?{spaced}\b"
        return re.search(pattern, self._lower) is not None

    def named(self, name: str) -> str | None:
        """The value written right after a name: `limit=5`, `city: "Paris"`."""
        if not self.mentions(name):
            return None
        spaced = r"[\s_-]?".join(map(re.escape, words(name)))
        pattern = (
            rf"(?<!\w){spaced}[\"'`]?\s?[=:]\s?"
            r"(?:\"([^\"\n]{1,400})\"|'([^'\n]{1,400})'|([^\s,;()]{1,400}))"
        )
        match = re.search(pattern, self.prompt, re.IGNORECASE)
        if match is None:
            return None
        value = next(group for group in match.groups() if group is not None)
        if value in self.quotes:
            self.quotes.remove(value)
        return value.rstrip(_END) or None

    def number(self, fits: "Fits") -> float | int | None:
        """Take the first number that fits."""
        for index, number in enumerate(self.numbers):
            if fits(number):
                return self.numbers.pop(index)
        return None

    def formatted(self, name: str) -> str | None:
        """Take the first text of a JSON Schema format."""
        found = self._formats.get(name)
        return found.pop(0) if found else None

    def quote(self) -> str | None:
        """Take the first quoted text."""
        return self.quotes.pop(0) if self.quotes else None

    def phrase(self) -> str | None:
        """Take the first phrase after a preposition, then the first name."""
        return self._phrases.pop(0) if self._phrases else None


class Fits:
    """Whether a number keeps the bounds of a schema.

    Args:
        low: Least value.
        high: Greatest value.
        whole: Whether only whole numbers fit.
        step: What numbers must be multiples of, or 0.
        open_low: Whether the least value itself is excluded.
        open_high: Whether the greatest value itself is excluded.
    """

    def __init__(
        self,
        low: float = float("-inf"),
        high: float = float("inf"),
        *,
        whole: bool = False,
        step: float = 0,
        open_low: bool = False,
        open_high: bool = False,
    ) -> None:
        self._low, self._high = low, high
        self._whole, self._step = whole, step
        self._open_low, self._open_high = open_low, open_high

    def __call__(self, number: float) -> bool:
        """Whether the number fits."""
        above = number > self._low if self._open_low else number >= self._low
        below = number < self._high if self._open_high else number <= self._high
        whole = not self._whole or number == int(number)
        return above and below and whole and not (self._step and number % self._step)

    def smallest(self) -> float | int:
        """A number that fits if a simple one does: 1, else near a bound."""
        unit = self._step or 1
        near_low, near_high = self._low, self._high
        candidates = (unit, 0, near_low, near_low + unit, near_high, near_high - unit)
        middle = (near_low + near_high) / 2
        for number in (*candidates, middle):
            if math.isfinite(number) and self(number):
                return int(number) if self._whole else number
        return int(unit) if self._whole else unit


def quoted(text: str) -> list[str]:
    """All quoted texts, in order."""
    return ["".join(groups).strip() for groups in _QUOTED.findall(text[:MOST_CHARACTERS])]


def _found(pattern: re.Pattern[str], text: str) -> list[str]:
    return [match[0].rstrip(_END) for match in pattern.finditer(text)]


def _number(text: str) -> float | int:
    plain = text.replace(",", "")
    return float(plain) if "." in plain else int(plain)
