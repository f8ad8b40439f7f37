"""Methods of texts and bytes, with sizes checked before the work."""

from collections.abc import Callable
from typing import Any

from langchain_sequrity.local.interpreter.builtins import decode, encode
from langchain_sequrity.local.interpreter.calls import (
    Implementation,
    looking,
    pure,
    sized,
)
from langchain_sequrity.local.interpreter.formatting import brace
from langchain_sequrity.local.interpreter.iteration import collect
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.values import (
    Value,
    strip,
    tag,
)

Args = list[Value]
Named = dict[str, Value]
_LINE_ENDS = ("\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
_SAME_SIZE = (
    *("upper", "lower", "title", "capitalize", "casefold", "swapcase", "partition"),
    *("removeprefix", "removesuffix"),
)
_LOOKING = (
    *("startswith", "endswith", "find", "index", "count", "isalnum", "isalpha", "isascii"),
    *("isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace"),
    *("istitle", "isupper"),
)
_BYTES_SAME_SIZE = ("upper", "lower")
_STRIPPING = ("strip", "lstrip", "rstrip")
_BACKWARDS = ("rfind", "rindex", "rpartition", *_STRIPPING)
_BYTES_LOOKING = (
    *("startswith", "endswith", "find", "index", "count", "isalnum", "isalpha", "isdigit"),
    "isspace",
)


def _same_size(function: Callable[..., Any]) -> Implementation:
    def guard(machine: Machine, text: Any, *_: Any) -> None:
        machine.make_text(3 * len(text), text)  # some letters become three when their case changes

    return pure(function, guard)


def _looking(function: Callable[..., Any]) -> Implementation:
    return pure(function, lambda machine, text, *_: machine.work(len(text) >> 8))


def _backwards(function: Callable[..., Any]) -> Implementation:
    # Searching from the end compares at every place, and stripping looks for every letter among
    # all that are to go: the product of both lengths.
    def guard(machine: Machine, text: Any, part: Any = None, *_: Any) -> None:
        if isinstance(part, str | bytes):
            machine.work((len(text) * len(part)) >> 10)
        machine.make_text(len(text), text)

    return pure(function, guard)


def _padded(function: Callable[..., Any]) -> Implementation:
    def guard(machine: Machine, text: str, width: Any = 0, fill: Any = "", *_: Any) -> None:
        if isinstance(width, int) and isinstance(fill, str):
            machine.make_text(max(len(text), width), text, fill)

    return pure(function, guard)


def _replace(machine: Machine, text: str, old: str, new: str, count: int = -1) -> str:
    if isinstance(old, str) and isinstance(new, str):
        machine.work(len(text) >> 8)
        found = text.count(old) if count < 0 else min(count, len(text) + 1)
        machine.make_text(len(text) + found * max(len(new) - len(old), 0), text, new)
    return text.replace(old, new, count)


@looking
def _join(machine: Machine, args: Args, named: Named) -> Value:
    if len(args) != 2 or named:  # noqa: PLR2004 - the text and its one argument
        machine.fail(TypeError, f"str.join() takes exactly one argument ({len(args) - 1} given)")
    items, _ = collect(machine, args[1])
    bare, mark = machine.bare_all(items)
    text = strip(args[0])
    if not _TEXT.issuperset(map(type, bare)):
        machine.fail(TypeError, "sequence item: expected str instance", mark)
    machine.make_text(sum(map(len, bare)) + len(text) * len(bare), text, *bare)
    return tag(text.join(bare), mark)


_TEXT = frozenset({str})


def _split(function: Callable[..., Any]) -> Implementation:
    def call(machine: Machine, text: Any, sep: Any = None, maxsplit: int = -1) -> list[Any]:
        most = machine.limits.items
        wanted = maxsplit if 0 <= maxsplit <= most else most + 1
        if isinstance(sep, str | bytes):
            machine.work((len(text) * len(sep)) >> 10)
        machine.make_text(len(text), text)
        pieces: list[Any] = function(text, sep, wanted)
        machine.make_items(len(pieces), 80)
        return pieces

    return sized(call)


def _splitlines(machine: Machine, text: str, keepends: bool = False) -> list[str]:  # noqa: FBT001, FBT002
    machine.make_text(len(text), text)
    machine.make_items(sum(map(text.count, _LINE_ENDS)) + 1, 80)
    return text.splitlines(keepends)


def _expandtabs(machine: Machine, text: str, tabsize: int = 8) -> str:
    if isinstance(tabsize, int):
        machine.make_text(len(text) + text.count("\t") * max(tabsize, 0), text)
    return text.expandtabs(tabsize)


def _format(machine: Machine, template: str, *values: Value, **fields: Value) -> str:
    return brace(machine, template, values, fields)


def text_methods() -> dict[str, Implementation]:
    """Those of `str`."""
    return {
        **{name: _same_size(getattr(str, name)) for name in _SAME_SIZE},
        **{name: _looking(getattr(str, name)) for name in _LOOKING},
        **{name: _backwards(getattr(str, name)) for name in _BACKWARDS},
        **{name: _padded(getattr(str, name)) for name in ("ljust", "rjust", "center", "zfill")},
        "encode": sized(encode),
        "expandtabs": sized(_expandtabs),
        "format": sized(_format),
        "join": _join,
        "replace": sized(_replace),
        "rsplit": _split(str.rsplit),
        "split": _split(str.split),
        "splitlines": sized(_splitlines),
    }


def bytes_methods() -> dict[str, Implementation]:
    """Those of `bytes`."""
    return {
        **{name: _same_size(getattr(bytes, name)) for name in _BYTES_SAME_SIZE},
        **{name: _looking(getattr(bytes, name)) for name in _BYTES_LOOKING},
        **{name: _backwards(getattr(bytes, name)) for name in _STRIPPING},
        "decode": sized(decode),
        "hex": _same_size(bytes.hex),
        "split": _split(bytes.split),
    }
