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

from importlib import import_module
from typing import TYPE_CHECKING, Any

from httpx import AsyncClient as AsyncHttpClient
from httpx import Client as HttpClient
from httpx import Timeout as HttpTimeout

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
_MODULES = {"RetryPolicy": "retry", "Timeouts": "timeouts", "Transport": "transport"}


def __getattr__(name: str) -> Any:
    """Import a class of the transport at its first use (PEP 562)."""
    module = _MODULES.get(name)
    if module is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{module}"), name)
