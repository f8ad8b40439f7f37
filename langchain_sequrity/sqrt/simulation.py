"""Calls of tools tried on a policy, without any tool, model or server.

Decisions and labels are those of the local server for the same calls in one session
(`docs/behaviour.md`, M5 and V1 to V3), without blockers and classifiers. Coverage is the rules and
label changes of a policy that the calls exercised.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, NoReturn, cast, get_args, overload

from typing_extensions import override

from langchain_sequrity.display import plain
from langchain_sequrity.display.tables import Cell, Row, Table, TableMixin, Tone
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import NO_LABELS, Combine, Labels, make_labels
from langchain_sequrity.sqrt.coerce import AnyTool, ToolArguments, arguments_of, engine_of
from langchain_sequrity.sqrt.compiler import CompiledStep
from langchain_sequrity.sqrt.context import Argument, Call, EvaluationContext
from langchain_sequrity.sqrt.diagnostics import SpellingIndex
from langchain_sequrity.sqrt.engine import Engine
from langchain_sequrity.sqrt.explanation import json_fields, line_cell, short_text, tool_name
from langchain_sequrity.sqrt.gate import Gate, ToolReturn
from langchain_sequrity.sqrt.matchers import MatchBudget, Truth
from langchain_sequrity.sqrt.nodes import (
    CheckRule,
    Phase,
    Position,
    UpdateStep,
    items_of,
    tools_of,
)
from langchain_sequrity.sqrt.policy_forms import AnyPolicy
from langchain_sequrity.sqrt.verdict import Reason, Verdict, Vote
from langchain_sequrity.suggestions import did_you_mean, suggest

NOT_REACHED = "not reached"
_MOST_LINES = 3


def verdict_word(verdict: Verdict | None) -> str:
    """The verdict in a word or two."""
    return NOT_REACHED if verdict is None else verdict.final_verdict.replace("_", " ")


def verdict_tone(verdict: Verdict | None) -> Tone:
    """The colour of a verdict."""
    if verdict is None:
        return "doubtful"
    return "good" if verdict.allowed else "bad"


def rules_cell(verdict: Verdict | None) -> Cell:
    """The rules that decided, with their lines."""
    return _shortened([] if verdict is None else [_rule(reason) for reason in verdict.reasons])


def verdict_json(verdict: Verdict | None) -> dict[str, Any]:
    """A verdict as plain data; all fields are `null` for a call that is not reached."""
    names = ("allowed", "strength", "certain", "n_allowed", "n_denied")
    return {
        "verdict": "not_reached" if verdict is None else verdict.final_verdict,
        **{name: getattr(verdict, name, None) for name in names},
        "reasons": [] if verdict is None else [reason_json(reason) for reason in verdict.reasons],
    }


def reason_json(reason: Reason) -> dict[str, Any]:
    """A rule that decided, as plain data; a preset has no line and column."""
    names = ("description", "strength", "verdict", "certain", "unmet")
    policy = {} if reason.policy is None else {"policy": reason.policy}
    return {
        **policy,
        "rule": reason.rule,
        "line": reason.at and reason.at.line,
        "column": reason.at and reason.at.column,
        **{name: getattr(reason, name) for name in names},
    }


def _rule(reason: Reason) -> str:
    text = " ".join(reason.rule.split())
    unmet = "not met: " if reason.unmet else ""
    position = f"line {reason.at.line}" if reason.at else "preset"
    policy = f" of {reason.policy}" if reason.policy else ""
    return f"{unmet}{text} ({position}{policy})"


def _shortened(lines: list[str]) -> Cell:
    if (omitted := len(lines) - _MOST_LINES) > 0:
        return (*lines[:_MOST_LINES], f"and {omitted} more")
    return tuple(lines) or ("",)


_MAX_DEPTH = 100  # as in requests to the local server


@dataclass(frozen=True, slots=True)
class Trial:
    """A call to try on a policy, and the result that its tool would return.

    Attributes:
        tool: The tool's name.
        arguments: Values of its arguments by name: plain JSON data.
        labels: Labels of arguments by name; other arguments have no labels of their own.
        uses: Ids of earlier calls by argument. The argument is made from their results, so it also
            has their labels.
        id: The name by which later calls use this call's result.
        result: What the tool returns if the call is allowed: plain JSON data.
        result_labels: Labels of the result itself.
        combine: How they combine with the labels of the arguments, as in `labeled_tool_result`.
        is_error: Whether the tool fails, with `result` as the text of its error. Such a text may
            quote the arguments, so no rule removes their labels from it.

    Example:
        ```python
        from langchain_sequrity.sqrt import Trial, simulate

        policy = '''
            tool "read" -> @tags |= {"mail"};
            tool "send" { must deny when text.tags overlaps {"mail"}; }
        '''
        read = Trial("read", id="a")
        send = Trial("send", {"text": "Hi"}, uses={"text": ["a"]})
        assert [decision.allowed for decision in simulate(policy, [read, send])] == [True, False]
        ```
    """

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Labels] = field(default_factory=dict)
    uses: Mapping[str, Iterable[str]] = field(default_factory=dict)
    id: str = ""
    result: Any = None
    result_labels: Labels = NO_LABELS
    combine: Combine = "merge"
    is_error: bool = False


AnyTrial = Trial | Call | Mapping[str, Any]
"""A call to try: a `Trial`, the same as a mapping, or a `Call` whose labels are final."""

_KEYS = tuple(entry.name for entry in fields(Trial))


def _read_trials(calls: Iterable[AnyTrial]) -> list[Trial]:
    """Read and check calls to try.

    Args:
        calls: The calls in order.

    Raises:
        UsageError: For an invalid call: its number, what was expected, what to do.
    """
    if isinstance(calls, str | bytes | Mapping | Trial | Call) or not isinstance(calls, Iterable):
        msg = (
            f"Expected a list of calls to try, got {_type_of(calls)}. "
            'Write `[Trial("tool", {"argument": value}), …]`.'
        )
        raise UsageError(msg)
    trials: list[Trial] = []
    numbers: dict[str, int] = {}
    for number, call in enumerate(calls, 1):
        trial = _TrialReader(number).read(call, numbers)
        if trial.id:
            numbers[trial.id] = number
        trials.append(trial)
    return trials


class _TrialReader:
    """Reads one call.

    Args:
        number: Its number, from 1.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._where = f"Call {number}"

    def read(self, call: Any, numbers: Mapping[str, int]) -> Trial:
        """Read and check it.

        Args:
            call: The call.
            numbers: The ids of earlier calls, with their numbers.
        """
        if isinstance(call, Call):
            self._name(call.tool)
            values = {name: argument.value for name, argument in call.arguments.items()}
            labels = {name: argument.labels for name, argument in call.arguments.items()}
            return Trial(call.tool, self._arguments(values), labels)
        if isinstance(call, Mapping):
            call = self._from_json(call)
        if not isinstance(call, Trial):
            self._fail(
                f"expected a `Trial`, a `Call` or a mapping, got {_type_of(call)}",
                'Write `Trial("tool", {"argument": value})`',
            )
        trial = self._checked(call)
        self._check_ids(trial, numbers)
        return trial

    def _from_json(self, call: Mapping[str, Any]) -> Trial:
        for key in call:
            if key not in _KEYS:
                keys = ", ".join(f"`{name}`" for name in _KEYS)
                advice = suggest(str(key), _KEYS) or f"Keys are {keys}"
                self._fail(f"unknown key {_quoted(key)}", advice)
        if "tool" not in call:
            self._fail("`tool` is missing", 'Write `{"tool": "name", "arguments": {…}}`')
        return Trial(**call)

    def _checked(self, trial: Trial) -> Trial:
        self._name(trial.tool)
        arguments = self._arguments(trial.arguments)
        labels = self._mapping("labels", trial.labels)
        uses = self._mapping("uses", trial.uses)
        for key, by_argument in (("labels", labels), ("uses", uses)):
            for name in by_argument:
                if name not in arguments:
                    self._fail(
                        f"`{key}` names {_quoted(name)}, which is not one of `arguments`",
                        suggest(name, arguments) or "Name one of `arguments`",
                    )
        if not isinstance(trial.id, str):
            self._fail(f"expected a text as `id`, got {_type_of(trial.id)}", 'Write `"mail"`')
        if trial.combine not in get_args(Combine):
            self._fail(
                f"`combine` must be `merge`, `replace` or `ignore`; got {_quoted(trial.combine)}",
                "Leave it out to merge",
            )
        self._json("`result`", trial.result)
        if not isinstance(trial.is_error, bool):
            self._fail(
                f"`is_error` must be true or false; got {_quoted(trial.is_error)}",
                "Leave it out for a tool that does not fail",
            )
        return Trial(
            trial.tool,
            arguments,
            {name: self._labels(f"labels of {_quoted(name)}", raw) for name, raw in labels.items()},
            {name: self._ids(name, ids) for name, ids in uses.items()},
            trial.id,
            trial.result,
            self._labels("`result_labels`", trial.result_labels),
            trial.combine,
            trial.is_error,
        )

    def _check_ids(self, trial: Trial, numbers: Mapping[str, int]) -> None:
        """Check that its id is unique, and that the results that it uses come before it."""
        if trial.id in numbers:
            self._fail(
                f"call {numbers[trial.id]} already has the id {_quoted(trial.id)}",
                "Give each call its own id, or no id",
            )
        for name, ids in trial.uses.items():
            for call_id in ids:
                if call_id not in numbers:
                    self._fail(
                        f"`uses` of {_quoted(name)} names {_quoted(call_id)}, but no earlier call "
                        "has this id",
                        suggest(call_id, numbers) or "Give this id to an earlier call",
                    )

    def _name(self, tool: Any) -> None:
        if not isinstance(tool, str) or not tool:
            passed = _type_of(tool) if tool != "" else "an empty one"
            self._fail(f"expected the name of a tool, got {passed}", 'Write `"tool": "send_mail"`')
        self._where = f"Call {self._number} (`{plain(tool, limit=80)}`)"

    def _arguments(self, raw: Any) -> dict[str, Any]:
        arguments = self._mapping("arguments", raw)
        for name, value in arguments.items():
            self._json(f"argument {_quoted(name)}", value)
        return arguments

    def _mapping(self, key: str, raw: Any) -> dict[str, Any]:
        if not isinstance(raw, Mapping) or not all(isinstance(name, str) for name in raw):
            self._fail(
                f"expected `{key}` by name of argument, got {_type_of(raw)}",
                f'Write `{key}` as `{{"name": …}}`',
            )
        return dict(raw)

    def _ids(self, name: str, raw: Any) -> tuple[str, ...]:
        """Ids of calls. A text is refused, because iterating over it would yield its letters."""
        is_list = isinstance(raw, Iterable) and not isinstance(raw, str | bytes | Mapping)
        ids = tuple(raw) if is_list else ()
        if not is_list or not all(isinstance(call_id, str) and call_id for call_id in ids):
            self._fail(
                f"`uses` of {_quoted(name)}: expected a list of ids of calls, got {_quoted(raw)}",
                'Write `{"name": ["id"]}`',
            )
        return ids

    def _labels(self, subject: str, raw: Any) -> Labels:
        """Labels from a caller, who may not use the service's own names."""
        try:
            labels = raw if isinstance(raw, Labels) else Labels(**raw)
            return make_labels(labels.producers, labels.consumers, labels.tags)
        except UsageError as error:
            msg = f"{self._where}: {subject}: {plain(str(error))}"
            raise UsageError(msg) from None
        except TypeError:
            self._fail(f"{subject}: expected lists of names", 'Write `{"tags": ["web"]}`')

    def _json(self, subject: str, value: Any) -> None:
        if fault := _not_json(value, _MAX_DEPTH):
            self._fail(
                f"{subject}: expected plain JSON data, got {fault}",
                "Pass the data that a model would send",
            )

    def _fail(self, problem: str, advice: str) -> NoReturn:
        msg = f"{self._where}: {problem}. {advice}{'' if advice.endswith('?') else '.'}"
        raise UsageError(msg)


def _not_json(value: Any, depth: int) -> str:
    """The reason why a value is not JSON, or an empty text."""
    if value is None or isinstance(value, str | bool | int):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"the number {value}"
    if not isinstance(value, list | dict):
        return _type_of(value)
    if not depth:
        return f"data nested deeper than {_MAX_DEPTH} levels"
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                return f"a key that is {_type_of(key)}"
    inside = value.values() if isinstance(value, dict) else value
    return next(filter(None, (_not_json(element, depth - 1) for element in inside)), "")


def _type_of(value: Any) -> str:
    return f"a value of type `{type(value).__name__}`"


def _quoted(value: Any) -> str:
    return f"`{plain(value if isinstance(value, str) else repr(value), limit=80)}`"


def _check_names(
    trials: Iterable[Trial], tools: Iterable[AnyTool] | None, *engines: Engine
) -> dict[str, ToolArguments]:
    """Refuse calls of unknown tools, or of misspelt ones if the tools are not given.

    Args:
        trials: The calls.
        tools: All tools; `None` if they are not known.
        engines: The policies.

    Returns:
        The arguments of the tools, by name of tool.

    Raises:
        UsageError: For a call of a tool, or with an argument, that is not among `tools`. Without
            `tools`, for a tool without rules whose name is one slip away from a tool with rules.
    """
    arguments = {} if tools is None else arguments_of(tools)
    faults = _misspelt(trials, engines) if tools is None else _unknown(trials, arguments)
    for number, trial, fault in faults:
        msg = f"Call {number} (`{plain(trial.tool, limit=80)}`): {fault}"
        raise UsageError(msg)
    return arguments


_Faults = Iterator[tuple[int, Trial, str]]


def _unknown(trials: Iterable[Trial], tools: Mapping[str, ToolArguments]) -> _Faults:
    for number, trial in enumerate(trials, 1):
        if trial.tool not in tools:
            advice = suggest(trial.tool, tools) or "Add it to the tools."
            yield number, trial, f"there is no such tool. {advice}"
            continue
        tool = tools[trial.tool]
        for name in filter(tool.lack, trial.arguments):
            advice = suggest(name, tool.names) or "Leave it out."
            yield number, trial, f"it has no argument `{plain(name, limit=80)}`. {advice}"


def _misspelt(trials: Iterable[Trial], engines: Sequence[Engine]) -> _Faults:
    texts = [node.tool.text for engine in engines for node in tools_of(engine.policy)]
    names = dict.fromkeys(text.raw for text in texts if text.kind == "plain")
    entries = [entry for engine in engines for entry in engine.tools]
    spellings, budget = SpellingIndex(), MatchBudget()
    for name in names:
        spellings.add(name)
    for number, trial in enumerate(trials, 1):
        similar = "" if trial.tool in names else spellings.near(trial.tool)
        if similar and all(entry.matches(trial.tool, budget) is False for entry in entries):
            advice = f"{did_you_mean(similar)} If not, give all tools"
            yield number, trial, f"no rule is for this tool. {advice} as `tools`."


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision of a policy on one call.

    Attributes:
        number: The call's number, from 1.
        trial: The call as it was given.
        call: The call as it was checked: arguments with the labels of the results in them.
        verdict: The verdict; `None` if the call is not reached.
        session_before: The session's labels before the call and its `session before` changes.
        session_after: The session's labels after the call, also after a denial.
        result_labels: Labels of the result; `None` without a result.
        waits_for: Ids of calls that it uses and that returned no result.
    """

    number: int
    trial: Trial
    call: Call
    verdict: Verdict | None
    session_before: Labels
    session_after: Labels
    result_labels: Labels | None = None
    waits_for: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the policy allows the call."""
        return self.verdict is not None and self.verdict.allowed

    @property
    def denied(self) -> bool:
        """Whether the policy denies the call; false for a call that is not reached."""
        return self.verdict is not None and not self.verdict.allowed

    @override
    def __str__(self) -> str:
        if self.verdict is not None:
            return self.verdict.words()
        tool = plain(self.call.tool, limit=80)
        return f"The call of `{tool}` is {NOT_REACHED}: {self._waiting()}."

    def _waiting(self) -> str:
        ids = ", ".join(f"`{plain(call_id, limit=80)}`" for call_id in self.waits_for)
        return f"no result of {ids}"

    def row(self) -> Row:
        """The decision as a row of the simulation's table."""
        tool, id_, verdict = self.call.tool, self.trial.id, self.verdict
        reasons = verdict.reasons if verdict else ()
        doubts = (reason.doubt for reason in reasons if reason.doubt)
        sure = f"uncertain: {next(doubts, 'the service may see this differently')}"
        if verdict is None or verdict.certain:
            sure = "certain" if verdict else ""
        return (
            (str(self.number),),
            (f"{tool} ({id_})" if id_ else tool,),
            (verdict_word(verdict),),
            (sure,),
            rules_cell(verdict) if verdict else (self._waiting(),),
            _shortened([*dict.fromkeys(r.description for r in reasons if r.description)]),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the values of arguments and results."""
        return {
            "number": self.number,
            "id": self.trial.id,
            "tool": self.call.tool,
            "labels": {name: a.labels.to_wire() for name, a in self.call.arguments.items()},
            **verdict_json(self.verdict),
            "waits_for": list(self.waits_for),
            "session_before": self.session_before.to_wire(),
            "session_after": self.session_after.to_wire(),
            "result_labels": None if self.result_labels is None else self.result_labels.to_wire(),
        }


@dataclass(frozen=True, slots=True, repr=False)
class Simulation(Sequence[Decision], TableMixin):
    """The decisions of a policy on the calls of one session; made by `simulate`.

    Print it, show it in a notebook, or read it as data.

    Attributes:
        decisions: One for each call; the simulation itself is a sequence of them.
    """

    decisions: tuple[Decision, ...]

    @property
    def allowed(self) -> tuple[Decision, ...]:
        """The calls that are allowed."""
        return tuple(decision for decision in self if decision.allowed)

    @property
    def denied(self) -> tuple[Decision, ...]:
        """The calls that are denied."""
        return tuple(decision for decision in self if decision.denied)

    @property
    def not_reached(self) -> tuple[Decision, ...]:
        """The calls that use the result of a call that returned none."""
        return tuple(decision for decision in self if decision.verdict is None)

    @overload
    def __getitem__(self, index: int) -> Decision: ...

    @overload
    def __getitem__(self, index: slice) -> "Simulation": ...

    @override
    def __getitem__(self, index: int | slice) -> "Decision | Simulation":
        selected = self.decisions[index]
        return selected if isinstance(selected, Decision) else Simulation(selected)

    @override
    def __len__(self) -> int:
        return len(self.decisions)

    def to_json(self) -> list[dict[str, Any]]:
        """Plain data, ready for JSON; equal for equal calls and policies."""
        return [decision.to_json() for decision in self]

    @override
    def table(self) -> Table:
        """A table with denied calls in red and allowed calls in green, also named in words."""
        return Table(
            self._title(),
            ("#", "Call", "Verdict", "Certain", "Because of", "Why"),
            tuple(decision.row() for decision in self),
            tones=tuple(verdict_tone(decision.verdict) for decision in self),
        )

    def _title(self) -> str:
        counts = [("allowed", self.allowed), ("denied", self.denied)]
        if self.not_reached:
            counts.append((NOT_REACHED, self.not_reached))
        counted = ", ".join(f"{len(group)} {word}" for word, group in counts)
        return f"{len(self)} call{'' if len(self) == 1 else 's'}: {counted}"


def simulate(
    policy: AnyPolicy,
    calls: Iterable[AnyTrial],
    *,
    session: Labels = NO_LABELS,
    tools: Iterable[AnyTool] | None = None,
) -> Simulation:
    """Try a policy on calls, in order and in one session.

    The session's labels pass from call to call as on the server. A denied call keeps the changes of
    `session before` and returns no result. A call that uses its result is not reached and changes
    nothing.

    Args:
        policy: Text or a parsed policy, with the service's default presets; a `PolicyHeader`, with
            its own presets and as in a dual-LLM session; an engine, as
            `header.compile(dual_llm=False)`; or a list of policies, which are combined.
        calls: Each a `Trial`, a mapping with the same keys, or a `Call`, whose labels are final.
        session: The session's labels before the first call.
        tools: All tools, as for `check`. Without them any tool can be called, except one without
            rules whose name is one slip away from a tool in the policy. Defaults of their schemas
            fill omitted arguments.

    Returns:
        A decision for each call.

    Raises:
        UsageError: If `policy` is not a policy, or a call is invalid: its tool or an argument is
            unknown or misspelt, for example.
        PolicySyntaxError: If the text is not a SQRT policy.

    Example:
        ```python
        from langchain_sequrity.sqrt import simulate

        policy = '''
            tool "read_mail" -> @tags |= {"untrusted"};
            tool "pay" {
                /// mails do not move money
                must deny when amount.tags overlaps {"untrusted"};
            }
        '''
        read, pay = simulate(
            policy,
            [
                {"tool": "read_mail", "id": "mail"},
                {"tool": "pay", "arguments": {"amount": 5}, "uses": {"amount": ["mail"]}},
            ],
        )
        assert read.allowed
        assert pay.verdict.final_verdict == "hard_denied"
        assert pay.verdict.reasons[0].description == "mails do not move money"
        ```
    """
    (decided,) = decisions(calls, session, tools, engine_of(policy))
    return Simulation(decided)


def decisions(
    calls: Iterable[AnyTrial], session: Labels, tools: Iterable[AnyTool] | None, *engines: Engine
) -> list[tuple[Decision, ...]]:
    """The decisions of each engine on the same calls, each in a session of its own."""
    trials = _read_trials(calls)
    arguments = _check_names(trials, tools, *engines)
    if not isinstance(session, Labels):
        msg = (
            f"Expected `Labels` as `session`, got {_type_of(session)}. "
            'Write `Labels(tags=frozenset({"name"}))`.'
        )
        raise UsageError(msg)
    return [tuple(_run(Gate((engine,), arguments), trials, session)) for engine in engines]


def _run(gate: Gate, trials: Iterable[Trial], session: Labels) -> Iterator[Decision]:
    results: dict[str, Labels] = {}
    for number, trial in enumerate(trials, 1):
        decision = _decide_trial(gate, _pending_decision(number, trial, results, session))
        session = decision.session_after
        if trial.id and decision.result_labels is not None:
            results[trial.id] = decision.result_labels
        yield decision


def _decide_trial(gate: Gate, pending: Decision) -> Decision:
    if pending.waits_for:
        return pending
    begun, trial = gate.begin(pending.call, pending.session_before), pending.trial
    session, verdict = begun.session, gate.verdict(begun)
    if not verdict.allowed:
        return replace(pending, verdict=verdict, session_after=session)
    returned = ToolReturn(trial.result, trial.result_labels, trial.combine, trial.is_error)
    labels, session = gate.result_labels(pending.call, returned, session)
    return replace(pending, verdict=verdict, session_after=session, result_labels=labels)


def _pending_decision(
    number: int, trial: Trial, results: dict[str, Labels], session: Labels
) -> Decision:
    """A call without a verdict yet, with the labels of the results that it uses."""
    used = {name: tuple(trial.uses.get(name, ())) for name in trial.arguments}
    arguments = {}
    for name, value in trial.arguments.items():
        labels = trial.labels.get(name, NO_LABELS)
        for call_id in used[name]:
            labels = labels.join(results.get(call_id, NO_LABELS))
        arguments[name] = Argument(value, labels)
    missing = dict.fromkeys(i for ids in used.values() for i in ids if i not in results)
    call = Call(trial.tool, arguments)
    return Decision(number, trial, call, None, session, session, waits_for=tuple(missing))


# Coverage

Status = Literal["decided", "held", "did not hold", "passed over", "never reached"]
_EXERCISED = {"decided", "held"}
_TONES: dict[str, Tone] = {
    "decided": "good", "held": "good", "did not hold": "doubtful", "passed over": "bad",
    "never reached": "bad",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CoveredRule:
    """A check rule or a label change, and how often calls exercised it.

    Attributes:
        line: Its line, from 1.
        column: Its column, from 1.
        tool: The id of its tool, or its regex as written.
        kind: `must deny`, `should allow`, …, `result`, `session before` or `session after`.
        rule: A check rule as written, or a change in words.
        decided: Calls whose verdict it decided.
        held: Calls for which it held, but another rule decided. A change that ran has held.
        not_held: Calls for which it was evaluated and did not hold, or was an allowance in doubt.
        passed_over: Calls for which it was not evaluated, because an earlier denial had decided.
        in_doubt: The calls of `decided` and `held` for which it is unknown whether it holds.
        policy: The name of its policy if there are several, else an empty text. `decided` is then
            about the verdict of that policy.
    """

    line: int
    column: int
    tool: str
    kind: str
    rule: str
    decided: int = 0
    held: int = 0
    not_held: int = 0
    passed_over: int = 0
    in_doubt: int = 0
    policy: str = ""

    @property
    def status(self) -> Status:
        """Its best result over all calls."""
        if self.decided:
            return "decided"
        if self.held:
            return "held"
        if self.not_held:
            return "did not hold"
        return "passed over" if self.passed_over else "never reached"

    @property
    def is_missed(self) -> bool:
        """Whether no call exercised it."""
        return self.status not in _EXERCISED


@dataclass(frozen=True, slots=True, repr=False)
class Coverage(TableMixin):
    """The coverage of a policy by calls; made by `coverage`.

    Attributes:
        rules: All check rules and label changes in source order; for several policies, those of
            each.
        simulation: The decisions on the calls.
    """

    rules: tuple[CoveredRule, ...]
    simulation: Simulation

    @property
    def missed(self) -> tuple[CoveredRule, ...]:
        """Rules and changes that held for no call."""
        return tuple(rule for rule in self.rules if rule.is_missed)

    @property
    def share(self) -> float:
        """The share of rules that held for some call, from 0 to 1; 1 for a policy without rules."""
        return 1 - len(self.missed) / len(self.rules) if self.rules else 1.0

    @property
    def by_default(self) -> int:
        """Calls that no written rule decided."""
        verdicts = [decision.verdict for decision in self.simulation]
        return sum(v is not None and not any(r.at for r in v.reasons) for v in verdicts)

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "share": self.share,
            "missed": len(self.missed),
            "calls": len(self.simulation),
            "by_default": self.by_default,
            "rules": [
                {**asdict(rule, dict_factory=json_fields), "status": rule.status}
                for rule in self.rules
            ],
        }

    @override
    def table(self) -> Table:
        """A table with a row for each rule, rules that held in green."""
        total, reached = len(self.rules), len(self.rules) - len(self.missed)
        return Table(
            f"{reached} of {total} rules and label changes held for some call ({self.share:.0%})",
            ("Line", "Tool", "Kind", "Rule", "Status", "Decided", "Held", "Did not", "Passed over"),
            tuple(map(_row, self.rules)),
            tuple(self._notes()),
            tuple(_TONES[rule.status] for rule in self.rules),
        )

    def _notes(self) -> Iterator[str]:
        count = len(self.simulation)
        yield (
            f"{count} call{'' if count == 1 else 's'}, of which {self.by_default} decided by no "
            f"written rule and {len(self.simulation.not_reached)} not reached."
        )
        if any(rule.passed_over for rule in self.rules):
            yield (
                "Passed over: an earlier `must deny` had decided (`fail_fast`), so the rule was "
                "not evaluated."
            )


def _row(rule: CoveredRule) -> Row:
    status: str = rule.status
    if rule.in_doubt == rule.decided + rule.held > 0:
        status = f"{status}, each time in doubt"
    counts = (rule.decided, rule.held, rule.not_held, rule.passed_over)
    cells = (
        line_cell(rule.line, rule.policy),
        rule.tool,
        rule.kind,
        rule.rule,
        status,
        *map(str, counts),
    )
    return tuple((cell,) for cell in cells)


def coverage(
    policy: AnyPolicy,
    calls: Iterable[AnyTrial],
    *,
    session: Labels = NO_LABELS,
    tools: Iterable[AnyTool] | None = None,
) -> Coverage:
    """Find the rules and label changes of a policy that a set of calls exercises.

    No call tests a rule that never held, so it may contain a mistake.

    Args:
        policy: As for `simulate`.
        calls: As for `simulate`.
        session: The session's labels before the first call.
        tools: As for `simulate`.

    Returns:
        The counts, and the simulation behind them.

    Raises:
        UsageError: If a call is invalid or `policy` is not a policy.
        PolicySyntaxError: If the text is not a SQRT policy.

    Example:
        ```python
        from langchain_sequrity.sqrt import coverage

        policy = '''
            tool "pay" {
                must deny when amount.value in {int 100..};
                must deny when to.value == "eve";
            }
        '''
        covered = coverage(policy, [{"tool": "pay", "arguments": {"amount": 200, "to": "eve"}}])
        assert [rule.status for rule in covered.rules] == ["decided", "passed over"]
        assert covered.share == 0.5
        ```
    """
    engine = _CountingEngine(engine_of(policy))
    (decided,) = decisions(calls, session, tools, engine)
    return Coverage(tuple(engine.covered_rules()), Simulation(decided))


class _CountingEngine(Engine):
    """An engine that counts the results of its rules and steps, by their positions."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(
            engine.policy,
            engine.tools,
            engine.presets,
            engine.name,
            tuple(map(_CountingEngine, engine.parts)),
        )
        self._counts: defaultdict[Position, Counter[str]] = defaultdict(Counter)
        self._votes_cast: list[Vote] = []

    def covered_rules(self, policy: str = "") -> Iterator[CoveredRule]:
        """The rules and label changes, with their counts; for combined policies, those of each."""
        for part in cast("tuple[_CountingEngine, ...]", self.parts):
            yield from part.covered_rules(part.name or "")
        declarations = () if self.parts else self.policy.declarations
        for item in (item for node in declarations for item in items_of(node)):
            if isinstance(item.node, CheckRule | UpdateStep):
                texts = tool_name(item.tool), item.kind, short_text(item)
                counts: Mapping[str, Any] = self._counts[item.at]
                yield CoveredRule(*item.at, *texts, **counts, policy=policy)

    @override
    def votes(self, call: Call, session: Labels) -> Iterator[Vote]:
        for vote in super().votes(call, session):
            self._votes_cast.append(vote)
            yield vote

    @override
    def decide(self, call: Call, session: Labels) -> Verdict:
        self._votes_cast = []
        verdict = super().decide(call, session)
        if self.parts:
            return verdict
        decided = {reason.at for reason in verdict.reasons}
        unevaluated = {check.reason.at for check, _ in self._rules_for(call.tool).checks}
        for vote in self._votes_cast:
            position = vote.reason.at
            unevaluated.discard(position)
            if position is not None:  # only presets have no position
                self._count(position, vote, decided=position in decided)
        for position in filter(None, unevaluated):
            self._counts[position]["passed_over"] += 1
        return verdict

    def _count(self, position: Position, vote: Vote, *, decided: bool) -> None:
        counts = self._counts[position]
        # A rule in doubt denies and never allows (V2).
        holds = vote.holds if vote.reason.verdict == "allow" else vote.holds is not False
        in_doubt = vote.holds is None or vote.fails is None
        counts["decided"] += decided
        counts["held"] += bool(holds) and not decided
        counts["not_held"] += not holds and not decided
        counts["in_doubt"] += in_doubt and (decided or bool(holds))

    @override
    def steps(
        self, phase: Phase, tool: str, context: EvaluationContext
    ) -> Iterator[tuple[CompiledStep, Truth]]:
        for step, truth in super().steps(phase, tool, context):
            counts = self._counts[step.node.at]
            counts["not_held" if truth is False else "held"] += 1
            counts["in_doubt"] += truth is None
            yield step, truth
