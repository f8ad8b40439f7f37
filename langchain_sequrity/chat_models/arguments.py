"""The arguments of the chat models, as type checkers, editors and `inspect.signature` show them.

A field has the type that it is read with (`policy` is a `PolicyHeader`); an argument has all that
the field is made of (text, a `Path`, a dict, …). What each is for stands with the fields, in
`parameters`, `chat_sequrity` and `sequrity_messages`; their defaults are taken from there.

Arguments of one call: which are fields of the body, and which are for this package.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from inspect import Parameter, Signature, signature
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypedDict

from langchain_core.caches import BaseCache
from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.language_models import BaseChatModel, ModelProfile
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from langchain_sequrity.chat_models.turn import OnSessionExpired
from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import ConfigHeader, FeaturesHeader, PolicyHeader
from langchain_sequrity.on_denied import OnDeniedTurn
from langchain_sequrity.suggestions import meant, nearest_own
from langchain_sequrity.transport import AsyncHttpClient, HttpClient, HttpTimeout
from langchain_sequrity.wire.routes import AnthropicProvider, EndpointType, OpenAIProvider


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
    on_denied: OnDeniedTurn
    strict_policy: bool


class OfChatSequrity(TypedDict, total=False):
    """What both of OpenAI's formats have, or only chat/completions."""

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

    provider: AnthropicProvider | None
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


_ONLY_CHAT = {*OfChatSequrity.__annotations__, *OfResponses.__annotations__} - {"provider"}
_ONLY_MESSAGES = {*OfSequrityMessages.__annotations__} - {"provider"}


class NamedModelArguments(Common, OfChatSequrity, total=False):
    """The arguments of `ChatSequrity` that stand behind a name in `LangGraphExecutor`."""


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
"""What is not said to a model when it is made, and where it is said."""
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
"""What other packages call arguments."""


def advice_on(name: str, names: Collection[str]) -> str:
    """What to do about an argument that a model does not have.

    Args:
        name: The argument.
        names: Those that the model has.
    """
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    for other, kinds in (("ChatSequrity", _ONLY_CHAT), ("SequrityMessages", _ONLY_MESSAGES)):
        if name in kinds:
            return f"`{other}` has it."
    near = _OTHER_NAMES.get(name)
    if near not in names:
        near = nearest_own(name, names)
    if near:
        return meant(near)
    return "A field of the request's body goes into `model_kwargs`."


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
    """The signature of a model's constructor: its name, then keywords.

    Fields that a subclass adds are keywords too.
    """
    name = Parameter("model", Parameter.POSITIONAL_OR_KEYWORD, annotation=str)
    shown = keywords(arguments, model)
    known = {"model_name", *arguments.__annotations__}
    own = [
        Parameter(one, Parameter.KEYWORD_ONLY, default=_default(field), annotation=field.annotation)
        for one, field in model.model_fields.items()
        if one not in known
    ]
    return Signature([name, *shown, *own], return_annotation=None)


def executor_signature(
    init: Callable[..., None], arguments: type[Any], model: type[BaseModel]
) -> Signature:
    """The signature of a constructor whose further keywords are those of a model."""
    own = [*signature(init).parameters.values()][1:-1]
    return Signature([*own, *keywords(arguments, model)], return_annotation=None)


_CONFIGURABLE_SESSION = "sequrity_session_id"
# Arguments of a call that are for this package, not for the body.
_NOT_FOR_THE_BODY = frozenset(
    {
        "session_id",
        "configured_session_id",
        "extra_headers",
        "extra_body",
        "stream",
        "ls_structured_output_format",
        "structured_output_format",
    }
)
# Parameters of a model that a call can override; all others are no fields of the body.
_OF_THE_BODY = frozenset(
    {
        "container",
        "context_management",
        "frequency_penalty",
        "include",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "mcp_servers",
        "n",
        "output_config",
        "presence_penalty",
        "reasoning",
        "reasoning_effort",
        "seed",
        "service_tier",
        "stop",
        "store",
        "temperature",
        "thinking",
        "top_k",
        "top_logprobs",
        "top_p",
        "truncation",
        "verbosity",
    }
)


def body_fields(kwargs: Mapping[str, Any], parameters: Collection[str]) -> dict[str, Any]:
    """Choose the arguments that are fields of the body.

    Args:
        kwargs: The arguments of a call.
        parameters: Names of the model's parameters.

    Returns:
        The fields; an argument that is `None` is none.

    Raises:
        UsageError: For a parameter of the model: a `policy` that went into the body would be gone.
    """
    fields: dict[str, Any] = {}
    for name, value in kwargs.items():
        if value is None or name in _NOT_FOR_THE_BODY:
            continue
        if name in parameters and name not in _OF_THE_BODY:
            raise _for_the_model(name)
        fields[name] = value
    return fields


def check_model_kwargs(given: Mapping[str, Any], model: type[BaseChatModel]) -> None:
    """Refuse arguments of the model among fields of the body.

    `metadata` and other names that LangChain has for every model may be fields of the body too.

    Args:
        given: The model's `model_kwargs`.
        model: Its class.

    Raises:
        UsageError: For an argument of the model: a `policy` that went into the body would be gone.
    """
    own = model.model_fields.keys() - BaseChatModel.model_fields.keys() - _OF_THE_BODY
    for name in given:
        if name in own:
            msg = (
                f"`model_kwargs` has `{name}`, an argument of `{model.__name__}` that would "
                f"do nothing in the body: write `{model.__name__}(…, {name}=…)`. A field of the "
                "body with this name goes into `extra_body`."
            )
            raise UsageError(msg)


def _for_the_model(name: str) -> UsageError:
    msg = (
        f"`{name}` belongs to the model, not to one call: use "
        f"`model.model_copy(update={{{name!r}: …}})`. A field of the body with this name goes into "
        "`extra_body`."
    )
    return UsageError(msg)


def session_id_of(kwargs: Mapping[str, Any]) -> str | None:
    """The session that a call names, by argument or by header; raises `UsageError` for none."""
    headers = kwargs.get("extra_headers") or {}
    by_header = [value for name, value in headers.items() if name.lower() == "x-session-id"]
    session_id = by_header[0] if by_header else kwargs.get("session_id")
    if session_id is not None and (not isinstance(session_id, str) or not session_id):
        msg = f'`session_id` is the id of a session, or "new"; got {session_id!r}.'
        raise UsageError(msg)
    return session_id


def headers_of(kwargs: Mapping[str, Any]) -> dict[str, str] | None:
    """A call's own headers, but for the session."""
    headers = kwargs.get("extra_headers")
    if not headers:
        return None
    return {name: value for name, value in headers.items() if name.lower() != "x-session-id"}


def with_session(config: RunnableConfig | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take the session to start with from `configurable`, where the call does not name one.

    The configuration reaches every model of a run, so a session in the history goes before it.
    """
    if "session_id" in kwargs:
        return kwargs
    for source in (config, var_child_runnable_config.get()):
        if source and (found := source.get("configurable", {}).get(_CONFIGURABLE_SESSION)):
            return {**kwargs, "configured_session_id": found}
    return kwargs
