"""What the commands print: findings with their places, tables, JSON, texts."""

import json
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from langchain_sequrity.cli.policy.files import Source
from langchain_sequrity.display import plain
from langchain_sequrity.display.tabled import Tabled
from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.sqrt import Finding, check
from langchain_sequrity.sqrt.faults import fault
from langchain_sequrity.sqrt.idle import Mode
from langchain_sequrity.sqrt.nodes import Position

as_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)
_COLOURS = {"error": "bold red", "warning": "yellow"}


def print_json(data: Any) -> None:
    """Print one document, in ASCII, so that nothing in it acts on a terminal."""
    text = json.dumps(data, indent=2)
    click.echo(text.replace("\x7f", "\\u007f"))


def print_text(text: str, *, err: bool = False) -> None:
    """Print lines that may hold text from anywhere."""
    click.echo(plain(text, limit=len(text), lines=True), err=err)


def print_exact(data: bytes) -> None:
    """Print a text that a program may read: as it is, unless a terminal would act on it."""
    if sys.stdout.isatty():
        print_text(data.decode().removesuffix("\n"))
        return
    click.echo(data, nl=False)


def print_table(shown: Tabled) -> None:
    """Print a table: in colour on a terminal, with plain characters elsewhere."""
    console = Console()
    if console.is_terminal:
        console.print(shown)
    else:
        print_text(shown.text())


# Findings


def findings_of(
    source: Source,
    tools: list[Any] | None = None,
    *,
    mode: Mode | None = None,
    labels: Collection[str] = (),
) -> list[Finding]:
    """What is wrong with a policy, as of `check`; the place of a finding is not told twice."""
    return [
        replace(one, message=one.message.removesuffix(f" (line {one.line}, column {one.column})"))
        for one in check(source.text, tools, mode=mode, labels=labels)
    ]


def finding_json(source: Source, finding: Finding) -> dict[str, Any]:
    """A finding as plain data."""
    return {"file": source.path, **asdict(finding)}


def print_finding(source: Source, finding: Finding, *, err: bool = False) -> None:
    """Print a finding: the place, what it is, the line with a caret, what to do."""
    pointed = fault(source.text, Position(finding.line, finding.column), "").source
    text = Text(f"{source.name}:{finding.line}:{finding.column}: ")
    text.append(finding.severity, style=_COLOURS[finding.severity])
    text.append(f": {plain(finding.message)}\n{pointed}")
    if finding.hint:
        text.append(f"\n  {plain(finding.hint)}")
    # One line stays one line, however narrow the terminal.
    Console(stderr=err).print(text, soft_wrap=True)


def mistake(error: PolicySyntaxError) -> Finding:
    """The finding that an error is about."""
    place = f" (line {error.line}, column {error.column})"
    message = str(error).removesuffix(f"\n{error.source}").removesuffix(place)
    return Finding("error", message, error.line, error.column)


@contextmanager
def mistakes_in(source: Source, *, as_json: bool) -> Iterator[None]:
    """End with status 1 if a policy cannot be read, and show where."""
    try:
        yield
    except PolicySyntaxError as error:
        finding = mistake(error)
        if as_json:
            print_json({"error": finding_json(source, finding)})
        else:
            print_finding(source, finding, err=True)
        raise SystemExit(1) from None
