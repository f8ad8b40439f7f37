"""Functions of probes about sessions: their names, how they continue and end, their histories."""

import json
import re
from copy import deepcopy

from langchain_sequrity.conformance.client import (
    DUAL,
    READ,
    TOOLS,
    Client,
    ProbeReply,
    ProgramTurn,
    Unanswered,
    begun,
    sqrt,
    unknown_session,
)
from langchain_sequrity.conformance.probes import Answer, asks, outcome

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_ID_FORMS = {
    "tc-, session, call": rf"tc-({_UUID})-{_UUID}",
    "tc and 64 hex digits": r"tc([0-9a-f]{32})[0-9a-f]{32}",
    "tc and 16 hex digits": r"tc([0-9a-f]{12})[0-9a-f]{4}",
}
_ONE = "final_return_value = 1"
_TWO = "final_return_value = 2"
_ONE_CALL = "value = probe_read(n=1)\nfinal_return_value = value"
_DENY = 'tool "probe_send" { must deny always; }'


@asks("session-named")
def _named(client: Client) -> Answer:
    reply = begun(client, _ONE).reply
    if not reply.headers.get("x-session-id"):
        return Answer("none")
    return Answer("a UUID" if re.fullmatch(_UUID, reply.session) else "another id")


@asks("session-is-reply-id")
def _is_reply_id(client: Client) -> Answer:
    reply = begun(client, _ONE).reply
    return Answer("the session's" if reply.body.get("id") == reply.session else "another")


@asks("session-after-last-turn")
def _after_last_turn(client: Client) -> Answer:
    return outcome(begun(client, _ONE, fsm={"max_n_turns": 1}).next_turn(_ONE))


@asks("session-second-turn")
def _second_turn(client: Client) -> Answer:
    turn = begun(client, _ONE)
    session = turn.reply.session
    reply = turn.next_turn("final_return_value = 'second'", any_status=False)
    if reply.outcome == "success" and reply.value != "second":
        return Answer("another program", f"The value is {reply.value!r}.")
    if reply.outcome == "success" and reply.session != session:
        return Answer("another session")
    return outcome(reply)


@asks("session-of-another-key")
def _of_another_key(client: Client) -> Answer:
    if client.target.second_key is None:
        msg = "This probe needs a second key, in `SEQURITY_SECOND_API_KEY`."
        raise Unanswered(msg)
    turn = begun(client, _ONE_CALL)
    return outcome(turn.ask_again(turn.result(), key=client.target.second_key))


@asks("session-other-policy")
def _other_policy(client: Client) -> Answer:
    turn = begun(client, _ONE_CALL, policy=sqrt(_DENY))
    policy = json.dumps(sqrt('tool "probe_send" { must allow always; }'))
    return outcome(turn.ask_again(turn.result(), headers={"X-Policy": policy}))


@asks("session-headers-absent")
def _headers_absent(client: Client) -> Answer:
    program = "a = probe_read(n=1)\nb = probe_send(text='x')\nfinal_return_value = b"
    turn = begun(client, program, policy=sqrt(_DENY))
    bare = {"X-Features": None, "X-Policy": None, "X-Config": None}
    reply = turn.answer(headers=bare, any_status=True)
    return Answer("denied", reply.error_text) if reply.outcome == "failure" else outcome(reply)


@asks("session-other-path")
def _other_path(client: Client) -> Answer:
    turn = begun(client, _ONE_CALL)
    del turn.body["user_provided_program"]
    return outcome(turn.ask_again(turn.result(), path=client.path("chat")))


@asks("call-id-form")
def _call_id_form(client: Client) -> Answer:
    call_id = str(begun(client, _ONE_CALL).reply.call.get("id"))
    form = next((name for name, one in _ID_FORMS.items() if re.fullmatch(one, call_id)), None)
    shape = re.sub(r"[0-9]", "9", re.sub(r"[a-zA-Z]", "a", call_id))
    return Answer(form or "another form", f"{len(call_id)} characters, such as `{shape}`.")


@asks("call-id-names-session")
def _call_id_names_session(client: Client) -> Answer:
    reply = begun(client, _ONE_CALL).reply
    session = reply.session.replace("-", "")
    found = (re.fullmatch(one, str(reply.call.get("id"))) for one in _ID_FORMS.values())
    named = next((one[1].replace("-", "") for one in found if one), "")
    return Answer("it does" if named and session.endswith(named) else "it does not")


@asks("call-id-resumes")
def _call_id_resumes(client: Client) -> Answer:
    turn = begun(client, _ONE_CALL)
    if turn.reply.session.replace("-", "") not in str(turn.reply.call["id"]).replace("-", ""):
        return Answer("the id is short")
    return outcome(turn.answer(session=None, any_status=True))


@asks("call-id-without-dashes")
def _call_id_without_dashes(client: Client) -> Answer:
    turn = begun(client, _ONE_CALL)
    call, result = turn.reply.call, turn.result()
    if "-" not in call["id"]:
        return Answer("the id has none")
    bare = call["id"].replace("-", "")
    turn.messages[-1] = {**turn.messages[-1], "tool_calls": [{**call, "id": bare}]}
    return outcome(turn.ask_again({**result, "tool_call_id": bare}))


@asks("call-id-of-another-session")
def _call_id_of_another_session(client: Client) -> Answer:
    other, turn = begun(client, _ONE_CALL), begun(client, _ONE_CALL)
    turn.messages[-1] = other.messages[-1]
    return outcome(turn.ask_again(other.result()))


@asks("result-alone")
def _result_alone(client: Client) -> Answer:
    turn = begun(client, _ONE_CALL)
    return outcome(turn.ask_again(messages=[turn.result()]))


@asks("result-alone-without-program")
def _result_alone_without_program(client: Client) -> Answer:
    turn = begun(client, _ONE_CALL)
    del turn.body["user_provided_program"], turn.body["tools"]
    return outcome(turn.ask_again(messages=[turn.result()]))


@asks("result-for-no-call")
def _result_for_no_call(client: Client) -> Answer:
    turn = begun(client, _ONE_CALL)
    call_id = f"tc-{turn.reply.session}-{unknown_session()}"
    return outcome(turn.ask_again({"role": "tool", "tool_call_id": call_id, "content": "1"}))


@asks("result-repeated")
def _result_repeated(client: Client) -> Answer:
    program = "a = probe_read(n=1)\nb = probe_read(n=2)\nfinal_return_value = [a, b]"
    turn = begun(client, program)
    session = turn.reply.session
    turn.messages.append(turn.result())
    first = turn.ask(session=session, any_status=False).call
    reply = turn.ask(session=session)
    if reply.outcome != "asks for a tool":
        return outcome(reply)
    if reply.call["id"] == first["id"]:
        return Answer("the same call")
    is_copy = reply.call["function"] == first["function"]
    return Answer("a call made anew" if is_copy else "another call")


@asks("result-repeated-with-key")
def _result_repeated_with_key(client: Client) -> Answer:
    turn = ProgramTurn(client, _ONE_CALL)
    key = {"Idempotency-Key": unknown_session()}
    first = turn.ask(headers=key, any_status=False).call["id"]
    reply = turn.ask(headers=key)
    if reply.outcome != "asks for a tool":
        return outcome(reply)
    return Answer("the same reply" if reply.call["id"] == first else "another reply")


@asks("idempotency-key-of-another-request")
def _key_of_another_request(client: Client) -> Answer:
    key = {"Idempotency-Key": unknown_session()}
    ProgramTurn(client, _ONE).begin(headers=key)
    return outcome(ProgramTurn(client, _TWO).ask(headers=key))


@asks("history-arguments-respelt")
def _arguments_respelt(client: Client) -> Answer:
    turn = begun(client, _ONE_CALL)
    message = deepcopy(turn.messages[-1])
    function = message["tool_calls"][0]["function"]
    compact = json.dumps(json.loads(function["arguments"]), separators=(",", ":"))
    is_compact = compact == function["arguments"]
    function["arguments"] = compact.replace(":", " : ") if is_compact else compact
    turn.messages[-1] = message
    return outcome(turn.ask_again(turn.result()))


def _edited(client: Client, policy: str | None) -> ProbeReply:
    """Send a history with another first message than the session has."""
    fsm = None if policy is None else {"history_mismatch_policy": policy}
    turn = begun(client, _ONE_CALL, fsm=fsm)
    turn.messages[0] = {"role": "user", "content": "Run that program."}
    return turn.ask_again(turn.result("41"))


@asks("history-differs")
def _differs(client: Client) -> Answer:
    return outcome(_edited(client, None))


@asks("history-differs-restart")
def _differs_restart(client: Client) -> Answer:
    return outcome(_edited(client, "restart_turn"))


@asks("history-differs-continue")
def _differs_continue(client: Client) -> Answer:
    reply = _edited(client, "continue")
    if reply.outcome != "success":
        return outcome(reply)
    is_reported = reply.envelope.message_history_mismatch_detected
    return Answer("success, told" if is_reported else "success")


@asks("history-system-message")
def _system_message(client: Client) -> Answer:
    turn = ProgramTurn(client, _ONE_CALL)
    turn.messages.insert(0, {"role": "system", "content": "It is noon."})
    turn.begin()
    turn.messages[0] = {"role": "system", "content": "It is one o'clock."}
    return outcome(turn.answer(any_status=True))


@asks("message-cancels-call")
def _message_cancels_call(client: Client) -> Answer:
    return outcome(begun(client, _ONE_CALL).next_turn(_TWO))


@asks("result-with-message")
def _result_with_message(client: Client) -> Answer:
    turn = begun(client, _ONE_CALL)
    return outcome(turn.next_turn(_TWO, turn.result()))


@asks("session-goes-on-after-denial")
def _goes_on_after_denial(client: Client) -> Answer:
    turn = begun(client, "final_return_value = probe_send(text='x')", policy=sqrt(_DENY))
    if turn.reply.outcome != "failure":
        raise Unanswered(turn.reply.unexpected("a denial"))
    return outcome(turn.next_turn(_TWO))


def _with_many_tools(client: Client, threshold: int) -> ProbeReply:
    """A call of the last of 14 tools, if tools are filtered above a threshold."""
    names = [f"probe_{letter}" for letter in "abcdefghijkl"]
    tools = [*TOOLS, *({**READ, "function": {**READ["function"], "name": one}} for one in names)]
    program = f"a = {names[-1]}(n=1)\nfinal_return_value = a"
    return ProgramTurn(client, program, tools, fsm={"min_num_tools_for_filtering": threshold}).ask()


@asks("filtering-runs")
def _filtering_runs(client: Client) -> Answer:
    reply = _with_many_tools(client, 2)
    if reply.is_refused:
        return Answer("the request is refused", reply.error_text)
    if reply.outcome == "asks for a tool":
        return Answer("all tools are there")
    return Answer("a tool is missing", reply.error_text)


@asks("filtering-off")
def _filtering_off(client: Client) -> Answer:
    return outcome(_with_many_tools(client, 1_000_000))


@asks("headers-optional")
def _headers_optional(client: Client) -> Answer:
    turn = ProgramTurn(client, _ONE)
    turn.headers = {"X-Features": json.dumps(DUAL)}
    return outcome(turn.ask())
