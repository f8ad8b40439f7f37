"""Checks of a policy as runs of their own in a trace: LangSmith's, OpenTelemetry's, any handler's.

LangChain's tracers make a span of each run, and attributes of its metadata. So each check is a run
below the model or the agent that made the call: `sequrity.policy`, with the tool, the verdict, the
rule and the labels as metadata. A denial ends as an error. Values of arguments are in none of them.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
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
from langchain_sequrity.wire.dual_llm import dual_llm_result
from langchain_sequrity.wire.exchange import METADATA_KEY

NAME = "sequrity.policy"
_LOG = logging.getLogger("langchain_sequrity")
_FAILED = "Adding a check to a trace raised %s; the check stands."
M = TypeVar("M", CallbackManager, AsyncCallbackManager)
_LONGEST = 2_000


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a call.

    Attributes:
        tool: The tool.
        outcome: `allowed`, `denied`, or what a human said.
        verdict: The policy's word, as `soft_denied`; empty where it is not known.
        rule: The rule that decided.
        reason: The reason in words, of a denial.
        labels: The labels of each argument by its name, or those of all.
        session: The session's labels, where they are known.
    """

    tool: str
    outcome: str
    verdict: str = ""
    rule: str = ""
    reason: str = ""
    labels: Mapping[str, Any] = field(default_factory=dict)
    session: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, str]:
        """What a trace has of it: short texts, as attributes of spans have to be."""
        facts = {
            "tool": self.tool, "outcome": self.outcome, "verdict": self.verdict,
            "rule": self.rule, "reason": self.reason,
            "labels": dumps(self.labels) if self.labels else "",
            "session_labels": dumps(self.session) if self.session else "",
        }  # fmt: skip
        return {f"sequrity_{name}": text[:_LONGEST] for name, text in facts.items() if text}


def read_checks(history: Iterable[Any]) -> list[Check]:
    """Read the checks of a turn as the service tells them; what cannot be read is left out.

    Args:
        history: `policy_check_history` (`docs/protocol.md`, Dual-LLM content).
    """
    return [_read(one) for one in history if isinstance(one, Mapping)]


def _read(one: Mapping[str, Any]) -> Check:
    verdict = str(one.get("verdict") or "")
    is_denied = verdict.endswith("denied")
    decided = one.get("denied" if is_denied else "allowed")
    first = decided[0] if isinstance(decided, Sequence) and decided else {}
    rule = str(first.get("rule") or "") if isinstance(first, Mapping) else ""
    labels = one.get("arguments")
    outcome = "denied" if is_denied else "allowed"
    known = labels if isinstance(labels, Mapping) else {}
    known = {str(name): _labels_alone(one) for name, one in known.items()}
    return Check(str(one.get("tool") or ""), outcome, verdict, rule, labels=known)


def _labels_alone(one: Any) -> dict[str, list[str]]:
    """The labels of an argument, and nothing else that a service may tell of it."""
    found = one if isinstance(one, Mapping) else {}
    return {
        kind: [str(name) for name in names]
        for kind in KINDS
        if isinstance(names := found.get(kind), list)
    }


def checks_of(found: BaseMessage | PolicyDenied) -> list[Check]:
    """The checks behind what a model answers or raises, as far as they are reported."""
    if isinstance(found, PolicyDenied):
        checks = read_checks(found.checks)
        if any(one.outcome == "denied" for one in checks):
            return checks
        denial = found.denial
        told = Check(
            denial.tool or "", "denied", rule=denial.rule or "", reason=denial.reason or "",
            labels=denial.labels or {},
        )  # fmt: skip
        return [*checks, told]
    result = dual_llm_result(found) if isinstance(found, AIMessage) else None
    return [] if result is None else read_checks(result.policy_check_history)


def trace_turn(run: BaseRunManager | None, found: BaseMessage | PolicyDenied) -> None:
    """Add the checks of a turn to a trace.

    Args:
        run: The run of the model. LangChain hands none to streams: their checks stand below the run
            around the model, such as the node of an agent.
        found: What the model answers or raises.
    """
    try:
        if _may_tell(run, found) and (manager := _manager(run, CallbackManager)):
            trace(manager, checks_of(found))
    except Exception as error:  # noqa: BLE001 - whatever a handler raises, the verdict stands
        _LOG.error(_FAILED, type(error).__name__)


async def atrace_turn(run: BaseRunManager | None, found: BaseMessage | PolicyDenied) -> None:
    """Add the checks of a turn to a trace; see `trace_turn`."""
    try:
        if _may_tell(run, found) and (manager := _manager(run, AsyncCallbackManager)):
            await atrace(manager, checks_of(found))
    except Exception as error:  # noqa: BLE001 - as above
        _LOG.error(_FAILED, type(error).__name__)


def _may_tell(run: BaseRunManager | None, found: BaseMessage | PolicyDenied) -> bool:
    if run is not None and not run.handlers:
        return False
    return isinstance(found, PolicyDenied) or METADATA_KEY in found.response_metadata


def _manager(run: BaseRunManager | None, kind: type[M]) -> M | None:
    """A callback manager whose runs stand below the run; `None` where nobody listens."""
    if run is None:
        config = ensure_config()
        manager = kind.configure(config.get("callbacks"), inheritable_metadata=config["metadata"])
        return manager if manager.handlers else None
    return kind(
        handlers=run.handlers,
        inheritable_handlers=run.inheritable_handlers,
        parent_run_id=run.run_id,
        tags=run.inheritable_tags,
        inheritable_tags=run.inheritable_tags,
        metadata=run.inheritable_metadata,
        inheritable_metadata=run.inheritable_metadata,
    )


def trace(manager: CallbackManager, checks: Iterable[Check]) -> None:
    """Add checks to a trace, below the run of a callback manager."""
    metadata = manager.metadata
    for check in checks:
        manager.metadata = {**metadata, **check.metadata}
        _ended(manager.on_chain_start(None, {"tool": check.tool}, name=NAME), check)


async def atrace(manager: AsyncCallbackManager, checks: Iterable[Check]) -> None:
    """Add checks to a trace; see `trace`."""
    metadata = manager.metadata
    for check in checks:
        manager.metadata = {**metadata, **check.metadata}
        run = await manager.on_chain_start(None, {"tool": check.tool}, name=NAME)
        await _ended(run, check)


def _ended(run: Any, check: Check) -> Any:
    """The end of a run; of an asynchronous one, what is to be awaited."""
    if check.outcome == "denied":
        return run.on_chain_error(_error(check))
    return run.on_chain_end({"outcome": check.outcome})


def _error(check: Check) -> PolicyDenied:
    return PolicyDenied(denial=Denial(check.tool, rule=check.rule, reason=check.reason))
