"""The state of one run: its limits and what it has used, its position, and its way to the outside.

Compiled code holds a reference to the machine, so it does not pass the machine around.
Steps are handed out in slices: compiled code subtracts from `fuel`. The step limit and the clock
are checked only when a slice is used up. The clock counts processor time of the run's own thread:
neither a slow tool nor other work on the machine uses up a program's time.
"""

import gc
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from sys import getsizeof
from typing import Any, NoReturn, TypeVar

from langchain_sequrity.labels import NO_LABELS, Labels
from langchain_sequrity.local.interpreter.faults import BranchForbidden, OutOfBudget, Raised
from langchain_sequrity.local.interpreter.values import (
    CARRIERS,
    DictValue,
    Effects,
    ErrorType,
    ErrorValue,
    IteratorValue,
    LabeledBox,
    ListValue,
    Mark,
    Record,
    SetValue,
    Value,
    add_labels,
    join_labels,
    split_labels,
    unbox,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one program and of one run of it.

    Attributes:
        source: Characters of the program's text.
        nodes: Nodes of its syntax tree.
        nesting: Depth of its syntax tree.
        steps: Statements, iterations, calls, and elements that built-ins read.
        depth: Nested calls of the program's functions.
        bits: Bits of an integer.
        text: Characters of a string, bytes of a bytes value.
        items: Elements of a container, or of everything that one operation reads.
        memory: Estimated bytes that the whole run may allocate.
        pattern: Characters of a regular expression, and of a replacement with escapes.
        regex_seconds: Seconds for one search with a regular expression.
        seconds: Processor seconds from one tool call to the next, regular expressions included.
            Other work of the machine does not count.
        total_seconds: Processor seconds for all these stretches together.
        call_seconds: Seconds that each tool call adds to `total_seconds`.
        calls: Tool calls.
        outgoing: Bytes of JSON that a program in a worker sends at once, with a call or at its end,
            plus 30 for each element. Variables that do not fit are dropped.
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
    call_seconds: float = 0.005
    calls: int = 10_000
    outgoing: int = 5_000_000


DEFAULT_LIMITS = Limits()


MayBranch = Callable[[Labels], bool]
CallTool = Callable[[str, dict[str, Value], int], Value]
ReadExternal = Callable[[str, Callable[[], Any]], Any]
K = TypeVar("K")
_SLICE = 1024
_PACE = 64
ERROR_SIZE = 400  # bytes of an exception without its texts
ITERATOR_SIZE = 1_600  # bytes of an iterator, with the generators in it
_UNCOUNTED = 256  # less work than this is included in the step that does it
_FEW = 16
_FULL = 2  # the generation whose garbage collection visits every object
ATOMS = frozenset({int, str, float, bool, type(None), bytes})
_TEXTS = frozenset({str, bytes})
_PERHAPS_TEXTS = frozenset({*_TEXTS, LabeledBox})


class _CollectorTime(threading.local):
    """Full garbage collections of this thread, in processor seconds.

    Attributes:
        began: When the last one began.
        uncounted: The duration of the one that is not counted as time of the program.
    """

    began = 0.0
    uncounted = 0.0


_collector = _CollectorTime()


def _on_garbage_collection(phase: str, info: dict[str, Any]) -> None:
    """Do not count the first full garbage collection of a stretch as time of the program.

    Python collects the garbage of the whole process in whichever thread allocates next. In a
    process with many objects a full collection takes a second. It is rare there; a program that
    causes them again and again pays for them.
    """
    if info["generation"] == _FULL:
        if phase == "start":
            _collector.began = time.thread_time()
        elif not _collector.uncounted:
            _collector.uncounted = time.thread_time() - _collector.began


gc.callbacks.append(_on_garbage_collection)


def work_time() -> float:
    """Processor seconds of this thread, without a garbage collection that is not counted."""
    return time.thread_time() - _collector.uncounted


def _not_in_a_run(name: str, *_: Any) -> NoReturn:
    msg = f"`{name}` was used outside of a run"
    raise AssertionError(msg)


class Machine:
    """The state of one run. It belongs to the thread that makes it and counts that thread's time.

    Args:
        limits: The limits of the run.
        tools: Parameter schemas by tool name.
        call_tool: Calls a tool and returns its result. It may wait without a time limit. Without a
            run, as when a program is only checked, nothing calls it, nor `read_external`.
        read_external: Reads a value from outside, such as the time, and records it.
        may_branch: Whether a value with these labels may decide control flow. `None` allows all.
        is_strict: Whether everything under a branch takes the labels of its condition.

    Attributes:
        memory: Estimated bytes that the run has allocated so far.
        branch: Labels of the conditions that the running code depends on (implicit flow). The
            conditions of expressions (a filter, the choice of a callee) count in every mode, those
            of statements in strict mode only. Every value that the code changes gets these labels.
        open_tries: How many `try` statements are open that may catch an exception of an operation.
        try_labels: Labels of all data that might have raised since the innermost `try` began.
        control_labels: In strict mode, labels of all data that decided what the run did so far.
        may_exit: Whether a program may end early: what follows a branch then depends on it.
        has_converted: Whether a type has converted a part of a value since a union began to try it.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        tools: Mapping[str, Mapping[str, Any]] | None = None,
        call_tool: CallTool = _not_in_a_run,
        read_external: ReadExternal = _not_in_a_run,
        may_branch: MayBranch | None = None,
        is_strict: bool = False,
    ) -> None:
        self.limits = limits
        self.tools = tools or {}
        self.call_tool = call_tool
        self.read_external = read_external
        self.may_branch = may_branch
        self.is_strict = is_strict
        self.control_labels: Mark = None
        self.may_exit = False
        self.names: dict[str, Value] = {}
        self._verdicts: dict[Mark, bool] = {}
        self.memory = 0
        self.begin_program(None)

    # -- budget

    def refuel(self) -> None:
        """Hand out the next slice of steps, or end the run at the limit."""
        while self.fuel < 0:
            self._steps += _SLICE
            if self._steps > self.limits.steps + _SLICE:
                self.exhaust("steps", self.limits.steps)
            self.fuel += _SLICE
        self.check_time()

    def restart_clock(self) -> None:
        """Start the time of the next stretch, after a tool call, within what is left in total."""
        self._total_seconds_left += self.limits.call_seconds - work_time() + self._stretch_start
        self._begin_stretch()
        self.check_time()

    def _begin_stretch(self) -> None:
        _collector.uncounted = 0.0
        self._stretch_start = work_time()
        is_last = self._total_seconds_left < self.limits.seconds
        self._time_limit = "total_seconds" if is_last else "seconds"
        self._stretch_end = self._stretch_start + min(self.limits.seconds, self._total_seconds_left)

    def begin_program(self, branch: Mark) -> None:
        """Begin the next program of the run, in this thread, with its own steps and time.

        The memory limit is shared by all programs of a run: values of one program live on in the
        next.

        Args:
            branch: Labels of the data that decided that it runs, and with which variables.
        """
        self.line = 1
        self.depth = self.open_tries = 0
        self.branch = branch
        self.try_labels: Mark = None
        self.returned: Value = None
        self.handled: ErrorValue | None = None
        self.has_converted = False
        self._steps = self.fuel = 0
        self._total_seconds_left = self.limits.total_seconds
        self._begin_stretch()

    def check_time(self) -> None:
        """End the run if its time is over. For work that is slower than its steps suggest."""
        if work_time() > self._stretch_end:
            self.exhaust_time()

    @property
    def seconds_left(self) -> float:
        """Seconds left, at least 0; for operations that take a time limit themselves."""
        return max(self._stretch_end - work_time(), 0.0)

    def pay_steps(self, steps: int) -> None:
        """Pay for reading this many elements."""
        self.fuel -= steps
        if self.fuel < 0:
            self.refuel()

    def with_clock_checks(self, keys: Iterable[K]) -> Iterator[K]:
        """Iterate over keys that are looked up or stored, and check the clock regularly.

        With chosen hash collisions each key can cost a comparison with all others, which steps do
        not count.
        """
        for number, key in enumerate(keys, 1):
            if number % _PACE == 0:
                self.check_time()
            yield key

    def pay_items(self, count: int, each: int = 40) -> None:
        """Pay for a container of `count` elements of `each` bytes, before it is made."""
        if count > _UNCOUNTED:
            self.check_items(count)
            self.pay_steps(count >> 3)
        self.pay_memory(each * count + 80)

    def check_items(self, count: int) -> None:
        """End the run if a container would have too many elements. This does not pay for them."""
        if count > self.limits.items:
            self.exhaust("items", self.limits.items)

    def pay_text(self, size: int, *parts: str | bytes) -> None:
        """Pay for a text or bytes, before it is made.

        Args:
            size: Its number of characters or bytes.
            parts: The texts that its characters come from. Without them, each character counts as
                four bytes, which is the most that one takes.
        """
        if size > _UNCOUNTED:
            if size > self.limits.text:
                self.exhaust("text", self.limits.text)
            self.pay_steps(size // _UNCOUNTED)
        width = 1 if parts else 4
        for part in parts:
            if not part.isascii() and type(part) is str:
                width = 4
        self.pay_memory(width * size + 50)

    def pay_bits(self, bits: int) -> None:
        """Pay for an integer, before it is made."""
        if bits > self.limits.bits:
            self.exhaust("bits", self.limits.bits)
        self.pay_memory(bits >> 3)

    def pay_memory(self, size: int) -> None:
        """Pay for memory."""
        self.memory += size
        if self.memory > self.limits.memory:
            self.exhaust("memory", self.limits.memory)

    def pay_result(self, result: Value, before: int) -> None:
        """Pay for what an operation has not paid of its result.

        An operation pays before it works, by an estimate. This is the actual size of a number, a
        text or bytes, and of a container without its elements.

        Args:
            result: The result.
            before: `memory` before the operation.
        """
        unpaid = getsizeof(result) + before - self.memory
        if unpaid > 0:
            self.pay_memory(unpaid)

    def exhaust(self, name: str, limit: float) -> NoReturn:
        """End the run at a limit."""
        raise OutOfBudget.at_limit(name, limit)

    def exhaust_time(self) -> NoReturn:
        """End the run because the time of this stretch, or the total time, is over."""
        self.exhaust(self._time_limit, getattr(self.limits, self._time_limit))

    def stop(self) -> None:
        """End the run from another thread, at its next check of the clock."""
        self._stretch_end = -math.inf

    # -- labels

    @property
    def ignores_control_flow(self) -> bool:
        """Whether no policy looks at control flow, so that code need not report it."""
        return self.may_branch is None and not self.is_strict

    def truth(self, value: Value) -> tuple[bool, Mark]:
        """Test a value for truth: the only truth test of the language (`behaviour.md`, M3).

        Returns:
            Whether the value is true, and the labels of this fact.
        """
        inner, mark = split_labels(value)
        if mark is not None or self.may_branch is not None:  # most programs have neither
            self.check_branch(mark)
        return bool(inner), mark

    def check_branch(self, mark: Mark) -> None:
        """Ask whether data with these labels may decide control flow; end the run if not."""
        if mark is not None:
            if self.open_tries:
                self.try_labels = join_labels(self.try_labels, mark)
            if self.is_strict:
                self.control_labels = join_labels(self.control_labels, mark)
        if self.may_branch is None:
            return
        verdict = self._verdicts.get(mark)
        if verdict is None:
            verdict = self._verdicts[mark] = self.may_branch(mark or NO_LABELS)
        if not verdict:
            raise BranchForbidden(mark or NO_LABELS)

    def open_branch(self, mark: Mark) -> None:
        """Record what a statement decided by. In strict mode all later effects take the labels.

        Whoever opens a branch closes it with `close_branches`.
        """
        self.check_branch(mark)
        if self.is_strict:
            self.branch = join_labels(self.branch, mark)

    def open_choice(self, mark: Mark) -> None:
        """Record what an expression decided by. Its later effects take the labels in every mode."""
        self.check_branch(mark)
        self.branch = join_labels(self.branch, mark)

    def close_branches(self, branch: Mark) -> None:
        """Close the branches that were opened since `self.branch` was `branch`.

        In strict mode they stay open within a `try`, until it ends, and in programs that may end
        early. There the next statement runs only if no branch raised an exception or called
        `exit`, so it depends on their conditions.
        """
        if not (self.is_strict and (self.open_tries or self.may_exit)):
            self.branch = branch

    def branch_on(self, mark: Mark, run: Callable[[], Value]) -> Value:
        """Check that data with these labels may decide control flow; then `run_within` them."""
        self.check_branch(mark)
        return self.run_within(mark, run)

    def run_within(self, mark: Mark, run: Callable[[], Value]) -> Value:
        """Run code that depends on data with these labels.

        Its result, its exceptions and everything that it changes take them. This does not ask the
        policy: either it was asked before, or the data do not decide control flow, such as the
        number and names of arguments.
        """
        if mark is None:
            return run()
        self.may_fail(mark)
        before = self.branch
        self.branch = join_labels(before, mark)
        try:
            return add_labels(run(), mark)
        except Exception as error:  # noqa: BLE001 - every exception here is the program's
            raise self.as_labelled_error(error, mark) from None
        finally:
            self.close_branches(before)

    def label_changed(self, changed: Any, mark: Mark) -> None:
        """Add labels, and those of the open branches, to a container or iterator that changes.

        The sources of an iterator get them too: their positions show how far it came. For
        `Effects`, everything that the code may change gets them.
        """
        if self.branch is not None:
            mark = join_labels(mark, self.branch)
        if mark is None:
            return
        if type(changed) is IteratorValue or type(changed) is Effects:
            self._label_all_changed(changed, mark)
        else:
            changed.labels = join_labels(changed.labels, mark)

    def _label_all_changed(self, first: "IteratorValue | Effects", mark: Labels) -> None:
        pending: list[Any] = [first]
        labeled_effects: set[int] = set()
        while pending:
            changed = pending.pop()
            if type(changed) is Effects:
                if id(changed) not in labeled_effects:
                    labeled_effects.add(id(changed))
                    self.pay_steps(1)
                    pending += changed.label(changed.frame, mark)
                continue
            labels = join_labels(changed.labels, mark)
            is_new, changed.labels = labels is not changed.labels, labels
            if type(changed) is IteratorValue:
                # Sources already have the old labels; code may have reached other values since.
                pending += [up for up in changed.upstream if is_new or type(up) is Effects]

    # -- exceptions of the program

    def fail(self, error_type: type[Exception], message: str, mark: Mark = None) -> NoReturn:
        """Raise an exception of the program."""
        raise Raised(
            self._new_error(error_type, (message[:_LONGEST_TEXT],), join_labels(mark, self.branch))
        )

    def run_guarded(self, mark: Mark, run: Callable[[], Value]) -> Value:
        """Run an operation on data with these labels. An exception that it raises takes them."""
        if mark is None and self.branch is None:
            return run()
        self.may_fail(mark)
        try:
            return run()
        except Exception as error:  # noqa: BLE001 - every exception here is the program's
            raise self.as_labelled_error(error, mark) from None

    def may_fail(self, mark: Mark) -> None:
        """Record an operation that may raise, depending on data with these labels.

        An exception that is caught later takes them too, because it could only occur after this
        operation did not raise. Within a `try` that may catch the exception, this is a branch.
        """
        if mark is not None and self.open_tries:
            self.open_branch(mark)

    def as_labelled_error(self, error: Exception, mark: Mark) -> Exception:
        """The exception as one of the program, with these labels added.

        `RecursionError` and `MemoryError` are returned unchanged: they end the run, while a program
        could catch an exception of its own.
        """
        if isinstance(error, RecursionError | MemoryError):
            return error
        mark = join_labels(mark, self.branch)
        if not isinstance(error, Raised):
            return Raised(self.from_python(error, mark))
        error.error.labels = join_labels(error.error.labels, mark)
        return error

    def as_iteration_error(
        self, error: Exception, mark: Mark, *iterators: IteratorValue
    ) -> Exception:
        """`as_labelled_error`, for an exception that ended the reading of iterators."""
        failure = self.as_labelled_error(error, mark)
        if isinstance(failure, Raised):
            for iterator in iterators:
                self.label_changed(iterator, failure.error.labels)
        return failure

    def as_error_value(self, error: Exception) -> ErrorValue:
        """The exception as a value; an exhausted stack or memory ends the run instead."""
        if isinstance(error, RecursionError | MemoryError):
            raise self.as_out_of_budget(error)
        return error.error if isinstance(error, Raised) else self.from_python(error, self.branch)

    def as_out_of_budget(self, error: RecursionError | MemoryError) -> OutOfBudget:
        """The end of the run for an exhausted stack or memory of Python."""
        if isinstance(error, RecursionError):
            return OutOfBudget("The program nests calls or values too deeply.")
        return OutOfBudget.at_limit("memory", self.limits.memory)

    def from_python(self, error: Exception, mark: Mark = None) -> ErrorValue:
        """Convert an exception of Python to one of the program."""
        error_type = next(c for c in type(error).__mro__ if c.__module__ in _ERROR_MODULES)
        return self._new_error(error_type, tuple(map(_own_type, error.args)), mark)

    def _new_error(self, cls: type[Exception], args: tuple[Value, ...], mark: Mark) -> ErrorValue:
        """An exception with new texts, paid for."""
        self.pay_memory(ERROR_SIZE + sum(map(getsizeof, args)))
        return ErrorValue(ErrorType(cls.__name__, cls), args, mark, by_interpreter=True)

    # -- labels of whole values

    def labels_of(self, values: Iterable[Value]) -> Mark:
        """The join of all labels on and in these values."""
        if ATOMS.issuperset(map(type, values)):
            return None
        walk = _LabelStripper(self)
        for value in values:
            inner, mark = split_labels(value)
            walk.mark = join_labels(walk.mark, mark)
            if type(inner) is not SetValue:  # whose labels are those of its elements too
                walk.strip(inner)
        return walk.mark

    def strip_labels(self, value: Value) -> tuple[Value, Mark]:
        """Remove the labels from a value and everything in it.

        Every operation on a whole container calls this first. The walk pays for each path to an
        element, so a small web of shared lists cannot cost exponential time later. Texts cost by
        their length, because comparing them reads them.

        Returns:
            The value (the same object if nothing in it had labels) and the join of the labels.
        """
        if type(value) in ATOMS:
            return value, None
        walk = _LabelStripper(self)
        return walk.strip(value), walk.mark

    def strip_all_labels(self, values: list[Value]) -> tuple[list[Value], Mark]:
        """Like `strip_labels`, for several values."""
        if len(values) < _FEW and ATOMS.issuperset(map(type, values)):
            return values, None
        walk = _LabelStripper(self)
        bare = walk.items(values)
        return values if bare is None else bare, walk.mark


_ERROR_MODULES = ("builtins", "json.decoder", "langchain_sequrity.local.interpreter.faults")


_LONGEST_TEXT = 1_000  # characters of an exception's message; Python writes whole values into it


def _own_type(arg: Any) -> Any:
    if isinstance(arg, str):
        return arg if len(arg) <= _LONGEST_TEXT else f"{arg[:_LONGEST_TEXT]}…"
    return arg if isinstance(arg, int | float | tuple | None) else f"{arg!s:.{_LONGEST_TEXT}}"


class _LabelStripper:
    """One walk through a value that removes and joins labels."""

    __slots__ = ("count", "machine", "mark", "open")

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.count = 0
        self.mark: Mark = None
        self.open: set[int] = set()

    def strip(self, value: Value) -> Value:
        if type(value) is LabeledBox:
            self.mark = join_labels(self.mark, value.labels)
            value = value.value
        if type(value) in CARRIERS:
            self.mark = join_labels(self.mark, value.labels)
        walk = _WALKS.get(type(value))
        if walk is None or id(value) in self.open:
            return value
        self.count += len(value)
        self.machine.check_items(self.count)
        self.machine.pay_steps(1 + (len(value) >> 3))
        self.open.add(id(value))
        result = walk(self, value)
        self.open.discard(id(value))
        return result

    def items(self, values: Collection[Value]) -> list[Value] | None:
        """The bare items; `None` if they were bare already."""
        types = set(map(type, values))
        if not types.isdisjoint(_PERHAPS_TEXTS):
            self.machine.pay_steps(_text_size(values, types) >> 12)
        if types <= ATOMS:
            return None
        bare = [self.strip(value) for value in values]
        same = all(bare_item is item for bare_item, item in zip(bare, values, strict=True))
        return None if same else bare

    def keys(self, table: dict[Any, Any]) -> None:
        """Look up each key once, as a comparison of two dicts does, and check the clock."""
        self.items(table)
        # Programs cannot choose hash collisions of texts: Python's hash has a random seed.
        if not _TEXTS.issuperset(map(type, table)):
            all(map(table.__contains__, self.machine.with_clock_checks(table)))

    def sequence(self, value: ListValue[Value] | tuple[Value, ...]) -> Value:
        items = self.items(value)
        return value if items is None else type(value)(items)

    def dict(self, value: DictValue[Any, Value]) -> Value:
        self.keys(value)
        items = self.items(value.values())
        return value if items is None else DictValue(zip(value, items, strict=True))

    def set(self, value: SetValue) -> Value:
        self.keys(value.items)
        return value

    def record(self, value: Any) -> Value:
        items = self.items(value.fields.values())
        if items is None:
            return value
        return type(value)(value.model, dict(zip(value.fields, items, strict=True)))

    def error(self, value: ErrorValue) -> Value:
        items = self.items(value.args)
        return value if items is None else ErrorValue(value.type, tuple(items), None)


def _text_size(values: Collection[Value], types: set[type]) -> int:
    if types <= _TEXTS:
        return sum(map(len, values))
    return sum(len(text) for text in map(unbox, values) if isinstance(text, str | bytes))


_WALKS: dict[type, Callable[[_LabelStripper, Any], Value]] = {
    ListValue: _LabelStripper.sequence,
    DictValue: _LabelStripper.dict,
    tuple: _LabelStripper.sequence,
    SetValue: _LabelStripper.set,
    Record: _LabelStripper.record,
    ErrorValue: _LabelStripper.error,
}
