"""One tool call on the server: the gate with blockers and classifiers, and the report of a check.

The order is M5 of `docs/behaviour.md`. Blockers and classifiers come before the gate's checks,
which see exactly the arguments that will be sent, and before its rules on a result.

The service does not publish the form of reports; this form is the local server's own
(`docs/local-server.md`). Messages of denials begin like the recorded ones of the service.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_sequrity.denials import Denial
from langchain_sequrity.display import plain
from langchain_sequrity.labels import NO_LABELS, Labels
from langchain_sequrity.local.screening import Ask, Detection, Screen
from langchain_sequrity.sqrt import Argument, Call, Engine, Reason, Verdict
from langchain_sequrity.sqrt.coerce import ToolArguments
from langchain_sequrity.sqrt.endorsements import Sources
from langchain_sequrity.sqrt.gate import Gate, ToolReturn
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
        before: The session's labels before the check.
        judged: The call as the policy judged it, with the defaults of omitted arguments, and with
            endorsements; `None` if a classifier denied it first.
        policy_verdict: The verdict of the first policy alone.
    """

    call: Call
    session: Labels
    verdict: Verdict | None
    findings: tuple[Detection, ...] = ()
    denied: Detection | None = None
    before: Labels = NO_LABELS
    judged: Call | None = None
    policy_verdict: Verdict | None = None

    @property
    def allowed(self) -> bool:
        """Whether the call may be made."""
        return self.denied is None and self.verdict is not None and self.verdict.allowed

    @property
    def may_be_approved(self) -> bool:
        """Whether a person may approve the call."""
        return not self.allowed and _denial(self).may_be_approved


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


class ScreenedGate(Gate):
    """A gate with blockers and classifiers.

    Args:
        engines: As for `Gate`.
        screen: Blockers and classifiers.
        ask: Scores a text for a classifier.
        tools: As for `Gate`.
        sources: Where endorsements are looked up; without them no argument has any.
    """

    __slots__ = ("_ask", "_endorsements", "_rules", "_screen", "_sources")

    def __init__(
        self,
        engines: Sequence[Engine],
        screen: Screen,
        ask: Ask,
        tools: Mapping[str, ToolArguments],
        sources: Sources | None = None,
    ) -> None:
        super().__init__(engines, tools)
        self._sources = sources
        self._endorsements = frozenset().union(*(engine.endorsements for engine in engines))
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
        names = list(call.arguments)
        values = [argument.value for argument in call.arguments.values()]
        # Data can choose a name, as in `f(**{text: 1})`. A tool cannot use a redacted name.
        if findings := self._rules.screen(names, ask=self._ask).findings:
            first = findings[0]
            denied = replace(first, kind=f"{first.kind} as the name of an argument", path=())
            nameless = replace(call, arguments={})
            return GatedCall(nameless, session, None, (denied,), denied, session)
        screened = self._screen.screen(values, ask=self._ask)
        findings = tuple(_with_argument_name(finding, names) for finding in screened.findings)
        if screened.denied is not None:
            withheld = _with_values(call, [screened.value] * len(values))
            return GatedCall(withheld, session, None, findings, screened.denied, session)
        if findings:
            call = _with_values(call, screened.value)
        return self.judged(GatedCall(call, session, None, findings), session)

    def judged(self, checked: GatedCall, session: Labels) -> GatedCall:
        """Check a screened call by the rules alone.

        Args:
            checked: The call.
            session: The session's labels.
        """
        begun = self.begin(checked.call, session)
        if self._endorsements and self._sources is not None:
            begun = begun._replace(call=self._sources.endorsed(begun.call, self._endorsements))
        first, verdict = self.verdicts(begun)
        return replace(
            checked, session=begun.session, verdict=verdict, before=session, judged=begun.call,
            policy_verdict=first,
        )  # fmt: skip

    def check_in_parallel(self, checked: GatedCall, session: Labels) -> tuple[GatedCall, Labels]:
        """Check a call as if the parallel calls before it had already returned.

        Args:
            checked: The call; the current session allows it.
            session: The session's labels as if the other calls had returned.

        Returns:
            The check, and the session's labels as if this call had returned, too.
        """
        beside = self.judged(checked, session)
        return beside, self.foreseen(checked.call, beside.session)

    def label_result(self, call: Call, returned: ToolReturn, session: Labels) -> CheckedResult:
        """Label a result.

        Args:
            call: The call that was made.
            returned: The tool's value and labels.
            session: The session's labels.

        Returns:
            The result that the program or the model may see.
        """
        screened = self._screen.screen(returned.value, ask=self._ask)
        if screened.value is not returned.value:
            returned = replace(returned, value=screened.value)
        labels, session = self.result_labels(call, returned, session)
        labels, session = self.labels_by_field(call, returned, labels, session)
        return CheckedResult(Argument(screened.value, labels), session, screened.findings)

    def label_refusal(self, call: Call, reason: str, session: Labels) -> CheckedResult:
        """Label the text that a refused call gets in place of a result.

        Args:
            call: The call that was not made.
            reason: The text.
            session: The session's labels, which stay.
        """
        screened = self._screen.screen(reason, ask=self._ask)
        result = Argument(screened.value, self.refusal_labels(call))
        return CheckedResult(result, session, screened.findings)


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


def check_entry(
    checked: GatedCall,
    line: int | None = None,
    write: Callable[[Labels], Any] = Labels.to_wire,
) -> dict[str, Any]:
    """One entry of `policy_check_history`.

    Args:
        checked: The check.
        line: Line of the call in the program, if there is one.
        write: Writes the labels of arguments, and of what decided the call.

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
        "arguments": {name: write(a.labels) for name, a in call.arguments.items()},
        "allowed": [],
        "denied": [],
    }
    if call.decided_by != NO_LABELS:
        entry["decided_by"] = write(call.decided_by)
    reasons = [*map(_reason, verdict.reasons)] if verdict else []
    if (finding := checked.denied) is not None:
        reasons = [{"rule": finding.name, "reason": str(finding), "enforcement_level": "hard"}]
    if checked.allowed:
        entry["allowed"] = reasons
    else:
        values = {
            name: {"value": argument.value, "meta": argument.labels.to_wire()}
            for name, argument in call.arguments.items()
        }
        entry["denied"] = [{"tool": call.tool, "arguments": values, **reason} for reason in reasons]
    if checked.findings:
        entry["findings"] = [*map(str, checked.findings)]
    return entry


def _reason(reason: Reason) -> dict[str, Any]:
    written: dict[str, Any] = {
        "rule": " ".join(reason.rule.split()),
        "enforcement_level": reason.strength,
        "certain": reason.certain,
    }
    if reason.policy is not None:  # the key's: the client does not have its text
        written["policy"] = reason.policy
    elif reason.at is not None:
        written["policy_line"], written["policy_column"] = reason.at
    if reason.doubt:
        written["in_doubt_because"] = reason.doubt
    if reason.description:
        written["checker_description"] = written["reason"] = reason.description
    return written


def _denial(checked: GatedCall) -> Denial:
    if checked.verdict is not None:
        return denial_of(checked.verdict, checked.call)
    finding = checked.denied
    denial = Denial(checked.call.tool, "content", "hard", certain=True, **call_facts(checked.call))
    return denial if finding is None else replace(denial, rule=finding.name, reason=str(finding))


def denial_message(checked: GatedCall) -> str:
    """The message of a denied call; it begins like the recorded ones."""
    denial = _denial(checked)
    because = f" because {denial.doubt}" if denial.doubt else ""
    doubt = "" if denial.certain else f", in doubt{because}"
    reason = denial.reason or f"Its rule is `{plain(denial.rule or '', limit=200)}`"
    sentence = f"Tool call to '{denial.tool}' is denied by argument checking policies{doubt}."
    policy = f" The policy of the key decided: `{denial.policy}`." if denial.policy else ""
    return f"{sentence} {plain(reason).removesuffix('.')}.{policy}"
