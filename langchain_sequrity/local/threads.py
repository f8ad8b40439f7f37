"""Threads that are used again: to start one takes longer than a short turn or program."""

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from langchain_sequrity.local.fair_slots import FairSlots, work_in_slot
from langchain_sequrity.owned_cache import cache_owner

P = ParamSpec("P")
T = TypeVar("T")
_Work = Callable[[], None]
_WaitingThread = tuple[threading.Thread, "SimpleQueue[_Work]"]


class ReusedThreads:
    """Threads for work of one kind. A thread whose work has ended waits for more.

    Args:
        name: The name of a thread that works. One that waits has the name `idle_name`.
        most_idle: How many threads may wait; others end.
        slots: Slots for calls of `run`; by default any number may run at once.
    """

    def __init__(self, name: str, *, most_idle: int, slots: FairSlots | None = None) -> None:
        self.name = name
        self._slots = slots
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

        With slots, the call waits for one, together with those of its `cache_owner`. If the caller
        is cancelled, a call that waits is not made; one that has begun goes on, and its result is
        lost.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        work = partial(_answer, loop, future, partial(copy_context().run, call, *args, **kwargs))
        if self._slots is None:
            self.start(work)
        else:
            owner = cache_owner.get()
            work = partial(work_in_slot, self._slots, owner, work)
            self._slots.begin(owner, partial(self._start_in_slot, self._slots, loop, future, work))
        return await future

    def _start_in_slot(
        self,
        slots: FairSlots,
        loop: asyncio.AbstractEventLoop,
        future: "asyncio.Future[T]",
        work: _Work,
    ) -> None:
        try:
            self.start(work)
        except Exception as error:  # noqa: BLE001 - the system has no more threads; the caller raises it
            _call_soon(loop, partial(_settle, future, future.set_exception, error))
            _call_soon(loop, slots.end)  # not at once: it would begin the next call within this one

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
    if future.cancelled():
        return
    try:
        settle = partial(_settle, future, future.set_result, call())
    except BaseException as error:  # noqa: BLE001 - the caller raises it
        settle = partial(_settle, future, future.set_exception, error)
    _call_soon(loop, settle)


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(callback)


def _settle(
    future: "asyncio.Future[T]", settle: Callable[[Any], None], outcome: T | BaseException
) -> None:
    if not future.done():  # the caller was cancelled meanwhile
        settle(outcome)
