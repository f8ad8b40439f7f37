"""A state field that is carried as JSON has the same value as LangGraph's own channel."""

import json
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, RemoveMessage
from langgraph.channels import (
    AnyValue,
    BinaryOperatorAggregate,
    DeltaChannel,
    EphemeralValue,
    LastValue,
    NamedBarrierValue,
    Topic,
    UntrackedValue,
)
from langgraph.channels.base import BaseChannel
from langgraph.errors import InvalidUpdateError
from langgraph.graph import START, StateGraph
from langgraph.graph.message import _messages_delta_reducer, add_messages
from langgraph.pregel._algo import PregelTaskWrites, apply_writes
from langgraph.pregel._messages import ensure_message_ids
from langgraph.types import Overwrite
from typing_extensions import override

from langchain_sequrity._compat import MISSING
from langchain_sequrity.errors import BadReply, GraphNotSupported, UsageError
from langchain_sequrity.graph.analysis.reads_and_writes import annotations_of_fields
from langchain_sequrity.graph.analysis.spec import read_graph
from langchain_sequrity.graph.codec.channels import FieldCodec, field_codecs, field_plan
from langchain_sequrity.graph.program import ABSENT, OVERWRITE, FieldPlan
from tests.graph.test_values import shown

Channel = BaseChannel[Any, Any, Any]
WHERE = "Field `x` of node `a`"


def joined(state: list[Any], writes: Sequence[list[Any]]) -> list[Any]:
    return state + [item for write in writes for item in write]


def trimmed(left: list[Any], right: Any) -> list[Any]:
    return list(add_messages(left, right))[-3:]


def digits(left: int, right: int) -> int:
    return (left * 10 + right) % 10**6


ADD: Any = add_messages
GATHER: Any = _messages_delta_reducer


class Newest(BaseChannel[Any, Any, Any]):
    """A user's channel. It keeps the largest value and drops it after two steps without writes."""

    __slots__ = ("quiet", "value")

    def __init__(self, typ: Any) -> None:
        super().__init__(typ)
        self.value: Any = None
        self.quiet = 0

    @property
    @override
    def ValueType(self) -> Any:
        return self.typ

    @property
    @override
    def UpdateType(self) -> Any:
        return self.typ

    @override
    def checkpoint(self) -> Any:
        return (self.value, self.quiet)

    @override
    def from_checkpoint(self, checkpoint: Any) -> "Newest":
        new = type(self)(self.typ)
        new.key = self.key
        if checkpoint is not MISSING:
            new.value, new.quiet = checkpoint
        return new

    @override
    def get(self) -> Any:
        if self.value is None:
            raise LookupError
        return self.value

    @override
    def is_available(self) -> bool:
        return self.value is not None

    @override
    def update(self, values: Sequence[Any]) -> bool:
        if values:
            self.value, self.quiet = max(values), 0
            return True
        self.quiet += 1
        if self.quiet > 1:
            self.value = None
        return True


class Derived(LastValue[Any]):
    """A subclass that changes nothing."""


def keyed(channel: Channel) -> Channel:
    channel.key = "x"
    return channel


numbers = st.integers(-5, 5)
texts = st.text("ab", max_size=2) | st.just(ABSENT)
lists = st.lists(numbers | texts, max_size=2)
anything = st.none() | numbers | texts | lists | st.tuples(numbers)
ids = st.sampled_from(["1", "2", "3"])
messages = (
    st.builds(lambda text, id_: HumanMessage(text, id=id_), texts, ids)
    | ids.map(lambda id_: RemoveMessage(id=id_))
    | st.lists(st.builds(lambda text, id_: AIMessage(text, id=id_), texts, ids), max_size=2)
    | st.tuples(st.just("user"), texts)
)


def overwritten(updates: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    forms = [Overwrite, lambda value: {"__overwrite__": value}]
    return updates | st.builds(lambda form, value: form(value), st.sampled_from(forms), updates)


def tasks_of(updates: st.SearchStrategy[Any]) -> st.SearchStrategy[list[list[Any]]]:
    """What each task of a step writes to the field. Every step has at least one task."""
    return st.lists(st.lists(updates, max_size=2), min_size=1, max_size=2)


Case = tuple[Callable[[], Channel], st.SearchStrategy[Any], FieldPlan]
CASES: dict[str, Case] = {
    "LastValue": (lambda: LastValue(Any), anything, FieldPlan("last")),
    "sum of int": (
        lambda: BinaryOperatorAggregate(int, operator.add),
        overwritten(numbers | st.booleans()),
        FieldPlan("sum", zero=0),
    ),
    "sum of str": (
        lambda: BinaryOperatorAggregate(str, operator.add), overwritten(texts), FieldPlan("sum", zero=""),
    ),
    "sum of list": (
        lambda: BinaryOperatorAggregate(list[int], operator.add), overwritten(lists), FieldPlan("sum", zero=[]),
    ),
    "sum of float": (
        lambda: BinaryOperatorAggregate(float, operator.add),
        st.floats(-9, 9),
        FieldPlan("log"),
    ),
    "sum of tuple": (
        lambda: BinaryOperatorAggregate(tuple, operator.add), st.tuples(numbers), FieldPlan("log"),
    ),
    "sum without a start": (
        lambda: BinaryOperatorAggregate(int | None, operator.add), overwritten(numbers), FieldPlan("log"),  # type: ignore[arg-type]
    ),
    "union": (
        lambda: BinaryOperatorAggregate(set, operator.or_), overwritten(st.sets(numbers)), FieldPlan("log"),
    ),
    "dict": (
        lambda: BinaryOperatorAggregate(dict, operator.or_),
        st.dictionaries(texts, numbers, max_size=2),
        FieldPlan("log"),
    ),
    "any function": (lambda: BinaryOperatorAggregate(int, digits), overwritten(numbers), FieldPlan("log")),
    "add_messages": (lambda: BinaryOperatorAggregate(list, ADD), messages, FieldPlan("log")),
    "add_messages in a format": (
        lambda: BinaryOperatorAggregate(list, ADD(format="langchain-openai")),
        messages,
        FieldPlan("log"),
    ),
    "a function of add_messages": (
        lambda: BinaryOperatorAggregate(list[AnyMessage], trimmed), messages, FieldPlan("log"),
    ),
    "DeltaChannel": (lambda: DeltaChannel(joined, list), overwritten(lists), FieldPlan("log")),
    "DeltaChannel of messages": (
        lambda: DeltaChannel(GATHER, list), messages, FieldPlan("log"),
    ),
    "Topic": (lambda: Topic(Any), anything, FieldPlan("log", resets=True)),
    "Topic that accumulates": (lambda: Topic(Any, accumulate=True), anything, FieldPlan("log")),
    "EphemeralValue": (lambda: EphemeralValue(Any), anything, FieldPlan("log", resets=True)),
    "EphemeralValue of several": (
        lambda: EphemeralValue(Any, guard=False), anything, FieldPlan("log", resets=True),
    ),
    "AnyValue": (lambda: AnyValue(Any), anything, FieldPlan("log", resets=True)),
    "UntrackedValue": (lambda: UntrackedValue(Any), anything, FieldPlan("log")),
    "a channel of the user's": (lambda: Newest(int), numbers, FieldPlan("log", resets=True)),
    "a subclass": (lambda: Derived(int), numbers, FieldPlan("log", resets=True)),
}  # fmt: skip
names = pytest.mark.parametrize("name", CASES)


def what_langgraph_holds(channel: Channel, steps: Sequence[Sequence[Sequence[Any]]]) -> Channel:
    """Run the steps through LangGraph's own loop."""
    channels = {"x": channel}
    checkpoint: Any = {"versions_seen": {}, "channel_versions": {}}
    for tasks in steps:
        writes = [
            PregelTaskWrites(("pull", str(n)), f"n{n}", [("x", value) for value in updates], ["t"])
            for n, updates in enumerate(tasks)
        ]
        for task in writes:
            ensure_message_ids(channels, task.writes)
        apply_writes(checkpoint, channels, writes, lambda last, _: (last or 0) + 1, {})
    return channel


class Program:
    """What a program does with a field, in the few operations that programs use."""

    def __init__(self, field: FieldCodec, start: Any) -> None:
        self.field = field
        self.state = start

    def step(self, tasks: Sequence[Sequence[Any]]) -> None:
        plan, batch = self.field.plan, []
        wrote = 0
        for updates in tasks:
            if not updates:
                continue
            given = [self.field.with_ids(update) for update in updates]
            prefix, value = json.loads(json.dumps(self.field.update(given, WHERE)))
            wrote += 1
            if plan.kind == "log":
                batch += value
            elif plan.kind == "last" or prefix == OVERWRITE:
                self.state = value
            else:
                self.state = self.state + value
        if plan.kind == "last" and wrote > 1:
            raise InvalidUpdateError
        if plan.kind == "log" and (batch or plan.resets):
            self.state = [*self.state, batch]


def outcome(call: Callable[[], Channel]) -> Any:
    """The value of a channel, or the type of the error."""
    try:
        channel = call()
        held = channel.get() if channel.is_available() else MISSING
    except Exception as error:  # noqa: BLE001 - compared by type
        return type(error)
    return without_random_ids(held)


def without_random_ids(held: Any) -> Any:
    if isinstance(held, list) and any(isinstance(one, BaseMessage) for one in held):
        return [
            one.model_copy(update={"id": one.id and one.id[:1]})
            if len(one.id or "") < 9
            else one.content
            for one in held
        ]
    return held


def is_one_overwrite_a_step(steps: Sequence[Sequence[Sequence[Any]]]) -> bool:
    """Whether a task that overwrites is the only writer of its step, as programs require."""
    for tasks in steps:
        writers = [updates for updates in tasks if updates]
        is_said = any(
            isinstance(one, Overwrite) or (isinstance(one, dict) and "__overwrite__" in one)
            for updates in writers
            for one in updates
        )
        if is_said and len(writers) > 1:
            return False
    return True


@pytest.mark.long(sample=2)
@names
@given(data=st.data())
def test_a_field_in_a_program_ends_with_the_value_of_its_langgraph_channel(
    name: str, data: st.DataObject
) -> None:
    make, updates, plan = CASES[name]
    steps = data.draw(st.lists(tasks_of(updates), max_size=4))
    field = FieldCodec("x", keyed(make()), ())
    assert field.plan == plan
    if plan.kind == "sum" and not is_one_overwrite_a_step(steps):
        return

    def carried() -> Channel:
        program = Program(field, field.write(keyed(make()).from_checkpoint(MISSING)))
        for tasks in steps:
            program.step(tasks)
        return field.read_channel(json.loads(json.dumps(program.state)))

    expected = outcome(lambda: what_langgraph_holds(keyed(make()).from_checkpoint(MISSING), steps))
    assert outcome(carried) == expected


@pytest.mark.long(sample=4)
@names
@given(data=st.data())
def test_a_channel_that_is_written_as_json_and_read_again_is_the_same(
    name: str, data: st.DataObject
) -> None:
    make, updates, _ = CASES[name]
    batch = data.draw(st.lists(updates, max_size=1))
    field = FieldCodec("x", keyed(make()), ())
    channel = keyed(make()).from_checkpoint(MISSING)
    try:
        channel.update([field.with_ids(update) for update in batch])
    except (ValueError, InvalidUpdateError):
        return
    again = field.read_channel(json.loads(json.dumps(field.write(channel))))
    assert outcome(lambda: again) == outcome(lambda: channel)
    assert type(again) is type(channel)
    assert again.key == "x"


def test_an_empty_field_is_absent_but_a_text_that_equals_the_marker_is_kept() -> None:
    field = FieldCodec("x", keyed(LastValue(str)), ())
    assert field.write(LastValue(str)) == ABSENT
    assert field.read(ABSENT) is MISSING
    assert field.read(field.update([ABSENT], WHERE)[1]) == ABSENT


@pytest.mark.parametrize(
    "channel",
    [BinaryOperatorAggregate(list, ADD), DeltaChannel(GATHER)],
    ids=["add_messages", "DeltaChannel"],
)
@pytest.mark.parametrize(
    "update",
    [AIMessage("x"), [AIMessage("x")], ("user", "x"), "x", {"role": "user", "content": "x"}],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_messages_get_their_ids_before_they_are_sent(channel: Channel, update: Any) -> None:
    given_ = repr(update)
    field = FieldCodec("x", keyed(channel), ())
    log = [field.update([field.with_ids(update)], WHERE)[1]]
    first, again = field.read([*log]), field.read([*log])
    assert [one.id for one in first] == [one.id for one in again]
    assert all(one.id for one in first)
    assert repr(update) == given_


OVERWRITES: list[Callable[[Any], Any]] = [
    Overwrite,
    lambda value: {"__overwrite__": value},
    lambda value: {"value": value, "type": "__overwrite__"},
]


@pytest.mark.parametrize("overwrite", OVERWRITES, ids=["object", "dict", "erased"])
@pytest.mark.parametrize("value", [AIMessage("x"), [AIMessage("x"), AIMessage("x")]], ids=shown)
def test_messages_that_overwrite_get_their_ids_with_the_next_step(
    overwrite: Callable[[Any], Any], value: Any
) -> None:
    field = FieldCodec("x", keyed(BinaryOperatorAggregate(list, ADD)), ())

    def wire(update: Any) -> Any:
        return field.update([field.with_ids(update)], WHERE)[1]

    log = [{"value": []}, wire(overwrite(value)), []]
    held = field.read([*log])
    assert {one.id for one in (held if isinstance(held, list) else [held])} == {None}
    added = wire([AIMessage("y")])
    first, again = field.read([*log, added]), field.read([*log, added, wire([AIMessage("z")])])
    ids = [one.id for one in first]
    assert ids == [one.id for one in again][: len(ids)]
    assert len({*ids}) == len(ids)
    assert None not in ids


def test_messages_that_were_stored_without_ids_get_the_same_ids_at_each_read() -> None:
    field = FieldCodec("x", keyed(BinaryOperatorAggregate(list, ADD)), ())
    channel = keyed(BinaryOperatorAggregate(list, ADD))
    channel.update([Overwrite([AIMessage("x")])])
    log = [*field.write(channel), [[message(1)]]]
    first, again = field.read([*log]), field.read([*log])
    assert [one.id for one in first] == [one.id for one in again]
    assert first[0].id is not None


def test_adjacent_batches_that_only_add_cost_one_call_of_the_reducer() -> None:
    calls: list[int] = []

    class Counted(BinaryOperatorAggregate[Any]):
        @override
        def update(self, values: Sequence[Any]) -> bool:
            calls.append(len(values))
            return super().update(values)

    field = FieldCodec("x", keyed(Counted(list, ADD)), ())
    batches = [[[message(n)]] for n in range(9)]
    removal = [field.update([[RemoveMessage(id="3")]], WHERE)[1][0]]
    read = field.read([{"value": []}, *batches[:5], [], removal, *batches[5:]])
    assert [one.id for one in read] == [str(n) for n in range(9) if n != 3]
    assert calls == [1, 1, 1]


def message(number: int) -> Any:
    """A message as a log stores it."""
    fields = {"content": "x", "id": str(number)}
    return {"__type__": "message", "class": "AIMessage", "fields": fields}


def test_an_update_that_is_not_a_message_fails_with_the_error_of_the_reducer() -> None:
    field = FieldCodec("x", keyed(BinaryOperatorAggregate(list, ADD)), ())
    with pytest.raises(NotImplementedError):
        field.with_ids([object()])
    with pytest.raises(ValueError, match="non-null"):
        field.read([[field.with_ids(None)]])


@pytest.mark.parametrize(
    ("channel", "updates", "error"),
    [
        (BinaryOperatorAggregate(int, operator.add), ["a"], TypeError),
        (BinaryOperatorAggregate(list, operator.add), [(1,)], TypeError),
        (BinaryOperatorAggregate(str, operator.add), [None], TypeError),
        (BinaryOperatorAggregate(int, operator.add), [Overwrite(1), Overwrite(2)], InvalidUpdateError),
        (BinaryOperatorAggregate(int, operator.add), [2**63], UsageError),
        (BinaryOperatorAggregate(int, operator.add), [1j], UsageError),
        (BinaryOperatorAggregate(int, operator.add), [float("nan")], UsageError),
        (BinaryOperatorAggregate(list, operator.add), [Overwrite({1})], UsageError),
        (LastValue(int), [1, 2], InvalidUpdateError),
    ],
    ids=shown,
)  # fmt: skip
def test_an_update_that_cannot_be_added_is_an_error_at_once(
    channel: Channel, updates: list[Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        FieldCodec("x", keyed(channel), ()).update(updates, WHERE)


@pytest.mark.parametrize("log", [{}, "x", [1], [{"value": 1, "x": 2}], [[], {"value": 1}], None])
def test_a_malformed_log_is_a_bad_reply(log: Any) -> None:
    field = FieldCodec("x", keyed(BinaryOperatorAggregate(set, operator.or_)), ())
    with pytest.raises(BadReply, match="Field `x`"):
        field.read(log)


def test_a_barrier_as_the_channel_of_a_field_is_refused() -> None:
    with pytest.raises(GraphNotSupported, match="NamedBarrierValue"):
        field_plan(keyed(NamedBarrierValue(str, {"a"})))


def test_a_channel_without_a_checkpoint_is_refused_unless_it_is_an_untracked_value() -> None:
    class Hidden(UntrackedValue[Any]):
        pass

    class Silent(Newest):
        def checkpoint(self) -> Any:
            return MISSING

    channel = keyed(Silent(int))
    channel.update([3])
    with pytest.raises(UsageError, match="Silent"):
        FieldCodec("x", keyed(Silent(int)), ()).write(channel)
    hidden = keyed(Hidden(int))
    hidden.update([3])
    field = FieldCodec("x", keyed(Hidden(int)), ())
    assert field.read(field.write(hidden)) == 3


def test_the_schemas_of_a_graph_say_which_fields_may_hold_messages() -> None:
    class State(TypedDict):
        chat: Annotated[list[Any], add_messages]
        delta: Annotated[list[AnyMessage], DeltaChannel(joined)]
        plain: Annotated[list[Any], DeltaChannel(joined)]
        added: Annotated[list[AnyMessage], operator.add]
        bag: list[Any]

    class Private(TypedDict):
        bag: list[AnyMessage]
        other: int

    graph = StateGraph(State)
    graph.add_node("a", lambda _: None, input_schema=Private).add_edge(START, "a")
    spec = read_graph(graph)
    fields = field_codecs(spec.channels, annotations_of_fields(spec))
    holds = {name for name, field in fields.items() if field.allowed.messages}
    assert holds == {"chat", "delta", "added", "bag"}


def test_a_state_that_is_one_value_has_one_field() -> None:
    schema: Any = Annotated[list[AnyMessage], add_messages]
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(schema)
    graph.add_node("a", lambda _: None).add_edge(START, "a")
    spec = read_graph(graph)
    fields = field_codecs(spec.channels, annotations_of_fields(spec))
    assert set(fields) == {"__root__"}
    assert fields["__root__"].allowed.messages


def test_two_reads_of_a_log_do_not_share_their_values() -> None:
    field = FieldCodec("x", keyed(BinaryOperatorAggregate(list, partial(max))), ())
    log = [{"value": [1]}, [[2]]]
    field.read(log).append(9)
    assert field.read(log) == [2]


def test_two_updates_of_an_untracked_value_in_one_step_are_an_error_also_before_another_step() -> (
    None
):
    field = FieldCodec("x", keyed(UntrackedValue(int)), ())
    with pytest.raises(InvalidUpdateError):
        field.read_channel([[1, 2], [3]])
