"""Hostile texts, and checks that their display is safe in terminals, notebooks and diagrams."""

import io
import re
import unicodedata
from html.parser import HTMLParser
from typing import Any

from rich.console import Console

from tests.test_display import HOSTILE

MARKUP = (
    "<script>alert(1)</script>",
    "<img src=https://evil/x onerror=alert(1)>",
    "&lt;b&gt;",
    '"] click r1n0 "https://evil" _blank',
    "a --> b; end",
    "%%{init: {}}%%",
    "`**bold**`",
    "[bold red]x[/] [link=https://evil]y[/link]",
)
CORPUS = tuple(case[1] for case in HOSTILE) + MARKUP
# JSON cannot contain a lone surrogate.
SENDABLE = tuple(text for text in CORPUS if text.encode(errors="ignore"))

_TAGS = {"table", "caption", "thead", "tbody", "tr", "th", "td", "br", "p"}
_ACTING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_NAME = r"r\d+n\d+"
_LABEL = r'"(?:[\w _.,-]|#\d+;)*"'
_STYLE = re.compile(r"color: #[0-9a-f]{6}|text-align: left(; font-family: monospace)?")
_MERMAID = re.compile(
    rf"flowchart LR|  subgraph r\d+\[{_LABEL}\]|  end|  classDef denied [\w:#,-]+ ?[\w:#,-]*"
    rf"|    {_NAME}(?:\[{_LABEL}\]|\{{{_LABEL}\}}|\(\[{_LABEL}\]\))(?::::denied)?"
    rf"|    {_NAME} -->\|{_LABEL}\| {_NAME}"
)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append((tag, attrs))


def assert_inert(shown: str) -> None:
    """No character of the text controls a terminal or changes the order of the text."""
    acting = {char for char in shown if unicodedata.category(char) in _ACTING} - {"\n"}
    assert not acting


def assert_plain_html(shown: str) -> None:
    """The HTML has only tags of a table, and only colours, alignment and fonts as attributes."""
    assert_inert(shown)
    tags = _Tags()
    tags.feed(shown)
    assert {tag for tag, _ in tags.seen} <= _TAGS
    given = [attribute for _, attributes in tags.seen for attribute in attributes]
    assert all(name == "style" and _STYLE.fullmatch(value) for name, value in given)


def assert_plain_mermaid(shown: str) -> None:
    """Each line has a form that the package writes, with only plain text in labels."""
    for line in shown.split("\n"):
        assert _MERMAID.fullmatch(line), line


def on_rich(shown: Any) -> str:
    """The output of rich."""
    screen = io.StringIO()
    Console(file=screen, width=400).print(shown)
    return screen.getvalue()


def assert_shown_safely(shown: Any) -> None:
    """`str`, rich and HTML show an object safely."""
    assert_inert(str(shown))
    assert_inert(on_rich(shown))
    assert_plain_html(shown._repr_html_())
