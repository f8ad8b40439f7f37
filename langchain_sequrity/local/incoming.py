"""A request as the endpoints hand it over."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from langchain_sequrity.local.limits import Charge
from langchain_sequrity.wire.routes import Route


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request whose sender and size were checked, and nothing else.

    Attributes:
        route: The row of the table that it came in on.
        bearer: Digest of its bearer.
        headers: Its headers, by lower-case name.
        body: Its body as it came, until it is parsed.
        charge: What it takes of the memory of all requests.
    """

    route: Route
    bearer: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytearray = field(repr=False)
    charge: Charge = field(repr=False)
