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

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import NamedTuple

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import ALL
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.combination.sources import Source, checks_of, one_line
from langchain_sequrity.sqrt.context import EMPTY, OPERATIONS, UNIVERSAL, LabelSet, intersection
from langchain_sequrity.sqrt.engine import LLM_BLOCKED
from langchain_sequrity.sqrt.node_text import printed_node

Named = dict[nodes.Field, LabelSet]

# With ALL, their effect depends on what others have added or removed.
_DEPENDING = ("|=", "-=", "^=")


def _no_names() -> Named:
    return {"tags": EMPTY, "producers": EMPTY, "consumers": EMPTY}


@dataclass
class _Reliance:
    """The names that a policy relies on, by field.

    Attributes:
        must_stay: Names whose removal may let a call pass.
        must_not_come: Names whose arrival may let a call pass.
    """

    must_stay: Named = field(default_factory=_no_names)
    must_not_come: Named = field(default_factory=_no_names)

    def side(self, *, passes: bool) -> Named:
        """The names whose arrival may let a call pass, or those whose removal may."""
        return self.must_not_come if passes else self.must_stay

    def has(self, name: nodes.Field) -> bool:
        """Whether it has names of a field."""
        return (self.must_stay[name], self.must_not_come[name]) != (EMPTY, EMPTY)

    def add(self, name: nodes.Field, names: LabelSet, *, passes: bool) -> None:
        """Add names; `passes` says whether their presence helps a call to pass."""
        side = self.side(passes=passes)
        side[name] = _either(side[name], names)

    def add_both(self, name: nodes.Field, names: LabelSet) -> None:
        """Add names whose presence may help a call to pass, and their absence too."""
        for passes in (True, False):
            self.add(name, names, passes=passes)

    @property
    def size(self) -> tuple[object, ...]:
        """What changes whenever a name is added."""
        return *self.must_stay.values(), *self.must_not_come.values()


def check_labels(sources: Sequence[Source]) -> None:
    """Refuse a change of labels that another policy's denials rely on.

    Raises:
        UsageError: If there is such a change. The message names both policies, the change and the
            labels.
    """
    narrowing = _narrowing_fields(sources)
    reliances = [_reliance_of(source, narrowing) for source in sources]
    pairs = zip(sources, reliances, strict=True)
    for (source, reliance), (other, _) in permutations(pairs, 2):
        bindings = nodes.bindings_of(other.policy)
        for step, update in _updates(other):
            added, removed = _effect(update, bindings, narrowing)
            for names, passes in ((removed, False), (added, True)):
                relied_on = intersection(names, reliance.side(passes=passes)[update.target.field])
                if relied_on != EMPTY:
                    change = _Change(other, step, update, relied_on, adds=passes)
                    raise _conflict(source, change, narrowing)


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


def _conflict(source: Source, change: _Change, narrowing: frozenset[nodes.Field]) -> UsageError:
    other, field_ = change.source.name, change.update.target.field
    listed = ", ".join(f"`{plain(name, limit=80)}`" for name in sorted(change.names.items)[:5])
    which = "" if change.names.negated or not listed else f" {listed}"
    relying = _relying_rule(source, change, narrowing)
    return UsageError(
        f"The policy `{other}` may allow what the policy `{source.name}` denies: "
        f"`{one_line(printed_node(change.update))}` (line {change.step.at.line} of `{other}`) can "
        f"{'add' if change.adds else 'remove'} {field_}{which}, and "
        f"{_relying_words(relying, source)} may deny if such labels are "
        f"{'missing' if change.adds else 'there'}. {_advice(relying, source, change)}."
    )


def _relying_rule(
    source: Source, change: _Change, narrowing: frozenset[nodes.Field]
) -> nodes.CheckRule | nodes.UpdateStep | None:
    """The first rule of a policy that relies on the names of a change, or step that reads them."""
    bindings = nodes.bindings_of(source.policy)
    for check in checks_of(source.policy):
        reliance = _Reliance()
        passes = check.decision == "allow"
        _add_tests(reliance, check.condition, bindings, narrowing, passes=passes)
        if _meet(reliance.side(passes=change.adds)[change.update.target.field], change.names):
            return check
    field_ = change.update.target.field
    for step, update in _updates(source):
        tests = nodes.walk((step.condition, update.set))
        reads = any(isinstance(node, nodes.Meta) and node.field == field_ for node in tests)
        if reads or (update.target.field == field_ and update.assignment in _DEPENDING):
            return step
    return None


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


def _reliance_of(source: Source, narrowing: frozenset[nodes.Field]) -> _Reliance:
    bindings = nodes.bindings_of(source.policy)
    reliance = _Reliance()
    for check in checks_of(source.policy):
        passes = check.decision == "allow"
        _add_tests(reliance, check.condition, bindings, narrowing, passes=passes)
    updates = list(_updates(source))
    _add_presets(reliance, source, updates)
    size: tuple[object, ...] | None = None
    while size != reliance.size:  # labels may depend on labels that depend on labels
        size = reliance.size
        for step, update in updates:
            _add_update(reliance, step, update, bindings, narrowing)
    return reliance


def _add_presets(
    reliance: _Reliance,
    source: Source,
    updates: Sequence[tuple[nodes.UpdateStep, nodes.Update]],
) -> None:
    """Add the names that the presets of a policy read."""
    bindings = nodes.bindings_of(source.policy)
    blocked = LabelSet(frozenset({LLM_BLOCKED}))
    for _, update in updates:
        names = _static_names(update.set, bindings)
        if names is not None and not names.negated and _meet(names, blocked):
            reliance.add("tags", blocked, passes=False)
    branches = (source.settings.get("presets") or {}).get("branching_meta_policy") or {}
    for name in reliance.must_stay if branches else ():
        listed = LabelSet(frozenset(branches.get(name) or ()))
        is_list_of_allowed = branches.get("mode") == "allow"
        reliance.add(name, listed.complement if is_list_of_allowed else listed, passes=False)


def _add_update(
    reliance: _Reliance,
    step: nodes.UpdateStep,
    update: nodes.Update,
    bindings: nodes.Bindings,
    narrowing: frozenset[nodes.Field],
) -> None:
    """Add what an update of labels reads, if the policy relies on what it changes."""
    name = update.target.field
    if name in narrowing and reliance.has(name) and update.assignment in _DEPENDING:
        reliance.add_both(name, UNIVERSAL)
    added, removed = _effect(update, bindings, narrowing)
    stays, comes = reliance.must_stay[name], reliance.must_not_come[name]
    helps = _meet(added, comes) or _meet(removed, stays)
    hinders = _meet(added, stays) or _meet(removed, comes)
    for applies, passes in ((helps, True), (hinders, False)):
        if applies:
            _add_tests(reliance, step.condition, bindings, narrowing, passes=passes)
    if not (helps or hinders):
        return
    if update.assignment == "^=":  # it removes what others add, and adds what they remove
        reliance.add_both(name, added)
    for meta, _ in _metas(update.set, bindings, narrowing):
        if meta.field == name and update.assignment == "|=":
            continue  # the same names, moved from value to value
        reliance.add_both(meta.field, UNIVERSAL)


def _add_tests(
    reliance: _Reliance,
    condition: object,
    bindings: nodes.Bindings,
    narrowing: frozenset[nodes.Field],
    *,
    passes: bool,
) -> None:
    for test, test_passes in nodes.tests_of(condition, bindings, passes=passes):
        for meta, names, grows in _parts_of(test, bindings, narrowing):
            for direction in (True, False) if grows is None else (grows,):
                reliance.add(meta.field, names, passes=test_passes == direction)


# Whether a test holds rather with more labels on its left or right side; `None` is both.
_GROWS_WITH_LEFT: dict[nodes.MetaTest, bool | None] = {
    "overlaps": True, "superset": True, "universal": True, "subset": False, "empty": False,
    "==": None,
}  # fmt: skip
_GROWS_WITH_RIGHT: dict[nodes.MetaTest, bool] = {
    "overlaps": True, "subset": True, "superset": False,
}  # fmt: skip


def _parts_of(
    test: nodes.Tests, bindings: nodes.Bindings, narrowing: frozenset[nodes.Field]
) -> Iterator[tuple[nodes.Meta, LabelSet, bool | None]]:
    """The sets of labels in a test, the names that matter in each, and its direction.

    The direction says whether the test holds rather with more labels; `None` is both.
    """
    match test:
        case nodes.Membership(value=value, set=members):
            name = _name_of(value)
            searched = UNIVERSAL if name is None else LabelSet(frozenset({name}))
            for meta, grows in _metas(members, bindings, narrowing):
                yield meta, searched, grows
        case nodes.LabelTest(left=labels, test=comparison, right=right):
            names = None if right is None else _static_names(right, bindings)
            if names is None:
                names = outside = UNIVERSAL
            else:
                outside = names.complement
            relevant = {"subset": outside, "==": UNIVERSAL}.get(comparison, names)
            yield labels, relevant, _GROWS_WITH_LEFT[comparison]
            direction = _GROWS_WITH_RIGHT.get(comparison)
            for meta, grows in _metas(right, bindings, narrowing):
                unclear = direction is None or grows is None
                yield meta, UNIVERSAL, None if unclear else direction == grows


def _metas(
    root: object,
    bindings: nodes.Bindings,
    narrowing: frozenset[nodes.Field],
    *,
    grows: bool | None = True,
) -> Iterator[tuple[nodes.Meta, bool | None]]:
    """The sets of labels in a set, and whether it grows with each; `None` if that depends."""
    match root:
        case nodes.Meta():
            yield root, grows
        case nodes.Name(name=name) if name in bindings:
            yield from _metas(bindings[name].value, bindings, narrowing, grows=grows)
        case nodes.SetEdit(base=base):
            yield from _unclear(_metas(base, bindings, narrowing, grows=grows), narrowing)
        case nodes.SetOperation(operator=operator, operands=operands):
            for number, operand in enumerate(operands):
                direction = grows
                if operator == "^":
                    direction = None
                elif operator == "-" and number and grows is not None:
                    direction = not grows
                metas = _metas(operand, bindings, narrowing, grows=direction)
                yield from metas if operator == "&" else _unclear(metas, narrowing)


def _unclear(
    metas: Iterable[tuple[nodes.Meta, bool | None]], narrowing: frozenset[nodes.Field]
) -> Iterator[tuple[nodes.Meta, bool | None]]:
    """The operands of a union or a difference: with ALL, these may grow or shrink."""
    for meta, grows in metas:
        yield meta, None if meta.field in narrowing else grows


# What an update does


def _updates(source: Source) -> Iterator[tuple[nodes.UpdateStep, nodes.Update]]:
    for node in nodes.tools_of(source.policy):
        blocks = () if isinstance(node, nodes.OneLiner) else node.blocks
        steps = (
            [node.step]
            if isinstance(node, nodes.OneLiner)
            else [step for block in blocks for step in block.steps]
        )
        yield from ((step, update) for step in steps for update in step.updates)


def _narrowing_fields(sources: Sequence[Source]) -> frozenset[nodes.Field]:
    """The fields in which values may have ALL."""
    fields: set[nodes.Field] = {"consumers"}
    for source in sources:
        bindings = nodes.bindings_of(source.policy)
        for _, update in _updates(source):
            names = _static_names(update.set, bindings)
            if names is not None and names.negated:
                fields.add(update.target.field)
    return frozenset(fields)


def _effect(
    update: nodes.Update, bindings: nodes.Bindings, narrowing: frozenset[nodes.Field]
) -> tuple[LabelSet, LabelSet]:
    """The names that an update may add, and those that it may remove."""
    names = _static_names(update.set, bindings)
    if names is None:
        added = removed = rest = UNIVERSAL
    else:
        added = removed = names
        rest = names.complement
    narrows = update.target.field in narrowing
    effects: dict[str, tuple[LabelSet, LabelSet]] = {
        "=": (added, rest),
        "|=": (added, rest if narrows else EMPTY),
        "&=": (EMPTY, rest),
        "-=": (EMPTY, removed),
        "^=": (added, removed),
    }
    return effects[update.assignment]


def _static_names(root: object, bindings: nodes.Bindings) -> LabelSet | None:
    """The names in a set that does not depend on a call; `None` if it does or has patterns."""
    match root:
        case nodes.Name(name=name) if name in bindings:
            return _static_names(bindings[name].value, bindings)
        case nodes.SetLiteral(elements=elements):
            names = [_name_of(element) for element in elements]
            if ALL in names:
                return UNIVERSAL
            plain_names = frozenset(name for name in names if name is not None)
            return None if None in names else LabelSet(plain_names)
        case nodes.SetOperation(operator=operator, operands=operands):
            return _joined_names([(operator, operand) for operand in operands], bindings)
        case nodes.SetEdit(base=base, edits=edits):
            steps: list[tuple[nodes.Operator, object]] = [("|", base)]
            for adds, element in edits:
                steps.append(("|" if adds else "-", nodes.SetLiteral((element,), element.at)))
            return _joined_names(steps, bindings)
    return None


def _joined_names(
    steps: Sequence[tuple[nodes.Operator, object]], bindings: nodes.Bindings
) -> LabelSet | None:
    """The names after some operations, from left to right; the first operator does not count."""
    sets = [(operator, _static_names(operand, bindings)) for operator, operand in steps]
    joined = sets[0][1]
    for operator, names in sets[1:]:
        if joined is None or names is None:
            return None
        joined = OPERATIONS[operator](joined, names)
    return joined


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
