"""Plan and execute: a planner, one step at a time, and a replanner that answers or continues."""

import operator
from typing import Annotated, Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel

from langchain_sequrity import ChatSequrity
from tests.graph.apps.scripted import ScriptedModel, same_as_langgraph


class PlanExecute(TypedDict, total=False):
    input: str
    plan: list[str]
    past_steps: Annotated[list[tuple[str, str]], operator.add]
    response: str


class Act(BaseModel):
    """What the replanner says."""

    steps: list[str] = []
    response: str = ""


FACTS = {"find the author": "Ada", "find her birth year": "1815", "compute the age": "36"}

llm = ScriptedModel(answer=lambda messages: FACTS.get(messages[-1].text, "unknown"))


def plan_step(state: PlanExecute) -> dict[str, Any]:
    return {"plan": ["find the author", "find her birth year", f"answer: {state['input']}"]}


def execute_step(state: PlanExecute) -> dict[str, Any]:
    task = state["plan"][0]
    return {"past_steps": [(task, llm.invoke(task).text)]}


def replan_step(state: PlanExecute) -> dict[str, Any]:
    done = [step for step, _ in state["past_steps"]]
    left = [step for step in state["plan"] if step not in done]
    if len(done) == 2 and "compute the age" not in left:
        left = ["compute the age"]
    act = Act(steps=left) if left else Act(response=state["past_steps"][-1][1])
    return {"response": act.response} if act.response else {"plan": act.steps}


def should_end(state: PlanExecute) -> Literal["agent", "__end__"]:
    return "__end__" if state.get("response") else "agent"


def app() -> Any:
    graph: Any = StateGraph(PlanExecute)
    graph.add_node("planner", plan_step)
    graph.add_node("agent", execute_step)
    graph.add_node("replan", replan_step)
    graph.add_edge(START, "planner")
    graph.add_edge("planner", "agent")
    graph.add_edge("agent", "replan")
    graph.add_conditional_edges("replan", should_end, ["agent", END])
    return graph


def test_a_plan_is_executed_and_revised_until_there_is_an_answer(model: ChatSequrity) -> None:
    [state] = same_as_langgraph(app, model, {"input": "how old?"})
    assert state["past_steps"] == [*FACTS.items()]
    assert state["response"] == "36"


def test_past_steps_of_the_input_stay_in_the_state(model: ChatSequrity) -> None:
    known = [("find the author", "Ada")]
    [state] = same_as_langgraph(app, model, {"input": "how old?", "past_steps": known})
    assert state["past_steps"][0] == ("find the author", "Ada")
