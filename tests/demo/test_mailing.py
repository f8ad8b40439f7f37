"""The second act of the demo: what a policy does to a mail, and what is written."""

import email
import io
from collections.abc import Iterator
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from langchain_sequrity import ChatSequrity
from langchain_sequrity.demo.brain import offline_script
from langchain_sequrity.demo.mail import MailRefused, Outbox
from langchain_sequrity.demo.mailing import (
    POLICY,
    mail_report,
    make_mail_tools,
    request_for,
    under_policy,
)
from langchain_sequrity.demo.options import DemoOptions
from langchain_sequrity.demo.reports import ReportFolder
from langchain_sequrity.demo.run import run_demo
from langchain_sequrity.demo.screen import Screen
from langchain_sequrity.local import LocalServer
from langchain_sequrity.sqrt import check

REPORT = "# Packages\n\nThere are three.\n"


@pytest.fixture
def model() -> Iterator[ChatSequrity]:
    with LocalServer(script=offline_script()) as server:
        yield under_policy(ChatSequrity("offline/brain", base_url=server.base_url))


def screen() -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    return Screen(Console(file=out, width=400)), out


def test_an_internal_report_leaves_for_colleagues_only(
    model: ChatSequrity, reports: ReportFolder, outbox: Outbox
) -> None:
    report = reports.write("packages.md", REPORT)
    tools = make_mail_tools(reports, outbox)
    shown, out = screen()
    assert mail_report(model, tools, request_for(report, "eve@elsewhere.example"), shown) is None
    assert outbox.sent == []
    assert list(outbox.folder.iterdir()) == []
    text = out.getvalue()
    assert "report = read_report(file_name='packages.md')" in text  # the program
    assert 'send_mail  to="eve@elsewhere.example"' in text  # the call
    assert "body: producers {}  consumers {*}  tags {__non_executable, internal}" in text
    assert 'must deny when body.tags overlaps {"internal"} and not to.value in colleagues' in text
    assert "what is internal is mailed to colleagues only" in text

    answer = mail_report(model, tools, request_for(report, "bo@example.com"), shown)
    assert answer is not None
    assert answer.text == "The report went to bo@example.com."
    [path] = outbox.sent
    mail = email.message_from_bytes(path.read_bytes(), policy=default)
    assert mail["To"] == "bo@example.com"
    body: Any = mail.get_body()
    assert body.get_content().replace("\r\n", "\n") == REPORT


def test_an_address_that_only_looks_like_a_colleagues_is_denied(
    model: ChatSequrity, reports: ReportFolder, outbox: Outbox
) -> None:
    report = reports.write("packages.md", REPORT)
    tools = make_mail_tools(reports, outbox)
    for address in ("eve@example.com.elsewhere.example", "eve@notexample.com", "@example.com@x.y"):
        assert mail_report(model, tools, request_for(report, address), screen()[0]) is None
    assert outbox.sent == []


def test_the_policy_has_nothing_that_could_be_misread() -> None:
    assert [finding for finding in check(POLICY) if finding.severity == "error"] == []


@pytest.mark.parametrize(
    ("to", "subject"),
    [
        ("a@example.com, b@example.com", "x"),
        ("a@example.com\nBcc: b@example.com", "x"),
        ("A <a@example.com>", "x"),
        ("", "x"),
        ("a@example", "x"),
        ("a@example.com", "x\nBcc: b@example.com"),
        ("a@example.com", "x" * 300),
        ("a@example.com", "\u202ex"),
    ],
)
def test_a_mail_has_one_plain_address_and_one_subject_line(
    outbox: Outbox, to: str, subject: str
) -> None:
    with pytest.raises(MailRefused, match=r"address|subject"):
        outbox.send(to, subject, "text")
    assert list(outbox.folder.iterdir()) == []


def test_mails_never_replace_each_other(outbox: Outbox) -> None:
    assert outbox.send("a@example.com", "x", "one") != outbox.send("a@example.com", "x", "two")
    with pytest.raises(MailRefused, match="longer"):
        outbox.send("a@example.com", "x", "x" * 2_000_000)


def test_each_act_of_the_demo_ends_with_one_mail_denied_and_one_written(tmp_path: Path) -> None:
    out = io.StringIO()
    run_demo(DemoOptions(folder=tmp_path), Console(file=out, width=400))
    outbox = tmp_path / "outbox"
    assert {path.name for path in outbox.iterdir()} == {"mail-1.eml", "mail-2.eml"}
    mails = [line for line in out.getvalue().splitlines() if line.startswith("mail     ")]
    none = "mail     none to press@elsewhere.example"
    assert mails == [
        none, f"mail     {outbox / 'mail-1.eml'}", f"mail     {outbox / 'mail-2.eml'}", none,
    ]  # fmt: skip
