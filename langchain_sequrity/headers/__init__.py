"""The three JSON headers: `X-Features`, `X-Policy` and `X-Config` (`docs/protocol.md`)."""

from langchain_sequrity.headers.compaction import compact_sqrt
from langchain_sequrity.headers.config import ConfigHeader, ResponseFormatConfig
from langchain_sequrity.headers.features import Blocker, Classifier, FeaturesHeader
from langchain_sequrity.headers.fsm import FsmConfig
from langchain_sequrity.headers.header import (
    Header,
    coerce,
    from_wire,
    normalized,
    read_header,
    validate_header,
    write_header,
)
from langchain_sequrity.headers.llm import GenerationConfig, LlmConfig, ReasoningConfig
from langchain_sequrity.headers.model import HeaderModel
from langchain_sequrity.headers.policy import (
    BranchingMetaPolicy,
    PolicyCodes,
    PolicyHeader,
    PolicyOptions,
    Presets,
)
from langchain_sequrity.headers.prompt import (
    PlannerPrompt,
    PromptConfig,
    PromptTemplate,
    ReviewerPrompt,
    ToolFilterPrompt,
)

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
