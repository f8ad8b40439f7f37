"""A client for plain HTTP, and servers for single tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import httpx
import pytest

from langchain_sequrity.local import LocalServer
from tests.local.api import Api
from tests.stores.chosen import with_store

Serve = Callable[..., Api]


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    # Making a client takes longer than the requests of most tests.
    with httpx.Client(timeout=10, trust_env=False) as client:
        yield client


@pytest.fixture
def api(server: LocalServer, http: httpx.Client) -> Api:
    """The shared server, with a new key for this test."""
    return Api(server, http, key=f"sq-{uuid4()}")


@pytest.fixture
def documented(documented_server: LocalServer, http: httpx.Client) -> Api:
    return Api(documented_server, http, key=f"sq-{uuid4()}")


@pytest.fixture
def serve(http: httpx.Client) -> Iterator[Serve]:
    """A function that starts a server with options; the server stops after the test."""
    with ExitStack() as stack:

        def start(**options: Any) -> Api:
            return Api(
                stack.enter_context(LocalServer(**with_store(**options))), http, key="sq-test"
            )

        yield start
