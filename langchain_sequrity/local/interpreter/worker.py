"""The worker process, in which programs run apart from the server (`docs/security.md`, rule 2).

Run as a script, this module is a fork server: it imports the interpreter once and then forks a
worker on each request, which takes milliseconds. It has a single thread, so forking is safe. A
worker drops every right that programs do not need, and runs one program after the other, as the
messages on its socket say. `worker_pool` is the other side.

Messages are JSON objects with a length prefix. The kernel ends a worker that uses too much
processor time, even in a loop in C that never checks a clock, and limits its memory.
"""

import contextlib
import gc
import json
import os
import re
import signal
import socket
import struct
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NoReturn, get_args

import regex

from langchain_sequrity.errors import SequrityError
from langchain_sequrity.labels import Labeled, Labels
from langchain_sequrity.local.interpreter.faults import Abandoned, OutOfBudget, ProgramRefused
from langchain_sequrity.local.interpreter.json_boundary import check_json
from langchain_sequrity.local.interpreter.machine import Limits
from langchain_sequrity.local.interpreter.program import parse
from langchain_sequrity.local.interpreter.run import (
    Answer,
    FailureKind,
    NextProgram,
    ProgramFinished,
    ProgramRaised,
    Run,
    Step,
    ToolCall,
    answer_from_event,
    labeled_to_json,
    named_to_json,
    planned_run,
)

if sys.platform != "win32":  # which has no such limits, and cannot fork
    import resource

Message = dict[str, Any]
LENGTH = struct.Struct("!I")
COMMAND = struct.Struct("!cI")
"""A command to the fork server, and the number of the worker."""
STATUS = struct.Struct("!i")
FORK, END, END_WITH_STATUS = b"F", b"E", b"T"
EXTRA_SECONDS: Final = 0.75
"""Processor seconds beyond `Limits.seconds`, to parse a program and to write its variables."""

_ELEMENT = 30
_CONTAINERS = frozenset({dict, list, tuple})
_MAX_SIZE_FACTOR = 10  # of `_minimum_size`: a character may take six bytes, a number more
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)  # possessive: no backtracking
_WARM_UP_PROGRAM = """
import datetime, json, re
from pydantic import BaseModel
class Mail(BaseModel):
    subject: str
    lines: list[str] = []
def greeting(mail, *, to="you"):
    return f"{mail.subject:>8} {to.upper()}"
mails = [Mail(subject=row["s"]) for row in json.loads('[{"s": "a"}, {"s": "b"}]')]
greetings = {mail.subject: greeting(mail) for mail in mails if re.search("[a-z]", mail.subject)}
when = datetime.datetime.strptime("2020", "%Y")
try:
    final_return_value = [sorted(greetings.items()), f"{when:%d.%m.}", sum(range(9)), 1 / 0]
except ZeroDivisionError as problem:
    final_return_value = str(problem)
"""


# -- messages


def as_json(message: Any) -> bytes:
    """Write JSON data. Lone surrogates are kept; the message of a failure may contain them."""
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def escaped(data: bytes) -> bytes:
    """The same JSON, with characters in its texts escaped that look like structure."""
    return _STRING.sub(_escaped, data)


def _escaped(string: re.Match[bytes]) -> bytes:
    text = string[0]
    for char in b",[{":
        text = text.replace(bytes([char]), b"\\u%04x" % char)
    return text


def message_size(data: bytes | bytearray) -> int:
    """Bytes of a JSON text, plus 30 for each element.

    Parsed data take more memory than their text, especially many small elements. A comma in a text
    counts as well, so that texts need not be searched: see `escaped`.
    """
    return len(data) + _ELEMENT * (data.count(b",") + data.count(b"[") + data.count(b"{"))


def from_json(data: bytes | bytearray) -> Any:
    """Parse the result of `as_json`; raises `ValueError` or `RecursionError` for anything else."""
    return json.loads(data.decode("utf-8", "surrogatepass"))


def send(connection: socket.socket, data: bytes) -> None:
    """Send a message with a length prefix."""
    connection.sendall(LENGTH.pack(len(data)) + data)


def read(
    connection: socket.socket, size: int, set_timeout: Callable[[], object] = bool
) -> bytearray:
    """Read `size` bytes and call `set_timeout` before each part. Raises `EOFError` at the end."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        set_timeout()
        count = connection.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return data


def step_to_json(step: Step) -> Message:
    """Write a step."""
    data: Message = {"step": type(step).__name__}
    for name in type(step).__dataclass_fields__:
        value = getattr(step, name)
        write = _WRITERS.get(type(value))
        data[name] = value if write is None else write(value)
    return data


def labeled_from_json(data: Any) -> Labeled:
    """Read a value with its labels; raises `ValueError`, `TypeError` or `UsageError`."""
    value, labels = data
    return Labeled(check_json(value), Labels.from_wire(labels))


def named_from_json(data: Any) -> dict[str, Labeled]:
    """Read values by name; raises like `labeled_from_json`, and `AttributeError`."""
    return {name: labeled_from_json(labeled) for name, labeled in data.items()}


def step_from_json(data: Any) -> Step:
    """Read a step.

    Raises:
        KeyError: If an entry is missing; `TypeError`, `ValueError` and others for wrong data.
        UsageError: If a value is not JSON data, or labels are invalid.
    """
    step_type, readers = _STEPS[data["step"]]
    if data.keys() != {"step", *readers}:
        raise KeyError
    return step_type(**{name: read(data[name]) for name, read in readers.items()})


def _exactly(expected: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not expected:
            raise TypeError
        return value

    return read


def _failure_kind(kind: Any) -> Any:
    if kind not in get_args(FailureKind):
        raise ValueError
    return kind


_READERS: dict[Any, Callable[[Any], Any]] = {
    **{atom: _exactly(atom) for atom in (str, int, bool)},
    FailureKind: _failure_kind,
    Labeled: labeled_from_json,
    Labels: Labels.from_wire,
    dict[str, Labeled]: named_from_json,
}
_WRITERS: dict[type, Callable[[Any], Any]] = {
    Labeled: labeled_to_json,
    Labels: Labels.to_wire,
    dict: named_to_json,
}
"""How the fields of steps are read and written, by their types."""
_STEPS: dict[str, tuple[type[Step], dict[str, Callable[[Any], Any]]]] = {
    step_type.__name__: (
        step_type,
        {name: _READERS[field.type] for name, field in step_type.__dataclass_fields__.items()},
    )
    for step_type in (ToolCall, ProgramFinished, ProgramRaised)
}


# -- the worker


class _WorkerLoop:
    """Runs programs, one after the other, until the other side closes the socket."""

    def __init__(self, connection: socket.socket, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits
        self._cache_clearers = _cache_clearers()
        self._initial_memory = _peak_memory()

    def serve(self) -> NoReturn:
        """Report the start, then answer one request after the other. A whole program is one."""
        self._send({"pid": os.getpid()})
        while True:
            self._serve_one()
            self._clear_caches()

    def _clear_caches(self) -> None:
        for clear_cache in self._cache_clearers:
            clear_cache()
        gc.collect()

    def _serve_one(self) -> None:
        """Answer one request. When this function has returned, nothing refers to the program."""
        reply = self._reply(self._receive())
        if reply is not None:
            self._send(reply)

    def _reply(self, request: Message) -> Message | None:
        try:
            # A replay repeats the work before each result of the log.
            self._set_time_limit(sum(event["event"] != "read" for event in request["log"]) or 1)
            if request["do"] == "check":
                parse(request["source"], self._limits, variables=request["known"])
                return {}
            return self._run(request)
        except ProgramRefused as refused:
            return _refusal(refused)
        except SequrityError as error:
            return {"raises": type(error).__name__, "text": str(error)}
        except Abandoned:
            return None
        except MemoryError:
            return {"exhausted": str(OutOfBudget.at_limit("memory", self._limits.memory))}

    def _run(self, request: Message) -> Message:
        run = planned_run(
            request["source"],
            read=partial(parse, limits=self._limits),
            tools=request["tools"],
            variables=named_from_json(request["variables"]),
            limits=self._limits,
            may_branch=self._may_branch if request["asks"] else None,
            is_strict=request["is_strict"],
            log=request["log"],
            has_steps=request["has_steps"],
            user_request=request["asked"],
            result_schemas=request["results"],
        )
        sent_count = len(request["log"])
        limit = self._limits.outgoing
        too_large = OutOfBudget.at_limit("outgoing", limit)

        def report(step: Step) -> Message:
            nonlocal sent_count
            events = run.events_after(sent_count)
            reply: Message = {"step": step_to_json(step), "log": events, "grown": self._growth()}
            sent_count += len(events)
            return reply

        def wait_for_answer(step: Step) -> Answer:
            nonlocal sent_count
            reply = report(step)
            if not _fits(reply, limit):
                raise too_large.about(
                    f"the arguments of `{step.tool}`" if isinstance(step, ToolCall) else ""
                )
            answer = self._exchange(run, step, reply)
            sent_count += 1  # the other side has already logged this answer
            return answer

        self._send({})
        if self._receive()["do"] == "leave":
            raise Abandoned
        reply = report(step := run.finish(wait_for_answer))
        if not _fits(reply, limit):
            message = str(too_large.about("the final value"))
            failure = ProgramRaised("budget", OutOfBudget.type_name, message, step.line)
            reply = {"step": step_to_json(failure), "log": []}
        return {**reply, **self._names(run), "grown": self._growth()}

    def _exchange(self, run: Run, step: Step, reply: Message) -> Answer:
        """Send a step and wait for the answer. The other side may ask for names before."""
        while True:
            self._send(reply)
            request = self._receive()
            if request["do"] == "leave":
                raise Abandoned
            if request["do"] == "names":
                reply = self._names(run)
                continue
            self._set_time_limit(1)
            answer = answer_from_event(request["result"], step)
            if not isinstance(answer, NextProgram):
                return answer
            try:
                run.check_next_program(answer.source)
            except ProgramRefused as refused:
                reply = _refusal(refused)
            else:
                return answer

    def _growth(self) -> int:
        return max(_peak_memory() - self._initial_memory, 0)

    def _names(self, run: Run) -> Message:
        """All names, and those that a later program can start from, which excludes large values."""
        names, variables = run.namespace()
        bytes_left = self._limits.outgoing
        is_small = _fits(named_to_json(names), bytes_left)
        for name, labeled in names.items() if not is_small else ():
            entry = {name: labeled_to_json(labeled)}
            if (
                _minimum_size(entry, bytes_left) <= bytes_left
                and (size := message_size(escaped(as_json(entry)))) <= bytes_left
            ):
                bytes_left -= size
            else:
                names[name] = Labeled({"type": type(labeled.value).__name__}, labeled.labels)
                variables.pop(name, None)
        kinds = run.kinds()
        return {"names": named_to_json(names), "variables": [*variables], "kinds": kinds}

    def _may_branch(self, labels: Labels) -> bool:
        """Ask the other side. The machine asks once for each set of labels."""
        self._send({"ask": labels.to_wire()})
        return bool(self._receive()["may"])

    def _set_time_limit(self, stretches: int) -> None:
        """Set the processor time for this many stretches; the kernel ends a worker over it."""
        seconds = stretches * (self._limits.seconds + EXTRA_SECONDS)
        signal.setitimer(signal.ITIMER_PROF, seconds)

    def _receive(self) -> Message:
        try:
            size = LENGTH.unpack(read(self._connection, LENGTH.size))[0]
            message: Message = from_json(read(self._connection, size))
        except (EOFError, OSError):
            os._exit(0)  # the other side is gone
        return message

    def _send(self, message: Message) -> None:
        data = as_json(message)
        is_small = message_size(data) <= self._limits.outgoing
        send(self._connection, data if is_small else escaped(data))


def _refusal(refused: ProgramRefused) -> Message:
    position = (refused.line, refused.column)
    return {"refused": [refused.reason, *position, refused.corrected, refused.still_wrong]}


def _fits(value: Any, limit: int) -> bool:
    """Whether JSON data weighs at most `most`. Usually this needs no JSON text."""
    minimum = _minimum_size(value, limit)
    if minimum > limit or _MAX_SIZE_FACTOR * minimum < limit:
        return minimum <= limit
    data = as_json(value)
    return message_size(data) <= limit or message_size(escaped(data)) <= limit


def _minimum_size(value: Any, limit: int) -> int:
    """A lower bound of the weight of JSON data, counted up to `most`."""
    size, pending = 0, [[value]]
    while pending and size <= limit:
        container = pending.pop()
        if isinstance(container, dict):
            size += sum(map(len, container))
            container = container.values()
        size += _ELEMENT * len(container)
        for item in container:
            item_type = type(item)
            if item_type is str:
                size += len(item)
            elif item_type is int:
                size += item.bit_length() >> 2  # a digit has more than three bits
            elif item_type in _CONTAINERS:
                pending.append(item)
    return size


def _cache_clearers() -> list[Callable[[], object]]:
    """Functions that clear all caches that may contain data of a program."""
    strptime = import_module("_strptime")._regex_cache.clear  # noqa: SLF001 - there is no public function
    modules = [sys.modules[name] for name in sys.modules if name.startswith("langchain_sequrity")]
    members = [member for module in modules for member in vars(module).values()]
    clearers = [member.cache_clear for member in members if hasattr(member, "cache_clear")]
    return [re.purge, regex.purge, strptime, *clearers]


def _peak_memory() -> int:
    """The peak memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _enter_sandbox(address_space: int) -> None:
    """Drop every right that programs do not need. Everything must be loaded before."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with contextlib.suppress(OSError):  # only on Linux: out of memory, end the worker first
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")
    in_use = _address_space()
    if in_use is not None:
        resource.setrlimit(resource.RLIMIT_AS, (in_use + address_space, in_use + address_space))
    # From here on the process cannot open a file, pipe or socket, write a file, dump core, or start
    # a process or thread.
    for limit in (
        resource.RLIMIT_NOFILE,
        resource.RLIMIT_FSIZE,
        resource.RLIMIT_CORE,
        resource.RLIMIT_NPROC,
    ):
        resource.setrlimit(limit, (0, 0))


def _address_space() -> int | None:
    """Bytes of the address space in use; `None` if the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


# -- the fork server


def main() -> None:
    """Fork a worker for each socket that arrives, and end workers, until the server is gone."""
    settings = json.loads(sys.argv[1])
    limits, address_space = Limits(**settings["limits"]), settings["address_space"]
    _warm_up(limits)
    gc.collect()
    gc.freeze()  # collections in workers then do not touch, and so not copy, shared objects
    control = socket.socket(fileno=sys.stdin.fileno())
    workers: dict[int, int] = {}
    while True:
        command, sockets, _, _ = socket.recv_fds(control, COMMAND.size, 1)
        if len(command) < COMMAND.size:
            break
        action, worker_id = COMMAND.unpack(command)
        if action == FORK:
            # Without memory or processes the fork fails, and the socket is closed.
            with contextlib.suppress(OSError):
                workers[worker_id] = os.fork() or _work(sockets[0], limits, address_space)
            os.close(sockets[0])
            continue
        status = _end(workers.pop(worker_id)) if worker_id in workers else 0
        if action == END_WITH_STATUS:
            control.sendall(STATUS.pack(status))
    for pid in workers.values():
        _end(pid)


def _end(pid: int) -> int:
    """End a child if it still runs, and return its exit status."""
    os.kill(pid, signal.SIGKILL)  # the number is not reused before `waitpid`
    return os.waitpid(pid, 0)[1]


def _work(connection: int, limits: Limits, address_space: int) -> NoReturn:
    """Be a worker. Its standard input is its socket, its only open file."""
    try:
        os.dup2(connection, sys.stdin.fileno())
        os.close(connection)
        _enter_sandbox(address_space)
        worker = _WorkerLoop(socket.socket(fileno=sys.stdin.fileno()), limits)
        _warm_up(limits)  # copies the shared pages that programs write to, before the first program
        worker.serve()
    finally:
        os._exit(1)


def _warm_up(limits: Limits) -> None:
    """Run a program that uses a bit of everything, so that the first real one starts fast."""
    step = Run(parse(_WARM_UP_PROGRAM, limits), limits=limits).finish(_no_tools)
    assert isinstance(step, ProgramFinished), step  # noqa: S101 - the program is ours


def _no_tools(step: Step) -> NoReturn:
    raise AssertionError(step)


if __name__ == "__main__":
    main()
