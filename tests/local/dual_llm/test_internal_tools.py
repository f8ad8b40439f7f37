"""Tools that the service runs itself, under policy; and names of tools (M5, P7; security.md 12)."""

import json
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from langchain_sequrity.errors import InvalidRequest, PolicyDenied, ProgramFailed
from langchain_sequrity.labels import Labels
from tests.local.api import Api, said
from tests.local.dual_llm.conversation import (
    DUAL,
    Stage,
    Teller,
    Tools,
    converse,
    ended,
    enough,
    reads,
)

Json = dict[str, Any]
ALL_FOUR = ["parse_with_ai", "verify_hypothesis", "complete_turn", "set_policy"]
MODEL = """
from pydantic import BaseModel

class Mail(BaseModel):
    sender: str
    have_enough_info: bool = True

"""

ASKED = "Is this polite: Go"
"""What programs have the data model read: it has to be given data, such as words of the user."""


def tool(name: str, *parameters: str) -> Json:
    schema = {"type": "object", "properties": {one: {} for one in parameters or ("x",)}}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


MAIL = [tool("read_mail", "number"), tool("send_mail", "to", "text")]
TOOLS: Tools = {"read_mail": "From Bob", "send_mail": "sent"}


class Play:
    """A scripted planner with one program per turn, and a scripted data model."""

    def __init__(
        self, stage: Stage, *programs: str, says: Any = None, tools: Any = MAIL, **fields: Any
    ) -> None:
        self.reader = Teller("quarantined", enough("Bob") if says is None else says)
        fsm = {"max_pllm_steps": 1, "enabled_internal_tools": ALL_FOUR, **fields.pop("fsm", {})}
        planner = Teller("planner", *programs)
        model = stage.model(planner, self.reader, session_config={"fsm": fsm}, **fields)
        self.model = model.bind_tools(tools)

    def run(self, tools: Tools = TOOLS) -> Any:
        return ended(converse(self.model, "Go", tools))


# parse_with_ai


FLAG = "{'have_enough_info': {'type': 'boolean'}}"
OBJECT = f"{{'type': 'object', 'properties': {{'stars': {{}}, **{FLAG}}}}}"
NESTED = f"{MODEL}class Mails(BaseModel):\n    have_enough_info: bool\n    mails: list[Mail]\n"
RECURSIVE = (
    "from pydantic import BaseModel\nfrom typing import Optional\n"
    "class Tree(BaseModel):\n    have_enough_info: bool\n    child: Optional['Tree'] = None\n"
)
ENOUGH = {"have_enough_info": True}


def asking(schema: str) -> str:
    return f"parse_with_ai(query={ASKED!r}, output_schema={schema})"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (asking(OBJECT), {**ENOUGH, "stars": 2}),
        (asking(OBJECT), {"have_enough_info": False}),
        (MODEL + asking("Mail.model_json_schema()"), {**ENOUGH, "sender": "Bob"}),
        (MODEL + asking("Mail"), {**ENOUGH, "sender": "Bob"}),
        (NESTED + asking("Mails.model_json_schema()"), {**ENOUGH, "mails": [{"sender": "Bob"}]}),
        (RECURSIVE + asking("Tree.model_json_schema()"), {**ENOUGH, "child": ENOUGH}),
    ],
)
@pytest.mark.parametrize("form", ["{}", "```json\n{}\n```"])
def test_parse_with_ai_returns_the_answer_as_a_dict(
    stage: Stage, program: str, said: Json, form: str
) -> None:
    program = program.replace("parse_with_ai", "x = parse_with_ai")
    end = "\n[x['have_enough_info'], type(x).__name__, x]"
    result = Play(stage, program + end, says=form.replace("{}", json.dumps(said))).run()
    assert result.value == [said["have_enough_info"], "dict", said]


def test_the_data_model_gets_the_output_schema_and_no_tools(stage: Stage) -> None:
    play = Play(stage, asking(OBJECT), says={"value": ENOUGH})
    play.run()
    (request,) = play.reader.requests
    assert (request.tools, request.messages[-1].text) == ([], ASKED)
    assert request.response_format is not None
    schema = request.response_format["json_schema"]["schema"]
    flag = {"have_enough_info": {"type": "boolean"}}
    properties = {"stars": {}, **flag}
    assert schema == {"type": "object", "properties": properties, "required": [*properties]}


def test_the_data_model_gets_the_definitions_of_a_schema_with_references(stage: Stage) -> None:
    play = Play(stage, RECURSIVE + asking("Tree.model_json_schema()"), says={"value": ENOUGH})
    play.run()
    (request,) = play.reader.requests
    assert request.response_format is not None
    schema = request.response_format["json_schema"]["schema"]
    assert schema["type"] == "object"
    assert "have_enough_info" in schema["$defs"]["Tree"]["properties"]


CATCHING = "try:\n    x = {call}\nexcept Exception as error:\n    x = type(error).__name__\nx"
NO_FLAG = [
    *("None", "7", "'text'", "int", "list[str]", "bool", "[]", "{}", "dict", "{'type': 'object'}"),
    "{'type': 'object', 'properties': {'stars': {'type': 'integer'}}}",
    "{'type': 'object', 'properties': {'have_enough_info': {}}}",
    "{'type': 'object', 'properties': {'have_enough_info': {'type': 'string'}}}",
    "{'type': 'object', 'properties': {'have_enough_info': True}}",
    "{'type': 'object', 'properties': ['have_enough_info']}",
    "{'type': 'object', 'required': ['have_enough_info']}",
    f"{{'properties': {{'inner': {{'properties': {FLAG}}}}}}}",
    "{'$ref': '#/$defs/A', '$defs': {'A': {'properties': {}}}}",
    "{'$ref': '#/$defs/A', '$defs': {}}",
    "{'$ref': {}, '$defs': {'A': 1}}",
]


@pytest.mark.parametrize("fidelity", ["full", "documented"])
def test_a_schema_without_the_boolean_have_enough_info_is_refused_before_the_model_is_asked(
    fidelity: Any,
) -> None:
    with Stage(fidelity=fidelity) as stage:
        for schema in NO_FLAG:
            program = f"schema = {schema}\n{CATCHING.format(call=asking('schema'))}"
            play = Play(stage, program, says={"value": ENOUGH})
            assert (play.run().value, play.reader.requests) == ("ToolError", []), schema


@pytest.mark.parametrize(
    "said",
    [
        *("Five, I think", "1e999", "[]", '"Five"', "{}", '{"stars": 1}'),
        '{"have_enough_info": "true"}',
        '{"have_enough_info": 1}',
        '{"have_enough_info": null}',
        f"{'[' * 500}{']' * 500}",
        f"{'[' * 5000}",
        {"refusal": "I will not"},
    ],
)
def test_an_answer_that_does_not_fit_the_schema_raises_tool_error(stage: Stage, said: Any) -> None:
    assert Play(stage, CATCHING.format(call=asking(OBJECT)), says=said).run().value == "ToolError"
    with pytest.raises(ProgramFailed) as caught:
        Play(stage, asking(OBJECT), says=said).run()
    assert "I will not" not in str(caught.value)
    assert "Five" not in str(caught.value)


def test_an_answer_that_is_too_large_when_parsed_raises_tool_error() -> None:
    call = CATCHING.format(call=asking(OBJECT)).replace("type(error).__name__", "str(error)")
    with Stage(isolated_programs=False, limits={"parsed_answer_bytes": 10_000}) as stage:
        for count, is_refused in ((10, False), (1_000, True)):
            said = {**ENOUGH, "stars": [[]] * count}
            found = str(Play(stage, call, says=json.dumps(said)).run().value)
            assert ("more than 10000 bytes" in found) is is_refused
            assert ("`parsed_answer_bytes`" in found) is is_refused


@pytest.mark.parametrize(
    "call",
    [
        "parse_with_ai(**dict())",
        f"parse_with_ai(**dict(query={ASKED!r}))",
        f"parse_with_ai(**dict(output_schema={OBJECT}))",
        f"parse_with_ai(query={ASKED!r}, output_schema={OBJECT}, **dict(more=1))",
    ],
)
def test_a_call_with_wrong_arguments_raises_type_error_before_the_model_is_asked(
    stage: Stage, call: str
) -> None:
    play = Play(stage, CATCHING.format(call=call))
    assert play.run().value == "TypeError"
    assert play.reader.requests == []


SECRET = """
tool "read_mail" -> @tags |= {"secret"};
tool "parse_with_ai" {
    must deny when query.tags overlaps {"secret"} and not "public" in @session.tags;
    result { @tags |= {"read"}; }
}
tool "send_mail" -> session @tags |= {"public"};
"""
ASKS = reads("f'Who? {read_mail(number=1)}'")


def test_the_policy_applies_to_parse_with_ai(stage: Stage) -> None:
    denied = Play(stage, f"try:\n    {ASKS}\nexcept Exception:\n    'caught'", policy=SECRET)
    with pytest.raises(PolicyDenied) as caught:
        denied.run()
    assert caught.value.tool == "parse_with_ai"
    assert denied.reader.requests == []
    allowed = Play(stage, f"send_mail(to='Bob', text='hi')\n{ASKS}", policy=SECRET)
    result = allowed.run()
    assert (result.value, result.labels) == (
        "Bob",
        Labels(
            producers=frozenset({"__tool/parse_with_ai"}),
            tags=frozenset({"secret", "read", "__non_executable"}),
        ),
    )


# verify_hypothesis


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("true", True),
        ('{"answer": false}', False),
        ('"true"', "ToolError"),
        ("1", "ToolError"),
        ("Yes!", "ToolError"),
        ({"refusal": "I will not"}, "ToolError"),
    ],
)
def test_verify_hypothesis_returns_a_boolean_or_raises_tool_error(
    stage: Stage, said: Any, expected: bool | str
) -> None:
    call = "verify_hypothesis(hypothesis='It rains (sky)', sky=['wet'], **{'a\\nb': 'x\\ny'})"
    play = Play(stage, CATCHING.format(call=call), says=said)
    assert play.run().value == expected
    request, *_ = play.reader.requests  # answers that are not JSON cause further requests
    assert (request.messages[-1].text, request.tools) == (
        'It rains (sky)\n\nData:\n"sky": ["wet"]\n"a\\nb": "x\\ny"',
        [],
    )


def test_the_policy_applies_to_verify_hypothesis_and_its_result_has_the_labels_of_the_data(
    stage: Stage,
) -> None:
    policy = """
    tool "read_mail" -> @producers |= {"inbox"};
    tool "verify_hypothesis" { must deny when hypothesis.value == "no"; }
    """
    program = "verify_hypothesis(hypothesis='yes (mail)', mail=read_mail(number=1))"
    result = Play(stage, program, says="true", policy=policy).run()
    assert result.labels.producers == {"inbox"}
    spread = "verify_hypothesis(hypothesis='yes', **{'a': 1, read_mail(number=1): 2})"
    result = Play(stage, spread, says="true", policy=policy).run()
    assert result.labels.producers == {"inbox"}
    by_name = 'tool "verify_hypothesis" { must deny when mail.tags overlaps {"__non_executable"}; }'
    with pytest.raises(PolicyDenied):
        Play(stage, program, says="true", policy=by_name).run()
    with pytest.raises(PolicyDenied):
        Play(stage, "verify_hypothesis(hypothesis='no')", says="true", policy=policy).run()


# complete_turn


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("complete_turn(value={'a': [1]})\nsend_mail(to='x', text='y')", {"a": [1]}),
        ("complete_turn()", None),
        ("try:\n    complete_turn(value=1)\nfinally:\n    complete_turn(value=2)", 1),
        ("def end():\n    complete_turn(value=1)\n\nwhile True:\n    end()", 1),
        ("final_return_value = 2\ncomplete_turn(value=1)", 1),
    ],
)
def test_complete_turn_ends_the_turn_with_its_value(
    stage: Stage, program: str, expected: Any
) -> None:
    assert Play(stage, program).run({}).value == expected


def test_the_policy_applies_to_complete_turn(stage: Stage) -> None:
    policy = """
    tool "read_mail" -> @tags |= {"secret"};
    tool "complete_turn" { must deny when value.tags overlaps {"secret"}; }
    """
    with pytest.raises(PolicyDenied):
        Play(stage, "complete_turn(value=[read_mail(number=1)])", policy=policy).run()
    assert Play(stage, "complete_turn(value=[1])", policy=policy).run().labels == Labels()


# set_policy

NO_MAIL = 'set_policy(policy=\'tool "send_mail" { must deny when to.value == "Eve"; }\')\n'


def test_set_policy_can_forbid_calls_for_the_rest_of_the_session(stage: Stage) -> None:
    send = "send_mail(to='{}', text='hi')"
    programs = (NO_MAIL + send.format("Bob"), send.format("Bob"), send.format("Eve"))
    play = Play(stage, *programs)
    history = converse(play.model, "Go", TOOLS)
    history = converse(play.model, [*history, HumanMessage("On")], TOOLS)
    assert ended(history).value == "sent"
    with pytest.raises(PolicyDenied):
        converse(play.model, [*history, HumanMessage("On")], TOOLS)


def test_set_policy_cannot_allow_a_forbidden_call(stage: Stage) -> None:
    rules = "priority 1000; must allow always; hard allow when true_words; should allow always;"
    loose = f'let true_words = to.value == "Eve"; tool r".*" {{ {rules} }}'
    policy = 'tool "send_mail" { should deny when to.value == "Eve"; }'
    program = f"set_policy(policy={loose!r})\nsend_mail(to='Eve', text='hi')"
    with pytest.raises(PolicyDenied) as caught:
        Play(stage, program, policy=policy).run()
    assert [check["tool"] for check in caught.value.checks] == ["set_policy", "send_mail"]


@pytest.mark.parametrize(
    "policy",
    [
        'tool "send_mail" { session before { @tags = {}; } }',
        'tool "read_mail" { must deny always; result { @tags = {}; } }',
        'tool "read_mail" -> @tags = {};',
        'tool "read_mail" -> session @tags = {};',
        'tool "read_mail" {',
        'tool "read_mail" { must deny when unknown_name; }',
    ],
)
def test_set_policy_accepts_only_valid_policies_without_updates_of_labels(
    stage: Stage, policy: str
) -> None:
    program = CATCHING.format(call=f"set_policy(policy={policy!r})") + "\nread_mail(number=1)\nx"
    assert Play(stage, program).run().value == "ToolError"


def test_the_strongest_denial_of_all_policies_counts(stage: Stage) -> None:
    policy = 'tool "send_mail" { should deny when to.value == "Eve"; }'
    with pytest.raises(PolicyDenied) as caught:
        Play(stage, NO_MAIL + "send_mail(to='Eve', text='hi')", policy=policy).run()
    assert caught.value.checks[-1]["verdict"] == "hard_denied"


def test_the_policy_applies_to_set_policy(stage: Stage) -> None:
    with pytest.raises(PolicyDenied):
        Play(stage, NO_MAIL, policy='tool "set_policy" { must deny always; }').run()


# Names


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("read-mail", "read_mail"),
        ("2nd", "tool_2nd"),
        ("class", "class_"),
        ("True", "True_"),
        ("match", "match"),
        ("print", "print_"),
        ("open", "open_"),
        ("vars", "vars_"),
        ("__import__", "tool___import__"),
        ("-", "_"),
    ],
)
def test_a_program_calls_a_tool_by_a_python_name_and_denials_report_its_own_name(
    stage: Stage, name: str, called: str
) -> None:
    policy = f'tool "{name}" {{ must deny when x.value == 0; }}'
    tools: Tools = {name: lambda x: f"got {x}"}
    play = Play(stage, f"{called}(x=1)", f"{called}(x=0)", tools=[tool(name)], policy=policy)
    history = converse(play.model, "Go", tools)
    assert ended(history).value == "got 1"
    with pytest.raises(PolicyDenied) as caught:
        converse(play.model, [*history, HumanMessage("On")], tools)
    assert caught.value.tool == name


def test_the_default_model_calls_a_tool_by_its_python_name(api: Api) -> None:
    named = {"type": "function", "function": {"name": "read-mail"}}
    for asked in ({"tool_choice": named}, {}):
        reply = api.chat(
            "call read-mail",
            headers={"X-Features": json.dumps(DUAL)},
            tools=[tool("other"), tool("read-mail")],
            **asked,
        )
        assert [one["function"]["name"] for one in said(reply)["tool_calls"]] == ["read-mail"]


def test_arguments_may_have_names_that_are_not_python_identifiers(stage: Stage) -> None:
    program = "f(**{'a-b': 1, 'class': 2})"
    play = Play(stage, program, tools=[tool("f", "a-b", "class")])
    assert play.run({"f": lambda **given: str(sorted(given.items()))}).value == str(
        [("a-b", 1), ("class", 2)]
    )


@pytest.mark.parametrize(
    ("names", "enabled"),
    [
        (["parse_with_ai"], ["parse_with_ai"]),
        (["parse-with-ai"], ["parse_with_ai"]),
        (["set_policy"], ["set_policy"]),
        (["a-b", "a_b"], []),
        (["class", "class_"], []),
    ],
)
def test_tools_with_the_same_python_name_are_refused(
    stage: Stage, names: list[str], enabled: list[str]
) -> None:
    fsm = {"enabled_internal_tools": enabled}
    with pytest.raises(InvalidRequest, match=r"\b400\b.*Rename the tool"):
        Play(stage, "1", tools=[tool(name) for name in names], fsm=fsm).run()


@pytest.mark.parametrize("name", ALL_FOUR)
def test_a_tool_may_have_the_name_of_a_disabled_internal_tool(stage: Stage, name: str) -> None:
    enabled = [one for one in ALL_FOUR if one != name]
    fsm = {"enabled_internal_tools": enabled}
    play = Play(stage, f"{name}(x=1)", tools=[tool(name)], fsm=fsm)
    assert play.run({name: "mine"}).value == "mine"
    assert play.reader.requests == []
