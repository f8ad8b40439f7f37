"""Random journeys of threads, in LangGraph and in the executor: a small part of the long run."""

import logging
from collections.abc import Iterator

import pytest

from langchain_sequrity import ChatSequrity
from langchain_sequrity.local import LocalServer
from tests.graph.journey_labels import look
from tests.graph.journeys import travel
from tests.graph.random_graphs import MIXES


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """LangGraph logs steps that fail; these threads have some."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


LED_ASTRAY = [
    ("all", 197),
    ("channels", 244),
    ("deferred", 356),
    ("all", 461),
    ("all", 547),
    ("schemas", 637),
    ("channels", 739),
]
"""Journeys that once differed: a run read a value that an earlier run had left in a field, or called
a node that had to wait.
"""


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("case", LED_ASTRAY, ids=str)
def test_journeys_that_once_differed_are_as_in_langgraph(
    case: tuple[str, int], model: ChatSequrity
) -> None:
    found = travel(*case, model)
    assert found.verdict == "equal", found.told


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("mix", MIXES)
def test_threads_that_go_back_fork_and_are_edited_are_as_in_langgraph(
    mix: str, model: ChatSequrity
) -> None:
    # `python -m tests.graph.journeys --mix … --seed …` repeats one of them.
    found = [travel(mix, seed, model) for seed in (10, 11)]
    wrong = [(one.moves, one.told) for one in found if one.verdict not in {"equal", "endless"}]
    assert not wrong, wrong


@pytest.mark.long
def test_the_labels_of_a_value_name_the_node_that_wrote_it_in_every_journey() -> None:
    """`python -m tests.graph.journey_labels` runs 2,000 journeys."""
    with LocalServer(isolated_programs=False) as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        # In the last one, LangGraph applies a task's writes without the driver's own records.
        cases = [*((mix, 0) for mix in MIXES), ("models", 38)]
        found = [look(*case, model) for case in cases]
    assert not [one for each in found for one in each.lost]
    assert sum(one.named for one in found) > 20
