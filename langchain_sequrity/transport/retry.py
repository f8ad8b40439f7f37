"""Failed calls: the causes of failure, and whether and when the call is sent again.

An exception of the network or an error status becomes an exception of this package. A turn that may
call tools is sent again only if the service surely did not process it. `RetryState` alone decides
this (`docs/behaviour.md`, Retries).

Exceptions of httpx hold the request and so the keys. Ours do not refer to them, neither by
`__cause__` nor by `__context__`.
"""

import logging
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import httpcore
import httpx
import orjson

from langchain_sequrity.errors import (
    BadReply,
    ConnectionFailed,
    RateLimited,
    SequrityError,
    ServiceError,
    StatusError,
    StreamInterrupted,
    TimedOut,
    UsageError,
)
from langchain_sequrity.transport.http11 import Origin
from langchain_sequrity.transport.timeouts import Deadline
from langchain_sequrity.wire.error_body import error_from_body
from langchain_sequrity.wire.exchange import Reply

_log = logging.getLogger(__name__)

_TEMPORARY = frozenset({408, 429, 500, 502, 503, 504, 529})
"""Statuses after which another attempt may succeed."""
_OK, _REDIRECT, _ERROR, _CONFLICT = 200, 300, 400, 409
_LONGEST_TEXT_BODY = 10_000
_NOT_LOGGED = frozenset({"set-cookie", "set-cookie2"})


# Retries


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and when to try again; times are in seconds.

    Attributes:
        max_retries: Attempts after the first.
        first_wait: Longest wait before the first retry; it doubles with each further retry.
        longest_wait: Limit of that doubling.
        longest_retry_after: If the service asks to wait longer, the error is raised at once.
        random: Gives a number from 0 to 1. Each wait is multiplied by it, so that clients that
            failed together do not all come back together.

    Example:
        ```python
        from langchain_sequrity.transport import RetryPolicy

        assert RetryPolicy(first_wait=0.5, random=lambda: 1.0).wait(3) == 4.0
        ```
    """

    max_retries: int = 2
    first_wait: float = 0.5
    longest_wait: float = 8.0
    longest_retry_after: float = 60.0
    random: Callable[[], float] = field(default=random.random, repr=False, compare=False)

    def wait(self, retry: int) -> float:
        """Seconds to wait before a retry, counted from 0, if the service names no time."""
        return min(self.longest_wait, self.first_wait * 2.0**retry) * self.random()


class RetryState:
    """The attempts of one call.

    Args:
        policy: How often and when to try again.
        deadline: The deadline of the call, waits included.
        resend: Whether the call may be sent again after it may have been processed.

    Attributes:
        deadline: The deadline.
        head: Status and headers of this attempt's reply, once they have come.
        output: Whether a part of the reply has been yielded. Then nothing is sent again.
    """

    __slots__ = ("_count", "_policy", "_resend", "deadline", "head", "output")

    def __init__(self, policy: RetryPolicy, deadline: Deadline, *, resend: bool) -> None:
        self._policy = policy
        self._resend = resend
        self._count = 0
        self.deadline = deadline
        self.head: Reply | None = None
        self.output = False

    def wait_after(self, error: SequrityError) -> float | None:
        """Decide whether to try again after an error.

        Args:
            error: The error that ended the attempt. `is_retryable` is set on a `ServiceError`.

        Returns:
            Seconds to wait before the next attempt, or `None` if the error is to be raised.
        """
        if not isinstance(error, ServiceError):
            return None
        error.is_retryable = not self.output and self._may_be_sent_again(error)
        wait = self._policy.wait(self._count) if error.retry_after is None else error.retry_after
        if (
            not error.is_retryable
            or self._count >= self._policy.max_retries
            or (error.retry_after or 0) > self._policy.longest_retry_after
            or wait >= self.deadline.remaining()
        ):
            return None
        self._count += 1
        self.head = None
        self.deadline.start_attempt()
        _log.info("Retrying in %.2f s after %s.", wait, type(error).__name__)
        return wait

    def _may_be_sent_again(self, error: ServiceError) -> bool:
        if error.headers.get("x-should-retry") == "false":
            return False
        if error.is_retryable or (isinstance(error, RateLimited) and not error.inside_reply):
            return True  # never connected, or refused before it was read
        if isinstance(error, StatusError):
            if (
                error.status == _CONFLICT
                and error.retry_after is not None
                and not error.inside_reply
            ):
                return True  # another attempt of this call has not ended; their key is the same
            return self._resend and error.status in _TEMPORARY
        return self._resend and isinstance(error, StreamInterrupted | TimedOut)


# Failures that a reply states


def is_success(head: Reply) -> bool:
    """Whether the status is 2xx."""
    return _OK <= head.status < _REDIRECT


def failure(reply: Reply) -> ServiceError | None:
    """The error that a whole reply states; `None` for status 2xx."""
    if is_success(reply):
        return None
    if reply.status >= _ERROR:
        return error_from_body(reply.status, _body(reply.body))
    msg = (
        f"The reply has status {reply.status} and leads to {_redirect_target(reply)}. Redirects "
        "are not followed, since keys and policies would be sent there. Correct `base_url`."
    )
    return BadReply(msg)


def _redirect_target(reply: Reply) -> str:
    try:
        url = httpx.URL(reply.headers.get("location", ""))
        has_host = bool(url.host)  # decodes it: a host such as `xn--` is read here only
    except (httpx.InvalidURL, UnicodeError):
        return "an unreadable address"
    return f"`{url.scheme}://{url.netloc.decode()}`" if has_host else "another path"


def _body(data: bytes) -> object:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return data.decode(errors="replace")[:_LONGEST_TEXT_BODY]


def add_reply_facts(error: ServiceError, head: Reply) -> None:
    """Add status and headers of the reply to an error.

    Args:
        error: The error, raised by the transport or by a reader.
        head: Status and headers.
    """
    headers = head.headers
    error.status = head.status if error.status is None else error.status
    error.request_id = error.request_id or headers.get("x-request-id") or headers.get("request-id")
    if head.has_usable_session:
        error.session_id = error.session_id or headers.get("x-session-id")
    if not error.headers:
        lowered = {name.lower(): value for name, value in headers.items()}
        error.headers = {name: lowered[name] for name in lowered if name not in _NOT_LOGGED}
    if error.retry_after is None:
        error.retry_after = _retry_after(headers)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply asks to wait, 0 for a past date; `None` if it does not ask."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


# Failures of the network


def network_error(  # noqa: PLR0911 - one case after the other
    fault: BaseException, deadline: Deadline, origin: Origin
) -> SequrityError | None:
    """Return our exception for an exception of the network.

    A client of the caller or behind a proxy raises the classes of httpx, our own pool those of
    httpcore.

    Args:
        fault: The exception that was raised.
        deadline: The deadline of the call; the text names the limit that has passed.
        origin: The origin of the request, for the text.

    Returns:
        The exception, or `None` for a programming error.
    """
    name, passed = type(fault).__name__, deadline.passed()
    reason = str(fault) or name
    limit = f"{passed[1]:g} s" if passed else "the time limit {}"
    match fault:
        case httpx.ConnectTimeout() | httpcore.ConnectTimeout():
            within = limit.format("`connect`")
            msg = (
                f"No connection to `{origin}` within {within}. Check the network, or allow more "
                "time."
            )
            return TimedOut(msg, is_retryable=True)
        case httpx.PoolTimeout() | httpcore.PoolTimeout():
            within = limit.format("`pool`")
            msg = f"No free connection to `{origin}` within {within}. Make fewer calls at a time."
            return TimedOut(msg, is_retryable=True)
        case httpx.TimeoutException() | httpcore.TimeoutException():
            within = limit.format("`read` or `write`")
            msg = f"`{origin}` did not answer within {within}. Allow more time with `timeout`."
            if passed and passed[0] == "silence":
                msg = f"The stream from `{origin}` brought no event for {within}. "
                msg += "Allow more time with `stream_chunk_timeout`."
            return TimedOut(msg)
        case (
            (httpx.ConnectError() | httpcore.ConnectError())
            | (httpx.ProxyError() | httpcore.ProxyError())
            | (httpx.UnsupportedProtocol() | httpcore.UnsupportedProtocol())
        ):
            msg = (
                f"No connection to `{origin}`: {reason}. Check address, network and proxy settings."
            )
            return ConnectionFailed(msg, is_retryable=True)
        case httpx.LocalProtocolError() | httpcore.LocalProtocolError() | httpx.InvalidURL():
            # The library's text quotes the header, which may be a key.
            return UsageError(
                f"The request to `{origin}` is not valid HTTP. Check the headers you gave."
            )
        case (
            (httpx.NetworkError() | httpcore.NetworkError())
            | (httpx.ProtocolError() | httpcore.ProtocolError())
            | OSError()  # from TLS, which httpcore does not always translate
        ):
            msg = (
                f"The connection to `{origin}` was lost: {reason}. The request may have been "
                "processed; check that before you send it again."
            )
            return StreamInterrupted(msg)
        case httpx.HTTPStatusError(response=response):  # from a hook of the caller's client
            head = Reply(response.status_code, response.headers)
            error = failure(head) or BadReply(f"A hook refused the reply of `{origin}`.")
            add_reply_facts(error, head)
            return error
        case httpx.HTTPError():
            return BadReply(f"The reply of `{origin}` cannot be used ({name}). Check `base_url`.")
    return None


class MappedErrors:
    """Context manager around all code that touches the network; it raises our exceptions.

    Args:
        deadline: The deadline of the call.
        origin: The origin of the request, for the text.
    """

    __slots__ = ("_deadline", "_origin")

    def __init__(self, deadline: Deadline, origin: Origin) -> None:
        self._deadline = deadline
        self._origin = origin

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _type: object, fault: BaseException | None, _traceback: object) -> None:
        """Replace an exception of the network by ours; let all others pass."""
        if fault is None:
            return
        error = network_error(fault, self._deadline, self._origin)
        if error is not None:
            raise error  # the transport clears its context and its traceback
