"""Soft denials that a human may approve: what is offered, what was decided, what comes of it.

The service has no call that approves. So the client makes the approved call itself, once, and the
run goes on in a new session, whose program takes the result from a variable. Approval therefore
stands for exactly one call: its digest holds policy, program, number of the call, tool, arguments
and labels (`docs/security.md`, rule 7). What a new session could not make up for is not offered.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from langchain_sequrity.connection import Connection
from langchain_sequrity.denials import Denial
from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicyDenied, PolicySyntaxError, UsageError
from langchain_sequrity.graph.compiling.names import INTERNAL_TOOLS
from langchain_sequrity.graph.denying.approved import Approved, with_approved
from langchain_sequrity.graph.denying.failures import placed
from langchain_sequrity.graph.keeping.entries import Entry, digest_of
from langchain_sequrity.graph.keeping.journal import Journal, Offered, Run
from langchain_sequrity.graph.program import ABSENT, Program
from langchain_sequrity.interrupts import ask
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Argument, Call, Engine
from langchain_sequrity.strict_json import loads
from langchain_sequrity.wire.denied import read_call, read_check
from langchain_sequrity.wire.json_text import dumps
from langchain_sequrity.wire.printed import checked_tool, read_printed

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
