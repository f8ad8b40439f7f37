"""`X-Config`: fields of the turn, its limits and its tool results (P7, T1, T3)."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_sequrity import SequrityMessages
from langchain_sequrity.errors import InvalidRequest, ProgramFailed
from tests.local.dual_llm.conversation import Stage, Teller, Tools, converse, ended, enough, reads

Json = dict[str, Any]


def read(number: int) -> str:
    """Read a page."""
    raise NotImplementedError(number)


def mark() -> str:
    """Leave a mark."""
    raise NotImplementedError


TOOLS = [read, mark]
MARKED = {"X": 'tool "mark" -> session after @tags |= {"marked"};'}


def value(model: Any, query: Any = "Go", tools: Tools = MARKED) -> Any:
    """The value of a turn."""
    return ended(converse(model, query, tools)).value


def calls(messages: list[BaseMessage]) -> list[str]:
    return [
        call["name"] for one in messages if isinstance(one, AIMessage) for call in one.tool_calls
    ]


class Play:
    """One model with a scripted planner, which records its requests."""

    def __init__(self, stage: Stage, *programs: Any, **fields: Any) -> None:
        self.planner = Teller("planner", *programs)
        tellers = [self.planner, *fields.pop("tellers", ())]
        tools = fields.pop("tools", TOOLS)
        self.model = stage.model(*tellers, **fields).bind_tools(tools)


def fsm(stage: Stage, setting: Mapping[str, Any], *programs: Any, **fields: Any) -> Play:
    return Play(stage, *programs, session_config={"fsm": dict(setting)}, **fields)


# Lifetime of labels, programs and steps


@pytest.mark.filterwarnings("ignore:.*`fsm.clear_session_meta`")
@pytest.mark.parametrize(
    ("setting", "in_the_turn", "in_the_next"),
    [
        ({}, ["marked"], ["marked"]),
        ({"clear_session_meta": "never"}, ["marked"], ["marked"]),
        ({"clear_session_meta": "every_turn"}, ["marked"], []),
        ({"clear_session_meta": "every_attempt"}, [], []),
    ],
)
def test_clear_session_meta_decides_when_session_labels_are_cleared(
    stage: Stage, setting: Json, in_the_turn: list[str], in_the_next: list[str]
) -> None:
    config = {"fsm": setting, "response_format": {"include_policy_check_history": True}}
    play = Play(
        stage, "mark()\n1 / 0", "'first'", "'second'", session_config=config, policy=MARKED["X"]
    )
    first = converse(play.model, "Go", {"mark": "done"})
    second = converse(play.model, [*first, HumanMessage("On")], {})
    assert [ended(first).value, ended(second).value] == ["first", "second"]
    for messages, tags in ((first, in_the_turn), (second, in_the_next)):
        session = ended(messages).session_meta
        assert session is not None
        assert session["meta"]["tags"] == tags


def failed_programs(play: Play) -> list[int]:
    """How many failed programs each prompt shows."""
    return [len(re.findall("^1 / 0$", prompt, re.MULTILINE)) for prompt in play.planner.prompts]


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"clear_history_every_n_attempts": 2}, [0, 1, 0, 1, 0]),
        ({"clear_history_every_n_attempts": 1}, [0, 0, 0, 0, 0]),
        (
            {"clear_history_every_n_attempts": 2, "enable_multistep_planning": True},
            [0, 1, 2, 3, 4],
        ),
    ],
)
def test_clear_history_every_n_attempts_hides_failed_programs_except_in_multistep_planning(
    stage: Stage, setting: Json, shown: list[int]
) -> None:
    failing = [f"x = {number}\n1 / 0" for number in range(4)]
    last = "final_return_value = 'done'"
    play = fsm(stage, {**setting, "max_pllm_failed_steps": 9}, *failing, last)
    assert value(play.model) == "done"
    assert failed_programs(play) == shown


@pytest.mark.parametrize(("setting", "expected"), [({}, None), ({"on": True}, 3)])
def test_steps_build_on_each_other_only_in_multistep_planning(
    stage: Stage, setting: Json, expected: int | None
) -> None:
    steps = {"enable_multistep_planning": bool(setting)}
    play = fsm(stage, steps, "x = 1 + 1", "final_return_value = x + 1")
    assert value(play.model) == expected
    assert len(play.planner.requests) == (2 if setting else 1)


# Limits


def code(play: Play, tools: Tools = MARKED) -> str | None:
    """The code of the error with which a turn fails."""
    with pytest.raises(ProgramFailed) as caught:
        converse(play.model, "Go", tools)
    return caught.value.code


@pytest.mark.parametrize(
    ("setting", "programs"),
    [
        ({}, 3),
        ({"max_pllm_failed_steps": 1}, 1),
        ({"max_pllm_failed_steps": 5}, 5),
        ({"max_pllm_failed_steps": 5, "max_pllm_steps": 2}, 2),
        ({"max_pllm_failed_steps": 50}, 10),
    ],
)
def test_a_turn_fails_at_the_limit_of_failed_programs(
    stage: Stage, setting: Json, programs: int
) -> None:
    play = fsm(stage, setting, *(f"{number} / 0" for number in range(10)))
    assert code(play) == "program_error"
    assert len(play.planner.requests) == programs


@pytest.mark.parametrize(("setting", "programs"), [({}, 10), ({"max_pllm_steps": 4}, 4)])
def test_a_turn_fails_at_the_limit_of_steps(stage: Stage, setting: Json, programs: int) -> None:
    play = fsm(stage, {"enable_multistep_planning": True, **setting}, "x = 1")
    assert code(play) == "limit_reached"
    assert len(play.planner.requests) == programs


LOOP = "for number in range(%d):\n    read(number=1)\n'done'"


@pytest.mark.parametrize(
    ("setting", "allowed"),
    [({}, 200), ({"max_tool_calls_per_step": 2}, 2), ({"max_tool_calls_per_step": None}, 1_000)],
)
def test_a_program_fails_above_the_limit_of_calls(
    stage: Stage, setting: Json, allowed: int
) -> None:
    # The cache answers the calls after the first, and they still count.
    setting = {**setting, "force_to_cache": ["read"], "max_pllm_failed_steps": 1}
    pages = {"read": "a page"}
    assert value(fsm(stage, setting, LOOP % allowed).model, tools=pages) == "done"
    if setting.get("max_tool_calls_per_step", allowed) is not None:
        assert code(fsm(stage, setting, LOOP % (allowed + 1)), pages) == "limit_reached"


@pytest.mark.parametrize(
    ("steps", "first"),
    [(False, "mark()\n1 / 0"), (True, "mark()\n1 / 0"), (True, "mark()\nexit()")],
)
def test_the_limit_of_calls_applies_to_each_program_separately(
    stage: Stage, steps: bool, first: str
) -> None:
    setting = {"max_tool_calls_per_step": 1, "enable_multistep_planning": steps}
    play = fsm(stage, setting, first, "mark()\nfinal_return_value = 'done'")
    assert value(play.model, tools={"mark": "m"}) == "done"
    assert len(play.planner.requests) == 2


@pytest.mark.parametrize(
    ("enabled", "expected"),
    [
        (None, ["parse_with_ai", "verify_hypothesis"]),
        ([], []),
        (["complete_turn"], ["complete_turn"]),
        (["set_policy", "parse_with_ai"], ["parse_with_ai", "set_policy"]),
    ],
)
def test_programs_have_only_the_enabled_internal_tools(
    stage: Stage, enabled: list[str] | None, expected: list[str]
) -> None:
    programs = {
        "parse_with_ai": reads("'Read: Go'"),
        "verify_hypothesis": "verify_hypothesis(hypothesis='?')",
        "complete_turn": "complete_turn(value=1)",
        "set_policy": "set_policy(policy='')",
    }
    setting = {} if enabled is None else {"enabled_internal_tools": enabled}
    found: list[str] = []
    failures: list[str] = []
    for name, program in programs.items():
        reader = Teller("quarantined", "true" if name == "verify_hypothesis" else enough(1))
        play = fsm(stage, {**setting, "max_pllm_steps": 1}, program, tellers=[reader])
        try:
            converse(play.model, "Go", {})
            found.append(name)
        except ProgramFailed as failed:
            failures.append(f"{failed}")
        assert [f"- {name}(" in play.planner.prompts[0] for name in programs] == [
            name in expected for name in programs
        ]
    assert found == expected
    assert all("is not defined" in failure for failure in failures)


def test_a_tool_that_is_not_documented_is_refused_by_its_name(stage: Stage) -> None:
    play = fsm(stage, {"enabled_internal_tools": ["parse_image_with_ai"]}, "1")
    with pytest.raises(InvalidRequest, match="does not have the tool `parse_image_with_ai`"):
        converse(play.model, "Go", {})


# Results of tools


def test_force_to_cache_caches_results_of_tools_that_match_a_pattern(stage: Stage) -> None:
    program = "[read(number=1), read(number=1), read(number=2), mark(), mark()]"
    play = fsm(stage, {"force_to_cache": ["^re"]}, program)
    pages: Tools = {"read": lambda number: f"page {number}", "mark": "m"}
    first = converse(play.model, "Go", pages)
    assert ended(first).value == ["page 1", "page 1", "page 2", "m", "m"]
    assert calls(first) == ["read", "read", "mark", "mark"]
    second = converse(play.model, [*first, HumanMessage("Again")], {"mark": "m"})
    assert calls(second[len(first) :]) == ["mark", "mark"]


def test_a_cached_result_gets_the_labels_of_the_current_call(stage: Stage) -> None:
    program = "one = read(number=1)\ntwo = read(number=mark())\nthree = read(number=1)\n0"
    config = {
        "fsm": {"force_to_cache": ["read"]},
        "response_format": {"include_namespace_snapshot": True},
    }
    policy = 'tool "mark" -> @tags |= {"marked"};'
    play = Play(stage, program, session_config=config, policy=policy)
    history = converse(play.model, "Go", {"read": "page", "mark": "1"})
    assert calls(history) == ["read", "mark"]
    snapshot = ended(history).namespace_snapshot
    assert snapshot is not None
    tags = {name: snapshot[name]["meta"]["tags"] for name in ("one", "two", "three")}
    plain = ["__non_executable"]
    assert tags == {"one": plain, "two": [*plain, "marked"], "three": plain}


def test_nothing_is_cached_by_default_and_errors_are_never_cached(stage: Stage) -> None:
    program = "read(number=1)\nread(number=1)\n'done'"
    assert calls(converse(Play(stage, program).model, "Go", {"read": "p"})) == ["read", "read"]
    retry = "try:\n    read(number=1)\nexcept ToolError:\n    pass\nread(number=1)"
    setting = {"force_to_cache": ["read"], "detect_tool_errors": "regex"}
    pages = iter(["Error: no", "page"])
    play = fsm(stage, setting, retry)
    assert value(play.model, tools={"read": lambda number: next(pages)}) == "page"  # noqa: ARG005


def test_the_policy_checks_calls_that_are_answered_from_the_cache(stage: Stage) -> None:
    policy = """
    tool "read" {
        must deny when @session.tags overlaps {"twice"};
        session after {
            when "once" in @tags { @tags |= {"twice"}; }
            @tags |= {"once"};
        }
    }
    """
    program = "read(number=1)\nread(number=1)\nread(number=1)"
    play = fsm(stage, {"force_to_cache": ["read"]}, program, policy=policy)
    with pytest.raises(Exception, match="denied") as caught:
        converse(play.model, "Go", {"read": "page"})
    assert [check["verdict"] for check in caught.value.checks] == [  # type: ignore[attr-defined] # of PolicyDenied
        "soft_allowed",
        "soft_allowed",
        "hard_denied",
    ]


@pytest.mark.parametrize(
    ("setting", "said", "expected"),
    [
        ({}, '{"a": 1}', {"a": 1}),
        ({"wrap_tool_result": False}, "7", 7),
        ({"wrap_tool_result": True}, "7", {"ok": True, "value": 7}),
        (
            {"wrap_tool_result": True, "detect_tool_errors": "regex"},
            "Error: no page",
            {"ok": False, "error": "Error: no page"},
        ),
        ({}, "Error: no page", "Error: no page"),
        ({"detect_tool_errors": "none"}, "Error: no page", "Error: no page"),
        ({"detect_tool_errors": "regex"}, "Error: no page", "caught"),
        ({"detect_tool_errors": "regex"}, "A page on errors", "A page on errors"),
        (
            {"detect_tool_errors": "regex", "detect_tool_error_regex_pattern": "^Oh"},
            "Oh dear",
            "caught",
        ),
        (
            {"detect_tool_errors": "regex", "detect_tool_error_regex_pattern": "^Oh"},
            "Error: no page",
            "Error: no page",
        ),
        (
            {
                "detect_tool_errors": "regex",
                "detect_tool_error_regex_pattern": "dear",
                "detect_tool_error_max_result_length": 5,
            },
            "Oh dear",
            "Oh dear",
        ),
        ({"strict_tool_result_parsing": False}, "42", 42),
        ({"strict_tool_result_parsing": True}, "42", "42"),
        (
            {"tool_result_transform": "codex"},
            '{"output": "a.py\\n", "metadata": {"exit_code": 0, "duration_seconds": 0.1}}',
            {"exit_code": 0, "output": "a.py\n"},
        ),
        (
            {"tool_result_transform": "codex"},
            "Exit code: 2\nWall time: 0.1 seconds\nOutput:\nno such file\n",
            {"exit_code": 2, "output": "no such file\n"},
        ),
        ({"tool_result_transform": "codex"}, "Output:\nplain", "Output:\nplain"),
        ({"tool_result_transform": "none"}, '{"output": "", "metadata": {}}', {"output": "", "metadata": {}}),
    ],
)  # fmt: skip
def test_settings_decide_how_results_are_read(
    stage: Stage, setting: Json, said: str, expected: Any
) -> None:
    program = "try:\n    x = read(number=1)\nexcept ToolError:\n    x = 'caught'\nx"
    assert value(fsm(stage, setting, program).model, tools={"read": said}) == expected


def test_strict_parsing_reads_json_of_tools_with_an_output_schema(stage: Stage) -> None:
    parameters = {"type": "object", "properties": {"number": {"type": "integer"}}}
    function = {"name": "read", "parameters": parameters, "output_schema": {"type": "integer"}}
    play = fsm(
        stage,
        {"strict_tool_result_parsing": True},
        "read(number=1)",
        tools=[{"type": "function", "function": function}],
    )
    assert value(play.model, tools={"read": "42"}) == 42


@pytest.mark.parametrize(("score", "is_error"), [("0.9", True), ("0.1", False), ("what?", True)])
def test_a_model_detects_errors_and_an_unclear_score_counts_as_an_error(
    stage: Stage, score: str, is_error: bool
) -> None:
    program = "try:\n    x = read(number=1)\nexcept ToolError:\n    x = 'caught'\nx"
    detector = Teller("classifier", score)
    setting = {"detect_tool_errors": "llm", "detect_tool_error_max_result_length": 11}
    play = fsm(stage, setting, program, tellers=[detector])
    for content in ("All is lost", "All is lost, or what"):
        expected = "caught" if is_error else content
        assert value(play.model, tools={"read": content}) == expected
    # The detector sees only the beginning of a long result.
    assert [str(request.messages[-1].text) for request in detector.requests] == ["All is lost"] * 2


def test_an_error_status_raises_tool_error_unless_error_detection_is_off(stage: Stage) -> None:
    program = "try:\n    x = read(number=1)\nexcept ToolError:\n    x = 'caught'\nx"
    failed = {"read": lambda number: ToolMessage("no", tool_call_id=f"{number}", status="error")}
    for setting, expected in (({}, "caught"), ({"detect_tool_errors": "none"}, "no")):
        play = fsm(stage, setting, program, of=SequrityMessages)
        assert value(play.model, tools=failed) == expected


def test_results_of_internal_tools_are_not_wrapped(stage: Stage) -> None:
    program = """
from pydantic import BaseModel

class Page(BaseModel):
    number: int
    have_enough_info: bool

try:
    parse_with_ai(query="Read: Go", output_schema=Page.model_json_schema())
except ToolError:
    page = parse_with_ai(query="Read: Go", output_schema=Page.model_json_schema())
page["number"]
"""
    reader = Teller("quarantined", *["no page"] * 3, '{"number": 7, "have_enough_info": true}')
    play = fsm(stage, {"wrap_tool_result": True}, program, tellers=[reader])
    assert value(play.model) == 7
