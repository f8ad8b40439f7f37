"""Sessions of threads, for policies with rules on the session (`docs/behaviour.md`, P13).

What such a policy reads of the session must be there in the next turn. The messages do not always
say which session that is: a failed turn leaves no message, and summaries remove them. So the
session is remembered by thread. LangGraph gives the thread, or a run without a thread counts as one
itself. Outside of LangGraph it is `thread_id`, or `session_id` of `RunnableWithMessageHistory`.

A process remembers its threads, and a graph's store remembers them for other processes. If neither
knows the thread, its newest checkpoints may have a message with the session, and they tell whether
the thread had an earlier run.

The agents of a thread share its session, one after the other. An agent that runs inside a tool
cannot have the session of the agent outside: that session waits for the tool's result.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hmac import compare_digest
from typing import Any
from weakref import WeakKeyDictionary

from langchain_core.messages import BaseMessage

from langchain_sequrity.chat_models.run_config import inherited_configurable, thread_in
from langchain_sequrity.chat_models.session_ids import Seal, last_own_session
from langchain_sequrity.errors import SessionLost, UsageError
from langchain_sequrity.session_memory import OnSessionLost, graph_run, has_earlier_turns
from langchain_sequrity.sync_or_async import call, pause

_STORE_NAMESPACE = ("langchain_sequrity", "sessions")
_STORED = ("session_id", "digest", "agent")
_MOST_THREADS = 10_000
"""How many threads are remembered of each checkpointer, and of all threads without one."""
_CHECKPOINTS_READ = 30
"""How many of the newest checkpoints of a thread are searched for its session."""
_CHECKPOINT_WAIT, _CHECKPOINT_CHECKS = 0.01, 100
"""Pause in seconds, and number of looks, while LangGraph stores checkpoints and writes."""
_CHANGED = "changed size during iteration"
"""In the error of an `InMemorySaver` to which another thread writes while it is read."""
_LOCK = threading.Lock()
_logger = logging.getLogger("langchain_sequrity")

SessionIn = Callable[[Any], str | None]
"""Finds the session in a checkpoint, which is a `CheckpointTuple` of LangGraph."""


@dataclass(slots=True)
class ThreadSession:
    """A session of a thread.

    Attributes:
        session_id: The session.
        digest: Proves which connection obtained it.
        agent: The agent that used it last: the names of the nodes around the model.
        is_waiting: Whether it waits for the result of a tool call, as far as this process knows.
        has_failed: Whether its last turn failed, so that the messages lack its last reply.
        task: Where the agent last ran: its place in a run, which parallel agents do not share.
    """

    session_id: str
    digest: str
    agent: str
    is_waiting: bool = True
    has_failed: bool = False
    task: tuple[int, str] = (0, "")


@dataclass(slots=True, eq=False)
class Thread:
    """What is remembered of a thread.

    Attributes:
        sessions: Its sessions by id, the newest last. There are several only if the caller accepts
            that a session is lost.
        starting: Number of calls that are starting a session.
        is_new: Whether this process saw that the thread had no earlier run.
        is_stored: Whether the store has its sessions.
        owner: The object whose `id` is the key of the thread; it keeps the `id` from being used
            again.
    """

    sessions: dict[str, ThreadSession] = field(default_factory=dict)
    starting: int = 0
    is_new: bool = False
    is_stored: bool = True
    owner: object = None


_Threads = OrderedDict[Hashable, Thread]
_threads: _Threads = OrderedDict()
_runs: _Threads = OrderedDict()
_threads_by_checkpointer: "WeakKeyDictionary[object, _Threads]" = WeakKeyDictionary()


def forget_threads() -> None:
    """Forget all threads, as a new process has none."""
    with _LOCK:
        for threads in (_threads, _runs, _threads_by_checkpointer):
            threads.clear()


class ThreadMemory:
    """The memory of one call's thread.

    Args:
        owner: Identifies the account of a thread outside of LangGraph.
        on_lost: Whether a lost session raises or is replaced by a new one.
        thread_id: The thread of the call's config, or `None`.
        configurable: The configurable part of LangGraph's config; by default that of the run
            around the call.

    Attributes:
        forked_from: A session that is lost and was replaced, if it is known.
        is_chosen: Whether the caller wants this session whatever the earlier turns were.
    """

    def __init__(
        self,
        owner: str,
        on_lost: OnSessionLost,
        *,
        thread_id: str | None = None,
        configurable: Mapping[str, Any] | None = None,
    ) -> None:
        configurable = inherited_configurable() if configurable is None else configurable
        run = graph_run(configurable)
        thread_id = thread_id or thread_in(configurable)
        self._on_lost = on_lost
        # The names of the nodes around the model, without the ids of their tasks.
        self._agent = "|".join(part.partition(":")[0] for part in run.namespace.split("|"))
        self._task = (id(run.control), run.namespace.rpartition("|")[0])
        self._thread_id = thread_id
        self._store, self._checkpoint = run.store, run.step
        self._checkpointer = run.checkpointer if hasattr(run.checkpointer, "get_tuple") else None
        # An agent inside a tool may run in a thread of its own.
        is_alone = run.control is None
        self._run = Thread() if is_alone else _remembered(_runs, id(run.control), run.control)
        self._thread = self._run
        if thread_id is not None:
            self._thread = _thread(thread_id, owner, self._checkpointer)
        self._recalled: str | None = None
        self._has_earlier_runs = False
        self._is_starting = False
        self._replaces = self.is_chosen = False
        self._session: ThreadSession | None = None
        self.forked_from: str | None = None

    # Before the call

    @property
    def is_known(self) -> bool:
        """Whether this process knows the thread, or there is none to ask about."""
        return bool(self._thread.sessions) or self._thread.is_new or self._thread_id is None

    async def recall(
        self,
        messages: Sequence[BaseMessage],
        session_of_messages: str | None,
        session_in: SessionIn,
        *,
        is_async: bool,
    ) -> None:
        """Ask store and checkpointer about a thread that is not known.

        Args:
            messages: The conversation.
            session_of_messages: The session that they name; then no checkpoint is searched.
            session_in: Finds the session in a checkpoint.
            is_async: Whether the call is in an event loop.

        Raises:
            UsageError: If the checkpointer cannot be read.
        """
        thread = self._thread
        if self._store is not None:
            key = (_STORE_NAMESPACE, self._thread_id)
            item = await call(self._store, "get", *key, is_async=is_async)
            for entry in item.value["sessions"] if item is not None else ():
                # Without messages of it, nobody knows how its last turn ended.
                is_gap = entry["session_id"] != session_of_messages
                fields = {name: entry[name] for name in _STORED}
                session = ThreadSession(**fields, is_waiting=is_gap, has_failed=is_gap)
                with _LOCK:
                    thread.sessions.setdefault(session.session_id, session)
        if self._checkpointer is not None and not (thread.sessions or session_of_messages):
            options = {"configurable": {"thread_id": self._thread_id}}
            ask = partial(_read, self._checkpointer, is_async=is_async)
            try:
                checkpoints = await ask("list", options, limit=_CHECKPOINTS_READ)
                self._recalled = next(filter(None, map(session_in, checkpoints)), None)
                is_first = self._recalled is None and not has_earlier_turns(messages)
                if is_first and self._checkpoint:
                    self._has_earlier_runs = await self._earlier_runs(ask, is_async=is_async)
                    thread.is_new = not self._has_earlier_runs
            except Exception as error:
                msg = (
                    "The policy has rules on the session, but the thread's checkpointer cannot be "
                    f"read ({type(error).__name__}). An asynchronous checkpointer needs "
                    "asynchronous calls, such as `ainvoke`; a synchronous one needs synchronous "
                    "calls. A checkpointer of your own needs `list` and `alist`."
                )
                raise UsageError(msg) from error

    async def _earlier_runs(self, ask: Callable[..., Any], *, is_async: bool) -> bool:
        """Whether the thread had a run before this one, judged by its checkpoints.

        With `durability="exit"` LangGraph stores none before the end of a run.
        """
        options = {"thread_id": self._thread_id, "checkpoint_ns": ""}
        thread = {"configurable": options}
        current = {"configurable": {**options, "checkpoint_id": self._checkpoint}}
        for _ in range(_CHECKPOINT_CHECKS):
            if await ask("get_tuple", current) is not None:
                break
            if not await ask("list", thread, limit=1):
                return False
            await pause(_CHECKPOINT_WAIT, is_async=is_async)
        else:
            return True
        return len(await ask("list", thread, limit=2, filter={"source": "input"})) > 1

    def session_for(
        self,
        messages: Sequence[BaseMessage],
        session_of_messages: str | None,
        *,
        is_mid_turn: bool,
        seal: Seal,
        may_begin: bool = False,
        has_several: Callable[[], bool] = lambda: False,
    ) -> str | None:
        """The session that the call continues.

        Args:
            messages: The conversation.
            session_of_messages: The session of its messages, or the configured one.
            is_mid_turn: Whether the messages end within a turn.
            seal: Makes the digests of the call's connection.
            may_begin: Whether a new session may begin if none is known.
            has_several: Tells whether the messages are of several sessions, if that matters.

        Returns:
            The session; `None` to start a new one.

        Raises:
            SessionLost: If the session cannot be continued, and the caller has not accepted that.
        """
        with _LOCK:
            sessions = self._thread.sessions
            if session_of_messages in sessions and is_mid_turn:
                return session_of_messages
            usable = [
                session
                for session in reversed(sessions.values())
                if compare_digest(session.digest, seal(session.session_id))
            ]
            for session in usable:
                if not (self._is_inside(session) or self._is_beside(session)):
                    self._session = session
                    return session.session_id
            reason, lost = self._loss_of(usable)
            if not reason and has_several():
                reason, lost = _SEVERAL, session_of_messages
            session_id = session_of_messages or self._recalled
            if not reason and session_id is not None:
                return session_id
            if not reason and self._thread.starting:
                reason = _SIMULTANEOUS
            elif not reason and not may_begin and self._has_unknown_past(messages):
                reason = _UNKNOWN
            if reason:
                self.lose(reason, lost)
            self.begin()
            return None

    def _loss_of(self, usable: Sequence[ThreadSession]) -> tuple[str, str | None]:
        """Why the sessions of the thread, or of the run around it, cannot be continued."""
        sessions = self._thread.sessions
        if usable:
            reason = _NESTED if self._is_inside(usable[0]) else _SIMULTANEOUS
            return reason, usable[0].session_id
        if sessions:
            return ELSEWHERE, next(reversed(sessions))
        outer = next(filter(self._is_inside, reversed(self._run.sessions.values())), None)
        if outer is not None:
            return _NESTED, outer.session_id
        return "", None

    def _has_unknown_past(self, messages: Sequence[BaseMessage]) -> bool:
        """Whether the conversation has earlier turns, other than those that failed to begin."""
        if self._thread.is_new and all(message.type in ("system", "human") for message in messages):
            return False
        return self._has_earlier_runs or has_earlier_turns(messages)

    def _is_inside(self, session: ThreadSession) -> bool:
        """Whether this agent runs within a call for whose result the session waits."""
        outer, inner = session.agent.split("|")[:-1], self._agent.split("|")[:-1]
        is_deeper = len(inner) > len(outer) and inner[: len(outer)] == outer
        return session.is_waiting and is_deeper

    def _is_beside(self, session: ThreadSession) -> bool:
        """Whether the session waits for a call of the same agent in a parallel task of this run."""
        run, task = session.task
        is_other_task = run == self._task[0] and task != self._task[1]
        return session.is_waiting and session.agent == self._agent and is_other_task

    def lose(self, reason: str, session_id: str | None) -> None:
        """Raise, unless the caller accepts a new session.

        Raises:
            SessionLost: With the reason and the advice.
        """
        if self._on_lost == "raise":
            msg = f"{reason} {_ADVICE}"
            raise SessionLost(msg, session_id=session_id)
        self._replaces = self.is_chosen = True
        self.forked_from = session_id

    def begin(self, *, replaces: bool = False) -> None:
        """Note that the call starts a session; `replaces` that the caller wants a new one."""
        self._replaces = self._replaces or replaces
        self.is_chosen = self._replaces
        if not self._is_starting:
            self._is_starting = True
            self._thread.starting += 1

    @property
    def differs(self) -> bool:
        """Whether the session's history differs from the messages, because its turn failed."""
        return self._session is not None and self._session.has_failed

    # After it

    def continues_in(self, session_id: str, digest: str) -> None:
        """Remember the session of a reply that begins."""
        with _LOCK:
            sessions = self._thread.sessions
            if self._replaces:
                for earlier in [*sessions.values()]:
                    if earlier.agent == self._agent or not earlier.is_waiting:
                        del sessions[earlier.session_id]
                self._replaces = False
            if sessions.pop(session_id, None) is None:
                self._thread.is_stored = False
            self._session = ThreadSession(session_id, digest, self._agent, task=self._task)
            self._run.sessions[session_id] = sessions[session_id] = self._session
            self._stop_starting()

    def ended(self, *, is_waiting: bool, has_failed: bool = False) -> None:
        """Remember how the turn ended."""
        if self._session is not None:
            self._session.is_waiting = is_waiting
            self._session.has_failed = has_failed

    async def close(self, *, is_async: bool) -> None:
        """End the call, however it ended, and store a new session."""
        with _LOCK:
            self._stop_starting()
            sessions = [*self._thread.sessions.values()]
        is_missing = sessions and not self._thread.is_stored
        if is_missing and self._store is not None and self._thread_id is not None:
            entries = [{name: getattr(session, name) for name in _STORED} for session in sessions]
            entry = (_STORE_NAMESPACE, self._thread_id, {"sessions": entries})
            try:
                await call(self._store, "put", *entry, index=False, is_async=is_async)
            except Exception as error:  # noqa: BLE001 - the reply counts; the next call tries again
                _logger.warning(
                    "The store of the graph does not have the session of thread %s: %s.",
                    self._thread_id, type(error).__name__,
                )  # fmt: skip
            else:
                self._thread.is_stored = True

    def _stop_starting(self) -> None:
        if self._is_starting:
            self._is_starting = False
            self._thread.starting -= 1


async def _read(checkpointer: Any, method: str, *args: Any, is_async: bool, **keywords: Any) -> Any:
    """Call a method of a checkpointer while parallel tasks of the graph may write to it."""
    for _ in range(_CHECKPOINT_CHECKS):
        try:
            return await call(checkpointer, method, *args, is_async=is_async, **keywords)
        except RuntimeError as error:
            if _CHANGED not in str(error):
                raise
            await pause(_CHECKPOINT_WAIT, is_async=is_async)
    return await call(checkpointer, method, *args, is_async=is_async, **keywords)


def _thread(thread_id: str, owner: str, checkpointer: object) -> Thread:
    if checkpointer is None:
        return _remembered(_threads, (owner, thread_id))
    try:
        with _LOCK:
            threads = _threads_by_checkpointer.setdefault(checkpointer, OrderedDict())
    except TypeError:  # it has no hash, or no weak references
        return _remembered(_threads, (id(checkpointer), thread_id), checkpointer)
    return _remembered(threads, thread_id)


def _remembered(threads: _Threads, key: Hashable, owner: object = None) -> Thread:
    with _LOCK:
        thread = threads.setdefault(key, Thread(owner=owner))
        threads.move_to_end(key)
        if len(threads) > _MOST_THREADS:
            threads.popitem(last=False)
        return thread


def session_in_checkpoint(checkpoint_tuple: Any, seal: Seal) -> str | None:
    """The newest session of the connection in the messages of a checkpoint, or in its writes."""
    writes = [value for _, _, value in checkpoint_tuple.pending_writes or ()]
    for value in [*checkpoint_tuple.checkpoint["channel_values"].values(), *writes]:
        messages = value if isinstance(value, list) else [value]
        if session_id := last_own_session(messages, seal, of_tools=True)[0]:
            return session_id
    return None


ELSEWHERE = (
    "The session of this thread belongs to another model, format, address, policy or "
    "configuration. Continue with the model that began it."
)
_NESTED = (
    "An agent runs within a call of another agent of the same thread, and the session of that "
    "agent waits for the result of the call. Use `PolicyMiddleware`, whose agents share their "
    "session, or give the inner model no tools."
)
_SIMULTANEOUS = (
    "Another call of this thread is just starting its session. Wait for its reply, or give each "
    "conversation its own thread."
)
_SEVERAL = (
    "The messages are of several sessions, and none of them knows all turns. Pass the messages of "
    "one conversation, or name the session (`session_id=`)."
)
_UNKNOWN = (
    "The conversation has earlier turns, and their session is unknown: neither the messages nor "
    "the thread have it. Keep the model's messages unchanged in the history, and append "
    "`error.message` after a failed turn. Or give the run a thread (`configurable.thread_id`), or "
    "name the session (`session_id=`)."
)
_ADVICE = (
    "The policy has rules on the session, and a new session would forget what they read. So the "
    "request was not sent. If that may be forgotten, construct the model with "
    '`on_session_lost="restart"`, or pass `session_id="new"` to one call of a chat model.'
)
