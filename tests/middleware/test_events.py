"""Events of policy checks. A handler of events cannot change a check."""

import json
import logging
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from langchain_sequrity import PolicyHeader, labeled_tool_result
from langchain_sequrity.middleware import PolicyEvent
from tests.middleware.agents import NO_RULES, THREAD, Till, agent, ask, calling, decide, kinds

POLICY = """
    tool "pay" {
        /// over the limit
        should deny when not euros.value in {int 1..100};
        session before { @tags |= {"tried"}; }
    }
"""
SCRIPT = [calling(("pay", {"euros": 777})), calling(("pay", {"euros": 5}))]


def told(*said: Any, policy: Any = POLICY, **options: Any) -> list[PolicyEvent]:
    events: list[PolicyEvent] = []
    run = agent(policy, [Till().pay], *(said or SCRIPT), on_event=events.append, **options)
    run.invoke(ask(), THREAD)
    return events


def test_each_check_is_one_event() -> None:
    denied, allowed = told()
    assert (denied.stage, denied.outcome, denied.verdict) == ("call", "denied", "soft_denied")
    assert (denied.tool, denied.call_id, denied.thread_id) == ("pay", "pay-0", "t")
    assert denied.rule == "should deny when not euros.value in {int 1..100};"
    assert (denied.reason, denied.kind, denied.certain) == ("over the limit", "policy", True)
    assert denied.session["tags"] == ["tried"]
    assert denied.labels == {"producers": [], "consumers": ["*"], "tags": []}
    assert (allowed.outcome, allowed.verdict, allowed.kind) == ("allowed", "soft_allowed", "")
    assert allowed.rule == "default_allow"


def test_an_event_contains_arguments_only_on_request() -> None:
    assert "777" not in repr(told())
    assert told(log_arguments=True)[0].arguments == {"euros": 777}


def test_the_audit_log_has_the_events_as_json(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "langchain_sequrity.audit")
    events = told()
    records = [one for one in caplog.records if one.name == "langchain_sequrity.audit"]
    assert [json.loads(one.getMessage()) for one in records] == [one.to_json() for one in events]


@pytest.mark.parametrize("name", ["pay\x1b[31m\nINFO ok", "\u202etxt", "x\x7f"])
def test_hostile_names_in_the_audit_log_are_printable(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "langchain_sequrity.audit")
    closed = PolicyHeader.from_sqrt("", default_allow=False)
    told(AIMessage("", tool_calls=[{"name": name, "args": {}, "id": name}]), policy=closed)
    assert all(one.getMessage().isprintable() for one in caplog.records)
    assert caplog.records


def test_an_event_handler_that_raises_does_not_change_the_check(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(event: PolicyEvent) -> None:
        raise RuntimeError(event.tool + "SECRET")

    till = Till()
    state = agent(POLICY, [till.pay], *SCRIPT, on_event=fails).invoke(ask())
    assert kinds(state) == ["policy", "made"]
    assert till.paid == [(5, "shop")]
    assert "raised RuntimeError. The result of the check is unchanged" in caplog.text
    assert "SECRET" not in caplog.text


def test_the_decision_of_a_human_is_an_event() -> None:
    events: list[PolicyEvent] = []
    run = agent(
        POLICY,
        [Till().pay],
        *SCRIPT[:1],
        on_event=events.append,
        on_denied="interrupt",
        checkpointer=InMemorySaver(),
    )
    run.invoke(ask(), THREAD)
    run.invoke(decide({"type": "approve"}), THREAD)
    assert [(one.stage, one.outcome) for one in events] == [
        ("call", "asked"),
        ("human", "approved"),
    ]


def test_a_withheld_result_is_an_event() -> None:
    events: list[PolicyEvent] = []

    @tool(response_format="content_and_artifact")
    def pay(euros: int) -> Any:
        """Pay."""
        text, artifact = labeled_tool_result(f"SECRET {euros}", tags=["x"])
        return text, {**artifact, "seal": "no"}

    agent(NO_RULES, [pay], calling(("pay", {"euros": 5})), on_event=events.append).invoke(ask())
    assert [(one.stage, one.outcome, one.kind) for one in events] == [
        ("call", "allowed", ""),
        ("result", "denied", "withheld"),
    ]
    assert "SECRET" not in repr(events)
