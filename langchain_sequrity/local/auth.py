"""Keys and header checks, before a body is read (`docs/security.md`, rule 9).

Pages in a browser can send requests to loopback addresses. So the server refuses a foreign Host
(DNS rebinding), a body that an HTML form could send, and a missing Authorization (cross-site
requests).
"""

import re
from collections.abc import Collection, Iterable, Mapping

from langchain_sequrity.errors import UsageError
from langchain_sequrity.local.keys import ApiKey, Keyring
from langchain_sequrity.local.refusals import how_to_raise, refuse

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_HOST = re.compile(r"(\[(?P<ipv6>[0-9a-f:]+)\]|(?P<name>[^\[\]:]+))(:[0-9]*)?")
_AROUND = len(": \r\n")
# If one of these comes twice, two readers may use different values.
_ONCE = frozenset(
    {
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "x-api-key",
        "x-config",
        "x-features",
        "x-policy",
        "x-session-id",
    }
)


def check_headers(raw: Iterable[tuple[bytes, bytes]], most_bytes: int) -> dict[str, str]:
    """Check the size of header lines, and that no important header is repeated.

    Args:
        raw: Names and values as they were received.
        most_bytes: Bytes that a line may have (`ServerLimits.header_bytes`).

    Returns:
        The headers by lower-case name.

    Raises:
        StatusError: 431 for a line that is too long, 400 for a repeated header.
    """
    headers: dict[str, str] = {}
    for name, value in raw:
        key = name.decode("latin-1").lower()
        size = len(name) + len(value) + _AROUND
        if size > most_bytes:
            refuse(
                431,
                f"The header `{key[:64]}` has {size} bytes, and may have {most_bytes} bytes. "
                f"{how_to_raise('header_bytes')}",
            )
        if key in headers and key in _ONCE:
            refuse(400, f"The header `{key}` was sent twice. Send it once.")
        headers[key] = value.decode("latin-1")
    return headers


def host_names(hosts: Collection[str]) -> frozenset[str]:
    """Names for `check_host` from an option; raises `UsageError` for one that is not a host."""
    if isinstance(hosts, str):
        msg = "`allowed_hosts` must be a list of names; got a text. Write `[…]` around it."
        raise UsageError(msg)
    names = {host: _host_name(host) for host in hosts}
    for host, name in names.items():
        if not name:
            msg = f"`allowed_hosts` must have names such as `gateway.example`; got {host!r}."
            raise UsageError(msg)
    return frozenset(names.values())


def check_host(host: str, allowed: frozenset[str] | None) -> None:
    """Refuse a Host that does not name this server with 421; `None` allows any."""
    if allowed is not None and _host_name(host) not in allowed:
        refuse(
            421,
            "The `Host` header does not name this server. Use its `base_url`. Whoever runs the "
            "server can allow further names: `LocalServer(allowed_hosts=[…])`, or "
            "`serve --allowed-host …`.",
        )


def _host_name(host: str) -> str:
    match = _HOST.fullmatch(host.lower())
    return (match["ipv6"] or match["name"]) if match else ""


def bearer(
    headers: Mapping[str, str], keys: Keyring, *, as_anthropic: bool = False
) -> tuple[str, ApiKey]:
    """Return the bearer's key.

    Args:
        headers: The request's headers, by lower-case name.
        keys: The keys of the server.
        as_anthropic: Whether the key may be in `X-Api-Key`, where clients of Anthropic's format
            send it. Beside an `Authorization`, that header has the key of a provider. No web page
            can send it to another origin unasked, as it cannot send `Authorization`.

    Returns:
        The key as it was sent, and what the server knows of it.

    Raises:
        StatusError: 401 if it is missing or wrong.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    secret = token.strip() if scheme.lower() == "bearer" else ""
    if as_anthropic and "authorization" not in headers:
        secret = headers.get("x-api-key", "").strip()
    if not secret:
        refuse(401, "Send your key as `Authorization: Bearer <key>`.")
    key = keys.find(secret)
    if key is None:
        refuse(401, "The key is unknown. Check it.")
    return secret, key


def check_content_type(headers: Mapping[str, str]) -> None:
    """Refuse a body that is not declared as JSON, or that is compressed, with 415."""
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in {"", "identity"}:
        refuse(
            415,
            "The server does not read compressed bodies. Send the body without `Content-Encoding`.",
        )
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        refuse(415, "Send the body as JSON, with `Content-Type: application/json`.")
