"""Regexes in requests: a regex that is too large is refused and named before it is compiled."""

import json
from typing import Any

import pytest

from langchain_sequrity.errors import UsageError
from langchain_sequrity.local import Script
from langchain_sequrity.wire.routes import VALIDATE_HEADERS_PATH
from tests.local.api import Api, detail, said, tool
from tests.local.conftest import Serve
from tests.local.dual_llm.dialog import headers

BOMB = "(?x)(?:(?:(?:ab{1000} c){1000} d){1000} e)"
HIDDEN = "(?x)(?:(?:(?:ab{1 000}c){1000}d){1000}e)"
RANGES = "(?i)[" + "".join(f"{chr(n)}-{chr(n + 1)}" for n in range(0x400, 0x7000, 3)) + "]"
BOMBS = {"repeats": BOMB, "white space in a count": HIDDEN, "nesting": "(" * 900}
HOSTILE = [*BOMBS.values(), RANGES, "a{99999999}", "(?:ab){e<=9}", "(?R)", "()" * 1_001]
NAMES = [*BOMBS, "ranges", "a huge count", "fuzzy", "recursion", "groups"]
hostile = pytest.mark.parametrize("text", HOSTILE, ids=NAMES)


@hostile
def test_validate_headers_refuses_a_hostile_pattern_of_x_config_and_names_its_field(
    api: Api, text: str
) -> None:
    for fsm in ({"force_to_cache": ["^a$", text]}, {"detect_tool_error_regex_pattern": text}):
        sent = {"x_config": json.dumps({"fsm": fsm})}
        found = api.request("POST", VALIDATE_HEADERS_PATH, json=sent).json()["x_config"]
        assert found["valid"] is False
        (problem,) = found["errors"]
        place = "force_to_cache[1]" if "force_to_cache" in fsm else next(iter(fsm))
        assert problem.startswith(f"`fsm.{place}`: Input should be a regular expression")


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("field", ["force_to_cache", "detect_tool_error_regex_pattern"])
def test_a_request_with_a_hostile_pattern_in_x_config_is_400(
    api: Api, text: str, field: str
) -> None:
    fsm = {field: [text] if field == "force_to_cache" else text}
    reply = api.chat("Go", headers={"X-Config": json.dumps({"fsm": fsm})})
    assert reply.status_code == 400
    assert f"fsm.{field}" in str(detail(reply))


def test_all_patterns_of_x_config_together_have_a_limit(api: Api) -> None:
    def sent(count: int) -> dict[str, str]:
        patterns = [f"a{{6000}}{number}" for number in range(count)]
        return {"X-Config": json.dumps({"fsm": {"force_to_cache": patterns}})}

    assert api.chat("Go", headers=sent(3)).status_code == 200
    reply = api.chat("Go", headers=sent(4))
    assert reply.status_code == 400
    assert "together they expand to more than 20000 parts" in str(detail(reply))


@hostile
def test_a_policy_with_a_hostile_pattern_is_400_with_the_reason(api: Api, text: str) -> None:
    code = f'tool "send" {{ must deny when to.value in {{str matching r"{text}"}}; }}'
    named = headers(policy=code)
    reply = api.chat("Go", headers={"X-Policy": named["X-Policy"]})
    assert reply.status_code in {400, 431}  # 431 if the pattern is too long for a header
    if reply.status_code == 400:
        assert "This cannot be read" in str(detail(reply))


def test_all_regexes_of_a_policy_together_have_a_limit(api: Api) -> None:
    regexes = ", ".join(f'r"a{{19000}}{number}"' for number in range(300))
    code = f'tool "send" {{ must deny when to.value in {{{regexes}}}; }}'
    reply = api.chat("Go", headers={"X-Policy": headers(policy=code)["X-Policy"]})
    assert reply.status_code == 400
    assert "the regexes of a policy have more than 50000 parts" in str(detail(reply))


def schema(pattern: Any) -> dict[str, Any]:
    code = {"type": "string", "pattern": pattern}
    return {"type": "object", "properties": {"code": code}, "required": ["code"]}


def with_schema(pattern: Any) -> dict[str, Any]:
    called = tool("look_up")
    called["function"]["parameters"] = schema(pattern)
    return {"tools": [called], "tool_choice": "required"}


@pytest.mark.parametrize(
    "text", [BOMB, RANGES, "a{99999999}", "(" * 900], ids=["repeats", "ranges", "count", "nesting"]
)
def test_a_hostile_pattern_in_the_schema_of_a_tool_or_an_answer_is_400(api: Api, text: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema(text)}}
    for fields in (with_schema(text), {"response_format": form}):
        reply = api.chat("Send A-17 of 'b'", **fields)
        assert reply.status_code == 400
        assert "The `pattern` of `code` in a JSON Schema cannot be used" in str(detail(reply))


@pytest.mark.parametrize("text", [r"^\p{L}-[0-9]+$", "^(?<n>A)-17$", "(?:ab){e<=9}", "(a|aa)+$"])
def test_a_schema_pattern_that_is_slow_or_of_another_dialect_is_ignored(
    api: Api, text: str
) -> None:
    reply = api.chat(f"Send A-17 and '{'a' * 300}!'", **with_schema(text))
    (call,) = said(reply)["tool_calls"]
    assert list(json.loads(call["function"]["arguments"])) == ["code"]


def test_a_match_of_a_schema_pattern_in_the_prompt_fills_the_argument(api: Api) -> None:
    reply = api.chat("Send A-17, please", **with_schema("^[A-Z]-[0-9]{1,64}$"))
    (call,) = said(reply)["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"code": "A-17"}


@hostile
def test_a_script_with_a_hostile_pattern_is_an_error_that_names_the_rule(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"Rule 1 of the script: `when.user`: Input should be a regular expression"
    ):
        Script([{"when": {"user": text}, "text": "Hi"}])


def test_a_text_that_is_too_long_for_a_pattern_of_a_script_is_500(serve: Serve) -> None:
    rules = [{"when": {"user": "[ab]*[xy]"}, "text": "Hi"}]
    reply = serve(script=rules).chat("ab" * 200_000)
    assert reply.status_code == 500
    assert "on this text" in str(detail(reply))
