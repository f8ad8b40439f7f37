"""The store of sessions that the workers of a gateway share. Its secrets are never in its URL."""

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.gateway.secrets import read_secret
from langchain_sequrity.local import ServerLimits

if TYPE_CHECKING:
    from langchain_sequrity.local.redis_sessions import RedisSessions

NEEDS_STORE = (
    "{} workers need a store of sessions that they share: `url` in the table `[store]`, or "
    "`--store redis://…`. Without it, each session would be known to one worker only."
)
# Files of TLS; other options, such as `password`, could be secrets or make the connection unsafe.
_QUERY = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})


def check_url(url: str, where: str) -> None:
    """Refuse a URL with a secret in it, without showing it.

    Args:
        url: The URL.
        where: What sets it.

    Raises:
        UsageError: If it has a secret, or is not a URL of a Redis.
    """
    try:
        parts = urlsplit(url)
        has_password, has_host = parts.password is not None, bool(parts.hostname)
        _ = parts.port
    except ValueError:
        has_password, has_host, parts = False, False, urlsplit("")
    if has_password:
        msg = (
            f"{where}: The URL has a password, which would be visible in the file and in the list "
            "of processes. Remove it, and name it with `password_file` or `password_env`."
        )
        raise UsageError(msg)
    if not has_host:
        msg = f"{where}: Expected the URL of a Redis, such as `redis://127.0.0.1:6379/0`."
        raise UsageError(msg)
    unknown = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    unknown = [name for name in unknown if name not in _QUERY]
    if unknown:
        allowed = ", ".join(f"`{name}`" for name in sorted(_QUERY))
        option = plain(unknown[0], limit=60)
        msg = f"{where}: The URL has the option `{option}`. It may have only {allowed}."
        raise UsageError(msg)


def address_of(url: str) -> str:
    """A URL without the name of a user and without options."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def redis_sessions(settings: Any, folder: Path, limits: ServerLimits) -> "RedisSessions":
    """Make the store, without connecting to it.

    Args:
        settings: Its `StoreSettings`, with a URL.
        folder: Where relative paths start.
        limits: The limits of the server.

    Raises:
        UsageError: If a secret is missing, an option is invalid, or a package is not installed.
    """
    try:
        from langchain_sequrity.local.redis_sessions import RedisSessions  # noqa: PLC0415 - extra
    except ModuleNotFoundError:
        msg = '`store.url` needs an extra: pip install "langchain-sequrity[gateway,redis]"'
        raise UsageError(msg) from None
    try:
        return RedisSessions(
            settings.url or "",
            secret=_secret(settings, folder),
            password=read_secret(settings, "password", folder),
            limits=limits,
            lease_seconds=settings.lease_seconds,
            timeout=settings.timeout_seconds,
            max_connections=settings.max_connections,
        )
    except UsageError as error:
        msg = f"`[store]`: {error}"
        raise UsageError(msg) from None


def _secret(settings: Any, folder: Path) -> str:
    secret = read_secret(settings, "secret", folder)
    if secret is None:
        msg = (
            "`secret_file` or `secret_env` is required: the key of the digests that stand for "
            "bearers, the same for all workers. Make one with "
            "`python3 -c 'import secrets; print(secrets.token_urlsafe(32))'`."
        )
        raise UsageError(msg)
    return secret
