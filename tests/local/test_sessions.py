"""Sessions: their owner, their history, their end, and one request at a time."""

import gc
import json
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from langchain_core.messages import BaseMessage, HumanMessage

from langchain_sequrity.errors import InvalidRequest, NotFound, StatusError
from langchain_sequrity.local import LocalServer, MemorySessions, Session
from langchain_sequrity.local.session_lookup import resume_session
from langchain_sequrity.local.sessions import bearer_digest
from langchain_sequrity.local.stored_messages import Conversation
from langchain_sequrity.sync_or_async import run_to_end
from langchain_sequrity.wire.exchange import ChatRequest
from tests.local.api import (
    WAIT,
    Api,
    Gate,
    Message,
    Speaker,
    call_ids,
    detail,
    result,
    said,
    session_of,
    streamed_text,
    tool,
)
from tests.local.conftest import Serve
from tests.local.stores import acquire, find, release, save

NOBODYS = "0b6f1c2e-1a2b-41f1-9c3d-0242ac120002"
TOOLS = [tool("look_up"), tool("send")]
OTHER_PATH = "/control/code/v1/chat/completions"


class Clock:
    """A fake clock. The test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def transcript(request: ChatRequest) -> str:
    """The messages of a request, as JSON."""
    return json.dumps([[message.type, str(message.text)] for message in request.messages])


def heard(reply: httpx.Response) -> list[list[str]]:
    conversation: list[list[str]] = json.loads(said(reply)["content"])
    return conversation


@pytest.fixture
def listening(serve: Serve) -> Api:
    """A server that calls tools on command, and otherwise answers with the messages it got."""
    calls = [{"name": "look_up", "arguments": {"word": "x"}}]
    both = [*calls, {"name": "send", "arguments": {}}]
    return serve(
        script=[
            {"when": {"user": "^call one$", "tool_result": "^again$"}, "tool_calls": calls},
            {"when": {"tool_result": ""}, "answer": transcript},
            {"when": {"user": "^call one$"}, "tool_calls": calls},
            {"when": {"user": "^call two$"}, "tool_calls": both},
            {"answer": transcript},
        ]
    )


def with_key(api: Api, key: str) -> Api:
    return Api(api.server, api.http, key)


# The owner of a session


@pytest.mark.parametrize(
    "named", [NOBODYS, "nonsense", "0", "\xe9".encode().decode("latin-1"), "a" * 500]
)
def test_an_unknown_session_is_404(api: Api, named: str) -> None:
    headers = {"X-Session-ID": named.encode("latin-1")}
    reply = api.chat("Hi", headers=headers)
    assert reply.status_code == 404
    assert detail(reply)


def test_an_empty_session_header_starts_a_new_session(api: Api) -> None:
    assert api.chat("Hi", headers={"X-Session-ID": ""}).status_code == 200


def test_session_ids_are_random(api: Api) -> None:
    ids = [UUID(session_of(api.chat("Hi"))) for _ in range(5)]
    assert len(set(ids)) == 5
    assert {one.version for one in ids} == {4}


def test_another_key_does_not_find_a_session_by_its_header_or_by_a_tool_call(api: Api) -> None:
    called = api.chat("call look_up", tools=TOOLS)
    thief = with_key(api, f"sq-{uuid4()}")
    [call_id] = call_ids(called)
    by_header = thief.chat("Hi", session=session_of(called))
    by_tool = thief.chat("call look_up", said(called), result(call_id), tools=TOOLS)
    unknown = thief.chat("Hi", session=str(uuid4()))
    assert [by_header.status_code, by_tool.status_code] == [404, 404]
    assert by_header.json() == by_tool.json() == unknown.json()
    assert api.chat(result(call_id), session=session_of(called)).status_code == 200


def test_a_session_header_that_contradicts_the_ids_of_tool_calls_is_404(api: Api) -> None:
    called = api.chat("call look_up", tools=TOOLS)
    other = session_of(api.chat("Hi"))
    messages: list[Any] = ["call look_up", said(called), result(call_ids(called)[0])]
    assert api.chat(*messages, session=other).status_code == 404
    assert api.chat(*messages, session=str(uuid4())).status_code == 404
    assert api.chat(*messages, session=session_of(called)).status_code == 200


def test_ids_of_two_sessions_in_one_history_are_404(api: Api) -> None:
    first, second = (api.chat("call look_up", tools=TOOLS) for _ in range(2))
    history: list[Any] = []
    for reply in (first, second):
        history += ["call look_up", said(reply), result(call_ids(reply)[0])]
    assert api.chat(*history).status_code == 404


@pytest.mark.parametrize("mode", ["api", "documented"])
def test_a_tool_result_continues_the_session_of_its_call_id(
    mode: str, request: pytest.FixtureRequest
) -> None:
    api: Api = request.getfixturevalue(mode)
    called = api.chat("call look_up", tools=TOOLS)
    [call_id] = call_ids(called)
    for session in (None, session_of(called)):
        reply = api.chat("call look_up", said(called), result(call_id), session=session)
        assert session_of(reply) == session_of(called)


@pytest.mark.parametrize("mode", ["api", "documented"])
def test_a_tool_result_of_an_unknown_session_is_404(
    mode: str, request: pytest.FixtureRequest
) -> None:
    api: Api = request.getfixturevalue(mode)
    for call_id in (f"tc-{uuid4()}-{uuid4()}", "tc0123456789ab0001"):
        call = {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        message: Message = {"role": "assistant", "content": None, "tool_calls": [call]}
        assert api.chat("Hi", message, result(call_id)).status_code == 404


@pytest.mark.parametrize(
    "call_id",
    [
        "call_1",
        "tc-1",
        "tc-",
        "tc",
        f"tc-{'x' * 36}-1",
        "tc0123456789ab000",
        "tc0123456789abcdefg",
        f"TC-{NOBODYS}-1",
        f"xtc-{NOBODYS}-1",
    ],
)
def test_a_call_id_that_does_not_have_our_form_is_opaque(api: Api, call_id: str) -> None:
    call = {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message: Message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert said(api.chat("Hi", message, result(call_id)))["content"]


POLICIES = (None, "reject", "restart_turn", "continue")


@pytest.mark.parametrize("stored", POLICIES, ids=str)
@pytest.mark.parametrize("sent", POLICIES, ids=str)
@pytest.mark.parametrize("turns", [20, 21])
def test_only_a_session_without_history_mismatch_policy_gets_one_later(
    api: Api, stored: str | None, sent: str | None, turns: int
) -> None:
    def config(policy: str | None, turns: int) -> dict[str, str]:
        fsm = {"max_n_turns": turns} | (
            {} if policy is None else {"history_mismatch_policy": policy}
        )
        return {"X-Config": json.dumps({"fsm": fsm})}

    session = session_of(api.chat("Hi", headers=config(stored, 20)))
    reply = api.chat("Hi", session=session, headers=config(sent, turns))
    is_same = turns == 20 and (sent == stored or stored is None)
    assert reply.status_code == (200 if is_same else 409)


def test_a_session_on_another_path_is_409(api: Api) -> None:
    session = session_of(api.chat("Hi"))
    reply = api.chat("Hi", session=session, path=OTHER_PATH)
    assert reply.status_code == 409
    assert "/control/chat/v1/chat/completions" in detail(reply)
    assert api.chat("Hi", session=session).status_code == 200


def test_headers_of_a_session_may_be_left_out_or_repeated_but_not_changed(api: Api) -> None:
    first = {
        "X-Features": '{"agent_arch": "single-llm"}',
        "X-Config": '{"fsm": {"max_n_turns": 20}}',
    }
    session = session_of(api.chat("Hi", headers=first))

    def status(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return api.chat("Hi", session=session, headers=named).status_code

    assert status() == 200
    assert status(X_Config=first["X-Config"]) == 200
    assert status(X_Features='{ "agent_arch":"single-llm" }') == 200
    assert status(X_Features="{}") == 409
    assert status(X_Config='{"fsm": {"max_n_turns": 21}}') == 409
    assert status(X_Policy="{}") == 409
    assert status(X_Policy="{") == 400
    assert status() == 200


def test_the_error_names_the_changed_header(api: Api) -> None:
    session = session_of(api.chat("Hi"))
    reply = api.chat("Hi", session=session, headers={"X-Config": "{}"})
    assert "`x-config`" in detail(reply)


# The history of a session


def test_new_messages_alone_continue_the_stored_history(listening: Api) -> None:
    first = listening.chat({"role": "system", "content": "Be brief."}, "yes")
    again = listening.chat("yes", session=session_of(first))
    third = listening.chat(
        {"role": "system", "content": "Be brief."}, "yes", session=session_of(first)
    )
    said_first, said_again = said(first)["content"], said(again)["content"]
    assert heard(again) == [
        ["system", "Be brief."],
        ["human", "yes"],
        ["ai", said_first],
        ["human", "yes"],
    ]
    assert heard(third) == [*heard(again), ["ai", said_again], ["human", "yes"]]


def test_a_whole_history_replaces_the_stored_one(listening: Api) -> None:
    first = listening.chat("one")
    whole = listening.chat("one", said(first), "two", session=session_of(first))
    assert heard(whole) == [["human", "one"], ["ai", said(first)["content"]], ["human", "two"]]


def test_a_trimmed_history_replaces_the_stored_one(listening: Api) -> None:
    first = listening.chat("one")
    second = listening.chat("one", said(first), "two", session=session_of(first))
    trimmed = listening.chat("two", said(second), "three", session=session_of(first))
    assert [text for _, text in heard(trimmed)] == ["two", said(second)["content"], "three"]


def test_a_lone_tool_result_is_paired_with_the_stored_call(listening: Api) -> None:
    called = listening.chat("call one", tools=TOOLS)
    reply = listening.chat(result(call_ids(called)[0], "found"), session=session_of(called))
    assert heard(reply) == [["human", "call one"], ["ai", ""], ["tool", "found"]]


def test_a_lone_tool_result_finds_its_session_without_a_session_header(listening: Api) -> None:
    called = listening.chat("call one", tools=TOOLS)
    reply = listening.chat(result(call_ids(called)[0], "found"))
    assert session_of(reply) == session_of(called)
    assert heard(reply)[-1] == ["tool", "found"]


def test_several_rounds_of_tools_make_one_turn(serve: Serve) -> None:
    calls = [{"name": "look_up", "arguments": {}}]
    sessions = MemorySessions()
    api = serve(
        store=sessions,
        script=[{"tool_calls": calls, "times": 2}, {"text": "Done."}],
    )
    reply = api.chat("Hi", tools=TOOLS)
    session = session_of(reply)
    for _ in range(2):
        assert sessions[session].turns == 0
        reply = api.chat(result(call_ids(reply)[0]), session=session)
    assert said(reply)["content"] == "Done."
    assert sessions[session].turns == 1


def test_a_tool_result_and_a_new_message_may_be_sent_together(listening: Api) -> None:
    called = listening.chat("call one", tools=TOOLS)
    reply = listening.chat(result(call_ids(called)[0]), "and now?", session=session_of(called))
    assert heard(reply)[-2:] == [["tool", "42"], ["human", "and now?"]]


Odd = Callable[[Message, list[str]], list[str | Message]]
ODD_HISTORIES: list[tuple[str, Odd, str]] = [
    ("one result missing", lambda call, ids: ["call two", call, result(ids[0])], "second"),
    ("both missing", lambda call, _: ["call two", call, "well?"], "second"),
    ("one twice", lambda call, ids: ["call two", call, result(ids[0]), result(ids[0])], "first"),
    ("before its call", lambda call, ids: ["call two", result(ids[0]), call, result(ids[1])], "first"),
    ("after something else", lambda call, ids: ["call two", call, result(ids[0]), "Hm", result(ids[1])], "second"),
    ("twice with something between", lambda call, ids: ["call two", call, *map(result, ids), "Hm", result(ids[0])], "first"),
]  # fmt: skip


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("named", [True, False], ids=["session named", "by ids alone"])
@pytest.mark.parametrize(
    ("odd", "which"), [row[1:] for row in ODD_HISTORIES], ids=[row[0] for row in ODD_HISTORIES]
)
def test_results_and_calls_that_do_not_match_are_400_with_the_call_id(
    listening: Api, odd: Odd, which: str, named: bool
) -> None:
    called = listening.chat("call two", tools=TOOLS)
    ids = call_ids(called)
    session = session_of(called) if named else None
    reply = listening.chat(*odd(said(called), ids), session=session)
    assert reply.status_code == 400
    assert f"`{ids[0] if which == 'first' else ids[1]}`" in detail(reply)
    good = listening.chat("call two", said(called), *map(result, ids), session=session)
    assert good.status_code == 200


def test_a_result_for_an_unknown_call_is_400_with_the_call_id(api: Api) -> None:
    session = session_of(api.chat("Hi"))
    for named in (session, None):
        reply = api.chat("Hi", result("call_9"), session=named)
        assert reply.status_code == 400
        assert "`call_9`" in detail(reply)


def test_two_calls_with_the_same_id_are_400(api: Api) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message: Message = {"role": "assistant", "content": None, "tool_calls": [call, call]}
    assert api.chat("Hi", message, result("call_1")).status_code == 400


def test_a_history_without_the_result_of_a_call_is_400_with_the_call_id(listening: Api) -> None:
    called = listening.chat("call one", tools=TOOLS)
    message = called.json()["choices"][0]["message"]
    reply = listening.chat("call one", message, "never mind", session=session_of(called))
    assert reply.status_code == 400
    assert f"`{call_ids(called)[0]}`" in detail(reply)


def test_a_new_message_cancels_the_open_calls_of_the_session(listening: Api) -> None:
    called = listening.chat("call one", tools=TOOLS)
    assert listening.chat("never mind", session=session_of(called)).status_code == 200
    late = listening.chat(result(call_ids(called)[0]), session=session_of(called))
    assert late.status_code == 400
    assert f"`{call_ids(called)[0]}`" in detail(late)


def test_a_refused_request_changes_nothing(serve: Serve) -> None:
    sessions = MemorySessions()
    api = serve(store=sessions)
    session = session_of(api.chat("Hi"))
    before = list(sessions[session].messages)
    api.chat(result("call_9"), session=session)
    api.chat("Hi", session=session, headers={"X-Policy": "{}"})
    api.chat("Hi", session=session, n=1.5)
    assert sessions[session].messages == before
    assert sessions[session].turns == 1


def test_a_failed_first_request_does_not_create_a_session(serve: Serve) -> None:
    sessions = MemorySessions()
    api = serve(store=sessions, script=[{"error": {"status": 500, "message": "Oh."}}])
    assert api.chat("Hi").status_code == 500
    assert len(sessions) == 0


# The end of a session


def test_a_session_ends_after_max_n_turns(serve: Serve) -> None:
    sessions = MemorySessions()
    api = serve(store=sessions)
    first = api.chat("Hi", headers={"X-Config": '{"fsm": {"max_n_turns": 2}}'})
    assert api.chat("Hi", session=session_of(first)).status_code == 200
    assert api.chat("Hi", session=session_of(first)).status_code == 404
    assert len(sessions) == 0


def test_max_n_turns_counts_answers_and_not_tool_calls(listening: Api) -> None:
    once = {"X-Config": '{"fsm": {"max_n_turns": 1}}'}
    called = listening.chat("call one", tools=TOOLS, headers=once)
    session = session_of(called)
    assert listening.chat(result(call_ids(called)[0]), session=session).status_code == 200
    assert listening.chat("Hi", session=session).status_code == 404


def test_an_idle_session_expires(serve: Serve) -> None:
    clock = Clock()
    api = serve(store=MemorySessions(max_idle=60, clock=clock))
    session = session_of(api.chat("Hi"))
    for _ in range(3):
        clock.now += 59
        assert api.chat("Hi", session=session).status_code == 200
    clock.now += 61
    assert api.chat("Hi", session=session).status_code == 404


def test_expired_sessions_are_removed_from_memory(serve: Serve) -> None:
    clock = Clock()
    sessions = MemorySessions(max_idle=60, clock=clock)
    api = serve(store=sessions)
    for _ in range(3):
        api.chat("Hi")
    clock.now += 61
    api.chat("Hi")
    assert len(sessions) == 1


def test_a_session_expires_although_an_older_one_was_used_since() -> None:
    clock = Clock()
    sessions = MemorySessions(max_idle=60, clock=clock)
    used, idle = Session("bearer", "/path"), Session("bearer", "/path")
    for session in (used, idle):
        save(sessions, session)
    clock.now += 50
    save(sessions, used)
    clock.now += 20
    assert find(sessions, idle.id) is None
    assert [*sessions] == [used]


def test_a_full_store_evicts_the_session_that_was_idle_longest(serve: Serve) -> None:
    sessions = MemorySessions(max_sessions=2)
    api = serve(store=sessions)
    first, second = (session_of(api.chat("Hi")) for _ in range(2))
    assert api.chat("Hi", session=first).status_code == 200
    third = session_of(api.chat("Hi"))
    assert {session.id for session in sessions} == {first, third}
    assert api.chat("Hi", session=second).status_code == 404


def test_a_session_in_use_is_neither_evicted_nor_expired() -> None:
    clock = Clock()
    sessions = MemorySessions(max_sessions=1, max_idle=60, clock=clock)
    busy = Session("bearer", "/path")
    save(sessions, busy)
    lease = acquire(sessions, busy.id)
    assert lease
    clock.now += 61
    save(sessions, Session("bearer", "/path"))
    assert find(sessions, busy.id) is busy
    release(sessions, lease)
    clock.now += 61
    assert find(sessions, busy.id) is None


def test_a_request_that_also_names_a_session_of_somebody_else_finds_none() -> None:
    sessions = MemorySessions()
    own, second, foreign = (Session(bearer, "/path") for bearer in ("me", "me", "you"))
    for session in (own, second, foreign):
        save(sessions, session)

    def resumed(*session_ids: str) -> Session | None:
        resuming = resume_session(sessions, {*session_ids}, bearer="me", path="/path")
        return run_to_end(resuming).session

    for ids in ({own.id, foreign.id}, {own.id, second.id}, {own.id, "unknown"}, {foreign.id}):
        with pytest.raises(NotFound, match="unknown or has expired, or the request names two"):
            resumed(*ids)
    assert resumed(own.id, own.short) is own


@pytest.mark.parametrize("is_stored", [False, True])
def test_nothing_of_a_turn_that_makes_a_session_too_large_stays_in_memory(is_stored: bool) -> None:
    sessions = MemorySessions(max_session_bytes=100_000)
    session = Session("bearer", "/path")
    if is_stored:
        save(sessions, session)
    messages: list[BaseMessage] = [HumanMessage("x" * 10_000) for _ in range(50)]
    last = weakref.ref(messages[-1])
    with pytest.raises(StatusError, match="more than 100000 bytes"):
        save(sessions, replace(session, messages=Conversation.from_messages(messages)))
    del messages
    gc.collect()
    assert last() is None


# One request at a time


def test_a_second_request_on_a_busy_session_is_409_and_other_sessions_are_served(
    serve: Serve,
) -> None:
    gate = Gate()
    api = serve(script=[{"when": {"user": "slow"}, "answer": gate}])
    session = session_of(api.chat("Hi"))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(api.chat, "slow", session=session)
        gate.wait_for_request()
        refused = api.chat("Hi", session=session)
        stranger = with_key(api, "sq-other").chat("Hi", session=session)
        other = api.chat("Hi")
        gate.opened.set()
        assert said(running.result(WAIT))["content"] == "opened"
    assert refused.status_code == 409
    assert stranger.status_code == 404
    assert other.status_code == 200
    assert api.chat("Hi", session=session).status_code == 200


def test_each_of_many_simultaneous_requests_on_one_session_is_answered_or_409(serve: Serve) -> None:
    sessions = MemorySessions()
    api = serve(store=sessions)
    session = session_of(api.chat("Hi"))
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: api.chat("Hi", session=session).status_code, range(40)))
    assert set(replies) <= {200, 409}
    assert sessions[session].turns == 1 + replies.count(200)


@pytest.mark.parametrize("stream", [False, True])
def test_a_session_is_free_again_after_an_error(serve: Serve, stream: bool) -> None:
    error = {"when": {"user": "fail"}, "error": {"status": 503, "message": "Oh."}}
    api = serve(script=[error])
    session = session_of(api.chat("Hi"))
    assert api.chat("fail", session=session, stream=stream).status_code == 503
    assert api.chat(result("call_9"), session=session).status_code == 400
    assert api.chat("Hi", session=session).status_code == 200


def test_a_session_is_free_as_soon_as_the_end_of_a_stream_is_read(api: Api) -> None:
    session = session_of(api.chat("Hi"))
    for _ in range(20):
        with api.stream("Hi", session=session) as reply:
            assert streamed_text(reply.read())
        assert api.chat("Hi", session=session).status_code == 200


def test_a_turn_is_stored_even_if_the_client_hangs_up_at_the_finish_reason(serve: Serve) -> None:
    sessions = MemorySessions()
    api = serve(store=sessions)
    session = session_of(api.chat("Hi"))
    for turns in range(2, 12):
        with api.stream("Hi", session=session) as reply:
            for line in reply.iter_lines():
                if '"finish_reason":"stop"' in line:
                    break
        assert sessions[session].turns == turns


def test_a_session_is_free_after_an_error_in_a_stream(serve: Serve) -> None:
    def broken() -> Iterator[str]:
        yield "a"
        yield "b"
        msg = "Oh."
        raise RuntimeError(msg)

    sessions = MemorySessions()
    api = serve(store=sessions, model=Speaker(pieces=broken))
    stored = _stored(sessions, api)
    with api.stream("Hi", session=stored.id) as reply:
        reply.read()
    with api.stream("Hi", session=stored.id) as again:
        assert again.status_code == 200
    assert stored.turns == 0


def test_a_session_is_free_after_a_client_hangs_up_in_a_stream(serve: Serve) -> None:
    closed = threading.Event()

    def endless() -> Iterator[str]:
        try:
            while True:
                yield "more " * 100
        finally:
            closed.set()

    sessions = MemorySessions()
    api = serve(store=sessions, model=Speaker(pieces=endless))
    stored = _stored(sessions, api)
    for _ in range(3):
        closed.clear()
        with httpx.Client(trust_env=False) as client, client.stream("POST", **api.arguments("Hi", stream=True, session=stored.id)) as reply:  # fmt: skip
            assert reply.status_code == 200
            next(reply.iter_bytes())
        assert closed.wait(WAIT)
        _wait_until_free(sessions, stored)
    assert stored.turns == 0


def test_a_session_is_free_after_a_client_hangs_up_before_the_first_piece(serve: Serve) -> None:
    gate = Gate()

    def late() -> Iterator[str]:
        gate.entered.release()
        assert gate.opened.wait(WAIT)
        yield from ("a", "b", "c")

    sessions = MemorySessions()
    api = serve(store=sessions, model=Speaker(pieces=late))
    stored = _stored(sessions, api)
    with pytest.raises(httpx.ReadTimeout), httpx.Client(trust_env=False, timeout=0.1) as client:
        client.post(**api.arguments("Hi", stream=True, session=stored.id))
    gate.wait_for_request()
    gate.opened.set()
    _wait_until_free(sessions, stored)


def _stored(sessions: MemorySessions, api: Api) -> Session:
    """A stored session of this key, created without a request."""
    session = Session(bearer_digest(api.key, sessions.secret), "/control/chat/v1/chat/completions")
    save(sessions, session)
    return session


def _wait_until_free(sessions: MemorySessions, session: Session) -> None:
    poll = threading.Event()
    for _ in range(WAIT * 100):
        with suppress(InvalidRequest):  # it is busy
            lease = acquire(sessions, session.id)
            assert lease
            release(sessions, lease)
            return
        poll.wait(0.01)
    pytest.fail("The session is still busy.")


def test_a_test_can_inspect_stored_sessions(serve: Serve) -> None:
    sessions = MemorySessions()
    server: LocalServer = serve(store=sessions).server
    assert server.sessions is sessions
    api = Api(server, httpx.Client(trust_env=False), "sq-test")
    with api.http:
        session = sessions[session_of(api.chat("Hi"))]
    assert [message.type for message in session.messages] == ["human", "ai"]
    assert session in sessions
    with pytest.raises(KeyError):
        sessions["nonsense"]
