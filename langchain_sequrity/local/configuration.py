"""Configuration of a session, from its three headers and the defaults.

The service does not document all defaults; `docs/local-server.md` lists the choices made here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.headers import (
    ConfigHeader,
    FeaturesHeader,
    FsmConfig,
    PlannerPrompt,
    PolicyHeader,
    ResponseFormatConfig,
    read_header,
)
from langchain_sequrity.headers.policy import BranchingMetaPolicy, Presets, engine_presets
from langchain_sequrity.labels import ALL, Labels
from langchain_sequrity.local.interpreter.machine import MayBranch
from langchain_sequrity.local.key_settings import KeySettings
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.screening import Screen
from langchain_sequrity.owned_cache import owned_cache
from langchain_sequrity.patterns import Pattern
from langchain_sequrity.sqrt import Engine, compile_policy
from langchain_sequrity.sqrt import Presets as EnginePresets
from langchain_sequrity.sqrt.coerce import INTERNAL_TOOLS

_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Configuration:
    """The configuration of a session.

    Attributes:
        dual_llm: Whether a planner writes programs; otherwise one model answers.
        engine: The compiled policy.
        is_guarded: Whether a policy, a blocker or a classifier could deny a call or keep labels.
        screen: Content blockers and classifiers.
        may_branch: Whether a value with these labels may decide a branch; `None` allows all.
        is_strict: Whether labels of conditions also apply to values that depend on them.
        tests_labels: Whether the policy tests labels of values, or a program may add such a test.
        fsm: The section `fsm` of `X-Config`; fields may be unset.
        planner: The section on the planner's prompt; fields may be unset.
        response: The section on replies; fields may be unset.
        internal_tools: Internal tools that programs may call.
        cached: Patterns of tools whose results are cached.
        max_output_tokens: Output limits by role, from the section `llm`.
    """

    dual_llm: bool
    engine: Engine
    is_guarded: bool
    screen: Screen
    may_branch: MayBranch | None
    is_strict: bool
    tests_labels: bool
    fsm: FsmConfig
    planner: PlannerPrompt
    response: ResponseFormatConfig
    internal_tools: tuple[str, ...]
    cached: tuple[Pattern, ...]
    max_output_tokens: Mapping[str, int]


def configure(
    headers: Mapping[str, str],
    endpoint_type: str,
    settings: KeySettings | None = None,
) -> Configuration:
    """Read the headers of a session.

    Args:
        headers: `x-features`, `x-policy` and `x-config` of the session.
        endpoint_type: First segment of the path; `lang-graph` is always dual-LLM.
        settings: The settings of its key.

    Returns:
        The configuration; the same object for the same headers.

    Raises:
        StatusError: 400 for an invalid policy, 403 for headers that would weaken the settings of
            the key, 501 for a feature that this server does not have.
            It never ignores a policy that it cannot enforce.
    """
    texts = (headers.get("x-features"), headers.get("x-policy"), headers.get("x-config"))
    return _configured(*texts, endpoint_type == "lang-graph", settings)


@owned_cache(maxsize=_REMEMBERED)
def _configured(
    features_text: str | None,
    policy_text: str | None,
    config_text: str | None,
    always_dual: bool,  # noqa: FBT001 - part of the cache key
    settings: KeySettings | None,
) -> Configuration:
    features = read_header(FeaturesHeader, features_text) if features_text else FeaturesHeader()
    policy = read_header(PolicyHeader, policy_text) if policy_text else PolicyHeader()
    config = read_header(ConfigHeader, config_text) if config_text else ConfigHeader()
    compile_combined = None
    if settings is not None:
        features = settings.with_client_features(features)
        config = settings.with_client_config(config)
        policy, compile_combined = settings.with_client_policy(policy)
    fsm = config.fsm or FsmConfig()
    if policy.codes and policy.codes.language == "cedar":
        _not_supported("policies in Cedar (`codes.language`)")
    if policy.auto_gen:
        _not_supported("policy generation (`auto_gen`)")
    dual_llm = always_dual or features.agent_arch == "dual-llm"
    presets = policy.presets or Presets()
    presets_of_engine = engine_presets(policy, dual_llm=dual_llm)
    code = (policy.codes and policy.codes.code) or ""
    branching = presets.branching_meta_policy if policy.mode == "custom" and dual_llm else None
    screen = Screen.from_features(features)
    prompt = config.prompt
    if compile_combined is None:
        engine = _engine(code, presets_of_engine)
    else:
        engine = compile_combined(dual_llm=dual_llm)
    internal_tools = _internal_tools(fsm)
    return Configuration(
        dual_llm=dual_llm,
        engine=engine,
        is_guarded=bool(code.strip()) or not presets_of_engine.default_allow or screen.is_on,
        screen=screen,
        may_branch=_branching_rule(branching) if branching else None,
        is_strict=policy.mode == "strict",
        tests_labels=engine.tests_labels or branching is not None or "set_policy" in internal_tools,
        fsm=fsm,
        planner=(prompt and prompt.pllm) or PlannerPrompt(),
        response=config.response_format or ResponseFormatConfig(),
        internal_tools=internal_tools,
        cached=tuple(map(Pattern, fsm.force_to_cache or ())),
        max_output_tokens=_output_limits(config),
    )


def _not_supported(feature: str) -> NoReturn:
    refuse(
        501,
        f"The local server does not support {feature}. Leave it out of `X-Policy`, or send the "
        "request to the hosted service.",
    )


def _engine(code: str, presets: EnginePresets) -> Engine:
    try:
        return compile_policy(code, presets)
    except PolicySyntaxError as error:
        refuse(400, f"`codes` of `X-Policy` is not a valid policy. {error}")


def _internal_tools(fsm: FsmConfig) -> tuple[str, ...]:
    if fsm.enabled_internal_tools is None:  # `docs/behaviour.md`, P7
        return INTERNAL_TOOLS[:2]
    for name in fsm.enabled_internal_tools:
        if name not in INTERNAL_TOOLS:
            refuse(
                400,
                f"The local server does not have the tool `{name}`, which is not documented. "
                "Leave it out of `fsm.enabled_internal_tools` in `X-Config`, or use the hosted "
                "service.",
            )
    return tuple(name for name in INTERNAL_TOOLS if name in fsm.enabled_internal_tools)


def _output_limits(config: ConfigHeader) -> dict[str, int]:
    llm = config.llm
    slots = {"planner": llm.pllm, "quarantined": llm.qllm} if llm else {}
    return {
        role: slot.max_completion_tokens
        for role, slot in slots.items()
        if slot is not None and slot.max_completion_tokens is not None
    }


def _branching_rule(rule: BranchingMetaPolicy) -> MayBranch:
    """Which labels may decide a branch (`docs/behaviour.md`, M3).

    In mode `allow` the service's own names need not be listed, because every tool result has one.
    """
    producers = frozenset(rule.producers or ())
    tags = frozenset(rule.tags or ())
    consumers = frozenset(rule.consumers or ())

    def has_no_denied(labels: Labels) -> bool:
        return not (
            labels.producers & producers or labels.tags & tags or labels.consumers & consumers
        )

    def has_only_allowed(labels: Labels) -> bool:
        unreserved = labels.without_reserved()
        readers = labels.consumers <= consumers | {ALL}
        return unreserved.producers <= producers and unreserved.tags <= tags and readers

    return has_only_allowed if rule.mode == "allow" else has_no_denied
