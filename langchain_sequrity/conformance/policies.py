"""Probes of policies: how verdicts come about, and how they are told."""

import json
from collections.abc import Mapping
from typing import Any

from langchain_sequrity.conformance.client import (
    READ,
    SEND,
    SINGLE,
    Answer,
    Client,
    NoAnswer,
    Run,
    Seen,
    json_headers_of,
    probe,
    sqrt,
)
from langchain_sequrity.denials import Denial
from langchain_sequrity.wire import denials

_VOTES = "behaviour.md, V1 How votes make a verdict"
_DOUBT = "behaviour.md, V2 Doubt"
_TOLD = "protocol.md, Dual-LLM content"
_SEND = "a = probe_send(text='x')\nfinal_return_value = a"
_DEEPEST = 4  # levels of a shape
_HISTORY = ("policy_check_history",)
_PRESETS = "protocol.md, X-Policy"


def _verdict(client: Client, code: str, program: str = _SEND, **more: Any) -> Answer:
    """Whether a policy allows the call of a program."""
    presets = more.pop("presets", None)
    policy = sqrt(code, **({} if presets is None else {"presets": presets}))
    return _judged(Run(client, program, policy=policy, **more).ask(any_status=True))


def _judged(seen: Seen) -> Answer:
    if seen.outcome == "asks for a tool":
        return Answer("allowed")
    if seen.outcome == "failure":
        denial = _denial(seen)
        return Answer("denied" if denial else "failed otherwise", seen.said)
    return Answer(seen.outcome, seen.said)


def _denial(seen: Seen) -> Denial | None:
    """The denial that the client reads from a failed turn."""
    one = seen.envelope
    return denials.of_failure(one.error_code, one.error_message, one.policy_check_history)


def _denied(client: Client, code: str, **options: Any) -> Seen:
    """A turn that a policy has denied."""
    seen = Run(client, _SEND, policy=sqrt(code), **options).begin()
    if seen.outcome != "failure" or _denial(seen) is None:
        raise NoAnswer(seen.unexpected("a denial"))
    return seen


def _rules(*rules: str) -> str:
    return f'tool "probe_send" {{ {" ".join(rules)} }}'


@probe(
    "denial-told",
    "Is a denied call a failed turn of status 200 that the client reads as a denial?",
    "It is.",
    _TOLD, "protocol.md, Errors", "behaviour.md, P11 A denial is always seen",
    expected=("denied",),
)  # fmt: skip
def _denial_told(client: Client) -> Answer:
    return _verdict(client, _rules("must deny always;"))


@probe(
    "denial-words",
    "Which words tell of a denial?",
    "Those of the recordings: the call is `denied by argument checking policies`.",
    _TOLD, "local-server.md, Choices of dual-LLM",
    expected=("as recorded",), copes=("other words",),
)  # fmt: skip
def _denial_words(client: Client) -> Answer:
    seen = _denied(client, _rules("must deny always;"))
    is_known = "denied by argument checking policies" in seen.said.lower()
    return Answer("as recorded" if is_known else "other words", seen.said)


@probe(
    "denial-names-tool",
    "Does the message of a denial name the tool?",
    "It does, or the check history does; the client takes the name from either.",
    _TOLD,
    expected=("it does",), copes=("it does not",),
)  # fmt: skip
def _names_tool(client: Client) -> Answer:
    seen = _denied(client, _rules("must deny always;"), show=_HISTORY)
    denial = _denial(seen)
    return Answer("it does" if denial and denial.tool == "probe_send" else "it does not", seen.said)


@probe(
    "denial-shows-arguments",
    "Does the message of a denial show values of arguments?",
    "It may, behind `Context:`; the client cuts that off. The local server shows none.",
    _TOLD, "protocol.md, Dual-LLM content",
    expected=("no values",), copes=("behind Context",), of="local server",
)  # fmt: skip
def _shows_arguments(client: Client) -> Answer:
    program = "a = probe_send(text='probe-argument')\nfinal_return_value = a"
    policy = sqrt(_rules("must deny always;"))
    seen = Run(client, program, policy=policy).begin()
    if "probe-argument" not in seen.said:
        return Answer("no values", seen.said)
    is_behind = "Context:" in seen.said.partition("probe-argument")[0]
    return Answer("behind Context" if is_behind else "somewhere else", seen.said)


@probe(
    "denial-reason",
    "Does a denial have the doc comment of its rule?",
    "It does, in its message or in the check history.",
    "policies.md", _TOLD,
    expected=("it does",), copes=("it does not",),
)  # fmt: skip
def _reason(client: Client) -> Answer:
    code = 'tool "probe_send" {\n/// nothing leaves the probe\nmust deny always;\n}'
    seen = _denied(client, code, show=_HISTORY)
    text = seen.said + json.dumps(seen.envelope.policy_check_history)
    return Answer("it does" if "nothing leaves the probe" in text else "it does not", seen.said)


def _strength(client: Client, rule: str) -> Answer:
    seen = _denied(client, _rules(rule), show=_HISTORY)
    denial = _denial(seen)
    history = seen.envelope.policy_check_history
    keys = sorted({key for entry in history if isinstance(entry, Mapping) for key in entry})
    return Answer(str(denial and denial.strength), f"Keys of the checks: {', '.join(keys)}")


@probe(
    "denial-hard",
    "How does the client read the strength of a `must deny`?",
    "As hard.",
    "behaviour.md, G7 Denial and approval",
    expected=("hard",), copes=("None",),
)  # fmt: skip
def _hard(client: Client) -> Answer:
    return _strength(client, "must deny always;")


@probe(
    "denial-soft",
    "How does the client read the strength of a `should deny`?",
    "As soft, from the check history or the message. What stays unknown is hard.",
    "behaviour.md, G7 Denial and approval",
    expected=("soft",), copes=("None",),
)  # fmt: skip
def _soft(client: Client) -> Answer:
    return _strength(client, "should deny always;")


@probe(
    "history-form",
    "What form has an entry of `policy_check_history` for a denied call?",
    "A list `denied` or `denial_reasons`, whose entries have an `enforcement_level`.",
    _TOLD, "protocol.md, Open questions", "local-server.md, Choices of dual-LLM",
    expected=("denied", "denial_reasons"), copes=("another form", "none"),
)  # fmt: skip
def _history_form(client: Client) -> Answer:
    seen = _denied(client, _rules("must deny always;"), show=_HISTORY)
    history = seen.envelope.policy_check_history
    if not history:
        return Answer("none")
    shape = json.dumps([_shape(entry) for entry in history[:2]])
    for entry in history:
        for key in ("denied", "denial_reasons"):
            reasons = entry.get(key) if isinstance(entry, Mapping) else None
            if reasons and "enforcement_level" in json.dumps(reasons):
                return Answer(key, shape)
    return Answer("another form", shape)


def _shape(value: Any, depth: int = 0) -> Any:
    """Keys and types of data, without what it says."""
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return {str(key): _shape(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list) and depth < _DEEPEST:
        return [_shape(one, depth + 1) for one in value[:1]]
    return type(value).__name__


@probe(
    "history-of-allowed-call",
    "Does the check history have an entry for a call that was allowed?",
    "It has one for each call; traces of graphs show it.",
    "behaviour.md, G10 What is told of a run",
    expected=("1 entry",), copes=("0 entries",), requests=2,
)  # fmt: skip
def _allowed_call(client: Client) -> Answer:
    policy = sqrt(_rules("must allow always;"))
    run = Run(client, _SEND, policy=policy, show=_HISTORY)
    run.begin()
    seen = run.answer("done")
    if seen.outcome != "success":
        raise NoAnswer(seen.unexpected("a turn that succeeds"))
    count = len(seen.envelope.policy_check_history)
    return Answer("1 entry" if count == 1 else f"{count} entries")


@probe(
    "denial-stops-program",
    "Can a program catch a denial?",
    "It cannot.",
    "behaviour.md, M6 What a program cannot catch",
    expected=("denied",),
)  # fmt: skip
def _stops(client: Client) -> Answer:
    program = (
        "try:\n    a = probe_send(text='x')\nexcept Exception:\n    a = 'caught'\n"
        "final_return_value = a"
    )
    return _verdict(client, _rules("must deny always;"), program)


@probe(
    "default-allow",
    "Is a call allowed that no rule is about?",
    "It is, by default.",
    _VOTES, _PRESETS,
    expected=("allowed",),
)  # fmt: skip
def _default_allow(client: Client) -> Answer:
    return _verdict(client, 'tool "probe_read" { must deny always; }')


@probe(
    "default-deny",
    "And with `default_allow: false`?",
    "It is denied.",
    _VOTES, _PRESETS,
    expected=("denied",),
)  # fmt: skip
def _default_deny(client: Client) -> Answer:
    code = 'tool "probe_read" { must allow always; }'
    return _verdict(client, code, presets={"default_allow": False})


@probe(
    "vote-hard-deny-first",
    "Which wins, `must deny` or `must allow`?",
    "`must deny`.",
    _VOTES,
    expected=("denied",),
)  # fmt: skip
def _hard_deny_first(client: Client) -> Answer:
    return _verdict(client, _rules("must allow always;", "must deny always;"))


@probe(
    "vote-unmet-allow",
    "What does a `must allow` whose condition fails?",
    "It denies, where no other rule allows.",
    _VOTES,
    expected=("denied",),
)  # fmt: skip
def _unmet_allow(client: Client) -> Answer:
    return _verdict(client, _rules('must allow when text.value == "y";'))


@probe(
    "vote-hard-over-soft",
    "Which wins, `must allow` or `should deny`?",
    "`must allow`.",
    _VOTES,
    expected=("allowed",),
)  # fmt: skip
def _hard_over_soft(client: Client) -> Answer:
    return _verdict(client, _rules("should deny always;", "must allow always;"))


@probe(
    "vote-tie",
    "Which of two soft rules wins that are alike?",
    "The one that denies.",
    _VOTES,
    expected=("denied",),
)  # fmt: skip
def _tie(client: Client) -> Answer:
    return _verdict(client, _rules("should allow always;", "should deny always;"))


@probe(
    "doubt-number-kinds",
    "Is the argument 20 in the range `float 0..100`?",
    "It is not known, so a `must deny` for it denies.",
    _DOUBT,
    expected=("denied",), copes=("allowed",),
)  # fmt: skip
def _number_kinds(client: Client) -> Answer:
    code = 'tool "probe_read" { must deny when n.value in {float 0..100}; }'
    return _verdict(client, code, "a = probe_read(n=20)\nfinal_return_value = a")


@probe(
    "labels-of-session",
    "Does a denied call still update the session before?",
    "It does: updates of kind `before` stay.",
    "behaviour.md, M5 Order within one call",
    expected=("it does",), requests=2,
)  # fmt: skip
def _of_session(client: Client) -> Answer:
    code = (
        'tool "probe_send" { session before { @tags |= {"probe-tried"}; } must deny always; }\n'
        'tool "probe_read" { must deny when "probe-tried" in @session.tags; }'
    )
    run = Run(client, _SEND, policy=sqrt(code))
    session = run.begin().session
    if run.seen.outcome != "failure":
        raise NoAnswer(run.seen.unexpected("a denial"))
    run.messages.append({"role": "user", "content": "Something else."})
    run.body["user_provided_program"] = "final_return_value = probe_read(n=1)"
    seen = run.ask(session=session, any_status=True)
    told = _judged(seen)
    return Answer(
        {"denied": "it does", "allowed": "it does not"}.get(told.found, told.found), seen.said
    )


_DENY_TAG = {"branching_meta_policy": {"mode": "deny", "tags": ["tag-probe"]}}
_BRANCH = "b = 0\nif given == 'x':\n    b = 1\nfinal_return_value = b"


def _branch(client: Client) -> Seen:
    meta = {"producers": [], "consumers": ["*"], "tags": ["tag-probe"]}
    policy = sqrt("", mode="custom", presets=_DENY_TAG)
    run = Run(client, _BRANCH, policy=policy, variables={"given": {"value": "x", "meta": meta}})
    return run.ask(any_status=True)


@probe(
    "branch-forbidden",
    "Does `branching_meta_policy` forbid a decision on labelled data, in mode `custom`?",
    "It does, and the turn is denied.",
    "behaviour.md, M3 Branches",
    expected=("denied",),
)  # fmt: skip
def _forbidden(client: Client) -> Answer:
    return _judged(_branch(client))


@probe(
    "branch-words",
    "Which words tell of a forbidden branch?",
    "`Control flow violation`, or that control flow was violated.",
    _TOLD, "behaviour.md, M3 Branches",
    expected=("Control flow violation", "control flow was violated"), copes=("other words",),
)  # fmt: skip
def _branch_words(client: Client) -> Answer:
    seen = _branch(client)
    if seen.outcome != "failure":
        raise NoAnswer(seen.unexpected("a denial"))
    said = seen.said.lower()
    if "control flow violation" in said:
        return Answer("Control flow violation", seen.said)
    is_like = "control flow" in said and "violat" in said
    return Answer("control flow was violated" if is_like else "other words", seen.said)


@probe(
    "branch-of-allowed-names",
    "In mode `allow`, does a name that starts with `__` have to be listed?",
    "It does not.",
    "behaviour.md, M3 Branches",
    expected=("success",), copes=("denied",), of="local server", requests=2,
)  # fmt: skip
def _of_allowed_names(client: Client) -> Answer:
    program = "a = probe_read(n=1)\nb = 0\nif a == 1:\n    b = 1\nfinal_return_value = b"
    presets = {"branching_meta_policy": {"mode": "allow", "tags": ["tag-probe"]}}
    run = Run(client, program, policy=sqrt("", mode="custom", presets=presets))
    run.begin()
    return _judged(run.answer("1", any_status=True))


@probe(
    "llm-blocked-tag",
    "Is `parse_with_ai` denied on data with the tag `__llm_blocked`?",
    "It is.",
    _PRESETS,
    expected=("denied",), models=1,
)  # fmt: skip
def _llm_blocked(client: Client) -> Answer:
    schema = {
        "type": "object",
        "properties": {"have_enough_info": {"type": "boolean"}},
        "required": ["have_enough_info"],
    }
    program = f"final_return_value = parse_with_ai(query=given, output_schema={schema})"
    meta = {"producers": [], "consumers": ["*"], "tags": ["__llm_blocked"]}
    run = Run(client, program, variables={"given": {"value": "x", "meta": meta}})
    return _judged(run.ask(any_status=True))


@probe(
    "policy-does-not-parse",
    "What is the answer to a policy that is not SQRT?",
    "The status is 400. The client refuses such a policy before it is sent.",
    _PRESETS, "local-server.md",
    expected=("status 400",), copes=("status 422", "failure"), of="local server",
)  # fmt: skip
def _does_not_parse(client: Client) -> Answer:
    run = Run(client, "final_return_value = 1", policy=sqrt('tool "probe_send" { must'))
    seen = run.ask(any_status=True)
    return Answer(seen.outcome, seen.said)


@probe(
    "single-llm-denial",
    "How does a denied call of a single-LLM session show?",
    "As a refusal, or a text, that begins as denials of dual-LLM do; or as an empty turn.",
    "behaviour.md, P11 A denial is always seen", "protocol.md, Single-LLM and dual-LLM",
    expected=("a refusal", "a text", "an empty turn", "a failed envelope"), models=1,
)  # fmt: skip
def _single_llm(client: Client) -> Answer:
    seen = client.chat(
        "Call the tool `probe_send` with the text `probe`. Do not answer in words.",
        features=SINGLE, policy=sqrt(_rules("must deny always;")),
        tools=[SEND], max_tokens=200,
    )  # fmt: skip
    if seen.is_refused:
        return Answer(seen.outcome, seen.said)
    if seen.calls:
        return Answer("the call is made all the same")
    message = seen.message
    refusal, text = message.get("refusal"), message.get("content")
    if refusal:
        return Answer("a refusal" if denials.worded(refusal) else "unreadable", str(refusal))
    if not text:
        return Answer("an empty turn")
    if seen.outcome == "failure":
        return Answer("a failed envelope", seen.said)
    if denials.worded(str(text), whole=True):
        return Answer("a text", str(text))
    msg = f"The model did not call the tool, or its denial looks like an answer. It said: {text}"
    raise NoAnswer(msg)


@probe(
    "single-llm-session-label",
    "Does a result with labels reach `session after` in single-LLM mode?",
    "It does, so that a later call can be denied.",
    "protocol.md, Tool results with metadata",
    expected=("denied", "an empty turn"), requests=2, models=2,
)  # fmt: skip
def _session_label(client: Client) -> Answer:
    code = (
        'tool "probe_read" { session after { @tags |= {"probe-read"}; } }\n'
        'tool "probe_send" { must deny when "probe-read" in @session.tags; }'
    )
    policy = sqrt(code)
    words = "Call the tool `probe_read` with the number 1. Do not answer in words."
    first = client.chat(words, features=SINGLE, policy=policy, tools=[READ], max_tokens=200)
    if first.is_refused or not first.calls:
        raise NoAnswer(first.unexpected("a call of `probe_read`"))
    more = "Now call the tool `probe_send` with the text `probe`. Do not answer in words."
    messages = [
        {"role": "user", "content": words},
        first.message,
        {"role": "tool", "tool_call_id": first.call["id"], "content": "hello"},
        {"role": "user", "content": more},
    ]
    body = {"model": client.target.model, "messages": messages, "tools": [SEND]}
    headers = {**json_headers_of(SINGLE, policy), "X-Session-ID": first.session}
    seen = client.ask(client.path("chat"), {**body, "max_tokens": 200}, headers=headers)
    if seen.is_refused:
        return Answer(seen.outcome, seen.said)
    if seen.calls:
        return Answer("the call is made all the same")
    said = str(seen.message.get("refusal") or seen.message.get("content") or "")
    if not said:
        return Answer("an empty turn")
    if denials.worded(said, whole=not seen.message.get("refusal")):
        return Answer("denied", said)
    msg = f"The model did not call the second tool. It said: {said}"
    raise NoAnswer(msg)
