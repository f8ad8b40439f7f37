"""`policy canaries`."""

import click

from langchain_sequrity.cli.policy.files import (
    FILE_TYPE,
    InvalidInput,
    as_json_option,
    only_one_stdin,
    open_calls,
    policy_errors,
    print_json,
    print_table,
    read_source,
    read_tools,
    shown_name,
    tools_options,
)
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt import find_canaries


@click.command("canaries")
@click.option(
    "--calls",
    "calls_file",
    metavar="CALLS",
    required=True,
    type=FILE_TYPE,
    help="Calls with their results, as for `simulate`: objects with `tool` and `result`, or runs "
    "exported from LangSmith or OpenTelemetry.",
)
@click.option(
    "--policy", "policy_file", metavar="FILE", required=True, type=FILE_TYPE, help="The policy."
)
@click.option(
    "--planted",
    metavar="[PLACE=]TEXT",
    multiple=True,
    required=True,
    help="A text that was planted, with a name for its place; may be repeated.",
)
@tools_options
@as_json_option
def canaries_command(
    *,
    calls_file: str,
    policy_file: str,
    planted: tuple[str, ...],
    tools: str | None,
    tools_from: str | None,
    as_json: bool,
) -> None:
    """Find planted texts in the results of tools, and what a policy does with them.

    Exit status 1 if a planted text has no labels where a tool returns it, or if no tool returns
    it.
    """
    only_one_stdin([calls_file, policy_file, tools])
    definitions = read_tools(tools, tools_from)
    source = read_source(policy_file)
    texts = {name: text or name for name, _, text in (entry.partition("=") for entry in planted)}
    with open_calls(calls_file) as (calls, faults):
        try:
            with policy_errors(source, as_json=as_json):
                report = find_canaries(
                    calls,
                    texts,
                    source.text,
                    tools=definitions,
                    on_invalid=None if faults is None else faults.add,
                )
        except UsageError as error:
            msg = f"{shown_name(calls_file)}: {error}"
            raise InvalidInput(msg) from None
    failed = bool(report.open or report.not_found)
    if as_json:
        print_json({"ok": not failed, **report.to_json()})
    else:
        print_table(report)
    if faults is not None:
        faults.fail()
    raise SystemExit(int(failed))
