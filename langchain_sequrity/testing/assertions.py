"""`assert_denied` and `assert_allowed`: functions, and context managers."""

import inspect
import warnings
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Any, Self, overload

from langchain_sequrity.errors import PolicyDenied, TurnFailed, UsageError
from langchain_sequrity.sqrt.nodes import Strength
from langchain_sequrity.testing.expected import Expected, Text
from langchain_sequrity.testing.outcomes import Came, TellsNothing, is_readable, read


class _Missing(Enum):
    """Tells a context manager from `assert_denied(None)`, which is a mistake."""

    MISSING = "missing"


_MISSING = _Missing.MISSING


class Watched:
    """The body of `with assert_denied():` or `with assert_allowed():`."""

    def __init__(self, expected: Expected) -> None:
        self._error: PolicyDenied | None = None
        self._expected = expected
        self._was_entered = False

    @property
    def error(self) -> PolicyDenied:
        """The denial that ended the body; raises `UsageError` where there is none."""
        if self._error is None:
            msg = "No denial ended the body. Read `error` after `with assert_denied():`."
            raise UsageError(msg)
        return self._error

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._was_entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Compare what ended the body with what was expected.

        Raises:
            AssertionError: If it is not as expected. Exceptions that are none of a turn go on.
        """
        __tracebackhide__ = True
        if isinstance(error, TurnFailed):
            _compare(self._expected, read(error), error)
            self._error = error if isinstance(error, PolicyDenied) else None
            return True
        if error is None and self._expected.kind == "denied":
            msg = (
                f"Expected: {self._expected.words}.\nCame: the body raised nothing. If denials are "
                "messages there, give `assert_denied` what came back."
            )
            raise AssertionError(msg)
        return False

    def __del__(self) -> None:
        """Warn of an assertion that was never made."""
        if not self._was_entered:
            name = f"assert_{self._expected.kind}"
            msg = f"`{name}(…)` was given nothing to look at. Write `with {name}(…):`."
            warnings.warn(msg, RuntimeWarning, stacklevel=1)


@overload
def assert_denied(
    *,
    tool: str | None = None,
    rule: Text | None = None,
    reason: Text | None = None,
    strength: Strength | None = None,
    certain: bool | None = None,
) -> Watched: ...


@overload
def assert_denied(
    what: object,
    *,
    tool: str | None = None,
    rule: Text | None = None,
    reason: Text | None = None,
    strength: Strength | None = None,
    certain: bool | None = None,
) -> None: ...


def assert_denied(
    what: object = _MISSING,
    *,
    tool: str | None = None,
    rule: Text | None = None,
    reason: Text | None = None,
    strength: Strength | None = None,
    certain: bool | None = None,
) -> Watched | None:
    """Assert that a policy denies a call.

    A turn that broke, a model that refused by itself and a call that was not reached are no
    denials.

    Args:
        what: A `Verdict`; a `Decision` or a `Simulation`, each call of which must be denied; a
            message of `ChatSequrity` or of `PolicyMiddleware`; the state of an agent, in whose last
            turn a call must be denied; the state of a graph that asks a human about a denied call;
            a `PolicyDenied`; or a function to call. Without it, what comes back is a context
            manager whose body must raise `PolicyDenied`.
        tool: The tool's name (or that of the node, for a graph).
        rule: A part of the text of a rule that decided, or a regex that is searched in it. White
            space counts as one space.
        reason: The same for that rule's reason, which is its doc comment.
        strength: `"hard"` or `"soft"`.
        certain: Whether the denial must be certain, or in doubt.

    Returns:
        Nothing, or the context manager; its `error` is the exception.

    Raises:
        AssertionError: If it is not as expected: what was expected, what came, and the rule.
        UsageError: If `what` tells nothing of a policy, or an option has no meaning.

    Example:
        ```python
        from langchain_sequrity.sqrt import simulate
        from langchain_sequrity.testing import assert_denied

        policy = '''
            tool "pay" {
                /// large sums need a signature
                must deny when euros.value in {int 100..};
            }
        '''
        calls = [{"tool": "pay", "arguments": {"euros": 500}}]
        assert_denied(simulate(policy, calls), tool="pay", reason="signature", strength="hard")
        ```
    """
    __tracebackhide__ = True
    return _assert(Expected("denied", tool, rule, reason, strength, certain), what)


@overload
def assert_allowed(
    *,
    tool: str | None = None,
    rule: Text | None = None,
    reason: Text | None = None,
    strength: Strength | None = None,
    certain: bool | None = None,
) -> Watched: ...


@overload
def assert_allowed(
    what: object,
    *,
    tool: str | None = None,
    rule: Text | None = None,
    reason: Text | None = None,
    strength: Strength | None = None,
    certain: bool | None = None,
) -> None: ...


def assert_allowed(
    what: object = _MISSING,
    *,
    tool: str | None = None,
    rule: Text | None = None,
    reason: Text | None = None,
    strength: Strength | None = None,
    certain: bool | None = None,
) -> Watched | None:
    """Assert that a policy allows a call.

    A turn that broke, a refusal and a call that was not reached are not allowed.

    Args:
        what: As for `assert_denied`. In a turn no call may be denied; with `tool`, none of that
            tool, and there must be one. A context manager sees exceptions only, and takes none of
            the options below: where denials are messages, give what came back.
        tool: The tool's name.
        rule: A part of the text of a rule that decided, or a regex.
        reason: The same for that rule's reason.
        strength: `"hard"` or `"soft"`.
        certain: Whether the permission must be certain, or in doubt.

    Returns:
        Nothing, or the context manager.

    Raises:
        AssertionError: If it is not as expected: what was expected, what came, and the rule.
        UsageError: If `what` tells nothing of a policy, or an option has no meaning.

    Example:
        ```python
        from langchain_sequrity.sqrt import simulate
        from langchain_sequrity.testing import assert_allowed

        policy = 'tool "pay" { must deny when euros.value in {int 100..}; }'
        calls = [{"tool": "pay", "arguments": {"euros": 5}}]
        assert_allowed(simulate(policy, calls), certain=True)
        ```
    """
    __tracebackhide__ = True
    expected = Expected("allowed", tool, rule, reason, strength, certain)
    if what is _MISSING and expected.has_details:
        _refuse_details()
    return _assert(expected, what)


def _assert(expected: Expected, what: object) -> Watched | None:
    __tracebackhide__ = True
    if what is _MISSING:
        return Watched(expected)
    if not is_readable(what) and callable(what):
        _call(expected, what)
    else:
        _compare(expected, read(what))
    return None


def _call(expected: Expected, function: Callable[[], Any]) -> None:
    __tracebackhide__ = True
    try:
        returned = function()
    except TurnFailed as error:
        _compare(expected, read(error), error)
        return
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        msg = (
            "The function returns something to await, so it has not run. Write "
            f"`with assert_{expected.kind}(…): await …`."
        )
        raise UsageError(msg)
    try:
        came = read(returned)
    except TellsNothing:
        _returned_nothing(expected, returned)
    else:
        _compare(expected, came)


def _returned_nothing(expected: Expected, returned: object) -> None:
    """What to make of a function that raised nothing, and returned nothing that tells of it."""
    __tracebackhide__ = True
    if expected.kind == "denied":
        msg = (
            f"Expected: {expected.words}.\nCame: the function raised nothing, and returned a value "
            f"of type `{type(returned).__name__}` that tells of no denial."
        )
        raise AssertionError(msg)
    if expected.has_details:
        _refuse_details()


def _refuse_details() -> None:
    msg = (
        "Nothing but an exception can be seen here, and what is allowed raises none. Leave out the "
        "options, or give `assert_allowed` what came back."
    )
    raise UsageError(msg)


def _compare(expected: Expected, came: Came, cause: BaseException | None = None) -> None:
    __tracebackhide__ = True
    if failure := expected.failure(came):
        raise AssertionError(failure) from cause
