"""How the fields of a session are written as JSON: whole, or as what changed in them.

Fields are replaced, and never changed in place. So a field that is the same object is not written
again, and of a list that grew only the new items are written. A field that is not written has its
default in a new object, and stays as it is in an object that changes.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from operator import attrgetter, is_
from typing import Any, Final, NoReturn, Protocol

import orjson
from langchain_core.messages import BaseMessage
from pydantic_core import CoreSchema, core_schema

from langchain_sequrity.errors import ServerFailed
from langchain_sequrity.local.growing import GrowingList
from langchain_sequrity.local.stored_messages import StoredMessage

_HTTP_SERVER_ERROR = 500


class UnreadableSession(ServerFailed):
    """A stored session that this version cannot read."""


class UnstorableSession(ServerFailed):
    """A session with a part that cannot be written."""


def unreadable(problem: str) -> NoReturn:
    """Raise `UnreadableSession`: the session stays in the store, and no part of it is used."""
    detail = (
        f"The stored session cannot be read. {problem} A newer version has written it, or it is "
        "damaged. Update this server, or start a new session."
    )
    raise UnreadableSession(detail, status=_HTTP_SERVER_ERROR, body={"detail": detail})


def unstorable(problem: str) -> NoReturn:
    """Raise `UnstorableSession`: nothing of the session is written."""
    detail = f"The session cannot be stored. {problem} Use `MemorySessions` for such sessions."
    raise UnstorableSession(detail, status=_HTTP_SERVER_ERROR, body={"detail": detail})


@dataclasses.dataclass(frozen=True, slots=True)
class Nothing:
    """Stands for an object that does not exist yet.

    Attributes:
        likely: Values that some of its fields probably have.
    """

    likely: Mapping[str, Any] = dataclasses.field(default_factory=dict)


NOTHING: Final = Nothing()
SAME: Final = object()
"""Stands for a change that changes nothing."""


class Field(Protocol):
    """A kind of field."""

    @property
    def schema(self) -> CoreSchema:
        """What a change looks like in JSON."""

    def change(self, before: Any, after: Any) -> Any:
        """Write what changed.

        Args:
            before: The earlier value; `NOTHING` to write a value as a whole.
            after: The value.

        Returns:
            Data for orjson, or `SAME`.

        Raises:
            UnstorableSession: If the value has a type that cannot be written.
        """

    def apply(self, before: Any, change: Any) -> Any:
        """Read a value. It does not change `before`.

        Args:
            before: As for `change`.
            change: What that returned.

        Raises:
            UnreadableSession: If this is not a change of that value.
        """


# Values


@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    """Values of one type that JSON has."""

    type: type
    schema: CoreSchema

    def change(self, before: Any, after: Any) -> Any:
        """The value."""
        if before is after:
            return SAME
        if type(after) is not self.type:
            unstorable(f"Expected `{self.type.__name__}`, got `{type(after).__name__}`.")
        return SAME if type(before) is self.type and before == after else after

    def apply(self, _before: Any, change: Any) -> Any:
        """The value."""
        return change


TEXT = Plain(str, core_schema.str_schema(strict=True))
NUMBER = Plain(int, core_schema.int_schema(strict=True))
FLAG = Plain(bool, core_schema.bool_schema(strict=True))


@dataclasses.dataclass(frozen=True, slots=True)
class _Hexadecimal:
    """Values that are written as hexadecimal digits."""

    write: Callable[[Any], str]
    read: Callable[[str], Any]
    schema: CoreSchema = dataclasses.field(
        default_factory=lambda: core_schema.str_schema(strict=True, pattern="^[0-9a-f]*$")
    )

    def change(self, before: Any, after: Any) -> Any:
        """The digits."""
        return SAME if before == after else self.write(after)

    def apply(self, _before: Any, change: Any) -> Any:
        """The value."""
        try:
            return self.read(change)
        except ValueError:
            unreadable("Hexadecimal digits are missing.")


BYTES = _Hexadecimal(bytes.hex, bytes.fromhex)
BITS = _Hexadecimal("{:x}".format, lambda digits: int(digits, 16))
"""Numbers of any length; other numbers have at most 64 bits."""


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """Plain data, such as arguments and results of tools.

    Attributes:
        types: What they may be; by default anything.
    """

    types: tuple[type, ...] = ()
    schema: CoreSchema = dataclasses.field(default_factory=core_schema.any_schema)

    def change(self, before: Any, after: Any) -> Any:
        """The data; `{"$exact": text}` if orjson would not write all of it."""
        if before is after:
            return SAME
        change = _as_plain(after)
        is_same = before == after and orjson_or_text(_as_plain(before)) == orjson_or_text(change)
        return SAME if is_same else change

    def apply(self, _before: Any, change: Any) -> Any:
        """The data."""
        value = change
        if type(change) is dict and change.keys() == _EXACT_KEYS:
            try:
                value = _read_exact(json.loads(change[_EXACT]))
            except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
                unreadable("Exact data are not in their form.")
        if self.types and not isinstance(value, self.types):
            unreadable(f"Data have the type `{type(value).__name__}`.")
        return value


DATA = Data()
_EXACT = "$exact"
_EXACT_KEYS = {_EXACT}
_LARGEST = 2**63
_STRICTLY = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


def orjson_or_text(change: Any) -> bytes:
    """JSON bytes of a change.

    Python's encoder writes lone surrogates, which orjson refuses, as escapes.
    """
    try:
        return orjson.dumps(change)
    except TypeError:
        return json.dumps(change, separators=(",", ":")).encode()


def _as_plain(value: Any) -> Any:
    """Data as they are if orjson reads what it wrote of them."""
    value_type = type(value)
    if value_type is str or value is None or value_type is bool:
        return value
    if value_type is int and -_LARGEST <= value < _LARGEST:
        return value
    if value_type is dict and value.keys() == _EXACT_KEYS:
        return _exact(value)
    try:
        # It writes tuples as lists, NaN as null, and more, without a word.
        if orjson.loads(orjson.dumps(value, option=_STRICTLY)) == value:
            return value
    except (TypeError, ValueError, RecursionError):  # long integers, surrogates, depth
        pass
    return _exact(value)


def _exact(value: Any) -> dict[str, str]:
    try:
        return {_EXACT: json.dumps(_write_exact(value), separators=(",", ":"))}
    except RecursionError:
        unstorable("Its data are nested too deeply.")


def _write_exact(value: Any) -> Any:  # noqa: PLR0911 - one for each type
    match value:
        case int() if not -_LARGEST <= value < _LARGEST:
            return {"$int": f"{value:x}"}
        case None | int() | str() | float():
            return value
        case bytes():
            return {"$bytes": value.hex()}
        case list():
            return [*map(_write_exact, value)]
        case dict():
            if all(type(key) is str and key[:1] != "$" for key in value):
                return {key: _write_exact(inner) for key, inner in value.items()}
            return {"$dict": [[*map(_write_exact, pair)] for pair in value.items()]}
    for name, collection in _COLLECTIONS.items():
        if isinstance(value, collection):
            return {name: [_write_exact(item) for item in value]}
    unstorable(f"Its data have an object of the class `{type(value).__qualname__}`.")


def _read_exact(value: Any) -> Any:
    if isinstance(value, list):
        return [*map(_read_exact, value)]
    if not isinstance(value, dict):
        return value
    (name, inner), *others = value.items() or [("", None)]
    if others or name[:1] != "$":
        return {key: _read_exact(part) for key, part in value.items()}
    return _EXACT_READERS[name](inner)


_COLLECTIONS: Mapping[str, type[Any]] = {"$tuple": tuple, "$frozenset": frozenset, "$set": set}
_EXACT_READERS: Mapping[str, Callable[[Any], Any]] = {
    "$int": lambda digits: int(digits, 16),
    "$bytes": bytes.fromhex,
    "$dict": lambda pairs: {_read_exact(key): _read_exact(value) for key, value in pairs},
    "$tuple": lambda items: tuple(map(_read_exact, items)),
    "$frozenset": lambda items: frozenset(map(_read_exact, items)),
    "$set": lambda items: set(map(_read_exact, items)),
}


class _JsonText:
    """The text of a JSON object. It is read later, so it is checked here."""

    schema: CoreSchema = TEXT.schema

    def change(self, before: Any, after: Any) -> Any:
        """The text."""
        return TEXT.change(before, after)

    def apply(self, _before: Any, change: Any) -> Any:
        """The text."""
        check_object(change)
        return change


JSON_TEXT = _JsonText()


def check_object(text: str) -> None:
    """Check that a text is a JSON object."""
    if text == "{}":
        return
    try:
        value = orjson.loads(text)
    except ValueError:
        try:  # orjson refuses lone surrogates
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, dict):
        unreadable("A text is not a JSON object.")


class _ObjectOrJsonText:
    """A JSON object, or its text."""

    schema: CoreSchema = DATA.schema
    _data = Data((str, dict))

    def change(self, before: Any, after: Any) -> Any:
        """The object or the text."""
        return self._data.change(before, after)

    def apply(self, before: Any, change: Any) -> Any:
        """The object or the text."""
        value = self._data.apply(before, change)
        if isinstance(value, str):
            check_object(value)
        return value


OBJECT_OR_JSON_TEXT = _ObjectOrJsonText()


@dataclasses.dataclass(frozen=True, slots=True)
class OneOf:
    """One of some texts."""

    texts: Sequence[str]

    @property
    def schema(self) -> CoreSchema:
        """One of these literals."""
        return core_schema.literal_schema([*self.texts])

    def change(self, before: Any, after: Any) -> Any:
        """The text."""
        if after not in self.texts:
            unstorable(f"Expected one of {', '.join(self.texts)}.")
        return TEXT.change(before, after)

    def apply(self, _before: Any, change: Any) -> Any:
        """The text."""
        return change


# Fields that consist of others


def _object(required: Mapping[str, CoreSchema], optional: Mapping[str, CoreSchema]) -> CoreSchema:
    fields = {name: core_schema.typed_dict_field(s, required=True) for name, s in required.items()}
    fields |= {
        name: core_schema.typed_dict_field(s, required=False) for name, s in optional.items()
    }
    return core_schema.typed_dict_schema(fields, strict=True, extra_behavior="forbid")


_LENGTH = core_schema.int_schema(strict=True, ge=0)


def _list(items: CoreSchema) -> CoreSchema:
    return core_schema.list_schema(items, strict=True)


class _LongText:
    """A text that begins like the earlier one, such as a list of variables."""

    schema: CoreSchema = core_schema.union_schema(
        [TEXT.schema, _object({"keep": _LENGTH, "add": TEXT.schema}, {})], mode="left_to_right"
    )

    def change(self, before: Any, after: Any) -> Any:
        """The length of the common beginning, if it is long, and the rest."""
        change = TEXT.change(before, after)
        if change is SAME or isinstance(before, Nothing) or len(after) < _LONG:
            return change
        common = _common_length(before, after)
        return change if common < _LONG else {"keep": common, "add": after[common:]}

    def apply(self, before: Any, change: Any) -> Any:
        """The text."""
        if isinstance(change, str):
            return change
        common = change["keep"]
        if isinstance(before, Nothing) or common > len(before):
            unreadable("The beginning of a text is missing.")
        return before[:common] + change["add"]


LONG_TEXT = _LongText()
_LONG = 200


def _common_length(first: str, second: str) -> int:
    """The length of the common beginning of two texts."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclasses.dataclass(frozen=True, slots=True)
class Optional:
    """A value, or `None`."""

    field: Field

    @property
    def schema(self) -> CoreSchema:
        """The field's own, or null."""
        return core_schema.nullable_schema(self.field.schema)

    def change(self, before: Any, after: Any) -> Any:
        """The change of the value, or `None`."""
        if before is after:
            return SAME
        if after is None:
            return None
        return self.field.change(NOTHING if before is None else before, after)

    def apply(self, before: Any, change: Any) -> Any:
        """The value, or `None`."""
        if change is None:
            return None
        return self.field.apply(NOTHING if before is None else before, change)


@dataclasses.dataclass(frozen=True, slots=True)
class SetOf:
    """A frozen set: what was added, and what was removed."""

    items: Plain

    @property
    def schema(self) -> CoreSchema:
        """Two lists."""
        items = _list(self.items.schema)
        return _object({}, {"add": items, "remove": items})

    def change(self, before: Any, after: Any) -> Any:
        """The added and the removed items."""
        if before is after or before == after:
            return SAME
        earlier: Any = frozenset() if isinstance(before, Nothing) else before
        parts = {"add": sorted(after - earlier), "remove": sorted(earlier - after)}
        return {name: items for name, items in parts.items() if items}

    def apply(self, before: Any, change: Any) -> Any:
        """The set."""
        earlier: Any = frozenset() if isinstance(before, Nothing) else before
        removed = change.get("remove", ())
        if not earlier.issuperset(removed):
            unreadable("An item that was removed did not exist.")
        return earlier.difference(removed).union(change.get("add", ()))


@dataclasses.dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping with texts as keys: the new and changed entries, and the removed ones."""

    values: Field

    @property
    def schema(self) -> CoreSchema:
        """An object with the entries, and a list of keys."""
        entries = core_schema.dict_schema(TEXT.schema, self.values.schema, strict=True)
        return _object({}, {"set": entries, "drop": _list(TEXT.schema), "new": FLAG.schema})

    def change(self, before: Any, after: Any) -> Any:
        """The entries that changed; all of them if their order is another one."""
        if before is after:
            return SAME
        if isinstance(before, Nothing):
            return {"set": {TEXT.change(NOTHING, key): self.values.change(NOTHING, value)
                            for key, value in after.items()}}  # fmt: skip
        change = self.values.change
        changed = {
            TEXT.change(NOTHING, key): part
            for key, value in after.items()
            if (earlier := before.get(key, NOTHING)) is not value
            and (part := change(earlier, value)) is not SAME
        }
        dropped = [key for key in before if key not in after]
        order = [key for key in before if key in after]
        if [*order, *(key for key in after if key not in before)] != [*after]:
            return {"new": True, **self.change(NOTHING, after)}
        parts = {"set": changed, "drop": dropped}
        return {name: part for name, part in parts.items() if part} or SAME

    def apply(self, before: Any, change: Any) -> Any:
        """The mapping."""
        is_new = change.get("new") or isinstance(before, Nothing)
        values: dict[str, Any] = {} if is_new else dict(before)
        for key in change.get("drop", ()):
            if values.pop(key, NOTHING) is NOTHING:
                unreadable("An entry that was removed did not exist.")
        for key, part in change.get("set", {}).items():
            values[key] = self.values.apply(values.get(key, NOTHING), part)
        return values


@dataclasses.dataclass(frozen=True, slots=True)
class ListOf:
    """A list that grows or is cut: how many items stay, and what was added.

    Attributes:
        items: Its items.
        make: Its class.
        is_chain: Whether an item is written as a change of the one before it.
    """

    items: Field
    make: Callable[[list[Any]], Sequence[Any]] = tuple
    is_chain: bool = False

    @property
    def schema(self) -> CoreSchema:
        """A number and a list."""
        return _object({}, {"keep": _LENGTH, "add": _list(self.items.schema)})

    def change(self, before: Any, after: Any) -> Any:
        """The length of the common beginning, and the items after it."""
        if before is after:
            return SAME
        common = 0 if isinstance(before, Nothing) else self._common(before, after)
        if not isinstance(before, Nothing) and common == len(before) == len(after):
            return SAME
        change: dict[str, Any] = {"keep": common} if common else {}
        if added := after[common:]:
            change["add"] = [*map(self._written, self._before(after, common), added)]
        return change

    def _common(self, before: Sequence[Any], after: Sequence[Any]) -> int:
        if isinstance(before, GrowingList) and isinstance(after, GrowingList):
            common = before.common_length(after)
        else:
            same = [*map(is_, before, after)]
            common = same.index(False) if False in same else len(same)
        most = min(len(before), len(after))
        while common < most and self.items.change(before[common], after[common]) is SAME:
            common += 1
        return common

    def _before(self, items: Sequence[Any], index: int) -> Sequence[Any]:
        """What the items from an index are written as changes of."""
        if not self.is_chain:
            return [NOTHING] * (len(items) - index)
        return [*([NOTHING] if not index else ()), *items[max(index - 1, 0) : -1]]

    def _written(self, before: Any, item: Any) -> Any:
        change = self.items.change(before, item)
        return {} if change is SAME else change

    def apply(self, before: Any, change: Any) -> Any:
        """The list."""
        common = change.get("keep", 0)
        if common > (0 if isinstance(before, Nothing) else len(before)):
            unreadable("Items of a list are missing.")
        added: list[Any] = []
        last = before[common - 1] if common and self.is_chain else NOTHING
        for part in change.get("add", ()):
            added.append(self.items.apply(last, part))
            last = added[-1] if self.is_chain else NOTHING
        if not common:
            return self.make(added)
        if isinstance(before, GrowingList):
            grown = before.copy() if common == len(before) else before.first(common)
            grown.extend(added)
            return grown
        return self.make([*before[:common], *added])


class Record:
    """A dataclass: the fields that changed.

    Args:
        cls: The dataclass.
        fields: The kind of each field, in the order of the dataclass.
        required: Fields that are always written although they have a default.
        likely: Names of fields with an object that, when it begins, has a value of this one: the
            name of the field that both have.
    """

    def __init__(
        self,
        cls: type,
        fields: Mapping[str, Field],
        *,
        required: Sequence[str] = (),
        likely: Mapping[str, str] | None = None,
    ) -> None:
        names = [field.name for field in dataclasses.fields(cls)]
        if [*fields] != names:
            msg = f"Say how each field of `{cls.__name__}` is stored, in their order: {names}."
            raise TypeError(msg)
        self.cls = cls
        self.fields = fields
        self._likely = likely or {}
        self._defaults = {
            field.name: NOTHING if field.name in required else _default(field)
            for field in dataclasses.fields(cls)
        }
        # A value of the others is read as it is.
        self._composed = {
            name: field for name, field in fields.items() if not isinstance(field, Plain | OneOf)
        }
        self._required = {name for name, value in self._defaults.items() if value is NOTHING}
        self._index = {name: index for index, name in enumerate(fields)}
        self._values = attrgetter(*fields) if len(fields) > 1 else self._only_value
        self.schema: CoreSchema = _object(
            {}, {name: field.schema for name, field in fields.items()}
        )

    def change(self, before: Any, after: Any) -> Any:
        """The fields that changed."""
        if before is after:
            return SAME
        if type(after) is not self.cls:
            unstorable(f"Expected `{self.cls.__name__}`, got `{type(after).__qualname__}`.")
        if isinstance(before, Nothing):
            return self._whole(before, after)
        change = {}
        for name, field in self.fields.items():
            earlier, value = getattr(before, name), getattr(after, name)
            if earlier is value:
                continue
            if earlier is None and name in self._likely:
                earlier = self._begun(name, getattr(after, self._likely[name]))
            part = field.change(earlier, value)
            if part is not SAME:
                change[name] = part
        return change or SAME

    def _whole(self, before: Nothing, after: Any) -> dict[str, Any]:
        change = {}
        for name, field in self.fields.items():
            value = getattr(after, name)
            if self._is_default(name, value):
                continue
            earlier = before.likely.get(name, NOTHING)
            if name in self._likely:
                earlier = self._begun(name, getattr(after, self._likely[name]))
            part = field.change(earlier, value)
            change[name] = {} if part is SAME else part
        return change

    def _is_default(self, name: str, value: Any) -> bool:
        default = self._defaults[name]
        if isinstance(default, Sized) and not default:  # equality would make messages
            return not value
        return value is default or (type(value) is type(default) and bool(value == default))

    def _only_value(self, record: Any) -> tuple[Any]:
        return (getattr(record, *self.fields),)

    def _begun(self, name: str, value: Any) -> Nothing:
        return Nothing({self._likely[name]: value})

    def apply(self, before: Any, change: Any) -> Any:
        """The object."""
        if isinstance(before, Nothing):
            return self._new(before.likely, change)
        values = [*self._values(before)]
        for name in self._in_order(change):
            index = self._index[name]
            earlier = values[index]
            if earlier is None and name in self._likely:
                earlier = self._begun(name, values[self._index[self._likely[name]]])
            values[index] = self.fields[name].apply(earlier, change[name])
        return self.cls(*values)

    def _in_order(self, change: Mapping[str, Any]) -> Iterable[str]:
        """The fields, those first of which others have a value."""
        return (name for name in self.fields if name in change) if self._likely else change

    def _new(self, likely: Mapping[str, Any], change: Mapping[str, Any]) -> Any:
        if not change.keys() >= self._required:
            missing = min(self._required - change.keys())
            unreadable(f"`{missing}` of `{self.cls.__name__}` is missing.")
        values = dict(change)
        for name in self._in_order(change):
            if (field := self._composed.get(name)) is None:
                continue
            earlier = likely.get(name, NOTHING)
            if name in self._likely:
                shared = self._likely[name]
                earlier = self._begun(name, values.get(shared, self._defaults[shared]))
            values[name] = field.apply(earlier, change[name])
        return self.cls(**values)


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return NOTHING if field.default is dataclasses.MISSING else field.default


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A tuple with a fixed number of items, and perhaps further ones: an object in JSON.

    Attributes:
        fields: The items by the names that they have in JSON.
        rest: The name and the kind of the further items.
    """

    fields: Mapping[str, Field]
    rest: tuple[str, Field] | None = None

    @property
    def schema(self) -> CoreSchema:
        """An object with all items."""
        parts = {name: field.schema for name, field in self.fields.items()}
        if self.rest is not None:
            parts[self.rest[0]] = _list(self.rest[1].schema)
        return _object(parts, {})

    def change(self, before: Any, after: Any) -> Any:
        """All items."""
        if before is after:
            return SAME
        row = self._row(after)
        is_same = isinstance(before, tuple) and orjson_or_text(self._row(before)) == orjson_or_text(
            row
        )
        return SAME if is_same else row

    def _row(self, after: Sequence[Any]) -> dict[str, Any]:
        named = zip(self.fields.items(), after, strict=self.rest is None)
        row = {name: field.change(NOTHING, value) for (name, field), value in named}
        if self.rest is not None:
            name, field = self.rest
            row[name] = [field.change(NOTHING, value) for value in after[len(self.fields) :]]
        return row

    def apply(self, _before: Any, change: Any) -> Any:
        """The tuple."""
        items = [field.apply(NOTHING, change[name]) for name, field in self.fields.items()]
        if self.rest is not None:
            name, field = self.rest
            items += [field.apply(NOTHING, part) for part in change[name]]
        return tuple(items)


class Message:
    """A message of LangChain.

    Args:
        stored: How a stored message is written.
    """

    def __init__(self, stored: Record) -> None:
        self._stored = stored
        self.schema: CoreSchema = stored.schema

    def change(self, before: Any, after: Any) -> Any:
        """The stored message."""
        if before is after:
            return SAME
        message = StoredMessage.from_message(after)
        if isinstance(before, BaseMessage):
            earlier = StoredMessage.from_message(before)
            if self._stored.change(earlier, message) is SAME:
                return SAME
        return self._stored.change(NOTHING, message)

    def apply(self, _before: Any, change: Any) -> Any:
        """The message."""
        return self._stored.apply(NOTHING, change).message()


class Union:
    """An object of one of some dataclasses, or `None`.

    Args:
        records: The dataclasses by the names that they have in JSON.
    """

    def __init__(self, records: Mapping[str, Record]) -> None:
        self._records = records
        self._names = {record.cls: name for name, record in records.items()}
        parts = {name: record.schema for name, record in records.items()}
        self.schema: CoreSchema = core_schema.nullable_schema(_object({}, parts))

    def change(self, before: Any, after: Any) -> Any:
        """The name of the class, and the change."""
        if before is after:
            return SAME
        if after is None:
            return None
        name = self._names.get(type(after))
        if name is None:
            unstorable(f"It has a state of the class `{type(after).__qualname__}`.")
        earlier = before if type(before) is type(after) else NOTHING
        change = self._records[name].change(earlier, after)
        return SAME if change is SAME else {name: change}

    def apply(self, before: Any, change: Any) -> Any:
        """The object."""
        if change is None:
            return None
        if len(change) != 1:
            unreadable("A state has one kind.")
        ((name, part),) = change.items()
        record = self._records[name]
        return record.apply(before if type(before) is record.cls else NOTHING, part)
