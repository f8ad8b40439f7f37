"""`serve`: a local server in the foreground, and what it prints."""

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_sequrity.cli.log import ServerLog
from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.local import ApiKey, LocalServer
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


_SWITCH_SECONDS = 0.0005
_STOPS = (signal.SIGINT, signal.SIGTERM)
_HANGUP = getattr(signal, "SIGHUP", None)  # Windows does not have it


def serve_until_stopped(
    server: LocalServer,
    log: ServerLog,
    *,
    with_keys: bool,
    grace: float,
    reload: Callable[[], object] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; turns under way may end. A second signal ends at once.

    Args:
        server: The server.
        log: Prints how to use it, and what happens.
        with_keys: Whether it needs one of its keys, which are never printed.
        grace: Seconds that turns under way have when it stops.
        reload: Called after SIGHUP.

    Raises:
        UsageError: If the server cannot listen on the address, or is open to others without keys.
    """
    key = ', api_key="one of the given keys"' if with_keys else ""
    # The event loop runs soon after it is ready, even if many turns compute. Before it runs, some
    # other threads may each use up this interval, which is 5 ms by default.
    sys.setswitchinterval(_SWITCH_SECONDS)
    with log.running(), _signals(server, reloads=reload is not None) as signals:
        server.start()
        try:
            log.add(
                f"Serving on {server.base_url} (Ctrl-C to stop). Point a model at it:\n"
                f'    ChatSequrity("any/model", base_url="{server.base_url}"{key})\n'
            )
            # Without a timeout, Ctrl-C has no effect on Windows.
            while not signals.stop:
                if signals.event.wait(timeout=1):
                    signals.event.clear()
                if signals.reload and reload is not None:
                    signals.reload = False
                    reload()
            if server.is_busy:
                log.add(f"Stopping: turns under way have {grace:g} s. A second signal ends them.")
        finally:
            server.stop(grace)
        log.add("Stopped.")


class _Signals:
    """What signals ask for. A second one to stop ends the turns of the server.

    Args:
        server: The server.

    Attributes:
        stop: Whether the server is to stop.
        reload: Whether the configuration is to be read again.
        event: Set at each signal.
    """

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self.stop = self.reload = False
        self.event = threading.Event()

    def on_signal(self, number: int, _frame: "FrameType | None") -> None:
        """Note what a signal asks for."""
        if number == _HANGUP:
            self.reload = True
        else:
            if self.stop:
                self._server.stop(0)
            self.stop = True
        self.event.set()


@contextmanager
def _signals(server: LocalServer, *, reloads: bool) -> Iterator[_Signals]:
    """What signals ask for meanwhile. The previous handlers are restored at the end."""
    signals = _Signals(server)
    numbers = [*_STOPS, _HANGUP] if reloads and _HANGUP is not None else [*_STOPS]
    before = {number: signal.signal(number, signals.on_signal) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
