"""Ids of messages: given when an update is made, where LangGraph gives them when it applies it."""

import inspect
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from langchain_core.messages import (
    BaseMessage,
    BaseMessageChunk,
    convert_to_messages,
    message_chunk_to_message,
)
from langgraph.channels import BinaryOperatorAggregate, DeltaChannel
from langgraph.channels.base import BaseChannel
from langgraph.graph.message import add_messages
from langgraph.types import Overwrite

from langchain_sequrity.graph import _langgraph

GiveIds = Callable[[Any], Any]
_PLAIN_ADD = add_messages().func  # type: ignore[call-arg, union-attr] # without arguments: a partial


def id_giver(channel: BaseChannel[Any, Any, Any]) -> GiveIds | None:
    """What gives ids to the messages in an update of this channel; `None` if nothing does.

    It never changes the update: messages without an id are copied.
    """
    if isinstance(channel, DeltaChannel):
        return partial(_delta_ids, channel)
    if isinstance(channel, BinaryOperatorAggregate):
        if _adds_messages(channel.operator):
            return _as_messages
        if _calls_add_messages(channel.operator):
            return _with_ids_unless_overwritten
    return None


def same_ids(raw: Any, written: Any) -> None:
    """Give the messages that a node returned the ids that their copies were written with.

    LangGraph gives ids to the messages themselves when it applies a step; streams show them.
    """
    given = raw if isinstance(raw, list | tuple) else [raw]
    copies = written if isinstance(written, list | tuple) else [written]
    for one, copy in zip(given, copies, strict=False):
        if isinstance(one, BaseMessage) and isinstance(copy, BaseMessage) and one.id is None:
            one.id = copy.id


def joins_additions(channel: BaseChannel[Any, Any, Any]) -> bool:
    """Whether messages that are added one after the other may be added at once.

    So it is with LangGraph's own reducers, as long as none of the messages takes another away.
    """
    if isinstance(channel, DeltaChannel):
        return _langgraph.gathers_messages(channel)
    return isinstance(channel, BinaryOperatorAggregate) and channel.operator is add_messages


def gathers_messages(channel: BaseChannel[Any, Any, Any]) -> bool:
    """Whether a channel's reducer is made for messages, whatever its annotation says."""
    if isinstance(channel, DeltaChannel):
        return _langgraph.gathers_messages(channel)
    return id_giver(channel) is not None


def _adds_messages(reducer: Any) -> bool:
    return reducer is add_messages or getattr(reducer, "func", None) is _PLAIN_ADD


def _calls_add_messages(reducer: Any) -> bool:
    """Whether a reducer is a function whose own text uses `add_messages`."""
    if not inspect.isfunction(reducer):
        return False
    held = [_langgraph.held_in(cell) for cell in reducer.__closure__ or ()]
    named = [reducer.__globals__.get(name) for name in reducer.__code__.co_names]
    return any(map(_adds_messages, [*held, *named]))


def _as_messages(update: Any) -> Any:
    if update is None or _langgraph.read_overwrite(update)[0]:
        return update  # it goes past the reducer, which would give the ids
    items = update if isinstance(update, list) else [update]
    return [
        _with_id(message_chunk_to_message(one) if isinstance(one, BaseMessageChunk) else one)
        for one in convert_to_messages(items)
    ]


def _delta_ids(channel: DeltaChannel[Any], update: Any) -> Any:
    return _langgraph.with_delta_ids(channel, _with_ids(update))


def _with_ids_unless_overwritten(update: Any) -> Any:
    return update if _langgraph.read_overwrite(update)[0] else _with_ids(update)


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
