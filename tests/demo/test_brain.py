"""The offline model says what the tools returned, and nothing else."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool

from langchain_sequrity.demo.brain import Step, next_step
from langchain_sequrity.demo.packages import TABLES
from langchain_sequrity.demo.reports import ReportFolder
from langchain_sequrity.demo.sql import ReadOnlyDatabase
from langchain_sequrity.demo.tools import make_tools

MOST_STEPS = 10


def converse(question: str, tools: Sequence[BaseTool]) -> tuple[Step, list[AnyMessage]]:
    """Run the brain with tools until it answers."""
    by_name = {tool.name: tool for tool in tools}
    messages: list[AnyMessage] = [SystemMessage("S"), HumanMessage(question)]
    for turn in range(MOST_STEPS):
        step = next_step(messages)
        if not step.calls:
            return step, messages
        calls = [
            {"name": name, "args": arguments, "id": f"{turn}-{i}", "type": "tool_call"}
            for i, (name, arguments) in enumerate(step.calls)
        ]
        messages.append(AIMessage(step.text, tool_calls=calls))
        messages += [by_name[str(call["name"])].invoke(call) for call in calls]
    pytest.fail("The brain did not come to an end.")


@pytest.fixture
def tools(database: ReadOnlyDatabase, reports: ReportFolder) -> list[BaseTool]:
    return make_tools(database, reports)


def test_it_looks_at_the_tables_then_queries_then_reports(tools: list[BaseTool]) -> None:
    _, messages = converse("Which packages are here?", tools)
    asked = [
        [call["name"] for call in message.tool_calls]
        for message in messages
        if isinstance(message, AIMessage)
    ]
    assert asked == [["describe_tables"], ["query_packages"] * 5, ["write_report"]]


def test_the_answer_is_made_of_the_results(tools: list[BaseTool], reports: ReportFolder) -> None:
    answer, _ = converse("Which packages are here?", tools)
    assert answer.text == (
        "Installed: 3 packages, 1.5 MB (1,540,000 bytes) in all. "
        "The largest is anchor 1.0 with 1.5 MB (1,500,000 bytes). "
        "The most frequent licence is MIT (2 packages). "
        "The most required is rope (by 2 packages). "
        "The report is in packages-report.md."
    )
    [report] = reports.written
    text = report.read_text(encoding="utf-8")
    assert "| anchor | 1.0 | 1,500,000 | MIT |" in text
    assert "| sail | 0.3 |  |  |" in text


@pytest.mark.parametrize(
    ("question", "titles"),
    [
        ("How big are they?", ["Largest packages"]),
        ("Licenses, please.", ["Licences as stated"]),
        ("What depends on what?", ["Most required packages"]),
        ("Tell me about Rope and SAIL", ["Largest packages", "Licences as stated", "Most required packages", "Packages named in the question"]),
        ("What is the licence of sail?", ["Licences as stated", "Packages named in the question"]),
    ],
)  # fmt: skip
def test_the_question_decides_what_is_reported(
    tools: list[BaseTool], reports: ReportFolder, question: str, titles: list[str]
) -> None:
    converse(question, tools)
    [report] = reports.written
    lines = report.read_text(encoding="utf-8").splitlines()
    assert [line[3:] for line in lines if line.startswith("## ")] == ["All packages", *titles]


def test_packages_named_in_the_question_are_described(tools: list[BaseTool]) -> None:
    answer, _ = converse("What licence has SAIL?", tools)
    assert "sail 0.3: an unknown size, licence not stated, dependencies: 1." in answer.text


def test_cells_cannot_break_the_table(tools: list[BaseTool], reports: ReportFolder) -> None:
    converse("Tell me about sail", tools)
    text = reports.written[0].read_text(encoding="utf-8")
    assert r"| Moves \| ships. |" in text


def test_a_taken_name_leads_to_another_one(tools: list[BaseTool], reports: ReportFolder) -> None:
    converse("How big?", tools)
    answer, _ = converse("How big?", tools)
    assert len({path.name for path in reports.written}) == 2
    assert answer.text.endswith(f"The report is in {reports.written[1].name}.")


def test_a_report_that_cannot_be_written_is_said(
    database: ReadOnlyDatabase, reports: ReportFolder
) -> None:
    tiny = ReportFolder(reports.folder, max_bytes=1)
    answer, _ = converse("How big?", make_tools(database, tiny))
    assert "There is no report: The report has" in answer.text


def test_an_earlier_question_does_not_count(tools: list[BaseTool]) -> None:
    _, messages = converse("How big?", tools)
    step = next_step([*messages, AIMessage("Done."), HumanMessage("Which licences?")])
    assert [name for name, _ in step.calls] == ["describe_tables"]


def test_errors_of_tools_are_passed_on() -> None:
    call = {"name": "describe_tables", "args": {}, "id": "1", "type": "tool_call"}
    messages: list[AnyMessage] = [
        HumanMessage("How big?"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("{}", tool_call_id="1"),
    ]
    queries = next_step(messages).calls
    calls = [
        {"name": name, "args": arguments, "id": str(i), "type": "tool_call"}
        for i, (name, arguments) in enumerate(queries, start=2)
    ]
    messages.append(AIMessage("", tool_calls=calls))
    failures = ["Error: no such tool", json.dumps({"error": "too slow"}), "[1]"]
    messages += [
        ToolMessage(failure, tool_call_id=str(call["id"]))
        for call, failure in zip(calls, failures, strict=True)
    ]
    [(name, arguments)] = next_step(messages).calls
    assert name == "write_report"
    assert "All packages: the query failed. Error: no such tool" in arguments["markdown"]
    assert "Largest packages: the query failed. too slow" in arguments["markdown"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.text())
def test_every_question_makes_only_queries_that_are_allowed(
    database: ReadOnlyDatabase, question: str
) -> None:
    call = {"name": "describe_tables", "args": {}, "id": "1", "type": "tool_call"}
    step = next_step([
        HumanMessage(question),
        AIMessage("", tool_calls=[call]),
        ToolMessage(json.dumps({"tables": TABLES}), tool_call_id="1"),
    ])  # fmt: skip
    for name, arguments in step.calls:
        assert name == "query_packages"
        database.query(arguments["sql"])
