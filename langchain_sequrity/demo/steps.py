"""The third act: the same job as a graph of steps, which a `LangGraphExecutor` runs under a policy.

```
START → plan → query → (more topics: query again) → subject, text → mail
```

No planner is needed: the graph is the plan. Each step is a tool call that the policy looks at
before the step runs, and each argument of it is one field of the state, with labels of its own.
"""

import operator
from typing import Annotated, Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph

from langchain_sequrity import (
    ChatSequrity,
    FeaturesHeader,
    LangGraphExecutor,
    NodeOptions,
    PolicyHeader,
    Trace,
)
from langchain_sequrity.demo.mail import Outbox
from langchain_sequrity.demo.screen import Screen
from langchain_sequrity.demo.sql import ReadOnlyDatabase
from langchain_sequrity.demo.topics import topics_of
from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicyDenied

POLICY = """\
let colleagues = {str matching r"^[A-Za-z0-9._+-]+@example[.]com$"};

/// what the database says is for colleagues
tool "query" -> @tags |= {"internal"};

tool "send_mail" {
    /// what is internal is mailed to colleagues only
    must deny when text.tags overlaps {"internal"} and not to.value in colleagues;
    must deny when subject.tags overlaps {"internal"} and not to.value in colleagues;
}
"""
_NODES = {"mail": NodeOptions(tool_name="send_mail")}
_MOST_TOPICS = 3
_LONGEST_SUBJECT = 80


class Job(TypedDict):
    """What the graph works on: a question, whom to tell, and what was found."""

    question: str
    to: str
    todo: list[str]
    findings: Annotated[list[str], operator.add]
    subject: str
    text: str
    mail: str


def job_graph(database: ReadOnlyDatabase, outbox: Outbox) -> "StateGraph[Job, None, Job, Job]":
    """Build the graph: it looks topics up one by one, then writes a mail in two parts at once.

    Args:
        database: What is queried.
        outbox: Where the mail goes.
    """

    def plan(state: Job) -> dict[str, Any]:
        return {"todo": [topic.title for topic in topics_of(state["question"])[:_MOST_TOPICS]]}

    def query(state: Job) -> dict[str, Any]:
        topics = {topic.title: topic for topic in topics_of(state["question"])}
        topic = topics[state["todo"][0]]
        found = database.query(topic.sql)
        rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
        return {
            "todo": state["todo"][1:],
            "findings": [topic.sentence(rows)] if rows else [],
        }

    def what_next(state: Job) -> list[Literal["query", "subject", "text"]]:
        return ["query"] if state["todo"] else ["subject", "text"]

    def subject(state: Job) -> dict[str, Any]:
        return {"subject": f"About: {plain(state['question'])[:_LONGEST_SUBJECT]}"}

    def text(state: Job) -> dict[str, Any]:
        return {"text": "\n".join(state["findings"]) + "\n"}

    def mail(state: Job) -> dict[str, Any]:
        path = outbox.send(state["to"], state["subject"], state["text"])
        return {"mail": path.name}

    graph = StateGraph(Job)
    for node in (plan, query, subject, text, mail):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "query")
    graph.add_conditional_edges("query", what_next, ["query", "subject", "text"])
    graph.add_edge(["subject", "text"], "mail")
    graph.add_edge("mail", END)
    return graph


def job_executor(
    model: ChatSequrity, database: ReadOnlyDatabase, outbox: Outbox
) -> LangGraphExecutor:
    """Make what runs the graph under the policy.

    Args:
        model: Its connection is used; no model is asked.
        database: What is queried.
        outbox: Where the mail goes.
    """
    guarded = model.model_copy(
        update={
            "features": FeaturesHeader.dual_llm(),
            "policy": PolicyHeader.from_sqrt(POLICY),
            "http_client": None,  # the trace shows the calls; twenty requests more would hide them
        }
    )
    return LangGraphExecutor(job_graph(database, outbox), guarded, nodes=_NODES, name="mail job")


def run_job(executor: LangGraphExecutor, question: str, to: str, screen: Screen) -> Trace:
    """Run the graph, and show its steps and what was denied.

    Args:
        executor: What `job_executor` made.
        question: What is looked up.
        to: Who is to get the mail.
        screen: Where it is shown.

    Returns:
        The trace of the run.
    """
    trace = Trace()
    screen.fact("question", f"Mail to {to}: {question}")
    steps = executor.stream(
        {"question": question, "to": to}, {"callbacks": [trace]}, stream_mode="updates"
    )
    try:
        for update in steps:
            for step, written in update.items():
                screen.step(step, written)
    except PolicyDenied as denied:
        screen.denial(denied)
    return trace
