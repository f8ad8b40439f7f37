"""Sessions as events: what a server has stored comes back equal, from any commit on."""

import dataclasses
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, pairwise, product
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage

from langchain_sequrity import sqrt
from langchain_sequrity.labels import Labeled, Labels
from langchain_sequrity.local import ApiKey, MemorySessions, Session
from langchain_sequrity.local.dual_llm.caller_tools import CallerTools
from langchain_sequrity.local.dual_llm.state import (
    Attempt,
    DualState,
    FailedProgram,
    OpenTurn,
    PastTurn,
)
from langchain_sequrity.local.growing import GrowingList
from langchain_sequrity.local.session_events import (
    UnreadableSession,
    UnstorableSession,
    apply_events,
    events_between,
    session_from,
)
from langchain_sequrity.local.session_fields import DATA, Record
from langchain_sequrity.local.single_llm import SingleState
from langchain_sequrity.local.store import Lease
from langchain_sequrity.local.stored_messages import Conversation, StoredMessage
from langchain_sequrity.sqrt import Argument, Call
from langchain_sequrity.sqrt.gate import ToolReturn
from langchain_sequrity.wire.tool_results import MARK
from tests.local import stores
from tests.local.api import CHAT, Api, Message, call_ids, result, said, session_of, tool
from tests.local.conftest import Serve

GRAPH = "/control/lang-graph/v1/chat/completions"
DUAL = {"X-Features": '{"agent_arch": "dual-llm"}'}
NO_LIMITS = {"max_tool_calls_per_step": None, "max_n_turns": None}
POLICY = 'tool "look_up" { result { @tags |= {"seen"}; } session after { @tags |= {"asked"}; } }'
SEND_ONCE = 'tool "send" { must deny when word.value == "b"; }'
RANDOM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{24,64}")
STORED = Path(__file__).parent / "stored_sessions"
Json = dict[str, Any]


def config(**fsm: Any) -> dict[str, str]:
    return {"X-Config": json.dumps({"fsm": NO_LIMITS | fsm})}


def wrapped(value: Any, **labels: Any) -> str:
    meta = {"producers": [], "consumers": ["*"], "tags": [], **labels}
    return json.dumps({MARK: True, "value": value, "meta": meta})


def stored(api: Api, session_id: str) -> Session:
    store: Any = api.server.sessions
    found: Session = store[session_id]
    return found


class Rereading(MemorySessions):
    """Keeps sessions that were written and read."""

    def prepare(self, lease: Lease, session: Session) -> None:
        before = lease.session
        if before.version:
            read = session_from(events_between(None, before))
            session = apply_events(read, events_between(before, session))
        else:
            session = session_from(events_between(None, session))
        super().prepare(lease, session)


class Talk:
    """A conversation, and its session after each request."""

    def __init__(
        self,
        api: Api,
        headers: Mapping[str, str] | None = None,
        path: str = CHAT,
        tools: Sequence[str] = ("look_up", "send"),
    ) -> None:
        self.api, self.path = api, path
        self.headers = headers or {}
        self.tools = [tool(name) for name in tools]
        self.sessions: list[Session] = []
        self.id: str | None = None

    def say(self, *messages: str | Message, **fields: Any) -> None:
        self.reply = self.api.chat(
            *messages, path=self.path, headers=self.headers, session=self.id, **fields
        )
        said(self.reply)
        self.id = session_of(self.reply)
        self.sessions.append(stored(self.api, self.id))

    def ask(self, text: str, answers: Sequence[str] = (), **fields: Any) -> None:
        """Say something, and answer the calls that follow one after the other."""
        self.say(text, tools=self.tools, **fields)
        for answer in answers:
            assert "tool_calls" in said(self.reply), said(self.reply)
            call_id, *others = call_ids(self.reply)
            results = [result(call_id, answer), *(result(other) for other in others)]
            self.say(*results, tools=self.tools)


# Sessions of all kinds


def chat(serve: Serve) -> Talk:
    talk = Talk(serve(script=[{"text": "Zoë 🙂"}]), tools=())
    for text in ("Hello", "€" * 1_000):
        talk.say(text)
    talk.say({"role": "user", "content": [{"type": "text", "text": "Look"}]})
    return talk


def single_llm(serve: Serve) -> Talk:
    calls = [{"name": "look_up", "arguments": {"word": "a", "n": 10**30}}]
    script = [
        {"when": {"tool_result": "."}, "text": "Done"},
        {"when": {"user": "two"}, "tool_calls": calls * 2},
        {"when": {"user": "denied"}, "tool_calls": [{"name": "send", "arguments": {"word": "b"}}]},
        {"tool_calls": calls},
    ]
    policy = json.dumps({"codes": POLICY + SEND_ONCE})
    talk = Talk(serve(script=script), {"X-Policy": policy})
    talk.ask("one", [wrapped({"a": [1.0, None]}, tags=["untrusted"])])
    talk.ask("two", ["42"])
    talk.ask("denied")
    talk.ask("cancelled")
    talk.ask("one", ["[NaN]"])
    return talk


def dual_llm(serve: Serve) -> Talk:
    program = "x = []\nfor n in range(3): x.append(look_up(word=str(x)))\nfinal_return_value = x"
    policy = json.dumps({"codes": POLICY})
    api = serve(script=[{"program": program}], isolated_programs=False)
    talk = Talk(api, {**DUAL, **config(force_to_cache=["send"]), "X-Policy": policy})
    for _ in range(2):
        big = wrapped(json.loads('{"long": 123456789012345678901, "deep": [[{"": 1e300}]]}'))
        answers = [wrapped("a", producers=["mail"], consumers=["ana"]), "x" * 2_000, big]
        talk.ask("Go", answers)
    talk.say({"role": "system", "content": "Be brief."}, "Go on", tools=talk.tools)
    return talk


def failed_programs(serve: Serve) -> Talk:
    script = [
        {"program": 'a = look_up(word="a")\nb = send(word="a")\nc = a[b]', "times": 1},
        {"program": 'a = look_up(word="a")\nx = a["k"]', "times": 1},
        {"program": 'a = look_up(word="a")\nfinal_return_value = [a, look_up(word="a")]'},
    ]
    api = serve(script=script, isolated_programs=False)
    talk = Talk(api, {**DUAL, **config(max_pllm_failed_steps=5)})
    talk.ask("Go", ["1", "2"])
    talk.ask("Again", ["4", "5"])
    return talk


def multi_step(serve: Serve) -> Talk:
    script = [
        {"program": 'final_return_value = None\nfound = look_up(word="a")\n', "times": 1},
        {"program": "broken = 1 / 0", "times": 1},
        {"program": "sent = send(word=found)\nsent\n", "times": 1},
        {"program": 'final_return_value = [found, send(word="c")]\n'},
    ]
    api = serve(script=script, isolated_programs=False)
    talk = Talk(api, {**DUAL, **config(enable_multistep_planning=True, max_pllm_failed_steps=5)})
    talk.ask("Go", ["1", "2", "3"])
    return talk


def callers_program(serve: Serve) -> Talk:
    talk = Talk(serve(isolated_programs=False), config(), GRAPH)
    program = "while True:\n    word = look_up(word=word)\n"
    variables = {"word": {"value": [None, -0.0, {"a": True}], "meta": Labels(tags={"t"}).to_wire()}}  # type: ignore[arg-type] # converted
    answers = [wrapped(str(n), producers=[f"source{n}"]) for n in range(4)]
    talk.ask("Run", answers, user_provided_program=program, context_vars=variables)
    return talk


def key_with_policy(serve: Serve) -> Talk:
    key = ApiKey.from_secret(
        "sq-test",
        "ana",
        policy="// house\n" + SEND_ONCE,
        features={"agent_arch": "dual-llm"},
        config={"fsm": {"max_n_turns": 9}},
        memory_share=50,
    )
    script = [{"program": 'final_return_value = look_up(word="a")\nsend(word="b")'}]
    api = serve(script=script, isolated_programs=False, api_keys=[key])
    talk = Talk(api, {"X-Policy": json.dumps({"codes": POLICY})})
    talk.ask("Go", ["1"])
    return talk


def structured(serve: Serve) -> Talk:
    schema = {"type": "object", "properties": {"n": {"type": ["integer", "null"], "default": None}}}
    shape = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    program = 'look_up(word="a")\nfinal_return_value = {"n": 1}'
    api = serve(script=[{"program": program}], isolated_programs=False)
    talk = Talk(api, DUAL)
    talk.ask("Go", ["1"], response_format=shape, tool_choice="auto")
    talk.ask("Go", [], response_format=shape, tool_choice="required")
    return talk


def restarted(serve: Serve) -> Talk:
    """The client goes back, so lists of the session are cut."""
    program = 'a = look_up(word="a")\nfinal_return_value = send(word=a)'
    api = serve(script=[{"program": program}], isolated_programs=False)
    talk = Talk(api, {**DUAL, **config(history_mismatch_policy="restart_turn")})
    talk.ask("One", ["1", "2"])
    first = [{"role": "user", "content": "One"}, said(talk.reply)]
    talk.ask("Two", ["1"])
    talk.say(*first[:1], tools=talk.tools)
    return talk


KINDS = [
    chat, single_llm, dual_llm, failed_programs, multi_step, callers_program, key_with_policy,
    structured, restarted,
]  # fmt: skip
Make = Callable[[Serve], Talk]
each_kind = pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)


def log_of(sessions: Sequence[Session]) -> list[list[bytes]]:
    """The events of each commit."""
    return [events_between(*pair) for pair in pairwise([None, *sessions])]  # type: ignore[arg-type] # a session is last


def assert_equal(read: Session, session: Session) -> None:
    for field in dataclasses.fields(Session):
        assert getattr(read, field.name) == getattr(session, field.name), field.name
    # Equal data may differ in JSON: 1, 1.0 and True, or the order of keys.
    assert events_between(None, read) == events_between(None, session)


# What comes back


@each_kind
def test_a_session_comes_back_equal_from_any_commit_on(make: Make, serve: Serve) -> None:
    sessions = make(serve).sessions
    log = log_of(sessions)
    for number, session in enumerate(sessions):
        read = session_from(chain(*log[: number + 1]))
        assert_equal(read, session)
        assert_equal(session_from(events_between(None, session)), session)
        assert events_between(session, session) == events_between(session, read) == []
        for events, later in zip(log[number + 1 :], sessions[number + 1 :], strict=True):
            read, earlier = apply_events(read, events), read
            assert_equal(read, later)
            assert_equal(earlier, sessions[sessions.index(later) - 1])


@each_kind
def test_a_change_leads_from_any_session_to_any_other(make: Make, serve: Serve) -> None:
    sessions = [*make(serve).sessions, *chat(serve).sessions]
    for before, after in product(sessions, sessions):
        assert_equal(apply_events(before, events_between(before, after)), after)
        read = session_from(events_between(None, before))
        assert_equal(apply_events(read, events_between(read, after)), after)
        assert_equal(read, before)


@each_kind
def test_a_session_that_is_read_before_each_request_goes_on_as_if_it_was_kept(
    make: Make, serve: Serve
) -> None:
    def serve_rereading(**options: Any) -> Api:
        return serve(**options, store=Rereading())

    assert shapes(make(serve_rereading)) == shapes(make(serve))


def shapes(talk: Talk) -> list[str]:
    """The events without random ids."""
    return [RANDOM.sub("", text.decode()) for text in chain(*log_of(talk.sessions))]


SURROGATES = "a\ud800b\udfff"
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(), max_size=5)
    | st.sampled_from([10**4_000, -(2**63), 2**63, -0.0, float("inf"), SURROGATES, "$exact"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from(["$exact", "$tuple", "a", SURROGATES]), inner, max_size=2)
        | st.dictionaries(st.integers() | st.none(), inner, max_size=2)
    ),
    max_leaves=8,
)


def with_data(data: Any, session_id: str = "id") -> Session:
    texts = GrowingList([StoredMessage("tool", [data], {"artifact": data})])
    variables = {SURROGATES: Labeled(data), "b": Labeled({"data": data}, Labels(tags={SURROGATES}))}  # type: ignore[arg-type] # converted
    state = DualState(variables=variables, cache={"": ToolReturn(data, Labels(), is_error=True)})
    return Session(
        "owner", "/", session_id, sent=b"\0\xff", messages=Conversation(texts), state=state
    )


@given(PLAIN, PLAIN)
def test_all_data_come_back_with_their_types(before: Any, after: Any) -> None:
    sessions = [with_data(before), with_data(after)]
    for session in sessions:
        read = session_from(events_between(None, session))
        assert_equal(read, session)
        assert repr(read.state) == repr(session.state)  # 1 == 1.0 == True
    changed = apply_events(sessions[0], events_between(*sessions))
    assert repr(changed.state) == repr(sessions[1].state)


def test_texts_with_lone_surrogates_come_back_everywhere() -> None:
    text = SURROGATES * 60
    turn = OpenTurn(
        query=text,
        new_messages=(HumanMessage(text),),
        system=(),
        tools=CallerTools({text: {text: text}}, {text: text}, {text: text}),
        shape={text: text},
        tool_choice=text,
        program=text,
        done=(text,),
        context=text,
        stored_log=GrowingList([json.dumps({"event": text})]),
        attempts=(Attempt(text, text, text), Attempt(text, text, f"{text}2")),
        failed=(FailedProgram(text, text, (text, text), may_repeat=True),),
        reused={text: 1},
    )
    past = GrowingList([PastTurn(text, (text,), 1, {text: Labeled(text)})])
    state = DualState(turn=turn, policies=(text,), past=past)
    session = Session(text, text, text, headers={text: text}, reply=text, state=state)
    assert_equal(session_from(events_between(None, session)), session)
    longer = dataclasses.replace(turn, context=text + "more")
    after = dataclasses.replace(session, state=dataclasses.replace(state, turn=longer))
    assert_equal(apply_events(session, events_between(session, after)), after)


@pytest.mark.parametrize("data", [b"\0", frozenset({1, "a"}), {1}, {"a": b""}, {"$int": "1"}])
def test_data_that_json_does_not_have_come_back(data: Any) -> None:
    assert_equal(session_from(events_between(None, with_data(data))), with_data(data))


def test_nan_and_deep_data_come_back() -> None:
    deep: Any = float("nan")
    for _ in range(500):
        deep = [deep]
    (read,) = session_from(events_between(None, with_data(deep))).messages.stored
    assert repr(read.content) == repr([deep])


def test_equal_settings_of_a_key_come_back_and_decide_alike() -> None:
    policies = [sqrt.named("house", "// no\n" + SEND_ONCE), 'tool "x" { must deny always; }', ""]
    for policy in (None, SEND_ONCE, policies[0], policies):
        features, headers = {"agent_arch": "dual-llm"}, {"fsm": {"max_n_turns": None}}
        key = ApiKey.from_secret("s", "ana", policy=policy, features=features, config=headers)
        session = Session("owner", "/", settings=key.settings)
        read = session_from(events_between(None, session)).settings
        assert read is not None
        assert key.settings is not None
        assert read == key.settings
        assert read.text == key.settings.text
        assert read is session_from(events_between(None, session)).settings
        if policy is not None:
            assert read.policy is not None
            assert key.settings.policy is not None
            call, labels = Call("send", {"word": Argument("b")}), Labels()
            expected = key.settings.policy.compile().decide(call, labels)
            assert read.policy.compile().decide(call, labels) == expected


# Growth


def test_the_bytes_of_a_step_do_not_depend_on_the_length_of_the_session(serve: Serve) -> None:
    loop = "for n in range(300): look_up(word=str(n))\nfinal_return_value = 1"
    steps = [{"program": f'r{n} = look_up(word="{n}")\nr{n}', "times": 1} for n in range(130)]
    api = serve(script=[{"program": loop}], isolated_programs=False)
    talks = [Talk(serve(script=[{"text": "x" * 1_000}]), tools=())]
    for _ in range(60):
        talks[0].say("x" * 1_000)
    talks.append(Talk(api, {**DUAL, **config()}))
    talks[1].ask("Go", ["x" * 100] * 120)
    stepwise = serve(script=steps, isolated_programs=False)
    headers = {**DUAL, **config(enable_multistep_planning=True, max_pllm_steps=500)}
    talks.append(Talk(stepwise, headers))
    talks[2].ask("Go", ["x" * 100] * 120)
    talks.append(Talk(serve(isolated_programs=False), config(), GRAPH))
    talks[3].ask("Go", ["x"] * 120, user_provided_program=loop)
    for talk in talks:
        sizes = [sum(map(len, events)) for events in log_of(talk.sessions)]
        assert sizes[-1] < 1.02 * sizes[len(sizes) // 2], sizes
        whole = sum(map(len, events_between(None, talk.sessions[-1])))
        assert sum(sizes) < 2 * whole


def test_many_turns_with_variables_grow_by_what_each_adds(serve: Serve) -> None:
    programs = [{"program": f"v{n} = '{'x' * 500}{n}'", "times": 1} for n in range(40)]
    talk = Talk(serve(script=programs, isolated_programs=False), {**DUAL, **config()})
    for _ in programs:
        talk.ask("Go")
    sizes = [sum(map(len, events)) for events in log_of(talk.sessions)]
    assert sizes[-1] < 1.1 * sizes[len(sizes) // 2], sizes


def test_a_policy_session_writes_only_new_results(serve: Serve) -> None:
    script = [{"when": {"tool_result": "."}, "text": "Done"}, {"tool_calls": [{"name": "look_up"}]}]
    headers = {"X-Policy": json.dumps({"codes": POLICY})}
    talk = Talk(serve(script=script), headers)
    for _ in range(40):
        talk.ask("one", ["x" * 1_000])
    sizes = [sum(map(len, events)) for events in log_of(talk.sessions)]
    assert sizes[-1] < 1.02 * sizes[41], sizes


def test_the_common_beginning_of_copies_is_found_without_looking_at_the_items() -> None:
    class Watched(GrowingList[int]):
        looks = 0

        def __getitem__(self, index: Any) -> Any:
            type(self).looks += 1
            return super().__getitem__(index)

    first = Watched(range(1_000))
    copied, cut = first.copy(), first.first(900)
    copied.append(1)
    cut.append(-1)
    found = [first.common_length(copied), copied.common_length(cut), cut.common_length(first)]
    assert (found, Watched.looks < 10) == ([1_000, 900, 900], True)
    assert Watched(range(5)).common_length(Watched([0, 1, -2])) == 2


# What cannot be stored or read


def test_a_field_of_a_stored_dataclass_must_have_a_decision() -> None:
    @dataclasses.dataclass
    class Extended(SingleState):
        added: int = 0

    with pytest.raises(TypeError, match="how each field of `Extended` is stored"):
        Record(Extended, dict.fromkeys(("labels", "results", "open_calls"), DATA))


class Custom:
    """A state of somebody's own architecture."""


@pytest.mark.parametrize(
    ("session", "problem"),
    [
        (Session("", "", state=Custom()), "`Custom`"),
        (Session("", "", state=DualState(turn=Custom())), "Expected `OpenTurn`, got `Custom`"),  # type: ignore[arg-type] # the case
        (
            Session("", "", messages=Conversation(GrowingList([StoredMessage("chat", "", "{}")]))),
            "one of human",
        ),
        (Session("", "", turns="1"), "Expected `int`, got `str`"),  # type: ignore[arg-type] # the case
        (Session("", "", state=SingleState(results={"a": (Custom(),)})), "`Custom`"),
    ],
)
def test_a_session_with_unknown_parts_is_refused(session: Session, problem: str) -> None:
    with pytest.raises(UnstorableSession, match=problem) as raised:
        events_between(None, session)
    assert raised.value.status == 500


VALID = events_between(None, Session("owner", "/", state=DualState()))[0]


def changed_event(**changes: Any) -> bytes:
    return orjson.dumps({**orjson.loads(VALID), **changes})


def changed_session(**changes: Any) -> bytes:
    event = orjson.loads(VALID)
    return orjson.dumps({**event, "session": {**event["session"], **changes}})


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ([], "no events"),
        ([b""], "not JSON"),
        ([b"[" * 100_000], "not JSON"),
        ([b"[]"], "not an object"),
        ([b"{}"], "no version"),
        ([changed_event(v=True)], "no version"),
        ([changed_event(v=2)], "version 2; this server reads 1"),
        ([changed_event(more=1)], "other fields than `v` and `session`"),
        ([changed_session(more=1)], "more"),
        ([changed_session(turns="1")], "turns"),
        ([changed_session(turns=True)], "turns"),
        ([changed_session(id=None)], "id"),
        ([changed_session(sent="0")], "digits"),
        ([changed_session(settings="{}")], "settings"),
        ([changed_session(state={})], "one kind"),
        ([changed_session(state={"other": {}})], "other"),
        ([changed_session(state={"dual_llm": {"turn": {}}})], "of `OpenTurn` is missing"),
        ([changed_session(messages={"stored": {"keep": 1}})], "Items of a list are missing"),
        ([changed_session(messages={"stored": {"add": [{"type": "remove"}]}})], "type"),
        ([changed_session(headers={"drop": ["a"]})], "did not exist"),
        ([changed_session(state={"dual_llm": {"cache": {"set": {"a": {"value": {"$exact": 1}}}}}})], "Exact data"),
        ([changed_session(state={"dual_llm": {"cache": {"set": {"a": {"value": {"$exact": '{"$int":[]}'}}}}}})], "Exact data"),
        ([changed_session(state={"dual_llm": {"labels": {"tags": {"remove": ["a"]}}}})], "did not exist"),
        ([b'{"v":1,"session":{}}'], "of `Session` is missing"),
    ],
)  # fmt: skip
def test_an_event_in_another_form_is_refused_and_the_error_says_where(
    events: list[bytes], problem: str
) -> None:
    with pytest.raises(UnreadableSession, match=problem) as raised:
        session_from(events)
    assert raised.value.status == 500


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All containers in a JSON value, each with one of its keys or indices."""
    for key in (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    ):
        yield value, key
        yield from places(value[key])


@each_kind
def test_damaged_events_are_refused_or_are_a_whole_session(make: Make, serve: Serve) -> None:
    sessions = make(serve).sessions
    events = [*chain(*log_of(sessions)), *events_between(None, sessions[-1])]
    numbers = random.Random(7)  # noqa: S311 - no secret
    outcomes = Counter[bool]()
    for number, event in enumerate(events):
        before = sessions[number - 1] if 0 < number < len(sessions) else None
        for _ in range(150):
            damaged = numbers.choice([with_other_bytes, with_other_parts])(event, numbers)
            outcomes[is_refused(before, damaged)] += 1
    assert min(outcomes[True], outcomes[False]) > 20


def with_other_bytes(event: bytes, numbers: random.Random) -> bytes:
    copied = bytearray(event)
    copied[numbers.randrange(len(copied))] ^= 1 << numbers.randrange(8)
    return bytes(copied)


def with_other_parts(event: bytes, numbers: random.Random) -> bytes:
    copied = orjson.loads(event)
    container, key = numbers.choice([*places(copied)])
    if numbers.random() < 0.4:
        del container[key]
    else:
        container[key] = numbers.choice(
            [
                None,
                True,
                -1,
                2**60,
                1.5,
                "",
                "{}",
                "\ud7ff",
                [],
                {},
                [[]],
                {"add": [0]},
                {"set": {"a": {}}},
            ]
        )
    return orjson.dumps(copied)


def is_refused(before: Session | None, event: bytes) -> bool:
    try:
        read = session_from([event]) if before is None else apply_events(before, [event])
    except UnreadableSession:
        return True
    assert_equal(session_from(events_between(None, read)), read)
    return False


# Sessions of earlier versions: `v1.jsonl` has the events of one session of each kind


def stored_logs(version: int) -> dict[str, list[bytes]]:
    """The events by the kind of their session; each line begins with the kind."""
    logs: dict[str, list[bytes]] = {}
    for line in (STORED / f"v{version}.jsonl").read_bytes().splitlines():
        name, _, event = line.partition(b" ")
        logs.setdefault(name.decode(), []).append(event)
    return logs


@pytest.mark.parametrize("name", [make.__name__ for make in KINDS])
def test_what_an_earlier_version_has_stored_is_read(name: str) -> None:
    log = stored_logs(1)[name]
    sessions = [session_from(log[: count + 1]) for count in range(len(log))]
    assert [*chain(*log_of(sessions))] == log


def test_a_conversation_that_an_earlier_version_has_stored_goes_on(serve: Serve) -> None:
    log = stored_logs(1)["dual_llm"][:2]
    program = orjson.loads(log[0])["session"]["state"]["dual_llm"]["turn"]["program"]
    api = serve(script=[{"program": program}], isolated_programs=False)
    talk = Talk(api, DUAL)
    talk.say("Hello")
    session = session_from(log)
    bearer = talk.sessions[0].bearer
    stores.save(talk.api.server.sessions, dataclasses.replace(session, bearer=bearer))
    talk.id, talk.headers = session.id, {}
    for answer in ("2", "3"):
        waiting: Any = talk.sessions[-1].state if answer == "3" else session.state
        talk.say(result(waiting.turn.waiting.id, answer), tools=talk.tools)
    envelope = json.loads(said(talk.reply)["content"])
    assert envelope["final_return_value"]["value"] == ["a", 2, 3]
    assert "mail" in envelope["final_return_value"]["meta"]["producers"]
    assert talk.sessions[-1].turns == session.turns + 1
