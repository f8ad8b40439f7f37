"""An executor as the graph of a `langgraph.json` on LangGraph's development server."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from langchain_sequrity.local import LocalServer

_COMMAND = Path(sys.executable).with_name("langgraph")
_WAIT_SECONDS = 60

pytestmark = pytest.mark.skipif(
    not _COMMAND.exists() or importlib.util.find_spec("langgraph_api") is None,
    reason="the development server is not installed (pip install 'langgraph-cli[inmem]')",
)

_APP = """
import operator
from typing import Annotated

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from langchain_sequrity import ChatSequrity, LangGraphExecutor


class State(TypedDict, total=False):
    text: str
    log: Annotated[list[str], operator.add]


def shout(state: State) -> State:
    return {"text": state["text"].upper(), "log": ["shout"]}


def double(state: State) -> State:
    return {"text": state["text"] * 2, "log": ["double"]}


def ask(state: State) -> State:
    return {"log": [interrupt("Is it long enough?")]}


def enough(state: State) -> str:
    return "ask" if len(state["text"]) > 10 else "double"


builder = StateGraph(State).add_node("shout", shout).add_node("double", double)
builder.add_node("ask", ask).add_edge(START, "shout").add_edge("shout", "double")
builder.add_conditional_edges("double", enough, ["double", "ask"]).add_edge("ask", END)
graph = LangGraphExecutor(builder, ChatSequrity("any/model"))
"""
_CONFIG = {"dependencies": ["."], "graphs": {"agent": "./agent.py:graph"}}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("app")
    (folder / "agent.py").write_text(_APP)
    (folder / "langgraph.json").write_text(json.dumps(_CONFIG))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(_COMMAND), "dev", "--no-browser", "--no-reload", "--port", str(port)]
    with (
        LocalServer() as server,
        (folder / "log").open("w") as log,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client,
    ):
        settings = {
            "SEQURITY_BASE_URL": server.base_url,
            "LANGSMITH_TRACING": "false",
            "LANGGRAPH_NO_VERSION_CHECK": "true",
        }
        process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            cwd=folder,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _await(client, process, folder / "log")
            yield client
        finally:
            process.terminate()
            process.wait()


def _await(client: httpx.Client, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            if client.get("/ok").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"The development server does not start:\n{log.read_text()[-2000:]}")


def test_a_run_is_interrupted_and_resumed_through_the_api(platform: httpx.Client) -> None:
    thread = platform.post("/threads", json={}).json()["thread_id"]
    run = f"/threads/{thread}/runs/wait"
    first = platform.post(run, json={"assistant_id": "agent", "input": {"text": "hey"}}).json()
    assert [one["value"] for one in first["__interrupt__"]] == ["Is it long enough?"]
    told = {"assistant_id": "agent", "command": {"resume": "yes"}}
    last = platform.post(run, json=told).json()
    assert last == {"text": "HEY" * 4, "log": ["shout", "double", "double", "yes"]}
    assert platform.get(f"/threads/{thread}/state").json()["values"] == last


def test_a_run_streams_only_the_updates_of_the_users_nodes(
    platform: httpx.Client,
) -> None:
    asked = {"assistant_id": "agent", "input": {"text": "hello"}, "stream_mode": "updates"}
    reply = platform.post("/runs/stream", json=asked).text
    updates = [json.loads(line[6:]) for line in reply.splitlines() if line.startswith("data: {")]
    names = [name for update in updates for name in update if name not in ("run_id", "attempt")]
    assert names == ["shout", "double", "double", "__interrupt__"]


def test_the_server_draws_the_users_graph(platform: httpx.Client) -> None:
    [assistant] = platform.post("/assistants/search", json={}).json()
    drawn = platform.get(f"/assistants/{assistant['assistant_id']}/graph").json()
    names = {node["id"] for node in drawn["nodes"]}
    assert names == {"__start__", "shout", "double", "ask", "__end__"}
