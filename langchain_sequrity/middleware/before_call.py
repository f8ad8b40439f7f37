"""What happens before a call runs: it is allowed, denied, or put to a human.

Tests run on the oldest and the newest LangGraph; what breaks, breaks here.

What was decided on its message holds for exactly the call that was looked at. Whatever is another
call by now (other middleware or a human edited it, its tool makes other arguments of it) is decided
here. It runs beside the others of its message, so here it may not touch the session unless it is
alone.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.messages import AIMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langgraph._internal._constants import CONFIG_KEY_READ

from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import UsageError
from langchain_sequrity.interrupts import DecisionType, ask
from langchain_sequrity.labels import Labels
from langchain_sequrity.middleware.context import Answer, Guard, Outcome, Passed, Stage
from langchain_sequrity.middleware.state import FIELD, Entry, Plan, Refused, read
from langchain_sequrity.middleware.verdict import Args, Decision, bound, not_made


def read_state(config: Mapping[str, Any], *fields: str) -> Mapping[str, Any]:
    """What the state holds, whatever the node was started with.

    A `Send` may start a node with any state, and a caller may send one.

    Args:
        config: The configuration of a run within a node.
        fields: What to read.
    """
    found: Mapping[str, Any] = config["configurable"][CONFIG_KEY_READ](list(fields), False)  # noqa: FBT003 - its parameter has two names
    return found


def enter(guard: Guard, request: ToolCallRequest, *, is_late: bool) -> Passed | Answer:
    """Let a call through, or answer in its place.

    Args:
        guard: How calls are guarded.
        request: The call, as it is about to run.
        is_late: Whether the thread has gone on since a human was asked about the call.

    Returns:
        The call that may be made, or what the model is told.

    Raises:
        UsageError: If the policy does not fit the agent's tools, the call has no id, or a human
            answers too late.
    """
    if not request.tool_call["id"]:
        msg = "A tool call has no id, so its result could not be told from others."
        raise UsageError(msg)
    guard.rules.check_agent(getattr(request.runtime, "tools", None))
    guard.rules.learn([request.tool])
    return _Entering(guard, request, is_late=is_late).outcome()


_ALLOWED: tuple[DecisionType, ...] = ("approve", "edit", "reject", "respond")
_APPROVED = "_sequrity_approved"
"""Where a `ToolRuntime`, which is made anew whenever a task runs, has what a human let through."""


class _Entering:
    """One call on its way in."""

    def __init__(self, guard: Guard, request: ToolCallRequest, *, is_late: bool) -> None:
        self._guard = guard
        self._rules = guard.rules
        self._request = request
        self._is_late = is_late
        self._call_id = request.tool_call["id"] or ""
        state = read_state(request.runtime.config, "messages", FIELD)
        self._thread = read(state)
        self._session = self._thread.session
        last, self._answered = _last(state.get("messages") or [])
        self._message = (last and last.id) or ""
        if self._message and self._thread.plan.message == self._message:
            self._plan = self._thread.plan
        else:
            self._plan = Plan()
        calls = [] if last is None else last.tool_calls
        self._is_lone = sum(one["id"] not in self._answered for one in calls) == 1

    def outcome(self) -> Passed | Answer:
        """What becomes of the call."""
        call = self._request.tool_call
        if self._call_id in self._answered:
            reason = "it has a result already"
            return self._denied(not_made(call["name"], "failed", reason))
        if self._request.tool is not None and self._request.tool.name != call["name"]:
            reason = "the tool that would run has another name"
            return self._denied(not_made(call["name"], "failed", reason))
        entry = self._plan.entries.get(self._call_id)
        digest = self._rules.digest(self._message, dict(call), self._thread.seen)
        if entry is None or entry.digest != digest:
            return self._changed(entry)
        if entry.denial is None:
            return self._bound(self._request, self._plan.base)
        if self._guard.asks and entry.denial.may_be_approved:
            return self._asked_once(digest, entry.denial)
        return self._denied(entry.denial)

    # A call that is not the one that was decided on

    def _changed(self, entry: Entry | None) -> Passed | Answer:
        call, base = self._request.tool_call, self._session
        denial = entry.denial if entry is not None else None
        if (denial is not None and denial.kind == "waits") or (entry is None and self._plan.closed):
            return self._denied(_waits(call["name"]))
        denial = self._decide(call, call["args"], base)
        return self._bound(self._request, base) if denial is None else self._denied(denial)

    def _bound(
        self, request: ToolCallRequest, base: Labels, *, approved: bool = False
    ) -> Passed | Answer:
        """Let a call through that is allowed as it is written, if it is so for its tool too.

        Args:
            request: The call.
            base: The session before the call was checked.
            approved: Whether a human approved it, though it is denied softly.
        """
        call = request.tool_call
        try:
            made = bound(request.tool, call["args"])
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody knows what will be called
            reason = f"reading its arguments raised {type(error).__name__}"
            if isinstance(error, UsageError):
                reason = str(error)
            return self._denied(not_made(call["name"], "failed", reason))
        if made is not None:
            denial = self._decide(call, made, base if self._is_lone else self._session)
            if denial is not None and not (approved and denial.may_be_approved):
                return self._denied(denial)
        return Passed(request, self._thread, self._message, self._session)

    def _decide(self, call: ToolCall, args: Args, session: Labels) -> Denial | None:
        tool = call["name"]
        if self._rules.touches_session(tool) and not self._is_lone:
            decision = Decision(session, None, _waits(tool))
        else:
            decision = self._rules.decide(tool, args, self._thread.seen, session)
        self._session = decision.session
        self._tell("call", "denied" if decision.denial else "allowed", call, decision)
        return decision.denial

    # A human

    def _asked_once(self, digest: str, denial: Denial) -> Passed | Answer:
        """Ask a human, unless this is another try of a call that was approved.

        LangGraph runs a task from its start when an answer comes. A question between two tries
        would have the first one made again, whatever the answer is.
        """
        runtime = self._request.runtime
        approved: dict[str, Passed] = getattr(runtime, _APPROVED, {})
        if digest in approved:
            return approved[digest]
        outcome = self._asked(denial)
        if isinstance(outcome, Passed):
            setattr(runtime, _APPROVED, {digest: outcome})
        return outcome

    def _asked(self, denial: Denial) -> Passed | Answer:
        request, base, remark = self._request, self._plan.base, ""
        labels = self._rules.argument_labels(self._thread.seen).to_wire()
        while True:
            call = request.tool_call
            name, args = call["name"], call["args"]
            known = replace(denial, tool=name, labels=dict.fromkeys(args, labels))
            said = ask(known, args, _ALLOWED, remark, is_late=self._is_late)
            decision = Decision(self._session, None, denial)
            if said.type == "approve":
                self._tell("human", "approved", call, decision)
                return self._bound(request, base, approved=True)
            if said.type == "reject":
                self._tell("human", "rejected", call, decision)
                return self._denied(replace(denial, kind="rejected", objection=said.message))
            if said.type == "respond":
                self._tell("human", "answered", call, decision)
                told = ToolMessage(said.message, name=name, tool_call_id=self._call_id)
                return self._guard.answer(told, session=self._moved, is_labelled=True)
            tool = self._tool(said.name)
            if tool is None:
                remark = "The agent has no tool of that name; the call is as it was."
                continue
            edited: ToolCall = {**call, "name": said.name, "args": dict(said.args or {})}
            self._tell("human", "edited", edited, decision)
            request, base = request.override(tool_call=edited, tool=tool), self._session
            again = self._decide(edited, edited["args"], base)
            if again is None:
                return self._bound(request, base)
            if not again.may_be_approved:
                return self._denied(again)
            denial, remark = again, "This is the call as it was edited."

    def _tool(self, name: str) -> BaseTool | None:
        if self._request.tool is not None and self._request.tool.name == name:
            return self._request.tool
        return next((one for one in self._request.runtime.tools if one.name == name), None)

    # What is said

    @property
    def _moved(self) -> Labels | None:
        """The session's labels, if they changed here."""
        return self._session if self._session != self._thread.session else None

    def _denied(self, denial: Denial) -> Answer:
        refused = Refused(self._message, self._call_id, denial)
        return self._guard.denied(refused, self._thread, session=self._moved)

    def _tell(self, stage: Stage, outcome: Outcome, call: ToolCall, decision: Decision) -> None:
        config = self._request.runtime.config
        self._guard.tell(stage, outcome, call, decision, seen=self._thread.seen, config=config)


def _waits(tool: str) -> Denial:
    reason = "it is not the call that was checked, and the policy cannot decide on it beside others"
    return not_made(tool, "waits", reason)


def _last(messages: Any) -> tuple[AIMessage | None, frozenset[str]]:
    """The newest message of the model, and the ids of calls that have a result since."""
    answered: set[str] = set()
    for message in reversed(messages):
        if isinstance(message, AIMessage):
            return message, frozenset(answered)
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
    return None, frozenset(answered)
