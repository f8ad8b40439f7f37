"""The same task as a graph: each node is a call, which the policy checks before the node runs."""

from typing import Any, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from pydantic import BaseModel

from examples.demo.story import Story
from examples.demo.tools import Desk
from langchain_sequrity import ChatSequrity, LangGraphExecutor, NodeOptions, Trace
from langchain_sequrity.errors import PolicyDenied

SQL = (
    "SELECT name, version, (size_bytes / 1000000) || ' MB' AS size FROM packages "
    "ORDER BY size_bytes DESC LIMIT 3"
)
INSTEAD = "bo@partner.example"


class Contact(BaseModel):
    """The data that the reader extracts from the document."""

    address: str
    have_enough_info: bool


class Job(TypedDict, total=False):
    """The state: the input, and the results of the nodes."""

    sql: str
    name: str
    output_schema: dict[str, Any]
    report: str
    query: str
    contact: Any
    to: str
    sent: str


def build_graph(desk: Desk) -> "StateGraph[Job, None, Job, Job]":
    """Build the graph. It is an ordinary graph that does not know the policy."""

    def report(state: Job) -> Job:
        rows = desk.query_packages(state["sql"])
        lines = [f"- {row['name']} {row['version']}, {row['size']}\n" for row in rows]
        text = "# Largest packages\n\n" + "".join(lines)
        desk.write_report(text)
        return {"report": text}

    def read_document(state: Job) -> Job:
        text = desk.read_document(state["name"])
        return {"query": f"At which mail address is the contact for reports? {text}"}

    def ask_reader(state: Job) -> Job:
        """The service's reader answers in place of this node: see its `NodeOptions`."""
        return state

    def take_address(state: Job) -> Job:
        return {"to": state["contact"]["address"]}

    def send_mail(state: Job) -> Job:
        return {"sent": desk.send_mail(state["to"], "Largest packages", state["report"])}

    graph = StateGraph(Job)
    graph.add_sequence([report, read_document, ask_reader, take_address, send_mail])
    graph.add_edge(START, "report")
    return graph


READER = NodeOptions(
    reads=["query", "output_schema"], writes=["contact"], internal_tool="parse_with_ai"
)


def run_graph(model: ChatSequrity, desk: Desk, story: Story) -> None:
    """Run the graph. If a call is denied, the user writes another address into the state.

    Raises:
        SequrityError: If the service or the run failed.
    """
    executor = LangGraphExecutor(
        build_graph(desk), model, nodes={"ask_reader": READER}, checkpointer=InMemorySaver()
    )
    story.detail("program", executor.program)
    trace = Trace()
    thread: Any = {"configurable": {"thread_id": "demo"}, "callbacks": [trace]}
    job: Job = {
        "sql": SQL, "name": "suppliers.txt", "output_schema": Contact.model_json_schema(),
    }  # fmt: skip
    story.tell(
        "The user",
        "runs it, to report on the largest packages and to mail the report to the contact that "
        "suppliers.txt names.",
    )
    try:
        executor.invoke(job, thread)
    except PolicyDenied as denied:
        story.stopped(desk.user, denied)
        story.tell("The user", f"puts to={INSTEAD!r} into the state, and continues the run.")
        executor.update_state(thread, {"to": INSTEAD})
        executor.invoke(None, thread)
    story.allowed(trace.runs[-1].calls[-1].labels)
    story.detail("trace", str(trace))
