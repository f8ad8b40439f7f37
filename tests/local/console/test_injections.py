"""Each text has an effect where its hole is, and none in a page that only displays it."""

import html
import json

import pytest

from tests.local.console.chromium import OpenPage, assert_clean, incidents
from tests.local.console.holes import HOLES, STRICT_POLICY, PageServer, event_stream, page
from tests.local.console.injections import CORPUS, EVALUATED, effects

ATTACKS = [injection for injection in CORPUS if injection.hole]
# A letter with hundreds of marks is one character, which does not wrap: without a font that stacks
# the marks, it is wider than a page.
STYLE = """p { overflow: hidden; overflow-wrap: anywhere; white-space: pre-wrap }
input { max-width: 100% }"""
EFFECTS = {
    "variable": ("<script>injected = 1</script>", "", "variable: 1"),
    "variable of a frame": ("<iframe srcdoc='<script>injected = 1</script>'></iframe>", "", "variable: 1"),
    "dialog": ("<script>alert(1)</script>", "", "dialog: alert '1'"),
    "request": ("<script>fetch('http://injected.invalid/1')</script>", "", "foreign request: http://injected.invalid/1"),
    "element": ("<b id=injected-1>text</b>", STRICT_POLICY, "element: b injected-1"),
    "attribute": ("<b data-injected=1>text</b>", STRICT_POLICY, "attribute: b data-injected=1"),
    "script that is blocked": ("<script>/*injected*/</script>", STRICT_POLICY, "code: script /*injected*/"),
    "handler that is blocked": ("<b onclick=alert(/injected/)>text</b>", STRICT_POLICY, "attribute: b onclick=alert(/injected/)"),
    "link that runs code": ("<a href='\tjava\nscript:0'>text</a>", STRICT_POLICY, "attribute: a href=\tjava\nscript:0"),
    "request of htmx": ("<b data-hx-get=//injected.invalid/1>text</b>", STRICT_POLICY, "attribute: b data-hx-get=//injected.invalid/1"),
    "base": ("<base href=http://injected.invalid/>", "", "base: http://injected.invalid/"),
    "template": (EVALUATED, STRICT_POLICY, "template: evaluated"),
    "overflow": ("<p style=width:900px>text</p>", "", 'overflow: 900 px in 800 px, at <p style="width:900px">text</p>'),
}  # fmt: skip


@pytest.mark.long(sample=6)
@pytest.mark.parametrize("effect", EFFECTS)
def test_an_effect_is_seen(effect: str, open_page: OpenPage, pages: PageServer) -> None:
    body, policy, expected = EFFECTS[effect]
    pages.show(page(f"<style>body {{ margin: 0 }}</style>{body}"), policy=policy)
    opened = open_page(pages.base_url, width=800)
    opened.goto("/")
    assert expected in effects(opened)


def test_a_test_that_tries_several_texts_in_a_page_forgets_the_effects_of_each(
    open_page: OpenPage, pages: PageServer
) -> None:
    pages.show(page("<script>alert(1)</script>"))
    opened = open_page(pages.base_url)
    opened.goto("/")
    assert effects(opened)
    pages.show(page("text"))
    incidents(opened).clear()
    opened.goto("/")
    assert effects(opened) == []


def test_there_are_many_different_texts() -> None:
    assert len({injection.text for injection in CORPUS}) == len(CORPUS) >= 400
    assert {injection.hole for injection in ATTACKS} == HOLES.keys()
    assert not any(EVALUATED in injection.text for injection in CORPUS)


def test_some_texts_can_be_sent_only_as_escapes_of_json() -> None:
    only_json = [injection.text for injection in CORPUS if injection.needs_json]
    assert only_json
    for text in only_json:
        with pytest.raises(UnicodeEncodeError):
            text.encode()
        assert json.loads(json.dumps(text).encode()) == text


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("group", sorted({injection.group for injection in ATTACKS}))
def test_each_text_has_an_effect_through_its_hole(
    group: str, open_page: OpenPage, pages: PageServer
) -> None:
    if group == "template":
        pytest.importorskip("jinja2", reason="needs Jinja")
    opened = open_page(pages.base_url, width=800)
    harmless = []
    for injection in ATTACKS:
        if injection.group != group:
            continue
        pages.show(HOLES[injection.hole](injection.text))
        pages.pages["/events"] = (event_stream(injection.text), "text/event-stream")
        incidents(opened).clear()
        opened.goto("/")
        if injection.hole == "event stream":
            opened.wait_for_function("document.title === 'End'")
        if not effects(opened):
            harmless.append(injection)
    assert harmless == []


def test_no_text_has_an_effect_in_a_page_that_escapes_it(
    open_page: OpenPage, pages: PageServer
) -> None:
    """Positions: text, an attribute, and JSON in a script element."""
    escaped = [html.escape(injection.text) for injection in CORPUS]
    data = json.dumps([injection.text for injection in CORPUS]).replace("<", "\\u003c")
    body = [
        f'<p title="{text}">{text}</p><input aria-label=text value="{text}">' for text in escaped
    ]
    head = "<title>Page</title><link rel=stylesheet href=/style.css>"
    pages.show(
        page(f"{''.join(body)}<script type=application/json>{data}</script>", head=head),
        policy=STRICT_POLICY,
    )
    pages.pages["/style.css"] = (STYLE, "text/css")
    opened = open_page(pages.base_url, width=360)
    opened.goto("/")
    assert effects(opened) == []
    assert opened.locator("p").count() == len(CORPUS)
    assert_clean(opened)
