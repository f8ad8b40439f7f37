"""What a user's code says about the types in a state: of its fields, and of what a `Send` carries.

Only classes that are named there are ever made of what the service says. They are known before
anything is sent, and are the same in each process that resumes a run.
"""

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from langchain_sequrity.graph.reading.answers import return_kinds
from langchain_sequrity.graph.reading.prebuilt import response_formats
from langchain_sequrity.graph.reading.source import functions_of, input_hint
from langchain_sequrity.graph.reading.spec import GraphSpec, NodeSpec

_ROOT = "__root__"


def of_fields(spec: GraphSpec) -> Mapping[str, list[Any]]:
    """State field → what the schemas say about it, and the nodes that write it."""
    found: dict[str, list[Any]] = {field: [] for field in spec.channels}
    for schema in spec.schemas:
        hints = _hints(schema) if hasattr(schema, "__annotations__") else {_ROOT: schema}
        _add(found, hints)
    for node in spec.nodes.values():
        for runnable in (node.runnable, node.error_handler):
            for kind in filter(inspect.isclass, return_kinds(runnable)):
                _add(found, _hints(kind))
        _add(found, response_formats(node.runnable))
    return found


def of_packets(node: NodeSpec) -> list[Any]:
    """What a node says about its input, which a `Send` may carry."""
    return [node.input_schema, *map(input_hint, functions_of(node.runnable))]


def _add(found: Mapping[str, list[Any]], hints: Mapping[str, Any]) -> None:
    for field in found.keys() & hints.keys():
        found[field].append(hints[field])


def _hints(schema: Any) -> Mapping[str, Any]:
    try:
        return get_type_hints(schema, include_extras=True)
    except (NameError, TypeError):  # a class that a node returns need not be one of LangGraph's
        return {}
