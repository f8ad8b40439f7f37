"""One tool call under policy: the check before it, the labels of its result, and the report.

The order is M5 of `docs/behaviour.md`. Before the call: blockers and classifiers, session-before
updates, checks on exactly the arguments that will be sent. After the call: labels of the arguments,
labels of the result itself, blockers and classifiers, result rules, session-after updates.

The service does not publish the form of reports; this form is the local server's own
(`docs/local-server.md`). Messages of denials begin like the recorded ones of the service.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_sequrity.denials import Denial
from langchain_sequrity.display import plain
from langchain_sequrity.labels import NO_LABELS, Combine, Labels
from langchain_sequrity.local.screening import Ask, Detection, Screen
from langchain_sequrity.sqrt import Argument, Call, Engine, Reason, Verdict
from langchain_sequrity.sqrt.coerce import ToolArguments, with_defaults
from langchain_sequrity.sqrt.context import result_labels
from langchain_sequrity.sqrt.engine import NON_EXECUTABLE
from langchain_sequrity.sqrt.verdict import call_facts, denial_of


@dataclass(frozen=True, slots=True)
class GatedCall:
    """A call and its check.

    Attributes:
        call: The call that may be made; its arguments may be redacted.
        session: The session's new labels, also after a denial.
        verdict: The policy's verdict; `None` if a classifier denied the call first.
        findings: Detections of blockers and classifiers.
        denied: The detection of the classifier that denied the call.
    """

    call: Call
    session: Labels
    verdict: Verdict | None
    findings: tuple[Detection, ...] = ()
    denied: Detection | None = None

    @property
    def allowed(self) -> bool:
        """Whether the call may be made."""
        return self.denied is None and self.verdict is not None and self.verdict.allowed


@dataclass(frozen=True, slots=True)
class ToolReturn:
    """What a tool returned: a value, and its own labels if it has any.

    Attributes:
        value: The value.
        labels: Its own labels.
        combine: How they combine with the labels of the arguments.
        is_error: Whether the tool failed, so that the value is the text of an error.
    """

    value: Any
    labels: Labels | None = None
    combine: Combine = "merge"
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class CheckedResult:
    """A result that the program or the model may see.

    Attributes:
        result: The value, perhaps redacted, with its labels.
        session: The session's new labels.
        findings: Detections of blockers and classifiers.
    """

    result: Argument
    session: Labels
    findings: tuple[Detection, ...] = ()


class PolicyGate:
    """Checks calls and labels results.

    Args:
        engines: The policies. A call needs the permission of all; only the first changes labels.
        screen: Blockers and classifiers.
        ask: Scores a text for a classifier.
        tools: Arguments of the tools by name. A policy judges the defaults of omitted arguments,
            because the tool gets them.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        screen: Screen,
        ask: Ask,
        tools: Mapping[str, ToolArguments],
    ) -> None:
        self._engines = engines
        self._tools = tools
        self._screen = screen
        self._rules = replace(screen, classifiers=())
        self._ask = ask

    def check(self, call: Call, session: Labels) -> GatedCall:
        """Check a call before it is made.

        Args:
            call: The call.
            session: The session's labels.

        Returns:
            Whether it may be made, and the new labels of the session.
        """
        names, values = list(call.arguments), [one.value for one in call.arguments.values()]
        # Data can choose a name, as in `f(**{text: 1})`. A tool cannot use a redacted name.
        if found := self._rules.screen(names, ask=self._ask).findings:
            denied = replace(found[0], kind=f"{found[0].kind} as the name of an argument", path=())
            return GatedCall(replace(call, arguments={}), session, None, (denied,), denied)
        seen = self._screen.screen(values, ask=self._ask)
        findings = tuple(_with_argument_name(finding, names) for finding in seen.findings)
        if seen.denied is not None:
            withheld = _with_values(call, [seen.value] * len(values))
            return GatedCall(withheld, session, None, findings, seen.denied)
        if findings:
            call = _with_values(call, seen.value)
        judged = with_defaults(call, self._tools)
        session = self._engines[0].before(judged, session)
        verdict = self._decide(judged, session)
        return GatedCall(call, session, verdict, findings)

    def _decide(self, call: Call, session: Labels) -> Verdict:
        """The verdict of all policies: the strongest denial, or else the first policy's verdict."""
        verdict = self._engines[0].decide(call, session)
        for engine in self._engines[1:]:
            if _is_hard_denial(verdict):
                break
            further = engine.decide(call, session)
            if _is_hard_denial(further) or (verdict.allowed and not further.allowed):
                verdict = further
        return verdict

    def check_in_parallel(self, checked: GatedCall, session: Labels) -> tuple[GatedCall, Labels]:
        """Check a call as if the parallel calls before it had already returned.

        Args:
            checked: The call; the current session allows it.
            session: The session's labels as if the other calls had returned.

        Returns:
            The check, and the session's labels as if this call had returned, too.
        """
        judged = with_defaults(checked.call, self._tools)
        session = self._engines[0].before(judged, session)
        beside = replace(checked, session=session, verdict=self._decide(judged, session))
        return beside, self.foreseen(checked.call, session)

    def foreseen(self, call: Call, session: Labels) -> Labels:
        """The labels that the session may have after a call whose result is not known."""
        return self._engines[0].foreseen(with_defaults(call, self._tools), session)

    def copies_result_labels(self, tool: str) -> bool:
        """Whether the session may get labels that only a result of the tool has."""
        return self._engines[0].copies_result_labels(tool)

    def label_result(self, call: Call, returned: ToolReturn, session: Labels) -> CheckedResult:
        """Label a result.

        Args:
            call: The call that was made.
            returned: The tool's value and labels.
            session: The session's labels.

        Returns:
            The result that the program or the model may see.
        """
        is_error = returned.is_error
        labels = result_labels(call, returned.labels, returned.combine, is_error=is_error)
        seen = self._screen.screen(returned.value, ask=self._ask)
        result = Argument(seen.value, labels)
        judged = with_defaults(call, self._tools)
        labels, session = self._engines[0].after(judged, result, session, is_error=is_error)
        return CheckedResult(replace(result, labels=labels), session, seen.findings)

    def label_refusal(self, call: Call, reason: str, session: Labels) -> CheckedResult:
        """Label the text that a refused call gets in place of a result.

        The tool did not run, so neither its own labels nor the rules on its results apply.

        Args:
            call: The call that was not made.
            reason: The text; it may quote the arguments.
            session: The session's labels.

        Returns:
            The text with the labels of the arguments; the session's labels stay.
        """
        seen = self._screen.screen(reason, ask=self._ask)
        labels = call.labels
        if self._engines[0].presets.non_executable_memory:
            labels = labels.join(Labels(tags=frozenset({NON_EXECUTABLE})))
        return CheckedResult(Argument(seen.value, labels), session, seen.findings)


def _is_hard_denial(verdict: Verdict) -> bool:
    return not verdict.allowed and verdict.strength == "hard"


def _with_argument_name(finding: Detection, names: Sequence[str]) -> Detection:
    """A detection in a list of arguments, with the argument's name instead of its index."""
    if not finding.path:
        return finding
    index, *inside = finding.path
    return replace(finding, path=(names[int(index)], *inside))


def _with_values(call: Call, values: Sequence[Any]) -> Call:
    arguments = {
        name: replace(argument, value=value)
        for (name, argument), value in zip(call.arguments.items(), values, strict=True)
    }
    return replace(call, arguments=arguments)


# Reports of a check


def check_entry(checked: GatedCall, line: int | None = None) -> dict[str, Any]:
    """One entry of `policy_check_history`.

    Args:
        checked: The check.
        line: Line of the call in the program, if there is one.

    Returns:
        `{tool, line, verdict, certain, n_allowed, n_denied, arguments: {name: meta}, allowed: […],
        denied: […], findings: […]}`; each of `denied` also has the arguments with their values.
    """
    call, verdict = checked.call, checked.verdict
    entry: dict[str, Any] = {
        "tool": call.tool,
        **({} if line is None else {"line": line}),
        "verdict": verdict.final_verdict if verdict else "content_denied",
        "certain": verdict.certain if verdict else True,
        "n_allowed": verdict.n_allowed if verdict else 0,
        "n_denied": verdict.n_denied if verdict else 1,
        "arguments": {name: one.labels.to_wire() for name, one in call.arguments.items()},
        "allowed": [],
        "denied": [],
    }
    if call.decided_by != NO_LABELS:
        entry["decided_by"] = call.decided_by.to_wire()
    reasons = [_reason(one) for one in verdict.reasons] if verdict else []
    if (found := checked.denied) is not None:
        reasons = [{"rule": found.name, "reason": str(found), "enforcement_level": "hard"}]
    if checked.allowed:
        entry["allowed"] = reasons
    else:
        values = {
            name: {"value": one.value, "meta": one.labels.to_wire()}
            for name, one in call.arguments.items()
        }
        entry["denied"] = [{"tool": call.tool, "arguments": values, **one} for one in reasons]
    if checked.findings:
        entry["findings"] = [str(one) for one in checked.findings]
    return entry


def _reason(reason: Reason) -> dict[str, Any]:
    found: dict[str, Any] = {
        "rule": " ".join(reason.rule.split()),
        "enforcement_level": reason.strength,
        "certain": reason.certain,
    }
    if reason.at is not None:
        found["policy_line"], found["policy_column"] = reason.at
    if reason.doubt:
        found["in_doubt_because"] = reason.doubt
    if reason.description:
        found["checker_description"] = found["reason"] = reason.description
    return found


def _denial(checked: GatedCall) -> Denial:
    if checked.verdict is not None:
        return denial_of(checked.verdict, checked.call)
    found = checked.denied
    denial = Denial(checked.call.tool, "content", "hard", certain=True, **call_facts(checked.call))
    return denial if found is None else replace(denial, rule=found.name, reason=str(found))


def denial_message(checked: GatedCall) -> str:
    """The message of a denied call; it begins like the recorded ones."""
    denial = _denial(checked)
    because = f" because {denial.doubt}" if denial.doubt else ""
    doubt = "" if denial.certain else f", in doubt{because}"
    reason = denial.reason or f"Its rule is `{plain(denial.rule or '', limit=200)}`"
    sentence = f"Tool call to '{denial.tool}' is denied by argument checking policies{doubt}."
    return f"{sentence} {plain(reason).removesuffix('.')}."
