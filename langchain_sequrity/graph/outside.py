"""What may not be done to a run from outside: by updates, commands, and going back in time."""

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command

from langchain_sequrity.errors import GraphNotSupported, UsageError
from langchain_sequrity.graph import _langgraph
from langchain_sequrity.graph.denying.approval import USED
from langchain_sequrity.graph.keeping.threads import is_unfinished
from langchain_sequrity.graph.own import is_own

_OPEN = (
    "This thread has a run that is not finished, and the state of a run is the service's. Finish "
    "it first (`invoke(None, config)` or `Command(resume=…)`), or drop it with "
    "`update_state(config, None, as_node=END)`."
)

_DROPPED = (
    "The last run of this thread was dropped before it ended. What it wrote is taken back when the "
    "next run begins, and an update would be taken back with it. Give it as the input of that run."
)


def is_update(value: Any) -> bool:
    """Whether an input changes the state within a run.

    Raises:
        GraphNotSupported: If it says which node comes next.
        UsageError: If it is for a field of the executor's own. Inputs come from clients, of
            LangGraph's server for example: they may not write labels, sessions and results. Of a
            dict, START takes the fields of the input's schema; a `Command` could write any channel.
    """
    if not isinstance(value, Command) or value.graph is not None:
        return False
    if value.goto:
        raise GraphNotSupported(no_start("Command(goto=…)"))
    own = [key for key, _ in _langgraph.command_writes(value) if is_own(str(key))]
    if own:
        msg = f"`{own[0]}` is no field of the graph. Update fields of its state only."
        raise UsageError(msg)
    return value.update is not None


def check_update(run: Any, *, is_open: bool) -> None:
    """Refuse to update a state that is not the thread's.

    Args:
        run: What the shell's channel says of the last run.
        is_open: Whether something is left to do.

    Raises:
        UsageError: If the run has not ended in success.
    """
    if is_open:
        raise UsageError(_OPEN)
    if is_unfinished(run):
        raise UsageError(_DROPPED)


def goes_back(value: Any, config: RunnableConfig) -> bool:
    """Whether a run goes on from a checkpoint that the caller names."""
    named = config.get("configurable", {}).get("checkpoint_id") is not None
    return named and (value is None or isinstance(value, Command))


def is_approving(run: Any) -> bool:
    """Whether an approved call is made at a checkpoint with this run."""
    return run is not None and run.get("approving") is not None


def check_approval(run: Any, *, is_newest: bool) -> None:
    """Refuse to make an approved call a second time: the approval was for one.

    Args:
        run: What the shell's channel says of the run.
        is_newest: Whether it says so in the newest checkpoint.

    Raises:
        UsageError: If it would be made again.
    """
    if is_approving(run) and not is_newest:
        raise UsageError(USED)


def no_start(what: str) -> str:
    """Why a program cannot start in its middle."""
    return (
        f"`{what}` starts a graph in its middle, and its program starts at START. Give an input "
        "instead, and let a conditional edge after START choose the first node."
    )
