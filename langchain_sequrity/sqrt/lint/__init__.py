"""Checks of a policy beyond its syntax."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt.coerce import (
    INTERNAL_ARGUMENTS,
    MAX_HEADER_BYTES,
    OPEN_TOOLS,
    AnyPolicy,
    AnyTool,
    Arguments,
    allows_by_default,
    arguments_of,
    header_bytes,
    policy_of,
)
from langchain_sequrity.sqrt.compiler import (
    Reporter,
    Severity,
    Uses,
    compiled_tools,
    ignore_findings,
)
from langchain_sequrity.sqrt.lint.labels import find_blind, find_slips, find_unset
from langchain_sequrity.sqrt.lint.literals import as_regex, find_habits, find_leaks
from langchain_sequrity.sqrt.lint.rules import (
    find_disarmed,
    find_empty,
    find_mixed,
    find_unreachable,
)
from langchain_sequrity.sqrt.matchers import MatchBudget, Matcher
from langchain_sequrity.sqrt.nodes import (
    Policy,
    Position,
    ToolBlock,
    ToolId,
)
from langchain_sequrity.suggestions import meant, nearest

Mode = Literal["single-llm", "dual-llm"]
INTERNAL_TOOLS = tuple(INTERNAL_ARGUMENTS)

_MATCHING_SECONDS = 2.0  # for all regexes of a policy that name tools

_SCOPES = ("session", "result", "args")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or hardly meant so.

    Attributes:
        severity: `error` for what cannot work, `warning` for what may surprise.
        message: What it is.
        line: Its line, from 1.
        column: Its column, from 1.
        hint: What to do, or an empty text.
        lets_through: Whether a rule protects less than it seems to; such a warning is given where
            the policy is given, not only by `check`.
    """

    severity: Severity
    message: str
    line: int
    column: int
    hint: str = ""
    lets_through: bool = False


def check(
    policy: AnyPolicy,
    tools: Iterable[AnyTool] | None = None,
    *,
    mode: Mode | None = None,
    labels: Collection[str] = (),
) -> list[Finding]:
    """Look for mistakes in a policy.

    Args:
        policy: Its text, a `pathlib.Path` to a file with it, the parsed policy, a `PolicyHeader`,
            or an engine.
        tools: The tools it is for: names, definitions as they are sent to a model, LangChain
            tools, or what `bind_tools` makes one of. Rules for a tool or an argument that does not
            exist protect nothing, so these are errors.
        mode: `single-llm` to find what needs labels of arguments, which such sessions do not have.
        labels: Tags and producers that tools bring along (`labeled_tool_result`): of others that
            rules ask for and none sets, there is a warning.

    Returns:
        What was found, in source order. A syntax error is the only finding then.

    Raises:
        UsageError: For what is no policy, and for what is no tool or mode.

    Example:
        ```python
        from langchain_sequrity.sqrt import check

        (finding,) = check('tool "send_mial" { must deny always; }', tools=["send_mail"])
        assert finding.severity == "error"
        assert finding.hint == "Did you mean `send_mail`?"
        ```
    """
    if mode is not None and mode not in get_args(Mode):
        msg = f'`mode` is "single-llm" or "dual-llm"; got {plain(repr(mode), limit=80)}.'
        raise UsageError(msg)
    if isinstance(labels, str):
        msg = (
            f"`labels` is a list of names; got one text. Write `[{plain(repr(labels), limit=80)}]`."
        )
        raise UsageError(msg)
    if isinstance(labels, Mapping):
        msg = (
            '`labels` is a list of names, of tags and producers alike; got a dict. Write `["web"]`.'
        )
        raise UsageError(msg)
    try:
        parsed = policy_of(policy)
    except PolicySyntaxError as error:
        message = str(error).removesuffix(f"\n{error.source}")
        return [Finding("error", message, error.line, error.column)]
    return findings_in(
        parsed,
        tools,
        mode=mode,
        labels=labels,
        default_allow=allows_by_default(policy),
        header_bytes=header_bytes(policy, parsed),
    )


def findings_in(
    policy: Policy,
    tools: Iterable[AnyTool] | None = None,
    *,
    mode: Mode | None = None,
    labels: Collection[str] | None = None,
    default_allow: bool = False,
    header_bytes: int = 0,
) -> list[Finding]:
    """Look for mistakes in a policy that is parsed; as `check`, which knows where it came from.

    Args:
        policy: The policy.
        tools: The tools it is for.
        mode: The mode of its sessions.
        labels: Labels that tools bring along; `None` not to ask where labels come from.
        default_allow: Whether a call that no rule decides is known to be allowed.
        header_bytes: How long the header is with which it is sent; 0 if it is not sent.
    """
    findings = _Findings()
    report = findings.report
    known = None if tools is None else _KnownTools(tools, report)
    compiled = list(compiled_tools(policy, report, known.visit if known else lambda *_: None))
    for node in policy.declarations:
        if isinstance(node, ToolBlock):
            find_unreachable(node.checks, report)
            find_mixed(node.checks, report)
    if not findings.has_errors:  # what follows needs a meaning
        find_empty(policy, report, default_allow=default_allow)
        if header_bytes > MAX_HEADER_BYTES:
            report(
                "warning", f"Sent as a header this policy takes {header_bytes:,} bytes, and "
                f"{MAX_HEADER_BYTES:,} is the most that is sent",
                Position(1, 1), "Shorten it, or split it by groups of tools",
            )  # fmt: skip
        told = find_slips(policy, report)
        find_leaks(policy, compiled, report)
        found = known.found if known else _unknown
        told |= find_habits(policy, compiled, found, report)
        find_disarmed(
            policy, compiled, found, findings.places, report, default_allow=default_allow
        )  # fmt: skip
        if labels is not None:
            find_unset(policy, labels, None if known is None else known.names, told, report)
        if mode == "single-llm":
            find_blind(policy, compiled, report)
    return findings.in_order


def findings_of_mode(policy: Policy, mode: Mode) -> list[Finding]:
    """Only what a mode makes of a policy: rules that need labels which its sessions do not have.

    Args:
        policy: A policy that compiles.
        mode: The mode of its sessions.

    Returns:
        What was found, in source order; an error is a denial that never comes.
    """
    findings = _Findings()

    if mode == "single-llm":
        find_blind(policy, list(compiled_tools(policy, ignore_findings)), findings.report)
    return findings.in_order


def empty_findings(policy: Policy) -> list[Finding]:
    """Only whether a policy has no rules at all.

    Args:
        policy: A policy that compiles.

    Returns:
        At most one finding.
    """
    findings = _Findings()

    find_empty(policy, findings.report, default_allow=True)
    return findings.in_order


class _Findings:
    """Findings as they are reported."""

    def __init__(self) -> None:
        self._found: list[Finding] = []

    def report(
        self,
        severity: Severity,
        message: str,
        at: Position,
        hint: str = "",
        *,
        lets_through: bool = False,
    ) -> None:
        """Take one."""
        self._found.append(Finding(severity, message, at.line, at.column, hint, lets_through))

    @property
    def has_errors(self) -> bool:
        """Whether something cannot work."""
        return any(found.severity == "error" for found in self._found)

    @property
    def places(self) -> list[Position]:
        """Where something was found."""
        return [Position(found.line, found.column) for found in self._found]

    @property
    def in_order(self) -> list[Finding]:
        """All of them in source order, each once."""
        return sorted(dict.fromkeys(self._found), key=lambda found: (found.line, found.column))


def _unknown(_: ToolId) -> None:
    """The tools of a block where nobody has said which there are."""


# Tools


class _KnownTools:
    """The tools a policy is for, to find rules for tools and arguments that do not exist."""

    def __init__(self, tools: Iterable[AnyTool], report: Reporter) -> None:
        self._report = report
        self._budget = MatchBudget(_MATCHING_SECONDS)  # then whether a regex matches is unknown
        self._arguments = arguments_of(tools)
        self._found: dict[ToolId, list[str]] = {}

    @property
    def names(self) -> Collection[str]:
        """Their names."""
        return self._arguments.keys()

    def found(self, tool: ToolId) -> Mapping[str, Arguments]:
        """The tools that a block is for, with their arguments."""
        return {name: self._arguments[name] for name in self._found.get(tool, ())}

    def visit(self, tool: ToolId, matches: Matcher, uses: Uses) -> None:
        """Check one rule or step of a tool."""
        if tool not in self._found:
            self._found[tool] = self._named(tool, matches)
        if found := self._found[tool]:
            for argument, at in uses.arguments.items():
                self._argument(argument, at, found)

    def _named(self, tool: ToolId, matches: Matcher) -> list[str]:
        """The tools that a block is for; says if there is none, or none for sure."""
        shown = plain(tool.text.raw, limit=80)
        if tool.text.kind == "plain":
            if tool.text.raw in self._arguments:
                return [tool.text.raw]
            advice = nearest(tool.text.raw, self._arguments) or as_regex(tool.text.raw)
            self._report("error", f"There is no tool `{shown}`", tool.at, advice)
            return []
        matched = [(name, matches(name, self._budget)) for name in self._arguments]
        found = [name for name, truth in matched if truth is not False]
        if not found:
            self._report("error", f"No tool matches `{shown}`", tool.at)
        elif doubtful := [name for name, truth in matched if truth is None]:
            self._report(
                "warning", f"Whether `{shown}` matches `{plain(doubtful[0], limit=80)}` is unknown",
                tool.at, "Write `^…$` around the regex, and `.*` where anything may stand",
            )  # fmt: skip
        return found

    def _argument(self, argument: str, at: Position, found: list[str]) -> None:
        # The one tool that takes any names excuses no misspelling in a rule for many tools.
        found = [tool for tool in found if tool not in OPEN_TOOLS] or found
        known = [self._arguments[tool] for tool in found]
        declared = [name for one in known for name in one.names]
        lacking = [one for one in known if one.lack(argument)]
        tool = f"`{plain(found[0], limit=80)}`" if len(found) == 1 else "None of these tools"
        scope = meant(f"@{argument}") if argument in _SCOPES else ""
        advice = scope or nearest(argument, declared)
        if len(lacking) == len(found):
            lacks = "has no" if len(found) == 1 else "has an"
            self._report("error", f"{tool} {lacks} argument `{argument}`", at, advice)
        elif lacking:
            self._report("warning", f"Not all of these tools have an argument `{argument}`", at)
        elif advice and argument not in declared:
            declares = "does not declare the" if len(found) == 1 else "declares the"
            self._report("warning", f"{tool} {declares} argument `{argument}`", at, advice)
