"""What real planners write, and what they are told so that they write programs."""

import re
from typing import Any

import pytest

from langchain_sequrity.local.interpreter import parse
from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.modules import MODULES
from langchain_sequrity.local.interpreter.signatures import signature
from tests.local.api import result
from tests.local.dual_llm.conversation import SCHEMA, Teller
from tests.local.dual_llm.dialog import Begin, calls, error, value, words

PROGRAM = """\
mail = look_up(word="a")
if mail:
    final_return_value = f"Mail: {mail}"
else:
    final_return_value = "None."
"""
# How models put a program into an answer.
ANSWERS = {
    "alone": "{}",
    "in tags": "<sequrity_plan>\n{}\n</sequrity_plan>",
    "in tags on its lines": "<sequrity_plan>{}</sequrity_plan>",
    "with an open tag": "<sequrity_plan>\n{}",
    "fenced": "```python\n{}\n```",
    "with an open fence": "```python\n{}",
    "with a fence at the end": "{}\n```",
    "with a fence that is indented": "Sure:\n   ```py\n{}\n   ```",
    "fenced in tags": "<sequrity_plan>\n```python\n{}\n```\n</sequrity_plan>",
    "with half a fence in tags": "<sequrity_plan>\n{}\n```\n</sequrity_plan>",
    "in tags in a fence": "```\n<sequrity_plan>\n{}\n</sequrity_plan>\n```",
    "after a thought": "<think>\nI need mail = look_up(\n</think>\n\n{}",
    "after a thought in code": "<think>\n```python\nx = 1\n```\n</think>\n```python\n{}\n```",
    "after half a thought": "so I look it up.\n</think>\n<sequrity_plan>{}</sequrity_plan>",
    "before a thought": "{}\n<think>Was that right?",
    "between prose": "Here is the program:\n\n{}\n\nThis program looks it up.",
    "between prose in tags": "<sequrity_plan>\nHere it is:\n{}\nDone.\n</sequrity_plan>",
    "fenced between prose": "I look it up.\n\n```python\n{}\n```\n\nThat is all!",
}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("around", ANSWERS.values(), ids=ANSWERS)
def test_a_program_is_found_in_an_answer(begin: Begin, around: str, line_end: str) -> None:
    answer = around.replace("{}", PROGRAM.strip()).replace("\n", line_end)
    dialog = begin({"text": answer})
    assert calls(dialog.say()) == [("look_up", {"word": "a"})]
    assert value(dialog.answer("text")) == "Mail: text"


def test_a_fence_may_have_one_line(begin: Begin) -> None:
    assert value(begin({"text": "Here: ```python final_return_value = 1```"}).say()) == 1


# Programs that are asked for again before anything is done


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("'The capital is Paris.'", "This is an answer and no program."),
        ("42", "This is an answer and no program."),
        ("{'a': [1, -2]}", "This is an answer and no program."),
        ("def main():\n    return 1", "The program has no answer."),
        ("found = look_up(word='a')", "The program has no answer."),
        ("import json", "The program has no answer."),
        ("print('Paris')", "Put the answer into `final_return_value`"),
        ("look_up(name='a')", "`look_up` has no argument `name`. Write `look_up(*, word: str)`."),
        ("look_up()", "`look_up` needs the argument `word`. Write `look_up(*, word: str)`."),
        ("look_up('a')", "Write `look_up(*, word: str)`."),
        ("x = [look_up(nam='a') for n in ()]\nx", "`look_up` has no argument `nam`."),
    ],
)
def test_what_cannot_work_is_asked_for_again_before_it_runs(
    begin: Begin, program: str, told: str
) -> None:
    dialog = begin({"text": program}, {"text": PROGRAM})
    schema = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": schema}}]
    reply = dialog.send(words("Go"), tools=tools)
    assert calls(reply) == [("look_up", {"word": "a"})]
    assert told in dialog.planner.prompts[1]
    assert value(dialog.send(result(dialog.open_call, "b"), tools=tools)) == "Mail: b"


@pytest.mark.parametrize(
    "program",
    ["look_up(word='a')", "exit()", "complete_turn(value=1)", "x = 1\nx", "f'{1}'"],
)
def test_what_may_have_an_answer_is_run(begin: Begin, program: str) -> None:
    dialog = begin({"text": program}, config={"fsm": {"enabled_internal_tools": ["complete_turn"]}})
    assert dialog.say().status_code == 200
    assert len(dialog.planner.requests) == 1


def test_a_program_that_was_cut_off_is_not_said_to_be_wrong(begin: Begin) -> None:
    cut = {"text": "<sequrity_plan>\nmail = look_up(wor", "finish_reason": "length"}
    dialog = begin(cut, {"text": PROGRAM})
    assert calls(dialog.say()) == [("look_up", {"word": "a"})]
    assert "It was cut off before its end" in dialog.planner.prompts[1]
    assert "Not valid Python" not in dialog.planner.prompts[1]


# What a planner is told of a failure


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("x = 1\nx / 0", "`ZeroDivisionError` at line 2.\n    x / 0\n    ^\n"),
        (
            "if True:\n    final_return_value = unknown()",
            "`unknown` is not defined.\n        final_return_value = unknown()\n        ^\n",
        ),
        ("''.subject", "`str` has no attribute `subject`.\n    ''.subject\n    ^\n"),
        ("x = {}\nx['subject']", "There is no key `subject`.\n    x['subject']\n    ^\n"),
        ("x = (1 +", "x = (1 +\n        ^\n"),
    ],
)
def test_a_repair_is_shown_the_line_that_failed(begin: Begin, program: str, told: str) -> None:
    dialog = begin({"text": program}, "'repaired'")
    assert value(dialog.say()) == "repaired"
    assert told in dialog.planner.prompts[1]


@pytest.mark.parametrize(
    "line",
    ["{}[key]", "{}[key] or {}['no']", "{}.get(1, {}['no'] if key else 1)", "{}[f'{key}']"],
)
def test_a_key_that_may_be_data_is_not_told(begin: Begin, line: str) -> None:
    told = []
    for data in ("no", "canary"):
        dialog = begin(f"key = look_up(word='a')\n{line}", "'repaired'")
        dialog.say()
        dialog.answer(data)
        told.append(re.sub(r"of length \d", "", dialog.planner.prompts[-1]))
    assert told[0] == told[1]


# The prompt


def test_the_prompt_names_all_that_the_language_has(begin: Begin) -> None:
    dialog = begin("'done'")
    dialog.say()
    (prompt,) = dialog.planner.prompts
    for name, members in MODULES.items():
        (line,) = [one for one in prompt.split("\n") if one.startswith(f"- {name}: ")]
        assert set(line.removeprefix(f"- {name}: ").split(", ")) == set(members)
    (line,) = [one for one in prompt.split("\n") if one.startswith("- built-in: ")]
    assert set(line.removeprefix("- built-in: ").split(", ")) <= set(BUILTINS)


@pytest.mark.parametrize("reads", [True, False])
def test_the_worked_example_is_a_program(begin: Begin, reads: bool) -> None:
    dialog = begin("'done'", config=None if reads else {"fsm": {"enabled_internal_tools": []}})
    dialog.say()
    example = dialog.planner.prompts[0].split("<sequrity_plan>\n")[1].split("</sequrity_plan>")[0]
    mail = {"type": "object", "properties": {"number": {}}}
    sent = {"type": "object", "properties": {"to": {}, "body": {}}}
    program = parse(example)
    program.check_calls({"get_mail": mail, "send_mail": sent}, in_full=True)
    program.check_answer()
    assert ("parse_with_ai" in example) is reads


OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {"subject": {"type": "string"}, "sizes": {"type": "array", "items": {"type": "integer"}}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("properties", "required", "written"),
    [
        ({}, [], "f(**others)"),
        ({"a": {"type": "integer"}}, ["a"], "f(*, a: int)"),
        ({"a": {"type": "integer", "default": 3}}, [], "f(*, a: int = 3)"),
        ({"a": {"type": "string"}}, [], "f(*, a: str = …)"),
        ({"a": {"enum": ["x", 2]}}, ["a"], "f(*, a: Literal['x', 2])"),
        ({"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, ["a"], "f(*, a: str | None)"),
        ({"a": {"type": ["number", "null"]}}, ["a"], "f(*, a: float | None)"),
        ({"a": {"type": "array", "items": {"type": "boolean"}}}, ["a"], "f(*, a: list[bool])"),
        ({"a-b": {"type": "string"}}, ["a-b"], 'f(**{"a-b": str})'),
        ({"a": {"$ref": "#/$defs/A"}}, ["a"], 'f(*, a: {"n": int})'),
        ({"a": {"$ref": "#/$defs/B"}}, ["a"], 'f(*, a: {"b": {"b": Any}})'),
        ({"a": True}, ["a"], "f(*, a: Any)"),
    ],
)
def test_a_tool_is_a_line_of_python(
    properties: dict[str, Any], required: list[str], written: str
) -> None:
    one = {"type": "object", "properties": {"n": {"type": "integer"}}}
    recursive = {"type": "object", "properties": {"b": {"$ref": "#/$defs/B"}}}
    schema = {"properties": properties, "required": required, "$defs": {"A": one, "B": recursive}}
    assert signature("f", schema) == written


def test_results_and_what_arguments_mean_are_told(begin: Begin) -> None:
    properties = {
        "to": {"type": "string", "description": "Where it goes.", "format": "email"},
        "size": {"type": "integer", "minimum": 1, "default": 1},
    }
    function = {
        "name": "send", "description": "Send a mail.", "output_schema": OUTPUT,
        "parameters": {"type": "object", "properties": properties, "required": ["to"]},
    }  # fmt: skip
    dialog = begin("'done'")
    dialog.send(words("Go"), tools=[{"type": "function", "function": function}])
    told = (
        '- send(*, to: str, size: int = 1) -> {"subject": str, "sizes": list[int]}: Send a mail.\n'
        '  to: Where it goes. {"format":"email"}\n  size: {"minimum":1}\n'
    )
    assert told in dialog.planner.prompts[0]


# The reader


def test_the_reader_is_asked_three_times_for_json(begin: Begin) -> None:
    program = f"final_return_value = parse_with_ai(query='?', output_schema={SCHEMA})"
    reader = Teller("quarantined", "Sure!", "```json", '{"have_enough_info": false}')
    dialog = begin(program, tellers=(reader,))
    assert value(dialog.say()) == {"have_enough_info": False}
    assert len(reader.requests) == 3
    assert "Answer with the JSON alone" in reader.prompts[1]
    reader = Teller("quarantined", "Sure!")
    dialog = begin(program, tellers=(reader,), config={"fsm": {"max_pllm_failed_steps": 1}})
    assert "The data model did not answer with JSON." in error(dialog.say())[1]
    assert len(reader.requests) == 3


@pytest.mark.parametrize(
    "said",
    ['<think>{"a": 1}</think>\n{"have_enough_info": true}', '```json\n{"have_enough_info": true}\n```'],
    ids=["a thought", "a fence"],
)  # fmt: skip
def test_json_is_found_in_what_a_reader_says(begin: Begin, said: str) -> None:
    program = f"final_return_value = parse_with_ai(query='?', output_schema={SCHEMA})"
    dialog = begin(program, tellers=(Teller("quarantined", {"text": said}),))
    assert value(dialog.say()) == {"have_enough_info": True}


@pytest.mark.parametrize(
    "line", ["with a: b", "await x", "yield 1", "x: int", "os.system", "not a program"]
)
def test_no_line_of_a_program_is_taken_for_prose(begin: Begin, line: str) -> None:
    dialog = begin({"text": f"{line}\nfinal_return_value = 1"}, "'repaired'")
    assert value(dialog.say()) == (1 if line == "x: int" else "repaired")
