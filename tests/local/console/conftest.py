"""A browser for all tests of the console, and pages for each test."""

from collections.abc import Iterator

import pytest

from tests.local.console.chromium import Chromium, OpenPage, chromium, why_unavailable
from tests.local.console.holes import PageServer, page_server


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    if reason := why_unavailable():
        pytest.skip(reason)
    with chromium() as running:
        yield running


@pytest.fixture
def open_page(browser: Chromium) -> Iterator[OpenPage]:
    """A function that opens a page in a context of its own; the pages close after the test."""
    with browser.pages() as open_page:
        yield open_page


@pytest.fixture(scope="session")
def pages() -> Iterator[PageServer]:
    """A server for pages that a test writes, to test what tests of the console stand on."""
    with page_server() as served:
        yield served
