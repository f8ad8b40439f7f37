"""Every exception of the package. The first branch says whose fault it was.

```
SequrityError (RuntimeError)
├── UsageError                   yours: a missing key, a wrong option, a pair that does not exist
│   ├── MissingExtra             an optional dependency that is not installed
│   ├── GraphNotSupported        a StateGraph, or a part of it, that cannot be a program
│   └── PolicySyntaxError        a policy text that is not SQRT, or means nothing
├── ServiceError                 theirs: the service or the way to it
│   ├── ConnectionFailed         [ModelConnectionError]  nothing was processed
│   ├── StreamInterrupted        [ModelConnectionError]  lost after sending; may have been processed
│   ├── TimedOut                 [ModelTimeoutError]
│   ├── BadReply                 [ModelAPIError]  not what the protocol promises
│   └── StatusError
│       ├── InvalidRequest       [ModelInvalidRequestError]  400, 405, 409, 413, 415, 422, 431
│       │   └── ContextTooLong   [ContextOverflowError]
│       ├── AuthenticationFailed [ModelAuthenticationError]  401
│       ├── PermissionDenied     [ModelPermissionDeniedError]  403
│       ├── NotFound             [ModelNotFoundError]  404
│       ├── RateLimited          [ModelRateLimitError]  429
│       ├── Overloaded           [ModelAPIError]  503, 529
│       └── ServerFailed         [ModelAPIError]  every other 5xx
└── TurnFailed                   the program's: the service worked, the turn did not
    ├── PolicyDenied             [ModelRefusalError]
    ├── ProgramFailed
    ├── EmptyTurn
    ├── ForcedToolMissing
    └── SessionExpired
```

In brackets: the LangChain exception that the class also is, so that LangChain's retry and
summarization middleware treat it correctly. No class is a `ValueError`: pydantic would swallow it.

Where LangGraph is loaded, a `TurnFailed` other than `ForcedToolMissing` is a `GraphBubbleUp` too.
What catches `Exception` in LangChain and LangGraph (fallback, retry and error middleware, retry
policies, `ToolNode`) lets these pass, so no other model or tool acts in the place of what a policy
denied. Those of a `LangGraphExecutor` are ordinary: it is a graph that a graph around may handle.

Two warnings: `PolicyMismatch` tells of a policy that does not do what it says, `UnknownAccess` of
a graph whose labels are coarse.
"""

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, cast

from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
    ModelRefusalError,
    ModelTimeoutError,
)

from langchain_sequrity.denials import NOT_REPORTED, Denial

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

__all__ = [
    "AuthenticationFailed",
    "BadReply",
    "ConnectionFailed",
    "ContextTooLong",
    "EmptyTurn",
    "ErrorReply",
    "ForcedToolMissing",
    "GraphNotSupported",
    "InvalidRequest",
    "MissingExtra",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "PolicyDenied",
    "PolicyMismatch",
    "PolicySyntaxError",
    "ProgramFailed",
    "RateLimited",
    "SequrityError",
    "ServerFailed",
    "ServiceError",
    "SessionExpired",
    "StatusError",
    "StreamInterrupted",
    "TimedOut",
    "TurnFailed",
    "UnknownAccess",
    "UsageError",
    "status_error",
]

_EMPTY: Mapping[str, str] = MappingProxyType({})
E = TypeVar("E", bound="TurnFailed")


def _restore(cls: type["SequrityError"], text: str, facts: dict[str, Any]) -> "SequrityError":
    error = cls.__new__(cls, text)
    error.args = (text,)
    error.__dict__.update(facts)
    return error


class SequrityError(RuntimeError):
    """Base of all errors of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by text and facts: keyword-only constructors do not survive the default way."""
        return _restore, (_public(type(self)), str(self), self.__dict__)


@cache
def _passing_through(cls: type["TurnFailed"], bubble: type[Exception]) -> type["TurnFailed"]:
    """The class that also is a `GraphBubbleUp`; it has the name and the pickles of `cls`."""
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls, bubble), {**names, "_public_class": cls})


def ordinary(error: E) -> E:
    """The same error as one that LangGraph's error handlers are asked about.

    `LangGraphExecutor` raises these: it is a graph, whose failure a graph around it may handle.
    """
    cls: Any = _public(type(error))
    if cls is type(error):
        return error
    made = cast("E", RuntimeError.__new__(cls, *error.args))
    made.__dict__.update(vars(error))
    return made


def _public(cls: type[SequrityError]) -> type[SequrityError]:
    """The class by which an error is pickled."""
    public: type[SequrityError] = vars(cls).get("_public_class", cls)
    return public


class UsageError(SequrityError):
    """The caller asked for something that cannot work; the text says what to do instead."""


class MissingExtra(UsageError):
    """An optional dependency is not installed; the text has the `pip install` line."""


class GraphNotSupported(UsageError):
    """A StateGraph does something that cannot be done under a policy; the text has the way out.

    Attributes:
        node: The node it is about, where there is one.
        edge: Both ends of the edge it is about, or source and name of the conditional edge.
    """

    def __init__(
        self, message: str, *, node: str | None = None, edge: tuple[str, str] | None = None
    ) -> None:
        """Build the error; the message already names node or edge."""
        super().__init__(message)
        self.node = node
        self.edge = edge


class PolicySyntaxError(UsageError):
    """A text is not a SQRT policy, or one that can have no meaning.

    Attributes:
        line: Line of the place, from 1.
        column: Column of the place, from 1.
        source: That line and, below it, a caret under the place.
        expected: What could stand there, in words; empty where the fault is one of meaning.
    """

    def __init__(
        self, message: str, *, line: int, column: int, source: str, expected: tuple[str, ...] = ()
    ) -> None:
        """Build the error; the text is the message followed by the line and its caret."""
        super().__init__(f"{message}\n{source}")
        self.line = line
        self.column = column
        self.source = source
        self.expected = expected


class ErrorReply:
    """The reply behind a `ServiceError`, in the shape LangChain's tracing looks for.

    Attributes:
        status_code: The HTTP status, or `None`.
        headers: Response headers that are safe to log.
        text: The body as text, with the caller's keys removed.
    """

    def __init__(self, status_code: int | None, headers: Mapping[str, str], body: Any) -> None:
        """Keep what is given; `body` is JSON or text."""
        self.status_code = status_code
        self.headers = headers
        self._body = body

    @property
    def text(self) -> str:
        """The body as text."""
        return self._body if isinstance(self._body, str) else json.dumps(self._body, default=str)

    def json(self) -> Any:
        """The body as JSON, or the text where it was none."""
        return self._body


class ServiceError(SequrityError):
    """The service, or the way to it, failed.

    Attributes:
        status: HTTP status, or `None` when there was no reply.
        request_id: The service's id of the request (header `X-Request-ID`), if it sent one.
        session_id: The session that was being used, if any.
        body: The reply's JSON (or text), with the caller's keys removed.
        retry_after: Seconds the service asked to wait, if it did.
        is_retryable: Whether sending the same request again is safe and may help. `False` for
            everything that may already have been processed inside a session.
        inside_reply: Whether the error stood inside a reply of status 2xx or a stream, so that the
            service had accepted the request.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        session_id: str | None = None,
        body: Any = None,
        headers: Mapping[str, str] = _EMPTY,
        retry_after: float | None = None,
        is_retryable: bool = False,
        inside_reply: bool = False,
    ) -> None:
        """Build the error; everything but the text is optional."""
        super().__init__(message)
        self.status = status
        self.request_id = request_id
        self.session_id = session_id
        self.body = body
        self.headers = dict(headers)
        self.retry_after = retry_after
        self.is_retryable = is_retryable
        self.inside_reply = inside_reply

    @property
    def status_code(self) -> int | None:
        """`status` under the name the OpenAI and Anthropic SDKs use."""
        return self.status

    @property
    def response(self) -> ErrorReply:
        """The reply in the shape that LangChain's tracing reads."""
        return ErrorReply(self.status, self.headers, self.body)


class ConnectionFailed(ServiceError, ModelConnectionError):
    """No connection was made, so nothing was processed."""


class StreamInterrupted(ServiceError, ModelConnectionError):
    """The connection broke after the request was sent; the turn may have been processed."""


class TimedOut(ServiceError, ModelTimeoutError):
    """A deadline passed: connecting, reading, the whole call, or silence within a stream."""


class BadReply(ServiceError, ModelAPIError):
    """The reply is not what the protocol promises (not JSON, cut short, an unknown shape)."""


class StatusError(ServiceError):
    """The service answered with an error status."""


class InvalidRequest(StatusError, ModelInvalidRequestError):
    """The service refused the request as malformed or out of place."""


class ContextTooLong(InvalidRequest, ContextOverflowError):
    """The conversation is longer than the model's context."""


class AuthenticationFailed(StatusError, ModelAuthenticationError):
    """The key is missing or wrong."""


class PermissionDenied(StatusError, ModelPermissionDeniedError):
    """The key is valid but may not do this."""


class NotFound(StatusError, ModelNotFoundError):
    """The address or the model does not exist."""


class RateLimited(StatusError, ModelRateLimitError):
    """Too many requests; `retry_after` has the wait in seconds if the service said so."""


class Overloaded(StatusError, ModelAPIError):
    """The service is temporarily out of capacity."""


class ServerFailed(StatusError, ModelAPIError):
    """The service failed."""


class TurnFailed(SequrityError):
    """The service worked, but this turn brought no answer.

    Attributes:
        message: The assistant message to append to the history so that the session goes on.
        session_id: The session of the turn.
        result: The `DualLLMResult` behind it, or `None`.
    """

    _ends_the_run: ClassVar[bool] = True

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Make an error that nothing in LangGraph takes for one to go on after."""
        # LangGraph is slow to import. Where it is not loaded, nothing can catch the error either.
        bubble = getattr(sys.modules.get("langgraph.errors"), "GraphBubbleUp", None)
        if bubble is None or not cls._ends_the_run or issubclass(cls, bubble):
            return super().__new__(cls)
        kind: Any = _passing_through(cast("Any", cls), bubble)
        return cast("Self", super().__new__(kind))

    def __init__(
        self,
        text: str,
        *,
        message: "AIMessage | None" = None,
        session_id: str | None = None,
        result: Any = None,
    ) -> None:
        """Build the error; everything but the text is optional."""
        super().__init__(text)
        self.message = message
        self.session_id = session_id
        self.result = result


class PolicyDenied(TurnFailed, ModelRefusalError):
    """A policy denied a tool call, or forbade the data that steers the program.

    Nothing of LangChain's falls back from it or tries again (`docs/behaviour.md`, P12).

    Attributes:
        denial: What was denied and why, as fields. The attributes below are the same.
        tool: Name of the tool whose call was denied, or "not reported".
        node: The node of a `LangGraphExecutor`'s graph behind the tool (of a router, the node that
            it follows), or `None`.
        arguments: The call's arguments by name; empty also if they are not reported.
        labels: The labels of each argument (`{"producers": […], "consumers": […], "tags": […]}`),
            likewise.
        rule: The rule that decided, or "not reported".
        line: The line of the rule in the policy, or `None`.
        reason: The reason in words, or "not reported".
        strength: `"hard"` or `"soft"`, or `None`.
        certain: Whether every reading of the policy denies the call, or `None`.
        program: The planner's program, if the service was asked to include it.
        checks: The policy check history as the service sent it, possibly empty.

    Example:
        ```python
        from langchain_sequrity.denials import Denial
        from langchain_sequrity.errors import PolicyDenied

        denial = Denial("pay", strength="hard", certain=True, reason="too much")
        error = PolicyDenied(denial=denial)
        assert (error.tool, error.reason, error.certain) == ("pay", "too much", True)
        assert str(error) == "The policy denied the call of `pay`: too much."
        ```
    """

    def __init__(
        self,
        text: str | None = None,
        *,
        denial: Denial | None = None,
        program: str | None = None,
        checks: tuple[Any, ...] = (),
        **facts: Any,
    ) -> None:
        """Build the error: its text is that of the denial unless one is given.

        `facts` are those of `TurnFailed`.
        """
        self.denial = Denial() if denial is None else denial
        TurnFailed.__init__(self, self.denial.text if text is None else text, **facts)
        self.raw_message = self.message
        self.program = program
        self.checks = checks

    @property
    def tool(self) -> str:
        """Name of the tool."""
        return self.denial.tool or NOT_REPORTED

    @property
    def node(self) -> str | None:
        """The node behind the tool."""
        return self.denial.node

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The call's arguments."""
        return self.denial.arguments or {}

    @property
    def labels(self) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """The labels of each argument."""
        return self.denial.labels or {}

    @property
    def rule(self) -> str:
        """The rule that decided."""
        return self.denial.rule or NOT_REPORTED

    @property
    def line(self) -> int | None:
        """The line of the rule in the policy."""
        return self.denial.line

    @property
    def reason(self) -> str:
        """The reason in words."""
        return self.denial.reason or NOT_REPORTED

    @property
    def strength(self) -> Literal["soft", "hard"] | None:
        """How strong the rule is."""
        return self.denial.strength

    @property
    def certain(self) -> bool | None:
        """Whether every reading of the policy denies the call."""
        return self.denial.certain


class EmptyTurn(TurnFailed):
    """Under a policy, a turn came back with no text, no tool call and no reason.

    How the service shows a denied call of a single-LLM session is not documented
    (`docs/protocol.md`), so it may be one; it is never an answer. `message` has the reply as it
    came.
    """


class ProgramFailed(TurnFailed):
    """The planner's program failed for another reason than a policy.

    Attributes:
        code: The service's error code, if any.
        program: The program, if the service was asked to include it.
        line: The line that failed, where known.
    """

    def __init__(
        self,
        text: str,
        *,
        code: str | None = None,
        program: str | None = None,
        line: int | None = None,
        **facts: Any,
    ) -> None:
        """Build the error; `facts` are those of `TurnFailed`."""
        super().__init__(text, **facts)
        self.code = code
        self.program = program
        self.line = line


class ForcedToolMissing(TurnFailed):
    """Structured output needed a tool call that did not come.

    Attributes:
        tool: The name of the tool that had to be called.
    """

    # The turn was allowed; only its shape is wrong, which another model may get right.
    _ends_the_run = False

    def __init__(self, text: str, *, tool: str, **facts: Any) -> None:
        """Build the error; `facts` are those of `TurnFailed`."""
        super().__init__(text, **facts)
        self.tool = tool


class SessionExpired(TurnFailed):
    """The service no longer knows the session.

    Start afresh with `session_id="new"`, or construct the model with
    `on_session_expired="restart"`. A turn that has made calls is not started afresh: find out what
    they did, and send a new message of the user that says what is left to do.
    """


class UnknownAccess(UserWarning):
    """It is not known what a node reads or writes, so its labels are those of the whole state."""


class PolicyMismatch(UserWarning):
    """A policy does not do what it says here: rules for what is not there, or never will be."""


_BETWEEN = frozenset({"langchain_sequrity", "pydantic", "langchain_core", "langchain", "langgraph"})


def warn(text: str, category: type[Warning]) -> None:
    """Warn at the line of the user's that led here, through whatever libraries.

    Args:
        text: The warning.
        category: Its class.
    """
    frame, level = sys._getframe(1), 2  # noqa: SLF001 - as `warnings` does it
    while frame.f_back is not None and _package(frame) in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


_BY_STATUS: Mapping[int, type[StatusError]] = MappingProxyType(
    {
        401: AuthenticationFailed,
        403: PermissionDenied,
        404: NotFound,
        429: RateLimited,
        503: Overloaded,
        529: Overloaded,
    }
)
_HTTP_SERVER_ERROR = 500


def status_error(status: int) -> type[StatusError]:
    """The class for an HTTP status of 400 and above."""
    return _BY_STATUS.get(status) or (
        ServerFailed if status >= _HTTP_SERVER_ERROR else InvalidRequest
    )
