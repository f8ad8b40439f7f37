"""The prompts of both models: the planner sees no data, the data model sees only data (T3).

Each piece of data is a unique name, `canary_…`, which no prompt of the planner may contain.
"""

import json
import re
from typing import Any

import pytest

from langchain_sequrity.local.conversation import text_of
from tests.local.api import Message, result
from tests.local.dual_llm.conversation import Teller, enough, reads
from tests.local.dual_llm.dialog import (
    TOOLS,
    Begin,
    Dialog,
    Json,
    error,
    value,
    words,
)

LOOK = 'x = look_up(word="a")\n'
IMPORTS = "import json, re\nfrom datetime import datetime\nfrom pydantic import BaseModel\n"
LABELS = {"producers": ["canary_p"], "consumers": ["canary_c"], "tags": ["canary_t"]}

# Programs that fail, and whether the text of the error contains data of the tool.
FAILURES = {
    "raise": ("raise ValueError(x)", True),
    "cause": ("try:\n    int(x)\nexcept ValueError as e:\n    raise KeyError(x) from e", True),
    "number": ("int(x)", True),
    "key": ("{}[x]", True),
    "date": ("datetime.fromisoformat(x)", True),
    "format": ("f'{1:{x}}'", True),
    "assert": ("assert not x, x", True),
    "exit": ("exit(x)", True),
    "unknown argument": ("send(**{x: 1})", True),
    "tool error": ("raise ToolError(x)", True),
    "policy": ("set_policy(policy=x)", True),
    "json": ("json.loads(x)", False),
    "pattern": ("re.compile('(' + x)", False),
    "type": ("x + 1", False),
    "model": ("class M(BaseModel):\n    n: int\nM(n=x)", False),
    "answer": (reads("x"), False),
    "schema": ("parse_with_ai(query=x, output_schema={'type': x, 'x': [x]})", False),
    "value": ("final_return_value = {x: float('nan')}", False),
}
TOOL_NAMES = ["parse_with_ai", "verify_hypothesis", "set_policy", "complete_turn"]


def canaries(*texts: str) -> set[str]:
    return set(re.findall(r"canary_\w+", "\n".join(texts)))


def told(dialog: Dialog) -> list[list[tuple[str, Any]]]:
    """The messages of each request to the planner."""
    return [
        [(one.type, one.content) for one in request.messages] for request in dialog.planner.requests
    ]


def heard(dialog: Dialog) -> set[str]:
    """The data that the planner saw."""
    return canaries(json.dumps(told(dialog)))


def failing(begin: Begin, failure: str, content: str, level: str = "normal", **fsm: Any) -> Dialog:
    config = {
        "fsm": {"enabled_internal_tools": TOOL_NAMES, **fsm},
        "prompt": {"pllm": {"debug_info_level": level}},
    }
    reader = Teller("quarantined", "canary_read")
    program = f"{IMPORTS}{LOOK}{failure}"
    dialog = begin(program, "'repaired'", tellers=(reader,), config=config)
    dialog.say()
    assert value(dialog.answer(content)) == "repaired"
    return dialog


@pytest.mark.parametrize(("failure", "has_data"), FAILURES.values(), ids=FAILURES)
def test_the_request_for_a_repair_does_not_contain_the_text_of_the_error(
    begin: Begin, failure: str, has_data: bool
) -> None:
    one, other = (failing(begin, failure, f"canary_{name}") for name in ("alpha", "omega"))
    assert told(one) == told(other)
    assert (len(told(one)), heard(one)) == (2, set())
    assert "at line" in str(told(one)[1][-1])
    extra = failing(begin, failure, "canary_alpha", level="extra")
    assert heard(extra) == ({"canary_alpha"} if has_data else set())


@pytest.mark.parametrize("wraps", [False, True])
def test_the_planner_does_not_see_the_error_text_of_a_tool(begin: Begin, wraps: bool) -> None:
    failure = "raise ToolError(x['error'])" if wraps else "x"
    content = "Error: canary_error"
    dialog = failing(begin, failure, content, detect_tool_errors="regex", wrap_tool_result=wraps)
    assert (len(told(dialog)), heard(dialog)) == (2, set())
    assert "ToolError" in str(told(dialog)[1])


@pytest.mark.parametrize(
    ("program", "policy"),
    [
        ("send(word=x)", 'tool "send" { must deny when word.value == "canary_x"; }'),
        ("if x: pass", {"mode": "custom", "presets": {"branching_meta_policy": {"mode": "deny", "tags": ["__non_executable"]}}}),
    ],
)  # fmt: skip
def test_the_request_for_another_program_after_a_denial_does_not_contain_its_arguments(
    begin: Begin, program: str, policy: str | Json
) -> None:
    fsm = {"retry_on_policy_violation": True}
    dialog = begin(LOOK + program, "'other way'", policy=policy, config={"fsm": fsm})
    dialog.say()
    assert value(dialog.answer("canary_x")) == "other way"
    assert (len(told(dialog)), heard(dialog)) == (2, set())
    assert "at line 2" in str(told(dialog)[1])


def a_long_conversation(begin: Begin, name: str) -> Dialog:
    """A conversation with every kind of data in its results and answers."""
    reader = Teller("quarantined", enough(f"canary_read_{name}"))
    wrapper = json.dumps(
        {"value": f"canary_wrapped_{name}", "is_sequrity_var": True, "meta": LABELS}
    )
    dialog = begin(
        f"{LOOK}y = [x, {{x: {reads('x')}}}]\nfinal_return_value = y",
        "final_return_value = send(word=y[0])",
        f"{LOOK}z = send(word=x)",
        "1",
        LOOK,
        "final_return_value = [look_up(word=x), y]",
        "'last'",
        tellers=(reader,),
        config={"fsm": {"max_pllm_steps": 1}},
    )
    dialog.say("First")
    value(dialog.answer(f"canary_result_{name}"))
    dialog.say("Second")
    value(dialog.answer(wrapper))
    dialog.say("Third")
    dialog.answer(f"canary_cancelled_{name}", "Fourth")  # cancels the next call
    dialog.say("Fifth")
    value(dialog.answer(f"canary_unused_{name}"))
    dialog.say("Sixth")
    error(dialog.answer('{"value": "canary_bad", "is_sequrity_var": true}'))
    assert value(dialog.say("Seventh")) == "last"
    return dialog


def test_later_turns_do_not_show_the_planner_results_and_answers(begin: Begin) -> None:
    one, other = (a_long_conversation(begin, name) for name in ("alpha", "omega"))
    assert told(one) == told(other)
    assert (len(told(one)), heard(one)) == (7, set())
    last = str(told(one)[-1])
    assert all(text in last for text in ("First", "Fourth", "Sixth", "y: list of length 2"))
    assert len(canaries(json.dumps(one.history))) > 5


def test_later_steps_show_the_planner_only_types_and_sizes(begin: Begin) -> None:
    def run(name: str) -> Dialog:
        fsm = {"enable_multistep_planning": True}
        programs = (LOOK, "y = {x: [x]}", "raise KeyError(x)", "final_return_value = y")
        dialog = begin(*programs, config={"fsm": fsm})
        dialog.say()
        assert value(dialog.answer(f"canary_{name}")) == {f"canary_{name}": [f"canary_{name}"]}
        return dialog

    one, other = run("alpha"), run("omega")
    assert told(one) == told(other)
    assert (len(told(one)), heard(one)) == (4, set())
    assert "x: str of length 12" in str(told(one)[1])
    assert "y: dict of length 1" in str(told(one)[2])


def test_the_planner_sees_a_system_message_also_in_later_turns(begin: Begin) -> None:
    dialog = begin("'done'")
    dialog.send({"role": "system", "content": "canary_system"}, words("Go"))
    assert value(dialog.say("On")) == "done"
    assert canaries(dialog.planner.prompts[1]) == {"canary_system"}


def test_the_planner_sees_images_of_the_user_but_not_of_a_tool(begin: Begin) -> None:
    def image(data: str) -> Json:
        url = f"data:image/png;base64,{data}"
        return {"type": "image_url", "image_url": {"url": url}}

    dialog = begin(f"{LOOK}1 / 0", "'done'")
    text = {"type": "text", "text": "Go"}
    dialog.send({"role": "user", "content": [text, image("AAAA")]})
    seen = {"role": "tool", "tool_call_id": dialog.open_call, "content": [text, image("BBBB")]}
    assert value(dialog.send(seen)) == "done"
    for messages in told(dialog):
        assert ("AAAA" in str(messages), "BBBB" in str(messages)) == (True, False)


# What X-Config includes


def foreign_past() -> list[Message]:
    """A history of another session."""
    call = {"name": "look_up", "arguments": '{"word": "canary_argument"}'}
    return [
        {"role": "system", "content": "canary_system"},
        words("canary_user"),
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": call}]},
        result("1", "canary_result"),
        {"role": "assistant", "content": "canary_answer"},
        words("Go on"),
    ]  # fmt: skip


TRUSTED = {"canary_system", "canary_user"}


@pytest.mark.parametrize(
    ("prompt", "added"),
    [
        ({}, set()),
        ({"debug_info_level": "extra", "context_var_visibility": "all"}, set()),
        ({"query_inline_roles": ["system", "developer"]}, set()),
        ({"query_inline_roles": ["assistant"]}, {"canary_answer"}),
        ({"query_inline_roles": ["tool"]}, {"canary_result"}),
        ({"query_include_tool_calls": True}, set()),
        ({"query_include_tool_args": True}, set()),
        ({"query_include_tool_calls": True, "query_include_tool_args": True}, {"canary_argument"}),
        ({"query_include_tool_results": True}, {"canary_result"}),
        ({"query_role_name_overrides": {"tool": "assistant", "assistant": "user"}}, set()),
    ],
)
def test_the_planner_sees_of_a_foreign_history_user_texts_and_what_x_config_includes(
    begin: Begin, prompt: Json, added: set[str]
) -> None:
    dialog = begin("'done'", config={"prompt": {"pllm": prompt}})
    assert value(dialog.send(*foreign_past())) == "done"
    assert heard(dialog) == TRUSTED | added


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ({}, set()),
        ({"query_include_tool_results": True}, {"canary_result"}),
        ({"query_inline_roles": ["assistant"]}, {"canary_canary_result"}),
    ],
)
def test_the_planner_sees_of_its_own_history_what_x_config_includes(
    begin: Begin, prompt: Json, expected: set[str]
) -> None:
    program = f"{LOOK}final_return_value = 'can' + f'ary_{{x}}'"
    dialog = begin(program, "'done'", config={"prompt": {"pllm": prompt}})
    dialog.say()
    assert value(dialog.answer("canary_result")) == "canary_canary_result"
    value(dialog.say("And now?"))
    assert heard(dialog) == expected


VARIABLES = f"""{LOOK}
t = "canary_" + "written"
n = 12345
m = len(x) + 54321 - 13
both = [t, x]
mine = [t]
'done'"""


@pytest.mark.parametrize("steps", [False, True], ids=["next turn", "next step"])
@pytest.mark.parametrize(
    ("visibility", "expected"),
    [
        (None, []),
        ("none", []),
        ("basic-notext", ["m", "n"]),
        ("basic-executable", ["m", "n", "t"]),
        ("all-executable", ["mine", "n", "t"]),
        ("all", ["both", "m", "mine", "n", "t", "x"]),
    ],
)
def test_context_var_visibility_decides_which_values_the_planner_sees(
    begin: Begin, visibility: str | None, expected: list[str], steps: bool
) -> None:
    config = {
        "fsm": {"enable_multistep_planning": steps},
        "prompt": {"pllm": {"context_var_visibility": visibility}},
    }
    dialog = begin(VARIABLES, "'done'", config=config)
    dialog.say()
    value(dialog.answer("canary_result"))
    if not steps:  # otherwise the answer began the next step
        value(dialog.say())
    prompt = "\n".join(content for _, content in told(dialog)[1])
    text = prompt.partition("Variables that exist already:\n")[2]
    shown = dict(re.findall(r"^- (\w+) = (.*)$", text, re.MULTILINE))
    values = {
        "x": "canary_result", "t": "canary_written", "n": 12345, "m": 54321,
        "both": ["canary_written", "canary_result"], "mine": ["canary_written"],
    }  # fmt: skip
    assert {name: json.loads(text) for name, text in shown.items()} == {
        name: values[name] for name in expected
    }
    kinds = {
        "x": "str of length 13", "t": "str of length 14", "n": "int", "m": "int",
        "both": "list of length 2", "mine": "list of length 1",
    }  # fmt: skip
    listed = dict(re.findall(r"^- (\w+): (.*)$", text, re.MULTILINE))
    assert listed == (kinds if visibility is None else {})


# The data model


def test_the_data_model_sees_only_its_query_and_has_no_tools(begin: Begin) -> None:
    program = (
        LOOK + "y = " + reads("f'Who? {x}'") + "\n"
        "z = verify_hypothesis(hypothesis='It is (y).', y=y)\n[y, z]"
    )
    reader = Teller("quarantined", enough("canary_read"), {"value": True})
    dialog = begin(program, tellers=(reader,))
    dialog.send({"role": "system", "content": "canary_system"}, words("canary_user"))
    assert value(dialog.answer("canary_result")) == ["canary_read", True]
    asked, judged = ([*map(text_of, one.messages)] for one in reader.requests)
    assert asked[1:] == ["Who? canary_result"]
    assert judged[1:] == ['It is (y).\n\nData:\n"y": "canary_read"']
    assert canaries(asked[0], judged[0]) == set()
    for request in reader.requests:
        assert [one.type for one in request.messages] == ["system", "human"]
        assert (request.tools, request.server_tools, request.tool_choice) == ([], [], None)
        assert request.model.endswith("/worker")


def test_requests_to_the_planner_have_tools_only_in_the_prompt(begin: Begin) -> None:
    dialog = begin("'done'")
    dialog.say()
    [request] = dialog.planner.requests
    assert (request.tools, request.server_tools, request.tool_choice) == ([], [], None)
    assert all(tool["function"]["name"] in dialog.planner.prompts[0] for tool in TOOLS)
