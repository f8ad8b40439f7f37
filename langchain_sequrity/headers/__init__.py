"""The three JSON headers: `X-Features`, `X-Policy` and `X-Config` (`docs/protocol.md`)."""

from typing import TYPE_CHECKING, Any

from langchain_sequrity.headers.base import (
    Header,
    HeaderModel,
    coerce,
    from_wire,
    normalized,
    read_header,
    validate_header,
    write_header,
)
from langchain_sequrity.headers.config import (
    ConfigHeader,
    FsmConfig,
    GenerationConfig,
    LlmConfig,
    PlannerPrompt,
    PromptConfig,
    PromptTemplate,
    ReasoningConfig,
    ResponseFormatConfig,
    ReviewerPrompt,
    ToolFilterPrompt,
)
from langchain_sequrity.headers.features import Blocker, Classifier, FeaturesHeader
from langchain_sequrity.headers.policy import (
    BranchingMetaPolicy,
    PolicyCodes,
    PolicyHeader,
    PolicyOptions,
    Presets,
)

if TYPE_CHECKING:
    from langchain_sequrity.sqrt.compaction import compact_sqrt

__all__ = [
    "Blocker",
    "BranchingMetaPolicy",
    "Classifier",
    "ConfigHeader",
    "FeaturesHeader",
    "FsmConfig",
    "GenerationConfig",
    "Header",
    "HeaderModel",
    "LlmConfig",
    "PlannerPrompt",
    "PolicyCodes",
    "PolicyHeader",
    "PolicyOptions",
    "Presets",
    "PromptConfig",
    "PromptTemplate",
    "ReasoningConfig",
    "ResponseFormatConfig",
    "ReviewerPrompt",
    "ToolFilterPrompt",
    "coerce",
    "compact_sqrt",
    "from_wire",
    "normalized",
    "read_header",
    "validate_header",
    "write_header",
]


def __getattr__(name: str) -> Any:
    """Import the language at the first use of `compact_sqrt`: few clients need it (PEP 562)."""
    if name != "compact_sqrt":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from langchain_sequrity.sqrt.compaction import compact_sqrt  # noqa: PLC0415

    globals()[name] = compact_sqrt
    return compact_sqrt
