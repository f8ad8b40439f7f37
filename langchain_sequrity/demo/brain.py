"""The offline model: it plans queries for a question and words what they returned.

It has no figures of its own. Each step is a function of the conversation: which results are there,
and therefore what is missing.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call

from langchain_sequrity.demo.topics import Row, Topic, topics_of
from langchain_sequrity.display import plain
from langchain_sequrity.local import Script
from langchain_sequrity.wire.exchange import ChatRequest

_REPORT = "packages-report"
_LONGEST_CELL = 120


class Step(NamedTuple):
    """What the model does next.

    Attributes:
        text: What it says.
        calls: Names and arguments of the tools it calls; none with the final answer.
    """

    text: str
    calls: list[tuple[str, dict[str, Any]]]


class _Done(NamedTuple):
    """One tool call of the conversation, and its result."""

    name: str
    arguments: dict[str, Any]
    result: dict[str, Any]


class _Finding(NamedTuple):
    """What became of a topic."""

    topic: Topic
    rows: list[Row]
    error: str | None


def offline_script() -> Script:
    """Make the script for a local server whose model takes `next_step` at each request."""
    return Script(
        [
            {"when": {"role": "chat"}, "answer": _answer},
            {"when": {"role": "planner"}, "answer": _program},
        ],
        name="the demo's script",
    )


def _program(request: ChatRequest) -> str:
    """The program that mails a report, planned from the user's words alone."""
    words = _read_text(request).rstrip(".").split()
    report = next((word for word in words if word.endswith(".md")), "")
    to = next((word for word in words if "@" in word), "")
    return (
        f"report = read_report(file_name={report!r})\n"
        f"send_mail(to={to!r}, subject='Installed packages', body=report)\n"
        f"final_return_value = 'The report went to {to}.'\n"
    )


def _read_text(request: ChatRequest) -> str:
    users = [message for message in request.messages if isinstance(message, HumanMessage)]
    return users[-1].text


def _answer(request: ChatRequest) -> AIMessage:
    step = next_step(request.messages)
    calls = [
        tool_call(name=name, args=arguments, id=f"call-{number}")
        for number, (name, arguments) in enumerate(step.calls)
    ]
    return AIMessage(step.text, tool_calls=calls)


def next_step(messages: Sequence[BaseMessage]) -> Step:
    """Decide what to do, given the conversation so far.

    Args:
        messages: The conversation; the last question of the user in it counts.

    Returns:
        Tool calls for what is missing, or the final answer.
    """
    question, done = _read(messages)
    if not any(one.name == "describe_tables" for one in done):
        return Step("I look at the tables first.", [("describe_tables", {})])
    results = {one.arguments.get("sql"): one.result for one in done if one.name == "query_packages"}
    topics = topics_of(question)
    if missing := [topic for topic in topics if topic.sql not in results]:
        text = f"Queries to run: {len(missing)}."
        return Step(text, [("query_packages", {"sql": topic.sql}) for topic in missing])
    findings = [_finding(topic, results[topic.sql]) for topic in topics]
    return _report(question, findings, [one for one in done if one.name == "write_report"])


def _read(messages: Sequence[BaseMessage]) -> tuple[str, list[_Done]]:
    start = max(i for i, message in enumerate(messages) if isinstance(message, HumanMessage))
    calls = {
        call["id"]: call
        for message in messages[start:]
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    }
    return messages[start].text, [
        _Done(call["name"], call["args"], _parse(message.text))
        for message in messages[start:]
        if isinstance(message, ToolMessage) and (call := calls.get(message.tool_call_id))
    ]


def _parse(text: str) -> dict[str, Any]:
    try:
        result = json.loads(text)
    except ValueError:
        return {"error": text}  # ToolNode reports calls that it could not make as plain text
    return result if isinstance(result, dict) else {"error": text}


def _finding(topic: Topic, result: Mapping[str, Any]) -> _Finding:
    columns = result.get("columns", [])
    rows: list[Row] = [dict(zip(columns, row, strict=True)) for row in result.get("rows", [])]
    return _Finding(topic, rows, result.get("error"))


# The report


def _report(question: str, findings: Sequence[_Finding], reports: Sequence[_Done]) -> Step:
    if not reports:
        return _write(f"{_REPORT}.md", question, findings)
    last = reports[-1].result
    if "error" not in last:
        return Step(f"{_summary(findings)} The report is in {last['file_name']}.", [])
    if len(reports) == 1:  # the name is taken: once more, with one that is not
        return _write(f"{_REPORT}-{secrets.token_hex(4)}.md", question, findings)
    return Step(f"{_summary(findings)} There is no report: {last['error']}", [])


def _write(name: str, question: str, findings: Sequence[_Finding]) -> Step:
    arguments = {"file_name": name, "markdown": _markdown(question, findings)}
    return Step("I write the report.", [("write_report", arguments)])


def _summary(findings: Sequence[_Finding]) -> str:
    return " ".join(_sentence(finding) for finding in findings if finding.rows or finding.error)


def _sentence(finding: _Finding) -> str:
    if finding.error is not None:
        return f"{finding.topic.title}: the query failed. {finding.error}"
    return finding.topic.sentence(finding.rows)


def _markdown(question: str, findings: Sequence[_Finding]) -> str:
    parts = ["# Installed Python packages", f"> {plain(question)}"]
    for finding in findings:
        if finding.rows or finding.error:
            parts += [f"## {finding.topic.title}", _sentence(finding)]
        if finding.rows:
            parts.append(_table(finding.rows))
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Row]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else plain(str(value), limit=_LONGEST_CELL).replace("|", r"\|")
