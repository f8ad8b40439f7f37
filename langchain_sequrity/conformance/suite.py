"""A run of the suite: which probes it asks, what they cost, and its report without secrets."""

import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

from langchain_sequrity._version import __version__
from langchain_sequrity.conformance.client import (
    Client,
    Target,
    Unanswered,
    Unavailable,
    Unusable,
)
from langchain_sequrity.conformance.probes import (
    Outcome,
    Probe,
    Verdict,
    compare_answer,
    load_probes,
)
from langchain_sequrity.display import plain
from langchain_sequrity.display.progress import progress
from langchain_sequrity.errors import UsageError
from langchain_sequrity.suggestions import suggest
from langchain_sequrity.transport import HttpClient, RetryPolicy
from langchain_sequrity.transport.redaction import Redactor

T = TypeVar("T")

_MAX_TEXT = 400
_CALL_ID = re.compile(r"\btc-?[0-9a-fA-F][0-9a-fA-F-]{10,}")
_UUID = re.compile(r"\b[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}\b")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
_URL = re.compile(r"\bhttps?://[^\s\"'<>)\]}]+")
# The name of an account may be a long word with digits, such as `org-8Hk2…`.
_NAME = re.compile(r"\b(?=[\w-]*\d)(?=[\w-]*[a-zA-Z])[\w-]{16,}\b")
_HEADINGS: dict[Verdict, str] = {
    "refuted": "Refuted", "no answer": "Without an answer", "confirmed": "Confirmed",
}  # fmt: skip
_EFFECTS: dict[Verdict, str] = {
    "refuted": "Refutes", "no answer": "Leaves open", "confirmed": "Confirms",
}  # fmt: skip


class AccountMasker:
    """Masks keys, ids, addresses and names of accounts in texts of a service.

    Args:
        target: The service, with the keys of the run.
        sessions: Session ids in its replies.
    """

    def __init__(self, target: Target, sessions: Iterable[str]) -> None:
        self._redactor = Redactor(target.secrets)
        self._sessions = sorted({session for session in sessions if session}, key=len, reverse=True)
        self._host = urlsplit(target.base_url).netloc

    def text(self, text: str) -> str:
        """Mask a text, and shorten it to one line of about 400 characters."""
        for session in self._sessions:
            text = text.replace(session, "<session>")
        text = self._redactor.text(text)
        text = _CALL_ID.sub("<call>", text)
        text = _UUID.sub("<id>", text)
        text = _MAIL.sub("<mail>", text)
        text = _URL.sub("<url>", text).replace(self._host, "<host>")
        return plain(_NAME.sub("<name>", text), limit=_MAX_TEXT)

    def outcome(self, outcome: Outcome) -> Outcome:
        """Mask the texts of a service in an outcome."""
        return replace(outcome, found=self.text(outcome.found), detail=self.text(outcome.detail))


@dataclass(frozen=True)
class Report:
    """The results of a run.

    Attributes:
        target: The service under test.
        outcomes: The result of each probe, with keys and ids masked.
        requests: How many requests were sent.
        title: A name for the service, for runs against several.
        stopped: Why the run ended early, in one or two sentences: the key is refused, the address
            is wrong, or the service is down. Nothing of that is a fact about its API.

    Example:
        ```python
        from langchain_sequrity.conformance import Target, run
        from langchain_sequrity.local import LocalServer

        with LocalServer() as server:
            report = run(Target(server.base_url), only=["program-runs"])
        assert [outcome.verdict for outcome in report.outcomes] == ["confirmed"]
        assert report.exit_code == 0
        ```
    """

    target: Target
    outcomes: tuple[Outcome, ...]
    requests: int
    title: str = ""
    stopped: str = ""

    def having(self, verdict: Verdict) -> list[Outcome]:
        """The outcomes with a verdict."""
        return [outcome for outcome in self.outcomes if outcome.verdict == verdict]

    @property
    def exit_code(self) -> int:
        """0 if a choice is confirmed, and the client works with every answer; otherwise 1."""
        copes = all(outcome.client_copes for outcome in self.having("refuted"))
        return 0 if copes and self.having("confirmed") else 1

    def to_markdown(self) -> str:
        """The report for people."""
        counts = ", ".join(f"{len(self.having(verdict))} {verdict}" for verdict in _HEADINGS)
        lines = [
            f"# Conformance of {_cell(self.title or self.target.shown)}",
            "",
            f"langchain-sequrity {__version__}; model {_cell(self.target.model)}.",
            f"Provider: {_cell(self.target.provider or 'by default')}. {self.requests} requests.",
            f"{len(self.outcomes)} probes: {counts}.",
            *([] if not self.stopped else ["", f"**The run ended early.** {_cell(self.stopped)}"]),
        ]
        for verdict, heading in _HEADINGS.items():
            if outcomes := self.having(verdict):
                lines += ["", f"## {heading}", "", *_table(outcomes, verdict)]
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, object]:
        """The report as JSON data."""
        return {
            "version": __version__,
            "service": self.title or self.target.shown,
            "model": self.target.model,
            "provider": self.target.provider,
            "requests": self.requests,
            "stopped": self.stopped,
            "probes": [_row(outcome) for outcome in self.outcomes],
        }


def _row(outcome: Outcome) -> dict[str, object]:
    return {
        "id": outcome.probe.id,
        "verdict": outcome.verdict,
        "answer": outcome.found,
        "detail": outcome.detail,
        "requests": outcome.requests,
        "question": outcome.probe.question,
        "choice": outcome.probe.choice,
        "of": outcome.probe.of,
        "client_copes": outcome.client_copes,
        "advice": outcome.advice,
        "relies": list(outcome.probe.relies),
        "expected": sorted(outcome.probe.expected),
    }


def _table(outcomes: Sequence[Outcome], verdict: Verdict) -> list[str]:
    rows = [_cells(outcome, verdict) for outcome in outcomes]
    return ["| Probe | Question | Answer | What it says |", "|---|---|---|---|", *rows]


def _cells(outcome: Outcome, verdict: Verdict) -> str:
    probe = outcome.probe
    answer = outcome.found if not outcome.detail else f"{outcome.found} — {outcome.detail}"
    owner = "client's and the local server" if probe.of == "both" else probe.of
    text = f"{_EFFECTS[verdict]} the {owner}'s choice: {probe.choice} ({'; '.join(probe.relies)})"
    if verdict == "refuted":
        copes = "The client works with this answer too. " * outcome.client_copes
        text += f". {copes}{outcome.advice}"
    question, text = _escape_cell(probe.question), _escape_cell(text)
    return f"| `{probe.id}` | {question} | {_cell(answer)} | {text} |"


def _cell(text: str) -> str:
    """A text of the service as a table cell, with its markup escaped."""
    line = plain(text, limit=2 * _MAX_TEXT)
    return re.sub(r"([\\|<>*_\[\]#`~])", r"\\\1", line)


def _escape_cell(text: str) -> str:
    """A text of the suite as a table cell. It may contain code."""
    return text.replace("|", "\\|")


def dumps(reports: Sequence[Report]) -> str:
    """Reports as a JSON text."""
    return json.dumps([report.to_json() for report in reports], indent=2) + "\n"


PROBES = load_probes()
"""All probes by their ids, in the order of the table."""

_MAX_UNUSABLE = 3  # probes in a row, after which the run looks whether the service answers at all
_RETRIES = RetryPolicy(max_retries=3)
_FIRST_LOOK = 3  # requests


class Cost(NamedTuple):
    """The most that probes may cost; a request that meets a rate limit or an outage is repeated.

    Attributes:
        requests: Requests.
        models: Calls of a model.
        tokens: Tokens that these take, about.
    """

    requests: int
    models: int
    tokens: int


def select_probes(only: Iterable[str] = ()) -> list[Probe]:
    """The probes with these ids, or all of them.

    Args:
        only: Ids. An id that ends in `*` stands for all ids with this prefix.

    Raises:
        UsageError: If there is no probe with such an id.
    """
    selected: dict[str, Probe] = {}
    for name in only:
        is_prefix = name.endswith("*")
        some = [
            probe
            for probe in PROBES.values()
            if (probe.id.startswith(name[:-1]) if is_prefix else probe.id == name)
        ]
        if not some:
            advice = suggest(name, list(PROBES)) or "`--list` shows all probes."
            msg = f"There is no probe `{plain(name, limit=80)}`. {advice}"
            raise UsageError(msg)
        selected.update((probe.id, probe) for probe in some)
    return [probe for probe in PROBES.values() if not selected or probe.id in selected]


def cost_of(probes: Sequence[Probe]) -> Cost:
    """The most that probes may cost."""
    return Cost(
        _FIRST_LOOK + sum(probe.requests for probe in probes),
        sum(probe.models for probe in probes),
        sum(probe.tokens for probe in probes),
    )


def run(
    target: Target,
    *,
    only: Iterable[str] = (),
    title: str = "",
    http_client: HttpClient | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> Report:
    """Ask a service the questions of all probes, or of some.

    Args:
        target: The service.
        only: Ids of probes; all of them by default.
        title: A name for the service in the report.
        http_client: As for `ChatSequrity`.
        on_outcome: Called with each outcome, masked as in the report.

    Returns:
        The report. A probe that fails has no answer. A first request looks whether the service
        answers at all; if not, the run ends. Rate limits and outages are waited out, three times
        and up to a minute each, and then the probe is asked anew.

    Raises:
        UsageError: If there is no probe with such an id.

    Example:
        ```python
        from langchain_sequrity.conformance import Target, run
        from langchain_sequrity.local import LocalServer

        with LocalServer() as server:
            report = run(Target(server.base_url), only=["denial-*"])
        assert not report.having("refuted")
        ```
    """
    probes = select_probes(only)
    client = Client(target, http_client=http_client)
    outcomes: list[Outcome] = []
    with progress("Asking probes", total=len(probes), unit="probes", waits=True) as asking:
        stopped, unusable = _why_unusable(client), 0
        for probe in probes:
            asking.update(len(outcomes), note=probe.id)
            outcome = Outcome(probe, "no answer", _NOT_ASKED)
            if not stopped:
                outcome, is_usable = _run_probe(probe, client)
                unusable = 0 if is_usable else unusable + 1
            if unusable == _MAX_UNUSABLE:
                stopped, unusable = _why_unusable(client), 0
            outcomes.append(AccountMasker(target, client.sessions).outcome(outcome))
            if on_outcome is not None:
                on_outcome(outcomes[-1])
    stopped = AccountMasker(target, client.sessions).text(stopped)
    return Report(target, tuple(outcomes), client.requests, title, stopped)


_NOT_ASKED = "The run ended before this probe."


def _why_unusable(client: Client) -> str:
    """Why the service answers nothing; empty if it answers."""
    try:
        return _patiently(client.first_look)
    except Unavailable as error:
        return str(error)


def _patiently(ask: Callable[[], T]) -> T:
    """Ask, and ask anew after a rate limit or an outage.

    Raises:
        Unavailable: If it lasts, or if the service asks to wait longer than a minute.
    """
    for retry in range(_RETRIES.max_retries):
        try:
            return ask()
        except Unavailable as error:
            wait = _RETRIES.wait(retry) if error.wait is None else error.wait
            if wait > _RETRIES.longest_retry_after:
                raise
            time.sleep(wait)
    return ask()


def _run_probe(probe: Probe, client: Client) -> tuple[Outcome, bool]:
    """The outcome of a probe, and whether the service was usable."""
    start = client.requests

    def ask() -> Outcome:
        nonlocal start
        start = client.requests  # a probe makes its own sessions, so it can begin anew
        return compare_answer(probe, probe.ask(client))

    is_usable = True
    try:
        outcome = _patiently(ask)
    except Unanswered as error:
        outcome = Outcome(probe, "no answer", str(error))
        is_usable = not isinstance(error, Unusable)
    except Exception as error:  # noqa: BLE001 - a reply may have any form
        msg = f"The probe cannot read the form of the reply ({type(error).__name__})."
        outcome = Outcome(probe, "no answer", msg)
    return replace(outcome, requests=client.requests - start), is_usable
