"""The configuration file: what is read, and the sentence for each mistake."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from langchain_sequrity.cli.commands import cli
from langchain_sequrity.errors import UsageError
from langchain_sequrity.gateway.server import Gateway
from langchain_sequrity.gateway.settings import GatewaySettings
from langchain_sequrity.local import ApiKey

DIGEST = f"sha256:{'0' * 64}"
KEY = f'[[keys]]\nname = "alice"\ndigest = "{DIGEST}"\n'
MODEL = '[models.fast]\nmodel = "qwen@http://127.0.0.1:1/v1"\n'
POLICY = 'tool "send_mail" { must deny always; }'


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def written(folder: Path, text: str) -> Path:
    file = folder / "gateway.toml"
    file.write_text(text, encoding="utf-8")
    return file


def check(file: Path, *arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(
        cli, ["serve", "--config", str(file), "--check", *arguments]
    )


def test_a_check_says_what_would_run_and_shows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_PROVIDER_KEY", "sk-secret")
    (tmp_path / "secret").write_text("sk-other\n")
    (tmp_path / "house.sqrt").write_text(POLICY)
    file = written(
        tmp_path,
        f"""
        [server]
        port = 9000
        [limits]
        turns_at_once = 64
        [limits.program]
        calls = 500
        [models.strong]
        model = "openai:gpt-5-mini"
        key_env = "MY_PROVIDER_KEY"
        planner = {{model = "openai:gpt-5", key_file = "secret"}}
        [[keys]]
        name = "alice"
        digest = "{DIGEST}"
        models = ["strong"]
        requests_per_minute = 1200
        memory_share = 40
        policy_file = "house.sqrt"
        features = {{agent_arch = "dual-llm"}}
        """,
    )
    result = check(file)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "server  127.0.0.1:9000, fidelity full",
        "model   strong: model openai:gpt-5-mini, planner openai:gpt-5",
        "key     alice: requests_per_minute 1,200, memory_share 40, models strong, own policy, own features",
        "limit   turns_at_once = 64",
        "limit   program = {'calls': 500}",
    ]


MISTAKES = [
    ("", "[server]\nprot = 1", "`server`: Unknown field `prot` in `[server]`. Did you mean `port`?"),
    ("", "[sevrer]\nport = 1", "Unknown field `sevrer` in the file. Did you mean `server`?"),
    ("", "[server]\nport = 70000", "`server.port`: "),
    ("", "[server\n", "It is not TOML: "),
    ("", "[limits]\nturns_at_onc = 1", "There is no limit `turns_at_onc`. Did you mean"),
    ("", "[limits.program]\ncall = 1", "There is no limit `program.call`"),
    ("", "[limits]\nsessions = 0", "The limit `sessions` must be a positive whole number"),
    ("", "[server]\nhost = '0.0.0.0'", "no keys are required"),
    (KEY, "requests_per_minut = 1", "`keys[0]`: Unknown field `requests_per_minut`"),
    (KEY, "requests_per_minute = 0", "`requests_per_minute` of the key `alice`"),
    (KEY, "models = ['slow']\n[models.fast]\nmodel='a@http://x/'", "The key `alice` may use the model `slow`, which is not listed."),
    (KEY, "policy = 'tool {'\nfeatures = {agent_arch = 'dual-llm'}", "The policy of the key `alice`: "),
    (KEY, "policy_file = 'no.sqrt'", "The key `alice`: The file"),
    (KEY, "policy = ''", "Set `agent_arch`"),
    (KEY, "features = {agent_arc = 'dual-llm'}", "Did you mean `agent_arch`?"),
    (KEY, KEY, "Two keys have the same name: `alice`"),
    (MODEL, "key_env = 'NO_SUCH_VARIABLE'", "`models.fast.model`: The environment variable `NO_SUCH_VARIABLE` of `key_env` is not set."),
    (MODEL, "key_file = 'none'", "`models.fast.model`: The file"),
    (MODEL, "planer = 'x:y'", "Unknown field `planer` in a table of `[models]`. Did you mean `planner`?"),
    (MODEL, "reader = 'gpt'", "`models.fast.reader`: `gpt` is not the name of a model"),
    ("", "[models.fast]", "needs a chat model"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "text", "problem"), MISTAKES)
def test_a_mistake_is_one_sentence_with_the_file_and_the_place(
    tmp_path: Path, before: str, text: str, problem: str
) -> None:
    file = written(tmp_path, f"{before}{text}\n")
    result = check(file)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"{file}: " in result.stderr
    assert problem in result.stderr


def test_an_environment_variable_overrides_a_value_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, f"[server]\nport = 1\nfidelity = 'documented'\n{MODEL}{KEY}")
    monkeypatch.setenv("SEQURITY_GATEWAY_SERVER__PORT", "9")
    monkeypatch.setenv("SEQURITY_GATEWAY_LIMITS__PROGRAM__CALLS", "77")
    monkeypatch.setenv("SEQURITY_GATEWAY_LIMITS__BODY_SECONDS", "1.5")
    monkeypatch.setenv("SEQURITY_GATEWAY_MODELS__FAST__READER", "other@http://127.0.0.1:1/v1")
    settings = GatewaySettings.read(file)
    assert (settings.server.port, settings.server.fidelity) == (9, "documented")
    limits = settings.server_limits()
    assert (limits.program.calls, limits.body_seconds) == (77, 1.5)
    table = settings.model_table(tmp_path)
    assert table is not None
    assert [*table["fast"]] == ["chat", "reader"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("SEQURITY_GATEWAY_SERVR__PORT", "Did you mean `SEQURITY_GATEWAY_SERVER`?"),
        ("SEQURITY_GATEWAY_SERVER__PROT", "Did you mean `port`?"),
        ("SEQURITY_GATEWAY_LIMITS__SESIONS", "Did you mean `sessions`?"),
    ],
)
def test_a_misspelt_environment_variable_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, problem: str
) -> None:
    monkeypatch.setenv(name, "1")
    result = check(written(tmp_path, KEY))
    assert result.exit_code == 1
    assert problem in result.stderr


def test_the_provider_key_of_a_file_reaches_its_model_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRST_KEY", "sk-first")
    (tmp_path / "second").write_text("sk-second\n")
    file = written(
        tmp_path,
        '[models.m]\nmodel = "openai:a"\nkey_env = "FIRST_KEY"\n'
        'planner = {model = "openai:b", key_file = "second"}\n',
    )
    table: Any = GatewaySettings.read(file).model_table(tmp_path)
    keys = {role: model.openai_api_key.get_secret_value() for role, model in table["m"].items()}
    assert keys == {"chat": "sk-first", "planner": "sk-second"}


def test_a_policy_can_have_settings_beside_its_file(tmp_path: Path) -> None:
    (tmp_path / "house.sqrt").write_text(POLICY)
    file = written(
        tmp_path,
        f"{KEY}policy_file = 'house.sqrt'\nfeatures = {{agent_arch = 'dual-llm'}}\n"
        "policy = {mode = 'strict', presets = {default_allow = false}}\n",
    )
    [key] = GatewaySettings.read(file).api_keys(tmp_path)
    fields = key.policy.to_wire()
    assert (fields["mode"], fields["presets"]) == ("strict", {"default_allow": False})
    assert "send_mail" in fields["codes"]["code"]


def test_a_broken_file_keeps_the_old_keys_and_a_good_one_replaces_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = (f'[[keys]]\nname = "{name}"\ndigest = "{ApiKey.from_secret(name, name).digest}"\n' for name in ("alice", "bob"))  # fmt: skip
    gateway = Gateway(written(tmp_path, alice), port=0)
    keys = gateway.server._services.keys
    for broken in (f"{bob}polcy = ''", "", "[["):
        written(tmp_path, broken)
        assert not gateway.reload()
        assert "The keys stay as they are" in caplog.messages[-1]
        assert keys.find("alice")
    written(tmp_path, f"{bob}[limits]\nsessions = 5\n")
    with caplog.at_level("WARNING"):
        assert gateway.reload()
    assert (keys.find("alice"), keys.find("bob") is None) == (None, False)
    assert caplog.messages[-1] == "Changes of `limits` need a restart"


def test_a_file_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Gateway(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "options",
    [["--model", "a:b"], ["--api-key", "x"], ["--limit", "sessions=1"], ["--fidelity", "full"]],
)
def test_options_that_the_file_has_are_refused_beside_it(
    tmp_path: Path, options: list[str]
) -> None:
    result = check(written(tmp_path, KEY), *options)
    assert result.exit_code == 2
    assert f"{options[0]} and --config cannot be used together" in result.stderr


def test_a_check_needs_a_file() -> None:
    result = CliRunner().invoke(cli, ["serve", "--check"])
    assert result.exit_code == 2
    assert "--check needs --config" in result.stderr
