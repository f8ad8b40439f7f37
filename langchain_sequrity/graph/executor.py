"""`LangGraphExecutor`: a StateGraph that runs under policy.

Where several nodes are due in one step, the program calls them all first. Each call is checked
with its own arguments and answered with a handle; then the nodes run, and `result_of` gives the
result of each. So a result is known to the service later than its call, and under another tool's
name. A policy that would see a difference keeps its nodes apart: they run one after the other.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Literal, Self, Unpack

from langchain_core.runnables import RunnableConfig
from langgraph.cache.base import BaseCache
from langgraph.channels import BinaryOperatorAggregate, DeltaChannel
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.base import BaseStore
from langgraph.types import Checkpointer, Command, StateSnapshot
from typing_extensions import override

from langchain_sequrity.chat_models import ChatSequrity
from langchain_sequrity.chat_models.arguments import NamedModelArguments, executor_signature
from langchain_sequrity.chat_models.base import SequrityChatModel
from langchain_sequrity.chat_models.fallbacks import Guarded
from langchain_sequrity.connection import Connection
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.graph import _compat
from langchain_sequrity.graph.analysis.spec import GraphSpec, read_graph
from langchain_sequrity.graph.approval import Approvals, Denials, check_field
from langchain_sequrity.graph.codegen.compiler import WhyNotSplit, compile_graph
from langchain_sequrity.graph.dispatch.tools import ClientTools
from langchain_sequrity.graph.explain import Explanation, explain
from langchain_sequrity.graph.journal import add_entries
from langchain_sequrity.graph.options import NodeOptions
from langchain_sequrity.graph.program import JOURNAL, RUN, STEP, Program, is_own
from langchain_sequrity.graph.runtime import loop
from langchain_sequrity.graph.runtime.driver import DRIVER, Driver
from langchain_sequrity.graph.runtime.requests import (
    Exchange,
    History,
    pinned,
    read_history,
    settings_of_runs,
)
from langchain_sequrity.graph.runtime.states import Parts
from langchain_sequrity.graph.runtime.tasks import Calls
from langchain_sequrity.headers import FeaturesHeader, PolicyHeader
from langchain_sequrity.headers.policy_fit import unfit_for_tools, warn_of_policy
from langchain_sequrity.on_denied import check_on_denied


def tell_of_mismatch(policy: PolicyHeader | None, program: Program, *, is_strict: bool) -> None:
    """Warn of rules that protect nothing in this graph; the policy may be for others as well.

    Raises:
        UsageError: If it is strict.
    """
    listed = unfit_for_tools(
        policy, [one.schema() for one in program.offered.values() if one.role != "result"]
    )
    if listed:
        text = (
            f"The policy has rules for what this graph does not have, so here they do not do what "
            f"they say:\n{listed}\nCorrect them, unless they are for another graph. `explain()` "
            "shows the tools of this one."
        )
        warn_of_policy(text, is_strict=is_strict)


def why_not_split(connection: Connection, on_denied: str) -> WhyNotSplit:
    """Why calls of a tool are not made before those of their step run.

    Args:
        connection: Policy, features and config of the runs.
        on_denied: What follows a denial.

    Returns:
        What says it of a tool, given the name of the tool that gives results; empty if they are.
    """
    features, config, policy = connection.features, connection.config, connection.policy
    if on_denied == "interrupt":
        return lambda *_: 'a human may be asked about each call (`on_denied="interrupt"`)'
    if features and (features.content_classifiers or features.content_blockers):
        return lambda *_: "classifiers and blockers look at its result"
    if config and config.fsm and config.fsm.force_to_cache:
        return lambda *_: "the service may keep results (`force_to_cache`)"
    if policy is None:
        return lambda *_: ""
    try:
        engine = policy.compile()
    except (PolicySyntaxError, UsageError):
        return lambda *_: "the policy cannot be read here, and may look at its result"

    def why_not(tool: str, result_of: str) -> str:
        if not engine.presets.default_allow:
            return "the policy denies what no rule allows, and no rule is for handles"
        if engine.concerns(result_of):
            return f"a rule of the policy is for `{result_of}` too"
        if engine.needs_result(tool):
            return "a rule of the policy has to see its result"
        return ""

    return why_not


class Surface(Guarded[Any, Any], CompiledStateGraph[Any, Any, Any, Any]):
    """A compiled graph whose runs a `Driver` tells to the service."""

    _parts: Parts

    # Running

    @override
    def stream(
        self, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> Iterator[Any]:
        found: Iterator[Any] = loop.stream(self, _checked(input), self._driven(config), **options)
        return found

    @override
    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        chunks = loop.astream(self, _checked(input), self._driven(config), **options)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def _driven(self, config: RunnableConfig | None) -> RunnableConfig:
        _compat.check_config(self, config)
        given: RunnableConfig = config or {}
        # `merge_configs` of LangChain leaves out a limit that is its own default.
        driver = Driver(self._parts, is_timed=self.step_timeout is not None)
        configurable = {**(given.get("configurable") or {}), DRIVER: driver}
        return {**given, "configurable": configurable}

    # States

    @override
    def get_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        return _shown(super().get_state(config, subgraphs=subgraphs))

    @override
    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        return _shown(await super().aget_state(config, subgraphs=subgraphs))

    @override
    def get_state_history(self, config: RunnableConfig, **options: Any) -> Iterator[StateSnapshot]:
        yield from map(_shown, super().get_state_history(config, **options))

    @override
    async def aget_state_history(
        self, config: RunnableConfig, **options: Any
    ) -> AsyncIterator[StateSnapshot]:
        async with aclosing(super().aget_state_history(config, **options)) as history:  # type: ignore[type-var] # a generator
            async for found in history:
                yield _shown(found)

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


def _checked(given: Any) -> Any:
    """An input, or an update from outside, that writes nothing of the executor's own.

    Inputs come from clients, of LangGraph's server for example: they may not write labels, sessions
    and results. Of a dict, LangGraph takes the fields of the graph; a `Command` could write any
    channel.

    Raises:
        UsageError: If it does.
    """
    if isinstance(given, Command):
        own = [key for key, _ in _compat.command_writes(given) if is_own(str(key))]
        if own:
            msg = f"`{own[0]}` is no field of the graph. Update fields of its state only."
            raise UsageError(msg)
    return given


def _shown(snapshot: StateSnapshot) -> StateSnapshot:
    return snapshot._replace(metadata=loop.shown_metadata(snapshot.metadata))


class LangGraphExecutor(Surface):
    """Runs a StateGraph under policy, exactly as LangGraph would run it.

    The graph becomes a program that the service interprets; each node is a tool call that a policy
    may deny before the node runs (`docs/langgraph.md`).

    Args:
        graph: A `StateGraph`, or a compiled one; it is not changed. A compiled graph's
            checkpointer, store, cache, name and static interrupts are taken over.
        model: Whose connection, policy and keys are used: a `ChatSequrity` or `SequrityMessages`.
            Or the name of a model, with the arguments of `ChatSequrity` behind it.
        nodes: Options of single nodes, by name.
        history: Whether each request brings the whole conversation ("whole") or only the new
            results and the session's id ("new"). "auto" is "new" where the service is the local
            server, which is known to keep sessions, and "whole" elsewhere.
        on_denied: What follows a denial. "raise": `PolicyDenied`. "interrupt": a soft denial is
            offered to a human, as LangChain's human-in-the-loop middleware does it; all others
            raise. Without a checkpointer the first run is a `UsageError`. "state:<field>": the run
            ends with the state so far and the fields of the denial in the field: those of
            `Denial`, its `text`, and the service's `code`.
        checkpointer: As in `StateGraph.compile`.
        store: As in `StateGraph.compile`.
        cache: As in `StateGraph.compile`.
        name: Name of the graph in traces.
        strict_policy: Whether a policy with rules for what the graph does not have is an error;
            `None` leaves it to the model.
        keep_labels_of_edits: Whether a field that `update_state` or `Command(update=…)` replaces
            keeps the labels of its old value. Without it, what a person puts there has none.
        **connection: Arguments of `ChatSequrity`, where `model` is a name.

    Raises:
        GraphNotSupported: If the graph has something that cannot be run; it names node or edge,
            reason and way out.
        UsageError: If an option has no meaning, or for a `PolicyMismatch` with `strict_policy`.

    Warns:
        PolicyMismatch: If the policy has rules for tools or arguments that the graph does not have.
        UnknownAccess: If it is not known what a node reads or writes.

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
        history: History | Literal["auto"] = "auto",
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
        self._model = _model_of(model, connection)
        strict = self._model.strict_policy if strict_policy is None else strict_policy
        self._given, self._spec = graph, spec
        self._options = dict(nodes or {})
        self._rest = {
            "history": history,
            "on_denied": on_denied,
            "strict_policy": strict_policy,
            "keep_labels_of_edits": keep_labels_of_edits,
        }
        prepared = self._model.prepared
        check_on_denied(on_denied, "`LangGraphExecutor`")
        check_field(on_denied, spec)
        why_not = why_not_split(prepared.settings.connection, on_denied)
        self._program = compile_graph(spec, self._options, why_not)
        settings = pinned(prepared.settings, len(self._program.tools))
        tell_of_mismatch(settings.connection.policy, self._program, is_strict=strict)
        told = read_history(history, settings.connection.base_url)
        exchange = Exchange(settings, prepared.params, self._program, told)
        tools = ClientTools(spec, self._program)
        self._fsm = settings_of_runs(settings.connection)
        approvals = Approvals(exchange.connection, self._program)
        denials = Denials(self._program, approvals, on_denied)
        self._parts = Parts(
            spec=spec,
            program=self._program,
            tools=tools,
            exchange=exchange,
            transport=self._model.sender,
            approvals=approvals,
            denials=denials,
            name=name or spec.name,
            keeps_labels=keep_labels_of_edits,
        )
        compiled = _compiled(graph, spec, Calls(spec, self._program, tools, denials))
        chosen = {"checkpointer": checkpointer, "store": store, "cache": cache, "name": name}
        compiled.__dict__.update({key: one for key, one in chosen.items() if one is not None})
        self.__dict__.update(vars(compiled))

    @property
    def program(self) -> str:
        """The program that the service runs."""
        return self._program.text

    def explain(self) -> Explanation:
        """What became of the graph: tools, what they read and write, and how that is known.

        It also has the fields of `X-Config` that runs are sent with. Print it, show it in a
        notebook, or take `to_dict()`.
        """
        return explain(self._spec, self._program, self._options, self._fsm)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it was made of; the pickle of the model holds no keys."""
        kept = {name: getattr(self, name) for name in _KEPT}
        options = {"nodes": self._options, **self._rest}
        return _restored, (type(self), self._spec.builder, self._model, options, kept)


LangGraphExecutor.__signature__ = executor_signature(  # type: ignore[attr-defined]
    LangGraphExecutor.__init__, NamedModelArguments, ChatSequrity
)


def _compiled(
    given: StateGraph[Any, Any, Any, Any] | CompiledStateGraph[Any, Any, Any, Any],
    spec: GraphSpec,
    calls: Calls,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The user's graph, compiled by LangGraph, whose nodes and routers answer calls."""
    builder = _compat.separate(spec.builder)
    for name, node in spec.nodes.items():
        builder.nodes[name].cache_policy = calls.cache_policy(node)
    for branch in spec.branches:
        old = builder.branches[branch.source][branch.name]
        builder.branches[branch.source][branch.name] = old._replace(path=calls.router(branch))
    compiled = builder.compile(name=spec.name)
    if isinstance(given, CompiledStateGraph):  # with all that it was told when it was compiled
        own = {"nodes", "channels", "builder", "node_error_handler_map", "trigger_to_nodes"}
        compiled.__dict__.update({key: one for key, one in vars(given).items() if key not in own})
    _compat.add_channel(compiled, RUN, BinaryOperatorAggregate(dict[str, Any], lambda _, new: new))
    _compat.add_channel(compiled, STEP, BinaryOperatorAggregate(int, lambda _, new: new))
    _compat.add_channel(
        compiled, JOURNAL, DeltaChannel(add_entries, list, snapshot_frequency=_WHOLE_JOURNAL)
    )
    calls.attach(compiled)
    return compiled


_WHOLE_JOURNAL = 500
"""After how many updates a checkpoint holds the whole journal.

The others hold only what is new, so that what a run stores is linear in its steps; whoever reads
the journal walks back to a whole one. SQLite before 3.32 walks at most 999 steps.
"""

_KEPT = (
    "checkpointer",
    "store",
    "cache",
    "name",
    "config",
    "interrupt_before_nodes",
    "interrupt_after_nodes",
)


def _restored(
    kind: type[LangGraphExecutor],
    builder: StateGraph[Any, Any, Any, Any],
    model: SequrityChatModel,
    options: Mapping[str, Any],
    kept: dict[str, Any],
) -> LangGraphExecutor:
    return kind(builder, model, **options).copy(kept)


def _model_of(model: SequrityChatModel | str, connection: NamedModelArguments) -> SequrityChatModel:
    """The model, made if it is a name, and checked."""
    if isinstance(model, str):
        if connection.get("features") is None:  # of its policy as one for dual-LLM, which this is
            connection = {**connection, "features": FeaturesHeader.dual_llm()}
        model = ChatSequrity(model, **connection)
    elif not isinstance(model, SequrityChatModel):
        msg = (
            "`model` is a `ChatSequrity` or a `SequrityMessages`, whose connection is used, or the "
            f"name of a model; got {type(model).__name__}."
        )
        raise UsageError(msg)
    elif connection:
        msg = (
            f"`{next(iter(connection))}` is not an argument of `LangGraphExecutor`. What is meant "
            "for the model is given to the model; it may stand here only beside a model's name."
        )
        raise UsageError(msg)
    if model.prepared.settings.connection.suffix == "responses":
        msg = (
            "A graph runs through chat/completions or messages: `/responses` has no endpoint for "
            "programs. Give a `ChatSequrity` without `use_responses_api`."
        )
        raise UsageError(msg)
    return model
