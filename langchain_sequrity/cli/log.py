"""The log of `serve`: a line of text or of JSON for each request, and the server's own messages."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any, Literal

from rich.console import Console
from rich.text import Text

from langchain_sequrity.display import plain
from langchain_sequrity.local import RequestRecord
from langchain_sequrity.local.interpreter.worker_pool import WORKERS_LOGGER
from langchain_sequrity.local.log_queue import LogQueue
from langchain_sequrity.local.operations import FOR_ANY_HOST

LogFormat = Literal["text", "json"]
_MODEL_SHOWN = 60
_FIRST_ERROR = 400
_FIRST_FAILURE = 500
_FORMATTER = logging.Formatter()
_LOGGER = "langchain_sequrity"
SUPERVISOR_LOGGER = "uvicorn.error"
"""Of uvicorn, which starts and watches workers."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Records that were dropped, because nobody read the log.

    Attributes:
        count: How many.
    """

    count: int


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the server itself.

    Attributes:
        level: Its level, as a number of `logging`.
        text: The text, with the traceback if there is one.
        event: The field `event` of a line of JSON.
    """

    level: int
    text: str
    event: Literal["message", "server"] = "message"


LogEntry = RequestRecord | Message | Dropped | str


@dataclass(frozen=True, slots=True)
class _Stamped:
    """An entry with the time at which it was made.

    Attributes:
        time: The time.
        entry: The entry.
    """

    time: datetime
    entry: LogEntry


class ServerLog:
    """The log of a server, printed by a thread of its own.

    Args:
        console: Where it is printed.
        log_format: As text, or as a line of JSON for each entry.

    Attributes:
        format: The same; it may change.
        is_shared: Whether other processes print to the same output.
    """

    is_shared: bool = False

    def __init__(self, console: Console, log_format: LogFormat = "text") -> None:
        self._console = console
        self._write_at_once = _writer(console.file)
        self.format = log_format
        self.queue: LogQueue[_Stamped] = LogQueue(self._print, lambda n: _stamped(Dropped(n)))

    def add(self, entry: LogEntry) -> None:
        """Add an entry; never blocks. Probes that are answered well come too often for a log."""
        if not (isinstance(entry, RequestRecord) and _is_answered_probe(entry)):
            self.queue.put(_stamped(entry))

    def drops(self) -> int:
        """How many entries were dropped, because nobody read the log."""
        return self.queue.drops

    @contextmanager
    def running(self) -> Iterator[None]:
        """Print the server's own messages too, until the end of the block; then what waits."""
        supervisor = logging.getLogger(SUPERVISOR_LOGGER)
        logger, handler = logging.getLogger(_LOGGER), _Handler(self)
        workers = logging.getLogger(WORKERS_LOGGER)
        propagates, logger.propagate = logger.propagate, False
        level = workers.level
        workers.setLevel(logging.INFO)
        logger.addHandler(handler)
        supervisor.addHandler(handler)
        try:
            yield
        finally:
            supervisor.removeHandler(handler)
            workers.setLevel(level)
            logger.removeHandler(handler)
            logger.propagate = propagates
            self.queue.close()

    def _print(self, stamped: _Stamped) -> None:
        if self.format == "text":
            self._print_text(stamped)
        else:
            self._print_json(stamped)

    def _write(self, text: str) -> None:
        with _locked(self._console.file) if self.is_shared else nullcontext():
            self._write_at_once(text)

    def _print_text(self, stamped: _Stamped) -> None:
        with self._console.capture() as capture:
            # No line is wrapped, even on a narrow terminal.
            self._console.print(_text(stamped), soft_wrap=True)
        self._write(capture.get())

    def _print_json(self, stamped: _Stamped) -> None:
        self._write(f"{json.dumps(_fields(stamped))}\n")


def _writer(file: IO[str]) -> Callable[[str], None]:
    """A function that writes a text at once.

    It uses the descriptor: a thread that waits in Python's own buffer for the reader of a pipe
    would keep the process from ending.
    """
    try:
        descriptor = file.fileno()
    except OSError:  # of a file in memory
        return lambda text: print(text, end="", file=file, flush=True)

    def write(text: str) -> None:
        data = memoryview(text.encode(getattr(file, "encoding", None) or "utf-8", "replace"))
        while data:
            data = data[os.write(descriptor, data) :]

    return write


@contextmanager
def _locked(file: IO[str]) -> Iterator[None]:
    """Keep other processes from writing meanwhile: a pipe takes only 4 KiB in one piece.

    The lock is of the process, and ends with it.
    """
    import fcntl  # noqa: PLC0415 - not on Windows, where there is one process

    fcntl.lockf(file.fileno(), fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(file.fileno(), fcntl.LOCK_UN)


def _is_answered_probe(record: RequestRecord) -> bool:
    return record.path in FOR_ANY_HOST and record.status < _FIRST_ERROR


class _Handler(logging.Handler):
    """Gives records of `logging` to the log."""

    def __init__(self, log: ServerLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record."""
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{_FORMATTER.formatException(record.exc_info)}"
        is_of_processes = record.name in {WORKERS_LOGGER, SUPERVISOR_LOGGER}
        self._log.add(Message(record.levelno, text, "server" if is_of_processes else "message"))


def _stamped(entry: LogEntry) -> _Stamped:
    return _Stamped(datetime.now(UTC), entry)


def _text(stamped: _Stamped) -> Text:
    entry, now = stamped.entry, stamped.time.astimezone().strftime("%H:%M:%S")
    match entry:
        case str():
            return Text(entry)
        case Dropped():
            return Text(f"{now} {_dropped(entry)}")
        case Message():
            level = logging.getLevelName(entry.level)
            return Text(f"{now} {level} {plain(entry.text, lines=True)}", style=_style(entry.level))
    is_error = entry.status >= _FIRST_ERROR
    line = Text(f"{now} {plain(entry.method)} {plain(entry.path)} ")
    line.append(str(entry.status), style="red" if is_error else "green")
    line.append(f" {entry.milliseconds:.0f} ms")
    details = (
        plain(entry.model, limit=_MODEL_SHOWN), entry.session, plain(entry.key),
        plain(entry.summary),
    )  # fmt: skip
    line.append("".join(f"  {detail}" for detail in details if detail))
    return line


def _style(level: int) -> str:
    return "red" if level >= logging.ERROR else "yellow" if level >= logging.WARNING else ""


def _fields(stamped: _Stamped) -> dict[str, Any]:
    return {**_fields_of_entry(stamped), "process": os.getpid()}


def _fields_of_entry(stamped: _Stamped) -> dict[str, Any]:
    entry = stamped.entry
    time = stamped.time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    match entry:
        case str():
            return {"time": time, "level": "info", "event": "server", "message": entry.strip()}
        case Dropped():
            fields = {"dropped": entry.count, "message": _dropped(entry)}
            return {"time": time, "level": "warning", "event": "dropped", **fields}
        case Message():
            level = logging.getLevelName(entry.level).lower()
            return {"time": time, "level": level, "event": entry.event, "message": entry.text}
    level = "error" if entry.status >= _FIRST_FAILURE else "info"
    return {
        "time": time,
        "level": level,
        "event": "request",
        "request_id": entry.request_id,
        "method": entry.method,
        "path": entry.path,
        "status": entry.status,
        "milliseconds": round(entry.milliseconds, 3),
        "model": entry.model,
        "session": entry.session,
        "key": entry.key,
        "client": entry.client,
        "summary": entry.summary,
    }


def _dropped(entry: Dropped) -> str:
    word = "entry" if entry.count == 1 else "entries"
    return f"{entry.count} {word} of the log were dropped, because nobody read it."
