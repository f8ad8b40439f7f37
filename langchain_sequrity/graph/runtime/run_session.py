"""The session of a run, if the policy has rules on the session (`docs/behaviour.md`, P13).

The runs of a thread are then turns of one session. Otherwise each run has a session of its own, and
nothing here does anything.
"""

from typing import Any

from langchain_sequrity import _compat
from langchain_sequrity.chat_models.threads import ELSEWHERE, ThreadMemory
from langchain_sequrity.errors import StatusError
from langchain_sequrity.graph.journal import ProgramRun, read_thread_record, session_id_of
from langchain_sequrity.graph.program import RUN
from langchain_sequrity.graph.runtime.parts import ExecutorParts
from langchain_sequrity.graph.runtime.run_log import RunLog
from langchain_sequrity.graph.runtime.state_variables import Channels, StateVariables
from langchain_sequrity.wire.error_body import is_session_gone

GONE = "The service no longer knows the session of this thread."


class RunSession:
    """Finds the session in which a run begins, and remembers it for the next run of the thread.

    Args:
        parts: The parts that all runs of the executor share.
        log: What the thread stores of the run.
        states: Reads the messages of a state.

    Attributes:
        has_left_calls: Whether the session may have calls that the journal of the run does not
            have: it has gone on since the checkpoint from which the run continues.
        is_from_storage: Whether the run continues a stored session. It may have gone on since, and
            repeat its earlier replies until a node gives another result than before.
    """

    def __init__(self, parts: ExecutorParts, log: RunLog, states: StateVariables) -> None:
        self._exchange, self._on_lost = parts.exchange, parts.on_session_lost
        self._log, self._states = log, states
        self._memory: ThreadMemory | None = None
        self.has_left_calls = self.is_from_storage = False

    async def recall(self, loop: _compat.PregelLoop, *, is_async: bool) -> None:
        """Ask store and checkpoints about the thread, once in a run."""
        connection = self._exchange.connection
        if self._memory is not None or not connection.uses_session:
            return
        configurable = {**loop.config["configurable"], _compat.CHECKPOINTER: loop.checkpointer}
        memory = ThreadMemory(connection.owner, self._on_lost, configurable=configurable)
        self._memory = memory
        if not memory.is_known:
            await memory.recall((), None, self._in_checkpoint, is_async=is_async)

    def _in_checkpoint(self, saved: Any) -> str | None:
        """The session of the executor's thread in one of its checkpoints, if it can be used."""
        stored = saved.checkpoint["channel_values"].get(RUN)
        if not stored or (record := read_thread_record(stored)).location != self._exchange.location:
            return None
        return session_id_of(record.session)

    def to_begin_in(self, channels: Channels) -> str | None:
        """The session of the thread, in which a run begins; `None` to start a new one.

        Raises:
            SessionLost: If it cannot be continued.
        """
        memory, newest = self._memory, self._log.newest
        if memory is None:
            return None
        session_id = session_id_of(newest.session)
        if session_id is not None and newest.location != self._exchange.location:
            memory.lose(ELSEWHERE, session_id)
            session_id = None
        messages = self._states.messages(channels)
        return memory.session_for(messages, session_id, is_mid_turn=False, seal=self._exchange.seal)

    def to_begin_again_in(self, run: ProgramRun, reason: str) -> str | None:
        """The session in which a run begins again; `None` to start a new one.

        A new session has the labels of the run's own calls, because these are made again. It does
        not have those of the session's earlier turns. A lost session has nothing.

        Args:
            run: The run.
            reason: Why its session is lost; empty if it is there.

        Raises:
            SessionLost: If it cannot be continued.
        """
        if self._memory is None or not (run.continues_session or self.has_left_calls):
            return None
        if reason:
            self._memory.lose(reason, run.session_id)
            return None
        return self._memory.session_for(
            (), run.session_id, is_mid_turn=False, seal=self._exchange.seal
        )

    def accept_loss(self, error: StatusError, session_id: str | None) -> None:
        """Raise, unless the error says that the session is gone and the caller accepts that."""
        if self._memory is None or session_id is None or not is_session_gone(error, session_id):
            raise error
        self._memory.lose(GONE, session_id)

    def continues_in(self, run: ProgramRun) -> None:
        """Remember the session of a run that began, also again."""
        self.is_from_storage = False
        if self._memory is not None and run.session_id is not None:
            self._memory.continues_in(run.session_id, self._exchange.seal(run.session_id))

    def answered(self, *, is_waiting: bool) -> None:
        """Remember whether the session waits for the result of a call."""
        if self._memory is not None:
            self._memory.ended(is_waiting=is_waiting)

    async def close(self, *, is_async: bool) -> None:
        """Store a new session."""
        if self._memory is not None:
            await self._memory.close(is_async=is_async)
