"""Four workers that share a Redis, behind a proxy; and what can happen to them."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.stores.redis_servers import RedisServer, free_port, redis_server, wait_until
from tests.stores.spreading import SpreadingProxy

LEASE_SECONDS = 1.5
WORKERS = 4


class Worker:
    """A worker in a process of its own, always on the same port.

    Args:
        url: The address of Redis.
        runs: The file in which its model notes its runs.
        slowness: The longest time of an answer of its model in seconds.
    """

    def __init__(self, url: str, runs: Path, slowness: float) -> None:
        self.port = free_port()
        self._arguments = [str(self.port), url, str(runs), str(LEASE_SECONDS), str(slowness)]

    def begin(self) -> None:
        """Start its process."""
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "tests.stores.worker", *self._arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def wait(self) -> None:
        """Wait until it serves."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "a worker did not start"

    def kill(self) -> None:
        """Kill it as the system does when memory is short."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def program_workers(self) -> list[int]:
        """Ids of the processes that run its programs."""
        return [worker for server in _children(self._process.pid) for worker in _children(server)]


def _children(process: int) -> list[int]:
    with suppress(OSError):
        tasks = [*Path(f"/proc/{process}/task").iterdir()]
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return []


@dataclass
class Stage:
    """The workers, their Redis, and the proxy before them."""

    redis: RedisServer
    workers: list[Worker]
    proxy: SpreadingProxy
    runs_file: Path

    def runs(self) -> Counter[str]:
        """How often the model ran, by what it was asked."""
        lines = self.runs_file.read_text().splitlines()
        return Counter(line.partition(" ")[2] for line in lines)


@contextmanager
def stage(
    *, slowness: float = 0.08, workers: int = WORKERS, fsync: str = "always"
) -> Iterator[Stage]:
    """Start all, and kill all at the end.

    With "everysec" Redis may lose what it has acknowledged while the disk is slow.
    """
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(("--appendfsync", fsync)))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="workers-")))
        runs_file = folder / "runs"
        runs_file.touch()
        made = [Worker(redis.url, runs_file, slowness) for _ in range(workers)]
        for worker in made:
            worker.begin()
            stack.callback(worker.kill)
        for worker in made:
            worker.wait()
        proxy = SpreadingProxy([worker.port for worker in made])
        yield Stage(redis, made, stack.enter_context(proxy.running()), runs_file)


# What can happen. Each waits for its moment, and returns when all is as before.


class Faults:
    """What happens to workers, their Redis, and the proxy.

    Args:
        stage: The workers and what is around them.
        finished: Returns how many requests have ended.
    """

    def __init__(self, stage: Stage, finished: "Counts") -> None:
        self._stage = stage
        self._finished = finished

    def worker(self, number: int) -> None:
        """SIGKILL of a worker, which answers somebody."""
        worker = self._busy(number)
        worker.kill()
        worker.begin()
        worker.wait()

    def program_worker(self, number: int) -> None:
        """SIGKILL of all processes of a worker that run programs, or keep them for their tools."""
        worker = self._busy(number)
        wait_until(lambda: bool(worker.program_workers()), lambda: "no program ran")
        for process in worker.program_workers():
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(process, signal.SIGKILL)

    def redis(self, _number: int) -> None:
        """SIGKILL of Redis, which is started again with its file."""
        self._until_busy(None)
        self._stage.redis.kill()
        self._stage.redis.start()

    def proxy(self, _number: int) -> None:
        """Reset of all connections."""
        self._until_busy(None)
        self._stage.proxy.cut()

    def away(self, number: int) -> None:
        """SIGSTOP of a worker until others have taken its sessions over, and SIGCONT."""
        worker, proxy = self._busy(number), self._stage.proxy
        worker.send_signal(signal.SIGSTOP)
        try:
            proxy.take_out(worker.port)
            time.sleep(1.3 * LEASE_SECONDS)  # time is the subject
            proxy.cut(worker.port)  # as a load balancer does when a worker does not answer
            enough = self._finished.total() + 30
            wait_until(lambda: self._finished.total() >= enough, lambda: "the others do not answer")
        finally:
            worker.send_signal(signal.SIGCONT)
            proxy.put_back(worker.port)

    def _busy(self, number: int) -> Worker:
        worker = self._stage.workers[number % WORKERS]
        self._until_busy(worker.port)
        return worker

    def _until_busy(self, port: int | None) -> None:
        proxy = self._stage.proxy
        wait_until(lambda: proxy.waiting_at(port) > 0, lambda: "nobody waits for an answer")


Counts = Counter[str]
FAULTS = ("worker", "program_worker", "redis", "proxy", "away")
