"""What is said of a turn: each check, and the JSON object at its end.

Codes and the shape of checks are not published by the service; these are this server's own
(`docs/local-server.md`). Messages of denials begin as the recorded ones do.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from langchain_sequrity.denials import Denial
from langchain_sequrity.display import plain
from langchain_sequrity.local.configuration import Configuration
from langchain_sequrity.local.dual_llm.state import DualState, OpenTurn
from langchain_sequrity.local.interpreter import Failed, Labeled
from langchain_sequrity.local.policy_gate import Checked
from langchain_sequrity.local.screening import Finding
from langchain_sequrity.sqrt import Reason
from langchain_sequrity.sqrt.verdict import denial_of, of_call

Json = dict[str, Any]
POLICY_VIOLATION = "policy_violation"
PLANNER_FAILED = "planner_failed"
PROGRAM_REFUSED = "program_refused"
RESULT_REFUSED = "tool_result_refused"
LIMIT_REACHED = "limit_reached"
CONTROL_FLOW = "control_flow_violation"
VIOLATIONS = frozenset({POLICY_VIOLATION, CONTROL_FLOW})
_CODES = {
    "exception": "program_error",
    "budget": LIMIT_REACHED,
    "branch": CONTROL_FLOW,
    "exit": "program_exit",
    "value": "value_not_json",
}


def check_entry(checked: Checked, line: int | None = None) -> Json:
    """One entry of `policy_check_history`.

    Args:
        checked: What came of the check.
        line: Line of the call in the program, if there is one.

    Returns:
        `{tool, line, verdict, certain, n_allowed, n_denied, arguments: {name: meta}, allowed: […],
        denied: […], findings: […]}`; each of `denied` also has the arguments with their values.
    """
    call, verdict = checked.call, checked.verdict
    entry: Json = {
        "tool": call.tool,
        **({} if line is None else {"line": line}),
        "verdict": verdict.final_verdict if verdict else "content_denied",
        "certain": verdict.certain if verdict else True,
        "n_allowed": verdict.n_allowed if verdict else 0,
        "n_denied": verdict.n_denied if verdict else 1,
        "arguments": {name: one.labels.to_wire() for name, one in call.arguments.items()},
        "allowed": [],
        "denied": [],
    }
    reasons = [_reason(one) for one in verdict.reasons] if verdict else []
    if checked.denied is not None:
        reasons = [_content_reason(checked.denied)]
    if checked.allowed:
        entry["allowed"] = reasons
    else:
        values = {
            name: {"value": one.value, "meta": one.labels.to_wire()}
            for name, one in call.arguments.items()
        }
        entry["denied"] = [{"tool": call.tool, "arguments": values, **one} for one in reasons]
    if checked.findings:
        entry["findings"] = [str(one) for one in checked.findings]
    return entry


def _reason(reason: Reason) -> Json:
    found: Json = {
        "rule": " ".join(reason.rule.split()),
        "enforcement_level": reason.strength,
        "certain": reason.certain,
    }
    if reason.at is not None:
        found["policy_line"], found["policy_column"] = reason.at
    if reason.doubt:
        found["in_doubt_because"] = reason.doubt
    if reason.description:
        found["checker_description"] = found["reason"] = reason.description
    return found


def _content_reason(finding: Finding) -> Json:
    return {"rule": finding.name, "reason": str(finding), "enforcement_level": "hard"}


def denial(checked: Checked) -> Denial:
    """The denial that a check stands for."""
    if checked.denied is not None or checked.verdict is None:
        found = checked.denied
        rule, reason = (None, None) if found is None else (found.name, str(found))
        told = Denial(checked.call.tool, "content", "hard", certain=True, rule=rule, reason=reason)
        return replace(told, **of_call(checked.call))
    return denial_of(checked.verdict, checked.call)


def denial_message(checked: Checked) -> str:
    """The message of a denied call, which begins like those that were recorded."""
    told = denial(checked)
    doubt = "" if told.certain else f", in doubt{f' because {told.doubt}' if told.doubt else ''}"
    reason = told.reason or f"Its rule is `{plain(told.rule or '', limit=200)}`"
    said = f"Tool call to '{told.tool}' is denied by argument checking policies{doubt}."
    return f"{said} {plain(reason).removesuffix('.')}."


def failure(failed: Failed) -> tuple[str, str]:
    """Code and message of a program that failed."""
    code = _CODES[failed.kind]
    if failed.kind == "branch":
        # Both texts by which clients of the service find this verdict in an envelope.
        said = "Control flow violation: the program violated control flow policies"
        return code, f"{said} at line {failed.line}. {failed.message}"
    return code, f"The program failed at line {failed.line} with `{failed.type}`: {failed.message}"


def reported(
    turn: OpenTurn,
    state: DualState,
    configuration: Configuration,
    names: Mapping[str, Labeled] | None,
    *,
    violated: bool = False,
) -> dict[str, Any]:
    """What `X-Config` asks to have reported beside the value.

    Args:
        turn: The turn.
        state: The session's state.
        configuration: What the session's headers decide.
        names: The program's variables, if it ran.
        violated: Whether a policy ended the turn: checks are then always reported.

    Returns:
        Fields of `Envelope`.
    """
    response = configuration.response
    found: dict[str, Any] = {}
    if response.include_program and turn.text:
        found["program"] = turn.text
    if response.include_policy_check_history or violated:
        found["policy_check_history"] = turn.checks
    if response.include_namespace_snapshot and names is not None:
        found["namespace_snapshot"] = {
            name: {"value": one.value, "meta": one.labels.to_wire()} for name, one in names.items()
        }
    if response.include_policy_check_history or response.include_namespace_snapshot:
        found["session_labels"] = state.labels
    return found
