"""A conversation continues in another format: all of it is sent, in a new session."""

from itertools import permutations
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_sequrity.local import LocalServer
from tests.chat_models.formats import CHAT, ROWS, Row, added
from tests.local.stores import find

PNG = "iVBORw0KGgo="
IMAGE = {"type": "image", "base64": PNG, "mime_type": "image/png"}
PAIRS = list(permutations(ROWS, 2))
SCRIPT: list[dict[str, Any]] = [
    {
        "when": {"user": "^Look"},
        "times": 1,
        "reasoning": "A picture of a city.",
        "text": "Let me see.",
        "tool_calls": [
            {"name": "get_weather", "arguments": {"city": "Rome"}},
            {"name": "get_weather", "arguments": {"city": "Oslo"}},
        ],
    },
    {"when": {"tool_result": "."}, "text": "Sunny, says {tool_result}."},
]


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}"


def _first_turn(row: Row, server: LocalServer, *, stream: bool, v1: bool) -> list[BaseMessage]:
    version = {"output_version": "v1"} if v1 else {}
    model: Any = row.make(base_url=server.base_url, **version).bind_tools([get_weather])
    messages: list[BaseMessage] = [
        SystemMessage("Be brief."),
        HumanMessage([{"type": "text", "text": "Look at this."}, IMAGE]),
    ]
    called = added(model.stream(messages)) if stream else model.invoke(messages)
    results = [
        ToolMessage(get_weather(**c["args"]), tool_call_id=c["id"]) for c in called.tool_calls
    ]
    return [*messages, called, *results]


def _media(message: BaseMessage) -> list[str]:
    return [
        str(block) for block in message.content if isinstance(block, dict) and PNG in str(block)
    ]


@pytest.mark.long(sample=2)
@pytest.mark.parametrize(
    ("first", "second"), PAIRS, ids=[f"{a.format} to {b.format}" for a, b in PAIRS]
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("v1", [False, True], ids=["", "v1"])
def test_a_conversation_continues_in_another_format(
    first: Row, second: Row, stream: bool, v1: bool
) -> None:
    with LocalServer(script=SCRIPT) as server:
        messages = _first_turn(first, server, stream=stream, v1=v1)
        called: Any = messages[2]
        model: Any = second.make(base_url=server.base_url).bind_tools([get_weather])
        answer: AIMessage = model.invoke(messages)
        assert answer.text == "Sunny, says Sunny in Oslo."
        old = called.response_metadata["sequrity"]["session_id"]
        new = answer.response_metadata["sequrity"]["session_id"]
        assert new != old

        # The new session has the whole conversation.
        told = find(server.sessions, new)
        assert told is not None
        system, user, said, *results, _answer = told.messages
        assert system.text == "Be brief."
        assert user.text == "Look at this."
        assert _media(user)
        assert isinstance(said, AIMessage)
        assert said.text == "Let me see."
        assert [(c["name"], c["args"]) for c in said.tool_calls] == [
            ("get_weather", {"city": "Rome"}),
            ("get_weather", {"city": "Oslo"}),
        ]
        assert [one.text for one in results] == ["Sunny in Rome", "Sunny in Oslo"]
        paired = [one.tool_call_id for one in results if isinstance(one, ToolMessage)]
        assert paired == [call["id"] for call in said.tool_calls]
        assert old not in str(told.messages)

        # Back in the first format, the first session continues.
        back: Any = first.make(base_url=server.base_url).bind_tools([get_weather])
        again = back.invoke([*messages, answer, HumanMessage("And now?")])
        assert again.response_metadata["sequrity"]["session_id"] == old
        assert "And now?" in again.text


SERVED: list[Any] = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
    {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    {"type": "text", "text": "Found it."},
]


@pytest.mark.parametrize("row", ROWS, ids=[row.format for row in ROWS])
def test_tool_blocks_of_other_services_in_the_history_cause_no_error(
    row: Row, base_url: str
) -> None:
    call = {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"city": "Rome"}}
    history = [
        HumanMessage("Hello"),
        AIMessage(SERVED if row is CHAT else SERVED[-1:]),
        HumanMessage("get_weather"),
        AIMessage([call], tool_calls=[{"id": "c1", "name": "get_weather", "args": {"city": "Rome"}}]),
        HumanMessage([{"type": "tool_result", "tool_use_id": "c1", "content": "Sunny"},
                      {"type": "text", "text": "And?"}]),
    ]  # fmt: skip
    answer = row.make(base_url=base_url).bind_tools([get_weather]).invoke(history)
    assert answer.text
