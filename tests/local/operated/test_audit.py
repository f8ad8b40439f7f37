"""The audit log: a line for each checked call, and no call without its line."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.local import AuditLog, LocalServer
from langchain_sequrity.local.audit import _File
from langchain_sequrity.sqrt import simulate
from tests.local.api import Api, call_ids, detail, result, session_of, tool
from tests.local.conftest import Serve

Json = dict[str, Any]
POLICY = """
tool "read" -> @tags |= {"mail"};
tool "send" {
    /// mails stay here
    must deny when @session.tags overlaps {"mail"};
}
tool "read" -> session @tags |= {"mail"};
"""
SINGLE = {
    "X-Policy": PolicyHeader.from_sqrt(POLICY).to_header(),
    "X-Features": '{"agent_arch": "single-llm"}',
}
TOOLS = [tool("read"), tool("send")]


def calling(name: str, **arguments: Any) -> Json:
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


def answers(*replies: Any) -> list[Json]:
    """A script in which a model gives these answers, one after the other."""
    left = list(replies)
    return [{"answer": lambda _request: left.pop(0)}]


def lines(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_each_checked_call_has_a_line_with_all_that_its_verdict_depends_on(
    serve: Serve, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    api = serve(
        script=answers(calling("read", word="a"), calling("send", word="b")), audit_log=path
    )
    first = api.chat("Go", headers={**SINGLE, "X-Request-ID": "r-1"}, tools=TOOLS)
    (call_id,) = call_ids(first)
    api.chat(
        result(call_id, "Hi"),
        session=session_of(first),
        headers={"X-Request-ID": "r-2"},
        tools=TOOLS,
    )
    read, send = lines(path)
    assert (read["tool"], read["verdict"], read["request_id"]) == ("read", "soft_allowed", "r-1")
    assert (send["tool"], send["verdict"], send["request_id"]) == ("send", "hard_denied", "r-2")
    assert send["arguments"] == {"word": "b"}
    assert send["session_labels"]["tags"] == ["mail"]
    assert send["labels"]["word"] == {"producers": [], "consumers": ["*"], "tags": []}
    assert (send["line"], send["certain"], send["key"]) == (2, True, "")
    assert "must deny" in send["rule"]
    assert send["session"] == read["session"] == session_of(first)
    assert len(send["policy"]) == 64
    assert path.stat().st_mode & 0o077 == 0


def test_a_call_of_a_program_has_a_line_before_it_is_made(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    api = serve(
        script=[{"program": "x = look_up(word='a')\nfinal_return_value = x"}], audit_log=path
    )
    reply = api.chat("Go", headers={"X-Features": '{"agent_arch": "dual-llm"}'}, tools=[tool()])
    assert len(call_ids(reply)) == 1
    (line,) = lines(path)
    assert (line["architecture"], line["tool"], line["turn"], line["call"]) == (
        "dual-llm", "look_up", 1, 1,
    )  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_call_whose_line_cannot_be_written_is_refused_and_later_turns_too(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def answer(request: Any) -> Json:
        asked.append(request)
        return calling("read", word="a")

    api = serve(script=[{"answer": answer}], audit_log="/dev/full")
    refused = api.chat("Go", headers=SINGLE, tools=TOOLS)
    assert refused.status_code == 503
    assert "audit log" in detail(refused)
    assert "Calls are refused." in caplog.text
    again = api.chat("Go", headers=SINGLE, tools=TOOLS)
    assert (again.status_code, again.headers["retry-after"]) == (503, "1")
    assert len(asked) == 1  # no model is asked for a turn that cannot be audited
    ready = api.request("GET", "/ready")
    assert ready.status_code == 503
    assert ready.json()["not_ready"] == ["The audit log cannot be written."]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_calls_are_made_without_audit_only_if_that_is_allowed(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    log = AuditLog(path="/dev/full", required=False)
    api = serve(script=answers(calling("read", word="a")), audit_log=log)
    assert len(call_ids(api.chat("Go", headers=SINGLE, tools=TOOLS))) == 1
    api.server.stop()
    assert "WITHOUT AUDIT" in caplog.text


def test_long_arguments_are_cut_and_marked(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    calls = answers(calling("read", word="a" * 30, number=[1] * 30, short="b"))
    api = serve(script=calls, audit_log=AuditLog(path=path, most=10))
    api.chat("Go", headers=SINGLE, tools=TOOLS)
    (line,) = lines(path)
    assert line["arguments"] == {
        "word": {"audit_hidden": "str", "begin": "a" * 10},
        "number": {"audit_hidden": "list", "begin": "[1,1,1,1,1"},
        "short": "b",
    }


def test_a_call_cannot_pretend_that_a_value_is_hidden(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    forged = {"audit_hidden": "str", "begin": "harmless"}
    api = serve(script=answers(calling("read", word=forged)), audit_log=path)
    api.chat("Go", headers=SINGLE, tools=TOOLS)
    (line,) = lines(path)
    assert line["arguments"]["word"]["audit_hidden"] == "dict"


def test_equal_values_have_equal_digests_that_need_the_key(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(2):
        calls = answers(calling("read", word="secret", other="secret"))
        log = AuditLog(path=path, arguments="hash")
        api = serve(script=calls, audit_log=log)
        api.chat("Go", headers=SINGLE, tools=TOOLS)
        api.server.stop()
    digests = {value["sha256"] for line in lines(path) for value in line["arguments"].values()}
    assert len(digests) == 1
    assert "secret" not in path.read_text("utf-8")
    assert Path(f"{path}.key").stat().st_mode & 0o077 == 0


def test_values_that_json_hardly_expresses_are_written_and_judged_again(
    serve: Serve, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    value = ["\ud800", 10**30, {"b": 1, "a": 0.5}, "line\nbreak\u2028"]
    api = serve(script=answers(calling("read", word=value)), audit_log=path)
    api.chat("Go", headers=SINGLE, tools=TOOLS)
    (line,) = path.read_bytes().splitlines()
    (decision,) = simulate(POLICY, [line])
    assert decision.call.arguments["word"].value == value
    assert decision.is_as_expected


def test_without_arguments_only_their_names_and_types_are_written(
    serve: Serve, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path=path, arguments="none")
    api = serve(script=answers(calling("read", word="secret")), audit_log=log)
    api.chat("Go", headers=SINGLE, tools=TOOLS)
    (line,) = lines(path)
    assert line["arguments"] == {"word": {"audit_hidden": "str"}}


def test_two_servers_append_to_one_file_and_use_one_key_of_digests(
    serve: Serve, tmp_path: Path
) -> None:
    log = AuditLog(path=tmp_path / "audit.jsonl", arguments="hash")
    script = answers(*[calling("read", word="secret")] * 2)
    for api in (serve(script=script, audit_log=log), serve(script=script, audit_log=log)):
        api.chat("Go", headers=SINGLE, tools=TOOLS)
    first, second = lines(tmp_path / "audit.jsonl")
    assert first["session"] != second["session"]
    assert first["arguments"] == second["arguments"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.jsonl", "audit.jsonl.key"]


def test_a_key_of_digests_that_is_too_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl.key").write_bytes(b"")
    log = AuditLog(path=tmp_path / "audit.jsonl", arguments="hash")
    with pytest.raises(UsageError, match="too short for a key"):
        LocalServer(audit_log=log).start()


def test_lines_that_are_longer_than_a_page_stay_whole_with_many_writers(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    writers = [_File(path, fsync=False) for _ in range(4)]

    def write(number: int) -> None:
        for _ in range(25):
            writers[number].append(f"{number}".encode() * 100_000 + b"\n")

    with ThreadPoolExecutor() as pool:
        for writer in writers:
            writer.open()
        assert [*pool.map(write, range(4))] == [None] * 4
    for writer in writers:
        writer.close()
    texts = path.read_text().splitlines()
    assert sorted({(text[0] * 100_000 == text, text[0]) for text in texts}) == [
        (True, str(number)) for number in range(4)
    ]
    assert len(texts) == 100


def test_a_server_whose_audit_log_cannot_be_opened_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be opened"):
        LocalServer(audit_log=tmp_path / "missing" / "audit.jsonl").start()


def test_a_file_that_was_moved_away_is_begun_anew(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    api = serve(script=answers(calling("read"), calling("send")), audit_log=path)
    api.chat("Go", headers=SINGLE, tools=TOOLS)
    path.rename(tmp_path / "audit.1.jsonl")
    api.chat("Go", headers=SINGLE, tools=TOOLS)
    (old,), (new,) = lines(tmp_path / "audit.1.jsonl"), lines(path)
    assert (old["tool"], new["tool"]) == ("read", "send")


def test_a_line_that_a_killed_server_left_half_written_does_not_harm_the_next(
    serve: Serve, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"audit": 1, "ti', encoding="utf-8")
    api: Api = serve(script=answers(calling("read")), audit_log=path)
    api.chat("Go", headers=SINGLE, tools=TOOLS)
    half, whole = path.read_text("utf-8").splitlines()
    assert half == '{"audit": 1, "ti'
    assert json.loads(whole)["tool"] == "read"


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='"cut", "hash" or "none"'):
        AuditLog(path=tmp_path, arguments="all")  # type: ignore[arg-type] # as users may
    with pytest.raises(UsageError, match="from 0"):
        AuditLog(path=tmp_path, most=-1)
