"""State values as JSON and back: they come back unchanged, and nothing else is accepted."""

import dataclasses
import datetime as dt
import json
import re
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from contextlib import nullcontext
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompts import PromptTemplate
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Overwrite
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    SecretStr,
    field_validator,
)

from langchain_sequrity import with_labels
from langchain_sequrity.errors import BadReply, UsageError
from langchain_sequrity.graph.codec.values import (
    AllowedTypes,
    ObjectHandles,
    allowed_types,
    decode,
    encode,
)
from langchain_sequrity.graph.limits import VALUE_DEPTH
from langchain_sequrity.graph.program import ABSENT

NOTHING, MESSAGES = AllowedTypes(), AllowedTypes(messages=True)
WHERE = "Field `x` of node `a`"


class Color(Enum):
    RED = 1
    BLUE = "b"


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    YES = "yes"


class Point(NamedTuple):
    x: int
    y: "Color | None" = None


class Plan(BaseModel):
    title: str
    steps: list[Point] = []
    when: dt.datetime | None = None
    note: str = "none"


class Renamed(BaseModel):
    user_name: str = Field(alias="userName")


class Aliased(BaseModel):
    user_name: str = Field(validation_alias="userName")


class Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    one: int = 1


class Names(RootModel[list[str]]):
    pass


@dataclasses.dataclass
class Leaf:
    tags: set[str]
    parent: "Tree | None" = None
    made: int = dataclasses.field(default=0, init=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    leaves: tuple[Leaf, ...] = ()


@dataclasses.dataclass
class Later:
    x: int
    result: int = dataclasses.field(init=False)


@dataclasses.dataclass
class DerivedLeaf(Leaf):
    extra: int = 0


class Box(BaseModel):
    kept: int
    _secret: int = PrivateAttr(default=0)


class Listed(BaseModel):
    kept: int
    _items: list[int] = PrivateAttr(default_factory=list)


@dataclasses.dataclass
class Built:
    total: int = dataclasses.field(init=False)
    parts: dataclasses.InitVar[list[int]]

    def __post_init__(self, parts: list[int]) -> None:
        self.total = sum(parts)


def shown(value: Any) -> str:
    """The name of a case, without addresses and sets, so that it is the same in every process."""
    if isinstance(value, set | frozenset):
        return type(value).__name__
    return re.sub(r" at 0x\w+", "", f"{value!r}")[:60]


def there_and_back(value: Any, kinds: AllowedTypes = NOTHING) -> Any:
    text = json.dumps(encode(value, WHERE, kinds), allow_nan=False)
    return decode(json.loads(text), WHERE, kinds)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=True)
        return len(one) == len(other) and all(same(a, b) for a, b in pairs)
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.sampled_from([ABSENT, "__type__", "value", "=", "", "tuple"])
)
hashables = st.recursive(
    scalars
    | st.binary()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
values = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3) | hashables, inner, max_size=4)
        | st.sampled_from(["__type__", "value", "class", "fields"]).flatmap(
            lambda key: st.fixed_dictionaries({key: inner})
        )
        | st.sets(hashables, max_size=3)
        | st.lists(inner, max_size=3).map(deque)
        | inner.map(Overwrite)
    ),
    max_leaves=12,
)


@given(values)
def test_any_value_comes_back_unchanged(value: Any) -> None:
    back = there_and_back(value)
    assert back == value or repr(back) == repr(value)


@given(values)
def test_no_encoded_value_equals_the_marker_of_an_absent_value(value: Any) -> None:
    assert encode(value, WHERE) != ABSENT


@given(st.recursive(scalars, lambda one: st.lists(one) | st.dictionaries(TEXT, one)))
def test_plain_json_stays_as_it_is(value: Any) -> None:
    assume(not any(mark in repr(value) for mark in (ABSENT, "__type__")))
    assume(not _has_long_integers(value))
    assert encode(value, WHERE) == value


def _has_long_integers(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_has_long_integers, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and abs(value) >= 2**63


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    "value",
    [
        (1, (2,)), {1, 2}, frozenset({"a"}), b"\x00\xff", bytearray(b"x"), 2**80, -(2**63) - 1,
        {1: "a", (1, 2): "b", None: "c"}, {"__type__": "set", "value": [1]}, ABSENT, [ABSENT],
        dt.datetime(2024, 1, 2, 3, 4, 5, 6), dt.datetime(2024, 1, 2, tzinfo=dt.UTC),  # noqa: DTZ001
        dt.datetime(2024, 7, 1, 12, tzinfo=BERLIN),
        dt.datetime(2024, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=-5))),
        dt.date(2024, 1, 2), dt.time(3, 4), dt.timedelta(days=-1, microseconds=7),
        Decimal("1.10"), UUID(int=5), Path("a/b"), deque([1, 2], maxlen=2), Counter("hello"),
        OrderedDict(b=1, a=2), Overwrite([1]), {"deep": [{"x": (1, {"y": {2}})}]},
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:20]}",
)  # fmt: skip
def test_types_that_json_lacks_come_back(value: Any) -> None:
    back = there_and_back(value)
    assert same(back, value)
    if isinstance(value, dt.datetime):
        assert back.tzinfo == value.tzinfo
    if isinstance(value, deque):
        assert back.maxlen == value.maxlen


def test_a_time_in_a_repeated_hour_keeps_its_fold() -> None:
    second = dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1)
    assert there_and_back(second).fold == 1
    assert there_and_back(second).isoformat() == second.isoformat()


def test_sets_are_written_in_an_order_that_does_not_depend_on_hashes() -> None:
    assert encode({"b", "a", "c"}, WHERE)["value"] == ["a", "b", "c"]
    assert encode({3, "a", None, (1,)}, WHERE) == encode({(1,), None, "a", 3}, WHERE)


def test_the_text_of_a_message_becomes_a_plain_str() -> None:
    text = AIMessage("hello").text
    assert type(there_and_back(text)) is str
    assert there_and_back(text) == "hello"


MESSAGE_EXAMPLES = [
    HumanMessage("hi", id="1", name="ann"),
    HumanMessage([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": "x"}]),
    AIMessage(
        "",
        tool_calls=[{"name": "f", "args": {"a": [1, None]}, "id": "c1"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        response_metadata={"model_name": "m"},
        additional_kwargs={"refusal": None, "lc": 1, "type": "constructor", "__type__": "set"},
    ),
    AIMessage(
        "x",
        invalid_tool_calls=[
            {"name": "f", "args": "{", "id": "c", "error": "e", "type": "invalid_tool_call"}
        ],
    ),
    AIMessageChunk(
        content="x",
        id="9",
        tool_call_chunks=[
            {"name": "f", "args": '{"a":', "id": "c", "index": 0, "type": "tool_call_chunk"}
        ],
    ),
    SystemMessage("be kind"),
    ToolMessage("ok", tool_call_id="c1", artifact={"rows": (1, 2), "raw": b"x"}, status="error"),
    ChatMessage(content="x", role="critic"),
    FunctionMessage(content="x", name="f"),
    RemoveMessage(id="3"),
    HumanMessage("x", something_new={"a": (1,)}),
]


@pytest.mark.parametrize("message", MESSAGE_EXAMPLES, ids=lambda one: type(one).__name__)
def test_messages_come_back(message: BaseMessage) -> None:
    assert same(there_and_back([message], MESSAGES), [message])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab_", max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab_"), inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(st.text("abc"), json_values, max_size=2)
tool_calls = st.fixed_dictionaries(
    {"name": st.text("ab", min_size=1), "args": objects, "id": st.none() | st.text("ab")}
)
messages = st.one_of(
    st.builds(HumanMessage, st.text("abc") | st.lists(st.text("ab"))),
    st.builds(
        AIMessage,
        st.text("abc"),
        tool_calls=st.lists(tool_calls, max_size=2),
        additional_kwargs=objects,
        response_metadata=objects,
        id=st.none() | st.text("ab"),
    ),
    st.builds(ToolMessage, st.text("abc"), tool_call_id=st.text("ab"), artifact=values),
)


@given(st.lists(messages, max_size=3))
def test_any_messages_come_back(value: list[BaseMessage]) -> None:
    back = there_and_back(value, MESSAGES)
    assert back == value or repr(back) == repr(value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Color, Color.BLUE), (list[Level], [Level.LOW]), (Word | None, Word.YES),
        (Literal[Color.RED], Color.RED), (Point, Point(1, Color.RED)),
        (dict[str, Plan], {"a": Plan(title="t", steps=[Point(1)], when=dt.datetime(2024, 1, 2))}),  # noqa: DTZ001
        (Annotated[Renamed, "doc"], Renamed(userName="ann")), (Aliased, Aliased(userName="ann")),  # type: ignore[call-arg]
        (Open, Open.model_validate({"one": 2, "two": (1,)})),
        (Names, Names(["a"])), (Tree, Tree((Leaf({"a"}, Tree()),))), (Leaf, DerivedLeaf({"a"}, extra=3)),
        (list[Document], [Document("text", metadata={"k": (1,)}, id="1")]),
        (list[AnyMessage | Plan], [AIMessage("x", additional_kwargs={"parsed": Plan(title="t")})]),
    ],
    ids=shown,
)  # fmt: skip
def test_objects_come_back_as_the_classes_that_the_annotation_names(
    annotation: Any, value: Any
) -> None:
    assert same(there_and_back(value, allowed_types([annotation])), value)


def test_unset_fields_of_a_model_stay_unset() -> None:
    back = there_and_back(Plan(title="t"), allowed_types([Plan]))
    assert back.model_dump(exclude_unset=True) == {"title": "t"}


def test_a_default_that_was_changed_in_place_comes_back() -> None:
    plan = Plan(title="t")
    plan.steps.append(Point(1))
    assert there_and_back(plan, allowed_types([Plan])).steps == [Point(1)]


def test_a_field_that_is_not_set_yet_stays_unset() -> None:
    back = there_and_back(Later(1), allowed_types([Later]))
    assert type(back) is Later
    assert not hasattr(back, "result")


def test_fields_that_the_constructor_does_not_take_come_back() -> None:
    leaf = Leaf(set())
    leaf.made = 5
    assert there_and_back(leaf, allowed_types([Leaf])).made == 5


T = TypeVar("T", bound=Plan)
Choice = TypeVar("Choice", Color, Built)
Alias = NewType("Alias", Plan)


class Holder(TypedDict):
    color: Color
    plan: T  # type: ignore[valid-type]


Content = TypeVar("Content")


@dataclasses.dataclass
class Crate(Generic[Content]):
    content: Content


class Unresolved(TypedDict):
    plan: "Nobody"  # type: ignore[name-defined]  # noqa: F821 - that is the point


class Nothing(Enum):
    """An enum without members has no objects."""


class Pair(BaseModel, Generic[T]):
    one: T


@pytest.mark.parametrize(
    ("annotation", "classes", "has_messages"),
    [
        (int, set(), False), (Any, set(), False), (list, set(), False), (BaseModel, set(), False),
        (Enum, set(), False), ("Unknown", set(), False), (list[dict[str, Color]], {Color}, False),
        (Holder, {Color, Plan, Point}, False), (Alias, {Plan, Point, Color}, False),
        (Tree, {Tree, Leaf}, False), (list[AnyMessage], set(), True), (BaseMessage, set(), True),
        (Point, {Point, Color}, False), (PromptTemplate | int, None, False),
        (Choice, {Color, Built}, False), (Callable[[Built], Color], {Color, Built}, False),
        (Crate[Color], {Crate, Color}, False), (Unresolved, set(), False), (list[Unresolved] | Color, {Color}, False), (Nothing, set(), False),
    ],
    ids=shown,
)  # fmt: skip
def test_annotations_decide_which_types_a_field_may_contain(
    annotation: Any, classes: set[type] | None, *, has_messages: bool
) -> None:
    kinds = allowed_types([annotation])
    assert kinds.messages == has_messages
    assert classes is None or kinds.classes == classes


def test_two_classes_with_the_same_name_are_not_confused() -> None:
    def make() -> type:
        @dataclasses.dataclass
        class Twin:
            x: int

        return Twin

    one, other = make(), make()
    for cls in (one, other):
        with ObjectHandles().in_use():
            written = encode(cls(1), WHERE, allowed_types([one | other]))
            assert written["__type__"] == "kept"
            assert type(decode(written, WHERE, allowed_types([one | other]))) is cls


@dataclasses.dataclass
class Strange:
    held: Any = None

    def __repr__(self) -> str:
        return "topsecret"


LOOP: list[Any] = []
LOOP.append(LOOP)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "nan"), ([{"a": float("inf")}], "inf"), (LOOP, "holds itself"),
        (nested(VALUE_DEPTH + 2), "nested deeper"), ("\ud800", "surrogate"), ({"\udfff": 1}, "surrogate"),
        ({"a": with_labels({})}, "around the whole update"),
        # The view of an object for policies must be complete too.
        (AIMessage("\ud800topsecret"), "surrogate"), (Strange(nested(VALUE_DEPTH + 2)), "nested deeper"),
    ],
    ids=shown,
)  # fmt: skip
def test_an_unwritable_value_is_refused_with_its_place_and_without_its_content(
    value: Any, reason: str
) -> None:
    with pytest.raises(UsageError) as caught, ObjectHandles().in_use():
        encode({"in": [value]}, WHERE)
    text = str(caught.value)
    assert text.startswith(WHERE)
    assert reason in text
    assert "topsecret" not in text


@pytest.mark.parametrize(
    ("value", "view"),
    [
        (Strange(), {"held": None}), (object, "type"), (lambda: 0, "function"),
        (defaultdict(list, a=[1]), {"a": [1]}), (Plan(title="t"), {"title": "t"}), (Color.RED, 1),
        ([AIMessage("text")], {"content": "text", "type": "ai"}), (SecretStr("topsecret"), "**********"),
        (ValueError("topsecret"), "ValueError"), (Lock(), "lock"), (print, "builtin"),
    ],
    ids=shown,
)  # fmt: skip
def test_an_object_without_a_json_form_stays_local_and_policies_see_a_view_of_it(
    value: Any, view: Any
) -> None:
    with ObjectHandles().in_use() as objects:
        written = encode(value, WHERE)
        [one] = written if isinstance(value, list) else [written]
        assert "topsecret" not in json.dumps(written)
        seen = one["value"]
        assert view.items() <= seen.items() if isinstance(view, dict) else str(view) in str(seen)
        found = decode(json.loads(json.dumps(written)), WHERE)
        assert found == value if isinstance(value, list) else found is value
        assert one["handle"] in objects.by_handle


def test_each_object_has_a_handle_and_stored_objects_are_not_stored_again() -> None:
    here, plans = ObjectHandles(), [Plan(title="t"), Plan(title="t")]
    with here.in_use() as first:
        handles = [encode(plan, WHERE)["handle"] for plan in plans]
        assert first.fresh.keys() == set(handles)
        assert len(set(handles)) == 2
    here.load(first.fresh)
    with here.in_use() as second:
        assert [encode(plan, WHERE)["handle"] for plan in plans] == handles
        assert encode(Lock(), WHERE)["handle"] not in handles
        assert not second.fresh
    later = ObjectHandles()  # of another process, which has equal objects
    later.load(first.fresh)
    with later.in_use() as third:
        equal = [Plan(title="t"), Plan(title="t")]
        assert [encode(plan, WHERE)["handle"] for plan in equal] == handles
        assert not third.fresh


def test_an_object_that_was_changed_has_another_handle_and_not_its_old_one() -> None:
    for value in (Plan(title="t"), Strange()):
        with ObjectHandles().in_use():
            written = encode(value, WHERE)
            assert decode(written) is value
            value.__dict__["title"] = "changed"
            assert encode(value, WHERE)["handle"] != written["handle"]
            with pytest.raises(UsageError, match="other code has changed in place"):
                decode(written)


def test_an_object_of_an_earlier_process_that_was_changed_since_it_was_read_is_not_read_again() -> (
    None
):
    with ObjectHandles().in_use() as objects:
        written = encode(Plan(title="t"), WHERE)
    later = ObjectHandles()
    later.load(objects.fresh)
    with later.in_use():
        decode(written).title = "changed"
        with pytest.raises(UsageError, match="other code has changed in place"):
            decode(written)


def test_an_object_is_stored_as_it_was_when_its_handle_was_made() -> None:
    here, plan = ObjectHandles(), Plan(title="t")
    here.serde = JsonPlusSerializer()
    with here.in_use() as objects:
        written = encode(plan, WHERE)
        plan.title = "changed"
        assert objects.fresh[written["handle"]].title == "t"


def test_a_handle_that_was_never_sent_is_a_bad_reply() -> None:
    with ObjectHandles().in_use():
        written = encode(Strange(), WHERE)
    for here in (ObjectHandles(), None):
        with here.in_use() if here else nullcontext(), pytest.raises(BadReply, match="never sent"):
            decode(written, WHERE)
    no_handles: list[Any] = [["x"], {}, 1, None]
    for handle in no_handles:
        with ObjectHandles().in_use(), pytest.raises(BadReply, match="Strange"):
            decode({**written, "handle": handle}, WHERE)


@pytest.mark.parametrize(
    ("annotation", "make"),
    [
        (Box, lambda: _with_secret(Box(kept=1))), (Listed, lambda: Listed(kept=1)),
        (Listed, lambda: _without_items(Listed(kept=1))), (Built, lambda: Built([1, 2])),
        (list[AnyMessage], lambda: type("Mine", (AIMessage,), {})("x")),
    ],
    ids=[
        "private data", "a private list", "no private list", "arguments that are no fields",
        "messages of other classes",
    ],
)  # fmt: skip
def test_an_object_that_its_fields_do_not_describe_fully_stays_with_the_client(
    annotation: Any, make: Any
) -> None:
    value, kinds = make(), allowed_types([annotation])
    with ObjectHandles().in_use():
        assert decode(encode(value, WHERE, kinds), WHERE, kinds) is value


def _without_items(box: Listed) -> Listed:
    del box._items
    return box


def _with_secret(box: Box) -> Box:
    box._secret = 7
    return box


def test_encoding_and_decoding_share_no_mutable_parts_with_their_input() -> None:
    value = {"items": [1, {"a": []}]}
    written = encode(value, WHERE)
    written["items"][1]["a"].append(1)
    assert value == {"items": [1, {"a": []}]}
    decode(written, WHERE)["items"].append(2)
    assert written == {"items": [1, {"a": [1]}]}


class Checked(BaseModel):
    port: int

    @field_validator("port")
    @classmethod
    def check(cls, value: int) -> int:
        if value < 1:
            msg = "too small"
            raise ValueError(msg)
        return value


MESSAGE = {"__type__": "message", "class": "AIMessage", "fields": {"content": "x"}}
HOSTILE = [
    ({"__type__": "nope", "value": 1}, "nope"), ({"__type__": ["a"]}, "a"), ({"__type__": None}, "None"),
    ({"__type__": "tuple", "value": "abc"}, "another shape"), ({"__type__": "tuple", "value": [], "x": 1}, "another shape"),
    ({"__type__": "set", "value": [[1]]}, "TypeError"), ({"__type__": "bytes", "value": "?"}, "bytes"),
    ({"__type__": "datetime", "value": "yesterday"}, "ValueError"),
    ({"__type__": "datetime", "value": "2024-01-02T00:00:00+01:00[../../etc/passwd]"}, "datetime"),
    ({"__type__": "timedelta", "value": [10**12]}, "OverflowError"), ({"__type__": "Decimal", "value": "x"}, "Decimal"),
    ({"__type__": "int", "value": "ten"}, "ValueError"), ({"__type__": "str", "value": "other"}, "ValueError"),
    ({"__type__": "dict", "value": [1]}, "TypeError"), ({"__type__": "UUID", "value": "1"}, "UUID"),
    ({"__type__": "deque", "value": []}, "IndexError"), (nested(500), "nested"),
    ({**MESSAGE, "class": "PromptTemplate"}, "PromptTemplate"), ({**MESSAGE, "class": ["AIMessage"]}, "message"),
    ({**MESSAGE, "fields": {"content": 5}}, "AIMessage"), ({**MESSAGE, "fields": None}, "AIMessage"),
    ({**MESSAGE, "class": "AIMessage\x1b[2J"}, r"\x1b"), ({**MESSAGE, "fields": {"content": {"__type__": "zap"}}}, "zap"),
    ({"__type__": "object", "class": "Popen", "fields": {"args": "id"}}, "Popen"),
    ({"__type__": "object", "class": "Checked", "fields": {"port": 0}}, "ValidationError"),
    ({"__type__": "object", "class": "Checked"}, "Checked"), ({"__type__": "object"}, "object"),
    ({"__type__": "object", "class": "Color", "fields": {"name": "__class__"}}, "Color"),
    ({"__type__": "object", "class": "Leaf", "fields": {"tags": [], "__class__": 1}}, "Leaf"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "reason"), HOSTILE, ids=shown)
def test_a_value_that_no_client_can_write_is_a_bad_reply_that_names_the_field(
    value: Any, reason: str
) -> None:
    kinds = allowed_types([list[AnyMessage] | Checked | Color | Leaf])
    with pytest.raises(BadReply) as caught:
        decode({"in": [value]}, "Field `x`", kinds)
    assert str(caught.value).startswith("Field `x`")
    assert reason in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert ("cannot be made" in str(caught.value)) == (caught.value.__cause__ is not None)


@pytest.mark.parametrize("name", ["AIMessage", "HumanMessage", "ToolMessage", "RemoveMessage"])
def test_a_message_is_decoded_only_if_the_annotation_of_the_field_has_messages(name: str) -> None:
    message = {"__type__": "message", "class": name, "fields": {"content": "x"}}
    with pytest.raises(BadReply, match="annotation"):
        decode(message, "Field `x`", allowed_types([list[dict[str, Any]], Plan]))


def test_an_object_in_langchains_serialized_form_is_decoded_as_plain_data() -> None:
    written = {"lc": 1, "type": "secret", "id": ["SEQURITY_API_KEY"]}
    made = {"lc": 1, "type": "constructor", "id": ["langchain", "llms", "OpenAI"], "kwargs": {}}
    assert decode([written, made], "Field `x`", MESSAGES) == [written, made]


@given(st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["__type__", "value", "class", "fields", "a"]),
        inner | st.sampled_from(["message", "object", "tuple", "set", "dict", "AIMessage", "Plan", "datetime"]),
        max_size=4,
    ),
))  # fmt: skip
def test_any_json_is_decoded_or_is_a_bad_reply(value: Any) -> None:
    kinds = allowed_types([list[AnyMessage | Plan | Leaf | Color | Point]])
    try:
        made = decode(value, "Field `x`", kinds)
    except BadReply:
        return
    # Nothing checks the fields of stdlib dataclasses, but each value must be writable again.
    assert encode(made, WHERE, kinds) != ABSENT
