"""Nodes that change what they read in place."""

import asyncio
import copy
import operator
import threading
from array import array
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.errors import NodeError
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode
from langgraph.types import CachePolicy, Command, RetryPolicy, interrupt
from pydantic import BaseModel, ConfigDict, PrivateAttr

from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import PolicyDenied, UnknownAccess, UsageError
from langchain_sequrity.headers import BranchingMetaPolicy, PolicyHeader
from langchain_sequrity.local import LocalServer
from tests.graph.in_place import look
from tests.graph.running import secured

_THREAD: Any = {"configurable": {"thread_id": "t"}}

_DUAL: Any = {"agent_arch": "dual-llm"}
SECRETS_STAY = """
tool "fetch" -> @tags |= {"secret"};
tool "send" { hard deny when "secret" in doc.tags; }
"""


@pytest.fixture(scope="module")
def server() -> Any:
    with LocalServer(isolated_programs=False) as server:
        yield server


@pytest.fixture
def model(server: LocalServer) -> ChatSequrity:
    return ChatSequrity("any/model", base_url=server.base_url)


@pytest.fixture
def guarded(server: LocalServer) -> ChatSequrity:
    return ChatSequrity("any/model", base_url=server.base_url, policy=SECRETS_STAY, features=_DUAL)


@dataclass
class Doc:
    title: str = ""
    lines: list[str] = field(default_factory=list)


@dataclass
class Numbered(Doc):
    """Each object has the attribute; it is not a field."""

    def __post_init__(self) -> None:
        self.hidden = ""


class State(TypedDict):
    secret: str
    doc: Any
    other: str


def fetch(state: State) -> dict[str, Any]:  # noqa: ARG001 - LangGraph passes it
    return {"secret": "s3cret"}


def send(state: State) -> dict[str, Any]:
    return {"other": str(state["doc"])}


def _leaking(change: Callable[[Any, str], Any], schema: Any = State) -> Any:
    """Fetch a secret, write it into the document in place, and send the document."""

    def leak(state: State) -> dict[str, Any]:
        change(state["doc"], state["secret"])
        return {}

    graph = StateGraph(schema)
    for node in (fetch, leak, send):
        graph.add_node(node.__name__, node)
    return graph.add_edge(START, "fetch").add_edge("fetch", "leak").add_edge("leak", "send")


def _set_title(doc: Any, text: str) -> None:
    doc.title = text


class SlotBesideDict:
    __slots__ = ("__dict__", "title")

    def __init__(self) -> None:
        self.title = ""


class Picky:
    """Its pickle has its name alone."""

    def __init__(self, name: str = "") -> None:
        self.name, self.lines = name, list[Any]([object])

    def __getstate__(self) -> dict[str, str]:
        return {"name": self.name}


class Reduced(Picky):
    def __reduce__(self) -> Any:
        return Reduced, (self.name,)


class Titles(list[str]):
    title = ""

    def __reduce__(self) -> Any:
        return Titles, (list(self),)


class Numbers(list[int]):
    def __getstate__(self) -> None:
        return None


class Hushed:
    """Its pickle leaves out what its slot has."""

    __slots__ = ("title",)

    def __init__(self) -> None:
        self.title = ""

    def __reduce__(self) -> Any:
        return Hushed, ()


class Draft:
    def __init__(self) -> None:
        self.title = ""


class Letter(Draft):
    pass


class Failed(Exception):
    pass


class Holder:
    """What it holds cannot be written as plain data."""

    def __init__(self, value: Any) -> None:
        self.value, self.cls = value, Holder


def _notebook() -> Callable[..., list[str]]:
    lines = list[str]()

    def add(*texts: str) -> list[str]:
        lines.extend(texts)
        return lines

    return add


class Form(BaseModel):
    title: str = ""


@dataclass
class Page:
    text: str = ""

    @cached_property
    def words(self) -> list[str]:
        return self.text.split()


class Pages(TypedDict):
    page: Page
    words: Annotated[list[str], operator.add]


class TypedDoc(TypedDict):
    secret: str
    doc: Doc | Form
    other: str


@pytest.mark.parametrize("saver", [None, InMemorySaver()], ids=["no saver", "saver"])
@pytest.mark.parametrize(
    ("doc", "change"),
    [
        (Doc(), _set_title),
        (Doc(), lambda doc, text: doc.lines.append(text)),
        (Doc(), lambda doc, text: setattr(doc, "hidden", text)),
        (AIMessage("x"), lambda doc, text: doc.additional_kwargs.update(a=text)),
        ([AIMessage("x")], lambda doc, text: setattr(doc[0], "content", text)),
        ([Doc(), Doc()], lambda doc, text: _set_title(doc[1], text)),
        ([], lambda doc, text: doc.append(text)),
        ({"a": [{}]}, lambda doc, text: doc["a"][0].update(b=text)),
    ],
    ids=["attribute", "list", "hidden", "message", "messages", "objects", "empty", "nested"],
)
def test_what_a_node_changes_in_place_has_the_labels_of_what_it_read(
    guarded: ChatSequrity, saver: Any, doc: Any, change: Callable[[Any, str], Any]
) -> None:
    executor = secured(_leaking(change), guarded, checkpointer=saver)
    with pytest.raises(PolicyDenied):
        executor.invoke({"doc": copy.deepcopy(doc), "secret": "", "other": ""}, _THREAD)


class Letters(TypedDict):
    secret: str
    doc: list[AnyMessage]
    other: str


@pytest.mark.parametrize("field_name", ["content", "name", "note"])
def test_what_a_node_changes_in_a_message_has_the_labels_of_what_it_read(
    guarded: ChatSequrity, field_name: str
) -> None:
    graph = _leaking(lambda doc, text: setattr(doc[0], field_name, text), Letters)
    with pytest.raises(PolicyDenied):
        secured(graph, guarded).invoke(
            {"doc": [AIMessage("x", note="")], "secret": "", "other": ""}
        )


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (SlotBesideDict, _set_title),
        (Hushed, _set_title),
        (Draft, lambda doc, _: setattr(doc, "__class__", Letter)),
        (Picky, lambda doc, text: doc.lines.append(text)),
        (Reduced, lambda doc, text: doc.lines.append(text)),
        (Titles, _set_title),
        (Titles, lambda doc, text: doc.append(text)),
        (Numbers, lambda doc, _: doc.append(1)),
        (Failed, lambda doc, text: doc.add_note(text)),
        (lambda: Holder(Doc()), lambda doc, text: setattr(doc.value, "hidden", text)),
        (lambda: Holder(Failed()), lambda doc, text: setattr(doc.value, "args", (text,))),
        (_notebook, lambda doc, text: doc(text)),
        (_notebook, lambda doc, text: setattr(doc, "text", text)),
        (lambda: array("u", "x" * 6), lambda doc, _: doc.append("s")),
        (lambda: [array("u", "x" * 6)], lambda doc, _: doc[0].append("s")),
        (lambda: [memoryview(bytearray(1))], lambda doc, _: doc[0].__setitem__(0, 7)),
    ],
)
@pytest.mark.parametrize("schema", [State, TypedDoc])
def test_all_of_an_object_is_compared_whatever_its_class_stores(
    guarded: ChatSequrity, make: Callable[[], Any], change: Callable[[Any, str], Any], schema: Any
) -> None:
    with pytest.raises(PolicyDenied):
        secured(_leaking(change, schema), guarded).invoke(
            {"doc": make(), "secret": "", "other": ""}
        )
    # Reading it changes nothing.
    secured(_leaking(lambda doc, _: str(doc), schema), guarded).invoke(
        {"doc": make(), "secret": "", "other": ""}
    )


def test_the_caches_of_a_path_within_an_object_are_not_its_content(guarded: ChatSequrity) -> None:
    executor = secured(_leaking(lambda doc, _: str(doc.value)), guarded)
    executor.invoke({"doc": Holder(Path("a", "b")), "secret": "", "other": ""})


def test_nodes_side_by_side_may_read_a_cached_property_of_an_annotated_object(
    model: ChatSequrity,
) -> None:
    graph = StateGraph(Pages)
    for node in ("a", "b"):
        graph.add_node(node, lambda state: {"words": state["page"].words}).add_edge(START, node)
    ended = secured(graph, model).invoke({"page": Page("x y"), "words": []})
    assert ended["words"] == ["x", "y", "x", "y"]


@pytest.mark.filterwarnings("ignore::langchain_sequrity.errors.UnknownAccess")
@pytest.mark.parametrize("make", [Doc, Numbered, Form])
def test_an_attribute_beside_the_fields_of_an_annotated_object_stays(
    model: ChatSequrity, guarded: ChatSequrity, make: Callable[[], Any]
) -> None:
    graph = _leaking(lambda doc, text: object.__setattr__(doc, "hidden", text), TypedDoc)
    graph.add_node("show", lambda state: {"other": state["doc"].hidden}).add_edge("send", "show")
    ended = secured(graph, model).invoke({"doc": make(), "secret": "", "other": ""})
    assert ended["other"] == ended["doc"].hidden == "s3cret"
    with pytest.raises(PolicyDenied):
        secured(graph, guarded).invoke({"doc": make(), "secret": "", "other": ""})


def test_a_node_that_only_reads_changes_no_labels(guarded: ChatSequrity) -> None:
    executor = secured(_leaking(lambda doc, _: str(doc)), guarded)
    ended = executor.invoke({"doc": [Doc()], "secret": "", "other": ""})
    assert ended["other"] == str([Doc()])


def test_an_object_whose_changes_cannot_be_noticed_counts_as_changed(guarded: ChatSequrity) -> None:
    executor = secured(_leaking(lambda doc, _: str(doc)), guarded)
    with (
        pytest.warns(UnknownAccess, match="`lock`, whose changes cannot be noticed"),
        pytest.raises(PolicyDenied),
    ):
        executor.invoke({"doc": threading.Lock(), "secret": "", "other": ""})


def test_with_rules_on_branches_a_field_that_may_change_has_the_labels_of_the_node(
    server: LocalServer,
) -> None:
    policy = PolicyHeader.from_sqrt(
        SECRETS_STAY,
        mode="custom",
        branching_meta_policy=BranchingMetaPolicy(mode="deny", tags={"secret"}),
    )
    model = ChatSequrity("any/model", base_url=server.base_url, policy=policy, features=_DUAL)
    executor = secured(_leaking(_set_title), model)
    assert "if" not in executor.program
    with pytest.raises(PolicyDenied, match="send"):
        executor.invoke({"doc": Doc(), "secret": "", "other": ""})


# The same state as in LangGraph


class Plan(TypedDict):
    plan: list[str]
    done: list[str]


def work(state: Plan) -> dict[str, Any]:
    step = state["plan"].pop(0)
    return {"done": state["done"] + [step]}


def test_a_loop_that_empties_a_list_ends(model: ChatSequrity) -> None:
    graph = StateGraph(Plan).add_node(work).add_edge(START, "work")
    graph.add_conditional_edges("work", lambda state: "work" if state["plan"] else END)
    executor = secured(graph, model)
    ended = executor.invoke({"plan": ["a", "b", "c"], "done": []})
    assert ended == {"plan": [], "done": ["a", "b", "c"]}
    again = asyncio.run(executor.ainvoke({"plan": ["a", "b", "c"], "done": []}))
    assert again == ended


def test_a_key_that_is_set_or_deleted_in_a_state_without_fields_stays(model: ChatSequrity) -> None:
    def put(state: dict[str, Any]) -> None:
        state["new"] = [1]

    def drop(state: dict[str, Any]) -> None:
        del state["old"]

    graph = StateGraph(dict).add_sequence([put, drop]).add_edge(START, "put")  # type: ignore[type-var]
    assert secured(graph, model).invoke({"old": 1}) == {"new": [1]}


def test_the_values_that_a_stream_shows_are_as_in_langgraph(model: ChatSequrity) -> None:
    """A step that only changes values in place adds no chunk, unless it is the last one."""

    def pop(state: Plan) -> None:
        state["plan"].pop()

    def note(state: Plan) -> dict[str, Any]:
        return {"done": list(state["plan"])}

    graph = StateGraph(Plan).add_sequence([pop, note]).add_edge(START, "pop")

    def chunks(runnable: Any) -> list[Any]:
        values = {"plan": ["a", "b"], "done": []}
        return [copy.deepcopy(one) for one in runnable.stream(values, stream_mode="values")]

    assert chunks(secured(graph, model)) == chunks(graph.compile())
    graph.add_node("again", pop).add_edge("note", "again")
    graph.add_node("rest", lambda _: None).add_edge("again", "rest")
    assert chunks(secured(graph, model)) == [*chunks(graph.compile()), {"plan": [], "done": ["a"]}]


@pytest.mark.long(sample=12)
@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_end_as_in_langgraph_and_lose_no_labels(
    model: ChatSequrity, seed: int
) -> None:
    case = look(seed, model)
    assert not case.lost
    assert case.outcome in {"equal", "race"} or case.outcome.startswith("refused (beside)")


class Tries(TypedDict):
    tries: list[int]
    doc: Any
    other: str


@pytest.mark.parametrize("has_handler", [False, True])
def test_attempts_of_a_node_share_what_they_change(model: ChatSequrity, has_handler: bool) -> None:
    def unsure(state: Tries) -> dict[str, Any]:
        state["tries"].append(len(state["tries"]))
        state["doc"].title += "x"
        if has_handler or len(state["tries"]) < 3:
            raise ConnectionError
        return {"other": str(state["tries"])}

    def handle(state: Tries, error: NodeError) -> dict[str, Any]:  # noqa: ARG001
        return {"other": f"failed {state['tries']} {state['doc'].title}"}

    def graph() -> Any:
        options: Any = {"error_handler": handle} if has_handler else {}
        policy = RetryPolicy(max_attempts=3, initial_interval=0, jitter=False)
        graph = StateGraph(Tries).add_node(unsure, retry_policy=policy, **options)
        return graph.add_edge(START, "unsure")

    def state() -> Tries:
        return {"tries": [], "doc": Doc(), "other": ""}

    assert secured(graph(), model).invoke(state()) == graph().compile().invoke(state())


class Asked(TypedDict):
    items: list[str]
    seen: str


def change(state: Asked) -> dict[str, Any]:
    state["items"].append("changed")
    return {}


def ask(state: Asked) -> dict[str, Any]:
    answer = interrupt("?")
    return {"seen": f"{state['items']} {answer}"}


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("durability", ["sync", "exit"])
def test_a_thread_continues_with_what_its_checkpointer_has_stored(
    model: ChatSequrity, kind: str, durability: Any, tmp_path: Path
) -> None:
    """Some checkpointers do not store a field that was only changed in place."""
    graph = StateGraph(Asked).add_node(change).add_node(ask).add_edge(START, "change")
    graph.add_edge("change", "ask")

    def run(make: Callable[[Any], Any]) -> list[Any]:
        if kind == "memory":
            return turns(make(InMemorySaver()))
        with SqliteSaver.from_conn_string(str(tmp_path / f"{len(list(tmp_path.iterdir()))}")) as s:
            s.conn.execute("PRAGMA synchronous=OFF")  # no test turns the machine off
            return turns(make(s))

    def turns(runnable: Any) -> list[Any]:
        first = runnable.invoke({"items": ["x"], "seen": ""}, _THREAD, durability=durability)
        first.pop("__interrupt__")
        second = runnable.invoke(Command(resume="yes"), _THREAD, durability=durability)
        third = runnable.get_state(_THREAD).values
        return [first, second, third]

    plain = run(lambda saver: graph.compile(checkpointer=saver))
    assert run(lambda saver: secured(graph, model, checkpointer=saver)) == plain


def test_a_cached_node_changes_nothing(model: ChatSequrity) -> None:
    def cached(state: Plan) -> dict[str, Any]:
        state["plan"].append("changed")
        return {"done": ["done"]}

    def graph() -> Any:
        policy = CachePolicy(key_func=lambda _: "key")
        return StateGraph(Plan).add_node(cached, cache_policy=policy).add_edge(START, "cached")

    def ends(runnable: Any) -> list[Any]:
        return [runnable.invoke({"plan": [], "done": []}) for _ in range(2)]

    plain = ends(graph().compile(cache=InMemoryCache()))
    assert ends(secured(graph(), model, cache=InMemoryCache())) == plain


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], operator.add]
    notes: list[str]


@tool
def note(text: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Note a text."""
    state["notes"].append(text)
    return "noted"


def test_a_tool_may_change_the_state_that_it_gets(model: ChatSequrity) -> None:
    def graph() -> Any:
        graph = StateGraph(Chat).add_node("tools", ToolNode([note])).add_edge(START, "tools")
        return graph.add_node("read", lambda state: {"notes": [*state["notes"], "read"]}).add_edge(
            "tools", "read"
        )

    calls = [{"name": "note", "args": {"text": "hello"}, "id": "1"}]

    def state() -> Any:
        return {"messages": [AIMessage("", tool_calls=calls, id="m")], "notes": []}

    plain = graph().compile().invoke(state())
    ended = secured(graph(), model).invoke(state())
    assert ended["notes"] == plain["notes"] == ["hello", "read"]


def test_a_list_may_be_changed_and_added_to_by_one_node(model: ChatSequrity) -> None:
    class Added(TypedDict):
        log: Annotated[list[str], operator.add]

    def both(state: Added) -> dict[str, Any]:
        state["log"].append("changed")
        return {"log": ["returned"]}

    graph = StateGraph(Added).add_node(both).add_edge(START, "both")
    plain = graph.compile().invoke({"log": ["given"]})
    assert secured(graph, model).invoke({"log": ["given"]}) == plain
    assert plain == {"log": ["given", "changed", "returned"]}


# What is refused


def test_a_router_that_changes_the_state_is_refused(model: ChatSequrity) -> None:
    def route(state: Plan) -> str:
        state["plan"].append("changed")
        return END

    graph = StateGraph(Plan).add_node("a", lambda state: {"done": state["plan"]})
    graph.add_edge(START, "a").add_conditional_edges("a", route)
    with pytest.raises(UsageError, match="router `route` of `a` changed the field `plan` in place"):
        secured(graph, model).invoke({"plan": [], "done": []})


def test_a_value_that_is_not_what_its_annotation_says_may_not_be_changed(
    model: ChatSequrity,
) -> None:
    def leak(state: State) -> dict[str, Any]:
        state["other"].append("changed")  # type: ignore[attr-defined]
        return {"secret": ""}

    graph = StateGraph(State).add_node(leak).add_edge(START, "leak")
    with pytest.raises(UsageError, match="changed the field `other` in place"):
        secured(graph, model).invoke({"secret": "", "doc": None, "other": []})


class Two(TypedDict):
    doc: Any
    same: Any
    note: Annotated[list[str], operator.add]


def _beside(*nodes: Any) -> Any:
    graph = StateGraph(Two)
    for node in nodes:
        graph.add_node(node.__name__, node).add_edge(START, node.__name__)
    return graph


def first(state: Two) -> dict[str, Any]:
    state["doc"].title = "changed"
    return {}


def second(state: Two) -> dict[str, Any]:
    return {"note": [str(state["same"])]}


def replaces(state: Two) -> dict[str, Any]:
    return {"doc": state["doc"], "note": []}


@pytest.mark.parametrize("other", [second, replaces])
def test_parallel_nodes_may_not_share_an_object_that_one_of_them_changes(
    model: ChatSequrity, other: Any
) -> None:
    doc = Doc()
    with pytest.raises(UsageError, match=r"in place"):
        secured(_beside(first, other), model).invoke({"doc": doc, "same": doc, "note": []})


@pytest.mark.parametrize("shared", [0, 1])
def test_parallel_nodes_may_not_share_any_of_several_objects_that_one_of_them_changes(
    model: ChatSequrity, shared: int
) -> None:
    has_begun, has_read = threading.Event(), threading.Event()

    def change_all(state: Two) -> dict[str, Any]:
        has_begun.set()
        has_read.wait(10)
        for doc in state["doc"]:
            doc.title = "changed"
        return {}

    def read(state: Two) -> dict[str, Any]:
        has_begun.wait(10)
        return {"note": [str(state["same"])]}

    class End(BaseCallbackHandler):
        def on_chain_start(self, *_: Any, run_id: Any, name: str = "", **__: Any) -> None:
            self.run_id = run_id if name == "read" else getattr(self, "run_id", None)

        def on_chain_end(self, *_: Any, run_id: Any, **__: Any) -> None:
            if run_id == getattr(self, "run_id", None):
                has_read.set()

    docs = [Doc(), Doc()]
    values: Any = {"doc": docs, "same": docs[shared], "note": []}
    message = "Node `change_all` changed a `Doc` in place, and node `read`"
    with pytest.raises(UsageError, match=message):
        secured(_beside(change_all, read), model).invoke(values, {"callbacks": [End()]})
    assert has_read.is_set()


def test_an_object_that_changed_under_another_field_is_not_given_to_a_node(
    model: ChatSequrity,
) -> None:
    graph = StateGraph(Two).add_sequence([first, second]).add_edge(START, "first")
    doc = Doc()
    with pytest.raises(UsageError, match="Field `same` holds a `Doc` that other code has changed"):
        secured(graph, model).invoke({"doc": doc, "same": doc, "note": []})


# Nodes that did not finish


def _unfinished(change: Callable[[Any, str], Any], *, fails: bool) -> Any:
    """Fetch a secret, write it into the document in place, fail or ask, and send the document."""
    asked = list[bool]()

    def leak(state: State) -> dict[str, Any]:
        change(state["doc"], state["secret"])
        asked.append(True)
        if fails and len(asked) == 1:
            raise ConnectionError
        return {} if fails else {"secret": interrupt("?")}

    graph = StateGraph(State)
    rest: Any = ("rest", lambda _: None)
    return graph.add_sequence([fetch, rest, leak, send]).add_edge(START, "fetch")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("is_loaded", [False, True])
@pytest.mark.parametrize("durability", ["sync", "exit"])
def test_what_an_unfinished_node_has_changed_is_not_stored(
    guarded: ChatSequrity, durability: Any, fails: bool, is_loaded: bool
) -> None:
    graph = _unfinished(_set_title, fails=fails)
    values: Any = {"doc": Doc(), "secret": "", "other": ""}
    with SqliteSaver.from_conn_string(":memory:") as saver:
        executor = secured(graph, guarded, checkpointer=saver)
        if is_loaded:
            executor.invoke(values, _THREAD, durability=durability, interrupt_before=["rest"])
            values = None
        with pytest.raises(ConnectionError) if fails else nullcontext():
            executor.invoke(values, _THREAD, durability=durability)
        executor.update_state(_THREAD, {"secret": "x"}, as_node="leak")
        assert executor.invoke(None, _THREAD, durability=durability)["other"] == str(Doc())


@pytest.mark.parametrize("durability", ["sync", "exit"])
def test_a_finished_node_keeps_its_changes_if_one_beside_it_fails(
    model: ChatSequrity, durability: Any
) -> None:
    is_done = threading.Event()

    def change_it(state: Two) -> dict[str, Any]:
        state["doc"].title += "x"
        is_done.set()
        return {"note": ["changed"]}

    def fail_once(state: Two) -> dict[str, Any]:
        is_again = is_done.is_set() and bool(failures)
        failures.append(len(state["note"]))
        is_done.wait(10)
        if not is_again:
            raise ConnectionError
        return {"note": ["again"]}

    failures = list[int]()
    with SqliteSaver.from_conn_string(":memory:") as saver:
        executor = secured(_beside(change_it, fail_once), model, checkpointer=saver)
        with pytest.raises(ConnectionError):
            executor.invoke(
                {"doc": Doc(), "same": None, "note": []}, _THREAD, durability=durability
            )
        ended = executor.invoke(None, _THREAD, durability=durability)
    assert ended["doc"] == Doc("x")
    assert ended["note"] == ["changed", "again"]


# Every kind of content is compared


class Diary(BaseModel):
    """It has data that its fields do not have."""

    model_config = ConfigDict(extra="allow")

    title: str = ""
    _text: str = PrivateAttr("")


@dataclass(slots=True)
class Slotted:
    title: str = ""


class Tagged(NamedTuple):
    lines: list[str]


class Content(TypedDict):
    secret: str
    doc: Diary | Slotted | Tagged | None
    other: str


CONTENTS: list[tuple[Any, Callable[[Any, str], Any]]] = [
    (deque(), lambda doc, text: doc.append(text)),
    (deque([1]), lambda doc, _: doc.__setitem__(0, True)),
    ({1}, lambda doc, text: doc.add(text)),
    ((1, [2]), lambda doc, text: doc[1].append(text)),
    ({1: []}, lambda doc, text: doc[1].append(text)),
    ({(1,): 2}, lambda doc, text: doc.update({(1,): text})),
    (OrderedDict(a=1), lambda doc, text: doc.update(a=text)),
    (Counter("a"), lambda doc, text: doc.update(text)),
    ((bytearray(b"x"),), lambda doc, _: doc[0].append(7)),
    (Diary(), _set_title),
    (Diary(), lambda doc, text: setattr(doc, "_text", text)),
    (Diary(note=""), lambda doc, text: setattr(doc, "note", text)),  # type: ignore[call-arg]
    (Slotted(), _set_title),
    (Tagged([]), lambda doc, text: doc.lines.append(text)),
]


@pytest.mark.parametrize("schema", [State, Content], ids=["on the client", "sent"])
@pytest.mark.parametrize(("doc", "change"), CONTENTS, ids=[repr(doc) for doc, _ in CONTENTS])
def test_a_change_of_any_content_has_the_labels_of_what_its_node_read(
    guarded: ChatSequrity, doc: Any, change: Callable[[Any, str], Any], schema: Any
) -> None:
    values: Any = {"doc": doc, "secret": "", "other": ""}
    with pytest.raises(PolicyDenied):
        secured(_leaking(change, schema), guarded).invoke(copy.deepcopy(values))
    # Reading it changes nothing.
    secured(_leaking(lambda doc, _: str(doc), schema), guarded).invoke(copy.deepcopy(values))
