"""Base URLs: one reading of them for every check and every use."""

import ipaddress
from urllib.parse import urlsplit

from langchain_sequrity.errors import UsageError

_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
DEFAULT_BASE_URL = "https://api.sequrity.ai"
_PATH = "/control"


def normalize_base_url(base_url: str) -> str:
    """Check a base URL and bring it into one form.

    Args:
        base_url: An http(s) URL. A trailing `/` or `/control` is tolerated.

    Returns:
        The URL to put paths behind, scheme and host in lower case.

    Raises:
        UsageError: If it is no http(s) URL of a host, or carries credentials.
    """
    parts = urlsplit(base_url)
    try:
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number
        is_url = False
    if not is_url:
        msg = f"`base_url` must be an http(s) URL such as `{DEFAULT_BASE_URL}`; got {base_url!r}."
        raise UsageError(msg)
    if parts.username or parts.password or parts.query or parts.fragment:
        msg = (
            "`base_url` must not hold credentials, a query or a fragment. Give the key as "
            "`api_key`."
        )
        raise UsageError(msg)
    path = parts.path.rstrip("/").removesuffix(_PATH).rstrip("/")
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def check_proxy(address: str) -> None:
    """Refuse what is not the address of a proxy; the text does not show it, nor its password.

    Raises:
        UsageError: If it is not one.
    """
    try:
        parts = urlsplit(address)
        is_proxy = parts.scheme in _PROXY_SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number
        is_proxy = False
    if not is_proxy:
        msg = "`proxy` is not the address of a proxy, such as `http://proxy.example:8080`."
        raise UsageError(msg)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this very machine, by itself and without a look-up."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
