"""The store of servers that tests start: memory, or what `pytest --store redis` chooses."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import uuid4

from langchain_sequrity.local import ServerLimits
from langchain_sequrity.local.limits import DEFAULTS
from langchain_sequrity.local.sessions import Session

_chosen = {"url": ""}
_LIMITS_OF_STORES = ("sessions", "session_seconds", "sessions_bytes", "session_bytes")


def choose(url: str) -> None:
    """Let servers have sessions in Redis from now on."""
    _chosen["url"] = url


def with_store(**options: Any) -> dict[str, Any]:
    """Options of a server, with the chosen store unless they name one."""
    if not _chosen["url"] or options.get("store") is not None:
        return options
    limits = ServerLimits.from_mapping(options.get("limits"))
    others = {name: getattr(DEFAULTS, name) for name in _LIMITS_OF_STORES}
    store = _readable_store(_chosen["url"], limits)
    return {**options, "store": store, "limits": replace(limits, **others)}


def _readable_store(url: str, limits: ServerLimits) -> Any:
    """A store that tests can read like a `MemorySessions`: `server.sessions[id]`."""
    from langchain_sequrity.local.redis_sessions import RedisSessions  # noqa: PLC0415  # slow

    # Servers of different tests have keys, and idempotency keys, of the same names.
    secret = uuid4().hex

    class ReadableSessions(RedisSessions):
        def __getitem__(self, session_id: str) -> Session:
            async def find() -> Session | None:
                reader = RedisSessions(url, secret=secret, limits=limits)
                try:
                    return await reader.find(session_id)
                finally:
                    await reader.close()

            with ThreadPoolExecutor(1) as threads:  # an asynchronous test has a loop already
                session = threads.submit(asyncio.run, find()).result()
            if session is None:
                raise KeyError(session_id)
            return session

    return ReadableSessions(url, secret=secret, limits=limits)
