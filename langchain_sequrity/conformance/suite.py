"""A run of the suite: which probes, what they cost at most, and what each of them found.

What a run of the suite found: as data, as Markdown, as JSON, and free of keys and accounts.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple
from urllib.parse import urlsplit

from langchain_sequrity._version import __version__
from langchain_sequrity.conformance import formats, policies, programs, sessions
from langchain_sequrity.conformance.client import (
    PROBES,
    Client,
    NoAnswer,
    Outcome,
    Probe,
    Target,
    Unreachable,
    Verdict,
    judged,
)
from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.suggestions import nearest
from langchain_sequrity.transport import HttpClient
from langchain_sequrity.transport.redaction import Redactor
from langchain_sequrity.wire.routes import DEFAULT_BASE_URL

_LONGEST = 400
_CALL_ID = re.compile(r"\btc-?[0-9a-fA-F][0-9a-fA-F-]{10,}")
_UUID = re.compile(r"\b[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}\b")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
_URL = re.compile(r"\bhttps?://[^\s\"'<>)\]}]+")
# What an account is called by: a long word with digits in it, such as `org-8Hk2…`.
_NAME = re.compile(r"\b(?=[\w-]*\d)(?=[\w-]*[a-zA-Z])[\w-]{16,}\b")
_HEADINGS: dict[Verdict, str] = {
    "refuted": "Refuted", "no answer": "Without an answer", "confirmed": "Confirmed",
}  # fmt: skip


class Scrubber:
    """Takes keys, ids, addresses and names of accounts out of what a service said.

    Args:
        target: The service, with the keys that were used.
        sessions: Session ids that were seen.
    """

    def __init__(self, target: Target, sessions: Iterable[str]) -> None:
        self._redactor = Redactor(target.secrets)
        self._sessions = sorted({one for one in sessions if one}, key=len, reverse=True)
        self._host = urlsplit(target.base_url).netloc
        self._is_named = target.base_url == DEFAULT_BASE_URL

    def text(self, text: str) -> str:
        """Clean a text, and bring it into one line of at most 400 characters or so."""
        for session in self._sessions:
            text = text.replace(session, "<session>")
        text = self._redactor.text(text)
        text = _CALL_ID.sub("<call>", text)
        text = _UUID.sub("<id>", text)
        text = _MAIL.sub("<mail>", text)
        text = _URL.sub(lambda found: self._url(found[0]), text)
        if not self._is_named:
            text = text.replace(self._host, "<host>")
        return plain(_NAME.sub("<name>", text), limit=_LONGEST)

    def _url(self, url: str) -> str:
        is_known = url == DEFAULT_BASE_URL or url.startswith(f"{DEFAULT_BASE_URL}/")
        return url if is_known else "<url>"


@dataclass(frozen=True)
class Report:
    """What a run found.

    Attributes:
        target: The service that was asked.
        outcomes: What became of each probe, cleaned of keys and ids.
        requests: How many requests were sent.
        title: What the service is called, for runs against several.

    Example:
        ```python
        from langchain_sequrity.conformance import Target, run
        from langchain_sequrity.local import LocalServer

        with LocalServer() as server:
            report = run(Target(server.base_url), only=["program-runs"])
        assert [one.verdict for one in report.outcomes] == ["confirmed"]
        assert report.exit_code == 0
        ```
    """

    target: Target
    outcomes: tuple[Outcome, ...]
    requests: int
    title: str = ""

    def having(self, verdict: Verdict) -> list[Outcome]:
        """The outcomes with a verdict."""
        return [one for one in self.outcomes if one.verdict == verdict]

    @property
    def exit_code(self) -> int:
        """0 if something was answered and nothing refuted, else 1."""
        is_good = bool(self.having("confirmed")) and not self.having("refuted")
        return 0 if is_good else 1

    def to_markdown(self) -> str:
        """The report for people, and for an issue of the package."""
        counts = ", ".join(f"{len(self.having(one))} {one}" for one in _HEADINGS)
        lines = [
            f"# Conformance of {_cell(self.title or self.target.shown)}",
            "",
            f"langchain-sequrity {__version__}; model {_cell(self.target.model)}.",
            f"Provider: {_cell(self.target.provider or 'by default')}. {self.requests} requests.",
            f"{len(self.outcomes)} probes: {counts}.",
        ]
        for verdict, heading in _HEADINGS.items():
            if found := self.having(verdict):
                lines += ["", f"## {heading}", "", *_table(found, verdict)]
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, object]:
        """The report as JSON data."""
        return {
            "version": __version__,
            "service": self.title or self.target.shown,
            "model": self.target.model,
            "provider": self.target.provider,
            "requests": self.requests,
            "probes": [_row(one) for one in self.outcomes],
        }


def _row(one: Outcome) -> dict[str, object]:
    return {
        "id": one.probe.id,
        "verdict": one.verdict,
        "answer": one.found,
        "detail": one.detail,
        "requests": one.requests,
        "question": one.probe.question,
        "choice": one.probe.choice,
        "of": one.probe.of,
        "client_copes": one.client_copes,
        "relies": list(one.probe.relies),
        "expected": sorted(one.probe.expected),
    }


def _table(found: Sequence[Outcome], verdict: Verdict) -> list[str]:
    rows = [_cells(one, verdict) for one in found]
    return ["| Probe | Question | Answer | What it says |", "|---|---|---|---|", *rows]


def _cells(one: Outcome, verdict: Verdict) -> str:
    probe = one.probe
    answer = one.found if not one.detail else f"{one.found} — {one.detail}"
    whose = {"both": "the client's and the local server's choice"}.get(
        probe.of, f"the {probe.of}'s choice"
    )
    said = f"{whose}: {probe.choice} ({'; '.join(probe.relies)})"
    if verdict == "refuted":
        after = "the client copes" if one.client_copes else "the client relies on it"
        said = f"Refutes {said} Here {after}."
    elif verdict == "confirmed":
        said = f"Confirms {said}"
    else:
        said = f"Leaves open {said}"
    return f"| `{probe.id}` | {_own(probe.question)} | {_cell(answer)} | {_own(said)} |"


def _cell(text: str) -> str:
    """A text as a cell of a table, in which nothing of it is markup."""
    shown = plain(text, limit=2 * _LONGEST)
    return re.sub(r"([\\|<>*_\[\]#`~])", r"\\\1", shown)


def _own(text: str) -> str:
    """A text of the suite's own, which may have code in it, as a cell."""
    return text.replace("|", "\\|")


def dumps(reports: Sequence[Report]) -> str:
    """Reports as a JSON text."""
    return json.dumps([one.to_json() for one in reports], indent=2) + "\n"


__all__ = ["Cost", "chosen", "cost_of", "run"]

_PLACES = {module.__name__: n for n, module in enumerate((programs, sessions, policies, formats))}
_MOST_UNREACHED = 3


class Cost(NamedTuple):
    """What probes cost at most."""

    requests: int
    models: int


def chosen(only: Iterable[str] = ()) -> list[Probe]:
    """The probes with these ids, or all of them.

    Args:
        only: Ids; one that ends in `*` stands for all that begin so.

    Raises:
        UsageError: If there is no such probe.
    """
    found: dict[str, Probe] = {}
    for name in only:
        is_start = name.endswith("*")
        some = [
            one for one in PROBES.values()
            if (one.id.startswith(name[:-1]) if is_start else one.id == name)
        ]  # fmt: skip
        if not some:
            advice = nearest(name, list(PROBES))
            msg = f"There is no probe `{plain(name, limit=80)}`. {advice}".rstrip()
            raise UsageError(msg)
        found.update((one.id, one) for one in some)
    asked = sorted(PROBES.values(), key=lambda one: _PLACES[one.ask.__module__])
    return [one for one in asked if not found or one.id in found]


def cost_of(probes: Sequence[Probe]) -> Cost:
    """What probes cost at most."""
    return Cost(sum(one.requests for one in probes), sum(one.models for one in probes))


def run(
    target: Target,
    *,
    only: Iterable[str] = (),
    title: str = "",
    http_client: HttpClient | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> Report:
    """Ask a service all questions, or some of them.

    Args:
        target: The service.
        only: Ids of probes; all of them by default.
        title: What the service is called in the report.
        http_client: As of `ChatSequrity`.
        on_outcome: Told of each outcome when it is there, cleaned as in the report.

    Returns:
        The report. A probe that fails, for whatever reason, is one without an answer.

    Raises:
        UsageError: If there is no such probe.

    Example:
        ```python
        from langchain_sequrity.conformance import Target, run
        from langchain_sequrity.local import LocalServer

        with LocalServer() as server:
            report = run(Target(server.base_url), only=["denial-*"])
        assert not report.having("refuted")
        ```
    """
    client = Client(target, http_client=http_client)
    outcomes: list[Outcome] = []
    unreached = 0
    for probe in chosen(only):
        if unreached < _MOST_UNREACHED:
            before = client.requests
            outcome, is_reached = _asked(probe, client)
            outcome = replace(outcome, requests=client.requests - before)
            unreached = 0 if is_reached else unreached + 1
        else:
            outcome = Outcome(probe, "no answer", "The service was not reached before.")
        scrubber = Scrubber(target, client.sessions)
        outcomes.append(
            replace(
                outcome, found=scrubber.text(outcome.found), detail=scrubber.text(outcome.detail)
            )
        )
        if on_outcome is not None:
            on_outcome(outcomes[-1])
    return Report(target, tuple(outcomes), client.requests, title)


def _asked(probe: Probe, client: Client) -> tuple[Outcome, bool]:
    """The outcome of a probe, and whether the service was reached."""
    try:
        return judged(probe, probe.ask(client)), True
    except Unreachable as error:
        return Outcome(probe, "no answer", str(error)), False
    except NoAnswer as error:
        return Outcome(probe, "no answer", str(error)), True
    except Exception as error:  # noqa: BLE001 - a reply of a form that nobody thought of
        msg = f"The reply has a form that the probe cannot read ({type(error).__name__})."
        return Outcome(probe, "no answer", msg), True
