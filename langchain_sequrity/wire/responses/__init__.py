"""The Responses format (OpenAI's newer one), read and written from both ends.

The client writes a request and reads a reply or its stream; the local server reads the request
and writes the reply or the stream. See `docs/protocol.md`, Responses.
"""

from langchain_sequrity.wire.responses.from_client import DOCUMENTED, read_request
from langchain_sequrity.wire.responses.from_server import read_reply
from langchain_sequrity.wire.responses.stream_reader import StreamReader
from langchain_sequrity.wire.responses.to_client import (
    FAILED_TURN,
    new_reply_id,
    session_of,
    write_error,
    write_reply,
    write_stream,
)
from langchain_sequrity.wire.responses.to_server import write_input, write_request, write_results

TELLS_DUAL_LLM = False
"""Whether a reply of this format shows marks of a dual-LLM session (`docs/behaviour.md`, P2)."""

__all__ = [
    "DOCUMENTED",
    "FAILED_TURN",
    "TELLS_DUAL_LLM",
    "StreamReader",
    "new_reply_id",
    "read_reply",
    "read_request",
    "session_of",
    "write_error",
    "write_input",
    "write_reply",
    "write_request",
    "write_results",
    "write_stream",
]
