"""Configuration of a session, from its three headers and the defaults.

The service does not document all defaults; `docs/local-server.md` lists the choices made here.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.headers import (
    ConfigHeader,
    FeaturesHeader,
    FsmConfig,
    Header,
    PlannerPrompt,
    PolicyHeader,
    ResponseFormatConfig,
    read_header,
)
from langchain_sequrity.headers.policy import BranchingMetaPolicy, Presets, engine_presets
from langchain_sequrity.labels import ALL, RESERVED_PREFIX, Labels
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.screening import Screen
from langchain_sequrity.patterns import Pattern
from langchain_sequrity.sqrt import Engine, compile_policy
from langchain_sequrity.sqrt import Presets as EnginePresets

INTERNAL_TOOLS = ("parse_with_ai", "verify_hypothesis", "complete_turn", "set_policy")
_REMEMBERED = 64
_logger = logging.getLogger("langchain_sequrity.local")
MayBranch = Callable[[Labels], bool]


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """Limits of a dual-LLM turn; `None` means no limit.

    Attributes:
        steps: Maximum number of programs.
        failed_steps: Maximum number of failed programs.
        tool_calls: Maximum number of tool calls of one program.
    """

    steps: int = 10
    failed_steps: int = 3
    tool_calls: int | None = 200


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
        limits: Limits of a turn.
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
    limits: TurnLimits
    fsm: FsmConfig
    planner: PlannerPrompt
    response: ResponseFormatConfig
    internal_tools: tuple[str, ...]
    cached: tuple[Pattern, ...]
    max_output_tokens: Mapping[str, int]


def configure(headers: Mapping[str, str], endpoint_type: str) -> Configuration:
    """Read the headers of a session.

    Args:
        headers: `x-features`, `x-policy` and `x-config` of the session.
        endpoint_type: First segment of the path; `lang-graph` is always dual-LLM.

    Returns:
        The configuration; the same object for the same headers.

    Raises:
        StatusError: 400 for an invalid policy, 501 for a feature that this server does not have.
            It never ignores a policy that it cannot enforce.
    """
    sent = (headers.get("x-features"), headers.get("x-policy"), headers.get("x-config"))
    return _configured(*sent, endpoint_type == "lang-graph")


@lru_cache(maxsize=_REMEMBERED)
def _configured(
    features_text: str | None,
    policy_text: str | None,
    config_text: str | None,
    always_dual: bool,  # noqa: FBT001 - part of the cache key
) -> Configuration:
    features = read_header(FeaturesHeader, features_text) if features_text else FeaturesHeader()
    policy = read_header(PolicyHeader, policy_text) if policy_text else PolicyHeader()
    config = read_header(ConfigHeader, config_text) if config_text else None
    fsm = (config and config.fsm) or FsmConfig()
    for header in (features, policy):
        for what in _missing(header):
            refuse(
                501,
                f"The local server does not support {what}. Leave it out of "
                f"`{header.header_name}`, or send the request to the hosted service.",
            )
    dual_llm = always_dual or features.agent_arch == "dual-llm"
    presets = policy.presets or Presets()
    presets_of_engine = engine_presets(policy, dual_llm=dual_llm)
    code = (policy.codes and policy.codes.code) or ""
    branching = presets.branching_meta_policy if policy.mode == "custom" and dual_llm else None
    screen = Screen.from_features(features)
    for note in screen.notes:
        _logger.warning("X-Features: %s", note)
    prompt = config and config.prompt
    return Configuration(
        dual_llm=dual_llm,
        engine=_engine(code, presets_of_engine),
        is_guarded=bool(code.strip()) or not presets_of_engine.default_allow or screen.is_on,
        screen=screen,
        may_branch=_branching_rule(branching) if branching else None,
        is_strict=policy.mode == "strict",
        limits=_limits(fsm),
        fsm=fsm,
        planner=(prompt and prompt.pllm) or PlannerPrompt(),
        response=(config and config.response_format) or ResponseFormatConfig(),
        internal_tools=_internal_tools(fsm),
        cached=tuple(map(Pattern, fsm.force_to_cache or ())),
        max_output_tokens=_output_limits(config),
    )


def _missing(header: Header) -> Iterator[str]:
    if isinstance(header, PolicyHeader):
        if header.codes and header.codes.language == "cedar":
            yield "policies in Cedar (`codes.language`)"
        if header.auto_gen:
            yield "policy generation (`auto_gen`)"


def _engine(code: str, presets: EnginePresets) -> Engine:
    try:
        return compile_policy(code, presets)
    except PolicySyntaxError as error:
        refuse(400, f"`codes` of `X-Policy` is not a valid policy. {error}")


def _limits(fsm: FsmConfig) -> TurnLimits:
    default = TurnLimits()
    unlimited = "max_tool_calls_per_step" in fsm.model_fields_set
    return TurnLimits(
        steps=fsm.max_pllm_steps or default.steps,
        failed_steps=fsm.max_pllm_failed_steps or default.failed_steps,
        tool_calls=fsm.max_tool_calls_per_step if unlimited else default.tool_calls,
    )


def _internal_tools(fsm: FsmConfig) -> tuple[str, ...]:
    if fsm.enabled_internal_tools is None:  # `docs/behaviour.md`, P7
        return INTERNAL_TOOLS[:2]
    return tuple(name for name in INTERNAL_TOOLS if name in fsm.enabled_internal_tools)


_SLOTS = {"planner": "pllm", "quarantined": "qllm"}


def _output_limits(config: ConfigHeader | None) -> dict[str, int]:
    slots: dict[str, Any] = {
        role: config and config.llm and getattr(config.llm, slot) for role, slot in _SLOTS.items()
    }
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
        return (
            _without_reserved(labels.producers) <= producers
            and _without_reserved(labels.tags) <= tags
            and labels.consumers <= consumers | {ALL}
        )

    return has_only_allowed if rule.mode == "allow" else has_no_denied


def _without_reserved(names: frozenset[str]) -> frozenset[str]:
    return frozenset(name for name in names if not name.startswith(RESERVED_PREFIX))
