"""What pages say of calls is what the server decided, or would decide: random policies and calls."""

import json
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_sequrity.headers import PolicyHeader, from_wire
from langchain_sequrity.labels import NO_LABELS, RESERVED_PREFIX
from langchain_sequrity.local import ApiKey, LocalServer
from langchain_sequrity.local.console import rerun, views
from langchain_sequrity.local.console.policies import ShownPolicy, shown_policy
from langchain_sequrity.local.console.recorder import (
    RecordedCall,
    RecordedSession,
    RecordedTurn,
    Recorder,
)
from langchain_sequrity.local.observers import ProgramOutcome
from langchain_sequrity.sqrt import Trial, compile_policy
from langchain_sequrity.sqrt.engine import Engine
from tests.local.api import Api, tool
from tests.sqrt.agreement import CALLS, Scenario, Session, Told, Writer, can_be_sent

SEEDS = range(24)
Played = tuple[Scenario, list[Told | None], RecordedSession]


def _recorder(server: LocalServer) -> Recorder:
    assert server._console is not None
    return server._console.recorder


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with (
        LocalServer(replacing_tools=("lend", "scan", "android"), script=[]) as server,
        httpx.Client(base_url=server.base_url, trust_env=False, timeout=60) as client,
    ):
        client.recorder = _recorder(server)  # type: ignore[attr-defined]
        yield client


def _play(http: httpx.Client, seed: object) -> Played:
    scenario = Writer(seed).scenario()
    reports = Session(http, scenario).run()
    recorder: Recorder = http.recorder  # type: ignore[attr-defined]
    return scenario, reports, recorder.sessions()[0]


def _calls(session: RecordedSession) -> list[RecordedCall]:
    return [call for turn in session.turns.values() for call in turn.calls]


def _letters(text: str) -> str:
    return "".join(text.split())  # a reason may quote a rule as it was sent


def _engine(policy: str, session: RecordedSession) -> Engine:
    assert session.presets is not None
    return compile_policy(policy, session.presets)


@pytest.mark.long(sample=4)
@pytest.mark.parametrize("seed", SEEDS)
def test_verdicts_labels_and_lines_are_those_of_the_check(seed: int, http: httpx.Client) -> None:
    scenario, reports, session = _play(http, ("shown", seed))
    policy = shown_policy(session)
    engine = _engine(policy.text, session)  # its lines are those that the page shows
    made = sorted(filter(None, reports), key=lambda report: report.verdict)
    calls = _calls(session)
    assert sorted(call.check.word for call in calls) == [report.verdict for report in made]
    for number, call in enumerate(calls, 1):
        view = views.call_view(number, call, policy)
        session_labels = engine.before(call.check.call, call.check.session)
        verdict = engine.decide(call.check.call, session_labels)
        assert (view.verdict == "allowed") == call.check.is_allowed == verdict.allowed
        assert (view.tone == "good") == verdict.allowed
        lines = [reason.at and reason.at.line for reason in verdict.reasons]
        assert [rule.line for rule in view.rules] == lines
        reasons = [reason.description or reason.doubt for reason in verdict.reasons]
        assert [*map(_letters, reasons)] == [_letters(rule.reason) for rule in view.rules]
        for value in view.values:
            labels = call.check.call.arguments[value.name].labels
            chips = [*views.label_chips(labels)]
            assert len(value.chips) + value.more == len(chips)
    assert len(scenario.trials) == CALLS


@pytest.mark.long(sample=4)
@pytest.mark.parametrize("seed", SEEDS)
def test_under_the_same_policy_all_calls_end_as_before(seed: int, http: httpx.Client) -> None:
    _, _, session = _play(http, ("same", seed))
    report = rerun.of_sessions(shown_policy(session).text, [session])
    assert report.problem == ""
    assert report.calls == len(_calls(session)) > 0
    assert (report.differing, report.other_strength, report.unjudged) == (0, 0, 0)


def _can_be_repeated(call: RecordedCall) -> bool:
    """Whether a client can send the labels of the call, and the session had none."""
    check = call.check
    labels = [argument.labels for argument in check.call.arguments.values()]
    return (
        (check.session, check.call.decided_by) == (NO_LABELS, NO_LABELS)
        and all(isinstance(each.consumers, frozenset) and can_be_sent(each) for each in labels)
        and not any(tag.startswith(RESERVED_PREFIX) for each in labels for tag in each.tags)
    )


def _trial(call: RecordedCall) -> Trial:
    arguments = call.check.call.arguments
    return Trial(
        call.check.call.tool,
        {name: argument.value for name, argument in arguments.items()},
        {name: argument.labels for name, argument in arguments.items()},
        id="r0",
    )


def _only(session: RecordedSession, call: RecordedCall) -> RecordedSession:
    turn = RecordedTurn(1, 0, 0, calls=[call])
    return RecordedSession("one", presets=session.presets, turns={1: turn})


@pytest.mark.long(sample=4)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_new_server_decides_as_a_rerun_says(seed: int, http: httpx.Client) -> None:
    _, _, session = _play(http, ("old", seed))
    written = Writer(("new", seed)).scenario().policy.codes
    assert written is not None
    header = from_wire(
        PolicyHeader,
        {**json.loads(session.policy), "codes": {"code": written.code, "language": "sqrt"}},
    )
    for call in filter(_can_be_repeated, _calls(session)):
        (told,) = Session(http, Scenario(header, [_trial(call)])).run()
        report = rerun.of_sessions(written.code or "", [_only(session, call)])
        assert told is not None
        was_allowed, is_allowed = call.check.is_allowed, told.verdict.endswith("allowed")
        assert report.now_denied == (was_allowed and not is_allowed)
        assert report.now_allowed == (is_allowed and not was_allowed)
        news = [changed.new for changed in report.changed]
        is_same = call.check.word == told.verdict
        assert news == ([] if is_same else [told.verdict.replace("_", " ")])


PIECES = ["x", " ", "\n", "\t", "\r", "\x0c", "(", ")", "'", '"', "\\", "#", "é", "def", "f'{x}'",
          "'''", "\x00", "1", "=", ":", "\u2028", "\U0001f600", "\ud800"]  # fmt: skip


@given(text=st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
def test_lines_of_a_program_are_shown_whole_and_in_order(text: str) -> None:
    turn = RecordedTurn(1, 0, 0, program=ProgramOutcome("", True, (text,)))
    (program,) = views.turn_view(turn, ShownPolicy()).programs
    lines = ["".join(piece.text for piece in line) for line in program.lines]
    assert lines == text.rstrip("\n").split("\n")


def test_the_policy_of_a_key_has_no_lines_in_the_policy_of_the_client() -> None:
    denies = 'tool "look_up" {\n\n\n    must deny always;\n}'
    key, secret = ApiKey.new("alice", policy=denies, features={"agent_arch": "single-llm"})
    script = [{"tool_calls": [{"name": "look_up", "arguments": {"word": "a"}}]}]
    codes = {"code": 'tool "look_up" { should allow always; }', "language": "sqrt"}
    with (
        LocalServer(script=script, api_keys=[key]) as server,
        httpx.Client(timeout=10, trust_env=False) as client,
    ):
        headers = {"X-Policy": json.dumps({"codes": codes})}
        reply = Api(server, client, secret).chat("Go", tools=[tool()], headers=headers)
        assert reply.status_code == 200, reply.text
        (session,) = _recorder(server).sessions()
        url, _, token = server.console_url.partition("?token=")
        authorization = {"Authorization": f"Bearer {token}"}
        page = client.get(f"{url}/sessions/{session.id}", headers=authorization).text
    policy = page.partition('id="policy-title"')[2].partition("</ol>")[0]
    assert "was denied" in page
    assert "of alice" in page
    assert 'href="#policy-' not in page
    assert "denied" not in policy


def test_a_rerun_adds_the_policy_of_the_key_as_the_server_does() -> None:
    key, secret = ApiKey.new(
        "alice",
        policy='tool "look_up" { must deny when word.value == "a"; }',
        features={"agent_arch": "single-llm"},
    )
    script = [
        {"when": {"user": word}, "tool_calls": [{"name": "look_up", "arguments": {"word": word}}]}
        for word in ("a", "b")
    ]
    denies = 'tool "look_up" { must deny always; }'
    with (
        LocalServer(script=script, api_keys=[key]) as server,
        httpx.Client(timeout=10, trust_env=False) as client,
    ):
        api = Api(server, client, secret)
        headers = {"X-Policy": json.dumps({"codes": {"code": denies, "language": "sqrt"}})}
        for word in ("a", "b"):
            assert api.chat(word, tools=[tool()], headers=headers).status_code == 200
        sessions, settings_of = _recorder(server).sessions(), server._services.keys.settings_of
        allows = 'tool "look_up" { must allow always; }'
        alone = rerun.of_sessions(allows, sessions)
        combined = rerun.of_sessions(allows, sessions, settings_of)
        wrong = rerun.of_sessions("tool", sessions, settings_of)
    assert (alone.calls, alone.now_allowed) == (2, 2)
    assert (combined.problem, combined.calls, combined.now_allowed) == ("", 2, 1)
    assert wrong.problem
