"""What `url_blocker` blocks and what it leaves."""

import pytest

from tests.local.screening.screens import redacted, screen

URLS = screen("url_blocker")
MARK = "[URL BLOCKED]"

WHOLE = [
    "http://example.com",
    "HTTPS://EXAMPLE.COM/a?b=c#d",
    "ftp://files.example.com/a.zip",
    "custom+scheme://host/path",
    "https://user:secret@example.com:8443/",
    "www.example.com",
    "user@www.example.com",
    "example.com/path",
    "example.com:8080/path",
    "sub.domain.example.co.uk/?q=1",
    "example.com?secret=1",
    "user@example.com/path",
    "evil.boutique/x",
    "http://2130706433/",
    "http://127.0.0.1/",
    "192.0.2.7/collect",
    "192.0.2.7:8080",
    "localhost:3000",
    "http://[2001:db8::1]:80/x",
    "[2001:db8::1]/x",
    "xn--e1afmkfd.xn--p1ai/x",
    "https://пример.рф/путь",
    "пример.рф/путь",
    "https://日本語.jp/あ",
    "//cdn.example.com/pixel.gif",
    "javascript:alert(1);x",
    "JavaScript:alert(1)//x",
    "java\nscript:x",
    "v\tbscript:x",
    "data:text/html;base64,PGI+",
    "data:,hello",
    "mailto:someone@example.com",
]

INSIDE = [
    ("See http://example.com/a.", f"See {MARK}."),
    ("(see www.example.com)", f"(see {MARK})"),
    ('<a href="https://example.com/a b">', f'<a href="{MARK} b">'),
    ("[here](https://example.com/a)", f"[here]({MARK}])"[:-2] + ")"),
    ("![x](/collect?d=1)", f"![x]({MARK})"),
    ("![x](<a b.png>)", f"![x](<{MARK}>)"),
    ("a http://x.example b https://y.example c", f"a {MARK} b {MARK} c"),
    ("请看http://example.com/a\uff0c谢谢", f"请看{MARK}\uff0c谢谢"),
    ("key=http://example.com", f"key={MARK}"),
    ("xhttp://example.com", MARK),
    ("a" * 200 + "://example.com", MARK),
    ("x+http:\\\\example.com", MARK),
    ("(javascript:)", f"({MARK})"),
    ("x." * 40 + "example.com/secret", MARK),
    ("http://a.example/,http://b.example/", MARK),
]

HIDDEN = [
    ("zero width space", "ht\u200btp://example.com"),
    ("soft hyphen", "https\u00ad://example.com"),
    ("word joiner in the host", "example\u2060.com/x"),
    ("full width", "\uff48\uff54\uff54\uff50\uff1a\uff0f\uff0f\uff45\uff56\uff49\uff4c"),
    ("full width stop", "example\uff0ecom/x"),
    ("full width digits", "\uff11\uff19\uff12.0.2.7/x"),
]

PLAIN = [
    "",
    "example.com",
    "Ask example.com about it.",
    "either/or, and/or, 1/2",
    "10.0.0.0/8",
    "version 1.2.3.4",
    "main.py:12: error",
    "def f(x): return x[::2]/3",
    "// a comment",
    "a:b::c",
    "10:30",
    "note: javascript is fun",
    "metadata: none",
    "data: 5, 6",
    "arr[0](x)",
    "[see below](#below)",
    "e.g. this, i.e. that",
    "Ende. Anfang/Mitte",
    "/etc/hosts and ./src/main",
    "C:\\Users\\ann",
    "結束。第一/第二",
]


@pytest.mark.parametrize("text", WHOLE)
def test_a_url_is_blocked_as_a_whole(text: str) -> None:
    assert redacted(URLS, text) == MARK


@pytest.mark.parametrize(("text", "expected"), INSIDE)
def test_a_url_is_blocked_and_the_text_around_it_stays(text: str, expected: str) -> None:
    assert redacted(URLS, text) == expected


@pytest.mark.parametrize("text", [text for _, text in HIDDEN], ids=[name for name, _ in HIDDEN])
def test_a_url_in_an_obfuscated_spelling_is_blocked(text: str) -> None:
    assert redacted(URLS, f"go to {text} now") == f"go to {MARK} now"


@pytest.mark.parametrize("text", PLAIN)
def test_text_that_is_not_a_url_stays(text: str) -> None:
    assert redacted(URLS, text) == text


@pytest.mark.parametrize("text", ["http://example.com", "a@b.example", "data:,x"])
def test_a_screen_without_blockers_blocks_nothing(text: str) -> None:
    assert redacted(screen(), text) == text
