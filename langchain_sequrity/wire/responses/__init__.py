"""The Responses format, OpenAI's newer one (`docs/protocol.md`, Responses).

`client` and `stream_reader` are the client's side, `server` and `stream_writer` the server's.
`items` reads items of the assistant, which both sides receive.
"""

from langchain_sequrity.wire.responses.client import (
    DOCUMENTED,
    read_reply,
    write_input,
    write_request,
    write_results,
)
from langchain_sequrity.wire.responses.server import (
    FAILED_TURN,
    new_reply_id,
    read_request,
    session_of,
    write_error,
    write_reply,
)
from langchain_sequrity.wire.responses.stream_reader import ResponsesReader as StreamReader
from langchain_sequrity.wire.responses.stream_writer import write_stream

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
    "session_of",
    "write_error",
    "write_input",
    "write_reply",
    "write_request",
    "write_results",
    "write_stream",
]
