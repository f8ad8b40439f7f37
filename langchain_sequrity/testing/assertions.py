"""`assert_denied` and `assert_allowed`: functions, and context managers.

What a test expects of a call, and what is not as expected.
"""

import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any, Literal, Self, get_args, overload

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicyDenied, TurnFailed, UsageError
from langchain_sequrity.sqrt.nodes import Strength
from langchain_sequrity.testing.outcomes import (
    Because,
    Came,
    Outcome,
    TellsNothing,
    is_readable,
    read,
)

Text = str | re.Pattern[str]
"""A part of a text, or a regex that is searched in it."""

_REPORT = (
    "not reported, so it cannot be compared; dual-LLM sessions report it with "
    '`session_config={"response_format": {"include_policy_check_history": True}}`'
)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a test expects.

    Attributes:
        kind: Whether the call is to be allowed or denied.
        tool: The tool's name.
        rule: Text of a rule that decided.
        reason: The reason of that rule.
        strength: `hard` or `soft`.
        certain: Whether every reading of the policy is to say the same.

    Raises:
        UsageError: For what cannot be expected.
    """

    kind: Literal["allowed", "denied"]
    tool: str | None = None
    rule: Text | None = None
    reason: Text | None = None
    strength: Strength | None = None
    certain: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what nothing could fail, or nothing could meet."""
        _check("tool", self.tool, str)
        _check("rule", self.rule, str, re.Pattern)
        _check("reason", self.reason, str, re.Pattern)
        _check("certain", self.certain, bool)
        if self.strength is not None and self.strength not in get_args(Strength):
            msg = f'`strength` is "hard" or "soft"; got {self.strength!r}.'
            raise UsageError(msg)

    @property
    def has_details(self) -> bool:
        """Whether more is expected than that the call is allowed or denied."""
        given = (self.tool, self.rule, self.reason, self.strength, self.certain)
        return any(one is not None for one in given)

    @property
    def words(self) -> str:
        """It as a list in words."""
        parts: list[str] = [self.kind]
        if self.tool is not None:
            parts.append(f"tool `{plain(self.tool)}`")
        if self.rule is not None:
            parts.append(f"a rule {_having(self.rule)}")
        if self.reason is not None:
            parts.append(f"a reason {_having(self.reason)}")
        if self.strength is not None:
            parts.append(self.strength)
        if self.certain is not None:
            parts.append("certain" if self.certain else "in doubt")
        return ", ".join(parts)

    def failure(self, came: Came) -> str:
        """What to tell of what is not as expected; an empty text if all is.

        Args:
            came: What came.
        """
        wrong = self._wrong_of_each(came) if came.is_each else self._wrong_of_turn(came)
        if not wrong:
            return ""
        lines = [f"Expected: {self.words}."]
        for number, outcome, differences in wrong:
            of = f" of call {number}" if len(came.outcomes) > 1 else ""
            lines += [f"Came{of}: {outcome.words}", f"Differs{of}: {'; '.join(differences)}."]
        return "\n".join([*lines, *([came.table] if came.table else [])])

    def _wrong_of_each(self, came: Came) -> list[tuple[int, Outcome, list[str]]]:
        """A simulation is what the test made it, so that all of it must be as expected."""
        compared = [
            (number, one, list(self._differences(one)))
            for number, one in enumerate(came.outcomes, 1)
        ]
        return [one for one in compared if one[2]]

    def _wrong_of_turn(self, came: Came) -> list[tuple[int, Outcome, list[str]]]:
        """One call of a turn must be as expected; that it is allowed, no call of it may refute."""
        compared = [
            (number, one, list(self._differences(one)))
            for number, one in enumerate(came.outcomes, 1)
        ]
        if self.kind == "allowed":
            refuting = [
                one for one in compared if one[1].kind != "allowed" and self._is_about(one[1])
            ]
            if refuting:
                return refuting
        return [] if any(not differences for *_, differences in compared) else compared

    def _is_about(self, outcome: Outcome) -> bool:
        return self.tool is None or not outcome.tools or self.tool in outcome.tools

    def _differences(self, outcome: Outcome) -> Iterator[str]:
        if outcome.kind == "neither":
            yield f"it is neither allowed nor denied, where {self.kind} is expected"
        elif outcome.kind != self.kind:
            yield f"it is {outcome.kind}"
        if self.tool is not None and self.tool not in outcome.tools:
            told = " or ".join(f"`{plain(one)}`" for one in outcome.tools)
            yield f"the tool is {told or 'not reported'}"
        if outcome.kind != self.kind:
            return  # what else it has belongs to another verdict
        yield from self._because(outcome.because)
        if self.strength not in (None, outcome.strength):
            yield f"the strength is {outcome.strength or _REPORT}"
        if self.certain not in (None, outcome.certain):
            told = {True: "certain", False: "in doubt", None: _REPORT}[outcome.certain]
            yield f"the verdict is {told}"

    def _because(self, because: tuple[Because, ...]) -> Iterator[str]:
        """One and the same rule must have the text and the reason."""
        if any(_fits(self.rule, one.rule) and _fits(self.reason, one.reason) for one in because):
            return
        if self.rule is not None:
            yield f"the rule is {_listed(one.rule for one in because)}"
        if self.reason is not None:
            yield f"the reason is {_listed(one.reason for one in because)}"


def _check(name: str, value: Any, *kinds: type) -> None:
    if value is None:
        return
    if not isinstance(value, kinds):
        wanted = " or ".join(f"`{kind.__name__}`" for kind in kinds)
        msg = f"`{name}`: expected {wanted}, got a value of type `{type(value).__name__}`."
        raise UsageError(msg)
    if value == "" or (isinstance(value, re.Pattern) and not value.pattern):
        msg = f"`{name}` is empty, which every text fits. Leave it out, or say what to look for."
        raise UsageError(msg)


def _having(text: Text) -> str:
    if isinstance(text, str):
        return f"with {plain(text)!r}"
    return f"that matches /{plain(str(text.pattern))}/"


def _fits(wanted: Text | None, text: str | None) -> bool:
    if wanted is None:
        return True
    if text is None:
        return False
    # A rule may be written over several lines.
    one_line = " ".join(text.split())
    if isinstance(wanted, str):
        return " ".join(wanted.split()) in one_line
    return wanted.search(one_line) is not None


def _listed(texts: Iterator[str | None]) -> str:
    found = [one for one in dict.fromkeys(texts) if one]
    told = " and ".join(f"`{plain(' '.join(one.split()), limit=300)}`" for one in found)
    return told or _REPORT


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
