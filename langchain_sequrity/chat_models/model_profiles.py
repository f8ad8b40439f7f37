"""Profiles of models by name: what they can do, and how many tokens they take.

The limits are those of `langchain-openai` 1.7.4 and `langchain-anthropic` 1.7.10, which take them
from models.dev. These packages are not imported: each import takes a second.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from langchain_core.language_models import ModelProfile

from langchain_sequrity.wire.planner_worker import split_models

_TOKEN_LIMITS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "gpt-4": (8_192, 8_192),
        "gpt-3.5-turbo": (16_385, 4_096),
        "gpt-4-turbo": (128_000, 4_096),
        "gpt-4o-2024-05-13": (128_000, 4_096),
        "gpt-4o": (128_000, 16_384),
        "gpt-4o-mini": (128_000, 16_384),
        "gpt-5.3-codex-spark": (128_000, 32_000),
        "gpt-realtime-2.1": (128_000, 32_000),
        "claude-haiku-4-5": (200_000, 64_000),
        "claude-opus-4-5": (200_000, 64_000),
        "claude-sonnet-4-5": (200_000, 64_000),
        "o1": (200_000, 100_000),
        "o1-pro": (200_000, 100_000),
        "o3": (200_000, 100_000),
        "o3-mini": (200_000, 100_000),
        "o3-pro": (200_000, 100_000),
        "o4-mini": (200_000, 100_000),
        "gpt-5": (272_000, 128_000),
        "gpt-5-mini": (272_000, 128_000),
        "gpt-5-nano": (272_000, 128_000),
        "gpt-5.1": (272_000, 128_000),
        "gpt-5.2": (272_000, 128_000),
        "gpt-5.2-pro": (272_000, 128_000),
        "gpt-5-pro": (272_000, 272_000),
        "gpt-5.3-codex": (400_000, 128_000),
        "gpt-5.4-mini": (400_000, 128_000),
        "gpt-5.4-nano": (400_000, 128_000),
        "claude-fable-5": (1_000_000, 128_000),
        "claude-fable-5-1": (1_000_000, 128_000),
        "claude-haiku-5-5": (1_000_000, 128_000),
        "claude-opus-4-6": (1_000_000, 128_000),
        "claude-opus-4-7": (1_000_000, 128_000),
        "claude-opus-4-8": (1_000_000, 128_000),
        "claude-opus-5": (1_000_000, 128_000),
        "claude-opus-5-5": (1_000_000, 128_000),
        "claude-sonnet-4-6": (1_000_000, 128_000),
        "claude-sonnet-5": (1_000_000, 128_000),
        "claude-sonnet-5-5": (1_000_000, 128_000),
        "gpt-4.1": (1_047_576, 32_768),
        "gpt-4.1-mini": (1_047_576, 32_768),
        "gpt-4.1-nano": (1_047_576, 32_768),
        "gpt-5.4": (1_050_000, 128_000),
        "gpt-5.4-pro": (1_050_000, 128_000),
        "gpt-5.5": (1_050_000, 128_000),
        "gpt-5.5-pro": (1_050_000, 128_000),
        "gpt-5.6": (1_050_000, 128_000),
        "gpt-5.6-luna": (1_050_000, 128_000),
        "gpt-5.6-sol": (1_050_000, 128_000),
        "gpt-5.6-terra": (1_050_000, 128_000),
        "gpt-6-astra": (1_050_000, 128_000),
        "gpt-6-luna": (1_050_000, 128_000),
        "gpt-6-sol": (1_050_000, 128_000),
        "gpt-6.1-sol": (1_050_000, 128_000),
        "gpt-6.1-terra": (1_050_000, 128_000),
    }
)
"""Most input tokens and most output tokens by the model's name."""
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
