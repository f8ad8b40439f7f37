r"""`url_blocker` and `file_blocker`: web addresses, and the content of files.

Every pattern is linear: it is bounded, or can start only where a run of its characters starts.

`url_blocker` finds

- everything with a scheme and `://`; for web schemes also fewer slashes, or backslashes, which
  browsers correct, and escaped slashes of JSON;
- `javascript:`, `vbscript:`, `mailto:` and `data:` URLs, the first two also with line breaks, which
  browsers remove;
- `www.` hosts, and `//host.example`;
- a domain, an IP address or `localhost` before a path, a query or a fragment; an address or
  `localhost` also before a port. IDN and punycode are domains, too;
- destinations of Markdown links and images, unless they are only a fragment.

A bare host name is not a URL, and neither is `10.0.0.0/8`. A file name before a slash
(`notes.txt/old`) looks like a domain and counts as one.

`file_blocker` finds

- content of images, sounds, videos and documents, and references to it, in blocks of chat formats;
- `data:` URLs, and URLs that only the host of the conversation can resolve: `file:`, `sandbox:`,
  `attachment:`, `blob:`;
- base64 of at least 256 characters, in one run or in lines as in mail; of at least 24 characters if
  it begins like a known file type;
- at least 512 hexadecimal digits in one run.

Paths and file names are not the content of a file, so they stay.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

TOP_LEVEL_DOMAIN = r"(?:[^\W\d_]{2,63}+|xn--[\w-]{1,59})"
_DATA = r"(?<!\w)data:(?:[\w.+-]{1,60}/[\w.+-]{1,100})?(?:;[\w=.+\"-]{1,80}){0,5},"
_SCRIPT = "|".join(map(r"[\t\r\n]{0,3}".join, ("javascript:", "vbscript:")))
_URL = re.compile(
    rf"""
    (?: (?<![a-z\d+.-])[a-z\d+.-]*+://(?=[^\s<>"])
      | (?<![a-z\d+.-])[a-z\d+.-]*?\b(?:https?|wss?|ftp):[/\\]{{1,8}}(?=[\w\[])
      | (?<![\w.@%+-])[\w.@%+-]*?
        (?: (?<![\w-])www\d?\.(?=\w) | \.{TOP_LEVEL_DOMAIN}\.?(?::\d{{1,5}})?(?:/|[?\#](?=\w)) )
      | (?<![\w.-])(?:{_SCRIPT}|mailto:(?=\w))
      | {_DATA}
      | (?<![\d.])(?:\d{{1,3}}\.){{3}}\d{{1,3}}(?::\d{{1,5}}|(?=[/?\#]))(?!/\d{{1,2}}(?![\w/.]))
      | (?<![\w.-])localhost(?::\d{{1,5}}|(?=/))
      | (?<!\w)\[[0-9a-f]{{0,4}}:[0-9a-f:.]{{1,45}}\](?::\d{{1,5}}|(?=/))
      | (?<![\w:/])//(?=[\w-]{{1,63}}\.\w)
    )(?P<tail>[^\s<>"`\x00-\x1f\uff0c\u3002\u3001\uff1b\uff01\uff1f\uff08\uff09]*+)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_NOT_LAST = ".,;:!?'*|)]}"  # punctuation of the surrounding sentence
_DESTINATION = re.compile(r"\]\(\s{0,3}(?:<([^<>\n]++)>|([^\s<>()]++))")
_LEADS_OUT = re.compile(r"[./:\\%]")

_REFERENCE = re.compile(
    rf"(?:{_DATA}|(?<![\w.+-])(?:file:/|sandbox:/|attachment:/|blob:(?=[a-z])))[^\s<>\"'`)]*+",
    re.IGNORECASE,
)
_LETTER, _BREAK = r"[A-Za-z0-9+/_-]", r"(?:\s|\\[rn]){1,4}"
_RUN = re.compile(
    rf"(?<![A-Za-z0-9+/_=-])(?:"
    rf"{_LETTER}{{57,}}+={{0,2}}(?:{_BREAK}{_LETTER}{{57,}}+={{0,2}})*+"
    rf"(?:{_BREAK}{_LETTER}++={{0,2}}(?![^\s\\\"']))?"
    rf"|{_LETTER}{{24,56}}+={{0,2}})"
)
_LEAST = 256
_HEX = re.compile(r"[0-9a-f]{512}|[0-9A-F]{512}")
# PNG, JPEG, GIF, PDF, zip and Office, RIFF (WebP, WAV), ID3 (MP3), gzip, Ogg, MP4, old Office.
_BEGINNING = re.compile(
    r"iVBORw0KGg|/9j/|R0lGOD|JVBERi0|UEsDB|UklGR|SUQz|H4sI|T2dnUw|AAAA[GHI]GZ0eX|0M8R4KGxGu"
)
_MIME = frozenset({"media_type", "mimeType", "mime_type"})
_KIND = re.compile(
    r"(?:input_)?(?:audio|file|image)|image_url|document|media|resource(?:_link)?|video"
)
# Entries of a directory listing have the type `file`, too; content also has one of these keys.
_PAYLOADS = frozenset({
    "audio", "base64", "blob", "bytes", "data", "file", "file_data", "file_id", "file_url",
    "fileData", "image_url", "inlineData", "inline_data", "input_audio", "resource", "source",
    "uri", "url",
})  # fmt: skip
# Keys beside or under a payload that describe it.
_DESCRIBING = _MIME | {"detail", "filename", "format", "name", "source_type", "title", "type"}
_UNTYPED = ("inline_data", "inlineData", "file_data", "fileData")


@dataclass(frozen=True, slots=True)
class Detector:
    """A blocker, or a classifier that redacts.

    Attributes:
        name: Its name in `X-Features`.
        verb: The action in its markers.
        find: Finds places in a folded text: start, end and kind. They may overlap and be in any
            order. Its time is linear in the length of the text.
    """

    name: str
    verb: Literal["blocked", "redacted"]
    find: Callable[[str], Iterable[tuple[int, int, str]]]

    def marker(self, kind: str) -> str:
        """The text that replaces a detection."""
        return f"[{kind} {self.verb}]".upper()


def find_urls(text: str) -> Iterator[tuple[int, int, str]]:
    """Find web addresses.

    Args:
        text: A folded text.

    Yields:
        Start, end and kind.
    """
    for url in _URL.finditer(text):
        yield url.start(), url.start("tail") + len(url["tail"].rstrip(_NOT_LAST)), "url"
    for link in _DESTINATION.finditer(text):
        if _LEADS_OUT.search(link[link.lastindex or 0]):
            yield (*link.span(link.lastindex or 0), "url")


def find_files(text: str) -> Iterator[tuple[int, int, str]]:
    """Find the content of files, and references to it.

    Args:
        text: A folded text.

    Yields:
        Start, end and kind.
    """
    for reference in _REFERENCE.finditer(text):
        yield (*reference.span(), "file")
    for run in _RUN.finditer(text):
        if _is_encoded(run[0]):
            yield (*run.span(), "file")


def _is_encoded(run: str) -> bool:
    letters = re.sub(_BREAK, "", run)
    digit, lower, upper = (re.search(chars, letters) for chars in ("[0-9]", "[a-z]", "[A-Z]"))
    is_mixed = digit and ((lower and upper) or ((lower or upper) and _HEX.search(run)))
    return bool(_BEGINNING.match(run)) or (bool(is_mixed) and len(letters) >= _LEAST)


def is_content(block: Mapping[str, Any], key: str, *, within: bool) -> bool:
    """Whether the value under a key of an object is file content, or a reference to it.

    Args:
        block: Any object.
        key: One of its keys.
        within: Whether the object is part of such content.
    """
    if within or key not in _PAYLOADS:
        return within and key not in _DESCRIBING
    block_type, keys = block.get("type"), block.keys()
    is_typed = isinstance(block_type, str) and _KIND.fullmatch(block_type) is not None
    has_data = not (keys.isdisjoint(_MIME) or keys.isdisjoint({"data", "blob", "base64"}))
    is_untyped = any(isinstance(block.get(key), Mapping) for key in _UNTYPED)
    return is_typed or has_data or is_untyped


FILE_BLOCKER = Detector("file_blocker", "blocked", find_files)
URL_BLOCKER = Detector("url_blocker", "blocked", find_urls)
