"""A denied call as the message that stands in the place of its result, and how it is read again.

The text names the rule's own words and no value of the call: it goes to the model, to logs and to
whoever reads the conversation.
"""

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import ToolMessage

from langchain_sequrity.denials import Denial, Kind
from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.labels import Labels

_MARK = "sequrity_denial"
_ADVICE = {"waits": " Make it again, after you have seen the results.", "withheld": ""}
_NOT_AGAIN = " It was not made. Do not repeat it as it is."


def not_made(tool: str, kind: Kind, reason: str) -> Denial:
    """A denial that has no rule behind it; all of these are hard and certain.

    Args:
        tool: The tool.
        kind: Its kind.
        reason: Why, as what follows a colon.
    """
    return Denial(tool, kind, "hard", certain=True, reason=reason)


def told(denial: Denial) -> str:
    """What the model is told; safe to print."""
    return f"{denial.text}{_ADVICE.get(denial.kind, _NOT_AGAIN)}"


def message_of(denial: Denial, call_id: str) -> ToolMessage:
    """The message that stands in the place of the result.

    Args:
        denial: The denial.
        call_id: The id of the call.
    """
    return ToolMessage(
        told(denial),
        name=denial.tool,
        tool_call_id=call_id,
        status="error",
        artifact={_MARK: denial.to_json()},
    )


def error_of(denial: Denial, arguments: Mapping[str, Any], labels: Labels) -> PolicyDenied:
    """The exception of `on_denied="raise"`.

    Args:
        denial: The denial.
        arguments: The call's arguments.
        labels: The labels that each of them carried.
    """
    meta = labels.to_wire()
    known = denial.with_call(arguments, dict.fromkeys(arguments, meta))
    return PolicyDenied(told(denial), denial=known)


def denial_of(message: object) -> Denial | None:
    """Read why a call was not made from the message that stands in the place of its result.

    Args:
        message: Any message of an agent with `PolicyMiddleware`.

    Returns:
        The denial, or `None` for every other message. A tool can return a message that looks like
        one, so this is to look at and to test with, not to decide by.
    """
    artifact = getattr(message, "artifact", None)
    facts = artifact.get(_MARK) if isinstance(artifact, Mapping) else None
    return Denial.from_json(facts) if isinstance(facts, Mapping) else None
