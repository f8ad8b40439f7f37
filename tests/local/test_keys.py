"""Keys: digests, names, models, replacement while the server runs."""

from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel

from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import AuthenticationFailed, PolicyDenied, UsageError
from langchain_sequrity.local import ApiKey, LocalServer, RequestRecord
from langchain_sequrity.wire.routes import MODELS_ROUTES
from tests.local.api import Api, detail, said, tool
from tests.local.conftest import Serve
from tests.local.operated.serving import wait_until

DUAL = {"agent_arch": "dual-llm"}
DENY = 'tool "look_up" { must deny always; }'
CALL = {"tool_calls": [{"name": "look_up", "arguments": {"word": "x"}}]}
SINGLE = {"agent_arch": "single-llm"}


def answers(text: str) -> FakeListChatModel:
    return FakeListChatModel(responses=[text])


def with_key(api: Api, secret: str) -> Api:
    return Api(api.server, api.http, secret)


def test_a_new_key_is_accepted_and_the_server_knows_only_its_digest(serve: Serve) -> None:
    key, secret = ApiKey.new("alice")
    other, _ = ApiKey.new("bob")
    api = serve(api_keys=[key])
    assert key.digest.startswith("sha256:")
    assert len(secret) > 40
    assert other.digest != key.digest
    assert with_key(api, secret).chat("Hi").status_code == 200
    assert with_key(api, key.digest).chat("Hi").status_code == 401
    assert secret not in repr(key)


def test_the_record_of_a_request_has_the_name_of_its_key(serve: Serve) -> None:
    records: list[RequestRecord] = []
    api = serve(api_keys=[ApiKey.from_secret("sq-test", "alice")], on_request=records.append)
    api.chat("Hi")
    with_key(api, "sq-other").chat("Hi")
    serve(on_request=records.append).chat("Hi")
    wait_until(lambda: len(records) == 3, "three records, which come after the replies")
    assert [(record.status, record.key) for record in records] == [
        (200, "alice"), (401, ""), (200, "")
    ]  # fmt: skip


def test_texts_and_keys_can_be_given_together(serve: Serve) -> None:
    key, secret = ApiKey.new("alice")
    api = serve(api_keys=["sq-text", key])
    assert with_key(api, "sq-text").chat("Hi").status_code == 200
    assert with_key(api, secret).chat("Hi").status_code == 200


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"name": ""}, "name of a key is one line"),
        ({"name": "a\nb"}, "name of a key is one line"),
        ({"digest": "sha256:12"}, "digest of the key `alice` must be"),
        ({"turns_at_once": 0}, "`turns_at_once` of the key `alice`"),
        ({"memory_share": 101}, "`memory_share` of the key `alice` is a percentage"),
        ({"requests_per_minute": True}, "`requests_per_minute` of the key `alice`"),
        ({"models": "fast"}, "`models` of the key `alice` must be a list"),
        ({"policy": DENY}, "does not say for which architecture"),
        ({"policy": DENY, "features": {"content_blockers": []}}, "Set `agent_arch`"),
        ({"features": {"content_blockers": [{"name": "url_blocker"}]}}, "Set `agent_arch`"),
        ({"policy": "tool {", "features": DUAL}, "The policy of the key `alice`: "),
        (
            {"config": {"fsm": {"max_n_turn": 1}}},
            "The config of the key `alice`: .*Did you mean `max_n_turns`",
        ),
    ],
)
def test_an_invalid_key_is_an_error_that_names_it(options: dict[str, Any], problem: str) -> None:
    arguments = {"name": "alice", "digest": f"sha256:{'0' * 64}", **options}
    with pytest.raises(UsageError, match=problem):
        ApiKey(**arguments)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [(["sq-a", "sq-a"], "are the same"),
     ([ApiKey.from_secret("a", "x"), ApiKey.from_secret("b", "x")], "have the same name: `x`")],
)  # fmt: skip
def test_keys_that_cannot_be_told_apart_are_refused(keys: list[Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        LocalServer(api_keys=keys)


def test_replaced_keys_count_from_the_next_request_and_no_session_ends(serve: Serve) -> None:
    api = serve(api_keys=["sq-old", "sq-stays"])
    stays, old = with_key(api, "sq-stays"), with_key(api, "sq-old")
    session = stays.chat("Hi").headers["x-session-id"]
    assert old.chat("Hi").status_code == 200
    api.server.replace_keys(["sq-stays", "sq-new"])
    assert old.chat("Hi").status_code == 401
    assert with_key(api, "sq-new").chat("Hi").status_code == 200
    assert stays.chat("Go on", session=session).status_code == 200


@pytest.mark.parametrize("keys", [[], ["sq a"], ["sq-1", "sq-1"]])
def test_keys_that_cannot_be_used_leave_the_old_ones_in_force(
    serve: Serve, keys: list[str]
) -> None:
    api = serve(api_keys=["sq-test"])
    with pytest.raises(UsageError):
        api.server.replace_keys(keys)
    assert api.chat("Hi").status_code == 200
    assert with_key(api, "sq-1").chat("Hi").status_code == 401


def test_a_session_keeps_the_policy_with_which_it_began(serve: Serve) -> None:
    def key(policy: str) -> ApiKey:
        return ApiKey.from_secret("sq-test", "alice", policy=policy, features=SINGLE)

    api = serve(script=[CALL], api_keys=[key("")])
    first = api.chat("Look up x", tools=[tool()])
    session = first.headers["x-session-id"]
    assert said(first)["tool_calls"]
    api.server.replace_keys([key(DENY)])
    [call] = said(first)["tool_calls"]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "42"}
    asked = {"role": "user", "content": "Look up x"}
    again = api.chat(asked, said(first), result, session=session, tools=[tool()])
    assert said(again)["tool_calls"]
    assert "denied" in said(api.chat("Look up x", tools=[tool()]))["refusal"]


@pytest.mark.parametrize("features", [SINGLE, DUAL])
@pytest.mark.parametrize("policy", [None, 'tool "look_up" { should deny when word.value == "y"; }'])
def test_a_denial_names_the_policy_of_the_key(features: Any, policy: str | None) -> None:
    program = {"when": {"role": "planner"}, "program": "final_return_value = look_up(word='x')"}
    key, secret = ApiKey.new("alice", policy=f"/// house rule\n{DENY}", features=features)
    with LocalServer(script=[program, CALL], api_keys=[key]) as server:
        model = ChatSequrity(
            "any/model", base_url=server.base_url, api_key=secret, features=features, policy=policy
        ).bind_tools([tool()])
        with pytest.raises(PolicyDenied) as caught:
            model.invoke("Look up x")
    denial = caught.value.denial
    assert (denial.policy, denial.rule) == ("alice", "must deny always;")
    assert (denial.line, denial.column) == (None, None)  # the client does not have the text


def test_a_denial_by_the_clients_own_policy_has_the_place_in_its_text() -> None:
    key, secret = ApiKey.new("alice", policy='tool "other" { must deny always; }', features=SINGLE)
    policy = '// mine\n\ntool "look_up" {\n    must deny always;\n}'
    with LocalServer(script=[CALL], api_keys=[key]) as server:
        model = ChatSequrity(
            "any/model", base_url=server.base_url, api_key=secret, policy=policy,
            features=SINGLE,
        ).bind_tools([tool()])  # fmt: skip
        with pytest.raises(PolicyDenied) as caught:
            model.invoke("Look up x")
    denial = caught.value.denial
    assert (denial.policy, denial.line, denial.column) == (None, 4, 5)


# Models


def table() -> dict[str, Any]:
    strong = {
        "planner": answers("```python\nfinal_return_value = 'planned'\n```"),
        "chat": answers("strong"),
    }
    return {
        "strong": strong,
        "fast": {"chat": answers("fast")},
        "other": {"chat": answers("other")},
    }


def test_each_name_has_its_own_models_and_a_pair_has_those_of_both(serve: Serve) -> None:
    api = serve(model_table=table())
    assert said(api.chat("Hi", model="strong"))["content"] == "strong"
    assert said(api.chat("Hi", model="fast"))["content"] == "fast"
    headers = {"X-Features": '{"agent_arch": "dual-llm"}'}
    planned = api.chat("Hi", model="strong,fast", headers=headers)
    assert '"planned"' in said(planned)["content"]


@pytest.mark.parametrize("model", ["fats", "strong,fats", "fats,strong", "any/model"])
def test_a_name_that_is_not_listed_is_refused_with_the_list(serve: Serve, model: str) -> None:
    api = serve(model_table=table())
    reply = api.chat("Hi", model=model)
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "model_not_found"
    assert "Models are: `strong`, `fast`, `other`." in detail(reply)


def test_a_candidate_for_plans_is_checked_like_the_model(serve: Serve) -> None:
    api = serve(model_table=table(), api_keys=[ApiKey.from_secret("sq-test", "a", models=["fast"])])
    config = '{"fsm": {"pllm_candidate_models": ["strong"]}}'
    headers = {"X-Config": config, "X-Features": '{"agent_arch": "dual-llm"}'}
    assert api.chat("Hi", model="fast", headers=headers).status_code == 404


def test_a_key_sees_and_uses_only_its_models(serve: Serve) -> None:
    keys = [
        ApiKey.from_secret("sq-test", "a", models=["fast", "other"]),
        ApiKey.from_secret("sq-all", "b"),
    ]
    api = serve(model_table=table(), api_keys=keys)
    path = MODELS_ROUTES[0].path

    def names(secret: str) -> list[str]:
        reply = with_key(api, secret).request(
            "GET", path, headers={"Authorization": f"Bearer {secret}"}
        )
        return [row["id"] for row in reply.json()["data"]]

    assert names("sq-test") == ["fast", "other"]
    assert names("sq-all") == ["strong", "fast", "other"]
    assert api.chat("Hi", model="fast").status_code == 200
    refused = api.chat("Hi", model="strong")
    assert refused.status_code == 404
    assert "Models are: `fast`, `other`." in detail(refused)
    strong = api.request("GET", f"{path}/strong", headers=api.authorization())
    assert strong.status_code == 404
    assert with_key(api, "sq-all").chat("Hi", model="strong").status_code == 200


def test_a_key_can_be_limited_to_names_without_a_table(serve: Serve) -> None:
    api = serve(api_keys=[ApiKey.from_secret("sq-test", "a", models=["any/model"])])
    assert api.chat("Hi").status_code == 200
    assert api.chat("Hi", model="b").status_code == 404


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"model_table": {}}, "is empty"),
        ({"model_table": {"a,b": {"chat": answers("x")}}}, "cannot be the name of a model"),
        ({"model_table": {"a": {}}}, "needs a chat model"),
        ({"model_table": {"a": {"writer": answers("x")}}}, "at least one of `chat`"),
        ({"model_table": {"a": {"chat": "gpt"}}}, "must be a LangChain chat model"),
        ({"model_table": table(), "model": answers("x")}, "replaces `model`"),
    ],
)  # fmt: skip
def test_an_invalid_table_is_an_error_that_says_why(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        LocalServer(**options)


def test_clients_of_an_unknown_key_get_an_error_of_their_own_type(serve: Serve) -> None:
    api = serve(api_keys=[ApiKey.from_secret("sq-test", "a")])
    with pytest.raises(AuthenticationFailed):
        ChatSequrity("a/b", base_url=api.server.base_url, api_key="sq-other").invoke("Hi")
