"""The parameters of the chat models: fields, their checks, copies and pickles."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self, TypeVar

from langchain_core.language_models import BaseChatModel
from pydantic import (
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import override

from langchain_sequrity._version import __version__
from langchain_sequrity.chat_models.arguments import ReasoningEffort, advice_on, model_signature
from langchain_sequrity.chat_models.run_config import HEADERS, refuse_setting_names
from langchain_sequrity.chat_models.turn import OnSessionExpired, TurnSettings
from langchain_sequrity.connection import KEY_VARIABLES, Connection, one_of_each, take_json_headers
from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import ConfigHeader, FeaturesHeader, PolicyHeader, coerce
from langchain_sequrity.on_denied import OnDenied, check_on_denied
from langchain_sequrity.session_memory import OnSessionLost
from langchain_sequrity.transport import AsyncHttpClient, HttpClient, HttpTimeout
from langchain_sequrity.wire.routes import (
    DEFAULT_BASE_URL,
    EndpointType,
    Provider,
    check_proxy,
    normalize_base_url,
)

if TYPE_CHECKING:
    from langchain_sequrity.sqrt.lint.ways import Capabilities

KEYS = ("api_key", "llm_api_key")
_FROM_ENVIRONMENT = (*KEYS, "base_url")
# Fields that a pickle must not hold, or cannot.
_UNPICKLED = (*KEYS, "default_headers", "http_client", "http_async_client", "proxy")
# Attributes that are made of the fields at the first use.
_DERIVED = ("_ready", "_sender", "_serialized")


def env_key(name: str) -> SecretStr | None:
    """The key `name` from its environment variable, or `None`."""
    value = os.environ.get(KEY_VARIABLES[name])
    return SecretStr(value) if value else None


def capabilities_of(connection: Connection) -> "Capabilities":
    """What a policy can do in the sessions of a connection."""
    from langchain_sequrity.sqrt.lint.ways import UNSET_MODE, WAYS  # noqa: PLC0415 - for policies only

    if connection.dual_llm is None:
        return UNSET_MODE
    return WAYS["dual-llm" if connection.dual_llm else "single-llm"]


def _env_base_url() -> str:
    return os.environ.get("SEQURITY_BASE_URL") or DEFAULT_BASE_URL


KeySource = Annotated[Callable[[], Any], PlainSerializer(lambda _: "**********", when_used="json")]
"""A function, sync or async, that gives the key before each call."""


T = TypeVar("T")
_BODY = "body"
Body = Annotated[T, _BODY]
"""The type of a parameter that is a field of the body."""


class PreparedParameters(NamedTuple):
    """Values that are computed once from a model's parameters, for all calls.

    Attributes:
        settings: Settings of all turns.
        params: Fields of the body that are the same for each call.
        identifying: Identifies the model in traces and caches.
        compared: The sets of tools with which the policy was compared.
    """

    settings: TurnSettings
    params: Mapping[str, Any]
    identifying: Mapping[str, Any]
    compared: set[bytes]


class Parameters(BaseChatModel):
    """Parameters of `ChatSequrity` and `SequrityMessages`; see these for their use."""

    model_config = ConfigDict(
        populate_by_name=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        defer_build=True,  # the bases are never built, which saves a third of the import time
    )

    model_name: str = Field(alias="model", min_length=1)
    """One model for all roles, or `"planner,worker"`."""
    api_key: SecretStr | KeySource | None = Field(default_factory=partial(env_key, "api_key"))
    """Sequrity key; from `SEQURITY_API_KEY` when not given. Not needed on a loopback address. Or a
    function, sync or async, that gives the key before each call; with another key a conversation
    continues in a new session."""
    llm_api_key: SecretStr | KeySource | None = Field(
        default_factory=partial(env_key, "llm_api_key")
    )
    """Key of the LLM provider (X-Api-Key), or a function that gives it; from `SEQURITY_LLM_API_KEY`
    when not given. Without one the service uses its own. Other vendors' variables are not read."""
    base_url: str = Field(default_factory=_env_base_url, validate_default=True)
    """Address of the service; from `SEQURITY_BASE_URL` when not given."""
    provider: Provider | None = None
    """Provider segment of the URL; with `None` the service chooses."""
    endpoint_type: EndpointType = "chat"
    """`chat`, `code`, `agent`, or `lang-graph` (only together with `user_provided_program`)."""
    features: FeaturesHeader | None = None
    """X-Features. Also a dict, or an SDK object with `dump_for_headers`."""
    policy: PolicyHeader | None = None
    """X-Policy. Also SQRT text, a `Path` to it, a dict, or an SDK object."""
    labels: Sequence[str] = ()
    """Tags and producers that tools set on their results; rules for others get a warning."""
    session_config: ConfigHeader | None = None
    """X-Config. Also a dict or an SDK object."""
    on_denied: OnDenied = "raise"
    """How a denial comes back: as `PolicyDenied`, as a message with its sentence, or, if
    it is soft, as a question to a person."""
    strict_policy: bool = False
    """Whether a policy that does less than it says is an error, not a `PolicyMismatch` warning."""
    on_session_expired: OnSessionExpired = "raise"
    """Whether an expired session raises `SessionExpired` or is replaced by a new one (T1, T5)."""
    on_session_lost: OnSessionLost = "raise"
    """Under a policy with rules on the session: whether a session that cannot be continued raises
    `SessionLost` or is replaced by a new one, which remembers nothing (P13)."""

    temperature: Body[float | None] = Field(default=None, ge=0, le=2)
    top_p: Body[float | None] = Field(default=None, ge=0, le=1)
    max_tokens: Body[int | None] = Field(default=None, ge=1)
    """Limit on the reply's tokens."""
    stop: Body[list[str] | None] = Field(default=None, alias="stop_sequences")
    reasoning_effort: Body[ReasoningEffort | None] = None
    service_tier: Body[str | None] = None
    streaming: bool = False
    """Whether `invoke` uses a stream."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the body."""
    extra_body: dict[str, Any] | None = None
    """Fields of the body that override all others."""

    timeout: float | HttpTimeout | None = None
    """Total seconds of a call, retries included, or an `httpx.Timeout`; 600 when not given."""
    stream_chunk_timeout: float | None = Field(default=120.0, gt=0)
    """Longest silence between two events of a stream in seconds; pings do not count. When not
    given, it is 120, or `timeout` if that is longer."""
    max_retries: int = Field(default=2, ge=0)
    """How often a call is sent again, if that is safe."""
    default_headers: Mapping[str, SecretStr] | None = Field(default=None, exclude=True, repr=False)
    """Headers of every call. They may hold secrets, so they are neither shown nor pickled."""
    default_query: Mapping[str, str] | None = None
    """Query of every URL, for gateways; not for secrets, which logs would show."""
    include_response_headers: bool = False
    """Whether `response_metadata["headers"]` shows the headers of the reply."""
    http_client: HttpClient | None = Field(default=None, exclude=True, repr=False)
    """Your own `httpx.Client`; it is never closed here."""
    http_async_client: AsyncHttpClient | None = Field(default=None, exclude=True, repr=False)
    """Your own `httpx.AsyncClient`; it is never closed here."""
    proxy: SecretStr | None = Field(default=None, exclude=True, repr=False)
    """Address of a proxy (`http://host:port`), used instead of the proxies of the environment. It
    may hold a password, so it is neither shown nor pickled."""
    max_header_bytes: int | None = Field(default=None, ge=256)
    """Longest header line that is sent, in bytes; proxies cut longer ones. By default 8 KiB, and
    64 KiB on a loopback address."""
    allow_http: bool = False
    """Whether plain http to other machines is allowed."""
    cache: Any = False
    """Off: a cached answer bypasses the policy and can carry another user's session."""

    # Names of fields that the pickle did not hold; using the model without them is an error.
    _lost: tuple[str, ...] = PrivateAttr(default=())

    # Construction

    _arguments: ClassVar[type[Any] | None] = None
    _body_parameters: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @override
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._take_fields()

    @classmethod
    @override
    def __pydantic_on_complete__(cls) -> None:
        # pydantic builds the class at its first use, and sets its own signature again.
        super().__pydantic_on_complete__()
        cls._take_fields()

    @classmethod
    def _take_fields(cls) -> None:
        """Set what follows from the fields: the signature that editors show, and `Body` fields."""
        if cls._arguments is None or "model_name" not in cls.model_fields:
            return
        cls.__signature__ = model_signature(cls._arguments, cls)
        fields = cls.model_fields.items()
        cls._body_parameters = tuple(name for name, field in fields if _BODY in field.metadata)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Refuse unknown arguments: a misspelt `policy` in the body would have no effect."""
        aliases = {field.alias: name for name, field in cls.model_fields.items() if field.alias}
        names = {*cls.model_fields, *aliases}
        for name in values:
            if name not in names:
                msg = f"`{cls.__name__}` has no argument `{name}`. {advice_on(name, names)}"
                raise UsageError(msg)
        for alias, name in aliases.items():
            if alias in values and name in values:
                msg = f"`{alias}` and `{name}` are the same argument. Give one of them."
                raise UsageError(msg)
        if not (values.get("model") or values.get("model_name")):
            msg = f'`{cls.__name__}` needs the name of a model first: `{cls.__name__}("openai/…")`.'
            raise UsageError(msg)
        return values

    @model_validator(mode="before")
    @classmethod
    def _take_json_headers(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Read X-Features, X-Policy and X-Config of `default_headers` into their own fields."""
        headers = values.get("default_headers")
        if not isinstance(headers, Mapping):
            return values
        plain = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in one_of_each(headers).items()
        }
        json_headers = take_json_headers(plain)
        if "config" in json_headers:
            json_headers["session_config"] = json_headers.pop("config")
        repeated = [name for name in json_headers if values.get(name) is not None]
        if repeated:
            msg = f"`{repeated[0]}` is given twice: by itself and in `default_headers`. Give one."
            raise UsageError(msg)
        return {**values, **json_headers, "default_headers": plain} if json_headers else values

    @field_validator("default_query", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        texts = {name: str(n) for name, n in value.items() if isinstance(n, int | float)}
        flags = {name: texts[name].lower() for name in texts if isinstance(value[name], bool)}
        return {**value, **texts, **flags}

    @field_validator(*KEYS, mode="before")
    @classmethod
    def _check_key(cls, value: Any) -> Any:
        # pydantic's own message for a union names internals.
        if value is None or isinstance(value, str | SecretStr) or callable(value):
            return value
        name = type(value).__name__
        msg = f"expected the key as text or `SecretStr`, or a function that gives it; got `{name}`"
        raise ValueError(msg)

    @field_validator("on_denied", mode="before")
    @classmethod
    def _check_on_denied(cls, value: Any) -> Any:
        try:
            check_on_denied(value, "chat models")
        except UsageError as error:
            raise ValueError(error) from None  # so that pydantic names the field
        return value

    @field_validator("timeout", mode="before")
    @classmethod
    def _check_timeout(cls, value: Any) -> Any:
        if value is None or isinstance(value, HttpTimeout):
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            type_name = type(value).__name__
            msg = f"expected a number of seconds, or an `httpx.Timeout`; got `{type_name}`"
            raise ValueError(msg)  # noqa: TRY004 - pydantic lets a `TypeError` pass
        if not 0 < value < math.inf:
            msg = "expected a finite number of seconds above 0; the default is 600"
            raise ValueError(msg)
        return value

    @field_validator("proxy")
    @classmethod
    def _check_proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_proxy(value.get_secret_value())
        return value

    @field_validator(*HEADERS, mode="before")
    @classmethod
    def _coerce_header(cls, value: Any, info: ValidationInfo) -> Any:
        return None if value is None else coerce(HEADERS[info.field_name or ""], value)

    @field_validator("base_url")
    @classmethod
    def _normalize(cls, value: str) -> str:
        return normalize_base_url(value or DEFAULT_BASE_URL)

    @field_validator("model_kwargs")
    @classmethod
    def _check_model_kwargs(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Refuse arguments of the model: a `policy` in the body would have no effect.

        Names that LangChain has for every model, such as `metadata`, may be fields of the body.
        """
        parameters = cls.model_fields.keys() - BaseChatModel.model_fields.keys()
        for name in value:
            if name in parameters and name not in cls._body_parameters:
                msg = (
                    f"`model_kwargs` has `{name}`, an argument of `{cls.__name__}` that has no "
                    f"effect in the body: write `{cls.__name__}(…, {name}=…)`. A field of the body "
                    "with this name goes into `extra_body`."
                )
                raise UsageError(msg)
        refuse_setting_names(value.keys() - cls._body_parameters)
        return value

    @field_validator("extra_body")
    @classmethod
    def _check_extra_body(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        refuse_setting_names(value or ())
        return value

    @field_validator("stop", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _set_sequrity_version(self) -> Self:
        self._add_version("langchain-sequrity", __version__)
        return self

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        is_change = self.__pydantic_private__ is not None and name in type(self).model_fields
        if is_change and name not in BaseChatModel.model_fields:
            value = getattr(self._changed({name: value}), name)  # checked like a new model's
        super().__setattr__(name, value)
        if is_change:
            _drop_derived(self, renewed=(name,))

    # Copies and pickles

    @override
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the model; changes are checked like the arguments of a new model."""
        copied = super().model_copy(deep=deep)
        _drop_derived(copied)
        if not update:
            return copied
        names = {field.alias: name for name, field in type(self).model_fields.items()}
        changes = {names.get(name) or name: value for name, value in update.items()}
        changed = copied._changed(changes)  # noqa: SLF001 - of this class
        _drop_derived(changed, lost=self._lost, renewed=tuple(changes))
        return changed

    def _changed(self, changes: Mapping[str, Any]) -> Self:
        """The model with other parameters, checked like a new model."""
        names = {*self.model_fields_set, *_FROM_ENVIRONMENT} - set(changes)
        return type(self)(**{name: getattr(self, name) for name in names}, **changes)

    @override
    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        # Clients and connections are shared: locks and sockets cannot be copied.
        for name in ("http_client", "http_async_client", *_DERIVED):
            if (shared := self.__dict__.get(name)) is not None:
                memo[id(shared)] = shared
        copied = super().__deepcopy__(memo)
        _drop_derived(copied)
        return copied

    @override
    def __getstate__(self) -> dict[Any, Any]:
        """Leave out keys, clients and headers: a pickle may be stored anywhere."""
        state = super().__getstate__()
        fields = {**state["__dict__"], **dict.fromkeys(_UNPICKLED)}
        for name in _DERIVED:
            fields.pop(name, None)
        # A missing Sequrity key has a message of its own.
        lost = tuple(name for name in _UNPICKLED[1:] if self.__dict__.get(name) is not None)
        private = {**(state["__pydantic_private__"] or {}), "_lost": lost}
        return {**state, "__dict__": fields, "__pydantic_private__": private}

    @override
    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.__dict__["api_key"] = env_key("api_key")
        if "llm_api_key" in self._lost and (key := env_key("llm_api_key")):
            self.__dict__["llm_api_key"] = key
            _drop_derived(self, renewed=("llm_api_key",))


def _drop_derived(
    model: Parameters, *, lost: tuple[str, ...] | None = None, renewed: tuple[str, ...] = ()
) -> None:
    """Drop what was made of parameters that have changed.

    Args:
        model: The model.
        lost: Names of fields that a pickle did not hold, if they come from another model.
        renewed: Names of fields that have been given again.
    """
    private = model.__pydantic_private__
    if private is not None:
        missing = private["_lost"] if lost is None else lost
        private["_lost"] = tuple(name for name in missing if name not in renewed)
    for name in _DERIVED:
        model.__dict__.pop(name, None)
