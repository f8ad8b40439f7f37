"""Long texts stay on the client: nodes get them, the service and its policies see handles."""

import dataclasses
import json
import operator
import random
import sqlite3
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypedDict

import httpx
import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import CachePolicy, Command, Overwrite, Send, interrupt
from pydantic import BaseModel

from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import PolicyDenied, ProgramFailed, StatusError, UsageError
from langchain_sequrity.graph.codec import values
from langchain_sequrity.graph.codec.values import ObjectHandles, allowed_types, decode, encode
from langchain_sequrity.graph.limits import TEXT_BYTES, TEXT_CHARACTERS
from langchain_sequrity.headers import FeaturesHeader
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.interpreter.machine import DEFAULT_LIMITS
from tests.graph.outcome import describe
from tests.graph.running import secured
from tests.graph.services import DUAL, noted
from tests.graph.test_sessions import forget
from tests.graph.twins import Twins, thread

SHORT = 24
"""The limit of most tests, in characters."""


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "TEXT_CHARACTERS", SHORT)
    monkeypatch.setattr(values, "_SHORT", SHORT)


class Page(BaseModel):
    title: Any = ""
    parts: list[Any] = []


@dataclasses.dataclass
class Leaf:
    text: Any
    other: Any = None


class State(TypedDict, total=False):
    given: Any
    value: Any
    page: Page
    leaf: Leaf
    text: str
    listed: Annotated[list[Any], operator.add]
    folded: Annotated[list[Any], lambda old, new: [*old, *new]]
    messages: Annotated[list[AnyMessage], add_messages]
    answer: Any
    way: Any


def chain(schema: Any, *nodes: Any) -> Any:
    """A graph that runs nodes one after the other."""
    graph: Any = StateGraph(schema).add_sequence(nodes)
    return graph.add_edge(START, next(iter(graph.nodes)))


class Dice(random.Random):
    """Makes values, and notes the long texts in them."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.long: set[str] = set()

    def text(self) -> str:
        start = self.choice(["", "ü", "'", '"'])
        text = f"{start}{self.getrandbits(64):x}" * self.randrange(6)
        if len(text) > SHORT:
            self.long.add(text)
        return text

    def page(self) -> Page:
        return Page(title=self.text(), parts=[self.text(), {self.text(): self.text()}])

    def value(self, depth: int = 0) -> Any:
        make = self.choice(_MAKERS[: 3 if depth > 3 else None])
        return make(self, depth + 1)


_MAKERS: list[Callable[[Dice, int], Any]] = [
    lambda dice, _: dice.text(),
    lambda dice, _: dice.text().encode(),
    lambda dice, _: {dice.text(), dice.text().encode()},
    lambda dice, depth: [dice.value(depth), dice.value(depth)],
    lambda dice, depth: {dice.text(): dice.value(depth), "a": dice.value(depth)},
    lambda dice, depth: Leaf(dice.text(), dice.value(depth)),
    lambda dice, _: dice.page(),
    lambda dice, _: HumanMessage(dice.text(), id="1", additional_kwargs={"x": dice.text()}),
    lambda dice, _: AIMessage([{"type": "text", "text": dice.text()}], id="2"),
    lambda dice, _: Document(dice.text(), metadata={"source": dice.text()}),
    lambda dice, _: Path(dice.text() or "x"),
]

_OTHER_TYPES: list[Callable[[Dice], Any]] = [
    lambda dice: bytearray(dice.text().encode()),
    lambda dice: OrderedDict({dice.text(): dice.value()}),
    lambda dice: deque([dice.value()], maxlen=9),
    lambda dice: (dice.value(), Page(title=dice.value())),
    lambda dice: Counter({dice.text(): 2}),
    lambda dice: frozenset({dice.text(), (dice.text(),)}),
    lambda dice: Decimal("1" + "2" * dice.randrange(99)),
    lambda dice: 10 ** dice.randrange(99),
    lambda dice: HumanMessage(dice.text()).text,
    lambda dice: Overwrite(dice.value()),
]
"""Of these, LangGraph itself changes the type when it stores them, or the value when it runs."""


def travels(dice: Dice) -> Any:
    """A graph in which values take all ways from one node to another."""

    def write(state: State) -> dict[str, Any]:
        return {
            "value": [state["given"], dice.value()],
            "page": dice.page(),
            "leaf": Leaf(dice.text(), dice.value()),
            "text": dice.text(),
            "listed": [dice.text(), dice.value()],
            "folded": [dice.value()],
            "messages": [HumanMessage(dice.text(), id="h"), AIMessage(dice.text(), id="a")],
        }

    def split(state: State) -> list[Send]:
        return [
            Send("work", {"given": state["value"], dice.text(): state["listed"]}),
            Send("work", {"given": state["leaf"].text, "text": dice.text()}),
        ]

    def work(state: Any) -> Command[Any]:
        return Command(update={"folded": [dict(state)], "listed": [state["given"]]})

    def ask(state: State) -> dict[str, Any]:
        return {"answer": [interrupt(state["text"]), state["page"].title]}

    def change(state: State) -> dict[str, Any]:
        state["value"].append(state["answer"])
        messages: list[Any] = [RemoveMessage("a"), HumanMessage(dice.text(), id="b")]
        return {"messages": messages, "folded": [state["value"]]}

    def choose(state: State) -> str:
        return "long" if len(state["text"]) > SHORT else "short"

    def look(state: State) -> dict[str, Any]:
        return {"way": describe(dict(state)), "listed": Overwrite([*state["listed"], "end"])}

    graph: Any = StateGraph(State)
    for node in (write, work, ask, change):
        graph.add_node(node)
    graph.add_node("long", look)
    graph.add_node("short", look)
    graph.add_edge(START, "write")
    graph.add_conditional_edges("write", split, ["work"])
    graph.add_edge("work", "ask")
    graph.add_edge("ask", "change")
    graph.add_conditional_edges("change", choose, ["long", "short"])
    return graph


@pytest.mark.usefixtures("_short")
@pytest.mark.long(sample=2)
@pytest.mark.parametrize("seed", range(200))
def test_long_texts_anywhere_in_a_state_arrive_as_in_langgraph(
    local: LocalServer, seed: int
) -> None:
    states = []
    with noted(local.base_url) as (model, sent):
        for index in (0, 1):
            dice = Dice(seed)
            given, answer = dice.value(), dice.value()
            graph = Twins(partial(travels, dice), model).of(checkpointer=InMemorySaver)[index]
            graph.invoke({"given": given}, thread())
            states.append(describe(graph.invoke(Command(resume=answer), thread())))
    assert states[1] == states[0]
    requests = json.dumps(list(sent), ensure_ascii=False)
    assert not [text for text in dice.long if json.dumps(text, ensure_ascii=False) in requests]


@pytest.fixture(scope="module")
def local() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


# -- handles


def test_texts_that_the_local_server_takes_are_sent_as_they_are() -> None:
    assert (DEFAULT_LIMITS.text, DEFAULT_LIMITS.outgoing) == (TEXT_CHARACTERS, TEXT_BYTES)
    with ObjectHandles().in_use() as objects:
        for character, count in (
            ("x", 2_000_000),
            ("界", 1_666_666),
            ("\n", 2_000_000),
            ("\0", 833_333),
        ):
            assert encode(character * count, "x") == character * count
        assert encode(b"x" * 1_500_000, "x")["value"].startswith("eHh4")
        assert not objects.fresh
        for character, count in (("x", 2_000_001), ("界", 1_666_667), ("\0", 833_334)):
            assert encode(character * count, "x")["value"] == {"characters": count}
            assert encode({character * count: 1}, "x")["__type__"] == "dict"
        assert encode(b"x" * 1_500_001, "x")["value"] == {"bytes": 1_500_001}
        assert len(objects.fresh) == 4


@pytest.mark.usefixtures("_short")
def test_equal_texts_have_equal_handles_everywhere_and_are_stored_with_each_value() -> None:
    text, handles = "long " * 9, set[str]()
    for _ in range(2):  # two runs
        run = ObjectHandles()
        for copied in (text, "".join(list(text)), text):
            with run.in_use() as objects:
                written = encode([copied, {copied: 1}], "x")
                handles |= objects.fresh.keys()
                assert list(objects.fresh.values()) == [text]
                assert decode(written, "x") == [text, {text: 1}]
    with ObjectHandles().in_use() as objects:
        encode([f"{text}.", text.encode()], "x")
        assert not handles & objects.fresh.keys()
        assert len(objects.fresh) == 2
    assert len(handles) == 1


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("seed", range(20))
def test_values_of_any_type_come_back_with_their_long_texts_by_another_process(seed: int) -> None:
    dice, allowed = Dice(seed), allowed_types([AnyMessage, Page, Leaf])
    value = [make(dice) for make in (*_OTHER_TYPES, Dice.value, Dice.value)]
    with ObjectHandles().in_use() as objects:
        written = json.dumps(encode(value, "x", allowed), ensure_ascii=False)
    other = ObjectHandles()
    other.load(objects.fresh)
    with other.in_use():
        assert describe(decode(json.loads(written), "x", allowed)) == describe(value)
    assert not [text for text in dice.long if json.dumps(text, ensure_ascii=False) in written]


@pytest.mark.usefixtures("_short")
def test_a_long_text_in_an_object_is_stored_with_the_object_alone() -> None:
    document = Document("long " * 9)
    with ObjectHandles().in_use() as objects:
        written = encode(document, "x")
        assert written["value"]["page_content"]["value"] == {"characters": 45}
        assert "long" not in json.dumps(written)
        assert list(objects.fresh) == [written["handle"]]


# -- policies


class Letters(TypedDict, total=False):
    letter: str
    other: Any
    sent: bool


def letters(letter: Any, other: Any = None) -> Any:
    """A graph that writes a letter and sends it."""

    def write(_state: Letters) -> dict[str, Any]:
        return {"letter": letter, "other": other}

    def send(state: Letters) -> dict[str, Any]:
        return {"sent": (state["letter"], state.get("other")) == (letter, other)}

    return chain(Letters, write, send)


LONG = "A letter that is longer than the limit of these tests."


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize(
    ("rule", "other", "is_allowed"),
    [
        ('must deny when letter.value in {str matching r"(?s).*secret.*"}', None, False),
        ('must deny when letter.value in {str like w"*secret*"}', None, False),
        ('must deny when letter.value in {str matching r"(?s).*" length 1..9}', None, False),
        ('must deny when letter.value in {"secret"}', None, False),
        ('must deny when letter.value == "secret"', None, False),
        ('must deny when not letter.value == "secret"', None, False),
        ("must deny when letter.value in {int 1..9}", None, False),
        ('must deny when letter.value in {str matching r".*"} and not "write" in letter.producers', None, True),
        ("must deny when letter.value == other.value", LONG, False),
        ("must deny when letter.value == other.value", LONG + "!", True),
        ("must deny when letter.value == other.value", "secret", True),
        ("must deny when not letter.value == other.value", LONG, True),
        ("must deny when not letter.value == other.value", LONG + "!", False),
        ('must deny when "write" in letter.producers', None, False),
        ('must allow when letter.value in {str matching r"(?s).*"}', None, False),
        ('must allow when letter.value in {"A letter"}', None, False),
        ('must allow when not letter.value in {"A letter"}', None, False),
        ("must allow when letter.value == other.value", LONG, True),
        ("must allow when letter.value == other.value", LONG + "!", False),
        ('must allow when "write" in letter.producers', None, True),
    ],
)  # fmt: skip
def test_a_rule_on_the_value_of_a_long_text_is_in_doubt(
    local: LocalServer, rule: str, other: Any, is_allowed: bool
) -> None:
    model = ChatSequrity(
        "any/model", base_url=local.base_url, features=DUAL, policy=f'tool "send" {{ {rule}; }}'
    )
    executor = secured(letters(LONG, other), model)
    if is_allowed:
        assert executor.invoke({})["sent"]
    else:
        with pytest.raises(PolicyDenied) as caught:
            executor.invoke({})
        assert caught.value.tool == "send"
        assert "letter that" not in str(caught.value)


# -- who needs the text itself


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize(
    "features",
    [{"classifiers": ["pii_redaction"]}, {"classifiers": ["toxicity_filter"]}, {"blockers": ["url_blocker"]}],
)  # fmt: skip
@pytest.mark.parametrize(
    "letter", [LONG, [{"a": LONG}], LONG.encode(), Document(LONG)], ids=["text", "nested", "bytes", "object"]
)  # fmt: skip
def test_what_classifiers_and_blockers_cannot_read_is_refused(
    local: LocalServer, features: dict[str, Any], letter: Any
) -> None:
    header = FeaturesHeader.dual_llm(**features)
    model = ChatSequrity("any/model", base_url=local.base_url, features=header)
    with pytest.raises(UsageError) as caught:
        secured(letters("short", letter), model).invoke({})
    assert str(caught.value).startswith(
        "Field `other` of what node `write` returned has a text of 5"
    )
    with pytest.raises(UsageError, match=r"^Field `letter` has a text of 5"):
        secured(letters("short"), model).invoke({"letter": letter})
    assert secured(letters("short"), model).invoke({})["sent"]


@pytest.mark.usefixtures("_short")
def test_what_they_cannot_read_is_refused_also_in_a_packet_and_if_it_is_changed_in_place(
    local: LocalServer,
) -> None:
    def change(state: State) -> dict[str, Any]:
        state["value"].append(LONG)
        return {"text": "changed"}

    def split(state: State) -> list[Send]:
        return [Send("work", {"given": state["text"] * 2})]

    def work(state: State) -> dict[str, Any]:
        return {"answer": state["given"]}

    graph: Any = StateGraph(State).add_node(change).add_node(work)
    changing, sending = graph.add_edge(START, "change"), StateGraph(State).add_node(work)
    sending.add_conditional_edges(START, split, ["work"])
    header = FeaturesHeader.dual_llm(blockers=["url_blocker"])
    model = ChatSequrity("any/model", base_url=local.base_url, features=header)
    with pytest.raises(
        UsageError, match=r"^Field `value`, which node `change` changed in place, has"
    ):
        secured(changing, model).invoke({"value": []})
    with pytest.raises(
        UsageError, match=r"^The argument of a `Send` to `work` by the router `split`"
    ):
        secured(sending, model).invoke({"text": "x" * SHORT})


class Query(TypedDict, total=False):
    query: str
    output_schema: Any
    found: Any


@pytest.mark.usefixtures("_short")
def test_a_long_text_that_a_tool_of_the_service_reads_is_refused_with_field_and_node(
    local: LocalServer,
) -> None:
    def write(_state: Query) -> dict[str, Any]:
        return {"query": LONG}

    def ask(_state: Query) -> dict[str, Any]:
        raise AssertionError

    model = ChatSequrity("any/model", base_url=local.base_url)
    option = {"internal_tool": "parse_with_ai", "reads": ["query", "output_schema"], "writes": ["found"]}  # fmt: skip
    cases: list[Any] = [([write, ask], {}), ([ask], {"query": LONG})]
    for nodes, given in cases:
        graph = chain(Query, *nodes)
        with pytest.raises(UsageError) as caught:
            secured(graph, model, {"ask": option}).invoke(given)
        text = str(caught.value)
        assert "Field `query`" in text
        assert ("what node `write` returned" in text) == (not given)
        assert "the service's own tool `parse_with_ai` (node `ask`) reads it" in text


class Sums(TypedDict, total=False):
    text: Annotated[str, operator.add]
    folded: Annotated[str, lambda old, new: old + new]


@pytest.mark.usefixtures("_short")
def test_a_long_part_of_a_sum_of_texts_is_refused_and_a_reducer_of_its_own_takes_it(
    local: LocalServer,
) -> None:
    def add(_state: Sums) -> dict[str, Any]:
        return {"text": LONG}

    def fold(state: Sums) -> dict[str, Any]:
        return {"folded": state["folded"] + LONG}

    model = ChatSequrity("any/model", base_url=local.base_url)
    with pytest.raises(UsageError) as caught:
        secured(chain(Sums, add), model).invoke({})
    assert "Field `text` of what node `add` returned is a sum of `str`" in str(caught.value)
    assert "has 54 characters" in str(caught.value)
    assert "Annotated[…, lambda a, b: a + b]" in str(caught.value)
    graph = chain(Sums, fold)
    assert secured(graph, model).invoke({"folded": LONG})["folded"] == LONG * 3


def three_parts(value: Any) -> Any:
    """Nodes that add up a value three times, and one that reads the sum."""

    def write(_state: Parts) -> dict[str, Any]:
        return {"text" if isinstance(value, str) else "listed": value}

    def look(state: Parts) -> dict[str, Any]:
        return {"size": len(state["text"]) + len(state["listed"])}

    nodes: list[Any] = [("one", write), ("two", write), ("three", write), look]
    return chain(Parts, *nodes)


class Parts(TypedDict, total=False):
    text: Annotated[str, operator.add]
    listed: Annotated[list[str], operator.add]
    size: int


NOTE = "Large fields of the state: `{}` has {} bytes as JSON, in each call of `look`."


@pytest.mark.parametrize(
    ("value", "note"),
    [
        ("x" * 900_000, "Field `text` is a sum of `str` that the service adds up, and the value has 2,700,000"),
        (["x" * 1_900_000], NOTE.format("listed", "5,700,010")),
    ],
    ids=["sum", "call"],
)  # fmt: skip
def test_an_error_about_a_limit_names_the_large_fields_and_the_calls_that_have_them(
    local: LocalServer, value: Any, note: str
) -> None:
    model = ChatSequrity("any/model", base_url=local.base_url)
    with pytest.raises(ProgramFailed) as caught:
        secured(three_parts(value), model).invoke({})
    assert any(text.startswith(note) for text in caught.value.__notes__)


def test_an_error_about_the_size_of_a_request_names_the_large_fields() -> None:
    refusal = httpx.Response(413, json={"error": {"message": "too large"}})
    with httpx.Client(transport=httpx.MockTransport(lambda _: refusal)) as client:
        model = ChatSequrity("any/model", base_url="http://127.0.0.1:1", http_client=client)
        with pytest.raises(StatusError) as caught:
            secured(three_parts("x"), model).invoke({"text": "x" * 200_000})
    assert NOTE.format("text", "200,002") in caught.value.__notes__


# -- threads


def _saver() -> SqliteSaver:
    return SqliteSaver(sqlite3.connect(":memory:", check_same_thread=False))


def _bytes_of(saver: SqliteSaver) -> int:
    tables = {"checkpoints": "checkpoint", "writes": "value"}.items()
    queries = [f"SELECT sum(length({column})) FROM {table}" for table, column in tables]  # noqa: S608
    return sum(saver.conn.execute(query).fetchone()[0] for query in queries)


def relay(text: Any, *, asks: bool = False) -> Any:
    """Nodes that write a text, read it twice and end with it."""

    def write(_state: State) -> dict[str, Any]:
        return {"value": text}

    def read(state: State) -> dict[str, Any]:
        return {"way": len(state["value"]), "answer": interrupt("?") if asks else None}

    def read_again(state: State) -> dict[str, Any]:
        return {"page": Page(title=state["way"]), "given": state["value"] == text}

    return chain(State, write, read, read_again)


@pytest.mark.parametrize("size", [2_000_001, pytest.param(20_000_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["text", "wide", "bytes", "nested"])
def test_a_large_text_is_stored_as_often_as_it_is_written_and_never_sent(
    local: LocalServer, size: int, kind: str
) -> None:
    text: Any = {
        "text": "x" * size,
        "wide": "界" * (size - 200_000),
        "bytes": b"x" * size,
        "nested": [{"a": "x" * size}],
    }[kind]
    stored = []
    with noted(local.base_url) as (model, sent):
        for graph in Twins(lambda: relay(text), model).of(checkpointer=_saver):
            state = graph.invoke({}, thread())
            assert (state["value"], state["given"]) == (text, True)
            stored.append(_bytes_of(graph.checkpointer))
    assert len(json.dumps(list(sent))) < 20_000
    plain, executor = stored
    assert executor < 1.3 * plain


@pytest.mark.usefixtures("_short")
def test_another_process_continues_a_thread_with_long_texts_without_the_old_session(
    local: LocalServer, tmp_path: Path
) -> None:
    path, model = str(tmp_path / "threads"), ChatSequrity("any/model", base_url=local.base_url)
    for value in ("first", "again"):
        commands: list[Any] = [{"folded": [LONG]}, Command(resume=value)]
        for command in commands:
            with SqliteSaver.from_conn_string(path) as saver:
                executor = secured(
                    relay([LONG, {LONG: LONG}], asks=True), model, checkpointer=saver
                )
                state = executor.invoke(command, thread())
            forget(local)
        assert (state["given"], state["answer"]) == (True, value)
        assert state["value"] == [LONG, {LONG: LONG}]


@pytest.mark.usefixtures("_short")
def test_a_failed_node_leaves_a_long_text_beside_an_object_that_it_has_changed(
    local: LocalServer,
) -> None:
    attempts = []

    def write(_state: State) -> dict[str, Any]:
        return {"value": [Document("page"), LONG]}

    def change(state: State) -> dict[str, Any]:
        document, text = state["value"]
        attempts.append((document.page_content, text))
        document.page_content = "changed"
        if len(attempts) == 1:
            msg = "no ink"
            raise OSError(msg)
        return {"answer": text}

    graph = chain(State, write, change)
    saver, model = InMemorySaver(), ChatSequrity("any/model", base_url=local.base_url)
    with pytest.raises(OSError, match="no ink"):
        secured(graph, model, checkpointer=saver).invoke({}, thread(), durability="exit")
    state = secured(graph, model, checkpointer=saver).invoke(None, thread())
    assert attempts == [("page", LONG)] * 2
    assert state["answer"] == state["value"][1] == LONG


@pytest.mark.usefixtures("_short")
def test_an_approved_call_gets_a_long_text_in_another_process(
    local: LocalServer, tmp_path: Path
) -> None:
    path, policy = str(tmp_path / "threads"), 'tool "send" { should deny always; }'
    model = ChatSequrity("any/model", base_url=local.base_url, policy=policy, features=DUAL)
    commands: list[Any] = [{}, Command(resume={"decisions": [{"type": "approve"}]})]
    for command in commands:
        with SqliteSaver.from_conn_string(path) as saver:
            executor = secured(
                letters(LONG, [LONG]), model, checkpointer=saver, on_denied="interrupt"
            )
            state = executor.invoke(command, thread())
    assert state["sent"]


@pytest.mark.usefixtures("_short")
def test_a_long_text_comes_from_the_cache_of_a_node_in_another_run(local: LocalServer) -> None:
    ran = []

    def write(_state: Letters) -> dict[str, Any]:
        ran.append("write")
        return {"letter": LONG}

    def send(state: Letters) -> dict[str, Any]:
        return {"sent": state["letter"] == LONG}

    graph: Any = StateGraph(Letters)
    graph.add_node("write", write, cache_policy=CachePolicy())
    graph.add_node("send", send)
    graph.add_edge(START, "write").add_edge("write", "send")
    cache: InMemoryCache[Any] = InMemoryCache()
    model = ChatSequrity("any/model", base_url=local.base_url)
    for _ in range(2):
        state = secured(graph, model, cache=cache).invoke({"other": 1})
        assert (state["letter"], state["sent"]) == (LONG, True)
    assert ran == ["write"]
