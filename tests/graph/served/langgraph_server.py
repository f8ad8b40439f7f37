"""LangGraph's development server as a process, with the graph of `examples/langgraph_server`."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "langgraph_server"
_COMMAND = Path(sys.executable).with_name("langgraph")
_WAIT_SECONDS = 60

needs_langgraph_server = pytest.mark.skipif(
    not _COMMAND.exists() or importlib.util.find_spec("langgraph_api") is None,
    reason="the development server is not installed (pip install 'langgraph-cli[inmem]')",
)


@contextmanager
def langgraph_server(
    folder: Path, base_url: str, *, config: str = "langgraph.json", **settings: str
) -> Iterator[str]:
    """A copy of the example on a development server.

    Args:
        folder: Where the copy is, with the server's own files; it is made if it does not exist.
        base_url: Address of the gateway.
        config: The configuration.
        **settings: Further environment variables.

    Yields:
        The address of the server.
    """
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(_COMMAND), "dev", "--no-browser", "--no-reload", "--port", str(port)]
    environment = {
        **os.environ,
        "SEQURITY_BASE_URL": base_url,
        "LANGSMITH_TRACING": "false",
        "LANGGRAPH_NO_VERSION_CHECK": "true",
        **settings,
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*command, "--config", config],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _await(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        process.wait()


def _await(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + _WAIT_SECONDS
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < until and process.poll() is None:
            try:
                if client.get(f"{url}/ok").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
    pytest.fail(f"The development server does not start:\n{log.read_text()[-2000:]}")
