"""Failed runs in the words of the graph: which node it was."""

from typing import Any, TypeVar, cast

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicyDenied, ProgramFailed, TurnFailed, ordinary
from langchain_sequrity.graph.program import Program, ToolSpec

_UNKNOWN = "not reported"


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
    facts = {"message": error.message, "session_id": error.session_id, "result": error.result}
    if isinstance(error, PolicyDenied):
        if error.node is not None:
            return error
        return denied(
            error.reason,
            program.tools.get(error.tool),
            tool=error.tool,
            arguments=error.arguments,
            rule=error.rule,
            program=error.program or program.text,
            checks=error.checks,
            **facts,
        )
    if isinstance(error, ProgramFailed):
        said = (error.result and error.result.error_message) or _UNKNOWN
        text = (
            f"The program of the graph failed: {plain(said)} (code "
            f"`{plain(error.code or _UNKNOWN)}`). No state comes of the run."
        )
        return ProgramFailed(text, code=error.code, program=program.text, line=error.line, **facts)
    return error


def denied(
    reason: str, spec: ToolSpec | None, *, tool: str, remark: str = "", **facts: Any
) -> PolicyDenied:
    """A denial that names tool and node.

    Args:
        reason: Why, in the service's words.
        spec: The tool, where the program has it.
        tool: Its name, or "not reported".
        remark: What else is to be said.
        facts: Further facts of `PolicyDenied`.
    """
    what = "a step of the graph" if tool == _UNKNOWN else f"the call of tool `{plain(tool)}`"
    if spec is not None:
        after = "the router after " if spec.role == "router" else ""
        what = f"{what} ({after}node `{plain(spec.node)}`)"
    said = sentence(plain(reason)) if remark else plain(reason)
    text = f"A policy denied {what}, so it did not run: {said}"
    node = None if spec is None else spec.node
    told = PolicyDenied(f"{text} {remark}".rstrip(), tool=tool, node=node, reason=reason, **facts)
    return ordinary(told)


def sentence(text: str) -> str:
    """A text with its full stop, so that another sentence can follow."""
    return text if text.endswith((".", "!", "?")) else f"{text}."
