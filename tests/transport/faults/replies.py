"""The faults: what a proxy writes to the client in place of a server's reply.

A fault is a function of the server's reply and of dice. It gives steps; a proxy carries them out.
"""

import gzip
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from enum import Enum
from typing import Final


class Act(Enum):
    """What a proxy does besides writing bytes."""

    FIN = "closes the connection"
    RST = "resets the connection"
    STALL = "does nothing until the client closes the connection"


@dataclass(frozen=True)
class Pause:
    """Wait.

    Attributes:
        seconds: How long.
    """

    seconds: float


@dataclass(frozen=True)
class Endless:
    """Write the same bytes until the client closes the connection.

    Attributes:
        data: The bytes.
        pause: Seconds between two writes.
    """

    data: bytes
    pause: float = 0.0


Step = bytes | Act | Pause | Endless


@dataclass(frozen=True)
class WholeReply:
    """A reply of the server.

    Attributes:
        head: Status line and header lines, with the blank line.
        framed: The body as it was sent, perhaps in chunks.
        body: The body.
        request: The request, for faults that repeat it.
        trap: The address of a server that must not be asked.
        own: The address of the proxy.
    """

    head: bytes
    framed: bytes
    body: bytes
    request: bytes = b""
    trap: str = ""
    own: str = ""

    @property
    def raw(self) -> bytes:
        """The reply as it was sent."""
        return self.head + self.framed

    @property
    def lines(self) -> list[bytes]:
        """The header lines that do not say where the body ends."""
        _, *lines = self.head.strip().split(b"\r\n")
        framing = (b"content-length:", b"transfer-encoding:", b"connection:")
        return [line for line in lines if not line.lower().startswith(framing)]

    def written(
        self,
        *added: bytes,
        body: bytes | None = None,
        status: bytes = b"200 OK",
        media: bytes = b"",
    ) -> bytes:
        """The reply with other headers, another body or another status.

        Args:
            added: Header lines; without one that frames the body, `Content-Length` is right.
            body: Another body.
            status: Another status.
            media: Another content type; `none` for no such header.
        """
        body = self.body if body is None else body
        lines = self.lines
        if media:
            lines = [line for line in lines if not line.lower().startswith(b"content-type:")]
            lines += [] if media == b"none" else [b"Content-Type: " + media]
        if not any(line.lower().startswith(_FRAMING) for line in added):
            lines.append(b"Content-Length: %d" % len(body))
        head = b"\r\n".join([b"HTTP/1.1 " + status, *lines, *added])
        return head + b"\r\n\r\n" + body


_FRAMING = (b"content-length:", b"transfer-encoding:", b"connection: close")
_UNTIL_CLOSE = b"Connection: close"
_CHUNKED = b"Transfer-Encoding: chunked"

Writer = Callable[[WholeReply, random.Random], Iterator[Step]]


@dataclass(frozen=True)
class Fault:
    """One kind of damage.

    Attributes:
        name: The name of its function.
        steps: What is written.
        asks: Whether the server gets the request.
        stalls: Whether only a time limit of the client ends the call.
        is_harmless: Whether the call must have the right answer.
        heals: Whether a whole chat must have it if it is damaged once and may be sent again.
        weight: How often it is chosen.
        is_large: Whether it writes so much that one at a time is enough.
        reads: Bytes of the request that are read at a time, with pauses; 0 for all at once.
        lies: Whether another text may be in a reply that is valid, which no client can notice.
    """

    name: str
    steps: Writer
    asks: bool = True
    stalls: bool = False
    is_harmless: bool = False
    heals: bool = False
    weight: float = 1.0
    is_large: bool = False
    reads: int = 0
    lies: bool = False


FAULTS: Final[dict[str, Fault]] = {}


def _fault(
    weight: float = 1.0,
    *,
    asks: bool = True,
    stalls: bool = False,
    is_harmless: bool = False,
    heals: bool = False,
    is_large: bool = False,
    reads: int = 0,
    lies: bool = False,
) -> Callable[[Writer], Writer]:
    def add(steps: Writer) -> Writer:
        name = steps.__name__
        FAULTS[name] = Fault(
            name, steps, asks, stalls, is_harmless, heals, weight, is_large, reads, lies
        )  # fmt: skip
        return steps

    return add


def choose(dice: random.Random) -> Fault:
    """A fault, each as often as its weight says."""
    faults = list(FAULTS.values())
    return dice.choices(faults, [fault.weight for fault in faults])[0]


def _pieces(data: bytes, dice: random.Random, most: int) -> Iterator[bytes]:
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.randint(0, most)))
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        yield data[start:stop]


# None


@_fault(4, is_harmless=True)
def nothing(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    yield from _pieces(reply.raw, dice, 3)


@_fault(is_harmless=True)
def closed_afterwards(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    yield reply.raw
    if dice.random() < 0.5:
        yield Pause(0.01)
    yield Act.FIN


@_fault(is_harmless=True)
def until_close(reply: WholeReply, _dice: random.Random) -> Iterator[Step]:
    yield reply.written(_UNTIL_CLOSE)
    yield Act.FIN


# Connections that break


@_fault(8, heals=True)
def cut(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    yield reply.raw[: dice.randrange(len(reply.raw))]
    yield dice.choice([Act.FIN, Act.RST])


@_fault(2, heals=True)
def cut_near_the_end(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    yield reply.raw[: -dice.randint(1, min(60, len(reply.raw)))]
    yield dice.choice([Act.FIN, Act.RST])


@_fault(2)
def cut_without_length(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    """Only the content tells that the reply is not complete."""
    yield reply.written(_UNTIL_CLOSE, body=reply.body[: dice.randrange(len(reply.body))])
    yield Act.FIN


@_fault(2)
def ended_early(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    """A proxy that ends an unfinished body as if it were whole."""
    if dice.random() < 0.5:
        part = reply.body[: dice.randrange(len(reply.body))]
    else:
        events = reply.body.split(b"\n\n")
        part = b"".join(event + b"\n\n" for event in events[: dice.randrange(len(events))])
    yield reply.written(_CHUNKED, body=_chunks(part, dice))


@_fault(heals=True)
def lost_reply(_reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    yield dice.choice([Act.FIN, Act.RST])


@_fault(2, asks=False, heals=True)
def lost_request(_reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    yield dice.choice([Act.FIN, Act.RST])


@_fault(0.5, asks=False, reads=20_000)
def reset_upload(_reply: WholeReply, _dice: random.Random) -> Iterator[Step]:
    yield Act.RST


@_fault(0.3, is_harmless=True, reads=5_000)
def slow_reader(reply: WholeReply, _dice: random.Random) -> Iterator[Step]:
    yield reply.raw


# Silence


@_fault(1, stalls=True)
def stall(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    yield reply.raw[: dice.choice([0, dice.randrange(len(reply.raw))])]
    yield Act.STALL


@_fault(0.5, asks=False, stalls=True)
def unanswered(_reply: WholeReply, _dice: random.Random) -> Iterator[Step]:
    yield Act.STALL


@_fault(is_harmless=True)
def trickle(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    start = dice.randrange(len(reply.raw))
    yield reply.raw[:start]
    for number in range(start, min(start + 60, len(reply.raw))):
        yield reply.raw[number : number + 1]
        yield Pause(0)
    yield reply.raw[start + 60 :]


@_fault(0.5, stalls=True)
def endless_trickle(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    places = [reply.head[:-2] + b"X-A: ", reply.written(b"Content-Length: 1000000", body=b"")]
    yield dice.choice(places)
    yield Endless(dice.choice([b" ", b"a"]), pause=0.02)


@_fault(0.5, stalls=True)
def only_comments(reply: WholeReply, _dice: random.Random) -> Iterator[Step]:
    yield reply.written(_CHUNKED, body=b"")
    yield Endless(b"7\r\n: ping\n\r\n", pause=0.02)


# Without end


@_fault(0.05, stalls=True)
def endless_informational(_reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    status = dice.choice([b"100 Continue", b"103 Early Hints", b"102 Processing"])
    yield Endless(b"HTTP/1.1 " + status + b"\r\n\r\n", pause=0.001)


@_fault(0.05, is_large=True)
def endless_head(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    yield reply.head[:-2]
    yield Endless(dice.choice([b"a" * 8_000, b"X-A: b\r\n" * 1_000]))


@_fault(0.02, stalls=True, is_large=True)
def endless_body(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    yield reply.written(_UNTIL_CLOSE, body=reply.body[: dice.randrange(len(reply.body))])
    yield Endless(dice.choice([b" ", b"a", b"\n", b"data: {}\n\n"]) * 20_000)


@_fault(0.02, stalls=True, is_large=True)
def endless_chunk_size(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    yield reply.written(_CHUNKED, body=b"")
    yield Endless(dice.choice([b"0", b"1;a", b"1\r\na\r\n"]) * 10_000)


@_fault(0.3)
def long_head(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    line = dice.choice([b"X-A: " + b"a" * 1_000_000, b"\r\n".join([b"X-A: b"] * 120_000)])
    yield reply.written(line)


# Framing


@_fault(2)
def two_lengths(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    size = len(reply.body)
    other = dice.choice([size, size - 1, size + 1, 0, 5])
    right, wrong = b"Content-Length: %d" % size, b"Content-Length: %d" % other
    lines = [right, wrong] if dice.random() < 0.5 else [wrong, right]
    if dice.random() < 0.2:
        lines = [b"Content-Length: %d, %d" % (size, other)]
    yield reply.written(*lines)
    yield Act.FIN


@_fault(2)
def wrong_length(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    size = len(reply.body)
    lengths = (dice.randrange(size), size - 1, 0, size + 1, 10**9, -1, "abc", "0x10", "", "1e3")
    yield reply.written(f"Content-Length: {dice.choice(lengths)}".encode())
    yield Act.FIN


@_fault()
def length_and_chunks(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    size = dice.choice([len(reply.body), 3, 0])
    body = dice.choice([reply.body, _chunks(reply.body, dice)])
    yield reply.written(_CHUNKED, b"Content-Length: %d" % size, body=body)
    yield Act.FIN


def _chunks(body: bytes, dice: random.Random, last: bytes = b"0\r\n\r\n") -> bytes:
    """A body in chunks of random sizes."""
    pieces = [piece for piece in _pieces(body, dice, 6) if piece]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + last


@_fault(is_harmless=True)
def other_chunks(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    last = dice.choice([b"0\r\n\r\n", b"000\r\n\r\n", b"0\r\nX-Trailer: a\r\n\r\n"])
    yield from _pieces(reply.written(_CHUNKED, body=_chunks(reply.body, dice, last)), dice, 6)


_BAD_CHUNKS = (b"zz", b"-5", b"0x5", b"fffffffffffffffff", b"7fffffffffffffff", b"", b" ", b"5 5")


@_fault(2)
def bad_chunks(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    start = dice.randrange(len(reply.body))
    first = _chunks(reply.body[:start], dice, last=b"")
    size = b"%x" % (len(reply.body) - start)
    bad = dice.choice([
        dice.choice(_BAD_CHUNKS) + b"\r\n" + reply.body[start:] + b"\r\n0\r\n\r\n",
        size + b"\r\n" + reply.body[start:] + b"0\r\n\r\n",  # no line end after the chunk
        b"3\r\n" + reply.body[start:] + b"\r\n0\r\n\r\n",  # longer than it says
        size + b"\n" + reply.body[start:] + b"\n0\n\n",
        b"0\r\nX: a\r\n" + size + b"\r\n" + reply.body[start:] + b"\r\n0\r\n\r\n",
    ])  # fmt: skip
    yield reply.written(_CHUNKED, body=first + bad)
    yield Act.FIN


@_fault()
def unknown_coding(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    coding = dice.choice([b"gzip, chunked", b"identity", b"chunked, chunked", b"xchunked", b""])
    yield reply.written(b"Transfer-Encoding: " + coding)
    yield Act.FIN


# Bytes in the wrong place


_GARBAGE = (
    b"\0",
    b"\r\n",
    b"\n\n",
    b"HTTP/1.1 ",
    b"abc",
    b"\xff\xfe",
    b"\x16\x03\x01",
    b"{}",
    b" ",
)


def _garbage(dice: random.Random) -> bytes:
    if dice.random() < 0.5:
        return dice.randbytes(dice.randint(1, 200))
    return b"".join(dice.choices(_GARBAGE, k=dice.randint(1, 5)))


@_fault(2)
def garbage_before(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    yield _garbage(dice) + reply.raw
    yield Act.FIN


@_fault(2, is_harmless=True)
def garbage_after(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    yield reply.raw + _garbage(dice)


@_fault(2)
def garbage_instead(_reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    yield _garbage(dice)
    yield dice.choice([Act.FIN, Act.RST])


@_fault(2)
def changed_bytes(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    """A head that is damaged; no client can know of another text in a body."""
    data = bytearray(reply.head)
    for _ in range(dice.randint(1, 3)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    yield bytes(data) + reply.framed
    yield Act.FIN


FOREIGN = b"This is the answer to another request."
_FOREIGN_REPLY = {
    "choices": b'{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    b'"finish_reason":"stop","message":{"role":"assistant","content":"%b"}}]}',
    "content": b'{"id":"x","type":"message","role":"assistant","model":"m","stop_reason":"end_turn",'
    b'"content":[{"type":"text","text":"%b"}],"usage":{"input_tokens":1,"output_tokens":1}}',
}


@_fault(2, is_harmless=True)
def second_reply(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    """A reply to nobody, which the next request on this connection must not get."""
    body = dice.choice([*_FOREIGN_REPLY.values()]) % FOREIGN
    yield reply.raw + reply.written(body=body, media=b"application/json")


@_fault(is_harmless=True)
def late_timeout(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    """As load balancers close an idle connection."""
    yield reply.raw
    yield Pause(dice.random() * 0.02)
    yield b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    yield Act.FIN


@_fault()
def repeated_request(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    """An error page that shows the request, with its key."""
    status = dice.choice([b"400 Bad Request", b"502 Bad Gateway", b"200 OK", b"404 Not Found"])
    media = dice.choice([b"text/plain", b"text/html", b"application/json"])
    body = reply.request[:3_000]
    yield dice.choice([reply.written(status=status, body=body, media=media), reply.request[:3_000]])
    yield Act.FIN


# Statuses


_RETRY_AFTER = (
    b"0", b"0.01", b"1", b"3600", b"-1", b"nan", b"inf", b"1e999", b"9" * 400, b"soon", b"", b"1, 2",
    b"Wed, 21 Oct 2015 07:28:00 GMT", b"Fri, 31 Dec 9999 23:59:59 GMT", b"Wed, 99 Foo 0000", b"\xff",
    b"Mon, 01 Jan 0001 00:00:00 +2359",
)  # fmt: skip
_BUSY = (
    b"429 Too Many Requests", b"503 Service Unavailable", b"529 Overloaded", b"500 Oops",
    b"502 Bad Gateway", b"504 Gateway Timeout", b"408 Request Timeout", b"409 Conflict", b"599 X",
)  # fmt: skip
_ERROR_BODIES = (
    b"", b"{}", b"[]", b"null", b'"busy"', b"busy", b'{"error": {"message": "busy"}}', b"\xff\xfe",
    b'{"detail": [{"loc": 1}]}', b'{"type": "error", "error": {"type": "overloaded_error"}}',
    b'{"error": "busy"}', b'{"error": {"message": {"a": 1}, "type": 3, "code": []}}', b"[" * 5_000,
    b"<html><h1>Busy</h1></html>", b'{"message": null}', b"1" * 5_000, b'{"detail": "busy"}',
)  # fmt: skip


def _busy(reply: WholeReply, dice: random.Random) -> bytes:
    added = []
    if dice.random() < 0.6:
        soon = formatdate(dice.choice([0, 2e9]), usegmt=True).encode()
        added = [b"Retry-After: " + dice.choice([*_RETRY_AFTER, soon])]
    if dice.random() < 0.1:
        added.append(b"Retry-After-Ms: " + dice.choice(_RETRY_AFTER))
    if dice.random() < 0.1:
        added.append(b"X-Should-Retry: " + dice.choice([b"false", b"true"]))
    media = dice.choice([b"application/json", b"text/html", b"none"])
    body, status = dice.choice(_ERROR_BODIES), dice.choice(_BUSY)
    return reply.written(*added, status=status, body=body, media=media)


@_fault(6, asks=False)
def busy(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    yield _busy(reply, dice)


@_fault(2)
def busy_afterwards(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    """The server has answered, and a proxy says that it has not."""
    yield _busy(reply, dice)


@_fault(asks=False, heals=True)
def busy_for_a_moment(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    status = dice.choice([b"429 Too Many Requests", b"503 Service Unavailable", b"529 Overloaded"])
    yield reply.written(b"Retry-After: 0", status=status, body=b"{}", media=b"application/json")


@_fault()
def other_status(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    status = dice.choice([
        b"204 No Content", b"205 Reset Content", b"206 Partial Content", b"304 Not Modified",
        b"101 Switching Protocols", b"999 X", b"099 X", b"1000 X", b"600 X", b"-1 X", b"OK", b"",
    ])  # fmt: skip
    yield reply.written(status=status, body=dice.choice([b"", b"{}", b"a"]))
    yield Act.FIN


@_fault(2)
def redirect(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    status = dice.choice(
        [b"301 Moved", b"302 Found", b"303 See", b"307 Temporary", b"308 Permanent"]
    )
    target = dice.choice([
        reply.trap, reply.own, "/", "//", "http://[", "javascript:x", "", "\x7f", "http://xn--",
        f"{reply.own}/control/chat/v1/chat/completions", "a" * 5_000, "http://a:99999/",
    ])  # fmt: skip
    yield reply.written(f"Location: {target}".encode(), status=status, body=b"")


# Contents


@_fault()
def web_page(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    media = dice.choice([b"text/html", b"application/json", b"text/event-stream", b"none"])
    page = dice.choice([b"<!doctype html><p>Sign in", b"", b"data: <p>\n\n", b"null", b"[]", b"{}"])
    yield reply.written(body=page, media=media)


@_fault(lies=True)
def mark_before(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    """A byte order mark."""
    yield reply.written(body=dice.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\0"]) + reply.body)


@_fault(2)
def other_type(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    media = dice.choice([
        b"none", b"text/plain", b"text/event-stream", b"application/json", b"application/octet-stream",
        b"application/json; charset=utf-16", b"text/event-stream; charset=latin-1", b"\xff", b";", b"a/b",
        b"TEXT/EVENT-STREAM", b"application/json, text/event-stream",
    ])  # fmt: skip
    yield reply.written(media=media)


@_fault()
def compressed(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    coding = dice.choice([b"gzip", b"br", b"deflate", b"zstd", b"gzip, identity", b"GZIP", b"x"])
    body = dice.choice(
        [reply.body, gzip.compress(reply.body, 1), gzip.compress(reply.body, 1)[:-9]]
    )
    yield reply.written(b"Content-Encoding: " + coding, body=body)


@_fault(lies=True)
def no_text(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    """A byte that is not UTF-8, or a control character, in the middle."""
    at = dice.randrange(len(reply.body))
    bad = dice.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\0", b"\x80"])
    yield reply.written(body=reply.body[:at] + bad + reply.body[at:])


@_fault(lies=True)
def damaged_json(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    """A field that the format needs is missing, or has another type."""
    fields = [match.span(1) for match in re.finditer(rb'"(\w+)":', reply.body)]
    values = [match.span(1) for match in re.finditer(rb'":("[^"]*"|\[|\{|\d+)', reply.body)]
    if not fields or not values:
        yield reply.raw
        return
    start, stop = dice.choice(fields) if dice.random() < 0.3 else dice.choice(values)
    new = dice.choice(
        [b"x", b"null", b"1", b"[]", b"{}", b'"', b"true", b"1e999", b"NaN", b"-1", b"[[[["]
    )
    yield reply.written(body=reply.body[:start] + new + reply.body[stop:])


@_fault(is_harmless=True)
def heads_before(reply: WholeReply, dice: random.Random) -> Iterator[Step]:
    heads = [b"100 Continue\r\n", b"103 Early Hints\r\nLink: </a>\r\n", b"102 Processing\r\n"]
    for head in dice.choices(heads, k=dice.randint(1, 4)):
        yield b"HTTP/1.1 " + head + b"\r\n"
    yield reply.raw
