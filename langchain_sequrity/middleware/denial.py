"""Why a call was not made: for the model as a message, for the program as an exception.

The text names the rule's own words and no value of the call: it goes to the model, to logs and to
whoever reads the conversation.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from langchain_core.messages import ToolMessage

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Verdict
from langchain_sequrity.sqrt.nodes import Strength

Kind = Literal["policy", "uncertain", "failed", "waits", "withheld", "rejected"]
_MARK = "sequrity_denial"
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a call was not made, or its result not shown.

    Attributes:
        tool: The tool.
        kind: `policy`: a rule denies it. `uncertain`: whether the policy allows it is in doubt.
            `failed`: it could not be checked. `waits`: what the policy says hangs on another call
            of the same message. `withheld`: it was made, and its result is not to be trusted.
            `rejected`: a human said no.
        strength: `hard` or `soft`; all but some of kind `policy` are hard.
        certain: Whether every reading of the policy denies it.
        rule: The rule that decided, as written, or the name of a preset; may be empty.
        reason: The reason in words, without values of the call.
    """

    tool: str
    kind: Kind
    strength: Strength = "hard"
    certain: bool = True
    rule: str = ""
    reason: str = ""

    @property
    def may_be_approved(self) -> bool:
        """Whether a human may be asked: only where a soft rule denies for sure."""
        return self.kind == "policy" and self.strength == "soft" and self.certain

    @property
    def is_raised(self) -> bool:
        """Whether `on_denied="raise"` raises it: a call that only has to wait breaks no rule."""
        return self.kind != "waits"

    @property
    def text(self) -> str:
        """What the model is told; safe to print."""
        tool = plain(self.tool, limit=80)
        said = {
            "policy": f"The policy denies this call of `{tool}` ({self.strength}).",
            "uncertain": f"It is in doubt whether the policy allows this call of `{tool}`.",
            "failed": f"This call of `{tool}` could not be checked against the policy.",
            "waits": f"This call of `{tool}` was not made yet.",
            "withheld": f"`{tool}` was called, and its result is withheld.",
            "rejected": f"A human was asked about this call of `{tool}` and rejected it.",
        }[self.kind]
        reason = f" {sentence(self.reason)}" if self.reason else ""
        advice = {
            "waits": " Make it again, after you have seen the results.",
            "withheld": "",
        }.get(self.kind, " It was not made. Do not repeat it as it is.")
        return f"{said}{reason}{advice}"

    def message(self, call_id: str) -> ToolMessage:
        """The message that stands in the place of the result.

        Args:
            call_id: The id of the call.
        """
        return ToolMessage(
            self.text,
            name=self.tool,
            tool_call_id=call_id,
            status="error",
            artifact={_MARK: asdict(self)},
        )

    def error(self, arguments: Mapping[str, Any], labels: Labels) -> PolicyDenied:
        """The exception of `on_denied="raise"`.

        Args:
            arguments: The call's arguments.
            labels: The labels that each of them carried.
        """
        entry = {"verdict": f"{self.strength}_denied", "kind": self.kind, **asdict(self)}
        meta = labels.to_wire()
        return PolicyDenied(
            self.text,
            tool=self.tool,
            arguments={name: {"value": one, "meta": meta} for name, one in arguments.items()},
            rule=self.rule or "not reported",
            reason=self.reason or "not reported",
            checks=(entry,),
        )


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
    return read_denial(facts) if isinstance(facts, Mapping) else None


def read_denial(facts: Mapping[str, Any]) -> Denial:
    """A denial as it was written by `dataclasses.asdict`."""
    return Denial(**{field.name: facts[field.name] for field in fields(Denial)})


def from_verdict(verdict: Verdict) -> Denial:
    """The denial that a verdict stands for.

    Args:
        verdict: One that denies, or that allows in doubt.
    """
    told = verdict.reasons[0]
    rule = " ".join(told.rule.split())
    reason = told.description or f"Its rule is `{rule}`."
    if verdict.allowed:
        return Denial(verdict.tool, "uncertain", "hard", certain=False, rule=rule, reason=reason)
    return Denial(verdict.tool, "policy", verdict.strength, verdict.certain, rule, reason)


def sentence(reason: str) -> str:
    """A reason as a sentence, safe to print."""
    said = plain(reason.strip(), limit=_SHOWN)
    return said if not said or said[-1] in ".!?" else f"{said[0].upper()}{said[1:]}."
