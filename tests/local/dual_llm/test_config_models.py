"""`X-Config`: prompts, content of replies, and fields without effect (P7, T3)."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from sequrity.control import (  # type: ignore[import-untyped] # the package has no type information
    FeaturesHeader,
    FineGrainedConfigHeader,
    SecurityPolicyHeader,
)

from langchain_sequrity.errors import SessionExpired
from tests.local.api import Api, said, streamed_text
from tests.local.dual_llm.conversation import Stage, Teller, converse, ended, enough, reads
from tests.local.dual_llm.test_config import Play, fsm, value

Json = dict[str, Any]


# Plans


@pytest.mark.parametrize(
    ("setting", "models"),
    [
        ({}, ["planner"]),
        ({"n_pllm_plans": 3}, ["planner"] * 3),
        ({"n_pllm_plans": 3, "pllm_candidate_models": ["one", "two"]}, ["one", "two", "one"]),
        ({"pllm_candidate_models": ["one", "two"]}, ["one"]),
    ],
)
def test_plans_are_requested_until_one_can_run(
    stage: Stage, setting: Json, models: list[str]
) -> None:
    planner = Teller("planner", *["import os"] * (len(models) - 1), "'done'")
    name = stage.cast(planner).partition("/")[0]
    candidates = [f"{name}/{one}" for one in setting.get("pllm_candidate_models", [])]
    if candidates:
        setting = {**setting, "pllm_candidate_models": candidates}
    model = stage.model(session_config={"fsm": setting}).model_copy(
        update={"model_name": f"{name}/planner,{name}/worker"}
    )
    assert value(model, tools={}) == "done"
    assert [request.model for request in planner.requests] == [f"{name}/{one}" for one in models]


# The planner's prompt

PAST = [
    HumanMessage("Read page 1"),
    AIMessage(
        "It is crimson.", tool_calls=[{"name": "read", "args": {"number": 17}, "id": "call-1"}]
    ),
    ToolMessage("a crimson page", tool_call_id="call-1"),
    AIMessage("Indeed, crimson."),
]


@pytest.mark.parametrize(
    ("setting", "told", "not_told"),
    [
        ({}, ["Read page 1", "works for a zoo"], ["crimson", "called", "17"]),
        ({"query_inline_roles": []}, ["works for a zoo"], ["crimson"]),
        ({"query_inline_roles": ["system"]}, ["system: He works for a zoo"], ["crimson"]),
        ({"query_inline_roles": ["developer"]}, ["system: He works for a zoo"], ["crimson"]),
        (
            {"query_inline_roles": ["assistant"]},
            ["assistant: Indeed, crimson."],
            ["a crimson page"],
        ),
        ({"query_inline_roles": ["tool"]}, ["tool: read: a crimson page"], ["Indeed"]),
        (
            {
                "query_inline_roles": ["assistant"],
                "query_role_name_overrides": {"user": "boss", "assistant": "clerk"},
            },
            ["boss: Read page 1", "clerk: Indeed, crimson."],
            ["assistant: ", "user: "],
        ),
        ({"query_include_tool_calls": True}, ["called read(…)"], ["17", "crimson"]),
        ({"query_include_tool_args": True}, [], ["called", "17", "crimson"]),
        (
            {"query_include_tool_calls": True, "query_include_tool_args": True},
            ['called read({"number":17})'],
            ["crimson"],
        ),
        ({"query_include_tool_results": True}, ["tool: read: a crimson page"], ["Indeed"]),
        ({}, ["a question to the user"], []),
        ({"clarify_ambiguous_queries": False}, [], ["a question to the user"]),
    ],
)
def test_settings_decide_which_parts_of_the_history_the_planner_sees(
    stage: Stage, setting: Json, told: list[str], not_told: list[str]
) -> None:
    play = Play(stage, "'done'", session_config={"prompt": {"pllm": setting}})
    system = ("system", "He works for a zoo")
    play.model.invoke([system, *PAST, HumanMessage("And page 2?")])
    (prompt,) = play.planner.prompts
    assert [text for text in told if text not in prompt] == []
    assert [text for text in not_told if text in prompt] == []


RAISED = "The program raised `KeyError` at line 2. There is no such key."


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({}, RAISED),
        ({"debug_info_level": None}, RAISED),
        ({"debug_info_level": "normal"}, RAISED),
        ({"debug_info_level": "minimal"}, "The program failed. Write"),
        ({"debug_info_level": "extra"}, "The program raised `KeyError` at line 2. 'secret'\n"),
    ],
)
def test_debug_info_level_decides_how_much_of_an_error_the_planner_sees(
    stage: Stage, setting: Json, told: str
) -> None:
    config = {"prompt": {"pllm": setting}}
    play = Play(stage, "page = read(number=1)\n{}[page]", "'done'", session_config=config)
    assert value(play.model, tools={"read": "secret"}) == "done"
    prompt = play.planner.prompts[1]
    assert f"(The last program: {told}" in prompt
    assert prompt.count("secret") == told.count("secret")


@pytest.mark.parametrize(
    ("setting", "shown"), [({}, [0, 1, 1, 1]), ({"pllm_context_pruning": False}, [0, 1, 2, 3])]
)
def test_variables_are_shown_only_before_the_newest_step_unless_context_pruning_is_off(
    stage: Stage, setting: Json, shown: list[int]
) -> None:
    steps = {"enable_multistep_planning": True, **setting}
    play = fsm(stage, steps, "x = 1", "1 / 0", "y = 2", "final_return_value = x + y")
    assert value(play.model) == 3
    assert [prompt.count("- x: int") for prompt in play.planner.prompts] == shown


# Content of a reply

KEYS = {
    "include_program": {"program"},
    "include_policy_check_history": {"policy_check_history", "session_meta"},
    "include_namespace_snapshot": {"namespace_snapshot", "session_meta"},
}
REPORTS = set().union(*KEYS.values())


@pytest.mark.parametrize(
    "settings", [[], *([one] for one in KEYS), [*KEYS]], ids=["none", *KEYS, "all"]
)
def test_a_reply_contains_only_the_requested_reports(stage: Stage, settings: list[str]) -> None:
    config = {"response_format": {**dict.fromkeys(KEYS, False), **dict.fromkeys(settings, True)}}
    program = "n = (1, 2)\nf = len\nmark()\n'done'\n"
    found = ended(converse(Play(stage, program, session_config=config).model, "Go", {"mark": "m"}))
    requested = {key for setting in settings for key in KEYS[setting]}
    held = {key for key in REPORTS if getattr(found, key) not in (None, ())}
    assert held == requested
    meta = {"producers": [], "consumers": ["*"], "tags": []}
    if found.program is not None:
        assert found.program == program
    if found.session_meta is not None:
        assert found.session_meta == {"value": None, "meta": meta}
    if found.policy_check_history:
        assert [check["tool"] for check in found.policy_check_history] == ["mark"]
    if found.namespace_snapshot is not None:
        assert found.namespace_snapshot["n"] == {"value": [1, 2], "meta": meta}
        assert set(found.namespace_snapshot) == {"n", "f"}


def test_our_chat_models_request_program_and_checks_by_default(stage: Stage) -> None:
    found = ended(converse(Play(stage, "x = 1\nx").model, "Go", {}))
    assert (found.program or "").strip() == "x = 1\nx"
    assert found.session_meta is not None
    assert found.namespace_snapshot is None


TELLING = {
    "text": ("'plain'", "plain"),
    "object": ("final_return_value = {'a': [1, None]}", '{"a":[1,null]}'),
    "number": ("1.5", "1.5"),
    "none": ("None", "null"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("program", "text"), TELLING.values(), ids=TELLING)
def test_a_stripped_reply_is_the_value_as_text(
    stage: Stage, http: httpx.Client, program: str, text: str, stream: bool
) -> None:
    reply = stripped(stage, http, program, stream=stream)
    assert (streamed_text(reply.content) if stream else said(reply)["content"]) == text


@pytest.mark.parametrize("stream", [False, True])
def test_a_stripped_failure_is_a_refusal_and_not_a_text(
    stage: Stage, http: httpx.Client, stream: bool
) -> None:
    reply = stripped(stage, http, "{}['b']", stream=stream)
    assert "content_filter" in reply.text
    assert "`KeyError`: 'b'" in (reply.text if stream else said(reply)["refusal"])
    assert (streamed_text(reply.content) if stream else said(reply)["content"]) == ""


def stripped(stage: Stage, http: httpx.Client, program: str, *, stream: bool) -> httpx.Response:
    config = {
        "fsm": {"max_pllm_steps": 1},
        "response_format": {"strip_response_content": True, "include_program": True},
    }
    headers = {"X-Features": '{"agent_arch": "dual-llm"}', "X-Config": json.dumps(config)}
    name = stage.cast(Teller("planner", program))
    api = Api(stage.server, http, key="sq-test")
    return api.chat("Go", model=name, headers=headers, stream=stream)


# Generation, and fields without effect


def test_output_limits_reach_the_models(stage: Stage) -> None:
    reader = Teller("quarantined", enough("seen"))
    slots = {"pllm": {"max_completion_tokens": 77}, "qllm": {"max_completion_tokens": 90}}
    for llm, limits in ((slots, (77, 90)), ({}, (None, None))):
        play = Play(stage, reads("'Read: Go'"), tellers=[reader], session_config={"llm": llm})
        assert value(play.model) == "seen"
        assert (play.planner.requests[-1].max_tokens, reader.requests[-1].max_tokens) == limits


TEMPLATE = {"flavor": "code", "version": "v9"}
GENERATION = {
    "frequency_penalty": 1,
    "presence_penalty": 1,
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "seed": 1,
    "temperature": 2,
    "top_p": 0.1,
    "reasoning": {"enabled": False, "effort": "high", "budget": 1, "adaptive": True},
}
LIMITED = {**GENERATION, "max_completion_tokens": 1}
WITHOUT_EFFECT: Mapping[str, Json] = {
    "fsm": {
        "min_num_tools_for_filtering": 2,
        "disable_rllm": False,
        "reduced_grammar_for_rllm_review": "none",
    },
    "prompt": {
        "pllm": TEMPLATE,
        "rllm": {**TEMPLATE, "debug_info_level": "extra"},
        "tllm": {**TEMPLATE, "add_tool_description": True, "add_tool_input_schema": True},
        **dict.fromkeys(("grllm", "qllm", "tagllm", "policy_llm", "error_detector_llm"), TEMPLATE),
    },
    "llm": {
        "pllm": GENERATION,
        "qllm": GENERATION,
        **dict.fromkeys(("rllm", "grllm", "tllm", "tagllm", "policy_llm"), LIMITED),
        "tool_result_error_detector_llm": LIMITED,
    },
}
"""What `docs/local-server.md` lists as accepted without effect."""


def test_fields_listed_as_without_effect_change_nothing(stage: Stage) -> None:
    program = reads("read(number=1)")
    seen = []
    for config in ({"fsm": {}}, WITHOUT_EFFECT):
        errors = {"fsm": {**config["fsm"], "detect_tool_errors": "llm"}}
        tellers = [Teller("quarantined", enough("Bob")), Teller("classifier", "0")]
        play = Play(stage, program, tellers=tellers, session_config={**config, **errors})
        result = ended(converse(play.model, "Go", {"read": "From Bob"}))
        asked = [play.planner, *tellers]
        prompts = [teller.prompts for teller in asked]
        limits = [request.max_tokens for teller in asked for request in teller.requests]
        seen.append((result, prompts, limits))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(("helper", "turns"), [("dual_llm", 5), ("single_llm", 50)])
def test_the_defaults_of_the_vendors_helpers_are_accepted(
    stage: Stage, helper: str, turns: int
) -> None:
    # Only the features decide whether there is a planner.
    play = Play(
        stage,
        "final_return_value = read(number=1)",
        features=FeaturesHeader.dual_llm(),
        policy=getattr(SecurityPolicyHeader, helper)(),
        session_config=getattr(FineGrainedConfigHeader, helper)(),
    )
    history = converse(play.model, "Go", {"read": "a page"})
    assert ended(history).value == "a page"
    labels = ended(history).labels
    assert labels is not None
    assert ("__non_executable" in labels.tags) == (helper == "dual_llm")
    for _ in range(turns - 1):
        history = converse(play.model, [*history, HumanMessage("Again")], {"read": "a page"})
    with pytest.raises(SessionExpired):
        play.model.invoke([*history, HumanMessage("Once too often")])
