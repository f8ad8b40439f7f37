"""Approvals that wait: a program asks, a person decides in the console, the program goes on.

A run that is denied softly stops with the interrupt of LangGraph, or with `PolicyDenied.approval`.
Its process sends the question here (`local_client`: `langchain_sequrity.console_review`), waits for
the decision, and continues the run with it. The server decides nothing by itself, and an approval
that nobody waits for any more has no effect.
"""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_sequrity.local.limits import MIB
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.sizes import of_value

Decided = Literal["approve", "reject"]
_MOST = 500
_MOST_BYTES = 16 * MIB
_ABANDONED_SECONDS = 60.0


@dataclass(slots=True)
class Question:
    """A call that a person has to decide about.

    Attributes:
        id: Its id.
        time_asked: When it was asked, in seconds since the epoch.
        tool: The tool.
        arguments: The values of its arguments.
        labels: The labels of each argument, as the protocol has them.
        rule: The rule that denied it.
        reason: The reason in words.
        source: Who waits, in words, such as the name of a graph.
        session_id: Its session, if it is known.
        may_approve: Whether the call may be approved at all.
        decision: The decision; `None` while it waits.
        message: What the person said.
        seen: When its program last waited for it, by the monotonic clock.
        size: Its bytes.
    """

    id: str
    time_asked: float
    tool: str
    arguments: Mapping[str, Any]
    labels: Mapping[str, Any] = field(default_factory=dict)
    rule: str = ""
    reason: str = ""
    source: str = ""
    session_id: str = ""
    may_approve: bool = True
    decision: Decided | None = None
    message: str = ""
    seen: float = field(default_factory=time.monotonic)
    size: int = 0

    @property
    def is_waiting(self) -> bool:
        """Whether it is open and somebody waits for it."""
        return self.decision is None and time.monotonic() - self.seen < _ABANDONED_SECONDS


class Approvals:
    """The questions of a server.

    Attributes:
        version: Grows with each question and each decision.
    """

    def __init__(self) -> None:
        self.version = 0
        self._lock = threading.Lock()
        self._questions: OrderedDict[str, Question] = OrderedDict()

    def ask(self, body: Any) -> Question:
        """Add a question.

        Args:
            body: `{"tool", "arguments", "labels", "rule", "reason", "source", "session_id",
                "may_approve"}`; only the first two are required.

        Raises:
            StatusError: 422 for another form, 429 if too many questions wait.
        """
        fields = _fields(body)
        size = of_value(fields)
        with self._lock:
            ended = [q.id for q in self._questions.values() if not q.is_waiting]
            for question_id in ended:
                total = sum(question.size for question in self._questions.values())
                if len(self._questions) <= _MOST // 2 and total + size <= _MOST_BYTES // 2:
                    break
                del self._questions[question_id]
            sizes = sum(question.size for question in self._questions.values())
            if len(self._questions) >= _MOST or sizes + size > _MOST_BYTES:
                refuse(429, "Too many questions wait already. Decide about some.", retry_after=5)
            question = Question(secrets.token_hex(8), time.time(), size=size, **fields)
            self._questions[question.id] = question
            self.version += 1
        return question

    def get(self, question_id: str) -> Question:
        """A question; raises `StatusError` with 404 for an unknown one."""
        question = self._questions.get(question_id)
        if question is None:
            refuse(404, "This question does not exist, or was decided long ago.")
        return question

    def decide(self, question_id: str, decision: str, message: str = "") -> Question:
        """Decide about a question, once.

        Raises:
            StatusError: 404 for an unknown question, 409 if it was decided or nobody waits, 422 for
                another word.
        """
        with self._lock:
            question = self.get(question_id)
            if decision not in {"approve", "reject"}:
                refuse(422, "A decision is `approve` or `reject`.")
            if decision == "approve" and not question.may_approve:
                refuse(422, "This call cannot be approved: a hard rule denies it.")
            if question.decision is not None:
                refuse(409, f"It was decided before: {question.decision}.")
            if not question.is_waiting:
                refuse(409, "Nobody waits for this decision any more.")
            question.decision = "approve" if decision == "approve" else "reject"
            question.message = message[:2_000]
            self.version += 1
        return question

    def abandon(self, question: Question) -> None:
        """Its program has gone; if it comes back, the question waits again."""
        with self._lock:
            question.seen = -_ABANDONED_SECONDS
            self.version += 1

    def waiting(self) -> list[Question]:
        """The questions that wait, the oldest first."""
        with self._lock:
            return [question for question in self._questions.values() if question.is_waiting]

    def decided(self, most: int = 20) -> list[Question]:
        """The last decided questions, the newest first."""
        with self._lock:
            ended = [q for q in self._questions.values() if q.decision is not None]
        return ended[::-1][:most]


_TEXTS = ("rule", "reason", "source", "session_id")


def _fields(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict) or not isinstance(body.get("tool"), str):
        refuse(422, "A question is an object with the text `tool` and the object `arguments`.")
    fields: dict[str, Any] = {"tool": body["tool"][:2_000]}
    for name in ("arguments", "labels"):
        value = body.get(name) or {}
        if not isinstance(value, dict):
            refuse(422, f"`{name}` must be an object.")
        fields[name] = value
    for name in _TEXTS:
        value = body.get(name) or ""
        if not isinstance(value, str):
            refuse(422, f"`{name}` must be a text.")
        fields[name] = value[:2_000]
    fields["may_approve"] = body.get("may_approve") is not False
    return fields
