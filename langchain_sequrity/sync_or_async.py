"""Code that is written once, for synchronous calls and for event loops.

It is a coroutine with an argument `is_async`. In a synchronous call each of its `await`s gives a
result at once, so `run_to_end` runs it without an event loop.
"""

import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits for an event loop."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    msg = "A synchronous run cannot wait for an event loop."
    raise RuntimeError(msg)


async def call(receiver: Any, method: str, *args: Any, is_async: bool, **keywords: Any) -> Any:
    """Call a method of a store or a checkpointer, or its asynchronous form, such as `aget`.

    Args:
        receiver: The store or checkpointer.
        method: Name of the synchronous method.
        args: Its arguments.
        is_async: Whether to call the asynchronous form.
        keywords: Its keyword arguments.

    Returns:
        The result. All items of a generator: one that is left early keeps its connection to the
        database.
    """
    if not is_async:
        result = getattr(receiver, method)(*args, **keywords)
        return [*result] if hasattr(result, "__next__") else result
    result = getattr(receiver, f"a{method}")(*args, **keywords)
    return [item async for item in result] if hasattr(result, "__anext__") else await result


async def pause(seconds: float, *, is_async: bool) -> None:
    """Wait for some seconds."""
    if is_async:
        await anyio.sleep(seconds)
    else:
        time.sleep(seconds)  # noqa: ASYNC251 - there is no event loop
