"""The programs of graphs: their text, and how they run."""

# ruff: noqa: ARG001, ARG005 - a node takes the state even if it does not use it

import operator
import os
import subprocess
import sys
from typing import Annotated, Any, Literal, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.runnables import RunnableLambda
from langgraph.channels import EphemeralValue
from langgraph.graph import END, START, StateGraph
from langgraph.managed import IsLastStep, RemainingSteps
from langgraph.types import Command, Overwrite, Send

from langchain_sequrity.errors import GraphNotSupported, UsageError
from langchain_sequrity.graph.analysis.spec import read_graph
from langchain_sequrity.graph.codegen.compiler import compile_graph
from langchain_sequrity.graph.limits import ROUNDS_PER_LOOP, STEPS_PER_PROGRAM
from langchain_sequrity.graph.options import FieldRouter, NodeOptions
from langchain_sequrity.graph.program import ABSENT
from langchain_sequrity.local.interpreter import parse
from tests.graph.compiled import Ran, entry_of, packets, program_of, run, to


class State(TypedDict, total=False):
    x: int
    y: int
    total: Annotated[int, operator.add]
    names: Annotated[list[str], operator.add]


def returns(**update: Any) -> Any:
    """A node that always returns this update, and whose source shows it."""
    keys = frozenset(update)
    nodes = {
        frozenset({"x"}): lambda state: {"x": 1},
        frozenset({"y"}): lambda state: {"y": 1},
        frozenset({"total"}): lambda state: {"total": 1},
        frozenset({"names"}): lambda state: {"names": ["n"]},
        frozenset[str](): lambda state: None,
    }
    return nodes[keys]


def counting(length: int) -> dict[str, Any]:
    """Answers of the nodes of a chain."""
    return {f"n{one}": lambda _: {"total": 1} for one in range(length)}


def chain(length: int) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(State)
    graph.add_sequence([(f"n{one}", returns(total=1)) for one in range(length)])
    return graph.set_entry_point("n0")


def ran_of(graph: Any, *, at: dict[str, Any] | None = None, limit: int = 25, **answers: Any) -> Ran:
    """A run in which each node answers `["n"]` for each field that it writes."""
    known: dict[str, Any] = {
        name: lambda _, key=tool.writes: {one: ["n"] for one in key}
        for name, tool in program_of(graph).tools.items()
    }
    return run(graph, known | answers, at=at, limit=limit)


def names_of(graph: Any, *, at: dict[str, Any] | None = None, **answers: Any) -> list[str]:
    """The tools in the order of their calls."""
    return ran_of(graph, at=at, **answers).calls


# The mail graph: labels of each argument are exactly the nodes it depends on.


class Mail(TypedDict, total=False):
    user: str
    inbox: str
    summary: str
    urgent: bool
    status: str


def read_inbox(state: Mail) -> Any:
    return {"inbox": "mail"}


def summarize(state: Mail) -> Any:
    return {"summary": state["inbox"], "urgent": True}


def send(state: Mail) -> Any:
    return {"status": f"{state['user']} {state['summary']}"}


def archive(state: Mail) -> Any:
    return {"status": "archived"}


def done(state: Mail) -> Any:
    return {"status": state["user"]}


def pick(state: Mail) -> Literal["archive", "send"]:
    return "send" if state["urgent"] else "archive"


def mail_graph(router: Any = pick) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(Mail)
    for node in (read_inbox, summarize, send, archive, done):
        graph.add_node(node)
    graph.add_edge(START, "read_inbox").add_edge("read_inbox", "summarize")
    graph.add_conditional_edges("summarize", router)
    return graph.add_edge("send", "done").add_edge("archive", "done")


MAIL_ANSWERS: dict[str, Any] = {
    "read_inbox": lambda _: {"inbox": "text"},
    "summarize": lambda _: {"summary": "short", "urgent": True},
    "pick__from__summarize": lambda _: to("send"),
    "send": lambda _: {"status": "sent"},
    "archive": lambda _: {"status": "archived"},
    "done": lambda _: {"status": "done"},
}


def as_superstep(graph: StateGraph[Any, Any, Any, Any]) -> StateGraph[Any, Any, Any, Any]:
    """The same graph with a parallel node, so that its program is a loop over supersteps."""
    return graph.add_node("aside", returns()).add_edge(START, "aside")


@pytest.mark.parametrize("kind", ["structured", "superstep"])
def test_labels_of_an_argument_are_the_nodes_it_depends_on(kind: str) -> None:
    graph = mail_graph() if kind == "structured" else as_superstep(mail_graph())
    assert program_of(graph).kind == kind
    ran = run(graph, {**MAIL_ANSWERS, "aside": lambda _: {}}, {"user": "bob"})
    assert ran.producers("read_inbox") == {}
    assert ran.producers("summarize") == {"inbox": {"read_inbox"}}
    assert ran.producers("pick__from__summarize") == {"urgent": {"read_inbox", "summarize"}}
    assert ran.producers("send") == {"user": {"user"}, "summary": {"read_inbox", "summarize"}}
    assert ran.producers("done") == {"user": {"user"}}
    assert ran.final["status"] == "done"


def test_a_strict_run_does_not_label_a_node_after_a_closed_branch_with_its_router() -> None:
    ran = run(mail_graph(), MAIL_ANSWERS, {"user": "bob"}, is_strict=True)
    assert "pick__from__summarize" in ran.producers("send")["user"]
    assert ran.producers("done") == {"user": {"user"}}


def test_a_simple_graph_is_a_short_program() -> None:
    text = program_of(mail_graph()).text
    assert text == MAIL_PROGRAM


MAIL_PROGRAM = """\
# Graph 'LangGraph': each node is a tool.
s_user = in_user
s_inbox = in_inbox
s_summary = in_summary
s_urgent = in_urgent
s_status = in_status
# Node 'read_inbox'.
u = read_inbox()
s_inbox = u["inbox"]
# Node 'summarize'.
u = summarize(inbox=s_inbox)
s_summary = u["summary"]
s_urgent = u["urgent"]
r = pick__from__summarize(urgent=s_urgent)
if "archive:" in r["goto:"]:
  # Node 'archive'.
  u = archive()
  s_status = u["status"]
elif "send:" in r["goto:"]:
  # Node 'send'.
  u = send(user=s_user, summary=s_summary)
  s_status = u["status"]
# Node 'done'.
u = done(user=s_user)
s_status = u["status"]
final_return_value = {"user": s_user, "inbox": s_inbox, "summary": s_summary, "urgent": s_urgent, \
"status": s_status, "active:": False}
"""


# Field routers, fused routers, internal tools.


def test_a_field_router_needs_no_call() -> None:
    for graph in (mail_graph(BY_URGENCY), as_superstep(mail_graph(BY_URGENCY))):
        ran = run(graph, {**MAIL_ANSWERS, "aside": lambda _: {}}, {"user": "bob"})
        assert [one for one in ran.calls if one != "aside"] == [
            "read_inbox",
            "summarize",
            "send",
            "done",
        ]


BY_URGENCY = FieldRouter("urgent", {True: "send", False: "archive"})


@pytest.mark.parametrize("simple", [True, False])
def test_a_field_router_takes_no_route_for_an_unknown_value_and_raises_in_langgraph(
    simple: bool,
) -> None:
    graph = mail_graph(BY_URGENCY) if simple else as_superstep(mail_graph(BY_URGENCY))
    answers = {**MAIL_ANSWERS, "aside": lambda _: {}}
    answers["summarize"] = lambda _: {"summary": "short", "urgent": "perhaps"}
    ran = run(graph, answers)
    assert "summarize" in ran.calls
    assert not {"send", "archive"} & set(ran.calls)
    with pytest.raises(UsageError, match="`urgent` has no route"):
        graph.compile().builder.branches["summarize"]["by_urgent"].path.invoke(
            {"urgent": "perhaps"}
        )


@pytest.mark.parametrize(
    ("router", "reason"),
    [
        (FieldRouter("nowhere", {1: "send"}), "not a state field"),
        (FieldRouter("urgent", {True: "nowhere"}), "'nowhere', which is not a node"),
    ],
)
def test_a_field_router_with_an_unknown_field_or_target_is_refused(
    router: FieldRouter, reason: str
) -> None:
    with pytest.raises(GraphNotSupported, match=reason) as caught:
        program_of(mail_graph(router))
    assert caught.value.edge == ("summarize", f"by_{router.field}")


def test_a_field_router_with_a_path_map_is_refused() -> None:
    graph = StateGraph(Mail).add_node(send).add_edge(START, "send")
    graph.add_conditional_edges("send", FieldRouter("status", {"sent": END}), {END: END})
    with pytest.raises(GraphNotSupported, match="the routes are the path map"):
        program_of(graph)


def test_a_field_router_on_a_reducer_is_refused() -> None:
    class Logged(TypedDict):
        seen: Annotated[list[int], lambda old, new: new]

    graph = StateGraph(Logged).add_node("a", returns()).add_edge(START, "a")
    graph.add_conditional_edges("a", FieldRouter("seen", {1: "a"}))
    with pytest.raises(GraphNotSupported, match="whose reducer the program does not know"):
        program_of(graph)


def test_a_fused_router_runs_in_its_nodes_call() -> None:
    options = {"summarize": NodeOptions(fuse_router=True)}
    program = program_of(mail_graph(), options)
    tool = program.offered["summarize"]
    assert [one.name for one in tool.fused] == ["pick__from__summarize"]
    assert "pick__from__summarize" not in program.offered
    assert [one.name for one in tool.parameters] == ["inbox", "urgent"]
    answers = {
        **MAIL_ANSWERS,
        "summarize": lambda _: {"summary": "s", "urgent": False, **to("archive")},
    }
    ran = run(mail_graph(), answers, nodes=options)
    assert ran.calls == ["read_inbox", "summarize", "archive", "done"]


@pytest.mark.parametrize(
    ("node", "routers", "single"),
    [(returns(), 1, True), (returns(), 2, False), (lambda _: Command(goto="b"), 1, False)],
)
def test_a_node_names_one_target_if_only_its_one_fused_router_names_any(
    node: Any, routers: int, single: bool
) -> None:
    graph = StateGraph(State)
    for name in "bc":
        graph.add_node(name, returns())
    graph.add_node("a", node).add_edge(START, "a")
    for number in range(routers):
        path: Any = RunnableLambda(lambda _: "c", name=f"router {number}")
        graph.add_conditional_edges("a", path, ["c"])
    tool = program_of(graph, {"a": NodeOptions(fuse_router=True)}).offered["a"]
    assert (len(tool.fused), tool.single) == (routers, single)


def test_a_node_takes_the_reads_and_packets_of_a_fused_router_and_gets_only_its_own_reads() -> None:
    graph = StateGraph(State).add_node("a", lambda state: {"x": state["x"]})
    graph.add_node("w", returns()).add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: [Send("w", state["y"])], ["w"])
    program = program_of(graph, {"a": NodeOptions(fuse_router=True)})
    tool = program.offered["a"]
    assert (tool.reads, tool.own_reads) == (("x", "y"), frozenset({"x"}))
    assert tool.sends == frozenset({"w"})
    assert program.receivers == {"w"}


@pytest.mark.parametrize("is_fused", [False, True])
def test_a_router_that_always_names_the_same_node_adds_no_branch(is_fused: bool) -> None:
    graph = StateGraph(State).add_node("a", returns(x=1)).add_node("b", returns())
    graph.add_edge(START, "a").add_conditional_edges("a", lambda _: "b", ["b"])
    assert "if" not in program_of(graph, {"a": NodeOptions(fuse_router=is_fused)}).text


def test_a_fused_router_has_a_call_of_its_own_if_a_send_started_its_node() -> None:
    graph = (
        StateGraph(State)
        .add_node("a", returns())
        .add_node("w", returns(total=1))
        .add_edge(START, "a")
    )
    graph.add_conditional_edges("a", lambda state: [Send("w", {})], ["w"])
    graph.add_conditional_edges("w", lambda state: "a" if state["total"] > 9 else END)
    options = {"w": NodeOptions(fuse_router=True)}
    program = program_of(graph, options)
    (after,) = program.tools["w"].fused
    assert program.tools["w"].fused_in({"send_input": {}}) == ()
    answers: dict[str, Any] = {
        "a": lambda _: {},
        "condition__from__a": lambda _: packets(("w", {})),
        "w": lambda _: {"total": 1},
        after.name: lambda one: to() if one["total"] == 5 else to("a"),
    }
    ran = run(graph, answers, {"total": 4}, nodes=options)
    assert ran.calls == ["a", "condition__from__a", "w", after.name]


def test_a_node_without_a_router_to_fuse_is_refused() -> None:
    with pytest.raises(UsageError, match="'send': it has no router"):
        program_of(mail_graph(), {"send": NodeOptions(fuse_router=True)})


class Asked(TypedDict, total=False):
    query: str
    output_schema: dict[str, Any]
    answer: str


def test_an_internal_tool_is_called_in_place_of_a_node() -> None:
    graph = StateGraph(Asked).add_sequence(
        [("ask", returns()), ("use", lambda state: {"answer": state["answer"]})]
    )
    graph.set_entry_point("ask")
    reads = ["query", "output_schema"]
    options = NodeOptions(reads=reads, writes=["answer"], internal_tool="parse_with_ai")
    program = program_of(graph, {"ask": options})
    assert "u = parse_with_ai(query=s_query, output_schema=s_output_schema)\n" in program.text
    assert 'u = {"answer": u}\n' in program.text


def test_the_answer_of_an_internal_tool_is_passed_to_its_node() -> None:
    graph = StateGraph(Asked).add_sequence([("ask", returns()), ("use", returns())])
    options = NodeOptions(
        reads=["query", "output_schema"], writes=["answer"], internal_tool="parse_with_ai"
    )
    program = program_of(graph.set_entry_point("ask"), {"ask": options})
    assert set(program.offered) == {"ask", "use"}
    ask = program.offered["ask"]
    assert ask.is_handover
    assert [(one.name, one.field) for one in ask.parameters] == [("answer", "answer")]
    assert 'ask(answer=u["answer"])\n' in program.text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (NodeOptions(internal_tool="shell"), "Its tools are parse_with_ai"),
        (NodeOptions(internal_tool="parse_with_ai"), "declare its parameters and the one field"),
        (NodeOptions(tool_name="class"), "is not a free name"),
        (NodeOptions(tool_name="use"), ""),
        (NodeOptions(tool_name="print"), "is not a free name"),
        (NodeOptions(tool_name="a-b"), "is not a free name"),
        (NodeOptions(tool_name="x" * 65), "is not a free name"),
    ],
)
def test_invalid_options_of_a_node_are_refused(options: NodeOptions, reason: str) -> None:
    graph = StateGraph(Asked).add_sequence([("ask", returns()), ("use", returns())])
    graph.set_entry_point("ask")
    if not reason:  # a requested name has priority over another node's name
        assert set(program_of(graph, {"ask": options}).offered) == {"use", "use_2"}
        return
    with pytest.raises(UsageError, match=reason):
        program_of(graph, {"ask": options})


def test_the_name_of_a_tool_has_at_most_64_characters() -> None:
    graph = StateGraph(Asked).add_sequence([("ask", returns()), ("y" * 64, returns())])
    graph.set_entry_point("ask")
    names = program_of(graph, {"ask": NodeOptions(tool_name="x" * 64)}).offered
    assert set(names) == {"x" * 64, "y" * 64}


def test_two_nodes_cannot_have_the_same_tool_name() -> None:
    graph = StateGraph(Asked).add_sequence([("ask", returns()), ("use", returns())])
    with pytest.raises(UsageError, match="'use' is not a free name"):
        program_of(
            graph.set_entry_point("ask"), dict.fromkeys(["ask", "use"], NodeOptions(tool_name="t"))
        )


# Steps.


def test_all_nodes_of_a_step_read_the_state_from_before_the_step() -> None:
    graph = StateGraph(State)
    graph.add_node("a", lambda state: {"x": state["y"]}).add_node(
        "b", lambda state: {"y": state["x"]}
    )
    graph.add_edge(START, "a").add_edge(START, "b")
    ran = run(
        graph,
        {"a": lambda one: {"x": one["y"]}, "b": lambda one: {"y": one["x"]}},
        {"x": 1, "y": 2},
    )
    assert (ran.final["x"], ran.final["y"], len(ran.calls)) == (2, 1, 2)


def test_all_nodes_of_a_step_are_called_before_any_result_is_taken() -> None:
    graph = StateGraph(State)
    for name in "abc":
        graph.add_node(name, returns(names=[]))
    graph.add_edge(START, "a").add_edge(START, "b").add_edge("b", "c")
    ran = ran_of(graph)
    assert ran.order == [
        ("call", "a"), ("call", "b"), ("result", "a"), ("result", "b"), ("call", "c"),
    ]  # fmt: skip


def test_all_sends_of_a_step_are_called_before_any_result_is_taken() -> None:
    def fan(state: State) -> Any:
        return [Send("worker", {}), Send("worker", {})]

    graph = StateGraph(State).add_node("a", returns()).add_node("worker", returns(names=[]))
    graph.add_edge(START, "a").add_conditional_edges("a", fan, ["worker"])
    sent = packets(("worker", {}), ("worker", {}))
    ran = ran_of(graph, fan__from__a=lambda _: sent)
    assert ran.order[2:] == [("call", "worker")] * 2 + [("result", "worker")] * 2


def test_nodes_that_are_kept_apart_run_one_after_the_other() -> None:
    graph = StateGraph(State).add_node("a", returns()).add_node("b", returns())
    graph.add_edge(START, "a").add_edge(START, "b")
    apart = compile_graph(read_graph(graph), {}, lambda tool, _: "a rule" if tool == "a" else "")
    assert apart.offered["a"].not_split == "a rule"
    assert apart.text.count(" = a(") == 1
    assert apart.text.count(" = b(") == 2
    neither = compile_graph(read_graph(graph), {}, lambda *_: "a rule")
    assert "result_of" not in neither.offered
    assert "result_of" not in neither.text


def test_branches_of_different_lengths_run_their_target_twice_but_a_join_once() -> None:
    def graph(*, is_join: bool) -> StateGraph[Any, Any, Any, Any]:
        made = StateGraph(State)
        for name in "abcd":
            made.add_node(name, returns(names=[]))
        made.add_edge(START, "a").add_edge(START, "b").add_edge("b", "c")
        if is_join:
            return made.add_edge(["a", "c"], "d")
        return made.add_edge("a", "d").add_edge("c", "d")

    assert names_of(graph(is_join=False)) == ["a", "b", "c", "d", "d"]
    assert names_of(graph(is_join=True)) == ["a", "b", "c", "d"]


def test_a_join_with_a_source_that_never_runs_never_runs() -> None:
    graph = StateGraph(State)
    for name in "abc":
        graph.add_node(name, returns(names=[]))
    graph.add_edge(START, "a").add_edge(["a", "b"], "c")
    assert names_of(graph) == ["a"]


def test_a_deferred_node_waits_for_all_other_nodes_but_not_for_sends() -> None:
    def fan(state: State) -> Any:
        return [Send("worker", {}), Send("worker", {})]

    graph = StateGraph(State)
    graph.add_node("a", returns()).add_node("worker", returns(names=[])).add_node(
        "last", returns(names=[]), defer=True
    )
    graph.add_edge(START, "a").add_edge("a", "last").add_edge(
        "worker", "last"
    ).add_conditional_edges("a", fan)
    calls = names_of(graph, fan__from__a=lambda _: packets(("worker", {}), ("worker", {})))
    assert calls == ["a", "fan__from__a", "last", "worker", "worker", "last"]


def test_a_send_has_its_own_input() -> None:
    graph = (
        StateGraph(State)
        .add_node("a", returns())
        .add_node("w", lambda state: {"total": state["x"]})
    )
    graph.add_edge(START, "a").add_conditional_edges("a", lambda state: [Send("w", {"x": 1})])
    answers = {
        "a": lambda _: {},
        "condition__from__a": lambda _: packets(("w", {"x": 7}), ("w", {}), rest={"more": 1}),
        "w": lambda _: {"total": 2},
    }
    ran = run(graph, answers)
    assert ran.arguments[2:] == [
        {"x": 7, "send_input": {"more": 1}},
        {"x": "__absent__", "send_input": {"more": 1}},
    ]
    assert ran.final["total"] == 4


def test_a_router_sees_the_writes_of_its_node_but_not_of_parallel_nodes() -> None:
    graph = StateGraph(State)
    graph.add_node("a", returns(total=1)).add_node("b", returns(total=1)).add_edge(
        START, "a"
    ).add_edge(START, "b")
    graph.add_conditional_edges("b", lambda state: "a" if state["total"] > 9 else END)
    answers = {
        "a": lambda _: {"total": 5},
        "b": lambda _: {"total": 1},
        "condition__from__b": lambda _: to(),
    }
    ran = run(graph, answers, {"total": 1})
    assert ran.arguments[-1] == {"total": 2}
    assert ran.final["total"] == 7


@pytest.mark.parametrize("limit", [1, 3, 25, 500])
def test_a_cycle_runs_as_many_steps_as_the_limit_allows(limit: int) -> None:
    graph = (
        StateGraph(State).add_node("a", returns(total=1)).add_edge(START, "a").add_edge("a", "a")
    )
    ran = run(graph, {"a": lambda _: {"total": 1}}, limit=limit)
    assert (ran.final["total"], len(ran.calls), ran.final["active:"]) == (limit, limit, True)


def test_the_nested_loops_of_a_program_have_enough_rounds_for_all_its_steps() -> None:
    assert ROUNDS_PER_LOOP**3 >= STEPS_PER_PROGRAM


@pytest.mark.parametrize(("limit", "active"), [(3, True), (4, False)])
def test_a_run_that_uses_all_its_steps_says_whether_work_is_left(limit: int, active: bool) -> None:
    answers = {**counting(3), "aside": lambda _: {}}
    for graph in (chain(3), as_superstep(chain(3))):
        at = entry_of(graph, program_of(graph))
        assert run(graph, answers, at=at, limit=limit).final["active:"] is active


def test_a_straight_line_program_ends_without_work_left() -> None:
    assert run(chain(3), counting(3), limit=1).final == {
        "total": 3, "active:": False, **dict.fromkeys(["x", "y"], ABSENT), "names": [],
    }  # fmt: skip


def test_the_number_of_remaining_steps_is_not_an_argument_of_a_call() -> None:
    class Counted(TypedDict, total=False):
        left: RemainingSteps
        last: IsLastStep
        total: Annotated[int, operator.add]

    graph = StateGraph(Counted).add_node(
        "a", lambda state: {"total": state["total"] + state["left"] + state["last"]}
    )
    graph.add_edge(START, "a").add_edge("a", "a")
    ran = run(graph, {"a": lambda _: {"total": 1}}, limit=2)
    assert ran.arguments == [{"total": 0}, {"total": 1}]


# The beginning of a run.


def test_a_run_begins_with_the_nodes_that_are_due() -> None:
    for graph in (chain(4), as_superstep(chain(4))):
        tokens = program_of(graph).tokens
        at = {"begins": False, "start_at": [tokens["n2"]]}
        assert names_of(graph, at=at, **counting(4)) == ["n2", "n3"]


def test_a_run_that_begins_in_the_middle_reads_the_state_that_is_given() -> None:
    graph = mail_graph()
    at = {"begins": False, "start_at": [program_of(graph).tokens["send"]]}
    ran = run(graph, MAIL_ANSWERS, {"user": "bob", "summary": "short"}, at=at)
    assert ran.arguments == [{"user": "bob", "summary": "short"}, {"user": "bob"}]


def test_routers_of_start_are_called_only_if_the_run_begins_at_start() -> None:
    def way(state: State) -> str:
        return "a" if state["x"] else "b"

    graph = StateGraph(State).add_node("a", returns(names=[])).add_node("b", returns(names=[]))
    graph.add_conditional_edges(START, way, ["a", "b"])
    tokens = program_of(graph).tokens
    assert names_of(graph, way__from__start=lambda _: to("b")) == ["way__from__start", "b"]
    at = {"begins": False, "start_at": [tokens["a"]]}
    assert names_of(graph, at=at) == ["a"]


def test_a_run_begins_with_the_sends_that_are_due() -> None:
    graph = StateGraph(State).add_node("a", returns())
    graph.add_node("w", lambda state: {"total": state["x"]}).add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: [Send("w", {"x": 1})], ["w"])
    token = program_of(graph).tokens["w"]
    due = [{"node": token, "fields": {"x": one}, "input": ABSENT} for one in (7, 8)]
    at = {"begins": False, "start_at": [], "packets": due}
    ran = run(graph, {"w": lambda one: {"total": one["x"]}}, at=at)
    assert [(one["x"], ran.final["total"]) for one in ran.arguments] == [(7, 15), (8, 15)]


def test_an_incomplete_join_waits_only_for_its_missing_sources() -> None:
    graph = StateGraph(State)
    for name in "abc":
        graph.add_node(name, returns(names=[]))
    graph.add_edge(START, "a").add_edge(["a", "b"], "c")
    program = program_of(graph)
    at = {"begins": False, "start_at": [program.tokens["b"]]}
    flags = {source: flag for (_, source), flag in program.flags.items()}
    assert names_of(graph, at=at) == ["b"]
    assert names_of(graph, at={**at, "came": {flags["a"]: True}}) == ["b", "c"]


def test_a_run_can_begin_at_a_node_without_incoming_edges() -> None:
    graph = chain(2).add_sequence([("m0", returns(total=1)), ("m1", returns(total=1))])
    at = {"begins": False, "start_at": [program_of(graph).tokens["m0"]]}
    answers = counting(2) | {"m0": lambda _: {"total": 1}, "m1": lambda _: {"total": 1}}
    assert names_of(graph, at=at, **answers) == ["m0", "m1"]


def test_the_log_of_an_ephemeral_field_has_an_entry_for_each_step() -> None:
    class Flash(TypedDict, total=False):
        flash: Annotated[int, EphemeralValue]

    graph = StateGraph(Flash)
    graph.add_sequence([("a", lambda state: {"flash": 1}), ("b", lambda state: None)])
    graph.set_entry_point("a")
    answers = {"a": lambda _: {"flash": [1]}, "b": lambda _: {}}
    ran = run(graph, answers, {"flash": [{"value": 0}]})
    assert ran.final["flash"] == [{"value": 0}, [1], []]


def test_no_edge_is_followed_after_the_result_of_an_error_handler() -> None:
    def handler(state: State, error: Any) -> Any:
        return {"x": 2}

    graph = (
        StateGraph(State)
        .add_node("a", returns(x=1), error_handler=handler)
        .add_node("b", returns())
    )
    graph.add_edge(START, "a").add_edge("a", "b")
    assert run(graph, {"a": lambda _: {"x": 1}, "b": lambda _: {}}).calls == ["a", "b"]
    assert run(graph, {"a": lambda _: {"x": 2, "handled:": True}, "b": lambda _: {}}).calls == ["a"]


def test_undeclared_targets_are_found_by_their_tokens() -> None:
    def go(state: State) -> Any:
        return Command(goto=state["x"])

    graph = (
        StateGraph(State)
        .add_node("a", go)
        .add_node("aa", returns())
        .add_node("b", go)
        .add_edge(START, "a")
    )
    answers: dict[str, Any] = {
        "a": lambda _: {"goto:": ["b:"]},
        "b": lambda _: {"goto:": ["aa:"]},
        "aa": lambda _: {},
    }
    assert run(graph, answers).calls == ["a", "b", "aa"]


def test_the_result_of_an_error_handler_does_not_stop_what_another_node_started() -> None:
    graph = StateGraph(State)
    graph.add_node("a", returns()).add_node("b", returns(), error_handler=lambda _: None)
    graph.add_node("c", returns()).add_edge(START, "a").add_edge(START, "b")
    graph.add_edge("a", "c").add_edge("b", "c")
    assert names_of(graph, b=lambda _: {"handled:": True}) == ["a", "b", "c"]


def test_each_of_two_field_routers_may_start_a_node() -> None:
    graph = StateGraph(State)
    for name in "abc":
        graph.add_node(name, returns())
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", FieldRouter("x", {1: "b", 2: "c"}))
    graph.add_conditional_edges("a", FieldRouter("y", {1: "b", 2: "c"}))
    answers: dict[str, Any] = {name: lambda _: {} for name in "abc"}
    for x, y in ((1, 1), (1, 2), (2, 1), (2, 2)):
        started = sorted({"bc"[x - 1], "bc"[y - 1]})
        assert run(graph, answers, {"x": x, "y": y}).calls == ["a", *started]


# Deferred nodes.


def waiting(*edges: str, deferred: str = "z", **nodes: Any) -> StateGraph[Any, Any, Any, Any]:
    """A graph with edges such as "a>b". Nodes with the names in `deferred` wait."""
    graph = StateGraph(State)
    names = {name for edge in edges for name in edge.split(">") if name != START}
    for name in sorted(names | nodes.keys()):
        graph.add_node(name, nodes.get(name, returns()), defer=name in deferred)
    for edge in edges:
        graph.add_edge(*edge.split(">"))
    return graph


def goes(state: State) -> Any:
    return Command(goto=state["x"])


def sends(state: State) -> Any:
    return [Send("w", {})]


def test_a_deferred_node_keeps_its_complete_join_until_all_other_nodes_are_done() -> None:
    graph = waiting(f"{START}>a", f"{START}>b", "a>c", "c>d", deferred="z", z=returns())
    assert names_of(graph.add_edge(["a", "b"], "z")) == ["a", "b", "c", "d", "z"]


def test_a_deferred_node_that_a_command_names_waits_too() -> None:
    graph = waiting(f"{START}>a", f"{START}>b", "b>c", "c>d", a=goes, z=returns())
    assert names_of(graph, a=lambda _: {"goto:": ["z:"]}) == ["a", "b", "c", "d", "z"]


def test_a_ready_node_runs_before_nodes_that_have_begun_to_wait_since() -> None:
    graph = waiting("a>b", "b>c", "c>d", "y>x", "x>y", f"{START}>z", deferred="yz")
    program = program_of(graph)
    at = {"begins": False, "start_at": ["y:", "z:"], "came": {program.ready["y"]: True}}
    assert names_of(graph, at=at)[:3] == ["y", "x", "y"]
    at["start_at"] = ["a:", "y:"]
    assert names_of(graph, at=at)[:7] == ["a", "y", "b", "x", "c", "d", "y"]
    assert names_of(graph, at={**at, "came": {}})[:5] == ["a", "b", "c", "d", "y"]


def test_packets_from_outside_run_before_a_waiting_node() -> None:
    graph = waiting(f"{START}>z", w=returns()).add_conditional_edges("z", sends, ["w"])
    answers: dict[str, Any] = {"sends__from__z": lambda _: to()}
    due = [{"node": "w:", "fields": {}, "input": ABSENT}]
    at = {"begins": False, "start_at": ["z:"], "packets": due}
    assert names_of(graph, at=at, **answers) == ["w", "z", "sends__from__z"]
    assert names_of(graph, **answers) == ["z", "sends__from__z"]


# Overwriting a sum.


def test_an_overwrite_replaces_everything_that_its_step_added() -> None:
    def over(state: State) -> Any:
        return {"total": Overwrite(state["total"])}

    graph = (
        StateGraph(State)
        .add_node("a", returns(total=1))
        .add_node("b", over)
        .add_node("c", returns(total=1))
    )
    graph.add_edge(START, "a").add_edge(START, "b").add_edge(START, "c")
    assert program_of(graph).fields.overwritable == {"total"}
    answers: dict[str, Any] = {
        "a": lambda _: {"total": 1},
        "b": lambda _: {"=total": 50},
        "c": lambda _: {"total": 100},
    }
    assert run(graph, answers, {"total": 7}).final["total"] == 50
    later = graph.add_node("d", returns(total=1)).add_edge("a", "d").add_edge("c", "e")
    later.add_node("e", returns(total=1))
    answers |= {"d": lambda _: {"total": 1}, "e": lambda _: {"total": 2}}
    assert run(later, answers, {"total": 7}).final["total"] == 53


# Names.

HOSTILE = [
    "x = 1\nimport os", "a\nfinal_return_value = 1", "it's", 'say "hi"', "back\\slash", "my node", "fetch-data", "2nd",
    "if", "class", "len", "print", "parse_with_ai", "final_return_value", "recursion_limit", "u", "r", "error", "steps",
    "active", "i", "j", "k", "sent", "packet", "packets", "gotos", "busy", "s_x", "in_x", "n_x", "go_a", "run_a", "t", "ta",
    "begins", "start_at", "start_packets", "came", "stop_after", "most_packets", "packet_count", "wide", "some", "handle", "handles", "handle_a", "number",
    "result_of", "took_edges", "tä", "节点", "\u202eevil", "\u200b", "#", "'''", "{}", "a" * 300, "a" * 299 + "b", "value",
]  # fmt: skip


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("is_cycle", [False, True])
def test_hostile_node_names_cannot_change_the_text_of_a_program(is_cycle: bool) -> None:
    graph = StateGraph(State)
    graph.add_sequence([(name, lambda state: {"names": ["n"]}) for name in HOSTILE])
    graph.set_entry_point(HOSTILE[0])
    if is_cycle:
        graph.add_conditional_edges(
            HOSTILE[-1], lambda state: HOSTILE[0] if not state["names"] else END
        )
    program = program_of(graph)
    assert program.text.isascii()
    assert "import os" not in program.text.replace("\\nimport os", "")
    nodes = {tool.node: name for name, tool in program.offered.items() if tool.role == "node"}
    assert list(nodes) == sorted(HOSTILE)
    answers: dict[str, Any] = {name: lambda _: {"names": [""]} for name in nodes.values()}
    router = next((one for one in program.offered if one not in answers), "")
    ran = run(graph, answers | {router: lambda _: to()}, limit=100)
    assert ran.calls[: len(HOSTILE)] == [nodes[name] for name in HOSTILE]
    tokens = list(program.tokens.values())
    assert not any(one != other and other.startswith(one) for one in tokens for other in tokens)


def test_hostile_field_names_cannot_change_the_text_of_a_program() -> None:
    fields = [*HOSTILE, "__class__", "__absent__", "send_input", "state", "goto:", "=total"]
    schema = TypedDict("schema", dict.fromkeys(fields, int), total=False)  # type: ignore[misc]
    node = NodeOptions(reads=fields, writes=fields)
    graph = (
        StateGraph(schema)
        .add_node("a", lambda state: state)
        .add_edge(START, "a")
        .add_edge("a", "a")
    )
    program = program_of(graph, {"a": node})
    keys = list(program.fields.keys.values())
    assert len(set(keys)) == len(fields)
    assert all(key.isidentifier() and key.isascii() and len(key) <= 64 for key in keys)
    assert program.text.isascii()
    ran = run(graph, {"a": lambda one: one}, dict.fromkeys(fields, 1), nodes={"a": node}, limit=2)
    assert {key: ran.final[key] for key in keys} == dict.fromkeys(keys, 1)


@pytest.mark.long
@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.text(min_size=1, max_size=30).filter(lambda one: not set(one) & {":", "|"}),
        min_size=1,
        max_size=5,
        unique=True,
    )
)
def test_any_node_names_give_a_valid_program(names: list[str]) -> None:
    names = [name for name in names if not name.startswith("__") and name != "*"] or ["a"]
    graph = StateGraph(State).add_sequence(
        [(name, lambda state: {"names": ["n"]}) for name in names]
    )
    program = program_of(graph.set_entry_point(names[0]))
    nodes = {tool.node: name for name, tool in program.offered.items()}
    assert names_of(graph) == [nodes[name] for name in names]


def test_a_tool_has_the_name_of_its_node_if_that_name_is_valid_and_free() -> None:
    graph = StateGraph(State).add_sequence(
        [(name, returns()) for name in ("a b", "a_b", "if", "fetch")]
    )
    program = program_of(graph.set_entry_point("fetch"))
    assert {tool.node: name for name, tool in program.offered.items()} == {
        "a_b": "a_b", "a b": "a_b_2", "fetch": "fetch", "if": "if_2",
    }  # fmt: skip


# The text.

SCRIPT = """
import operator
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
from langchain_sequrity.graph.codegen.compiler import compile_graph
from langchain_sequrity.graph.options import NodeOptions
from langchain_sequrity.graph.analysis.spec import read_graph

class State(TypedDict):
    names: Annotated[list, operator.add]
    x: int

graph = StateGraph(State)
options = {}
for name in "abcdefgh":
    graph.add_node(name, lambda state: state)
    graph.add_edge(START, name)
    options[name] = NodeOptions(reads={"x", "names"}, writes={"names", "x"})
graph.add_edge(["c", "a"], "b").add_edge(["a", "c"], "b").add_conditional_edges("d", lambda s: s["x"], ["e", "f"])
program = compile_graph(read_graph(graph), options)
tools = [(t.name, t.parameters, t.writes, sorted(t.targets or "")) for t in program.offered.values()]
print(program.text, tools)
"""


def test_the_text_is_the_same_in_every_process() -> None:
    processes = [
        subprocess.Popen(  # noqa: S603 - our own text
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("0", "1")
    ]
    texts = {process.communicate()[0] for process in processes}
    assert len(texts) == 1
    assert "run_h" in texts.pop()


def diamonds(number: int, *, is_annotated: bool = True) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(State).add_node("n0", returns(total=1)).add_edge(START, "n0")
    for one in range(number):
        left, right, last = f"l{one}", f"r{one}", f"n{one + 1}"
        for name in (left, right, last):
            graph.add_node(name, returns(total=1))
        choose = (lambda state: state["x"] > 1) if is_annotated else (lambda state: state["x"])
        graph.add_conditional_edges(f"n{one}", choose, {True: left, False: right})
        graph.add_edge(left, last).add_edge(right, last)
    return graph


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("is_annotated", [True, False])
def test_the_text_grows_linearly_with_the_graph(is_annotated: bool) -> None:
    sizes = [len(program_of(diamonds(one, is_annotated=is_annotated)).text) for one in (10, 20, 40)]
    assert sizes[2] - sizes[1] < 2.3 * (sizes[1] - sizes[0])
    assert sizes[2] < 70_000  # 121 nodes


def exits(number: int) -> StateGraph[Any, Any, Any, Any]:
    """A row of conditional edges; each of them may end the run."""
    graph = StateGraph(State)
    for one in range(number):
        graph.add_node(f"n{one}", returns(total=1))
    graph.add_node(f"n{number}", returns()).add_edge(START, "n0")
    for one in range(number):
        graph.add_conditional_edges(
            f"n{one}", lambda state: state["x"] > 1, {True: f"n{one + 1}", False: END}
        )
    return graph


def test_a_hundred_conditional_edges_in_a_row_are_a_program() -> None:
    graph = exits(100)
    answers: dict[str, Any] = {
        name: (lambda _: {"total": 1})
        if tool.role == "node"
        else (lambda _, name=name: to("n" + str(int(name.split("__n")[-1]) + 1)))
        for name, tool in program_of(graph).tools.items()
    }
    ran = run(graph, answers, limit=200)
    nodes = [name for name in ran.calls if name in graph.nodes]
    assert (len(nodes), ran.final["total"]) == (101, 100)


def test_many_field_routers_in_a_row_stay_within_pythons_nesting_limit() -> None:
    graph = StateGraph(State).add_node("n0", returns(x=1)).add_edge(START, "n0")
    for one in range(60):
        graph.add_node(f"n{one + 1}", returns(x=1))
        graph.add_conditional_edges(f"n{one}", FieldRouter("x", {1: f"n{one + 1}"}))
    answers = {f"n{one}": (lambda _: {"x": 1}) for one in range(61)}
    assert run(graph, answers, limit=100).calls == list(answers)


def test_a_graph_whose_branches_share_nodes_writes_each_node_once() -> None:
    graph = StateGraph(State)
    for name in "abcdef":
        graph.add_node(name, returns(names=[]))
    graph.add_edge(START, "a").add_conditional_edges(
        "a", lambda state: state["x"] > 1, {True: "b", False: "c"}
    )
    graph.add_conditional_edges("c", lambda state: state["x"] > 1, {True: "d", False: "e"})
    graph.add_edge("b", "d").add_edge("d", "f").add_edge("e", "f")
    program = program_of(graph)
    assert (program.kind, program.text.count(" = d(")) == ("superstep", 1)


def test_compiling_does_not_change_the_builder() -> None:
    graph = mail_graph()
    graph.set_node_defaults(error_handler=lambda state, error: None)
    before = {name: repr(value) for name, value in vars(graph).items()}
    program_of(graph)
    assert {name: repr(value) for name, value in vars(graph).items()} == before
    graph.compile()


def test_a_program_that_can_begin_anywhere_stays_within_the_limits_of_the_parser() -> None:
    for number in (120, 150):
        parse(compile_graph(read_graph(exits(number)), {}).that_begins_at("state").text)
