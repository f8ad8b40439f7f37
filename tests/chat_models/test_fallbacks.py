"""Fallbacks and retries: a failure of the service triggers them, a denial does not."""

import json
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda
from pydantic import BaseModel

from langchain_sequrity import ChatSequrity, SequrityMessages
from langchain_sequrity.errors import (
    ConnectionFailed,
    ForcedToolMissing,
    PolicyDenied,
    ProgramFailed,
    SequrityError,
    ServiceError,
    SessionExpired,
    TurnFailed,
    UsageError,
)
from tests.chat_models.conftest import completion
from tests.graph.apps.scripted import ScriptedModel

Made = Callable[[Any], Any]


class City(BaseModel):
    name: str


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"Rain in {city}."


# All runnables that LangChain makes from a model and that still call this model.
MADE: dict[str, Made] = {
    "the model": lambda model: model,
    "bind": lambda model: model.bind(stop=["x"]),
    "bind twice": lambda model: model.bind(stop=["x"]).bind(temperature=0.5),
    "bind_tools": lambda model: model.bind_tools([get_weather]),
    "with_config": lambda model: model.with_config(tags=["a"]),
    "bind_tools, with_config": lambda model: model.bind_tools([get_weather]).with_config(tags=["a"]),
    "with_types": lambda model: model.with_types(output_type=AIMessage),
    "with_listeners": lambda model: model.with_listeners(on_end=lambda _: None),
    "with_alisteners": lambda model: model.bind(stop=["x"]).with_alisteners(),
    "with_retry": lambda model: model.with_retry(stop_after_attempt=2),
    "bind, with_retry": lambda model: model.bind(stop=["x"]).with_retry(),
    "with_fallbacks": lambda model: model.with_fallbacks([model]),
    "with_fallbacks, bind_tools": lambda model: model.with_fallbacks([model]).bind_tools([get_weather]),
    "model | parser": lambda model: model | StrOutputParser(),
    "model | parser | function": lambda model: model | StrOutputParser() | str.upper,
    "function | model": lambda model: (lambda said: said) | model,
    "pipe": lambda model: model.pipe(StrOutputParser()),
    "sequence, with_config": lambda model: (model | StrOutputParser()).with_config(tags=["a"]),
    "sequence, bind": lambda model: (model | StrOutputParser()).bind(stop=["x"]),
    "configurable_fields": lambda model: model.configurable_fields(
        temperature=ConfigurableField(id="t")
    ),
    "configurable_alternatives": lambda model: model.configurable_alternatives(
        ConfigurableField(id="m"), other=model
    ),
    "json_schema": lambda model: model.with_structured_output(City),
    "function_calling": lambda model: model.with_structured_output(City, method="function_calling"),
    "json_mode": lambda model: model.with_structured_output(City, method="json_mode"),
    "include_raw": lambda model: model.with_structured_output(City, include_raw=True),
    "structured, with_retry": lambda model: model.with_structured_output(City).with_retry(),
}  # fmt: skip
ROWS = pytest.mark.parametrize("made", MADE.values(), ids=MADE)
MODELS = pytest.mark.parametrize("cls", [ChatSequrity, SequrityMessages])


class Failing:
    """A service that always fails, a second model, and the number of calls of each."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.sent = self.asked = 0

    def model(self, cls: Any) -> Any:
        client = httpx.Client(transport=httpx.MockTransport(self._fail))
        return cls("m", api_key="k", http_client=client, max_retries=0)

    def _fail(self, _request: httpx.Request) -> httpx.Response:
        self.sent += 1
        raise self.error

    def _answer(self, _: Sequence[BaseMessage]) -> str:
        self.asked += 1
        return '{"name": "Oslo"}'

    @property
    def other(self) -> Any:
        return ScriptedModel(answer=self._answer)


NO_FAILURES = [
    PolicyDenied("No."),
    ProgramFailed("No.", code="x"),
    SessionExpired("No."),
    TurnFailed("No."),
    UsageError("No."),
]


@pytest.mark.long(sample=14)
@ROWS
@MODELS
def test_errors_that_are_not_service_failures_trigger_no_fallback(made: Made, cls: Any) -> None:
    for error in NO_FAILURES:
        failing = Failing(error)
        model = made(failing.model(cls)).with_fallbacks([failing.other])
        for call in (model.invoke, lambda said, one=model: list(one.stream(said))):
            with pytest.raises(type(error)):
                call("x")
        with pytest.raises(type(error)):
            model.batch(["x"])
        assert (failing.sent, failing.asked) == (3, 0)


@pytest.mark.long(sample=23)
@ROWS
@MODELS
def test_errors_that_are_not_service_failures_are_not_retried(made: Made, cls: Any) -> None:
    for error in NO_FAILURES:
        failing = Failing(error)
        with pytest.raises(type(error)):
            made(failing.model(cls)).with_retry(wait_exponential_jitter=False).invoke("x")
        assert failing.sent == 1


@pytest.mark.long(sample=1)
@ROWS
@MODELS
def test_a_service_failure_triggers_the_fallback(made: Made, cls: Any) -> None:
    failing = Failing(httpx.ConnectError("no way"))
    made(failing.model(cls)).with_fallbacks([failing.other]).invoke("x")
    assert failing.asked == 1


@pytest.mark.parametrize(("retryable", "sent"), [(True, 3), (False, 1)])
def test_a_service_failure_is_retried_only_if_it_is_retryable(retryable: bool, sent: int) -> None:
    failing = Failing(ServiceError("Later.", is_retryable=retryable))
    model = failing.model(ChatSequrity).with_retry(wait_exponential_jitter=False)
    with pytest.raises(ServiceError):
        model.invoke("x")
    assert failing.sent == sent


@ROWS
def test_exceptions_that_the_caller_names_are_handled(made: Made) -> None:
    denied = PolicyDenied("No.")
    for chosen in ((PolicyDenied,), (TurnFailed,), (SequrityError,), (Exception,)):
        failing = Failing(denied)
        model = made(failing.model(ChatSequrity))
        model.with_fallbacks([failing.other], exceptions_to_handle=chosen).invoke("x")
        assert failing.asked == 1
    failing = Failing(denied)
    again = made(failing.model(ChatSequrity)).with_retry(
        retry_if_exception_type=(PolicyDenied,), wait_exponential_jitter=False, stop_after_attempt=2
    )
    with pytest.raises(PolicyDenied):
        again.invoke("x")
    assert failing.sent == 2


def test_a_denial_in_a_chain_with_a_prompt_triggers_no_fallback() -> None:
    failing = Failing(PolicyDenied("No."))
    model = failing.model(ChatSequrity).with_fallbacks([failing.other])
    chain = ChatPromptTemplate.from_messages([("user", "{text}")]) | model
    with pytest.raises(PolicyDenied):
        chain.invoke({"text": "x"})
    assert failing.asked == 0


def test_a_third_model_is_asked_if_the_second_one_fails_too() -> None:
    first, second = (Failing(httpx.ConnectError("no way")) for _ in range(2))
    models = [second.model(SequrityMessages), second.other]
    assert "Oslo" in first.model(ChatSequrity).with_fallbacks(models).invoke("x").text
    assert (first.sent, second.sent, second.asked) == (1, 1, 1)


def test_the_fallback_of_a_batch_gets_only_the_inputs_whose_service_failed() -> None:
    errors = {"fail": httpx.ConnectError("no way"), "deny": PolicyDenied("No.")}
    asked: list[str] = []

    def reply(request: httpx.Request) -> httpx.Response:
        [message] = json.loads(request.content)["messages"]
        if message["content"] in errors:
            raise errors[message["content"]]
        return httpx.Response(200, json=completion("first"))

    def answer(messages: Sequence[BaseMessage]) -> str:
        asked.append(messages[-1].text)
        return "other"

    with httpx.Client(transport=httpx.MockTransport(reply)) as client:
        first = ChatSequrity("m", api_key="k", http_client=client, max_retries=0)
        model = first.with_fallbacks([ScriptedModel(answer=answer)])
        works, failed, denied = model.batch(["work", "fail", "deny"], return_exceptions=True)
    assert (works.text, failed.text) == ("first", "other")
    assert isinstance(denied, PolicyDenied)
    assert asked == ["fail"]


@pytest.mark.parametrize("name", sorted(set(MADE) - {"the model"}))
def test_a_wrapped_model_is_serialized_as_langchains_own_runnable(name: str) -> None:
    made = MADE[name](ChatSequrity("m", api_key="k"))
    described = dumpd(made)
    assert described["id"] == ["langchain", "schema", "runnable", described["id"][-1]]
    public = type(made).__name__.replace("_ChatModelBinding", "RunnableBinding")
    assert described["id"][-1] == public


@pytest.mark.long
def test_bound_models_can_be_pickled() -> None:
    model = ChatSequrity("m", base_url="http://127.0.0.1:9", max_retries=0)
    for one in (
        model.bind_tools([get_weather]),
        model | StrOutputParser(),
        model.with_retry(),
        model.with_fallbacks([model]),
    ):
        restored = pickle.loads(pickle.dumps(one))
        assert type(restored) is type(one)
        with pytest.raises(ConnectionFailed):
            restored.invoke("x")


def test_a_missing_forced_call_triggers_the_fallback() -> None:
    def missing(_: Any) -> Any:
        msg = "No call."
        raise ForcedToolMissing(msg, tool="City")

    chain = RunnableLambda(missing).with_fallbacks([RunnableLambda(lambda _: "other")])
    assert chain.invoke("x") == "other"
