"""What follows a denial: an error, a question to a human, or a state that has it."""

from dataclasses import asdict, replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context

from langchain_sequrity.errors import PolicyDenied, UsageError, ordinary
from langchain_sequrity.graph.denying.approval import Approvals, NotOffered
from langchain_sequrity.graph.denying.failures import in_graph, placed
from langchain_sequrity.graph.keeping.journal import Journal, Offered, Run
from langchain_sequrity.graph.program import Program
from langchain_sequrity.graph.reading.spec import GraphSpec
from langchain_sequrity.on_denied import STATE


class Denials:
    """Decides what follows a denial.

    Args:
        program: The graph as a program.
        approvals: What may be approved.
        on_denied: What the caller wants.

    Attributes:
        asks: Whether a human may be asked.
        field: The field of the state that takes a denial, if the caller wants that.
    """

    def __init__(self, program: Program, approvals: Approvals, on_denied: str) -> None:
        self._program = program
        self._approvals = approvals
        self._raises = on_denied == "raise"
        self.asks = on_denied == "interrupt"
        self.field = on_denied.removeprefix(STATE) if on_denied.startswith(STATE) else ""

    def after(self, error: PolicyDenied, run: Run, journal: Journal) -> dict[str, Any] | Offered:
        """What follows a denial: facts for the state, or an offer to a human.

        Args:
            error: The denial.
            run: The run.
            journal: What has happened before it.

        Raises:
            PolicyDenied: If the caller wants that, or if the denial cannot be approved.
        """
        if self._raises:
            raise error
        if not self.asks:
            return _facts(in_graph(error, self._program))
        try:
            return self._approvals.offer(error, run, journal)
        except NotOffered as reason:
            error.add_note(f"It is not offered for approval: {reason}.")
            raise error from None

    def objection(self, offered: Offered, config: RunnableConfig, *, is_late: bool) -> str | None:
        """Ask a human.

        Args:
            offered: The call.
            config: That of the task that asks.
            is_late: Whether the thread has gone on since it asked.

        Returns:
            What the human has against the call; `None` if it is approved.
        """
        with set_config_context(config) as context:  # `interrupt` looks for it there
            return context.run(self._approvals.ask, offered, is_late=is_late)

    def rejected(self, offered: Offered, objection: str) -> PolicyDenied:
        """The error of a call that a human rejected."""
        denial = replace(offered.denial, kind="rejected", objection=objection)
        placed_denial = placed(denial, self._program)
        return ordinary(PolicyDenied(denial=placed_denial, program=self._program.text))


def check_field(on_denied: str, spec: GraphSpec) -> None:
    """Check that a denial shows in the field of the state that is to take it.

    Raises:
        UsageError: If the graph does not return that field.
    """
    returned = spec.schemas[spec.output_schema]
    fields = [field for field in spec.channels if field in returned]
    if on_denied.startswith(STATE) and on_denied.removeprefix(STATE) not in fields:
        msg = (
            f"`on_denied={on_denied!r}` names no field that the graph returns, so a denial would "
            f"not show. Its fields are {', '.join(f'`{field}`' for field in fields)}."
        )
        raise UsageError(msg)


def _facts(error: PolicyDenied) -> dict[str, Any]:
    """What the state takes: all fields of the denial, its sentence, and the service's code."""
    code = error.result.error_code if error.result is not None else None
    return {**asdict(error.denial), "text": error.denial.text, "code": code}
