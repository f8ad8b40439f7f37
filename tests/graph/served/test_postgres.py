"""Two processes of LangGraph's server with one Postgres, before two workers of the gateway."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import get_sync_client

from tests.graph.durability.postgres import postgres_or_skip
from tests.graph.served.langgraph_server import langgraph_server, needs_langgraph_server
from tests.graph.served.test_langgraph_server import ANSWER, APPROVE, MAIL
from tests.graph.served.workers import needs_redis, two_workers

pytestmark = [needs_langgraph_server, needs_redis]
_CONFIG = "langgraph.postgres.json"


@pytest.fixture
def checkpoints() -> Iterator[str]:
    with postgres_or_skip() as saver:
        yield saver


def test_a_second_process_continues_a_thread_whose_run_waits_for_approval(
    checkpoints: str, tmp_path: Path
) -> None:
    with two_workers() as proxy:
        with (
            langgraph_server(
                tmp_path / "first", proxy.base_url, config=_CONFIG, CHECKPOINTS=checkpoints
            ) as url,
            get_sync_client(url=url) as client,
        ):
            thread = client.threads.create()["thread_id"]
            asked: Any = client.runs.wait(thread, "answer_mail", input=MAIL, durability="sync")
            assert asked["__interrupt__"]
        before = len(proxy.served)
        with (
            langgraph_server(
                tmp_path / "second", proxy.base_url, config=_CONFIG, CHECKPOINTS=checkpoints
            ) as url,
            get_sync_client(url=url) as client,
        ):
            client.threads.create(thread_id=thread, if_exists="do_nothing", graph_id="answer_mail")
            assert client.threads.get_state(thread)["next"] == ["send"]
            done: Any = client.runs.wait(thread, "answer_mail", command=APPROVE, durability="sync")
    assert done["status"] == f"to bo@partner.example: {ANSWER}"
    assert {worker for worker, _ in proxy.served[:before]} == {0, 1}
    assert {status for _, status in proxy.served} == {200}
