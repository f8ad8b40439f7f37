"""Input and output of the policy commands.

Files are read with errors that name the place, and written completely or not at all. Findings,
tables, JSON and texts are printed. Tools come from a file or from the user's code.
"""

import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from gzip import GzipFile
from importlib import import_module
from io import BufferedReader
from operator import attrgetter
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, NoReturn, TypeVar

import click
import yaml
from rich.console import Console
from rich.text import Text

from langchain_sequrity.display import plain
from langchain_sequrity.display.progress import progress
from langchain_sequrity.display.tables import TableMixin
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt import Finding, check, combine, compile_policy, named
from langchain_sequrity.sqrt.diagnostics import caret_excerpt
from langchain_sequrity.sqrt.lint import finding_of
from langchain_sequrity.sqrt.policy_forms import AnyPolicy
from langchain_sequrity.sqrt.trace_formats import has_runs
from langchain_sequrity.sqrt.trials import lines_in

STDIN = "-"
FILE_TYPE = click.Path(allow_dash=True, readable=False)
"""A path for `read_source`, which reports errors of the path itself."""

_BOM = "\ufeff"
_GZIP = b"\x1f\x8b"
_LINES = (".jsonl", ".ndjson")
_PEEKED = 1_000
_MOST_FAULTS = 20
_NAME = 400
_NAME_OF_POLICY = 80


class InvalidInput(click.ClickException):
    """An invalid command or input file; the message is one line."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        """Build the error; the message may contain untrusted text."""
        super().__init__(plain(message))


class CommandFailed(click.ClickException):
    """The command failed."""

    def __init__(self, message: str) -> None:
        """Build the error; the message may contain untrusted text and line breaks."""
        super().__init__(plain(message, lines=True))


@dataclass(frozen=True, slots=True)
class SourceFile:
    r"""A text file.

    Attributes:
        path: Its path as given, or `-`.
        text: Its text. Line ends are `\n` if they were all equal.
        newline: The line ends in the file.
        bom: The byte order mark, or an empty text.
    """

    path: str
    text: str
    newline: str = "\n"
    bom: str = ""

    @property
    def name(self) -> str:
        """The name for messages."""
        return shown_name(self.path)

    def encoded(self, text: str) -> bytes:
        """Encode another text with the same line ends and byte order mark."""
        return (self.bom + text.replace("\n", self.newline)).encode()


def json_type(value: Any) -> str:
    """The JSON type of plain data in words, or the Python type of other values."""
    names = {dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number"}
    if value is None or isinstance(value, bool):
        return f"`{json.dumps(value)}`"
    return names.get(type(value)) or f"a value of type `{type(value).__name__}`"


def shown_name(path: str) -> str:
    """A path for messages."""
    return "<stdin>" if path == STDIN else plain(path, limit=_NAME)


def read_sources(paths: Sequence[str]) -> list[SourceFile]:
    """Read several files before the first of them is processed."""
    only_one_stdin(paths)
    return [read_source(path) for path in paths]


def only_one_stdin(paths: Sequence[str | None]) -> None:
    """Check that standard input is read only once."""
    if paths.count(STDIN) > 1:
        msg = "`-` is given more than once, but standard input can be read only once. Use a file."
        raise InvalidInput(msg)


def read_source(path: str) -> SourceFile:
    """Read a text.

    Raises:
        InvalidInput: If it cannot be read, or is not UTF-8.
    """
    with _opened(path) as file:
        return _read(path, file)


def _read(path: str, file: BinaryIO) -> SourceFile:
    with _read_errors(path):
        data = file.read()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        msg = (
            f"{shown_name(path)}:{line}: expected UTF-8, found the byte 0x{data[error.start]:02x} "
            f"at offset {error.start}. Save the file as UTF-8."
        )
        raise InvalidInput(msg) from None
    bom = _BOM if text.startswith(_BOM) else ""
    text = text.removeprefix(bom)
    ends = text.count("\n")
    if ends and text.count("\r\n") == ends:
        return SourceFile(path, text.replace("\r\n", "\n"), "\r\n", bom)
    return SourceFile(path, text, bom=bom)


@contextmanager
def _opened(path: str) -> Iterator[BufferedReader]:
    """A file that is open for reading; standard input stays open."""
    if path == STDIN:
        stdin: Any = sys.stdin.buffer
        file = BufferedReader(stdin)
        try:
            yield file
        finally:
            file.detach()
        return
    with ExitStack() as stack:
        with _read_errors(path):
            file = stack.enter_context(Path(path).open("rb"))
        yield file


@contextmanager
def _read_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, zlib.error) as error:  # a NUL in a path is a ValueError
        why = getattr(error, "strerror", None) or str(error)
        msg = f"{shown_name(path)}: cannot be read: {why}."
        raise InvalidInput(msg) from None


def read_data(path: str) -> Any:
    """Read plain data: JSON from a `.json` file, otherwise YAML, which includes JSON.

    A JSON Lines file, by its name, is a list.

    Raises:
        InvalidInput: If the file is invalid. The message has the place.
    """
    source = read_source(path)
    if not path.endswith(_LINES):
        return _data(source)
    lines = enumerate(source.text.split("\n"), 1)
    return [_json(path, line, number) for number, line in lines if line.strip()]


def read_header_fields(path: str | None) -> dict[str, Any] | None:
    """Read the other fields of X-Policy, of `--header`; `None` without the option.

    Raises:
        InvalidInput: If the file is invalid, or has the policy too.
    """
    if path is None:
        return None
    fields = read_data(path)
    if not isinstance(fields, dict) or "codes" in fields:
        got = "`codes`, which FILE replaces" if isinstance(fields, dict) else json_type(fields)
        msg = f"{shown_name(path)}: expected an object with other fields of X-Policy, got {got}."
        raise InvalidInput(msg)
    return fields


def _data(source: SourceFile) -> Any:
    path = source.path
    if path.removesuffix(".gz").endswith(".json"):
        return _json(path, source.text)
    try:
        return yaml.safe_load(source.text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        position = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        why = error.problem or str(error)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # also a too long number
        position, why = "", str(error)
    raise _not_valid(path, position, "YAML", why)


def _json(path: str, text: str, first_line: int = 1) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        position, why = f":{first_line + error.lineno - 1}:{error.colno}", error.msg
    except (ValueError, RecursionError) as error:  # also a too long number
        position, why = "", str(error)
    raise _not_valid(path, position, "JSON", why)


def _not_valid(path: str, position: str, syntax: str, why: str) -> InvalidInput:
    reason = " ".join(why.split())
    return InvalidInput(f"{shown_name(path)}{position}: not valid {syntax}: {reason}.")


class Faults:
    """Invalid calls. They are left out, and make the command fail in the end.

    Args:
        path: Their file.
    """

    def __init__(self, path: str) -> None:
        self._name = shown_name(path)
        self.count = 0

    def add(self, fault: str) -> None:
        """Print what is wrong with a call, unless many were invalid."""
        self.count += 1
        if self.count <= _MOST_FAULTS:
            print_text(f"{self._name}: {fault}", err=True)

    def fail(self, read: int | None = None) -> None:
        """Fail if there are invalid calls, of the number that was read."""
        if self.count:
            of_all = "" if read is None else f" of {read}"
            msg = f"{self._name}: {self.count}{of_all} lines are invalid and were left out."
            raise InvalidInput(msg)


@contextmanager
def open_calls(path: str) -> Iterator[tuple[Iterable[Any], Faults | None]]:
    """The calls in a file, and who reports invalid lines, if it has lines.

    Calls are JSON, YAML or JSON Lines, an audit log or an exported trace. The JSON of a trace may
    be an object around its runs.

    Raises:
        InvalidInput: As `read_data`, and if it is not a list.
    """
    with open_lines_or_data(path) as calls:
        if isinstance(calls, Iterator):
            yield calls, Faults(path)
            return
        listed = calls
        if isinstance(calls, Mapping):
            listed = [calls] if has_runs(calls) else calls.get("runs", calls)
        check_is_list_of_calls(path, listed)
        yield listed, None


def check_is_list_of_calls(path: str, calls: Any) -> None:
    """Check that the calls of a file are a list that is not empty.

    Raises:
        InvalidInput: If they are not.
    """
    if not isinstance(calls, list) or not calls:
        got = "an empty list" if calls == [] else json_type(calls)
        msg = (
            f"{shown_name(path)}: expected a list of calls, got {got}. "
            'Write `[{"tool": "send_mail", "arguments": {"to": "ana"}}, …]`.'
        )
        raise InvalidInput(msg)


@contextmanager
def open_lines_or_data(path: str) -> Iterator[Any]:
    """The lines of a JSON Lines file, as an iterator of bytes, or the plain data of another file.

    A file is JSON Lines if its name ends in `.jsonl` or `.ndjson`, or if it begins with `{` and its
    name does not end in `.json`. It may be compressed with gzip.

    Raises:
        InvalidInput: As `read_data`.
    """
    with _opened(path) as raw:
        with _read_errors(path):
            file: Any = GzipFile(fileobj=raw) if raw.peek(2).startswith(_GZIP) else raw
            begin = file.peek(_PEEKED).removeprefix(_BOM.encode()).lstrip()
        name = path.removesuffix(".gz")
        if name.endswith(_LINES) or (begin.startswith(b"{") and not name.endswith(".json")):
            yield _lines(path, file)
        else:
            with progress(f"Reading {shown_name(path)}", waits=path != STDIN):
                data = _data(_read(path, file))
            yield data


def _lines(path: str, file: BinaryIO) -> Iterator[bytes]:
    with _read_errors(path):
        yield from lines_in(file)


@contextmanager
def new_file(path: str | None) -> Iterator[BinaryIO | None]:
    """A new file to write, or nothing without a path.

    Raises:
        InvalidInput: If it exists or cannot be made. Devices and pipes may exist.
    """
    if path is None:
        yield None
        return
    with ExitStack() as stack:
        try:
            mode = "xb" if Path(path).is_file() else "wb"
            file: Any = stack.enter_context(Path(path).open(mode))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            msg = f"{shown_name(path)}: cannot be made: {why}."
            raise InvalidInput(msg) from None
        yield file


def replace_file(path: str, data: bytes) -> None:
    """Replace the content of a file atomically. It keeps its mode, and a link stays a link.

    Raises:
        CommandFailed: If this fails. The file is then unchanged.
    """
    target = Path(path).resolve()
    try:
        if not target.is_file():
            _fail_to_write(path, "it is not a regular file")
        if not os.access(target, os.W_OK):
            # A rename would succeed, because it needs only permissions of the folder.
            _fail_to_write(path, "it is read-only")
        file = NamedTemporaryFile(  # noqa: SIM115 - it is replaced or removed below
            dir=target.parent, prefix=f".{target.name[:80]}.", delete=False
        )
        try:
            with file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            shutil.copymode(target, file.name)
            Path(file.name).replace(target)
        finally:
            Path(file.name).unlink(missing_ok=True)
    except OSError as error:
        _fail_to_write(path, error.strerror or str(error))


def create_file(path: str, data: bytes) -> None:
    """Write a new file.

    Raises:
        CommandFailed: If it exists by now, or cannot be written.
    """
    try:
        with Path(path).open("xb") as file:
            file.write(data)
    except OSError as error:
        _fail_to_write(path, error.strerror or str(error))


def _fail_to_write(path: str, why: str) -> NoReturn:
    msg = f"{shown_name(path)}: cannot be written: {why}."
    raise CommandFailed(msg) from None


as_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)
_COLOURS = {"error": "bold red", "warning": "yellow"}


def print_json(data: Any) -> None:
    """Print one document in ASCII, which contains no control characters."""
    text = json.dumps(data, indent=2)
    click.echo(text.replace("\x7f", "\\u007f"))


def print_text(text: str, *, err: bool = False) -> None:
    """Print lines that may contain untrusted text."""
    click.echo(plain(text, limit=len(text), lines=True), err=err)


def print_exact(data: bytes) -> None:
    """Print a text unchanged for other programs, and escaped on a terminal."""
    if sys.stdout.isatty():
        print_text(data.decode().removesuffix("\n"))
        return
    click.echo(data, nl=False)


def print_table(table: TableMixin) -> None:
    """Print a table: in colour on a terminal, otherwise as plain text."""
    console = Console()
    if console.is_terminal:
        console.print(table)
    else:
        print_text(table.text())


# Findings


def finding_json(source: SourceFile, finding: Finding) -> dict[str, Any]:
    """A finding as plain data."""
    return {"file": source.path, **asdict(finding)}


def print_finding(source: SourceFile, finding: Finding, *, err: bool = False) -> None:
    """Print a finding: place, message, line with a caret, and advice."""
    text = Text(f"{source.name}:{finding.line}:{finding.column}: ")
    text.append(finding.severity, style=_COLOURS[finding.severity])
    text.append(f": {plain(finding.message)}\n")
    text.append(caret_excerpt(source.text, (finding.line, finding.column)))
    if finding.hint:
        text.append(f"\n  {plain(finding.hint)}")
    # No line is wrapped, even on a narrow terminal.
    Console(stderr=err).print(text, soft_wrap=True)


@contextmanager
def policy_errors(source: SourceFile, *, as_json: bool) -> Iterator[None]:
    """Print a syntax error of a policy, and exit with status 1."""
    try:
        yield
    except PolicySyntaxError as error:
        finding = finding_of(error)
        if as_json:
            print_json({"error": finding_json(source, finding)})
        else:
            print_finding(source, finding, err=True)
        raise SystemExit(1) from None


def policy_in(
    sources: Sequence[SourceFile],
    *,
    as_json: bool,
    with_settings: Callable[[str], AnyPolicy] = lambda text: text,
) -> AnyPolicy:
    """The policy in some files: that of one, or several combined.

    Args:
        sources: The files.
        as_json: Whether a mistake is printed as JSON.
        with_settings: Makes a policy of a text.

    Raises:
        SystemExit: If one is not a policy; the mistake is printed. With JSON also if they cannot
            be combined.
        CommandFailed: If they cannot be combined.
    """
    for source in sources:
        with policy_errors(source, as_json=as_json):
            compile_policy(source.text)
    policies = [with_settings(source.text) for source in sources]
    if len(policies) == 1:
        return policies[0]
    names = (source.name.replace("`", "'")[-_NAME_OF_POLICY:] for source in sources)
    try:
        return combine(*map(named, names, policies))
    except UsageError as error:
        if as_json:
            print_json({"error": plain(str(error))})
            raise SystemExit(1) from None
        raise CommandFailed(str(error)) from None


_Command = TypeVar("_Command", bound=Callable[..., Any])


def tools_options(command: _Command) -> _Command:
    """Add the two options for tools to a command."""
    from_code = click.option(
        "--tools-from",
        metavar="MODULE:ATTRIBUTE",
        help="The tools as a list in Python code, such as app.agent:tools. This imports the module "
        "and runs its code.",
    )
    from_file = click.option(
        "--tools",
        metavar="FILE",
        type=FILE_TYPE,
        help="The tools as JSON or YAML: a list of names, or of definitions in the format for "
        "models.",
    )
    return from_file(from_code(command))


def read_tools(file: str | None, code: str | None) -> list[Any] | None:
    """Read the tools from the options.

    Args:
        file: A path, or `None`.
        code: `module:attribute`, or `None`.

    Returns:
        Names and definitions for `sqrt.check`, or `None` without an option.

    Raises:
        InvalidInput: If the tools cannot be read.
    """
    if file is not None and code is not None:
        msg = "--tools and --tools-from are both given. Give only one of them."
        raise InvalidInput(msg)
    if file is not None:
        return _check_tools(shown_name(file), read_data(file))
    if code is not None:
        return _check_tools(code, _import_tools(code))
    return None


def _check_tools(origin: str, value: Any) -> list[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        msg = (
            f"{origin}: expected a list of tools, got {json_type(value)}. "
            'Write `["send_mail", …]`, or a list of definitions.'
        )
        raise InvalidInput(msg)
    try:
        tools = [_definition(tool) for tool in value]
        check("", tools)
    except UsageError as error:
        msg = f"{origin}: {error}"
        raise InvalidInput(msg) from None
    return tools


def _definition(tool: Any) -> Any:
    if not callable(tool) and not hasattr(tool, "args_schema"):
        return tool
    # This import takes a second, and tools from a file do not need it.
    from langchain_sequrity.policy_generation import function_tools  # noqa: PLC0415

    return next(function_tools([tool]))


def _import_tools(code: str) -> Any:
    module, colon, attribute = code.partition(":")
    if not (module and colon and attribute):
        msg = f"--tools-from: expected `module:attribute`, got `{code}`. Write `app.agent:tools`."
        raise InvalidInput(msg)
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # like `python -m`, for the project's own modules
    try:
        # The output of the module must not mix with the output of the command.
        with redirect_stdout(sys.stderr):
            tools = attrgetter(attribute)(import_module(module))
    except Exception as error:
        msg = f"--tools-from: `{code}` cannot be imported: {type(error).__name__}: {error}"
        raise InvalidInput(msg) from error
    return tools
