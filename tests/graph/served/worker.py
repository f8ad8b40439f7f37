"""A worker of the gateway as a process: `python -m tests.graph.served.worker REDIS_URL`.

It prints its address, and ends when its input does.
"""

import sys

from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.redis_sessions import RedisSessions

LEASE_SECONDS = 1.0
"""So long nobody can continue a session whose worker was killed in the middle of a request."""

if __name__ == "__main__":
    store = RedisSessions(sys.argv[1], secret="shared by all workers", lease_seconds=LEASE_SECONDS)
    with LocalServer(store=store) as server:
        print(server.base_url, flush=True)  # noqa: T201 - its output protocol
        sys.stdin.read()
