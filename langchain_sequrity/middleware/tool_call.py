"""One tool call: the check before it runs, and the labels of its result.

The decision that was made on the model's message holds for exactly the call that was checked then.
A call that has changed since (other middleware or a human edited it, or its tool changes the
arguments) is checked here. It runs beside other calls of its message, so the session may only
change here if the call is alone.

Results also include those in a conversation that the caller passes in, and messages with which
other middleware replaces a result, for example after a tool raised.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, get_type_hints

from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.messages import AIMessage, AnyMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command, Overwrite, Send

from langchain_sequrity import _compat
from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import UsageError
from langchain_sequrity.human_review import DecisionType
from langchain_sequrity.interrupts import ask, is_late
from langchain_sequrity.labels import NO_LABELS, Labels, labels_given, read_artifact
from langchain_sequrity.middleware.arguments import BoundArguments, canonical_json, with_check
from langchain_sequrity.middleware.audit import Audit, EventOutcome, Stage, thread_id_of
from langchain_sequrity.middleware.denials import (
    denial_message,
    denial_of,
    denial_text,
    hard_denial,
)
from langchain_sequrity.middleware.live_session import LiveSession, Origin
from langchain_sequrity.middleware.sessions import SessionLaw, origin_of, stored_session
from langchain_sequrity.middleware.state import (
    DECISIONS,
    FIELD,
    FIELDS,
    CheckedCall,
    CheckedMessage,
    PendingDenial,
    ThreadState,
    is_field_of,
    merge_updates,
    read_thread,
    thread_update,
)
from langchain_sequrity.middleware.subagents import agents_around, outer_call
from langchain_sequrity.middleware.verdict import AgentPolicy, CheckResult
from langchain_sequrity.session_memory import graph_run
from langchain_sequrity.sqrt.gate import ToolReturn
from langchain_sequrity.strict_json import loads
from langchain_sequrity.wire.tool_results import refuse_lost_labels

ToolReply = ToolMessage | Command[Any]
"""What a tool call returns. A tool may also return a list of these."""


class ArgumentsDenied(GraphBubbleUp):
    """Stops a tool whose function would get arguments that the policy denies."""


@dataclass(slots=True)
class AllowedCall:
    """A call that may run.

    Attributes:
        request: The request to run. Its tool checks what its function gets.
        thread: The state of the thread.
        fields: The fields of the state that hold the thread.
        origin: The message with the call, and the step in which it runs.
        session: The session.
        change: The session's labels after a check that was made when the call ran.
        denial: Why the function must not get its arguments, if it was not called.
        bound: The arguments that the function got, if they differ from those of the model.
    """

    request: ToolCallRequest
    thread: ThreadState
    fields: Mapping[str, Any]
    origin: Origin
    session: LiveSession
    change: "SessionChange"
    denial: Denial | None = None
    bound: Mapping[str, Any] | None = None

    @property
    def args(self) -> Mapping[str, Any]:
        """The arguments that the function got."""
        args: Mapping[str, Any] = self.request.tool_call["args"]
        return args if self.bound is None else self.bound

    @property
    def call_id(self) -> str:
        """The id of the call."""
        return self.request.tool_call["id"] or ""


@dataclass(frozen=True, slots=True)
class SessionChange:
    """A change of the session's labels that is not made yet.

    LangGraph runs a task from its start when a human has answered, so a change is made when the
    call has ended.

    Attributes:
        by: The call's message and step.
        since: The revision of the session from which it was made.
        labels: The new labels; `None` without a change.
    """

    by: Origin
    since: int
    labels: Labels | None = None

    def make(self, session: LiveSession) -> None:
        """Make the change."""
        if self.labels is not None:
            session.set_labels(self.labels, self.by, since=self.since)


class ResultLabels:
    """The newest labels of results, because the state may not have them.

    Other middleware may replace the result of a call, and drop the update of the state in it. The
    state gets them with the next answer of the model.
    """

    def __init__(self) -> None:
        self._labels: OrderedDict[tuple[object, str, str], Labels] = OrderedDict()

    def add(self, call: AllowedCall, labels: Labels | None) -> None:
        """Keep the labels of a result, or of what a call had read before it raised."""
        if labels is None or labels == NO_LABELS:
            return
        while len(self._labels) >= _MAX_RESULTS:
            self._labels.popitem(last=False)
        conversation = _conversation(call.request.runtime.config)
        self._labels[conversation, call.origin.message, call.call_id] = labels

    def for_messages(self, messages: Iterable[AnyMessage], config: Mapping[str, Any]) -> Labels:
        """Join the labels of the results of some messages.

        Args:
            messages: The messages of the model, among others.
            config: The run's configuration.
        """
        joined = NO_LABELS
        if not self._labels:
            return joined
        conversation = _conversation(config)
        for message in messages:
            for call in message.tool_calls if isinstance(message, AIMessage) else ():
                labels = self._labels.get((conversation, message.id or "", call["id"] or ""))
                joined = joined if labels is None else joined.join(labels)
        return joined


_MAX_RESULTS = 10_000


def _conversation(config: Mapping[str, Any]) -> object:
    """The thread, or the run if it has none: some models give the same ids in each run."""
    return thread_id_of(config) or graph_run(config["configurable"]).control


@dataclass(frozen=True, slots=True)
class Enforcer:
    """The policy, with the options that say what happens around a call.

    Attributes:
        policy: The policy.
        law: When a session is lost.
        audit: Reports each check.
        asks: Whether a human is asked about soft denials.
        raises: Whether denials are raised.
        result_labels: The newest labels of results.
    """

    policy: AgentPolicy
    law: SessionLaw
    audit: Audit
    asks: bool
    raises: bool
    result_labels: ResultLabels = field(default_factory=ResultLabels)

    def may_run(self, denial: Denial | None) -> bool:
        """Whether a call may run: at once, or if a human approves it."""
        return denial is None or (self.asks and denial.may_be_approved)

    async def continued_session(
        self,
        thread: ThreadState,
        messages: Sequence[AnyMessage],
        config: Mapping[str, Any],
        *,
        is_async: bool,
    ) -> LiveSession:
        """The session that a run continues or begins, with all that the checkpointer knows.

        Args:
            thread: The state of the thread.
            messages: The conversation before the run.
            config: The run's configuration.
            is_async: Whether the run is in an event loop.

        Raises:
            SessionLost: If the conversation has earlier turns whose state is lost.
        """
        if not self.law.uses_session:
            return self.law.session_of(thread, messages, config)
        stored = await stored_session(config, is_async=is_async)
        session = self.law.session_of(thread, messages, config, stored)
        if session.is_from_elsewhere:
            self._foresee(messages, thread, session, config)
        return session

    def _foresee(
        self,
        messages: Sequence[AnyMessage],
        thread: ThreadState,
        session: LiveSession,
        config: Mapping[str, Any],
    ) -> None:
        """Give a session the labels that calls may have given it whose process has ended."""
        _, last, answered = last_message(messages)
        checked = thread.checked.calls if last and thread.checked.message == last.id else {}
        with session.lock:
            session.is_from_elsewhere = False
            labels = session.labels
            for call in last.tool_calls if last else ():
                decision = checked.get(call["id"] or "")
                is_stored = call["id"] in answered and (
                    call["id"] in thread.labelled
                    or not self.policy.engine.ends_in_session(call["name"])
                )
                if not is_stored and (decision is None or decision.denial is None):
                    labels = self.policy.foreseen(
                        call["name"], call["args"], thread.seen, labels,
                        is_checked=decision is not None,
                    )  # fmt: skip
            session.set_labels(labels, origin_of(thread.agent, (last and last.id) or "", config))

    def denied(
        self, pending: PendingDenial, thread: ThreadState, session: LiveSession
    ) -> ToolReply:
        """The reply to the model for a call that is denied when it runs.

        Args:
            pending: The denial and its call.
            thread: The state of the thread.
            session: The session.
        """
        denial = pending.denial
        is_raised = self.raises and denial.kind != "waits" and thread.pending is None
        message = denial_message(denial, pending.call_id)
        change = thread_update(
            thread,
            session=session.record(),
            pending=pending if is_raised else None,
            result_of=pending.call_id,
            is_marked=self.policy.engine.ends_in_session(denial.tool or ""),
        )
        reply: ToolReply = _with_update(message, change)
        return reply


# Before the call


async def check_call(
    enforcer: Enforcer, request: ToolCallRequest, *, is_async: bool
) -> AllowedCall | ToolReply:
    """Allow a call, or return the reply that replaces its result.

    Args:
        enforcer: The policy and its options.
        request: The call that is about to run.
        is_async: Whether the run is in an event loop.

    Returns:
        The call that may run, or the reply for the model.

    Raises:
        UsageError: If the policy does not fit the agent's tools, the call has no id, or a human
            answers too late.
        SessionLost: If the conversation has earlier turns whose state is lost.
    """
    config = request.runtime.config
    if not request.tool_call["id"]:
        msg = "A tool call has no id, so its result could not be matched to it."
        raise UsageError(msg)
    enforcer.policy.check_agent(getattr(request.runtime, "tools", None))
    enforcer.policy.learn_defaults([request.tool])
    late = enforcer.asks and await is_late(config, is_async=is_async)
    state = _compat.state_of_task(config, "messages", *FIELDS)
    messages: Sequence[AnyMessage] = state.get("messages") or []
    thread = read_thread(state)
    index, last, answered = last_message(messages)
    before = messages[:index]
    if last is not None and last.id and last.id == thread.checked.message:
        session = enforcer.law.session_of(thread, before, config)
    else:  # the hooks that come before each call have not run: another middleware has jumped
        session = await enforcer.continued_session(thread, before, config, is_async=is_async)
        seen = labels_seen(enforcer.policy, before, thread)
        seen = seen.join(enforcer.result_labels.for_messages(before, config))
        thread = replace(thread, seen=seen, checked=CheckedMessage())
    pending = PendingCalls(thread, state, session, last, answered)
    return _CallCheck(enforcer, request, pending, is_late=late).run()


@dataclass(frozen=True, slots=True)
class PendingCalls:
    """The newest message of the model.

    Attributes:
        thread: The state of the thread.
        fields: The fields of the state that hold the thread.
        session: The session.
        message: The message.
        answered: The ids of its calls that have a result.
    """

    thread: ThreadState
    fields: Mapping[str, Any]
    session: LiveSession
    message: AIMessage | None
    answered: AbstractSet[str]


_ALLOWED: tuple[DecisionType, ...] = ("approve", "edit", "reject", "respond")
_APPROVED = "_sequrity_approved"
"""Attribute with approved calls on the `ToolRuntime`, which is new for each run of a task."""


class _CallCheck:
    """The check of one call before it runs."""

    def __init__(
        self, enforcer: Enforcer, request: ToolCallRequest, pending: PendingCalls, *, is_late: bool
    ) -> None:
        self._enforcer = enforcer
        self._policy = enforcer.policy
        self._request = request
        self._is_late = is_late
        self._call_id = request.tool_call["id"] or ""
        self._thread, self._fields, self._session = pending.thread, pending.fields, pending.session
        self._answered = pending.answered
        self._message = (pending.message and pending.message.id) or ""
        self._origin = origin_of(self._thread.agent, self._message, request.runtime.config)
        with self._session.lock:
            self._labels = self._session.labels
            self._change = SessionChange(self._origin, self._session.revision)
        self._checked = self._thread.checked
        calls = [] if pending.message is None else pending.message.tool_calls
        self._pending_ids = [call["id"] for call in calls if call["id"] not in pending.answered]
        self._is_alone = len(self._pending_ids) == 1

    def run(self) -> AllowedCall | ToolReply:
        """The call if it may run, otherwise the reply."""
        call = self._request.tool_call
        if (reason := self._reason_not_to_run()) is not None:
            return self._denied(hard_denial(call["name"], "failed", reason))
        checked = self._checked.calls.get(self._call_id)
        digest = self._policy.digest(self._message, dict(call), self._thread.seen)
        if checked is None or checked.digest != digest or self._is_decided_again(checked):
            return self._check_changed(checked)
        if checked.denial is None:
            return self._allow(self._request, self._checked.base)
        if self._enforcer.asks and checked.denial.may_be_approved:
            return self._ask_once(digest, checked.denial)
        return self._denied(checked.denial)

    def _reason_not_to_run(self) -> str | None:
        if self._call_id in self._answered:
            return "it has a result already"
        if self._call_id not in self._pending_ids:
            return "the newest message of the model has no such call"
        tool = self._request.tool
        if tool is not None and tool.name != self._request.tool_call["name"]:
            return "the tool that would run has another name"
        return None

    def _is_decided_again(self, checked: CheckedCall) -> bool:
        if checked.denial is not None or not self._enforcer.law.uses_session:
            return False
        revision = self._thread.session.revision
        return self._session.is_decided_again(self._call_id, self._origin, revision)

    # A call that differs from the one that was checked

    def _check_changed(self, checked: CheckedCall | None) -> AllowedCall | ToolReply:
        call, base = self._request.tool_call, self._labels
        denial = checked.denial if checked is not None else None
        is_waiting = denial is not None and denial.kind == "waits"
        if is_waiting or (checked is None and self._checked.closed):
            return self._denied(_waiting_denial(call["name"]))
        denial = self._decide(call, base)
        return self._allow(self._request, base) if denial is None else self._denied(denial)

    def _allow(
        self, request: ToolCallRequest, base: Labels, *, approved: bool = False
    ) -> AllowedCall | ToolReply:
        """Allow a call. When it runs, the policy must also allow what its tool's function gets.

        Args:
            request: The call.
            base: The session before the call was checked.
            approved: Whether a human approved a soft denial of the call.
        """
        call, tool = request.tool_call, request.tool
        allowed = AllowedCall(
            request, self._thread, self._fields, self._origin, self._session, self._change
        )
        if tool is None:  # LangGraph tells the model that there is no such tool
            return allowed

        def check(read: Callable[[], BoundArguments]) -> None:
            denial = self._denial_of_bound(allowed, call, args, read, base)
            allowed.change = self._change
            is_approved = approved and denial is not None and denial.may_be_approved
            allowed.denial = None if is_approved else denial
            if allowed.denial is not None:
                raise ArgumentsDenied

        try:
            args = canonical_json(call["args"])  # now: a validator may change what it gets
            checked = with_check(tool, call["args"], request.runtime, check)
        except Exception as error:  # noqa: BLE001 - after any error the arguments are unknown
            return self._denied(_unreadable(call["name"], error))
        allowed.request = request.override(tool=checked)
        return allowed

    def _denial_of_bound(
        self,
        allowed: AllowedCall,
        call: ToolCall,
        args: str,
        read: Callable[[], BoundArguments],
        base: Labels,
    ) -> Denial | None:
        try:
            allowed.bound = self._policy.changed_arguments(call["name"], args, read())
        except Exception as error:  # noqa: BLE001 - as in `_allow`
            return _unreadable(call["name"], error)
        if allowed.bound is None:
            return None
        if not (self._is_alone or self._policy.reads_change(loads(args), allowed.bound)):
            return None  # a second decision would have to wait, and would be the same
        bound: ToolCall = {**call, "args": dict(allowed.bound)}
        return self._decide(bound, base if self._is_alone else self._labels)

    def _decide(self, call: ToolCall, session: Labels) -> Denial | None:
        tool = call["name"]
        if self._policy.touches_session(tool) and not (self._is_alone and self._is_only_agent()):
            result = CheckResult(session, None, _waiting_denial(tool))
        else:
            result = self._policy.decide(tool, call["args"], self._thread.seen, session)
        if result.session != self._labels:
            self._labels = result.session
            self._change = replace(self._change, labels=result.session)
        self._report("call", "denied" if result.denial else "allowed", call, result)
        return result.denial

    def _is_only_agent(self) -> bool:
        agents = agents_around(self._thread.agent)
        return not self._session.unfinished_tool(self._origin.step, agents)

    # Human review

    def _ask_once(self, digest: str, denial: Denial) -> AllowedCall | ToolReply:
        """Ask a human, unless this is a retry of a call that was approved.

        LangGraph runs a task from its start when an answer arrives. A question between two tries
        would repeat the first one, whatever the answer is.
        """
        runtime = self._request.runtime
        approved: dict[str, AllowedCall] = getattr(runtime, _APPROVED, {})
        if digest in approved:
            return approved[digest]
        reply = self._ask(denial)
        if isinstance(reply, AllowedCall):
            setattr(runtime, _APPROVED, {digest: reply})
        return reply

    def _ask(self, denial: Denial) -> AllowedCall | ToolReply:
        request, base, remark = self._request, self._checked.base, ""
        labels = self._policy.argument_labels(self._thread.seen).to_wire()
        while True:
            call = request.tool_call
            name, args = call["name"], call["args"]
            labelled = replace(denial, tool=name, labels=dict.fromkeys(args, labels))
            answer = ask(labelled, args, _ALLOWED, remark, is_late=self._is_late)
            result = CheckResult(self._labels, None, denial)
            if answer.type == "approve":
                self._report("human", "approved", call, result)
                return self._allow(request, base, approved=True)
            if answer.type == "reject":
                self._report("human", "rejected", call, result)
                return self._denied(replace(denial, kind="rejected", objection=answer.message))
            if answer.type == "respond":
                self._report("human", "answered", call, result)
                message = ToolMessage(answer.message, name=name, tool_call_id=self._call_id)
                self._change.make(self._session)
                change = thread_update(
                    self._thread,
                    session=self._session.record(),
                    result_of=self._call_id,
                    is_marked=True,
                )
                reply: ToolReply = _with_update(message, change)
                return reply
            tool = self._tool(answer.name)
            if tool is None:
                remark = "The agent has no tool of that name; the call is unchanged."
                continue
            edited: ToolCall = {**call, "name": answer.name, "args": dict(answer.args or {})}
            self._report("human", "edited", edited, result)
            request, base = request.override(tool_call=edited, tool=tool), self._labels
            again = self._decide(edited, base)
            if again is None:
                return self._allow(request, base)
            if not again.may_be_approved:
                return self._denied(again)
            denial, remark = again, "This is the edited call."

    def _tool(self, name: str) -> BaseTool | None:
        if self._request.tool is not None and self._request.tool.name == name:
            return self._request.tool
        return next((tool for tool in self._request.runtime.tools if tool.name == name), None)

    # Replies and reports

    def _denied(self, denial: Denial) -> ToolReply:
        pending = PendingDenial(self._message, self._call_id, denial)
        self._change.make(self._session)
        return self._enforcer.denied(pending, self._thread, self._session)

    def _report(
        self, stage: Stage, outcome: EventOutcome, call: ToolCall, result: CheckResult
    ) -> None:
        labels = self._policy.argument_labels(self._thread.seen)
        config = self._request.runtime.config
        self._enforcer.audit.report(stage, outcome, call, result, labels=labels, config=config)


def _unreadable(tool: str, error: Exception) -> Denial:
    # The texts of `UsageError` contain no values; other texts may.
    is_ours = isinstance(error, UsageError)
    reason = str(error) if is_ours else f"reading its arguments raised {type(error).__name__}"
    return hard_denial(tool, "failed", reason)


def _waiting_denial(tool: str) -> Denial:
    reason = "it is not the call that was checked, and the policy cannot decide on it beside others"
    return hard_denial(tool, "waits", reason)


def last_message(messages: Sequence[AnyMessage]) -> tuple[int, AIMessage | None, set[str]]:
    """The newest message of the model with its index, and the ids of calls with a result."""
    answered: set[str] = set()
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if isinstance(message, AIMessage):
            return index, message, answered
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
    return 0, None, answered


# After the call


def label_result(enforcer: Enforcer, allowed: AllowedCall, result: Any, inner: Labels) -> Any:
    """Label the result of a tool.

    Args:
        enforcer: The policy and its options.
        allowed: The call.
        result: Its result.
        inner: The labels that were given while it ran.

    Returns:
        The result, with an update of the state if there are labels.

    Raises:
        UsageError: If the tool writes the field of the state that holds the policy's data.
    """
    call, thread, session = allowed.request.tool_call, allowed.thread, allowed.session
    messages = list(_tool_messages(result, allowed))
    replies = [message for message in messages if message.tool_call_id == call["id"]]
    is_read = enforcer.policy.engine.looks_at_results(call["name"])
    value = _value_of(replies[0]) if replies and is_read else None
    try:
        returned = _tool_return(value, messages)
        labels = _labels(enforcer, allowed, returned, inner)
    except Exception as error:  # noqa: BLE001 - a result without its labels is not passed on
        return _withheld_reply(enforcer, allowed, value, error, inner)
    if outer_call() is not None and labels != Labels():
        labels_given(labels)
    enforcer.result_labels.add(allowed, labels)
    # With a mark the result is not read again (`labels_seen`), and the state has the effects of the
    # call's end (`_foresee`). Without one, the same labels would be read from it.
    engine = enforcer.policy.engine
    change = thread_update(
        thread,
        seen=labels,
        session=session.record(),
        result_of=allowed.call_id,
        is_marked=returned.labels is not None or engine.needs_result(call["name"]),
    )
    return _with_update(_for_parent(enforcer, allowed, result, change), change)


def labels_seen(policy: AgentPolicy, messages: Sequence[AnyMessage], thread: ThreadState) -> Labels:
    """Join the labels of all results that the model has seen.

    Results that were labelled after their call are already in `thread.seen`. Their seals are not
    checked again, because another process with another key may have made them. The session is
    unchanged: calls that were made elsewhere do not belong to it.

    Args:
        policy: The policy.
        messages: The conversation before the message of the model.
        thread: The state of the thread.

    Raises:
        UsageError: If labels in an artifact were not made by `labeled_tool_result`.
    """
    seen = thread.seen
    calls: dict[str, Mapping[str, Any]] = {}
    labelled = set(thread.labelled)
    for message in messages_since(messages, thread.checked.message):
        if isinstance(message, AIMessage):
            new_calls = {call["id"]: dict(call) for call in message.tool_calls if call["id"]}
            calls |= new_calls
            if message.id != thread.checked.message:
                labelled -= set(new_calls)  # another message may reuse an id
        elif isinstance(message, ToolMessage):
            if message.tool_call_id in labelled or _is_denial_text(message):
                continue
            call = calls.get(message.tool_call_id, {})
            tool = call.get("name") or message.name or "tool"
            is_read = policy.engine.looks_at_results(tool)
            returned = _tool_return(_value_of(message) if is_read else None, [message])
            args, session = call.get("args", {}), thread.session.labels
            added, _ = policy.label(tool, args, thread.seen, returned, session, inputs=NO_LABELS)
            seen = seen.join(added)
    return seen


def messages_since(messages: Sequence[AnyMessage], message_id: str) -> Iterator[AnyMessage]:
    """The messages from one on, or all if it is gone.

    Args:
        messages: The conversation.
        message_id: The id of the first one; empty if it is not known.
    """
    backwards = range(len(messages) - 1, -1, -1)  # it is usually one of the last
    start = next((i for i in backwards if message_id and messages[i].id == message_id), 0)
    yield from messages[start:]


def _is_denial_text(message: ToolMessage) -> bool:
    """Whether a message contains only this package's text about a denial."""
    denial = denial_of(message)
    return denial is not None and message.content == denial_text(denial)


def _tool_return(value: Any, messages: Sequence[ToolMessage]) -> ToolReturn:
    """What a tool returned, with the labels that `labeled_tool_result` gave to its messages.

    Raises:
        UsageError: For labels that it did not make, and for labels in a message's text.
    """
    artifacts = list(filter(None, (read_artifact(message.artifact) for message in messages)))
    for message in messages:
        refuse_lost_labels(str(message.text))
    labels: Labels | None = None
    for message_labels, combine in artifacts:
        if combine != "ignore":
            labels = message_labels if labels is None else labels.join(message_labels)
    is_alone = len(messages) == len(artifacts) == 1
    is_error = any(message.status == "error" for message in messages)
    return ToolReturn(value, labels, artifacts[0][1] if is_alone else "merge", is_error)


def _labels(
    enforcer: Enforcer, allowed: AllowedCall, returned: ToolReturn, inner: Labels
) -> Labels:
    """The labels of a result. The session gets its labels after the call."""
    call, seen, session = allowed.request.tool_call, allowed.thread.seen, allowed.session
    inputs = enforcer.policy.argument_labels(seen).join(inner) if call["args"] else inner
    with session.lock:
        allowed.change.make(session)
        labels, after = enforcer.policy.label(
            call["name"], allowed.args, seen, returned, session.labels, inputs=inputs
        )
        session.set_labels(after, allowed.origin)
        session.end(allowed.call_id, allowed.origin)
    return labels


def start_call(enforcer: Enforcer, allowed: AllowedCall) -> ToolReply | None:
    """Start a call, or return the reply if the session cannot count it: it runs already."""
    tool = allowed.request.tool_call["name"]
    is_new = allowed.session.start(allowed.call_id, allowed.origin)
    if is_new or not enforcer.policy.touches_session(tool):
        return None
    denial = hard_denial(
        tool, "failed", "it runs already, and the policy has to count each attempt"
    )
    pending = PendingDenial(allowed.origin.message, allowed.call_id, denial)
    return enforcer.denied(pending, allowed.thread, allowed.session)


def reply_if_denied(enforcer: Enforcer, allowed: AllowedCall) -> ToolReply | None:
    """The reply for a call that was stopped because of the arguments of its tool's function."""
    if allowed.denial is None:
        return None
    allowed.change.make(allowed.session)
    pending = PendingDenial(allowed.origin.message, allowed.call_id, allowed.denial)
    return enforcer.denied(pending, allowed.thread, allowed.session)


def _withheld_reply(
    enforcer: Enforcer, allowed: AllowedCall, value: Any, error: Exception, inner: Labels
) -> ToolReply:
    """The reply for a call that was made, but whose result is not shown."""
    call, session, thread = allowed.request.tool_call, allowed.session, allowed.thread
    try:
        _labels(enforcer, allowed, ToolReturn(value, is_error=True), inner)
        # The texts of `UsageError` contain no values; other texts may.
        reason = str(error) if isinstance(error, UsageError) else type(error).__name__
    except Exception as another:  # noqa: BLE001 - as in `label_result`
        reason = type(another).__name__
    denial = hard_denial(call["name"], "withheld", reason)
    check, config = CheckResult(session.labels, None, denial), allowed.request.runtime.config
    labels = enforcer.policy.argument_labels(thread.seen)
    enforcer.audit.report("result", "denied", call, check, labels=labels, config=config)
    pending = PendingDenial(allowed.origin.message, call["id"] or "", denial)
    return enforcer.denied(pending, thread, session)


def _value_of(message: ToolMessage) -> Any:
    """The value that a policy checks. JSON text is parsed, as on the local server."""
    content = message.content
    if not isinstance(content, str):
        return content
    try:
        return loads(content)
    except ValueError:
        return content


def _tool_messages(result: Any, allowed: AllowedCall) -> Iterator[ToolMessage]:
    """The tool messages in the result of a call.

    Args:
        result: The result.
        allowed: The call. A command may contain a copy of the fields of its session, as it does if
            a tool hands its whole state to another agent.

    Raises:
        UsageError: If the tool writes a field of the state that holds the policy's data.
    """
    if isinstance(result, ToolMessage):
        yield result
    elif isinstance(result, list | tuple):
        for part in result:
            yield from _tool_messages(part, allowed)
    elif isinstance(result, Overwrite):
        yield from _tool_messages(result.value, allowed)
    elif isinstance(result, Command):
        for name, value in _updates(result.update):
            is_written = (name == FIELD and not is_field_of(value, allowed.session.id)) or (
                name == DECISIONS and value != allowed.fields.get(name)
            )
            if is_written:
                msg = (
                    f"A tool's command writes the field `{name}`, which only `PolicyMiddleware` "
                    "may write. Remove it from the command."
                )
                raise UsageError(msg)
            yield from _tool_messages(value, allowed)


def _updates(update: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(update, Mapping):
        return update.items()
    if isinstance(update, list | tuple):
        return (pair for pair in update if isinstance(pair, tuple))
    names = () if update is None else get_type_hints(type(update))
    return ((name, getattr(update, name)) for name in names)


def _for_parent(
    enforcer: Enforcer, allowed: AllowedCall, result: Any, change: Mapping[str, Any]
) -> Any:
    """The result of a call, in which each command for another graph has the whole state.

    Such a command ends the agent, and only the command's update reaches the graph around it.
    """
    if isinstance(result, list):
        return [_for_parent(enforcer, allowed, part, change) for part in result]
    if not enforcer.law.is_shared or not isinstance(result, Command) or result.graph is None:
        return result
    update = {name: value for name, value in _updates(result.update) if name not in FIELDS}
    parts = (fields.get(name, b"") for fields in (allowed.fields, change) for name in FIELDS)
    whole = reduce(merge_updates, parts)
    goto: Any = result.goto
    if isinstance(goto, list | tuple):
        goto = [_with_field(target, whole) for target in goto]
    return replace(result, update={**update, FIELD: whole}, goto=_with_field(goto, whole))


def _with_field(target: Any, value: bytes) -> Any:
    if isinstance(target, Send) and isinstance(target.arg, Mapping):
        return Send(target.node, {**target.arg, FIELD: value}, timeout=target.timeout)
    return target


def _with_update(result: Any, change: Mapping[str, Any]) -> Any:
    """The result of a call together with an update of the state, if there is one."""
    if not change:
        return result
    if isinstance(result, ToolMessage):
        return Command(update={"messages": [result], **change})
    if isinstance(result, Command) and result.graph is None and isinstance(result.update, dict):
        return replace(result, update={**result.update, **change})
    before = result if isinstance(result, list) else [result]
    return [*before, Command(update=dict(change))]
