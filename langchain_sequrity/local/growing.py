"""Lists of a session that grow, shared by the copies of the session and counted as they grow.

A request works on a copy of its session, and the store counts the session at its end. With these
lists both cost what the request adds, however long the session is.
"""

import sys
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Self, TypeVar, cast, overload

from langchain_sequrity.sizes import PARTS, SizeCount, atom_parts

T = TypeVar("T")


class GrowingList(Sequence[T]):
    """A list that only grows. Copies share the items that they have in common.

    What is appended to a copy belongs to this copy alone, until a copy of it is made. So the items
    of a request that fails go with its copy. The items themselves must not change.

    Args:
        items: Items that belong to this list alone.
        shared: A list of items that come before these, and that other lists share.
        shared_count: How many of the shared items this list has.

    Example:
        ```python
        from langchain_sequrity.local.growing import GrowingList

        log = GrowingList(["start"])
        longer = log.copy()
        longer.append("end")
        assert (list(log), list(longer)) == (["start"], ["start", "end"])
        ```
    """

    __slots__ = ("_new", "_shared", "_shared_count")

    def __init__(
        self, items: Iterable[T] = (), shared: list[T] | None = None, shared_count: int = 0
    ) -> None:
        self._shared = [] if shared is None else shared
        self._shared_count = shared_count
        self._new = [*items]

    def append(self, item: T) -> None:
        """Add an item at the end."""
        self._new.append(item)

    def extend(self, items: Iterable[T]) -> None:
        """Add items at the end."""
        self._new += items

    def copy(self) -> Self:
        """A copy that can grow by itself."""
        if self._new:
            if len(self._shared) != self._shared_count:  # another copy has grown differently
                self._shared = self._shared[: self._shared_count]
            self._shared += self._new
            self._shared_count, self._new = len(self._shared), []
        return self.first(len(self))

    def first(self, count: int) -> Self:
        """A list of the first `count` items, which can grow by itself."""
        shared_count = min(count, self._shared_count)
        return type(self)(self._new[: count - shared_count], self._shared, shared_count)

    def common_length(self, other: "GrowingList[T]") -> int:
        """The number of first items that are the same objects in both lists.

        It takes no time for items that they share as copies of one list.
        """
        shared_items, new_items, _ = other.memory()
        length = 0
        if shared_items is self._shared:
            length = min(self._shared_count, len(other) - len(new_items))
        most = min(len(self), len(other))
        while length < most and self[length] is other[length]:
            length += 1
        return length

    def memory(self) -> tuple[list[T], list[T], int]:
        """The shared items, the own items, and the bytes of the list without its items."""
        return self._shared, self._new, sys.getsizeof(self) + sys.getsizeof(self._shared)

    def __len__(self) -> int:
        """The number of items."""
        return self._shared_count + len(self._new)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        """The item at an index, or a list of those in a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        is_new = index >= self._shared_count
        return self._new[index - self._shared_count] if is_new else self._shared[index]

    def __iter__(self) -> Iterator[T]:
        """All items."""
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether another sequence has equal items."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment] # it grows

    def __repr__(self) -> str:
        """Show the items."""
        return f"{type(self).__name__}({[*self]!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the items, without those of other copies."""
        return type(self), ([*self],)


class GrowingTable(GrowingList[str]):
    """A growing list of different texts, which knows the number of each text."""

    __slots__ = ("_numbers",)

    def __init__(
        self, items: Iterable[str] = (), shared: list[str] | None = None, shared_count: int = 0
    ) -> None:
        super().__init__(items, shared, shared_count)
        self._numbers: dict[str, int] = {}

    def copy(self) -> Self:
        """A copy that can grow by itself."""
        return super().copy().with_numbers(self._numbers)

    def with_numbers(self, numbers: dict[str, int]) -> Self:
        """The table itself, which now shares the numbers with the table that it was copied from."""
        self._numbers = numbers
        return self

    def memory(self) -> tuple[list[str], list[str], int]:
        """As for every growing list, with the bytes of the numbers."""
        shared_items, new_items, size = super().memory()
        return shared_items, new_items, size + sys.getsizeof(self._numbers)

    def number_of(self, text: str) -> int:
        """The number of a text, which is added if it is new."""
        return self.numbers_of([text])[0]

    def numbers_of(self, texts: Collection[str]) -> list[int]:
        """The numbers of texts; those that are new are added."""
        if len(self._numbers) != len(self):  # another copy has added texts to them
            self._numbers = {text: number for number, text in enumerate(self)}
        numbers = self._numbers
        for text in texts:
            if text not in numbers:
                numbers[text] = len(self)
                self.append(text)
        return [numbers[text] for text in texts]


_PART = 250  # memory of `IncrementalSize` for a part
_TEXT = 130  # … for a long text
_WORTH_REMEMBERING = 2_000  # smaller parts are counted again each time


class _Part(SizeCount):
    """A part that is counted once: a frozen object, or the shared items of a growing list."""

    __slots__ = ("items_counted", "value")

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value  # so that its id is not reused
        self.items_counted = 0


class IncrementalSize:
    """The size of an object that changes, counted by what is new in it.

    Not counted again are the items of a `GrowingList`, and large tuples, frozen sets and frozen
    dataclasses; nothing in these may change. All else is counted each time: lists, dicts, sets,
    other objects. So the time of a count does not depend on the length of growing lists. A part
    that is removed or replaced does not count any more.

    Example:
        ```python
        from langchain_sequrity.local.growing import GrowingList, IncrementalSize

        growing, log = IncrementalSize(), GrowingList([{"n": 0}])
        before = growing.count(log)
        log.append({"n": 1})
        assert growing.count(log) > before
        ```
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget everything that was counted."""
        self._parts: dict[int, _Part] = {}
        self._owners: dict[int, int] = {}  # how many parts have a long text, by its id
        self._texts_size = 0

    def count(self, value: Any) -> int:
        """Count the bytes of the object now."""
        earlier, self._parts = self._parts, {}
        rest = SizeCount()
        seen, unvisited = set[int](), [value]
        while unvisited:
            node = unvisited.pop()
            if (read_parts := PARTS[type(node)]) is None or id(node) in seen:
                continue
            seen.add(id(node))
            if read_parts is atom_parts:
                rest.add_atom(node)
            elif isinstance(node, GrowingList):
                shared_items, new_items, size = node.memory()
                self._count_items(shared_items, earlier)
                rest.size += size
                unvisited.append(new_items)
            elif _is_frozen(cast("Hashable", type(node))):
                self._count_frozen(node, earlier, rest)
            else:
                rest.size += sys.getsizeof(node)
                unvisited += read_parts(node)
        for part in earlier.values():
            self._disown(part)
        own_texts = [text for key, text in rest.texts.items() if key not in self._owners]
        return (
            rest.size
            + self._texts_size
            + sum(map(sys.getsizeof, own_texts))
            + sum(part.size + _PART for part in self._parts.values())
            + _TEXT * len(self._owners)
        )

    def _count_items(self, items: list[Any], earlier: dict[int, _Part]) -> None:
        part = earlier.pop(id(items), None) or self._parts.get(id(items)) or _Part(items)
        self._parts[id(items)] = part
        for index in range(part.items_counted, len(items)):
            count = SizeCount()
            count.add(items[index])
            self._add(part, count)
        part.items_counted = len(items)

    def _count_frozen(self, value: Any, earlier: dict[int, _Part], rest: SizeCount) -> None:
        part = earlier.pop(id(value), None)
        if part is None:
            part = _Part(value)
            count = SizeCount()
            count.add(value)
            if count.size < _WORTH_REMEMBERING:
                rest.size += count.size
                rest.texts |= count.texts
                return
            self._add(part, count)
        self._parts[id(value)] = part

    def _add(self, part: _Part, count: SizeCount) -> None:
        part.size += count.size
        for key, text in count.texts.items():
            if key not in part.texts:
                part.texts[key] = text
                owners = self._owners[key] = self._owners.get(key, 0) + 1
                self._texts_size += sys.getsizeof(text) if owners == 1 else 0

    def _disown(self, part: _Part) -> None:
        for key, text in part.texts.items():
            self._owners[key] -= 1
            if not self._owners[key]:
                del self._owners[key]
                self._texts_size -= sys.getsizeof(text)


@lru_cache(maxsize=512)  # objects of few classes are counted many times
def _is_frozen(cls: Any) -> bool:
    parameters = getattr(cls, "__dataclass_params__", None)
    return issubclass(cls, tuple | frozenset) or (parameters is not None and parameters.frozen)
