"""A probe as data, and how its answer is judged. The probes are in `probes.toml`.

A probe is either a program in one or two requests, written in the table with the name of one of the
`readers` for the last reply, or a function in `questions` that sends its own requests.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from typing import Any, Literal

from langchain_sequrity.conformance import questions, readers
from langchain_sequrity.conformance.client import (
    Client,
    ProbeReply,
    ProgramTurn,
    Unanswered,
    sqrt,
    user_message,
)
from langchain_sequrity.conformance.readers import Answer

Verdict = Literal["confirmed", "refuted", "no answer"]
Side = Literal["client", "local server", "both"]


Ask = Callable[[Client], Answer]
_TOKENS = 1_000  # of a call of a model, unless the table has a figure
_NOTHING = "Nothing is needed."


@dataclass(frozen=True)
class Probe:
    """One question to a service.

    Attributes:
        id: Its name, for `--only` and reports.
        question: The question.
        choice: What the package assumes, as a sentence.
        relies: Where that is written: a page of `docs/` and a section of it.
        expected: Answers that agree with the choice.
        copes: Answers that disagree, but with which the client still works. Each has what a user
            should know; mostly nothing, which is an empty text.
        advice: What a user should set or avoid after any other answer.
        of: Whose choice it is.
        requests: How many requests it sends at most.
        models: How many calls of a model it costs at most.
        tokens: How many tokens these take at most, about.
        ask: Sends the requests and returns the answer. Raises `Unanswered` if a reply does not
            answer the question.
    """

    id: str
    question: str
    choice: str
    relies: tuple[str, ...]
    expected: frozenset[str]
    copes: Mapping[str, str]
    advice: str
    of: Side
    requests: int
    models: int
    tokens: int
    ask: Ask = field(repr=False, compare=False)


@dataclass(frozen=True)
class Outcome:
    """The result of a probe.

    Attributes:
        probe: The probe.
        verdict: Whether the choice is confirmed or refuted, or whether there is no answer.
        found: The answer, or why there is none.
        detail: What the service sent.
        client_copes: Whether the client works with an answer that refutes the choice.
        advice: What a user should set or avoid because of such an answer, as sentences.
        requests: How many requests the probe sent.
    """

    probe: Probe
    verdict: Verdict
    found: str
    detail: str = ""
    client_copes: bool = False
    advice: str = ""
    requests: int = 0


def load_probes() -> dict[str, Probe]:
    """Read the table."""
    text = files(__package__).joinpath("probes.toml").read_text(encoding="utf-8")
    return {name: _probe(name, row) for name, row in tomllib.loads(text).items()}


def _probe(name: str, row: dict[str, Any]) -> Probe:
    turn = row.pop("turn", None)
    copes, note = row.get("copes", {}), row.pop("note", "")
    fields: dict[str, Any] = {
        "of": "both",
        "advice": "",
        "requests": 1,
        "models": 0,
        "tokens": _TOKENS * row.get("models", 0),
        **row,
        "relies": tuple(row["relies"]),
        "expected": frozenset(row["expected"]),
        "copes": copes if isinstance(copes, Mapping) else dict.fromkeys(copes, note),
    }
    ask = partial(ask_turn, **turn) if turn else getattr(questions, name.replace("-", "_"))
    return Probe(id=name, ask=ask, **fields)


def ask_turn(
    client: Client,
    *,
    program: str,
    read: str = "outcome",
    result: str | None = None,
    next_program: str | None = None,
    first_message: str | None = None,
    alone: bool = False,
    without: Sequence[str] = (),
    policy: str | None = None,
    header: Mapping[str, Any] | None = None,
    session: str | None = None,
    headers: Mapping[str, str | None] | None = None,
    **options: Any,
) -> Answer:
    """Run a program, in one request or two, and read the answer from the last reply.

    Args:
        client: Sends the requests.
        program: The program.
        read: The name of a function in `readers`.
        result: The result of the program's first call, for a second request.
        next_program: The program of a second turn, for a second request.
        first_message: Another first message in the second request's history.
        alone: Whether the second request has only the new messages.
        without: Fields that the last request's body does not have.
        policy: A policy in SQRT.
        header: Other fields of X-Policy.
        session: The session that the request names.
        headers: More headers of the last request.
        **options: Arguments of `ProgramTurn`.
    """
    fields = None if policy is None else sqrt(policy, **(header or {}))
    turn = ProgramTurn(client, program, policy=fields, **options)
    new: list[dict[str, Any]] = []
    if result is not None or next_program is not None:
        turn.begin()
        session = turn.reply.session
        new += [] if result is None else [turn.result(result)]
    if first_message is not None:
        turn.messages[0] = user_message(first_message)
    if next_program is not None:
        turn.body["user_provided_program"] = next_program
        new.append(user_message("Run this program as well."))
    for field_name in without:
        del turn.body[field_name]
    turn.messages += new
    reader: Callable[[ProbeReply], Answer] = getattr(readers, read)
    reply = turn.ask(
        session=session,
        headers=headers,
        messages=new if alone else None,
    )
    if reply.is_refused and reader not in readers.OF_REFUSALS:
        raise Unanswered(reply.unexpected("a turn"))
    return reader(reply)


def compare_answer(probe: Probe, answer: Answer) -> Outcome:
    """Compare an answer with what the package assumes."""
    if answer.found in probe.expected:
        return Outcome(probe, "confirmed", answer.found, answer.detail)
    if probe.of == "local server":
        copes, advice = True, "Nothing is needed: only the local server does otherwise."
    else:
        copes = answer.found in probe.copes
        advice = (probe.copes[answer.found] or _NOTHING) if copes else probe.advice
    return Outcome(probe, "refuted", answer.found, answer.detail, client_copes=copes, advice=advice)
