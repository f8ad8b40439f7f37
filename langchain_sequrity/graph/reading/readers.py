"""What a node, an error handler or a router reads, as far as its source or its kind shows."""

import dataclasses
import inspect
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from langgraph.graph import START
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel

from langchain_sequrity.graph.reading.prebuilt import Known, known
from langchain_sequrity.graph.reading.reads import fields_read, uses_tool_node
from langchain_sequrity.graph.reading.source import sources_of

ROOT = "__root__"
"""Name of the one channel of a state that is no dict of fields."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Something that gets a state.

    Attributes:
        runnable: What runs.
        schema: Schema of its input.
        fields: State fields and managed values of that schema.
    """

    runnable: Any
    schema: type[Any]
    fields: tuple[str, ...]

    @property
    def known(self) -> Known | None:
        """What is known of it, if LangGraph or LangChain brought it along."""
        return known(self.runnable, self.fields, is_dict=self._is_dict)

    @property
    def reads(self) -> frozenset[str] | None:
        """The fields that it reads; `None` if that cannot be told."""
        if isinstance(self.runnable, CompiledStateGraph):
            return _read_by_subgraph(self.runnable, self.fields)
        if is_model(self.schema):
            return None
        keys = self.keys
        if keys is None and (prebuilt := self.known) is not None:
            keys = prebuilt.reads
        if keys is None:
            return None
        # A state that is no dict of fields is read as a whole, or not at all.
        named = frozenset({ROOT}) if self.fields == (ROOT,) and keys else keys
        return (named & set(self.fields)) | self.needed

    @property
    def keys(self) -> frozenset[str] | None:
        """What its source shows to be read, fields or not."""
        sources = sources_of(self.runnable)
        found = [fields_read(one, self.fields, is_dict=self._is_dict) for one in sources]
        if not found or None in found or any(map(uses_tool_node, sources)):
            return None
        return frozenset(key for one in found if one is not None for key in one)

    @property
    def needed(self) -> frozenset[str]:
        """Fields without which an object of the schema cannot be made as LangGraph makes it.

        Pydantic validates all of them at each node. A dataclass needs those without a default, and
        all where code of its own runs when it is made.
        """
        if is_model(self.schema):
            return frozenset(self.fields)
        if not dataclasses.is_dataclass(self.schema):
            return frozenset()
        if hasattr(self.schema, "__post_init__"):
            return frozenset(self.fields)
        return frozenset(
            one.name
            for one in dataclasses.fields(self.schema)
            if one.name in self.fields
            and one.default is dataclasses.MISSING
            and one.default_factory is dataclasses.MISSING
        )

    @property
    def _is_dict(self) -> bool:
        return not (dataclasses.is_dataclass(self.schema) or is_model(self.schema))


def is_model(schema: type[Any]) -> bool:
    """Whether a schema is a pydantic model: LangGraph validates all of it at each node."""
    return inspect.isclass(schema) and issubclass(schema, BaseModel)


def _read_by_subgraph(
    graph: CompiledStateGraph[Any, Any, Any, Any], fields: Collection[str]
) -> frozenset[str] | None:
    """A subgraph takes the fields of its input schema and drops the rest.

    But routers after its START that have no schema of their own see all that came in.
    """
    builder = graph.builder
    if any(branch.input_schema is None for branch in builder.branches.get(START, {}).values()):
        return None
    return frozenset(fields) & builder.schemas[builder.input_schema].keys()
