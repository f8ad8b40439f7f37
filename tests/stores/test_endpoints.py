"""The endpoints with sessions in a cluster: a sample of `make test-redis`."""

import subprocess
import sys

import pytest

from tests.stores.redis_servers import why_unavailable


@pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "installed")
def test_endpoints_work_with_sessions_in_a_cluster() -> None:
    files = ["tests/local/test_sessions.py", "tests/local/dual_llm/test_turns.py"]
    options = ["-q", "-m", "not long", "--store", "redis", "-p", "no:xdist"]
    command = [sys.executable, "-m", "pytest", *options, *files]

    run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command

    assert run.returncode == 0, run.stdout[-5_000:]
    assert " passed" in run.stdout
