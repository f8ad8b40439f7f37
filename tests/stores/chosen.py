"""The store of servers that tests start: memory, or what `pytest --store redis` chooses."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable
from uuid import uuid4

from langchain_sequrity.local import ServerLimits
from langchain_sequrity.local.limits import DEFAULTS
from langchain_sequrity.local.sessions import Session

_chosen = {"url": ""}
_LIMITS_OF_STORES = ("sessions", "session_seconds", "sessions_bytes", "session_bytes")


# Tests that are skipped with `--store redis`: the beginning of their ids, and why.
_ITS_MEMORY = "it looks into the memory of a `MemorySessions`"
_ITS_LIMITS = "memory has limits of all sessions and replies together; Redis has its `maxmemory`"
_SAVES = "it puts sessions into the store without the event loop of the server"
SKIPPED = {
    "tests/local/dual_llm/test_isolation.py::test_a_result_with_the_call_id": _ITS_MEMORY,
    "tests/local/faults/test_edges.py::test_a_kept_chat_takes_little_memory": _ITS_MEMORY,
    "tests/local/operated/test_ready_and_metrics.py::test_requests_and_turns_are_counted": (
        "the number of sessions is a metric of memory"
    ),
    "tests/local/test_growth.py::test_the_memory_of_a_call_is_small": _ITS_MEMORY,
    "tests/local/test_key_usage.py::test_a_key_that_exceeds_its_share_of_sessions": _ITS_LIMITS,
    "tests/local/test_key_usage.py::test_a_key_that_exceeds_its_share_of_kept": _ITS_LIMITS,
    "tests/local/test_server_limits.py::test_an_error_of_a_limit_names_the_option_that_raises_it"
    "[sessions_bytes]": _ITS_LIMITS,
    "tests/local/test_session_events.py::test_a_session_that_is_read_before_each": _SAVES,
    "tests/local/test_session_events.py::test_a_conversation_that_an_earlier_version": _SAVES,
}


def why_skipped(test_id: str) -> str:
    """Why a test is skipped with sessions in Redis, or an empty text."""
    return next((why for name, why in SKIPPED.items() if test_id.startswith(name)), "")


@runtime_checkable
class ReadsApart(Protocol):
    """A store that tests can read while the event loop of a server uses it."""

    def read_apart(self, session_id: str) -> Session | None:
        """The session with this id, read with connections of its own."""


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
        def read_apart(self, session_id: str) -> Session | None:
            async def find() -> Session | None:
                reader = RedisSessions(url, secret=secret, limits=limits)
                try:
                    return await reader.find(session_id)
                finally:
                    await reader.close()

            with ThreadPoolExecutor(1) as threads:  # an asynchronous test has a loop already
                return threads.submit(asyncio.run, find()).result()

        def __getitem__(self, session_id: str) -> Session:
            session = self.read_apart(session_id)
            if session is None:
                raise KeyError(session_id)
            return session

    return ReadableSessions(url, secret=secret, limits=limits)
