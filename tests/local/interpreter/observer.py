"""Watches a process that runs hostile programs, from outside of it."""

import json
import os
import re
import secrets
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from langchain_sequrity.local.interpreter import Limits
from tests.local.interpreter.corpus.case import Case
from tests.local.interpreter.victim import as_request

SECONDS = 2.0
MEGABYTES = 200.0
_PATIENCE = 10.0  # a program is stopped then; on a busy machine 2 s of work can take that long
_ROOT = Path(__file__).parents[3]
_TICKS = os.sysconf("SC_CLK_TCK")
_HOST_OBJECT = re.compile(
    r"\bat 0x[0-9a-f]+|<class '|<module |<frame |langchain_sequrity\.|/lib/python"
)
STRICT = Limits(steps=200_000, seconds=1.0, memory=40_000_000, calls=1_000)
"""The default limits with fewer steps, calls and less memory, so that a thousand programs are over soon."""


def limits_of(case: Case, limits: Limits = STRICT) -> Limits:
    """The limits for one program."""
    return limits if case.memory is None else replace(limits, memory=case.memory)


@dataclass(frozen=True, slots=True)
class Seen:
    """How a program ended, and what that took."""

    ends: str
    says: str = ""
    value: Any = None
    tags: tuple[str, ...] = ()
    trespasses: tuple[str, ...] = ()
    text: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0

    def faults(self, case: Case, canary: str) -> list[str]:
        """What is not as it has to be; empty if all is well."""
        faults = list(self.trespasses)
        allowed = ("gives", "budget") if case.ends == "ends" else (case.ends,)
        if self.ends not in allowed or case.says not in self.says:
            faults.append(
                f"{case.ends} {case.says!r} expected, came {self.ends} {self.says!r:.200}"
            )
        if case.ends == "gives" and (self.value, self.tags) != (case.value, case.tags):
            wanted = f"{case.value!r} with {case.tags}"
            faults.append(f"{wanted} expected, came {self.value!r:.200} with {self.tags}")
        if self.seconds > SECONDS:
            faults.append(f"took {self.seconds:.2f} s")
        if self.megabytes > MEGABYTES:
            faults.append(f"took {self.megabytes:.0f} MB")
        if canary in self.text or _HOST_OBJECT.search(self.text):
            faults.append(f"shows what is not the program's: {self.text:.300}")
        return faults


@dataclass
class Observer:
    """A process for hostile programs, started again whenever one ends it.

    Args:
        package: Folder to import the package from, if not this repository.
    """

    package: Path = _ROOT
    canary: str = field(default_factory=lambda: secrets.token_hex(16))

    def __post_init__(self) -> None:
        """Start in an empty folder, which has to stay empty."""
        self._folder = tempfile.TemporaryDirectory(prefix="victim-")
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()

    def faults(self, case: Case, limits: Limits = STRICT) -> list[str]:
        """Run a program and say what is wrong with its end."""
        faults = self.watch(case, limits).faults(case, self.canary)
        return faults + [f"left {path.name}" for path in Path(self._folder.name).iterdir()]

    def watch(self, case: Case, limits: Limits = STRICT) -> Seen:
        """Run a hostile program and measure it."""
        return self.run(case.program, limits_of(case, limits))

    def run(self, program: str, limits: Limits = STRICT) -> Seen:
        """Run a program and measure it."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        before = _memory(process.pid, reset=True)
        used, start = _cpu(process.pid), time.monotonic()
        try:
            process.stdin.write(as_request(program, limits) + "\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], _PATIENCE)
            line = process.stdout.readline() if ready else ""
        except BrokenPipeError:
            line = ""
        if not line:
            self.stop()
            how = "crashed" if ready else "did not end"
            return Seen(how, seconds=time.monotonic() - start)
        # Time of the processor, for a machine that is busy with something else.
        spent = _cpu(process.pid)
        seconds = time.monotonic() - start if used is None or spent is None else spent - used
        megabytes = max(_memory(process.pid) - before, 0.0)
        data = json.loads(line)
        return Seen(
            data["ends"],
            data["says"],
            data.get("value"),
            tuple(data.get("tags", ())),
            tuple(data["trespasses"]),
            line,
            seconds,
            megabytes,
        )

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            environment = {
                "PYTHONPATH": os.pathsep.join([str(self.package), str(_ROOT)]),
                "PYTHONDONTWRITEBYTECODE": "1",
                "CANARY": self.canary,
            }
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.local.interpreter.victim"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=self._folder.name,
                env=environment,
            )
            self.run("1")  # what is only paid once is not the first program's
        return self._process

    def stop(self) -> None:
        """End the process; the next program gets a new one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _cpu(pid: int) -> float | None:
    """Seconds of the processor that a process used so far, where the system says so."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory(pid: int, *, reset: bool = False) -> float:
    """The most megabytes that a process held since the last reset, where the system says so."""
    folder = Path(f"/proc/{pid}")
    try:
        if reset:
            (folder / "clear_refs").write_text("5")
        match = re.search(r"VmHWM:\s+(\d+)", (folder / "status").read_text())
    except OSError:
        return 0.0
    return int(match[1]) / 1024 if match else 0.0
