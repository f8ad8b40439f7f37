"""A probe as data: a question, what the package assumes, and which answers agree with it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from langchain_sequrity.conformance.client import Client

Verdict = Literal["confirmed", "refuted", "no answer"]
Side = Literal["client", "local server", "both"]


@dataclass(frozen=True)
class Answer:
    """What a service answered.

    Attributes:
        found: The answer in a few words of the probe's own.
        detail: What was seen, for people.
    """

    found: str
    detail: str = ""


Ask = Callable[[Client], Answer | str]


@dataclass(frozen=True)
class Probe:
    """One question to a service.

    Attributes:
        id: Its name, for `--only` and reports.
        question: The question.
        choice: What the package assumes, as a sentence.
        relies: Where that is written: a page of `docs/` and a section of it.
        expected: Answers that agree with the choice.
        copes: Answers that do not, but with which the client works all the same.
        of: Whose choice it is.
        requests: How many requests it sends at most.
        models: How many calls of a model it costs at most.
        ask: Asks, and returns the answer; raises `NoAnswer` if the question could not be asked.
    """

    id: str
    question: str
    choice: str
    relies: tuple[str, ...]
    expected: frozenset[str]
    copes: frozenset[str]
    of: Side
    requests: int
    models: int
    ask: Ask = field(repr=False, compare=False)


@dataclass(frozen=True)
class Outcome:
    """What became of a probe.

    Attributes:
        probe: The probe.
        verdict: Whether the choice is confirmed, refuted, or neither.
        found: The answer, or why there is none.
        detail: What was seen.
        client_copes: Whether the client works with an answer that refutes the choice.
        requests: How many requests it took.
    """

    probe: Probe
    verdict: Verdict
    found: str
    detail: str = ""
    client_copes: bool = False
    requests: int = 0


PROBES: dict[str, Probe] = {}
"""All probes by their ids, in the order in which they are written."""


def probe(
    name: str,
    question: str,
    choice: str,
    *relies: str,
    expected: tuple[str, ...],
    copes: tuple[str, ...] = (),
    of: Side = "both",
    requests: int = 1,
    models: int = 0,
) -> Callable[[Ask], Ask]:
    """Put a probe into the table; for its arguments see `Probe`.

    Raises:
        ValueError: If there is one of that name.
    """

    def register(ask: Ask) -> Ask:
        if name in PROBES:
            msg = f"There are two probes named `{name}`."
            raise ValueError(msg)
        PROBES[name] = Probe(
            name, question, choice, relies, frozenset(expected), frozenset(copes),
            of, requests, models, ask,
        )  # fmt: skip
        return ask

    return register


def judged(probe: Probe, answer: Answer | str) -> Outcome:
    """Hold an answer against what the package assumes.

    Args:
        probe: The probe.
        answer: What it found.
    """
    one = Answer(answer) if isinstance(answer, str) else answer
    verdict: Verdict = "confirmed" if one.found in probe.expected else "refuted"
    copes = one.found in probe.copes or probe.of == "local server"
    return Outcome(
        probe, verdict, one.found, one.detail, client_copes=verdict == "refuted" and copes
    )
