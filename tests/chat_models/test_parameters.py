"""Construction, environment, copies, pickles and secrets of the chat models."""

import copy
import io
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.load import dumpd, dumps, load, loads
from langchain_core.messages import AIMessage
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from pydantic import SecretStr, ValidationError

from langchain_sequrity import ChatSequrity, ConfigHeader, FeaturesHeader, PolicyHeader
from langchain_sequrity.errors import AuthenticationFailed, SequrityError, UsageError
from tests.chat_models.conftest import Service

Make = Callable[..., ChatSequrity]

KEY, LLM_KEY, HEADER_SECRET = "sq-secret-1", "llm-secret-2", "header-secret-3"
SECRETS = (KEY, LLM_KEY, HEADER_SECRET)
POLICY = 'tool "send" { must deny always; }'


@pytest.fixture(autouse=True)
def _no_keys_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SEQURITY_API_KEY", "SEQURITY_LLM_API_KEY", "SEQURITY_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def secretive(make_model: Make, **kwargs: Any) -> ChatSequrity:
    fields = {
        "api_key": KEY,
        "llm_api_key": LLM_KEY,
        "default_headers": {"X-Proxy-Token": HEADER_SECRET},
    }
    return make_model(**{**fields, **kwargs})


# Keys, addresses and other arguments


def test_keys_and_address_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQURITY_API_KEY", KEY)
    monkeypatch.setenv("SEQURITY_LLM_API_KEY", LLM_KEY)
    monkeypatch.setenv("SEQURITY_BASE_URL", "https://gateway.example/")
    model = ChatSequrity("m")
    assert isinstance(model.api_key, SecretStr)
    assert model.api_key.get_secret_value() == KEY
    assert isinstance(model.llm_api_key, SecretStr)
    assert model.llm_api_key.get_secret_value() == LLM_KEY
    assert model.base_url == "https://gateway.example"


def test_an_empty_address_in_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQURITY_BASE_URL", "")
    assert ChatSequrity("m", api_key=KEY).base_url == "https://api.sequrity.ai"


def test_keys_of_other_vendors_in_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, service: Service, make_model: Make
) -> None:
    for name in ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "sk-other")
    service.answer()
    make_model().invoke("x")
    assert "x-api-key" not in service.requests[0].headers


def test_the_error_of_a_missing_key_names_the_environment_variable() -> None:
    with pytest.raises(UsageError, match="SEQURITY_API_KEY"):
        ChatSequrity("m")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9", "localhost:9", "[::1]:9", "127.1.2.3", "x.localhost"]
)
def test_a_loopback_address_needs_no_key(service: Service, make_model: Make, host: str) -> None:
    service.answer()
    make_model(api_key=None, base_url=f"http://{host}").invoke("x")
    assert service.requests[0].headers["authorization"] == "Bearer local"


@pytest.mark.parametrize(
    "base_url",
    ["https://api.example", "https://api.example/", "https://api.example/control",
     "https://api.example/control/"],
)  # fmt: skip
def test_an_address_may_end_with_a_slash_or_with_control(
    service: Service, make_model: Make, base_url: str
) -> None:
    service.answer()
    make_model(base_url=base_url).invoke("x")
    assert str(service.requests[0].url) == "https://api.example/control/chat/v1/chat/completions"


@pytest.mark.parametrize(
    ("base_url", "word"),
    [("api.example", "http"), ("ftp://api.example", "http"), ("https://", "http"),
     ("https://user:pw@api.example", "credentials"), ("https://api.example?x=1", "query"),
     ("http://api.example", "allow_http")],
)  # fmt: skip
def test_an_invalid_or_unsafe_base_url_is_refused(
    make_model: Make, base_url: str, word: str
) -> None:
    with pytest.raises(UsageError, match=word) as caught:
        make_model(base_url=base_url)
    assert "pw@" not in str(caught.value)


def test_plain_http_to_other_hosts_works_with_allow_http(
    service: Service, make_model: Make
) -> None:
    service.answer()
    assert make_model(base_url="http://10.0.0.7", allow_http=True).invoke("x").text == "Hi"


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "kéy", "tab\t", "nul\0"])
@pytest.mark.parametrize("name", ["api_key", "llm_api_key"])
def test_a_key_that_cannot_be_a_header_is_refused_and_not_shown(
    make_model: Make, name: str, key: str
) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        make_model(**{name: key})
    assert not key or key not in str(caught.value)


OF_THE_MODEL = [
    "policy", "features", "session_config", "base_url", "api_key", "llm_api_key", "on_denied",
    "strict_policy", "provider", "endpoint_type", "timeout", "max_retries", "streaming",
    "default_headers", "model_kwargs", "extra_body",
]  # fmt: skip


@pytest.mark.parametrize("name", OF_THE_MODEL)
def test_an_argument_of_the_model_in_model_kwargs_is_refused(make_model: Make, name: str) -> None:
    text = rf"`model_kwargs` has `{name}`, .* write `[A-Za-z]+\(…, {name}=…\)`\."
    with pytest.raises(UsageError, match=text):
        make_model(model_kwargs={name: "x"})


def test_body_fields_in_model_kwargs_are_kept(make_model: Make) -> None:
    model = make_model(model_kwargs={"metadata": {"a": "b"}, "top_k": 3, "custom": 1})
    assert model.model_kwargs["metadata"] == {"a": "b"}


def test_a_misspelt_argument_is_refused_with_the_nearest_name(make_model: Make) -> None:
    with pytest.raises(UsageError, match="Did you mean `policy`"):
        make_model(polciy=POLICY)
    with pytest.raises(UsageError, match="model_kwargs"):
        make_model(zzz=1)


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 3), ("top_p", 2), ("max_tokens", 0), ("max_retries", -1), ("n", 0),
     ("endpoint_type", "chats"), ("on_denied", "ignore"), ("reasoning_effort", "much")],
)  # fmt: skip
def test_wrong_values_are_refused(make_model: Make, field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        make_model(**{field: value})


def test_the_refusal_of_a_provider_lists_those_that_serve_the_format(
    make_model: Make,
) -> None:
    with pytest.raises(UsageError, match="messages: None, anthropic"):
        make_model(provider="anthropic")


def test_a_lang_graph_call_needs_a_program(service: Service, make_model: Make) -> None:
    model = make_model(endpoint_type="lang-graph")
    with pytest.raises(UsageError, match="user_provided_program"):
        model.invoke("x")
    assert service.requests == []


# The three headers


def test_headers_are_accepted_in_every_form(
    service: Service, make_model: Make, tmp_path: Path
) -> None:
    file = tmp_path / "policy.sqrt"
    file.write_text(POLICY)

    class FromSdk:
        def dump_for_headers(self, mode: str = "json") -> dict[str, Any]:  # noqa: ARG002
            return {"codes": {"code": POLICY, "language": "sqrt"}}

    for policy in (POLICY, file, {"codes": POLICY}, PolicyHeader.from_sqrt(POLICY), FromSdk()):
        service.answer()
        make_model(policy=policy).invoke("x")
        assert "must deny always" in service.requests[-1].headers["x-policy"]
    service.answer()
    make_model(
        features=FeaturesHeader(agent_arch="single-llm"), session_config={"fsm": {"max_n_turns": 3}}
    ).invoke("x")
    headers = service.requests[-1].headers
    assert headers["x-features"] == '{"agent_arch":"single-llm"}'
    assert headers["x-config"] == '{"fsm":{"max_n_turns":3}}'


def test_an_object_that_is_not_a_header_is_refused(make_model: Make) -> None:
    with pytest.raises(UsageError, match="X-Policy"):
        make_model(policy=7)
    with pytest.raises(UsageError, match="max_n_turns"):
        make_model(session_config={"fsm": {"max_turns": 3}})


def test_a_long_header_is_refused_before_anything_is_sent(
    service: Service, make_model: Make
) -> None:
    with pytest.raises(UsageError, match=r"`X-Policy` would be \d+ bytes .*`max_header_bytes`"):
        make_model(policy=f'let x = {{"{"y" * 9000}"}};')
    make_model(policy=f'let x = {{"{"y" * 9000}"}};', max_header_bytes=16_384)
    with pytest.raises(UsageError, match="`X-Note`"):
        make_model().invoke("x", extra_headers={"X-Note": "y" * 9000})
    assert service.requests == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-A", "line\r\nbreak"), ("X A", "v"), ("X-A", "ü"), ("", "v"), ("X-A:", "v"),
     ("Authorization", "Bearer other"), ("x-api-key", "other"), ("Content-Type", "text/plain")],
)  # fmt: skip
def test_an_invalid_header_of_the_caller_is_refused(
    make_model: Make, name: str, value: str
) -> None:
    with pytest.raises(UsageError):
        make_model().invoke("x", extra_headers={name: value})
    with pytest.raises(UsageError):
        make_model(default_headers={name: value})


def test_a_session_id_in_default_headers_is_refused(make_model: Make) -> None:
    with pytest.raises(UsageError, match="session_id"):
        make_model(default_headers={"X-Session-ID": "s1"})


def test_headers_of_a_call_have_priority_and_the_given_dicts_stay_unchanged(
    service: Service, make_model: Make
) -> None:
    default, extra = {"X-Trace": "a", "X-Team": "t"}, {"x-trace": "b"}
    service.answer()
    make_model(default_headers=default).invoke("x", extra_headers=extra)
    headers = service.requests[0].headers
    assert (headers.get_list("x-trace"), headers["x-team"]) == (["b"], "t")
    assert (default, extra) == ({"X-Trace": "a", "X-Team": "t"}, {"x-trace": "b"})


# Copies and pickles


@pytest.mark.parametrize("used", [False, True])
def test_copies_work_before_and_after_use(service: Service, make_model: Make, used: bool) -> None:
    model = secretive(make_model)
    if used:
        service.answer()
        model.invoke("x")
    for other in (copy.copy(model), copy.deepcopy(model), model.model_copy(deep=True)):
        service.answer()
        other.invoke("x")
        headers = service.requests[-1].headers
        assert headers["authorization"] == f"Bearer {KEY}"
        assert headers["x-proxy-token"] == HEADER_SECRET


@pytest.mark.parametrize("used", [False, True])
def test_a_copy_with_updates_uses_the_new_values(
    service: Service, make_model: Make, used: bool
) -> None:
    model = secretive(make_model)
    if used:
        service.answer()
        model.invoke("x")
    other = model.model_copy(
        update={"base_url": "https://other.example/", "model": "n", "policy": POLICY}
    )
    service.answer()
    other.invoke("x")
    request = service.requests[-1]
    assert request.url.host == "other.example"
    assert service.bodies[-1]["model"] == "n"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert "must deny" in request.headers["x-policy"]
    assert dumpd(other) != dumpd(model)
    with pytest.raises(UsageError):
        model.model_copy(update={"provider": "anthropic"})


def test_a_changed_field_takes_effect(service: Service, make_model: Make) -> None:
    model = make_model()
    service.answer()
    model.invoke("x")
    model.temperature = 0.5
    service.answer()
    model.invoke("x")
    assert [body.get("temperature") for body in service.bodies] == [None, 0.5]


@pytest.mark.parametrize("used", [False, True])
def test_a_pickle_contains_no_key_and_unpickling_reads_it_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, used: bool
) -> None:
    model = ChatSequrity("m", api_key=KEY, llm_api_key=LLM_KEY, policy=POLICY)
    if used:
        assert model._identifying_params["model"] == "m"
    data = pickle.dumps(model)
    assert not any(secret.encode() in data for secret in SECRETS)
    with pytest.raises(UsageError, match="llm_api_key"):
        pickle.loads(data).invoke("x")
    monkeypatch.setenv("SEQURITY_LLM_API_KEY", LLM_KEY)
    with pytest.raises(UsageError, match="SEQURITY_API_KEY"):
        pickle.loads(data).invoke("x")
    monkeypatch.setenv("SEQURITY_API_KEY", KEY)
    restored = pickle.loads(data)
    assert restored._ready.settings.connection == model._ready.settings.connection


def test_fields_that_a_pickle_dropped_must_be_given_again(
    monkeypatch: pytest.MonkeyPatch, service: Service, make_model: Make
) -> None:
    monkeypatch.setenv("SEQURITY_API_KEY", KEY)
    model = make_model(default_headers={"X-Proxy-Token": HEADER_SECRET})
    restored: ChatSequrity = pickle.loads(pickle.dumps(model))
    with pytest.raises(UsageError, match=r"`default_headers`, `http_client`, `http_async_client`"):
        restored.invoke("x")
    partly = restored.model_copy(
        update={"http_client": model.http_client, "http_async_client": None}
    )
    with pytest.raises(UsageError, match="`default_headers`"):
        partly.invoke("x")
    service.answer()
    whole = partly.model_copy(update={"default_headers": {}})
    assert whole.invoke("x").text == "Hi"


# Secrets


@pytest.mark.parametrize("length", range(6, 11))
def test_a_header_value_of_eight_characters_or_more_is_masked_and_a_shorter_one_is_not(
    length: int, service: Service, make_model: Make
) -> None:
    value = "Zq3xW9kVb2"[:length]
    model = make_model(default_headers={"X-Proxy-Token": value})
    service.answer(status=401, body={"detail": f"Bad token: {value}", "sent": {"token": value}})
    with pytest.raises(AuthenticationFailed) as caught:
        model.invoke("x")
    is_shown = length < 8
    assert (value in str(caught.value)) is is_shown
    assert (value in str(caught.value.body)) is is_shown


class KeepAll(BaseTracer):
    """Stores every run that a tracer would send."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.runs.append(run)


def test_no_secret_is_shown_anywhere(
    service: Service, make_model: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    model = secretive(make_model)
    tracer = KeepAll()
    service.answer()
    model.invoke("x", {"callbacks": [tracer]})
    echo = {"detail": f"Bad key: Bearer {KEY} / {LLM_KEY}", "sent": {"x-api-key": LLM_KEY}}
    service.answer(status=401, body=echo)
    with pytest.raises(AuthenticationFailed) as caught:
        model.invoke("x", {"callbacks": [tracer]})
    shown = io.StringIO()
    print(repr(model), str(model), dumps(model), model.model_dump_json(exclude={"profile"}),
          model._identifying_params, file=shown)  # fmt: skip
    print(
        [run.model_dump_json() for run in tracer.runs],
        [run.error for run in tracer.runs],
        file=shown,
    )
    error: BaseException | None = caught.value
    while error is not None:
        print(repr(error), vars(error), file=shown)
        error = error.__cause__ or error.__context__
    print(pickle.dumps(caught.value), caplog.text, file=shown)
    assert len(tracer.runs) == 2
    assert not [secret for secret in SECRETS if secret in shown.getvalue()]
    assert "***" in str(caught.value)


def test_a_wrong_argument_does_not_show_its_value(make_model: Make) -> None:
    with pytest.raises((ValidationError, SequrityError)) as caught:
        make_model(default_headers=[HEADER_SECRET])
    assert HEADER_SECRET not in str(caught.value)


@pytest.mark.filterwarnings("ignore:The function `load:langchain_core._api.LangChainBetaWarning")
def test_dumps_and_loads_restore_the_same_model(
    monkeypatch: pytest.MonkeyPatch, make_model: Make
) -> None:
    model = ChatSequrity(
        "p,w", api_key=KEY, llm_api_key=LLM_KEY, policy=POLICY, temperature=0.5, stop=["x"],
        features={"agent_arch": "dual-llm"}, session_config={"fsm": {"max_n_turns": None}},
    )  # fmt: skip
    text = dumps(model)
    assert not any(secret in text for secret in SECRETS)
    monkeypatch.setenv("SEQURITY_API_KEY", KEY)
    monkeypatch.setenv("SEQURITY_LLM_API_KEY", LLM_KEY)
    for objects in ([ChatSequrity], "all"):
        allowed: Any = {"allowed_objects": objects, "secrets_from_env": True}
        for restored in (loads(text, **allowed), load(dumpd(model), **allowed)):
            assert type(restored) is ChatSequrity
            assert dumpd(restored) == dumpd(model)
            assert restored._ready.settings.connection == model._ready.settings.connection
    assert dumpd(make_model(policy=POLICY)) != dumpd(make_model())


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_loads_refuses_a_model_that_the_caller_does_not_allow() -> None:
    text = dumps(ChatSequrity("m", api_key=KEY))
    refused: list[Any] = [[AIMessage], "core", "messages"]
    for objects in refused:
        with pytest.raises(ValueError, match="not allowed"):
            loads(text, allowed_objects=objects)


def test_the_name_of_the_model_has_the_names_of_other_chat_models() -> None:
    model = ChatSequrity("a/b", api_key=KEY)
    assert model.model == model.model_name == "a/b"
    assert model.model_copy(update={"model": "c"}).model == "c"


def test_two_policies_never_share_a_cache_key(make_model: Make) -> None:
    first, second = make_model(), make_model(policy=POLICY)
    assert first._get_llm_string() != second._get_llm_string()
    assert first._identifying_params != second._identifying_params


def test_the_cache_is_off_by_default(make_model: Make) -> None:
    assert make_model().cache is False


def test_the_repr_of_a_model_shows_the_fields_of_its_headers(make_model: Make) -> None:
    model = make_model(session_config=ConfigHeader(fsm={"max_n_turns": 3}))  # type: ignore[arg-type]
    assert "max_n_turns=3" in repr(model)


def test_an_injected_client_is_not_closed(service: Service) -> None:
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        model = ChatSequrity("m", api_key=KEY, http_client=client)
        service.answer()
        model.invoke("x")
        model.close()
        assert not client.is_closed
        service.answer()
        assert model.invoke("x").text == "Hi"
