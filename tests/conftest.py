"""Local servers for the tests. No test connects to another machine."""

import gc
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import pytest
from hypothesis import settings

from langchain_sequrity.local import LocalServer

# No time limit for an example of Hypothesis: a busy machine must not fail a test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run choose how local servers behave whose tests do not choose it."""
    parser.addoption(
        "--fidelity",
        choices=["full", "documented"],
        default="full",
        help="of local servers; with `documented`, graphs send whole histories, as to the service",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Set the default of `LocalServer`."""
    defaults: Any = LocalServer.__init__.__kwdefaults__
    defaults["fidelity"] = config.getoption("--fidelity")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `long(sample=n)`, `make test` runs n cases of a parametrised test, always the same."""
    cases: defaultdict[tuple[object, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        mark = item.get_closest_marker("long")
        if mark is not None and mark.kwargs:
            name = getattr(item, "originalname", item.name)
            cases[item.parent, name].append(item)
    for group in cases.values():
        group.sort(key=lambda item: crc32(item.name.encode()))
        mark = group[0].get_closest_marker("long")
        for item in group[: mark.kwargs["sample"] if mark else 0]:
            item.own_markers = [one for one in item.own_markers if one.name != "long"]


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """Exclude the objects of earlier modules from garbage collection, which would take a second.

    Such a pause may hit a program under test, which has only a second of its thread's time.
    """
    gc.freeze()


@pytest.fixture(scope="session")
def server() -> Iterator[LocalServer]:
    with LocalServer() as running:
        yield running


@pytest.fixture(scope="session")
def documented_server() -> Iterator[LocalServer]:
    """A server with only documented behaviour."""
    with LocalServer(fidelity="documented") as running:
        yield running


@pytest.fixture(scope="session")
def base_url(server: LocalServer) -> str:
    return server.base_url


@pytest.fixture(params=["full", "documented"])
def any_base_url(
    request: pytest.FixtureRequest, server: LocalServer, documented_server: LocalServer
) -> str:
    """A test that uses it runs with both fidelities."""
    return (server if request.param == "full" else documented_server).base_url
