"""Context, store, config, callbacks and traces reach the nodes; parallel runs never mix."""

import asyncio
import contextvars
import operator
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict
from uuid import UUID

import httpx
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.config import get_config, get_store
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore

from langchain_sequrity import ChatSequrity
from langchain_sequrity.local import LocalServer
from tests.graph.running import secured
from tests.graph.twins import Twins


class State(TypedDict, total=False):
    text: str
    log: Annotated[list[str], operator.add]


@dataclass
class Context:
    user: str


def told(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    return {"log": [runtime.context.user, state["text"]]}


def stored(_: State, store: BaseStore) -> dict[str, Any]:
    found = store.get(("notes",), "count")
    count = 1 + (found.value["count"] if found else 0)
    get_store().put(("notes",), "count", {"count": count})
    return {"log": [f"stored {count}"]}


def configured(_: State, config: RunnableConfig) -> dict[str, Any]:
    given = get_config()
    assert given["configurable"]["user"] == config["configurable"]["user"]
    tags = [tag for tag in config["tags"] if not tag.startswith(("graph:", "seq:"))]
    metadata = {key: config["metadata"].get(key) for key in ("mine", "langgraph_node", "on_node")}
    return {"log": [config["configurable"]["user"], str(tags), str(metadata)]}


def by_context(_: State, runtime: Runtime[Context]) -> str:
    return "configured" if runtime.context.user == "ann" else END


def everything() -> Any:
    graph: Any = StateGraph(State, context_schema=Context)
    graph.add_node("told", told).add_node("stored", stored)
    graph.add_node("configured", configured, metadata={"on_node": "yes"})
    graph.add_edge(START, "told").add_edge("told", "stored")
    return graph.add_conditional_edges("stored", by_context)


GIVEN: Any = {"configurable": {"user": "ann"}, "tags": ["tagged"], "metadata": {"mine": 1}}


@pytest.mark.parametrize("in_loop", [False, True])
async def test_nodes_see_the_callers_context_store_and_config(
    in_loop: bool, model: ChatSequrity
) -> None:
    found = []
    for graph in Twins(everything, model).of(store=InMemoryStore):
        options = {"config": GIVEN, "context": Context("ann")}
        for _ in range(2):
            given = {"text": "a"}
            call = graph.ainvoke(given, **options) if in_loop else None
            found.append(await call if call else graph.invoke(given, **options))
    assert found[2:] == found[:2]
    assert "stored 2" in found[-1]["log"]


def test_a_bound_config_reaches_the_nodes(model: ChatSequrity) -> None:
    plain, secure = (
        graph.with_config(GIVEN).invoke({"text": "a"}, context={"user": "ann"})
        for graph in Twins(everything, model).of(store=InMemoryStore)
    )
    assert secure == plain


# Callbacks and traces


class Traced(BaseCallbackHandler):
    """Records each run with the names of the runs above it."""

    def __init__(self) -> None:
        self.names: dict[UUID, tuple[str, ...]] = {}
        self.inputs: dict[tuple[str, ...], Any] = {}
        self.outputs: dict[tuple[str, ...], Any] = {}

    def _noted(self, name: str, run_id: UUID, parent_run_id: UUID | None) -> tuple[str, ...]:
        above = self.names.get(parent_run_id, ()) if parent_run_id else ()
        return self.names.setdefault(run_id, (*above, name))

    def on_chain_start(self, serialized: Any, inputs: Any, **more: Any) -> None:  # noqa: ARG002
        path = self._noted(more["name"], more["run_id"], more["parent_run_id"])
        self.inputs[path] = inputs

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        self.outputs[self.names[run_id]] = outputs

    def on_chat_model_start(self, *_: Any, **more: Any) -> None:
        self._noted("model", more["run_id"], more["parent_run_id"])


def traced() -> Any:
    def ask(_: State) -> dict[str, Any]:
        model = GenericFakeChatModel(messages=iter([AIMessage("yes")]))
        return {"text": str(model.invoke("?").content)}

    def again(state: State) -> dict[str, Any]:
        return {"log": [state["text"]]}

    graph: Any = StateGraph(State)
    graph.add_node("ask", ask).add_node("chain", RunnableLambda(again) | RunnableLambda(dict))
    return graph.add_edge(START, "ask").add_edge("ask", "chain")


@pytest.mark.parametrize("in_loop", [False, True])
async def test_a_trace_has_one_run_for_each_node(in_loop: bool, model: ChatSequrity) -> None:
    found = []
    for graph in Twins(traced, model).of(name="mine"):
        handler = Traced()
        config = {"callbacks": [handler]}
        ended = await graph.ainvoke({}, config) if in_loop else graph.invoke({}, config)
        names = sorted(handler.names.values())
        found.append((names, handler.outputs["mine", "ask"], handler.outputs["mine",], ended))
    assert found[1] == found[0]
    assert ("mine", "ask", "model") in found[1][0]


def test_a_trace_shows_a_nodes_input(model: ChatSequrity) -> None:
    handler = Traced()
    secured(traced(), model).invoke({}, {"callbacks": [handler]})
    assert handler.inputs["LangGraph", "chain"] == {"text": "yes", "log": []}


def test_a_routers_run_is_named_after_the_router(model: ChatSequrity) -> None:
    handler = Traced()
    graph = secured(everything(), model, store=InMemoryStore())
    config: Any = {**GIVEN, "callbacks": [handler]}
    graph.invoke({"text": "a"}, config, context=Context("ann"))
    names = {name for path in handler.names.values() for name in path}
    assert names == {"LangGraph", "told", "stored", "by_context", "configured"}


# Sync and async nodes


def _one(node: Any) -> Any:
    graph: Any = StateGraph(State)
    return graph.add_node("node", node).add_edge(START, "node")


async def later(_: State) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"log": ["later"]}


def now(_: State) -> dict[str, Any]:
    return {"log": ["now", threading.current_thread().name.split("_")[0]]}


@pytest.mark.parametrize("node", [later, now])
async def test_sync_and_async_nodes_run_in_an_event_loop(node: Any, model: ChatSequrity) -> None:
    plain, secure = [await graph.ainvoke({}) for graph in Twins(lambda: _one(node), model).of()]
    assert secure == plain


def test_an_async_node_without_an_event_loop_is_an_error(model: ChatSequrity) -> None:
    said = []
    for graph in Twins(lambda: _one(later), model).of():
        with pytest.raises(TypeError) as error:
            graph.invoke({})
        said.append(str(error.value))
    assert said[1] == said[0]


def test_an_async_router_without_an_event_loop_is_an_error(model: ChatSequrity) -> None:
    async def route(_: State) -> str:
        await asyncio.sleep(0)
        return END

    def make() -> Any:
        return _one(now).add_conditional_edges("node", route)

    plain, secure = Twins(make, model).of()
    assert asyncio.run(secure.ainvoke({})) == asyncio.run(plain.ainvoke({}))
    for graph in (plain, secure):
        with pytest.raises(TypeError):
            graph.invoke({})


def test_context_variables_reach_the_nodes(model: ChatSequrity) -> None:
    user = contextvars.ContextVar("user", default="nobody")

    def node(_: State) -> dict[str, Any]:
        return {"text": user.get()}

    token = user.set("ann")
    try:
        assert secured(_one(node), model).invoke({}) == {"text": "ann", "log": []}
    finally:
        user.reset(token)


# Many runs at once


def _chain() -> Any:
    def step(name: str) -> Callable[[State], dict[str, Any]]:
        def node(state: State) -> dict[str, Any]:
            return {"text": f"{state['text']}.{name}", "log": [name]}

        return node

    graph: Any = StateGraph(State)
    return graph.add_sequence([(name, step(name)) for name in "abc"]).set_entry_point("a")


def _expected(name: str) -> Any:
    return {"text": f"{name}.a.b.c", "log": ["a", "b", "c"]}


def test_runs_of_several_threads_do_not_mix(model: ChatSequrity) -> None:
    graph = secured(_chain(), model)
    names = [f"n{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: graph.invoke({"text": name}), names))
    assert found == [_expected(name) for name in names]


def test_runs_of_several_event_loops_do_not_mix(model: ChatSequrity) -> None:
    graph = secured(_chain(), model)

    async def several(names: list[str]) -> list[Any]:
        return list(await asyncio.gather(*(graph.ainvoke({"text": name}) for name in names)))

    groups = [[f"{group}-{number}" for number in range(6)] for group in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda names: asyncio.run(several(names)), groups))
    assert found == [[_expected(name) for name in names] for names in groups]


def test_a_run_does_not_change_the_executor(model: ChatSequrity) -> None:
    graph = secured(_chain(), model)
    before = dict(vars(graph))
    graph.invoke({"text": "x"})
    assert vars(graph) == before


# Cancellation


@pytest.fixture
def own_server() -> Iterator[LocalServer]:
    """A server for one test, so that no other test uses its connections."""
    with LocalServer() as server:
        yield server


async def test_a_cancelled_run_stops_in_its_node(own_server: LocalServer) -> None:
    started, ended = asyncio.Event(), asyncio.Event()
    ran: list[str] = []

    async def wait(_: State) -> dict[str, Any]:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return {}

    async def never(_: State) -> dict[str, Any]:
        ran.append("never")
        return {}

    graph: Any = StateGraph(State)
    graph.add_node("wait", wait).add_node("never", never)
    graph.add_edge(START, "wait").add_edge("wait", "never")
    model = ChatSequrity("any/model", base_url=own_server.base_url)
    threads = set(threading.enumerate())
    run = asyncio.create_task(secured(graph, model).ainvoke({}))
    await started.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert ended.is_set()
    assert not ran
    await model.aclose()
    new = {one.name for one in set(threading.enumerate()) - threads}
    assert new <= {
        "interpreter",
        "interpreter, idle",
        "turn",
        "turn, idle",
    }  # threads of the server
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others


async def test_a_cancelled_run_stops_in_its_request(own_server: LocalServer) -> None:
    asked = asyncio.Event()

    async def hold(_: httpx.Request) -> None:
        asked.set()
        await asyncio.sleep(60)

    async with httpx.AsyncClient(event_hooks={"request": [hold]}, trust_env=False) as client:
        model = ChatSequrity("any/model", base_url=own_server.base_url, http_async_client=client)
        run = asyncio.create_task(secured(_chain(), model).ainvoke({"text": "x"}))
        await asked.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert not asyncio.all_tasks() - {asyncio.current_task()}
