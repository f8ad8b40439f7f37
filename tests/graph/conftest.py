"""A model that uses a local server; each module has its own server."""

from collections.abc import Iterator
from typing import Any

import pytest

from langchain_sequrity import ChatSequrity
from langchain_sequrity.local import LocalServer

_WITH_WHOLE_HISTORIES = ("tests.graph.apps.", "tests.graph.test_same_as_plain")
"""Modules whose tests run with whole histories too, as the service gets them."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run some modules with both fidelities, unless `--fidelity` says that all have the second."""
    runs_twice = metafunc.module.__name__.startswith(_WITH_WHOLE_HISTORIES)
    if runs_twice and metafunc.config.getoption("--fidelity") == "full":
        metafunc.parametrize("fidelity", ["full", "documented"], scope="module")


@pytest.fixture(scope="module")
def fidelity(request: pytest.FixtureRequest) -> Any:
    """How the server of `model` behaves."""
    return request.config.getoption("--fidelity")


@pytest.fixture(scope="module")
def model(fidelity: Any) -> Iterator[ChatSequrity]:
    with LocalServer(fidelity=fidelity) as server:
        yield ChatSequrity("any/model", base_url=server.base_url)
