"""After a denial: an exception, a field of the state, or a question to a human.

The API of the service has no field for an approval. So the client makes the approved call itself,
once, and the run continues in a new session, whose program takes the result from a variable. Only
approved calls are replaced in the program, each by its number among the calls of its tool. All
other calls stay, so any other call is denied again.

An approval is for exactly one call: its digest covers policy, program, number of the call, tool,
arguments and labels (`docs/security.md`, rule 7). A call is not offered for approval if a new
session could not have the same effects.
"""

import ast
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context

from langchain_sequrity import syntax_trees
from langchain_sequrity.connection import Connection
from langchain_sequrity.denials import NOT_REPORTED, Denial
from langchain_sequrity.display import plain
from langchain_sequrity.errors import (
    PolicyDenied,
    ProgramFailed,
    TurnFailed,
    UsageError,
    ordinary,
)
from langchain_sequrity.graph.analysis.spec import GraphSpec
from langchain_sequrity.graph.codegen.tools import RESERVED_NAMES, Namespace
from langchain_sequrity.graph.journal import CallResult, DeniedCall, Journal, ProgramRun
from langchain_sequrity.graph.program import ABSENT, GraphProgram
from langchain_sequrity.interrupts import ask_about_call
from langchain_sequrity.labels import Combine, Labels
from langchain_sequrity.on_denied import STATE
from langchain_sequrity.sqrt import Argument, Call, Engine
from langchain_sequrity.sqrt.coerce import INTERNAL_TOOLS
from langchain_sequrity.sqrt.gate import Gate, ToolReturn, call_digest
from langchain_sequrity.strict_json import dumps, loads
from langchain_sequrity.wire.denials import (
    checked_tool,
    read_check,
    with_labelled_call,
    without_values,
)


def _with_approved(
    text: str, approved: Iterable[DeniedCall]
) -> tuple[str, Mapping[tuple[str, int], str]]:
    """Replace approved calls in a program.

    Args:
        text: The program, in which each call of a tool is a statement `x = tool(…)` on a line.
        approved: The calls.

    Returns:
        The program, and the variable with the result of each call: its tool, and its number among
        the calls of this tool.
    """
    tree = syntax_trees.parse(text)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names = Namespace(RESERVED_NAMES | used)
    variables = {
        (call.tool, call.index): names.unique_name(f"approved_{call.tool}_{call.index}")
        for call in approved
    }
    tools = dict.fromkeys(tool for tool, _ in variables)
    counters = {tool: names.unique_name(f"calls_of_{tool}") for tool in tools}
    lines = text.splitlines()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Name)
            and node.value.func.id in counters
        ):
            tool, target = node.value.func.id, ast.unparse(node.targets[0])
            results = {
                number: name for (called, number), name in variables.items() if called == tool
            }
            line, indent = lines[node.lineno - 1].strip(), " " * node.col_offset
            lines[node.lineno - 1] = _numbered(line, target, indent, counters[tool], results)
    start = tree.body[0].lineno - 1
    lines[start:start] = [
        "# Calls that a human approved have been made: their results are in variables.",
        *(f"{counter} = 0" for counter in counters.values()),
    ]
    return "\n".join([*lines, ""]), variables


def _numbered(line: str, target: str, indent: str, counter: str, results: Mapping[int, str]) -> str:
    """A call that is counted, and not made if its result is in a variable."""
    lines = [f"{counter} = {counter} + 1"]
    keyword = "if"
    for number, name in results.items():
        lines += [f"{keyword} {counter} == {number}:", f"  {target} = {name}"]
        keyword = "elif"
    lines += ["else:", f"  {line}"]
    return "\n".join(f"{indent}{line}" for line in lines)


def with_graph_facts(error: TurnFailed, program: GraphProgram) -> TurnFailed:
    """An error of the program's turn, with the facts of the graph.

    Args:
        error: The error from reading the reply.
        program: The graph as a program.

    Returns:
        An error of the same class with the same facts and notes, and with node and program if the
        class has them.
    """
    facts: dict[str, Any] = {
        "message": error.message,
        "session_id": error.session_id,
        "result": error.result,
    }
    reported = error
    if isinstance(error, PolicyDenied) and error.node is None:
        denial = with_node(error.denial, program)
        facts["program"] = error.program or program.text
        reported = PolicyDenied(denial=denial, checks=error.checks, **facts)
    elif isinstance(error, ProgramFailed):
        cause = error.result and without_values(error.result.error_message or "")
        text = (
            f"The program of the graph failed: {plain(cause or NOT_REPORTED)} (code "
            f"`{plain(error.code or NOT_REPORTED)}`). The run gives no state."
        )
        facts["program"] = program.text
        reported = ProgramFailed(text, code=error.code, line=error.line, **facts)
    if reported is not error:
        for note in getattr(error, "__notes__", ()):
            reported.add_note(note)
    return ordinary(reported)


def with_node(denial: Denial, program: GraphProgram) -> Denial:
    """The denial with the node of its tool."""
    spec = program.tools.get(denial.tool or "")
    if spec is None:
        return denial
    return replace(denial, node=spec.node, is_router=spec.role == "router")


_OWN_CALL = re.compile(rf"= (?:{'|'.join(INTERNAL_TOOLS)})\(")
_META = '"meta"'


class NotApprovable(Exception):
    """A denial that cannot be approved; the text is the reason."""


class DenialHandler:
    """Handles denials as `on_denied` says.

    Args:
        connection: The connection with policy and features.
        program: The graph as a program.
        on_denied: The option.

    Attributes:
        asks: Whether a human may be asked.
        field: The state field for a denial; empty without.
    """

    def __init__(self, connection: Connection, program: GraphProgram, on_denied: str) -> None:
        self._connection = connection
        self._program = program
        self._policy = "" if connection.policy is None else connection.policy.to_header()
        self.asks = on_denied == "interrupt"
        self.field = on_denied.removeprefix(STATE) if on_denied.startswith(STATE) else ""

    def handle(
        self, error: PolicyDenied, run: ProgramRun, journal: Journal, step: int
    ) -> dict[str, Any] | DeniedCall:
        """Handle a denial. Returns facts for the state, or an offer to a human.

        Args:
            error: The denial.
            run: The run.
            journal: The journal up to the denial.
            step: The step of the graph.

        Raises:
            PolicyDenied: If the option is "raise", or if the denial cannot be approved.
        """
        if self.field:
            denial = with_node(error.denial, self._program)
            code = error.result.error_code if error.result is not None else None
            return {**asdict(denial), "text": denial.text, "code": code}
        if not self.asks:
            raise error
        try:
            return self._offer(error, run, journal, step)
        except NotApprovable as reason:
            error.add_note(f"It is not offered for approval: {reason}.")
            raise error from None

    # Offers

    def _offer(
        self, error: PolicyDenied, run: ProgramRun, journal: Journal, step: int
    ) -> DeniedCall:
        """The denied call for a human, with its digest.

        Raises:
            NotApprovable: If its strength is hard or not known, or if the run could not go on under
                the same policy after it.
        """
        denial = error.denial
        if denial.strength != "soft":
            is_hard = denial.strength == "hard"
            msg = "it is hard" if is_hard else "the service does not report its strength"
            raise NotApprovable(msg)
        if denial.tool not in self._program.tools:
            msg = "the service does not report that it is a call of the graph"
            raise NotApprovable(msg)
        self._check_surroundings(error.tool)
        self._check_before(error, journal)
        denial = _with_its_call(error, run, journal)
        index = journal.calls_of(error.tool) + 1
        digest = self._digest(index, denial)
        return DeniedCall(with_node(denial, self._program), index, digest, step=step)

    def _check_before(self, error: PolicyDenied, journal: Journal) -> None:
        """Refuse if the program may have made calls that are not in the journal.

        Examples are the service's own tools, cached results, or a replay that took another path.
        The number of the call would then be wrong.
        """
        *before, last = error.checks or (None,)
        denied = read_check(last) if error.checks else error.denial
        if denied is None or denied.tool not in (None, error.tool):
            msg = "the last check that the service reports is not that of the denied call"
            raise NotApprovable(msg)
        calls = [call.tool for call, _ in journal.answered]
        if not before and (calls or not error.checks):  # none are reported, or only denials
            self._check_unseen()
            return
        checked = [checked_tool(check) if isinstance(check, Mapping) else None for check in before]
        if len(checked) != len(calls) or any(
            name not in (None, tool) for name, tool in zip(checked, calls, strict=True)
        ):
            msg = "the service has not checked the calls of the journal and no others before it"
            raise NotApprovable(msg)

    def _check_unseen(self) -> None:
        """Refuse if the service may have made calls itself, or used cached results."""
        config = self._connection.config
        if config and config.fsm and config.fsm.force_to_cache:
            msg = "results may be from the service's cache, and it does not report which"
            raise NotApprovable(msg)
        if _OWN_CALL.search(self._program.text):
            msg = "its program calls tools of the service's own, and no checks of them are reported"
            raise NotApprovable(msg)

    def _check_surroundings(self, tool: str) -> None:
        """Refuse if a call outside the service would bypass more than the denial."""
        if self._engine().depends_on_session(tool):
            msg = (
                "its rules change or read labels of the session, which a new session does not have"
            )
            raise NotApprovable(msg)
        if self._connection.is_screened:
            msg = "its result would bypass the classifiers and blockers of `features`"
            raise NotApprovable(msg)

    def _engine(self) -> Engine:
        policy = self._connection.policy
        with suppress(UsageError):  # for another language, or a text that cannot be read here
            if policy is not None:
                return policy.compile()
        msg = "the rules on its result are unknown here: give the policy as SQRT text"
        raise NotApprovable(msg)

    def _digest(self, index: int, denial: Denial) -> str:
        within = [self._policy, self._program.text, index]
        return call_digest(denial.tool, denial.arguments, denial.labels, within=within)

    def labels_after(self, tool: str, value: Any, labels: Labels) -> Labels:
        """The labels of a result after the policy's rules on results.

        Args:
            tool: The tool.
            value: The result.
            labels: Its labels so far.

        Raises:
            UsageError: If the rules are unknown here.
        """
        if self._connection.policy is None:
            return labels
        try:
            engine = self._engine()
        except NotApprovable as reason:
            msg = (
                "A step of the run was edited after some of its nodes had returned. The labels of "
                f"their results are unknown: {reason}. Finish the step first."
            )
            raise UsageError(msg) from None
        returned = ToolReturn(value, labels)
        return Gate((engine,)).result_labels(Call(tool, {}), returned, Labels())[0]

    # Decisions

    def ask_human(
        self, offered: DeniedCall, config: RunnableConfig, *, is_late: bool
    ) -> str | None:
        """Ask a human whether to make a call.

        Args:
            offered: The call.
            config: The config of the task that asks.
            is_late: Whether the thread has moved on since the question.

        Returns:
            The human's objection; `None` if the call is approved.

        Raises:
            UsageError: If policy or program have changed since the denial, or the answer is late.
        """
        self.check_approval(offered)
        arguments = {name: value for name, value in offered.arguments.items() if value != ABSENT}
        denial = replace(offered.denial, labels={name: offered.labels[name] for name in arguments})
        with set_config_context(config) as context:  # `get_config` looks for it there
            decision = context.run(
                ask_about_call,
                offered.digest,
                denial,
                arguments,
                ("approve", "reject"),
                is_late=is_late,
            )
        return None if decision.type == "approve" else decision.message

    def rejection_error(self, offered: DeniedCall, objection: str) -> PolicyDenied:
        """The error of a call that a human rejected."""
        denial = replace(offered.denial, kind="rejected", objection=objection)
        denial = with_node(denial, self._program)
        return ordinary(PolicyDenied(denial=denial, program=self._program.text))

    def check_approval(self, offered: DeniedCall) -> None:
        """Check that an approval is for this executor.

        Raises:
            UsageError: If policy or program have changed since the denial.
        """
        if self._digest(offered.index, offered.denial) != offered.digest:
            msg = (
                f"The call of `{plain(offered.tool)}` was denied under another policy or in "
                "another graph. Its approval is not valid for this executor. Start a new run with "
                "another `thread_id`."
            )
            raise UsageError(msg)

    # Results

    def program_after(self, approved: list[DeniedCall], text: str) -> tuple[str, dict[str, Any]]:
        """The program that takes the results of approved calls, and the variables with them.

        Args:
            approved: Calls that were approved and made, and checked by `check_approval`.
            text: The program that makes the calls.
        """
        text, names = _with_approved(text, approved)
        variables = {
            names[call.tool, call.index]: self._variable(call, call.result)
            for call in approved
            if call.result is not None
        }
        return text, variables

    def _variable(self, approved: DeniedCall, result: CallResult) -> dict[str, Any]:
        """A result with the labels that the service would have given it."""
        value = loads(result.value)
        arguments = {
            name: Argument(argument, Labels.from_wire(approved.labels[name]))
            for name, argument in approved.arguments.items()
        }
        # The service decides whether a tool may replace labels. Joining them is safe.
        combine: Combine = "ignore" if result.combine == "ignore" else "merge"
        returned = ToolReturn(value, result.labels, combine)
        call, gate = Call(approved.tool, arguments), Gate((self._engine(),))
        labels, _ = gate.result_labels(call, returned, Labels())
        return {"value": value, "meta": labels.to_wire()}


def _with_its_call(error: PolicyDenied, run: ProgramRun, journal: Journal) -> Denial:
    """The denial with the arguments and labels of its call, from the check or from the message.

    Raises:
        NotApprovable: If they are incomplete or uncertain.
    """
    message = error.result.error_message if error.result else None
    denial, may_be_forged = with_labelled_call(error.denial, message) or (None, False)
    if denial is None or (may_be_forged and _may_have_labels(run, journal)):
        msg = "the service does not report its arguments with their labels"
        raise NotApprovable(msg)
    return denial


def _may_have_labels(run: ProgramRun, journal: Journal) -> bool:
    """Whether some data of the run has a key `meta`, like a value with its labels."""
    values = [dumps(variable["value"]) for variable in loads(run.variables).values()]
    results = [result.value for _, result in journal.answered]
    return any(_META in text for text in (*values, *results))


def check_field(on_denied: str, spec: GraphSpec) -> None:
    """Check that the graph returns the state field for denials.

    Raises:
        UsageError: If it does not.
    """
    returned = spec.schemas[spec.output_schema]
    fields = [field for field in spec.channels if field in returned]
    if on_denied.startswith(STATE) and on_denied.removeprefix(STATE) not in fields:
        msg = (
            f"`on_denied={on_denied!r}`: the graph does not return this field, so a denial would "
            f"not be visible. Its fields are {', '.join(f'`{field}`' for field in fields)}."
        )
        raise UsageError(msg)
