"""`PolicyMiddleware`: the hooks, and the check of all calls of a message before any of them runs.

LangGraph runs the calls of one message at the same time, independently of each other. So all of
them are checked beforehand in their order, each with the session after the calls before it. The
changes that a call makes to the session when it ends are unknown at this time. If a policy has such
changes, the later calls wait for another message (`docs/behaviour.md`, M5).
"""

import copy
from collections import Counter
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Literal, Self, cast, get_args
from uuid import uuid4

from langchain.agents.middleware.types import (
    AgentMiddleware,
    AgentState,
    ContextT,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    ResponseT,
    ToolCallRequest,
)
from langchain_core.messages import AIMessage, AnyMessage, ToolCall
from langchain_core.tools import BaseTool
from langgraph.config import get_config
from langgraph.errors import GraphBubbleUp, GraphInterrupt
from langgraph.runtime import Runtime
from langgraph.types import Command

from langchain_sequrity import _compat
from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers.policy_fit import warn_of_policy
from langchain_sequrity.interrupts import check_can_ask
from langchain_sequrity.labels import NO_LABELS, GatheredLabels, Labels, labels_given
from langchain_sequrity.middleware.audit import Audit, EventOutcome, OnEvent
from langchain_sequrity.middleware.denials import denial_error, hard_denial
from langchain_sequrity.middleware.live_session import LiveSession, Origin
from langchain_sequrity.middleware.sessions import SessionLaw
from langchain_sequrity.middleware.state import (
    DECISIONS,
    FIELD,
    FIELDS,
    CheckedCall,
    CheckedMessage,
    PendingDenial,
    PolicyState,
    SharedPolicyState,
    ThreadState,
    merge_updates,
    read_thread,
    thread_update,
)
from langchain_sequrity.middleware.subagents import (
    OuterCall,
    agents_around,
    agents_of,
    is_guarded,
    outer_call,
    running_call,
    unguarded_agents,
)
from langchain_sequrity.middleware.tool_call import (
    AllowedCall,
    ArgumentsDenied,
    Enforcer,
    ResultLabels,
    ToolReply,
    check_call,
    label_result,
    labels_seen,
    last_message,
    messages_since,
    reply_if_denied,
    start_call,
)
from langchain_sequrity.middleware.verdict import AgentPolicy, CheckResult, Labelling, Tool
from langchain_sequrity.on_denied import OnDenied, check_on_denied
from langchain_sequrity.session_memory import OnSessionLost, graph_run
from langchain_sequrity.sync_or_async import run_to_end

_compat.check_agents()


@dataclass(frozen=True, slots=True)
class _MessageResult:
    """The result of checking a message.

    Attributes:
        checked: The decision on each call.
        session: The new labels of the session.
        checks: The calls and the results of their checks.
        pending: A denial that will be raised.
    """

    checked: CheckedMessage
    session: Labels
    checks: Sequence[tuple[ToolCall, CheckResult]]
    pending: PendingDenial | None


def _check_message(
    enforcer: Enforcer,
    message: str,
    calls: Sequence[ToolCall],
    seen: Labels,
    session: Labels,
    *,
    running: str = "",
) -> _MessageResult:
    """Check the calls of a message in their order.

    Args:
        enforcer: The policy and its options. If denials are raised, one denial stops all calls.
        message: The message's id.
        calls: Its calls without a result.
        seen: The join of the labels of all results that the model has seen.
        session: The labels of the session.
        running: A tool that another agent of the session has called, and whose call will change the
            session when it ends.
    """
    policy = enforcer.policy
    id_counts = Counter(call["id"] for call in calls)
    decided: dict[str, CheckedCall] = {}
    checks: list[tuple[ToolCall, CheckResult]] = []
    base, closing, pending = session, "", None
    for call in calls:
        tool, call_id = call["name"], call["id"] or ""
        digest = policy.digest(message, dict(call), seen)
        blocking = closing or (running if running and policy.touches_session(tool) else "")
        has_id = bool(call_id) and id_counts[call["id"]] == 1
        denial = (
            _sibling_denial(tool, pending.denial)
            if pending is not None
            else _unchecked_denial(tool, blocking, has_id=has_id, has_digest=bool(digest))
        )
        if denial is None:
            result = policy.decide(tool, call["args"], seen, session)
        else:
            result = CheckResult(session, None, denial)
        session, denial = result.session, result.denial
        checks.append((call, result))
        decided[call_id] = CheckedCall(digest, denial)
        if enforcer.raises and pending is None and denial is not None and denial.kind != "waits":
            pending = PendingDenial(message, call_id, denial)
        if enforcer.may_run(denial):
            if policy.engine.ends_in_session(tool):
                closing = tool
            if policy.runs_agents(tool):  # the calls of these agents change the session too
                running = tool
    if pending is not None:
        for call in calls:
            checked_call = decided[call["id"] or ""]
            stopped = checked_call.denial or _sibling_denial(call["name"], pending.denial)
            decided[call["id"] or ""] = replace(checked_call, denial=stopped)
    checked = CheckedMessage(message, decided, bool(closing), base)
    return _MessageResult(checked, session, checks, pending)


def _unchecked_denial(tool: str, blocking: str, *, has_id: bool, has_digest: bool) -> Denial | None:
    """The denial of a call that cannot be checked, or not yet."""
    if not has_id:
        reason = "each call of a message needs its own id, and this one has none"
        return hard_denial(tool, "failed", reason)
    if not has_digest:
        reason = "its arguments cannot be written as JSON; they may be nested too deeply"
        return hard_denial(tool, "failed", reason)
    if blocking:
        reason = f"the policy cannot decide on it before the call of `{blocking}` has ended"
        return hard_denial(tool, "waits", reason)
    return None


def _sibling_denial(tool: str, denial: Denial) -> Denial:
    reason = f"another call of the same message, of `{denial.tool}`, is denied"
    return hard_denial(tool, "waits", reason)


State = Mapping[str, Any]
Update = dict[str, Any] | None
_MAX_TOOLS = 256


class PolicyMiddleware(AgentMiddleware[AgentState[ResponseT], ContextT, ResponseT]):
    """Checks every tool call of an agent against a policy before it is made.

    The policy is applied in this process, without a service. Each thread
    (`configurable.thread_id`) is a session, which the agent's checkpointer stores. A conversation
    with earlier turns whose state is lost is an error. One object may serve any number of agents,
    threads and runs at once.

    List it last in `middleware`: middleware after it could change a checked call, so this raises an
    error.

    Args:
        policy: The policy: SQRT text, a `pathlib.Path` to a file with it, a `PolicyHeader`, a dict
            of its fields, or a list of these, which are combined (`sqrt.combine`).
        on_denied: What follows a denial. "message": the model gets the reason and continues.
            "raise": `PolicyDenied`; no call of the message is made, and the thread continues with
            the next input. "interrupt": like "message", but a human is asked about soft denials,
            with LangChain's human-in-the-loop requests; needs a checkpointer.
        labelling: "conversation": each argument carries the labels of all tool results that the
            model had seen, because the model may have used any of them. "none": arguments carry no
            labels, as in single-LLM mode of the service.
        allow_uncertain: Whether a call may be made if the policy allows it in this package's
            reading, but not in every reading (`docs/policies.md`, What is in doubt).
        tools: The tools of the policy: a rule for a tool or an argument that does not exist is an
            error. "agent": the agent's tools, checked before the first of them is called. A list:
            checked at once. `None`: not checked, for a policy that is for more than this agent.
        labels: Tags and producers that the tools set on their results (`labeled_tool_result`),
            beside those that rules set; for the warnings of `strict_policy`.
        on_event: Called with a `PolicyEvent` for each check. The logger
            `langchain_sequrity.audit` gets the same events as JSON at level `INFO`.
        log_arguments: Whether events contain the arguments of calls.
        strict_policy: Whether an ineffective policy is an error instead of a `PolicyMismatch`
            warning: a policy without rules, with rules that allow what they seem to deny, or with
            conditions on labels that nothing sets here.
        shared_session: Whether the agent is a node of a graph, a swarm or a supervisor whose agents
            count as one session. The state of the graph needs the base `SharedSessionState`.
        on_session_lost: What follows if the policy needs the state of earlier turns, and it is
            lost. "raise": `SessionLost`, before the model is called. "restart": a new session.

    Raises:
        UsageError: If the policy cannot be applied here (Cedar, `auto_gen`) or does not fit the
            tools, or if an option has an invalid value.
        PolicySyntaxError: If the policy is not valid SQRT.

    Example:
        ```python
        from langchain.agents import create_agent
        from langchain_core.language_models import FakeMessagesListChatModel
        from langchain_core.messages import AIMessage
        from langchain_sequrity.middleware import PolicyMiddleware


        class Model(FakeMessagesListChatModel):
            def bind_tools(self, tools, **kwargs):
                return self


        def pay(euros: int) -> str:
            "Pay somebody."
            return "paid"


        call = {"name": "pay", "args": {"euros": 500}, "id": "1"}
        agent = create_agent(
            Model(responses=[AIMessage("", tool_calls=[call]), AIMessage("I may not.")]),
            [pay],
            middleware=[
                PolicyMiddleware('''
                    tool "pay" {
                        /// more than 100 needs a signature
                        must deny when not euros.value in {int 1..100};
                    }
                ''')
            ],
        )
        state = agent.invoke({"messages": "Pay 500."})
        assert "more than 100 needs a signature" in state["messages"][2].text.lower()
        ```
    """

    state_schema = PolicyState

    def __init__(
        self,
        policy: object,
        *,
        on_denied: OnDenied = "message",
        labelling: Labelling = "conversation",
        allow_uncertain: bool = False,
        tools: Literal["agent"] | Sequence[Tool] | None = "agent",
        labels: Collection[str] = (),
        on_event: OnEvent | None = None,
        log_arguments: bool = False,
        strict_policy: bool = False,
        shared_session: bool = False,
        on_session_lost: OnSessionLost = "raise",
    ) -> None:
        super().__init__()
        check_on_denied(on_denied, "`PolicyMiddleware`")
        if on_session_lost not in get_args(OnSessionLost):
            msg = f'`on_session_lost` must be "raise" or "restart"; got {on_session_lost!r}.'
            raise UsageError(msg)
        for name, flag in (
            ("allow_uncertain", allow_uncertain),
            ("log_arguments", log_arguments),
            ("shared_session", shared_session),
        ):
            if not isinstance(flag, bool):  # another true value would weaken the policy
                msg = f"`{name}` must be `True` or `False`; got {flag!r}."
                raise UsageError(msg)
        rules = AgentPolicy(
            policy,
            labelling=labelling,
            allow_uncertain=allow_uncertain,
            tools=tools,
            labels=labels,
            is_strict=strict_policy,
        )
        audit = Audit(on_event, log_arguments=log_arguments)
        self.tools = []  # LangChain's name for tools that a middleware adds
        law = SessionLaw(
            uses_session=rules.engine.uses_session,
            tests_labels=labelling == "conversation" and rules.engine.tests_argument_labels,
            is_shared=shared_session,
            on_lost=on_session_lost,
        )
        if shared_session:
            self.state_schema = SharedPolicyState
        self._enforcer = Enforcer(
            rules, law, audit, asks=on_denied == "interrupt", raises=on_denied == "raise"
        )
        self._is_strict = strict_policy
        self._inspected: dict[int, BaseTool] = {}

    def for_other_tools(self) -> Self:
        """The same policy for an agent that may have fewer tools; see `guarded_subagents`."""
        middleware = copy.copy(self)
        policy = self._enforcer.policy.for_other_tools()
        enforcer = replace(self._enforcer, policy=policy, result_labels=ResultLabels())
        vars(middleware).update(_enforcer=enforcer, _inspected={})
        return middleware

    def _inspect(self, tools: Sequence[Any]) -> None:
        """Learn the tools' defaults, and warn, once for each tool, of agents without a policy."""
        self._enforcer.policy.learn_defaults(tools)
        for tool in tools:
            if not isinstance(tool, BaseTool) or self._inspected.get(id(tool)) is tool:
                continue
            if len(self._inspected) >= _MAX_TOOLS:
                self._inspected.clear()
            agents = agents_of(tool)
            if names := unguarded_agents(agents):
                listed = ", ".join(f"`{name}`" for name in names)
                text = (
                    f"The tool `{tool.name}` runs agents that have no `PolicyMiddleware`: "
                    f"{listed}. Their calls are not checked, and their results have no labels. "
                    "Give each agent a `PolicyMiddleware`; for deepagents, "
                    "`create_deep_agent(…, subagents=guarded_subagents(policy, subagents))`."
                )
                warn_of_policy(text, is_strict=self._is_strict)
            if any(map(is_guarded, agents)):
                self._enforcer.policy.nesting.add(tool.name)
            self._inspected[id(tool)] = tool  # keeps the tool alive, so that its id is not reused

    # The model is called: a pending denial is raised before it, and the calls of its message are
    # checked after it, in their order. This needs no step of its own. LangChain adds one for each
    # `before_model` and `after_model`, and a checkpointer stores each step.

    def wrap_model_call(
        self,
        request: ModelRequest[ContextT],
        handler: Callable[[ModelRequest[ContextT]], ModelResponse[Any]],
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Raise a pending denial, or call the model and check the calls of its message."""
        return run_to_end(self._call_model(request, handler, is_async=False))

    async def awrap_model_call(
        self,
        request: ModelRequest[ContextT],
        handler: Callable[[ModelRequest[ContextT]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Raise a pending denial, or call the model and check the calls of its message."""
        return await self._call_model(request, handler, is_async=True)

    async def _call_model(
        self,
        request: ModelRequest[ContextT],
        handler: Callable[[ModelRequest[ContextT]], Any],
        *,
        is_async: bool,
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        self._inspect(request.tools)  # the defaults of its tools are needed to complete calls
        state = _compat.state_of_task(get_config(), "messages", *FIELDS)
        messages: list[AnyMessage] = state.get("messages") or []
        with _not_handled():
            thread = read_thread(state)
            self._raise_pending(thread, messages)
        response = handler(request)
        if is_async:
            response = await response
        with _not_handled():
            for message in response.result:
                message.id = message.id or str(uuid4())  # as LangGraph does when it stores them
            update = self._checked(thread, [*messages, *response.result])
        return ExtendedModelResponse(response, Command(update=update)) if update else response

    def _checked(self, thread: ThreadState, messages: Sequence[AnyMessage]) -> Update:
        """Check the calls of the newest message. The update also has what `_unsaved` has."""
        index, message, answered = last_message(messages)
        calls = (
            [call for call in message.tool_calls if call["id"] not in answered] if message else []
        )
        before = messages[:index]
        if message is None or not calls:  # for example structured output, which runs no tool
            return self._unsaved(thread, before)
        thread = replace(thread, seen=thread.seen.join(self._dropped_labels(thread, before)))
        session = self._enforcer.law.session_of(thread, before, get_config())
        thread = replace(thread, seen=labels_seen(self._enforcer.policy, before, thread))
        if outer_call() is not None:
            labels_given(thread.seen)
        result = self._check_message(message.id or "", calls, thread, session)
        self._report(result, thread)
        return thread_update(
            thread,
            session=session.record(),
            seen=thread.seen,
            checked=result.checked,
            pending=result.pending,
        )

    def _check_message(
        self, message: str, calls: Sequence[ToolCall], thread: ThreadState, session: LiveSession
    ) -> _MessageResult:
        run = graph_run(get_config()["configurable"])
        origin, task = Origin(thread.agent, message, run.step), (run.control, run.namespace)
        ends_in_session = self._enforcer.policy.engine.ends_in_session
        if (outer := outer_call()) is not None:
            outer.nesting.add(outer.tool)
        with session.lock:  # agents that run at the same time are checked one after the other
            running = session.unfinished_tool(origin.step, agents_around(thread.agent))
            labels = session.labels_before_check(task)
            result = _check_message(
                self._enforcer, message, calls, thread.seen, labels, running=running
            )
            session.set_checked(result.session, origin, task)
            may_run = {
                call["id"] or "": call["name"]
                for call in calls
                if ends_in_session(call["name"])
                and self._enforcer.may_run(result.checked.calls[call["id"] or ""].denial)
            }
            session.expect(thread.agent, origin.step, may_run)
        return result

    def _report(self, result: _MessageResult, thread: ThreadState) -> None:
        config, labels = get_config(), self._enforcer.policy.argument_labels(thread.seen)
        for call, check in result.checks:
            outcome: EventOutcome = "allowed"
            if check.denial is not None:
                is_asked = self._enforcer.asks and check.denial.may_be_approved
                outcome = "asked" if is_asked else "denied"
            self._enforcer.audit.report("call", outcome, call, check, labels=labels, config=config)

    # When a call runs: only as it was checked, and its result is labelled.

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolReply]
    ) -> ToolReply:
        """Run an allowed call, or reply to the model with the denial."""
        return run_to_end(self._reply(request, handler, is_async=False))

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolReply]]
    ) -> ToolReply:
        """Run an allowed call, or reply to the model with the denial."""
        return await self._reply(request, handler, is_async=True)

    async def _reply(
        self, request: ToolCallRequest, handler: Callable[..., Any], *, is_async: bool
    ) -> ToolReply:
        _check_position(self.name, request.runtime.config, handler)
        allowed = await check_call(self._enforcer, request, is_async=is_async)
        if not isinstance(allowed, AllowedCall):
            return allowed
        if (denied := start_call(self._enforcer, allowed)) is not None:
            return denied
        try:
            with self._running(allowed) as inner, suppress(ArgumentsDenied):
                result = handler(allowed.request)
                if is_async:
                    result = await result
            if (reply := reply_if_denied(self._enforcer, allowed)) is not None:
                return reply
            labels = inner.labels or Labels()
            return cast("ToolReply", label_result(self._enforcer, allowed, result, labels))
        finally:
            allowed.session.finish(allowed.origin, allowed.call_id)

    @contextmanager
    def _running(self, allowed: AllowedCall) -> Iterator[GatheredLabels]:
        """Run a call. The effects of a call that raises are stored."""
        call = OuterCall(
            allowed.request.tool_call["name"],
            allowed.thread.seen,
            allowed.session,
            agents_around(allowed.thread.agent),
            self._enforcer.policy.nesting,
        )
        gathered = GatheredLabels()
        try:
            with running_call(call, gathered):
                yield gathered
        except GraphInterrupt:
            raise
        except BaseException:
            # Other middleware may replace the result.
            allowed.change.make(allowed.session)
            self._enforcer.result_labels.add(allowed, gathered.labels)
            raise

    def _dropped_labels(self, thread: ThreadState, messages: Sequence[AnyMessage]) -> Labels:
        """The labels of the newest results, which other middleware may have dropped from them."""
        recent = messages_since(messages, thread.checked.message)
        return self._enforcer.result_labels.for_messages(recent, get_config())

    def _unsaved(self, thread: ThreadState, messages: Sequence[AnyMessage]) -> Update:
        """What calls have changed, if other middleware dropped it from their results."""
        law, session = self._enforcer.law, None
        if law.uses_session and thread.session.id:
            session = law.session_of(thread, messages, get_config()).record()
        labels = self._dropped_labels(thread, messages)
        return thread_update(thread, session=session, seen=labels) or None

    # The beginning and the end of a run

    def before_agent(self, state: State, runtime: Runtime[ContextT]) -> Update:  # noqa: ARG002 - LangChain's signature
        """Continue or begin the session, and clear a denial that an earlier run raised."""
        return run_to_end(self._begin_run(state, is_async=False))

    async def abefore_agent(self, state: State, runtime: Runtime[ContextT]) -> Update:  # noqa: ARG002 - LangChain's signature
        """Continue or begin the session, and clear a denial that an earlier run raised."""
        return await self._begin_run(state, is_async=True)

    async def _begin_run(self, state: State, *, is_async: bool) -> Update:
        config, outer, thread = get_config(), outer_call(), read_thread(state)
        if self._enforcer.asks:
            check_can_ask(config)
        session = await self._enforcer.continued_session(
            thread, state["messages"], config, is_async=is_async
        )
        return thread_update(
            thread,
            session=session.record(),
            seen=outer.seen if outer is not None else NO_LABELS,
            agent=uuid4().hex if graph_run(config["configurable"]).is_inside else "",
            is_raised=thread.pending is not None,
        )

    def after_agent(self, state: State, runtime: Runtime[ContextT]) -> Update:  # noqa: ARG002 - LangChain's signature
        """Raise a denial after which the model was not called again, as with `return_direct`."""
        thread, messages = read_thread(state), state["messages"]
        self._raise_pending(thread, messages)
        update = self._unsaved(thread, messages)
        if outer_call() is not None:
            labels_given(labels_seen(self._enforcer.policy, messages, thread))
        if self._enforcer.law.is_shared and DECISIONS in state:
            # The graph around the agent has one field; see `SharedSessionState`.
            changes = [state[DECISIONS], *(update or {}).values()]
            update = {FIELD: reduce(merge_updates, changes)}
        return update

    async def aafter_agent(self, state: State, runtime: Runtime[ContextT]) -> Update:
        """Raise a denial after which the model was not called again."""
        return self.after_agent(state, runtime)

    def _raise_pending(self, thread: ThreadState, messages: Sequence[AnyMessage]) -> None:
        """Raise a denial, with `on_denied="raise"`.

        The state has the session and an answer to each call by now, so the thread can continue.
        """
        if thread.pending is None:
            return
        arguments = _arguments(messages, thread.pending.message, thread.pending.call_id)
        labels = self._enforcer.policy.argument_labels(thread.seen)
        raise denial_error(thread.pending.denial, arguments, labels)


class _CheckFailed(UsageError, GraphBubbleUp):
    """An error of a check, which is no failure of the model."""


@contextmanager
def _not_handled() -> Iterator[None]:
    """Let errors of checks pass middleware that handles errors of the model."""
    try:
        yield
    except GraphBubbleUp:
        raise
    except UsageError as error:
        raise _CheckFailed(str(error)) from error


def _arguments(messages: Sequence[AnyMessage], message_id: str, call_id: str) -> dict[str, Any]:
    for message in messages:
        if isinstance(message, AIMessage) and message.id == message_id:
            return next((call["args"] for call in message.tool_calls if call["id"] == call_id), {})
    return {}


def _check_position(name: str, config: Mapping[str, Any], handler: Callable[..., object]) -> None:
    """Check that the other hooks run too, and that no other middleware is inside this one."""
    if not _compat.has_node(config, f"{name}.before_agent"):
        msg = (
            "`PolicyMiddleware.wrap_tool_call` needs the other hooks of the middleware, which keep "
            "session and labels. Construct the agent with `create_agent(model, tools, "
            "middleware=[PolicyMiddleware(policy)])`; do not pass the method to a `ToolNode`."
        )
        raise UsageError(msg)
    if _compat.is_other_wrapper(handler):
        msg = (
            "`PolicyMiddleware` must be the last item of `middleware` that wraps tool calls: a "
            "later one could change a checked call. Move `PolicyMiddleware` to the end."
        )
        raise UsageError(msg)
