"""The state of a thread: its session, the labels that the model has seen, and the decisions.

It is two private fields of the agent's state, so each thread has its own. Labels may be many and
seldom change; decisions are few and change with each message of the model. A checkpointer stores a
field anew when it changes, so each of the two has its own field, and an update has only what is
new.

A caller's input cannot contain the fields, unless agents share the labels (`SharedSessionState`). A
state update from outside or a command that writes them is ignored, and a value from LangGraph's
`Overwrite` raises an error: the fields hold bytes, which JSON from elsewhere cannot contain.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, NamedTuple, NotRequired

from langchain.agents.middleware.types import AgentState, PrivateStateAttr
from typing_extensions import TypedDict  # of the same kind as LangGraph's own states

from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import ALL, NO_LABELS, Labels

FIELD = "sequrity_policy"
"""The session and the labels that the model has seen."""

DECISIONS = "sequrity_decisions"
"""The decisions on the newest message. They may also be in `FIELD`: in a thread of a version with
one field, and in the state that an agent returns to the graph around it."""

FIELDS = (FIELD, DECISIONS)
_LOG = logging.getLogger("langchain_sequrity.middleware")
_EMPTY = b"{}"
_OF_SESSION = ("session", "session_id", "revision", "is_partial")
_KEYS = {*_OF_SESSION, "agent", "seen", "plan", "refused", "labelled", "result_of"}


@dataclass(frozen=True, slots=True)
class CheckedCall:
    """The decision on one call.

    Attributes:
        digest: Hash of policy, message, call and labels. The decision is for exactly these.
        denial: Why the call must not be made; `None` if it may.
    """

    digest: str
    denial: Denial | None


@dataclass(frozen=True, slots=True)
class CheckedMessage:
    """The decisions on the calls of one message.

    Attributes:
        message: Id of the message.
        calls: The decisions by the id of the call.
        closed: Whether a call of the message changes the session when it ends. Then no other call
            may follow.
        base: The session before the first call.
    """

    message: str = ""
    calls: Mapping[str, CheckedCall] = field(default_factory=dict)
    closed: bool = False
    base: Labels = field(default_factory=Labels)


@dataclass(frozen=True, slots=True)
class PendingDenial:
    """A denial that will be raised."""

    message: str
    call_id: str
    denial: Denial


class SessionRecord(NamedTuple):
    """The session of a thread.

    Attributes:
        id: Its id; empty if no session has begun.
        revision: How often its labels have changed.
        labels: Its labels.
        is_partial: Whether it began in a conversation with earlier turns, without their state.
    """

    id: str = ""
    revision: int = 0
    labels: Labels = NO_LABELS
    is_partial: bool = False


NO_SESSION = SessionRecord()


@dataclass(frozen=True, slots=True)
class ThreadState:
    """The state of a thread.

    Attributes:
        session: The session.
        seen: The join of the labels of all tool results that the model has seen.
        stored_seen: Those of them that the state has.
        checked: The decisions on the newest message with calls.
        pending: A denial that will be raised.
        labelled: Ids of calls of that message whose results have their labels.
        agent: Name of an agent that runs inside another graph.
        is_passed: Whether the graph around the agent passed the field.
    """

    session: SessionRecord = NO_SESSION
    seen: Labels = NO_LABELS
    stored_seen: Labels = NO_LABELS
    checked: CheckedMessage = field(default_factory=CheckedMessage)
    pending: PendingDenial | None = None
    labelled: frozenset[str] = frozenset()
    agent: str = ""
    is_passed: bool = False


class ThreadLabels(NamedTuple):
    """The labels of a thread.

    Attributes:
        session: The session's labels.
        seen: The join of the labels of all tool results that the model has seen.
    """

    session: Labels
    seen: Labels


# LangGraph reads and joins the same state several times in a step.
_cached = lru_cache(maxsize=64)


def thread_labels(state: Mapping[str, Any]) -> ThreadLabels:
    """Read the labels of a thread.

    Args:
        state: The agent's state, such as `agent.get_state(config).values`.

    Returns:
        The labels, without tags of the service's own such as `__non_executable`; those of a new
        thread if no call was checked in it.
    """
    thread = read_thread(state)
    return ThreadLabels(thread.session.labels.without_reserved(), thread.seen.without_reserved())


def read_thread(state: Any) -> ThreadState:
    """Read the thread from the agent's state.

    Raises:
        UsageError: If other code than this package has written the field.
    """
    if not isinstance(state, Mapping):
        msg = "`PolicyMiddleware` needs a state that is a dict, like that of `create_agent`."
        raise UsageError(msg)
    labels, decisions = (state.get(name, b"") for name in FIELDS)
    if not isinstance(labels, bytes) or not isinstance(decisions, bytes):
        raise _written_elsewhere()
    return _thread(labels, decisions)


def is_field_of(value: Any, session_id: str) -> bool:
    """Whether a value is the field of an agent of a session."""
    if not isinstance(value, bytes) or not session_id:
        return False
    return _labels_in(value)[0].id == session_id


@_cached
def _labels_in(value: bytes) -> tuple[SessionRecord, Labels]:
    fields = _parsed(value)
    session = SessionRecord(
        fields.get("session_id", ""),
        fields.get("revision", 0),
        _labels(fields.get("session")),
        fields.get("is_partial", False),
    )
    return session, _labels(fields.get("seen"))


@_cached
def _thread(labels: bytes, decisions: bytes) -> ThreadState:
    session, seen = _labels_in(labels)
    fields = _merged(_parsed(labels), newest := _parsed(decisions))
    checked, pending = fields.get("plan"), newest.get("refused", fields.get("refused"))
    return ThreadState(
        session,
        seen,
        seen,
        CheckedMessage() if checked is None else _checked(checked, session.labels),
        pending and PendingDenial(**pending | {"denial": Denial.from_json(pending["denial"])}),
        frozenset(fields.get("labelled") or ()),
        fields.get("agent", ""),
        is_passed=bool(labels),
    )


def thread_update(
    thread: ThreadState,
    *,
    session: SessionRecord | None = None,
    seen: Labels = NO_LABELS,
    agent: str = "",
    checked: CheckedMessage | None = None,
    pending: PendingDenial | None = None,
    is_raised: bool = False,
    result_of: str = "",
    is_marked: bool = False,
) -> dict[str, bytes]:
    """An update of the agent's state: what the state does not have; empty without a change.

    Args:
        thread: The thread as the state has it.
        session: The session.
        seen: Labels to join to those that the model has seen.
        agent: The name of an agent that runs inside another graph.
        checked: The decisions on a message.
        pending: A denial that will be raised.
        is_raised: Whether the pending denial was raised.
        result_of: Id of a call to whose result the update belongs. The result has its labels.
        is_marked: Whether the state must know that it has them, also if nothing else changes.
    """
    labels: dict[str, Any] = {}
    decisions: dict[str, Any] = {}
    if session is not None and session != thread.session:
        labels |= zip(_OF_SESSION, _values_of(session), strict=True)
        labels |= {"result_of": result_of} if result_of else {}
    if (added := _added(thread.stored_seen, seen)) != NO_LABELS:
        labels["seen"] = added.to_wire()
    if agent:
        decisions["agent"] = agent
    if checked is not None:
        after = thread.session.labels if session is None else session.labels
        decisions |= {"plan": _plan(checked, after), "labelled": []}
    if pending is not None or is_raised:
        decisions["refused"] = pending and {
            "message": pending.message,
            "call_id": pending.call_id,
            "denial": pending.denial.to_json(),
        }
    if result_of and (labels or decisions or is_marked):
        decisions["labelled"] = [result_of]
    changes = ((FIELD, labels), (DECISIONS, decisions))
    return {name: _written(values) for name, values in changes if values}


def _values_of(session: SessionRecord) -> tuple[Any, ...]:
    return session.labels.to_wire(), session.id, session.revision, session.is_partial


def _added(before: Labels, labels: Labels) -> Labels:
    """The part of some labels that changes others, if it is joined to them."""
    joined = before.join(labels)
    consumers = frozenset({ALL}) if joined.consumers == before.consumers else labels.consumers
    return Labels(joined.producers - before.producers, consumers, joined.tags - before.tags)


def merge_updates(old: bytes, new: bytes) -> bytes:
    """Apply an update to a field. This is the reducer of the channels.

    An update may also be the whole field of another agent of the session, which began with an
    earlier value of this one. The order of updates does not matter: the session with the higher
    revision stays, and labels are joined.
    """
    if not isinstance(new, bytes):
        # An error here would end the thread for good: LangGraph has stored the update already.
        _LOG.warning("Ignored an update of the field `%s` or `%s` by other code.", *FIELDS)
        return old
    if not isinstance(old, bytes):
        raise _written_elsewhere()
    return _joined(old, new)


@_cached
def _joined(old: bytes, new: bytes) -> bytes:
    return _written(_merged(_parsed(old), _parsed(new)))


def _merged(stored: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    changes = dict(update)
    if "seen" in changes and changes["seen"] != stored.get("seen"):
        joined = _labels(stored.get("seen")).join(_labels(changes["seen"]))
        changes["seen"] = joined.to_wire()
    if changes.get("session_id"):
        changes |= _newer_session(stored, changes)
    if changes.get("labelled") and not _is_other_plan(stored, changes):
        changes["labelled"] = sorted({*stored.get("labelled", []), *changes["labelled"]})
    if stored.get("refused") and changes.get("refused"):
        del changes["refused"]
    changes.pop("result_of", None)
    return {**stored, **changes}


def _newer_session(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    before, after = stored.get("revision", 0), changes["revision"]
    is_same = stored.get("session_id") == changes["session_id"]
    # Other middleware may return the result of a call of another thread, from a cache.
    is_of_result = "result_of" in changes or (changes.get("labelled") and "plan" not in changes)
    is_of_another = not is_same and is_of_result
    if (is_same and before > after) or (is_of_another and stored.get("session_id")):
        return {name: stored[name] for name in _OF_SESSION if name in stored}
    if is_same and before < after:
        return {}
    joined = _labels(stored.get("session")).join(_labels(changes["session"]))
    return {"session": joined.to_wire(), "revision": max(before, after)}


def _is_other_plan(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
    old, new = stored.get("plan"), changes.get("plan")
    return new is not None and (old is None or old["message"] != new["message"])


class PolicyState(AgentState[Any]):
    """The state of an agent with `PolicyMiddleware`."""

    # LangGraph uses a reducer only if it is the last annotation.
    sequrity_policy: NotRequired[Annotated[bytes, PrivateStateAttr, merge_updates]]
    sequrity_decisions: NotRequired[Annotated[bytes, PrivateStateAttr, merge_updates]]


class SharedSessionState(TypedDict):
    """A base for the state of a graph whose agents count as one session.

    The agents have `PolicyMiddleware(…, shared_session=True)`. The graph passes them the field
    `sequrity_policy`, and takes it back with their results. JSON cannot write it.

    Example:
        ```python
        from langchain.agents import create_agent
        from langchain_core.language_models import FakeListChatModel
        from langgraph.checkpoint.memory import InMemorySaver
        from langgraph.graph import START, MessagesState, StateGraph
        from langchain_sequrity.middleware import PolicyMiddleware, SharedSessionState


        class TeamState(MessagesState, SharedSessionState):
            pass


        policy = PolicyMiddleware(
            'tool "pay" { session before { @tags |= {"tried"}; } }', shared_session=True
        )
        model = FakeListChatModel(responses=["Hello."])
        clerk = create_agent(model, middleware=[policy], name="clerk")
        graph = StateGraph(TeamState)
        graph.add_node("clerk", clerk)
        graph.add_edge(START, "clerk")
        team = graph.compile(checkpointer=InMemorySaver())
        thread = {"configurable": {"thread_id": "1"}}
        for text in ("Hello.", "Hello again."):
            state = team.invoke({"messages": text}, thread)
        assert len(state["messages"]) == 4
        ```
    """

    sequrity_policy: NotRequired[Annotated[bytes, merge_updates]]


class SharedPolicyState(AgentState[Any], SharedSessionState):
    """The state of an agent with `PolicyMiddleware(shared_session=True)`."""

    sequrity_decisions: NotRequired[Annotated[bytes, PrivateStateAttr, merge_updates]]


@_cached
def _parsed(value: bytes) -> Mapping[str, Any]:
    parsed = json.loads(value or _EMPTY)
    if isinstance(parsed, dict) and parsed.keys() <= _KEYS:
        return parsed
    raise _written_elsewhere()


def _written(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def _written_elsewhere() -> UsageError:
    msg = (
        f"Other code than `PolicyMiddleware` wrote the field `{FIELD}` or `{DECISIONS}` of the "
        "state. The policy depends on these fields; remove them from updates and commands."
    )
    return UsageError(msg)


def _labels(wire: object) -> Labels:
    return NO_LABELS if wire is None else Labels.from_wire(wire)


def _plan(checked: CheckedMessage, after: Labels) -> dict[str, Any]:
    """The decisions as JSON, without a base that is the session after them."""
    entries = {
        call_id: {"digest": call.digest, "denial": call.denial and call.denial.to_json()}
        for call_id, call in checked.calls.items()
    }
    base = None if checked.base == after else checked.base.to_wire()
    return {"message": checked.message, "entries": entries, "closed": checked.closed, "base": base}


def _checked(plan: Mapping[str, Any], after: Labels) -> CheckedMessage:
    calls = {
        call_id: CheckedCall(entry["digest"], entry["denial"] and Denial.from_json(entry["denial"]))
        for call_id, entry in plan["entries"].items()
    }
    base = after if plan["base"] is None else _labels(plan["base"])
    return CheckedMessage(plan["message"], calls, plan["closed"], base)
