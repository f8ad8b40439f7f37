"""The chat/completions format (`docs/protocol.md`, Chat completions).

`client` writes requests and reads replies. `server` reads requests and writes replies.
"""

from langchain_sequrity.wire.chat_completions.client import (
    ChatCompletionsReader as StreamReader,
)
from langchain_sequrity.wire.chat_completions.client import (
    read_calls,
    read_reply,
    write_messages,
    write_request,
    write_results,
)
from langchain_sequrity.wire.chat_completions.server import (
    DOCUMENTED,
    FAILED_TURN,
    new_reply_id,
    read_request,
    write_error,
    write_reply,
    write_stream,
)

TELLS_DUAL_LLM = True
"""Whether replies of this format show marks of a dual-LLM session (`docs/behaviour.md`, P2)."""

__all__ = [
    "DOCUMENTED",
    "FAILED_TURN",
    "TELLS_DUAL_LLM",
    "StreamReader",
    "new_reply_id",
    "read_calls",
    "read_reply",
    "read_request",
    "write_error",
    "write_messages",
    "write_reply",
    "write_request",
    "write_results",
    "write_stream",
]
