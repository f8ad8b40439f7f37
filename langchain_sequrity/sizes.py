"""What data takes in memory: estimated from JSON before it is parsed, counted in objects after it.

Three bytes of JSON (`[],`) become ninety in memory, so the length of a text says little of what it
costs. `of_json` counts signs, in linear time and without parsing. It counts those within strings
too: arguments of a call and results of tools are JSON within a string, and will be parsed as well.
Its estimate is never below what parsing takes; that of ordinary text is a few times its length.

The prices are those of CPython on 64 bits, with what orjson holds while it parses. Tests compare
them with both.
"""

import sys
from collections.abc import Collection, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

_SIGNS = {
    b"[": 64,  # a list
    b"{": 136,  # a dict with its first table
    b",": 64,  # a place in a list, and a number in it
    b":": 72,  # a place in the table of a dict, which grows in leaps
    b'"': 32,  # half a string, without its characters
    rb"\u": 16,  # may stand for any of these signs, in JSON within a string
}
_ONE_VALUE = 64
_WIDE = (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4", rb"\ud", rb"\uD")  # begin 4-byte signs


def of_json(data: bytes | bytearray | str) -> int:
    """Estimate what JSON takes while and after it is parsed, the text itself not included.

    Args:
        data: JSON text, good or bad.

    Returns:
        Bytes, no less than parsing needs at any time.

    Example:
        ```python
        from langchain_sequrity.sizes import of_json

        assert of_json(b"[" + b"[]," * 1000 + b"[]]") > 90_000
        ```
    """
    text = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    signs = sum(text.count(sign) * price for sign, price in _SIGNS.items())
    # orjson reads a copy of the text, and strings have its characters: so has the text that comes
    # with an error, in which one wide sign makes all others wide.
    return _ONE_VALUE + signs + (1 + _width(text)) * len(text)


def _width(text: bytes | bytearray) -> int:
    if any(sign in text for sign in _WIDE):
        return 4
    return 1 if text.isascii() and rb"\u" not in text else 2


_WIDEST = 4  # bytes of a character
_LEAST = 4  # bytes of a part: one that says nothing adds up, too


def of_part(text: str) -> int:
    """Count a part of a text that will be added to others, in bytes."""
    return _LEAST + len(text) * (1 if text.isascii() else _WIDEST)


_ATOMS = (str, bytes, bytearray, int, float, complex, type(None))
_LINK = 8
_LARGE = 512  # what several objects may hold together without a copy, such as the text of a mail
_FEW = 8
_NOTE = 400  # what is remembered of an entry


def of_value(value: Any) -> int:
    """Count what an object and everything in it takes.

    Args:
        value: JSON data, messages, dataclasses, or containers of them.

    Returns:
        Bytes. A container or a long text that is in it twice counts once.

    Example:
        ```python
        from langchain_sequrity.sizes import of_value

        assert of_value(["x" * 1000]) > 1000
        ```
    """
    return Growing().of(value)


class Growing:
    """The size of an object that grows: what was in its lists before is not looked into again.

    So the n-th entry of a log costs as much to count as the first. An entry that is changed in
    place is not noticed; conversations and logs replace theirs.

    Example:
        ```python
        from langchain_sequrity.sizes import Growing

        growing, log = Growing(), [{"n": 0}]
        before = growing.of(log)
        assert growing.of([*log, {"n": 1}]) > before
        ```
    """

    def __init__(self) -> None:
        # By the id of an entry: the entry itself, so that no other has its id, and its count.
        self._known: dict[int, tuple[Any, _Count]] = {}

    def forget(self) -> None:
        """Let go of what was counted before."""
        self._known = {}

    def of(self, value: Any) -> int:
        """Count the object as it is now, in bytes."""
        known, self._known = self._known, {}
        total = _Count()
        for entries in total.take(value, apart=True):
            for entry in entries:
                found = known.get(id(entry)) or self._known.get(id(entry))
                self._known[id(entry)] = found = found or (entry, _counted(entry))
                total.add(found[1])
                total.size += _NOTE
        return total.size + sum(map(sys.getsizeof, total.texts.values()))


class _Count:
    """What was counted: bytes, and apart from them long texts by their ids."""

    __slots__ = ("size", "texts")

    def __init__(self) -> None:
        self.size = 0
        self.texts: dict[int, Any] = {}

    def add(self, other: "_Count") -> None:
        self.size += other.size
        self.texts |= other.texts

    def take(self, value: Any, *, apart: bool = False) -> list[Collection[Any]]:
        """Count an object; returns the long lists in it, uncounted, where they are kept apart."""
        lists: list[Collection[Any]] = []
        seen, waiting = set[int](), [value]
        while waiting:
            one = waiting.pop()
            size = sys.getsizeof(one)
            self.size += _LINK
            if isinstance(one, _ATOMS) and size > _LARGE:
                self.texts[id(one)] = one
            elif isinstance(one, _ATOMS):
                self.size += size
            elif id(one) not in seen and not isinstance(one, type):
                seen.add(id(one))
                self.size += size
                if apart and isinstance(one, list | tuple) and len(one) > _FEW:
                    lists.append(one)
                else:
                    waiting.extend(_inside(one))
        return lists


def _counted(value: Any) -> _Count:
    count = _Count()
    count.take(value)
    return count


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif hasattr(value, "__dict__"):
        yield vars(value)
    elif is_dataclass(value):
        yield from (getattr(value, field.name) for field in fields(value))
