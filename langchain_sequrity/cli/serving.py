"""A local server in the foreground: its URL, a line for each request, a clean end."""

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from langchain_core.language_models import BaseChatModel
from rich.console import Console
from rich.text import Text

from langchain_sequrity.display import plain
from langchain_sequrity.local import LocalServer, RequestRecord, Script
from langchain_sequrity.local.brains import Role

if TYPE_CHECKING:
    from types import FrameType

_STOPS = (signal.SIGINT, signal.SIGTERM)
_MODEL_SHOWN = 60
_FIRST_ERROR = 400


def serve_until_stopped(
    console: Console,
    *,
    host: str,
    port: int,
    script: Script | None,
    model: BaseChatModel | None,
    models: Mapping[Role, BaseChatModel],
    fidelity: Literal["full", "documented"],
    api_keys: Sequence[str],
    isolated_programs: bool | None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        console: Where URL and requests are printed.
        host: Address to listen on.
        port: Port, or 0 for a free one.
        script: Rules that answer first, or `None`.
        model: As of `LocalServer`.
        models: As of `LocalServer`.
        fidelity: As of `LocalServer`.
        api_keys: Keys that are allowed; none for any. They are never printed.
        isolated_programs: As of `LocalServer`.

    Raises:
        UsageError: If the address cannot be listened on, or is open to others without keys.
    """
    server = LocalServer(
        model,
        script,
        models=models,
        host=host,
        port=port,
        fidelity=fidelity,
        api_keys=list(api_keys) or None,
        isolated_programs=isolated_programs,
        on_request=lambda record: _print(console, _line(record)),
    )
    with _stop_signal() as stop, server:
        for text in _greeting(server.base_url, with_keys=bool(api_keys)):
            _print(console, Text(text))
        # Without a timeout Windows would not let Ctrl-C through.
        while not stop.wait(timeout=1):
            pass
    _print(console, Text("Stopped."))


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that the signals to stop set, in place of what they did before."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: "FrameType | None") -> None:
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in _STOPS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _greeting(base_url: str, *, with_keys: bool) -> tuple[str, ...]:
    key = ', api_key="one of the given keys"' if with_keys else ""
    return (
        f"Serving on {base_url} (Ctrl-C to stop). Point a model at it:",
        f'    ChatSequrity("any/model", base_url="{base_url}"{key})',
        "",
    )


def _line(record: RequestRecord) -> Text:
    bad = record.status >= _FIRST_ERROR
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    line = Text(f"{now} {plain(record.method)} {plain(record.path)} ")
    line.append(str(record.status), style="red" if bad else "green")
    line.append(f" {record.milliseconds:.0f} ms")
    details = (plain(record.model, limit=_MODEL_SHOWN), record.session, plain(record.summary))
    return line.append("".join(f"  {detail}" for detail in details if detail))


def _print(console: Console, text: Text) -> None:
    # One line stays one line, however narrow the terminal.
    console.print(text, soft_wrap=True)
