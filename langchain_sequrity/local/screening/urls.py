"""`url_blocker`: web addresses in a text.

A URL is found by what gives it away, such as `://`, and grown from there to both sides. That is
linear in the length of the text, which a pattern that starts at the first letter would not be.
Found are:

- everything with a scheme and `://`; with the schemes of the web also fewer slashes or backslashes,
  which browsers mend, and slashes as JSON may write them, after backslashes;
- `javascript:`, `vbscript:`, `mailto:` and `data:` URLs, the first two also with the line breaks
  that browsers take out;
- `www.` hosts, and `//host.example`;
- a domain, an IPv4 or IPv6 address or `localhost` that a path, a query or a fragment follows; an
  address or `localhost` also before a port. IDN and punycode are domains like others;
- destinations of Markdown links and images that are more than a fragment.

A bare host name is no URL, nor is `10.0.0.0/8`. A file name before a slash (`notes.txt/old`) looks
like a domain and is taken for one.
"""

import re
from collections.abc import Iterator

from langchain_sequrity.local.screening.redaction import Hit

DATA_URL = r"(?<!\w)data:(?:[\w.+-]{1,60}/[\w.+-]{1,100})?(?:;[\w=.+\"-]{1,80}){0,5},"

_BROWSERS_TAKE_OUT = r"[\t\r\n]{0,3}"
_SCRIPT = rf"(?<![\w.-])(?:{'|'.join(map(_BROWSERS_TAKE_OUT.join, ('javascript', 'vbscript')))})"
_ON_THE_WEB = r"(?:(?<=\bhttp:)|(?<=\bhttps:)|(?<=\bws:)|(?<=\bwss:)|(?<=\bftp:))"
_SIGN = re.compile(
    rf"""
      (?P<scheme> ://(?=[^\s<>"]) | :{_ON_THE_WEB}[/\\]{{1,8}}(?=[\w\[]) )
    | (?P<host>
          (?<![\w-])www\d?\.(?=\w)
        | \.(?:[^\W\d_]{{2,63}}|xn--[\w-]{{1,59}})\.?(?::\d{{1,5}})?(?:/|[?\#](?=\w))
      )
    | {_SCRIPT}{_BROWSERS_TAKE_OUT}:
    | (?<![\w.-])mailto:(?=\w)
    | {DATA_URL}
    | (?<![\d.])(?:\d{{1,3}}\.){{3}}\d{{1,3}}(?::\d{{1,5}}|(?=[/?\#]))(?!/\d{{1,2}}(?![\w/.]))
    | (?<![\w.-])localhost(?::\d{{1,5}}|(?=/))
    | (?<!\w)\[[0-9a-f]{{0,4}}:[0-9a-f:.]{{1,45}}\](?::\d{{1,5}}|(?=/))
    | (?<![\w:/])//(?=[\w-]{{1,63}}\.\w)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_TAIL = re.compile(r"[^\s<>\"`\x00-\x1f\uff0c\u3002\u3001\uff1b\uff01\uff1f\uff08\uff09]*+")
_NOT_LAST = ".,;:!?'*|)]}"
_DESTINATION = re.compile(r"\]\(\s{0,3}(?:<([^<>\n]++)>|([^\s<>()]++))")
_LEADS_OUT = re.compile(r"[./:\\%]")


def find_urls(text: str) -> Iterator[Hit]:
    """Find web addresses.

    Args:
        text: A folded text.

    Yields:
        Their places.
    """
    done = 0
    while sign := _SIGN.search(text, done):
        tail = _end(text, sign.end())
        yield Hit(_start(text, sign, done), tail, "url")
        done = tail
    for link in _DESTINATION.finditer(text):
        if _LEADS_OUT.search(link[link.lastindex or 0]):
            yield Hit(*link.span(link.lastindex or 0), "url")


def _start(text: str, sign: re.Match[str], floor: int) -> int:
    """Go back to where the scheme or host begins, at most to the end of the URL before."""
    start = sign.start()
    if sign["scheme"]:
        while start > floor and _is_scheme(text[start - 1]):
            start -= 1
    elif sign["host"]:
        while start > floor and _is_host(text[start - 1]):
            start -= 1
    return start


def _is_scheme(char: str) -> bool:
    return char.isascii() and (char.isalnum() or char in "+.-")


def _is_host(char: str) -> bool:
    return char.isalnum() or char in "_.@%+-"


def _end(text: str, start: int) -> int:
    """Go on to where the URL ends, less the punctuation of the sentence around it."""
    tail = _TAIL.match(text, start)
    return start + len(tail[0].rstrip(_NOT_LAST)) if tail else start
