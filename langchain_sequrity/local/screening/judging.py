"""Classifiers that ask: a model scores a text, and whatever goes wrong counts as a strike."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

from langchain_sequrity.local.screening.findings import Finding

Ask = Callable[[str, str], Any]

_LONGEST = 16_000
_OVERLAP = 200
_MOST_PIECES = 64
_logger = logging.getLogger("langchain_sequrity.local")


def judge(name: str, threshold: float, text: str, ask: Ask) -> Finding | None:
    """Ask for a score of a text, piece by piece if it is long.

    Args:
        name: The classifier's name.
        threshold: From which score on it strikes.
        text: The text.
        ask: Gives the score of a text, 0 to 1, for the name of a classifier.

    Returns:
        A finding if it strikes: the score reaches the threshold, there is no score, or the text is
        too long to be asked about.
    """
    if len(text) > _MOST_PIECES * (_LONGEST - _OVERLAP):
        return Finding(name, "text too long to be classified")
    for piece in _pieces(text):
        try:
            answer = ask(name, piece)
        except Exception as error:
            # Its text may quote what was asked about: only its type is told, the rest is logged.
            _logger.warning("The classifier `%s` failed", name, exc_info=True)
            return Finding(name, f"no answer, the classifier failed with `{type(error).__name__}`")
        score = _score(answer)
        if score is None:
            return Finding(name, "no answer, the classifier gave no number from 0 to 1")
        if score >= threshold:
            return Finding(name, "score", score=score)
    return None


def _pieces(text: str) -> Iterator[str]:
    """Pieces that a model can take; they overlap, so that no phrase is cut in all of them."""
    step = _LONGEST - _OVERLAP
    for start in range(0, max(len(text) - _OVERLAP, 1), step):
        yield text[start : start + _LONGEST]


def _score(answer: Any) -> float | None:
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        return None
    return float(answer) if 0 <= answer <= 1 else None
