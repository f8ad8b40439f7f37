"""Values of programs, and the labels that they carry (`behaviour.md`, M1).

A value without labels is represented by itself: the number 3 is `3`. Only a labelled value is
boxed, as `LabeledBox`. So a program without labels pays one type check per operation and no
allocation.

Containers and iterators are mutable and shared, so they carry labels of their own: those of their
length, order, membership and position. An alias must see labels that are added later. Their
elements are values with their own labels. Reading an element adds the labels of the box around the
container and those of the container. Writing through a box adds the labels of the box to the
container, because they decided which container was written to.
Keys of a dict and elements of a set are stored bare, and their labels are added to the container's:
whether another key is present depends on them.

A mark is `Labels` or `None`. `None` means the same as `Labels()`.
"""

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, TypeVar

from langchain_sequrity.labels import NO_LABELS, Labels

K = TypeVar("K")
V = TypeVar("V")
Value = Any
Mark = Labels | None


class Opaque:
    """A value with internal fields: programs see only the name of its type."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Show the type name, also within a list."""
        return f"<{type_name(self)}>"


@dataclass(frozen=True, slots=True, eq=False)
class FieldMarks:
    """Labels of the items of a JSON object; a list of objects has those of its objects.

    Attributes:
        labels: The join of all.
        rest: The labels of the items that are not listed.
        items: Items with labels of their own.
    """

    labels: Labels
    rest: Mark
    items: "dict[str, FieldMarks]"

    def join(self, mark: Mark) -> "FieldMarks":
        """The same with labels added to all items."""
        if mark is None:
            return self
        items = {name: item.join(mark) for name, item in self.items.items()}
        return FieldMarks(self.labels.join(mark), join_labels(self.rest, mark), items)


@dataclass(slots=True, eq=False, repr=False)
class LabeledBox:
    """A value with labels. `add_labels` makes it, and never puts one box into another.

    `fields` says which items of a tool's result have fewer labels than the whole. Only code that
    reads an item by its place looks at it; for everything else the box has the labels of the whole.
    """

    value: Value
    labels: Labels
    fields: FieldMarks | None = None


class ListValue(list[V], Generic[V]):
    """A list with labels of its own."""

    labels: Mark = None  # on the class, so an unlabelled list needs no extra memory


class DictValue(dict[K, V], Generic[K, V]):
    """A dict with labels of its own, which include the labels of its keys.

    `factory` makes missing values of a `defaultdict`. Missing values of a `Counter` are 0.
    """

    labels: Mark = None
    factory: Value = None
    is_counter: bool = False


@dataclass(slots=True, eq=False, repr=False)
class SetValue(AbstractSet[Any]):
    """A set that iterates in insertion order, so that a replay sees the same order."""

    items: dict[Any, None]  # the keys are the elements
    labels: Mark = None

    def __len__(self) -> int:
        """Return the number of elements."""
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the elements."""
        return iter(self.items)

    def __contains__(self, item: object) -> bool:
        """Whether the element is in the set."""
        return item in self.items

    def __repr__(self) -> str:
        """Show it as Python does."""
        return f"{{{', '.join(map(repr, self.items))}}}" if self.items else "set()"


@dataclass(slots=True, eq=False, repr=False)
class IteratorValue(Opaque):
    """The result of `iter`, `map`, a generator expression and the like.

    Python cannot iterate it. Only `iteration.iterate` reads it, and pays for each step.

    Attributes:
        source: Gives the elements.
        labels: Labels of its position. They grow while it is read, by what decides how far.
        upstream: The iterators that it reads, and the `Effects` of its code. Advancing it may
            advance and change all of them.
    """

    source: Iterator[Value]
    labels: Mark = None
    upstream: list[Any] = field(default_factory=list)


@dataclass(slots=True, eq=False, repr=False)
class Effects:
    """Everything that a piece of code may change, according to its text.

    When labelled data decide whether the code runs, all of this gets the labels.

    Attributes:
        label: Labels the variables that the code may bind, given its frame; returns everything else
            that it may change.
        frame: The frame.
    """

    label: Callable[[Any, Labels], list[Any]]
    frame: Any


@dataclass(slots=True, eq=False, repr=False)
class FunctionValue(Opaque):
    """A function or lambda of the program. `effects` is what a call may change."""

    name: str
    call: Callable[[list[Value], dict[str, Value]], Value]
    effects: Effects


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Builtin(Opaque):
    """A built-in function. The first argument of `call` is the machine."""

    name: str
    call: Callable[[Any, list[Value], dict[str, Value]], Value]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TypeValue(Builtin):
    """A built-in type: a converter, an argument of `isinstance`, and a namespace of methods."""

    types: tuple[type, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Method(Opaque):
    """A bound method that was not called yet."""

    name: str
    target: Value


@dataclass(frozen=True, slots=True, repr=False)
class ToolValue(Opaque):
    """A tool as a value, for example as an argument of `map`."""

    name: str


@dataclass(frozen=True, slots=True, repr=False)
class ErrorType(Opaque):
    """A type of exception.

    `python_type` is its Python type or that of its nearest built-in ancestor. `parent` is set for a
    type that a class statement made.
    """

    name: str
    python_type: type[Exception]
    parent: "ErrorType | None" = None


@dataclass(frozen=True, slots=True, repr=False)
class Marker(Opaque):
    """A name that only class statements and annotations use, such as `Optional`."""

    name: str


@dataclass(slots=True, eq=False, repr=False)
class ErrorValue:
    """An exception. Its labels are those of all data that the failed operation read.

    `by_interpreter` tells the interpreter's own errors, where they occur, from those that a program
    makes or raises again: their texts may look alike, and consist of data.
    """

    type: ErrorType
    args: tuple[Value, ...]
    labels: Mark
    by_interpreter: bool = False

    def __len__(self) -> int:
        """Return the number of arguments."""
        return len(self.args)

    def __bool__(self) -> bool:
        """Be true, as in Python."""
        return True

    def __str__(self) -> str:
        """Show it as Python does."""
        bare = tuple(map(unbox, self.args))
        if len(bare) == 1:
            return repr(bare[0]) if self.type.name == "KeyError" else str(bare[0])
        return str(bare) if bare else ""

    def __repr__(self) -> str:
        """Show it as Python does."""
        return f"{self.type.name}({', '.join(repr(unbox(arg)) for arg in self.args)})"


def unbox(value: Value) -> Value:
    """The value without its box."""
    return value.value if type(value) is LabeledBox else value


def join_labels(first: Mark, second: Mark) -> Mark:
    """Join two sets of labels. Joining a set with itself is free."""
    if first is second or second is None:
        return first
    return second if first is None else _join_different(first, second)


@lru_cache(maxsize=4096)
def _join_different(first: Labels, second: Labels) -> Labels:
    joined = first.join(second)
    # Return one of the two if possible: the next join of the same labels is then free.
    return first if joined == first else second if joined == second else joined


def add_labels(value: Value, labels: Mark) -> Value:
    """Add labels to a value."""
    if labels is None:
        return value
    if type(value) is not LabeledBox:
        return LabeledBox(value, labels)
    joined = join_labels(value.labels, labels)
    if joined is value.labels and value.fields is None:
        return value
    fields = None if value.fields is None else value.fields.join(labels)
    return LabeledBox(value.value, joined, fields)  # type: ignore[arg-type]


def add_fields(value: Value, fields: FieldMarks) -> Value:
    """Put labels of fields around a part of a tool's result.

    A program may have written another value in its place, whose labels are for all of it.
    """
    inner = unbox(value)
    if type(inner) is DictValue or type(inner) is ListValue:
        fields = fields.join(box_mark(value))
        return LabeledBox(inner, fields.labels, fields)
    return add_labels(value, as_mark(fields.labels))


def fields_of(value: Value) -> FieldMarks | None:
    """The labels of the fields of a value, if they have labels of their own."""
    return value.fields if type(value) is LabeledBox else None


def item_of(inner: Value, fields: FieldMarks, key: Any, item: Value, mark: Mark) -> Value:
    """An item that was read by its place from a container with labels of fields.

    Args:
        inner: The bare container.
        fields: The labels of its fields.
        key: The bare place.
        item: The item.
        mark: The labels of the place.
    """
    if type(inner) is ListValue:
        item = add_fields(item, fields)
    elif type(key) is str and (item_fields := fields.items.get(key)) is not None:
        item = add_fields(item, item_fields)
    else:
        item = add_labels(item, fields.rest)
    return add_labels(item, join_labels(inner.labels, mark))


def split_labels(value: Value) -> tuple[Value, Mark]:
    """Split a value into the bare value and its labels, including a container's own."""
    inner, mark = (value.value, value.labels) if type(value) is LabeledBox else (value, None)
    return inner, join_labels(mark, inner.labels) if type(inner) in CARRIERS else mark


def as_mark(labels: Labels) -> Mark:
    """Labels in the internal form, where no labels are `None`."""
    return None if labels == NO_LABELS else labels


@dataclass(slots=True, eq=False, repr=False)
class Record:
    """An instance of a model: fields by name."""

    model: Any
    fields: dict[str, Value]
    labels: Mark = None
    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        """Return the number of fields."""
        return len(self.fields)

    def __bool__(self) -> bool:
        """Be true, as in Python."""
        return True

    def __eq__(self, other: object) -> bool:
        """Compare as Python does."""
        return (
            isinstance(other, Record) and self.model is other.model and self.fields == other.fields
        )

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        """Iterate over names and values, as a pydantic model does."""
        return iter(self.fields.items())

    def __repr__(self) -> str:
        """Show it as Python does."""
        return f"{self.model.name}({', '.join(f'{k}={v!r}' for k, v in self.fields.items())})"

    def __str__(self) -> str:
        """Show it as Python does."""
        return " ".join(f"{name}={value!r}" for name, value in self.fields.items())


CARRIERS = frozenset({ListValue, DictValue, SetValue, IteratorValue, ErrorValue, Record})
ITERABLE = frozenset(
    {str, bytes, tuple, range, ListValue, DictValue, SetValue, IteratorValue, Record}
)
# Python's own functions write these names into their errors.
for _class, _name in {
    ListValue: "list",
    DictValue: "dict",
    SetValue: "set",
    IteratorValue: "iterator",
    FunctionValue: "function",
    Builtin: "builtin_function_or_method",
    Method: "builtin_function_or_method",
    TypeValue: "type",
    ErrorType: "type",
    ErrorValue: "Exception",
    Marker: "type",
    Record: "BaseModel",
    ToolValue: "function",
}.items():
    _class.__name__ = _name


def changed_by_calls(function: Value) -> list[Any]:
    """What calls of a function may change, by its text; for `Machine.label_changed`."""
    inner = unbox(function)
    if type(inner) is FunctionValue:
        return [inner.effects]
    target = unbox(inner.target) if type(inner) is Method else None
    return [target] if type(target) in CARRIERS else []


def box_mark(value: Value) -> Mark:
    """The labels of the box around a value, without a container's own labels."""
    return value.labels if type(value) is LabeledBox else None


def type_name(inner: Value) -> str:
    """Python's name for the type of a bare value."""
    if isinstance(inner, Record):
        return str(inner.model.name)
    if isinstance(inner, ErrorValue):
        return inner.type.name
    return type(inner).__name__
