"""The commands of "From an empty machine to a team" in `docs/gateway.md` run, in their order.

Commands of the page differ from what is run in two points: the port is a free one, and instead of
`pip install`, the new environment gets this checkout and the packages of the tests. Commands of
Docker, systemd and Kubernetes are not run (`NOT_RUN`); `test_delivered.py` checks their files.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.gateway.deployment import ROOT, free_port

PAGE = (ROOT / "docs" / "gateway.md").read_text()
SECTION = PAGE.partition("## From an empty machine to a team\n")[2].partition("\n## ")[0]
_BLOCK = re.compile(r"^```(console|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BEGIN, _END = "\x1e", "\x1f"
_SECONDS = 300

INSTALLED = 'pip install --quiet "langchain-sequrity[gateway]" openai'
STATUS = {"langchain-sequrity policy simulate": 1}
"""Exit statuses other than 0, by the begin of the command."""
NOT_RUN = [
    "docker build -f examples/gateway/Containerfile -t langchain-sequrity-gateway:0.1.0 .",
    "docker compose up --build --detach",
    "docker compose kill --signal HUP gateway",
    "systemctl enable --now langchain-sequrity",
    "systemctl reload langchain-sequrity",
    "kubectl apply -k examples/gateway",
    "kubectl exec deploy/langchain-sequrity -- sh -c 'kill -HUP 1'",
]


@dataclass
class Step:
    """A command, or all commands of a block, with the output that the page shows."""

    command: str
    output: list[str] = field(default_factory=list)


def steps() -> Iterator[Step]:
    for language, body in _BLOCK.findall(SECTION):
        if language == "sh":
            yield Step(body)
        else:
            yield from _console_steps(body)


def _console_steps(body: str) -> Iterator[Step]:
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        length = next(i for i, line in enumerate(lines, 1) if not line.endswith("\\"))
        yield Step("\n".join(lines[:length]), lines[length:])


def checkout_installer() -> str:
    """What is run instead of `pip install`."""
    script = '#!/bin/sh\nexec python -m langchain_sequrity.cli "$@"\n'
    paths = f"{ROOT}\n{sysconfig.get_path('purelib')}\n"
    target = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return (
        f'printf %s \'{paths}\' > "$(python -c "{target}")/checkout.pth"\n'
        f"printf %s '{script}' > .venv/bin/langchain-sequrity\n"
        "chmod +x .venv/bin/langchain-sequrity"
    )


def as_script(commands: list[str]) -> str:
    """A script that prints a mark before each command, and one with its status behind it."""
    parts = ["exec 2>&1"]
    for command in commands:
        parts += [f"printf '{_BEGIN}'", command, f'printf "{_END}$?"']
    return "\n".join([*parts, ""])


def run(script: str, folder: Path, port: str) -> str:
    """The script's output. Whatever it leaves running is ended."""
    with subprocess.Popen(  # noqa: S603 - the commands of our own page
        ["bash", "-c", script], cwd=folder, env=environment(port), start_new_session=True,  # noqa: S607
        encoding="utf-8", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            return process.communicate(timeout=_SECONDS)[0]
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def environment(port: str) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    server = {"SEQURITY_GATEWAY_SERVER__PORT": port}
    return {**inherited, **server, "PATH": path, "COLUMNS": "200", "no_proxy": "*"}


def results(output: str) -> list[tuple[list[str], int]]:
    """The printed lines and the exit status of each command."""
    return [
        ([line.rstrip() for line in text.splitlines()], int(status))
        for text, status in re.findall(f"{_BEGIN}(.*?){_END}(\\d+)", output, re.DOTALL)
    ]


def mismatches(output: list[str], shown: list[str]) -> list[str]:
    """Differences between the lines of an output and those of the page; a line `…` is any number."""
    pattern = "".join("(?:.*\n)*" if line == "…" else _line_pattern(line) for line in shown)
    text = "".join(f"{line}\n" for line in output)
    return [] if re.fullmatch(pattern, text) else [f"shown: {shown}", f"printed: {output}"]


def _line_pattern(shown: str) -> str:
    return ".*".join(map(re.escape, shown.split("…"))) + "\n"


@pytest.mark.skipif(sys.platform == "win32", reason="the page's commands are for a POSIX shell")
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_every_command_of_the_first_hour_runs_and_prints_what_the_page_shows(
    tmp_path: Path,
) -> None:
    port, page_steps = free_port(), list(steps())
    commands = [
        checkout_installer() if step.command == INSTALLED else step.command.replace("8787", port)
        for step in page_steps
    ]
    output = run(as_script(commands), tmp_path, port)
    printed = results(output)
    assert len(printed) == len(page_steps), output
    for step, (lines, status) in zip(page_steps, printed, strict=True):
        shown = [line.replace("8787", port) for line in step.output]
        assert mismatches(lines, shown) == [], step.command
        assert status == expected_status(step.command), (step.command, lines)


def expected_status(command: str) -> int:
    return next((code for begin, code in STATUS.items() if command.startswith(begin)), 0)


def test_the_page_installs_an_extra_that_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [step.command for step in steps() if step.command.startswith("pip")] == [INSTALLED]
    assert "gateway" in project["optional-dependencies"]


def test_all_commands_of_the_page_are_run_or_listed_as_not_run() -> None:
    assert _BLOCK.findall(PAGE) == _BLOCK.findall(SECTION)
    table = [line for line in SECTION.splitlines() if line.startswith("| ")]
    named = re.findall(r"`((?:docker|systemctl|kubectl) [^`]*)`", "\n".join(table))
    assert named == NOT_RUN
