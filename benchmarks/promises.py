"""`python -m benchmarks.promises`: which promises of our pool maintained libraries keep too.

Each promise is a small program against a server with faults. `docs/decisions.md` has the result,
and names our own tests of each promise.
"""

import asyncio
import logging
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from benchmarks.senders import ASYNC_SENDERS, SENDERS
from langchain_sequrity.transport.http11 import ServiceAddress
from langchain_sequrity.transport.timeouts import Deadline, Timeouts
from langchain_sequrity.wire.exchange import ServiceCall
from tests.transport.transport_helpers import Answer, RawServer, closes, hangs, http, says

_KEY = "sk-a-key-that-nobody-may-see"
_HEADERS = ((b"X-API-Key", _KEY.encode()), (b"Content-Type", b"application/json"))
_OK, _FORGED = b'{"text": "hi"}', b'{"text": "forged"}'
_WORKS = says(http(_OK))
_TOTAL, _BYTE_AT, _LATE = 1.0, 0.7, 1.4
"""Seconds until the deadline, until the server sends a byte, and until the check.

If the byte restarted the limit, the call would still run at the check."""
_GENEROUS = 20.0
_MOMENTS = 60
"""A task is cancelled after 0 to 59 turns of the event loop."""
_TIMES = 10
"""Repetitions of all these cancellations: the result may depend on the server's progress."""


class Caller:
    """A sender of threads or of an event loop, called from here.

    Args:
        make: Makes the sender, from the maximum number of connections.
        is_async: Whether it needs an event loop.
    """

    def __init__(self, make: Callable[[int], Any], *, is_async: bool) -> None:
        self.runner = asyncio.Runner() if is_async else None
        self._sender = self.runner.run(self._made(make)) if self.runner else make(2)

    async def _made(self, make: Callable[[int], Any]) -> Any:
        return make(2)

    def post(self, url: str, *, total: float = _GENEROUS, body: bytes = b"{}") -> bytes:
        """Make a call and return the body of its reply."""
        if self.runner:
            return self.runner.run(self.apost(url, total=total, body=body))
        with self._sender.open(*_arguments(url, total, body)) as (_, pieces):
            return b"".join(pieces)

    async def apost(self, url: str, *, total: float = _GENEROUS, body: bytes = b"{}") -> bytes:
        """The same, within the loop."""
        async with self._sender.open(*_arguments(url, total, body)) as (_, pieces):
            return b"".join([data async for data in pieces])

    def rest(self, seconds: float, *, busy: bool = False) -> None:
        """Wait. An event loop runs meanwhile, unless it is busy."""
        if self.runner and not busy:
            self.runner.run(asyncio.sleep(seconds))
        else:
            time.sleep(seconds)

    def close(self) -> None:
        """Close the sender, and its loop."""
        if self.runner:
            self.runner.run(self._sender.aclose())
            self.runner.close()
        else:
            self._sender.close()


def _arguments(url: str, total: float, body: bytes) -> tuple[Any, ...]:
    request = ServiceAddress(url).request(ServiceCall("/chat/completions", _HEADERS, body))
    return request, Timeouts(), Deadline(total)


@contextmanager
def _server(*script: Answer) -> Iterator[RawServer]:
    with RawServer(list(script)).running() as server:
        yield server


def _fails(action: Callable[[], object]) -> bool:
    try:
        action()
    except Exception:  # noqa: BLE001  # each library has its own
        return True
    return False


# Deadlines


def _ends_in_time(caller: Caller, url: str, body: bytes = b"{}") -> bool:
    start = time.monotonic()
    failed = _fails(lambda: caller.post(url, total=_TOTAL, body=body))
    return failed and time.monotonic() - start < _LATE


def _trickles(first: bytes) -> Answer:
    def answer(connection: socket.socket) -> bool:
        connection.sendall(first)
        time.sleep(_BYTE_AT)
        connection.sendall(b" ")
        return hangs(connection)

    return answer


def trickling_body(caller: Caller) -> bool:
    with _server(_trickles(http(b" " * 1000)[:-999])) as server:
        return _ends_in_time(caller, server.url)


def trickling_head(caller: Caller) -> bool:
    with _server(_trickles(b"HTTP/1.1 200 OK\r\nX-Long:")) as server:
        return _ends_in_time(caller, server.url)


def slow_reader(caller: Caller) -> bool:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as threads:

        def read_late() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                time.sleep(_BYTE_AT)
                for _ in range(100):
                    connection.recv(65536)
                time.sleep(_LATE)

        done = threads.submit(read_late)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        in_time = _ends_in_time(caller, url, b" " * 30_000_000)
        done.result()
        return in_time


# Bytes after a reply


def _not_forged(caller: Caller, answer: Answer, *, busy: bool) -> bool:
    with _server(answer, _WORKS) as server:
        assert caller.post(server.url) == _OK
        caller.rest(0.4, busy=busy)
        return caller.post(server.url) == _OK


def beyond_at_once(caller: Caller) -> bool:
    return _not_forged(caller, says(http(_OK) + http(_FORGED)), busy=False)


def _later(connection: socket.socket) -> bool:
    connection.sendall(http(_OK))
    time.sleep(0.2)
    connection.sendall(http(_FORGED))
    return True


def beyond_later(caller: Caller) -> bool:
    return _not_forged(caller, _later, busy=False)


def beyond_while_busy(caller: Caller) -> bool:
    return _not_forged(caller, _later, busy=True)


# Connections that the server closes


def _idle_closed(caller: Caller, *, busy: bool) -> bool:
    with _server(says(http(_OK), keep=False), _WORKS) as server:
        assert caller.post(server.url) == _OK
        assert server.closed.acquire(timeout=_GENEROUS)
        caller.rest(0.2, busy=busy)
        return caller.post(server.url) == _OK and len(server.requests) == 2  # noqa: PLR2004


def closed_idle(caller: Caller) -> bool:
    return _idle_closed(caller, busy=False)


def closed_while_busy(caller: Caller) -> bool:
    return _idle_closed(caller, busy=True)


def sent_once(caller: Caller) -> bool:
    with _server(_WORKS, closes, _WORKS) as server:
        assert caller.post(server.url) == _OK
        return _fails(lambda: caller.post(server.url)) and len(server.requests) == 2  # noqa: PLR2004


# Replies that two readers could read differently

_LENGTH = b"Content-Length: %d\r\n" % len(_OK)
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_AMBIGUOUS = (
    _LENGTH + b"Content-Length: 3\r\n\r\n" + _OK,
    b"Content-Length: +%d\r\n\r\n" % len(_OK) + _OK,
    b"Content-Length: -3\r\n\r\n" + _OK,
    _LENGTH + b"X-Session-ID : a\r\n\r\n" + _OK,
    _LENGTH + b"no colon\r\n\r\n" + _OK,
    _CHUNKED + b"\r\n3\r\n" + _OK + b"\r\n0\r\n\r\n",
    _CHUNKED + b"\r\n" + b"f" * 40 + b"\r\n" + _OK,
    _LENGTH + b"\r\n" + _OK[:-1],
    b"X-Long: " + b"a" * 200_000,
)


def ambiguous(caller: Caller) -> bool:
    for rest in _AMBIGUOUS:
        with _server(says(b"HTTP/1.1 200 OK\r\n" + rest, keep=False)) as server:
            if not _fails(partial(caller.post, server.url)):
                print(f"  reads {rest[:60]!r}", file=sys.stderr)
                return False
    return True


# Cancelling


def cancelled(caller: Caller) -> bool | None:
    """Whether a task that is cancelled at any moment frees its connection."""
    if caller.runner is None:
        return None
    with _server(_WORKS) as server:
        return caller.runner.run(_cancelled(caller, server.url))


async def _cancelled(caller: Caller, url: str) -> bool:
    for turns in [*range(_MOMENTS)] * _TIMES:
        task = asyncio.create_task(caller.apost(url))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    both = await asyncio.gather(*(caller.apost(url) for _ in range(2)))
    return both == [_OK, _OK]


# Keys


class _Interrupted(BaseException):
    pass


def _interrupt(*_: object) -> None:
    raise _Interrupted


def unshown(caller: Caller) -> bool:
    """Whether no variable holds the key when a call is interrupted while it waits for its reply."""
    with _server(hangs) as server:
        try:
            _interrupted(caller, server)
        except BaseException as error:  # noqa: BLE001  # the interruption
            return not any(map(_shows_the_key, _chain(error)))
    return False


def _interrupted(caller: Caller, server: RawServer) -> None:
    if caller.runner:
        caller.runner.run(_cancelled_when_asked(caller, server))
        return
    threading.Thread(target=_signal_when_asked, args=(server,)).start()
    before = signal.signal(signal.SIGUSR1, _interrupt)
    try:
        caller.post(server.url)
    finally:
        signal.signal(signal.SIGUSR1, before)


def _signal_when_asked(server: RawServer) -> None:
    server.asked.acquire(timeout=_GENEROUS)
    time.sleep(0.1)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


async def _cancelled_when_asked(caller: Caller, server: RawServer) -> None:
    task = asyncio.create_task(caller.apost(server.url))
    await asyncio.to_thread(server.asked.acquire, timeout=_GENEROUS)
    await asyncio.sleep(0.1)
    task.cancel()
    await task


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _shows_the_key(error: BaseException) -> bool:
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == __file__:
            continue  # the server of this file has read the key
        for name, value in frame.f_locals.items():
            if _KEY in repr(value):
                where = f"{frame.f_code.co_filename}:{frame.f_code.co_name}"
                print(f"  `{name}` of {where}", file=sys.stderr)
                return True
    return False


class _Collecting(logging.Handler):
    def __init__(self) -> None:
        super().__init__(0)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage()


def unlogged(caller: Caller) -> bool:
    root, collecting = logging.getLogger(), _Collecting()
    level = root.level
    root.addHandler(collecting)
    root.setLevel(0)
    try:
        with _server(_WORKS) as server:
            caller.post(server.url)
    finally:
        root.setLevel(level)
        root.removeHandler(collecting)
    return _KEY not in collecting.text


PROMISES: dict[str, Callable[[Caller], bool | None]] = {
    "a body that arrives slowly cannot exceed the total": trickling_body,
    "a head that arrives slowly cannot exceed the total": trickling_head,
    "a server that reads slowly cannot exceed the total": slow_reader,
    "extra bytes after a reply are not the next reply": beyond_at_once,
    "bytes that come on an idle connection are not the next reply": beyond_later,
    "the same while the program is busy": beyond_while_busy,
    "an idle connection that the server closed is not used": closed_idle,
    "the same if it closed while the program was busy": closed_while_busy,
    "a request that may have been received is not sent again": sent_once,
    "ambiguous, cut and endless replies are refused": ambiguous,
    "a task cancelled at any moment frees its connection": cancelled,
    "no variable holds a key when a call is interrupted": unshown,
    "no log has a key": unlogged,
}


def _kept(promise: Callable[[Caller], bool | None], make: Callable[[int], Any], mode: str) -> str:
    caller = Caller(make, is_async=mode == "async")
    try:
        held = promise(caller)
    except Exception as error:  # noqa: BLE001  # a promise that fails in another way is not kept
        print(f"  {type(error).__name__}: {error}", file=sys.stderr)
        held = False
    finally:
        caller.close()
    return {True: "yes", False: "no", None: ""}[held]


def main() -> None:
    columns = [(name, make, "sync") for name, make in SENDERS.items()]
    columns += [(name, make, "async") for name, make in ASYNC_SENDERS.items()]
    print("| Promise |", " | ".join(f"{name} ({mode})" for name, _, mode in columns), "|")
    print("|---" * (len(columns) + 1) + "|")
    for text, promise in PROMISES.items():
        print(text, file=sys.stderr)
        cells = []
        for name, make, mode in columns:
            print(f" {name} ({mode})", file=sys.stderr)
            cells.append(_kept(promise, make, mode))
        print(f"| {text} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
