"""The meaning of a policy without positions and layout; its words; its comments."""

import random
from dataclasses import fields, is_dataclass
from typing import Any

from langchain_sequrity.sqrt import parse
from langchain_sequrity.sqrt.lexer import COMMENT, tokens
from langchain_sequrity.sqrt.nodes import CheckRule, Policy

_COMMENTS = ("// why\n", "//\n", "/* here */", "/**/", "/* over\n\n   lines */", "/* a\n * b */")


def meaning(policy: Policy | str) -> Any:
    """The nodes without positions and source texts. 1 and 1.0 differ."""
    return _bare(parse(policy) if isinstance(policy, str) else policy)


def _bare(node: Any) -> Any:
    if isinstance(node, tuple):
        return tuple(_bare(one) for one in node)
    if not is_dataclass(node):
        return repr(node)
    left_out = {"at", "text"} if isinstance(node, CheckRule | Policy) else {"at"}
    parts = [_bare(getattr(node, one.name)) for one in fields(node) if one.name not in left_out]
    return (type(node).__name__, *parts)


def words(text: str) -> list[str]:
    """The tokens of a text as written."""
    return [one.text.rstrip() if one.kind == "doc" else one.text for one in tokens(text)]


def comments(text: str) -> list[str]:
    """The comments of a text, without their white space because the formatter may change it."""
    found, end = [], 0
    for token in tokens(text):
        found += ["".join(one[0].split()) for one in COMMENT.finditer(text[end : token.start])]
        end = token.end
    return found


def commented(text: str, seed: object) -> str:
    """A valid text with random comments and line breaks added between its tokens."""
    chance = random.Random(repr(seed))  # noqa: S311 - a test's own
    often = chance.choice((0.02, 0.1, 0.5))
    parts, end = [], 0
    for token in tokens(text):
        gap = text[end : token.start]
        if gap or token.text in {"{", "}", ";", ","}:
            for _ in range(2):
                if chance.random() < often:
                    gap += chance.choice(_COMMENTS)
                gap += chance.choice(("", "", "", " ", "\n", "\n\n"))
        parts.append(gap + token.text)
        end = token.end
    return "".join(parts)
