"""Many idempotency keys over four workers, many of them sent again to others: none is run twice.

`python -m tests.stores.keys --count 100000`
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from langchain_sequrity.display.progress import hide, progress
from tests.local.api import CHAT
from tests.stores.stage import Counts, stage

_AT_ONCE = 24
_LATER = 500  # other keys between a request and its repetition
_STEP_SECONDS = 60.0


@dataclass
class Result:
    """What a run counted.

    Attributes:
        count: Number of keys.
        seconds: The time of all.
        replies: Replies by status, and how often a request was sent again at once and later.
        runs: Runs of the model by key.
        problems: What must not be.
    """

    count: int
    seconds: float = 0.0
    replies: Counts = field(default_factory=Counter)
    runs: Counts = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Add what must not be at the end."""
        twice = {name: number for name, number in self.runs.items() if number > 1}
        self.problems += [f"{name} was run {number} times" for name, number in twice.items()]
        if self.replies["503"]:  # nothing happens to Redis
            self.problems.append(f"{self.replies['503']} replies with 503")
        if len(self.runs) != self.count:
            self.problems.append(f"{len(self.runs)} keys were run, of {self.count}")

    def __str__(self) -> str:
        twice = sum(number > 1 for number in self.runs.values())
        return (
            f"{self.count} keys in {self.seconds:.0f} s; replies {dict(self.replies)}; "
            f"{twice} keys run twice; {len(self.problems)} problems"
        )


class _Connections:
    """Kept connections to one worker. Clients of httpx would take most of the time of a run."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, key: str) -> tuple[int, bytes]:
        """Send the request of a key; return the status and the body of its reply."""
        reader, writer = (
            self._idle.pop()
            if self._idle
            else await asyncio.open_connection("127.0.0.1", self._port)
        )
        message = {"role": "user", "content": f"{key}."}
        body = json.dumps({"model": "any/model", "messages": [message]})
        writer.write(
            f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sq-test\r\n"
            f"Content-Type: application/json\r\nIdempotency-Key: {key}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        reply = await reader.readexactly(length)
        self._idle.append((reader, writer))
        return int(head.split(b" ", 2)[1]), reply

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


class _Keys:
    def __init__(self, result: Result, ports: Sequence[int], tell: Callable[[int], None]) -> None:
        self._result = result
        self._workers = [_Connections(port) for port in ports]
        self._numbers = iter(range(result.count))
        self._dice = random.Random(0)  # noqa: S311 - an order, no secret
        self._answered: deque[tuple[str, bytes]] = deque()
        self._tell = tell

    async def run(self) -> None:
        await asyncio.gather(*(self._work() for _ in range(_AT_ONCE)))
        while self._answered:
            await self._repeat(*self._answered.popleft())
        for worker in self._workers:
            worker.close()

    async def _work(self) -> None:
        for number in self._numbers:
            key = f"key-{number}"
            one, other = self._dice.sample(self._workers, 2)
            if self._dice.random() < 0.2:
                self._result.replies["sent twice at once"] += 1
                replies = await asyncio.gather(self._answer(one, key), self._answer(other, key))
                self._check(key, *replies)
                reply = replies[0]
            else:
                reply = await self._answer(one, key)
            if self._dice.random() < 0.2:
                self._answered.append((key, reply))
            if len(self._answered) > _LATER:
                await self._repeat(*self._answered.popleft())
            self._tell(number)

    async def _repeat(self, key: str, reply: bytes) -> None:
        self._result.replies["sent again later"] += 1
        self._check(key, reply, await self._answer(self._dice.choice(self._workers), key))

    async def _answer(self, worker: _Connections, key: str) -> bytes:
        """The reply of a key; it is asked for again while another worker has it."""
        end = time.monotonic() + _STEP_SECONDS
        while True:
            status, reply = await worker.post(key)
            self._result.replies[str(status)] += 1
            if status == 200:
                return reply
            if status not in {409, 503} or time.monotonic() > end:
                self._result.problems.append(f"{key}: {status} {reply.decode()}")
                return reply
            await asyncio.sleep(0.01)

    def _check(self, key: str, first: bytes, again: bytes) -> None:
        if first != again:
            self._result.problems.append(f"{key} has two replies")


def run(count: int, tell: Callable[[int], None] = lambda _number: None) -> Result:
    """Send the requests of so many keys."""
    result = Result(count)
    with stage(slowness=0.0) as stage_:
        start = time.monotonic()
        keys = _Keys(result, [worker.port for worker in stage_.workers], tell)
        asyncio.run(keys.run())
        result.seconds = time.monotonic() - start
        result.runs = stage_.runs()
    result.check()
    return result


def main(arguments: Sequence[str]) -> int:
    """Send; returns 1 for any problem."""
    parser = argparse.ArgumentParser(description="Send many idempotency keys to four workers.")
    parser.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args(arguments)
    start = time.monotonic()

    def tell(number: int) -> None:
        sending.update(number)
        if number % 5_000 == 0:
            hide()
            sys.stdout.write(f"{number} keys, {time.monotonic() - start:.0f} s\n")
            sys.stdout.flush()

    with progress("Sending", total=options.count, unit="keys", waits=True) as sending:
        result = run(options.count, tell)
    for line in (*result.problems[:50], str(result)):
        sys.stdout.write(line + "\n")
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
