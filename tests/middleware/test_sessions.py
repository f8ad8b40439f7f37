"""A thread is a session: its labels last over turns, and only the middleware writes them."""

from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command, Overwrite

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.middleware import thread_labels
from tests.middleware.agents import THREAD, Till, agent, ask, calling, kinds

TWICE = """
    tool "pay" {
        /// two payments are enough
        must deny when "three" in @session.tags;
        session before {
            when "two" in @tags { @tags |= {"three"}; }
            when "one" in @tags { @tags |= {"two"}; }
            @tags |= {"one"};
        }
    }
"""
ONCE = """
    tool "pay" {
        /// one payment is enough
        must deny when "paid" in @session.tags;
        session after { @tags |= {"paid"}; }
    }
"""
PAYS = calling(("pay", {"euros": 5}))
OTHER: RunnableConfig = {"configurable": {"thread_id": "other"}}


def last_kinds(run: Any, config: RunnableConfig | None = None) -> list[str]:
    """The outcomes of the calls of a new turn."""
    state = run.invoke(ask(), config)
    turn = max(n for n, one in enumerate(state["messages"]) if isinstance(one, HumanMessage))
    return kinds({"messages": state["messages"][turn:]})


def endless(policy: str, till: Till, checkpointer: Any = None, **options: Any) -> Any:
    """An agent that pays in each turn."""
    script = [PAYS, "done"] * 9
    return agent(policy, [till.pay], *script, checkpointer=checkpointer, **options)


@pytest.mark.parametrize("policy", [TWICE, ONCE])
def test_a_thread_counts_calls_over_turns_and_another_thread_begins_at_zero(policy: str) -> None:
    till = Till()
    run = endless(policy, till, InMemorySaver())
    most = 2 if policy == TWICE else 1
    assert [last_kinds(run, THREAD) for _ in range(4)] == [["made"]] * most + [["policy"]] * (
        4 - most
    )
    assert last_kinds(run, OTHER) == ["made"]
    assert len(till.paid) == most + 1


def test_without_a_checkpointer_each_run_is_a_session() -> None:
    run = endless(ONCE, Till())
    assert [last_kinds(run) for _ in range(3)] == [["made"]] * 3


def test_a_session_continues_from_a_stored_checkpoint(tmp_path: Any) -> None:
    for expected in ("made", "policy"):
        with SqliteSaver.from_conn_string(str(tmp_path / "db")) as saver:
            assert last_kinds(endless(ONCE, Till(), saver), THREAD) == [expected]


async def test_a_session_continues_from_a_stored_checkpoint_in_an_event_loop(tmp_path: Any) -> None:
    for expected in ("made", "policy"):
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "db")) as saver:
            run = endless(ONCE, Till(), saver)
            state = await run.ainvoke(ask(), THREAD)
            assert kinds(state)[-1] == expected


@pytest.mark.parametrize("policy", [TWICE, ONCE])
@pytest.mark.parametrize("back", [-1, -2, -3])
def test_a_fork_has_the_session_of_all_calls_that_its_thread_has_made(
    policy: str, back: int
) -> None:
    till = Till()
    run = endless(policy, till, InMemorySaver())
    most = 2 if policy == TWICE else 1
    for _ in range(most):
        last_kinds(run, THREAD)
    before = list(run.get_state_history(THREAD))[back].config
    assert kinds(run.invoke(ask("again"), before)) == ["policy"]
    assert len(till.paid) == most


def test_a_fork_does_not_get_back_a_label_that_the_abandoned_turn_has_removed() -> None:
    policy = """
        tool "unlock" { session after { @tags |= {"open"}; } }
        tool "pay" {
            must allow when "open" in @session.tags;
            should deny always;
            session after { @tags -= {"open"}; }
        }
    """

    def unlock() -> str:
        """Unlock the till."""
        return "unlocked"

    till, opens = Till(), calling(("unlock", {}))
    run = agent(policy, [till.pay, unlock], opens, PAYS, checkpointer=InMemorySaver())
    run.invoke(ask(), THREAD)
    history = list(run.get_state_history(THREAD))
    unlocked = next(one for one in history if thread_labels(one.values).session.tags)
    run.invoke(None, unlocked.config)
    assert till.paid == [(5, "shop")]


def test_a_thread_that_was_deleted_begins_anew() -> None:
    saver = InMemorySaver()
    run = endless(ONCE, Till(), saver)
    assert [last_kinds(run, THREAD) for _ in range(2)] == [["made"], ["policy"]]
    saver.delete_thread("t")
    assert last_kinds(run, THREAD) == ["made"]


async def test_a_thread_that_was_deleted_begins_anew_in_an_event_loop(tmp_path: Any) -> None:
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "db")) as saver:
        run = endless(ONCE, Till(), saver)
        for expected in ("made", "policy"):
            assert kinds(await run.ainvoke(ask(), THREAD))[-1] == expected
        await saver.adelete_thread("t")
        assert kinds(await run.ainvoke(ask(), THREAD)) == ["made"]


# Calls of one message


def test_calls_of_a_message_are_counted_in_their_order() -> None:
    till = Till()
    call = calling(*[("pay", {"euros": n}) for n in range(4)])
    state = agent(TWICE, [till.pay], call).invoke(ask())
    assert kinds(state) == ["made", "made", "policy", "policy"]
    assert sorted(till.paid) == [(0, "shop"), (1, "shop")]


def test_a_call_waits_for_one_that_changes_the_session_when_it_ends() -> None:
    till = Till()
    both = calling(("pay", {"euros": 1}), ("pay", {"euros": 2}))
    state = agent(ONCE, [till.pay], both, calling(("pay", {"euros": 2}))).invoke(ask())
    assert kinds(state) == ["made", "waits", "policy"]
    assert till.paid == [(1, "shop")]


def test_a_call_before_one_that_changes_the_session_does_not_wait() -> None:
    till, policy = Till(), ONCE + 'tool "look" { must deny when "paid" in @session.tags; }'

    def look() -> str:
        """Look."""
        return "seen"

    call = calling(("look", {}), ("pay", {"euros": 1}), ("look", {}))
    state = agent(policy, [till.pay, look], call).invoke(ask())
    assert kinds(state) == ["made", "made", "waits"]


@pytest.mark.parametrize("tool", ['"pay"', 'r"^p"'])
def test_a_call_also_waits_for_a_result_rule_that_changes_the_session(tool: str) -> None:
    policy = f'tool {tool} {{ result {{ @session.tags |= {{"x"}}; }} }}'
    call = calling(("pay", {"euros": 1}), ("pay", {"euros": 2}))
    assert kinds(agent(policy, [Till().pay], call).invoke(ask())) == ["made", "waits"]


def test_no_call_waits_for_a_denied_call() -> None:
    policy = ONCE.replace("session after", "must deny when euros.value == 1; session after")
    call = calling(("pay", {"euros": 1}), ("pay", {"euros": 2}))
    assert kinds(agent(policy, [Till().pay], call).invoke(ask())) == ["policy", "made"]


# Writes to the field of the middleware

FORGED = {"session": Labels().to_wire()}
FIELD = "sequrity_policy"
FIELDS = pytest.mark.parametrize("field", [FIELD, "sequrity_decisions"])


@FIELDS
def test_a_callers_input_cannot_set_the_fields_of_the_middleware(field: str) -> None:
    run = endless(ONCE, Till(), InMemorySaver())
    last_kinds(run, THREAD)
    state = run.invoke({**ask(), field: b"{}"}, THREAD)
    assert kinds(state)[-1] == "policy"
    assert field not in run.get_input_jsonschema()["properties"]
    assert field not in run.get_output_jsonschema()["properties"]


@FIELDS
@pytest.mark.parametrize("value", [FORGED, None, "", [], {"plan": {}}, '{"session": null}'])
def test_an_update_of_a_field_from_outside_is_ignored_and_logged(
    value: Any, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    till = Till()
    run = endless(ONCE, till, InMemorySaver())
    last_kinds(run, THREAD)
    run.update_state(THREAD, {field: value})
    run.invoke(Command(update={field: value}, goto="model"), THREAD)
    assert caplog.text.count("Ignored an update of the field `sequrity_policy`") == 2
    assert last_kinds(run, THREAD) == ["policy"]
    assert len(till.paid) == 1


@FIELDS
@pytest.mark.parametrize("value", [FORGED, None, "", {}])
@pytest.mark.parametrize("form", [Overwrite, lambda value: {"__overwrite__": value}])
def test_an_overwrite_of_a_field_makes_the_next_run_an_error(
    value: Any, form: Any, field: str
) -> None:
    till = Till()
    run = endless(ONCE, till, InMemorySaver())
    last_kinds(run, THREAD)
    run.update_state(THREAD, {field: form(value)})
    with pytest.raises(UsageError, match="Other code than `PolicyMiddleware`"):
        last_kinds(run, THREAD)
    assert len(till.paid) == 1


def test_thread_labels_returns_the_labels_of_a_thread() -> None:
    run = endless(ONCE, Till(), InMemorySaver())
    assert thread_labels(run.get_state(THREAD).values) == (Labels(), Labels())
    last_kinds(run, THREAD)
    session, seen = thread_labels(run.get_state(THREAD).values)
    assert session.tags == {"paid"}
    assert seen == Labels()
