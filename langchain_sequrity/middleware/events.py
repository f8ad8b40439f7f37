"""What is told of each check: to a function of yours, and to the log."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from inspect import iscoroutinefunction
from typing import Any, Literal, cast

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import ToolCall
from langchain_core.runnables.config import get_callback_manager_for_config

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.middleware.rules import Decision
from langchain_sequrity.sqrt.denying import denial_of as denial_of_verdict
from langchain_sequrity.tracing import Check, trace

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
