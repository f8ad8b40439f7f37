"""Sends a `Call` and hands back a `Reply` or a stream of events: the one user of httpx.

| Module | Idea |
|---|---|
| `transport` | the two loops, over attempts and over bytes |
| `retry` | whether and when a call is sent again |
| `replies` | what the head and the bytes of a reply mean |
| `faults`, `redaction` | what the network's exceptions mean; no key leaves in an error |
| `timeouts` | limits, and the clock of one call |
| `requests`, `clients` | a request as data; who sends it |
| `pool`, `http11` | idle connections; one connection, its socket and HTTP/1.1 |
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

# Imported at first use: a model can be made, and bound, before anything is sent.
_HOME = {"RetryPolicy": "retry", "Timeouts": "timeouts", "Transport": "transport"}


def __getattr__(name: str) -> Any:
    """Import what sends when it is first used (PEP 562)."""
    home = _HOME.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{home}"), name)
