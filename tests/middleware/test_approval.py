"""`on_denied="interrupt"`: a human decides on soft denials, for exactly one call, once."""

from typing import Any

import pytest
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command
from pydantic import BaseModel, field_validator

from langchain_sequrity.middleware import thread_labels
from tests.middleware.agents import (
    THREAD,
    Till,
    agent,
    ask,
    calling,
    decide,
    kinds,
    results,
)

SOFT = """
    tool "pay" {
        must deny when euros.value in {int 1000..};
        /// more than 100 needs a signature
        should deny when not euros.value in {int 1..100};
        session before { @tags |= {"tried"}; }
    }
"""
COUNTED = SOFT.replace(
    "session before {",
    """session before {
    when "second" in @tags { @tags |= {"third"}; }
    when "tried" in @tags { @tags |= {"second"}; }""",
)
APPROVE = {"type": "approve"}


def asking(policy: Any, till: Till, *said: Any, **options: Any) -> Any:
    options.setdefault("checkpointer", InMemorySaver())
    return agent(policy, [till.pay, till_look], *said, on_denied="interrupt", **options)


def till_look(at: str) -> str:
    """Look at something."""
    return f"seen {at}"


def pays(*euros: int) -> Any:
    return calling(*[("pay", {"euros": one}) for one in euros])


def test_a_human_is_asked_in_langchains_format() -> None:
    state = asking(SOFT, Till(), pays(500)).invoke(ask(), THREAD)
    (question,) = state["__interrupt__"]
    (action,), (review,) = question.value["action_requests"], question.value["review_configs"]
    assert (action["name"], action["args"]) == ("pay", {"euros": 500})
    assert ": more than 100 needs a signature. " in action["description"]
    assert "`should deny when not euros.value in {int 1..100}`" in action["description"]
    assert action["description"].count("denied") == 1
    denial = question.value["denial"]
    assert (denial["strength"], denial["certain"]) == ("soft", True)
    assert review == {
        "action_name": "pay",
        "allowed_decisions": ["approve", "edit", "reject", "respond"],
    }


def test_an_approved_call_is_made_once_and_the_next_needs_a_new_approval() -> None:
    till = Till()
    run = asking(SOFT, till, pays(500), pays(500))
    run.invoke(ask(), THREAD)
    assert till.paid == []
    state = run.invoke(decide(APPROVE), THREAD)
    assert till.paid == [(500, "shop")]
    assert len(state["__interrupt__"]) == 1
    run.invoke(decide({"type": "reject"}), THREAD)
    assert till.paid == [(500, "shop")]
    run.invoke(decide(APPROVE), THREAD)
    assert till.paid == [(500, "shop")]


async def test_an_approved_call_is_made_once_in_an_event_loop() -> None:
    till = Till()
    run = asking(SOFT, till, pays(500))
    state = await run.ainvoke(ask(), THREAD)
    assert state["__interrupt__"]
    await run.ainvoke(decide(APPROVE), THREAD)
    assert till.paid == [(500, "shop")]


def test_a_stream_shows_the_question_and_continues_with_the_answer() -> None:
    till = Till()
    run = asking(SOFT, till, pays(500))
    assert any("__interrupt__" in one for one in run.stream(ask(), THREAD))
    shown = list(run.stream(decide(APPROVE), THREAD, stream_mode="updates"))
    assert "paid 500" in str(shown)
    assert till.paid == [(500, "shop")]


def test_an_answer_may_come_in_another_process(tmp_path: Any) -> None:
    till = Till()
    for given in (ask(), decide(APPROVE)):
        with SqliteSaver.from_conn_string(str(tmp_path / "db")) as saver:
            asking(SOFT, till, pays(500), checkpointer=saver).invoke(given, THREAD)
    assert till.paid == [(500, "shop")]


@pytest.mark.parametrize(
    "policy",
    [
        SOFT.replace("should", "must"),
        'tool "pay" { should deny when to.value in {str matching r"hop"}; }',
        'tool "pay" { must allow when euros.value in {float 1.0..900.0}; }',
    ],
)
def test_hard_and_uncertain_denials_are_not_offered_for_approval(policy: str) -> None:
    till = Till()
    call = calling(("pay", {"euros": 500, "to": "shops"}))
    state = asking(policy, till, call).invoke(ask(), THREAD)
    assert kinds(state) == ["policy"]
    assert till.paid == []


@pytest.mark.parametrize(
    ("decision", "kind", "paid", "said"),
    [
        (APPROVE, "made", [500], "paid 500"),
        ({"type": "reject"}, "rejected", [], "A human rejected"),
        ({"type": "reject", "message": "too dear"}, "rejected", [], ": too dear."),
        ({"type": "respond", "message": "I paid."}, "made", [], "I paid."),
        (
            {"type": "edit", "edited_action": {"name": "pay", "args": {"euros": 5}}},
            "made",
            [5],
            "paid 5",
        ),
        (
            {"type": "edit", "edited_action": {"name": "pay", "args": {"euros": 5000}}},
            "policy",
            [],
            "The policy denied",
        ),
        (
            {"type": "edit", "edited_action": {"name": "till_look", "args": {"at": "x"}}},
            "made",
            [],
            "seen x",
        ),
    ],
)
def test_a_human_may_approve_reject_respond_or_edit(
    decision: dict[str, Any], kind: str, paid: list[int], said: str
) -> None:
    till = Till()
    run = asking(SOFT, till, pays(500))
    run.invoke(ask(), THREAD)
    state = run.invoke(decide(decision), THREAD)
    assert kinds(state) == [kind]
    assert [euros for euros, _ in till.paid] == paid
    assert said in results(state)[0].text


class Plain(BaseModel):
    to: str

    @field_validator("to")
    @classmethod
    def _plain(cls, value: str) -> str:
        return value.strip().lower()


@pytest.mark.parametrize(("to", "kind"), [(" Bob ", "made"), (" EVE ", "policy")])
def test_an_approval_covers_validated_arguments_unless_they_are_denied_hard(
    to: str, kind: str
) -> None:
    paid: list[str] = []

    @tool(args_schema=Plain)
    def pay(to: str) -> str:
        """Pay."""
        paid.append(to)
        return "paid"

    policy = """
        tool "pay" { should deny when not to.value == "ada"; must deny when to.value == "eve"; }
    """
    call = calling(("pay", {"to": to}))
    run = agent(policy, [pay], call, on_denied="interrupt", checkpointer=InMemorySaver())
    assert run.invoke(ask(), THREAD)["__interrupt__"]
    assert kinds(run.invoke(decide(APPROVE), THREAD)) == [kind]
    assert paid == (["bob"] if kind == "made" else [])


def test_an_edited_call_with_a_soft_denial_needs_an_approval_again() -> None:
    till = Till()
    run = asking(SOFT, till, pays(500))
    run.invoke(ask(), THREAD)
    edit = {"type": "edit", "edited_action": {"name": "pay", "args": {"euros": 200}}}
    (question,) = run.invoke(decide(edit), THREAD)["__interrupt__"]
    assert question.value["action_requests"][0]["args"] == {"euros": 200}
    run.invoke(decide(APPROVE), THREAD)
    assert till.paid == [(200, "shop")]


@pytest.mark.parametrize(
    ("decisions", "tries"),
    [
        ([{"type": "reject"}], 1),
        ([{"type": "edit", "edited_action": {"name": "pay", "args": {"euros": 5}}}], 2),
        ([{"type": "edit", "edited_action": {"name": "pay", "args": {"euros": 5000}}}], 2),
        ([{"type": "edit", "edited_action": {"name": "pay", "args": {"euros": 200}}}, APPROVE], 2),
        (
            [
                {"type": "edit", "edited_action": {"name": "pay", "args": {"euros": 200}}},
                {"type": "respond", "message": "I did."},
            ],
            2,
        ),
    ],
)
def test_each_checked_call_counts_in_the_session(
    decisions: list[dict[str, Any]], tries: int
) -> None:
    run = asking(COUNTED, Till(), pays(500))
    run.invoke(ask(), THREAD)
    for one in decisions:
        run.invoke(decide(one), THREAD)
    state = run.get_state(THREAD)
    assert not state.next
    assert len(thread_labels(state.values).session.tags) == tries


@pytest.mark.parametrize(
    "answer",
    [
        True,
        "approve",
        {"decisions": []},
        {"decisions": [APPROVE, APPROVE]},
        {"decisions": ["approve"]},
        {"decisions": [{"type": "Approve"}]},
        {"decisions": [{"type": "edit"}]},
        {"decisions": [{"type": "respond"}]},
        {"decisions": [{"type": "edit", "edited_action": {"name": "no_such", "args": {}}}]},
    ],
)
def test_after_an_answer_that_is_not_a_decision_the_question_is_asked_again(answer: Any) -> None:
    till = Till()
    run = asking(SOFT, till, pays(500))
    run.invoke(ask(), THREAD)
    state = run.invoke(Command(resume=answer), THREAD)
    assert len(state["__interrupt__"]) == 1
    assert till.paid == []
    run.invoke(decide(APPROVE), THREAD)
    assert till.paid == [(500, "shop")]


def test_an_approval_is_not_valid_for_another_policy() -> None:
    till, saver = Till(), InMemorySaver()
    asking(SOFT, till, pays(500), checkpointer=saver).invoke(ask(), THREAD)
    stricter = SOFT.replace("100 needs", "100 always needs")
    state = asking(stricter, till, pays(500), checkpointer=saver).invoke(decide(APPROVE), THREAD)
    assert kinds(state) == ["policy"]
    assert till.paid == []


def test_each_call_of_a_message_has_its_own_question() -> None:
    till = Till()
    run = asking(SOFT, till, pays(500, 5, 600))
    state = run.invoke(ask(), THREAD)
    assert till.paid == [(5, "shop")]
    asked = {
        one.value["action_requests"][0]["args"]["euros"]: one.id for one in state["__interrupt__"]
    }
    answers = {
        asked[500]: {"decisions": [{"type": "reject"}]},
        asked[600]: {"decisions": [APPROVE]},
    }
    state = run.invoke(Command(resume=answers), THREAD)
    assert kinds(state) == ["rejected", "made", "made"]
    assert till.paid == [(5, "shop"), (600, "shop")]


def test_a_call_waits_for_an_earlier_one_that_may_be_approved() -> None:
    policy = SOFT + 'tool "pay" { session after { @tags |= {"paid"}; } }'
    till = Till()
    run = asking(policy, till, pays(500, 5))
    run.invoke(ask(), THREAD)
    state = run.invoke(decide(APPROVE), THREAD)
    assert kinds(state) == ["made", "waits"]
    assert till.paid == [(500, "shop")]


def test_the_result_of_an_approved_call_is_labelled_like_any_other() -> None:
    policy = (
        SOFT
        + """
        tool "pay" -> @tags |= {"receipt"};
        tool "till_look" { must deny when at.tags overlaps {"receipt"}; }
    """
    )
    run = asking(policy, Till(), pays(500), calling(("till_look", {"at": "x"})))
    run.invoke(ask(), THREAD)
    assert kinds(run.invoke(decide(APPROVE), THREAD)) == ["made", "policy"]


def test_a_run_from_an_earlier_checkpoint_asks_again() -> None:
    till = Till()
    run = asking(SOFT, till, pays(500))
    run.invoke(ask(), THREAD)
    run.invoke(decide({"type": "reject"}), THREAD)
    asked = next(one for one in run.get_state_history(THREAD) if one.next == ("tools",))
    state = run.invoke(None, asked.config)
    assert len(state["__interrupt__"]) == 1
    assert till.paid == []
