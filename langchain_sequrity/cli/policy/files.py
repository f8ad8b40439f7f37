"""Files of the user: read with errors that name the place, written whole or not at all."""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NoReturn

import click
import yaml

from langchain_sequrity.display import plain

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
