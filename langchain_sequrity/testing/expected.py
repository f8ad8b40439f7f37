"""What a test expects of a call, and what is not as expected."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt.nodes import Strength
from langchain_sequrity.testing.outcomes import Because, Came, Outcome

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
