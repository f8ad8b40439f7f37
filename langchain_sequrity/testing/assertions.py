"""`assert_denied` and `assert_allowed`, as functions and as context managers."""

import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, TypedDict, Unpack, get_args, overload

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicyDenied, TurnFailed, UsageError
from langchain_sequrity.sqrt.nodes import Strength
from langchain_sequrity.testing.call_recorder import CallRecorder
from langchain_sequrity.testing.outcomes import (
    CallOutcome,
    DecidingRule,
    Outcomes,
    UnrelatedValue,
    is_readable,
    read_outcomes,
)

Text = str | re.Pattern[str]
"""A part of a text, or a regex to search in it."""

_REPORT = (
    "not reported and cannot be compared; dual-LLM sessions report it with "
    '`session_config={"response_format": {"include_policy_check_history": True}}`'
)


_NO_CALL = (
    "Look at what the model or the script did. The last message of a dual-LLM turn reports its "
    "calls only with `include_policy_check_history`: otherwise pass the state of the agent."
)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a test expects.

    Attributes:
        verdict: Whether the call must be allowed or denied.
        tool: The tool's name.
        rule: Text of a rule that decided.
        reason: The reason of that rule.
        strength: `hard` or `soft`.
        certain: Whether every reading of the policy must give the same verdict.

    Raises:
        UsageError: For an invalid expectation.
    """

    verdict: Literal["allowed", "denied"]
    tool: str | None = None
    rule: Text | None = None
    reason: Text | None = None
    strength: Strength | None = None
    certain: bool | None = None

    def __post_init__(self) -> None:
        """Check types and values, so that an assertion can both pass and fail."""
        _check("tool", self.tool, str)
        _check("rule", self.rule, str, re.Pattern)
        _check("reason", self.reason, str, re.Pattern)
        _check("certain", self.certain, bool)
        if self.strength is not None and self.strength not in get_args(Strength):
            msg = f'`strength` must be "hard" or "soft"; got {self.strength!r}.'
            raise UsageError(msg)

    @property
    def has_details(self) -> bool:
        """Whether more is expected than `verdict`."""
        return self.text != self.verdict

    @property
    def text(self) -> str:
        """The expectation in words."""
        parts = [
            self.verdict,
            None if self.tool is None else f"tool `{plain(self.tool)}`",
            None if self.rule is None else f"a rule {_pattern_words(self.rule)}",
            None if self.reason is None else f"a reason {_pattern_words(self.reason)}",
            self.strength,
            {True: "certain", False: "in doubt", None: None}[self.certain],
        ]
        return ", ".join(filter(None, parts))

    def failure(self, got: Outcomes) -> str:
        """The message of the assertion, or an empty text if all is as expected.

        Args:
            got: What the test got.
        """
        if not got.calls:
            answers = " ".join(outcome.sentence for outcome in got.outcomes)
            result = f"Got: no call, so there is nothing to check. {answers}".rstrip()
            return "\n".join([f"Expected: {self.text}.", result, _NO_CALL])
        wrong = [
            (number, outcome, differences)
            for number, outcome in enumerate(got.calls, 1)
            if (differences := list(self._differences(outcome)))
        ]
        if not got.is_each:
            # One call of the turn must be as expected, and none may contradict `allowed`.
            contradictions = [w for w in wrong if self._is_contradicted_by(w[1])]
            if contradictions or len(wrong) < len(got.calls):
                wrong = contradictions
        if not wrong:
            return ""
        lines = [f"Expected: {self.text}."]
        for number, outcome, differences in wrong:
            which = f" for call {number}" if len(got.calls) > 1 else ""
            lines += [f"Got{which}: {outcome.sentence}"]
            lines += [f"Difference{which}: {'; '.join(differences)}."]
        return "\n".join([*lines, *([got.table] if got.table else [])])

    def _is_contradicted_by(self, outcome: CallOutcome) -> bool:
        if self.verdict != "allowed" or outcome.verdict == "allowed":
            return False
        return self.tool is None or not outcome.tools or self.tool in outcome.tools

    def _differences(self, outcome: CallOutcome) -> Iterator[str]:
        if outcome.verdict == "neither":
            yield f"it is neither allowed nor denied; expected {self.verdict}"
        elif outcome.verdict != self.verdict:
            yield f"it is {outcome.verdict}"
        if self.tool is not None and self.tool not in outcome.tools:
            names = " or ".join(f"`{plain(name)}`" for name in outcome.tools)
            yield f"the tool is {names or 'not reported'}"
        if outcome.verdict != self.verdict:
            return  # the other fields belong to another verdict
        yield from self._rule_differences(outcome.rules)
        if self.strength not in (None, outcome.strength):
            yield f"the strength is {outcome.strength or _REPORT}"
        if self.certain not in (None, outcome.certain):
            certainty = {True: "certain", False: "in doubt", None: _REPORT}[outcome.certain]
            yield f"the verdict is {certainty}"

    def _rule_differences(self, rules: tuple[DecidingRule, ...]) -> Iterator[str]:
        """The same rule must have both the text and the reason."""
        if any(_fits(self.rule, rule.rule) and _fits(self.reason, rule.reason) for rule in rules):
            return
        if self.rule is not None:
            yield f"the rule is {_listed(rule.rule for rule in rules)}"
        if self.reason is not None:
            yield f"the reason is {_listed(rule.reason for rule in rules)}"


def _check(name: str, value: Any, *types: type) -> None:
    if value is None:
        return
    if not isinstance(value, types):
        expected = " or ".join(f"`{type_.__name__}`" for type_ in types)
        msg = f"`{name}`: expected {expected}, got a value of type `{type(value).__name__}`."
        raise UsageError(msg)
    if value == "" or (isinstance(value, re.Pattern) and not value.pattern):
        msg = f"`{name}` is empty and would match every text. Remove it, or give a text."
        raise UsageError(msg)


def _pattern_words(text: Text) -> str:
    if isinstance(text, str):
        return f"with {plain(text)!r}"
    return f"that matches /{plain(str(text.pattern))}/"


def _fits(pattern: Text | None, text: str | None) -> bool:
    if pattern is None:
        return True
    if text is None:
        return False
    # A rule may span several lines.
    line = " ".join(text.split())
    if isinstance(pattern, str):
        return " ".join(pattern.split()) in line
    return pattern.search(line) is not None


def _listed(texts: Iterator[str | None]) -> str:
    distinct = [text for text in dict.fromkeys(texts) if text]
    listed = " and ".join(f"`{plain(' '.join(text.split()), limit=300)}`" for text in distinct)
    return listed or _REPORT


_MISSING: Final = object()
"""The default of `what`; `assert_denied(None)` is a mistake, and not a context manager."""


class DenialContext:
    """The body of `with assert_denied():` or `with assert_allowed():`."""

    def __init__(self, expected: Expectation) -> None:
        self._error: PolicyDenied | None = None
        self._expected = expected
        self._recorder = CallRecorder()
        self._was_entered = False

    @property
    def error(self) -> PolicyDenied:
        """The denial that ended the body; `UsageError` without one."""
        if self._error is None:
            msg = "No denial ended the body. Read `error` after `with assert_denied():`."
            raise UsageError(msg)
        return self._error

    def __enter__(self) -> Self:
        """Start the assertion."""
        self._was_entered = True
        self._recorder.__enter__()
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> bool:
        """Compare the exception that ended the body, or its calls, with the expectation.

        Raises:
            AssertionError: If they differ, or if the body made no call. Exceptions other than
                `TurnFailed` are passed on.
        """
        __tracebackhide__ = True
        self._recorder.__exit__()
        if isinstance(error, TurnFailed):
            _compare(self._expected, read_outcomes(error), error)
            self._error = error if isinstance(error, PolicyDenied) else None
            return True
        if error is None and self._expected.verdict == "denied":
            msg = (
                f"Expected: {self._expected.text}.\nGot: the body raised nothing. If denials are "
                "messages there, pass the result to `assert_denied`."
            )
            raise AssertionError(msg)
        if error is None:
            _compare(self._expected, self._recorder.outcomes)
        return False

    def __del__(self) -> None:
        """Warn of an assertion that was never used."""
        if not self._was_entered:
            name = f"assert_{self._expected.verdict}"
            msg = f"`{name}(…)` got nothing to check. Write `with {name}(…):`."
            warnings.warn(msg, RuntimeWarning, stacklevel=1)


class AssertionOptions(TypedDict, total=False):
    """The options of both assertions; `assert_denied` describes them."""

    tool: str | None
    rule: Text | None
    reason: Text | None
    strength: Strength | None
    certain: bool | None


@overload
def assert_denied(**expected: Unpack[AssertionOptions]) -> DenialContext: ...


@overload
def assert_denied(what: object, **expected: Unpack[AssertionOptions]) -> None: ...


def assert_denied(
    what: object = _MISSING,
    *,
    tool: str | None = None,
    rule: Text | None = None,
    reason: Text | None = None,
    strength: Strength | None = None,
    certain: bool | None = None,
) -> DenialContext | None:
    """Assert that a policy denies a call.

    A failed turn, a refusal by the model and a call that was not reached do not count as denials.

    Args:
        what: A `Verdict`; a `Decision` or a `Simulation`, in which each call must be denied; a
            message of `ChatSequrity` or of `PolicyMiddleware`; the state of an agent, in whose last
            turn a call must be denied; the state of a graph that asks a human about a denied call;
            a `PolicyDenied`; or a function to call. Without it, the result is a context manager
            whose body must raise `PolicyDenied`.
        tool: The tool's name (for a graph, that of the tool or the node).
        rule: A part of the text of a rule that decided, or a regex to search in it. White space
            counts as one space.
        reason: The same for the reason of this rule, which is its doc comment.
        strength: `"hard"` or `"soft"`.
        certain: Whether the denial must be certain, or in doubt.

    Returns:
        Nothing, or the context manager; its `error` is the exception.

    Raises:
        AssertionError: If the result differs. The text has both, and the rule.
        UsageError: If `what` is unrelated to policies, or an option is invalid.

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
    return _assert(Expectation("denied", tool, rule, reason, strength, certain), what)


@overload
def assert_allowed(**expected: Unpack[AssertionOptions]) -> DenialContext: ...


@overload
def assert_allowed(what: object, **expected: Unpack[AssertionOptions]) -> None: ...


def assert_allowed(
    what: object = _MISSING,
    *,
    tool: str | None = None,
    rule: Text | None = None,
    reason: Text | None = None,
    strength: Strength | None = None,
    certain: bool | None = None,
) -> DenialContext | None:
    """Assert that a policy allows a call.

    A failed turn, a refusal and a call that was not reached do not count as allowed.

    Args:
        what: As for `assert_denied`. In a turn there must be a call, and none may be denied; with
            `tool`, the same for the calls of that tool. Without `what`, the result is a context
            manager for a body that makes such calls. It takes none of the options below.
        tool: The tool's name.
        rule: A part of the text of a rule that decided, or a regex.
        reason: The same for that rule's reason.
        strength: `"hard"` or `"soft"`.
        certain: Whether the permission must be certain, or in doubt.

    Returns:
        Nothing, or the context manager.

    Raises:
        AssertionError: If the result differs. The text has both, and the rule.
        UsageError: If `what` is unrelated to policies, or an option is invalid.

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
    expected = Expectation("allowed", tool, rule, reason, strength, certain)
    if what is _MISSING and expected.has_details:
        _refuse_details()
    return _assert(expected, what)


def _assert(expected: Expectation, what: object) -> DenialContext | None:
    __tracebackhide__ = True
    if what is _MISSING:
        return DenialContext(expected)
    if not is_readable(what) and callable(what):
        _call(expected, what)
    else:
        _compare(expected, read_outcomes(what))
    return None


def _call(expected: Expectation, function: Callable[[], Any]) -> None:
    __tracebackhide__ = True
    try:
        with CallRecorder() as recorder:
            returned = function()
    except TurnFailed as error:
        _compare(expected, read_outcomes(error), error)
        return
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        msg = (
            "The function returned an awaitable, so its code has not run. Write "
            f"`with assert_{expected.verdict}(…): await …`."
        )
        raise UsageError(msg)
    try:
        got = read_outcomes(returned)
    except UnrelatedValue:
        _returned_nothing(expected, returned, recorder.outcomes)
    else:
        _compare(expected, got if got.calls else recorder.outcomes)


def _returned_nothing(expected: Expectation, returned: object, recorded: Outcomes) -> None:
    """Handle a function that raised nothing and returned a value unrelated to policies."""
    __tracebackhide__ = True
    if expected.verdict == "denied":
        msg = (
            f"Expected: {expected.text}.\nGot: the function raised nothing and returned a value "
            f"of type `{type(returned).__name__}`, which contains no denial."
        )
        raise AssertionError(msg)
    if expected.has_details:
        _refuse_details()
    _compare(expected, recorded)


def _refuse_details() -> None:
    msg = (
        "Only exceptions are checked here, and an allowed call raises none. Remove the options, or "
        "pass the result to `assert_allowed`."
    )
    raise UsageError(msg)


def _compare(expected: Expectation, got: Outcomes, cause: BaseException | None = None) -> None:
    __tracebackhide__ = True
    if failure := expected.failure(got):
        raise AssertionError(failure) from cause
