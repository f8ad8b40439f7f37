"""Local servers for the tests. No test connects to another machine."""

import gc
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from typing import Any
from zlib import crc32

import pytest
from hypothesis import settings

from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.interpreter.worker_pool import CAN_ISOLATE, shared_pool
from tests.stores.chosen import choose, why_skipped, with_store

# No time limit for an example of Hypothesis: a busy machine must not fail a test.
settings.register_profile("untimed", deadline=None)
settings.register_profile("sample", settings.get_profile("untimed"), max_examples=40)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run choose how local servers behave whose tests do not choose it."""
    parser.addoption(
        "--fidelity",
        choices=["full", "documented"],
        default="full",
        help="of local servers; with `documented`, graphs send whole histories, as to the service",
    )
    parser.addoption(
        "--store",
        choices=["memory", "redis"],
        default="memory",
        help="of the servers of tests/local; with `redis`, a cluster that the tests start",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Set the defaults of `LocalServer` and, without the long tests, of Hypothesis."""
    is_sample = "not long" in config.getoption("markexpr")
    settings.load_profile("sample" if is_sample else "untimed")
    defaults: Any = LocalServer.__init__.__kwdefaults__
    defaults["fidelity"] = config.getoption("--fidelity")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute files without quadratic loops, which would take seconds of a core."""
    if config.getvalue("dist") != "loadfile":
        return None
    from tests.file_scheduling import FileScheduling  # noqa: PLC0415  # only if xdist is used

    return FileScheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Find the tests without garbage collection, which would look at all of them again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `long(sample=n)`, `make test` runs n cases of a parametrised test, always the same."""
    if config.getoption("--store") == "redis":
        for item in items:
            if reason := why_skipped(item.nodeid):
                item.add_marker(pytest.mark.skip(reason=reason))
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


@pytest.fixture(scope="session", autouse=True)
def _workers() -> Iterator[None]:
    """Let all servers share the process that forks workers, which takes half a second to start."""
    with shared_pool() if CAN_ISOLATE else nullcontext():
        yield


@pytest.fixture(scope="session")
def redis_server_url() -> Iterator[str]:
    """The address of a Redis that the tests started."""
    from tests.stores.redis_servers import redis_server, why_unavailable  # noqa: PLC0415  # slow

    if reason := why_unavailable():
        pytest.skip(reason)
    with redis_server() as running:
        yield running.url


@pytest.fixture(scope="session")
def redis_cluster_url() -> Iterator[str]:
    """The address of a cluster of two shards and a replica that the tests started."""
    from tests.stores.redis_servers import redis_cluster, why_unavailable  # noqa: PLC0415  # slow

    if reason := why_unavailable():
        pytest.skip(reason)
    with redis_cluster() as running:
        yield running.url


@pytest.fixture(scope="session", autouse=True)
def _chosen_store(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--store") == "redis":
        choose(request.getfixturevalue("redis_cluster_url"))


@pytest.fixture(scope="session")
def server() -> Iterator[LocalServer]:
    with LocalServer(**with_store()) as running:
        yield running


@pytest.fixture(scope="session")
def documented_server() -> Iterator[LocalServer]:
    """A server with only documented behaviour."""
    with LocalServer(**with_store(fidelity="documented")) as running:
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
