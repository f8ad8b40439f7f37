"""`policy simulate` and `policy check` on exported traces and other logs of calls."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import run
from tests.traces import RECORDED

POLICY = """\
tool "read_mail" -> @tags |= {"mail"};
tool "send_mail" { must deny when text.tags overlaps {"mail"} and not to.value == "ana"; }
"""


@pytest.fixture(autouse=True)
def files(folder: Path) -> Path:
    """A policy and the recorded traces in the current folder."""
    (folder / "mail.sqrt").write_text(POLICY)
    for name in ("spans.jsonl", "otlp.json"):
        (folder / name).write_bytes((RECORDED / name).read_bytes())
    return folder


def report(*args: str) -> Any:
    return json.loads(run(*args, "--json").stdout)


@pytest.mark.parametrize("calls", ["spans.jsonl", "otlp.json"])
def test_a_trace_is_simulated_and_what_is_assumed_is_said(calls: str) -> None:
    result = run("simulate", "mail.sqrt", "--calls", calls, "--cover")
    assert result.exit_code == 0, result.output
    assert "8 calls: 7 allowed, 1 denied" in result.stdout
    assert "arguments are assumed to have the labels of all results" in result.stdout
    assert "2 of 2 rules and label changes held for some call" in result.stdout
    assert "8 of 8 calls as expected" in result.stdout


def test_the_difference_between_two_policies_is_that_on_the_calls(files: Path) -> None:
    (files / "old.sqrt").write_text(POLICY.replace('{"mail"};', '{"post"};'))
    found = report("simulate", "mail.sqrt", "--calls", "spans.jsonl", "--against", "old.sqrt")
    changed = [call for call in found["difference"]["changed"] if "verdict" in call["changed"]]
    assert [(call["tool"], call["new"]["verdict"]) for call in changed] == [
        ("send_mail", "hard_denied")
    ]


def test_runs_may_be_in_an_object_as_the_api_returns_them(files: Path) -> None:
    lines = (files / "spans.jsonl").read_bytes().splitlines()
    (files / "runs.json").write_text(json.dumps({"runs": [*map(json.loads, lines)]}))
    simulate = "simulate", "mail.sqrt", "--calls"
    assert report(*simulate, "runs.json")["calls"] == report(*simulate, "spans.jsonl")["calls"]


def test_malformed_lines_are_counted_and_told_and_the_others_are_tried(files: Path) -> None:
    lines = (files / "spans.jsonl").read_bytes().splitlines()
    broken = {**json.loads(lines[0]), "start_time": "soon"}
    cut = [json.dumps(broken).encode(), *lines, lines[0][:500]]
    (files / "cut.jsonl").write_bytes(b"\n".join(cut))
    results = "--results", "results.jsonl", "--jobs", "2"
    result = run("simulate", "mail.sqrt", "--calls", "cut.jsonl", *results)
    assert result.exit_code == 2
    assert "cut.jsonl: Line 1: it cannot be read as a part of a trace: " in result.stderr
    assert f"cut.jsonl: Line {len(cut)}: " in result.stderr
    assert "cut.jsonl: 2 of 10 lines are invalid and were left out." in result.stderr
    assert "8 of 8 calls as expected" in result.stdout
    written = (files / "results.jsonl").read_bytes().splitlines()
    numbers = [json.loads(line)["number"] for line in written]
    assert numbers == [*range(1, 11)]


@pytest.mark.parametrize("calls", ["spans.jsonl", "otlp.json"])
def test_check_takes_tools_and_arguments_from_a_trace(files: Path, calls: str) -> None:
    assert run("check", "mail.sqrt", "--calls", calls, "--strict").exit_code == 0
    (files / "slips.sqrt").write_text(
        POLICY.replace("to.value", "too.value").replace("read_m", "raed_m")
    )
    result = run("check", "slips.sqrt", "--calls", calls)
    assert result.exit_code == 1
    assert "There is no tool `raed_mail`" in result.stdout
    assert "`send_mail` has no argument `too`" in result.stdout
    assert f"5 tools in the calls of {calls}; what no call has counts as missing" in result.stdout


def test_check_takes_tools_from_other_calls_too(files: Path) -> None:
    (files / "calls.yaml").write_text(
        "- tool: read_mail\n- tool: send_mail\n  arguments: {to: ana, text: Hi}\n"
    )
    assert report("check", "mail.sqrt", "--calls", "calls.yaml")["ok"]


def test_check_refuses_calls_of_which_some_cannot_be_read(files: Path) -> None:
    (files / "cut.jsonl").write_bytes((files / "spans.jsonl").read_bytes()[:-500])
    result = run("check", "mail.sqrt", "--calls", "cut.jsonl")
    assert result.exit_code == 2
    assert "lines are invalid and were left out" in result.stderr
    result = run("check", "mail.sqrt", "--calls", "spans.jsonl", "--tools", "tools.json")
    assert result.exit_code == 2
    assert "Tools are given twice" in result.stderr


# Planted texts


def test_planted_texts_are_found_in_results_and_in_traces(files: Path) -> None:
    calls = [
        {"tool": "read_mail", "result": {"from": "x", "body": "Hello canary1"}},
        {"tool": "read_page", "arguments": {"url": "a"}, "result": "canary2"},
        {"tool": "send_mail", "arguments": {"to": "ana", "text": "Hi"}, "result": "sent"},
    ]
    (files / "results.jsonl").write_text("\n".join(map(json.dumps, calls)))
    planted = "--planted", "mail=canary1", "--planted", "canary2"
    arguments = "canaries", "--calls", "results.jsonl", "--policy", "mail.sqrt", *planted
    result = run(*arguments)
    assert result.exit_code == 1
    assert "2 fields returned planted texts, 1 of them without labels" in result.stdout
    found = report(*arguments)
    assert [(one["planted_in"], one["tool"], one["field"], one["open"]) for one in found["canaries"]] == [
        ("mail", "read_mail", "body", False), ("canary2", "read_page", "", True),
    ]  # fmt: skip
    assert found["canaries"][0]["depends"] == ["send_mail.text"]
    trace = report("canaries", "--calls", "otlp.json", "--policy", "mail.sqrt", "--planted", "bo")
    assert ("read_mail", "from") in [(one["tool"], one["field"]) for one in trace["canaries"]]


def test_a_text_that_no_tool_returns_is_told(files: Path) -> None:
    arguments = "canaries", "--calls", "spans.jsonl", "--policy", "mail.sqrt", "--planted", "x9"
    result = run(*arguments)
    assert result.exit_code == 1
    assert "Returned by no tool: the texts planted in x9." in result.stdout
    (files / "audit.jsonl").write_text('{"tool": "a", "result": }\n{"tool": "b", "result": "x9"}')
    result = run("canaries", "--calls", "audit.jsonl", "--policy", "mail.sqrt", "--planted", "x9")
    assert result.exit_code == 2
    assert "audit.jsonl: 1 lines are invalid and were left out." in result.stderr
