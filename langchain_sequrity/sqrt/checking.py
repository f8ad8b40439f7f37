"""What is wrong with a policy beyond its syntax."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.sqrt.addresses import find_leaks
from langchain_sequrity.sqrt.compiler import Report, Severity, Uses
from langchain_sequrity.sqrt.given import AnyPolicy, policy_of
from langchain_sequrity.sqrt.given_tools import INTERNAL_ARGUMENTS, AnyTool, arguments_of
from langchain_sequrity.sqrt.hints import nearest
from langchain_sequrity.sqrt.mentions import find_slips
from langchain_sequrity.sqrt.nodes import CheckRule, Policy, Position, ToolBlock, ToolId
from langchain_sequrity.sqrt.patterns import Budget
from langchain_sequrity.sqrt.rules import compiled_tools
from langchain_sequrity.sqrt.values import Matcher

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
    """

    severity: Severity
    message: str
    line: int
    column: int
    hint: str = ""


def check(policy: AnyPolicy, tools: Iterable[AnyTool] | None = None) -> list[Finding]:
    """Look for mistakes in a policy.

    Args:
        policy: Its text, the parsed policy, a `PolicyHeader`, or an engine.
        tools: The tools it is for: names, definitions as they are sent to a model, or LangChain
            tools. Rules for a tool or an argument that does not exist protect nothing, so these
            are errors.

    Returns:
        What was found, in source order. A syntax error is the only finding then.

    Raises:
        UsageError: For what is no policy, and for what is no tool.

    Example:
        ```python
        from langchain_sequrity.sqrt import check

        (finding,) = check('tool "send_mial" { must deny always; }', tools=["send_mail"])
        assert finding.severity == "error"
        assert finding.hint == "Did you mean `send_mail`?"
        ```
    """
    try:
        parsed = policy_of(policy)
    except PolicySyntaxError as error:
        message = str(error).removesuffix(f"\n{error.source}")
        return [Finding("error", message, error.line, error.column)]
    return findings_in(parsed, tools)


def findings_in(policy: Policy, tools: Iterable[AnyTool] | None = None) -> list[Finding]:
    """Look for mistakes in a policy that is parsed; as `check`."""
    findings: list[Finding] = []

    def report(severity: Severity, message: str, at: Position, hint: str = "") -> None:
        findings.append(Finding(severity, message, at.line, at.column, hint))

    known = None if tools is None else _KnownTools(tools, report)
    compiled = list(compiled_tools(policy, report, known.visit if known else lambda *_: None))
    for node in policy.declarations:
        if isinstance(node, ToolBlock):
            _unreachable(node.checks, report)
            _mixed(node.checks, report)
    if not any(found.severity == "error" for found in findings):  # what follows needs a meaning
        find_slips(policy, report)
        find_leaks(policy, compiled, report)
    return sorted(dict.fromkeys(findings), key=lambda found: (found.line, found.column))


# Rules that decide nothing


def _unreachable(checks: Sequence[CheckRule], report: Report) -> None:
    always: dict[tuple[str, str], tuple[int, CheckRule]] = {}
    for number, rule in enumerate(checks):
        if rule.condition is None:
            always.setdefault((rule.strength, rule.decision), (number, rule))
    for number, rule in enumerate(checks):
        for place, other in always.values():
            if place != number and _hides(other, rule, is_first=place < number):
                report(
                    "warning",
                    f"This rule decides nothing: `{plain(other.text, limit=60)}` in line "
                    f"{other.at.line} always applies",
                    rule.at,
                )
                break


def _hides(other: CheckRule, rule: CheckRule, *, is_first: bool) -> bool:
    """Whether `other`, which always applies, leaves `rule` in the same block without effect."""
    alike = other.strength == rule.strength and other.decision == rule.decision
    if other.strength == "hard":
        if rule.condition is None and alike:
            return is_first
        return other.decision == "deny" or rule.strength == "soft" or alike
    if rule.strength == "hard" or rule.condition is not None:
        return False
    return is_first if alike else other.decision == "deny"


def _mixed(checks: Sequence[CheckRule], report: Report) -> None:
    """An unmet `must allow` denies only if nothing else allows, which few have in mind."""
    others = [rule for rule in checks if rule.decision == "allow"]
    for rule in others:
        if rule.strength == "hard" and rule.condition is not None and len(others) > 1:
            report(
                "warning", "Beside another rule that allows, this one restricts nothing for sure",
                rule.at, "Write a prohibition as `must deny when not …`",
            )  # fmt: skip


# Tools


class _KnownTools:
    """The tools a policy is for, to find rules for tools and arguments that do not exist."""

    def __init__(self, tools: Iterable[AnyTool], report: Report) -> None:
        self._report = report
        self._budget = Budget(_MATCHING_SECONDS)  # then whether a regex matches is unknown
        self._arguments = arguments_of(tools)
        self._found: dict[ToolId, list[str]] = {}

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
            advice = nearest(tool.text.raw, self._arguments) or _as_regex(tool.text.raw)
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
        known = [self._arguments[tool] for tool in found]
        declared = [name for one in known for name in one.names]
        lacking = [one for one in known if one.lack(argument)]
        tool = f"`{plain(found[0], limit=80)}`" if len(found) == 1 else "None of these tools"
        scope = f"Did you mean `@{argument}`?" if argument in _SCOPES else ""
        advice = scope or nearest(argument, declared)
        if len(lacking) == len(found):
            lacks = "has no" if len(found) == 1 else "has an"
            self._report("error", f"{tool} {lacks} argument `{argument}`", at, advice)
        elif lacking:
            self._report("warning", f"Not all of these tools have an argument `{argument}`", at)
        elif advice and argument not in declared:
            declares = "does not declare the" if len(found) == 1 else "declares the"
            self._report("warning", f"{tool} {declares} argument `{argument}`", at, advice)


def _as_regex(name: str) -> str:
    """What to write instead of a name in which a star is to stand for anything."""
    if "*" not in name:
        return ""
    pattern = ".*" if name in {"*", ".*"} else f"^{name.replace('.*', '*').replace('*', '.*')}$"
    return f'A regex stands for many tools: `tool r"{plain(pattern, limit=80)}"`'
