"""What a runnable may return, whatever kind of runnable it is."""

import types
from collections.abc import Iterable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from langchain_core.language_models import BaseLanguageModel
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.runnables import RunnableParallel, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from langgraph.graph.state import CompiledStateGraph
from typing_extensions import is_typeddict

from langchain_sequrity.graph.reading.answer import ANYTHING, Answer, either
from langchain_sequrity.graph.reading.returns import leaves_graph, node_answer, router_answer
from langchain_sequrity.graph.reading.source import functions_of, hints_of, sources_of


def answer_of_node(runnable: Any) -> Answer:
    """What a node may return."""
    if isinstance(runnable, CompiledStateGraph):
        return _subgraph_answer(runnable)
    if isinstance(runnable, RunnableSequence):
        return answer_of_node(runnable.last)
    if isinstance(runnable, RunnableBindingBase):
        return answer_of_node(runnable.bound)
    if isinstance(runnable, RunnableParallel):
        keys = frozenset(runnable.steps__)
        return Answer(keys=keys, sure=keys)
    if isinstance(runnable, BaseLanguageModel | BaseOutputParser):
        return Answer(keys=None)
    sources = sources_of(runnable)
    return either(node_answer(one) for one in sources) if sources else ANYTHING


def _subgraph_answer(graph: CompiledStateGraph[Any, Any, Any, Any]) -> Answer:
    """A subgraph returns its output fields, unless one of its nodes answers for the parent."""
    builder = graph.builder
    for spec in builder.nodes.values():
        sources = sources_of(spec.runnable)
        if not sources or any(map(leaves_graph, sources)):
            return ANYTHING
        if either(node_answer(one) for one in sources).targets is None:
            return ANYTHING
    return Answer(keys=frozenset(builder.schemas[builder.output_schema]))


def answer_of_router(runnable: Any) -> Answer:
    """Where a router may go."""
    sources = sources_of(runnable)
    return either(router_answer(one) for one in sources) if sources else ANYTHING


def names_one(runnable: Any) -> bool:
    """Whether all functions of a router are annotated to return a Literal, and no list of them."""
    functions = functions_of(runnable)
    return bool(functions) and all(get_origin(_return_hint(one)) is Literal for one in functions)


def annotated_keys(runnable: Any, state_schema: type[Any]) -> frozenset[str] | None:
    """Keys of a return annotation that is made of TypedDicts other than the state's."""
    functions = functions_of(runnable)
    hints = [kind for one in functions for kind in _alternatives(_return_hint(one))]
    # `-> None` says no more than no annotation: many functions with it return something.
    kinds = [kind for kind in hints if kind is not type(None)]
    if not kinds or not all(is_typeddict(one) and one is not state_schema for one in kinds):
        return None
    return frozenset(key for one in kinds for key in get_type_hints(one))


def return_kinds(runnable: Any) -> list[Any]:
    """What the functions of a node are annotated to return: all that a union names."""
    hints = map(_return_hint, functions_of(runnable))
    return [kind for hint in hints for kind in _alternatives(hint)]


def _alternatives(hint: Any) -> Iterable[Any]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _return_hint(function: Any) -> Any:
    return hints_of(function).get("return")
