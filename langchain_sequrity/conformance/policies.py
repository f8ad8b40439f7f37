"""Functions of probes about policies: how verdicts are made and reported."""

import json
from collections.abc import Mapping
from typing import Any

from langchain_sequrity.conformance.client import (
    READ,
    SEND,
    SINGLE,
    Client,
    ProbeReply,
    ProgramTurn,
    Unanswered,
    begun,
    json_headers_of,
    sqrt,
)
from langchain_sequrity.conformance.probes import Answer, asks, denial_of, outcome, verdict
from langchain_sequrity.wire import denials

_SEND = "a = probe_send(text='x')\nfinal_return_value = a"
_HARD = 'tool "probe_send" { must deny always; }'
_SOFT = 'tool "probe_send" { should deny always; }'
_MAX_SHAPE_DEPTH = 4


def _denied(client: Client, code: str, program: str = _SEND) -> ProbeReply:
    """The reply to a turn that a policy denies, with its checks."""
    reply = begun(client, program, policy=sqrt(code), show=["policy_check_history"]).reply
    if reply.outcome != "failure" or denial_of(reply) is None:
        raise Unanswered(reply.unexpected("a denial"))
    return reply


@asks("denial-words")
def _denial_words(client: Client) -> Answer:
    reply = _denied(client, _HARD)
    is_known = "denied by argument checking policies" in reply.error_text.lower()
    return Answer("as recorded" if is_known else "other words", reply.error_text)


@asks("denial-names-tool")
def _denial_names_tool(client: Client) -> Answer:
    reply = _denied(client, _HARD)
    denial = denial_of(reply)
    is_named = denial is not None and denial.tool == "probe_send"
    return Answer("it does" if is_named else "it does not", reply.error_text)


@asks("denial-shows-arguments")
def _denial_shows_arguments(client: Client) -> Answer:
    program = "a = probe_send(text='probe-argument')\nfinal_return_value = a"
    text = begun(client, program, policy=sqrt(_HARD)).reply.error_text
    if "probe-argument" not in text:
        return Answer("no values", text)
    is_behind = "Context:" in text.partition("probe-argument")[0]
    return Answer("behind Context" if is_behind else "somewhere else", text)


@asks("denial-reason")
def _denial_reason(client: Client) -> Answer:
    code = 'tool "probe_send" {\n/// nothing leaves the probe\nmust deny always;\n}'
    reply = _denied(client, code)
    text = reply.error_text + json.dumps(reply.envelope.policy_check_history)
    found = "it does" if "nothing leaves the probe" in text else "it does not"
    return Answer(found, reply.error_text)


def _strength(client: Client, code: str) -> Answer:
    reply = _denied(client, code)
    denial = denial_of(reply)
    checks = reply.envelope.policy_check_history
    keys = sorted({key for check in checks if isinstance(check, Mapping) for key in check})
    return Answer(str(denial and denial.strength), f"Keys of the checks: {', '.join(keys)}")


@asks("denial-hard")
def _denial_hard(client: Client) -> Answer:
    return _strength(client, _HARD)


@asks("denial-soft")
def _denial_soft(client: Client) -> Answer:
    return _strength(client, _SOFT)


@asks("history-form")
def _history_form(client: Client) -> Answer:
    checks = _denied(client, _HARD).envelope.policy_check_history
    if not checks:
        return Answer("none")
    shape = json.dumps([_shape(check) for check in checks[:2]])
    for check in checks:
        for key in ("denied", "denial_reasons"):
            reasons = check.get(key) if isinstance(check, Mapping) else None
            if reasons and "enforcement_level" in json.dumps(reasons):
                return Answer(key, shape)
    return Answer("another form", shape)


def _shape(value: Any, depth: int = 0) -> Any:
    """Keys and types of data, without its values."""
    if isinstance(value, Mapping) and depth < _MAX_SHAPE_DEPTH:
        return {str(key): _shape(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list) and depth < _MAX_SHAPE_DEPTH:
        return [_shape(one, depth + 1) for one in value[:1]]
    return type(value).__name__


@asks("history-of-allowed-call")
def _history_of_allowed_call(client: Client) -> Answer:
    policy = sqrt('tool "probe_send" { must allow always; }')
    turn = begun(client, _SEND, policy=policy, show=["policy_check_history"])
    reply = turn.answer("done")
    if reply.outcome != "success":
        raise Unanswered(reply.unexpected("a successful turn"))
    count = len(reply.envelope.policy_check_history)
    return Answer("1 entry" if count == 1 else f"{count} entries")


@asks("labels-of-session")
def _labels_of_session(client: Client) -> Answer:
    code = (
        'tool "probe_send" { session before { @tags |= {"probe-tried"}; } must deny always; }\n'
        'tool "probe_read" { must deny when "probe-tried" in @session.tags; }'
    )
    turn = begun(client, _SEND, policy=sqrt(code))
    if turn.reply.outcome != "failure":
        raise Unanswered(turn.reply.unexpected("a denial"))
    found = verdict(turn.next_turn("final_return_value = probe_read(n=1)"))
    kept = {"denied": "it does", "allowed": "it does not"}
    return Answer(kept.get(found.found, found.found), found.detail)


@asks("branch-words")
def _branch_words(client: Client) -> Answer:
    meta = {"producers": [], "consumers": ["*"], "tags": ["tag-probe"]}
    presets = {"branching_meta_policy": {"mode": "deny", "tags": ["tag-probe"]}}
    program = "b = 0\nif given == 'x':\n    b = 1\nfinal_return_value = b"
    policy = sqrt("", mode="custom", presets=presets)
    variables = {"given": {"value": "x", "meta": meta}}
    reply = ProgramTurn(client, program, policy=policy, variables=variables).ask()
    if reply.outcome != "failure":
        raise Unanswered(reply.unexpected("a denial"))
    text = reply.error_text.lower()
    if "control flow violation" in text:
        return Answer("Control flow violation", reply.error_text)
    is_similar = "control flow" in text and "violat" in text
    return Answer("control flow was violated" if is_similar else "other words", reply.error_text)


@asks("single-llm-denial")
def _single_llm_denial(client: Client) -> Answer:
    reply = client.chat(
        "Call the tool `probe_send` with the text `probe`. Do not answer in words.",
        features=SINGLE,
        policy=sqrt(_HARD),
        tools=[SEND],
        max_tokens=200,
    )
    if reply.is_refused:
        return outcome(reply)
    if reply.calls:
        return Answer("the call is made all the same")
    refusal, text = reply.message.get("refusal"), reply.message.get("content")
    if refusal:
        return Answer("a refusal" if denials.read_text(refusal) else "unreadable", str(refusal))
    if not text:
        return Answer("an empty turn")
    if reply.outcome == "failure":
        return Answer("a failed envelope", reply.error_text)
    if denials.read_text(str(text), whole=True):
        return Answer("a text", str(text))
    msg = f"The model did not call the tool, or its denial looks like an answer. It said: {text}"
    raise Unanswered(msg)


@asks("single-llm-session-label")
def _single_llm_session_label(client: Client) -> Answer:
    code = (
        'tool "probe_read" { session after { @tags |= {"probe-read"}; } }\n'
        'tool "probe_send" { must deny when "probe-read" in @session.tags; }'
    )
    policy = sqrt(code)
    words = "Call the tool `probe_read` with the number 1. Do not answer in words."
    first = client.chat(words, features=SINGLE, policy=policy, tools=[READ], max_tokens=200)
    if first.is_refused or not first.calls:
        raise Unanswered(first.unexpected("a call of `probe_read`"))
    more = "Now call the tool `probe_send` with the text `probe`. Do not answer in words."
    messages = [
        {"role": "user", "content": words},
        first.message,
        {"role": "tool", "tool_call_id": first.call["id"], "content": "hello"},
        {"role": "user", "content": more},
    ]
    body = {"model": client.target.model, "messages": messages, "tools": [SEND], "max_tokens": 200}
    headers = {**json_headers_of(SINGLE, policy), "X-Session-ID": first.session}
    reply = client.ask(client.path("chat"), body, headers=headers)
    if reply.is_refused:
        return outcome(reply)
    if reply.calls:
        return Answer("the call is made all the same")
    text = str(reply.message.get("refusal") or reply.message.get("content") or "")
    if not text:
        return Answer("an empty turn")
    if denials.read_text(text, whole=not reply.message.get("refusal")):
        return Answer("denied", text)
    msg = f"The model did not call the second tool. It said: {text}"
    raise Unanswered(msg)
