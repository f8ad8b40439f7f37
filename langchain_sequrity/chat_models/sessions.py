"""Which session a conversation goes on with, and the history that may be sent to it.

A message history can hold turns of several sessions: of another key or policy, of a second agent
that shares the list, or written by hand. Only a session that this very connection obtained is
resumed, and the ids of all others are replaced, since the service would read a session from them
(`docs/behaviour.md`, P1).
"""

import functools
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    ToolMessage,
)

from langchain_sequrity.wire.dual_llm import (
    kept_text,
    original_content,
    with_text,
)
from langchain_sequrity.wire.exchange import METADATA_KEY

NEW_SESSION = "new"
Seal = Callable[[str], str]
"""Gives the digest that proves that a session id was obtained by this connection."""

# The forms the service is known to use: `tc-<session>-<call>`, the same without dashes, and `tc`
# with 16 hex digits.
_LONG_ID = re.compile(r"tc-[0-9a-zA-Z-]{36}-")
_DASHLESS_ID = re.compile(r"tc[0-9a-fA-F]{32}")
_SHORT_ID = re.compile(r"tc[0-9a-f]{16}\Z")
# Where calls, results and what refers to them have the id of a call, in any dialect.
_IDS = frozenset({"id", "call_id", "tool_use_id", "tool_call_id", "tool_id"})
# What a tool is called with is the user's own data.
_ARGUMENTS = frozenset({"input", "args", "arguments"})
_RESULTS = ("tool_result", "function_call_output", "custom_tool_call_output")


@dataclass(frozen=True, slots=True)
class History:
    """What may be sent.

    Attributes:
        messages: The conversation without foreign session ids.
        session_id: The session to resume, or `None` to start one.
        has_results: Whether tool results are part of it, so that a tool has already run.
        is_mid_turn: Whether calls have been made since the user's last words.
        leaves_session: Whether the last of them was made by a session that is not resumed.
        resumed_at: Place of the last message that the resumed session answered with, if any.
    """

    messages: Sequence[BaseMessage]
    session_id: str | None
    has_results: bool
    is_mid_turn: bool
    leaves_session: bool
    resumed_at: int | None = None


def prepare(
    messages: Sequence[BaseMessage],
    *,
    session_id: str | None,
    seal: Seal,
    configured: str | None = None,
) -> History:
    """Choose the session and clear the history of all others.

    Args:
        messages: The conversation as the caller has it; it is not changed.
        session_id: A session that the caller names, `"new"`, or `None` to take it from the
            history.
        seal: Makes the digest of a session id for this connection.
        configured: A session to start with, where the history has none of this connection yet.

    Returns:
        What may be sent.
    """
    seal = functools.cache(seal)  # a foreign session is often that of a hundred messages
    own, resumed_at = _last_own_session(messages, seal)
    resumed = session_id or own or configured
    if resumed == NEW_SESSION:
        resumed = None
    ids = _Ids(resumed, seal)
    cleared = [ids.clear(message) for message in messages]
    has_results = any(map(_holds_results, messages))
    place = resumed_at if resumed == own else None
    is_mid_turn = _is_mid_turn(messages)
    leaves = is_mid_turn and _last_session(messages) not in (None, resumed)
    return History(cleared, resumed, has_results, is_mid_turn, leaves, place)


def _last_session(messages: Sequence[BaseMessage]) -> str | None:
    """Who made the last calls, if that was a session of the service."""
    last = next((one for one in reversed(messages) if isinstance(one, AIMessage)), None)
    session_id = None if last is None else _facts(last).get("session_id")
    return session_id if isinstance(session_id, str) else None


def _is_mid_turn(messages: Sequence[BaseMessage]) -> bool:
    for message in reversed(messages):
        if _holds_results(message):
            return True
        if isinstance(message, AIMessage):
            return bool(message.tool_calls or message.invalid_tool_calls)
        if isinstance(message, HumanMessage):
            return False
    return False


def _holds_results(message: BaseMessage) -> bool:
    """Whether a message says that a tool has run: also one of the user, as Anthropic's have it."""
    if isinstance(message, ToolMessage | FunctionMessage):
        return True
    return isinstance(message.content, list) and any(map(_is_result, message.content))


def _is_result(block: Any) -> bool:
    if not isinstance(block, dict):
        return False
    kind = block.get("type")
    return kind in _RESULTS or (kind == "non_standard" and _is_result(block.get("value")))


def _as_it_came(message: AIMessage, text: str) -> AIMessage:
    """The message as the service said it, in the place of the value or refusal made of it."""
    said = {key: value for key, value in message.additional_kwargs.items() if key != "refusal"}
    if refusal := kept_text(message, "refusal"):
        said["refusal"] = refusal
    content = with_text(message.content, text)
    return message.model_copy(update={"content": content, "additional_kwargs": said})


def _as_shown(message: AIMessage) -> AIMessage:
    """A denial without the refusal beside its text: to another session it is a text."""
    if "denial" not in _facts(message):
        return message
    said = {key: value for key, value in message.additional_kwargs.items() if key != "refusal"}
    return message.model_copy(update={"additional_kwargs": said})


def _facts(message: AIMessage) -> Mapping[str, Any]:
    found = message.response_metadata.get(METADATA_KEY)
    return found if isinstance(found, Mapping) else {}


def _is_own(message: AIMessage, digest: str) -> bool:
    found = str(_facts(message).get("digest")).encode("utf-8", "surrogatepass")
    return hmac.compare_digest(digest.encode(), found)


def _last_own_session(messages: Sequence[BaseMessage], seal: Seal) -> tuple[str | None, int | None]:
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if isinstance(message, AIMessage):
            session_id = _facts(message).get("session_id")
            if isinstance(session_id, str) and _is_own(message, seal(session_id)):
                return session_id, index
    return None, None


class _Ids:
    """Ids of one history: those of the resumed session stay, those of others are replaced."""

    def __init__(self, resumed: str | None, seal: Seal) -> None:
        self._resumed = resumed
        self._digest = None if resumed is None else seal(resumed)
        self._own: set[str | None] = set()

    def clear(self, message: BaseMessage) -> BaseMessage:
        """Return the message without ids of other sessions, wherever it has them."""
        if isinstance(message, AIMessage):
            return self._clear_ai(message)
        changes: dict[str, Any] = {}
        if isinstance(message.content, list):
            content = self._cleared(message.content)
            if content is not message.content:
                changes["content"] = content
        if isinstance(message, ToolMessage) and self._is_foreign(message.tool_call_id):
            changes["tool_call_id"] = _neutral(message.tool_call_id)
        return message.model_copy(update=changes) if changes else message

    def _clear_ai(self, message: AIMessage) -> AIMessage:
        calls, invalid, content = message.tool_calls, message.invalid_tool_calls, message.content
        is_plain = isinstance(content, str) and not calls and not invalid
        if is_plain and METADATA_KEY not in message.response_metadata:
            return message
        if self._digest is not None and _is_own(message, self._digest):
            self._own.update(call["id"] for call in (*calls, *invalid))
            text = original_content(message)
            return _as_shown(message) if text is None else _as_it_came(message, text)
        message = _as_shown(message)
        cleared = content if isinstance(content, str) else self._cleared(content)
        is_foreign = any(self._is_foreign(call["id"]) for call in (*calls, *invalid))
        if cleared is content and not is_foreign:
            return message
        changes = {
            "content": cleared,
            "tool_calls": self._cleared(calls),
            "invalid_tool_calls": self._cleared(invalid),
        }
        return message.model_copy(update=changes)

    def _cleared(self, value: Any) -> Any:
        """Replace foreign ids at any depth; what has none is returned as it is.

        Every provider has blocks of its own, so the keys decide and not the types.
        """
        if isinstance(value, list):
            cleared = [self._cleared(one) for one in value]
            is_same = all(new is old for new, old in zip(cleared, value, strict=True))
            return value if is_same else cleared
        if isinstance(value, dict):
            entries = {key: self._cleared_entry(key, one) for key, one in value.items()}
            return value if all(entries[key] is value[key] for key in value) else entries
        return value

    def _cleared_entry(self, key: Any, value: Any) -> Any:
        if isinstance(value, str):
            return _neutral(value) if key in _IDS and self._is_foreign(value) else value
        return value if key in _ARGUMENTS else self._cleared(value)

    def _is_foreign(self, call_id: str | None) -> bool:
        """Whether an id names a session other than the resumed one; ids without form might."""
        if call_id is None or not call_id.startswith("tc") or call_id in self._own:
            return False
        if _LONG_ID.match(call_id):
            return call_id[3:39] != self._resumed
        own = (self._resumed or "").replace("-", "").lower()
        if _DASHLESS_ID.match(call_id):
            return call_id[2:34].lower() != own
        if _SHORT_ID.match(call_id):
            return not own or call_id[2:14] != own[-12:]
        return call_id.startswith("tc-")


def _neutral(call_id: str) -> str:
    """An id of no session, the same each time so that a call and its result stay a pair."""
    return f"call_{hashlib.blake2s(call_id.encode(), digest_size=12).hexdigest()}"
