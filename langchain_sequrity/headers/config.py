"""`X-Config`: how a session runs and what a reply holds."""

from typing import ClassVar, Self

from langchain_sequrity.headers.fields import Flag
from langchain_sequrity.headers.fsm import FsmConfig, MismatchPolicy
from langchain_sequrity.headers.header import Header
from langchain_sequrity.headers.llm import LlmConfig
from langchain_sequrity.headers.model import HeaderModel
from langchain_sequrity.headers.prompt import PromptConfig


class ResponseFormatConfig(HeaderModel):
    """What a dual-LLM reply holds.

    Example:
        ```python
        from langchain_sequrity.headers import ResponseFormatConfig

        ResponseFormatConfig(include_program=True, include_policy_check_history=True)
        ```
    """

    _where: ClassVar[str] = "`response_format`"

    strip_response_content: Flag | None = None
    """Send the value as plain text and nothing else. Server default: not stated, seen as false."""
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

    fsm: FsmConfig | None = None
    """How a session runs. Server default: see `FsmConfig`."""
    prompt: PromptConfig | None = None
    """What the models are told; dual-LLM only. Server default: see `PromptConfig`."""
    response_format: ResponseFormatConfig | None = None
    """What a reply holds; dual-LLM only. Server default: see `ResponseFormatConfig`."""
    llm: LlmConfig | None = None
    """How each model generates. Server default: see `LlmConfig`."""

    @classmethod
    def for_agent_front_ends(cls) -> Self:
        """What the vendor sets for agent front ends: long turns of several steps.

        A front end (a coding agent, a chat program) rewrites the conversation that it sends: it
        shortens it, words it anew, or takes a turn back. What each option means for calls of tools
        that may be made twice:

        - `history_mismatch_policy: "restart_turn"`: the stored history is cut where the one that is
          sent differs, and the turn is done again. `LocalServer` makes no call a second time;
          whether the service does is unknown.
        - `max_n_turns: 50`: then the session is gone. With `on_session_expired="restart"` the turn
          begins anew in another session, unless it has made calls.
        - `max_pllm_steps: 50`: a step goes on where the last one ended, and repeats nothing.
        - `max_pllm_failed_steps: 10`: a step that fails after a call may be planned anew, with the
          same call; it is as with `restart_turn`.
        - `enable_multistep_planning`: what a step that succeeded brought is kept, so that the next
          one need not call for it again.
        - `disable_rllm`: no model reviews answers, so no review makes the planner begin again.

        Where a tool may not run twice, take `history_mismatch_policy: "reject"` instead (example
        below): a history that was rewritten is then an error (`docs/behaviour.md`, T1).

        `response_format.strip_response_content`, which the vendor sets too, is left out: without
        the envelope a failed turn looks like an answer (P3).

        Returns:
            The header. It acts in dual-LLM sessions; of all of it, single-LLM ones take
            `max_n_turns`.

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
        """Whether replies are asked for as bare text, without verdict and labels."""
        return self.response_format is not None and bool(
            self.response_format.strip_response_content
        )

    def with_envelope(self, *, in_full: bool = False) -> Self:
        """A copy that asks for the whole reply where nothing else is set.

        Args:
            in_full: Whether the program and the checks of its calls are asked for as well.

        Returns:
            The copy, with `response_format.strip_response_content` false where it was unset or
            null (`docs/behaviour.md`, P3); the header itself if nothing was unset.
        """
        current = self.response_format or ResponseFormatConfig()
        wanted = {"strip_response_content": False}
        if in_full:
            wanted |= {"include_program": True, "include_policy_check_history": True}
        unset = {name: value for name, value in wanted.items() if getattr(current, name) is None}
        if not unset:
            return self
        return self.model_copy(update={"response_format": current.model_copy(update=unset)})

    @property
    def mismatch_policy(self) -> MismatchPolicy | None:
        """What a history does that differs from the stored one; `None` if that is not set."""
        return self.fsm.history_mismatch_policy if self.fsm is not None else None

    def with_mismatch_policy(self, policy: MismatchPolicy | None) -> Self:
        """A copy with another `fsm.history_mismatch_policy`."""
        kept = self.fsm or FsmConfig()
        return self.model_copy(
            update={"fsm": kept.model_copy(update={"history_mismatch_policy": policy})}
        )
