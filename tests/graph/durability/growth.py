"""The size of checkpoints, by the number of nodes of a run.

`python -m tests.graph.durability.growth` prints a table.
"""

import sqlite3
from collections.abc import Callable
from typing import Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph

from langchain_sequrity import ChatSequrity, LangGraphExecutor
from langchain_sequrity.local import LocalServer


class State(TypedDict, total=False):
    text: str


def chain(
    count: int, note: Callable[[str], None] = lambda _: None
) -> "StateGraph[Any, Any, Any, Any]":
    """A linear graph of `count` nodes. Its state does not grow, and each node calls `note`."""

    def step(name: str) -> Callable[[State], State]:
        def run(state: State) -> State:
            note(name)
            return {"text": state["text"][::-1]}

        return run

    made: Any = StateGraph(State)
    names = [f"step_{number}" for number in range(count)]
    for name, before in zip(names, [START, *names], strict=False):
        made.add_node(name, step(name))
        made.add_edge(before, name)
    return made  # type: ignore[no-any-return]


def stored(graph: Any, text: str = "some text of an ordinary length") -> dict[str, int]:
    """Run a graph with a saver; return the bytes in its two tables."""
    with SqliteSaver.from_conn_string(":memory:") as saver:
        runs = graph(saver)
        config: Any = {"configurable": {"thread_id": "1"}}
        assert runs.invoke({"text": text}, config, durability="sync")["text"]
        return {
            "checkpoints": _bytes(saver.conn, "checkpoint", "checkpoints"),
            "writes": _bytes(saver.conn, "value", "writes"),
        }


def _bytes(connection: sqlite3.Connection, column: str, table: str) -> int:
    [[total]] = connection.execute(f"SELECT sum(length({column})) FROM {table}")  # noqa: S608
    return int(total)


def secured(count: int, model: ChatSequrity) -> dict[str, int]:
    """The bytes that a run of `count` nodes stores."""
    return stored(lambda saver: LangGraphExecutor(chain(count), model, checkpointer=saver))


def plain(count: int) -> dict[str, int]:
    """The bytes that LangGraph itself stores for the same run."""
    return stored(lambda saver: chain(count).compile(checkpointer=saver))


def main() -> None:
    with LocalServer() as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        for count in (30, 120):
            print(count, "plain", plain(count), "executor", secured(count, model))  # noqa: T201


if __name__ == "__main__":
    main()
