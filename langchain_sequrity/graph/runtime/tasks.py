"""The tasks of a run: each runs a user's node, its error handler or a router for one call.

LangGraph starts the tasks with its own inputs. They run the user's code with the arguments of the
service's call, which the policy has checked.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NoReturn

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import NodeError, ParentCommand
from langgraph.types import CachePolicy, Command
from typing_extensions import override

from langchain_sequrity.errors import UsageError
from langchain_sequrity.graph import _compat
from langchain_sequrity.graph.analysis.reads_and_writes import field_router_of
from langchain_sequrity.graph.analysis.spec import Branch, GraphSpec, NodeSpec
from langchain_sequrity.graph.approval import Denials
from langchain_sequrity.graph.codec.channels import AnyChannel
from langchain_sequrity.graph.codec.values import current_objects
from langchain_sequrity.graph.dispatch import Arguments, ClientTools, NodeResult, ToolInput
from langchain_sequrity.graph.journal import (
    EARLY,
    OBJECTS,
    DeniedCall,
    JournalEntry,
    ProgramCall,
    digest_of,
    result_entry,
)
from langchain_sequrity.graph.program import HANDLE, JOURNAL, GraphProgram, ToolSpec, is_own
from langchain_sequrity.graph.runtime.driver import DRIVER, Driver
from langchain_sequrity.graph.runtime.events import CallWatch, call_facts, note
from langchain_sequrity.graph.runtime.task_calls import RunStopped
from langchain_sequrity.interrupts import ais_late, is_late
from langchain_sequrity.labels import (
    Combine,
    GatheredLabels,
    Labels,
    labels_given,
    labels_of_error,
)

Work = Iterator[tuple[Runnable[Any, Any], Any]]
"""Yields runnables with their inputs."""

Writers = Sequence[Runnable[Any, Any]]


class GraphTasks:
    """Makes the nodes and routers of a compiled graph answer calls.

    Args:
        spec: The user's graph.
        program: The graph as a program.
        tools: The client side of its tools.
        denials: Asks a human about denied calls.
    """

    def __init__(
        self, spec: GraphSpec, program: GraphProgram, tools: ClientTools, denials: Denials
    ) -> None:
        self.spec = spec
        self.program = program
        self.tools = tools
        self.denials = denials
        of_nodes = (one for one in program.tools.values() if one.role == "node")
        self._nodes = {one.node: one for one in of_nodes}
        routers = [one for one in program.tools.values() if one.role == "router"]
        self._routers = {(one.node, str(one.branch)): one for one in routers}

    def tool_of(self, node: str) -> ToolSpec:
        """The tool of a node."""
        return self._nodes[node]

    def waits_for_routers(self, node: str, *, is_beside: bool) -> bool:
        """Whether a node has routers that need calls of their own.

        Args:
            node: The node.
            is_beside: Whether its task runs beside others.
        """
        routers = [one.name for (source, _), one in self._routers.items() if source == node]
        return not self.program.early.issuperset(routers) if is_beside else bool(routers)

    def attach(self, graph: _compat.Compiled) -> None:
        """Make the nodes of a compiled graph answer calls."""
        for node in self.spec.nodes.values():
            self._attach(graph, node.name, node, node.runnable, is_handler=False)
            if node.error_handler is not None:
                handler = graph.node_error_handler_map[node.name]
                self._attach(graph, handler, node, node.error_handler, is_handler=True)

    def _attach(
        self,
        graph: _compat.Compiled,
        name: str,
        node: NodeSpec,
        runnable: Runnable[Any, Any],
        *,
        is_handler: bool,
    ) -> None:
        writers = _compat.writers_of(graph, name)
        policy = None if is_handler else node.trace_policy
        task = _NodeTask(
            self,
            name,
            node,
            runnable=runnable,
            writers=writers,
            trace_policy=policy,
            is_handler=is_handler,
        )
        _compat.run_as(graph, name, task)

    def router(self, branch: Branch) -> Runnable[Any, Any]:
        """The runnable for a router in the compiled graph."""
        if field_router_of(branch) is not None:
            path: Runnable[Any, Any] = branch.path
            return path
        tool = self._routers.get((branch.source, branch.name))
        fused = next(
            (
                one
                for tool_ in self._nodes.values()
                for one in tool_.fused
                if (one.node, one.branch) == (branch.source, branch.name)
            ),
            None,
        )
        return _RouterTask(self, branch, tool, fused)

    def cache_policy(self, spec: NodeSpec) -> CachePolicy[Any] | None:
        """A node's cache policy, with the program in the key.

        So a result that LangGraph or another executor has cached for the same function is not used.
        """
        policy = spec.cache_policy
        if policy is None:
            return None
        of_program = digest_of(self.program.text)
        return CachePolicy(
            key_func=lambda given: f"{of_program}:{policy.key_func(given)!r}", ttl=policy.ttl
        )

    # Inputs and configs

    def managed(self, tool: ToolSpec, config: RunnableConfig) -> dict[str, Any]:
        """LangGraph's managed values that a node or a router reads."""
        names = self.tools.managed_of(tool)
        return _compat.managed_values(config, names, self.spec.managed) if names else {}

    def unsaved(self, config: RunnableConfig) -> Mapping[str, Any]:
        """LangGraph's values of fields that no checkpoint has."""
        unsaved = self.tools.unsaved
        return _compat.values_of(config, unsaved) if unsaved else {}

    def callers_config(
        self, tool: ToolSpec, call: ProgramCall, config: RunnableConfig
    ) -> RunnableConfig:
        """The config of a task for the user's code; it reads the state of the call."""
        given = config.get("configurable", {})
        changed: RunnableConfig = {**config}
        changed["configurable"] = {key: one for key, one in given.items() if not is_own(key)}
        signature = self.tools.signature_of(tool)
        state = CallState(signature, call.arguments, self.unsaved(config))
        return _compat.with_state(changed, state.for_tools, state)

    def explain(self, tool: ToolSpec, error: KeyError) -> None:
        """Add a note to the `KeyError` of a node that reads an undetected field."""
        field = error.args[0] if error.args else None
        reads = [one.field for one in tool.parameters if one.field is not None]
        schema = self.spec.nodes[tool.node].input_fields
        if not isinstance(field, str) or field in reads or field not in schema:
            return
        error.add_note(
            f"Node `{tool.node}` only gets the fields that it reads, and `{field}` is not one of "
            f"them (source: {tool.reads_from}). Declare what it reads: "
            f"`nodes={{{tool.node!r}: NodeOptions(reads={[*reads, field]!r})}}`."
        )


class CallState(Mapping[str, AnyChannel]):
    """Channels with the fields of a call, made when they are read.

    Args:
        signature: The meaning of the tool's arguments.
        arguments: Those of the call.
        unsaved: LangGraph's values of fields that no checkpoint has; `MISSING` for none.
    """

    def __init__(
        self, signature: ToolInput, arguments: Arguments, unsaved: Mapping[str, Any]
    ) -> None:
        self._signature = signature
        self._arguments = arguments
        self._unsaved = unsaved

    def for_tools(self) -> Any:
        """The state for a `ToolNode` that a `Send` started, as an edge would give it."""
        signature = self._signature
        if not signature.brings_state(self._arguments):
            return _MissingState(signature.tool.node, {})
        if signature.is_send(self._arguments):
            return signature.state(self._arguments, self._unsaved)
        held = {name: one.get() for name, one in self._channels.items() if one.is_available()}
        return held if signature.is_whole else _MissingState(signature.tool.node, held)

    @cached_property
    def _channels(self) -> dict[str, AnyChannel]:
        if self._signature.brings_state(self._arguments):
            return self._signature.channels(self._arguments, self._unsaved)
        return {}

    @override
    def __getitem__(self, field: str) -> AnyChannel:
        if field not in self._channels:
            _refuse(self._signature.tool.node, field)
        return self._channels[field]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._channels)

    @override
    def __len__(self) -> int:
        return len(self._channels)


class _MissingState(Mapping[str, Any]):
    """A state that the call has only in part. Any other access is an error."""

    def __init__(self, node: str, held: Mapping[str, Any]) -> None:
        self._node = node
        self._held = held

    @override
    def __getitem__(self, field: str) -> Any:
        if field not in self._held:
            _refuse(self._node, field)
        return self._held[field]

    @override
    def __iter__(self) -> Iterator[str]:
        _refuse(self._node)

    @override
    def __len__(self) -> int:  # noqa: PLE0303 - it always raises
        _refuse(self._node)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what copying and pickling ask for
            raise AttributeError(name)
        _refuse(self._node, name)


def _refuse(node: str, field: str | None = None) -> NoReturn:
    what = "the state" if field is None else f"`{field}` of the state"
    msg = (
        f"Node `{node}` reads {what} through its config, but the call does not have it. Make the "
        "`ToolNode` itself the node, or pass what it needs in the argument of the `Send`; for a "
        f"node that an edge starts, declare it: `nodes={{{node!r}: NodeOptions(reads=[…])}}`."
    )
    raise UsageError(msg)


class _NodeTask(Runnable[Any, Any]):
    """Runs a user's node, or its error handler, for a call."""

    def __init__(
        self,
        calls: GraphTasks,
        name: str,
        node: NodeSpec,
        *,
        runnable: Runnable[Any, Any],
        writers: Writers,
        trace_policy: Any,
        is_handler: bool,
    ) -> None:
        self.name: str = name
        self._calls = calls
        self._node = node
        self._runnable = runnable
        self._writers = writers
        self._trace_policy = trace_policy
        self._is_handler = is_handler
        self._tool = calls.tool_of(node.name)

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        config = config or {}
        driver, task = _driver_and_task(config)
        driver.begin(task)
        if kept := driver.stored_output(task):
            return _run(self.finish(kept, config), config)
        call = driver.call_of(task)
        if call is None:
            return None
        if isinstance(call, DeniedCall):
            call = approved(self._calls.denials, call, driver, config, late=is_late(config))
        watch = CallWatch(call, driver.run_id, config)
        with watch, GatheredLabels() as gathered, driver.objects.in_use():
            report = _ResultWriter(self, call, gathered, config)
            settings = self._settings(call, config)
            if self._tool.is_handover:
                return report.invoke(call.arguments, settings)
            given = self._given(call, config)
            sequence = _compat.sequence(self._runnable, report, self._trace_policy)
            try:
                return sequence.invoke(given, settings)
            except ParentCommand as error:
                command = self._own(error, settings)
            except KeyError as error:
                self._calls.explain(self._tool, error)
                raise
            return report.invoke(command, settings)

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return await self._whole(config or {}, streams=False)

    @override
    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        # For `astream_events`, LangGraph streams its nodes, so callbacks get what they yield.
        yield await self._whole(config or {}, streams=True)

    async def _whole(self, config: RunnableConfig, *, streams: bool) -> Any:
        """Run with all writes or none, because LangGraph keeps those of a cancelled task."""
        try:
            return await self._arun(config, streams=streams)
        except asyncio.CancelledError:
            _compat.take_back(config)
            raise

    async def _arun(self, config: RunnableConfig, *, streams: bool) -> Any:
        driver, task = _driver_and_task(config)
        await driver.abegin(task)
        if kept := driver.stored_output(task):
            return await _arun(self.finish(kept, config), config)
        call = await driver.acall_of(task)
        if isinstance(call, DeniedCall):
            late = await ais_late(config)
            call = approved(self._calls.denials, call, driver, config, late=late)
        if call is None:
            return None
        watch = CallWatch(call, driver.run_id, config)
        with watch, GatheredLabels() as gathered, driver.objects.in_use():
            report = _ResultWriter(self, call, gathered, config)
            settings = self._settings(call, config)
            if self._tool.is_handover:
                return await report.ainvoke(call.arguments, settings)
            given = self._given(call, config)
            sequence = _compat.sequence(self._runnable, report, self._trace_policy)
            try:
                return await _run_streamed(sequence, given, settings, streams=streams)
            except ParentCommand as error:
                command = self._own(error, settings)
            except KeyError as error:
                self._calls.explain(self._tool, error)
                raise
            return await report.ainvoke(command, settings)

    def _given(self, call: ProgramCall, config: RunnableConfig) -> Any:
        managed = self._calls.managed(self._tool, config)
        unsaved = self._calls.unsaved(config)
        return self._calls.tools.input_of(self._tool, call.arguments, managed, unsaved)

    def _settings(self, call: ProgramCall, config: RunnableConfig) -> RunnableConfig:
        if self._is_handler:
            # The error may quote values that the node had labelled before it failed.
            for one in config.get("configurable", {}).values():
                if not isinstance(one, NodeError):
                    continue
                if (labels := labels_of_error(one.error)) is not None:
                    labels_given(labels)
        if self._tool.is_handover:
            return config
        return self._calls.callers_config(self._tool, call, config)

    def _own(self, error: ParentCommand, config: RunnableConfig) -> Command[Any]:
        """The command of an inner graph to this graph. One to an outer graph is raised again."""
        command = _compat.own_command(error, config, self.name)
        if command is None:
            raise error
        return command

    def finish(self, kept: Mapping[str, Any], config: RunnableConfig) -> Work:
        """Continue after the stored output of an earlier attempt."""
        _compat.write(config, [tuple(one) for one in kept["writes"]])
        command: Command[Any] = Command(goto=list(kept["goto"]))
        for writer in self._writers:
            yield writer, command

    def found(self, output: Any) -> NodeResult:
        """The result of the node's output."""
        tools = self._calls.tools
        if self._tool.is_handover:
            return tools.handed_over(self._tool, output)
        return tools.node_result(self._tool, output, handled=self._is_handler)

    def output(self, writes: Sequence[tuple[str, Any]], found: NodeResult) -> dict[str, Any]:
        """The part of an output that is stored before a router is called."""
        unsaved, channels = self._calls.tools.unsaved, self._calls.spec.channels
        return {
            "writes": [list(one) for one in writes if one[0] not in unsaved],
            "goto": [*found.gotos, *(_compat.storable(one, channels) for one in found.sends)],
        }

    @property
    def writers(self) -> Writers:
        """LangGraph's own writers of the node: edges, joins and routers."""
        return self._writers

    def asks_routers(self, call: ProgramCall, handle: str) -> bool:
        """Whether the node has routers that wait for calls of their own."""
        if self._is_handler or self._tool.fused_in(call.arguments):
            return False
        return self._calls.waits_for_routers(self._node.name, is_beside=bool(handle))

    def entry(
        self,
        call: ProgramCall,
        found: NodeResult,
        gathered: GatheredLabels,
        driver: Driver,
        handle: str,
    ) -> JournalEntry:
        """The journal's entry of a result."""
        labels, combine = _labels_of(found, gathered)
        if handle and combine == "replace":
            combine = "merge"  # the handle already has the labels of the arguments
        labels = Labels(producers=frozenset({self._node.name})).join(labels)
        gathered.tell(labels)  # the run may end without a report
        named = {HANDLE: handle} if handle else {}
        entry = result_entry(call, found.wire, labels, combine)
        return {**entry, "in": driver.session, **named, **_objects()}


class _ResultWriter(Runnable[Any, Any]):
    """Writes the result of a node's output, and passes the output on."""

    # One is made for each call, so it is not a `RunnableCallable`, which inspects signatures.
    def __init__(
        self, node: _NodeTask, call: ProgramCall, gathered: GatheredLabels, config: RunnableConfig
    ) -> None:
        self.name: str = node.name
        self.call = call
        self.found: NodeResult | None = None
        self._node = node
        self._gathered = gathered
        self._driver, self._task = _driver_and_task(config)
        self._given = config["configurable"]
        self._asks_routers = node.asks_routers(call, self._driver.handle_of(self._task))

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        config = config or {}
        note(call_facts(self.call), config)
        output = self._take(input, config)
        if output is not None and (stored := self._driver.keep_output(self._task, output)):
            stored.result()
        _run(self._follow(), self._with_report(config))
        self._finish(config)
        self._driver.notify()
        return input

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        config = config or {}
        note(call_facts(self.call), config)
        output = self._take(input, config)
        if output is not None and (stored := self._driver.keep_output(self._task, output)):
            await stored
        await _arun(self._follow(), self._with_report(config))
        self._finish(config)
        await self._driver.anotify()
        return input

    def _take(self, output: Any, config: RunnableConfig) -> dict[str, Any] | None:
        """Write the node's updates. Returns what to store if a router is called next."""
        found = self.found = self._node.found(output)
        self._driver.keep_raw_output(self._task, found)
        _compat.write(config, found.writes)
        if not self._asks_routers:
            return None
        self._write_entry(config)
        return self._node.output(_compat.written(config), found)

    def _follow(self) -> Work:
        found = self.found
        assert found is not None  # noqa: S101 - set before
        command: Command[Any] = Command(goto=[*found.gotos, *found.sends])
        for writer in self._node.writers:
            yield writer, command

    def _finish(self, config: RunnableConfig) -> None:
        if not self._asks_routers:
            self._write_entry(config)

    def _write_entry(self, config: RunnableConfig) -> None:
        assert self.found is not None  # noqa: S101 - set before
        handle = self._driver.handle_of(self._task)
        entry = self._node.entry(self.call, self.found, self._gathered, self._driver, handle)
        self._driver.record_result(self._task, entry)
        _compat.write(config, [(JOURNAL, [entry])])

    def _with_report(self, config: RunnableConfig) -> RunnableConfig:
        """The task's own config, which the node's code does not see, for LangGraph's writers."""
        return {**config, "configurable": {**self._given, _REPORT: self}}


class _RouterTask(Runnable[Any, Any]):
    """Runs a user's router, for its own call or within the call of its node.

    Without a driver, as in `update_state`, it is the plain router.
    """

    def __init__(
        self, calls: GraphTasks, branch: Branch, tool: ToolSpec | None, fused: ToolSpec | None
    ) -> None:
        self.name: str = branch.name
        self._calls = calls
        self._branch = branch
        self._tool = tool
        self._fused = fused

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        config = config or {}
        given = config.get("configurable", {})
        if given.get(DRIVER) is None:
            return self._branch.path.invoke(input, config)
        if (fused := self._fused_input(config)) is not None:
            answer = self._branch.path.invoke(fused[0], _plain(config))
            self._add_route(answer, config)
            return answer
        driver, task = _driver_and_task(config)
        tool = self._own_tool()
        if self._is_early(driver, task):
            with GatheredLabels() as gathered, driver.objects.in_use():
                answer = self._branch.path.invoke(input, _plain(config))
                self._finish(tool, driver.call_before(task, tool), answer, gathered, config, EARLY)
            return answer
        call = driver.router_call(task, tool)
        if isinstance(call, DeniedCall):
            call = approved(self._calls.denials, call, driver, config, late=is_late(config))
        if call is None:
            return []
        watch = CallWatch(call, driver.run_id, config)
        with watch, GatheredLabels() as gathered, driver.objects.in_use():
            answer = self._branch.path.invoke(*self._given(tool, call, config))
            self._finish(tool, call, answer, gathered, config)
        driver.notify()
        return answer

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        config = config or {}
        given = config.get("configurable", {})
        if given.get(DRIVER) is None:
            return await self._branch.path.ainvoke(input, config)
        if (fused := self._fused_input(config)) is not None:
            answer = await self._branch.path.ainvoke(fused[0], _plain(config))
            self._add_route(answer, config)
            return answer
        driver, task = _driver_and_task(config)
        tool = self._own_tool()
        if self._is_early(driver, task):
            with GatheredLabels() as gathered, driver.objects.in_use():
                answer = await self._branch.path.ainvoke(input, _plain(config))
                self._finish(tool, driver.call_before(task, tool), answer, gathered, config, EARLY)
            return answer
        call = await driver.arouter_call(task, tool)
        if isinstance(call, DeniedCall):
            late = await ais_late(config)
            call = approved(self._calls.denials, call, driver, config, late=late)
        if call is None:
            return []
        watch = CallWatch(call, driver.run_id, config)
        with watch, GatheredLabels() as gathered, driver.objects.in_use():
            answer = await self._branch.path.ainvoke(*self._given(tool, call, config))
            self._finish(tool, call, answer, gathered, config)
        await driver.anotify()
        return answer

    def _is_early(self, driver: Driver, task: str) -> bool:
        """Whether it runs with its node, before its own call."""
        early = self._calls.program.early
        return self._own_tool().name in early and bool(driver.handle_of(task))

    def _own_tool(self) -> ToolSpec:
        assert self._tool is not None  # noqa: S101 - otherwise it is fused
        return self._tool

    def _fused_input(self, config: RunnableConfig) -> tuple[Any] | None:
        """The input of a router that runs within the call of its node; `None` for other routers."""
        report = config.get("configurable", {}).get(_REPORT)
        if self._fused is None or report is None or report.found is None:
            return None
        tool = self._calls.tool_of(self._branch.source)
        if self._fused not in tool.fused_in(report.call.arguments):
            return None
        managed, unsaved = self._calls.managed(self._fused, config), self._calls.unsaved(config)
        arguments = report.call.arguments
        tools = self._calls.tools
        given = tools.fused_input(
            tool, self._fused, arguments, report.found, managed=managed, unsaved=unsaved
        )
        return (given,)

    def _add_route(self, answer: Any, config: RunnableConfig) -> None:
        assert self._fused is not None  # noqa: S101 - its input was made
        report, tools = config["configurable"][_REPORT], self._calls.tools
        found = tools.with_route(report.found, tools.router_result(self._fused, answer))
        # "replace" of a node is about its own writes, not about the packets of its router.
        report.found = replace(found, combine="merge")

    def _given(
        self, tool: ToolSpec, call: ProgramCall, config: RunnableConfig
    ) -> tuple[Any, RunnableConfig]:
        managed = self._calls.managed(tool, config)
        unsaved = self._calls.unsaved(config)
        given = self._calls.tools.input_of(tool, call.arguments, managed, unsaved)
        return given, self._calls.callers_config(tool, call, config)

    def _finish(
        self,
        tool: ToolSpec,
        call: ProgramCall,
        answer: Any,
        gathered: GatheredLabels,
        config: RunnableConfig,
        *marks: str,
    ) -> None:
        driver, task = _driver_and_task(config)
        wire = self._calls.tools.router_result(tool, answer)
        entry = result_entry(call, wire, gathered.labels or Labels())
        entry = {**entry, "in": driver.session, **dict.fromkeys(marks, call.id), **_objects()}
        driver.record_router_result(task, tool, entry)
        _compat.write(config, [(JOURNAL, [entry])])


_REPORT = "__sequrity_report"
"""Key of `configurable` with the result writer of a node's task, for its fused routers."""


def approved(
    denials: Denials, offered: DeniedCall, driver: Driver, config: RunnableConfig, *, late: bool
) -> ProgramCall:
    """The denied call, after a human has approved it; an interrupt of its task asks.

    Raises:
        RunStopped: If it is rejected.
    """
    if not offered.is_approved and offered.objection is None:
        driver.record_decision(offered, denials.objection(offered, config, is_late=late))
    if offered.objection is not None:
        raise RunStopped(denials.rejected(offered, offered.objection))
    return offered.call


def _driver_and_task(config: RunnableConfig) -> tuple[Driver, str]:
    given = config["configurable"]
    return given[DRIVER], given[_compat.TASK_ID]


def _plain(config: RunnableConfig) -> RunnableConfig:
    given = config.get("configurable", {})
    return {**config, "configurable": {key: one for key, one in given.items() if not is_own(key)}}


def _objects() -> dict[str, Any]:
    """The part of an entry with the objects behind its handles."""
    here = current_objects()
    return {OBJECTS: here.fresh} if here is not None and here.fresh else {}


def _labels_of(found: NodeResult, gathered: GatheredLabels) -> tuple[Labels, Combine]:
    """The labels of a result, and how they combine with those of the arguments.

    A node's "replace" for its own result is final. Otherwise the result may contain anything that
    was labelled while the node ran.
    """
    labels = found.labels or Labels()
    if gathered.labels is None or found.combine == "replace":
        return labels, found.combine
    return labels.join(gathered.labels), found.combine


async def _run_streamed(
    sequence: Runnable[Any, Any], given: Any, config: RunnableConfig, *, streams: bool
) -> Any:
    if not streams:
        return await sequence.ainvoke(given, config)
    async for _ in sequence.astream(given, config):
        pass
    return None


def _run(work: Work, config: RunnableConfig) -> None:
    for runnable, given in work:
        runnable.invoke(given, config)


async def _arun(work: Work, config: RunnableConfig) -> None:
    for runnable, given in work:
        if _compat.is_writer(runnable):
            runnable.invoke(given, config)
        else:
            await runnable.ainvoke(given, config)
