"""Probes of sessions: how they are named, resumed and ended, and what a history may be."""

import json
import re
from copy import deepcopy
from typing import Any

from langchain_sequrity.conformance.client import (
    DUAL,
    READ,
    TOOLS,
    Answer,
    Client,
    NoAnswer,
    Run,
    Seen,
    probe,
    sqrt,
    unknown_session,
)

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_FORMS = {
    "tc-, session, call": rf"tc-({_UUID})-{_UUID}",
    "tc and 64 hex digits": r"tc([0-9a-f]{32})[0-9a-f]{32}",
    "tc and 16 hex digits": r"tc([0-9a-f]{12})[0-9a-f]{4}",
}
_ENDED = ("status 400", "status 403", "status 409", "status 410", "status 422")
"""Statuses that the client takes for an ended session if their text says so."""
_P1 = "behaviour.md, P1 Sessions"
_T1 = "behaviour.md, T1 What a request may bring"
_ONE_CALL = "value = probe_read(n=1)\nfinal_return_value = value"
_TWO_CALLS = "a = probe_read(n=1)\nb = probe_read(n=2)\nfinal_return_value = [a, b]"


def _begun(client: Client, program: str = _ONE_CALL, **options: Any) -> Run:
    run = Run(client, program, **options)
    run.begin()
    return run


def _told(seen: Seen) -> Answer:
    """The outcome of a reply, with what it says where it is an error."""
    return Answer(seen.outcome, seen.said)


@probe(
    "session-named",
    "Does a reply name its session in `X-Session-ID`, as a UUID?",
    "Every chat reply names its session; the id is a UUID of 36 characters.",
    "protocol.md, Sessions", _P1,
    expected=("a UUID",), copes=("another id",),
)  # fmt: skip
def _named(client: Client) -> Answer:
    seen = Run(client, "final_return_value = 1").begin()
    if not seen.headers.get("x-session-id"):
        return Answer("none")
    return Answer("a UUID" if re.fullmatch(_UUID, seen.session) else "another id")


@probe(
    "session-is-reply-id",
    "Is the `id` of a dual-LLM reply the id of its session?",
    "It is. The client takes it for a mark of a dual-LLM session.",
    "protocol.md, Sessions", "behaviour.md, P2 Which replies are dual-LLM",
    expected=("the session's",),
)  # fmt: skip
def _is_reply_id(client: Client) -> str:
    seen = Run(client, "final_return_value = 1").begin()
    return "the session's" if seen.body.get("id") == seen.session else "another"


@probe(
    "session-unknown",
    "What is the answer to a request that names a session that never was?",
    "The status is 404.",
    _P1, "protocol.md, Open questions", "local-server.md, Choices",
    expected=("status 404",), copes=_ENDED,
)  # fmt: skip
def _unknown(client: Client) -> Answer:
    run = Run(client, "final_return_value = 1")
    return _told(run.ask(session=unknown_session(), any_status=True))


@probe(
    "session-garbled",
    "What is the answer to an `X-Session-ID` that is not an id at all?",
    "The status is 404, as for every session that is not there.",
    _P1, "local-server.md, Choices",
    expected=("status 404",), copes=_ENDED, of="local server",
)  # fmt: skip
def _garbled(client: Client) -> Answer:
    return _told(Run(client, "final_return_value = 1").ask(session="probe", any_status=True))


@probe(
    "session-after-last-turn",
    "What is the answer in a session whose `max_n_turns` are over?",
    "The session is deleted, and the status is 404.",
    _P1, "protocol.md, Sessions",
    expected=("status 404",), copes=_ENDED, requests=2,
)  # fmt: skip
def _after_last_turn(client: Client) -> Answer:
    run = Run(client, "final_return_value = 1", fsm={"max_n_turns": 1})
    session = run.begin().session
    run.messages.append({"role": "user", "content": "Once more."})
    return _told(run.ask(session=session, any_status=True))


@probe(
    "session-second-turn",
    "Does a second turn run in the session of the first?",
    "It does, with the program that it brings.",
    "protocol.md, LangGraph endpoint",
    expected=("success",), requests=2,
)  # fmt: skip
def _second_turn(client: Client) -> Answer:
    run = Run(client, "final_return_value = 1")
    session = run.begin().session
    run.messages.append({"role": "user", "content": "Once more."})
    run.body["user_provided_program"] = "final_return_value = 'second'"
    seen = run.ask(session=session)
    if seen.outcome == "success" and seen.value != "second":
        return Answer("another program", f"The value is {seen.value!r}.")
    if seen.outcome == "success" and seen.session != session:
        return Answer("another session")
    return _told(seen)


@probe(
    "session-of-another-key",
    "May another Sequrity key go on with a session?",
    "It may not: the status is 404, as for a session that never was.",
    _P1, "security.md", expected=("status 404",), copes=("status 401", "status 403", *_ENDED),
    requests=2,
)  # fmt: skip
def _of_another_key(client: Client) -> Answer:
    if client.target.second_key is None:
        msg = "It takes a second key, in `SEQURITY_SECOND_API_KEY`."
        raise NoAnswer(msg)
    run = _begun(client)
    run.messages.append(run.result())
    session = run.seen.session
    return _told(run.ask(session=session, key=client.target.second_key, any_status=True))


@probe(
    "session-other-policy",
    "What does another `X-Policy` in a later request of a session do?",
    "It is refused with status 409. The client starts a new session by itself.",
    _T1, "protocol.md, Configuration",
    expected=("status 409",), of="local server", requests=2,
)  # fmt: skip
def _other_policy(client: Client) -> Answer:
    run = _begun(client, policy=sqrt('tool "probe_send" { must deny always; }'))
    run.messages.append(run.result())
    policy = json.dumps(sqrt('tool "probe_send" { must allow always; }'))
    session = run.seen.session
    return _told(run.ask(session=session, headers={"X-Policy": policy}, any_status=True))


@probe(
    "session-headers-absent",
    "Does a session go on with a request that has none of the three JSON headers?",
    "It does, with the headers of its first request.",
    _T1, "protocol.md, Configuration",
    expected=("denied",), requests=2,
)  # fmt: skip
def _headers_absent(client: Client) -> Answer:
    program = "a = probe_read(n=1)\nb = probe_send(text='x')\nfinal_return_value = b"
    run = _begun(client, program, policy=sqrt('tool "probe_send" { must deny always; }'))
    bare = {"X-Features": None, "X-Policy": None, "X-Config": None}
    seen = run.answer(headers=bare, any_status=True)
    return Answer("denied", seen.said) if seen.outcome == "failure" else _told(seen)


@probe(
    "session-other-path",
    "May a session of `lang-graph` go on at `chat`?",
    "It may not: the status is 409. The client starts a new session there.",
    _P1, "local-server.md, Choices",
    expected=("status 409",), of="local server", requests=2, models=1,
)  # fmt: skip
def _other_path(client: Client) -> Answer:
    run = _begun(client)
    run.messages.append(run.result())
    session, path = run.seen.session, client.path("chat")
    del run.body["user_provided_program"]
    return _told(run.ask(session=session, path=path, any_status=True))


@probe(
    "call-id-form",
    "What form does the id of a tool call have?",
    "`tc-`, session id, `-` and a UUID; or one of the two shorter forms that were seen.",
    "protocol.md, Sessions", _P1,
    expected=tuple(_FORMS),
)  # fmt: skip
def _call_id_form(client: Client) -> Answer:
    call_id = str(_begun(client).seen.call.get("id"))
    form = next((name for name, one in _FORMS.items() if re.fullmatch(one, call_id)), None)
    shape = re.sub(r"[0-9]", "9", re.sub(r"[a-zA-Z]", "a", call_id))
    return Answer(form or "another form", f"{len(call_id)} characters, such as `{shape}`.")


@probe(
    "call-id-names-session",
    "Does the id of a tool call hold the id of its session?",
    "It does, whole or in part. The client finds out by it which ids may go out.",
    "protocol.md, Sessions", _P1,
    expected=("it does",),
)  # fmt: skip
def _call_id_names_session(client: Client) -> str:
    seen = _begun(client).seen
    session = seen.session.replace("-", "")
    found = (re.fullmatch(one, str(seen.call.get("id"))) for one in _FORMS.values())
    named = next((one[1].replace("-", "") for one in found if one), "")
    return "it does" if named and session.endswith(named) else "it does not"


@probe(
    "call-id-resumes",
    "Does a tool result resume the session by its id, without `X-Session-ID`?",
    "It does where the id holds the whole session id. The client sends the header all the same.",
    "protocol.md, Sessions",
    expected=("success", "the id is short"), copes=("status 400", "status 404", "asks for a tool"),
    requests=2,
)  # fmt: skip
def _call_id_resumes(client: Client) -> Answer:
    run = _begun(client)
    if run.seen.session.replace("-", "") not in str(run.seen.call["id"]).replace("-", ""):
        return Answer("the id is short")
    return _told(run.answer(session=None, any_status=True))


@probe(
    "call-id-without-dashes",
    "Is a tool result accepted whose id has lost its dashes on the way?",
    "No: ids are opaque and go back as they came, which the client makes sure of.",
    "protocol.md, Sessions", _P1,
    expected=("status 400", "status 404", "status 409", "the id has none"), of="local server",
    requests=2,
)  # fmt: skip
def _call_id_without_dashes(client: Client) -> Answer:
    run = _begun(client)
    call, session = run.seen.call, run.seen.session
    if "-" not in call["id"]:
        return Answer("the id has none")
    result = run.result()
    bare = call["id"].replace("-", "")
    run.messages[-1] = {**run.messages[-1], "tool_calls": [{**call, "id": bare}]}
    run.messages.append({**result, "tool_call_id": bare})
    return _told(run.ask(session=session, any_status=True))


@probe(
    "call-id-of-another-session",
    "What if the header names one session and the id of a tool result another?",
    "The status is 404. The client never sends such a request.",
    _P1, "protocol.md, Sessions",
    expected=("status 404",), copes=_ENDED, of="local server", requests=3,
)  # fmt: skip
def _call_id_of_another(client: Client) -> Answer:
    other = _begun(client)
    run = _begun(client)
    session = run.seen.session
    run.messages[-1:] = [other.messages[-1], other.result()]
    return _told(run.ask(session=session, any_status=True))


@probe(
    "result-alone",
    "May a request bring the new result and the session's id alone, without the history?",
    'It may. `LangGraphExecutor(history="new")` does so on this machine.',
    "behaviour.md, G9 What a run sends", "protocol.md, LangGraph endpoint",
    expected=("success",), copes=("status 400", "status 409", "status 422"), requests=2,
)  # fmt: skip
def _result_alone(client: Client) -> Answer:
    run = _begun(client)
    session, result = run.seen.session, run.result()
    return _told(run.ask(session=session, messages=[result], any_status=True))


@probe(
    "result-alone-without-program",
    "May that request also leave out program and tools?",
    "It may: the session has them.",
    "behaviour.md, G9 What a run sends",
    expected=("success",), copes=("status 400", "status 409", "status 422"), requests=2,
)  # fmt: skip
def _result_alone_without_program(client: Client) -> Answer:
    run = _begun(client)
    session, result = run.seen.session, run.result()
    del run.body["user_provided_program"], run.body["tools"]
    return _told(run.ask(session=session, messages=[result], any_status=True))


@probe(
    "result-for-no-call",
    "What is the answer to a result for a call that nobody made?",
    "It is refused.",
    "local-server.md, Choices", "behaviour.md, P5 Histories",
    expected=("status 400", "status 404", "status 409", "status 422"), requests=2,
)  # fmt: skip
def _result_for_no_call(client: Client) -> Answer:
    run = _begun(client)
    session = run.seen.session
    call_id = f"tc-{session}-{unknown_session()}"
    made_up = {"role": "tool", "tool_call_id": call_id, "content": "1"}
    run.messages.append(made_up)
    return _told(run.ask(session=session, any_status=True))


@probe(
    "result-repeated",
    "What does a request do that brings a result for the second time?",
    "It has the stored reply and no further effect.",
    "behaviour.md, T2 Replay", "protocol.md, Open questions",
    expected=("the same call",), copes=("status 400", "status 404", "status 409", "status 422"),
    requests=3,
)  # fmt: skip
def _result_repeated(client: Client) -> Answer:
    run = _begun(client, _TWO_CALLS)
    session = run.seen.session
    run.messages.append(run.result())
    first = run.ask(session=session).call
    seen = run.ask(session=session, any_status=True)
    if seen.outcome != "asks for a tool":
        return _told(seen)
    if seen.call["id"] == first["id"]:
        return Answer("the same call")
    is_second = seen.call["function"] == first["function"]
    return Answer("a call made anew" if is_second else "another call")


@probe(
    "result-repeated-with-key",
    "Does the same `Idempotency-Key` bring the same reply?",
    "It does. The client sends it again where a lost reply may have been processed.",
    "behaviour.md, Retries", "protocol.md, Open questions",
    expected=("the same reply",), copes=("another reply",), requests=2,
)  # fmt: skip
def _repeated_with_key(client: Client) -> Answer:
    run = Run(client, _ONE_CALL)
    key = {"Idempotency-Key": unknown_session()}
    first = run.ask(headers=key).call["id"]
    seen = run.ask(headers=key, any_status=True)
    if seen.outcome != "asks for a tool":
        return _told(seen)
    return Answer("the same reply" if seen.call["id"] == first else "another reply")


@probe(
    "idempotency-key-of-another-request",
    "What if another request comes under the same `Idempotency-Key`?",
    "The status is 422. The client never does that.",
    "behaviour.md, Retries", "local-server.md, Choices",
    expected=("status 422",), of="local server", requests=2,
)  # fmt: skip
def _key_of_another_request(client: Client) -> Answer:
    key = {"Idempotency-Key": unknown_session()}
    Run(client, "final_return_value = 1").begin(headers=key)
    return _told(Run(client, "final_return_value = 2").ask(headers=key, any_status=True))


@probe(
    "history-arguments-respelt",
    "Is a history accepted whose `arguments` have other blanks than the service wrote?",
    "The service may compare them as text, so the client sends them as they came.",
    _T1, "protocol.md, Sessions",
    expected=("success", "status 409"), copes=("status 400", "status 404", "asks for a tool"),
    requests=2,
)  # fmt: skip
def _arguments_respelt(client: Client) -> Answer:
    run = _begun(client)
    said = deepcopy(run.messages[-1])
    function = said["tool_calls"][0]["function"]
    compact = json.dumps(json.loads(function["arguments"]), separators=(",", ":"))
    is_compact = compact == function["arguments"]
    function["arguments"] = compact.replace(":", " : ") if is_compact else compact
    result = run.result()
    run.messages[-1:] = [said, result]
    return _told(run.ask(session=run.seen.session, any_status=True))


def _edited(client: Client, policy: str | None) -> Seen:
    """A history whose first words are others than those that the session has."""
    fsm = {} if policy is None else {"history_mismatch_policy": policy}
    run = _begun(client, fsm=fsm)
    session, result = run.seen.session, run.result("41")
    run.messages[0] = {"role": "user", "content": "Run that program."}
    run.messages.append(result)
    return run.ask(session=session, any_status=True)


@probe(
    "history-differs",
    "What is the answer to a history that is not the session's?",
    "It is refused with status 409 by default.",
    _T1, "protocol.md, Sessions",
    expected=("status 409",), copes=("status 400", "status 404", "status 422"), requests=2,
)  # fmt: skip
def _differs(client: Client) -> Answer:
    return _told(_edited(client, None))


@probe(
    "history-differs-restart",
    "And with `history_mismatch_policy: restart_turn`?",
    "The turn begins anew, and a call that has its result is not asked for a second time.",
    _T1, "protocol.md, X-Config",
    expected=("success",), copes=("asks for a tool", "status 409"), of="local server", requests=2,
)  # fmt: skip
def _differs_restart(client: Client) -> Answer:
    return _told(_edited(client, "restart_turn"))


@probe(
    "history-differs-continue",
    "And with `history_mismatch_policy: continue`?",
    "The client's history is taken, and the open call has its result.",
    _T1, "protocol.md, X-Config",
    expected=("success, told",), copes=("success", "status 409"), of="local server", requests=2,
)  # fmt: skip
def _differs_continue(client: Client) -> Answer:
    seen = _edited(client, "continue")
    if seen.outcome != "success":
        return _told(seen)
    return Answer("success, told" if seen.envelope.message_history_mismatch_detected else "success")


@probe(
    "history-system-message",
    "May the system message differ from request to request?",
    "It may: agents word it anew at each call.",
    "behaviour.md, P5 Histories",
    expected=("success",), copes=("status 409",), requests=2,
)  # fmt: skip
def _system_message(client: Client) -> Answer:
    run = Run(client, _ONE_CALL)
    run.messages.insert(0, {"role": "system", "content": "It is noon."})
    run.begin()
    run.messages[0] = {"role": "system", "content": "It is one o'clock."}
    return _told(run.answer(any_status=True))


@probe(
    "message-cancels-call",
    "What does a new message of the user do while a call is open?",
    "In dual-LLM the open call is cancelled, and the message begins a turn.",
    _T1,
    expected=("success",), copes=("status 400", "status 409"), requests=2,
)  # fmt: skip
def _message_cancels(client: Client) -> Answer:
    run = _begun(client)
    session = run.seen.session
    run.messages.append({"role": "user", "content": "Never mind."})
    run.body["user_provided_program"] = "final_return_value = 2"
    return _told(run.ask(session=session, any_status=True))


@probe(
    "result-with-message",
    "May a result and a new message of the user come in one request?",
    "They may: the result is fed in, and the message begins the next turn.",
    _T1, "protocol.md, Sessions",
    expected=("success",), copes=("status 400", "status 409"), requests=2,
)  # fmt: skip
def _result_with_message(client: Client) -> Answer:
    run = _begun(client)
    session = run.seen.session
    run.messages += [run.result(), {"role": "user", "content": "Once more."}]
    run.body["user_provided_program"] = "final_return_value = 2"
    return _told(run.ask(session=session, any_status=True))


@probe(
    "session-goes-on-after-denial",
    "Does a session go on after a turn that was denied?",
    "It does, and only the header names it.",
    "protocol.md, Sessions", "security.md",
    expected=("success",), requests=2,
)  # fmt: skip
def _after_denial(client: Client) -> Answer:
    program = "final_return_value = probe_send(text='x')"
    run = Run(client, program, policy=sqrt('tool "probe_send" { must deny always; }'))
    session = run.begin().session
    if run.seen.outcome != "failure":
        raise NoAnswer(run.seen.unexpected("a denial"))
    run.messages.append({"role": "user", "content": "Something else."})
    run.body["user_provided_program"] = "final_return_value = 2"
    return _told(run.ask(session=session, any_status=True))


@probe(
    "filtering-runs",
    "Are tools filtered where the client supplies the program?",
    "It is not known. `LangGraphExecutor` pins `min_num_tools_for_filtering` beyond any graph.",
    "protocol.md, X-Config",
    expected=("all tools are there",), copes=("a tool is missing", "the request is refused"),
    requests=2, models=1,
)  # fmt: skip
def _filtering(client: Client) -> Answer:
    tools = [
        *TOOLS,
        *({**READ, "function": {**READ["function"], "name": f"probe_{n}"}} for n in "abcdef"),
    ]
    program = "a = probe_f(n=1)\nfinal_return_value = a"
    run = Run(client, program, tools, fsm={"min_num_tools_for_filtering": 2})
    seen = run.ask(any_status=True)
    if seen.is_refused:
        return Answer("the request is refused", seen.said)
    if seen.outcome == "asks for a tool":
        return Answer("all tools are there")
    return Answer("a tool is missing", seen.said)


@probe(
    "filtering-off",
    "Does `min_num_tools_for_filtering` take a number beyond any graph?",
    "It does, and all tools are there.",
    "behaviour.md, G9 What a run sends",
    expected=("asks for a tool",),
)  # fmt: skip
def _filtering_off(client: Client) -> Answer:
    tools = [
        *TOOLS,
        *({**READ, "function": {**READ["function"], "name": f"probe_{n}"}} for n in "abcdefghijkl"),
    ]
    program = "a = probe_l(n=1)\nfinal_return_value = a"
    fsm = {"min_num_tools_for_filtering": 1_000_000}
    return _told(Run(client, program, tools, fsm=fsm).ask(any_status=True))


@probe(
    "headers-optional",
    "Is `X-Features` enough, without `X-Policy` and `X-Config`?",
    "It is: each of the three headers is optional.",
    "protocol.md, Headers and authentication",
    expected=("success",),
)  # fmt: skip
def _optional(client: Client) -> Answer:
    run = Run(client, "final_return_value = 1")
    run.headers = {"X-Features": json.dumps(DUAL)}
    return _told(run.ask(any_status=True))
