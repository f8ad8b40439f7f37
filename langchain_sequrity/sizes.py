"""Memory of data: estimated from JSON before parsing, counted in objects after it.

Three bytes of JSON (`[],`) become ninety in memory, so the length of a text is a bad estimate.
`of_json` counts characters in linear time, without parsing. It also counts those inside strings:
arguments of calls and results of tools are JSON inside a string, and will be parsed later. The
estimate is never below the memory of parsing; for ordinary text it is a few times the length.

The numbers are for 64-bit CPython and orjson. Tests compare them with both.
"""

from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from itertools import chain
from operator import attrgetter
from sys import getsizeof
from types import NoneType
from typing import Any, Final

_SIGNS = {
    b"[": 64,  # a list
    b"{": 136,  # a dict with its first table
    b",": 64,  # a list item with a number
    b":": 72,  # an entry of a dict, which grows in steps
    b'"': 32,  # half a string, without its characters
    rb"\u": 16,  # may encode any of these characters, in JSON inside a string
}
_ONE_VALUE = 64
_WIDEST = 4  # bytes of a character
MOST_PER_CHARACTER = max(_SIGNS.values()) + 1 + _WIDEST + _ONE_VALUE
"""`of_json` is never more than this for each character of a text that is not empty."""
_WIDE = (
    b"\xf0",
    b"\xf1",
    b"\xf2",
    b"\xf3",
    b"\xf4",
    rb"\ud",
    rb"\uD",
)  # 4-byte characters


def of_json(data: bytes | bytearray | str) -> int:
    """Estimate the memory of JSON during and after parsing, without the text itself.

    Args:
        data: JSON text, valid or invalid.

    Returns:
        Bytes; parsing never needs more.

    Example:
        ```python
        from langchain_sequrity.sizes import of_json

        assert of_json(b"[" + b"[]," * 1000 + b"[]]") > 90_000
        ```
    """
    text = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    signs = sum(text.count(sign) * price for sign, price in _SIGNS.items())
    # orjson copies the text, and strings have its characters again. So does the text in an error,
    # in which one wide character makes all characters wide.
    return _ONE_VALUE + signs + (1 + _width(text)) * len(text)


def _width(text: bytes | bytearray) -> int:
    if any(sign in text for sign in _WIDE):
        return _WIDEST
    return 1 if text.isascii() and rb"\u" not in text else 2


_LEAST = 4  # bytes of a part: many empty parts add up too


def of_part(text: str) -> int:
    """The size in bytes of a text that will be joined with others."""
    return _LEAST + len(text) * (1 if text.isascii() else _WIDEST)


ATOMS = (str, bytes, bytearray, int, float, complex)
_LINK = 8
_LARGE = 512  # larger values may be shared by several objects, such as the text of a mail


def of_value(value: Any) -> int:
    """Count the memory of an object with everything in it.

    Args:
        value: JSON data, messages, dataclasses, or containers of them.

    Returns:
        Bytes. A container or a long text that occurs twice counts once.

    Example:
        ```python
        from langchain_sequrity.sizes import of_value

        assert of_value(["x" * 1000]) > 1000
        ```
    """
    count = SizeCount()
    count.add(value)
    return count.size + sum(map(getsizeof, count.texts.values()))


class SizeCount:
    """A count of memory.

    Attributes:
        size: Bytes, without those of long texts.
        texts: Long texts by their ids. Other counts may have them too.
    """

    __slots__ = ("size", "texts")

    def __init__(self) -> None:
        self.size = 0
        self.texts: dict[int, Any] = {}

    def add(self, value: Any) -> None:
        """Add an object with everything in it."""
        seen, unvisited = set[int](), [value]
        size, texts = 0, self.texts
        while unvisited:
            node = unvisited.pop()
            read_parts = PARTS[type(node)]
            if read_parts is atom_parts:
                node_size = getsizeof(node)
                size += _LINK
                if node_size > _LARGE:
                    texts[id(node)] = node
                else:
                    size += node_size
            elif read_parts is not None and id(node) not in seen:
                seen.add(id(node))
                size += _LINK + getsizeof(node)
                unvisited += read_parts(node)
        self.size += size

    def add_atom(self, atom: Any) -> None:
        """Add a text, bytes or a number."""
        size = getsizeof(atom)
        self.size += _LINK
        if size > _LARGE:
            self.texts[id(atom)] = atom
        else:
            self.size += size


ReadParts = Callable[[Any], Iterable[Any]]


def atom_parts(_atom: Any) -> Iterable[Any]:
    """A text, bytes or a number has no parts."""
    return ()


class _PartsByClass(dict[type, ReadParts | None]):
    """How the parts of an object are read, by its class; `None` if it has no size of its own.

    Objects of few classes are counted many times.
    """

    def __missing__(self, cls: type) -> ReadParts | None:
        if len(self) >= _MOST_CLASSES:  # a program may make new ones
            self.clear()
        self[cls] = read_parts = _parts_reader(cls)
        return read_parts


PARTS: Final = _PartsByClass()
_MOST_CLASSES = 512


def _parts_reader(cls: Any) -> ReadParts | None:
    if issubclass(cls, NoneType | type):
        return None
    if issubclass(cls, ATOMS):
        return atom_parts
    if issubclass(cls, list | tuple | set | frozenset):
        return iter
    if issubclass(cls, dict):
        return lambda value: chain(value, value.values())
    return _fields_reader(cls)


def _fields_reader(cls: Any) -> ReadParts:
    if cls.__dictoffset__:
        return lambda value: (vars(value),)
    names = [field.name for field in fields(cls)] if is_dataclass(cls) else []
    if len(names) > 1:
        return attrgetter(*names)  # a tuple
    return lambda value: [getattr(value, name) for name in names]
