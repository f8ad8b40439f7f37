"""Files of the user: read with errors that name the place, written whole or not at all.

What the commands print: findings with their places, tables, JSON, texts.

The tools that a policy is for, from a file or from the user's own code.
"""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NoReturn, TypeVar

import click
import yaml
from rich.console import Console
from rich.text import Text

from langchain_sequrity.display import plain
from langchain_sequrity.display.tables import Tabled
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt import Finding, check
from langchain_sequrity.sqrt.diagnostics import fault
from langchain_sequrity.sqrt.lint import Mode
from langchain_sequrity.sqrt.nodes import Position
from langchain_sequrity.wire.tools import name_of

STDIN = "-"
FILE_TYPE = click.Path(allow_dash=True, readable=False)
"""A path for `read_source`, which says itself what is wrong with it."""

_BOM = "\ufeff"
_NAME = 400


class Refused(click.ClickException):
    """A command or an input file that cannot be used, told in one line."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        """Build the error; the message may hold text from anywhere."""
        super().__init__(plain(message))


class Failed(click.ClickException):
    """What was asked for could not be done."""

    def __init__(self, message: str) -> None:
        """Build the error; the message may hold text from anywhere, and lines."""
        super().__init__(plain(message, lines=True))


@dataclass(frozen=True, slots=True)
class Source:
    r"""A text file as it was read.

    Attributes:
        path: Its path as it was given, or `-`.
        text: Its text, with `\n` at the ends of lines if all of them were alike.
        newline: How its lines end.
        bom: The mark at its start, or an empty text.
    """

    path: str
    text: str
    newline: str = "\n"
    bom: str = ""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return shown_name(self.path)

    def encoded(self, text: str) -> bytes:
        """Another text the way that this one was written."""
        return (self.bom + text.replace("\n", self.newline)).encode()


def kind_of(value: Any) -> str:
    """What plain data is, in the words of JSON; anything else by its type."""
    kinds = {dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number"}
    if value is None or isinstance(value, bool):
        return f"`{json.dumps(value)}`"
    return kinds.get(type(value)) or f"a value of type `{type(value).__name__}`"


def shown_name(path: str) -> str:
    """A path in messages."""
    return "<stdin>" if path == STDIN else plain(path, limit=_NAME)


def read_sources(paths: Sequence[str]) -> list[Source]:
    """Read several files, before anything is done with one of them."""
    only_one_stdin(paths)
    return [read_source(path) for path in paths]


def only_one_stdin(paths: Sequence[str | None]) -> None:
    """Refuse to read standard input twice."""
    if paths.count(STDIN) > 1:
        msg = "`-` is given more than once, and standard input can be read only once. Give a file."
        raise Refused(msg)


def read_source(path: str) -> Source:
    """Read a text.

    Raises:
        Refused: If it is not there, or not UTF-8.
    """
    data = _read(path)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        msg = (
            f"{shown_name(path)}:{line}: expected UTF-8, found the byte 0x{data[error.start]:02x} "
            f"at offset {error.start}. Save the file as UTF-8."
        )
        raise Refused(msg) from None
    bom = _BOM if text.startswith(_BOM) else ""
    text = text.removeprefix(bom)
    ends = text.count("\n")
    if ends and text.count("\r\n") == ends:
        return Source(path, text.replace("\r\n", "\n"), "\r\n", bom)
    return Source(path, text, bom=bom)


def _read(path: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        why = getattr(error, "strerror", None) or str(error)
        msg = f"{shown_name(path)}: cannot be read: {why}."
        raise Refused(msg) from None


def read_data(path: str) -> Any:
    """Read plain data: JSON from a name that ends in `.json`, otherwise YAML, which JSON is too.

    Raises:
        Refused: If it is neither, with the place.
    """
    text = read_source(path).text
    try:
        return json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        at, kind, why = f":{error.lineno}:{error.colno}", "JSON", error.msg
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        kind, why = "YAML", error.problem or str(error)
    except yaml.YAMLError as error:
        at, kind, why = "", "YAML", " ".join(str(error).split())
    except (ValueError, RecursionError) as error:  # a number or a depth that Python does not take
        at, kind, why = "", "data", str(error)
    msg = f"{shown_name(path)}{at}: not valid {kind}: {why}."
    raise Refused(msg)


def replace_file(path: str, data: bytes) -> None:
    """Put new content into a file at once, with the mode it has; a link stays a link.

    Raises:
        Failed: If that is not possible. The file is as it was then.
    """
    target = Path(path).resolve()
    try:
        if not target.is_file():
            _fail_to_write(path, "it is no regular file")
        if not os.access(target, os.W_OK):
            # A rename would go through: it asks the folder alone.
            _fail_to_write(path, "it is read-only")
        with NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name[:80]}.", delete=False
        ) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                file.close()
                shutil.copymode(target, file.name)
                Path(file.name).replace(target)
            except BaseException:
                file.close()
                with contextlib.suppress(OSError):
                    Path(file.name).unlink()
                raise
    except OSError as error:
        _fail_to_write(path, error.strerror or str(error))


def create_file(path: str, data: bytes) -> None:
    """Write a file that is not there yet.

    Raises:
        Failed: If it is there by now, or cannot be written.
    """
    try:
        with Path(path).open("xb") as file:
            file.write(data)
    except OSError as error:
        _fail_to_write(path, error.strerror or str(error))


def _fail_to_write(path: str, why: str) -> NoReturn:
    msg = f"{shown_name(path)}: cannot be written: {why}."
    raise Failed(msg) from None


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


_Command = TypeVar("_Command", bound=Callable[..., Any])


def tools_options(command: _Command) -> _Command:
    """Give a command the two options that name tools."""
    from_code = click.option(
        "--tools-from",
        metavar="MODULE:ATTRIBUTE",
        help="The tools as a list in Python code, such as app.agent:tools. The module is imported, "
        "which runs it.",
    )
    from_file = click.option(
        "--tools",
        metavar="FILE",
        type=FILE_TYPE,
        help="The tools as JSON or YAML: a list of their names, or of their definitions as models "
        "get them.",
    )
    return from_file(from_code(command))


def read_tools(file: str | None, code: str | None) -> list[Any] | None:
    """Read the tools that the options name.

    Args:
        file: A path, or `None`.
        code: `module:attribute`, or `None`.

    Returns:
        Names and definitions as `sqrt.check` takes them, or `None` if there is no option.

    Raises:
        Refused: If they cannot be had.
    """
    if file is not None and code is not None:
        msg = "--tools and --tools-from both say which tools there are. Give one of them."
        raise Refused(msg)
    if file is not None:
        return _checked(shown_name(file), read_data(file))
    if code is not None:
        return _checked(code, _imported(code))
    return None


def _checked(origin: str, given: Any) -> list[Any]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        msg = (
            f"{origin}: expected a list of tools, got {kind_of(given)}. "
            'Write `["send_mail", …]`, or a list of definitions.'
        )
        raise Refused(msg)
    for number, one in enumerate(given := list(given), 1):
        if not _is_tool(one):
            msg = (
                f"{origin}: tool {number}: expected a name, or a definition such as "
                f'`{{"name": …, "parameters": {{…}}}}`; got {plain(repr(one), limit=80)}.'
            )
            raise Refused(msg)
    try:
        tools = [_definition(one) for one in given]
        check("", tools)
    except UsageError as error:
        msg = f"{origin}: {error}"
        raise Refused(msg) from None
    return tools


def _is_tool(one: Any) -> bool:
    if isinstance(one, Mapping):
        return name_of(one) is not None
    return isinstance(one, str) or callable(one) or hasattr(one, "args_schema")


def _definition(tool: Any) -> Any:
    if not callable(tool) and not hasattr(tool, "args_schema"):
        return tool
    # Chat models take a second to import, and a file holds none of these.
    from langchain_sequrity.policy_generation.tool import function_tools  # noqa: PLC0415

    return next(function_tools([tool]))


def _imported(code: str) -> Any:
    module, colon, attribute = code.partition(":")
    if not (module and colon and attribute):
        msg = f"--tools-from: expected `module:attribute`, got `{code}`. Write `app.agent:tools`."
        raise Refused(msg)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # where a project's own modules are, as for `python -m`
    try:
        # What the module prints is not what the command prints.
        with redirect_stdout(sys.stderr):
            found = attrgetter(attribute)(import_module(module))
    except Exception as error:
        msg = f"--tools-from: `{code}` cannot be imported: {type(error).__name__}: {error}"
        raise Refused(msg) from error
    return found
