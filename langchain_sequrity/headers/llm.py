"""`X-Config`, section `llm`: how each model generates.

The vendor's SDK has this section ahead of its documentation (`docs/protocol.md`, The three JSON
headers).
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from langchain_sequrity.headers.fields import NOT_NULL, Count, Flag, Integer, Number, Text
from langchain_sequrity.headers.model import HeaderModel

Penalty = Annotated[Number, Field(ge=-2, le=2)]


class ReasoningConfig(HeaderModel):
    """How a model reasons.

    Example:
        ```python
        from langchain_sequrity.headers import ReasoningConfig

        ReasoningConfig(effort="low", budget=1024)
        ```
    """

    _where: ClassVar[str] = "`reasoning`"

    enabled: Annotated[Flag | None, NOT_NULL] = None
    """Whether the model reasons. Server default: true."""
    effort: Text | None = None
    """How much, in the provider's words, such as `low`. Server default: not documented."""
    budget: Count | None = None
    """Tokens for reasoning at most. Server default: not documented."""
    adaptive: Annotated[Flag | None, NOT_NULL] = None
    """Let the model decide. Server default: false."""


class GenerationConfig(HeaderModel):
    """How one model generates.

    Example:
        ```python
        from langchain_sequrity.headers import GenerationConfig

        GenerationConfig(temperature=0.2, seed=7)
        ```
    """

    _where: ClassVar[str] = "a model of `llm`"

    frequency_penalty: Penalty | None = None
    """Penalty on frequent tokens, -2 to 2. Server default: not documented."""
    presence_penalty: Penalty | None = None
    """Penalty on tokens that occurred, -2 to 2. Server default: not documented."""
    logit_bias: Mapping[Text, Integer] | None = None
    """Token to bias. Server default: not documented."""
    logprobs: Flag | None = None
    """Return the tokens' log probabilities. Server default: not documented."""
    max_completion_tokens: Count | None = None
    """Tokens in an answer at most. Server default: not documented."""
    seed: Integer | None = None
    """Seed of the sampling. Server default: not documented."""
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    """Sampling temperature, 0 to 2. Server default: not documented."""
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    """Probability mass of nucleus sampling, 0 to 1. Server default: not documented."""
    reasoning: ReasoningConfig | None = None
    """How the model reasons. Server default: as its fields say."""


class LlmConfig(HeaderModel):
    """Generation settings, one section for each model.

    Example:
        ```python
        from langchain_sequrity.headers import GenerationConfig, LlmConfig

        LlmConfig(pllm=GenerationConfig(temperature=0.2))
        ```
    """

    _where: ClassVar[str] = "`llm`"

    pllm: GenerationConfig | None = None
    """The planner. Server default: not documented."""
    rllm: GenerationConfig | None = None
    """The reviewer. Server default: not documented."""
    grllm: GenerationConfig | None = None
    """The model that puts reviews into a reduced grammar. Server default: not documented."""
    qllm: GenerationConfig | None = None
    """The data model. Server default: not documented."""
    tllm: GenerationConfig | None = None
    """The model that selects tools. Server default: not documented."""
    tagllm: GenerationConfig | None = None
    """The model that sets tags. Server default: not documented."""
    policy_llm: GenerationConfig | None = None
    """The model that writes policies. Server default: not documented."""
    tool_result_error_detector_llm: GenerationConfig | None = None
    """The model that finds errors in results (`error_detector_llm` under `prompt`).

    Server default: not documented."""
