"""Labels without effect: nothing sets or tests them, or they are misspelt.

Tools and graph nodes also set labels, so a policy does not define which labels exist. But a policy
with `untrusted` in one place and `untrused` in another hardly means two tags, and a rule for a tag
that nothing sets protects nothing.
"""

from collections.abc import Collection
from typing import NamedTuple, get_args

from langchain_sequrity.display import plain
from langchain_sequrity.labels import RESERVED_PREFIX
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.diagnostics import SpellingIndex
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
_WORDS: dict[nodes.Field, str] = {"tags": "tag", "producers": "producer"}
"""Without consumers: rules remove them rather than set them."""

_SETS = get_args(nodes.Set)


# Labels that nothing sets


class _Label(NamedTuple):
    field: nodes.Field
    name: str
    place: Owner


_Kind = tuple[nodes.Field, Owner]
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
    sets: dict[_Kind, Position]
    whole: set[_Kind]


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
    sets: dict[_Kind, Position]
    copied: set[_Kind]


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
    for label, at in {**changed.removed, **tested.names}.items():
        is_reported = (label.field, label.name) in reported
        if not is_reported and _is_set(label, possible, changed):
            continue
        if not _may_be_set(label, possible):
            certain.add(at)
        if is_reported:
            continue
        unset.add((label.field, label.name))
        name = plain(label.name, limit=_LIMIT)
        what = UNSET if label in tested.names else "This removes nothing: no rule sets the"
        tool = name if possible.is_other_tool(label.field, label.name) else "…"
        policy.report(
            "warning", f"{what} {_shown(label)}", at,
            _advice(f'@{label.field} |= {{"{name}"}};', label.place, tool),
            lets_through=label in tested.names and at in certain,
        )  # fmt: skip
    for (field, place), at in tested.sets.items():
        is_open = field == "consumers" and (field, place) not in changed.sets
        if is_open and not (outside and place == "values"):
            policy.report(
                "warning", f"No rule restricts the consumers of {_OWNERS[place]}, so they are "
                "everyone", at, _advice('@consumers = {"ana"};', place),
                lets_through=not possible.may_restrict(place),
            )  # fmt: skip
            if not possible.may_restrict(place):
                certain.add(at)
    checks = (check for tool in policy.tools for check in tool.compiled.checks)
    if any(check.test or check.node.decision == "deny" for check in checks):
        # Otherwise the text is part of another policy, or a draft for tools that only read.
        _find_untested(policy, tested, changed, outside, unset)
    return certain


def impossible_labels(tested: TestedLabels, possible: PossibleLabels) -> set[LabelName]:
    """The labels that rules test and certainly nothing sets."""
    return {(label.field, label.name) for label in tested.names if not _may_be_set(label, possible)}


def _may_be_set(label: _Label, possible: PossibleLabels) -> bool:
    field, name, place = label
    is_other_tool = place == "values" and possible.is_other_tool(field, name)
    return possible.may_have(field, place, name) and not is_other_tool


def _is_set(label: _Label, possible: PossibleLabels, changed: _Changed) -> bool:
    """Whether somebody sets a label, or it is copied from labels of which some are unknown."""
    field, name, place = label
    is_copied = (field, place) in changed.copied and possible.may_have(field, place, name)
    return is_copied or label in changed.on_arguments or possible.is_set(field, place, name)


def _is_known(label: _Label, outside: Collection[str], reported: Collection[LabelName]) -> bool:
    """Whether a label has a use outside of the policy, or an earlier finding."""
    known = label.name in outside or label.name.startswith(RESERVED_PREFIX)
    return known or (label.field, label.name) in reported


def _find_untested(
    policy: CheckedPolicy,
    tested: TestedLabels,
    changed: _Changed,
    outside: Collection[str],
    reported: Collection[LabelName],
) -> None:
    changes = {**changed.removed, **changed.added}
    known = {label.field for label in changes if _is_known(label, outside, reported)}
    used = known | {field for field, _ in {*tested.sets, *tested.whole, *tested.named}}
    unused = {field: at for (field, _), at in changed.sets.items() if field not in used}
    for field, at in unused.items():
        policy.report(
            "warning", f"No rule tests {field}, so this restricts nothing", at,
            f"Write a rule, as `{_TESTS[field]}`",
        )  # fmt: skip
    # A label on both results and the session may be tested in one place.
    whole = {field for field, _ in tested.whole}
    for label, at in changes.items():
        is_tested = (label.field, label.name) in tested.named or label.field in whole
        if not (is_tested or label.field in unused or _is_known(label, outside, reported)):
            policy.report(
                "warning", f"No rule tests the {_shown(label)}", at,
                "Deny calls with it, or remove it",
            )  # fmt: skip


_TESTS: dict[nodes.Field, str] = {
    "tags": 'must deny when @args.tags overlaps {"private"};',
    "producers": 'must deny when @args.producers overlaps {"web"};',
    "consumers": 'must deny when not @args.consumers superset of {"ana"};',
}


def _shown(label: _Label) -> str:
    name = plain(label.name, limit=_LIMIT)
    return f"{_WORDS[label.field]} `{name}` on {_OWNERS[label.place]}"


def _advice(change: str, place: Owner, tool: str = "…") -> str:
    if place == "session":
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
            _kind(element, clause)
            for update in clause.updates
            for element in policy.elements(update.set, removed=True)
            if isinstance(element, nodes.Meta)
        )
        for test, elements in policy.label_reads(clause).tests:
            metas = metas_in(elements)
            for meta in metas:
                kinds = _tested_kinds(meta, clause)
                for kind in kinds:
                    tested.sets.setdefault(kind, meta.at)
                if is_whole(test, metas) or len(kinds) > 1:  # of these, the owner is unknown
                    tested.whole.update(kinds)
            if isinstance(test, nodes.LabelTest) and test.test == "subset":
                continue  # it asks for the absence of all other labels
            for meta, text in policy.labels(test):
                tested.named.add((meta.field, text.raw))
                if possible.way.without_labels and meta.scope in {"arg", "args"}:
                    continue  # `find_unlabelled` reports it
                kinds = _tested_kinds(meta, clause)
                if meta.field in _WORDS and text.kind == "plain" and len(kinds) == 1:
                    label = _Label(meta.field, text.raw, kinds[0][1])
                    tested.names[label] = min(text.at, tested.names.get(label, text.at))
    return tested


def _changed_labels(policy: CheckedPolicy) -> _Changed:
    changed = _Changed({}, {}, set(), {}, set())
    for clause in policy.clauses:
        for update in clause.updates:
            kind = _kind(update.target, clause)
            changed.sets.setdefault(kind, update.at)
            if update.assignment == "&=":
                continue
            names = changed.removed if update.assignment == "-=" else changed.added
            for element in policy.elements(update.set):
                if isinstance(element, nodes.Meta) and names is changed.added:
                    changed.copied.add(kind)
                elif isinstance(element, nodes.TextLiteral) and kind[0] in _WORDS:
                    label = _Label(kind[0], element.raw, kind[1])
                    names.setdefault(label, element.at)
                    if names is changed.added and update.target.scope in {"arg", "args"}:
                        changed.on_arguments.add(label)
    return changed


def _tested_kinds(meta: nodes.Meta, clause: Clause) -> list[_Kind]:
    """The kinds of labels in a condition, where the owner of the short form may be unclear."""
    if meta.scope == "short" and (clause.rule or isinstance(clause.tool.node, nodes.OneLiner)):
        return [(meta.field, place) for place in _OWNERS]
    return [_kind(meta, clause)]


def _kind(meta: nodes.Meta, clause: Clause) -> _Kind:
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
    for field, kind in _WORDS.items():
        found, spellings = mentions[field], SpellingIndex()
        for name, at in sorted(found.items(), key=lambda item: item[1]):
            if other := spellings.near(name):
                line = found[other].line
                policy.report(
                    "warning", f"This {kind} is nearly `{plain(other)}` of line {line}",
                    at, "One of them may be misspelt",
                    lets_through=not {(field, name), (field, other)}.isdisjoint(impossible),
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
            name = plain(found[0].argument, limit=_LIMIT)
            for text in policy.texts(found[1]):
                if field := given.get(text.raw):
                    label = plain(text.raw, limit=_LIMIT)
                    policy.report(
                        "warning", f"`{label}` is one of the {field} that this policy sets, but "
                        f"this rule compares the value of `{name}` with it", text.at,
                        f'Write `{name}.{field} overlaps {{"{label}"}}`', lets_through=True,
                    )  # fmt: skip
