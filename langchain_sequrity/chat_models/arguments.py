"""The constructor arguments that type checkers, editors and `inspect.signature` show.

A field has one type: `policy` is a `PolicyHeader`. An argument has every type that the field
accepts: text, a `Path`, a dict, and so on. The fields and their documentation are in `parameters`,
`chat_sequrity` and `sequrity_messages`; the signatures take the defaults from them.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from inspect import Parameter, Signature, signature
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypedDict

from langchain_core.caches import BaseCache
from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.language_models import ModelProfile
from langchain_core.rate_limiters import BaseRateLimiter
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from langchain_sequrity.chat_models.turn import OnSessionExpired
from langchain_sequrity.headers import ConfigHeader, FeaturesHeader, PolicyHeader
from langchain_sequrity.on_denied import OnDenied
from langchain_sequrity.session_memory import OnSessionLost
from langchain_sequrity.suggestions import did_you_mean, nearest_name
from langchain_sequrity.transport import AsyncHttpClient, HttpClient, HttpTimeout
from langchain_sequrity.wire.routes import AnthropicProvider, EndpointType, OpenAIProvider


class CompilablePolicy(Protocol):
    """A policy of `sqrt.named` or `sqrt.combine`."""

    def compile(self) -> Any:
        """The compiled policy."""


class SdkHeader(Protocol):
    """A header object of the service's own SDK."""

    def dump_for_headers(self, mode: Literal["json"]) -> Any:
        """The header as JSON objects."""


SinglePolicy = PolicyHeader | CompilablePolicy | str | Path | Mapping[str, Any] | SdkHeader
Key = str | SecretStr | Callable[[], str] | Callable[[], Awaitable[str]]
"""A key, or a function that gives it before each call."""
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
Verbosity = Literal["low", "medium", "high"]


class CommonArguments(TypedDict, total=False):
    """Arguments of both models, and of `LangGraphExecutor` with the name of a model."""

    # Keys, address and policy
    api_key: Key | None
    llm_api_key: Key | None
    base_url: str
    endpoint_type: EndpointType
    features: FeaturesHeader | Mapping[str, Any] | SdkHeader | None
    policy: SinglePolicy | Sequence[SinglePolicy] | None
    labels: Sequence[str]
    session_config: ConfigHeader | Mapping[str, Any] | SdkHeader | None
    on_session_expired: OnSessionExpired
    on_session_lost: OnSessionLost
    # Fields of the body
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
    # HTTP
    timeout: float | HttpTimeout | None
    stream_chunk_timeout: float | None
    max_retries: int
    default_headers: Mapping[str, str | SecretStr] | None
    default_query: Mapping[str, str | int | float | bool] | None
    include_response_headers: bool
    http_client: HttpClient | None
    http_async_client: AsyncHttpClient | None
    proxy: str | SecretStr | None
    max_header_bytes: int | None
    allow_http: bool
    # LangChain's arguments of every model
    verbose: bool
    callbacks: list[BaseCallbackHandler] | BaseCallbackManager | None
    tags: list[str] | None
    metadata: dict[str, Any] | None
    custom_get_token_ids: Callable[[str], list[int]] | None
    rate_limiter: BaseRateLimiter | None
    disable_streaming: bool | Literal["tool_calling"]
    output_version: str | None
    profile: ModelProfile | None


class ModelArguments(TypedDict, total=False):
    """Arguments of both models that have another meaning for `LangGraphExecutor`."""

    name: str | None
    cache: BaseCache | bool | None
    on_denied: OnDenied
    strict_policy: bool


class OpenAIArguments(TypedDict, total=False):
    """Arguments of both OpenAI formats, or of chat/completions only."""

    provider: OpenAIProvider | None
    max_completion_tokens: int | None
    verbosity: Verbosity | None
    organization: str | None
    seed: int | None
    stream_usage: bool | None
    n: int | None
    logprobs: bool | None
    top_logprobs: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    logit_bias: dict[str, int] | None


class ResponsesArguments(TypedDict, total=False):
    """Arguments of Responses, which cannot run a graph."""

    use_responses_api: bool
    use_previous_response_id: bool
    reasoning: dict[str, Any] | None
    include: list[str] | None
    store: bool | None
    truncation: Literal["auto", "disabled"] | None


class AnthropicArguments(TypedDict, total=False):
    """Arguments of Anthropic's format."""

    provider: AnthropicProvider | None
    top_k: int | None
    thinking: dict[str, Any] | None
    output_config: dict[str, Any] | None
    betas: list[str] | None
    mcp_servers: list[dict[str, Any]] | None
    container: str | dict[str, Any] | None
    context_management: dict[str, Any] | None


class ChatSequrityArguments(
    CommonArguments, ModelArguments, OpenAIArguments, ResponsesArguments, total=False
):
    """All arguments of `ChatSequrity` except `model`."""


class SequrityMessagesArguments(CommonArguments, ModelArguments, AnthropicArguments, total=False):
    """All arguments of `SequrityMessages` except `model`."""


_ONLY_CHAT = {*OpenAIArguments.__annotations__, *ResponsesArguments.__annotations__} - {"provider"}
_ONLY_MESSAGES = {*AnthropicArguments.__annotations__} - {"provider"}


class NamedModelArguments(CommonArguments, OpenAIArguments, total=False):
    """Arguments of `ChatSequrity` that `LangGraphExecutor` takes with the name of a model."""


_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "agent_arch": 'It is a field of `features`: `features={"agent_arch": …}`.',
        "fsm": 'It is a field of `session_config`: `session_config={"fsm": …}`.',
        "messages": "Give the messages to a call: `model.invoke(messages)`.",
        "response_format": "Use `model.with_structured_output(…)`.",
        "session_id": "Give it to a call: `model.invoke(…, session_id=…)`.",
        "system": "Put a `SystemMessage` before the other messages.",
        "system_prompt": "Put a `SystemMessage` before the other messages.",
        "tool_choice": "Give it with the tools: `model.bind_tools([…], tool_choice=…)`.",
        "tools": "Use `model.bind_tools([…])`.",
    }
)
"""Names that are not arguments of a model, with the place where they belong."""
_OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "anthropic_api_key": "llm_api_key",
        "anthropic_api_url": "base_url",
        "anthropic_proxy": "proxy",
        "default_request_timeout": "timeout",
        "endpoint": "base_url",
        "key": "api_key",
        "max_output_tokens": "max_tokens",
        "max_tokens_to_sample": "max_tokens",
        "openai_api_base": "base_url",
        "openai_api_key": "llm_api_key",
        "openai_organization": "organization",
        "openai_proxy": "proxy",
        "openrouter_api_key": "llm_api_key",
        "request_timeout": "timeout",
        "retries": "max_retries",
        "sequrity_api_key": "api_key",
        "token": "api_key",
        "url": "base_url",
        "x_api_key": "llm_api_key",
    }
)
"""Names in other packages, with our name of the same argument."""


def advice_on(name: str, names: Collection[str]) -> str:
    """Advice on an unknown argument.

    Args:
        name: The unknown argument.
        names: The arguments of the model.
    """
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    for model, extra in (("ChatSequrity", _ONLY_CHAT), ("SequrityMessages", _ONLY_MESSAGES)):
        if name in extra:
            return f"`{model}` has it."
    near = _OTHER_NAMES.get(name)
    if near not in names:
        near = nearest_name(name, names)
    if near:
        return did_you_mean(near)
    return "A field of the request's body goes into `model_kwargs`."


def keywords(arguments: type[Any], model: type[BaseModel]) -> list[Parameter]:
    """Arguments as the parameters of a signature, with the defaults of a model's fields.

    Args:
        arguments: A `TypedDict`.
        model: The model that has the fields.
    """
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    fields |= model.model_fields
    return [_keyword(name, fields[name], hint) for name, hint in arguments.__annotations__.items()]


def _keyword(name: str, field: Any, annotation: Any) -> Parameter:
    # A default that a function makes (a key of the environment, an empty dict) shows as `...`.
    default = ... if field.default is PydanticUndefined else field.default
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def model_signature(arguments: type[Any], model: type[BaseModel]) -> Signature:
    """The signature of a model's constructor: its name, then keywords.

    It includes fields that a subclass adds.
    """
    model_name = Parameter("model", Parameter.POSITIONAL_OR_KEYWORD, annotation=str)
    declared = keywords(arguments, model)
    declared_names = {"model_name", *arguments.__annotations__}
    added = [
        _keyword(name, field, field.annotation)
        for name, field in model.model_fields.items()
        if name not in declared_names
    ]
    return Signature([model_name, *declared, *added], return_annotation=None)


def executor_signature(
    init: Callable[..., None], arguments: type[Any], model: type[BaseModel]
) -> Signature:
    """The signature of a constructor that also takes the keywords of a model."""
    parameters = [*signature(init).parameters.values()][1:-1]
    return Signature([*parameters, *keywords(arguments, model)], return_annotation=None)
