"""The console script, as users see it: what is printed, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any, Literal

import pytest
from click.testing import CliRunner, Result

from langchain_sequrity import ChatSequrity
from langchain_sequrity.cli.commands import cli
from langchain_sequrity.demo.brain import offline_script
from langchain_sequrity.errors import AuthenticationFailed
from langchain_sequrity.local import LocalServer, RequestRecord

KEY, LLM_KEY = "sq-key-of-the-user", "sk-key-of-the-provider"
ENVIRONMENT = {
    "SEQURITY_API_KEY": None,
    "SEQURITY_LLM_API_KEY": None,
    "SEQURITY_BASE_URL": None,
    "FORCE_COLOR": None,
}


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner(env={**ENVIRONMENT, **environment}).invoke(cli, arguments)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "langchain_sequrity.cli", *arguments]


def installed() -> dict[str, int]:
    """Names and sizes of the installed packages, found in another way than the demo's."""
    sizes: dict[str, int] = {}
    for distribution in distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        sizes.setdefault(name, sum(file.size or 0 for file in distribution.files or []))
    return sizes


def assert_right_figures(output: str) -> None:
    """The answer has the figures that the installed packages have."""
    sizes = installed()
    largest = max(sizes, key=lambda name: sizes[name])
    answer = re.findall(r"^answer   (.*)$", output, re.MULTILINE)[0]
    assert f"Installed: {len(sizes)} packages" in answer
    assert f"({sum(sizes.values()):,} bytes)" in answer
    assert f"The largest is {largest} {version(largest)}" in answer
    assert f"({sizes[largest]:,} bytes)" in answer


def one_line(text: str) -> str:
    [line] = text.splitlines()
    return line


# demo


def test_the_demo_runs_offline_and_answers_with_the_right_figures(tmp_path: Path) -> None:
    environment = {**os.environ, "SEQURITY_BASE_URL": "http://127.0.0.1:9", "FORCE_COLOR": ""}
    done = subprocess.run(  # noqa: S603 - our own command
        command("demo"), cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8",
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert_right_figures(done.stdout)
    report = tmp_path / "demo-output" / "packages-report.md"
    assert f"report   {report.resolve()}\n" in done.stdout
    assert f"Installed: {len(installed())} packages" in report.read_text(encoding="utf-8")
    here, there = done.stdout.splitlines()[-2:]
    assert 'base_url="http://127.0.0.1:' in here
    assert 'use base_url="https://api.sequrity.ai"' in there


def test_the_demo_shows_requests_calls_and_results_in_their_order(tmp_path: Path) -> None:
    output = run("demo", "--folder", str(tmp_path), "--question", "Which is the largest?").output
    # The table of the trace, whose lines begin with box characters or end the output, is not meant.
    output = output.partition("\nmail job: ")[0]
    labels = [line.split()[0] for line in output.splitlines() if line and not line[0].isspace()]
    exchange = ["request", "reply"]
    asks_to_mail = ["question", *exchange, "call", "result", *exchange]
    steps = ["question", *["step"] * 5]
    assert labels == [
        "input", "question",
        *exchange, "model", "call", "result",
        *exchange, "model", "call", "call", "call", "result", "result", "result",
        *exchange, "model", "call", "result",
        *exchange, "model", "report", "answer",
        "policy",
        *asks_to_mail, "program", "call", *["labels"] * 3, "rule", "denied", "mail",
        *asks_to_mail, "call", "result", *exchange, "answer", "mail",
        "policy",
        *steps, "step", "step", "mail",
        *steps, "step", "call", *["labels"] * 3, "rule", "denied", "mail",
    ]  # fmt: skip
    assert re.search(r"request  POST /control/chat/v1/chat/completions  session \w{8}…", output)
    assert 'call     query_packages  sql="SELECT count(*) AS packages' in output


def test_the_demo_can_be_run_again_in_the_same_folder(tmp_path: Path) -> None:
    results = [run("demo", "--folder", str(tmp_path)) for _ in range(2)]
    assert [result.exit_code for result in results] == [0, 0]
    assert len(list(tmp_path.glob("*.md"))) == 2
    assert len(list(tmp_path.glob("outbox/*.eml"))) == 4


def test_the_question_decides_what_is_answered(tmp_path: Path) -> None:
    result = run("demo", "--folder", str(tmp_path), "--question", "What licence has Click?")
    assert f"click {version('click')}: " in result.output
    assert "The largest is" not in result.output


@pytest.mark.parametrize("fidelity", ["full", "documented"])
def test_a_live_demo_uses_the_key_and_shows_none(
    tmp_path: Path, fidelity: Literal["full", "documented"]
) -> None:
    records: list[RequestRecord] = []
    with LocalServer(
        script=offline_script(), api_keys=[KEY], fidelity=fidelity, on_request=records.append
    ) as server:
        result = run(
            "demo", "--live", "--folder", str(tmp_path), "--provider", "openai", "--model", "a/b",
            SEQURITY_API_KEY=KEY, SEQURITY_LLM_API_KEY=LLM_KEY, SEQURITY_BASE_URL=server.base_url,
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert_right_figures(result.output)
    assert {(record.path, record.model, record.status) for record in records} == {
        (f"/control/{kind}/openai/v1/chat/completions", model, 200)
        # Under a policy there are a planner and a data model; a graph is its own plan.
        for kind, model in (("chat", "a/b"), ("chat", "a/b,a/b"), ("lang-graph", "a/b,a/b"))
    }
    assert KEY not in result.output
    assert LLM_KEY not in result.output


def test_a_live_demo_without_a_key_says_which_variable_to_set(tmp_path: Path) -> None:
    result = run("demo", "--live", "--folder", str(tmp_path))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "SEQURITY_API_KEY" in one_line(result.stderr)


def live(tmp_path: Path, script: list[dict[str, Any]]) -> Result:
    """Run the demo against another script than its own."""
    with LocalServer(script=script) as server:
        return run("demo", "--live", "--folder", str(tmp_path), SEQURITY_BASE_URL=server.base_url)


def test_a_service_that_refuses_is_an_error_of_one_line(tmp_path: Path) -> None:
    result = live(tmp_path, [{"error": {"status": 400, "message": "No \x1b[31mred."}}])
    assert result.exit_code == 1
    assert "The service answered with status 400: No" in one_line(result.stderr)
    assert "\x1b" not in result.stderr


def test_an_agent_that_does_not_come_to_an_end_is_stopped(tmp_path: Path) -> None:
    result = live(tmp_path, [{"tool_calls": [{"name": "describe_tables"}]}])
    assert result.exit_code == 1
    assert "30 steps without an answer" in one_line(result.stderr)


def test_an_answer_without_a_report_is_an_answer(tmp_path: Path) -> None:
    result = live(tmp_path, [{"text": "I will not look."}])
    assert result.exit_code == 0
    assert "report   none was written\nanswer   I will not look.\n" in result.output


def test_a_hostile_model_neither_leaves_the_folder_nor_reaches_the_terminal(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    hostile = "[bold]\x1b]8;;http://evil\x07\u202e\r"
    calls = [
        {"name": "write_report", "arguments": {"file_name": "../evil.md", "markdown": "evil"}},
        {"name": "write_report", "arguments": {"file_name": "fine.md", "markdown": hostile}},
        {"name": "query_packages", "arguments": {"sql": f"ATTACH '{tmp_path}/evil.db' AS e"}},
        {"name": "query_packages", "arguments": {"sql": f"SELECT {hostile!r} AS a"}},
    ]
    answers = {"when": {"tool_result": ""}, "text": hostile}
    result = live(folder, [answers, {"text": hostile, "tool_calls": calls}])
    assert result.exit_code == 0, result.output
    # The mail is that of the last act, whose graph asks no model.
    written = {"reports", "outbox", "fine.md", "mail-1.eml"}
    assert {path.name for path in tmp_path.rglob("*")} == written
    assert not {char for char in result.output if not char.isprintable()} - {"\n"}
    assert r"answer   [bold]\x1b]8;;http://evil\x07\u202e\r" in result.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--question", " "], "--question"),
        (["--model", ""], "--model"),
        (["--provider", "anthropic"], "'openai', 'openrouter', 'sequrity_azure'"),
        (["--folder", __file__], "is a file"),
    ],
)
def test_a_wrong_option_is_named(arguments: list[str], expected: str) -> None:
    result = run("demo", *arguments)
    assert result.exit_code == 2
    assert expected in result.stderr


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("demo", "--folder", str(tmp_path / "file" / "reports"))
    assert result.exit_code == 1
    assert f"`{tmp_path / 'file' / 'reports'}` cannot be made" in one_line(result.stderr)


# serve


@contextmanager
def serving(log: Path, *arguments: str) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """A running `serve` that prints into a file, and its URL."""
    with (
        log.open("wb") as file,
        subprocess.Popen(  # noqa: S603 - our own command
            command("serve", "--port", "0", *arguments),
            stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "FORCE_COLOR": ""},
        ) as process,
    ):  # fmt: skip
        try:
            yield process, url_in(log)
        finally:
            process.kill()


def url_in(log: Path) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if found := re.search(r"http://[\d.:]+", log.read_text(encoding="utf-8")):
            return found[0]
        time.sleep(0.02)
    pytest.fail(f"The server did not start: {log.read_text(encoding='utf-8')}")


@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_logs_a_line_a_request_and_ends_cleanly(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("rules: [{when: {user: weather}, text: Sunny.}]", encoding="utf-8")
    log = tmp_path / "log.txt"
    keys = ["--api-key", KEY, "--api-key", "sq-other"]
    with serving(log, "--script", str(script), *keys) as (process, url):
        model = ChatSequrity("a/\x1b[31mb", base_url=url, api_key=KEY, llm_api_key=LLM_KEY)
        assert model.invoke("What is the weather?").text == "Sunny."
        with pytest.raises(AuthenticationFailed):
            ChatSequrity("c/d", base_url=url, api_key="sq-wrong").invoke("Hi")
        model.close()
        process.send_signal(number)
        assert process.wait(timeout=20) == 0
    output = log.read_text(encoding="utf-8")
    _, pointing, _, answered, refused, stopped = output.splitlines()
    assert f'ChatSequrity("any/model", base_url="{url}", api_key=' in pointing
    path = "/control/chat/v1/chat/completions"
    assert re.fullmatch(
        rf"\d\d:\d\d:\d\d POST {path} 200 \d+ ms  a/\\x1b\[31mb  \w{{8}}  .+", answered
    )
    assert re.match(rf"\d\d:\d\d:\d\d POST {path} 401 \d+ ms", refused)
    assert stopped == "Stopped."
    for secret in (KEY, LLM_KEY, "sq-other", "sq-wrong", "weather", "Sunny"):
        assert secret not in output


def children(pid: int) -> list[int]:
    """Processes that a process has started, and those that these have started."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended by now
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    own = [one for one, parent in parents.items() if parent == pid]
    return own + [grandchild for child in own for grandchild in children(child)]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("arguments", "isolated"),
    [([], True), (["--isolated-programs"], True), (["--no-isolated-programs"], False)],
)
def test_serve_runs_programs_in_workers_unless_they_shall_not_and_leaves_none(
    tmp_path: Path, arguments: list[str], isolated: bool
) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("rules: [{program: \"final_return_value = 'done'\"}]", encoding="utf-8")
    with serving(tmp_path / "log.txt", "--script", str(script), *arguments) as (process, url):
        features = {"agent_arch": "dual-llm"}
        model = ChatSequrity("any/model", base_url=url, features=features)
        assert model.invoke("Go.").text == "done"
        model.close()
        workers = children(process.pid)
        assert bool(workers) is isolated
        process.terminate()
        assert process.wait(timeout=20) == 0
        assert [one for one in workers if Path(f"/proc/{one}").exists()] == []


def test_a_port_in_use_is_an_error_of_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("serve", "--port", port)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"Cannot listen on 127.0.0.1:{port}" in one_line(result.stderr)


def test_serving_others_without_a_key_is_refused() -> None:
    result = run("serve", "--port", "0", "--host", "0.0.0.0")  # noqa: S104 - refused
    assert result.exit_code == 1
    assert "lets others in" in one_line(result.stderr)


def test_a_script_with_a_mistake_is_refused_with_its_rule(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text('[{"text": "a"}, {"txt": "b"}]', encoding="utf-8")
    result = run("serve", "--port", "0", "--script", str(script))
    assert result.exit_code == 1
    assert "Rule 2" in one_line(result.stderr)


# The rest


@pytest.mark.parametrize("module", ["click", "rich", "uvicorn"])
def test_without_the_extra_its_pip_line_is_all_that_is_said(module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None\n"
    code += "from langchain_sequrity.cli import main; main()"
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 1
    assert 'pip install "langchain-sequrity[local]"' in one_line(done.stderr)
    assert done.stdout == ""


def test_the_version_is_that_of_the_package() -> None:
    assert version("langchain-sequrity") in run("--version").output


@pytest.mark.parametrize("arguments", [[], ["demo"], ["serve"]])
def test_help_shows_how_to_use_it(arguments: list[str]) -> None:
    result = run(*arguments, "-h")
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")


def test_the_command_line_starts_without_langgraph() -> None:
    code = "import sys, langchain_sequrity.cli.commands; sys.exit('langgraph' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False)  # noqa: S603 - our own code
    assert done.returncode == 0
