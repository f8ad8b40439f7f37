"""What a policy header says to the engine that applies it."""

from langchain_sequrity.headers.policy import PolicyHeader, Presets
from langchain_sequrity.sqrt import Presets as EnginePresets


def engine_presets(policy: PolicyHeader, *, dual_llm: bool) -> EnginePresets:
    """The built-in policies as the engine has them.

    Args:
        policy: The header.
        dual_llm: Whether the session is dual-LLM; some built-in policies are for that alone.

    Returns:
        The presets, with the service's defaults for what the header leaves out.
    """
    given = policy.presets or Presets()
    blocked = given.llm_blocked_tag_enforcement_level or "hard"
    return EnginePresets(
        default_allow=given.default_allow is not False,
        default_allow_hard=given.default_allow_enforcement_level == "hard",
        fail_fast=policy.fail_fast is not False,
        llm_blocked=None if given.enable_llm_blocked_tag is False else blocked,
        non_executable_memory=dual_llm and given.enable_non_executable_memory is not False,
    )
