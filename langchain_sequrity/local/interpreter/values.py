"""Values of programs, and the labels that they carry (`behaviour.md`, M1).

A value without labels is represented by itself: the number 3 is `3`. Only a labelled value is
boxed, as `Tagged`. So a program without labels pays one type check per operation and no allocation.

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
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, Self, TypeVar

from langchain_sequrity.labels import Labels


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class EnumType:
    """An enumeration of the program.

    Attributes:
        name: Its name.
        mixed: `str` or `int` if its members also are such; else `None`.
        is_plain: Whether `str` of a member is that of its value, as with `IntEnum` and `StrEnum`.
        members: Members by name; a second name of one value has the same member.
    """

    name: str
    mixed: type | None = None
    is_plain: bool = False
    members: dict[str, "EnumMember"] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Write it as Python does."""
        return f"<enum {self.name!r}>"

    def __iter__(self) -> Iterator["EnumMember"]:
        """Go through the members, each once."""
        return iter(dict.fromkeys(self.members.values()))

    def __len__(self) -> int:
        """Count the members, each once."""
        return len(set(self.members.values()))

    def add(self, name: str, value: Any) -> None:
        """Add a member."""
        same = next((member for member in self if member.value == value), None)
        self.members[name] = same or _CLASSES[self.mixed].made(self, name, value)


class EnumMember:
    """A member of an enumeration; two members are equal if they are the same."""

    kind: EnumType
    name: str
    value: Any

    @classmethod
    def made(cls, kind: EnumType, name: str, value: Any) -> Self:
        """Make one; a constructor would have to share its arguments with those of `str`."""
        member = cls() if cls is EnumMember else cls(value)  # type: ignore[call-arg]
        member.kind, member.name, member.value = kind, name, value
        return member

    def __repr__(self) -> str:
        """Write it as Python does."""
        return f"<{self.kind.name}.{self.name}: {self.value!r}>"

    def __str__(self) -> str:
        """Write it as Python does."""
        return str(self.value) if self.kind.is_plain else f"{self.kind.name}.{self.name}"

    def __format__(self, spec: str) -> str:
        """Format what `str` gives, or the number of a plain one."""
        return format(self.value if self.kind.is_plain else str(self), spec)


class TextMember(EnumMember, str):  # noqa: SLOT000 - a member has attributes
    """A member that also is a text."""


class NumberMember(EnumMember, int):
    """A member that also is an integer."""


_CLASSES: dict[type | None, type[EnumMember]] = {
    None: EnumMember,
    str: TextMember,
    int: NumberMember,
}
MEMBERS = (EnumMember, TextMember, NumberMember)


K = TypeVar("K")
V = TypeVar("V")
Value = Any
Mark = Labels | None
NO_LABELS = Labels()


@dataclass(frozen=True, slots=True)
class Labeled:
    """A JSON value and the join of all labels in it, at the border of the interpreter."""

    value: Any
    labels: Labels = NO_LABELS


class Opaque:
    """A value whose fields are the interpreter's own: programs see the name of its type."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Write no more than that, within a list too."""
        return f"<{type_name(self)}>"


class Tagged:
    """A value with labels; never another `Tagged` within."""

    __slots__ = ("labels", "value")

    def __init__(self, value: Value, labels: Labels) -> None:
        """Use `tag`, which keeps boxes out of boxes."""
        self.value = value
        self.labels = labels


class ListValue(list[V], Generic[V]):
    """A list with labels of its own."""

    labels: Mark = None  # on the class: a list costs nothing more until it is labelled
    __hash__ = None


class DictValue(dict[K, V], Generic[K, V]):
    """A dict with labels of its own, which include those of its keys.

    `factory` makes what is missing in a `defaultdict`; in a `Counter` what is missing is 0.
    """

    labels: Mark = None
    factory: Value = None
    is_counter: bool = False
    __hash__ = None


class SetValue:
    """A set that iterates in the order of insertion, so that a replay sees the same order."""

    __slots__ = ("items", "labels")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, items: dict[Any, None], labels: Mark = None) -> None:
        """Take over `items`, whose keys are the elements."""
        self.items = items
        self.labels = labels

    def __len__(self) -> int:
        """Count what is in it."""
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        """Go through what is in it."""
        return iter(self.items)

    def __contains__(self, item: object) -> bool:
        """Look an element up."""
        return item in self.items

    def __eq__(self, other: object) -> bool:
        """Compare as Python does."""
        return isinstance(other, SetValue) and self.items.keys() == other.items.keys()

    def __le__(self, other: "SetValue") -> bool:
        """Whether all of it is in the other."""
        return bool(self.items.keys() <= _keys(other))

    def __lt__(self, other: "SetValue") -> bool:
        """Whether it is a proper part of the other."""
        return bool(self.items.keys() < _keys(other))

    def __ge__(self, other: "SetValue") -> bool:
        """Whether all of the other is in it."""
        return bool(self.items.keys() >= _keys(other))

    def __gt__(self, other: "SetValue") -> bool:
        """Whether the other is a proper part of it."""
        return bool(self.items.keys() > _keys(other))

    def __repr__(self) -> str:
        """Write it as Python does."""
        return f"{{{', '.join(map(repr, self.items))}}}" if self.items else "set()"


def _keys(other: object) -> Any:
    if isinstance(other, SetValue):
        return other.items.keys()
    msg = "a set can only be compared with a set"
    raise TypeError(msg)


class IteratorValue(Opaque):
    """What `iter`, `map`, a generator expression and the like give: elements, once.

    Nothing of Python can iterate it: only `operators.iterate` reads it, one paid step at a time.

    Attributes:
        source: Where the elements come from.
        labels: Those of its position. They grow while it is read, with whatever decides how far.
        upstream: What it reads from, and what its own code and a function that it calls may
            change: whoever moves it may move and change them.
    """

    __slots__ = ("labels", "source", "upstream")

    def __init__(
        self,
        source: Iterator[Value],
        labels: Mark = None,
        upstream: "list[Any] | None" = None,
    ) -> None:
        """Read from `source`."""
        self.source = source
        self.labels = labels
        self.upstream = [] if upstream is None else upstream


class Effects:
    """What some code of the program may change, as far as its text says so.

    Whoever decides by labelled data that the code runs, or does not, labels all of it.
    """

    __slots__ = ("_find", "_frame")

    def __init__(self, find: Callable[[Any, Labels], list[Any]], frame: Any) -> None:
        """`find` labels variables that the code may bind, and gives what else it may change."""
        self._find = find
        self._frame = frame

    def label(self, labels: Labels) -> list[Any]:
        """Label what variables may be bound to; the containers, iterators and code to label."""
        return self._find(self._frame, labels)


@dataclass(slots=True, eq=False, repr=False)
class FunctionValue(Opaque):
    """A function of the program, or a lambda; `effects` are those of a call."""

    name: str
    call: Callable[[list[Value], dict[str, Value]], Value]
    effects: Effects


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Builtin(Opaque):
    """A function that the language has; `call` gets the machine first."""

    name: str
    call: Callable[[Any, list[Value], dict[str, Value]], Value]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TypeValue(Builtin):
    """A type: it converts, `isinstance` knows it, and its methods can be had from it."""

    types: tuple[type, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Method(Opaque):
    """A method that was taken off its object but not called yet."""

    name: str
    target: Value


@dataclass(frozen=True, slots=True, repr=False)
class ToolValue(Opaque):
    """A tool as a value, to hand to `map` for example."""

    name: str


@dataclass(frozen=True, slots=True, repr=False)
class ErrorType(Opaque):
    """A type of exception.

    `kind` is its Python type, or that of what it is derived from; `parent` is there for a type that
    a class statement made.
    """

    name: str
    kind: type[Exception]
    parent: "ErrorType | None" = None


@dataclass(frozen=True, slots=True, repr=False)
class Marker(Opaque):
    """A name that only class statements and annotations read, such as `Optional`."""

    name: str


class ErrorValue:
    """An exception. Its labels are those of everything that the failed operation looked at."""

    __slots__ = ("args", "cause", "labels", "type")

    def __init__(self, error_type: ErrorType, args: tuple[Value, ...], labels: Mark) -> None:
        """`args` are bare or labelled values."""
        self.type = error_type
        self.args = args
        self.labels = labels
        self.cause: Value = None

    def __len__(self) -> int:
        """Count what is in it."""
        return len(self.args)

    def __bool__(self) -> bool:
        """Say what Python does."""
        return True

    def __str__(self) -> str:
        """Write it as Python does."""
        bare = tuple(map(strip, self.args))
        if len(bare) == 1:
            return repr(bare[0]) if self.type.name == "KeyError" else str(bare[0])
        return str(bare) if bare else ""

    def __repr__(self) -> str:
        """Write it as Python does."""
        return f"{self.type.name}({', '.join(repr(strip(arg)) for arg in self.args)})"


def strip(value: Value) -> Value:
    """Take the box off, if there is one."""
    return value.value if type(value) is Tagged else value


def join(one: Mark, other: Mark) -> Mark:
    """Join two sets of labels; joining the same ones is free."""
    if one is other or other is None:
        return one
    return other if one is None else _join(one, other)


@lru_cache(maxsize=4096)
def _join(one: Labels, other: Labels) -> Labels:
    joined = one.join(other)
    # One of the two where possible: the next join of the same ones is then free.
    return one if joined == one else other if joined == other else joined


def tag(value: Value, labels: Mark) -> Value:
    """Add labels to a value."""
    if labels is None:
        return value
    if type(value) is not Tagged:
        return Tagged(value, labels)
    joined = join(value.labels, labels)
    return value if joined is value.labels else Tagged(value.value, joined)  # type: ignore[arg-type]


def take(value: Value) -> tuple[Value, Mark]:
    """Take a value apart; a container's own labels count."""
    if type(value) is Tagged:
        inner = value.value
        return inner, join(value.labels, own(inner))
    return value, own(value)


def own(inner: Value) -> Mark:
    """The labels that a container carries itself; a bare value of another kind has none."""
    return inner.labels if type(inner) in CARRIERS else None


def as_mark(labels: Labels) -> Mark:
    """Labels as they are kept inside."""
    return None if labels == NO_LABELS else labels


class Record:
    """An instance of a model: fields by name and nothing else."""

    __slots__ = ("fields", "labels", "model")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, model: Any, fields: dict[str, Value], labels: Mark = None) -> None:
        """Take over `fields`, which are checked already."""
        self.model = model
        self.fields = fields
        self.labels = labels

    def __len__(self) -> int:
        """Count what is in it."""
        return len(self.fields)

    def __bool__(self) -> bool:
        """Say what Python does."""
        return True

    def __eq__(self, other: object) -> bool:
        """Compare as Python does."""
        return (
            isinstance(other, Record) and self.model is other.model and self.fields == other.fields
        )

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        """Go through names and values, as pydantic's models do."""
        return iter(self.fields.items())

    def __repr__(self) -> str:
        """Write it as Python does."""
        return f"{self.model.name}({', '.join(f'{k}={v!r}' for k, v in self.fields.items())})"

    def __str__(self) -> str:
        """Write it as Python does."""
        return " ".join(f"{name}={value!r}" for name, value in self.fields.items())


CARRIERS = frozenset({ListValue, DictValue, SetValue, IteratorValue, ErrorValue, Record})
ITERABLE = frozenset(
    {str, bytes, tuple, range, ListValue, DictValue, SetValue, IteratorValue, Record}
    | {EnumType, TextMember}
)
TYPE_NAMES: dict[type, str] = {
    ListValue: "list",
    DictValue: "dict",
    SetValue: "set",
    IteratorValue: "iterator",
    FunctionValue: "function",
    Builtin: "builtin_function_or_method",
    Method: "builtin_function_or_method",
    TypeValue: "type",
    ErrorType: "type",
    EnumType: "EnumType",
    Marker: "type",
    ToolValue: "function",
}


def changed_by_calls(function: Value) -> list[Any]:
    """What calls of a function may change, where it shows; all of it can be marked."""
    inner = strip(function)
    if type(inner) is FunctionValue:
        return [inner.effects]
    target = strip(inner.target) if type(inner) is Method else None
    return [target] if type(target) in CARRIERS else []


def box_mark(value: Value) -> Mark:
    """The labels of the box around a value, without those that a container carries itself."""
    return value.labels if type(value) is Tagged else None


def type_name(inner: Value) -> str:
    """The name that Python has for the type of a bare value."""
    if isinstance(inner, Record):
        return str(inner.model.name)
    if isinstance(inner, EnumMember):
        return inner.kind.name
    if isinstance(inner, ErrorValue):
        return inner.type.name
    return TYPE_NAMES.get(type(inner)) or type(inner).__name__
