"""Calls of the program, run here: a node of the user's, its error handler, a router.

A call of a node runs as LangGraph runs a node: what the policies, traces and streams of LangGraph
see is the node's own input and output, not the call.
"""

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.errors import NodeError, ParentCommand
from langgraph.types import CachePolicy, Command
from typing_extensions import TypeIs, override

from langchain_sequrity.errors import UsageError
from langchain_sequrity.graph import _langgraph
from langchain_sequrity.graph.calling.tools import ClientTools, NodeResult
from langchain_sequrity.graph.denying.approval import USED
from langchain_sequrity.graph.keeping.entries import Asked, digest_of, result_entry
from langchain_sequrity.graph.own import DRIVE, JOURNAL, ROUTE, RUN
from langchain_sequrity.graph.program import Program, ToolSpec
from langchain_sequrity.graph.reading.spec import GraphSpec, NodeSpec
from langchain_sequrity.graph.running.views import callers_config
from langchain_sequrity.graph.running.watching import CallWatch, call_facts, note
from langchain_sequrity.interrupts import ahas_gone_on, has_gone_on
from langchain_sequrity.labels import (
    Combine,
    GatheredLabels,
    Labels,
    labels_given,
    labels_of_error,
)

Given = Mapping[str, Any]
"""What the shell sends to a node: `{id, tool, arguments}` of the call."""

_STALE = (
    "It was allowed under another policy than this executor has. Resume the run with an executor "
    "of the same policy, or drop it with `update_state(config, None, as_node=END)` and give its "
    "input again."
)
_GIVEN = {"id", "tool", "arguments"}

Work = Generator[tuple[Runnable[Any, Any], Any], Any, Any]
"""Yields a router to run and its input, takes its answer, returns what the shell is told."""

Answer = Callable[[Given, Any, GatheredLabels], Work]
"""What an output of a node comes to, with the labels that were given on the way to it."""

Writers = Sequence[Runnable[Any, Any]]


class Calls:
    """Answers calls.

    Args:
        spec: The user's graph.
        program: The graph as a program.
        tools: The client side of its tools.
        under: Stands for the policy that allows the calls.
    """

    def __init__(self, spec: GraphSpec, program: Program, tools: ClientTools, under: str) -> None:
        self._spec = spec
        self._under = under
        self._program = program
        self._tools = tools
        self._attached: dict[str, str] = {}
        self._routers = {(branch.source, branch.name): branch.path for branch in spec.branches}

    def attach(self, shell: _langgraph.Compiled) -> None:
        """Let the nodes of a compiled shell answer calls."""
        for node in self._spec.nodes.values():
            self._attach(shell, node.name, node, node.runnable, self._node)
            if node.error_handler is not None:
                handler = shell.node_error_handler_map[node.name]
                self._attach(shell, handler, node, node.error_handler, self._handled)

    def _attach(
        self,
        shell: _langgraph.Compiled,
        name: str,
        node: NodeSpec,
        runnable: Runnable[Any, Any],
        work: Answer,
    ) -> None:
        writers = _langgraph.writers_of(shell, name)
        policy = node.trace_policy if runnable is node.runnable else None

        def report(call: Given, gathered: GatheredLabels) -> Runnable[Any, Any]:
            return _Report(name, call, gathered, work, writers)

        def sequence(then: Runnable[Any, Any]) -> Runnable[Any, Any]:
            return _langgraph.sequence(runnable, then, policy)

        def skip(problem: str | None, config: RunnableConfig) -> bool:
            # A node that has failed has run: its handler belongs to the same call.
            if work != self._node or problem is None:
                return False
            if node.cache_policy is not None:  # a cache would keep that nothing was returned
                msg = f"The call of node `{name}` was not made. {problem}"
                raise UsageError(msg)
            for writer in writers:
                writer.invoke({}, config)
            return True

        settings = self._callers_config if work == self._node else self._handlers_config
        called = _Called(
            name,
            self.input_of,
            settings,
            sequence,
            report,
            problem=self._problem,
            aproblem=self._aproblem,
            skip=skip,
            explain=self._explain,
        )
        _langgraph.run_as(shell, name, called)
        self._attached[name] = node.name

    def router(self) -> Runnable[Any, Any]:
        """What runs any router."""

        def run(call: Given, config: RunnableConfig) -> Any:
            if self._problem(config) is not None:
                return {}
            with CallWatch(call, config), GatheredLabels() as gathered:
                return _run(self._route(call, gathered), self._routers_config(call, config))

        async def arun(call: Given, config: RunnableConfig) -> Any:
            if await self._aproblem(config) is not None:
                return {}
            async with CallWatch(call, config):
                with GatheredLabels() as gathered:
                    work = self._route(call, gathered)
                    return await _arun(work, self._routers_config(call, config))

        return _langgraph.step(ROUTE, run, arun)

    def _problem(self, config: RunnableConfig) -> str | None:
        """Why a call is not made, if it must not be. `drive` follows.

        One that another policy than this executor's has allowed is asked for again in a new
        session. One that a human has approved is made once in a thread.
        """
        run = _langgraph.read_state(config, [RUN])[RUN]
        if run["under"] != self._under:
            return _STALE
        since = run["approving"]
        is_used = since is not None and has_gone_on(config, since, partial(_still_waits, run))
        return USED if is_used else None

    async def _aproblem(self, config: RunnableConfig) -> str | None:
        """Why a call is not made, if it must not be; see `_problem`."""
        run = _langgraph.read_state(config, [RUN])[RUN]
        if run["under"] != self._under:
            return _STALE
        since, waits = run["approving"], partial(_still_waits, run)
        is_used = since is not None and await ahas_gone_on(config, since, waits)
        return USED if is_used else None

    def cache_policy(self, spec: NodeSpec) -> CachePolicy[Any] | None:
        """A node's cache policy, whose key is made of the node's input and not of the call.

        It holds the program too: what LangGraph itself or an executor of another graph has cached
        for the same function answers no call of this one.
        """
        policy = spec.cache_policy
        if policy is None:
            return None
        of_program = digest_of(self._program.text)
        return CachePolicy(
            key_func=lambda call: f"{of_program}:{policy.key_func(self.input_of(call))!r}",
            ttl=policy.ttl,
        )

    def _tool(self, call: Given) -> ToolSpec:
        return self._program.tools[call["tool"]]

    def is_call(self, value: Any, name: str) -> TypeIs[dict[str, Any]]:
        """Whether the input of a task is a call: graphs within nodes may have states like one."""
        if name not in self._attached or not isinstance(value, dict) or value.keys() != _GIVEN:
            return False
        tool = value["tool"]
        known = self._program.tools.get(tool) if isinstance(tool, str) else None
        return known is not None and known.node == self._attached[name]

    def input_of(self, call: Given) -> Any:
        """The node's input that a call stands for."""
        return self._tools.node_input(self._tool(call), call["arguments"])

    def _routers_config(self, call: Given, config: RunnableConfig) -> RunnableConfig:
        return self._callers_config(call, _langgraph.unhidden(config, self._tool(call).node))

    def _callers_config(self, call: Given, config: RunnableConfig | None) -> RunnableConfig:
        state = self._tools.state_of(self._tool(call), call["arguments"])
        read_input = state.as_input if state.is_sent else None
        return _langgraph.with_state(callers_config(config), read_input, state)

    def _handlers_config(self, call: Given, config: RunnableConfig | None) -> RunnableConfig:
        """As a node's. What its node had labelled when it failed may be quoted by the error."""
        for one in (config or {}).get("configurable", {}).values():
            if isinstance(one, NodeError) and (labels := labels_of_error(one.error)) is not None:
                labels_given(labels)
        return self._callers_config(call, config)

    def _explain(self, call: Given, error: KeyError) -> None:
        """Say of a field that a node did not find that it was not found to read it."""
        tool, field = self._tool(call), error.args[0] if error.args else None
        reads = [one.field for one in tool.parameters if one.field is not None]
        schema = self._spec.nodes[tool.node].input_fields
        if not isinstance(field, str) or field in reads or field not in schema:
            return
        error.add_note(
            f"Node `{tool.node}` gets the fields that it reads, and `{field}` is not among them "
            f"(known from: {tool.reads_from}). Say what it reads: "
            f"`nodes={{{tool.node!r}: NodeOptions(reads={[*reads, field]!r})}}`."
        )

    # What an output comes to

    def _node(self, call: Given, output: Any, gathered: GatheredLabels) -> Work:
        tool, tools = self._tool(call), self._tools
        found = tools.node_result(tool, output)
        for router in tool.fused_in(call["arguments"]):
            path = self._routers[router.node, str(router.branch)]
            answer = yield path, tools.fused_input(tool, router, call["arguments"], found)
            found = tools.with_route(found, tools.router_result(router, answer))
            # A node speaks for what it wrote, and not for what its router sends.
            found = replace(found, combine="merge")
        return self._update(call, found, gathered)

    def _handled(self, call: Given, output: Any, gathered: GatheredLabels) -> Work:
        found = self._tools.node_result(self._tool(call), output, handled=True)
        update = self._update(call, found, gathered)
        updates = update if isinstance(update, list) else [Command(update=update)]
        # A handler has no edges, in LangGraph either; it says where to go.
        return [*updates, Command(goto=DRIVE)]
        yield

    def _route(self, call: Given, gathered: GatheredLabels) -> Work:
        tool = self._tool(call)
        path = self._routers[tool.node, str(tool.branch)]
        answer = yield path, self._tools.router_input(tool, call["arguments"])
        wire = self._tools.router_result(tool, answer)
        return {JOURNAL: [result_entry(Asked(**call), wire, gathered.labels or Labels())]}

    def _update(self, call: Given, found: NodeResult, gathered: GatheredLabels) -> Any:
        node = self._tool(call).node
        labels, combine = _labels_of(found, gathered)
        labels = Labels(producers=frozenset({node})).join(labels)
        gathered.tell(labels)  # the run may not come to an end that tells
        entry = result_entry(Asked(**call), found.wire, labels, combine)
        update = dict(found.writes)
        if len(update) == len(found.writes):
            return {**update, JOURNAL: [entry]}
        written: list[Command[Any]] = [
            Command(update={field: value}) for field, value in found.writes
        ]
        return [*written, Command(update={JOURNAL: [entry]})]


class _Called(Runnable[Any, Any]):
    """Runs a node of the user's for a call."""

    def __init__(
        self,
        name: str,
        read: Callable[[Given], Any],
        settings: Callable[[Given, RunnableConfig | None], RunnableConfig],
        sequence: Callable[[Runnable[Any, Any]], Runnable[Any, Any]],
        report: Callable[[Given, GatheredLabels], Runnable[Any, Any]],
        *,
        problem: Callable[[RunnableConfig], str | None],
        aproblem: Callable[[RunnableConfig], Awaitable[str | None]],
        skip: Callable[[str | None, RunnableConfig], bool],
        explain: Callable[[Given, KeyError], None],
    ) -> None:
        self.name: str = name
        self._problem = problem
        self._aproblem = aproblem
        self._skip = skip
        self._explain = explain
        self._read = read
        self._settings = settings
        self._sequence = sequence
        self._report = report

    @override
    def invoke(self, input: Given, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        config = config or {}
        if self._skip(self._problem(config), config):
            return None
        with CallWatch(input, config), GatheredLabels() as gathered:
            given, settings = self._read(input), self._settings(input, config)
            report = self._report(input, gathered)
            try:
                return self._sequence(report).invoke(given, settings)
            except ParentCommand as error:
                command = self._own(error, settings)
            except KeyError as error:
                self._explain(input, error)
                raise
            return report.invoke(command, settings)

    @override
    async def ainvoke(
        self, input: Given, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        config = config or {}
        if self._skip(await self._aproblem(config), config):
            return None
        async with CallWatch(input, config):
            with GatheredLabels() as gathered:
                given, settings = self._read(input), self._settings(input, config)
                report = self._report(input, gathered)
                try:
                    return await self._sequence(report).ainvoke(given, settings)
                except ParentCommand as error:
                    command = self._own(error, settings)
                except KeyError as error:
                    self._explain(input, error)
                    raise
                return await report.ainvoke(command, settings)

    def _own(self, error: ParentCommand, config: RunnableConfig) -> Command[Any]:
        """What a graph within the node says instead of an output; all else goes on outwards."""
        command = _langgraph.own_command(error, config, self.name)
        if command is None:
            raise error
        return command


class _Report(Runnable[Any, Any]):
    """Takes a node's output, writes what it comes to, and passes the output on."""

    # One is made for each call, so it is not a `RunnableCallable`, which looks at signatures.
    def __init__(
        self, name: str, call: Given, gathered: GatheredLabels, work: Answer, writers: Writers
    ) -> None:
        self.name: str = name
        self._call = call
        self._gathered = gathered
        self._work = work
        self._writers = writers

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        config = config or {}
        note(call_facts(self._call), config)
        self._write(_run(self._work(self._call, input, self._gathered), config), config)
        return input

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        config = config or {}
        note(call_facts(self._call), config)
        self._write(await _arun(self._work(self._call, input, self._gathered), config), config)
        return input

    def _write(self, update: Any, config: RunnableConfig) -> None:
        for writer in self._writers:
            writer.invoke(update, config)


def _labels_of(found: NodeResult, gathered: GatheredLabels) -> tuple[Labels, Combine]:
    """The labels of a result, and how they combine with those of the arguments.

    What a node says of its own result with "replace" is its last word. All else that was labelled
    while it ran may be in the result, whatever it was that reached it.
    """
    labels = found.labels or Labels()
    if gathered.labels is None or found.combine == "replace":
        return labels, found.combine
    return labels.join(gathered.labels), found.combine


def _still_waits(run: Mapping[str, Any], found: CheckpointTuple) -> bool:
    """Whether at a checkpoint the call that was approved is still to be made.

    It is approved there in the same way, also if it is a copy, and nothing has answered it yet.
    """
    is_answered = any(channel == JOURNAL for _, channel, _ in found.pending_writes or ())
    return found.checkpoint["channel_values"].get(RUN) == run and not is_answered


def _run(work: Work, config: RunnableConfig) -> Any:
    try:
        runnable, given = next(work)
        while True:
            runnable, given = work.send(runnable.invoke(given, config))
    except StopIteration as stop:
        return stop.value


async def _arun(work: Work, config: RunnableConfig) -> Any:
    try:
        runnable, given = next(work)
        while True:
            runnable, given = work.send(await runnable.ainvoke(given, config))
    except StopIteration as stop:
        return stop.value
