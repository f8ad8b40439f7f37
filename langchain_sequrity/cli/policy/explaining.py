"""`policy explain`."""

import click

from langchain_sequrity.cli.policy.files import (
    FILE_TYPE,
    as_json_option,
    mistakes_in,
    print_json,
    print_text,
    read_source,
)
from langchain_sequrity.sqrt import explain


@click.command("explain")
@click.argument("file", metavar="FILE", type=FILE_TYPE)
@as_json_option
def command(*, file: str, as_json: bool) -> None:
    """Say in English what a policy says, rule by rule."""
    source = read_source(file)
    with mistakes_in(source, as_json=as_json):
        explanation = explain(source.text)
    if as_json:
        print_json({"file": file, **explanation.to_json()})
    else:
        print_text(explanation.text())
