"""`policy simulate`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from langchain_sequrity.cli.policy.files import (
    FILE_TYPE,
    InvalidInput,
    as_json_option,
    kind_of,
    only_one_stdin,
    policy_errors,
    print_json,
    print_table,
    print_text,
    read_data,
    read_source,
    read_tools,
    shown_name,
    tools_options,
)
from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt import (
    Coverage,
    Decision,
    Difference,
    Engine,
    Simulation,
    compile_policy,
    coverage,
    diff,
    simulate,
)
from langchain_sequrity.suggestions import nearest

_EXPECTED = (
    "allowed", "denied", "hard_allowed", "soft_allowed", "hard_denied", "soft_denied",
    "not_reached",
)  # fmt: skip
_DEFAULT = "allowed"


@click.command("simulate")
@click.argument("file", metavar="FILE", type=FILE_TYPE)
@click.option(
    "--calls",
    "calls_file",
    metavar="CALLS",
    required=True,
    type=FILE_TYPE,
    help="The calls as JSON or YAML: a list of objects with `tool`, `arguments`, …, `expect`.",
)
@tools_options
@click.option("--cover", is_flag=True, help="Show which rules the calls exercise.")
@click.option(
    "--fail-under",
    metavar="N",
    type=click.FloatRange(0, 100),
    help="Status 1 if the calls exercise less than N percent of the rules; implies --cover.",
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
    help="Compare with policy OLD.",
)
@as_json_option
def simulate_command(
    *,
    file: str,
    calls_file: str,
    tools: str | None,
    tools_from: str | None,
    cover: bool,
    fail_under: float | None,
    header: str | None,
    against: str | None,
    as_json: bool,
) -> None:
    """Simulate a policy on calls of one session, and compare the verdicts with expectations.

    A call may have `expect`: allowed, denied, hard_allowed, soft_allowed, hard_denied, soft_denied
    or not_reached (it needs the result of a denied call). The default is allowed. Exit status 1 if
    a verdict differs from its expectation.
    """
    only_one_stdin([file, calls_file, tools, header, against])
    known = read_tools(tools, tools_from)
    fields = None if header is None else read_data(header)
    engine = _engine(file, header, fields, as_json=as_json)
    old = None if against is None else _engine(against, header, fields, as_json=as_json)
    calls, expected = _read_calls(calls_file)
    with _usage_errors(calls_file):
        covered = coverage(engine, calls, tools=known) if cover or fail_under is not None else None
        result = _SimulatedCall(
            covered.simulation if covered else simulate(engine, calls, tools=known),
            expected,
            covered,
            fail_under,
            None if old is None else diff(old, engine, calls, tools=known),
        )
    if as_json:
        print_json(result.to_json())
    else:
        result.show()
    raise SystemExit(int(not result.ok))


def _engine(path: str, header: str | None, fields: Any, *, as_json: bool) -> Engine:
    source = read_source(path)
    if header is None:
        with policy_errors(source, as_json=as_json):
            return compile_policy(source.text)
    # Importing pydantic takes time, and only a header needs it.
    from langchain_sequrity.headers import PolicyHeader, coerce  # noqa: PLC0415 - see above

    if not isinstance(fields, dict) or "codes" in fields:
        got = "`codes`, which FILE replaces" if isinstance(fields, dict) else kind_of(fields)
        msg = f"{shown_name(header)}: expected an object with other fields of X-Policy, got {got}."
        raise InvalidInput(msg)
    with _usage_errors(header):
        policy = coerce(PolicyHeader, {**fields, "codes": {"code": source.text}})
    with policy_errors(source, as_json=as_json):
        try:
            return policy.compile()
        except PolicySyntaxError:
            raise
        except UsageError as error:  # rules that exist only on the service: `auto_gen`
            msg = f"{shown_name(header)}: {error}"
            raise InvalidInput(msg) from error


@dataclass(frozen=True, slots=True)
class _SimulatedCall:
    """The result of a simulation."""

    simulation: Simulation
    expected: Sequence[str]
    coverage: Coverage | None
    fail_under: float | None
    difference: Difference | None

    @property
    def _unmet(self) -> list[tuple[Decision, str]]:
        pairs = zip(self.simulation, self.expected, strict=True)
        return [(one, expected) for one, expected in pairs if not _meets(one, expected)]

    @property
    def _is_covered(self) -> bool:
        if self.coverage is None or self.fail_under is None:
            return True
        return self.coverage.share * 100 >= self.fail_under

    @property
    def ok(self) -> bool:
        """Whether all verdicts and the coverage are as expected."""
        return self._is_covered and not self._unmet

    def to_json(self) -> dict[str, Any]:
        """The result as plain data."""
        calls = [
            {**one.to_json(), "expected": expected, "met": _meets(one, expected)}
            for one, expected in zip(self.simulation, self.expected, strict=True)
        ]
        return {
            "ok": self.ok,
            "unmet": len(self._unmet),
            "calls": calls,
            "coverage": self.coverage and self.coverage.to_json(),
            "difference": self.difference and self.difference.to_json(),
        }

    def show(self) -> None:
        """Print the result."""
        print_table(self.simulation)
        for table in (self.coverage, self.difference):
            if table is not None:
                click.echo()
                print_table(table)
        click.echo()
        unmet = self._unmet
        for one, expected in unmet:
            tool = plain(one.call.tool, limit=80)
            print_text(
                f"Call {one.number} (`{tool}`): expected {_words(expected)}, "
                f"got {_words(_verdict(one))}"
            )
        print_text(f"{len(self.expected) - len(unmet)} of {len(self.expected)} calls as expected")
        if self.coverage is not None and not self._is_covered:
            share = self.coverage.share * 100
            print_text(f"Coverage is {share:.1f} %, less than {self.fail_under:g} %")


def _verdict(decision: Decision) -> str:
    return decision.verdict.final_verdict if decision.verdict else "not_reached"


def _words(verdict: str) -> str:
    return verdict.replace("_", " ")


def _meets(decision: Decision, expected: str) -> bool:
    verdict = _verdict(decision)
    if decision.verdict is None:
        return expected == verdict
    return expected in {verdict, verdict.partition("_")[2]}


# Calls


def _read_calls(path: str) -> tuple[list[Any], list[str]]:
    """The calls, and the expectation of each."""
    name, given = shown_name(path), read_data(path)
    if not isinstance(given, list) or not given:
        found = "an empty list" if given == [] else kind_of(given)
        msg = (
            f"{name}: expected a list of calls, got {found}. "
            'Write `[{"tool": "send_mail", "arguments": {"to": "ana"}}, …]`.'
        )
        raise InvalidInput(msg)
    expected = [_expected(name, number, one) for number, one in enumerate(given, 1)]
    return [_without_expect(one) for one in given], expected


def _without_expect(call: Any) -> Any:
    if not isinstance(call, dict):
        return call  # `simulate` rejects it
    return {key: value for key, value in call.items() if key != "expect"}


@contextmanager
def _usage_errors(path: str) -> Iterator[None]:
    """Add the file's name to usage errors."""
    try:
        yield
    except UsageError as error:
        msg = f"{shown_name(path)}: {error}"
        raise InvalidInput(msg) from None


def _expected(name: str, number: int, call: Any) -> str:
    found = call.get("expect", _DEFAULT) if isinstance(call, dict) else _DEFAULT
    if isinstance(found, str) and found in _EXPECTED:
        return found
    advice = nearest(found, _EXPECTED) if isinstance(found, str) else ""
    shown = plain(repr(found), limit=80)
    allowed = ", ".join(_EXPECTED)
    msg = f"{name}: Call {number}: `expect` must be one of {allowed}; got {shown}. {advice}"
    raise InvalidInput(msg.rstrip())
