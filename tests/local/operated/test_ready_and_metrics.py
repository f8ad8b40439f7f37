"""`/ready` and `/metrics`."""

import sys
from typing import Any

import httpx
import pytest
from langchain_core.language_models import FakeListChatModel
from prometheus_client.parser import text_string_to_metric_families

from langchain_sequrity.errors import UsageError
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.metrics import BoundedLabels, route_of
from langchain_sequrity.local.operations import FOR_ANY_HOST
from tests.local.api import CHAT, Api, tool
from tests.local.conftest import Serve
from tests.local.operated.test_audit import SINGLE, TOOLS, answers, calling


@pytest.mark.parametrize("path", sorted(FOR_ANY_HOST))
@pytest.mark.parametrize("host", ["10.0.0.7:8787", "pod-1", ""])
def test_probes_are_answered_without_a_key_and_with_any_host(
    serve: Serve, path: str, host: str
) -> None:
    api = serve(api_keys=["sq-test"])
    assert api.request("GET", path, headers={"Host": host}).status_code == 200


def test_a_server_with_the_default_model_is_ready_and_names_it(api: Api) -> None:
    assert api.request("GET", "/ready").json() == {"status": "ready", "model": "deterministic"}


def test_names_of_other_models_are_not_told_to_everybody(serve: Serve) -> None:
    api = serve(model=FakeListChatModel(responses=["Hi"]))
    assert api.request("GET", "/ready").json() == {"status": "ready"}


def test_ready_starts_the_workers(serve: Serve) -> None:
    api = serve()
    api.request("GET", "/ready")
    if sys.platform == "linux":
        assert sample(api, "sequrity_workers") > 0
        assert sample(api, "sequrity_workers_started_total") > 0
        assert sample(api, "sequrity_workers_killed_total") == 0


# Metrics


def metrics(api: Api, **headers: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    reply = api.request("GET", "/metrics", headers=headers)
    assert reply.status_code == 200, reply.text
    families = text_string_to_metric_families(reply.text)
    samples = (one for family in families for one in family.samples)
    return {(one.name, frozenset(one.labels.items())): one.value for one in samples}


def sample(api: Api, name: str, **labels: str) -> float:
    return metrics(api).get((name, frozenset(labels.items())), 0.0)


def test_requests_and_turns_are_counted(serve: Serve) -> None:
    api = serve()
    assert api.chat("Hi").status_code == 200
    assert api.request("POST", "/nowhere/%0a").status_code == 404
    labels = {"method": "POST", "key": ""}
    assert sample(api, "sequrity_requests_total", route=CHAT, status="200", **labels) == 1
    assert sample(api, "sequrity_requests_total", route="other", status="404", **labels) == 1
    assert sample(api, "sequrity_request_seconds_count", route=CHAT) == 1
    turn = {"architecture": "single-llm", "outcome": "answer"}
    assert sample(api, "sequrity_turns_total", **turn) == 1
    assert sample(api, "sequrity_sessions") == 1
    assert sample(api, "sequrity_sessions_bytes") > 0
    assert sample(api, "sequrity_request_memory_bytes") >= 0


def test_tokens_are_counted_by_model_and_direction(serve: Serve) -> None:
    api = serve(script=[{"text": "one two three"}])
    usage = api.chat("Hi", model="a/b").json()["usage"]
    for direction, count in (("input", "prompt_tokens"), ("output", "completion_tokens")):
        counted = sample(api, "sequrity_tokens_total", model="a/b", direction=direction)
        assert counted == usage[count]


def test_verdicts_are_counted_by_tool_and_rule_and_denials_too(serve: Serve) -> None:
    api = serve(script=answers(calling("read"), calling("send")), fidelity="full")
    first = api.chat("Go", headers=SINGLE, tools=TOOLS)
    message = {
        "role": "tool",
        "tool_call_id": first.json()["choices"][0]["message"]["tool_calls"][0]["id"],
        "content": "x",
    }
    api.chat(message, session=first.headers["x-session-id"], tools=TOOLS)
    found = metrics(api)
    verdicts = {
        (labels_of["tool"], labels_of["verdict"])
        for (name, labels), _ in found.items()
        if name == "sequrity_verdicts_total" and (labels_of := dict(labels))
    }
    assert verdicts == {("read", "soft_allowed"), ("send", "hard_denied")}
    assert sample(api, "sequrity_denials_total", tool="send", key="") == 1
    outcome = {"architecture": "single-llm", "outcome": "denied"}
    assert sample(api, "sequrity_turns_total", **outcome) == 1


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        ({"program": "final_return_value = 1"}, "answer"),
        ({"program": "look_up(word='a')"}, "tool_calls"),
        ({"program": "raise ValueError('x')"}, "failed"),
    ],
)
def test_outcomes_of_dual_llm_turns_are_counted(
    serve: Serve, rule: dict[str, Any], outcome: str
) -> None:
    api = serve(script=[rule])
    api.chat("Go", headers={"X-Features": '{"agent_arch": "dual-llm"}'}, tools=[tool()])
    labels = {"architecture": "dual-llm", "outcome": outcome}
    assert sample(api, "sequrity_turns_total", **labels) == 1


def test_two_servers_have_their_own_metrics(serve: Serve) -> None:
    one, other = serve(), serve()
    one.chat("Hi")
    turn = {"architecture": "single-llm", "outcome": "answer"}
    assert sample(one, "sequrity_turns_total", **turn) == 1
    assert sample(other, "sequrity_turns_total", **turn) == 0


def test_clients_cannot_make_endless_series() -> None:
    bounded = BoundedLabels(most=2)
    values = [bounded(name, "x") for name in ("a", "b", "c", "a")]
    assert values == [("a", "x"), ("b", "x"), ("other", "other"), ("a", "x")]
    assert bounded("\ud800") == ("other",)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        (CHAT, CHAT),
        ("/control/chat/v1/models/a/b", "/control/chat/v1/models/{model}"),
        ("/x/v1/models/a", "other"),
        ("/favicon.ico", "other"),
    ],
)
def test_routes_are_those_of_the_table(path: str, route: str) -> None:
    assert route_of(path) == route


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
def test_a_request_that_a_proxy_passed_on_needs_a_key(serve: Serve, header: str) -> None:
    api = serve(api_keys=["sq-test"])
    assert api.request("GET", "/metrics").status_code == 200
    assert api.request("GET", "/metrics", headers={header: "for=1.2.3.4"}).status_code == 401
    headers = {header: "for=1.2.3.4", **api.authorization()}
    assert api.request("GET", "/metrics", headers=headers).status_code == 200


def test_metrics_can_always_need_a_key_or_be_off(serve: Serve) -> None:
    api = serve(api_keys=["sq-test"], metrics="key")
    assert api.request("GET", "/metrics").status_code == 401
    assert api.request("GET", "/metrics", headers=api.authorization()).status_code == 200
    off = serve(metrics="off").request("GET", "/metrics")
    assert off.status_code == 501
    with pytest.raises(UsageError, match='"loopback", "key" or "off"'):
        LocalServer(metrics="public")  # type: ignore[arg-type] # as users may


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.startswith("prometheus_client") or name == "langchain_sequrity.local.metrics":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with LocalServer() as server:
        reply = httpx.get(f"{server.base_url}/metrics", trust_env=False)
    assert reply.status_code == 501
    assert "langchain-sequrity[gateway]" in reply.json()["message"]
