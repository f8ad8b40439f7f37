"""A run of the suite: which probes, what they cost at most, and what each of them found."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from langchain_sequrity.conformance import formats, policies, programs, sessions
from langchain_sequrity.conformance.client import Client, NoAnswer, Target, Unreachable
from langchain_sequrity.conformance.probe import PROBES, Outcome, Probe, judged
from langchain_sequrity.conformance.report import Report, Scrubber
from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.suggestions import nearest
from langchain_sequrity.transport import HttpClient

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
