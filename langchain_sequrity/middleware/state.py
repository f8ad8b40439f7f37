"""What an agent's state keeps of a thread: its session, what was seen, what was decided.

It is one private field of the state, so each thread has its own and a fork has that of its
checkpoint. A caller's input cannot have the field. What can reach every field of a state (an update
of it from outside, a command) is ignored, and what LangGraph's `Overwrite` puts there is refused:
the field holds bytes, and whatever comes from elsewhere as JSON has none.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Annotated, Any, NamedTuple, NotRequired

from langchain.agents.middleware.types import AgentState, PrivateStateAttr

from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels

FIELD = "sequrity_policy"
_LOG = logging.getLogger("langchain_sequrity.middleware")
_FIELDS = ("session", "agent", "seen", "plan", "refused", "labelled")


@dataclass(frozen=True, slots=True)
class Entry:
    """What was decided on one call.

    Attributes:
        digest: Of policy, message, call and labels: the decision is for exactly this.
        denial: Why it must not be made; `None` if it may.
    """

    digest: str
    denial: Denial | None

    def to_json(self) -> dict[str, Any]:
        """What the state keeps of it."""
        return {"digest": self.digest, "denial": self.denial and asdict(self.denial)}


@dataclass(frozen=True, slots=True)
class Plan:
    """What was decided on the calls of one message.

    Attributes:
        message: Id of the message.
        entries: By id of the call.
        closed: Whether a call in it changes the session when it ends, so that none may follow.
        base: The session before the first call.
    """

    message: str = ""
    entries: Mapping[str, Entry] = field(default_factory=dict)
    closed: bool = False
    base: Labels = field(default_factory=Labels)


@dataclass(frozen=True, slots=True)
class Refused:
    """A denial that is to be raised."""

    message: str
    call_id: str
    denial: Denial


@dataclass(frozen=True, slots=True)
class Thread:
    """What is kept of a thread.

    Attributes:
        session: The session's labels.
        seen: The join of the labels of all tool results that the model has seen.
        plan: What was decided on the newest message with calls.
        refused: A denial that is to be raised.
        labelled: Ids of calls of that message whose results have their labels.
        agent: Tells an agent that runs within a call of another one from those beside it.
    """

    session: Labels = field(default_factory=Labels)
    seen: Labels = field(default_factory=Labels)
    plan: Plan = field(default_factory=Plan)
    refused: Refused | None = None
    labelled: frozenset[str] = frozenset()
    agent: str = ""


class ThreadLabels(NamedTuple):
    """The labels of a thread.

    Attributes:
        session: The session's labels.
        seen: The join of the labels of all tool results that the model has seen.
    """

    session: Labels
    seen: Labels


# LangGraph asks for a state, and for the joined one, several times in a step.
_remembered = lru_cache(maxsize=64)


def thread_labels(state: Mapping[str, Any]) -> ThreadLabels:
    """Look at the labels of a thread.

    Args:
        state: The agent's state, as `agent.get_state(config).values`.

    Returns:
        Its labels; those of a new thread if no call was checked in it.
    """
    thread = read(state)
    return ThreadLabels(thread.session, thread.seen)


def read(state: Any) -> Thread:
    """Read what a state keeps.

    Raises:
        UsageError: If something else than this package has written it.
    """
    if not isinstance(state, Mapping):
        msg = "`PolicyMiddleware` needs a state that is a dict, as `create_agent` has."
        raise UsageError(msg)
    value = state.get(FIELD, b"")
    if not isinstance(value, bytes):
        raise _written_elsewhere()
    return _thread(value) if value else Thread()


@_remembered
def _thread(value: bytes) -> Thread:
    kept = _parsed(value)
    plan, refused = kept.get("plan"), kept.get("refused")
    return Thread(
        _labels(kept.get("session")),
        _labels(kept.get("seen")),
        Plan() if plan is None else _plan(plan),
        refused and Refused(**refused | {"denial": Denial.from_json(refused["denial"])}),
        frozenset(kept.get("labelled") or ()),
        kept.get("agent", ""),
    )


def update(
    *,
    session: Labels | None = None,
    agent: str | None = None,
    seen: Labels | None = None,
    plan: Plan | None = None,
    refused: Refused | None = None,
    is_raised: bool = False,
    labelled: str | None = None,
) -> dict[str, bytes]:
    """An update of a state.

    Args:
        session: The session's labels from now on.
        agent: The name of an agent that runs within a call.
        seen: Labels to join to those that were seen.
        plan: What was decided on a message.
        refused: A denial that is to be raised.
        is_raised: Whether the last such denial was raised.
        labelled: Id of a call whose result has its labels.
    """
    changes: dict[str, Any] = {}
    if session is not None:
        changes["session"] = session.to_wire()
    if agent is not None:
        changes["agent"] = agent
    if seen is not None:
        changes["seen"] = seen.to_wire()
    if plan is not None:
        changes["plan"] = {
            "message": plan.message,
            "entries": {call_id: entry.to_json() for call_id, entry in plan.entries.items()},
            "closed": plan.closed,
            "base": plan.base.to_wire(),
        }
        changes["labelled"] = []
    if labelled is not None:
        changes["labelled"] = [labelled]
    if refused is not None:
        changes["refused"] = asdict(refused)
    elif is_raised:
        changes["refused"] = None
    return {FIELD: json.dumps(changes).encode()}


def merged(old: bytes, new: bytes) -> bytes:
    """Take an update into the field; the channel's reducer.

    Of calls that run at the same time, at most one changes the session (`policy_middleware`), and
    the order in which labels are joined does not matter.
    """
    if not isinstance(new, bytes):
        # To raise here would end the thread for good: LangGraph has kept the update by now.
        _LOG.warning("An update of the field `%s` from elsewhere was ignored.", FIELD)
        return old
    if not isinstance(old, bytes):
        raise _written_elsewhere()
    return _joined(old, new)


@_remembered
def _joined(old: bytes, new: bytes) -> bytes:
    kept = _parsed(old) if old else {}
    changes = _parsed(new)
    if "seen" in changes:
        joined = _labels(kept.get("seen")).join(_labels(changes["seen"]))
        changes["seen"] = joined.to_wire()
    if changes.get("labelled"):
        changes["labelled"] = [*kept.get("labelled", []), *changes["labelled"]]
    if kept.get("refused") and changes.get("refused"):
        del changes["refused"]
    return json.dumps(kept | changes).encode()


class PolicyState(AgentState[Any]):
    """The state of an agent with `PolicyMiddleware`."""

    # LangGraph takes a reducer only where it stands last.
    sequrity_policy: NotRequired[Annotated[bytes, PrivateStateAttr, merged]]


def _parsed(value: bytes) -> dict[str, Any]:
    parsed = json.loads(value)
    if isinstance(parsed, dict) and set(parsed) <= set(_FIELDS):
        return parsed
    raise _written_elsewhere()


def _written_elsewhere() -> UsageError:
    msg = (
        f"Something else than `PolicyMiddleware` wrote the field `{FIELD}` of the state. It holds "
        "what the policy goes by; leave it out of updates and commands."
    )
    return UsageError(msg)


def _labels(wire: object) -> Labels:
    return Labels() if wire is None else Labels.from_wire(wire)


def _plan(kept: Mapping[str, Any]) -> Plan:
    entries = {
        call_id: Entry(one["digest"], one["denial"] and Denial.from_json(one["denial"]))
        for call_id, one in kept["entries"].items()
    }
    return Plan(kept["message"], entries, kept["closed"], _labels(kept["base"]))
