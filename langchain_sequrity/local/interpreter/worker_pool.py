"""The server's side of worker processes: a pool of them, and the runs that use them.

A program has a worker of its own until it ends. A program that waits for a tool keeps its worker,
unless too many wait, or they use too much memory together: then the one that waits longest loses it
and continues in another worker from its log. Programs that may run wait for a slot before they take
a worker, and those of different owners take turns. So the number of workers is limited.

After a program that succeeded, the worker serves the next program of the same owner. In all other
cases a new worker is forked, which takes milliseconds (`worker`).

Messages of a worker have a size limit and are validated. A program that took over its worker could
still forge the values and labels of its owner's programs (`docs/security.md`, rule 2).
"""

import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

from langchain_sequrity.errors import SequrityError, UsageError
from langchain_sequrity.labels import Labeled, Labels
from langchain_sequrity.local.fair_slots import FairSlots, waiting
from langchain_sequrity.local.interpreter.faults import OutOfBudget, ProgramRefused, ReplayDiverged
from langchain_sequrity.local.interpreter.json_boundary import check_json
from langchain_sequrity.local.interpreter.machine import DEFAULT_LIMITS, Limits, MayBranch
from langchain_sequrity.local.interpreter.run import (
    Answer,
    LogEvent,
    ProgramRaised,
    Step,
    ToolCall,
    answer_event,
    call_digest,
    check_may_advance,
    checked_event,
    named_to_json,
    waits_for_answer,
)
from langchain_sequrity.local.interpreter.worker import (
    COMMAND,
    END,
    END_WITH_STATUS,
    FORK,
    LENGTH,
    STATUS,
    Message,
    as_json,
    from_json,
    message_size,
    named_from_json,
    read,
    send,
    step_from_json,
)

CAN_ISOLATE: Final = hasattr(os, "fork") and hasattr(signal, "setitimer")
"""Whether this platform supports workers."""

PATIENCE: Final = 60.0
"""Seconds of wall-clock time in which even a busy machine gives a program its processor time."""

AnswerQuestion = Callable[[Message], Message]
_WORKER_MODULE = "langchain_sequrity.local.interpreter.worker"
_INHERITED = ("TZ",)  # environment variables of workers: the zone, so that replays agree
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_BASE_ADDRESS_SPACE = 256_000_000  # bytes besides the memory that programs pay for
_EXCEPTIONS = {"UsageError": UsageError, "ReplayDiverged": ReplayDiverged}
_LOGGED_BY_WORKERS = frozenset({"start", "read"})  # never results
_MAX_WAITING_BYTES = 16_000_000
_MAX_GROWTH = 8_000_000  # bytes; a worker whose memory once grew by more is not used again
WORKERS_LOGGER: Final = "langchain_sequrity.local.workers"
"""Name of the logger that reports the start and the end of each worker."""
_logger = logging.getLogger(WORKERS_LOGGER)


class WorkerLost(Exception):
    """A worker ended or sent an invalid message. The text names the limit, if one was reached."""


@dataclass(slots=True)
class WorkerCounts:
    """How many workers there have been.

    Attributes:
        started: Workers that ran.
        killed: Workers that reached a limit, crashed or did not answer. The others were ended
            because they were not needed.
    """

    started: int = 0
    killed: int = 0


class _ForkServer:
    """The process that forks workers. It ends with all of them when it is closed or collected.

    Args:
        limits: Limits of a program.
        address_space: Bytes of address space that a worker may use beyond those at its start.
        counts: Counts its workers.

    Raises:
        OSError: If it cannot be started.
    """

    def __init__(self, limits: Limits, address_space: int, counts: "WorkerCounts") -> None:
        self.limits = limits
        self._worker_ids = itertools.count()
        self.live: set[int] = set()  # ids of workers that were not ended
        self.counts = counts
        self._status_lock = threading.Lock()
        settings = json.dumps({"limits": asdict(limits), "address_space": address_space})
        self._control, child = socket.socketpair()
        self._control.settimeout(_START_SECONDS)
        with child:
            try:
                self._popen = subprocess.Popen(  # noqa: S603 - Python itself
                    [sys.executable, "-B", "-P", "-s", "-m", _WORKER_MODULE, settings],
                    stdin=child.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=Path(sys.executable).anchor,
                    env=_environment(),
                    start_new_session=True,  # Ctrl-C is for the server
                )
            except BaseException:
                self._control.close()
                raise
        self.close = weakref.finalize(self, _end_server, self._popen, self._control, os.getpid())

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._popen.poll() is None

    def fork(self) -> "Worker":
        """Request a worker, without waiting for it."""
        parent, child = socket.socketpair()
        with child:
            worker_id = next(self._worker_ids)
            self.live.add(worker_id)
            with suppress(OSError):  # the socket is then closed, like that of a dead worker
                socket.send_fds(self._control, [COMMAND.pack(FORK, worker_id)], [child.fileno()])
        return Worker(self, worker_id, parent)

    def end(self, worker_id: int) -> None:
        """End a worker, without waiting for it."""
        self.live.discard(worker_id)
        with suppress(OSError):  # the fork server is closed, and all its workers ended
            self._control.sendall(COMMAND.pack(END, worker_id))

    def end_and_get_signal(self, worker_id: int) -> signal.Signals | None:
        """End a worker, and return the signal that had already ended it, if any."""
        self.live.discard(worker_id)
        with self._status_lock:
            try:
                self._control.sendall(COMMAND.pack(END_WITH_STATUS, worker_id))
                status = STATUS.unpack(read(self._control, STATUS.size))[0]
            except (OSError, EOFError):
                self.close()  # the fork server is gone, or does not answer
                return None
        code = os.waitstatus_to_exitcode(status)
        return signal.Signals(-code) if code < 0 else None


def _end_server(popen: subprocess.Popen[bytes], control: socket.socket, parent_pid: int) -> None:
    if os.getpid() != parent_pid:
        return  # this process is a fork of the parent
    with suppress(OSError):
        control.shutdown(socket.SHUT_RDWR)  # also if a fork has it open
    control.close()
    try:
        popen.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()


def _environment() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


class Worker:
    """A process that answers one message after the other.

    Attributes:
        owner: The owner of its programs; `None` before the first one.
        pid: Its process id, after `wait_until_started`.
        uses: Number of programs that it was used for.
    """

    def __init__(self, server: _ForkServer, worker_id: int, connection: socket.socket) -> None:
        self._server = server
        self._worker_id = worker_id
        self._connection = connection
        self._deadline = 0.0
        self._is_detached = False  # whether this object no longer controls the process
        self.owner: str | None = None
        self.pid = 0
        self.uses = 0

    def for_next_program(self) -> "Worker":
        """The same process for the next program. This object can no longer control it."""
        successor = copy(self)
        successor.uses += 1
        self._is_detached = True
        return successor

    def wait_until_started(self) -> bool:
        """Wait until it has started; return whether it runs."""
        self._deadline = time.monotonic() + _START_SECONDS
        try:
            if not self.pid:
                self.pid = int(self._receive()["pid"])
                self._server.counts.started += 1
                _logger.info("Worker %d was started.", self.pid)
        except (OSError, EOFError, WorkerLost):
            return False
        return self.is_alive

    @property
    def is_alive(self) -> bool:
        """Whether it still runs after its last answer."""
        try:
            self._connection.settimeout(0)
            return self._connection.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def exchange(
        self, request: Message, seconds: float, answer_question: AnswerQuestion | None
    ) -> Message:
        """Send a request and wait for the reply.

        Args:
            request: JSON data.
            seconds: Time limit for the reply, including all questions of the worker.
            answer_question: Answers the questions that the worker asks before its reply. Without
                it, every message is the reply.

        Raises:
            WorkerLost: If there is no reply, or an invalid one. The worker is ended.
        """
        self._deadline = time.monotonic() + seconds
        try:
            reply = self._send_and_receive(request)
            while answer_question is not None and "ask" in reply:
                reply = self._send_and_receive(answer_question(reply))
        except TimeoutError:
            text = f"The program's process did not answer within {seconds:g} s and was stopped."
            self._report_killed(text)
            self.end()
            raise WorkerLost(text) from None
        except (OSError, EOFError):
            text = self._end_and_explain()
            self._report_killed(text)
            raise WorkerLost(text) from None
        except BaseException:
            self.end()
            raise
        return reply

    def abandon_program(self) -> None:
        """Make it abandon the program that waits in it."""
        self._deadline = time.monotonic() + _START_SECONDS
        try:
            self._set_timeout()
            send(self._connection, as_json({"do": "leave"}))
        except OSError:
            self.end()

    def end(self) -> None:
        """End it in any state."""
        if not self._is_detached:
            self._is_detached = True
            self._connection.close()
            self._server.end(self._worker_id)
            if self.pid:
                _logger.info("Worker %d has ended.", self.pid)

    def _report_killed(self, reason: str) -> None:
        self._server.counts.killed += 1
        _logger.warning("Worker %d was killed. %s", self.pid, reason)

    def _end_and_explain(self) -> str:
        self._is_detached = True
        self._connection.close()
        limits = self._server.limits
        ending_signal = self._server.end_and_get_signal(self._worker_id)
        if ending_signal is signal.SIGPROF:
            return str(OutOfBudget.at_limit("seconds", limits.seconds))
        cause = f"by {ending_signal.name}" if ending_signal is not None else "by itself"
        return (
            f"The program's process was ended {cause}. The usual cause is a lack of memory "
            f"(limit `memory`: {limits.memory:g})."
        )

    def _send_and_receive(self, message: Message) -> Message:
        self._set_timeout()
        send(self._connection, as_json(message))
        return self._receive()

    def _receive(self) -> Message:
        size = LENGTH.unpack(read(self._connection, LENGTH.size, self._set_timeout))[0]
        max_size = 2 * self._server.limits.outgoing  # a step, and variables besides it
        reply: Any = None
        if size <= max_size:
            data = read(self._connection, size, self._set_timeout)
            with suppress(ValueError, RecursionError):
                reply = from_json(data) if message_size(data) <= max_size else None
        if not isinstance(reply, dict):
            raise invalid_answer()
        return reply

    def _set_timeout(self) -> None:
        seconds_left = self._deadline - time.monotonic()
        if seconds_left <= 0:
            raise TimeoutError
        self._connection.settimeout(seconds_left)


def invalid_answer() -> WorkerLost:
    """The exception for an invalid answer."""
    return WorkerLost("The program's process gave an invalid answer and was stopped.")


class WorkerPool:
    """A pool of workers, which are started when the first one is needed.

    It serves while at least one user has opened it. A `with` block opens and closes it.

    Args:
        limits: Limits of each program.
        address_space: Bytes of address space that a worker may use beyond those at its start, on
            systems with such a limit. The default is enough for `limits.memory`.
        patience: Seconds of wall-clock time for one step of a program, before its worker is ended.
        fresh: Number of idle workers without an owner, for the first program of an owner.
        max_owned: Number of idle workers with an owner, for the next program of that owner.
        max_waiting: Number of programs that keep their workers while they wait for tools.
        max_waiting_bytes: Bytes by which these workers may have grown together.
        max_running: Number of programs that run at once. The default is one for each processor.
        max_uses: Number of programs that a worker runs before it is replaced.

    Attributes:
        counts: How many workers there have been.

    Example:
        ```python
        from langchain_sequrity.local.interpreter import ProgramFinished
        from langchain_sequrity.local.interpreter.worker_pool import WorkerPool

        with WorkerPool() as pool:
            end = pool.run("sum(range(10))").advance()
        assert isinstance(end, ProgramFinished) and end.value.value == 45
        ```
    """

    def __init__(
        self,
        *,
        limits: Limits = DEFAULT_LIMITS,
        address_space: int | None = None,
        patience: float = PATIENCE,
        fresh: int = 2,
        max_owned: int = 8,
        max_waiting: int = 32,
        max_waiting_bytes: int = _MAX_WAITING_BYTES,
        max_running: int | None = None,
        max_uses: int = 200,
    ) -> None:
        self.patience = patience
        self._limits = limits
        default_space = 2 * limits.memory + _BASE_ADDRESS_SPACE
        self._address_space = default_space if address_space is None else address_space
        self._fresh = fresh
        self._max_owned = max_owned
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._max_uses = max_uses
        self.counts = WorkerCounts()
        self._running_slots = FairSlots(max_running or _processors())
        # Reentrant: a garbage collection may end a forgotten run's worker at any point.
        self._lock = threading.RLock()
        self._open_count = 0
        self._server: _ForkServer | None = None
        self._idle: list[Worker] = []
        self._waiting: dict[Worker, int] = {}  # and by how many bytes each has grown

    def open(self) -> None:
        """Serve until `close` was called as often as `open`."""
        with self._lock:
            self._open_count += 1

    def close(self) -> None:
        """End all processes, unless another user has opened the pool."""
        with self._lock:
            self._open_count -= 1
            if self._open_count:
                return
            server, self._server = self._server, None
            workers = [*self._idle, *self._waiting]
            self._idle, self._waiting = [], {}
        for worker in workers:
            worker.end()
        if server is not None:
            server.close()

    def __enter__(self) -> Self:
        """Open it."""
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    @property
    def live_workers(self) -> int:
        """The number of workers, idle or with a program."""
        server = self._server
        return len(server.live) if server is not None and server.is_alive else 0

    def prepare(self) -> None:
        """Start the processes, without waiting for them.

        Raises:
            UsageError: If they cannot be started.
        """
        with self._lock:
            self._ensure_fresh()

    def wait_until_ready(self) -> None:
        """Wait until a worker runs.

        Raises:
            UsageError: If workers cannot be started.
        """
        worker = self.acquire(None)
        with self._lock:
            self._idle.append(worker)

    def check(self, source: str, *, owner: str = "", variables: Collection[str] = ()) -> None:
        """Check that a program uses only what the language supports, as `parse` does.

        Args:
            source: Its text.
            owner: Its owner.
            variables: Variables that exist before it.

        Raises:
            ProgramRefused: With line, column and what to write instead; and if checking it takes
                more than a program may use up.
            UsageError: If processes cannot be started.
        """
        request = {"do": "check", "source": source, "known": [*variables], "log": []}
        with self.running(owner):
            worker = self.acquire(owner)
            try:
                self.exchange(worker, request)
            except WorkerLost as lost:
                raise ProgramRefused(str(lost)) from None
            except ProgramRefused:
                self.release(worker)
                raise
            self.release(worker)

    def run(self, source: str, *, owner: str = "", **options: Any) -> "WorkerRun":
        """Make a run of a program.

        Args:
            source: Its text.
            owner: Its owner. Programs of different owners never use the same worker, not even one
                after the other.
            options: Arguments of `Run`, except the limits, which are the pool's.

        Raises:
            ProgramRefused: Like `check`.
            UsageError: Like `check`, and for variables or a log that are not JSON data.
        """
        return WorkerRun(self, source, owner=owner, **options)

    # -- workers, for runs

    @contextmanager
    def running(self, owner: str) -> Iterator[None]:
        """Wait until a program of an owner may run; at the end of the block another one may.

        Within the block it may have a worker that is neither idle nor waiting.
        """
        with waiting(), self._running_slots.held(owner):
            yield

    def acquire(self, owner: str | None) -> Worker:
        """Take a worker out of the pool, while `running`.

        Raises:
            UsageError: If workers cannot be started.
        """
        # All idle workers, and the fork server, may have been ended from outside.
        for _ in range(self._fresh + self._max_owned + 2):
            worker = self._take_idle(owner)
            if worker.wait_until_started():
                worker.owner = owner
                return worker
            worker.end()
        msg = (
            "The process for a program did not start. `isolated_programs=False` runs programs in "
            "the server's own process; docs/security.md says what that does not protect against."
        )
        raise UsageError(msg)

    def _take_idle(self, owner: str | None) -> Worker:
        with self._lock:
            self._ensure_fresh()
            owned = next((worker for worker in self._idle if worker.owner == owner), None)
            worker = owned or next(worker for worker in self._idle if worker.owner is None)
            self._idle.remove(worker)
            self._ensure_fresh()  # the next worker starts while this one works
            return worker

    def _ensure_fresh(self) -> None:
        """Start the fork server and idle workers without an owner, as far as they are missing."""
        if not self._open_count:
            msg = "The server was stopped together with its programs."
            raise UsageError(msg)
        if self._server is None or not self._server.is_alive:
            try:
                self._server = _ForkServer(self._limits, self._address_space, self.counts)
            except OSError as error:
                msg = f"A process for programs cannot be started. {error}"
                raise UsageError(msg) from None
        missing = max(self._fresh, 1) - sum(worker.owner is None for worker in self._idle)
        self._idle += [self._server.fork() for _ in range(missing)]

    def exchange(
        self, worker: Worker, request: Message, answer_question: AnswerQuestion | None = None
    ) -> Message:
        """Send a request to a worker, while `running`; raise what its reply reports."""
        return _reply_or_raise(worker.exchange(request, self.patience, answer_question))

    def mark_waiting(self, worker: Worker, growth: int) -> None:
        """Record that a worker waits. If too many wait, those that wait longest are released.

        Args:
            worker: The worker.
            growth: By how many bytes its memory has grown.
        """
        with self._lock:
            self._waiting[worker] = growth
            while (
                len(self._waiting) > self._max_waiting
                or sum(self._waiting.values()) > self._max_waiting_bytes
            ):
                longest_waiting, growth = next(iter(self._waiting.items()))
                self.release(longest_waiting, is_waiting=True, is_worn=growth > _MAX_GROWTH)

    def wake(self, worker: Worker) -> bool:
        """Continue with a waiting worker, if the program still has it."""
        with self._lock:
            if worker not in self._waiting:
                return False
            del self._waiting[worker]
        if not worker.is_alive:
            self.drop(worker)
            return False
        return True

    def release(self, worker: Worker, *, is_waiting: bool = False, is_worn: bool = False) -> None:
        """Take back a worker for the next program of its owner.

        Args:
            worker: The worker. Its program succeeded, or waits.
            is_waiting: Whether the program waits.
            is_worn: Whether the worker must not run another program.
        """
        with self._lock:
            self._waiting.pop(worker, None)
            worker = worker.for_next_program()
            if is_worn or worker.uses >= self._max_uses or not self._open_count:
                worker.end()
                return
            if is_waiting:
                worker.abandon_program()
            self._idle.append(worker)
            owned = [worker for worker in self._idle if worker.owner is not None]
            for longest_idle in owned[: max(len(owned) - self._max_owned, 0)]:
                self._idle.remove(longest_idle)
                self.drop(longest_idle)

    def drop(self, worker: Worker) -> None:
        """End a worker in any state."""
        self._waiting.pop(worker, None)
        worker.end()


def _processors() -> int:
    return max(os.cpu_count() or 1, 2)


def _default_workers() -> int:
    most = 8 + 2 * _processors()
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # the system does not say
        return most
    return min(most, max(memory // _MEMORY_FOR_WORKER, 4))


_MEMORY_FOR_WORKER = 256 * 1024 * 1024  # a worker takes 8 MB, and its program may take much more
DEFAULT_WORKERS: Final = _default_workers()
"""Number of workers of a shared pool."""


def shared_pool(limits: Limits = DEFAULT_LIMITS, workers: int = DEFAULT_WORKERS) -> WorkerPool:
    """The pool that all servers of this process share whose programs have these limits.

    Args:
        limits: Limits of each program.
        workers: Number of its workers, at least two.
    """
    return _pool_with(limits, workers)


@cache
def _pool_with(limits: Limits, workers: int) -> WorkerPool:
    running = max(min(_processors(), workers // 2), 1)
    fresh = 2 if workers >= _FEW_WORKERS else 1
    owned = max(workers - running - fresh, 0) // 3
    waiting_programs = max(workers - running - fresh - owned, 0)
    return WorkerPool(
        limits=limits,
        fresh=fresh,
        max_owned=owned,
        max_waiting=waiting_programs,
        max_running=running,
    )


_FEW_WORKERS = 8


if CAN_ISOLATE:
    # A fork of this process must not use the workers of its parent.
    os.register_at_fork(after_in_child=_pool_with.cache_clear)


def _reply_or_raise(reply: Message) -> Message:
    """The reply of a worker; if it reported an exception, raise that."""
    if "refused" in reply:
        try:
            reason, line, column, corrected, still_wrong = reply["refused"]
            raise ProgramRefused(
                str(reason),
                line=int(line),
                column=int(column),
                corrected=corrected and str(corrected),
                still_wrong=str(still_wrong),
            )
        except (TypeError, ValueError):
            raise invalid_answer() from None
    if "exhausted" in reply:
        raise WorkerLost(str(reply["exhausted"]))
    if "raises" in reply:
        raise _EXCEPTIONS.get(reply["raises"], UsageError)(str(reply.get("text")))
    return reply


@dataclass(frozen=True)
class _Namespace:
    names: dict[str, Labeled] = field(default_factory=dict)
    variables: dict[str, Labeled] = field(default_factory=dict)
    type_names: dict[str, str] = field(default_factory=dict)


class WorkerRun:
    """A `Run` in a worker, with the same interface.

    If a worker reaches a limit and is ended, the step is a `ProgramRaised` of the kind `budget`.
    Names can be read until the run is closed.

    Args:
        pool: The pool of workers.
        source: Text of the program.
        owner: Its owner.
        tools: See `Run`, also for the other arguments.
        variables: Variables that exist before the program.
        may_branch: Is called here, not in the worker, and once for each set of labels.
        is_strict: Whether everything under a branch takes the labels of its condition.
        log: `log` of an earlier run of the same program with the same variables.
        has_steps: Whether another program follows a program that succeeded.
        user_request: The request of the user, if a model wrote the program.
        result_schemas: JSON Schemas of the tools' results, by tool name, where they are known.
    """

    def __init__(
        self,
        pool: WorkerPool,
        source: str,
        *,
        owner: str = "",
        tools: Mapping[str, Mapping[str, Any]] | None = None,
        variables: Mapping[str, Labeled] | None = None,
        may_branch: MayBranch | None = None,
        is_strict: bool = False,
        log: Sequence[LogEvent] = (),
        has_steps: bool = False,
        user_request: str | None = None,
        result_schemas: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._pool = pool
        self._owner = owner
        self._start_request: Message = {
            "do": "start",
            "source": source,
            "tools": check_json({name: dict(schema) for name, schema in (tools or {}).items()}),
            "variables": check_json(named_to_json(variables or {})),
            "asks": may_branch is not None,
            "is_strict": is_strict,
            "has_steps": has_steps,
            "asked": user_request,
            "results": check_json({name: dict(s) for name, s in (result_schemas or {}).items()}),
        }
        self._has_steps = has_steps
        self._may_branch = may_branch
        self._log = [checked_event(event) for event in log]
        self._namespace = _Namespace()
        self._is_namespace_current = False
        self._growth = 0  # of the worker
        self._step: Step | None = None
        self._is_closed = False
        self._worker: Worker | None = None
        self._finalizer: weakref.finalize[[Worker], WorkerRun] | None = None
        with self._pool.running(owner):
            try:
                self._pool.mark_waiting(self._start_worker(), self._growth)
            except WorkerLost as lost:
                raise ProgramRefused(str(lost)) from None

    @property
    def log(self) -> tuple[LogEvent, ...]:
        """All input from outside so far, as JSON data: enough to repeat the run up to here."""
        return tuple(self._log)

    def events_after(self, count: int) -> list[LogEvent]:
        """The events of the log after the first `count`."""
        return self._log[count:]

    @property
    def pid(self) -> int | None:
        """The id of its current process, if it has one."""
        return None if self._worker is None else self._worker.pid

    def advance(self, answer: Answer | None = None) -> Step:
        """Run up to the next tool call or the end, as `Run.advance` does.

        Raises:
            UsageError: Like `Run.advance`, and if processes cannot be started.
            ProgramRefused: If the next program is not supported. The run still waits for one.
            ReplayDiverged: If the program differs from its log.
        """
        check_may_advance(self._step, answer, has_steps=self._has_steps, is_closed=self._is_closed)
        step_before = self._step
        digest = call_digest(step_before) if isinstance(step_before, ToolCall) else ""
        event = None if answer is None else answer_event(answer, step_before, digest)
        self._is_namespace_current = False
        with self._pool.running(self._owner):
            return self._advance(step_before, event)

    def _advance(self, step_before: Step | None, event: LogEvent | None) -> Step:
        try:
            worker = self._current_worker()
            if event is not None:
                self._log.append(event)
            self._step = step = self._advance_worker(worker, event)
        except ProgramRefused:
            self._log.pop()
            self._pool.mark_waiting(worker, self._growth)
            raise
        except WorkerLost as lost:
            line = step_before.line if step_before is not None else 1
            self._step = ProgramRaised("budget", OutOfBudget.type_name, str(lost), line)
            self._drop_worker()
        except BaseException:
            self.close()
            raise
        else:
            if waits_for_answer(step, has_steps=self._has_steps):
                self._pool.mark_waiting(worker, self._growth)
        return self._step

    def park(self) -> None:
        """Release the worker. The next `advance` replays the log in another one."""
        worker = self._worker
        if worker is not None and self._is_waiting and self._pool.wake(worker):
            self._release_worker(is_waiting=True, is_worn=self._growth > _MAX_GROWTH)
        self._drop_worker()

    def close(self) -> None:
        """End the run. Its log stays readable."""
        self._is_closed = True
        self.park()

    def names(self) -> dict[str, Labeled]:
        """The current variables, or those at the end of the program; see `Run.names`."""
        self._read_namespace()
        return dict(self._namespace.names)

    def variables(self) -> dict[str, Labeled]:
        """The variables that a later program can start from; see `Run.variables`."""
        self._read_namespace()
        return dict(self._namespace.variables)

    def kinds(self) -> dict[str, str]:
        """Names of the types of the variables; see `Run.kinds`."""
        self._read_namespace()
        return dict(self._namespace.type_names)

    @property
    def _is_waiting(self) -> bool:
        return waits_for_answer(self._step, has_steps=self._has_steps)

    # -- the worker

    def _current_worker(self) -> Worker:
        """The worker at the current step. A new worker gets there by replaying the log."""
        worker, current_step = self._worker, self._step
        if worker is not None and self._pool.wake(worker):
            return worker
        self._drop_worker()
        try:
            worker = self._start_worker()
        except ProgramRefused as refused:
            raise WorkerLost(str(refused)) from None
        if current_step is not None and self._advance_worker(worker, None) != current_step:
            msg = "The replayed run waits for another call than before."
            raise ReplayDiverged(msg)
        return worker

    def _start_worker(self) -> Worker:
        worker = self._pool.acquire(self._owner)
        self._worker = worker
        self._finalizer = weakref.finalize(self, self._pool.drop, worker)
        try:
            self._pool.exchange(worker, {**self._start_request, "log": self._log})
        except ProgramRefused:
            self._release_worker()
            raise
        except BaseException:
            self._drop_worker()
            raise
        return worker

    def _release_worker(self, **options: bool) -> None:
        """Give the worker back to the pool; the arguments are those of `WorkerPool.release`."""
        worker = self._detach_worker()
        if worker is not None:
            self._pool.release(worker, **options)

    def _drop_worker(self) -> None:
        worker = self._detach_worker()
        if worker is not None:
            self._pool.drop(worker)

    def _detach_worker(self) -> Worker | None:
        worker, self._worker = self._worker, None
        if self._finalizer is not None:
            self._finalizer.detach()
        return worker

    def _advance_worker(self, worker: Worker, event: LogEvent | None) -> Step:
        request = {"do": "advance", "result": event}
        answer_question = None if self._may_branch is None else self._answer_question
        reply = self._pool.exchange(worker, request, answer_question)
        try:
            step = step_from_json(reply["step"])
            events = [checked_event(event) for event in reply["log"]]
            if not _LOGGED_BY_WORKERS.issuperset(event["event"] for event in events):
                raise invalid_answer()
            self._log += events
            self._growth = _checked_growth(reply)
            if isinstance(step, ToolCall):
                if step.tool not in self._start_request["tools"]:
                    raise invalid_answer()
                return step
            if waits_for_answer(step, has_steps=self._has_steps):
                return step
            self._namespace = _namespace_from_json(reply)
        except (KeyError, TypeError, ValueError, AttributeError, SequrityError):
            raise invalid_answer() from None
        reached_limit = isinstance(step, ProgramRaised) and step.kind == OutOfBudget.kind
        self._release_worker(is_worn=reached_limit or self._growth > _MAX_GROWTH)
        return step

    def _read_namespace(self) -> None:
        """Read the names while the program waits. The reply at its end contains them already."""
        if self._is_closed or not self._is_waiting or self._is_namespace_current:
            return
        with self._pool.running(self._owner):
            self._ask_namespace()

    def _ask_namespace(self) -> None:
        try:
            worker = self._current_worker()
            reply = self._pool.exchange(worker, {"do": "names"})
            self._namespace = _namespace_from_json(reply)
            self._is_namespace_current = True
        except (WorkerLost, KeyError, TypeError, ValueError, AttributeError, SequrityError):
            self._drop_worker()
            self._namespace = _Namespace()
        else:
            self._pool.mark_waiting(worker, self._growth)

    def _answer_question(self, question: Message) -> Message:
        try:
            labels = Labels.from_wire(question["ask"])
        except UsageError:
            raise invalid_answer() from None
        return {"may": self._may_branch is None or bool(self._may_branch(labels))}


def _checked_growth(reply: Message) -> int:
    growth = reply["grown"]
    if type(growth) is not int or growth < 0:
        raise ValueError
    return growth


def _namespace_from_json(reply: Message) -> _Namespace:
    names = named_from_json(reply["names"])
    type_names = {name: str(reply["kinds"][name]) for name in names}
    return _Namespace(names, {name: names[name] for name in reply["variables"]}, type_names)
