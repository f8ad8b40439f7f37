"""The Messages format, Anthropic's (`docs/protocol.md`, Messages).

`client` writes requests and reads replies. `server` reads requests and writes replies.
"""

from langchain_sequrity.wire.messages.client import MessagesReader as StreamReader
from langchain_sequrity.wire.messages.client import (
    read_reply,
    write_messages,
    write_request,
    write_results,
)
from langchain_sequrity.wire.messages.server import (
    DOCUMENTED,
    FAILED_TURN,
    new_reply_id,
    read_request,
    write_error,
    write_reply,
    write_stream,
)

TELLS_DUAL_LLM = False
"""Whether replies of this format show marks of a dual-LLM session (`docs/behaviour.md`, P2)."""

__all__ = [
    "DOCUMENTED",
    "FAILED_TURN",
    "TELLS_DUAL_LLM",
    "StreamReader",
    "new_reply_id",
    "read_reply",
    "read_request",
    "write_error",
    "write_messages",
    "write_reply",
    "write_request",
    "write_results",
    "write_stream",
]
