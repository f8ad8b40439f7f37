"""What follows a denial: an error, a question to a human, or a state that has it."""

from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context
from langgraph.types import Command, Overwrite

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.graph.denying.approval import Approvals, NotOffered
from langchain_sequrity.graph.denying.failures import denied, in_graph
from langchain_sequrity.graph.keeping.journal import Denial, Journal, Run
from langchain_sequrity.graph.on_denied import OnDenied
from langchain_sequrity.graph.own import APPROVE, DENY, JOURNAL, RUN
from langchain_sequrity.graph.program import Program


class Denials:
    """Decides what follows a denial.

    Args:
        program: The graph as a program.
        approvals: What may be approved.
        on_denied: What the caller wants.
    """

    def __init__(self, program: Program, approvals: Approvals, on_denied: OnDenied) -> None:
        self._program = program
        self._approvals = approvals
        self._on_denied = on_denied

    def after(self, error: PolicyDenied, run: Run, journal: Journal) -> Command[Any]:
        """What `drive` does after a denial.

        Args:
            error: The denial.
            run: The run.
            journal: What has happened before it.

        Raises:
            PolicyDenied: If the caller wants that, or if the denial cannot be approved.
        """
        if self._on_denied.kind == "raise":
            raise error
        update = {RUN: run.to_json()}
        if self._on_denied.kind == "state":
            refused = _facts(in_graph(error, self._program))
            entries = [*journal.entries(), {"refused": refused}]
            return Command(update={**update, JOURNAL: Overwrite(entries)}, goto=DENY)
        try:
            denial = self._approvals.offer(error, journal)
        except NotOffered as reason:
            error.add_note(f"It is not offered for approval: {reason}.")
            raise error from None
        entries = [*journal.entries(), *denial.entries()]
        return Command(update={**update, JOURNAL: Overwrite(entries)}, goto=APPROVE)

    def objection(self, denial: Denial, config: RunnableConfig, *, is_late: bool) -> str | None:
        """Ask a human.

        Args:
            denial: The denial.
            config: That of the node that asks.
            is_late: Whether the thread has gone on since it asked.

        Returns:
            What the human has against the call; `None` if it is approved.
        """
        with set_config_context(config) as context:  # `interrupt` looks for it there
            return context.run(self._approvals.ask, denial, is_late=is_late)

    def rejected(self, denial: Denial, objection: str) -> PolicyDenied:
        """The error of a call that a human rejected."""
        arguments = {
            name: {"value": value, "meta": denial.labels[name]}
            for name, value in denial.arguments.items()
        }
        return denied(
            denial.facts["reason"],
            self._program.tools[denial.tool],
            tool=denial.tool,
            remark=f"A human was asked and rejected it. {plain(objection)}",
            arguments=arguments,
            rule=denial.facts["rule"],
            program=self._program.text,
        )


def _facts(error: PolicyDenied) -> dict[str, Any]:
    code = error.result.error_code if error.result is not None else None
    names = ("tool", "node", "reason", "rule")
    return {**{name: getattr(error, name) for name in names}, "code": code}
