"""Histories that differ from the stored history of their session (behaviour.md T1)."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from langchain_sequrity import ChatSequrity, SequrityMessages, dual_llm_result
from langchain_sequrity.errors import InvalidRequest
from langchain_sequrity.headers import ConfigHeader
from langchain_sequrity.local import LocalServer

DUAL = {"agent_arch": "dual-llm"}
CLASSES: list[tuple[type[ChatSequrity] | type[SequrityMessages], dict[str, Any]]] = [
    (ChatSequrity, {}),
    (SequrityMessages, {}),
    (ChatSequrity, {"use_responses_api": True}),
    (ChatSequrity, {"use_responses_api": True, "use_previous_response_id": True}),
]
IDS = ["chat", "messages", "responses", "previous-id"]


def read_file(name: str) -> str:
    """Read a file."""
    return f"content of {name}"


@pytest.fixture(params=CLASSES, ids=IDS)
def model(request: pytest.FixtureRequest) -> Iterator[Any]:
    kind, options = request.param
    with LocalServer() as server:
        made = kind("any/model", base_url=server.base_url, features=DUAL, **options)
        yield made


def session_of(message: BaseMessage) -> str:
    found: str = message.response_metadata["sequrity"]["session_id"]
    return found


def test_a_forked_history_starts_a_new_session_and_logs_a_warning(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first = model.invoke([HumanMessage("one")])
    second = model.invoke([HumanMessage("one"), first, HumanMessage("two")])
    assert session_of(second) == session_of(first)
    with caplog.at_level(logging.WARNING, "langchain_sequrity"):
        other = model.invoke([HumanMessage("one"), first, HumanMessage("three")])
    assert other.text == "You said: three"
    assert session_of(other) != session_of(first)
    assert other.response_metadata["sequrity"]["forked_from"] == session_of(first)
    assert "continuing in a new session" in caplog.text
    # Both conversations, the new one and the old one, continue in their own sessions.
    history = [HumanMessage("one"), first, HumanMessage("three"), other, HumanMessage("four")]
    assert session_of(model.invoke(history)) == session_of(other)
    history = [HumanMessage("one"), first, HumanMessage("two"), second, HumanMessage("five")]
    assert session_of(model.invoke(history)) == session_of(first)


async def test_every_call_method_accepts_a_forked_history(model: Any) -> None:
    first = model.invoke([HumanMessage("one")])
    model.invoke([HumanMessage("one"), first, HumanMessage("two")])
    fork = [HumanMessage("one"), first, HumanMessage("three")]
    assert "".join(chunk.text for chunk in model.stream(fork)) == "You said: three"
    assert (await model.ainvoke(fork)).text == "You said: three"
    assert "".join([chunk.text async for chunk in model.astream(fork)]) == "You said: three"


def test_a_forked_history_in_a_named_session_is_refused(model: Any) -> None:
    first = model.invoke([HumanMessage("one")])
    model.invoke([HumanMessage("one"), first, HumanMessage("two")])
    fork = [HumanMessage("one"), first, HumanMessage("three")]
    with pytest.raises(InvalidRequest) as caught:
        model.invoke(fork, session_id=session_of(first))
    assert caught.value.status == 409


def test_a_turn_whose_open_call_was_edited_is_not_moved_to_another_session(model: Any) -> None:
    agent = model.bind_tools([read_file])
    question = HumanMessage("read_file 'a.txt'")
    asked = agent.invoke([question])
    call = asked.tool_calls[0]
    edited = asked.model_copy(
        update={"tool_calls": [{**call, "args": {"name": "b.txt"}}], "content": ""}
    )
    result = ToolMessage("content of b.txt", tool_call_id=call["id"])
    with pytest.raises(InvalidRequest, match=r"(?s)was checked.*stays in its session") as caught:
        agent.invoke([question, edited, result])
    assert caught.value.status == 409
    unedited = ToolMessage("content of a.txt", tool_call_id=call["id"])
    done = agent.invoke([question, asked, unedited])  # the turn itself did not change
    assert session_of(done) == session_of(asked)
    assert "content of a.txt" in done.text


@pytest.mark.long(sample=1)
def test_a_graph_can_replay_and_fork_from_an_old_checkpoint(model: Any) -> None:
    agent = model.bind_tools([read_file])

    def call_model(state: MessagesState) -> dict[str, Any]:
        return {"messages": [agent.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", call_model)
    graph.add_node("tools", ToolNode([read_file]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    app = graph.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    app.invoke({"messages": [HumanMessage("read_file 'a.txt'")]}, config)
    done = app.invoke({"messages": [HumanMessage("read_file 'b.txt'")]}, config)
    assert "content of b.txt" in done["messages"][-1].text
    past = list(app.get_state_history(config))
    before = next(
        one for one in past if one.next == ("tools",) and len(one.values["messages"]) == 2
    )
    replayed = app.invoke(None, before.config)["messages"][-1]
    assert "content of a.txt" in replayed.text
    assert session_of(replayed) == session_of(done["messages"][-1])
    fork = app.update_state(before.config, {"messages": [HumanMessage("Say hello instead.")]})
    forked = app.invoke({"messages": []}, fork)["messages"][-1]
    assert forked.text == "You said: Say hello instead."
    assert session_of(forked) != session_of(replayed)
    assert forked.response_metadata["sequrity"]["forked_from"] == session_of(replayed)


def test_a_front_end_that_rewrites_its_history_stays_in_its_session() -> None:
    """With `ConfigHeader.for_agent_front_ends()` the turn runs again, and the reply says so."""
    config = ConfigHeader.for_agent_front_ends()
    with LocalServer() as server:
        model = ChatSequrity(
            "any/model", base_url=server.base_url, features=DUAL, session_config=config
        )
        first = model.invoke([HumanMessage("one")])
        again = model.invoke([HumanMessage("once"), first, HumanMessage("two")])
    assert session_of(again) == session_of(first)
    result = dual_llm_result(again)
    assert result is not None
    assert result.message_history_mismatch_detected
    assert again.text == "You said: two"
