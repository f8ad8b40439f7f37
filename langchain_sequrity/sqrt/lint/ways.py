"""What a policy can do in each way of using it, and what has no purpose there.

The four ways differ in who makes the calls, so they differ in the labels that arguments, results
and the session may have. `WAYS` says how.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from langchain_sequrity.display import plain
from langchain_sequrity.sqrt.coerce import INTERNAL_TOOLS, PolicySettings
from langchain_sequrity.sqrt.compiler import Reporter
from langchain_sequrity.sqrt.endorsements import endorsements_in, is_endorsement, tool_of
from langchain_sequrity.sqrt.engine import LLM_BLOCKED
from langchain_sequrity.sqrt.lint.checked_policy import CheckedPolicy, CheckedTool
from langchain_sequrity.sqrt.nodes import Position
from langchain_sequrity.suggestions import suggest

Way = Literal["single-llm", "dual-llm", "middleware", "executor"]
"""`ChatSequrity` in a mode of the service, `PolicyMiddleware`, or `LangGraphExecutor`."""

ArgumentLabels = Literal["none", "shared", "separate"]
"""No argument has labels, all arguments of a call have the same labels, or each has its own."""

NonExecutable = Literal["always", "perhaps", "never"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a policy can do in one way.

    Attributes:
        where: The way, as it begins a sentence.
        argument_labels: Which labels arguments have.
        tool_producers: Whether the name of a tool is a producer of its results.
        non_executable: Whether each result gets the tag `__non_executable`; "perhaps" if that
            depends on what is unknown.
        any_result_labels: Whether a result may have labels that its tool sets, whatever the tool.
        runs_programs: Whether programs make the calls. Then `branching_meta_policy` has an effect,
            rules for the service's own tools have a purpose, and the service may set labels of its
            own on values (`__…`).
        endorses: Whether arguments may have endorsements.
        data_model: Whether a data model reads values, and not those tagged `__llm_blocked`.
        modes: Whether the policy's mode has an effect.
        without_labels: The sentence that arguments have no labels; empty if they have.
        advice: What to do about it.
    """

    where: str
    argument_labels: ArgumentLabels = "separate"
    tool_producers: bool = False
    non_executable: NonExecutable = "always"
    any_result_labels: bool = False
    runs_programs: bool = False
    endorses: bool = False
    data_model: bool = False
    modes: bool = True
    without_labels: str = ""
    advice: str = ""


_CHOOSE_DUAL = 'Choose dual-LLM mode: `features={"agent_arch": "dual-llm"}`'
WAYS: Mapping[Way, Capabilities] = MappingProxyType(
    {
        "single-llm": Capabilities(
            "In single-LLM mode",
            argument_labels="none",
            non_executable="never",
            without_labels="In single-LLM mode arguments have no labels",
            advice=f"{_CHOOSE_DUAL}; or ask for `@session` labels",
        ),
        "dual-llm": Capabilities(
            "In dual-LLM mode", runs_programs=True, endorses=True, data_model=True
        ),
        "middleware": Capabilities(
            "With `PolicyMiddleware`", argument_labels="shared", modes=False
        ),
        "executor": Capabilities(
            "With `LangGraphExecutor`",
            tool_producers=True,
            any_result_labels=True,
            # They call none of the service's own tools, so a rule that denies these is obeyed.
            runs_programs=True,
        ),
    }
)

ANY_WAY = Capabilities(
    "",
    tool_producers=True,
    non_executable="perhaps",
    runs_programs=True,
    endorses=True,
    data_model=True,
)
"""For a policy of which the way is unknown: what at least one way can do."""

UNSET_MODE = replace(
    WAYS["single-llm"],
    where="Without `features`, and in single-LLM mode,",
    non_executable="perhaps",
    runs_programs=True,
    endorses=True,
    data_model=True,
    without_labels=(
        "Without `features` the key's own configuration decides on the mode (a local server is in "
        "single-LLM mode), and in single-LLM mode arguments have no labels"
    ),
)
"""For a model without `features`: nothing promises more than single-LLM mode."""

UNLABELLED_MIDDLEWARE = replace(
    WAYS["middleware"],
    argument_labels="none",
    without_labels='With `labelling="none"` arguments have no labels',
    advice="Remove `labelling`, or use conditions on values and `@session` labels",
)
"""`PolicyMiddleware(labelling="none")`."""


def is_applied(tool: CheckedTool, capabilities: Capabilities) -> bool:
    """Whether a block is for a tool that calls in a way may have."""
    if tool.matched_tools is not None:
        return bool(tool.matched_tools)
    name = tool.node.tool.text
    return capabilities.runs_programs or name.kind != "plain" or name.raw not in INTERNAL_TOOLS


# Findings


def find_absent_service_tools(
    policy: CheckedPolicy, capabilities: Capabilities, tools: Collection[str] | None
) -> None:
    """Warn of rules for the service's own tools in a way that does not have them."""
    if capabilities.runs_programs:
        return
    for tool in policy.tools:
        name = tool.node.tool.text
        if name.kind == "plain" and name.raw in INTERNAL_TOOLS and name.raw not in (tools or ()):
            policy.report(
                "warning", f"Only dual-LLM sessions have the tool `{name.raw}`, so this does "
                "nothing here", tool.node.tool.at,
                f"{_CHOOSE_DUAL}; or remove it",
                lets_through=True,
            )  # fmt: skip


def find_rules_of_fields(
    policy: CheckedPolicy, capabilities: Capabilities, tools: Collection[str] | None
) -> None:
    """Report blocks for fields of results that have rules, or that do nothing in a way."""
    for tool in policy.tools:
        name, position = tool.node.tool.text.raw, tool.node.tool.at
        if "/" not in name or tools is None or name in tools or not tool.matched_tools:
            continue
        if tool.compiled.checks or any(step.phase != "result" for step in tool.compiled.steps):
            policy.report(
                "error", f"`{plain(name, limit=80)}` is a field of a result, which is not called",
                position, "Write `result { … }`, or `-> @tags …`; rules belong to the tool",
                lets_through=True,
            )  # fmt: skip
        elif not capabilities.runs_programs:
            policy.report(
                "warning", f"{capabilities.where or 'Here'} fields of results have no labels of "
                "their own, so this does nothing", position, _CHOOSE_DUAL,
            )  # fmt: skip


def find_misused_endorsements(
    policy: CheckedPolicy, capabilities: Capabilities, tools: Collection[str] | None
) -> None:
    """Report endorsements that nothing sets where they are tested, and rules that need none.

    Only rules see them, on single arguments. A service that does not know them sets none, so a rule
    must not deny because of one.
    """
    for clause in policy.clauses:
        for update in clause.updates:
            for tag in sorted(endorsements_in((update.set,))):
                policy.report(
                    "error", f"`{plain(tag, limit=80)}` is set by the server alone", update.at,
                    "Use a name without `__`", lets_through=True,
                )  # fmt: skip
        for test, passes in policy.tests(clause):
            for meta, text in policy.labels(test):
                if not is_endorsement(text.raw):
                    continue
                is_seen = clause.rule is not None and meta.scope == "arg"
                misuse, advice = _misuse(text.raw, capabilities, tools, passes=passes)
                if not is_seen:
                    misuse = "Only rules for single arguments see `{}`"
                    advice = "Write `<argument>.tags`, in a rule"
                if misuse:
                    tag = plain(text.raw, limit=80)
                    policy.report(
                        "warning", misuse.format(tag), text.at, advice, lets_through=not passes
                    )


def _misuse(
    tag: str, capabilities: Capabilities, tools: Collection[str] | None, *, passes: bool
) -> tuple[str, str]:
    """What is wrong with a test of an endorsement, with `{}` for its name, and what to do."""
    if not passes:
        return "A value without `{}` passes more easily, and in doubt no value has it", (
            "Write `must deny when … and not …`"
        )
    if not capabilities.endorses:
        return f"{capabilities.where or 'Here'} nothing sets `{{}}`", _CHOOSE_DUAL
    tool = tool_of(tag)
    if tool and tools is not None and tool not in tools:
        return "There is no tool of this name, so nothing has `{}`", suggest(tool, tools)
    return "", ""


def find_idle_settings(
    settings: PolicySettings, capabilities: Capabilities, report: Reporter, *, has_rules: bool
) -> None:
    """Warn of fields of `X-Policy` that ask for what a way does not do.

    Args:
        settings: The fields.
        capabilities: What the policy can do.
        report: Receives findings.
        has_rules: Whether the policy has rules; without any, the mode is not the problem.
    """
    dual = f"{_CHOOSE_DUAL}; or leave it out"
    rows = (
        ("branching_meta_policy", settings.branches and not capabilities.runs_programs,
         "no branch", dual),
        ("branching_meta_policy",
         settings.branches and capabilities.runs_programs and settings.mode != "custom",
         "no branch without the mode `custom`", 'Add `mode="custom"`'),
        ("enable_non_executable_memory",
         settings.tags_results and capabilities.non_executable == "never",
         "no result", dual),
        ("auto_gen", settings.generates and capabilities.argument_labels == "none"
         and not capabilities.data_model, "no call", dual),
        ("mode", settings.mode == "strict" and has_rules and not capabilities.modes, "no call",
         "Use rules, or a way that has modes: dual-LLM mode, `LangGraphExecutor`"),
    )  # fmt: skip
    for name, is_idle, effect, advice in rows:
        if is_idle:
            report(
                "warning", f"{capabilities.where or 'Here'} `{name}` restricts {effect}",
                Position(1, 1), advice, lets_through=True,
            )  # fmt: skip


def find_open_blocks(
    policy: CheckedPolicy, capabilities: Capabilities, settings: PolicySettings
) -> None:
    """Warn of rules that tag data as blocked where nothing keeps it from a data model."""
    is_withheld = capabilities.data_model and settings.blocks
    where = f"{capabilities.where or 'Here'} nothing keeps"
    advice = "choose dual-LLM mode"
    if not settings.blocks:
        where, advice = "With `enable_llm_blocked_tag` false nothing keeps", "leave the field out"
    tested = {
        text.raw for clause in policy.clauses for test, _ in policy.tests(clause)
        for meta, text in policy.labels(test) if meta.field == "tags"
    }  # fmt: skip
    for clause in policy.clauses if not is_withheld and LLM_BLOCKED not in tested else ():
        for update in clause.updates:
            for text in policy.texts(update.set):
                if text.raw == LLM_BLOCKED and update.assignment in {"=", "|=", "^="}:
                    policy.report(
                        "warning", f"{where} data tagged `{LLM_BLOCKED}` from a model, and no rule "
                        "tests the tag", text.at,
                        f"Write a rule that tests it, or {advice}", lets_through=True,
                    )  # fmt: skip
