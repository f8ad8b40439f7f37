"""A reply whose body is still to come: what senders return."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Protocol

from langchain_sequrity.wire.exchange import Reply


class Incoming(Protocol):
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


class AsyncIncoming(Protocol):
    """As `Incoming`, within one event loop."""

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


def head_of(incoming: Incoming | AsyncIncoming) -> Reply:
    """Status and headers alone."""
    return Reply(incoming.status, incoming.headers)
