"""Calls of tools tried on a policy, without any tool, model or server.

Decisions and labels are those of the local server for the same calls in one session
(`docs/behaviour.md`, M5 and V1 to V3), without blockers and classifiers.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NoReturn, get_args, overload

from typing_extensions import override

from langchain_sequrity.display import plain
from langchain_sequrity.display.tables import Cell, Row, Table, Tabled, Tone
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import KINDS, Combine, Labels, make_labels
from langchain_sequrity.sqrt.coerce import (
    AnyPolicy,
    AnyTool,
    Arguments,
    arguments_of,
    completed,
    engine_of,
)
from langchain_sequrity.sqrt.context import Argument, Call, result_labels
from langchain_sequrity.sqrt.diagnostics import Spellings
from langchain_sequrity.sqrt.engine import Engine
from langchain_sequrity.sqrt.matchers import MatchBudget
from langchain_sequrity.sqrt.nodes import Binding
from langchain_sequrity.sqrt.verdict import Reason, Verdict
from langchain_sequrity.suggestions import meant, nearest

NOT_REACHED = "not reached"
_SHOWN = 3


def verdict_word(verdict: Verdict | None) -> str:
    """The verdict in a word or two."""
    return NOT_REACHED if verdict is None else verdict.final_verdict.replace("_", " ")


def certain_word(verdict: Verdict | None) -> str:
    """Whether the verdict is certain, in words."""
    if verdict is None:
        return ""
    if verdict.certain:
        return "certain"
    absent = dict.fromkeys(name for reason in verdict.reasons for name in reason.absent)
    if absent:
        return f"uncertain: the call has no argument {' and '.join([*absent][:_SHOWN])}"
    return "uncertain: the service may see this differently"


def tone(verdict: Verdict | None) -> Tone:
    """The colour of a verdict."""
    if verdict is None:
        return "doubtful"
    return "good" if verdict.allowed else "bad"


def rules_cell(verdict: Verdict | None) -> Cell:
    """The rules that decided, with their lines."""
    return _shortened([] if verdict is None else [_rule(reason) for reason in verdict.reasons])


def reasons_cell(verdict: Verdict | None) -> Cell:
    """The doc comments of the rules that decided."""
    found = [] if verdict is None else [reason.description for reason in verdict.reasons]
    return _shortened(list(dict.fromkeys(one for one in found if one)))


def verdict_json(verdict: Verdict | None) -> dict[str, Any]:
    """A verdict as plain data; all fields are `null` for a call that is not reached."""
    names = ("allowed", "strength", "certain", "n_allowed", "n_denied")
    return {
        "verdict": "not_reached" if verdict is None else verdict.final_verdict,
        **{name: getattr(verdict, name, None) for name in names},
        "reasons": [] if verdict is None else [reason_json(one) for one in verdict.reasons],
    }


def reason_json(reason: Reason) -> dict[str, Any]:
    """A rule that decided, as plain data; a preset has no line and column."""
    names = ("description", "strength", "verdict", "certain", "unmet")
    return {
        "rule": reason.rule,
        "line": reason.at and reason.at.line,
        "column": reason.at and reason.at.column,
        **{name: getattr(reason, name) for name in names},
    }


def _rule(reason: Reason) -> str:
    text = " ".join(reason.rule.split())
    unmet = "not met: " if reason.unmet else ""
    return f"{unmet}{text} (line {reason.at.line})" if reason.at else f"{unmet}{text} (preset)"


def _shortened(lines: list[str]) -> Cell:
    if (more := len(lines) - _SHOWN) > 0:
        return (*lines[:_SHOWN], f"and {more} more")
    return tuple(lines) or ("",)


_MAX_DEPTH = 100  # as in requests to the local server
_NO_LABELS = Labels()


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

    Example:
        ```python
        from langchain_sequrity.sqrt import Trial, simulate

        policy = '''
            tool "read" -> @tags |= {"mail"};
            tool "send" { must deny when text.tags overlaps {"mail"}; }
        '''
        read = Trial("read", id="a")
        send = Trial("send", {"text": "Hi"}, uses={"text": ["a"]})
        assert [one.allowed for one in simulate(policy, [read, send])] == [True, False]
        ```
    """

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Labels] = field(default_factory=dict)
    uses: Mapping[str, Iterable[str]] = field(default_factory=dict)
    id: str = ""
    result: Any = None
    result_labels: Labels = _NO_LABELS
    combine: Combine = "merge"


Given = Trial | Call | Mapping[str, Any]
"""A call to try: a `Trial`, the same as a mapping, or a `Call` whose labels are final."""

_KEYS = tuple(one.name for one in fields(Trial))
_MESSAGE_KEYS = {"name": "tool", "args": "arguments"}


def read_trials(calls: Iterable[Given]) -> list[Trial]:
    """Read and check calls to try.

    Args:
        calls: The calls in order.

    Raises:
        UsageError: For an invalid call: its number, what was expected, what to do.
    """
    if isinstance(calls, str | bytes | Mapping | Trial | Call) or not isinstance(calls, Iterable):
        msg = (
            f"Expected a list of calls to try, got {_kind(calls)}. "
            'Write `[Trial("tool", {"argument": value}), …]`.'
        )
        raise UsageError(msg)
    trials: list[Trial] = []
    known: dict[str, int] = {}
    for number, given in enumerate(calls, 1):
        reader = _TrialReader(number)
        trial = reader.read(given)
        reader.check_ids(trial, known)
        if trial.id:
            known[trial.id] = number
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

    def read(self, given: Any) -> Trial:
        """Read and check it."""
        if isinstance(given, Trial):
            return self._checked(given)
        if isinstance(given, Mapping):
            return self._checked(self._from_json(given))
        if not isinstance(given, Call):
            self._fail(
                f"expected a `Trial`, a `Call` or a mapping, got {_kind(given)}",
                'Write `Trial("tool", {"argument": value})`',
            )
        self._name(given.tool)
        values = {name: one.value for name, one in given.arguments.items()}
        labels = {name: one.labels for name, one in given.arguments.items()}
        return Trial(given.tool, self._arguments(values), labels)

    def check_ids(self, trial: Trial, known: Mapping[str, int]) -> None:
        """Check that its id is unique, and that the results that it uses come before it."""
        if trial.id in known:
            self._fail(
                f"call {known[trial.id]} already has the id {_shown(trial.id)}",
                "Give each call its own id, or no id",
            )
        for name, ids in trial.uses.items():
            for one in ids:
                if one not in known:
                    advice = nearest(one, known) or "Give this id to an earlier call"
                    self._fail(
                        f"`uses` of {_shown(name)} names {_shown(one)}, but no earlier call "
                        "has this id",
                        advice,
                    )

    # JSON

    def _from_json(self, given: Mapping[str, Any]) -> Trial:
        self._known("", given, _KEYS)
        if "tool" not in given:
            self._fail("it names no `tool`", 'Write `{"tool": "name", "arguments": {…}}`')
        read = dict(given)
        self._name(read["tool"])
        labels = self._mapping("labels", read.get("labels", {}))
        read["labels"] = {
            name: self._labels_from_json(f"labels of {_shown(name)}", one)
            for name, one in labels.items()
        }
        if "result_labels" in read:
            read["result_labels"] = self._labels_from_json("`result_labels`", read["result_labels"])
        return Trial(**read)

    def _labels_from_json(self, what: str, given: Any) -> Any:
        if isinstance(given, Labels):
            return given
        if not isinstance(given, Mapping):
            self._fail(
                f"{what}: expected an object of labels, got {_kind(given)}",
                'Write `{"tags": ["web"]}`',
            )
        self._known(f" in {what}", given, KINDS)
        return self._labels(what, **given)

    def _known(self, where: str, given: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        for key in given:
            if key not in keys:
                known = ", ".join(f"`{one}`" for one in keys)
                near = nearest(key, keys) if isinstance(key, str) else ""
                if (
                    key in _MESSAGE_KEYS and _MESSAGE_KEYS[key] in keys
                ):  # as in LangChain's tool calls
                    near = f"Write `{_MESSAGE_KEYS[key]}`"
                self._fail(f"unknown key {_shown(key)}{where}", near or f"Keys are {known}")

    # Checks

    def _checked(self, trial: Trial) -> Trial:
        self._name(trial.tool)
        arguments = self._arguments(trial.arguments)
        labels = self._mapping("labels", trial.labels)
        uses = self._mapping("uses", trial.uses)
        for what, named in (("labels", labels), ("uses", uses)):
            for name in named:
                if name not in arguments:
                    near = nearest(name, arguments) or "Name one of `arguments`"
                    self._fail(
                        f"`{what}` names {_shown(name)}, which is not one of `arguments`",
                        near,
                    )
        if not isinstance(trial.id, str):
            self._fail(f"expected a text as `id`, got {_kind(trial.id)}", 'Write `"mail"`')
        if trial.combine not in get_args(Combine):
            self._fail(
                f"`combine` is one of `merge`, `replace`, `ignore`; got {_shown(trial.combine)}",
                "Leave it out to merge",
            )
        self._json("`result`", trial.result)
        return Trial(
            trial.tool,
            arguments,
            {name: self._own(f"labels of {_shown(name)}", one) for name, one in labels.items()},
            {name: self._ids(name, ids) for name, ids in uses.items()},
            trial.id,
            trial.result,
            self._own("`result_labels`", trial.result_labels),
            trial.combine,
        )

    def _name(self, tool: Any) -> None:
        if not isinstance(tool, str) or not tool:
            what = _kind(tool) if tool != "" else "an empty one"
            self._fail(f"expected the name of a tool, got {what}", 'Write `"tool": "send_mail"`')
        self._where = f"Call {self._number} (`{plain(tool, limit=80)}`)"

    def _arguments(self, given: Any) -> dict[str, Any]:
        arguments = self._mapping("arguments", given)
        for name, value in arguments.items():
            self._json(f"argument {_shown(name)}", value)
        return arguments

    def _mapping(self, what: str, given: Any) -> dict[str, Any]:
        if not isinstance(given, Mapping):
            self._fail(
                f"expected `{what}` by name of argument, got {_kind(given)}",
                f'Write `{what}` as `{{"name": …}}`',
            )
        for name in given:
            if not isinstance(name, str):
                self._fail(
                    f"`{what}`: names of arguments are texts, got {_kind(name)}",
                    f'Write `{what}` as `{{"name": …}}`',
                )
        return dict(given)

    def _ids(self, name: str, given: Any) -> tuple[str, ...]:
        """Ids of calls. A text is refused, because iterating over it would yield its letters."""
        is_list = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)
        ids = tuple(given) if is_list else ()
        if not is_list or not all(isinstance(one, str) and one for one in ids):
            self._fail(
                f"`uses` of {_shown(name)}: expected a list of ids of calls, got {_shown(given)}",
                'Write `{"name": ["id"]}`',
            )
        return ids

    def _own(self, what: str, given: Any) -> Labels:
        """Labels from a caller, who may not use the service's own names."""
        if not isinstance(given, Labels):
            self._fail(f"{what}: expected `Labels`, got {_kind(given)}", "Write `Labels(…)`")
        return self._labels(what, given.producers, given.consumers, given.tags)

    def _labels(self, what: str, *sets: Any, **named: Any) -> Labels:
        for one in (*sets, *named.values()):
            if not isinstance(one, Iterable) or isinstance(one, Mapping):
                self._fail(f"{what}: expected lists of names, got {_kind(one)}", 'Write `["web"]`')
        try:
            return make_labels(*sets, **named)
        except (UsageError, TypeError) as error:  # a name that is not hashable
            why = str(error) if isinstance(error, UsageError) else "Names are texts."
            msg = f"{self._where}: {what}: {plain(why)}"
            raise UsageError(msg) from None

    def _json(self, what: str, value: Any) -> None:
        if fault := _not_json(value, _MAX_DEPTH):
            self._fail(
                f"{what}: expected plain JSON data, got {fault}",
                "Pass the data that a model would send",
            )

    def _fail(self, what: str, advice: str) -> NoReturn:
        msg = f"{self._where}: {what}. {advice}{'' if advice.endswith('?') else '.'}"
        raise UsageError(msg)


def _not_json(value: Any, depth: int) -> str:
    """The reason why a value is not JSON, or an empty text."""
    if value is None or isinstance(value, str | bool | int):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"the number {value}"
    if not isinstance(value, list | dict):
        return _kind(value)
    if not depth:
        return f"data nested deeper than {_MAX_DEPTH} levels"
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                return f"a key that is {_kind(key)}"
    inside = value.values() if isinstance(value, dict) else value
    return next(filter(None, (_not_json(one, depth - 1) for one in inside)), "")


def _kind(value: Any) -> str:
    return f"a value of type `{type(value).__name__}`"


def _shown(value: Any) -> str:
    return f"`{plain(value if isinstance(value, str) else repr(value), limit=80)}`"


def check_names(
    trials: Iterable[Trial], tools: Iterable[AnyTool] | None, *engines: Engine
) -> dict[str, Arguments]:
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
    known = {} if tools is None else arguments_of(tools)
    faults = _misspelt(trials, engines) if tools is None else _unknown(trials, known)
    for number, trial, fault in faults:
        msg = f"Call {number} (`{plain(trial.tool, limit=80)}`): {fault}"
        raise UsageError(msg)
    return known


_Faults = Iterator[tuple[int, Trial, str]]


def _unknown(trials: Iterable[Trial], known: Mapping[str, Arguments]) -> _Faults:
    for number, trial in enumerate(trials, 1):
        if trial.tool not in known:
            advice = nearest(trial.tool, known) or "Add it to the tools."
            yield number, trial, f"there is no such tool. {advice}"
            continue
        arguments = known[trial.tool]
        for name in filter(arguments.lack, trial.arguments):
            advice = nearest(name, arguments.names) or "Leave it out."
            yield number, trial, f"it has no argument `{plain(name, limit=80)}`. {advice}"


def _misspelt(trials: Iterable[Trial], engines: Sequence[Engine]) -> _Faults:
    names, spellings, budget = _named(engines), Spellings(), MatchBudget()
    for name in names:
        spellings.add(name)
    for number, trial in enumerate(trials, 1):
        other = "" if trial.tool in names else spellings.near(trial.tool)
        if other and not _has_rules(trial.tool, engines, budget):
            advice = f"{meant(other)} If not, give the tools that there are"
            yield number, trial, f"no rule is for this tool. {advice} as `tools`."


def _named(engines: Sequence[Engine]) -> dict[str, None]:
    nodes = (node for engine in engines for node in engine.policy.declarations)
    texts = (node.tool.text for node in nodes if not isinstance(node, Binding))
    return dict.fromkeys(text.raw for text in texts if text.kind == "plain")


def _has_rules(tool: str, engines: Sequence[Engine], budget: MatchBudget) -> bool:
    entries = (entry for engine in engines for entry in engine.tools)
    return any(entry.matches(tool, budget) is not False for entry in entries)


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
        ids = ", ".join(f"`{plain(one, limit=80)}`" for one in self.waits_for)
        return f"no result of {ids}"

    def row(self) -> Row:
        """The decision as a row of the simulation's table."""
        tool, id_ = self.call.tool, self.trial.id
        return (
            (str(self.number),),
            (f"{tool} ({id_})" if id_ else tool,),
            (verdict_word(self.verdict),),
            (certain_word(self.verdict),),
            rules_cell(self.verdict) if self.verdict else (self._waiting(),),
            reasons_cell(self.verdict),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the values of arguments and results."""
        return {
            "number": self.number,
            "id": self.trial.id,
            "tool": self.call.tool,
            "labels": {name: one.labels.to_wire() for name, one in self.call.arguments.items()},
            **verdict_json(self.verdict),
            "waits_for": list(self.waits_for),
            "session_before": self.session_before.to_wire(),
            "session_after": self.session_after.to_wire(),
            "result_labels": None if self.result_labels is None else self.result_labels.to_wire(),
        }


@dataclass(frozen=True, slots=True, repr=False)
class Simulation(Sequence[Decision], Tabled):
    """The decisions of a policy on the calls of one session; made by `simulate`.

    Print it, show it in a notebook, or read it as data.

    Attributes:
        decisions: One for each call; the simulation itself is a sequence of them.
    """

    decisions: tuple[Decision, ...]

    @property
    def allowed(self) -> tuple[Decision, ...]:
        """The calls that are allowed."""
        return tuple(one for one in self if one.allowed)

    @property
    def denied(self) -> tuple[Decision, ...]:
        """The calls that are denied."""
        return tuple(one for one in self if one.denied)

    @property
    def not_reached(self) -> tuple[Decision, ...]:
        """The calls that use the result of a call that returned none."""
        return tuple(one for one in self if one.verdict is None)

    @overload
    def __getitem__(self, index: int) -> Decision: ...

    @overload
    def __getitem__(self, index: slice) -> "Simulation": ...

    @override
    def __getitem__(self, index: int | slice) -> "Decision | Simulation":
        found = self.decisions[index]
        return found if isinstance(found, Decision) else Simulation(found)

    @override
    def __len__(self) -> int:
        return len(self.decisions)

    def to_json(self) -> list[dict[str, Any]]:
        """Plain data, ready for JSON; equal for equal calls and policies."""
        return [one.to_json() for one in self]

    @override
    def table(self) -> Table:
        """A table with denied calls in red and allowed calls in green, also named in words."""
        return Table(
            self._title(),
            ("#", "Call", "Verdict", "Certain", "Because of", "Why"),
            tuple(one.row() for one in self),
            tones=tuple(tone(one.verdict) for one in self),
        )

    def _title(self) -> str:
        counts = [("allowed", self.allowed), ("denied", self.denied)]
        if self.not_reached:
            counts.append((NOT_REACHED, self.not_reached))
        shown = ", ".join(f"{len(found)} {word}" for word, found in counts)
        return f"{len(self)} call{'' if len(self) == 1 else 's'}: {shown}"


def simulate(
    policy: AnyPolicy,
    calls: Iterable[Given],
    *,
    session: Labels = _NO_LABELS,
    tools: Iterable[AnyTool] | None = None,
) -> Simulation:
    """Try a policy on calls, in order and in one session.

    The session's labels pass from call to call as on the server. A denied call keeps the changes of
    `session before` and returns no result. A call that uses its result is not reached and changes
    nothing.

    Args:
        policy: Text or a parsed policy, with the service's default presets; a `PolicyHeader`, with
            its own presets and as in a dual-LLM session; or an engine, as
            `header.compile(dual_llm=False)`.
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
    engine, trials = engine_of(policy), read_trials(calls)
    known = check_names(trials, tools, engine)
    return Simulation(tuple(run(engine, trials, session, known)))


def run(
    engine: Engine, trials: Iterable[Trial], session: Labels, tools: Mapping[str, Arguments]
) -> Iterator[Decision]:
    """Run checked trials through an engine, in order."""
    _check_session(session)
    results: dict[str, Labels] = {}
    for number, trial in enumerate(trials, 1):
        decision = _decided(engine, _undecided(number, trial, results, session), tools)
        session = decision.session_after
        if trial.id and decision.result_labels is not None:
            results[trial.id] = decision.result_labels
        yield decision


def _check_session(session: Labels) -> None:
    """Refuse labels that are not sets of names."""
    what = f"a value of type `{type(session).__name__}`"
    if isinstance(session, Labels):
        sets = (session.producers, session.consumers, session.tags)
        if all(isinstance(names, frozenset) for names in sets):
            return
        what = "`Labels` whose sets are not `frozenset`s"
    msg = f'Expected `Labels` as `session`, got {what}. Write `Labels(tags=frozenset({{"name"}}))`.'
    raise UsageError(msg)


def _decided(engine: Engine, made: Decision, tools: Mapping[str, Arguments]) -> Decision:
    """Decide one call, in the order of `local/policy_gate.py`."""
    if made.waits_for:
        return made
    call, trial = completed(made.call, tools), made.trial
    session = engine.before(call, made.session_before)
    verdict = engine.decide(call, session)
    if not verdict.allowed:
        return replace(made, verdict=verdict, session_after=session)
    labels = result_labels(call, trial.result_labels, trial.combine)
    labels, session = engine.after(call, Argument(trial.result, labels), session)
    return replace(made, verdict=verdict, session_after=session, result_labels=labels)


def _undecided(number: int, trial: Trial, results: dict[str, Labels], session: Labels) -> Decision:
    """A call without a verdict yet, with the labels of the results that it uses."""
    used = {name: tuple(trial.uses.get(name, ())) for name in trial.arguments}
    arguments = {}
    for name, value in trial.arguments.items():
        labels = trial.labels.get(name, _NO_LABELS)
        for one in used[name]:
            labels = labels.join(results.get(one, _NO_LABELS))
        arguments[name] = Argument(value, labels)
    missing = dict.fromkeys(one for ids in used.values() for one in ids if one not in results)
    call = Call(trial.tool, arguments)
    return Decision(number, trial, call, None, session, session, waits_for=tuple(missing))
