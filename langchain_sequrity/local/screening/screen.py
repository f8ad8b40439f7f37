"""The blockers and classifiers that are on, and how they look at one value."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from langchain_sequrity.display import plain
from langchain_sequrity.headers.features import Classifier, FeaturesHeader
from langchain_sequrity.local.screening.blockers import FILE_BLOCKER, URL_BLOCKER, Rule
from langchain_sequrity.local.screening.redaction import Finding, Redaction, TooMuch, texts

Ask = Callable[[str, str], Any]

WITHHELD = "[CONTENT WITHHELD]"
MODES = {"strict": 0.2, "high sensitivity": 0.35, "normal": 0.5, "low sensitivity": 0.8}
_PII = "pii_redaction"
# A long text is asked about piece by piece; pieces overlap, so that no phrase is cut in all.
_LONGEST, _OVERLAP, _MOST_PIECES = 16_000, 200, 64
_STEP = _LONGEST - _OVERLAP
_logger = logging.getLogger("langchain_sequrity.local")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a look at a value.

    Attributes:
        value: What may go on. `WITHHELD`, a text, if `denied` is set: whoever overlooks `denied`
            still passes nothing on.
        findings: What was found, the denial included.
        denied: Why the call may not be made, or its result not be seen.
    """

    value: Any
    findings: tuple[Finding, ...] = ()
    denied: Finding | None = None


@dataclass(frozen=True, slots=True)
class Screen:
    """The blockers and classifiers that are on.

    Attributes:
        rules: What finds and redacts by fixed rules.
        asked: Thresholds of the classifiers that ask a model, by name.
        notes: Sentences about modes that are not known.

    Example:
        ```python
        from langchain_sequrity.headers import FeaturesHeader
        from langchain_sequrity.local.screening import Screen

        features = FeaturesHeader.dual_llm(
            classifiers=["pii_redaction", "toxicity_filter"], blockers=["url_blocker"]
        )
        screen = Screen.from_features(features)
        outcome = screen.look_at({"to": "a@example.com"}, ask=lambda name, text: 0.1)
        assert outcome.value == {"to": "[E-MAIL ADDRESS REDACTED]"}
        assert outcome.denied is None
        ```
    """

    rules: tuple[Rule, ...] = ()
    asked: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def from_features(cls, features: FeaturesHeader | None) -> Self:
        """Read what is on.

        Of a classifier that comes twice, the lower threshold counts.

        Args:
            features: The header, or `None` for nothing.

        Returns:
            The screen.
        """
        features = features or FeaturesHeader()
        thresholds: dict[str, float] = {}
        notes = []
        for classifier in features.content_classifiers or ():
            threshold, note = _threshold(classifier)
            thresholds[classifier.name] = min(threshold, thresholds.get(classifier.name, 1.0))
            notes += note
        blockers = {blocker.name for blocker in features.content_blockers or ()}
        rules = [rule for rule in (FILE_BLOCKER, URL_BLOCKER) if rule.name in blockers]
        least = thresholds.pop(_PII, None)
        if least is not None:
            # It loads the checksum library, which most servers do not need.
            from langchain_sequrity.local.screening.pii import find_pii  # noqa: PLC0415

            rules.append(Rule(_PII, "redacted", partial(find_pii, threshold=least)))
        return cls(tuple(rules), tuple(thresholds.items()), tuple(notes))

    @property
    def is_on(self) -> bool:
        """Whether any blocker or classifier is on."""
        return bool(self.rules or self.asked)

    def look_at(self, value: Any, *, ask: Ask) -> Outcome:
        """Look at the arguments of a call before it, or at its result after it.

        Redaction comes first, so that classifiers judge what would go on, and see no more.

        Args:
            value: Any JSON value.
            ask: Gives the score of a text, 0 to 1, for the name of a classifier. If it raises or
                gives something else, the classifier strikes.

        Returns:
            The redacted value. If a classifier strikes, the whole value is withheld.

        Raises:
            TypeError: If the value is no JSON value.
        """
        if not self.is_on:
            return Outcome(value)
        redaction = Redaction(self.rules)
        try:
            redacted = redaction.of(value)
        except TooMuch as limit:
            return _withheld(redaction.findings, Finding("screening", str(limit)))
        text = "\n".join(texts(redacted)) if self.asked else ""
        for name, threshold in self.asked if text.strip() else ():
            struck = _judge(name, threshold, text, ask)
            if struck is not None:
                return _withheld(redaction.findings, struck)
        return Outcome(redacted, tuple(redaction.findings))


def _threshold(classifier: Classifier) -> tuple[float, list[str]]:
    """The score from which a classifier strikes, and a note if its mode is not known."""
    threshold = MODES["normal"] if classifier.threshold is None else classifier.threshold
    if classifier.mode is None:
        return threshold, []
    named = MODES.get(" ".join(re.findall(r"[^\s_-]+", classifier.mode.lower())))
    if named is not None:
        return named, []
    note = (
        f"The mode `{plain(classifier.mode, limit=60)}` of `{classifier.name}` is not known, so "
        f"the threshold {threshold:g} applies. Known modes: `{'`, `'.join(MODES)}`."
    )
    return threshold, [note]


def _judge(name: str, threshold: float, text: str, ask: Ask) -> Finding | None:
    """Ask for a score; whatever goes wrong counts as a strike."""
    if len(text) > _MOST_PIECES * _STEP:
        return Finding(name, "text too long to be classified")
    for start in range(0, max(len(text) - _OVERLAP, 1), _STEP):
        try:
            score = ask(name, text[start : start + _LONGEST])
        except Exception as error:
            # The error may quote the text, so the finding names its type only.
            _logger.warning("The classifier `%s` failed", name, exc_info=True)
            return Finding(name, f"no answer, the classifier failed with `{type(error).__name__}`")
        is_number = isinstance(score, int | float) and not isinstance(score, bool)
        if not is_number or not 0 <= score <= 1:
            return Finding(name, "no answer, the classifier gave no number from 0 to 1")
        if score >= threshold:
            return Finding(name, "score", score=float(score))
    return None


def _withheld(findings: Sequence[Finding], denied: Finding) -> Outcome:
    # The keys in paths are part of what is withheld.
    counts: Counter[tuple[str, str]] = Counter()
    for finding in findings:
        counts[finding.name, finding.kind] += finding.count
    pathless = (Finding(name, kind, count=count) for (name, kind), count in counts.items())
    return Outcome(WITHHELD, (*pathless, denied), denied)
