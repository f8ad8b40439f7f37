"""What every request must bring before anything of it is read (`docs/security.md`, rule 9).

The server is a target: pages in a browser can reach loopback addresses. A Host that is not ours
(DNS rebinding), a body that a plain form could send, or a missing Authorization (cross-site
requests) end here.
"""

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence

from langchain_sequrity.local.refusals import refuse

MAX_HEADER_LINE = 8192
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_SCHEME = "bearer "
_HOST = re.compile(r"(\[(?P<ipv6>[0-9a-f:]+)\]|(?P<name>[^\[\]:]+))(:[0-9]*)?")
_AROUND = len(": \r\n")
# Of these a second one would contradict the first, and who reads which is anybody's guess.
_ONCE = frozenset(
    {
        "authorization",
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


def check_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Check the size of header lines and that none that matters comes twice.

    Args:
        raw: Names and values as they came.

    Returns:
        The headers by lower-case name.

    Raises:
        StatusError: 431 for a line over 8 KiB, 400 for a repeated header.
    """
    headers: dict[str, str] = {}
    for name, value in raw:
        key = name.decode("latin-1").lower()
        if len(name) + len(value) + _AROUND > MAX_HEADER_LINE:
            refuse(431, f"The header `{key[:64]}` is longer than {MAX_HEADER_LINE} bytes.")
        if key in headers and key in _ONCE:
            refuse(400, f"The header `{key}` comes twice. Send it once.")
        headers[key] = value.decode("latin-1")
    return headers


def check_host(headers: Mapping[str, str], allowed: frozenset[str] | None) -> None:
    """Refuse a Host that is not ours with 421; `None` allows any."""
    if allowed is not None and _host_name(headers.get("host", "")) not in allowed:
        refuse(421, "The `Host` header does not name this server. Use its `base_url`.")


def _host_name(host: str) -> str:
    match = _HOST.fullmatch(host.lower())
    return (match["ipv6"] or match["name"]) if match else ""


def bearer(headers: Mapping[str, str], keys: Sequence[str] | None) -> str:
    """Return the bearer's key.

    Args:
        headers: The request's headers, by lower-case name.
        keys: Keys that are allowed, or `None` for any.

    Returns:
        The key.

    Raises:
        StatusError: 401 if it is missing or wrong.
    """
    value = headers.get("authorization", "")
    key = value[len(_SCHEME) :].strip() if value.lower().startswith(_SCHEME) else ""
    if not key:
        refuse(401, "Send your key as `Authorization: Bearer <key>`.")
    if keys is not None:
        # All are compared, so that the time tells nothing.
        matches = [hmac.compare_digest(key.encode(), one.encode()) for one in keys]
        if not any(matches):
            refuse(401, "The key is not known. Check it.")
    return key


def check_content_type(headers: Mapping[str, str]) -> None:
    """Refuse with 415 what is not declared as JSON."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        refuse(415, "Send the body as JSON, with `Content-Type: application/json`.")
