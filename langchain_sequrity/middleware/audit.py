"""Policy events: each check goes to the audit log, to `on_event` and to the trace of the run."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Literal, cast

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import ToolCall
from langchain_core.runnables.config import get_callback_manager_for_config

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.middleware.verdict import CheckResult
from langchain_sequrity.sqrt.verdict import denial_of as denial_of_verdict
from langchain_sequrity.tracing import PolicyCheck, trace_checks

_AUDIT_LOG = logging.getLogger("langchain_sequrity.audit")
_LOG = logging.getLogger("langchain_sequrity.middleware")
_MAX_EVENT_TEXT = 20_000
_FAILED = "Reporting a check raised %s. The result of the check is unchanged."

Stage = Literal["call", "result", "human"]
EventOutcome = Literal["allowed", "denied", "asked", "approved", "edited", "rejected", "answered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyEvent:
    """One check of a call.

    Attributes:
        stage: `call`: before the call. `result`: after it, if the result is withheld. `human`: the
            decision of a human.
        outcome: The result: `allowed`, `denied`, `asked` (a soft denial about which a human is
            asked); for a human's decision `approved`, `edited`, `rejected`, or `answered` if the
            human answered instead of the tool.
        tool: The tool.
        call_id: Id of the call.
        thread_id: `configurable.thread_id`, or an empty text.
        verdict: The policy's verdict, such as `soft_denied`; empty if the policy was not applied.
        certain: Whether every reading of the policy gives this verdict.
        kind: The kind of a denial (`Denial.kind`); otherwise empty.
        rule: The rule that decided, as written, or the name of a preset.
        reason: The reason in words.
        policy: The name of the policy that decided, if several are combined.
        labels: The labels of each argument.
        session: The session's labels after the check.
        arguments: The arguments, if `PolicyMiddleware(log_arguments=True)`; otherwise `None`.
    """

    stage: Stage
    outcome: EventOutcome
    tool: str
    call_id: str
    thread_id: str
    verdict: str = ""
    certain: bool = True
    kind: str = ""
    rule: str = ""
    reason: str = ""
    policy: str = ""
    labels: Mapping[str, list[str]]
    session: Mapping[str, list[str]]
    arguments: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The event as a JSON object."""
        return asdict(self)


OnEvent = Callable[[PolicyEvent], None]


class Audit:
    """Reports checks.

    Args:
        on_event: Called with each event.
        log_arguments: Whether events contain the arguments.

    Raises:
        UsageError: If `on_event` is not a synchronous function.
    """

    def __init__(self, on_event: OnEvent | None, *, log_arguments: bool) -> None:
        if on_event is not None and (not callable(on_event) or iscoroutinefunction(on_event)):
            msg = (
                "`on_event` must be a synchronous function of one event; got "
                f"{type(on_event).__name__}."
            )
            raise UsageError(msg)
        self._on_event = on_event
        self._log_arguments = log_arguments

    def report(
        self,
        stage: Stage,
        outcome: EventOutcome,
        call: ToolCall,
        result: CheckResult,
        *,
        labels: Labels,
        config: Mapping[str, Any],
    ) -> None:
        """Report a check. An error in a handler changes no verdict.

        Args:
            stage: When the check was made.
            outcome: Its outcome.
            call: The call.
            result: Its result.
            labels: The labels of each argument.
            config: The run's configuration.
        """
        reports: list[OnEvent] = [
            *([_log] if _AUDIT_LOG.isEnabledFor(logging.INFO) else []),
            *([self._on_event] if self._on_event is not None else []),
            *([partial(_trace, config)] if _is_traced(config) else []),
        ]
        if not reports:
            return
        verdict, denial = result.verdict, result.denial
        cause = denial or (denial_of_verdict(verdict) if verdict is not None else None)
        event = PolicyEvent(
            stage=stage,
            outcome=outcome,
            tool=call["name"],
            call_id=call["id"] or "",
            thread_id=thread_id_of(config),
            verdict=verdict.final_verdict if verdict else "",
            certain=verdict.certain if verdict else True,
            kind=denial.kind if denial else "",
            rule=(cause and cause.rule) or "",
            reason=(cause and cause.reason) or "",
            policy=(cause and cause.policy) or "",
            labels=labels.to_wire(),
            session=result.session.to_wire(),
            arguments=dict(call["args"]) if self._log_arguments else None,
        )
        for report in reports:
            try:
                report(event)
            except Exception as error:  # noqa: BLE001 - no error of a handler may change the check
                _LOG.error(_FAILED, type(error).__name__)


def thread_id_of(config: Mapping[str, Any]) -> str:
    """`configurable.thread_id` of a configuration, or an empty text."""
    return str((config.get("configurable") or {}).get("thread_id") or "")


def _log(event: PolicyEvent) -> None:
    # JSON escapes everything but ASCII, and `plain` the remaining control characters.
    text = plain(json.dumps(event.to_json(), default=repr), limit=_MAX_EVENT_TEXT)
    _AUDIT_LOG.info("%s", text, extra={"policy_event": event})


def _is_traced(config: Mapping[str, Any]) -> bool:
    callbacks = config.get("callbacks")
    return bool(getattr(callbacks, "handlers", callbacks))  # a manager is expensive to make


def _trace(config: Mapping[str, Any], event: PolicyEvent) -> None:
    manager = get_callback_manager_for_config(cast("Any", config))
    with suppress(RuntimeError):
        asyncio.get_running_loop()  # raises an error if there is none
        # This code blocks the loop, so asynchronous handlers would never finish.
        manager.handlers = [
            handler for handler in manager.handlers if not isinstance(handler, AsyncCallbackHandler)
        ]
    check = PolicyCheck(
        event.tool, event.outcome, event.verdict, event.rule, event.reason,
        event.labels, event.session,
    )  # fmt: skip
    trace_checks(manager, [check])
