"""`file_blocker`: the content of files, and references that stand for it.

Found are:

- in blocks of chat formats that hold or point to an image, a sound, a video or a document, the
  texts that do so;
- `data:` URLs, and URLs that only whoever runs the conversation can resolve: `file:`, `sandbox:`,
  `attachment:`, `blob:`;
- base64 of 256 characters or more, in one run or broken into lines as mail does it; from 24
  characters on if it begins as a known type of file does;
- 512 hexadecimal digits or more in one run.

A path or a file name says where a file is, not what is in it; both stay.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from langchain_sequrity.local.screening.redaction import Hit
from langchain_sequrity.local.screening.urls import DATA_URL

# Keys beside or under a payload whose texts say what it is.
DESCRIBING: Final = frozenset(
    {
        "detail",
        "filename",
        "format",
        "media_type",
        "mimeType",
        "mime_type",
        "name",
        "source_type",
        "title",
        "type",
    }
)
_KINDS = frozenset(
    {
        "audio",
        "document",
        "file",
        "image",
        "image_url",
        "input_audio",
        "input_file",
        "input_image",
        "media",
        "resource",
        "resource_link",
        "video",
    }
)
# A listing of a folder has entries of the type `file` too; without one of these it is no content.
PAYLOADS: Final = frozenset(
    {
        "audio",
        "base64",
        "blob",
        "bytes",
        "data",
        "file",
        "file_data",
        "file_id",
        "file_url",
        "fileData",
        "image_url",
        "inlineData",
        "inline_data",
        "input_audio",
        "resource",
        "source",
        "uri",
        "url",
    }
)
_UNTYPED = frozenset({"inline_data", "inlineData", "file_data", "fileData"})
_MIME = frozenset({"media_type", "mimeType", "mime_type"})

_REFERENCE = re.compile(
    rf"(?:{DATA_URL}|(?<![\w.+-])(?:file:/|sandbox:/|attachment:/|blob:(?=[a-z])))[^\s<>\"'`)]*+",
    re.IGNORECASE,
)
_LETTER = r"[A-Za-z0-9+/_-]"
_BREAK = r"(?:\s|\\[rn]){1,4}"
_RUN = re.compile(
    rf"(?<![A-Za-z0-9+/_=-])(?:"
    rf"{_LETTER}{{57,}}+={{0,2}}(?:{_BREAK}{_LETTER}{{57,}}+={{0,2}})*+"
    rf"(?:{_BREAK}{_LETTER}++={{0,2}}(?![^\s\\\"']))?"
    rf"|{_LETTER}{{24,56}}+={{0,2}})"
)
_BREAKS = re.compile(_BREAK)
_LEAST = 256
_LEAST_HEX = 512
_HEX = re.compile(rf"[0-9a-f]{{{_LEAST_HEX},}}+|[0-9A-F]{{{_LEAST_HEX},}}+")
_DIGIT, _LOWER, _UPPER = map(re.compile, ("[0-9]", "[a-z]", "[A-Z]"))
# PNG, JPEG, GIF, PDF, zip and Office, RIFF (WebP, WAV), ID3 (MP3), gzip, Ogg, MP4, old Office.
_BEGINNINGS = (
    "iVBORw0KGg",
    "/9j/",
    "R0lGOD",
    "JVBERi0",
    "UEsDB",
    "UklGR",
    "SUQz",
    "H4sI",
    "T2dnUw",
    "AAAAGGZ0eX",
    "AAAAHGZ0eX",
    "AAAAIGZ0eX",
    "0M8R4KGxGu",
)


def is_file(block: Mapping[str, Any]) -> bool:
    """Whether an object is a block of a chat format that holds or points to a file."""
    kind = block.get("type")
    keys = block.keys()
    if isinstance(kind, str) and kind in _KINDS:
        return not keys.isdisjoint(PAYLOADS)
    if not keys.isdisjoint(_MIME):
        return not keys.isdisjoint({"data", "blob", "base64"})
    return any(isinstance(block[key], Mapping) for key in keys & _UNTYPED)


def find_files(text: str) -> Iterator[Hit]:
    """Find the content of files, and references to it.

    Args:
        text: A folded text.

    Yields:
        Their places.
    """
    for reference in _REFERENCE.finditer(text):
        yield Hit(*reference.span(), "file")
    for run in _RUN.finditer(text):
        if _is_content(run[0]):
            yield Hit(*run.span(), "file")


def _is_content(run: str) -> bool:
    if run.startswith(_BEGINNINGS):
        return True
    letters = _BREAKS.sub("", run)
    if len(letters) < _LEAST or not _DIGIT.search(letters):
        return False
    lower, upper = _LOWER.search(letters), _UPPER.search(letters)
    if lower and upper:
        return True
    return bool(lower or upper) and _HEX.search(run) is not None
