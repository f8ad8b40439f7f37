"""Settings of a model in places where LangChain drops them: they are refused, or they stay."""

import asyncio
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.runnables import ConfigurableField, RunnableLambda

from langchain_sequrity import ChatSequrity, PolicyGenTool, SequrityMessages, sqrt
from langchain_sequrity.errors import PolicyDenied, ServiceError, UsageError
from langchain_sequrity.headers import ConfigHeader, FeaturesHeader, FsmConfig, PolicyHeader
from langchain_sequrity.local import LocalServer

POLICY = 'tool "send" { must deny always; }'
SETTINGS: dict[str, Any] = {
    "policy": POLICY,
    "features": {"agent_arch": "dual-llm"},
    "session_config": {"fsm": {"max_n_turns": 3}},
    "on_denied": "message",
    "on_session_lost": "restart",
    "on_session_expired": "restart",
    "strict_policy": True,
}
LOCAL = "http://127.0.0.1:8787"
HEADERS = {"X-Policy": PolicyHeader.from_sqrt(POLICY).to_header()}


def send(to: str) -> str:
    """Send a mail."""
    return f"sent to {to}"


def bound(model: Any) -> Any:
    return model.bind_tools([send])


def ask(model: Any, **config: Any) -> Any:
    return model.invoke([HumanMessage("send 'eve'")], config=config)


def agent_with(model: Any, **options: Any) -> Any:
    return create_agent(model, [send], **options)


PLACES: dict[str, Callable[[Any, str, Any], Any]] = {
    "bind": lambda model, name, value: model.bind(**{name: value}),
    "bind, bind_tools": lambda model, name, value: bound(model.bind(**{name: value})),
    "bind_tools, bind": lambda model, name, value: bound(model).bind(**{name: value}),
    "bind_tools": lambda model, name, value: model.bind_tools([send], **{name: value}),
    "bind twice": lambda model, name, value: model.bind(stop=["x"]).bind(**{name: value}),
    "create_agent": lambda model, name, value: agent_with(model.bind(**{name: value})),
    "with_config": lambda model, name, value: model.with_config(**{name: value}),
    "with_config of bound": lambda model, name, value: bound(model).with_config({name: value}),
    "structured": lambda model, name, value: model.with_structured_output(
        {"title": "Answer", "type": "object", "properties": {}}, **{name: value}
    ),
    "config": lambda model, name, value: ask(bound(model), **{name: value}),
    "call": lambda model, name, value: bound(model).invoke("send 'eve'", **{name: value}),
    "configurable": lambda model, name, value: ask(bound(model), configurable={name: value}),
    "with_config configurable": lambda model, name, value: model.with_config(
        configurable={name: value}
    ),
    "configurable of a run": lambda model, name, value: ask(
        RunnableLambda(lambda _: bound(model).invoke("send 'eve'")), configurable={name: value}
    ),
    "configurable of an agent": lambda model, name, value: agent_with(model).invoke(
        {"messages": "send 'eve'"}, {"configurable": {name: value}}
    ),
    "extra_body": lambda model, name, value: ask(bound(model).bind(extra_body={name: value})),
    "extra_body of the model": lambda model, name, value: model.model_copy(
        update={"extra_body": {name: value}}
    ),
    "model_kwargs": lambda model, name, value: model.model_copy(
        update={"model_kwargs": {name: value}}
    ),
}


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with LocalServer() as server:
        yield server.base_url


@pytest.mark.parametrize("model_class", [ChatSequrity, SequrityMessages])
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("place", PLACES)
def test_a_setting_is_refused_where_it_would_have_no_effect(
    base_url: str, place: str, name: str, model_class: Any
) -> None:
    model = model_class("any/model", base_url=base_url)
    with pytest.raises(UsageError, match=f"`{name}`"):
        PLACES[place](model, name, SETTINGS[name])


@pytest.mark.parametrize("model_class", [ChatSequrity, SequrityMessages])
@pytest.mark.parametrize(
    ("written", "name"),
    [("polcy", "policy"), ("Policy", "policy"), ("onDenied", "on_denied"), ("feature", "features")],
)
@pytest.mark.parametrize("place", PLACES)
def test_a_misspelt_setting_is_refused_too(
    base_url: str, place: str, written: str, name: str, model_class: Any
) -> None:
    model = model_class("any/model", base_url=base_url)
    with pytest.raises(UsageError, match=f"`{written}` seems to be `{name}`, which belongs"):
        PLACES[place](model, written, SETTINGS[name])


@pytest.mark.parametrize("place", [place for place in PLACES if "config" in place])
def test_headers_with_a_policy_are_refused_in_a_config(base_url: str, place: str) -> None:
    model = ChatSequrity("any/model", base_url=base_url)
    with pytest.raises(UsageError, match="`extra_headers` with `X-Policy` has no effect"):
        PLACES[place](model, "extra_headers", HEADERS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("extra_headers", {"X-Tenant": "a"}),
        ("policy", "gold"),
        ("policy", {"tier": 1}),
        ("policy", None),
        ("policy", 7),
        ("policy", ["gold", 7]),
        ("policy", []),
        ("features", {"dark_mode": True}),
        ("features", ["beta"]),
        ("session_config", {"ttl": 60}),
        ("session_config", "short"),
    ],
)
def test_an_application_may_have_its_own_name_in_configurable(
    base_url: str, name: str, value: Any
) -> None:
    agent = agent_with(ChatSequrity("any/model", base_url=base_url))
    config: Any = {"configurable": {name: value}}
    assert agent.invoke({"messages": "Hello"}, config)["messages"][-1].text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("policy", "tool {"),
        ("policy", [POLICY]),
        ("policy", ["tool {", POLICY]),
        ("policy", ("gold", "tool {")),
        ("policy", sqrt.named("own", "tool {")),
        ("policy", [sqrt.named("own", "tool {")]),
        ("policy", sqrt.compile_policy(POLICY)),
        ("policy", Path("missing.sqrt")),
        ("policy", FeaturesHeader.dual_llm()),
        ("policy", {"codes": POLICY, "presetz": {}}),
        ("policy", {"code": POLICY}),
        ("features", {"agent_archh": "dual-llm"}),
        ("features", {"agent_arch": "dual"}),
        ("session_config", {"fsm": {"max_n_turnz": 3}}),
        ("session_config", PolicyHeader.from_sqrt(POLICY)),
    ],
)
def test_a_setting_with_a_mistake_is_refused_in_configurable(
    base_url: str, name: str, value: Any
) -> None:
    with pytest.raises(UsageError, match=f"`{name}`"):
        ask(ChatSequrity("any/model", base_url=base_url), configurable={name: value})


SCHEMA = {"title": "Answer", "type": "object", "properties": {}}
CHOOSING: dict[str, Callable[[Any, Any], Any]] = {
    "call": lambda model, config: model.invoke(
        "send 'eve'", config, tools=bound(ChatSequrity("a/b", base_url=LOCAL)).kwargs["tools"]
    ),
    "bind_tools": lambda model, config: bound(model).invoke("send 'eve'", config),
    "twice": lambda model, config: bound(bound(model)).invoke("send 'eve'", config),
    "bind": lambda model, config: bound(model.bind(stop=["q"])).invoke("send 'eve'", config),
    "with_config": lambda model, config: bound(model.with_config(config)).invoke("send 'eve'"),
    "with_config after": lambda model, config: (
        bound(model).with_config(config).invoke("send 'eve'")
    ),
    "structured": lambda model, config: model.with_structured_output(
        SCHEMA, tools=[send], include_raw=True
    ).invoke("send 'eve'", config),
    "batch": lambda model, config: bound(model).batch(["send 'eve'"] * 2, config),
    "stream": lambda model, config: list(bound(model).stream("send 'eve'", config)),
    "ainvoke": lambda model, config: asyncio.run(bound(model).ainvoke("send 'eve'", config)),
    "chain": lambda model, config: (bound(model) | RunnableLambda(str)).invoke(
        "send 'eve'", config
    ),
    "fallbacks": lambda model, config: bound(model.with_fallbacks([model])).invoke(
        "send 'eve'", config
    ),
    "nested": lambda model, config: (
        bound(model)
        .configurable_alternatives(ConfigurableField(id="other"), default_key="a", b=model)
        .invoke("send 'eve'", config)
    ),
    "further fields": lambda model, config: (
        bound(model.with_config(config))
        .configurable_fields(temperature=ConfigurableField(id="heat"))
        .invoke("send 'eve'")
    ),
    "pickled": lambda model, config: pickle.loads(pickle.dumps(bound(model))).invoke(
        "send 'eve'", config
    ),
    "agent": lambda model, config: agent_with(model).invoke({"messages": "send 'eve'"}, config),
}


@pytest.mark.parametrize("way", CHOOSING)
def test_an_alternative_with_a_policy_is_used_if_a_run_chooses_it(base_url: str, way: str) -> None:
    model = ChatSequrity("any/model", base_url=base_url)
    alternatives = model.configurable_alternatives(
        ConfigurableField(id="tenant"),
        default_key="free",
        strict=model.model_copy(update={"policy": POLICY}),
    )
    CHOOSING[way](alternatives, {"configurable": {"tenant": "free"}})
    with pytest.raises(PolicyDenied):
        CHOOSING[way](alternatives, {"configurable": {"tenant": "strict"}})


@pytest.mark.parametrize("field_id", ["policy", "tenant_policy"])
@pytest.mark.parametrize("way", CHOOSING)
def test_a_configured_policy_has_an_effect(base_url: str, way: str, field_id: str) -> None:
    model = ChatSequrity("any/model", base_url=base_url)
    fields: Any = model.configurable_fields(policy=ConfigurableField(id=field_id))
    with pytest.raises(PolicyDenied):
        CHOOSING[way](fields, {"configurable": {field_id: POLICY}})


WRAPPING: dict[str, Callable[[Any], Any]] = {
    "model": lambda model: model,
    "bind": lambda model: model.bind(stop=["q"]),
    "bind_tools": bound,
    "with_config": lambda model: model.with_config(tags=["a"]),
    "with_listeners": lambda model: model.bind(stop=["q"]).with_listeners(),
    "with_fallbacks": lambda model: model.with_fallbacks([model]),
    "bound, with_fallbacks": lambda model: bound(model).with_fallbacks([bound(model)]),
    "configurable_fields": lambda model: model.configurable_fields(
        temperature=ConfigurableField(id="heat")
    ),
    "configurable_alternatives": lambda model: model.configurable_alternatives(
        ConfigurableField(id="tenant"), default_key="a", b=model
    ),
}


@pytest.mark.parametrize("copied", ["model_copy", "copy"])
@pytest.mark.parametrize("way", WRAPPING)
def test_a_copy_with_a_policy_has_it(base_url: str, way: str, copied: str) -> None:
    wrapped = WRAPPING[way](ChatSequrity("any/model", base_url=base_url))
    copy = getattr(wrapped, copied)(update={"policy": POLICY})
    with pytest.raises(PolicyDenied):
        bound(copy).invoke("send 'eve'")
    assert bound(wrapped).invoke("send 'eve'").tool_calls


def test_a_copy_changes_the_alternatives_and_fallbacks_too(base_url: str) -> None:
    model = ChatSequrity("any/model", base_url=base_url)
    alternatives = model.configurable_alternatives(
        ConfigurableField(id="tenant"), default_key="a", b=model
    )
    copy: Any = bound(alternatives).model_copy(update={"policy": POLICY})
    with pytest.raises(PolicyDenied):
        copy.invoke("send 'eve'", {"configurable": {"tenant": "b"}})
    down = ChatSequrity("any/model", base_url="http://127.0.0.1:9", max_retries=0)
    copy = bound(down.with_fallbacks([model])).model_copy(update={"policy": POLICY})
    with pytest.raises(PolicyDenied):
        copy.invoke("send 'eve'")


@pytest.mark.parametrize("name", SETTINGS)
def test_a_copy_refuses_a_setting_that_it_cannot_pass_on(base_url: str, name: str) -> None:
    model = ChatSequrity("any/model", base_url=base_url)
    other = FakeListChatModel(responses=["Hello"])
    lazy = model.configurable_alternatives(ConfigurableField(id="t"), b=lambda: model)
    for wrapped in (model | str, model.with_fallbacks([other]), lazy):
        unguarded: Any = wrapped
        with pytest.raises(UsageError, match=f"`{name}`"):
            unguarded.model_copy(update={name: SETTINGS[name]})


def test_a_copy_changes_the_fields_of_the_runnable_itself(base_url: str) -> None:
    model: Any = bound(ChatSequrity("any/model", base_url=base_url))
    copy = model.model_copy(update={"kwargs": {}, "policy": POLICY})
    assert not copy.kwargs
    assert copy.bound.policy
    assert model.kwargs


@pytest.mark.parametrize("way", ["sequence", "fallbacks", "alternatives", "raw"])
def test_a_runnable_of_models_refuses_settings_in_its_config(base_url: str, way: str) -> None:
    model = ChatSequrity("any/model", base_url=base_url)
    runnables: dict[str, Any] = {
        "sequence": model | str,
        "fallbacks": model.with_fallbacks([model]),
        "alternatives": model.configurable_alternatives(ConfigurableField(id="t"), b=model),
        "raw": model.with_structured_output(SCHEMA, include_raw=True),
    }
    with pytest.raises(UsageError, match="`policy`"):
        runnables[way].with_config(policy=POLICY)
    with pytest.raises(UsageError, match="`policy`"):
        runnables[way].bind(policy=POLICY)


KEEPING: dict[str, Callable[[Any], Any]] = {
    "bind_tools": bound,
    "twice": lambda model: bound(bound(model)),
    "config": lambda model: bound(model.with_config(tags=["a"])),
    "structured": lambda model: model.with_structured_output(
        {"title": "Answer", "type": "object", "properties": {}}, tools=[send]
    ),
    "pickled": lambda model: bound(pickle.loads(pickle.dumps(model))),
    "agent": lambda model: RunnableLambda(
        lambda text: agent_with(model).invoke({"messages": text})
    ),
}


@pytest.mark.parametrize("way", KEEPING)
def test_what_is_bound_stays_when_tools_or_a_schema_are_bound(base_url: str, way: str) -> None:
    model = ChatSequrity("any/model", base_url=base_url).bind(extra_headers=HEADERS)
    with pytest.raises(PolicyDenied):
        KEEPING[way](model).invoke("send 'eve'")


TRACE = {"X-Trace": "1"}
BODY = {"service_tier": "flex"}


@wrap_model_call
def trace(request: Any, handler: Any) -> Any:
    return handler(request.override(model_settings={"extra_headers": TRACE, "extra_body": BODY}))


async def first_of(chunks: Any) -> Any:
    return [chunk async for chunk in chunks]


ADDING: dict[str, Callable[[Any], Any]] = {
    "bind": lambda model: bound(model.bind(extra_headers=TRACE)).invoke("send 'eve'"),
    "bind after tools": lambda model: bound(model).bind(extra_headers=TRACE).invoke("send 'eve'"),
    "bind_tools": lambda model: model.bind_tools([send], extra_headers=TRACE).invoke("send 'eve'"),
    "invoke": lambda model: bound(model).invoke("send 'eve'", extra_headers=TRACE),
    "invoke of a config": lambda model: (
        bound(model).with_config(tags=["a"]).invoke("send 'eve'", extra_headers=TRACE)
    ),
    "no headers": lambda model: bound(model).invoke("send 'eve'", extra_headers=None),
    "ainvoke": lambda model: asyncio.run(bound(model).ainvoke("send 'eve'", extra_headers=TRACE)),
    "batch": lambda model: bound(model).batch(["send 'eve'"], extra_headers=TRACE),
    "abatch": lambda model: asyncio.run(bound(model).abatch(["send 'eve'"], extra_headers=TRACE)),
    "stream": lambda model: list(bound(model).stream("send 'eve'", extra_headers=TRACE)),
    "astream": lambda model: asyncio.run(
        first_of(bound(model).astream("send 'eve'", extra_headers=TRACE))
    ),
    "transform": lambda model: list(
        bound(model).transform(iter(["send 'eve'"]), extra_headers=TRACE)
    ),
    "chain": lambda model: (bound(model) | RunnableLambda(str)).invoke(
        "send 'eve'", extra_headers=TRACE
    ),
    "fallbacks": lambda model: (
        bound(model).with_fallbacks([bound(model)]).invoke("send 'eve'", extra_headers=TRACE)
    ),
    "agent": lambda model: agent_with(model, middleware=[trace]).invoke({"messages": "send 'eve'"}),
}


@pytest.mark.parametrize("way", ADDING)
def test_a_further_header_does_not_remove_a_bound_policy(base_url: str, way: str) -> None:
    model = ChatSequrity("any/model", base_url=base_url).bind(extra_headers=HEADERS)
    with pytest.raises(PolicyDenied):
        ADDING[way](model)


def test_of_one_header_and_one_field_the_later_value_is_sent() -> None:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(500)

    client = httpx.Client(transport=httpx.MockTransport(answer))
    model = ChatSequrity("any/model", base_url=LOCAL, http_client=client, max_retries=0)
    first = model.bind(
        extra_headers={"X-Trace": "1", "X-Team": "a", "X-Session-ID": "old"},
        extra_body={"seed": 1, "user": "a"},
    )
    second = first.bind(extra_headers={"x_trace": "2"}, extra_body={"seed": 2})
    with pytest.raises(ServiceError):
        second.invoke("x", extra_headers={"X-TRACE": "3"}, extra_body={"n": 1}, session_id="new")
    [sent] = requests
    assert sent.headers.get_list("x-trace") == ["3"]
    assert sent.headers["x-team"] == "a"
    assert "x-session-id" not in sent.headers
    assert sent.read().count(b'"seed":2') == 1
    assert b'"user":"a"' in sent.content
    assert b'"n":1' in sent.content


def test_a_choice_of_a_tool_may_be_bound_twice(base_url: str) -> None:
    model = ChatSequrity("any/model", base_url=base_url).bind(tool_choice="auto")
    twice = model.bind_tools([send], tool_choice="any").bind_tools([send], tool_choice="send")
    assert twice.invoke("send 'eve'").tool_calls


def test_a_policy_generator_sends_the_bound_headers() -> None:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(500)

    client = httpx.Client(transport=httpx.MockTransport(answer))
    model = ChatSequrity(
        "any/model",
        base_url=LOCAL,
        http_client=client,
        max_retries=0,
        default_headers={"X-Gateway": "old", "X-Team": "a"},
    )
    features = FeaturesHeader.dual_llm().to_header()
    headers = {**HEADERS, "X-Features": features, "X-Session-ID": "old", "x-gateway": "new"}
    headers["X-Config"] = '{"fsm": {"max_n_turns": 3}}'
    outer = bound(model.bind(extra_headers=headers)).with_config(tags=["a"])
    with pytest.raises(ServiceError):
        PolicyGenTool(outer.bind(extra_headers=TRACE)).generate("No mail.")
    [sent] = requests
    assert sent.headers.get_list("x-gateway") == ["new"]
    assert (sent.headers["x-team"], sent.headers["x-trace"]) == ("a", "1")
    assert not {"x-policy", "x-features", "x-config", "x-session-id"} & sent.headers.keys()
    generator = PolicyGenTool(outer)
    assert generator.model.features == FeaturesHeader.dual_llm()
    assert generator.model.session_config == ConfigHeader(fsm=FsmConfig(max_n_turns=3))
