"""The client side of a call does what LangGraph does between channels and nodes."""

import copy
import dataclasses
import json
import logging
import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.constants import END, START, TASKS
from langgraph.errors import EmptyChannelError, InvalidUpdateError, ParentCommand
from langgraph.graph import StateGraph
from langgraph.graph.message import add_messages
from langgraph.managed import IsLastStep, RemainingSteps
from langgraph.pregel._write import ChannelWriteTupleEntry, _assemble_writes
from langgraph.types import Command, Overwrite, Send
from pydantic import BaseModel, ValidationError

from langchain_sequrity import with_labels
from langchain_sequrity._compat import MISSING
from langchain_sequrity.errors import BadReply, GraphNotSupported, UsageError
from langchain_sequrity.graph.analysis.spec import GraphSpec, read_graph
from langchain_sequrity.graph.codec.channels import field_plan
from langchain_sequrity.graph.dispatch import ClientTools, NodeResult, ToolInput
from langchain_sequrity.graph.program import (
    ABSENT,
    GOTO,
    HANDLED,
    SEND,
    EntryVariables,
    FieldVariables,
    GraphProgram,
    Parameter,
    ProgramText,
    ToolSpec,
)
from langchain_sequrity.graph.runtime.call_state import CallState
from tests.graph.test_values import shown, values


class Model(BaseModel):
    x: int | None = None
    y: str = "usual"
    log: list[str] = []


@dataclasses.dataclass
class Record:
    x: int | None = None
    log: list[str] = dataclasses.field(default_factory=list)


class Noted:
    """A class with annotations that is not a dataclass and not a pydantic model."""

    x: int
    y: str

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


class Fields(TypedDict, total=False):
    x: int
    y: str
    total: Annotated[int, operator.add]
    log: Annotated[list[str], operator.add]
    bag: Annotated[dict[str, int], operator.or_]
    chat: Annotated[list[AnyMessage], add_messages]


class State(Fields, total=False):
    left: RemainingSteps


class ModelState(BaseModel):
    x: int = 0
    y: str = ""
    log: Annotated[list[str], operator.add] = []


def _quiet(_: Any) -> None:
    """Stands for nodes and routers whose code does not matter."""


quiet: Any = _quiet


class Made:
    """A graph, the part of its program that the client sees, and its `ClientTools`."""

    def __init__(
        self,
        schema: Any,
        path: Callable[..., Any] | None = None,
        path_map: Any = None,
        **changes: Any,
    ) -> None:
        graph: StateGraph[Any, Any, Any, Any] = StateGraph(schema)
        for name in ("a", "b", "c"):
            graph.add_node(name, quiet)
        graph.add_edge(START, "a")
        graph.add_conditional_edges("a", path or quiet, path_map)
        self.compiled = copy.copy(graph).compile()
        self.spec: GraphSpec = read_graph(graph)
        branch = self.spec.branches[0]
        self.node = self._tool("a", "node", self.spec.nodes["a"].input_fields, **changes)
        self.router = self._tool("a", "router", branch.input_fields, branch=branch.name, **changes)
        nodes = [
            self._tool(name, "node", self.spec.nodes[name].input_fields) for name in ("b", "c")
        ]
        self.tools = {tool.name: tool for tool in (self.node, self.router, *nodes)}
        program = GraphProgram(
            that_begins_at=lambda _: ProgramText("", self.tools),
            entry=EntryVariables(
                "begins", "start_at", "start_packets", "came", "stop_after", "most_packets"
            ),
            flags={},
            ready={},
            tools=self.tools,
            receivers=frozenset(),
            fields=FieldVariables(
                keys={name: name for name in self.spec.channels},
                state={name: f"s_{name}" for name in self.spec.channels},
                variables={name: f"in_{name}" for name in self.spec.channels},
                plans={name: field_plan(channel) for name, channel in self.spec.channels.items()},
                overwritable=frozenset({"total"}),
                result="result",
            ),
            tokens={name: f"{name}:" for name in self.spec.nodes},
            kind="superstep",
        )
        self.client = ClientTools(self.spec, program)

    def _tool(self, node: str, role: Any, fields: tuple[str, ...], **changes: Any) -> ToolSpec:
        parameters = [
            Parameter(f"p_{name}", name, "field")
            for name in fields
            if name not in self.spec.managed
        ]
        if role == "node":
            parameters.append(Parameter("send_input", None, "send"))
        given: dict[str, Any] = {
            "name": node if role == "node" else f"after_{node}",
            "role": role,
            "node": node,
            "branch": None,
            "parameters": tuple(parameters),
            "reads": fields,
            "writes": tuple(self.spec.channels),
            "definite": frozenset(),
            "reads_from": "declared",
            "writes_from": "declared",
            "targets": None,
            "sends": None,
            "single": False,
        }
        return ToolSpec(**given | changes)

    def arguments(self, tool: ToolSpec, state: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with which the program calls a tool in this state."""
        channels = {}
        for name, channel in self.spec.channels.items():
            channels[name] = channel.from_checkpoint(MISSING)
            if name in state:
                channels[name].update([state[name]])
        written = json.loads(json.dumps(self.client.initial(channels)))
        return {
            one.name: written[f"in_{one.field}"] for one in tool.parameters if one.kind != "send"
        }

    def apply(self, writes: list[tuple[str, Any]]) -> None:
        """Apply the writes of one node to new channels, except logs. Raises as LangGraph does."""
        for name, channel in self.spec.channels.items():
            values = [value for field, value in writes if field == name]
            if field_plan(channel).kind != "log" and values:
                channel.from_checkpoint(MISSING).update(values)

    def said(self, output: Any) -> Any:
        """The writes of a node's output in LangGraph's form."""
        result = self.client.node_result(self.node, output)
        assert json.loads(json.dumps(result.wire)) == result.wire
        gotos = [(f"branch:to:{token[:-1]}", None) for token in result.wire.get(GOTO, [])]
        return [*result.writes, *gotos, *((TASKS, one) for one in self.sends(result.wire))]

    def sends(self, wire: Mapping[str, Any]) -> list[Send]:
        """The packets of a result as the program passes them on."""
        found = []
        for packet in wire.get(SEND, []):
            tool = self.tools[packet["node"][:-1]]
            arguments = {
                one.name: packet["input"]
                if one.kind == "send"
                else packet["fields"].get(one.name, ABSENT)
                for one in tool.parameters
            }
            found.append(Send(tool.node, read_input(self.client.inputs[tool.name], arguments)))
        return found


def read_input(
    signature: ToolInput, arguments: Mapping[str, Any], managed: Mapping[str, Any] | None = None
) -> Any:
    """The input of a node or a router for a call."""
    return signature.read(arguments, CallState(signature, arguments, {}), managed or {})


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - compared by type
        return type(error)


def what_langgraph_writes(made: Made, output: Any) -> Any:
    """The writes of LangGraph's own node, without those that `apply_writes` then ignores."""
    entries = made.compiled.nodes["a"].writers[0].writes  # type: ignore[attr-defined]
    writes = _assemble_writes([ChannelWriteTupleEntry(entry.mapper, output) for entry in entries])
    known = {*made.spec.channels, *(f"branch:to:{name}" for name in made.spec.nodes)}
    fields = [one for one in writes if one[0] in made.spec.channels]
    gotos = dict.fromkeys(one[0] for one in writes if one[0] in known - set(made.spec.channels))
    sends = [one for one in writes if one[0] == TASKS and one[1].node in made.spec.nodes]
    return [*fields, *((name, None) for name in gotos), *sends]


OUTPUTS: list[Any] = [
    None, {}, {"x": 1}, {"y": None, "x": 2}, {"x": 1, "unknown": 2}, {"left": 3, "x": 1}, OrderedDict(x=1),
    {"total": 1, "log": ["a"], "bag": {"k": 1}}, {"total": Overwrite(5)}, {1: 2},
    with_labels({"x": 1}, tags=["t"]), Model(x=1), Model(), Model(x=None), Model(y="usual"), Record(x=1), Record(),
    Noted(x=1, other=2), Noted(), Send("b", 1), Send("nowhere", 1), Send(END, 1), 5, "text", [], (), [1],
    [{"x": 1}], object(), State, lambda: 0,
    Command(), Command(update={"x": 1}), Command(update=[("x", 1), ("y", "a")]), Command(update=(("x", 1),)),
    Command(update=Model(x=3)), Command(update=Record(x=3)), Command(update=5), Command(update=[1]), Command(update=[]),
    Command(update={"unknown": 1}), Command(update=with_labels({"x": 1})), Command(resume=1),
    Command(goto="b"), Command(goto=["c", "b", "b"]), Command(goto=END), Command(goto=["b", END]), Command(goto="nowhere"),
    Command(goto=START), Command(goto=Send("b", {"x": 1})), Command(goto=[Send("b", {"x": 1, "z": (1,)}), "c", Send("c", None)]),
    Command(goto=[1, None]), Command(goto=5), Command(goto=Send("b", Record(x=1))),
    Command(graph=Command.PARENT, update={"x": 1}), Command(graph="other", update={"x": 1}, goto="b"),
    [Command(update={"x": 1}), Command(goto="b")], [Command(update={"x": 1}), {"y": "a"}], (Command(goto="c"), None),
    [Command(goto="b"), 5], [Command(goto="b"), [Command(update={"x": 1})]], [Command(graph=Command.PARENT), {"x": 1}],
    [Command(graph=Command.PARENT), 5], [Command(), Model(x=2)], [Command(update={"x": 1}), Send("b", 1)],
    [Command(update={"x": 1}), Command(update={"y": "b", "x": None}, goto=[Send("b", [1])])],
]  # fmt: skip


def check_output(made: Made, output: Any) -> None:
    """Compare the writes that the client and LangGraph make from an output."""
    expected = outcome(lambda: what_langgraph_writes(made, output))
    got = outcome(lambda: made.said(output))
    if got is UsageError:
        assert any(_is_strange(one.arg if name == TASKS else one) for name, one in expected)
        return
    if isinstance(expected, list):
        applied = outcome(lambda: made.apply(expected))  # LangGraph may refuse two writes
        expected = expected if applied is None else applied
    assert got == expected


def _is_strange(value: Any) -> bool:
    """Whether JSON lacks a form of the value; sufficient for the tables of this module."""
    if isinstance(value, list | tuple):
        return any(map(_is_strange, value))
    return not isinstance(value, str | int | dict | None)


STATE_GRAPH, ROOT_GRAPH = Made(State), Made(dict)


@pytest.mark.long(sample=99)
@pytest.mark.parametrize("schema", [State, ModelState, dict, int], ids=lambda one: one.__name__)
@pytest.mark.parametrize("output", OUTPUTS, ids=shown)
def test_an_output_of_a_node_means_the_same_as_in_langgraph(schema: Any, output: Any) -> None:
    check_output(Made(schema), output)


@given(st.lists(st.sampled_from(OUTPUTS), max_size=3), st.sampled_from([list, tuple]))
def test_several_outputs_of_a_node_mean_the_same_as_in_langgraph(
    parts: list[Any], kind: Any
) -> None:
    check_output(STATE_GRAPH, kind(parts))


def test_errors_have_the_same_text_as_in_langgraph() -> None:
    made = Made(State)
    with pytest.raises(InvalidUpdateError, match="Expected dict, got 5") as ours:
        made.client.node_result(made.node, 5)
    with pytest.raises(InvalidUpdateError) as theirs:
        what_langgraph_writes(made, 5)
    assert str(ours.value) == str(theirs.value)
    parent = Command(graph=Command.PARENT, goto="x")
    with pytest.raises(ParentCommand) as raised:
        made.client.node_result(made.node, parent)
    assert raised.value.args == (parent,)


def test_a_result_contains_each_kind_of_field_in_its_own_form() -> None:
    made = Made(State)
    output = [Command(update={"total": 1, "bag": {"a": 1}}), {"total": 2, "x": None, "bag": {}}]
    wire = made.client.node_result(made.node, output).wire
    assert wire == {"total": 3, "x": None, "bag": [{"a": 1}, {}], "chat": []}
    assert made.client.node_result(made.node, None).wire == {"bag": [], "chat": []}
    overwritten = made.client.node_result(made.node, {"total": Overwrite(7)}).wire
    assert overwritten == {"=total": 7, "bag": [], "chat": []}
    assert made.client.node_result(made.node, None, handled=True).wire[HANDLED] is True


def test_undeclared_writes_are_errors_that_name_a_way_out() -> None:
    made = Made(State, writes=("x",), definite=frozenset({"x"}))
    made.client.node_result(made.node, {"x": 1})
    with pytest.raises(
        UsageError, match=r"`a` wrote the field `y`.*NodeOptions\(writes=\['x', 'y'\]\)"
    ):
        made.client.node_result(made.node, {"x": 1, "y": "a"})
    with pytest.raises(UsageError, match=r"`a` did not return `x`.*NodeOptions"):
        made.client.node_result(made.node, {})
    made.client.node_result(made.node, {}, handled=True)
    other = Made(State)
    with pytest.raises(GraphNotSupported, match="`a` overwrites the field `log`"):
        other.client.node_result(other.node, {"log": Overwrite(["a"])})
    with pytest.raises(UsageError, match=r"Field `y` of what node `a` returned.*nan"):
        other.client.node_result(other.node, {"y": float("nan")})


def test_undeclared_targets_are_errors_that_name_a_way_out() -> None:
    made = Made(State, targets=frozenset({"b"}), sends=frozenset())
    assert made.client.node_result(made.node, Command(goto="b")).wire[GOTO] == ["b:"]
    with pytest.raises(GraphNotSupported, match=r"node `a` goes to `c`.*destinations") as caught:
        made.client.node_result(made.node, Command(goto="c"))
    assert caught.value.node == "a"
    with pytest.raises(GraphNotSupported, match="sends a packet to `b`"):
        made.client.node_result(made.node, Command(goto=Send("b", 1)))
    with pytest.raises(GraphNotSupported, match="path map"):
        made.client.router_result(made.router, "c")
    single = Made(State, single=True)
    assert single.client.router_result(single.router, ["b", "b", END])[GOTO] == ["b:"]
    with pytest.raises(GraphNotSupported, match="several targets"):
        single.client.router_result(single.router, ["b", "c"])


def test_unknown_targets_are_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    made = Made(State)
    with caplog.at_level(logging.WARNING):
        wire = made.client.node_result(
            made.node, Command(goto=["x", Send("y", 1)], update={"left": 1})
        ).wire
    assert wire == {"bag": [], "chat": []}
    assert len(caplog.records) == 3


def test_sent_messages_have_ids_and_the_output_of_the_node_does_not_change() -> None:
    made = Made(State)
    output = {"chat": [AIMessage("a"), ("user", "b")], "bag": {"k": 1}}
    before = copy.deepcopy(output)
    result = made.client.node_result(made.node, output)
    assert output == before
    assert output["chat"][0].id is None  # type: ignore[index]
    (_, written), *_ = result.writes
    assert [type(one) for one in written] == [AIMessage, HumanMessage]
    assert [one["fields"]["id"] for one in result.wire["chat"][0]] == [one.id for one in written]
    result.wire["bag"][0]["k"] = 2
    assert output["bag"] == {"k": 1}


def test_labels_of_a_node_result_are_separate_from_its_value() -> None:
    made = Made(State)
    plain = made.client.node_result(made.node, {"x": 1})
    assert (plain.labels, plain.combine) == (None, "merge")
    labeled = made.client.node_result(
        made.node, with_labels({"x": 1}, producers=["p"], combine="replace")
    )
    assert labeled.wire == plain.wire
    assert labeled.labels is not None
    assert labeled.labels.producers == {"p"}
    assert labeled.combine == "replace"
    both = [
        Command(update=with_labels({"x": 1}, tags=["s"], consumers=["ann", "bob"])),
        with_labels({"y": "a"}, tags=["t"], consumers=["bob"]),
        {"total": 1},
    ]
    joined = made.client.node_result(made.node, both).labels
    assert joined is not None
    assert (set(joined.tags), set(joined.consumers)) == ({"s", "t"}, {"bob"})
    with pytest.raises(UsageError, match="combine in two ways"):
        made.client.node_result(
            made.node,
            [Command(update=with_labels({}, combine="ignore")), with_labels({}, combine="merge")],
        )


def test_labels_on_a_state_of_one_value_leave_a_plain_value() -> None:
    made = Made(dict)
    result = made.client.node_result(made.node, with_labels({"k": 1}, tags=["t"]))
    assert result.labels is not None
    assert [(name, type(value)) for name, value in result.writes] == [("__root__", dict)]


# Inputs


class Private(TypedDict):
    y: str
    log: list[str]


STATES: list[dict[str, Any]] = [
    {}, {"x": 1}, {"y": ABSENT}, {"x": None, "y": "a", "log": ["l"], "total": 2},
    {"bag": {"a": 1}, "chat": [HumanMessage("hi", id="1")], "x": 7},
]  # fmt: skip


class Counted(TypedDict):
    x: int
    left: RemainingSteps
    last: IsLastStep


@pytest.mark.parametrize("state", STATES, ids=shown)
@pytest.mark.parametrize("schema", [State, ModelState, Record], ids=lambda one: one.__name__)
def test_a_node_gets_what_langgraph_gives_it(schema: Any, state: dict[str, Any]) -> None:
    seen: list[Any] = []
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(
        schema, input_schema=Fields if schema is State else schema
    )
    note: Any = seen.append
    graph.add_node("a", note)
    graph.add_edge(START, "a")
    made = Made(schema)
    state = {name: value for name, value in state.items() if name in made.spec.channels}
    invoke = copy.copy(graph).compile().invoke
    expected = outcome(lambda: invoke(state or {"x": 0}))
    arguments = made.arguments(made.node, state or {"x": 0})
    managed = dict.fromkeys(made.spec.managed, 10006)
    got = outcome(lambda: read_input(made.client.inputs[made.node.name], arguments, managed))
    if expected is ValidationError:
        assert got is ValidationError
    else:
        assert type(got) is type(seen[0])
        assert got == seen[0]


def test_managed_values_reach_the_node_and_are_not_in_the_call() -> None:
    made, managed = Made(Counted), {"left": 5, "last": False}
    assert made.client.inputs[made.node.name].managed == ("left", "last")
    arguments = made.arguments(made.node, {"x": 1})
    assert read_input(made.client.inputs[made.node.name], arguments, managed) == {"x": 1, **managed}
    with pytest.raises(BadReply, match="does not take"):
        read_input(made.client.inputs[made.node.name], {**arguments, "p_left": 5}, managed)


def test_a_state_of_one_value_is_the_input() -> None:
    made = Made(int)
    assert (
        read_input(made.client.inputs[made.node.name], made.arguments(made.node, {"__root__": 3}))
        == 3
    )
    with pytest.raises(EmptyChannelError):
        read_input(made.client.inputs[made.node.name], made.arguments(made.node, {}))


def test_a_node_gets_only_the_fields_that_it_reads() -> None:
    made = Made(State, parameters=(Parameter("p_x", "x", "field"),))
    assert read_input(made.client.inputs[made.node.name], {"p_x": 1}) == {"x": 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"p_unknown": 1}, "has `p_unknown`"), ({"p_x": MISSING}, "lacks `p_x`"), ({"send_input": ABSENT, "p_x": MISSING}, "lacks `p_x`"),
        ({"p_bag": 3}, "Field `bag`"), ({"p_x": {"__type__": "object", "class": "Popen", "fields": {}}}, "Popen"),
        ({"p_x": {"__type__": "message", "class": "AIMessage", "fields": {"content": "a"}}}, "Field `x`"),
        ({"send_input": {"x": 2}}, "not what was sent"), ({"send_input": 5}, "not what was sent"),
    ],
    ids=shown,
)  # fmt: skip
def test_arguments_that_no_program_can_send_are_bad_replies(
    change: dict[str, Any], reason: str
) -> None:
    made = Made(State)
    arguments = {**made.arguments(made.node, {"x": 1, "left": 1}), **change}
    arguments = {name: value for name, value in arguments.items() if value is not MISSING}
    with pytest.raises(BadReply, match=reason):
        read_input(made.client.inputs[made.node.name], arguments)


@given(values | st.dictionaries(st.sampled_from(["x", "y", "log", "left", "other"]), values))
def test_the_argument_of_a_send_arrives_unchanged(argument: Any) -> None:
    for made in (STATE_GRAPH, ROOT_GRAPH):
        wire = made.client.router_result(made.router, [Send("b", argument)])
        (send,) = made.sends(json.loads(json.dumps(wire)))
        assert send.arg == argument or repr(send.arg) == repr(argument)
        assert type(send.arg) is type(argument)
        if type(argument) is dict:
            assert list(send.arg) == list(argument)


def test_a_send_is_split_into_the_parameters_of_its_target() -> None:
    made = Made(State)
    argument = {"x": 1, "y": ABSENT, "chat": [AIMessage("a", id="1")], "more": (1,)}
    (packet,) = made.client.router_result(made.router, Send("b", argument))[SEND]
    assert packet["node"] == "b:"
    assert set(packet["fields"]) == {"p_x", "p_y", "p_chat"}
    assert packet["input"] == {"more": {"__type__": "tuple", "value": [1]}}
    assert made.client.router_result(made.router, Send("b", {"x": 1}))[SEND][0]["input"] == ABSENT
    with pytest.raises(UsageError, match="argument of a `Send` to `b` by the router"):
        made.client.router_result(made.router, Send("b", object()))


@pytest.mark.parametrize(
    "packed",
    [
        {"__type__": "ordered"},
        {"__type__": "ordered", "keys": ["x"], "value": ABSENT},
        {"__type__": "ordered", "keys": ["x", "z"], "value": ABSENT},
        {"__type__": "ordered", "keys": ["x", ["y"]], "value": ABSENT},
        {"__type__": "ordered", "keys": 2, "value": ABSENT},
        {"__type__": "ordered", "keys": ["y", "x"], "value": {"x": 2}},
    ],
)
def test_an_order_of_keys_that_was_not_sent_is_a_bad_reply(packed: Any) -> None:
    made = Made(State)
    wire = made.client.router_result(made.router, Send("b", {"y": "", "x": 1}))
    wire[SEND][0]["input"] = packed
    with pytest.raises(BadReply, match="not what was sent"):
        made.sends(wire)


# Routers


ANSWERS: list[Any] = [
    "b", ["b", "c"], ("c",), END, [END, "b"], None, [None], START, [], "nowhere", 5, True, ["b", 5],
    Send("b", {"x": 1}), [Send("b", 1), "c"], Send(END, 1), Send("nowhere", 1), Command(goto="b"), "yes", ["yes", True], {"b"},
]  # fmt: skip


@pytest.mark.parametrize(
    "path_map", [None, ["b", "c"], {"yes": "b", True: "c", "b": END, 5: "b"}], ids=shown
)
@pytest.mark.parametrize("answer", ANSWERS, ids=shown)
def test_an_answer_of_a_router_means_the_same_as_in_langgraph(answer: Any, path_map: Any) -> None:
    made = Made(State, lambda _: None, path_map)
    branch = next(iter(made.compiled.builder.branches["a"].values()))
    named: list[Any] = []

    def writer(packets: Any, static: bool) -> list[Any]:  # noqa: ARG001 - LangGraph's own signature
        named.extend(one for one in packets if one != END)
        return []

    error = outcome(lambda: branch._finish(writer, {}, answer, {}))
    if error != {}:
        assert outcome(lambda: made.client.router_result(made.router, answer)) is error
        return
    wire = made.client.router_result(made.router, answer)
    known = made.spec.nodes.keys()
    gotos = [one for one in named if not isinstance(one, Send) and one in list(known)]
    assert wire[GOTO] == [f"{name}:" for name in dict.fromkeys(gotos)]
    assert made.sends(wire) == [one for one in named if isinstance(one, Send) and one.node in known]


def test_a_router_gets_the_state_through_its_schema() -> None:
    def path(state: Private) -> str:
        return state["y"]

    made = Made(State, path)
    arguments = made.arguments(made.router, {"y": "b", "log": ["l"]})
    assert set(arguments) == {"p_y", "p_log"}
    assert read_input(made.client.inputs[made.router.name], arguments) == {"y": "b", "log": ["l"]}


def test_a_fused_router_sees_what_its_node_wrote() -> None:
    made = Made(State)
    state = {"x": 1, "total": 2, "log": ["l"], "bag": {"a": 1}, "left": 5}
    arguments = made.arguments(made.node, state)

    def fused(output: Any) -> Any:
        result = made.client.node_result(made.node, output)
        fresh = made.client.fused_arguments(made.node, made.router, arguments, result)
        return read_input(made.client.inputs[made.router.name], fresh, {"left": 5})

    same = {**state, "chat": []}
    assert fused(None) == same
    assert fused({"x": 5, "y": "new", "total": 1, "bag": {"b": 2}}) == {
        **same, "x": 5, "y": "new", "total": 3, "bag": {"a": 1, "b": 2},
    }  # fmt: skip
    assert fused({"total": Overwrite(9), "log": ["m"]}) == {**same, "total": 9, "log": ["l", "m"]}
    route = made.client.router_result(made.router, ["b", Send("c", 1)])
    result = NodeResult({"x": 1, GOTO: ["c:"]}, ())
    joined = made.client.with_route(result, route).wire
    assert joined[GOTO] == ["c:", "b:"]
    assert len(joined[SEND]) == 1
