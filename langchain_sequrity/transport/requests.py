"""A request as data, who sends it, and the response whose body is still to come."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import httpx

from langchain_sequrity.errors import UsageError
from langchain_sequrity.transport.timeouts import Deadline, Timeouts
from langchain_sequrity.wire.exchange import Call, Reply

Headers = list[tuple[bytes, bytes]]
_DEFAULT_PORTS = {b"http": 80, b"https": 443}
_LAST_PORT = 65535


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
class Request:
    """A request. Its `repr` has only the address: headers hold keys, the body is private.

    Attributes:
        url: Where it goes.
        target: Path and query of it, as they go out.
        origin: The origin of `url`.
        headers: All headers as they go out.
        body: The body.
        method: The HTTP method.
    """

    url: httpx.URL
    target: bytes
    origin: Origin
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)
    method: str = field(default="POST", repr=False)


class Address:
    """Where a service is; makes the requests that go there.

    Args:
        base_url: The address, with or without a `/` at its end.

    Raises:
        UsageError: If it is not the address of an http or https service.
    """

    def __init__(self, base_url: str) -> None:
        self.url = _base_url(base_url)
        self.origin = Origin.of(self.url)
        self._always = (
            (b"host", (b"Host", self.url.netloc)),
            # Compression would cost latency, and a small reply could swell to fill the memory.
            (b"accept-encoding", (b"Accept-Encoding", b"identity")),
        )
        self._urls: dict[str, tuple[httpx.URL, bytes]] = {}

    def request(self, call: Call) -> Request:
        """Make the request for a call: its own headers, and those that every request needs."""
        urls = self._urls.get(call.path) or self._add(call.path)
        given = {name.lower() for name, _ in call.headers}
        headers = [header for name, header in self._always if name not in given]
        if b"content-length" not in given:
            headers.append((b"Content-Length", b"%d" % len(call.body)))
        if b"idempotency-key" not in given:
            headers.append((b"Idempotency-Key", secrets.token_hex(16).encode()))
        headers += call.headers
        return Request(*urls, self.origin, headers, call.body, call.method)

    def _add(self, path: str) -> tuple[httpx.URL, bytes]:
        url = httpx.URL(f"{self.url}{path}")
        self._urls[path] = url, url.raw_path
        return self._urls[path]


def _base_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text.rstrip("/"))
        problem = _problem(url)
    except (httpx.InvalidURL, UnicodeError):  # the latter for a host such as `xn--`
        problem = "it is not a URL"
    if problem:
        msg = (
            f"`base_url` cannot be used: {problem}. Give the address of the service, such as "
            "`https://api.sequrity.ai`."
        )
        raise UsageError(msg)
    return url


def _problem(url: httpx.URL) -> str:
    if url.scheme not in ("http", "https") or not url.host:
        return "it does not begin with `https://` or `http://` and a host"
    if (url.port or 0) > _LAST_PORT:
        return f"its port is above {_LAST_PORT}"
    if url.userinfo:
        return "it holds a user name or password, which would show in logs"
    return "it holds a query or a fragment" if url.query or url.fragment else ""


class Response(Protocol):
    """Iterating gives the body as it comes; whoever has one closes it, read or not."""

    @property
    def status(self) -> int:
        """The status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; their names are looked up in lower case."""

    def __iter__(self) -> Iterator[bytes]:
        """The body, piece by piece."""

    def close(self) -> None:
        """Give the connection back, or close it where it cannot be used again."""


class AsyncResponse(Protocol):
    """As `Response`, within one event loop."""

    @property
    def status(self) -> int:
        """The status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; their names are looked up in lower case."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, piece by piece."""

    async def aclose(self) -> None:
        """Give the connection back, or close it where it cannot be used again."""


def head_of(response: Response | AsyncResponse) -> Reply:
    """Status and headers alone."""
    return Reply(response.status, response.headers)


class Sender(Protocol):
    """Sends requests: our own pool, or an httpx client."""

    @property
    def exact(self) -> bool:
        """Whether each single wait ends at the deadline."""

    def open(self, request: Request, timeouts: Timeouts, deadline: Deadline) -> Response:
        """Send a request and return the reply with its body still to come."""


class AsyncSender(Protocol):
    """Sends requests within one event loop: our own pool, or an httpx client."""

    @property
    def exact(self) -> bool:
        """Whether each single wait ends at the deadline."""

    def open(
        self, request: Request, timeouts: Timeouts, deadline: Deadline
    ) -> Awaitable[AsyncResponse]:
        """Send a request and return the reply with its body still to come."""
