"""The configuration file of a gateway: TOML, with environment variables over it.

Secrets are never in the file: it names environment variables and files that hold them, and has
digests of the clients' keys.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args

from langchain_core.language_models import BaseChatModel
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.gateway.models import chat_model
from langchain_sequrity.gateway.secrets import read_secret, read_text
from langchain_sequrity.gateway.store import NEEDS_STORE, check_url, redis_sessions
from langchain_sequrity.headers import PolicyHeader, coerce
from langchain_sequrity.local import ApiKey, AuditLog, ServerLimits
from langchain_sequrity.local.audit import Arguments as AuditedArguments
from langchain_sequrity.local.model_table import ModelTable, TableRole
from langchain_sequrity.local.operations import MetricsAccess
from langchain_sequrity.sqrt import named
from langchain_sequrity.suggestions import did_you_mean, nearest_name
from langchain_sequrity.validation import error_sentence, join_path, unknown_names

if TYPE_CHECKING:
    from langchain_sequrity.local.redis_sessions import RedisSessions

LogFormat = Literal["text", "json"]
ENV_PREFIX = "SEQURITY_GATEWAY_"
_DELIMITER = "__"


class Section(BaseModel):
    """A table of the file. An unknown name is an error that suggests the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    _where: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _known_names_only(cls, data: Any) -> Any:
        _check_names(data, cls, cls._where)
        return data


def _check_names(data: Any, cls: type[BaseModel], where: str) -> None:
    if isinstance(data, Mapping):
        unknown = [name for name in data if name not in cls.model_fields]
        if unknown:
            fields = {name: name for name in cls.model_fields}
            raise unknown_names(unknown, where, fields, fields)


class ServerSettings(Section):
    """`[server]`: where it listens, and what it is made with."""

    _where: ClassVar[str] = "`[server]`"

    host: str = "127.0.0.1"
    """Address to listen on. Beyond this machine, at least one key is required."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8787
    """Port to listen on; 0 chooses a free port."""
    fidelity: Literal["full", "documented"] = "full"
    """`full` honours every field of the formats, `documented` those that the service documents."""
    isolated_programs: bool | None = None
    """Whether dual-LLM programs run in worker processes. By default they do if the machine can
    start them."""
    planner_prompt: Path | None = None
    """File with a template of the planner's prompt."""
    script: Path | None = None
    """File with scripted answers, used before the models."""
    allowed_hosts: list[str] = []
    """Names that a request's `Host` may have besides those of loopback."""
    trusted_proxies: list[str] = []
    """Addresses and networks of proxies whose `Forwarded` and `X-Forwarded-…` are believed."""
    metrics: MetricsAccess = "loopback"
    """Who may read `/metrics`: this machine and whoever has a key (`loopback`), only whoever has a
    key (`key`), or nobody (`off`)."""
    console: bool = False
    """Whether it has a console, at `/console`, for keys with `console = true`."""
    grace_seconds: Annotated[float, Field(ge=0)] = 30
    """Seconds that turns under way have when the server is stopped."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that accept requests. Several need a store."""


class StoreSettings(Section):
    """`[store]`: a Redis that holds the sessions of all workers."""

    _where: ClassVar[str] = "`[store]`"

    url: str | None = None
    """`redis://host:6379/0`, `rediss://…` (TLS), or one of them with `+cluster`, such as
    `redis+cluster://…`. Without it, sessions are in the memory of the process."""
    password_env: str | None = None
    """Environment variable with the password of Redis."""
    password_file: Path | None = None
    """File with the password of Redis."""
    secret_env: str | None = None
    """Environment variable with the key of the digests of bearers, which all workers share."""
    secret_file: Path | None = None
    """File with that key. One of both is required."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 2
    """Seconds that Redis may take for an answer."""
    max_connections: Annotated[int, Field(ge=1)] = 64
    """Connections of each worker to Redis."""
    lease_seconds: Annotated[float, Field(ge=1)] = 10
    """Seconds that a worker keeps a session which does not answer any more."""
    accept_loss: bool = False
    """Whether to use a Redis that may lose acknowledged sessions."""

    @field_validator("url")
    @classmethod
    def _has_no_secret(cls, url: str | None) -> str | None:
        if url is not None:
            check_url(url, "`store.url`")
        return url


class LogSettings(Section):
    """`[log]`: what `serve` prints."""

    _where: ClassVar[str] = "`[log]`"

    format: LogFormat = "text"
    """A line for each request: as `text`, or as `json`."""


class AuditSettings(Section):
    """`[audit]`: where a line is written for each checked call. See `AuditLog`."""

    _where: ClassVar[str] = "`[audit]`"

    file: Path | None = None
    """The file; without it there is no audit log."""
    arguments: AuditedArguments = "cut"
    """`cut` writes values, with long texts cut; `hash` digests; `none` only names."""
    most: Annotated[int, Field(gt=0)] = 1000
    """Characters of a text that `cut` keeps."""
    fsync: bool = False
    """Whether a call waits until its line is on the disk."""
    required: bool = True
    """Whether a call is refused whose line cannot be written."""


class KeyedModel(Section):
    """A model with the place of its provider's key."""

    _where: ClassVar[str] = "a model"

    model: str
    """`provider:model`, such as `openai:gpt-5-mini`; or `model@address`."""
    key_env: str | None = None
    """Environment variable with the provider's key."""
    key_file: Path | None = None
    """File with the provider's key."""


class ModelSettings(Section):
    """`[models.NAME]`: what answers to clients that send this name.

    Each role is a text, or a table with `model` and `key_env` or `key_file` of its own.
    """

    _where: ClassVar[str] = "a table of `[models]`"

    model: str | KeyedModel | None = None
    """Model of chats, and of the roles below that are not set."""
    planner: str | KeyedModel | None = None
    """Model that writes programs."""
    reader: str | KeyedModel | None = None
    """Model that reads data."""
    policy_writer: str | KeyedModel | None = None
    """Model that writes policies."""
    key_env: str | None = None
    """Environment variable with the provider's key. Without it and `key_file`, the provider's usual
    variable is read, such as `OPENAI_API_KEY`."""
    key_file: Path | None = None
    """File with the provider's key."""


class KeySection(Section):
    """`[[keys]]`: a key of a client. `langchain-sequrity key new` prints one with its digest."""

    _where: ClassVar[str] = "a table of `[[keys]]`"

    name: str
    """Name for the log and for errors."""
    digest: str
    """`sha256:` and the SHA-256 of the key."""
    models: list[str] | None = None
    """Names of models that it may use; by default all."""
    requests_per_minute: int | None = None
    """Requests in any minute."""
    tokens_per_minute: int | None = None
    """Tokens of prompts and answers in any minute."""
    turns_at_once: int | None = None
    """Turns that run at once."""
    memory_share: int | None = None
    """Percent of the server's memory for requests in progress, for sessions and for kept replies
    that it may use."""
    console: bool = False
    """Whether it opens the console, which shows the sessions of all keys."""
    policy: str | dict[str, Any] | None = None
    """Its policy: SQRT text, or a table with the fields of `X-Policy`."""
    policy_file: Path | None = None
    """File with its policy in SQRT; it can also have a table `policy` without `codes`."""
    features: dict[str, Any] | None = None
    """The fields of `X-Features`. With a policy, `agent_arch` is required."""
    config: dict[str, Any] | None = None
    """The fields of `X-Config`."""


class GatewaySettings(BaseSettings):
    """The whole file. Relative paths in it start at its folder."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter=_DELIMITER, extra="forbid", frozen=True
    )

    server: ServerSettings = ServerSettings()
    """Where it listens, and what it is made with."""
    log: LogSettings = LogSettings()
    """What `serve` prints."""
    store: StoreSettings = StoreSettings()
    """Where sessions are that several workers share."""
    audit: AuditSettings = AuditSettings()
    """Where a line is written for each checked call."""
    limits: dict[str, Any] = {}
    """The names of `ServerLimits`, and a table `program` with those of programs."""
    models: dict[str, ModelSettings] = {}
    """What answers, by the name that clients send. Without any, a deterministic model answers."""
    keys: list[KeySection] = []
    """The keys of clients. Without any, every key is accepted, but only from this machine."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment variables come before the file, whose values are given as arguments."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @model_validator(mode="before")
    @classmethod
    def _known_names_only(cls, data: Any) -> Any:
        _check_names(data, cls, "the file")
        return data

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a file and the environment.

        Raises:
            UsageError: If something is wrong; it names the file and the place in it.
        """
        try:
            return cls.from_data(tomllib.loads(file.read_text("utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            problem = f"It is not TOML: {error}."
        except OSError as error:
            problem = f"It cannot be read: {error.strerror}."
        except UsageError as error:
            problem = str(error)
        msg = f"{file}: {plain(problem)}"
        raise UsageError(msg) from None

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Take values as of a file, and the environment.

        Raises:
            UsageError: If something is wrong; it names the place.
        """
        try:
            _check_environment(cls)
            return cls(**data)
        except ValidationError as error:
            problem = " ".join(_sentences(error))
        except SettingsError as error:
            problem = f"An environment variable is not valid JSON: {error}."
        raise UsageError(problem) from None

    def server_limits(self) -> ServerLimits:
        """The limits.

        Raises:
            UsageError: For an unknown name or an invalid value.
        """
        return ServerLimits.from_mapping(_numbers(self.limits))

    def session_store(self, folder: Path) -> "RedisSessions | None":
        """The store of sessions that workers share, if there is one.

        Args:
            folder: Where relative paths start.

        Raises:
            UsageError: If it cannot be made, or something needs one process.
        """
        if self.store.url is not None:
            self._refuse_what_one_process_counts()
            return redis_sessions(self.store, folder, self.server_limits())
        if self.server.workers > 1:
            raise UsageError(NEEDS_STORE.format(self.server.workers))
        unused = self.store.model_fields_set - {"url"}
        if unused:
            msg = f"`store.{min(unused)}` is set without `store.url`. Set both, or remove it."
            raise UsageError(msg)
        return None

    def _refuse_what_one_process_counts(self) -> None:
        for key in self.keys:
            if key.memory_share is not None:
                msg = (
                    f"The key `{key.name}`: `memory_share` cannot be counted over the workers of a "
                    "shared store. Remove it; `maxmemory` of Redis limits all sessions together."
                )
                raise UsageError(msg)
        for name in _LIMITS_OF_ONE_PROCESS & self.limits.keys():
            msg = (
                f"The limit `{name}` cannot be counted over the workers of a shared store. Remove "
                "it; `maxmemory` of Redis limits all sessions and replies together."
            )
            raise UsageError(msg)

    def audit_log(self, folder: Path) -> AuditLog | None:
        """The audit log, if there is one.

        Args:
            folder: Where relative paths start.
        """
        audit = self.audit
        if audit.file is None:
            return None
        options = audit.model_dump(exclude={"file"})
        return AuditLog(path=folder / audit.file, **options)

    def api_keys(self, folder: Path) -> list[ApiKey]:
        """The keys, with their policies compiled.

        Args:
            folder: Where relative paths start.

        Raises:
            UsageError: If one is invalid. The message names it.
        """
        keys = [_api_key(section, folder) for section in self.keys]
        if self.models:
            for key in keys:
                for name in sorted(set(key.models or ()) - set(self.models)):
                    msg = f"The key `{key.name}` may use the model `{name}`, which is not listed."
                    raise UsageError(msg)
        return keys

    def model_table(self, folder: Path) -> dict[str, dict[TableRole, BaseChatModel]] | None:
        """The models, or `None` if the file has none.

        Args:
            folder: Where relative paths start.

        Raises:
            UsageError: If one cannot be made.
        """
        if not self.models:
            return None
        table = {name: _chat_models(name, entry, folder) for name, entry in self.models.items()}
        ModelTable(table)  # checks the names
        return table


_LIMITS_OF_ONE_PROCESS = {"sessions", "replies", "replies_bytes"}
_ROLES: Mapping[str, TableRole] = {
    "model": "chat", "planner": "planner", "reader": "reader", "policy_writer": "policy",
}  # fmt: skip


def _chat_models(name: str, entry: ModelSettings, folder: Path) -> dict[TableRole, BaseChatModel]:
    models: dict[TableRole, BaseChatModel] = {}
    for field, role in _ROLES.items():
        value = getattr(entry, field)
        if value is None:
            continue
        where = f"`models.{name}.{field}`"
        keyed = KeyedModel(model=value) if isinstance(value, str) else value
        source = keyed if keyed.key_env or keyed.key_file else entry
        try:
            models[role] = chat_model(keyed.model, read_secret(source, "key", folder))
        except UsageError as error:
            msg = f"{where}: {error}"
            raise UsageError(msg) from None
    return models


def _api_key(section: KeySection, folder: Path) -> ApiKey:
    fields = section.model_dump(exclude={"policy", "policy_file"})
    try:
        return ApiKey(**fields, policy=_policy(section, folder))
    except UsageError as error:
        text = str(error)
        named_text = text if f"`{section.name}`" in text else f"The key `{section.name}`: {text}"
        raise UsageError(named_text) from None


def _policy(section: KeySection, folder: Path) -> Any:
    settings = section.policy
    if section.policy_file is None:
        return settings
    if isinstance(settings, str) or (settings and "codes" in settings):
        msg = "`policy` and `policy_file` both have a text. Keep one of them."
        raise UsageError(msg)
    text = read_text(folder / section.policy_file, "policy_file")
    try:
        header = coerce(PolicyHeader, {**(settings or {}), "codes": text})
    except PolicySyntaxError as error:
        msg = f"`{section.policy_file}`: {error}"
        raise UsageError(msg) from None
    return coerce(PolicyHeader, named(plain(section.policy_file.name, limit=60), header))


def _check_environment(cls: type[GatewaySettings]) -> None:
    """Refuse variables with the prefix that set nothing: they are misspelt."""
    prefixed = [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]
    sections = {f"{ENV_PREFIX}{name.upper()}": name for name in cls.model_fields}
    for name in prefixed:
        section = name.upper().split(_DELIMITER)[0]
        if section not in sections:
            near = nearest_name(section, sections)
            valid = ", ".join(f"`{section}`" for section in sections)
            advice = did_you_mean(near) if near else f"Known ones begin with {valid}."
            msg = f"The environment variable `{plain(name)}` sets nothing. {advice}"
            raise UsageError(msg)


def _numbers(limits: Mapping[str, Any]) -> dict[str, Any]:
    """Limits with the texts of environment variables as numbers."""
    return {
        name: _numbers(value) if isinstance(value, Mapping) else _number(value)
        for name, value in limits.items()
    }


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return int(value)
    except ValueError:
        pass
    try:
        return float(value)
    except ValueError:
        return value  # the check of the limit names it


def _sentences(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        path = ""
        for key in _names_in(problem["loc"]):
            path = join_path(path, key)
        sentence = error_sentence(problem)
        yield f"`{path}`: {sentence}" if path else sentence


def _names_in(location: Sequence[str | int]) -> Iterator[str | int]:
    """The names of a location, without those of pydantic for the members of a union."""
    unions = {"str", *(cls.__name__ for cls in get_args(str | KeyedModel) if cls is not str)}
    return (key for key in location if key not in unions and not str(key).startswith("dict["))
