"""The arguments of the chat models, as type checkers, editors and `inspect.signature` show them.

A field has the type that it is read with (`policy` is a `PolicyHeader`); an argument has all that
the field is made of (text, a `Path`, a dict, …). What each is for stands with the fields, in
`parameters`, `chat_sequrity` and `sequrity_messages`; their defaults are taken from there.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict

from langchain_core.caches import BaseCache
from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.language_models import ModelProfile
from langchain_core.rate_limiters import BaseRateLimiter
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from langchain_sequrity.chat_models.turn import OnDenied, OnSessionExpired
from langchain_sequrity.headers import ConfigHeader, FeaturesHeader, PolicyHeader
from langchain_sequrity.transport import AsyncHttpClient, HttpClient, HttpTimeout
from langchain_sequrity.wire.routes import EndpointType, Provider


class SdkHeader(Protocol):
    """A header object of the service's own SDK."""

    def dump_for_headers(self, mode: Literal["json"]) -> Any:
        """The header as JSON objects."""


Key = str | SecretStr | Callable[[], str] | Callable[[], Awaitable[str]]
"""A key, or what is asked for it before each call."""
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
Verbosity = Literal["low", "medium", "high"]


class Common(TypedDict, total=False):
    """What both models take, and `LangGraphExecutor` where it is given a model's name."""

    # Who, where, and under which policy
    api_key: Key | None
    llm_api_key: Key | None
    base_url: str
    provider: Provider | None
    endpoint_type: EndpointType
    features: FeaturesHeader | Mapping[str, Any] | SdkHeader | None
    policy: PolicyHeader | str | Path | Mapping[str, Any] | SdkHeader | None
    session_config: ConfigHeader | Mapping[str, Any] | SdkHeader | None
    on_session_expired: OnSessionExpired
    # What is asked of the model behind the service
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    stop: str | Sequence[str] | None
    stop_sequences: str | Sequence[str] | None
    reasoning_effort: ReasoningEffort | None
    streaming: bool
    service_tier: str | None
    model_kwargs: dict[str, Any]
    extra_body: dict[str, Any] | None
    # How it gets there
    timeout: float | HttpTimeout | None
    stream_chunk_timeout: float | None
    max_retries: int
    default_headers: Mapping[str, str | SecretStr] | None
    default_query: Mapping[str, str | int | float | bool] | None
    include_response_headers: bool
    http_client: HttpClient | None
    http_async_client: AsyncHttpClient | None
    proxy: str | SecretStr | None
    max_header_bytes: int
    allow_http: bool
    # What LangChain has for every model
    verbose: bool
    callbacks: list[BaseCallbackHandler] | BaseCallbackManager | None
    tags: list[str] | None
    metadata: dict[str, Any] | None
    custom_get_token_ids: Callable[[str], list[int]] | None
    rate_limiter: BaseRateLimiter | None
    disable_streaming: bool | Literal["tool_calling"]
    output_version: str | None
    profile: ModelProfile | None


class OfModels(TypedDict, total=False):
    """What both models take, and `LangGraphExecutor` has for itself."""

    name: str | None
    cache: BaseCache | bool | None
    on_denied: OnDenied
    strict_policy: bool


class OfChatSequrity(TypedDict, total=False):
    """What both of OpenAI's formats have, or only chat/completions."""

    max_completion_tokens: int | None
    verbosity: Verbosity | None
    organization: str | None
    seed: int | None
    stream_usage: bool
    n: int | None
    logprobs: bool | None
    top_logprobs: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    logit_bias: dict[str, int] | None


class OfResponses(TypedDict, total=False):
    """What only Responses has, which runs no graph."""

    use_responses_api: bool
    use_previous_response_id: bool
    reasoning: dict[str, Any] | None
    include: list[str] | None
    store: bool | None
    truncation: Literal["auto", "disabled"] | None


class OfSequrityMessages(TypedDict, total=False):
    """What only Anthropic's format has."""

    top_k: int | None
    thinking: dict[str, Any] | None
    output_config: dict[str, Any] | None
    betas: list[str] | None
    mcp_servers: list[dict[str, Any]] | None
    container: str | dict[str, Any] | None
    context_management: dict[str, Any] | None


class ChatSequrityArguments(Common, OfModels, OfChatSequrity, OfResponses, total=False):
    """Every argument of `ChatSequrity` but the model's name."""


class SequrityMessagesArguments(Common, OfModels, OfSequrityMessages, total=False):
    """Every argument of `SequrityMessages` but the model's name."""


class NamedModelArguments(Common, OfChatSequrity, total=False):
    """The arguments of `ChatSequrity` that stand behind a name in `LangGraphExecutor`."""


def keywords(arguments: type[Any], model: type[BaseModel]) -> list[Parameter]:
    """Arguments as the parameters of a signature, with the defaults of a model's fields.

    Args:
        arguments: A `TypedDict`.
        model: The model that has the fields.
    """
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    fields |= model.model_fields
    return [
        Parameter(name, Parameter.KEYWORD_ONLY, default=_default(fields[name]), annotation=kind)
        for name, kind in arguments.__annotations__.items()
    ]


def _default(field: Any) -> Any:
    # What is made when it is needed (a key of the environment, an empty dict) shows as `...`.
    return ... if field.default is PydanticUndefined else field.default


def model_signature(arguments: type[Any], model: type[BaseModel]) -> Signature:
    """The signature of a model's constructor: its name, then keywords."""
    name = Parameter("model", Parameter.POSITIONAL_OR_KEYWORD, annotation=str)
    return Signature([name, *keywords(arguments, model)], return_annotation=None)


def executor_signature(
    init: Callable[..., None], arguments: type[Any], model: type[BaseModel]
) -> Signature:
    """The signature of a constructor whose further keywords are those of a model."""
    own = [*signature(init).parameters.values()][1:-1]
    return Signature([*own, *keywords(arguments, model)], return_annotation=None)
