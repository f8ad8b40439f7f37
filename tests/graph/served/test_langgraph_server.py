"""An executor as the graph of a `langgraph.json` on LangGraph's development server."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient

from langchain_sequrity.local import LocalServer
from tests.graph.served.langgraph_server import EXAMPLE, langgraph_server, needs_langgraph_server

pytestmark = needs_langgraph_server

_LOOP = """
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


def made(config):
    return LangGraphExecutor(builder, ChatSequrity("any/model"))
"""
MAIL = {"subject": "opening", "to": "bo@partner.example"}
ANSWER = "You said: Answer this mail in one sentence: When do you open on Sunday?"
APPROVE: Any = {"resume": {"decisions": [{"type": "approve"}]}}
DENIED = (
    "The policy denied the call of `send` (node `send`): "
    "a mail must not choose who gets the answer."
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncLangGraphClient]:
    """A client of a server with the graph of the example, and one that a factory makes."""
    folder = tmp_path_factory.mktemp("app")
    config = json.loads((EXAMPLE / "langgraph.json").read_text())
    config["graphs"]["loop"] = "./loop.py:made"
    (folder / "both.json").write_text(json.dumps(config))
    (folder / "loop.py").write_text(_LOOP)
    with (
        LocalServer() as server,
        langgraph_server(folder, server.base_url, config="both.json") as url,
        get_sync_client(url=url) as made,
    ):
        yield made


def new_thread(client: SyncLangGraphClient) -> str:
    return client.threads.create()["thread_id"]


def test_a_run_streams_states_updates_and_the_tokens_of_a_model(
    client: SyncLangGraphClient,
) -> None:
    mail = {"subject": "opening", "to": "ada@museum.example"}
    modes: Any = ["values", "updates", "messages-tuple"]
    parts = [
        (part.event, part.data)
        for part in client.runs.stream(
            new_thread(client), "answer_mail", input=mail, stream_mode=modes
        )
    ]
    updates = [data for event, data in parts if event == "updates"]
    assert [list(update) for update in updates] == [["read_mail"], ["write"], ["send"]]
    assert updates[-1] == {"send": {"status": f"to ada@museum.example: {ANSWER}"}}
    tokens: list[Any] = [data for event, data in parts if event == "messages"]
    assert len(tokens) > 3
    assert "".join(message["content"] for message, _ in tokens) == ANSWER
    assert {facts["langgraph_node"] for _, facts in tokens} == {"write"}
    states = [data for event, data in parts if event == "values"]
    assert [len(state) for state in states] == [2, 3, 4, 5]


def test_a_human_approves_a_softly_denied_call_through_the_api(
    client: SyncLangGraphClient,
) -> None:
    thread = new_thread(client)
    asked: Any = client.runs.wait(thread, "answer_mail", input=MAIL)
    [request] = asked["__interrupt__"][0]["value"]["action_requests"]
    assert (request["name"], request["args"]["to"]) == ("send", "bo@partner.example")
    assert client.threads.get(thread)["status"] == "interrupted"
    assert "status" not in asked
    done: Any = client.runs.wait(thread, "answer_mail", command=APPROVE)
    assert done["status"] == f"to bo@partner.example: {ANSWER}"
    assert client.threads.get_state(thread)["values"] == done


def test_a_client_sees_a_denial_with_its_reason(client: SyncLangGraphClient) -> None:
    thread = new_thread(client)
    parts = list(client.runs.stream(thread, "answer_mail", input={"subject": "trap"}))
    assert parts[-1].event == "error"
    assert parts[-1].data == {"error": "PolicyDenied", "message": DENIED}
    assert client.threads.get(thread)["status"] == "error"
    state: Any = client.threads.get_state(thread)
    assert (state["next"], "status" in state["values"]) == (["send"], False)
    with pytest.raises(Exception, match="PolicyDenied: The policy denied the call of `send`"):
        client.runs.wait(new_thread(client), "answer_mail", input={"subject": "trap"})


def test_a_run_without_a_thread_says_that_nobody_can_be_asked(
    client: SyncLangGraphClient,
) -> None:
    with pytest.raises(Exception, match='UsageError: `on_denied="interrupt"` needs a checkpoint'):
        client.runs.wait(None, "answer_mail", input=MAIL)


def test_a_graph_of_a_factory_is_interrupted_and_resumed_through_the_api(
    client: SyncLangGraphClient,
) -> None:
    thread = new_thread(client)
    first: Any = client.runs.wait(thread, "loop", input={"text": "hey"})
    assert [one["value"] for one in first["__interrupt__"]] == ["Is it long enough?"]
    last = client.runs.wait(thread, "loop", command={"resume": "yes"})
    assert last == {"text": "HEY" * 4, "log": ["shout", "double", "double", "yes"]}
    assert client.threads.get_state(thread)["values"] == last


def test_the_server_draws_the_users_graph(client: SyncLangGraphClient) -> None:
    [assistant] = client.assistants.search(graph_id="loop")
    drawn: Any = client.assistants.get_graph(assistant["assistant_id"])
    names = {node["id"] for node in drawn["nodes"]}
    assert names == {"__start__", "shout", "double", "ask", "__end__"}
