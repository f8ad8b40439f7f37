"""The labels that somebody sets in a way: the way itself, the tools, the rules."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from langchain_sequrity.labels import ALL, RESERVED_PREFIX
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.coerce import PolicySettings, ToolArguments
from langchain_sequrity.sqrt.engine import NON_EXECUTABLE
from langchain_sequrity.sqrt.lint.checked_policy import (
    CheckedPolicy,
    CheckedTool,
    Clause,
    Owner,
    may_overlap,
    owner_of,
)
from langchain_sequrity.sqrt.lint.label_scope import RulesOfWay
from langchain_sequrity.sqrt.lint.reachable import BOTH, Reachable, Truths
from langchain_sequrity.sqrt.lint.ways import Capabilities

_OWNERS: tuple[Owner, ...] = get_args(Owner)
_FIELDS: tuple[nodes.Field, ...] = get_args(nodes.Field)
_HELD: Truths = frozenset({True})
_NO_SETTINGS = PolicySettings()


@dataclass(slots=True)
class _Names:
    """Names of labels of one field that an owner may have.

    Attributes:
        names: The known names.
        is_open: Whether a tool may set any other name.
        has_declared: Whether the labels that tools are said to set are possible, too.
    """

    names: set[str] = field(default_factory=set)
    is_open: bool = False
    has_declared: bool = False

    def add(self, other: "_Names") -> None:
        """Add the names that another owner may have."""
        self.names |= other.names
        self.is_open = self.is_open or other.is_open
        self.has_declared = self.has_declared or other.has_declared


class PossibleLabels:
    """The labels that values and the session may have, and what conditions can be with them.

    Args:
        policy: The policy.
        way: What it can do.
        settings: The fields of its `X-Policy`.
        declared: Tags and producers that tools set on their results.
        tools: The tools; `None` if they are unknown.
    """

    def __init__(
        self,
        policy: CheckedPolicy,
        way: Capabilities,
        settings: PolicySettings = _NO_SETTINGS,
        *,
        declared: Collection[str] = (),
        tools: Mapping[str, ToolArguments] | None = None,
    ) -> None:
        if settings.tags_results is False:
            way = replace(way, non_executable="never")
        self.way = way
        self._policy = policy
        self._declared = declared
        self._tools = tools
        self._rules = RulesOfWay(policy, way, declared, tools)
        self._reachable = Reachable(self._rules)
        self._others: dict[Capabilities, Reachable] = {}
        may_label = tools is None or any(one.may_label is not False for one in tools.values())
        is_open = may_label or way.any_result_labels
        self._of_tools = {field_: _Names(set(), is_open, has_declared=True) for field_ in _FIELDS}
        self._of_tools["consumers"].is_open = is_open or bool(declared)
        if way.tool_producers:
            self._of_tools["producers"].names |= set(tools or ())
        if way.non_executable != "never":
            self._of_tools["tags"].names.add(NON_EXECUTABLE)
        self._of_rules: dict[nodes.Field, list[tuple[CheckedTool, _Names]]] = {
            field_: [] for field_ in _FIELDS
        }
        self._of_session = {field_: _Names() for field_ in _FIELDS}
        self._restricted: set[Owner] = set()
        self._follow_rules()

    # Names
    def may_have(self, field: nodes.Field, owner: Owner, name: str) -> bool:
        """Whether a value or the session may have a label."""
        # Names of the service are refused in labels of tools.
        is_open = self._possible(field, owner).is_open and not name.startswith(RESERVED_PREFIX)
        return is_open or self.is_set(field, owner, name)

    def is_set(self, field: nodes.Field, owner: Owner, name: str) -> bool:
        """Whether somebody is known to set a label: a rule, the way, or a tool that declares it."""
        if owner == "values":
            is_of_service = name.startswith(RESERVED_PREFIX) and name != NON_EXECUTABLE
            may_be_tool = field == "producers" and self.way.tool_producers and self._tools is None
            if may_be_tool or (is_of_service and self.way.service_labels):
                return True
        possible = self._possible(field, owner)
        return name in possible.names or (possible.has_declared and name in self._declared)

    def is_other_tool(self, field: nodes.Field, name: str) -> bool:
        """Whether a producer is the name of a tool, which is no producer by itself in this way."""
        tool = (self._tools or {}).get(name)
        is_producer = field != "producers" or self.is_set(field, "values", name)
        return tool is not None and tool.may_label is not True and not is_producer

    def may_restrict(self, owner: Owner) -> bool:
        """Whether a value or the session may have consumers other than everyone."""
        return owner in self._restricted or self._possible("consumers", owner).is_open

    def changes_argument(self, clause: Clause, meta: nodes.Meta) -> bool:
        """Whether a call may change these labels of its arguments before it is checked."""
        return any(
            update.target.field == meta.field
            and (meta.scope == "args" or update.target.argument in {"", meta.argument})
            for step in self._policy.clauses
            if step.phase == "before" and may_overlap(step.tool, clause.tool)
            for update in step.updates
            if update.target.scope in {"arg", "args"}
        )

    def _follow_rules(self) -> None:
        """Add the labels that rules set, until nothing changes."""
        steps = [one for one in self._rules.steps if self.truths(one, _HELD) - {False}]
        waiting = True
        while waiting:
            waiting = False
            for step in steps:
                for update in step.updates:
                    waiting = self._add(update, step) or waiting

    def _add(self, update: nodes.Update, step: Clause) -> bool:
        """Add the labels that one update sets; whether any is new."""
        field, target = update.target.field, update.target
        if target.scope in {"arg", "args"}:
            return False  # they are there for the rules of this call only
        owner = owner_of(target, step)
        if field == "consumers":
            listed = {text.raw for text in self._policy.texts(update.set)}
            if ALL not in listed:
                self._restricted.add(owner)
            return False
        if update.assignment not in {"=", "|=", "^="}:
            return False
        added, known = self._names_in(update.set, step), self._of_session[field]
        if owner == "values":
            known = _Names()
            for block, names in self._of_rules[field]:
                if block is step.tool:
                    known = names
                    break
            else:
                self._of_rules[field].append((step.tool, known))
        before = replace(known, names=set(known.names))
        known.add(added)
        return before != known

    def _names_in(self, members: nodes.Set, step: Clause) -> _Names:
        names = _Names()
        for element in self._policy.elements(members):
            if isinstance(element, nodes.TextLiteral):
                names.names.add(element.raw)
            elif isinstance(element, nodes.Meta):
                is_argument = element.scope in {"arg", "args"}
                if not (is_argument and self.way.argument_labels == "none"):
                    owner = owner_of(element, step)
                    names.add(self._possible(element.field, owner, step.tool))
        return names

    def _possible(
        self, field: nodes.Field, owner: Owner, block: CheckedTool | None = None
    ) -> _Names:
        """The labels that the session, or values of a block's calls, may have.

        If arguments have no labels, no result passes its labels on to the result of another tool.
        """
        if owner == "session":
            return self._of_session[field]
        passes_on = block is None or self.way.argument_labels != "none"
        names, of_tools = _Names(), self._of_tools[field]
        names.add(of_tools)
        if not passes_on and block and block.known is not None:
            names.is_open = any(one.may_label is not False for one in block.known.values())
        for other, added in self._of_rules[field]:
            if passes_on or block is None or may_overlap(other, block):
                names.add(added)
        return names

    # Conditions

    def truths(self, clause: Clause, until: Truths = BOTH) -> Truths:
        """What the condition of a rule or a step can be: true, false, unknown.

        Args:
            clause: The rule or step.
            until: The truths of which it is enough to find all.

        Returns:
            The truths; none if it is never tested, because each call of its tool is denied.
        """
        if clause.phase not in {"result", "after"} or not self._rules.may_deny(clause.tool):
            if clause.test is None:
                return frozenset({True})
            if not self._policy.label_reads(clause).metas and not self.returns_objects(clause):
                return BOTH
        return self._reachable.truths(clause, until)

    def truths_anywhere(self, clause: Clause) -> Truths:
        """What the condition can be if everything may have any label."""
        return self._reachable.truths_anywhere(clause)

    def truths_with(self, clause: Clause, **capabilities: Any) -> Truths:
        """As `truths`, in a way with other capabilities."""
        way = replace(self.way, **capabilities)
        if way not in self._others:
            rules = RulesOfWay(self._policy, way, self._declared, self._tools)
            self._others[way] = Reachable(rules)
        return self._others[way].truths(clause)

    def returns_objects(self, clause: Clause) -> bool:
        """Whether results of a block's tools are known to be objects, which no rule can search."""
        known = clause.tool.known or {}
        return bool(known) and all(one.returns.get("type") == "object" for one in known.values())
