"""The policy editor: a text in colour, its mistakes, and words for completions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import ALL, KINDS, RESERVED_PREFIX
from langchain_sequrity.local.console.policies import colourable_pieces
from langchain_sequrity.local.console.recorder import RecordedSession
from langchain_sequrity.local.console.views import way_of
from langchain_sequrity.sqrt import Finding, check
from langchain_sequrity.sqrt.coerce import INTERNAL_TOOLS

_MOST_CHARACTERS = 64 * 1024
_MOST_NAMES = 500
_WAYS = {"dual-LLM": "dual-llm", "single-LLM": "single-llm", "graph": "executor"}
_WORDS = (
    "tool", "let", "must allow", "must deny", "should allow", "should deny", "when", "always",
    "result", "session before", "session after", "overlaps", "subset of", "superset of",
    "is empty", "in", "and", "or", "not", "value", "tags", "producers", "consumers",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CheckedText:
    """A text of a policy, checked.

    Attributes:
        pieces: Tone and text of each part.
        findings: What `check` found.
        errors: The number of errors among them.
    """

    pieces: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    errors: int


def checked(text: str, session: RecordedSession | None) -> CheckedText:
    """Check a text for the tools of a session.

    Args:
        text: The text.
        session: The session; without one, any tool may be called.
    """
    text = text.replace("\r\n", "\n")
    if len(text) > _MOST_CHARACTERS:
        finding = Finding("error", f"A policy has at most {_MOST_CHARACTERS} characters.", 1, 1)
        return CheckedText((("", text[:_MOST_CHARACTERS]),), (finding,), 1)
    findings = _findings(text, session)
    errors = sum(finding.severity == "error" for finding in findings)
    pieces = tuple(colourable_pieces(text))
    return CheckedText(pieces, tuple(findings), errors)


def _findings(text: str, session: RecordedSession | None) -> list[Finding]:
    if not text.strip():
        return []
    tools: list[Any] | None = None
    mode: Any = None
    if session is not None and session.tools:
        tools = [*session.tools, *INTERNAL_TOOLS]
        mode = _WAYS[way_of(session)]
    try:
        return check(text, tools, mode=mode)
    except UsageError as error:
        return [Finding("error", str(error), 1, 1)]


def words(sessions: Iterable[RecordedSession]) -> dict[str, Any]:
    """Words for completions: the tools of sessions with their arguments, and labels of values."""
    tools: dict[str, list[str]] = {}
    labels: dict[str, None] = {}
    for session in sessions:
        for tool in session.tools:
            function = tool.get("function")
            if isinstance(function, Mapping) and len(tools) < _MOST_NAMES:
                tools[str(function.get("name", ""))] = _arguments(function)
        for turn in [*session.turns.values()]:
            for call in [*turn.calls]:
                for argument in call.check.call.arguments.values():
                    for label_kind in KINDS:
                        labels |= dict.fromkeys(getattr(argument.labels, label_kind))
        if len(labels) >= _MOST_NAMES:
            break
    names = [name for name in labels if name != ALL and not name.startswith(RESERVED_PREFIX)]
    return {"tools": tools, "labels": sorted(names)[:_MOST_NAMES], "words": _WORDS}


def _arguments(function: Mapping[str, Any]) -> list[str]:
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    return [str(name) for name in properties] if isinstance(properties, Mapping) else []
