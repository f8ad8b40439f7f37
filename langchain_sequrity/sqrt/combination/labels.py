"""Labels that one policy relies on and another changes.

Combined policies share all labels. So one of them could allow what another denies without any rule:
it removes the tag that the other's `must deny` looks for, or adds the tag that the other's
`must allow` looks for. Such a change is refused.

The union of ALL and X is X (`docs/behaviour.md`, M4). So `|=` takes consumers away, and what it
adds depends on what others have taken away: `{"bo"} | {"ana"}` is more than `ALL | {"ana"}`. The
same holds for a field to which a policy adds ALL. Such fields are called narrowing here.

Only names count, not the tools and values that carry them, because data moves between tools. A
change is refused if it *may* let a call pass that another policy would deny on its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import permutations, product
from typing import NamedTuple

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import ALL
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.combination.sources import Source, checks_of, one_line
from langchain_sequrity.sqrt.context import EMPTY, OPERATIONS, UNIVERSAL, LabelSet, intersection
from langchain_sequrity.sqrt.engine import LLM_BLOCKED
from langchain_sequrity.sqrt.node_text import printed_node

# With ALL, their effect depends on what others have added or removed.
_DEPENDING = ("|=", "-=", "^=")


class _Reliance(dict[tuple[nodes.Field, bool], LabelSet]):
    """The names that a policy relies on.

    The keys are the field, and whether the arrival of the names may let a call pass (true), or
    their removal (false).
    """

    def __init__(self) -> None:
        keys = product(nodes.FIELDS, (True, False))
        super().__init__(dict.fromkeys(keys, EMPTY))

    def add(self, name: nodes.Field, names: LabelSet, *, passes: bool) -> None:
        """Add names; `passes` says whether their presence helps a call to pass."""
        self[name, passes] = _either(self[name, passes], names)

    def add_both(self, name: nodes.Field, names: LabelSet) -> None:
        """Add names whose presence may help a call to pass, and their absence too."""
        for passes in (True, False):
            self.add(name, names, passes=passes)


def check_labels(sources: Sequence[Source]) -> None:
    """Refuse a change of labels that another policy's denials rely on.

    Raises:
        UsageError: If there is such a change. The message names both policies, the change and the
            labels.
    """
    narrowing = _narrowing_fields(sources)
    policies = [_LabelUse(source, narrowing) for source in sources]
    for policy, other in permutations(policies, 2):
        for step, update in other.updates:
            added, removed = other.effect(update)
            for names, passes in ((removed, False), (added, True)):
                relied_on = intersection(names, policy.reliance[update.target.field, passes])
                if relied_on != EMPTY:
                    change = _Change(other.source, step, update, relied_on, adds=passes)
                    raise _conflict(policy, change)


class _Change(NamedTuple):
    """A change of labels that another policy relies on.

    Attributes:
        source: The policy that makes it.
        step: Its step.
        update: The change.
        names: The names that the other policy relies on.
        adds: Whether it adds them; else it removes them.
    """

    source: Source
    step: nodes.UpdateStep
    update: nodes.Update
    names: LabelSet
    adds: bool


def _conflict(policy: "_LabelUse", change: _Change) -> UsageError:
    source, other, field = policy.source, change.source.name, change.update.target.field
    listed = ", ".join(f"`{plain(name, limit=80)}`" for name in sorted(change.names.items)[:5])
    which = "" if change.names.negated or not listed else f" {listed}"
    relying = policy.relying_rule(change)
    return UsageError(
        f"The policy `{other}` may allow what the policy `{source.name}` denies: "
        f"`{one_line(printed_node(change.update))}` (line {change.step.at.line} of `{other}`) can "
        f"{'add' if change.adds else 'remove'} {field}{which}, and "
        f"{_relying_words(relying, source)} may deny if such labels are "
        f"{'missing' if change.adds else 'there'}. {_advice(relying, source, change)}."
    )


def _relying_words(relying: nodes.CheckRule | nodes.UpdateStep | None, source: Source) -> str:
    match relying:
        case nodes.CheckRule(text=text, at=position):
            return f"`{one_line(text)}` (line {position.line} of `{source.name}`)"
        case nodes.UpdateStep(at=position):
            return f"rules that rely on the change in line {position.line} of `{source.name}`"
    return f"rules of `{source.name}`"


def _advice(
    relying: nodes.CheckRule | nodes.UpdateStep | None, source: Source, change: _Change
) -> str:
    assignment = change.update.assignment
    where = "" if relying is None else f" in line {relying.at.line} of `{source.name}`"
    if change.update.target.field == "consumers":
        if change.adds:
            return f"Write `&=` instead of `{assignment}`: it only removes consumers"
        if isinstance(relying, nodes.UpdateStep):
            return f"Write `&=`{where}: then other policies can remove consumers"
        return (
            f"Deny{where} what lacks a consumer, as `must deny when not "
            '"ana" in text.consumers` does, without a union or difference: then other policies can '
            "remove consumers"
        )
    if change.adds:
        return f"Let the policy `{source.name}` or the tool itself add them, or use other names"
    if assignment == "=":
        return "Write `|=` instead of `=`, which also removes all other names"
    return f"Let the policy `{source.name}` remove them, or use other names"


# What a policy relies on

# Whether a test holds rather with more labels on its left or right side; `None` is both.
_GROWS_WITH_LEFT: dict[nodes.MetaTest, bool | None] = {
    "overlaps": True, "superset": True, "universal": True, "subset": False, "empty": False,
    "==": None,
}  # fmt: skip
_GROWS_WITH_RIGHT: dict[nodes.MetaTest, bool] = {
    "overlaps": True, "subset": True, "superset": False,
}  # fmt: skip


class _LabelUse:
    """How a policy uses labels.

    Args:
        source: The policy.
        narrowing: The fields in which values may have ALL.

    Attributes:
        updates: The changes of labels, each with its step.
    """

    def __init__(self, source: Source, narrowing: frozenset[nodes.Field] = frozenset()) -> None:
        self.source = source
        self.updates = [
            (step, update)
            for node in nodes.tools_of(source.policy)
            for _, step in nodes.steps_of(node)
            for update in step.updates
        ]
        self._bindings = nodes.bindings_of(source.policy)
        self._narrowing = narrowing

    @cached_property
    def reliance(self) -> _Reliance:
        """The names that the policy relies on."""
        reliance = _Reliance()
        for check in checks_of(self.source.policy):
            self._add_tests(reliance, check.condition, passes=check.decision == "allow")
        self._add_presets(reliance)
        before: Mapping[tuple[nodes.Field, bool], LabelSet] | None = None
        while before != reliance:  # labels may depend on labels that depend on labels
            before = reliance.copy()
            for step, update in self.updates:
                self._add_update(reliance, step, update)
        return reliance

    def relying_rule(self, change: _Change) -> nodes.CheckRule | nodes.UpdateStep | None:
        """The first rule that relies on the names of a change, or step that reads them."""
        field = change.update.target.field
        for check in checks_of(self.source.policy):
            reliance = _Reliance()
            self._add_tests(reliance, check.condition, passes=check.decision == "allow")
            if _meet(reliance[field, change.adds], change.names):
                return check
        for step, update in self.updates:
            tests = nodes.walk((step.condition, update.set))
            reads = any(isinstance(node, nodes.Meta) and node.field == field for node in tests)
            if reads or (update.target.field == field and update.assignment in _DEPENDING):
                return step
        return None

    def _add_presets(self, reliance: _Reliance) -> None:
        """Add the names that the presets of the policy read."""
        blocked = LabelSet(frozenset({LLM_BLOCKED}))
        for _, update in self.updates:
            names = self.static_names(update.set)
            if names is not None and not names.negated and _meet(names, blocked):
                reliance.add("tags", blocked, passes=False)
        branches = self.source.presets.get("branching_meta_policy") or {}
        for field in nodes.FIELDS if branches else ():
            listed = LabelSet(frozenset(branches.get(field) or ()))
            is_list_of_allowed = branches.get("mode") == "allow"
            reliance.add(field, listed.complement if is_list_of_allowed else listed, passes=False)

    def _add_update(
        self, reliance: _Reliance, step: nodes.UpdateStep, update: nodes.Update
    ) -> None:
        """Add what an update of labels reads, if the policy relies on what it changes."""
        field = update.target.field
        is_narrowing = field in self._narrowing and update.assignment in _DEPENDING
        if is_narrowing and any(reliance[field, passes] != EMPTY for passes in (True, False)):
            reliance.add_both(field, UNIVERSAL)
        added, removed = self.effect(update)
        stays, comes = reliance[field, False], reliance[field, True]
        helps = _meet(added, comes) or _meet(removed, stays)
        hinders = _meet(added, stays) or _meet(removed, comes)
        for applies, passes in ((helps, True), (hinders, False)):
            if applies:
                self._add_tests(reliance, step.condition, passes=passes)
        if not (helps or hinders):
            return
        if update.assignment == "^=":  # it removes what others add, and adds what they remove
            reliance.add_both(field, added)
        for meta, _ in self._metas(update.set):
            if meta.field == field and update.assignment == "|=":
                continue  # the same names, moved from value to value
            reliance.add_both(meta.field, UNIVERSAL)

    # Tests

    def _add_tests(self, reliance: _Reliance, condition: object, *, passes: bool) -> None:
        for test, test_passes in nodes.tests_of(condition, self._bindings, passes=passes):
            for meta, names, grows in self._parts_of(test):
                for direction in (True, False) if grows is None else (grows,):
                    reliance.add(meta.field, names, passes=test_passes == direction)

    def _parts_of(self, test: nodes.Tests) -> Iterator[tuple[nodes.Meta, LabelSet, bool | None]]:
        """The sets of labels in a test, the names that matter in each, and its direction.

        The direction says whether the test holds rather with more labels; `None` is both.
        """
        match test:
            case nodes.Membership(value=value, set=members):
                name = _name_of(value)
                searched = UNIVERSAL if name is None else LabelSet(frozenset({name}))
                for meta, grows in self._metas(members):
                    yield meta, searched, grows
            case nodes.LabelTest(left=labels, test=comparison, right=right):
                names = None if right is None else self.static_names(right)
                names, outside = (
                    (UNIVERSAL, UNIVERSAL) if names is None else (names, names.complement)
                )
                relevant = {"subset": outside, "==": UNIVERSAL}.get(comparison, names)
                yield labels, relevant, _GROWS_WITH_LEFT[comparison]
                direction = _GROWS_WITH_RIGHT.get(comparison)
                for meta, grows in self._metas(right):
                    unclear = direction is None or grows is None
                    yield meta, UNIVERSAL, None if unclear else direction == grows

    def _metas(
        self, root: object, *, grows: bool | None = True
    ) -> Iterator[tuple[nodes.Meta, bool | None]]:
        """The sets of labels in a set, and whether it grows with each; `None` if that depends."""
        match root:
            case nodes.Meta():
                yield root, grows
            case nodes.Name(name=name) if name in self._bindings:
                yield from self._metas(self._bindings[name].value, grows=grows)
            case nodes.SetEdit(base=base):
                yield from self._unclear(self._metas(base, grows=grows))
            case nodes.SetOperation(operator=operator, operands=operands):
                for number, operand in enumerate(operands):
                    direction = grows
                    if operator == "^":
                        direction = None
                    elif operator == "-" and number and grows is not None:
                        direction = not grows
                    metas = self._metas(operand, grows=direction)
                    yield from metas if operator == "&" else self._unclear(metas)

    def _unclear(
        self, metas: Iterable[tuple[nodes.Meta, bool | None]]
    ) -> Iterator[tuple[nodes.Meta, bool | None]]:
        """The operands of a union or a difference: with ALL, these may grow or shrink."""
        for meta, grows in metas:
            yield meta, None if meta.field in self._narrowing else grows

    # Updates

    def effect(self, update: nodes.Update) -> tuple[LabelSet, LabelSet]:
        """The names that an update may add, and those that it may remove."""
        names = self.static_names(update.set)
        changed = UNIVERSAL if names is None else names
        rest = UNIVERSAL if names is None else names.complement
        narrows = update.target.field in self._narrowing
        effects: dict[str, tuple[LabelSet, LabelSet]] = {
            "=": (changed, rest),
            "|=": (changed, rest if narrows else EMPTY),
            "&=": (EMPTY, rest),
            "-=": (EMPTY, changed),
            "^=": (changed, changed),
        }
        return effects[update.assignment]

    def static_names(self, root: object) -> LabelSet | None:
        """The names in a set that does not depend on a call; `None` if it does or has patterns."""
        match root:
            case nodes.Name(name=name) if name in self._bindings:
                return self.static_names(self._bindings[name].value)
            case nodes.SetLiteral(elements=elements):
                names = [_name_of(element) for element in elements]
                if ALL in names:
                    return UNIVERSAL
                plain_names = frozenset(name for name in names if name is not None)
                return None if None in names else LabelSet(plain_names)
            case nodes.SetOperation(operator=operator, operands=operands):
                return self._joined_names([(operator, operand) for operand in operands])
            case nodes.SetEdit(base=base, edits=edits):
                steps: list[tuple[nodes.Operator, object]] = [("|", base)]
                for adds, element in edits:
                    steps.append(("|" if adds else "-", nodes.SetLiteral((element,), element.at)))
                return self._joined_names(steps)
        return None

    def _joined_names(self, steps: Sequence[tuple[nodes.Operator, object]]) -> LabelSet | None:
        """The names after operations, from left to right; the first operator does not count."""
        (_, joined), *others = ((operator, self.static_names(part)) for operator, part in steps)
        for operator, names in others:
            if joined is None or names is None:
                return None
            joined = OPERATIONS[operator](joined, names)
        return joined


def _narrowing_fields(sources: Sequence[Source]) -> frozenset[nodes.Field]:
    """The fields in which values may have ALL."""
    fields: set[nodes.Field] = {"consumers"}
    for policy in map(_LabelUse, sources):
        for _, update in policy.updates:
            names = policy.static_names(update.set)
            if names is not None and names.negated:
                fields.add(update.target.field)
    return frozenset(fields)


def _name_of(element: object) -> str | None:
    """The label that a plain text names; `None` for other elements and texts in doubt."""
    match element:
        case nodes.TextLiteral(kind="plain", raw=raw) if "\\" not in raw:
            return raw
    return None


def _either(names: LabelSet, other: LabelSet) -> LabelSet:
    """All names in either set, also if one is everything (unlike `|` of SQRT)."""
    return intersection(names.complement, other.complement).complement


def _meet(names: LabelSet, other: LabelSet) -> bool:
    return intersection(names, other) != EMPTY
