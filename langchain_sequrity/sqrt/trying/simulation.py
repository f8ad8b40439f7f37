"""Calls of tools tried on a policy, without any tool, model or server.

What is decided, and which labels move, is what the local server does for the same calls in one
session (`docs/behaviour.md`, M5 and V1 to V3). It has no blockers and no classifiers.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from typing_extensions import override

from langchain_sequrity.display import plain
from langchain_sequrity.display.tabled import Tabled
from langchain_sequrity.display.tables import Row, Table
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt.context import Argument, Call, result_labels
from langchain_sequrity.sqrt.engine import Engine
from langchain_sequrity.sqrt.given import AnyPolicy, engine_of
from langchain_sequrity.sqrt.given_tools import AnyTool, Arguments, completed
from langchain_sequrity.sqrt.trying.naming import check_names
from langchain_sequrity.sqrt.trying.telling import (
    NOT_REACHED,
    certain_word,
    reasons_cell,
    rules_cell,
    tone,
    verdict_json,
    verdict_word,
)
from langchain_sequrity.sqrt.trying.trials import Given, Trial, read_trials
from langchain_sequrity.sqrt.verdict import Verdict

_NO_LABELS = Labels()


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says about one call.

    Attributes:
        number: The call's number, from 1.
        trial: The call as it was given.
        call: The call as it was checked: arguments with the labels of the results in them.
        verdict: What the policy says; `None` if the call is not reached.
        session_before: The session's labels before the call and its `session before` changes.
        session_after: The session's labels from now on, also after a denial.
        result_labels: Labels of the result; `None` if there is none.
        waits_for: Ids of the calls whose results it is made from and that gave none.
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
        """Whether the policy denies the call. One that is not reached is neither."""
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
        """It in the columns of a simulation's table."""
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
        """It as plain data, without the values of arguments and results."""
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
    """What a policy says about calls of one session; made by `simulate`.

    Print it, show it in a notebook, or take it as data.

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
        """The calls that are made from results that were never there."""
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
        """All of it as plain data, fit for JSON: the same for the same calls and policy."""
        return [one.to_json() for one in self]

    @override
    def table(self) -> Table:
        """It as a table: denied in red, allowed in green, each said in words too."""
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
        told = ", ".join(f"{len(found)} {word}" for word, found in counts)
        return f"{len(self)} call{'' if len(self) == 1 else 's'}: {told}"


def simulate(
    policy: AnyPolicy,
    calls: Iterable[Given],
    *,
    session: Labels = _NO_LABELS,
    tools: Iterable[AnyTool] | None = None,
) -> Simulation:
    """Try a policy on calls, in order and in one session.

    The session's labels move from call to call as they do on the server. A denied call keeps what
    `session before` changed, and gives no result; a call that is made from its result is not
    reached, and changes nothing.

    Args:
        policy: Text or a parsed policy, under the service's default presets; a `PolicyHeader`,
            under its own and as in a dual-LLM session; or an engine, as
            `header.compile(dual_llm=False)`.
        calls: Each a `Trial`, a mapping of the same form, or a `Call`, whose labels are taken as
            they are.
        session: The session's labels before the first call.
        tools: The tools that there are, as for `check`. Without them a call of any tool is tried,
            unless no rule is for it and its name is one slip away from one that the policy names.
            Defaults of their schemas stand for arguments that a call leaves out.

    Returns:
        A decision for each call.

    Raises:
        UsageError: For calls that cannot be tried, of tools or with arguments that do not exist
            or are misspelt, or what is no policy.
        PolicySyntaxError: If the text is no SQRT policy.

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
    """Take checked trials through an engine, one after the other."""
    _check_session(session)
    results: dict[str, Labels] = {}
    for number, trial in enumerate(trials, 1):
        decision = _decided(engine, _made(number, trial, results, session), tools)
        session = decision.session_after
        if trial.id and decision.result_labels is not None:
            results[trial.id] = decision.result_labels
        yield decision


def _check_session(session: Labels) -> None:
    """Refuse what would be compared letter by letter, or not at all."""
    what = f"a value of type `{type(session).__name__}`"
    if isinstance(session, Labels):
        sets = (session.producers, session.consumers, session.tags)
        if all(isinstance(names, frozenset) for names in sets):
            return
        what = "one whose labels are not in a `frozenset`"
    msg = f'Expected `Labels` as `session`, got {what}. Write `Labels(tags=frozenset({{"name"}}))`.'
    raise UsageError(msg)


def _decided(engine: Engine, made: Decision, tools: Mapping[str, Arguments]) -> Decision:
    """One call, in the order of `local/gate.py`."""
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


def _made(number: int, trial: Trial, results: dict[str, Labels], session: Labels) -> Decision:
    """A call that waits for its verdict, with the labels of the results that it is made from."""
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
