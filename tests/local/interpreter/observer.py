"""Runs hostile programs in a process, and watches that process from outside."""

import json
import os
import re
import secrets
import selectors
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from langchain_sequrity.local.interpreter import Limits
from tests.local.interpreter.corpus.case import Case, with_any_limits
from tests.local.interpreter.victim import as_request

SECONDS = 2.0
MEGABYTES = 200.0
_MOST = 4.0  # CPU seconds after which a program is stopped; it has failed long before
_PATIENCE = 60.0  # the same in wall-clock time, for a program that waits; a busy machine is slow
_ROOT = Path(__file__).parents[3]
_TICKS = os.sysconf("SC_CLK_TCK")
_HOST_OBJECT = re.compile(
    r"\bat 0x[0-9a-f]+|<class '|<module |<frame |langchain_sequrity\.|/lib/python"
)
STRICT = Limits(steps=200_000, regex_seconds=0.2, memory=40_000_000, calls=1_000, call_seconds=0.0)
"""The default limits with fewer steps, calls and less memory, so that 1,000 programs end soon."""


def limits_of(case: Case) -> Limits:
    """The strict limits for one program.

    If another limit must end the program, it gets more time: a slow machine needs it.
    """
    names_another = case.says.startswith("`") and "seconds`" not in case.says
    seconds = case.seconds or (_MOST if names_another else STRICT.seconds)
    memory = case.memory or STRICT.memory
    return replace(STRICT, memory=memory, seconds=seconds, total_seconds=seconds)


@dataclass(frozen=True, slots=True)
class Seen:
    """How a program ended, and the time and memory that it used."""

    ends: str
    says: str = ""
    value: Any = None
    tags: tuple[str, ...] = ()
    trespasses: tuple[str, ...] = ()
    text: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0

    def faults(self, case: Case, canary: str) -> list[str]:
        """The differences from what the case expects; empty if there are none."""
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
    """A process for hostile programs. If a program ends it, the next one gets a new process.

    Args:
        package: Folder to import the package from; this repository by default.
    """

    package: Path = _ROOT
    canary: str = field(default_factory=lambda: secrets.token_hex(16))

    def __post_init__(self) -> None:
        """Make an empty folder for the process. It must stay empty."""
        self._folder = tempfile.TemporaryDirectory(prefix="victim-")
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()

    def faults(self, case: Case) -> list[str]:
        """Run a program with strict limits and return its faults."""
        return self.judge(case, self.run(case.program, limits_of(case)))

    def faults_in_use(self, case: Case) -> list[str]:
        """Run a program with the default limits and return its faults."""
        return self.judge(with_any_limits(case), self.run(case.program, Limits()))

    def judge(self, case: Case, seen: Seen) -> list[str]:
        """Return the faults of a program that was run, files that it left among them."""
        faults = seen.faults(case, self.canary)
        return faults + [f"left {path.name}" for path in Path(self._folder.name).iterdir()]

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
            is_over = _answers(process, used)
            line = process.stdout.readline() if is_over else ""
        except BrokenPipeError:
            is_over, line = True, ""
        if not line:
            self.stop()
            how = "crashed" if is_over else "did not end"
            return Seen(how, seconds=_MOST)
        # CPU time, because the machine may be busy with something else.
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
            started = self._process
            # The first measured program must not pay for the start of the process.
            assert self.run("1").ends == "gives", "The process for hostile programs does not start."
            return started
        return self._process

    def stop(self) -> None:
        """End the process; the next program gets a new one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _answers(process: subprocess.Popen[str], used: float | None) -> bool:
    """Wait until the process answers or ends; return False if the program takes too long."""
    assert process.stdout is not None
    end = time.monotonic() + _PATIENCE
    # Not `select.select`, which knows no descriptors above 1,023.
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < end:
            if selector.select(0.25):
                return True
            spent = _cpu(process.pid)
            if used is not None and spent is not None and spent - used > _MOST:
                return False
    return False


def _cpu(pid: int) -> float | None:
    """CPU seconds that a process has used so far; `None` without `/proc`."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory(pid: int, *, reset: bool = False) -> float:
    """Peak memory of a process since the last reset, in megabytes; 0 without `/proc`."""
    folder = Path(f"/proc/{pid}")
    try:
        if reset:
            (folder / "clear_refs").write_text("5")
        match = re.search(r"VmHWM:\s+(\d+)", (folder / "status").read_text())
    except OSError:
        return 0.0
    return int(match[1]) / 1024 if match else 0.0
