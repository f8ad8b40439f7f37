"""Hostile data, clients and planners in dual-LLM sessions."""

import json
from typing import Any

import httpx
import pytest

from langchain_sequrity.local import LocalServer, MemorySessions
from tests.local.api import Api, Message, result, said, tool
from tests.local.conftest import Serve
from tests.local.dual_llm.conversation import Teller, Waiting
from tests.local.dual_llm.dialog import (
    TOOLS,
    Begin,
    Dialog,
    Json,
    calls,
    ended,
    error,
    value,
    words,
)

RESPONSES = "/control/chat/v1/responses"
KEPT = 'found = look_up(word="a")\n'
META: Json = {"producers": [], "consumers": ["*"], "tags": ["secret"]}
WRAPPER: Json = {"value": "x", "meta": META, "is_sequrity_var": True}


# Text that UTF-8 cannot encode

HALF = json.dumps("Error \ud800")
OPEN = tool("send")
OPEN["function"]["parameters"] = {"type": "object", "additionalProperties": True}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("rest", "code"),
    [
        ("raise ValueError(found)", "program_error"),
        ("exit(found)", "program_exit"),
        ("send(**{found: 1})", "program_error"),
        ("send(word={found: 1})", "value_not_json"),
        ("final_return_value = found", "value_not_json"),
    ],
)
def test_a_lone_surrogate_in_a_result_fails_the_turn_but_not_the_request(
    begin: Begin, rest: str, code: str, stream: bool
) -> None:
    dialog = begin(KEPT + rest, config={"fsm": {"max_pllm_failed_steps": 1}})
    dialog.send(words("Go"), tools=[tool(), OPEN])
    late = result(dialog.open_call, HALF)
    assert dialog.post(late, stream=stream).status_code == 200
    assert error(dialog.send(late))[0] == code
    assert dialog.say().status_code == 200


@pytest.mark.parametrize("catches", [False, True])
def test_a_lone_surrogate_in_a_tool_error_does_not_fail_the_request(
    begin: Begin, catches: bool
) -> None:
    caught = "try:\n    {0}except ToolError as error:\n    final_return_value = len(str(error))"
    fsm = {"max_pllm_failed_steps": 1, "detect_tool_errors": "regex"}
    dialog = begin(caught.format(KEPT) if catches else KEPT, config={"fsm": fsm})
    dialog.say()
    reply = dialog.answer(json.dumps({**WRAPPER, "value": "Error \ud800"}))
    assert value(reply) == 7 if catches else error(reply)[0] == "program_error"


def test_the_planner_sees_a_lone_surrogate_as_a_question_mark(begin: Begin) -> None:
    config = {"prompt": {"pllm": {"debug_info_level": "extra"}}}
    dialog = begin(f"{KEPT}raise ValueError(found)", "'done'", config=config)
    dialog.say()
    assert value(dialog.answer(HALF)) == "done"
    assert "Error ?" in dialog.planner.requests[-1].messages[-1].content


# Wrappers in malformed JSON


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({**WRAPPER, "value": float("nan")}),
        json.dumps({**WRAPPER, "value": [float("-inf")]}),
        json.dumps(WRAPPER).replace('"x"', "1e999"),
        json.dumps(WRAPPER).replace('"x"', "9" * 5000),
        "\ufeff" + json.dumps(WRAPPER),
    ],
    ids=["NaN", "infinity", "large float", "large integer", "byte order mark"],
)
def test_a_wrapper_that_is_not_strict_json_is_refused_and_not_read_as_unlabelled_text(
    begin: Begin, text: str
) -> None:
    dialog = begin(f"{KEPT}final_return_value = found")
    dialog.say()
    code, message = error(dialog.answer(text))
    assert (code, "JSON" in message) == ("tool_result_refused", True)


# Histories


def test_a_restarted_turn_does_not_have_the_variables_of_turns_cut_from_the_history(
    begin: Begin,
) -> None:
    config = {"fsm": {"history_mismatch_policy": "restart_turn"}}
    dialog = begin("kept = 1", f"{KEPT}kept = 2", "final_return_value = kept", config=config)
    dialog.say("One")
    history = list(dialog.history)
    dialog.say("Two")
    dialog.answer("canary")
    dialog.history = []
    assert value(dialog.send(*history, words("Three"))) == 1
    assert "found" not in dialog.planner.prompts[-1]
    assert list(dialog.state.variables) == ["kept"]


def test_a_history_with_another_beginning_keeps_no_variables(begin: Begin) -> None:
    config = {"fsm": {"history_mismatch_policy": "restart_turn"}}
    dialog = begin("kept = 1", "final_return_value = kept", config=config)
    dialog.say("One")
    _, *others = dialog.history
    dialog.history = []
    reply = dialog.send(words("Another beginning"), *others, words("Two"))
    assert error(reply)[0] == "program_refused"
    assert not dialog.state.variables


@pytest.mark.parametrize("policy", [None, "continue"])
@pytest.mark.parametrize("arguments", ['{"word":"a"}', '{"word":"evil"}'], ids=["same", "edited"])
def test_a_reply_sent_back_with_previous_response_id_is_compared_with_the_stored_one(
    begin: Begin, arguments: str, policy: str | None
) -> None:
    fsm = {"history_mismatch_policy": policy} if policy else {}
    dialog = begin(f"{KEPT}final_return_value = found", "'next'", config={"fsm": fsm})
    first = respond(dialog, input="Go").json()
    (call,) = (item for item in first["output"] if item["type"] == "function_call")
    edited = {"type": "function_call", "call_id": call["call_id"], "name": call["name"]}
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "1"}
    sent = [{**edited, "arguments": arguments}, output]
    reply = respond(dialog, input=sent, previous_response_id=first["id"])
    if "evil" in arguments and policy is None:
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "history_mismatch")
        return
    assert reply.status_code == 200, reply.text
    last = respond(dialog, input="On", previous_response_id=reply.json()["id"])
    assert last.status_code == 200
    assert dialog.planner.prompts[-1].count("Go") == 1  # the session still knows the first message


def respond(dialog: Dialog, **body: Any) -> httpx.Response:
    """Send a request of Responses with the headers of a dialog."""
    arguments = dialog.arguments(path=RESPONSES, session=None)
    parameters = {"type": "object", "properties": {"word": {"type": "string"}}}
    look_up = {"type": "function", "name": "look_up", "parameters": parameters}
    model = arguments["json"]["model"]
    return dialog.api.http.post(
        **{**arguments, "json": {"model": model, "tools": [look_up], **body}}
    )


# Programs that wait


def test_two_servers_with_one_store_never_mix_up_their_programs(http: httpx.Client) -> None:
    rules = [
        {
            "when": {"role": "planner", "user": word},
            "program": f'found = look_up(word="{word}")\nfinal_return_value = f"{word} {{found}}"',
        }
        for word in ("first", "second")
    ]
    both = 'final_return_value = [look_up(word="a"), look_up(word="b")]'
    rules.append({"when": {"role": "planner", "user": "both"}, "program": both})
    store = MemorySessions()
    with (
        LocalServer(script=rules, store=store) as one,
        LocalServer(script=rules, store=store) as two,
    ):
        dialog = Dialog(Api(one, http, key="sq-test"), "any/model", Teller("planner"))
        dialog.say("first")
        dialog.api = Api(two, http, key="sq-test")
        dialog.say("second")
        dialog.api = Api(one, http, key="sq-test")
        assert value(dialog.answer("1")) == "second 1"
        dialog = Dialog(Api(one, http, key="sq-test"), "any/model", Teller("planner"))
        dialog.say("both")
        dialog.api = Api(two, http, key="sq-test")
        dialog.answer("1")
        dialog.api = Api(one, http, key="sq-test")  # its program still waits for the first result
        assert value(dialog.answer("2")) == [1, 2]


def test_the_program_of_an_evicted_session_ends_although_another_session_repeats_a_request(
    waiting: Waiting, http: httpx.Client
) -> None:
    rules = [{"when": {"role": "planner"}, "program": f"{KEPT}{KEPT}found"}]
    with LocalServer(script=rules, store=MemorySessions(max_sessions=2)) as server:
        api = Api(server, http, key="sq-test")
        one, two, three = (Dialog(api, "any/model", Teller("planner")) for _ in range(3))
        one.say()
        repeated = result(one.open_call, "1")
        one.send(repeated)
        two.say()
        one.post(repeated)
        three.say()  # two was idle longest
        assert two.post(result(two.open_call, "1")).status_code == 404
        one.post(repeated)
        assert waiting.becomes(2)
        assert calls(one.post(repeated)) == [("look_up", {"word": "a"})]


# Planners


PLANS = {
    "plain": ("x = 1\nfinal_return_value = x + 1", 2),
    "a closing tag in a text": ("final_return_value = '</sequrity_plan>'", "</sequrity_plan>"),
    "both tags in a text": (
        "final_return_value = '<sequrity_plan>1</sequrity_plan>'",
        "<sequrity_plan>1</sequrity_plan>",
    ),
    "a fence in a text": ('x = """\n```\n1\n```\n"""\nx.strip()', "```\n1\n```"),
    "a fence with a language": ('x = """\n```json\n1\n```\n"""\nx.strip()', "```json\n1\n```"),
}
AROUND = {
    "nothing": "{}",
    "tags": "<sequrity_plan>\n{}\n</sequrity_plan>",
    "tags on its lines": "<sequrity_plan>{}</sequrity_plan>",
    "tags and prose": "First I plan.\n\n<sequrity_plan>\n{}\n</sequrity_plan>\n\nThat is it.",
    "tags and a fence": "<sequrity_plan>\n```python\n{}\n```\n</sequrity_plan>",
    "a fence and tags": "```\n<sequrity_plan>\n{}\n</sequrity_plan>\n```",
    "an empty plan before": "<sequrity_plan></sequrity_plan>\n<sequrity_plan>\n{}\n</sequrity_plan>",
}


# Without the cases in which tags or fences of the program look like those around it.
TOLD_APART = {
    f"{name} within {outside}": (*PLANS[name], AROUND[outside])
    for name in PLANS
    for outside in AROUND
    if not ("fence" in outside and "fence" in name)
    if not ("an empty plan" in outside and "tag" in name)
}


@pytest.mark.parametrize(("program", "expected", "around"), TOLD_APART.values(), ids=TOLD_APART)
def test_the_tags_around_a_plan_are_removed(
    begin: Begin, program: str, expected: Any, around: str
) -> None:
    dialog = begin(
        {"text": around.format(program)}, config={"response_format": {"include_program": True}}
    )
    body = ended(dialog.say())
    assert body["final_return_value"]["value"] == expected, body
    assert body["program"].strip() == program


def test_the_error_of_a_refused_plan_counts_lines_from_the_opening_tag(begin: Begin) -> None:
    answer = {"text": "Here:\n<sequrity_plan>\nimport os\n</sequrity_plan>"}
    code, message = error(begin(answer, config={"fsm": {"max_pllm_steps": 1}}).say())
    assert (code, "Line 1, column 1: `import os`" in message) == ("program_refused", True)


def test_a_successful_step_is_remembered_even_if_the_same_text_failed_before(
    begin: Begin,
) -> None:
    fsm = {"enable_multistep_planning": True, "detect_tool_errors": "regex"}
    dialog = begin(KEPT, KEPT, "final_return_value = found", "'next'", config={"fsm": fsm})
    dialog.say("One")
    dialog.answer("Error: once")
    assert value(dialog.answer("2")) == 2
    dialog.say("Two")
    assert dialog.planner.prompts[-1].count(KEPT) == 1


# Results whose labels must not get lost

SECRET_GOES_NOWHERE = """
tool "look_up" { session after { when @result.tags overlaps {"secret"} { @session.tags |= {"secret"}; } } }
tool "send" { must deny when @session.tags overlaps {"secret"}; }
"""


@pytest.mark.parametrize("ids", ["12", "11"], ids=["own ids", "the same id twice"])
@pytest.mark.parametrize("order", [("look_up", "send"), ("send", "look_up")])
def test_a_single_llm_session_applies_to_each_result_of_a_history_the_rules_of_the_called_tool(
    serve: Serve, ids: str, order: tuple[str, str]
) -> None:
    api = serve(script=[{"tool_calls": [{"name": "send", "arguments": {"word": "x"}}]}])
    contents = {"look_up": json.dumps(WRAPPER), "send": "sent"}
    history: list[Message] = []
    for call_id, name in zip(ids, order, strict=True):
        history += [words(f"Now {name}"), calling(call_id, name), result(call_id, contents[name])]
    sent = {"X-Policy": json.dumps({"codes": {"code": SECRET_GOES_NOWHERE}})}
    reply = api.chat(*history, tools=TOOLS, headers=sent)
    assert "denied" in said(reply)["refusal"]


def calling(call_id: str, name: str) -> Message:
    function = {"name": name, "arguments": "{}"}
    call = {"id": call_id, "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.mark.parametrize(
    "returned",
    [
        "Exit code: 2\nOutput:\nno such file",
        {"output": "no such file", "metadata": {"exit_code": 2}},
    ],
)
@pytest.mark.parametrize("wraps", [False, True])
def test_codex_results_have_the_same_value_with_and_without_labels(
    begin: Begin, returned: str | Json, wraps: bool
) -> None:
    config = {"fsm": {"tool_result_transform": "codex"}}
    dialog = begin(f"{KEPT}final_return_value = found", config=config)
    dialog.say()
    content: Any = {**WRAPPER, "value": returned, "output": 1, "metadata": {}}
    if not wraps:
        content = returned
    reply = dialog.answer(content if isinstance(content, str) else json.dumps(content))
    assert value(reply) == {"exit_code": 2, "output": "no such file"}
    tags = ended(reply)["final_return_value"]["meta"]["tags"]
    assert ("secret" in tags) is wraps


def test_a_codex_result_with_an_exit_code_of_5000_digits_stays_text(begin: Begin) -> None:
    text = f"Exit code: {'9' * 5000}\nOutput:\nno such file"
    config = {"fsm": {"tool_result_transform": "codex"}}
    dialog = begin(f"{KEPT}final_return_value = found", config=config)
    dialog.say()
    assert value(dialog.answer(text)) == text


# Silent failures


def test_an_unknown_classifier_mode_is_logged(
    begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    dialog = begin("'done'")
    classifier = {"name": "toxicity_filter", "mode": "strickt"}
    features = {"agent_arch": "dual-llm", "content_classifiers": [classifier]}
    sent = {"X-Features": json.dumps(features)}
    assert value(dialog.send(words("Go"), headers=sent)) == "done"
    assert "`strickt`" in caplog.text
    assert "0.5" in caplog.text


def test_programs_of_expired_sessions_end_with_the_next_request_of_any_session(
    waiting: Waiting,
    http: httpx.Client,
) -> None:
    now = [0.0]
    store = MemorySessions(max_idle=10, clock=lambda: now[0])
    rules = [{"when": {"role": "planner"}, "program": f"{KEPT}found"}]
    with LocalServer(script=rules, store=store) as server:
        api = Api(server, http, key="sq-test")
        for _ in range(3):
            Dialog(api, "any/model", Teller("planner")).say()
        assert waiting.becomes(3)
        now[0] = 11
        assert api.chat("Hello").status_code == 200
        assert waiting.becomes(0)


MESSAGES = "/control/chat/v1/messages"
IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
}


@pytest.mark.parametrize("text", ["a picture", "42"])
def test_an_image_beside_text_or_json_is_kept(begin: Begin, text: str) -> None:
    body = pictured(begin(f"{KEPT}final_return_value = len(found)"), text)
    assert body["final_return_value"]["value"] == 2


def test_a_wrapper_beside_an_image_is_refused(begin: Begin) -> None:
    body = pictured(begin(f"{KEPT}final_return_value = found"), json.dumps(WRAPPER))
    assert body["error"]["code"] == "tool_result_refused"


def pictured(dialog: Dialog, text: str) -> dict[str, Any]:
    """Run a turn over Messages whose tool returns a text and an image; returns its envelope."""
    arguments = dialog.arguments(path=MESSAGES)
    schema = {"type": "object", "properties": {"word": {"type": "string"}}}
    base = {
        "model": arguments["json"]["model"],
        "max_tokens": 100,
        "tools": [{"name": "look_up", "input_schema": schema}],
    }

    def send(*messages: Any) -> Any:
        body = {**base, "messages": messages}
        reply = dialog.api.http.post(**{**arguments, "json": body})
        assert reply.status_code == 200, reply.text
        return reply.json()["content"]

    asked: Message = {"role": "user", "content": "Go"}
    called = send(asked)
    (call,) = (block for block in called if block["type"] == "tool_use")
    returned = {
        "type": "tool_result",
        "tool_use_id": call["id"],
        "content": [{"type": "text", "text": text}, IMAGE],
    }
    said_ = {"role": "assistant", "content": called}
    (last,) = send(asked, said_, {"role": "user", "content": [returned]})
    body: dict[str, Any] = json.loads(last["text"])
    return body


# Patterns

BOMB = "(?x)(?:(?:(?:ab{1000} c){1000} d){1000} e)"
LOOP = """
errors = 0
for number in range(2):
    try:
        look_up(word=str(number))
    except ToolError:
        errors += 1
final_return_value = errors
"""


@pytest.mark.parametrize(
    "program",
    [
        "import re\nre.compile({!r})",
        "import re\nre.sub({!r}, '', 'a')",
        "from pydantic import BaseModel, Field\nclass A(BaseModel):\n    a: str = Field(pattern={!r})",
    ],
    ids=["re.compile", "re.sub", "a field"],
)
def test_a_pattern_with_too_many_repeats_ends_the_program_and_the_error_names_the_limit(
    begin: Begin, program: str
) -> None:
    dialog = begin(program.format(BOMB), config={"fsm": {"max_pllm_steps": 1}})
    assert "`repeats in a pattern` (20,000)" in error(dialog.say())[1]


def test_a_result_counts_as_an_error_if_the_error_pattern_is_too_slow_on_it(begin: Begin) -> None:
    fsm = {"detect_tool_errors": "regex", "detect_tool_error_regex_pattern": "(a|aa)+$"}
    dialog = begin(LOOP, config={"fsm": fsm})
    reply = dialog.say()
    for _ in range(2):
        reply = dialog.answer("a" * 5_000 + "!")
    assert value(reply) == 2


def test_a_result_counts_as_an_error_if_it_is_too_long_for_the_error_pattern(begin: Begin) -> None:
    pattern = {"detect_tool_errors": "regex", "detect_tool_error_regex_pattern": "[ab]*[xy]"}
    fsm = {**pattern, "max_pllm_steps": 1}
    dialog = begin(f"{KEPT}final_return_value = found", config={"fsm": fsm})
    dialog.say()
    assert error(dialog.answer("c" * 300_001))[0] == "program_error"
