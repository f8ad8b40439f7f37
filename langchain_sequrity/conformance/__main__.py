"""The command `python -m langchain_sequrity.conformance`. It asks before it causes costs."""

import argparse
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from langchain_sequrity.conformance.client import DEFAULT_MODEL, Target
from langchain_sequrity.conformance.probes import Outcome, Probe
from langchain_sequrity.conformance.suite import Report, cost_of, dumps, run, select_probes
from langchain_sequrity.connection import LOOPBACK_KEY
from langchain_sequrity.display import plain
from langchain_sequrity.display.progress import hide
from langchain_sequrity.errors import SequrityError, UsageError
from langchain_sequrity.wire.routes import PROVIDERS

_PROVIDERS = [provider for provider in PROVIDERS["chat/completions"] if provider is not None]
_FIDELITIES: tuple[Literal["full", "documented"], ...] = ("full", "documented")
_USAGE = 2
_INTERRUPTED = 130
_ABOUT = """\
Asks a service the open questions about its API, and reports which choices of this package the
answers confirm or refute. Without --base-url it starts a local server and asks that. Keys come from
SEQURITY_API_KEY, SEQURITY_LLM_API_KEY and SEQURITY_SECOND_API_KEY; reports do not contain them.
Exit status: 0 if the client works with every answer, 1 if an answer asks something of you or
nothing was answered, 2 if the suite did not run.
"""


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run the command.

    Args:
        arguments: Its arguments; by default those of the process.
        prog: The name of the command in its help.

    Returns:
        0 if the client works with every answer, 1 if an answer asks something of the user or
        nothing was answered, 2 if the suite did not run.

    Raises:
        SystemExit: With 2 for an invalid argument, with 0 after `--help`.
    """
    options = _parser(prog).parse_args(arguments)
    try:
        probes = select_probes(options.only)
        if options.list:
            sys.stdout.write(_list_of(probes))
            return 0
        return _report(options, probes)
    except (SequrityError, OSError) as error:
        _print(f"Error: {plain(str(error), lines=True)}")
        return _USAGE
    except KeyboardInterrupt:
        _print("Stopped; there is no report.")
        return _INTERRUPTED


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog or "python -m langchain_sequrity.conformance", description=_ABOUT, allow_abbrev=False
    )
    add = parser.add_argument
    add("--base-url", metavar="URL", help="address of the service; default: a local server")
    add("--model", default=DEFAULT_MODEL, help=f"model for everything (default: {DEFAULT_MODEL})")
    add("--provider", choices=_PROVIDERS, help="provider of the model (default: the service's)")
    add(
        "--only",
        action="append",
        default=[],
        metavar="ID",
        help="a probe, or several as in `denial-*`",
    )
    add("--list", action="store_true", help="list the probes and their costs, and send nothing")
    add("--yes", action="store_true", help="do not ask before requests that cost something")
    add("--report", type=Path, metavar="FILE", help="write the Markdown report to this file")
    add("--json", type=Path, metavar="FILE", help="also write the report as JSON")
    add(
        "--fidelity",
        choices=[*_FIDELITIES, "both"],
        default="both",
        help="which fields the local server supports (default: both in turn)",
    )
    add(
        "--timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="time limit of each request (default: 120)",
    )
    add("--allow-http", action="store_true", help="allow plain http to another machine")
    return parser


def _report(options: argparse.Namespace, probes: Sequence[Probe]) -> int:
    target = None if options.base_url is None else _target(options, options.base_url)
    for path in (options.report, options.json):
        if path is not None:
            path.open("a").close()  # fail before the run if the file cannot be written
    if target is None:
        reports = list(_local_reports(options))
    else:
        _print(_cost_text(probes, target))
        if not (options.yes or target.is_local or _is_permitted()):
            _print("Nothing was sent.")
            return _USAGE
        reports = [run(target, only=options.only, title=target.shown, on_outcome=_show)]
    for report in reports:
        if report.stopped:
            _print(f"The run ended early. {plain(report.stopped)}")
    text = "\n".join(report.to_markdown() for report in reports)
    if options.report is None:
        sys.stdout.write(text)
    else:
        options.report.write_text(text, encoding="utf-8")
    if options.json is not None:
        options.json.write_text(dumps(reports), encoding="utf-8")
    return max(report.exit_code for report in reports)


def _target(options: argparse.Namespace, base_url: str) -> Target:
    """The service at an address, with keys from the environment."""
    return Target(
        base_url,
        api_key=os.environ.get("SEQURITY_API_KEY") or LOOPBACK_KEY,
        llm_api_key=os.environ.get("SEQURITY_LLM_API_KEY") or None,
        second_key=os.environ.get("SEQURITY_SECOND_API_KEY") or None,
        model=options.model,
        provider=options.provider,
        allow_http=options.allow_http,
        timeout=options.timeout,
    )


def _local_reports(options: argparse.Namespace) -> Iterator[Report]:
    """A report for each fidelity of the local server, with random keys."""
    try:
        from langchain_sequrity.local import LocalServer  # noqa: PLC0415 - it needs the extra
    except ImportError as error:
        msg = 'The local server needs the extra: pip install "langchain-sequrity[local]"'
        raise UsageError(msg) from error
    fidelities = _FIDELITIES if options.fidelity == "both" else (options.fidelity,)
    for fidelity in fidelities:
        first, second = (f"sq-{secrets.token_hex(16)}" for _ in range(2))
        _print(f"Asking a local server (fidelity {fidelity}).")
        with LocalServer(fidelity=fidelity, api_keys=[first, second]) as server:
            target = Target(
                server.base_url,
                api_key=first,
                second_key=second,
                model=options.model,
                provider=options.provider,
                timeout=options.timeout,
            )
            title = f"a local server (fidelity {fidelity})"
            yield run(target, only=options.only, title=title, on_outcome=_show)


def _cost_text(probes: Sequence[Probe], target: Target) -> str:
    cost = cost_of(probes)
    return (
        f"{len(probes)} probes send at most {cost.requests} requests to {target.base_url} and "
        f"cause at most {cost.models} calls of `{plain(target.model)}`, about {cost.tokens:,} "
        "tokens. What meets a rate limit or an outage is repeated."
    )


def _is_permitted() -> bool:
    """Ask for permission to send. Without an answer there is no permission."""
    sys.stderr.write("Go on? (y/N) ")
    sys.stderr.flush()
    try:
        return input().strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _list_of(probes: Sequence[Probe]) -> str:
    width = max(len(probe.id) for probe in probes)
    lines = [f"{p.id:<{width}}  {p.requests:>2} {p.models:>2}  {p.question}" for p in probes]
    cost = cost_of(probes)
    total = (
        f"{len(probes)} probes: at most {cost.requests} requests, {cost.models} calls of a model, "
        f"about {cost.tokens:,} tokens"
    )
    return "\n".join([f"{'id':<{width}}  rq ml  question", *lines, total, ""])


def _show(outcome: Outcome) -> None:
    _print(f"{outcome.verdict:<10} {outcome.probe.id}: {outcome.found}")


def _print(text: str) -> None:
    hide()
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
