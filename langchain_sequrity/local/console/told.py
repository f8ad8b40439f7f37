"""Whether a model was told a value, or a part of it, as far as its messages show it.

The console says that a planner was not told a result. That must be true, so a value counts as told
if any of its texts, or a piece of one, is in a message, in whatever encoding: as it is, or with the
escapes of Python or JSON.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

_PIECE = 12  # characters; a shorter text has to be in a message as a whole
_MOST_CHARACTERS = 50_000
_ESCAPE = re.compile(
    r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|U(00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})|(.))",
    re.DOTALL,
)
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


@dataclass(frozen=True, slots=True)
class Told:
    """What a model was told.

    Attributes:
        readings: Its messages as they are, and without one and two levels of escapes.
        before: The same of what it was told before there was any result. Its words may be in a
            result, too.
    """

    readings: tuple[str, ...] = ()
    before: tuple[str, ...] = ()

    @classmethod
    def of_messages(cls, messages: Iterable[str], before: Iterable[str] = ()) -> Self:
        """What these messages say, of which some came before any result."""
        return cls(_readings(messages), _readings(before))

    def has_part_of(self, value: Any) -> bool:
        """Whether it was told a part of a value.

        A short text counts only if it came later than the first messages: a result with the word
        "invoice" is not told by a request that has this word.
        """
        return any(
            _is_in(piece, self.readings)
            and (len(piece) >= _PIECE or not _is_in(piece, self.before))
            for piece in _pieces(value)
        )


def _is_in(piece: str, readings: Iterable[str]) -> bool:
    return any(piece in reading for reading in readings)


def _readings(messages: Iterable[str]) -> tuple[str, ...]:
    text = "\n".join(messages)
    once = _unescaped(text)
    return tuple(dict.fromkeys((text, once, _unescaped(once))))


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
