"""`policy simulate`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from langchain_sequrity.cli.policy.files import (
    FILE_TYPE,
    InvalidInput,
    as_json_option,
    json_type,
    only_one_stdin,
    policy_in,
    print_json,
    print_table,
    print_text,
    read_data,
    read_sources,
    read_tools,
    shown_name,
    tools_options,
)
from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt import (
    Decision,
    Engine,
    coverage,
    diff,
    simulate,
)
from langchain_sequrity.sqrt.coerce import engine_of
from langchain_sequrity.suggestions import suggest

_EXPECTED = (
    "allowed", "denied", "hard_allowed", "soft_allowed", "hard_denied", "soft_denied",
    "not_reached",
)  # fmt: skip
_DEFAULT = "allowed"


@click.command("simulate")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=FILE_TYPE)
@click.option(
    "--calls",
    "calls_file",
    metavar="CALLS",
    required=True,
    type=FILE_TYPE,
    help="The calls as JSON or YAML: a list of objects with `tool`, `arguments`, …, `expect`.",
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
    as_json: bool,
) -> None:
    """Try a policy on calls of one session. Several files are combined.

    The verdict of a call is compared with its `expect`: allowed (the default), denied,
    hard_allowed, soft_allowed, hard_denied, soft_denied or not_reached (the call needs the result
    of a denied call). Exit status 1 if a verdict differs.
    """
    only_one_stdin([*files, calls_file, tools, header, against])
    definitions = read_tools(tools, tools_from)
    fields = None if header is None else read_data(header)
    engine = _engine(files, header, fields, as_json=as_json)
    old = None if against is None else _engine((against,), header, fields, as_json=as_json)
    calls, expected = _read_calls(calls_file)
    with _usage_errors(calls_file):
        needs_coverage = cover or fail_under is not None
        covered = coverage(engine, calls, tools=definitions) if needs_coverage else None
        simulation = covered.simulation if covered else simulate(engine, calls, tools=definitions)
        difference = None if old is None else diff(old, engine, calls, tools=definitions)
    results = [
        (decision, expect, expect in {_verdict(decision), _verdict(decision).partition("_")[2]})
        for decision, expect in zip(simulation, expected, strict=True)
    ]
    unmet = [(decision, expect) for decision, expect, is_met in results if not is_met]
    percent = covered.share * 100 if covered else 100
    is_covered = fail_under is None or percent >= fail_under
    if as_json:
        print_json(
            {
                "ok": is_covered and not unmet,
                "unmet": len(unmet),
                "calls": [
                    {**decision.to_json(), "expected": expect, "met": is_met}
                    for decision, expect, is_met in results
                ],
                "coverage": covered and covered.to_json(),
                "difference": difference and difference.to_json(),
            }
        )
    else:
        for table in filter(None, (simulation, covered, difference)):
            print_table(table)
            click.echo()
        for decision, expect in unmet:
            print_text(
                f"Call {decision.number} (`{plain(decision.call.tool, limit=80)}`): expected "
                f"{_spaced(expect)}, got {_spaced(_verdict(decision))}"
            )
        print_text(f"{len(results) - len(unmet)} of {len(results)} calls as expected")
        if not is_covered:
            print_text(f"Coverage is {percent:.1f} %, less than {fail_under:g} %")
    raise SystemExit(int(bool(unmet) or not is_covered))


def _engine(paths: Sequence[str], header: str | None, fields: Any, *, as_json: bool) -> Engine:
    sources = read_sources(paths)
    if header is None:
        return engine_of(policy_in(sources, as_json=as_json))
    # Importing pydantic takes time, and only a header needs it.
    from langchain_sequrity.headers import PolicyHeader, coerce  # noqa: PLC0415 - see above

    if not isinstance(fields, dict) or "codes" in fields:
        got = "`codes`, which FILE replaces" if isinstance(fields, dict) else json_type(fields)
        msg = f"{shown_name(header)}: expected an object with other fields of X-Policy, got {got}."
        raise InvalidInput(msg)

    def with_settings(text: str) -> PolicyHeader:
        return coerce(PolicyHeader, {**fields, "codes": {"code": text}})

    with _usage_errors(header):
        return engine_of(policy_in(sources, as_json=as_json, with_settings=with_settings))


def _verdict(decision: Decision) -> str:
    return decision.verdict.final_verdict if decision.verdict else "not_reached"


def _spaced(verdict: str) -> str:
    return verdict.replace("_", " ")


# Calls


def _read_calls(path: str) -> tuple[list[Any], list[str]]:
    """The calls, and the expectation of each."""
    name, data = shown_name(path), read_data(path)
    if not isinstance(data, list) or not data:
        got = "an empty list" if data == [] else json_type(data)
        msg = (
            f"{name}: expected a list of calls, got {got}. "
            'Write `[{"tool": "send_mail", "arguments": {"to": "ana"}}, …]`.'
        )
        raise InvalidInput(msg)
    expected = [_expected(name, number, call) for number, call in enumerate(data, 1)]
    calls = [
        {key: call[key] for key in call if key != "expect"} if isinstance(call, dict) else call
        for call in data
    ]
    return calls, expected  # `simulate` rejects a call that is not a dict


@contextmanager
def _usage_errors(path: str) -> Iterator[None]:
    """Add the file's name to usage errors."""
    try:
        yield
    except UsageError as error:
        msg = f"{shown_name(path)}: {error}"
        raise InvalidInput(msg) from None


def _expected(name: str, number: int, call: Any) -> str:
    expectation = call.get("expect", _DEFAULT) if isinstance(call, dict) else _DEFAULT
    if isinstance(expectation, str) and expectation in _EXPECTED:
        return expectation
    advice = suggest(expectation, _EXPECTED) if isinstance(expectation, str) else ""
    quoted = plain(repr(expectation), limit=80)
    allowed = ", ".join(_EXPECTED)
    msg = f"{name}: Call {number}: `expect` must be one of {allowed}; got {quoted}. {advice}"
    raise InvalidInput(msg.rstrip())
