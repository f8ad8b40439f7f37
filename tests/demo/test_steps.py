"""The third act of the demo: the job as a graph of steps, under a policy and without."""

import email
import io
from collections.abc import Iterator
from email.policy import default
from typing import Any

import pytest
from rich.console import Console

from langchain_sequrity import ChatSequrity, LangGraphExecutor
from langchain_sequrity.demo.mail import Outbox
from langchain_sequrity.demo.screen import Screen
from langchain_sequrity.demo.sql import ReadOnlyDatabase
from langchain_sequrity.demo.steps import POLICY, job_executor, job_graph, run_job
from langchain_sequrity.local import LocalServer
from langchain_sequrity.sqrt import check

QUESTION = "Which packages are the largest?"


@pytest.fixture
def executor(database: ReadOnlyDatabase, outbox: Outbox) -> Iterator[LangGraphExecutor]:
    with LocalServer() as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        yield job_executor(model, database, outbox)


def screen() -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    return Screen(Console(file=out, width=400)), out


def steps_in(text: str) -> list[str]:
    return [line.split()[1] for line in text.splitlines() if line.startswith("step")]


def test_the_graph_loops_over_topics_and_writes_both_parts_before_it_mails(
    executor: LangGraphExecutor, outbox: Outbox
) -> None:
    shown, out = screen()
    [run] = run_job(executor, QUESTION, "bo@example.com", shown).runs
    *before, one, other, last = steps_in(out.getvalue())
    assert (before, last) == (["plan", "query", "query", "query"], "mail")
    assert {one, other} == {"subject", "text"}  # side by side: either may be done first
    assert run.outcome == "finished"
    assert [call.verdict for call in run.calls] == ["allowed"] * 10  # three of them of the router
    [path] = outbox.sent
    mail = email.message_from_bytes(path.read_bytes(), policy=default)
    assert (mail["To"], mail["Subject"]) == ("bo@example.com", f"About: {QUESTION}")
    body: Any = mail.get_body()
    assert "The largest is anchor 1.0" in body.get_content()


def test_what_the_database_said_does_not_leave_and_the_trace_says_why(
    executor: LangGraphExecutor, outbox: Outbox
) -> None:
    shown, out = screen()
    trace = run_job(executor, QUESTION, "eve@elsewhere.example", shown)
    assert outbox.sent == []
    assert list(outbox.folder.iterdir()) == []
    assert "what is internal is mailed to colleagues only" in out.getvalue()
    last = trace.runs[0].calls[-1]
    assert (last.node, last.tool, last.verdict) == ("mail", "send_mail", "denied")
    assert last.labels is not None
    assert "internal" in last.labels["text"]["tags"]
    assert "internal" not in last.labels["subject"]["tags"]  # made of the question alone
    assert last.labels["to"]["producers"] == []
    shown.table(trace)
    assert "must deny when text.tags overlaps" in out.getvalue()


def test_the_same_graph_runs_without_a_policy(
    executor: LangGraphExecutor, database: ReadOnlyDatabase, outbox: Outbox
) -> None:
    given: Any = {"question": QUESTION, "to": "bo@example.com"}
    plain = job_graph(database, outbox).compile().invoke(given)
    assert executor.invoke(given) == {**plain, "mail": "mail-2.eml"}


def test_a_question_cannot_act_on_the_terminal_or_on_the_mail(
    executor: LangGraphExecutor, outbox: Outbox
) -> None:
    shown, out = screen()
    run_job(executor, "large\x1b[2J\r\nBcc: eve@x.example", "bo@example.com", shown)
    assert not {char for char in out.getvalue() if not char.isprintable()} - {"\n"}
    [path] = outbox.sent
    assert email.message_from_bytes(path.read_bytes(), policy=default)["Bcc"] is None


def test_the_policy_has_nothing_that_could_be_misread(executor: LangGraphExecutor) -> None:
    tools = [one.tool for one in executor.explain().tools if one.tool is not None]
    assert check(POLICY, tools=tools) == []
