"""Threads that are used again: to start one takes longer than a short turn or program."""

import asyncio
import os
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_Work = Callable[[], None]
_WaitingThread = tuple[threading.Thread, "SimpleQueue[_Work]"]


class ReusedThreads:
    """Threads for work of one kind. A thread whose work has ended waits for more.

    Args:
        name: The name of a thread that works. One that waits has the name `idle_name`.
        most_idle: How many threads may wait; others end.
    """

    def __init__(self, name: str, *, most_idle: int) -> None:
        self.name = name
        self.idle_name = f"{name}, idle"
        self._most_idle = most_idle
        self._idle: list[_WaitingThread] = []
        if hasattr(os, "register_at_fork"):  # a process that was forked has no threads
            os.register_at_fork(after_in_child=self._idle.clear)

    def start(self, work: _Work) -> threading.Thread:
        """Let a thread do work that raises nothing, and return the thread."""
        try:
            thread, queue = self._idle.pop()
        except IndexError:
            queue = SimpleQueue()
            target = partial(self._work, queue)
            thread = threading.Thread(target=target, name=self.idle_name, daemon=True)
            thread.start()
        queue.put(work)
        return thread

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a thread, with the context variables of the caller.

        If the caller is cancelled, the call goes on and its result is lost.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self.start(
            partial(_answer, loop, future, partial(copy_context().run, call, *args, **kwargs))
        )
        return await future

    def _work(self, queue: "SimpleQueue[_Work]") -> None:
        thread = threading.current_thread()
        while True:
            work = queue.get()
            thread.name = self.name
            work()
            del work  # and with it all that it refers to
            thread.name = self.idle_name
            if len(self._idle) >= self._most_idle:
                return
            self._idle.append((thread, queue))


def _answer(
    loop: asyncio.AbstractEventLoop, future: "asyncio.Future[T]", call: Callable[[], T]
) -> None:
    try:
        settle = partial(_settle, future, future.set_result, call())
    except BaseException as error:  # noqa: BLE001 - the caller raises it
        settle = partial(_settle, future, future.set_exception, error)
    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop was closed meanwhile
        return


def _settle(
    future: "asyncio.Future[T]", settle: Callable[[Any], None], outcome: T | BaseException
) -> None:
    if not future.done():  # the caller was cancelled meanwhile
        settle(outcome)
