"""`X-Config`, section `fsm`: how a session runs."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from langchain_sequrity.headers.fields import (
    Array,
    Count,
    DistinctNames,
    Flag,
    Integer,
    Length,
    Regex,
    Regexes,
)
from langchain_sequrity.headers.model import HeaderModel
from langchain_sequrity.validation import refusal

MismatchPolicy = Literal["reject", "restart_turn", "continue"]
InternalTool = Literal["parse_with_ai", "verify_hypothesis", "set_policy", "complete_turn"]


def _no_number(value: Any) -> Any:
    # To Python 1 is True, so the literal alone would take it.
    if isinstance(value, int | float) and not isinstance(value, bool):
        msg = "Input should be 'none', 'bool', 'text', True or False"
        raise refusal(msg, kind="grammar")
    return value


ReducedGrammar = Annotated[
    Literal["none", "bool", "text", True, False], BeforeValidator(_no_number)
]


class FsmConfig(HeaderModel):
    """Limits of a session, and how the planner works. The first three also act in single-LLM mode.

    Example:
        ```python
        from langchain_sequrity.headers import FsmConfig

        fsm = FsmConfig(max_n_turns=None, max_pllm_steps=6)
        assert fsm.to_wire() == {"max_n_turns": None, "max_pllm_steps": 6}  # null: no limit
        ```
    """

    _where: ClassVar[str] = "`fsm`"

    min_num_tools_for_filtering: Annotated[Integer, Field(ge=2)] | None = None
    """From this many tools on, a model selects tools first; null: never. Server default: 10."""
    clear_session_meta: Literal["never", "every_attempt", "every_turn"] | None = None
    """When the session's labels are emptied. Server default: `never`."""
    max_n_turns: Count | None = None
    """Turns before the session ends; null: no limit. Server default: by endpoint type."""

    history_mismatch_policy: MismatchPolicy | None = None
    """If the history sent is not the stored one: refuse, redo the turn, or accept it.

    Server default: not documented."""
    clear_history_every_n_attempts: Count | None = None
    """Single-step mode: forget failed steps every so many attempts. Server default: never."""
    disable_rllm: Flag | None = None
    """Skip the model that reviews answers. Server default: true."""
    enable_multistep_planning: Flag | None = None
    """Steps build on each other; if false, each attempt solves all anew. Server default: false."""
    enabled_internal_tools: Array[InternalTool] | None = None
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
    """What the planner gets of a review: all (`none`), flags, a paraphrase. Server default: `text`.

    True stands for `text`, false for `none`."""
    retry_on_policy_violation: Flag | None = None
    """Let the planner try again after a denial. Server default: false."""
    wrap_tool_result: Flag | None = None
    """Wrap tool results in Ok and Err. Server default: not documented."""
    detect_tool_errors: Literal["none", "regex", "llm"] | None = None
    """How errors in tool results are found. Server default: not documented."""
    detect_tool_error_regex_pattern: Regex | None = None
    """The regular expression for `regex`. Server default: not documented."""
    detect_tool_error_max_result_length: Length | None = None
    """How much of a result is looked at; null: all of it. Server default: not documented."""
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
