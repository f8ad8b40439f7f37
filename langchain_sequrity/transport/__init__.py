"""Sends a `Call` and hands back a `Reply` or a stream of events: the one user of httpx.

| Module | Idea |
|---|---|
| `transport` | the two loops, over attempts and over bytes |
| `retry` | whether and when a call is sent again |
| `replies` | what the bytes of a reply mean |
| `faults`, `redaction` | what the network's exceptions mean; no key leaves in an error |
| `timeouts`, `network` | limits, and sockets that keep them |
| `outgoing`, `clients`, `pool`, `idle` | a request as data, who sends it, over which connection |
"""

from httpx import AsyncClient as AsyncHttpClient
from httpx import Client as HttpClient
from httpx import Timeout as HttpTimeout

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
