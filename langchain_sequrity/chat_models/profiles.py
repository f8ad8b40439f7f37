"""How much fits into a model, where its name is known: what `profile` says beside the rest.

The figures are those that `langchain-openai` 1.7.4 and `langchain-anthropic` 1.7.10 ship, which
take them from models.dev. They are not imported: each takes a second, and neither is needed.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from langchain_core.language_models import ModelProfile

_LIMITS: Mapping[tuple[int, int], str] = MappingProxyType(
    {
        (8_192, 8_192): ("gpt-4"),
        (16_385, 4_096): ("gpt-3.5-turbo"),
        (128_000, 4_096): ("gpt-4-turbo gpt-4o-2024-05-13"),
        (128_000, 16_384): ("gpt-4o gpt-4o-mini"),
        (128_000, 32_000): ("gpt-5.3-codex-spark gpt-realtime-2.1"),
        (200_000, 64_000): ("claude-haiku-4-5 claude-opus-4-5 claude-sonnet-4-5"),
        (200_000, 100_000): ("o1 o1-pro o3 o3-mini o3-pro o4-mini"),
        (272_000, 128_000): ("gpt-5 gpt-5-mini gpt-5-nano gpt-5.1 gpt-5.2 gpt-5.2-pro"),
        (272_000, 272_000): ("gpt-5-pro"),
        (400_000, 128_000): ("gpt-5.3-codex gpt-5.4-mini gpt-5.4-nano"),
        (1_000_000, 128_000): (
            "claude-fable-5 claude-fable-5-1 claude-haiku-5-5 claude-opus-4-6 claude-opus-4-7 "
            "claude-opus-4-8 claude-opus-5 claude-opus-5-5 claude-sonnet-4-6 claude-sonnet-5 "
            "claude-sonnet-5-5"
        ),
        (1_047_576, 32_768): ("gpt-4.1 gpt-4.1-mini gpt-4.1-nano"),
        (1_050_000, 128_000): (
            "gpt-5.4 gpt-5.4-pro gpt-5.5 gpt-5.5-pro gpt-5.6 gpt-5.6-luna gpt-5.6-sol "
            "gpt-5.6-terra gpt-6-astra gpt-6-luna gpt-6-sol gpt-6.1-sol gpt-6.1-terra"
        ),
    }
)
"""Names by tokens that go in and come out at most."""
_BY_NAME: Mapping[str, tuple[int, int]] = MappingProxyType(
    {name: limits for limits, names in _LIMITS.items() for name in names.split()}
)
_RELEASE = re.compile(r"-(latest|\d{4}-?\d{2}-?\d{2})$")


def profile_of(model_name: str) -> ModelProfile:
    """What is known of a model, or of the smaller one of a planner and its worker.

    Args:
        model_name: As the service takes it: `openai/gpt-5-mini`, `gpt-5-mini-2025-08-07`,
            `"planner,worker"`.

    Returns:
        What holds for every model behind the service, and `max_input_tokens` and
        `max_output_tokens` where all names are known.
    """
    profile = ModelProfile(
        tool_calling=True, tool_choice=True, structured_output=True, tool_call_streaming=True
    )
    limits = [_limits_of(name.strip().lower()) for name in model_name.split(",")]
    known = [one for one in limits if one is not None]
    if len(known) == len(limits):
        profile["max_input_tokens"] = min(one for one, _ in known)
        profile["max_output_tokens"] = min(one for _, one in known)
    return profile


def _limits_of(name: str) -> tuple[int, int] | None:
    """The limits of a name, with or without provider, date and OpenRouter's dots."""
    last = name.rsplit("/", 1)[-1]
    if last.startswith("claude"):
        last = last.replace(".", "-")
    return _BY_NAME.get(last) or _BY_NAME.get(_RELEASE.sub("", last))
