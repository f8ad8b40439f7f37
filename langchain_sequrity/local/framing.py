"""Strict reading of HTTP/1.1: which requests are too ambiguous, or too costly, to be read.

If a request has two framing headers, a proxy may use one of them and this server the other. Both
would then see different ends of the request: request smuggling (RFC 9112, section 11.2). h11
refuses most such requests, but it accepts `Transfer-Encoding` beside `Content-Length`, and bare
line feeds as line ends. So the server checks a head before h11 reads it. A refused request gets 400
(431 if its head is too long), and the connection is closed, because nobody knows where the next
request would begin.
"""

import re
from collections.abc import Sequence
from typing import Any, NoReturn

import h11

from langchain_sequrity.local.limits import ServerLimits
from langchain_sequrity.local.refusals import how_to_raise

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CODING = re.compile(rb"chunked", re.IGNORECASE)
_V11 = b" HTTP/1.1"
_FOLDED = (b" ", b"\t")
# A chunk takes 7 µs, however small it is. So many are as cheap as the smallest requests with as
# many bytes; clients that write JSON in pieces need some thousands.
_FREE_CHUNKS = 10_000
_LEAST_CHUNK = 64  # bytes on average, if there are more chunks


class StrictConnection(h11.Connection):
    """An HTTP connection that is read strictly.

    Args:
        limits: The limits of the server.

    Attributes:
        refusal: Status and text of the reply to a request that was refused.
        bytes_written: Bytes of all replies so far, as they were handed to the transport.
    """

    def __init__(self, limits: ServerLimits) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self._limits = limits
        self.refusal = (400, "The request is not valid HTTP/1.1.")
        self.bytes_written = 0
        self._chunks = self._chunk_bytes = 0  # of the current body
        self._unsent_head = b""

    @property
    def unparsed(self) -> int:
        """Bytes that were received and belong to no event yet: half a head, or a next request."""
        return len(self.trailing_data[0])

    def next_event(self) -> Any:
        """The next event; raises `h11.RemoteProtocolError` for a request that is refused."""
        if self.their_state is h11.IDLE:
            self._check_head(self.trailing_data[0])
            self._chunks = self._chunk_bytes = 0
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._check_chunks(event)
        return event

    def send(self, event: Any) -> Any:
        """The bytes of an event, which the caller writes to the transport.

        The head of a reply waits for the event after it, so both are written at once: each write
        wakes the client.
        """
        written = super().send(event)
        if isinstance(event, h11.Response):
            self._unsent_head = written
            return b""
        if self._unsent_head:
            written, self._unsent_head = self._unsent_head + (written or b""), b""
        self.bytes_written += len(written or b"")
        return written

    def _check_head(self, data: bytes) -> None:
        end = _HEAD_END.search(data)
        head = data[: end.end()] if end else data
        # h11 checks only incomplete heads, so its result would depend on the packets
        if len(head) > self._limits.head_bytes:
            self._refuse(
                431,
                f"The head of the request is longer than {self._limits.head_bytes} bytes. "
                f"{how_to_raise('head_bytes')}",
            )
        problem = _problem(head, self._limits.header_lines) if end else ""
        if problem:
            self._refuse(400, f"The request is ambiguous HTTP. {problem}")

    def _check_chunks(self, data: h11.Data) -> None:
        self._chunks += data.chunk_start  # never in a body with `Content-Length`
        self._chunk_bytes += len(data.data)
        if self._chunks > _FREE_CHUNKS and self._chunk_bytes < _LEAST_CHUNK * self._chunks:
            self._refuse(
                400,
                f"The body has more than {_FREE_CHUNKS} chunks, with fewer than {_LEAST_CHUNK} "
                "bytes on average. Send larger chunks, or the body with `Content-Length`.",
            )

    def _refuse(self, status: int, detail: str) -> NoReturn:
        self.refusal = status, detail
        raise h11.RemoteProtocolError(detail)


def _problem(head: bytes, most_lines: int) -> str:
    """The first problem in a request's head, or an empty text."""
    request, *lines = head.strip(b"\r\n").split(b"\r\n")
    lengths, codings = (_values(lines, name) for name in (b"content-length", b"transfer-encoding"))
    problems = {
        "Not all of its lines end in CR LF.": _BARE_LINE_END.search(head),
        f"It has more than {most_lines} header lines. {how_to_raise('header_lines')}": (
            len(lines) > most_lines
        ),
        "A header continues in the next line.": any(line.startswith(_FOLDED) for line in lines),
        "It has both `Content-Length` and `Transfer-Encoding`.": lengths and codings,
        "Its `Content-Length` is not one number.": lengths and not _is_one(_LENGTH, lengths),
        "Its `Transfer-Encoding` is not `chunked`.": codings and not _is_one(_CODING, codings),
        "It has a `Transfer-Encoding` but is not HTTP/1.1.": codings and not request.endswith(_V11),
    }
    return next((problem for problem, applies in problems.items() if applies), "")


def _values(lines: Sequence[bytes], header: bytes) -> list[bytes]:
    pairs = (line.partition(b":") for line in lines)
    return [value.strip(b" \t") for name, _, value in pairs if name.strip().lower() == header]


def _is_one(form: re.Pattern[bytes], values: Sequence[bytes]) -> bool:
    return len(values) == 1 and form.fullmatch(values[0]) is not None
