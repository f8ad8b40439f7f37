"""The agent's loop, against a local server with other scripts than the demo's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage

from langchain_sequrity import ChatSequrity
from langchain_sequrity.demo.agent import build_agent
from langchain_sequrity.demo.reports import ReportFolder
from langchain_sequrity.demo.sql import ReadOnlyDatabase
from langchain_sequrity.demo.tools import make_tools
from langchain_sequrity.local import LocalServer

Calls = Sequence[tuple[str, Mapping[str, Any]]]


def results_of(calls: Calls, database: ReadOnlyDatabase, reports: ReportFolder) -> list[str]:
    """What a model gets back for its calls."""
    tool_calls = [{"name": name, "arguments": arguments} for name, arguments in calls]
    script: list[dict[str, Any]] = [
        {"when": {"tool_result": ""}, "text": "Done."},
        {"tool_calls": tool_calls},
    ]
    with LocalServer(script=script) as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        agent = build_agent(model, make_tools(database, reports))
        state = agent.invoke({"messages": [HumanMessage("Go.")]})
        model.close()
    assert state["messages"][-1].text == "Done."
    return [message.text for message in state["messages"] if isinstance(message, ToolMessage)]


def test_several_calls_of_one_reply_are_all_answered_in_order(
    database: ReadOnlyDatabase, reports: ReportFolder
) -> None:
    calls = [("query_packages", {"sql": f"SELECT {i} AS n"}) for i in range(4)]
    results = results_of(calls, database, reports)
    assert results == [
        f'{{"columns": ["n"], "rows": [[{i}]], "truncated": false}}' for i in range(4)
    ]


def test_tables_are_described_with_their_columns_and_row_counts(
    database: ReadOnlyDatabase, reports: ReportFolder
) -> None:
    [result] = results_of([("describe_tables", {})], database, reports)
    assert "CREATE TABLE packages" in result
    assert '"rows": {"packages": 3, "dependencies": 3}' in result


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("query_packages", {"sql": "ATTACH 'evil.sqlite' AS evil"}, "Only a plain, non-recursive SELECT"),
        ("query_packages", {"sql": "SELECT weight FROM packages"}, "no such column: weight"),
        ("query_packages", {"sql": ["SELECT 1"]}, "valid string"),
        ("query_packages", {}, "required"),
        ("write_report", {"file_name": "../evil.md", "markdown": "x"}, "is no file name"),
        ("write_report", {"file_name": "evil.md"}, "required"),
        ("run_shell", {"command": "id"}, "not a valid tool"),
    ],
)  # fmt: skip
def test_a_mistake_comes_back_as_a_text_that_helps(
    database: ReadOnlyDatabase,
    reports: ReportFolder,
    tmp_path: Path,
    name: str,
    arguments: dict[str, Any],
    expected: str,
) -> None:
    [result] = results_of([(name, arguments)], database, reports)
    assert expected in result
    assert not list(tmp_path.rglob("evil*"))
