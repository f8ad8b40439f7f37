"""What came back: a policy that was checked, or an error that shows what is wrong with it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.tools import ToolException

from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply, ContextTooLong, InvalidRequest, PolicySyntaxError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.policy_generation.parts import split
from langchain_sequrity.sqrt import Finding, Policy, parse
from langchain_sequrity.sqrt.faults import fault
from langchain_sequrity.sqrt.given import header_bytes
from langchain_sequrity.sqrt.listing import has_rules
from langchain_sequrity.sqrt.nodes import Position
from langchain_sequrity.wire.policy_generation import PolicyReply, PolicyRequest, judged
from langchain_sequrity.wire.tools import name_of

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


class PolicyTooLong(BadPolicy):
    """The policy that came back is longer than `max_header_bytes` lets a header be.

    Attributes:
        text: The whole policy.
        header_bytes: How long its header line would be.
        limit: How long it may be.
        parts: The policy in parts that fit, each for a group of the tools: for as many agents, of
            which each has the tools of its group and no others. Empty if a single tool's rules are
            too long.
    """

    def __init__(
        self,
        message: str,
        *,
        text: str,
        header_bytes: int,
        limit: int,
        parts: "tuple[PolicyPart, ...]",
        **facts: Any,
    ) -> None:
        """Build the error; `facts` are those of `ServiceError`."""
        super().__init__(message, text=text, **facts)
        self.header_bytes, self.limit, self.parts = header_bytes, limit, parts


@dataclass(frozen=True, slots=True)
class PolicyPart:
    """What a policy says of some of its tools.

    Attributes:
        tools: Their names.
        text: The policy for an agent that has these tools.
    """

    tools: tuple[str, ...]
    text: str

    @property
    def header(self) -> PolicyHeader:
        """The policy as `ChatSequrity(policy=…)` takes it."""
        return PolicyHeader.from_sqrt(self.text)


@dataclass(frozen=True, slots=True)
class PolicyProposal:
    """A generated policy whose tools and arguments exist. Whether it says what was meant is open.

    Its fields are plain data: a checkpoint keeps them as a dict.

    Attributes:
        text: The policy in SQRT, as it came.
        findings: What may surprise in it. What makes a rule protect nothing is not among them: it
            raises `BadPolicy`.
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


def proposed(reply: PolicyReply, request: PolicyRequest, *, limit: int) -> PolicyProposal:
    """Check a generated policy.

    Args:
        reply: What came back.
        request: What was asked for: the tools, the sessions, and the labels that tools bring along.
        limit: How long a header line may be, in bytes.

    Returns:
        The policy with what may surprise in it.

    Raises:
        BadPolicy: If it does not parse, has no rule, is about tools or arguments that do not
            exist, or asks for labels that nothing sets: such a rule protects nothing.
        PolicyTooLong: If it does not fit into a header.
    """
    text = reply.text
    try:
        policy = parse(text)
    except PolicySyntaxError as error:
        raise _bad(text, [str(error)]) from None
    found = judged(text, request)
    if found.faults:
        raise _bad(text, [_pointed(text, finding) for finding in found.faults])
    if not has_rules(policy):
        raise _bad(text, ["It has no rule for any tool."])
    if (size := header_bytes(text, policy)) > limit:
        raise _too_long(policy, request.tools, size, limit)
    return PolicyProposal(text, found.remarks, reply.usage)


def _too_long(
    policy: Policy, tools: Sequence[Mapping[str, Any]], size: int, limit: int
) -> PolicyTooLong:
    parts = tuple(
        PolicyPart(names, text)
        for names, text in split(policy, [str(name_of(tool)) for tool in tools], limit)
    )
    if parts:
        advice = (
            f"Ask for fewer tools at once, give the tools to {len(parts)} agents "
            "(`parts` of this error has the policy of each)"
        )
    else:
        advice = "Ask for fewer tools at once"
    msg = (
        f"The policy that was generated would be {size:,} bytes long as a header, and "
        f"`max_header_bytes` of the model is {limit:,}: {size - limit:,} bytes too many. {advice}, "
        "or raise `max_header_bytes` if what stands before the service lets longer headers through."
    )
    return PolicyTooLong(msg, text=policy.text, header_bytes=size, limit=limit, parts=parts)


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
