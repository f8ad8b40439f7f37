"""Assertions about results of models and agents, and about their exceptions."""

from collections.abc import Iterator
from contextvars import copy_context
from typing import Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Interrupt

from langchain_sequrity import ChatSequrity, LangGraphExecutor, SequrityMessages
from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import PolicyDenied, ProgramFailed, ServiceError, UsageError
from langchain_sequrity.local import LocalServer
from langchain_sequrity.middleware import PolicyMiddleware
from langchain_sequrity.testing import assert_allowed, assert_denied
from langchain_sequrity.wire.exchange import METADATA_KEY
from tests.middleware.agents import calling, turns

POLICY = """
    tool "pay" {
        /// large sums need a signature
        must deny when euros.value in {int 100..};
    }
"""
PROGRAMS = {"large": "pay(euros=500)", "small": "pay(euros=5)", "broken": "x = 1 / 0"}
SCRIPT: list[dict[str, Any]] = [
    {"when": {"role": "planner", "user": user}, "program": f"{line}\nfinal_return_value = 'done'"}
    for user, line in PROGRAMS.items()
] + [
    {"when": {"user": "refuse"}, "refusal": "I would rather not."},
    {"when": {"tool_result": "paid"}, "text": "done"},
    {"when": {"user": "large"}, "tool_calls": [{"name": "pay", "arguments": {"euros": 500}}]},
    {"when": {"user": "small"}, "tool_calls": [{"name": "pay", "arguments": {"euros": 5}}]},
    {"when": {"user": "overload"}, "error": {"status": 400, "message": "No."}},
]  # fmt: skip
DETAILS: dict[str, Any] = {
    "tool": "pay",
    "rule": "int 100..",
    "reason": "signature",
    "strength": "hard",
    "certain": True,
}


# Whether a float range contains an integer is in doubt: in a denial, and in an allowance.
DOUBTFUL = POLICY.replace("int 100..", "float 100.0..")
HARDLY_ALLOWING = """
    tool "pay" { must allow when euros.value in {float ..100.0}; should allow always; }
"""


def pay(euros: int) -> str:
    """Pay."""
    return f"paid {euros}"


@pytest.fixture(scope="module")
def till() -> Iterator[LocalServer]:
    with LocalServer(script=SCRIPT) as server:
        yield server


def agent(
    till: LocalServer, architecture: str = "single-llm", policy: str = POLICY, **fields: Any
) -> Any:
    """An agent of ours."""
    model = ChatSequrity(
        "any/model", base_url=till.base_url, policy=policy, max_retries=0,
        features={"agent_arch": architecture}, **fields,
    )  # fmt: skip
    return create_agent(model, [pay])


def ask(of: Any, words: str) -> Any:
    return of.invoke({"messages": words})


@pytest.mark.long(sample=2)
@pytest.mark.parametrize(
    ("kind", "fields"),
    [(ChatSequrity, {}), (ChatSequrity, {"use_responses_api": True}), (SequrityMessages, {})],
    ids=["chat", "responses", "messages"],
)
@pytest.mark.parametrize("fidelity", ["full", "documented"])
def test_a_refusal_by_a_policy_counts_as_denied_in_every_format(
    kind: Any, fields: dict[str, Any], fidelity: Any
) -> None:
    with LocalServer(script=SCRIPT, fidelity=fidelity) as server:
        model = kind(
            "any/model", base_url=server.base_url, policy=POLICY, on_denied="message", **fields
        )
        with_tools = model.bind_tools([pay])
        denied, allowed = with_tools.invoke("large"), with_tools.invoke("small")
    # The service documents only a refusal in words.
    known = DETAILS if fidelity == "full" else {key: DETAILS[key] for key in ("tool", "reason")}
    assert_denied(denied, **known)
    assert_allowed(allowed, tool="pay")
    with pytest.raises(AssertionError, match="large sums need a signature"):
        assert_allowed(denied)
    with pytest.raises(AssertionError, match="The message asks for `pay`"):
        assert_denied(allowed)


def test_a_refusal_of_the_model_is_neither_allowed_nor_denied(till: LocalServer) -> None:
    state = ask(agent(till), "refuse")
    for what in (state, state["messages"][-1]):
        for check in (assert_allowed, assert_denied):
            with pytest.raises(AssertionError, match="The model refused, and no policy denied it"):
                check(what)


def test_a_denied_turn_can_be_asserted_from_exception_and_message(till: LocalServer) -> None:
    dual = agent(till, "dual-llm")
    with pytest.raises(PolicyDenied) as raised:
        ask(dual, "large")
    assert_denied(raised.value, **DETAILS)
    assert_denied(lambda: ask(dual, "large"), **DETAILS)
    with assert_denied(**DETAILS) as denied:
        ask(dual, "large")
    assert denied.error.tool == "pay"
    refusing = agent(till, "dual-llm", on_denied="message")
    assert_denied(ask(refusing, "large"), **DETAILS)
    assert_denied(ask(refusing, "large")["messages"][-1], **DETAILS)


def assert_in_doubt(assert_: Any, what: Any) -> None:
    """Assert that the verdict is in doubt, and not certain."""
    assert_(what, tool="pay", certain=False)
    with pytest.raises(AssertionError, match="the verdict is in doubt"):
        assert_(what, tool="pay", certain=True)


def test_doubt_can_be_asserted_of_a_refusal(till: LocalServer) -> None:
    state = ask(agent(till, policy=DOUBTFUL, on_denied="message"), "large")
    assert_in_doubt(assert_denied, state)
    assert_in_doubt(assert_denied, state["messages"][-1])


def test_doubt_can_be_asserted_of_a_denied_turn(till: LocalServer) -> None:
    dual = agent(till, "dual-llm", DOUBTFUL)
    assert_in_doubt(assert_denied, lambda: ask(dual, "large"))
    refusing = agent(till, "dual-llm", DOUBTFUL, on_denied="message")
    assert_in_doubt(assert_denied, ask(refusing, "large"))


def test_doubt_can_be_asserted_of_a_call_in_the_history_of_checks(till: LocalServer) -> None:
    report = {"response_format": {"include_policy_check_history": True}}
    state = ask(agent(till, "dual-llm", HARDLY_ALLOWING, session_config=report), "small")
    assert_in_doubt(assert_allowed, state["messages"][-1])


def test_a_successful_turn_is_allowed_by_the_rules_of_its_calls(till: LocalServer) -> None:
    report = {"response_format": {"include_policy_check_history": True}}
    state = ask(agent(till, "dual-llm", session_config=report), "small")
    assert_allowed(state)
    assert_allowed(state["messages"][-1], tool="pay", rule="default_allow", strength="soft")
    with pytest.raises(AssertionError, match="the rule is `default_allow`"):
        assert_allowed(state["messages"][-1], tool="pay", rule="must")
    with pytest.raises(AssertionError, match="the tool is `pay`"):
        assert_allowed(state, tool="send")
    with assert_allowed():
        ask(agent(till, "dual-llm"), "small")
    assert_allowed(lambda: ask(agent(till, "dual-llm"), "small"), tool="pay")


def test_the_last_denial_in_the_history_of_checks_has_the_rules_of_a_denied_turn() -> None:
    checks: list[Any] = [
        {"tool": "pay", "verdict": "soft_denied", "denied": [{"tool": "pay", "rule": "repaired"}]},
        {"tool": "pay", "verdict": "hard_denied", "denied": [{"tool": "pay", "rule": "decided"}]},
        {"tool": "pay", "verdict": "soft_allowed", "denied": []},
    ]
    denied = PolicyDenied(denial=Denial("pay"), checks=tuple(checks))
    assert_denied(denied, rule="decided")
    with pytest.raises(AssertionError, match="the rule is `decided`"):
        assert_denied(denied, rule="repaired")


def test_a_failure_says_that_a_detail_is_not_reported() -> None:
    bare = PolicyDenied()
    assert_denied(bare)
    with pytest.raises(
        AssertionError, match=r"the tool is not reported.*include_policy_check_hist"
    ):
        assert_denied(bare, tool="pay", strength="hard")
    assert_denied(PolicyDenied(denial=Denial("node_pay", node="pay")), tool="pay")


def test_a_failed_turn_is_neither_allowed_nor_denied(till: LocalServer) -> None:
    for check in (assert_allowed, assert_denied):
        with pytest.raises(AssertionError, match="no policy denied it") as failed, check():
            ask(agent(till, "dual-llm"), "broken")
        assert isinstance(failed.value.__cause__, ProgramFailed)
        with pytest.raises(AssertionError, match="no policy denied it"):
            check(lambda: ask(agent(till, "dual-llm"), "broken"))


def test_other_exceptions_are_not_caught(till: LocalServer) -> None:
    for check in (assert_allowed, assert_denied):
        with pytest.raises(ServiceError), check():
            ask(agent(till), "overload")
        with pytest.raises(ServiceError):
            check(lambda: ask(agent(till), "overload"))
        with pytest.raises(ZeroDivisionError), check():
            raise ZeroDivisionError


def test_a_body_that_raises_nothing_is_not_denied(till: LocalServer) -> None:
    with pytest.raises(AssertionError, match="the body raised nothing"), assert_denied():
        ask(agent(till), "small")
    with pytest.raises(AssertionError, match="returned a value of type `NoneType`"):
        assert_denied(lambda: None, tool="pay")


def test_a_function_that_returns_a_denial_counts_as_denied(till: LocalServer) -> None:
    assert_denied(lambda: ask(agent(till), "large"), tool="pay")
    with pytest.raises(AssertionError, match="large sums"):
        assert_allowed(lambda: ask(agent(till), "large"))


async def test_the_body_of_with_may_await_and_a_function_may_not_return_a_coroutine(
    till: LocalServer,
) -> None:
    with assert_denied(tool="pay"):
        await agent(till, "dual-llm").ainvoke({"messages": "large"})
    for check in (assert_allowed, assert_denied):
        with pytest.raises(UsageError, match="has not run"):
            check(lambda: agent(till).ainvoke({"messages": "large"}))


def test_assert_allowed_refuses_options_where_only_exceptions_are_checked() -> None:
    with pytest.raises(UsageError, match="Only exceptions are checked"):
        assert_allowed(tool="pay")
    with pytest.raises(UsageError, match="Only exceptions are checked"):
        assert_allowed(lambda: 5, tool="pay")


def test_assert_denied_without_with_warns() -> None:
    with pytest.warns(RuntimeWarning, match=r"Write `with assert_denied\(…\):`"):
        assert_denied(tool="pay")


def test_only_the_last_turn_of_a_state_counts(till: LocalServer) -> None:
    of = agent(till, on_denied="message")
    state = ask(of, "large")
    state = of.invoke({"messages": [*state["messages"], HumanMessage("small")]})
    assert_allowed(state, tool="pay")
    with pytest.raises(AssertionError):
        assert_denied(state)


def test_a_denied_node_of_a_graph_is_found_by_its_name(till: LocalServer) -> None:
    graph = StateGraph(MessagesState)
    graph.add_node("greet", lambda _: {"messages": [AIMessage("Hi")]})
    graph.add_edge(START, "greet")
    model = ChatSequrity(
        "any/model", base_url=till.base_url, policy='tool r".*greet.*" { must deny always; }'
    )
    executor = LangGraphExecutor(graph, model)
    words = {"messages": [HumanMessage("Hello")]}
    with assert_denied(tool="greet", rule="must deny always", strength="hard", certain=True):
        executor.invoke(words)
    assert_denied(lambda: executor.invoke(words), tool="greet")
    allowing = LangGraphExecutor(graph, ChatSequrity("any/model", base_url=till.base_url))
    assert_allowed(lambda: allowing.invoke(words))
    with pytest.raises(AssertionError, match="contains no denial"):
        assert_denied(lambda: allowing.invoke(words))


class Till(TypedDict):
    """The state of a graph without messages."""

    paid: str


def counter(till: LocalServer, policy: str | None, **options: Any) -> Any:
    """A graph without messages, of one node."""
    graph = StateGraph(Till)
    graph.add_node("pay", lambda _: {"paid": "yes"})
    graph.add_edge(START, "pay")
    return LangGraphExecutor(
        graph, ChatSequrity("any/model", base_url=till.base_url, policy=policy), **options
    )


ASKS = 'tool "pay" {\n/// Labels: ask "first"\nshould deny always; }'
THREAD: Any = {"configurable": {"thread_id": "1"}}


def test_a_call_for_which_a_graph_asks_a_human_counts_as_denied(till: LocalServer) -> None:
    ran = counter(till, ASKS, on_denied="interrupt", checkpointer=InMemorySaver())
    asked = ran.invoke({"paid": ""}, THREAD)
    again = ran.invoke(Command(resume="what?"), THREAD)
    for state in (asked, again):
        for tool in ("pay", None):
            assert_denied(
                state, tool=tool, rule="should deny always", reason='ask "first"', strength="soft"
            )
        with pytest.raises(AssertionError, match="A human is asked about the call of `pay`"):
            assert_allowed(state)
        with pytest.raises(AssertionError, match="the tool is `pay`"):
            assert_denied(state, tool="report")
        assert_denied(state, certain=True)
    with pytest.raises(AssertionError, match="A human is asked"):
        assert_allowed(lambda: ran.invoke({"paid": ""}, THREAD))


@pytest.mark.parametrize(
    ("tool", "node", "found"),
    [
        ("more__from__pay", "pay", ("more__from__pay", "pay")),
        ("pay", "it's", ("pay", "it's")),
        ("pay", "pay", ("pay",)),
    ],
)
def test_a_denied_call_of_a_graph_matches_the_names_of_tool_and_node(
    tool: str, node: str, found: tuple[str, ...]
) -> None:
    request = {
        "action_requests": [{"name": tool, "args": {}, "description": "May it?"}],
        "denial": {"tool": tool, "node": node, "strength": "soft"},
    }
    state = {"__interrupt__": [Interrupt(value=request)]}
    for name in found:
        assert_denied(state, tool=name)


@pytest.mark.parametrize(
    "description",
    [
        "Tool execution requires approval",
        "Args: {'x': 'The policy denies this call softly, so. Rule: a Reason: b Labels: '}",
        None,
    ],
)
def test_an_interrupt_without_a_denial_is_neither_allowed_nor_denied(
    description: str | None,
) -> None:
    request: Any = {"action_requests": [{"name": "pay", "args": {}, "description": description}]}
    state = {"__interrupt__": [Interrupt(value=request)]}
    for check in (assert_allowed, assert_denied):
        with pytest.raises(AssertionError, match="A human is asked about the call of `pay`"):
            check(state)


STATES: list[dict[str, Any]] = [
    {"paid": "yes"},
    {"__interrupt__": []},
    {"__interrupt__": None},
    {"__interrupt__": [Interrupt(value="What now?")]},
    {"__interrupt__": [Interrupt(value={"action_requests": "pay"})]},
    {"__interrupt__": [{"action_requests": []}]},
]


@pytest.mark.parametrize("state", STATES)
def test_a_state_without_verdicts_is_refused_with_advice(state: dict[str, Any]) -> None:
    for check in (assert_allowed, assert_denied):
        with pytest.raises(UsageError, match=r"`with assert_denied\(…\):`.* read its `Trace`"):
            check(state)


def test_a_run_of_a_graph_can_be_asserted_but_its_final_state_cannot(till: LocalServer) -> None:
    with pytest.raises(UsageError, match="inside `with assert_denied"):
        assert_allowed(counter(till, None).invoke({"paid": ""}))
    noted = counter(till, ASKS, on_denied="state:paid").invoke({"paid": ""})
    with pytest.raises(UsageError, match='with `on_denied="raise"`'):
        assert_denied(noted)
    with assert_denied(tool="pay", rule="should deny always"):
        counter(till, ASKS).invoke({"paid": ""})
    with assert_allowed():
        counter(till, None).invoke({"paid": ""})


def test_the_denial_is_available_only_after_the_body(till: LocalServer) -> None:
    with assert_denied() as denied:
        with pytest.raises(UsageError, match="No denial ended the body"):
            _ = denied.error
        ask(agent(till, "dual-llm"), "large")
    assert denied.error.reason == "large sums need a signature"


# The middleware


def guarded(*calls: AIMessage, policy: str = POLICY, **options: Any) -> Any:
    return create_agent(turns(*calls), [pay], middleware=[PolicyMiddleware(policy, **options)])


def test_a_call_that_the_middleware_denies_counts_as_denied() -> None:
    state = ask(guarded(calling(("pay", {"euros": 500}))), "pay")
    message = next(one for one in state["messages"] if isinstance(one, ToolMessage))
    assert_denied(message, **DETAILS)
    assert_denied(state, **DETAILS)
    with pytest.raises(AssertionError, match="it is denied"):
        assert_allowed(state, tool="pay")
    with assert_denied(**DETAILS):
        ask(guarded(calling(("pay", {"euros": 500})), on_denied="raise"), "pay")


def test_doubt_can_be_asserted_of_a_call_that_the_middleware_denies() -> None:
    large = calling(("pay", {"euros": 500}))
    assert_in_doubt(assert_denied, ask(guarded(large, policy=DOUBTFUL), "pay"))
    raising = guarded(large, policy=DOUBTFUL, on_denied="raise")
    assert_in_doubt(assert_denied, lambda: ask(raising, "pay"))


def test_a_call_for_which_the_middleware_asks_a_human_counts_as_denied() -> None:
    middleware: Any = PolicyMiddleware(POLICY.replace("must", "should"), on_denied="interrupt")
    of = create_agent(
        turns(calling(("pay", {"euros": 500}))), [pay], middleware=[middleware],
        checkpointer=InMemorySaver(),
    )  # fmt: skip
    state = of.invoke({"messages": [HumanMessage("pay")]}, THREAD)
    details = {key: DETAILS[key] for key in ("tool", "rule", "reason")}
    assert_denied(state, strength="soft", **details)
    with pytest.raises(AssertionError, match="A human is asked about the call of `pay`"):
        assert_allowed(state, tool="pay")


def test_a_call_that_the_middleware_allows_counts_as_allowed() -> None:
    state = ask(guarded(calling(("pay", {"euros": 5}))), "pay")
    assert_allowed(state, tool="pay")
    with pytest.raises(AssertionError, match="A result: 'paid 5'"):
        assert_denied(state)


def test_a_failed_call_or_an_unrelated_message_is_neither_allowed_nor_denied() -> None:
    failed = ToolMessage("Out of money.", tool_call_id="1", name="pay", status="error")
    for check in (assert_allowed, assert_denied):
        with pytest.raises(AssertionError, match="The call failed, and no policy denied it"):
            check(failed)
        with pytest.raises(UsageError, match="does not come from `ChatSequrity`"):
            check(AIMessage("Hi"))
        with pytest.raises(UsageError, match="The last turn is unrelated to policies"):
            check({"messages": [HumanMessage("Hi"), AIMessage("Hi")]})


SOFT = 'tool "pay" { should deny when euros.value in {int 100..}; }'
DECISIONS: list[tuple[dict[str, Any], str]] = [
    ({"type": "approve"}, ""),
    ({"type": "edit", "edited_action": {"name": "pay", "args": {"euros": 5}}}, ""),
    ({"type": "reject", "message": "No."}, "was rejected.*it is denied"),
    ({"type": "respond", "message": "Later."}, "was answered.*it is neither allowed nor denied"),
]


@pytest.mark.parametrize(("decision", "failure"), DECISIONS)
def test_the_decision_of_a_human_within_a_body_counts(
    decision: dict[str, Any], failure: str
) -> None:
    options: dict[str, Any] = {"checkpointer": InMemorySaver(), "middleware": [
        PolicyMiddleware(SOFT, on_denied="interrupt")]}  # fmt: skip
    ran = create_agent(turns(calling(("pay", {"euros": 500}))), [pay], **options)
    asked = "(?s)The call of `pay` was asked.*it is denied"
    with pytest.raises(AssertionError, match=asked), assert_allowed():
        ran.invoke({"messages": "pay"}, THREAD)

    def resume() -> None:
        with assert_allowed():
            ran.invoke(Command(resume={"decisions": [decision]}), THREAD)

    if not failure:
        resume()
        return
    with pytest.raises(AssertionError, match=f"(?s)The call of `pay` {failure}"):
        resume()


def test_an_assertion_may_end_in_another_context_than_it_began() -> None:
    assertion = assert_denied()
    copy_context().run(assertion.__enter__)
    assert assertion.__exit__(PolicyDenied, PolicyDenied(), None)
    assert assertion.error is not None


def own_message(**metadata: Any) -> AIMessage:
    """A message of ours that says no more than its metadata."""
    return AIMessage("", response_metadata={METADATA_KEY: metadata})


def test_a_denial_that_names_no_tool_may_be_of_the_tool_that_should_be_allowed() -> None:
    def state(denial: Denial) -> dict[str, Any]:
        call: Any = {"name": "pay", "args": {}, "id": "1"}
        made = [AIMessage("", tool_calls=[call]), ToolMessage("paid", tool_call_id="1", name="pay")]
        return {"messages": [HumanMessage("small"), *made, own_message(denial=denial.to_json())]}

    assert_allowed(state(Denial("send")), tool="pay")
    with pytest.raises(AssertionError, match="Difference"):
        assert_allowed(state(Denial()), tool="pay")


def test_a_kept_text_that_is_not_the_result_of_a_turn_is_neither_allowed_nor_denied() -> None:
    for check in (assert_allowed, assert_denied):
        with pytest.raises(AssertionError, match="the reply is not the JSON object"):
            check(own_message(content="Hello"))
