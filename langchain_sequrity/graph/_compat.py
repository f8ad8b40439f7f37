"""Every use of a name that LangGraph does not promise to keep, one function each.

A test runs the package on the newest LangGraph; what breaks, breaks here.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import CellType
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence
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
from langgraph._internal._fields import get_cached_annotated_keys, get_update_as_tuples
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


def run_as(graph: Compiled, name: str, runnable: Runnable[Any, Any]) -> None:
    """Let a task of a node run something else than the node's function and its writers.

    All else stays the node's: policies, subgraphs, metadata.
    """
    graph.nodes[name].__dict__["node"] = runnable  # a `cached_property` that is not computed yet


def writers_of(graph: Compiled, name: str) -> Sequence[Runnable[Any, Any]]:
    """What writes a node's output to channels; synchronous even in an event loop."""
    return graph.nodes[name].flat_writers


def sequence(
    first: Runnable[Any, Any], then: Runnable[Any, Any], trace_policy: TracePolicy | None
) -> Runnable[Any, Any]:
    """A node's function and what takes its output, in one traced run, as LangGraph runs a node."""
    return RunnableSeq(first, then, trace_policy=trace_policy)


# What reading a builder takes.

STEP_COUNTERS = (RemainingStepsManager, IsLastStepManager)
"""The managed values that follow from the number of the step."""


def node_defaults(builder: StateGraph[Any, Any, Any, Any]) -> _NodeDefaults:
    """What `StateGraph.set_node_defaults` was given; there is no public way to read it."""
    return builder._node_defaults  # noqa: SLF001


def default_error_handler(handler: Any) -> Any:
    """The runnable that `compile` makes of a default error handler."""
    return coerce_to_runnable(handler, name=_DEFAULT_ERROR_HANDLER_NODE, trace=False)


def pick_mapper(fields: list[str], schema: type[Any]) -> Any:
    """What makes a schema's object from a dict, as `CompiledStateGraph.attach_node` picks it."""
    return _pick_mapper(fields, schema)


# What channels and the updates of nodes take.


def read_overwrite(update: Any) -> tuple[bool, Any]:
    """Whether an update is an `Overwrite`, in any of its three forms, and of what."""
    return _get_overwrite(update)


def with_delta_ids(channel: DeltaChannel[Any], update: Any) -> Any:
    """Give ids to what becomes a message in a `DeltaChannel`, as LangGraph does for each write.

    It sets the ids on the message objects themselves: copy those without one before.
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


def object_writes(update: Any, fields: Sequence[str]) -> Sequence[tuple[str, Any]] | None:
    """The writes of a pydantic model or another object with annotations; `None` for all else."""
    return get_update_as_tuples(update, fields) if get_cached_annotated_keys(type(update)) else None


def is_function_node(runnable: Any) -> bool:
    """Whether a runnable is what LangGraph makes of a function, or a subclass like `ToolNode`."""
    return isinstance(runnable, RunnableCallable)


def held_in(cell: CellType) -> Any:
    """What a variable of a closure holds; `MISSING` where it is set later."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


# What running and looking at a graph takes.


def with_state(
    config: RunnableConfig,
    read_input: Callable[[], Any] | None,
    channels: Mapping[str, BaseChannel[Any, Any, Any]],
) -> RunnableConfig:
    """A node's config through which these channels are read instead of the graph's own.

    Args:
        config: The config.
        read_input: Gives the state to a `ToolNode` that is called with tool calls. `None` for
            what LangGraph makes of the channels.
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
    """Whether a class is `ToolNode`, or made from it."""
    # Known by name: the import of all prebuilt nodes takes a tenth of a second.
    names = ((one.__module__, one.__qualname__) for one in kind.__mro__)
    return ("langgraph.prebuilt.tool_node", "ToolNode") in names


def own_command(error: ParentCommand, config: RunnableConfig, node: str) -> Command[Any] | None:
    """The command that a graph within a node gives to the node's own graph.

    `None` if it is for a graph further out.
    """
    command: Command[Any] = error.args[0]
    namespace = config["configurable"][CONFIG_KEY_CHECKPOINT_NS]
    ours = (namespace, recast_checkpoint_ns(namespace), node)  # as `run_with_retry`
    return command if command.graph in ours else None


def check_config(graph: Compiled, config: RunnableConfig | None) -> None:
    """Check the config of a run as LangGraph does, before anything is added to it.

    Raises:
        ValueError: LangGraph's own, for a limit below 1, or where a checkpointer has no thread.
    """
    full = ensure_config(graph.config, config)
    pauses = {"interrupt_before": None, "interrupt_after": None}
    graph._defaults(full, stream_mode=(), print_mode=(), output_keys=None, **pauses)  # noqa: SLF001


def separate(builder: StateGraph[Any, Any, Any, Any]) -> StateGraph[Any, Any, Any, Any]:
    """A copy of a builder that can be changed and compiled without leaving marks on it."""
    new = copy.copy(builder)
    for name, value in vars(builder).items():
        if isinstance(value, dict | set):
            setattr(new, name, value.copy())
    new.nodes = {name: copy.copy(node) for name, node in builder.nodes.items()}
    # `compile` adds the handler by default, and would find the one that it has added before.
    new.nodes.pop(_DEFAULT_ERROR_HANDLER_NODE, None)
    for node in new.nodes.values():
        if node.error_handler_node == _DEFAULT_ERROR_HANDLER_NODE:
            node.error_handler_node = None
    new.branches = defaultdict(dict)
    for source, branches in builder.branches.items():
        new.branches[source] = dict(branches)
    return new


# What a running graph's tasks take.

CHECKPOINTER = CONFIG_KEY_CHECKPOINTER
"""Key of `configurable` with the checkpointer."""

TASK_ID = CONFIG_KEY_TASK_ID
"""Key of `configurable` with a task's id."""

FAILED = ERROR
"""Channel of a task's error."""

NO_TASK = NULL_TASK_ID
"""Stands for a task's id where a `Command` from outside wrote."""

ANSWER = RESUME
"""Channel of an answer to what a task asked."""


def is_left(channels: Sequence[str]) -> bool:
    """Whether a task with writes to these channels failed or asks, and nothing handles that."""
    return INTERRUPT in channels or (ERROR in channels and ERROR_SOURCE_NODE not in channels)


def is_packet(task: Any) -> bool:
    """Whether a `Send` started a task."""
    return bool(task.path and task.path[0] == PUSH)


def input_of(task: Any) -> Any:
    """What a `Send` gave to a task."""
    return task.input


def waiting_nodes(channels: Mapping[str, Any], nodes: Mapping[str, Any]) -> list[str]:
    """The deferred nodes that wait until nothing else is left to do."""
    found = []
    for name in nodes:
        channel = channels.get(f"branch:to:{name}")
        if isinstance(channel, LastValueAfterFinish) and channel.value is not MISSING:
            found.append(name)
    return found


def nodes_named(task: Any, tokens: Mapping[str, str]) -> list[str]:
    """The tokens of the nodes to which a task has written so far that they are due."""
    named = [channel.removeprefix("branch:to:") for channel, _ in task.writes]
    return [tokens[one] for one in named if one in tokens]


def has_come(channels: Mapping[str, Any], sources: Sequence[str], target: str, source: str) -> bool:
    """Whether a source of a join has come to it."""
    for name, channel in channels.items():
        is_join = isinstance(channel, NamedBarrierValue | NamedBarrierValueAfterFinish)
        if is_join and name.endswith(f":{target}") and channel.names == set(sources):
            return source in channel.seen
    return False


def write(config: RunnableConfig, writes: Sequence[tuple[str, Any]]) -> None:
    """Write to channels, in the place of a task."""
    config["configurable"][CONFIG_KEY_SEND](list(writes))


def written(config: RunnableConfig) -> list[tuple[str, Any]]:
    """What a task has written so far."""
    writes = config["configurable"][CONFIG_KEY_SEND].__self__
    return [one for one in writes if one[0] != RESUME]


def take_back(config: RunnableConfig) -> None:
    """Take back what a task has written, but for the answers that it got."""
    writes = config["configurable"][CONFIG_KEY_SEND].__self__
    answers = [one for one in writes if one[0] == RESUME]
    writes.clear()
    writes.extend(answers)


def is_writer(runnable: Any) -> bool:
    """Whether something writes to channels, and runs no code of the user's."""
    return isinstance(runnable, ChannelWrite)


def managed_values(
    config: RunnableConfig, names: Iterable[str], managed: Mapping[str, Any]
) -> dict[str, Any]:
    """The managed values of a task."""
    scratchpad = config["configurable"][CONFIG_KEY_SCRATCHPAD]
    return {name: managed[name].get(scratchpad) for name in names}


def storable(send: Send, channels: Mapping[str, BaseChannel[Any, Any, Any]]) -> Send:
    """A packet as LangGraph stores it: without what belongs to fields that are not stored."""
    return sanitize_untracked_values_in_send(send, channels)


def names_any(write: tuple[str, Any], fields: Iterable[str]) -> bool:
    """Whether a write is to one of these fields, or a packet that names one."""
    channel, value = write
    named = {channel}
    if isinstance(value, Send) and isinstance(value.arg, dict):
        named.update(value.arg)
    return not named.isdisjoint(fields)


def values_of(config: RunnableConfig, names: Iterable[str]) -> dict[str, Any]:
    """The values that fields have for a task, what it wrote itself among them; or `MISSING`."""
    channels = config["configurable"][CONFIG_KEY_READ].args[1]
    own = dict(written(config))
    return {
        name: own[name]
        if name in own
        else channels[name].get()
        if channels[name].is_available()
        else MISSING
        for name in names
    }


def keep_writes(loop: PregelLoop, task_id: str, writes: Sequence[tuple[str, Any]]) -> Any:
    """Store writes that are nobody's yet with the checkpoint before the step.

    Returns:
        A future that is done when they are stored; `None` where nothing is to wait for it.
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


def tell(loop: PregelLoop, mode: Any, events: Callable[[], Any]) -> None:
    """Put events into the stream of a run."""
    loop._emit(mode, events)  # noqa: SLF001


def add_channel(graph: Compiled, name: str, channel: BaseChannel[Any, Any, Any]) -> None:
    """Give a compiled graph a channel that neither inputs, nodes nor callers see."""
    channel.key = name
    graph.channels = {**graph.channels, name: channel}


def check_timeout(runnable: Any, name: str) -> None:
    """Refuse a timeout of a node that cannot be cancelled, as `Pregel.validate` does.

    Raises:
        ValueError: LangGraph's own.
    """
    validate_timeout_supported(runnable, name=name)


# What the journal takes.

DELTAS = "counters_since_delta_snapshot"
"""Where checkpoints keep how long ago each `DeltaChannel` was stored whole."""


# What the prebuilt nodes take.

InjectedTool = tuple[Any, Mapping[str, str | None], str | None]
"""A tool, its parameters that get a state field (`None`: the state), the one for the runtime."""


def parts_of_tool_node(node: Any) -> tuple[str, list[InjectedTool], list[Any]]:
    """A `ToolNode`'s key of the messages, its tools, and what wraps their calls."""
    tools: list[InjectedTool] = []
    for name, tool in node.tools_by_name.items():
        injected = node._injected_args[name]  # noqa: SLF001
        tools.append((tool, injected.state, injected.runtime))
    wrappers = [node._wrap_tool_call, node._awrap_tool_call]  # noqa: SLF001
    return node._messages_key, tools, [one for one in wrappers if one is not None]  # noqa: SLF001
