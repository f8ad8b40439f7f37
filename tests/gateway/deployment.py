"""Where the example of a gateway is, and the tools that check it."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "gateway"
_FOLDERS = (Path(sys.executable).parent, ROOT / ".venv-deployment" / "bin")


def tool(name: str) -> str:
    """The path of a tool; without it, the test is skipped."""
    path = os.pathsep.join([*map(str, _FOLDERS), os.environ.get("PATH", "")])
    executable = shutil.which(name, path=path)
    if executable is None:
        pytest.skip(f"{name} is not installed: `make deployment` installs it, or the system has it")
    return executable


def run(*command: str | Path) -> "subprocess.CompletedProcess[str]":
    """What a command returned and printed."""
    return subprocess.run(command, check=False, capture_output=True, encoding="utf-8")  # noqa: S603


def free_port() -> str:
    """A port that no other test gets from the system, which chooses from 32,768 on."""
    while True:
        port = secrets.choice(range(20_000, 30_000))
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return str(port)
