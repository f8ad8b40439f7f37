"""Faults of accessibility, found by axe-core. `make console-tests` installs it from npm."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

_AXE = Path(__file__).parents[3] / ".cache" / "console" / "node_modules" / "axe-core" / "axe.min.js"
_IMPACTS = ("serious", "critical")
_RUN = "() => axe.run({resultTypes: ['violations']}).then(results => results.violations)"


def why_unavailable() -> str:
    """Why axe-core cannot run here, or an empty text."""
    return "" if _AXE.is_file() else "axe-core is not installed (`make console-tests` does that)"


@cache
def _source() -> str:
    return _AXE.read_text("utf-8")


def violations(page: Page) -> list[str]:
    """The serious and critical faults of a page, one line for each element.

    Playwright's `evaluate` is not subject to the page's Content-Security-Policy.
    """
    page.evaluate(_source())
    return [
        line
        for violation in page.evaluate(_RUN)
        if violation["impact"] in _IMPACTS
        for line in _lines(violation)
    ]


def _lines(violation: dict[str, Any]) -> Iterator[str]:
    for node in violation["nodes"]:
        selector = " ".join(map(str, node["target"]))
        summary = " ".join(node["failureSummary"].split())
        yield f"{violation['impact']} {violation['id']} at {selector}: {summary} {node['html']}"
