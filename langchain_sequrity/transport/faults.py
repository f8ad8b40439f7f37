"""The one door through which the network's exceptions become ours.

Exceptions of httpx hold the request and thereby the keys. So ours are unlinked from them: neither
`__cause__` nor `__context__` leads there.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType

import httpcore
import httpx

from langchain_sequrity.errors import (
    BadReply,
    ConnectionFailed,
    SequrityError,
    StreamInterrupted,
    TimedOut,
    UsageError,
)
from langchain_sequrity.transport.replies import complete, failure
from langchain_sequrity.transport.requests import Origin
from langchain_sequrity.transport.timeouts import Deadline
from langchain_sequrity.wire.exchange import Reply

Fault = BaseException
Translate = Callable[[Fault, Deadline, Origin], SequrityError]


def _not_connected(fault: Fault, _deadline: Deadline, origin: Origin) -> SequrityError:
    reason = str(fault) or type(fault).__name__
    msg = f"No connection to `{origin}`: {reason}. Check address, network and proxy settings."
    return ConnectionFailed(msg, is_retryable=True)


def _connecting_timed_out(_fault: Fault, deadline: Deadline, origin: Origin) -> SequrityError:
    limit = _limit(deadline, "`connect`")
    msg = f"No connection to `{origin}` within {limit}. Check the network, or allow more time."
    return TimedOut(msg, is_retryable=True)


def _waited_for_the_pool(_fault: Fault, deadline: Deadline, origin: Origin) -> SequrityError:
    limit = _limit(deadline, "`pool`")
    msg = f"No free connection to `{origin}` within {limit}. Make fewer calls at a time."
    return TimedOut(msg, is_retryable=True)


def _timed_out(_fault: Fault, deadline: Deadline, origin: Origin) -> SequrityError:
    limit = _limit(deadline, "`read` or `write`")
    msg = f"`{origin}` did not answer within {limit}. Allow more time with `timeout`."
    passed = deadline.passed()
    if passed and passed[0] == "silence":
        msg = (
            f"The stream from `{origin}` brought no event for {passed[1]:g} s. Allow more time "
            "with `stream_chunk_timeout`."
        )
    return TimedOut(msg)


def _limit(deadline: Deadline, otherwise: str) -> str:
    passed = deadline.passed()
    return f"{passed[1]:g} s" if passed else f"the time limit {otherwise}"


def _lost(fault: Fault, _deadline: Deadline, origin: Origin) -> SequrityError:
    reason = str(fault) or type(fault).__name__
    msg = (
        f"The connection to `{origin}` was lost: {reason}. The request may have been processed; "
        "look before you send it again."
    )
    return StreamInterrupted(msg)


def _not_sendable(_fault: Fault, _deadline: Deadline, origin: Origin) -> SequrityError:
    # The library's text quotes the header, which may be a key.
    msg = f"The request to `{origin}` is not valid HTTP. Check the headers you gave."
    return UsageError(msg)


def _bad_reply(fault: Fault, _deadline: Deadline, origin: Origin) -> SequrityError:
    msg = f"The reply of `{origin}` cannot be used ({type(fault).__name__}). Check `base_url`."
    return BadReply(msg)


def _raised_by_a_hook(fault: Fault, _deadline: Deadline, origin: Origin) -> SequrityError:
    response: httpx.Response = fault.response  # type: ignore[attr-defined]  # HTTPStatusError's
    head = Reply(response.status_code, response.headers)
    error = failure(head) or BadReply(f"A hook refused the reply of `{origin}`.")
    complete(error, head)
    return error


# Most specific first. httpx's classes come from injected clients and where a proxy applies,
# httpcore's from our own pool.
TRANSLATIONS: Mapping[tuple[type[Exception], ...], Translate] = MappingProxyType(
    {
        (httpx.ConnectTimeout, httpcore.ConnectTimeout): _connecting_timed_out,
        (httpx.PoolTimeout, httpcore.PoolTimeout): _waited_for_the_pool,
        (httpx.TimeoutException, httpcore.TimeoutException): _timed_out,
        (httpx.ConnectError, httpcore.ConnectError): _not_connected,
        (httpx.ProxyError, httpcore.ProxyError): _not_connected,
        (httpx.UnsupportedProtocol, httpcore.UnsupportedProtocol): _not_connected,
        (httpx.LocalProtocolError, httpcore.LocalProtocolError): _not_sendable,
        (httpx.InvalidURL,): _not_sendable,
        (httpx.NetworkError, httpcore.NetworkError): _lost,
        (httpx.ProtocolError, httpcore.ProtocolError): _lost,
        (httpx.HTTPStatusError,): _raised_by_a_hook,
        (httpx.HTTPError,): _bad_reply,
        (OSError,): _lost,  # from TLS, where httpcore does not translate it
    }
)


def translate(fault: Fault, deadline: Deadline, origin: Origin) -> SequrityError | None:
    """Return our exception for one of the network's.

    Args:
        fault: What was raised.
        deadline: The clock of the call, to say which limit has passed.
        origin: Where the call goes, for the text.

    Returns:
        The exception, or `None` where the fault is not the network's but a programming error.
    """
    for kinds, make in TRANSLATIONS.items():
        if isinstance(fault, kinds):
            return make(fault, deadline, origin)
    return None


class MappedErrors:
    """Context manager around everything that touches the network.

    Args:
        deadline: The clock of the call.
        origin: Where the call goes, for the text.
    """

    __slots__ = ("_deadline", "_origin")

    def __init__(self, deadline: Deadline, origin: Origin) -> None:
        self._deadline = deadline
        self._origin = origin

    def __enter__(self) -> None:
        """Nothing is needed."""

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        fault: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Raise our exception in place of the network's; let all others pass."""
        if fault is None:
            return
        error = translate(fault, self._deadline, self._origin)
        if error is None:
            return
        del fault  # tools that show the local variables of a traceback would show it
        try:
            raise error
        finally:
            error.__context__ = None  # set by `raise`, also by `raise … from None`
