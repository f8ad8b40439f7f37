"""The tasks of a run: each runs a user's node, its error handler or a router for one call.

LangGraph starts the tasks with its own inputs. They run the user's code with the arguments of the
service's call, which the policy has checked.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import NodeError, ParentCommand
from langgraph.graph import START
from langgraph.types import CachePolicy, Command, Send
from typing_extensions import override

from langchain_sequrity import _compat
from langchain_sequrity.graph.analysis.reads_and_writes import field_router_of
from langchain_sequrity.graph.analysis.spec import Branch, GraphSpec, NodeSpec
from langchain_sequrity.graph.codec.values import current_objects
from langchain_sequrity.graph.dispatch import Arguments, ClientTools, NodeResult
from langchain_sequrity.graph.journal import CallResult, ProgramCall
from langchain_sequrity.graph.program import (
    DRIVER,
    JOURNAL,
    REPORT,
    GraphProgram,
    ToolSpec,
)
from langchain_sequrity.graph.runtime.call_state import CallState, for_user
from langchain_sequrity.graph.runtime.driver import Driver
from langchain_sequrity.graph.runtime.events import call_watch, note_call
from langchain_sequrity.labels import (
    GatheredLabels,
    Labels,
    labels_given,
    labels_of_error,
)
from langchain_sequrity.strict_json import digest_of
from langchain_sequrity.sync_or_async import run_to_end


class GraphTasks:
    """Makes the nodes and routers of a compiled graph answer calls.

    Args:
        spec: The user's graph.
        program: The graph as a program.
        tools: The client side of its tools.

    Attributes:
        nodes: The tools of the nodes, by name.
        routers: The tools of the routers, by node and branch.
    """

    def __init__(self, spec: GraphSpec, program: GraphProgram, tools: ClientTools) -> None:
        self.spec = spec
        self.program = program
        self.tools = tools
        specs = program.tools.values()
        self.nodes = {tool.node: tool for tool in specs if tool.role == "node"}
        self.routers = {(tool.node, tool.branch): tool for tool in specs if tool.role == "router"}

    def attach(self, graph: _compat.Compiled) -> None:
        """Make the nodes of a compiled graph answer calls."""
        for node in self.spec.nodes.values():
            runnables = {node.name: node.runnable}
            if node.error_handler is not None:
                runnables[graph.node_error_handler_map[node.name]] = node.error_handler
            for name, runnable in runnables.items():
                writers = _compat.writers_of(graph, name)
                _compat.replace_node(graph, name, _NodeTask(self, name, node, runnable, writers))

    def router(self, branch: Branch) -> Runnable[Any, Any]:
        """The runnable for a router in the compiled graph."""
        if field_router_of(branch) is not None:
            path: Runnable[Any, Any] = branch.path
            return path
        return _RouterTask(self, branch, self.routers.get((branch.source, branch.name)))

    def cache_policy(self, spec: NodeSpec) -> CachePolicy[Any] | None:
        """A node's cache policy, with the program in the key.

        So a result that LangGraph or another executor has cached for the same function is not used.
        """
        policy = spec.cache_policy
        if policy is None:
            return None
        program_digest = digest_of(self.program.text)
        return CachePolicy(
            key_func=lambda state: f"{program_digest}:{policy.key_func(state)!r}", ttl=policy.ttl
        )

    # Inputs and configs

    def state_of(self, tool: ToolSpec, arguments: Arguments, config: RunnableConfig) -> "CallState":
        """The state of a call of a node or a router."""
        unsaved = self.tools.unsaved
        return CallState(
            self.tools.inputs[tool.name],
            arguments,
            _compat.values_of(config, unsaved) if unsaved else {},
        )

    def input_of(self, state: "CallState", config: RunnableConfig) -> Any:
        """The input of a node or a router."""
        signature = state.signature
        managed = _compat.managed_values(config, signature.managed, self.spec.managed)
        return signature.read(state.arguments, state, managed)

    def explain(self, tool: ToolSpec, error: KeyError) -> None:
        """Add a note to the `KeyError` of a node that reads an undetected field."""
        field = error.args[0] if error.args else None
        reads = [p.field for p in tool.parameters if p.field is not None]
        schema = self.spec.nodes[tool.node].input_fields
        if not isinstance(field, str) or field in reads or field not in schema:
            return
        error.add_note(
            f"Node `{tool.node}` only gets the fields that it reads, and `{field}` is not one of "
            f"them (source: {tool.reads_from}). Declare what it reads: "
            f"`nodes={{{tool.node!r}: NodeOptions(reads={[*reads, field]!r})}}`."
        )


class _NodeTask(Runnable[Any, Any]):
    """Runs a user's node, or its error handler, for a call."""

    def __init__(
        self,
        calls: GraphTasks,
        name: str,
        node: NodeSpec,
        runnable: Runnable[Any, Any],
        writers: Sequence[Runnable[Any, Any]],
    ) -> None:
        self.name: str = name
        self._calls = calls
        self._node = node
        self._runnable = runnable
        self._writers = writers
        self._is_handler = name != node.name
        self._trace_policy = None if self._is_handler else node.trace_policy
        routers = calls.routers.items()
        self._routers = [tool.name for (source, _), tool in routers if source == node.name]
        self.tool = calls.nodes[node.name]

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return run_to_end(self._run_whole(config or {}))

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return await self._run_whole(config or {})

    @override
    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        # For `astream_events`, LangGraph streams its nodes, so callbacks get what they yield.
        yield await self._run_whole(config or {}, streams=True)

    async def _run_whole(self, config: RunnableConfig, *, streams: bool = False) -> Any:
        """Run with all writes or none.

        LangGraph stores the writes of a task that fails or is cancelled, for example in its router,
        and takes the task for finished.
        """
        try:
            return await self._run(config, streams=streams)
        except (Exception, asyncio.CancelledError):
            _compat.remove_writes(config)
            raise

    async def _run(self, config: RunnableConfig, *, streams: bool = False) -> Any:
        driver, task = _driver_and_task(config)
        await driver.waiting.for_step(task)
        if output := driver.tasks.output_of(task):  # continue after an earlier attempt
            _compat.write(config, list(map(tuple, output["writes"])))
            return await self.follow(output["goto"], config)
        call = await driver.waiting.for_call(task, config)
        if call is None:
            return None
        watch = call_watch(call, driver.run_id, config)
        with watch, GatheredLabels() as gathered, driver.log.objects.in_use():
            state = driver.results.states.get(call.id)
            if state is None:  # attempts share what they change in place, as in LangGraph
                state = self._calls.state_of(self.tool, call.arguments, config)
                driver.results.states[call.id] = state
            report = _ResultWriter(self, call, state, gathered, config)
            settings = self._settings(state, config)
            if self.tool.is_handover:
                return await report.report(call.arguments, settings)
            node_input = self._calls.input_of(state, config)
            driver.results.check_shared(task, state, state.opaque_objects, "may change")
            sequence = _compat.sequence(self._runnable, report, self._trace_policy)
            try:
                if streams:
                    async for _ in sequence.astream(node_input, settings):
                        pass
                    return None
                return await driver.call(sequence, node_input, settings)
            except ParentCommand as error:
                command = _compat.command_to_own_graph(error, settings, self.name)
                if command is None:
                    raise
            except KeyError as error:
                self._calls.explain(self.tool, error)
                raise
            return await report.report(command, settings)

    async def follow(self, goto: Sequence[Send | str], config: RunnableConfig) -> None:
        """Run LangGraph's own writers of the node: edges, joins and routers."""
        driver, _ = _driver_and_task(config)
        command: Command[Any] = Command(goto=goto)
        for writer in self._writers:
            if _compat.is_writer(writer):
                writer.invoke(command, config)
            else:
                await driver.call(writer, command, config)

    def _settings(self, state: CallState, config: RunnableConfig) -> RunnableConfig:
        if self._is_handler:
            # The error may quote values that the node had labelled before it failed.
            for value in config.get("configurable", {}).values():
                labels = labels_of_error(value.error) if isinstance(value, NodeError) else None
                if labels is not None:
                    labels_given(labels)
        if self.tool.is_handover:
            return config
        return state.config(config)

    def result_of(self, output: Any, state: CallState) -> NodeResult:
        """The result of the node's output, and of what it changed in place."""
        tools = self._calls.tools
        if self.tool.is_handover:
            return tools.handover_result(self.tool, output)
        return tools.node_result(self.tool, output, state.changes(), handled=self._is_handler)

    def stored_output(
        self, writes: Sequence[tuple[str, Any]], result: NodeResult
    ) -> dict[str, Any]:
        """The part of an output that is stored before a router is called."""
        unsaved, channels = self._calls.tools.unsaved, self._calls.spec.channels
        return {
            "writes": [[channel, value] for channel, value in writes if channel not in unsaved],
            "goto": [
                _compat.storable(target, channels) if isinstance(target, Send) else target
                for target in result.goto
            ],
        }

    def asks_routers(self, call: ProgramCall, handle: str) -> bool:
        """Whether the node has routers that wait for calls of their own."""
        if self._is_handler or self.tool.fused_in(call.arguments):
            return False
        early = self._calls.program.early if handle else frozenset()
        return not early.issuperset(self._routers)

    def call_result(
        self,
        call: ProgramCall,
        result: NodeResult,
        gathered: GatheredLabels,
        session: str | None,
        handle: str,
    ) -> CallResult:
        """The journal's record of a result.

        A node's "replace" for its own result is final. Otherwise the result may contain anything
        that was labelled while the node ran.
        """
        labels, combine = result.labels or Labels(), result.combine
        if gathered.labels is not None and combine != "replace":
            labels = labels.join(gathered.labels)
        if handle and combine == "replace":
            combine = "merge"  # the handle already has the labels of the arguments
        labels = Labels(producers=frozenset({self._node.name})).join(labels)
        gathered.tell(labels)  # the run may end without a report
        facts: dict[str, Any] = {"session": session, "handle": handle, "objects": _new_objects()}
        return CallResult.for_value(call, result.wire, labels, combine, **facts)


class _ResultWriter(Runnable[Any, Any]):
    """Writes the result of a node's output, and passes the output on."""

    # One is made for each call, so it is not a `RunnableCallable`, which inspects signatures.
    def __init__(
        self,
        node: _NodeTask,
        call: ProgramCall,
        state: CallState,
        gathered: GatheredLabels,
        config: RunnableConfig,
    ) -> None:
        self.name: str = node.name
        self.call = call
        self._state = state
        self.result = NodeResult({}, ())
        self._node = node
        self._gathered = gathered
        self._driver, self._task = _driver_and_task(config)
        self._configurable = config["configurable"]
        self._asks_routers = node.asks_routers(call, self._driver.tasks.get(self._task).handle)

    @property
    def fused(self) -> tuple[ToolSpec, ...]:
        """The routers that run within this call."""
        return self._node.tool.fused_in(self.call.arguments)

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return run_to_end(self.report(input, config or {}))

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return await self.report(input, config or {})

    async def report(self, output: Any, config: RunnableConfig) -> Any:
        """Write the node's updates and their entry, and run the writers of the node."""
        note_call(self.call, config)
        result = self.result = self._node.result_of(output, self._state)
        self._driver.results.check_shared(
            self._task, self._state, self._state.changed_objects, "changed"
        )
        _compat.write(config, result.writes)
        if self._asks_routers:
            await self._store_output(result, config)
        # The task's own config, which the node's code does not see.
        configurable = {**self._configurable, REPORT: self}
        try:
            await self._node.follow(result.goto, {**config, "configurable": configurable})
        except Exception:
            if not (self._asks_routers or self.fused):  # a router that runs before its call failed
                await self._store_output(result, config)
            raise
        if not self._asks_routers:
            self._write_result(self.result, config)  # a fused router may have changed it
        await self._driver.waiting.wake()
        return output

    async def _store_output(self, result: NodeResult, config: RunnableConfig) -> None:
        """Store the output, so that the node does not run again if a router does not finish."""
        if not self._write_result(result, config):
            return
        output = self._node.stored_output(_compat.task_writes(config), result)
        await self._driver.store_output(self._task, output)

    def _write_result(self, result: NodeResult, config: RunnableConfig) -> bool:
        """Write the entry of the call. `False` in an attempt that has timed out, which has none."""
        driver, handle = self._driver, self._driver.tasks.get(self._task).handle
        session = driver.log.session
        record = self._node.call_result(self.call, result, self._gathered, session, handle)
        record = driver.log.with_batch(record)
        if not _compat.add_to_first_write(config, JOURNAL, record.stored()):
            return False
        driver.results.by_task[self._task] = result
        driver.record(self._task, self._node.tool, record)
        return True


class _RouterTask(Runnable[Any, Any]):
    """Runs a user's router, for its own call or within the call of its node.

    Without a driver, as in `update_state`, it is the plain router.
    """

    def __init__(self, calls: GraphTasks, branch: Branch, tool: ToolSpec | None) -> None:
        self.name: str = branch.name
        self._calls = calls
        self._branch = branch
        self._tool = tool

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        if config is None or DRIVER not in config.get("configurable", {}):
            return self._branch.path.invoke(input, config)
        return run_to_end(self._route_whole(input, config))

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        if config is None or DRIVER not in config.get("configurable", {}):
            return await self._branch.path.ainvoke(input, config)
        return await self._route_whole(input, config)

    async def _route_whole(self, state: Any, config: RunnableConfig) -> Any:
        try:
            return await self._route(state, config)
        except (Exception, asyncio.CancelledError):
            if self._branch.source == START:  # as `_NodeTask` does
                _compat.remove_writes(config)
            raise

    async def _route(self, state: Any, config: RunnableConfig) -> Any:
        driver, task = _driver_and_task(config)
        path, tool = self._branch.path, self._tool
        report: _ResultWriter | None = config["configurable"].get(REPORT)
        if report is not None:
            for router in report.fused:
                if router.branch == self._branch.name:
                    return await self._route_within(report, router, config)
        assert tool is not None  # noqa: S101 - otherwise it is fused
        if tool.name in self._calls.program.early and driver.tasks.get(task).handle:
            # It runs with its node, before its own call.
            with GatheredLabels() as gathered, driver.log.objects.in_use():
                before = self._calls.tools.snapshots(state)
                answer = await driver.call(path, state, for_user(config))
                changes = [field for field, snapshot in before.items() if snapshot.is_changed()]
                call = driver.provisional_call(task, tool)
                self._finish(tool, call, answer, gathered, config, changes=changes, is_early=True)
            return answer
        router_call = await driver.waiting.for_router_call(task, tool, config)
        if router_call is None:
            return []
        watch = call_watch(router_call, driver.run_id, config)
        with watch, GatheredLabels() as gathered, driver.log.objects.in_use():
            state = self._calls.state_of(tool, router_call.arguments, config)
            router_input = self._calls.input_of(state, config)
            answer = await driver.call(path, router_input, state.config(config))
            self._finish(tool, router_call, answer, gathered, config, changes=state.changes())
        await driver.waiting.wake()
        return answer

    async def _route_within(
        self, report: "_ResultWriter", router: ToolSpec, config: RunnableConfig
    ) -> Any:
        """Run within the call of the node."""
        tools, node = self._calls.tools, self._calls.nodes[router.node]
        arguments = tools.fused_arguments(node, router, report.call.arguments, report.result)
        state = self._calls.state_of(router, arguments, config)
        router_input = self._calls.input_of(state, config)
        driver, _ = _driver_and_task(config)
        answer = await driver.call(self._branch.path, router_input, for_user(config))
        route = tools.router_result(router, answer, state.changes())
        result = tools.with_route(report.result, route)
        # "replace" of a node is about its own writes, not about the packets of its router.
        report.result = replace(result, combine="merge")
        return answer

    def _finish(
        self,
        tool: ToolSpec,
        call: ProgramCall,
        answer: Any,
        gathered: GatheredLabels,
        config: RunnableConfig,
        *,
        changes: Iterable[str],
        is_early: bool = False,
    ) -> None:
        driver, task = _driver_and_task(config)
        wire = self._calls.tools.router_result(tool, answer, changes)
        facts: dict[str, Any] = {"session": driver.log.session, "objects": _new_objects()}
        facts["early_id"] = call.id if is_early else ""
        result = CallResult.for_value(call, wire, gathered.labels or Labels(), **facts)
        result = driver.log.with_batch(result)
        if _compat.add_to_first_write(config, JOURNAL, result.stored()):
            driver.record(task, tool, result)


def _driver_and_task(config: RunnableConfig) -> tuple[Driver, str]:
    configurable = config["configurable"]
    return configurable[DRIVER], configurable[_compat.TASK_ID]


def _new_objects() -> Mapping[str, Any] | None:
    """The objects that a result has made, behind its handles."""
    objects = current_objects()
    return (objects.fresh or None) if objects is not None else None
