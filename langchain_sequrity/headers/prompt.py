"""`X-Config`, section `prompt`: what the models of a dual-LLM session are told."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from langchain_sequrity.headers.fields import Array, Flag, Text
from langchain_sequrity.headers.model import HeaderModel

DebugInfoLevel = Literal["minimal", "normal", "extra"]
InlineRole = Literal["assistant", "tool", "developer", "system"]


class PromptTemplate(HeaderModel):
    """Which template a model's prompt is made of.

    Example:
        ```python
        from langchain_sequrity.headers import PromptTemplate

        PromptTemplate(flavor="universal")
        ```
    """

    _where: ClassVar[str] = "a model of `prompt`"

    flavor: Text | None = None
    """The template's variant, such as `universal` or `code`. Server default: not documented."""
    version: Text | None = None
    """The template's version. Server default: not documented."""


class PlannerPrompt(PromptTemplate):
    """The prompt of the planner.

    Example:
        ```python
        from langchain_sequrity.headers import PlannerPrompt

        PlannerPrompt(debug_info_level="extra", query_inline_roles=["system"])
        ```
    """

    _where: ClassVar[str] = "`prompt.pllm`"

    debug_info_level: DebugInfoLevel | None = None
    """How much the planner is told about the execution. Server default: `normal`."""
    clarify_ambiguous_queries: Flag | None = None
    """Whether the planner may ask back. Server default: true, by the release notes."""
    context_var_visibility: (
        Literal["none", "basic-notext", "basic-executable", "all-executable", "all"] | None
    ) = None
    """Which context variables the planner sees. Server default: not documented."""
    query_inline_roles: Array[InlineRole] | None = None
    """Messages of these roles become part of the query. Server default: not documented."""
    query_role_name_overrides: Mapping[Text, Text] | None = None
    """New names for roles there, old to new. Server default: not documented."""
    query_include_tool_calls: Flag | None = None
    """Include earlier tool calls there. Server default: not documented."""
    query_include_tool_args: Flag | None = None
    """Include their arguments. Server default: not documented."""
    query_include_tool_results: Flag | None = None
    """Include their results. Server default: not documented."""


class ReviewerPrompt(PromptTemplate):
    """The prompt of the model that reviews answers.

    Example:
        ```python
        from langchain_sequrity.headers import ReviewerPrompt

        ReviewerPrompt(debug_info_level="minimal")
        ```
    """

    _where: ClassVar[str] = "`prompt.rllm`"

    debug_info_level: DebugInfoLevel | None = None
    """How much the reviewer is told about the execution. Server default: not documented."""


class ToolFilterPrompt(PromptTemplate):
    """The prompt of the model that selects tools.

    Example:
        ```python
        from langchain_sequrity.headers import ToolFilterPrompt

        ToolFilterPrompt(add_tool_description=True)
        ```
    """

    _where: ClassVar[str] = "`prompt.tllm`"

    add_tool_description: Flag | None = None
    """Include the tools' descriptions. Server default: not documented."""
    add_tool_input_schema: Flag | None = None
    """Include the tools' input schemas. Server default: not documented."""


class PromptConfig(HeaderModel):
    """The prompts, one section for each model; dual-LLM only.

    Example:
        ```python
        from langchain_sequrity.headers import PlannerPrompt, PromptConfig

        PromptConfig(pllm=PlannerPrompt(clarify_ambiguous_queries=False))
        ```
    """

    _where: ClassVar[str] = "`prompt`"

    pllm: PlannerPrompt | None = None
    """The planner. Server default: as its fields say."""
    rllm: ReviewerPrompt | None = None
    """The reviewer. Server default: as its fields say."""
    grllm: PromptTemplate | None = None
    """The model that puts reviews into a reduced grammar. Server default: not documented."""
    qllm: PromptTemplate | None = None
    """The data model. Server default: not documented."""
    tllm: ToolFilterPrompt | None = None
    """The model that selects tools. Server default: as its fields say."""
    tagllm: PromptTemplate | None = None
    """The model that sets tags. Server default: not documented."""
    policy_llm: PromptTemplate | None = None
    """The model that writes policies. Server default: not documented."""
    error_detector_llm: PromptTemplate | None = None
    """The model that finds errors in results (`tool_result_error_detector_llm` under `llm`).

    Server default: not documented."""
