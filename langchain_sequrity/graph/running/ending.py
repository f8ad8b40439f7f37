"""The end of a run: the program's final value as a state, or as the error that LangGraph raises."""

from collections.abc import Mapping
from typing import Any

from langgraph.channels.base import BaseChannel
from langgraph.errors import GraphRecursionError, InvalidUpdateError

from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply
from langchain_sequrity.graph.calling.tools import ClientTools
from langchain_sequrity.graph.keeping.mirror import Settled, settled
from langchain_sequrity.graph.keeping.threads import Ending, Threads
from langchain_sequrity.graph.options import no_route
from langchain_sequrity.graph.program import ACTIVE, CONFLICT, ERROR, UNROUTED
from langchain_sequrity.graph.running.exchange import Ended
from langchain_sequrity.labels import labels_given

LIMIT_REACHED = (
    "The graph did not come to an end within its recursion limit. Set a higher one: "
    'config={"recursion_limit": …}.'
)


def ending(ended: Ended, tools: ClientTools, threads: Threads) -> Ending:
    """With what a run ends.

    Args:
        ended: The reply that says so.
        tools: The client side of the program's tools.
        threads: What threads keep.

    Raises:
        BadReply: If the value is not what the program returns.
        InvalidUpdateError: As LangGraph, for two values of one field in one step.
        GraphRecursionError: As LangGraph, where work was left at the limit.
        UsageError: For a value that a `FieldRouter` does not know.
        Exception: Whatever a reducer of the user's raises.
    """
    value = ended.result.value
    if not isinstance(value, dict) or not {ERROR, ACTIVE} <= value.keys():
        msg = "The final value of the run is not the state that the program returns."
        raise BadReply(msg, session_id=ended.session_id)
    if error := value[ERROR]:
        raise _failure(str(error), ended.session_id)
    final = tools.final(value)  # what its reducers raise comes before the limit
    if value[ACTIVE]:
        raise GraphRecursionError(LIMIT_REACHED)
    if ended.result.labels is None:  # they decide what the next run may do
        msg = "The service reports the final value of the run without its labels."
        raise BadReply(msg, session_id=ended.session_id)
    labels_given(ended.result.labels.without_reserved())  # to an executor around this one
    told = tools.told(value)
    kept = threads.kept(ended.result)
    return Ending(kept, whole(final), None if told is None else whole(told))


def whole(channels: Mapping[str, BaseChannel[Any, Any, Any]]) -> dict[str, Settled]:
    """A whole state, as the shell's channels take it."""
    return {key: settled(channel) for key, channel in channels.items()}


def _failure(error: str, session_id: str) -> Exception:
    if error.startswith(UNROUTED):
        return no_route(plain(error.removeprefix(UNROUTED)))
    if error.startswith(CONFLICT):
        key = plain(error.removeprefix(CONFLICT))
        return InvalidUpdateError(
            f"At key `{key}`: Can receive only one value per step. Use an Annotated key to handle "
            "multiple values."
        )
    msg = "The final value of the run has an error that the program does not make."
    return BadReply(msg, session_id=session_id)
