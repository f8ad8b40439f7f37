"""Every use of a name that LangGraph and LangChain do not promise to keep, in one function each.

Other modules use these functions, and the attributes of the loop and its tasks that `_MEMBERS`
lists. If a name changes, only this module changes. The import of this module checks all of them:
a run must not end in the middle because an attribute is missing. `docs/langgraph-hooks.md` has the
public hooks that would replace most of it.
"""

import copy
import inspect
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from importlib.metadata import version
from types import CellType, CodeType, FunctionType, SimpleNamespace
from typing import Any, ClassVar, Literal, cast

from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnablePassthrough,
    RunnableSequence,
)
from langchain_core.tools import BaseTool
from typing_extensions import override

from langchain_sequrity import session_memory
from langchain_sequrity.errors import UnsupportedVersion

SUPPORTED = {
    "langgraph": ">=1.2.23,<1.3",
    "langchain": ">=1.5,<2",
    "langchain-core": ">=1.8,<2",
}
"""The versions that have all of these names, as in `pyproject.toml`."""


def _unsupported(missing: str) -> UnsupportedVersion:
    package = missing.partition(".")[0].replace("_", "-")
    return UnsupportedVersion(
        f"langchain-sequrity works with {package}{SUPPORTED[package]}; the installed {package} "
        f"{version(package)} does not have `{missing}` in the form that it needs."
    )


def _unsupported_import(error: ImportError) -> UnsupportedVersion:
    # "cannot import name 'a' from 'langgraph.b' (path)", or a module as `name` alone
    words = str(error).split("'")
    is_name = str(error).startswith("cannot import name")
    return _unsupported(f"{words[3]}.{words[1]}" if is_name else str(error.name))


try:
    from langgraph._internal._config import ensure_config, recast_checkpoint_ns
    from langgraph._internal._constants import (
        CONFIG_KEY_CHECKPOINT_ID,
        CONFIG_KEY_CHECKPOINT_MAP,
        CONFIG_KEY_CHECKPOINT_NS,
        CONFIG_KEY_CHECKPOINTER,
        CONFIG_KEY_READ,
        CONFIG_KEY_READ_STATE,
        CONFIG_KEY_RESUME_MAP,
        CONFIG_KEY_RUNTIME,
        CONFIG_KEY_SCRATCHPAD,
        CONFIG_KEY_SEND,
        CONFIG_KEY_TASK_ID,
        CONFIG_KEY_THREAD_ID,
        ERROR,
        ERROR_SOURCE_NODE,
        INPUT,
        INTERRUPT,
        NO_WRITES,
        NS_SEP,
        NULL_TASK_ID,
        PUSH,
        RESUME,
    )
    from langgraph._internal._runnable import RunnableCallable, RunnableSeq, coerce_to_runnable
    from langgraph._internal._scratchpad import PregelScratchpad
    from langgraph._internal._typing import MISSING
    from langgraph.channels import DeltaChannel, LastValueAfterFinish
    from langgraph.channels.base import BaseChannel
    from langgraph.channels.binop import _get_overwrite
    from langgraph.channels.named_barrier_value import (
        NamedBarrierValue,
        NamedBarrierValueAfterFinish,
    )
    from langgraph.checkpoint.base import CheckpointMetadata
    from langgraph.constants import TAG_HIDDEN
    from langgraph.errors import GraphInterrupt, ParentCommand
    from langgraph.graph import StateGraph
    from langgraph.graph._node import StateNodeSpec
    from langgraph.graph.state import (
        _CHANNEL_BRANCH_TO,
        _DEFAULT_ERROR_HANDLER_NODE,
        CompiledStateGraph,
        _NodeDefaults,
        _pick_mapper,
    )
    from langgraph.managed.is_last_step import IsLastStepManager, RemainingStepsManager
    from langgraph.pregel import Pregel
    from langgraph.pregel._algo import (
        PregelTaskWrites,
        _scratchpad,
        apply_writes,
        local_read,
        prepare_node_error_handler_task,
        sanitize_untracked_values_in_send,
    )
    from langgraph.pregel._io import map_output_values
    from langgraph.pregel._loop import AsyncPregelLoop, PregelLoop, SyncPregelLoop
    from langgraph.pregel._messages import _messages_delta_reducer, ensure_message_ids
    from langgraph.pregel._read import PregelNode
    from langgraph.pregel._utils import validate_timeout_supported
    from langgraph.pregel._write import ChannelWrite
    from langgraph.pregel.protocol import StreamProtocol
    from langgraph.runtime import Runtime
    from langgraph.types import Command, Interrupt, PregelExecutableTask, Send, TracePolicy
except ImportError as error:
    raise _unsupported_import(error) from error

__all__ = [
    "MISSING",
    "NO_WRITES",
    "TAG_HIDDEN",
    "AsyncPregelLoop",
    "PregelLoop",
    "SyncPregelLoop",
]  # names of LangGraph that other modules use from here

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
    read_writes: Callable[[Any], Sequence[tuple[str, Any]] | None]
    read_writes = graph.nodes["any"].writers[0].writes[0].mapper
    return read_writes


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
    configurable = config["configurable"]
    scratchpad, _, _, task = _reader(config).args
    read = partial(local_read, scratchpad, channels, {}, task)
    reads = {CONFIG_KEY_READ: read, CONFIG_KEY_READ_STATE: read_input}
    return {**config, "configurable": {**configurable, **reads}}


def _reader(config: RunnableConfig | Mapping[str, Any]) -> "partial[Any]":
    """The function with which a task reads its state.

    Raises:
        UnsupportedVersion: If it is not `local_read`, bound to the first arguments.
    """
    read = config["configurable"][CONFIG_KEY_READ]
    if not isinstance(read, partial) or read.func is not local_read or len(read.args) != _BOUND:
        raise _unsupported(_READER)
    return read


_BOUND = 4  # scratchpad, channels, managed values, task
_READER = "langgraph.pregel._algo.local_read bound to four arguments"


def state_of_task(config: Mapping[str, Any], *fields: str) -> Mapping[str, Any]:
    """The graph's state, which may differ from the input of the node.

    A `Send` or a caller can start a node with any state.
    """
    state: Mapping[str, Any] = _reader(config)(list(fields), fresh=False)
    return state


def has_node(config: Mapping[str, Any], name: str) -> bool:
    """Whether the graph of a task has a node; false outside of a graph."""
    if CONFIG_KEY_READ not in config["configurable"]:
        return False
    return _CHANNEL_BRANCH_TO.format(name) in _reader(config).args[1]


def reads_state(runnable: Any) -> bool:
    """Whether a node that a `Send` started reads the state through its config."""
    if isinstance(runnable, RunnableSequence | RunnableSeq):
        return any(map(reads_state, runnable.steps))
    return is_tool_node(type(runnable))


def is_tool_node(node_class: type) -> bool:
    """Whether a class is `ToolNode` or a subclass."""
    # By name, because the import of all prebuilt nodes takes a tenth of a second.
    names = ((base.__module__, base.__qualname__) for base in node_class.__mro__)
    return ("langgraph.prebuilt.tool_node", "ToolNode") in names


def command_to_own_graph(
    error: ParentCommand, config: RunnableConfig, node: str
) -> Command[Any] | None:
    """The command from a graph within a node to the node's own graph.

    `None` if it is for an outer graph.
    """
    command: Command[Any] = error.args[0]
    namespace = config["configurable"][CONFIG_KEY_CHECKPOINT_NS]
    own_names = (namespace, recast_checkpoint_ns(namespace), node)  # as `run_with_retry`
    return command if command.graph in own_names else None


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
    branches = {source: dict(branches) for source, branches in builder.branches.items()}
    new.branches = defaultdict(dict, branches)
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
    *failed_path, marker, _ = task.path  # as `prepare_node_error_handler_task` makes it
    failed = [other.id for other in others if other.path[:3] == tuple(failed_path)]
    return str(failed[0] if marker == _ERROR_HANDLER else task.id)


_ERROR_HANDLER = "node_error_handler"


def waiting_nodes(channels: Mapping[str, Any], nodes: Mapping[str, Any]) -> list[str]:
    """The deferred nodes that wait until all other nodes are done."""
    triggers = {name: channels.get(_CHANNEL_BRANCH_TO.format(name)) for name in nodes}
    deferred = {n: t for n, t in triggers.items() if isinstance(t, LastValueAfterFinish)}
    return [name for name, trigger in deferred.items() if trigger.value is not MISSING]


def started_nodes(task: Any, tokens: Mapping[str, str]) -> list[str]:
    """The tokens of the nodes that a task has started so far."""
    prefix = _CHANNEL_BRANCH_TO.format("")
    names = [channel.removeprefix(prefix) for channel, _ in task.writes]
    return [tokens[name] for name in names if name in tokens]


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
    writes: deque[tuple[str, Any]] = _reader(config).args[-1].writes
    return writes


def add_to_first_write(config: RunnableConfig, channel: str, item: Any) -> bool:
    """Add an item to the list that is the first write of a task.

    A checkpointer stores the writes of a task by their number, and keeps the older one of two. If a
    task runs again and adds more, its other writes must keep their numbers.

    Returns:
        Whether it was added: an attempt that has timed out writes nothing.
    """
    new = (channel, [item])
    config["configurable"][CONFIG_KEY_SEND]([new])
    writes = _writes_of(config)
    if not writes or writes[-1] is not new:
        return False
    writes.pop()
    if writes and writes[0][0] == channel:
        writes[0] = (channel, [*writes[0][1], item])
    else:
        writes.insert(0, new)
    return True


def task_writes(config: RunnableConfig) -> list[tuple[str, Any]]:
    """The writes of a task so far."""
    return list(_writes_of(config))


def remove_writes(config: RunnableConfig) -> None:
    """Remove the writes of a task, except the answers to its interrupts.

    LangGraph removes those of a timed attempt itself, perhaps after the next one has begun.
    """
    writes = getattr(config["configurable"][CONFIG_KEY_SEND], "__self__", None)
    if writes is None:
        return
    answers = [write for write in writes if write[0] == RESUME]
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
    names = {channel}
    if isinstance(value, Send) and isinstance(value.arg, dict):
        names.update(value.arg)
    return not names.isdisjoint(fields)


def values_of(config: RunnableConfig, names: Iterable[str]) -> dict[str, Any]:
    """The values of fields for a task, with its own writes; `MISSING` for a field without one."""
    channels = _reader(config).args[1]
    written = dict(task_writes(config))
    return {
        name: written[name]
        if name in written
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
    loop.checkpoint_pending_writes.extend((task_id, channel, value) for channel, value in writes)
    loop._written_task_ids.add(task_id)  # noqa: SLF001
    if loop.durability == "exit" or loop.checkpointer_put_writes is None:
        return None
    checkpoint = {
        CONFIG_KEY_CHECKPOINT_NS: loop.config["configurable"].get(CONFIG_KEY_CHECKPOINT_NS, ""),
        CONFIG_KEY_CHECKPOINT_ID: loop.checkpoint["id"],
    }
    before = loop.checkpoint_config
    config = {**before, "configurable": {**before["configurable"], **checkpoint}}
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


# The loop of a run.


class ExtensibleLoop(PregelLoop):
    """LangGraph's loop, in which private methods have names that a subclass may override."""

    whole_at_exit: ClassVar[frozenset[str]] = frozenset()
    """`DeltaChannel`s that a run with durability "exit" stores as values, not as writes."""

    def emit(self, mode: Any, events: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Put events into the stream of the run."""
        super()._emit(mode, events, *args, **kwargs)

    @override
    def _emit(self, mode: Any, values: Any, *args: Any, **kwargs: Any) -> None:
        self.emit(mode, values, *args, **kwargs)

    @override
    def _put_exit_delta_writes(self) -> None:
        self._delta_channels_forced_snapshot.update(self.whole_at_exit)
        super()._put_exit_delta_writes()

    def store_whole(self, channel: str) -> None:
        """Let the next checkpoint hold all of a `DeltaChannel`."""
        self._delta_channels_forced_snapshot.add(channel)

    def emit_state(self) -> None:
        """Put the state into the stream, without a call of `emit`."""
        every_field: Literal[True] = True
        super()._emit("values", map_output_values, self.output_keys, every_field, self.channels)

    def apply_hidden(self, task_id: str, writes: Iterable[tuple[str, Any]]) -> None:
        """Apply writes at once; see `hidden_task`."""
        task, next_version = hidden_task(task_id, writes), self.checkpointer_get_next_version
        apply_writes(self.checkpoint, self.channels, [task], next_version, {})


def hidden_task(task_id: str, writes: Iterable[tuple[str, Any]]) -> Any:
    """Writes in the form of a task that streams do not show, so LangGraph applies them."""
    config = {"tags": [TAG_HIDDEN]}
    return SimpleNamespace(
        id=task_id, name=INPUT, path=(), triggers=[], writes=deque(writes), config=config
    )


def stream_with(loop_class: type[SyncPregelLoop]) -> Callable[..., Any]:
    """`Pregel.stream` with another class of loop."""
    return _with_globals(Pregel.stream, SyncPregelLoop=loop_class)


def astream_with(loop_class: type[AsyncPregelLoop]) -> Callable[..., Any]:
    """`Pregel.astream` with another class of loop."""
    return _with_globals(Pregel.astream, AsyncPregelLoop=loop_class)


def _with_globals(method: Callable[..., Any], **names: type[PregelLoop]) -> Callable[..., Any]:
    """A method that finds other objects under some of its module's names."""
    plain = cast("FunctionType", method)
    new = FunctionType(plain.__code__, {**plain.__globals__, **names}, closure=plain.__closure__)
    new.__defaults__, new.__kwdefaults__ = plain.__defaults__, plain.__kwdefaults__
    return new


# Questions to a human, and their answers. `configurable` is that of a task's config.


def last_question(configurable: Mapping[str, Any]) -> Interrupt | None:
    """What a task asked last; `None` if it has not asked."""
    task_id = configurable[CONFIG_KEY_TASK_ID]
    writes = _resume_variables(configurable[CONFIG_KEY_SCRATCHPAD])["pending_writes"]
    questions = [value for writer, name, value in writes if (writer, name) == (task_id, INTERRUPT)]
    return questions[-1][-1] if questions else None


def interrupt_with(question: Any, configurable: Mapping[str, Any]) -> GraphInterrupt:
    """The exception that stops a task with a question."""
    namespace = configurable[CONFIG_KEY_CHECKPOINT_NS]
    return GraphInterrupt((Interrupt.from_ns(value=question, ns=namespace),))


def unnamed_answer(configurable: Mapping[str, Any], *, take: bool) -> Any:
    """The resume value that names no question; `None` without one.

    Args:
        configurable: See above.
        take: Whether no other question gets it then.
    """
    return configurable[CONFIG_KEY_SCRATCHPAD].get_null_resume(take)


def is_answer_stale(configurable: Mapping[str, Any]) -> bool:
    """Whether the resume value that names no question was stored before this run.

    The checkpoint's writes are in the closure of the function that reads the value; there is no
    other access that also works in an event loop. A resume value of this run is the last of them. A
    stored one precedes the writes of the tasks.
    """
    scratchpad = configurable[CONFIG_KEY_SCRATCHPAD]
    while True:
        variables = _resume_variables(scratchpad)
        answer, writes = variables["null_resume_write"], variables["pending_writes"]
        if answer is not None:
            break
        if (scratchpad := variables["parent_scratchpad"]) is None:
            return False
    if answer not in writes:
        return False  # another task took it
    return any(task_id != NULL_TASK_ID for task_id, *_ in writes[writes.index(answer) + 1 :])


def _resume_variables(scratchpad: PregelScratchpad) -> Mapping[str, Any]:
    return inspect.getclosurevars(scratchpad.get_null_resume).nonlocals


def take_named_answer(configurable: Mapping[str, Any], question_id: str) -> Any:
    """The resume value that names a question, which nothing else gets then; else `MISSING`."""
    answers = configurable.get(CONFIG_KEY_RESUME_MAP) or {}
    if question_id not in answers:
        return MISSING
    answer, next_answers = answers[question_id], configurable[CONFIG_KEY_SCRATCHPAD].resume
    if next_answers and next_answers[-1] is answer:
        next_answers.pop()
    return answer


def checkpoints_around(configurable: Mapping[str, Any]) -> Iterator[tuple[RunnableConfig, str]]:
    """The task's graph and the outer graphs: config of its checkpoints, and its current checkpoint.

    A caller's config may also name checkpoints of other graphs.
    """
    # The task has one part more.
    inner = configurable[CONFIG_KEY_CHECKPOINT_NS].rpartition(NS_SEP)[0]
    for namespace, checkpoint_id in configurable[CONFIG_KEY_CHECKPOINT_MAP].items():
        if namespace in ("", inner) or inner.startswith(namespace + NS_SEP):
            graph = {**configurable, CONFIG_KEY_CHECKPOINT_NS: namespace}
            graph.pop(CONFIG_KEY_CHECKPOINT_ID, None)
            graph[CONFIG_KEY_THREAD_ID] = str(graph[CONFIG_KEY_THREAD_ID])  # as LangGraph stores it
            yield {"configurable": graph}, checkpoint_id


# Prebuilt nodes and tools.

InjectedTool = tuple[Any, Mapping[str, str | None], str | None]
"""A tool; its parameters → state field (`None`: the state); its parameter for the runtime."""


def parts_of_tool_node(node: Any) -> tuple[str, list[InjectedTool], list[Any]]:
    """A `ToolNode`'s key of the messages, its tools, and the wrappers of their calls.

    Raises:
        UnsupportedVersion: If it has other attributes. The import of this module does not check
            them, because the import of `ToolNode` takes long.
    """
    try:
        pairs = [(tool, node._injected_args[name]) for name, tool in node.tools_by_name.items()]  # noqa: SLF001
        tools = [(tool, injected.state, injected.runtime) for tool, injected in pairs]
        wrappers = [node._wrap_tool_call, node._awrap_tool_call]  # noqa: SLF001
        return node._messages_key, tools, [wrap for wrap in wrappers if wrap is not None]  # noqa: SLF001
    except AttributeError as error:
        attribute = f"langgraph.prebuilt.{type(error.obj).__qualname__}.{error.name}"
        raise _unsupported(attribute) from error


TO_FUNCTION = "_to_args_and_kwargs"
"""Name of a tool's method between its schema and its function. There is no public place there."""


def injected_parameters(tool: Any) -> set[str]:
    """The parameters of a tool's function that LangChain injects, and the schema does not have."""
    return set(tool._injected_args_keys)  # noqa: SLF001


def is_other_wrapper(handler: Callable[..., object]) -> bool:
    """Whether the handler of `wrap_tool_call` calls another middleware, and not the tool.

    The innermost wrapper gets LangGraph's function that runs the tool. All others get a function of
    LangChain that calls the next wrapper.
    """
    return getattr(handler, "__module__", "").startswith("langchain.agents")


# The check at import.

_MEMBERS: Mapping[type, str] = {
    PregelLoop: """
        tick() after_tick() put_writes(task_id,writes,cached) output_writes(task_id,writes,cached)
        _emit(mode,values,args,kwargs) _put_exit_delta_writes() _delta_channels_forced_snapshot
        _written_task_ids cache channels checkpoint checkpoint_config checkpoint_metadata
        checkpoint_pending_writes checkpointer checkpointer_get_next_version checkpointer_put_writes
        config durability is_replaying manager output_keys status stream submit tasks""",
    SyncPregelLoop: "match_cached_writes()",
    AsyncPregelLoop: "amatch_cached_writes()",
    StreamProtocol: "modes",
    PregelExecutableTask: "cache_key config id name path timeout writes",
    PregelTaskWrites: "writes",
    PregelScratchpad: "get_null_resume resume",
    PregelNode: "flat_writers node",
    Pregel: """
        _defaults(config,stream_mode,print_mode,output_keys,interrupt_before,interrupt_after,…)
        stream astream channels nodes""",
    CompiledStateGraph: "attach_node(key,node) builder",
    StateGraph: "branches channels managed nodes",
    StateNodeSpec: """
        __init__(runnable,metadata,input_schema,retry_policy,cache_policy,…) defer ends
        error_handler_node is_error_handler timeout trace_policy""",
    _NodeDefaults: "cache_policy error_handler timeout",
    RunnableSeq: "__init__(steps,name,trace_inputs,trace_policy,…)",
    DeltaChannel: "reducer",
    BaseChannel: "get() is_available() key",
    LastValueAfterFinish: "value",
    NamedBarrierValue: "names seen",
    NamedBarrierValueAfterFinish: "names seen",
    Command: "_update_as_tuples() graph",
    Interrupt: "from_ns(value,ns,…) id",
    Runtime: "control store",
    CheckpointMetadata: DELTAS,
    BaseTool: f"{TO_FUNCTION}(tool_input,tool_call_id) _injected_args_keys",
}
"""Attributes and methods. The methods have these parameters; where it ends with `…`, also others
that a call may leave out."""

_FUNCTIONS: Mapping[Callable[..., Any], str] = {
    ensure_config: "configs",
    recast_checkpoint_ns: "ns",
    coerce_to_runnable: "thing,name,trace,…",
    _get_overwrite: "value,…",
    _pick_mapper: "state_keys,schema,…",
    apply_writes: "checkpoint,channels,tasks,get_next_version,trigger_to_nodes,…",
    local_read: "scratchpad,channels,managed,task,select,fresh",
    sanitize_untracked_values_in_send: "packet,channels,…",
    map_output_values: "output_channels,pending_writes,channels,…",
    ensure_message_ids: "channels,writes,…",
    validate_timeout_supported: "runnable,name,…",
}


def _empty_graph() -> StateGraph[Any, Any, Any, Any]:
    state: Any = dict
    return StateGraph(state)


def _constants(function: Any) -> tuple[Any, ...]:
    return cast("tuple[Any, ...]", function.__code__.co_consts)


def _has_resume_variables() -> bool:
    inner = [code for code in _constants(_scratchpad) if isinstance(code, CodeType)]
    return {"pending_writes", "null_resume_write", "parent_scratchpad"} in [
        set(code.co_freevars) for code in inner if code.co_name == "get_null_resume"
    ]


def _has_readable_output() -> bool:
    try:
        return callable(output_reader(_empty_graph()))
    except (AttributeError, LookupError, TypeError):
        return False


_SHAPES: Mapping[str, Callable[[], bool]] = {
    "langgraph.pregel.Pregel.stream with its SyncPregelLoop": lambda: (
        "SyncPregelLoop" in cast("FunctionType", Pregel.stream).__code__.co_names
    ),
    "langgraph.pregel.Pregel.astream with its AsyncPregelLoop": lambda: (
        "AsyncPregelLoop" in cast("FunctionType", Pregel.astream).__code__.co_names
    ),
    "langgraph.pregel._read.PregelNode.node as a cached property": lambda: isinstance(
        vars(PregelNode)["node"], cached_property
    ),
    "langgraph.pregel._algo.PregelScratchpad.get_null_resume with its variables": (
        _has_resume_variables
    ),
    "langgraph.pregel._algo.prepare_node_error_handler_task with its path": lambda: (
        _ERROR_HANDLER in _constants(prepare_node_error_handler_task)
    ),
    "langgraph.graph.state.CompiledStateGraph.attach_node with its writer": _has_readable_output,
    "langgraph.graph.state.CompiledStateGraph.attach_edge with its channel `join:…`": lambda: (
        "join:" in _constants(CompiledStateGraph.attach_edge)
    ),
    "langgraph.graph.state.StateGraph._node_defaults": lambda: hasattr(
        _empty_graph(), "_node_defaults"
    ),
    "langgraph._internal._runnable.RunnableSeq.steps": lambda: hasattr(
        RunnableSeq(RunnablePassthrough(), RunnablePassthrough()), "steps"
    ),
    "langgraph.graph.state._CHANNEL_BRANCH_TO with the node at its end": lambda: (
        _CHANNEL_BRANCH_TO.endswith(":{}")
    ),
    "langgraph._internal._constants with its keys of a run": lambda: (
        (CONFIG_KEY_RUNTIME, CONFIG_KEY_CHECKPOINTER)
        == (session_memory.RUNTIME, session_memory.CHECKPOINTER)
    ),
}
"""Facts that are not in names and parameters."""


def _path(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _has_parameters(function: Any, parameters: str) -> bool:
    named, may_have_more, _ = parameters.partition("…")
    expected = [name for name in named.split(",") if name]
    actual = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    more = [p for p in actual[len(expected) :] if not may_have_more or p.default is p.empty]
    return [p.name for p in actual[: len(expected)]] == expected and not more


def _check(
    members: Mapping[type, str],
    functions: Mapping[Callable[..., Any], str],
    shapes: Mapping[str, Callable[[], bool]],
) -> None:
    """Raise an error for the first thing that the installed versions do not have."""
    for owner, names in members.items():
        for member in names.split():
            path = f"{_path(owner)}.{member}"
            name, is_method, parameters = member.rstrip(")").partition("(")
            has_member = any(
                name in vars(base) or name in inspect.get_annotations(base)
                for base in owner.__mro__
            )
            if not has_member or (
                is_method and not _has_parameters(getattr(owner, name), parameters)
            ):
                raise _unsupported(path)
    for function, parameters in functions.items():
        path = f"{_path(function)}({parameters})"
        if not _has_parameters(function, parameters):
            raise _unsupported(path)
    for shape, has_shape in shapes.items():
        if not has_shape():
            raise _unsupported(shape)


def _agents() -> tuple[Mapping[type, str], Mapping[str, Callable[[], bool]]]:
    """Members and shapes of LangChain's agents, which are an extra."""
    try:
        from langchain.agents.factory import (  # noqa: PLC0415
            _chain_tool_call_wrappers,
            create_agent,
        )
        from langgraph.prebuilt.tool_node import ToolCallRequest, ToolRuntime  # noqa: PLC0415
    except ImportError as error:
        raise _unsupported_import(error) from error
    chain: Any = _chain_tool_call_wrappers
    members = {
        ToolCallRequest: "override(overrides) runtime tool tool_call",
        ToolRuntime: "config tools",
    }
    outer, inner = (lambda _, handler: handler), (lambda *_: None)
    return members, {
        "langchain.agents.factory.create_agent with its nodes `….before_agent`": lambda: (
            ".before_agent" in _constants(create_agent)
        ),
        "langchain.agents.factory._chain_tool_call_wrappers with its handlers": lambda: (
            is_other_wrapper(chain([outer, inner])(None, None))
        ),
    }


def check_agents() -> None:
    """Check what `PolicyMiddleware` needs of LangChain's agents.

    Raises:
        UnsupportedVersion: If something is missing.
    """
    members, shapes = _agents()
    _check(members, {}, shapes)


_check(_MEMBERS, _FUNCTIONS, _SHAPES)
