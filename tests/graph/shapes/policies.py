"""Retries, caches, time limits and error handlers of nodes."""

import asyncio
from typing import Any, TypedDict

from langgraph.cache.memory import InMemoryCache
from langgraph.errors import NodeError
from langgraph.types import CachePolicy, Command, RetryPolicy

from tests.graph.shape import Shape, Shapes
from tests.graph.shapes.traced import Traced, connect, traced

SHAPES = Shapes()
FAST = RetryPolicy(initial_interval=0.001, max_attempts=3, jitter=False, retry_on=ConnectionError)


def failing(times: int, attempts: list[Any], error: type[Exception] = ConnectionError) -> Any:
    """A node that fails `times` times."""

    def node(_state: Traced) -> dict[str, Any]:
        attempts.append("attempt")
        if len(attempts) <= times:
            raise error
        return {"trace": [f"attempt {len(attempts)}"]}

    return node


@SHAPES.add
def node_that_is_retried() -> Shape:
    seen: list[Any] = []
    graph = traced("b")
    graph.add_node("a", failing(2, seen), retry_policy=FAST)
    return Shape(graph=connect(graph, "__start__>a", "a>b"), inputs=[{}], seen=seen)


@SHAPES.add
def node_that_is_retried_in_vain() -> Shape:
    graph = traced("b")
    graph.add_node("a", failing(9, []), retry_policy=FAST)
    return Shape(graph=connect(graph, "__start__>a", "a>b"), inputs=[{}])


@SHAPES.add
def node_that_is_not_retried_for_this_error() -> Shape:
    graph = traced("b")
    graph.add_node("a", failing(1, [], LookupError), retry_policy=FAST)
    return Shape(graph=connect(graph, "__start__>a", "a>b"), inputs=[{}, {}])


@SHAPES.add
def retries_by_default() -> Shape:
    seen: list[Any] = []
    graph = traced("b", a=failing(1, seen))
    graph.set_node_defaults(retry_policy=FAST)
    return Shape(graph=connect(graph, "__start__>a", "a>b"), inputs=[{}], seen=seen)


@SHAPES.add
def node_whose_result_is_cached() -> Shape:
    seen: list[Any] = []

    def a(state: Traced) -> dict[str, Any]:
        seen.append(state.get("n"))
        return {"trace": [f"n is {state.get('n')}"]}

    graph = traced("b")
    graph.add_node("a", a, cache_policy=CachePolicy())
    compiled = connect(graph, "__start__>a", "a>b").compile(cache=InMemoryCache())
    return Shape(graph=compiled, inputs=[{"n": 1}, {"n": 1}, {"n": 2}], seen=seen)


@SHAPES.add
def node_that_takes_too_long() -> Shape:
    async def slow(_state: Traced) -> dict[str, Any]:
        await asyncio.sleep(30)
        return {}

    graph = traced()
    graph.add_node("a", slow, timeout=0.05)
    return Shape(graph=connect(graph, "__start__>a"), inputs=[{}])


@SHAPES.add
def error_handler_that_updates() -> Shape:
    def handle(_state: Traced, error: NodeError) -> dict[str, Any]:
        return {"trace": [f"handled {type(error.error).__name__} of {error.node}"]}

    graph = traced("b")
    graph.add_node("a", failing(9, []), error_handler=handle)
    return Shape(graph=connect(graph, "__start__>a", "a>b"), inputs=[{}])


@SHAPES.add
def error_handler_that_routes() -> Shape:
    def handle(state: Traced, error: NodeError) -> Command[Any]:
        return Command(update={"trace": [f"{error.node} {len(state['trace'])}"]}, goto="rescue")

    graph = traced("b", "rescue")
    graph.add_node("a", failing(9, []), error_handler=handle, retry_policy=FAST)
    return Shape(graph=connect(graph, "__start__>a", "a>b"), inputs=[{}, {"trace": ["in"]}])


@SHAPES.add
def error_handler_that_is_not_needed() -> Shape:
    def handle(_state: Traced, _error: NodeError) -> dict[str, Any]:
        return {"trace": ["handled"]}

    graph = traced("b")
    graph.add_node("a", failing(0, []), error_handler=handle)
    return Shape(graph=connect(graph, "__start__>a", "a>b"), inputs=[{}])


@SHAPES.add
def error_handler_by_default() -> Shape:
    def handle(_state: Traced, error: NodeError) -> dict[str, Any]:
        return {"trace": [f"default for {error.node}"]}

    graph = traced("b", a=failing(9, []), c=failing(9, []))
    graph.set_node_defaults(error_handler=handle)
    return Shape(graph=connect(graph, "__start__>a", "a>b", "b>c"), inputs=[{}])


@SHAPES.add
def error_handlers_of_nodes_with_a_smaller_schema() -> Shape:
    class Small(TypedDict, total=False):
        n: int

    def handle(state: Traced, error: NodeError) -> dict[str, Any]:
        return {"trace": [f"{error.node} got {sorted(state)}"]}

    def fails(_state: Small) -> dict[str, Any]:
        raise ConnectionError

    graph = traced()
    graph.add_node("a", fails, input_schema=Small)
    graph.add_node("b", fails, input_schema=Small, error_handler=handle)
    graph.set_node_defaults(error_handler=handle)
    return Shape(
        graph=connect(graph, "__start__>a", "__start__>b"), inputs=[{"n": 1, "trace": ["in"]}]
    )
