"""Random graphs in the executor and in LangGraph: a small part of the long run."""

import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from langchain_sequrity import ChatSequrity
from tests.graph.differential import Comparison, compare
from tests.graph.random_graphs import MIXES

_PER_MIX = 21


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """LangGraph warns of targets that do not exist; these graphs have some."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.long
@pytest.mark.parametrize("mix", MIXES)
def test_random_graphs_end_as_in_langgraph(mix: str, model: ChatSequrity) -> None:
    found = [compare(mix, seed, model) for seed in range(_PER_MIX)]
    # `python -m tests.graph.differential --mix … --seed … --show 1` makes the graph smaller.
    assert not _wrong(found), _wrong(found)
    verdicts = Counter(one.verdict for one in found)
    assert verdicts["equal: state"] > _PER_MIX / 5, verdicts


def _wrong(found: list[Comparison]) -> list[Comparison]:
    return [one for one in found if one.verdict in {"DIFFERENT", "refused"}]


_PRINTS_GRAPHS = """
from tests.graph.graph_text import text_of
from tests.graph.random_graphs import MIXES, plan_of

print(*(text_of(plan_of(mix, seed)) for mix in MIXES.values() for seed in range(20)))
"""


def test_a_seed_gives_the_same_graph_in_every_process() -> None:
    first, second = (
        subprocess.run(  # noqa: S603 - our own code
            [sys.executable, "-c", _PRINTS_GRAPHS],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    )
    assert first
    assert first == second
