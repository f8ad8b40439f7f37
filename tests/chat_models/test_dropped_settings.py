"""Settings of a model in places where LangChain drops them: they are refused, or they stay."""

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.runnables import ConfigurableField, RunnableLambda

from langchain_sequrity import ChatSequrity, SequrityMessages
from langchain_sequrity.errors import PolicyDenied, UsageError
from langchain_sequrity.headers import PolicyHeader
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
HEADERS = {"X-Policy": PolicyHeader.from_sqrt(POLICY).to_header()}


def send(to: str) -> str:
    """Send a mail."""
    return f"sent to {to}"


def bound(model: Any) -> Any:
    return model.bind_tools([send])


def ask(model: Any, **config: Any) -> Any:
    return model.invoke([HumanMessage("send 'eve'")], config=config)


def agent_with(model: Any) -> Any:
    return create_agent(model, [send])


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


@pytest.mark.parametrize("policy", ["gold", {"tier": 1}, None, 7])
def test_an_application_may_have_its_own_name_in_configurable(base_url: str, policy: Any) -> None:
    agent = agent_with(ChatSequrity("any/model", base_url=base_url))
    config: Any = {"configurable": {"policy": policy}}
    assert agent.invoke({"messages": "Hello"}, config)["messages"][-1].text


def test_a_policy_text_with_a_mistake_is_refused_in_configurable(base_url: str) -> None:
    with pytest.raises(UsageError, match="`policy`"):
        ask(ChatSequrity("any/model", base_url=base_url), configurable={"policy": "tool {"})


def test_a_configurable_policy_has_an_effect_or_is_refused(base_url: str) -> None:
    model = ChatSequrity("any/model", base_url=base_url)
    configurable: Any = model.configurable_fields(policy=ConfigurableField(id="policy"))
    config: Any = {"configurable": {"policy": POLICY}}
    tools = bound(model).kwargs["tools"]
    with pytest.raises(PolicyDenied):
        configurable.invoke("send 'eve'", config, tools=tools)
    with pytest.raises(UsageError, match="`policy`"):  # LangChain drops it here
        bound(configurable).invoke("send 'eve'", config)


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
