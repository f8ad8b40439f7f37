"""Functions of probes about programs: the interpreter, values and labels."""

import json

from langchain_sequrity.conformance.client import Client, ProgramTurn, Unanswered, begun
from langchain_sequrity.conformance.probes import (
    Answer,
    as_json,
    ask_turn,
    asks,
    labels_of,
    outcome,
    probe_names,
)

_SCHEMA = {
    "type": "object",
    "properties": {"word": {"type": "string"}, "have_enough_info": {"type": "boolean"}},
    "required": ["word"],
}


@asks("program-names-models")
def _names_models(client: Client) -> Answer:
    reply = begun(client, "final_return_value = 1").reply
    return Answer("two names" if "," in str(reply.body.get("model")) else "one name")


@asks("program-failed-finish")
def _failed_finish(client: Client) -> Answer:
    reply = begun(client, "final_return_value = 1 / 0").reply
    if reply.envelope.status != "failure":
        raise Unanswered(reply.unexpected("a failed turn"))
    return Answer(str(reply.choice.get("finish_reason")), f"Code `{reply.envelope.error_code}`.")


@asks("program-imports")
def _imports(client: Client) -> Answer:
    accepted = [
        name
        for name in ("json", "math", "os", "re")
        if ask_turn(client, program=f"import {name}\nfinal_return_value = 1").found == "success"
    ]
    return Answer(", ".join(accepted) or "none")


@asks("program-long")
def _long(client: Client) -> Answer:
    return ask_turn(client, program=f"x = '{'probe' * 18_000}'\nfinal_return_value = 1")


@asks("program-one-call-at-a-time")
def _one_call(client: Client) -> Answer:
    program = "a = probe_read(n=1)\nb = probe_read(n=2)\nfinal_return_value = [a, b]"
    return Answer(str(len(begun(client, program).reply.calls)))


@asks("program-argument-spelling")
def _argument_spelling(client: Client) -> Answer:
    call = begun(client, "probe_send(text='a\u00e9')").reply.call
    arguments = call["function"].get("arguments")
    is_same = arguments == json.dumps({"text": "a\u00e9"})
    return Answer("as json.dumps writes" if is_same else "otherwise", str(arguments))


@asks("program-shown")
def _shown(client: Client) -> Answer:
    program = "# probe\nfinal_return_value = 1"
    found = begun(client, program, show=["program"]).reply.envelope.program
    if found is None:
        return Answer("none")
    return Answer("as it was sent" if found.strip() == program else "otherwise")


@asks("labels-replaced")
def _replaced(client: Client) -> Answer:
    given = {"producers": ["probe-given"], "consumers": ["*"], "tags": ["tag-probe-given"]}
    result = {
        "value": "hello",
        "is_sequrity_var": True,
        "meta": {"producers": ["probe-mail"], "consumers": ["*"], "tags": ["tag-probe-mail"]},
        "combine_meta": "replace",
    }
    turn = begun(
        client,
        "a = probe_send(text=given)\nfinal_return_value = a",
        variables={"given": {"value": "x", "meta": given}},
    )
    reply = turn.answer(json.dumps(result), any_status=True)
    try:
        labels = labels_of(reply)
    except Unanswered:
        return Answer("refused", reply.error_text)
    return Answer(probe_names(labels), as_json(labels.to_wire()))


@asks("labels-of-plain-result")
def _of_plain_result(client: Client) -> Answer:
    turn = begun(client, "a = probe_send(text='x')\nfinal_return_value = a")
    labels = labels_of(turn.answer("hello"))
    names = [*labels.producers, *labels.tags]
    found = "others"
    if all(name.startswith("__") for name in names):
        found = "names with __ alone" if names else "none"
    return Answer(found, as_json(labels.to_wire()))


@asks("variables-with-labels")
def _variables_with_labels(client: Client) -> Answer:
    meta = {
        "producers": ["probe-given"],
        "consumers": ["probe-reader"],
        "tags": ["tag-probe-given"],
    }
    variables = {"given": {"value": 1, "meta": meta}}
    labels = labels_of(begun(client, "final_return_value = given", variables=variables).reply)
    return Answer(f"{probe_names(labels)}; consumers {', '.join(sorted(labels.consumers))}")


@asks("variables-without-labels")
def _variables_without_labels(client: Client) -> Answer:
    variables = {"given": {"value": 1}}
    labels = labels_of(begun(client, "final_return_value = given", variables=variables).reply)
    readers = {frozenset({"*"}): "everyone", frozenset(): "nobody"}
    return Answer(readers.get(labels.consumers, "others"), as_json(labels.to_wire()))


@asks("snapshot-form")
def _snapshot_form(client: Client) -> Answer:
    turn = begun(client, "a = 1\nfinal_return_value = a", show=["namespace_snapshot"])
    found = turn.reply.envelope.namespace_snapshot
    if found is None:
        return Answer("none")
    one = found.get("a")
    is_known = isinstance(one, dict) and {"value", "meta"} <= one.keys()
    keys = sorted(one) if isinstance(one, dict) else [type(one).__name__]
    return Answer("name to value and meta" if is_known else "another form", ", ".join(keys))


@asks("parse-answers")
def _parse_answers(client: Client) -> Answer:
    call = f"parse_with_ai(query='The sky is blue. Which colour is it?', output_schema={_SCHEMA})"
    return _boolean(client, f"a = {call}\nfinal_return_value = a['have_enough_info']")


@asks("verify-answers")
def _verify_answers(client: Client) -> Answer:
    call = "verify_hypothesis(hypothesis='The text (text) names a colour.', text='blue')"
    return _boolean(client, f"final_return_value = {call}")


def _boolean(client: Client, program: str) -> Answer:
    reply = ProgramTurn(client, program).ask(any_status=False)
    if reply.outcome != "success":
        return outcome(reply)
    kind = "a boolean" if isinstance(reply.value, bool) else "another value"
    return Answer(kind, type(reply.value).__name__)
