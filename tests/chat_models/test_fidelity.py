"""The client against servers of both fidelities, `full` and `documented`.

The differences are listed in docs/local-server.md, Fidelity.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import BaseModel

from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import (
    AuthenticationFailed,
    ForcedToolMissing,
    InvalidRequest,
    ServerFailed,
    SessionExpired,
    TimedOut,
)
from langchain_sequrity.local import LocalServer


@tool
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"Rain in {city}"


class City(BaseModel):
    """A city."""

    name: str


QUESTION = HumanMessage("Get the weather of the city 'Oslo'.")


@pytest.fixture
def model(any_base_url: str) -> ChatSequrity:
    return ChatSequrity("any/model", base_url=any_base_url, max_retries=0)


@pytest.fixture
def is_full(request: pytest.FixtureRequest) -> bool:
    return "full" in request.node.callspec.id.split("-")


def session_of(message: BaseMessage) -> str:
    session: str = message.response_metadata["sequrity"]["session_id"]
    return session


def total(chunks: Iterator[Any]) -> Any:
    first, *others = chunks
    return first + others if others else first


def test_answers_and_streams_agree(model: ChatSequrity) -> None:
    said = [SystemMessage("Be brief."), HumanMessage("Hello 'there'")]
    whole, streamed = model.invoke(said), total(model.stream(said))
    assert whole.text == streamed.text != ""
    assert whole.usage_metadata == streamed.usage_metadata
    assert whole.response_metadata["model_name"] == streamed.response_metadata["model_name"]


def test_an_agent_works_with_tool_call_ids_of_both_forms(
    model: ChatSequrity, is_full: bool
) -> None:
    bound = model.bind_tools([get_weather])
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [bound.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([get_weather]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    _, call, result, answer = graph.compile().invoke({"messages": [QUESTION]})["messages"]
    form = r"tc-[0-9a-f-]{36}-[0-9a-f-]{36}" if is_full else r"tc[0-9a-f]{16}"
    assert re.fullmatch(form, call.tool_calls[0]["id"])
    assert result.content == "Rain in Oslo"
    assert "Rain in Oslo" in answer.text
    assert session_of(call) == session_of(answer)


async def test_create_agent_works_async_and_streamed(model: ChatSequrity) -> None:
    agent = create_agent(model, [get_weather])
    pieces: Any = agent.astream({"messages": [QUESTION]}, stream_mode="messages")
    texts = [
        str(chunk.text)
        async for chunk, facts in pieces
        if isinstance(chunk, AIMessage) and facts["langgraph_node"] == "model"
    ]
    assert "Rain in Oslo" in "".join(texts)


def test_create_agent_gets_a_structured_answer(model: ChatSequrity) -> None:
    agent = create_agent(model, [], response_format=ProviderStrategy(City))
    result = agent.invoke({"messages": [HumanMessage("The city is named 'Oslo'.")]})
    assert result["structured_response"] == City(name="Oslo")


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_is_returned_or_its_absence_raises(
    model: ChatSequrity, is_full: bool, method: Any
) -> None:
    structured = model.with_structured_output(City, method=method)
    if is_full or method == "json_schema":
        assert structured.invoke("The city is named 'Oslo'.") == City(name="Oslo")
    else:  # `tool_choice` is not documented: nothing forces the call
        with pytest.raises(ForcedToolMissing):
            structured.invoke("Hello")


def test_a_lone_tool_result_continues_a_named_session(model: ChatSequrity) -> None:
    bound = model.bind_tools([get_weather])
    call = bound.invoke([QUESTION])
    assert isinstance(call, AIMessage)
    lone = ToolMessage("Sun in Oslo", tool_call_id=call.tool_calls[0]["id"])
    answer = bound.invoke([lone], session_id=session_of(call))
    assert "Sun in Oslo" in answer.text
    assert session_of(answer) == session_of(call)


def test_a_history_of_another_model_starts_a_new_session(
    model: ChatSequrity, any_base_url: str
) -> None:
    call = model.bind_tools([get_weather]).invoke([QUESTION])
    assert isinstance(call, AIMessage)
    result = ToolMessage("Rain in Oslo", tool_call_id=call.tool_calls[0]["id"])
    other = ChatSequrity("any/other", base_url=any_base_url).bind_tools([get_weather])
    answer = other.invoke([QUESTION, call, result])
    assert session_of(answer) != session_of(call)
    assert "Rain in Oslo" in answer.text


def test_an_unknown_session_raises_session_expired(model: ChatSequrity) -> None:
    with pytest.raises(SessionExpired):
        model.invoke("Hi", session_id="0b6f1c2e-1a2b-41f1-9c3d-0242ac120002")


def test_the_last_turn_of_a_session_ends_it(any_base_url: str) -> None:
    config = {"fsm": {"max_n_turns": 1}}
    once = ChatSequrity("m", base_url=any_base_url, session_config=config)
    first = once.invoke("Hi")
    history = [HumanMessage("Hi"), first, HumanMessage("More")]
    with pytest.raises(SessionExpired):
        once.invoke(history)
    again = once.model_copy(update={"on_session_expired": "restart"}).invoke(history)
    assert session_of(again) != session_of(first)


def test_refusals_of_the_server_raise_typed_errors(model: ChatSequrity) -> None:
    with pytest.raises(InvalidRequest, match="c1"):
        model.invoke([HumanMessage("Hi"), ToolMessage("x", tool_call_id="c1")])
    later = model.model_copy(update={"policy": {"auto_gen": True}})
    with pytest.raises(ServerFailed, match="auto_gen") as caught:
        later.invoke("Hi")
    assert caught.value.status == 501
    assert caught.value.request_id


@pytest.mark.parametrize("fidelity", ["full", "documented"])
def test_a_wrong_key_is_refused(fidelity: Any) -> None:
    with LocalServer(api_keys=["sq-right"], fidelity=fidelity) as server:
        right = ChatSequrity("m", base_url=server.base_url, api_key="sq-right")
        assert right.invoke("Hi").text
        with pytest.raises(AuthenticationFailed) as caught:
            right.model_copy(update={"api_key": "sq-wrong"}).invoke("Hi")
        assert "sq-wrong" not in str(caught.value)


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("fidelity", ["full", "documented"])
def test_errors_and_delays_of_a_script_reach_the_client(fidelity: Any) -> None:
    script: list[dict[str, Any]] = [
        {"when": {"user": "once"}, "error": {"status": 503, "message": "busy"}, "times": 1},
        {"when": {"user": "slow"}, "text": "late", "delay": 0.5},
        {"text": "fine"},
    ]
    with LocalServer(script=script, fidelity=fidelity) as server:
        model = ChatSequrity("m", base_url=server.base_url, max_retries=2)
        assert model.invoke("once").text == "fine"
        with pytest.raises(TimedOut):
            model.model_copy(update={"timeout": 0.1, "max_retries": 0}).invoke("slow")


def test_media_reach_the_model(model: ChatSequrity) -> None:
    png = "iVBORw0KGgo="
    content: list[Any] = [
        {"type": "text", "text": "What is this?"},
        {"type": "image", "base64": png, "mime_type": "image/png"},
        {"type": "file", "base64": png, "mime_type": "application/pdf", "filename": "a.pdf"},
        {"type": "audio", "base64": png, "mime_type": "audio/wav"},
    ]
    sizes = []
    for sent in (content[:1], content):
        usage = model.invoke([HumanMessage(sent)]).usage_metadata
        assert usage is not None
        sizes.append(usage["input_tokens"])
    assert sizes[1] == sizes[0] + 3 * 85  # an image, a file and a sound
