"""Which session a conversation continues (behaviour.md P1)."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda

from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import (
    NotFound,
    ProgramFailed,
    SessionExpired,
    StatusError,
    UsageError,
)
from tests.chat_models.conftest import OTHER_SESSION, SESSION, Service, call_id
from tests.chat_models.formats import added

Make = Callable[..., ChatSequrity]


def sent_session(service: Service, index: int = -1) -> str | None:
    session: str | None = service.requests[index].headers.get("x-session-id")
    return session


def sent_ids(service: Service, index: int = -1) -> tuple[list[str], list[str]]:
    """Ids of the tool calls and of the tool results in a request."""
    messages = service.bodies[index]["messages"]
    calls = [call["id"] for message in messages for call in message.get("tool_calls", ())]
    return calls, [message["tool_call_id"] for message in messages if message["role"] == "tool"]


def tool_call(call: str) -> dict[str, Any]:
    return {"id": call, "type": "function", "function": {"name": "f", "arguments": "{}"}}


def converse(model: ChatSequrity, service: Service, session: str = SESSION) -> list[BaseMessage]:
    """A turn with a tool call, and the result of the call, which is not sent yet."""
    service.answer("", session=session, tool_calls=[tool_call(call_id(session))])
    question = HumanMessage("Go")
    reply = model.invoke([question])
    return [question, reply, ToolMessage("done", tool_call_id=call_id(session))]


def test_the_session_of_the_last_own_message_continues(service: Service, make_model: Make) -> None:
    model = make_model()
    history = converse(model, service)
    assert sent_session(service) is None
    service.answer()
    model.invoke(history)
    assert sent_session(service) == SESSION
    assert sent_ids(service) == ([call_id()], [call_id()])


@pytest.mark.parametrize(
    "other",
    [
        {"api_key": "sq-another"},
        {"policy": 'tool "f" { must deny always; }'},
        {"features": {"agent_arch": "single-llm"}},
        {"session_config": {"fsm": {"max_n_turns": 3}}},
        {"model": "n"},
        {"endpoint_type": "code"},
        {"provider": "openai"},
        {"base_url": "https://other.example"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_history_never_carries_a_session_to_another_configuration(
    service: Service, make_model: Make, other: dict[str, Any]
) -> None:
    history = converse(make_model(), service)
    service.answer(session=OTHER_SESSION)
    make_model(**other).invoke(history)
    assert sent_session(service) is None
    [call], [result] = sent_ids(service)
    assert call == result
    assert SESSION not in call
    assert not call.startswith("tc")


def test_a_session_is_not_resumed_by_a_model_whose_settings_only_read_alike(
    service: Service, make_model: Make
) -> None:
    history = converse(make_model(default_query={"a": "b"}, model="cd"), service)
    service.answer(session=OTHER_SESSION)
    make_model(default_query={"a": "bc"}, model="d").invoke(history)
    assert sent_session(service) is None


def test_a_message_that_was_restored_from_json_resumes_its_session(
    service: Service, make_model: Make
) -> None:
    model = make_model()
    question, reply, result = converse(model, service)
    restored = AIMessage.model_validate_json(reply.model_dump_json())
    service.answer()
    model.invoke([question, restored, result])
    assert sent_session(service) == SESSION


def test_another_model_object_with_the_same_configuration_continues(
    service: Service, make_model: Make
) -> None:
    history = converse(make_model(), service)
    service.answer()
    make_model(temperature=0.5).invoke(history)
    assert sent_session(service) == SESSION


@pytest.mark.parametrize("digest", [None, "", "0" * 64, 7])
def test_a_hand_made_message_resumes_no_session(
    service: Service, make_model: Make, digest: Any
) -> None:
    forged = AIMessage(
        "x", response_metadata={"sequrity": {"session_id": SESSION, "digest": digest}}
    )
    service.answer()
    make_model().invoke([HumanMessage("a"), forged, HumanMessage("b")])
    assert sent_session(service) is None


def test_a_digest_is_not_valid_for_another_session(service: Service, make_model: Make) -> None:
    model = make_model()
    _, reply, _ = converse(model, service)
    facts = {**reply.response_metadata["sequrity"], "session_id": OTHER_SESSION}
    forged = AIMessage("x", response_metadata={"sequrity": facts})
    service.answer()
    model.invoke([HumanMessage("a"), forged, HumanMessage("b")])
    assert sent_session(service) is None


@pytest.mark.parametrize("facts", [None, "x", {"session_id": 7, "digest": 7}])
def test_malformed_session_metadata_is_ignored(
    service: Service, make_model: Make, facts: Any
) -> None:
    service.answer()
    message = AIMessage("x", response_metadata={"sequrity": facts})
    make_model().invoke([HumanMessage("a"), message, HumanMessage("b")])
    assert sent_session(service) is None


def test_two_agents_that_share_a_history_keep_their_sessions(
    service: Service, make_model: Make
) -> None:
    first, second = make_model(), make_model(policy='tool "f" { must deny always; }')
    history = [*converse(first, service), *converse(second, service, OTHER_SESSION)]
    for model, own in ((first, SESSION), (second, OTHER_SESSION)):
        service.answer()
        model.invoke(history)
        assert sent_session(service) == own
        calls, results = sent_ids(service)
        assert calls == results
        assert [call for call in calls if call.startswith("tc")] == [call_id(own)]


def test_a_new_session_is_started_on_request_with_neutral_ids(
    service: Service, make_model: Make
) -> None:
    model = make_model()
    history = converse(model, service)
    service.answer(session=OTHER_SESSION)
    model.invoke(history, session_id="new")
    assert sent_session(service) is None
    [call], [result] = sent_ids(service)
    assert call == result != call_id()
    assert history[1].tool_calls[0]["id"] == call_id()  # type: ignore[attr-defined]


def test_a_named_session_is_used_with_a_lone_tool_result(
    service: Service, make_model: Make
) -> None:
    service.answer()
    make_model().invoke([ToolMessage("42", tool_call_id=call_id())], session_id=SESSION)
    assert sent_session(service) == SESSION
    assert sent_ids(service) == ([], [call_id()])


SHORT = f"tc{SESSION.replace('-', '')[-12:]}0001"


@pytest.mark.parametrize(
    ("id_", "kept"),
    [(call_id(), True), (call_id(OTHER_SESSION), False), (SHORT, True), ("tc0123456789ab0001", False),
     ("tc-odd", False), ("call_1", True), ("toolu_1", True), ("tcp_probe", True)],
)  # fmt: skip
def test_ids_without_metadata_are_kept_only_if_they_name_the_session(
    service: Service, make_model: Make, id_: str, kept: bool
) -> None:
    call = AIMessage("", tool_calls=[{"id": id_, "name": "f", "args": {}}])
    service.answer()
    history = [HumanMessage("a"), call, ToolMessage("r", tool_call_id=id_)]
    make_model().invoke(history, session_id=SESSION)
    [sent_call], [sent_result] = sent_ids(service)
    assert sent_call == sent_result
    assert (sent_call == id_) == kept


def _dashed(session: str, call: str) -> str:
    return f"tc-{session}-{call}"


def _dashless(session: str, call: str) -> str:
    return f"tc{session}{call}".replace("-", "")


def _short(session: str, call: str) -> str:
    return f"tc{session.replace('-', '')[-12:]}{call[:4]}"


UUIDS = st.uuids().map(str)


@pytest.mark.long(sample=1)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    own=UUIDS, other=UUIDS, call=UUIDS, spelling=st.sampled_from([_dashed, _dashless, _short]),
    end=st.sampled_from(["", "x", "0", "-1", "_2", "-" + "f" * 36]), is_upper=st.booleans(),
)  # fmt: skip
@pytest.mark.parametrize("named", [None, "own", "other"])
def test_only_ids_of_the_resumed_session_are_sent_in_any_spelling(
    service: Service, make_model: Make, named: str | None, own: str, other: str, call: str,
    spelling: Callable[[str, str], str], end: str, is_upper: bool,
) -> None:  # fmt: skip
    assume(own[-12:] != other[-12:])  # a short id contains only this part of its session
    id_ = spelling(own, call) + (end if spelling is not _short else "")
    id_ = f"tc{id_[2:].upper()}" if is_upper and spelling is _dashless else id_
    asked = AIMessage("", tool_calls=[{"id": id_, "name": "f", "args": {}}])
    asked_in_blocks = AIMessage([{"type": "tool_use", "id": id_, "name": "f", "input": {}}])
    history = [HumanMessage("a"), asked, ToolMessage("r", tool_call_id=id_)]
    session = {None: "new", "own": own, "other": other}[named]
    service.answer()
    make_model().invoke([*history, asked_in_blocks], session_id=session)
    [sent_call], [sent_result] = sent_ids(service)
    assert sent_call == sent_result
    assert (sent_call == id_) == (named == "own")
    sent = service.requests[-1].content.decode().lower()
    for form in (own, own.replace("-", ""), *([id_.lower()] if spelling is _short else [])):
        assert (form in sent) <= (named == "own")


def test_ids_of_any_form_are_kept_in_their_own_session(service: Service, make_model: Make) -> None:
    model = make_model()
    service.answer("", tool_calls=[tool_call("tc-of-tomorrow")])
    reply = model.invoke("Go")
    service.answer()
    model.invoke([HumanMessage("Go"), reply, ToolMessage("x", tool_call_id="tc-of-tomorrow")])
    assert sent_ids(service) == (["tc-of-tomorrow"], ["tc-of-tomorrow"])


def test_the_config_of_a_call_can_name_the_session(service: Service, make_model: Make) -> None:
    config: Any = {"configurable": {"sequrity_session_id": SESSION}}
    model = make_model()
    service.answer()
    model.invoke("a", config)
    service.answer(stream=True)
    list(model.stream("a", config))
    service.answer()
    model.batch(["a"], config)
    assert [sent_session(service, i) for i in range(3)] == [SESSION] * 3
    service.answer()
    model.invoke("a", config, session_id="new")
    assert sent_session(service) is None


async def test_the_config_of_an_async_call_can_name_the_session(
    service: Service, make_model: Make
) -> None:
    config: Any = {"configurable": {"sequrity_session_id": SESSION}}
    model = make_model()
    service.answer()
    await model.ainvoke("a", config)
    service.answer(stream=True)
    assert [chunk async for chunk in model.astream("a", config)]
    service.answer(stream=True)
    assert [event async for event in model.astream_events("a", config, version="v2")]
    assert [sent_session(service, i) for i in range(3)] == [SESSION] * 3
    service.answer()
    assert isinstance(await RunnableLambda(model.ainvoke).ainvoke("a"), AIMessage)


def test_a_session_header_of_the_caller_has_priority(service: Service, make_model: Make) -> None:
    model = make_model()
    history = converse(model, service)
    service.answer()
    headers = {"x-session-id": OTHER_SESSION, "X-Trace": "t"}
    model.invoke(history, extra_headers=headers)
    assert sent_session(service) == OTHER_SESSION
    assert service.requests[-1].headers["x-trace"] == "t"
    assert headers == {"x-session-id": OTHER_SESSION, "X-Trace": "t"}


@pytest.mark.parametrize("session_id", ["", 7])
def test_an_invalid_session_id_is_refused(make_model: Make, session_id: Any) -> None:
    with pytest.raises(UsageError, match="session_id"):
        make_model().invoke("a", session_id=session_id)


def test_a_batch_starts_a_session_for_each_input(service: Service, make_model: Make) -> None:
    model = make_model()
    for session in (SESSION, OTHER_SESSION):
        service.answer(session=session)
    first = model.batch([[HumanMessage("alice")], [HumanMessage("bob")]], {"max_concurrency": 1})
    for _ in range(2):
        service.answer()
    histories: list[list[BaseMessage]] = [
        [HumanMessage("x"), reply, HumanMessage("y")] for reply in first
    ]
    model.batch(list(histories), {"max_concurrency": 1})
    assert [sent_session(service, i) for i in range(4)] == [None, None, SESSION, OTHER_SESSION]


def test_a_bound_or_copied_model_has_no_session_of_its_own(
    service: Service, make_model: Make
) -> None:
    model = make_model()
    converse(model, service)
    for other in (model.model_copy(), model.bind_tools([])):
        service.answer()
        other.invoke("Another conversation")
        assert sent_session(service) is None


def test_an_expired_session_raises_session_expired(service: Service, make_model: Make) -> None:
    model = make_model()
    history = converse(model, service)
    service.answer(status=404, body={"detail": "Unknown session"})
    with pytest.raises(SessionExpired, match="Unknown session") as caught:
        model.invoke(history)
    assert caught.value.session_id == SESSION
    service.answer(status=404, body={"detail": "Unknown session"})
    with pytest.raises(SessionExpired):
        list(model.stream(history))


GONE: list[Any] = [
    {"detail": "Session expired"},
    {"detail": "Session not found."},
    {"detail": "Invalid session id."},
    {"detail": "The session does not exist or has expired."},
    {"detail": f"Unknown session {SESSION}. Start a new one."},
    {"detail": "Session doesn't exist"},
    {"detail": f"{SESSION} was not found"},
    {"error": {"message": f"Unknown conversation: {SESSION}"}},
    {"detail": "Session does not belong to this API key"},
    {"detail": "The session has ended: 8 of 8 turns were used."},
    {"detail": "Session could not be found"},
    {"detail": [{"loc": ["header", "X-Session-ID"], "msg": "Invalid or expired", "type": "value_error"}]},
    {"message": "This session was deleted."},
    {"error": {"message": "No such session", "type": "invalid_request_error"}},
    {"error": {"message": "Start afresh.", "code": "session_expired"}},
    {"detail": {"type": "session_not_found", "message": "Start afresh."}},
    "session is closed",
    {"detail": "Session has reached max_n_turns"},
    {"detail": "Maximum number of turns reached for session 12"},
    {"detail": "The session exceeded its turn limit."},
    {"detail": "This session has used up its turns"},
    {"error": {"message": "Start afresh.", "code": "max_n_turns_reached_in_session"}},
    {"detail": "Session already completed"},
    {"detail": f"Session {SESSION} is already finished."},
    {"detail": "No active session with this id"},
    {"detail": "The tool_call_id refers to a finished session"},
    {"message": "The session is over"},
    {"message": "This session has been completed."},
    {"detail": "There is no session with this id."},
]  # fmt: skip
GONE_STATUS = 410
THERE: list[Any] = [
    {"detail": "The session is busy with another request. Wait for its reply."},
    {"detail": "Session is locked: a request is in progress."},
    {"detail": "Session already in use. Unknown progress."},
    {"detail": "The session was started on `/x`. Use this path for it."},
    {"detail": "`X-Policy` differs from the header that started the session. Leave it out, or start a "
     "new session."},
    {"detail": "The history differs from the session's own.", "type": "history_mismatch"},
    {"detail": "The session is unknown.", "type": "error", "error": {"code": "history_mismatch"}},
    {"detail": "Unknown session state.", "type": "history_mismatch"},
    {"detail": "The message history is invalid for this session."},
    {"detail": "The program of the session is invalid."},
    {"detail": "The model of the session is not available."},
    {"detail": "Invalid policy for session"},
    {"detail": "Unknown field `foo`. Sessions take none."},
    {"detail": "The key has expired."},
    {"detail": f"{OTHER_SESSION} was not found"},
    {"detail": f"{SESSION} is busy: another request was not found to have ended"},
    {"detail": [{"loc": ["body", "model"], "msg": "Invalid", "type": "value_error"}]},
    {"detail": "In this session, the tool result for `tc-1` answers no open call."},
    {"detail": "The session has used 8 of 10 turns."},
    {"detail": "The session has a limit of 10 turns; 2 are left."},
    {"detail": "The turn of this session has not finished yet."},
    {"detail": "Too many sessions for this account"},
    {"detail": "The maximum number of sessions is reached."},
    {"detail": "The number of calls in this session exceeded its limit."},
    {"detail": "The result of the session is done in another way."},
    {"detail": "The session is still running."},
    {},
    None,
    "<html>403</html>",
]  # fmt: skip
STATUSES = [400, 403, 409, 410, 422]


@pytest.mark.long(sample=43)
@pytest.mark.parametrize("body", GONE, ids=range(len(GONE)))
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_refusal_that_says_the_session_is_gone_raises_session_expired(
    service: Service, make_model: Make, status: int, body: Any, stream: bool
) -> None:
    history = converse(make_model(), service)
    reply = httpx.Response(status, json=body)
    service.replies.append(reply)
    with pytest.raises(SessionExpired):
        list(make_model().stream(history)) if stream else make_model().invoke(history)
    service.replies.append(reply)
    service.answer("Fresh", session=OTHER_SESSION, stream=stream)
    model = make_model(on_session_expired="restart")
    found = added(model.stream(history)) if stream else model.invoke(history)
    assert found.text == "Fresh"
    assert sent_session(service) is None
    [call], [result] = sent_ids(service)
    assert call == result
    assert not call.startswith("tc")


@pytest.mark.parametrize(
    ("status", "body"),
    # With 410 a body without words says that the session is gone.
    [(status, body) for status in STATUSES for body in THERE if body or status != GONE_STATUS],
)
def test_a_refusal_about_an_existing_session_is_raised_without_a_restart(
    service: Service, make_model: Make, status: int, body: Any
) -> None:
    model = make_model(on_session_expired="restart")
    history = converse(model, service)
    service.replies.append(httpx.Response(status, json=body))
    with pytest.raises(StatusError) as caught:
        # The caller names the session: otherwise a mismatch would not be raised (T1).
        model.invoke(history, session_id=SESSION)
    assert caught.value.status == status
    assert len(service.requests) == 2


@pytest.mark.parametrize(
    "body", [None, {}, {"detail": "Gone."}, {"detail": "It no longer exists."}]
)
def test_410_without_another_subject_says_that_the_session_is_gone(
    service: Service, make_model: Make, body: Any
) -> None:
    history = converse(make_model(), service)
    service.replies.append(httpx.Response(GONE_STATUS, json=body))
    with pytest.raises(SessionExpired):
        make_model().invoke(history)


ENDS = [one["detail"] for one in GONE if isinstance(one, dict) and isinstance(one.get("detail"), str)
        and "session" in one["detail"].lower()]  # fmt: skip


@pytest.mark.long(sample=6)
@pytest.mark.parametrize("text", ENDS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_turn_that_only_says_so_is_an_ended_session(
    service: Service, make_model: Make, text: str, *, stream: bool
) -> None:
    error = {"code": "session_error", "message": text}
    body = json.dumps({"status": "failure", "final_return_value": None, "error": error})
    dual = {"features": {"agent_arch": "dual-llm"}}
    ended = json.dumps({"status": "success", "final_return_value": {"value": "One"}})
    service.answer(ended)
    history = [HumanMessage("a"), make_model(**dual).invoke("a"), HumanMessage("b")]
    service.answer(body, stream=stream)
    with pytest.raises(SessionExpired):
        list(make_model(**dual).stream(history)) if stream else make_model(**dual).invoke(history)
    service.answer(body, stream=stream)
    service.answer(ended.replace("One", "Two"), session=OTHER_SESSION, stream=stream)
    model = make_model(**dual, on_session_expired="restart")
    found = added(model.stream(history)) if stream else model.invoke(history)
    assert (found.text, sent_session(service)) == ("Two", None)


@pytest.mark.parametrize(
    "fields",
    [
        {"message": "ValueError: the session of the user has ended before the program began " * 4},
        {"message": "Session expired. Context: {'args': {}}"},
        {"message": "The session has expired, " * 20 + "it is over."},
        {"message": "Session expired", "program": "x = 1"},
        {"message": "Session expired", "policy_check_history": [{"verdict": "soft_allowed"}]},
        {"message": "The program of the session has ended with an error."},
    ],
)
def test_a_failed_program_that_speaks_of_sessions_is_a_failed_program(
    service: Service, make_model: Make, fields: dict[str, Any]
) -> None:
    error = {"code": "x", "message": fields["message"]}
    more = {name: one for name, one in fields.items() if name != "message"}
    service.answer(json.dumps({"status": "failure", "error": error, **more}))
    with pytest.raises(ProgramFailed):
        make_model(features={"agent_arch": "dual-llm"}).invoke("a", session_id=SESSION)


SHORT = "tc0242ac12000200"  # as SESSION and OTHER_SESSION end
Calls = list[tuple[str, str]]


def test_short_ids_of_an_older_session_are_sent_alike_and_apart_from_the_new_ones(
    service: Service, make_model: Make
) -> None:
    first, second = make_model(), make_model(policy='tool "f" { must deny always; }')
    history: list[BaseMessage] = [HumanMessage("Go")]
    sent: list[Calls] = []
    for model, session in ((first, SESSION), (second, OTHER_SESSION)):
        for number in (1, 2):
            service.answer("", session=session, tool_calls=[tool_call(f"{SHORT}0{number}")])
            history.append(model.invoke(history))
            history.append(ToolMessage("done", tool_call_id=f"{SHORT}0{number}"))
            calls, results = sent_ids(service)
            assert calls == results
            assert len(set(calls)) == len(calls)
            sent.append(list(zip(calls, results, strict=True)))
    service.answer(session=OTHER_SESSION)
    second.invoke(history)
    calls, results = sent_ids(service)
    assert calls == results
    old, new = calls[:2], calls[2:]
    assert new == [f"{SHORT}01", f"{SHORT}02"]
    assert [call for call, _ in sent[2]] == [call for call, _ in sent[3]][:2] == old
    assert not any(call.startswith("tc") for call in old)


def test_a_short_id_that_two_messages_without_a_session_have_is_not_sent(
    service: Service, make_model: Make
) -> None:
    def asks(call_id: str) -> list[BaseMessage]:
        call = {"name": "f", "args": {}, "id": call_id, "type": "tool_call"}
        return [AIMessage("", tool_calls=[call]), ToolMessage("x", tool_call_id=call_id)]

    service.answer()
    history = [*asks(f"{SHORT}01"), *asks(f"{SHORT}01"), *asks(f"{SHORT}02")]
    make_model().invoke([HumanMessage("a"), *history, HumanMessage("b")], session_id=SESSION)
    calls, results = sent_ids(service)
    assert calls == results
    assert calls[2] == f"{SHORT}02"
    assert not calls[0].startswith("tc")


@pytest.mark.parametrize("status", [401, 402, 405, 413, 429, 431, 500, 503])
def test_other_statuses_never_mean_an_expired_session(
    service: Service, make_model: Make, status: int
) -> None:
    model = make_model(on_session_expired="restart")
    history = converse(model, service)
    service.answer(status=status, body=GONE[0])
    with pytest.raises(StatusError):
        model.invoke(history)
    assert len(service.requests) == 2


@pytest.mark.parametrize("status", [*STATUSES, 404])
def test_without_a_session_a_refusal_never_means_an_expired_session(
    service: Service, make_model: Make, status: int
) -> None:
    service.answer(status=status, body=GONE[0])
    with pytest.raises(StatusError) as caught:
        make_model(on_session_expired="restart").invoke("Go")
    assert caught.value.status == status
    assert len(service.requests) == 1


async def test_with_restart_a_new_session_replaces_an_expired_one(
    service: Service, make_model: Make
) -> None:
    model = make_model(on_session_expired="restart")
    history = converse(model, service)

    async def stream() -> str:
        return "".join([str(chunk.text) async for chunk in model.astream(history)])

    async def ainvoke() -> str:
        return str((await model.ainvoke(history)).text)

    for streamed in (False, True):
        for call in (
            (lambda: "".join(str(c.text) for c in model.stream(history))) if streamed
            else lambda: str(model.invoke(history).text),
            stream if streamed else ainvoke,
        ):  # fmt: skip
            service.answer(status=404, body={"detail": "Unknown session"})
            service.answer("Fresh", session=OTHER_SESSION, stream=streamed)
            result = call()
            assert (result if isinstance(result, str) else await result) == "Fresh"
            assert (sent_session(service, -2), sent_session(service)) == (SESSION, None)
            calls, results = sent_ids(service)
            assert calls == results != [call_id()]


def test_a_404_without_a_session_is_not_found(service: Service, make_model: Make) -> None:
    service.answer(status=404, body={"detail": "No such model"})
    with pytest.raises(NotFound, match="No such model"):
        make_model(on_session_expired="restart").invoke("a")
