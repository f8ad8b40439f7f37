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

from langchain_sequrity.wire.dual_llm import METADATA_KEY, original_content, with_text

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
        resumed_at: Place of the last message that the resumed session answered with, if any.
    """

    messages: Sequence[BaseMessage]
    session_id: str | None
    has_results: bool
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
    has_results = False
    out: list[BaseMessage] = []
    for message in messages:
        if isinstance(message, AIMessage):
            out.append(ids.clear_ai(message))
        elif isinstance(message, ToolMessage):
            has_results = True
            out.append(ids.clear_result(message))
        elif isinstance(message.content, list) and _holds_results(message.content):
            has_results = True
            out.append(ids.clear_blocks(message))
        else:
            has_results = has_results or isinstance(message, FunctionMessage)
            out.append(message)
    return History(out, resumed, has_results, resumed_at if resumed == own else None)


def _holds_results(content: list[Any]) -> bool:
    """Whether tool results stand in a user's message, as Anthropic's users write them."""
    return any(isinstance(one, dict) and one.get("type") == "tool_result" for one in content)


def _as_it_came(message: AIMessage, text: str) -> AIMessage:
    """The message with its envelope in the place of the value, or of the refusal made of it."""
    said = {key: value for key, value in message.additional_kwargs.items() if key != "refusal"}
    content = with_text(message.content, text)
    return message.model_copy(update={"content": content, "additional_kwargs": said})


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
    """Tool call ids of one history: those of the resumed session stay, others are replaced."""

    def __init__(self, resumed: str | None, seal: Seal) -> None:
        self._resumed = resumed
        self._digest = None if resumed is None else seal(resumed)
        self._own: set[str | None] = set()

    def clear_ai(self, message: AIMessage) -> AIMessage:
        calls = [*message.tool_calls, *message.invalid_tool_calls]
        blocks = message.content if isinstance(message.content, list) else []
        if not calls and not blocks and METADATA_KEY not in message.response_metadata:
            return message
        if self._digest is not None and _is_own(message, self._digest):
            self._own.update(call["id"] for call in calls)
            text = original_content(message)
            return message if text is None else _as_it_came(message, text)
        ids = [*(call["id"] for call in calls), *map(_id_in, blocks)]
        if not any(map(self._is_foreign, ids)):
            return message
        return message.model_copy(
            update={
                "content": self._cleared_blocks(message.content),
                "tool_calls": self._cleared(message.tool_calls),
                "invalid_tool_calls": self._cleared(message.invalid_tool_calls),
            }
        )

    def clear_blocks(self, message: BaseMessage) -> BaseMessage:
        """Clear a message whose content holds tool results."""
        return message.model_copy(update={"content": self._cleared_blocks(message.content)})

    def clear_result(self, message: ToolMessage) -> ToolMessage:
        call_id = message.tool_call_id
        is_foreign = call_id not in self._own and self._is_foreign(call_id)
        content = message.content
        if isinstance(content, list) and _holds_results(content):
            content = self._cleared_blocks(content)
        elif not is_foreign:
            return message
        own_id = _neutral(call_id) if is_foreign else call_id
        return message.model_copy(update={"tool_call_id": own_id, "content": content})

    def _cleared_blocks(self, content: Any) -> Any:
        """Blocks of content that name a tool call name it by the same id as the call itself."""
        if isinstance(content, str):
            return content
        return [self._cleared_block(block) for block in content]

    def _cleared_block(self, block: Any) -> Any:
        call_id = _id_in(block)
        if call_id is None or call_id in self._own or not self._is_foreign(call_id):
            return block
        return {**block, _ID_KEYS[block["type"]]: _neutral(call_id)}

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


# Where the blocks of each dialect have the id of a tool call.
_ID_KEYS = {
    "tool_use": "id",
    "tool_call": "id",
    "invalid_tool_call": "id",
    "function_call": "call_id",
    "tool_result": "tool_use_id",
    "function_call_output": "call_id",
}


def _id_in(block: Any) -> str | None:
    key = _ID_KEYS.get(str(block.get("type"))) if isinstance(block, dict) else None
    found = block.get(key) if key else None
    return found if isinstance(found, str) else None


def _neutral(call_id: str) -> str:
    """An id of no session, the same each time so that a call and its result stay a pair."""
    return f"call_{hashlib.blake2s(call_id.encode(), digest_size=12).hexdigest()}"
