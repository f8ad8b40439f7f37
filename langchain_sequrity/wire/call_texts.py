"""Arguments of tool calls as JSON text: as they came, or as the service writes them.

A service may compare the history that it is sent with its own as text. So a call goes back with the
very text it came with, as long as nobody edited its arguments. The text is kept beside the session
in a message's metadata, because `tool_calls` hold parsed arguments, and a database may reorder the
keys of those. Arguments that have to be written are written as the service does
(`docs/protocol.md`, Chat completions).
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.messages.tool import ToolCall

from langchain_sequrity.wire.dual_llm import METADATA_KEY
from langchain_sequrity.wire.json_text import dumps_like_service, read_arguments

_KEY = "arguments"
_BLOCK = "function_call"


def with_texts(
    metadata: Mapping[str, Any], texts: Iterable[tuple[str | None, Any]]
) -> dict[str, Any]:
    """Keep the texts of a reply's calls.

    Args:
        metadata: The `response_metadata` of the message.
        texts: Id and text of each call, as they came; what is not text is left out.

    Returns:
        The metadata with the texts in it.
    """
    kept = {call_id: text for call_id, text in texts if call_id and isinstance(text, str)}
    if not kept:
        return {**metadata}
    return {**metadata, METADATA_KEY: {**(metadata.get(METADATA_KEY) or {}), _KEY: kept}}


def texts_of(message: AIMessage) -> Mapping[str, str]:
    """The texts that the calls of a message came with, by their ids."""
    texts: dict[Any, Any] = {}
    if isinstance(message.content, list):
        for block in message.content:
            if isinstance(block, dict) and block.get("type") == _BLOCK:
                texts[block.get("call_id")] = block.get("arguments")
    own = message.response_metadata.get(METADATA_KEY)
    found = own.get(_KEY) if isinstance(own, Mapping) else None
    if isinstance(found, Mapping):
        texts.update(found)
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def text_of(call: ToolCall, texts: Mapping[str, str]) -> str:
    """The text of a call's arguments.

    Args:
        call: The call.
        texts: The texts that the calls of its message came with.

    Returns:
        The text that it came with, unless its arguments are others by now.
    """
    written = dumps_like_service(call["args"])
    came = texts.get(call["id"] or "")
    if came is None or came == written:
        return written
    args, _ = read_arguments(came)
    return came if args is not None and _sorted(args) == _sorted(call["args"]) else written


def _sorted(args: Mapping[str, Any]) -> str | None:
    """A text that is the same for equal arguments alone: 1, 1.0 and true are three."""
    try:
        return json.dumps(args, sort_keys=True)
    except TypeError:  # keys of several kinds, or what JSON lacks: no reply brought them
        return None
