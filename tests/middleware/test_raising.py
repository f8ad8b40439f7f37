"""`on_denied="raise"`: a denial is an exception, and the thread continues with all its labels."""

from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import AfterValidator

from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.labels import labeled_tool_result
from langchain_sequrity.middleware import thread_labels
from tests.middleware.agents import NO_RULES, THREAD, Till, agent, ask, calling, kinds, results

POLICY = """
    tool "pay" {
        /// three attempts are enough
        must deny when "three" in @session.tags;
        /// over the limit
        must deny when not euros.value in {int 1..100};
        session before {
            when "two" in @tags { @tags |= {"three"}; }
            when "one" in @tags { @tags |= {"two"}; }
            @tags |= {"one"};
        }
    }
"""


def raising(till: Till, *said: Any, policy: str = POLICY, **options: Any) -> Any:
    return agent(policy, [till.pay], *said, on_denied="raise", **options)


def test_the_exception_says_what_was_denied_and_why() -> None:
    with pytest.raises(PolicyDenied) as caught:
        raising(Till(), calling(("pay", {"euros": 777}))).invoke(ask())
    error = caught.value
    assert (error.tool, error.reason) == ("pay", "over the limit")
    assert error.rule == "must deny when not euros.value in {int 1..100};"
    assert error.arguments["euros"] == 777
    assert (error.strength, error.certain, error.line) == ("hard", True, error.denial.line)
    assert error.labels["euros"] == {"producers": [], "consumers": ["*"], "tags": []}
    assert "777" not in str(error)


async def test_a_denial_is_raised_in_an_event_loop() -> None:
    with pytest.raises(PolicyDenied):
        await raising(Till(), calling(("pay", {"euros": 777}))).ainvoke(ask())


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_the_session_continues_after_a_denial_and_counts_it(durability: str) -> None:
    till = Till()
    script = [calling(("pay", {"euros": 500}))] * 2 + [calling(("pay", {"euros": 5}))]
    run = raising(till, *script, checkpointer=InMemorySaver())
    for number, reason in enumerate(["over the limit", "over the limit", "three attempts"], 1):
        with pytest.raises(PolicyDenied) as caught:
            run.invoke(ask(), THREAD, durability=durability)
        assert caught.value.reason.startswith(reason)
        state = run.get_state(THREAD).values
        assert len(thread_labels(state).session.tags) == number
        calls = [one for one in state["messages"] if isinstance(one, AIMessage)]
        assert len(calls) == len(results(state)) == number
    assert till.paid == []
    assert run.invoke(ask(), THREAD)["messages"][-1].text == "done"


def test_no_call_of_a_message_with_a_denied_call_is_made() -> None:
    till = Till()
    call = calling(*[("pay", {"euros": one}) for one in (1, 500, 2)])
    run = raising(till, call, checkpointer=InMemorySaver())
    with pytest.raises(PolicyDenied):
        run.invoke(ask(), THREAD)
    assert till.paid == []
    assert kinds(run.get_state(THREAD).values) == ["waits", "policy", "waits"]


def test_a_run_that_continues_without_new_input_is_denied_again() -> None:
    run = raising(Till(), calling(("pay", {"euros": 500})), checkpointer=InMemorySaver())
    for given in (ask(), None):
        with pytest.raises(PolicyDenied):
            run.invoke(given, THREAD)


def test_a_call_that_has_to_wait_raises_no_denial() -> None:
    policy = 'tool "pay" { session after { @tags |= {"paid"}; } }'
    call = calling(("pay", {"euros": 1}), ("pay", {"euros": 2}))
    assert kinds(raising(Till(), call, policy=policy).invoke(ask())) == ["made", "waits"]


def test_a_denial_of_a_return_direct_tool_is_raised() -> None:
    @tool(return_direct=True)
    def pay(euros: int) -> str:
        """Pay."""
        return f"paid {euros}"

    run = agent(POLICY, [pay], calling(("pay", {"euros": 500})), on_denied="raise")
    with pytest.raises(PolicyDenied):
        run.invoke(ask())


def test_a_denial_of_the_validated_arguments_is_raised_too() -> None:
    policy = 'tool "pay" { must deny when euros.value == 500; should allow always; }'
    run = raising(Till(), calling(("pay", {"euros": 500.0})), policy=policy)
    with pytest.raises(PolicyDenied):
        run.invoke(ask())


@pytest.mark.parametrize("order", [(5, 6), (6, 5)])
def test_of_several_denials_while_calls_run_the_first_is_raised(order: tuple[int, int]) -> None:
    @tool
    def pay(euros: Annotated[int, AfterValidator(lambda euros: euros * 100)]) -> str:
        """Pay."""
        return f"paid {euros}"

    policy = """
        tool "pay" {
            must deny when euros.value == 500;
            must deny when euros.value == 600;
        }
    """
    call = calling(*[("pay", {"euros": euros}) for euros in order])
    run = agent(policy, [pay], call, on_denied="raise", checkpointer=InMemorySaver())
    with pytest.raises(PolicyDenied) as caught:
        run.invoke(ask(), THREAD)
    assert caught.value.arguments["euros"] == order[0]
    assert caught.value.rule == f"must deny when euros.value == {order[0]}00;"
    assert kinds(run.get_state(THREAD).values) == ["policy", "policy"]


def test_a_withheld_result_is_raised_as_a_denial() -> None:
    @tool(response_format="content_and_artifact")
    def pay(euros: int) -> Any:
        """Pay."""
        text, artifact = labeled_tool_result(f"SECRET {euros}", tags=["x"])
        return text, {**artifact, "seal": "no"}

    run = agent(NO_RULES, [pay], calling(("pay", {"euros": 5})), on_denied="raise")
    with pytest.raises(PolicyDenied, match="withheld") as caught:
        run.invoke(ask())
    assert "SECRET" not in str(caught.value)
