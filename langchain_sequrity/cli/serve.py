"""`serve`: a local server in the foreground, and what it prints."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.local import ApiKey, LocalServer, RequestRecord
from langchain_sequrity.local.keys import is_key

if TYPE_CHECKING:
    from types import FrameType

_PROGRAM = "program."


def limits_by_name(options: Iterable[str]) -> dict[str, Any]:
    """Read values of `--limit`.

    Args:
        options: Texts `name=number`; `program.name=number` for a limit of programs.

    Returns:
        What `LocalServer` takes as `limits`.

    Raises:
        UsageError: If a text has another form.
    """
    limits: dict[str, Any] = {}
    for option in options:
        name, _, digits = option.partition("=")
        try:
            number: int | float = (
                int(digits.replace("_", "")) if "." not in digits else float(digits)
            )
        except ValueError:
            msg = f"--limit {plain(option)}: expected NAME=NUMBER, such as header_bytes=131072."
            raise UsageError(msg) from None
        if name.startswith(_PROGRAM):
            limits.setdefault("program", {})[name.removeprefix(_PROGRAM)] = number
        else:
            limits[name] = number
    return limits


_DIGEST = "sha256:"


def keys_in(file: Path) -> list[ApiKey]:
    """Read the file of `--api-key-file`.

    Args:
        file: One key, or the digest of one, in each line. Empty lines and lines that begin with `#`
            are ignored.

    Raises:
        UsageError: If it cannot be read, has no key, or a line is not a key. The message does not
            show the line.
    """
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        msg = f"--api-key-file {file}: the file cannot be read as UTF-8 text."
        raise UsageError(msg) from None
    keys = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if not is_key(line):
            msg = (
                f"--api-key-file {file}, line {number}: expected one key, of printable ASCII "
                "characters without spaces."
            )
            raise UsageError(msg)
        name = f"line {number}"
        is_digest = line.startswith(_DIGEST)
        keys.append(ApiKey(name=name, digest=line) if is_digest else ApiKey.from_secret(line, name))
    if not keys:
        msg = f"--api-key-file {file}: the file has no key."
        raise UsageError(msg)
    return keys


_STOPS = (signal.SIGINT, signal.SIGTERM)
_HANGUP = getattr(signal, "SIGHUP", None)  # Windows does not have it
_MODEL_SHOWN = 60
_FIRST_ERROR = 400


def serve_until_stopped(
    server: LocalServer,
    console: Console,
    *,
    with_keys: bool,
    reload: Callable[[], object] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        server: The server.
        console: Prints how to use it.
        with_keys: Whether it needs one of its keys, which are never printed.
        reload: Called after SIGHUP.

    Raises:
        UsageError: If the server cannot listen on the address, or is open to others without keys.
    """
    key = ', api_key="one of the given keys"' if with_keys else ""
    with _signals(reload is not None) as signals, server:
        _print(
            console,
            Text(
                f"Serving on {server.base_url} (Ctrl-C to stop). Point a model at it:\n"
                f'    ChatSequrity("any/model", base_url="{server.base_url}"{key})\n'
            ),
        )
        # Without a timeout, Ctrl-C has no effect on Windows.
        while not signals.stop:
            if signals.event.wait(timeout=1):
                signals.event.clear()
            if signals.reload and reload is not None:
                signals.reload = False
                reload()
    _print(console, Text("Stopped."))


def print_request(console: Console, record: RequestRecord) -> None:
    """Print a line for a request."""
    is_error = record.status >= _FIRST_ERROR
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    line = Text(f"{now} {plain(record.method)} {plain(record.path)} ")
    line.append(str(record.status), style="red" if is_error else "green")
    line.append(f" {record.milliseconds:.0f} ms")
    details = (
        plain(record.model, limit=_MODEL_SHOWN),
        record.session,
        plain(record.summary),
        plain(record.key),
    )
    line.append("".join(f"  {detail}" for detail in details if detail))
    _print(console, line)


class _Signals:
    """What signals ask for.

    Attributes:
        stop: Whether the server is to stop.
        reload: Whether the configuration is to be read again.
        event: Set at each signal.
    """

    def __init__(self) -> None:
        self.stop = self.reload = False
        self.event = threading.Event()

    def on_signal(self, number: int, _frame: "FrameType | None") -> None:
        """Note what a signal asks for."""
        if number == _HANGUP:
            self.reload = True
        else:
            self.stop = True
        self.event.set()


@contextmanager
def _signals(reloads: bool) -> Iterator[_Signals]:  # noqa: FBT001 - private
    """What signals ask for meanwhile. The previous handlers are restored at the end."""
    signals = _Signals()
    numbers = [*_STOPS, _HANGUP] if reloads and _HANGUP is not None else [*_STOPS]
    before = {number: signal.signal(number, signals.on_signal) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print(console: Console, text: Text) -> None:
    # No line is wrapped, even on a narrow terminal.
    console.print(text, soft_wrap=True)
