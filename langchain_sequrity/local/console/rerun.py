"""Calls of the past under another policy: which verdicts would be different.

Each call is judged by itself, with the labels of its arguments and of its session at that time
(`sqrt.audited_calls`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_sequrity.errors import PolicySyntaxError, StatusError, UsageError
from langchain_sequrity.headers import PolicyHeader, from_wire
from langchain_sequrity.local.console.recorder import RecordedCall, RecordedSession
from langchain_sequrity.local.console.views import Chip, label_chips, value_text
from langchain_sequrity.local.key_settings import KeySettings
from langchain_sequrity.sqrt.audited_calls import AuditedTrial, is_hidden
from langchain_sequrity.sqrt.decisions import Decision
from langchain_sequrity.sqrt.engine import Engine, compile_policy
from langchain_sequrity.sqrt.trial_runs import run_trials
from langchain_sequrity.sqrt.trials import lines_in
from langchain_sequrity.sqrt.verdict import Presets
from langchain_sequrity.strict_json import dumps, loads

_MOST_SHOWN = 200
_DEFAULTS = Presets()


@dataclass(frozen=True, slots=True)
class ChangedVerdict:
    """A call that the new policy decides differently.

    Attributes:
        session: The id of its session.
        tool: The tool.
        values: Name, value and labels of each argument.
        old: The verdict of that time, in words.
        new: The verdict of the new policy, in words.
        is_allowed: Whether the new policy allows the call.
        is_other: Whether one of the two allows it, and the other one denies it.
        rule: The rule that decides now.
        line: Its line, if it has one.
    """

    session: str
    tool: str
    values: tuple[tuple[str, str, tuple[Chip, ...]], ...]
    old: str
    new: str
    is_allowed: bool
    is_other: bool
    rule: str
    line: int | None


@dataclass(slots=True)
class Rerun:
    """The calls of the past under a new policy.

    Attributes:
        calls: The number of calls that were tried.
        now_denied: How many were allowed, and would be denied.
        now_allowed: How many were denied, and would be allowed.
        other_strength: How many would be decided with another strength.
        unjudged: How many cannot be judged.
        changed: The first calls that differ, those with another outcome before others.
        by_tool: Tool and number of calls that would be denied or allowed now.
        problem: Why nothing could be tried; empty if it was.
    """

    calls: int = 0
    now_denied: int = 0
    now_allowed: int = 0
    other_strength: int = 0
    unjudged: int = 0
    changed: list[ChangedVerdict] = field(default_factory=list)
    by_tool: Counter[str] = field(default_factory=Counter)
    problem: str = ""

    @property
    def differing(self) -> int:
        """How many calls are allowed by one of both policies, and denied by the other."""
        return self.now_denied + self.now_allowed

    # As a `Tally` of trial runs

    def add(self, decisions: Sequence[Decision], /) -> None:
        """Compare a decision with the verdict of that time."""
        (decision,) = decisions
        self.calls += 1
        trial = decision.trial
        if decision.verdict is None or not isinstance(trial, AuditedTrial):
            self.unjudged += 1
            return
        was, now = trial.expect, decision.final_verdict
        if was == now:
            return
        was_allowed, is_allowed = was.endswith("allowed"), decision.allowed
        self.now_denied += was_allowed and not is_allowed
        self.now_allowed += is_allowed and not was_allowed
        self.other_strength += was_allowed == is_allowed
        is_other = was_allowed != is_allowed
        if is_other:
            self.by_tool[decision.call.tool] += 1
        if is_other or len(self.changed) < _MOST_SHOWN:
            self.changed.append(_changed(decision, was, is_other=is_other))
            if len(self.changed) > 2 * _MOST_SHOWN:
                self.sort()

    def merge(self, _other: Any, /) -> None:
        """One process tries all calls."""
        raise NotImplementedError

    def sort(self) -> None:
        """Put the calls with another outcome first, and keep the first ones."""
        self.changed.sort(key=lambda changed: not changed.is_other)
        del self.changed[_MOST_SHOWN:]


SettingsOfKey = Callable[[str], KeySettings | None]


def of_sessions(
    text: str, sessions: Iterable[RecordedSession], settings_of: SettingsOfKey = lambda _: None
) -> Rerun:
    """Run the recorded calls of sessions again, each under its own presets.

    Args:
        text: The new policy of the client.
        sessions: The sessions.
        settings_of: The settings of a key by its name: its policy is added, as the server does.
    """
    report = Rerun()
    engines: dict[tuple[object, ...], Engine] = {}
    for session in sessions:
        settings = settings_of(session.key) if session.key else None
        setting: tuple[object, ...] = (session.presets,)
        if settings is not None and settings.policy is not None:
            setting = settings, session.architecture, dumps(_without_code(session))
        if setting not in engines:
            engine = _engine_of(text, session, settings, report)
            if engine is None:
                return report
            engines[setting] = engine
        run_trials(_trials(session), [engines[setting]], [report], shows_progress=False)
    report.sort()
    return report


def _engine_of(
    text: str, session: RecordedSession, settings: KeySettings | None, report: Rerun
) -> Engine | None:
    engine = _compiled(text, session.presets or _DEFAULTS, report)
    if engine is None or settings is None or settings.policy is None:
        return engine
    codes = {"code": text.replace("\r\n", "\n"), "language": "sqrt"}
    try:
        header = from_wire(PolicyHeader, {**_without_code(session), "codes": codes})
        _, compiled = settings.with_client_policy(header)
    except (StatusError, UsageError) as error:
        report.problem = f"With the policy of the key `{session.key}`: {error}"
        return None
    return compiled(dual_llm=session.architecture == "dual-llm") if compiled else engine


def _without_code(session: RecordedSession) -> dict[str, Any]:
    header = loads(session.policy) if session.policy else {}
    return {name: value for name, value in header.items() if name != "codes"}


def of_audit_log(text: str, path: Path) -> Rerun:
    """Run the calls of an audit log again, under the default presets.

    Args:
        text: The new policy.
        path: The audit log.
    """
    report = Rerun()
    engine = _compiled(text, _DEFAULTS, report)
    if engine is None:
        return report
    try:
        with path.open("rb") as file:
            run_trials(lines_in(file), [engine], [report], shows_progress=False)
    except (OSError, UsageError) as error:
        report.problem = f"The audit log cannot be read: {error}"
    report.sort()
    return report


def _compiled(text: str, presets: Presets, report: Rerun) -> Engine | None:
    try:
        return compile_policy(text.replace("\r\n", "\n"), presets)
    except (PolicySyntaxError, UsageError) as error:
        report.problem = str(error)
        return None


def _trials(session: RecordedSession) -> Iterator[AuditedTrial]:
    for turn in [*session.turns.values()]:
        for call in [*turn.calls]:
            yield _trial(call)


def _trial(recorded: RecordedCall) -> AuditedTrial:
    check, call = recorded.check, recorded.check.call
    verdict = check.policy_verdict or check.verdict
    return AuditedTrial(
        call.tool,
        {name: argument.value for name, argument in call.arguments.items()},
        {name: argument.labels for name, argument in call.arguments.items()},
        session=check.session_id,
        expect=verdict.final_verdict if verdict else "not_reached",  # type: ignore[arg-type]
        session_labels=check.session,
        decided_by=call.decided_by,
        declared=tuple(call.declared),
        unjudged="" if verdict else f"a classifier denied it: {check.finding}",
    )


def _changed(decision: Decision, was: str, *, is_other: bool) -> ChangedVerdict:
    call, reasons = decision.call, decision.verdict.reasons if decision.verdict else ()
    first = reasons[0] if reasons else None
    return ChangedVerdict(
        decision.trial.session,
        call.tool,
        tuple(
            (name, _argument_text(value), tuple(label_chips(call.arguments[name].labels)))
            for name, value in decision.trial.arguments.items()
        ),
        was.replace("_", " "),
        decision.final_verdict.replace("_", " "),
        decision.allowed,
        is_other,
        " ".join(first.rule.split()) if first else "",
        first.at.line if first and first.at else None,
    )


def _argument_text(value: Any) -> str:
    return "(not in the log)" if is_hidden(value) else value_text(value)
