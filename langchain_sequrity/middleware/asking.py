"""Soft denials that a human may approve: the question, and what is understood of the answer.

Both have the form of LangChain's human-in-the-loop requests, so its user interfaces work.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_core.messages import ToolCall

from langchain_sequrity.denials import Denial
from langchain_sequrity.interrupts import answer_to, approval_request
from langchain_sequrity.labels import Labels

_KINDS = ("approve", "edit", "reject", "respond")
_FORM = (
    '`Command(resume={"decisions": [{"type": "approve"}]})`, or "reject" with a "message", '
    '"respond" with a "message", "edit" with an "edited_action" of "name" and "args"'
)


@dataclass(frozen=True, slots=True)
class Said:
    """What a human decided.

    Attributes:
        type: The decision.
        message: Of `reject` and `respond`, what they say.
        name: Of `edit`, the tool to call.
        args: Of `edit`, its arguments.
    """

    type: Literal["approve", "edit", "reject", "respond"]
    message: str = ""
    name: str = ""
    args: Mapping[str, Any] | None = None


def ask(call: ToolCall, denial: Denial, labels: Labels, remark: str = "", *, is_late: bool) -> Said:
    """Ask a human about one call; stops the run until there is an answer.

    Args:
        call: The call.
        denial: Why it is denied.
        labels: The labels that each argument carries.
        remark: What else to say.
        is_late: Whether the thread has gone on since the question was asked.

    Returns:
        The decision. An answer that is none is asked for again.

    Raises:
        UsageError: If an answer comes too late.
    """
    known = replace(denial, tool=call["name"], labels=dict.fromkeys(call["args"], labels.to_wire()))
    while True:
        question = approval_request(known, call["args"], _KINDS, remark)
        said = _understood(answer_to(question, is_late=is_late))
        if said is not None:
            return said
        remark = f"The last answer was not understood; resume with {_FORM}."


def _understood(answer: Any) -> Said | None:
    decisions = answer.get("decisions") if isinstance(answer, Mapping) else None
    if not isinstance(decisions, list) or len(decisions) != 1:
        return None
    [one] = decisions
    kind = one.get("type") if isinstance(one, Mapping) else None
    if kind == "approve":
        return Said("approve")
    if kind == "reject":
        return Said("reject", str(one.get("message") or ""))
    if kind == "respond" and isinstance(one.get("message"), str):
        return Said("respond", one["message"])
    if kind == "edit" and isinstance(one.get("edited_action"), Mapping):
        name, args = one["edited_action"].get("name"), one["edited_action"].get("args")
        if isinstance(name, str) and isinstance(args, Mapping):
            return Said("edit", name=name, args=dict(args))
    return None
