"""Every use of a name that LangGraph does not promise to keep, one function each.

A test runs the package on the newest LangGraph; what breaks, breaks here.
"""

import copy
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence
from langgraph._internal._config import ensure_config, recast_checkpoint_ns
from langgraph._internal._constants import (
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_CHECKPOINTER,
    CONFIG_KEY_READ,
    CONFIG_KEY_READ_STATE,
    CONFIG_KEY_STREAM,
    CONFIG_KEY_THREAD_ID,
)
from langgraph._internal._fields import get_cached_annotated_keys, get_update_as_tuples
from langgraph._internal._runnable import RunnableCallable, RunnableSeq, coerce_to_runnable
from langgraph._internal._typing import MISSING as MISSING  # noqa: PLC0414 - re-exported
from langgraph.channels import DeltaChannel
from langgraph.channels.base import BaseChannel
from langgraph.channels.binop import _get_overwrite
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.constants import TAG_HIDDEN
from langgraph.errors import EmptyChannelError, ParentCommand
from langgraph.graph import START, StateGraph
from langgraph.graph._node import StateNodeSpec
from langgraph.graph.state import (
    _DEFAULT_ERROR_HANDLER_NODE,
    CompiledStateGraph,
    _NodeDefaults,
    _pick_mapper,
)
from langgraph.managed.is_last_step import IsLastStepManager, RemainingStepsManager
from langgraph.pregel._algo import local_read
from langgraph.pregel._messages import _messages_delta_reducer, ensure_message_ids
from langgraph.pregel._utils import validate_timeout_supported
from langgraph.pregel._write import ChannelWrite, ChannelWriteEntry
from langgraph.pregel.protocol import StreamProtocol
from langgraph.types import Command, StreamWriter, TracePolicy
from typing_extensions import override

Compiled = CompiledStateGraph[Any, Any, Any, Any]


def stored(channel: BaseChannel[Any, Any, Any]) -> Any:
    """The content of a channel as `from_checkpoint` takes it; `MISSING` for none.

    A `DeltaChannel` gives none itself: savers rebuild it from its writes.
    """
    if not isinstance(channel, DeltaChannel):
        return channel.checkpoint()
    try:
        return channel.get()
    except EmptyChannelError:
        return MISSING


def step(
    name: str, func: Callable[..., Any], afunc: Callable[..., Awaitable[Any]]
) -> Runnable[Any, Any]:
    """A node's runnable that adds no run of its own to traces."""
    return RunnableCallable(func, afunc, name=name, trace=False, recurse=False)


def hide(graph: Compiled, names: Iterable[str]) -> None:
    """Keep nodes out of streams."""
    for name in names:
        node = graph.nodes[name]
        node.tags = [*(node.tags or ()), TAG_HIDDEN]


def only_send(graph: Compiled, names: Iterable[str]) -> None:
    """Let nothing but a `Send` start these nodes.

    LangGraph looks at every channel after every step. The one that a node has for its edges would
    be looked at for nothing.
    """
    for name in names:
        del graph.channels[f"branch:to:{name}"]
        graph.nodes[name].triggers = []
    graph.validate()


def untrace(graph: Compiled, names: Iterable[str]) -> None:
    """Keep nodes out of traces."""
    for name in names:
        node = graph.nodes[name]
        run_as(graph, name, _Untraced(name, node.bound, node.flat_writers))


class _Untraced(Runnable[Any, Any]):
    """What a node runs, without the run that `RunnableSeq` adds to traces."""

    def __init__(
        self, name: str, bound: Runnable[Any, Any], writers: Sequence[Runnable[Any, Any]]
    ) -> None:
        self.name: str = name
        self._bound = bound
        self._writers = writers

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> None:
        output = self._bound.invoke(input, config)
        for writer in self._writers:
            writer.invoke(output, config)

    @override
    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> None:
        output = await self._bound.ainvoke(input, config)
        for writer in self._writers:
            writer.invoke(output, config)


def is_heard(writer: StreamWriter) -> bool:
    """Whether what is written to the stream `custom` reaches anybody.

    Where nobody asked for it, LangGraph's writer is a function that holds on to nothing.
    """
    return getattr(writer, "__closure__", writer) is not None


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


def unhidden(config: RunnableConfig, node: str) -> RunnableConfig:
    """The config of a hidden node for code of the user's that stands behind another node."""
    tags = [tag for tag in config.get("tags") or () if tag != TAG_HIDDEN]
    metadata = {**(config.get("metadata") or {}), "langgraph_node": node}
    changed: RunnableConfig = {**config, "tags": tags, "metadata": metadata}
    changed.pop("run_name", None)
    return changed


def also_write(graph: Compiled, channel: str, mapper: Callable[[Any], Any]) -> None:
    """Write something made of a run's input to one more channel."""
    entry = ChannelWriteEntry(channel, mapper=mapper)
    graph.nodes[START].writers.append(ChannelWrite((entry,)))


# What reading a builder takes.

STEP_COUNTERS = (RemainingStepsManager, IsLastStepManager)
"""The managed values that follow from the number of the step."""


def node_defaults(builder: StateGraph[Any, Any, Any, Any]) -> _NodeDefaults:
    """What `StateGraph.set_node_defaults` was given; there is no public way to read it."""
    return builder._node_defaults  # noqa: SLF001


def default_error_handler(handler: Any) -> Any:
    """The runnable that `compile` makes of a default error handler."""
    return coerce_to_runnable(handler, name=_DEFAULT_ERROR_HANDLER_NODE, trace=False)


def add_error_handler(
    shell: StateGraph[Any, Any, Any, Any],
    node: str,
    handler: Runnable[Any, Any],
    schema: type[Any],
    builder: StateGraph[Any, Any, Any, Any],
) -> None:
    """Give a node the error handler that it has in another builder, under the same name."""
    name = builder.nodes[node].error_handler_node or _DEFAULT_ERROR_HANDLER_NODE
    defaults = builder._node_defaults  # noqa: SLF001
    shell.nodes[node].error_handler_node = name
    shell.nodes[name] = StateNodeSpec(
        handler,
        metadata=None,
        input_schema=schema,
        retry_policy=defaults.retry_policy,
        cache_policy=None,
        is_error_handler=True,
        timeout=defaults.timeout,
    )


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


def is_flag(managed: Any) -> bool:
    """Whether a step counter is `IsLastStep`; the other one is `RemainingSteps`."""
    return managed is IsLastStepManager


def is_function_node(runnable: Any) -> bool:
    """Whether a runnable is what LangGraph makes of a function, or a subclass like `ToolNode`."""
    return isinstance(runnable, RunnableCallable)


# What running and looking at a graph takes.


def full_config(*configs: RunnableConfig | None) -> RunnableConfig:
    """A config with LangGraph's defaults and what is inherited from a graph around."""
    return ensure_config(*configs)


def read_state(config: RunnableConfig, fields: Iterable[str]) -> Mapping[str, Any]:
    """What channels hold, read from within a node; one that is empty is left out."""
    found: Mapping[str, Any] = config["configurable"][CONFIG_KEY_READ](list(fields), fresh=False)
    return found


def with_state(
    config: RunnableConfig,
    read_input: Callable[[], Any] | None,
    channels: Mapping[str, BaseChannel[Any, Any, Any]],
) -> RunnableConfig:
    """A node's config through which these channels are read instead of those of the shell.

    Args:
        config: The config.
        read_input: Gives what an edge would have given to a node that a `Send` started. `None` for
            one that an edge started, as in LangGraph.
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
    # Known by name: the import of all prebuilt nodes takes a tenth of a second.
    kinds = ((one.__module__, one.__qualname__) for one in type(runnable).__mro__)
    return ("langgraph.prebuilt.tool_node", "ToolNode") in kinds


def own_command(error: ParentCommand, config: RunnableConfig, node: str) -> Command[Any] | None:
    """The command that a graph within a node gives to the node's own graph.

    `None` if it is for a graph further out.
    """
    command: Command[Any] = error.args[0]
    namespace = config["configurable"][CONFIG_KEY_CHECKPOINT_NS]
    ours = (namespace, recast_checkpoint_ns(namespace), node)  # as `run_with_retry`
    return command if command.graph in ours else None


def check_config(graph: Compiled, config: RunnableConfig) -> None:
    """Check the config of a run as LangGraph does, before anything is added to it.

    Raises:
        ValueError: LangGraph's own, for a limit below 1, or where a checkpointer has no thread.
    """
    pauses = {"interrupt_before": None, "interrupt_after": None}
    graph._defaults(config, stream_mode=(), print_mode=(), output_keys=None, **pauses)  # noqa: SLF001


def has_saver(graph: Compiled, config: RunnableConfig | None) -> bool:
    """Whether a run with this config has a checkpointer."""
    return bool(graph._resolve_checkpointer(full_config(graph.config, config)))  # noqa: SLF001


def stored_value(graph: Compiled, config: RunnableConfig, channel: str) -> Any:
    """What the newest checkpoint of a thread has of a channel; `None` without one."""
    saver = graph._state_checkpointer(config)  # noqa: SLF001
    found = saver.get_tuple(graph._own_checkpoint_config(full_config(graph.config, config)))  # noqa: SLF001
    return None if found is None else found.checkpoint["channel_values"].get(channel)


async def astored_value(graph: Compiled, config: RunnableConfig, channel: str) -> Any:
    """As `stored_value`."""
    saver = graph._state_checkpointer(config)  # noqa: SLF001
    own = graph._own_checkpoint_config(full_config(graph.config, config))  # noqa: SLF001
    found = await saver.aget_tuple(own)
    return None if found is None else found.checkpoint["channel_values"].get(channel)


def is_newest(graph: Compiled, config: RunnableConfig) -> bool:
    """Whether the checkpoint that a config names is the newest of its thread."""
    saver = graph._state_checkpointer(config)  # noqa: SLF001
    own = graph._own_checkpoint_config(config)  # noqa: SLF001
    return _is_same(own, saver.get_tuple(_unnamed(own)))


async def ais_newest(graph: Compiled, config: RunnableConfig) -> bool:
    """As `is_newest`."""
    saver = graph._state_checkpointer(config)  # noqa: SLF001
    own = graph._own_checkpoint_config(config)  # noqa: SLF001
    return _is_same(own, await saver.aget_tuple(_unnamed(own)))


def _unnamed(config: RunnableConfig) -> RunnableConfig:
    given = {key: one for key, one in config["configurable"].items() if key != "checkpoint_id"}
    return {**config, "configurable": given}


def _is_same(config: RunnableConfig, found: CheckpointTuple | None) -> bool:
    named = config["configurable"]["checkpoint_id"]
    return found is not None and found.checkpoint["id"] == named


def is_for_subgraph(config: RunnableConfig) -> bool:
    """Whether a config of a state method names a graph within this one."""
    found = config.get("configurable", {})
    return bool(found.get(CONFIG_KEY_CHECKPOINT_NS)) and CONFIG_KEY_CHECKPOINTER not in found


def keeps_threads(config: RunnableConfig) -> bool:
    """Whether the run has a checkpointer and a thread."""
    found = config.get("configurable", {})
    has_checkpointer = found.get(CONFIG_KEY_CHECKPOINTER) is not None
    return has_checkpointer and found.get(CONFIG_KEY_THREAD_ID) is not None


Shown = Callable[[str, Any], tuple[Any, ...]]
"""Takes a stream's mode and payload, gives what is shown of it: one payload or none."""


def shown_to_parent(config: RunnableConfig, show: Shown) -> dict[str, Any]:
    """The part of `configurable` that lets a graph around see a stream as `show` changes it."""
    stream = config.get("configurable", {}).get(CONFIG_KEY_STREAM)
    if stream is None:
        return {}

    def put(chunk: tuple[Any, str, Any]) -> None:
        namespace, mode, payload = chunk
        for one in show(mode, payload):
            stream((namespace, mode, one))

    return {CONFIG_KEY_STREAM: StreamProtocol(put, stream.modes)}


def separate(builder: StateGraph[Any, Any, Any, Any]) -> StateGraph[Any, Any, Any, Any]:
    """A copy of a builder that can be compiled without leaving marks on it."""
    new = copy.copy(builder)
    for name, value in vars(builder).items():
        if isinstance(value, dict | set):
            setattr(new, name, value.copy())
    new.nodes = {name: copy.copy(node) for name, node in builder.nodes.items()}
    return new


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
