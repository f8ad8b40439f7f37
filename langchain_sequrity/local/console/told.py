"""Whether a model was told a value, or a part of it, as far as its messages show it.

The console says that a planner was not told a result. That must be true, so a value counts as told
if any of its texts, or a piece of one, is in a message, in whatever encoding: as it is, or with the
escapes of Python or JSON.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_PIECE = 12  # characters; a shorter text has to be in a message as a whole
_MOST_CHARACTERS = 50_000
_ESCAPE = re.compile(
    r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|U(00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})|(.))",
    re.DOTALL,
)
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


def readings_of(messages: Iterable[str]) -> tuple[str, ...]:
    """Messages as they are, and without one and two levels of escapes."""
    text = "\n".join(messages)
    once = _unescaped(text)
    return tuple(dict.fromkeys((text, once, _unescaped(once))))


def is_told(value: Any, readings: Iterable[str]) -> bool:
    """Whether a part of a value is in one of these readings of messages."""
    return any(piece in reading for reading in readings for piece in _pieces(value))


def _pieces(value: Any) -> Iterator[str]:
    characters = _MOST_CHARACTERS
    for text in _texts(value):
        begins = range(0, max(1, min(len(text), characters) - _PIECE + 1), _PIECE)
        yield from (text[begin : begin + _PIECE] for begin in begins)
        characters -= len(text)
        if characters <= 0:
            return


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            waiting += [*part.values(), *part]
        elif isinstance(part, list | tuple):
            waiting += part
        elif part is not None and not isinstance(part, bool) and part != "":
            yield str(part)


def _unescaped(text: str) -> str:
    # Two escapes of JSON may be one character.
    units = _ESCAPE.sub(_meaning, text).encode("utf-16", "surrogatepass")
    return units.decode("utf-16", "replace")


def _meaning(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2] or escape[3]
    return chr(int(code, 16)) if code else _CONTROLS.get(escape[4], escape[4])
