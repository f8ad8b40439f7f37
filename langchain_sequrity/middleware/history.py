"""Labels of tool results that the model saw and that did not get theirs at the gate.

Such are results in a conversation that the caller hands over, and messages that other middleware
puts in the place of a result, as after a tool that raised.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage

from langchain_sequrity.labels import Labels
from langchain_sequrity.middleware.denial import denial_of, told
from langchain_sequrity.middleware.results import brought_by, value_of
from langchain_sequrity.middleware.rules import Rules
from langchain_sequrity.middleware.thread import Thread
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
