"""An assertion does not pass because nothing was checked."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda, RunnableParallel

from langchain_sequrity import ChatSequrity, SequrityMessages
from langchain_sequrity.errors import PolicyDenied, ServerFailed
from langchain_sequrity.local import LocalServer
from langchain_sequrity.testing import assert_allowed, assert_denied
from tests.middleware.agents import calling, turns
from tests.testing.test_turns import POLICY, agent, ask, counter, guarded, pay

SCRIPT: list[dict[str, Any]] = [
    {"when": {"role": "planner", "user": "small"}, "program": "final_return_value = pay(euros=5)"},
    {"when": {"role": "planner", "user": "large"}, "program": "final_return_value = pay(euros=500)"},
    {"when": {"role": "planner"}, "program": "final_return_value = 'Hi.'"},
    {"when": {"role": "chat", "tool_result": "paid"}, "text": "done"},
    {"when": {"role": "chat", "user": "large"}, "tool_calls": [{"name": "pay", "arguments": {"euros": 500}}]},
    {"when": {"role": "chat", "user": "small"}, "tool_calls": [{"name": "pay", "arguments": {"euros": 5}}]},
    {"when": {"role": "chat"}, "text": "Hi."},
]  # fmt: skip
NO_CALL = "no call, so there is nothing to check"
ARCHITECTURES = ["single-llm", "dual-llm"]


@pytest.fixture(scope="module")
def till() -> Iterator[LocalServer]:
    with LocalServer(script=SCRIPT) as server:
        yield server


def in_body(run: Callable[[], Any]) -> Callable[..., None]:
    def check(assertion: Any) -> None:
        with assertion():
            run()

    return check


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_turn_without_a_call_passes_neither_assertion(
    till: LocalServer, architecture: str
) -> None:
    def run() -> Any:
        return ask(agent(till, architecture), "Hello")

    state = run()
    for assertion in (assert_allowed, assert_denied):
        with pytest.raises(AssertionError, match=f"{NO_CALL}. An answer: 'Hi.'"):
            assertion(state)
        with pytest.raises(AssertionError, match=f"{NO_CALL}. An answer: 'Hi.'"):
            assertion(state["messages"][-1])
        with pytest.raises(AssertionError, match=NO_CALL):
            assertion(run)
    with pytest.raises(AssertionError, match=f"{NO_CALL}. An answer: 'Hi.'"), assert_allowed():
        run()


def test_the_last_message_of_a_dual_llm_turn_is_evidence_only_if_it_reports_its_checks(
    till: LocalServer,
) -> None:
    for reports in (True, False):
        config = {"response_format": {"include_policy_check_history": reports}}
        state = ask(agent(till, "dual-llm", session_config=config), "small")
        assert_allowed(state, tool="pay")
        if reports:
            assert_allowed(state["messages"][-1], tool="pay")
            continue
        with pytest.raises(AssertionError, match="pass the state"):
            assert_allowed(state["messages"][-1])
        of = agent(till, "dual-llm", session_config=config)
        assert_allowed(lambda of=of: ask(of, "small")["messages"][-1])


def test_a_body_or_a_function_without_a_call_is_not_allowed() -> None:
    with pytest.raises(AssertionError, match=NO_CALL), assert_allowed():
        pass
    with pytest.raises(AssertionError, match=NO_CALL):
        assert_allowed(lambda: 5)


def streamed(of: Any, words: str) -> None:
    for _ in of.stream({"messages": words}):
        pass


def side_by_side(of: Any, words: str) -> None:
    both = RunnableParallel(first=RunnableLambda(lambda _: ask(of, words)), second=lambda _: None)
    both.invoke({})


@pytest.mark.parametrize("run", [ask, streamed, side_by_side])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_calls_within_a_body_are_seen_however_the_agent_runs(
    till: LocalServer, architecture: str, run: Any
) -> None:
    with assert_allowed():
        run(agent(till, architecture), "small")
    with pytest.raises(AssertionError, match=r"Got.*denied"), assert_allowed():
        run(agent(till, architecture, on_denied="message"), "large")
    with pytest.raises(AssertionError, match=NO_CALL), assert_allowed():
        run(agent(till, architecture), "Hello")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
async def test_calls_within_an_asynchronous_body_are_seen(
    till: LocalServer, architecture: str
) -> None:
    with assert_allowed():
        await agent(till, architecture).ainvoke({"messages": "small"})
    with pytest.raises(AssertionError, match=NO_CALL), assert_allowed():
        await agent(till, architecture).ainvoke({"messages": "Hello"})


@pytest.mark.parametrize(
    ("model", "fields"),
    [(ChatSequrity, {}), (ChatSequrity, {"use_responses_api": True}), (SequrityMessages, {})],
)
@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_every_model_are_seen(
    till: LocalServer, model: Any, fields: Any, stream: bool
) -> None:
    bound = model("any/model", base_url=till.base_url, policy=POLICY, **fields).bind_tools([pay])
    with assert_allowed():
        _ = [*bound.stream("small")] if stream else bound.invoke("small")
    with pytest.raises(AssertionError, match=NO_CALL), assert_allowed():
        _ = [*bound.stream("Hello")] if stream else bound.invoke("Hello")


def test_a_denial_that_the_code_under_test_handles_is_not_allowed(till: LocalServer) -> None:
    def run() -> None:
        with suppress(PolicyDenied):
            ask(agent(till, "dual-llm"), "large")

    with pytest.raises(AssertionError, match="large sums need a signature"), assert_allowed():
        run()
    with pytest.raises(AssertionError, match="large sums need a signature"):
        assert_allowed(run)


def test_calls_under_the_middleware_are_seen_in_a_body() -> None:
    with assert_allowed():
        ask(guarded(calling(("pay", {"euros": 5}))), "pay")
    with pytest.raises(AssertionError, match="The call of `pay` was denied"), assert_allowed():
        ask(guarded(calling(("pay", {"euros": 500}))), "pay")
    with pytest.raises(AssertionError, match=NO_CALL), assert_allowed():
        ask(guarded(AIMessage("Hi.")), "Hello")


def test_calls_of_a_graph_are_seen_in_a_body_and_a_function(till: LocalServer) -> None:
    with assert_allowed():
        counter(till, None).invoke({"paid": ""})
    assert_allowed(lambda: counter(till, None).invoke({"paid": ""}))
    noted = counter(till, 'tool "pay" { must deny always; }', on_denied="state:paid")
    with pytest.raises(AssertionError, match="The call of `pay` was denied"), assert_allowed():
        noted.invoke({"paid": ""})


def test_calls_of_an_agent_without_a_policy_are_no_evidence_in_a_body(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = create_agent(turns(calling(("pay", {"euros": 5}))), [pay])
    with pytest.raises(AssertionError, match=NO_CALL), assert_allowed():
        plain.invoke({"messages": [HumanMessage("pay")]})
    assert caplog.records == []  # LangChain logs exceptions of callbacks


@pytest.mark.parametrize(
    ("architecture", "answer", "roles"),
    [
        ("single-llm", {"program": "final_return_value = pay(euros=5)"}, "`planner` in dual-LLM"),
        ("dual-llm", {"tool_calls": [{"name": "pay", "arguments": {"euros": 5}}]}, "`chat` in single-LLM"),
        ("dual-llm", {"text": "Hi."}, "`chat` in single-LLM"),
    ],
)  # fmt: skip
def test_a_script_for_the_other_architecture_fails_the_test_with_the_name_of_the_rule(
    architecture: str, answer: dict[str, Any], roles: str
) -> None:
    with LocalServer(script=[{"when": {"user": "small"}, **answer}]) as server:
        of = agent(server, architecture)
        for check in (assert_allowed, assert_denied):
            with pytest.raises(ServerFailed, match=f"Rule 1 of the script: .*{roles}"), check():
                ask(of, "small")
            with pytest.raises(ServerFailed, match="Rule 1 of the script"):
                check(lambda: ask(of, "small"))
