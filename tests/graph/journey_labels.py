"""Checks labels on random journeys: every value that a node wrote keeps the node as a producer.

The journeys of `tests.graph.journeys` run on a server that records the arguments of each call with
their labels. Nodes write their names into texts and lists. If an argument contains the name of a
node, the node must be among its producers. Inputs from outside contain no such name.

`python -m tests.graph.journey_labels --count 2000` makes 2,000 journeys and prints each lost label.
"""

import logging
import multiprocessing
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from langchain_sequrity import ChatSequrity
from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.interpreter import Run, ToolCall
from tests.graph.journeys import travel
from tests.graph.random_graphs import cases_of, options_of

_IN_TEXT = re.compile(r"(?:(?<=;)|^|(?<=given))([a-j])\d+(?=;)")
_WHOLE = re.compile(r"([a-j])\d*")


@dataclass(frozen=True)
class Told:
    """The labels of a journey.

    Attributes:
        mix: The mix of features of the graph.
        seed: The seed of the journey within the mix.
        named: How many names of nodes were found in arguments.
        lost: Arguments with a missing producer: tool, argument, value, missing names.
    """

    mix: str
    seed: int
    named: int
    lost: tuple[str, ...]


def look(mix: str, seed: int, model: ChatSequrity) -> Told:
    """Make the journey of a seed, and check the labels of all calls."""
    named, lost = 0, list[str]()
    with noting() as calls:
        travel(mix, seed, model)
    for call in calls:
        for name, given in call.arguments.items():
            found = set(_names(given.value))
            named += len(found)
            if left := found - given.labels.producers:
                lost.append(f"{call.tool}({name}={given.value!r}): {sorted(left)}")
    return Told(mix, seed, named, tuple(lost))


@contextmanager
def noting() -> Iterator[list[ToolCall]]:
    """Collect the calls of programs, as the server of this process gets them."""
    calls, advance = list[ToolCall](), Run.advance

    def noted(run: Run, *given: Any) -> Any:
        step = advance(run, *given)
        if isinstance(step, ToolCall):
            calls.append(step)
        return step

    with mock.patch.object(Run, "advance", noted):
        yield calls


def _names(value: Any) -> Iterator[str]:
    """The names of nodes in a value, as nodes write them."""
    if isinstance(value, str):
        yield from _IN_TEXT.findall(value)
        if whole := _WHOLE.fullmatch(value):
            yield whole[1]
    elif isinstance(value, dict):
        for one in value.values():
            yield from _names(one)
    elif isinstance(value, list):
        for one in value:
            yield from _names(one)


# -- many journeys, in several processes

_MODEL: list[ChatSequrity] = []


def _start() -> None:
    logging.disable(logging.CRITICAL)
    server = LocalServer(isolated_programs=False)
    server.start()
    _MODEL.append(ChatSequrity("any/model", base_url=server.base_url))


def _look(case: tuple[str, int]) -> Told:
    return look(*case, _MODEL[0])


def main(arguments: list[str]) -> int:
    """Make random journeys, and return 1 if any lost a label."""
    options = options_of("journey_labels", 2000).parse_args(arguments)
    totals: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool(options.jobs, initializer=_start) as pool:
        cases = pool.imap_unordered(_look, cases_of(options), chunksize=5)
        for found in tracked(cases, "Following labels", unit="journeys", total=options.count):
            totals["journeys"] += 1
            totals["names"] += found.named
            totals["lost"] += len(found.lost)
            for one in found.lost[:3]:
                hide()
                sys.stdout.write(f"LOST {found.mix} {found.seed}: {one}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{dict(totals)}\n")
    return 1 if totals["lost"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
