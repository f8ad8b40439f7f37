"""A function that can wait in the middle of a call, on a thread of its own.

Generators could wait only in code that is one itself, through every `sorted` and `map` on the way.
A thread can wait anywhere. Only one of the two sides ever runs; they hand over with two locks.
"""

import threading
from collections.abc import Callable
from typing import Any

from langchain_sequrity.local.interpreter.faults import Abandoned


class Fiber:
    """Runs `body` up to each of its pauses.

    The thread knows this object, which must therefore not know whoever owns it: else an owner that
    everyone forgot would live on for its waiting thread.

    Args:
        body: Is given `pause`, which hands out a value and returns once it shall go on.
    """

    def __init__(self, body: Callable[[Callable[[Any], None]], Any]) -> None:
        """Do nothing yet."""
        self._body = body
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="interpreter", daemon=True)
        self._is_closed = False
        self.is_done = False

    def resume(self) -> Any:
        """Go on until the next pause or the end.

        Returns:
            What `pause` was given, or what the function returned; then `is_done` is set.

        Raises:
            BaseException: Whatever the function raised.
        """
        if self._thread.ident is None:
            self._thread.start()
        self._go.release()
        self._back.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._value

    def close(self) -> None:
        """End the thread where it waits; nobody has to wait for that."""
        if self._is_closed:
            return
        self._is_closed = True
        self._go.release()

    def join(self, timeout: float) -> bool:
        """Wait for the thread of a closed fiber; whether it ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._is_closed:
                self._value = self._body(self._pause)
        except Abandoned:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised where `resume` waits
            self._error = error
        self.is_done = True
        self._back.release()

    def _pause(self, value: Any) -> None:
        self._value = value
        self._back.release()
        self._go.acquire()
        if self._is_closed:
            raise Abandoned
