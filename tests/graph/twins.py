"""A graph twice: as LangGraph compiles it, and in an executor."""

from collections.abc import Callable, Mapping
from typing import Any

from langchain_sequrity import ChatSequrity
from tests.graph.running import secured

Make = Callable[[], Any]


class Twins:
    """Makes both of a graph; what they take by value (a checkpointer, say) is made for each.

    Args:
        make: Builds the graph anew.
        model: Of the executor.
    """

    def __init__(self, make: Make, model: ChatSequrity) -> None:
        self._make = make
        self._model = model

    def of(self, **options: Callable[[], Any] | Any) -> "tuple[Any, Any]":
        """LangGraph's own, and the executor; options that can be called are called."""

        def given() -> Mapping[str, Any]:
            return {name: one() if callable(one) else one for name, one in options.items()}

        return self._make().compile(**given()), secured(self._make(), self._model, **given())


def thread(name: str = "1", **more: Any) -> Any:
    """The config of a thread."""
    return {"configurable": {"thread_id": name}, **more}
