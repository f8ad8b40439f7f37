"""Random threads with questions and answers: a small part of the long run."""

import logging
from collections.abc import Iterator

import pytest

from langchain_sequrity.local import LocalServer
from tests.graph.approvals import look


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    logging.disable(logging.CRITICAL)  # LangGraph logs failed steps
    with LocalServer(isolated_programs=False) as server:
        yield server.base_url
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", [0, 1, 3, 26, 28, 39, 55, 106])
def test_in_any_thread_only_what_was_shown_and_approved_runs(seed: int, base_url: str) -> None:
    """`python -m tests.graph.approvals` runs 1,000 threads."""
    case = look(seed, base_url)
    assert not case.wrong, case
