"""What all parts of the middleware share: policy, tool results, and events."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from inspect import iscoroutinefunction
from typing import Any, Literal, cast, get_type_hints

from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.runnables.config import get_callback_manager_for_config
from langgraph.types import Command, Overwrite

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels, read_artifact
from langchain_sequrity.middleware.state import FIELD, Refused, Thread, update
from langchain_sequrity.middleware.verdict import Decision, Rules, message_of
from langchain_sequrity.sqrt.verdict import denial_of as denial_of_verdict
from langchain_sequrity.strict_json import loads
from langchain_sequrity.tracing import Check, trace
from langchain_sequrity.wire.tools import refuse_lost_labels

AUDIT = logging.getLogger("langchain_sequrity.audit")
_LOG = logging.getLogger("langchain_sequrity.middleware")
_LONGEST = 20_000
_FAILED = "Telling of a check raised %s; the check stands."

Stage = Literal["call", "result", "human"]
Outcome = Literal["allowed", "denied", "asked", "approved", "edited", "rejected", "answered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyEvent:
    """One check of a call.

    Attributes:
        stage: `call`: before it is made. `result`: after that, if the result is withheld.
            `human`: what a human said.
        outcome: What came of it: `allowed`, `denied`, `asked` (denied softly, and a human is
            asked); of a human `approved`, `edited`, `rejected`, or `answered` in the tool's place.
        tool: The tool.
        call_id: Id of the call.
        thread_id: `configurable.thread_id`, or an empty text.
        verdict: The policy's word, as `soft_denied`; empty where it was not asked.
        certain: Whether every reading of the policy says so.
        kind: Of a denial, its kind (`Denial.kind`); otherwise empty.
        rule: The rule that decided, as written, or the name of a preset.
        reason: The reason in words.
        labels: The labels that each argument carried.
        session: The session's labels after the check.
        arguments: The arguments, if `PolicyMiddleware(log_arguments=True)`; otherwise `None`.
    """

    stage: Stage
    outcome: Outcome
    tool: str
    call_id: str
    thread_id: str
    verdict: str = ""
    certain: bool = True
    kind: str = ""
    rule: str = ""
    reason: str = ""
    labels: Mapping[str, list[str]]
    session: Mapping[str, list[str]]
    arguments: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The event as a JSON object."""
        return asdict(self)


OnEvent = Callable[[PolicyEvent], None]


class Audit:
    """Tells of checks.

    Args:
        on_event: Is called with each of them.
        log_arguments: Whether events hold the arguments.

    Raises:
        UsageError: If `on_event` is no function that is called at once.
    """

    def __init__(self, on_event: OnEvent | None, *, log_arguments: bool) -> None:
        if on_event is not None and (not callable(on_event) or iscoroutinefunction(on_event)):
            msg = f"`on_event` is a plain function of one event; got {type(on_event).__name__}."
            raise UsageError(msg)
        self._on_event = on_event
        self._log_arguments = log_arguments

    def tell(
        self,
        stage: Stage,
        outcome: Outcome,
        call: ToolCall,
        decision: Decision,
        *,
        labels: Labels,
        config: Mapping[str, Any],
    ) -> None:
        """Tell of a check. What goes wrong there changes no verdict.

        Args:
            stage: When it was.
            outcome: What came of it.
            call: The call.
            decision: What the policy says.
            labels: The labels that each argument carried.
            config: The run's configuration.
        """
        verdict, denial = decision.verdict, decision.denial
        told = denial or (denial_of_verdict(verdict) if verdict is not None else None)
        event = PolicyEvent(
            stage=stage,
            outcome=outcome,
            tool=call["name"],
            call_id=call["id"] or "",
            thread_id=str((config.get("configurable") or {}).get("thread_id") or ""),
            verdict=verdict.final_verdict if verdict else "",
            certain=verdict.certain if verdict else True,
            kind=denial.kind if denial else "",
            rule=(told and told.rule) or "",
            reason=(told and told.reason) or "",
            labels=labels.to_wire(),
            session=decision.session.to_wire(),
            arguments=dict(call["args"]) if self._log_arguments else None,
        )
        try:
            _log(event)
            if self._on_event is not None:
                self._on_event(event)
        except Exception as error:  # noqa: BLE001 - whatever it is, the check stands
            _LOG.error(_FAILED, type(error).__name__)
        try:
            _trace(event, config)
        except Exception as error:  # noqa: BLE001 - as above
            _LOG.error(_FAILED, type(error).__name__)


def _trace(event: PolicyEvent, config: Mapping[str, Any]) -> None:
    callbacks = config.get("callbacks")
    if getattr(callbacks, "handlers", callbacks):  # else nobody listens, and a manager costs
        manager = get_callback_manager_for_config(cast("Any", config))
        if _in_loop():  # which this blocks: what such a handler waits for there would never come
            manager.handlers = [
                one for one in manager.handlers if not isinstance(one, AsyncCallbackHandler)
            ]
        check = Check(
            event.tool, event.outcome, event.verdict, event.rule, event.reason,
            event.labels, event.session,
        )  # fmt: skip
        trace(manager, [check])


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _log(event: PolicyEvent) -> None:
    if AUDIT.isEnabledFor(logging.INFO):
        # JSON escapes all but ASCII, and `plain` what is left.
        text = plain(json.dumps(event.to_json(), default=repr), limit=_LONGEST)
        AUDIT.info("%s", text, extra={"policy_event": event})


Answer = ToolMessage | Command[Any]
"""What a tool call comes to; a tool may also return a list of such."""


@dataclass(frozen=True, slots=True)
class Brought:
    """Labels that a result brings along.

    Attributes:
        labels: The labels, or `None`.
        replaces: Whether they stand in the place of those of the arguments.
    """

    labels: Labels | None = None
    replaces: bool = False

    def joined(self, initial: Labels) -> Labels:
        """Labels of the result before the rules.

        Args:
            initial: The join of the labels of the arguments.
        """
        if self.labels is None:
            return initial
        return self.labels if self.replaces else initial.join(self.labels)


def brought_by(messages: Iterable[ToolMessage]) -> Brought:
    """Read the labels that `labeled_tool_result` gave to messages.

    Raises:
        UsageError: For labels that it did not make, or that stand in a message's text.
    """
    messages = list(messages)
    found = [one for message in messages if (one := read_artifact(message.artifact)) is not None]
    for message in messages:
        refuse_lost_labels(str(message.text))
    labels: Labels | None = None
    for own, combine in found:
        if combine != "ignore":
            labels = own if labels is None else labels.join(own)
    return Brought(labels, len(found) == 1 and found[0][1] == "replace")


def value_of(message: ToolMessage) -> Any:
    """The value that a policy looks at: JSON text is parsed, as the local server does."""
    content = message.content
    if not isinstance(content, str):
        return content
    try:
        return loads(content)
    except ValueError:
        return content


def tool_messages(result: Any) -> list[ToolMessage]:
    """The tool messages in what a tool call came to.

    Raises:
        UsageError: If the tool writes what the policy goes by.
    """
    return list(_messages(result))


def _messages(result: Any) -> Iterator[ToolMessage]:
    if isinstance(result, ToolMessage):
        yield result
    elif isinstance(result, list | tuple):
        for one in result:
            yield from _messages(one)
    elif isinstance(result, Overwrite):
        yield from _messages(result.value)
    elif isinstance(result, Command):
        for name, value in _written(result.update):
            if name == FIELD:
                msg = f"A tool's command writes the field `{FIELD}`, which the policy goes by."
                raise UsageError(msg)
            yield from _messages(value)


def _written(update: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(update, Mapping):
        yield from update.items()
    elif isinstance(update, list | tuple):
        yield from (pair for pair in update if isinstance(pair, tuple))
    elif update is not None:
        yield from ((name, getattr(update, name)) for name in get_type_hints(type(update)))


def with_update(result: Any, update: Mapping[str, Any]) -> Any:
    """Let an update of ours go along with what a tool call came to."""
    if isinstance(result, ToolMessage):
        return Command(update={"messages": [result], **update})
    if isinstance(result, Command) and result.graph is None and isinstance(result.update, dict):
        return replace(result, update={**result.update, **update})
    before = result if isinstance(result, list) else [result]
    return [*before, Command(update=dict(update))]


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
