"""The server's side of worker processes: a pool of them, and the runs that use them.

A program has a worker of its own until it ends. A program that waits for a tool keeps its worker,
unless too many wait: then the one that waits longest loses it and continues in another worker from
its log. After a program that succeeded, the worker serves the next program of the same owner. In
all other cases a new worker is forked, which takes milliseconds (`worker`).

Messages of a worker have a size limit and are validated. A program that took over its worker could
still forge the values and labels of its owner's programs (`docs/security.md`, rule 2).
"""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

from langchain_sequrity.errors import SequrityError, UsageError
from langchain_sequrity.labels import Labeled, Labels
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
    read_event,
    waits_for_answer,
)
from langchain_sequrity.local.interpreter.worker import (
    COMMAND,
    END,
    END_AND_TELL,
    FORK,
    LENGTH,
    STATUS,
    Message,
    as_json,
    from_json,
    message_size,
    named_from_json,
    named_to_json,
    read,
    send,
    step_from_json,
)

CAN_ISOLATE: Final = hasattr(os, "fork") and hasattr(signal, "setitimer")
"""Whether this platform supports workers."""

PATIENCE: Final = 60.0
"""Seconds of wall-clock time in which even a busy machine gives a program its processor time."""

_MAIN = "langchain_sequrity.local.interpreter.worker"
_KEPT = ("TZ",)  # environment variables that workers keep: the zone, so that replays agree
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_ROOM = 256_000_000  # bytes of address space besides the memory that programs pay for
_RAISES = {"UsageError": UsageError, "ReplayDiverged": ReplayDiverged}
_WRITTEN = frozenset({"start", "read"})  # events that a worker may log; it never logs results


class WorkerLost(Exception):
    """A worker ended or sent an invalid message. The text names the limit, if one was reached."""


class _ForkServer:
    """The process that forks workers. It ends with all of them when it is closed or collected.

    Args:
        limits: Limits of a program.
        room: Bytes of address space that a worker may use beyond those at its start.

    Raises:
        OSError: If it cannot be started.
    """

    def __init__(self, limits: Limits, room: int) -> None:
        self.limits = limits
        self._numbers = itertools.count()
        self._telling = threading.Lock()
        settings = json.dumps({"limits": asdict(limits), "room": room})
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_START_SECONDS)
        with theirs:
            try:
                self._popen = subprocess.Popen(  # noqa: S603 - Python itself
                    [sys.executable, "-B", "-P", "-s", "-m", _MAIN, settings],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=Path(sys.executable).anchor,
                    env=_environment(),
                    start_new_session=True,  # Ctrl-C is for the server
                )
            except BaseException:
                self._control.close()
                raise
        self.close = weakref.finalize(self, _end, self._popen, self._control, os.getpid())

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._popen.poll() is None

    def fork(self) -> "Worker":
        """Request a worker, without waiting for it."""
        ours, theirs = socket.socketpair()
        with theirs:
            number = next(self._numbers)
            with suppress(OSError):  # the socket is then closed, like that of a dead worker
                socket.send_fds(self._control, [COMMAND.pack(FORK, number)], [theirs.fileno()])
        return Worker(self, number, ours)

    def end(self, number: int) -> None:
        """End a worker, without waiting for it."""
        with suppress(OSError):  # the fork server is closed, and all its workers ended
            self._control.sendall(COMMAND.pack(END, number))

    def end_and_tell(self, number: int) -> signal.Signals | None:
        """End a worker, and return the signal that had already ended it, if any."""
        with self._telling:
            try:
                self._control.sendall(COMMAND.pack(END_AND_TELL, number))
                status = STATUS.unpack(read(self._control, STATUS.size, bool))[0]
            except (OSError, EOFError):
                self.close()  # the fork server is gone, or does not answer
                return None
        code = os.waitstatus_to_exitcode(status)
        return signal.Signals(-code) if code < 0 else None


def _end(popen: subprocess.Popen[bytes], control: socket.socket, owner: int) -> None:
    if os.getpid() != owner:
        return  # this process is a fork of the owner
    with suppress(OSError):
        control.shutdown(socket.SHUT_RDWR)  # also if a fork has it open
    control.close()
    try:
        popen.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


class Worker:
    """A process that answers one message after the other.

    Attributes:
        owner: The owner of its programs; `None` before the first one.
        pid: Its process id, after `greet`.
        uses: Number of programs that it was used for.
    """

    def __init__(self, server: _ForkServer, number: int, connection: socket.socket) -> None:
        self._server = server
        self._number = number
        self._connection = connection
        self._deadline = 0.0
        self._is_ended = False
        self.owner: str | None = None
        self.pid = 0
        self.uses = 0

    def for_next_user(self) -> "Worker":
        """The same process for the next user. This object can no longer control it."""
        other = copy(self)
        other.uses += 1
        self._is_ended = True
        return other

    def greet(self) -> bool:
        """Wait until it has started; return whether it runs."""
        self._deadline = time.monotonic() + _START_SECONDS
        try:
            self.pid = self.pid or int(self._receive()["pid"])
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
        self, request: Message, seconds: float, answer: Callable[[Message], Message] | None
    ) -> Message:
        """Send a request and wait for the reply.

        Args:
            request: JSON data.
            seconds: Time limit for the reply, including all questions of the worker.
            answer: Answers the questions of the worker before its reply. Without it, every message
                is the reply.

        Raises:
            WorkerLost: If there is no reply, or an invalid one. The worker is ended.
        """
        self._deadline = time.monotonic() + seconds
        try:
            reply = self._exchanged(request)
            while answer is not None and "ask" in reply:
                reply = self._exchanged(answer(reply))
        except TimeoutError:
            self.end()
            text = f"The program's process did not answer within {seconds:g} s and was stopped."
            raise WorkerLost(text) from None
        except (OSError, EOFError):
            raise WorkerLost(self._cause_of_death()) from None
        except BaseException:
            self.end()
            raise
        return reply

    def leave(self) -> None:
        """Make it abandon the program that waits in it."""
        self._deadline = time.monotonic() + _START_SECONDS
        try:
            self._wait()
            send(self._connection, as_json({"do": "leave"}))
        except OSError:
            self.end()

    def end(self) -> None:
        """End it in any state."""
        if not self._is_ended:
            self._is_ended = True
            self._connection.close()
            self._server.end(self._number)

    def _cause_of_death(self) -> str:
        self._is_ended = True
        self._connection.close()
        ended_by, limits = self._server.end_and_tell(self._number), self._server.limits
        if ended_by is signal.SIGPROF:
            return str(OutOfBudget.of("seconds", limits.seconds))
        how = f"by {ended_by.name}" if ended_by is not None else "by itself"
        return (
            f"The program's process was ended {how}. The usual cause is a lack of memory "
            f"(limit `memory`: {limits.memory:g})."
        )

    def _exchanged(self, message: Message) -> Message:
        self._wait()
        send(self._connection, as_json(message))
        return self._receive()

    def _receive(self) -> Message:
        size = LENGTH.unpack(read(self._connection, LENGTH.size, self._wait))[0]
        most = 2 * self._server.limits.outgoing  # a step, and variables besides it
        if size > most or message_size(data := read(self._connection, size, self._wait)) > most:
            raise invalid_answer()
        try:
            reply = from_json(data)
        except (ValueError, RecursionError):
            raise invalid_answer() from None
        if not isinstance(reply, dict):
            raise invalid_answer()
        return reply

    def _wait(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)


def invalid_answer() -> WorkerLost:
    """The exception for an invalid answer."""
    return WorkerLost("The program's process gave an invalid answer and was stopped.")


class WorkerPool:
    """A pool of workers, which are started when the first one is needed.

    It serves while at least one user has opened it. A `with` block opens and closes it.

    Args:
        limits: Limits of each program.
        room: Bytes of address space that a worker may use beyond those at its start, on systems
            with such a limit. The default is enough for `limits.memory`.
        patience: Seconds of wall-clock time for one step of a program, before its worker is ended.
        spare: Number of workers that wait for the first program of an owner.
        kept: Number of workers that wait for the next program of their owner.
        waiting: Number of programs that keep their workers while they wait for tools.
        at_once: Number of programs that run at once. The default is one for each processor.
        uses: Number of programs that a worker runs before it is replaced.

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
        room: int | None = None,
        patience: float = PATIENCE,
        spare: int = 2,
        kept: int = 8,
        waiting: int = 32,
        at_once: int | None = None,
        uses: int = 200,
    ) -> None:
        self.patience = patience
        self._limits = limits
        self._room = 2 * limits.memory + _ROOM if room is None else room
        self._most_spare = spare
        self._most_kept = kept
        self._most_waiting = waiting
        self._uses = uses
        self._at_once = threading.BoundedSemaphore(at_once or max(os.cpu_count() or 1, 2))
        # Reentrant: a garbage collection may end a forgotten run's worker at any point.
        self._lock = threading.RLock()
        self._users = 0
        self._server: _ForkServer | None = None
        self._spare: list[Worker] = []
        self._waiting: dict[Worker, None] = {}

    def open(self) -> None:
        """Serve until `close` was called as often as `open`."""
        with self._lock:
            self._users += 1

    def close(self) -> None:
        """End all processes, unless another user has opened the pool."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            server, self._server = self._server, None
            ended = [*self._spare, *self._waiting]
            self._spare, self._waiting = [], {}
        for worker in ended:
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

    def prepare(self) -> None:
        """Start the processes, without waiting for them.

        Raises:
            UsageError: If they cannot be started.
        """
        with self._lock:
            self._fill()

    def ready(self) -> None:
        """Wait until a worker runs.

        Raises:
            UsageError: If workers cannot be started.
        """
        worker = self.acquire(None)
        with self._lock:
            self._spare.append(worker)

    def check(self, source: str, *, owner: str = "", known: Collection[str] = ()) -> None:
        """Check that a program uses only what the language supports, as `parse` does.

        Args:
            source: Its text.
            owner: Its owner.
            known: Variables that exist before it.

        Raises:
            ProgramRefused: With line, column and what to write instead; and if checking it takes
                more than a program may use up.
            UsageError: If processes cannot be started.
        """
        worker = self.acquire(owner)
        try:
            request = {"do": "check", "source": source, "known": [*known], "log": []}
            _reply_of(self.exchange(worker, request))
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

    def acquire(self, owner: str | None) -> Worker:
        """Take a worker out of the pool; raises `UsageError` if workers cannot be started."""
        # All waiting workers, and the fork server, may have been ended from outside.
        for _ in range(self._most_spare + self._most_kept + 2):
            worker = self._pick(owner)
            if worker.greet():
                worker.owner = owner
                return worker
            worker.end()
        msg = (
            "The process for a program did not start. `isolated_programs=False` runs programs in "
            "the server's own process; docs/security.md says what that does not protect against."
        )
        raise UsageError(msg)

    def _pick(self, owner: str | None) -> Worker:
        with self._lock:
            self._fill()
            found = next((one for one in self._spare if one.owner == owner), None)
            worker = found or next(one for one in self._spare if one.owner is None)
            self._spare.remove(worker)
            self._fill()  # the next worker starts while this one works
            return worker

    def _fill(self) -> None:
        if not self._users:
            msg = "The server was stopped together with its programs."
            raise UsageError(msg)
        if self._server is None or not self._server.is_alive:
            try:
                self._server = _ForkServer(self._limits, self._room)
            except OSError as error:
                msg = f"A process for programs cannot be started. {error}"
                raise UsageError(msg) from None
        missing = max(self._most_spare, 1) - sum(one.owner is None for one in self._spare)
        self._spare += [self._server.fork() for _ in range(missing)]

    def exchange(
        self,
        worker: Worker,
        request: Message,
        answer: Callable[[Message], Message] | None = None,
    ) -> Message:
        """Send a request to a worker; see `Worker.exchange`."""
        with self._at_once:
            return worker.exchange(request, self.patience, answer)

    def mark_waiting(self, worker: Worker) -> None:
        """Record that a worker waits. If too many wait, those that wait longest are released."""
        with self._lock:
            self._waiting[worker] = None
            surplus = len(self._waiting) - self._most_waiting
            for one in [*self._waiting][: max(surplus, 0)]:
                self.release(one, waits=True)

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

    def release(self, worker: Worker, *, waits: bool = False, is_worn: bool = False) -> None:
        """Take back a worker for the next program of its owner.

        Args:
            worker: The worker. Its program succeeded, or waits.
            waits: Whether the program waits.
            is_worn: Whether the worker must not run another program.
        """
        with self._lock:
            self._waiting.pop(worker, None)
            worker = worker.for_next_user()
            if is_worn or worker.uses >= self._uses or not self._users:
                worker.end()
                return
            if waits:
                worker.leave()
            self._spare.append(worker)
            owned = [one for one in self._spare if one.owner is not None]
            for one in owned[: max(len(owned) - self._most_kept, 0)]:
                self._spare.remove(one)
                self.drop(one)

    def drop(self, worker: Worker) -> None:
        """End a worker in any state."""
        self._waiting.pop(worker, None)
        worker.end()


@cache
def shared_pool() -> WorkerPool:
    """The pool that all servers of this process share."""
    return WorkerPool()


if CAN_ISOLATE:
    # A fork of this process must not use the workers of its parent.
    os.register_at_fork(after_in_child=shared_pool.cache_clear)


def _reply_of(reply: Message) -> Message:
    """The reply of a worker; if it reported an exception, raise that."""
    if "refused" in reply:
        try:
            reason, line, column, corrected, left = reply["refused"]
            raise ProgramRefused(
                str(reason),
                line=int(line),
                column=int(column),
                corrected=corrected and str(corrected),
                left=str(left),
            )
        except (TypeError, ValueError):
            raise invalid_answer() from None
    if "exhausted" in reply:
        raise WorkerLost(str(reply["exhausted"]))
    if "raises" in reply:
        raise _RAISES.get(reply["raises"], UsageError)(str(reply.get("text")))
    return reply


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
        asked: The request of the user, if a model wrote the program.
        results: JSON Schemas of the tools' results, by tool name, where they are known.
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
        asked: str | None = None,
        results: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._pool = pool
        self._owner = owner
        self._begin: Message = {
            "do": "start",
            "source": source,
            "tools": check_json({name: dict(schema) for name, schema in (tools or {}).items()}),
            "variables": check_json(named_to_json(variables or {})),
            "asks": may_branch is not None,
            "is_strict": is_strict,
            "has_steps": has_steps,
            "asked": asked,
            "results": check_json({name: dict(one) for name, one in (results or {}).items()}),
        }
        self._has_steps = has_steps
        self._may_branch = may_branch
        self._log = [read_event(event) for event in log]
        self._names: _Names = {}, {}, {}
        self._has_names = False  # those of this moment
        self._is_worn = False
        self._step: Step | None = None
        self._is_closed = False
        self._worker: Worker | None = None
        self._forgotten: weakref.finalize[[Worker], WorkerRun] | None = None
        try:
            self._start()
        except WorkerLost as lost:
            raise ProgramRefused(str(lost)) from None

    @property
    def log(self) -> tuple[LogEvent, ...]:
        """All input from outside so far, as JSON data: enough to repeat the run up to here."""
        return tuple(self._log)

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
        before, event = self._step, self._event(answer)
        self._has_names = False
        try:
            worker = self._current_worker()
            if event is not None:
                self._log.append(event)
            self._step = step = self._advance_worker(worker, event)
        except ProgramRefused:
            self._log.pop()
            self._pool.mark_waiting(worker)
            raise
        except WorkerLost as lost:
            line = before.line if before is not None else 1
            self._step = ProgramRaised("budget", OutOfBudget.type_name, str(lost), line)
            self._release_worker()
        except BaseException:
            self.close()
            raise
        else:
            if waits_for_answer(step, has_steps=self._has_steps):
                self._pool.mark_waiting(worker)
        return self._step

    def _event(self, answer: Answer | None) -> LogEvent | None:
        if answer is None:
            return None
        call = call_digest(self._step) if isinstance(self._step, ToolCall) else ""
        return answer_event(answer, call)

    def park(self) -> None:
        """Release the worker. The next `advance` replays the log in another one."""
        worker = self._worker
        if worker is not None and self._waits and self._pool.wake(worker):
            self._release_worker(waits=True, is_worn=self._is_worn)
        self._release_worker()

    def close(self) -> None:
        """End the run. Its log stays readable."""
        self._is_closed = True
        self.park()

    def names(self) -> dict[str, Labeled]:
        """The current variables, or those at the end of the program; see `Run.names`."""
        self._read_names()
        return dict(self._names[0])

    def variables(self) -> dict[str, Labeled]:
        """The variables that a later program can start from; see `Run.variables`."""
        self._read_names()
        return dict(self._names[1])

    def kinds(self) -> dict[str, str]:
        """Names of the types of the variables; see `Run.kinds`."""
        self._read_names()
        return dict(self._names[2])

    @property
    def _waits(self) -> bool:
        return waits_for_answer(self._step, has_steps=self._has_steps)

    # -- the worker

    def _current_worker(self) -> Worker:
        """The worker at the current step. A new worker gets there by replaying the log."""
        worker, waited_for = self._worker, self._step
        if worker is not None and (waited_for is None or self._pool.wake(worker)):
            return worker
        self._release_worker()
        try:
            worker = self._start()
        except ProgramRefused as refused:
            raise WorkerLost(str(refused)) from None
        if waited_for is not None and self._advance_worker(worker, None) != waited_for:
            msg = "The replayed run waits for another call than before."
            raise ReplayDiverged(msg)
        return worker

    def _start(self) -> Worker:
        worker = self._pool.acquire(self._owner)
        self._worker = worker
        self._forgotten = weakref.finalize(self, self._pool.drop, worker)
        try:
            _reply_of(self._pool.exchange(worker, {**self._begin, "log": self._log}))
        except ProgramRefused:
            self._release_worker(waits=False)
            raise
        except BaseException:
            self._release_worker()
            raise
        return worker

    def _release_worker(self, **how: bool) -> None:
        """Give the worker back with the arguments `how`; without any, end it."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if self._forgotten is not None:
            self._forgotten.detach()
        if how:
            self._pool.release(worker, **how)
        else:
            self._pool.drop(worker)

    def _advance_worker(self, worker: Worker, event: LogEvent | None) -> Step:
        answer = None if self._may_branch is None else self._answer
        reply = _reply_of(self._pool.exchange(worker, {"do": "advance", "result": event}, answer))
        try:
            step = step_from_json(reply["step"])
            self._log += _events(reply["log"])
            if isinstance(step, ToolCall):
                if step.tool not in self._begin["tools"]:
                    raise invalid_answer()
                self._is_worn = False
                return step
            if waits_for_answer(step, has_steps=self._has_steps):
                self._is_worn = reply.get("worn") is not False
                return step
            self._names = _names(reply)
        except (KeyError, TypeError, ValueError, AttributeError, SequrityError):
            raise invalid_answer() from None
        reached_limit = isinstance(step, ProgramRaised) and step.kind == OutOfBudget.kind
        self._release_worker(is_worn=reached_limit or reply.get("worn") is not False)
        return step

    def _read_names(self) -> None:
        """Read the names while the program waits. The reply at its end contains them already."""
        if self._is_closed or not self._waits or self._has_names:
            return
        try:
            worker = self._current_worker()
            self._names = _names(_reply_of(self._pool.exchange(worker, {"do": "names"})))
            self._has_names = True
        except (WorkerLost, KeyError, TypeError, ValueError, AttributeError, SequrityError):
            self._release_worker()
            self._names = {}, {}, {}
        else:
            self._pool.mark_waiting(worker)

    def _answer(self, question: Message) -> Message:
        try:
            labels = Labels.from_wire(question["ask"])
        except UsageError:
            raise invalid_answer() from None
        return {"may": self._may_branch is None or bool(self._may_branch(labels))}


def _events(data: Any) -> list[LogEvent]:
    events = [read_event(event) for event in data]
    if not all(event["event"] in _WRITTEN for event in events):
        raise ValueError
    return events


_Names = tuple[dict[str, Labeled], dict[str, Labeled], dict[str, str]]


def _names(data: Message) -> _Names:
    names = named_from_json(data["names"])
    kinds = {name: str(data["kinds"][name]) for name in names}
    return names, {name: names[name] for name in data["variables"]}, kinds
