"""The audit log: a line of JSON for each checked call, written before the call is made.

A thread of its own writes the lines; the turn waits until its line is written. If a line cannot be
written, its call is refused: an unaudited call is not let through. `policy simulate` reads the file
(`sqrt.audited_calls`, which also defines the form of a line).
"""

import hashlib
import hmac
import logging
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, get_args

from langchain_sequrity.errors import UsageError
from langchain_sequrity.local.fair_slots import waiting
from langchain_sequrity.local.observers import CheckedCall, Observer
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.sqrt.audited_calls import hidden_value, is_hidden, write_labels
from langchain_sequrity.strict_json import dumps, sorted_json

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable

Arguments = Literal["cut", "hash", "none"]
"""How arguments are written: values with long texts cut, digests with a key, or not at all."""

_WAIT_SECONDS = 10.0
_RETRY_SECONDS = 1.0
_KEY_BYTES = 32
_REFUSAL = (
    "The server cannot write its audit log, and does not let unaudited calls through. Ask whoever "
    "runs it; its log has the reason."
)
_logger = logging.getLogger("langchain_sequrity.local")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLog:
    """An audit log for `LocalServer(audit_log=…)`.

    Attributes:
        path: The file. Lines are appended; if it was moved away, a new one is begun.
        arguments: How arguments are written. `cut`: values, of which texts longer than `most`
            characters are cut. `hash`: a digest of each value, with a key in a file beside
            (`PATH.key`), so that equal values have equal digests and nobody without the key can
            guess them. `none`: only the names.
        most: The number of characters of a text that are written, with `cut`.
        fsync: Whether a line is on the disk before its call is made, and not only in the system's
            memory.
        required: Whether calls are refused that cannot be written. Without it they are made, and
            the server's log has an error.

    Example:
        ```python
        from pathlib import Path
        from tempfile import TemporaryDirectory

        from langchain_sequrity.local import AuditLog, LocalServer

        with TemporaryDirectory() as folder:
            audit_log = AuditLog(path=Path(folder) / "audit.jsonl", arguments="hash")
            with LocalServer(audit_log=audit_log) as server:
                assert server.base_url
        ```
    """

    path: str | Path
    arguments: Arguments = "cut"
    most: int = 1_000
    fsync: bool = False
    required: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        if self.arguments not in get_args(Arguments):
            msg = f'`arguments` must be "cut", "hash" or "none"; got {self.arguments!r}.'
            raise UsageError(msg)
        if type(self.most) is not int or self.most < 0:
            msg = f"`most` must be a number of characters from 0; got {self.most!r}."
            raise UsageError(msg)


@dataclass(eq=False, slots=True)
class _Line:
    """A line to write, for which a turn waits.

    Attributes:
        text: The line.
        is_over: Set once it is written, or cannot be written.
        is_written: Which of both.
    """

    text: bytes
    is_over: threading.Event = field(default_factory=threading.Event)
    is_written: bool = False


class AuditWriter(Observer):
    """Writes the audit log of a server.

    Args:
        log: The options.

    Attributes:
        failed_at: When the last line could not be written; `None` if it was written.
    """

    name = "The audit log"

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._file = _File(Path(log.path), fsync=log.fsync)
        self._queue: SimpleQueue[_Line | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._digest: Callable[[bytes], str] | None = None
        self.failed_at: float | None = None

    def open(self) -> None:
        """Open the file.

        Raises:
            UsageError: If it cannot be opened.
        """
        try:
            self._file.open()
            if self._log.arguments == "hash":
                key = _key(Path(f"{self._log.path}.key"))
                self._digest = lambda value: hmac.digest(key, value, hashlib.sha256).hex()
        except OSError as error:
            self._file.close()
            msg = f"The audit log `{self._log.path}` cannot be opened: {error.strerror or error}."
            raise UsageError(msg) from None
        self._thread = threading.Thread(target=self._write_all, name="AuditWriter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is left, and close the file."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(_WAIT_SECONDS)
            self._thread = None

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self._log.path)

    @property
    def problem(self) -> str:
        """Why calls are refused, or an empty text."""
        if self.failed_at is None or not self._log.required:
            return ""
        return "The audit log cannot be written."

    def turn_begins(self) -> None:
        """Refuse a turn with 503 right after a line could not be written.

        Later turns are let through, so that their first call tries it again.
        """
        failed_at = self.failed_at
        if self.problem and failed_at and time.monotonic() - failed_at < _RETRY_SECONDS:
            refuse(503, _REFUSAL, retry_after=_RETRY_SECONDS)

    def call_checked(self, checked: CheckedCall, /) -> None:
        """Write a line; raises `StatusError` with 503 if it cannot be written."""
        try:
            line = _Line(self._text(checked))
        except Exception:
            _logger.exception("A line of the audit log cannot be made")
            if self._log.required:
                refuse(503, _REFUSAL)
            return
        self._queue.put(line)
        if not self._log.required:
            return
        with waiting():
            line.is_over.wait(_WAIT_SECONDS)
        if not line.is_written:
            self.failed_at = time.monotonic()
            refuse(503, _REFUSAL, retry_after=_RETRY_SECONDS)

    # A line

    def _text(self, checked: CheckedCall) -> bytes:
        call, verdict = checked.call, checked.verdict
        first = verdict.reasons[0] if verdict and verdict.reasons else None
        position = first.at if first else None
        entry: dict[str, Any] = {
            "audit": 1,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "key": checked.request.key,
            "session": checked.session_id,
            "request_id": checked.request.id,
            "turn": checked.turn,
            "call": checked.number,
            "architecture": checked.architecture,
            "tool": call.tool,
            "arguments": {name: self._value(a.value) for name, a in call.arguments.items()},
            "labels": {name: write_labels(a.labels) for name, a in call.arguments.items()},
            "decided_by": write_labels(call.decided_by),
            "declared": sorted(call.declared),
            "session_labels": write_labels(checked.session),
            "verdict": checked.word,
            "certain": verdict.certain if verdict else True,
            "rule": " ".join(first.rule.split()) if first else checked.finding,
            "line": position.line if position else None,
            "policy": checked.policy,
        }
        if checked.policy_verdict is not None and checked.policy_verdict is not verdict:
            entry["policy_verdict"] = checked.policy_verdict.final_verdict
        if checked.is_repeated:
            entry["repeated"] = True
        if checked.decision is not None:
            entry["decision"] = checked.decision
        return dumps(entry).encode("utf-8", "backslashreplace") + b"\n"

    def _value(self, value: Any) -> Any:
        if self._log.arguments == "cut":
            return _cut(value, self._log.most)
        text = "" if self._digest is None else self._digest(sorted_json(value))
        return hidden_value(value, digest=text)

    # The thread

    def _write_all(self) -> None:
        while True:
            lines = [self._queue.get()]
            while not self._queue.empty():  # all that wait, with one write
                lines.append(self._queue.get())
            batch = [line for line in lines if line is not None]
            if batch:
                self._write(batch)
            if len(batch) < len(lines):
                self._file.close()
                return

    def _write(self, batch: list[_Line]) -> None:
        try:
            self._file.append(b"".join(line.text for line in batch))
        except OSError as error:
            effect = "are refused" if self._log.required else "are made WITHOUT AUDIT"
            _logger.critical(
                "The audit log `%s` cannot be written: %s. Calls %s.",
                self._log.path, error.strerror or error, effect,
            )  # fmt: skip
            self.failed_at = time.monotonic()
        else:
            if self.failed_at is not None:
                _logger.warning("The audit log `%s` is written again.", self._log.path)
            self.failed_at = None
            for line in batch:
                line.is_written = True
        for line in batch:
            line.is_over.set()


def _cut(value: Any, most: int) -> Any:
    """The value; if it is long, only its begin, marked as hidden: a policy would judge another."""
    text = value if isinstance(value, str) else dumps(value)
    # A value that looks like such a mark is hidden too, so that nobody takes it for one.
    return hidden_value(value, begin=text[:most]) if len(text) > most or is_hidden(value) else value


def _key(path: Path) -> bytes:
    """The key of the digests; it is made if it does not exist."""
    if not path.exists():
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        try:
            # Whole or not at all: another worker may make it, or read it, at the same time.
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
    key = path.read_bytes()
    if len(key) < _KEY_BYTES:
        msg = f"`{path}` is too short for a key"
        raise OSError(msg)
    return key


class _File:
    """A file to which whole lines are appended.

    Args:
        path: Its path.
        fsync: Whether each write is on the disk when it returns.
    """

    def __init__(self, path: Path, *, fsync: bool) -> None:
        self._path = path
        self._fsync = fsync
        self._descriptor = -1

    def open(self) -> None:
        """Open it, only for its owner; raises `OSError`."""
        flags = os.O_RDWR if self._path.is_file() or not self._path.exists() else os.O_WRONLY
        flags |= os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)  # which Windows has
        self._descriptor = os.open(self._path, flags, 0o600)
        with _locked(self._descriptor):
            pass  # a file system without locks is found now

    def append(self, data: bytes) -> None:
        """Append whole lines, all or none; raises `OSError`."""
        if not self._is_at_path():
            self.close()
            self.open()
        with _locked(self._descriptor):
            before = os.fstat(self._descriptor)
            rest = memoryview(data if self._ends_with_line(before) else b"\n" + data)
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                if self._fsync:
                    os.fsync(self._descriptor)
            except OSError:
                if stat.S_ISREG(before.st_mode):
                    with suppress(OSError):
                        os.ftruncate(self._descriptor, before.st_size)
                raise

    def _ends_with_line(self, status: os.stat_result) -> bool:
        """Whether the last line is whole; a process may have been killed while it wrote it."""
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return True
        os.lseek(self._descriptor, -1, os.SEEK_END)  # not `pread`, which Windows does not have
        return os.read(self._descriptor, 1) == b"\n"

    def _is_at_path(self) -> bool:
        """Whether the open file still has its path, and was not moved away."""
        if self._descriptor < 0:
            return False
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """Keep other processes away meanwhile: they could write into the middle of a line."""
    if fcntl is None or not stat.S_ISREG(os.fstat(descriptor).st_mode):
        yield
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
