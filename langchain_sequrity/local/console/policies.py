"""Policies as pages show them: formatted, with the lines of their rules."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.local.console.recorder import RecordedSession
from langchain_sequrity.sqrt.formatter import format_policy
from langchain_sequrity.sqrt.highlighter import toned_pieces
from langchain_sequrity.sqrt.nodes import Position, items_of
from langchain_sequrity.sqrt.parser import parse
from langchain_sequrity.strict_json import loads


@dataclass(frozen=True, slots=True)
class ShownPolicy:
    """A policy as pages show it. Clients send policies without white space, so it is formatted.

    Attributes:
        text: The formatted text.
        lines: The line of each rule by its position in the text that was sent.
    """

    text: str = ""
    lines: Mapping[Position, int] = field(default_factory=dict)

    @property
    def toned_lines(self) -> list[tuple[tuple[str, str], ...]]:
        """The lines, each as tones and texts of its parts."""
        lines: list[list[tuple[str, str]]] = [[]]
        for tone, piece in colourable_pieces(self.text):
            first, *others = piece.split("\n")
            lines[-1].append((tone, first))
            lines += [[(tone, part)] for part in others]
        return [tuple(line) for line in lines]

    def line_of(self, position: Position | None) -> int | None:
        """The line of a rule in the shown text."""
        return None if position is None else self.lines.get(position, position.line)


def shown_policy(session: RecordedSession) -> ShownPolicy:
    """The client's policy of a session."""
    try:
        header = loads(session.policy) if session.policy else {}
    except ValueError:
        return ShownPolicy()
    codes = header.get("codes") if isinstance(header, dict) else None
    code = codes.get("code") if isinstance(codes, dict) else None
    return _formatted(code) if isinstance(code, str) else ShownPolicy()


def colourable_pieces(text: str) -> list[tuple[str, str]]:
    """Tone and text of each part of a text. One without colours does not begin with why."""
    return [(tone, piece) for tone, piece in toned_pieces(text) if tone != "mistake"]


@lru_cache(maxsize=64)
def _formatted(text: str) -> ShownPolicy:
    try:
        formatted = format_policy(text).rstrip("\n")
        places, lines = (
            [item.at for node in parse(policy).declarations for item in items_of(node)]
            for policy in (text, formatted)
        )
    except (PolicySyntaxError, UsageError):
        return ShownPolicy(text)
    return ShownPolicy(
        formatted,
        {sent: formatted_at.line for sent, formatted_at in zip(places, lines, strict=True)},
    )
