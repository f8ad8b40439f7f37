"""Patterns for tests: pieces, random combinations of pieces, and largest repeats of a piece."""

import random
from collections.abc import Iterator

from langchain_sequrity.patterns import MAX_LENGTH, PatternError, measure

PIECES = [
    "a", "ab", "(a)", "a+b", "a+?b", "a*+b", "a?", "a{2}b", "(?:a|b)", "(?:a|b|cd)e", "(?:|a)", "(?:a$|)", "(?:^a)", r"(?:\ba)", "[ab]", "[^ab]",
    "[a-zA-Z0-9_.%+-]", r"[\w\d]", r"\d", r"\W.", "(?=a)b", "(?!a)b", "(?<=a)b", "(?<!ab)c", "(?>a*)b", "()", "(?:)", "(a|b)", "((a))", "(?i:a)", "(?i:[a-z])", "(?s:.)",
    "(?-i:a)", "(?:a{0,5}b)", "(?:(?:a{3}|b){2}c)", "a{,3}", "a{2,}", "(?:a{2,3})?", "(?:a?b?c?)", "(?:[ab]|[cd]e)", r"\x41", "é", "(?i:ß)", "(?:(a)|b)", "(?:ab|ac|ad)",
    "(?:ba|ca|da)", "(?:a(?:b(?:c(?:d)?)?)?)", r"[\x00-\U0010ffff]", r"(?i:[\x00-\U0010ffff])", "{", "(?:{x)", "(?:||||)", "a(?#c)",
]  # fmt: skip
_QUANTIFIERS = [
    *"*+?", "{2}", "{3}", "{10}", "{100}", "{1000}", "{2,}", "{100,}", "{0,5}", "{5,99}", "{,9}",
]  # fmt: skip


def generated(rand: random.Random, depth: int) -> str:
    """A random pattern of accepted syntax, of any size."""
    return rand.choice(["", "(?i)", "(?m)", "(?s)"]) + _part(rand, depth)


def _part(rand: random.Random, depth: int) -> str:
    kind = rand.random()
    if depth == 0 or kind < 0.25:
        return rand.choice(PIECES)
    if kind < 0.5:
        return "".join(_part(rand, depth - 1) for _ in range(rand.randint(1, 4)))
    if kind < 0.65:
        branches = [_part(rand, depth - 1) for _ in range(rand.randint(1, 5))]
        return f"(?:{'|'.join(branches)})"
    inner = _part(rand, depth - 1)
    if kind < 0.75:
        return rand.choice(["(", "(?:", "(?=", "(?!", "(?>", "(?i:", "(?s:", "(?x: "]) + inner + ")"
    return f"(?:{inner}){rand.choice(_QUANTIFIERS)}{rand.choice(['', '?', '+'])}"


def widest(piece: str) -> Iterator[str]:
    """The largest accepted repeats of a piece, and its longest accepted sequences."""
    count = 1
    while _accepts(f"(?:{piece}){{{2 * count}}}"):
        count *= 2
    for step in (count // 2, count // 4, count // 8):
        if _accepts(f"(?:{piece}){{{count + step}}}"):
            count += step
    for start in ("", "(?i)"):
        yield f"{start}(?:{piece}){{{count}}}"
    for row in (piece, f"{piece}|"):
        long = row * (MAX_LENGTH // len(row))
        if _accepts(long):
            yield long


def _accepts(text: str) -> bool:
    try:
        measure(text)
    except PatternError:
        return False
    return True
