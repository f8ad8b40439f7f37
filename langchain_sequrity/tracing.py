"""Policy checks as runs in a trace, for LangSmith, OpenTelemetry or any callback handler.

LangChain's tracers convert each run to a span, and its metadata to attributes. So each check is a
run `sequrity.policy` below the model or agent that made the call, with tool, verdict, rule and
labels as metadata. A denial ends the run with an error. Runs contain no values of arguments.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables.config import ensure_config

from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.labels import KINDS
from langchain_sequrity.strict_json import dumps
from langchain_sequrity.wire.denials import reasons_in
from langchain_sequrity.wire.dual_llm import dual_llm_result
from langchain_sequrity.wire.exchange import METADATA_KEY

NAME = "sequrity.policy"
_LOG = logging.getLogger("langchain_sequrity")
_FAILED = "Adding a check to a trace raised %s. The result of the check is unchanged."
M = TypeVar("M", CallbackManager, AsyncCallbackManager)
_MAX_TEXT = 2_000


@dataclass(frozen=True, slots=True)
class PolicyCheck:
    """One check of a call.

    Attributes:
        tool: The tool.
        outcome: `allowed`, `denied`, or the decision of a human.
        verdict: The policy's verdict, such as `soft_denied`; empty if it is unknown.
        rule: The rule that decided.
        reason: The reason of a denial in words.
        labels: The labels of each argument by its name, or those of all arguments; `None` if they
            are not reported.
        session: The session's labels, if they are known.
    """

    tool: str
    outcome: str
    verdict: str = ""
    rule: str = ""
    reason: str = ""
    labels: Mapping[str, Any] | None = None
    session: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata for a trace: short texts, as attributes of spans require."""
        facts = {
            "tool": self.tool, "outcome": self.outcome, "verdict": self.verdict,
            "rule": self.rule, "reason": self.reason,
            "labels": dumps(self.labels) if self.labels else "",
            "session_labels": dumps(self.session) if self.session else "",
        }  # fmt: skip
        return {f"sequrity_{name}": text[:_MAX_TEXT] for name, text in facts.items() if text}


def read_checks(history: Iterable[Any]) -> list[PolicyCheck]:
    """Read the checks of a turn from the service. Unreadable entries are left out.

    Args:
        history: `policy_check_history` (`docs/protocol.md`, Dual-LLM content).
    """
    return [_read(entry) for entry in history if isinstance(entry, Mapping)]


def _read(entry: Mapping[str, Any]) -> PolicyCheck:
    verdict = str(entry.get("verdict") or "")
    outcome = "denied" if verdict.endswith("denied") else "allowed"
    reasons = reasons_in(entry, outcome)
    if (decision := entry.get("decision")) in ("approved", "rejected"):
        outcome = decision
    rule = str(reasons[0].get("rule") or "") if reasons else ""
    reported = entry.get("arguments")
    labels = None
    if isinstance(reported, Mapping):
        labels = {str(name): _only_labels(argument) for name, argument in reported.items()}
    return PolicyCheck(str(entry.get("tool") or ""), outcome, verdict, rule, labels=labels)


def _only_labels(argument: Any) -> dict[str, list[str]]:
    """Only the labels of an argument, without other facts about it."""
    facts = argument if isinstance(argument, Mapping) else {}
    return {
        key: [str(name) for name in names]
        for key in KINDS
        if isinstance(names := facts.get(key), list)
    }


def checks_of(reply: BaseMessage | PolicyDenied) -> list[PolicyCheck]:
    """The reported checks behind an answer or an error of a model."""
    if isinstance(reply, PolicyDenied):
        checks = read_checks(reply.checks)
        if any(check.outcome == "denied" for check in checks):
            return checks
        denial = reply.denial
        check = PolicyCheck(
            denial.tool or "", "denied", rule=denial.rule or "", reason=denial.reason or "",
            labels=denial.labels,
        )  # fmt: skip
        return [*checks, check]
    result = dual_llm_result(reply) if isinstance(reply, AIMessage) else None
    return [] if result is None else read_checks(result.policy_check_history)


def trace_turn(run: BaseRunManager | None, reply: BaseMessage | PolicyDenied) -> None:
    """Add the checks of a turn to a trace.

    Args:
        run: The run of the model. LangChain passes no run to streams: their checks are placed below
            the run around the model, such as the node of an agent.
        reply: The answer or the error of the model.
    """
    try:
        if _is_traced(run, reply) and (manager := _manager(run, CallbackManager)):
            trace_checks(manager, checks_of(reply))
    except Exception as error:  # noqa: BLE001 - no error of a handler may change the verdict
        _LOG.error(_FAILED, type(error).__name__)


async def atrace_turn(run: BaseRunManager | None, reply: BaseMessage | PolicyDenied) -> None:
    """Add the checks of a turn to a trace; see `trace_turn`."""
    try:
        if _is_traced(run, reply) and (manager := _manager(run, AsyncCallbackManager)):
            await atrace_checks(manager, checks_of(reply))
    except Exception as error:  # noqa: BLE001 - as above
        _LOG.error(_FAILED, type(error).__name__)


def _is_traced(run: BaseRunManager | None, reply: BaseMessage | PolicyDenied) -> bool:
    if run is not None and not run.handlers:
        return False
    return isinstance(reply, PolicyDenied) or METADATA_KEY in reply.response_metadata


def _manager(run: BaseRunManager | None, cls: type[M]) -> M | None:
    """A callback manager for runs below the run; `None` without handlers."""
    if run is None:
        config = ensure_config()
        manager = cls.configure(config.get("callbacks"), inheritable_metadata=config["metadata"])
        return manager if manager.handlers else None
    return cls(
        handlers=run.handlers,
        inheritable_handlers=run.inheritable_handlers,
        parent_run_id=run.run_id,
        tags=run.inheritable_tags,
        inheritable_tags=run.inheritable_tags,
        metadata=run.inheritable_metadata,
        inheritable_metadata=run.inheritable_metadata,
    )


def trace_checks(manager: CallbackManager, checks: Iterable[PolicyCheck]) -> None:
    """Add checks to a trace, below the run of a callback manager."""
    metadata = manager.metadata
    for check in checks:
        manager.metadata = {**metadata, **check.metadata}
        _end_run(manager.on_chain_start(None, {"tool": check.tool}, name=NAME), check)


async def atrace_checks(manager: AsyncCallbackManager, checks: Iterable[PolicyCheck]) -> None:
    """Add checks to a trace; see `trace_checks`."""
    metadata = manager.metadata
    for check in checks:
        manager.metadata = {**metadata, **check.metadata}
        run = await manager.on_chain_start(None, {"tool": check.tool}, name=NAME)
        await _end_run(run, check)


def _end_run(run: Any, check: PolicyCheck) -> Any:
    """End a run. For an asynchronous run, the result must be awaited."""
    if check.outcome == "denied":
        denial = Denial(check.tool, rule=check.rule, reason=check.reason)
        return run.on_chain_error(PolicyDenied(denial=denial))
    return run.on_chain_end({"outcome": check.outcome})
