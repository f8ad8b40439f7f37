"""Redis for tests: one server, or a cluster of two shards, each in a temporary folder.

A server that is started again has the same port and folder, so it reads what it had written.
"""

import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

_PATIENCE = 60.0
"""Seconds within which a server answers; on an idle machine it takes a few hundredths."""
_SLOTS = 16_384
_NODE_TIMEOUT = 2_000  # milliseconds after which nodes of the cluster regard another one as failed


def why_unavailable() -> str:
    """Why no Redis can be started here, or an empty text."""
    if shutil.which("redis-server") is None:
        return "`redis-server` is not installed (Debian: apt-get install redis-server)"
    return ""


def free_port() -> int:
    """A port that nothing listens on, below those that the system gives to connections.

    Otherwise a connection could take the port of a server while this one is started again.
    """
    while True:
        # Not seeded, as pytest seeds `random` in all its processes alike.
        port = 20_000 + secrets.randbelow(10_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


class RedisServer:
    """A Redis that appends each command to a file, and writes it to the disk once a second.

    Args:
        folder: Where its files are.
        options: Further options of `redis-server`, such as `("--maxmemory", "10mb")`; a later
            option replaces an earlier one.
    """

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.bus_port = free_port()  # of a cluster; by default one that a connection may have
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address, for clients."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has written about itself."""
        return (self._folder / "log").read_text("utf-8", "replace")

    def start(self) -> None:
        """Start it, and return once it has read its file and answers."""
        self._folder.mkdir(exist_ok=True)
        # `--save ""`: no snapshots. They would hide that the file of commands was lost.
        command = [
            "redis-server", "--port", str(self.port), "--cluster-port", str(self.bus_port), "--bind", "127.0.0.1", "--dir",
            str(self._folder), "--logfile", "log", "--save", "", "--appendonly", "yes",
            "--appendfsync", "everysec", *self._options,
        ]  # fmt: skip
        self._process = subprocess.Popen(command)  # noqa: S603 - our own command
        with self.client() as client:
            wait_until(lambda: self._is_up(client), lambda: f"Redis does not answer:\n{self.log}")

    def _is_up(self, client: "redis.Redis") -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"Redis did not start:\n{self.log}"
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # also while it reads its file
            return False

    def client(self) -> "redis.Redis":
        """A client of this server alone."""
        password = dict(zip(self._options, self._options[1:], strict=False)).get("--requirepass")
        return redis.Redis(
            port=self.port, password=password, decode_responses=True, socket_timeout=5
        )

    def kill(self) -> None:
        """Kill it as the system does when memory is short."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Let it write its file and end."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop its process, which keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after `pause`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextmanager
def redis_server(options: Sequence[str] = ()) -> Iterator[RedisServer]:
    """A running server, which is killed at the end."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder), options)
        try:
            server.start()
            yield server
        finally:
            server.kill()


class RedisCluster:
    """Two shards; the first has a replica.

    Args:
        servers: The first master, the second one, and the replica of the first; they run.
    """

    def __init__(self, servers: Sequence[RedisServer]) -> None:
        self.servers = servers
        self.masters, self.replica = servers[:2], servers[2]

    @property
    def url(self) -> str:
        """Its address, for clients of a cluster."""
        return f"redis+cluster://127.0.0.1:{self.masters[0].port}"

    def join(self) -> None:
        """Make a cluster of the servers.

        `redis-cli --cluster create` would refuse fewer than three masters.
        """
        with ExitStack() as stack:
            first, second, replica = nodes = [
                stack.enter_context(server.client()) for server in self.servers
            ]
            for epoch, node in enumerate(nodes, 1):
                _command(node, "SET-CONFIG-EPOCH", epoch)
            _command(first, "ADDSLOTSRANGE", 0, _SLOTS // 2 - 1)
            _command(second, "ADDSLOTSRANGE", _SLOTS // 2, _SLOTS - 1)
            for server in self.servers[1:]:
                _command(first, "MEET", "127.0.0.1", server.port, server.bus_port)
            master_id = _command(first, "MYID")
            wait_until(
                lambda: all(_known_masters(node) == len(nodes) for node in nodes),
                lambda: "the nodes do not know each other",
            )
            _command(replica, "REPLICATE", master_id)
            self.wait()

    def wait(self) -> None:
        """Wait until all nodes serve, and the replica follows its master."""
        with ExitStack() as stack:
            nodes = [stack.enter_context(server.client()) for server in self.servers]
            wait_until(
                lambda: (
                    all("cluster_state:ok" in _command(node, "INFO") for node in nodes)
                    and "master_link_status:up" in str(nodes[-1].info("replication"))
                ),
                lambda: "\n".join(server.log for server in self.servers),
            )


def _command(node: "redis.Redis", *words: Any) -> Any:
    # Parsed replies of some of these commands are those of a cluster's client.
    node.response_callbacks.clear()
    return node.execute_command("CLUSTER", *words)  # type: ignore[no-untyped-call]


def _known_masters(node: "redis.Redis") -> int:
    lines = _command(node, "NODES").splitlines()
    return sum("master" in line and "handshake" not in line for line in lines)


@contextmanager
def redis_cluster() -> Iterator[RedisCluster]:
    """A running cluster, which is killed at the end."""
    options = (
        "--cluster-enabled", "yes", "--cluster-node-timeout", str(_NODE_TIMEOUT),
        "--repl-diskless-sync-delay", "0",  # 5 s by default, in which more replicas may come
    )  # fmt: skip
    with ExitStack() as stack:
        servers = [stack.enter_context(redis_server(options)) for _ in range(3)]
        cluster = RedisCluster(servers)
        cluster.join()
        yield cluster


def wait_until(is_true: Callable[[], bool], problem: Callable[[], str]) -> None:
    """Look again and again at another process; fails with a problem if nothing changes."""
    end = time.monotonic() + _PATIENCE
    while not is_true():
        assert time.monotonic() < end, problem()
        time.sleep(0.01)
