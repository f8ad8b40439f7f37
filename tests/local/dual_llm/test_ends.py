"""How programs and turns end: values, repairs, replies and failing models (P8)."""

from typing import Any

import orjson
import pytest

from langchain_sequrity.errors import ProgramFailed
from tests.chat_models.formats import NAMES, ROWS, Row, added
from tests.local.api import events, result
from tests.local.dual_llm.conversation import Stage, Teller, enough, reads
from tests.local.dual_llm.dialog import Begin, Json, calls, ended, error, value, words
from tests.local.stores import find

COUNTING = """
tool "look_up" {
    session before { @tags |= {"asked"}; }
    session after { @tags |= {"answered"}; }
}
"""
FAILING = "1 / 0"
REFUSED = "import os"
LOOK = 'final_return_value = look_up(word="a")'
ONE_STEP: Json = {"fsm": {"max_pllm_steps": 1}}


# Values


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("final_return_value = 1\n2", 1),
        ("1\n1 + 1", 2),
        ("x = 5", None),
        ("final_return_value = None\n2", None),
        ("def f():\n    final_return_value = 1\nf()\n2", 2),
        ("final_return_value = 1\nexit()", 1),
        ("final_return_value = 1\nexit(0)\nfinal_return_value = 2", 1),
        ("2\nexit(0)", None),
    ],
)
def test_the_answer_is_final_return_value_or_else_the_last_expression(
    begin: Begin, program: str, expected: Any
) -> None:
    assert value(begin(program).say()) == expected


@pytest.mark.parametrize(
    ("written", "expected", "kind"),
    [
        ("(1, 'a')", [1, "a"], "tuple"),
        ("{3, 1, 2}", [3, 1, 2], "set"),
        ("range(3)", [0, 1, 2], "range"),
        ("b'abc'", "YWJj", "bytes"),
        ("{1: 'a', None: 'b'}", {"1": "a", "null": "b"}, "dict"),
        ("datetime(2026, 2, 3, 4, 5)", "2026-02-03T04:05:00", "datetime"),
        ("timedelta(minutes=2)", 120.0, "timedelta"),
        ("'\U0001f600é'", "\U0001f600é", "str"),
        ("2**100", 2**100, "int"),
    ],
)
def test_values_that_json_lacks_have_one_form_each(
    begin: Begin, written: str, expected: Any, kind: str
) -> None:
    imports = "from datetime import datetime, timedelta\n"
    returned = ended(begin(f"{imports}final_return_value = {written}").say())["final_return_value"]
    assert (returned["value"], returned["value_type"]) == (expected, kind)


@pytest.mark.parametrize(
    "written", ["float('nan')", "[float('inf')]", "lambda: 1", "'\\ud800'", "{(1, 2): 3}"]
)
def test_values_without_a_json_form_fail_the_turn(begin: Begin, written: str) -> None:
    dialog = begin(f"final_return_value = {written}", config=ONE_STEP)
    assert error(dialog.say())[0] == "value_not_json"
    assert dialog.stored.turns == 1


@pytest.mark.parametrize(
    ("ending", "shown"),
    [("exit(1)", "exit(1)"), ("exit('sorry')", "sorry"), ("exit(-3)", "exit(-3)")],
)
def test_exit_with_an_error_fails_the_step(begin: Begin, ending: str, shown: str) -> None:
    dialog = begin(f"final_return_value = 7\n{ending}", config=ONE_STEP)
    code, message = error(dialog.say())
    assert (code, shown in message) == ("program_exit", True)


def test_a_program_that_exits_with_an_error_is_repaired(begin: Begin) -> None:
    assert value(begin("exit(2)", "'repaired'").say()) == "repaired"


# Repair


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (FAILING, "program_error"),
        (REFUSED, "program_refused"),
        ("this is no program", "program_refused"),
        ("exit(1)", "program_exit"),
        ("float('nan')", "value_not_json"),
        ("look_up(word='a', sound='b')", "program_refused"),
        ("unknown_tool()", "program_refused"),
        ("'a' * 10**9", "limit_reached"),
        (" ", "planner_failed"),
        ({"refusal": "I will not."}, "planner_failed"),
    ],
)
def test_the_planner_repairs_every_kind_of_failure_within_the_limits(
    begin: Begin, bad: Any, code: str
) -> None:
    dialog = begin(bad, "'repaired'")
    assert value(dialog.say()) == "repaired"
    assert len(dialog.planner.requests) == 2
    dialog = begin(bad, config={"fsm": {"max_pllm_failed_steps": 2}})
    assert error(dialog.say())[0] == code
    assert len(dialog.planner.requests) == 2


@pytest.mark.parametrize(
    ("fsm", "asked"),
    [
        ({"max_pllm_failed_steps": 1}, 1),
        ({"max_pllm_failed_steps": 3, "max_pllm_steps": 2}, 2),
        ({"max_pllm_failed_steps": 3, "max_pllm_steps": 9}, 3),
        ({}, 3),
    ],
)
def test_repair_ends_at_the_first_limit_that_is_reached(
    begin: Begin, fsm: Json, asked: int
) -> None:
    dialog = begin(FAILING, config={"fsm": fsm})
    assert error(dialog.say())[0] == "program_error"
    assert len(dialog.planner.requests) == asked


def test_failed_steps_count_over_all_requests_of_a_turn_and_start_at_zero_in_the_next(
    begin: Begin,
) -> None:
    program = '1 / look_up(word="a")'
    dialog = begin(program, config={"fsm": {"max_pllm_failed_steps": 2}})
    for _ in range(2):
        assert calls(dialog.say()) == [("look_up", {"word": "a"})]
        assert error(dialog.answer("0"))[0] == "program_error"
    assert len(dialog.planner.requests) == 4


def test_a_failed_program_does_not_change_the_variables(begin: Begin) -> None:
    dialog = begin("n = 1\n'done'", f"n = 2\n{FAILING}", "n", config=ONE_STEP)
    dialog.say()
    error(dialog.say())
    assert value(dialog.say()) == 1


def test_a_failed_turn_counts_and_the_session_continues(begin: Begin) -> None:
    dialog = begin(FAILING, "'next'", config=ONE_STEP)
    code, message = error(dialog.say())
    assert (code, "ZeroDivisionError" in message) == ("program_error", True)
    assert value(dialog.say()) == "next"
    assert dialog.stored.turns == 2


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_chat_models_raise_program_failed_and_the_session_continues(stage: Stage, row: Row) -> None:
    config = {"response_format": {"include_program": True}, **ONE_STEP}
    planner = Teller("planner", FAILING, "'next'")
    model = stage.model(planner, of=row.model, **row.arguments, session_config=config)
    with pytest.raises(ProgramFailed, match="ZeroDivisionError") as caught:
        model.invoke("Go")
    failed = caught.value
    assert (failed.code, failed.program) == ("program_error", f"{FAILING}\n")
    assert failed.message is not None
    assert model.invoke([("user", "Go"), failed.message, ("user", "And now?")]).text == "next"
    session = find(stage.server.sessions, failed.session_id or "")
    assert session is not None
    assert session.turns == 2


# Streams


@pytest.mark.parametrize("fsm", [{}, {"max_pllm_failed_steps": 1}])
@pytest.mark.parametrize("program", ["'done'", FAILING, 'look_up(word="a")'])
def test_a_streamed_reply_has_the_same_content_as_a_whole_reply(
    begin: Begin, program: str, fsm: Json
) -> None:
    dialog = begin(program, config={"fsm": fsm})
    whole = dialog.post(words("Go")).json()["choices"][0]
    streamed = dialog.post(words("Go"), stream=True)
    *chunks, done = events(streamed.content)
    deltas = [orjson.loads(chunk)["choices"][0] for chunk in chunks]
    assert done == "[DONE]"
    text = "".join(one["delta"].get("content") or "" for one in deltas)
    assert text == (whole["message"]["content"] or "")
    made = [call for one in deltas for call in one["delta"].get("tool_calls") or []]
    names = [call["function"]["name"] for call in made if call["function"].get("name")]
    assert names == [one["function"]["name"] for one in whole["message"].get("tool_calls") or []]
    assert [one["finish_reason"] for one in deltas if one["finish_reason"]] == [
        whole["finish_reason"]
    ]


@pytest.mark.parametrize("thoughts", [True, False, None])
@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_thoughts_of_the_planner_are_streamed_only_with_stream_thoughts(
    stage: Stage, row: Row, thoughts: bool | None
) -> None:
    planner = Teller("planner", {"text": "final_return_value = 'done'", "reasoning": "I think so."})
    config = {"response_format": {"stream_thoughts": thoughts}}
    model = stage.model(planner, of=row.model, **row.arguments, session_config=config)
    chunks = list(model.stream("Go"))
    message = added(chunks)
    thought = [
        block["reasoning"] for block in message.content_blocks if block["type"] == "reasoning"
    ]
    assert thought == (["I think so."] if thoughts else [])
    assert message.text == "done"


# Models that fail


@pytest.mark.parametrize("stream", [False, True])
def test_a_failing_planner_does_not_change_the_session(begin: Begin, stream: bool) -> None:
    broken = {"error": {"status": 503, "message": "Not now."}}
    dialog = begin(broken, LOOK, broken, "2", policy=COUNTING)
    assert dialog.say().status_code == 503
    dialog.say()
    before = dialog.remembered()
    sent = (result(dialog.open_call, "1"), words("Second"))
    assert dialog.post(*sent, stream=stream).status_code == 503
    assert dialog.remembered()[:3] == before[:3]  # without the counter of call ids: it only grows
    assert value(dialog.send(*sent)) == 2
    assert sorted(dialog.state.labels.tags) == ["answered", "asked"]


def test_a_failing_data_model_leaves_the_call_open(begin: Begin) -> None:
    reading = f'text = look_up(word="a")\nfinal_return_value = {reads("text")}'
    reader = Teller("quarantined", {"error": {"status": 500, "message": "Broken."}}, enough("read"))
    dialog = begin(reading, tellers=(reader,), policy=COUNTING)
    dialog.say()
    before = dialog.remembered()
    assert dialog.answer("text").status_code == 500
    assert dialog.remembered() == before
    assert value(dialog.answer("text")) == "read"
    assert len(dialog.planner.requests) == 1
