"""The second act: the agent is to mail the report, and a policy says to whom it may.

The model is now a planner that sees the request alone. It writes a program; what the program read
carries the labels that the policy gave it, wherever the program takes it.
"""

import json
from pathlib import Path

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import BaseTool, tool

from langchain_sequrity import ChatSequrity, ConfigHeader, FeaturesHeader, PolicyHeader
from langchain_sequrity.demo.agent import build_agent
from langchain_sequrity.demo.mail import MailRefused, Outbox
from langchain_sequrity.demo.reports import ReportFolder, ReportRefused
from langchain_sequrity.demo.screen import Screen
from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.headers import ResponseFormatConfig

POLICY = """\
let colleagues = {str matching r"^[A-Za-z0-9._+-]+@example[.]com$"};

/// reports are for colleagues
tool "read_report" -> @tags |= {"internal"};

tool "send_mail" {
    /// what is internal is mailed to colleagues only
    must deny when body.tags overlaps {"internal"} and not to.value in colleagues;
    must deny when subject.tags overlaps {"internal"} and not to.value in colleagues;
}
"""
SYSTEM = """\
You mail reports. Read the report with `read_report`, send its text with `send_mail`, and then say
to whom it was sent."""


def make_mail_tools(reports: ReportFolder, outbox: Outbox) -> list[BaseTool]:
    """Make the tools of the second act.

    Args:
        reports: Where reports are.
        outbox: Where mails go.

    Returns:
        `read_report` and `send_mail`.
    """

    @tool
    def read_report(file_name: str) -> str:
        """Read a report.

        Args:
            file_name: Its plain name, such as `packages.md`.
        """
        try:
            return reports.read(file_name)
        except ReportRefused as refusal:
            return json.dumps({"error": str(refusal)})

    @tool
    def send_mail(to: str, subject: str, body: str) -> str:
        """Send a mail.

        Args:
            to: One mail address.
            subject: One line.
            body: The text.
        """
        try:
            path = outbox.send(to, subject, body)
        except MailRefused as refusal:
            return json.dumps({"error": str(refusal)})
        return json.dumps({"sent": path.name})

    return [read_report, send_mail]


def under_policy(model: ChatSequrity) -> ChatSequrity:
    """The same model as a planner whose calls are checked."""
    return model.model_copy(
        update={
            "features": FeaturesHeader.dual_llm(),
            "policy": PolicyHeader.from_sqrt(POLICY),
            "session_config": ConfigHeader(
                response_format=ResponseFormatConfig(
                    include_program=True, include_policy_check_history=True
                )
            ),
        }
    )


def mail_report(
    model: ChatSequrity, tools: list[BaseTool], request: str, screen: Screen
) -> AIMessage | None:
    """Ask the agent to mail the report, and show what comes of it.

    Args:
        model: The model, under policy.
        tools: What it may call.
        request: What it is asked for.
        screen: Where it is shown.

    Returns:
        Its last message, or `None` if it was denied.
    """
    agent = build_agent(model, tools, SYSTEM)
    last: BaseMessage | None = None
    screen.fact("question", request)
    try:
        for update in agent.stream({"messages": [HumanMessage(request)]}, stream_mode="updates"):
            for part in update.values():
                for message in part["messages"]:
                    screen.message(message)
                    last = message
    except PolicyDenied as denied:
        screen.block("program", denied.program or "(not reported)")
        screen.denial(denied)
        return None
    return last if isinstance(last, AIMessage) else None


def request_for(report: Path, address: str) -> str:
    """What the agent is asked for."""
    return f"Mail the report {report.name} to {address}."
