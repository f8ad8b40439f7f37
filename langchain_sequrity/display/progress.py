"""How far some work is, for a person who waits for it.

After a second, one line appears: at a terminal on standard error, in a notebook below the cell. It
goes when the work ends. Nothing is written into pipes, files and logs, for faster work, or with
`SEQURITY_PROGRESS=off` in the environment. Work within other work has no line of its own.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from contextvars import copy_context
from html import escape
from multiprocessing import parent_process
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, Protocol, TextIO, TypeVar
from unicodedata import east_asian_width

from typing_extensions import override

from langchain_sequrity.display import plain

T = TypeVar("T")

SWITCH = "SEQURITY_PROGRESS"
"""Environment variable. `off` or `0`: never show progress."""

_SECONDS_UNTIL_SHOWN = 1.0
_SECONDS_BETWEEN_DRAWINGS = 0.1
_SECONDS_BETWEEN_TICKS = 0.5
_TITLE_CHARACTERS = 60
_LINE_CHARACTERS = 300
_BAR_CHARACTERS = 20
_COLUMNS = 80
_MOST_SECONDS = 120  # of a time that is not in minutes


class WorkProgress:
    """The progress of some work. This class is for work that nobody watches."""

    is_watched = False

    def update(self, done: int, *, unit: str = "", note: str = "") -> None:
        """Say how much is done. It is cheap, so call it often.

        Args:
            done: A number of units.
            unit: What is counted now, if it is not the unit of the whole work.
            note: More words, such as "2 failed".
        """


@contextmanager
def progress(
    title: str, *, total: int | None = None, unit: str = "", waits: bool = False
) -> Iterator[WorkProgress]:
    """Show the progress of the work in a `with` block, if it takes longer than a second.

    Args:
        title: What is done; it may contain untrusted text.
        total: How many units there are, if that is known.
        unit: What is counted, in the plural. Without it, the line shows the time.
        waits: Whether the work may wait long between two calls of `update`, or calls none. A thread
            then draws the line.

    Yields:
        What gets the numbers. The work's results and exceptions do not depend on it.

    Example:
        ```python
        from langchain_sequrity.display.progress import progress

        with progress("Reading", total=3, unit="files") as reading:
            for number in range(3):
                reading.update(number)
        ```
    """
    screen = _screen()
    if screen is None or not _is_shown.acquire(blocking=False):
        yield WorkProgress()
        return
    line = _Line(title, total, unit, screen)
    _lines.append(line)
    try:
        if waits:
            line.draw_from_thread()
        yield line
    finally:
        line.end()
        _lines.remove(line)
        _is_shown.release()


def tracked(
    items: Iterable[T], title: str, *, unit: str, total: int | None = None, waits: bool = False
) -> Iterator[T]:
    """The items, with the progress of the loop over them; the arguments are those of `progress`."""
    total = number_of(items) if total is None else total
    with progress(title, total=total, unit=unit, waits=waits) as loop:
        for done, item in enumerate(items):
            loop.update(done)
            yield item


def number_of(items: Iterable[Any]) -> int | None:
    """How many items there are, if that is known before they are read."""
    return len(items) if isinstance(items, Sized) else None


def is_active() -> bool:
    """Whether somebody watches the progress of some work of this process."""
    return bool(_lines)


def hide() -> None:
    """Remove the line until it is drawn again. Call it before other output at a terminal."""
    for line in tuple(_lines):
        line.hide()


# The line

_is_shown = Lock()
"""Held for the line of a process. A forked process gets it held, so it draws nothing."""


class _Screen(Protocol):
    def show(self, text: str, share: float | None) -> None: ...
    def clear(self) -> None: ...


class _Line(WorkProgress):
    is_watched = True

    def __init__(self, title: str, total: int | None, unit: str, screen: _Screen) -> None:
        self._title = plain(title, limit=_TITLE_CHARACTERS)
        self._total, self._unit, self._screen = total, unit, screen
        self._began = monotonic()
        self._due = self._began + _SECONDS_UNTIL_SHOWN
        self._done, self._unit_now, self._note = 0, unit, ""
        self._drawing = Lock()
        self._ended = Event()
        self._is_visible = False

    @override
    def update(self, done: int, *, unit: str = "", note: str = "") -> None:
        self._done, self._unit_now, self._note = done, unit or self._unit, note
        if unit:
            self._total = None  # it may be a number of these units
        if monotonic() >= self._due:
            self._draw()

    def draw_from_thread(self) -> None:
        # A notebook's output belongs to the cell of its context.
        Thread(target=copy_context().run, args=(self._tick,), daemon=True).start()

    def _tick(self) -> None:
        pause = _SECONDS_UNTIL_SHOWN
        while not self._ended.wait(pause):
            self._draw()
            pause = _SECONDS_BETWEEN_TICKS

    def _draw(self) -> None:
        with self._drawing:
            if not self._ended.is_set():
                self._due = monotonic() + _SECONDS_BETWEEN_DRAWINGS
                self._is_visible = True
                with suppress(Exception):  # the work goes on without a terminal
                    self._screen.show(plain(self._text(), limit=_LINE_CHARACTERS), self._share())

    def hide(self) -> None:
        with self._drawing:
            if self._is_visible:
                self._is_visible = False
                with suppress(Exception):  # as above
                    self._screen.clear()

    def end(self) -> None:
        self._ended.set()
        self.hide()

    def _share(self) -> float | None:
        return self._done / self._total if self._total and self._done <= self._total else None

    def _text(self) -> str:
        seconds = monotonic() - self._began
        share, time = self._share(), _duration(seconds)
        if share:
            time = f"{_duration(seconds / share - seconds)} left"
        elif self._done:
            time = f"{self._done / seconds:,.0f} per second"
        count = f"{self._done:,} " if share is None else f"{self._done:,} of {self._total:,} "
        parts = [f"{count}{self._unit_now}" if self._unit_now else "", self._note, time]
        return f"{self._title}: {', '.join(filter(None, parts))}"


_lines: list[_Line] = []
"""The line that is shown, or will be."""


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < _MOST_SECONDS else f"{seconds / 60:.0f} min"


# Where it is shown


def _screen() -> _Screen | None:
    """Where somebody watches; nothing in a pipe or a file."""
    if os.environ.get(SWITCH, "").lower() in ("off", "0"):
        return None
    if parent_process() is not None:  # the work of a process that has a line
        return None
    # Whoever runs in a notebook has imported IPython.
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    if hasattr(get_ipython(), "kernel"):
        return _Notebook()
    try:
        is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):  # no stream, as in `pythonw`; a closed one
        return None
    return _Terminal(sys.stderr) if is_terminal else None


class _Terminal:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, text: str, share: float | None) -> None:
        self._write(text if share is None else f"{share:4.0%} [{_bar(share)}] {text}")

    def clear(self) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        """Write over the line, without control sequences, and return to its beginning."""
        self._stream.write(f"\r{_fitted(text, self._columns() - 1)}\r")
        self._stream.flush()

    def _columns(self) -> int:
        try:  # standard output, of which `shutil` asks, may be a file
            return os.get_terminal_size(self._stream.fileno()).columns or _COLUMNS
        except OSError:
            return _COLUMNS


def _fitted(text: str, cells: int) -> str:
    """A text cut or filled to a width."""
    for index, char in enumerate(text):
        width = 2 if east_asian_width(char) in "WF" else 1
        if width > cells:
            return text[:index] + " " * cells
        cells -= width
    return text + " " * cells


def _bar(share: float) -> str:
    return ("#" * round(share * _BAR_CHARACTERS)).ljust(_BAR_CHARACTERS, ".")


class _Notebook:
    """An output of the cell that is replaced. It needs no widgets, and no colours of errors."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str, share: float | None) -> None:
        bar = "" if share is None else f'<progress max="1" value="{share:.3f}"></progress> '
        self._display({"text/plain": text, "text/html": f"{bar}{escape(text)}"})

    def clear(self) -> None:
        self._display({"text/plain": "", "text/html": ""})

    def _display(self, data: dict[str, str]) -> None:
        from IPython import display  # noqa: PLC0415 - only notebooks have it

        if self._handle is None:
            show: Any = display.display  # without types
            self._handle = show(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
