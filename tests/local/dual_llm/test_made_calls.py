"""A turn makes no call twice (`docs/behaviour.md`, T5)."""

import pytest

from tests.local.api import result, tool
from tests.local.dual_llm.conversation import Stage
from tests.local.dual_llm.dialog import Begin, calls, ended, error, value, words
from tests.local.dual_llm.repeats import EVENTS, Turn

LOOKED_UP = [("look_up", {"word": "a"})]
FAILS = 'found = look_up(word="a")\n1 / 0'
RESTARTS = {"fsm": {"history_mismatch_policy": "restart_turn"}}
SECRET = 'tool "look_up" { result { @tags |= {"secret"}; } }'
NO_SECRETS = f'{SECRET} tool "send" {{ must deny when word.tags overlaps {{"secret"}}; }}'
ONCE = """
tool "send" {
    must deny when "sent" in @session.tags;
    session after { @tags |= {"sent"}; }
}
"""


def test_a_repair_gets_the_result_of_a_call_that_was_made_before(begin: Begin) -> None:
    dialog = begin(FAILS, 'final_return_value = look_up(word="a") + 1')
    assert calls(dialog.say()) == LOOKED_UP
    assert value(dialog.answer("41")) == 42
    assert "- look_up: int" in dialog.planner.prompts[1]
    assert "41" not in dialog.planner.prompts[1]


@pytest.mark.parametrize(
    "again",
    ['{"b": 2, "a": [1, 5.0]}', '{"a": [1.0, 5], "b": 2}'],
    ids=["another order", "other numbers"],
)
def test_calls_that_a_tool_cannot_distinguish_are_the_same_call(begin: Begin, again: str) -> None:
    first = 'found = look_up(**{"word": {"a": [1, 5], "b": 2}})\n1 / 0'
    dialog = begin(first, f"final_return_value = look_up(**{{'word': {again}}})")
    dialog.say()
    assert value(dialog.answer("1")) == 1


def test_a_call_that_writes_out_a_default_is_the_same_call(begin: Begin) -> None:
    dialog = begin(
        "found = look_up(word='a')\n1 / 0", "final_return_value = look_up(word='a', depth=1)"
    )
    properties = {"word": {"type": "string"}, "depth": {"type": "integer", "default": 1}}
    function = {"name": "look_up", "parameters": {"type": "object", "properties": properties}}
    tools = [{"type": "function", "function": function}]
    dialog.send(words("Go"), tools=tools)
    assert value(dialog.send(result(dialog.open_call, "1"), tools=tools)) == 1


@pytest.mark.parametrize("times", [1, 2, 3])
def test_additional_calls_of_a_repair_are_made(begin: Begin, times: int) -> None:
    repair = f"final_return_value = [look_up(word='a') for _ in range({times})]"
    dialog = begin(FAILS, repair)
    dialog.say()
    reply = dialog.answer("1")
    for number in range(2, times + 1):
        assert calls(reply) == LOOKED_UP
        reply = dialog.answer(str(number))
    assert value(reply) == [*range(1, times + 1)]


def test_the_same_call_twice_in_one_program_is_two_calls(begin: Begin) -> None:
    dialog = begin('final_return_value = [look_up(word="a"), look_up(word="a")]')
    assert calls(dialog.say()) == calls(dialog.answer("1")) == LOOKED_UP
    assert value(dialog.answer("2")) == [1, 2]


def test_each_repair_gets_the_results_of_all_earlier_programs(begin: Begin) -> None:
    two = 'a = look_up(word="a")\nb = send(word="b")\n'
    dialog = begin(FAILS, f"{two}1 / 0", f"{two}final_return_value = [a, b]")
    dialog.say()
    assert calls(dialog.answer("1")) == [("send", {"word": "b"})]
    assert value(dialog.answer("2")) == [1, 2]
    prompt = dialog.planner.prompts[2]
    assert prompt.index("- look_up: int") < prompt.index("- send: int")


def test_a_failed_tool_may_be_called_again_and_the_planner_sees_that_it_failed(
    begin: Begin,
) -> None:
    config = {"fsm": {"detect_tool_errors": "regex"}}
    dialog = begin('final_return_value = look_up(word="a")', config=config)
    dialog.say()
    assert calls(dialog.answer("Error: busy")) == LOOKED_UP
    assert "- look_up: it failed" in dialog.planner.prompts[1]
    assert value(dialog.answer("1")) == 1


def test_the_error_of_a_failed_turn_names_the_calls_that_were_made(begin: Begin) -> None:
    dialog = begin(FAILS, config={"fsm": {"max_pllm_failed_steps": 2}})
    dialog.say()
    assert "Calls were made before: `look_up`." in error(dialog.answer("1"))[1]


# Labels and policy


def test_a_result_keeps_its_labels_in_a_repair(begin: Begin) -> None:
    dialog = begin(FAILS, 'send(word=look_up(word="a"))', policy=NO_SECRETS)
    dialog.say()
    assert error(dialog.answer("1"))[0] == "policy_violation"


def test_a_reused_result_gets_the_labels_of_the_repairs_arguments(begin: Begin) -> None:
    policy = f'{SECRET} tool "find" {{ }}'
    dialog = begin(
        'word = look_up(word="a")\nfound = send(word="b")\n1 / 0',
        'word = look_up(word="a")\nfinal_return_value = send(word=word)',
        policy=policy,
    )
    dialog.say()
    dialog.answer('"b"')
    reply = dialog.answer("1")
    assert value(reply) == 1
    assert ended(reply)["final_return_value"]["meta"]["tags"] == ["__non_executable", "secret"]


def test_a_policy_that_allows_a_call_once_lets_a_repair_reuse_its_result(begin: Begin) -> None:
    dialog = begin(
        'send(word="a")\n1 / 0',
        'final_return_value = send(word="a")',
        "final_return_value = 'over'",
        'final_return_value = send(word="b")',
        policy=ONCE,
    )
    dialog.say()
    assert value(dialog.answer("1")) == 1
    assert dialog.state.labels.tags == {"sent"}
    dialog.say()
    assert error(dialog.say())[0] == "policy_violation"  # a new argument, so it is checked


@pytest.mark.parametrize("when", ["never", "every_attempt"])
def test_a_reused_result_adds_its_session_labels_again(begin: Begin, when: str) -> None:
    marks = 'tool "look_up" { session after { @tags |= {"read"}; } }'
    marks += ' tool "send" { must deny when "read" in @session.tags; }'
    dialog = begin(
        FAILS,
        f'{FAILS[:-6]}\nsend(word="b")',
        policy=marks,
        config={"fsm": {"clear_session_meta": when}},
    )
    dialog.say()
    assert error(dialog.answer("1"))[0] == "policy_violation"


def test_a_reused_result_does_not_remove_session_labels_of_later_calls(begin: Begin) -> None:
    policy = """
        tool "send" { session after { @tags |= {"sent"}; } }
        tool "look_up" { must deny when word.value == "c" and "sent" in @session.tags; }
    """
    dialog = begin(
        'look_up(word="a")\nsend(word="b")\n1 / 0',
        'look_up(word="a")\nlook_up(word="c")',
        policy=policy,
    )
    dialog.say()
    dialog.answer("1")
    assert error(dialog.answer("2"))[0] == "policy_violation"


# The planner's prompt


def test_the_planner_does_not_see_argument_names_that_came_from_data(begin: Begin) -> None:
    properties = {"word": {"type": "string"}}
    schema = {"type": "object", "properties": properties, "additionalProperties": True}
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": schema}}]
    program = 'key = look_up(word="a")\nlook_up(word="b", **{key: 1})\n1 / 0'
    dialog = begin(program, "final_return_value = 1")
    dialog.send(words("Go"), tools=tools)
    reply = dialog.send(result(dialog.open_call, "canary"), tools=tools)
    assert calls(reply) == [("look_up", {"word": "b", "canary": 1})]
    assert value(dialog.send(result(dialog.open_call, "1"), tools=tools)) == 1
    assert "canary" not in dialog.planner.prompts[-1]
    assert dialog.planner.prompts[-1].count("- look_up:") == 2


def test_types_of_results_are_hidden_if_context_var_visibility_is_none(begin: Begin) -> None:
    config = {"prompt": {"pllm": {"context_var_visibility": "none"}}}
    dialog = begin(FAILS, "final_return_value = 1", config=config)
    dialog.say()
    assert value(dialog.answer('"text"')) == 1
    assert "- look_up\n" in f"{dialog.planner.prompts[-1]}\n"
    assert "str of length" not in dialog.planner.prompts[-1]


# Restarted turns, new turns and histories of other sessions


def test_a_restarted_turn_gets_the_results_of_calls_that_it_made_before(begin: Begin) -> None:
    dialog = begin('final_return_value = [look_up(word="a"), send(word="b")]', config=RESTARTS)
    dialog.say()
    dialog.answer("1")
    asked, *others = dialog.history
    dialog.history = []
    reply = dialog.send(
        words("A summary"), others[-1], result(others[-1]["tool_calls"][0]["id"], "2")
    )
    assert value(reply) == [1, 2]
    assert asked["content"] not in dialog.planner.prompts[-1]


def test_a_restarted_turn_may_have_fewer_tools(begin: Begin) -> None:
    dialog = begin(
        'final_return_value = [look_up(word="a"), send(word="b")]',
        "final_return_value = 1",
        config=RESTARTS,
    )
    dialog.say()
    dialog.answer("1")
    (_, *others), dialog.history = dialog.history, []
    answered = result(others[-1]["tool_calls"][0]["id"], "2")
    reply = dialog.send(words("A summary"), *others, answered, tools=[tool("send")])
    assert value(reply) == 1
    assert "- send: int" in dialog.planner.prompts[-1]
    assert "- look_up" not in dialog.planner.prompts[-1]


def test_a_policy_that_allows_a_call_once_lets_a_restarted_turn_reuse_its_result(
    begin: Begin,
) -> None:
    program = 'final_return_value = [send(word="a"), look_up(word="b")]'
    dialog = begin(program, policy=ONCE, config=RESTARTS)
    dialog.say()
    dialog.answer("1")
    (_, *others), dialog.history = dialog.history, []
    answered = result(others[-1]["tool_calls"][0]["id"], "2")
    assert value(dialog.send(words("A summary"), *others, answered)) == [1, 2]


def test_a_turn_with_another_question_does_not_get_the_results_of_the_turn_that_it_replaces(
    begin: Begin,
) -> None:
    program = 'final_return_value = [look_up(word="a"), send(word="b")]'
    dialog = begin(program, config=RESTARTS)
    dialog.say("Go")
    assert calls(dialog.answer("1")) == [("send", {"word": "b"})]
    dialog.history = []
    other = {"role": "assistant", "content": "An answer of another session."}
    assert calls(dialog.send(words("Go"), other, words("Another question"))) == LOOKED_UP


def test_a_new_turn_makes_the_calls_of_an_earlier_turn_again(begin: Begin) -> None:
    dialog = begin(FAILS, "final_return_value = 'over'", 'final_return_value = look_up(word="a")')
    dialog.say()
    assert value(dialog.answer("1")) == "over"
    assert calls(dialog.say()) == LOOKED_UP
    assert value(dialog.answer("2")) == 2


def test_a_later_step_makes_the_call_of_a_successful_step_again(begin: Begin) -> None:
    config = {"fsm": {"enable_multistep_planning": True}}
    dialog = begin(
        'final_return_value = None\na = look_up(word="a")\n1 / 0',
        'final_return_value = None\na = look_up(word="a")',
        'final_return_value = [a, look_up(word="a")]',
        config=config,
    )
    dialog.say()
    assert calls(dialog.answer("1")) == LOOKED_UP  # the call of the third step
    assert value(dialog.answer("2")) == [1, 2]


def test_a_new_session_takes_the_results_in_its_history(begin: Begin) -> None:
    dialog = begin('final_return_value = [look_up(word="a"), send(word="b")]')
    call = {"name": "look_up", "arguments": '{"word": "a"}'}
    asked = {
        "role": "assistant", "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
    }  # fmt: skip
    reply = dialog.send(words("Go"), asked, result("call_1", "1"))
    assert calls(reply) == [("send", {"word": "b"})]
    assert "- look_up: int" in dialog.planner.prompts[0]
    assert value(dialog.answer("2")) == [1, 2]


@pytest.mark.long(sample=12)
@pytest.mark.parametrize("number", range(40))
def test_a_random_turn_repeats_no_call(stage: Stage, number: int) -> None:
    assert Turn(number).played(stage) == ""


def test_the_random_turns_together_contain_every_event() -> None:
    met = set[str]().union(*(Turn(number).kinds for number in range(40)))
    assert met == {*EVENTS, "None", "continue", "restart_turn", "repair", "tool fails", "steps"}


def test_a_restarted_turn_gets_the_results_of_its_successful_steps(begin: Begin) -> None:
    fsm = {"enable_multistep_planning": True, **RESTARTS["fsm"]}
    dialog = begin(
        'final_return_value = None\na = look_up(word="a")',
        'final_return_value = send(word="b")',
        'final_return_value = [look_up(word="a"), send(word="b")]',
        config={"fsm": fsm},
    )
    dialog.say()
    assert calls(dialog.answer("1")) == [("send", {"word": "b"})]
    last, dialog.history = dialog.history[-1], []
    answered = result(last["tool_calls"][0]["id"], "2")
    assert value(dialog.send(words("A summary"), last, answered)) == [1, 2]


STEPS = {"fsm": {"enable_multistep_planning": True, "detect_tool_errors": "regex"}}
ASKS = 'final_return_value = None\na = look_up(word="a")\n'
TWICE = 'final_return_value = None\na = [look_up(word="a"), look_up(word="a")]\n'
LAST = 'final_return_value = [a, look_up(word="a")]'


@pytest.mark.parametrize(
    ("programs", "results", "expected"),
    [
        ((f"{ASKS}1 / 0", "final_return_value = None\na = 0", LAST), ["1"], [0, 1]),
        ((f"{TWICE}1 / 0", ASKS, LAST), ["1", "2"], [1, 2]),
        ((TWICE, LAST), ["1", "2", "3"], [[1, 2], 3]),
        ((ASKS, ASKS, LAST), ["Error: busy", "1", "2"], [1, 2]),
    ],
    ids=["it asks for none", "it asks for one of two", "it asks for two", "one had failed"],
)
def test_a_successful_step_uses_up_exactly_the_results_that_it_asks_for(
    begin: Begin, programs: tuple[str, ...], results: list[str], expected: list[object]
) -> None:
    dialog = begin(*programs, config=STEPS)
    reply = dialog.say()
    for content in results:
        assert calls(reply) == LOOKED_UP
        reply = dialog.answer(content)
    assert value(reply) == expected
