"""Random hostile loads of a server in a process of its own: `python -m tests.local.faults.loads`.

During each load the memory of the server and its workers stays within 200 MB of the memory when
idle, `/health` answers within a second, and the log has no traceback.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.local import LocalServer
from tests.local.api import CHAT, tool
from tests.local.floods import MB, MOST, PATIENCE, SHAPES, chat, headers

LARGE = 3 * MB
HEALTH_SECONDS = 1.0
_RUNNING = max(os.cpu_count() or 1, 2)  # programs at once
_IDLE_WORKER = 12 * MB
GRAPH = "/control/lang-graph/v1/chat/completions"
PROGRAM = "total = 0\nfor number in range(1000): total += number\nfinal_return_value = total"


# The server


def serve(options: Mapping[str, Any], files: int) -> None:
    """Run a server until the standard input ends.

    Args:
        options: Arguments of `LocalServer`.
        files: How many descriptors the process may have; 0 for as many as it has now.
    """
    if files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    script = [{"when": {"user": "^large"}, "text": "Many words. " * (LARGE // 12)}]
    sys.setswitchinterval(0.0005)  # as `serve` does
    with LocalServer(script=script, **options) as server:
        sys.stdout.write(f"{server.base_url}\n")
        sys.stdout.flush()
        sys.stdin.read()


class Served:
    """A server in a process of its own, watched from outside.

    Args:
        files: As in `serve`.
        options: As in `serve`.

    Attributes:
        base_url: Its address.
        most_of_all: The most memory that it and its workers had, with running programs.
    """

    most_of_all = 0

    def __init__(self, files: int = 0, **options: Any) -> None:
        self._files = files
        self._options = options

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        options = ["--serve", json.dumps(self._options), "--files", str(self._files)]
        self._process = subprocess.Popen(  # noqa: S603 - this module
            [sys.executable, "-m", "tests.local.faults.loads", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().strip()
        # Imports all modules and starts the workers.
        for path, fields in ((CHAT, {}), (GRAPH, {"user_provided_program": PROGRAM})):
            body = chat("Hi", **fields)
            reply = httpx.post(
                self.base_url + path,
                json=body,
                headers=headers(),
                timeout=PATIENCE,
                trust_env=False,
            )
            assert reply.status_code == 200, reply.text
        self._idle = self._memory()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=PATIENCE)
        self._log.close()

    @property
    def log(self) -> str:
        """What the server has written to its standard error."""
        self._log.seek(0)
        return self._log.read().decode()

    @property
    def grown(self) -> int:
        """The memory of the server and its workers minus that when idle, in bytes.

        The memory of running programs is not part of it: `program.memory` limits that of each. So
        as many of the largest workers as may run count only as idle ones.
        """
        return self._memory() - self._idle

    def _memory(self) -> int:
        server, *others = map(memory_of, processes_under(self._process.pid))
        others.sort(reverse=True)
        running = min(_RUNNING, len(others))
        self.most_of_all = max(self.most_of_all, server + sum(others))
        return (
            server
            + sum(min(memory, _IDLE_WORKER) for memory in others[:running])
            + sum(others[running:])
        )

    def healthy(self) -> float:
        """Ask for `/health` on a new connection; returns the seconds that it took.

        The time in which other processes had the processor is not part of them.
        """
        before, began = delays(self._process.pid), time.perf_counter()
        reply = httpx.get(self.base_url + "/health", timeout=PATIENCE, trust_env=False)
        seconds = time.perf_counter() - began
        assert reply.json() == {"status": "ok"}
        # Only one thread computes at a time, so the others wait for one that waits for a processor.
        waited = (now - before.get(task, 0.0) for task, now in delays(self._process.pid).items())
        return seconds - max(waited, default=0.0)

    @contextmanager
    def watched(self) -> Iterator["Watch"]:
        """Look at memory and health until the end of the block."""
        watch, is_over = Watch(), threading.Event()

        def look() -> None:
            while not is_over.wait(0.05):
                watch.grown = max(watch.grown, self.grown)

        def ask() -> None:
            while not is_over.wait(0.05):
                watch.health = max(watch.health, self.healthy())

        with ThreadPoolExecutor(2) as pool:
            watching = [pool.submit(look), pool.submit(ask)]
            try:
                yield watch
            finally:
                is_over.set()
                for future in watching:
                    future.result()


@dataclass
class Watch:
    """What was seen.

    Attributes:
        grown: The most memory beyond that when idle, in bytes.
        health: The most seconds that `/health` took.
    """

    grown: int = 0
    health: float = 0.0


def processes_under(pid: int) -> list[int]:
    """A process and all that it has started, and so on."""
    processes = [pid]
    for parent in processes:
        for task in _tasks(parent):
            with suppress(OSError):  # it has ended
                processes += map(int, (task / "children").read_text().split())
    return processes


def memory_of(pid: int) -> int:
    """Bytes of a process, with its part of what several processes share; 0 if it has ended."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
    return 0


def _tasks(pid: int) -> list[Path]:
    with suppress(OSError):
        return [*Path(f"/proc/{pid}/task").iterdir()]
    return []


def delays(pid: int) -> dict[str, float]:
    """For how many seconds each thread of a process was ready and had no processor."""
    seconds = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has ended
            seconds[task.name] = int((task / "schedstat").read_text().split()[1]) / 1e9
    return seconds


# Clients


class Client:
    """A connection to a server that is used without regard for the protocol.

    Attributes:
        base_url: The server.
        is_over: Set when the load is over.
    """

    def __init__(self, base_url: str, is_over: asyncio.Event) -> None:
        self.base_url = base_url
        address = urlsplit(base_url)
        self._address = (address.hostname, address.port)
        self.is_over = is_over

    async def __aenter__(self) -> Self:
        connection = socket.socket(proto=socket.IPPROTO_TCP)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, self._address)
        # A reader that is not read stops the transport after so many bytes.
        self.reader, self.writer = await asyncio.open_connection(sock=connection, limit=512)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    async def send(self, data: bytes) -> None:
        """Send bytes, unless the load is over first."""
        self.writer.write(data)
        await self.first(self.writer.drain())

    async def first(self, work: Awaitable[Any]) -> Any:
        """The result of the work, or `None` if the load is over first."""
        working = asyncio.ensure_future(work)
        over = asyncio.ensure_future(self.is_over.wait())
        done, _ = await asyncio.wait({working, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if working in done:
            return working.result()
        working.cancel()
        return None

    def reset(self) -> None:
        """End the connection with a reset."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


def request(body: bytes, *lines: str, path: str = CHAT, length: int | None = None) -> bytes:
    """A request, whose `Content-Length` may be wrong."""
    size = len(body) if length is None else length
    return head(*lines, f"Content-Length: {size}", path=path) + body


def head(*lines: str, path: str = CHAT) -> bytes:
    """The head of a request; a key among the lines replaces the usual one."""
    if not any(line.startswith("Authorization") for line in lines):
        lines = (*lines, "Authorization: Bearer flood")
    begin = (f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json")
    return "\r\n".join((*begin, *lines, "", "")).encode()


def large(**fields: Any) -> bytes:
    """A body that is answered with 3 MB."""
    return json.dumps(chat("large", **fields)).encode()


Act = Callable[[Client, random.Random], Awaitable[None]]


async def unread_stream(client: Client, rng: random.Random) -> None:
    """Ask for a stream and read only its beginning."""
    await client.send(request(large(stream=True), key(rng)))
    await client.first(client.reader.read(100))
    await client.is_over.wait()


async def unread_reply(client: Client, rng: random.Random) -> None:
    """Ask for a large reply and read nothing of it."""
    await client.send(request(large(), key(rng)))
    await client.is_over.wait()


async def unread_keyed_reply(client: Client, rng: random.Random) -> None:
    """The same, with an `Idempotency-Key`."""
    name = f"Idempotency-Key: {rng.getrandbits(64)}"
    await client.send(request(large(stream=rng.random() < 0.5), key(rng), name))
    await client.is_over.wait()


async def repeated_reply(client: Client, rng: random.Random) -> None:
    """Ask for one of a few replies again and again, and read it sometimes."""
    for _ in range(5):
        name = f"Idempotency-Key: {rng.randrange(3)}"
        async with Client(client.base_url, client.is_over) as again:
            await again.send(request(large(), name))
            if rng.random() < 0.5:
                await again.first(again.reader.read(1_000))


async def small_chunks(client: Client, rng: random.Random) -> None:
    """Send a body in chunks of one byte."""
    await client.send(head("Transfer-Encoding: chunked", key(rng)) + b'1\r\n"\r\n')
    for _ in range(LARGE // 10_000):
        await client.send(b"1\r\nx\r\n" * 10_000)


async def silent(client: Client, rng: random.Random) -> None:
    """Send nothing."""
    del rng
    await client.is_over.wait()


async def half_head(client: Client, rng: random.Random) -> None:
    """Send a part of a head, which may be long."""
    data = head("X-Note: " + "y" * rng.choice([10, 1_000, 60_000, 250_000]))
    await client.send(data[: rng.randrange(len(data))])
    await client.is_over.wait()


async def half_body(client: Client, rng: random.Random) -> None:
    """Send a part of a body."""
    size = rng.choice([1_000, 100_000, LARGE])
    await client.send(request(b'"' + b"x" * rng.randrange(size), key(rng), length=10 * size))
    await client.is_over.wait()


async def unwanted_body(client: Client, rng: random.Random) -> None:
    """Send a body without a key, and go on when it is refused."""
    await client.send(request(b"x" * 1_000, "Authorization: none", length=32 * MB))
    for _ in range(rng.randrange(100)):
        await client.send(b"x" * 100_000)
    await client.is_over.wait()


async def big_body(client: Client, rng: random.Random) -> None:
    """Send a large body of any shape, and wait for its reply."""
    begin, part, end = SHAPES[rng.choice([*SHAPES])]
    content = begin + part * (rng.randrange(8 * MB) // len(part)) + end
    await client.send(request(b'{"model":"m","messages":' + content + b"}", key(rng)))
    await client.first(client.reader.read(100))


async def sessions(client: Client, rng: random.Random) -> None:
    """Begin sessions with some text."""
    for _ in range(20):
        body = json.dumps(chat(f"{rng.random()} " + "x" * rng.randrange(100_000))).encode()
        async with Client(client.base_url, client.is_over) as another:
            await another.send(request(body, key(rng), "Connection: close"))
            await another.first(another.reader.read(100))


async def resets(client: Client, rng: random.Random) -> None:
    """Reset connections at any point."""
    for _ in range(10):
        data = request(large(stream=rng.random() < 0.5), key(rng))
        async with Client(client.base_url, client.is_over) as another:
            await another.send(data[: rng.randrange(2 * len(data))])
            await another.first(asyncio.sleep(rng.random() / 20))
            another.reset()


async def garbage(client: Client, rng: random.Random) -> None:
    """Send bytes that are not HTTP, or not JSON."""
    noise = rng.randbytes(rng.choice([10, 1_000, 100_000]))
    await client.send(
        rng.choice([noise, request(noise), head("Transfer-Encoding: chunked") + noise])
    )
    await client.first(client.reader.read(100))


async def pipelined(client: Client, rng: random.Random) -> None:
    """Send many requests at once, and read nothing."""
    await client.send(request(large(stream=rng.random() < 0.5), key(rng)) * 50)
    await client.is_over.wait()


async def trickle(client: Client, rng: random.Random) -> None:
    """Send a body, or a head, byte by byte."""
    data = request(large(), key(rng))
    for position in range(len(data)):
        await client.send(data[position : position + 1])
        await client.first(asyncio.sleep(rng.random() / 10))


async def programs(client: Client, rng: random.Random) -> None:
    """Run programs in the workers, of which some take much memory."""
    source = rng.choice(
        [PROGRAM, "x = 'x' * 1_900_000\nfinal_return_value = [x + str(n) for n in range(20)]"]
    )
    body = json.dumps(chat("Run.", user_provided_program=f"# {rng.random()}\n{source}")).encode()
    await client.send(request(body, key(rng), path=GRAPH))
    await client.first(client.reader.read(100))


async def paused_programs(client: Client, rng: random.Random) -> None:
    """Begin programs that wait for a tool, of which some keep much memory."""
    for _ in range(5):
        kept = rng.choice(["1", "['y' * 1_000_000 + str(n) for n in range(20)]"])
        source = f"x = {kept}\ny = look_up(word={rng.random()!r})\nfinal_return_value = y"
        fields = {"user_provided_program": source, "tools": [tool()]}
        body = json.dumps(chat("Run.", **fields)).encode()
        async with Client(client.base_url, client.is_over) as another:
            await another.send(request(body, key(rng), "Connection: close", path=GRAPH))
            await another.first(another.reader.read(100))


ACTS: Mapping[str, tuple[Act, int]] = {
    "unread streams": (unread_stream, 150),
    "unread replies": (unread_reply, 150),
    "unread keyed replies": (unread_keyed_reply, 150),
    "repeated replies": (repeated_reply, 50),
    "chunks of one byte": (small_chunks, 20),
    "silent connections": (silent, 800),
    "half heads": (half_head, 800),
    "half bodies": (half_body, 400),
    "bodies without a key": (unwanted_body, 100),
    "large bodies": (big_body, 30),
    "sessions": (sessions, 60),
    "resets": (resets, 60),
    "garbage": (garbage, 100),
    "pipelined requests": (pipelined, 100),
    "trickles": (trickle, 200),
    "programs": (programs, 30),
    "paused programs": (paused_programs, 60),
}
"""Each with the most clients that do it at once."""


def key(rng: random.Random) -> str:
    """The line of a key; there are few, so that one bearer does many things."""
    return f"Authorization: Bearer key-{rng.randrange(4)}"


# Loads


@dataclass(frozen=True)
class Load:
    """Clients that come together.

    Attributes:
        name: A description.
        acts: What each of them does.
        seconds: How long they stay.
    """

    name: str
    acts: Sequence[str] = field(repr=False)
    seconds: float = 3.0

    @classmethod
    def chosen(cls, rng: random.Random) -> "Load":
        """A load with one to three kinds of clients."""
        names = rng.sample([*ACTS], rng.choice([1, 1, 2, 3]))
        counts = {name: rng.randint(1, ACTS[name][1]) // len(names) + 1 for name in names}
        acts = [name for name, count in counts.items() for _ in range(count)]
        rng.shuffle(acts)
        described = ", ".join(f"{count} {name}" for name, count in counts.items())
        return cls(described, acts, rng.uniform(0.5, 4.0))

    async def send(self, base_url: str, rng: random.Random) -> None:
        """Send it from this process."""
        is_over = asyncio.Event()

        async def act(name: str) -> None:
            with suppress(OSError, asyncio.IncompleteReadError):
                async with Client(base_url, is_over) as client:
                    await ACTS[name][0](client, random.Random(rng.random()))  # noqa: S311

        clients = [asyncio.ensure_future(act(name)) for name in self.acts]
        await asyncio.sleep(self.seconds)
        is_over.set()
        await asyncio.gather(*clients)

    def send_to(self, server: Served, seed: int = 0) -> Watch:
        """Send it from another process, so that its work delays nobody who watches."""
        what = json.dumps({"acts": [*self.acts], "seconds": self.seconds, "seed": seed})
        command = [sys.executable, "-m", "tests.local.faults.loads", "--send", server.base_url]
        with server.watched() as watch:
            subprocess.run(command, input=what, text=True, check=True)  # noqa: S603 - this module
        return watch


def main() -> int:
    """Send random loads; returns 1 if one of them went wrong."""
    parser = argparse.ArgumentParser(description="Load a server.")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", help="be the server, with these options as JSON")
    parser.add_argument("--files", type=int, default=0, help="descriptors of the server")
    parser.add_argument("--send", help="send a load of the standard input to this address")
    options = parser.parse_args()
    if options.serve is not None:
        serve(json.loads(options.serve), options.files)
    elif options.send is not None:
        what = json.loads(sys.stdin.read())
        load = Load("", what["acts"], what["seconds"])
        asyncio.run(load.send(options.send, random.Random(what["seed"])))  # noqa: S311
    else:
        return _send_all(options.count, options.seed)
    return 0


def _send_all(count: int, seed: int) -> int:
    bad, most, slowest = 0, 0, 0.0
    with Served() as server:
        for number in tracked(range(seed, seed + count), "Sending", unit="loads", waits=True):
            load = Load.chosen(random.Random(number))  # noqa: S311 - no secret
            watch = load.send_to(server, number)
            is_bad = watch.grown > MOST or watch.health > HEALTH_SECONDS
            bad, most, slowest = bad + is_bad, max(most, watch.grown), max(slowest, watch.health)
            mark = "BAD " * is_bad
            hide()
            tell(f"{mark}{number}: {watch.grown / MB:.0f} MB, {watch.health:.2f} s: {load.name}")
        if "Traceback" in server.log:
            bad += 1
            tell(server.log[:10_000])
    tell(f"{count} loads, {bad} bad, at most {most / MB:.0f} MB and {slowest:.2f} s")
    tell(f"{server.most_of_all / MB:.0f} MB at most with the programs that ran, and as a whole")
    return 1 if bad else 0


def tell(line: str) -> None:
    """Print a line and flush it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
