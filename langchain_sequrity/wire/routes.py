"""Which endpoint type, provider and format live at which path (`docs/protocol.md`, Endpoints).

The client builds its URLs from this table and the local server mounts it.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from langchain_sequrity.errors import UsageError

EndpointType = Literal["chat", "code", "agent", "lang-graph"]
OpenAIProvider = Literal["openai", "openrouter", "sequrity_azure"]
AnthropicProvider = Literal["anthropic"]
Provider = Literal["openai", "openrouter", "anthropic", "sequrity_azure"]
Format = Literal["chat/completions", "messages", "responses"]

ENDPOINT_TYPES: tuple[EndpointType, ...] = get_args(EndpointType)

# `None` stands for the path without a provider segment: the service's default provider.
PROVIDERS: dict[Format, tuple[Provider | None, ...]] = {
    "chat/completions": (None, "openai", "openrouter", "sequrity_azure"),
    "messages": (None, "anthropic"),
    "responses": (None, "openai", "sequrity_azure"),
}
POLICY_PROVIDERS: tuple[Provider | None, ...] = (
    None,
    "openai",
    "openrouter",
    "anthropic",
    "sequrity_azure",
)

# Rows of the vendor's own table; the other pairs follow from its URL grammar only.
_LISTED_EVERYWHERE = ("chat", "code")
_LISTED_LANG_GRAPH = {("chat/completions", provider) for provider in PROVIDERS["chat/completions"]}
_LISTED_LANG_GRAPH.add(("messages", "anthropic"))


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table.

    Attributes:
        endpoint_type: First segment, such as `chat`, or `policy-gen`.
        provider: Second segment, or `None` where the path has none.
        suffix: The format, or `generate`.
        listed: Whether the vendor lists this very row, or only its URL grammar covers it.
    """

    endpoint_type: str
    provider: Provider | None
    suffix: str
    listed: bool = True

    @property
    def path(self) -> str:
        """Path below the base URL."""
        provider = f"/{self.provider}" if self.provider else ""
        return f"/control/{self.endpoint_type}{provider}/v1/{self.suffix}"


CHAT_ROUTES: tuple[Route, ...] = tuple(
    Route(
        endpoint_type,
        provider,
        suffix,
        listed=endpoint_type in _LISTED_EVERYWHERE
        or (endpoint_type == "lang-graph" and (suffix, provider) in _LISTED_LANG_GRAPH),
    )
    for suffix, providers in PROVIDERS.items()
    for endpoint_type in ENDPOINT_TYPES
    for provider in providers
)
POLICY_ROUTES: tuple[Route, ...] = tuple(
    Route("policy-gen", provider, "generate") for provider in POLICY_PROVIDERS
)
VALIDATE_HEADERS_PATH = "/control/v1/validate-headers"

_POLICY_BY_PROVIDER = {row.provider: row for row in POLICY_ROUTES}
_BY_KEY = {(row.endpoint_type, row.provider, row.suffix): row for row in CHAT_ROUTES}


def chat_route(endpoint_type: str, provider: str | None, suffix: Format) -> Route:
    """Find the row of a chat endpoint.

    Args:
        endpoint_type: `chat`, `code`, `agent` or `lang-graph`.
        provider: Provider segment, or `None` for the service's default provider.
        suffix: The wire format.

    Returns:
        The row.

    Raises:
        UsageError: If there is no such row; the text names those that exist.
    """
    row = _BY_KEY.get((endpoint_type, provider, suffix))  # type: ignore[arg-type]
    if row is not None:
        return row
    if endpoint_type not in ENDPOINT_TYPES:
        kinds = ", ".join(f"`{kind}`" for kind in ENDPOINT_TYPES)
        msg = f"There is no endpoint type `{endpoint_type}`. Use one of {kinds}."
        raise UsageError(msg)
    pairs = "; ".join(
        f"{name}: {', '.join(str(provider) for provider in providers)}"
        for name, providers in PROVIDERS.items()
    )
    msg = (
        f"Provider `{provider}` does not serve the format `{suffix}`. "
        f"Pairs that exist (`None` is the service's default provider) are {pairs}."
    )
    raise UsageError(msg)


def policy_route(provider: str | None) -> Route:
    """Find the row of a provider's endpoint for policy generation.

    Args:
        provider: Provider segment, or `None` for the service's default provider.

    Returns:
        The row.

    Raises:
        UsageError: If there is no such row; the text names the providers that have one.
    """
    row = _POLICY_BY_PROVIDER.get(provider)  # type: ignore[arg-type]
    if row is not None:
        return row
    known = ", ".join(str(one) for one in POLICY_PROVIDERS)
    msg = (
        f"Provider `{provider}` does not generate policies. Those that do (`None` is the service's "
        f"default provider) are {known}."
    )
    raise UsageError(msg)
