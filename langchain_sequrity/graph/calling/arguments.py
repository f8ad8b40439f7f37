"""Arguments of one tool: read from a call, and written into the packet of a `Send`."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

from langgraph.errors import EmptyChannelError, InvalidUpdateError

from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply
from langchain_sequrity.graph._langgraph import MISSING
from langchain_sequrity.graph.calling.updates import ROOT
from langchain_sequrity.graph.carrying.channels import AnyChannel, Field
from langchain_sequrity.graph.carrying.kinds import Kinds
from langchain_sequrity.graph.carrying.values import TYPE, VALUE, Json, decode, encode
from langchain_sequrity.graph.program import ABSENT, ToolSpec
from langchain_sequrity.graph.reading.spec import Mapper

Arguments = Mapping[str, Json]
_ORDERED, _KEYS = "ordered", "keys"


_UNKNOWN = object()


class Signature:
    """What a tool's arguments mean.

    Args:
        tool: The tool.
        schema_fields: Fields and managed values of its input's schema, in LangGraph's order.
        managed: Which of these are managed values.
        mapper: Makes the input from a dict of fields, if its schema is a class.
        fields: The graph's fields.
        anything: What the input of a `Send` may hold.
    """

    def __init__(
        self,
        tool: ToolSpec,
        schema_fields: Sequence[str],
        *,
        managed: Iterable[str],
        mapper: Mapper | None,
        fields: Mapping[str, Field],
        anything: Kinds,
    ) -> None:
        self.tool = tool
        self._mapper = mapper
        self._anything = anything
        self._is_root = tuple(schema_fields) == (ROOT,)
        self._rank = {name: place for place, name in enumerate(schema_fields)}
        self.managed = tuple(name for name in schema_fields if name in managed)
        self._parts = sorted(
            (
                (one.name, one.field, fields[one.field])
                for one in tool.parameters
                if one.field is not None
            ),
            key=lambda part: self._rank.get(part[1], len(self._rank)),
        )
        self._send = next((one.name for one in tool.parameters if one.kind == "send"), None)
        self.is_whole = len(self._parts) == len(fields)
        self._names = frozenset(name for name, _, _ in self._parts)
        self._names_of_send = self._names | {self._send} if self._send else self._names
        self.parameter_of = {field: name for name, field, _ in self._parts}

    def read(
        self,
        arguments: Arguments,
        managed: Mapping[str, Any] | None = None,
        unsaved: Mapping[str, Any] = MappingProxyType({}),
    ) -> Any:
        """What the node or router gets.

        Args:
            arguments: Those of the call.
            managed: LangGraph's managed values.
            unsaved: LangGraph's values of fields that no checkpoint has; `MISSING` for none.

        Raises:
            BadReply: If the arguments are not those of the tool.
            Exception: Whatever a reducer of the user's raises, or the class of the input.
        """
        given = arguments.keys()
        if given == self._names:
            return self._read_state(arguments, managed or {}, unsaved)
        if self._send is not None and given == self._names_of_send:
            return self._read_send(arguments, arguments[self._send])
        return self._refuse(given)

    @property
    def takes_packets(self) -> bool:
        """Whether it has a parameter for what a `Send` carries."""
        return self._send is not None

    def is_send(self, arguments: Arguments) -> bool:
        """Whether a call answers a `Send`."""
        return self._send is not None and self._send in arguments

    def brings_state(self, arguments: Arguments) -> bool:
        """Whether a call brings the state, and not only what a `Send` carries."""
        return self.tool.sees_state or not self.is_send(arguments)

    def state(self, arguments: Arguments, unsaved: Mapping[str, Any]) -> Any:
        """What an edge would give, of a call that brings the state."""
        return self._read_state(arguments, {}, unsaved)

    def channels(self, arguments: Arguments, unsaved: Mapping[str, Any]) -> dict[str, AnyChannel]:
        """The fields that a call brings, with all that their channels hold."""
        return {
            field: about.read_channel(arguments[name], is_lost=unsaved.get(field) is MISSING)
            for name, field, about in self._parts
        }

    def fields_of(self, arguments: Arguments) -> dict[str, Any]:
        """The fields that a call brings, as an update.

        Raises:
            BadReply: If the arguments are not those of the tool.
        """
        if arguments.keys() != self._names:
            self._refuse(arguments.keys())
        return {field: about.read_value(arguments[name]) for name, field, about in self._parts}

    def pack(self, argument: Any, where: str) -> dict[str, Json]:
        """Write the argument of a `Send` for this tool, part by part.

        Args:
            argument: Any value; it comes back exactly as it was.
            where: The place, as the start of a sentence.
        """
        found: dict[str, Json] = {}
        fields: list[str] = []
        rest: Any = argument
        if type(argument) is dict and not self._is_root and not self.tool.sees_state:
            rest = dict(argument)
            for name, field, about in self._parts:
                if field in rest:
                    found[name] = encode(rest.pop(field), f"{where}, key `{field}`", about.kinds)
                    fields.append(field)
        is_done = type(rest) is dict and not rest
        packed = ABSENT if is_done else encode(rest, where, self._anything)
        if fields and list(argument) != [*fields, *rest]:
            keys = encode(list(argument), where, self._anything)
            packed = {TYPE: _ORDERED, _KEYS: keys, VALUE: packed}
        return {"fields": found, "input": packed}

    def _read_state(
        self,
        arguments: Arguments,
        managed: Mapping[str, Any],
        unsaved: Mapping[str, Any] = MappingProxyType({}),
    ) -> Any:
        values: dict[str, Any] = {name: managed[name] for name in self.managed if name in managed}
        for name, field, about in self._parts:
            if self.tool.own is not None and field not in self.tool.own:
                continue
            known = unsaved.get(field, _UNKNOWN)
            if known is MISSING:  # a thread that waited has lost it
                continue
            try:
                value = about.read(arguments[name])
            except InvalidUpdateError:
                if known is _UNKNOWN:
                    raise
                value = known  # of two writes in one step the thread has lost one
            if value is not MISSING:
                values[field] = value
        if managed:
            values = dict(sorted(values.items(), key=lambda one: self._rank[one[0]]))
        if self._is_root:
            if ROOT not in values and any(field == ROOT for _, field, _ in self._parts):
                raise EmptyChannelError
            return values.get(ROOT)  # nothing for a node that was found not to look at it
        return values if self._mapper is None else self._mapper(values)

    def _read_send(self, arguments: Arguments, packed: Json) -> Any:
        where = f"The input of a `Send` to `{self.tool.node}`"
        keys, packed = _unwrapped(packed)
        rest = {} if packed == ABSENT else decode(packed, where, self._anything)
        values: dict[str, Any] = {}
        for name, field, about in () if self.tool.sees_state else self._parts:
            if arguments[name] != ABSENT:
                values[field] = decode(arguments[name], f"{where}, key `{field}`", about.kinds)
        if not values:
            return rest
        if type(rest) is not dict or values.keys() & rest.keys():
            _not_packed(where)
        whole = {**values, **rest}
        if keys is None:
            return whole
        found = _ordered(whole, decode(keys, where, self._anything))
        return _not_packed(where) if found is None else found

    def _refuse(self, given: Any) -> NoReturn:
        missing, unknown = sorted(self._names - given), sorted(given - self._names_of_send)
        what = (
            f"lacks `{missing[0]}`"
            if missing
            else f"has `{plain(unknown[0])}`, which it does not take"
        )
        msg = f"The service's call of `{self.tool.name}` {what}."
        raise BadReply(msg)


def _unwrapped(packed: Json) -> tuple[Json | None, Json]:
    """The order of keys, where it had to be said, and the rest of what was sent."""
    if isinstance(packed, dict) and packed.get(TYPE) == _ORDERED:
        return packed.get(_KEYS), packed.get(VALUE)
    return None, packed


def _ordered(values: dict[Any, Any], keys: Any) -> dict[Any, Any] | None:
    """The values in the order of these keys; `None` if they are not those of the values."""
    try:
        found = {key: values[key] for key in keys}
    except (KeyError, TypeError):
        return None
    return found if len(found) == len(values) else None


def _not_packed(where: str) -> NoReturn:
    msg = f"{where} is not what was packed."
    raise BadReply(msg)
