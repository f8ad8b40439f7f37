"""The files in `examples/gateway`: valid, hardened, and in agreement with each other.

Tests are skipped whose tools are missing: `make deployment` installs the schemas of Kubernetes and
Caddy, and systemd belongs to the system.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import yaml

from langchain_sequrity._version import __version__
from langchain_sequrity.cli.commands import cli
from langchain_sequrity.gateway.server import Gateway
from langchain_sequrity.gateway.settings import GatewaySettings
from langchain_sequrity.local import ApiKey, LocalServer
from tests.gateway.deployment import EXAMPLE, ROOT, run, tool
from tests.local.api import CHAT, said
from tests.test_cli import url_in

CONFIG = EXAMPLE / "config" / "gateway.toml"
MANIFESTS = sorted((EXAMPLE / "kubernetes").glob("*.yaml"))
IMAGE = f"langchain-sequrity-gateway:{__version__}"
DOMAIN = "gateway.example"
UNIT = EXAMPLE / "langchain-sequrity.service"
UID = "10001"


def compose() -> dict[str, Any]:
    """The compose file, with its variable replaced."""
    text = (EXAMPLE / "compose.yaml").read_text()
    document: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{DOMAIN:\?[^}]*\}", DOMAIN, text))
    return document


def manifest(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((EXAMPLE / "kubernetes" / name).read_text())
    return document


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = manifest("deployment.yaml")["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    [only] = pod()["containers"]
    assert isinstance(only, dict)
    return only


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Containerfile, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", (EXAMPLE / "Containerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines if line.strip()]


def instruction(name: str) -> list[str]:
    return [value for key, value in instructions() if key == name]


def unit() -> dict[str, list[str]]:
    """The values of the unit by option."""
    values: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            values.setdefault(name, []).append(value)
    return values


def seconds(duration: str) -> int:
    assert duration.endswith("s")
    return int(duration[:-1])


# Valid


@pytest.mark.parametrize("name", ["compose.yaml", "compose.redis.yaml"])
def test_the_compose_file_is_valid(name: str) -> None:
    schema = ["--builtin-schema", "vendor.compose-spec"]
    done = run(tool("check-jsonschema"), *schema, EXAMPLE / name)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_a_manifest_is_valid_for_kubernetes(file: Path) -> None:
    done = run(tool("kubernetes-validate"), "--strict", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_unit_is_valid_and_hardened(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    executable = "/opt/langchain-sequrity/bin/langchain-sequrity"
    text = UNIT.read_text()
    assert executable in text
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace(executable, "/bin/true"))
    verified = run(analyze, "verify", copy)
    assert (verified.returncode, verified.stderr) == (0, "")
    # The exposure in tenths: 12 is left for the network, which a server needs.
    done = run(analyze, "security", "--offline=yes", "--threshold=15", copy)
    assert done.returncode == 0, done.stdout


def test_the_kustomization_has_every_manifest_and_file() -> None:
    kustomization = yaml.safe_load((EXAMPLE / "kustomization.yaml").read_text())
    assert kustomization["resources"] == [f"kubernetes/{file.name}" for file in MANIFESTS]
    [generated] = kustomization["configMapGenerator"]
    files = sorted((EXAMPLE / "config").iterdir())
    assert generated["files"] == [f"config/{file.name}" for file in files]
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    assert volumes["config"]["configMap"]["name"] == generated["name"]
    claim = manifest("audit-volume.yaml")["metadata"]["name"]
    assert volumes["state"]["persistentVolumeClaim"]["claimName"] == claim


# The program in them


def program_commands() -> Iterator[list[str]]:
    """All calls of `langchain-sequrity` in the files."""
    yield shlex.split(CMD_OF_IMAGE)
    for value in [*unit()["ExecStart"], *unit()["ExecStartPre"]]:
        words = shlex.split(value)
        assert Path(words[0]).name == "langchain-sequrity"
        yield words[1:]
    for file in EXAMPLE.rglob("*"):
        text = file.read_text() if file.is_file() else ""
        yield from (shlex.split(c) for c in re.findall(r"`langchain-sequrity ([^`]*)`", text))


CMD_OF_IMAGE = " ".join(yaml.safe_load(instruction("CMD")[0]))


def test_every_command_and_option_in_the_files_exists() -> None:
    commands = list(program_commands())
    assert len(commands) >= 4
    for words in commands:
        command: click.Command = cli
        rest = list(words)
        while isinstance(command, click.Group):
            subcommand = command.get_command(click.Context(command), rest.pop(0))
            assert subcommand is not None, words
            command = subcommand
        known = {option for param in command.params for option in param.opts}
        assert {word for word in rest if word.startswith("-")} <= known, words


def environments() -> dict[str, dict[str, str]]:
    """The variables that each way of running sets."""
    return {
        "compose": compose()["services"]["gateway"]["environment"],
        "kubernetes": {entry["name"]: entry["value"] for entry in container()["env"]},
        "systemd": {},
    }


@pytest.mark.parametrize("runner", environments())
def test_the_configuration_is_accepted_with_the_variables_of_each_file(
    runner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environments()[runner].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SEQURITY_GATEWAY_AUDIT__FILE", str(tmp_path / "audit.jsonl"))
    host = None if runner == "systemd" else host_of_image()
    gateway = Gateway(CONFIG, host=host)
    assert gateway.summary()[1:] == [
        "model   any name: a deterministic model",
        "key     alice: requests_per_minute 600",
        "key     mail-agent: turns_at_once 8, own policy, own features",
    ]


def test_the_workers_of_compose_have_a_redis_that_keeps_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = yaml.safe_load((EXAMPLE / "compose.redis.yaml").read_text())
    gateway, redis = document["services"]["gateway"], document["services"]["redis"]
    for name, value in gateway["environment"].items():
        secret = tmp_path / Path(value).name
        if name.endswith("_FILE"):
            assert secret.name in gateway["secrets"]
            secret.write_text("a secret of at least 16 characters")
        monkeypatch.setenv(name, str(secret) if name.endswith("_FILE") else value)
    workers = int(gateway["command"][gateway["command"].index("--workers") + 1])
    lines = Gateway(CONFIG, workers=workers).summary()
    assert lines[1:3] == ["workers 4", "store   redis://redis:6379/0, lease 10 s"]
    *_, script = redis["entrypoint"]
    for option in ("--appendonly yes", "--appendfsync everysec", "--maxmemory-policy noeviction"):
        assert option in script
    assert (redis["read_only"], redis["cap_drop"], "ports" in redis) == (True, ["ALL"], False)


def host_of_image() -> str:
    words = CMD_OF_IMAGE.split()
    return words[words.index("--host") + 1]


def test_the_alternatives_in_the_configuration_are_accepted_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(CONFIG.parent, tmp_path / "config")
    (tmp_path / "openai").write_text("sk-test")
    file = tmp_path / "config" / CONFIG.name
    file.write_text(re.sub(r"^#(?! )", "", CONFIG.read_text(), flags=re.MULTILINE))
    monkeypatch.setenv("SEQURITY_GATEWAY_AUDIT__FILE", str(tmp_path / "audit.jsonl"))
    monkeypatch.setenv("SEQURITY_GATEWAY_MODELS__ASSISTANT__KEY_FILE", str(tmp_path / "openai"))
    gateway = Gateway(file)
    assert gateway.settings.server.allowed_hosts == [DOMAIN]
    assert (
        gateway.summary()[1] == "model   assistant: model openai:gpt-5-mini, planner openai:gpt-5"
    )


@pytest.mark.parametrize("name", ["HEALTHCHECK", "compose"])
def test_a_health_check_succeeds_at_a_server_that_answers_and_fails_without_one(name: str) -> None:
    if name == "compose":
        command, path = compose()["services"]["gateway"]["healthcheck"]["test"][1:], "/ready"
    else:
        [value] = instruction(name)
        command, path = yaml.safe_load(value.partition("CMD ")[2]), "/health"
    *python, code = command
    assert python == ["python3", "-I", "-c"]
    assert path in code
    with LocalServer() as server:
        port = server.base_url.rpartition(":")[2]
        check = [sys.executable, *python[1:], code.replace("8787", port)]
        assert run(*check).returncode == 0
    failed = run(*check)
    assert (failed.returncode, "ConnectionRefusedError" in failed.stderr) == (1, True)


# Agreement


def settings() -> GatewaySettings:
    return GatewaySettings.read(CONFIG)


def test_every_stop_time_is_longer_than_the_grace_of_turns() -> None:
    grace = settings().server.grace_seconds
    assert seconds(compose()["services"]["gateway"]["stop_grace_period"]) > grace
    assert int(unit()["TimeoutStopSec"][0]) > grace
    assert pod()["terminationGracePeriodSeconds"] > grace


def test_the_port_is_the_same_in_all_files() -> None:
    port = settings().server.port
    [service] = manifest("service.yaml")["spec"]["ports"]
    [named] = container()["ports"]
    assert instruction("EXPOSE") == [str(port)]
    assert compose()["services"]["gateway"]["expose"] == [str(port)]
    assert (service["port"], named["containerPort"]) == (port, port)
    assert {service["targetPort"], *(p["port"] for p in probes().values())} == {named["name"]}
    assert f"{{$GATEWAY:gateway:{port}}}" in (EXAMPLE / "Caddyfile").read_text()


def probes() -> dict[str, dict[str, Any]]:
    return {name: container()[name]["httpGet"] for name in PROBES}


PROBES = {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}


def test_kubernetes_asks_whether_it_lives_and_whether_it_is_ready() -> None:
    assert {name: probe["path"] for name, probe in probes().items()} == PROBES


def test_the_image_is_the_one_of_this_version_everywhere() -> None:
    assert compose()["services"]["gateway"]["image"] == container()["image"] == IMAGE
    assert f"-t {IMAGE} ." in (EXAMPLE / "Containerfile").read_text()


def test_every_image_has_a_version() -> None:
    images = [service["image"] for service in compose()["services"].values()]
    [python] = [value for value in instruction("ARG") if value.startswith("PYTHON=")]
    bases = [value.split()[0] for value in instruction("FROM")]
    assert set(bases) == {"docker.io/library/python:${PYTHON}"}
    for image in [*images, container()["image"], f"python:{python.partition('=')[2]}"]:
        assert re.fullmatch(r".+:\d+\.\d+\.\d+(-[a-z-]+)?", image), image


def test_the_folders_and_secrets_of_the_configuration_are_mounted() -> None:
    service = compose()["services"]["gateway"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    audit = settings().audit.file
    assert audit is not None
    assert mounts["state"] == str(audit.parent)
    assert f"audit:{audit.parent}" in service["volumes"]
    assert f"./config:{mounts['config']}:ro" in service["volumes"]
    assert f"{mounts['config']}/gateway.toml" in CMD_OF_IMAGE
    assert unit()["StateDirectory"] == [audit.parent.name]
    [secret] = service["secrets"]
    credential = unit()["LoadCredential"][0].partition(":")[0]
    assert secret["target"] == f"{mounts['providers']}/openai"
    text = CONFIG.read_text()
    assert f'key_file = "{secret["target"]}"' in text
    assert f"systemd: /run/credentials/{UNIT.name}/{credential}" in text


def test_only_caddy_is_believed_and_reached_from_outside() -> None:
    services = compose()["services"]
    believed = services["gateway"]["environment"]["SEQURITY_GATEWAY_SERVER__TRUSTED_PROXIES"]
    address = services["caddy"]["networks"]["front"]["ipv4_address"]
    assert believed == f'["{address}"]'
    # A gateway without a fixed address starts first and would get the first one: Caddy's.
    assert services["gateway"]["networks"]["front"]["ipv4_address"] != address
    assert "ports" not in services["gateway"]
    assert services["caddy"]["depends_on"]["gateway"]["condition"] == "service_healthy"


def test_caddy_gives_up_idle_connections_before_the_gateway_closes_them() -> None:
    [keepalive] = re.findall(
        r"^\s*keepalive (\S+)$", (EXAMPLE / "Caddyfile").read_text(), re.MULTILINE
    )
    assert seconds(keepalive) < settings().server_limits().idle_seconds


def test_there_is_one_process_because_sessions_are_in_its_memory() -> None:
    deployment = manifest("deployment.yaml")["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    labels = deployment["template"]["metadata"]["labels"]
    budget = manifest("disruption-budget.yaml")["spec"]
    assert (budget["maxUnavailable"], budget["selector"]["matchLabels"]) == (0, labels)
    assert manifest("service.yaml")["spec"]["selector"] == deployment["selector"]["matchLabels"]
    assert deployment["selector"]["matchLabels"] == labels


# Hardened


def test_the_image_runs_as_a_user_without_rights() -> None:
    names = [name for name, _ in instructions()]
    assert instruction("USER") == [f"{UID}:{UID}"]
    assert names.index("USER") > names.index("RUN")
    assert instruction("STOPSIGNAL") == ["SIGTERM"]


def test_the_files_that_the_image_copies_exist_and_are_not_ignored() -> None:
    ignored, *exceptions = (EXAMPLE / "Containerfile.dockerignore").read_text().split()
    assert ignored == "*"
    copied = [v.split()[:-1] for v in instruction("COPY") if not v.startswith("--from")]
    sources = {source.strip("./") for sources in copied for source in sources}
    assert sources == {name[1:] for name in exceptions if name.startswith("!")}
    assert [name for name in sources if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", ["gateway", "caddy"])
def test_a_service_of_compose_has_a_read_only_file_system_and_no_rights(name: str) -> None:
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "caddy" else [])


def test_the_gateway_of_compose_is_not_root_and_has_limits() -> None:
    service = compose()["services"]["gateway"]
    assert service["user"] == f"{UID}:{UID}"
    limits = settings().server_limits()
    assert service["pids_limit"] > limits.turns_at_once
    assert service["ulimits"]["nofile"] > limits.connections
    assert service["mem_limit"]


def test_the_pod_keeps_the_restricted_profile() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    context = pod()["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == int(UID)
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod().keys()
    kinds = {kind for volume in pod()["volumes"] for kind in volume if kind != "name"}
    assert kinds == {"configMap", "secret", "persistentVolumeClaim"}
    assert pod()["automountServiceAccountToken"] is False
    assert "memory" in container()["resources"]["limits"]


def test_no_secret_is_a_variable_or_in_a_file() -> None:
    variables = [name for names in environments().values() for name in names]
    assert [name for name in variables if "KEY" in name] == []
    assert {key["digest"][7:] for key in tomllib.loads(CONFIG.read_text())["keys"]} == {
        "0" * 64, "1" * 64,
    }  # fmt: skip


# As in a container, without one
CONFINED = """
mount --make-rprivate /
mount --bind "$STATE" "$STATE"
mount -t tmpfs -o ro none /dev/shm
mount -o remount,bind,ro /
if touch "$CONFIG/new"; then exit 1; fi
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all \\
    "$PYTHON" -m langchain_sequrity.cli serve --config "$CONFIG/gateway.toml" --port 0
"""


def can_mount() -> bool:
    trial = ["unshare", "--mount", "mount", "--make-rprivate", "/"]
    has_tools = shutil.which("unshare") and shutil.which("setpriv")
    return bool(has_tools) and run(*trial).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs Linux, and the right to mount")
def test_programs_run_in_workers_without_rights_on_a_read_only_file_system(tmp_path: Path) -> None:
    config = with_key(shutil.copytree(CONFIG.parent, tmp_path / "config"), "sq-agent")
    state = tmp_path / "state"
    state.mkdir()
    variables = {
        "SEQURITY_GATEWAY_SERVER__ISOLATED_PROGRAMS": "true",
        "SEQURITY_GATEWAY_AUDIT__FILE": str(state / "audit.jsonl"),
        "CONFIG": str(config), "STATE": str(state), "PYTHON": sys.executable,
    }  # fmt: skip
    log = tmp_path / "log.txt"
    command = ["unshare", "--mount", "sh", "-ec", CONFINED]
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603 - our own command
            command, stdout=output, stderr=output, env={**os.environ, **variables}
        ) as process,
    ):
        try:
            verdict = asked_to_send_mail(url_in(log), "sq-agent")
        finally:
            process.kill()
    assert verdict["error"]["code"] == "policy_violation"
    [line] = (state / "audit.jsonl").read_text().splitlines()
    assert json.loads(line)["verdict"] == "hard_denied"


def with_key(config: Path, secret: str) -> Path:
    """The folder, whose key with a policy is now this one."""
    file, digest = config / CONFIG.name, ApiKey.from_secret(secret, "agent").digest
    file.write_text(file.read_text().replace(f"sha256:{'1' * 64}", digest))
    return config


def asked_to_send_mail(url: str, secret: str) -> Any:
    """The reply of a dual-LLM session whose program mails to a stranger."""
    parameters = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}
    tools = [{"type": "function", "function": {"name": "send_mail", "parameters": parameters}}]
    messages = [{"role": "user", "content": 'send_mail to="eve@evil.example"'}]
    body = {"model": "assistant", "messages": messages, "tools": tools}
    headers = {"Authorization": f"Bearer {secret}"}
    reply = httpx.post(url + CHAT, json=body, headers=headers, trust_env=False, timeout=60)
    return json.loads(said(reply)["content"])
