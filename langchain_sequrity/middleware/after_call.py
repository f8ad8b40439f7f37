"""What happens to a tool's result: its labels, the session's labels, whether it is shown.

Such are results in a conversation that the caller hands over, and messages that other middleware
puts in the place of a result, as after a tool that raised.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.middleware.context import (
    Brought,
    Guard,
    Passed,
    brought_by,
    tool_messages,
    value_of,
    with_update,
)
from langchain_sequrity.middleware.state import Refused, Thread, update
from langchain_sequrity.middleware.subagents import Inside, tell_around
from langchain_sequrity.middleware.verdict import Decision, Rules, denial_of, not_made, told
from langchain_sequrity.sqrt import Argument


def labels_seen(rules: Rules, messages: Sequence[AnyMessage], thread: Thread) -> Labels:
    """Join the labels of all results that the model saw by now.

    Those that got labels at the gate are counted already. Their seals are not looked at again: by
    now this may be another process, with another key. Labels of the session are not changed: what
    was called elsewhere was no call of this session.

    Args:
        rules: The policy.
        messages: The conversation, up to the message of the model.
        thread: What is kept of the thread.

    Raises:
        UsageError: If labels in an artifact were not made by `labeled_tool_result`.
    """
    seen = thread.seen
    calls: dict[str, Mapping[str, Any]] = {}
    labelled = set(thread.labelled)
    for message in _since(messages, thread.plan.message):
        if isinstance(message, AIMessage):
            found = {call["id"]: dict(call) for call in message.tool_calls if call["id"]}
            calls |= found
            if message.id != thread.plan.message:
                labelled -= set(found)  # another message may use an id again
        elif isinstance(message, ToolMessage):
            if message.tool_call_id in labelled or _is_ours(message):
                continue
            call = calls.get(message.tool_call_id, {})
            tool = call.get("name") or message.name or "tool"
            added = brought_by([message]).joined(Labels())
            if rules.engine.looks_at_results(tool):
                added, _ = rules.label(
                    tool, call.get("args", {}), thread.seen, Argument(value_of(message), added),
                    thread.session,
                )  # fmt: skip
            seen = seen.join(added)
    return seen


def _since(messages: Sequence[AnyMessage], known: str) -> Iterator[AnyMessage]:
    """The messages from a known one on; all of them if it is not there any more."""
    backwards = range(len(messages) - 1, -1, -1)  # it is one of the last, as a rule
    start = next((at for at in backwards if known and messages[at].id == known), 0)
    yield from messages[start:]


def _is_ours(message: ToolMessage) -> bool:
    """Whether a message has nothing but our own words about a denial."""
    denial = denial_of(message)
    return denial is not None and message.content == told(denial)


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
