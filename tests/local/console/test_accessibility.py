"""axe-core finds faults of accessibility, also in pages whose policy allows no code but their own."""

import pytest

from tests.local.console import accessibility
from tests.local.console.chromium import OpenPage, assert_clean
from tests.local.console.holes import STRICT_POLICY, PageServer, page

if reason := accessibility.why_unavailable():
    pytest.skip(reason, allow_module_level=True)

FAULTS = {
    "pale text": ("<p class=pale>text</p>", "serious color-contrast at p:"),
    "field without a label": ("<input>", "critical label at input:"),
    "button without a name": ("<button></button>", "critical button-name at button:"),
    "image without a text": ("<img src=/style.css>", "critical image-alt at img:"),
    "unknown role": ("<p role=nothing>text</p>", "critical aria-roles at p:"),
}
STYLE = ".pale { color: #bbb; background: #fff } @media (prefers-color-scheme: dark) { html { background: #000; color: #111 } }"


@pytest.fixture
def styled(pages: PageServer) -> PageServer:
    pages.show("", policy=STRICT_POLICY)
    pages.pages["/style.css"] = (STYLE, "text/css")
    return pages


def _page(body: str) -> str:
    head = "<title>Page</title><link rel=stylesheet href=/style.css>"
    return page(f"<h1>Page</h1>{body}", head=head)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_element(
    fault: str, open_page: OpenPage, styled: PageServer
) -> None:
    body, expected = FAULTS[fault]
    styled.pages["/"] = _page(body)
    opened = open_page(styled.base_url)
    opened.goto("/")
    (line,) = accessibility.violations(opened)
    assert line.startswith(expected)


def test_a_page_without_faults_has_none_and_is_still_clean(
    open_page: OpenPage, styled: PageServer
) -> None:
    styled.pages["/"] = _page("<p>text</p>")
    opened = open_page(styled.base_url)
    opened.goto("/")
    assert accessibility.violations(opened) == []
    assert_clean(opened)


def test_a_fault_of_the_dark_colours_is_found_in_the_dark(
    open_page: OpenPage, styled: PageServer
) -> None:
    styled.pages["/"] = _page("<p>text</p>")
    opened = open_page(styled.base_url, color_scheme="dark")
    opened.goto("/")
    assert {line.split()[1] for line in accessibility.violations(opened)} == {"color-contrast"}
