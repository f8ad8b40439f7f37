"""How a program keeps the fields of a state, by LangGraph's channels.

- "last": the value, or `ABSENT`.
- "sum": the value; the program adds to it.
- "log": `[{"value": v}]` (`[]` for no value), then one list of updates for each step. The client
  folds it with LangGraph's own channel when it needs the value, so no reducer is written twice.

Each call that reads a chat folds it, and each step copies the whole chat. So steps are joined where
the result is the same.
"""

import inspect
import json
import operator
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, cast
from uuid import NAMESPACE_OID, uuid5

from langchain_core.messages import (
    BaseMessage,
    BaseMessageChunk,
    RemoveMessage,
    convert_to_messages,
    message_chunk_to_message,
)
from langgraph.channels import (
    BinaryOperatorAggregate,
    DeltaChannel,
    LastValue,
    Topic,
    UntrackedValue,
)
from langgraph.channels.base import BaseChannel
from langgraph.graph.message import add_messages
from langgraph.types import Overwrite

from langchain_sequrity import _compat
from langchain_sequrity._compat import MISSING
from langchain_sequrity.errors import BadReply, GraphNotSupported, UsageError
from langchain_sequrity.graph.codec.snapshots import Snapshot
from langchain_sequrity.graph.codec.values import (
    SCALARS,
    AllowedTypes,
    Json,
    allowed_types,
    content_digest,
    current_objects,
    decode,
    encode,
    long_text_in,
)
from langchain_sequrity.graph.program import ABSENT, OVERWRITE, FieldPlan

GiveIds = Callable[[Any], Any]
_ADD_MESSAGES = add_messages().func  # type: ignore[call-arg, union-attr] # without arguments: a partial


def id_giver(channel: BaseChannel[Any, Any, Any]) -> GiveIds | None:
    """The function that gives ids to the messages in an update of this channel; `None` without.

    It does not change the update: messages without an id are copied.
    """
    if isinstance(channel, DeltaChannel):
        return lambda update: _compat.with_delta_ids(channel, _with_ids(update))
    if isinstance(channel, BinaryOperatorAggregate):
        if _adds_messages(channel.operator):
            return _as_messages
        if _calls_add_messages(channel.operator):
            return _with_ids_unless_overwritten
    return None


def copy_ids(returned: Any, written: Any) -> None:
    """Give the messages that a node returned the ids of their written copies.

    LangGraph sets ids on the messages themselves when it applies a step, and streams show them.
    """
    messages = returned if isinstance(returned, list | tuple) else [returned]
    copies = written if isinstance(written, list | tuple) else [written]
    for old, copy in zip(messages, copies, strict=False):
        if isinstance(old, BaseMessage) and isinstance(copy, BaseMessage) and old.id is None:
            old.id = copy.id


def joins_additions(channel: BaseChannel[Any, Any, Any]) -> bool:
    """Whether messages of several steps may be added at once.

    This holds for LangGraph's own reducers, if none of the messages removes another one.
    """
    if isinstance(channel, BinaryOperatorAggregate):
        return channel.operator is add_messages
    return isinstance(channel, DeltaChannel) and has_message_reducer(channel)


def has_message_reducer(channel: BaseChannel[Any, Any, Any]) -> bool:
    """Whether a channel's reducer is made for messages, whatever its annotation is."""
    if isinstance(channel, DeltaChannel):
        return _compat.gathers_messages(channel)
    return id_giver(channel) is not None


def _adds_messages(reducer: Any) -> bool:
    return reducer is add_messages or getattr(reducer, "func", None) is _ADD_MESSAGES


def _calls_add_messages(reducer: Any) -> bool:
    """Whether a reducer is a function that uses `add_messages` directly."""
    if not inspect.isfunction(reducer):
        return False
    closure = [_compat.cell_value(cell) for cell in reducer.__closure__ or ()]
    globals_used = [reducer.__globals__.get(name) for name in reducer.__code__.co_names]
    return any(map(_adds_messages, [*closure, *globals_used]))


def _as_messages(update: Any) -> Any:
    if update is None or _compat.read_overwrite(update)[0]:
        return update  # it bypasses the reducer, which would set the ids
    items = update if isinstance(update, list) else [update]
    return [
        _with_id(message_chunk_to_message(item) if isinstance(item, BaseMessageChunk) else item)
        for item in convert_to_messages(items)
    ]


def _with_ids_unless_overwritten(update: Any) -> Any:
    return update if _compat.read_overwrite(update)[0] else _with_ids(update)


def _with_ids(update: Any) -> Any:
    if isinstance(update, Overwrite):
        return Overwrite(_with_ids(update.value))
    if type(update) is list or type(update) is tuple:
        return type(update)(_with_id(item) for item in update)
    return _with_id(update)


def _with_id(item: Any) -> Any:
    if isinstance(item, BaseMessage) and item.id is None:
        return item.model_copy(update={"id": str(uuid.uuid4())})
    return item


Batch = Sequence[Any]
"""The updates of one step."""


def apply_steps(
    channel: BaseChannel[Any, Any, Any], batches: Sequence[Batch], prefix_text: Callable[[int], str]
) -> None:
    """Apply the steps in a log to a channel.

    Args:
        channel: The channel with what it held before; it is changed.
        batches: The steps.
        prefix_text: Gives a text of all before a step. It differs for each place in each log.
    """
    gives_ids = isinstance(channel, BinaryOperatorAggregate) and id_giver(channel) is not None
    for number, batch in _merged_steps(channel, batches):
        if gives_ids and batch:
            _give_ids(channel, prefix_text, number)
        is_changed = bool(batch) and channel.update(batch)
        if not is_changed and channel.is_available():
            channel.update(())


def _merged_steps(
    channel: BaseChannel[Any, Any, Any], batches: Sequence[Batch]
) -> Iterator[tuple[int, Batch]]:
    """The steps with their numbers; consecutive steps that only add messages become one."""
    if not joins_additions(channel) or not channel.is_available():
        yield from enumerate(batches)
        return
    first, added = 0, list[Any]()
    for number, batch in enumerate(batches):
        if all(map(_only_adds, batch)):
            added += (message for update in batch for message in update)
            continue
        if added:
            yield first, [added]
        yield number, batch
        first, added = number + 1, []
    if added:
        yield first, [added]


def _only_adds(update: Any) -> bool:
    """Whether an update is a list of messages that removes none."""
    return type(update) is list and all(
        isinstance(m, BaseMessage) and not isinstance(m, RemoveMessage) for m in update
    )


def _give_ids(
    channel: BaseChannel[Any, Any, Any], prefix_text: Callable[[int], str], number: int
) -> None:
    """Give ids to messages without one, as `add_messages` does in the next step.

    After an `Overwrite`, messages may have no id. LangGraph makes an id once. Here each call that
    reads the field applies the step again, and the id has to be the same each time.
    """
    if not channel.is_available():
        return
    value = channel.get()
    messages = value if isinstance(value, list) else [value]
    if all(not isinstance(m, BaseMessage) or m.id is not None for m in messages):
        return
    text = prefix_text(number)
    for index, message in enumerate(messages):
        if isinstance(message, BaseMessage) and message.id is None:
            message.id = str(uuid5(NAMESPACE_OID, f"{index} {text}"))


AnyChannel = BaseChannel[Any, Any, Any]
SumTypes = tuple[type, ...]

_SUM_TYPES: dict[type, SumTypes] = {int: (int, float, bool), str: (str,), list: (list,)}
"""Type of a sum → types that its field may hold. A sum of integers may become a float: 1 + 1.5."""

_KEEPING = (LastValue, BinaryOperatorAggregate, DeltaChannel, UntrackedValue)
"""Channels that a step without a write does not change."""

_UNSAVED = (DeltaChannel, UntrackedValue)
"""Channels whose checkpoint is not their content."""


def field_plan(channel: AnyChannel) -> FieldPlan:
    """Choose how a program keeps a field.

    Args:
        channel: The field's channel, as the builder holds it: empty.

    Raises:
        GraphNotSupported: If the channel waits for the run to end or for a node to read it.
    """
    cls = type(channel)
    if cls is LastValue:
        return FieldPlan("last")
    if isinstance(channel, BinaryOperatorAggregate) and cls is BinaryOperatorAggregate:
        initial: Any = channel.value
        if channel.operator is operator.add and type(initial) in _SUM_TYPES:
            return FieldPlan("sum", zero=type(initial)())
    if cls.consume is not BaseChannel.consume or cls.finish is not BaseChannel.finish:
        msg = (
            f"Field `{channel.key}` has the channel {cls.__name__}, which depends on LangGraph's "
            "own loop: it changes when a node reads it or the run ends. Use `LastValue` or a "
            "reducer."
        )
        raise GraphNotSupported(msg)
    keeps = channel.accumulate if isinstance(channel, Topic) and cls is Topic else cls in _KEEPING
    return FieldPlan("log", resets=not keeps)


def copy_with_content(channel: AnyChannel, content: Any) -> AnyChannel:
    """A copy of a channel with exactly this content."""
    if content is MISSING or not _is_unsaved(type(channel)):
        return channel.from_checkpoint(content)
    copy: Any = channel.copy()
    copy.value = content
    return cast("AnyChannel", copy)


def _content(channel: AnyChannel) -> Any:
    return cast("Any", channel).value if _is_unsaved(type(channel)) else channel.checkpoint()


@cache
def _is_unsaved(cls: type[Any]) -> bool:
    return issubclass(cls, _UNSAVED)  # slow for an abstract class


class FieldCodec:
    """Encodes and decodes one field of a state.

    Args:
        name: Its name.
        channel: Its channel, empty.
        annotations: Its annotations in the schemas.

    Attributes:
        plan: How a program keeps it.
        allowed: Which objects it may hold.
    """

    def __init__(self, name: str, channel: AnyChannel, annotations: Iterable[Any]) -> None:
        self.plan = field_plan(channel)
        self._empty = channel
        self._give_ids = id_giver(channel)
        self._sum_types = _SUM_TYPES.get(type(self.plan.zero), ())
        allowed = allowed_types([*annotations, getattr(channel, "typ", None)])
        self.allowed = allowed.join(AllowedTypes(messages=has_message_reducer(channel)))
        self._where = f"Field `{name}`"

    def snapshot(self, channel: AnyChannel) -> Snapshot | None:
        """A snapshot of the content of a channel; `None` if it cannot change."""
        content = _content(channel)
        if type(content) in SCALARS or content is MISSING:
            return None
        objects = current_objects()
        digest_of = content_digest if objects is None else objects.digest_when_read
        return Snapshot(content, self.allowed, digest_of)

    def write(self, channel: AnyChannel) -> Json:
        """Write the content of a channel of this field."""
        content = _content(channel)
        if content is MISSING:
            if channel.is_available():
                msg = (
                    f"{self._where} has the channel {type(channel).__name__}, whose `checkpoint` "
                    "is not its content, so it cannot be sent. Give it a checkpoint."
                )
                raise UsageError(msg)
            return ABSENT if self.plan.kind == "last" else []
        if self.plan.kind == "sum":
            return self._summand(content, self._where)
        value = encode(content, self._where, self.allowed)
        return value if self.plan.kind == "last" else [{"value": value}]

    def read(self, value: Json) -> Any:
        """Read the field's value from the JSON of the service; `MISSING` for none."""
        if self.plan.kind == "log":
            channel = self.read_channel(value)
            return channel.get() if channel.is_available() else MISSING
        if self.plan.kind == "sum":  # it may be any text, also `ABSENT`
            if type(value) not in self._sum_types:
                msg = f"{self._where} is not the sum that the program keeps."
                raise BadReply(msg)
            return self.read_value(value)
        return MISSING if value == ABSENT else self.read_value(value)

    def read_value(self, value: Json) -> Any:
        """Read a single value of the field, as in a `Send`."""
        return decode(value, self._where, self.allowed)

    def read_channel(self, value: Json, *, is_lost: bool = False) -> AnyChannel:
        """Read the field as a channel with its content.

        Args:
            value: The field as the program has it.
            is_lost: Whether the thread has lost the value, so the channel is empty.

        Raises:
            BadReply: If the program cannot have made the value.
            Exception: Any exception of the field's reducer.
        """
        if is_lost:
            return copy_with_content(self._empty, MISSING)
        if self.plan.kind != "log":
            return copy_with_content(self._empty, self.read(value))
        content, batches = self._read_log(value)
        # A fold may change what it holds, and must not change the empty channel.
        channel = copy_with_content(self._empty, content)
        first_step = len(value) - len(batches)
        apply_steps(channel, batches, lambda number: json.dumps(value[: first_step + number]))
        return channel

    def rewrite(self, value: Json) -> Json:
        """What is written of a field of a call that nobody has changed."""
        return self.write(self.read_channel(value))

    def with_content(self, value: Any) -> AnyChannel:
        """A channel of this field with a value."""
        return copy_with_content(self._empty, value)

    def update(self, values: Sequence[Any], where: str) -> tuple[str, Json]:
        """Encode the updates of one node to the field in one step.

        Args:
            values: The updates, in order; at least one. Ids of messages are assigned.
            where: The place, as the start of a sentence.

        Returns:
            The prefix of the key in the result (`OVERWRITE` or nothing), and the JSON.
        """
        if self.plan.kind == "log":
            return "", [encode(value, where, self.allowed) for value in values]
        if self.plan.kind == "sum":
            return self._update_sum(values, where)
        if len(values) > 1:
            self._empty.copy().update(values)  # raises LangGraph's own error
        return "", encode(values[0], where, self.allowed)

    def with_ids(self, value: Any) -> Any:
        """The update with an id on each message that would get one from LangGraph.

        LangGraph does this when it applies an update. Here each call that reads the field applies
        it again, and it has to be the same each time.
        """
        return value if self._give_ids is None else self._give_ids(value)

    def _update_sum(self, values: Sequence[Any], where: str) -> tuple[str, Json]:
        overwrites = [_compat.read_overwrite(value) for value in values]
        if any(is_overwrite for is_overwrite, _ in overwrites):
            channel = self._empty.copy()
            channel.update(values)  # as LangGraph: at most one, and the values after it are dropped
            return OVERWRITE, self._summand(channel.get(), where)
        total: Any = self.plan.zero
        for value in values:
            total = total + value  # raises the same as LangGraph
        return "", self._summand(total, where)

    def _summand(self, value: Any, where: str) -> Json:
        """Write a value that the program adds; nothing in it may be escaped."""
        summand = value
        if not (type(value) is str and value == ABSENT):
            summand = encode(value, where, self.allowed)
        if type(summand) in self._sum_types:
            return summand
        sum_type = type(self.plan.zero).__name__
        size = long_text_in(summand)
        problem = f"has {size}" if size else f"is a {type(value).__name__}, which is not plain JSON"
        msg = (
            f"{where} is a sum of `{sum_type}` that the service adds up, and the value {problem}. "
            f"Use a `{sum_type}` of usual size, or a reducer of your own, which the client calls: "
            "`Annotated[…, lambda a, b: a + b]`."
        )
        raise UsageError(msg)

    def _read_log(self, log: Json) -> tuple[Any, list[list[Any]]]:
        """What the field held before the run, and the updates of each step since then."""
        first = log[0] if isinstance(log, list) and log else None
        initial = [first] if isinstance(first, dict) and first.keys() == {"value"} else []
        steps = log[len(initial) :] if isinstance(log, list) else None
        if steps is None or not all(isinstance(batch, list) for batch in steps):
            msg = f"{self._where} is not the list of updates that the program keeps."
            raise BadReply(msg)
        if type(self._empty) is UntrackedValue and any(steps):
            # Only the last update counts. Objects of earlier ones are lost if a thread continues,
            # so they are only counted.
            last = max(number for number, batch in enumerate(steps) if batch)
            initial, steps = [], [*([None] * len(batch) for batch in steps[:last]), *steps[last:]]
        content = self.read_value(initial[0]["value"]) if initial else MISSING
        return content, [[self.read_value(update) for update in batch] for batch in steps]


def field_codecs(
    channels: Mapping[str, AnyChannel], annotations: Mapping[str, Iterable[Any]]
) -> dict[str, FieldCodec]:
    """The codecs of a graph's fields."""
    return {
        name: FieldCodec(name, channel, annotations.get(name, ()))
        for name, channel in channels.items()
    }
