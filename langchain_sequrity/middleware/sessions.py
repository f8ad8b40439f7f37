"""Which session a run continues, and when that is an error.

The state of a thread stores the session (`state`). This process also keeps each session that it has
seen (`live_session`). A conversation that begins has a new session. One that has earlier turns, but
not the state that they left, is `SessionLost` (`docs/behaviour.md`, P13).
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from threading import RLock
from typing import Any, NamedTuple
from uuid import uuid4
from weakref import finalize

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.base import CheckpointTuple

from langchain_sequrity.errors import SessionLost, UsageError
from langchain_sequrity.middleware.live_session import LiveSession, Origin
from langchain_sequrity.middleware.state import (
    FIELD,
    NO_SESSION,
    SessionRecord,
    ThreadState,
    read_thread,
)
from langchain_sequrity.middleware.subagents import is_after_outer_call, outer_call
from langchain_sequrity.session_memory import (
    GraphRun,
    OnSessionLost,
    graph_run,
    has_earlier_turns,
)
from langchain_sequrity.sync_or_async import call

_MAX_SESSIONS = 10_000
_MAX_RUNS = 1_000


def origin_of(agent: str, message: str, config: Mapping[str, Any]) -> Origin:
    """Where the calls of a message are decided and run."""
    return Origin(agent, message, graph_run(config["configurable"]).step)


class _Beginning(NamedTuple):
    """Where this process met a session first: the session, a checkpoint of that time, a run.

    Attributes:
        session: The session.
        checkpoint: The checkpoint of the outermost graph.
        control: LangGraph's object for the newest run of the session.
    """

    session: LiveSession
    checkpoint: str
    control: object


class _Sessions:
    """The sessions of this process by id and by conversation.

    A conversation is a thread of a checkpointer, or a run without one. Its state may not have the
    session: a fork starts before it began, the first turn of a graph failed, or the graph does not
    pass the state to the agent.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self._by_id: OrderedDict[str, LiveSession] = OrderedDict()
        # By the id of the checkpointer, because a checkpointer need not be hashable.
        self._by_thread: dict[int, OrderedDict[str, _Beginning]] = {}
        # By the id of the run. The entries contain the run, so no id is reused.
        self._by_run: OrderedDict[int, _Beginning] = OrderedDict()

    def get(self, session_id: str) -> LiveSession:
        with self.lock:
            session = self._by_id.pop(session_id, None) or LiveSession(session_id)
            _put(self._by_id, session.id, session, _MAX_SESSIONS)
        return session

    def begin(self, run: GraphRun, *, is_partial: bool, is_shared: bool) -> LiveSession:
        session = LiveSession(uuid4().hex, is_partial=is_partial)
        with self.lock:
            _put(self._by_id, session.id, session, _MAX_SESSIONS)
            if is_shared or not run.is_inside or self.beginning(run) is None:
                self.continue_in(run, session)
        return session

    def continue_in(self, run: GraphRun, session: LiveSession) -> None:
        """Keep the session of a conversation."""
        with self.lock:
            entries: OrderedDict[Any, _Beginning] = self._by_run
            key: object = id(run.control)
            max_entries = _MAX_RUNS
            if run.thread:
                entries = self._threads_of(run.checkpointer)
                key, max_entries = run.thread, _MAX_SESSIONS
            earlier = entries.pop(key, None)
            checkpoint = run.step
            if earlier is not None and earlier.session is session:
                checkpoint = earlier.checkpoint  # that of this run may never be stored
            _put(entries, key, _Beginning(session, checkpoint, run.control), max_entries)

    def beginning(self, run: GraphRun) -> _Beginning | None:
        with self.lock:
            if run.thread:
                return self._threads_of(run.checkpointer).get(run.thread)
            return self._by_run.get(id(run.control)) if run.is_inside else None

    def forget(self, run: GraphRun) -> None:
        with self.lock:
            self._threads_of(run.checkpointer).pop(run.thread, None)

    def _threads_of(self, checkpointer: Any) -> OrderedDict[str, _Beginning]:
        key = id(checkpointer)
        if key not in self._by_thread:
            self._by_thread[key] = OrderedDict()
            finalize(checkpointer, self._by_thread.pop, key, None).atexit = False
        return self._by_thread[key]


def _put(entries: OrderedDict[Any, Any], key: object, value: object, max_entries: int) -> None:
    entries[key] = value
    while len(entries) > max_entries:
        entries.popitem(last=False)


_SESSIONS = _Sessions()


# The law


@dataclass(frozen=True, slots=True)
class SessionLaw:
    """What a policy needs of the turns before, and what follows if it is lost.

    Attributes:
        uses_session: Whether rules read or change the labels of the session.
        tests_labels: Whether rules test labels of arguments.
        is_shared: Whether the graph around the agent passes the state to it and takes it back.
        on_lost: What follows if the session is lost.
    """

    uses_session: bool
    tests_labels: bool
    is_shared: bool
    on_lost: OnSessionLost

    def session_of(
        self,
        thread: ThreadState,
        messages: Sequence[AnyMessage],
        config: Mapping[str, Any],
        stored: SessionRecord | None = NO_SESSION,
    ) -> LiveSession:
        """The session that a run continues or begins.

        Args:
            thread: The state of the thread.
            messages: The conversation before the model's first message of this run.
            config: The run's configuration.
            stored: The newest session of the thread in the checkpointer; `None` if it cannot be
                known.

        Raises:
            SessionLost: If the conversation has earlier turns whose state is lost.
            UsageError: If the state is shared, and the graph around the agent does not pass it.
        """
        run = graph_run(config["configurable"])
        with _SESSIONS.lock:  # agents may begin at the same time
            outer = outer_call()
            is_shared = self.is_shared and run.is_inside
            has_conversation = is_shared or not run.is_inside
            newest = stored or NO_SESSION
            if outer is not None:
                session = outer.session
                if thread.session.id not in ("", session.id):  # an agent with a memory of its own
                    labels = session.labels.join(thread.session.labels)
                    session.set_labels(labels, Origin(thread.agent, "", run.step))
            elif is_shared and not thread.is_passed:
                raise UsageError(_NOT_PASSED)
            elif thread.session.id or (newest.id and has_conversation):
                session = _SESSIONS.get(thread.session.id or newest.id)
                for record in (thread.session, newest):
                    if record.id == session.id:
                        session.catch_up(record)
                if has_conversation:
                    _SESSIONS.continue_in(run, session)
            elif (is_shared or (self.uses_session and not run.is_inside)) and (
                beginning := _SESSIONS.beginning(run)
            ) is not None:
                session = beginning.session
                _SESSIONS.continue_in(run, session)
            else:
                past = _before_this_turn(messages) if is_shared else messages
                return self._begin(thread, past, run, stored)
            if session.is_partial and self.uses_session:
                self._lose(_PARTIAL)
                revision = session.revision + 1
                session = _SESSIONS.begin(run, is_partial=False, is_shared=is_shared)
                session.catch_up(SessionRecord(session.id, revision))
            return session

    def _begin(
        self,
        thread: ThreadState,
        past: Sequence[AnyMessage],
        run: GraphRun,
        stored: SessionRecord | None,
    ) -> LiveSession:
        # A version whose sessions had no id has stored the state of the earlier turns.
        is_known = bool(thread.checked.message)
        if not is_known:
            self._check_nothing_is_lost(past, run, stored)
        is_partial = has_earlier_turns(past) and not is_known and not self.uses_session
        session = _SESSIONS.begin(run, is_partial=is_partial, is_shared=self.is_shared)
        session.catch_up(SessionRecord(session.id, 1, thread.session.labels))
        return session

    def _check_nothing_is_lost(
        self, past: Sequence[AnyMessage], run: GraphRun, stored: SessionRecord | None
    ) -> None:
        if (self.uses_session or self.tests_labels) and run.is_inside and is_after_outer_call():
            self._lose(_AFTER_CALL)
        if self.uses_session and stored is None:
            self._lose(_NOT_KNOWN)
        if self.uses_session and ((stored and stored.id) or _SESSIONS.beginning(run) is not None):
            self._lose(_OTHER_AGENT)
        is_lost = self.uses_session and has_earlier_turns(past)
        if is_lost or (self.tests_labels and _hides_results(past)):
            self._lose(_NOT_SHARED if run.is_inside else _NOT_STORED)

    def _lose(self, reason: str) -> None:
        if self.on_lost == "raise":
            lost = "tags and attempts" if self.uses_session else "labels of what the model has seen"
            msg = f"{reason} So the {lost} that the policy tests are unknown. {_ACCEPT}"
            raise SessionLost(msg)


_ACCEPT = (
    'If they may be forgotten, set `PolicyMiddleware(…, on_session_lost="restart")`. '
    "No call was made."
)
_NOT_STORED = (
    "The conversation has earlier turns, but the agent has no state of them. Construct the agent "
    "with a checkpointer, and run each turn with the same `thread_id`; then pass only new messages."
)
_NOT_SHARED = (
    "The conversation has earlier turns, but the graph around the agent did not pass their state "
    "to it. Share the state: `PolicyMiddleware(…, shared_session=True)` for each agent, and "
    "`SharedSessionState` as a base of the graph's state; give the graph a checkpointer."
)
_OTHER_AGENT = (
    "The thread already has a session of another agent or turn, and the graph around this agent "
    "does not pass it. Share it: `PolicyMiddleware(…, shared_session=True)` for each agent, and "
    "`SharedSessionState` as a base of the graph's state."
)
_AFTER_CALL = (
    "A tool of another guarded agent started this agent, but the call of the tool has ended. Let "
    "the tool wait for this agent's answer."
)
_NOT_KNOWN = (
    "The thread has earlier steps, and its checkpointer does not show whether they had a session: "
    "it cannot list its checkpoints, or the newest thousand of them have none. Use a checkpointer "
    "that can list them, or a new `thread_id`."
)
_PARTIAL = (
    "The session began in a conversation with earlier turns, under a policy without rules on the "
    "session, so it does not know them. Construct the outermost agent or graph with a checkpointer."
)
_NOT_PASSED = (
    "`PolicyMiddleware(shared_session=True)` needs the session of the graph around the agent, and "
    f"its input has no field `{FIELD}`. Add `SharedSessionState` to the bases of the graph's "
    "state. If a node, a `Send` or a tool calls the agent with an input of its own, add the field: "
    f'`{{…, "{FIELD}": state["{FIELD}"]}}`, and return it with the result.'
)


def _before_this_turn(messages: Sequence[AnyMessage]) -> Sequence[AnyMessage]:
    """The conversation up to the user's newest message: other agents may have spoken after it."""
    ends = (n for n in range(len(messages), 0, -1) if isinstance(messages[n - 1], HumanMessage))
    return messages[: next(ends, len(messages))]


def _hides_results(messages: Sequence[AnyMessage]) -> bool:
    """Whether the model may have seen results that the conversation does not contain.

    An answer must follow the results from which it was made; a text without them could come from
    anywhere. Results that are there get their labels again (`tool_call.labels_seen`). That earlier
    turns were left out as a whole cannot be noticed.
    """
    author_of: dict[str | None, str | None] = {}
    open_calls: set[str | None] = set()
    previous: AnyMessage | None = None
    for message in messages:
        match message:
            case SystemMessage():
                continue
            case AIMessage(tool_calls=[]):
                is_answer = isinstance(previous, ToolMessage)
                if not is_answer or author_of[previous.tool_call_id] != message.name:  # type: ignore[union-attr]
                    return True
            case AIMessage():
                if open_calls:
                    return True
                open_calls = {call["id"] for call in message.tool_calls}
                author_of |= dict.fromkeys(open_calls, message.name)
            case ToolMessage():
                if message.tool_call_id not in author_of:
                    return True
                open_calls.discard(message.tool_call_id)
            case _:
                if open_calls or message.additional_kwargs.get("lc_source") == "summarization":
                    return True
        previous = message
    return False


# What the checkpointer knows more than the state
#
# A fork starts from a checkpoint that does not know the branch that it abandons, and a graph whose
# agent failed does not have the agent's state. The newest checkpoints of the thread do, those of
# inner graphs among them. A thread that was deleted has none: its id begins a conversation.

_CHECKPOINT_LIMITS = (10, 100, 1_000)  # nearly always the newest few are enough


async def stored_session(config: Mapping[str, Any], *, is_async: bool) -> SessionRecord | None:
    """The newest session that the checkpointer stores for a thread; `None` if it cannot be known.

    Args:
        config: The run's configuration.
        is_async: Whether the run is in an event loop.
    """
    run = graph_run(config["configurable"])
    if not run.thread or outer_call() is not None:
        return NO_SESSION
    ask = partial(call, run.checkpointer, is_async=is_async)
    thread = {"configurable": {"thread_id": run.thread}}
    for limit in _CHECKPOINT_LIMITS:
        try:
            entries = await ask("list", thread, limit=limit)
        except NotImplementedError:  # a checkpointer need not have this method
            entries = None
        record = _newest_record(entries or ())
        beginning = _SESSIONS.beginning(run)
        if beginning is not None and not (
            record.id == beginning.session.id
            or beginning.control is run.control  # the run may not have stored it yet
            or await ask("get_tuple", _checkpoint_of(run, beginning.checkpoint))
        ):
            _SESSIONS.forget(run)
            beginning = None
        if record.id or beginning is not None:
            return record
        if entries is None:
            return NO_SESSION if await _is_first_run(run, is_async=is_async) else None
        if len(entries) < limit:
            return NO_SESSION
    return None


async def _is_first_run(run: GraphRun, *, is_async: bool) -> bool:
    """Whether no checkpoint before the newest one is of another run."""
    inputs, config = 0, _checkpoint_of(run)
    while config and (
        entry := await call(run.checkpointer, "get_tuple", config, is_async=is_async)
    ):
        inputs += entry.metadata.get("source") != "loop"
        if inputs > 1:
            return False
        config = entry.parent_config
    return True


def _checkpoint_of(run: GraphRun, checkpoint: str = "") -> Any:
    """The configuration for a checkpoint of the outermost graph, or for the newest one."""
    options = {"thread_id": run.thread, "checkpoint_ns": ""}
    if checkpoint:
        options["checkpoint_id"] = checkpoint
    return {"configurable": options}


def _newest_record(entries: Iterable[CheckpointTuple]) -> SessionRecord:
    fields = (value for entry in entries for value in _stored_fields(entry))
    records = (read_thread({FIELD: value}).session for value in fields if isinstance(value, bytes))
    return max(records, key=attrgetter("revision"), default=NO_SESSION)


def _stored_fields(entry: CheckpointTuple) -> Iterator[object]:
    """The field in a checkpoint, and in the results of its step, which may have failed."""
    yield entry.checkpoint["channel_values"].get(FIELD)
    yield from (value for _, channel, value in entry.pending_writes or () if channel == FIELD)
