"""Denials that are nothing but a sentence: refusals of single-LLM sessions, questions to humans."""

import re
from typing import NamedTuple

from langchain_core.messages import AIMessage

# Recorded denials begin so, and those of the local server too (`docs/protocol.md`).
_TOOL = re.compile(r"[Tt]ool call to '([^']{1,64})' is denied")
# What the local server adds: `Verdict.words`.
_STRENGTH = re.compile(r"The call of `[^`]*` is denied \((hard|soft)\)")
# What `PolicyMiddleware` and `LangGraphExecutor` say where they ask a human.
_REQUEST = re.compile(
    r"(?:The last answer was not understood; .*? )?The policy denies this call"
    r"(?: \(node (['\"])(?P<node>.*?)\1\))? softly, .*? Rule: (?P<rule>.*) Reason: (?P<reason>.*) "
    r"Labels(?: of each argument)?: ",
    re.DOTALL,
)
_NO_REASON = "No reason is given."
_DOUBT = "The service may see this differently."


class Said(NamedTuple):
    """What a refusal says of a denial.

    Attributes:
        tool: The tool.
        strength: `hard` or `soft`, or `None` if it does not say.
        certain: Whether the denial is certain, or `None` if it does not say.
    """

    tool: str
    strength: str | None
    certain: bool | None


def refusal_of(message: AIMessage) -> str:
    """The text of a refusal, wherever the format puts it; empty for a message that is none.

    Args:
        message: A message of any chat model.
    """
    told = [message.additional_kwargs.get("refusal")]
    told += [
        block.get("refusal") or _NO_REASON
        for block in message.content
        if isinstance(block, dict) and block.get("type") == "refusal"
    ]
    if message.response_metadata.get("stop_reason") == "refusal":
        details = message.response_metadata.get("stop_details")
        told.append(details.get("explanation") if isinstance(details, dict) else None)
        # The service documents no other place for the reason than the text.
        told.append(message.text or _NO_REASON)
    return " ".join(dict.fromkeys(str(one) for one in told if one))


def said_in_refusal(refusal: str) -> Said | None:
    """Read a denial from a refusal.

    Args:
        refusal: Its text.

    Returns:
        What it says, or `None` if the model refused and no policy.
    """
    tool = _TOOL.search(refusal)
    if tool is None:
        return None
    strength = _STRENGTH.search(refusal)
    if strength is None:
        return Said(tool[1], None, None)
    return Said(tool[1], strength[1], not refusal.endswith(_DOUBT))


class Asked(NamedTuple):
    """What a question to a human says of a denial, which is a soft one.

    Attributes:
        node: The node of a graph, or `None` where there is no graph.
        rule: The rule, without its semicolon.
        reason: Its reason.
    """

    node: str | None
    rule: str
    reason: str


def said_in_request(description: str) -> Asked | None:
    """Read a denial from the description of an action that waits for approval.

    Args:
        description: The description.

    Returns:
        What it says, or `None` if no policy asks.
    """
    found = _REQUEST.match(description)
    return found and Asked(found["node"], found["rule"], found["reason"])
