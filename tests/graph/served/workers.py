"""Two workers of the gateway that share one Redis, and a proxy that gives each request to the next.

Worker and proxy run as long as their context.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Self

import httpx
import pytest
from typing_extensions import override

from tests.stores.redis_servers import redis_server, why_unavailable

needs_redis = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "installed")
_WAIT_SECONDS = 30
_CONNECTION_HEADERS = {"connection", "transfer-encoding", "content-length", "content-encoding"}


class Worker:
    """A process of the gateway.

    Args:
        redis_url: Address of the Redis.
    """

    def __init__(self, redis_url: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "tests.graph.served.worker", redis_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        self.base_url = self._process.stdout.readline().strip()

    def kill(self) -> None:
        """Kill it as the system does when memory is short."""
        self._process.kill()
        self._process.communicate()


class RoundRobin:
    """A proxy that gives each request to the next worker, and passes over those that are gone.

    Args:
        workers: The workers.

    Attributes:
        served: For each request that a worker answered, the worker's number and the status.
        kill_at: The number of the request in which the worker that has it is killed.
    """

    def __init__(self, workers: list[Worker]) -> None:
        self.workers = workers
        self.served: list[tuple[int, int]] = []
        self.kill_at = -1
        self.killed: set[int] = set()
        self._sent = 0
        self._lock = Lock()
        self._client = httpx.Client(trust_env=False, timeout=_WAIT_SECONDS)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._client.close()

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> httpx.Response:
        """The reply of the next worker; 502 if the worker is killed meanwhile."""
        with self._lock:
            number, self._sent = self._sent, self._sent + 1
            alive = [n for n in range(len(self.workers)) if n not in self.killed]
            worker = alive[number % len(alive)]
        url = self.workers[worker].base_url + path
        if number == self.kill_at:
            return self._killed(worker, url, headers, body)
        reply = self._client.post(url, headers=headers, content=body)
        with self._lock:
            self.served.append((worker, reply.status_code))
        return reply

    def _killed(
        self, worker: int, url: str, headers: dict[str, str], body: bytes
    ) -> httpx.Response:
        """Send a request whose reply does not arrive, since its worker is killed.

        The worker may have done nothing, something or all of it.
        """
        sending = Thread(target=self._lose, args=(url, headers, body))
        sending.start()
        sending.join(timeout=_MOMENT)
        self.workers[worker].kill()
        self.killed.add(worker)
        sending.join()
        return httpx.Response(502)

    def _lose(self, url: str, headers: dict[str, str], body: bytes) -> None:
        try:
            self._client.post(url, headers=headers, content=body)
        except httpx.TransportError:
            return


_MOMENT = 0.004
"""Seconds that a worker has of the request in which it is killed; a request takes about ten."""


def _handler_of(proxy: RoundRobin) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            excluded = {*_CONNECTION_HEADERS, "host", "accept-encoding"}
            sent = {k: v for k, v in self.headers.items() if k.lower() not in excluded}
            reply = proxy.answer(self.path, {**sent, "Accept-Encoding": "identity"}, body)
            self.send_response(reply.status_code)
            for name, value in reply.headers.items():
                if name not in _CONNECTION_HEADERS:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            self.wfile.write(reply.content)

        @override
        def log_message(self, *_: object) -> None:
            """Write nothing."""

    return Handler


@contextmanager
def two_workers() -> Iterator[RoundRobin]:
    """Two workers with one Redis behind a proxy."""
    with ExitStack() as stack:
        redis_url = stack.enter_context(redis_server()).url
        workers: list[Worker] = []
        for _ in range(2):
            workers.append(Worker(redis_url))
            stack.callback(workers[-1].kill)
        yield stack.enter_context(RoundRobin(workers))
