"""The example policies for AgentDojo's tools, without the package `agentdojo`."""

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import pytest

from langchain_sequrity.sqrt import check, coverage, parse, simulate
from langchain_sequrity.sqrt.nodes import ToolBlock, tools_of
from langchain_sequrity.testing import assert_allowed, assert_denied
from tests.local.agentdojo_drafts import suites

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "policies" / "agentdojo"
TOOLS = {suite.name: suite.tools for suite in suites()}

SOURCES = {
    "workspace": ("search_emails", {"query": "bill", "sender": None}),
    "banking": ("read_file", {"file_path": "bill.txt"}),
    "slack": ("read_channel_messages", {"channel": "general"}),
    "travel": ("get_rating_reviews_for_hotels", {"hotel_names": ["Sea View"]}),
}
MAIL = {"recipients": ["ana@work.example"], "subject": "Hi", "body": "Hi", "attachments": None}
EVENT = {"title": "Talk", "start_time": "2027-01-02 10:00", "end_time": "2027-01-02 11:00"}
MEETING = {**EVENT, "description": "", "participants": ["ana@work.example"], "location": None}
PAYMENT = {"recipient": "GB29", "amount": 5.0, "subject": "Rent", "date": "2027-01-02"}
CHANGE = {"id": 7, "recipient": None, "amount": 5.0, "subject": None, "date": None}

# suite, tool, arguments, those made of what others wrote, whether this is denied
CASES: list[tuple[str, str, dict[str, Any], list[str], bool]] = [
    ("workspace", "send_email", {**MAIL, "cc": None, "bcc": None}, ["subject", "body"], False),
    ("workspace", "send_email", {**MAIL, "cc": None, "bcc": None}, ["recipients"], True),
    ("workspace", "send_email", {**MAIL, "cc": ["b"], "bcc": None}, ["cc"], True),
    ("workspace", "create_calendar_event", MEETING, ["start_time", "location"], False),
    ("workspace", "create_calendar_event", MEETING, ["participants"], True),
    ("workspace", "create_calendar_event", MEETING, ["start_time", "title"], True),
    ("workspace", "add_calendar_event_participants", {"event_id": "1", "participants": ["a"]}, ["event_id"], False),
    ("workspace", "add_calendar_event_participants", {"event_id": "1", "participants": ["a"]}, ["participants"], True),
    ("workspace", "reschedule_calendar_event", {"event_id": "1", "new_start_time": "t", "new_end_time": "t"}, ["event_id"], False),
    ("workspace", "reschedule_calendar_event", {"event_id": "1", "new_start_time": "t", "new_end_time": "t"}, ["new_start_time"], True),
    ("workspace", "share_file", {"file_id": "1", "email": "a", "permission": "r"}, ["file_id"], False),
    ("workspace", "share_file", {"file_id": "1", "email": "a", "permission": "r"}, ["email"], True),
    ("workspace", "share_file", {"file_id": "1", "email": "a", "permission": "r"}, ["permission"], True),
    ("workspace", "create_file", {"filename": "f", "content": "c"}, ["filename", "content"], False),
    ("workspace", "delete_file", {"file_id": "1"}, [], False),
    ("workspace", "delete_file", {"file_id": "1"}, ["file_id"], True),
    ("banking", "send_money", PAYMENT, ["amount", "subject"], False),
    ("banking", "send_money", PAYMENT, ["recipient"], True),
    ("banking", "schedule_transaction", {**PAYMENT, "recurring": True}, ["recipient"], True),
    ("banking", "update_scheduled_transaction", {**CHANGE, "recurring": None}, ["id", "amount"], False),
    ("banking", "update_password", {"password": "p"}, [], False),
    ("banking", "update_password", {"password": "p"}, ["password"], True),
    ("banking", "update_user_info", {"first_name": None, "last_name": None, "street": "s", "city": "c"}, ["street"], False),
    ("slack", "send_direct_message", {"recipient": "Ana", "body": "Hi"}, ["body"], False),
    ("slack", "send_direct_message", {"recipient": "Ana", "body": "Hi"}, ["recipient"], True),
    ("slack", "send_channel_message", {"channel": "general", "body": "Hi"}, ["body"], False),
    ("slack", "send_channel_message", {"channel": "general", "body": "Hi"}, ["channel"], True),
    ("slack", "invite_user_to_slack", {"user": "Bo", "user_email": "b"}, [], False),
    ("slack", "invite_user_to_slack", {"user": "Bo", "user_email": "b"}, ["user_email"], True),
    ("slack", "add_user_to_channel", {"user": "Bo", "channel": "general"}, ["channel"], False),
    ("slack", "add_user_to_channel", {"user": "Bo", "channel": "general"}, ["user"], True),
    ("slack", "get_webpage", {"url": "site.example"}, [], False),
    ("slack", "get_webpage", {"url": "site.example"}, ["url"], True),
    ("slack", "post_webpage", {"url": "site.example", "content": "c"}, ["content"], False),
    ("travel", "reserve_hotel", {"hotel": "Sea View", "start_day": "d", "end_day": "d"}, [], False),
    ("travel", "reserve_hotel", {"hotel": "Sea View", "start_day": "d", "end_day": "d"}, ["hotel"], True),
    ("travel", "send_email", {**MAIL, "cc": None, "bcc": None}, ["subject", "body"], False),
    ("travel", "send_email", {**MAIL, "cc": None, "bcc": None}, ["recipients"], True),
    ("travel", "create_calendar_event", MEETING, ["title"], False),
    ("travel", "create_calendar_event", MEETING, ["participants"], True),
    ("travel", "create_calendar_event", MEETING, ["title", "start_time"], True),
    ("travel", "cancel_calendar_event", {"event_id": "1"}, [], False),
    ("travel", "cancel_calendar_event", {"event_id": "1"}, ["event_id"], True),
]  # fmt: skip


@pytest.mark.parametrize("suite", TOOLS)
def test_an_addition_has_rules_and_labels_of_fields_of_the_suite(suite: str) -> None:
    policies = [(FOLDER / f"{suite}{end}.sqrt").read_text("utf-8") for end in ("", "_fields")]
    assert check("".join(policies), TOOLS[suite], mode="dual-llm") == []
    for tool in tools_of(parse(policies[1])):
        is_rule = isinstance(tool, ToolBlock) and bool(tool.checks)
        assert is_rule or "/" in tool.tool.text.raw


def calls(suite: str, tool: str, arguments: dict[str, Any], foreign: list[str]) -> list[Any]:
    """A call that reads what others wrote, and one that uses it in some arguments."""
    source, query = SOURCES[suite]
    return [
        {"tool": source, "id": "source", "arguments": query, "result": "text", "session": tool},
        {
            "tool": tool,
            "arguments": arguments,
            "uses": {name: ["source"] for name in foreign},
            "session": tool,
        },
    ]


@pytest.mark.parametrize(("suite", "tool", "arguments", "foreign", "is_denied"), CASES)
def test_what_others_wrote_may_be_content_and_chooses_no_target(
    suite: str, tool: str, arguments: dict[str, Any], foreign: list[str], is_denied: bool
) -> None:
    policy = FOLDER / f"{suite}.sqrt"
    read, act = simulate(policy, calls(suite, tool, arguments, foreign), tools=TOOLS[suite])
    assert_allowed(read)
    if is_denied:
        assert_denied(act, tool=tool, strength="soft")
    else:
        assert_allowed(act)


@pytest.mark.parametrize(("suite", "tool", "arguments", "foreign"), [case[:4] for case in CASES])
def test_the_strict_addition_keeps_what_others_wrote_from_every_act(
    suite: str, tool: str, arguments: dict[str, Any], foreign: list[str]
) -> None:
    policies = [FOLDER / f"{suite}.sqrt", FOLDER / "strict.sqrt"]
    _, act = simulate(policies, calls(suite, tool, arguments, foreign), tools=TOOLS[suite])
    assert act.allowed == (not foreign)


@pytest.mark.parametrize("suite", TOOLS)
def test_every_rule_is_exercised(suite: str) -> None:
    trials = [
        call | {"session": str(number)}
        for number, (of, tool, arguments, foreign, _) in enumerate(CASES)
        if of == suite
        for call in calls(suite, tool, arguments, foreign)
    ]
    found = coverage(FOLDER / f"{suite}.sqrt", trials, tools=TOOLS[suite])
    rules = [rule for rule in found.missed if rule.kind != "result"]
    assert not rules, str(found)


@pytest.mark.parametrize("suite", TOOLS)
def test_the_policies_have_no_mistakes(suite: str) -> None:
    assert check(FOLDER / f"{suite}.sqrt", TOOLS[suite], mode="dual-llm") == []


def test_policies_that_were_finished_before_the_other_suites_are_unchanged() -> None:
    frozen = tomllib.loads((ROOT / "benchmarks/agentdojo/frozen.toml").read_text("utf-8"))
    files = {name: (FOLDER / f"{name}.sqrt").read_bytes() for name in frozen}
    assert frozen == {name: hashlib.sha256(text).hexdigest() for name, text in files.items()}
