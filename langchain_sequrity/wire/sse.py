"""Decoding and encoding of server-sent events, without I/O.

The decoder takes bytes in pieces of any size. It first converts line ends to LF (CR, LF and CRLF
are legal, and a CRLF may be cut in two). A blank line ends an event. Bytes are untrusted: an event
has a maximum size and must be UTF-8.
"""

from langchain_sequrity.errors import BadReply
from langchain_sequrity.wire.exchange import MAX_EVENT_BYTES, Event

_BOM = b"\xef\xbb\xbf"
_END = b"\n\n"


class SSEDecoder:
    r"""Decodes an event stream. Events do not depend on how the bytes are cut into pieces.

    Example:
        ```python
        from langchain_sequrity.wire.sse import SSEDecoder

        decoder = SSEDecoder()
        assert decoder.feed(b"data: he") == []
        assert decoder.feed(b"llo\n\n")[0].data == "hello"
        ```
    """

    __slots__ = ("_at_start", "_buffer", "_searched", "_swallow_lf")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0  # before this offset no event ends
        self._at_start = True
        self._swallow_lf = False  # the last piece ended in CR, so a following LF belongs to it

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes and return the events they complete.

        Args:
            data: Bytes from the network.

        Returns:
            Events in order, often none or one. Comments, fields other than `event` and `data`, and
            events without data are skipped.

        Raises:
            BadReply: If an event is not UTF-8 or larger than 16 MiB.
        """
        buffer = self._buffer
        buffer += self._with_lf(data)
        if buffer.find(_END, self._searched) < 0:
            self._searched = max(0, len(buffer) - 1)
            if len(buffer) > MAX_EVENT_BYTES:
                msg = f"The stream sent an event of more than {MAX_EVENT_BYTES} bytes."
                raise BadReply(msg)
            return []
        *blocks, rest = bytes(buffer).split(_END)
        if self._at_start:
            self._at_start = False
            blocks[0] = blocks[0].removeprefix(_BOM)
        self._buffer = bytearray(rest)
        self._searched = max(0, len(rest) - 1)
        return [event for block in blocks if block and (event := _event(block)) is not None]

    def _with_lf(self, data: bytes) -> bytes:
        if self._swallow_lf and data:
            self._swallow_lf = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._swallow_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data


def _event(block: bytes) -> Event | None:
    try:
        text = block.decode()
    except UnicodeDecodeError:
        msg = "The stream sent an event that is not valid UTF-8."
        raise BadReply(msg) from None
    if text.startswith("data: ") and "\n" not in text:
        return Event("", text[6:])
    return _fields(text)


def _fields(text: str) -> Event | None:
    name = ""
    data: list[str] = []
    for line in text.split("\n"):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
    return Event(name, "\n".join(data)) if data else None


def write_event(data: str, name: str = "") -> bytes:
    r"""Write one event.

    Args:
        data: The text; each line becomes a `data` line.
        name: The event's name, without line breaks.

    Returns:
        The bytes with the blank line.

    Example:
        ```python
        from langchain_sequrity.wire.sse import write_event

        assert write_event("{}", "ping") == b"event: ping\ndata: {}\n\n"
        ```
    """
    head = f"event: {name}\n" if name else ""
    body = data.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\ndata: ")
    return f"{head}data: {body}\n\n".encode()
