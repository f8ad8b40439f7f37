"""The labels that somebody sets in a way, and what conditions can be there."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

from langchain_sequrity.labels import ALL, RESERVED_PREFIX
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.coerce import PolicySettings, ToolArguments
from langchain_sequrity.sqrt.engine import NON_EXECUTABLE
from langchain_sequrity.sqrt.lint.checked_policy import (
    CheckedPolicy,
    Clause,
    Owner,
    may_overlap,
    owner_of,
)
from langchain_sequrity.sqrt.lint.label_scope import RulesOfWay
from langchain_sequrity.sqrt.lint.reachable import BOTH, Reachable, Truths
from langchain_sequrity.sqrt.lint.ways import Capabilities

_OwnedField = tuple[nodes.Field, Owner]
SEPARATE = {"argument_labels": "separate", "non_executable": "perhaps"}
"""Each argument has its own labels, and results may have the tag `__non_executable`."""
_ONLY_TRUE: Truths = frozenset({True})


class PossibleLabels:
    """The labels that values and the session may have, and what conditions can be with them.

    Args:
        policy: The policy.
        capabilities: What it can do.
        settings: The fields of its `X-Policy`.
        declared: Tags and producers that tools set on their results.
        tools: The tools; `None` if they are unknown.
    """

    def __init__(
        self,
        policy: CheckedPolicy,
        capabilities: Capabilities,
        settings: PolicySettings,
        *,
        declared: Collection[str] = (),
        tools: Mapping[str, ToolArguments] | None = None,
    ) -> None:
        if settings.tags_results is False:
            capabilities = replace(capabilities, non_executable="never")
        self.capabilities = capabilities
        self._policy = policy
        self._declared = declared
        self._tools = tools
        self._rules = RulesOfWay(policy, capabilities, declared, tools)
        self._reachable = Reachable(self._rules)
        self._others: dict[Capabilities, Reachable] = {}
        may_label = tools is None or any(tool.may_label is not False for tool in tools.values())
        values: set[_OwnedField] = {(field, "values") for field in nodes.FIELDS}
        self._declaring = set(values)  # may have the declared names
        self._open = values if may_label or capabilities.any_result_labels else set()  # any name
        if declared:  # a tool that sets labels may set consumers, too
            self._open = self._open | {("consumers", "values")}
        self._names: dict[_OwnedField, set[str]] = {
            (field, owner): set() for field in nodes.FIELDS for owner in get_args(Owner)
        }
        if capabilities.tool_producers:
            self._names["producers", "values"] |= set(tools or ())
        if capabilities.non_executable != "never":
            self._names["tags", "values"].add(NON_EXECUTABLE)
        self._follow_rules()

    # Names

    def may_have(self, field: nodes.Field, owner: Owner, name: str) -> bool:
        """Whether a value or the session may have a label."""
        # Names of the service are refused in labels of tools.
        is_open = (field, owner) in self._open and not name.startswith(RESERVED_PREFIX)
        return is_open or self.is_set(field, owner, name)

    def is_set(self, field: nodes.Field, owner: Owner, name: str) -> bool:
        """Whether somebody is known to set a label: a rule, the way, or a tool that declares it."""
        if owner == "values":
            is_of_service = name.startswith(RESERVED_PREFIX) and name != NON_EXECUTABLE
            may_be_tool = (
                field == "producers" and self.capabilities.tool_producers and self._tools is None
            )
            if may_be_tool or (is_of_service and self.capabilities.runs_programs):
                return True
        is_declared = (field, owner) in self._declaring and name in self._declared
        return is_declared or name in self._names[field, owner]

    def is_other_tool(self, field: nodes.Field, name: str) -> bool:
        """Whether a producer is the name of a tool, which is no producer by itself in this way."""
        tool = (self._tools or {}).get(name)
        is_producer = field != "producers" or self.is_set(field, "values", name)
        return tool is not None and tool.may_label is not True and not is_producer

    def may_restrict(self, owner: Owner) -> bool:
        """Whether a value or the session may have consumers other than everyone."""
        return ("consumers", owner) in self._open or bool(self._names["consumers", owner])

    def changes_argument(self, clause: Clause, meta: nodes.Meta) -> bool:
        """Whether a call may change these labels of its arguments before it is checked."""
        return any(
            target.scope in {"arg", "args"}
            and target.field == meta.field
            and (meta.scope == "args" or target.argument in {"", meta.argument})
            for target in self._changed_before(clause)
        )

    def changes_session(self, clause: Clause) -> bool:
        """Whether a call may change labels of the session that a rule reads, before the rule."""
        read = {
            meta.field for meta in self._policy.label_reads(clause).metas
            if owner_of(meta, clause) == "session"
        }  # fmt: skip
        changed = self._changed_before(clause) if clause.rule else ()
        return any(
            target.scope not in {"arg", "args"} and target.field in read for target in changed
        )

    def _changed_before(self, clause: Clause) -> Iterator[nodes.Meta]:
        """The labels that the policy may change before a call of the same tool is checked."""
        for step in self._policy.clauses:
            if step.phase == "before" and may_overlap(step.tool, clause.tool):
                yield from (update.target for update in step.updates)

    def _follow_rules(self) -> None:
        """Add the labels that rules set or copy."""
        copied: set[tuple[_OwnedField, _OwnedField]] = set()
        for step in self._rules.steps:
            updates = [u for u in step.updates if u.target.scope not in {"arg", "args"}]
            for update in updates if self.truths(step, _ONLY_TRUE) - {False} else ():
                target = update.target.field, owner_of(update.target, step)
                names = {text.raw for text in self._policy.texts(update.set)}
                if target[0] == "consumers":
                    self._names[target] |= set() if ALL in names else {*names, ""}  # or nobody
                elif update.assignment in {"=", "|=", "^="}:
                    self._names[target] |= names
                    copied |= {
                        ((element.field, owner_of(element, step)), target)
                        for element in self._policy.elements(update.set)
                        if isinstance(element, nodes.Meta)
                    }
        for _ in copied:  # each may depend on another one
            for source, target in copied:
                self._names[target] |= self._names[source]
                for fields in (self._open, self._declaring):
                    if source in fields:
                        fields.add(target)

    # Conditions

    def truths(self, clause: Clause, until: Truths = BOTH) -> Truths:
        """What the condition of a rule or a step can be: true, false, unknown.

        Args:
            clause: The rule or step.
            until: The truths of which it is enough to find all.

        Returns:
            The truths; none if it is never tested, because each call of its tool is denied.
        """
        may_be_denied = bool(self._rules.denials_before(clause))
        if clause.test is None and not may_be_denied:
            return _ONLY_TRUE
        reads_labels = bool(self._policy.label_reads(clause).metas)
        if not (reads_labels or may_be_denied or self.returns_objects(clause)):
            return BOTH
        return self._reachable.truths(clause, until)

    def in_other_way(self, **changes: Any) -> Reachable:
        """What conditions can be in a way with other capabilities."""
        capabilities = replace(self.capabilities, **changes)
        if capabilities not in self._others:
            rules = RulesOfWay(self._policy, capabilities, self._declared, self._tools)
            self._others[capabilities] = Reachable(rules)
        return self._others[capabilities]

    def returns_objects(self, clause: Clause) -> bool:
        """Whether results of a block's tools are known to be objects, which no rule can search."""
        tools = (clause.tool.matched_tools or {}).values()
        return bool(tools) and all(tool.returns.get("type") == "object" for tool in tools)
