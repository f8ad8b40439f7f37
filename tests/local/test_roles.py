"""A model for each role, in Python and on the command line."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_openai import ChatOpenAI

from langchain_sequrity import ChatSequrity, PolicyGenTool
from langchain_sequrity.errors import UsageError
from langchain_sequrity.gateway.models import chat_model
from langchain_sequrity.local import LocalServer
from tests.local.dual_llm.conversation import DUAL, SCHEMA

PROGRAM = f"""
answer = parse_with_ai(query="Read: Who?", output_schema={SCHEMA})
final_return_value = answer["answer"]
"""
SAYS = {
    "model": "I chat.",
    "planner": PROGRAM,
    "reader": '{"have_enough_info": true, "answer": "Ada"}',
    "policy": 'tool "pay" { must deny always; }',
}


def pay(euros: int) -> str:
    """Pay somebody."""
    return f"{euros} paid"


class Says(BaseChatModel):
    """Always gives the same answer, and counts its calls."""

    text: str
    times: int = 0

    @property
    def _llm_type(self) -> str:
        return "says"

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        self.times += 1
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.text))])


@pytest.fixture
def cast() -> dict[str, Says]:
    return {role: Says(text=text) for role, text in SAYS.items()}


@pytest.fixture
def base_url(cast: dict[str, Says]) -> Iterator[str]:
    models: Any = {role: one for role, one in cast.items() if role != "model"}
    with LocalServer(cast["model"], models=models) as server:
        yield server.base_url


def test_each_role_has_its_model(cast: dict[str, Says], base_url: str) -> None:
    dual = ChatSequrity("a/model", base_url=base_url, features=DUAL)
    assert dual.invoke("Who?").text == "Ada"
    assert ChatSequrity("a/model", base_url=base_url).invoke("Hello").text == "I chat."
    draft = PolicyGenTool(dual, tools=[pay]).generate("Nobody pays.")
    assert "must deny always" in str(draft)
    assert {role: one.times for role, one in cast.items()} == dict.fromkeys(SAYS, 1)


def test_a_role_without_its_own_model_uses_the_model_of_the_server(cast: dict[str, Says]) -> None:
    planner: Any = {"planner": Says(text="final_return_value = 'planned'")}
    with LocalServer(cast["model"], models=planner) as server:
        dual = ChatSequrity("a/model", base_url=server.base_url, features=DUAL)
        assert dual.invoke("Who?").text == "planned"
        assert ChatSequrity("a/model", base_url=server.base_url).invoke("Hello").text == "I chat."


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ({"writer": Says(text="")}, "`planner`, `reader`, `policy`; got ['writer']"),
        (
            {"planner": "openai:gpt-5"},
            "`models['planner']` must be a LangChain chat model; got `str`",
        ),
        ([Says(text="")], "must be a dict of chat models by role"),
    ],
)
def test_an_invalid_model_or_role_is_refused(models: Any, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        LocalServer(models=models)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("name", "model", "address"),
    [
        ("openai:gpt-5-mini", "gpt-5-mini", None),
        ("qwen@http://127.0.0.1:11434/v1", "qwen", "http://127.0.0.1:11434/v1"),
        ("http://127.0.0.1:8080/v1", "default", "http://127.0.0.1:8080/v1"),
    ],
)
def test_the_command_line_accepts_names_and_addresses_of_models(
    monkeypatch: pytest.MonkeyPatch, name: str, model: str, address: str | None
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    made = chat_model(name)
    assert isinstance(made, ChatOpenAI)
    assert (made.model_name, made.openai_api_base) == (model, address)
    key = made.openai_api_key
    assert not callable(key)
    assert key is not None
    # The key is sent only to its provider, never to another address.
    assert key.get_secret_value() == ("none" if address else "sk-of-openai")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gpt-5-mini", "is not the name of a model"),
        ("qwen@localhost", "is not the name of a model"),
        ("nobody:model", "cannot be created"),
        ("openai:gpt-5-mini", "the provider's key in the environment"),
    ],
)
def test_a_name_without_a_usable_model_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError) as caught:
        chat_model(name)
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["from", "class", "None", "first name", "a-b", "\ufb01", "to"])
def test_the_default_planner_calls_tools_with_arguments_of_any_name(name: str) -> None:
    schema = {"type": "object", "properties": {name: {"type": "string"}}, "required": [name]}
    with LocalServer() as server:
        model = ChatSequrity("any/model", base_url=server.base_url, features=DUAL)
        reply = model.bind_tools([{"name": "send", "parameters": schema}]).invoke("send 'this'")
    [call] = reply.tool_calls
    assert call["args"] == {name: "this"}
