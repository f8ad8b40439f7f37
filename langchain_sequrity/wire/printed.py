"""What the service prints behind a denial: the call, and what its check found, as Python writes it.

Recorded (`docs/protocol.md`, Dual-LLM content):

    Tool call <name> denied by argument checking policies. Tool calls: {…, 'kwargs_with_meta':
    {'<argument>': {'value': …, 'meta': {…}}}, …}. Checking results: {'final_verdict':
    'soft_denied', …, 'denial_reasons': [{'enforcement_level': 'soft'}]}
    Tool call to '<name>' is denied by argument checking policies. … Context: {'args': {…}}

The values in it are data that anybody may have written, and so may look like the words around them.
So nothing is searched for in it: from the first heading on, the text has to be headings and Python
literals up to its end, or nothing of it counts.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

MAX_PRINTED: Final = 1_000_000
"""Characters of a printed tail that are read; a longer one says nothing."""
_MAX_DEPTH = 80
_HEADING = re.compile(r"(?:^|\s|\.)(?P<name>Tool calls|Context|Checking results):\s*(?=[{\[])")
_NEXT = re.compile(r"[\s.;,]*(?:(?P<name>Tool calls|Context|Checking results):\s*|\Z)")
_TOKEN = re.compile(
    r"""\s*(?:(?P<mark>[{}\[\]:,])
    |(?P<text>'(?:[^'\\\n]|\\.)*+'|"(?:[^"\\\n]|\\.)*+")
    |(?P<number>-?\d++(?:\.\d++)?+(?:e[+-]?\d++)?+)
    |(?P<word>True|False|None)\b)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)")
_ESCAPES = {"\\\\": "\\", "\\'": "'", '\\"': '"', "\\n": "\n", "\\r": "\r", "\\t": "\t"}
_SURROGATES = range(0xD800, 0xE000)
_WORDS = {"True": True, "False": False, "None": None}
_CHECKED = re.compile(r"Policy check for tool call \S{1,200} of tool (?P<tool>[\w.:/-]{1,128}?)\.?")


@dataclass(frozen=True, slots=True)
class Printed:
    """What is printed behind a denial.

    Attributes:
        tool: The tool that is called.
        check: The result of the check, of the form of an entry of `policy_check_history`.
        arguments: The call's arguments: name → value, or `{value, meta}`.
        has_labels: Whether each argument is surely `{value, meta}`. Where that is not said, a value
            that looks so may be one that somebody made to look so.
    """

    tool: str | None = None
    check: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] | None = None
    has_labels: bool = False


class _NotPrinted(ValueError):
    """The text is not what Python prints of plain data."""


def read_printed(text: str) -> Printed:
    """Read what is printed behind a denial.

    Args:
        text: The whole message of the denial.

    Returns:
        What it says; nothing where it is printed otherwise, or not all of it can be read.
    """
    found = _HEADING.search(text)
    if found is None or len(text) - found.start() > MAX_PRINTED:
        return Printed()
    read: dict[str, Any] = {}
    heading: str | None = found["name"]
    at = found.end()
    try:
        while heading is not None:
            reader = _Reader(text, at)
            if heading in read:
                return Printed()
            read[heading] = reader.value(0)
            following = _NEXT.match(text, reader.at)
            if following is None:
                return Printed()
            heading, at = following["name"], following.end()
    except (ValueError, RecursionError):
        return Printed()
    call = _call_in(read)
    labelled, context = _object(call.get("kwargs_with_meta")), _object(read.get("Context")) or {}
    name = (_object(call.get("tool")) or {}).get("name")
    return Printed(
        tool=name if isinstance(name, str) and name else None,
        check=_object(read.get("Checking results")) or {},
        arguments=_object(context.get("args")) if labelled is None else labelled,
        has_labels=labelled is not None,
    )


def checked_tool(entry: Mapping[str, Any]) -> str | None:
    """The tool that a check names: in a field, or in the words of its description.

    Args:
        entry: An entry of `policy_check_history`.
    """
    for key in ("tool", "tool_name"):
        if isinstance(named := entry.get(key), str) and named:
            return named
    said = entry.get("description")
    found = _CHECKED.fullmatch(said) if isinstance(said, str) else None
    return None if found is None else found["tool"]


def _call_in(read: Mapping[str, Any]) -> Mapping[str, Any]:
    """The one call that is printed; nothing for several."""
    calls = read.get("Tool calls")
    if isinstance(calls, list) and len(calls) == 1:
        (calls,) = calls
    return _object(calls) or {}


def _object(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


class _Reader:
    """Reads Python's spelling of plain JSON data: each token once, and no code."""

    def __init__(self, text: str, at: int) -> None:
        self._text = text
        self.at = at

    def value(self, depth: int) -> Any:
        """The value that begins here."""
        token = self._next()
        if token["text"] is not None:
            return _unescaped(token["text"][1:-1])
        if token["word"] is not None:
            return _WORDS[token["word"]]
        if token["number"] is not None:
            digits = token["number"]
            number = int(digits) if digits.lstrip("-").isdigit() else float(digits)
            if not math.isfinite(number):
                raise _NotPrinted
            return number
        if depth > _MAX_DEPTH or token["mark"] not in ("{", "["):
            raise _NotPrinted
        return self._dict(depth) if token["mark"] == "{" else self._list(depth)

    def _list(self, depth: int) -> list[Any]:
        items: list[Any] = []
        self._items("]", lambda: items.append(self.value(depth + 1)))
        return items

    def _dict(self, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}

        def item() -> None:
            key = self._next()["text"]
            if key is None or self._next()["mark"] != ":":
                raise _NotPrinted
            name = _unescaped(key[1:-1])
            if name in items:
                raise _NotPrinted
            items[name] = self.value(depth + 1)

        self._items("}", item)
        return items

    def _items(self, end: str, item: Callable[[], None]) -> None:
        if (token := _TOKEN.match(self._text, self.at)) is not None and token["mark"] == end:
            self.at = token.end()
            return
        while True:
            item()
            mark = self._next()["mark"]
            if mark == end:
                return
            if mark != ",":
                raise _NotPrinted

    def _next(self) -> re.Match[str]:
        token = _TOKEN.match(self._text, self.at)
        if token is None:
            raise _NotPrinted
        self.at = token.end()
        return token


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_character, text) if "\\" in text else text


def _character(found: re.Match[str]) -> str:
    escape = found[0]
    if escape in _ESCAPES:
        return _ESCAPES[escape]
    if len(escape) == 2:  # noqa: PLR2004 - one that Python does not print
        raise _NotPrinted
    code = int(escape[2:], 16)  # noqa: FURB166 - zeros may come first
    if code in _SURROGATES:  # half a character, which JSON does not carry
        raise _NotPrinted
    return chr(code)  # a ValueError beyond Unicode
