"""Labels without effect: labels that nothing sets, misspelt labels, sessions without labels.

Tools and graph nodes also set labels, so a policy does not define which labels exist. But a policy
with `untrusted` in one place and `untrused` in another hardly means two tags, and a rule for a tag
that nothing sets protects nothing.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from langchain_sequrity.display import plain
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.compiler import CompiledTool, Reporter, Test
from langchain_sequrity.sqrt.context import MISSING, Argument, Call, EvaluationContext
from langchain_sequrity.sqrt.diagnostics import Spellings
from langchain_sequrity.sqrt.lint.literals import plain_texts, sides_of
from langchain_sequrity.sqrt.nodes import (
    Policy,
    Position,
    bindings_of,
    clauses_of,
    elements_of,
    tests_of,
    tools_of,
)

_SHOWN = 60
_WORDS: dict[nodes.Field, str] = {"tags": "tag", "producers": "producer"}
"""Without consumers: rules remove them rather than set them."""

_SERVICE = "__"  # prefix of the service's own labels
_MOST_ELEMENTS = 200_000
_Place = Literal["values", "session"]


# Labels that nothing sets


class _Label(NamedTuple):
    field: nodes.Field
    name: str
    place: _Place


def find_unset(
    policy: Policy,
    returned: Collection[str],
    tools: Collection[str] | None,
    reported: Collection[tuple[nodes.Field, str]],
    report: Reporter,
) -> None:
    """Warn of tags and producers that rules test and nothing sets.

    Args:
        policy: A policy without errors.
        returned: Labels that tools set on their results.
        tools: Names of all tools. The result of a graph's tool has the tool's name as a producer,
            so producers are checked only if the tools are known.
        reported: Labels with earlier findings.
        report: Receives findings.
    """
    labels = _LabelUse(policy)
    for label, at in labels.asked.items():
        is_known = label in labels.given or (label.field, label.place) in labels.copied
        is_known = is_known or label.name in returned or label.name.startswith(_SERVICE)
        if label.field == "producers":
            is_known = is_known or tools is None or label.name in tools
        if is_known or (label.field, label.name) in reported:
            continue
        word, name = _WORDS[label.field], plain(label.name, limit=60)
        other: _Place = "values" if label.place == "session" else "session"
        elsewhere = label._replace(place=other) in labels.given
        if label.place == "session":
            message = f"No rule sets the {word} `{name}` on the session"
            if elsewhere:
                message += ", only on results"
            advice = f'Write `session after {{ @{label.field} |= {{"{name}"}}; }}` for a tool'
        else:
            message = f"No rule sets the {word} `{name}`"
            if elsewhere:
                message += " on results, only on the session"
            advice = (
                f'Write `tool "…" -> @{label.field} |= {{"{name}"}};` for the tool it comes from, '
                "or have that tool return it with `labeled_tool_result`"
            )
        report("warning", message, at, advice)


class _LabelUse:
    """The labels that a policy tests, the labels that it sets, and the kinds that it copies."""

    def __init__(self, policy: Policy) -> None:
        self.asked: dict[_Label, Position] = {}
        self.given: set[_Label] = set()
        self.copied: set[tuple[nodes.Field, _Place]] = set()
        self._bindings = bindings_of(policy)
        self._left = _MOST_ELEMENTS
        for node in tools_of(policy):
            for clause in clauses_of(node):
                self._add_asked(clause, isinstance(node, nodes.OneLiner))
                for update in clause.updates:
                    if update.assignment in {"=", "|=", "^="}:
                        place = _place(update.target, clause)
                        if place is not None:
                            self._add_given(update.target.field, place, update.set)

    def _add_asked(self, clause: nodes.Clause, is_one_liner: bool) -> None:  # noqa: FBT001 - of the text
        for test, _ in tests_of(clause.condition, self._bindings, passes=True):
            match test:
                case nodes.In(value=nodes.TextLiteral() as text, set=members):
                    metas = [one for one in self._elements(members) if isinstance(one, nodes.Meta)]
                    found = [(meta, text) for meta in metas]
                case nodes.Compared(left=meta, test="overlaps" | "superset" | "==", right=members):
                    found = [
                        (meta, one)
                        for one in self._elements(members)
                        if isinstance(one, nodes.TextLiteral)
                    ]
                case _:
                    continue
            for meta, text in found:
                place = None if meta.scope == "short" and is_one_liner else _place(meta, clause)
                if meta.field in _WORDS and text.kind == "plain" and place is not None:
                    label = _Label(meta.field, text.raw, place)
                    self.asked[label] = min(text.at, self.asked.get(label, text.at))

    def _add_given(self, field: nodes.Field, place: _Place, members: object) -> None:
        for element in self._elements(members):
            if isinstance(element, nodes.Meta):
                self.copied.add((field, place))
            elif isinstance(element, nodes.TextLiteral):
                self.given.add(_Label(field, element.raw, place))

    def _elements(self, members: object) -> Iterator[object]:
        for element in elements_of(members, self._bindings):
            if self._left <= 0:
                return
            self._left -= 1
            yield element


def _place(meta: nodes.Meta, clause: nodes.Clause) -> _Place | None:
    """The owner of labels: values, whose labels results inherit, or the session."""
    if meta.scope == "session":
        return "session"
    if meta.scope != "short":
        return "values"
    if clause.phase is None:
        return None
    return "values" if clause.phase == "result" else "session"


# A mode without labels


def find_unlabelled(policy: Policy, tools: Sequence[CompiledTool], report: Reporter) -> None:
    """Find rules that read labels of arguments, for a session whose arguments have no labels.

    Args:
        policy: A policy without errors.
        tools: Its compiled blocks and one-liners, in source order.
        report: Receives findings: an error for a denial that never applies.
    """
    bindings = bindings_of(policy)
    for node, compiled in zip(tools_of(policy), tools, strict=True):
        tests = [one.test for one in compiled.checks] + [one.test for one in compiled.steps]
        for clause, test in zip(clauses_of(node), tests, strict=True):
            read = list(_argument_labels(clause, bindings))
            if read:
                _report_unlabelled(clause, test, read, report)


def _argument_labels(clause: nodes.Clause, bindings: nodes.Bindings) -> Iterator[nodes.Meta]:
    """The labels of arguments that a rule or a step reads."""
    for test, _ in tests_of(clause.condition, bindings, passes=True):
        sides: list[object] = []
        if isinstance(test, nodes.Compared):
            sides = [test.left, test.right]
        elif isinstance(test, nodes.In):
            sides = [test.set]
        for side in sides:
            yield from _metas(side, bindings)
    for update in clause.updates:
        yield from _metas(update.set, bindings)


def _metas(side: object, bindings: nodes.Bindings) -> Iterator[nodes.Meta]:
    for element in elements_of(side, bindings) if side is not None else ():
        if isinstance(element, nodes.Meta) and element.scope in {"arg", "args"}:
            yield element


def _report_unlabelled(
    clause: nodes.Clause, test: Test | None, read: Sequence[nodes.Meta], report: Reporter
) -> None:
    arguments = {meta.argument: Argument(MISSING) for meta in read if meta.argument}
    context = EvaluationContext(Call("", arguments), Labels())
    held = True if test is None else test(context)
    what = (
        f"`{plain(' '.join(clause.rule.text.split()), limit=80)}`" if clause.rule else "this change"
    )
    if clause.rule is None:
        says = f"{what} is made without them" if held is not False else f"{what} is never made"
        severity: Literal["error", "warning"] = "warning"
    elif held is None:
        says, severity = f"{what} is decided by the rest of its condition", "warning"
    else:
        denies = held is (clause.rule.decision == "deny")
        says = f"{what} denies every call" if denies else f"{what} denies nothing"
        if clause.rule.decision == "allow" and clause.rule.strength == "soft":
            says = f"{what} allows every call" if held else f"{what} does nothing"
        severity = "warning" if denies else "error"
    at = min(one.at for one in read)
    report(
        severity, f"In single-LLM mode arguments have no labels: {says}", at,
        'Choose dual-LLM mode: `features={"agent_arch": "dual-llm"}`; or ask for `@session` labels',
    )  # fmt: skip


_SETS = get_args(nodes.Set)


def find_misspelt(policy: Policy, report: Reporter) -> set[tuple[nodes.Field, str]]:
    """Warn of unused bindings, and of labels that are one slip away from another label.

    Consumers are not compared: they are people, and there are an Anna and an Anne.

    Args:
        policy: A policy without errors.
        report: Receives findings.

    Returns:
        The labels with findings.
    """
    reported: set[tuple[nodes.Field, str]] = set()
    mentions = _Mentions(policy)
    has_rules = any(not isinstance(node, nodes.Binding) for node in policy.declarations)
    for name, binding in mentions.bindings.items():
        # A doc comment documents the purpose of an unused name.
        if has_rules and name not in mentions.used and not binding.doc:
            report("warning", f"Nothing uses `{plain(name, limit=60)}`", binding.at)
    for field, kind in _WORDS.items():
        found, spellings = mentions.labels[field], Spellings()
        for name, at in sorted(found.items(), key=lambda item: item[1]):
            if other := spellings.near(name):
                line = found[other].line
                report(
                    "warning", f"This {kind} is nearly `{plain(other)}` of line {line}",
                    at, "One of them may be misspelt",
                )  # fmt: skip
                reported |= {(field, name), (field, other)}
            spellings.add(name)
    return reported


class _Mentions:
    """The names in a policy.

    Attributes:
        bindings: Name → its first binding.
        used: Names of bindings that are used.
        labels: Field → label → its first position.
    """

    def __init__(self, policy: Policy) -> None:
        self.bindings: dict[str, nodes.Binding] = {}
        self.used: set[str] = set()
        self.labels: defaultdict[nodes.Field, dict[str, Position]] = defaultdict(dict)
        self._fields: dict[str, nodes.Field | None] = {}
        self._resolved: set[tuple[str, nodes.Field]] = set()
        for node in policy.declarations:
            if isinstance(node, nodes.Binding):
                self._bound(node)
            else:
                for clause in clauses_of(node):
                    self._predicate(clause.condition)
                    for update in clause.updates:
                        self._set(update.set, update.target.field)

    def _bound(self, node: nodes.Binding) -> None:
        self.bindings.setdefault(node.name, node)
        if isinstance(node.value, _SETS):
            self._fields[node.name] = self._field(node.value)
            self._set(node.value, self._fields[node.name])
        else:
            self._predicate(node.value)

    def _predicate(self, root: object) -> None:
        waiting = [root]
        while waiting:
            node = waiting.pop()
            if isinstance(node, nodes.Name):
                self.used.add(node.name)
            elif isinstance(node, nodes.Not):
                waiting.append(node.inner)
            elif isinstance(node, nodes.Both | nodes.Either):
                waiting += reversed(node.parts)
            elif isinstance(node, nodes.In):
                field = self._field(node.set)
                if isinstance(node.value, nodes.TextLiteral):
                    self._label(node.value, field)
                self._set(node.set, field)
            elif isinstance(node, nodes.Compared) and node.right is not None:
                self._set(node.right, node.left.field)

    def _field(self, node: nodes.Set) -> nodes.Field | None:
        """The field of the labels in a set; `None` for a set of values, or if unknown."""
        for part in _operands(node):
            if isinstance(part, nodes.Meta):
                return part.field
            if isinstance(part, nodes.Name) and (field := self._fields.get(part.name)):
                return field
        return None

    def _set(self, root: nodes.Set, field: nodes.Field | None) -> None:
        """Add the elements of a set, and of bindings in it, as labels of one field."""
        waiting = [root]
        while waiting:
            for part in _operands(waiting.pop()):
                if isinstance(part, nodes.SetLiteral):
                    for element in part.elements:
                        self._label(element, field)
                elif isinstance(part, nodes.Edited):
                    for _, element in part.edits:
                        self._label(element, field)
                elif isinstance(part, nodes.Name):
                    self.used.add(part.name)
                    waiting += self._named(part.name, field)

    def _named(self, name: str, field: nodes.Field | None) -> Iterator[nodes.Set]:
        """The set with a name, if its labels were not added yet."""
        bound = self.bindings.get(name)
        if bound and field and (name, field) not in self._resolved:
            self._resolved.add((name, field))
            if isinstance(bound.value, _SETS):
                yield bound.value

    def _label(self, element: nodes.Element, field: nodes.Field | None) -> None:
        if field is not None and isinstance(element, nodes.TextLiteral) and element.kind == "plain":
            at = self.labels[field].setdefault(element.raw, element.at)
            self.labels[field][element.raw] = min(at, element.at)


def _operands(root: nodes.Set) -> Iterator[nodes.Set]:
    """A set and its operands."""
    waiting: list[nodes.Set] = [root]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, nodes.Combined):
            waiting += reversed(node.operands)
        elif isinstance(node, nodes.Edited):
            waiting.append(node.base)


# Labels that are compared with values


def find_labels_as_values(policy: Policy, report: Reporter) -> None:
    """Warn of a denial that compares a value with a name that the policy sets as a label."""
    bindings = bindings_of(policy)
    given: dict[str, nodes.Field] = {}
    for node in tools_of(policy):
        for clause in clauses_of(node):
            for update in clause.updates:
                if (
                    update.target.field != "consumers"
                ):  # consumers are people, and so are recipients
                    for text in plain_texts(update.set, bindings):
                        given.setdefault(text.raw, update.target.field)
    for node in tools_of(policy) if given else ():
        for clause in clauses_of(node):
            for test, passes in tests_of(clause.condition, bindings, passes=not clause.restricts):
                if clause.rule is not None and not passes:
                    _label_as_value(test, given, bindings, report)


def _label_as_value(
    test: nodes.Tests, given: Mapping[str, nodes.Field], bindings: nodes.Bindings, report: Reporter
) -> None:
    if not isinstance(test, nodes.In | nodes.Same):
        return
    one, other = sides_of(test)
    value, members = (one, other) if isinstance(one, nodes.Value) else (other, one)
    if (
        not isinstance(value, nodes.Value)
        or value.scope != "arg"
        or isinstance(members, nodes.Value)
    ):
        return
    for text in plain_texts(members, bindings):
        if field := given.get(text.raw):
            name, label = plain(value.argument, limit=_SHOWN), plain(text.raw, limit=_SHOWN)
            report(
                "warning", f"`{label}` is one of the {field} that this policy sets, but this rule "
                f"compares the value of `{name}` with it", text.at,
                f'Write `{name}.{field} overlaps {{"{label}"}}`', lets_through=True,
            )  # fmt: skip
