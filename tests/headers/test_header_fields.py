import ast
import copy
import pickle
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from langchain_sequrity.headers import (
    Blocker,
    BranchingMetaPolicy,
    Classifier,
    ConfigHeader,
    FeaturesHeader,
    FsmConfig,
    GenerationConfig,
    HeaderModel,
    LlmConfig,
    PlannerPrompt,
    PolicyCodes,
    PolicyHeader,
    PolicyOptions,
    Presets,
    PromptConfig,
    PromptTemplate,
    ReasoningConfig,
    ResponseFormatConfig,
    ReviewerPrompt,
    ToolFilterPrompt,
)
from tests.headers.header_strategies import ALL_MODELS, HEADERS, NEVER_NULL

TRUTH = "boolean"
ONE = "greater than or equal to 1"
Row = tuple[type[HeaderModel], str, Any, Any, Any, str]

# class, field, a valid value, its wire form, an invalid value, words in the error
FIELDS: list[Row] = [
    (FeaturesHeader, "agent_arch", "dual-llm", "dual-llm", "triple", "'single-llm' or 'dual-llm'"),
    (
        FeaturesHeader,
        "content_classifiers",
        [Classifier(name="pii_redaction")],
        [{"name": "pii_redaction"}],
        {"name": "pii_redaction"},
        "a list",
    ),
    (
        FeaturesHeader,
        "content_blockers",
        [{"name": "url_blocker"}],
        [{"name": "url_blocker"}],
        [{"name": "ad_blocker"}],
        "'url_blocker' or 'file_blocker'",
    ),
    (Classifier, "name", "toxicity_filter", "toxicity_filter", "toxicity", "'toxicity_filter'"),
    (Classifier, "threshold", 0, 0, 1.01, "less than or equal to 1"),
    (Classifier, "mode", "strict", "strict", 3, "string"),
    (Blocker, "name", "file_blocker", "file_blocker", "", "'url_blocker' or 'file_blocker'"),
    (PolicyHeader, "mode", "custom", "custom", "lenient", "'standard', 'strict' or 'custom'"),
    (PolicyHeader, "codes", "", {"code": "", "language": "sqrt"}, 3, "PolicyCodes"),
    (PolicyHeader, "auto_gen", True, True, "yes", TRUTH),
    (PolicyHeader, "fail_fast", False, False, 0, TRUTH),
    (PolicyHeader, "presets", Presets(), {}, "none", "Presets"),
    (PolicyCodes, "code", "let a={};", "let a={};", b"let", "string"),
    (PolicyCodes, "language", "cedar", "cedar", "rego", "'sqrt' or 'cedar'"),
    (Presets, "default_allow", False, False, "false", TRUTH),
    (Presets, "default_allow_enforcement_level", "hard", "hard", "firm", "'soft' or 'hard'"),
    (Presets, "enable_non_executable_memory", True, True, 1, TRUTH),
    (Presets, "enable_llm_blocked_tag", True, True, 1, TRUTH),
    (Presets, "llm_blocked_tag_enforcement_level", "soft", "soft", True, "'soft' or 'hard'"),
    (Presets, "branching_meta_policy", BranchingMetaPolicy(), {}, [], "BranchingMetaPolicy"),
    (BranchingMetaPolicy, "mode", "allow", "allow", "block", "'allow' or 'deny'"),
    (BranchingMetaPolicy, "producers", {"b", "a"}, ["a", "b"], "a", "a list"),
    (BranchingMetaPolicy, "tags", ["b", "a", "b"], ["a", "b"], [""], "at least 1 character"),
    (BranchingMetaPolicy, "consumers", frozenset("*"), ["*"], [1], "string"),
    (ConfigHeader, "fsm", FsmConfig(), {}, 3, "FsmConfig"),
    (ConfigHeader, "prompt", PromptConfig(), {}, 3, "PromptConfig"),
    (ConfigHeader, "response_format", ResponseFormatConfig(), {}, 3, "ResponseFormatConfig"),
    (ConfigHeader, "llm", LlmConfig(), {}, 3, "LlmConfig"),
    (FsmConfig, "min_num_tools_for_filtering", 2, 2, 1, "greater than or equal to 2"),
    (FsmConfig, "clear_session_meta", "every_turn", "every_turn", "always", "'every_attempt'"),
    (FsmConfig, "max_n_turns", 1, 1, 0, ONE),
    (FsmConfig, "history_mismatch_policy", "continue", "continue", "ignore", "'restart_turn'"),
    (FsmConfig, "clear_history_every_n_attempts", 3, 3, -3, ONE),
    (FsmConfig, "disable_rllm", True, True, "true", TRUTH),
    (FsmConfig, "enable_multistep_planning", True, True, "on", TRUTH),
    (
        FsmConfig,
        "enabled_internal_tools",
        {"set_policy", "parse_with_ai"},
        ["parse_with_ai", "set_policy"],
        ["exec"],
        "'parse_with_ai'",
    ),
    (FsmConfig, "prune_failed_steps", False, False, "no", TRUTH),
    (FsmConfig, "force_to_cache", ["^get_"], ["^get_"], ["("], "regular expression"),
    (FsmConfig, "max_pllm_steps", 6, 6, 1.5, "integer"),
    (FsmConfig, "max_pllm_failed_steps", 6, 6, True, "integer"),
    (FsmConfig, "max_tool_calls_per_step", 200, 200, "200", "integer"),
    (FsmConfig, "reduced_grammar_for_rllm_review", "bool", "bool", "flags", "'none', 'bool'"),
    (FsmConfig, "reduced_grammar_for_rllm_review", True, True, 1, "'none', 'bool'"),
    (FsmConfig, "retry_on_policy_violation", True, True, 1, TRUTH),
    (FsmConfig, "offer_soft_denials", True, True, 1, TRUTH),
    (FsmConfig, "wrap_tool_result", False, False, 1, TRUTH),
    (FsmConfig, "detect_tool_errors", "regex", "regex", "grep", "'none', 'regex' or 'llm'"),
    (FsmConfig, "detect_tool_error_regex_pattern", "^E", "^E", "a{9999999999}", "regular expr"),
    (FsmConfig, "detect_tool_error_max_result_length", 0, 0, -1, "greater than or equal to 0"),
    (FsmConfig, "strict_tool_result_parsing", True, True, 1, TRUTH),
    (FsmConfig, "tool_result_transform", "codex", "codex", "json", "'none' or 'codex'"),
    (FsmConfig, "n_pllm_plans", 3, 3, 2**63, "less than"),
    (FsmConfig, "pllm_candidate_models", ["b", "a"], ["b", "a"], ["a", "a"], "repetitions"),
    (FsmConfig, "pllm_context_pruning", True, True, 1, TRUTH),
    (PromptConfig, "pllm", PlannerPrompt(), {}, 1, "PlannerPrompt"),
    (PromptConfig, "rllm", ReviewerPrompt(), {}, 1, "ReviewerPrompt"),
    (PromptConfig, "grllm", PromptTemplate(), {}, 1, "PromptTemplate"),
    (PromptConfig, "qllm", PromptTemplate(), {}, 1, "PromptTemplate"),
    (PromptConfig, "tllm", ToolFilterPrompt(), {}, 1, "ToolFilterPrompt"),
    (PromptConfig, "tagllm", PromptTemplate(), {}, 1, "PromptTemplate"),
    (PromptConfig, "policy_llm", PromptTemplate(), {}, 1, "PromptTemplate"),
    (PromptConfig, "error_detector_llm", PromptTemplate(), {}, 1, "PromptTemplate"),
    (PromptTemplate, "flavor", "universal", "universal", 1, "string"),
    (PromptTemplate, "version", "v2", "v2", 2, "string"),
    (PlannerPrompt, "flavor", "code", "code", 1, "string"),
    (PlannerPrompt, "version", "", "", 2, "string"),
    (PlannerPrompt, "debug_info_level", "extra", "extra", "all", "'minimal', 'normal' or 'extra'"),
    (PlannerPrompt, "clarify_ambiguous_queries", True, True, 1, TRUTH),
    (PlannerPrompt, "context_var_visibility", "all", "all", "some", "'basic-notext'"),
    (PlannerPrompt, "query_inline_roles", ["system"], ["system"], ["user"], "'developer'"),
    (PlannerPrompt, "query_role_name_overrides", {"a": "b"}, {"a": "b"}, {"a": 1}, "string"),
    (PlannerPrompt, "query_include_tool_calls", True, True, 1, TRUTH),
    (PlannerPrompt, "query_include_tool_args", True, True, 1, TRUTH),
    (PlannerPrompt, "query_include_tool_results", True, True, 1, TRUTH),
    (ReviewerPrompt, "flavor", "x", "x", 1, "string"),
    (ReviewerPrompt, "version", "x", "x", 1, "string"),
    (ReviewerPrompt, "debug_info_level", "minimal", "minimal", "max", "'minimal', 'normal'"),
    (ToolFilterPrompt, "flavor", "x", "x", 1, "string"),
    (ToolFilterPrompt, "version", "x", "x", 1, "string"),
    (ToolFilterPrompt, "add_tool_description", True, True, 1, TRUTH),
    (ToolFilterPrompt, "add_tool_input_schema", True, True, 1, TRUTH),
    (ResponseFormatConfig, "strip_response_content", False, False, 0, TRUTH),
    (ResponseFormatConfig, "stream_thoughts", True, True, 1, TRUTH),
    (ResponseFormatConfig, "include_program", True, True, 1, TRUTH),
    (ResponseFormatConfig, "include_policy_check_history", True, True, 1, TRUTH),
    (ResponseFormatConfig, "include_namespace_snapshot", True, True, 1, TRUTH),
    *(
        (LlmConfig, slot, GenerationConfig(), {}, 1, "Generation")
        for slot in LlmConfig.wire_names()
    ),
    (GenerationConfig, "frequency_penalty", -2, -2, -2.1, "greater than or equal to -2"),
    (GenerationConfig, "presence_penalty", 2.0, 2.0, 2.1, "less than or equal to 2"),
    (GenerationConfig, "logit_bias", {"50256": -100}, {"50256": -100}, {"a": 0.5}, "integer"),
    (GenerationConfig, "logprobs", True, True, 5, TRUTH),
    (GenerationConfig, "max_completion_tokens", 1, 1, 0, ONE),
    (
        GenerationConfig,
        "seed",
        -7,
        -7,
        -(2**63) - 1,
        "greater than or equal to -9223372036854775808",
    ),
    (GenerationConfig, "temperature", 2, 2, float("nan"), "finite"),
    (GenerationConfig, "top_p", 1.0, 1.0, "1", "number"),
    (GenerationConfig, "reasoning", {"effort": "low"}, {"effort": "low"}, "low", "Reasoning"),
    (ReasoningConfig, "enabled", False, False, "off", TRUTH),
    (ReasoningConfig, "effort", "high", "high", 1, "string"),
    (ReasoningConfig, "budget", 1, 1, 0, ONE),
    (ReasoningConfig, "adaptive", True, True, 1, TRUTH),
]
ROWS = pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{row[0].__name__}.{row[1]}") for row in FIELDS]
)


def required(cls: type[HeaderModel]) -> dict[str, Any]:
    return {Classifier: {"name": "pii_redaction"}, Blocker: {"name": "url_blocker"}}.get(cls, {})


@ROWS
def test_a_valid_value_is_sent_as_documented(row: Row) -> None:
    cls, field, valid, wire, _, _ = row
    sent = cls(**required(cls) | {field: valid}).to_wire()[field]
    assert sent == wire
    assert isinstance(sent, bool) is isinstance(wire, bool)


@ROWS
def test_an_invalid_value_is_refused_with_field_and_allowed_values(row: Row) -> None:
    cls, field, _, _, invalid, words = row
    with pytest.raises(ValidationError) as caught:
        cls(**required(cls) | {field: invalid})
    assert field in str(caught.value)
    assert words in str(caught.value)


def test_the_table_has_every_field_of_every_class() -> None:
    every = {(cls, name) for cls in ALL_MODELS for name in cls.wire_names()}
    assert {(row[0], row[1]) for row in FIELDS} == every


@pytest.mark.parametrize("cls", ALL_MODELS)
def test_a_field_that_is_left_out_is_not_sent(cls: type[HeaderModel]) -> None:
    assert cls(**required(cls)).to_wire() == required(cls)


@pytest.mark.parametrize(
    ("cls", "field"), [(cls, name) for cls in ALL_MODELS for name in cls.wire_names()]
)
def test_an_explicit_none_is_sent_as_null_or_refused_if_null_is_invalid(
    cls: type[HeaderModel], field: str
) -> None:
    given = required(cls) | {field: None}
    if field in NEVER_NULL.get(cls, set()):
        with pytest.raises(ValidationError, match=rf"{field}\n"):
            cls(**given)
    else:
        assert cls(**given).to_wire() == given


def test_none_differs_from_not_set() -> None:
    unlimited = FsmConfig(max_n_turns=None)
    assert unlimited != FsmConfig()
    assert len({unlimited, FsmConfig(), FsmConfig()}) == 2
    assert unlimited != {"max_n_turns": None}
    assert ConfigHeader(fsm=unlimited).to_header() == '{"fsm":{"max_n_turns":null}}'


def test_values_that_differ_in_json_are_not_equal() -> None:
    assert FsmConfig(extra={"a": 1}) != FsmConfig(extra={"a": True})
    assert PromptTemplate(flavor="a") != ReviewerPrompt(flavor="a")


@pytest.mark.parametrize("cls", ALL_MODELS)
def test_header_objects_are_frozen(cls: type[HeaderModel]) -> None:
    made = cls(**required(cls))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(made, cls.wire_names()[0], None)


def test_later_changes_of_the_arguments_do_not_change_the_header() -> None:
    inner = [1]
    given: dict[str, Any] = {"future": inner}
    models = ["a"]
    fsm = FsmConfig(extra=given, pllm_candidate_models=models)
    inner.append(2)
    models.append("b")
    assert fsm.to_wire() == {"future": [1], "pllm_candidate_models": ["a"]}


def test_changing_the_wire_form_does_not_change_the_header() -> None:
    fsm = FsmConfig(extra={"future": [1]})
    fsm.to_wire()["future"].append(2)
    assert fsm.to_wire() == {"future": [1]}


def test_headers_survive_pickle_deepcopy_and_model_copy() -> None:
    config = ConfigHeader(fsm=FsmConfig(max_n_turns=None), extra={"a": [1]})
    assert pickle.loads(pickle.dumps(config)) == config
    assert copy.deepcopy(config) == config
    changed = config.model_copy(update={"llm": None})
    assert changed.to_wire() == config.to_wire() | {"llm": None}


def test_the_repr_shows_only_given_fields() -> None:
    assert repr(FsmConfig(max_n_turns=None)) == "FsmConfig(max_n_turns=None)"
    assert repr(FsmConfig(extra={"a": 1})) == "FsmConfig(extra={'a': 1})"
    assert repr(FsmConfig(extra={})) == "FsmConfig()"


def test_construction_errors_do_not_show_the_given_value() -> None:
    with pytest.raises(ValidationError) as caught:
        ConfigHeader(fsm={"max_n_turns": "sk-secret"})  # type: ignore[arg-type]
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("cls", HEADERS)
def test_headers_have_a_json_schema_and_plain_dumps(cls: type[HeaderModel]) -> None:
    assert set(cls.wire_names()) < set(cls.model_json_schema()["properties"])
    assert cls().model_dump()["extra"] == {}
    assert cls(extra={"a": [1]}).model_dump(mode="json", exclude_unset=True) == {
        "extra": {"a": [1]}
    }


def test_dumps_of_lists_and_sets_do_not_warn() -> None:
    fsm = FsmConfig(force_to_cache=["a"], pllm_candidate_models=["b"])
    branching = BranchingMetaPolicy(tags={"a"})
    assert fsm.model_dump(mode="json", exclude_unset=True) == fsm.to_wire()
    assert branching.model_dump(mode="json", exclude_unset=True) == branching.to_wire()


@pytest.mark.parametrize("cls", ALL_MODELS)
def test_every_field_has_a_docstring_with_the_servers_default(cls: type[HeaderModel]) -> None:
    source = Path(str(sys.modules[cls.__module__].__file__)).read_text(encoding="utf-8")
    body = next(
        node.body
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__
    )
    for field, text in pairwise(body):
        if not isinstance(field, ast.AnnAssign) or "ClassVar" in ast.dump(field.annotation):
            continue
        assert isinstance(text, ast.Expr)
        doc = ast.literal_eval(text.value)
        assert "Server default: " in doc or ast.unparse(field.target) == "name"


def test_a_regex_that_causes_a_warning_is_refused_if_warnings_are_errors() -> None:
    with pytest.raises(ValidationError, match="nested set"):
        FsmConfig(force_to_cache=["[[a]"])


def test_options_of_from_sqrt_are_the_fields_of_policy_and_presets() -> None:
    policy = set(PolicyHeader.model_fields) - {"codes", "presets"}
    assert set(PolicyOptions.__annotations__) == policy | set(Presets.wire_names())


def test_the_typed_constructor_of_the_policy_has_its_fields() -> None:
    source = Path(str(sys.modules[PolicyHeader.__module__].__file__)).read_text(encoding="utf-8")
    signature = re.search(r"def __init__\((.*?)\) -> None", source, re.DOTALL)
    assert signature is not None
    assert set(re.findall(r"(\w+): ", signature[1])) == set(PolicyHeader.model_fields)
