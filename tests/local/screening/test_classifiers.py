"""Classifiers: thresholds and modes, what they are asked, and answers that are not a score."""

import logging
from typing import Any

import pytest

from langchain_sequrity.headers import Classifier, FeaturesHeader
from langchain_sequrity.local.screening import Detection, Screen
from langchain_sequrity.local.screening.screen import MODES, WITHHELD
from langchain_sequrity.local.screening.topics import score
from tests.local.screening.screens import Recorder, nobody, redacted, screen

TOXIC = screen(classifiers=("toxicity_filter",))


def toxicity(threshold: float | None = None, mode: str | None = None) -> Classifier:
    if threshold is None:
        return Classifier(name="toxicity_filter", mode=mode)
    return Classifier(name="toxicity_filter", threshold=threshold, mode=mode)


# Thresholds


@pytest.mark.parametrize(
    ("classifier", "threshold"),
    [
        (toxicity(), 0.5),
        (toxicity(0.7), 0.7),
        (toxicity(mode="strict"), 0.2),
        (toxicity(mode="high sensitivity"), 0.35),
        (toxicity(mode="normal"), 0.5),
        (toxicity(mode="low sensitivity"), 0.8),
        (toxicity(0.9, "strict"), 0.2),
        (toxicity(0.1, "Low_Sensitivity"), 0.8),
        (toxicity(mode=" HIGH-sensitivity "), 0.35),
        (toxicity(0.3, "whatever"), 0.3),
        (toxicity(0.0), 0.0),
        (toxicity(1.0), 1.0),
    ],
)
def test_a_classifier_denies_a_score_at_or_above_its_threshold(
    classifier: Classifier, threshold: float
) -> None:
    looking = screen(classifiers=(classifier,))
    struck = looking.screen("x", ask=lambda _name, _text: threshold)
    assert struck.denied == Detection("toxicity_filter", "score", score=threshold)
    if threshold:
        assert looking.screen("x", ask=lambda _name, _text: threshold - 0.01).denied is None


def test_the_warning_of_an_unknown_mode_lists_the_known_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    screen(classifiers=(toxicity(0.3, "wild\x1b[2J"),))
    [note] = caplog.messages
    assert note.startswith(
        r"X-Features: The mode `wild\x1b[2J` of `toxicity_filter` is unknown, so the threshold 0.3 "
    )
    assert all(f"`{mode}`" in note for mode in MODES)


def test_known_modes_need_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    screen(classifiers=tuple(toxicity(mode=mode) for mode in MODES))
    assert not caplog.messages


def test_a_classifier_that_is_given_twice_uses_the_lower_threshold() -> None:
    for pair in ((toxicity(0.3), toxicity(0.6)), (toxicity(0.6), toxicity(0.3))):
        looking = screen(classifiers=pair)
        assert looking.screen("x", ask=lambda _name, _text: 0.4).denied is not None


# What is asked


def test_a_classifier_sees_all_texts_keys_and_numbers() -> None:
    ask = Recorder()
    value = {"to": ["ann", {"b": "line\nbreak"}], "n": 5, "no": None, "yes": True}
    TOXIC.screen(value, ask=ask)
    assert ask.asked == [("toxicity_filter", "to\nann\nb\nline\nbreak\nn\n5\nno\nyes\nTrue")]


def test_a_classifier_sees_the_text_after_redaction_by_the_rules() -> None:
    ask = Recorder()
    looking = screen("url_blocker", classifiers=("pii_redaction", "toxicity_filter"))
    looking.screen("a@b.example http://x.example/secret", ask=ask)
    assert ask.asked == [("toxicity_filter", "[E-MAIL ADDRESS REDACTED] [URL BLOCKED]")]


@pytest.mark.parametrize("value", [None, "", " \n", [], {}, [None, {}]])
def test_a_classifier_is_not_asked_about_an_empty_value(value: Any) -> None:
    assert redacted(TOXIC, value) == value


def test_after_the_first_classifier_that_denies_no_other_is_asked() -> None:
    ask = Recorder(healthcare_topic_guardrail=1)
    looking = screen(
        classifiers=("toxicity_filter", "healthcare_topic_guardrail", "finance_topic_guardrail")
    )
    outcome = looking.screen("x", ask=ask)
    assert [name for name, _ in ask.asked] == ["toxicity_filter", "healthcare_topic_guardrail"]
    assert outcome.denied == Detection("healthcare_topic_guardrail", "score", score=1.0)


@pytest.mark.parametrize("place", [0, 15_995, 16_000, 31_700, 500_000, 999_980])
def test_a_classifier_sees_every_part_of_a_long_text(place: int) -> None:
    text = ("x " * 500_000)[:place] + " kill you " + "y " * ((1_000_000 - place) // 2)
    outcome = TOXIC.screen(text, ask=lambda _, piece: float("kill you" in piece))
    assert outcome.denied is not None


def test_a_text_that_is_too_long_for_a_classifier_is_denied_without_asking() -> None:
    outcome = TOXIC.screen("x" * 2_000_000, ask=nobody)
    assert outcome.denied == Detection("toxicity_filter", "text too long to be classified")


# Denials


@pytest.mark.parametrize("value", ["bad words", {"bad": "words"}, ["bad", 5], 7])
def test_a_value_that_a_classifier_denies_is_withheld_completely(value: Any) -> None:
    outcome = TOXIC.screen(value, ask=lambda _name, _text: 0.9)
    assert outcome.value == WITHHELD
    assert outcome.denied == Detection("toxicity_filter", "score", score=0.9)
    assert outcome.findings == (outcome.denied,)


def test_paths_of_other_findings_do_not_quote_a_withheld_value() -> None:
    looking = screen("url_blocker", classifiers=("toxicity_filter",))
    outcome = looking.screen(
        {"idiot": ["http://a.example", "http://b.example"]}, ask=lambda _name, _text: 1.0
    )
    assert outcome.findings == (
        Detection("url_blocker", "url", count=2),
        Detection("toxicity_filter", "score", score=1.0),
    )


@pytest.mark.parametrize(
    "answer", [None, True, False, "0.1", -0.1, 1.1, float("nan"), float("inf"), [0.1], {}, 10**400]
)
def test_an_answer_that_is_not_a_score_is_a_denial(answer: Any) -> None:
    outcome = TOXIC.screen("x", ask=lambda _name, _text: answer)
    assert outcome.value == WITHHELD
    assert outcome.denied is not None
    assert outcome.denied.kind == "no answer, the classifier gave no number from 0 to 1"


def test_a_classifier_that_raises_is_a_denial_that_does_not_quote_the_exception(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_name: str, text: str) -> float:
        raise LookupError(text)

    with caplog.at_level(logging.WARNING, "langchain_sequrity.local"):
        outcome = TOXIC.screen("secret text", ask=fail)
    assert outcome.value == WITHHELD
    assert str(outcome.denied) == (
        "`toxicity_filter`: no answer, the classifier failed with `LookupError` at `$`"
    )
    assert "toxicity_filter" in caplog.text


def test_a_keyboard_interrupt_in_a_classifier_is_not_caught() -> None:
    def stop(_name: str, _text: str) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TOXIC.screen("x", ask=stop)


# Off


@pytest.mark.parametrize("features", [None, FeaturesHeader(), FeaturesHeader.dual_llm()])
def test_a_screen_that_is_off_returns_the_value_itself(features: FeaturesHeader | None) -> None:
    looking = Screen.from_features(features)
    value = {"x": object()}
    assert not looking.is_on
    assert looking.screen(value, ask=nobody).value is value


# Keywords

KEYWORDS = [
    ("toxicity_filter", "You are a stupid idiot", "You are a kind person"),
    ("toxicity_filter", "I will KILL\nyou", "skill, youth and killjoys"),
    ("toxicity_filter", "you \uff49\uff44\uff49\uff4f\uff54", "the idiom"),
    ("healthcare_topic_guardrail", "my doctor gave me pills", "my mechanic gave me keys"),
    ("healthcare_topic_guardrail", '{"bloodPressure": 120}', '{"tirePressure": 120}'),
    ("healthcare_topic_guardrail", "type 2 diabetes", "type 2 errors"),
    ("finance_topic_guardrail", "Compare stock prices and bonds", "Compare shoe sizes"),
    ("finance_topic_guardrail", "interest_rates: 4%", "an interesting rating"),
]


@pytest.mark.parametrize(("name", "on_topic", "off_topic"), KEYWORDS)
def test_keywords_score_a_text_on_their_topic_and_no_other_text(
    name: str, on_topic: str, off_topic: str
) -> None:
    assert score(name, on_topic) >= 0.5
    assert score(name, off_topic) == 0


def test_one_weak_keyword_is_enough_in_strict_mode_but_not_in_normal_mode() -> None:
    hint = score("finance_topic_guardrail", "I walked along the bank of the river")
    assert MODES["strict"] <= hint < MODES["normal"]


def test_a_keyword_at_the_end_of_a_long_text_counts() -> None:
    assert score("toxicity_filter", "word " * 100_000 + "idiot") >= 0.5


@pytest.mark.parametrize(
    "name", ["toxicity_filter", "healthcare_topic_guardrail", "finance_topic_guardrail"]
)
def test_a_score_is_at_most_one_and_that_of_a_marker_is_zero(name: str) -> None:
    everything = "idiot moron shit cancer biopsy insulin mortgage dividend portfolio stock"
    assert score(name, everything * 5 + " " + everything) == 1
    for marker in ("[CARD NUMBER REDACTED]", "[IBAN REDACTED]", "[URL BLOCKED]", WITHHELD):
        assert score(name, marker) == 0
