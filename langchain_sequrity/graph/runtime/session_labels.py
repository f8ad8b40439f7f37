"""The labels of a thread's session, from run to run.

For the service each run is a new session. Its labels begin with those that the last run of the
thread left: the policy of the run gets a first rule that adds them before its first call
(`docs/behaviour.md`, P13). A replay in a new session begins with the same labels.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from langchain_sequrity.connection import Connection
from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import BadReply, SessionLost, UsageError
from langchain_sequrity.graph.journal import ProgramCall
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.labels import ALL, BadLabels, Labels
from langchain_sequrity.sqrt import Argument, Call, builder
from langchain_sequrity.sqrt.engine import Engine
from langchain_sequrity.wire.dual_llm import DualLLMResult

WireLabels = dict[str, list[str]]

_BEGUN = "sequrity: the session has begun"
_EVERY_TOOL = r"(?s).*"
_ACCEPT = (
    "Start anew with another `thread_id`, or accept the loss with the argument "
    '`on_session_lost="restart"`.'
)


def session_labels_of(result: DualLLMResult | None) -> WireLabels | None:
    """The labels of the session that a turn reports; `None` if it does not report them.

    Raises:
        BadReply: If they are not labels.
    """
    if result is None or result.session_meta is None:
        return None
    try:
        labels = Labels.from_wire(result.session_meta.get("meta"), unknown="ignore")
    except BadLabels:
        msg = "The service reports the session without valid labels."
        raise BadReply(msg) from None
    return replace(labels, producers=labels.producers - {_BEGUN}).to_wire()


def after_attempts(
    connection: Connection, labels: WireLabels | None, calls: Iterable[ProgramCall]
) -> WireLabels | None:
    """The labels after calls that were checked and have no result, such as that of a failed node.

    Their `session before` changes count. Labels of arguments are unknown here, and taken as none.
    """
    if labels is None or connection.policy is None:
        return labels
    engine, session = connection.policy.compile(), Labels.from_wire(labels)
    for call in calls:
        arguments = {name: Argument(value) for name, value in call.arguments.items()}
        session = engine.before(Call(call.tool, arguments), session)
    return session.to_wire()


@dataclass(frozen=True, slots=True)
class BegunPolicy:
    """A policy whose sessions begin with labels.

    Attributes:
        header: The policy with the rule that adds the labels, before the author's rules.
        added_lines: Number of lines before them.
    """

    header: PolicyHeader
    added_lines: int

    @classmethod
    def of(cls, policy: PolicyHeader, labels: Mapping[str, Any]) -> "BegunPolicy":
        """Add labels to the beginning of a policy's sessions.

        Raises:
            SessionLost: If no rule can do so: the policy is not SQRT, or a label cannot be written.
        """
        codes = policy.codes
        reason = "The policy is not a text in SQRT."
        rule = ""
        if codes is not None and codes.code:
            try:
                rule = _rule(policy.compile(), Labels.from_wire(labels))
            except UsageError as error:
                reason = str(error)
        if codes is None or not rule:
            msg = (
                "The session of this thread has labels, and a new run cannot begin with them: "
                f"{reason} {_ACCEPT}"
            )
            raise SessionLost(msg)
        text = f"{rule}\n{codes.code}"
        header = policy.model_copy(update={"codes": codes.model_copy(update={"code": text})})
        return cls(header, rule.count("\n") + 1)

    def author_place(self, denial: Denial) -> Denial:
        """The denial with the place of its rule in the author's text."""
        if denial.line is None:
            return denial
        place = self.header.author_place(denial.line, denial.column)
        line, column = (None, None) if place is None else place
        if line is not None:
            line -= self.added_lines
        return replace(denial, line=line, column=column)


def _rule(engine: Engine, labels: Labels) -> str:
    """A rule that adds labels to the session before a call.

    It adds them before each call, unless a rule of the policy may remove labels. Then a mark in the
    session shows that they have been added.
    """
    session = builder.session
    changes = []
    if labels.tags:
        changes.append(session.tags.add(labels.tags))
    if labels.producers:
        changes.append(session.producers.add(labels.producers))
    if ALL not in labels.consumers:
        changes.append(session.consumers.keep(labels.consumers))
    every_tool = builder.tool(matching=_EVERY_TOOL)
    if _only_grows(engine):
        every_tool = every_tool.session_before(*changes)
    else:
        is_new = ~session.producers.has(_BEGUN)
        changes.append(session.producers.add(_BEGUN))
        every_tool = every_tool.session_before(*changes, when=is_new)
    return str(builder.policy(every_tool)).strip()


def _only_grows(engine: Engine) -> bool:
    """Whether no rule removes tags or producers, or adds consumers."""
    updates = (
        update.node for entry in engine.tools for step in entry.steps for update in step.updates
    )
    return all(
        update.assignment == ("&=" if update.target.field == "consumers" else "|=")
        for update in updates
    )


def unknown_labels(session_id: str | None) -> SessionLost:
    """The error for a thread whose session's labels nobody knows."""
    msg = (
        "The policy has rules on the session, and what the earlier runs of this thread left in it "
        f"is not known: the service did not report it, or the graph has changed. {_ACCEPT}"
    )
    return SessionLost(msg, session_id=session_id)
