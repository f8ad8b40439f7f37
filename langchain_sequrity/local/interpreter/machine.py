"""The state of one run: its limits and what it has used, its position, and its way to the outside.

Compiled code holds a reference to the machine, so it does not pass the machine around.
Steps are handed out in slices: compiled code subtracts from `fuel`. The step limit and the clock
are checked only when a slice is used up. The clock counts processor time of the run's own thread:
neither a slow tool nor other work on the machine uses up a program's time (`WorkTime`).
"""

import gc
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter.faults import BranchForbidden, OutOfBudget, Raised
from langchain_sequrity.local.interpreter.values import (
    NO_LABELS,
    DictValue,
    Effects,
    ErrorType,
    ErrorValue,
    IteratorValue,
    ListValue,
    Mark,
    Record,
    SetValue,
    Tagged,
    TextMember,
    Value,
    join,
    strip,
    tag,
    take,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one program and of one run of it.

    Attributes:
        source: Characters of the program's text.
        nodes: Nodes of its syntax tree.
        nesting: Depth of its syntax tree.
        steps: Statements, iterations and calls, and elements that built-ins walk over.
        depth: Calls of the program's functions within each other.
        bits: Bits of an integer.
        text: Characters of a string, bytes of a bytes value.
        items: Elements of a container, or of all that one operation walks over.
        memory: Bytes that the run may ask for in all, by estimate.
        pattern: Characters of a regular expression.
        regex_seconds: Time of one search with a regular expression.
        seconds: Time of the processor that the program takes from one call of a tool to the next,
            its regular expressions included. What else the machine does is not counted.
        total_seconds: The same for all stretches between its calls together.
        calls: Calls of tools.
        outgoing: Bytes of JSON that a program in a worker hands out at once, with a call or at its
            end, and 30 more for each element of it. Variables that do not fit are left behind.
    """

    source: int = 100_000
    nodes: int = 20_000
    nesting: int = 100
    steps: int = 5_000_000
    depth: int = 100
    bits: int = 16_384
    text: int = 2_000_000
    items: int = 200_000
    memory: int = 100_000_000
    pattern: int = 1_000
    regex_seconds: float = 0.5
    seconds: float = 1.0
    total_seconds: float = 1.25
    calls: int = 10_000
    outgoing: int = 5_000_000


DEFAULT_LIMITS = Limits()


_FULL = 2
"""Generation of the collections that look at every object."""

_here = threading.local()


class WorkTime:
    """Seconds of processor time that this thread has worked since then, but for one collection."""

    __slots__ = ("_forgiven", "_start")

    def __init__(self) -> None:
        self._start = time.thread_time()
        self._forgiven: float | None = None
        _here.watched = self

    def spent(self) -> float:
        """The seconds so far; to be asked for in the thread that made it."""
        return time.thread_time() - self._start - (self._forgiven or 0.0)

    def forgive(self, seconds: float) -> None:
        """Leave a collection out, if it is the first one."""
        if self._forgiven is None:
            self._forgiven = seconds


def _watch(phase: str, info: dict[str, Any]) -> None:
    if info["generation"] < _FULL:
        return
    if phase == "start":
        _here.began = time.thread_time()
        return
    watched: WorkTime | None = getattr(_here, "watched", None)
    if watched is not None:
        watched.forgive(time.thread_time() - _here.began)


gc.callbacks.append(_watch)


MayBranch = Callable[[Labels], bool]
CallTool = Callable[[str, dict[str, Value], int], Value]
Event = Callable[[str, Callable[[], Any]], Any]
K = TypeVar("K")
_SLICE = 1024
_PACE = 64
ITERATOR_SIZE = 1_600  # bytes of an iterator, with the generators in it
_UNCOUNTED = 256  # work on less than this is paid for by the step that does it
_FEW = 16
ATOMS = frozenset({int, str, float, bool, type(None), bytes})
_TEXTS = frozenset({str, bytes})
_PERHAPS_TEXTS = frozenset({*_TEXTS, TextMember, Tagged})


class Machine:
    """The state of one run. It belongs to the thread that makes it, whose time it counts.

    Args:
        limits: What the run may use.
        tools: Parameter schemas by name of tool.
        call_tool: Calls a tool and returns its result; it may wait for as long as it likes.
        event: Returns what the outside has to say, such as the time, and records it.
        may_branch: Whether a value with these labels may steer the program; `None` for every one.
        is_strict: Whether what happens under a branch takes the labels of its condition.

    Attributes:
        branch: Labels of what decided that the code runs which runs now: in every mode what an
            expression decided by (a filter, the choice of a callee), in strict mode statements too.
            What is changed meanwhile takes them.
        trying: How many `try` statements are open that may catch an exception of an operation.
        attempted: Labels of all data that might have raised an exception since the innermost `try`.
        steered: In strict mode, labels of all data that decided what the run did so far.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        tools: Mapping[str, Mapping[str, Any]],
        call_tool: CallTool,
        event: Event,
        may_branch: MayBranch | None = None,
        is_strict: bool = False,
    ) -> None:
        """Start with everything unused."""
        self.limits = limits
        self.tools = tools
        self.call_tool = call_tool
        self.event = event
        self.may_branch = may_branch
        self.is_strict = is_strict
        self.line = 1
        self.depth = 0
        self.branch: Mark = None
        self.trying = 0
        self.attempted: Mark = None
        self.steered: Mark = None
        self.returned: Value = None
        self.handled: ErrorValue | None = None
        self.names: dict[str, Value] = {}
        self._verdicts: dict[Mark, bool] = {}
        self._memory = 0
        self._begin_budget()

    @classmethod
    def idle(cls, limits: Limits) -> "Machine":
        """A machine for work that belongs to no run: checking a program, showing its variables."""
        return cls(limits=limits, tools={}, call_tool=_no_tools, event=_no_events)

    # -- budget

    def refuel(self) -> None:
        """Hand out the next slice of steps, or end the run."""
        while self.fuel < 0:
            self._steps += _SLICE
            if self._steps > self.limits.steps + _SLICE:
                self.exhaust("steps", self.limits.steps)
            self.fuel += _SLICE
        self.look_at_clock()

    def _begin_budget(self) -> None:
        self._steps = self.fuel = 0
        self._seconds_in_all = self.limits.total_seconds
        self._clock = WorkTime()
        self._begin_stretch()

    def restart_clock(self) -> None:
        """Give the program the time for its next stretch, out of what it has left in all."""
        self._seconds_in_all -= self._clock.spent()
        self._clock = WorkTime()
        self._begin_stretch()
        self.look_at_clock()

    def take_time(self, seconds: float) -> None:
        """Take away what another thread worked for the program, before its next stretch."""
        self._seconds_in_all -= seconds

    def _begin_stretch(self) -> None:
        self._seconds = min(self.limits.seconds, self._seconds_in_all)
        is_last = self._seconds_in_all < self.limits.seconds
        self._time_limit = "total_seconds" if is_last else "seconds"

    def begin_program(self, branch: Mark) -> None:
        """Begin the next program of the run: with steps and time of its own.

        Memory is for all programs of a run together, for what one has made the others still hold.

        Args:
            branch: Labels of what decided that it runs, and with which variables.
        """
        self.depth = self.trying = 0
        self.attempted, self.returned, self.handled = None, None, None
        self.branch = branch
        self.line = 1
        self._begin_budget()

    def look_at_clock(self) -> None:
        """End the run if its time is over; for work that is slower than its steps say."""
        if self._clock.spent() > self._seconds:
            self.exhaust_time()

    @property
    def seconds_left(self) -> float:
        """Time that is left, at least 0; for an operation that can be given a limit itself."""
        return max(self._seconds - self._clock.spent(), 0.0)

    def work(self, steps: int) -> None:
        """Pay for walking over so many elements."""
        self.fuel -= steps
        if self.fuel < 0:
            self.refuel()

    def paced(self, keys: Iterable[K]) -> Iterator[K]:
        """Go through keys that are looked up or stored, with a look at the clock now and then.

        With chosen keys each of them can cost a walk over all others, which no step counts.
        """
        for number, key in enumerate(keys, 1):
            if number % _PACE == 0:
                self.look_at_clock()
            yield key

    def make_items(self, count: int, each: int = 40) -> None:
        """Pay for a container with so many elements of so many bytes, before it is made."""
        if count > _UNCOUNTED:
            self.make_room(count)
            self.work(count >> 3)
        self.charge(each * count + 80)

    def make_room(self, count: int) -> None:
        """End the run if a container would have so many elements; what they take is not paid."""
        if count > self.limits.items:
            self.exhaust("items", self.limits.items)

    def make_text(self, size: int, *parts: str | bytes) -> None:
        """Pay for a text or bytes, before it is made.

        Args:
            size: How many characters or bytes it has.
            parts: What its characters come from. Where nothing is said, each takes four bytes, as
                some do outside of ASCII.
        """
        if size > _UNCOUNTED:
            if size > self.limits.text:
                self.exhaust("text", self.limits.text)
            self.work(size // _UNCOUNTED)
        width = 1 if parts else 4
        for part in parts:
            if not part.isascii() and type(part) is str:
                width = 4
        self.charge(width * size + 50)

    def make_bits(self, bits: int) -> None:
        """Pay for an integer, before it is made."""
        if bits > self.limits.bits:
            self.exhaust("bits", self.limits.bits)
        self.charge(bits >> 3)

    def charge(self, size: int) -> None:
        """Pay for memory."""
        self._memory += size
        if self._memory > self.limits.memory:
            self.exhaust("memory", self.limits.memory)

    def exhaust(self, name: str, limit: float) -> NoReturn:
        """End the run because a limit was reached."""
        raise OutOfBudget.of(name, limit)

    def exhaust_time(self) -> NoReturn:
        """End the run because its time is over: that of this stretch, or all that it has."""
        self.exhaust(self._time_limit, getattr(self.limits, self._time_limit))

    def stop(self) -> None:
        """End the run from another thread, at its next look at the clock."""
        self._seconds = -math.inf

    # -- labels

    @property
    def is_unwatched(self) -> bool:
        """Whether nobody asks what steers the program, so that code need not say."""
        return self.may_branch is None and not self.is_strict

    def truth(self, value: Value) -> tuple[bool, Mark]:
        """Decide by a value: the one truth test of the language (`behaviour.md`, M3).

        Returns:
            Whether it counts as true, and the labels of that.
        """
        inner, mark = take(value)
        if mark is not None or self.may_branch is not None:  # most programs have neither
            self.steer(mark)
        return bool(inner), mark

    def steer(self, mark: Mark) -> None:
        """Ask whether data with these labels may decide what the program does next."""
        if mark is not None:
            if self.trying:
                self.attempted = join(self.attempted, mark)
            if self.is_strict:
                self.steered = join(self.steered, mark)
        if self.may_branch is None:
            return
        verdict = self._verdicts.get(mark)
        if verdict is None:
            verdict = self._verdicts[mark] = self.may_branch(mark or NO_LABELS)
        if not verdict:
            raise BranchForbidden(mark or NO_LABELS)

    def looked(self, mark: Mark) -> None:
        """Note what a statement decided by; in strict mode all that comes next takes its labels.

        Whatever opens a branch ends it with `leave`.
        """
        self.steer(mark)
        if self.is_strict:
            self.branch = join(self.branch, mark)

    def decided(self, mark: Mark) -> None:
        """Note what an expression decided by: what it does next takes the labels in every mode."""
        self.steer(mark)
        self.branch = join(self.branch, mark)

    def leave(self, branch: Mark) -> None:
        """End the branches that were opened since `branch` was the whole of them.

        In strict mode they last to the end of a `try` around them: whether the next statement is
        reached may depend on an exception that they did not raise.
        """
        if not (self.is_strict and self.trying):
            self.branch = branch

    def under(self, mark: Mark, run: Callable[[], Value]) -> Value:
        """Ask whether data with these labels may decide that this runs; then run it `within`."""
        self.steer(mark)
        return self.within(mark, run)

    def within(self, mark: Mark, run: Callable[[], Value]) -> Value:
        """Run what depends on data with these labels.

        Its result, its exceptions and all that it changes take them. Whether the data may decide
        this was asked before, or they decide nothing: the number and names of arguments do not.
        """
        if mark is None:
            return run()
        self.may_fail(mark)
        before = self.branch
        self.branch = join(before, mark)
        try:
            return tag(run(), mark)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the program's
            raise self.labelled(error, mark) from None
        finally:
            self.leave(before)

    def mark(self, changed: Any, mark: Mark) -> None:
        """Add labels to a container or iterator that is changed, and those of the open branches.

        With an iterator those change that it reads from: where they are shows how far it came.
        With the effects of code, all change that it may change.
        """
        if self.branch is not None:
            mark = join(mark, self.branch)
        if mark is None:
            return
        if type(changed) is IteratorValue or type(changed) is Effects:
            self._mark_all(changed, mark)
        else:
            changed.labels = join(changed.labels, mark)

    def moved(self, iterator: "IteratorValue", failure: Exception) -> None:
        """Note that an exception has ended what was reading an iterator: that tells how far."""
        if isinstance(failure, Raised):
            self.mark(iterator, failure.error.labels)

    def _mark_all(self, first: "IteratorValue | Effects", mark: Labels) -> None:
        waiting: list[Any] = [first]
        known: set[int] = set()
        while waiting:
            one = waiting.pop()
            if type(one) is Effects:
                if id(one) not in known:
                    known.add(id(one))
                    self.work(1)
                    waiting += one.label(mark)
                continue
            labels = join(one.labels, mark)
            is_new, one.labels = labels is not one.labels, labels
            if type(one) is IteratorValue:
                # Those upstream have old labels already; code may have got at other things.
                waiting += [up for up in one.upstream if is_new or type(up) is Effects]

    # -- exceptions of the program

    def fail(self, kind: type[Exception], message: str, mark: Mark = None) -> NoReturn:
        """Raise an exception inside the program."""
        mark = join(mark, self.branch)
        raise Raised(ErrorValue(ErrorType(kind.__name__, kind), (message[:_LONGEST_TEXT],), mark))

    def guarded(self, mark: Mark, run: Callable[[], Value]) -> Value:
        """Run an operation on data with these labels; an exception that it raises takes them."""
        if mark is None and self.branch is None:
            return run()
        self.may_fail(mark)
        try:
            return run()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the program's
            raise self.labelled(error, mark) from None

    def may_fail(self, mark: Mark) -> None:
        """Note an operation on data with these labels, which decide whether it raises.

        An exception that is caught later has them, for it only came because this one did not.
        Within a `try` that may catch the exception, it is a decision on what comes next.
        """
        if mark is not None and self.trying:
            self.looked(mark)

    def labelled(self, error: Exception, mark: Mark) -> Exception:
        """An exception with these labels, as one of the program.

        Those of an exhausted stack or memory stay what they are: they end the run, and a program
        could catch an exception of its own.
        """
        if isinstance(error, RecursionError | MemoryError):
            return error
        mark = join(mark, self.branch)
        if not isinstance(error, Raised):
            return Raised(self.from_python(error, mark))
        error.error.labels = join(error.error.labels, mark)
        return error

    def from_python(self, error: Exception, mark: Mark = None) -> ErrorValue:
        """Turn an exception of Python into one of the program."""
        kind = next(kind for kind in type(error).__mro__ if kind.__module__ in _ERROR_MODULES)
        return ErrorValue(ErrorType(kind.__name__, kind), tuple(map(_own_type, error.args)), mark)

    # -- labels of whole values

    def labels_of(self, values: Iterable[Value]) -> Mark:
        """The join of all labels on and in these values."""
        if ATOMS.issuperset(map(type, values)):
            return None
        walk = _Walk(self)
        for value in values:
            inner, mark = take(value)
            walk.mark = join(walk.mark, mark)
            if type(inner) is not SetValue:  # whose labels are those of its elements too
                walk.bare(inner)
        return walk.mark

    def bare(self, value: Value) -> tuple[Value, Mark]:
        """Take labels off a value and everything in it.

        Whatever looks at a whole container comes through here first: the walk counts elements as
        often as they can be reached, so a small web of shared lists cannot cost exponential time.
        Texts count by their length, for whoever compares them reads them.

        Returns:
            The value, the same object where nothing in it had labels, and the join of the labels.
        """
        if type(value) in ATOMS:
            return value, None
        walk = _Walk(self)
        return walk.bare(value), walk.mark

    def bare_all(self, values: list[Value]) -> tuple[list[Value], Mark]:
        """Do the same for several values."""
        if len(values) < _FEW and ATOMS.issuperset(map(type, values)):
            return values, None
        walk = _Walk(self)
        bare = walk.items(values)
        return values if bare is None else bare, walk.mark


_ERROR_MODULES = ("builtins", "json.decoder", "langchain_sequrity.local.interpreter.faults")


_LONGEST_TEXT = 1_000  # characters of what an exception says; Python writes whole values into it


def _own_type(arg: Any) -> Any:
    if isinstance(arg, str):
        return arg if len(arg) <= _LONGEST_TEXT else f"{arg[:_LONGEST_TEXT]}…"
    return arg if isinstance(arg, int | float | tuple | None) else f"{arg!s:.{_LONGEST_TEXT}}"


def _no_tools(name: str, arguments: dict[str, Value], line: int) -> NoReturn:
    del arguments, line
    msg = f"`{name}` was called where no program runs"
    raise AssertionError(msg)


def _no_events(name: str, read: Callable[[], Any]) -> NoReturn:
    del read
    msg = f"`{name}` was asked for where no program runs"
    raise AssertionError(msg)


class _Walk:
    """One walk through a value."""

    __slots__ = ("count", "machine", "mark", "open")

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.count = 0
        self.mark: Mark = None
        self.open: set[int] = set()

    def bare(self, value: Value) -> Value:
        if type(value) is Tagged:
            self.mark = join(self.mark, value.labels)
            value = value.value
        if type(value) is IteratorValue:
            self.mark = join(self.mark, value.labels)
        walk = _WALKS.get(type(value))
        if walk is None or id(value) in self.open:
            return value
        self.count += len(value)
        self.machine.make_room(self.count)
        self.machine.work(1 + (len(value) >> 3))
        self.open.add(id(value))
        result = walk(self, value)
        self.open.discard(id(value))
        return result

    def items(self, values: Collection[Value]) -> list[Value] | None:
        """Bare items, or `None` if they were so already."""
        kinds = set(map(type, values))
        if not kinds.isdisjoint(_PERHAPS_TEXTS):
            self.machine.work(_text_size(values, kinds) >> 12)
        if kinds <= ATOMS:
            return None
        bare = [self.bare(value) for value in values]
        same = all(one is other for one, other in zip(bare, values, strict=True))
        return None if same else bare

    def keys(self, table: dict[Any, Any]) -> None:
        """Look up each key once, as those will who compare the table with another."""
        self.items(table)
        # Nobody can choose the hash of a text: Python's has a secret in it.
        if not _TEXTS.issuperset(map(type, table)):
            all(map(table.__contains__, self.machine.paced(table)))

    def list(self, value: ListValue[Value]) -> Value:
        self.mark = join(self.mark, value.labels)
        items = self.items(value)
        return value if items is None else ListValue(items)

    def tuple(self, value: tuple[Value, ...]) -> Value:
        items = self.items(value)
        return value if items is None else tuple(items)

    def dict(self, value: DictValue[Any, Value]) -> Value:
        self.mark = join(self.mark, value.labels)
        self.keys(value)
        items = self.items(value.values())
        return value if items is None else DictValue(zip(value, items, strict=True))

    def set(self, value: SetValue) -> Value:
        self.mark = join(self.mark, value.labels)
        self.keys(value.items)
        return value

    def record(self, value: Any) -> Value:
        self.mark = join(self.mark, value.labels)
        items = self.items(value.fields.values())
        if items is None:
            return value
        return type(value)(value.model, dict(zip(value.fields, items, strict=True)))

    def error(self, value: ErrorValue) -> Value:
        self.mark = join(self.mark, value.labels)
        items = self.items(value.args)
        return value if items is None else ErrorValue(value.type, tuple(items), None)


def _text_size(values: Collection[Value], kinds: set[type]) -> int:
    if kinds <= _TEXTS:
        return sum(map(len, values))
    return sum(len(text) for text in map(strip, values) if isinstance(text, str | bytes))


_WALKS: dict[type, Callable[[_Walk, Any], Value]] = {
    ListValue: _Walk.list,
    DictValue: _Walk.dict,
    tuple: _Walk.tuple,
    SetValue: _Walk.set,
    Record: _Walk.record,
    ErrorValue: _Walk.error,
}
