"""Conversations with a graph under `LangGraphExecutor`: each turn is an input of the thread."""

from collections.abc import Callable
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from langchain_sequrity import LangGraphExecutor
from tests.session_oracle.cases import Call, Turn
from tests.session_oracle.chats import ThreadConversation, thread_of


class State(TypedDict, total=False):
    """The calls that are left; each node makes the first."""

    plan: list[Any]


class GraphConversation(ThreadConversation):
    """A graph with a node for each tool; a router takes the next call of the plan."""

    def build(self) -> None:
        graph: Any = StateGraph(State)
        names = sorted({c.tool for turn in self._case.turns for step in turn.steps for c in step})
        for name in names:
            graph.add_node(name, self._node(name))
            graph.add_conditional_edges(name, _next_node, [*names, END])
        graph.add_conditional_edges(START, _next_node, [*names, END])
        model = self._stage.model(self._case, "chat", accepts_loss=self.accepts_loss)
        self._graph = LangGraphExecutor(
            graph, model, checkpointer=self._saver, on_denied=self._case.on_denied
        )

    def _node(self, name: str) -> Callable[[State], dict[str, Any]]:
        ledger = self._ledger

        def node(state: State) -> dict[str, Any]:
            (_, value), *others = state["plan"]
            ledger.call(name, value)
            return {"plan": others}

        return node

    def _input(self, turn: Turn) -> dict[str, Any]:
        return {"plan": [list(call) for step in turn.steps for call in step]}

    def _call_of(self, request: Any) -> Call:
        """The call that a human is asked about: the argument of a node is the plan."""
        return Call(*next(iter(request["args"].values()))[0])

    def _edit_history(self, turn: Turn) -> None:
        self._graph.update_state(thread_of(self._case), self._input(turn))


def _next_node(state: State) -> str:
    return state["plan"][0][0] if state["plan"] else END
