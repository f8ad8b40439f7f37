"""A cautious policy without a model: a draft made of the tools alone.

What readers return is marked as coming from outside, and so is the session that has seen it.
Whatever acts is denied once its arguments or the session carry the mark. The same tools have the
same text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from langchain_sequrity.display import plain
from langchain_sequrity.local.policy_writing.behaviour import Behaviour, behaviour_of
from langchain_sequrity.sqrt.parser import MAX_CHARACTERS
from langchain_sequrity.wire.tools import name_of

_HEAD = """\
/// DRAFT, made from the definitions of the tools without a model: read it before you use it.
/// {asked}
/// Tools that are not named here are not restricted.
let untrusted = {{"untrusted"}};

/// An argument comes from outside, or the session has seen something that does.
let tainted = @args.tags overlaps untrusted or @session.tags overlaps untrusted;
"""
_ALLOW = "should allow always;"
_GUARD = "must deny when tainted;"
_MARK = "result { @tags |= untrusted; }\n    session after { @tags |= untrusted; }"
_INTERNAL: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "parse_with_ai": ("reads data and has no tools; its result keeps the marks", (_ALLOW,)),
    "verify_hypothesis": ("judges data and has no tools; its result keeps the marks", (_ALLOW,)),
    "complete_turn": ("ends the turn", (_ALLOW,)),
    "set_policy": ("adds rules", (_GUARD, _ALLOW)),
}
_ASKED = 300
_WHY = 80
_WRITABLE = re.compile(r'[^"\\]*\Z')
_IN_REGEX = re.compile(r"[A-Za-z0-9_ -]")
_LONGEST_REGEX = 800
_ASCII = 128


class TooManyTools(Exception):
    """The policy would be longer than one may be; the text says by how much."""


def skeleton(
    tools: Iterable[Mapping[str, Any]], *, description: str = "", internal_tools: Sequence[str] = ()
) -> str:
    """Write a draft of a policy.

    Args:
        tools: Function tools in the neutral form.
        description: What was asked for; it is quoted, no more.
        internal_tools: Names of the service's own tools that the policy is for, too.

    Returns:
        The policy. It parses, whatever the tools are called.

    Raises:
        TooManyTools: If even without comments it would be longer than a policy may be.
    """
    blocks = dict(_blocks(tools, internal_tools))
    asked = plain(" ".join(description.split()), limit=_ASKED)
    head = _HEAD.format(asked=f"Nothing of what was asked for is in it: {asked}".rstrip(": "))
    text = "\n".join([head, *(f"/// {doc}\n{block}" for doc, block in blocks.values())])
    if len(text) > MAX_CHARACTERS:
        text = "\n".join([head, *(block for _, block in blocks.values())])
    if len(text) > MAX_CHARACTERS:
        msg = (
            f"A policy for these {len(blocks)} tools would have {len(text)} characters, and at "
            f"most {MAX_CHARACTERS} are allowed. Ask for fewer tools at once."
        )
        raise TooManyTools(msg)
    return text


def _blocks(
    tools: Iterable[Mapping[str, Any]], internal_tools: Sequence[str]
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Name of each tool, with why it has its rules, and these."""
    for name in internal_tools:
        doc, items = _INTERNAL[name]
        yield name, (doc, _block(f'"{name}"', items))
    for tool in tools:
        name = name_of(tool) or ""
        if _WRITABLE.match(name) and name.isprintable():
            does = behaviour_of(tool)
            yield name, (_doc(does), _block(f'"{name}"', _items(does)))
        else:
            doc = "denied: no policy can write this name for sure"
            yield name, (doc, _block(f'r"{_regex(name)}"', ("must deny always;",)))


def _block(tool: str, items: Iterable[str]) -> str:
    return "\n".join([f"tool {tool} {{", *(f"    {item}" for item in items), "}\n"])


def _doc(does: Behaviour) -> str:
    kind = {
        (True, True): "reads and acts",
        (True, False): "reads",
        (False, True): "acts",
        (False, False): "computes",
    }[does.reads, does.acts]
    return f"{kind}: {plain(does.why, limit=_WHY)}"


def _items(does: Behaviour) -> Iterator[str]:
    if does.acts:
        yield _GUARD
    elif does.steering is None:
        yield "must deny when @args.tags overlaps untrusted;"
    for name in (not does.acts and does.steering) or ():
        yield f"must deny when {name}.tags overlaps untrusted;"
    yield _ALLOW
    if does.reads:
        yield _MARK


def _regex(name: str) -> str:
    """A regex for a name that no text can say; a long one stands for its beginning.

    What a backslash in a text means is in doubt, in a regex it is not (`docs/policies.md`).
    """
    written = ""
    for sign in name:
        if len(written) > _LONGEST_REGEX:
            return f"(?s)^{written}.*$"
        is_plain = _IN_REGEX.match(sign) or (ord(sign) >= _ASCII and sign.isprintable())
        written += sign if is_plain else _escaped(sign)
    return f"(?s)^{written}$"


def _escaped(sign: str) -> str:
    return f"\\x{ord(sign):02x}" if ord(sign) < 2 * _ASCII else "."
