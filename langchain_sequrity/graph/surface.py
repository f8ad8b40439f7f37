"""The executor as a graph: what LangGraph offers, run by loops that are told of the service."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, StateSnapshot
from typing_extensions import override

from langchain_sequrity.chat_models.fallbacks import Guarded
from langchain_sequrity.errors import UsageError
from langchain_sequrity.graph import _langgraph
from langchain_sequrity.graph.own import is_own
from langchain_sequrity.graph.running import loop
from langchain_sequrity.graph.running.driver import DRIVER, Driver
from langchain_sequrity.graph.running.states import Parts


class Surface(Guarded[Any, Any], CompiledStateGraph[Any, Any, Any, Any]):
    """A compiled graph whose runs a `Driver` tells to the service."""

    _parts: Parts

    # Running

    @override
    def stream(
        self, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> Iterator[Any]:
        found: Iterator[Any] = loop.stream(self, _checked(input), self._driven(config), **options)
        return found

    @override
    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        chunks = loop.astream(self, _checked(input), self._driven(config), **options)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def _driven(self, config: RunnableConfig | None) -> RunnableConfig:
        _langgraph.check_config(self, config)
        given: RunnableConfig = config or {}
        # `merge_configs` of LangChain leaves out a limit that is its own default.
        driver = Driver(self._parts, is_timed=self.step_timeout is not None)
        configurable = {**(given.get("configurable") or {}), DRIVER: driver}
        return {**given, "configurable": configurable}

    # States

    @override
    def get_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        return _shown(super().get_state(config, subgraphs=subgraphs))

    @override
    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        return _shown(await super().aget_state(config, subgraphs=subgraphs))

    @override
    def get_state_history(self, config: RunnableConfig, **options: Any) -> Iterator[StateSnapshot]:
        yield from map(_shown, super().get_state_history(config, **options))

    @override
    async def aget_state_history(
        self, config: RunnableConfig, **options: Any
    ) -> AsyncIterator[StateSnapshot]:
        async with aclosing(super().aget_state_history(config, **options)) as history:  # type: ignore[type-var] # a generator
            async for found in history:
                yield _shown(found)

    # Copies: nothing of a run is kept on the object, so that copies share all that it has

    @override
    def copy(self, update: dict[str, Any] | None = None) -> Self:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.__dict__.update(update or {})
        return new

    def __copy__(self) -> Self:
        """Copy as `copy` does."""
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy as `copy` does."""
        return self.copy()


def _checked(given: Any) -> Any:
    """An input, or an update from outside, that writes nothing of the executor's own.

    Inputs come from clients, of LangGraph's server for example: they may not write labels, sessions
    and results. Of a dict, LangGraph takes the fields of the graph; a `Command` could write any
    channel.

    Raises:
        UsageError: If it does.
    """
    if isinstance(given, Command):
        own = [key for key, _ in _langgraph.command_writes(given) if is_own(str(key))]
        if own:
            msg = f"`{own[0]}` is no field of the graph. Update fields of its state only."
            raise UsageError(msg)
    return given


def _shown(snapshot: StateSnapshot) -> StateSnapshot:
    return snapshot._replace(metadata=loop.shown_metadata(snapshot.metadata))
