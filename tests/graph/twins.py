"""The same graph twice: compiled by LangGraph, and in an executor."""

from collections.abc import Callable, Mapping
from typing import Any

from langchain_sequrity import ChatSequrity
from tests.graph.running import secured

Make = Callable[[], Any]


class Twins:
    """Makes both versions of a graph. Each gets its own options, such as a checkpointer.

    Args:
        make: Builds a new graph.
        model: The model of the executor.
    """

    def __init__(self, make: Make, model: ChatSequrity) -> None:
        self._make = make
        self._model = model

    def of(self, **options: Callable[[], Any] | Any) -> "tuple[Any, Any]":
        """The compiled graph and the executor. A callable option is called once for each."""

        def given() -> Mapping[str, Any]:
            return {name: one() if callable(one) else one for name, one in options.items()}

        return self._make().compile(**given()), secured(self._make(), self._model, **given())


def thread(name: str = "1", **more: Any) -> Any:
    """The config of a thread."""
    return {"configurable": {"thread_id": name}, **more}
