"""No text makes a rule slow, not even a megabyte of hostile text (`docs/security.md`, rule 3)."""

import time
from collections.abc import Callable

import pytest

from langchain_sequrity.headers import Classifier
from langchain_sequrity.local.screening.topics import score
from tests.local.screening.screens import nobody, redacted, screen

EVERYTHING = screen(
    "url_blocker",
    "file_blocker",
    classifiers=(Classifier(name="pii_redaction", threshold=0),),
)
MEGABYTE = 1_000_000
GROWTH = 16

# Repeated beginnings of matches that never match as a whole, so that a pattern keeps trying.
UNITS = [
    "a.", "://", "](<a", "data:a/a;a=1;", "@a.", "a@b.co ", "1 ", "1.1.1.1", "4111 ", "+1 (",
    "01 23 ", "DE11 ", "a:", "j\n", "Ab1\n", "A" * 60 + " ", "1\u200b", "a.bb/ ", "\uff0e",
    "http:", "http:\\", "a@", "a.bb", "](<a.", "//a", "de11-", "00 1", "0" * 57 + "\\n",
    "4111 1111 1111 1111 ", "3000 000000 ",
]  # fmt: skip


def is_linear(work: Callable[[str], object], unit: str) -> bool:
    """Whether 16 times the text takes at most 48 times the work, and not 256 times.

    It measures CPU time, the best of three, so that the speed and load of the machine do not matter.
    """

    def cost(size: int) -> float:
        text = unit * (size // len(unit.encode())) + "!"
        begin = time.process_time()
        work(text)
        return time.process_time() - begin

    least = min(cost(MEGABYTE // GROWTH) for _ in range(3))
    return any(cost(MEGABYTE) < 3 * GROWTH * least for _ in range(3))


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("unit", UNITS)
def test_text_that_is_hard_to_match_takes_time_in_proportion_to_its_length(unit: str) -> None:
    assert is_linear(lambda text: EVERYTHING.screen(text, ask=nobody), unit)


def test_quadratic_work_is_not_taken_for_linear() -> None:
    # Looks at every pair of marks.
    def slow(text: str) -> int:
        marks = text.count("!") + len(text) // 2000
        return sum(1 for first in range(marks) for _ in range(first, marks))

    assert not is_linear(slow, "a ")


def test_a_text_full_of_findings_is_replaced_as_a_whole() -> None:
    outcome = EVERYTHING.screen("a@b.co " * 20_000, ask=nobody)
    assert outcome.value == "[E-MAIL ADDRESS REDACTED]"


def test_words_are_scored_in_time_in_proportion_to_their_number() -> None:
    assert is_linear(lambda text: score("toxicity_filter", text), "a ")


@pytest.mark.parametrize(
    "url",
    [
        "http:\\/\\/evil.example\\/x",
        "https:\\\\/\\\\/evil.example",
        "http:\\\\evil.example\\x",
        "https:/evil.example/x",
        "HTTP:///evil.example",
        "wss:\\/evil.example",
    ],
)
def test_a_url_with_escaped_or_wrong_slashes_is_blocked(url: str) -> None:
    assert (
        redacted(screen("url_blocker"), f'see {{"u":"{url}"}} now')
        == 'see {"u":"[URL BLOCKED]"} now'
    )


@pytest.mark.parametrize(
    "text", ["C:\\Users\\ann", "note:/tmp/x", "http: a/b", "http:\\\\", "news:/x", "flows:\\x"]
)
def test_other_slashes_after_a_colon_are_not_blocked(text: str) -> None:
    assert redacted(screen("url_blocker"), text) == text
