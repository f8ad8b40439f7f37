"""Runs that are killed and continued, and the checks of each kill.

`python -m tests.graph.durability.killing --kills 50` kills 50 times.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langchain_sequrity.display.progress import progress
from langchain_sequrity.graph.journal import add_entries
from langchain_sequrity.graph.program import JOURNAL, OUTPUT
from langchain_sequrity.local import LocalServer, RequestRecord
from tests.graph.durability.child import saver_of
from tests.graph.durability.postgres import postgres
from tests.graph.durability.subject import GIVEN, graph

_MOST_KILLS_OF_A_RUN = 6


def expected() -> tuple[dict[str, Any], list[str]]:
    """The graph in plain LangGraph: its final state, and all calls."""
    calls: list[str] = []
    plain = graph(calls.append).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    plain.invoke(GIVEN, config)
    return dict(plain.invoke(Command(resume="yes"), config)), calls


class Children:
    """Starts processes that run a task to its end, or are killed.

    Args:
        strict: Whether they read checkpoints with LangGraph's strict msgpack.
    """

    def __init__(self, *, strict: bool) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.graph.durability.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LANGGRAPH_STRICT_MSGPACK": str(strict).lower()},
        )

    def born(self, task: dict[str, Any]) -> int:
        """Start a process; return its id."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return self._said()

    def ended(self) -> int:
        """Wait for its end; return its exit status, which is negative after a signal."""
        return self._said()

    def _said(self) -> int:
        assert self._process.stdout
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@contextmanager
def children(*, strict: bool = False) -> Iterator[Children]:
    made = Children(strict=strict)
    try:
        yield made
    finally:
        made.close()


@dataclass(frozen=True)
class Line:
    """A line of the ledger."""

    life: int
    kind: str
    what: Any


@dataclass(frozen=True)
class Recorded:
    """What the checkpoints hold: the number of replies that asked for calls, and results by tool."""

    replies: int
    results: Counter[str]


@dataclass
class Run:
    """A run with its kills.

    Attributes:
        ledger: All lines that the processes wrote.
        kills: For each killed process, what the checkpoints held then.
    """

    ledger: list[Line] = field(default_factory=list)
    kills: dict[int, Recorded] = field(default_factory=dict)

    def of(self, kind: str, *lives: int) -> list[Any]:
        return [
            line.what
            for line in self.ledger
            if line.kind == kind and (not lives or line.life in lives)
        ]


def recorded(saver: str, thread: str) -> Recorded:
    """Read the thread's journal, with the writes after the last checkpoint.

    It is built from the writes of each step, so it does not depend on the form in checkpoints.
    """
    entries: list[dict[str, Any]] = []
    with saver_of(saver) as opened:
        newest_first = list(opened.list({"configurable": {"thread_id": thread}}))
    for stored in reversed(newest_first):
        for _, channel, value in stored.pending_writes or ():
            kept = value["writes"] if channel == OUTPUT else [(channel, value)]
            for written, new in kept:
                if written == JOURNAL:
                    entries = add_entries(entries, [new])
    replies = {entry["number"] for entry in entries if "said" in entry}
    replies |= {entry["reply"] for entry in entries if "reply" in entry}
    # The graph makes no call twice. A result counts whichever session it is of: LangGraph has its
    # task as finished, and a new session takes the result over.
    made = {
        (entry["tool"], entry["digest"])
        for entry in entries
        if "result" in entry and "gives" not in entry and entry["tool"] != "result_of"
    }
    return Recorded(len(replies), Counter(tool for tool, _ in made))


@dataclass
class Killer:
    """Makes runs, and kills their processes.

    Args:
        children: Starts the processes.
        saver: Where checkpoints go: path of a file, or a connection string.
        folder: For ledgers.
        chance: Chooses the points of the kills.
        forgets: Whether the service is restarted after each kill, and so loses its sessions.
        history: What requests contain, as for `LangGraphExecutor`.
    """

    children: Children
    saver: str
    folder: Path
    chance: random.Random
    forgets: bool = False
    history: str = "auto"
    answered: list[RequestRecord] = field(default_factory=list)

    def killed(self, kills: int) -> Run:
        """Make one run that is killed `kills` times at random points, or less often if it ends."""
        return self._run(kills, writes=None)

    def dying(self, writes: int) -> Run:
        """Make one run. Each of its processes dies when it has stored something `writes` times.

        The run needs at least two to advance, because an answer to an interrupt takes one.
        """
        return self._run(0, writes=writes)

    def _run(self, kills: int, writes: int | None) -> Run:
        path = self.folder / f"{self.chance.getrandbits(64)}.ledger"
        path.touch()
        task = {"ledger": str(path), "thread": path.stem, "saver": self.saver, "writes": writes}
        task["history"] = self.history
        run = Run()
        server = self._server()
        try:
            for life in count():
                pid = self.children.born({**task, "life": life, "base_url": server.base_url})
                if len(run.kills) < kills:
                    self._kill(pid, path, life)
                status = self.children.ended()
                run.ledger = _read(path)
                if status == 0:
                    return run
                if status != -signal.SIGKILL:
                    msg = f"Life {life} ended with {status}; see above."
                    raise AssertionError(msg)
                run.kills[life] = recorded(self.saver, path.stem)
                if self.forgets:
                    port = urlsplit(server.base_url).port or 0  # the session belongs to it
                    server.stop()
                    server = self._server(port)
        finally:
            server.stop()
        raise AssertionError

    def _server(self, port: int = 0) -> LocalServer:
        return LocalServer(port=port, on_request=self.answered.append).start()

    def _kill(self, pid: int, path: Path, life: int) -> None:
        """Kill at a random moment after a random line of the ledger."""
        lines, moment = self.chance.randrange(45), self.chance.random() * 0.01
        while _alive(pid):
            kinds = [line.kind for line in _read(path) if line.life == life]
            if "end" in kinds:
                return
            if len(kinds) >= lines:
                time.sleep(moment)
                break
            time.sleep(0.001)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _read(path: Path) -> list[Line]:
    *lines, _ = path.read_text().split("\n")
    return [Line(**json.loads(line)) for line in lines]


def check(run: Run, *, forgets: bool = False) -> None:
    """Check what must hold for every run, however often it was killed.

    Args:
        run: The run.
        forgets: Whether the service forgot its session at each kill. Then requests are repeated
            in a new session, and calls are not.
    """
    state, calls = expected()
    assert run.of("end") == [json.loads(json.dumps(state, default=repr))]
    assert not [text for text in run.of("warning") if not _is_ours_to_say(text)]
    assert set(run.of("call")) == set(calls)
    _check_calls(run, calls)
    if not forgets:
        requests = {life: one.replies for life, one in run.kills.items() if one.replies}
        _check_requests(run, requests)


def _is_ours_to_say(warning: str) -> bool:
    """Whether LangGraph warns about our own class, as it does unless msgpack is strict."""
    return "unregistered type tests.graph.durability.subject.Card" in warning


def _check_calls(run: Run, calls: Iterable[str]) -> None:
    """Recorded calls are not made again, and all others are."""
    wanted = Counter(call.split()[0] for call in calls)
    for life, one in run.kills.items():
        later = set(run.of("call", *range(life + 1, len(run.kills) + 1)))
        after = Counter(call.split()[0] for call in later)
        for tool, number in wanted.items():
            known = sum(
                found
                for name, found in one.results.items()
                if name == tool or name.startswith(f"{tool}__from__")
            )
            assert after[tool] == number - known, (tool, life, after[tool], number, known)
    for life in range(len(run.kills) + 1):
        once = run.of("call", life)
        assert len(once) == len(set(once)), f"twice in one life: {once}"


def _check_requests(run: Run, counts: dict[int, int]) -> None:
    """Recorded requests are not repeated. They are the first ones, as requests are sequential."""
    for life, number in counts.items():
        before = list(dict.fromkeys(run.of("request", *range(life + 1))))
        after = run.of("request", *range(life + 1, len(run.kills) + 1))
        # If the result of a task was not stored, the run begins again (`Journal.cut`).
        again = set(before[:number]) & set(after) - {"begin"}
        assert not again, f"recorded, and yet repeated: {again}"


def killed_runs(killer: Killer, kills: int) -> list[Run]:
    """Make and check runs until there were `kills` kills."""
    runs: list[Run] = []
    with progress("Killing", total=kills, unit="kills", waits=True) as killing:
        while (left := kills - sum(len(run.kills) for run in runs)) > 0:
            killing.update(kills - left)
            runs.append(killer.killed(min(left, killer.chance.randint(1, _MOST_KILLS_OF_A_RUN))))
            check(runs[-1], forgets=killer.forgets)
    return runs


@contextmanager
def killer(
    saver: str | None = None, *, seed: int = 0, strict: bool = False, forgets: bool = False
) -> Iterator[Killer]:
    """A killer with its own folder. Without `saver`, checkpoints go to a SQLite file there."""
    with children(strict=strict) as made, tempfile.TemporaryDirectory() as folder:
        chance = random.Random(seed)  # noqa: S311 - no secret
        yield Killer(made, saver or f"{folder}/runs.sqlite", Path(folder), chance, forgets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strict", action="store_true", help="strict msgpack")
    parser.add_argument("--forgets", action="store_true", help="restart the service at each kill")
    parser.add_argument("--postgres", action="store_true", help="instead of SQLite")
    options = parser.parse_args()
    with (
        postgres() if options.postgres else nullcontext() as saver,
        killer(saver, seed=options.seed, strict=options.strict, forgets=options.forgets) as made,
    ):
        print(_told(killed_runs(made, options.kills)))  # noqa: T201
        if made.forgets:
            return  # two writes are too few for a new session and an answer to an interrupt
        dying = made.dying(2)
        check(dying)
        print(f"one run, killed {len(dying.kills)} times, after every second write")  # noqa: T201


def _told(runs: list[Run]) -> str:
    kills = sorted(one.results for run in runs for one in run.kills.values())
    repeated = sum(len(run.of("call")) - len(set(run.of("call"))) for run in runs)
    return (
        f"{len(kills)} kills in {len(runs)} runs, all ended as in LangGraph; results recorded at a "
        f"kill: {kills}; calls that ran at a kill and again: {repeated}"
    )


if __name__ == "__main__":
    main()
