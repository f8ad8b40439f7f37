"""A process that answers a line of JSON with a line of JSON, and is killed if it does not.

It gets nothing of this process: no environment, no files, no console.
"""

import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from langchain_sequrity.local.interpreter.worker_messages import Message

_MAIN = "langchain_sequrity.local.interpreter.worker_main"
_LONGEST = 200_000_000  # bytes of one line
_KEPT = ("TZ", "SYSTEMROOT")  # the zone, so that replays agree; Windows starts nothing without


class Lost(Exception):
    """The process is gone, or says what makes no sense."""

    @classmethod
    def for_nonsense(cls) -> "Lost":
        """It said what makes no sense."""
        return cls("The process of the program answered what makes no sense.")


class WorkerProcess:
    """The process of one program. It ends when it is closed, and when nobody holds it any more.

    Raises:
        OSError: If it cannot be started.
    """

    def __init__(self) -> None:
        """Start it."""
        self._popen = subprocess.Popen(  # noqa: S603 - Python itself
            [sys.executable, "-B", "-P", "-s", "-m", _MAIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(sys.executable).anchor,
            env=_environment(),
        )
        self.close = weakref.finalize(self, _end, self._popen)

    @property
    def pid(self) -> int:
        """Its number in the system."""
        return self._popen.pid

    def exchange(
        self, request: Message, seconds: float, answer: Callable[[Message], Message] | None = None
    ) -> Message:
        """Send a request and wait for the reply.

        Args:
            request: JSON data.
            seconds: How long that may take before the process is killed, with all its questions:
                one that asks for ever is stopped too.
            answer: Answers what it asks before it replies; without it nothing is a question.

        Raises:
            Lost: If there is no reply, or none that makes sense.
        """
        # The timer ends the process, and with it the wait: that works on every system.
        timer = threading.Timer(seconds, self._popen.kill)
        timer.daemon = True
        timer.start()
        try:
            reply = self._send(request)
            while answer is not None and "ask" in reply:
                reply = self._send(answer(reply))
        except _Gone:
            late = f"It did not answer within {seconds:g} s and was stopped."
            gone = "The process of the program ended; it may have taken too much memory."
            raise Lost(gone if timer.is_alive() else late) from None
        finally:
            timer.cancel()
        return reply

    def _send(self, message: Message) -> Message:
        line = self._line(json.dumps(message).encode() + b"\n")
        if not line.endswith(b"\n"):
            raise _Gone
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError):
            raise Lost.for_nonsense() from None
        if not isinstance(reply, dict):
            raise Lost.for_nonsense()
        return reply

    def _line(self, line: bytes) -> bytes:
        there, back = self._popen.stdin, self._popen.stdout
        if there is None or back is None:
            return b""
        try:
            there.write(line)
            there.flush()
            return back.readline(_LONGEST)
        except OSError:
            return b""


class _Gone(Exception):
    """Nothing came back."""


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was not sent yet cannot be any more
                pipe.close()
    # Without reading to the end of the pipe: something else may hold its other side.
    process.wait()


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
