"""Scripts: rules that answer before the other backend does."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)

from langchain_sequrity.errors import RateLimited, ServerFailed, StatusError, UsageError
from langchain_sequrity.local.backends import BackendContext
from langchain_sequrity.local.deterministic_model import DeterministicModel
from langchain_sequrity.local.script import Script, ScriptBackend
from langchain_sequrity.wire.exchange import ChatRequest

WEATHER_CALL = {"name": "get_weather", "args": {"city": "Rome"}, "id": "1"}
AFTER_A_TOOL: list[BaseMessage] = [
    HumanMessage("Weather?"),
    AIMessage("", tool_calls=[WEATHER_CALL]),
    ToolMessage("sunny", tool_call_id="1"),
]


def ask(prompt: str | list[BaseMessage] = "Hello", **request: Any) -> ChatRequest:
    messages = [HumanMessage(prompt)] if isinstance(prompt, str) else prompt
    return ChatRequest(**{"model": "any/model", "messages": messages, **request})


def answer(
    rules: Script | list[dict[str, Any]],
    request: ChatRequest | str = "Hello",
    **context: Any,
) -> AIMessageChunk:
    script = rules if isinstance(rules, Script) else Script(rules)
    backend = ScriptBackend(script, DeterministicModel())
    asked = ask(request) if isinstance(request, str) else request
    first, *others = backend.stream(asked, BackendContext(**context))
    return first + others if others else first


# Choice of the rule


def test_the_first_rule_that_matches_answers() -> None:
    rules: list[dict[str, Any]] = [
        {"when": {"user": "(?i)bye"}, "text": "one"},
        {"when": {"user": "Hel+o"}, "text": "two"},
        {"text": "three"},
    ]
    assert answer(rules).text == "two"


def test_the_other_backend_answers_if_no_rule_matches() -> None:
    assert answer([{"when": {"user": "bye"}, "text": "one"}]).text == "You said: Hello"


@pytest.mark.parametrize(
    ("when", "matches"),
    [
        ({}, True),
        ({"model": "any/"}, True),
        ({"model": "^gpt"}, False),
        ({"endpoint_type": "chat"}, True),
        ({"endpoint_type": "code"}, False),
        ({"role": "chat"}, True),
        ({"role": "planner"}, False),
        ({"tool_result": "."}, False),
        ({"user": "Hello", "model": "any"}, True),
        ({"user": "Hello", "model": "none"}, False),
    ],
)
def test_all_conditions_of_a_rule_must_hold(when: dict[str, str], matches: bool) -> None:
    assert (answer([{"when": when, "text": "matched"}]).text == "matched") is matches


def test_a_tool_result_counts_only_until_the_user_speaks_again() -> None:
    rules: list[dict[str, Any]] = [{"when": {"tool_result": "sun"}, "text": "It is {tool_result}."}]
    assert answer(rules, ask(AFTER_A_TOOL)).text == "It is sunny."
    later = ask([*AFTER_A_TOOL, AIMessage("Sunny."), HumanMessage("And tomorrow?")])
    assert answer(rules, later).text == "You said: And tomorrow?"


ASKED = ("chat", "planner", "quarantined", "classifier", "policy")
CALLS = [{"name": "ping"}]
# What happens if each of the roles above asks and the rule names no role: it answers, is skipped
# because another role of the same session is meant, or fails because no role of the session is.
ANSWERS: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"text": "x"}, "answers fails fails skips skips"),
    "tool_calls": ({"tool_calls": CALLS}, "answers fails fails skips skips"),
    "refusal": ({"refusal": "x"}, "answers fails fails skips skips"),
    "reasoning": ({"reasoning": "x"}, "answers fails fails skips skips"),
    "program": ({"program": "x"}, "fails answers skips skips skips"),
    "value": ({"value": "x"}, "skips skips answers answers skips"),
    "policy": ({"policy": "x"}, "skips skips skips skips answers"),
    "error": ({"error": {"status": 418}}, "answers answers answers answers answers"),
    "answer": ({"answer": lambda _request: "x"}, "answers answers answers answers answers"),
}
# The roles that may be named beside an answer; for others the rule is refused.
NAMED = {
    **dict.fromkeys(ANSWERS, ASKED),
    "tool_calls": ("chat",),
    "program": ("planner",),
    "value": ("quarantined", "classifier"),
    "policy": ("policy",),
}


def happens(rule: dict[str, Any], asked: str, endpoint_type: str = "chat") -> str:
    try:
        message = answer([rule], role=asked, endpoint_type=endpoint_type)
    except ServerFailed as error:
        return "fails" if "Rule 1 of the script: it matches, but" in str(error) else str(error)
    except StatusError as error:
        return "answers" if error.status == 418 else str(error)
    return "skips" if "You said" in str(message.text) else "answers"


@pytest.mark.parametrize("endpoint_type", ["chat", "code", "agent"])
@pytest.mark.parametrize(("fields", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_a_rule_without_a_role_answers_or_fails_if_its_answer_is_for_the_other_architecture(
    fields: dict[str, Any], expected: str, endpoint_type: str
) -> None:
    assert " ".join(happens(fields, role, endpoint_type) for role in ASKED) == expected
    limited = {**fields, "when": {"endpoint_type": "agent"}}
    if "policy" not in fields:
        others = " ".join(["skips"] * len(ASKED))
        found = " ".join(happens(limited, role, endpoint_type) for role in ASKED)
        assert found == (expected if endpoint_type == "agent" else others)


@pytest.mark.parametrize("role", ASKED)
@pytest.mark.parametrize("name", ANSWERS)
def test_a_rule_with_a_role_answers_only_this_role_or_is_refused(name: str, role: str) -> None:
    rule = {**ANSWERS[name][0], "when": {"role": role}}
    if role not in NAMED[name]:
        with pytest.raises(UsageError, match=f"the role `{role}`, but `{name}` answers only"):
            Script([rule])
        return
    expected = {asked: "answers" if asked == role else "skips" for asked in ASKED}
    assert {asked: happens(rule, asked) for asked in ASKED} == expected


@pytest.mark.parametrize(
    ("asked", "here", "fields", "there"),
    [
        ("chat", "single-LLM", {"program": "x"}, "`program` is for `planner` in dual-LLM sessions"),
        ("planner", "dual-LLM", {"text": "x"}, "`text` is for `chat` in single-LLM sessions"),
        ("planner", "dual-LLM", {"tool_calls": CALLS}, "`tool_calls` is for `chat` in single-LLM"),
        ("quarantined", "dual-LLM", {"refusal": "x"}, "`refusal` is for `chat` in single-LLM"),
    ],
)
def test_a_rule_for_the_other_architecture_fails_unless_another_one_answers_or_it_names_its_role(
    asked: str, here: str, fields: dict[str, Any], there: str
) -> None:
    rule, own = {"when": {"user": "Hello"}, **fields}, {"when": {"role": asked}, "text": "own"}
    with pytest.raises(ServerFailed) as caught:
        answer([{"when": {"user": "bye"}, "text": "x"}, rule], role=asked)
    for part in ("Rule 2 of the script", there, f"this {here} session asks `{asked}`"):
        assert part in str(caught.value)
    assert answer([rule, own], role=asked).text == "own"
    assert "You said" in answer([{**rule, "when": {"user": "bye"}}], role=asked).text
    named = {**rule, "when": {"role": "planner" if asked == "chat" else "chat"}}
    assert "You said" in answer([named], role=asked).text


def test_a_rule_for_a_tool_result_fails_for_a_planner_which_sees_none() -> None:
    rule = {"when": {"tool_result": "sun"}, "text": "x"}
    assert happens(rule, "planner") == "fails"
    assert happens({**rule, "when": {"tool_result": "sun", "user": "bye"}}, "planner") == "skips"


@pytest.mark.parametrize(
    ("returned", "roles"),
    [
        ("x", ASKED),
        ({"text": "x"}, ASKED),
        ({"text": "x", "tool_calls": []}, ASKED),
        (AIMessage("x"), ASKED),
        (AIMessage("", tool_calls=[WEATHER_CALL]), ("chat",)),
        ({"tool_calls": CALLS}, ("chat",)),
        ({"program": "x"}, ("planner",)),
        ({"value": "x"}, ("quarantined", "classifier")),
        ({"policy": "x"}, ("policy",)),
    ],
)
def test_a_function_may_answer_only_with_what_the_role_that_asks_can_use(
    returned: Any, roles: tuple[str, ...]
) -> None:
    for role in ASKED:
        rules = [{"answer": lambda _request: returned}]
        if role in roles:
            answer(rules, role=role)
        else:
            with pytest.raises(ServerFailed, match=rf"Rule 1 .* It returned .*, and `{role}` asks"):
                answer(rules, role=role)


def test_a_rule_is_used_as_often_as_its_times_field_says() -> None:
    script = Script([{"text": "once", "times": 1}, {"text": "twice", "times": 2}])
    texts = [answer(script).text for _ in range(4)]
    assert texts == ["once", "twice", "twice", "You said: Hello"]


def test_times_is_counted_correctly_with_several_threads() -> None:
    script = Script([{"text": "mine", "times": 20}])
    texts: list[str] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        texts.extend(str(answer(script).text) for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(texts), texts.count("mine")) == (80, 20)


def test_a_rule_whose_regex_takes_too_long_is_an_error_that_names_the_rule() -> None:
    script = Script([{"when": {"user": "(a|aa)+$"}, "text": "x"}])
    started = time.monotonic()
    with pytest.raises(ServerFailed, match=r"Rule 1 .*`user` takes longer") as caught:
        answer(script, "a" * 60 + "!")
    assert caught.value.status == 500
    assert time.monotonic() - started < 5


# Answers


def test_an_answer_may_have_text_reasoning_and_calls() -> None:
    message = answer(
        [
            {
                "text": "Let me look.",
                "reasoning": "Weather is asked for.",
                "tool_calls": [{"name": "get_weather", "arguments": {"city": "Rome"}}],
                "finish_reason": "tool_calls",
            }
        ]
    )
    assert message.text == "Let me look."
    assert message.additional_kwargs == {"reasoning_content": "Weather is asked for."}
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [
        ("get_weather", {"city": "Rome"})
    ]


def test_a_call_without_arguments_has_empty_arguments() -> None:
    assert answer([{"tool_calls": [{"name": "ping"}]}]).tool_calls[0]["args"] == {}


def test_the_placeholder_tool_result_is_replaced_in_arguments() -> None:
    call = {"name": "send", "arguments": {"lines": ["It is {tool_result}."], "n": 1}}
    rules = [{"when": {"tool_result": "."}, "tool_calls": [call]}]
    [made] = answer(rules, ask(AFTER_A_TOOL)).tool_calls
    assert made["args"] == {"lines": ["It is sunny."], "n": 1}


def test_the_placeholder_tool_result_without_a_tool_result_is_an_error() -> None:
    with pytest.raises(ServerFailed, match="cannot be replaced"):
        answer([{"text": "It is {tool_result}."}])


def test_a_refusal_is_in_the_refusal_field_of_the_message() -> None:
    message = answer([{"refusal": "I will not.", "finish_reason": "content_filter"}])
    assert message.additional_kwargs == {"refusal": "I will not."}
    assert message.response_metadata["finish_reason"] == "content_filter"


def test_usage_is_reported_as_written() -> None:
    usage = {"input_tokens": 5, "output_tokens": 2, "output_token_details": {"reasoning": 1}}
    assert answer([{"text": "x", "usage": usage}]).usage_metadata == {**usage, "total_tokens": 7}


def test_a_value_is_sent_as_json_and_a_program_is_sent_unchanged() -> None:
    value = {"city": "Rome", "n": [1, None]}
    assert json.loads(answer([{"value": value}], role="quarantined").text) == value
    program = "x = f('{tool_result}')"
    assert answer([{"program": program}], role="planner").text == program


def test_an_error_is_raised_with_its_status_and_retry_after() -> None:
    rules = [{"error": {"status": 429, "message": "Slow down.", "retry_after": 3}}]
    with pytest.raises(RateLimited) as caught:
        answer(rules)
    error = caught.value
    assert (error.status, error.body, error.retry_after) == (429, {"detail": "Slow down."}, 3)


def test_an_error_needs_only_a_status() -> None:
    with pytest.raises(StatusError, match="status 503") as caught:
        answer([{"error": {"status": 503}}])
    assert caught.value.status == 503


def test_an_answer_may_be_delayed() -> None:
    started = time.monotonic()
    assert answer([{"text": "x", "delay": 0.05}]).text == "x"
    assert time.monotonic() - started >= 0.05


def test_stop_sequences_and_token_limits_apply_to_scripts() -> None:
    assert answer([{"text": "one two"}], ask(stop=["two"])).text == "one "
    cut = answer([{"text": "one two"}], ask(max_tokens=1))
    assert (cut.text, cut.response_metadata["finish_reason"]) == ("one", "length")


def test_a_policy_is_sent_unchanged() -> None:
    assert answer([{"policy": "tool x {}"}], role="policy").text == "tool x {}"


def test_usage_may_have_details_of_the_input() -> None:
    usage = {"input_tokens": 5, "output_tokens": 2, "input_token_details": {"cache_read": 4}}
    found = answer([{"text": "x", "usage": {**usage, "total_tokens": 9}}]).usage_metadata
    assert found == {**usage, "total_tokens": 9}


# Functions


@pytest.mark.parametrize(
    "returned",
    ["Hi {tool_result}", AIMessage("Hi {tool_result}"), {"text": "Hi {tool_result}"}],
)
def test_a_function_may_return_a_text_a_message_or_a_dict(returned: Any) -> None:
    assert answer([{"answer": lambda _request: returned}]).text == "Hi {tool_result}"


def test_a_function_gets_the_request() -> None:
    rules = [{"answer": lambda request: f"{request.model}: {request.messages[-1].text}"}]
    assert answer(rules).text == "any/model: Hello"


def test_a_message_of_a_function_keeps_calls_and_reasoning() -> None:
    made = AIMessage(
        "",
        tool_calls=[WEATHER_CALL],
        additional_kwargs={"reasoning_content": "Hm."},
        response_metadata={"finish_reason": "stop"},
    )
    message = answer([{"answer": lambda _request: made}])
    assert message.tool_calls[0]["args"] == {"city": "Rome"}
    assert message.additional_kwargs == {"reasoning_content": "Hm."}
    assert message.response_metadata["finish_reason"] == "stop"


def test_a_function_may_answer_with_an_error() -> None:
    with pytest.raises(RateLimited):
        answer([{"answer": lambda _request: {"error": {"status": 429}}}])


def _raise(_request: ChatRequest) -> str:
    msg = "private"
    raise KeyError(msg)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (_raise, "It raised `KeyError`"),
        (lambda _request: None, "Input should be a mapping; got null"),
        (lambda _request: {"txt": "x"}, "Did you mean `text`"),
        (lambda _request: {"answer": _raise}, "Unknown field `answer`"),
    ],
)
def test_a_function_that_raises_or_returns_no_answer_is_an_error_with_the_rules_number(
    function: Any, problem: str
) -> None:
    with pytest.raises(ServerFailed, match="Rule 1 of the script: its `answer` function") as caught:
        answer([{"answer": function}])
    assert problem in str(caught.value)
    assert "private" not in str(caught.value)


# Invalid rules


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"txet": "x"}, "Unknown field `txet` in a rule. Did you mean `text`?"),
        ({"zzz": "x"}, "Unknown field `zzz` in a rule. Known fields are `text`"),
        ({1: "x"}, "Unknown field `1`"),
        ("text", "Input should be a mapping; got `text`"),
        ({}, "There is no answer. Add one of `text`"),
        ({"when": {"user": "x"}}, "There is no answer. Add one of `text`"),
        ({"when": None, "text": "x"}, "`when`: Input may not be null"),
        ({"when": {"usr": "x"}, "text": "x"}, "Unknown field `usr` in `when`. Did you mean `user`?"),
        ({"when": {"user": "("}, "text": "x"}, "`when.user`: Input should be a regular expression, and `(` is not one"),
        ({"when": {"user": 3}, "text": "x"}, "`when.user`: Input should be text with a regular expression; got 3"),
        ({"when": {"role": "cook"}, "text": "x"}, "`when.role`: Input should be 'chat', 'planner', 'quarantined', 'classifier' or 'policy'; got `cook`"),
        ({"when": {"endpoint_type": "x"}, "text": "x"}, "`when.endpoint_type`: Input should be 'chat', 'code'"),
        ({"when": {"role": "planner", "tool_result": "x"}, "text": "x"}, "`when` has `tool_result`, but only `chat` sees results, and not `planner`"),
        ({"when": {"tool_result": "x"}, "program": "x"}, "`when` has `tool_result`, but only `chat` sees results, and not `planner`"),
        ({"when": {"endpoint_type": "lang-graph"}, "program": "x"}, "it asks only `quarantined` or `classifier`, and not `planner`"),
        ({"when": {"endpoint_type": "lang-graph"}, "text": "x"}, "it asks only `quarantined` or `classifier`, and not `chat`"),
        ({"when": {"endpoint_type": "chat"}, "policy": "x"}, "`policy` answers policy generation, without one"),
        ({"when": {"role": "chat"}, "program": "x"}, "has the role `chat`, but `program` answers only `planner`"),
        ({"text": 3}, "`text`: Input should be a valid string; got 3"),
        ({"text": "x", "error": {"status": 500}}, "`error` and `text` exclude each other"),
        ({"tool_calls": {"name": "f"}}, "`tool_calls`: Input should be a list; got an object"),
        ({"tool_calls": ["f"]}, "`tool_calls[0]`: Input should be a mapping"),
        ({"tool_calls": [{"args": {}}]}, "`tool_calls[0]`: Unknown field `args` in a tool call. Known fields are `name`, `arguments`"),
        ({"tool_calls": [{}]}, "`tool_calls[0].name`: Field required"),
        ({"tool_calls": [{"name": "f", "arguments": "{}"}]}, "`tool_calls[0].arguments`: Input should be a valid dictionary"),
        ({"tool_calls": [{"name": "f", "arguments": {"a": {1}}}]}, "`tool_calls[0].arguments`: Input should be plain JSON"),
        ({"value": float("nan")}, "`value`: Input should be plain JSON"),
        ({"error": {}}, "`error.status`: Field required"),
        ({"error": {"status": 200}}, "`error.status`: Input should be greater than or equal to 400; got 200"),
        ({"error": {"status": 429, "retry_after": -1}}, "`error.retry_after`: Input should be greater than or equal to 0"),
        ({"usage": {"prompt_tokens": 1}}, "Unknown field `prompt_tokens` in `usage`"),
        ({"usage": {"input_tokens": 1.5}}, "`usage.input_tokens`: Input should be a valid integer; got 1.5"),
        ({"usage": {"input_token_details": {"cache_reed": 1}}}, "Input should be 'audio', 'cache_read' or 'cache_creation'; got `cache_reed`"),
        ({"usage": {"output_token_details": {"cache_read": 1}}}, "Input should be 'audio' or 'reasoning'; got `cache_read`"),
        ({"usage": {"input_token_details": {"audio": -1}}}, "`usage.input_token_details.audio`: Input should be greater than or equal to 0"),
        ({"text": "x", "times": 0}, "`times`: Input should be greater than or equal to 1"),
        ({"text": "x", "times": True}, "`times`: Input should be a valid integer; got true"),
        ({"text": "x", "times": "2"}, "`times`: Input should be a valid integer"),
        ({"text": "x", "delay": 61}, "`delay`: Input should be less than or equal to 60; got 61"),
        ({"text": "x", "finish_reason": None}, "`finish_reason`: Input may not be null"),
        ({"text": "x", "delay": float("nan")}, "`delay`: Input should be a finite number"),
        ({"answer": "x"}, "`answer`: Input should be callable; got `x`"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_used_is_refused_with_its_number(rule: Any, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        Script([{"text": "fine"}, rule])
    assert str(caught.value).startswith("Rule 2 of the script")
    assert problem in str(caught.value)


@pytest.mark.parametrize("rules", ["text", {"text": "x"}, 3])
def test_a_script_that_is_not_a_list_is_refused(rules: Any) -> None:
    with pytest.raises(UsageError, match="A script must be a list of rules"):
        Script(rules)


# Files


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("script.yaml", "rules:\n  - when: {user: Hello}\n    text: Hi\n"),
        ("script.yml", "- text: Hi\n"),
        ("script.json", '{"rules": [{"text": "Hi"}]}'),
        ("script.json", '[{"text": "Hi"}]'),
    ],
)
def test_a_script_is_read_from_a_file(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    for one in (path, str(path)):
        assert answer(Script.from_file(one)).text == "Hi"


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("s.yaml", "- text: [", "is not valid YAML"),
        ("s.yaml", "- !!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("s.json", "- text: x", "is not valid JSON"),
        ("s.yaml", "", "must contain a list of rules"),
        ("s.yaml", "rules: []\nmore: 1", "must contain a list of rules"),
        ("s.yaml", "rules: {}", "must contain a list of rules"),
        ("s.yaml", "- txt: x", "s.yaml`: Unknown field `txt` in a rule. Did you mean `text`?"),
    ],
)
def test_a_file_without_a_valid_script_is_refused_with_its_name(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        Script.from_file(path)
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml` cannot be read: No such file"):
        Script.from_file(tmp_path / "nowhere.yaml")


def test_repr_shows_the_number_of_rules() -> None:
    rules: list[dict[str, Any]] = [{"text": "x"}, {"text": "y"}]
    assert repr(Script(rules)) == "<Script of 2 rules>"
