"""A server for the tests of dual-LLM sessions."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.local.api import Api
from tests.local.dual_llm.conversation import Stage, Teller, Waiting
from tests.local.dual_llm.dialog import Begin, Dialog


@pytest.fixture(scope="package")
def stage() -> Iterator[Stage]:
    with Stage() as running:
        yield running


@pytest.fixture
def begin(stage: Stage, http: httpx.Client) -> Begin:
    """A function that begins a session; its planner answers with the given programs."""

    def start(*programs: Any, tellers: tuple[Teller, ...] = (), **headers: Any) -> Dialog:
        planner = Teller("planner", *programs)
        api = Api(stage.server, http, key="sq-test")
        return Dialog(api, stage.cast(planner, *tellers), planner, **headers)

    return start


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()
