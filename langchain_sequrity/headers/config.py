"""`X-Config`: how a session runs and what a reply holds."""

from typing import ClassVar, Self

from langchain_sequrity.headers.fields import Flag
from langchain_sequrity.headers.fsm import FsmConfig
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

    @property
    def strips_response_content(self) -> bool:
        """Whether replies are asked for as bare text, without verdict and labels."""
        return self.response_format is not None and bool(
            self.response_format.strip_response_content
        )

    def with_envelope(self) -> Self:
        """A copy that asks for the whole reply where nothing else is set.

        Returns:
            The copy, with `response_format.strip_response_content` false where it was unset or
            null (`docs/behaviour.md`, P3); the header itself if it was set.
        """
        current = self.response_format or ResponseFormatConfig()
        if current.strip_response_content is not None:
            return self
        kept = current.model_copy(update={"strip_response_content": False})
        return self.model_copy(update={"response_format": kept})
