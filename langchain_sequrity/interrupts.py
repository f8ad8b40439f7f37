"""Human review of soft denials: the question, the answer, and that it counts once in a thread.

A checkpoint stays when a thread goes on, and with it the question that was asked there: whoever
names it could answer again. So a question takes an answer at the newest checkpoint alone, of its
own graph and of each graph around.

The names of LangGraph that this takes are not promised to stay; tests run on the oldest and the
newest LangGraph.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import getclosurevars
from typing import Any, Literal

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

DecisionType = Literal["approve", "edit", "reject", "respond"]
_APPROVE = '`Command(resume={"decisions": [{"type": "approve"}]})`'
_OTHER_FORMS: Mapping[DecisionType, str] = {
    "reject": '"reject" with a "message"',
    "respond": '"respond" with a "message"',
    "edit": '"edit" with an "edited_action" of "name" and "args"',
}


@dataclass(frozen=True, slots=True)
class HumanDecision:
    """What a human decided about one call.

    Attributes:
        type: The decision.
        message: Of `reject` and `respond`, what they say.
        name: Of `edit`, the tool to call.
        args: Of `edit`, its arguments.
    """

    type: DecisionType
    message: str = ""
    name: str = ""
    args: Mapping[str, Any] | None = None


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


def ask(
    denial: Denial,
    args: Mapping[str, Any],
    allowed: Sequence[DecisionType],
    remark: str = "",
    *,
    is_late: bool,
) -> HumanDecision:
    """Ask a human about one denied call; stops the run until there is an answer.

    Question and answer have the form of LangChain's human-in-the-loop requests, so its user
    interfaces work. Beside what LangChain's has, the question has the fields of the denial.

    Args:
        denial: The denial, with the labels of the call's arguments.
        args: The arguments that are shown.
        allowed: The decisions that may be taken; "approve" is one of them.
        remark: What else to say.
        is_late: Whether the thread has gone on since the question was asked.

    Returns:
        The decision. Any other answer is asked for again.

    Raises:
        UsageError: If an answer comes too late.
    """
    while True:
        answer = _answer_to(_question(denial, args, allowed, remark), is_late=is_late)
        decision = _decision(answer, allowed)
        if decision is not None:
            return decision
        others = ", ".join(form for kind, form in _OTHER_FORMS.items() if kind in allowed)
        remark = f"The last answer was not understood; resume with {_APPROVE}, or {others}."


def _question(
    denial: Denial, args: Mapping[str, Any], allowed: Sequence[DecisionType], remark: str
) -> dict[str, Any]:
    name = denial.tool or ""
    description = f"{remark} {denial.question}".lstrip()
    return {
        "action_requests": [{"name": name, "args": args, "description": description}],
        "review_configs": [{"action_name": name, "allowed_decisions": [*allowed]}],
        "denial": replace(denial, arguments=None).to_json(),
    }


def _decision(answer: Any, allowed: Sequence[DecisionType]) -> HumanDecision | None:
    """The one decision in an answer; `None` if there is not exactly one that is allowed."""
    match answer:
        case {"decisions": list([{"type": kind, **said}])} if kind in allowed:
            pass
        case _:
            return None
    match kind, said:
        case "approve", _:
            return HumanDecision("approve")
        case "reject", _:
            return HumanDecision("reject", str(said.get("message") or ""))
        case "respond", {"message": str(message)}:
            return HumanDecision("respond", message)
        case "edit", {"edited_action": {"name": str(name), "args": Mapping() as args}}:
            return HumanDecision("edit", name=name, args=dict(args))
    return None


def _answer_to(question: Any, *, is_late: bool) -> Any:
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

    It looks at the task's own graph and at each graph around: what a graph within did is not always
    stored (`durability="exit"`), and then the one around tells. What another checkpointer keeps
    cannot be seen.

    Args:
        config: The task's.
    """
    given = config["configurable"]
    return _has_asked(given) and any(
        newest.checkpoint["id"] > at
        for place, at in _checkpoints(given)
        for newest in [*given[CONFIG_KEY_CHECKPOINTER].list(place, limit=1)]  # all, as below
    )


async def ais_late(config: RunnableConfig) -> bool:
    """Whether a task has asked at a checkpoint that the thread has left behind; see `is_late`."""
    given = config["configurable"]
    if not _has_asked(given):
        return False
    for place, at in _checkpoints(given):
        # All of them: a generator that is left early keeps its connection to the database.
        found = [one async for one in given[CONFIG_KEY_CHECKPOINTER].alist(place, limit=1)]
        if any(newest.checkpoint["id"] > at for newest in found):
            return True
    return False


def _checkpoints(given: Mapping[str, Any]) -> Iterator[tuple[RunnableConfig, str]]:
    """The task's graph and those around: where its checkpoints are, and the one at which it is.

    A caller's config may name checkpoints of other graphs too.
    """
    own = given[CONFIG_KEY_CHECKPOINT_NS].rpartition(NS_SEP)[0]  # the task has one part more
    for namespace, checkpoint in given[CONFIG_KEY_CHECKPOINT_MAP].items():
        if namespace in ("", own) or own.startswith(namespace + NS_SEP):
            place = {key: one for key, one in given.items() if key != CONFIG_KEY_CHECKPOINT_ID}
            place[CONFIG_KEY_THREAD_ID] = str(place[CONFIG_KEY_THREAD_ID])  # as LangGraph stores it
            yield {"configurable": {**place, CONFIG_KEY_CHECKPOINT_NS: namespace}}, checkpoint
