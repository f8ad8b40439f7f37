"""`PolicyMiddleware`: its hooks, and what each of them does.

Decides on the calls of a message, in their order, before any of them runs.

LangGraph runs the calls of one message at the same time, each knowing nothing of the others. So all
are decided here, one after the other, each with the session that the ones before it leave. What a
call changes when it has ended is not known yet; where a policy changes the session then, the calls
after it wait for another message (`docs/behaviour.md`, M5).
"""

import copy
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, cast
from uuid import uuid4

from langchain.agents.middleware.types import (
    AgentMiddleware,
    AgentState,
    ContextT,
    ModelRequest,
    ModelResponse,
    ResponseT,
    ToolCallRequest,
)
from langchain_core.messages import AIMessage, AnyMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.config import get_config
from langgraph.runtime import Runtime

from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers.policy_fit import warn_of_policy
from langchain_sequrity.interrupts import ais_late, check_can_ask, is_late
from langchain_sequrity.labels import Labels, labels_given
from langchain_sequrity.middleware.after_call import labels_seen, leave
from langchain_sequrity.middleware.before_call import enter
from langchain_sequrity.middleware.context import Answer, Audit, Guard, OnEvent, Passed
from langchain_sequrity.middleware.state import (
    Entry,
    Plan,
    PolicyState,
    Refused,
    Thread,
    read,
    update,
)
from langchain_sequrity.middleware.subagents import (
    Inside,
    agents_of,
    around,
    is_guarded,
    tell_around,
    unguarded,
    within,
)
from langchain_sequrity.middleware.verdict import (
    Decision,
    Labelling,
    Rules,
    Tool,
    error_of,
    not_made,
)
from langchain_sequrity.on_denied import OnDenied, check_on_denied


@dataclass(frozen=True, slots=True)
class Planned:
    """What came of a message.

    Attributes:
        plan: What was decided on each call.
        session: The session's labels from now on.
        checks: The calls that were checked, with what came of it.
        refused: A denial that is to be raised, if denials are.
    """

    plan: Plan
    session: Labels
    checks: Sequence[tuple[ToolCall, Decision]]
    refused: Refused | None


class Planner:
    """Decides on messages.

    Args:
        rules: The policy.
        asks: Whether a human is asked about soft denials.
        raises: Whether denials are raised: then no call of the message is made.
    """

    def __init__(self, rules: Rules, *, asks: bool, raises: bool) -> None:
        self._rules = rules
        self._asks = asks
        self._raises = raises

    def plan(
        self, message: str, calls: Sequence[ToolCall], thread: Thread, *, beside: str = ""
    ) -> Planned:
        """Decide on the calls of a message.

        Args:
            message: The message's id.
            calls: Its calls that have no result yet.
            thread: What is kept of the thread.
            beside: A tool that another agent of the same session has called, and whose call will
                change the session when it ends.
        """
        times = Counter(call["id"] for call in calls)
        entries: dict[str, Entry] = {}
        checks: list[tuple[ToolCall, Decision]] = []
        session, closed_by, refused = thread.session, "", None
        for call in calls:
            call_id = call["id"] or ""
            digest = self._rules.digest(message, dict(call), thread.seen)
            if refused is not None:
                decision = Decision(session, None, _beside(call, refused.denial))
            elif times[call["id"]] > 1 or not call_id:
                reason = "calls of one message need ids of their own, and this one has none"
                decision = Decision(session, None, not_made(call["name"], "failed", reason))
            elif not digest:
                reason = "its arguments cannot be written as JSON, perhaps for their depth"
                decision = Decision(session, None, not_made(call["name"], "failed", reason))
            elif closed_by or (beside and self._rules.touches_session(call["name"])):
                decision = Decision(session, None, after(call["name"], closed_by or beside))
            else:
                decision = self._rules.decide(call["name"], call["args"], thread.seen, session)
            session, denial = decision.session, decision.denial
            checks.append((call, decision))
            entries[call_id] = Entry(digest, denial)
            if self._raises and refused is None and denial is not None and denial.kind != "waits":
                refused = Refused(message, call_id, denial)
            may_run = denial is None or (self._asks and denial.may_be_approved)
            if may_run and self._rules.engine.ends_in_session(call["name"]):
                closed_by = call["name"]
            if may_run and self._rules.runs_agents(call["name"]):  # whose calls count as well
                beside = call["name"]
        if refused is not None:
            entries = {
                call["id"] or "": _stopped(call, entries[call["id"] or ""], refused.denial)
                for call in calls
            }
        plan = Plan(message, entries, bool(closed_by), thread.session)
        return Planned(plan, session, checks, refused)


def _stopped(call: Mapping[str, Any], entry: Entry, denial: Denial) -> Entry:
    return entry if entry.denial else replace(entry, denial=_beside(call, denial))


def _beside(call: Mapping[str, Any], denial: Denial) -> Denial:
    reason = f"another call of the same message, of `{denial.tool}`, is denied"
    return not_made(call["name"], "waits", reason)


def after(tool: str, other: str) -> Denial:
    """Why a call waits for the end of another one."""
    reason = f"the policy cannot decide on it before the call of `{other}` has ended"
    return not_made(tool, "waits", reason)


State = Mapping[str, Any]
Update = dict[str, Any] | None
_REMEMBERED_TOOLS = 256
_REMEMBERED_CALLS = 1_000


class PolicyMiddleware(AgentMiddleware[AgentState[ResponseT], ContextT, ResponseT]):
    """Checks every tool call of an agent against a policy before it is made.

    The policy is read and applied in this process; no service is asked. Each thread
    (`configurable.thread_id`) is a session of its own, which the agent's checkpointer keeps. One
    object may serve any number of agents, threads and runs at once.

    List it last in `middleware`: what stands after it could change a call that was checked, so that
    is refused.

    Args:
        policy: The policy: SQRT text, a `pathlib.Path` to a file with it, a `PolicyHeader`, or a
            dict of its fields.
        on_denied: What a denial is. "message": the model is told why, and goes on. "raise":
            `PolicyDenied`; no call of that message is made, and the thread goes on with the next
            input. "interrupt": as "message", but about soft denials a human is asked, in the form
            of LangChain's human-in-the-loop requests; needs a checkpointer.
        labelling: "conversation": each argument carries the labels of all tool results that the
            model had seen, because one model may have used any of them. "none": arguments carry no
            labels, as in single-LLM mode of the service.
        allow_uncertain: Whether a call may be made that the policy allows in this package's
            reading, but not in every one (`docs/policies.md`, What is in doubt).
        tools: The tools that the policy is for: a rule for a tool or an argument that does not
            exist is an error. "agent": those of the agent, checked before the first of them is
            called. A list: checked at once. `None`: not checked, for a policy that is for more than
            this agent.
        on_event: Is called with a `PolicyEvent` for each check. The logger
            `langchain_sequrity.audit` has them too, as JSON at level `INFO`.
        log_arguments: Whether events hold the arguments of calls.
        strict_policy: Whether a policy without rules, one with rules that let through what they
            seem to deny, or one that asks for labels which `labelling="none"` takes away, is an
            error; else it is a `PolicyMismatch` warning.

    Raises:
        UsageError: If the policy cannot be applied here (Cedar, `auto_gen`) or does not fit the
            tools, or if an option has no such value.
        PolicySyntaxError: If the policy's text is no SQRT.

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
        on_event: OnEvent | None = None,
        log_arguments: bool = False,
        strict_policy: bool = False,
    ) -> None:
        super().__init__()
        check_on_denied(on_denied, "`PolicyMiddleware`")
        for name, flag in (
            ("allow_uncertain", allow_uncertain), ("log_arguments", log_arguments),
        ):  # fmt: skip
            if not isinstance(flag, bool):  # what is true by chance would loosen the policy
                msg = f"`{name}` is `True` or `False`; got {flag!r}."
                raise UsageError(msg)
        rules = Rules(policy, labelling=labelling, allow_uncertain=allow_uncertain, tools=tools)
        if labelling == "none" and (listed := rules.without_labels()):
            text = (
                'The policy asks for labels of arguments, and with `labelling="none"` arguments '
                f"have none:\n{listed}\nLeave `labelling` out, or ask for values and `@session` "
                "labels."
            )
            warn_of_policy(text, is_strict=strict_policy)
        texts = (rules.without_rules(), rules.without_force())
        warn_of_policy("\n".join(filter(None, texts)), is_strict=strict_policy)
        asks, raises = on_denied == "interrupt", on_denied == "raise"
        audit = Audit(on_event, log_arguments=log_arguments)
        self.tools = []  # LangChain's name for tools that a middleware adds; this one adds none
        self._guard = Guard(rules, audit, asks=asks, raises=raises)
        self._planner = Planner(rules, asks=asks, raises=raises)
        self._is_strict = strict_policy
        self._looked_at: dict[int, BaseTool] = {}
        self._lost: OrderedDict[tuple[str, ...], Inside] = OrderedDict()

    def for_other_tools(self) -> Self:
        """The same policy for an agent that may have fewer tools; see `guarded_subagents`."""
        other, rules = copy.copy(self), self._guard.rules.for_other_tools()
        guard = replace(self._guard, rules=rules)
        vars(other).update(
            _guard=guard,
            _planner=Planner(rules, asks=guard.asks, raises=guard.raises),
            _looked_at={},
            _lost=OrderedDict(),
        )
        return other

    def _look_at(self, tools: Iterable[object]) -> None:
        """Tell, once for each tool, of agents that it runs without a policy."""
        for tool in tools:
            if not isinstance(tool, BaseTool) or self._looked_at.get(id(tool)) is tool:
                continue
            if len(self._looked_at) >= _REMEMBERED_TOOLS:
                self._looked_at.clear()
            found = agents_of(tool)
            if names := unguarded(found):
                listed = ", ".join(f"`{name}`" for name in names)
                text = (
                    f"The tool `{tool.name}` runs agents that have no `PolicyMiddleware`: "
                    f"{listed}. What they call is not checked, and what they see has no labels. "
                    "Give each one of its own; for deepagents, "
                    "`create_deep_agent(…, subagents=guarded_subagents(policy, subagents))`."
                )
                warn_of_policy(text, is_strict=self._is_strict)
            if any(map(is_guarded, found)):
                self._guard.rules.nesting.add(tool.name)
            self._looked_at[id(tool)] = tool  # which keeps this id its own

    # Defaults of the tools stand for arguments that a call leaves out.

    def wrap_model_call(
        self,
        request: ModelRequest[ContextT],
        handler: Callable[[ModelRequest[ContextT]], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        """Look at the tools that the model is shown."""
        self._guard.rules.learn(request.tools)
        self._look_at(request.tools)
        return handler(request)

    async def awrap_model_call(
        self,
        request: ModelRequest[ContextT],
        handler: Callable[[ModelRequest[ContextT]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Look at the tools that the model is shown."""
        self._guard.rules.learn(request.tools)
        self._look_at(request.tools)
        return await handler(request)

    # Before anything runs: all calls of a message are decided on, in their order.

    def after_model(self, state: State, runtime: Runtime[ContextT]) -> Update:  # noqa: ARG002 - LangChain's signature
        """Decide on the calls of the model's message."""
        messages: list[AnyMessage] = state["messages"]
        thread = read(state)
        last = next((n for n, one in enumerate(reversed(messages), 1) if _is_ai(one)), 0)
        message = messages[-last] if last else None
        if not isinstance(message, AIMessage) or not message.tool_calls:
            return None
        after = messages[len(messages) - last + 1 :]
        answered = {one.tool_call_id for one in after if isinstance(one, ToolMessage)}
        calls = [call for call in message.tool_calls if call["id"] not in answered]
        if not calls:  # as structured output, which runs nothing
            return None
        before = messages[: len(messages) - last]
        thread = self._found(before, thread)
        seen = labels_seen(self._guard.rules, before, thread)
        if seen != thread.seen:
            thread = replace(thread, seen=seen)
        planned = self._planned(message.id or "", calls, thread)
        self._tell(planned, thread)
        return update(
            session=planned.session, seen=seen, plan=planned.plan, refused=planned.refused
        )

    def _planned(self, message: str, calls: Sequence[ToolCall], thread: Thread) -> Planned:
        outer = around()
        if outer is None:
            return self._planner.plan(message, calls, thread)
        labels_given(thread.seen)
        outer.nesting.add(outer.tool)
        ends, shared = self._guard.rules.engine.ends_in_session, outer.session
        with shared.lock:  # agents side by side are decided on one after the other
            others = [
                tool for key, tool in shared.pending.items() if not key.startswith(thread.agent)
            ]
            own = replace(thread, session=thread.session.join(shared.beside(thread.agent)))
            planned = self._planner.plan(message, calls, own, beside=others[0] if others else "")
            shared.put(thread.agent, planned.session)
            for call, decision in planned.checks:
                if decision.denial is None and ends(call["name"]):
                    shared.pending[f"{thread.agent} {call['id']}"] = call["name"]
        return planned

    async def aafter_model(self, state: State, runtime: Runtime[ContextT]) -> Update:
        """Decide on the calls of the model's message."""
        return self.after_model(state, runtime)

    def _tell(self, planned: Planned, thread: Thread) -> None:
        config = get_config()
        for call, decision in planned.checks:
            denial = decision.denial
            if denial is None:
                outcome: Literal["allowed", "asked", "denied"] = "allowed"
            else:
                outcome = "asked" if self._guard.asks and denial.may_be_approved else "denied"
            self._guard.tell("call", outcome, call, decision, seen=thread.seen, config=config)

    # When a call runs: only what was decided on, and its result is labelled.

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Answer]
    ) -> Answer:
        """Make a call that may be made, or tell the model why not."""
        _check_place(handler)
        late = self._guard.asks and is_late(request.runtime.config)
        passed = enter(self._guard, request, is_late=late)
        if not isinstance(passed, Passed):
            return passed
        with self._making(passed) as inside:
            answer = handler(passed.request)
        return cast("Answer", leave(self._guard, passed, answer, inside))

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Answer]]
    ) -> Answer:
        """Make a call that may be made, or tell the model why not."""
        _check_place(handler)
        late = self._guard.asks and await ais_late(request.runtime.config)
        passed = enter(self._guard, request, is_late=late)
        if not isinstance(passed, Passed):
            return passed
        with self._making(passed) as inside:
            answer = await handler(passed.request)
        return cast("Answer", leave(self._guard, passed, answer, inside))

    @contextmanager
    def _making(self, passed: Passed) -> Iterator[Inside]:
        """Make a call; what came of one that raised is kept."""
        inside = Inside()
        try:
            with within(passed, self._guard.rules.nesting) as inside:
                yield inside
        except Exception:
            self._lose(passed, inside)
            raise

    def _lose(self, passed: Passed, inside: Inside) -> None:
        """Keep what came of a call that raised: middleware around this may make a result of it."""
        call_id = passed.request.tool_call["id"] or ""
        session = inside.session or passed.session
        tell_around(passed.thread, call_id, inside.labels, session)
        if inside.labels == Labels() and inside.session is None:
            return
        while len(self._lost) >= _REMEMBERED_CALLS:
            self._lost.popitem(last=False)
        self._lost[_thread_of(passed.request.runtime.config), passed.message, call_id] = inside

    def _found(self, messages: Sequence[AnyMessage], thread: Thread) -> Thread:
        """The thread with what came of calls that raised and were answered by others."""
        if not self._lost:
            return thread
        name = _thread_of(get_config())
        for message in messages:
            if not isinstance(message, AIMessage):
                continue
            for call in message.tool_calls:
                inside = self._lost.pop((name, message.id or "", call["id"] or ""), None)
                if inside is not None:
                    session = thread.session.join(inside.session or Labels())
                    seen = thread.seen.join(inside.labels)
                    thread = replace(thread, seen=seen, session=session)
        return thread

    # `on_denied="raise"`: by now the state has the session and an answer to every call, so the
    # thread can go on after the exception.

    def before_agent(self, state: State, runtime: Runtime[ContextT]) -> Update:  # noqa: ARG002 - LangChain's signature
        """Forget a denial that an earlier run raised; take the labels of the call around this."""
        if self._guard.asks:
            check_can_ask(get_config())
        outer, thread = around(), read(state)
        if outer is None:
            return update(is_raised=True) if thread.refused is not None else None
        name = thread.agent or uuid4().hex
        return update(seen=outer.seen, agent=name, is_raised=thread.refused is not None)

    async def abefore_agent(self, state: State, runtime: Runtime[ContextT]) -> Update:
        """Forget a denial that an earlier run raised."""
        return self.before_agent(state, runtime)

    def before_model(self, state: State, runtime: Runtime[ContextT]) -> Update:  # noqa: ARG002 - LangChain's signature
        """Raise a denial, if there is one to raise."""
        thread = read(state)
        if thread.refused is None:
            return None
        arguments = _arguments(state["messages"], thread.refused.message, thread.refused.call_id)
        labels = self._guard.rules.argument_labels(thread.seen)
        raise error_of(thread.refused.denial, arguments, labels)

    async def abefore_model(self, state: State, runtime: Runtime[ContextT]) -> Update:
        """Raise a denial, if there is one to raise."""
        return self.before_model(state, runtime)

    def after_agent(self, state: State, runtime: Runtime[ContextT]) -> Update:
        """Raise a denial after which the model was not asked again, as with `return_direct`."""
        if around() is not None:
            thread = self._found(state["messages"], read(state))
            labels_given(labels_seen(self._guard.rules, state["messages"], thread))
        return self.before_model(state, runtime)

    async def aafter_agent(self, state: State, runtime: Runtime[ContextT]) -> Update:
        """Raise a denial after which the model was not asked again."""
        return self.after_agent(state, runtime)


def _thread_of(config: Mapping[str, Any]) -> str:
    return str((config.get("configurable") or {}).get("thread_id") or "")


def _is_ai(message: AnyMessage) -> bool:
    return isinstance(message, AIMessage)


def _arguments(messages: Sequence[AnyMessage], message: str, call_id: str) -> dict[str, Any]:
    for one in messages:
        if isinstance(one, AIMessage) and one.id == message:
            return next((call["args"] for call in one.tool_calls if call["id"] == call_id), {})
    return {}


def _check_place(handler: Callable[..., object]) -> None:
    """Refuse to run around other middleware: it could make another call than the checked one.

    The innermost wrapper is handed LangGraph's function that runs the tool, all others one of
    LangChain's that calls the next wrapper.
    """
    if getattr(handler, "__module__", "").startswith("langchain.agents"):
        msg = (
            "`PolicyMiddleware` must be the last of `middleware` that wraps tool calls: what "
            "stands after it could change a call that was checked. Move it to the end."
        )
        raise UsageError(msg)
