"""What is wrong with a policy beyond its syntax."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt.compiler import Report, Severity, Uses
from langchain_sequrity.sqrt.hints import nearest
from langchain_sequrity.sqrt.nodes import CheckRule, Policy, Position, ToolBlock, ToolId
from langchain_sequrity.sqrt.parser import parse
from langchain_sequrity.sqrt.patterns import Budget
from langchain_sequrity.sqrt.rules import compiled_tools
from langchain_sequrity.sqrt.values import Matcher

_INTERNAL_ARGUMENTS = {
    "parse_with_ai": ("query", "output_schema"),
    "verify_hypothesis": ("hypothesis", "context"),
    "complete_turn": ("value",),
    "set_policy": ("policy",),
}
INTERNAL_TOOLS = tuple(_INTERNAL_ARGUMENTS)
_MATCHING_SECONDS = 2.0  # for all regexes of a policy that name tools
# A schema that leaves to these what arguments there are.
_ELSEWHERE = ("$ref", "allOf", "anyOf", "oneOf", "patternProperties")


class LangChainTool(Protocol):
    """A tool of LangChain, as far as a policy can be about it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def args(self) -> Mapping[str, Any]:
        """The arguments that a model may give."""


AnyTool = str | Mapping[str, Any] | LangChainTool
"""A tool's name, its definition as it is sent to a model, or a LangChain tool."""


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


def check(text: str, tools: Iterable[AnyTool] | None = None) -> list[Finding]:
    """Look for mistakes in a policy.

    Args:
        text: The policy.
        tools: The tools it is for: names, definitions as they are sent to a model, or LangChain
            tools. Rules for a tool or an argument that does not exist protect nothing, so these
            are errors.

    Returns:
        What was found, in source order. A syntax error is the only finding then.

    Raises:
        UsageError: For what is no text, and for what is no tool.

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


def findings_in(policy: Policy, tools: Iterable[AnyTool] | None = None) -> list[Finding]:
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


class _Arguments(NamedTuple):
    """The arguments of a tool: those that are declared, and whether there may be others."""

    names: tuple[str, ...] = ()
    is_open: bool = True


class _KnownTools:
    """The tools a policy is for, to find rules for tools and arguments that do not exist."""

    def __init__(self, tools: Iterable[AnyTool], report: Report) -> None:
        is_one = isinstance(tools, str | bytes | Mapping) or hasattr(tools, "args_schema")
        if is_one or not isinstance(tools, Iterable):
            msg = f"`tools` is a list of tools; got {_shown(tools)}. Write `[…]` around it."
            raise UsageError(msg)
        self._report = report
        self._budget = Budget(_MATCHING_SECONDS)  # then whether a regex matches is unknown
        self._arguments = dict(map(_described, tools))
        for name, names in _INTERNAL_ARGUMENTS.items():
            self._arguments.setdefault(name, _Arguments(names, is_open=False))
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
            advice = nearest(tool.text.raw, self._arguments)
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
        lacking = [one for one in known if not one.is_open and argument not in one.names]
        tool = f"`{plain(found[0], limit=80)}`" if len(found) == 1 else "None of these tools"
        advice = nearest(argument, declared)
        if len(lacking) == len(found):
            lacks = "has no" if len(found) == 1 else "has an"
            self._report("error", f"{tool} {lacks} argument `{argument}`", at, advice)
        elif lacking:
            self._report("warning", f"Not all of these tools have an argument `{argument}`", at)
        elif advice and argument not in declared:
            declares = "does not declare the" if len(found) == 1 else "declares the"
            self._report("warning", f"{tool} {declares} argument `{argument}`", at, advice)


def _described(tool: AnyTool) -> tuple[str, _Arguments]:
    """A tool's name, and its arguments as far as they are known."""
    if isinstance(tool, str):
        return tool, _Arguments()
    if not isinstance(tool, Mapping):
        return _of_langchain(tool)
    inner = tool.get("function", tool)
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise _no_tool(tool)
    schema = inner.get("parameters", inner.get("input_schema"))
    if not isinstance(schema, Mapping):
        return inner["name"], _Arguments()
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        name = plain(inner["name"], limit=80)
        msg = (
            f"`properties` of the tool `{name}` is an object with its arguments; got "
            f"{_shown(properties)}."
        )
        raise UsageError(msg)
    others = schema.get("additionalProperties", False)
    is_open = others is not False or any(key in schema for key in _ELSEWHERE)
    return inner["name"], _Arguments(tuple(map(str, properties)), is_open)


def _of_langchain(tool: Any) -> tuple[str, _Arguments]:
    """A tool of LangChain, which is known by its form: policies need no LangChain."""
    name = getattr(tool, "name", None)
    if isinstance(name, str) and isinstance(schema := getattr(tool, "args_schema", None), Mapping):
        return _described({"name": name, "parameters": schema})
    arguments = getattr(tool, "args", None)
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        raise _no_tool(tool)
    return name, _Arguments(tuple(arguments), is_open=False)


def _no_tool(tool: Any) -> UsageError:
    advice = " Make a tool of the function with `langchain_core.tools.tool`."
    return UsageError(
        "`tools` takes names of tools, their definitions, and tools of LangChain; got "
        f"{_shown(tool)}.{advice if callable(tool) else ''}"
    )


def _shown(value: Any) -> str:
    return plain(repr(value), limit=80)
