"""The table of endpoints, and base URLs (`docs/protocol.md`, Endpoints).

The client builds its URLs from the table, and the local server mounts it.
"""

import ipaddress
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import SplitResult, urlsplit

from langchain_sequrity.errors import UsageError

_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
DEFAULT_BASE_URL = "https://api.sequrity.ai"
_PATH = "/control"


def normalize_base_url(base_url: str) -> str:
    """Check and normalize a base URL.

    Args:
        base_url: An http(s) URL. A trailing `/` or `/control` is allowed.

    Returns:
        The URL without a trailing `/`, with scheme and host in lower case.

    Raises:
        UsageError: If it is not an http(s) URL with a host, or holds credentials.
    """
    parts = _split(base_url, ("http", "https"))
    if parts is None:
        msg = f"`base_url` must be an http(s) URL such as `{DEFAULT_BASE_URL}`"
        may_hold_a_key = any(mark in base_url for mark in "@?#")
        raise UsageError(f"{msg}." if may_hold_a_key else f"{msg}; got {base_url!r}.")
    if parts.username or parts.password or parts.query or parts.fragment:
        msg = (
            "`base_url` must not hold credentials, a query or a fragment. Give the key as "
            "`api_key`."
        )
        raise UsageError(msg)
    path = parts.path.rstrip("/").removesuffix(_PATH).rstrip("/")
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def check_proxy(address: str) -> None:
    """Check the address of a proxy.

    Raises:
        UsageError: If it is not an address of a proxy. The message does not show it, since it may
            hold a password.
    """
    if _split(address, _PROXY_SCHEMES) is None:
        msg = "`proxy` is not the address of a proxy, such as `http://proxy.example:8080`."
        raise UsageError(msg)


def _split(address: str, schemes: tuple[str, ...]) -> SplitResult | None:
    """The parts of a URL with a host; `None` for anything else."""
    try:
        parts = urlsplit(address)
        is_url = parts.scheme in schemes and parts.hostname and parts.port != 0
    except ValueError:  # the port is not a number
        return None
    return parts if is_url else None


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine, without a look-up."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


EndpointType = Literal["chat", "code", "agent", "lang-graph"]
OpenAIProvider = Literal["openai", "openrouter", "sequrity_azure", "llama"]
AnthropicProvider = Literal["anthropic"]
Provider = Literal["openai", "openrouter", "anthropic", "sequrity_azure", "llama"]
Format = Literal["chat/completions", "messages", "responses"]

ENDPOINT_TYPES: tuple[EndpointType, ...] = get_args(EndpointType)

# `None` means the path without a provider segment, for the service's default provider.
PROVIDERS: dict[Format, tuple[Provider | None, ...]] = {
    "chat/completions": (None, "openai", "openrouter", "sequrity_azure", "llama"),
    "messages": (None, "anthropic"),
    "responses": (None, "openai", "sequrity_azure"),
}
POLICY_PROVIDERS: tuple[Provider | None, ...] = (
    None, "openai", "openrouter", "anthropic", "sequrity_azure",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table.

    Attributes:
        endpoint_type: First segment, such as `chat`, or `policy-gen`.
        provider: Second segment, or `None` if the path has none.
        suffix: The format, `generate`, `models` or `messages/count_tokens`.
    """

    endpoint_type: str
    provider: Provider | None
    suffix: str

    @property
    def path(self) -> str:
        """Path below the base URL."""
        provider = f"/{self.provider}" if self.provider else ""
        return f"/control/{self.endpoint_type}{provider}/v1/{self.suffix}"


# The vendor's own table has only some of these rows; its URL grammar allows all of them.
CHAT_ROUTES: tuple[Route, ...] = tuple(
    Route(endpoint_type, provider, suffix)
    for suffix, providers in PROVIDERS.items()
    for endpoint_type in ENDPOINT_TYPES
    for provider in providers
)
POLICY_ROUTES: tuple[Route, ...] = tuple(
    Route("policy-gen", provider, "generate") for provider in POLICY_PROVIDERS
)
# Only the local server has these; the vendors' SDKs look for them beside a chat endpoint.
MODELS_ROUTES: tuple[Route, ...] = tuple(
    Route(endpoint_type, provider, "models")
    for endpoint_type in ENDPOINT_TYPES
    for provider in dict.fromkeys(route.provider for route in CHAT_ROUTES)
)
COUNT_TOKENS_ROUTES: tuple[Route, ...] = tuple(
    Route(route.endpoint_type, route.provider, "messages/count_tokens")
    for route in CHAT_ROUTES
    if route.suffix == "messages"
)
VALIDATE_HEADERS_PATH = "/control/v1/validate-headers"


def chat_route(endpoint_type: str, provider: str | None, suffix: Format) -> Route:
    """Find the row of a chat endpoint.

    Args:
        endpoint_type: `chat`, `code`, `agent` or `lang-graph`.
        provider: Provider segment, or `None` for the service's default provider.
        suffix: The wire format.

    Returns:
        The row.

    Raises:
        UsageError: If there is no such row; the message names the existing ones.
    """
    if endpoint_type not in ENDPOINT_TYPES:
        types = ", ".join(f"`{name}`" for name in ENDPOINT_TYPES)
        msg = f"There is no endpoint type `{endpoint_type}`. Use one of {types}."
        raise UsageError(msg)
    if provider in PROVIDERS[suffix]:
        return Route(endpoint_type, provider, suffix)
    pairs = "; ".join(
        f"{name}: {', '.join(str(provider) for provider in providers)}"
        for name, providers in PROVIDERS.items()
    )
    msg = (
        f"Provider `{provider}` does not serve the format `{suffix}`. "
        f"Existing pairs (`None` is the service's default provider): {pairs}."
    )
    raise UsageError(msg)


def policy_route(provider: str | None) -> Route:
    """Find the row of a provider's policy generation endpoint.

    Args:
        provider: Provider segment, or `None` for the service's default provider.

    Returns:
        The row.

    Raises:
        UsageError: If there is no such row; the message names the providers that have one.
    """
    if provider in POLICY_PROVIDERS:
        return Route("policy-gen", provider, "generate")
    providers = ", ".join(map(str, POLICY_PROVIDERS))
    msg = (
        f"Provider `{provider}` does not generate policies. Use one of {providers} (`None` is the "
        "service's default provider)."
    )
    raise UsageError(msg)
