"""The tools of the agent and the graph: query, write a report, read a document, send a mail."""

import re
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool, ToolException

from examples.demo import sql as sandbox
from examples.demo.packages import SCHEMA
from examples.demo.story import Story
from langchain_sequrity.display import plain

_DOCUMENTS = Path(__file__).with_name("documents")
_ADDRESS = re.compile(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")


class Desk:
    """The tools and their files.

    A `ToolException` goes to the model, which can try again. Any other exception ends the run.

    Args:
        user: The name of the user of the tools in the story.
        database: The file with the packages.
        folder: Where the report and the mails are written; it must exist.
        story: Prints what the tools do.
    """

    def __init__(self, user: str, database: Path, folder: Path, story: Story) -> None:
        self.user = user
        self._database = database
        self._folder = folder
        self._story = story
        self._report = folder / "report.md"
        self.files: list[Path] = []

    def query_packages(self, sql: str) -> list[dict[str, Any]]:
        """Run one SQLite SELECT on the table of installed packages."""
        rows = sandbox.query(self._database, sql)
        found = "; ".join(" ".join(map(str, row.values())) for row in rows)
        self._tell(f"queries the installed packages and finds: {found or 'none'}")
        return rows

    def write_report(self, markdown: str) -> str:
        """Write the report; it replaces an earlier one."""
        # Someone may show the file in a terminal, so control characters are written as escapes.
        text = plain(markdown, limit=len(markdown), lines=True)
        self._report.write_text(text, encoding="utf-8")
        self.files.append(self._report)
        self._tell(f"writes {self._report.name}")
        return "Written."

    def read_report(self) -> str:
        """Read the report."""
        if not self._report.exists():
            msg = "There is no report yet. Write it first."
            raise ToolException(msg)
        return self._report.read_text(encoding="utf-8")

    def read_document(self, name: str) -> str:
        """Read a document by its name, such as `suppliers.txt`."""
        documents = {path.name: path for path in _DOCUMENTS.iterdir()}
        if name not in documents:
            msg = f"There is no such document. Available: {', '.join(documents)}."
            raise ToolException(msg)
        text = documents[name].read_text(encoding="utf-8")
        self._tell(f"reads {name}, which contains:")
        self._story.quote(self.user, text)
        return text

    def send_mail(self, to: str, subject: str, body: str) -> str:
        """Send a mail to one address: in this demo, write it into a file."""
        if not _ADDRESS.fullmatch(to) or not subject.isprintable():
            msg = "`to` must be one plain mail address, and `subject` one line."
            raise ToolException(msg)
        mail = EmailMessage(policy=SMTP)
        mail["From"], mail["To"], mail["Subject"] = "agent@example.com", to, subject
        mail.set_content(body)
        path = self._next_mail()
        path.write_bytes(mail.as_bytes())
        self.files.append(path)
        self._tell(f"mails the report to {to}")
        return f"Sent to {to}."

    def tools(self) -> list[BaseTool]:
        """The tools for a chat model."""
        functions = (self.write_report, self.read_report, self.read_document, self.send_mail)
        query = f"Run one SQLite SELECT on this table:\n{SCHEMA}"
        return [_tool(self.query_packages, query), *map(_tool, functions)]

    def _next_mail(self) -> Path:
        number = 1
        while (path := self._folder / f"mail-{number}.eml").exists():
            number += 1
        return path

    def _tell(self, text: str) -> None:
        self._story.tell(self.user, text)


def _tool(function: Any, description: str | None = None) -> BaseTool:
    return StructuredTool.from_function(
        function,
        description=description,
        handle_tool_error=True,
        handle_validation_error=True,
    )
