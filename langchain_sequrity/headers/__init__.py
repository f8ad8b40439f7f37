"""The three JSON headers: `X-Features`, `X-Policy` and `X-Config` (`docs/protocol.md`)."""

from typing import TYPE_CHECKING

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
from langchain_sequrity.lazy_imports import lazy_names

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


# Imported at first use: few clients need the language.
__getattr__, __dir__ = lazy_names(__name__, {".sqrt.compaction": "compact_sqrt"})
