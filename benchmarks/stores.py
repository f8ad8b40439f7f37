"""What sessions in Redis cost a worker, and how many workers serve how many requests.

A step of a dual-LLM turn is measured as in `gateway`, beside the same worker with sessions in
memory. Then many clients, each on a connection of its own, run such turns against some workers at
once. All run on this machine, clients and Redis too; the figures are the processor time of the
workers, and how long replies take. Without `redis-server` there are no figures.
"""

import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median, quantiles

import redis
import redis.backoff
import redis.retry

from benchmarks.gateway import Connection, Server, measured, running_server, turn
from benchmarks.measure import TRIAL, Effort, interleaved
from benchmarks.report import Goal, Row

_MEMORY, _REDIS = "LocalServer", "with Redis"
_MICRO, _MILLI = 1e6, 1e3
_COST_GOAL = 500  # µs a step
_TAIL_GOAL = 5  # times the median
_CLIENTS = 50
_WORKERS = (1, 2, 4)
_SECONDS, _TRIAL_SECONDS, _WARM_UP = 8.0, 0.2, 4  # warm for a part of the time


def measure(_base_url: str, effort: Effort) -> list[Row]:
    if shutil.which("redis-server") is None:
        return []
    with _redis() as url:
        rows = [_cost(url, effort)]
        seconds = _TRIAL_SECONDS if effort is TRIAL else _SECONDS
        return rows + [_crowd(url, workers, seconds) for workers in _WORKERS]


@contextmanager
def _redis() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--dir", folder, "--logfile", "log"]
        process = subprocess.Popen([*command, *options])  # noqa: S603 - our own command
        try:
            with redis.Redis(port=port, retry=redis.retry.Retry(_patience(), 100)) as client:
                client.ping()
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _patience() -> "redis.backoff.ConstantBackoff":
    return redis.backoff.ConstantBackoff(0.1)


def _cost(url: str, effort: Effort) -> Row:
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(running_server("in-process", *arguments))
            for name, arguments in ((_MEMORY, ()), (_REDIS, (url,)))
        }
        samples = interleaved({n: measured(s, turn) for n, s in servers.items()}, effort)
    pairs = zip(samples[_REDIS], samples[_MEMORY], strict=True)
    added = median(shared - alone for shared, alone in pairs) * _MICRO
    figures = {name: median(seconds) * _MICRO for name, seconds in samples.items()}
    goal = Goal("added by the store, µs", added, _COST_GOAL)
    return Row("store: dual-LLM step", figures, goals=[goal])


def _crowd(url: str, workers: int, seconds: float) -> Row:
    with ExitStack() as stack:
        servers = [stack.enter_context(running_server("in-process", url)) for _ in range(workers)]
        _latencies(servers, seconds / _WARM_UP)
        used = -sum(server.seconds() for server in servers)
        began = time.perf_counter()
        latencies = _latencies(servers, seconds)
        wall = time.perf_counter() - began
        used += sum(server.seconds() for server in servers)
    middle, last = median(latencies), quantiles(latencies, n=100)[-1]
    figures = {
        "requests a CPU second": len(latencies) / used,
        "requests a second": len(latencies) / wall,
        "p50 ms": middle * _MILLI,
        "p99 ms": last * _MILLI,
    }
    goal = Goal("p99 / p50", last / middle, _TAIL_GOAL)
    return Row(f"store: {_CLIENTS} clients, {workers} workers", figures, goals=[goal])


def _latencies(servers: Sequence[Server], seconds: float) -> list[float]:
    """How long each reply took, of clients that ask one after the other."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    class Timed(Connection):
        def send(self, request: bytes) -> bytes:
            began = time.perf_counter()
            reply = super().send(request)
            latencies.append(time.perf_counter() - began)
            return reply

    def work(port: int) -> None:
        connection = Timed(port)
        while time.perf_counter() < end:
            turn(connection)

    ports = [servers[number % len(servers)].port for number in range(_CLIENTS)]
    threads = [threading.Thread(target=work, args=(port,)) for port in ports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies
