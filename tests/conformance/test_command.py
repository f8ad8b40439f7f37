"""`python -m langchain_sequrity.conformance`: its requests, output and exit status."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from langchain_sequrity.cli.commands import cli
from langchain_sequrity.conformance import PROBES, Outcome, Report, Target
from langchain_sequrity.conformance.__main__ import main
from langchain_sequrity.local import LocalServer
from tests.conformance.conftest import KEYS

FAR = ["--base-url", "https://service.invalid"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SEQURITY_BASE_URL", "SEQURITY_LLM_API_KEY", "SEQURITY_SECOND_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SEQURITY_API_KEY", KEYS[0])


def test_without_an_address_it_probes_local_servers_of_both_fidelities(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--only", "program-runs", "--only", "session-of-another-key"]) == 0
    out, err = capsys.readouterr()
    assert out.count("2 probes: 0 refuted, 0 no answer, 2 confirmed.") == 2
    assert "fidelity full" in out
    assert "fidelity documented" in out
    assert "confirmed  program-runs: 2" in err


def test_a_local_address_is_probed_without_confirmation(
    full_server: LocalServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "report.md", tmp_path / "report.json"]
    given = ["--base-url", full_server.base_url, "--only", "denial-*"]
    assert main([*given, "--report", str(files[0]), "--json", str(files[1])]) == 0
    assert capsys.readouterr().out == ""
    assert "| `denial-soft` |" in files[0].read_text()
    (report,) = json.loads(files[1].read_text())
    assert {one["verdict"] for one in report["probes"]} == {"confirmed"}


def test_a_refuted_probe_gives_status_1(full_server: LocalServer) -> None:
    given = ["--only", "key-missing", "--base-url", full_server.base_url]
    assert main(given) == 0
    given[-1] += "/elsewhere"  # every answer there is 404
    assert main(given) == 1


@pytest.mark.parametrize("said", ["", "\n", "n\n", "no\n", "maybe\n"])
def test_nothing_is_sent_to_another_machine_without_confirmation(
    said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    assert main(FAR) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{len(PROBES)} probes send at most" in err
    assert "calls of `openai/gpt-5-mini`" in err
    assert "Nothing was sent." in err


@pytest.mark.parametrize(("given", "said"), [([], "y\n"), (["--yes"], "")])
def test_another_machine_is_probed_after_confirmation(
    given: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    # Nothing listens there, so there is no answer.
    far = ["--base-url", "http://192.0.2.1:9", "--allow-http", "--timeout", "0.2"]
    assert main([*far, *given, "--only", "health"]) == 1
    out, _ = capsys.readouterr()
    assert "1 no answer" in out
    assert "192.0.2.1" not in out


@pytest.mark.parametrize(
    "given",
    [["--only", "nothing"], ["--base-url", "ftp://x"], ["--base-url", "http://far.example", "--yes"],
     [*FAR, "--report", "/nowhere/report.md", "--yes"]],
)  # fmt: skip
def test_wrong_arguments_give_status_2_and_one_sentence(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert "Traceback" not in err


def test_a_missing_key_gives_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SEQURITY_API_KEY")
    assert main([*FAR, "--yes"]) == 2
    assert "`SEQURITY_API_KEY`" in capsys.readouterr().err


def test_an_unknown_option_gives_status_2() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--no-such"])
    assert caught.value.code == 2


def test_the_list_names_every_probe_and_sends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FAR, "--list"]) == 0
    out = capsys.readouterr().out
    assert {line.split()[0] for line in out.splitlines()[1:-1]} == set(PROBES)
    assert out.splitlines()[-1].startswith(f"{len(PROBES)} probes: at most")


def test_conformance_is_a_command_of_the_console_script() -> None:
    done = CliRunner().invoke(cli, ["conformance", "--list", "--only", "health"])
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()[1:-1]] == ["health"]
    assert CliRunner().invoke(cli, ["conformance", "--no-such"]).exit_code == 2
    assert "--base-url" in CliRunner().invoke(cli, ["conformance", "--help"]).output


def test_the_second_key_comes_from_the_environment(
    full_server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["--base-url", full_server.base_url, "--only", "session-of-another-key"]
    assert main(line) == 1
    monkeypatch.setenv("SEQURITY_SECOND_API_KEY", KEYS[1])
    assert main(line) == 0


@pytest.mark.parametrize("worse", [0, 1], ids=["first", "second"])
def test_the_status_is_that_of_the_worse_report(
    monkeypatch: pytest.MonkeyPatch, worse: int
) -> None:
    reports: list[Report] = []

    def answer(target: Target, **_: object) -> Report:
        health = Outcome(PROBES["health"], "confirmed", "x")
        if len(reports) == worse:
            health = replace(health, verdict="no answer")
        reports.append(Report(target, (health,), 1))
        return reports[-1]

    monkeypatch.setattr("langchain_sequrity.conformance.__main__.run", answer)
    assert main(["--only", "health"]) == 1
    assert len(reports) == 2


def test_a_run_that_is_interrupted_has_a_status_of_its_own(
    full_server: LocalServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("langchain_sequrity.conformance.__main__.run", interrupt)
    assert main(["--base-url", full_server.base_url]) == 130
    assert "there is no report" in capsys.readouterr().err
