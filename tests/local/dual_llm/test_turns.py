"""Requests within a dual-LLM session and their effect on the turn (P5, P6, P7, T1)."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_sequrity import dual_llm_result
from tests.chat_models.formats import MESSAGES, NAMES, ROWS, Row
from tests.local.api import WAIT, Gate, Message, detail, result, said, session_of
from tests.local.conftest import Serve
from tests.local.dual_llm.conversation import SCHEMA, Stage, Teller, converse, result_of
from tests.local.dual_llm.dialog import (
    TOOLS,
    Begin,
    Dialog,
    calls,
    ended,
    error,
    headers,
    value,
    words,
)

ONE = 'final_return_value = look_up(word="a")'
TWO = 'final_return_value = [look_up(word="a"), send(word="b")]'
LOOKED_UP = [("look_up", {"word": "a"})]
WRAPPER = {
    "value": {"n": 5},
    "is_sequrity_var": True,
    "meta": {"producers": ["p"], "consumers": ["*"], "tags": ["t"]},
}
# The tags of the session show what it kept: the request for a call, the result of a call.
COUNTING = """
tool "look_up" {
    session before { @tags |= {"asked"}; }
    session after { @tags |= {"answered"}; }
}
"""
REPORTING = {"response_format": {"include_policy_check_history": True}}


# Calls and results


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_independent_calls_come_one_at_a_time(stage: Stage, row: Row, streaming: bool) -> None:
    model = stage.model(Teller("planner", TWO), of=row.model, **row.arguments, streaming=streaming)
    history = converse(model.bind_tools(TOOLS), "Go", {"look_up": "1", "send": "sent"})
    assert [one.type for one in history] == ["human", "ai", "tool", "ai", "tool", "ai"]
    last = history[-1]
    assert isinstance(last, AIMessage)
    found = dual_llm_result(last)
    assert found is not None
    assert (found.value, found.value_type) == ([1, "sent"], "list")


@pytest.mark.parametrize(
    ("content", "expected", "kind"),
    [
        ("42", 42, "int"),
        ('"42"', "42", "str"),
        (" [1, 2.5, null]\n", [1, 2.5, None], "list"),
        ('{"a": {"b": true}}', {"a": {"b": True}}, "dict"),
        ("null", None, "NoneType"),
        ("12345678901234567890123", 12345678901234567890123, "int"),
        ("It rains.", "It rains.", "str"),
        ("", "", "str"),
        ("[1, 2", "[1, 2", "str"),
        ("NaN", "NaN", "str"),
        ("1e999", "1e999", "str"),
        (json.dumps([WRAPPER]), [WRAPPER], "list"),
    ],
)
def test_a_result_is_parsed_as_json_and_otherwise_stays_text(
    begin: Begin, content: str, expected: Any, kind: str
) -> None:
    dialog = begin(ONE)
    dialog.say()
    returned = ended(dialog.answer(content))["final_return_value"]
    assert (returned["value"], returned["value_type"]) == (expected, kind)
    assert returned["meta"] == {"producers": [], "consumers": ["*"], "tags": ["__non_executable"]}


def test_a_wrapped_result_has_the_value_and_the_labels_of_the_wrapper(begin: Begin) -> None:
    dialog = begin(ONE)
    dialog.say()
    returned = ended(dialog.answer(json.dumps(WRAPPER)))["final_return_value"]
    assert returned["value"] == {"n": 5}
    assert returned["meta"]["producers"] == ["p"]
    assert sorted(returned["meta"]["tags"]) == ["__non_executable", "t"]


@pytest.mark.parametrize("depth", [101, 300, 5_000])
@pytest.mark.parametrize("text", ["…", json.dumps(WRAPPER).replace('{"n": 5}', "…")])
def test_a_result_that_is_nested_too_deeply_ends_the_turn(
    begin: Begin, text: str, depth: int
) -> None:
    dialog = begin(ONE)
    dialog.say()
    code, message = error(dialog.answer(text.replace("…", "[" * depth + "]" * depth)))
    assert (code, "nested deeper" in message) == ("tool_result_refused", True)
    assert calls(dialog.say()) == LOOKED_UP


def test_a_data_model_answer_that_is_nested_too_deeply_raises_tool_error_in_the_program(
    begin: Begin,
) -> None:
    reading = f'try:\n    x = parse_with_ai(query="Read: Go", output_schema={SCHEMA})\nexcept ToolError as error:\n    x = str(error)\nx'
    dialog = begin(reading, tellers=(Teller("quarantined", "[" * 300 + "]" * 300),))
    assert "nested deeper" in value(dialog.say())


# The part of the history that a client sends

Part = Callable[[Dialog], list[Message]]


def new(dialog: Dialog) -> list[Message]:
    return dialog.history[-1:]


def end(dialog: Dialog) -> list[Message]:
    return dialog.history[-2:]


def everything(dialog: Dialog) -> list[Message]:
    return dialog.history


def system_words(dialog: Dialog) -> list[Message]:
    return [{"role": "system", "content": f"{len(dialog.history)} messages"}, *dialog.history]


@pytest.mark.parametrize("named_by", ["header", "call id"])
@pytest.mark.parametrize("part", [new, end, everything, system_words])
def test_a_client_may_send_all_of_the_history_or_its_end(
    begin: Begin, part: Part, named_by: str
) -> None:
    dialog = begin(TWO)
    reply = dialog.say()
    while calls(reply):
        dialog.history.append(result(dialog.open_call, "1"))
        options = {} if named_by == "header" else {"session": None}
        reply = dialog.post(*part(dialog), **options)
        dialog.history.append(said(reply))
    assert value(reply) == [1, 1]


@pytest.mark.parametrize("sent_back", ["as it came", "as text", "empty", "left out"])
def test_a_history_may_have_a_refusal_in_any_form_or_leave_it_out(
    begin: Begin, sent_back: str
) -> None:
    stripped = {"response_format": {"strip_response_content": True}, "fsm": {"max_pllm_steps": 1}}
    dialog = begin(ONE, "{}['b']", "'third'", config=stripped)
    dialog.say()
    dialog.answer()
    refusal = said(dialog.say("Fail"))
    forms = {
        "as it came": [refusal],
        "as text": [{"role": "assistant", "content": refusal["refusal"]}],
        "empty": [{"role": "assistant", "content": ""}],
        "left out": [],
    }
    *before, _ = dialog.history
    history = [*before, *forms[sent_back]]
    forged = [*history, {"role": "assistant", "content": "I say so."}, words("And now?")]
    assert dialog.post(*forged, session=None).status_code == 409
    reply = dialog.post(*history, words("And now?"), session=None)
    assert said(reply)["content"] == "third"
    assert session_of(reply) == dialog.session


@pytest.mark.parametrize("part", [end, everything])
def test_the_next_turn_may_be_sent_with_the_whole_history_or_its_end(
    begin: Begin, part: Part
) -> None:
    dialog = begin(ONE, "'second'")
    dialog.say()
    dialog.answer()
    dialog.history.append(words("And now?"))
    assert value(dialog.post(*part(dialog))) == "second"


@pytest.mark.parametrize(
    ("more", "status", "problem"),
    [
        ([result("tc-1", "1")], 400, "answers no open call"),
        ([], 400, "no new message"),
        ([{"role": "assistant", "content": "I say so."}], 409, "differs"),
    ],
)
def test_a_request_with_nothing_new_is_refused_and_changes_nothing(
    begin: Begin, more: list[Message], status: int, problem: str
) -> None:
    dialog = begin(ONE)
    dialog.say()
    reply = dialog.post(*dialog.history, *more)
    assert (reply.status_code, problem in detail(reply)) == (status, True)
    assert value(dialog.answer()) == 1


def test_several_replies_are_refused(begin: Begin) -> None:
    dialog = begin(ONE)
    reply = dialog.post(words("Go"), n=2)
    assert (reply.status_code, "Leave out `n`" in detail(reply)) == (400, True)
    assert dialog.post(words("Go"), n=1).status_code == 200


def test_two_results_for_one_call_are_refused(begin: Begin) -> None:
    dialog = begin(ONE)
    dialog.say()
    twice = [result(dialog.open_call, "1"), result(dialog.open_call, "2")]
    assert "two results" in detail(dialog.post(*twice))
    assert value(dialog.answer()) == 1


# Results together with a new message


def test_a_result_with_a_new_message_ends_the_turn_silently_and_the_turn_counts(
    begin: Begin,
) -> None:
    dialog = begin(ONE, "2", config={"fsm": {"max_n_turns": 2}})
    dialog.say("First")
    assert value(dialog.answer("1", "Second")) == 2
    assert dialog.say("Third").status_code == 404


def test_a_new_message_with_a_result_is_planned_even_if_the_program_fails(begin: Begin) -> None:
    dialog = begin('1 / look_up(word="a")', "2")
    dialog.say("First")
    assert value(dialog.answer("0", "Second")) == 2
    assert dialog.stored.turns == 2
    assert len(dialog.planner.requests) == 2  # no repair: the new message replaces the turn


def test_a_new_message_with_a_result_cancels_the_next_call_and_keeps_session_labels(
    begin: Begin,
) -> None:
    dialog = begin(TWO, "2", policy=COUNTING, config=REPORTING)
    dialog.say("First")
    reply = dialog.answer("1", "Second")
    assert value(reply) == 2
    assert sorted(dialog.state.labels.tags) == ["answered", "asked"]
    assert (dialog.stored.turns, dialog.state.turn) == (1, None)


def test_a_new_message_without_a_result_cancels_the_open_call_which_may_have_run(
    begin: Begin,
) -> None:
    dialog = begin(ONE, "2", policy=COUNTING)
    dialog.say("First")
    late = result(dialog.open_call, "1")
    assert value(dialog.say("Second")) == 2
    assert sorted(dialog.state.labels.tags) == ["answered", "asked"]
    assert dialog.stored.turns == 1
    assert "answers no open call" in detail(dialog.post(late))


# Repeated and simultaneous requests


@pytest.mark.parametrize("texts", [(), ("Second",)], ids=["result", "result and words"])
@pytest.mark.parametrize("part", [new, everything])
def test_a_repeated_result_gets_the_same_reply_and_changes_nothing(
    begin: Begin, part: Part, texts: tuple[str, ...]
) -> None:
    dialog = begin(TWO, policy=COUNTING)
    dialog.say()
    added = [result(dialog.open_call, "1"), *map(words, texts)]
    sent = [*added] if part is new else [*dialog.history, *added]
    first = dialog.send(*sent)
    before = (dialog.remembered(), len(dialog.planner.requests))
    for _ in range(2):
        again = dialog.post(*sent)
        created = f'"created":{again.json()["created"]}', f'"created":{first.json()["created"]}'
        assert again.text.replace(*created) == first.text
    assert (dialog.remembered(), len(dialog.planner.requests)) == before
    assert value(dialog.until_end("2"))[1] == 2


LABELLED = json.dumps({**WRAPPER, "value": "1"})


@pytest.mark.parametrize("program", [ONE, TWO])
@pytest.mark.parametrize("part", [new, everything])
@pytest.mark.parametrize(
    ("first", "changed"),
    [("1", "2"), ("1", ""), ("1", " 1"), ("1", '"1"'), ("1", LABELLED), (LABELLED, "1"),
     (LABELLED, LABELLED.replace("t", "u"))],
)  # fmt: skip
def test_a_changed_result_is_not_accepted_as_a_repetition(
    begin: Begin, program: str, part: Part, first: str, changed: str
) -> None:
    dialog = begin(program, policy=COUNTING)
    dialog.say()
    asked, call_id = list(dialog.history), dialog.open_call
    dialog.answer(first)
    before = (dialog.remembered(), len(dialog.planner.requests))

    sent = [result(call_id, changed)]
    reply = dialog.post(*(sent if part is new else [*asked, *sent]))

    assert reply.status_code == (400 if part is new else 409)
    assert ("answers no open call" if part is new else "differs") in detail(reply)
    assert (dialog.remembered(), len(dialog.planner.requests)) == before


@pytest.mark.parametrize(
    ("row", "changed"),
    [*((row, {"content": "2"}) for row in ROWS), (MESSAGES, {"status": "error"})],
    ids=[*NAMES, "an error now"],
)
def test_a_chat_model_that_sends_a_changed_result_stays_in_its_session(
    stage: Stage, row: Row, changed: dict[str, str]
) -> None:
    model = stage.model(Teller("planner", TWO), of=row.model, **row.arguments).bind_tools(TOOLS)
    history = [HumanMessage("Go"), model.invoke("Go")]
    answered = result_of(history[1].tool_calls[0], {"look_up": "1"})
    first = model.invoke([*history, answered])
    other = model.invoke([*history, answered.model_copy(update=changed)])
    begun, stayed = (one.response_metadata["sequrity"]["session_id"] for one in (first, other))
    assert stayed == begun
    again = [call["name"] for call in other.tool_calls]
    assert again == (["look_up"] if "status" in changed else ["send"])


def test_a_history_with_another_picture_is_refused(begin: Begin) -> None:
    def seen(picture: str) -> Message:
        url = {"url": f"data:image/png;base64,{picture}"}
        return {"role": "user", "content": [{"type": "image_url", "image_url": url}]}

    dialog = begin(ONE)
    dialog.send(seen("AAAA"))
    _, asked = dialog.history
    answered = result(dialog.open_call, "1")
    assert dialog.post(seen("BBBB"), asked, answered).status_code == 409
    assert value(dialog.post(seen("AAAA"), asked, answered)) == 1


def test_a_repeated_last_result_gets_the_end_of_the_turn_again(begin: Begin) -> None:
    dialog = begin(ONE, "2")
    dialog.say()
    sent = result(dialog.open_call, "1")
    first = dialog.send(sent)
    assert said(dialog.post(sent)) == said(first)
    assert dialog.stored.turns == 1
    assert value(dialog.say("Second")) == 2


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_repeated_result_gets_the_same_reply_in_every_format(stage: Stage, row: Row) -> None:
    model = stage.model(Teller("planner", TWO), of=row.model, **row.arguments).bind_tools(TOOLS)
    history = [HumanMessage("Go"), model.invoke("Go")]
    history.append(result_of(history[1].tool_calls[0], {"look_up": "1"}))
    first, again = model.invoke(history), model.invoke(history)
    assert again.tool_calls == first.tool_calls
    assert (again.text, again.usage_metadata) == (first.text, first.usage_metadata)


def test_a_second_request_while_one_runs_is_refused(serve: Serve) -> None:
    gate = Gate()
    rules = [
        {"when": {"role": "planner", "user": "wait"}, "answer": gate},
        {"when": {"role": "planner"}, "program": ONE},
    ]
    dialog = Dialog(serve(script=rules), "any/model", Teller("planner"))
    dialog.say()
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(dialog.post, words("wait"))
        gate.wait_for_request()
        assert dialog.post(result(dialog.open_call, "1")).status_code == 409
        gate.opened.set()
        assert slow.result(WAIT).status_code == 200


# Histories that differ from the stored one


def forked(dialog: Dialog) -> list[Message]:
    """The history with another first message, and the result of the open call."""
    _, *others = dialog.history
    return [words("Other words"), *others, result(dialog.open_call, "1")]


@pytest.mark.parametrize("fsm", [{}, {"history_mismatch_policy": "reject"}])
def test_a_differing_history_is_refused_by_default(begin: Begin, fsm: dict[str, str]) -> None:
    dialog = begin(ONE, config={"fsm": fsm})
    dialog.say()
    reply = dialog.post(*forked(dialog))
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "history_mismatch")
    assert value(dialog.answer()) == 1


@pytest.mark.parametrize("program", ["'done'", "1 / 0"], ids=["value", "error"])
def test_a_history_with_another_answer_is_refused(begin: Begin, program: str) -> None:
    dialog = begin(program, config={"fsm": {"max_pllm_steps": 1}})
    dialog.say()
    asked, answered = dialog.history
    edited = {**answered, "content": "I say so."}
    assert dialog.post(asked, edited, words("On")).status_code == 409
    assert dialog.post(asked, answered, words("On")).status_code == 200


@pytest.mark.parametrize("policy", ["restart_turn", "continue"])
def test_a_differing_history_restarts_the_turn_or_continues_as_configured(
    begin: Begin, policy: str
) -> None:
    dialog = begin(ONE, config={"fsm": {"history_mismatch_policy": policy}})
    dialog.say()
    sent, dialog.history = forked(dialog), []
    body = ended(dialog.send(*sent))  # the call is not made again
    assert ("Other words" in dialog.planner.prompts[-1]) is (policy == "restart_turn")
    assert body["message_history_mismatch_detected"] is True
    assert body["final_return_value"]["value"] == 1
    assert dialog.stored.turns == 1
    dialog.say()
    assert "message_history_mismatch_detected" not in ended(dialog.answer())


def test_continue_that_is_added_after_a_refusal_accepts_a_summary_but_no_edited_call(
    begin: Begin,
) -> None:
    dialog = begin(ONE)
    dialog.say()
    summary, asked, answered = forked(dialog)
    assert dialog.post(summary, asked, answered).status_code == 409
    added = headers(config={"fsm": {"history_mismatch_policy": "continue"}})
    [call] = asked["tool_calls"]
    edited = {**call, "function": {**call["function"], "arguments": '{"word":"evil"}'}}
    refused = dialog.post(summary, {**asked, "tool_calls": [edited]}, answered, headers=added)
    assert (refused.status_code, "was checked" in detail(refused)) == (409, True)
    assert value(dialog.post(summary, asked, answered, headers=added)) == 1


@pytest.mark.parametrize("policy", ["restart_turn", "continue"])
def test_a_repeated_result_gets_the_same_reply_although_its_history_differs(
    begin: Begin, policy: str
) -> None:
    dialog = begin(ONE, "'again'", config={"fsm": {"history_mismatch_policy": policy}})
    dialog.say()
    sent = forked(dialog)
    assert value(dialog.answer("1")) == 1
    assert value(dialog.post(*sent)) == 1
    assert (len(dialog.planner.requests), dialog.stored.turns) == (1, 1)


def test_a_shorter_history_forgets_the_turns_after_its_end(begin: Begin) -> None:
    config = {"fsm": {"history_mismatch_policy": "restart_turn"}}
    dialog = begin("'first'", "'second'", "'third'", "'fourth'", config=config)
    dialog.say("Words one")
    kept = list(dialog.history)
    dialog.say("Words two")
    dialog.history = []
    assert value(dialog.send(*kept, words("Words three"))) == "third"
    assert "Words one" in dialog.planner.prompts[-1]
    assert "Words two" not in dialog.planner.prompts[-1]
    value(dialog.say("Words four"))
    assert "Words three" in dialog.planner.prompts[-1]


# Several turns


def test_a_new_message_with_the_last_result_of_the_last_turn_is_refused(begin: Begin) -> None:
    dialog = begin(ONE, "2", config={"fsm": {"max_n_turns": 1}})
    dialog.say()
    reply = dialog.answer("1", "Second")
    assert (reply.status_code, "last turn" in detail(reply)) == (404, True)
    assert len(dialog.planner.requests) == 1
    assert value(dialog.answer()) == 1


def test_programs_use_the_variables_of_earlier_turns_with_their_labels(begin: Begin) -> None:
    policy = 'tool "look_up" -> @tags |= {"looked_up"};'
    dialog = begin(
        'found = look_up(word="a")\nn = len(found)\nf = lambda: 1\n"done"',
        "n += 1\ncomplete = f'{found} {n}'\ncomplete",
        "final_return_value = [complete, n]",
        policy=policy,
    )
    dialog.say()
    assert value(dialog.answer("abc")) == "done"
    assert value(dialog.say()) == "abc 4"
    body = ended(dialog.say())
    assert body["final_return_value"]["value"] == ["abc 4", 4]
    tags = body["final_return_value"]["meta"]["tags"]
    assert sorted(tags) == ["__non_executable", "looked_up"]


def test_final_return_value_is_not_a_variable_in_the_next_turn(begin: Begin) -> None:
    dialog = begin("final_return_value = 1", "2", "final_return_value")
    assert [value(dialog.say()) for _ in range(2)] == [1, 2]
    code, message = error(dialog.say())
    assert (code, "is not defined" in message) == ("program_refused", True)


def test_variables_survive_complete_turn(begin: Begin) -> None:
    tools = {"fsm": {"enabled_internal_tools": ["complete_turn"]}}
    dialog = begin("n = 5\nfinal_return_value = 1\ncomplete_turn(value=n)", "n + 1", config=tools)
    assert [value(dialog.say()) for _ in range(2)] == [5, 6]
