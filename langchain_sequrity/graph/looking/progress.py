"""`Progress`: one line that shows where a long run is."""

import shutil
import sys
from threading import Lock
from typing import TextIO

from typing_extensions import override

from langchain_sequrity.display import plain
from langchain_sequrity.graph.looking.listening import Listener
from langchain_sequrity.graph.running.watching import Event

_AGAIN = "\r\x1b[2K"
_LONGEST = 120


class Progress(Listener):
    """Shows in a terminal at which call the runs of a `LangGraphExecutor` are.

    It is a callback handler: `executor.invoke(state, config={"callbacks": [Progress()]})`. The line
    is written over and over; where standard error is no terminal nothing is shown.

    Args:
        stream: Where to write; standard error by default.
        force: Whether to write to what is no terminal as well, a line for each call.
    """

    def __init__(self, stream: TextIO | None = None, *, force: bool = False) -> None:
        self._stream = stream
        self._force = force
        self._lock = Lock()
        self._calls: dict[str, int] = {}

    @override
    def heard(self, event: Event) -> None:
        stream = self._stream or sys.stderr
        if not (stream.isatty() or self._force):
            return
        with self._lock:
            line = self._line(event)
            if line is not None:
                self._write(stream, line, is_last=event["event"] != "allowed")

    def _line(self, event: Event) -> str | None:
        run = event["run"]["id"]
        match event["event"]:
            case "allowed":
                self._calls[run] = event["index"] + 1
                kind = "router after" if event["role"] == "router" else "node"
                end = f"call {event['index'] + 1}, {kind} {event['node']}"
            case "finished" | "denied" | "failed" as outcome:
                end = f"{outcome} after {self._calls.pop(run, 0)} calls"
            case "ran" if event["error"] is not None:
                end = f"stopped in call {self._calls.get(run, 0)} ({event['error']})"
            case _:
                return None
        return f"{event['run']['graph']}: {end}"

    @staticmethod
    def _write(stream: TextIO, line: str, *, is_last: bool) -> None:
        if not stream.isatty():
            stream.write(f"{plain(line, limit=_LONGEST)}\n")
        else:
            room = shutil.get_terminal_size().columns - 1
            stream.write(
                f"{_AGAIN}{plain(line, limit=_LONGEST)[:room]}{chr(10) if is_last else ''}"
            )
        stream.flush()
