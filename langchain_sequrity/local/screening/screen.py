"""Content screening: blockers and classifiers look at one value, redact it or withhold it.

Detectors find places in texts and replace them with markers. Classifiers ask a model for a score; a
score from the threshold on withholds the whole value.
"""

import logging
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Self

from langchain_sequrity.display import plain
from langchain_sequrity.headers.features import Classifier, FeaturesHeader
from langchain_sequrity.local.screening.blockers import (
    FILE_BLOCKER,
    URL_BLOCKER,
    Detector,
    is_content,
)

Path = tuple[str | int, ...]
Ask = Callable[[str, str], Any]

# A text with more detections is replaced as a whole: its markers would be longer than the text.
_MOST_HITS = 10_000
_MOST_CHARACTERS = 4_000_000
_COST_OF_A_TEXT = 64  # in characters: many short texts take longer than one long text
_DEEPEST = 150
_HYPHENS = dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-")
# Other punctuation is not folded: a full-width comma ends a URL in Chinese, a plain one does not.
_STRUCTURE = frozenset("./:@-_+%#&=~\\[]")
_FILE = FILE_BLOCKER.marker("file")


@dataclass(frozen=True, slots=True)
class Detection:
    """A detection of a blocker or classifier. It never contains the detected text.

    Attributes:
        name: The blocker or classifier, such as `url_blocker`; `screening` if the value could not
            be screened.
        kind: What was detected, such as `phone number`, or why a classifier withholds the value.
        path: Keys (after redaction) and indices that lead to it; empty for the whole value.
        count: Number of detections of this kind in the text.
        score: The score of a classifier.
    """

    name: str
    kind: str
    path: Path = ()
    count: int = 1
    score: float | None = None

    def __str__(self) -> str:
        """Describe the detection in text that is safe to show."""
        times = f" ({self.count} times)" if self.count > 1 else ""
        score = "" if self.score is None else f" {self.score:.2f}"
        steps = (
            f"[{step}]" if isinstance(step, int) else f".{plain(step, limit=60)}"
            for step in self.path
        )
        return f"`{self.name}`: {self.kind}{score}{times} at `${''.join(steps)}`"


def fold(text: str) -> tuple[str, Sequence[int]]:
    r"""Fold a text into one spelling for the detectors.

    Otherwise full-width letters, digits of other scripts and invisible characters would hide a URL
    or a number from a detector, but not from a reader.

    Args:
        text: Any text.

    Returns:
        The folded text, and for each of its characters the index in the original text.

    Example:
        ```python
        from langchain_sequrity.local.screening.screen import fold

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


def redact(text: str, rules: Sequence[Detector]) -> tuple[str, Counter[tuple[str, str]]]:
    """Replace detections with markers, until the detectors find nothing more.

    Args:
        text: Any text.
        rules: The detectors.

    Returns:
        A text without detections, and the number of detections by detector and kind. One marker
        replaces a whole text with more than 10,000 detections, or with detections after three
        rounds.
    """
    counts: Counter[tuple[str, str]] = Counter()
    # A marker moves separate characters together, which can be a new detection.
    for is_last in (False, False, False, True):
        hits = list(islice(_detections(text, rules), _MOST_HITS + 1))
        if not hits:
            break
        if is_last or len(hits) > _MOST_HITS:
            hits = [(0, len(text), *hits[0][2:])]
        pieces, covered = [], 0
        # The first of overlapping places, or else the longest, names the whole.
        for start, end, rule, kind in sorted(hits, key=lambda hit: (hit[0], -hit[1])):
            if start >= covered:
                pieces += [text[covered:start], rule.marker(kind)]
                counts[rule.name, kind] += 1
            covered = max(covered, end)
        text = "".join([*pieces, text[covered:]])
    return text, counts


def _detections(text: str, rules: Sequence[Detector]) -> Iterator[tuple[int, int, Detector, str]]:
    folded, indices = fold(text)
    for rule in rules:
        for start, end, kind in rule.find(folded):
            yield indices[start], indices[end - 1] + 1, rule, kind


class TooLargeToScreen(Exception):
    """The value is too large or too deep to be screened; the text says which."""


class Redaction:
    """One walk through a value that redacts every text, including keys.

    Args:
        rules: The detectors for texts. `FILE_BLOCKER` also blocks the content of file blocks.

    Attributes:
        findings: The detections so far.
    """

    def __init__(self, rules: Sequence[Detector]) -> None:
        self._rules = rules
        self._characters_left = _MOST_CHARACTERS
        self._redacted: dict[str, tuple[str, Counter[tuple[str, str]]]] = {}
        self.findings: list[Detection] = []

    def redact_value(self, value: Any, path: Path = (), *, in_file: bool = False) -> Any:
        """Redact a value.

        Args:
            value: Any JSON value.
            path: Its place in the whole value.
            in_file: Whether it is part of a file's content, which is blocked.

        Returns:
            A redacted copy. A number with a detection becomes a text, because another number would
            look like real data.

        Raises:
            TooLargeToScreen: If it is too large, or nested too deeply.
            TypeError: If it is not a JSON value.
        """
        if len(path) > _DEEPEST:
            msg = "value nested too deeply to be screened"
            raise TooLargeToScreen(msg)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._content(value, path) if in_file else self._text(value, path)
        if isinstance(value, int | float):
            return self._number(value, path, in_file=in_file)
        if isinstance(value, list):
            return [self.redact_value(v, (*path, i), in_file=in_file) for i, v in enumerate(value)]
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return self._object(value, path, in_file=in_file)
        msg = f"Only JSON values can be screened; got `{type(value).__name__}`."
        raise TypeError(msg)

    def _object(self, value: Mapping[str, Any], path: Path, *, in_file: bool) -> dict[str, Any]:
        redacted: dict[str, Any] = {}
        for key, name in self._names(value, path).items():
            is_blocked = FILE_BLOCKER in self._rules and is_content(value, key, within=in_file)
            redacted[name] = self.redact_value(value[key], (*path, name), in_file=is_blocked)
        return redacted

    def _text(self, text: str, path: Path) -> str:
        # Tables have the same keys in every row.
        if text not in self._redacted:
            self._spend(len(text))
            self._redacted[text] = redact(text, self._rules)
        redacted, counts = self._redacted[text]
        self.findings += [
            Detection(name, kind, path, count) for (name, kind), count in counts.items()
        ]
        return redacted

    def _content(self, text: str, path: Path) -> str:
        if text not in {"", _FILE}:
            self._spend(0)  # it is not read
            self.findings.append(Detection(FILE_BLOCKER.name, "file", path))
        return text and _FILE

    def _spend(self, characters: int) -> None:
        self._characters_left -= characters + _COST_OF_A_TEXT
        if self._characters_left < 0:
            msg = "value too large to be screened"
            raise TooLargeToScreen(msg)

    def _number(self, number: float, path: Path, *, in_file: bool) -> Any:
        # Shorter and longer numbers are not card, phone or account numbers.
        if not 10**8 <= abs(number) < 10**20 or number != int(number):
            return number
        digits = str(int(number))
        redacted = self._text(digits, path)
        if redacted == digits:
            return number
        return _FILE if in_file else redacted

    def _names(self, value: Mapping[str, Any], path: Path) -> dict[str, str]:
        """The redacted key for each key; different keys stay different."""
        names = {key: self._text(key, path) for key in value}
        used = {key for key, name in names.items() if key == name}
        counts: Counter[str] = Counter()
        for key, name in names.items():
            if key != name:
                while names[key] in used:
                    counts[name] += 1
                    names[key] = f"{name}[{counts[name] + 1}]"
                used.add(names[key])
        return names


def texts(value: Any) -> Iterator[str]:
    """All texts, numbers and booleans of a JSON value, including keys, in order."""
    if isinstance(value, Mapping):
        value = [part for pair in value.items() for part in pair]
    if isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif value is not None:
        yield str(value)


# Blockers and classifiers

WITHHELD = "[CONTENT WITHHELD]"
MODES = {"strict": 0.2, "high sensitivity": 0.35, "normal": 0.5, "low sensitivity": 0.8}
_PII = "pii_redaction"
# Classifiers get a long text in pieces. They overlap, so that each phrase is whole in one of them.
_LONGEST, _OVERLAP, _MOST_PIECES = 16_000, 200, 64
_STEP = _LONGEST - _OVERLAP
_logger = logging.getLogger("langchain_sequrity.local")


@dataclass(frozen=True, slots=True)
class ScreenedValue:
    """A screened value.

    Attributes:
        value: The redacted value. It is `WITHHELD` if `denied` is set, so that code that ignores
            `denied` still passes nothing on.
        findings: All detections, including the denial.
        denied: The detection that denies the call or withholds its result.
    """

    value: Any
    findings: tuple[Detection, ...] = ()
    denied: Detection | None = None


@dataclass(frozen=True, slots=True)
class Screen:
    """The blockers and classifiers that are on.

    Attributes:
        rules: Detectors, which follow fixed rules.
        classifiers: Thresholds of the classifiers that ask a model, by name.

    Example:
        ```python
        from langchain_sequrity.headers import FeaturesHeader
        from langchain_sequrity.local.screening import Screen

        features = FeaturesHeader.dual_llm(
            classifiers=["pii_redaction", "toxicity_filter"], blockers=["url_blocker"]
        )
        screen = Screen.from_features(features)
        outcome = screen.screen({"to": "a@example.com"}, ask=lambda name, text: 0.1)
        assert outcome.value == {"to": "[E-MAIL ADDRESS REDACTED]"}
        assert outcome.denied is None
        ```
    """

    rules: tuple[Detector, ...] = ()
    classifiers: tuple[tuple[str, float], ...] = ()

    @classmethod
    def from_features(cls, features: FeaturesHeader | None) -> Self:
        """Read the blockers and classifiers of a header.

        If a classifier is listed twice, the lower threshold applies.

        Args:
            features: The header; `None` means that nothing is on.

        Returns:
            The screen.
        """
        features = features or FeaturesHeader()
        thresholds: dict[str, float] = {}
        for classifier in features.content_classifiers or ():
            threshold = threshold_of(classifier)
            thresholds[classifier.name] = min(threshold, thresholds.get(classifier.name, 1.0))
        blockers = {blocker.name for blocker in features.content_blockers or ()}
        rules = [rule for rule in (FILE_BLOCKER, URL_BLOCKER) if rule.name in blockers]
        pii_threshold = thresholds.pop(_PII, None)
        if pii_threshold is not None:
            # This loads the checksum library, which most servers do not need.
            from langchain_sequrity.local.screening.pii import find_pii  # noqa: PLC0415

            rules.append(Detector(_PII, "redacted", partial(find_pii, threshold=pii_threshold)))
        return cls(tuple(rules), tuple(thresholds.items()))

    @property
    def is_on(self) -> bool:
        """Whether any blocker or classifier is on."""
        return bool(self.rules or self.classifiers)

    def screen(self, value: Any, *, ask: Ask) -> ScreenedValue:
        """Screen the arguments of a call before it, or its result after it.

        Redaction comes first, so that classifiers see only the redacted value.

        Args:
            value: Any JSON value.
            ask: Returns the score, 0 to 1, for the name of a classifier and a text. An error or
                another value counts as a hit.

        Returns:
            The redacted value. If a classifier hits, the whole value is withheld.

        Raises:
            TypeError: If the value is not a JSON value.
        """
        if not self.is_on:
            return ScreenedValue(value)
        redaction = Redaction(self.rules)
        try:
            redacted = redaction.redact_value(value)
        except TooLargeToScreen as error:
            return _withheld_text(redaction.findings, Detection("screening", str(error)))
        text = "\n".join(texts(redacted)) if self.classifiers else ""
        for name, threshold in self.classifiers if text.strip() else ():
            hit = _classify(name, threshold, text, ask)
            if hit is not None:
                return _withheld_text(redaction.findings, hit)
        return ScreenedValue(redacted, tuple(redaction.findings))


def threshold_of(classifier: Classifier) -> float:
    """The score from which a classifier acts, by its mode or its threshold."""
    threshold = MODES["normal"] if classifier.threshold is None else classifier.threshold
    if classifier.mode is None:
        return threshold
    mode_threshold = MODES.get(" ".join(re.findall(r"[^\s_-]+", classifier.mode.lower())))
    if mode_threshold is not None:
        return mode_threshold
    warning = (
        f"The mode `{plain(classifier.mode, limit=60)}` of `{classifier.name}` is unknown, so "
        f"the threshold {threshold:g} applies. Known modes: `{'`, `'.join(MODES)}`."
    )
    _logger.warning("X-Features: %s", warning)
    return threshold


def _classify(name: str, threshold: float, text: str, ask: Ask) -> Detection | None:
    """Ask for a score; every failure counts as a hit."""
    if len(text) > _MOST_PIECES * _STEP:
        return Detection(name, "text too long to be classified")
    for start in range(0, max(len(text) - _OVERLAP, 1), _STEP):
        try:
            score = ask(name, text[start : start + _LONGEST])
        except Exception as error:
            # The error may quote the text, so the detection names only its type.
            _logger.warning("The classifier `%s` failed", name, exc_info=True)
            return Detection(
                name, f"no answer, the classifier failed with `{type(error).__name__}`"
            )
        is_number = isinstance(score, int | float) and not isinstance(score, bool)
        if not is_number or not 0 <= score <= 1:
            return Detection(name, "no answer, the classifier gave no number from 0 to 1")
        if score >= threshold:
            return Detection(name, "score", score=float(score))
    return None


def _withheld_text(findings: Sequence[Detection], denied: Detection) -> ScreenedValue:
    # Keys in paths are withheld, too.
    counts: Counter[tuple[str, str]] = Counter()
    for finding in findings:
        counts[finding.name, finding.kind] += finding.count
    pathless = (Detection(name, kind, count=count) for (name, kind), count in counts.items())
    return ScreenedValue(WITHHELD, (*pathless, denied), denied)
