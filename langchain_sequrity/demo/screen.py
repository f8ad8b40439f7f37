"""What is seen of a run: requests, tool calls, results and the model's text, as they come.

Everything that a model, a tool or a server made goes through `langchain_sequrity.display`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from rich.console import Console, RichCast
from rich.text import Text

from langchain_sequrity.display import plain, rich_text
from langchain_sequrity.errors import PolicyDenied

_LABEL_WIDTH = 9
_SHORT = 240
_SESSION_SHOWN = 8
_STYLES = {
    "question": "bold",
    "input": "bold",
    "request": "cyan",
    "reply": "cyan",
    "model": "green",
    "call": "yellow",
    "result": "magenta",
    "answer": "bold green",
    "report": "bold",
    "policy": "bold",
    "program": "green",
    "denied": "bold red",
    "rule": "bold red",
    "labels": "magenta",
    "step": "yellow",
    "mail": "bold",
}


class Screen:
    """Prints a run to a console, one labelled line a fact.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._in_text = False

    def fact(self, label: str, text: str, *, limit: int = _SHORT) -> None:
        """Print one line: a label and text from anywhere."""
        self._end_text()
        self._line(label, plain(text, limit=limit))

    def request(self, method: str, path: str, session_id: str | None, size: int) -> None:
        """Print that a request goes out; `size` is that of its body in bytes."""
        self.fact("request", f"{method} {path}  {_session(session_id)}  {size:,} bytes")

    def reply(self, status: int, session_id: str | None, content_type: str) -> None:
        """Print that the head of a reply came in."""
        kind = content_type.partition(";")[0]
        self.fact("reply", f"{status}  {_session(session_id)}  {kind}")

    def text(self, piece: str) -> None:
        """Print a piece of the model's text as soon as it is there."""
        if not piece:
            return
        if not self._in_text:
            self._console.print(_label("model"), end="")
            self._in_text = True
        indented = piece.replace("\n", "\n" + " " * _LABEL_WIDTH)
        self._console.print(rich_text(indented), end="", soft_wrap=True)

    def message(self, message: BaseMessage) -> None:
        """Print the tool calls or the tool result of a finished message."""
        if isinstance(message, AIMessage):
            for call in message.tool_calls:
                self.fact("call", f"{call['name']}  {_arguments(call['args'])}".rstrip())
        elif isinstance(message, ToolMessage):
            self.fact("result", f"{message.name}  {message.text}")

    def block(self, label: str, text: str, *, limit: int = 4_000) -> None:
        """Print a label and several lines of text from anywhere."""
        self._end_text()
        lines = plain(text.strip("\n"), limit=limit, lines=True).split("\n")
        self._line(label, lines[0])
        for line in lines[1:]:
            self._console.print(rich_text(" " * _LABEL_WIDTH + line), soft_wrap=True)

    def step(self, name: str, written: Mapping[str, Any] | None) -> None:
        """Print a step of a graph that is done, and what it wrote."""
        self.fact("step", f"{name}  {_arguments(written or {})}".rstrip())

    def table(self, table: RichCast) -> None:
        """Print a table of this package's; what is in it was made safe there."""
        self._end_text()
        self._console.print(table)

    def denial(self, error: PolicyDenied) -> None:
        """Print what was denied and why: the call, its labels, and the rule."""
        self.fact("call", f"{error.tool}  {_arguments(error.arguments)}".rstrip())
        for name, meta in error.labels.items():
            self.fact("labels", f"{name}: {_labels(meta)}")
        self.fact("rule", error.rule)
        self.fact("denied", error.reason)

    def outcome(self, answer: str, report: Path | None) -> None:
        """Print what the run led to."""
        self._end_text()
        self._console.print()
        self._line("report", plain(str(report)) if report else "none was written")
        self._console.print(_label("answer"), end="")
        self._console.print(rich_text(answer, limit=20_000), soft_wrap=True)

    def pause(self) -> None:
        """Print an empty line."""
        self._end_text()
        self._console.print()

    def hints(self, *lines: str) -> None:
        """Print what to do next, apart from the rest."""
        self._console.print()
        for line in lines:
            self._console.print(rich_text(line, style="dim"), soft_wrap=True)

    def _line(self, label: str, text: str) -> None:
        # One line stays one line, however long: it can be copied and searched.
        self._console.print(_label(label).append(text), soft_wrap=True)

    def _end_text(self) -> None:
        if self._in_text:
            self._console.print()
            self._in_text = False


def _label(label: str) -> Text:
    return Text().append(f"{label:<{_LABEL_WIDTH}}", style=_STYLES[label])


def _session(session_id: str | None) -> str:
    if session_id is None:
        return "no session yet"
    return f"session {session_id[:_SESSION_SHOWN]}…"


def _labels(meta: Mapping[str, Any]) -> str:
    sets = {kind: ", ".join(meta[kind]) for kind in ("producers", "consumers", "tags")}
    return "  ".join(f"{kind} {{{names}}}" for kind, names in sets.items())


def _arguments(arguments: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items()
    )
