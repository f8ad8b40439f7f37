"""The console of `langchain-sequrity serve`, and of a configuration file."""

import re
import time
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from langchain_sequrity.cli.commands import cli
from langchain_sequrity.errors import UsageError
from langchain_sequrity.gateway.server import Gateway
from langchain_sequrity.local import ApiKey, LocalServer
from tests.local.operated.serving import serving


def greeting(log: Path) -> str:
    """What `serve` prints about its console."""
    for _ in range(1_500):
        if line := re.search(r"^Console: .*$", log.read_text("utf-8"), re.MULTILINE):
            return line[0]
        time.sleep(0.02)
    pytest.fail(log.read_text("utf-8"))


def printed(tmp_path: Path, *arguments: str) -> tuple[str, int]:
    """The line about the console, and the status of its page without a login."""
    log = tmp_path / "log.txt"
    with log.open("wb") as file, serving(file, tmp_path / "err.txt", "--port", "0", *arguments):
        line = greeting(log)
        url = re.search(r"http://\S+/console(\?token=\S+)?", line)
        assert url is not None
        return line, httpx.get(url[0].rstrip(","), follow_redirects=True).status_code


@pytest.mark.long(sample=1)
def test_without_keys_serve_prints_a_link_that_opens_the_console(tmp_path: Path) -> None:
    line, status = printed(tmp_path, "--console")
    assert "?token=" in line
    assert status == 200


@pytest.mark.long
@pytest.mark.parametrize(
    "arguments", [["--api-key", "sq-one"], ["--log-format", "json"]], ids=["keys", "JSON log"]
)
def test_a_log_that_others_read_never_has_the_token(arguments: list[str], tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with (
        log.open("wb") as file,
        serving(file, tmp_path / "err.txt", "--port", "0", "--console", *arguments),
    ):
        for _ in range(1_500):
            if "/console" in log.read_text("utf-8"):
                break
            time.sleep(0.02)
    text = log.read_text("utf-8")
    assert "/console" in text
    assert "token" not in text


@pytest.mark.long
def test_serve_has_no_console_unless_it_is_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with log.open("wb") as file, serving(file, tmp_path / "err.txt", "--port", "0"):
        for _ in range(1_500):
            if url := re.search(r"http://[\d.:]+", log.read_text("utf-8")):
                break
            time.sleep(0.02)
        assert url is not None
        assert httpx.get(f"{url[0]}/console").status_code == 404


def test_the_console_of_several_workers_is_refused_by_name(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret of all workers, long enough for it")
    secret.chmod(0o600)
    store = ["--store", "redis://127.0.0.1:1/0", "--store-secret-file", str(secret)]
    result = CliRunner().invoke(cli, ["serve", "--console", "--workers", "2", *store])
    assert result.exit_code == 1
    assert "The console shows one process. Use --console with --workers 1." in result.output


def test_a_file_turns_the_console_on_and_names_the_keys_that_open_it(tmp_path: Path) -> None:
    key, secret = ApiKey.new("owner")
    file = tmp_path / "gateway.toml"
    file.write_text(
        f'[server]\nport = 0\nconsole = true\n[[keys]]\nname = "owner"\ndigest = "{key.digest}"\n'
        "console = true\n"
    )
    gateway = Gateway(file)
    assert any("opens the console" in line for line in gateway.summary())
    with gateway.server as server:
        answer = httpx.get(
            f"{server.base_url}/console", headers={"Authorization": f"Bearer {secret}"}
        )
    assert answer.status_code == 200


def test_a_server_without_a_console_says_how_to_get_one() -> None:
    with LocalServer(console=False) as server:
        assert httpx.get(f"{server.base_url}/console").status_code == 404
        with pytest.raises(UsageError, match="console=True"):
            _ = server.console_url


def test_the_token_is_in_no_representation_of_a_server() -> None:
    with LocalServer() as server:
        token = server.console_url.partition("token=")[2]
        assert token not in repr(server)
        assert token not in repr(vars(server))
