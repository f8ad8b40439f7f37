"""`X-Config`: limits of a session, generation and prompts of each model, content of a reply.

The vendor's documentation describes these fields; the section `llm` is known from the SDK alone
(`docs/protocol.md`, The three JSON headers).
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field

from langchain_sequrity.headers.base import (
    NOT_NULL,
    Array,
    Count,
    DistinctNames,
    Flag,
    Header,
    HeaderModel,
    Integer,
    Length,
    Number,
    Regex,
    Regexes,
    Text,
)
from langchain_sequrity.validation import validation_error

MismatchPolicy = Literal["reject", "restart_turn", "continue"]
InternalTool = Literal["parse_with_ai", "verify_hypothesis", "set_policy", "complete_turn"]
UndocumentedTool = Literal["parse_image_with_ai"]  # in a program of the vendor (`docs/protocol.md`)


def _no_number(value: Any) -> Any:
    # In Python 1 == True, so the literal alone would accept it.
    if isinstance(value, int | float) and not isinstance(value, bool):
        msg = "Input should be 'none', 'bool', 'text', True or False"
        raise validation_error(msg, kind="grammar")
    return value


ReducedGrammar = Annotated[
    Literal["none", "bool", "text", True, False], BeforeValidator(_no_number)
]


class FsmConfig(HeaderModel):
    """Limits of a session, and options of the planner. Single-LLM mode uses the first three too.

    Example:
        ```python
        from langchain_sequrity.headers import FsmConfig

        fsm = FsmConfig(max_n_turns=None, max_pllm_steps=6)
        assert fsm.to_wire() == {"max_n_turns": None, "max_pllm_steps": 6}  # null: no limit
        ```
    """

    _where: ClassVar[str] = "`fsm`"

    min_num_tools_for_filtering: Annotated[Integer, Field(ge=2)] | None = None
    """With this many tools or more, a model first selects some; null: never. Server default: 10."""
    clear_session_meta: Literal["never", "every_attempt", "every_turn"] | None = None
    """When the session's labels are cleared. Server default: `never`."""
    max_n_turns: Count | None = None
    """Turns before the session ends; null: no limit. Server default: by endpoint type."""

    history_mismatch_policy: MismatchPolicy | None = None
    """If the sent history differs from the stored one: refuse it, redo the turn, or accept it.

    Server default: not documented."""
    clear_history_every_n_attempts: Count | None = None
    """Single-step mode: attempts after which failed steps are forgotten. Server default: never."""
    disable_rllm: Flag | None = None
    """Skip the model that reviews answers. Server default: true."""
    enable_multistep_planning: Flag | None = None
    """Steps build on each other; if false, each attempt starts again. Server default: false."""
    enabled_internal_tools: Array[InternalTool | UndocumentedTool] | None = None
    """Internal tools that the planner may use. Server default: by endpoint type."""
    prune_failed_steps: Flag | None = None
    """Multi-step mode: drop failed steps from the history after the turn. Server default: true."""
    force_to_cache: Regexes | None = None
    """Regular expressions of tool names whose results are always cached. Server default: none."""
    max_pllm_steps: Count | None = None
    """Steps in a turn. Server default: not documented."""
    max_pllm_failed_steps: Count | None = None
    """Failed steps in a turn. Server default: not documented."""
    max_tool_calls_per_step: Count | None = None
    """Tool calls in an attempt; null: no limit. Server default: not documented."""
    reduced_grammar_for_rllm_review: ReducedGrammar | None = None
    """What the planner gets of a review: all (`none`), flags (`bool`) or a paraphrase (`text`).

    Server default: `text`. True stands for `text`, false for `none`."""
    retry_on_policy_violation: Flag | None = None
    """Let the planner try again after a denial. Server default: false."""
    offer_soft_denials: Flag | None = None
    """Offer a softly denied call to a person. Only `LocalServer` has it. Server default: false."""
    wrap_tool_result: Flag | None = None
    """Wrap tool results in Ok and Err. Server default: not documented."""
    detect_tool_errors: Literal["none", "regex", "llm"] | None = None
    """How errors in tool results are found. Server default: not documented."""
    detect_tool_error_regex_pattern: Regex | None = None
    """The regular expression for `regex`. Server default: not documented."""
    detect_tool_error_max_result_length: Length | None = None
    """How much of a result is searched; null: all of it. Server default: not documented."""
    strict_tool_result_parsing: Flag | None = None
    """Parse results as JSON only if the tool has an output schema; if false, always try.

    Server default: not documented."""
    tool_result_transform: Literal["none", "codex"] | None = None
    """`codex` reduces results of the Codex CLI to exit code and output.

    Server default: not documented."""
    n_pllm_plans: Count | None = None
    """Plans per step; of several, a model picks the best. Server default: 1."""
    pllm_candidate_models: DistinctNames | None = None
    """Different models for these plans, in turn. Server default: the request's model."""
    pllm_context_pruning: Flag | None = None
    """Show values of context variables in the newest step only. Server default: true."""


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
    """How much, as the provider names it, such as `low`. Server default: not documented."""
    budget: Count | None = None
    """Most tokens for reasoning. Server default: not documented."""
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
    """Penalty on tokens that have occurred, -2 to 2. Server default: not documented."""
    logit_bias: Mapping[Text, Integer] | None = None
    """Token to bias. Server default: not documented."""
    logprobs: Flag | None = None
    """Return the tokens' log probabilities. Server default: not documented."""
    max_completion_tokens: Count | None = None
    """Most tokens in an answer. Server default: not documented."""
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


DebugInfoLevel = Literal["minimal", "normal", "extra"]
InlineRole = Literal["assistant", "tool", "developer", "system"]


class PromptTemplate(HeaderModel):
    """The template of a model's prompt.

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
    """How much the planner sees of the execution. Server default: `normal`."""
    clarify_ambiguous_queries: Flag | None = None
    """Whether the planner may ask the user. Server default: true, by the release notes."""
    context_var_visibility: (
        Literal["none", "basic-notext", "basic-executable", "all-executable", "all"] | None
    ) = None
    """Which context variables the planner sees. Server default: not documented."""
    query_inline_roles: Array[InlineRole] | None = None
    """Messages of these roles become part of the query. Server default: not documented."""
    query_role_name_overrides: Mapping[Text, Text] | None = None
    """New names of roles in the query: old name to new name. Server default: not documented."""
    query_include_tool_calls: Flag | None = None
    """Include earlier tool calls in the query. Server default: not documented."""
    query_include_tool_args: Flag | None = None
    """Include the arguments of earlier tool calls in the query. Server default: not documented."""
    query_include_tool_results: Flag | None = None
    """Include the results of earlier tool calls in the query. Server default: not documented."""


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
    """How much the reviewer sees of the execution. Server default: not documented."""


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
    """Prompts, one section for each model; dual-LLM only.

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


class ResponseFormatConfig(HeaderModel):
    """Content of a dual-LLM reply.

    Example:
        ```python
        from langchain_sequrity.headers import ResponseFormatConfig

        ResponseFormatConfig(include_program=True, include_policy_check_history=True)
        ```
    """

    _where: ClassVar[str] = "`response_format`"

    strip_response_content: Flag | None = None
    """Send only the value, as plain text. Server default: not stated, seen as false."""
    stream_thoughts: Flag | None = None
    """Stream the models' thinking. Server default: not documented."""
    include_program: Flag | None = None
    """Add the planner's program. Server default: not stated, once false."""
    include_policy_check_history: Flag | None = None
    """Add check results even without violations. Server default: not stated, once false."""
    include_namespace_snapshot: Flag | None = None
    """Add all variables with their labels. Server default: not stated, once false."""


class ConfigHeader(Header):
    """The header `X-Config`.

    Example:
        ```python
        from langchain_sequrity.headers import ConfigHeader, FsmConfig, ResponseFormatConfig

        config = ConfigHeader(
            fsm=FsmConfig(max_n_turns=8, retry_on_policy_violation=True),
            response_format=ResponseFormatConfig(include_program=True),
        )
        assert config == ConfigHeader.from_header(config.to_header())
        ```
    """

    header_name: ClassVar[str] = "X-Config"
    _where: ClassVar[str] = "`X-Config`"
    _example: ClassVar[str] = '{"fsm": {"max_n_turns": 8}}'

    fsm: FsmConfig | None = None
    """Limits of a session, and options of the planner. Server default: see `FsmConfig`."""
    prompt: PromptConfig | None = None
    """Prompts of the models; dual-LLM only. Server default: see `PromptConfig`."""
    response_format: ResponseFormatConfig | None = None
    """Content of a reply; dual-LLM only. Server default: see `ResponseFormatConfig`."""
    llm: LlmConfig | None = None
    """How each model generates. Server default: see `LlmConfig`."""

    @classmethod
    def for_agent_front_ends(cls) -> Self:
        """The vendor's settings for agent front ends: long turns of several steps.

        A front end (a coding agent, a chat program) rewrites the conversation that it sends: it
        shortens or rephrases it, or removes a turn. Effect of each option on tool calls, which may
        be made twice:

        - `history_mismatch_policy: "restart_turn"`: the stored history is cut where the sent one
          differs, and the turn runs again. `LocalServer` makes no call a second time; it is unknown
          whether the service does.
        - `max_n_turns: 50`: then the session ends. With `on_session_expired="restart"` the turn
          starts again in another session, unless it has made calls.
        - `max_pllm_steps: 50`: a step continues where the last one ended, and repeats nothing.
        - `max_pllm_failed_steps: 10`: a step that fails after a call may be planned again with the
          same call, as with `restart_turn`.
        - `enable_multistep_planning`: the results of a successful step are kept, so that the next
          step does not repeat its calls.
        - `disable_rllm`: no model reviews answers, so no review makes the planner start again.

        If a tool must not run twice, use `history_mismatch_policy: "reject"` instead (example
        below): a rewritten history is then an error (`docs/behaviour.md`, T1).

        `response_format.strip_response_content`, which the vendor sets too, is left out: without
        the envelope a failed turn looks like an answer (P3).

        Returns:
            The header. It is for dual-LLM sessions; single-LLM sessions use only `max_n_turns`.

        Example:
            ```python
            from langchain_sequrity.headers import ConfigHeader

            config = ConfigHeader.for_agent_front_ends()
            assert config.fsm.history_mismatch_policy == "restart_turn"
            assert config.response_format is None

            fsm = config.fsm.model_copy(update={"history_mismatch_policy": "reject"})
            cautious = config.model_copy(update={"fsm": fsm})
            assert cautious.fsm.max_n_turns == 50
            ```
        """
        return cls(
            fsm=FsmConfig(
                history_mismatch_policy="restart_turn",
                max_n_turns=50,
                max_pllm_steps=50,
                max_pllm_failed_steps=10,
                enable_multistep_planning=True,
                disable_rllm=True,
            )
        )

    @property
    def strips_response_content(self) -> bool:
        """Whether replies are plain text, without verdict and labels."""
        return self.response_format is not None and bool(
            self.response_format.strip_response_content
        )

    def with_envelope(self, *, in_full: bool = False) -> Self:
        """A copy that asks for the whole reply, except where a field is set.

        Args:
            in_full: Whether to ask also for the program and the checks of its calls.

        Returns:
            The copy, with `response_format.strip_response_content` false if it was unset or null
            (`docs/behaviour.md`, P3); the header itself if nothing was unset.
        """
        current = self.response_format or ResponseFormatConfig()
        values = {"strip_response_content": False}
        if in_full:
            values |= {"include_program": True, "include_policy_check_history": True}
        unset = {name: value for name, value in values.items() if getattr(current, name) is None}
        if not unset:
            return self
        return self.model_copy(update={"response_format": current.model_copy(update=unset)})

    @property
    def mismatch_policy(self) -> MismatchPolicy | None:
        """`fsm.history_mismatch_policy`, or `None`."""
        return self.fsm.history_mismatch_policy if self.fsm is not None else None

    def with_mismatch_policy(self, policy: MismatchPolicy | None) -> Self:
        """A copy with `policy` as `fsm.history_mismatch_policy`."""
        fsm = self.fsm or FsmConfig()
        return self.model_copy(
            update={"fsm": fsm.model_copy(update={"history_mismatch_policy": policy})}
        )
