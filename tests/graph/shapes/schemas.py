"""Schemas of state, input, output and nodes; names of fields; values of all kinds."""

import datetime as dt
import enum
import operator
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.graph import StateGraph
from langgraph.managed import IsLastStep, RemainingSteps
from pydantic import BaseModel, Field

from tests.graph.shape import Shape, Shapes
from tests.graph.shapes.channels import constant, over
from tests.graph.shapes.traced import Traced, connect, traced

SHAPES = Shapes()
PAIR = ("__start__>a", "a>b")


@SHAPES.add
def inputs_of_all_sorts() -> Shape:
    graph = connect(traced("a"), "__start__>a")
    inputs: list[Any] = [
        {},
        {"unknown": 1},
        {"n": 1, "unknown": 2},
        None,
        {"n": None},
        {"trace": []},
        7,
        "text",
    ]
    return Shape(graph=graph, inputs=inputs)


class Public(TypedDict, total=False):
    question: str
    answer: str


class Private(TypedDict, total=False):
    draft: str
    question: str


@SHAPES.add
def private_fields_between_nodes() -> Shape:
    seen: list[Any] = []

    def a(state: Public) -> Private:
        seen.append(sorted(state))
        return {"draft": f"draft of {state['question']}"}

    def b(state: Private) -> Public:
        seen.append(sorted(state))
        return {"answer": f"final {state['draft']}"}

    def c(state: Public) -> Public:
        seen.append(sorted(state))
        return {}

    graph = over(Public, [*PAIR, "b>c"], a=a, b=b, c=c)
    return Shape(graph=graph, inputs=[{"question": "q"}], seen=seen)


@SHAPES.add
def input_and_output_schemas() -> Shape:
    class Question(TypedDict):
        question: str

    class Answer(TypedDict):
        answer: str

    class Whole(TypedDict, total=False):
        question: str
        answer: str
        steps: Annotated[list[str], operator.add]

    def a(state: Question) -> dict[str, Any]:
        return {"steps": [f"a:{sorted(state)}"], "answer": state["question"].upper()}

    def b(state: Whole) -> dict[str, Any]:
        return {"answer": f"{state['answer']} after {len(state['steps'])}"}

    graph: Any = StateGraph(Whole, input_schema=Question, output_schema=Answer)
    graph.add_node("a", a)
    graph.add_node("b", b)
    connect(graph, *PAIR)
    return Shape(graph=graph, inputs=[{"question": "q"}, {"question": "q", "answer": "dropped"}])


@SHAPES.add
def node_schema_given_by_keyword() -> Shape:
    seen: list[Any] = []

    def a(state: Any) -> dict[str, Any]:
        seen.append(dict(state))
        return {"draft": "d"}

    graph: Any = StateGraph(Public)
    graph.add_node("a", a, input_schema=Private)
    graph.add_node("b", a, input_schema=Public)
    connect(graph, *PAIR)
    return Shape(graph=graph, inputs=[{"question": "q"}], seen=seen)


@SHAPES.add
def absent_fields_are_absent() -> Shape:
    seen: list[Any] = []

    def a(state: Traced) -> dict[str, Any]:
        seen.append(("n" in state, state.get("n", "none"), len(state)))
        return {}

    def b(state: Traced) -> dict[str, Any]:
        return {"n": state["n"]}

    graph = connect(traced(a=a, b=b), *PAIR)
    return Shape(graph=graph, inputs=[{}, {"n": 0}, {"n": None}], seen=seen)


@dataclass
class Record:
    x: int
    names: Annotated[list[str], operator.add] = field(default_factory=list)
    y: str = "default"
    z: int | None = None


@SHAPES.add
def dataclass_state() -> Shape:
    seen: list[Any] = []

    def a(state: Record) -> dict[str, Any]:
        seen.append((type(state).__name__, state.x, state.names, state.y, state.z))
        return {"x": state.x + 1, "names": ["a"]}

    def b(state: Record) -> Record:
        return Record(x=state.x * 10, names=["b"], z=1)

    inputs = [{"x": 1}, Record(x=2, names=["in"], y="given"), Record(x=3), {"y": "no x"}]
    return Shape(graph=over(Record, PAIR, a=a, b=b), inputs=inputs, seen=seen)


class Inner(BaseModel):
    deep: list[int] = Field(default_factory=list)


class Model(BaseModel):
    x: int
    inner: Inner = Inner()
    names: Annotated[list[str], operator.add] = Field(default_factory=list)
    when: dt.date | None = None


@SHAPES.add
def pydantic_state() -> Shape:
    seen: list[Any] = []

    def a(state: Model) -> dict[str, Any]:
        seen.append((type(state).__name__, state.x, state.inner, state.names, state.when))
        return {"x": "7", "inner": {"deep": ["1", 2]}, "names": ["a"]}

    def b(state: Model) -> dict[str, Any]:
        return {"x": state.x + 1, "inner": Inner(deep=[*state.inner.deep, 3])}

    inputs = [
        {"x": "1"},
        {"x": 1, "when": "2024-01-02", "inner": {"deep": [5]}},
        Model(x=3, names=["in"]),
        {"x": "no number"},
        {},
    ]
    return Shape(graph=over(Model, PAIR, a=a, b=b), inputs=inputs, seen=seen)


@SHAPES.add
def pydantic_state_that_a_node_breaks() -> Shape:
    def a(_state: Model) -> dict[str, Any]:
        return {"x": "no number"}

    def b(state: Model) -> dict[str, Any]:
        return {"x": state.x}

    return Shape(graph=over(Model, PAIR, a=a, b=b), inputs=[{"x": 1}])


@SHAPES.add
def pydantic_state_returned_whole() -> Shape:
    def a(state: Model) -> Model:
        return Model(x=state.x + 1)

    def b(state: Model) -> Model:
        return state.model_copy(update={"x": state.x + 1, "names": []})

    return Shape(graph=over(Model, PAIR, a=a, b=b), inputs=[{"x": 1, "names": ["in"]}])


@SHAPES.add
def a_state_that_is_one_value_of_which_a_node_sees_nothing() -> Shape:
    graph: Any = StateGraph(str)
    graph.add_node("a", lambda _: "hi")
    graph.add_node("b", lambda state: state + "!")
    connect(graph, *PAIR)
    return Shape(graph=graph, inputs=["x", ""])


@SHAPES.add
def state_that_is_one_value() -> Shape:
    graph: Any = StateGraph(int)
    graph.add_node("a", lambda x: x + 1)
    graph.add_node("b", lambda x: x * 10)
    return Shape(graph=connect(graph, *PAIR), inputs=[1, 0, -5, None])


@SHAPES.add
def state_that_is_one_list_with_a_reducer() -> Shape:
    def say(name: str) -> Any:
        def node(state: list[str]) -> list[str]:
            return [f"{name}{len(state)}"]

        return node

    schema: Any = Annotated[list[str], operator.add]
    graph: Any = StateGraph(schema)
    for name in "abc":
        graph.add_node(name, say(name))
    connect(graph, "__start__>a", "__start__>b", "a>c", "b>c")
    return Shape(graph=graph, inputs=[[], ["given"]])


@SHAPES.add
def managed_values() -> Shape:
    class Counting(TypedDict, total=False):
        trace: Annotated[list[str], operator.add]
        remaining: RemainingSteps
        last: IsLastStep

    def a(state: Counting) -> dict[str, Any]:
        return {"trace": [f"{state['remaining']} {state['last']}"]}

    def again(state: Counting) -> str:
        return "a" if state["remaining"] > 2 else "b"

    graph = over(Counting, ["__start__>a"], a=a, b=a)
    graph.add_conditional_edges("a", again, ["a", "b"])
    return Shape(graph=graph, inputs=[{}], config={"recursion_limit": 6})


Odd = TypedDict(
    "Odd",
    {"user-name": str, "class": str, "my key": int, "é": str, "2nd": int, "it's": str},
    total=False,
)


@SHAPES.add
def fields_whose_names_are_no_identifiers() -> Shape:
    def a(state: Odd) -> dict[str, Any]:
        return {"my key": state.get("my key", 0) + 1, "class": state["user-name"], "2nd": 2}

    def b(state: Odd) -> dict[str, Any]:
        return {"é": state["class"], "it's": str(state["2nd"])}

    return Shape(
        graph=over(Odd, PAIR, a=a, b=b),
        inputs=[{"user-name": "u"}, {"user-name": "v", "my key": 5}],
    )


class Clashing(TypedDict, total=False):
    step: int
    active: bool
    state: str
    goto: list[str]
    error: str
    steps: int
    self: str
    packets: list[int]
    final_return_value: int
    recursion_limit: int
    print: Annotated[list[str], operator.add]
    n_step: int
    s_step: int
    in_step: int
    value: int
    u: int


@SHAPES.add
def fields_named_like_parts_of_programs() -> Shape:
    def a(state: Clashing) -> dict[str, Any]:
        return {
            "step": state.get("step", 0) + 1, "active": False, "state": "s", "goto": ["b"],
            "error": "no error", "steps": 99, "self": "me", "packets": [1], "print": ["a"],
            "final_return_value": 3, "recursion_limit": 1, "n_step": 4, "s_step": 5, "in_step": 6,
            "value": 7, "u": 8,
        }  # fmt: skip

    def b(state: Clashing) -> dict[str, Any]:
        total = state["step"] + state["n_step"] + state["s_step"] + state["in_step"] + state["u"]
        return {"value": total, "print": [state["self"], state["error"]], "goto": []}

    return Shape(graph=over(Clashing, PAIR, a=a, b=b), inputs=[{}, {"step": 10, "error": "given"}])


class Colour(enum.Enum):
    RED = "red"


class AnyState(TypedDict, total=False):
    value: Any
    copy: Any


class Talk(TypedDict, total=False):
    value: AnyMessage | list[AnyMessage] | dict[str, tuple[AnyMessage, ...]]
    copy: list[AnyMessage | list[AnyMessage] | dict[str, tuple[AnyMessage, ...]]]


def _values(*values: Any, schema: Any = AnyState) -> Shape:
    seen: list[Any] = []

    def a(state: Any) -> dict[str, Any]:
        seen.append(state["value"])
        return {"copy": [state["value"]]}

    def b(state: Any) -> dict[str, Any]:
        seen.append(state["copy"])
        return {"copy": [*state["copy"], *state["copy"]]}

    return Shape(
        graph=over(schema, PAIR, a=a, b=b), inputs=[{"value": one} for one in values], seen=seen
    )


@SHAPES.add
def values_of_plain_types() -> Shape:
    return _values(
        None, True, 0, -0.0, 1.5, 1e300, 2**70, "", "a\n\u2028ü\U0001f600", [], {}, [[None]]
    )


@SHAPES.add
def values_that_json_does_not_know() -> Shape:
    return _values(
        (1, 2),
        ((), [(1,)]),
        {1, 2},
        {1: "a", (1, 2): "b", None: 0, False: 1},
        frozenset({"x"}),
        b"\x00\xff",
    )


@SHAPES.add
def values_with_dates() -> Shape:
    when = dt.datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
    return _values(when, when.date(), when.time(), dt.timedelta(seconds=1.5), {"at": [when]})


@SHAPES.add
def values_that_are_messages() -> Shape:
    call = {"name": "f", "args": {"x": 1}, "id": "c1", "type": "tool_call"}
    return _values(
        HumanMessage("hi", id="1"),
        AIMessage("", id="2", tool_calls=[call]),
        [ToolMessage("r", id="3", tool_call_id="c1", artifact={"a": (1,)})],
        {"nested": (AIMessage([{"type": "text", "text": "block"}], id="4"),)},
        schema=Talk,
    )


@SHAPES.add
def values_that_look_like_marks_of_the_wire() -> Shape:
    return _values(
        "__absent__", {"__absent__": 1}, {"is_sequrity_var": True, "value": 1, "meta": {}},
        {"lc": 1, "type": "constructor", "id": ["x"], "kwargs": {}}, {"__type__": "tuple"},
        {"goto:": ["b"]}, {"send:": []}, ["__absent__"], {"value": 1, "meta": {"tags": []}},
    )  # fmt: skip


@SHAPES.add
def absent_mark_as_a_field_value() -> Shape:
    def a(state: Traced) -> dict[str, Any]:
        return {"n": "__absent__", "trace": [str(state.get("n", "none"))]}

    def b(state: Traced) -> dict[str, Any]:
        return {"trace": [str(state.get("n", "none"))]}

    return Shape(graph=connect(traced(a=a, b=b), *PAIR), inputs=[{}, {"n": "__absent__"}])


@SHAPES.add
def values_that_nodes_change_in_place() -> Shape:
    given: list[Any] = ["given"]

    def a(state: AnyState) -> dict[str, Any]:
        return {"copy": [*state["value"], "a"]}

    def b(state: AnyState) -> dict[str, Any]:
        return {"copy": [*state["copy"], "b"]}

    return Shape(graph=over(AnyState, PAIR, a=a, b=b), inputs=[{"value": given}], seen=given)


@SHAPES.add
def keys_that_are_no_fields_are_dropped() -> Shape:
    graph = connect(traced(a=constant({"unknown": 1, "n": 2}), b=constant({"unknown": 1})), *PAIR)
    return Shape(graph=graph, inputs=[{}])
