"""Requests that two parsers could read differently are 400 and end the connection."""

import contextlib
import json
import socket
import time
from urllib.parse import urlsplit

import pytest

from tests.local.api import CHAT, WAIT, Api

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode()
CHUNKED = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"
LENGTH = f"Content-Length: {len(BODY)}"
CODING = "Transfer-Encoding: chunked"
# The next request on the connection. It must not be answered after an ambiguous request.
NEXT = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def exchange(api: Api, data: bytes) -> bytes:
    """Send bytes and return all that the server sends until it closes."""
    address = urlsplit(api.server.base_url)
    with socket.create_connection((address.hostname, address.port), timeout=WAIT) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def open_after(api: Api, data: bytes) -> bool:
    """Whether the server keeps the connection after a request and answers another one."""
    address = urlsplit(api.server.base_url)
    with socket.create_connection((address.hostname, address.port), timeout=WAIT) as connection:
        connection.sendall(data)
        received = b""
        try:
            while (piece := connection.recv(65536)) and received.count(b"HTTP/1.1 ") < 2:
                received += piece
                if b"\r\n\r\n" in received and NEXT not in data:
                    connection.sendall(NEXT)
                    data += NEXT
        except ConnectionError:
            return False
        return received.count(b"HTTP/1.1 ") > 1


def head(*lines: str, version: str = "HTTP/1.1", end: str = "\r\n") -> bytes:
    first = f"POST {CHAT} {version}"
    common = ("Host: localhost", "Authorization: Bearer k", "Content-Type: application/json")
    return end.join((first, *common, *lines, "", "")).encode("latin-1")


UNCLEAR: dict[str, bytes] = {
    "both headers": head(LENGTH, CODING) + CHUNKED,
    "both headers, the other way round": head(CODING, LENGTH) + CHUNKED,
    "both headers, of a body by its length": head(LENGTH, CODING) + BODY,
    "both headers, no body": head("Content-Length: 0", CODING) + b"0\r\n\r\n",
    "both headers in other letters": head(LENGTH.upper(), CODING.upper()) + CHUNKED,
    "two lengths": head(LENGTH, f"Content-Length: {len(BODY) + 5}") + BODY,
    "the same length twice": head(LENGTH, LENGTH) + BODY,
    "two lengths in one line": head(f"{LENGTH}, {len(BODY)}") + BODY,
    "a length with a sign": head(f"Content-Length: +{len(BODY)}") + BODY,
    "a negative length": head("Content-Length: -1") + BODY,
    "a length in hexadecimal": head(f"Content-Length: {len(BODY):#x}") + BODY,
    "a length with a fraction": head(f"Content-Length: {len(BODY)}.0") + BODY,
    "a length with a space in it": head(f"Content-Length: {len(BODY)} 0") + BODY,
    "a length with an underscore": head("Content-Length: 1_0") + BODY,
    "a length of other digits": head("Content-Length: \xb2") + BODY,
    "an empty length": head("Content-Length:") + BODY,
    "a length beyond all size": head("Content-Length: " + "9" * 30) + BODY,
    "identity and chunked": head("Transfer-Encoding: identity, chunked") + CHUNKED,
    "chunked and identity": head("Transfer-Encoding: chunked, identity") + CHUNKED,
    "identity alone": head("Transfer-Encoding: identity", LENGTH) + BODY,
    "chunked twice": head("Transfer-Encoding: chunked, chunked") + CHUNKED,
    "two lines of codings": head(CODING, CODING) + CHUNKED,
    "two lines, the second identity": head(CODING, "Transfer-Encoding: identity") + CHUNKED,
    "gzip and chunked": head("Transfer-Encoding: gzip, chunked") + CHUNKED,
    "another coding": head("Transfer-Encoding: xchunked") + CHUNKED,
    "a coding in quotes": head('Transfer-Encoding: "chunked"') + CHUNKED,
    "a coding with a parameter": head("Transfer-Encoding: chunked;q=1") + CHUNKED,
    "a coding after a vertical tab": head("Transfer-Encoding: \x0bchunked") + CHUNKED,
    "an empty coding": head("Transfer-Encoding:", LENGTH) + BODY,
    "a space before the colon": head("Transfer-Encoding : chunked") + CHUNKED,
    "a space before the colon of a length": head(f"Content-Length : {len(BODY)}") + BODY,
    "a space before the name": head(f" {LENGTH}") + BODY,
    "a header that goes on": head(LENGTH, "X-Other: a", f" {CODING}") + BODY,
    "a coding that goes on": head("Transfer-Encoding:", " chunked") + CHUNKED,
    "a name with a control character": head("Transfer-Encoding\x00: chunked") + CHUNKED,
    "chunked in HTTP/1.0": head(CODING, version="HTTP/1.0") + CHUNKED,
    "line feeds alone": head(LENGTH, end="\n") + BODY,
    "a line feed alone in one place": head(LENGTH + "\nX-Other: a") + BODY,
    "a carriage return alone": head(LENGTH + "\rX-Other: a") + BODY,
    "a coding after a carriage return": head(f"X-Other: a\r{CODING}", LENGTH) + BODY,
    "an end of the head by a line feed": head(LENGTH)[:-2] + b"\n" + BODY,
    "a size of a chunk with a sign": head(CODING) + b"+5\r\nhello\r\n0\r\n\r\n",
    "a size of a chunk with 0x": head(CODING) + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size of a chunk that is too small": head(CODING) + b"3\r\nhello\r\n0\r\n\r\n",
    "a size of a chunk beyond all size": head(CODING) + b"f" * 30 + b"\r\nhello\r\n0\r\n\r\n",
    "no size of a chunk": head(CODING) + b"\r\nhello\r\n0\r\n\r\n",
    "a negative size of a chunk": head(CODING) + b"-1\r\nhello\r\n0\r\n\r\n",
    "too many headers": head(LENGTH, *("X-Other: a" for _ in range(200))) + BODY,
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_an_ambiguous_request_is_400_and_ends_the_connection(name: str, api: Api) -> None:
    received = exchange(api, UNCLEAR[name] + NEXT)
    start, _, rest = received.partition(b"\r\n")
    assert start == b"HTTP/1.1 400 Bad Request", received
    assert b"connection: close" in rest.lower()
    assert received.count(b"HTTP/1.1 ") == 1, "the next request was answered"
    assert json.loads(rest.partition(b"\r\n\r\n")[2])["detail"]


@pytest.mark.parametrize("name", UNCLEAR)
def test_the_server_closes_after_an_ambiguous_request_even_if_the_client_does_not(
    name: str, api: Api
) -> None:
    assert not open_after(api, UNCLEAR[name])


@pytest.mark.parametrize("name", ["both headers", "the same length twice", "line feeds alone"])
def test_an_ambiguous_second_request_on_a_connection_is_400(name: str, api: Api) -> None:
    received = exchange(api, head(LENGTH) + BODY + UNCLEAR[name] + NEXT)
    assert received.count(b"HTTP/1.1 200") == 1
    assert received.count(b"HTTP/1.1 400") == 1
    assert received.count(b"HTTP/1.1 ") == 2


def test_an_ambiguous_request_after_a_refused_one_is_not_answered_with_200(
    api: Api,
) -> None:
    unread = head(LENGTH).replace(b"Bearer k", b"Basic k") + BODY
    received = exchange(api, unread + UNCLEAR["both headers"] + NEXT)
    assert received.count(b"HTTP/1.1 401") == 1
    assert received.count(b"HTTP/1.1 ") <= 2
    assert b"HTTP/1.1 200" not in received


@pytest.mark.parametrize(
    "data",
    [
        head(LENGTH) + BODY,
        head(CODING) + CHUNKED,
        head("transfer-encoding:\tChunked ") + CHUNKED,
        head(CODING) + CHUNKED.replace(b"\r\n", b";name=value\r\n", 1),
        head(f"Content-Length:{len(BODY)}") + BODY,
    ],
    ids=range(5),
)
def test_an_unambiguous_request_is_answered_and_keeps_its_connection(data: bytes, api: Api) -> None:
    received = exchange(api, data + NEXT)
    assert received.count(b"HTTP/1.1 200") == 2, received
    assert open_after(api, data)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_an_ambiguous_head_is_400_even_if_it_arrives_in_pieces(size: int, api: Api) -> None:
    address = urlsplit(api.server.base_url)
    data = head(LENGTH, CODING)  # without a body, as the server closes at the end of the head
    with socket.create_connection((address.hostname, address.port), timeout=WAIT) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(data), size):
            connection.sendall(data[start : start + size])
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "lines",
    [("X-A: " + "a" * 300_000,), ("X-A: " + "a" * 3_000,) * 100],
    ids=["one line", "many lines"],
)
@pytest.mark.parametrize("piece", [1_000_000, 65_000, 30_000])
@pytest.mark.parametrize("ended", [True, False], ids=["in full", "without its end"])
def test_a_head_that_is_too_long_is_431_whole_or_in_pieces(
    api: Api, lines: tuple[str, ...], piece: int, ended: bool
) -> None:
    data = head(*lines) if ended else head(*lines)[:-4]
    address = urlsplit(api.server.base_url)
    with socket.create_connection((address.hostname, address.port), timeout=WAIT) as connection:
        with contextlib.suppress(ConnectionError):  # the server may refuse early
            for start in range(0, len(data), piece):
                connection.sendall(data[start : start + piece])
                time.sleep(0.02)
        reply = b""
        with contextlib.suppress(ConnectionError):
            while received := connection.recv(65_536):
                reply += received
    assert reply.startswith(b"HTTP/1.1 431 ")
    assert b"longer than 262144 bytes" in reply
