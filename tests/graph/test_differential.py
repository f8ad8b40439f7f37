"""Random graphs in the executor and in LangGraph: a small part of the long run."""

import logging
from collections import Counter
from collections.abc import Iterator

import pytest

from langchain_sequrity import ChatSequrity
from tests.graph.differential import Comparison, compare
from tests.graph.graph_text import text_of
from tests.graph.random_graphs import MIXES, plan_of

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


@pytest.mark.parametrize("mix", MIXES)
def test_a_seed_always_gives_the_same_graph(mix: str) -> None:
    assert text_of(plan_of(MIXES[mix], "seed")) == text_of(plan_of(MIXES[mix], "seed"))
