"""Profiles of models by name: what they can do, and how many tokens they take.

The limits are those of `langchain-openai` 1.7.4 and `langchain-anthropic` 1.7.10, which take them
from models.dev. These packages are not imported: each import takes a second.
"""

import re
from collections.abc import Mapping, Sequence

from langchain_core.language_models import ModelProfile

from langchain_sequrity.wire.dual_llm import split_models

_MODELS: Mapping[tuple[int, int], Sequence[str]] = {
    (8_192, 8_192): ["gpt-4"],
    (16_385, 4_096): ["gpt-3.5-turbo"],
    (128_000, 4_096): ["gpt-4-turbo", "gpt-4o-2024-05-13"],
    (128_000, 16_384): ["gpt-4o", "gpt-4o-mini"],
    (128_000, 32_000): ["gpt-5.3-codex-spark", "gpt-realtime-2.1"],
    (200_000, 64_000): ["claude-haiku-4-5", "claude-opus-4-5", "claude-sonnet-4-5"],
    (200_000, 100_000): ["o1", "o1-pro", "o3", "o3-mini", "o3-pro", "o4-mini"],
    (272_000, 128_000): ["gpt-5", "gpt-5-mini", "gpt-5-nano", "gpt-5.1", "gpt-5.2", "gpt-5.2-pro"],
    (272_000, 272_000): ["gpt-5-pro"],
    (400_000, 128_000): ["gpt-5.3-codex", "gpt-5.4-mini", "gpt-5.4-nano"],
    (1_000_000, 128_000): [
        "claude-fable-5", "claude-fable-5-1", "claude-haiku-5-5", "claude-opus-4-6",
        "claude-opus-4-7", "claude-opus-4-8", "claude-opus-5", "claude-opus-5-5",
        "claude-sonnet-4-6", "claude-sonnet-5", "claude-sonnet-5-5",
    ],
    (1_047_576, 32_768): ["gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano"],
    (1_050_000, 128_000): [
        "gpt-5.4", "gpt-5.4-pro", "gpt-5.5", "gpt-5.5-pro", "gpt-5.6", "gpt-5.6-luna",
        "gpt-5.6-sol", "gpt-5.6-terra", "gpt-6-astra", "gpt-6-luna", "gpt-6-sol", "gpt-6.1-sol",
        "gpt-6.1-terra",
    ],
}  # fmt: skip
"""The names of models by their most input tokens and most output tokens."""
_TOKEN_LIMITS = {name: limits for limits, names in _MODELS.items() for name in names}
_RELEASE = re.compile(r"-(latest|\d{4}-?\d{2}-?\d{2})$")


def profile_of(model_name: str) -> ModelProfile:
    """The profile of a model, or of a planner and its worker with the smaller limits.

    Args:
        model_name: The name for the service: `openai/gpt-5-mini`, `gpt-5-mini-2025-08-07`,
            `"planner,worker"`.

    Returns:
        The properties of every model behind the service, and `max_input_tokens` and
        `max_output_tokens` if all names are known.
    """
    profile = ModelProfile(
        tool_calling=True, tool_choice=True, structured_output=True, tool_call_streaming=True
    )
    planner, worker = map(_token_limits, split_models(model_name.lower()))
    if planner and worker:
        profile["max_input_tokens"], profile["max_output_tokens"] = map(min, planner, worker)
    return profile


def _token_limits(model: str) -> tuple[int, int] | None:
    """The limits of a model, with or without provider, date and OpenRouter's dots."""
    name = model.rsplit("/", 1)[-1]
    if name.startswith("claude"):
        name = name.replace(".", "-")
    return _TOKEN_LIMITS.get(name) or _TOKEN_LIMITS.get(_RELEASE.sub("", name))
