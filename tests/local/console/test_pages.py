"""All pages of the console: with the keyboard alone, narrow and wide, light and dark."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect

from langchain_sequrity.local import LocalServer
from tests.local.console import accessibility, traffic
from tests.local.console.chromium import OpenPage, assert_clean, incidents, settle
from tests.local.console.traffic import converse

_CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex='0']"
_FIND_CONTROLS = f"""() => {{
  window.controls = [...document.querySelectorAll("{_CONTROLS}")].filter(control =>
    control.type !== "hidden" && !control.disabled && control.checkVisibility({{visibilityProperty: true}}));
  return controls.map(control => control.outerHTML.slice(0, 120));
}}"""
_FOCUSED = """() => {
  const element = document.activeElement;
  if (element === document.body) return null;
  const shown = element.closest(".paper") ?? element;  // the editor outlines its paper
  const style = getComputedStyle(shown);
  const header = document.querySelector(".top");
  const place = element.getBoundingClientRect();
  const isAbove = !header || header.contains(element) || style.position === "absolute";
  const top = isAbove ? 0 : header.getBoundingClientRect().bottom;
  return {
    index: controls.indexOf(element),
    isOutlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
    isInView: place.bottom > top && place.top < innerHeight,
  };
}"""
_CUT = """() => [...document.querySelectorAll("h1, h2, h3, button, label, summary, nav a, th, .verdict")]
  .filter(element => element.checkVisibility() && !element.closest(".scroll, .code, .unseen, .skip"))
  .filter(element => {
    const place = element.getBoundingClientRect();
    const isClipped = getComputedStyle(element).overflowX !== "visible" && element.scrollWidth > element.clientWidth + 1;
    return isClipped || place.left < 0 || place.right > innerWidth + 1;
  }).map(element => element.outerHTML.slice(0, 200))"""
QUESTION = {
    "tool": "send_mail",
    "arguments": {"to": "eve@example.net", "text": "a long text " * 40},
    "labels": {"to": {"tags": ["mail"], "producers": ["read_inbox"], "consumers": ["*"]}},
    "rule": 'should deny when to.tags overlaps {"mail"};',
    "reason": "an address out of a mail may be an attacker's",
    "source": "payments",
}
MISTAKE = 'tool "sendmail" {\n    must deny wen to.tags overlaps {"mail"};\n}'


@pytest.fixture(scope="module")
def busy() -> Iterator[LocalServer]:
    """A server that has answered a request in each way."""
    with LocalServer(script=traffic.SCRIPT) as running:
        converse(running, "Sum the invoices", "Reply to the first mail")
        converse(running, "Archive please")
        converse(running, "Sum with a tool that fails", run=traffic.fail_tool)
        converse(
            running,
            "Write to Eve",
            features={"agent_arch": "single-llm"},
            policy='tool "send_mail" { must deny when to.value in {"eve@example.net"}; }',
        )
        converse(running, f"Reply {'and be very polite ' * 30}")
        traffic.run_graph(running)
        yield running


@pytest.fixture(scope="module")
def empty() -> Iterator[LocalServer]:
    with LocalServer() as running:
        yield running


def _turn(request: str) -> Callable[[Page], None]:
    def open_turn(page: Page) -> None:
        page.get_by_role("list", name="Sessions").get_by_role("link", name=request).click()
        expect(page.get_by_role("heading", name="Calls")).to_be_visible()

    return open_turn


def _editor(page: Page, text: str) -> None:
    _turn("Reply to the first mail")(page)
    page.get_by_role("link", name="Edit its policy").click()
    page.get_by_label("Text in SQRT").fill(text)


def _mistake(page: Page) -> None:
    _editor(page, MISTAKE)
    expect(page.get_by_text("found `wen`")).to_be_visible()


def _differences(page: Page) -> None:
    _editor(page, 'tool "send_mail" { must deny always; }')
    expect(page.get_by_text("No mistake was found")).to_be_visible()
    page.get_by_role("button", name="Run them again").click()
    expect(page.get_by_text("would end differently")).to_be_visible()


def _question(page: Page) -> None:
    assert page.request.post("/console/questions", data=QUESTION).status == 201
    page.get_by_role("link", name="Approvals").click()
    expect(page.get_by_role("article").first).to_be_visible()


def _no_match(page: Page) -> None:
    page.get_by_label("Tool").fill("nothing")
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()


def _log_out(page: Page) -> None:
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token or key")).to_be_visible()
    incidents(page).clear()  # the browser reports the status 401


def _wrong_token(page: Page) -> None:
    _log_out(page)
    page.get_by_label("Token or key").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    incidents(page).clear()


def _link(name: str) -> Callable[[Page], None]:
    def open_link(page: Page) -> None:
        page.get_by_role("navigation").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()

    return open_link


PAGES: dict[str, tuple[str, Callable[[Page], None]]] = {
    "sessions": ("busy", lambda _: None),
    "no sessions": ("empty", lambda _: None),
    "no match": ("busy", _no_match),
    "denied turn": ("busy", _turn("Reply to the first mail")),
    "long request": ("busy", _turn("very polite")),
    "failed program": ("busy", _turn("Archive please")),
    "failed tool": ("busy", _turn("Sum with a tool that fails")),
    "single-LLM turn": ("busy", _turn("Write to Eve")),
    "graph": ("busy", _turn("Graph")),
    "editor with a mistake": ("busy", _mistake),
    "differences": ("busy", _differences),
    "empty editor": ("empty", _link("Policy")),
    "question": ("busy", _question),
    "no questions": ("empty", _link("Approvals")),
    "activity": ("busy", _link("Activity")),
    "no activity": ("empty", _link("Activity")),
    "login": ("busy", _log_out),
    "wrong token": ("busy", _wrong_token),
}


@pytest.fixture(params=PAGES)
def visit(request: pytest.FixtureRequest, open_page: OpenPage) -> Iterator[Callable[..., Page]]:
    """Opens a page of the table. At the end it must be clean."""
    name, prepare = PAGES[request.param]
    server: LocalServer = request.getfixturevalue(name)
    opened: list[Page] = []
    expect.set_options(timeout=20_000)

    def visit(**options: Any) -> Page:
        page = open_page(server.base_url, **options)
        page.goto(server.console_url)
        prepare(page)
        settle(page)
        opened.append(page)
        return page

    yield visit
    for page in opened:
        assert_clean(page)


@pytest.mark.long(sample=1)
def test_tab_reaches_every_control_in_order_and_shows_the_focus(
    visit: Callable[..., Page],
) -> None:
    page = visit()
    page.evaluate("() => { document.activeElement.blur(); getSelection().removeAllRanges(); }")
    page.evaluate("() => scrollTo(0, 0)")
    controls = page.evaluate(_FIND_CONTROLS)
    # The focus begins where the last click was, so go round once and begin at the first control.
    page.evaluate("() => controls[0].focus()")
    reached: list[int] = []
    for _ in range(len(controls) + 20):  # more than the page has, such as texts that scroll
        focused = page.evaluate(_FOCUSED)
        if focused is None or (reached and focused["index"] == 0):
            break
        if focused["index"] >= 0:
            reached.append(focused["index"])
            described = controls[focused["index"]]
            # A script's focus on the first control is not shown as that of a key is.
            assert focused["isOutlined"] or len(reached) == 1, f"not outlined: {described}"
            assert focused["isInView"], f"not in view: {described}"
        page.keyboard.press("Tab")
    else:
        pytest.fail("the focus does not leave the page")
    assert [controls[index] for index in reached] == controls


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("width", [375, 1440])
def test_nothing_is_cut_and_the_page_does_not_scroll_sideways(
    visit: Callable[..., Page], width: int
) -> None:
    page = visit(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(_CUT) == []


@pytest.mark.skipif(
    bool(accessibility.why_unavailable()), reason=accessibility.why_unavailable() or "available"
)
@pytest.mark.long(sample=1)
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_axe_finds_no_fault(
    visit: Callable[..., Page], color_scheme: Literal["light", "dark"]
) -> None:
    assert accessibility.violations(visit(color_scheme=color_scheme)) == []
