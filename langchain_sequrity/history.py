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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, FunctionMessage, ToolMessage

from langchain_sequrity.wire.dual_llm import METADATA_KEY, original_content

NEW_SESSION = "new"
Seal = Callable[[str], str]
"""Gives the digest that proves that a session id was obtained by this connection."""

# Both forms the service is known to use: `tc-<session>-<call>` and `tc` with 16 hex digits.
_LONG_ID = re.compile(r"tc-[0-9a-zA-Z-]{36}-")
_SHORT_ID = re.compile(r"tc[0-9a-f]{16}\Z")


@dataclass(frozen=True, slots=True)
class History:
    """What may be sent.

    Attributes:
        messages: The conversation without foreign session ids.
        session_id: The session to resume, or `None` to start one.
        has_results: Whether tool results are part of it, so that a tool has already run.
    """

    messages: Sequence[BaseMessage]
    session_id: str | None
    has_results: bool


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
    resumed = session_id or _last_own_session(messages, seal) or configured
    if resumed == NEW_SESSION:
        resumed = None
    ids = _Ids(resumed, seal)
    has_results = False
    out: list[BaseMessage] = []
    for message in messages:
        if isinstance(message, AIMessage):
            out.append(ids.clear_ai(message))
        elif isinstance(message, ToolMessage):
            has_results = True
            out.append(ids.clear_result(message))
        else:
            has_results = has_results or isinstance(message, FunctionMessage)
            out.append(message)
    return History(out, resumed, has_results)


def _facts(message: AIMessage) -> Mapping[str, Any]:
    found = message.response_metadata.get(METADATA_KEY)
    return found if isinstance(found, Mapping) else {}


def _is_own(message: AIMessage, digest: str) -> bool:
    found = str(_facts(message).get("digest")).encode("utf-8", "surrogatepass")
    return hmac.compare_digest(digest.encode(), found)


def _last_own_session(messages: Sequence[BaseMessage], seal: Seal) -> str | None:
    for message in reversed(messages):
        if isinstance(message, AIMessage):
            session_id = _facts(message).get("session_id")
            if isinstance(session_id, str) and _is_own(message, seal(session_id)):
                return session_id
    return None


class _Ids:
    """Tool call ids of one history: those of the resumed session stay, others are replaced."""

    def __init__(self, resumed: str | None, seal: Seal) -> None:
        self._resumed = resumed
        self._digest = None if resumed is None else seal(resumed)
        self._own: set[str | None] = set()

    def clear_ai(self, message: AIMessage) -> AIMessage:
        calls = [*message.tool_calls, *message.invalid_tool_calls]
        if not calls and METADATA_KEY not in message.response_metadata:
            return message
        if self._digest is not None and _is_own(message, self._digest):
            self._own.update(call["id"] for call in calls)
            content = original_content(message)
            return message if content is None else message.model_copy(update={"content": content})
        if not any(self._is_foreign(call["id"]) for call in calls):
            return message
        return message.model_copy(
            update={
                "tool_calls": self._cleared(message.tool_calls),
                "invalid_tool_calls": self._cleared(message.invalid_tool_calls),
            }
        )

    def clear_result(self, message: ToolMessage) -> ToolMessage:
        call_id = message.tool_call_id
        if call_id in self._own or not self._is_foreign(call_id):
            return message
        return message.model_copy(update={"tool_call_id": _neutral(call_id)})

    def _cleared(self, calls: Iterable[Any]) -> list[Any]:
        return [
            {**call, "id": _neutral(call["id"]) if self._is_foreign(call["id"]) else call["id"]}
            for call in calls
        ]

    def _is_foreign(self, call_id: str | None) -> bool:
        """Whether an id names a session other than the resumed one; ids without form might."""
        if call_id is None or not call_id.startswith("tc"):
            return False
        if _LONG_ID.match(call_id):
            return call_id[3:39] != self._resumed
        if _SHORT_ID.match(call_id):
            return self._resumed is None or call_id[2:14] != self._resumed.replace("-", "")[-12:]
        return call_id.startswith("tc-")


def _neutral(call_id: str) -> str:
    """An id of no session, the same each time so that a call and its result stay a pair."""
    return f"call_{hashlib.blake2s(call_id.encode(), digest_size=12).hexdigest()}"
