"""LangGraph's own loop, in which a `Driver` asks the service before the nodes of each step run.

An executor runs the user's graph, compiled by LangGraph, with three more channels. So steps, the
recursion limit, checkpoints, interrupts, streams, threads and their history are LangGraph's. The
driver's writes are stored with the step.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import isawaitable
from typing import Any, cast

from langgraph.errors import InvalidUpdateError
from typing_extensions import override

from langchain_sequrity import _compat
from langchain_sequrity.graph.program import DRIVER, JOURNAL, is_executor_name
from langchain_sequrity.graph.runtime.driver import Driver
from langchain_sequrity.graph.runtime.run_log import OWN_WRITES
from langchain_sequrity.graph.runtime.task_calls import RunStopped
from langchain_sequrity.sync_or_async import run_to_end


class _DrivenLoop(_compat.ExtensibleLoop):
    """The part that both loops add to LangGraph's."""

    # Otherwise LangGraph would store an empty checkpoint for the journal before the first one.
    whole_at_exit = frozenset({JOURNAL})
    _asks = False
    _has_emitted_values = False
    _has_unseen_changes = False

    @property
    def driver(self) -> Driver:
        return cast("Driver", self.config["configurable"][DRIVER])

    @override
    def tick(self) -> bool:
        self._asks = super().tick()
        return self._asks

    async def _ask(self) -> None:
        """Let the driver make the requests before a step."""
        if self._asks:
            self._asks = False
            if (work := self.driver.step(self)) is not None:
                await self.driver.run(self, work)

    async def _leave(self, exc_info: tuple[Any, ...], leave: Callable[..., Any]) -> bool | None:
        """Let the driver make the last requests, and leave LangGraph's loop.

        Args:
            exc_info: The error with which the loop ends, as `__exit__` gets it.
            leave: LangGraph's own `__exit__` or `__aexit__`.
        """
        error: BaseException | None = exc_info[1]
        driver_error = error.error if isinstance(error, RunStopped) else None
        if error is None and self.status == "done":
            try:
                await self.driver.run(self, self.driver.finish(self))
            except BaseException as failure:  # noqa: BLE001 - raised again below
                driver_error = failure
        self.driver.log.store_waiting(self)
        is_over = error is None and driver_error is None
        if is_over and self.durability == "exit" and (writes := self.driver.log.end_of_run()):
            self.apply_hidden(OWN_WRITES, writes)
        if error is not None and self.checkpointer is not None and self.durability == "exit":
            self.driver.results.undo_changes(self)
        if self._has_unseen_changes:
            # The last chunk is the result. In LangGraph an earlier one has the changed objects.
            self.emit_state()
        try:
            if driver_error is not None:
                exc_info = (type(driver_error), driver_error, driver_error.__traceback__)
            outcome = leave(*exc_info)
            is_handled: bool | None = await outcome if isawaitable(outcome) else outcome
            if driver_error is not None:
                raise driver_error from driver_error.__cause__
            return is_handled
        finally:
            self.driver.close()

    @override
    def after_tick(self) -> None:
        self.driver.after_step(self)
        self._has_emitted_values = False
        if driver_writes := self.driver.log.writes:
            self.tasks[OWN_WRITES] = _compat.hidden_task(OWN_WRITES, driver_writes)
            if self.driver.log.ends_calls(self):  # a reader of the journal stops here
                self.store_whole(JOURNAL)
        try:
            super().after_tick()
        except InvalidUpdateError:
            if end_of_step := self.driver.failed_to_apply(self):
                self.apply_hidden(OWN_WRITES, end_of_step)
            raise
        is_changed = self._has_unseen_changes or self.driver.tasks.has_changed_state
        self._has_unseen_changes = is_changed and not self._has_emitted_values

    @override
    def put_writes(self, task_id: str, writes: Any, *, cached: bool = False) -> None:
        super().put_writes(task_id, self.driver.results.to_store(task_id, writes), cached=cached)
        self.driver.task_ended(self, task_id, [channel for channel, _ in writes])

    @override
    def emit(self, mode: Any, events: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._has_emitted_values |= mode == "values"
        if mode == "checkpoints":
            super().emit(mode, lambda: map(without_own_checkpoint_data, events(*args, **kwargs)))
        else:
            super().emit(mode, events, *args, **kwargs)

    @override
    def output_writes(self, task_id: str, writes: Any, *, cached: bool = False) -> None:
        # Streams show the node's own output: messages without the ids that the program knows.
        returned = self.driver.results.as_returned(task_id, writes)
        if returned is not None:
            super().output_writes(task_id, returned, cached=cached)


class SyncLoop(_DrivenLoop, _compat.SyncPregelLoop):
    """LangGraph's loop, with a driver."""

    @override
    def match_cached_writes(self) -> Sequence[Any]:
        run_to_end(self._ask())
        return self.driver.tasks.use_cached(super().match_cached_writes())

    @override
    def __exit__(self, *exc_info: object) -> bool | None:
        return run_to_end(self._leave(exc_info, super().__exit__))


class AsyncLoop(_DrivenLoop, _compat.AsyncPregelLoop):
    """LangGraph's loop in an event loop, with a driver."""

    @override
    async def amatch_cached_writes(self) -> Sequence[Any]:
        await self._ask()
        return self.driver.tasks.use_cached(await super().amatch_cached_writes())

    @override
    async def __aexit__(self, *exc_info: object) -> bool | None:
        return await self._leave(exc_info, super().__aexit__)


stream = _compat.stream_with(SyncLoop)
astream = _compat.astream_with(AsyncLoop)


def without_own_checkpoint_data(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint in a stream, without the executor's additions."""
    configs = {
        key: _without_own(payload[key], "configurable") for key in ("config", "parent_config")
    }
    return {**payload, **configs, "metadata": without_own_metadata(payload["metadata"])}


def without_own_metadata(metadata: Any) -> Any:
    """A checkpoint's metadata without the executor's channels."""
    return _without_own(metadata, _compat.DELTAS)


def _without_own(data: Any, key: str) -> Any:
    """A config or metadata without the executor's own names in the part under a key."""
    if not data or not data.get(key):
        return data
    visible = {name: value for name, value in data[key].items() if not is_executor_name(name)}
    rest = {name: value for name, value in data.items() if name != key}
    return {**rest, key: visible} if visible else rest
