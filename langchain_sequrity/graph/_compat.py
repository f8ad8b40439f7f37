"""Every use of a name that LangGraph does not promise to keep, in one function each.

Tests run the package on the newest LangGraph. If a name changes, only this module changes.
"""

import copy
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import CellType, SimpleNamespace
from typing import Any

from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnablePassthrough,
    RunnableSequence,
)
from langgraph._internal._config import ensure_config, recast_checkpoint_ns
from langgraph._internal._constants import (
    CONFIG_KEY_CHECKPOINT_ID,
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_CHECKPOINTER,
    CONFIG_KEY_READ,
    CONFIG_KEY_READ_STATE,
    CONFIG_KEY_SCRATCHPAD,
    CONFIG_KEY_SEND,
    CONFIG_KEY_TASK_ID,
    ERROR,
    ERROR_SOURCE_NODE,
    INTERRUPT,
    NULL_TASK_ID,
    PUSH,
    RESUME,
)
from langgraph._internal._constants import NO_WRITES as NO_WRITES  # noqa: PLC0414 - re-exported
from langgraph._internal._runnable import RunnableCallable, RunnableSeq, coerce_to_runnable
from langgraph._internal._typing import MISSING as MISSING  # noqa: PLC0414 - re-exported
from langgraph.channels import DeltaChannel, LastValueAfterFinish
from langgraph.channels.base import BaseChannel
from langgraph.channels.binop import _get_overwrite
from langgraph.channels.named_barrier_value import (
    NamedBarrierValue,
    NamedBarrierValueAfterFinish,
)
from langgraph.constants import TAG_HIDDEN as TAG_HIDDEN  # noqa: PLC0414 - re-exported
from langgraph.errors import ParentCommand
from langgraph.graph import StateGraph
from langgraph.graph._node import StateNodeSpec
from langgraph.graph.state import (
    _DEFAULT_ERROR_HANDLER_NODE,
    CompiledStateGraph,
    _NodeDefaults,
    _pick_mapper,
)
from langgraph.managed.is_last_step import IsLastStepManager, RemainingStepsManager
from langgraph.pregel._algo import local_read, sanitize_untracked_values_in_send
from langgraph.pregel._loop import PregelLoop as PregelLoop  # noqa: PLC0414 - re-exported
from langgraph.pregel._messages import _messages_delta_reducer, ensure_message_ids
from langgraph.pregel._utils import validate_timeout_supported
from langgraph.pregel._write import ChannelWrite
from langgraph.types import Command, Send, TracePolicy

Compiled = CompiledStateGraph[Any, Any, Any, Any]


def replace_node(graph: Compiled, name: str, runnable: Runnable[Any, Any]) -> None:
    """Replace the function and the writers of a node.

    Its policies, subgraphs and metadata stay.
    """
    graph.nodes[name].__dict__["node"] = runnable  # a `cached_property`, not computed yet


def writers_of(graph: Compiled, name: str) -> Sequence[Runnable[Any, Any]]:
    """The writers of a node's output; they are synchronous even in an event loop."""
    return graph.nodes[name].flat_writers


def sequence(
    first: Runnable[Any, Any], then: Runnable[Any, Any], trace_policy: TracePolicy | None
) -> Runnable[Any, Any]:
    """A node's function and the consumer of its output, in one traced run, as in LangGraph."""
    return RunnableSeq(first, then, trace_policy=trace_policy)


# Reading a builder.

STEP_COUNTERS = (RemainingStepsManager, IsLastStepManager)
"""The managed values that depend only on the number of the step."""


def node_defaults(builder: StateGraph[Any, Any, Any, Any]) -> _NodeDefaults:
    """The arguments of `StateGraph.set_node_defaults`, which have no public accessor."""
    return builder._node_defaults  # noqa: SLF001


def default_error_handler(handler: Any) -> Any:
    """The runnable for a default error handler, as `compile` makes it."""
    return coerce_to_runnable(handler, name=_DEFAULT_ERROR_HANDLER_NODE, trace=False)


def pick_mapper(fields: list[str], schema: type[Any]) -> Any:
    """The function from a dict to a schema's object, as `CompiledStateGraph.attach_node` has it."""
    return _pick_mapper(fields, schema)


# Channels and updates of nodes.


def read_overwrite(update: Any) -> tuple[bool, Any]:
    """Whether an update is an `Overwrite`, in any of its three forms, and its value."""
    return _get_overwrite(update)


def with_delta_ids(channel: DeltaChannel[Any], update: Any) -> Any:
    """Give ids to the messages in an update of a `DeltaChannel`, as LangGraph does for each write.

    It sets the ids on the message objects themselves. Copy those without an id first.
    """
    writes = [("", update)]
    ensure_message_ids({"": channel}, writes)
    return writes[0][1]


def gathers_messages(channel: DeltaChannel[Any]) -> bool:
    """Whether a `DeltaChannel` has the reducer that LangGraph made for messages."""
    return channel.reducer is _messages_delta_reducer


def command_writes(command: Command[Any]) -> Sequence[tuple[str, Any]]:
    """The update of a `Command` as writes; keys are not checked."""
    return command._update_as_tuples()  # noqa: SLF001


def output_reader(
    builder: StateGraph[Any, Any, Any, Any],
) -> Callable[[Any], Sequence[tuple[str, Any]] | None]:
    """The function with which a compiled graph reads the writes in a node's output.

    It is the same for all nodes. `None` means no writes.
    """
    graph: Any = SimpleNamespace(builder=builder, nodes={}, channels={}, schema_to_mapper={})
    node = StateNodeSpec(RunnablePassthrough(), None, builder.state_schema, None, None)
    CompiledStateGraph.attach_node(graph, "any", node)
    reads: Callable[[Any], Sequence[tuple[str, Any]] | None]
    reads = graph.nodes["any"].writers[0].writes[0].mapper
    return reads


def is_function_node(runnable: Any) -> bool:
    """Whether a runnable is LangGraph's wrapper of a function, or a subclass like `ToolNode`."""
    return isinstance(runnable, RunnableCallable)


def cell_value(cell: CellType) -> Any:
    """The value of a closure's variable; `MISSING` if it is not set yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


# Running and reading a graph.


def with_state(
    config: RunnableConfig,
    read_input: Callable[[], Any] | None,
    channels: Mapping[str, BaseChannel[Any, Any, Any]],
) -> RunnableConfig:
    """A node's config that reads these channels instead of the graph's own.

    Args:
        config: The config.
        read_input: Gives the state to a `ToolNode` that is called with tool calls; `None` for
            LangGraph's own reading of the channels.
        channels: The state.
    """
    given = config["configurable"]
    scratchpad, _, _, task = given[CONFIG_KEY_READ].args
    read = partial(local_read, scratchpad, channels, {}, task)
    changed = {**given, CONFIG_KEY_READ: read, CONFIG_KEY_READ_STATE: read_input}
    return {**config, "configurable": changed}


def reads_state(runnable: Any) -> bool:
    """Whether a node that a `Send` started reads the state through its config."""
    if isinstance(runnable, RunnableSequence | RunnableSeq):
        return any(map(reads_state, runnable.steps))
    return is_tool_node(type(runnable))


def is_tool_node(kind: type) -> bool:
    """Whether a class is `ToolNode` or a subclass."""
    # By name, because the import of all prebuilt nodes takes a tenth of a second.
    names = ((one.__module__, one.__qualname__) for one in kind.__mro__)
    return ("langgraph.prebuilt.tool_node", "ToolNode") in names


def command_to_own_graph(
    error: ParentCommand, config: RunnableConfig, node: str
) -> Command[Any] | None:
    """The command from a graph within a node to the node's own graph.

    `None` if it is for an outer graph.
    """
    command: Command[Any] = error.args[0]
    namespace = config["configurable"][CONFIG_KEY_CHECKPOINT_NS]
    ours = (namespace, recast_checkpoint_ns(namespace), node)  # as `run_with_retry`
    return command if command.graph in ours else None


def check_config(graph: Compiled, config: RunnableConfig | None) -> None:
    """Check the config of a run as LangGraph does, before keys are added to it.

    Raises:
        ValueError: As LangGraph, for a limit below 1, or for a checkpointer without a thread.
    """
    full = ensure_config(graph.config, config)
    pauses = {"interrupt_before": None, "interrupt_after": None}
    graph._defaults(full, stream_mode=(), print_mode=(), output_keys=None, **pauses)  # noqa: SLF001


def copy_builder(builder: StateGraph[Any, Any, Any, Any]) -> StateGraph[Any, Any, Any, Any]:
    """A copy of a builder that can be changed and compiled without an effect on the builder."""
    new = copy.copy(builder)
    for name, value in vars(builder).items():
        if isinstance(value, dict | set):
            setattr(new, name, value.copy())
    new.nodes = {name: copy.copy(node) for name, node in builder.nodes.items()}
    # `compile` adds the default handler, and must not find the one of an earlier `compile`.
    new.nodes.pop(_DEFAULT_ERROR_HANDLER_NODE, None)
    for node in new.nodes.values():
        if node.error_handler_node == _DEFAULT_ERROR_HANDLER_NODE:
            node.error_handler_node = None
    new.branches = defaultdict(dict)
    for source, branches in builder.branches.items():
        new.branches[source] = dict(branches)
    return new


# Tasks of a running graph.

CHECKPOINTER = CONFIG_KEY_CHECKPOINTER
"""Key of `configurable` with the checkpointer."""

TASK_ID = CONFIG_KEY_TASK_ID
"""Key of `configurable` with a task's id."""

NO_TASK = NULL_TASK_ID
"""The task id of writes of a `Command` from outside."""

ANSWER = RESUME
"""Channel of an answer to a task's interrupt."""


def was_interrupted_or_failed(channels: Sequence[str]) -> bool:
    """Whether a task with writes to these channels was interrupted, or failed without a handler."""
    return INTERRUPT in channels or (ERROR in channels and ERROR_SOURCE_NODE not in channels)


def is_packet(task: Any) -> bool:
    """Whether a `Send` started a task."""
    return bool(task.path and task.path[0] == PUSH)


def handled_task(task: Any, others: Iterable[Any]) -> str:
    """The id of the task whose error a task handles; else its own id."""
    *place, kind, _ = task.path  # as `prepare_node_error_handler_task` makes it
    handled = [one.id for one in others if one.path[:3] == tuple(place)]
    return str(handled[0] if kind == "node_error_handler" else task.id)


def waiting_nodes(channels: Mapping[str, Any], nodes: Mapping[str, Any]) -> list[str]:
    """The deferred nodes that wait until all other nodes are done."""
    found = []
    for name in nodes:
        channel = channels.get(f"branch:to:{name}")
        if isinstance(channel, LastValueAfterFinish) and channel.value is not MISSING:
            found.append(name)
    return found


def started_nodes(task: Any, tokens: Mapping[str, str]) -> list[str]:
    """The tokens of the nodes that a task has started so far."""
    named = [channel.removeprefix("branch:to:") for channel, _ in task.writes]
    return [tokens[one] for one in named if one in tokens]


def join_source_has_finished(
    channels: Mapping[str, Any], sources: Sequence[str], target: str, source: str
) -> bool:
    """Whether a source of a join has finished."""
    for name, channel in channels.items():
        is_join = isinstance(channel, NamedBarrierValue | NamedBarrierValueAfterFinish)
        if is_join and name.endswith(f":{target}") and channel.names == set(sources):
            return source in channel.seen
    return False


def write(config: RunnableConfig, writes: Sequence[tuple[str, Any]]) -> None:
    """Write to channels, as part of a task."""
    config["configurable"][CONFIG_KEY_SEND](list(writes))


def _writes_of(config: RunnableConfig) -> deque[tuple[str, Any]]:
    # The function under `CONFIG_KEY_SEND` may be one of several, for example in a timed attempt.
    writes: deque[tuple[str, Any]] = config["configurable"][CONFIG_KEY_READ].args[-1].writes
    return writes


def write_first(config: RunnableConfig, new: tuple[str, Any]) -> None:
    """Write to a channel before the other channels of a task.

    A checkpointer stores the writes of a task by their number, and keeps the older one of two. If a
    task runs again and writes more, its writes must keep their numbers.
    """
    config["configurable"][CONFIG_KEY_SEND]([new])
    writes = _writes_of(config)
    if writes and writes[-1] is new:  # an attempt that has timed out writes nothing
        writes.pop()
        writes.insert(sum(channel == new[0] for channel, _ in writes), new)


def task_writes(config: RunnableConfig) -> list[tuple[str, Any]]:
    """The writes of a task so far."""
    writes = _writes_of(config)
    return [one for one in writes if one[0] != RESUME]


def remove_writes(config: RunnableConfig) -> None:
    """Remove the writes of a task, except the answers to its interrupts.

    LangGraph removes those of a timed attempt itself, perhaps after the next one has begun.
    """
    writes = getattr(config["configurable"][CONFIG_KEY_SEND], "__self__", None)
    if writes is None:
        return
    answers = [one for one in writes if one[0] == RESUME]
    writes.clear()
    writes.extend(answers)


def is_writer(runnable: Any) -> bool:
    """Whether a runnable only writes to channels, without user code."""
    return isinstance(runnable, ChannelWrite)


def managed_values(
    config: RunnableConfig, names: Iterable[str], managed: Mapping[str, Any]
) -> dict[str, Any]:
    """The managed values of a task."""
    scratchpad = config["configurable"][CONFIG_KEY_SCRATCHPAD]
    return {name: managed[name].get(scratchpad) for name in names}


def storable(send: Send, channels: Mapping[str, BaseChannel[Any, Any, Any]]) -> Send:
    """A packet as LangGraph stores it, without the fields that are not stored."""
    return sanitize_untracked_values_in_send(send, channels)


def writes_any(write: tuple[str, Any], fields: Iterable[str]) -> bool:
    """Whether a write is to one of these fields, or a packet that names one."""
    channel, value = write
    named = {channel}
    if isinstance(value, Send) and isinstance(value.arg, dict):
        named.update(value.arg)
    return not named.isdisjoint(fields)


def values_of(config: RunnableConfig, names: Iterable[str]) -> dict[str, Any]:
    """The values of fields for a task, with its own writes; `MISSING` for a field without one."""
    channels = config["configurable"][CONFIG_KEY_READ].args[1]
    own = dict(task_writes(config))
    return {
        name: own[name]
        if name in own
        else channels[name].get()
        if channels[name].is_available()
        else MISSING
        for name in names
    }


def keep_writes(loop: PregelLoop, task_id: str, writes: Sequence[tuple[str, Any]]) -> Any:
    """Store writes of an unfinished task with the checkpoint before the step.

    Returns:
        A future that is done when they are stored; `None` if there is no need to wait.
    """
    loop.checkpoint_pending_writes.extend((task_id, channel, one) for channel, one in writes)
    loop._written_task_ids.add(task_id)  # noqa: SLF001
    if loop.durability == "exit" or loop.checkpointer_put_writes is None:
        return None
    given = {
        CONFIG_KEY_CHECKPOINT_NS: loop.config["configurable"].get(CONFIG_KEY_CHECKPOINT_NS, ""),
        CONFIG_KEY_CHECKPOINT_ID: loop.checkpoint["id"],
    }
    before = loop.checkpoint_config
    config = {**before, "configurable": {**before["configurable"], **given}}
    stored = loop.submit(loop.checkpointer_put_writes, config, writes, task_id)
    return stored if loop.durability == "sync" else None


def emit(loop: PregelLoop, mode: Any, events: Callable[[], Any]) -> None:
    """Put events into the stream of a run."""
    loop._emit(mode, events)  # noqa: SLF001


def add_channel(graph: Compiled, name: str, channel: BaseChannel[Any, Any, Any]) -> None:
    """Add a channel to a compiled graph that inputs, nodes and callers do not see."""
    channel.key = name
    graph.channels = {**graph.channels, name: channel}


def check_timeout(runnable: Any, name: str) -> None:
    """Refuse a timeout of a node that cannot be cancelled, as `Pregel.validate` does.

    Raises:
        ValueError: As LangGraph.
    """
    validate_timeout_supported(runnable, name=name)


# The journal.

DELTAS = "counters_since_delta_snapshot"
"""Key of a checkpoint's metadata: the updates since each `DeltaChannel` was stored whole."""


# Prebuilt nodes.

InjectedTool = tuple[Any, Mapping[str, str | None], str | None]
"""A tool; its parameters → state field (`None`: the state); its parameter for the runtime."""


def parts_of_tool_node(node: Any) -> tuple[str, list[InjectedTool], list[Any]]:
    """A `ToolNode`'s key of the messages, its tools, and the wrappers of their calls."""
    tools: list[InjectedTool] = []
    for name, tool in node.tools_by_name.items():
        injected = node._injected_args[name]  # noqa: SLF001
        tools.append((tool, injected.state, injected.runtime))
    wrappers = [node._wrap_tool_call, node._awrap_tool_call]  # noqa: SLF001
    return node._messages_key, tools, [one for one in wrappers if one is not None]  # noqa: SLF001
