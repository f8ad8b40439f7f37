"""What `file_blocker` blocks and what it leaves."""

import base64
import random
import textwrap
from typing import Any

import pytest

from tests.local.screening.screens import redacted, screen

FILES = screen("file_blocker")
MARK = "[FILE BLOCKED]"

BYTES = random.Random(4).randbytes(600)  # noqa: S311 - any bytes will do
BASE64 = base64.b64encode(BYTES).decode()
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + BYTES[:16]).decode()

BLOCKS: list[tuple[Any, Any]] = [
    (
        {"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": MARK, "detail": "low"}},
    ),
    (
        {"type": "image_url", "image_url": "https://x.example/a.png"},
        {"type": "image_url", "image_url": MARK},
    ),
    (
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": MARK, "format": "wav"}},
    ),
    (
        {"type": "file", "file": {"file_data": "QUJD", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": MARK, "filename": "a.pdf"}},
    ),
    ({"type": "input_file", "file_id": "file-1"}, {"type": "input_file", "file_id": MARK}),
    (
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": MARK}},
    ),
    (
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "secret"}]}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": MARK}]}},
    ),
    (
        {"type": "audio", "base64": "QUJD", "mime_type": "audio/wav"},
        {"type": "audio", "base64": MARK, "mime_type": "audio/wav"},
    ),
    (
        {"inline_data": {"mime_type": "image/png", "data": "QUJD"}},
        {"inline_data": {"mime_type": "image/png", "data": MARK}},
    ),
    (
        {"type": "resource", "resource": {"uri": "x://a", "mimeType": "a/b", "blob": "QUJD"}},
        {"type": "resource", "resource": {"uri": MARK, "mimeType": "a/b", "blob": MARK}},
    ),
]  # fmt: skip

NO_BLOCKS = [
    {"type": "file", "name": "report.pdf", "size": 3},
    {"type": "text", "text": "hello", "data": "x"},
    {"type": ["image"], "data": "x"},
    {"type": None, "url": "x"},
    {"url": "/a", "name": "b"},
    {"inline_data": "plain"},
]

TEXTS = [
    ("data URL", "data:image/png;base64,QUJD"),
    ("data URL without a type", "data:,secret"),
    ("file URL", "file:///etc/passwd"),
    ("sandbox link", "sandbox:/mnt/data/a.csv"),
    ("attachment", "attachment://a.png"),
    ("blob URL", "blob:https://x.example/1"),
    ("base64", BASE64),
    ("base64 in lines", "\n".join(textwrap.wrap(BASE64, 76))),
    ("base64 in lines, inside JSON", "\\n".join(textwrap.wrap(BASE64, 64))),
    ("base64 for URLs", base64.urlsafe_b64encode(BYTES).decode()),
    ("short, but a PNG", PNG),
    ("hexadecimal", BYTES.hex()),
    ("full width", "\uff44\uff41\uff54\uff41\uff1aimage/png;base64,QUJD"),
]

PLAIN = [
    "/home/ann/report.pdf",
    "report.pdf",
    "a file: report",
    "the attachment: see below",
    "https://example.com/a.png",
    "d1f0e8f1c0b0c2a3d4e5f60718293a4b5c6d7e8f",
    "123e4567-e89b-12d3-a456-426614174000\n" * 20,
    "d1f0e8f1c0b0c2a3d4e5f60718293a4b5c6d7e8f\n" * 20,
    "a" * 2000,
    "ACGT" * 500,
    "-" * 500,
    "word " * 500,
    BASE64[:200],
]


@pytest.mark.parametrize(("block", "expected"), BLOCKS)
def test_a_file_block_keeps_its_structure_and_loses_its_content(block: Any, expected: Any) -> None:
    assert redacted(FILES, [block, "x"]) == [expected, "x"]


@pytest.mark.parametrize("value", NO_BLOCKS)
def test_an_object_without_file_content_stays(value: Any) -> None:
    assert redacted(FILES, value) == value


@pytest.mark.parametrize("text", [text for _, text in TEXTS], ids=[name for name, _ in TEXTS])
def test_file_content_within_a_text_is_blocked(text: str) -> None:
    assert redacted(FILES, f"Here: {text} !") == f"Here: {MARK} !"


@pytest.mark.parametrize("text", PLAIN)
def test_text_that_is_not_file_content_stays(text: str) -> None:
    assert redacted(FILES, text) == text


def test_the_url_blocker_leaves_a_file_block() -> None:
    block = {"type": "image", "base64": "QUJD"}
    assert redacted(screen("url_blocker"), block) == block
