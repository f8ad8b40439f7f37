"""What the condition of a rule or a step depends on: rules, labels, and calls of tools.

All names of labels that no test names are one name, `OTHER`, or are left out if no test can see
them.
"""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, combinations, product
from typing import NamedTuple

from langchain_sequrity.labels import ALL, NO_LABELS, RESERVED_PREFIX, Labels
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.coerce import ToolArguments
from langchain_sequrity.sqrt.engine import NON_EXECUTABLE
from langchain_sequrity.sqrt.lint.checked_policy import (
    CheckedPolicy,
    CheckedTool,
    Clause,
    Owner,
    is_whole,
    may_overlap,
    metas_in,
    owner_of,
)
from langchain_sequrity.sqrt.lint.ways import Capabilities, is_applied
from langchain_sequrity.sqrt.matchers import MatchBudget

OTHER = "\ue000"  # all labels that no test names
REST = "\ue000"  # all arguments that no rule names
_MOST_WORK = 50_000  # of one policy
_MOST_NAMES = 7  # of which all subsets are tried


class TooMuch(Exception):
    """A condition depends on too much to follow it."""


@dataclass
class Scope:
    """What a condition depends on.

    Attributes:
        names: The names that matter, by field.
        owners: Whose labels matter, by field and owner.
        whole: The fields of which other names matter, too.
        clauses: The rules and steps that matter, by the identity of their nodes.
    """

    names: dict[nodes.Field, set[str]] = field(default_factory=dict)
    owners: set[tuple[nodes.Field, Owner]] = field(default_factory=set)
    whole: set[nodes.Field] = field(default_factory=set)
    clauses: dict[int, Clause] = field(default_factory=dict)

    @property
    def key(self) -> Hashable:
        """All of this."""
        names = frozenset((field_, frozenset(of_field)) for field_, of_field in self.names.items())
        return names, frozenset(self.owners), frozenset(self.whole), frozenset(self.clauses)

    @cached_property
    def follows_values(self) -> bool:
        """Whether labels of values matter."""
        return any(owner == "values" for _, owner in self.owners)

    def projected(self, labels: Labels) -> Labels:
        """The labels without what does not matter."""
        return Labels(
            self._projected("producers", labels.producers),
            labels.consumers if "consumers" in self.names else NO_LABELS.consumers,
            self._projected("tags", labels.tags),
        )

    def _projected(self, field_: nodes.Field, labels: frozenset[str]) -> frozenset[str]:
        names = self.names.get(field_, set())
        if labels <= names:
            return labels
        return (labels & names) | {OTHER} if field_ in self.whole else labels & names


class CalledTool(NamedTuple):
    """What calls of a tool do to labels.

    Attributes:
        clauses: Its rules and steps that matter, in source order.
        arguments: The arguments of which the labels are read one by one, and one for the rest.
        defaults: Those that a call may leave out, so that the tool gets a default.
        may_label: Whether the tool may set any label on its results, or replace their labels.
        may_have_none: Whether a call may have no arguments.
        returns_objects: Whether results are objects, which no rule can search.
        labels: The labels that each result has by itself.
    """

    clauses: tuple[Clause, ...]
    arguments: tuple[str, ...]
    defaults: frozenset[str]
    may_label: bool
    may_have_none: bool
    returns_objects: bool
    labels: Labels


class RulesOfWay:
    """The rules and steps that apply in a way.

    Args:
        policy: The policy.
        capabilities: What it can do.
        declared: Tags and producers that tools set on their results.
        tools: The tools; `None` if they are unknown.

    Attributes:
        steps: The steps.
        work_left: How many more calls searches may make.
    """

    def __init__(
        self,
        policy: CheckedPolicy,
        capabilities: Capabilities,
        declared: Collection[str],
        tools: Mapping[str, ToolArguments] | None,
    ) -> None:
        self.policy = policy
        self.capabilities = capabilities
        self._declared = declared
        self._tools = tools
        applied = [clause for clause in policy.clauses if is_applied(clause.tool, capabilities)]
        self.steps = [clause for clause in applied if clause.updates]
        self._denials = [
            clause for clause in applied
            if clause.rule and (clause.rule.strength, clause.rule.decision) == ("hard", "deny")
            and (clause.test is None or policy.label_reads(clause).metas)
        ]  # fmt: skip
        self.work_left = _MOST_WORK
        self._denials_by_block: dict[int, list[Clause]] = {}
        self._updates: dict[int, tuple[frozenset[str], list[nodes.Meta]]] = {}
        self._scopes: dict[Hashable, Scope] = {}

    def denials_before(self, clause: Clause) -> Sequence[Clause]:
        """The hard denials, by labels or of all calls, of the calls that a step follows."""
        if clause.phase not in {"result", "after"}:
            return ()
        block = clause.tool
        if id(block) not in self._denials_by_block:
            self._denials_by_block[id(block)] = [
                denial for denial in self._denials
                if denial.tool is block or may_overlap(denial.tool, block)
            ]  # fmt: skip
        return self._denials_by_block[id(block)]

    # Labels

    def scope_of(self, target: Clause) -> Scope:
        """What the condition of a rule or step depends on, without the rule or step itself."""
        scope = Scope()
        self._include_condition(target, scope)
        scope.clauses.clear()  # `tools_of` adds those of the target
        first = before = scope.key
        if first not in self._scopes:
            while True:
                for step in self.steps:
                    if any(self._matters(update, step, scope) for update in step.updates):
                        self._include(step, scope)
                if before == scope.key:
                    break
                before = scope.key
            self._scopes[first] = self._scopes.setdefault(before, scope)
        return self._scopes[first]

    def _matters(self, update: nodes.Update, step: Clause, scope: Scope) -> bool:
        """Whether an update changes labels that matter."""
        target = update.target
        if target.scope in {"arg", "args"}:
            return target.field in scope.names
        if (target.field, owner_of(target, step)) not in scope.owners:
            return False
        if target.field == "consumers" or target.field in scope.whole or update.assignment == "=":
            return True
        names, metas = self._read(update)
        return bool(metas) or not names.isdisjoint(scope.names[target.field])

    def _include(self, step: Clause, scope: Scope) -> None:
        """Include a step that matters, with all that it depends on."""
        if id(step.node) not in scope.clauses:
            scope.clauses[id(step.node)] = step
            self._include_condition(step, scope)
        for update in step.updates:
            field_, (names, metas) = update.target.field, self._read(update)
            followed = scope.names.setdefault(field_, set())
            is_list = isinstance(update.set, nodes.SetLiteral)
            if field_ == "consumers" or not (is_list and update.assignment in {"|=", "="}):
                followed |= names  # it may remove names, or leave them out
            for meta in metas:
                self._include_labels(meta, step, scope, followed)
                if field_ in scope.whole:
                    scope.whole.add(meta.field)

    def _include_condition(self, clause: Clause, scope: Scope) -> None:
        """Include the labels in a condition, and whether a call is denied before it is tested."""
        reads = self.policy.label_reads(clause)
        for test, elements in reads.tests:
            metas = metas_in(elements)
            has_value = any(isinstance(element, nodes.ValueRef) for element in elements)
            for meta in metas:
                self._include_labels(meta, clause, scope, _texts_in(elements))
                names = scope.names[meta.field]
                if is_whole(test, metas):
                    scope.whole.add(meta.field)
                if has_value or len(metas) > 1:  # the same name may be on both sides
                    names |= self._names_set(meta.field)
                if has_value:
                    names |= _texts_in(chain(*(elements for _, elements in reads.tests)))
        for denial in self.denials_before(clause):
            if id(denial.node) not in scope.clauses:
                scope.clauses[id(denial.node)] = denial
                self._include_condition(denial, scope)

    def _include_labels(
        self, meta: nodes.Meta, clause: Clause, scope: Scope, names: AbstractSet[str]
    ) -> None:
        if meta.scope not in {"arg", "args"} or self.capabilities.argument_labels != "none":
            scope.owners.add((meta.field, owner_of(meta, clause)))
        followed = scope.names.setdefault(meta.field, set())
        followed |= names - {ALL}
        if meta.field == "consumers":  # they are intersected, so each name counts
            followed |= self._names_set("consumers")

    def _names_set(self, field_: nodes.Field) -> set[str]:
        """All names that updates of a field mention."""
        updates = (update for step in self.steps for update in step.updates)
        return {
            name
            for update in updates
            if update.target.field == field_
            for name in self._read(update)[0]
        }

    def _read(self, update: nodes.Update) -> tuple[frozenset[str], list[nodes.Meta]]:
        """The names and the sets of labels in an update."""
        if id(update) not in self._updates:
            elements = [*self.policy.elements(update.set, removed=True)]
            names = frozenset(_texts_in(elements) - {ALL})
            self._updates[id(update)] = names, metas_in(elements)
        return self._updates[id(update)]

    # Calls

    def tools_of(self, scope: Scope, target: Clause | None = None) -> list[CalledTool]:
        """The tools that may be called, without those that do the same as another one.

        Args:
            scope: What matters.
            target: A rule or step that matters, too; then only its tools.
        """
        added = [target, *self.denials_before(target)] if target else []
        needed = {*scope.clauses, *(id(clause.node) for clause in added)}
        in_order = [clause for clause in self.policy.clauses if id(clause.node) in needed]
        tools: dict[Hashable, CalledTool] = {}
        for name, declared, blocks in self._called:
            if target and id(target.tool.node) not in blocks:
                continue
            applied = tuple(clause for clause in in_order if id(clause.tool.node) in blocks)
            arguments = dict.fromkeys(
                name for clause in applied for name in self._arguments_of(clause)
            )
            if declared.is_open or not arguments.keys() >= set(declared.names):
                arguments[REST] = None
            labels = NO_LABELS
            if self.capabilities.tool_producers and "producers" in scope.names:
                labels = scope.projected(Labels(producers=frozenset({name})))
            tool = CalledTool(
                applied,
                tuple(arguments),
                frozenset(
                    name
                    for name in arguments
                    if name in declared.defaults or (self._tools is None and name != REST)
                ),
                declared.may_label is not False or self.capabilities.any_result_labels,
                not declared.required,
                declared.returns.get("type") == "object",
                labels,
            )
            tools.setdefault((*map(id, applied), *tool[1:]), tool)
        return list(tools.values())

    @cached_property
    def _called(self) -> list[tuple[str, ToolArguments, set[int]]]:
        """The tools, each with its name, if it is known, its arguments and its blocks."""
        blocks = self.policy.tools
        if self._tools is not None:
            return [
                (name, arguments, {id(b.node) for b in blocks if name in (b.matched_tools or ())})
                for name, arguments in self._tools.items()
            ]
        regexes = {id(block.node) for block in blocks if block.node.tool.text.kind != "plain"}
        sets = [
            {id(block.node) for block in blocks if _may_match(text, block)}
            for text in sorted({block.node.tool.text.raw for block in blocks})
        ]
        # Several of the regexes may match a name.
        return [("", ToolArguments(), applied) for applied in (set(), regexes, *sets)]

    def metas_of(self, clause: Clause) -> Iterator[nodes.Meta]:
        """The sets of labels that a rule or step reads or changes."""
        yield from self.policy.label_reads(clause).metas
        for update in clause.updates:
            yield update.target
            yield from self._read(update)[1]

    def _arguments_of(self, clause: Clause) -> Iterator[str]:
        """The arguments of which a rule or step names the labels, or seeks the value in labels."""
        yield from (meta.argument for meta in self.metas_of(clause) if meta.scope == "arg")
        for _, elements in self.policy.label_reads(clause).tests:
            for element in elements if metas_in(elements) else ():
                if isinstance(element, nodes.ValueRef) and element.scope == "arg":
                    yield element.argument

    def choices(self, scope: Scope, *, may_label: bool) -> Iterator[Labels]:
        """The labels that the service, or a tool, may set on some results.

        Args:
            scope: The labels that matter.
            may_label: Whether the tool may set any label.
        """
        possible: dict[nodes.Field, list[frozenset[str]]] = {}
        for field_, owner in sorted(scope.owners):
            if owner == "values":
                is_open = may_label or bool(self._declared and field_ == "consumers")
                names = sorted(
                    name for name in scope.names[field_]
                    if name != NON_EXECUTABLE and (
                        self.capabilities.runs_programs if name.startswith(RESERVED_PREFIX)
                        else is_open or name in self._declared
                    )
                )  # fmt: skip
                if field_ in scope.whole and (is_open or self._declared):
                    names.append(OTHER)
                possible[field_] = subsets(names)
                if field_ == "consumers":
                    possible[field_] = [NO_LABELS.consumers, *(possible[field_] if is_open else ())]
        for chosen in product(*possible.values()):
            labels = Labels(**dict(zip(possible, chosen, strict=True)))
            if labels != NO_LABELS:
                yield labels


def _may_match(text: str, block: CheckedTool) -> bool:
    """Whether a block may be for the tool of a name, or for one of those that a regex names."""
    tool = block.node.tool.text
    if tool.raw == text:
        return True
    return tool.kind != "plain" and block.compiled.matches(text, MatchBudget()) is not False


def _texts_in(elements: Iterable[object]) -> set[str]:
    return {text.raw for text in elements if isinstance(text, nodes.TextLiteral)}


def subsets(names: Sequence[str]) -> list[frozenset[str]]:
    """All subsets, the smallest first.

    Raises:
        TooMuch: If there are too many names.
    """
    if len(names) > _MOST_NAMES:
        raise TooMuch
    return [frozenset(subset) for n in range(len(names) + 1) for subset in combinations(names, n)]
