"""`policy simulate`."""

from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

import click

from langchain_sequrity.cli.policy.files import (
    FILE_TYPE,
    CommandFailed,
    InvalidInput,
    as_json_option,
    check_is_list_of_calls,
    new_file,
    only_one_stdin,
    open_calls,
    policy_in,
    print_json,
    print_table,
    print_text,
    read_header_fields,
    read_sources,
    read_tools,
    shown_name,
    tools_options,
)
from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt import DecisionGroup, Engine
from langchain_sequrity.sqrt.audited_calls import UnjudgedTally
from langchain_sequrity.sqrt.coerce import engine_of
from langchain_sequrity.sqrt.comparison import ChangeTally, difference_of
from langchain_sequrity.sqrt.decisions import SimulationTally
from langchain_sequrity.sqrt.simulation import CountingEngine, Coverage, RuleCounts
from langchain_sequrity.sqrt.trial_runs import Tally, run_trials

_MOST_CALLS = 1_000
"""Calls that a report lists; of more calls it has the numbers."""


@click.command("simulate")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=FILE_TYPE)
@click.option(
    "--calls",
    "calls_file",
    metavar="CALLS",
    required=True,
    type=FILE_TYPE,
    help="The calls as JSON or YAML: a list of objects with `tool`, `arguments`, …, `expect`; or "
    "as JSON Lines, one object on each line; or an audit log of a server, or runs exported from "
    "LangSmith or OpenTelemetry.",
)
@tools_options
@click.option(
    "--cover", is_flag=True, help="Show which rules and label changes the calls activate."
)
@click.option(
    "--fail-under",
    metavar="N",
    type=click.FloatRange(0, 100),
    help="Status 1 if the calls activate less than N percent of them; implies --cover.",
)
@click.option(
    "--header",
    metavar="HEADER",
    type=FILE_TYPE,
    help="The other fields of X-Policy as JSON or YAML, such as `presets`, for both policies.",
)
@click.option(
    "--against",
    metavar="OLD",
    type=FILE_TYPE,
    help="Compare with the policy in the file OLD.",
)
@click.option(
    "--results",
    metavar="FILE",
    type=click.Path(),
    help="Write the result of each call as a line of JSON into a new FILE.",
)
@click.option(
    "--svg",
    metavar="FILE",
    type=click.Path(),
    help="Draw which data reached which call into a new FILE.",
)
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that try the calls, each some of the sessions.",
)
@as_json_option
def simulate_command(
    *,
    files: tuple[str, ...],
    calls_file: str,
    tools: str | None,
    tools_from: str | None,
    cover: bool,
    fail_under: float | None,
    header: str | None,
    against: str | None,
    results: str | None,
    svg: str | None,
    jobs: int,
    as_json: bool,
) -> None:
    """Try a policy on calls of one or several sessions. Several files are combined.

    The verdict of a call is compared with its `expect`: allowed (the default), denied,
    hard_allowed, soft_allowed, hard_denied, soft_denied or not_reached (the call needs the result
    of a denied call). Exit status 1 if a verdict differs.
    """
    only_one_stdin([*files, calls_file, tools, header, against])
    definitions = read_tools(tools, tools_from)
    fields = read_header_fields(header)
    engine = _engine(files, header, fields, as_json=as_json)
    old = None if against is None else _engine((against,), header, fields, as_json=as_json)

    decided, counts, unjudged = SimulationTally(_MOST_CALLS), RuleCounts(), UnjudgedTally()
    counting = CountingEngine(engine, counts) if cover or fail_under is not None else None
    engines: list[Engine] = [counting or engine]
    tallies: list[Tally] = [decided, counts, unjudged]
    changes = None
    if old is not None:
        changes = ChangeTally.of_engines(engine, old, _MOST_CALLS)
        engines.append(old)
        tallies.append(changes)
    with ExitStack() as stack:
        stack.enter_context(_failures(calls_file, results or svg))
        calls, faults = stack.enter_context(open_calls(calls_file))
        results_file = stack.enter_context(new_file(results))
        picture_file = stack.enter_context(new_file(svg))
        read = run_trials(
            calls,
            engines,
            tallies,
            tools=definitions,
            named_in=[engine],
            jobs=jobs,
            results=results_file,
            on_invalid=None if faults is None else faults.add,
        )
        _draw(decided, picture_file)
    if not read:
        check_is_list_of_calls(calls_file, [])

    simulation = decided.simulation()
    covered = None if counting is None else Coverage(tuple(counting.covered_rules()), simulation)
    difference = None if changes is None or old is None else difference_of(old, engine, changes)
    unmet = sum(group.calls for group in simulation.unmet)
    invalid = 0 if faults is None else faults.count
    percent = covered.share * 100 if covered else 100
    is_covered = fail_under is None or percent >= fail_under
    if as_json:
        print_json(
            {
                "ok": is_covered and not unmet and not invalid,
                "unmet": unmet,
                "calls": None if simulation.groups else [d.result_json() for d in simulation],
                "groups": [group.to_json() for group in simulation.groups] or None,
                "read": read,
                "invalid": invalid,
                "unjudged": dict(unjudged.reasons),
                "coverage": covered and covered.to_json(),
                "difference": difference and difference.to_json(),
            }
        )
    else:
        for table in (simulation, covered, difference):
            if table is not None:
                print_table(table)
                click.echo()
        for group in simulation.unmet:
            print_text(_unmet(group))
        for reason, number in unjudged.reasons.items():
            calls_text = "call" if number == 1 else "calls"
            print_text(f"{number} {calls_text} cannot be judged: {reason}")
        total = read - invalid - unjudged.reasons.total()
        print_text(f"{total - unmet} of {total} calls as expected")
        if not is_covered:
            print_text(f"Coverage is {percent:.1f} %, less than {fail_under:g} %")
    if faults is not None:
        faults.fail(read)
    raise SystemExit(int(bool(unmet) or not is_covered))


def _engine(paths: Sequence[str], header: str | None, fields: Any, *, as_json: bool) -> Engine:
    sources = read_sources(paths)
    if header is None:
        return engine_of(policy_in(sources, as_json=as_json))
    # Importing pydantic takes time, and only a header needs it.
    from langchain_sequrity.headers import PolicyHeader, coerce  # noqa: PLC0415 - see above

    def with_settings(text: str) -> PolicyHeader:
        return coerce(PolicyHeader, {**fields, "codes": {"code": text}})

    with _usage_errors(header):
        return engine_of(policy_in(sources, as_json=as_json, with_settings=with_settings))


def _draw(decided: SimulationTally, file: BinaryIO | None) -> None:
    if file is not None:
        file.write(decided.simulation().svg().encode())


def _unmet(group: DecisionGroup) -> str:
    decision = group.first
    others = f" and {group.calls - 1:,} more" if group.calls > 1 else ""
    return (
        f"Call {decision.number} (`{plain(decision.call.tool, limit=80)}`){others}: expected "
        f"{_spaced(decision.trial.expect)}, got {_spaced(decision.final_verdict)}"
    )


def _spaced(verdict: str) -> str:
    return verdict.replace("_", " ")


# Errors


@contextmanager
def _usage_errors(path: str) -> Iterator[None]:
    """Add the file's name to usage errors."""
    try:
        yield
    except UsageError as error:
        msg = f"{shown_name(path)}: {error}"
        raise InvalidInput(msg) from None


@contextmanager
def _failures(calls_file: str, written: str | None) -> Iterator[None]:
    """Report what may fail while calls are tried."""
    try:
        with _usage_errors(calls_file):
            yield
    except OSError as error:  # those of the calls are reported where they are read
        failed = f"{shown_name(written)}: cannot be written" if written else "--jobs: not started"
        msg = f"{failed}: {error.strerror or error}."
        raise CommandFailed(msg) from None
    except BrokenExecutor:
        msg = "A process that tries calls was ended, perhaps for lack of memory. Use fewer --jobs."
        raise CommandFailed(msg) from None
