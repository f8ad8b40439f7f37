"""Labels without effect: labels that nothing sets, misspelt labels, sessions without labels.

Tools and graph nodes also set labels, so a policy does not define which labels exist. But a policy
with `untrusted` in one place and `untrused` in another hardly means two tags, and a rule for a tag
that nothing sets protects nothing.
"""

from collections.abc import Collection
from typing import Literal, NamedTuple, get_args

from langchain_sequrity.display import plain
from langchain_sequrity.labels import RESERVED_PREFIX, Labels
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.compiler import Severity
from langchain_sequrity.sqrt.context import MISSING, Argument, Call, EvaluationContext
from langchain_sequrity.sqrt.diagnostics import SpellingIndex
from langchain_sequrity.sqrt.lint.checked_policy import (
    CheckedPolicy,
    Clause,
    LabelName,
    constant_effect,
    denies,
    operands_of,
    text_of,
    value_test,
)
from langchain_sequrity.sqrt.nodes import Position

_SHOWN = 60
_WORDS: dict[nodes.Field, str] = {"tags": "tag", "producers": "producer"}
"""Without consumers: rules remove them rather than set them."""

_Place = Literal["values", "session"]
_SETS = get_args(nodes.Set)


# Labels that nothing sets


class _Label(NamedTuple):
    field: nodes.Field
    name: str
    place: _Place


def find_unset(
    policy: CheckedPolicy,
    returned: Collection[str],
    tools: Collection[str] | None,
    reported: Collection[LabelName],
) -> None:
    """Warn of tags and producers that rules test and nothing sets.

    Args:
        policy: The policy.
        returned: Labels that tools set on their results.
        tools: Names of all tools. The result of a graph's tool has the tool's name as a producer,
            so producers are checked only if the tools are known.
        reported: Labels with earlier findings.
    """
    given, copied = _set_labels(policy)
    for label, at in _asked_labels(policy).items():
        is_known = label in given or (label.field, label.place) in copied
        is_known = is_known or label.name in returned or label.name.startswith(RESERVED_PREFIX)
        if label.field == "producers":
            is_known = is_known or tools is None or label.name in tools
        if is_known or (label.field, label.name) in reported:
            continue
        word, name = _WORDS[label.field], plain(label.name, limit=_SHOWN)
        if label.place == "session":
            where = "on the session"
            advice = f'Write `session after {{ @{label.field} |= {{"{name}"}}; }}` for a tool'
        else:
            where = "on results"
            advice = (
                f'Write `tool "…" -> @{label.field} |= {{"{name}"}};` for the tool it comes from, '
                "or have that tool return it with `labeled_tool_result`"
            )
        policy.report("warning", f"No rule sets the {word} `{name}` {where}", at, advice)


def _asked_labels(policy: CheckedPolicy) -> dict[_Label, Position]:
    """The tags and producers that rules test, each with its first position."""
    asked: dict[_Label, Position] = {}
    for clause in policy.clauses:
        for test, _ in policy.tests(clause):
            if isinstance(test, nodes.LabelTest) and test.test == "subset":
                continue  # it asks for the absence of all other labels
            for meta, text in policy.labels(test):
                is_unclear = meta.scope == "short" and isinstance(clause.tool.node, nodes.OneLiner)
                place = None if is_unclear else _label_owner(meta, clause)
                if meta.field in _WORDS and text.kind == "plain" and place is not None:
                    label = _Label(meta.field, text.raw, place)
                    asked[label] = min(text.at, asked.get(label, text.at))
    return asked


def _set_labels(
    policy: CheckedPolicy,
) -> tuple[set[_Label], set[tuple[nodes.Field, _Place]]]:
    """The labels that steps set, and the kinds of labels that they copy."""
    given: set[_Label] = set()
    copied: set[tuple[nodes.Field, _Place]] = set()
    for clause in policy.clauses:
        for update in clause.updates:
            field, place = update.target.field, _label_owner(update.target, clause)
            if place is None or update.assignment not in {"=", "|=", "^="}:
                continue
            for element in policy.elements(update.set):
                if isinstance(element, nodes.Meta):
                    copied.add((field, place))
                elif isinstance(element, nodes.TextLiteral):
                    given.add(_Label(field, element.raw, place))
    return given, copied


def _label_owner(meta: nodes.Meta, clause: Clause) -> _Place | None:
    """The owner of labels: values, whose labels results inherit, or the session."""
    if meta.scope == "session":
        return "session"
    if meta.scope != "short":
        return "values"
    if clause.phase is None:
        return None
    return "values" if clause.phase == "result" else "session"


# A mode without labels


def find_unlabelled(policy: CheckedPolicy) -> None:
    """Find rules that read labels of arguments, for a session whose arguments have no labels.

    A denial that never applies is an error.
    """
    for clause in policy.clauses:
        sides = [side for one, _ in policy.tests(clause) for side in operands_of(one)]
        sides += [update.set for update in clause.updates]
        read = [
            element for side in sides for element in policy.elements(side)
            if isinstance(element, nodes.Meta) and element.scope in {"arg", "args"}
        ]  # fmt: skip
        if read:
            arguments = {meta.argument: Argument(MISSING) for meta in read if meta.argument}
            severity, says = _without_labels(clause, arguments)
            policy.report(
                severity, f"In single-LLM mode arguments have no labels: {says}",
                min(one.at for one in read),
                'Choose dual-LLM mode: `features={"agent_arch": "dual-llm"}`; '
                "or ask for `@session` labels",
            )  # fmt: skip


def _without_labels(clause: Clause, arguments: dict[str, Argument]) -> tuple[Severity, str]:
    context = EvaluationContext(Call("", arguments), Labels())
    held = True if clause.test is None else clause.test(context)
    if clause.rule is None:
        return "warning", f"this change is {'never made' if held is False else 'made without them'}"
    rule = f"`{plain(' '.join(clause.rule.text.split()), limit=80)}`"
    if held is None:
        return "warning", f"{rule} is decided by the rest of its condition"
    severity: Severity = "warning" if denies(clause.rule, held=held) else "error"
    return severity, f"{rule} {constant_effect(clause.rule, held=held)}"


# Misspelt labels


def find_misspelt(policy: CheckedPolicy) -> set[LabelName]:
    """Warn of unused bindings, and of labels that are one slip away from another label.

    Consumers are not compared: they are people, and there are an Anna and an Anne.

    Returns:
        The labels with findings.
    """
    reported: set[LabelName] = set()
    used = {node.name for node in policy.all_nodes if isinstance(node, nodes.Name)}
    for name, binding in policy.bindings.items() if policy.tools else ():
        # A doc comment documents the purpose of an unused name.
        if name not in used and not binding.doc:
            policy.report("warning", f"Nothing uses `{plain(name, limit=_SHOWN)}`", binding.at)
    mentions = _mentions(policy)
    for field, kind in _WORDS.items():
        found, spellings = mentions[field], SpellingIndex()
        for name, at in sorted(found.items(), key=lambda item: item[1]):
            if other := spellings.near(name):
                line = found[other].line
                policy.report(
                    "warning", f"This {kind} is nearly `{plain(other)}` of line {line}",
                    at, "One of them may be misspelt",
                )  # fmt: skip
                reported |= {(field, name), (field, other)}
            spellings.add(name)
    return reported


def _mentions(policy: CheckedPolicy) -> dict[nodes.Field, dict[str, Position]]:
    """All labels by field, each with its first position, also those that a set leaves out."""
    mentions: dict[nodes.Field, dict[str, Position]] = {
        field: {} for field in get_args(nodes.Field)
    }
    for node in policy.all_nodes:
        match node:
            case nodes.LabelTest(left=one, right=other) | nodes.Update(target=one, set=other):
                parts: tuple[object, ...] = (one, other)
            case nodes.Membership(value=one, set=other):
                parts = (one, other)
            case nodes.Binding(value=one) if isinstance(one, _SETS):
                parts = (one,)
            case _:
                continue
        found = [one for part in parts for one in policy.elements(part, removed=True)]
        # A set without labels of an argument, the result or the session is a set of values.
        field = next((one.field for one in found if isinstance(one, nodes.Meta)), None)
        if field is None:
            continue
        for text in map(text_of, found):
            if isinstance(text, nodes.TextLiteral) and text.kind == "plain":
                at = mentions[field].setdefault(text.raw, text.at)
                mentions[field][text.raw] = min(at, text.at)
    return mentions


# Labels that are compared with values


def find_labels_as_values(policy: CheckedPolicy) -> None:
    """Warn of a denial that compares a value with a name that the policy sets as a label."""
    given: dict[str, nodes.Field] = {}
    for clause in policy.clauses:
        for update in clause.updates:
            if update.target.field != "consumers":  # these are people, and so are recipients
                for text in policy.texts(update.set):
                    given.setdefault(text.raw, update.target.field)
    for clause in policy.clauses if given else ():
        for test, passes in policy.tests(clause) if clause.rule else ():
            found = value_test(test)
            if found is None or found[0].scope != "arg" or passes:
                continue
            name = plain(found[0].argument, limit=_SHOWN)
            for text in policy.texts(found[1]):
                if field := given.get(text.raw):
                    label = plain(text.raw, limit=_SHOWN)
                    policy.report(
                        "warning", f"`{label}` is one of the {field} that this policy sets, but "
                        f"this rule compares the value of `{name}` with it", text.at,
                        f'Write `{name}.{field} overlaps {{"{label}"}}`', lets_through=True,
                    )  # fmt: skip
