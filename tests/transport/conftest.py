"""Fixtures: the four call methods, and a server of raw bytes."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.transport.transport_helpers import WAYS, Answer, RawServer, Way


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    """Each of the four call methods."""
    found: Way = request.param
    return found


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """False for threads, true for event loops."""
    return bool(request.param)


@pytest.fixture
def serve() -> Iterator[Callable[..., RawServer]]:
    """Starts servers that follow a script. They stop after the test."""
    with ExitStack() as stack:

        def start(*script: Answer) -> RawServer:
            return stack.enter_context(RawServer(list(script)).running())

        yield start


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
