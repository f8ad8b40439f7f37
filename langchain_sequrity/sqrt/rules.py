"""Tool blocks and one-liners, compiled: the rules that vote and the steps that change labels."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from langchain_sequrity.sqrt.compiler import Compiler, Report, Uses
from langchain_sequrity.sqrt.doubts import Leaves
from langchain_sequrity.sqrt.nodes import (
    Binding,
    CheckRule,
    OneLiner,
    Phase,
    Policy,
    Position,
    Predicate,
    Step,
    ToolBlock,
    ToolId,
    Update,
)
from langchain_sequrity.sqrt.predicates import Test
from langchain_sequrity.sqrt.sets import CompiledSet
from langchain_sequrity.sqrt.values import Matcher
from langchain_sequrity.sqrt.verdict import Reason


class CompiledCheck(NamedTuple):
    """A check rule, ready to vote.

    Attributes:
        reason: The rule.
        rank: What orders soft rules.
        test: Its condition, or `None` for `always`.
        required: Whether it denies where its condition fails and nothing else allows.
        arguments: The arguments that its condition looks at.
        leaves: The single tests in its condition.
    """

    reason: Reason
    rank: tuple[int | float, bool]
    test: Test | None
    required: bool
    arguments: tuple[str, ...]
    leaves: Leaves


class CompiledUpdate(NamedTuple):
    """An update, ready to run.

    Attributes:
        node: The update.
        set: Its right side.
        honoured: Whether the service is known to change these labels at this place.
    """

    node: Update
    set: CompiledSet
    honoured: bool


class CompiledStep(NamedTuple):
    """Updates under a condition."""

    node: Step
    phase: Phase
    test: Test | None
    updates: tuple[CompiledUpdate, ...]
    is_one_liner: bool


class CompiledTool(NamedTuple):
    """One block or one-liner."""

    matches: Matcher
    checks: tuple[CompiledCheck, ...]
    steps: tuple[CompiledStep, ...]


Visit = Callable[[ToolId, Matcher, Uses], None]


def compiled_tools(
    policy: Policy, report: Report, visit: Visit = lambda *_: None
) -> Iterator[CompiledTool]:
    """Compile the tools of a policy in source order.

    Args:
        policy: The policy.
        report: Takes what is wrong; it may raise.
        visit: Is told what each rule and step of a tool looks at.

    Yields:
        Blocks and one-liners.
    """
    names: dict[str, Position] = {}
    for node in policy.declarations:
        if isinstance(node, Binding):
            names.setdefault(node.name, node.at)
    compiler = Compiler(report, later=names)
    for node in policy.declarations:
        if isinstance(node, Binding):
            compiler.bind(node)
        else:
            yield _Tool(node, compiler, report, visit).compiled()


class _Tool:
    """Compiles one block or one-liner."""

    def __init__(
        self, node: ToolBlock | OneLiner, compiler: Compiler, report: Report, visit: Visit
    ) -> None:
        self._node = node
        self._compiler = compiler
        self._report = report
        self._visit = visit
        self._matches = compiler.tool_id(node.tool.text)

    def compiled(self) -> CompiledTool:
        node = self._node
        self._visit(node.tool, self._matches, Uses())  # a block may have no rules
        if isinstance(node, OneLiner):
            if node.priority is not None and node.priority.value:
                self._report(
                    "warning", "Whether a priority changes the order of updates is unknown",
                    node.priority.at, "Updates run in the order of the text here",
                )  # fmt: skip
            return CompiledTool(self._matches, (), (self._step(node.step, node.phase),))
        for extra in node.priorities[1:]:
            self._report("warning", "Which of several priorities counts is unknown", extra.at)
        priority = node.priorities[-1].value if node.priorities else 0
        checks = tuple(self._check(check, priority) for check in node.checks)
        steps = tuple(
            self._step(step, block.phase) for block in node.blocks for step in block.steps
        )
        return CompiledTool(self._matches, checks, steps)

    def _check(self, node: CheckRule, priority: float) -> CompiledCheck:
        reason = Reason(node.text, node.at, node.doc, node.strength, node.decision)
        test = self._condition(node.condition, None)
        required = node.decision == "allow" and node.strength == "hard"
        uses = self._compiler.uses
        return CompiledCheck(
            reason, (priority, test is not None), test, required, tuple(uses.arguments), uses.leaves
        )

    def _step(self, node: Step, phase: Phase) -> CompiledStep:
        is_one_liner = isinstance(self._node, OneLiner)
        test = self._condition(node.condition, phase, short_is_known=not is_one_liner)
        updates = tuple(self._update(update, phase) for update in node.updates)
        return CompiledStep(node, phase, test, updates, is_one_liner)

    def _condition(
        self, node: Predicate | None, phase: Phase | None, *, short_is_known: bool = False
    ) -> Test | None:
        uses = self._compiler.fresh()
        test = None if node is None else self._compiler.test(node)
        if uses.short and not short_is_known:
            self._report(
                "warning", "What `@tags` and the like mean here is unknown", uses.short,
                "Write `@session.tags` or `@result.tags`",
            )  # fmt: skip
        self._looked_at(uses, phase)
        return test

    def _update(self, node: Update, phase: Phase) -> CompiledUpdate:
        uses = self._compiler.fresh()
        self._compiler.target(node.target)
        members = self._compiler.set(node.set)
        self._looked_at(uses, phase)
        if members.patterned:
            self._report(
                "error", "Labels are plain texts; here stand patterns, numbers or domains",
                node.set.at, 'Name each label, as `{"raw"}`',
            )  # fmt: skip
        honoured = node.target.scope in {"short", "result" if phase == "result" else "session"}
        if not honoured:
            self._report(
                "warning", "Whether the service changes these labels here is unknown", node.at
            )
        return CompiledUpdate(node, members, honoured)

    def _looked_at(self, uses: Uses, phase: Phase | None) -> None:
        if uses.result and phase in {None, "before"}:
            self._report(
                "error", "There is no `@result` before the call", uses.result,
                "Use a `result` or a `session after` block",
            )  # fmt: skip
        self._visit(self._node.tool, self._matches, uses)
