"""Runs a test graph in LangGraph itself and in the executor."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from langgraph.graph import StateGraph

from langchain_sequrity import ChatSequrity, LangGraphExecutor, NodeOptions
from tests.graph.outcome import Outcome, invoke, outcome
from tests.graph.shape import Shape


def compiled(graph: Any) -> Any:
    """A graph as LangGraph runs it."""
    return graph.compile() if isinstance(graph, StateGraph) else graph


def secured(
    graph: Any,
    model: ChatSequrity,
    nodes: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> LangGraphExecutor:
    """The executor of a graph. It does not warn about nodes whose reads are unknown."""
    told = {name: NodeOptions(**one) for name, one in (nodes or {}).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return LangGraphExecutor(graph, model, nodes=told, **options)


def outcomes(shape: Shape, make: Callable[[Any], Any], *, in_loop: bool = False) -> list[Outcome]:
    """The outcome of each run of a shape. `make` makes its graph runnable."""
    graph = make(shape.graph)
    options = {"config": dict(shape.config), "context": shape.context}
    return [
        outcome(lambda one=one: invoke(graph, one, in_loop=in_loop, **options), shape.seen)  # type: ignore[misc]
        for one in shape.inputs
    ]
