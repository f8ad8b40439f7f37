"""The offline model: it plans queries for a question and words what they returned.

It has no figures of its own. Each step is a function of the conversation: which results are there,
and therefore what is missing.
"""

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call

from langchain_sequrity.demo.packages import normalize
from langchain_sequrity.display import plain
from langchain_sequrity.local import Script
from langchain_sequrity.wire.exchange import ChatRequest

Row = Mapping[str, Any]

_REPORT = "packages-report"
_MOST_NAMES = 20
_WORD = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")
_MEGABYTE = 1_000_000


class Step(NamedTuple):
    """What the model does next.

    Attributes:
        text: What it says.
        calls: Names and arguments of the tools it calls; none with the final answer.
    """

    text: str
    calls: list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Topic:
    """Something to find out.

    Attributes:
        title: What it is called in the report.
        words: Finds it in a question.
        sql: The query that finds it out.
        sentence: Words the rows of the query, of which there is at least one.
    """

    title: str
    words: re.Pattern[str]
    sql: str
    sentence: Callable[[Sequence[Row]], str]


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


# Wording


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _size(size: int | None) -> str:
    return "an unknown size" if size is None else f"{size / _MEGABYTE:,.1f} MB ({size:,} bytes)"


def _total(rows: Sequence[Row]) -> str:
    [row] = rows
    return f"Installed: {_count(row['packages'], 'package')}, {_size(row['size_bytes'])} in all."


def _largest(rows: Sequence[Row]) -> str:
    row = rows[0]
    return f"The largest is {row['name']} {row['version']} with {_size(row['size_bytes'])}."


def _licenses(rows: Sequence[Row]) -> str:
    row = rows[0]
    return f"The most frequent licence is {row['license']} ({_count(row['packages'], 'package')})."


def _required(rows: Sequence[Row]) -> str:
    row = rows[0]
    return f"{_count(row['required_by'], 'package')} require {row['name']}, the most required one."


def _named(rows: Sequence[Row]) -> str:
    return " ".join(
        f"{row['name']} {row['version']}: {_size(row['size_bytes'])}, licence "
        f"{row['license'] or 'not stated'}, dependencies: {row['dependencies']}."
        for row in rows
    )


# Planning

_TOTAL = Topic(
    "All packages",
    re.compile(""),
    "SELECT count(*) AS packages, sum(size_bytes) AS size_bytes, "
    "count(*) - count(license) AS without_license FROM packages",
    _total,
)
_TOPICS = (
    Topic(
        "Largest packages",
        re.compile("larg|big|size|space|disk|heav"),
        "SELECT name, version, size_bytes, license FROM packages "
        "ORDER BY size_bytes DESC, name LIMIT 10",
        _largest,
    ),
    Topic(
        "Licences as stated",
        re.compile("licen[cs]e"),
        "SELECT coalesce(license, 'none stated') AS license, count(*) AS packages FROM packages "
        "GROUP BY license ORDER BY packages DESC, license LIMIT 10",
        _licenses,
    ),
    Topic(
        "Most required packages",
        re.compile("depend|requir|need"),
        "SELECT requires AS name, count(*) AS required_by FROM dependencies WHERE optional = 0 "
        "GROUP BY requires ORDER BY required_by DESC, name LIMIT 10",
        _required,
    ),
)


def _named_in(question: str) -> Topic:
    words = list(dict.fromkeys(normalize(word) for word in _WORD.findall(question)))
    names = ", ".join(f"'{word}'" for word in words[:_MOST_NAMES])  # no quote is in the alphabet
    return Topic(
        "Packages named in the question",
        re.compile(""),
        "SELECT name, version, size_bytes, license, dependencies, summary FROM packages "  # noqa: S608 - checked by _WORD
        f"WHERE name IN ({names}) ORDER BY name",
        _named,
    )


def _plan(question: str) -> list[Topic]:
    asked = [topic for topic in _TOPICS if topic.words.search(question)]
    return [_TOTAL, *(asked or _TOPICS), _named_in(question)]


# Steps


def offline_script() -> Script:
    """Make the script for a local server whose model takes `next_step` at each request."""
    return Script([{"when": {"role": "chat"}, "answer": _answer}], name="the demo's script")


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
    topics = _plan(question.lower())
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
    return "" if value is None else plain(str(value), limit=120).replace("|", r"\|")
