"""A headless Chromium whose pages record everything that a page of the console must not do.

with chromium() as browser, browser.pages() as open_page:
    page = open_page(server.base_url, color_scheme="dark")
    page.goto("/console")
    assert_clean(page)
"""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Error,
    Frame,
    Page,
    Playwright,
    sync_playwright,
)

_EXECUTABLES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_ARGUMENTS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # No test connects to another machine, not even for the address of a name.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
_REPORT_VIOLATIONS = """(() => {
  const report = console.error.bind(console, "securitypolicyviolation");
  addEventListener("securitypolicyviolation",
    event => report(event.effectiveDirective, event.blockedURI, event.sample), true);
})()"""
"""Runs before all scripts of a page, so that none of them can replace `console.error` before."""
_SETTLED = """() => {
  const painted = new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  const latest = new Promise(done => setTimeout(done, 200));  // hidden pages are not painted
  return Promise.race([painted, latest]).then(() => new Promise(done => setTimeout(done)));
}"""

Kind = Literal[
    "console error", "page error", "dialog", "foreign request", "foreign document",
    "CSP violation", "popup", "download", "crash",
]  # fmt: skip


@dataclass(frozen=True)
class Incident:
    """Something that a page must not do.

    Attributes:
        kind: What happened.
        text: The message, or the URL.
    """

    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class OpenPage(Protocol):
    """Opens a page of a server, in a context of its own.

    Args:
        base_url: A URL of the server; `page.goto("/path")` is relative to its origin, and requests
            to all other origins are recorded.
        width: Of the viewport, in CSS pixels.
        height: As above.
        color_scheme: For `prefers-color-scheme`.
        reduced_motion: For `prefers-reduced-motion`.
    """

    def __call__(
        self,
        base_url: str,
        *,
        width: int = 1280,
        height: int = 800,
        color_scheme: Literal["light", "dark"] = "light",
        reduced_motion: Literal["reduce", "no-preference"] = "no-preference",
    ) -> Page: ...


_incidents: WeakKeyDictionary[BrowserContext, list[Incident]] = WeakKeyDictionary()


def incidents(page: Page) -> list[Incident]:
    """What was recorded of the page and its popups; `clear()` forgets it."""
    return _incidents[page.context]


def assert_clean(page: Page) -> None:
    """Fail with everything that the page has done and must not do."""
    settle(page)
    recorded = incidents(page)
    assert not recorded, "\n".join([f"{page.url} was not clean:", *map(str, recorded)])


def settle(page: Page) -> None:
    """Wait until the page has run and painted what it had begun, and its events have arrived."""
    for _ in range(3):
        try:
            page.evaluate(_SETTLED)
        except Error:  # the page went to another one meanwhile, or crashed
            if page.is_closed() or any(incident.kind == "crash" for incident in incidents(page)):
                return
        else:
            return


@cache
def _executable() -> str:
    """The path of a browser on this machine: an installed one, or Playwright's own, or none."""
    installed = next(filter(None, map(shutil.which, _EXECUTABLES)), "")
    if installed:
        return installed
    with _playwright() as (playwright, _):
        downloaded = playwright.chromium.executable_path
    return downloaded if os.path.exists(downloaded) else ""  # noqa: PTH110  # a text of Playwright


def why_unavailable() -> str:
    """Why no browser can be started here, or an empty text."""
    return "" if _executable() else "no Chromium is installed (Debian: apt-get install chromium)"


class Chromium:
    """A running browser. Its pages exist in `pages()` only.

    Playwright's event loop stays the running loop of the thread between two of its calls. So it is
    suspended whenever no page is open, and other tests in this process can run loops of their own.
    """

    def __init__(self, browser: Browser, loop: asyncio.AbstractEventLoop) -> None:
        self._browser = browser
        self._loop = loop

    @contextmanager
    def pages(self) -> Iterator[OpenPage]:
        """A function that opens pages; they close at the end."""
        with self._playwright_loop(), ExitStack() as contexts:

            def open_page(
                base_url: str,
                *,
                width: int = 1280,
                height: int = 800,
                color_scheme: Literal["light", "dark"] = "light",
                reduced_motion: Literal["reduce", "no-preference"] = "no-preference",
            ) -> Page:
                context = self._browser.new_context(
                    base_url=origin(base_url),
                    viewport={"width": width, "height": height},
                    color_scheme=color_scheme,
                    reduced_motion=reduced_motion,
                    service_workers="block",
                )
                contexts.callback(context.close)
                _record(context, origin(base_url))
                return context.new_page()

            yield open_page

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Within `pages()`: for code that needs a thread without a running loop (`asyncio.run`)."""
        asyncio._set_running_loop(None)
        try:
            yield
        finally:
            asyncio._set_running_loop(self._loop)

    @contextmanager
    def _playwright_loop(self) -> Iterator[None]:
        asyncio._set_running_loop(self._loop)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)


@contextmanager
def chromium() -> Iterator[Chromium]:
    """Start a headless Chromium. Only one can run in a thread.

    Raises:
        RuntimeError: If there is none on this machine.
    """
    if reason := why_unavailable():
        raise RuntimeError(reason)
    with _playwright() as (playwright, loop):
        browser = playwright.chromium.launch(
            executable_path=_executable(),
            args=_ARGUMENTS,
            chromium_sandbox=os.geteuid() != 0,  # the sandbox refuses to run as root
        )
        running = Chromium(browser, loop)
        with running.suspended():
            yield running
        browser.close()


@contextmanager
def _playwright() -> Iterator[tuple[Playwright, asyncio.AbstractEventLoop]]:
    """Playwright, and its event loop, which runs in this thread."""
    with sync_playwright() as playwright:
        yield playwright, asyncio.get_running_loop()


def origin(url: str) -> str:
    """Scheme, host and port of a URL, also of one that a page made for its own data."""
    parts = urlsplit(url.removeprefix("blob:"))
    return f"{parts.scheme}://{parts.netloc}"


def _record(context: BrowserContext, server: str) -> None:
    """Record what the pages of a context do that a page of this server must not do."""
    recorded = _incidents[context] = []

    def record(kind: Kind, text: str) -> None:
        recorded.append(Incident(kind, text))

    def record_foreign(kind: Kind, url: str) -> None:
        if origin(url) != server:
            record(kind, url)

    def on_console(message: ConsoleMessage) -> None:
        if kind := _kind_of_message(message):
            record(kind, message.text)

    def on_dialog(dialog: Dialog) -> None:
        record("dialog", f"{dialog.type} {dialog.message!r}")
        dialog.dismiss()  # until then the page stands still

    def on_frame(frame: Frame) -> None:
        if frame.url != "about:blank":  # before the first page
            record_foreign("foreign document", frame.url)

    def on_page(page: Page) -> None:
        page.on("popup", lambda popup: record("popup", popup.url))
        page.on("download", lambda download: record("download", download.url))
        page.on("framenavigated", on_frame)
        page.on("websocket", lambda socket: record("foreign request", socket.url))
        page.on("crash", lambda _: record("crash", page.url))

    context.add_init_script(_REPORT_VIOLATIONS)
    context.on("console", on_console)
    context.on("dialog", on_dialog)
    context.on("page", on_page)
    context.on("request", lambda request: record_foreign("foreign request", request.url))
    context.on("weberror", lambda error: record("page error", str(error.error)))


def _kind_of_message(message: ConsoleMessage) -> Kind | None:
    """What a message of the browser's console says, or nothing if it is harmless."""
    text = message.text
    if text.startswith(("securitypolicyviolation ", "Refused to ")) or "Content Security" in text:
        return "CSP violation"
    return "console error" if message.type == "error" else None
