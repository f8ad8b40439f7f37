"""What becomes of a tool's result: its labels, the session's, and whether it is shown at all."""

from dataclasses import replace
from typing import Any

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.middleware.denial import not_made
from langchain_sequrity.middleware.guard import Guard, Passed
from langchain_sequrity.middleware.nesting import Inside, tell_around
from langchain_sequrity.middleware.results import (
    Brought,
    brought_by,
    tool_messages,
    value_of,
    with_update,
)
from langchain_sequrity.middleware.rules import Decision
from langchain_sequrity.middleware.thread import Refused, update
from langchain_sequrity.sqrt import Argument


def leave(guard: Guard, passed: Passed, result: Any, inside: Inside) -> Any:
    """Label what a tool returned.

    Args:
        guard: How calls are guarded.
        passed: The call that was made.
        result: What came of it.
        inside: What agents within it have seen and done.

    Returns:
        It, with what the state keeps of its labels.

    Raises:
        UsageError: If the tool writes what the policy goes by.
    """
    call, thread = passed.request.tool_call, passed.thread
    if inside.session is not None:
        passed = replace(passed, session=passed.session.join(inside.session))
    messages = tool_messages(result)
    own = [one for one in messages if one.tool_call_id == call["id"]]
    looks = guard.rules.engine.looks_at_results(call["name"])
    value = value_of(own[0]) if own and looks else None
    try:
        brought = brought_by(messages)
        labels, session = _labels(guard, passed, value, brought, inside)
    except Exception as error:  # noqa: BLE001 - a result without its labels goes nowhere
        return _withheld(guard, passed, value, error, inside)
    tell_around(thread, call["id"] or "", labels, session)
    if labels == Labels() and session == thread.session and brought.labels is None:
        return result
    moved = session if session != thread.session else None
    return with_update(result, update(seen=labels, session=moved, labelled=call["id"]))


def _labels(
    guard: Guard, passed: Passed, value: Any, brought: Brought, inside: Inside
) -> tuple[Labels, Labels]:
    call, seen = passed.request.tool_call, passed.thread.seen
    initial = guard.rules.argument_labels(seen) if call["args"] else Labels()
    result = Argument(value, brought.joined(initial.join(inside.labels)))
    return guard.rules.label(call["name"], call["args"], seen, result, passed.session)


def _withheld(guard: Guard, passed: Passed, value: Any, error: Exception, inside: Inside) -> Any:
    """The call was made and counts; what it returned is shown to nobody."""
    call, session, thread = passed.request.tool_call, passed.session, passed.thread
    try:
        _, session = _labels(guard, passed, value, Brought(), inside)
        # The text of ours says what to do and holds no value; others may.
        reason = str(error) if isinstance(error, UsageError) else type(error).__name__
    except Exception as another:  # noqa: BLE001 - as above
        reason = type(another).__name__
    tell_around(thread, call["id"] or "", Labels(), session)
    denial = not_made(call["name"], "withheld", reason)
    decision, config = Decision(session, None, denial), passed.request.runtime.config
    guard.tell("result", "denied", call, decision, seen=thread.seen, config=config)
    refused = Refused(passed.message, call["id"] or "", denial)
    return guard.denied(refused, thread, session=session if session != thread.session else None)
