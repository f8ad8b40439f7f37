"""The image of `examples/gateway`, confined as `compose.yaml` says, if somebody has built it."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.deployment import run
from tests.gateway.test_delivered import (
    CONFIG,
    IMAGE,
    asked_to_send_mail,
    compose,
    with_key,
)

STATE = "/var/lib/langchain-sequrity"


def engine() -> str | None:
    """Docker or Podman, whichever has the image."""
    for name in ("docker", "podman"):
        if shutil.which(name) and run(name, "image", "inspect", IMAGE).returncode == 0:
            return name
    return None


ENGINE = engine()
pytestmark = pytest.mark.skipif(
    ENGINE is None, reason=f"there is no image {IMAGE}; its Containerfile says how it is built"
)


def checked(*command: str | Path) -> str:
    done = run(str(ENGINE), *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def confinement() -> Iterator[str]:
    """The options of `run` for what the compose file says of its gateway."""
    service: dict[str, Any] = compose()["services"]["gateway"]
    assert service["read_only"]
    yield from ["--read-only", "--init", "--user", service["user"]]
    yield from [f"--cap-drop={name}" for name in service["cap_drop"]]
    yield from [f"--security-opt={text.partition(':')[0]}" for text in service["security_opt"]]
    yield f"--pids-limit={service['pids_limit']}"
    yield f"--memory={service['mem_limit']}"
    yield f"--ulimit=nofile={service['ulimits']['nofile']}"


@contextmanager
def container(config: Path) -> Iterator[tuple[str, str]]:
    """A running container and the URL of its gateway."""
    variable = "SEQURITY_GATEWAY_SERVER__ISOLATED_PROGRAMS=true"
    mounts = ["-v", f"{config}:/etc/langchain-sequrity:ro", "-v", STATE]
    options = ["--detach", "--publish", "127.0.0.1::8787", "--env", variable]
    name = checked("run", *options, *confinement(), *mounts, IMAGE)
    try:
        url = f"http://{checked('port', name, '8787')}"
        wait_until_ready(url, name)
        yield name, url
    finally:
        checked("rm", "--force", "--volumes", name)


def wait_until_ready(url: str, name: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{url}/ready", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            assert time.monotonic() < deadline, run(str(ENGINE), "logs", name)
        time.sleep(0.1)


def test_the_confined_image_runs_programs_in_workers_and_stops_when_asked(tmp_path: Path) -> None:
    config = with_key(shutil.copytree(CONFIG.parent, tmp_path / "config"), "sq-agent")
    with container(config) as (name, url):
        assert asked_to_send_mail(url, "sq-agent")["error"]["code"] == "policy_violation"
        [line] = checked("exec", name, "cat", f"{STATE}/audit.jsonl").splitlines()
        assert json.loads(line)["verdict"] == "hard_denied"
        assert checked("exec", name, "id", "-u") == "10001"
        checked("stop", "--time", "40", name)
        assert checked("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
        assert '"Stopped."' in checked("logs", name)
