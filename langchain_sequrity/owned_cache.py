"""Caches whose entries belong to one owner, so that times do not tell what another one has used.

A server that compiles a policy once for all keys answers faster if another key has just sent the
same policy. With the owner in the key of each cache, everyone pays for their own texts.
"""

from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

cache_owner: ContextVar[str] = ContextVar("cache_owner", default="")
"""Whom the current request serves: a digest of its bearer on a server, empty elsewhere."""


def owned_cache(maxsize: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """`functools.lru_cache` with entries of their own for each `cache_owner`.

    Args:
        maxsize: The number of entries of all owners together.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @lru_cache(maxsize)
        def cached(_owner: str, *args: P.args, **kwargs: P.kwargs) -> T:
            return function(*args, **kwargs)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return cached(cache_owner.get(), *args, **kwargs)  # type: ignore[arg-type] # hashable

        return call

    return decorate
