"""A page of the console cannot do anything unnoticed, and its browser disturbs no other test."""

import asyncio
import threading
from queue import SimpleQueue
from typing import Any

import pytest
from playwright.sync_api import Error

from langchain_sequrity import ChatSequrity
from langchain_sequrity.local import LocalServer
from tests.local.console.chromium import (
    Chromium,
    OpenPage,
    assert_clean,
    chromium,
    incidents,
    settle,
)
from tests.local.console.holes import STRICT_POLICY, PageServer, page

FAULTS = {
    "message of an error": ("<script>console.error('broken')</script>", "", "console error: broken"),
    "missing file": ("<img src=/missing alt=''>", "", "console error: Failed to load resource: the server responded with a status of 404"),
    "exception": ("<script>throw new TypeError('broken')</script>", "", "page error: broken"),
    "rejected promise": ("<script>Promise.reject(new Error('late'))</script>", "", "page error: late"),
    "alert": ("<script>alert('hello')</script>", "", "dialog: alert 'hello'"),
    "question": ("<script>prompt('key?')</script>", "", "dialog: prompt 'key?'"),
    "image of another server": ("<img src=http://injected.invalid/1 alt=''>", "", "foreign request: http://injected.invalid/1"),
    "other port": ("<script>fetch('http://127.0.0.1:9/x').catch(() => {})</script>", "", "foreign request: http://127.0.0.1:9/x"),
    "other scheme": ("<script>new WebSocket('ws://injected.invalid/')</script>", "", "foreign request: ws://injected.invalid/"),
    "beacon": ("<script>navigator.sendBeacon('http://injected.invalid/2', 'x')</script>", "", "foreign request: http://injected.invalid/2"),
    "frame of another server": ("<iframe src=http://injected.invalid/3></iframe>", "", "foreign request: http://injected.invalid/3"),
    "frame with a document of its own": ("<iframe srcdoc='<p>text'></iframe>", "", "foreign document: about:srcdoc"),
    "refresh": ("<meta http-equiv=refresh content='0;url=http://injected.invalid/4'>", "", "foreign request: http://injected.invalid/4"),
    "popup": ("<script>open('about:blank#popup')</script>", "", "popup: "),
    "download": ("<a id=a href='/file' download>a</a><script>a.click()</script>", "", "download: {base_url}/file"),
    "inline script": ("<script>document.title = 'x'</script>", STRICT_POLICY, "CSP violation: securitypolicyviolation script-src-elem inline"),
    "inline script, in the words of the browser": ("<script>0</script>", STRICT_POLICY, "CSP violation: Executing inline script violates"),
    "inline handler": ("<svg onload=0></svg>", STRICT_POLICY, "CSP violation: securitypolicyviolation script-src-attr inline"),
    "inline style": ("<p style='color:red'>x", STRICT_POLICY, "CSP violation: securitypolicyviolation style-src-attr inline"),
    "image that the policy refuses": ("<img src=http://injected.invalid/5 alt=''>", STRICT_POLICY, "CSP violation: securitypolicyviolation img-src http://injected.invalid/5"),
    "base": ("<base href=http://injected.invalid/>", STRICT_POLICY, "CSP violation: securitypolicyviolation base-uri http://injected.invalid"),
    "text that becomes markup": ("<script src=/markup.js></script>", STRICT_POLICY, "CSP violation: securitypolicyviolation require-trusted-types-for trusted-types-sink"),
}  # fmt: skip


@pytest.mark.long(sample=8)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_page_is_not_clean_after(fault: str, open_page: OpenPage, pages: PageServer) -> None:
    body, policy, expected = FAULTS[fault]
    pages.show(page(body), policy=policy)
    pages.pages["/file"] = "text"
    pages.pages["/markup.js"] = ("document.body.innerHTML = '<i>text</i>'", "text/javascript")
    opened = open_page(pages.base_url)
    opened.goto("/")
    with pytest.raises(AssertionError) as failure:
        assert_clean(opened)
    # What is blocked is reported twice, and some requests do not belong to the loading of a page.
    assert expected.format(base_url=pages.base_url) in str(failure.value)


def test_all_faults_are_listed(open_page: OpenPage, pages: PageServer) -> None:
    pages.show(page("<script>alert(1); console.error('a'); throw new Error('b')</script>"))
    opened = open_page(pages.base_url)
    opened.goto("/")
    settle(opened)
    assert sorted(map(str, incidents(opened))) == ["console error: a", "dialog: alert '1'", "page error: b"]  # fmt: skip


def test_faults_of_a_popup_and_of_earlier_pages_count(
    open_page: OpenPage, pages: PageServer
) -> None:
    pages.show(page("<script>open('/popup')</script>"))
    pages.pages |= {"/popup": page("<script>alert('popup')</script>"), "/next": page("text")}
    opened = open_page(pages.base_url)
    with opened.expect_popup() as popup:
        opened.goto("/")
    popup.value.wait_for_load_state()
    opened.goto("/next")
    with pytest.raises(AssertionError, match="dialog: alert 'popup'"):
        assert_clean(opened)


def test_a_page_that_crashes_is_not_clean(open_page: OpenPage, pages: PageServer) -> None:
    pages.show(page("text"))
    opened = open_page(pages.base_url)
    opened.goto("/")
    with pytest.raises(Error, match="crash"):
        opened.goto("chrome://crash")
    with pytest.raises(AssertionError, match=r"(?m)^crash: "):
        assert_clean(opened)


def test_a_page_under_a_strict_policy_is_clean(open_page: OpenPage, pages: PageServer) -> None:
    head = "<title>Page</title><link rel=stylesheet href=/style.css><script src=/code.js></script>"
    pages.show(page("<p id=text>text <a href=/>link</a></p>", head=head), policy=STRICT_POLICY)
    pages.pages |= {
        "/style.css": ("p { color: navy }", "text/css"),
        "/code.js": ("fetch('/data').then(() => console.log('read'))", "text/javascript"),
        "/data": "{}",
    }
    opened = open_page(pages.base_url)
    with opened.expect_console_message(lambda message: message.text == "read"):
        opened.goto("/")
    opened.click("a")
    assert_clean(opened)


def test_each_page_has_a_context_and_recordings_of_its_own(
    open_page: OpenPage, pages: PageServer
) -> None:
    pages.show(page("<script>document.cookie = 'a=b'; console.error('x')</script>"))
    first, second = open_page(pages.base_url), open_page(pages.base_url)
    first.goto("/")
    settle(first)
    assert incidents(first)
    assert_clean(second)
    assert first.context.cookies()
    assert not second.context.cookies()


@pytest.mark.parametrize(
    ("width", "scheme", "motion"), [(360, "dark", "reduce"), (1280, "light", "no-preference")]
)
def test_a_page_has_the_size_the_colours_and_the_motion_that_a_test_wants(
    width: int, scheme: Any, motion: Any, open_page: OpenPage, pages: PageServer
) -> None:
    pages.show(page("text"))
    opened = open_page(
        pages.base_url, width=width, height=640, color_scheme=scheme, reduced_motion=motion
    )
    opened.goto("/")
    assert opened.evaluate("[innerWidth, innerHeight]") == [width, 640]
    assert opened.evaluate(f"matchMedia('(prefers-color-scheme: {scheme})').matches")
    assert opened.evaluate(f"matchMedia('(prefers-reduced-motion: {motion})').matches")


@pytest.mark.usefixtures("browser")
async def test_tests_with_event_loops_run_while_the_browser_is_open() -> None:
    assert await asyncio.to_thread(lambda: "text") == "text"


def test_a_test_with_an_open_page_can_run_an_event_loop(
    browser: Chromium, open_page: OpenPage, pages: PageServer
) -> None:
    pages.show(page("text"))
    opened = open_page(pages.base_url)
    with browser.suspended():
        asyncio.run(asyncio.sleep(0))
    opened.goto("/")
    assert_clean(opened)


def test_a_local_server_answers_the_page_and_models_of_the_same_test(
    open_page: OpenPage, server: LocalServer
) -> None:
    opened = open_page(server.base_url)
    model = ChatSequrity(model="m", api_key="sq-console", base_url=server.base_url)
    for _ in range(3):
        opened.goto("/healthz")
        assert model.invoke("hello").content
    assert opened.evaluate("fetch('/control/chat/v1/models').then(reply => reply.status)") == 401


@pytest.mark.usefixtures("browser")  # another one runs in this process
def test_scripts_open_pages_without_pytest(pages: PageServer) -> None:
    pages.show(page("<h1>text</h1>"))
    pictures: SimpleQueue[bytes] = SimpleQueue()

    def script() -> None:
        with chromium() as own, own.pages() as open_page:
            opened = open_page(pages.base_url)
            opened.goto("/")
            pictures.put(opened.screenshot())

    thread = threading.Thread(target=script)
    thread.start()
    assert pictures.get(timeout=60).startswith(b"\x89PNG")
    thread.join()
