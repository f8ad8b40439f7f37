"""What came back: a policy that was checked, or an error that shows what is wrong with it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.tools import ToolException

from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply, ContextTooLong, InvalidRequest, PolicySyntaxError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.sqrt import Finding, Policy, check, parse
from langchain_sequrity.sqrt.faults import fault
from langchain_sequrity.sqrt.listing import has_rules
from langchain_sequrity.sqrt.nodes import Position
from langchain_sequrity.wire.policy_generation import PolicyReply

_MOST_SHOWN = 5


class PolicyWarning(UserWarning):
    """Something in a generated policy that may surprise."""


class NoPolicy(InvalidRequest, ToolException):
    """The service refused to write a policy, or nothing valid came of its attempts.

    Like `BadPolicy` it is a `ToolException`: `handle_tool_error` of a `PolicyGenTool` decides
    whether a model gets to read it, and can word its description anew.
    """


class BadPolicy(BadReply, ToolException):
    """The policy that came back cannot be used; the text shows each place with a caret.

    Attributes:
        text: The policy.
    """

    def __init__(self, message: str, *, text: str, **facts: Any) -> None:
        """Build the error; `facts` are those of `ServiceError`."""
        super().__init__(message, **facts)
        self.text = text


@dataclass(frozen=True, slots=True)
class PolicyProposal:
    """A generated policy whose tools and arguments exist. Whether it says what was meant is open.

    Its fields are plain data: a checkpoint keeps them as a dict.

    Attributes:
        text: The policy in SQRT, as it came.
        findings: What may surprise in it. Errors are not among them: they raise `BadPolicy`.
        usage: Token counts by name, such as `total_tokens`.
    """

    text: str
    findings: tuple[Finding, ...] = ()
    usage: Mapping[str, int] = field(default_factory=dict)

    @property
    def policy(self) -> Policy:
        """The policy, parsed."""
        return parse(self.text)

    @property
    def header(self) -> PolicyHeader:
        """The policy as `ChatSequrity(policy=…)` takes it."""
        return PolicyHeader.from_sqrt(self.text)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings in words, one line each."""
        return tuple(map(_in_words, self.findings))

    @property
    def content(self) -> str:
        """The text for a model: the policy, and the warnings as comments at its end."""
        if not self.findings:
            return self.text
        comments = "\n".join(f"// Warning: {warning}" for warning in self.warnings)
        return f"{self.text.rstrip()}\n\n{comments}\n"


@contextmanager
def refusals() -> Iterator[None]:
    """Raise the service's refusal of a request as `NoPolicy`."""
    try:
        yield
    except ContextTooLong:
        raise
    except InvalidRequest as error:
        refused = NoPolicy(str(error))
        vars(refused).update(vars(error))
        raise refused from None


def proposed(reply: PolicyReply, tools: Sequence[Mapping[str, Any]]) -> PolicyProposal:
    """Check a generated policy.

    Args:
        reply: What came back.
        tools: The tools it is for, in neutral form.

    Returns:
        The policy with what may surprise in it.

    Raises:
        BadPolicy: If it does not parse, has no rule, or is about tools or arguments that do not
            exist: such a rule protects nothing.
    """
    text = reply.text
    try:
        policy = parse(text)
    except PolicySyntaxError as error:
        raise _bad(text, [str(error)]) from None
    findings = check(text, tools)
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise _bad(text, [_pointed(text, finding) for finding in errors])
    if not has_rules(policy):
        raise _bad(text, ["It has no rule for any tool."])
    return PolicyProposal(text, tuple(findings), reply.usage)


def _bad(text: str, problems: list[str]) -> BadPolicy:
    shown = "\n".join(_shown(problems))
    msg = (
        f"The policy that was generated cannot be used.\n{shown}\n"
        "Generate it again, with the tools and arguments in the description as they are named."
    )
    return BadPolicy(msg, text=text)


def _shown(problems: list[str]) -> Iterator[str]:
    yield from problems[:_MOST_SHOWN]
    if (more := len(problems) - _MOST_SHOWN) > 0:
        yield f"({more} more)"


def _pointed(text: str, finding: Finding) -> str:
    """A finding with its line and a caret."""
    place = fault(text, Position(finding.line, finding.column), finding.message)
    hint = f"\n  {finding.hint}" if finding.hint else ""
    return f"{place}{hint}"


def _in_words(finding: Finding) -> str:
    hint = f". {finding.hint}" if finding.hint else ""
    return plain(f"line {finding.line}, column {finding.column}: {finding.message}{hint}")
