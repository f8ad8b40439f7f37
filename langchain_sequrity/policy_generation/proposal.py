"""What came back: a policy that was checked, or an error that shows what is wrong with it.

A policy that is too long for a header, in parts: each says what it says of a group of tools.
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


# Servers of tools put their own name in front: `github__get_file`.
_SERVER = re.compile(r"(.+?)(?:__+|[.:/])")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_NAME = re.compile(r"\w+")
_MATCHING_SECONDS = 2.0


def split(policy: Policy, tools: Sequence[str], limit: int) -> list[tuple[tuple[str, ...], str]]:
    """Divide a policy by groups of tools.

    Args:
        policy: A policy that compiles.
        tools: The names of the tools it is for.
        limit: How long a header line may be, in bytes.

    Returns:
        Names of tools, and the policy for these; tools of one server, or whose names have a word in
        common, stay together where they fit. Nothing at all if one tool's rules are too long.
    """
    rules = _Rules(policy)
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
    """Tools that belong together, as far as their names tell."""
    nouns = {tool: [word.lower().rstrip("s") for word in _WORD.findall(tool)[1:]] for tool in tools}
    common = Counter(noun for found in nouns.values() for noun in set(found))
    families: dict[str, list[str]] = {}
    for tool in tools:
        server = _SERVER.match(tool)
        family = server[1] if server else max(nouns[tool], key=common.__getitem__, default=tool)
        families.setdefault(family, []).append(tool)
    return map(tuple, families.values())


def _portions(rules: "_Rules", family: Sequence[str], limit: int) -> Iterator[tuple[str, ...]]:
    """A family, or as many parts of it as it takes."""
    some: tuple[str, ...] = ()
    for tool in family:
        if some and not rules.fit((*some, tool), limit):
            yield some
            some = ()
        some = (*some, tool)
    yield some


class _Rules:
    """What a policy says of each tool.

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
        """The policy for some tools, with the names that it uses."""
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
        # In doubt a rule stays.
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
