"""A model that uses a local server; each module has its own server."""

from collections.abc import Iterator

import pytest

from langchain_sequrity import ChatSequrity
from langchain_sequrity.local import LocalServer


@pytest.fixture(scope="module")
def model() -> Iterator[ChatSequrity]:
    with LocalServer() as server:
        yield ChatSequrity("any/model", base_url=server.base_url)
