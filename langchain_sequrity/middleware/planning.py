"""Decides on the calls of a message, in their order, before any of them runs.

LangGraph runs the calls of one message at the same time, each knowing nothing of the others. So all
are decided here, one after the other, each with the session that the ones before it leave. What a
call changes when it has ended is not known yet; where a policy changes the session then, the calls
after it wait for another message (`docs/behaviour.md`, M5).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import ToolCall

from langchain_sequrity.denials import Denial
from langchain_sequrity.labels import Labels
from langchain_sequrity.middleware.denial import not_made
from langchain_sequrity.middleware.rules import Decision, Rules
from langchain_sequrity.middleware.thread import Entry, Plan, Refused, Thread


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
