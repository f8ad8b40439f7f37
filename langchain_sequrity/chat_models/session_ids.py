"""The ids of sessions in a history: which session a message is of, and which ids are replaced.

A history can hold turns of several sessions: of another key or policy, of a second agent that
shares the messages, or written by hand. Only a session that this very connection obtained is
resumed. The ids of calls of all others are replaced, since the service would take a session from
them (`docs/behaviour.md`, P1).
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from hmac import compare_digest
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from langchain_sequrity.wire.dual_llm import kept_text, original_content, with_text
from langchain_sequrity.wire.exchange import METADATA_KEY

Seal = Callable[[str], str]
"""Makes the digest that proves that this connection obtained a session id."""
WITHOUT_TOOLS = "without_tools"
"""Marks a message of a session that began without tools, and so is not that of the thread."""
REPLACES_EARLIER = "replaces_earlier"
"""Marks a message of a session that the caller chose, whatever the turns before it were."""

# Known forms of a call's id: `tc-<session>-<call>`, the same without dashes, and `tc` with 16 hex
# digits.
_LONG_ID = re.compile(r"tc-[0-9a-zA-Z-]{36}-")
_DASHLESS_ID = re.compile(r"tc[0-9a-fA-F]{32}")
_SHORT_ID = re.compile(r"tc[0-9a-f]{16}\Z")
# Keys that hold the id of a call in calls, in results and in references to them, in any format.
_IDS = frozenset({"id", "call_id", "tool_use_id", "tool_call_id", "tool_id"})
# Keys of a call's arguments, which are the user's own data.
_ARGUMENTS = frozenset({"input", "args", "arguments"})


def own_metadata(message: BaseMessage) -> Mapping[str, Any]:
    """What this package has noted on a message."""
    metadata = message.response_metadata.get(METADATA_KEY)
    return metadata if isinstance(metadata, Mapping) else {}


def own_session(message: Any, seal: Seal) -> str | None:
    """The session of a message, if this connection obtained it."""
    if not isinstance(message, AIMessage):
        return None
    session_id = own_metadata(message).get("session_id")
    return session_id if isinstance(session_id, str) and is_own(message, seal(session_id)) else None


def is_own(message: AIMessage, digest: str) -> bool:
    """Whether a message has the digest of a session of this connection."""
    stored = str(own_metadata(message).get("digest")).encode("utf-8", "surrogatepass")
    return compare_digest(digest.encode(), stored)


def last_own_session(
    messages: Sequence[Any], seal: Seal, *, of_tools: bool
) -> tuple[str | None, int | None]:
    """The last session that this connection obtained, and the index of its last message.

    Args:
        messages: The conversation.
        seal: Makes the digests of the connection.
        of_tools: Whether to leave out sessions that began without tools.
    """
    for index in range(len(messages) - 1, -1, -1):
        session_id = own_session(messages[index], seal)
        if session_id and not (of_tools and own_metadata(messages[index]).get(WITHOUT_TOOLS)):
            return session_id, index
    return None, None


def last_session(messages: Sequence[BaseMessage]) -> str | None:
    """The session that made the last calls, if it is one of the service."""
    last = next((m for m in reversed(messages) if isinstance(m, AIMessage)), None)
    session_id = None if last is None else own_metadata(last).get("session_id")
    return session_id if isinstance(session_id, str) else None


# Ids of other sessions


def with_replaced_ids(
    messages: Sequence[BaseMessage], resumed: str | None, seal: Seal
) -> list[BaseMessage]:
    """Replace the ids of calls, at any depth, except those of the resumed session.

    Args:
        messages: The history.
        resumed: The session that continues, if any.
        seal: As for `own_session`.
    """
    replacer = _IdReplacer(messages, resumed, seal)
    return [replacer.clear(message) for message in messages]


def _as_received(message: AIMessage, text: str) -> AIMessage:
    """The message as the service sent it, before a value or refusal was made of it."""
    kwargs = {key: value for key, value in message.additional_kwargs.items() if key != "refusal"}
    if refusal := kept_text(message, "refusal"):
        kwargs["refusal"] = refusal
    content = with_text(message.content, text)
    return message.model_copy(update={"content": content, "additional_kwargs": kwargs})


class _IdReplacer:
    """Replaces ids of calls; see `with_replaced_ids`.

    The session that a message notes decides. Only the ids of a message without such a note are
    taken for ids of the session that they seem to name: sessions of one server may share the short
    form, so two calls of a history may have the same id.
    """

    def __init__(self, messages: Sequence[BaseMessage], resumed: str | None, seal: Seal) -> None:
        self._resumed = resumed
        self._digest = None if resumed is None else seal(resumed)
        self._sent: dict[str, str] = {}  # an id → what is sent for the last call that has it
        self._messages = messages

    @cached_property
    def _repeated(self) -> set[str]:
        """The ids of several calls."""
        ids = (call_id for message in self._messages for call_id in _call_ids(message))
        counts = Counter(ids)
        return {call_id for call_id, count in counts.items() if count > 1}

    def clear(self, message: BaseMessage) -> BaseMessage:
        """Replace the ids of one message; a result comes after its call."""
        if isinstance(message, AIMessage):
            return self._clear_ai(message)
        changes: dict[str, Any] = {}
        if isinstance(message.content, list):
            content = self._cleared(message.content)
            if content is not message.content:
                changes["content"] = content
        if isinstance(message, ToolMessage):
            call_id = self._id_to_send(message.tool_call_id)
            if call_id is not message.tool_call_id:
                changes["tool_call_id"] = call_id
        return message.model_copy(update=changes) if changes else message

    def _clear_ai(self, message: AIMessage) -> AIMessage:
        calls, invalid, content = message.tool_calls, message.invalid_tool_calls, message.content
        is_plain = isinstance(content, str) and not calls and not invalid
        if is_plain and METADATA_KEY not in message.response_metadata:
            return message
        if self._digest is not None and is_own(message, self._digest):
            self._sent.update((call_id, call_id) for call_id in _call_ids(message))
            text = original_content(message)
            return message if text is None else _as_received(message, text)
        session_id = own_metadata(message).get("session_id")
        ids = _call_ids(message)
        sent = [self._sent_of_others(call_id, session_id) for call_id in ids]
        self._sent.update(zip(ids, sent, strict=True))
        cleared = content if isinstance(content, str) else self._cleared(content)
        if cleared is content and sent == ids:
            return message
        changes = {
            "content": cleared,
            "tool_calls": self._cleared(calls),
            "invalid_tool_calls": self._cleared(invalid),
        }
        return message.model_copy(update=changes)

    def _cleared(self, value: Any) -> Any:
        """Replace foreign ids at any depth; a value without foreign ids is returned itself.

        Every provider has its own block types, so only the keys are considered.
        """
        if isinstance(value, list):
            cleared = [self._cleared(item) for item in value]
            is_same = all(new is old for new, old in zip(cleared, value, strict=True))
            return value if is_same else cleared
        if isinstance(value, dict):
            entries = {key: self._cleared_entry(key, entry) for key, entry in value.items()}
            return value if all(entries[key] is value[key] for key in value) else entries
        return value

    def _cleared_entry(self, key: Any, value: Any) -> Any:
        if isinstance(value, str):
            return self._id_to_send(value) if key in _IDS else value
        return value if key in _ARGUMENTS else self._cleared(value)

    def _id_to_send(self, call_id: str) -> str:
        sent = self._sent.get(call_id)
        return self._sent_of_others(call_id, None) if sent is None else sent

    def _sent_of_others(self, call_id: str, session_id: Any) -> str:
        """What is sent for an id of a message that is not known to be of the resumed session.

        Args:
            call_id: The id.
            session_id: The session that the message notes, if any.
        """
        if not call_id.startswith("tc"):
            return call_id
        is_short = _SHORT_ID.match(call_id) is not None
        if is_short and isinstance(session_id, str) and session_id != self._resumed:
            return _neutral(f"{session_id} {call_id}")
        return _neutral(call_id) if self._seems_foreign(call_id, is_short=is_short) else call_id

    def _seems_foreign(self, call_id: str, *, is_short: bool) -> bool:
        """Whether an id names, or may name, a session other than the resumed one."""
        if _LONG_ID.match(call_id):
            return call_id[3:39] != self._resumed
        digits = (self._resumed or "").replace("-", "").lower()
        if _DASHLESS_ID.match(call_id):
            return call_id[2:34].lower() != digits
        if is_short:
            return not digits or call_id[2:14] != digits[-12:] or call_id in self._repeated
        return call_id.startswith("tc-")


def _call_ids(message: BaseMessage) -> list[str]:
    if not isinstance(message, AIMessage):
        return []
    calls = (*message.tool_calls, *message.invalid_tool_calls)
    return [call_id for call in calls if (call_id := call["id"]) is not None]


def _neutral(call_id: str) -> str:
    """An id without a session. It is a digest, so that a call and its result keep equal ids."""
    return f"call_{hashlib.blake2s(call_id.encode(), digest_size=12).hexdigest()}"
