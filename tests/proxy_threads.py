"""A proxy of the tests that runs on an event loop of its own, in a thread."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self


class ThreadedProxy(ABC):
    """A proxy. It serves until it is stopped.

    Attributes:
        url: Its address.
        loop: Its event loop.
    """

    def __init__(self) -> None:
        self.url = ""
        self.loop = asyncio.new_event_loop()
        self._has_begun = threading.Event()
        self._stop = asyncio.Event()

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Listen, until the end of the block."""
        thread = threading.Thread(target=self.loop.run_until_complete, args=(self.serve(),))
        thread.start()
        self._has_begun.wait()
        try:
            yield self
        finally:
            self.loop.call_soon_threadsafe(self._stop.set)
            thread.join()
            self.loop.close()

    @abstractmethod
    async def serve(self) -> None:
        """Listen, set `url`, and await `until_stopped`."""

    async def until_stopped(self) -> None:
        """Let the block begin, and wait for its end."""
        self._has_begun.set()
        await self._stop.wait()
