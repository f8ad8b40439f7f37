"""Event streams are decoded by the rules of the format, however the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_sequrity.errors import BadReply
from langchain_sequrity.wire.exchange import (
    MAX_EVENT_BYTES,
    Event,
)
from langchain_sequrity.wire.sse import SSEDecoder, write_event

CASES = [
    ("one line", b"data: hello\n\n", [Event("", "hello")]),
    ("no space after the colon", b"data:hello\n\n", [Event("", "hello")]),
    ("only one space is taken", b"data:  hello\n\n", [Event("", " hello")]),
    ("several lines", b"data: a\ndata: b\n\n", [Event("", "a\nb")]),
    ("a name", b"event: ping\ndata: {}\n\n", [Event("ping", "{}")]),
    ("the name of one event does not stay", b"event: x\ndata: 1\n\ndata: 2\n\n",
     [Event("x", "1"), Event("", "2")]),
    ("CRLF", b"data: a\r\ndata: b\r\n\r\n", [Event("", "a\nb")]),
    ("CR", b"data: a\rdata: b\r\r", [Event("", "a\nb")]),
    ("mixed ends", b"data: a\r\ndata: b\n\rdata: c\n\n", [Event("", "a\nb"), Event("", "c")]),
    ("comments", b": hi\n\n: there\ndata: a\n\n", [Event("", "a")]),
    ("other fields", b"id: 7\nretry: 10\ndata: a\n\n", [Event("", "a")]),
    ("a field without a colon", b"data\n\n", [Event("", "")]),
    ("empty data", b"data:\n\n", [Event("", "")]),
    ("an event without data", b"event: x\n\ndata: a\n\n", [Event("", "a")]),
    ("many blank lines", b"data: a\n\n\n\n\ndata: b\n\n", [Event("", "a"), Event("", "b")]),
    ("a byte order mark", b"\xef\xbb\xbfdata: a\n\n", [Event("", "a")]),
    ("a byte order mark in the middle", b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [Event("", "a")]),
    ("a colon in the data", b'data: {"a": 1}\n\n', [Event("", '{"a": 1}')]),
    ("what is not finished is not an event", b"data: a\n\ndata: b\n", [Event("", "a")]),
    ("unicode", "data: 水 🦊\n\n".encode(), [Event("", "水 🦊")]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("stream", "events"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_stream_has_the_same_events_however_it_is_cut(stream: bytes, events: list[Event]) -> None:
    assert SSEDecoder().feed(stream) == events
    for size in range(1, len(stream)):
        decoder = SSEDecoder()
        pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
        assert [event for piece in pieces for event in decoder.feed(piece)] == events


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_any_bytes_have_the_same_events_at_any_cuts(stream: bytes, cuts: list[int]) -> None:
    def read(pieces: list[bytes]) -> object:
        decoder = SSEDecoder()
        try:
            return [event for piece in pieces for event in decoder.feed(piece)]
        except BadReply:
            return "bad"

    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    assert read(pieces) == read([stream])


@given(st.text(max_size=100), st.from_regex(r"[a-z.]{0,9}", fullmatch=True))
def test_a_written_event_is_read_as_the_same_event(data: str, name: str) -> None:
    expected = data.replace("\r\n", "\n").replace("\r", "\n")
    assert SSEDecoder().feed(write_event(data, name)) == [Event(name, expected)]


def test_invalid_utf8_is_a_bad_reply() -> None:
    with pytest.raises(BadReply, match="UTF-8"):
        SSEDecoder().feed(b"data: \xff\n\n")


def test_an_endless_event_is_a_bad_reply_before_it_fills_the_memory() -> None:
    decoder = SSEDecoder()
    piece = b"x" * (MAX_EVENT_BYTES // 4)
    for _ in range(4):
        assert decoder.feed(piece) == []
    with pytest.raises(BadReply, match="more than"):
        decoder.feed(b"x")
