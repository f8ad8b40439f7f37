"""What the steps in a log make of a channel, as LangGraph's `apply_writes` does, step by step.

A chat is folded with each call that reads it, so its steps are joined where that changes nothing:
each step copies the whole chat.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from langchain_core.messages import BaseMessage, RemoveMessage
from langgraph.channels import BinaryOperatorAggregate
from langgraph.channels.base import BaseChannel

from langchain_sequrity.graph.carrying.message_ids import id_giver, joins_additions

Batch = Sequence[Any]
"""The updates of one step."""


def fold(
    channel: BaseChannel[Any, Any, Any], batches: Sequence[Batch], so_far: Callable[[int], str]
) -> None:
    """Apply the steps in a log to a channel.

    Args:
        channel: The channel with what it held before; it is changed.
        batches: The steps.
        so_far: Makes a text of all that came before a step, which is another one for each place
            in each log.
    """
    gives_ids = isinstance(channel, BinaryOperatorAggregate) and id_giver(channel) is not None
    for number, batch in _joined(channel, batches):
        if gives_ids and batch:
            _give_ids(channel, so_far, number)
        _step(channel, batch)


def _step(channel: BaseChannel[Any, Any, Any], batch: Batch) -> None:
    is_changed = bool(batch) and channel.update(batch)
    if not is_changed and channel.is_available():
        channel.update(())


def _joined(
    channel: BaseChannel[Any, Any, Any], batches: Sequence[Batch]
) -> Iterator[tuple[int, Batch]]:
    """The steps with their numbers; those in a row that only add messages are one."""
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
    """Whether an update is a list of messages, none of which takes another one away."""
    return type(update) is list and all(
        isinstance(one, BaseMessage) and not isinstance(one, RemoveMessage) for one in update
    )


def _give_ids(
    channel: BaseChannel[Any, Any, Any], so_far: Callable[[int], str], number: int
) -> None:
    """Give ids to messages without one, as `add_messages` does with the next step.

    There are such after an `Overwrite`. LangGraph makes an id once; here the step is applied with
    each call that reads the field, and the id has to be the same each time.
    """
    if not channel.is_available():
        return
    value = channel.get()
    held = value if isinstance(value, list) else [value]
    if all(not isinstance(one, BaseMessage) or one.id is not None for one in held):
        return
    text = so_far(number)
    for place, one in enumerate(held):
        if isinstance(one, BaseMessage) and one.id is None:
            one.id = str(uuid5(NAMESPACE_OID, f"{place} {text}"))
