"""Requests to a person about one denied call, and the decisions that come back.

They have the form of LangChain's human-in-the-loop requests, so that its user interfaces work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_sequrity.denials import Denial

DecisionType = Literal["approve", "edit", "reject", "respond"]
_APPROVE = '`Command(resume={"decisions": [{"type": "approve"}]})`'
_OTHER_FORMS: Mapping[DecisionType, str] = {
    "reject": '"reject" with a "message"',
    "respond": '"respond" with a "message"',
    "edit": '"edit" with an "edited_action" of "name" and "args"',
}


@dataclass(frozen=True, slots=True)
class HumanDecision:
    """A human's decision about one call.

    Attributes:
        type: The decision.
        message: The text of `reject` and `respond`.
        name: The tool to call, for `edit`.
        args: The arguments, for `edit`.
    """

    type: DecisionType
    message: str = ""
    name: str = ""
    args: Mapping[str, Any] | None = None


def question(
    denial: Denial, args: Mapping[str, Any], allowed: Sequence[DecisionType], remark: str = ""
) -> dict[str, Any]:
    """The request: the call, and the fields of its denial.

    Args:
        denial: The denial, with the labels of the call's arguments.
        args: The arguments to show.
        allowed: The possible decisions.
        remark: Text before the question.
    """
    name = denial.tool or ""
    description = f"{remark} {denial.question}".lstrip()
    return {
        "action_requests": [{"name": name, "args": args, "description": description}],
        "review_configs": [{"action_name": name, "allowed_decisions": [*allowed]}],
        "denial": replace(denial, arguments=None).to_json(),
    }


def is_about(decision: Any, digest: str) -> bool:
    """Whether a decision is for a call: it may name the digest of one."""
    match decision:
        case {"decisions": [{"digest": digest_in_answer}]}:
            return bool(digest_in_answer == digest)
    return True


def read_decision(answer: Any, allowed: Sequence[DecisionType]) -> HumanDecision | None:
    """The one decision in an answer; `None` if there is not exactly one that is allowed."""
    match answer:
        case {"decisions": list([{"type": decision_type, **fields}])} if decision_type in allowed:
            pass
        case _:
            return None
    match decision_type, fields:
        case "approve", _:
            return HumanDecision("approve")
        case "reject", _:
            return HumanDecision("reject", str(fields.get("message") or ""))
        case "respond", {"message": str(message)}:
            return HumanDecision("respond", message)
        case "edit", {"edited_action": {"name": str(name), "args": Mapping() as args}}:
            return HumanDecision("edit", name=name, args=dict(args))
    return None


def not_understood(allowed: Sequence[DecisionType]) -> str:
    """The remark before a question that was not answered by one of the decisions."""
    forms = ", ".join(form for type_, form in _OTHER_FORMS.items() if type_ in allowed)
    return f"The last answer was not understood; resume with {_APPROVE}, or {forms}."
