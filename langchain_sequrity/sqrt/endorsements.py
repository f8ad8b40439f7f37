"""Endorsements: tags that say where else the value of an argument was found.

A label says where a value comes from. An endorsement says that the same value also stands somewhere
that nobody else writes: in the user's own messages, or in a field of what a tool returned. So a
rule can allow a value in spite of its labels, because the user wrote it, too.

The gate adds endorsements to the arguments of one check, if a policy tests them. They are on no
value: no program, tool or result can have them. In doubt there is none, so a rule has to be written
such that a value without one is denied; `check` finds the others. Only the local server has them
(`docs/policies.md`, Values that also stand elsewhere).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Any

from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt.context import Argument, Call
from langchain_sequrity.sqrt.nodes import TextLiteral, walk

NAMED_BY_USER = "__named_by_user"
SITE_NAMED_BY_USER = "__site_named_by_user"
RETURNED_BY = "__returned_by:"
"""Followed by the name of a tool, or `tool/field` as in the name of a block."""

_MOST_WORDS = 1_000_000  # characters of the user
_MOST_ITEMS = 100  # of a list
_LONGEST_VALUE = 10_000  # characters
_MOST_RETURNED = 100_000  # values of all results


def is_endorsement(tag: str) -> bool:
    """Whether a tag is one that only the gate adds, to arguments."""
    return tag in (NAMED_BY_USER, SITE_NAMED_BY_USER) or tag.startswith(RETURNED_BY)


def endorsements_in(nodes: object) -> frozenset[str]:
    """The endorsements that a node of a policy, or a tuple of nodes, mentions."""
    texts = (node.raw for node in walk(nodes) if isinstance(node, TextLiteral))
    return frozenset(filter(is_endorsement, texts))


def tool_of(tag: str) -> str:
    """The tool that an endorsement names; empty if it names none."""
    return _tool_and_names(tag)[0] if tag.startswith(RETURNED_BY) else ""


def _tool_and_names(tag: str) -> tuple[str, list[str]]:
    tool, slash, path = tag.removeprefix(RETURNED_BY).partition("/")
    return tool, [n.replace("~1", "/").replace("~0", "~") for n in path.split("/")] if slash else []


@dataclass(frozen=True)
class Sources:
    """Where the values of arguments are looked up.

    Attributes:
        words: The user's own texts.
        results: The results that a tool returned in this turn, without errors.
    """

    words: Callable[[], Iterable[str]]
    results: Callable[[str], Iterable[Any]]

    def endorsed(self, call: Call, tags: Iterable[str]) -> Call:
        """The call with the endorsements of its arguments, for one check."""
        finders = {tag: self._finder(tag) for tag in tags}

        def endorsed_argument(argument: Argument) -> Argument:
            tags = frozenset(tag for tag, finds in finders.items() if finds(argument.value))
            labels = argument.labels.join(Labels(tags=tags))
            return replace(argument, labels=labels) if tags else argument

        arguments = {name: endorsed_argument(argument) for name, argument in call.arguments.items()}
        return replace(call, arguments=arguments)

    def _finder(self, tag: str) -> Callable[[Any], bool]:
        if tag == NAMED_BY_USER:
            return lambda value: _all_items(value, self._text.names)
        if tag == SITE_NAMED_BY_USER:
            return lambda value: _all_items(value, self._text.names_site)
        tool, names = _tool_and_names(tag)
        returned: list[frozenset[Any]] = []

        def is_returned(value: Any) -> bool:
            if not returned:
                returned.append(_values_at(self.results(tool), names))
            return _all_items(value, lambda item: _key(item) in returned[0])

        return is_returned

    @cached_property
    def _text(self) -> "_UserText":
        return _UserText("\n".join(self.words()))


def _all_items(value: Any, is_found: Callable[[Any], bool]) -> bool:
    """Whether a value is found, or each item of a list that has some."""
    if isinstance(value, list | tuple):
        return 0 < len(value) <= _MOST_ITEMS and all(map(is_found, value))
    return is_found(value)


# The user's words

_SPACE = r"\s\"\u201c\u201d\u201e\u00ab\u00bb\u2018()\[\]{}<>"
_BEFORE = rf"(?:(?<![^{_SPACE},;])|(?<=(?<!\w)['\u2019`]))"
# The mark that ends a sentence may also be within an address: `a.example.evil.example`
_AFTER = rf"(?=[,;.:!?]*(?:$|[{_SPACE}])|['\u2019`](?:s\b)?[,;.:!?]*(?:$|[{_SPACE}]))"
# Not a part of a date, time, range or larger number: `2024-05-19`, `1,200`, `1 200`, `5%`
_NUMBER = re.compile(
    r"(?<![\w.,:/'\u2019+\-\u2212])(?<![0-9][ \u00a0\u202f])-?[0-9]+(?:\.[0-9]+)?"
    r"(?!\w|%|[.,:/'\u2019\-\u2212][0-9]|[ \u00a0\u202f][0-9]{3}\b)"
)
_WORD = re.compile(rf"[^{_SPACE},;'\u2019`]+")


@dataclass(frozen=True)
class _UserText:
    """What the user wrote."""

    text: str

    def names(self, value: Any) -> bool:
        """Whether the text has a value as a whole: not as a part of a word, address or number."""
        if isinstance(value, bool) or not self._is_searched:
            return False
        if isinstance(value, int | float):
            return abs(value) < 10**15 and Decimal(str(value)) in self._numbers
        if not isinstance(value, str) or value.strip() != value or len(value) > _LONGEST_VALUE:
            return False
        has_words = any(map(str.isalnum, value))
        whole = _BEFORE + re.escape(value) + _AFTER
        return has_words and re.search(whole, self.text) is not None

    def names_site(self, value: Any) -> bool:
        """Whether the text has the site of an address, as a site or in an address."""
        if not isinstance(value, str) or not self._is_searched or len(value) > _LONGEST_VALUE:
            return False
        scheme, site = _site_of(value)
        schemes = {named for named_site, named in self._sites if named_site == site}
        return bool(schemes) and (scheme is None or not schemes.isdisjoint({scheme, None}))

    @property
    def _is_searched(self) -> bool:
        return len(self.text) <= _MOST_WORDS

    @cached_property
    def _numbers(self) -> frozenset[Decimal]:
        return frozenset(map(Decimal, _NUMBER.findall(self.text)))

    @cached_property
    def _sites(self) -> frozenset[tuple[str, str | None]]:
        words = (word.rstrip(".:!?") for word in _WORD.findall(self.text))
        return frozenset((site, scheme) for scheme, site in map(_site_of, words) if site)


_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# Stricter than any client that may read the address: no user name, no backslash, only ASCII, no
# escapes in the host, `/` after it, and a name as its last label, so that it is no IP address.
_SITE = re.compile(
    rf"(?:(?P<scheme>https?)://)?(?P<host>(?:{_LABEL}\.)+[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?)"
    r"(?::(?P<port>[0-9]{1,5}))?(?:/[!#-&(-;=?-\[\]_a-z~]*)?",
    re.IGNORECASE,
)
_PORTS = {"http": "80", "https": "443"}


def _site_of(address: str) -> tuple[str | None, str]:
    """The scheme, if written, and the host with an unusual port; an empty text in doubt."""
    match = _SITE.fullmatch(address)
    if match is None:
        return None, ""
    scheme = match["scheme"] and match["scheme"].lower()
    port = match["port"]
    is_usual = port is None or port == _PORTS.get(scheme or "")
    return scheme, match["host"].lower() + ("" if is_usual else f":{port}")


# What tools returned


def _values_at(results: Iterable[Any], names: Sequence[str]) -> frozenset[Any]:
    """The single values at a place in results, with lists skipped; none if there are too many."""
    keys = set()
    for count, value in enumerate(_items_at(results, names)):
        if count >= _MOST_RETURNED:
            return frozenset()
        if (key := _key(value)) is not None:
            keys.add(key)
    return frozenset(keys)


def _items_at(values: Iterable[Any], names: Sequence[str]) -> Iterator[Any]:
    waiting = [(value, 0) for value in values]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, list | tuple):
            waiting += ((item, depth) for item in value)
        elif depth == len(names):
            yield value
        elif isinstance(value, dict) and names[depth] in value:
            waiting.append((value[names[depth]], depth + 1))


def _key(value: Any) -> tuple[str, Any] | None:
    """What is equal for equal single values: in Python, true equals 1."""
    if isinstance(value, str):
        return ("text", value) if value else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", value
    return None
