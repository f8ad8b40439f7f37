"""The answers of real planners, and the prompts that make them write programs."""

import re
from copy import deepcopy
from typing import Any

import pytest

from benchmarks.planner import worlds
from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import UsageError
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.interpreter import parse
from langchain_sequrity.local.interpreter.modules import MODULES
from langchain_sequrity.local.interpreter.signatures import signature
from tests.local.api import result
from tests.local.dual_llm.conversation import DUAL, SCHEMA, Teller
from tests.local.dual_llm.dialog import Begin, calls, error, value, words

PROGRAM = """\
mail = look_up(word="a")
if mail:
    final_return_value = f"Mail: {mail}"
else:
    final_return_value = "None."
"""
LOOK_UP = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}  # fmt: skip
# Forms in which models write a program in an answer.
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


def test_a_fence_may_open_and_close_on_one_line(begin: Begin) -> None:
    assert value(begin({"text": "Here: ```python final_return_value = 1```"}).say()) == 1


# Programs that are refused before they run


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("'The capital is Paris.'", "This is an answer, not a program."),
        ("42", "This is an answer, not a program."),
        ("{'a': [1, -2]}", "This is an answer, not a program."),
        ("def main():\n    return 1", "The program has no answer."),
        ("found = look_up(word='a')", "The program has no answer."),
        ("import json", "The program has no answer."),
        ("print('Paris')", "Put the answer into `final_return_value`"),
        ("look_up(name='a')", "`look_up` has no argument `name`. It is `look_up(*, word: str)`."),
        ("look_up()", "`look_up` needs the argument `word`. Write `look_up(*, word: str)`."),
        ("look_up('a')", "Instead of `look_up('a')` write `look_up(word='a')`."),
        ("x = [look_up(nam='a') for n in ()]\nx", "`look_up` has no argument `nam`."),
    ],
)
def test_a_program_with_an_obvious_mistake_does_not_run_and_the_planner_is_asked_again(
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
def test_a_program_that_may_have_an_answer_runs(begin: Begin, program: str) -> None:
    dialog = begin({"text": program}, config={"fsm": {"enabled_internal_tools": ["complete_turn"]}})
    assert dialog.say().status_code == 200
    assert len(dialog.planner.requests) == 1


def test_the_planner_learns_that_its_program_was_cut_off_and_not_that_it_was_invalid(
    begin: Begin,
) -> None:
    cut = {"text": "<sequrity_plan>\nmail = look_up(wor", "finish_reason": "length"}
    dialog = begin(cut, {"text": PROGRAM})
    assert calls(dialog.say()) == [("look_up", {"word": "a"})]
    assert "It was cut off before its end" in dialog.planner.prompts[1]
    assert "Not valid Python" not in dialog.planner.prompts[1]


# What the planner sees of a failure


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (
            "x = 1\nx / 0",
            "`ZeroDivisionError` at line 2.\n    x / 0\n    ^\n",
        ),
        ("if True:\n    final_return_value = unknown()", "`unknown` is not defined."),
        ("''.subject", "it has no `subject`."),
        ("x = {}\nx['subject']", "There is no key `subject`."),
        ("x = (1 +", "'(' was never closed"),
    ],
)
def test_the_request_for_a_repair_shows_the_line_that_failed(
    begin: Begin, program: str, told: str
) -> None:
    dialog = begin({"text": program}, "'repaired'")
    assert value(dialog.say()) == "repaired"
    assert told in dialog.planner.prompts[1]


@pytest.mark.parametrize(
    "line",
    [
        "{}[key]",
        "{}[key] or {}['no']",
        "{}.pop(key) or {}['no']",
        "{}[f'{key}']",
        "error = {'e': KeyError(key)}\nraise error['e']",
    ],
)
def test_the_planner_does_not_see_a_missing_key_that_may_be_data(begin: Begin, line: str) -> None:
    told = []
    for data in ("no", "canary"):
        dialog = begin(f"key = look_up(word='a')\n{line}", "'repaired'")
        dialog.say()
        assert value(dialog.answer(data)) == "repaired"
        told.append(re.sub(r"of length \d", "", dialog.planner.prompts[-1]))
    assert told[0] == told[1]


# The prompt


def test_the_prompt_names_all_modules(begin: Begin) -> None:
    dialog = begin("'done'")
    dialog.say()
    (prompt,) = dialog.planner.prompts
    assert f"Modules: {', '.join(sorted(MODULES))}." in " ".join(prompt.split())


_PIECE = re.compile(r" ?[A-Za-z]+| ?\d| ?[^\sA-Za-z\d]+|\s+")
"""What tokenizers cut texts into; a prompt has some per cent fewer tokens of Qwen2.5."""


@pytest.mark.parametrize("steps", [False, True], ids=["one program", "steps"])
@pytest.mark.parametrize(
    "tools", [worlds.calendar, worlds.shop, worlds.files], ids=lambda one: one.__name__
)
def test_the_prompt_has_at_most_1200_tokens_with_seven_tools(tools: Any, steps: bool) -> None:
    planner = Teller("planner", "'done'")
    with LocalServer(script=[planner.rule]) as server:
        config = {"fsm": {"enable_multistep_planning": steps}}
        model = ChatSequrity(
            "any/model", base_url=server.base_url, features=DUAL, session_config=config
        )
        model.bind_tools(tools().tools[:7]).invoke("Go")
    assert len(_PIECE.findall(planner.prompts[0])) <= 1_200


@pytest.mark.parametrize("named", ["look_up", "find_recipes", "find_recipes_"])
def test_the_worked_example_is_a_valid_program_that_acts_on_nothing_and_calls_no_tool_of_the_turn(
    begin: Begin, named: str
) -> None:
    own: Any = deepcopy(LOOK_UP)
    own["function"]["name"] = named
    dialog = begin("'done'")
    dialog.send(words("Go"), tools=[own])
    example = dialog.planner.prompts[0].split("<sequrity_plan>\n")[1].split("</sequrity_plan>")[0]
    program = parse(example)
    program.check_answer()
    called = {name for _, name in program.calls}
    assert len(called) == 1
    assert called.isdisjoint({named, "look_up"})
    assert all(name.startswith("find_recipes") for name in called)


OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {"subject": {"type": "string"}, "sizes": {"type": "array", "items": {"type": "integer"}}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("properties", "required", "written"),
    [
        ({}, [], "f()"),
        ({"a": {"type": "integer"}}, ["a"], "f(*, a: int)"),
        ({"a": {"type": "integer", "default": 3}}, [], "f(*, a: int = 3)"),
        ({"a": {"type": "string"}}, [], "f(*, a: str = …)"),
        ({"a": {"enum": ["x", 2]}}, ["a"], "f(*, a: Literal['x', 2])"),
        ({"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, ["a"], "f(*, a: str | None)"),
        ({"a": {"type": ["number", "null"]}}, ["a"], "f(*, a: float | None)"),
        ({"a": {"type": "array", "items": {"type": "boolean"}}}, ["a"], "f(*, a: list[bool])"),
        ({"a-b": {"type": "string"}}, ["a-b"], 'f(**{"a-b": str})'),
        ({"from": {"type": "string"}}, ["from"], 'f(**{"from": str})'),
        ({"\ufb01": {"type": "string"}}, ["\ufb01"], 'f(**{"\ufb01": str})'),
        ({"a": {"$ref": "#/$defs/A"}}, ["a"], 'f(*, a: {"n": int})'),
        ({"a": {"$ref": "#/$defs/B"}}, ["a"], 'f(*, a: {"b": {"b": Any}})'),
        ({"a": True}, ["a"], "f(*, a: Any)"),
    ],
)
def test_the_signature_of_a_tool_is_one_line_of_python(
    properties: dict[str, Any], required: list[str], written: str
) -> None:
    one = {"type": "object", "properties": {"n": {"type": "integer"}}}
    recursive = {"type": "object", "properties": {"b": {"$ref": "#/$defs/B"}}}
    schema = {"properties": properties, "required": required, "$defs": {"A": one, "B": recursive}}
    assert signature("f", schema) == written


def test_the_prompt_describes_arguments_and_results_of_tools(begin: Begin) -> None:
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


# The data model

READER = "from pydantic import BaseModel\nclass Read(BaseModel):\n    have_enough_info: bool\n"
SCHEMA_OF = "output_schema=Read.model_json_schema()"
ASKS = {
    "a question": "r = parse_with_ai(query='What is the subject of mail 3?', SCHEMA)",
    "a variable": "q = 'What is the subject?'\nr = parse_with_ai(query=q, SCHEMA)",
    "an f-string": "n = 3\nr = parse_with_ai(query=f'What is in mail {n}?', SCHEMA)",
    "a sum": "r = parse_with_ai(query='What is in ' + 'mail 3?', SCHEMA)",
    "a format": "r = parse_with_ai(query='What is in mail {}?'.format(3), SCHEMA)",
    "a joined list": "r = parse_with_ai(query=' '.join(['What', 'is', str(3)]), SCHEMA)",
    "a loop": "for n in range(2):\n    r = parse_with_ai(query=f'mail {n}?', SCHEMA)",
    "a comprehension": "r = [parse_with_ai(query=q, SCHEMA) for q in ['a?', 'b?']]",
    "after a call": "m = look_up(word='a')\nr = parse_with_ai(query='What does it say?', SCHEMA)",
    "quotes that nobody said": "r = parse_with_ai(query='Is this polite: \"Go away\"', SCHEMA)",
    "the words of the request": "r = parse_with_ai(query='Tell me what mail 3 says about beds', SCHEMA)",
}  # fmt: skip
READS = {
    "a result": "m = look_up(word='a')\nr = parse_with_ai(query=f'What? {m}', SCHEMA)",
    "a call": "r = parse_with_ai(query=look_up(word='a'), SCHEMA)",
    "a part": "m = [look_up(word='a')]\nr = parse_with_ai(query='What? ' + m[0], SCHEMA)",
    "a list that grew": "m = []\nm.append(look_up(word='a'))\nr = parse_with_ai(query=f'{m}', SCHEMA)",
    "a place": "m = {}\nm['a'] = look_up(word='a')\nr = parse_with_ai(query=f'{m}', SCHEMA)",
    "a loop": "for m in [look_up(word='a')]:\n    r = parse_with_ai(query=m, SCHEMA)",
    "a comprehension": "r = [parse_with_ai(query=m, SCHEMA) for m in [look_up(word='a')]]",
    "a function": "def ask(q):\n    return parse_with_ai(query=q, SCHEMA)\nr = ask(look_up(word='a'))",
    "a function that is given": "def ask(q):\n    return parse_with_ai(query=q, SCHEMA)\nr = [*map(ask, [look_up(word='a')])]",
    "a function that looks up": "def mail():\n    return look_up(word='a')\nr = parse_with_ai(query=mail(), SCHEMA)",
    "a lambda": "ask = lambda q: parse_with_ai(query=q, SCHEMA)\nr = ask(look_up(word='a'))",
    "a default": "m = look_up(word='a')\ndef ask(q=m):\n    return parse_with_ai(query=q, SCHEMA)\nr = ask()",
    "what a function fills": "def fill(into):\n    into['a'] = look_up(word='a')\nm = {}\nfill(m)\nr = parse_with_ai(query=f'{m}', SCHEMA)",
    "another name": "a = b = []\nb.append(look_up(word='a'))\nr = parse_with_ai(query=f'{a}', SCHEMA)",
    "what a result decides": "t = 'no'\nif look_up(word='a'):\n    t = 'yes'\nr = parse_with_ai(query=f'Why {t}?', SCHEMA)",
    "what is counted": "n = 0\nfor m in look_up(word='a'):\n    n += 1\nr = parse_with_ai(query=f'Are {n} many?', SCHEMA)",
    "names within a text": "r = parse_with_ai(query=f\"What are {['beds', 'good night']}?\", SCHEMA)",
    "an error": "try:\n    look_up(word='a')\n    e = ''\nexcept ToolError as error:\n    e = error\nr = parse_with_ai(query=f'{e}', SCHEMA)",
    "words of the user": "r = parse_with_ai(query='Is this about beds: mail 3', SCHEMA)",
    "what the user quotes": "r = parse_with_ai(query='Translate good night into German', SCHEMA)",
    "a text of the user": "t = 'beds'\nr = parse_with_ai(query=f'What are {t}?', SCHEMA)",
}  # fmt: skip
SAID = 'Tell me what mail 3 says about beds, and what "good night" is in German.'


def reading(code: str) -> str:
    return f"{READER}{code.replace('SCHEMA', SCHEMA_OF)}\nfinal_return_value = 'read'"


@pytest.mark.parametrize("steps", [False, True], ids=["a program", "a step"])
@pytest.mark.parametrize("asks", ASKS)
def test_the_planner_is_asked_again_if_a_query_of_parse_with_ai_has_no_data(
    begin: Begin, asks: str, steps: bool
) -> None:
    config = {"fsm": {"enable_multistep_planning": steps}}
    reader = Teller("quarantined", '{"have_enough_info": true}')
    programs = [{"text": reading(ASKS[asks])}, {"text": "final_return_value = 'else'"}]
    dialog = begin(*programs, tellers=(reader,), config=config)
    assert value(dialog.send(words(SAID), tools=[LOOK_UP])) == "else"
    assert "The query of `parse_with_ai` has no data in it" in dialog.planner.prompts[1]
    assert not reader.requests


@pytest.mark.parametrize("reads", READS)
def test_a_query_with_data_or_words_of_the_user_reaches_the_data_model(
    begin: Begin, reads: str
) -> None:
    reader = Teller("quarantined", '{"have_enough_info": true}')
    dialog = begin({"text": reading(READS[reads])}, tellers=(reader,))
    reply = dialog.send(words(SAID), tools=[LOOK_UP])
    if calls(reply):
        reply = dialog.send(result(dialog.open_call, "It is about beds."), tools=[LOOK_UP])
    assert value(reply) == "read"
    assert len(dialog.planner.requests) == 1


def test_a_variable_of_an_earlier_turn_counts_as_data_in_a_query(begin: Begin) -> None:
    reader = Teller("quarantined", '{"have_enough_info": true}')
    asks = {"text": reading("r = parse_with_ai(query=f'What? {mail}', SCHEMA)")}
    first = {"text": "mail = look_up(word='a')\nfinal_return_value = 'seen'"}
    dialog = begin(first, asks, tellers=(reader,))
    dialog.send(words("Look."), tools=[LOOK_UP])
    assert value(dialog.send(result(dialog.open_call, "Beds."), tools=[LOOK_UP])) == "seen"
    assert value(dialog.send(words("Read it."), tools=[LOOK_UP])) == "read"


def test_words_of_the_user_in_an_earlier_turn_may_be_in_a_query(begin: Begin) -> None:
    reader = Teller("quarantined", '{"have_enough_info": true}')
    asks = {"text": reading(READS["words of the user"])}
    dialog = begin("'first'", asks, tellers=(reader,))
    assert value(dialog.send(words(SAID), tools=[LOOK_UP])) == "first"
    assert value(dialog.send(words("Go on."), tools=[LOOK_UP])) == "read"
    assert len(dialog.planner.requests) == 2


def test_the_data_model_is_asked_up_to_three_times_for_json(begin: Begin) -> None:
    program = f"final_return_value = parse_with_ai(query='Read: Go', output_schema={SCHEMA})"
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
def test_json_is_found_in_an_answer_of_the_data_model(begin: Begin, said: str) -> None:
    program = f"final_return_value = parse_with_ai(query='Read: Go', output_schema={SCHEMA})"
    dialog = begin(program, tellers=(Teller("quarantined", {"text": said}),))
    assert value(dialog.say()) == {"have_enough_info": True}


@pytest.mark.parametrize(
    "line", ["with a: b", "await x", "yield 1", "x: int", "os.system", "not a program"]
)
def test_a_first_line_that_looks_like_code_or_fails_to_parse_is_not_dropped_as_prose(
    begin: Begin, line: str
) -> None:
    dialog = begin({"text": f"{line}\nfinal_return_value = 1"}, "'repaired'")
    assert value(dialog.say()) == (1 if line == "x: int" else "repaired")


# The same program again


@pytest.mark.parametrize("every", [None, 1])
def test_a_program_that_failed_is_not_run_again_and_the_third_time_the_turn_ends(
    begin: Begin, every: int | None
) -> None:
    config = {"fsm": {"max_pllm_failed_steps": 9, "clear_history_every_n_attempts": every}}
    dialog = begin({"text": "look_up(word='a')\n1 / 0\nfinal_return_value = 1"}, config=config)
    dialog.say()
    code, message = error(dialog.answer("x"))
    assert code == "program_error"
    assert "The planner wrote the same program 3 times." in message
    assert len(dialog.planner.requests) == 3
    assert message.count("Calls were made before") == 1
    shown = "It is the same as before, and was not run again." in dialog.planner.prompts[2]
    assert shown is (every is None)


def test_a_program_that_failed_because_a_tool_did_may_run_a_second_time(begin: Begin) -> None:
    config = {"fsm": {"detect_tool_errors": "regex"}}
    dialog = begin({"text": "final_return_value = look_up(word='a')"}, config=config)
    dialog.say()
    assert calls(dialog.answer("Error: busy")) == [("look_up", {"word": "a"})]
    assert value(dialog.answer("found")) == "found"
    assert len(dialog.planner.requests) == 2


def test_a_program_whose_tool_fails_each_time_runs_twice_and_then_ends_the_turn(
    begin: Begin,
) -> None:
    config = {"fsm": {"detect_tool_errors": "regex", "max_pllm_failed_steps": 9}}
    dialog = begin({"text": "final_return_value = look_up(word='a')"}, config=config)
    dialog.say()
    assert calls(dialog.answer("Error: busy")) == [("look_up", {"word": "a"})]
    _, message = error(dialog.answer("Error: busy"))
    assert "The planner wrote the same program 3 times." in message


# The prompt of a team


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("Only $tools", "`$request`"),
        ("$tools $request $other", "`$other`"),
        ("$tools $request costs $5", "`$$` for a dollar sign"),
        (5, "must be a text"),
    ],
)
def test_a_prompt_without_what_it_needs_is_refused_when_the_server_is_made(
    prompt: Any, problem: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(problem)):
        LocalServer(planner_prompt=prompt)


def test_a_team_may_replace_the_planners_prompt() -> None:
    planner = Teller("planner", "'done'")
    with LocalServer(script=[planner.rule], planner_prompt="Plan!\n$tools\n$request$$") as server:
        model = ChatSequrity("any/model", base_url=server.base_url, features=DUAL)
        model.bind_tools([LOOK_UP]).invoke("Go")
    assert planner.prompts[0].startswith("Plan!\n- look_up(*, word: str) -> unknown\n")
    assert planner.prompts[0].split("\n\n")[-2].endswith("$")
