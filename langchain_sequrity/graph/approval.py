"""What follows a denial: an exception, a field of the state, or a question to a human.

Only the calls that were approved are taken out, each by its number among the calls of its tool. So
the rest of the program is as it was, and the same denial comes again wherever something is not the
call that was approved.

The service has no call that approves. So the client makes the approved call itself, once, and the
run goes on in a new session, whose program takes the result from a variable. Approval therefore
stands for exactly one call: its digest holds policy, program, number of the call, tool, arguments
and labels (`docs/security.md`, rule 7). What a new session could not make up for is not offered.
"""

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context

from langchain_sequrity.connection import Connection
from langchain_sequrity.denials import NOT_REPORTED, Denial
from langchain_sequrity.display import plain
from langchain_sequrity.errors import (
    PolicyDenied,
    PolicySyntaxError,
    ProgramFailed,
    TurnFailed,
    UsageError,
    ordinary,
)
from langchain_sequrity.graph.analysis.spec import GraphSpec
from langchain_sequrity.graph.codegen.toolbox import INTERNAL_TOOLS, TAKEN, Names
from langchain_sequrity.graph.journal import Entry, Journal, Offered, Run, digest_of
from langchain_sequrity.graph.program import ABSENT, Program
from langchain_sequrity.interrupts import ask
from langchain_sequrity.labels import Labels
from langchain_sequrity.on_denied import STATE
from langchain_sequrity.sqrt import Argument, Call, Engine
from langchain_sequrity.strict_json import dumps, loads
from langchain_sequrity.wire.denials import (
    checked_tool,
    read_call,
    read_check,
    read_printed,
    without_values,
)


class Approved(NamedTuple):
    """One approved call: a tool, and which of its calls, counted from 1."""

    tool: str
    number: int


def with_approved(text: str, approved: Iterable[Approved]) -> tuple[str, Mapping[Approved, str]]:
    """Take approved calls out of a program.

    Args:
        text: The program, in which each call of a tool is a statement `x = tool(…)` on a line.
        approved: The calls.

    Returns:
        The program, and the variable in which it looks for the result of each.
    """
    tree = ast.parse(text)
    taken = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names = Names(TAKEN | taken)
    variables = {one: names.take(f"approved_{one.tool}_{one.number}") for one in approved}
    counters = {tool: names.take(f"calls_of_{tool}") for tool in {one.tool: 0 for one in variables}}
    lines = text.splitlines()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Name)
            and node.value.func.id in counters
        ):
            tool, target = node.value.func.id, ast.unparse(node.targets[0])
            results = {one.number: name for one, name in variables.items() if one.tool == tool}
            line, indent = lines[node.lineno - 1], " " * node.col_offset
            lines[node.lineno - 1] = _call(line.strip(), target, indent, counters[tool], results)
    start = tree.body[0].lineno - 1
    lines[start:start] = [
        "# Calls that a human approved have been made: their results are in variables.",
        *(f"{counter} = 0" for counter in counters.values()),
    ]
    return "\n".join([*lines, ""]), variables


def _call(line: str, target: str, indent: str, counter: str, results: Mapping[int, str]) -> str:
    written = [f"{counter} = {counter} + 1"]
    keyword = "if"
    for number, name in results.items():
        written += [f"{keyword} {counter} == {number}:", f"  {target} = {name}"]
        keyword = "elif"
    written += ["else:", f"  {line}"]
    return "\n".join(f"{indent}{one}" for one in written)


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


_OWN_CALL = re.compile(rf"= (?:{'|'.join(INTERNAL_TOOLS)})\(")
_META = '"meta"'


class NotOffered(Exception):
    """A denial that cannot be approved, and why."""


class Approvals:
    """Decides which denials are offered to a human.

    Args:
        connection: Where policy and features come from.
        program: The graph as a program.
    """

    def __init__(self, connection: Connection, program: Program) -> None:
        self._connection = connection
        self._program = program
        self._policy = "" if connection.policy is None else connection.policy.to_header()

    # What is offered

    def offer(self, error: PolicyDenied, run: Run, journal: Journal) -> Offered:
        """Take a denial as something that a human may approve.

        Args:
            error: The denial.
            run: The run.
            journal: The journal of the run, up to the denied call.

        Returns:
            The denial, with the digest of what would be approved.

        Raises:
            NotOffered: If its strength is hard or not known, or if the run could not go on under
                the same policy after it.
        """
        denial = error.denial
        if denial.strength != "soft":
            is_hard = denial.strength == "hard"
            msg = "it is hard" if is_hard else "the service does not say how strong it is"
            raise NotOffered(msg)
        if denial.tool not in self._program.tools:
            own = "the call is one of the service's own tools"
            raise NotOffered(own if denial.tool else "the service does not say which call it is")
        self._check_surroundings(error.tool)
        self._check_before(error, journal)
        denial = _with_its_call(error, run, journal)
        index = journal.calls_of(error.tool) + 1
        digest = self._digest(index, denial)
        return Offered(placed(denial, self._program), index, digest)

    def _check_before(self, error: PolicyDenied, journal: Journal) -> None:
        """Refuse where the program may have made other calls before it than those of the journal.

        Its own tools, results from a cache, a replay that took another way: then the number of the
        call could be another one's.
        """
        *before, last = error.checks or (None,)
        denied = read_check(last) if error.checks else error.denial
        if denied is None or denied.tool not in (None, error.tool):
            msg = "the last check that the service reports is not that of the denied call"
            raise NotOffered(msg)
        calls = [call.tool for call, _ in journal.answered]
        if not before and (calls or not error.checks):  # none are reported, or denials alone
            self._check_unseen()
            return
        told = [checked_tool(one) if isinstance(one, Mapping) else None for one in before]
        if len(told) != len(calls) or any(
            name not in (None, tool) for name, tool in zip(told, calls, strict=True)
        ):
            msg = "the service has not checked the calls of the journal and no others before it"
            raise NotOffered(msg)

    def _check_unseen(self) -> None:
        """Refuse where the service could have made calls itself, or answered some from a cache."""
        config = self._connection.config
        if config and config.fsm and config.fsm.force_to_cache:
            msg = "results may have come from the service's cache, and it does not say which"
            raise NotOffered(msg)
        if _OWN_CALL.search(self._program.text):
            msg = "its program calls tools of the service's own, and no checks of them are reported"
            raise NotOffered(msg)

    def _check_surroundings(self, tool: str) -> None:
        """Refuse where a call that the service does not see would escape more than its denial."""
        if self._engine().depends_on_session(tool):
            msg = "its rules change or look at labels of the session, which a new one has not"
            raise NotOffered(msg)
        features = self._connection.features
        if features and (features.content_classifiers or features.content_blockers):
            msg = "its result would pass by the classifiers and blockers of `features`"
            raise NotOffered(msg)

    def _engine(self) -> Engine:
        policy = self._connection.policy
        not_known = "the rules on its result are not known here: give the policy as SQRT text"
        if policy is None:
            raise NotOffered(not_known)
        try:
            return policy.compile()
        except PolicySyntaxError as error:
            msg = "the service takes a policy that cannot be read here"
            raise NotOffered(msg) from error
        except UsageError:
            raise NotOffered(not_known) from None

    def _digest(self, index: int, denial: Denial) -> str:
        call = [denial.tool, denial.arguments, denial.labels]
        return digest_of([self._policy, self._program.text, index, *call])

    def after(self, tool: str, value: Any, labels: Labels) -> Labels:
        """The labels of a result after the policy's rules on results.

        Args:
            tool: The tool.
            value: The result.
            labels: Its labels so far.

        Raises:
            UsageError: If the rules are not known here.
        """
        if self._connection.policy is None:
            return labels
        try:
            engine = self._engine()
        except NotOffered as reason:
            msg = (
                "A step of the run was edited half way, after some of its nodes had returned. What "
                f"their results are labelled is not known: {reason}. Finish the step first."
            )
            raise UsageError(msg) from None
        return engine.after(Call(tool, {}), Argument(value, labels), Labels())[0]

    # What was decided

    def ask(self, offered: Offered, *, is_late: bool) -> str | None:
        """Ask a human whether to make a call.

        Args:
            offered: The call.
            is_late: Whether the thread has gone on since the question was asked.

        Returns:
            `None` if it was approved, what the human says if not.

        Raises:
            UsageError: If policy or program are others than when the call was denied, or if an
                answer comes too late.
        """
        self.check(offered)
        arguments = {name: one for name, one in offered.arguments.items() if one != ABSENT}
        denial = replace(offered.denial, labels={name: offered.labels[name] for name in arguments})
        decision = ask(denial, arguments, ("approve", "reject"), is_late=is_late)
        return None if decision.type == "approve" else decision.message

    def check(self, offered: Offered) -> None:
        """Check that an approval is for what this executor runs.

        Raises:
            UsageError: If policy or program are others than when the call was denied.
        """
        if self._digest(offered.index, offered.denial) != offered.digest:
            msg = (
                f"The call of `{plain(offered.tool)}` was denied under another policy, or in "
                "another graph, than this executor has. An approval does not carry over; start "
                "the run afresh, with another `thread_id`."
            )
            raise UsageError(msg)

    def check_all(self, journal: Journal) -> None:
        """Check that each approval in a journal is for what this executor runs.

        Raises:
            UsageError: If one of them is not.
        """
        for denial in journal.denials:
            if denial.is_approved:
                self.check(denial)

    # What comes of it

    def program_after(self, approved: list[Offered], text: str) -> tuple[str, dict[str, Any]]:
        """The program that takes the results of approved calls, and the variables with them.

        Args:
            approved: Calls that were approved and made; `check_all` has passed them.
            text: The program that makes the calls.
        """
        calls = [Approved(one.tool, one.index) for one in approved]
        text, names = with_approved(text, calls)
        variables = {
            names[call]: self._variable(denial, denial.result)
            for call, denial in zip(calls, approved, strict=True)
            if denial.result is not None
        }
        return text, variables

    def _variable(self, denial: Offered, entry: Entry) -> dict[str, Any]:
        """A result with the labels that the service would have given it."""
        value = loads(entry["result"])
        arguments = {
            name: Argument(one, Labels.from_wire(denial.labels[name]))
            for name, one in denial.arguments.items()
        }
        labels = Labels()
        for argument in arguments.values():
            labels = labels.join(argument.labels)
        if entry["combine"] != "ignore":
            # Whether the service lets a tool replace labels is its own affair; joined is safe.
            labels = labels.join(Labels.from_wire(entry["labels"]))
        call = Call(denial.tool, arguments)
        labels, _ = self._engine().after(call, Argument(value, labels), Labels())
        return {"value": value, "meta": labels.to_wire()}


def _with_its_call(error: PolicyDenied, run: Run, journal: Journal) -> Denial:
    """The denial with the arguments and labels of its call, from the check or from the message.

    Raises:
        NotOffered: If not all of them are told, or not for sure.
    """
    denial = error.denial
    if _is_labelled(denial.arguments, denial.labels):
        return denial
    message = error.result.error_message if error.result else None
    printed = read_printed(message or "")
    arguments, labels = read_call(printed.arguments, None)
    is_sure = printed.has_labels or not _looks_labelled(run, journal)
    if arguments is None or labels is None or not (is_sure and _is_labelled(arguments, labels)):
        msg = "the service does not report its arguments with their labels"
        raise NotOffered(msg)
    return denial.with_call(arguments, labels)


def _is_labelled(arguments: Any, labels: Any) -> bool:
    return arguments is not None and arguments.keys() == (labels or {}).keys()


def _looks_labelled(run: Run, journal: Journal) -> bool:
    """Whether some data of the run has a key `meta`, as a value with its labels has."""
    values = [dumps(one["value"]) for one in loads(run.variables).values()]
    results = [entry["result"] for _, entry in journal.answered]
    return any(_META in text for text in (*values, *results))


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
