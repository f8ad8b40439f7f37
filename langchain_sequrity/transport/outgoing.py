"""A request as data, ready for whoever sends it."""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import httpx

from langchain_sequrity.transport.timeouts import Deadline, Timeouts

Headers = list[tuple[bytes, bytes]]
_DEFAULT_PORTS = {b"http": 80, b"https": 443}


class Origin(NamedTuple):
    """What connections are shared by: scheme, host and port."""

    scheme: bytes
    host: bytes
    port: int

    @classmethod
    def of(cls, url: httpx.URL) -> "Origin":
        """The origin of an absolute URL of http or https."""
        return cls(url.raw_scheme, url.raw_host, url.port or _DEFAULT_PORTS[url.raw_scheme])

    def __str__(self) -> str:
        """The origin as in a URL."""
        scheme, host = self.scheme.decode(), self.host.decode()
        host = f"[{host}]" if ":" in host else host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{scheme}://{host}{port}"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A POST request. Its `repr` has only the address: headers hold keys, the body is private.

    Attributes:
        url: Where it goes.
        origin: The origin of `url`.
        headers: All headers as they go out.
        body: The body.
    """

    url: httpx.URL
    origin: Origin
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)


class Sender(Protocol):
    """Sends requests: our own pool, or an httpx client."""

    @property
    def exact(self) -> bool:
        """Whether each single wait ends at the deadline."""

    def open(self, request: Outgoing, timeouts: Timeouts, deadline: Deadline) -> httpx.Response:
        """Send a request and return the reply with its body still to come."""


class AsyncSender(Protocol):
    """Sends requests within one event loop: our own pool, or an httpx client."""

    @property
    def exact(self) -> bool:
        """Whether each single wait ends at the deadline."""

    def open(
        self, request: Outgoing, timeouts: Timeouts, deadline: Deadline
    ) -> Awaitable[httpx.Response]:
        """Send a request and return the reply with its body still to come."""
