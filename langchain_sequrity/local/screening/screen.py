"""What is on of blockers and classifiers, and a look at one value with all of it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from langchain_sequrity.headers.features import FeaturesHeader
from langchain_sequrity.local.screening.files import find_files
from langchain_sequrity.local.screening.findings import WITHHELD, Finding, Outcome
from langchain_sequrity.local.screening.judging import Ask, judge
from langchain_sequrity.local.screening.pii import find_pii
from langchain_sequrity.local.screening.redaction import Rule
from langchain_sequrity.local.screening.sensitivity import thresholds
from langchain_sequrity.local.screening.urls import find_urls
from langchain_sequrity.local.screening.walking import Redaction, TooMuch, texts

_URLS = Rule("url_blocker", "blocked", find_urls)
_FILES = Rule("file_blocker", "blocked", find_files)
_PII = "pii_redaction"


@dataclass(frozen=True, slots=True)
class Screen:
    """The blockers and classifiers that are on.

    Attributes:
        rules: What finds and redacts by fixed rules.
        asked: Thresholds of the classifiers that ask a model, by name.
        notes: What of the request could not be taken as it is, in sentences.

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

        Args:
            features: The header, or `None` for nothing.

        Returns:
            The screen.
        """
        if features is None:
            return cls()
        limits, notes = thresholds(features.content_classifiers or ())
        blockers = {blocker.name for blocker in features.content_blockers or ()}
        rules = [rule for rule in (_FILES, _URLS) if rule.name in blockers]
        if _PII in limits:
            rules.append(Rule(_PII, "redacted", partial(find_pii, threshold=limits[_PII])))
        asked = tuple((name, limit) for name, limit in limits.items() if name != _PII)
        return cls(tuple(rules), asked, notes)

    @property
    def is_on(self) -> bool:
        """Whether there is anything to look with."""
        return bool(self.rules or self.asked)

    def look_at(self, value: Any, *, ask: Ask) -> Outcome:
        """Look at the arguments of a call before it, or at its result after it.

        Redaction comes first, so that classifiers judge what would go on, and see no more.

        Args:
            value: Any JSON value.
            ask: Gives the score of a text, 0 to 1, for the name of a classifier. If it raises or
                gives something else, the classifier strikes. It is not called where no classifier
                is on that asks.

        Returns:
            What may go on. Where a classifier strikes, that is nothing of the value: no call is
            made with arguments, and a result is withheld as a whole.

        Raises:
            TypeError: If the value is no JSON value.
        """
        if not self.is_on:
            return Outcome(value)
        redaction = Redaction(self.rules, _FILES if _FILES in self.rules else None)
        try:
            redacted = redaction.of(value)
        except TooMuch as limit:
            return _withheld(redaction.findings, Finding("screening", str(limit)))
        struck = self._struck(redacted, ask) if self.asked else None
        if struck is not None:
            return _withheld(redaction.findings, struck)
        return Outcome(redacted, tuple(redaction.findings))

    def _struck(self, value: Any, ask: Ask) -> Finding | None:
        text = "\n".join(texts(value))
        if not text.strip():
            return None
        found = (judge(name, threshold, text, ask) for name, threshold in self.asked)
        return next((finding for finding in found if finding is not None), None)


def _withheld(findings: Iterable[Finding], denied: Finding) -> Outcome:
    # The keys in paths are part of what is withheld.
    counts: Counter[tuple[str, str]] = Counter()
    for finding in findings:
        counts[finding.name, finding.kind] += finding.count
    pathless = (Finding(name, kind, count=count) for (name, kind), count in counts.items())
    return Outcome(WITHHELD, (*pathless, denied), denied)
