"""Mistakes that runners of graphs make. Each test checks what a user expects.

Sections: A graphs, B names, C state, D failures, E configuration and sessions.
"""

import ast
import datetime as dt
import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, RetryPolicy, Send, interrupt
from pydantic import BaseModel

from langchain_sequrity import (
    ChatSequrity,
    ConfigHeader,
    LangGraphExecutor,
    NodeOptions,
    SequrityMessages,
)
from langchain_sequrity.errors import (
    BadReply,
    PolicyDenied,
    ProgramFailed,
    SequrityError,
    TurnFailed,
    UsageError,
)
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.answers import ModelAnswer
from tests.chat_models.test_dual_llm import DENIAL, failure
from tests.graph.running import secured
from tests.graph.services import MESSAGES, changed, made_up, noted
from tests.graph.shapes.traced import Traced, connect, count, traced, visit


@pytest.fixture(scope="module")
def local() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


@pytest.fixture(scope="module")
def model(local: LocalServer) -> ChatSequrity:
    return ChatSequrity("any/model", base_url=local.base_url)


def result(graph: Any, model: ChatSequrity, value: Any, **options: Any) -> Any:
    """The final state of a run through the executor."""
    return secured(graph, model, **options).invoke(value)


# -- A. graphs


def test_a_branch_to_the_end_ends_a_loop(model: ChatSequrity) -> None:
    graph = connect(traced(a=count("a")), "__start__>a")
    graph.add_conditional_edges("a", lambda state: END if state["n"] >= 3 else "a", ["a", END])
    assert result(graph, model, {"n": 0})["n"] == 3


def test_a_back_edge_is_followed(model: ChatSequrity) -> None:
    class State(TypedDict, total=False):
        n: int
        q: str
        result: str

    graph: Any = StateGraph(State)
    graph.add_node("a", lambda state: {"n": state["n"] + 1})
    graph.add_node("bb", lambda _state: {"q": "b"})
    graph.add_node("cc", lambda _state: {"result": "done"})
    connect(graph, "__start__>a", "bb>a", "cc>__end__")
    graph.add_conditional_edges("a", lambda state: "bb" if state["n"] < 3 else "cc", ["bb", "cc"])
    assert result(graph, model, {"n": 0}) == {"n": 3, "q": "b", "result": "done"}


def fan_out() -> Any:
    return connect(traced("a", "b", "c_"), "__start__>a", "a>b", "a>c_")


def test_both_successors_of_a_fan_out_run(model: ChatSequrity) -> None:
    assert result(fan_out(), model, {})["trace"] == ["a", "b", "c_"]


_SCRIPT = """
from langchain_sequrity import ChatSequrity
from tests.graph.running import secured
from tests.graph.test_quirks import fan_out

print(secured(fan_out(), ChatSequrity("any/model", base_url="http://127.0.0.1:9")).program)
"""


@pytest.mark.long
def test_the_program_does_not_depend_on_the_hash_seed() -> None:
    programs = {
        subprocess.run(  # noqa: S603 - this interpreter, this script
            [sys.executable, "-c", _SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(programs) == 1
    assert programs.pop().strip()


def test_both_edges_from_the_start_are_followed(model: ChatSequrity) -> None:
    graph = connect(traced("a", "b"), "__start__>a", "__start__>b")
    assert result(graph, model, {})["trace"] == ["a", "b"]


def test_a_join_runs_when_all_its_arms_have_run(model: ChatSequrity) -> None:
    graph = connect(traced("a", "b", "c", "d"), "__start__>a", "a>b", "a>c")
    graph.add_edge(["b", "c"], "d")
    assert result(graph, model, {})["trace"] == ["a", "b", "c", "d"]


def test_a_router_picks_the_entry_node(model: ChatSequrity) -> None:
    graph = traced("a", "b")
    graph.add_conditional_edges(START, lambda state: "b" if state["n"] else "a", ["a", "b"])
    assert result(graph, model, {"n": 1})["trace"] == ["b"]


@pytest.mark.parametrize(
    ("answer", "path_map", "expected"),
    [
        ("yes", {"yes": "b", "no": "c_"}, ["a", "b"]),
        (True, {True: "b", False: "c_"}, ["a", "b"]),
        (False, {True: "b", False: "c_"}, ["a", "c_"]),
        ("c_", None, ["a", "c_"]),
        (["b", "c_"], None, ["a", "b", "c_"]),
        (["b", "c_"], ["b", "c_"], ["a", "b", "c_"]),
    ],
    ids=["label", "true", "false", "no map", "list", "list with map"],
)
def test_a_router_may_answer_with_a_label_a_node_or_several(
    answer: Any, path_map: Any, expected: list[str], model: ChatSequrity
) -> None:
    graph = connect(traced("a", "b", "c_"), "__start__>a")
    graph.add_conditional_edges("a", lambda _state: answer, path_map)
    assert result(graph, model, {})["trace"] == expected


def test_a_router_that_names_a_target_outside_its_map_fails(model: ChatSequrity) -> None:
    graph = connect(traced("a", "b"), "__start__>a")
    graph.add_conditional_edges("a", lambda _state: "elsewhere", ["b", END])
    with pytest.raises(KeyError, match="elsewhere"):
        result(graph, model, {})


def test_all_branches_of_a_node_are_evaluated(model: ChatSequrity) -> None:
    def first(_state: Traced) -> str:
        return "b"

    def second(_state: Traced) -> str:
        return "yes"

    graph = connect(traced("a", "b", "c"), "__start__>a")
    graph.add_conditional_edges("a", first, ["b"])
    graph.add_conditional_edges("a", second, {"yes": "c"})
    assert result(graph, model, {})["trace"] == ["a", "b", "c"]


def test_a_static_edge_beside_a_branch_is_always_followed(model: ChatSequrity) -> None:
    graph = connect(traced("a", "b", "c"), "__start__>a", "a>c")
    graph.add_conditional_edges("a", lambda state: "b" if state.get("n") else END, ["b", END])
    assert result(graph, model, {})["trace"] == ["a", "c"]
    assert result(graph, model, {"n": 1})["trace"] == ["a", "b", "c"]


def diamonds(number: int) -> Any:
    graph = traced()
    for i in range(number):
        for side in ("top", "left", "right"):
            graph.add_node(f"{side}{i}", visit(f"{side}{i}"))
        targets = {True: f"left{i}", False: f"right{i}"}
        graph.add_conditional_edges(f"top{i}", lambda state: state["n"] > 0, targets)
        below = f"top{i + 1}" if i + 1 < number else END
        connect(graph, f"left{i}>{below}", f"right{i}>{below}")
    return connect(graph, f"{START}>top0")


def test_a_program_grows_linearly_with_its_graph(model: ChatSequrity) -> None:
    four, eight, twelve = (len(secured(diamonds(n), model).program) for n in (4, 8, 12))
    assert twelve - eight <= 1.1 * (eight - four)
    assert twelve < 40_000


@pytest.mark.long
def test_a_hundred_conditional_edges_in_a_row_work(model: ChatSequrity) -> None:
    graph = traced(**{f"n{i}": count(f"n{i}") for i in range(101)})
    for i in range(100):
        graph.add_conditional_edges(f"n{i}", lambda _state: True, {True: f"n{i + 1}", False: END})
    assert result(connect(graph, "__start__>n0"), model, {"n": 0})["n"] == 101


class Sums(TypedDict, total=False):
    total: Annotated[int, lambda a, b: a + b]
    text: Annotated[str, lambda a, b: a + b]
    items: list[str]


def test_reducers_combine_the_old_value_with_the_new_one(model: ChatSequrity) -> None:
    graph: Any = StateGraph(Sums)
    graph.add_node("a", lambda _state: {"total": 5, "text": "b"})
    given = {"total": 10, "text": "a"}
    assert result(connect(graph, "__start__>a"), model, given) == {"total": 15, "text": "ab"}


def test_a_list_without_a_reducer_is_replaced(model: ChatSequrity) -> None:
    graph: Any = StateGraph(Sums)
    graph.add_node("a", lambda _state: {"items": ["new"]})
    state = result(connect(graph, "__start__>a"), model, {"items": ["old"]})
    assert state["items"] == ["new"]


class Chat(TypedDict, total=False):
    messages: Annotated[list[Any], add_messages]


def test_a_message_replaces_the_message_with_the_same_id(model: ChatSequrity) -> None:
    graph: Any = StateGraph(Chat)
    graph.add_node("a", lambda _state: {"messages": [AIMessage("new", id="1")]})
    given = {"messages": [AIMessage("old", id="1")]}
    state = result(connect(graph, "__start__>a"), model, given)
    assert state["messages"] == [AIMessage("new", id="1")]


def test_a_command_updates_and_routes(model: ChatSequrity) -> None:
    class State(TypedDict, total=False):
        x: int

    graph: Any = StateGraph(State)
    graph.add_node("a", lambda _state: Command(update={"x": 7}, goto="b"), destinations=("b",))
    graph.add_node("b", lambda state: {"x": state["x"] + 1})
    assert result(connect(graph, "__start__>a"), model, {}) == {"x": 8}


def test_each_packet_runs_its_worker(model: ChatSequrity) -> None:
    class State(TypedDict, total=False):
        items: list[int]
        out: Annotated[list[int], lambda a, b: a + b]

    graph: Any = StateGraph(State)
    graph.add_node("work", lambda packet: {"out": [packet["item"] * 10]})
    graph.add_conditional_edges(
        START, lambda state: [Send("work", {"item": item}) for item in state["items"]], ["work"]
    )
    assert result(graph, model, {"items": [1, 2]})["out"] == [10, 20]


def test_a_node_is_retried(model: ChatSequrity) -> None:
    attempts: list[int] = []

    def flaky(_state: Traced) -> dict[str, Any]:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError
        return {"trace": ["finished"]}

    graph = traced()
    policy = RetryPolicy(initial_interval=0.001, max_attempts=3, jitter=False)
    graph.add_node("a", flaky, retry_policy=policy)
    assert result(connect(graph, "__start__>a"), model, {})["trace"] == ["finished"]
    assert len(attempts) == 2


def test_a_node_interrupts_and_is_resumed(model: ChatSequrity) -> None:
    graph = connect(traced(a=lambda _state: {"n": interrupt("how many?")}), "__start__>a")
    executor = secured(graph, model, checkpointer=InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}
    [asked] = executor.invoke({}, config)["__interrupt__"]
    assert asked.value == "how many?"
    assert executor.invoke(Command(resume=4), config)["n"] == 4


def test_a_compiled_graph_is_accepted(model: ChatSequrity) -> None:
    graph = fan_out().compile(name="mine")
    executor = secured(graph, model)
    assert executor.invoke({})["trace"] == ["a", "b", "c_"]
    assert executor.name == "mine"


def test_a_subgraph_runs_as_a_node(model: ChatSequrity) -> None:
    graph = traced("a")
    graph.add_node("sub", connect(traced("inner"), "__start__>inner").compile())
    state = result(connect(graph, "__start__>a", "a>sub"), model, {})
    assert state["trace"] == ["a", "a", "inner"]


# -- B. names


def test_a_node_may_have_another_name_than_its_function(model: ChatSequrity) -> None:
    def impl(_state: Traced) -> dict[str, Any]:
        return {"trace": ["impl ran"]}

    graph = connect(traced(fetch=impl), "__start__>fetch")
    assert result(graph, model, {})["trace"] == ["impl ran"]


def test_nodes_with_swapped_function_names_run_their_own_functions(model: ChatSequrity) -> None:
    def save(_state: Traced) -> dict[str, Any]:
        return {"trace": ["save"]}

    def load(_state: Traced) -> dict[str, Any]:
        return {"trace": ["load"]}

    graph = connect(traced(save=load, load=save), "__start__>save", "save>load")
    assert result(graph, model, {})["trace"] == ["load", "save"]


def _wrapped(function: Any) -> Any:
    def wrapper(state: Any) -> Any:
        return function(state)

    return wrapper


class _Object:
    def __call__(self, _state: Traced) -> dict[str, Any]:
        return {"trace": ["ran"]}


def _with_argument(_argument: int, _state: Traced) -> dict[str, Any]:
    return {"trace": ["ran"]}


@pytest.mark.parametrize(
    "function",
    [
        _wrapped(visit("ran")),
        lambda _state: {"trace": ["ran"]},
        functools.partial(_with_argument, 1),
        _Object(),
    ],
    ids=["decorated", "lambda", "partial", "object"],
)
def test_any_callable_can_be_a_node_and_even_two_nodes(function: Any, model: ChatSequrity) -> None:
    graph = connect(traced(a=function, b=function), "__start__>a", "a>b")
    assert result(graph, model, {})["trace"] == ["ran", "ran"]


@pytest.mark.parametrize("name", ["my node", "fetch-data", "2nd", "it's", 'say "x"', "if", "für"])
def test_any_node_name_that_langgraph_accepts_is_accepted(name: str, model: ChatSequrity) -> None:
    graph = connect(traced("a", name), "__start__>a")
    graph.add_conditional_edges("a", lambda _state: name, [name, END])
    assert result(graph, model, {})["trace"] == ["a", name]


@pytest.mark.parametrize("separator", ["\n", "\r", "\u2028", "\x0b", "\\\n"])
def test_the_name_of_a_node_cannot_add_code_to_the_program(
    separator: str, model: ChatSequrity
) -> None:
    name = f"a{separator}import os{separator}#"
    executor = secured(connect(traced(name), f"{START}>{name}"), model)
    assert not any(isinstance(node, ast.Import) for node in ast.walk(ast.parse(executor.program)))
    assert not any(
        line.strip() == "import os" for line in re.split(r"\s*[\r\n]+", executor.program)
    )
    assert executor.invoke({})["trace"] == [name]


def test_nodes_and_routers_are_found_without_being_listed(model: ChatSequrity) -> None:
    def route(state: Traced) -> str:
        return "b" if state["n"] else END

    graph = connect(traced("a", "b"), "__start__>a")
    graph.add_conditional_edges("a", route)
    assert LangGraphExecutor(graph, model).invoke({"n": 1})["trace"] == ["a", "b"]


def test_a_node_is_mapped_to_an_internal_tool() -> None:
    class State(TypedDict, total=False):
        query: str
        output_schema: dict[str, Any]
        answer: Any

    def never(_state: State) -> dict[str, Any]:
        raise AssertionError

    graph: Any = StateGraph(State)
    graph.add_node("agent", never)
    graph.add_node("shout", lambda state: {"answer": state["answer"]["said"].upper()})
    connect(graph, "__start__>agent", "agent>shout")
    reads = ["query", "output_schema"]
    options = {"agent": {"internal_tool": "parse_with_ai", "reads": reads, "writes": ["answer"]}}
    answer = {"said": "it was read", "have_enough_info": True}
    script = [{"when": {"role": "quarantined", "user": "read this"}, "value": answer}]
    properties = {"said": {"type": "string"}, "have_enough_info": {"type": "boolean"}}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    with (
        LocalServer(script=script) as server,
        noted(server.base_url) as (model, sent),
    ):
        executor = secured(graph, model, nodes=options)
        assert "parse_with_ai(query=s_query, output_schema=s_output_schema)" in executor.program
        state = executor.invoke({"query": "read this", "output_schema": schema})
        assert state["answer"] == "IT WAS READ"
        names = [tool["function"]["name"] for tool in sent[0]["tools"]]
        assert names == ["agent", "shout"]  # the node receives the answer, so that LangGraph has it


# -- C. state


def appending() -> Any:
    def a(state: Sums) -> dict[str, Any]:
        return {"items": [*state["items"], "a"]}

    def b(state: Sums) -> dict[str, Any]:
        state["items"].append("b")  # must not change the caller's list
        return {"items": state["items"]}

    graph: Any = StateGraph(Sums)
    graph.add_node("a", a)
    graph.add_node("b", b)
    return connect(graph, "__start__>b", "b>a")


def test_a_run_does_not_change_the_callers_objects(model: ChatSequrity) -> None:
    given: Any = {"items": ["start"]}
    assert result(appending(), model, given)["items"] == ["start", "b", "a"]
    assert given == {"items": ["start"]}


def test_all_requests_contain_the_same_initial_state(local: LocalServer) -> None:
    with noted(local.base_url) as (model, sent):
        result(appending(), model, {"items": ["start"]}, history="whole")
    assert len(sent) == 3
    assert all(body["context_vars"] == sent[0]["context_vars"] for body in sent)


def test_messages_reach_nodes_as_messages(model: ChatSequrity) -> None:
    def a(state: Chat) -> dict[str, Any]:
        return {"messages": [AIMessage(f"you said {state['messages'][-1].text}", id="a")]}

    graph: Any = StateGraph(Chat)
    graph.add_node("a", a)
    state = result(connect(graph, "__start__>a"), model, {"messages": [HumanMessage("hi", id="h")]})
    assert state["messages"] == [HumanMessage("hi", id="h"), AIMessage("you said hi", id="a")]


class AnyValue(TypedDict, total=False):
    value: Any
    copy: Any


def copying(seen: list[Any]) -> Any:
    def a(state: AnyValue) -> dict[str, Any]:
        seen.append(state["value"])
        return {"copy": [state["value"]]}

    def b(state: AnyValue) -> dict[str, Any]:
        seen.append(state["copy"])
        return {}

    graph: Any = StateGraph(AnyValue)
    graph.add_node("a", a)
    graph.add_node("b", b)
    return connect(graph, "__start__>a", "a>b")


@pytest.mark.parametrize(
    "value",
    [dt.datetime(2024, 1, 2, tzinfo=dt.UTC), {1, 2}, (1, (2,)), {1: "a"}, b"bytes"],
    ids=lambda value: type(value).__name__,
)
def test_a_value_keeps_its_type_from_input_to_result(value: Any, model: ChatSequrity) -> None:
    seen: list[Any] = []
    state = result(copying(seen), model, {"value": value})
    assert seen == [value, [value]]
    assert state == {"value": value, "copy": [value]}
    assert type(seen[0]) is type(value)


class Opaque:
    pass


def test_an_object_in_the_initial_state_reaches_nodes_as_the_same_object(
    model: ChatSequrity,
) -> None:
    given, seen = Opaque(), list[Any]()
    result(copying(seen), model, {"value": given})
    assert seen[0] is given


def test_a_returned_value_that_cannot_be_sent_is_an_error_with_node_and_field(
    model: ChatSequrity,
) -> None:
    graph: Any = StateGraph(AnyValue)
    graph.add_node("maker", lambda _state: {"value": [float("inf")]})
    with pytest.raises(UsageError, match=r"`value`.*`maker`"):
        result(connect(graph, "__start__>maker"), model, {})


def test_a_number_that_json_lacks_is_an_error_and_is_not_sent(local: LocalServer) -> None:
    with noted(local.base_url) as (model, _sent), pytest.raises(UsageError, match="`value`"):
        result(copying([]), model, {"value": float("nan")})


def test_a_node_may_return_nothing(model: ChatSequrity) -> None:
    graph = connect(traced("b", a=lambda _state: None), "__start__>a", "a>b")
    assert result(graph, model, {"n": 1}) == {"n": 1, "trace": ["b"]}


async def test_an_async_node_is_awaited(model: ChatSequrity) -> None:
    async def a(_state: Traced) -> dict[str, Any]:
        return {"trace": ["awaited"]}

    executor = secured(connect(traced(a=a), "__start__>a"), model)
    assert (await executor.ainvoke({}))["trace"] == ["awaited"]


def test_a_node_gets_the_config_that_it_asks_for(model: ChatSequrity) -> None:
    def a(_state: Traced, config: RunnableConfig) -> dict[str, Any]:
        return {"trace": [config["configurable"]["who"]]}

    executor = secured(connect(traced(a=a), "__start__>a"), model)
    assert executor.invoke({}, {"configurable": {"who": "me"}})["trace"] == ["me"]


class Model(BaseModel):
    x: int
    y: str = "default"


@pytest.mark.parametrize("given", [{"x": 1}, Model(x=1)], ids=["dict", "instance"])
def test_a_pydantic_state_reaches_nodes_as_its_model(given: Any, model: ChatSequrity) -> None:
    def a(state: Model) -> dict[str, Any]:
        return {"x": state.x + 1, "y": type(state).__name__}

    graph: Any = StateGraph(Model)
    graph.add_node("a", a)
    assert result(connect(graph, "__start__>a"), model, given) == {"x": 2, "y": "Model"}


def test_the_final_state_comes_from_the_nodes_and_not_from_the_service(
    local: LocalServer,
) -> None:
    graph = connect(traced("marker"), "__start__>marker")
    final = b"final_return_value"

    def change(content: bytes) -> bytes:
        return content.replace(b"before", b"behind") if final in content else content

    with changed(local.base_url, change) as model:
        assert result(graph, model, {"trace": ["before"]})["trace"] == ["before", "marker"]


def test_arguments_that_are_not_json_are_an_error() -> None:
    ran: list[int] = []
    graph = connect(traced(a=lambda _state: ran.append(1)), "__start__>a")
    with made_up() as (model, service):
        service.replies.append(_reply(tool_calls=[_call("a", "{no json")], finish="tool_calls"))
        with pytest.raises(BadReply):
            result(graph, model, {})
    assert ran == []


# -- D. failures


def _call(name: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": "tc-1", "type": "function", "function": {"name": name, "arguments": arguments}}


def _reply(text: str | None = None, finish: str = "stop", **message: Any) -> httpx.Response:
    said = {"role": "assistant", "content": text, **message}
    choice = {"index": 0, "message": said, "finish_reason": finish}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return httpx.Response(200, headers={"x-session-id": "s"}, json=body)


def single() -> Any:
    return connect(traced("a"), "__start__>a")


def test_a_denied_call_is_an_error_and_its_node_does_not_run(local: LocalServer) -> None:
    ran: list[str] = []
    graph = connect(
        traced("read", send=lambda _state: ran.append("send")), "__start__>read", "read>send"
    )
    model = ChatSequrity(
        "any/model", base_url=local.base_url, policy='tool "send" { must deny always; }'
    )
    with pytest.raises(PolicyDenied, match="send") as denied:
        result(graph, model, {})
    assert denied.value.tool == "send"
    assert ran == []


@pytest.mark.parametrize("finish", ["stop", "error", "length", "content_filter"])
def test_a_failed_turn_is_an_error_with_every_finish_reason(finish: str) -> None:
    with made_up() as (model, service):
        service.replies.append(_reply(failure(DENIAL, "policy_violation"), finish))
        with pytest.raises(TurnFailed, match="open_valve"):
            result(single(), model, {})


def test_a_failed_turn_is_an_error_in_the_format_of_messages() -> None:
    with made_up(MESSAGES) as (model, service):
        service.answer(ModelAnswer(text=failure(DENIAL), finish_reason="content_filter"))
        with pytest.raises(TurnFailed, match="open_valve"):
            result(single(), model, {})


def test_a_program_that_fails_is_an_error() -> None:
    with made_up() as (model, service):
        service.replies.append(_reply(failure("name 'x' is not defined", "program_error")))
        with pytest.raises(ProgramFailed, match="not defined"):
            result(single(), model, {})


@pytest.mark.parametrize(
    "reply",
    [
        _reply("", "tool_calls"),
        _reply("", "tool_calls", tool_calls=[]),
        httpx.Response(200, headers={"x-session-id": "s"}, json={"id": "1", "choices": []}),
        _reply("just text"),
        _reply(json.dumps({"status": "success", "final_return_value": {"value": {}, "meta": {}}})),
    ],
    ids=["calls without calls", "empty calls", "no choices", "text", "another value"],
)
def test_a_reply_outside_the_protocol_is_a_sequrity_error(reply: httpx.Response) -> None:
    with made_up() as (model, service):
        service.replies.append(reply)
        with pytest.raises(SequrityError):
            result(single(), model, {})


def test_a_call_of_an_unknown_tool_is_an_error_that_names_it() -> None:
    with made_up() as (model, service):
        service.replies.append(_reply(finish="tool_calls", tool_calls=[_call("stranger")]))
        with pytest.raises(SequrityError, match="stranger"):
            result(single(), model, {})


def test_after_a_node_has_failed_the_run_continues_from_that_node(model: ChatSequrity) -> None:
    ran: list[str] = []

    def a(_state: Traced) -> dict[str, Any]:
        ran.append("a")
        return {"trace": ["a"]}

    def b(_state: Traced) -> dict[str, Any]:
        ran.append("b")
        if ran == ["a", "b"]:
            msg = "the disk is full"
            raise OSError(msg)
        return {"trace": ["b"]}

    executor = secured(
        connect(traced(a=a, b=b), "__start__>a", "a>b"), model, checkpointer=InMemorySaver()
    )
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}
    with pytest.raises(OSError, match="disk"):
        executor.invoke({}, config)
    assert executor.get_state(config).values["trace"] == ["a"]
    assert executor.invoke(None, config)["trace"] == ["a", "b"]
    assert ran == ["a", "b", "b"]


@pytest.mark.parametrize("number", [20, 40])
def test_long_chains_run_to_their_end(number: int, model: ChatSequrity) -> None:
    graph = traced()
    graph.add_sequence([(f"n{i}", count(f"n{i}")) for i in range(number)])
    assert result(connect(graph, "__start__>n0"), model, {"n": 0})["n"] == number


# -- E. configuration and sessions


def _config_of(request: httpx.Request) -> Any:
    return json.loads(request.headers["x-config"])


@pytest.mark.parametrize("given", [{"fsm": {"disable_rllm": False}}, {"fsm": {}}, {}])
def test_a_run_does_not_change_the_callers_config(
    given: dict[str, Any], local: LocalServer
) -> None:
    config = ConfigHeader(**given)
    before = config.model_dump_json()
    with noted(local.base_url, session_config=config) as (model, sent):
        result(single(), model, {})
        assert _config_of(sent.requests[0])["fsm"]["disable_rllm"] is True
        model.invoke("hi")
        assert "disable_rllm" not in json.dumps(given) or given["fsm"]["disable_rllm"] is False
        told = json.loads(sent.requests[-1].headers.get("x-config", "{}"))
        assert told.get("fsm", {}).get("disable_rllm") is not True
    assert config.model_dump_json() == before


def test_a_graph_runs_without_config_and_features(local: LocalServer) -> None:
    with noted(local.base_url) as (model, sent):
        assert result(single(), model, {})["trace"] == ["a"]
        assert json.loads(sent.requests[0].headers["x-features"])["agent_arch"] == "dual-llm"


def test_a_graph_and_a_conversation_have_separate_sessions(local: LocalServer) -> None:
    with noted(local.base_url) as (model, sent):
        first = model.invoke("hello")
        result(single(), model, {})
        result(single(), model, {})
        model.invoke([HumanMessage("hello"), first, HumanMessage("again")])
        sessions = sent.sessions()
    assert [sessions[0], sessions[1], sessions[3]] == [None, None, None]
    graphs, chat = {sessions[2], sessions[4]}, sessions[5]
    assert None not in graphs
    assert len(graphs) == 2
    assert chat is not None
    assert chat not in graphs


async def test_a_graph_runs_in_an_event_loop(model: ChatSequrity) -> None:
    assert (await secured(single(), model).ainvoke({}))["trace"] == ["a"]


def test_the_callers_max_tokens_are_sent(local: LocalServer) -> None:
    with noted(local.base_url, SequrityMessages, max_tokens=123) as (model, sent):
        assert result(single(), model, {})["trace"] == ["a"]
        assert {body["max_tokens"] for body in sent} == {123}


def test_a_thinking_block_is_sent_back_unchanged() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    call = {"type": "tool_use", "id": "tc-1", "name": "a", "input": {}}
    with made_up(MESSAGES) as (model, service):
        service.replies.append(_messages_reply([thinking, call], "tool_use"))
        text = failure("stop here")
        service.replies.append(_messages_reply([{"type": "text", "text": text}], "end_turn"))
        with pytest.raises(TurnFailed, match="stop here"):
            result(single(), model, {}, history="whole")
        assert service.bodies[1]["messages"][1]["content"] == [thinking, call]


def _messages_reply(content: list[dict[str, Any]], reason: str) -> httpx.Response:
    body = {
        "id": "1", "type": "message", "role": "assistant", "model": "m", "content": content,
        "stop_reason": reason, "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip
    return httpx.Response(200, headers={"x-session-id": "s"}, json=body)


def test_options_for_nodes_that_do_not_exist_are_refused(model: ChatSequrity) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        LangGraphExecutor(single(), model, nodes={"nowhere": NodeOptions(reads=["n"])})
