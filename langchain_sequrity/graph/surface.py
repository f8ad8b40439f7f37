"""The shell as a compiled graph: what callers see is the user's graph, not the shell."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs
from langchain_core.runnables.graph import Graph
from langgraph.errors import InvalidUpdateError
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, StateSnapshot, StateUpdate
from typing_extensions import override

from langchain_sequrity.chat_models.fallbacks import Guarded
from langchain_sequrity.errors import GraphNotSupported
from langchain_sequrity.graph import _langgraph
from langchain_sequrity.graph.calling.updates import OutputReader
from langchain_sequrity.graph.outside import (
    check_approval,
    check_update,
    goes_back,
    is_approving,
    is_update,
    no_start,
)
from langchain_sequrity.graph.own import DRIVE, LIMIT_KEY, PAUSE, PAUSE_KEY, RUN, RUN_KEY
from langchain_sequrity.graph.reading.spec import GraphSpec
from langchain_sequrity.graph.running.views import (
    ChunkShape,
    Views,
    is_between,
    shown_state,
    without_own_notes,
)
from langchain_sequrity.graph.running.watching import new_run

_SHELL_STEPS = 2_000_000
"""LangGraph's own limit for the shell; the program has the graph's."""


class Surface(Guarded[Any, Any], CompiledStateGraph[Any, Any, Any, Any]):
    """A compiled shell whose methods show and take what those of the user's graph do."""

    _given: "StateGraph[Any, Any, Any, Any] | _langgraph.Compiled"
    _spec: GraphSpec
    _views: Views
    _outputs: OutputReader

    # Running

    @override
    def stream(
        self, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> Iterator[Any]:
        full = _langgraph.full_config(self.config, config)
        _langgraph.check_config(self, full)
        if is_update(input) and _langgraph.has_saver(self, config):
            state, run = super().get_state(full), _langgraph.stored_value(self, full, RUN)
            check_update(run, is_open=bool(state.tasks))
        if goes_back(input, full) and _langgraph.has_saver(self, config):
            run, is_newest = _langgraph.stored_value(self, full, RUN), False
            if is_approving(run):
                is_newest = _langgraph.is_newest(self, full)
            check_approval(run, is_newest=is_newest)
        settings = self._settings(config, options)
        chunks = super().stream(input, settings, **options)
        return self._shown(chunks, _shape(options))

    @override
    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        full = _langgraph.full_config(self.config, config)
        _langgraph.check_config(self, full)
        if is_update(input) and _langgraph.has_saver(self, config):
            state = await super().aget_state(full)
            run = await _langgraph.astored_value(self, full, RUN)
            check_update(run, is_open=bool(state.tasks))
        if goes_back(input, full) and _langgraph.has_saver(self, config):
            run, is_newest = await _langgraph.astored_value(self, full, RUN), False
            if is_approving(run):
                is_newest = await _langgraph.ais_newest(self, full)
            check_approval(run, is_newest=is_newest)
        settings = self._settings(config, options)
        shape = _shape(options)
        with without_own_notes():
            async with aclosing(super().astream(input, settings, **options)) as chunks:  # type: ignore[type-var] # a generator
                async for chunk in chunks:
                    for one in shape.shown(chunk, self._views.show):
                        yield one

    def _shown(self, chunks: Iterator[Any], shape: ChunkShape) -> Iterator[Any]:
        with closing(chunks), without_own_notes():  # type: ignore[type-var] # a generator
            for chunk in chunks:
                yield from shape.shown(chunk, self._views.show)

    def _settings(self, config: RunnableConfig | None, options: dict[str, Any]) -> RunnableConfig:
        """The config of the shell: the limit is the program's, pauses are the shell's to make."""
        full = _langgraph.full_config(self.config, config)
        configurable = {
            LIMIT_KEY: full["recursion_limit"],
            **_langgraph.shown_to_parent(full, self._views.show),
        }
        pauses = options.get("interrupt_after") or self.interrupt_after_nodes
        configurable[RUN_KEY] = new_run(self.get_name())
        configurable[PAUSE_KEY] = pauses if pauses == "*" else list(pauses)
        if pauses:
            options["interrupt_after"] = [PAUSE]
        changed: RunnableConfig = {"recursion_limit": _SHELL_STEPS, "configurable": configurable}
        return merge_configs(config, changed)

    # States

    @override
    def get_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        return shown_state(super().get_state(config, subgraphs=subgraphs))

    @override
    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        return shown_state(await super().aget_state(config, subgraphs=subgraphs))

    @override
    def get_state_history(
        self, config: RunnableConfig, *, limit: int | None = None, **options: Any
    ) -> Iterator[StateSnapshot]:
        count = 0
        for number, found in enumerate(super().get_state_history(config, **options)):
            if limit is not None and count >= limit:
                return
            if number == 0 or not is_between(found):
                count += 1
                yield shown_state(found)

    @override
    async def aget_state_history(
        self, config: RunnableConfig, *, limit: int | None = None, **options: Any
    ) -> AsyncIterator[StateSnapshot]:
        count, number = 0, 0
        async with aclosing(super().aget_state_history(config, **options)) as history:  # type: ignore[type-var]
            async for found in history:
                if limit is not None and count >= limit:
                    return
                if number == 0 or not is_between(found):
                    count += 1
                    yield shown_state(found)
                number += 1

    @override
    def bulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        if not _langgraph.is_for_subgraph(config):
            run = _langgraph.stored_value(self, config, RUN)
            supersteps = self._allowed(super().get_state(config), run, supersteps)
        return super().bulk_update_state(config, supersteps)

    @override
    async def abulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        if not _langgraph.is_for_subgraph(config):
            run = await _langgraph.astored_value(self, config, RUN)
            supersteps = self._allowed(await super().aget_state(config), run, supersteps)
        return await super().abulk_update_state(config, supersteps)

    def _allowed(
        self, state: StateSnapshot, run: Any, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> list[list[StateUpdate]]:
        """The updates as the shell takes them; those that it cannot take are refused."""
        is_new, is_open = state.metadata is None, bool(state.tasks)
        found: list[list[StateUpdate]] = []
        for updates in supersteps:
            taken = []
            for one in (StateUpdate(*update) for update in updates):
                if one.as_node == "__copy__":
                    check_approval(run, is_newest=False)
                if one.as_node == "__copy__" or (one.values is None and one.as_node == END):
                    taken.append(one)  # no update, but a copy, or the end of an open run
                    continue
                check_update(run, is_open=is_open)
                taken.append(self._as_shell(one, is_new=is_new))
            is_new, is_open, run = False, False, None
            found.append(taken)
        return found

    def _as_shell(self, update: StateUpdate, *, is_new: bool) -> StateUpdate:
        node, values = update.as_node, update.values
        if node == START or (is_new and node is None):
            return update  # an input, of which START takes the fields of its schema
        if isinstance(values, Command) and values.goto:
            raise GraphNotSupported(no_start("Command(goto=…)"))
        if node in self._spec.nodes and self._leads_on(node):
            raise GraphNotSupported(no_start(f"as_node={node!r}"), node=node)
        if node is not None and node not in self._spec.nodes:
            msg = f"Node {node} does not exist"  # as LangGraph; the shell's own are no one's
            raise InvalidUpdateError(msg)
        if values is None:
            return update._replace(as_node=DRIVE)
        writes: Any = Command(update=self._outputs.read(values).writes)
        return update._replace(as_node=DRIVE, values=writes)

    def _leads_on(self, node: str) -> bool:
        edges = any(source == node and target != END for source, target in self._spec.edges)
        joins = any(node in sources for sources, _ in self._spec.joins)
        return edges or joins or bool(self._spec.branches_of(node))

    # Looking

    @override
    def get_graph(self, config: RunnableConfig | None = None, *, xray: int | bool = False) -> Graph:
        """Draw the user's graph, without the shell."""
        return self._drawing().get_graph(config, xray=xray)

    @override
    async def aget_graph(
        self, config: RunnableConfig | None = None, *, xray: int | bool = False
    ) -> Graph:
        """Draw the user's graph, without the shell."""
        return await self._drawing().aget_graph(config, xray=xray)

    def _drawing(self) -> _langgraph.Compiled:
        given = self._given
        drawn = (
            given if isinstance(given, CompiledStateGraph) else _langgraph.separate(given).compile()
        )
        pauses = ("interrupt_before_nodes", "interrupt_after_nodes")
        return drawn.copy({name: getattr(self, name) for name in pauses})

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


def _shape(options: dict[str, Any]) -> ChunkShape:
    return ChunkShape(
        options.get("stream_mode"),
        subgraphs=bool(options.get("subgraphs")),
        version=options.get("version", "v1"),
    )
