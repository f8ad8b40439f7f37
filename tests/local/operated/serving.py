"""`serve` as a process, and conditions to wait for."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.local.api import WAIT


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Look at another thread or process until a condition holds."""
    deadline = time.monotonic() + 3 * WAIT
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"It did not happen: {what}")
        time.sleep(0.01)


@contextmanager
def serving(
    stdout: IO[bytes] | int, stderr: Path, *arguments: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that runs `serve`."""
    with (
        stderr.open("wb") as errors,
        subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "langchain_sequrity.cli", "serve", *arguments],
            stdout=stdout, stderr=errors, env={**os.environ, "FORCE_COLOR": ""},
        ) as process,
    ):  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def url_in(text: str) -> str:
    """The URL that `serve` prints first, or an empty text."""
    match = re.search(r"http://[\d.:]+", text)
    return match[0] if match else ""
