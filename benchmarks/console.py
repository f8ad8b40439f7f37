"""What the console costs the server: processor time of a chat with and without a page that is open.

The page that is open is a reader of the console's events that loads the list of sessions again when
they change, at most once a second, as htmx does it.
"""

import threading
import time
from contextlib import ExitStack, suppress
from statistics import median

import httpx

from benchmarks.gateway import Server, Work, chat, measured, running_server, turn
from benchmarks.measure import Effort, interleaved, ratio
from benchmarks.report import Goal, Row

_OPEN, _CLOSED, _WITHOUT = "open", "closed", "no console"
_MICRO = 1e6
_GOAL = 1.1
_PART = {"HX-Request": "true"}


def measure(_base_url: str, effort: Effort) -> list[Row]:
    rows = []
    cases: list[tuple[str, Work]] = [("chat", chat), ("dual-LLM step", turn)]
    for name, work in cases:
        with ExitStack() as stack:
            start = stack.enter_context
            watched, closed = (
                start(running_server("in-process")),
                start(running_server("in-process")),
            )
            without = start(running_server("without-console"))
            _open_page(watched)
            samples = interleaved(
                {
                    _OPEN: measured(watched, work),
                    _CLOSED: measured(closed, work),
                    _WITHOUT: measured(without, work),
                },
                effort,
            )
        figures = {peer: median(seconds) * _MICRO for peer, seconds in samples.items()}
        times = ratio(samples, _OPEN, [_CLOSED])
        goals = [Goal(f"/ {_CLOSED}", times, _GOAL)]
        rows.append(Row(f"console: {name}", figures, to_rival=times, goals=goals))
    return rows


def _open_page(server: Server) -> None:
    """Open a page of the console, until the server ends."""
    threading.Thread(target=_read, args=(server.ask("console"),), daemon=True).start()


def _read(url: str) -> None:
    """What a page does: it reads events, and loads its list again when they say so."""
    loaded = 0.0
    base_url = url.partition("/console")[0]
    with (
        suppress(httpx.HTTPError),
        httpx.Client(base_url=base_url, follow_redirects=True) as client,
    ):
        client.get(url).raise_for_status()
        with client.stream("GET", "/console/events", timeout=30) as events:
            for line in events.iter_lines():
                if line == "event: changed" and time.monotonic() - loaded >= 1:
                    client.get("/console", headers=_PART).raise_for_status()
                    loaded = time.monotonic()
