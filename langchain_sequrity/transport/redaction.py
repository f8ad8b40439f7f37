"""Takes the caller's keys out of what servers send back.

A server that shows a key, or a part of one, may write it in many ways. So a text is read as it is
and with its escapes resolved, without blanks and without regard to case, and whatever then shares 8
consecutive characters with a key is masked where it stands in the text. Keys shorter than that are
masked as whole words only: masked within words, they would be told by the words that are spoilt.
All of it takes time that is linear in the text.
"""

import base64
import html
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any

from langchain_core.messages import BaseMessage

from langchain_sequrity.errors import SequrityError

_MASK = "***"
_SHORTEST_PART = 8
_STEP = _SHORTEST_PART // 2
_DEEPEST = 100
_ROUNDS = 4
"""How often escapes of escapes are resolved."""

_ESCAPE = re.compile(
    r"%[0-9a-fA-F]{2}"
    r"|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\[^ux]"
    r"|&(?:\#[0-9]{1,7}|\#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,6});",
    re.DOTALL,
)
_BLANK = re.compile(r"[\s\x00-\x1f\x7f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]+")
_CONTROLS = dict.fromkeys("nrtbfv0", "\n")

# Base64 has two alphabets, and none of the keys known needs these characters told apart.
_FOLDED = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ-_", "abcdefghijklmnopqrstuvwxyz+/")
_WORD_ENDS = r"\s\"'`()\[\]{}<>,:;="


class Redactor:
    """Replaces keys by `***`, and whatever shares 8 consecutive characters with one.

    Args:
        secrets: The keys, without `Bearer`. An empty one is ignored.
    """

    __slots__ = ("_keys", "_parts", "_quarters", "_words")

    def __init__(self, secrets: tuple[str, ...]) -> None:
        keys = self._keys = frozenset(filter(None, secrets))
        self._parts = frozenset(part for key in keys for part in _parts_of(key))
        self._quarters = frozenset(
            part[n : n + _STEP] for part in self._parts for n in range(_STEP)
        )
        short = [re.escape(key) for key in keys if len(key) < _SHORTEST_PART]
        found = rf"(?<![^{_WORD_ENDS}])(?:{'|'.join(short)})(?=[.!?]*(?:[{_WORD_ENDS}]|\Z))"
        self._words = re.compile(found) if short else None

    def __repr__(self) -> str:
        """Show how many keys there are, not which."""
        return f"<{type(self).__name__} of {len(self._keys)}>"

    def knowing(self, keys: Iterable[str]) -> "Redactor":
        """A redactor that knows these keys too; the same one if it does already."""
        more = self._keys.union(keys)
        return self if more == self._keys else Redactor(tuple(more))

    def text(self, text: str) -> str:
        """Clean a text."""
        spans = list(self._spans(text))
        return _masked(text, spans) if spans else text

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where the text shows a key, in any order."""
        if self._words is not None:
            yield from (found.span() for found in self._words.finditer(text))
        for view in _views(text) if self._parts else ():
            yield from view.spans_of(self._parts, self._quarters)

    def data(self, value: Any, depth: int = 0) -> Any:
        """Clean all texts in data; what is nested deeper than 100 levels is masked whole.

        Args:
            value: JSON, or a message or dataclass that holds some; whatever else it holds is kept.
            depth: How deep in the data it stands.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int | float):  # a key may be a number, and JSON quotes none
            return value if self.text(shown := str(value)) == shown else _MASK
        if isinstance(value, Mapping | list | tuple | BaseMessage) and depth > _DEEPEST:
            return _MASK
        return self._held(value, depth + 1)

    def _held(self, value: Any, depth: int) -> Any:
        match value:
            case Mapping():
                found = {self.data(key, depth): self.data(one, depth) for key, one in value.items()}
                return MappingProxyType(found) if isinstance(value, MappingProxyType) else found
            case list():
                return [self.data(one, depth) for one in value]
            case tuple():
                return tuple(self.data(one, depth) for one in value)
            case BaseMessage():
                return value.model_copy(update=self.data(vars(value), depth))
            case _ if is_dataclass(value) and not isinstance(value, type):
                held = {one.name: getattr(value, one.name) for one in fields(value) if one.init}
                return replace(value, **self.data(held, depth))
        return value

    def clean(self, error: SequrityError) -> None:
        """Clean an exception in place: its text, and all that it says as data."""
        error.args = (self.text(str(error)),)
        for name, value in vars(error).items():
            setattr(error, name, self.data(value))


@dataclass(frozen=True, slots=True)
class _View:
    """A text as it may be read: characters, and where each stands in the text.

    Attributes:
        chars: The characters.
        starts: Of each, where it begins in the text.
        ends: Of each, where it ends.
    """

    chars: str
    starts: Sequence[int]
    ends: Sequence[int]

    def rewritten(self, pattern: re.Pattern[str], read: Callable[[str], str]) -> "_View":
        """The view with other characters in the place of those that a pattern finds."""
        chars, starts, ends, last = list[str](), list[int](), list[int](), 0
        for found in pattern.finditer(self.chars):
            first, after = found.span()
            said = read(found[0])
            chars += self.chars[last:first], said
            starts += [*self.starts[last:first], *[self.starts[first]] * len(said)]
            ends += [*self.ends[last:first], *[self.ends[after - 1]] * len(said)]
            last = after
        if not last:
            return self
        chars.append(self.chars[last:])
        return _View("".join(chars), [*starts, *self.starts[last:]], [*ends, *self.ends[last:]])

    def spans_of(
        self, parts: frozenset[str], quarters: frozenset[str]
    ) -> Iterator[tuple[int, int]]:
        """Where the text has parts of keys.

        Args:
            parts: All parts of 8 characters.
            quarters: All parts of 4: one stands at each multiple of 4 that a part of 8 covers, so
                that nothing else is looked at.
        """
        chars = _BLANK.sub("", self.chars).translate(_FOLDED)
        near = [at for at in range(0, len(chars), _STEP) if chars[at : at + _STEP] in quarters]
        view = self.rewritten(_BLANK, lambda _: "") if near else self
        for at in near:
            for first in range(max(at - _STEP + 1, 0), at + 1):
                if chars[first : first + _SHORTEST_PART] in parts:
                    yield view.starts[first], view.ends[first + _SHORTEST_PART - 1]


def _views(text: str) -> Iterator[_View]:
    """A text as it is, and with its escapes resolved, once and again."""
    view = _View(text, range(len(text)), range(1, len(text) + 1))
    yield view
    for _ in range(_ROUNDS):
        before, view = view, view.rewritten(_ESCAPE, _unescaped)
        if view is before:
            return
        yield view


def _unescaped(escape: str) -> str:
    if escape[0] == "&":
        return html.unescape(escape)
    if escape[0] == "%" or escape[1] in "ux":
        return chr(int(escape.lstrip("%\\ux"), 16))
    return _CONTROLS.get(escape[1], escape[1])


def _parts_of(key: str) -> Iterator[str]:
    """All that a text shares with a key where it shares 8 characters with it."""
    for form in (*(view.chars for view in _views(key)), *_in_base64(key)):
        chars = _BLANK.sub("", form).translate(_FOLDED)
        for first in range(len(chars) - _SHORTEST_PART + 1):
            yield chars[first : first + _SHORTEST_PART]


def _in_base64(key: str) -> Iterator[str]:
    """A key within base64, where it may begin at each of three bytes; only what is all its own."""
    if len(key) < _SHORTEST_PART:
        return
    for before in range(3):
        data = bytes(before) + key.encode()
        whole = len(data) * 8 // 6  # characters that hang on no byte after the key
        yield base64.b64encode(data).decode()[-(-before * 8 // 6) : whole]


def _masked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    shown, end = list[str](), 0
    for first, after in sorted(spans):
        if first > end or not shown:
            shown += text[end:first], _MASK
        end = max(end, after)
    return "".join([*shown, text[end:]])
