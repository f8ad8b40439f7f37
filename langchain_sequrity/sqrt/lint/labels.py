"""Labels without effect: nothing sets or tests them, or they are misspelt.

Tools and graph nodes also set labels, so a policy does not define which labels exist. But a policy
with `untrusted` in one place and `untrused` in another hardly means two tags, and a rule for a tag
that nothing sets protects nothing.
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple, get_args

from langchain_sequrity.display import plain
from langchain_sequrity.labels import RESERVED_PREFIX
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.diagnostics import SpellingIndex
from langchain_sequrity.sqrt.endorsements import is_endorsement
from langchain_sequrity.sqrt.lint.checked_policy import (
    CheckedPolicy,
    Clause,
    LabelName,
    Owner,
    is_whole,
    metas_in,
    owner_of,
    text_of,
    value_test,
)
from langchain_sequrity.sqrt.lint.possible_labels import PossibleLabels
from langchain_sequrity.sqrt.nodes import Position

_LIMIT = 60
_NOUNS: dict[nodes.Field, str] = {"tags": "tag", "producers": "producer"}
"""Without consumers: rules remove them rather than set them."""

_SETS = get_args(nodes.Set)


# Labels that nothing sets


class _Label(NamedTuple):
    field: nodes.Field
    name: str
    owner: Owner


_OwnedField = tuple[nodes.Field, Owner]
UNSET = "No rule sets the"
"""Start of the warning about a label that rules test but nothing sets."""

_OWNERS: dict[Owner, str] = {"values": "results", "session": "the session"}


class TestedLabels(NamedTuple):
    """The labels that rules test, or copy with a change.

    Attributes:
        names: Tags and producers that are tested by name where labels are possible, each with its
            first position.
        named: All that are tested by name, also to decide whether a branch is allowed.
        sets: The kinds of labels that are tested, each with its first position.
        whole: The kinds of labels of which any may count: they are tested as a set, or copied.
    """

    names: dict[_Label, Position]
    named: set[LabelName]
    sets: dict[_OwnedField, Position]
    whole: set[_OwnedField]


class _Changed(NamedTuple):
    """The labels that steps change.

    Attributes:
        added: Tags and producers that are added by name, each with its first position.
        removed: Those that are removed by name.
        on_arguments: Those of `added` that arguments get before a call.
        sets: The kinds of labels that are changed, each with its first position.
        copied: The kinds of labels that are copied from others.
    """

    added: dict[_Label, Position]
    removed: dict[_Label, Position]
    on_arguments: set[_Label]
    sets: dict[_OwnedField, Position]
    copied: set[_OwnedField]


def find_unset(
    policy: CheckedPolicy,
    tested: TestedLabels,
    possible: PossibleLabels,
    outside: Collection[str],
    reported: Collection[LabelName],
) -> set[Position]:
    """Warn of labels that rules test and nothing sets, and of labels that nothing tests.

    Args:
        policy: The policy.
        tested: The labels that its rules test.
        possible: The labels that values and the session may have.
        outside: Labels that tools set on their results, or that programs test.
        reported: Labels with earlier findings.

    Returns:
        The positions with findings of labels that certainly nobody sets, or restricts.
    """
    changed = _changed_labels(policy)
    certain: set[Position] = set()
    if policy.is_read_in_part:
        return certain
    unset = set(reported)
    for label, position in {**changed.removed, **tested.names}.items():
        is_reported = (label.field, label.name) in reported
        if not is_reported and _is_set(label, possible, changed):
            continue
        if not _may_be_set(label, possible):
            certain.add(position)
        if is_reported:
            continue
        unset.add((label.field, label.name))
        name = plain(label.name, limit=_LIMIT)
        message = UNSET if label in tested.names else "This removes nothing: no rule sets the"
        tool = name if possible.is_other_tool(label.field, label.name) else "…"
        policy.report(
            "warning", f"{message} {_label_text(label)}", position,
            _advice(f'@{label.field} |= {{"{name}"}};', label.owner, tool),
            lets_through=label in tested.names and position in certain,
        )  # fmt: skip
    for (field, owner), position in tested.sets.items():
        is_open = field == "consumers" and (field, owner) not in changed.sets
        if is_open and not (outside and owner == "values"):
            policy.report(
                "warning", f"No rule restricts the consumers of {_OWNERS[owner]}, so they are "
                "everyone", position, _advice('@consumers = {"ana"};', owner),
                lets_through=not possible.may_restrict(owner),
            )  # fmt: skip
            if not possible.may_restrict(owner):
                certain.add(position)
    checks = (check for tool in policy.tools for check in tool.compiled.checks)
    if any(check.test or check.node.decision == "deny" for check in checks):
        # Otherwise the text is part of another policy, or a draft for tools that only read.
        _find_untested(policy, tested, changed, outside, unset)
    return certain


def impossible_labels(tested: TestedLabels, possible: PossibleLabels) -> set[LabelName]:
    """The labels that rules test and certainly nothing sets."""
    return {(label.field, label.name) for label in tested.names if not _may_be_set(label, possible)}


def _may_be_set(label: _Label, possible: PossibleLabels) -> bool:
    field, name, owner = label
    is_other_tool = owner == "values" and possible.is_other_tool(field, name)
    return possible.may_have(field, owner, name) and not is_other_tool


def _is_set(label: _Label, possible: PossibleLabels, changed: _Changed) -> bool:
    """Whether somebody sets a label, or it is copied from labels of which some are unknown."""
    field, name, owner = label
    is_copied = (field, owner) in changed.copied and possible.may_have(field, owner, name)
    return is_copied or label in changed.on_arguments or possible.is_set(field, owner, name)


def _is_known(label: _Label, outside: Collection[str], reported: Collection[LabelName]) -> bool:
    """Whether a label has a use outside of the policy, or an earlier finding."""
    is_external = label.name in outside or label.name.startswith(RESERVED_PREFIX)
    return is_external or (label.field, label.name) in reported


def _find_untested(
    policy: CheckedPolicy,
    tested: TestedLabels,
    changed: _Changed,
    outside: Collection[str],
    reported: Collection[LabelName],
) -> None:
    changes = {**changed.removed, **changed.added}
    known_fields = {label.field for label in changes if _is_known(label, outside, reported)}
    used = known_fields | {field for field, _ in {*tested.sets, *tested.whole, *tested.named}}
    unused = {field: position for (field, _), position in changed.sets.items() if field not in used}
    for field, position in unused.items():
        policy.report(
            "warning", f"No rule tests {field}, so this restricts nothing", position,
            f"Write a rule, as `{_TESTS[field]}`",
        )  # fmt: skip
    # A label on both results and the session may be tested in one place.
    whole = {field for field, _ in tested.whole}
    for label, position in changes.items():
        is_tested = (label.field, label.name) in tested.named or label.field in whole
        if not (is_tested or label.field in unused or _is_known(label, outside, reported)):
            policy.report(
                "warning", f"No rule tests the {_label_text(label)}", position,
                "Deny calls with it, or remove it",
            )  # fmt: skip


_TESTS: dict[nodes.Field, str] = {
    "tags": 'must deny when @args.tags overlaps {"private"};',
    "producers": 'must deny when @args.producers overlaps {"web"};',
    "consumers": 'must deny when not @args.consumers superset of {"ana"};',
}


def _label_text(label: _Label) -> str:
    name = plain(label.name, limit=_LIMIT)
    return f"{_NOUNS[label.field]} `{name}` on {_OWNERS[label.owner]}"


def _advice(change: str, owner: Owner, tool: str = "…") -> str:
    if owner == "session":
        return f"Write `session after {{ {change} }}` for a tool"
    return (
        f'Write `tool "{plain(tool, limit=_LIMIT)}" -> {change}` for the tool it comes from, '
        "or have that tool return it with `labeled_tool_result`"
    )


def tested_labels(
    policy: CheckedPolicy, possible: PossibleLabels, of_branches: Collection[LabelName]
) -> TestedLabels:
    """The labels that the rules of a policy test, and those that decide about branches."""
    tested = TestedLabels({}, set(of_branches), {}, set())
    for clause in policy.clauses:
        tested.whole.update(
            _owned_field(element, clause)
            for update in clause.updates
            for element in policy.elements(update.set, removed=True)
            if isinstance(element, nodes.Meta)
        )
        for test, elements in policy.label_reads(clause).tests:
            metas = metas_in(elements)
            for meta in metas:
                owned_fields = _tested_fields(meta, clause)
                for owned_field in owned_fields:
                    tested.sets.setdefault(owned_field, meta.at)
                if is_whole(test, metas) or len(owned_fields) > 1:  # of these, the owner is unknown
                    tested.whole.update(owned_fields)
            if isinstance(test, nodes.LabelTest) and test.test == "subset":
                continue  # it asks for the absence of all other labels
            for meta, text in _named_labels(policy, test):
                tested.named.add((meta.field, text.raw))
                if possible.capabilities.without_labels and meta.scope in {"arg", "args"}:
                    continue  # `find_unlabelled` reports it
                owned_fields = _tested_fields(meta, clause)
                if meta.field in _NOUNS and text.kind == "plain" and len(owned_fields) == 1:
                    label = _Label(meta.field, text.raw, owned_fields[0][1])
                    tested.names[label] = min(text.at, tested.names.get(label, text.at))
    return tested


def _named_labels(
    policy: CheckedPolicy, test: nodes.Tests
) -> Iterator[tuple[nodes.Meta, nodes.TextLiteral]]:
    """The labels that a test names, without endorsements, which are reported elsewhere."""
    return ((meta, text) for meta, text in policy.labels(test) if not is_endorsement(text.raw))


def _changed_labels(policy: CheckedPolicy) -> _Changed:
    changed = _Changed({}, {}, set(), {}, set())
    for clause in policy.clauses:
        for update in clause.updates:
            owned_field = _owned_field(update.target, clause)
            changed.sets.setdefault(owned_field, update.at)
            if update.assignment == "&=":
                continue
            names = changed.removed if update.assignment == "-=" else changed.added
            for element in policy.elements(update.set):
                if isinstance(element, nodes.Meta) and names is changed.added:
                    changed.copied.add(owned_field)
                elif isinstance(element, nodes.TextLiteral) and owned_field[0] in _NOUNS:
                    label = _Label(owned_field[0], element.raw, owned_field[1])
                    names.setdefault(label, element.at)
                    if names is changed.added and update.target.scope in {"arg", "args"}:
                        changed.on_arguments.add(label)
    return changed


def _tested_fields(meta: nodes.Meta, clause: Clause) -> list[_OwnedField]:
    """The kinds of labels in a condition, where the owner of the short form may be unclear."""
    if meta.scope == "short" and (clause.rule or isinstance(clause.tool.node, nodes.OneLiner)):
        return [(meta.field, owner) for owner in _OWNERS]
    return [_owned_field(meta, clause)]


def _owned_field(meta: nodes.Meta, clause: Clause) -> _OwnedField:
    return meta.field, owner_of(meta, clause)


# Misspelt labels


def find_misspelt(policy: CheckedPolicy, impossible: Collection[LabelName]) -> set[LabelName]:
    """Warn of unused bindings, and of labels that are one slip away from another label.

    Consumers are not compared: two people may have similar names, such as Anna and Anne.

    Args:
        policy: The policy.
        impossible: Labels that rules test and certainly nothing sets.

    Returns:
        The labels with findings.
    """
    reported: set[LabelName] = set()
    used = {node.name for node in policy.all_nodes if isinstance(node, nodes.Name)}
    for name, binding in policy.bindings.items() if policy.tools else ():
        # A doc comment documents the purpose of an unused name.
        if name not in used and not binding.doc:
            policy.report("warning", f"Nothing uses `{plain(name, limit=_LIMIT)}`", binding.at)
    mentions = _mentions(policy)
    for field, noun in _NOUNS.items():
        positions, spellings = mentions[field], SpellingIndex()
        for name, position in sorted(positions.items(), key=lambda item: item[1]):
            if other := spellings.near(name):
                line = positions[other].line
                policy.report(
                    "warning", f"This {noun} is nearly `{plain(other)}` of line {line}",
                    position, "One of them may be misspelt",
                    lets_through=not {(field, name), (field, other)}.isdisjoint(impossible),
                )  # fmt: skip
                reported |= {(field, name), (field, other)}
            spellings.add(name)
    return reported


def _mentions(policy: CheckedPolicy) -> dict[nodes.Field, dict[str, Position]]:
    """All labels by field, each with its first position, also those that a set leaves out."""
    mentions: dict[nodes.Field, dict[str, Position]] = {field: {} for field in nodes.FIELDS}
    for node in policy.all_nodes:
        match node:
            case nodes.LabelTest(left=first, right=second) | nodes.Update(target=first, set=second):
                parts: tuple[object, ...] = (first, second)
            case nodes.Membership(value=first, set=second):
                parts = (first, second)
            case nodes.Binding(value=first) if isinstance(first, _SETS):
                parts = (first,)
            case _:
                continue
        elements = [element for part in parts for element in policy.elements(part, removed=True)]
        # A set without labels of an argument, the result or the session is a set of values.
        field = next((e.field for e in elements if isinstance(e, nodes.Meta)), None)
        if field is None:
            continue
        for text in map(text_of, elements):
            if isinstance(text, nodes.TextLiteral) and text.kind == "plain":
                position = mentions[field].setdefault(text.raw, text.at)
                mentions[field][text.raw] = min(position, text.at)
    return mentions


# Labels that are compared with values


def find_labels_as_values(policy: CheckedPolicy) -> None:
    """Warn of a denial that compares a value with a name that the policy sets as a label."""
    fields_by_label: dict[str, nodes.Field] = {}
    for clause in policy.clauses:
        for update in clause.updates:
            if update.target.field != "consumers":  # these are people, and so are recipients
                for text in policy.texts(update.set):
                    fields_by_label.setdefault(text.raw, update.target.field)
    for clause in policy.clauses if fields_by_label else ():
        for test, passes in policy.tests(clause) if clause.rule else ():
            comparison = value_test(test)
            if comparison is None or comparison[0].scope != "arg" or passes:
                continue
            name = plain(comparison[0].argument, limit=_LIMIT)
            for text in policy.texts(comparison[1]):
                if field := fields_by_label.get(text.raw):
                    label = plain(text.raw, limit=_LIMIT)
                    policy.report(
                        "warning", f"`{label}` is one of the {field} that this policy sets, but "
                        f"this rule compares the value of `{name}` with it", text.at,
                        f'Write `{name}.{field} overlaps {{"{label}"}}`', lets_through=True,
                    )  # fmt: skip
