"""Sends bombs to a server and prints which of them harm it: `python -m tests.local.bombs`."""

import argparse
import sys
import time
from collections.abc import Callable
from itertools import islice

from langchain_sequrity.display.progress import hide, tracked
from tests.local.bombs import combined, crafted, operations, sources
from tests.local.bombs.bomb import Bomb
from tests.local.bombs.watching import MEGABYTES, Seen, Watched

_FAMILIES = {
    "crafted": crafted.BOMBS,
    "operations": operations.BOMBS,
    "sources": sources.BOMBS,
}
_COMBINED = 100
_COLUMNS: tuple[tuple[str, Callable[[Seen], float]], ...] = (
    ("s of the processor", lambda seen: seen.seconds),
    ("s until `/health` answered", lambda seen: seen.health),
    ("MB of the server", lambda seen: seen.server),
    ("MB of the worker", lambda seen: seen.worker),
)


def tell(line: str) -> None:
    """Print a line immediately."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def chosen(options: argparse.Namespace) -> list[Bomb]:
    """The bombs that the options select."""
    bombs = [bomb for name in options.family or _FAMILIES for bomb in _FAMILIES[name]]
    if not options.family:
        bombs += islice(combined.bombs(options.seed), options.combined)
    return [bomb for bomb in bombs if options.name in bomb.name]


def main() -> int:
    """Return 1 if a bomb did harm, or if the server kept too much memory after all of them."""
    parser = argparse.ArgumentParser(description="Send bombs to a server.")
    parser.add_argument("--family", choices=_FAMILIES, action="append")
    parser.add_argument("--name", default="", help="a part of the name of a bomb")
    parser.add_argument("--in-process", action="store_true", help="no processes for programs")
    parser.add_argument("--combined", type=int, default=_COMBINED, help="how many are put together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=5, help="how many of the worst are shown")
    options = parser.parse_args()
    rows: list[tuple[Bomb, Seen]] = []
    bad, start = 0, time.monotonic()
    with Watched(in_process=options.in_process) as server:
        for bomb in tracked(chosen(options), "Sending", unit="bombs", waits=True):
            seen = server.run(bomb)
            rows.append((bomb, seen))
            faults = seen.faults(bomb)
            bad += bool(faults)
            for fault in faults:
                hide()
                tell(f"{bomb.name}: {fault}")
        grown = server.grown
    for title, column in _COLUMNS:
        tell(f"-- the most {title}")
        for bomb, seen in sorted(rows, key=lambda row: -column(row[1]))[: options.most]:
            tell(f"{column(seen):8.2f} {bomb.name}")
    tell(f"{len(rows)} bombs, {bad} did harm; the server kept {grown:.0f} MB of them all")
    tell(f"{time.monotonic() - start:.0f} s")
    return 1 if bad or grown > MEGABYTES else 0


if __name__ == "__main__":
    sys.exit(main())
