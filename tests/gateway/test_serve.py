"""`serve --config` as a process: keys are read again on SIGHUP, and keys of the command line."""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from langchain_sequrity.cli.commands import cli
from langchain_sequrity.cli.services import keys_in
from langchain_sequrity.errors import UsageError
from langchain_sequrity.local import ApiKey
from tests.local.api import CHAT
from tests.test_cli import serving

ALICE, BOB = ApiKey.from_secret("sq-alice", "alice"), ApiKey.from_secret("sq-bob", "bob")


def table(key: ApiKey) -> str:
    return f'[[keys]]\nname = "{key.name}"\ndigest = "{key.digest}"\n'


def chat(url: str, secret: str, **headers: str) -> httpx.Response:
    body: Any = {"model": "a/b", "messages": [{"role": "user", "content": "Hi"}]}
    authorization = {"Authorization": f"Bearer {secret}", **headers}
    return httpx.post(url + CHAT, json=body, headers=authorization, trust_env=False, timeout=20)


@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent there")
def test_a_hangup_replaces_the_keys_and_ends_no_session(tmp_path: Path) -> None:
    file, log = tmp_path / "gateway.toml", tmp_path / "log.txt"
    file.write_text(f"[server]\nport = 1\n{table(ALICE)}")
    with serving(log, "--config", str(file)) as (process, url):
        session = chat(url, "sq-alice").headers["x-session-id"]
        assert chat(url, "sq-bob").status_code == 401
        file.write_text(f"{table(ALICE)}{table(BOB)}")
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while chat(url, "sq-bob").status_code == 401:
            assert time.monotonic() < deadline, log.read_text()
        assert chat(url, "sq-alice", **{"X-Session-ID": session}).status_code == 200
        file.write_text("[[keys")
        process.send_signal(signal.SIGHUP)
        while "The keys stay as they are" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
        assert chat(url, "sq-bob").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    text = log.read_text()
    assert "2 keys were read again: alice, bob" in text
    assert "sq-alice" not in text


def test_the_file_says_what_is_logged_audited_and_believed(tmp_path: Path) -> None:
    file, log, audit = (tmp_path / name for name in ("gateway.toml", "log.txt", "audit.jsonl"))
    script = "- tool_calls: [{name: pay, arguments: {amount: 5}}]"
    (tmp_path / "script.yaml").write_text(script)
    file.write_text(
        '[server]\nscript = "script.yaml"\nallowed_hosts = ["gateway.example"]\n'
        'trusted_proxies = ["127.0.0.1"]\nmetrics = "key"\ngrace_seconds = 1\n'
        '[log]\nformat = "json"\n[audit]\nfile = "audit.jsonl"\narguments = "none"\n'
        f"{table(ALICE)}"
    )
    policy = json.dumps({"codes": 'tool "pay" { must deny when amount.value in {int 100..}; }'})
    sent = {"Host": "gateway.example", "X-Forwarded-For": "203.0.113.7", "X-Policy": policy}
    with serving(log, "--config", str(file)) as (process, url):
        assert chat(url, "sq-alice", **sent).status_code == 200
        assert chat(url, "sq-alice", Host="other.example").status_code == 421
        assert httpx.get(f"{url}/metrics", trust_env=False).status_code == 401
        process.terminate()
        assert process.wait(timeout=20) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    first, *_ = [line for line in lines if line["event"] == "request"]
    assert (first["key"], first["client"], first["status"]) == ("alice", "203.0.113.7", 200)
    [checked] = map(json.loads, audit.read_text().splitlines())
    assert (checked["tool"], checked["key"], checked["verdict"]) == ("pay", "alice", "soft_allowed")
    assert "5" not in json.dumps(checked["arguments"])


def test_a_new_key_is_printed_once_with_the_table_for_the_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["key", "new", "--name", 'Ana "A"'])
    assert result.exit_code == 0
    secret = next(line.strip() for line in result.output.splitlines() if line.startswith("    "))
    file = tmp_path / "gateway.toml"
    file.write_text(result.output.partition("[[keys]]")[1] + result.output.partition("[[keys]]")[2])
    checked = CliRunner().invoke(cli, ["serve", "--config", str(file), "--check"])
    assert 'key     Ana "A": no limits' in checked.output
    assert ApiKey.from_secret(secret, "x").digest in file.read_text()
    assert result.output.count(secret) == 1


def test_a_key_file_has_a_key_or_a_digest_in_each_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# of the team\nsq-alice\n\n{BOB.digest}\n")
    assert [(key.name, key.digest) for key in keys_in(file)] == [
        ("line 2", ALICE.digest), ("line 4", BOB.digest)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no key"),
        ("# none", "has no key"),
        ("sq a secret", "line 1: expected one key"),
        ("sha256:12", "digest of the key `line 1`"),
    ],
)
def test_a_key_file_with_a_mistake_is_refused_without_showing_it(
    tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(UsageError, match=problem) as caught:
        keys_in(file)
    assert "secret" not in str(caught.value)
