"""A session as this process knows it.

A checkpoint may be older than what has happened since: a fork starts from it, a step that failed
was not stored, agents run beside each other. So each change of the session's labels has a number,
its revision, and of two forms of a session the one with the higher revision is right. This memory
adds to what the checkpoint stores. After a restart of the process, a run continues with what its
checkpoint stores.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from threading import RLock
from typing import NamedTuple

from langchain_sequrity.labels import Labels
from langchain_sequrity.middleware.state import SessionRecord

_MAX_ENTRIES = 100


class Origin(NamedTuple):
    """Where calls are decided and run.

    Attributes:
        agent: The agent's name; empty for an agent that is inside no other graph.
        message: The id of the model's message with the calls.
        step: The checkpoint of the outermost graph, which is another one in each of its steps.
    """

    agent: str
    message: str
    step: str


class LiveSession:
    """A session as this process knows it. All agents that belong to it use the same object.

    Hold `lock` while a decision depends on the labels.

    Args:
        session_id: Its id.
        is_partial: Whether it began in a conversation with earlier turns, without their state.

    Attributes:
        is_from_elsewhere: Whether its labels come from a stored state that this process did not
            know.
    """

    def __init__(self, session_id: str, *, is_partial: bool = False) -> None:
        self.id = session_id
        self.lock = RLock()
        self.labels = Labels()
        self.revision = 0
        self.is_partial = is_partial
        self.is_from_elsewhere = False
        self._running: set[tuple[str, str, str]] = set()
        # By the agent: its step of the outermost graph, and its calls that will change the session
        # when they end, as names of tools by the ids of the calls.
        self._unfinished: dict[str, tuple[str, dict[str, str]]] = {}
        self._ended: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._changes: OrderedDict[int, Origin] = OrderedDict()
        self._oldest = 0  # the revision after which all changes are known
        # The newest check of a message: its task, the labels before it, and the revision after it.
        self._check: tuple[object, Labels, int] = (None, self.labels, 0)

    def catch_up(self, record: SessionRecord) -> None:
        """Take over a stored state that is newer, for example from another process."""
        with self.lock:
            if record.revision > self.revision:
                self.labels, self.revision = record.labels, record.revision
                self._oldest = record.revision
                self.is_from_elsewhere = True
            elif record.revision == self.revision:
                self.labels = self.labels.join(record.labels)
            self.is_partial |= record.is_partial

    def set_labels(self, labels: Labels, origin: Origin, *, since: int | None = None) -> None:
        """Set the labels.

        Args:
            labels: The new labels.
            origin: The calls that change them.
            since: The revision from which they were made. If the labels have changed since then,
                they are joined.
        """
        with self.lock:
            if since is not None and since != self.revision:
                labels = self.labels.join(labels)
            if labels == self.labels:
                return
            self.labels = labels
            self.revision += 1
            self._changes[self.revision] = origin
            if len(self._changes) > _MAX_ENTRIES:
                self._oldest, _ = self._changes.popitem(last=False)

    def labels_before_check(self, task: object) -> Labels:
        """The labels before the check of a message.

        Other middleware may ask the model again. Then those before the earlier check count, unless
        the session has changed since: no call of the earlier message runs.

        Args:
            task: What asks the model; equal for each answer in one step of the agent.
        """
        earlier, labels, revision = self._check
        return labels if (earlier, revision) == (task, self.revision) else self.labels

    def set_checked(self, labels: Labels, origin: Origin, task: object) -> None:
        """Set the labels after the check of a message; see `labels_before_check`."""
        with self.lock:
            before = self.labels_before_check(task)
            self.set_labels(labels, origin)
            self._check = (task, before, self.revision)

    def is_decided_again(self, call_id: str, origin: Origin, since: int) -> bool:
        """Whether a decision on a call no longer holds, because the run has gone back before it.

        Calls of one message, and agents of one step, are decided beside each other.

        Args:
            call_id: The call.
            origin: The call's message and step.
            since: The revision from which it was decided.
        """
        with self.lock:
            if (origin.agent, origin.message, call_id) in self._ended or since < self._oldest:
                return True
            later = (change for revision, change in self._changes.items() if revision > since)
            return any(c[:2] != origin[:2] and c.step != origin.step for c in later)

    def record(self) -> SessionRecord:
        """The session as the state stores it."""
        with self.lock:
            return SessionRecord(self.id, self.revision, self.labels, self.is_partial)

    # Agents that run at the same time

    def expect(self, agent: str, step: str, tools: Mapping[str, str]) -> None:
        """Replace the calls of an agent that will change the session when they end."""
        with self.lock:
            self._unfinished.pop(agent, None)
            if tools:
                self._unfinished[agent] = step, dict(tools)

    def start(self, call_id: str, origin: Origin) -> bool:
        """Whether a call does not run yet: other middleware may make it twice."""
        with self.lock:
            is_new = (origin.agent, origin.message, call_id) not in self._running
            self._running.add((origin.agent, origin.message, call_id))
        return is_new

    def end(self, call_id: str, origin: Origin) -> None:
        """A call has returned its result."""
        with self.lock:
            self._ended[origin.agent, origin.message, call_id] = None
            if len(self._ended) > _MAX_ENTRIES:
                self._ended.popitem(last=False)

    def finish(self, origin: Origin, call_id: str) -> None:
        """A call no longer runs."""
        with self.lock:
            self._running.discard((origin.agent, origin.message, call_id))
            _, tools = self._unfinished.get(origin.agent, ("", {}))
            tools.pop(call_id, None)

    def unfinished_tool(self, step: str, agents: Iterable[str]) -> str:
        """A tool whose call will change the session when it ends, or an empty text.

        Only agents of the same step run at the same time. An agent of an earlier step cannot end
        its calls any more.

        Args:
            step: The step of the outermost graph.
            agents: The agent that asks, and those inside whose calls it runs.
        """
        own_agents = set(agents)
        for agent, (agent_step, tools) in self._unfinished.items():
            if agent not in own_agents and agent_step == step and tools:
                return next(iter(tools.values()))
        return ""
