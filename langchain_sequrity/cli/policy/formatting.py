"""`policy format`."""

import difflib
from collections.abc import Iterator

import click

from langchain_sequrity.cli.policy.files import (
    FILE_TYPE,
    STDIN,
    Source,
    mistake,
    print_exact,
    print_finding,
    print_text,
    read_sources,
    replace_file,
)
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt import format as format_policy


@click.command("format")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=FILE_TYPE)
@click.option("--check", "only_check", is_flag=True, help="Write nothing; status 1 for changes.")
@click.option("--diff", "as_diff", is_flag=True, help="Write nothing; print what would change.")
def command(*, files: tuple[str, ...], only_check: bool, as_diff: bool) -> None:
    """Lay policies out, in place; `-` goes to standard output.

    Comments and everything in quotes stay as they are. A file that is no policy is not touched, and
    makes the exit status 1.
    """
    ok = [_format(source, only_check=only_check, as_diff=as_diff) for source in read_sources(files)]
    raise SystemExit(int(not all(ok)))


def _format(source: Source, *, only_check: bool, as_diff: bool) -> bool:
    """Format one file; whether nothing speaks against status 0."""
    try:
        formatted = format_policy(source.text)
    except PolicySyntaxError as error:
        print_finding(source, mistake(error), err=True)
        return False
    except UsageError as error:
        print_text(f"{source.name}: error: {error}", err=True)
        return False
    changed = formatted != source.text
    if as_diff and changed:
        print_text("\n".join(_difference(source, formatted)))
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


def _difference(source: Source, formatted: str) -> Iterator[str]:
    before, after = source.text.split("\n"), formatted.split("\n")
    names = (source.name, f"{source.name} (formatted)")
    return difflib.unified_diff(before, after, *names, lineterm="")
