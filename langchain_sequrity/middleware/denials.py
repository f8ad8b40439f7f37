"""Denials of the middleware: a denial as a tool message and as a `PolicyDenied` exception.

The texts quote the rule and never a value of the call, because the model, logs and readers of the
conversation see them.
"""

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import ToolMessage

from langchain_sequrity.denials import Denial, Kind
from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.labels import Labels

_ARTIFACT_KEY = "sequrity_denial"
_REFUSALS = frozenset({"policy", "branch", "content", "uncertain", "rejected"})
_ADVICE = {"waits": " Make it again, after you have seen the results.", "withheld": ""}
_DEFAULT_ADVICE = " It was not made. Do not repeat it as it is."


def hard_denial(tool: str, kind: Kind, reason: str) -> Denial:
    """A hard and certain denial that no rule has caused.

    Args:
        tool: The tool.
        kind: Its kind.
        reason: The reason, as a phrase that follows a colon.
    """
    return Denial(tool, kind, "hard", certain=True, reason=reason)


def denial_text(denial: Denial) -> str:
    """The text for the model; safe to print."""
    return f"{denial.text}{_ADVICE.get(denial.kind, _DEFAULT_ADVICE)}"


def denial_message(denial: Denial, call_id: str) -> ToolMessage:
    """The message that replaces the result of a denied call.

    Args:
        denial: The denial.
        call_id: The id of the call.
    """
    # LangChain's mark of a call that a human rejected: a dual-LLM session is told so.
    rejected = {"lc_source": "sequrity_policy", "lc_data": {"decision": "reject"}}
    return ToolMessage(
        denial_text(denial),
        name=denial.tool,
        tool_call_id=call_id,
        status="error",
        artifact={_ARTIFACT_KEY: denial.to_json()},
        additional_kwargs=rejected if denial.kind in _REFUSALS else {},
    )


def denial_error(denial: Denial, arguments: Mapping[str, Any], labels: Labels) -> PolicyDenied:
    """The exception for `on_denied="raise"`.

    Args:
        denial: The denial.
        arguments: The call's arguments.
        labels: The labels of each argument.
    """
    full_denial = denial.with_call(arguments, dict.fromkeys(arguments, labels.to_wire()))
    return PolicyDenied(denial_text(denial), denial=full_denial)


def denial_of(message: object) -> Denial | None:
    """Read the denial from the message that replaces the result of a denied call.

    Args:
        message: Any message of an agent with `PolicyMiddleware`.

    Returns:
        The denial, or `None` for every other message. A tool can return a message that looks like
        a denial, so use this for display and tests, and not for decisions.
    """
    artifact = getattr(message, "artifact", None)
    facts = artifact.get(_ARTIFACT_KEY) if isinstance(artifact, Mapping) else None
    return Denial.from_json(facts) if isinstance(facts, Mapping) else None
