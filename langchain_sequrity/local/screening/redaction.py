"""Redaction of JSON values: markers replace what rules find, and everything else stays."""

import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from langchain_sequrity.display import plain
from langchain_sequrity.local.screening.blockers import FILE_BLOCKER, Rule, is_content

Path = tuple[str | int, ...]

# So many in one text are a dump; its markers would be longer than the text.
_MOST_HITS = 10_000
_MOST_CHARACTERS = 4_000_000
_COST_OF_A_TEXT = 64  # in characters: many short ones take longer than one long one
_DEEPEST = 150
_HYPHENS = dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-")
# Other punctuation stays: a full-width comma ends a URL in Chinese, a plain one does not.
_STRUCTURE = frozenset("./:@-_+%#&=~\\[]")
_FILE = FILE_BLOCKER.marker("file")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was found. It never holds the text that was found.

    Attributes:
        name: What found it, such as `url_blocker`; `screening` if the value could not be screened.
        kind: What it is, such as `phone number`, or why a classifier struck.
        path: Keys and indices that lead to it, the keys as they are after redaction. Empty where
            it is the whole value.
        count: How many of the kind there were in this text.
        score: The score that a classifier gave.
    """

    name: str
    kind: str
    path: Path = ()
    count: int = 1
    score: float | None = None

    def __str__(self) -> str:
        """Say it in words that are fit to be shown."""
        times = f" ({self.count} times)" if self.count > 1 else ""
        score = "" if self.score is None else f" {self.score:.2f}"
        steps = (
            f"[{step}]" if isinstance(step, int) else f".{plain(step, limit=60)}"
            for step in self.path
        )
        return f"`{self.name}`: {self.kind}{score}{times} at `${''.join(steps)}`"


def fold(text: str) -> tuple[str, Sequence[int]]:
    r"""Write a text in one spelling for the rules to read.

    Full-width letters, digits of any script and invisible characters would otherwise hide a URL
    or a number from a rule, but not from whoever reads it.

    Args:
        text: Any text.

    Returns:
        Its folded spelling, and for each of its characters the index in the text as it came.

    Example:
        ```python
        from langchain_sequrity.local.screening.redaction import fold

        assert fold("ht\u200btp\uff1a//x")[0] == "http://x"
        ```
    """
    table = {} if text.isascii() else {char: _folded(char) for char in set(text)}
    if all(char == folded for char, folded in table.items()):
        return text, range(len(text))
    indices = array("I", (index for index, char in enumerate(text) for _ in table[char]))
    return "".join(map(table.__getitem__, text)), indices


def _folded(char: str) -> str:
    category = unicodedata.category(char)
    if category == "Cf" or "\ufe00" <= char <= "\ufe0f":  # variation selectors
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category == "Zs":
        return " "
    compatible = _HYPHENS.get(char) or unicodedata.normalize("NFKC", char)
    folds = compatible.isascii() and (compatible.isalnum() or compatible in _STRUCTURE)
    return compatible if folds else char


def redact(text: str, rules: Sequence[Rule]) -> tuple[str, Counter[tuple[str, str]]]:
    """Replace what the rules find, until they find nothing more.

    Args:
        text: Any text.
        rules: The rules.

    Returns:
        A text in which no rule finds anything, and the number of findings by rule and kind. One
        marker replaces a whole text that has more than 10,000 findings, or more after three rounds.
    """
    found: Counter[tuple[str, str]] = Counter()
    # A marker brings together what stood apart, which can be a finding of its own.
    for is_last in (False, False, False, True):
        hits = list(islice(_hits(text, rules), _MOST_HITS + 1))
        if not hits:
            break
        if is_last or len(hits) > _MOST_HITS:
            hits = [(0, len(text), *hits[0][2:])]
        pieces, done = [], 0
        # Of places that overlap, the first gives the whole its name; of those, the longest.
        for start, end, rule, kind in sorted(hits, key=lambda hit: (hit[0], -hit[1])):
            if start >= done:
                pieces += [text[done:start], rule.marker(kind)]
                found[rule.name, kind] += 1
            done = max(done, end)
        text = "".join([*pieces, text[done:]])
    return text, found


def _hits(text: str, rules: Sequence[Rule]) -> Iterator[tuple[int, int, Rule, str]]:
    folded, indices = fold(text)
    for rule in rules:
        for start, end, kind in rule.find(folded):
            yield indices[start], indices[end - 1] + 1, rule, kind


class TooMuch(Exception):
    """The value is larger or deeper than what is screened; the text says which."""


class Redaction:
    """One walk through a value: every text is redacted, keys too.

    Args:
        rules: The rules for texts. `FILE_BLOCKER` also blocks the content of file blocks.

    Attributes:
        findings: What was found so far.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._left = _MOST_CHARACTERS
        self._seen: dict[str, tuple[str, Counter[tuple[str, str]]]] = {}
        self.findings: list[Finding] = []

    def of(self, value: Any, path: Path = (), *, in_file: bool = False) -> Any:
        """Redact a value.

        Args:
            value: Any JSON value.
            path: Where it is.
            in_file: Whether it is part of a file's content, which is blocked.

        Returns:
            A copy of the same shape. A number in which a rule finds something becomes a text: any
            other number would be taken for real.

        Raises:
            TooMuch: If it is too large, or nested too deeply.
            TypeError: If it is no JSON value.
        """
        if len(path) > _DEEPEST:
            msg = "value nested too deeply to be screened"
            raise TooMuch(msg)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._content(value, path) if in_file else self._text(value, path)
        if isinstance(value, int | float):
            return self._number(value, path, in_file=in_file)
        if isinstance(value, list):
            return [self.of(one, (*path, at), in_file=in_file) for at, one in enumerate(value)]
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return self._object(value, path, in_file=in_file)
        msg = f"Only JSON values can be screened; got `{type(value).__name__}`."
        raise TypeError(msg)

    def _object(self, value: Mapping[str, Any], path: Path, *, in_file: bool) -> dict[str, Any]:
        redacted: dict[str, Any] = {}
        for key, name in self._names(value, path).items():
            is_blocked = FILE_BLOCKER in self._rules and is_content(value, key, within=in_file)
            redacted[name] = self.of(value[key], (*path, name), in_file=is_blocked)
        return redacted

    def _text(self, text: str, path: Path) -> str:
        # Tables have the same keys in every row.
        if text not in self._seen:
            self._spend(len(text))
            self._seen[text] = redact(text, self._rules)
        redacted, found = self._seen[text]
        self.findings += [Finding(name, kind, path, count) for (name, kind), count in found.items()]
        return redacted

    def _content(self, text: str, path: Path) -> str:
        if text not in {"", _FILE}:
            self._spend(0)  # it is not read
            self.findings.append(Finding(FILE_BLOCKER.name, "file", path))
        return text and _FILE

    def _spend(self, characters: int) -> None:
        self._left -= characters + _COST_OF_A_TEXT
        if self._left < 0:
            msg = "value too large to be screened"
            raise TooMuch(msg)

    def _number(self, number: float, path: Path, *, in_file: bool) -> Any:
        # Shorter and longer numbers are no card, phone or account.
        if not 10**8 <= abs(number) < 10**20 or number != int(number):
            return number
        digits = str(int(number))
        redacted = self._text(digits, path)
        if redacted == digits:
            return number
        return _FILE if in_file else redacted

    def _names(self, value: Mapping[str, Any], path: Path) -> dict[str, str]:
        """The redacted key for each key; two keys never become the same."""
        names = {key: self._text(key, path) for key in value}
        taken = {key for key, name in names.items() if key == name}
        counts: Counter[str] = Counter()
        for key, name in names.items():
            if key != name:
                while names[key] in taken:
                    counts[name] += 1
                    names[key] = f"{name}[{counts[name] + 1}]"
                taken.add(names[key])
        return names


def texts(value: Any) -> Iterator[str]:
    """Every text, number and truth of a JSON value, keys included, in order."""
    if isinstance(value, Mapping):
        value = [one for item in value.items() for one in item]
    if isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif value is not None:
        yield str(value)
