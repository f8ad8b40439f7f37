"""`LangGraphExecutor`: a StateGraph that runs under policy.

If several nodes are due in one step, the program first calls them all. Each call is checked with
its own arguments and answered with a handle. Then the nodes run, and `result_of` gives the result
of each. So the service gets a result later than usual, and from another tool. If that makes a
difference for the policy, the nodes run one after the other.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from threading import Lock
from typing import Any, NoReturn, Self, Unpack, get_args

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.cache.base import BaseCache
from langgraph.channels import BinaryOperatorAggregate, UntrackedValue
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.base import BaseStore
from langgraph.types import Checkpointer, Command, StateSnapshot
from typing_extensions import override

from langchain_sequrity import _compat
from langchain_sequrity.chat_models import ChatSequrity
from langchain_sequrity.chat_models.arguments import NamedModelArguments, executor_signature
from langchain_sequrity.chat_models.base import SequrityChatModel
from langchain_sequrity.chat_models.fallbacks import PassesDenials
from langchain_sequrity.chat_models.parameters import capabilities_of
from langchain_sequrity.chat_models.run_config import refuse_setting_names, refuse_settings
from langchain_sequrity.chat_models.turn import TurnSettings
from langchain_sequrity.connection import Connection
from langchain_sequrity.display.progress import WorkProgress, hide, number_of, progress
from langchain_sequrity.errors import PolicyDenied, PolicySyntaxError, UsageError
from langchain_sequrity.graph.analysis.spec import GraphSpec, read_graph
from langchain_sequrity.graph.approval import DenialHandler, check_field
from langchain_sequrity.graph.codegen.compiler import WhyNotSplit, compile_graph
from langchain_sequrity.graph.dispatch import ClientTools, text_readers
from langchain_sequrity.graph.explain import GraphExplanation, explain
from langchain_sequrity.graph.journal import JournalChannel, add_entries
from langchain_sequrity.graph.limits import UPDATES_PER_JOURNAL
from langchain_sequrity.graph.options import NodeOptions
from langchain_sequrity.graph.program import (
    DRIVER,
    JOURNAL,
    RUN,
    STEP,
    GraphProgram,
    ToolSpec,
    is_executor_name,
)
from langchain_sequrity.graph.runtime import loop
from langchain_sequrity.graph.runtime.driver import Driver
from langchain_sequrity.graph.runtime.parts import ExecutorParts
from langchain_sequrity.graph.runtime.requests import History, RunExchange
from langchain_sequrity.graph.runtime.tasks import GraphTasks
from langchain_sequrity.headers import ConfigHeader, FeaturesHeader
from langchain_sequrity.headers.config import FsmConfig, ResponseFormatConfig
from langchain_sequrity.headers.policy_fit import describe, news, problems, warn_of_policy
from langchain_sequrity.on_denied import check_on_denied
from langchain_sequrity.sqrt.coerce import INTERNAL_TOOLS, settings_of
from langchain_sequrity.sqrt.lint.ways import WAYS
from langchain_sequrity.suggestions import suggest


def warn_of_mismatch(model: SequrityChatModel, program: GraphProgram, *, is_strict: bool) -> None:
    """Warn of rules that have no effect in this graph. The policy may also be for other graphs.

    What the model's constructor told is not told again.

    Raises:
        UsageError: If it is strict.
    """
    connection, of_graph = model.prepared.settings.connection, WAYS["executor"]
    of_model = capabilities_of(connection)
    findings_of_model = problems(connection.policy, of_model, labels=model.labels)
    tools = [_definition(tool) for tool in program.offered.values() if tool.role != "result"]
    findings = problems(connection.policy, of_graph, tools, labels=model.labels)
    text = describe(
        news(findings, of_graph, findings_of_model, of_model),
        of_graph,
        "The policy has rules for tools or arguments that this graph does not have, so they have "
        "no effect here",
        "Correct them, unless they are for another graph. `explain()` shows the tools of this one.",
    )
    warn_of_policy(text, is_strict=is_strict)


def _definition(tool: ToolSpec) -> dict[str, Any]:
    """A tool as `check` takes it: its arguments have the types of the fields' annotations."""
    definition = tool.schema()
    parameters = definition["function"]["parameters"]
    parameters["properties"] = {
        name: _annotated(schema) for name, schema in parameters["properties"].items()
    }
    if tool.role == "node":  # its result has the fields that it writes
        definition["function"]["output_schema"] = {"type": "object"}
    return definition


def _annotated(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema without the alternatives in which values are encoded that JSON does not have."""
    options = [
        option for option in schema.get("anyOf", ())
        if option.get("type") not in {"object", "null"} and "const" not in option
    ]  # fmt: skip
    return {**schema, "anyOf": options} if options else schema


def why_not_split(connection: Connection, on_denied: str) -> WhyNotSplit:
    """Why calls of a tool do not run side by side with others of their step.

    Args:
        connection: Policy, features and config of the runs.
        on_denied: The option.

    Returns:
        A function from a tool, and the tool that gives results, to the reason; empty if they do.
    """
    config, policy = connection.config, connection.policy
    if on_denied == "interrupt":
        return lambda *_: 'a human may be asked about each call (`on_denied="interrupt"`)'
    if connection.is_screened:
        return lambda *_: "classifiers and blockers check its result"
    if config and config.fsm and config.fsm.force_to_cache:
        return lambda *_: "the service may keep results (`force_to_cache`)"
    if policy is None:
        return lambda *_: ""
    try:
        engine = policy.compile()
    except (PolicySyntaxError, UsageError):
        return lambda *_: "the policy cannot be read here, and may check its result"

    def why_not(tool: str, result_of: str) -> str:
        if not engine.presets.default_allow:
            return "the policy denies calls without a rule, and no rule is for handles"
        if engine.concerns(result_of):
            return f"a rule of the policy is for `{result_of}` too"
        if engine.needs_result(tool):
            return "a rule of the policy checks its result"
        return ""

    return why_not


class LangGraphExecutor(PassesDenials[Any, Any], CompiledStateGraph[Any, Any, Any, Any]):
    """Runs a StateGraph under a policy, exactly as LangGraph would run it.

    The graph becomes a program that the service interprets. Each node is a tool call that a policy
    may deny before the node runs (`docs/langgraph.md`).

    Args:
        graph: A `StateGraph`, compiled or not; it is not changed. The checkpointer, store, cache,
            name and static interrupts of a compiled graph are kept.
        model: A `ChatSequrity` or `SequrityMessages`, whose connection, policy and keys are used.
            Or the name of a model, followed by arguments of `ChatSequrity`.
        nodes: Options of single nodes, by name.
        history: "whole": each request has the whole conversation. "new": only the new results and
            the session's id. "auto": "new" if the service says in its first reply that it keeps
            the conversation, as the local server does, and "whole" otherwise.
        on_denied: The reaction to a denial. "raise": `PolicyDenied`. "interrupt": a soft denial is
            offered to a human, as in LangChain's human-in-the-loop middleware; others raise. This
            needs a checkpointer; without one the first run raises `UsageError`. "state:<field>":
            the run ends with the state so far, and the field has the fields of `Denial`, its
            `text`, and the service's `code`.
        checkpointer: As in `StateGraph.compile`.
        store: As in `StateGraph.compile`.
        cache: As in `StateGraph.compile`.
        name: Name of the graph in traces.
        strict_policy: Whether rules that have no effect in this graph are an error; `None`: as for
            the model.
        keep_labels_of_edits: Whether a field that `update_state` or `Command(update=…)` replaces
            keeps the labels of its old value. By default the new value has no labels.
        **connection: Arguments of `ChatSequrity`, if `model` is a name.

    Raises:
        GraphNotSupported: If a part of the graph cannot be run. The error names node or edge,
            reason and way out.
        UsageError: For an invalid option, or for a `PolicyMismatch` with `strict_policy`.

    Warns:
        PolicyMismatch: If the policy has rules that have no effect in this graph.
        UnknownAccess: If the reads or writes of a node are unknown.

    Example:
        ```python
        from typing import TypedDict
        from langgraph.graph import StateGraph
        from langchain_sequrity import ChatSequrity, LangGraphExecutor
        from langchain_sequrity.local import LocalServer


        class State(TypedDict):
            text: str


        def shout(state: State):
            return {"text": state["text"].upper()}


        graph = StateGraph(State).add_sequence([shout]).set_entry_point("shout")
        with LocalServer() as server:
            model = ChatSequrity("any/model", base_url=server.base_url)
            secure = LangGraphExecutor(graph, model)
            assert secure.invoke({"text": "hi"}) == {"text": "HI"}
        ```
    """

    def __init__(
        self,
        graph: StateGraph[Any, Any, Any, Any] | CompiledStateGraph[Any, Any, Any, Any],
        model: SequrityChatModel | str,
        *,
        nodes: Mapping[str, NodeOptions] | None = None,
        history: History = "auto",
        on_denied: str = "raise",
        checkpointer: Checkpointer = None,
        store: BaseStore | None = None,
        cache: BaseCache[Any] | None = None,
        name: str | None = None,
        strict_policy: bool | None = None,
        keep_labels_of_edits: bool = False,
        **connection: Unpack[NamedModelArguments],
    ) -> None:
        spec = read_graph(graph)
        self._model = _make_model(model, connection, is_strict=bool(strict_policy))
        strict = self._model.strict_policy if strict_policy is None else strict_policy
        self._spec, self._options = spec, dict(nodes or {})
        prepared = self._model.prepared
        check_on_denied(on_denied, "`LangGraphExecutor`")
        check_field(on_denied, spec)
        why_not = why_not_split(prepared.settings.connection, on_denied)
        policy = prepared.settings.connection.policy
        may_branch = policy is None or not settings_of(policy).branches
        self._program = compile_graph(spec, self._options, why_not, may_branch=may_branch)
        settings = graph_settings(prepared.settings, len(self._program.tools))
        warn_of_mismatch(self._model, self._program, is_strict=strict)
        check_history(history)
        exchange = RunExchange(settings, prepared.params, self._program, history)
        readers = text_readers(settings.connection, self._options)
        tools = ClientTools(spec, self._program, readers)
        config = settings.connection.config
        self._fsm = config.fsm.to_wire() if config and config.fsm else {}
        self._parts = ExecutorParts(
            spec=spec,
            program=self._program,
            tools=tools,
            exchange=exchange,
            transport=self._model.sender,
            denials=DenialHandler(exchange.connection, self._program, on_denied),
            name=name or spec.name,
            keeps_labels=keep_labels_of_edits,
            on_session_lost=self._model.on_session_lost,
        )
        compiled = _compiled(graph, spec, GraphTasks(spec, self._program, tools))
        options = {"checkpointer": checkpointer, "store": store, "cache": cache, "name": name}
        compiled.__dict__.update({k: v for k, v in options.items() if v is not None})
        self.__dict__.update(vars(compiled))

    @property
    def program(self) -> str:
        """The program that the service runs."""
        return self._program.text

    def explain(self) -> GraphExplanation:
        """The tools of the graph, the fields that they read and write, and how these are known.

        It also has the fields of `X-Config` that runs send. Print it, show it in a notebook, or use
        `to_dict()`.
        """
        return explain(self._spec, self._program, self._options, self._fsm)

    # Running

    @override
    def stream(
        self, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> Iterator[Any]:
        _refuse_call_arguments(options)
        chunks: Iterator[Any] = loop.stream(
            self, _check_input(input), self._driven(config), **options
        )
        return chunks

    @override
    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        _refuse_call_arguments(options)
        chunks = loop.astream(
            self, _check_input(input), self._driven(config, is_async=True), **options
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def _driven(self, config: RunnableConfig | None, *, is_async: bool = False) -> RunnableConfig:
        refuse_settings(config, self._model)
        _compat.check_config(self, config)
        run_config: RunnableConfig = config or {}
        # Not `merge_configs` of LangChain, which drops a `recursion_limit` equal to its default.
        is_timed = self.step_timeout is not None
        driver = Driver(self._parts, is_timed=is_timed, is_async=is_async)
        configurable = {**(run_config.get("configurable") or {}), DRIVER: driver}
        return {**run_config, "configurable": configurable}

    @override
    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        **options: Any,
    ) -> list[Any]:
        with self._counted_runs(inputs) as runs:
            return Runnable.batch(runs, inputs, config, **options)

    @override
    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        **options: Any,
    ) -> list[Any]:
        with self._counted_runs(inputs) as runs:
            return await Runnable.abatch(runs, inputs, config, **options)

    @override
    def batch_as_completed(
        self,
        inputs: Sequence[Any],
        config: Any = None,
        **options: Any,
    ) -> Iterator[tuple[int, Any]]:
        with self._counted_runs(inputs) as runs:
            for numbered in Runnable.batch_as_completed(runs, inputs, config, **options):
                hide()  # the caller's loop may print
                yield numbered

    @override
    async def abatch_as_completed(
        self,
        inputs: Sequence[Any],
        config: Any = None,
        **options: Any,
    ) -> AsyncIterator[tuple[int, Any]]:
        with self._counted_runs(inputs) as runs:
            completed = Runnable.abatch_as_completed(runs, inputs, config, **options)
            async for numbered in completed:
                hide()  # as above
                yield numbered

    @contextmanager
    def _counted_runs(self, inputs: Sequence[Any]) -> Iterator[Runnable[Any, Any]]:
        """What runs the graph for a batch; it counts the runs if somebody watches."""
        name, total = self.get_name(), number_of(inputs)
        with progress(name, total=total, unit="runs", waits=True) as batch:
            field = self._parts.denials.field
            yield _CountedRuns(self, batch, field) if batch.is_watched else self

    @override
    def bind(self, **kwargs: Any) -> Any:
        """Bind options of each run, such as `stream_mode`.

        Raises:
            UsageError: For a parameter of the model, and for an argument of a model's call.
        """
        _refuse_call_arguments(kwargs)
        return super().bind(**kwargs)

    @override
    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Bind a config.

        Raises:
            UsageError: For a parameter of the model, such as `policy`.
        """
        refuse_settings({**(config or {}), **kwargs}, self._model)
        return super().with_config(config, **kwargs)

    # States

    def _reader(self) -> Any:
        """LangGraph's methods that read states, without the executor's channels.

        A history would rebuild the journal for each of its states, from all of those before.
        """
        channels = {n: channel for n, channel in self.channels.items() if not is_executor_name(n)}
        reader = self.copy({"channels": channels})
        _compat.add_channel(reader, JOURNAL, UntrackedValue(list, guard=False))  # tasks write it
        return super(LangGraphExecutor, reader)

    @override
    def get_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        return _without_own_metadata(self._reader().get_state(config, subgraphs=subgraphs))

    @override
    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        snapshot = await self._reader().aget_state(config, subgraphs=subgraphs)
        return _without_own_metadata(snapshot)

    @override
    def get_state_history(self, config: RunnableConfig, **options: Any) -> Iterator[StateSnapshot]:
        history = self._reader().get_state_history(config, **options)
        yield from map(_without_own_metadata, history)

    @override
    async def aget_state_history(
        self, config: RunnableConfig, **options: Any
    ) -> AsyncIterator[StateSnapshot]:
        async with aclosing(self._reader().aget_state_history(config, **options)) as history:
            async for snapshot in history:
                yield _without_own_metadata(snapshot)

    # Copies share all attributes, because the object holds no data of runs

    @override
    def copy(self, update: dict[str, Any] | None = None) -> Self:
        refuse_setting_names(update or ())
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

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: no compiled graph can be, and the object has keys."""
        msg = "An executor cannot be pickled. Pickle its model, and make another executor of it."
        raise UsageError(msg)


LangGraphExecutor.__signature__ = executor_signature(  # type: ignore[attr-defined]
    LangGraphExecutor.__init__, NamedModelArguments, ChatSequrity
)


class _CountedRuns(Runnable[Any, Any]):
    """The runs of a batch, with their progress."""

    def __init__(self, executor: LangGraphExecutor, batch: WorkProgress, field: str) -> None:
        self._executor, self._batch, self._field = executor, batch, field
        self._outcomes = Counter[str]()
        self._counting = Lock()

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with self._failures():
            return self._counted(self._executor.invoke(input, config, **kwargs))

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with self._failures():
            return self._counted(await self._executor.ainvoke(input, config, **kwargs))

    def _counted(self, result: Any) -> Any:
        is_denied = isinstance(result, dict) and self._field and result.get(self._field)
        self._count("denied" if is_denied else "finished")
        return result

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except PolicyDenied:
            self._count("denied")
            raise
        except Exception:
            self._count("failed")
            raise

    def _count(self, outcome: str) -> None:
        with self._counting:
            self._outcomes[outcome] += 1
            parts = [f"{self._outcomes[o]} {o}" for o in ("denied", "failed") if self._outcomes[o]]
            self._batch.update(self._outcomes.total(), note=", ".join(parts))


# Arguments of a model's call, which a run of a graph does not have.
_CALL_ARGUMENTS = ("extra_headers", "extra_body", "session_id")


def _refuse_call_arguments(options: Mapping[str, Any]) -> None:
    """Refuse options of a run that are for a model, which LangGraph would ignore.

    Raises:
        UsageError: For such an option.
    """
    refuse_setting_names(options)
    for name in _CALL_ARGUMENTS:
        if name in options:
            msg = (
                f"`{name}` is an argument of a model's call, and has no effect on the run of a "
                "graph. Give headers of all requests to the model (`default_headers`), and fields "
                "of the body too (`extra_body`)."
            )
            raise UsageError(msg)


def _check_input(graph_input: Any) -> Any:
    """Check that an input or an update from outside does not write channels of the executor.

    Inputs may come from clients, for example of LangGraph's server, which must not write labels,
    sessions and results. From a dict, LangGraph takes only the fields of the graph; a `Command`
    could write any channel.

    Raises:
        UsageError: If it writes one.
    """
    if isinstance(graph_input, Command):
        keys = [key for key, _ in _compat.command_writes(graph_input) if is_executor_name(str(key))]
        if keys:
            msg = f"`{keys[0]}` is not a state field. Update only state fields."
            raise UsageError(msg)
    return graph_input


def _without_own_metadata(snapshot: StateSnapshot) -> StateSnapshot:
    return snapshot._replace(metadata=loop.without_own_metadata(snapshot.metadata))


def _compiled(
    graph: StateGraph[Any, Any, Any, Any] | CompiledStateGraph[Any, Any, Any, Any],
    spec: GraphSpec,
    calls: GraphTasks,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The user's graph, compiled by LangGraph, whose nodes and routers answer calls."""
    builder = _compat.copy_builder(spec.builder)
    for name, node in spec.nodes.items():
        builder.nodes[name].cache_policy = calls.cache_policy(node)
    for branch in spec.branches:
        old = builder.branches[branch.source][branch.name]
        builder.branches[branch.source][branch.name] = old._replace(path=calls.router(branch))
    compiled = builder.compile(name=spec.name)
    if isinstance(graph, CompiledStateGraph):  # with its options of `compile`
        excluded = {"nodes", "channels", "builder", "node_error_handler_map", "trigger_to_nodes"}
        compiled.__dict__.update({k: v for k, v in vars(graph).items() if k not in excluded})
    _compat.add_channel(compiled, RUN, BinaryOperatorAggregate(dict[str, Any], lambda _, new: new))
    _compat.add_channel(compiled, STEP, BinaryOperatorAggregate(int, lambda _, new: new))
    _compat.add_channel(
        compiled, JOURNAL, JournalChannel(add_entries, list, snapshot_frequency=UPDATES_PER_JOURNAL)
    )
    calls.attach(compiled)
    return compiled


def _make_model(
    model: SequrityChatModel | str, connection: NamedModelArguments, *, is_strict: bool
) -> SequrityChatModel:
    """The model, made if it is a name, and checked."""
    if isinstance(model, str):
        if connection.get("features") is None:  # a graph always runs as dual-LLM
            connection = {**connection, "features": FeaturesHeader.dual_llm()}
        model = ChatSequrity(model, strict_policy=is_strict, **connection)
    elif not isinstance(model, SequrityChatModel):
        msg = (
            "`model` must be a `ChatSequrity`, a `SequrityMessages` or the name of a model; got "
            f"{type(model).__name__}."
        )
        raise UsageError(msg)
    elif connection:
        msg = (
            f"`{next(iter(connection))}` is not an argument of `LangGraphExecutor`. Pass "
            "arguments of the model to the model; they are allowed here only if `model` is a name."
        )
        raise UsageError(msg)
    if model.prepared.settings.connection.suffix == "responses":
        msg = (
            "A graph runs through chat/completions or messages: `/responses` has no endpoint for "
            "programs. Give a `ChatSequrity` without `use_responses_api`."
        )
        raise UsageError(msg)
    return model


_MANY = 1_000_000

# Settings that a program with one tool per node needs.
_FSM: dict[str, Any] = {
    "min_num_tools_for_filtering": _MANY,
    "disable_rllm": True,
    "wrap_tool_result": False,
    "strict_tool_result_parsing": False,
    "detect_tool_errors": "none",
    "tool_result_transform": "none",
}

_DEFAULTS: dict[str, Any] = {"max_tool_calls_per_step": _MANY, "force_to_cache": []}

_FILTER = "min_num_tools_for_filtering"


def graph_settings(settings: TurnSettings, tools: int) -> TurnSettings:
    """A chat model's settings, changed for the endpoint `lang-graph`.

    Messages without a provider gets the provider `anthropic`, the only one for which the service
    documents graphs in that format (`docs/protocol.md`, Endpoints).

    Args:
        settings: Those of the model; they are not changed.
        tools: Number of tools of the graph's program.

    Returns:
        A copy with dual-LLM features and the fields of X-Config that a run needs.

    Raises:
        UsageError: If the caller set one of them to another value.
    """
    connection = settings.connection
    features = connection.features
    if features is None:
        features = FeaturesHeader.dual_llm()
    elif features.agent_arch != "dual-llm":
        msg = (
            "A graph runs as a dual-LLM session; the model's `features` ask for "
            f"`{features.agent_arch}`. Give `features={{'agent_arch': 'dual-llm'}}`, or leave them "
            "out."
        )
        raise UsageError(msg)
    is_anthropic = connection.suffix == "messages" and connection.provider is None
    connection = replace(
        connection,
        endpoint_type="lang-graph",
        provider="anthropic" if is_anthropic else connection.provider,
        features=features,
        config=_graph_config(connection.config or ConfigHeader(), tools),
    ).with_whole_envelopes()
    return replace(settings, connection=connection)


def _graph_config(config: ConfigHeader, tools: int) -> ConfigHeader:
    fsm = config.fsm or FsmConfig()
    for name, needed in _FSM.items():
        setting = getattr(fsm, name)
        if setting in (None, needed) or name == "disable_rllm":
            continue
        # Above the number of tools it has no effect: one configuration can serve chats too.
        if name == _FILTER and setting > tools + len(INTERNAL_TOOLS):
            continue
        msg = (
            f"`session_config.fsm.{name}` is {setting!r}, but a graph's results must reach its "
            f"program as they are, and if a model drops one of its {tools} tools, a node could not "
            f"be called. Leave it out; the executor sets it to {needed!r}."
        )
        raise UsageError(msg)
    unset = {name: value for name, value in _DEFAULTS.items() if getattr(fsm, name) is None}
    fsm = fsm.model_copy(update={**_FSM, **unset})
    response_format = config.response_format or ResponseFormatConfig()
    if response_format.include_policy_check_history is None:
        response_format = response_format.model_copy(update={"include_policy_check_history": True})
    return config.model_copy(update={"fsm": fsm, "response_format": response_format})


def check_history(history: object) -> None:
    """Check the option.

    Raises:
        UsageError: If there is no such value.
    """
    if history not in get_args(History):
        advice = suggest(history, get_args(History)) if isinstance(history, str) else ""
        msg = f'`history` must be "auto", "whole" or "new"; got {history!r}. {advice}'
        raise UsageError(msg.rstrip())
