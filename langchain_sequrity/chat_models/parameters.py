"""The parameters of the chat models, and what is made of them once: connection and transport.

Whether a model's policy does what it says: told when the model is made, and with its tools.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

from langchain_core.language_models import BaseChatModel
from pydantic import (
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    SecretStr,
    field_validator,
    model_validator,
)
from typing_extensions import override

from langchain_sequrity._version import __version__
from langchain_sequrity.chat_models.arguments import (
    ReasoningEffort,
    advice_on,
    check_model_kwargs,
    model_signature,
)
from langchain_sequrity.chat_models.turn import OnSessionExpired, Settings, WireFormat
from langchain_sequrity.connection import (
    ASKED_KEY,
    LOOPBACK_KEY,
    Connection,
    check_key,
    take_json_headers,
)
from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import ConfigHeader, FeaturesHeader, PolicyHeader, coerce
from langchain_sequrity.headers.policy_fit import (
    DUAL_LLM,
    tell,
    unfit_for_tools,
    without_force,
    without_labels,
    without_rules,
)
from langchain_sequrity.on_denied import OnDeniedTurn, check_on_denied
from langchain_sequrity.transport import AsyncHttpClient, HttpClient, HttpTimeout
from langchain_sequrity.wire.routes import (
    DEFAULT_BASE_URL,
    EndpointType,
    Format,
    Provider,
    check_proxy,
    is_loopback,
    normalize_base_url,
)

if TYPE_CHECKING:
    from langchain_sequrity.transport import Transport


def tell_of_policy(connection: Connection, *, is_strict: bool) -> None:
    """Warn of a policy that does not do what it says, as far as its text and the mode show it.

    Raises:
        UsageError: If it is strict.
    """
    policy = connection.policy
    texts = (without_rules(policy), without_force(policy), _of_mode(connection))
    tell("\n".join(filter(None, texts)), is_strict=is_strict)


def tell_of_tools(
    connection: Connection, tools: Sequence[Mapping[str, Any]], *, is_strict: bool
) -> None:
    """Warn of a policy that does not fit the tools, or needs labels that arguments may not have.

    Raises:
        UsageError: If it is strict.
    """
    texts = []
    if listed := unfit_for_tools(connection.policy, tools):
        texts.append(
            "The policy has rules that do not fit the tools that are bound, so here they do not "
            f"do what they say:\n{listed}\nCorrect them, or bind the tools that they are for."
        )
    texts.append(_of_mode(connection))
    tell("\n".join(filter(None, texts)), is_strict=is_strict)


def _of_mode(connection: Connection) -> str:
    if connection.dual_llm or not (listed := without_labels(connection.policy)):
        return ""
    if connection.dual_llm is False:
        why = "`features` choose single-LLM mode, in which arguments have no labels"
    elif is_loopback(urlsplit(connection.base_url).hostname or ""):
        why = "without `features` a local server is in single-LLM mode, where arguments have none"
    else:
        why = (
            "without `features` the key's own configuration decides whether there are any; in "
            "single-LLM mode there are none"
        )
    return (
        f"The policy asks for labels of arguments, and {why}:\n{listed}\nGive {DUAL_LLM}, or ask "
        "for values and `@session` labels."
    )


_PACKAGE = "langchain-sequrity"
_FROM_ENVIRONMENT = ("api_key", "llm_api_key", "base_url")
_KEYS = ("api_key", "llm_api_key")
# What a pickle must not hold, or cannot.
_UNPICKLED = (*_KEYS, "default_headers", "http_client", "http_async_client", "proxy")
P = TypeVar("P", bound="Parameters")
# What is made of the parameters at first use, before it is made.
_UNMADE = {"_state": None, "_sender": None}


class State(NamedTuple):
    """What is made of a model's parameters, once.

    Attributes:
        settings: What all turns have in common.
        params: Fields of the body that are the same for each call.
        identifying: What tells this model from others, for traces and caches.
        compared: The sets of tools with which the policy was compared.
    """

    settings: Settings
    params: Mapping[str, Any]
    identifying: Mapping[str, Any]
    compared: set[bytes]


def _env(name: str) -> Callable[[], SecretStr | None]:
    def read() -> SecretStr | None:
        value = os.environ.get(name)
        return SecretStr(value) if value else None

    return read


def _env_base_url() -> str:
    return os.environ.get("SEQURITY_BASE_URL") or DEFAULT_BASE_URL


AskedKey = Annotated[Callable[[], Any], PlainSerializer(lambda _: "**********", when_used="json")]
"""A function, sync or async, that gives a key before each call."""


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
    api_key: SecretStr | AskedKey | None = Field(default_factory=_env("SEQURITY_API_KEY"))
    """Sequrity key; from `SEQURITY_API_KEY` when not given. Not needed on a loopback address. Or a
    function, sync or async, that is asked for it before each call; with another key a conversation
    goes on in a new session."""
    llm_api_key: SecretStr | AskedKey | None = Field(default_factory=_env("SEQURITY_LLM_API_KEY"))
    """Key of the LLM provider (X-Api-Key), or a function that gives it; from `SEQURITY_LLM_API_KEY`
    when not given. Without one the service uses its own. No other vendor's key is picked up."""
    base_url: str = Field(default_factory=_env_base_url, validate_default=True)
    """Where the service is; from `SEQURITY_BASE_URL` when not given."""
    provider: Provider | None = None
    """Provider segment of the URL; `None` leaves it to the service."""
    endpoint_type: EndpointType = "chat"
    """`chat`, `code`, `agent`, or `lang-graph` (only together with `user_provided_program`)."""
    features: FeaturesHeader | None = None
    """X-Features. Also a dict, or an SDK object with `dump_for_headers`."""
    policy: PolicyHeader | None = None
    """X-Policy. Also SQRT text, a `Path` to it, a dict, or an SDK object."""
    session_config: ConfigHeader | None = None
    """X-Config. Also a dict or an SDK object."""
    on_denied: OnDeniedTurn = "raise"
    """What a policy's denial is: `PolicyDenied`, or a message that is a refusal."""
    strict_policy: bool = False
    """Whether a policy that does not do what it says is an error; else it is a `PolicyMismatch`."""
    on_session_expired: OnSessionExpired = "raise"
    """What an expired session is: `SessionExpired`, or a reason to start a new one (T1, T5)."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    """Limit on the reply's tokens."""
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    reasoning_effort: ReasoningEffort | None = None
    service_tier: str | None = None
    streaming: bool = False
    """Whether `invoke` streams under the hood."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the body."""
    extra_body: dict[str, Any] | None = None
    """Fields of the body that win over all others."""

    timeout: float | HttpTimeout | None = None
    """Total seconds of a call, retries included, or an `httpx.Timeout`; 600 when not given."""
    stream_chunk_timeout: float | None = Field(default=120.0, gt=0)
    """Longest silence between two events of a stream in seconds; pings do not count. Where it is
    not given, it is 120, or `timeout` if that is longer."""
    max_retries: int = Field(default=2, ge=0)
    """How often a call is sent again, where that is safe."""
    default_headers: Mapping[str, SecretStr] | None = Field(default=None, exclude=True, repr=False)
    """Headers of every call. They may hold secrets, so they are neither shown nor pickled."""
    default_query: Mapping[str, str] | None = None
    """Query of every address, for gateways on the way; never for secrets, which logs would show."""
    include_response_headers: bool = False
    """Whether `response_metadata["headers"]` shows the headers of the reply."""
    http_client: HttpClient | None = Field(default=None, exclude=True, repr=False)
    """Your own `httpx.Client`; it is never closed here."""
    http_async_client: AsyncHttpClient | None = Field(default=None, exclude=True, repr=False)
    """Your own `httpx.AsyncClient`; it is never closed here."""
    proxy: SecretStr | None = Field(default=None, exclude=True, repr=False)
    """Address of a proxy (`http://host:port`), in the place of those of the environment. It may
    hold a password, so it is neither shown nor pickled."""
    max_header_bytes: int = Field(default=8192, ge=256)
    """Longest header line that is sent; proxies cut longer ones."""
    allow_http: bool = False
    """Whether plain http may leave this machine."""
    cache: Any = False
    """Off: a cached answer bypasses the policy and can carry another user's session."""

    _state: State | None = PrivateAttr(default=None)
    _sender: "Transport | None" = PrivateAttr(default=None)
    # Names of fields that a pickle could not hold; using the model without them is an error.
    _lost: tuple[str, ...] = PrivateAttr(default=())

    # Construction

    _arguments: ClassVar[type[Any] | None] = None

    @classmethod
    @override
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._show_arguments()

    @classmethod
    @override
    def __pydantic_on_complete__(cls) -> None:
        # Building the class, at its first use, brings pydantic's own signature back.
        super().__pydantic_on_complete__()
        cls._show_arguments()

    @classmethod
    def _show_arguments(cls) -> None:
        """Let `inspect.signature` and editors see what a constructor takes."""
        if cls._arguments is not None and "model_name" in cls.model_fields:
            cls.__signature__ = model_signature(cls._arguments, cls)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A misspelt `policy` must not become a field of the body: the policy would be gone."""
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
        """X-Policy among the default headers is the policy: one place decides what is sent."""
        given = values.get("default_headers")
        if not isinstance(given, Mapping):
            return values
        plain = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in given.items()
        }
        found = take_json_headers(plain)
        if "config" in found:
            found["session_config"] = found.pop("config")
        twice = [name for name in found if values.get(name) is not None]
        if twice:
            msg = f"`{twice[0]}` is given twice: by itself and in `default_headers`. Give one."
            raise UsageError(msg)
        return {**values, **found, "default_headers": plain} if found else values

    @field_validator("default_query", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        texts = {name: str(one) for name, one in value.items() if isinstance(one, int | float)}
        flags = {name: texts[name].lower() for name in texts if isinstance(value[name], bool)}
        return {**value, **texts, **flags}

    @field_validator(*_KEYS, mode="before")
    @classmethod
    def _text_or_function(cls, value: Any) -> Any:
        # What a union says by itself names the insides of pydantic.
        if value is None or isinstance(value, str | SecretStr) or callable(value):
            return value
        msg = "expected the key as text or `SecretStr`, or a function that gives it"
        raise ValueError(msg)

    @field_validator("on_denied", mode="before")
    @classmethod
    def _known_to_models(cls, value: Any) -> Any:
        try:
            check_on_denied(value, "chat models")
        except UsageError as error:
            raise ValueError(error) from None  # as for every other field
        return value

    @field_validator("timeout", mode="before")
    @classmethod
    def _some_time(cls, value: Any) -> Any:
        if value is None or isinstance(value, HttpTimeout):
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            msg = "expected a number of seconds, or an `httpx.Timeout`"
            raise ValueError(msg)  # noqa: TRY004 - pydantic lets a `TypeError` pass
        if not 0 < value < math.inf:
            msg = "expected more than 0 seconds, and not endlessly many; leave it out for 600"
            raise ValueError(msg)
        return value

    @field_validator("proxy")
    @classmethod
    def _an_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_proxy(value.get_secret_value())
        return value

    @field_validator("features", mode="before")
    @classmethod
    def _coerce_features(cls, value: Any) -> Any:
        return None if value is None else coerce(FeaturesHeader, value)

    @field_validator("policy", mode="before")
    @classmethod
    def _coerce_policy(cls, value: Any) -> Any:
        return None if value is None else coerce(PolicyHeader, value)

    @field_validator("session_config", mode="before")
    @classmethod
    def _coerce_config(cls, value: Any) -> Any:
        return None if value is None else coerce(ConfigHeader, value)

    @field_validator("base_url")
    @classmethod
    def _normalize(cls, value: str) -> str:
        return normalize_base_url(value or DEFAULT_BASE_URL)

    @field_validator("model_kwargs")
    @classmethod
    def _fields_of_the_body(cls, value: dict[str, Any]) -> dict[str, Any]:
        check_model_kwargs(value, cls)
        return value

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _set_sequrity_version(self) -> Self:
        self._add_version(_PACKAGE, __version__)
        return self

    @model_validator(mode="after")
    def _check_connection(self) -> Self:
        """Fail now, not at the first call, if the fields do not make a connection."""
        tell_of_policy(self._ready().settings.connection, is_strict=self.strict_policy)
        return self

    # For the rest of the package

    @property
    def prepared(self) -> State:
        """Connection, format and fields of the body, as every turn of the model uses them.

        Raises:
            UsageError: If a function gives the keys: what uses this keeps the connection.
        """
        for name in _KEYS:
            if self._is_asked(name):
                msg = (
                    f"`{name}` is a function, which only calls of the model itself ask. Give the "
                    "key as text for a graph or for `PolicyGenTool`."
                )
                raise UsageError(msg)
        return self._ready()

    def sender(self) -> "Transport":
        """What sends the model's calls; its connections are the model's."""
        return self._transport()

    # State that is made of the fields

    def _format(self) -> tuple[Format, WireFormat]:
        """The wire format: the last part of the path, and what reads and writes it."""
        raise NotImplementedError

    def _ready(self) -> State:
        # Not through attribute access: pydantic looks private attributes up the slow way, and
        # this is asked several times a call.
        private = self.__pydantic_private__ or {}
        state: State | None = private.get("_state")
        if state is None:
            state = self._state = self._prepare()
        return state

    def _prepare(self) -> State:
        if self._lost:
            names = ", ".join(f"`{name}`" for name in self._lost)
            msg = (
                f"The model was unpickled without {names}, which a pickle does not hold. Give "
                "them again with `model.model_copy(update={...})`."
            )
            raise UsageError(msg)
        suffix, wire = self._format()
        settings = Settings(
            connection=self._connection(suffix),
            wire=wire,
            on_denied=self.on_denied,
            on_session_expired=self.on_session_expired,
            include_response_headers=self.include_response_headers,
            only_new_messages=self._sends_only_new(),
        )
        return State(settings, self._default_params(), self._identify(), set())

    def _transport(self) -> "Transport":
        private = self.__pydantic_private__ or {}
        sender: Transport | None = private.get("_sender")
        if sender is None:
            sender = self._sender = self._make_transport()
        return sender

    def _make_transport(self) -> "Transport":
        # Imported at the first call, which keeps the import of the package short.
        from langchain_sequrity.transport import (  # noqa: PLC0415
            RetryPolicy,
            Timeouts,
            Transport,
        )

        is_given = "stream_chunk_timeout" in self.model_fields_set
        silence: float | Literal["default"] | None = "default"
        if is_given:
            silence = self.stream_chunk_timeout
        return Transport(
            self.base_url,
            timeouts=Timeouts.of(self.timeout, silence),
            retry=RetryPolicy(max_retries=self.max_retries),
            secrets=self._ready().settings.connection.secrets,
            http_client=self.http_client,
            http_async_client=self.http_async_client,
            proxy=None if self.proxy is None else self.proxy.get_secret_value(),
        )

    def _sends_only_new(self) -> bool:
        """Whether a conversation goes on by the id of its last reply."""
        return False

    def _connection(self, suffix: Format) -> Connection:
        own = {
            name: value.get_secret_value() for name, value in (self.default_headers or {}).items()
        }
        there = {name.lower() for name in own}
        named = self._named_headers().items()
        own |= {name: value for name, value in named if name.lower() not in there}
        connection = Connection(
            base_url=self.base_url,
            api_key=self._key(),
            llm_api_key=None if self.llm_api_key is None else _text_of(self.llm_api_key),
            endpoint_type=self.endpoint_type,
            provider=self.provider,
            suffix=suffix,
            features=self.features,
            policy=self.policy,
            config=self.session_config,
            default_headers=own,
            default_query=self.default_query or {},
            max_header_bytes=self.max_header_bytes,
            allow_http=self.allow_http,
        )
        return connection.with_whole_envelopes()

    def _key(self) -> str:
        key = self.api_key
        if key is None:  # unpickled, perhaps, before the variable was set
            key = _env("SEQURITY_API_KEY")()
        if key is not None:
            return _text_of(key)
        if is_loopback(urlsplit(self.base_url).hostname or ""):
            return LOOPBACK_KEY
        msg = (
            "There is no Sequrity key. Set the environment variable `SEQURITY_API_KEY`, or pass "
            f"`api_key=`. (`{self.base_url}` is not a loopback address, where none is needed.)"
        )
        raise UsageError(msg)

    def _named_headers(self) -> dict[str, str]:
        """Headers that have a parameter of their own."""
        return {}

    def _is_asked(self, name: str) -> bool:
        value = getattr(self, name)
        return value is not None and not isinstance(value, SecretStr)

    def _asked_keys(self) -> dict[str, str]:
        """Keys that functions give, asked now; they are kept nowhere."""
        keys = {}
        for name in _KEYS:
            if self._is_asked(name):
                given = getattr(self, name)()
                if isawaitable(given):
                    if iscoroutine(given):
                        given.close()
                    msg = (
                        f"`{name}` is an async function, which only `ainvoke`, `astream` and "
                        "`abatch` can ask. Call one of these, or give a plain function."
                    )
                    raise UsageError(msg)
                keys[name] = _given_key(name, given)
        return keys

    async def _aasked_keys(self) -> dict[str, str]:
        """As `_asked_keys`."""
        keys = {}
        for name in _KEYS:
            if self._is_asked(name):
                given = getattr(self, name)()
                keys[name] = _given_key(name, await given if isawaitable(given) else given)
        return keys

    def _default_params(self) -> dict[str, Any]:
        """The fields of the body that are the same for each call."""
        params = {
            "model": self.model_name,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "stop": self.stop,
            "reasoning_effort": self.reasoning_effort,
            "service_tier": self.service_tier,
            **self.model_kwargs,
        }
        return {name: value for name, value in params.items() if value is not None}

    def _identify(self) -> dict[str, Any]:
        named = {"features": self.features, "policy": self.policy, "config": self.session_config}
        return {
            **self._default_params(),
            "base_url": self.base_url,
            "provider": self.provider,
            "endpoint_type": self.endpoint_type,
            **{name: value.to_header() for name, value in named.items() if value is not None},
        }

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        made = self.__pydantic_private__ is not None
        if made and name in type(self).model_fields and name not in BaseChatModel.model_fields:
            value = getattr(_changed(self, {name: value}), name)  # checked like a new model's
        super().__setattr__(name, value)
        if made and name in type(self).model_fields:
            _forget(self, given=(name,))

    # Copies and pickles

    @override
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the model; changes are checked like a new model, so a wrong policy cannot pass."""
        copied = super().model_copy(deep=deep)
        _forget(copied)
        if not update:
            return copied
        names = {field.alias: name for name, field in type(self).model_fields.items()}
        changes = {names.get(name) or name: value for name, value in update.items()}
        changed = _changed(copied, changes)
        _forget(changed, lost=self._lost, given=tuple(changes))
        return changed

    @override
    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        shared = {} if memo is None else memo
        # Clients and connections are shared: locks and sockets have no copy.
        for one in (self.http_client, self.http_async_client, self._state, self._sender):
            if one is not None:
                shared[id(one)] = one
        copied = super().__deepcopy__(shared)
        _forget(copied)
        return copied

    @override
    def __getstate__(self) -> dict[Any, Any]:
        """Leave out keys, clients and headers: a pickle may end anywhere."""
        state = super().__getstate__()
        fields = {**state["__dict__"], **dict.fromkeys(_UNPICKLED)}
        fields.pop("_serialized", None)
        # A missing Sequrity key has a message of its own.
        lost = tuple(name for name in _UNPICKLED[1:] if self.__dict__.get(name) is not None)
        private = {**(state["__pydantic_private__"] or {}), "_lost": lost, **_UNMADE}
        return {**state, "__dict__": fields, "__pydantic_private__": private}

    @override
    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.__dict__["api_key"] = _env("SEQURITY_API_KEY")()
        if "llm_api_key" in self._lost and (key := _env("SEQURITY_LLM_API_KEY")()):
            self.__dict__["llm_api_key"] = key
            _forget(self, given=("llm_api_key",))


def _text_of(key: SecretStr | AskedKey) -> str:
    return key.get_secret_value() if isinstance(key, SecretStr) else ASKED_KEY


def _given_key(name: str, given: object) -> str:
    text = given.get_secret_value() if isinstance(given, SecretStr) else given
    if not isinstance(text, str):
        kind = type(given).__name__
        msg = f"The function that is `{name}` gave a value of type `{kind}`; expected the key."
        raise UsageError(msg)
    check_key(name, text)
    return text


def _changed(model: P, changes: Mapping[str, Any]) -> P:
    """A model with other parameters, checked like any new one."""
    names = {*model.model_fields_set, *_FROM_ENVIRONMENT} - set(changes)
    return type(model)(**{name: getattr(model, name) for name in names}, **changes)


def _forget(
    model: Parameters, *, lost: tuple[str, ...] | None = None, given: tuple[str, ...] = ()
) -> None:
    """Drop what was made of parameters that have changed.

    Args:
        model: The model.
        lost: Names of what a pickle could not hold, where they come from another model.
        given: Names of what has been given again.
    """
    private = model.__pydantic_private__
    if private is not None:
        missing = private["_lost"] if lost is None else lost
        private.update(_UNMADE, _lost=tuple(name for name in missing if name not in given))
    model.__dict__.pop("_serialized", None)
