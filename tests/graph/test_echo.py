"""The service's messages are sent back unchanged: it may compare histories as text."""

import json
from typing import Any, TypedDict

import httpx
import pytest
from hypothesis import given as generated
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from langchain_sequrity.errors import TurnFailed
from langchain_sequrity.graph.codec.values import encode
from tests.graph.ledger import thread
from tests.graph.running import secured
from tests.graph.services import MESSAGES, made_up

SESSION = "9a3e51d0-2b7c-11f1-8d02-0242ac110003"
END = json.dumps({"status": "failure", "error": {"code": "x", "message": "That is all."}})
KEYS = st.sampled_from(["n", "trace", "é", '"', "\\", "\u2028"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-1e20, 1e20)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
SPELLINGS: list[dict[str, Any]] = [
    {},
    {"ensure_ascii": False},
    {"separators": (",", ":")},
    {"indent": 2},
    {"separators": (" ,", " : "), "sort_keys": True},
]


def call_id(number: int) -> str:
    return f"tc-{SESSION}-{number:08x}-2b7c-11f1-a6f1-0242ac110003"


def completion(message: dict[str, Any], reason: str) -> httpx.Response:
    """A reply of chat/completions, written by Python's `json.dumps` as in recordings."""
    body = {
        "id": SESSION, "object": "chat.completion", "created": 1774000000, "model": "v/l,v/s",
        "choices": [{"index": 0, "finish_reason": reason, "message": message}],
        "usage": {"prompt_tokens": 1830, "completion_tokens": 95, "total_tokens": 1925},
    }  # fmt: skip
    headers = {"x-session-id": SESSION, "content-type": "application/json"}
    return httpx.Response(200, headers=headers, content=json.dumps(body))


def block(content: list[dict[str, Any]], reason: str) -> httpx.Response:
    """A reply of Messages."""
    body = {
        "id": SESSION, "type": "message", "role": "assistant", "model": "v/l", "content": content,
        "stop_reason": reason, "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip
    headers = {"x-session-id": SESSION, "content-type": "application/json"}
    return httpx.Response(200, headers=headers, content=json.dumps(body))


class State(TypedDict, total=False):
    n: Any
    m: Any
    k: Any


APART = 'tool "result_of" { must allow always; }'
"""A policy with a rule for `result_of`. Under it, calls are not answered with handles."""


def graph(*, is_wide: bool = False) -> Any:
    def a(state: State) -> dict[str, Any]:
        return {"m": str(state["n"])}

    def b(state: State) -> dict[str, Any]:
        return {"k": str(state["n"])}

    made: Any = StateGraph(State).add_node(a).add_node(b).add_edge(START, "a")
    return made.add_edge(START if is_wide else "a", "b")


def told(model: Any, value: Any, *, is_wide: bool = False) -> None:
    with pytest.raises(TurnFailed, match="That is all"):
        secured(graph(is_wide=is_wide), model, history="whole").invoke({"n": value}, thread())


def spelled(value: Any, *spellings: str) -> Any:
    """A value, and one or two spellings of the arguments with it."""
    written = [json.dumps({"n": encode(value, "n")}, **how) for how in SPELLINGS]
    texts = st.sampled_from([*written, *spellings])
    return st.tuples(st.just(value), st.lists(texts, min_size=1, max_size=2))


@generated(
    given=VALUES.flatmap(spelled)
    | spelled(100.0, '{"n": 1e2}') | spelled(1.5, ' {"n":1.50} ')
    | spelled("é/", '{"n": "\\u00E9\\/"}'),
    beside=st.sampled_from(
        [{}, {"content": None}, {"content": ""}, {"content": "Wait.", "refusal": None},
         {"content": "", "reasoning_content": "Hm.", "annotations": [], "audio": None, "x": 1.0}]
    ),
)  # fmt: skip
def test_a_message_of_chat_completions_is_sent_back_unchanged(
    given: tuple[Any, list[str]], beside: dict[str, Any]
) -> None:
    value, arguments = given
    asked = {
        **beside,
        "role": "assistant",
        "tool_calls": [
            {"id": call_id(number), "type": "function", "index": number,
             "function": {"arguments": text, "name": "ab"[number]}}
            for number, text in enumerate(arguments)
        ],
    }  # fmt: skip
    with made_up(policy=APART) as (model, service):
        service.replies += [completion(asked, "tool_calls"), completion({"content": END}, "stop")]
        told(model, value, is_wide=len(arguments) > 1)
        again = service.bodies[1]["messages"]
    assert [one["role"] for one in again] == ["user", "assistant", *["tool"] * len(arguments)]
    assert json.dumps(again[1]) == json.dumps(asked)
    assert [one["tool_call_id"] for one in again[2:]] == [
        call_id(number) for number in range(len(arguments))
    ]


@generated(value=VALUES | st.integers(2**64, 2**70))
def test_a_message_of_messages_is_sent_back_unchanged(value: Any) -> None:
    asked: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "thinking", "text": "In the service's own spelling."},
        {"type": "text", "text": ""},
        {"id": call_id(0), "type": "tool_use", "name": "a", "input": {"n": encode(value, "n")}},
    ]
    with made_up(MESSAGES) as (model, service):
        service.replies += [
            block(asked, "tool_use"), block([{"type": "text", "text": END}], "end_turn"),
        ]  # fmt: skip
        told(model, value)
        sent = json.loads(service.requests[1].content)["messages"][1]
    assert json.dumps(sent) == json.dumps({"role": "assistant", "content": asked})


def test_another_process_sends_every_message_of_a_run_back_unchanged() -> None:
    """A checkpoint stores them as they came; they are not written again from parsed messages."""
    asked = [
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": call_id(number), "type": "function",
             "function": {"name": name, "arguments": json.dumps({"n": "é"})}}]}
        for number, name in enumerate(["a", "b"])
    ]  # fmt: skip
    saver = InMemorySaver()
    with made_up() as (model, service):
        service.replies += [completion(asked[0], "tool_calls"), httpx.Response(500)]
        with pytest.raises(Exception, match="500"):
            secured(graph(), model, history="whole", checkpointer=saver).invoke(
                {"n": "é"}, thread()
            )
    with made_up() as (model, service):
        service.replies += [
            completion(asked[1], "tool_calls"),
            completion({"content": END}, "stop"),
        ]
        with pytest.raises(TurnFailed, match="That is all"):
            secured(graph(), model, history="whole", checkpointer=saver).invoke(None, thread())
        first, second = (body["messages"] for body in service.bodies)
    assert first == second[: len(first)]
    assert [one for one in second if one["role"] == "assistant"] == asked
