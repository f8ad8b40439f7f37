"""The console script: its output and exit status."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from langchain_sequrity import ChatSequrity
from langchain_sequrity.cli.commands import cli
from langchain_sequrity.errors import AuthenticationFailed

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


def one_line(text: str) -> str:
    [line] = text.splitlines()
    return line


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


@pytest.mark.long(sample=1)
@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_logs_one_line_per_request_and_ends_cleanly(
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
    # A server that takes a moment to stop says so.
    lines = [line for line in output.splitlines() if not line.startswith("Stopping: ")]
    _, pointing, _, answered, refused, stopped = lines
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
    """The child processes of a process, and their child processes."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended by now
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    own = [one for one, parent in parents.items() if parent == pid]
    return own + [grandchild for child in own for grandchild in children(child)]


@pytest.mark.long(sample=1)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("arguments", "isolated"),
    [([], True), (["--isolated-programs"], True), (["--no-isolated-programs"], False)],
)
def test_serve_runs_programs_in_workers_by_default_and_ends_the_workers(
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
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("serve", "--port", port)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"Cannot listen on 127.0.0.1:{port}" in one_line(result.stderr)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_serving_other_machines_without_a_key_is_refused() -> None:
    result = run("serve", "--port", "0", "--host", "0.0.0.0")  # noqa: S104 - refused
    assert result.exit_code == 1
    assert "accepts other machines" in one_line(result.stderr)


def test_a_script_with_a_mistake_is_refused_with_the_number_of_the_rule(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text('[{"text": "a"}, {"txt": "b"}]', encoding="utf-8")
    result = run("serve", "--port", "0", "--script", str(script))
    assert result.exit_code == 1
    assert "Rule 2" in one_line(result.stderr)


# Other behaviour


@pytest.mark.parametrize("module", ["click", "rich", "uvicorn"])
def test_without_the_extra_only_the_pip_command_is_printed(module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None\n"
    code += "from langchain_sequrity.cli import main; main()"
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 1
    needs = 'The command line needs the extra: pip install "langchain-sequrity[local]"\n'
    assert (done.stderr, done.stdout) == (needs, "")


def test_the_version_is_that_of_the_package() -> None:
    assert version("langchain-sequrity") in run("--version").output


@pytest.mark.parametrize("arguments", [[], ["serve"]])
def test_help_shows_the_usage(arguments: list[str]) -> None:
    result = run(*arguments, "-h")
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")


def test_the_command_line_starts_without_langgraph() -> None:
    code = "import sys, langchain_sequrity.cli.commands; sys.exit('langgraph' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False)  # noqa: S603 - our own code
    assert done.returncode == 0
