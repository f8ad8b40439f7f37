r"""What can be written in SQRT: names, and texts between quotes.

How the service reads a backslash in a text is unknown (`docs/policies.md`, "What is in doubt"), and
without one there is no quote in a text. In a regex both can be written for certain.
"""

import re

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.patterns import Pattern

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RAW = re.compile(r'(?:[^"\\]|\\[^\n])*')
_PIECE = re.compile(r"\\.|.", re.DOTALL)
_IN_REGEX = {'"': '\\"', "\\\\": "\\x5c", "\\\n": "\\n"}
_SHOWN = 80


def written_name(name: str) -> str:
    """The name itself, if it is one.

    Raises:
        UsageError: If SQRT cannot write it.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        msg = (
            f"`{plain(str(name), limit=_SHOWN)}` cannot be named in SQRT, where names have ASCII "
            "letters, digits and `_`, and no digit in front. Rename it."
        )
        raise UsageError(msg)
    return name


def written_raw(raw: str) -> str:
    """What stands between quotes, if it ends where they do.

    Raises:
        UsageError: If it would not.
    """
    if _RAW.fullmatch(raw) is None:
        msg = f"`{plain(raw, limit=_SHOWN)}` cannot stand in quotes: it has a quote of its own."
        raise UsageError(msg)
    return raw


def certain_text(text: str) -> str:
    r"""The text itself, if it can be written and is read in one way only.

    Raises:
        UsageError: If it has a quote, a backslash or half a character.
    """
    if '"' in text or "\\" in text:
        msg = (
            f"The text `{plain(text, limit=_SHOWN)}` has a quote or a backslash, and how the "
            "service reads these in a text is unknown. Use a regex, as "
            "`matching(re.escape(text))`, or a label without them."
        )
        raise UsageError(msg)
    return encodable(text)


def certain_wildcard(pattern: str) -> str:
    r"""The wildcard itself, if it is read in one way only.

    Raises:
        UsageError: If it has a quote, a backslash, a bracket or half a character.
    """
    if any(char in pattern for char in '"\\['):
        msg = (
            f"The wildcard `{plain(pattern, limit=_SHOWN)}` has a quote, a backslash or `[`, and "
            "how the service reads these is unknown. Use a regex: `matching(…)`."
        )
        raise UsageError(msg)
    return encodable(pattern)


def certain_regex(pattern: str) -> str:
    r"""A regex that matches the same and is read in one way only.

    Returns:
        The pattern; a quote in it is written `\"`, and a doubled backslash `\x5c`.

    Raises:
        UsageError: If it does not compile.
    """
    try:
        Pattern(pattern)
    except ValueError as error:
        shown, reason = plain(pattern, limit=_SHOWN), plain(str(error), limit=200)
        msg = f"The regex `{shown}` cannot be used: {reason}."
        raise UsageError(msg) from None
    return encodable("".join(_IN_REGEX.get(one, one) for one in _PIECE.findall(pattern)))


def encodable(text: str) -> str:
    """The text itself, if it has no half characters.

    Raises:
        UsageError: If it has.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        msg = f"`{plain(text, limit=_SHOWN)}` has half a character, which no policy can hold."
        raise UsageError(msg) from None
    return text
