"""Rules of a policy as sentences, each true by V1 to V3 of `docs/behaviour.md`."""

from collections.abc import Iterator
from typing import assert_never

from langchain_sequrity.display import plain
from langchain_sequrity.sqrt.engine import DATA_MODEL_TOOL, LLM_BLOCKED, NON_EXECUTABLE
from langchain_sequrity.sqrt.english.element_wording import domain, quoted
from langchain_sequrity.sqrt.english.wording import Wording
from langchain_sequrity.sqrt.listing import Listed
from langchain_sequrity.sqrt.nodes import (
    Binding,
    Block,
    BoolDomain,
    Both,
    CheckRule,
    Compared,
    Declaration,
    Either,
    In,
    Name,
    Not,
    Number,
    NumberDomain,
    Phase,
    Policy,
    Predicate,
    Same,
    Step,
    TextDomain,
    TimeDomain,
    ToolBlock,
    ToolId,
)
from langchain_sequrity.sqrt.verdict import Presets

_OWNERS: dict[Phase, str] = {"before": "session", "result": "result", "after": "session"}
_MOMENTS: dict[Phase, str] = {
    "before": "Before a call is checked, and also if it is then denied",
    "result": "When a call returns",
    "after": "When a call has returned and its result has its labels",
}
_CAUTIOUS = (
    "Where that is unknown, tags and producers may be added and consumers taken away, and nothing "
    "else changes."
)
_UNMET = " Where it is not so, or unknown, the call is denied, unless another rule allows it."
_UNLESS = ", unless the policy's header says otherwise"
# Words of conditions in which a tag counts that no rule names.
_OF_ALL_TAGS = ("empty", "are exactly", "are not exactly", "nothing beside", "something beside")
_CONDITIONS = In | Same | Compared | Not | Both | Either


def tool_name(tool: ToolId | None) -> str:
    """The tool that a rule is for, in short: its id, the regex as written, or nothing."""
    if tool is None:
        return ""
    return plain(tool.text.raw) if tool.text.kind == "plain" else quoted(tool.text)


def title(tool: ToolId) -> str:
    """The tools that a block is for."""
    if tool.text.kind == "plain":
        return f"Tool {quoted(tool.text)}"
    return f"Tools whose id matches {quoted(tool.text)}"


def sentence(listed: Listed) -> str:
    """What a rule, a change, a priority or a name does."""
    match listed.node:
        case Binding() as node:
            return _binding(node)
        case CheckRule() as node:
            return _check_rule(node, listed.priority)
        case Step() as node:
            return _step(listed, node)
        case Number(value=value):
            return f"The `should` rules of this block have priority {value}."
        case Block(phase=phase):
            return f"{_MOMENTS[phase]}, the policy changes nothing."
        case _:
            assert_never(listed.node)


def brief(listed: Listed) -> str:
    """A check rule as written, or what a change does, in a few words."""
    node = listed.node
    if not isinstance(node, Step):
        return (
            plain(" ".join(node.text.split())) if isinstance(node, CheckRule) else sentence(listed)
        )
    when = "" if node.condition is None else f"if {_condition_of(listed, node.condition)}, "
    return f"{when}{_changes(listed, node)}"


def _binding(node: Binding) -> str:
    """What a name stands for."""
    wording, value = Wording(), node.value
    match value:
        case Name(name=other):
            return f"`{node.name}` is another name for `{other}`."
        case In() | Same() | Compared() | Not() | Both() | Either():
            return f"`{node.name}` holds when {wording.condition(value)}."
        case BoolDomain() | NumberDomain() | TextDomain() | TimeDomain():
            return f"`{node.name}` means {domain(value)}."
        case _:
            return f"`{node.name}` means {wording.set(value)}."


def _is_condition(node: Declaration) -> bool:
    return isinstance(node, Binding) and isinstance(node.value, _CONDITIONS)


def _check_rule(node: CheckRule, priority: float) -> str:
    """What a check rule does."""
    done = "denied" if node.decision == "deny" else "allowed"
    if node.condition is None:
        said = f"Every call is {done}"
    else:
        said = f"A call is {done} when {Wording().condition(node.condition)}"
    if node.strength == "hard" and node.decision == "deny":
        return f"{said}. No other rule can change that.{_if_unknown(node)}"
    if node.strength == "hard":
        unmet = "" if node.condition is None else _UNMET
        return f"{said}, unless a `must deny` applies.{unmet}"
    rival = "ranks higher allows it" if node.decision == "deny" else "ranks no lower denies it"
    rank = f"(priority {priority})"
    return f"{said} {rank}, unless a `must` decides, or a `should` that {rival}.{_if_unknown(node)}"


def _if_unknown(node: CheckRule) -> str:
    if node.condition is None:
        return ""
    effect = "applies" if node.decision == "deny" else "does not apply"
    return f" Where that is unknown, the rule {effect}."


def _step(listed: Listed, node: Step) -> str:
    unknown = "" if node.condition is None or not node.updates else f" {_CAUTIOUS}"
    when = "" if node.condition is None else f", if {_condition_of(listed, node.condition)}"
    rank = f" It has priority {listed.priority}." if listed.priority else ""
    changes = _changes(listed, node)
    return f"{_MOMENTS[listed.phase]}{when}, the policy {changes}.{unknown}{rank}"


def _condition_of(listed: Listed, node: Predicate) -> str:
    return Wording("" if listed.one_liner else _OWNERS[listed.phase]).condition(node)


def _changes(listed: Listed, node: Step) -> str:
    words = map(Wording(_OWNERS[listed.phase]).update, node.updates)
    return "; then it ".join(words) or "changes nothing"


def _may_be(name: str, tool: ToolId) -> bool:
    return tool.text.kind != "plain" or tool.text.raw == name


def notes(policy: Policy, said: str, presets: Presets | None = None) -> Iterator[str]:
    """What holds for the policy as a whole, as far as what is said of its rules needs it.

    Args:
        policy: The policy.
        said: All that is said of its rules.
        presets: The built-in policies, where they are known.
    """
    usual, unless = (presets, "") if presets else (Presets(), _UNLESS)
    blocks = [node for node in policy.declarations if isinstance(node, ToolBlock)]
    tools = [node for node in policy.declarations if not isinstance(node, Binding)]
    if any(block.checks for block in blocks):
        yield (
            "A `must deny` that applies goes before all else; then a `must allow` whose condition "
            "fails, if no rule allows the call; then a `must allow` that applies; then the "
            "`should` rules that apply."
        )
        yield (
            "Of the `should` rules that apply, the highest rank decides: the higher priority, then "
            "`when` before `always`, then a denial before an allowance."
        )
    default = "allowed" if usual.default_allow else "denied"
    yield f"Where no rule decides, the preset `default_allow` does: the call is {default}{unless}."
    if not tools:
        return
    if len(tools) > 1:
        yield "All blocks that name a tool or match its id count for it together."
    if len(tools) > len(blocks) or any(block.blocks for block in blocks):
        yield (
            "Changes of labels run in the order of the text. A result starts with the labels of "
            "the call's arguments and with those that it brings."
        )
    if usual.llm_blocked and any(_may_be(DATA_MODEL_TOOL, node.tool) for node in tools):
        yield (
            f"Before the rules the preset `llm_blocked_tag` denies calls of `{DATA_MODEL_TOOL}` "
            f"with data that is tagged `{LLM_BLOCKED}`{unless}."
        )
    if usual.non_executable_memory and any(word in said for word in _OF_ALL_TAGS):
        yield (
            f"Each result gets the tag `{NON_EXECUTABLE}`, too, after the changes of its labels "
            "(preset `non_executable_memory`), and with it the arguments that are made from it: "
            f"their tags are never empty{unless}."
        )
    if any(_is_condition(node) for node in policy.declarations):
        yield "A name for a condition is about the arguments of whichever tool uses it."
    if "consumers" in said:
        yield 'Of consumers, everyone (`"*"`) united with names to its right is these names alone.'
    yield (
        "Unknown denies: where readings of the language differ, or an argument was left out, a "
        "test is unknown, and then rules that deny apply and rules that allow do not. A verdict "
        "that hangs on it says that it is not certain."
    )
    if any(node.tool.text.kind != "plain" for node in tools):
        yield (
            "Whether a regex must match the whole of an id is unknown: where it matches a part, "
            "denials count and allowances do not."
        )
