"""A graph about payments, for tests of denials, approvals and lost sessions."""

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

SAVERS = ("memory", "sqlite")


class Ledger(TypedDict, total=False):
    due: list[int]
    paid: Annotated[list[int], operator.add]
    note: str
    denied: dict[str, Any] | None


class Ran(list[str]):
    """The nodes and routers that ran, in order."""

    def of(self, name: str) -> int:
        return self.count(name)


def ledger(ran: Ran, **replaced: Callable[[Ledger], Any]) -> Any:
    """`read` lists the amounts due. `pay` pays one after the other, until `more` says that all are
    paid. `report` writes the total.
    """

    def read(state: Ledger) -> dict[str, Any]:
        ran.append("read")
        return {"due": state["due"]}

    def pay(state: Ledger) -> dict[str, Any]:
        ran.append("pay")
        first, *others = state["due"]
        return {"due": others, "paid": [first]}

    def more(state: Ledger) -> str:
        ran.append("more")
        return "pay" if state["due"] else "report"

    def report(state: Ledger) -> dict[str, Any]:
        ran.append("report")
        return {"note": f"paid {sum(state['paid'])}"}

    nodes = {"read": read, "pay": pay, "report": report, **replaced}
    graph: Any = StateGraph(Ledger)
    for name, node in nodes.items():
        graph.add_node(name, node)
    graph.add_edge(START, "read").add_edge("read", "pay").add_edge("report", END)
    graph.add_conditional_edges("pay", more, ["pay", "report"])
    return graph


@contextmanager
def saver_of(kind: str, folder: Path) -> Iterator[Any]:
    """A checkpointer. A second SQLite one in the same folder continues where the first stopped."""
    if kind == "memory":
        yield InMemorySaver()
        return
    with SqliteSaver.from_conn_string(str(folder / "ledger.sqlite")) as saver:
        saver.conn.execute("PRAGMA synchronous=OFF")  # no test turns the machine off
        yield saver


def thread(name: str = "1") -> Any:
    return {"configurable": {"thread_id": name}}
