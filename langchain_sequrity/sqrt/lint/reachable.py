"""What a condition can be with the labels that calls can bring about.

The search makes the calls of a policy on labels alone, in the order of an engine, from a session
without labels. No tool fails: an error keeps labels that rules remove from results, and a rule that
acts only after an error is worth a warning. Tests of values may hold or not, each the same
throughout a call. A search that becomes long is given up, and nothing is said of the condition.
"""

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from functools import cache, reduce
from itertools import count, product
from typing import Any, NamedTuple

from langchain_sequrity.labels import NO_LABELS, Labels
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.context import MISSING, Argument, Call, EvaluationContext
from langchain_sequrity.sqrt.engine import NON_EXECUTABLE, apply_update
from langchain_sequrity.sqrt.lint.checked_policy import (
    Clause,
    is_decided,
    metas_in,
    short_scope,
)
from langchain_sequrity.sqrt.lint.label_scope import (
    OTHER,
    CalledTool,
    RulesOfWay,
    Scope,
    TooMuch,
    subsets,
)
from langchain_sequrity.sqrt.lint.ways import NonExecutable
from langchain_sequrity.sqrt.matchers import Truth, both, either, negated

Truths = frozenset[Truth]
ANY_TRUTH: Truths = frozenset({True, False, None})
BOTH: Truths = frozenset({True, False})
_UNNAMED = "\ue001"  # a value that is no label
_MOST_CALLS = 10_000  # of one search
_JOINS_PER_CALL = 16  # take as long
_MOST_TESTS = 6  # of values, for one tool
_TAGGED: Mapping[NonExecutable, tuple[bool, ...]] = {
    "always": (True,), "never": (False,), "perhaps": (False, True),
}  # fmt: skip

_Choice = Mapping[Hashable, Truth]  # the tests that labels do not decide, by shape
_Pool = frozenset[Labels]  # the labels that an argument may have


class _Outcome(NamedTuple):
    """The labels after a call, of which those of the result may matter."""

    session: Labels
    result: Labels | None = None


class _Calls:
    """Calls on labels, and the truths of one condition in them.

    Args:
        rules: The rules of the policy.
        scope: The labels that matter.
        target: The rule or step with the condition, if any.
        is_anywhere: Whether the labels are those when the condition is tested, not before the call.
    """

    def __init__(
        self,
        rules: RulesOfWay,
        scope: Scope,
        target: Clause | None = None,
        *,
        is_anywhere: bool = False,
    ) -> None:
        self._skips_before = is_anywhere and target is not None and target.phase != "before"
        self._rules = rules
        self._scope = scope
        self._target = target
        self._work_left = _MOST_CALLS
        self._tagged = _TAGGED[rules.capabilities.non_executable]
        self._tool_labels = cache(lambda may_label: [*rules.choices(scope, may_label=may_label)])
        self._sought: set[str] = set()
        self._decided: set[nodes.Position] = set()  # tests of these values
        if target and target.rule:
            tests = rules.policy.label_reads(target).tests
            for _, elements in tests:
                if metas_in(elements):
                    self._sought |= {e.argument for e in elements if isinstance(e, nodes.ValueRef)}
            if self._sought:
                self._decided = {t.at for t, parts in tests if is_decided(parts, self._sought)}
        self._ends_at_rule = bool(target and target.rule)
        self.truths: set[Truth] = set()

    def inputs(self, tool: CalledTool, pool: _Pool) -> Iterator[tuple[Labels, ...]]:
        """The labels that the arguments of a tool may have."""
        if self._rules.capabilities.argument_labels != "separate":
            for labels, defaults in product(pool, subsets(sorted(tool.defaults))):
                # Of all arguments, but a default has none.
                yield tuple(NO_LABELS if name in defaults else labels for name in tool.arguments)
        elif not self._ends_at_rule:
            yield from product(pool, repeat=len(tool.arguments))
        else:
            fields = [self._fields_read(tool, name) for name in tool.arguments]
            yield from product(*({_only(labels, names) for labels in pool} for names in fields))

    def _fields_read(self, tool: CalledTool, argument: str) -> set[nodes.Field]:
        """The fields of an argument's labels that matter until the call is checked."""
        return {
            meta.field
            for clause in tool.clauses
            if clause.phase in {None, "before"}
            for meta in self._rules.metas_of(clause)
            if meta.scope == "args" or (meta.scope, meta.argument) == ("arg", argument)
        }

    def outcomes(
        self, tool: CalledTool, session: Labels, inputs: Sequence[Labels]
    ) -> Iterator[_Outcome]:
        """The labels after a call of a tool, with all that labels do not decide."""
        labels = dict(zip(tool.arguments, inputs, strict=True))
        for values in self._values(tool.clauses):
            arguments = {
                name: Argument(values.get(name, _UNNAMED), labels[name]) for name in labels
            }
            for choice in self._choices(tool.clauses, returns_objects=tool.returns_objects):
                yield from self._call(tool, Call("", arguments), session, choice)

    def finds(
        self, truths: Truths, tool: CalledTool, session: Labels, inputs: Sequence[Labels]
    ) -> bool:
        """Whether all these truths are known after more calls of a tool."""
        try:
            return any(self.truths >= truths for _ in self.outcomes(tool, session, inputs))
        except TooMuch:
            self.truths |= ANY_TRUTH
            return True

    def spend(self, work: int) -> None:
        """Count some work.

        Raises:
            TooMuch: If it is more than what one search, or all of a policy, may do.
        """
        self._work_left -= work
        self._rules.work_left -= work
        if min(self._work_left, self._rules.work_left) < 0:
            raise TooMuch

    def _call(
        self, tool: CalledTool, call: Call, session: Labels, choice: _Choice
    ) -> Iterator[_Outcome]:
        self.spend(1)
        context = EvaluationContext(call, session, short="session")
        if not self._skips_before:
            self._run("before", tool, context, choice)
        session = self._scope.projected(context.session)
        yield _Outcome(session)
        is_denied = self._is_denied(tool, self._context(tool, call, session), choice)
        if is_denied or self._ends_at_rule:
            return
        follows_values = self._scope.follows_values
        if not (follows_values or any(clause.updates for clause in tool.clauses)):
            return
        initials = self._initial(tool, call.labels)
        for initial, is_tagged, part in product(initials, self._tagged, _parts_of_result(tool)):
            self.spend(1)
            context = self._context(tool, call, session, Argument(MISSING, initial))
            context.set_short_scope("result")
            self._run("result", part, context, choice)
            if is_tagged:
                context.tag_result(NON_EXECUTABLE)
            context.set_short_scope("session")
            self._run("after", tool, context, choice)
            after = self._scope.projected(context.session)
            result = self._scope.projected(context.result_labels) if follows_values else None
            yield _Outcome(after, result)

    def _is_denied(self, tool: CalledTool, context: EvaluationContext, choice: _Choice) -> bool:
        is_denied = False
        for clause in tool.clauses:
            if rule := clause.rule:
                truth = self._truth(clause, context, choice)
                is_hard = (rule.strength, rule.decision) == ("hard", "deny")
                is_denied = is_denied or (is_hard and truth is not False)
        return is_denied

    def _context(
        self, tool: CalledTool, call: Call, session: Labels, result: Argument | None = None
    ) -> EvaluationContext:
        """A context in which arguments have the labels that `session before` blocks may add."""
        context = EvaluationContext(call, session, result, short="session")
        for clause in tool.clauses:
            for change in clause.changes if clause.phase == "before" else ():
                if change.node.target.scope == "arg":
                    apply_update(change, context, certain=False)
        context.set_short_scope("")
        return context

    def _run(
        self, phase: nodes.Phase, tool: CalledTool, context: EvaluationContext, choice: _Choice
    ) -> None:
        """Make the changes of a phase."""
        for clause in tool.clauses:
            if clause.phase == phase:
                short = context.short
                context.set_short_scope(short_scope(clause))
                truth = self._truth(clause, context, choice)
                context.set_short_scope(short)
                for change in clause.changes if truth is not False else ():
                    apply_update(change, context, certain=truth is True and change.honoured)

    def _initial(self, tool: CalledTool, inherited: Labels) -> Iterator[Labels]:
        """The labels that a result may have before the rules."""
        is_shared = self._rules.capabilities.argument_labels == "shared"
        sources = [inherited]
        if is_shared and (tool.may_label or tool.may_have_none) and inherited != NO_LABELS:
            sources.append(NO_LABELS)
        choices = self._tool_labels(tool.may_label)
        if inherited != NO_LABELS:
            # What the model has read, or an argument, may also come from several results. So no
            # result needs several labels at once, or any if it is one of several arguments.
            choices = [labels for labels in choices if is_shared and _size(labels) == 1]
        for source in sources:
            labels = source.join(tool.labels)
            yield labels
            yield from (labels.join(chosen) for chosen in choices)

    # Conditions

    def _values(self, clauses: Sequence[Clause]) -> Iterator[Mapping[str, str]]:
        """The values of arguments that the condition looks for among labels."""
        if not self._sought or all(clause is not self._target for clause in clauses):
            yield {}
            return
        names = sorted({_UNNAMED, OTHER}.union(*self._scope.names.values()))
        for values in product(names, repeat=len(self._sought)):
            yield dict(zip(sorted(self._sought), values, strict=True))

    def _choices(self, clauses: Sequence[Clause], *, returns_objects: bool) -> Iterator[_Choice]:
        """What the tests may be that labels do not decide."""
        tests: dict[Hashable, tuple[Truth, ...]] = {}
        for clause in clauses:
            for shape, reads_result in self._rules.policy.label_reads(clause).open_tests.values():
                tests[shape] = (None,) if reads_result and returns_objects else (True, False)
        if len(tests) > _MOST_TESTS:
            raise TooMuch
        for truths in product(*tests.values()):
            yield dict(zip(tests, truths, strict=True))

    def _truth(self, clause: Clause, context: EvaluationContext, choice: _Choice) -> Truth:
        open_tests = self._rules.policy.label_reads(clause).open_tests

        def truth_of(node: Any) -> Truth:
            match node:
                case None:
                    return True
                case nodes.Name(name=name):
                    return truth_of(self._rules.policy.bindings[name].value)
                case nodes.Not(inner=inner):
                    return negated(truth_of(inner))
                case nodes.And(parts=parts) | nodes.Or(parts=parts):
                    join = both if isinstance(node, nodes.And) else either
                    return reduce(join, map(truth_of, parts))
            test = None if node.at in self._decided else open_tests.get(node.at)
            is_search = isinstance(node, nodes.Membership) and isinstance(node.set, nodes.Meta)
            truth = clause.parts.tests[node.at](context) if is_search or test is None else None
            if test is not None and not (is_search and truth is True):
                truth = choice[test[0]]  # a set that has a value which is no label has every value
            return truth

        truth = truth_of(clause.node.condition)
        if clause is self._target:
            self.truths.add(truth)
        return truth


def _only(labels: Labels, fields: Collection[nodes.Field]) -> Labels:
    """The labels of some fields."""
    return Labels(**{field: getattr(labels, field) for field in fields})


def _size(labels: Labels) -> int:
    """How many labels there are; restricted consumers count as one."""
    is_restricted = labels.consumers != NO_LABELS.consumers
    return len(labels.producers) + len(labels.tags) + is_restricted


class _States:
    """The labels that calls bring about, searched as they are asked for."""

    def __init__(self, rules: RulesOfWay, scope: Scope) -> None:
        self._is_separate = rules.capabilities.argument_labels == "separate"
        self._has_argument_labels = rules.capabilities.argument_labels != "none"
        self._calls = _Calls(rules, scope)
        self._tools = rules.tools_of(scope)
        self._earlier: list[tuple[Labels, _Pool]] = []
        self._rest = self._search()
        self.is_given_up = False

    def __iter__(self) -> Iterator[tuple[Labels, _Pool]]:
        """The labels of the session, each with those that an argument may have."""
        for number in count():
            if number == len(self._earlier):
                try:
                    self._earlier.append(next(self._rest))
                except StopIteration:
                    return
                except TooMuch:
                    self.is_given_up = True
                    return
            yield self._earlier[number]

    def _search(self) -> Iterator[tuple[Labels, _Pool]]:
        start = frozenset({NO_LABELS})
        waiting = [(NO_LABELS, start)]
        pools: dict[Labels, list[_Pool]] = {NO_LABELS: [start]}
        for session, pool in waiting:
            outcomes: dict[_Outcome, None] = {}
            grown = pool
            for grown in self._grow(session, pool, outcomes):
                yield session, grown
            for outcome in outcomes:
                after = self._joined(grown, outcome.result)
                earlier = pools.setdefault(outcome.session, [])
                if not any(after <= other for other in earlier):
                    earlier.append(after)
                    waiting.append((outcome.session, after))

    def _grow(
        self, session: Labels, pool: _Pool, outcomes: dict[_Outcome, None]
    ) -> Iterator[_Pool]:
        """What arguments may have after calls that leave the session unchanged.

        If each argument has its own labels, those of earlier results are always there to choose
        from. So these calls are made first. `outcomes` receives those of all other calls.
        """
        tried: set[Hashable] = set()
        size = 0
        while size != len(pool):
            size = len(pool)
            yield pool
            for number, tool in enumerate(self._tools):
                for inputs in self._calls.inputs(tool, pool):
                    if (number, inputs) not in tried:
                        tried.add((number, inputs))
                        for outcome in self._calls.outcomes(tool, session, inputs):
                            if self._is_separate and outcome.session == session:
                                pool = self._joined(pool, outcome.result)
                            else:
                                outcomes[outcome] = None

    def _joined(self, pool: _Pool, result: Labels | None) -> _Pool:
        """What arguments may have after another result; they may be made of several."""
        if result is None or not self._has_argument_labels:
            return pool
        self._calls.spend(len(pool) // _JOINS_PER_CALL)
        joined = frozenset(labels.join(result) for labels in pool)
        return pool | joined if self._is_separate else joined


class Reachable:
    """What the conditions of a policy can be in a way.

    Args:
        rules: The rules of the policy.
    """

    def __init__(self, rules: RulesOfWay) -> None:
        self._rules = rules
        self._states: dict[int, _States] = {}

    def truths(self, target: Clause, until: Truths = BOTH) -> Truths:
        """What the condition of a rule or step can be; nothing if it is never tested.

        Args:
            target: The rule or step.
            until: The truths of which it is enough to find all.
        """
        scope = self._rules.scope_of(target)
        states = self._states.get(id(scope))
        if states is None:
            states = self._states[id(scope)] = _States(self._rules, scope)
        calls, tried = _Calls(self._rules, scope, target), set[Hashable]()
        tools = self._rules.tools_of(scope, target)
        for session, pool in states:
            for number, tool in enumerate(tools):
                for inputs in calls.inputs(tool, pool):
                    if (session, number, inputs) not in tried:
                        tried.add((session, number, inputs))
                        if calls.finds(until, tool, session, inputs):
                            return frozenset(calls.truths)
        return ANY_TRUTH if states.is_given_up else frozenset(calls.truths)

    def truths_anywhere(self, target: Clause) -> Truths:
        """What the condition of a rule or step can be if everything may have any label."""
        scope = self._rules.scope_of(target)
        calls = _Calls(self._rules, scope, target, is_anywhere=True)
        tool = self._rules.tools_of(scope, target)[0]._replace(returns_objects=False)
        fields = sorted(scope.names)
        try:
            sets = [subsets([*sorted(scope.names[field]), OTHER]) for field in fields]
        except TooMuch:
            return ANY_TRUTH
        if "consumers" in fields:
            sets[fields.index("consumers")].append(NO_LABELS.consumers)
        labels = [Labels(**dict(zip(fields, chosen, strict=True))) for chosen in product(*sets)]
        for session, *inputs in product(labels, repeat=1 + len(tool.arguments)):
            if calls.finds(BOTH, tool, session, inputs):
                break
        return frozenset(calls.truths)


def _parts_of_result(tool: CalledTool) -> list[CalledTool]:
    """The rules for a whole result, for each of the fields that rules name, and for all of them."""
    whole = [clause for clause in tool.clauses if not clause.tool.compiled.may_be_field]
    if len(whole) == len(tool.clauses):
        return [tool]
    fields = {id(clause.tool) for clause in tool.clauses} - {id(clause.tool) for clause in whole}
    parts = [set[int](), *({block} for block in fields), fields]
    return [
        tool._replace(
            clauses=tuple(
                clause for clause in tool.clauses
                if id(clause.tool) in part or not clause.tool.compiled.may_be_field
            )
        )
        for part in parts
    ]  # fmt: skip
