"""What all parts of the middleware share: the policy, who is told, and what follows a denial."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.messages import ToolCall, ToolMessage

from langchain_sequrity.labels import Labels
from langchain_sequrity.middleware.denial import message_of
from langchain_sequrity.middleware.events import Audit, Outcome, Stage
from langchain_sequrity.middleware.results import Answer, with_update
from langchain_sequrity.middleware.rules import Decision, Rules
from langchain_sequrity.middleware.thread import Refused, Thread, update


@dataclass(frozen=True, slots=True)
class Passed:
    """A call that may be made.

    Attributes:
        request: The request to make.
        thread: What is kept of the thread.
        message: Id of the message that the call is of.
        session: The session's labels after the check.
    """

    request: ToolCallRequest
    thread: Thread
    message: str
    session: Labels


@dataclass(frozen=True, slots=True)
class Guard:
    """How calls are guarded.

    Attributes:
        rules: The policy.
        audit: Who is told of each check.
        asks: Whether a human is asked about soft denials.
        raises: Whether denials are raised.
    """

    rules: Rules
    audit: Audit
    asks: bool
    raises: bool

    def denied(self, refused: Refused, thread: Thread, *, session: Labels | None) -> Answer:
        """What the model is told of a denial that comes up when a call runs.

        Args:
            refused: The denial, and what it is about.
            thread: What is kept of the thread.
            session: The session's labels, if they change.
        """
        is_raised = self.raises and refused.denial.kind != "waits" and thread.refused is None
        told = message_of(refused.denial, refused.call_id)
        return self.answer(told, session=session, refused=refused if is_raised else None)

    @staticmethod
    def answer(
        told: ToolMessage,
        *,
        session: Labels | None,
        refused: Refused | None = None,
        is_labelled: bool = False,
    ) -> Answer:
        """A message in the place of a result, with what the state keeps.

        Args:
            told: The message.
            session: The session's labels, if they change.
            refused: A denial that is to be raised.
            is_labelled: Whether the message is to get no labels.
        """
        if session is None and refused is None and not is_labelled:
            return told
        labelled = told.tool_call_id if is_labelled else None
        kept = update(session=session, refused=refused, labelled=labelled)
        return cast("Answer", with_update(told, kept))

    def tell(
        self,
        stage: Stage,
        outcome: Outcome,
        call: ToolCall,
        decision: Decision,
        *,
        seen: Labels,
        config: Mapping[str, Any],
    ) -> None:
        """Tell of a check.

        Args:
            stage: When it was.
            outcome: What came of it.
            call: The call.
            decision: What the policy says.
            seen: The join of the labels of all results that the model had seen.
            config: The run's configuration.
        """
        labels = self.rules.argument_labels(seen)
        self.audit.tell(stage, outcome, call, decision, labels=labels, config=config)
