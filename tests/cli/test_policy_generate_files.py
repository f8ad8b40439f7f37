"""`policy generate`: requests to a server, and the output and files from its answers."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from langchain_sequrity.local import LocalServer, RequestRecord
from langchain_sequrity.sqrt import check
from tests.cli.running import POLICY, TOOLS, WARNED, run
from tests.transport.transport_helpers import RawServer, http, says

KEY, LLM_KEY = "sq-key-of-the-user", "sk-key-of-the-provider"
LINE = ("generate", "--tools", "tools.json", "Mails do not move money.")
REFUSAL = {
    "when": {"role": "policy"},
    "error": {"status": 400, "message": "No \x1b[31mred."},
}
SHOWN = "This is a proposal that is not in use yet."


def test_local_generates_a_skeleton_without_keys_or_network(folder: Path) -> None:
    nowhere = {"SEQURITY_BASE_URL": "http://127.0.0.1:1", "SEQURITY_API_KEY": KEY}
    nowhere["SEQURITY_LLM_API_KEY"] = "not a key"
    result = run(*LINE, "--local", **nowhere)
    assert result.exit_code == 0, result.output
    assert [one for one in check(result.stdout, TOOLS) if one.severity == "error"] == []
    assert "Mails do not move money." in result.stdout
    assert SHOWN in result.stderr
    assert SHOWN not in result.stdout
    (folder / "piped.sqrt").write_bytes(result.stdout_bytes)
    assert run("check", "piped.sqrt", "--tools", "tools.json").exit_code == 0


def test_what_the_tools_leave_open_is_asked_beside_the_policy(folder: Path) -> None:
    tools = [
        {"type": "function", "function": {"name": name}} for name in ("frobnicate", "read_mail")
    ]
    (folder / "unclear.json").write_text(json.dumps(tools), "utf-8")
    result = run("generate", "Careful.", "--local", "--tools", "unclear.json")
    questions = [line for line in result.stderr.splitlines() if line.startswith("Question to you:")]
    assert questions == [
        "Question to you: `frobnicate`: does it change anything, and does it return what others wrote?"
    ]


def ask(script: list[dict[str, Any]], *options: str) -> tuple[Any, list[RequestRecord]]:
    """Run the command with a server that answers from a script."""
    records: list[RequestRecord] = []
    with LocalServer(script=script, api_keys=[KEY], on_request=records.append) as server:
        environment = {
            "SEQURITY_BASE_URL": server.base_url,
            "SEQURITY_API_KEY": KEY,
            "SEQURITY_LLM_API_KEY": LLM_KEY,
        }
        result = run(*LINE, *options, **environment)
    assert KEY not in result.output
    assert LLM_KEY not in result.output
    return result, records


def answer(policy: str) -> list[dict[str, Any]]:
    return [{"policy": policy}]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("options", "path", "model"),
    [
        ([], "/control/policy-gen/v1/generate", "openai/gpt-5-mini"),
        (["--model", "a/b"], "/control/policy-gen/v1/generate", "a/b"),
        (
            ["--provider", "anthropic", "--model", "a"],
            "/control/policy-gen/anthropic/v1/generate",
            "a",
        ),
    ],
)
def test_the_command_asks_the_service_from_the_environment(
    options: list[str], path: str, model: str
) -> None:
    result, records = ask(answer(POLICY), *options)
    assert result.exit_code == 0, result.output
    assert result.stdout == POLICY
    assert [(record.path, record.model, record.status) for record in records] == [
        (path, model, 200)
    ]


def test_a_policy_that_cannot_be_written_is_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_number: int) -> None:
        raise OSError(28, "No space left on device")

    (folder / "new.sqrt").write_text("", encoding="utf-8")
    monkeypatch.setattr(os, "fsync", full)
    result, _ = ask(answer(POLICY), "--out", "new.sqrt", "--force")
    assert (result.exit_code, result.stdout) == (1, POLICY)
    assert "new.sqrt: cannot be written: No space left on device." in result.stderr
    result, _ = ask(answer(POLICY), "--out", "new.sqrt", "--force", "--json")
    assert (result.exit_code, json.loads(result.stdout)["policy"]) == (1, POLICY)


@pytest.mark.usefixtures("folder")
def test_warnings_go_to_stderr_or_into_the_json_document() -> None:
    result, _ = ask(answer(WARNED))
    assert result.exit_code == 0
    assert result.stdout == WARNED
    assert "<stdout>:1:32: warning: This rule decides nothing" in result.stderr
    result, _ = ask(answer(WARNED), "--json")
    document = json.loads(result.stdout)
    assert document["policy"] == WARNED
    assert [one["severity"] for one in document["findings"]] == ["warning"]
    assert document["usage"]["total_tokens"] > 0
    assert result.stderr == ""


def test_an_existing_file_is_replaced_only_with_force(folder: Path) -> None:
    result, _ = ask(answer(POLICY), "--out", "new.sqrt")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert SHOWN in result.stderr
    assert (folder / "new.sqrt").read_text(encoding="utf-8") == POLICY
    result, records = ask(answer(WARNED), "--out", "new.sqrt")
    assert (result.exit_code, records) == (2, [])
    assert (folder / "new.sqrt").read_text(encoding="utf-8") == POLICY
    result, _ = ask(answer(WARNED), "--out", "new.sqrt", "--force")
    assert result.exit_code == 0
    assert (folder / "new.sqrt").read_text(encoding="utf-8") == WARNED


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    ("script", "told"),
    [
        ([REFUSAL], "[31mred."),
        (answer('tool "nobody" { must deny always; }'), "nobody"),
        (answer("I will not."), "line 1, column 1"),
    ],
)
def test_an_unusable_answer_is_a_failure_and_not_written(
    folder: Path, script: list[dict[str, Any]], told: str
) -> None:
    result, _ = ask(script, "--out", "new.sqrt")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert told in result.stderr
    assert "\x1b" not in result.stderr
    assert not (folder / "new.sqrt").exists()
    result, _ = ask(script, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]
    assert result.stderr == ""


@pytest.mark.usefixtures("folder")
def test_a_wrong_key_or_a_missing_server_is_a_failure() -> None:
    with LocalServer(api_keys=[KEY]) as server:
        where = {"SEQURITY_BASE_URL": server.base_url}
        refused = run(*LINE, **where, SEQURITY_API_KEY="sq-wrong")
    assert refused.exit_code == 1
    assert "401" in refused.stderr
    assert "sq-wrong" not in refused.output


@pytest.mark.usefixtures("folder")
def test_a_description_may_come_from_standard_input() -> None:
    result = run("generate", "-", "--local", "--tools", "tools.json", given="Be careful.\n")
    assert result.exit_code == 0
    assert "Be careful." in result.stdout


@pytest.mark.usefixtures("folder")
def test_an_empty_description_is_refused() -> None:
    result = run("generate", " ", "--local", "--tools", "tools.json")
    assert result.exit_code == 2
    assert "The description is empty" in result.stderr


@pytest.mark.usefixtures("folder")
def test_a_service_on_this_machine_needs_no_key() -> None:
    # It sends a policy without a line end.
    reply = json.dumps({"policies": POLICY.removesuffix("\n"), "usage": {}}).encode()
    with RawServer([says(http(reply))]).running() as server:
        result = run(*LINE, SEQURITY_BASE_URL=server.url)
    assert (result.exit_code, result.stdout) == (0, POLICY), result.output
