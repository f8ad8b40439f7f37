"""Questions to a human that nothing but an answer to them can answer.

The names of LangGraph that this takes are not promised to stay; tests run on the oldest and the
newest LangGraph.
"""

from collections.abc import Callable
from inspect import getclosurevars
from typing import Any

from langgraph._internal._constants import (
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_SCRATCHPAD,
    CONFIG_KEY_TASK_ID,
    INTERRUPT,
    NULL_TASK_ID,
)
from langgraph.config import get_config
from langgraph.errors import GraphInterrupt
from langgraph.types import Interrupt, interrupt


def answer_to(question: Any) -> Any:
    """What `interrupt` returns, but only an answer that was given to this question.

    `interrupt` takes whatever the run was resumed with, if nothing has used it: also what was meant
    for a breakpoint. And it takes that once more in a run without an answer, `invoke(None)`. So a
    task that has not asked yet asks, and what is left over from an earlier run is dropped.

    Args:
        question: What a human is asked.
    """
    given = get_config()["configurable"]
    task, read = given[CONFIG_KEY_TASK_ID], given[CONFIG_KEY_SCRATCHPAD].get_null_resume
    pending = getclosurevars(read).nonlocals["pending_writes"]
    if not any(one[0] == task and one[1] == INTERRUPT for one in pending):
        namespace = given[CONFIG_KEY_CHECKPOINT_NS]
        raise GraphInterrupt((Interrupt.from_ns(value=question, ns=namespace),))
    if _is_left_over(read):
        read(True)  # noqa: FBT003 - takes it, so that nobody else does
    return interrupt(question)


def _is_left_over(read: Callable[[bool], Any]) -> bool:
    """Whether what a run is resumed with was stored before this run.

    The checkpoint's writes, which nothing else gives access to in an event loop too, are in the
    closure of the function that reads it. A resume of this run is the last of them; among those
    that come from a store it stands before what the tasks wrote.

    Args:
        read: The function, `PregelScratchpad.get_null_resume`.
    """
    found = getclosurevars(read).nonlocals
    if found["null_resume_write"] is None:
        around = found["parent_scratchpad"]
        return around is not None and _is_left_over(around.get_null_resume)
    pending = found["pending_writes"]
    if found["null_resume_write"] not in pending:
        return False  # another task took it
    after = pending[pending.index(found["null_resume_write"]) + 1 :]
    return any(one[0] != NULL_TASK_ID for one in after)
