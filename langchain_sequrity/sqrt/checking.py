"""What is wrong with a policy beyond its syntax."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt.compiler import Report, Severity, Uses
from langchain_sequrity.sqrt.hints import nearest
from langchain_sequrity.sqrt.nodes import CheckRule, Policy, Position, ToolBlock, ToolId
from langchain_sequrity.sqrt.parser import parse
from langchain_sequrity.sqrt.patterns import Budget
from langchain_sequrity.sqrt.rules import compiled_tools
from langchain_sequrity.sqrt.values import Matcher

INTERNAL_TOOLS = ("parse_with_ai", "verify_hypothesis", "complete_turn", "set_policy")


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


def check(text: str, tools: Iterable[str | Mapping[str, Any]] | None = None) -> list[Finding]:
    """Look for mistakes in a policy.

    Args:
        text: The policy.
        tools: The tools it is for, as names or as the definitions that are sent to a model. Rules
            for a tool or an argument that does not exist protect nothing, so these are errors.

    Returns:
        What was found, in source order. A syntax error is the only finding then.

    Example:
        ```python
        from langchain_sequrity.sqrt import check

        (finding,) = check('tool "send_mial" { must deny always; }', tools=["send_mail"])
        assert finding.severity == "error"
        assert finding.hint == "Did you mean `send_mail`?"
        ```
    """
    try:
        policy = parse(text)
    except PolicySyntaxError as error:
        message = str(error).removesuffix(f"\n{error.source}")
        return [Finding("error", message, error.line, error.column)]
    return findings_in(policy, tools)


def findings_in(
    policy: Policy, tools: Iterable[str | Mapping[str, Any]] | None = None
) -> list[Finding]:
    """Look for mistakes in a policy that is parsed; as `check`."""
    findings: list[Finding] = []

    def report(severity: Severity, message: str, at: Position, hint: str = "") -> None:
        findings.append(Finding(severity, message, at.line, at.column, hint))

    known = None if tools is None else _KnownTools(tools, report)
    for _ in compiled_tools(policy, report, known.visit if known else lambda *_: None):
        pass
    for node in policy.declarations:
        if isinstance(node, ToolBlock):
            _unreachable(node.checks, report)
            _mixed(node.checks, report)
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

    def __init__(self, tools: Iterable[str | Mapping[str, Any]], report: Report) -> None:
        self._report = report
        self._arguments = dict.fromkeys(INTERNAL_TOOLS, None) | dict(map(_described, tools))
        self._found: dict[ToolId, list[str]] = {}

    def visit(self, tool: ToolId, matches: Matcher, uses: Uses) -> None:
        """Check one rule or step of a tool."""
        if tool not in self._found:
            self._found[tool] = self._named(tool, matches)
            if not self._found[tool]:
                self._unknown_tool(tool)
        if found := self._found[tool]:
            for argument, at in uses.arguments.items():
                self._argument(argument, at, found)

    def _named(self, tool: ToolId, matches: Matcher) -> list[str]:
        if tool.text.kind == "plain":
            return [tool.text.raw] if tool.text.raw in self._arguments else []
        budget = Budget()
        return [name for name in self._arguments if matches(name, budget) is not False]

    def _unknown_tool(self, tool: ToolId) -> None:
        name = plain(tool.text.raw, limit=80)
        if tool.text.kind == "plain":
            advice = nearest(tool.text.raw, self._arguments)
            self._report("error", f"There is no tool `{name}`", tool.at, advice)
        else:
            self._report("error", f"No tool matches `{name}`", tool.at)

    def _argument(self, argument: str, at: Position, found: list[str]) -> None:
        lists = [names for tool in found if (names := self._arguments[tool]) is not None]
        without = [names for names in lists if argument not in names]
        if not without:
            return
        advice = nearest(argument, [name for names in lists for name in names])
        if len(without) == len(found):
            tool = f"`{plain(found[0], limit=80)}`" if len(found) == 1 else "None of these tools"
            lacks = "has no" if len(found) == 1 else "has an"
            self._report("error", f"{tool} {lacks} argument `{argument}`", at, advice)
        else:
            self._report("warning", f"Not all of these tools have an argument `{argument}`", at)


def _described(tool: str | Mapping[str, Any]) -> tuple[str, list[str] | None]:
    """A tool's name and the names of its arguments, or `None` where these are not known."""
    if isinstance(tool, str):
        return tool, None
    inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        found = plain(repr(tool), limit=80)
        msg = f"`tools` takes names of tools and their definitions; got {found}."
        raise UsageError(msg)
    schema = inner.get("parameters", inner.get("input_schema"))
    if not isinstance(schema, Mapping) or schema.get("additionalProperties"):
        return inner["name"], None
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        name, found = plain(inner["name"], limit=80), plain(repr(properties), limit=80)
        msg = f"`properties` of the tool `{name}` is an object with its arguments; got {found}."
        raise UsageError(msg)
    return inner["name"], [str(name) for name in properties]
