"""Masks the caller's keys in texts that servers send.

A server that repeats a key, or a part of it, may write it in many ways. So a text is searched as it
is and with its escapes resolved, without white space and without regard to case. Any 8 consecutive
characters of a key are masked at their place in the text; a text that has them in escapes is masked
as a whole. A key shorter than 8 characters is masked only as a whole word: masked within words, it
could be guessed from the words around the mask. The time is linear in the length of the text.
"""

import base64
import html
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import Any

from langchain_core.messages import BaseMessage

from langchain_sequrity.errors import SequrityError

_MASK = "***"
_SHORTEST_PART = 8
_STEP = _SHORTEST_PART // 2
_DEEPEST = 100
_MOST_ESCAPES = 4
"""How often escapes are resolved: a text may be escaped several times."""

_ESCAPE = re.compile(
    r"%[0-9a-fA-F]{2}"
    r"|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\[^ux]"
    r"|&(?:\#[0-9]{1,7}|\#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,6});",
    re.DOTALL,
)
_BLANK = re.compile(r"[\s\x00-\x1f\x7f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]+")
_CONTROLS = dict.fromkeys("nrtbfv0", "\n")

# Base64 has two alphabets. No known key needs these characters to be distinguished.
_FOLDED = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ-_", "abcdefghijklmnopqrstuvwxyz+/")
_WORD_ENDS = r"\s\"'`()\[\]{}<>,:;="


class Redactor:
    """Replaces keys, and any 8 consecutive characters of a key, by `***`.

    Args:
        secrets: The keys, without `Bearer`. Empty texts are ignored.
    """

    __slots__ = ("_halves", "_keys", "_parts", "_words")

    def __init__(self, secrets: tuple[str, ...]) -> None:
        keys = self._keys = frozenset(filter(None, secrets))
        self._parts = frozenset(part for key in keys for part in _parts_of(key))
        self._halves = frozenset(part[n : n + _STEP] for part in self._parts for n in range(_STEP))
        short = [re.escape(key) for key in keys if len(key) < _SHORTEST_PART]
        pattern = rf"(?<![^{_WORD_ENDS}])(?:{'|'.join(short)})(?=[.!?]*(?:[{_WORD_ENDS}]|\Z))"
        self._words = re.compile(pattern) if short else None

    def __repr__(self) -> str:
        """Show only the number of keys."""
        return f"<{type(self).__name__} of {len(self._keys)}>"

    def with_keys(self, keys: Iterable[str]) -> "Redactor":
        """A redactor that masks these keys too; `self` if it already does."""
        all_keys = self._keys.union(keys)
        return self if all_keys == self._keys else Redactor(tuple(all_keys))

    def text(self, text: str) -> str:
        """Mask the keys in a text."""
        unescaped = masked = self._masked(text)
        for reading in islice(_unescaped_forms(text), 1, None) if self._parts else ():
            unescaped = _ESCAPE.sub(_unescaped, unescaped)
            if self._masked(reading) not in (reading, unescaped):  # more of a key is in escapes
                return _MASK
        return masked if self._words is None else self._words.sub(_MASK, masked)

    def _masked(self, text: str) -> str:
        """Mask parts of keys that are in the text itself.

        Each part of 8 characters covers a part of 4 that begins at a multiple of 4, so only these
        places are searched.
        """
        chars = _comparable(text)
        hits = [n for n in range(0, len(chars), _STEP) if chars[n : n + _STEP] in self._halves]
        if not hits:
            return text
        indices = [index for index, sign in enumerate(text) if not _BLANK.match(sign)]
        pieces, end = list[str](), 0
        for first in (m for n in hits for m in range(max(n - _STEP + 1, 0), n + 1)):
            if chars[first : first + _SHORTEST_PART] in self._parts:
                start = indices[first]
                if start > end or not pieces:
                    pieces += text[end:start], _MASK
                end = indices[first + _SHORTEST_PART - 1] + 1
        return "".join([*pieces, text[end:]])

    def data(self, value: Any, depth: int = 0) -> Any:
        """Mask the keys in all texts of data; data below 100 levels of nesting is masked whole.

        Args:
            value: JSON, or a message or dataclass that holds JSON. Other objects are kept.
            depth: The level of nesting of the value.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int | float):  # a key may be a number, which JSON does not quote
            return value if self.text(text := str(value)) == text else _MASK
        if isinstance(value, Mapping | list | tuple | BaseMessage) and depth > _DEEPEST:
            return _MASK
        return self._masked_data(value, depth + 1)

    def _masked_data(self, value: Any, depth: int) -> Any:
        match value:
            case Mapping():
                masked = {self.data(k, depth): self.data(v, depth) for k, v in value.items()}
                return MappingProxyType(masked) if isinstance(value, MappingProxyType) else masked
            case list():
                return [self.data(element, depth) for element in value]
            case tuple():
                return tuple(self.data(element, depth) for element in value)
            case BaseMessage():
                return value.model_copy(update=self.data(vars(value), depth))
            case _ if is_dataclass(value) and not isinstance(value, type):
                init_fields = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
                return replace(value, **self.data(init_fields, depth))
        return value

    def mask_error(self, error: SequrityError) -> None:
        """Mask the keys in an exception, in place: in its text and in its attributes."""
        error.args = (self.text(str(error)),)
        for name, value in vars(error).items():
            setattr(error, name, self.data(value))


def _comparable(text: str) -> str:
    return _BLANK.sub("", text).translate(_FOLDED)


def _unescaped_forms(text: str) -> Iterator[str]:
    """The text as it is, then with its escapes resolved once, twice, and so on."""
    yield text
    for _ in range(_MOST_ESCAPES):
        before, text = text, _ESCAPE.sub(_unescaped, text)
        if text == before:
            return
        yield text


def _unescaped(match: re.Match[str]) -> str:
    escape = match[0]
    if escape[0] == "&":
        return html.unescape(escape)
    if escape[0] == "%" or escape[1] in "ux":
        return chr(int(escape.lstrip("%\\ux"), 16))
    return _CONTROLS.get(escape[1], escape[1])


def _parts_of(key: str) -> Iterator[str]:
    """All parts of 8 characters of a key, in every form in which a text may contain it."""
    for form in (*_unescaped_forms(key), *_in_base64(key)):
        chars = _comparable(form)
        for first in range(len(chars) - _SHORTEST_PART + 1):
            yield chars[first : first + _SHORTEST_PART]


def _in_base64(key: str) -> Iterator[str]:
    """A key within base64, at each of its three offsets; only characters of the key alone."""
    if len(key) < _SHORTEST_PART:
        return
    for before in range(3):
        data = bytes(before) + key.encode()
        whole = len(data) * 8 // 6  # characters that do not depend on bytes after the key
        yield base64.b64encode(data).decode()[-(-before * 8 // 6) : whole]
