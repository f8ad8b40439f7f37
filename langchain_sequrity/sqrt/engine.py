"""A compiled policy: session updates, verdicts and result updates for tool calls.

The order of one call is M5 of `docs/behaviour.md`: `before`, `decide`, the call itself, `after`.
An engine has no state; callers pass labels in and get new ones back.

If a verdict is in doubt, its single tests run again to find out which of them is unknown. The
reasons then say why, without showing a value of the call.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple, cast

from langchain_sequrity import patterns
from langchain_sequrity.display import plain
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.compiler import (
    CompiledCheck,
    CompiledStep,
    CompiledTool,
    CompiledUpdate,
    ConditionParts,
    Reporter,
    Severity,
    compiled_tools,
)
from langchain_sequrity.sqrt.context import (
    MISSING,
    OPERATIONS,
    Argument,
    Call,
    EvaluationContext,
    LabelSet,
    folded,
    intersection,
    looks_like_error,
    widest,
)
from langchain_sequrity.sqrt.diagnostics import syntax_error
from langchain_sequrity.sqrt.endorsements import endorsements_in
from langchain_sequrity.sqrt.matchers import (
    INSTALL,
    LINE_BREAK,
    SCALARS,
    SECONDS_PER_MATCH,
    MatchBudget,
    Truth,
    both,
    negated,
)
from langchain_sequrity.sqrt.nodes import Policy, Position
from langchain_sequrity.sqrt.parser import parse
from langchain_sequrity.sqrt.verdict import (
    REASONS_SHOWN,
    Presets,
    Reason,
    Verdict,
    Vote,
    decide_by_votes,
    joined_verdict,
)

LLM_BLOCKED = "__llm_blocked"
NON_EXECUTABLE = "__non_executable"
PARSE_WITH_AI = "parse_with_ai"
_DEFAULTS = Presets()
_CACHED_TOOLS = 1_000


class _ToolRules(NamedTuple):
    """The rules for one tool, each with whether it applies to the tool: true or unknown."""

    checks: tuple[tuple[CompiledCheck, Truth], ...]
    steps: dict[nodes.Phase, tuple[tuple[CompiledStep, Truth], ...]]
    argument_updates: tuple[CompiledUpdate, ...]  # updates of arguments before the call


@dataclass(frozen=True, eq=False, repr=False)
class Engine:
    """A policy that is ready to decide; made by `compile_policy`, safe to share.

    Attributes:
        policy: The parsed policy.
        tools: Blocks and one-liners in source order; for combined policies, those of each.
        presets: The built-in policies.
        name: The name of the policy, which its reasons have; `None` if it has none.
        parts: For combined policies, the engine of each. A call is denied if one of them denies it.

    Example:
        ```python
        from langchain_sequrity.labels import Labels
        from langchain_sequrity.sqrt import Argument, Call, compile_policy, parse

        engine = compile_policy(parse('tool "ship" { must deny when "raw" in crate.tags; }'))
        call = Call("ship", {"crate": Argument("C7", Labels(tags=frozenset({"raw"})))})
        verdict = engine.decide(call, Labels())
        assert verdict.final_verdict == "hard_denied"
        assert verdict.reasons[0].at == (1, 15)
        ```
    """

    policy: Policy
    tools: tuple[CompiledTool, ...]
    presets: Presets
    name: str | None = None
    parts: "tuple[Engine, ...]" = ()
    _rules: dict[str, _ToolRules] = field(default_factory=dict, init=False)
    _fields: dict[str, tuple[tuple[CompiledStep, Truth], ...]] = field(
        default_factory=dict, init=False
    )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the policy without compiled rules, which are functions."""
        return _unpickled, (self.policy, self.presets, self.name, self.parts)

    # One call

    def before(self, call: Call, session: Labels) -> Labels:
        """Run the updates of kind `session before`.

        Args:
            call: The call that is about to be checked.
            session: The session's labels.

        Returns:
            The session's new labels. They stay even if the call is denied.
        """
        if not self._rules_for(call.tool).steps["before"]:
            return session
        context = EvaluationContext(call, session, short="session")
        self._run("before", call.tool, context)
        return context.session

    def decide(self, call: Call, session: Labels) -> Verdict:
        """Check a call.

        Args:
            call: The call, exactly as it would be made.
            session: The session's labels after `before`.

        Returns:
            The verdict. An error in a rule never raises: it makes the rule unknown, which denies.
        """
        if self.parts:
            call = self._with_added_labels(call, session)
            return joined_verdict([part.decide(call, session) for part in self.parts])
        presets = self.presets
        asks_model = call.tool == PARSE_WITH_AI and presets.non_executable_memory
        verdict = decide_by_votes(call.tool, self.votes(call, session), presets, int(asks_model))
        if not (verdict.certain and all(reason.certain for reason in verdict.reasons)):
            verdict = self._with_causes_of_doubt(verdict, call, session)
        if self.name is None:
            return verdict
        reasons = tuple(replace(reason, policy=self.name) for reason in verdict.reasons)
        return replace(verdict, reasons=reasons)

    def votes(self, call: Call, session: Labels) -> Iterator[Vote]:
        """The votes of presets and rules, in order; each condition is evaluated when needed.

        Args:
            call: The call.
            session: The session's labels after `before`.
        """
        context = self._context(call, session)
        if call.tool == PARSE_WITH_AI and self.presets.llm_blocked:
            blocked = any(LLM_BLOCKED in labels.tags for labels in context.argument_labels())
            reason = Reason(
                "llm_blocked_tag", None, "the data model must not read an argument",
                self.presets.llm_blocked, "deny",
            )  # fmt: skip
            yield Vote(reason, (0, True), blocked, fails=False)
        for check, applies in self._rules_for(call.tool).checks:
            met = True if check.test is None else check.test(context)
            fails = both(applies, negated(met)) if check.required else False
            reason = check.reason
            if met is None and (absent := _missing_arguments(check, call.arguments)):
                reason = replace(reason, absent=absent)
            yield Vote(reason, check.rank, met if applies else both(applies, met), fails)

    def after(
        self, call: Call, result: Argument, session: Labels, *, is_error: bool = False
    ) -> tuple[Labels, Labels]:
        """Run the updates of kind `result`, then those of kind `session after`.

        Between the two the result gets the tag `__non_executable`, if the presets say so.

        Args:
            call: The call that was made.
            result: The result, with the join of its own labels and those of the arguments.
            session: The session's labels.
            is_error: Whether the tool is known to have failed; a text that begins like an error
                counts as one too. It may quote the arguments, so updates of kind `result` only add
                tags and producers, and only remove consumers.

        Returns:
            The labels of the result and those of the session.
        """
        if not self.looks_at_results(call.tool):
            return result.labels, session
        steps = self._rules_for(call.tool).steps
        if not (steps["result"] or steps["after"]):  # so only the presets change a label
            labels = result.labels
            tags = labels.tags | {NON_EXECUTABLE}
            return Labels(labels.producers, labels.consumers, tags), session
        is_error = is_error or looks_like_error(result.value)
        context = self._context(call, session, result)
        context.set_short_scope("result")
        self._run("result", call.tool, context, is_error=is_error)
        if self.presets.non_executable_memory:
            context.tag_result(NON_EXECUTABLE)
        context.set_short_scope("session")
        self._run("after", call.tool, context)
        return context.result_labels, context.session

    def field_labels(
        self, call: Call, result: Argument, path: str, session: Labels
    ) -> tuple[Labels, Labels]:
        """Run the updates of kind `result` for a field of a result that is no error.

        The rules for the tool come first, then those for the objects around the field from the
        outside, then its own.

        Args:
            call: The call that was made.
            result: The whole result, with the labels that the field has before the rules.
            path: The path of the field, as `FieldLabels` has it.
            session: The session's labels.

        Returns:
            The labels of the field and those of the session.
        """
        context = self._context(call, session, result)
        context.set_short_scope("result")
        self._run("result", call.tool, context)
        context.result = Argument(MISSING, result.labels)  # a path may have several values
        context.set_short_scope("result")  # forgets what depends on the value
        names = path.split("/")
        for depth in range(len(names)):
            around = "/".join(names[: depth + 1])
            for step, truth in self.field_steps(call.tool, around, context):
                if truth is not False:
                    for update in step.updates:
                        apply_update(update, context, certain=truth is True and update.honoured)
        if self.presets.non_executable_memory:
            context.tag_result(NON_EXECUTABLE)
        return context.result_labels, context.session

    def names_field(self, tool: str, path: str) -> bool:
        """Whether a rule on results is, or may be, for the field at `path` in results of `tool`."""
        return bool(self._field_steps(tool, path))

    @cached_property
    def names_fields(self) -> bool:
        """Whether a rule may be for a field of a result."""
        return any(entry.may_be_field and entry.steps for entry in self.tools)

    @cached_property
    def endorsements(self) -> frozenset[str]:
        """The endorsements of arguments that the policy mentions."""
        return endorsements_in(self.declarations)

    def foreseen(self, call: Call, session: Labels) -> Labels:
        """The labels that the session may have after a call, for any result.

        Args:
            call: A call whose result is not known yet.
            session: The session's labels after `before`.

        Returns:
            The labels. An update that depends on the result is in doubt: it only adds tags and
            producers, and only removes consumers.
        """
        return self.after(call, Argument(MISSING, call.labels), session)[1]

    def steps(
        self, phase: nodes.Phase, tool: str, context: EvaluationContext
    ) -> Iterator[tuple[CompiledStep, Truth]]:
        """The steps for a tool, each with whether it runs after the changes of earlier steps.

        Args:
            phase: The phase in which they run.
            tool: The tool.
            context: The state that conditions read; each is evaluated when its step is taken.
        """
        if self.parts:
            for part in self.parts:
                yield from part.steps(phase, tool, context)
            return
        for step, applies in self._rules_for(tool).steps[phase]:
            yield step, both(applies, _condition(step, context))

    def field_steps(
        self, tool: str, path: str, context: EvaluationContext
    ) -> Iterator[tuple[CompiledStep, Truth]]:
        """The steps for the field at `path` in results of `tool`, as `steps` gives those of tools.

        Args:
            tool: The tool.
            path: The path of the field.
            context: The state that conditions read.
        """
        if self.parts:
            for part in self.parts:
                yield from part.field_steps(tool, path, context)
            return
        for step, applies in self._field_steps(tool, path):
            yield step, both(applies, _condition(step, context))

    # Facts about the rules

    @property
    def declarations(self) -> tuple[nodes.Declaration, ...]:
        """The declarations as their authors wrote them, also those of combined policies."""
        if not self.parts:
            return self.policy.declarations
        return tuple(node for part in self.parts for node in part.declarations)

    def depends_on_session(self, tool: str) -> bool:
        """Whether calls of a tool may change the session's labels, or get labels from them.

        The session has labels only if some rule gives it any.
        """
        steps = self._rules_for(tool).steps
        if steps["before"] or steps["after"]:
            return True
        changes = any(step.phase != "result" for entry in self.tools for step in entry.steps)
        return changes and bool(steps["result"])

    def ends_in_session(self, tool: str) -> bool:
        """Whether a call of a tool may change the session's labels when it has ended."""
        steps = self._rules_for(tool).steps
        return bool(steps["after"]) or any(_writes_session(step) for step, _ in steps["result"])

    @property
    def changes_session(self) -> bool:
        """Whether any call may change the session's labels."""
        return any(
            step.phase != "result" or _writes_session(step)
            for entry in self.tools
            for step in entry.steps
        )

    @cached_property
    def uses_session(self) -> bool:
        """Whether any rule reads or changes the session's labels.

        What the short form `@tags` of a rule means is not known, so it counts.
        """
        if self.changes_session:
            return True
        checks = (check.node for entry in self.tools for check in entry.checks)
        short = any(_is_of(node, "short") for node in nodes.walk(tuple(checks)))
        return short or any(_is_of(node, "session") for node in nodes.walk(self.declarations))

    @cached_property
    def tests_argument_labels(self) -> bool:
        """Whether any rule reads or changes labels of arguments."""
        parts = nodes.walk(self.declarations)
        return any(isinstance(node, nodes.Meta) and node.scope in ("arg", "args") for node in parts)

    def may_read(self, names: Collection[str]) -> bool:
        """Whether any rule may read an argument with one of these names, or a similar one."""
        read = self._read_arguments
        return bool(names) and (read is None or not read.isdisjoint(map(folded, names)))

    @cached_property
    def _read_arguments(self) -> frozenset[str] | None:
        """The names of the arguments that rules read, in their folded form; `None` for all."""
        parts = [*nodes.walk(self.declarations)]
        if any(_is_of(node, "args") for node in parts):
            return None
        return frozenset(
            folded(node.argument)
            for node in parts
            if isinstance(node, nodes.Meta | nodes.ValueRef) and node.scope == "arg"
        )

    def copies_result_labels(self, tool: str) -> bool:
        """Whether labels of a result of a tool may become labels of the session."""
        if self.parts:
            return any(part.copies_result_labels(tool) for part in self.parts)
        steps = self._rules_for(tool).steps
        bindings = nodes.bindings_of(self.policy)
        scopes: dict[nodes.Phase, set[str]] = {"result": {"result", "short"}, "after": {"result"}}
        return any(
            isinstance(element, nodes.Meta) and element.scope in scopes[phase]
            for phase in scopes
            for step, _ in steps[phase]
            if phase == "after" or _writes_session(step)
            for update in step.updates
            for element in nodes.elements_of(update.node.set, bindings, removed=True)
        )

    @cached_property
    def tests_labels(self) -> bool:
        """Whether any rule reads labels of values: to decide, or to write others."""
        steps = [step.node for entry in self.tools for step in entry.steps]
        tested = (
            [check.node for entry in self.tools for check in entry.checks],
            [step.condition for step in steps],
            [update.set for step in steps for update in step.updates],
            [node for node in self.declarations if isinstance(node, nodes.Binding)],
        )
        return any(
            isinstance(node, nodes.Meta) and node.scope != "session"
            for part in tested
            for root in part
            for node in nodes.walk(root)
        )

    def looks_at_results(self, tool: str) -> bool:
        """Whether any label may change when a call of a tool has ended."""
        steps = self._rules_for(tool).steps
        return bool(self.presets.non_executable_memory or steps["result"] or steps["after"])

    def concerns(self, tool: str) -> bool:
        """Whether any rule is, or may be, for a tool."""
        rules = self._rules_for(tool)
        return bool(rules.checks or any(rules.steps.values()))

    def needs_result(self, tool: str) -> bool:
        """Whether the rules for `tool` need a call's result, or its labels, right after the call.

        Rules that only add named tags and producers, or only remove consumers, whatever the result
        is, have the same effect before the result is known.
        """
        rules = self._rules_for(tool)
        if rules.argument_updates or rules.steps["after"]:
            return True
        return not all(_only_adds(step.node) for step, _ in rules.steps["result"])

    # Internals

    def _context(
        self, call: Call, session: Labels, result: Argument | None = None
    ) -> EvaluationContext:
        """A context in which arguments have the labels that a `session before` block may add.

        Whether the service lets such a block change arguments is unknown, and its condition may
        have changed since. So added labels count, and removed labels stay.
        """
        context = EvaluationContext(call, session, result)
        if updates := self._rules_for(call.tool).argument_updates:
            context.set_short_scope("session")
            for update in updates:
                apply_update(update, context, certain=False)
            context.set_short_scope("")
        return context

    def _with_added_labels(self, call: Call, session: Labels) -> Call:
        """A call whose arguments have the labels that any part's `session before` may add."""
        if not self._rules_for(call.tool).argument_updates:
            return call
        labels = self._context(call, session).argument_labels()
        pairs = zip(call.arguments.items(), labels, strict=True)
        arguments = {name: replace(argument, labels=added) for (name, argument), added in pairs}
        return replace(call, arguments=arguments)

    def _run(
        self,
        phase: nodes.Phase,
        tool: str,
        context: EvaluationContext,
        *,
        is_error: bool = False,
    ) -> None:
        for step, truth in self.steps(phase, tool, context):
            if truth is not False:
                is_sure = truth is True and not is_error
                for update in step.updates:
                    apply_update(update, context, certain=is_sure and update.honoured)

    def _field_steps(self, tool: str, path: str) -> tuple[tuple[CompiledStep, Truth], ...]:
        name = f"{tool}/{path}"
        steps = self._fields.get(name)
        if steps is None:
            entries, budget = (entry for entry in self.tools if entry.may_be_field), MatchBudget()
            steps = tuple(
                (step, applies)
                for entry in entries
                if (applies := entry.matches(name, budget)) is not False
                for step in entry.steps
                if step.phase == "result"
            )
            if len(self._fields) < _CACHED_TOOLS:
                self._fields[name] = steps
        return steps

    def _rules_for(self, tool: str) -> _ToolRules:
        rules = self._rules.get(tool)
        if rules is None:
            rules = self._matching(tool)
            if len(self._rules) < _CACHED_TOOLS:
                self._rules[tool] = rules
        return rules

    def _matching(self, tool: str) -> _ToolRules:
        budget = MatchBudget()
        entries = [(entry, entry.matches(tool, budget)) for entry in self.tools]
        entries = [(entry, applies) for entry, applies in entries if applies is not False]
        checks = ((check, applies) for entry, applies in entries for check in entry.checks)
        steps = {
            phase: tuple(
                (step, applies)
                for entry, applies in entries
                for step in entry.steps
                if step.phase == phase
            )
            for phase in nodes.PHASES
        }
        argument_updates = (
            update
            for step, _ in steps["before"]
            for update in step.updates
            if update.node.target.scope == "arg"
        )
        return _ToolRules(tuple(checks), steps, tuple(argument_updates))

    def _with_causes_of_doubt(self, verdict: Verdict, call: Call, session: Labels) -> Verdict:
        """The verdict with the cause of doubt added to each reason in doubt.

        If all reasons are certain but the verdict is not, another rule would change the verdict if
        it applied. The first reason then names that rule.
        """
        context = self._context(call, session)
        context.budget = MatchBudget(SECONDS_PER_MATCH)
        checks = self._rules_for(call.tool).checks
        rules = {check.reason.at: (check, applies) for check, applies in checks}
        first, *others = verdict.reasons
        if all(reason.certain for reason in verdict.reasons):
            for check, applies in checks:
                if applies is None or (check.test is not None and check.test(context) is None):
                    rule = plain(" ".join(check.reason.rule.split()), limit=200)
                    doubt = f"`{rule}` may apply, as {_cause(check, applies, context)}"
                    return replace(verdict, reasons=(replace(first, doubt=doubt), *others))
            return verdict
        explained: list[Reason] = []
        for reason in verdict.reasons:
            if reason.certain or len(explained) >= REASONS_SHOWN or reason.at not in rules:
                explained.append(reason)
            else:
                explained.append(replace(reason, doubt=_cause(*rules[reason.at], context)))
        return replace(verdict, reasons=tuple(explained))


def _is_of(node: object, scope: nodes.LabelOwner) -> bool:
    return isinstance(node, nodes.Meta | nodes.ValueRef) and node.scope == scope


def _writes_session(step: CompiledStep) -> bool:
    return any(update.node.target.scope == "session" for update in step.updates)


def _only_adds(step: nodes.UpdateStep) -> bool:
    return step.condition is None and all(
        isinstance(update.set, nodes.SetLiteral)
        and update.target.scope in ("short", "result")
        and update.assignment == ("&=" if update.target.field == "consumers" else "|=")
        for update in step.updates
    )


def _missing_arguments(check: CompiledCheck, arguments: Collection[str]) -> tuple[str, ...]:
    """The arguments in a rule that the call does not have."""
    return tuple(name for name in check.arguments if name not in arguments)


def _condition(step: CompiledStep, context: EvaluationContext) -> Truth:
    if step.test is None:
        return True
    if not step.is_one_liner:
        return step.test(context)
    short = context.short
    context.set_short_scope("")  # unknown in the condition of a one-liner
    truth = step.test(context)
    context.set_short_scope(short)
    return truth


def apply_update(update: CompiledUpdate, context: EvaluationContext, *, certain: bool) -> None:
    """Run an update; in doubt it only adds tags and producers, and only removes consumers."""
    target = update.node.target
    old = context.current_names(target)
    if old is None:  # labels of a missing argument
        return
    operand = update.set.names(context)
    if operand is None:
        operand, certain = context.as_if_arguments_given(update.set.names), False
    if operand is not None:
        new = assignment_result(update.node, old, operand)
        context.write(target, new if certain else _uncertain_update(target.field, old, new))


def assignment_result(node: nodes.Update, old: LabelSet, operand: LabelSet) -> LabelSet:
    """The labels after an update."""
    if node.assignment == "=":
        return operand
    return OPERATIONS[cast("nodes.Operator", node.assignment[0])](old, operand)


def _uncertain_update(field: nodes.Field, old: LabelSet, new: LabelSet) -> LabelSet:
    return intersection(old, new) if field == "consumers" else widest(old, new)


def compile_policy(policy: Policy | str, presets: Presets = _DEFAULTS) -> Engine:
    """Resolve names and compile patterns, once.

    Args:
        policy: A parsed policy, or its text.
        presets: The built-in policies.

    Returns:
        An engine.

    Raises:
        PolicySyntaxError: If the text is not a policy, or has no meaning: a name that is undefined,
            used before its definition or defined twice, a predicate instead of a set, a regex that
            does not compile, an invalid time, or `@result` before the call.
    """
    if not isinstance(policy, Policy):
        policy = parse(policy)
    return Engine(policy, tuple(compiled_tools(policy, error_raiser(policy.text))), presets)


def _unpickled(
    policy: Policy, presets: Presets, name: str | None, parts: tuple[Engine, ...]
) -> Engine:
    if parts:
        tools = [tool for part in parts for tool in part.tools]
    else:
        tools = [*compiled_tools(policy, error_raiser(policy.text))]
    return Engine(policy, tuple(tools), presets, name, parts)


def error_raiser(text: str, *, skip_regexes: bool = False) -> Reporter:
    """Make a reporter that raises the first error in a policy and ignores warnings.

    Args:
        text: The policy.
        skip_regexes: Whether to ignore errors in regexes, which the service may be able to read.
    """
    lines = text.split("\n")

    def report(severity: Severity, message: str, at: Position, hint: str = "", **_: object) -> None:
        if severity != "error":
            return
        if not (skip_regexes and lines[at.line - 1].startswith('r"', at.column - 1)):
            raise syntax_error(text, at, f"{message}. {hint}" if hint else message)

    return report


# Causes of doubt

_MOST_TESTS = 1_000
_MOST_NAMES = 5
_MOST_CAUSES = 2
_TYPES = {
    bool: "true or false",
    int: "a whole number",
    float: "a float",
    str: "a text",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def _cause(check: CompiledCheck, applies: Truth, context: EvaluationContext) -> str:
    """Say why a rule is in doubt.

    Args:
        check: The rule.
        applies: Whether it is for this tool; `None` if that is unknown.
        context: The call.

    Returns:
        A clause that can follow `because`.
    """
    causes = []
    if applies is None:
        causes.append("its regex matches only a part of the tool's name")
    if absent := _missing_arguments(check, context.arguments):
        causes.append(f"the call has no argument {_quoted(absent)}")
    elif similar := [name for name in check.arguments if name in context.similar]:
        causes.append(f"the call has several arguments that may be read as {_quoted(similar)}")
    else:
        doubtful: dict[str, None] = {}
        tests = nodes.tests_of(check.node.condition, check.parts.bindings, passes=True)
        for node, _ in islice(tests, _MOST_TESTS):
            if len(doubtful) < _MOST_CAUSES and check.parts.tests[node.at](context) is None:
                doubtful.setdefault(_cause_of_test(node, check.parts, context))
        causes += doubtful
    return ", and ".join(causes) or "readings of the rule differ"


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"`{plain(name, limit=80)}`" for name in names[:_MOST_NAMES])


def _cause_of_test(  # noqa: PLR0911 - one per cause
    node: nodes.Tests, parts: ConditionParts, context: EvaluationContext
) -> str:
    if isinstance(node, nodes.LabelTest):
        return _cause_of_labels(node.left)
    sides = (node.value,) if isinstance(node, nodes.Membership) else (node.left, node.right)
    values = [side for side in sides if isinstance(side, nodes.ValueRef)]
    if not values:
        return _cause_of_labels(node.set if isinstance(node, nodes.Membership) else None)
    compared = [_value(value, context) for value in values]
    name = _name(values[0])
    if MISSING in compared:
        return f"the value of {name} is not known"
    value = compared[0]
    if len(values) > 1:
        return f"{name} is {_type_of(value)}, and {_name(values[1])} is {_type_of(compared[1])}"
    if not isinstance(value, SCALARS):
        return f"{name} is {_type_of(value)}, which no rule can search"
    elements = (
        nodes.elements_of(node.set, parts.bindings) if isinstance(node, nodes.Membership) else sides
    )
    for element in elements:
        matches = parts.matchers.get(element.at)
        if matches is not None and matches(value, context.budget) is None:
            return _cause_of_element(name, value, element)
    return f"whether {name} is in that set can be read in several ways"


def _value(node: nodes.ValueRef, context: EvaluationContext) -> Any:
    if node.scope == "arg":
        return context.arguments[node.argument].value
    return MISSING if node.scope == "session" or context.result is None else context.result.value


def _name(node: nodes.ValueRef) -> str:
    return f"`{plain(node.argument or f'@{node.scope}.value', limit=80)}`"


def _type_of(value: Any) -> str:
    return _TYPES.get(type(value), "a value")


def _cause_of_element(name: str, value: Any, element: object) -> str:
    match element:
        case nodes.NumberDomain(kind=kind):
            meant = f"`{kind}`"
        case nodes.NumberLiteral(value=number):
            meant = _type_of(number)
        case nodes.BoolDomain() | nodes.BooleanLiteral():
            meant = "true or false"
        case nodes.TimeLiteral() | nodes.TimeDomain():
            if not isinstance(value, str):
                return f"{name} is {_type_of(value)}, which may count seconds or milliseconds"
            return f"{name} is written in another form than `2027-01-31T10:00:00Z`"
        case nodes.TextLiteral() | nodes.TextDomain() if isinstance(value, str):
            return _cause_of_text(name, value, element)
        case _:
            meant = "a text"
    return f"{name} is {_type_of(value)}, and the rule means {meant}"


def _cause_of_text(name: str, value: str, element: nodes.TextLiteral | nodes.TextDomain) -> str:
    text = element.text if isinstance(element, nodes.TextDomain) else element
    if text.kind == "plain" or "\\\\" in text.raw or (text.kind == "like" and "\\" in text.raw):
        return "how a backslash in the rule is read is not known"
    if text.kind == "matching":
        if not patterns.has_engine():
            return f"no regex is evaluated without the package `regex` (`{INSTALL}`)"
        return f"a regex matches only a part of {name}, or took too long"
    if "[" in text.raw:
        return "how `[` in a wildcard is read is not known"
    if LINE_BREAK.search(value):
        return f"{name} has a line break, and a wildcard may stop there"
    return f"{name} is too long for a wildcard, or its length differs in characters and bytes"


def _cause_of_labels(meta: object) -> str:
    if isinstance(meta, nodes.Meta) and meta.scope == "short":
        return f"what `@{meta.field}` means here is not known"
    return "how these labels compare is not known"
