"""What a conversation needs of the turns before it, under a policy with rules on the session.

The session has labels and counts attempts. A conversation with earlier turns must have the state
that they left, or the call raises `SessionLost` (`docs/behaviour.md`, P13).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from langchain_core.messages import BaseMessage, SystemMessage

OnSessionLost = Literal["raise", "restart"]
"""Raise `SessionLost`, or begin a new session without what the old one remembered."""


def has_earlier_turns(messages: Sequence[BaseMessage]) -> bool:
    """Whether a conversation has a turn before the one that its last message begins or continues.

    A failed turn may leave only the user's message, so a second message of the user counts.
    Messages of the model and results of tools count whoever wrote them: a conversation that comes
    from elsewhere has a past that is not known here.

    Args:
        messages: The conversation; system messages do not count.
    """
    return sum(not isinstance(message, SystemMessage) for message in messages) > 1


class GraphRun(NamedTuple):
    """The run of LangGraph around some code, and where in it the code is.

    Attributes:
        control: LangGraph's object for the run, which the graphs inside it share; `None` outside of
            LangGraph.
        checkpointer: The checkpointer of its thread, or `None`.
        thread: The thread's id; empty without a checkpointer that stores it.
        store: The store of the graph, or `None`.
        step: The checkpoint of the outermost graph, which is another one in each step.
        namespace: The nodes around the code, with the ids of their tasks.
        is_inside: Whether the code's graph runs inside another graph.
    """

    control: object
    checkpointer: Any
    thread: str
    store: Any
    step: str
    namespace: str
    is_inside: bool


# Keys of LangGraph, which is not imported for them. `_compat` checks that they are the same.
RUNTIME = "__pregel_runtime"
CHECKPOINTER = "__pregel_checkpointer"


def is_in_graph(configurable: Mapping[str, Any]) -> bool:
    """Whether a configuration is of a run of LangGraph; see `graph_run`."""
    return RUNTIME in configurable


def graph_run(configurable: Mapping[str, Any]) -> GraphRun:
    """The run of LangGraph to which a configuration belongs.

    Args:
        configurable: The configurable part.
    """
    runtime, thread = configurable.get(RUNTIME), configurable.get("thread_id")
    checkpointer = configurable.get(CHECKPOINTER)
    checkpoints = configurable.get("checkpoint_map") or {}
    return GraphRun(
        getattr(runtime, "control", None),
        checkpointer,
        "" if checkpointer is None or thread is None else str(thread),
        getattr(runtime, "store", None),
        checkpoints.get("", ""),
        configurable.get("checkpoint_ns") or "",
        len(checkpoints) > 1,
    )
