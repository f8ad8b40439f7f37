"""Every exception of the package. The first level says who caused the error.

```
SequrityError (RuntimeError)
├── UsageError                   the caller: a missing key, a wrong option or combination
│   ├── MissingExtra             an optional dependency that is not installed
│   ├── UnsupportedVersion       a version of LangGraph without what this package needs
│   ├── GraphNotSupported        a StateGraph that cannot be converted to a program
│   └── PolicySyntaxError        a policy that is not valid SQRT
├── ServiceError                 the service, or the connection to it
│   ├── ConnectionFailed         [ModelConnectionError]  nothing was processed
│   ├── StreamInterrupted        [ModelConnectionError]  broken after sending
│   ├── TimedOut                 [ModelTimeoutError]
│   ├── BadReply                 [ModelAPIError]  a reply that violates the protocol
│   └── StatusError
│       ├── InvalidRequest       [ModelInvalidRequestError]  400, and every other 4xx
│       │   └── ContextTooLong   [ContextOverflowError]
│       ├── AuthenticationFailed [ModelAuthenticationError]  401
│       ├── PermissionDenied     [ModelPermissionDeniedError]  403
│       ├── NotFound             [ModelNotFoundError]  404
│       ├── RateLimited          [ModelRateLimitError]  429
│       ├── Overloaded           [ModelAPIError]  503, 529
│       └── ServerFailed         [ModelAPIError]  every other 5xx
└── TurnFailed                   the turn: the service worked, but gave no answer
    ├── PolicyDenied             [ModelRefusalError]
    ├── ProgramFailed
    ├── EmptyTurn
    ├── ForcedToolMissing
    ├── SessionExpired
    └── SessionLost
```

In brackets: the LangChain exception from which the class also inherits, so that LangChain's retry
and summarization middleware handle it correctly. No class is a `ValueError`, which pydantic would
convert.

If LangGraph is loaded, each `TurnFailed` other than `ForcedToolMissing` is also a `GraphBubbleUp`.
Fallback, retry and error middleware, retry policies and `ToolNode` pass these on, so no other model
or tool replaces what a policy denied. Exceptions of a `LangGraphExecutor` are ordinary ones: an
outer graph may handle them.

Two warnings: `PolicyMismatch` for an ineffective policy, `UnknownAccess` for a graph whose labels
are imprecise.
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
    "SessionLost",
    "StatusError",
    "StreamInterrupted",
    "TimedOut",
    "TurnFailed",
    "UnknownAccess",
    "UnsupportedVersion",
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
    """Make a subclass of `cls` and `GraphBubbleUp`, with the name and the pickles of `cls`."""
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls, bubble), {**names, "_public_class": cls})


def ordinary(error: E) -> E:
    """The same error, but not a `GraphBubbleUp`, so that LangGraph calls its error handlers.

    `LangGraphExecutor` raises such errors, because an outer graph may handle its failure.
    """
    cls: Any = _public(type(error))
    if cls is type(error):
        return error
    copy = cast("E", RuntimeError.__new__(cls, *error.args))
    copy.__dict__.update(vars(error))
    return copy


def _public(cls: type[SequrityError]) -> type[SequrityError]:
    """The class by which an error is pickled."""
    public: type[SequrityError] = vars(cls).get("_public_class", cls)
    return public


class UsageError(SequrityError):
    """The caller's request cannot work; the text has advice."""


class MissingExtra(UsageError, ImportError):
    """An optional dependency is not installed; the text has the `pip install` command."""


class UnsupportedVersion(UsageError, ImportError):
    """The installed LangGraph or LangChain lacks a part; the text has the versions that have it."""


class GraphNotSupported(UsageError):
    """A StateGraph uses a feature that a policy cannot control; the text has advice.

    Attributes:
        node: The node that causes the error, if there is one.
        edge: Both ends of the edge that causes it, or source and name of the conditional edge.
    """

    def __init__(
        self, message: str, *, node: str | None = None, edge: tuple[str, str] | None = None
    ) -> None:
        """Build the error; the message already names node or edge."""
        super().__init__(message)
        self.node = node
        self.edge = edge


class PolicySyntaxError(UsageError):
    """A text is not a valid SQRT policy: its syntax is wrong, or it cannot have a meaning.

    Attributes:
        line: Line of the place, from 1.
        column: Column of the place, from 1.
        source: That line and, below it, a caret under the place.
        expected: What could stand there, in words; empty if the syntax is right.
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
    """The reply behind a `ServiceError`, in the form that LangChain's tracing reads.

    Attributes:
        status_code: The HTTP status, or `None`.
        headers: Response headers that are safe to log.
        text: The body as text, with the caller's keys removed.
    """

    def __init__(self, status_code: int | None, headers: Mapping[str, str], body: Any) -> None:
        """Store the reply; `body` is JSON or text."""
        self.status_code = status_code
        self.headers = headers
        self._body = body

    @property
    def text(self) -> str:
        """The body as text."""
        return self._body if isinstance(self._body, str) else json.dumps(self._body, default=str)

    def json(self) -> Any:
        """The body as JSON, or its text if it is not JSON."""
        return self._body


class ServiceError(SequrityError):
    """The service failed, or the connection to it.

    Attributes:
        status: HTTP status, or `None` when there was no reply.
        request_id: The service's id of the request (header `X-Request-ID`), if it sent one.
        session_id: The session of the request, if any.
        body: The reply's JSON (or text), with the caller's keys removed.
        retry_after: Seconds to wait, if the service sent them.
        is_retryable: Whether the same request can be sent again safely and may succeed. `False` for
            every request that may have been processed inside a session.
        headers: Response headers that are safe to log.
        inside_reply: Whether the error was inside a reply of status 2xx or a stream. Then the
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
        """Build the error from its text (`message`) and its attributes."""
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
        """`status` under the name in the OpenAI and Anthropic SDKs."""
        return self.status

    @property
    def response(self) -> ErrorReply:
        """The reply in the form that LangChain's tracing reads."""
        return ErrorReply(self.status, self.headers, self.body)


class ConnectionFailed(ServiceError, ModelConnectionError):
    """There was no connection, so nothing was processed."""


class StreamInterrupted(ServiceError, ModelConnectionError):
    """The connection broke after the request was sent; the turn may have been processed."""


class TimedOut(ServiceError, ModelTimeoutError):
    """A time limit passed: for connecting, reading, the whole call, or a pause in a stream."""


class BadReply(ServiceError, ModelAPIError):
    """The reply violates the protocol: it is not JSON, incomplete, or has an unknown form."""


class StatusError(ServiceError):
    """The service answered with an error status."""


class InvalidRequest(StatusError, ModelInvalidRequestError):
    """The service rejected the request as invalid."""


class ContextTooLong(InvalidRequest, ContextOverflowError):
    """The conversation is longer than the model's context."""


class AuthenticationFailed(StatusError, ModelAuthenticationError):
    """The key is missing or wrong."""


class PermissionDenied(StatusError, ModelPermissionDeniedError):
    """The key is valid, but has no permission for this request."""


class NotFound(StatusError, ModelNotFoundError):
    """The address or the model does not exist."""


class RateLimited(StatusError, ModelRateLimitError):
    """Too many requests; `retry_after` has the seconds to wait if the service sent them."""


class Overloaded(StatusError, ModelAPIError):
    """The service is temporarily out of capacity."""


class ServerFailed(StatusError, ModelAPIError):
    """The service failed."""


class TurnFailed(SequrityError):
    """The service worked, but the turn gave no answer.

    Attributes:
        message: The assistant message to append to the history, to continue the session.
        session_id: The session of the turn.
        result: The `DualLLMResult` behind it, or `None`.
    """

    _ends_the_run: ClassVar[bool] = True

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Make an error that LangGraph passes on in every case."""
        # LangGraph is slow to import. If it is not loaded, none of its code can catch the error.
        bubble = getattr(sys.modules.get("langgraph.errors"), "GraphBubbleUp", None)
        if bubble is None or not cls._ends_the_run or issubclass(cls, bubble):
            return super().__new__(cls)
        subclass: Any = _passing_through(cast("Any", cls), bubble)
        return cast("Self", super().__new__(subclass))

    def __init__(
        self,
        text: str,
        *,
        message: "AIMessage | None" = None,
        session_id: str | None = None,
        result: Any = None,
    ) -> None:
        """Build the error from its text (`message`) and its attributes."""
        super().__init__(text)
        self.message = message
        self.session_id = session_id
        self.result = result


class PolicyDenied(TurnFailed, ModelRefusalError):
    """A policy denied a tool call, or a branch of the program on labelled data.

    LangChain's fallbacks and retries pass it on (`docs/behaviour.md`, P12).

    Attributes:
        denial: The denial. The attributes below are its fields.
        tool: Name of the tool whose call was denied, or "not reported".
        node: The node behind the tool in a graph of `LangGraphExecutor` (for a router, the node
            before it), or `None`.
        arguments: The call's arguments by name; empty if they are not reported.
        labels: The labels of each argument (`{"producers": […], "consumers": […], "tags": […]}`);
            empty if they are not reported.
        rule: The rule that decided, or "not reported".
        line: The line of the rule in the policy, or `None`.
        policy: The name of the policy that decided, if several are combined, or `None`.
        reason: The reason in words. Without a comment of the rule it says which rule decided, or
            "not reported".
        strength: `"hard"` or `"soft"`, or `None`.
        certain: Whether every reading of the policy denies the call, or `None`.
        program: The planner's program, if the service was asked to include it.
        checks: The policy check history from the service; may be empty.
        approval: With `on_denied="interrupt"` of a chat model outside of LangGraph, how to approve
            or reject the call (`Approval`); otherwise `None`.

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
        """Build the error. Its default text is that of the denial.

        `facts` are arguments of `TurnFailed`.
        """
        self.denial = Denial() if denial is None else denial
        TurnFailed.__init__(self, self.denial.text if text is None else text, **facts)
        self.raw_message = self.message
        self.program = program
        self.checks = checks
        self.approval: Any = None

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
    def policy(self) -> str | None:
        """The name of the policy that decided."""
        return self.denial.policy

    @property
    def line(self) -> int | None:
        """The line of the rule in the policy."""
        return self.denial.line

    @property
    def reason(self) -> str:
        """The reason in words, or the rule that decided."""
        return self.denial.reason or self.denial.rule_as_reason or NOT_REPORTED

    @property
    def strength(self) -> Literal["soft", "hard"] | None:
        """The strength of the rule."""
        return self.denial.strength

    @property
    def certain(self) -> bool | None:
        """Whether every reading of the policy denies the call."""
        return self.denial.certain


class EmptyTurn(TurnFailed):
    """Under a policy, a turn has no text, no tool call and no reason.

    The service does not document how a single-LLM session reports a denied call
    (`docs/protocol.md`). So this may be a denial, and it is never an answer. `message` has the
    unchanged reply.
    """


class ProgramFailed(TurnFailed):
    """The planner's program failed, and no policy was the cause.

    Attributes:
        code: The service's error code, if any.
        program: The program, if the service was asked to include it.
        line: The line that failed, if it is known.
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
        """Build the error from its `text`; `facts` are arguments of `TurnFailed`."""
        super().__init__(text, **facts)
        self.code = code
        self.program = program
        self.line = line


class ForcedToolMissing(TurnFailed):
    """The request requires a tool call, such as for structured output, and the reply has none.

    Attributes:
        tool: The name of the tool that had to be called. If it could be any of several, all names,
            separated by commas.
    """

    # The turn was allowed. Only its form is wrong, and another model may do better.
    _ends_the_run = False

    def __init__(self, text: str, *, tool: str, **facts: Any) -> None:
        """Build the error from its `text`; `facts` are arguments of `TurnFailed`."""
        super().__init__(text, **facts)
        self.tool = tool


class SessionExpired(TurnFailed):
    """The service no longer knows the session.

    Start a new session with `session_id="new"`, or construct the model with
    `on_session_expired="restart"`. A turn that has made calls is not restarted: check what they
    did, and send a new user message with the remaining work.
    """


class SessionLost(TurnFailed):
    """The policy has rules on the session, and this conversation cannot continue its session.

    A new session would forget what the rules read: its tags, and the attempts that they count. So
    no call was made. The text says what was lost, and what to do. `session_id="new"` of a call, or
    `on_session_lost="restart"` of the model or the middleware, accepts the loss.

    `session_id` is the session that is lost, if it is known.
    """


class UnknownAccess(UserWarning):
    """Reads or writes of a node are unknown, so more labels are joined than may be needed."""


class PolicyMismatch(UserWarning):
    """A policy is ineffective: it has rules for tools, arguments or labels that never exist."""


_BETWEEN = frozenset({"langchain_sequrity", "pydantic", "langchain_core", "langchain", "langgraph"})


def warn(text: str, category: type[Warning]) -> None:
    """Warn at the line of the user's code, outside of all libraries.

    Args:
        text: The warning.
        category: Its class.
    """
    frame, level = sys._getframe(1), 2  # noqa: SLF001 - `warnings` does the same
    while frame.f_back is not None and _package(frame) in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


_BY_STATUS: Mapping[int, type[StatusError]] = {
    401: AuthenticationFailed,
    403: PermissionDenied,
    404: NotFound,
    429: RateLimited,
    503: Overloaded,
    529: Overloaded,
}
_HTTP_SERVER_ERROR = 500


def status_error(status: int) -> type[StatusError]:
    """The class for an HTTP status of 400 and above."""
    return _BY_STATUS.get(status) or (
        ServerFailed if status >= _HTTP_SERVER_ERROR else InvalidRequest
    )
