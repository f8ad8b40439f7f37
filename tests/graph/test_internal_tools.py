"""Nodes that are internal tools of the service: what they must read, and their arguments."""

from collections.abc import Iterator
from typing import Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Send
from pydantic import BaseModel

from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import GraphNotSupported, PolicyDenied, UsageError
from langchain_sequrity.local import LocalServer
from tests.graph.running import secured
from tests.graph.services import DUAL

ANSWER = {"name": "Ada", "have_enough_info": True}
SCRIPT = [
    {"when": {"role": "quarantined", "user": "Who wrote"}, "value": ANSWER},
    {"when": {"role": "quarantined", "user": "is a first name"}, "value": True},
]


class State(TypedDict, total=False):
    query: str
    output_schema: Any
    hypothesis: str
    name: str
    policy: str
    found: Any
    told: str


class Sender(BaseModel):
    name: str
    have_enough_info: bool


class Tree(BaseModel):
    children: "list[Tree]"
    have_enough_info: bool


@pytest.fixture(scope="module")
def local() -> Iterator[LocalServer]:
    with LocalServer(script=SCRIPT) as server:
        yield server


def never(_state: State) -> dict[str, Any]:
    raise AssertionError


def graph(*before: Any) -> Any:
    made: Any = StateGraph(State)
    made.add_sequence([*before, ("ask", never), ("tell", tell)])
    return made.add_edge(START, before[0].__name__ if before else "ask")


def tell(state: State) -> dict[str, Any]:
    return {"told": str(state["found"])}


def executor_of(
    local: LocalServer, tool: str, reads: list[str], *before: Any, policy: str | None = None
) -> Any:
    model = ChatSequrity("any/model", base_url=local.base_url, policy=policy, features=DUAL)
    option = {"internal_tool": tool, "reads": reads, "writes": ["found"]}
    return secured(graph(*before), model, {"ask": option})


def parsing(local: LocalServer, *before: Any, policy: str | None = None) -> Any:
    return executor_of(local, "parse_with_ai", ["query", "output_schema"], *before, policy=policy)


@pytest.mark.parametrize("order", [["query", "output_schema"], ["output_schema", "query"]])
def test_a_node_reads_text_with_a_model_of_the_service(
    local: LocalServer, order: list[str]
) -> None:
    executor = executor_of(local, "parse_with_ai", order)
    value = {"query": "Who wrote this? Ada", "output_schema": Sender.model_json_schema()}
    state = executor.invoke(value)
    assert state["found"] == ANSWER
    assert state["told"] == str(ANSWER)


def test_a_policy_sees_the_query_of_parse_with_ai(local: LocalServer) -> None:
    def read(_state: State) -> dict[str, Any]:
        return {"query": "Who wrote this? Ada"}

    policy = 'tool "parse_with_ai" { must deny when "read" in query.producers; }'
    executor = parsing(local, read, policy=policy)
    with pytest.raises(PolicyDenied) as caught:
        executor.invoke({"output_schema": Sender.model_json_schema()})
    assert caught.value.tool == "parse_with_ai"


@pytest.mark.parametrize(
    ("tool", "reads", "said"),
    [
        ("parse_with_ai", [], "`reads` are empty"),
        ("parse_with_ai", ["query"], "takes `output_schema`, `query`, and its `reads` are `query`"),
        ("parse_with_ai", ["output_schema"], "`reads` are `output_schema`."),
        ("parse_with_ai", ["name", "hypothesis"], "`reads` are `hypothesis`, `name`"),
        ("parse_with_ai", ["query", "output_schema", "name"], "reads=['query', 'output_schema']"),
        ("verify_hypothesis", ["query"], "takes `hypothesis`, and its `reads` are `query`"),
        ("verify_hypothesis", [], "takes `hypothesis`, and its `reads` are empty"),
        ("set_policy", ["query"], "takes `policy`, and its `reads` are `query`"),
        ("set_policy", ["policy", "name"], "`reads` are `name`, `policy`"),
    ],
)
def test_a_node_whose_reads_do_not_fit_its_internal_tool_is_refused(
    local: LocalServer, tool: str, reads: list[str], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        executor_of(local, tool, reads)
    assert said in str(caught.value)
    assert f"Node 'ask' is the internal tool `{tool}`" in str(caught.value)


def test_verify_hypothesis_accepts_other_fields_as_arguments(local: LocalServer) -> None:
    program = executor_of(local, "verify_hypothesis", ["hypothesis", "name"]).program
    assert "verify_hypothesis(hypothesis=s_hypothesis, name=s_name)" in program


def test_complete_turn_accepts_any_field_as_its_value(local: LocalServer) -> None:
    assert "complete_turn(name=s_name)" in executor_of(local, "complete_turn", ["name"]).program


GOOD: list[Any] = [
    Sender.model_json_schema(),
    Tree.model_json_schema(),
    {"properties": {"have_enough_info": {"type": "boolean", "default": False}}},
]
BAD: list[Any] = [
    {},
    {"type": "object"},
    {"type": "string"},
    {"properties": {"name": {"type": "string"}}},
    {"properties": {"have_enough_info": {"type": "string"}}},
    {"properties": {"have_enough_info": True}},
    {"properties": ["have_enough_info"]},
    {"$ref": "#/$defs/Other", "$defs": {"Tree": Tree.model_json_schema()}},
    {"$ref": "#/$defs/Tree"},
    [],
    "have_enough_info",
    7,
]


@pytest.mark.parametrize("schema", BAD)
def test_a_schema_without_have_enough_info_is_refused_before_anything_is_sent(
    local: LocalServer, schema: Any
) -> None:
    with pytest.raises(UsageError, match=r"`output_schema` has no boolean property `have_enough"):
        parsing(local).invoke({"query": "Who wrote this?", "output_schema": schema})


@pytest.mark.parametrize("schema", BAD)
def test_a_node_that_writes_a_schema_without_have_enough_info_is_refused(
    local: LocalServer, schema: Any
) -> None:
    def choose(_state: State) -> dict[str, Any]:
        return {"output_schema": schema}

    with pytest.raises(UsageError, match=r"What node `choose` wrote to `output_schema` has no"):
        parsing(local, choose).invoke({"query": "Who wrote this?"})


@pytest.mark.parametrize("schema", GOOD)
def test_a_schema_with_have_enough_info_is_sent(local: LocalServer, schema: Any) -> None:
    def choose(_state: State) -> dict[str, Any]:
        return {"output_schema": schema}

    executor = parsing(local, choose)
    for value in ({}, {"output_schema": None}, {"output_schema": schema}):
        executor.invoke({"query": "Who wrote this? Ada", **value})


@pytest.mark.parametrize("schema", BAD)
def test_a_field_named_output_schema_is_not_checked_if_no_node_is_parse_with_ai(
    local: LocalServer, schema: Any
) -> None:
    made: Any = StateGraph(State)
    made.add_node("tell", lambda state: {"told": str(state["output_schema"])})
    executor = secured(
        made.add_edge(START, "tell"), ChatSequrity("any/model", base_url=local.base_url)
    )
    assert executor.invoke({"output_schema": schema})["told"] == str(schema)


def test_an_internal_tool_to_which_a_router_may_send_packets_is_refused(
    local: LocalServer,
) -> None:
    made: Any = StateGraph(State)
    made.add_node("ask", never).add_node("tell", tell).add_edge(START, "tell")
    made.add_conditional_edges("tell", lambda _: [Send("ask", {"query": "Who?"})], ["ask"])
    model = ChatSequrity("any/model", base_url=local.base_url)
    option = {"internal_tool": "parse_with_ai", "reads": ["query", "output_schema"]}
    with pytest.raises(GraphNotSupported, match="may send it packets") as caught:
        secured(made, model, {"ask": {**option, "writes": ["found"]}})
    assert caught.value.node == "ask"
