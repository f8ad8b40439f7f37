"""The check of a generated policy: a proposal, or an error that shows its faults.

A policy that is too long for a header is divided by groups of tools.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.tools import ToolException

from langchain_sequrity.display import plain
from langchain_sequrity.errors import BadReply, ContextTooLong, InvalidRequest, PolicySyntaxError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.sqrt import Finding, Policy, parse, printed
from langchain_sequrity.sqrt.coerce import header_bytes
from langchain_sequrity.sqrt.compiler import compiled_tools, ignore_findings
from langchain_sequrity.sqrt.diagnostics import fault
from langchain_sequrity.sqrt.matchers import MatchBudget
from langchain_sequrity.sqrt.nodes import Binding, Declaration, Position, ToolId, has_rules
from langchain_sequrity.wire.policy_generation import (
    PolicyReply,
    PolicyRequest,
    review,
)
from langchain_sequrity.wire.tools import name_of

if TYPE_CHECKING:
    from langchain_sequrity.sqrt.matchers import Matcher


# Tool servers use their name as a prefix: `github__get_file`.
_SERVER = re.compile(r"(.+?)(?:__+|[.:/])")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_NAME = re.compile(r"\w+")
_MATCHING_SECONDS = 2.0


def split(policy: Policy, tools: Sequence[str], limit: int) -> list[tuple[tuple[str, ...], str]]:
    """Divide a policy by groups of tools.

    Args:
        policy: A policy that compiles.
        tools: The names of the tools it is for.
        limit: Maximum length of a header line in bytes.

    Returns:
        Names of tools with their policy. Tools of one server, or with a common word in their names,
        stay together if they fit. Empty if the rules of one tool are too long.
    """
    rules = _RuleSelection(policy)
    groups: list[tuple[str, ...]] = []
    for family in _families(tools):
        joined = (*groups[-1], *family) if groups else family
        if groups and rules.fit(joined, limit):
            groups[-1] = joined
        else:
            groups += _portions(rules, family, limit)
    found = [(group, rules.text(group)) for group in groups]
    return found if all(rules.fit(group, limit) for group in groups) else []


def _families(tools: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Groups of related tools, according to their names."""
    nouns = {tool: [word.lower().rstrip("s") for word in _WORD.findall(tool)[1:]] for tool in tools}
    common = Counter(noun for found in nouns.values() for noun in set(found))
    families: dict[str, list[str]] = {}
    for tool in tools:
        server = _SERVER.match(tool)
        family = server[1] if server else max(nouns[tool], key=common.__getitem__, default=tool)
        families.setdefault(family, []).append(tool)
    return map(tuple, families.values())


def _portions(
    rules: "_RuleSelection", family: Sequence[str], limit: int
) -> Iterator[tuple[str, ...]]:
    """A group of related tools, divided if it is too long."""
    some: tuple[str, ...] = ()
    for tool in family:
        if some and not rules.fit((*some, tool), limit):
            yield some
            some = ()
        some = (*some, tool)
    yield some


class _RuleSelection:
    """Selects the rules of a policy for some tools.

    Args:
        policy: A policy that compiles.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._matchers: dict[ToolId, Matcher] = {}
        self._budget = MatchBudget(_MATCHING_SECONDS)
        compiled = compiled_tools(
            policy, ignore_findings, lambda tool, matches, _: self._matchers.update({tool: matches})
        )
        for _ in compiled:
            pass
        self._texts: dict[tuple[str, ...], str] = {}

    def fit(self, tools: tuple[str, ...], limit: int) -> bool:
        """Whether the policy for some tools fits into a header."""
        text = self.text(tools)
        return header_bytes(text, parse(text)) <= limit

    def text(self, tools: tuple[str, ...]) -> str:
        """The policy for some tools, with the definitions that it uses."""
        if tools not in self._texts:
            kept = {
                node.at
                for node in self._policy.declarations
                if not isinstance(node, Binding) and self._is_for(node.tool, tools)
            }
            self._texts[tools] = printed(Policy(self._with_names(kept), ""))
        return self._texts[tools]

    def _is_for(self, tool: ToolId, names: Collection[str]) -> bool:
        if tool.text.kind == "plain":
            return tool.text.raw in names
        matches = self._matchers.get(tool)
        # An uncertain match keeps the rule.
        return matches is None or any(matches(name, self._budget) is not False for name in names)

    def _with_names(self, kept: Collection[object]) -> tuple[Declaration, ...]:
        found: list[Declaration] = []
        words: set[str] = set()
        for node in reversed(self._policy.declarations):
            if node.name in words if isinstance(node, Binding) else node.at in kept:
                found.insert(0, node)
                words.update(_NAME.findall(_written(node)))
        return tuple(found)


def _written(node: Declaration) -> str:
    return printed(Policy((node,), ""))


_MAX_PROBLEMS = 5


class PolicyWarning(UserWarning):
    """A warning about a generated policy."""


class NoPolicy(InvalidRequest, ToolException):
    """The service refused to write a policy, or all its attempts were invalid.

    Like `BadPolicy` this is a `ToolException`: with `handle_tool_error` of a `PolicyGenTool`, a
    model can read the error and change its description.
    """


class BadPolicy(BadReply, ToolException):
    """The generated policy cannot be used; the message shows each place with a caret.

    Attributes:
        text: The policy.
    """

    def __init__(self, message: str, *, text: str, **facts: Any) -> None:
        """Build the error; `facts` are arguments of `ServiceError`."""
        super().__init__(message, **facts)
        self.text = text


class PolicyTooLong(BadPolicy):
    """The generated policy is longer than `max_header_bytes` permits.

    Attributes:
        text: The whole policy.
        header_bytes: The length of its header line.
        limit: The maximum length.
        parts: The policy in parts that fit, for several agents: each part is for an agent that has
            only the tools of its group. Empty if the rules of a single tool are too long.
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
        """Build the error; `facts` are arguments of `ServiceError`."""
        super().__init__(message, text=text, **facts)
        self.header_bytes, self.limit, self.parts = header_bytes, limit, parts


@dataclass(frozen=True, slots=True)
class PolicyPart:
    """The part of a policy for some of its tools.

    Attributes:
        tools: Their names.
        text: The policy for an agent that has these tools.
    """

    tools: tuple[str, ...]
    text: str

    @property
    def header(self) -> PolicyHeader:
        """The policy for `ChatSequrity(policy=…)`."""
        return PolicyHeader.from_sqrt(self.text)


@dataclass(frozen=True, slots=True)
class PolicyProposal:
    """A generated policy whose tools and arguments exist. Its meaning is not checked.

    Its fields are plain data: a checkpoint stores them as a dict.

    Attributes:
        text: The generated policy in SQRT.
        findings: Warnings. A rule that protects nothing is an error instead: it raises `BadPolicy`.
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
        """The policy for `ChatSequrity(policy=…)`."""
        return PolicyHeader.from_sqrt(self.text)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings in words, one line each."""
        return tuple(map(_in_words, self.findings))

    @property
    def content(self) -> str:
        """The text for a model: the policy, with the warnings as comments at the end."""
        if not self.findings:
            return self.text
        comments = "\n".join(f"// Warning: {warning}" for warning in self.warnings)
        return f"{self.text.rstrip()}\n\n{comments}\n"


@contextmanager
def refusals() -> Iterator[None]:
    """Convert a refused request to `NoPolicy`."""
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
        reply: The reply.
        request: The request, with the tools, the sessions, and the labels that tools set.
        limit: Maximum length of a header line in bytes.

    Returns:
        The policy with its warnings.

    Raises:
        BadPolicy: If it is invalid, has no rule, or has a rule that protects nothing: for tools or
            arguments that do not exist, or for labels that nothing sets.
        PolicyTooLong: If it does not fit into a header.
    """
    text = reply.text
    try:
        policy = parse(text)
    except PolicySyntaxError as error:
        raise _bad(text, [str(error)]) from None
    found = review(text, request)
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
            f"Use fewer tools at once, divide the tools among {len(parts)} agents "
            "(`parts` of this error has the policy for each)"
        )
    else:
        advice = "Use fewer tools at once"
    msg = (
        f"The header with the generated policy would have {size:,} bytes; `max_header_bytes` of "
        f"the model is {limit:,}. {advice}, or raise `max_header_bytes` if all proxies before the "
        "service accept longer headers."
    )
    return PolicyTooLong(msg, text=policy.text, header_bytes=size, limit=limit, parts=parts)


def _bad(text: str, problems: list[str]) -> BadPolicy:
    shown = "\n".join(_shown(problems))
    msg = (
        f"The generated policy cannot be used.\n{shown}\n"
        "Generate it again, with the exact names of tools and arguments in the description."
    )
    return BadPolicy(msg, text=text)


def _shown(problems: list[str]) -> Iterator[str]:
    yield from problems[:_MAX_PROBLEMS]
    if (more := len(problems) - _MAX_PROBLEMS) > 0:
        yield f"({more} more)"


def _pointed(text: str, finding: Finding) -> str:
    """A finding with its line and a caret."""
    place = fault(text, Position(finding.line, finding.column), finding.message)
    hint = f"\n  {finding.hint}" if finding.hint else ""
    return f"{place}{hint}"


def _in_words(finding: Finding) -> str:
    hint = f". {finding.hint}" if finding.hint else ""
    return plain(f"line {finding.line}, column {finding.column}: {finding.message}{hint}")
