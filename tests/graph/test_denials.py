"""Runs that fail: denials of a policy, exceptions of nodes, arbitrary replies of a service."""

import json
import operator
import pickle
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.exceptions import ModelRefusalError
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError, InvalidUpdateError, NodeError
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

from langchain_sequrity import ChatSequrity, SequrityMessages
from langchain_sequrity.errors import PolicyDenied, ProgramFailed, SequrityError, UsageError
from langchain_sequrity.local import LocalServer
from tests.graph.ledger import Ledger, Ran, ledger, thread
from tests.graph.running import secured
from tests.graph.services import made_up
from tests.graph.shapes.traced import connect, traced

ON_PAY = 'tool "pay" { /// Nobody pays today.\n must deny always; }'


@pytest.fixture(scope="module")
def local() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


def executor_of(local: LocalServer, graph: Any, policy: str | None, **options: Any) -> Any:
    model = ChatSequrity("any/model", base_url=local.base_url, policy=policy)
    return secured(graph, model, **options)


def denial_of(executor: Any, value: Any, *config: Any) -> PolicyDenied:
    with pytest.raises(PolicyDenied) as caught:
        executor.invoke(value, *config)
    return caught.value


# -- raise


def test_a_denial_says_what_was_denied_and_why(local: LocalServer) -> None:
    ran = Ran()
    executor = executor_of(local, ledger(ran), ON_PAY)
    error = denial_of(executor, {"due": [7]})
    assert isinstance(error, ModelRefusalError)
    assert (error.tool, error.node) == ("pay", "pay")
    assert error.arguments["due"] == [7]
    assert error.labels["due"]["producers"] == ["read"]
    assert error.rule == "must deny always;"
    assert error.reason == "Nobody pays today."
    assert error.program == executor.program
    assert [one["tool"] for one in error.checks] == ["read", "pay"]
    assert error.session_id is not None
    assert str(error) == ("The policy denied the call of `pay` (node `pay`): Nobody pays today.")
    assert "history" not in str(error)
    assert ran == ["read"]


def test_a_denial_names_the_node_if_the_tool_has_another_name(local: LocalServer) -> None:
    graph = connect(traced("send mail"), "__start__>send mail")
    error = denial_of(executor_of(local, graph, 'tool "send_mail" { must deny always; }'), {})
    assert (error.tool, error.node) == ("send_mail", "send mail")


def test_a_denied_router_is_named_with_the_node_before_it(local: LocalServer) -> None:
    policy = 'tool "more__from__pay" { must deny always; }'
    error = denial_of(executor_of(local, ledger(Ran()), policy), {"due": [7]})
    assert (error.tool, error.node) == ("more__from__pay", "pay")
    assert "the router after node `pay`" in str(error)


def test_a_pickled_denial_keeps_its_text_node_and_rule(local: LocalServer) -> None:
    error = denial_of(executor_of(local, ledger(Ran()), ON_PAY), {"due": [7]})
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.node, again.rule) == (str(error), error.node, error.rule)


def test_the_denial_of_a_branch_names_no_tool(local: LocalServer) -> None:
    policy = {
        "mode": "custom",
        "codes": 'tool "more__from__pay" { result { @tags |= {"secret"}; } }',
        "presets": {"branching_meta_policy": {"mode": "deny", "tags": ["secret"]}},
    }
    model = ChatSequrity("any/model", base_url=local.base_url, policy=policy)
    error = denial_of(secured(ledger(Ran()), model), {"due": [7]})
    assert (error.tool, error.node) == ("not reported", None)
    assert "a step of the program" in str(error)
    assert "Control flow" in error.reason


def test_after_a_denial_the_thread_keeps_its_results_and_can_be_run_again(
    local: LocalServer,
) -> None:
    ran = Ran()
    policy = 'tool "report" { must deny always; }'
    executor = executor_of(local, ledger(ran), policy, checkpointer=InMemorySaver())
    denial_of(executor, {"due": [7]}, thread())
    assert executor.get_state(thread()).values["paid"] == [7]
    # The next attempt gets the same denial, and no node runs again.
    denial_of(executor, None, thread())
    assert ran == ["read", "pay", "more"]


async def test_a_denial_in_an_event_loop_says_the_same(local: LocalServer) -> None:
    executor = executor_of(local, ledger(Ran()), ON_PAY)
    with pytest.raises(PolicyDenied) as caught:
        await executor.ainvoke({"due": [7]})
    assert (caught.value.node, caught.value.reason) == ("pay", "Nobody pays today.")


def test_a_denial_over_messages_says_the_same(local: LocalServer) -> None:
    model: Any = SequrityMessages("any/model", base_url=local.base_url, policy=ON_PAY)
    error = denial_of(secured(ledger(Ran()), model), {"due": [7]})
    assert (error.tool, error.node, error.reason) == ("pay", "pay", "Nobody pays today.")


def test_a_parent_graph_can_handle_a_denial(local: LocalServer) -> None:
    secure = executor_of(local, ledger(Ran()), ON_PAY)
    parent: Any = StateGraph(Ledger)

    def handle(_state: Ledger, error: NodeError) -> dict[str, Any]:
        assert isinstance(error.error, PolicyDenied)
        return {"note": f"denied: {error.error.node}"}

    parent.add_node("secure", secure, error_handler=handle)
    parent.add_edge(START, "secure")
    assert parent.compile().invoke({"due": [7]})["note"] == "denied: pay"


# LangChain's wrappers of an executor. They must pass a denial on as the executor does.
MADE: dict[str, Any] = {
    "the executor": lambda executor: executor,
    "with_config": lambda executor: executor.with_config(tags=["a"]),
    "bind": lambda executor: executor.bind(),
    "with_retry": lambda executor: executor.with_retry(stop_after_attempt=2),
    "with_fallbacks": lambda executor: executor.with_fallbacks([executor]),
    "executor | function": lambda executor: executor | (lambda state: state),
    "function | executor": lambda executor: (lambda state: state) | executor,
}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
async def test_a_denied_run_triggers_neither_a_fallback_nor_a_retry(
    local: LocalServer, made: Any
) -> None:
    ran = Ran()
    unguarded: Any = RunnableLambda(lambda _: ran.append("other"))
    one = made(executor_of(local, ledger(ran), ON_PAY)).with_fallbacks([unguarded]).with_retry()
    for call in (one.invoke, lambda value: list(one.stream(value))):
        with pytest.raises(PolicyDenied):
            call({"due": [7]})
    with pytest.raises(PolicyDenied):
        await one.ainvoke({"due": [7]})
    assert ran == ["read"] * 3


def test_a_service_that_is_down_triggers_a_fallback() -> None:
    model = ChatSequrity("m", base_url="http://127.0.0.1:9", max_retries=0)
    executor = secured(ledger(Ran()), model).with_fallbacks([RunnableLambda(lambda _: "other")])
    assert executor.invoke({"due": [7]}) == "other"


def test_an_exception_of_a_node_is_raised_unchanged(local: LocalServer) -> None:
    class JammedError(Exception):
        pass

    raised = JammedError("the till", 7)

    def pay(_state: Ledger) -> dict[str, Any]:
        raise raised

    with pytest.raises(JammedError) as caught:
        executor_of(local, ledger(Ran(), pay=pay), None).invoke({"due": [7]})
    assert caught.value is raised


def test_the_error_of_a_failed_program_says_that_the_run_gives_no_state(local: LocalServer) -> None:
    model = ChatSequrity(
        "any/model", base_url=local.base_url, session_config={"fsm": {"max_tool_calls_per_step": 2}}
    )
    executor = secured(ledger(Ran()), model)
    with pytest.raises(ProgramFailed, match="The run gives no state") as caught:
        executor.invoke({"due": [7]})
    assert caught.value.program == executor.program
    assert "history" not in str(caught.value)


# -- state


def test_a_denial_can_end_the_run_with_the_state_so_far(local: LocalServer) -> None:
    ran = Ran()
    policy = 'tool "report" { /// Not today.\n must deny always; }'
    executor = executor_of(local, ledger(ran), policy, on_denied="state:denied")
    state = executor.invoke({"due": [1, 2]})
    denied = state.pop("denied")
    assert state == {"due": [], "paid": [1, 2]}
    assert (
        denied.items()
        >= {
            "tool": "report",
            "node": "report",
            "kind": "policy",
            "strength": "hard",
            "certain": True,
            "reason": "Not today.",
            "rule": "must deny always;",
            "line": 2,
            "text": "The policy denied the call of `report` (node `report`): Not today.",
            "code": "policy_violation",
        }.items()
    )
    assert denied["arguments"]["paid"] == [1, 2]
    assert denied["labels"]["paid"]["producers"]
    assert "report" not in ran


def test_a_denial_of_the_first_call_can_end_the_run_with_a_state(local: LocalServer) -> None:
    policy = 'tool "read" { must deny always; }'
    executor = executor_of(local, ledger(Ran()), policy, on_denied="state:denied")
    state = executor.invoke({"due": [1]})
    assert (state["due"], state["denied"]["node"]) == ([1], "read")


async def test_a_denial_ends_the_run_with_a_state_in_an_event_loop(local: LocalServer) -> None:
    executor = executor_of(local, ledger(Ran()), ON_PAY, on_denied="state:denied")
    assert (await executor.ainvoke({"due": [1]}))["denied"]["node"] == "pay"


def test_a_denial_goes_through_the_reducer_of_its_field(local: LocalServer) -> None:
    class State(TypedDict, total=False):
        n: int
        problems: Annotated[list[dict[str, Any]], lambda old, new: [*old, new]]

    graph = StateGraph(State).add_node("a", lambda _state: {"n": 1}).add_edge(START, "a")
    policy = 'tool "a" { must deny always; }'
    executor = executor_of(local, graph, policy, on_denied="state:problems")
    state = executor.invoke({"problems": {"tool": "before"}})
    assert [one["tool"] for one in state["problems"]] == ["before", "a"]


def test_a_thread_continues_after_a_denial_that_became_a_state(local: LocalServer) -> None:
    saver = InMemorySaver()
    denied = executor_of(local, ledger(Ran()), ON_PAY, on_denied="state:denied", checkpointer=saver)
    assert denied.invoke({"due": [7]}, thread())["denied"]["node"] == "pay"
    allowed = executor_of(local, ledger(Ran()), None, on_denied="state:denied", checkpointer=saver)
    assert allowed.invoke({"due": [8]}, thread())["note"] == "paid 8"


def test_only_denials_become_a_state(local: LocalServer) -> None:
    model = ChatSequrity(
        "any/model", base_url=local.base_url, session_config={"fsm": {"max_tool_calls_per_step": 2}}
    )
    with pytest.raises(ProgramFailed):
        secured(ledger(Ran()), model, on_denied="state:denied").invoke({"due": [7]})


@pytest.mark.parametrize(
    "option", ["state:nothing", "state:", "state", "message", "", None, 1, "state:secret"]
)
def test_an_invalid_on_denied_is_refused_when_the_executor_is_created(
    local: LocalServer, option: Any
) -> None:
    class Shown(TypedDict, total=False):
        n: int

    class Whole(TypedDict, total=False):
        n: int
        secret: dict[str, Any]

    graph = StateGraph(Whole, output_schema=Shown)
    graph.add_node("a", lambda _state: {"n": 1}).add_edge(START, "a")
    with pytest.raises(UsageError, match="on_denied"):
        executor_of(local, graph, None, on_denied=option)


@pytest.mark.parametrize(
    ("option", "given", "advice"),
    [
        ("history", "news", "got 'news'. Did you mean `new`?"),
        ("history", "Whole", "got 'Whole'. Did you mean `whole`?"),
        ("history", "", "got ''."),
        ("history", None, "got None."),
        ("history", ["new"], "got ['new']."),
        ("on_denied", "rase", "got 'rase'. Did you mean `raise`?"),
        ("on_denied", "interupt", "got 'interupt'. Did you mean `interrupt`?"),
    ],
)
def test_an_invalid_option_is_refused_with_the_nearest_valid_value(
    local: LocalServer, option: str, given: Any, advice: str
) -> None:
    with pytest.raises(UsageError) as caught:
        executor_of(local, ledger(Ran()), None, **{option: given})
    assert str(caught.value).startswith(f"`{option}` must be ")
    assert str(caught.value).endswith(advice)


# -- arbitrary replies of the service

_WORDS = st.sampled_from(
    ["a", "b", "", "stop", "tool_calls", "error", "length", "success", "failure", "__absent__",
     "conflict:n", "unrouted:n", "tc-1", "{}", '{"n": 1}', "[", "assistant", "function"]
)  # fmt: skip
_KEYS = st.sampled_from(
    ["status", "final_return_value", "value", "meta", "error", "code", "message", "program",
     "policy_check_history", "denied", "tool", "arguments", "verdict", "trace", "n", "error:",
     "steps:", "active:", "producers", "consumers", "tags", "goto:", "enforcement_level"]
)  # fmt: skip
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=8,
)
_META = st.just({"producers": [], "consumers": ["*"], "tags": []}) | _JSON
_STATE = st.fixed_dictionaries(
    {"error:": st.just("") | _JSON, "steps:": st.integers(0, 3) | _JSON,
     "active:": st.just(False) | _JSON, "trace": st.lists(_WORDS, max_size=2) | _JSON,
     "n": st.integers() | _JSON}
)  # fmt: skip
_CHECK = st.fixed_dictionaries(
    {},
    optional={
        "tool": _WORDS, "verdict": st.just("soft_denied") | _JSON,
        "denied": st.lists(
            st.fixed_dictionaries(
                {}, optional={"tool": _WORDS, "enforcement_level": st.just("soft"),
                              "arguments": _JSON, "rule": _JSON, "reason": _JSON}
            ), max_size=2) | _JSON,
    },
)  # fmt: skip
_ENVELOPE = st.fixed_dictionaries(
    {"status": st.sampled_from(["success", "failure"]) | _JSON},
    optional={
        "final_return_value": st.fixed_dictionaries({"value": _STATE | _JSON, "meta": _META})
        | _JSON,
        "error": st.fixed_dictionaries({"code": _WORDS, "message": _WORDS}) | st.none() | _JSON,
        "policy_check_history": st.lists(_CHECK, max_size=2) | _JSON,
    },
)
_CALL = st.fixed_dictionaries(
    {"id": _WORDS, "type": st.just("function"),
     "function": st.fixed_dictionaries(
         {"name": _WORDS, "arguments": st.sampled_from(["{}", '{"n": 1}', "[", ""]) | _JSON})}
)  # fmt: skip
_MESSAGE = st.fixed_dictionaries(
    {"role": st.just("assistant") | _JSON},
    optional={
        "content": _ENVELOPE.map(json.dumps) | _WORDS | _JSON,
        "tool_calls": st.lists(_CALL | _JSON, max_size=2) | _JSON,
        "refusal": _JSON,
    },
)
_REPLY = st.fixed_dictionaries(
    {"id": _WORDS, "object": st.just("chat.completion"), "created": st.just(1), "model": _WORDS,
     "choices": st.lists(
         st.fixed_dictionaries({"index": st.just(0), "message": _MESSAGE, "finish_reason": _WORDS}),
         max_size=1)
     | _JSON}
)  # fmt: skip
_TYPED = (SequrityError, InvalidUpdateError, GraphRecursionError, KeyError)


@given(
    replies=st.lists(_REPLY | _JSON, min_size=1, max_size=3),
    on_denied=st.sampled_from(["raise", "interrupt", "state:denied"]),
)
def test_any_reply_of_the_service_gives_the_state_in_it_or_a_typed_error(
    replies: list[Any], on_denied: str
) -> None:
    class State(TypedDict, total=False):
        trace: Annotated[list[Any], operator.add]
        n: Any
        denied: Any

    graph = StateGraph(State)
    graph.add_node("a", lambda _state: {"trace": ["a"]}).add_edge(START, "a")
    with made_up() as (model, service):
        for one in replies:
            headers = {"x-session-id": "s", "content-type": "application/json"}
            service.replies.append(httpx.Response(200, headers=headers, content=json.dumps(one)))
        service.replies += [httpx.Response(500, json={"detail": "no more"})] * 4
        executor = secured(graph, model, on_denied=on_denied, checkpointer=InMemorySaver())
        try:
            state = executor.invoke({"n": 0}, thread())
        except _TYPED:
            return
        last = replies[len(service.requests) - 1]
    if "__interrupt__" in state:
        assert on_denied == "interrupt"
        assert _said(last)["status"] == "failure"
    elif _said(last)["status"] == "failure":
        assert on_denied == "state:denied"
        assert {"tool", "node", "reason", "rule", "text", "code"} <= set(state["denied"])
    else:
        assert _said(last)["final_return_value"]["value"]["n"] == state.get("n", "__absent__")


def _said(reply: Any) -> Any:
    return json.loads(reply["choices"][0]["message"]["content"])


class _Bill(TypedDict, total=False):
    note: str
    paid: int


def _read(state: _Bill) -> "Command[Any]":
    return Command(goto=[Send("pay", {"due": len(state["note"])})])


def _pay(packet: dict[str, Any]) -> _Bill:
    return {"paid": packet["due"]}


@pytest.mark.parametrize("changed", [None, "note", "paid"])
def test_a_packet_keeps_labels_that_no_field_has_whatever_is_changed_from_outside(
    changed: str | None,
) -> None:
    policy = """
    tool "read" -> @tags |= {"mail"};
    tool "pay" { must deny when @args.tags overlaps {"mail"}; }
    """
    graph: Any = StateGraph(_Bill)
    graph.add_node("pay", _pay).add_edge(START, "read")
    graph.add_node("read", _read, destinations=("pay",))
    dual = {"agent_arch": "dual-llm"}
    with LocalServer() as server:
        model = ChatSequrity("any/model", base_url=server.base_url, policy=policy, features=dual)
        runs = secured(graph, model, checkpointer=InMemorySaver())
        runs.invoke({"note": "abc"}, thread(), interrupt_before=["pay"])
        change: Any = None if changed is None else Command(update={changed: 1})
        with pytest.raises(PolicyDenied) as denied:
            runs.invoke(change, thread())
    assert denied.value.tool == "pay"
