"""The results of the nodes of a step, and what LangGraph stores and shows of them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from langchain_sequrity import _compat
from langchain_sequrity.errors import UsageError
from langchain_sequrity.graph.codec.channels import copy_ids
from langchain_sequrity.graph.runtime.parts import ExecutorParts
from langchain_sequrity.graph.runtime.run_log import RunLog
from langchain_sequrity.graph.runtime.task_calls import TaskCalls

if TYPE_CHECKING:
    from langchain_sequrity.graph.codec.channels import AnyChannel
    from langchain_sequrity.graph.dispatch import NodeResult
    from langchain_sequrity.graph.runtime.call_state import CallState


class StepResults:
    """The results of the nodes of the current step.

    Args:
        parts: The parts that all runs of the executor share.
        log: The log of the run.
        tasks: The tasks of the step.

    Attributes:
        by_task: The results by the id of their task.
        states: The states of the calls whose nodes have begun, by call.
    """

    def __init__(self, parts: ExecutorParts, log: RunLog, tasks: TaskCalls) -> None:
        self._parts, self._log, self._tasks = parts, log, tasks
        self.by_task: dict[str, NodeResult] = {}
        self.states: dict[str, CallState] = {}

    def clear(self) -> None:
        """Forget the results of the last step."""
        self.by_task, self.states = {}, {}

    def as_returned(self, task_id: str, writes: Any) -> Any:
        """The writes of a task as its node returned them.

        `None` for a task that has not run because the run ends with a denial.
        """
        if self._log.is_refused and all(channel == _compat.NO_WRITES for channel, _ in writes):
            return None
        result = self._finished(task_id, writes)
        if result is None:
            return writes
        names = (name for name, _ in result.writes)
        fields = self._parts.spec.channels
        others = [(channel, value) for channel, value in writes if channel not in fields]
        return [*zip(names, result.raw, strict=True), *others]

    def to_store(self, task_id: str, writes: Any) -> Any:
        """The writes of a task as LangGraph stores them: messages get their ids later."""
        tools = self._parts.tools
        result = self._finished(task_id, writes) if tools.stores_no_ids else None
        if result is None:
            return writes
        returned = tools.without_ids(result)
        # The node's code may also write to channels itself (`push_message`).
        return [(channel, returned.get(id(value), value)) for channel, value in writes]

    def _finished(self, task_id: str, writes: Any) -> "NodeResult | None":
        channels = [channel for channel, _ in writes]
        if _compat.was_interrupted_or_failed(channels):
            return None
        return self.by_task.get(task_id)

    def copy_ids(self) -> None:
        """Give the messages that the nodes returned the ids under which they are stored."""
        for result in self.by_task.values():
            for raw, (_, written) in zip(result.raw, result.writes, strict=True):
                copy_ids(raw, written)

    def undo_changes(self, loop: _compat.PregelLoop) -> None:
        """Undo what the nodes of a step that failed have changed in place, before it is stored.

        No call has reported it, so the state would have it without labels. What finished nodes have
        changed is in their results.
        """
        with self._log.objects.as_stored().in_use():
            for state in self.states.values():
                cast("dict[str, AnyChannel]", loop.channels).update(state.before_changes())

    def check_shared(
        self, task_id: str, state: "CallState", find: Callable[[], Sequence[Any]], verb: str
    ) -> None:
        """Check that no node beside a task has an object that its own node changes in place.

        Args:
            task_id: The task.
            state: The state of its call.
            find: Finds the objects in it that it changes.
            verb: How sure that is.

        Raises:
            UsageError: If one has.
        """
        slot = self._tasks.get(task_id)
        objects = find() if slot.handle else ()
        if not objects:
            return
        for other in list(self.states.values()):
            if other is not state and other.shares(objects):
                msg = (
                    f"Node `{slot.node}` {verb} a `{type(objects[0]).__name__}` in place, and node "
                    f"`{other.signature.tool.node}`, which runs beside it, has the same object. "
                    "Give each its own object, have it outside the state, or run the nodes one "
                    "after the other."
                )
                raise UsageError(msg)
