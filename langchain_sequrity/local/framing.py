"""HTTP as it is written: a request whose end two readers could see at two places ends here.

A proxy before this server may take one of two framing headers and this server the other; what comes
after would then be another request, with the proxy's blessing (RFC 9112, section 11.2). h11 refuses
most of that, but takes one of both headers and drops the other, and takes line feeds alone as ends
of lines. So the head is looked at before h11 reads it. Whatever is refused, here or there, is 400
(431 for a head that is too long), and the connection is closed: nobody knows where the next request
would begin.
"""

import re
from collections.abc import Sequence
from typing import Any

import h11
import orjson
from uvicorn.protocols.http.h11_impl import H11Protocol

from langchain_sequrity.local import limits

_NOT_HTTP = "The request is not valid HTTP/1.1."
_TOO_LONG = f"The head of the request is longer than {limits.HEADERS} bytes."
_END = re.compile(rb"\r?\n\r?\n")
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CODING = re.compile(rb"chunked", re.IGNORECASE)
_REASONS = {400: b"Bad Request", 431: b"Request Header Fields Too Large"}
_V11 = b" HTTP/1.1"
_FOLDED = (b" ", b"\t")


class _Connection(h11.Connection):
    """What is said on one connection, read strictly.

    Attributes:
        problem: What is wrong with the request that was refused last.
        is_too_long: Whether its head is too long.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=limits.HEADERS)
        self.problem = ""
        self.is_too_long = False

    def next_event(self) -> Any:
        """The next event; raises `h11.RemoteProtocolError` for what is not clear."""
        if self.their_state is h11.IDLE:
            data, _ = self.trailing_data
            end = _END.search(data)
            # h11 looks at a head that has not come in full alone: how it came would decide
            self.is_too_long = (end.end() if end else len(data)) > limits.HEADERS
            if self.is_too_long:
                raise h11.RemoteProtocolError(_TOO_LONG)
            self.problem = _problem(data[: end.end()]) if end else ""
            if self.problem:
                raise h11.RemoteProtocolError(self.problem)
        return super().next_event()


def _problem(head: bytes) -> str:
    """What is unclear in a request's head."""
    request, *lines = head.strip(b"\r\n").split(b"\r\n")
    lengths, codings = (_values(lines, name) for name in (b"content-length", b"transfer-encoding"))
    problems = {
        "Its lines do not all end in CR LF.": _BARE.search(head),
        f"It has more than {limits.HEADER_LINES} header lines.": len(lines) > limits.HEADER_LINES,
        "A header goes on in the next line.": any(line.startswith(_FOLDED) for line in lines),
        "It has both `Content-Length` and `Transfer-Encoding`.": lengths and codings,
        "Its `Content-Length` is not one number.": lengths and not _is_one(_LENGTH, lengths),
        "Its `Transfer-Encoding` is not `chunked`.": codings and not _is_one(_CODING, codings),
        "It has a `Transfer-Encoding` but is not HTTP/1.1.": codings and not request.endswith(_V11),
    }
    return next((problem for problem, is_there in problems.items() if is_there), "")


def _values(lines: Sequence[bytes], wanted: bytes) -> list[bytes]:
    pairs = (line.partition(b":") for line in lines)
    return [value.strip(b" \t") for name, _, value in pairs if name.strip().lower() == wanted]


def _is_one(form: re.Pattern[bytes], values: Sequence[bytes]) -> bool:
    return len(values) == 1 and form.fullmatch(values[0]) is not None


class StrictProtocol(H11Protocol):
    """uvicorn's protocol over a strict connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn: _Connection = _Connection()

    def send_400_response(self, msg: str) -> None:
        """Answer in the form of all errors, and close the connection."""
        del msg  # uvicorn's own, always the same
        problem, is_too_long = self.conn.problem, self.conn.is_too_long
        unclear = f"The request is not clear HTTP. {problem}" if problem else _NOT_HTTP
        status, detail = (431, _TOO_LONG) if is_too_long else (400, unclear)
        body = orjson.dumps({"detail": detail, "message": detail})
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        head = h11.Response(status_code=status, headers=headers, reason=_REASONS[status])
        events = (head, h11.Data(data=body), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()
