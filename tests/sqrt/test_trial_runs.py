"""Calls from iterators and lines of JSON: the same results in every form, in constant memory."""

import gc
import io
import json
import pickle
import random
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from typing import Any

import pytest

from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import (
    Decision,
    DecisionGroup,
    Trial,
    compile_policy,
    coverage,
    diff,
    simulate,
)
from langchain_sequrity.sqrt.coerce import engine_of
from langchain_sequrity.sqrt.trial_runs import run_trials
from langchain_sequrity.sqrt.trials import MAX_LINE, lines_in
from tests.sqrt.agreement import DEFINITIONS, Writer

Json = dict[str, Any]
MAILED = """
tool "read_mail" { session after { @tags |= {"mail"}; } }
tool "send_mail" { must deny when "mail" in @session.tags; }
"""
COMBINED = [
    'tool "lend" { must deny when "x" in a.tags; } tool "scan" -> @tags |= {"x"};',
    'tool "lend" { must deny when b2.value == 7; } tool "scan" -> session @tags |= {"y"};',
]


def as_json(trial: Trial) -> Json:
    """A call in the form of files."""
    return {
        **asdict(trial),
        "labels": {name: given.to_wire() for name, given in trial.labels.items()},
        "uses": {name: [*ids] for name, ids in trial.uses.items()},
        "result_labels": trial.result_labels.to_wire(),
    }


def as_line(trial: Trial) -> bytes:
    return json.dumps(as_json(trial)).encode() + b"\n"


FORMS: dict[str, Callable[[list[Trial]], Iterable[Any]]] = {
    "trials": iter,
    "mappings": lambda trials: [as_json(trial) for trial in trials],
    "lines": lambda trials: map(as_line, trials),
    "a file": lambda trials: io.BytesIO(b"".join(map(as_line, trials))),
}


def sessions(seed: int, number: int) -> tuple[Any, list[list[Trial]]]:
    """A policy, and the calls of several sessions."""
    policy, calls = None, []
    for session in range(number):
        scenario = Writer((seed, session)).scenario()
        policy = policy or scenario.policy
        calls.append([replace(trial, session=f"s{session}") for trial in scenario.trials])
    return policy, calls


def shuffled(seed: int, calls: list[list[Trial]]) -> list[Trial]:
    """The calls of all sessions, those of each in order."""
    order = [index for index, session in enumerate(calls) for _ in session]
    random.Random(seed).shuffle(order)  # noqa: S311 - a test's own
    each = [iter(session) for session in calls]
    return [next(each[index]) for index in order]


def told(decisions: Iterable[Decision]) -> list[Json]:
    return [{**one.to_json(), "number": 0} for one in decisions]


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("seed", range(40))
def test_calls_in_every_form_have_the_same_results(seed: int) -> None:
    scenario = Writer(("forms", seed)).scenario()
    other = Writer(("other", seed)).scenario().policy
    policy, trials = scenario.policy, scenario.trials
    for form in FORMS.values():
        calls = partial(form, trials)
        assert simulate(policy, calls()) == simulate(policy, trials)
        assert coverage(policy, calls()) == coverage(policy, trials)
        assert diff(other, policy, calls()) == diff(other, policy, trials)


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("seed", range(40))
def test_sessions_share_nothing_also_if_their_calls_are_mixed(seed: int) -> None:
    policy, calls = sessions(seed, 3)
    mixed = simulate(policy, shuffled(seed, calls))
    for index, session in enumerate(calls):
        apart = told(simulate(policy, session))
        assert told(one for one in mixed if one.trial.session == f"s{index}") == apart


def test_the_order_of_calls_in_a_session_counts_whatever_is_between_them() -> None:
    calls = [
        {"tool": "read_mail", "session": "a"},
        {"tool": "send_mail", "session": "b"},
        {"tool": "send_mail", "session": "a"},
        {"tool": "send_mail"},
    ]
    assert [one.allowed for one in simulate(MAILED, calls)] == [True, True, False, True]


def test_ids_are_those_of_a_session() -> None:
    first = {"tool": "read_mail", "id": "x", "session": "a"}
    use = {"tool": "send_mail", "arguments": {"to": 1}, "uses": {"to": ["x"]}}
    assert simulate("", [first, {**first, "session": "b"}, {**use, "session": "b"}])[2].allowed
    with pytest.raises(UsageError, match=r"Call 2 .*no earlier call has this id"):
        simulate("", [first, {**use, "session": "b"}])
    with pytest.raises(UsageError, match=r"Call 2 .*call 1 already has the id"):
        simulate("", [first, first])


# Processes


def _runs() -> dict[str, Callable[..., Any]]:
    policy, calls = sessions(7, 12)
    other = Writer(8).scenario().policy
    alone = [replace(trial, id="", uses={}, session="") for trial in chain(*calls)]
    trials = [*shuffled(7, calls), *alone]
    return {
        "lines": lambda **options: simulate(policy, map(as_line, trials), **options),
        "mappings": lambda **options: simulate(policy, map(as_json, trials), keep=5, **options),
        "rules": lambda **options: coverage(policy, trials, tools=DEFINITIONS, **options),
        "policies": lambda **options: coverage(COMBINED, trials, **options),
        "changes": lambda **options: diff(other, policy, trials, keep=5, **options),
        "no session": lambda **options: simulate('tool "lend" {}', trials, keep=5, **options),
    }


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("jobs", [2, 3])
@pytest.mark.parametrize("name", _runs())
def test_the_results_do_not_depend_on_the_number_of_processes(name: str, jobs: int) -> None:
    run = _runs()[name]
    assert run(jobs=jobs) == run(jobs=1)


WITH_FAULTS = [
    b'{"tool": "read_mail"}',
    b"{",
    b'{"tool": "raed_mail"}',
    b'{"tool": "send_mail", "session": "b"}',
]


@pytest.mark.long
def test_results_and_faults_come_in_order_from_several_processes() -> None:
    outputs = []
    for jobs in (1, 2):
        results, faults = io.BytesIO(), list[str]()
        lines = WITH_FAULTS * 1_000
        engine = compile_policy(MAILED)
        count = run_trials(
            lines, [engine], [], jobs=jobs, results=results, on_invalid=faults.append
        )
        assert (count, len(faults)) == (4_000, 2_000)
        outputs.append((results.getvalue(), faults))
        with pytest.raises(UsageError, match=r"^Line 2: "):
            run_trials(lines, [engine], [], jobs=jobs)
    assert outputs[0] == outputs[1]


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("seed", range(40))
def test_an_engine_sent_to_another_process_decides_the_same(seed: int) -> None:
    scenario = Writer(("sent", seed)).scenario()
    for policy in (scenario.policy, COMBINED):
        engine = engine_of(policy)
        again = pickle.loads(pickle.dumps(engine))
        assert simulate(again, scenario.trials) == simulate(engine, scenario.trials)


@pytest.mark.parametrize("session", ["a", "b", "c", "d"])
def test_a_process_without_calls_counts_no_calls_again(session: str) -> None:
    calls = [{"tool": tool, "session": session} for tool in ("read_mail", "send_mail")]
    tried = simulate(MAILED, calls, jobs=2)
    assert [call.number for call in tried] == [1, 2]
    assert tried.counts.total() == simulate(MAILED, calls, keep=0, jobs=2).counts.total() == 2


@pytest.mark.parametrize("jobs", [0, -1, 1.5, "2"])
def test_a_number_of_processes_below_one_is_refused(jobs: Any) -> None:
    with pytest.raises(UsageError, match="`jobs` must be a number of processes from 1"):
        simulate("", [{"tool": "a"}], jobs=jobs)


@pytest.mark.parametrize("keep", [-1, 1.5, "2"])
@pytest.mark.parametrize("function", [simulate, coverage, partial(diff, "")])
def test_a_number_of_decisions_below_zero_is_refused(function: Any, keep: Any) -> None:
    with pytest.raises(UsageError, match="`keep` must be a number of decisions from 0"):
        function("", [{"tool": "a"}], keep=keep)


# Memory


class Watched(dict[str, Any]):
    """A call that can be counted."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def watched(number: int, most: int) -> Iterator[Watched]:
    """Calls, of which at most some may live at one time."""
    alive: weakref.WeakSet[Watched] = weakref.WeakSet()
    for index in range(number):
        call = Watched(tool="send_mail", arguments={"to": index}, session=f"s{index % 7}")
        call["expect"] = "denied" if index % 5 else "allowed"
        alive.add(call)
        assert len(alive) <= most
        yield call


@pytest.mark.parametrize("keep", [0, 10])
def test_each_call_is_dropped_when_it_has_been_tried(keep: int) -> None:
    for function in (simulate, coverage, partial(diff, "")):
        function(MAILED, watched(300, most=3), keep=keep)


def objects(kind: type) -> int:
    gc.collect()
    return sum(isinstance(one, kind) for one in gc.get_objects())


def test_decisions_beyond_those_that_are_held_are_only_counted() -> None:
    before = objects(Decision)
    counts = []

    def calls() -> Iterator[Json]:
        for number in range(3_000):
            if number % 1_000 == 999:
                counts.append(objects(Decision) - before)
            yield {"tool": "send_mail", "arguments": {"to": number}}

    simulation = simulate(MAILED, calls(), keep=10)
    assert max(counts) <= 12
    assert (len(simulation), simulation.counts.total()) == (10, 3_000)


def test_equal_labels_of_sessions_and_results_are_held_once() -> None:
    before = objects(Labels)
    counts = []

    def calls() -> Iterator[Json]:
        for number in range(500):
            yield {"tool": "read_mail", "id": "m", "session": f"s{number}"}
        counts.append(objects(Labels) - before)

    assert simulate(MAILED, calls(), keep=0).counts["allowed"] == 500
    assert counts[0] < 20


def test_labels_that_are_equal_but_mean_something_else_are_not_shared() -> None:
    policy = """
        tool "hide" -> @consumers = {};
        tool "keep_from" -> @consumers -= {"x"};
        tool "publish" { must deny when "y" in text.consumers; }
    """
    calls: list[Json] = [
        {"tool": "hide", "id": "hidden"},
        {"tool": "keep_from", "id": "kept"},
        {"tool": "publish", "arguments": {"text": 1}, "uses": {"text": ["kept"]}},
    ]
    alone, beside = simulate(policy, calls[1:])[-1], simulate(policy, calls)[-1]
    assert alone.verdict == beside.verdict
    assert beside.verdict is not None
    assert not beside.verdict.certain


@pytest.mark.parametrize("keep", [0, 3, 20])
@pytest.mark.long(sample=2)
@pytest.mark.parametrize("seed", range(40))
def test_groups_count_all_calls_and_the_first_decisions_are_held(seed: int, keep: int) -> None:
    scenario = Writer(("groups", seed)).scenario()
    expectations: list[Any] = ["denied", "hard_denied", *["allowed"] * len(scenario.trials)]
    trials: list[Any] = [
        replace(trial, expect=expect)
        for trial, expect in zip(scenario.trials, expectations, strict=False)
    ]
    whole, part = (simulate(scenario.policy, trials, keep=most) for most in (None, keep))
    assert part.decisions == whole.decisions[:keep]
    if len(trials) <= keep:
        assert part == whole
        return
    assert part.counts == whole.counts
    assert [group.first.number for group in part.groups] == sorted(
        group.first.number for group in part.groups
    )
    assert sum(group.calls for group in part.unmet) == sum(not one.is_as_expected for one in whole)
    covered, shown = (coverage(scenario.policy, trials, keep=most) for most in (None, keep))
    assert {**covered.to_json()} == {**shown.to_json()}
    assert shown.table() == covered.table()


def test_a_simulation_of_many_calls_shows_their_numbers() -> None:
    calls = [{"tool": "send_mail", "session": "a"}, {"tool": "read_mail", "session": "a"}]
    simulation = simulate(MAILED, [*calls, *[calls[0]] * 40], keep=1)
    assert [(group.calls, group.first.number) for group in simulation.groups] == [
        (1, 1), (1, 2), (40, 3),
    ]  # fmt: skip
    text = simulation.text(1_000)
    assert text.startswith("42 calls: 2 allowed, 40 denied\n")
    assert "40     3      send_mail  hard denied" in text
    assert repr(simulation) == "Simulation(42 calls: 2 allowed, 40 denied)"
    assert isinstance(simulation.groups[0], DecisionGroup)


def test_a_difference_counts_the_calls_that_it_does_not_hold() -> None:
    calls = [{"tool": "send_mail"}] * 9
    difference = diff("", 'tool "send_mail" { must deny always; }', calls, keep=2)
    assert [one.new.number for one in difference.changed] == [1, 2]
    assert (difference.calls, difference.omitted) == (9, 7)
    assert "9 of 9 calls" in str(difference)
    assert "7 more calls differ than are shown." in str(difference)
    assert not diff("", "", calls, keep=0).omitted
    assert not replace(difference, changed=(), removed=(), added=()).is_none


# Lines


BAD_LINES = [
    (b"{", "expected a call as JSON, got another text: Expecting property name enclosed in double quotes at column "),
    (b"[]", "expected a call as a JSON object, got a value of type `list`. Write `{"),
    (b"7", "expected a call as a JSON object, got a value of type `int`"),
    (b'"send"', "expected a call as a JSON object, got a value of type `str`"),
    (b"- tool: send_mail", "expected a call as JSON, got another text: "),
    (b'{"tool": "send_mail"} {"tool": "send_mail"}', "expected a call as JSON, got another text: Extra data at column 23"),
    (b'{"tool": "a\xff"}', "expected a call as JSON, got another text: 'utf-8' codec can't decode byte 0xff"),
    (b'{"tool": "a", "result": %s1%s}' % (b"[" * 10**5, b"]" * 10**5), "nested too deeply"),
    (b'{"tool": "a", "result": NaN}', "(`a`): `result`: expected plain JSON data, got the number nan"),
    (b'{"tool": "a", "result": 1e999}', "(`a`): `result`: expected plain JSON data, got the number inf"),
    (b"{}", "`tool` is missing"),
    (b'{"tol": "a"}', "unknown key `tol`. Did you mean `tool`?"),
    (b'{"tool": "a", "session": 7}', "(`a`): expected a text as `session`, got a value of type `int`"),
    (b'{"tool": "a", "session": null}', "(`a`): expected a text as `session`"),
    (b'{"tool": "a", "expect": "deny"}', "`expect` must be one of allowed, denied, hard_allowed"),
    (b'{"tool": "a", "expect": ["denied"]}', "`expect` must be one of"),
    (b'{"tool": "sned_mail"}', "(`sned_mail`): no rule is for this tool. Did you mean `send_mail`?"),
    (b'{"tool": "%s"}' % (b"x" * MAX_LINE), f"the line is longer than {MAX_LINE:,} bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_is_refused_with_its_number(line: bytes, message: str) -> None:
    lines = [b'{"tool": "send_mail"}\n', b"\n", line + b"\n", b'{"tool": "send_mail"}']
    faults: list[str] = []
    results = io.BytesIO()
    engine = compile_policy(MAILED)
    file = lines_in(io.BytesIO(b"".join(lines)))
    assert run_trials(file, [engine], [], results=results, on_invalid=faults.append) == 3
    (fault,) = faults
    assert fault.startswith("Line 3")
    assert message in fault
    written = [json.loads(text) for text in results.getvalue().splitlines()]
    assert [one["number"] for one in written] == [1, 3, 4]
    assert written[1] == {"number": 3, "error": fault}
    with pytest.raises(UsageError) as caught:
        simulate(MAILED, lines)
    assert str(caught.value) == fault


@pytest.mark.parametrize(
    "number", [0, 7, -(2**63), 2**63, 2**64, -(2**64), 10**30, 1.5, 0.1234567890123456789, 1e22]
)
def test_lines_keep_every_digit(number: float) -> None:
    line = json.dumps({"tool": "a", "arguments": {"n": number}}).encode()
    (decision,) = simulate("", [line])
    value = decision.call.arguments["n"].value
    assert (value, type(value)) == (number, type(number))


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter() -> None:
    file = io.BytesIO(b'\xef\xbb\xbf{"tool": "a"}\r\n\r\n{"tool": "b"}\r\n')
    assert [one.call.tool for one in simulate("", lines_in(file))] == ["a", "b"]


def test_a_line_of_results_contains_only_printable_ascii() -> None:
    results = io.BytesIO()
    for tool in ("é", "\x7f", "\x9b31m", "\ud800", "\u202e"):
        run_trials([{"tool": tool}], [compile_policy("")], [], results=results)
    assert all(
        len(line) > 2 and line.decode("ascii").isprintable()
        for line in results.getvalue().split(b"\n")[:-1]
    )


# Expectations

MET = {
    "allowed": {"hard_allowed", "soft_allowed"},
    "denied": {"hard_denied", "soft_denied"},
    **{exact: {exact} for exact in ("hard_allowed", "soft_allowed", "hard_denied", "soft_denied", "not_reached")},
}  # fmt: skip
VERDICTS = {
    "must allow": "hard_allowed", "should allow": "soft_allowed",
    "must deny": "hard_denied", "should deny": "soft_denied",
}  # fmt: skip


@pytest.mark.parametrize("expect", MET)
@pytest.mark.parametrize("rule", VERDICTS)
def test_a_decision_says_whether_it_is_as_expected(rule: str, expect: Any) -> None:
    policy = f'tool "a" {{ {rule} always; }}'
    used = Trial("b", {"x": 1}, uses={"x": ["a"]}, expect=expect)
    first, second = simulate(policy, [Trial("a", id="a", expect=expect), used])
    assert first.is_as_expected == (VERDICTS[rule] in MET[expect])
    assert second.is_as_expected == (second.final_verdict in MET[expect])
    assert second.final_verdict == ("soft_allowed" if first.allowed else "not_reached")
