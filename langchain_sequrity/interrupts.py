"""Human review of soft denials: the question, and an answer that counts once in a thread.

A checkpoint remains when a thread moves on, with the question that was asked there. A caller could
name it and answer again. So a question only accepts an answer at the newest checkpoint of its own
graph and of each outer graph.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config
from langgraph.types import Interrupt, interrupt

from langchain_sequrity import _compat
from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import UsageError
from langchain_sequrity.human_review import (
    DecisionType,
    HumanDecision,
    is_about,
    not_understood,
    question,
    read_decision,
)
from langchain_sequrity.sync_or_async import call

_LATE = (
    "This question is from an older checkpoint, and the thread has moved on since. An approval is "
    "used once in a thread, so an answer is not accepted there. To be asked again, go back without "
    "an answer, `invoke(None, config)`, and answer the new question at the newest checkpoint."
)
_NO_FACTS: Mapping[str, Any] = MappingProxyType({})


def check_can_ask(config: RunnableConfig) -> None:
    """Refuse a run that could ask a human but could not get the answer.

    Args:
        config: The config of a node of the run.

    Raises:
        UsageError: If there is no checkpointer, here or in an outer graph.
    """
    if config["configurable"].get(_compat.CHECKPOINTER) is None:
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
        answer = _answer_to(question(denial, args, allowed, remark), is_late=is_late)
        decision = read_decision(answer, allowed)
        if decision is not None:
            return decision
        remark = not_understood(allowed)


def ask_about_call(
    digest: str,
    denial: Denial,
    args: Mapping[str, Any],
    allowed: Sequence[DecisionType],
    facts: Mapping[str, Any] = _NO_FACTS,
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
        facts: What else the question has.
        is_late: See `ask`.

    Raises:
        UsageError: If the answer is late.
        GraphInterrupt: Without an answer that can be used. The run stops until there is one.
    """
    configurable, remark = get_config()["configurable"], ""
    last_question = _compat.last_question(configurable)
    answer = _take_answer(configurable, last_question)
    if last_question is not None and _digest_in(last_question) == digest:
        if is_late:
            raise UsageError(_LATE)
        decision = read_decision(answer, allowed)
        if decision is not None and is_about(answer, digest):
            return decision
        if decision is not None:
            remark = "The last answer was for another call."
        elif answer is not None:
            remark = not_understood(allowed)
    request = {**question(denial, args, allowed, remark), "digest": digest, **facts}
    raise _compat.interrupt_with(request, configurable)


def last_facts(config: RunnableConfig, name: str) -> Mapping[str, Any] | None:
    """What the last question of a task has under a name, if it is an object."""
    last_question = _compat.last_question(config["configurable"])
    value = last_question.value if last_question is not None else None
    facts = value.get(name) if isinstance(value, dict) else None
    return facts if isinstance(facts, Mapping) else None


async def is_outdated(config: RunnableConfig, *, is_async: bool) -> bool:
    """Whether the last question of a task is from an older checkpoint.

    Raises:
        UsageError: If it has an answer.
    """
    if not await is_late(config, is_async=is_async):
        return False
    configurable = config["configurable"]
    if _take_answer(configurable, _compat.last_question(configurable)) is not None:
        raise UsageError(_LATE)
    return True


def drop_answer(config: RunnableConfig) -> None:
    """Drop the answer to a question of `ask_about_call` if the task no longer asks it.

    Otherwise the first question of the task's own code would get it.
    """
    configurable = config["configurable"]
    _take_answer(configurable, _compat.last_question(configurable))


def _digest_in(question: Interrupt) -> Any:
    return question.value.get("digest") if isinstance(question.value, dict) else None


def _take_answer(configurable: Mapping[str, Any], question: Interrupt | None) -> Any:
    """The answer of this run to a question of `ask_about_call`; nothing else gets it then."""
    # LangGraph stores an answer without an id, and gives it to questions of later runs.
    is_stale = _compat.is_answer_stale(configurable)
    stored = _compat.unnamed_answer(configurable, take=False) if is_stale else None
    if isinstance(stored, Mapping) and "decisions" in stored:
        _compat.unnamed_answer(configurable, take=True)
    if question is None or _digest_in(question) is None:
        return None
    answer = _compat.take_named_answer(configurable, question.id)
    if answer is not _compat.MISSING:
        return answer
    answer = _compat.unnamed_answer(configurable, take=True)
    return None if is_stale else answer


def _answer_to(request: Any, *, is_late: bool) -> Any:
    """The result of `interrupt`, but only if it is an answer to this question.

    `interrupt` takes any unused resume value of the run, even one for a breakpoint. It takes it
    again in a run without an answer, `invoke(None)`. So a task that has not asked yet asks first,
    and a value that is left over from an earlier run is dropped.

    Args:
        request: The question.
        is_late: Whether the thread has moved on since the task asked; see `is_late`.

    Raises:
        UsageError: If the thread has moved on.
    """
    configurable = get_config()["configurable"]
    if _compat.last_question(configurable) is None:
        raise _compat.interrupt_with(request, configurable)
    if is_late:
        raise UsageError(_LATE)
    if _compat.is_answer_stale(configurable):
        _compat.unnamed_answer(configurable, take=True)  # so no other task gets it
    return interrupt(request)


async def is_late(config: RunnableConfig, *, is_async: bool) -> bool:
    """Whether a task has asked at a checkpoint that is no longer the newest.

    It checks the task's own graph and each outer graph: the steps of an inner graph are not always
    stored (`durability="exit"`), and then the outer one shows it. It cannot see checkpoints of
    another checkpointer.

    Args:
        config: The config of the task.
        is_async: Whether it runs in an event loop.
    """
    configurable = config["configurable"]
    if _compat.last_question(configurable) is None:
        return False
    ask_saver = partial(call, configurable[_compat.CHECKPOINTER], is_async=is_async)
    for graph, current in _compat.checkpoints_around(configurable):
        newest = await ask_saver("list", graph, limit=1)
        if any(stored.checkpoint["id"] > current for stored in newest):
            return True
    return False
