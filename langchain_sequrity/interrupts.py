"""Questions to a human that nothing but an answer to them can answer, once in a thread.

A checkpoint stays when a thread goes on, and with it the question that was asked there: whoever
names it could answer again. So a question takes an answer at the newest checkpoint alone, of its
own graph and of each graph around.

The names of LangGraph that this takes are not promised to stay; tests run on the oldest and the
newest LangGraph.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from inspect import getclosurevars
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import (
    CONFIG_KEY_CHECKPOINT_ID,
    CONFIG_KEY_CHECKPOINT_MAP,
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_CHECKPOINTER,
    CONFIG_KEY_SCRATCHPAD,
    CONFIG_KEY_TASK_ID,
    CONFIG_KEY_THREAD_ID,
    INTERRUPT,
    NS_SEP,
    NULL_TASK_ID,
)
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.config import get_config
from langgraph.errors import GraphInterrupt
from langgraph.types import Interrupt, interrupt

from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import UsageError

_LATE = (
    "This question was asked at an older checkpoint, and the thread has gone on since: it was "
    "answered, or left behind. An approval is used up in the thread, so nothing is taken for an "
    "answer there. To be asked again go back without one, `invoke(None, config)`, and answer the "
    "new question at the newest checkpoint."
)

Look = Generator[tuple[RunnableConfig, RunnableConfig | None], Sequence[CheckpointTuple], bool]
"""Yields where and before what to look for the newest checkpoint, takes it if there is one."""

Still = Callable[[CheckpointTuple], bool]
"""Whether a later checkpoint is one at which what it is asked about has not happened yet."""


def check_can_ask(config: RunnableConfig) -> None:
    """Refuse a run that could ask a human and not take the answer.

    Args:
        config: That of a node of the run.

    Raises:
        UsageError: If there is no checkpointer, here or in a graph around.
    """
    if config["configurable"].get(CONFIG_KEY_CHECKPOINTER) is None:
        msg = (
            '`on_denied="interrupt"` needs a checkpointer: without one a run that asks a human '
            "could never take the answer. Give `checkpointer=InMemorySaver()` or another one, or "
            "choose another `on_denied`."
        )
        raise UsageError(msg)


def approval_request(
    denial: Denial, args: Mapping[str, Any], decisions: Sequence[str], remark: str = ""
) -> dict[str, Any]:
    """A question about a denied call, in the form of LangChain's human-in-the-loop requests.

    Args:
        denial: The denial, with the labels of the call's arguments.
        args: The arguments that are shown.
        decisions: What may be decided.
        remark: What else to say.

    Returns:
        The request; beside what LangChain's has, `denial` has the fields of the denial.
    """
    name = denial.tool or ""
    description = f"{remark} {denial.question}".lstrip()
    return {
        "action_requests": [{"name": name, "args": args, "description": description}],
        "review_configs": [{"action_name": name, "allowed_decisions": [*decisions]}],
        "denial": replace(denial, arguments=None).to_json(),
    }


def answer_to(question: Any, *, is_late: bool) -> Any:
    """What `interrupt` returns, but only an answer that was given to this question.

    `interrupt` takes whatever the run was resumed with, if nothing has used it: also what was meant
    for a breakpoint. And it takes that once more in a run without an answer, `invoke(None)`. So a
    task that has not asked yet asks, and what is left over from an earlier run is dropped.

    Args:
        question: What a human is asked.
        is_late: Whether the thread has gone on since the task asked, as `is_late` says.

    Raises:
        UsageError: If it has.
    """
    given = get_config()["configurable"]
    read = given[CONFIG_KEY_SCRATCHPAD].get_null_resume
    if not _has_asked(given):
        namespace = given[CONFIG_KEY_CHECKPOINT_NS]
        raise GraphInterrupt((Interrupt.from_ns(value=question, ns=namespace),))
    if is_late:
        raise UsageError(_LATE)
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


def _has_asked(given: Mapping[str, Any]) -> bool:
    task, read = given[CONFIG_KEY_TASK_ID], given[CONFIG_KEY_SCRATCHPAD].get_null_resume
    pending = getclosurevars(read).nonlocals["pending_writes"]
    return any(one[0] == task and one[1] == INTERRUPT for one in pending)


def is_late(config: RunnableConfig) -> bool:
    """Whether a task has asked at a checkpoint that the thread has left behind.

    Args:
        config: The task's.
    """
    return _has_asked(config["configurable"]) and has_gone_on(config)


async def ais_late(config: RunnableConfig) -> bool:
    """Whether a task has asked at a checkpoint that the thread has left behind; see `is_late`."""
    return _has_asked(config["configurable"]) and await ahas_gone_on(config)


# Where a task is in its thread


def checkpoint_of(config: RunnableConfig) -> str:
    """The id of the checkpoint at which a task runs.

    Args:
        config: The task's.
    """
    found: str = dict(_levels(config["configurable"]))[_namespace(config["configurable"])]
    return found


def has_gone_on(
    config: RunnableConfig, since: str | None = None, is_still: Still = lambda _: False
) -> bool:
    """Whether a thread has checkpoints that are later than the one at which a task runs.

    It looks at the task's own graph and at each graph around: what a graph within did is not always
    stored (`durability="exit"`), and then the one around tells. What another checkpointer keeps
    cannot be seen.

    Args:
        config: The task's.
        since: The checkpoint of the task's own graph after which one counts as later; that of the
            task if left out.
        is_still: Says which later checkpoints of the task's own graph do not count.
    """
    saver: BaseCheckpointSaver[Any] = config["configurable"][CONFIG_KEY_CHECKPOINTER]
    look = _look(config["configurable"], since, is_still)
    try:
        place, before = next(look)
        while True:
            place, before = look.send([*saver.list(place, before=before, limit=1)])
    except StopIteration as stop:
        return bool(stop.value)


async def ahas_gone_on(
    config: RunnableConfig, since: str | None = None, is_still: Still = lambda _: False
) -> bool:
    """Whether a thread has checkpoints later than the one of a task; see `has_gone_on`."""
    saver: BaseCheckpointSaver[Any] = config["configurable"][CONFIG_KEY_CHECKPOINTER]
    look = _look(config["configurable"], since, is_still)
    try:
        place, before = next(look)
        while True:
            found = [one async for one in saver.alist(place, before=before, limit=1)]
            place, before = look.send(found)
    except StopIteration as stop:
        return bool(stop.value)


def _look(given: Mapping[str, Any], since: str | None, is_still: Still) -> Look:
    own = _namespace(given)
    for namespace, checkpoint in _levels(given):
        is_own, before = namespace == own, None
        bound = since if is_own and since is not None else checkpoint
        place = _place(given, namespace)
        while (found := (yield place, before)) and found[0].checkpoint["id"] > bound:
            if not (is_own and is_still(found[0])):
                return True
            before = found[0].config
    return False


def _place(given: Mapping[str, Any], namespace: str) -> RunnableConfig:
    """What a checkpointer takes for all checkpoints of a graph."""
    found = {key: one for key, one in given.items() if key != CONFIG_KEY_CHECKPOINT_ID}
    found[CONFIG_KEY_THREAD_ID] = str(found[CONFIG_KEY_THREAD_ID])  # as LangGraph stores it
    return {"configurable": {**found, CONFIG_KEY_CHECKPOINT_NS: namespace}}


def _namespace(given: Mapping[str, Any]) -> str:
    """The namespace of the graph that a task belongs to; the task's own has one part more."""
    namespace: str = given[CONFIG_KEY_CHECKPOINT_NS]
    return namespace.rpartition(NS_SEP)[0]


def _levels(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The task's graph and those around: namespace, and the checkpoint at which it is.

    A caller's config may name checkpoints of other graphs too.
    """
    own = _namespace(given)
    for namespace, checkpoint in given[CONFIG_KEY_CHECKPOINT_MAP].items():
        if namespace in ("", own) or own.startswith(namespace + NS_SEP):
            yield namespace, checkpoint
