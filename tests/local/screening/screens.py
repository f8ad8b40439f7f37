"""Makes screens, and stand-ins for classifiers."""

from typing import Any, NoReturn

from langchain_sequrity.headers import Blocker, Classifier, FeaturesHeader
from langchain_sequrity.headers.features import BlockerName, ClassifierName
from langchain_sequrity.local.screening import Screen


def screen(
    *blockers: BlockerName | Blocker, classifiers: tuple[ClassifierName | Classifier, ...] = ()
) -> Screen:
    return Screen.from_features(FeaturesHeader.dual_llm(classifiers=classifiers, blockers=blockers))


def nobody(name: str, text: str) -> NoReturn:
    msg = f"{name} was asked about {text!r}"
    raise AssertionError(msg)


class Recorder:
    """Answers with a fixed score for each classifier, and records the questions."""

    def __init__(self, **scores: float) -> None:
        self._scores = scores
        self.asked: list[tuple[str, str]] = []

    def __call__(self, name: str, text: str) -> float:
        self.asked.append((name, text))
        return self._scores.get(name, 0.0)


def redacted(looking: Screen, value: Any) -> Any:
    outcome = looking.screen(value, ask=nobody)
    assert outcome.denied is None
    return outcome.value
