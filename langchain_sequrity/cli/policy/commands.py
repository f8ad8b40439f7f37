"""`policy check`, `policy combine`, `policy format` and `policy explain`."""

import difflib
from typing import Any, get_args

import click

from langchain_sequrity.cli.policy.files import (
    FILE_TYPE,
    STDIN,
    InvalidInput,
    SourceFile,
    as_json_option,
    check_is_list_of_calls,
    finding_json,
    only_one_stdin,
    open_calls,
    policy_errors,
    policy_in,
    print_exact,
    print_finding,
    print_json,
    print_text,
    read_source,
    read_sources,
    read_tools,
    replace_file,
    shown_name,
    tools_options,
)
from langchain_sequrity.display.progress import tracked
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt import check, combine, explain
from langchain_sequrity.sqrt import format as format_policy
from langchain_sequrity.sqrt.lint import finding_of
from langchain_sequrity.sqrt.lint.ways import Way
from langchain_sequrity.sqrt.traces import observed_tools


@click.command("check")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=FILE_TYPE)
@tools_options
@click.option(
    "--mode",
    type=click.Choice(get_args(Way)),
    help="Also find rules without effect in this way of using the policy.",
)
@click.option(
    "--label",
    "labels",
    metavar="NAME",
    multiple=True,
    help="A tag or a producer that tools set or programs test; may be repeated.",
)
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.option(
    "--calls",
    "calls_file",
    metavar="CALLS",
    type=FILE_TYPE,
    help="The tools and arguments are those of these calls, as for `simulate`.",
)
@as_json_option
def check_command(
    *,
    files: tuple[str, ...],
    tools: str | None,
    tools_from: str | None,
    calls_file: str | None,
    mode: Way | None,
    labels: tuple[str, ...],
    strict: bool,
    as_json: bool,
) -> None:
    """Find mistakes in policies.

    If you give the tools, a rule for a missing tool or argument is an error, because it protects
    nothing. Exit status 1 if there are errors; with --strict also if there are warnings.
    """
    only_one_stdin([*files, tools, calls_file])
    definitions = read_tools(tools, tools_from)
    if calls_file is not None and definitions is not None:
        msg = "Tools are given twice. Give --calls, --tools or --tools-from."
        raise InvalidInput(msg)
    if calls_file is not None:
        definitions = _tools_in(calls_file)
    findings = [
        (source, finding)
        for source in tracked(read_sources(files), "Checking", unit="files", waits=True)
        for finding in check(source.text, definitions, mode=mode, labels=labels)
    ]
    errors = sum(finding.severity == "error" for _, finding in findings)
    warnings = len(findings) - errors
    failed = bool(errors or (strict and warnings))
    if as_json:
        print_json(
            {
                "ok": not failed,
                "files": list(files),
                "errors": errors,
                "warnings": warnings,
                "findings": [finding_json(source, finding) for source, finding in findings],
            }
        )
    else:
        for source, finding in findings:
            print_finding(source, finding)
        counts = f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"
        print_text(f"{_count(len(files), 'file')} checked: {counts}")
        if calls_file is not None and definitions is not None:
            print_text(
                f"{_count(len(definitions), 'tool')} in the calls of {shown_name(calls_file)}; "
                "what no call has counts as missing"
            )
    raise SystemExit(int(failed))


def _tools_in(path: str) -> list[Any]:
    """The tools in the calls of a file, with the arguments that they have there.

    Raises:
        InvalidInput: If a call is invalid. Its tools would be missing.
    """
    with open_calls(path) as (calls, faults):
        try:
            tools, read = observed_tools(
                calls,
                on_invalid=None if faults is None else faults.add,
            )
        except UsageError as error:
            msg = f"{shown_name(path)}: {error}"
            raise InvalidInput(msg) from None
    if faults is not None:
        faults.fail(read)
    if not tools:
        check_is_list_of_calls(path, [])
    return tools


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


@click.command("combine")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=FILE_TYPE)
@as_json_option
def combine_command(*, files: tuple[str, ...], as_json: bool) -> None:
    """Print policies as one text that denies whatever one of them denies.

    The exit status is 1 if they cannot be combined; the message names them and the reason.
    """
    only_one_stdin(files)
    combination = combine(policy_in(read_sources(files), as_json=as_json))
    if as_json:
        print_json({"files": list(files), "policy": combination.text})
    else:
        print_exact(combination.text.encode())


@click.command("explain")
@click.argument("file", metavar="FILE", type=FILE_TYPE)
@as_json_option
def explain_command(*, file: str, as_json: bool) -> None:
    """Explain a policy in English, rule by rule."""
    source = read_source(file)
    with policy_errors(source, as_json=as_json):
        explanation = explain(source.text)
    if as_json:
        print_json({"file": file, **explanation.to_json()})
    else:
        print_text(explanation.text())


@click.command("format")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=FILE_TYPE)
@click.option(
    "--check", "only_check", is_flag=True, help="Write nothing; status 1 if a file would change."
)
@click.option("--diff", "as_diff", is_flag=True, help="Write nothing; print what would change.")
def format_command(*, files: tuple[str, ...], only_check: bool, as_diff: bool) -> None:
    """Format policies in place; `-` is formatted to standard output.

    Comments and quoted texts are unchanged. An invalid policy is not changed, and the exit status
    is 1.
    """
    ok = [_format(source, only_check=only_check, as_diff=as_diff) for source in read_sources(files)]
    raise SystemExit(int(not all(ok)))


def _format(source: SourceFile, *, only_check: bool, as_diff: bool) -> bool:
    """Format one file. Returns whether it permits status 0."""
    try:
        formatted = format_policy(source.text)
    except PolicySyntaxError as error:
        print_finding(source, finding_of(error), err=True)
        return False
    except UsageError as error:
        print_text(f"{source.name}: error: {error}", err=True)
        return False
    changed = formatted != source.text
    if as_diff and changed:
        before, after = source.text.split("\n"), formatted.split("\n")
        names = (source.name, f"{source.name} (formatted)")
        print_text("\n".join(difflib.unified_diff(before, after, *names, lineterm="")))
    if only_check and changed:
        print_text(f"{source.name}: would be changed", err=True)
    if only_check or as_diff:
        return not (only_check and changed)
    if source.path == STDIN:
        print_exact(source.encoded(formatted))
    elif changed:
        replace_file(source.path, source.encoded(formatted))
        print_text(f"{source.name}: formatted", err=True)
    return True
