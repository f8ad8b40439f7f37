"""The files in `examples/gateway-replicas`, as kustomize puts them over those of `examples/gateway`."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from langchain_sequrity.gateway.server import Gateway
from tests.gateway.deployment import EXAMPLE, ROOT, run, tool

REPLICAS = ROOT / "examples" / "gateway-replicas"
BY_NAME = {"containers", "env", "volumes", "ports"}
"""Lists of Kubernetes whose items are merged by their name; `volumeMounts` by their path."""


def documents(*files: Path) -> list[dict[str, Any]]:
    return [one for file in files for one in yaml.safe_load_all(file.read_text())]


def merged(base: Any, patch: Any, key: str = "") -> Any:
    """A value with a strategic merge patch, as far as these files need it."""
    if isinstance(patch, dict) and isinstance(base, dict):
        fresh = {name: value for name, value in patch.items() if name != "$patch"}
        if "$patch" in patch:
            return fresh
        return base | {name: merged(base.get(name), fresh[name], name) for name in fresh}
    identity = "mountPath" if key == "volumeMounts" else "name"
    if isinstance(patch, list) and isinstance(base, list) and key in {*BY_NAME, "volumeMounts"}:
        items = {item[identity]: item for item in base}
        for item in patch:
            items[item[identity]] = merged(items.get(item[identity]), item)
        return [*items.values()]
    return patch


def identity(document: dict[str, Any]) -> tuple[str, str]:
    return document["kind"], document["metadata"]["name"]


def applied() -> dict[tuple[str, str], dict[str, Any]]:
    """What `kubectl apply -k` sends, but for the generated ConfigMap."""
    overlay = yaml.safe_load((REPLICAS / "kustomization.yaml").read_text())
    assert overlay["resources"][0] == "../gateway"
    added = [REPLICAS / name for name in overlay["resources"][1:]]
    sent = {
        identity(one): one for one in documents(*(EXAMPLE / "kubernetes").glob("*.yaml"), *added)
    }
    patches = [REPLICAS / patch["path"] for patch in overlay["patches"]]
    files = {REPLICAS / "kustomization.yaml", *added, *patches}
    assert files == {*REPLICAS.iterdir()}
    for patch in documents(*patches):
        sent[identity(patch)] = merged(sent[identity(patch)], patch)
    return sent


def pods() -> dict[str, dict[str, Any]]:
    return {
        name: document["spec"]["template"]["spec"]
        for (kind, name), document in applied().items()
        if kind in {"Deployment", "StatefulSet"}
    }


def only_container(pod: dict[str, Any]) -> dict[str, Any]:
    [container] = pod["containers"]
    assert isinstance(container, dict)
    return container


GATEWAY, REDIS = "langchain-sequrity", "langchain-sequrity-redis"


def test_what_is_applied_is_valid_for_kubernetes(tmp_path: Path) -> None:
    validate = tool("kubernetes-validate")
    for number, document in enumerate(applied().values()):
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump(document))
        done = run(validate, "--strict", file)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [GATEWAY, REDIS])
def test_every_pod_keeps_the_restricted_profile(name: str) -> None:
    pod = pods()[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only_container(pod)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["name"] for mount in only_container(pod)["volumeMounts"]}
    claims = applied().get(("StatefulSet", name), {"spec": {}})["spec"]
    volumes = [
        *pod["volumes"],
        *(one["metadata"] for one in claims.get("volumeClaimTemplates", ())),
    ]
    assert mounts == {volume["name"] for volume in volumes}


def test_pods_share_their_sessions_and_not_their_audit_log() -> None:
    deployment = applied()["Deployment", GATEWAY]["spec"]
    assert deployment["replicas"] > 1
    assert deployment["strategy"]["type"] == "RollingUpdate"
    container = only_container(pods()[GATEWAY])
    [state] = [mount for mount in container["volumeMounts"] if mount["name"] == "state"]
    assert state["subPathExpr"] == "$(POD_NAME)"
    assert applied()["PersistentVolumeClaim", f"{GATEWAY}-audit"]["spec"]["accessModes"] == [
        "ReadWriteMany"
    ]
    assert (
        applied()["PodDisruptionBudget", GATEWAY]["spec"]["maxUnavailable"] < deployment["replicas"]
    )


def test_the_gateway_accepts_the_settings_of_its_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = only_container(pods()[GATEWAY])
    [secrets] = [mount for mount in container["volumeMounts"] if mount["name"] == "store"]
    for variable in container["env"]:
        value = variable.get("value", "a-pod")
        if value.startswith(secrets["mountPath"]):
            file = tmp_path / Path(value).name
            file.write_text("a secret of more than sixteen bytes")
            value = str(file)
        monkeypatch.setenv(variable["name"], value)
    monkeypatch.setenv("SEQURITY_GATEWAY_AUDIT__FILE", str(tmp_path / "audit.jsonl"))
    summary = Gateway(EXAMPLE / "config" / "gateway.toml", host="0.0.0.0").summary()  # noqa: S104
    assert any(REDIS in line for line in summary), summary


def test_redis_is_the_one_of_compose_and_only_gateways_reach_it() -> None:
    [with_redis] = documents(EXAMPLE / "compose.redis.yaml")
    service, container = with_redis["services"]["redis"], only_container(pods()[REDIS])
    assert container["image"] == service["image"]
    [of_compose] = re.findall(r"exec redis-server .*", service["entrypoint"][-1])
    [of_pod] = re.findall(r"exec redis-server .*", container["command"][-1])
    assert shlex.split(of_pod) == shlex.split(of_compose)
    policy = applied()["NetworkPolicy", REDIS]["spec"]
    labels = {"app.kubernetes.io/name": REDIS}
    assert policy["podSelector"]["matchLabels"] == labels
    assert applied()["StatefulSet", REDIS]["spec"]["template"]["metadata"]["labels"] == labels
    [rule] = policy["ingress"]
    [allowed] = rule["from"]
    gateway = applied()["Deployment", GATEWAY]["spec"]["template"]["metadata"]["labels"]
    assert allowed["podSelector"]["matchLabels"] == gateway
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy
