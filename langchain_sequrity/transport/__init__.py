"""Sends a `ServiceCall` and returns a `Reply` or a stream of events; the only user of httpx.

| Module | Content |
|---|---|
| `transport` | `Transport`: the loops over attempts and over bytes, and the reading of a reply |
| `retry` | errors of the network and of replies, `Retry-After`, and whether a call is sent again |
| `timeouts` | time limits, and the deadline of one call |
| `redaction` | masks keys in errors |
| `pool` | shared connections: our own pools, proxies, clients of httpx |
| `http11` | requests, HTTP/1.1, and one connection |
"""

from typing import TYPE_CHECKING

from httpx import AsyncClient as AsyncHttpClient
from httpx import Client as HttpClient
from httpx import Timeout as HttpTimeout

from langchain_sequrity.lazy_imports import lazy_names

if TYPE_CHECKING:
    from langchain_sequrity.transport.retry import RetryPolicy
    from langchain_sequrity.transport.timeouts import Timeouts
    from langchain_sequrity.transport.transport import Transport

__all__ = [
    "AsyncHttpClient",
    "HttpClient",
    "HttpTimeout",
    "RetryPolicy",
    "Timeouts",
    "Transport",
]

# Imported at first use: constructing a model and binding tools need no transport.
__getattr__, __dir__ = lazy_names(
    __name__, {"retry": "RetryPolicy", "timeouts": "Timeouts", "transport": "Transport"}
)
