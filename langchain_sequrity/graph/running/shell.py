"""The shell: a StateGraph that runs a program's calls as nodes.

```
START → begin → [Send: user's nodes, routers] → drive → [Send …] → drive → … → END
                              drive → pause → [Send …], after a node where the run is to pause
                              drive → clear → END, where the last steps only cleared fields
                              drive → approve → [Send …], after a denial that a human may approve
                              drive → deny → END, where a denial ends the run with a state
```

`begin` and `drive` make one request each and send the calls of its reply to the user's nodes, which
are nodes here too, under their own names and with their own policies. So LangGraph retries, caches,
times, interrupts, streams and traces them, and what a node returned is in a checkpoint before the
next request is made.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.channels.ephemeral_value import EphemeralValue
from langgraph.channels.last_value import LastValue
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, StreamWriter

from langchain_sequrity.graph import _langgraph
from langchain_sequrity.graph.calling.updates import ROOT, OutputReader
from langchain_sequrity.graph.keeping.mirror import Mirror
from langchain_sequrity.graph.keeping.threads import Ending, Threads
from langchain_sequrity.graph.own import (
    APPROVE,
    BEGIN,
    CLEAR,
    DENY,
    DRIVE,
    GIVEN,
    JOURNAL,
    OWN_CHANNELS,
    OWN_NODES,
    PAUSE,
    PAUSE_KEY,
    ROUTE,
    RUN,
)
from langchain_sequrity.graph.program import Program
from langchain_sequrity.graph.reading.spec import GraphSpec
from langchain_sequrity.graph.running.calls import Calls
from langchain_sequrity.graph.running.requests import Requests

_WHOLE_JOURNAL = 500
"""After how many updates a checkpoint holds the whole journal.

The others hold only what is new, so that what a run stores is linear in its steps; whoever reads
the journal walks back to a whole one. SQLite before 3.32 walks at most 999 steps.
"""


class Whole:
    """Stands for the schema of `begin`, which reads the whole state."""


class Own:
    """Stands for the schema of `drive`, which reads the journal."""


def build_shell(
    spec: GraphSpec, program: Program, threads: Threads, requests: Requests, calls: Calls
) -> "StateGraph[Any, Any, Any, Any]":
    """Build the shell of a graph.

    Args:
        spec: The user's graph.
        program: The graph as a program.
        threads: What threads keep.
        requests: What `begin` and `drive` do.
        calls: What answers calls.
    """
    shell: StateGraph[Any, Any, Any, Any] = StateGraph(
        spec.state_schema,
        spec.context_schema,
        input_schema=spec.input_schema,
        output_schema=spec.output_schema,
    )
    shell.schemas = dict(spec.builder.schemas)
    shell.managed = dict(spec.managed)
    shell.channels = {key: Mirror(channel.copy()) for key, channel in spec.channels.items()}
    shell.channels[RUN] = LastValue(dict[str, Any])
    shell.channels[JOURNAL] = DeltaChannel(_append, list, snapshot_frequency=_WHOLE_JOURNAL)
    shell.channels[GIVEN] = EphemeralValue(list)
    for key in OWN_CHANNELS:
        shell.channels[key].key = key
    shell.schemas[Whole] = dict(shell.channels)
    shell.schemas[Own] = {key: shell.channels[key] for key in (RUN, JOURNAL)}

    following = _Following(spec, program, threads)
    for name, runnable, schema in (
        (BEGIN, following.after(BEGIN, requests.begin, requests.abegin), Whole),
        (DRIVE, following.after(DRIVE, requests.drive, requests.adrive), Own),
        (ROUTE, calls.router(), Own),
        (PAUSE, following.node(), Own),
        (CLEAR, following.clearing(), Own),
        (APPROVE, _langgraph.step(APPROVE, requests.approve, requests.aapprove), Own),
        (DENY, _langgraph.step(DENY, requests.deny, requests.adeny), Whole),
    ):
        shell.add_node(name, runnable, input_schema=schema)
    shell.add_edge(START, BEGIN)
    shell.add_edge(ROUTE, DRIVE)
    for node in spec.nodes.values():
        shell.add_node(
            node.name,
            node.runnable,
            metadata=node.metadata,
            input_schema=Own,
            retry_policy=node.retry_policy,
            cache_policy=calls.cache_policy(node),
            timeout=node.timeout,
            trace_policy=node.trace_policy,
        )
        if node.error_handler is not None:
            _langgraph.add_error_handler(shell, node.name, node.error_handler, Own, spec.builder)
        shell.add_edge(node.name, DRIVE)
    return shell


def finish_shell(compiled: _langgraph.Compiled, spec: GraphSpec, calls: Calls) -> None:
    """Do to a compiled shell what a builder has no words for.

    Args:
        compiled: What `compile` made of the shell.
        spec: The user's graph.
        calls: What answers calls.
    """
    seen = [key for key in compiled.stream_channels_list if key not in OWN_CHANNELS]
    compiled.stream_channels = ROOT if seen == [ROOT] else seen
    given = OutputReader(list(spec.schemas[spec.input_schema]))
    _langgraph.also_write(compiled, GIVEN, lambda value: given.read(value).writes)
    users = [name for name in compiled.nodes if name not in (START, *OWN_NODES)]
    _langgraph.only_send(compiled, users)
    calls.attach(compiled)
    _langgraph.untrace(compiled, OWN_NODES)
    # LangGraph shows no interrupt of a hidden node, and that of `approve` is meant to be seen.
    _langgraph.hide(compiled, (one for one in OWN_NODES if one != APPROVE))


class _Following:
    """What follows a reply: calls, a pause before them, or the end.

    LangGraph pauses after a task. Here that would be before the request which says what comes
    next. So `drive` hands the next calls to `pause`, and LangGraph pauses after that.
    """

    def __init__(self, spec: GraphSpec, program: Program, threads: Threads) -> None:
        self._spec = spec
        self._program = program
        self._threads = threads

    def after(self, name: str, func: Any, afunc: Any) -> Runnable[Any, Any]:
        """A node that makes a request, with what follows."""

        def run(state: Mapping[str, Any], config: RunnableConfig, writer: StreamWriter) -> Any:
            return self._followed(name, state, config, func(state, config, writer))

        async def arun(
            state: Mapping[str, Any], config: RunnableConfig, writer: StreamWriter
        ) -> Any:
            return self._followed(name, state, config, await afunc(state, config, writer))

        return _langgraph.step(name, run, arun)

    def node(self) -> Runnable[Any, Any]:
        """The node `pause`: it sends what `drive` would have sent."""

        def run(sends: Sequence[Mapping[str, Any]]) -> Any:
            return Command(goto=[Send(one["node"], one["arg"]) for one in sends])

        async def arun(sends: Sequence[Mapping[str, Any]]) -> Any:
            return run(sends)

        return _langgraph.step(PAUSE, run, arun)

    def clearing(self) -> Runnable[Any, Any]:
        """The node `clear`: LangGraph clears fields after steps of which it does not tell."""

        def run(cleared: Mapping[str, Any]) -> Mapping[str, Any]:
            return cleared

        async def arun(cleared: Mapping[str, Any]) -> Mapping[str, Any]:
            return cleared

        return _langgraph.step(CLEAR, run, arun)

    def _followed(
        self, name: str, state: Mapping[str, Any], config: RunnableConfig, update: Any
    ) -> Any:
        chosen: Sequence[str] = config["configurable"].get(PAUSE_KEY) or ()
        ran = self._last_node(state[JOURNAL]) if chosen and name == DRIVE else None
        pauses = ran is not None and (chosen == "*" or ran in chosen)
        if isinstance(update, Ending):
            shown = _langgraph.read_state(config, self._spec.channels)
            told, cleared = self._threads.updates_at(update, shown)
            goto = [Send(PAUSE, [])] if pauses else []
            goto += [Send(CLEAR, cleared)] if cleared else []
            return Command(update={RUN: update.kept, **told}, goto=goto)
        if not pauses or not isinstance(update, Command) or not isinstance(update.goto, list):
            return update
        if not any(one.node in self._spec.nodes for one in update.goto):
            return update  # routers still belong to the step of the node
        sends = [{"node": one.node, "arg": one.arg} for one in update.goto]
        return Command(update=update.update, goto=[Send(PAUSE, sends)])

    def _last_node(self, journal: Sequence[Mapping[str, Any]]) -> str | None:
        for entry in reversed(journal):
            tool = self._program.tools.get(entry.get("tool", ""))
            if tool is not None and tool.role == "node":
                return tool.node
        return None


def _append(entries: list[Any], batch: Sequence[list[Any]]) -> list[Any]:
    return [*entries, *(entry for new in batch for entry in new)]
