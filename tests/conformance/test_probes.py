"""Each probe gets its expected answer from the local server, and can get another one."""

import json
import re
import time
from pathlib import Path

import httpx
import pytest

from langchain_sequrity.conformance import PROBES, Report, Target, run
from langchain_sequrity.conformance.probes import compare_answer
from langchain_sequrity.conformance.readers import Answer
from langchain_sequrity.conformance.suite import cost_of, select_probes
from langchain_sequrity.errors import UsageError
from langchain_sequrity.local import LocalServer
from tests.conformance.altered import (
    Altered,
    Change,
    asks,
    asks_twice,
    changed_services,
    denial,
    events,
    failure,
    plain_error,
    refused,
    said,
    streamed,
    success,
)
from tests.conformance.conftest import target_of

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.mark.long(sample=50)
@pytest.mark.parametrize("name", PROBES)
def test_the_local_server_gives_the_expected_answer(report: Report, name: str) -> None:
    (outcome,) = (one for one in report.outcomes if one.probe.id == name)
    assert outcome.verdict == "confirmed", outcome
    assert outcome.found in PROBES[name].expected, outcome


@pytest.mark.long(sample=5)
@pytest.mark.parametrize("name", PROBES)
def test_each_probe_can_be_refuted_by_some_answer(full_server: LocalServer, name: str) -> None:
    found = []
    for change, service in changed_services():
        with httpx.Client(transport=service) as client:
            (outcome,) = run(target_of(full_server), only=[name], http_client=client).outcomes
        if outcome.verdict == "refuted":
            return
        found.append((change, outcome.verdict, outcome.found))
    raise AssertionError(found)


FIRST_LOOK = 1  # request before the first probe
LAST_CHUNK = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
LABELS = {"producers": ["probe-forged", "__tool"], "consumers": ["*"], "tags": []}


@pytest.mark.parametrize(
    ("name", "change", "found", "copes"),
    [
        ("session-second-turn", refused(404), "status 404", True),
        ("result-alone-without-program", refused(409), "status 409", True),
        ("session-goes-on-after-denial", refused(404), "status 404", True),
        ("history-differs", success(), "success", True),
        ("result-for-no-call", asks(text="x"), "asks for a tool", True),
        ("program-imports-os", success(), "success", True),
        ("denial-approvable", denial(), "no strength", True),
        ("result-not-cached", success(), "success", False),
        ("session-unknown", refused(410), "status 410", True),
        ("session-unknown", success(), "success", False),
        ("call-id-form", asks(text="x"), "another form", False),
        ("call-id-names-session", asks(text="x"), "it does not", False),
        ("program-failed-finish", failure(), "length", False),
        ("labels-forged", success(meta=LABELS), "probe-forged", False),
        ("labels-ignored", success(meta=LABELS), "probe-forged", False),
        ("labels-of-plain-result", success(meta=LABELS), "others", False),
        ("denial-told", failure(), "failed otherwise", False),
        ("denial-told", asks(text="x"), "allowed", False),
        ("default-allow", denial(), "denied", False),
        ("vote-hard-deny-first", asks(text="x"), "allowed", False),
        ("branch-forbidden", success(), "success", False),
        ("single-llm-denial", said("I would rather not.", refusal=True), "unreadable", False),
        ("single-llm-denial", said("All is well."), None, False),
        ("single-llm-denial", asks(text="x"), "the call is made all the same", False),
        ("stream-ends", events(LAST_CHUNK), "otherwise", False),
        ("stream-ends", events({"choices": []}), None, False),
        ("stream-ends", streamed("[DONE]", json.dumps(LAST_CHUNK)), "otherwise", False),
        ("call-id-form", asks_twice, None, False),
        ("stream-of-envelope", events(LAST_CHUNK), "something else", False),
        ("stream-of-envelope", events({"choices": []}), None, False),
        ("header-of-20-kib", refused(431), "refused", True),
        ("header-of-8-kib", refused(431), "status 431", False),
        ("key-missing", success(), "status 200", False),
        ("key-missing", refused(403), "status 403", True),
        ("error-body", plain_error("Bad request"), "no JSON object", False),
        ("policy-gen-reply", success(), "choices, created, id, model, object", False),
    ],
)  # fmt: skip
def test_another_behaviour_is_reported_with_whether_the_client_copes(
    full_server: LocalServer, name: str, change: Change, found: str | None, *, copes: bool
) -> None:
    # Only a connection that closes makes a second request for the long header.
    last = FIRST_LOOK + (1 if name == "header-of-20-kib" else PROBES[name].requests)
    with httpx.Client(transport=Altered(change, last)) as client:
        (outcome,) = run(target_of(full_server), only=[name], http_client=client).outcomes
    if found is None:
        assert outcome.verdict == "no answer"
    else:
        assert (outcome.verdict, outcome.found, outcome.client_copes) == ("refuted", found, copes)


@pytest.mark.parametrize(
    ("name", "at", "change", "verdict"),
    [
        ("result-json-is-read", 2, refused(503), "confirmed"),
        ("result-strict-parsing", 2, refused(429), "confirmed"),
        ("result-json-is-read", 2, refused(401), "no answer"),
        ("result-strict-parsing", 2, refused(402), "no answer"),
        ("labels-replaced", 1, success(), "no answer"),
        ("labels-replaced", 2, failure(), "confirmed"),
        ("labels-of-branch", 2, failure(), "refuted"),
        ("labels-of-comparison", 2, failure(), "refuted"),
        ("labels-of-result", 2, failure(), "no answer"),
    ],
)
def test_only_the_reply_that_a_probe_asks_about_counts_as_its_answer(
    full_server: LocalServer, name: str, at: int, change: Change, verdict: str
) -> None:
    with httpx.Client(transport=Altered(change, FIRST_LOOK + at)) as client:
        (outcome,) = run(target_of(full_server), only=[name], http_client=client).outcomes
    assert outcome.verdict == verdict


@pytest.mark.long(sample=65)
@pytest.mark.parametrize("name", PROBES)
def test_a_probe_sends_no_more_requests_than_it_declares(report: Report, name: str) -> None:
    (outcome,) = (one for one in report.outcomes if one.probe.id == name)
    assert 1 <= outcome.requests <= PROBES[name].requests


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_names_existing_sections_about_its_choice(name: str) -> None:
    probe = PROBES[name]
    assert probe.relies
    for place in probe.relies:
        page, _, section = place.partition(", ")
        text = (DOCS / page).read_text()
        assert not section or re.search(rf"^#+ {re.escape(section)}$", text, re.MULTILINE), place


@pytest.mark.parametrize("name", PROBES)
def test_each_answer_that_refutes_a_choice_says_what_a_user_should_do(name: str) -> None:
    probe = PROBES[name]
    for found in (*probe.copes, "something that nobody expected"):
        outcome = compare_answer(probe, Answer(found))
        assert re.fullmatch(r"[A-Z][^\n]*\.", outcome.advice), outcome
        report = Report(Target("http://127.0.0.1:1"), (outcome,), 1)
        assert outcome.advice in report.to_markdown().replace("\\|", "|")
        assert "may not work" not in report.to_markdown()


def test_probes_are_well_formed() -> None:
    assert len(PROBES) >= 60
    for name, probe in PROBES.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert probe.question.endswith("?")
        assert probe.expected
        assert not probe.expected & probe.copes.keys()


def test_every_open_question_has_a_probe() -> None:
    page = (DOCS / "protocol.md").read_text().partition("## Open questions")[2]
    rows = re.findall(r"^\|(?!-| Question).*\|([^|]+)\|$", page, re.MULTILINE)
    assert len(rows) > 10
    for probes in rows:
        names = re.findall(r"`([^`]+)`", probes)
        assert names
        for name in names:
            assert select_probes([name])


def test_a_run_sends_no_more_requests_than_its_probes_declare(report: Report) -> None:
    assert report.requests <= cost_of(select_probes()).requests


def test_an_id_with_a_star_selects_all_probes_with_that_prefix() -> None:
    names = [probe.id for probe in select_probes(["denial-*", "health"])]
    assert len(names) > 2
    assert all(name == "health" or name.startswith("denial-") for name in names)


def test_an_unknown_probe_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="Did you mean `health`"):
        run(Target("http://127.0.0.1:9"), only=["heath"])


def test_an_unreachable_service_gives_no_answer_to_any_probe() -> None:
    report = run(Target("http://127.0.0.1:9"))
    assert {one.verdict for one in report.outcomes} == {"no answer"}
    assert len(report.outcomes) == len(PROBES)
    assert report.requests <= 3
    assert report.exit_code == 1


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(200, text="<html>", headers={"content-type": "text/html"}),
        httpx.Response(200, json=[]), httpx.Response(200, json={"choices": [[]]}),
        httpx.Response(200, json={"choices": [{"message": {"tool_calls": [7]}}]}),
        httpx.Response(200, json={"choices": [{"message": {"content": [{}], "tool_calls": {"a": 1}}}]}),
        httpx.Response(302, headers={"location": "https://elsewhere.example"}),
        httpx.Response(503), httpx.Response(429, headers={"retry-after": "3600"}),
        httpx.Response(200, content=b"data: [\n\n", headers={"content-type": "text/event-stream"}),
    ],
    ids=["html", "list", "choice", "call", "content", "redirect", "503", "429", "stream"],
)  # fmt: skip
def test_any_form_of_reply_leads_to_a_report(
    reply: httpx.Response, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # before a repetition after 503

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(reply.status_code, headers=reply.headers, content=reply.content)

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        report = run(Target("https://service.example", api_key="sq-1"), http_client=client)
    assert len(report.outcomes) == len(PROBES)
    assert report.to_markdown()
