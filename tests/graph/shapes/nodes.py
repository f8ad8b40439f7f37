"""Nodes: their names, kinds and injected arguments; subgraphs, tools and threads."""

import operator
from functools import partial, wraps
from itertools import pairwise
from typing import Annotated, Any, Literal, TypedDict

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, tools_condition
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, Send, StreamWriter, interrupt

from tests.graph.shape import Shape, Shapes
from tests.graph.shapes.traced import Traced, connect, traced, visit

SHAPES = Shapes()

ODD_NAMES = (
    "call model-1", "2nd", "it's", 'say "hi"', "if", "len", "für", "😀", "a.b", "state", "print",
    "t", "ta", "back\\slash", "line\nimport os", "#", "{x}", "final_return_value", "a" * 100,
    "a" * 99 + "b", "step", "parse_with_ai", "A", "a",
)  # fmt: skip


@SHAPES.add
def nodes_with_odd_names() -> Shape:
    graph = traced(*ODD_NAMES)
    path = [START, *ODD_NAMES]
    for source, target in pairwise(path):
        graph.add_edge(source, target)
    return Shape(graph=graph, inputs=[{}])


@SHAPES.add
def targets_with_odd_names() -> Shape:
    def route(state: Traced) -> list[str]:
        return list(ODD_NAMES[state["n"] :: 3])

    graph = traced("begin", *ODD_NAMES)
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", route)
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": 1}, {"n": 2}])


@SHAPES.add
def names_that_begin_alike() -> Shape:
    def route(state: Traced) -> Literal["t", "ta", "tab"]:
        return ("t", "ta", "tab")[state["n"]]

    graph = connect(traced("s", "t", "ta", "tab"), "__start__>s")
    graph.add_conditional_edges("s", route)
    return Shape(graph=graph, inputs=[{"n": 0}, {"n": 1}, {"n": 2}])


@SHAPES.add
def functions_named_like_other_nodes() -> Shape:
    def save(_state: Traced) -> dict[str, Any]:
        return {"trace": ["save ran"]}

    def load(_state: Traced) -> dict[str, Any]:
        return {"trace": ["load ran"]}

    graph = connect(traced(load=save, save=load), "__start__>load", "load>save")
    return Shape(graph=graph, inputs=[{}])


def logged(function: Any) -> Any:
    """A decorator that hides the function that it wraps."""

    def wrapper(state: Any) -> Any:
        return function(state)

    return wrapper


def logged_well(function: Any) -> Any:
    """A decorator that does not hide it."""

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Calling:
    """A node with a state of its own."""

    def __call__(self, state: Traced) -> dict[str, Any]:
        return {"trace": [f"called {state.get('n')}"]}

    def method(self, state: Traced) -> dict[str, Any]:
        return {"trace": [f"method {state.get('n')}"]}


@SHAPES.add
def nodes_that_are_no_plain_functions() -> Shape:
    def say(text: str, state: Traced) -> dict[str, Any]:
        return {"trace": [f"{text} {len(state['trace'])}"]}

    graph = traced(
        lambda_=lambda state: {"n": state["n"] + 1},
        partial_=partial(say, "partial"),
        callable_=Calling(),
        method_=Calling().method,
        logged_=logged(visit("logged")),
        logged_well_=logged_well(visit("logged well")),
        runnable_=RunnableLambda(visit("runnable")),
        chain_=RunnableLambda(lambda state: state["n"]) | (lambda n: {"trace": [f"chain {n}"]}),
    )
    names = [START, *graph.nodes]
    for source, target in pairwise(names):
        graph.add_edge(source, target)
    return Shape(graph=graph, inputs=[{"n": 1}])


@SHAPES.add
def one_function_as_two_nodes() -> Shape:
    same = visit("same")
    return Shape(graph=connect(traced(a=same, b=same), "__start__>a", "a>b"), inputs=[{}])


@SHAPES.add
def nodes_named_by_their_functions() -> Shape:
    def first(_state: Traced) -> dict[str, Any]:
        return {"trace": ["first"]}

    def second(_state: Traced) -> dict[str, Any]:
        return {"trace": ["second"]}

    graph: Any = StateGraph(Traced)
    graph.add_node(first)
    graph.add_node(second)
    return Shape(graph=connect(graph, "__start__>first", "first>second"), inputs=[{}])


@SHAPES.add
def nodes_that_await() -> Shape:
    async def a(state: Traced) -> dict[str, Any]:
        return {"trace": [f"a {state.get('n')}"], "n": 1}

    async def b(_state: Traced) -> Command[Literal["c"]]:
        return Command(update={"trace": ["b"]}, goto="c")

    return Shape(graph=connect(traced("c", a=a, b=b), "__start__>a", "a>b"), inputs=[{}])


@SHAPES.add
def nodes_that_take_config_store_and_writer() -> Shape:
    def a(state: Traced, config: RunnableConfig) -> dict[str, Any]:
        return {"trace": [f"{config['configurable']['who']} {config['tags']} {len(state)}"]}

    def b(_state: Traced, *, store: BaseStore) -> dict[str, Any]:
        store.put(("ns",), "key", {"value": 1})
        return {"trace": ["stored"]}

    def c(_state: Traced, *, store: BaseStore, writer: StreamWriter) -> dict[str, Any]:
        writer({"event": "c"})
        item = store.get(("ns",), "key")
        return {"trace": [f"{item.value if item else None}"]}

    graph = connect(traced(a=a, b=b, c=c), "__start__>a", "a>b", "b>c")
    return Shape(
        graph=graph.compile(store=InMemoryStore()),
        inputs=[{}],
        config={"configurable": {"who": "me"}, "tags": ["tag"]},
    )


class Context(TypedDict):
    user: str


@SHAPES.add
def nodes_that_take_a_runtime() -> Shape:
    def a(_state: Traced, runtime: Runtime[Context]) -> dict[str, Any]:
        return {"trace": [f"for {runtime.context['user']}"]}

    def route(_state: Traced, runtime: Runtime[Context]) -> Literal["b", "__end__"]:
        return "b" if runtime.context["user"] == "ada" else "__end__"

    graph: Any = StateGraph(Traced, context_schema=Context)
    graph.add_node("a", a)
    graph.add_node("b", visit("b"))
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", route)
    return Shape(graph=graph, inputs=[{}], context={"user": "ada"})


@SHAPES.add
def node_that_fails() -> Shape:
    def a(state: Traced) -> dict[str, Any]:
        return {"n": 1 // state.get("n", 0)}

    return Shape(graph=connect(traced(a=a), "__start__>a"), inputs=[{}, {"n": 1}])


@SHAPES.add
def node_that_reads_what_is_not_there() -> Shape:
    def a(state: Traced) -> dict[str, Any]:
        return {"n": state["n"]}

    return Shape(graph=connect(traced(a=a), "__start__>a"), inputs=[{}])


@SHAPES.add
def node_with_the_whole_state() -> Shape:
    seen: list[Any] = []

    def a(state: Traced) -> dict[str, Any]:
        seen.append(dict(state))
        return {"trace": sorted(state)}

    graph = connect(traced(a=a, b=a), "__start__>a", "a>b")
    return Shape(graph=graph, inputs=[{}, {"n": 1}], seen=seen)


@SHAPES.add
def subgraph_with_shared_fields() -> Shape:
    inner = connect(traced("inner_a", "inner_b"), "__start__>inner_a", "inner_a>inner_b")
    graph = traced("a", "c")
    graph.add_node("sub", inner.compile())
    connect(graph, "__start__>a", "a>sub", "sub>c")
    return Shape(graph=graph, inputs=[{}, {"n": 1, "trace": ["in"]}])


@SHAPES.add
def subgraph_with_fields_of_its_own() -> Shape:
    class Inside(TypedDict, total=False):
        n: int
        secret: str

    def inner(state: Inside) -> dict[str, Any]:
        return {"n": state["n"] + 1, "secret": f"s{state['n']}"}

    child: Any = StateGraph(Inside)
    child.add_node("inner", inner)
    child.add_edge(START, "inner")
    graph = traced("a")
    graph.add_node("sub", child.compile(name="child"))
    connect(graph, "__start__>a", "a>sub")
    return Shape(graph=graph, inputs=[{"n": 1}])


@SHAPES.add
def subgraph_called_in_a_node() -> Shape:
    child = connect(traced("x"), "__start__>x").compile()

    def call(state: Traced) -> dict[str, Any]:
        found = child.invoke({"trace": [f"from {state['n']}"]})
        return {"trace": found["trace"][-2:]}

    return Shape(graph=connect(traced(call=call), "__start__>call"), inputs=[{"n": 1}])


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def broken(a: int) -> int:
    """Fail."""
    return a // 0


@SHAPES.add
def tools_in_a_loop() -> Shape:
    calls = [
        {"name": "add", "args": {"a": 1, "b": 2}, "id": "1", "type": "tool_call"},
        {"name": "add", "args": {"a": 3, "b": 4}, "id": "2", "type": "tool_call"},
    ]

    def agent(state: MessagesState) -> dict[str, Any]:
        n = len(state["messages"])
        script = {
            1: AIMessage("", id="t1", tool_calls=calls),
            4: AIMessage("", id="t2", tool_calls=calls[:1]),
        }
        return {"messages": [script.get(n, AIMessage(f"done after {n}", id="end"))]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("agent", agent)
    graph.add_node("tools", ToolNode([add]))
    connect(graph, "__start__>agent", "tools>agent")
    graph.add_conditional_edges("agent", tools_condition)
    return Shape(graph=graph, inputs=[{"messages": [HumanMessage("sum", id="q")]}])


@SHAPES.add
def tool_that_is_unknown_or_wrongly_called() -> Shape:
    def agent(_state: MessagesState) -> dict[str, Any]:
        calls = [
            {"name": "nothing", "args": {}, "id": "1", "type": "tool_call"},
            {"name": "add", "args": {"a": "x"}, "id": "2", "type": "tool_call"},
        ]
        return {"messages": [AIMessage("", id="t", tool_calls=calls)]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("agent", agent)
    graph.add_node("tools", ToolNode([add]))
    connect(graph, "__start__>agent", "agent>tools")
    return Shape(graph=graph, inputs=[{"messages": "go"}])


@SHAPES.add
def tool_that_returns_a_command() -> Shape:
    class Purse(MessagesState):
        total: Annotated[int, operator.add]

    @tool
    def pay(amount: int) -> Any:
        """Pay."""
        return Command(update={"total": amount, "messages": [_paid(amount)]})

    def _paid(amount: int) -> Any:
        return {"role": "tool", "content": f"paid {amount}", "tool_call_id": "1", "id": "p"}

    def agent(_state: Purse) -> dict[str, Any]:
        call = {"name": "pay", "args": {"amount": 5}, "id": "1", "type": "tool_call"}
        return {"messages": [AIMessage("", id="t", tool_calls=[call])]}

    graph: Any = StateGraph(Purse)
    graph.add_node("agent", agent)
    graph.add_node("tools", ToolNode([pay]))
    connect(graph, "__start__>agent", "agent>tools")
    return Shape(graph=graph, inputs=[{"messages": "go", "total": 1}])


@SHAPES.add
def tool_that_reads_the_state_although_a_packet_calls_it() -> Shape:
    class Rooms(MessagesState):
        rooms: int

    @tool
    def look(
        state: Annotated[Any, InjectedState], rooms: Annotated[int, InjectedState("rooms")]
    ) -> str:
        """Look around."""
        return f"{rooms} rooms, {len(state['messages'])} messages"

    def agent(_state: Rooms) -> dict[str, Any]:
        call = {"name": "look", "args": {}, "id": "1", "type": "tool_call"}
        return {"messages": [AIMessage("", id="t", tool_calls=[call])], "rooms": 3}

    def spread(state: Rooms) -> list[Send]:
        return [Send("tools", [call]) for call in state["messages"][-1].tool_calls]  # type: ignore[union-attr]

    graph: Any = StateGraph(Rooms)
    graph.add_node("agent", agent)
    graph.add_node("tools", ToolNode([look]))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", spread, ["tools"])
    return Shape(graph=graph, inputs=[{"messages": "go"}])


@SHAPES.add
def tools_that_a_packet_calls_through_other_nodes() -> Shape:
    @tool
    def look(state: Annotated[Any, InjectedState]) -> str:
        """Look around."""
        return f"{len(state['messages'])} messages"

    @tool
    def wait() -> str:
        """Wait."""
        return "waited"

    def agent(_state: MessagesState) -> dict[str, Any]:
        calls: list[Any] = [
            {"name": name, "args": {}, "id": name, "type": "tool_call"} for name in ("look", "wait")
        ]
        return {"messages": [AIMessage("", id="t", tool_calls=calls)]}

    def spread(state: MessagesState) -> list[Send]:
        looking, waiting = state["messages"][-1].tool_calls  # type: ignore[union-attr]
        return [Send("piped", [looking]), Send("called", [waiting])]

    def called(calls: Any) -> Any:
        return ToolNode([wait]).invoke(calls)

    graph: Any = StateGraph(MessagesState)
    graph.add_node("agent", agent)
    graph.add_node("piped", RunnableLambda(lambda calls: calls) | ToolNode([look]))
    graph.add_node("called", called)
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", spread, ["piped", "called"])
    return Shape(graph=graph, inputs=[{"messages": "go"}])


@SHAPES.add
def tool_that_reads_the_state() -> Shape:
    @tool
    def look(state: Annotated[Any, InjectedState]) -> str:
        """Look around."""
        return f"{len(state['messages'])} messages"

    def agent(_state: MessagesState) -> dict[str, Any]:
        call = {"name": "look", "args": {}, "id": "1", "type": "tool_call"}
        return {"messages": [AIMessage("", id="t", tool_calls=[call])]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("agent", agent)
    graph.add_node("tools", ToolNode([look]))
    connect(graph, "__start__>agent", "agent>tools")
    return Shape(graph=graph, inputs=[{"messages": "go"}])


THREAD = {"configurable": {"thread_id": "t"}}


@SHAPES.add
def thread_keeps_its_state() -> Shape:
    graph = connect(traced("a", "b"), "__start__>a", "a>b").compile(checkpointer=InMemorySaver())
    return Shape(graph=graph, inputs=[{"n": 1}, {}, {"trace": ["third"]}], config=THREAD)


@SHAPES.add
def thread_keeps_private_fields() -> Shape:
    class Secret(TypedDict, total=False):
        hidden: int

    def a(state: Secret) -> dict[str, Any]:
        return {"hidden": state.get("hidden", 0) + 1, "trace": [str(state.get("hidden"))]}

    graph = connect(traced(a=a), "__start__>a").compile(checkpointer=InMemorySaver())
    return Shape(graph=graph, inputs=[{}, {}, {}], config=THREAD)


@SHAPES.add
def node_that_interrupts() -> Shape:
    seen: list[Any] = []

    def a(_state: Traced) -> dict[str, Any]:
        seen.append("a")
        return {"trace": ["a"]}

    def ask(state: Traced) -> dict[str, Any]:
        answer = interrupt({"question": "how many?", "so far": len(state["trace"])})
        return {"n": answer, "trace": ["asked"]}

    graph = connect(traced("c", a=a, ask=ask), "__start__>a", "a>ask", "ask>c")
    return Shape(
        graph=graph.compile(checkpointer=InMemorySaver()),
        inputs=[{}, Command(resume=42)],
        config=THREAD,
        seen=seen,
    )


@SHAPES.add
def node_that_interrupts_twice() -> Shape:
    def ask(_state: Traced) -> dict[str, Any]:
        first, second = interrupt("first?"), interrupt("second?")
        return {"trace": [first, second]}

    graph = connect(traced("b", ask=ask), "__start__>ask", "ask>b")
    return Shape(
        graph=graph.compile(checkpointer=InMemorySaver()),
        inputs=[{}, Command(resume="one"), Command(resume="two")],
        config=THREAD,
    )


@SHAPES.add
def breakpoints() -> Shape:
    graph = connect(traced("a", "b", "c"), "__start__>a", "a>b", "b>c").compile(
        checkpointer=InMemorySaver(), interrupt_before=["b"], interrupt_after=["b"]
    )
    return Shape(graph=graph, inputs=[{}, None, None], config=THREAD)


@SHAPES.add
def name_and_metadata_of_nodes() -> Shape:
    graph = traced()
    graph.add_node("a", visit("a"), metadata={"owner": "me"})
    return Shape(graph=connect(graph, "__start__>a", f"a>{END}").compile(name="named"), inputs=[{}])
