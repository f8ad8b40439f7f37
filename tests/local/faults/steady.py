"""Many ordinary clients for minutes: `python -m tests.local.faults.steady --minutes 10`.

The clients of a real `serve` chat, stream, leave streams, continue old sessions, and run dual-LLM
turns with tools, of which some are never answered. After a warm-up the memory of the processes, the
descriptors, the threads and the workers must not grow any more.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

import httpx

from tests.local.api import CHAT, result, tool
from tests.local.faults.loads import memory_of, processes_under, tell
from tests.local.floods import MB, PATIENCE, chat
from tests.local.operated.serving import serving, url_in, wait_until

DUAL_LLM = {"X-Features": json.dumps({"agent_arch": "dual-llm"})}
EXPECTED = {200, 404}
"""404 is the reply to a session that had to go because there are too many."""
_WARM_UP = 1 / 3  # of the time; the sessions then use all the memory that they may
_PARTS = 3  # the first and the last of so many are compared
_SEED = 1


# Clients


@dataclass
class Replies:
    """What the clients got.

    Attributes:
        statuses: Replies by status.
        problems: What must not be.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)


class Client:
    """One client.

    Args:
        http: Its connections.
        number: Its number, which decides what it does.
        replies: What all clients got.
    """

    def __init__(self, http: httpx.AsyncClient, number: int, replies: Replies) -> None:
        self._http = http
        self._replies = replies
        self._random = random.Random(f"{_SEED} {number}")  # noqa: S311 - no secret
        self._headers = {"Authorization": f"Bearer key-{number % 10}"}
        self._sessions: list[str] = []  # which it may continue

    async def work_until(self, end: float) -> None:
        """Do one thing after the other."""
        acts = (self.chat, self.chat, self.stream, self.leave_stream, self.use_tool)
        while time.monotonic() < end:
            try:
                await self._random.choice(acts)()
            except httpx.HTTPError as error:
                self._replies.problems[f"{type(error).__name__}: {error}"] += 1
            await asyncio.sleep(self._random.random() / 2)

    def _words(self) -> str:
        return f"Number {self._random.random()}. " + "word " * self._random.randrange(4_000)

    async def _post(self, body: dict[str, Any], **headers: str) -> httpx.Response:
        reply = await self._http.post(CHAT, json=body, headers={**self._headers, **headers})
        self._count(reply)
        return reply

    def _count(self, reply: httpx.Response) -> None:
        self._replies.statuses[reply.status_code] += 1
        if reply.status_code not in EXPECTED:
            self._replies.problems[f"status {reply.status_code}"] += 1

    async def chat(self) -> None:
        """Begin a session, or continue one."""
        is_old = self._sessions and self._random.random() < 0.5
        session = {"X-Session-ID": self._random.choice(self._sessions)} if is_old else {}
        reply = await self._post(chat(self._words()), **session)
        if not is_old and reply.status_code == 200:
            self._sessions = [*self._sessions[-9:], reply.headers["x-session-id"]]

    async def stream(self) -> None:
        """Read a whole stream."""
        await self._read_stream(whole=True)

    async def leave_stream(self) -> None:
        """Read the beginning of a stream, and hang up."""
        await self._read_stream(whole=False)

    async def _read_stream(self, *, whole: bool) -> None:
        body = chat(self._words(), stream=True)
        async with self._http.stream("POST", CHAT, json=body, headers=self._headers) as reply:
            self._count(reply)
            async for _ in reply.aiter_bytes():
                if not whole:
                    return

    async def use_tool(self) -> None:
        """Run a dual-LLM turn; in one of four the tool never answers."""
        question = {"role": "user", "content": f"look_up '{self._random.random()}'"}
        fields = {"model": "any/model", "tools": [tool()]}
        reply = await self._post({**fields, "messages": [question]}, **DUAL_LLM)
        if reply.status_code != 200 or self._random.random() < 0.25:
            return
        asks = reply.json()["choices"][0]["message"]
        if not asks.get("tool_calls"):
            self._replies.problems[f"no call: {asks.get('content')!r:.200}"] += 1
            return
        answers = [result(call["id"], "found") for call in asks["tool_calls"]]
        await self._post(
            {**fields, "messages": [question, asks, *answers]},
            **{"X-Session-ID": reply.headers["x-session-id"]},
        )


async def _work_all(base_url: str, clients: int, seconds: float, replies: Replies) -> None:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
    end = time.monotonic() + seconds
    async with httpx.AsyncClient(
        base_url=base_url, timeout=PATIENCE, limits=limits, trust_env=False
    ) as http:
        await asyncio.gather(
            *(Client(http, number, replies).work_until(end) for number in range(clients))
        )


# The server


@dataclass(frozen=True)
class Sample:
    """The state of a server.

    Attributes:
        megabytes: Memory of the server and its workers.
        descriptors: Open descriptors of the server.
        threads: Threads of the server.
        workers: Worker processes.
        sessions: Sessions.
    """

    megabytes: float
    descriptors: float
    threads: float
    workers: float
    sessions: float


# By so much the least of the last part may be above that of the first: less is chance.
_TOLERANCE = Sample(megabytes=8, descriptors=20, threads=20, workers=4, sessions=1_000)


def sample_of(pid: int, base_url: str) -> Sample:
    """Look at a server."""
    process = Path(f"/proc/{pid}")
    metrics = dict(
        line.rsplit(" ", 1)
        for line in httpx.get(
            f"{base_url}/metrics", trust_env=False, timeout=PATIENCE
        ).text.splitlines()
        if not line.startswith("#")
    )
    return Sample(
        megabytes=sum(map(memory_of, processes_under(pid))) / MB,
        descriptors=len([*(process / "fd").iterdir()]),
        threads=len([*(process / "task").iterdir()]),
        workers=float(metrics["sequrity_workers"]),
        sessions=float(metrics["sequrity_sessions"]),
    )


def growth(samples: Sequence[Sample]) -> Sample:
    """By how much the least value of the last third is above that of the first third.

    What comes and goes, such as connections, raises a median by chance; what leaks raises the
    least value, too.
    """
    part = max(len(samples) // _PARTS, 1)
    first, last = samples[:part], samples[-part:]
    return Sample(
        *(
            min(getattr(sample, name) for sample in last)
            - min(getattr(sample, name) for sample in first)
            for name in (field.name for field in fields(Sample))
        )
    )


def trends(samples: Sequence[Sample]) -> list[str]:
    """What grows, in words."""
    return [
        f"{limit.name} +{grown:.0f}"
        for limit, grown, most in zip(
            fields(Sample), astuple(growth(samples)), astuple(_TOLERANCE), strict=True
        )
        if grown > most
    ]


@contextmanager
def served(folder: Path, log: IO[bytes]) -> Iterator[tuple[int, str]]:
    """A real `serve`: its process id and its address."""
    with serving(log, folder / "errors.txt", "--port", "0") as process:
        output = folder / "log.txt"
        wait_until(lambda: url_in(output.read_text("utf-8")), "it serves")
        yield process.pid, url_in(output.read_text("utf-8"))


def run(seconds: float, clients: int, pause: float) -> tuple[list[Sample], Replies, str]:
    """Serve clients; returns the samples, the replies, and what the server wrote as errors."""
    samples, replies = [], Replies()
    with tempfile.TemporaryDirectory() as name, (Path(name) / "log.txt").open("wb") as log:
        with served(Path(name), log) as (pid, base_url):
            command = [
                sys.executable, "-m", "tests.local.faults.steady", "--work", base_url,
                "--minutes", str(seconds / 60), "--clients", str(clients),
            ]  # fmt: skip
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as working:  # noqa: S603 - this module
                while working.poll() is None:
                    samples.append(sample_of(pid, base_url))
                    tell("  ".join(f"{k} {v:.0f}" for k, v in vars(samples[-1]).items()))
                    time.sleep(pause)
                assert working.stdout is not None
                told = json.loads(working.stdout.read())
        errors = (Path(name) / "errors.txt").read_text("utf-8")
        errors += "".join(
            line for line in (Path(name) / "log.txt").read_text("utf-8").splitlines(keepends=True)
            if "Traceback" in line or " ERROR " in line
        )  # fmt: skip
    replies.statuses.update({int(status): count for status, count in told["statuses"].items()})
    replies.problems.update(told["problems"])
    return samples, replies, errors


def main() -> int:
    """Serve clients for minutes; returns 1 if something grows, or a reply was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--pause", type=float, default=10, help="seconds between two samples")
    parser.add_argument("--work", help="be the clients of this address")
    options = parser.parse_args()
    seconds = options.minutes * 60
    if options.work:
        replies = Replies()
        asyncio.run(_work_all(options.work, options.clients, seconds, replies))
        tell(json.dumps(vars(replies)))
        return 0
    samples, replies, errors = run(seconds, options.clients, options.pause)
    after = samples[round(len(samples) * _WARM_UP) :]
    grown = trends(after)
    rates = f"{replies.statuses.total() / seconds:.0f} replies a second"
    tell(f"{rates}, by status {dict(replies.statuses)}")
    for problem in (*replies.problems.items(), *filter(None, [errors[:10_000]])):
        tell(f"PROBLEM {problem}")
    tell(
        f"after the warm-up {len(after)} samples, "
        + (f"GROWS: {', '.join(grown)}" if grown else "no growth")
    )
    return 1 if grown or replies.problems or errors else 0


if __name__ == "__main__":
    sys.exit(main())
