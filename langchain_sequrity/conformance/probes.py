"""A probe as data, and how its answer is judged. The probes are in `probes.toml`.

A probe is either one turn of a program, written in the table, or a function in `programs`,
`sessions`, `policies` or `formats` that sends its own requests.
"""

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from typing import Any, Literal

from langchain_sequrity.conformance.client import (
    Client,
    ProbeReply,
    ProgramTurn,
    Unanswered,
    sqrt,
)
from langchain_sequrity.denials import Denial
from langchain_sequrity.labels import Labels
from langchain_sequrity.wire import denials

Verdict = Literal["confirmed", "refuted", "no answer"]
Side = Literal["client", "local server", "both"]


@dataclass(frozen=True)
class Answer:
    """What a service answered.

    Attributes:
        found: The answer in a few words that the probe defines.
        detail: What the service sent, for people.
    """

    found: str
    detail: str = ""


Ask = Callable[[Client], Answer]


@dataclass(frozen=True)
class Probe:
    """One question to a service.

    Attributes:
        id: Its name, for `--only` and reports.
        question: The question.
        choice: What the package assumes, as a sentence.
        relies: Where that is written: a page of `docs/` and a section of it.
        expected: Answers that agree with the choice.
        copes: Answers that disagree, but with which the client still works.
        of: Whose choice it is.
        requests: How many requests it sends at most.
        models: How many calls of a model it costs at most.
        ask: Sends the requests and returns the answer. Raises `Unanswered` if a reply does not
            answer the question.
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
    """The result of a probe.

    Attributes:
        probe: The probe.
        verdict: Whether the choice is confirmed or refuted, or whether there is no answer.
        found: The answer, or why there is none.
        detail: What the service sent.
        client_copes: Whether the client works with an answer that refutes the choice.
        requests: How many requests the probe sent.
    """

    probe: Probe
    verdict: Verdict
    found: str
    detail: str = ""
    client_copes: bool = False
    requests: int = 0


_ASK_FUNCTIONS: dict[str, Ask] = {}


def asks(name: str) -> Callable[[Ask], Ask]:
    """Register the function that asks the probe with this id."""

    def register(ask: Ask) -> Ask:
        _ASK_FUNCTIONS[name] = ask
        return ask

    return register


def load_probes() -> dict[str, Probe]:
    """Read the table. The modules with the functions must be imported before."""
    text = files(__package__).joinpath("probes.toml").read_text(encoding="utf-8")
    return {name: _probe(name, row) for name, row in tomllib.loads(text).items()}


def _probe(name: str, row: dict[str, Any]) -> Probe:
    turn = row.pop("turn", None)
    fields: dict[str, Any] = {
        "of": "both",
        "requests": 1,
        "models": 0,
        **row,
        "relies": tuple(row["relies"]),
        "expected": frozenset(row["expected"]),
        "copes": frozenset(row.get("copes", ())),
    }
    ask = _ASK_FUNCTIONS[name] if turn is None else partial(ask_turn, **turn)
    return Probe(id=name, ask=ask, **fields)


def ask_turn(
    client: Client,
    *,
    program: str,
    read: str = "outcome",
    result: str | None = None,
    policy: str | None = None,
    header: Mapping[str, Any] | None = None,
    session: str | None = None,
    headers: Mapping[str, str | None] | None = None,
    **options: Any,
) -> Answer:
    """Run one program and read the answer from its last reply.

    Args:
        client: Sends the requests.
        program: The program.
        read: A key of `READERS`.
        result: The result of the program's first call, if the turn goes on after it.
        policy: A policy in SQRT.
        header: Other fields of X-Policy.
        session: The session that the request names.
        headers: More headers of the request.
        **options: Arguments of `ProgramTurn`.
    """
    fields = None if policy is None else sqrt(policy, **(header or {}))
    turn = ProgramTurn(client, program, policy=fields, **options)
    if result is None:
        return READERS[read](turn.ask(session=session, headers=headers))
    turn.begin()
    needs_success = READERS[read] in (value, labels, labels_or_failure)
    return READERS[read](turn.answer(result, any_status=not needs_success))


# Readers: a reply ⇒ an answer


def outcome(reply: ProbeReply) -> Answer:
    """How the turn ended, with the text of an error."""
    if reply.outcome == "failure":
        return Answer("failure", f"{reply.envelope.error_code}: {reply.error_text}")
    return Answer(reply.outcome, reply.error_text)


def status(reply: ProbeReply) -> Answer:
    """The HTTP status, with the text of an error."""
    return Answer(f"status {reply.status}", reply.error_text)


def acceptance(reply: ProbeReply) -> Answer:
    """Whether the request was refused, with whatever status."""
    found = "refused" if reply.is_refused else reply.outcome
    return Answer(found, f"{reply.status} {reply.error_text}")


def value(reply: ProbeReply) -> Answer:
    """The final value of the program, as JSON."""
    return Answer(as_json(reply.value)) if reply.outcome == "success" else outcome(reply)


def labels(reply: ProbeReply) -> Answer:
    """The labels of the final value that the probe itself has set."""
    found = labels_of(reply)
    return Answer(probe_names(found), as_json(found.to_wire()))


def labels_or_failure(reply: ProbeReply) -> Answer:
    """As `labels`, but a failed turn is an answer too."""
    return outcome(reply) if reply.outcome == "failure" else labels(reply)


def verdict(reply: ProbeReply) -> Answer:
    """Whether the policy allowed the call."""
    if reply.outcome == "asks for a tool":
        return Answer("allowed")
    if reply.outcome == "failure":
        return Answer("denied" if denial_of(reply) else "failed otherwise", reply.error_text)
    return Answer(reply.outcome, reply.error_text)


READERS: dict[str, Callable[[ProbeReply], Answer]] = {
    one.__name__: one
    for one in (outcome, status, acceptance, value, labels, labels_or_failure, verdict)
}


def labels_of(reply: ProbeReply) -> Labels:
    """The labels of the final value; `Unanswered` if there are none."""
    if reply.is_refused or reply.outcome != "success" or reply.envelope.labels is None:
        raise Unanswered(reply.unexpected("a value with labels"))
    return reply.envelope.labels


def probe_names(labels: Labels) -> str:
    """Producers and tags that the probe has set; a service may add its own."""
    names = [*labels.producers, *labels.tags]
    ours = sorted(name for name in names if name.startswith(("probe-", "tag-")))
    return ", ".join(ours) or "none"


def denial_of(reply: ProbeReply) -> Denial | None:
    """The denial that the client reads from a failed turn."""
    found = reply.envelope
    return denials.read_failure(found.error_code, found.error_message, found.policy_check_history)


def as_json(value: Any) -> str:
    """A value as JSON with sorted keys."""
    return json.dumps(value, sort_keys=True)


def judge(probe: Probe, answer: Answer) -> Outcome:
    """Compare an answer with what the package assumes."""
    if answer.found in probe.expected:
        return Outcome(probe, "confirmed", answer.found, answer.detail)
    copes = answer.found in probe.copes or probe.of == "local server"
    return Outcome(probe, "refuted", answer.found, answer.detail, client_copes=copes)
