"""Failed runs in the words of the graph: which node it was."""

from dataclasses import replace
from typing import Any, TypeVar, cast

from langchain_sequrity.denials import NOT_REPORTED, Denial
from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicyDenied, ProgramFailed, TurnFailed, ordinary
from langchain_sequrity.graph.program import Program
from langchain_sequrity.wire.denied import without_values

E = TypeVar("E", bound=TurnFailed)


def in_graph(error: E, program: Program) -> E:
    """A failure of the program's turn, told for the graph that the program stands for.

    Args:
        error: What reading the reply raised.
        program: The graph as a program.

    Returns:
        An error of the same class with the same facts and notes, and with node and program where
        it can have them.
    """
    told = _told(error, program)
    if told is not error:
        for note in getattr(error, "__notes__", ()):
            told.add_note(note)
    return cast("E", ordinary(told))


def _told(error: TurnFailed, program: Program) -> TurnFailed:
    facts: dict[str, Any] = {
        "message": error.message,
        "session_id": error.session_id,
        "result": error.result,
    }
    if isinstance(error, PolicyDenied):
        if error.node is not None:
            return error
        denial = placed(error.denial, program)
        return PolicyDenied(
            denial=denial, program=error.program or program.text, checks=error.checks, **facts
        )
    if isinstance(error, ProgramFailed):
        said = error.result and without_values(error.result.error_message or "")
        text = (
            f"The program of the graph failed: {plain(said or NOT_REPORTED)} (code "
            f"`{plain(error.code or NOT_REPORTED)}`). No state comes of the run."
        )
        return ProgramFailed(text, code=error.code, program=program.text, line=error.line, **facts)
    return error


def placed(denial: Denial, program: Program) -> Denial:
    """A denial that names the node behind its tool."""
    spec = program.tools.get(denial.tool or "")
    if spec is None:
        return denial
    return replace(denial, node=spec.node, is_router=spec.role == "router")
