"""Graphs with the field server: the same final state as in LangGraph, and each node runs once."""

from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.graph.runtime.program_calls import StepMismatch
from langchain_sequrity.local import LocalServer
from tests.field.conftest import HABITS
from tests.field.recorded import HISTORIES, MESSAGES
from tests.field.server import FieldServer, Habits
from tests.field.test_chats import ENDED, LAST_TURN
from tests.graph.ledger import Ran, ledger, thread
from tests.graph.running import secured
from tests.graph.test_approval import APPROVE, SOFT


class Kind(TypedDict):
    kind: str


PLAIN = {"due": [], "paid": [1, 2], "note": "paid 3"}
NODES = ["read", "pay", "more", "pay", "more", "report"]


def executor_at(field: FieldServer, ran: Ran, policy: Any = None, **options: Any) -> Any:
    model = ChatSequrity("any/model", base_url=field.base_url, policy=policy, max_retries=0)
    return secured(ledger(ran), model, **options)


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("history", ["whole", "new"])
@pytest.mark.parametrize("habit", HABITS)
def test_a_graph_has_the_state_of_langgraph_and_each_node_runs_once(
    behind: LocalServer, habit: str, history: Any
) -> None:
    ran = Ran()
    with FieldServer(behind.base_url, HABITS[habit]) as field:
        assert executor_at(field, ran, history=history).invoke({"due": [1, 2]}) == PLAIN
    assert ran == NODES
    assert field.mismatches == 0


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("habit", HABITS)
async def test_a_graph_in_an_event_loop_has_the_state_of_langgraph(
    behind: LocalServer, habit: str
) -> None:
    ran = Ran()
    with FieldServer(behind.base_url, HABITS[habit]) as field:
        found = await executor_at(field, ran, history="whole").ainvoke({"due": [1, 2]})
    assert (found, ran) == (PLAIN, NODES)


def test_a_loop_on_a_service_that_keeps_results_ends_with_an_error_and_not_with_a_wrong_state(
    behind: LocalServer,
) -> None:
    ran: list[str] = []

    class State(TypedDict):
        left: int
        kind: str

    def look(_: State) -> dict[str, Any]:
        ran.append("look")
        return {"kind": "odd"}

    def count(state: State) -> dict[str, Any]:
        ran.append("count")
        return {"left": state["left"] - 1}

    graph: Any = StateGraph(State)
    graph.add_node("look", look, input_schema=Kind).add_node("count", count)
    graph.add_edge(START, "look").add_edge("look", "count")
    graph.add_conditional_edges("count", lambda state: "look" if state["left"] else END)
    with FieldServer(behind.base_url, Habits(caches=True)) as field:
        model = ChatSequrity("any/model", base_url=field.base_url, max_retries=0)
        with pytest.raises(StepMismatch):
            secured(graph, model).invoke({"left": 2, "kind": "odd"})
    assert ran[:2] == ["look", "count"]
    assert ran.count("count") <= 2


LABELLED = {"printed", "unnamed", "in context", "newest"}
STRENGTH = {"all checks", "no tools named", "denials alone"}
OTHERS: dict[str, dict[str, Any]] = {
    "alone": {},
    "short": {"short": True},
    "compares": {"compares": True},
    "all": {
        "compares": True,
        "short": True,
        "unknown_keys": True,
        "null_content": True,
        "nan": True,
    },
}


@pytest.mark.long(sample=12)
@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("message", MESSAGES)
def test_a_soft_denial_in_each_recorded_wording_is_offered_if_it_has_labels_and_strength(
    behind: LocalServer, message: str, history: str, others: str
) -> None:
    ran = Ran()
    habits = Habits(denials=MESSAGES[message], checks=HISTORIES[history], **OTHERS[others])
    # Printed texts have the check too.
    has_strength = history in STRENGTH or message in ("printed", "unnamed")
    with FieldServer(behind.base_url, habits) as field:
        options = {"on_denied": "interrupt", "checkpointer": InMemorySaver(), "policy": SOFT}
        executor = executor_at(field, ran, **options)
        if message in LABELLED and has_strength:
            [asked] = executor.invoke({"due": [7]}, thread())["__interrupt__"]
            [action] = asked.value["action_requests"]
            assert (action["name"], action["args"]) == ("pay", {"due": [7]})
            assert ran == ["read"]
            assert executor.invoke(APPROVE, thread())["note"] == "paid 7"
            assert ran == ["read", "pay", "more", "report"]
        else:
            with pytest.raises(PolicyDenied):
                executor.invoke({"due": [7]}, thread())
            assert ran == ["read"]


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("status", ENDED)
@pytest.mark.parametrize(("at", "checkpointed"), [(1, False), (3, True), (5, False)])
def test_a_graph_whose_session_ends_continues_and_no_node_runs_again(
    behind: LocalServer, at: int, status: int, *, checkpointed: bool
) -> None:
    ran = Ran()
    habits = Habits(ends={at: (status, ENDED[status])})
    options = {"checkpointer": InMemorySaver()} if checkpointed else {}
    with FieldServer(behind.base_url, habits) as field:
        found = executor_at(field, ran, **options).invoke({"due": [1, 2]}, thread())
    assert (found, ran) == (PLAIN, NODES)


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("status", LAST_TURN)
@pytest.mark.parametrize("at", [2, 4])
def test_a_graph_continues_however_the_end_of_its_session_is_told(
    behind: LocalServer, status: int, at: int
) -> None:
    ran = Ran()
    with FieldServer(behind.base_url, Habits(ends={at: (status, LAST_TURN[status])})) as field:
        found = executor_at(field, ran).invoke({"due": [1, 2]})
    assert (found, ran) == (PLAIN, NODES)


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("status", ENDED)
def test_a_graph_continues_on_a_service_with_all_habits_whose_sessions_end(
    behind: LocalServer, status: int
) -> None:
    ran = Ran()
    habits = Habits(
        reruns=True, compares=True, dashless=True,
        ends={2: (status, ENDED[status]), 6: (status, ENDED[status])},
    )  # fmt: skip
    with FieldServer(behind.base_url, habits) as field:
        found = executor_at(field, ran, history="whole").invoke({"due": [1, 2]})
    assert (found, ran) == (PLAIN, NODES)
    assert field.mismatches == 0
