"""Hypothesis strategies for all header objects, and the list of their classes."""

from typing import Any, get_args

from hypothesis import strategies as st

from langchain_sequrity.headers import (
    Blocker,
    BranchingMetaPolicy,
    Classifier,
    ConfigHeader,
    FeaturesHeader,
    FsmConfig,
    GenerationConfig,
    Header,
    HeaderModel,
    LlmConfig,
    PlannerPrompt,
    PolicyCodes,
    PolicyHeader,
    Presets,
    PromptConfig,
    PromptTemplate,
    ReasoningConfig,
    ResponseFormatConfig,
    ReviewerPrompt,
    ToolFilterPrompt,
)
from langchain_sequrity.headers.config import InlineRole, InternalTool
from langchain_sequrity.headers.features import BlockerName, ClassifierName

Strategy = st.SearchStrategy[Any]

HEADERS: list[type[Header]] = [FeaturesHeader, PolicyHeader, ConfigHeader]
INT64 = st.integers(-(2**63), 2**63 - 1)

text = st.text(max_size=20)
names = st.text(min_size=1, max_size=8)
flags = st.booleans()
counts = st.integers(1, 2**63 - 1)
json_values = st.recursive(
    st.none() | flags | INT64 | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)


def number(low: float, high: float) -> Strategy:
    return st.floats(low, high) | st.integers(int(low), int(high))


def one_of(literal: Any) -> Strategy:
    return st.sampled_from(get_args(literal))


def commented(given: str) -> str:
    return f"// {given}".replace("\n", " ")


level = st.sampled_from(["soft", "hard"])
detail = st.sampled_from(["minimal", "normal", "extra"])
regexes = st.lists(st.sampled_from(["^read_", r"\d+", "a|b", "é{2}"]), max_size=2)

# Fields that may be left out but not null.
NEVER_NULL: dict[type[HeaderModel], set[str]] = {
    Classifier: {"name", "threshold"},
    Blocker: {"name"},
    PolicyCodes: {"code", "language"},
    BranchingMetaPolicy: {"mode", "producers", "tags", "consumers"},
    Presets: set(Presets.wire_names()),
    ReasoningConfig: {"enabled", "adaptive"},
}

SCALARS: dict[type[HeaderModel], dict[str, Strategy]] = {
    Classifier: {"name": one_of(ClassifierName), "threshold": number(0, 1), "mode": text},
    Blocker: {"name": one_of(BlockerName)},
    # Invalid SQRT is refused, so each text becomes a comment.
    PolicyCodes: {"code": st.text().map(commented), "language": st.sampled_from(["sqrt", "cedar"])},
    BranchingMetaPolicy: {
        "mode": st.sampled_from(["allow", "deny"]),
        "producers": st.sets(names, max_size=3),
        "tags": st.sets(names, max_size=3),
        "consumers": st.lists(names, max_size=3),
    },
    Presets: {
        "default_allow": flags,
        "default_allow_enforcement_level": level,
        "enable_non_executable_memory": flags,
        "enable_llm_blocked_tag": flags,
        "llm_blocked_tag_enforcement_level": level,
    },
    FsmConfig: {
        "min_num_tools_for_filtering": st.integers(2, 2**63 - 1),
        "clear_session_meta": st.sampled_from(["never", "every_attempt", "every_turn"]),
        "max_n_turns": counts,
        "history_mismatch_policy": st.sampled_from(["reject", "restart_turn", "continue"]),
        "clear_history_every_n_attempts": counts,
        "disable_rllm": flags,
        "enable_multistep_planning": flags,
        "enabled_internal_tools": st.lists(one_of(InternalTool), max_size=3),
        "prune_failed_steps": flags,
        "force_to_cache": regexes,
        "max_pllm_steps": counts,
        "max_pllm_failed_steps": counts,
        "max_tool_calls_per_step": counts,
        "reduced_grammar_for_rllm_review": st.sampled_from(["none", "bool", "text", True, False]),
        "retry_on_policy_violation": flags,
        "offer_soft_denials": flags,
        "wrap_tool_result": flags,
        "detect_tool_errors": st.sampled_from(["none", "regex", "llm"]),
        "detect_tool_error_regex_pattern": st.sampled_from(["(?i)error", r"^Fehler: \w"]),
        "detect_tool_error_max_result_length": st.integers(0, 10**6),
        "strict_tool_result_parsing": flags,
        "tool_result_transform": st.sampled_from(["none", "codex"]),
        "n_pllm_plans": counts,
        "pllm_candidate_models": st.lists(names, max_size=3, unique=True),
        "pllm_context_pruning": flags,
    },
    PromptTemplate: {"flavor": text, "version": text},
    PlannerPrompt: {
        "flavor": text,
        "version": text,
        "debug_info_level": detail,
        "clarify_ambiguous_queries": flags,
        "context_var_visibility": st.sampled_from(
            ["none", "basic-notext", "basic-executable", "all-executable", "all"]
        ),
        "query_inline_roles": st.lists(one_of(InlineRole), max_size=2),
        "query_role_name_overrides": st.dictionaries(text, text, max_size=2),
        "query_include_tool_calls": flags,
        "query_include_tool_args": flags,
        "query_include_tool_results": flags,
    },
    ReviewerPrompt: {"flavor": text, "version": text, "debug_info_level": detail},
    ToolFilterPrompt: {
        "flavor": text,
        "version": text,
        "add_tool_description": flags,
        "add_tool_input_schema": flags,
    },
    ResponseFormatConfig: dict.fromkeys(ResponseFormatConfig.wire_names(), flags),
    ReasoningConfig: {"enabled": flags, "effort": text, "budget": counts, "adaptive": flags},
    GenerationConfig: {
        "frequency_penalty": number(-2, 2),
        "presence_penalty": number(-2, 2),
        "logit_bias": st.dictionaries(text, INT64, max_size=2),
        "logprobs": flags,
        "max_completion_tokens": counts,
        "seed": INT64,
        "temperature": number(0, 2),
        "top_p": number(0, 1),
    },
    FeaturesHeader: {"agent_arch": st.sampled_from(["single-llm", "dual-llm"])},
    PolicyHeader: {
        "mode": st.sampled_from(["standard", "strict", "custom"]),
        "auto_gen": flags,
        "fail_fast": flags,
    },
    PromptConfig: {},
    LlmConfig: {},
    ConfigHeader: {},
}
SECTIONS: dict[type[HeaderModel], dict[str, type[HeaderModel]]] = {
    Presets: {"branching_meta_policy": BranchingMetaPolicy},
    PolicyHeader: {"codes": PolicyCodes, "presets": Presets},
    PromptConfig: {
        "pllm": PlannerPrompt,
        "rllm": ReviewerPrompt,
        "tllm": ToolFilterPrompt,
        **dict.fromkeys(
            ["grllm", "qllm", "tagllm", "policy_llm", "error_detector_llm"], PromptTemplate
        ),
    },
    GenerationConfig: {"reasoning": ReasoningConfig},
    LlmConfig: dict.fromkeys(LlmConfig.wire_names(), GenerationConfig),
    ConfigHeader: {
        "fsm": FsmConfig,
        "prompt": PromptConfig,
        "response_format": ResponseFormatConfig,
        "llm": LlmConfig,
    },
}
LISTS: dict[type[HeaderModel], dict[str, type[HeaderModel]]] = {
    FeaturesHeader: {"content_classifiers": Classifier, "content_blockers": Blocker},
}
ALL_MODELS = list(SCALARS)


def models(cls: type[HeaderModel], *, plain: bool = False) -> Strategy:
    """Objects of a class. With `plain`, without nulls and without `extra`."""
    fields = dict(SCALARS[cls])
    for name, section in SECTIONS.get(cls, {}).items():
        fields[name] = models(section, plain=plain)
    for name, item in LISTS.get(cls, {}).items():
        fields[name] = st.lists(models(item, plain=plain), max_size=2)
    assert set(fields) == set(cls.wire_names())
    never = NEVER_NULL.get(cls, set())
    if not plain:
        fields = {n: f if n in never else f | st.none() for n, f in fields.items()}
        fields["extra"] = _extra(cls)
    required = {"name": fields.pop("name")} if cls in {Classifier, Blocker} else {}
    return st.fixed_dictionaries(required, optional=fields).map(lambda given: cls(**given))


def _extra(cls: type[HeaderModel]) -> Strategy:
    known = set(cls.wire_names())
    return st.dictionaries(text.filter(lambda name: name not in known), json_values, max_size=2)


headers = st.one_of(*(models(cls) for cls in HEADERS))
