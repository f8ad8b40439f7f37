"""Readers of probes: a reply ⇒ an answer. The table names them in `turn.read`."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_sequrity.conformance.client import ProbeReply, Unanswered
from langchain_sequrity.denials import Denial
from langchain_sequrity.labels import Labels
from langchain_sequrity.wire import denials
from langchain_sequrity.wire.dual_llm import denial_in, has_two_models, read_envelope

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_ID_FORMS = {
    "tc-, session, call": rf"tc-({_UUID})-{_UUID}",
    "tc and 64 hex digits": r"tc([0-9a-f]{32})[0-9a-f]{32}",
    "tc and 16 hex digits": r"tc([0-9a-f]{12})[0-9a-f]{4}",
}
_MAX_SHAPE_DEPTH = 4


@dataclass(frozen=True)
class Answer:
    """What a service answered.

    Attributes:
        found: The answer in a few words that the probe defines.
        detail: What the service sent, for people.
    """

    found: str
    detail: str = ""


def outcome(reply: ProbeReply) -> Answer:
    """How the turn ended, with the text of an error."""
    if reply.outcome == "failure":
        return Answer("failure", f"{reply.envelope.error_code}: {reply.error_text}")
    return Answer(reply.outcome, reply.error_text)


def status(reply: ProbeReply) -> Answer:
    """The HTTP status, with the text of an error."""
    return Answer(f"status {reply.status}", reply.error_text)


def acceptance(reply: ProbeReply) -> Answer:
    """Whether the request was refused, with whatever status."""
    detail = f"{reply.status} {reply.error_text}"
    return Answer("refused" if reply.is_refused else reply.outcome, detail)


def verdict(reply: ProbeReply) -> Answer:
    """Whether the policy allowed the call."""
    if reply.outcome == "asks for a tool":
        return Answer("allowed")
    if reply.outcome == "failure":
        return Answer("denied" if _denial_of(reply) else "failed otherwise", reply.error_text)
    return Answer(reply.outcome, reply.error_text)


# Programs


def value(reply: ProbeReply) -> Answer:
    """The final value of the program, as JSON."""
    return Answer(_as_json(reply.value)) if reply.outcome == "success" else outcome(reply)


def models(reply: ProbeReply) -> Answer:
    """How many models the reply names."""
    return Answer("two names" if has_two_models(reply.body.get("model")) else "one name")


def finish_reason(reply: ProbeReply) -> Answer:
    """The finish reason of a failed turn."""
    if reply.outcome != "failure":
        raise Unanswered(reply.unexpected("a failed turn"))
    return Answer(str(reply.choice.get("finish_reason")), f"Code `{reply.envelope.error_code}`.")


def call_count(reply: ProbeReply) -> Answer:
    """How many tools the reply asks for."""
    return Answer(str(len(reply.calls)))


def program(reply: ProbeReply) -> Answer:
    """Whether the envelope has the program with its comment."""
    text = reply.envelope.program
    if text is None:
        return Answer("none")
    return Answer("as it was sent" if text.startswith("# probe\n") else "otherwise")


def snapshot(reply: ProbeReply) -> Answer:
    """The form of the variable `a` in the namespace snapshot."""
    variables = reply.envelope.namespace_snapshot
    if variables is None:
        return Answer("none")
    variable = variables.get("a")
    is_known = isinstance(variable, dict) and {"value", "meta"} <= variable.keys()
    keys = sorted(variable) if isinstance(variable, dict) else [type(variable).__name__]
    return Answer("name to value and meta" if is_known else "another form", ", ".join(keys))


# Labels


def labels(reply: ProbeReply) -> Answer:
    """The labels of the final value that the probe itself has set."""
    value_labels = _labels_of(reply)
    return Answer(_probe_names(value_labels), _as_json(value_labels.to_wire()))


def labels_or_failure(reply: ProbeReply) -> Answer:
    """As `labels`, but a failed turn is an answer too."""
    return outcome(reply) if reply.outcome == "failure" else labels(reply)


def labels_and_consumers(reply: ProbeReply) -> Answer:
    """As `labels`, with all who may receive the final value."""
    value_labels = _labels_of(reply)
    consumers = ", ".join(sorted(value_labels.consumers)) or "nobody"
    return Answer(f"{_probe_names(value_labels)}; consumers {consumers}")


def own_labels(reply: ProbeReply) -> Answer:
    """Which labels the service itself sets."""
    value_labels = _labels_of(reply)
    names = [*value_labels.producers, *value_labels.tags]
    answer = "others"
    if all(name.startswith("__") for name in names):
        answer = "names with __ alone" if names else "none"
    return Answer(answer, _as_json(value_labels.to_wire()))


def _labels_of(reply: ProbeReply) -> Labels:
    if reply.outcome != "success" or reply.envelope.labels is None:
        raise Unanswered(reply.unexpected("a value with labels"))
    return reply.envelope.labels


def _probe_names(labels: Labels) -> str:
    """Producers and tags that the probe has set; a service may add its own."""
    names = [*labels.producers, *labels.tags]
    ours = sorted(name for name in names if name.startswith(("probe-", "tag-")))
    return ", ".join(ours) or "none"


def _as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


# Sessions


def session(reply: ProbeReply) -> Answer:
    """The form of the session's id."""
    if not reply.headers.get("x-session-id"):
        return Answer("none")
    return Answer("a UUID" if re.fullmatch(_UUID, reply.session) else "another id")


def reply_id(reply: ProbeReply) -> Answer:
    """Whether the reply's id is that of its session."""
    return Answer("the session's" if reply.body.get("id") == reply.session else "another")


def call_id_form(reply: ProbeReply) -> Answer:
    """The form of the id of the call that the reply asks for."""
    call_id = str(reply.call.get("id"))
    forms = (name for name, pattern in _ID_FORMS.items() if re.fullmatch(pattern, call_id))
    shape = re.sub(r"[0-9]", "9", re.sub(r"[a-zA-Z]", "a", call_id))
    return Answer(next(forms, "another form"), f"{len(call_id)} characters, such as `{shape}`.")


def call_id_session(reply: ProbeReply) -> Answer:
    """Whether the id of the call has the session's id, or its end, in it."""
    matches = (re.fullmatch(pattern, str(reply.call.get("id"))) for pattern in _ID_FORMS.values())
    named = next((match[1].replace("-", "") for match in matches if match), "")
    is_named = named and reply.session.replace("-", "").endswith(named)
    return Answer("it does" if is_named else "it does not")


def mismatch(reply: ProbeReply) -> Answer:
    """As `outcome`, with whether the envelope tells that the history differs."""
    if reply.outcome != "success":
        return outcome(reply)
    is_told = reply.envelope.message_history_mismatch_detected
    return Answer("success, told" if is_told else "success")


# Policies


def denial_words(reply: ProbeReply) -> Answer:
    """Whether the words of a denial are those of recorded replies."""
    _denied(reply)
    is_known = "denied by argument checking policies" in reply.error_text.lower()
    return Answer("as recorded" if is_known else "other words", reply.error_text)


def denied_tool(reply: ProbeReply) -> Answer:
    """Whether a denial names the tool."""
    is_named = _denied(reply).tool == "probe_send"
    return Answer("it does" if is_named else "it does not", reply.error_text)


def denied_arguments(reply: ProbeReply) -> Answer:
    """Whether the message of a denial shows the argument `probe-argument`."""
    before, argument, _ = reply.error_text.partition("probe-argument")
    if not argument:
        return Answer("no values", before)
    return Answer("behind Context" if "Context:" in before else "somewhere else", reply.error_text)


def denial_reason(reply: ProbeReply) -> Answer:
    """Whether a denial has the doc comment of its rule."""
    _denied(reply)
    text = reply.error_text + json.dumps(reply.envelope.policy_check_history)
    has_reason = "nothing leaves the probe" in text
    return Answer("it does" if has_reason else "it does not", reply.error_text)


def strength(reply: ProbeReply) -> Answer:
    """The strength of a denial that the client reads."""
    checks = reply.envelope.policy_check_history
    keys = sorted({key for check in checks if isinstance(check, Mapping) for key in check})
    return Answer(str(_denied(reply).strength), f"Keys of the checks: {', '.join(keys)}")


def approval(reply: ProbeReply) -> Answer:
    """Whether a denial has all that a human must see to approve its call."""
    denial = _denied(reply)
    if denial.strength is None:
        return Answer("no strength", reply.error_text)
    has_labels = denials.with_labelled_call(denial, reply.envelope.error_message) is not None
    return Answer("all of it" if has_labels else "no labels", reply.error_text)


def check_form(reply: ProbeReply) -> Answer:
    """Where a check has the strength of a denied call."""
    _denied(reply)
    checks = reply.envelope.policy_check_history
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
        return {str(key): _shape(child, depth + 1) for key, child in value.items()}
    if isinstance(value, list) and depth < _MAX_SHAPE_DEPTH:
        return [_shape(child, depth + 1) for child in value[:1]]
    return type(value).__name__


def check_count(reply: ProbeReply) -> Answer:
    """How many checks a turn reports that succeeds."""
    if reply.outcome != "success":
        raise Unanswered(reply.unexpected("a successful turn"))
    return Answer(str(len(reply.envelope.policy_check_history)))


def branch_words(reply: ProbeReply) -> Answer:
    """Which words report a branch that the policy forbids."""
    if reply.outcome != "failure":
        raise Unanswered(reply.unexpected("a denial"))
    text = reply.error_text.lower()
    if "control flow violation" in text:
        return Answer("Control flow violation", reply.error_text)
    is_similar = "control flow" in text and "violat" in text
    return Answer("control flow was violated" if is_similar else "other words", reply.error_text)


def _denied(reply: ProbeReply) -> Denial:
    """The denial of a turn; `Unanswered` if the policy did not deny it."""
    denial = _denial_of(reply) if reply.outcome == "failure" else None
    if denial is None:
        raise Unanswered(reply.unexpected("a denial"))
    return denial


def _denial_of(reply: ProbeReply) -> Denial | None:
    """The denial that the client reads from a failed turn."""
    return denial_in(reply.envelope)


# Streams


def streamed_envelope(reply: ProbeReply) -> Answer:
    """How an envelope is streamed."""
    if reply.events is None:
        return Answer("plain JSON") if reply.outcome == "success" else outcome(reply)
    pieces = [delta["content"] for delta in _deltas(reply) if delta.get("content")]
    is_whole = read_envelope("".join(map(str, pieces))) is not None
    detail = f"{len(pieces)} pieces in {len(reply.events)} events"
    return Answer("pieces that are an envelope" if is_whole else "something else", detail)


def streamed_call(reply: ProbeReply) -> Answer:
    """How a call of `probe_send(text="x")` is streamed."""
    if reply.events is None:
        return Answer("plain JSON") if reply.outcome == "asks for a tool" else outcome(reply)
    calls = [call for delta in _deltas(reply) for call in delta.get("tool_calls") or []]
    functions = [call.get("function") or {} for call in calls]
    arguments = "".join(str(function.get("arguments") or "") for function in functions)
    names = [function["name"] for function in functions if function.get("name")]
    try:
        is_whole = names == ["probe_send"] and json.loads(arguments) == {"text": "x"}
    except ValueError:
        is_whole = False
    has_id = bool(calls) and bool(calls[0].get("id"))
    return Answer(
        "one call in deltas" if is_whole and has_id else "something else", f"{len(calls)} deltas"
    )


def stream_end(reply: ProbeReply) -> Answer:
    """How a stream ends."""
    if reply.events is None:
        return Answer("plain JSON")
    _choices(reply)
    return Answer("[DONE]" if _is_marked(reply) else "otherwise")


def stream_usage(reply: ProbeReply) -> Answer:
    """Whether a stream reports usage."""
    if reply.is_refused:
        return outcome(reply)
    if reply.events is None:
        return Answer("plain JSON")
    count = sum(1 for chunk in _chunks(reply) if isinstance(chunk.get("usage"), Mapping))
    return Answer("usage" if count else "no usage", f"{count} chunks with usage")


def _chunks(reply: ProbeReply) -> list[dict[str, Any]]:
    """The chunks of a chat/completions stream."""
    chunks = []
    for data in reply.events or ():
        if data.strip() == "[DONE]":
            continue
        try:
            chunk = json.loads(data)
        except ValueError:
            chunk = None
        if not isinstance(chunk, dict):
            msg = "An event of the stream is not a JSON object."
            raise Unanswered(msg)
        chunks.append(chunk)
    return chunks


def _deltas(reply: ProbeReply) -> list[dict[str, Any]]:
    return [choice.get("delta") or {} for choice in _choices(reply)]


def _choices(reply: ProbeReply) -> list[dict[str, Any]]:
    """The choices of a stream; `Unanswered` if it was cut off."""
    listed = [choice for chunk in _chunks(reply) for choice in chunk.get("choices") or []]
    choices = [choice for choice in listed if isinstance(choice, dict)]
    if not (_is_marked(reply) or any(choice.get("finish_reason") for choice in choices)):
        msg = "The stream was cut off."
        raise Unanswered(msg)
    return choices


def _is_marked(reply: ProbeReply) -> bool:
    """Whether the last event says that the stream ends."""
    return any(event.strip() == "[DONE]" for event in (reply.events or ())[-1:])


OF_REFUSALS = frozenset({outcome, status, acceptance, verdict, mismatch, stream_usage, value})
"""These also read a reply that refuses the request; for the others it is no answer."""
