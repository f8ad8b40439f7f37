"""`ChatSequrity`: the OpenAI-format endpoints as a LangChain chat model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, Unpack
from urllib.parse import urlsplit

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from pydantic import Field, model_validator
from typing_extensions import override

from langchain_sequrity.chat_models.arguments import ChatSequrityArguments, Verbosity
from langchain_sequrity.chat_models.base import TOKEN_LIMIT_FIELDS, SequrityChatModel
from langchain_sequrity.chat_models.parameters import Body
from langchain_sequrity.errors import UsageError
from langchain_sequrity.wire.chat_completions.client import FORMAT
from langchain_sequrity.wire.exchange import ClientFormat
from langchain_sequrity.wire.routes import Format, is_loopback


class ChatSequrity(SequrityChatModel):
    """Chat model over Sequrity's endpoints in OpenAI's formats (`docs/protocol.md`).

    By default it uses chat/completions, with `use_responses_api=True` Responses. A conversation can
    continue in the other format, and in `SequrityMessages`.

    All arguments except `model` are keyword arguments. Each field is an argument. The most used:

    Args:
        model: One model for all roles, or `"planner,worker"`.
        api_key: Sequrity key; default: environment variable `SEQURITY_API_KEY`. Not needed on a
            loopback address.
        llm_api_key: Key of the LLM provider; default: `SEQURITY_LLM_API_KEY`, else the service
            uses its own key.
        base_url: Default: `SEQURITY_BASE_URL`, else `https://api.sequrity.ai`.
        provider: `None` (the service's default), `openai`, `openrouter` or `sequrity_azure`.
        endpoint_type: `chat` (default), `code` or `agent`.
        use_responses_api: Use Responses instead of chat/completions: reasoning items with their
            encrypted content, built-in tools, `previous_response_id`.
        features: X-Features, a `FeaturesHeader` or a dict.
        policy: X-Policy: a `PolicyHeader`, SQRT text, a `Path` to it, or a list of these, which
            are combined (`sqrt.combine`).
        labels: Tags and producers that your tools set on their results (`labeled_tool_result`),
            beside those that rules set; for the warnings of `strict_policy`.
        session_config: X-Config, a `ConfigHeader` or a dict.
        on_denied: `"raise"` (default) raises `PolicyDenied`; `"message"` returns the denial as one
            sentence, except where a parser would read it (`docs/behaviour.md`, P11);
            `"interrupt"` asks a person about a soft denial (T6; dual-LLM sessions of a local
            server).
        strict_policy: Whether a policy that does less than it says is an error and not a
            `PolicyMismatch` warning: rules for tools that are not bound, rules for labels that
            nothing sets in this mode, or rules that allow what they seem to deny.
        on_session_expired: `"raise"` (default) or `"restart"`.
        on_session_lost: The same for a session that the policy has rules on (`docs/behaviour.md`,
            P13).
        timeout: Seconds for a whole call, or an `httpx.Timeout`.
        max_retries: How often a call is sent again if that is safe; default 2.

    Each call takes, besides LangChain's own arguments, `session_id=` (an id or `"new"`),
    `extra_headers=` and any field of the body. Without `session_id` the conversation continues the
    last session in its history that this very configuration obtained. The session can also be given
    as `config={"configurable": {"sequrity_session_id": …}}`.

    A reply's `content` is text if there is only text. With Responses, reasoning, citations,
    function calls and the items of built-in tools make it a list of blocks. `text`, `tool_calls`
    and `content_blocks` read both forms.

    `response_metadata` has `model_name`, `finish_reason`, `id` and, under `sequrity`, `session_id`
    and `request_id`; after a dual-LLM turn also its status, labels and program (see
    `dual_llm_result`).

    Raises:
        UsageError: For a missing key, an unknown argument, or a provider that does not serve this
            format. Calls raise the other errors of `langchain_sequrity.errors`.
        PolicySyntaxError: If the policy is not valid SQRT.

    Example:
        ```python
        from langchain_sequrity import ChatSequrity
        from langchain_sequrity.local import LocalServer

        with LocalServer() as server:
            model = ChatSequrity("any/model", base_url=server.base_url)
            print(model.invoke("Hello!").text)
            for chunk in model.stream("Hello again!"):
                print(chunk.text, end="")
        ```
    """

    _arguments: ClassVar[type[Any]] = ChatSequrityArguments

    max_completion_tokens: Body[int | None] = Field(default=None, ge=1)
    """Limit on the reply's tokens with reasoning; newer models take it instead of `max_tokens`."""
    verbosity: Body[Verbosity | None] = None
    """How long answers should be."""
    organization: str | None = None
    """Sent as the header `OpenAI-Organization`; it is unknown whether the service forwards it."""
    seed: Body[int | None] = None
    stream_usage: bool | None = None
    """Whether streams of chat/completions ask for token counts; Responses always has them.

    By default only streams of loopback addresses ask, where a local server answers."""
    n: Body[int | None] = Field(default=None, ge=1)
    """Number of replies to ask for; more than one cannot be streamed."""
    logprobs: Body[bool | None] = None
    top_logprobs: Body[int | None] = Field(default=None, ge=0, le=20)
    frequency_penalty: Body[float | None] = Field(default=None, ge=-2, le=2)
    presence_penalty: Body[float | None] = Field(default=None, ge=-2, le=2)
    logit_bias: Body[dict[str, int] | None] = None
    use_responses_api: bool = False
    """Whether to use Responses."""
    use_previous_response_id: bool = False
    """Whether to send only the messages after the last reply, with that reply's id. Only with
    Responses, and only if that reply is of the session that continues."""
    reasoning: Body[dict[str, Any] | None] = None
    """With Responses: `{"effort": …, "summary": …}`; `reasoning_effort` is its short form."""
    include: Body[list[str] | None] = None
    """With Responses: further content of the reply, such as `reasoning.encrypted_content`."""
    store: Body[bool | None] = None
    """With Responses: whether a later request can continue from the reply by its id."""
    truncation: Body[Literal["auto", "disabled"] | None] = None
    """With Responses: whether a conversation that is too long is cut or refused."""

    if TYPE_CHECKING:

        def __init__(self, model: str, **kwargs: Unpack[ChatSequrityArguments]) -> None:
            """Take the model's name first and everything else by keyword."""

    @override
    def _named_headers(self) -> dict[str, str]:
        return {} if self.organization is None else {"OpenAI-Organization": self.organization}

    @model_validator(mode="after")
    def _check_format(self) -> Self:
        """Refuse parameters of the other format, which would be lost or refused by the service."""
        used, other = "chat/completions", "Responses (`use_responses_api=True`)"
        foreign: tuple[str, ...] = _OF_RESPONSES
        if self.use_responses_api:
            used, other, foreign = "Responses", "chat/completions", _OF_CHAT_COMPLETIONS
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            msg = "`max_tokens` and `max_completion_tokens` are the same limit. Give one of them."
            raise UsageError(msg)
        for name in foreign:
            if getattr(self, name) not in (None, False):
                msg = f"`{name}` belongs to {other}, and this model uses {used}. Leave it out."
                raise UsageError(msg)
        return self

    @override
    def _format(self) -> tuple[Format, ClientFormat]:
        if not self.use_responses_api:
            return "chat/completions", FORMAT
        from langchain_sequrity.wire.responses import (  # noqa: PLC0415 - most programs use one format
            stream_reader,
        )

        return "responses", stream_reader.FORMAT

    @property
    @override
    def _llm_type(self) -> str:
        return "sequrity-chat"  # in both formats: for LangChain it is the same model

    @override
    def _should_stream(
        self,
        *,
        async_api: bool,
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> bool:
        several = (kwargs.get("n") or self.n or 1) > 1
        return not several and super()._should_stream(
            async_api=async_api, run_manager=run_manager, **kwargs
        )

    @override
    def _params(
        self,
        defaults: Mapping[str, Any],
        stop: list[str] | None,
        kwargs: Mapping[str, Any],
        *,
        stream: bool,
    ) -> dict[str, Any]:
        if any(kwargs.get(name) is not None for name in TOKEN_LIMIT_FIELDS):
            defaults = {
                name: value for name, value in defaults.items() if name not in TOKEN_LIMIT_FIELDS
            }
        params = super()._params(defaults, stop, kwargs, stream=stream)
        if stream and (params.get("n") or 1) > 1:
            msg = "Several replies (`n` > 1) cannot be streamed. Use `generate`, or `n=1`."
            raise UsageError(msg)
        if stream and not self.use_responses_api:
            asks_for_usage = self.stream_usage
            if asks_for_usage is None:
                asks_for_usage = is_loopback(urlsplit(self.base_url).hostname or "")
            if asks_for_usage:
                params.setdefault("stream_options", {"include_usage": True})
        return params


_OF_RESPONSES = ("use_previous_response_id", "reasoning", "include", "store", "truncation")
_OF_CHAT_COMPLETIONS = ("n", "frequency_penalty", "presence_penalty", "logit_bias", "seed")
