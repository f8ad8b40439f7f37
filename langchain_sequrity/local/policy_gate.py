"""One call of a tool under policy: what is checked before it, and which labels its result gets.

The order is M5 of `docs/behaviour.md`: blockers and classifiers, session-before updates, checks on
exactly what will be sent; after the call the labels of the arguments, those that the result brings,
blockers and classifiers, result rules, session-after updates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from langchain_sequrity.labels import Combine, Labels
from langchain_sequrity.local.screening import Ask, Finding, Screen
from langchain_sequrity.sqrt import Argument, Call, Engine, Verdict
from langchain_sequrity.sqrt.coerce import Arguments, completed
from langchain_sequrity.sqrt.context import result_labels

_NO_TOOLS: Mapping[str, Arguments] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a check.

    Attributes:
        call: The call as it would be made: arguments may be redacted.
        session: The session's labels from now on, also after a denial.
        verdict: What the policy says; `None` if a classifier struck before it was asked.
        findings: What blockers and classifiers found.
        denied: The finding of the classifier that struck.
    """

    call: Call
    session: Labels
    verdict: Verdict | None
    findings: tuple[Finding, ...] = ()
    denied: Finding | None = None

    @property
    def allowed(self) -> bool:
        """Whether the call may be made."""
        return self.denied is None and self.verdict is not None and self.verdict.allowed


@dataclass(frozen=True, slots=True)
class Brought:
    """A tool's result, and the labels it brings along if it brings any."""

    value: Any
    labels: Labels | None = None
    combine: Combine = "merge"


@dataclass(frozen=True, slots=True)
class Taken:
    """A result as it goes on.

    Attributes:
        result: The value, perhaps redacted, with its labels.
        session: The session's labels from now on.
        findings: What blockers and classifiers found.
    """

    result: Argument
    session: Labels
    findings: tuple[Finding, ...] = ()


class Gate:
    """Checks calls and labels results.

    Args:
        engines: The policies; a call is made only if all allow it, and the first has the say on
            labels.
        screen: Blockers and classifiers.
        ask: Scores a text for a classifier.
        tools: What is known of the tools' arguments: a policy judges the defaults of those that a
            call leaves out, as the tool gets them.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        screen: Screen,
        ask: Ask,
        tools: Mapping[str, Arguments] = _NO_TOOLS,
    ) -> None:
        self._engines = engines
        self._tools = tools
        self._screen = screen
        self._rules = replace(screen, asked=())
        self._ask = ask

    def for_tools(self, tools: Mapping[str, Arguments]) -> "Gate":
        """The same for the tools of one request."""
        return Gate(self._engines, self._screen, self._ask, tools)

    def check(self, call: Call, session: Labels) -> Checked:
        """Check a call before it is made.

        Args:
            call: The call.
            session: The session's labels.

        Returns:
            Whether it may be made, and what that changes.
        """
        names, values = list(call.arguments), [one.value for one in call.arguments.values()]
        # Data can choose a name, as in `f(**{text: 1})`. To the tool a redacted one means nothing.
        if found := self._rules.look_at(names, ask=self._ask).findings:
            denied = replace(found[0], kind=f"{found[0].kind} as the name of an argument", path=())
            return Checked(Call(call.tool, {}), session, None, (denied,), denied)
        seen = self._screen.look_at(values, ask=self._ask)
        findings = tuple(_placed(finding, names) for finding in seen.findings)
        if seen.denied is not None:
            withheld = _with_values(call, [seen.value] * len(values))
            return Checked(withheld, session, None, findings, seen.denied)
        if findings:
            call = _with_values(call, seen.value)
        judged = completed(call, self._tools)
        session = self._engines[0].before(judged, session)
        verdict = self._decide(judged, session)
        return Checked(call, session, verdict, findings)

    def _decide(self, call: Call, session: Labels) -> Verdict:
        """What all policies together say: the strongest denial, or else the first one's word."""
        verdict = self._engines[0].decide(call, session)
        for engine in self._engines[1:]:
            if _is_hard_denial(verdict):
                break
            further = engine.decide(call, session)
            if _is_hard_denial(further) or (verdict.allowed and not further.allowed):
                verdict = further
        return verdict

    def check_beside(self, checked: Checked, session: Labels) -> tuple[Checked, Labels]:
        """Check a call as if those that are made beside it had returned already.

        Args:
            checked: The call, allowed as the session is now.
            session: The session's labels as if the others had returned.

        Returns:
            The check, and the session's labels as if this one had returned as well.
        """
        judged = completed(checked.call, self._tools)
        session = self._engines[0].before(judged, session)
        beside = replace(checked, session=session, verdict=self._decide(judged, session))
        return beside, self._engines[0].foreseen(judged, session)

    def take(self, call: Call, brought: Brought, session: Labels) -> Taken:
        """Label a result.

        Args:
            call: The call that was made.
            brought: What the tool returned.
            session: The session's labels.

        Returns:
            The result as the program or the model sees it.
        """
        labels = result_labels(call, brought.labels, brought.combine)
        seen = self._screen.look_at(brought.value, ask=self._ask)
        result = Argument(seen.value, labels)
        judged = completed(call, self._tools)
        labels, session = self._engines[0].after(judged, result, session)
        return Taken(replace(result, labels=labels), session, seen.findings)


def _is_hard_denial(verdict: Verdict) -> bool:
    return not verdict.allowed and verdict.strength == "hard"


def _placed(finding: Finding, names: Sequence[str]) -> Finding:
    """A finding in a list of arguments, with the name of the argument in the place of its index."""
    if not finding.path:
        return finding
    index, *inside = finding.path
    return replace(finding, path=(names[int(index)], *inside))


def _with_values(call: Call, values: Sequence[Any]) -> Call:
    arguments = {
        name: replace(argument, value=value)
        for (name, argument), value in zip(call.arguments.items(), values, strict=True)
    }
    return Call(call.tool, arguments)
