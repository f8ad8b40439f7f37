"""A policy in English, rule by rule. Each sentence is true by V1 to V3 of `docs/behaviour.md`.

Each rule has its author's doc comments and the findings of `check`. Texts, patterns and times keep
the policy's quotes. Quotes cannot contain quotes, so none of the policy's text can be mistaken for
text of the explanation.
"""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from typing_extensions import override

from langchain_sequrity.display import enumeration, plain
from langchain_sequrity.display.tables import Cell, Table, TableMixin, Tone
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.coerce import engine_of, policy_of
from langchain_sequrity.sqrt.engine import LLM_BLOCKED, NON_EXECUTABLE, PARSE_WITH_AI
from langchain_sequrity.sqrt.lint import Finding, findings_in
from langchain_sequrity.sqrt.node_text import PREFIXES
from langchain_sequrity.sqrt.nodes import Policy, Position, bindings_of, items_of, tools_of
from langchain_sequrity.sqrt.policy_forms import AnyPolicy
from langchain_sequrity.sqrt.verdict import Presets

_PAIR = 2
_KINDS = {"int": "whole number", "float": "number"}
_INFINITE = {math.inf: "infinity", -math.inf: "minus infinity"}


def quoted(text: nodes.TextLiteral) -> str:
    """A text as written in the policy."""
    return f'{PREFIXES[text.kind]}"{plain(text.raw)}"'


def element(  # noqa: C901, PLR0911 - one per construct
    node: nodes.Element | nodes.Constant, field: nodes.Field | None = None, article: str = "any"
) -> str:
    """A literal, or the values of a domain; `article` precedes a kind of values."""
    match node:
        case nodes.TextLiteral(kind="plain", raw="*") if field == "consumers":
            return f"{quoted(node)} (everyone)"
        case nodes.TextLiteral(kind="plain"):
            return quoted(node)
        case nodes.TextLiteral():
            return f"{article} text that matches {quoted(node)}"
        case nodes.BooleanLiteral(value=value) | nodes.BoolDomain(value=value):
            return "true" if value else "false"
        case nodes.NumberLiteral(value=number):
            return _INFINITE.get(number) or str(number)
        case nodes.TimeLiteral(written=int() | float() as seconds, at=position):
            return f"{element(nodes.NumberLiteral(seconds, position))} seconds after 1970 began"
        case nodes.TimeLiteral(written=written):
            return f'd"{plain(str(written))}"'
        case nodes.NumberDomain(kind=number_type, range=bounds):
            return _bounded(_KINDS[number_type], bounds, article)
        case nodes.TimeDomain():
            return _bounded("time", node, article)
        case nodes.TextDomain(text=text, length=length):
            description = element(text, article=article)
            if length is None:
                return description
            if length.low is not None and length.low == length.high:
                return f"{description} with a length of {element(length.low)}"
            return f"{description} with a length {_interval(length)}"


def _bounded(noun: str, bounds: nodes.Range[Any], article: str) -> str:
    if bounds.low is not None and bounds.low == bounds.high:
        return f"the {noun} {element(bounds.low)}"
    return f"{article} {noun} {_interval(bounds)}"


def _interval(bounds: nodes.Range[Any]) -> str:
    above, below = (
        ("after", "before") if isinstance(bounds, nodes.TimeDomain) else ("above", "below")
    )
    low, high = (None if end is None else element(end) for end in (bounds.low, bounds.high))
    start = "" if low is None else f"{above if bounds.low_open else 'from'} {low}"
    end = "" if high is None else f"{below if bounds.high_open else 'up to'} {high}"
    if not start:
        return end
    if not end:
        return start if bounds.low_open else f"{start} on"
    return f"{start} and {end}" if bounds.low_open or bounds.high_open else f"{start} {end}"


def joined(operator: nodes.Operator, parts: list[str]) -> str:
    """Sets joined by an operator, from left to right."""
    match operator:
        case "|":
            return f"the union of {enumeration(parts)}"
        case "&":
            return f"what is in {'both' if len(parts) == _PAIR else 'all of'} {enumeration(parts)}"
        case "-":
            return f"what is in {parts[0]} and not in {enumeration(parts[1:], 'or')}"
        case "^":
            count = "exactly one" if len(parts) == _PAIR else "an odd number"
            return f"what is in {count} of {enumeration(parts)}"


_TESTS: dict[nodes.MetaTest, tuple[str, str]] = {
    "overlaps": ("include at least one of", "include none of"),
    "subset": ("include nothing except", "include something other than"),
    "superset": ("include all of", "do not include all of"),
    "==": ("are exactly", "are not exactly"),
    "empty": ("are empty", "are not empty"),
    "universal": ("are universal", "are not universal"),
}


_CHANGES: dict[nodes.Assignment, str] = {
    "=": "makes {} exactly {}",
    "|=": "adds to {}: {}",
    "-=": "removes from {}: {}",
    "&=": "keeps of {} only what is also in {}",
    "^=": "replaces {} by what is in them or in {}, but not in both",
}


class Wording:
    """Words for nodes at one place of a policy.

    Args:
        short: The owner of `@tags` and the like there; empty if unknown.
    """

    def __init__(self, short: str = "") -> None:
        self._short = short

    # Conditions

    def condition(self, node: nodes.Predicate, *, holds: bool = True) -> str:
        """A condition or its negation, in words that can follow "when"."""
        match node:
            case nodes.Not(inner=inner):
                return self.condition(inner, holds=not holds)
            case nodes.And(parts=parts) | nodes.Or(parts=parts):
                word = " and " if isinstance(node, nodes.And) else " or "
                words = word.join(map(self._part, parts))
                return words if holds else f"it is not true that ({words})"
            case nodes.Name(name=name):
                return f"`{name}` {'holds' if holds else 'does not hold'}"
            case nodes.Membership():
                return self._in(node, "is" if holds else "is not")
            case nodes.Equality():
                equals = "equals" if holds else "does not equal"
                return f"{self._operand(node.left)} {equals} {self._operand(node.right)}"
            case nodes.LabelTest():
                return f"{self.labels(node.left)} {self._compared(node, holds=holds)}"

    def _part(self, node: nodes.Predicate) -> str:
        words = self.condition(node)
        return f"({words})" if isinstance(node, nodes.And | nodes.Or) else words

    def _in(self, node: nodes.Membership, is_: str) -> str:
        value, members = self._operand(node.value), node.set
        if isinstance(members, nodes.SetLiteral) and members.elements:
            choices = enumeration([element(e, article="a") for e in members.elements], "or")
            return f"{value} {is_} {'' if len(members.elements) == 1 else 'one of '}{choices}"
        if isinstance(members, nodes.Meta):
            return f"{value} {is_} among {self.labels(members)}"
        return f"{value} {is_} in {self.set(members)}"

    def _compared(self, node: nodes.LabelTest, *, holds: bool) -> str:
        field, test = node.left.field, node.test
        words = _TESTS[test][0 if holds else 1]
        if node.right is None:
            return words.replace("universal", "everyone") if field == "consumers" else words
        right = self.set(node.right, field)
        is_single = isinstance(node.right, nodes.SetLiteral) and len(node.right.elements) == 1
        if is_single and test in {"overlaps", "superset"}:
            words = "include" if holds else "do not include"
        return f"{words} {right}"

    def _operand(self, node: nodes.Operand) -> str:
        match node:
            case nodes.ValueRef(scope="arg", argument=argument):
                return f"the value of `{argument}`"
            case nodes.ValueRef(scope=scope):
                return f"the value of the {scope}"
            case _:
                return element(node)

    # Sets

    def set(self, node: nodes.Set, field: nodes.Field | None = None) -> str:
        """A set; among consumers `"*"` is everyone."""
        match node:
            case nodes.SetLiteral(elements=elements):
                texts = [element(literal, field) for literal in elements]
                return enumeration(texts) if texts else "the empty set"
            case nodes.Meta():
                return self.labels(node)
            case nodes.Name(name=name):
                return f"`{name}`"
            case nodes.SetOperation(operator=operator, operands=operands):
                return joined(operator, [self._operand_of_set(part, field) for part in operands])
            case nodes.SetEdit(base=base, edits=edits):
                changes = [
                    f"{'with' if added else 'without'} {element(edit, field)}"
                    for added, edit in edits
                ]
                return f"{self._operand_of_set(base, field)} {' and then '.join(changes)}"

    def _operand_of_set(self, node: nodes.Set, field: nodes.Field | None) -> str:
        words = self.set(node, field)
        is_simple = isinstance(node, nodes.Name | nodes.Meta) or (
            isinstance(node, nodes.SetLiteral) and len(node.elements) <= 1
        )
        return words if is_simple else f"({words})"

    def labels(self, node: nodes.Meta) -> str:
        """Labels with their owner."""
        match node.scope:
            case "arg":
                return f"the {node.field} of `{node.argument}`"
            case "args":
                how = "that all arguments share" if node.intersect else "of all arguments together"
                return f"the {node.field} {how}"
            case "short" if not self._short:
                return f"the {node.field} that `@{node.field}` means here"
            case scope:
                return f"the {node.field} of the {self._short if scope == 'short' else scope}"

    # Changes

    def update(self, node: nodes.Update) -> str:
        """A change of labels, in words that can follow "it"."""
        field = node.target.field
        change = _CHANGES[node.assignment].format(
            self.labels(node.target), self.set(node.set, field)
        )
        is_doubtful = node.assignment == "|=" and field == "consumers"
        return (
            f"{change} (if these are everyone, only the added ones stay)" if is_doubtful else change
        )


_OWNERS: dict[nodes.Phase, str] = {"before": "session", "result": "result", "after": "session"}
_MOMENTS: dict[nodes.Phase, str] = {
    "before": "Before a call is checked, and also if it is then denied",
    "result": "When a call returns",
    "after": "When a call has returned and its result has its labels",
}
_CAUTIOUS = (
    "If the condition is unknown, tags and producers may be added and consumers removed, and "
    "nothing else changes."
)
_UNMET = " If the condition is false or unknown, the call is denied, unless another rule allows it."
_UNLESS = ", unless the policy's header says otherwise"

# Words of conditions that depend on tags which no rule names.
_OF_ALL_TAGS = ("empty", "are exactly", "are not exactly", "nothing except", "something other than")
_CONDITIONS = nodes.Membership | nodes.Equality | nodes.LabelTest | nodes.Not | nodes.And | nodes.Or


def tool_name(tool: nodes.ToolId | None) -> str:
    """The id of a rule's tool, its regex as written, or an empty text."""
    if tool is None:
        return ""
    return plain(tool.text.raw) if tool.text.kind == "plain" else quoted(tool.text)


def title(tool: nodes.ToolId) -> str:
    """The title of a block."""
    if tool.text.kind == "plain":
        return f"Tool {quoted(tool.text)}"
    return f"Tools whose id matches {quoted(tool.text)}"


def sentence_of(item: nodes.PolicyItem) -> str:
    """The effect of a rule, an update, a priority or a name."""
    match item.node:
        case nodes.Binding() as node:
            return _binding(node)
        case nodes.CheckRule() as node:
            return _check_rule(node, item.priority)
        case nodes.UpdateStep() as node:
            return _step(item, node)
        case nodes.NumberLiteral(value=value):
            return f"The `should` rules of this block have priority {value}."
        case nodes.UpdateBlock(phase=phase):
            return f"{_MOMENTS[phase]}, the policy changes nothing."


def short_text(item: nodes.PolicyItem) -> str:
    """A check rule as written, or the effect of an update in a few words."""
    node = item.node
    if not isinstance(node, nodes.UpdateStep):
        return (
            plain(" ".join(node.text.split()))
            if isinstance(node, nodes.CheckRule)
            else sentence_of(item)
        )
    when = "" if node.condition is None else f"if {_condition_of(item, node.condition)}, "
    return f"{when}{_changes(item, node)}"


def _binding(node: nodes.Binding) -> str:
    """The meaning of a name."""
    value = node.value
    if isinstance(value, nodes.Name):
        return f"`{node.name}` is another name for `{value.name}`."
    if isinstance(value, _CONDITIONS):
        return f"`{node.name}` holds when {Wording().condition(value)}."
    means = element(value) if isinstance(value, nodes.Domain) else Wording().set(value)
    return f"`{node.name}` means {means}."


def _check_rule(node: nodes.CheckRule, priority: float) -> str:
    """The effect of a check rule."""
    outcome = "denied" if node.decision == "deny" else "allowed"
    if node.condition is None:
        effect = f"Every call is {outcome}"
    else:
        effect = f"A call is {outcome} when {Wording().condition(node.condition)}"
    if node.strength == "hard" and node.decision == "deny":
        return f"{effect}. No other rule can change that.{_if_unknown(node)}"
    if node.strength == "hard":
        unmet = "" if node.condition is None else _UNMET
        return f"{effect}, unless a `must deny` applies.{unmet}"
    is_deny = node.decision == "deny"
    rival = "has a higher rank allows it" if is_deny else "has the same or a higher rank denies it"
    rank = f"(priority {priority})"
    return (
        f"{effect} {rank}, unless a `must` decides, or a `should` that {rival}.{_if_unknown(node)}"
    )


def _if_unknown(node: nodes.CheckRule) -> str:
    if node.condition is None:
        return ""
    effect = "applies" if node.decision == "deny" else "does not apply"
    return f" If the condition is unknown, the rule {effect}."


def _step(item: nodes.PolicyItem, node: nodes.UpdateStep) -> str:
    unknown = "" if node.condition is None or not node.updates else f" {_CAUTIOUS}"
    when = "" if node.condition is None else f", if {_condition_of(item, node.condition)}"
    rank = f" It has priority {item.priority}." if item.priority else ""
    changes = _changes(item, node)
    return f"{_MOMENTS[item.phase]}{when}, the policy {changes}.{unknown}{rank}"


def _condition_of(item: nodes.PolicyItem, node: nodes.Predicate) -> str:
    return Wording("" if item.one_liner else _OWNERS[item.phase]).condition(node)


def _changes(item: nodes.PolicyItem, node: nodes.UpdateStep) -> str:
    words = map(Wording(_OWNERS[item.phase]).update, node.updates)
    return "; then it ".join(words) or "changes nothing"


def notes_on(policy: Policy, sentences: str, presets: Presets | None = None) -> Iterator[str]:
    """General notes that the sentences about a policy's rules need.

    Args:
        policy: The policy.
        sentences: All sentences about its rules.
        presets: The built-in policies, if known.
    """
    assumed, unless = (presets, "") if presets else (Presets(), _UNLESS)
    tools = tools_of(policy)
    blocks = [node for node in tools if isinstance(node, nodes.ToolBlock)]
    if any(block.checks for block in blocks):
        yield (
            "A `must deny` that applies decides first; then a `must allow` whose condition "
            "fails, if no rule allows the call; then a `must allow` that applies; then the "
            "`should` rules that apply."
        )
        yield (
            "Of the `should` rules that apply, the highest rank decides: the higher priority, then "
            "`when` before `always`, then a denial before an allowance."
        )
    default = "allowed" if assumed.default_allow else "denied"
    yield f"Where no rule decides, the preset `default_allow` does: the call is {default}{unless}."
    if not tools:
        return
    if len(tools) > 1:
        yield "All blocks that name a tool or match its id count for it together."
    if len(tools) > len(blocks) or any(block.blocks for block in blocks):
        yield (
            "Changes of labels run in the order of the text. A result starts with the labels of "
            "the call's arguments and with its own."
        )
    ids = [node.tool.text for node in tools]
    if assumed.llm_blocked and any(t.kind != "plain" or t.raw == PARSE_WITH_AI for t in ids):
        yield (
            f"Before the rules the preset `llm_blocked_tag` denies calls of `{PARSE_WITH_AI}` "
            f"with data that is tagged `{LLM_BLOCKED}`{unless}."
        )
    if assumed.non_executable_memory and any(word in sentences for word in _OF_ALL_TAGS):
        yield (
            f"Each result gets the tag `{NON_EXECUTABLE}`, too, after the changes of its labels "
            "(preset `non_executable_memory`), and with it the arguments that are made from it: "
            f"their tags are never empty{unless}."
        )
    if any(isinstance(node.value, _CONDITIONS) for node in bindings_of(policy).values()):
        yield "A name for a condition applies to the arguments of the tool that uses it."
    if "consumers" in sentences:
        yield (
            'For consumers, the union of everyone (`"*"`) with names to its right has only these '
            "names."
        )
    yield (
        "Unknown denies. A test is unknown if readings of the language differ, or if the call "
        "leaves out an argument. Then rules that deny apply, and rules that allow do not. A "
        "verdict that depends on such a test says that it is not certain."
    )
    if any(text.kind != "plain" for text in ids):
        yield (
            "Whether a regex must match the whole of an id is unknown: where it matches a part, "
            "denials count and allowances do not."
        )


_TOGETHER = (
    "A call is denied if one of the policies denies it. All of them read and change the same "
    "labels. What follows is true of each policy alone."
)
_SEVERAL = 2
_WIDTH = 100
_CELL_WIDTH = 250  # below the limit of a table cell
_END = Position(2**62, 0)
_TONES: dict[str, Tone] = {
    "must deny": "bad", "should deny": "bad", "must allow": "good", "should allow": "good",
}  # fmt: skip


def json_fields(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of a dataclass as JSON has them; `policy` only if there are several policies."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in items
        if (name, value) != ("policy", "")
    }


@dataclass(frozen=True, slots=True)
class ExplainedRule:
    """A rule, an update, a priority or a name, in English.

    Attributes:
        line: Its line, from 1.
        column: Its column, from 1.
        tool: The id of its tool, its regex as written, or an empty text for a name.
        kind: `must deny`, `should allow`, …, `result`, `session before`, `session after`,
            `priority` or `name`.
        sentence: Its effect.
        reasons: The author's doc comments on its block and on itself.
        remarks: Doubts and mistakes.
        policy: The name of its policy if several are explained, else an empty text.
    """

    line: int
    column: int
    tool: str
    kind: str
    sentence: str
    reasons: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    policy: str = ""

    def cell(self) -> Cell:
        """The rule in short lines for the cell of a table."""
        lines = (self.sentence, *_comments(self))
        return tuple(part for line in lines for part in textwrap.wrap(line, _CELL_WIDTH))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self, dict_factory=json_fields)


@dataclass(frozen=True, slots=True)
class Section:
    """The explanation of one block or one-liner, or of consecutive names.

    Attributes:
        title: The tools that it is about.
        line: Its line, from 1.
        reasons: The author's doc comment.
        remarks: Doubts about the tool's id.
        rules: Its rules in source order.
        policy: The name of its policy if several are explained, else an empty text.
    """

    title: str
    line: int
    reasons: tuple[str, ...]
    remarks: tuple[str, ...]
    rules: tuple[ExplainedRule, ...]
    policy: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Explanation(TableMixin):
    """A policy in English; made by `explain`. Its `str` is the whole text.

    Attributes:
        sections: Tools and names in source order; for several policies, those of each.
        notes: General notes.
    """

    sections: tuple[Section, ...]
    notes: tuple[str, ...]

    @property
    def rules(self) -> tuple[ExplainedRule, ...]:
        """All rules in source order."""
        return tuple(rule for section in self.sections for rule in section.rules)

    @override
    def text(self, width: int | None = None) -> str:
        """The whole text.

        Args:
            width: Characters in a line; 100 by default.
        """
        return "\n".join(_wrapped_lines(self._lines(), width or _WIDTH))

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Lines before wrapping, each with its indent."""
        yield 0, self._title()
        for section in self.sections:
            yield 0, ""
            of_policy = f" of `{section.policy}`" if section.policy else ""
            yield 0, f"{section.title} (line {section.line}{of_policy})"
            for line in _comments(section):
                yield 2, line
            for rule in section.rules:
                yield 2, f"Line {rule.line}, {rule.kind}: {rule.sentence}"
                for line in _comments(rule):
                    yield 6, line
        yield 0, ""
        yield 0, "In general"
        for note in self.notes:
            yield 2, note

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self, dict_factory=json_fields)

    @override
    def table(self) -> Table:
        """A table with a row for each rule, denials in red and allowances in green."""
        rules = self.rules
        return Table(
            self._title(),
            ("Line", "Tool", "Kind", "What it says"),
            tuple(
                ((line_cell(rule.line, rule.policy),), (rule.tool,), (rule.kind,), rule.cell())
                for rule in rules
            ),
            self.notes,
            tuple(_TONES.get(rule.kind, "") for rule in rules),
            frozenset({"Tool"}),
        )

    def _title(self) -> str:
        tools = {rule.tool for rule in self.rules} - {""}
        kinds = [rule.kind for rule in self.rules]
        checks = sum(rule.kind in _TONES for rule in self.rules)
        names, priorities = kinds.count("name"), kinds.count("priority")
        changes = len(kinds) - checks - names - priorities
        counts = (
            (len(tools), "tool"),
            (checks, "rule"),
            (changes, "label change"),
            (names, "name"),
        )
        counted = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)
        policies = len({section.policy for section in self.sections})
        return f"{'A policy' if policies < _SEVERAL else f'{policies} policies'} with {counted}"


def explain(policy: AnyPolicy) -> Explanation:
    """Explain a policy in English, rule by rule.

    Args:
        policy: Its text, the parsed policy, a `PolicyHeader`, an engine, or a list of policies, of
            which each is explained.

    Returns:
        The explanation. It names what is unknown (V2 in `docs/behaviour.md`).

    Raises:
        UsageError: If `policy` is not a policy.
        PolicySyntaxError: If the text is not SQRT. A policy that parses but does not compile is
            explained, with the mistakes as remarks.

    Example:
        ```python
        from langchain_sequrity.sqrt import explain

        explained = explain('tool "send_mail" { must deny when text.tags overlaps {"personal"}; }')
        (rule,) = explained.rules
        assert rule.kind == "must deny"
        assert rule.sentence.startswith(
            'A call is denied when the tags of `text` include "personal".'
        )
        print(explained)
        ```
    """
    if isinstance(policy, str | Path):
        policy = policy_of(policy)
    if isinstance(policy, Policy):
        return _explained(policy)
    engine = engine_of(policy)
    parts = [_explained(part.policy, part.presets, part.name) for part in engine.parts]
    if not parts:
        return _explained(engine.policy, engine.presets)
    names = [plain(part.name or "") for part in engine.parts]
    return Explanation(
        tuple(section for part in parts for section in part.sections),
        (_TOGETHER, *_joined_notes(dict(zip(names, (part.notes for part in parts), strict=True)))),
    )


def _joined_notes(notes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The notes on several policies, by their names: first those on all of them."""
    first, *others = notes.values()
    everywhere = [note for note in first if all(note in of_policy for of_policy in others)]
    yield from everywhere
    for name, of_policy in notes.items():
        yield from (f"In `{name}`: {note}" for note in of_policy if note not in everywhere)


def _explained(
    policy: Policy, presets: Presets | None = None, name: str | None = None
) -> Explanation:
    """The explanation of one policy, with its name if it is one of several."""
    declarations = policy.declarations
    ends = [*(node.at for node in declarations[1:]), _END]
    findings = findings_in(policy)
    sections = []
    for node, end in zip(declarations, ends, strict=False):
        inside = [finding for finding in findings if node.at <= _position_of(finding) < end]
        sections.append(_with_remarks(_section(node, name or ""), node.at, inside))
    sentences = " ".join(rule.sentence for section in sections for rule in section.rules)
    notes = notes_on(policy, sentences, presets)
    return Explanation(tuple(_merge_name_sections(sections)), tuple(notes))


def _section(node: nodes.Declaration, policy: str) -> Section:
    rules = tuple(explained_rule(item, policy) for item in items_of(node))
    if isinstance(node, nodes.Binding):
        return Section("Names", node.at.line, (), (), rules, policy)
    reasons = _reasons(node.doc) if isinstance(node, nodes.ToolBlock) else ()
    return Section(title(node.tool), node.at.line, reasons, (), rules, policy)


def explained_rule(item: nodes.PolicyItem, policy: str = "") -> ExplainedRule:
    """An item in English, without remarks."""
    tool, sentence = tool_name(item.tool), sentence_of(item)
    reasons = _reasons(*item.docs)
    return ExplainedRule(*item.at, tool, item.kind, sentence, reasons, policy=policy)


def line_cell(line: int, policy: str) -> str:
    """A line for the cell of a table, with the policy if there are several."""
    return f"{line} of {policy}" if policy else str(line)


def _reasons(*docs: str) -> tuple[str, ...]:
    return tuple(plain(" ".join(doc.split())) for doc in docs if doc.strip())


def _position_of(placed: ExplainedRule | Finding) -> Position:
    return Position(placed.line, placed.column)


def _with_remarks(section: Section, start: Position, findings: Sequence[Finding]) -> Section:
    """A section with the findings as remarks on its rules."""
    starts = [start, *map(_position_of, section.rules), _END]
    remarks_at = [
        tuple(_remark(finding) for finding in findings if low <= _position_of(finding) < high)
        for low, high in pairwise(starts)
    ]
    rules = [
        replace(rule, remarks=remarks)
        for rule, remarks in zip(section.rules, remarks_at[1:], strict=True)
    ]
    return replace(section, remarks=remarks_at[0], rules=tuple(rules))


def _remark(finding: Finding) -> str:
    mistake = "Mistake: " if finding.severity == "error" else ""
    hint = f" {_with_full_stop(finding.hint)}" if finding.hint else ""
    return f"{mistake}{_with_full_stop(finding.message)}{hint}"


def _with_full_stop(text: str) -> str:
    return text if text.endswith(("?", ".")) else f"{text}."


def _merge_name_sections(sections: Sequence[Section]) -> Iterator[Section]:
    """Sections, with consecutive names in one section."""
    for title, group in groupby(sections, key=lambda section: section.title):
        first, *others = group
        if title == "Names":
            rules = (rule for section in (first, *others) for rule in section.rules)
            yield replace(first, rules=tuple(rules))
        else:
            yield from (first, *others)


def _comments(explained: ExplainedRule | Section) -> Iterator[str]:
    """The author's comments in curly quotes, which they themselves cannot contain, and remarks."""
    for reason in explained.reasons:
        inside = reason.replace("\N{RIGHT DOUBLE QUOTATION MARK}", r"\u201d")
        yield f"The author: \N{LEFT DOUBLE QUOTATION MARK}{inside}\N{RIGHT DOUBLE QUOTATION MARK}"
    for remark in explained.remarks:
        yield f"Note: {remark}"


def _wrapped_lines(lines: Iterator[tuple[int, str]], width: int) -> Iterator[str]:
    for indent, line in lines:
        if not line:
            yield ""
        first, rest = " " * indent, " " * (indent + 4 if indent else 0)
        yield from textwrap.wrap(
            line, width, initial_indent=first, subsequent_indent=rest,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
