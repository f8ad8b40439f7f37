"""LangGraph's own loop, in which a `Driver` asks the service before the nodes of each step run.

An executor runs the user's graph, compiled by LangGraph, with three more channels. So steps, the
recursion limit, checkpoints, interrupts, streams, threads and their history are LangGraph's. The
driver's writes are stored with the step.

The loops are classes that LangGraph does not promise to keep. `Pregel.stream` refers to them by
name, so it runs with other classes under these names (`with_loop`).
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType, SimpleNamespace, TracebackType
from typing import Any, cast

from langgraph._internal._constants import (
    CONF,
    INPUT,
)
from langgraph.errors import InvalidUpdateError
from langgraph.pregel import Pregel
from langgraph.pregel._algo import apply_writes
from langgraph.pregel._loop import AsyncPregelLoop, PregelLoop, SyncPregelLoop
from typing_extensions import override

from langchain_sequrity.graph import _compat
from langchain_sequrity.graph.program import JOURNAL, is_own
from langchain_sequrity.graph.runtime.driver import DRIVER, Driver
from langchain_sequrity.graph.runtime.run_log import OWN_WRITES
from langchain_sequrity.graph.runtime.task_calls import RunStopped


def with_loop(method: Callable[..., Any], **classes: type[PregelLoop]) -> Callable[..., Any]:
    """A method of `Pregel` that uses other loop classes.

    Args:
        method: The method.
        classes: Name of a loop class in LangGraph's module → the class to use.
    """
    plain = cast("FunctionType", method)
    new = FunctionType(
        plain.__code__,
        {**plain.__globals__, **classes},
        plain.__name__,
        plain.__defaults__,
        plain.__closure__,
    )
    new.__kwdefaults__ = plain.__kwdefaults__
    return new


class _DrivenLoop(PregelLoop):
    """The part that both loops add to LangGraph's."""

    _asks = False

    @property
    def driver(self) -> Driver:
        found: Driver = self.config[CONF][DRIVER]
        return found

    @override
    def tick(self) -> bool:
        self._asks = super().tick()
        return self._asks

    @override
    def after_tick(self) -> None:
        self.driver.after_step(self)
        if own := self.driver.own_writes:
            self.tasks[OWN_WRITES] = _task_of(own)
        try:
            super().after_tick()
        except InvalidUpdateError:
            if own := self.driver.failed_to_apply(self):
                newer = self.checkpointer_get_next_version
                apply_writes(self.checkpoint, self.channels, [_task_of(own)], newer, {})
            raise

    @override
    def put_writes(self, task_id: str, writes: Any, *, cached: bool = False) -> None:
        super().put_writes(task_id, writes, cached=cached)
        self.driver.task_ended(self, task_id, [channel for channel, _ in writes])

    @override
    def _put_exit_delta_writes(self) -> None:
        # Otherwise LangGraph would store an empty checkpoint for the journal before the first one.
        self._delta_channels_forced_snapshot.add(JOURNAL)
        super()._put_exit_delta_writes()

    @override
    def _resume_error_handlers_if_applicable(self) -> None:
        before = set(self.tasks)
        super()._resume_error_handlers_if_applicable()
        failed = [one for one in self.tasks.values() if one.id in before and _has_failed(one)]
        for task in [one for key, one in self.tasks.items() if key not in before]:
            of = next(one for one in failed if self.nodes[one.name].error_handler_node == task.name)
            failed.remove(of)
            self.driver.record_handler(task.id, of.id)

    @override
    def _emit(self, mode: Any, values: Any, *args: Any, **kwargs: Any) -> None:
        if mode == "checkpoints":
            super()._emit(mode, lambda: map(shown_checkpoint, values(*args, **kwargs)))
        else:
            super()._emit(mode, values, *args, **kwargs)

    @override
    def output_writes(self, task_id: str, writes: Any, *, cached: bool = False) -> None:
        # Streams show the node's own output: messages without the ids that the program knows.
        if not self.driver.is_silent(writes):
            super().output_writes(
                task_id, self.driver.writes_as_returned(task_id, writes), cached=cached
            )


class SyncLoop(_DrivenLoop, SyncPregelLoop):
    """LangGraph's loop, with a driver."""

    @override
    def match_cached_writes(self) -> Sequence[Any]:
        if self._asks:
            self._asks = False
            if (work := self.driver.step(self)) is not None:
                self.driver.run(self, work)
        return self.driver.use_cached(super().match_cached_writes())

    @override
    def schedule_error_handler(self, failed_task: Any, error: BaseException) -> Any:
        task = super().schedule_error_handler(failed_task, error)
        if task is not None:
            self.driver.record_handler(task.id, failed_task.id)
        return task

    @override
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if exc_value is None and self.status == "done":
            try:
                self.driver.run(self, self.driver.finish(self))
            except BaseException as failure:
                super().__exit__(type(failure), failure, failure.__traceback__)
                raise
        try:
            if isinstance(exc_value, RunStopped):
                cause = exc_value.error
                super().__exit__(type(cause), cause, cause.__traceback__)
                raise cause from cause.__cause__
            return super().__exit__(exc_type, exc_value, traceback)
        finally:
            self.driver.close()


class AsyncLoop(_DrivenLoop, AsyncPregelLoop):
    """LangGraph's loop in an event loop, with a driver."""

    @override
    async def amatch_cached_writes(self) -> Sequence[Any]:
        if self._asks:
            self._asks = False
            if (work := self.driver.step(self)) is not None:
                await self.driver.arun(self, work)
        return self.driver.use_cached(await super().amatch_cached_writes())

    @override
    async def aschedule_error_handler(self, failed_task: Any, error: BaseException) -> Any:
        task = await super().aschedule_error_handler(failed_task, error)
        if task is not None:
            self.driver.record_handler(task.id, failed_task.id)
        return task

    @override
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if exc_value is None and self.status == "done":
            try:
                await self.driver.arun(self, self.driver.finish(self))
            except BaseException as failure:
                await super().__aexit__(type(failure), failure, failure.__traceback__)
                raise
        try:
            if isinstance(exc_value, RunStopped):
                cause = exc_value.error
                await super().__aexit__(type(cause), cause, cause.__traceback__)
                raise cause from cause.__cause__
            return await super().__aexit__(exc_type, exc_value, traceback)
        finally:
            self.driver.close()


stream = with_loop(Pregel.stream, SyncPregelLoop=SyncLoop)
astream = with_loop(Pregel.astream, AsyncPregelLoop=AsyncLoop)


def _task_of(own: Sequence[tuple[str, Any]]) -> Any:
    """The driver's writes in the form of a task, so LangGraph applies them."""
    return SimpleNamespace(
        id=OWN_WRITES,
        name=INPUT,
        path=(),
        triggers=[],
        writes=deque(own),
        config={"tags": [_compat.TAG_HIDDEN]},
    )


def _has_failed(task: Any) -> bool:
    return any(channel == _compat.FAILED for channel, _ in task.writes)


def shown_checkpoint(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint in a stream, without the executor's additions."""
    configs = {key: shown_config(payload[key]) for key in ("config", "parent_config")}
    return {**payload, **configs, "metadata": shown_metadata(payload["metadata"])}


def shown_config(config: Any) -> Any:
    """A config without the executor's own keys."""
    if not config:
        return config
    given = {key: one for key, one in config[CONF].items() if not is_own(key)}
    return {**config, CONF: given}


def shown_metadata(metadata: Any) -> Any:
    """A checkpoint's metadata without the executor's channels."""
    counters = metadata and metadata.get(_compat.DELTAS)
    if not counters:
        return metadata
    seen = {key: one for key, one in counters.items() if not is_own(key)}
    rest = {key: one for key, one in metadata.items() if key != _compat.DELTAS}
    return {**rest, **({_compat.DELTAS: seen} if seen else {})}
