"""Graphs as programs: what the text says and how it runs."""

# ruff: noqa: ARG001, ARG005 - a node takes the state whether it looks at it or not

import operator
import os
import subprocess
import sys
from typing import Annotated, Any, Literal, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.channels import EphemeralValue
from langgraph.graph import END, START, StateGraph
from langgraph.managed import IsLastStep, RemainingSteps
from langgraph.types import Command, Overwrite, Send

from langchain_sequrity.errors import GraphNotSupported, UsageError
from langchain_sequrity.graph.compiling.superstep import MOST_STEPS
from langchain_sequrity.graph.options import FieldRouter, NodeOptions
from langchain_sequrity.graph.program import Program
from tests.graph.compiled import packets, program_of, run, to


class State(TypedDict, total=False):
    x: int
    y: int
    total: Annotated[int, operator.add]
    names: Annotated[list[str], operator.add]


def returns(**update: Any) -> Any:
    """A node that always returns this; its source says so."""
    keys = frozenset(update)
    nodes = {
        frozenset({"x"}): lambda state: {"x": 1},
        frozenset({"y"}): lambda state: {"y": 1},
        frozenset({"total"}): lambda state: {"total": 1},
        frozenset({"names"}): lambda state: {"names": ["n"]},
        frozenset[str](): lambda state: None,
    }
    return nodes[keys]


def chain(length: int) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(State)
    graph.add_sequence([(f"n{one}", returns(total=1)) for one in range(length)])
    return graph.set_entry_point("n0")


def names_of(program: Program, limit: int = 25, **answers: Any) -> list[str]:
    """Tools in the order they are called; each node answers with its own name."""
    known: dict[str, Any] = {
        name: lambda _, key=tool.writes: {one: ["n"] for one in key}
        for name, tool in program.tools.items()
    }
    return run(program, known | answers, limit=limit).calls


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
    """The same graph with a node beside it, so that it is no simple one."""
    return graph.add_node("aside", returns()).add_edge(START, "aside")


@pytest.mark.parametrize("kind", ["structured", "superstep"])
def test_labels_of_an_argument_are_the_nodes_it_depends_on(kind: str) -> None:
    program = program_of(mail_graph() if kind == "structured" else as_superstep(mail_graph()))
    assert program.kind == kind
    ran = run(program, {**MAIL_ANSWERS, "aside": lambda _: {}}, {"user": "bob"})
    assert ran.producers("read_inbox") == {}
    assert ran.producers("summarize") == {"inbox": {"read_inbox"}}
    assert ran.producers("pick__from__summarize") == {"urgent": {"read_inbox", "summarize"}}
    assert ran.producers("send") == {"user": {"user"}, "summary": {"read_inbox", "summarize"}}
    assert ran.producers("done") == {"user": {"user"}}
    assert ran.final["status"] == "done"


def test_what_follows_a_closed_branch_does_not_stand_under_it() -> None:
    ran = run(program_of(mail_graph()), MAIL_ANSWERS, {"user": "bob"}, is_strict=True)
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
error = ""
steps = 0
# Node 'read_inbox'.
steps = steps + 1
u = read_inbox()
s_inbox = u["inbox"]
# Node 'summarize'.
steps = steps + 1
u = summarize(inbox=s_inbox)
s_summary = u["summary"]
s_urgent = u["urgent"]
r = pick__from__summarize(urgent=s_urgent)
if "archive:" in r["goto:"]:
  # Node 'archive'.
  steps = steps + 1
  u = archive()
  s_status = u["status"]
elif "send:" in r["goto:"]:
  # Node 'send'.
  steps = steps + 1
  u = send(user=s_user, summary=s_summary)
  s_status = u["status"]
# Node 'done'.
steps = steps + 1
u = done(user=s_user)
s_status = u["status"]
final_return_value = {"user": s_user, "inbox": s_inbox, "summary": s_summary, "urgent": s_urgent, \
"status": s_status, "error:": error, "steps:": steps, "active:": steps >= recursion_limit}
"""


# Field routers, fused routers, internal tools.


def test_a_field_router_needs_no_call() -> None:
    for graph in (mail_graph(BY_URGENCY), as_superstep(mail_graph(BY_URGENCY))):
        ran = run(program_of(graph), {**MAIL_ANSWERS, "aside": lambda _: {}}, {"user": "bob"})
        assert [one for one in ran.calls if one != "aside"] == [
            "read_inbox",
            "summarize",
            "send",
            "done",
        ]
        assert ran.final["error:"] == ""


BY_URGENCY = FieldRouter("urgent", {True: "send", False: "archive"})


@pytest.mark.parametrize("simple", [True, False])
def test_a_value_without_a_route_ends_the_run_with_an_error(simple: bool) -> None:
    graph = mail_graph(BY_URGENCY) if simple else as_superstep(mail_graph(BY_URGENCY))
    answers = {**MAIL_ANSWERS, "aside": lambda _: {}}
    answers["summarize"] = lambda _: {"summary": "short", "urgent": "perhaps"}
    ran = run(program_of(graph), answers)
    assert (ran.calls[-1], ran.final["error:"]) == ("summarize", "unrouted:urgent")
    with pytest.raises(UsageError, match="`urgent` has no route"):
        graph.compile().builder.branches["summarize"]["by_urgent"].path.invoke(
            {"urgent": "perhaps"}
        )


@pytest.mark.parametrize(
    ("router", "reason"),
    [
        (FieldRouter("nowhere", {1: "send"}), "no field of the state"),
        (FieldRouter("urgent", {True: "nowhere"}), "'nowhere', which is no node"),
    ],
)
def test_a_field_router_that_leads_nowhere_is_refused(router: FieldRouter, reason: str) -> None:
    with pytest.raises(GraphNotSupported, match=reason) as caught:
        program_of(mail_graph(router))
    assert caught.value.edge == ("summarize", f"by_{router.field}")


def test_a_field_router_on_a_reducer_is_refused() -> None:
    class Logged(TypedDict):
        seen: Annotated[list[int], lambda old, new: new]

    graph = StateGraph(Logged).add_node("a", returns()).add_edge(START, "a")
    graph.add_conditional_edges("a", FieldRouter("seen", {1: "a"}))
    with pytest.raises(GraphNotSupported, match="whose reducer the program does not know"):
        program_of(graph)


def test_a_fused_router_runs_in_its_nodes_call() -> None:
    program = program_of(mail_graph(), {"summarize": NodeOptions(fuse_router=True)})
    tool = program.tools["summarize"]
    assert [one.name for one in tool.fused] == ["pick__from__summarize"]
    assert "pick__from__summarize" not in program.tools
    assert [one.name for one in tool.parameters] == ["inbox", "urgent"]
    answers = {
        **MAIL_ANSWERS,
        "summarize": lambda _: {"summary": "s", "urgent": False, **to("archive")},
    }
    assert run(program, answers).calls == ["read_inbox", "summarize", "archive", "done"]


def test_a_fused_router_is_called_after_all_where_a_packet_started_its_node() -> None:
    graph = (
        StateGraph(State)
        .add_node("a", returns())
        .add_node("w", returns(total=1))
        .add_edge(START, "a")
    )
    graph.add_conditional_edges("a", lambda state: [Send("w", {})], ["w"])
    graph.add_conditional_edges("w", lambda state: "a" if state["total"] > 9 else END)
    program = program_of(graph, {"w": NodeOptions(fuse_router=True)})
    (after,) = program.tools["w"].fused
    assert program.tools["w"].fused_in({"send_input": {}}) == ()
    answers: dict[str, Any] = {
        "a": lambda _: {},
        "condition__from__a": lambda _: packets(("w", {})),
        "w": lambda _: {"total": 1},
        after.name: lambda one: to() if one["total"] == 5 else to("a"),
    }
    ran = run(program, answers, {"total": 4})
    assert ran.calls == ["a", "condition__from__a", "w", after.name]


def test_there_must_be_a_router_to_fuse() -> None:
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
    assert set(program.tools) == {"use"}
    assert "u = parse_with_ai(query=s_query, output_schema=s_output_schema)\n" in program.text
    assert 'u = {"answer": u}\n' in program.text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (NodeOptions(internal_tool="shell"), "the service's own tools are parse_with_ai"),
        (NodeOptions(internal_tool="parse_with_ai"), "declare its parameters and the one field"),
        (NodeOptions(tool_name="class"), "is no free name"),
        (NodeOptions(tool_name="use"), ""),
        (NodeOptions(tool_name="print"), "is no free name"),
        (NodeOptions(tool_name="a-b"), "is no free name"),
        (NodeOptions(tool_name="x" * 65), "is no free name"),
    ],
)
def test_options_that_cannot_be_are_refused(options: NodeOptions, reason: str) -> None:
    graph = StateGraph(Asked).add_sequence([("ask", returns()), ("use", returns())])
    graph.set_entry_point("ask")
    if not reason:  # a node gives way to a name that was asked for
        assert set(program_of(graph, {"ask": options}).tools) == {"use", "use_2"}
        return
    with pytest.raises(UsageError, match=reason):
        program_of(graph, {"ask": options})


def test_two_nodes_cannot_ask_for_one_name() -> None:
    graph = StateGraph(Asked).add_sequence([("ask", returns()), ("use", returns())])
    with pytest.raises(UsageError, match="'use' is no free name"):
        program_of(
            graph.set_entry_point("ask"), dict.fromkeys(["ask", "use"], NodeOptions(tool_name="t"))
        )


# Steps.


def test_a_step_reads_the_state_as_it_was_before_it() -> None:
    graph = StateGraph(State)
    graph.add_node("a", lambda state: {"x": state["y"]}).add_node(
        "b", lambda state: {"y": state["x"]}
    )
    graph.add_edge(START, "a").add_edge(START, "b")
    ran = run(
        program_of(graph),
        {"a": lambda one: {"x": one["y"]}, "b": lambda one: {"y": one["x"]}},
        {"x": 1, "y": 2},
    )
    assert (ran.final["x"], ran.final["y"], ran.final["steps:"]) == (2, 1, 1)


def test_uneven_arms_run_their_sink_twice_and_a_join_once() -> None:
    def graph(*, is_join: bool) -> StateGraph[Any, Any, Any, Any]:
        made = StateGraph(State)
        for name in "abcd":
            made.add_node(name, returns(names=[]))
        made.add_edge(START, "a").add_edge(START, "b").add_edge("b", "c")
        if is_join:
            return made.add_edge(["a", "c"], "d")
        return made.add_edge("a", "d").add_edge("c", "d")

    assert names_of(program_of(graph(is_join=False))) == ["a", "b", "c", "d", "d"]
    assert names_of(program_of(graph(is_join=True))) == ["a", "b", "c", "d"]


def test_a_join_that_never_fills_never_fires() -> None:
    graph = StateGraph(State)
    for name in "abc":
        graph.add_node(name, returns(names=[]))
    graph.add_edge(START, "a").add_edge(["a", "b"], "c")
    assert names_of(program_of(graph)) == ["a"]


def test_a_deferred_node_waits_for_all_others_but_not_for_packets() -> None:
    def fan(state: State) -> Any:
        return [Send("worker", {}), Send("worker", {})]

    graph = StateGraph(State)
    graph.add_node("a", returns()).add_node("worker", returns(names=[])).add_node(
        "last", returns(names=[]), defer=True
    )
    graph.add_edge(START, "a").add_edge("a", "last").add_edge(
        "worker", "last"
    ).add_conditional_edges("a", fan)
    calls = names_of(
        program_of(graph), fan__from__a=lambda _: packets(("worker", {}), ("worker", {}))
    )
    assert calls == ["a", "fan__from__a", "last", "worker", "worker", "last"]


def test_a_packet_brings_its_own_input() -> None:
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
    ran = run(program_of(graph), answers)
    assert ran.arguments[2:] == [
        {"x": 7, "send_input": {"more": 1}},
        {"x": "__absent__", "send_input": {"more": 1}},
    ]
    assert ran.final["total"] == 4


def test_a_router_sees_its_nodes_writes_and_not_its_siblings() -> None:
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
    ran = run(program_of(graph), answers, {"total": 1})
    assert ran.arguments[-1] == {"total": 2}
    assert ran.final["total"] == 7


def test_two_writes_of_one_field_in_a_step_are_a_conflict() -> None:
    graph = (
        StateGraph(State)
        .add_node("a", returns(x=1))
        .add_node("b", lambda state: {"x": 1} if state["y"] else {})
    )
    graph.add_node("c", returns()).add_edge(START, "a").add_edge(START, "b").add_edge("a", "c")
    program = program_of(graph)
    answers = {
        "a": lambda _: {"x": 1},
        "b": lambda one: {"x": 2} if one["y"] else {},
        "c": lambda _: {},
    }
    clash = run(program, answers, {"y": 1})
    assert (clash.calls, clash.final["error:"]) == (["a", "b"], "conflict:x")
    fine = run(program, answers, {"y": 0})
    assert (fine.calls, fine.final["error:"], fine.final["x"]) == (["a", "b", "c"], "", 1)


@pytest.mark.parametrize("limit", [1, 3, 25, 500])
def test_a_cycle_runs_as_many_steps_as_the_limit_allows(limit: int) -> None:
    graph = (
        StateGraph(State).add_node("a", returns(total=1)).add_edge(START, "a").add_edge("a", "a")
    )
    ran = run(program_of(graph), {"a": lambda _: {"total": 1}}, limit=limit)
    assert (ran.final["total"], ran.final["steps:"], ran.final["active:"]) == (limit, limit, True)


def test_a_program_has_room_for_the_default_limit_of_langgraph() -> None:
    assert MOST_STEPS >= 10_007


@pytest.mark.parametrize(("limit", "active"), [(3, True), (4, False)])
def test_a_run_that_needs_all_its_steps_has_reached_the_limit(limit: int, active: bool) -> None:
    for graph in (chain(3), as_superstep(chain(3))):
        answers = {
            "n0": lambda _: {"total": 1},
            "n1": lambda _: {"total": 1},
            "n2": lambda _: {"total": 1},
            "aside": lambda _: {},
        }
        assert run(program_of(graph), answers, limit=limit).final["active:"] is active


def test_a_node_is_told_how_many_steps_remain() -> None:
    class Counted(TypedDict, total=False):
        left: RemainingSteps
        last: IsLastStep
        total: Annotated[int, operator.add]

    graph = StateGraph(Counted).add_node(
        "a", lambda state: {"total": state["left"] + state["last"]}
    )
    graph.add_edge(START, "a").add_edge("a", "a")
    ran = run(program_of(graph), {"a": lambda _: {"total": 1}}, limit=3)
    assert ran.arguments == [
        {"left": 2, "last": False},
        {"left": 1, "last": True},
        {"left": 0, "last": False},
    ]


def test_a_field_that_lasts_for_a_step_is_told_of_each_step() -> None:
    class Flash(TypedDict, total=False):
        flash: Annotated[int, EphemeralValue]

    graph = StateGraph(Flash)
    graph.add_sequence([("a", lambda state: {"flash": 1}), ("b", lambda state: None)])
    program = program_of(graph.set_entry_point("a"))
    answers = {"a": lambda _: {"flash": [1]}, "b": lambda _: {}}
    ran = run(program, answers, {"flash": [{"value": 0}]})
    assert ran.final["flash"] == [{"value": 0}, [1], []]


def test_an_error_handlers_result_takes_no_edge() -> None:
    def handler(state: State, error: Any) -> Any:
        return {"x": 2}

    graph = (
        StateGraph(State)
        .add_node("a", returns(x=1), error_handler=handler)
        .add_node("b", returns())
    )
    graph.add_edge(START, "a").add_edge("a", "b")
    program = program_of(graph)
    assert run(program, {"a": lambda _: {"x": 1}, "b": lambda _: {}}).calls == ["a", "b"]
    assert run(program, {"a": lambda _: {"x": 2, "handled:": True}, "b": lambda _: {}}).calls == [
        "a"
    ]


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
    assert run(program_of(graph), answers).calls == ["a", "b", "aa"]


# Overwriting a sum.


def test_an_overwrite_replaces_what_its_step_added_before_it() -> None:
    def over(state: State) -> Any:
        return {"total": Overwrite(state["total"])}

    graph = (
        StateGraph(State)
        .add_node("a", returns(total=1))
        .add_node("b", over)
        .add_node("c", returns(total=1))
        .add_node("d", over)
    )
    graph.add_edge(START, "a").add_edge(START, "b").add_edge(START, "c")
    program = program_of(graph)
    assert program.overwritable == {"total"}
    answers: dict[str, Any] = {
        "a": lambda _: {"total": 1},
        "b": lambda _: {"=total": 50},
        "c": lambda _: {"total": 100},
    }
    assert run(program, answers, {"total": 7}).final["total"] == 50
    twice = program_of(graph.add_edge(START, "d"))
    assert run(twice, answers | {"d": lambda _: {"=total": 1}}).final["error:"] == "conflict:total"


# Names.

HOSTILE = [
    "x = 1\nimport os", "a\nfinal_return_value = 1", "it's", 'say "hi"', "back\\slash", "my node", "fetch-data", "2nd",
    "if", "class", "len", "print", "parse_with_ai", "final_return_value", "recursion_limit", "u", "r", "error", "steps",
    "active", "i", "j", "k", "sent", "packet", "packets", "gotos", "busy", "s_x", "in_x", "n_x", "go_a", "run_a", "t", "ta",
    "tä", "节点", "\u202eevil", "\u200b", "#", "'''", "{}", "a" * 300, "a" * 299 + "b", "value",
]  # fmt: skip


@pytest.mark.parametrize("is_cycle", [False, True])
def test_hostile_node_names_are_no_part_of_the_text(is_cycle: bool) -> None:
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
    nodes = {tool.node: name for name, tool in program.tools.items() if tool.role == "node"}
    assert list(nodes) == sorted(HOSTILE)
    answers: dict[str, Any] = {name: lambda _: {"names": [""]} for name in nodes.values()}
    router = next((one for one in program.tools if one not in answers), "")
    ran = run(program, answers | {router: lambda _: to()}, limit=100)
    assert ran.calls[: len(HOSTILE)] == [nodes[name] for name in HOSTILE]
    tokens = list(program.tokens.values())
    assert not any(one != other and other.startswith(one) for one in tokens for other in tokens)


def test_hostile_field_names_are_no_part_of_the_text() -> None:
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
    keys = list(program.keys.values())
    assert len(set(keys)) == len(fields)
    assert all(key.isidentifier() and key.isascii() and len(key) <= 64 for key in keys)
    assert program.text.isascii()
    ran = run(program, {"a": lambda one: one}, dict.fromkeys(fields, 1), limit=2)
    assert {key: ran.final[key] for key in keys} == dict.fromkeys(keys, 1)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.text(min_size=1, max_size=30).filter(lambda one: not set(one) & {":", "|"}),
        min_size=1,
        max_size=5,
        unique=True,
    )
)
def test_any_node_names_make_a_program(names: list[str]) -> None:
    names = [name for name in names if not name.startswith("__") and name != "*"] or ["a"]
    graph = StateGraph(State).add_sequence(
        [(name, lambda state: {"names": ["n"]}) for name in names]
    )
    program = program_of(graph.set_entry_point(names[0]))
    nodes = {tool.node: name for name, tool in program.tools.items()}
    assert names_of(program) == [nodes[name] for name in names]


def test_a_node_keeps_its_name_where_it_can() -> None:
    graph = StateGraph(State).add_sequence(
        [(name, returns()) for name in ("a b", "a_b", "if", "fetch")]
    )
    program = program_of(graph.set_entry_point("fetch"))
    assert {tool.node: name for name, tool in program.tools.items()} == {
        "a_b": "a_b", "a b": "a_b_2", "fetch": "fetch", "if": "if_2",
    }  # fmt: skip


# The text.

SCRIPT = """
import operator
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
from langchain_sequrity.graph.compiling.compiler import compile_graph
from langchain_sequrity.graph.options import NodeOptions
from langchain_sequrity.graph.reading.spec import read_graph

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
tools = [(t.name, t.parameters, t.writes, sorted(t.targets or "")) for t in program.tools.values()]
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


@pytest.mark.parametrize("is_annotated", [True, False])
def test_the_text_grows_with_the_graph(is_annotated: bool) -> None:
    sizes = [len(program_of(diamonds(one, is_annotated=is_annotated)).text) for one in (10, 20, 40)]
    assert sizes[2] - sizes[1] < 2.3 * (sizes[1] - sizes[0])
    assert sizes[2] < 60_000  # 121 nodes


def exits(number: int) -> StateGraph[Any, Any, Any, Any]:
    """Conditional edges in a row, each of which may end the run."""
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
    program = program_of(exits(100))
    answers: dict[str, Any] = {
        name: (lambda _: {"total": 1})
        if tool.role == "node"
        else (lambda _, name=name: to("n" + str(int(name.split("__n")[-1]) + 1)))
        for name, tool in program.tools.items()
    }
    ran = run(program, answers, limit=200)
    assert (ran.final["steps:"], ran.final["total"]) == (101, 100)


def test_a_field_router_after_another_nests_no_deeper_than_python_can() -> None:
    graph = StateGraph(State).add_node("n0", returns(x=1)).add_edge(START, "n0")
    for one in range(60):
        graph.add_node(f"n{one + 1}", returns(x=1))
        graph.add_conditional_edges(f"n{one}", FieldRouter("x", {1: f"n{one + 1}"}))
    answers = {f"n{one}": (lambda _: {"x": 1}) for one in range(61)}
    assert run(program_of(graph), answers, limit=100).final["steps:"] == 61


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


def test_compiling_leaves_the_builder_as_it_was() -> None:
    graph = mail_graph()
    graph.set_node_defaults(error_handler=lambda state, error: None)
    before = {name: repr(value) for name, value in vars(graph).items()}
    program_of(graph)
    assert {name: repr(value) for name, value in vars(graph).items()} == before
    graph.compile()
