"""What a trusted proxy says about a request: the client's address, the host that it named.

nginx, Caddy, Traefik and the load balancers of clouds write `X-Forwarded-…`; `Forwarded` (RFC 7239)
is read only if none of these is there. A proxy has to replace or remove what its clients send in
the headers that it writes itself.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from langchain_sequrity.errors import UsageError

Network = IPv4Network | IPv6Network
_PAIR = re.compile(r'\s*(for|host|proto)\s*=\s*(?:"([^"]*)"|([^";,\s]*))\s*', re.IGNORECASE)
_PREFIX = "x-forwarded-"


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What a proxy said.

    Attributes:
        client: The address of the client, or an empty text.
        host: The host that the client named, or an empty text.
        scheme: `http` or `https`, or an empty text.
    """

    client: str = ""
    host: str = ""
    scheme: str = ""


def networks(addresses: Sequence[str]) -> tuple[Network, ...]:
    """Networks of proxies from texts; raises `UsageError` for one that is not a network."""
    if isinstance(addresses, str):
        msg = "`trusted_proxies` must be a list of networks; got a text. Write `[…]` around it."
        raise UsageError(msg)
    try:
        return tuple(ip_network(address) for address in addresses)
    except ValueError as error:
        msg = f"`trusted_proxies` must have addresses or networks, such as `10.0.0.0/8`: {error}."
        raise UsageError(msg) from None


def is_trusted(address: str, proxies: Sequence[Network]) -> bool:
    """Whether an address belongs to a trusted proxy."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(mapped in network for network in proxies)


def read_forwarded(headers: Mapping[str, str], proxies: Sequence[Network]) -> Forwarded:
    """Read what a trusted proxy says.

    Args:
        headers: The request's headers, by lower-case name.
        proxies: Networks of trusted proxies: a chain of them is followed to the first address that
            is not theirs.

    Returns:
        What the last proxy said. Of the client, what the last trusted proxy said that is no proxy.
    """
    if any(name.startswith(_PREFIX) for name in headers):
        clients = headers.get(f"{_PREFIX}for", "").split(",")
        host, scheme = (headers.get(f"{_PREFIX}{name}", "") for name in ("host", "proto"))
        last = {"host": host.rpartition(",")[2].strip(), "proto": scheme.rpartition(",")[2].strip()}
    else:
        hops = [_pairs(hop) for hop in headers.get("forwarded", "").split(",")]
        clients, last = [hop.get("for", "") for hop in hops], hops[-1]
    scheme = last.get("proto", "").lower()
    return Forwarded(
        client=_client([_without_port(client.strip()) for client in clients], proxies),
        host=last.get("host", ""),
        scheme=scheme if scheme in {"http", "https"} else "",
    )


def _pairs(hop: str) -> dict[str, str]:
    pairs = (_PAIR.fullmatch(pair) for pair in hop.split(";"))
    return {pair[1].lower(): pair[2] or pair[3] or "" for pair in pairs if pair}


def _client(addresses: Sequence[str], proxies: Sequence[Network]) -> str:
    """The last address that is not a proxy's; an empty text if it is no address."""
    for address in reversed(addresses):
        if not is_trusted(address, proxies):
            break
    try:
        return str(ip_address(address))
    except ValueError:
        return ""


def _without_port(address: str) -> str:
    """`1.2.3.4:5` and `[::1]:5` without brackets and port."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and (host.endswith("]") or (host and ":" not in host)):
        address = host
    return address.removeprefix("[").removesuffix("]")
