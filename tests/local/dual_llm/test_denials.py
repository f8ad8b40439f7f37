"""Denials: their reasons, their reports and their effect on the session (M3, M5, M6, V1)."""

import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_sequrity import dual_llm_result
from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.wire.dual_llm import shown_denial
from tests.chat_models.formats import NAMES, ROWS, Row
from tests.local.dual_llm.conversation import Stage, Teller, converse, enough, reads
from tests.local.dual_llm.dialog import TOOLS, Begin, Json, calls, ended, error, value

SEND = 'final_return_value = send(word=look_up(word="a"))'
SECRET = 'tool "look_up" -> @tags |= {"secret"};\n'
NO_SECRETS = f"""{SECRET}
tool "send" {{
    /// Secrets stay here
    must deny when "secret" in word.tags;
}}"""
LOCK = """
tool "send" {
    session before {
        when "second" in @tags { @tags |= {"third"}; }
        when "first" in @tags { @tags |= {"second"}; }
        @tags |= {"first"};
    }
    must deny when "third" in @session.tags;
    must deny when not word.value == "right";
}"""
REPORTING = {"response_format": {"include_policy_check_history": True, "include_program": True}}
ONE_STEP = {"fsm": {"max_pllm_steps": 1}}
SENT = [("send", {"word": "text"})]
BRANCHING = {"mode": "deny", "tags": ["secret"], "producers": [], "consumers": []}


def custom(**preset: Any) -> dict[str, Any]:
    presets = {"branching_meta_policy": {**BRANCHING, **preset}}
    return {"mode": "custom", "codes": {"code": SECRET}, "presets": presets}


# Defaults


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        ('must deny when word.value == "bye";', True),
        ('must deny when word.value == "hello";', False),
        ('must deny when not word.value in {"hello"};', True),
        ('must deny when "secret" in word.tags;', True),
    ],
)
@pytest.mark.parametrize("default", [{"default": "hello"}, {}])
def test_the_policy_judges_the_schema_default_of_an_omitted_argument(
    begin: Begin, rule: str, allowed: bool, default: Json
) -> None:
    properties = {"word": {"type": "string", **default}}
    parameters = {"type": "object", "properties": properties}
    send = {"type": "function", "function": {"name": "send", "parameters": parameters}}
    dialog = begin("final_return_value = send()", policy=f'tool "send" {{ {rule} }}')
    reply = dialog.send({"role": "user", "content": "Go"}, tools=[send])
    if allowed and default:
        assert calls(reply) == [("send", {})]
    else:
        assert error(reply)[0] == "policy_violation"


# Verdicts


@pytest.mark.parametrize(
    ("policy", "verdict", "counts", "rules"),
    [
        ('tool "send" { must deny always; }', "hard_denied", (1, 1), ["must deny always;"]),
        ('tool "send" { should deny always; }', "soft_denied", (1, 1), ["should deny always;"]),
        ('tool "send" { must allow when word.value == "x"; }', "hard_denied", (1, 1), ['must allow when word.value=="x";']),
        ('tool "send" { should deny always; should allow when word.value == "text"; }', "soft_allowed", (2, 1), ['should allow when word.value=="text";']),
        ('tool "send" { must allow always; should deny always; }', "hard_allowed", (2, 1), ["must allow always;"]),
        ('tool r"^se.*" { priority 5; should allow always; } tool "send" { should deny always; }', "soft_allowed", (2, 1), ["should allow always;"]),
        ({"codes": {"code": 'tool "look_up" { must allow always; }'}, "presets": {"default_allow": False}}, "soft_denied", (0, 1), ["default_allow"]),
        ({"codes": {"code": 'tool "look_up" { must allow always; }'}, "presets": {"default_allow": False, "default_allow_enforcement_level": "hard"}}, "hard_denied", (0, 1), ["default_allow"]),
        ({"codes": {"code": 'tool "send" { must deny always; must deny when word.value == "text"; }'}}, "hard_denied", (1, 1), ["must deny always;"]),
        ({"fail_fast": False, "codes": {"code": 'tool "send" { must deny always; must deny when word.value == "text"; }'}}, "hard_denied", (1, 2), ["must deny always;", 'must deny when word.value=="text";']),
    ],
)  # fmt: skip
def test_verdicts_and_counters_are_reported(
    begin: Begin, policy: str | Json, verdict: str, counts: tuple[int, int], rules: list[str]
) -> None:
    dialog = begin(SEND, policy=policy, config=REPORTING)
    dialog.say()
    reply = dialog.answer("text")
    is_allowed = verdict.endswith("allowed")
    assert calls(reply) == (SENT if is_allowed else [])
    body = ended(dialog.answer("sent") if is_allowed else reply)
    looked_up, sent = body["policy_check_history"]
    assert (looked_up["tool"], looked_up["denied"]) == ("look_up", [])
    assert (sent["tool"], sent["line"], sent["verdict"]) == ("send", 1, verdict)
    assert (sent["n_allowed"], sent["n_denied"], sent["certain"]) == (*counts, True)
    assert [one["rule"] for one in sent["allowed" if is_allowed else "denied"]] == rules
    assert not sent["denied" if is_allowed else "allowed"]


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
def test_policy_denied_says_which_call_was_denied_and_why(
    stage: Stage, row: Row, streaming: bool
) -> None:
    model = stage.model(
        Teller("planner", SEND), of=row.model, **row.arguments, streaming=streaming,
        policy=NO_SECRETS, session_config=REPORTING,
    ).bind_tools(TOOLS)  # fmt: skip
    with pytest.raises(PolicyDenied) as caught:
        converse(model, "Go", {"look_up": "text"})
    denied = caught.value
    assert denied.tool == "send"
    labels = denied.labels["word"]
    assert denied.arguments["word"] == "text"
    assert sorted(labels["tags"]) == ["__non_executable", "secret"]
    assert denied.rule == 'must deny when "secret" in word.tags;'
    assert denied.reason == "Secrets stay here"
    assert denied.program == f"{SEND}\n"
    assert [one["tool"] for one in denied.checks] == ["look_up", "send"]
    assert str(denied).startswith("The policy denied the call of `send`: Secrets stay here. ")
    assert denied.result.error_message == (
        "Tool call to 'send' is denied by argument checking policies. Secrets stay here."
    )
    assert denied.result.error_code == "policy_violation"


def test_a_denial_includes_the_check_history_even_if_x_config_does_not_request_it(
    begin: Begin,
) -> None:
    dialog = begin(SEND, policy=NO_SECRETS)
    dialog.say()
    body = ended(dialog.answer("text"))
    assert [bool(one["denied"]) for one in body["policy_check_history"]] == [False, True]
    assert "program" not in body
    dialog = begin(SEND)
    dialog.say()
    assert "policy_check_history" not in ended(dialog.until_end())


# The session after a denial


@pytest.mark.parametrize("on_denied", ["raise", "message"])
@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_session_labels_of_denied_calls_stay_and_deny_the_third_attempt(
    stage: Stage, row: Row, on_denied: str
) -> None:
    planner = Teller("planner", *['send(word="wrong")'] * 2, 'send(word="right")')
    model = stage.model(
        planner, of=row.model, **row.arguments, policy=LOCK, on_denied=on_denied,
        session_config=REPORTING,
    ).bind_tools(TOOLS)  # fmt: skip
    history: list[Any] = []
    rules = []
    for _ in range(3):
        history.append(HumanMessage("Open it"))
        try:
            message = model.invoke(history)
        except PolicyDenied as denied:
            assert on_denied == "raise"
            message = denied.message
        assert isinstance(message, AIMessage)
        assert shown_denial(message) is not None
        found = dual_llm_result(message)
        assert found is not None
        rules.append(found.policy_check_history[-1]["denied"][0]["rule"])
        history.append(message)
    wrong = 'must deny when not word.value=="right";'
    assert rules == [wrong, wrong, 'must deny when "third" in @session.tags;']


def test_a_call_after_one_denied_attempt_may_be_allowed(begin: Begin) -> None:
    dialog = begin('send(word="wrong")', 'send(word="right")', policy=LOCK)
    assert error(dialog.say())[0] == "policy_violation"
    assert calls(dialog.say()) == [("send", {"word": "right"})]


def test_a_denied_call_is_not_made_and_the_session_continues(begin: Begin) -> None:
    dialog = begin(f"x = 1\n{SEND}", "x", policy=NO_SECRETS, config=ONE_STEP)
    dialog.say()
    error(dialog.answer("text"))
    assert (dialog.stored.turns, dialog.state.turn) == (1, None)
    assert "`x` is not defined" in error(dialog.say())[1]


# Another program after a denial


def test_a_denial_ends_the_turn_without_retry_on_policy_violation(begin: Begin) -> None:
    for retries in (None, False):
        config = {} if retries is None else {"fsm": {"retry_on_policy_violation": retries}}
        dialog = begin(SEND, "'other way'", policy=NO_SECRETS, config=config)
        dialog.say()
        assert error(dialog.answer("text"))[0] == "policy_violation"
        assert len(dialog.planner.requests) == 1


@pytest.mark.parametrize(
    ("program", "policy"),
    [(SEND, NO_SECRETS), ('if look_up(word="a"): pass', custom())],
    ids=["denial", "control flow"],
)
def test_a_denied_program_counts_as_a_failed_step(begin: Begin, program: str, policy: Any) -> None:
    fsm = {"retry_on_policy_violation": True, "max_pllm_failed_steps": 2}
    dialog = begin(program, "'other way'", policy=policy, config={"fsm": fsm})
    dialog.say()
    assert value(dialog.answer("text")) == "other way"
    dialog = begin(program, f"{program}\nx = 2", policy=policy, config={"fsm": fsm})
    dialog.say()
    body = ended(dialog.answer("text"))
    assert body["status"] == "failure"
    assert len(dialog.planner.requests) == 2
    tools = ["look_up", "send"] if program == SEND else ["look_up"]
    assert [one["tool"] for one in body["policy_check_history"]] == 2 * tools


# Exceptions that a program cannot catch

CATCHING = """
def act(x):
    {act}

x = look_up(word="a")
try:
    try:
        act(x)
    except ToolError:
        look_up(word="caught")
    except (Exception, ValueError) as error:
        look_up(word="caught")
    except:
        look_up(word="caught")
    else:
        look_up(word="else")
    finally:
        look_up(word="finally")
except:
    look_up(word="outer")
"""


@pytest.mark.parametrize(
    ("act", "code"),
    [
        ("send(word=x)", "policy_violation"),
        ("y = [send(word=one) for one in [x]]", "policy_violation"),
        ("y = sorted([x], key=lambda one: send(word=one))", "policy_violation"),
        ("return 1 if x else 2", "control_flow_violation"),
        ("return 'a' * 10**9", "limit_reached"),
        ("return act(x)", "limit_reached"),
        ("exit(1)", "program_exit"),
    ],
)
def test_a_program_cannot_catch_denials_limits_and_exit(begin: Begin, act: str, code: str) -> None:
    policy = custom()
    policy["codes"] = {"code": NO_SECRETS}
    dialog = begin(CATCHING.format(act=act), policy=policy, config=ONE_STEP)
    dialog.say()
    assert error(dialog.answer("text"))[0] == code


def test_a_program_can_catch_the_error_of_a_tool(begin: Begin) -> None:
    dialog = begin(CATCHING.format(act="raise ToolError('x')"))
    dialog.say()
    assert calls(dialog.answer("text")) == [("look_up", {"word": "caught"})]
    assert calls(dialog.answer("text")) == [("look_up", {"word": "finally"})]


# Branches

BRANCHES = {
    "if": "if x: pass",
    "elif": "if False: pass\nelif x: pass",
    "while": "while x: break",
    "for": "for one in x: pass",
    "ternary": "y = 1 if x else 2",
    "match": "match x:\n    case _: pass",
    "guard": "match 1:\n    case n if x: pass",
    "assert": "assert x",
    "list": "y = [n for n in [1] if x]",
    "set": "y = {n for n in [1] if x}",
    "dict": "y = {n: n for n in [1] if x}",
    "generator": "y = list(n for n in [1] if x)",
    "comparison": "if len(x) > 3: pass",
    "element": "y = {'a': [x]}\nif y['a'][0]: pass",
    "function": "def f(v):\n    if v: pass\nf(x)",
}


def branching(branch: str) -> str:
    return f"x = look_up(word='a')\n{branch}\n'passed'"


@pytest.mark.parametrize("branch", BRANCHES.values(), ids=BRANCHES)
def test_branching_meta_policy_denies_every_kind_of_branch_in_mode_custom_only(
    begin: Begin, branch: str
) -> None:
    dialog = begin(branching(branch), policy=custom(), config=ONE_STEP)
    dialog.say()
    code, message = error(dialog.answer("text"))
    assert (code, "Control flow violation" in message) == ("control_flow_violation", True)
    dialog = begin(branching(branch), policy={**custom(), "mode": "standard"})
    dialog.say()
    assert value(dialog.answer("text")) == "passed"


@pytest.mark.parametrize(
    ("preset", "labels", "passes"),
    [
        ({}, {"tags": ["public"]}, False),
        ({"tags": ["public"]}, {"tags": ["public"]}, False),
        ({"tags": ["other"]}, {"tags": ["public"]}, True),
        ({"tags": [], "producers": ["p"]}, {"producers": ["p"]}, False),
        ({"tags": [], "consumers": ["c"]}, {"consumers": ["c"]}, False),
        ({"tags": [], "consumers": ["c"]}, {}, True),
        ({"mode": "allow"}, {}, True),
        ({"mode": "allow", "tags": []}, {}, False),
        ({"mode": "allow", "tags": ["secret", "public"]}, {"tags": ["public"]}, True),
        ({"mode": "allow"}, {"tags": ["public"]}, False),
        ({"mode": "allow"}, {"producers": ["p"]}, False),
        ({"mode": "allow", "producers": ["p"]}, {"producers": ["p"]}, True),
        ({"mode": "allow"}, {"consumers": ["c"]}, False),
        ({"mode": "allow", "consumers": ["c"]}, {"consumers": ["c"]}, True),
    ],
)
def test_labels_of_a_condition_decide_whether_its_branch_is_allowed(
    begin: Begin, preset: Json, labels: Json, passes: bool
) -> None:
    meta = {"producers": [], "consumers": ["*"], "tags": [], **labels}
    wrapped = json.dumps({"value": "text", "is_sequrity_var": True, "meta": meta})
    dialog = begin(branching("if x: pass"), policy=custom(**preset), config=ONE_STEP)
    dialog.say()
    body = ended(dialog.answer(wrapped))
    assert (body["status"] == "success") is passes, body


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_chat_models_raise_policy_denied_for_a_forbidden_branch(stage: Stage, row: Row) -> None:
    model = stage.model(
        Teller("planner", branching("if x: pass")), of=row.model, **row.arguments, policy=custom()
    )
    with pytest.raises(PolicyDenied, match="Control flow violation"):
        converse(model.bind_tools(TOOLS), "Go", {"look_up": "text"})


@pytest.mark.parametrize(("mode", "is_sent"), [("standard", True), ("strict", False)])
def test_only_mode_strict_labels_variables_that_a_branch_assigns(
    begin: Begin, mode: str, is_sent: bool
) -> None:
    program = 'y = "no"\nif look_up(word="a") == "text":\n    y = "yes"\nsend(word=y)'
    dialog = begin(program, policy={"mode": mode, "codes": {"code": NO_SECRETS}}, config=ONE_STEP)
    dialog.say()
    assert bool(calls(dialog.answer("text"))) is is_sent


# Built-in policies


@pytest.mark.parametrize(
    ("presets", "tags"),
    [
        ({}, ["__non_executable"]),
        ({"enable_non_executable_memory": True}, ["__non_executable"]),
        ({"enable_non_executable_memory": False}, []),
    ],
)
def test_results_are_tagged_as_non_executable_unless_that_preset_is_off(
    begin: Begin, presets: Json, tags: list[str]
) -> None:
    dialog = begin('final_return_value = look_up(word="a")', policy={"presets": presets})
    dialog.say()
    assert ended(dialog.answer())["final_return_value"]["meta"]["tags"] == tags


@pytest.mark.parametrize(
    ("presets", "counts"),
    [
        ({}, (2, 1)),
        ({"llm_blocked_tag_enforcement_level": "soft"}, (2, 1)),
        ({"enable_non_executable_memory": False}, (1, 1)),
        ({"enable_llm_blocked_tag": False}, None),
    ],
)
def test_the_data_model_does_not_read_values_tagged_llm_blocked_unless_that_preset_is_off(
    begin: Begin, presets: Json, counts: tuple[int, int] | None
) -> None:
    policy = {
        "codes": {"code": 'tool "look_up" -> @tags |= {"__llm_blocked"};'},
        "presets": presets,
    }
    reader = Teller("quarantined", enough("read"))
    query = "f\"? {look_up(word='a')}\""
    reading = f"try:\n    y = {reads(query)}\nexcept:\n    y = 1\ny"
    dialog = begin(reading, tellers=(reader,), policy=policy, config=REPORTING)
    dialog.say()
    body = ended(dialog.answer("diary"))
    check = body["policy_check_history"][-1]
    assert check["tool"] == "parse_with_ai"
    if counts is None:
        assert body["final_return_value"]["value"] == "read"
        return
    assert (body["error"]["code"], reader.requests) == ("policy_violation", [])
    assert (check["n_allowed"], check["n_denied"]) == counts
    assert check["denied"][0]["enforcement_level"] == presets.get(
        "llm_blocked_tag_enforcement_level", "hard"
    )
