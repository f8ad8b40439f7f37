"""`ChatSequrity`: the OpenAI-format endpoints as a LangChain chat model."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from pydantic import Field, model_validator
from typing_extensions import override

from langchain_sequrity.chat_models.base import SequrityChatModel
from langchain_sequrity.chat_models.turn import WireFormat
from langchain_sequrity.errors import UsageError
from langchain_sequrity.wire import chat_completions
from langchain_sequrity.wire.routes import Format


class ChatSequrity(SequrityChatModel):
    """Chat model over Sequrity's chat/completions endpoints (`docs/protocol.md`, Chat completions).

    All arguments but `model` are given by keyword. Every field below is one. The most used:

    Args:
        model: One model for all roles, or `"planner,worker"`.
        api_key: Sequrity key; default: environment variable `SEQURITY_API_KEY`. Not needed on a
            loopback address.
        llm_api_key: Key of the LLM provider; default: `SEQURITY_LLM_API_KEY`, else the service's
            own key is used.
        base_url: Default: `SEQURITY_BASE_URL`, else `https://api.sequrity.ai`.
        provider: `None` (the service's default), `openai`, `openrouter` or `sequrity_azure`.
        endpoint_type: `chat` (default), `code` or `agent`.
        features: X-Features, a `FeaturesHeader` or a dict.
        policy: X-Policy: a `PolicyHeader`, SQRT text, or a `Path` to it.
        session_config: X-Config, a `ConfigHeader` or a dict.
        on_denied: `"raise"` (default) raises `PolicyDenied`; `"message"` returns a refusal.
        on_session_expired: `"raise"` (default) or `"restart"`.
        timeout: Seconds for a call as a whole, or an `httpx.Timeout`.
        max_retries: How often a call is sent again where that is safe; default 2.

    Each call takes, besides LangChain's own arguments, `session_id=` (an id or `"new"`),
    `extra_headers=` and any field of the body. Without `session_id` the session of the last
    message in the history that this very configuration obtained goes on; it can also be given as
    `config={"configurable": {"sequrity_session_id": …}}`.

    A reply's `response_metadata` has `model_name`, `finish_reason`, `id` and, under `sequrity`,
    `session_id` and `request_id`; after a dual-LLM turn also its status, labels and program
    (see `dual_llm_result`).

    Raises:
        UsageError: For a missing key, an unknown argument, or a provider that does not serve this
            format. Calls raise the other errors of `langchain_sequrity.errors`.

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

    _wire: ClassVar[WireFormat] = chat_completions
    _suffix: ClassVar[Format] = "chat/completions"

    n: int | None = Field(default=None, ge=1)
    """Number of replies to ask for; more than one cannot be streamed."""
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, int] | None = None
    service_tier: str | None = None
    use_responses_api: bool = False
    """Not available in this version; the Responses format arrives with a later one."""

    def __init__(self, model: str | None = None, **kwargs: Any) -> None:
        """Take the model's name first and everything else by keyword."""
        if model is not None:
            kwargs["model"] = model
        super().__init__(**kwargs)

    @model_validator(mode="after")
    def _refuse_responses(self) -> Self:
        if self.use_responses_api:
            msg = "`use_responses_api=True` is not built yet. Leave it out to use chat/completions."
            raise UsageError(msg)
        return self

    @property
    @override
    def _llm_type(self) -> str:
        return "sequrity-chat"

    @override
    def _default_params(self) -> dict[str, Any]:
        own = {
            "n": self.n,
            "logprobs": self.logprobs,
            "top_logprobs": self.top_logprobs,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "logit_bias": self.logit_bias,
            "service_tier": self.service_tier,
        }
        named = {name: value for name, value in own.items() if value is not None}
        return {**named, **super()._default_params()}

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
        params = super()._params(defaults, stop, kwargs, stream=stream)
        if stream and (params.get("n") or 1) > 1:
            msg = "Several replies (`n` > 1) cannot be streamed. Use `generate`, or `n=1`."
            raise UsageError(msg)
        return params
