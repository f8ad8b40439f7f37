"""Fixtures of the local server's tests."""

from collections.abc import Iterator

import httpx
import pytest

from tests.local.asking import KEY

from langchain_sequrity.local import LocalServer


@pytest.fixture
def client(server: LocalServer) -> Iterator[httpx.Client]:
    """A client of the shared server."""
    with httpx.Client(base_url=server.base_url, headers=KEY, timeout=10) as opened:
        yield opened


@pytest.fixture
def documented(documented_server: LocalServer) -> Iterator[httpx.Client]:
    """A client of the shared server that does what is documented."""
    with httpx.Client(base_url=documented_server.base_url, headers=KEY, timeout=10) as opened:
        yield opened
