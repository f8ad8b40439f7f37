"""What the tasks of a step wait for: their calls, a human's decision, the results of other tasks.

A task waits until the service has asked for its call. The service asks when it has the results that
come before, so the first task that finds them all sends them, for all tasks. A task that waits for
a result that does not come now is interrupted, and runs again when the graph is resumed.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphInterrupt

from langchain_sequrity.errors import BadReply
from langchain_sequrity.graph.journal import Approval, DeniedCall, ProgramCall, Rejection
from langchain_sequrity.graph.program import ToolSpec
from langchain_sequrity.graph.runtime.parts import ExecutorParts
from langchain_sequrity.graph.runtime.run_log import RunLog
from langchain_sequrity.graph.runtime.task_calls import RunStopped, TaskCalls
from langchain_sequrity.interrupts import drop_answer, is_late


class _ThreadCondition:
    """A condition of threads, used like `asyncio.Condition`. It blocks its thread and no loop."""

    def __init__(self, lock: Any = None) -> None:
        self._condition = threading.Condition(lock)
        self.notify_all = self._condition.notify_all

    async def __aenter__(self) -> None:
        self._condition.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._condition.release()

    async def wait(self) -> None:
        self._condition.wait()


class WaitedRun(Protocol):
    """What tasks that wait need of their run; see `Driver`."""

    is_async: bool
    parts: ExecutorParts
    log: RunLog
    tasks: TaskCalls
    failure: BaseException | None

    @property
    def is_going(self) -> bool:
        """Whether neither an error nor a denial has ended the run."""

    @property
    def has_ended(self) -> bool:
        """Whether the program has ended, so that no more calls come."""

    @property
    def has_step_requests(self) -> bool:
        """Whether the first task of the step still has to make its requests."""

    @property
    def can_continue(self) -> bool:
        """Whether there are requests that can be made now."""

    async def continue_run(self) -> None:
        """Make these requests."""

    def fail(self, error: BaseException) -> None:
        """End the run with an error."""

    def store_decision(self, offered: DeniedCall, decision: Approval | Rejection) -> None:
        """Report and store what a human has decided about a denied call."""


class Waiting:
    """Lets the tasks of a run wait.

    Args:
        run: The run.
    """

    def __init__(self, run: WaitedRun) -> None:
        self._run, self._log, self._tasks = run, run.log, run.tasks
        # Tasks whose calls a later program makes have a condition of their own: waking them all for
        # each result would cost the square of their number.
        lock: Any = asyncio.Lock() if run.is_async else threading.RLock()
        condition = asyncio.Condition if run.is_async else _ThreadCondition
        self._changed, self._program_changed = condition(lock), condition(lock)

    async def for_step(self, task_id: str) -> None:
        """Wait until the calls of the step are requested.

        Raises:
            RunStopped: If the run cannot continue.
        """
        await self._until(lambda: not self._run.has_step_requests, task_id)

    async def for_call(self, task_id: str, config: RunnableConfig) -> ProgramCall | None:
        """Wait for the call of a task.

        If the call is denied and a human may approve it, an interrupt of the task asks.

        Returns:
            The call; `None` if the run ends with a denial.

        Raises:
            RunStopped: If the run cannot continue, or a human rejected the call.
            GraphInterrupt: If another task of the step first needs an answer or another attempt.
        """

        def has_call() -> bool:
            slot = self._tasks.find(self._tasks.origin(task_id))
            return self._log.is_refused or (
                slot is not None and (slot.offered or slot.call) is not None
            )

        await self._until(has_call, task_id)
        slot = self._tasks.get(task_id)
        return (
            None if self._log.is_refused else await self._approved(slot.call, slot.offered, config)
        )

    async def for_router_call(
        self, task_id: str, tool: ToolSpec, config: RunnableConfig
    ) -> ProgramCall | None:
        """Wait for the call of a task's router; see `for_call`."""
        slot = self._tasks.get(task_id)
        router = slot.router(tool.name)

        def has_call() -> bool:
            return self._log.is_refused or (router.call or slot.offered) is not None

        await self._until(has_call, task_id)
        return await self._approved(router.call, slot.offered, config)

    async def wake(self) -> None:
        """Wake the tasks that wait for the result of another one."""
        async with self._changed:
            self._changed.notify_all()

    async def wake_all(self) -> None:
        """Wake all tasks, because what they wait for may not come now."""
        async with self._changed:
            self._notify_all()

    def _notify_all(self) -> None:
        self._changed.notify_all()
        self._program_changed.notify_all()

    async def _until(self, has_come: Callable[[], bool], task_id: str) -> None:
        async with self._changed:
            while not has_come():
                is_soon = self._tasks.is_soon(task_id)
                if is_soon and self._run.can_continue:
                    portion = self._tasks.portion
                    try:
                        await self._run.continue_run()
                    finally:
                        if self._tasks.portion is portion and self._run.is_going:
                            self._changed.notify_all()
                        else:
                            self._notify_all()
                else:
                    self._check_can_wait(task_id)
                    await (self._changed if is_soon else self._program_changed).wait()

    def _check_can_wait(self, task_id: str) -> None:
        """Check that what a task waits for may come.

        Raises:
            RunStopped: If the run has ended.
            GraphInterrupt: If another task gives no result now.
        """
        if self._run.failure is not None:
            raise RunStopped(self._run.failure)
        if self._tasks.unfinished - {self._tasks.origin(task_id)}:
            raise GraphInterrupt(())
        if self._run.has_ended:
            msg = f"The program ended before the call of node `{self._tasks.get(task_id).node}`."
            raise RunStopped(BadReply(msg, session_id=self._log.session_id))
        try:
            self._tasks.check_due()
        except BadReply as error:
            raise RunStopped(error) from None

    async def _approved(
        self, call: ProgramCall | None, offered: DeniedCall | None, config: RunnableConfig
    ) -> ProgramCall | None:
        """The call, or the denied call after a human has approved it.

        Raises:
            RunStopped: If it is rejected.
        """
        denials = self._run.parts.denials
        if call is not None or offered is None:
            if denials.asks:
                drop_answer(config)
            return call
        if offered.is_approved or offered.objection is not None:
            drop_answer(config)
        else:
            late = await is_late(config, is_async=self._run.is_async)
            objection = denials.ask_human(offered, config, is_late=late)
            offered.is_approved, offered.objection = objection is None, objection
            decision = (
                Approval(offered.digest)
                if objection is None
                else Rejection(offered.digest, objection)
            )
            self._run.store_decision(offered, decision)
        if offered.objection is not None:
            error = denials.rejection_error(offered, offered.objection)
            self._run.fail(error)
            await self.wake_all()  # other tasks may wait for calls that do not come now
            raise RunStopped(error)
        return offered.call
