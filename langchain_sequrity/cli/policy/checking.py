"""`policy check`."""

from typing import get_args

import click

from langchain_sequrity.cli.policy.files import (
    FILE_TYPE,
    as_json_option,
    finding_json,
    findings_of,
    only_one_stdin,
    print_finding,
    print_json,
    print_text,
    read_sources,
    read_tools,
    tools_options,
)
from langchain_sequrity.sqrt.lint import Mode


@click.command("check")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=FILE_TYPE)
@tools_options
@click.option(
    "--mode",
    type=click.Choice(get_args(Mode)),
    help="single-llm: also look for rules that need labels of arguments, which are not there.",
)
@click.option(
    "--label",
    "labels",
    metavar="NAME",
    multiple=True,
    help="A tag or a producer that tools bring along; may be given several times.",
)
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@as_json_option
def command(
    *,
    files: tuple[str, ...],
    tools: str | None,
    tools_from: str | None,
    mode: Mode | None,
    labels: tuple[str, ...],
    strict: bool,
    as_json: bool,
) -> None:
    """Look for mistakes in policies.

    With the tools that a policy is for, rules for tools and arguments that do not exist are errors:
    they protect nothing. Exit status 1 if there are errors, or with --strict warnings.
    """
    only_one_stdin([*files, tools])
    known = read_tools(tools, tools_from)
    found = [
        (source, one)
        for source in read_sources(files)
        for one in findings_of(source, known, mode=mode, labels=labels)
    ]
    errors = sum(one.severity == "error" for _, one in found)
    warnings = len(found) - errors
    failed = bool(errors or (strict and warnings))
    if as_json:
        print_json(
            {
                "ok": not failed,
                "files": list(files),
                "errors": errors,
                "warnings": warnings,
                "findings": [finding_json(source, one) for source, one in found],
            }
        )
    else:
        for source, one in found:
            print_finding(source, one)
        counts = f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"
        print_text(f"{_count(len(files), 'file')} checked: {counts}")
    raise SystemExit(int(failed))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
