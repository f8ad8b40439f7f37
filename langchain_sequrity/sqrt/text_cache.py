"""Results that are remembered by the text of a policy, for each owner by itself.

A server reads policies of several clients. If they shared what is remembered, the time of a request
would tell a client whether another one has just used the same policy.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import TypeVar

T = TypeVar("T")
_MOST = 64
_current_owner = ContextVar("owner of remembered results", default="")


@contextmanager
def remembered_for(owner: str) -> Iterator[None]:
    """Use and keep only results of this owner within the context."""
    token = _current_owner.set(owner)
    try:
        yield
    finally:
        _current_owner.reset(token)


def remembered_by_text(function: Callable[[str], T]) -> Callable[[str], T]:
    """Remember the last results of a function, each for its text and its owner."""

    @lru_cache(maxsize=_MOST)
    def remembered(text: str, _owner: str) -> T:
        return function(text)

    @wraps(function)
    def call(text: str) -> T:
        return remembered(text, _current_owner.get())

    return call
