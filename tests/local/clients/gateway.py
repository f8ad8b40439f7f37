"""The gateway that all clients are pointed at, and a relay that cuts its replies."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_sequrity.gateway.server import Gateway
from langchain_sequrity.local import ApiKey, LocalServer
from tests.local.clients.answers import Target

POLICY = 'tool "pay" { must deny when amount.value in {int 100..}; }'
DENIED = "Tool call to 'pay' is denied"
ARCHITECTURES = ("single-llm", "dual-llm")
# Settings of a key for clients that know nothing of dual-LLM replies, as the page shows them.
CONFIG = """
[keys.config]
response_format = {strip_response_content = true}
fsm = {history_mismatch_policy = "restart_turn"}
"""
SCRIPT = """
- when: {user: "slowly"}
  error: {status: 429, message: Slow down., retry_after: 0.01}
  times: 1
"""
KEY = """
[[keys]]
name = "{name}"
digest = "{digest}"
models = ["assistant"]
policy = '{policy}'
features = {{agent_arch = "{architecture}"}}
"""


@dataclass
class Running:
    """A gateway that runs."""

    server: LocalServer

    @property
    def origin(self) -> str:
        return self.server.base_url

    def target(self, architecture: str, *, retries: bool = False) -> Target:
        """For the key of an architecture."""
        return Target(self.origin, f"sq-{architecture}", retries=retries)

    @property
    def sessions(self) -> set[str]:
        """Ids of the sessions."""
        sessions: Any = self.server.sessions  # a store need not list them
        return {session.id for session in sessions}


@contextmanager
def gateway(folder: Path) -> Iterator[Running]:
    """A server as `serve --config` makes it: a key with a policy for each architecture."""
    text = '[server]\nport = 0\nscript = "script.yaml"\n'
    for name in ARCHITECTURES:
        digest = ApiKey.from_secret(f"sq-{name}", name).digest
        text += KEY.format(name=name, digest=digest, policy=POLICY, architecture=name)
    (folder / "gateway.toml").write_text(text + CONFIG)  # the last key is that of dual-LLM
    (folder / "script.yaml").write_text(SCRIPT)
    with Gateway(folder / "gateway.toml").server as server:
        yield Running(server)


@contextmanager
def cut_after(origin: str, marker: bytes) -> Iterator[str]:
    """A relay that closes a connection as soon as a reply contains the marker."""
    port = int(origin.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, port, marker), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        with suppress(OSError):  # wakes the thread
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, port: int, marker: bytes) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=_pump, args=(client, server), daemon=True).start()
            threading.Thread(target=_pump, args=(server, client, marker), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, marker: bytes | None = None) -> None:
    passed = b""
    with suppress(OSError):
        while data := source.recv(65_536):
            end = (passed + data).find(marker) if marker else -1
            if marker and end >= 0:
                sink.sendall(data[: max(end + len(marker) - len(passed), 0)])
                break
            sink.sendall(data)
            passed += data
    for connection in (source, sink):
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
