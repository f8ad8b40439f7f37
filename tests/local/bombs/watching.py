"""Sends bombs to a server and measures it from outside.

The server runs in its own process. One thread requests `/health` all the time. Another reads from
`/proc` how much time and memory the server and its workers use. The server does not measure
itself; only its replies are used.
"""

import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import httpx

from tests.local.api import tool
from tests.local.bombs.bomb import Bomb

SECONDS = 2.0  # CPU time that a program may take between two requests
MEGABYTES = 200.0  # by which the server itself may grow
ANSWERS = 1.0  # seconds within which `/health` must answer
_GIVEN_UP = 8.0  # seconds of CPU time after which the server is killed
_PATIENCE = 120.0  # the same in wall-clock time, for a busy machine
_PAUSE = 0.02  # seconds between two measurements
_MOST_CALLS = 100
_TICKS = os.sysconf("SC_CLK_TCK")
_LIMIT = re.compile(r"the limit `[^`]+`|too deeply")
_CHAT = "/control/chat/v1/chat/completions"
_HEADERS = {
    "Content-Type": "application/json",
    "Authorization": "Bearer sq-bombs",
    "X-Features": json.dumps({"agent_arch": "dual-llm"}),
    "X-Config": json.dumps({"fsm": {"max_pllm_failed_steps": 1}}),
}
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "send",
            "parameters": {"type": "object", "properties": {"to": {}, "body": {}}},
        },
    },
    tool("read"),
]
_TINY = Bomb("nothing", "1", "harmless")
_WARM = 5  # of these are sent before the first bomb


@dataclass(frozen=True, slots=True)
class Seen:
    """How a bomb ended, and the time and memory that it took.

    Attributes:
        ends: `limit`, `refused`, `harmless`, or another ending.
        says: The text of the reply.
        seconds: CPU time, the longest between two requests.
        worker: Megabytes of the largest worker.
        server: Megabytes by which the server itself had grown at its peak.
        health: Seconds of the slowest answer to `/health`.
    """

    ends: str
    says: str = ""
    seconds: float = 0.0
    worker: float = 0.0
    server: float = 0.0
    health: float = 0.0

    def faults(self, bomb: Bomb, *, in_time: bool = True) -> list[str]:
        """The differences from what must be; empty if there are none.

        Args:
            bomb: The bomb that was sent.
            in_time: Whether a slow `/health` counts. A busy machine can make it slow.
        """
        faults = []
        allowed = ("limit", "refused", "harmless") if bomb.ends == "over" else (bomb.ends,)
        if self.ends not in allowed:
            faults.append(f"{bomb.ends} expected, came {self.ends}: {self.says!r:.200}")
        if self.seconds > SECONDS:
            faults.append(f"took {self.seconds:.2f} s of the processor")
        if self.server > MEGABYTES:
            faults.append(f"the server grew by {self.server:.0f} MB")
        if in_time and self.health > ANSWERS:
            faults.append(f"`/health` took {self.health:.2f} s")
        return faults


@dataclass(frozen=True, slots=True)
class _Took:
    """Time and memory that one process has used so far, from `/proc`."""

    seconds: float
    megabytes: float
    most: float

    @classmethod
    def of(cls, pid: int) -> "_Took | None":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return None
        sizes = {name: int(size) / 1024 for name, size in _SIZES.findall(status)}
        spent = (int(fields[11]) + int(fields[12])) / _TICKS
        return cls(spent, sizes.get("VmRSS", 0.0), sizes.get("VmHWM", 0.0))

    def after(self, earlier: "_Took") -> "_Took":
        """Combine with an earlier measurement: a process that has just ended has no memory."""
        return replace(self, most=max(self.most, earlier.most))


_SIZES = re.compile(r"(VmRSS|VmHWM):\s+(\d+)")


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                yield child
                yield from _descendants(child)


@dataclass
class _Health:
    """Requests `/health` again and again and measures the time."""

    url: str
    longest: float = 0.0
    _began: float | None = None
    _is_over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def take(self) -> float:
        """Seconds of the slowest answer since the last call, including a pending one."""
        began = self._began
        waiting = 0.0 if began is None else time.monotonic() - began
        longest, self.longest = max(self.longest, waiting), 0.0
        return longest

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=_PATIENCE, trust_env=False) as client:
            while not self._is_over.wait(_PAUSE):
                self._began = time.monotonic()
                with suppress(httpx.HTTPError):  # the server may have been killed
                    client.get("/health")
                self.longest = max(self.longest, time.monotonic() - self._began)
                self._began = None


class Watched:
    """A server for bombs. If a bomb ends it, the next one gets a new server.

    Args:
        in_process: Whether programs run in the server's own process.
    """

    def __init__(self, *, in_process: bool = False) -> None:
        self._in_process = in_process
        self._server: subprocess.Popen[str] | None = None
        self._session = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, bomb: Bomb) -> Seen:
        """Send a bomb, answer its tool calls, and measure the server meanwhile."""
        server = self._started()
        messages: list[dict[str, Any]] = [{"role": "user", "content": bomb.program}]
        seen, self._session = Seen("calls"), ""
        calls = 0
        while seen.ends == "calls" and calls <= _MOST_CALLS:
            fresh, said = self._exchange(server, messages)
            seen = replace(
                fresh,
                seconds=max(fresh.seconds, seen.seconds),
                worker=max(fresh.worker, seen.worker),
                server=max(fresh.server, seen.server),
                health=max(fresh.health, seen.health),
            )
            calls += 1
            if seen.server > MEGABYTES:
                self.stop()  # otherwise this memory would count for the next bomb
                break
            results = [
                {"role": "tool", "tool_call_id": call["id"], "content": "1"}
                for call in said.get("tool_calls") or ()
            ]
            messages = [*messages, said, *results]
        return seen

    @property
    def grown(self) -> float:
        """Megabytes by which the server has grown since its start."""
        now = _Took.of(self._started().pid)
        assert now is not None
        return now.megabytes - self._first

    def stop(self) -> None:
        """End the server; the next bomb gets a new one."""
        server, self._server = self._server, None
        if server is None:
            return
        for child in list(_descendants(server.pid)):
            with suppress(OSError):
                os.kill(child, 9)
        server.kill()
        server.communicate()
        self._health.stop()
        self._client.close()

    def _started(self) -> "subprocess.Popen[str]":
        if self._server is not None and self._server.poll() is None:
            return self._server
        self.stop()
        options = ["--in-process"] if self._in_process else []
        server = self._server = subprocess.Popen(  # noqa: S603 - Python itself
            [sys.executable, "-m", "tests.local.bombs.serving", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert url, "The server does not start."
        self._client = httpx.Client(base_url=url, timeout=_PATIENCE, trust_env=False)
        self._health = _Health(url)
        # One-time costs and the start of a worker must not count for the first bomb.
        self._start, self._first = 0.0, math.inf
        self._start = min(self.run(_TINY).seconds for _ in range(_WARM))
        self._first = 0.0
        self._first = self.grown
        return server

    def _exchange(
        self, server: "subprocess.Popen[str]", messages: list[dict[str, Any]]
    ) -> tuple[Seen, dict[str, Any]]:
        """Send one request. Its time is that of the process that used the most."""
        for pid in self._watched(server):
            with suppress(OSError):  # the worker may have ended
                Path(f"/proc/{pid}/clear_refs").write_text("5")
        before = {pid: took for pid in self._watched(server) if (took := _Took.of(pid))}
        latest: dict[int, _Took] = dict(before)
        self._health.take()
        end = time.monotonic() + _PATIENCE
        with ThreadPoolExecutor(1) as pool:
            reply = pool.submit(self._post, messages)
            while not _is_done(reply):
                self._look(server, latest)
                spent = self._spent(before, latest)
                if spent > _GIVEN_UP or time.monotonic() > end:
                    health = self._health.take()
                    self.stop()
                    return Seen("did not end", "", spent, 0.0, 0.0, health), {}
        self._look(server, latest)
        grown = latest[server.pid].most - self._first
        workers = [took.most for pid, took in latest.items() if pid != server.pid]
        seconds = self._spent(before, latest)
        ends, says, said = _end_of(reply.result())
        largest = max(workers, default=0.0)
        return Seen(ends, says, seconds, largest, max(grown, 0.0), self._health.take()), said

    def _post(self, messages: list[dict[str, Any]]) -> httpx.Response | httpx.HTTPError:
        body = {"model": "any/model", "messages": messages, "tools": _TOOLS}
        session = {"X-Session-ID": self._session} if self._session else {}
        try:
            # ASCII, because a program can contain half a surrogate pair.
            data = json.dumps(body).encode()
            reply = self._client.post(_CHAT, headers={**_HEADERS, **session}, content=data)
        except httpx.HTTPError as error:
            return error
        self._session = reply.headers.get("x-session-id", "")
        return reply

    def _look(self, server: "subprocess.Popen[str]", latest: dict[int, _Took]) -> None:
        for pid in self._watched(server):
            took = _Took.of(pid)
            if took is not None:
                latest[pid] = took.after(latest.get(pid, took))

    def _watched(self, server: "subprocess.Popen[str]") -> list[int]:
        return [server.pid, *_descendants(server.pid)]

    def _spent(self, before: dict[int, _Took], latest: dict[int, _Took]) -> float:
        """CPU seconds of the busiest process, without the start of a new one."""
        return max(
            took.seconds - (before[pid].seconds if pid in before else self._start)
            for pid, took in latest.items()
        )


def _is_done(reply: "Future[Any]") -> bool:
    try:
        reply.result(_PAUSE)
    except TimeoutError:
        return False
    return True


def _end_of(reply: httpx.Response | httpx.HTTPError) -> tuple[str, str, dict[str, Any]]:
    if isinstance(reply, httpx.HTTPError):
        return "crashed", repr(reply), {}
    if reply.status_code in _OVER_A_LIMIT:
        return "limit", reply.text, {}
    if reply.status_code == httpx.codes.BAD_REQUEST:
        return "refused", reply.text, {}
    if reply.status_code != httpx.codes.OK:
        return f"status {reply.status_code}", reply.text, {}
    said = reply.json()["choices"][0]["message"]
    if said.get("tool_calls"):
        return "calls", "", said
    end = json.loads(said["content"])
    code, text = "success", ""
    if end["status"] != "success":
        code, text = end["error"]["code"], end["error"]["message"]
    if code == "limit_reached" and not _LIMIT.search(text):
        code = "unnamed limit"
    return _ENDS.get(code, code), text, said


_OVER_A_LIMIT = (httpx.codes.REQUEST_ENTITY_TOO_LARGE, httpx.codes.INSUFFICIENT_STORAGE)
_ENDS = {
    **dict.fromkeys(("program_refused", "planner_failed"), "refused"),
    "limit_reached": "limit",
    **dict.fromkeys(("success", "program_error", "program_exit", "value_not_json"), "harmless"),
}
