"""Floods of a real server in a separate process, watched from outside.

There are fewer and smaller floods of each kind than in `python -m tests.local.floods`.
"""

import sys
from collections.abc import Iterator

import pytest

from tests.local.floods import (
    FINE,
    LARGEST,
    MB,
    MOST,
    PLACES,
    SHAPES,
    Flood,
    Flooded,
    endless,
    filled,
    programs,
    replies,
    sessions,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

SIZE = 4 * MB
AT_ONCE = 4
ENDLESS = {flood.name: flood for flood in endless(AT_ONCE)}


@pytest.fixture(scope="module")
def server() -> Iterator[Flooded]:
    with Flooded() as flooded:
        yield flooded


@pytest.fixture(scope="module")
def endless_server() -> Iterator[Flooded]:
    with Flooded(words=1_000) as flooded:
        yield flooded


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("place", PLACES)
def test_large_bodies_of_every_shape_neither_stop_the_server_nor_fill_its_memory(
    place: str, server: Flooded
) -> None:
    path, _ = PLACES[place]
    size = min(SIZE, LARGEST.get(path, SIZE))
    requests = [filled(place, shape, size) for shape in SHAPES]
    statuses = server.stand(Flood(place, lambda: requests, AT_ONCE))
    assert set(statuses) <= FINE, statuses
    assert server.grown < MOST


def test_bodies_that_take_thirty_times_their_length_in_memory_are_refused(
    server: Flooded,
) -> None:
    requests = [filled("a field", "empty lists", 31 * MB) for _ in range(4)]
    statuses = server.stand(Flood("empty lists", lambda: requests, 4))
    assert set(statuses) <= {413, 429}
    assert server.grown < MOST


@pytest.mark.long
def test_all_sessions_together_have_a_memory_limit(server: Flooded) -> None:
    assert set(server.stand(sessions(2 * MB, 50))) <= {200, 429}
    assert server.grown < MOST


def test_all_stored_replies_together_have_a_memory_limit(server: Flooded) -> None:
    assert set(server.stand(replies(200_000, 60))) <= {200, 429}
    assert server.grown < MOST


@pytest.mark.long
def test_all_parsed_programs_together_have_a_memory_limit(server: Flooded) -> None:
    assert set(server.stand(programs(60))) <= {200, 429}
    assert server.grown < MOST


@pytest.mark.long
@pytest.mark.parametrize("name", ENDLESS)
def test_the_output_of_an_endless_model_is_cut(name: str, endless_server: Flooded) -> None:
    statuses = endless_server.stand(ENDLESS[name])
    assert set(statuses) <= FINE, statuses
    assert endless_server.grown < MOST
