"""`serve`: a local server in the foreground, and what it prints."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from langchain_sequrity.cli.log import ServerLog
from langchain_sequrity.local import LocalServer

if TYPE_CHECKING:
    from types import FrameType

SWITCH_SECONDS = 0.0005
_STOPS = (signal.SIGINT, signal.SIGTERM)
_HANGUP = getattr(signal, "SIGHUP", None)  # Windows does not have it


def serve_until_stopped(
    server: LocalServer,
    log: ServerLog,
    *,
    with_keys: bool,
    grace: float,
    reload: Callable[[], object] | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGINT or SIGTERM; turns under way may end. A second signal ends at once.

    Args:
        server: The server.
        log: Prints how to use it, and what happens.
        with_keys: Whether it needs one of its keys, which are never printed.
        grace: Seconds that turns under way have when it stops.
        reload: Called after SIGHUP.
        check: Called before it starts.

    Raises:
        UsageError: If the server cannot listen on the address, or is open to others without keys.
    """
    # The event loop runs soon after it is ready, even if many turns compute. Before it runs, some
    # other threads may each use up this interval, which is 5 ms by default.
    sys.setswitchinterval(SWITCH_SECONDS)
    with log.running(), _signals(server, reloads=reload is not None) as signals:
        check()
        server.start()
        try:
            log.add(greeting(server.base_url, with_keys=with_keys))
            if server.has_console:
                shows_token = not with_keys and log.format == "text"
                log.add(console_greeting(server, shows_token=shows_token))
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


def greeting(url: str, *, with_keys: bool) -> str:
    """What `serve` prints first: the URL of its server, and how to use it."""
    key = ', api_key="one of the given keys"' if with_keys else ""
    return (
        f"Serving on {url} (Ctrl-C to stop). Point a model at it:\n"
        f'    ChatSequrity("any/model", base_url="{url}"{key})\n'
    )


def console_greeting(server: LocalServer, *, shows_token: bool) -> str:
    """How to open the console. Logs that are collected must not have its token."""
    if shows_token:
        return f"Console: {server.console_url}\n"
    return f"Console: {server.base_url}/console, for a key with `console = true`\n"


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
