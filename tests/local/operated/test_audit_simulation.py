"""Calls of an audit log, tried again: the same policy gives the same verdicts (a law)."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from click.testing import CliRunner, Result

from langchain_sequrity.cli.commands import cli
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.labels import Labels
from langchain_sequrity.local import AuditLog, LocalServer
from langchain_sequrity.sqrt import Argument, Call, Simulation, simulate
from tests.local.api import CHAT
from tests.sqrt.agreement import DEFINITIONS, TOOLS, Scenario, Session, Writer

Json = dict[str, Any]
SCENARIOS = 12
SEEDS = [*range(SCENARIOS), *(pytest.param(n, marks=pytest.mark.long) for n in range(100, 300))]


class Audited:
    """A server with an audit log, and the lines that were added to it."""

    def __init__(self, path: Path, **options: Any) -> None:
        self._path = path
        self._read = 0
        self.calls: list[Json] = []  # of the model, one after the other
        self._server = LocalServer(
            replacing_tools=TOOLS, audit_log=AuditLog(path=path, **options),
            script=[{"answer": lambda _request: {"tool_calls": self.calls}}],
        )  # fmt: skip

    def __enter__(self) -> Self:
        self._http = httpx.Client(base_url=self._server.start().base_url, trust_env=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._server.stop()

    def dual(self, scenario: Scenario) -> list[bytes]:
        """The lines of a dual-LLM session that makes the calls of a scenario."""
        Session(self._http, scenario).run()
        return self._new_lines()

    def single(self, scenario: Scenario) -> list[bytes]:
        """The lines of requests of a single-LLM session, each with several calls."""
        for start in range(0, len(scenario.trials), 3):
            self.calls = [
                {"name": trial.tool, "arguments": dict(trial.arguments)}
                for trial in scenario.trials[start : start + 3]
            ]
            headers = {
                "Authorization": "Bearer sq-test",
                "X-Policy": scenario.policy.to_header(),
                "X-Features": '{"agent_arch": "single-llm"}',
            }
            body = {
                "model": "a/b", "tools": DEFINITIONS, "messages": [{"role": "user", "content": "Go"}],
            }  # fmt: skip
            assert self._http.post(CHAT, json=body, headers=headers).status_code == 200
        return self._new_lines()

    def _new_lines(self) -> list[bytes]:
        lines = self._path.read_bytes().splitlines()
        new, self._read = lines[self._read :], len(lines)
        return new


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    with Audited(tmp_path_factory.mktemp("audit") / "audit.jsonl") as running:
        yield running


@pytest.fixture(scope="module")
def hashed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    with Audited(path, arguments="hash") as running:
        yield running


def recorded(lines: list[bytes]) -> list[tuple[str, bool]]:
    return [(line["verdict"], line["certain"]) for line in map(json.loads, lines)]


def verdicts(simulation: Simulation) -> list[tuple[str, bool]]:
    assert all(decision.verdict for decision in simulation)
    return [
        (decision.final_verdict, decision.verdict is not None and decision.verdict.certain)
        for decision in simulation
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_policy_gives_the_verdicts_in_the_log(audited: Audited, seed: int) -> None:
    scenario = Writer(("audit", seed)).scenario()
    for lines, is_dual in ((audited.dual(scenario), True), (audited.single(scenario), False)):
        simulation = simulate(scenario.policy.compile(dual_llm=is_dual), lines)
        assert verdicts(simulation) == recorded(lines)
        assert not simulation.unmet


@pytest.mark.parametrize("seed", SEEDS)
def test_another_policy_gives_exactly_the_differences(audited: Audited, seed: int) -> None:
    scenario, other = Writer(("audit", seed)).scenario(), Writer(("other", seed)).scenario()
    lines = audited.dual(scenario)
    engine = other.policy.compile(dual_llm=True)
    expected = []
    for line in map(json.loads, lines):
        arguments = {
            name: Argument(value, read(line["labels"][name]))
            for name, value in line["arguments"].items()
        }
        call = Call(line["tool"], arguments, read(line["decided_by"]), line["declared"])
        session = engine.before(call, read(line["session_labels"]))
        verdict = engine.decide(call, session)
        expected.append(verdict.final_verdict != line["verdict"])
    simulation = simulate(engine, lines)
    assert [not decision.is_as_expected for decision in simulation] == expected


def read(labels: Json) -> Labels:
    """Labels that are all lists of names; these scenarios have no others."""
    return Labels(**{kind: frozenset(names) for kind, names in labels.items()})


@pytest.mark.parametrize("seed", SEEDS)
def test_hashed_calls_are_judged_as_recorded_or_not_at_all(hashed: Audited, seed: int) -> None:
    scenario = Writer(("audit", seed)).scenario()
    lines = hashed.dual(scenario)
    simulation = simulate(scenario.policy.compile(dual_llm=True), lines)
    assert not simulation.unmet
    for decision, (verdict, _) in zip(simulation, recorded(lines), strict=True):
        assert decision.final_verdict in {verdict, "not_reached"}


def test_some_hashed_calls_are_judged_and_some_are_not(hashed: Audited) -> None:
    judged = set()
    for seed in range(SCENARIOS):
        scenario = Writer(("audit", seed)).scenario()
        simulation = simulate(scenario.policy.compile(dual_llm=True), hashed.dual(scenario))
        judged |= {decision.verdict is not None for decision in simulation}
    assert judged == {True, False}


# The command


def simulated(tmp_path: Path, policy: str, lines: list[bytes], *options: str) -> Result:
    (tmp_path / "new.sqrt").write_text(policy, encoding="utf-8")
    (tmp_path / "audit.jsonl").write_bytes(b"\n".join(lines))
    arguments = ["policy", "simulate", str(tmp_path / "new.sqrt")]
    calls = ["--calls", str(tmp_path / "audit.jsonl")]
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli, [*arguments, *calls, *options])


def scenario_of(policy: str) -> Scenario:
    scenario = Writer("command").scenario()
    return Scenario(PolicyHeader.from_sqrt(policy), scenario.trials)


OLD = 'tool "lend" { must deny when a.value == "x"; }'


def test_the_command_says_which_calls_a_new_policy_would_judge_differently(
    audited: Audited, tmp_path: Path
) -> None:
    lines = audited.dual(scenario_of('tool "lend" { should allow always; }'))
    same = simulated(tmp_path, 'tool "lend" { should allow always; }', lines)
    assert same.exit_code == 0, same.output
    assert f"{len(lines)} of {len(lines)} calls as expected" in same.output
    changed = simulated(tmp_path, 'tool "lend" { must deny always; }', lines)
    assert changed.exit_code == 1
    assert "expected soft allowed, got hard denied" in changed.output


def test_the_command_says_what_cannot_be_judged(hashed: Audited, tmp_path: Path) -> None:
    lines = hashed.dual(scenario_of(OLD))
    answer = simulated(tmp_path, OLD, lines)
    assert answer.exit_code == 0, answer.output
    assert "cannot be judged: its verdict may depend on a value that was cut or hashed" in (
        " ".join(answer.output.split())
    )
    document = json.loads(simulated(tmp_path, OLD, lines, "--json").output)
    assert sum(document["unjudged"].values()) > 0


def test_a_line_of_another_version_or_with_a_missing_part_is_refused(
    audited: Audited, tmp_path: Path
) -> None:
    (line, *_) = audited.dual(scenario_of(OLD))
    entry = json.loads(line)
    later = json.dumps({**entry, "audit": 2}).encode()
    torn = json.dumps({key: entry[key] for key in entry if key != "session_labels"}).encode()
    bad = json.dumps({**entry, "session_labels": {**entry["session_labels"], "tags": "x"}}).encode()
    answer = simulated(tmp_path, OLD, [line, later, torn, bad])
    assert answer.exit_code == 2
    for text in ("version 2", "a part is missing", "not lists of names"):
        assert text in answer.output
    assert "3 of 4 lines are invalid" in answer.output


def test_random_order_of_lines_changes_nothing(audited: Audited) -> None:
    scenario = Writer(("audit", 3)).scenario()
    lines = audited.dual(scenario)
    shuffled = random.Random(3).sample(lines, len(lines))  # noqa: S311 - a test's own
    assert verdicts(simulate(scenario.policy, shuffled)) == recorded(shuffled)
