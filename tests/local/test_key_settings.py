"""A key's own policy, features and configuration: what clients may add, and what is refused."""

import json
from collections.abc import Iterator
from typing import Any, TypedDict, get_args

import httpx
import pytest
from langgraph.graph import START, StateGraph

from langchain_sequrity import ChatSequrity, LangGraphExecutor
from langchain_sequrity.errors import PermissionDenied, PolicyDenied
from langchain_sequrity.headers import ConfigHeader, FeaturesHeader, HeaderModel, PolicyHeader
from langchain_sequrity.local import ApiKey, LocalServer
from langchain_sequrity.local.key_settings import FIELDS
from tests.local.api import Api, detail, said, tool
from tests.local.conftest import Serve

DENY = 'tool "look_up" { must deny when word.value == "x"; }'
SINGLE, DUAL = {"agent_arch": "single-llm"}, {"agent_arch": "dual-llm"}


class State(TypedDict, total=False):
    word: str


def calling(word: str) -> dict[str, Any]:
    return {"tool_calls": [{"name": "look_up", "arguments": {"word": word}}]}


def keyed(serve: Serve, script: Any = (), **settings: Any) -> Api:
    return serve(
        script=[*script, {"text": "Hi"}], api_keys=[ApiKey.from_secret("sq-test", "a", **settings)]
    )


def headers(**values: Any) -> dict[str, str]:
    return {f"X-{name.title()}": json.dumps(value) for name, value in values.items()}


def nested(path: str, value: Any) -> Any:
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def paths(model: type[HeaderModel], prefix: str = "") -> Iterator[str]:
    """The fields of a header, without those that have fields of their own."""
    for name in model.wire_names():
        annotation = model.model_fields[name].annotation
        sections = [part for part in (annotation, *get_args(annotation)) if is_section(part)]
        for section in sections:
            yield from paths(section, f"{prefix}{name}.")
        if not sections:
            yield f"{prefix}{name}"


def is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, HeaderModel)


@pytest.mark.parametrize("header", [PolicyHeader, FeaturesHeader, ConfigHeader])
def test_every_field_of_the_headers_is_in_the_table_and_no_other(header: type[Any]) -> None:
    assert set(paths(header)) == set(FIELDS[header.header_name])


# A value for each fixed field that differs from what a key leaves unset.
CHANGES: dict[str, Any] = {
    "fsm.clear_session_meta": "every_turn",
    "fsm.enable_multistep_planning": True,
    "fsm.enabled_internal_tools": ["set_policy"],
    "fsm.prune_failed_steps": False,
    "fsm.force_to_cache": ["look"],
    "fsm.reduced_grammar_for_rllm_review": "none",
    "fsm.retry_on_policy_violation": True,
    "fsm.offer_soft_denials": True,
    "fsm.wrap_tool_result": True,
    "fsm.detect_tool_errors": "regex",
    "fsm.detect_tool_error_regex_pattern": "x",
    "fsm.detect_tool_error_max_result_length": 1,
    "fsm.strict_tool_result_parsing": True,
    "fsm.tool_result_transform": "codex",
    "fsm.pllm_context_pruning": False,
    "prompt.pllm.debug_info_level": "extra",
    "prompt.pllm.context_var_visibility": "all",
    "prompt.pllm.query_inline_roles": ["tool"],
    "prompt.pllm.query_role_name_overrides": {"tool": "user"},
    "prompt.pllm.query_include_tool_calls": True,
    "prompt.pllm.query_include_tool_args": True,
    "prompt.pllm.query_include_tool_results": True,
    "prompt.rllm.debug_info_level": "extra",
}
_TEXTS = ("flavor", "version")
_NUMBERS = ("frequency_penalty", "presence_penalty", "temperature", "top_p")


def change(path: str) -> Any:
    name = path.rpartition(".")[2]
    counts = ("max_completion_tokens", "seed", "budget")
    general = {
        **dict.fromkeys(_TEXTS, "x"), **dict.fromkeys(_NUMBERS, 0.5), **dict.fromkeys(counts, 1),
        "logit_bias": {"1": 1}, "logprobs": True, "enabled": True, "adaptive": True,
        "effort": "low",
    }  # fmt: skip
    return CHANGES[path] if path in CHANGES else general[name]


FIXED = [path for path, rule in FIELDS["X-Config"].items() if rule.use == "fixed"]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Api]:
    key = ApiKey.from_secret("sq-test", "a", policy=DENY, features=DUAL)
    with (
        LocalServer(
            script=[{"program": "final_return_value = 1"}], api_keys=[key], isolated_programs=False
        ) as server,
        httpx.Client(timeout=10, trust_env=False) as http,
    ):
        yield Api(server, http, "sq-test")


@pytest.mark.parametrize("path", FIXED)
def test_a_fixed_field_of_the_configuration_is_refused_by_name(guarded: Api, path: str) -> None:
    reply = guarded.chat("Hi", headers=headers(config=nested(path, change(path))))
    assert reply.status_code == 403, reply.text
    assert f"`{path}` of `X-Config` is fixed by the settings of this key" in detail(reply)


@pytest.mark.parametrize(
    ("path", "value"),
    [(path, value) for path, rule in FIELDS["X-Config"].items() for value in rule.like_unset],
)
def test_the_value_that_an_unset_field_has_anyway_is_accepted(
    guarded: Api, path: str, value: Any
) -> None:
    reply = guarded.chat("Hi", headers=headers(config=nested(path, value)))
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    "config",
    [
        {"fsm": {"max_n_turns": 3, "max_pllm_steps": None, "history_mismatch_policy": "continue"}},
        {"response_format": {"include_program": True, "include_namespace_snapshot": True}},
        {"llm": {"pllm": {"max_completion_tokens": 10}}},
        {"fsm": None, "prompt": None},
    ],
)
def test_fields_that_weaken_nothing_are_the_clients(guarded: Api, config: Any) -> None:
    assert guarded.chat("Hi", headers=headers(config=config)).status_code == 200


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ({"mode": "strict"}, "`mode` of `X-Policy` is fixed"),
        ({"auto_gen": True}, "`auto_gen` of `X-Policy` is fixed"),
        ({"codes": {"code": "permit();", "language": "cedar"}}, "`codes.language` of `X-Policy`"),
        ({"presets": {"branching_meta_policy": {"mode": "allow"}}}, "branching_meta_policy.mode`"),
        ({"presets": {"enable_llm_blocked_tag": False}}, "protects less than the default"),
    ],
)
def test_a_policy_that_would_weaken_that_of_the_key_is_refused_by_name(
    guarded: Api, policy: Any, problem: str
) -> None:
    reply = guarded.chat("Hi", headers=headers(policy=policy))
    assert reply.status_code == 403
    assert problem in detail(reply)


def test_the_other_architecture_is_refused_and_the_same_is_accepted(guarded: Api) -> None:
    refused = guarded.chat("Hi", headers=headers(features=SINGLE))
    assert refused.status_code == 403
    assert "`agent_arch` of `X-Features` is fixed" in detail(refused)
    assert guarded.chat("Hi", headers=headers(features=DUAL)).status_code == 200


def test_a_refusal_is_an_exception_of_the_client(guarded: Api) -> None:
    model = ChatSequrity(
        "a/b", base_url=guarded.server.base_url, api_key="sq-test",
        features=SINGLE,
    )  # fmt: skip
    with pytest.raises(PermissionDenied, match="agent_arch"):
        model.invoke("Hi")


def test_a_clients_policy_adds_denials_and_its_allowances_lift_none(serve: Serve) -> None:
    script = [{"when": {"user": word}, **calling(word)} for word in ("x", "y", "z")]
    api = keyed(serve, script, policy=DENY, features=SINGLE)
    client = 'tool "look_up" { must deny when word.value == "y"; must allow when word.value in {"x", "z"}; }'
    sent = headers(policy={"codes": {"code": client}})

    def is_denied(word: str) -> bool:
        return bool(said(api.chat(word, headers=sent, tools=[tool()])).get("refusal"))

    assert [is_denied(word) for word in "xyz"] == [True, True, False]
    assert said(api.chat("x", tools=[tool()]))["refusal"]
    assert said(api.chat("y", tools=[tool()]))["tool_calls"]


def test_a_policy_that_removes_labels_that_the_keys_policy_tests_is_refused(serve: Serve) -> None:
    policy = 'tool "look_up" { must deny when "secret" in @session.tags; }'
    api = keyed(serve, policy=policy, features=SINGLE)
    client = 'tool "look_up" { session before { @tags -= {"secret"}; } }'
    reply = api.chat("Hi", headers=headers(policy={"codes": {"code": client}}))
    assert reply.status_code == 403
    text = detail(reply)
    assert "`X-Policy` cannot be added to the policy of this key." in text
    assert "can remove tags `secret`" in text


def test_later_requests_are_compared_with_what_the_client_sent(serve: Serve) -> None:
    api = keyed(serve, policy=DENY, features=SINGLE)
    sent = headers(policy={"codes": {"code": 'tool "b" { must deny always; }'}})
    session = api.chat("Hi", headers=sent).headers["x-session-id"]
    assert api.chat("Go on", session=session, headers=sent).status_code == 200
    assert api.chat("Go on", session=session).status_code == 200
    other = headers(policy={"codes": {"code": DENY}})
    assert api.chat("Go on", session=session, headers=other).status_code == 409


# Features


PII = {"name": "pii_redaction", "threshold": 0.5}
MAIL = {
    "tool_calls": [{"name": "look_up", "arguments": {"word": "ana@example.com http://a.example"}}]
}


@pytest.mark.parametrize(
    "features",
    [
        None, {}, {"content_classifiers": None}, {"content_blockers": []},
        {"content_classifiers": [{"name": "pii_redaction"}]},
        {"content_classifiers": [{"name": "pii_redaction", "mode": "strict"}]},
        {"content_classifiers": [{"name": "pii_redaction", "threshold": 0.2}]},
        {"content_classifiers": [{"name": "toxicity_filter"}]},
    ],
)  # fmt: skip
def test_a_classifier_of_the_key_stays_whatever_the_client_adds(
    serve: Serve, features: Any
) -> None:
    api = keyed(serve, [MAIL], features={**SINGLE, "content_classifiers": [PII]})
    sent = {} if features is None else headers(features=features)
    [call] = said(api.chat("Hi", headers=sent, tools=[tool()]))["tool_calls"]
    assert "REDACTED" in call["function"]["arguments"]


@pytest.mark.parametrize(
    "classifiers",
    [
        [],
        [{"name": "pii_redaction", "threshold": 0.9}],
        [{"name": "pii_redaction", "mode": "low sensitivity", "threshold": 0.1}],
    ],
)
def test_a_classifier_of_the_key_is_not_switched_off_or_made_less_sensitive(
    serve: Serve, classifiers: Any
) -> None:
    api = keyed(serve, features={**SINGLE, "content_classifiers": [PII]})
    reply = api.chat("Hi", headers=headers(features={"content_classifiers": classifiers}))
    assert reply.status_code == 403
    assert "`content_classifiers` of `X-Features`" in detail(reply)


def test_a_client_adds_a_blocker_to_that_of_the_key(serve: Serve) -> None:
    api = keyed(serve, [MAIL], features={**SINGLE, "content_classifiers": [PII]})
    sent = headers(features={"content_blockers": [{"name": "url_blocker"}]})
    [call] = said(api.chat("Hi", headers=sent, tools=[tool()]))["tool_calls"]
    arguments = call["function"]["arguments"]
    assert "a.example" not in arguments
    assert "ana@" not in arguments


# Configuration


def test_the_configuration_of_a_key_applies_and_a_client_may_set_what_weakens_nothing(
    serve: Serve,
) -> None:
    api = keyed(serve, config={"fsm": {"max_n_turns": 1}})
    session = api.chat("Hi").headers["x-session-id"]
    assert api.chat("Go on", session=session).status_code == 404
    sent = headers(config={"fsm": {"max_n_turns": 5}})
    session = api.chat("Hi", headers=sent).headers["x-session-id"]
    assert api.chat("Go on", session=session).status_code == 200


def test_a_fixed_field_that_the_key_sets_can_be_repeated_but_not_changed(serve: Serve) -> None:
    api = keyed(serve, config={"fsm": {"clear_session_meta": "every_turn"}})
    same = headers(config={"fsm": {"clear_session_meta": "every_turn"}})
    other = headers(config={"fsm": {"clear_session_meta": "never"}})
    assert api.chat("Hi", headers=same).status_code == 200
    refused = api.chat("Hi", headers=other)
    assert refused.status_code == 403
    assert "The key has another value" in detail(refused)


def test_a_key_without_settings_leaves_everything_to_the_client(serve: Serve) -> None:
    api = serve(
        script=[{"program": "final_return_value = 1"}],
        api_keys=[ApiKey.from_secret("sq-test", "a", turns_at_once=9)],
    )
    config = {"fsm": {"clear_session_meta": "every_turn", "enabled_internal_tools": []}}
    reply = api.chat("Hi", headers=headers(config=config, features=DUAL, policy={"mode": "strict"}))
    assert reply.status_code == 200


def test_a_graph_runs_beside_the_policy_of_its_key() -> None:
    def look_up(state: State) -> State:
        return {"word": state["word"] + "!"}

    graph = StateGraph(State)
    graph.add_node("look_up", look_up)
    graph.add_edge(START, "look_up")
    key, secret = ApiKey.new("alice", policy=DENY, features=DUAL)
    with LocalServer(api_keys=[key]) as server:
        executor = LangGraphExecutor(graph, "a/b", base_url=server.base_url, api_key=secret)
        assert executor.invoke({"word": "y"})["word"] == "y!"
        with pytest.raises(PolicyDenied) as caught:
            executor.invoke({"word": "x"})
    assert caught.value.policy == "alice"
