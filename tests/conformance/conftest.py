"""Local servers with two keys, like a service."""

from collections.abc import Iterator

import pytest

from langchain_sequrity.conformance import Report, Target, run
from langchain_sequrity.local import LocalServer

KEYS = ("sq-probe-4f1d7c9a2b", "sq-probe-8e3b6a5d0c")


def target_of(server: LocalServer) -> Target:
    return Target(
        server.base_url, api_key=KEYS[0], second_key=KEYS[1], llm_api_key="sk-or-5566778899aabb"
    )


@pytest.fixture(scope="session", params=["full", "documented"])
def keyed_server(request: pytest.FixtureRequest) -> Iterator[LocalServer]:
    with LocalServer(fidelity=request.param, api_keys=KEYS) as running:
        yield running


@pytest.fixture(scope="session")
def full_server() -> Iterator[LocalServer]:
    with LocalServer(api_keys=KEYS) as running:
        yield running


@pytest.fixture(scope="session")
def report(keyed_server: LocalServer) -> Report:
    """A run of all probes on a local server."""
    return run(target_of(keyed_server))
