"""Keys of the server's clients: each with its name, its limits and its settings.

The server knows digests of keys, never the keys. They are random texts of 256 bits, so nobody can
try them all, and a plain SHA-256 is enough. A slow hash is for passwords, which can be guessed, and
would cost its time for each request.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import ConfigHeader, FeaturesHeader, Header, PolicyHeader, coerce
from langchain_sequrity.local.key_settings import KeySettings

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PREFIX = "sq-"
_BYTES = 32
_LONGEST_NAME = 60
_LIMITS = ("requests_per_minute", "tokens_per_minute", "turns_at_once", "memory_share")
_ALL = 100  # percent
_HEADERS: Mapping[str, type[Header]] = {
    "policy": PolicyHeader,
    "features": FeaturesHeader,
    "config": ConfigHeader,
}


def digest_of_key(secret: str) -> str:
    """The digest of a key, as in `ApiKey.digest`."""
    return f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key that clients send, what it may use, and the settings of its sessions.

    Attributes:
        name: Its name in the log and in errors.
        digest: `sha256:` and the hexadecimal SHA-256 of the key.
        models: The names of models that it may use; `None` allows all.
        requests_per_minute: Requests in any minute; `None` means no limit.
        tokens_per_minute: Tokens of prompts and answers in any minute. They are counted when a
            model has answered, so the last answers may exceed the limit.
        turns_at_once: Turns that run at once.
        memory_share: Percent of the memory of requests in progress (`ServerLimits.requests_bytes`),
            of sessions (`sessions_bytes`) and of kept replies (`replies_bytes`) that it may use.
        policy: Its policy in any form. The policies of clients are combined with it.
        features: Its features: a `FeaturesHeader` or a mapping. With a policy, they have to state
            `agent_arch`.
        config: Its configuration: a `ConfigHeader` or a mapping.
        console: Whether it opens the console, which shows the sessions of all keys.
        settings: What policy, features and config do to a session; `None` if the key has none.

    Raises:
        UsageError: If a value is invalid.

    Example:
        ```python
        from langchain_sequrity.local import ApiKey, LocalServer

        alice, secret = ApiKey.new(
            "alice",
            turns_at_once=4,
            policy='tool "send_mail" { must deny always; }',
            features={"agent_arch": "dual-llm"},
        )
        server = LocalServer(api_keys=[alice])
        ```
    """

    name: str
    digest: str = field(repr=False)
    models: Collection[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    turns_at_once: int | None = None
    memory_share: int | None = None
    policy: Any = field(default=None, repr=False)
    features: Any = field(default=None, repr=False)
    config: Any = field(default=None, repr=False)
    console: bool = False
    settings: KeySettings | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the values, and compile the policy."""
        is_line = isinstance(self.name, str) and plain(self.name).strip() == self.name != ""
        if not is_line or "`" in self.name or len(self.name) > _LONGEST_NAME:
            msg = (
                f"The name of a key is one line of at most {_LONGEST_NAME} characters without "
                "backticks."
            )
            raise UsageError(msg)
        if not isinstance(self.digest, str) or not _DIGEST.fullmatch(self.digest):
            msg = (
                f"The digest of the key `{self.name}` must be `sha256:` and 64 hexadecimal digits. "
                "`langchain-sequrity key new` makes a key and its digest."
            )
            raise UsageError(msg)
        self._check_limits()
        if self.models is not None:
            self._set("models", self._checked_models())
        for name, header_type in _HEADERS.items():
            value = getattr(self, name)
            if value is not None:
                try:
                    self._set(name, coerce(header_type, value))
                except UsageError as error:
                    msg = f"The {name} of the key `{self.name}`: {error}"
                    raise UsageError(msg) from None
        if (self.policy, self.features, self.config) != (None, None, None):
            headers = self.policy, self.features, self.config
            self._set("settings", KeySettings(self.name, *headers))

    def _check_limits(self) -> None:
        for limit in _LIMITS:
            value = getattr(self, limit)
            if value is not None and (type(value) is not int or value < 1):
                msg = f"`{limit}` of the key `{self.name}` must be a positive whole number."
                raise UsageError(msg)
        if self.memory_share is not None and self.memory_share > _ALL:
            msg = f"`memory_share` of the key `{self.name}` is a percentage, of at most 100."
            raise UsageError(msg)

    def _checked_models(self) -> frozenset[str]:
        if isinstance(self.models, str) or not all(isinstance(n, str) for n in self.models or ()):
            msg = f"`models` of the key `{self.name}` must be a list of names."
            raise UsageError(msg)
        return frozenset(self.models or ())

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def new(cls, name: str, **options: Any) -> tuple[Self, str]:
        """Make a random key.

        Args:
            name: Its name.
            options: Further attributes.

        Returns:
            The key as the server knows it, and the text that clients send. Nothing stores this
            text.
        """
        secret = _PREFIX + secrets.token_urlsafe(_BYTES)
        return cls.from_secret(secret, name, **options), secret

    @classmethod
    def from_secret(cls, secret: str, name: str, **options: Any) -> Self:
        """The key for a text that clients send.

        Args:
            secret: The text.
            name: Its name.
            options: Further attributes.
        """
        return cls(name=name, digest=digest_of_key(secret), **options)


def is_key(key: object) -> bool:
    """Whether a client can send this as a key."""
    if not isinstance(key, str):
        return False
    return bool(key) and key.isascii() and key.isprintable() and " " not in key


ANY_KEY = ApiKey.from_secret("", "any key")
"""What all clients have on a server without keys. No client sends an empty key."""


class Keyring:
    """The keys of a server. They can be replaced while it runs.

    Args:
        keys: Texts that clients send, or `ApiKey` objects; `None` allows any key.

    Raises:
        UsageError: If two keys have the same name, or are the same.
    """

    def __init__(self, keys: Iterable[str | ApiKey] | None = None) -> None:
        self._keys = self._read(keys)

    def replace(self, keys: Iterable[str | ApiKey] | None) -> None:
        """Use other keys from now on."""
        self._keys = self._read(keys)

    @staticmethod
    def _read(keys: Iterable[str | ApiKey] | None) -> Sequence[tuple[bytes, ApiKey]] | None:
        if keys is None:
            return None
        read = [
            key if isinstance(key, ApiKey) else ApiKey.from_secret(key, f"key {number}")
            for number, key in enumerate(keys, 1)
        ]
        for attribute in ("name", "digest"):
            values = [getattr(key, attribute) for key in read]
            for key in read:
                if values.count(getattr(key, attribute)) > 1:
                    problem = "have the same name" if attribute == "name" else "are the same"
                    msg = f"Two keys {problem}: `{key.name}`. Remove one of them."
                    raise UsageError(msg)
        return [(key.digest.encode(), key) for key in read]

    def may_see_console(self, digest: str) -> bool:
        """Whether a key with this digest exists that opens the console."""
        return any(key.digest == digest and key.console for _, key in self._keys or ())

    def settings_of(self, name: str) -> KeySettings | None:
        """The settings of the key with this name; `None` without one."""
        return next((key.settings for _, key in self._keys or () if key.name == name), None)

    def find(self, secret: str) -> ApiKey | None:
        """The key that a client sent; `None` if it is unknown.

        All keys are compared, so that the time reveals nothing.
        """
        keys = self._keys
        if keys is None:
            return ANY_KEY
        digest = digest_of_key(secret).encode()
        matches = [key for key_digest, key in keys if hmac.compare_digest(key_digest, digest)]
        return matches[0] if matches else None
