"""LangGraph's own loop, in which a `Driver` asks the service before the nodes of each step run.

An executor runs the user's graph, compiled by LangGraph, with three more channels. So steps, the
recursion limit, checkpoints, interrupts, streams, threads and their history are LangGraph's. The
driver's writes are stored with the step.

The loops are classes that LangGraph does not promise to keep. `Pregel.stream` refers to them by
name, so it runs with other classes under these names (`with_loop`).
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from inspect import isawaitable
from types import FunctionType, SimpleNamespace
from typing import Any, Literal, cast

from langgraph._internal._constants import (
    CONF,
    INPUT,
)
from langgraph.errors import InvalidUpdateError
from langgraph.pregel import Pregel
from langgraph.pregel._algo import apply_writes
from langgraph.pregel._io import map_output_values
from langgraph.pregel._loop import AsyncPregelLoop, PregelLoop, SyncPregelLoop
from typing_extensions import override

from langchain_sequrity.graph import _compat
from langchain_sequrity.graph.program import DRIVER, JOURNAL, is_executor_name
from langchain_sequrity.graph.runtime.driver import Driver
from langchain_sequrity.graph.runtime.run_log import OWN_WRITES
from langchain_sequrity.graph.runtime.task_calls import RunStopped
from langchain_sequrity.sync_or_async import run_to_end


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
    _has_emitted_values = False
    _has_unseen_changes = False

    @property
    def driver(self) -> Driver:
        found: Driver = self.config[CONF][DRIVER]
        return found

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

    async def _leave(self, given: tuple[Any, ...], leave: Callable[..., Any]) -> bool | None:
        """Let the driver make the last requests, and leave LangGraph's loop.

        Args:
            given: The error with which the loop ends, as `__exit__` gets it.
            leave: LangGraph's own `__exit__` or `__aexit__`.
        """
        error: BaseException | None = given[1]
        own = error.error if isinstance(error, RunStopped) else None
        if error is None and self.status == "done":
            try:
                await self.driver.run(self, self.driver.finish(self))
            except BaseException as failure:  # noqa: BLE001 - raised again below
                own = failure
        if error is not None and self.checkpointer is not None and self.durability == "exit":
            self.driver.results.undo_changes(self)
        if self._has_unseen_changes:
            # The last chunk is the result. In LangGraph an earlier one has the changed objects.
            every_field: Literal[True] = True
            super()._emit("values", map_output_values, self.output_keys, every_field, self.channels)
        try:
            left = leave(*(given if own is None else (type(own), own, own.__traceback__)))
            is_handled: bool | None = await left if isawaitable(left) else left
            if own is not None:
                raise own from own.__cause__
            return is_handled
        finally:
            self.driver.close()

    @override
    def after_tick(self) -> None:
        self.driver.after_step(self)
        self._has_emitted_values = False
        if own := self.driver.log.writes:
            self.tasks[OWN_WRITES] = _writes_as_task(own)
        try:
            super().after_tick()
        except InvalidUpdateError:
            if kept := self.driver.failed_to_apply(self):
                newer = self.checkpointer_get_next_version
                apply_writes(self.checkpoint, self.channels, [_writes_as_task(kept)], newer, {})
            raise
        is_changed = self._has_unseen_changes or self.driver.tasks.has_changed_state
        self._has_unseen_changes = is_changed and not self._has_emitted_values

    @override
    def put_writes(self, task_id: str, writes: Any, *, cached: bool = False) -> None:
        super().put_writes(task_id, self.driver.results.to_store(task_id, writes), cached=cached)
        self.driver.task_ended(self, task_id, [channel for channel, _ in writes])

    @override
    def _put_exit_delta_writes(self) -> None:
        # Otherwise LangGraph would store an empty checkpoint for the journal before the first one.
        self._delta_channels_forced_snapshot.add(JOURNAL)
        super()._put_exit_delta_writes()

    @override
    def _emit(self, mode: Any, values: Any, *args: Any, **kwargs: Any) -> None:
        self._has_emitted_values |= mode == "values"
        if mode == "checkpoints":
            super()._emit(mode, lambda: map(without_own_checkpoint_data, values(*args, **kwargs)))
        else:
            super()._emit(mode, values, *args, **kwargs)

    @override
    def output_writes(self, task_id: str, writes: Any, *, cached: bool = False) -> None:
        # Streams show the node's own output: messages without the ids that the program knows.
        shown = self.driver.results.as_returned(task_id, writes)
        if shown is not None:
            super().output_writes(task_id, shown, cached=cached)


class SyncLoop(_DrivenLoop, SyncPregelLoop):
    """LangGraph's loop, with a driver."""

    @override
    def match_cached_writes(self) -> Sequence[Any]:
        run_to_end(self._ask())
        return self.driver.tasks.use_cached(super().match_cached_writes())

    @override
    def __exit__(self, *given: object) -> bool | None:
        return run_to_end(self._leave(given, super().__exit__))


class AsyncLoop(_DrivenLoop, AsyncPregelLoop):
    """LangGraph's loop in an event loop, with a driver."""

    @override
    async def amatch_cached_writes(self) -> Sequence[Any]:
        await self._ask()
        return self.driver.tasks.use_cached(await super().amatch_cached_writes())

    @override
    async def __aexit__(self, *given: object) -> bool | None:
        return await self._leave(given, super().__aexit__)


stream = with_loop(Pregel.stream, SyncPregelLoop=SyncLoop)
astream = with_loop(Pregel.astream, AsyncPregelLoop=AsyncLoop)


def _writes_as_task(own: Sequence[tuple[str, Any]]) -> Any:
    """The driver's writes in the form of a task, so LangGraph applies them."""
    return SimpleNamespace(
        id=OWN_WRITES,
        name=INPUT,
        path=(),
        triggers=[],
        writes=deque(own),
        config={"tags": [_compat.TAG_HIDDEN]},
    )


def without_own_checkpoint_data(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint in a stream, without the executor's additions."""
    configs = {key: _without_own(payload[key], CONF) for key in ("config", "parent_config")}
    return {**payload, **configs, "metadata": without_own_metadata(payload["metadata"])}


def without_own_metadata(metadata: Any) -> Any:
    """A checkpoint's metadata without the executor's channels."""
    return _without_own(metadata, _compat.DELTAS)


def _without_own(data: Any, key: str) -> Any:
    """A config or metadata without the executor's own names in the part under a key."""
    if not data or not data.get(key):
        return data
    seen = {name: one for name, one in data[key].items() if not is_executor_name(name)}
    rest = {name: one for name, one in data.items() if name != key}
    return {**rest, key: seen} if seen else rest
