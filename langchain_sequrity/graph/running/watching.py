"""Tells what happens in a run to those who listen; it costs next to nothing where nobody does.

Who listens:

- the stream mode `custom`: `{"type": "sequrity", "event": …, "node": …, "tool": …, …}`
- callback handlers that take custom events, where they are named "sequrity": the same and more
- tracers: the runs that they keep get session, tool and outcome as metadata

`tool_call` and then `allowed` or `denied` tell of each call, `approved` or `rejected` of what a
human said to it, `finished` or `failed` of the end. They come from the shell's own nodes, whose
work is in the checkpoint when it is done: none comes again when a run is resumed. Callback handlers
also hear `ran` of each node, as often as it runs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from langchain_core.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    BaseCallbackManager,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer
from langgraph.errors import GraphBubbleUp
from langgraph.types import StreamWriter

from langchain_sequrity.errors import PolicyDenied, TurnFailed
from langchain_sequrity.graph import _langgraph
from langchain_sequrity.graph.keeping.entries import Asked
from langchain_sequrity.graph.keeping.journal import Offered
from langchain_sequrity.graph.own import OWN_NODES, RUN_KEY
from langchain_sequrity.graph.program import ToolSpec
from langchain_sequrity.graph.running.checks import NOT_REPORTED, Check, assigned, read_checks
from langchain_sequrity.graph.running.exchange import Answer, Asking, Ended

NAME = "sequrity"
"""`type` of the events in streams, and their name for callback handlers."""

Event = dict[str, Any]


def new_run(graph: str) -> dict[str, str]:
    """What tells a run from others.

    Args:
        graph: Name of the graph.
    """
    return {"id": uuid4().hex, "graph": graph}


@dataclass(frozen=True, slots=True)
class Decided:
    """A human was asked about a denied call.

    Attributes:
        denial: The call, and why it was denied.
        is_approved: Whether it may be made.
    """

    denial: Offered
    is_approved: bool

    @property
    def check(self) -> Check:
        """What the policy said of the call; the human was shown the same."""
        denial = self.denial.denial
        return Check(
            self.denial.tool,
            "denied",
            is_certain=denial.certain,
            rule=denial.rule or NOT_REPORTED,
            reason=denial.reason or NOT_REPORTED,
            labels=self.denial.labels,
            values=self.denial.arguments,
        )


Heard = Answer | Decided | Exception
_SILENT = (BaseCallbackHandler.on_custom_event, AsyncCallbackHandler.on_custom_event)


class _Watch:
    """What both kinds of watch share: who listens, and the two ways to tell them."""

    def __init__(self, config: RunnableConfig | None) -> None:
        self._config = config or {}
        manager = self._config.get("callbacks")
        found = manager.handlers if isinstance(manager, BaseCallbackManager) else []
        self._handlers: list[BaseCallbackHandler] = found
        self._listeners = [one for one in found if type(one).on_custom_event not in _SILENT]
        self._started = perf_counter()

    def __enter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for event in self._heard_of(error):
            dispatch_custom_event(NAME, {**event, "mode": "sync"}, config=self._config)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for event in self._heard_of(error):
            await adispatch_custom_event(NAME, {**event, "mode": "async"}, config=self._config)

    def _heard_of(self, error: BaseException | None) -> list[Event]:
        """What there is to hear; of a run that is cancelled nothing, so that it stops at once."""
        return self._told(error) if error is None or isinstance(error, Exception) else []

    def _told(self, error: Exception | None) -> list[Event]:
        """What callback handlers hear when the work is done or has failed."""
        raise NotImplementedError

    @property
    def _run(self) -> Any:
        return self._config.get("configurable", {}).get(RUN_KEY)


class CallWatch(_Watch):
    """Watches a node or a router at work.

    Args:
        call: What it answers.
        config: The node's.
    """

    def __init__(self, call: Mapping[str, Any], config: RunnableConfig | None) -> None:
        super().__init__(config)
        self._call = call

    def _told(self, error: Exception | None) -> list[Event]:
        if not self._listeners:
            return []
        event: Event = {
            "type": NAME,
            "event": "ran",
            "run": self._run,
            "call": self._call["id"],
            "tool": self._call["tool"],
            "seconds": perf_counter() - self._started,
            "error": _kind(error),
        }
        return [event]


class RequestWatch(_Watch):
    """Watches the shell at its requests, from the results at hand to the next call.

    Args:
        tools: The program's tools.
        calls: Gives the calls so far, in order.
        session_id: The session so far.
        config: The shell node's.
        writer: Writes to the stream `custom`.
    """

    def __init__(
        self,
        tools: Mapping[str, ToolSpec],
        calls: Callable[[], Sequence[Asked]],
        session_id: str | None,
        config: RunnableConfig,
        writer: StreamWriter,
    ) -> None:
        super().__init__(config)
        self._tools = tools
        self._calls = calls
        self._session = session_id
        self._writer = writer
        self._heard: Heard | None = None
        self._seconds = 0.0

    def heard(self, outcome: Heard) -> None:
        """Take note of a reply, or of what there is instead; the last one counts."""
        self._heard = outcome
        self._seconds = perf_counter() - self._started
        self._session = getattr(outcome, "session_id", None) or self._session

    def _told(self, error: Exception | None) -> list[Event]:
        if not self._handlers and not _langgraph.is_heard(self._writer):
            return []
        is_pause = isinstance(error, GraphBubbleUp) or isinstance(self._heard, Decided)
        failed = None if is_pause else error
        events = [
            {"type": NAME, **event, "session_id": self._session}
            for event in self._events(failed or self._heard)
        ]
        with set_config_context(self._config) as context:  # the writer looks for it there
            for event in events:
                context.run(self._writer, event)
        if self._handlers and events:
            note(_facts(events[-1]), self._config)
        return self._detailed(events) if self._listeners else []

    def _events(self, outcome: Heard | None) -> Iterator[Event]:
        match outcome:
            case Asking(calls=calls):
                for call in calls:
                    yield {"event": "tool_call", **self._place(call.tool)}
                    yield {"event": "allowed", **self._place(call.tool)}
            case PolicyDenied(tool=tool, rule=rule, reason=reason):
                if tool != NOT_REPORTED:
                    yield {"event": "tool_call", **self._place(tool)}
                yield {"event": "denied", **self._place(tool), "rule": rule, "reason": reason}
            case Decided(denial=denial, is_approved=is_approved):
                event = "approved" if is_approved else "rejected"
                yield {"event": event, **self._place(denial.tool)}
            case Ended():
                yield {"event": "finished"}
            case Exception():
                yield {"event": "failed", "error": type(outcome).__name__}

    def _place(self, tool: str) -> Event:
        found = self._tools.get(tool)
        role, node = (found.role, found.node) if found else (None, None)
        return {"tool": tool, "node": node, "role": role}

    def _detailed(self, events: Sequence[Event]) -> list[Event]:
        """The events with what only callback handlers are told."""
        wants_values = any(getattr(one, "wants_values", False) for one in self._listeners)
        calls = [*self._calls(), *(self._heard.calls if isinstance(self._heard, Asking) else ())]
        index = len(calls) - sum(event["event"] == "allowed" for event in events)
        detailed = []
        for event in events:
            more: Event = {"run": self._run, "seconds": self._seconds}
            if isinstance(self._heard, Decided):
                check = _plain(self._heard.check, wants_values)
                more |= {"call": self._heard.denial.call.id, "check": check}
            elif event["event"] == "allowed":
                more |= {"call": calls[index].id, "index": index}
                more |= {"arguments": calls[index].arguments} if wants_values else {}
                index += 1
            elif event["event"] != "tool_call":
                more |= self._checked(calls, wants_values=wants_values)
            detailed.append({**event, **more})
        return detailed

    def _checked(self, calls: Sequence[Asked], *, wants_values: bool) -> Event:
        """All calls with what the service says of their checks, and the checks of others."""
        found, others = assigned([call.tool for call in calls], read_checks(_history(self._heard)))
        return {
            "calls": [
                {"call": call.id, **self._place(call.tool), "check": _plain(check, wants_values)}
                for call, check in zip(calls, found, strict=True)
            ],
            "other_checks": [
                {**self._place(check.tool), "check": _plain(check, wants_values)}
                for check in others
            ],
        }


def _history(outcome: Heard | None) -> Sequence[Any]:
    result = getattr(outcome, "result", None) if isinstance(outcome, Ended | TurnFailed) else None
    return () if result is None else result.policy_check_history


def _plain(check: Check | None, wants_values: bool) -> Event | None:  # noqa: FBT001 - private
    if check is None:
        return None
    return asdict(check if wants_values else replace(check, values={}))


def call_facts(call: Mapping[str, Any]) -> Event:
    """What a tracer keeps of a node's run."""
    return {"sequrity_tool": call["tool"], "sequrity_verdict": "allowed"}


def _facts(event: Event) -> Event:
    """What a tracer keeps of the executor's run."""
    facts = {"session_id": event["session_id"]}
    if event["event"] in {"finished", "denied", "failed"}:
        facts["outcome"] = event["event"]
    facts |= {key: event[key] for key in ("tool", "rule", "reason") if event["event"] == "denied"}
    return {f"sequrity_{key}": value for key, value in facts.items()}


def note(facts: Mapping[str, Any], config: RunnableConfig) -> None:
    """Add to the metadata of the run that tracers keep of what is at work.

    Args:
        facts: What to add.
        config: That of a node; the shell's own nodes stand for the executor.
    """
    manager = config.get("callbacks")
    if not isinstance(manager, BaseCallbackManager):
        return
    for handler in manager.handlers:
        if isinstance(handler, BaseTracer | AsyncBaseTracer):
            run = handler.run_map.get(str(manager.parent_run_id))
            while run is not None and run.name in OWN_NODES:
                run = handler.run_map.get(str(run.parent_run_id))
            if run is not None:
                run.extra.setdefault("metadata", {}).update(facts)


def _kind(error: Exception | None) -> str | None:
    return None if error is None else type(error).__name__
