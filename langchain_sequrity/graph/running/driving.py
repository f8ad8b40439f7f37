"""The two drivers of requests: what is to be sent is decided by a generator, once for both."""

from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from langchain_sequrity.errors import SequrityError
from langchain_sequrity.graph.running.exchange import Answer
from langchain_sequrity.wire.exchange import Call, Reply

if TYPE_CHECKING:
    from langchain_sequrity.transport import Transport

Work = Generator[tuple[Call, str | None], Answer, Any]
"""Yields a request and the session that it names, takes the answer, returns the node's update."""


class Read(Protocol):
    """Reads a reply."""

    def __call__(self, reply: Reply, session_id: str | None) -> Answer:
        """Read a reply to a request that names a session."""


def driven(work: Work, transport: "Transport", read: Read) -> Any:
    """Send what the work asks for.

    Args:
        work: The work.
        transport: Sends requests.
        read: Reads a reply in a session.

    Returns:
        What the work returns.
    """
    try:
        call, session = next(work)
        while True:
            try:
                answer = transport.send(call, partial(read, session_id=session))
            except SequrityError as error:
                call, session = work.throw(error)
            else:
                call, session = work.send(answer)
    except StopIteration as stop:
        return stop.value


async def adriven(work: Work, transport: "Transport", read: Read) -> Any:
    """Send what the work asks for; see `driven`."""
    try:
        call, session = next(work)
        while True:
            try:
                answer = await transport.asend(call, partial(read, session_id=session))
            except SequrityError as error:
                call, session = work.throw(error)
            else:
                call, session = work.send(answer)
    except StopIteration as stop:
        return stop.value
