"""Texts of models, tools and servers cannot control the display (security.md 11)."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from langchain_sequrity.display import plain, rich_text
from langchain_sequrity.display.tables import Table

HOSTILE = [
    ("colour", "\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
    ("clear screen", "\x1b[2J\x1b[H", r"\x1b[2J\x1b[H"),
    ("window title", "\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
    ("terminal link", "\x1b]8;;https://x\x1b\\click\x1b]8;;\x1b\\", r"\x1b]8;;https://x\x1b\click\x1b]8;;\x1b" + "\\"),
    ("C1 control", "\x9b31m", r"\x9b31m"),
    ("carriage return", "safe\rEVIL", r"safe\rEVIL"),
    ("backspace", "a\x08b", r"a\x08b"),
    ("fake log line", "x\nINFO ok", r"x\nINFO ok"),
    ("line separator", "x\u2028y\u2029z", r"x\u2028y\u2029z"),
    ("bidi override", "user\u202etxt.exe", r"user\u202etxt.exe"),
    ("bidi isolate", "\u2066a\u2069", r"\u2066a\u2069"),
    ("zero width space", "pay\u200bpal", r"pay\u200bpal"),
    ("tag characters", "hi\U000e0041", r"hi\U000e0041"),
    ("byte order mark", "\ufeffx", r"\ufeffx"),
    ("lone surrogate", "\ud800", r"\ud800"),
    ("null", "a\x00b", r"a\x00b"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), [c[1:] for c in HOSTILE], ids=[c[0] for c in HOSTILE])
def test_acting_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    "text",
    ["Hello", "Grüße", "水 🦊", "\U0001f469\u200d\U0001f467", "שלום", "ä\u0308", "a [b]c[/b]"],
)
def test_ordinary_text_of_any_script_is_not_changed(text: str) -> None:
    assert plain(text) == text


@given(st.text())
def test_no_acting_characters_remain(text: str) -> None:
    shown = plain(text, lines=True)
    left = {unicodedata.category(char) for char in shown if char not in "\n\t\u200c\u200d"}
    assert not left & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    shown.encode()


def test_long_text_is_cut_and_the_rest_counted() -> None:
    assert plain("x" * 30, limit=10) == "x" * 10 + "… (20 more characters)"


def test_line_breaks_and_tabs_are_kept_on_request() -> None:
    assert plain("a\n\tb\r", lines=True) == "a\n\tb\\r"


def test_rich_shows_markup_as_text() -> None:
    screen = io.StringIO()
    Console(file=screen, force_terminal=True, width=80).print(
        rich_text("[bold]x[/bold] [link=https://evil]y[/link] \x1b[2J :smile:")
    )
    assert "[bold]x[/bold] [link=https://evil]y[/link] \\x1b[2J :smile:" in screen.getvalue()


def test_wide_characters_and_accents_do_not_shift_the_columns_of_a_table() -> None:
    # A character of width 2, an accent of width 0: each cell is 4 wide.
    rows = tuple(((cell,), ("x",)) for cell in ("name", "\u65e5\u672c", "nam\u0065\u0301"))
    assert Table("", ("a", "b"), rows).text(80).splitlines()[3:] == [
        "name  x", "\u65e5\u672c  x", "nam\u0065\u0301  x",
    ]  # fmt: skip


WIDE = Table(
    "A title of more words than a narrow terminal has room for in a line of its own",
    ("#", "call", "sure", "labels", "why"),
    tuple(
        ((str(number),), (f"a_tool_with_a_long_name_{number}",), ("certain",),
         ("mail ← read_mail, summarise [mail, web]", f"count{number} ← user"), (why,))
        for number, why in enumerate(["no rule decides"] * 3 + ["mail stays in the house " * 4], 1)
    ),
    ("A note that is also longer than a line of the terminal and has to be wrapped at words",),
)  # fmt: skip


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_a_table_fits_the_terminal_without_split_words(width: int) -> None:
    text = WIDE.text(width)
    assert max(map(len, text.splitlines())) <= width
    words = {word for row in WIDE.rows for cell in row for part in cell for word in part.split()}
    assert words <= {word.strip(";") for word in text.split()} | {"certain"}
    assert "terminal has" in " ".join(text.split())


def test_what_most_rows_repeat_is_only_above_a_table_that_is_too_wide() -> None:
    lines = WIDE.text(60).splitlines()
    assert lines.count("sure (in all rows): certain") == 1
    assert lines.count("why (unless written below a row): no rule decides") == 1
    assert sum("mail stays" in line for line in lines) == 2
    assert "sure" in WIDE.text(400).splitlines()[1]


def test_only_a_word_that_is_longer_than_a_line_is_split() -> None:
    lines = Table("", ("a", "b"), ((("x",), ("y" * 100,)),)).text(40).splitlines()
    assert max(map(len, lines)) <= 40
    assert "".join(lines).replace(" ", "").count("y") == 100


def test_cells_in_notebooks_are_aligned_to_the_left_and_code_is_monospace() -> None:
    page = Table("", ("Rule", "Why"), ((("must",), ("so",)),), code=frozenset({"Rule"})).html()
    assert '<td style="text-align: left; font-family: monospace">must</td>' in page
    assert '<td style="text-align: left">so</td>' in page
