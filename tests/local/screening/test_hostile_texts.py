"""A megabyte of whatever ends soon: no text makes a rule slow (`docs/security.md`, rule 3)."""

import time

import pytest

from langchain_sequrity.headers import Classifier
from langchain_sequrity.local.screening.keywords import score
from tests.local.screening.screens import nobody, screen

EVERYTHING = screen(
    "url_blocker",
    "file_blocker",
    classifiers=(Classifier(name="pii_redaction", threshold=0),),
)
MEGABYTE = 1_000_000

# Beginnings that a pattern may try over and over, before an end that it does not fit.
UNITS = [
    "a.", "://", "](<a", "data:a/a;a=1;", "@a.", "a@b.co ", "1 ", "1.1.1.1", "4111 ", "+1 (",
    "01 23 ", "DE11 ", "a:", "j\n", "Ab1\n", "A" * 60 + " ", "1\u200b", "a.bb/ ", "\uff0e",
]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_a_megabyte_that_is_hard_to_match_ends_within_a_second(unit: str) -> None:
    text = unit * (MEGABYTE // len(unit.encode())) + "!"
    assert any(_seconds(text) < 1 for _ in range(3))  # a busy machine is no defect


def _seconds(text: str) -> float:
    begin = time.process_time()
    EVERYTHING.look_at(text, ask=nobody)
    return time.process_time() - begin


def test_a_text_full_of_findings_is_replaced_as_a_whole() -> None:
    outcome = EVERYTHING.look_at("a@b.co " * 20_000, ask=nobody)
    assert outcome.value == "[E-MAIL ADDRESS REDACTED]"


def test_a_megabyte_of_words_is_scored_within_a_second() -> None:
    def seconds() -> float:
        begin = time.process_time()
        score("toxicity_filter", "a " * (MEGABYTE // 2))
        return time.process_time() - begin

    assert any(seconds() < 1 for _ in range(3))
