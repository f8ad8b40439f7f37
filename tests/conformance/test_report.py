"""A report contains the results, but no keys, sessions and accounts."""

import json
import re
from dataclasses import fields, replace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_sequrity.conformance import PROBES, Outcome, Report, Target, run
from langchain_sequrity.conformance.suite import AccountMasker, dumps
from langchain_sequrity.errors import UsageError
from langchain_sequrity.local import LocalServer
from tests.conformance.conftest import KEYS, target_of

UUID = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}")
ONE = next(iter(PROBES.values()))


def written(report: Report) -> str:
    return report.to_markdown() + dumps([report]) + repr(report)


@pytest.mark.long(sample=1)
def test_a_report_contains_no_keys_sessions_and_addresses(report: Report) -> None:
    text = report.to_markdown() + dumps([report])
    for key in (*KEYS, report.target.llm_api_key or ""):
        assert key not in text
        assert key[-8:] not in text
    assert not UUID.search(text)
    assert "127.0.0.1" not in text
    assert not any(key in repr(report) for key in KEYS)


def test_a_report_contains_each_probe_once_with_its_choice(report: Report) -> None:
    text = report.to_markdown()
    for name in PROBES:
        assert text.count(f"| `{name}` |") == 1
    data = json.loads(dumps([report]))
    assert [one["id"] for one in data[0]["probes"]] == [one.probe.id for one in report.outcomes]
    assert all(one["choice"] and one["relies"] for one in data[0]["probes"])


class _Echoing(httpx.HTTPTransport):
    """Answers each request with an error that repeats the whole request and adds more secrets."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        session = "0b6f1c2e-1a2b-11f1-9c3d-0242ac120002"
        said = {
            "detail": f"{dict(request.headers)} {request.url} org-Qq81zzTT7yy2 mail a.b@corp.example "
            f"tc-{session}-{session} tc{session.replace('-', '') * 2} https://tenant.corp.example/x"
        }
        return httpx.Response(418, json=said, headers={"x-session-id": session})


def test_secrets_that_a_service_echoes_are_removed_from_a_report(full_server: LocalServer) -> None:
    with httpx.Client(transport=_Echoing()) as client:
        report = run(target_of(full_server), http_client=client)
    text = written(report)
    assert report.having("refuted")
    for one in (*KEYS, "sk-or-55", "Qq81zzTT7yy2", "corp.example", "0242ac120002", "0b6f1c2e"):
        assert one not in text.replace(full_server.base_url, "")


@given(st.text(max_size=60), st.sampled_from([*KEYS, "sk-or-5566778899aabb"]), st.text(max_size=60))
def test_a_key_in_any_text_is_masked(before: str, key: str, after: str) -> None:
    target = Target(
        "http://127.0.0.1:1",
        api_key=KEYS[0],
        second_key=KEYS[1],
        llm_api_key="sk-or-5566778899aabb",
    )
    assert key not in AccountMasker(target, []).text(f"{before}{key}{after}")


@given(st.uuids(), st.text("abc -_,.:;'\"{}", max_size=40))
def test_a_session_in_any_spelling_is_masked(session: object, around: str) -> None:
    scrubber = AccountMasker(Target("http://127.0.0.1:1"), [])
    bare = str(session).replace("-", "")
    for spelling in (f"tc-{session}-{session}", f"tc{bare}{bare}"):
        text = scrubber.text(f" {spelling} {around}")
        assert str(session) not in text
        assert bare not in text


@pytest.mark.parametrize(
    "said", ["a|b", "`x`", "<img src=x>", "[a](http://x)", "a\nb", "\x1b[31m", "# a"]
)
def test_texts_of_a_service_are_escaped_in_the_markdown_report(said: str) -> None:
    report = Report(Target("http://127.0.0.1:1"), (Outcome(ONE, "refuted", said, said),), 1)
    row = next(line for line in report.to_markdown().splitlines() if line.startswith("| `"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 5
    foreign = re.split(r"(?<!\\)\|", row)[3]
    assert not re.search(r"(?<!\\)[<>\[\]`#*_]", foreign)
    assert "\x1b" not in row


def test_the_exit_code_is_0_only_if_a_probe_was_confirmed_and_none_refuted() -> None:
    def code(*verdicts: str) -> int:
        outcomes = tuple(Outcome(ONE, verdict, "x") for verdict in verdicts)  # type: ignore[arg-type]
        return Report(Target("http://127.0.0.1:1"), outcomes, 1).exit_code

    assert code("confirmed", "no answer") == 0
    assert code("confirmed", "refuted") == 1
    assert code("no answer") == 1
    assert code() == 1


def test_a_refuted_choice_says_whether_the_client_copes() -> None:
    target = Target("http://127.0.0.1:1")
    copes = Outcome(ONE, "refuted", "x", client_copes=True, advice="Set nothing.")
    relies = replace(copes, client_copes=False)
    said = "The client works with this answer too. Set nothing."
    assert said in Report(target, (copes,), 1).to_markdown()
    assert said not in (text := Report(target, (relies,), 1).to_markdown())
    assert "Set nothing." in text
    assert Report(target, (copes, Outcome(ONE, "confirmed", "x")), 1).exit_code == 0
    assert Report(target, (relies, Outcome(ONE, "confirmed", "x")), 1).exit_code == 1


@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("https://service.example", {}), ("http://service.example", {"api_key": "sq-1"}),
        ("ftp://x", {}), ("http://127.0.0.1", {"api_key": "a b"}),
        ("http://127.0.0.1", {"provider": "nobody"}), ("http://127.0.0.1", {"second_key": "a\nb"}),
        ("https://service.example", {"api_key": ""}), ("http://127.0.0.1", {"second_key": ""}),
    ],
)  # fmt: skip
def test_an_invalid_target_is_refused(address: str, options: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        Target(address, **options)  # type: ignore[arg-type]


def test_a_target_shows_no_key_in_its_repr() -> None:
    hidden = {one.name for one in fields(Target) if not one.repr}
    assert hidden == {"api_key", "llm_api_key", "second_key"}


SESSION = "0b6f1c2e-1a2b-11f1-9c3d-0242ac120002"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("ab12-cd of ab12", "<session> of <session>"),
        (f"call tc-{SESSION}-{SESSION}", "call <call>"),
        (f"id {SESSION}", "id <id>"),
        ("from a.b@corp.example", "from <mail>"),
        ("see https://corp.example/x", "see <url>"),
        ("at 127.0.0.1:8787", "at <host>"),
        ("of org-8Hk2aaaabbbbcccc", "of <name>"),
    ],
)
def test_a_masked_text_says_what_was_masked(text: str, masked: str) -> None:
    masker = AccountMasker(Target("http://127.0.0.1:8787"), ["ab12", "ab12-cd"])
    assert masker.text(text) == masked


def test_what_ended_a_run_and_ids_of_sessions_of_any_form_are_masked(
    full_server: LocalServer,
) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        status = 401 if keys else 418
        said = {"detail": "No credit of a.b@corp.example in alpha7."}
        return httpx.Response(status, json=said, headers={"x-session-id": "alpha7"})

    for keys in (True, False):
        with httpx.Client(transport=httpx.MockTransport(answer)) as client:
            report = run(target_of(full_server), only=["program-runs"], http_client=client)
        assert bool(report.stopped) is keys
        assert "No credit" in written(report)
        assert "corp.example" not in written(report)
        assert "alpha7" not in written(report)
