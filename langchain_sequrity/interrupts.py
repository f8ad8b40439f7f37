"""Human review of soft denials: the question, and an answer that counts once in a thread.

A checkpoint remains when a thread moves on, with the question that was asked there. A caller could
name it and answer again. So a question only accepts an answer at the newest checkpoint of its own
graph and of each outer graph.

LangGraph does not promise to keep the names that this module uses. Tests run on the oldest and the
newest LangGraph.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import getclosurevars
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import (
    CONFIG_KEY_CHECKPOINT_ID,
    CONFIG_KEY_CHECKPOINT_MAP,
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_CHECKPOINTER,
    CONFIG_KEY_RESUME_MAP,
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
from langchain_sequrity.sync_or_async import call

_LATE = (
    "This question is from an older checkpoint, and the thread has moved on since. An approval is "
    "used once in a thread, so an answer is not accepted there. To be asked again, go back without "
    "an answer, `invoke(None, config)`, and answer the new question at the newest checkpoint."
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
    """A human's decision about one call.

    Attributes:
        type: The decision.
        message: The text of `reject` and `respond`.
        name: The tool to call, for `edit`.
        args: The arguments, for `edit`.
    """

    type: DecisionType
    message: str = ""
    name: str = ""
    args: Mapping[str, Any] | None = None


def check_can_ask(config: RunnableConfig) -> None:
    """Refuse a run that could ask a human but could not get the answer.

    Args:
        config: The config of a node of the run.

    Raises:
        UsageError: If there is no checkpointer, here or in an outer graph.
    """
    if config["configurable"].get(CONFIG_KEY_CHECKPOINTER) is None:
        msg = (
            '`on_denied="interrupt"` needs a checkpointer: without one, a run that asks a human '
            "cannot get the answer. Give `checkpointer=InMemorySaver()` or another one, or choose "
            "another `on_denied`."
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
    """Ask a human about one denied call. The run stops until there is an answer.

    Question and answer have the form of LangChain's human-in-the-loop requests, so its user
    interfaces work. The question also has the fields of the denial.

    Args:
        denial: The denial, with the labels of the call's arguments.
        args: The arguments to show.
        allowed: The possible decisions; "approve" is one of them.
        remark: Text before the question.
        is_late: Whether the thread has moved on since the question.

    Returns:
        The decision. After any other answer, the question is asked again.

    Raises:
        UsageError: If the answer is late.
    """
    while True:
        answer = _answer_to(_question(denial, args, allowed, remark), is_late=is_late)
        decision = _read_decision(answer, allowed)
        if decision is not None:
            return decision
        remark = _not_understood(allowed)


def ask_about_call(
    digest: str,
    denial: Denial,
    args: Mapping[str, Any],
    allowed: Sequence[DecisionType],
    *,
    is_late: bool,
) -> HumanDecision:
    """Ask a human about exactly one call, before a task runs anything else.

    The question has the digest of the call. An answer counts only if the task asked about this
    digest last, so it cannot decide about another call that the task makes meanwhile. An answer may
    also name the digest itself.

    Unlike `interrupt`, it does not store the answer for the next run of the task. The caller stores
    the decision; questions of the task's own code then get the answers to them only.

    Args:
        digest: Hash of the call.
        denial: See `ask`.
        args: See `ask`.
        allowed: See `ask`.
        is_late: See `ask`.

    Raises:
        UsageError: If the answer is late.
        GraphInterrupt: Without an answer that can be used. The run stops until there is one.
    """
    given, remark = get_config()["configurable"], ""
    asked = _last_question(given)
    answer = _take_answer(given, asked)
    if asked is not None and _digest_in(asked) == digest:
        if is_late:
            raise UsageError(_LATE)
        decision = _read_decision(answer, allowed)
        if decision is not None and _is_about(answer, digest):
            return decision
        if decision is not None:
            remark = "The last answer was for another call."
        elif answer is not None:
            remark = _not_understood(allowed)
    question = {**_question(denial, args, allowed, remark), "digest": digest}
    raise _interrupt_of(question, given)


def drop_answer(config: RunnableConfig) -> None:
    """Drop the answer to a question of `ask_about_call` if the task no longer asks it.

    Otherwise the first question of the task's own code would get it.
    """
    given = config["configurable"]
    _take_answer(given, _last_question(given))


def _last_question(given: Mapping[str, Any]) -> Interrupt | None:
    """What a task asked last; `None` if it has not asked."""
    task, read = given[CONFIG_KEY_TASK_ID], given[CONFIG_KEY_SCRATCHPAD].get_null_resume
    pending = getclosurevars(read).nonlocals["pending_writes"]
    asked = [one[2] for one in pending if one[0] == task and one[1] == INTERRUPT]
    return asked[-1][-1] if asked else None


def _digest_in(asked: Interrupt) -> Any:
    return asked.value.get("digest") if isinstance(asked.value, dict) else None


_KEEP, _CONSUME = False, True  # of LangGraph's `get_null_resume`


def _take_answer(given: Mapping[str, Any], asked: Interrupt | None) -> Any:
    """The answer of this run to a question of `ask_about_call`; nothing else gets it then."""
    scratchpad = given[CONFIG_KEY_SCRATCHPAD]
    read = scratchpad.get_null_resume
    # LangGraph stores an answer without an id, and gives it to questions of later runs.
    is_stale = _is_stale(read)
    stored = read(_KEEP) if is_stale else None
    if isinstance(stored, Mapping) and "decisions" in stored:
        read(_CONSUME)
    if asked is None or _digest_in(asked) is None:
        return None
    answers = given.get(CONFIG_KEY_RESUME_MAP) or {}
    if asked.id in answers:
        answer = answers[asked.id]
        if scratchpad.resume and scratchpad.resume[-1] is answer:
            scratchpad.resume.pop()
        return answer
    answer = read(_CONSUME)
    return None if is_stale else answer


def _interrupt_of(question: Any, given: Mapping[str, Any]) -> GraphInterrupt:
    namespace = given[CONFIG_KEY_CHECKPOINT_NS]
    return GraphInterrupt((Interrupt.from_ns(value=question, ns=namespace),))


def _not_understood(allowed: Sequence[DecisionType]) -> str:
    others = ", ".join(form for kind, form in _OTHER_FORMS.items() if kind in allowed)
    return f"The last answer was not understood; resume with {_APPROVE}, or {others}."


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


def _is_about(decision: Any, digest: str) -> bool:
    """Whether a decision is for a call: it may name the digest of one."""
    match decision:
        case {"decisions": [{"digest": named}]}:
            return bool(named == digest)
    return True


def _read_decision(answer: Any, allowed: Sequence[DecisionType]) -> HumanDecision | None:
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
    """The result of `interrupt`, but only if it is an answer to this question.

    `interrupt` takes any unused resume value of the run, even one for a breakpoint. It takes it
    again in a run without an answer, `invoke(None)`. So a task that has not asked yet asks first,
    and a value that is left over from an earlier run is dropped.

    Args:
        question: The question.
        is_late: Whether the thread has moved on since the task asked; see `is_late`.

    Raises:
        UsageError: If the thread has moved on.
    """
    given = get_config()["configurable"]
    read = given[CONFIG_KEY_SCRATCHPAD].get_null_resume
    if _last_question(given) is None:
        raise _interrupt_of(question, given)
    if is_late:
        raise UsageError(_LATE)
    if _is_stale(read):
        read(True)  # noqa: FBT003 - consumes it, so no other task gets it
    return interrupt(question)


def _is_stale(read: Callable[[bool], Any]) -> bool:
    """Whether the resume value of a run was stored before this run.

    The checkpoint's writes are in the closure of the function that reads the value; there is no
    other access that also works in an event loop. A resume value of this run is the last of them. A
    stored one precedes the writes of the tasks.

    Args:
        read: The function, `PregelScratchpad.get_null_resume`.
    """
    found = getclosurevars(read).nonlocals
    if found["null_resume_write"] is None:
        around = found["parent_scratchpad"]
        return around is not None and _is_stale(around.get_null_resume)
    pending = found["pending_writes"]
    if found["null_resume_write"] not in pending:
        return False  # another task took it
    after = pending[pending.index(found["null_resume_write"]) + 1 :]
    return any(one[0] != NULL_TASK_ID for one in after)


async def is_late(config: RunnableConfig, *, is_async: bool) -> bool:
    """Whether a task has asked at a checkpoint that is no longer the newest.

    It checks the task's own graph and each outer graph: the steps of an inner graph are not always
    stored (`durability="exit"`), and then the outer one shows it. It cannot see checkpoints of
    another checkpointer.

    Args:
        config: The config of the task.
        is_async: Whether it runs in an event loop.
    """
    given = config["configurable"]
    if _last_question(given) is None:
        return False
    ask_saver = partial(call, given[CONFIG_KEY_CHECKPOINTER], is_async=is_async)
    for place, at in _checkpoints(given):
        if any(newest.checkpoint["id"] > at for newest in await ask_saver("list", place, limit=1)):
            return True
    return False


def _checkpoints(given: Mapping[str, Any]) -> Iterator[tuple[RunnableConfig, str]]:
    """The task's graph and the outer graphs: config of its checkpoints, and its current checkpoint.

    A caller's config may also name checkpoints of other graphs.
    """
    own = given[CONFIG_KEY_CHECKPOINT_NS].rpartition(NS_SEP)[0]  # the task has one part more
    for namespace, checkpoint in given[CONFIG_KEY_CHECKPOINT_MAP].items():
        if namespace in ("", own) or own.startswith(namespace + NS_SEP):
            place = {key: one for key, one in given.items() if key != CONFIG_KEY_CHECKPOINT_ID}
            place[CONFIG_KEY_THREAD_ID] = str(place[CONFIG_KEY_THREAD_ID])  # as LangGraph stores it
            yield {"configurable": {**place, CONFIG_KEY_CHECKPOINT_NS: namespace}}, checkpoint
