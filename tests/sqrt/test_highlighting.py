"""Policies in colour are readable, and their text is never interpreted as markup."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_sequrity.display import plain
from langchain_sequrity.headers import PolicyCodes, PolicyHeader
from langchain_sequrity.sqrt import parse
from langchain_sequrity.sqrt.highlighter import highlight, highlighted
from langchain_sequrity.sqrt.lexer import MAX_CHARACTERS
from tests.showing import CORPUS, MARKUP, assert_inert, on_rich

CASES = json.loads((Path(__file__).parent / "cases.json").read_text(encoding="utf-8"))["valid"]
_STYLE = re.compile(r"color: (#[0-9a-f]{6}); unicode-bidi: isolate")
_LAYOUT = {
    ("dir", "ltr"),
    ("style", "text-align: left"),
    ("style", "text-align: left; font-family: monospace"),
    ("style", "font-family: monospace; text-align: left"),
}
_TABLE = {"table", "caption", "thead", "tbody", "tr", "th", "td"}


class _Page(HTMLParser):
    """The text that a page shows, with the colour of each piece."""

    def __init__(self, shown: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Any]] = []
        self.pieces: list[tuple[str, str]] = []
        self._colour = ""
        self.feed(shown)
        self.close()

    @property
    def text(self) -> str:
        return "".join(piece for _, piece in self.pieces)

    def colour(self, piece: str) -> str:
        return next(colour for colour, found in self.pieces if found == piece)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))
        style = _STYLE.fullmatch(dict(attrs).get("style") or "")
        self._colour = style[1] if style else ""

    def handle_endtag(self, _: str) -> None:
        self._colour = ""

    def handle_data(self, data: str) -> None:
        self.pieces.append((self._colour, data))


def assert_only_coloured(shown: str) -> None:
    for tag, attributes in _Page(shown).tags:
        if tag == "span":
            assert [name for name, _ in attributes] == ["style"]
            assert _STYLE.fullmatch(attributes[0][1])
        else:
            assert tag in {"pre", *_TABLE}
            assert set(attributes) <= _LAYOUT


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["what"])
def test_the_whole_policy_is_shown(case: dict[str, str]) -> None:
    expected = plain(case["code"].replace("\r\n", "\n"), limit=10_000, lines=True)
    assert _Page(highlight(case["code"])).text == expected
    assert highlighted(case["code"]).plain == expected
    assert_only_coloured(highlight(case["code"]))


def test_words_are_coloured_by_their_function() -> None:
    page = _Page(highlight(
        '/// why\ntool "t" { must deny when from.tags overlaps {r"x", 5}; should allow always; }'
    ))  # fmt: skip
    kinds = ("tool", "deny", "allow", '"t"', 'r"x"', "5", "tags", "/// why")
    assert len({page.colour(kind) for kind in kinds}) == len(kinds)
    assert "" not in {page.colour(kind) for kind in kinds}
    assert page.colour("must") == page.colour("tool")


@pytest.mark.parametrize("word", ["from", "when", "deny", "true", "tool"])
def test_a_keyword_used_as_a_name_has_no_colour(word: str) -> None:
    for text in (
        f"let {word} = {{}};",
        f"let p = {word}.value == 1;",
        f"let p = {word} . tags == x;",
    ):
        pieces = _Page(highlight(text)).pieces
        assert all(word not in piece.split() for colour, piece in pieces if colour)


@pytest.mark.parametrize("background", [(255, 255, 255), (30, 30, 30), (0, 0, 0)])
def test_colours_are_readable_on_light_and_dark_backgrounds(
    background: tuple[int, int, int],
) -> None:
    text = '/// d\n// c\ntool "t" { must deny when a.value in {r"x", 5}; should allow always; }'
    used = {colour for one in (text, "#") for colour, _ in _Page(highlight(one)).pieces} - {""}
    assert len(used) >= 7
    for colour in used:
        channels = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert _contrast(tuple(channels), background) >= 3


def _contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """The contrast ratio of WCAG 2. Large or bold text needs at least 3."""

    def luminance(colour: tuple[int, ...]) -> float:
        parts = [part / 255 for part in colour]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _around(text: str) -> list[str]:
    quoted = text.replace("\\", "").replace('"', "")
    comment = text.replace("\n", "").replace("*/", "")
    return [
        text, f"// {comment}\nlet x = {{}};", f"/* {comment} */", f"/// {comment}\nlet x = {{}};",
        f'let x = {{"{quoted}", r"{quoted}"}};', f'tool "{quoted}" {{}}', f"let {text} = 5;",
    ]  # fmt: skip


@pytest.mark.parametrize("hostile", CORPUS)
def test_hostile_text_is_inert(hostile: str) -> None:
    for text in _around(hostile):
        assert_inert(highlight(text))
        assert_only_coloured(highlight(text))
        assert_inert(on_rich(highlighted(text)))


@pytest.mark.parametrize("markup", MARKUP)
def test_markup_is_shown_as_it_was_written(markup: str) -> None:
    text = f"// {markup}\n"
    assert _Page(highlight(text)).text == text
    assert on_rich(highlighted(text)).rstrip() == text.rstrip()


@given(st.text())
def test_any_text_is_inert(text: str) -> None:
    shown = highlight(text.replace("\t", "").replace("\u200c", "").replace("\u200d", ""))
    assert_inert(shown)
    assert_only_coloured(shown)


def test_a_text_that_the_lexer_refuses_is_shown_plain_with_the_error() -> None:
    page = _Page(highlight("must deny <b>\n# no"))
    assert page.text == (
        "This is not SQRT: There is no `<`; write `a.value in {int ..<3}` (line 1, column 11)\n"
        "must deny <b>\n# no"
    )
    assert [colour != "" for colour, _ in page.pieces] == [True, False]


def test_a_text_that_is_too_long_is_cut_and_marked() -> None:
    page = _Page(highlight("x" * (MAX_CHARACTERS + 5)))
    assert page.text.startswith("This text is longer than a policy may be: 65541 characters\nxxx")
    assert page.text.endswith("x… (5 more characters)")


def test_an_invalid_policy_made_of_valid_tokens_is_in_colour() -> None:
    assert _Page(highlight("deny always;")).colour("deny")


# Display of objects


def test_a_parsed_policy_shows_its_text_in_colour() -> None:
    text = 'tool "x" { must deny always; }'
    policy = parse(text)
    assert str(policy) == text
    assert policy._repr_html_() == highlight(text)
    assert on_rich(policy) == on_rich(highlighted(text))


def test_a_policy_header_shows_its_text_in_colour_and_its_other_fields() -> None:
    text = 'tool "x" { must deny always; }'
    header = PolicyHeader.from_sqrt(text, mode="custom", default_allow=False)
    page = _Page(header._repr_html_())
    assert highlight(text) in header._repr_html_()
    for field in ("mode", '"custom"', "presets.default_allow", "false"):
        assert field in [piece for _, piece in page.pieces]
        assert field in on_rich(header)
    assert text in on_rich(header)


def test_a_policy_header_with_only_a_policy_text_shows_no_table() -> None:
    text = 'tool "x" { must deny always; }'
    assert PolicyHeader.from_sqrt(text)._repr_html_() == highlight(text)
    assert on_rich(PolicyHeader.from_sqrt(text)) == on_rich(highlighted(text))
    assert "X-Policy" in on_rich(PolicyHeader(auto_gen=True))
    assert "X-Policy" in PolicyHeader()._repr_html_()


@pytest.mark.parametrize("hostile", [one for one in CORPUS if one.encode(errors="ignore")])
@pytest.mark.parametrize("language", ["sqrt", "cedar"])
def test_a_policy_header_is_inert(hostile: str, language: Literal["sqrt", "cedar"]) -> None:
    comment = "".join(f"// {line}\n" for line in hostile.split("\n"))
    codes = PolicyCodes(code=comment if language == "sqrt" else hostile, language=language)
    header = PolicyHeader(codes=codes, extra={"x": {"y": hostile}, f"z{hostile}": [hostile]})
    assert_inert(header._repr_html_())
    assert_only_coloured(header._repr_html_())
    assert_inert(on_rich(header))
