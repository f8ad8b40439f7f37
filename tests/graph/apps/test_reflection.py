"""Reflection: a writer and a critic that take turns until the critic is content."""

from typing import Annotated, Any, Literal, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages

from langchain_sequrity import ChatSequrity
from tests.graph.apps.scripted import ScriptedModel, same_as_langgraph


class Draft(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    rounds: int


writer = ScriptedModel(
    answer=lambda messages: (
        f"essay, draft {sum(isinstance(one, AIMessage) for one in messages) + 1}"
    )
)
critic = ScriptedModel(
    answer=lambda messages: "fine" if messages[-1].text.endswith("3") else "make it longer"
)


def generate(state: Draft) -> dict[str, Any]:
    message = writer.invoke(state["messages"])
    return {
        "messages": [message.model_copy(update={"id": None})],
        "rounds": state.get("rounds", 0) + 1,
    }


def reflect(state: Draft) -> dict[str, Any]:
    """The critic sees the conversation with swapped roles, and answers as the user."""
    roles = {"ai": HumanMessage, "human": AIMessage}
    swapped: list[Any] = [roles[one.type](one.text) for one in state["messages"][1:]]
    return {"messages": [HumanMessage(critic.invoke([state["messages"][0], *swapped]).text)]}


def should_reflect(state: Draft) -> Literal["reflect", "__end__"]:
    return "__end__" if state["rounds"] >= 6 else "reflect"


def should_go_on(state: Draft) -> Literal["generate", "__end__"]:
    return "__end__" if state["messages"][-1].text == "fine" else "generate"


def app() -> Any:
    graph: Any = StateGraph(Draft)
    graph.add_node("generate", generate)
    graph.add_node("reflect", reflect)
    graph.add_edge(START, "generate")
    graph.add_conditional_edges("generate", should_reflect)
    graph.add_conditional_edges("reflect", should_go_on)
    return graph


def test_writer_and_critic_take_turns_until_the_critic_is_content(model: ChatSequrity) -> None:
    [state] = same_as_langgraph(app, model, {"messages": [HumanMessage("write", id="task")]})
    assert [one.text for one in state["messages"]] == [
        "write",
        "essay, draft 1",
        "make it longer",
        "essay, draft 2",
        "make it longer",
        "essay, draft 3",
        "fine",
    ]
    assert state["rounds"] == 3


def test_the_last_round_is_not_criticised(model: ChatSequrity) -> None:
    given = {"messages": [HumanMessage("write", id="task")], "rounds": 5}
    [state] = same_as_langgraph(app, model, given)
    assert state["messages"][-1].text == "essay, draft 1"
