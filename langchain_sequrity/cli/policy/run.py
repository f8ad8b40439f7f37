"""`policy run`."""

import click

from langchain_sequrity.cli.policy.files import (
    FILE_TYPE,
    InvalidInput,
    as_json_option,
    json_type,
    only_one_stdin,
    policy_errors,
    print_json,
    print_table,
    read_data,
    read_header_fields,
    read_source,
    read_tools,
    shown_name,
    tools_options,
)
from langchain_sequrity.display.progress import progress
from langchain_sequrity.errors import StatusError, UsageError


@click.command("run")
@click.argument("program", metavar="PROGRAM", type=FILE_TYPE)
@click.option(
    "--policy", "policy_file", metavar="FILE", required=True, type=FILE_TYPE, help="The policy."
)
@click.option(
    "--results",
    metavar="RESULTS",
    type=FILE_TYPE,
    help="The results of the tools as JSON or YAML: a list of objects with `tool`, `result`, "
    "`result_labels`, …. Those of `parse_with_ai` are answers of the data model.",
)
@tools_options
@click.option(
    "--request",
    metavar="TEXT",
    help="The user's request: the program is also checked as one that a planner wrote for it.",
)
@click.option(
    "--header",
    metavar="HEADER",
    type=FILE_TYPE,
    help="The other fields of X-Policy as JSON or YAML, such as `presets` and `mode`.",
)
@as_json_option
def run_command(
    *,
    program: str,
    policy_file: str,
    results: str | None,
    tools: str | None,
    tools_from: str | None,
    request: str | None,
    header: str | None,
    as_json: bool,
) -> None:
    """Run a PROGRAM of a dual-LLM turn under a policy, and show verdicts and labels.

    No tool and no model is called: all results come from --results. Exit status 1 if a call is
    denied or the program fails.
    """
    from langchain_sequrity.dry_run import run_program  # noqa: PLC0415 - slow
    from langchain_sequrity.headers import PolicyHeader, coerce  # noqa: PLC0415 - slow

    only_one_stdin([program, policy_file, results, tools, header])
    source = read_source(policy_file)
    fields = read_header_fields(header) or {}
    canned = [] if results is None else read_data(results)
    if not isinstance(canned, list):
        msg = f"{shown_name(str(results))}: expected a list of results, got {json_type(canned)}."
        raise InvalidInput(msg)
    try:
        with policy_errors(source, as_json=as_json), progress("Running the program", waits=True):
            run = run_program(
                coerce(PolicyHeader, {**fields, "codes": {"code": source.text}}),
                read_source(program).text,
                tools=read_tools(tools, tools_from) or (),
                results=canned,
                request=request,
            )
    except (UsageError, StatusError) as error:
        raise InvalidInput(str(error)) from None
    if as_json:
        print_json({"ok": not run.error_code, **run.run_json()})
    else:
        print_table(run)
    raise SystemExit(int(bool(run.error_code)))
