"""Arguments that LangChain users know from other models, and the errors of mistakes in them."""

import asyncio
import os
import pickle
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_anthropic.data._profiles import _PROFILES as ANTHROPIC
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai.data._profiles import _PROFILES as OPENAI
from langgraph.graph import MessagesState, StateGraph
from pydantic import SecretStr, ValidationError

from langchain_sequrity import ChatSequrity, LangGraphExecutor, PolicyGenTool, SequrityMessages
from langchain_sequrity.chat_models.model_profiles import profile_of
from langchain_sequrity.errors import AuthenticationFailed, ConnectionFailed, NotFound, UsageError
from langchain_sequrity.local import LocalServer
from langchain_sequrity.transport import HttpTimeout, Timeouts
from tests.chat_models.formats import CHAT, MESSAGES, RESPONSES, Row, Service

ROWS = pytest.mark.parametrize("row", [CHAT, RESPONSES, MESSAGES], ids=lambda row: row.format)


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith("SEQURITY_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def sent_by(row: Row, **arguments: Any) -> tuple[httpx.Request, dict[str, Any]]:
    """The request that a model with these arguments sends, and its body."""
    service = Service(row)
    service.answer("Hi")
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        service.model(client, **arguments).invoke("x")
    return service.requests[0], service.bodies[0]


# Arguments that become body fields, headers or query parameters


@pytest.mark.parametrize(
    ("row", "argument", "path"),
    [
        (CHAT, {"max_completion_tokens": 9}, ["max_completion_tokens"]),
        (RESPONSES, {"max_completion_tokens": 9}, ["max_output_tokens"]),
        (CHAT, {"verbosity": "low"}, ["verbosity"]),
        (RESPONSES, {"verbosity": "low"}, ["text", "verbosity"]),
        (CHAT, {"service_tier": "flex"}, ["service_tier"]),
        (MESSAGES, {"service_tier": "auto"}, ["service_tier"]),
        (MESSAGES, {"mcp_servers": [{"type": "url", "url": "u", "name": "n"}]}, ["mcp_servers"]),
        (MESSAGES, {"container": "c"}, ["container"]),
        (MESSAGES, {"container": {"id": "c"}}, ["container"]),
        (MESSAGES, {"context_management": {"edits": []}}, ["context_management"]),
    ],
)
def test_an_argument_is_sent_as_a_field_of_the_body(
    row: Row, argument: dict[str, Any], path: list[str]
) -> None:
    (value,) = argument.values()
    found: Any = sent_by(row, **argument)[1]
    for name in path:
        found = found[name]
    assert found == value


@pytest.mark.parametrize("row", [CHAT, RESPONSES], ids=lambda row: row.format)
def test_a_call_can_override_an_argument_of_the_body(row: Row) -> None:
    service = Service(row)
    for _ in range(2):
        service.answer("Hi")
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        model = service.model(client, verbosity="low")
        model.invoke("x", verbosity="high")
        model.invoke("x")
    styles = [body if row is CHAT else body["text"] for body in service.bodies]
    assert [style["verbosity"] for style in styles] == ["high", "low"]


LIMITS = ("max_tokens", "max_completion_tokens")


@pytest.mark.parametrize("row", [CHAT, RESPONSES], ids=lambda row: row.format)
@pytest.mark.parametrize("of_model", LIMITS)
@pytest.mark.parametrize("of_call", LIMITS)
def test_a_call_can_override_the_token_limit_by_either_of_its_names(
    row: Row, of_model: str, of_call: str
) -> None:
    service = Service(row)
    for _ in range(2):
        service.answer("Hi")
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        model = service.model(client, **{of_model: 9})
        traced = [model._get_ls_params(**one)["ls_max_tokens"] for one in ({of_call: 5}, {})]
        assert traced == [5, 9]
        model.invoke("x", **{of_call: 5})
        model.invoke("x", **{of_call: None})
    sent = [{k: v for k, v in body.items() if k.startswith("max_")} for body in service.bodies]
    names = ["max_output_tokens"] * 2 if row is RESPONSES else [of_call, of_model]
    assert sent == [{names[0]: 5}, {names[1]: 9}]


@pytest.mark.parametrize(
    ("row", "argument", "header", "value"),
    [
        (CHAT, {"organization": "org-1"}, "OpenAI-Organization", "org-1"),
        (RESPONSES, {"organization": "org-1"}, "OpenAI-Organization", "org-1"),
        (MESSAGES, {"betas": ["a-1", "b-2"]}, "anthropic-beta", "a-1,b-2"),
        (
            MESSAGES,
            {"betas": ["a"], "default_headers": {"Anthropic-Beta": "c"}},
            "anthropic-beta",
            "c",
        ),
    ],
)
def test_an_argument_is_sent_as_a_header(row: Row, argument: Any, header: str, value: str) -> None:
    request = sent_by(row, **argument)[0]
    assert request.headers.get_list(header) == [value]


@ROWS
def test_the_default_query_is_added_to_the_address_of_every_format(row: Row) -> None:
    request = sent_by(row, default_query={"api-version": "1 2", "n": 3, "on": True})[0]
    assert request.url.path.endswith(row.format)
    assert dict(request.url.params) == {"api-version": "1 2", "n": "3", "on": "true"}


def test_a_proxy_of_the_model_is_used() -> None:
    # The local server is not a proxy: it answers 404 to the full URL that a proxy gets.
    with LocalServer() as proxy:
        nobody = "http://localhost:9"
        model = ChatSequrity("m", base_url=nobody, proxy=proxy.base_url, max_retries=0)
        for call in (model.invoke, lambda said: asyncio.run(model.ainvoke(said))):
            with pytest.raises(NotFound):
                call("Hello")
    with pytest.raises(ConnectionFailed):
        model.model_copy(update={"proxy": None}).invoke("Hello")


def test_the_address_of_a_proxy_is_shown_nowhere() -> None:
    model = ChatSequrity("m", api_key="k", proxy="http://me:secret-1@proxy.example:8")
    shown = repr(model) + dumps(model) + str(pickle.dumps(model)) + repr(model._identifying_params)
    assert "secret-1" not in shown
    with pytest.raises(UsageError, match="`proxy`"):
        pickle.loads(pickle.dumps(model)).model_copy(update={"api_key": "k"}).invoke("x")


@pytest.mark.parametrize("seconds", [1, 600, 1500, 86_400.0])
def test_no_single_wait_ends_a_call_before_its_timeout(seconds: float) -> None:
    limits = ChatSequrity("m", api_key="k", timeout=seconds).sender()._timeouts
    assert limits.total == seconds
    assert limits.read is not None
    assert limits.silence is not None
    assert min(limits.read, limits.silence) >= seconds
    asked = (
        ChatSequrity("m", api_key="k", timeout=seconds, stream_chunk_timeout=9).sender()._timeouts
    )
    assert asked.silence == 9
    assert Timeouts.of(HttpTimeout(5)).read == 5


# Keys from functions


@ROWS
@pytest.mark.parametrize("name", ["api_key", "llm_api_key"])
def test_a_key_function_is_called_before_each_call(row: Row, name: str) -> None:
    service, keys = Service(row), iter(["key-one-1", SecretStr("key-two-2")])
    for _ in range(2):
        service.answer("Hi")
    header = {"api_key": "authorization", "llm_api_key": "x-api-key"}[name]
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        model = service.model(client, **{name: lambda: next(keys)})
        model.invoke("x")
        model.bind(temperature=0.1).invoke("x")
    found = [request.headers[header].removeprefix("Bearer ") for request in service.requests]
    assert found == ["key-one-1", "key-two-2"]


@ROWS
async def test_an_async_key_function_works_only_in_async_calls(row: Row) -> None:
    service = Service(row)
    for stream in (False, True):
        service.answer("Hi", stream=stream)

    async def key() -> str:
        return "key-one-1"

    async with httpx.AsyncClient(transport=httpx.MockTransport(service)) as client:
        model: Any = row.make(
            api_key=key, base_url="https://api.example", http_async_client=client, max_retries=0
        )
        assert (await model.ainvoke("x")).text == "Hi"
        assert "".join([one.text async for one in model.astream("x")]) == "Hi"
        with pytest.raises(UsageError, match="`api_key` is an async function"):
            model.invoke("x")
    found = {request.headers["authorization"] for request in service.requests}
    assert found == {"Bearer key-one-1"}


def test_a_key_from_a_function_is_shown_nowhere() -> None:
    key = "key-of-a-function-7"

    def echo(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={"detail": f"Bad key {key}"})

    with httpx.Client(transport=httpx.MockTransport(echo)) as client:
        model = ChatSequrity("m", api_key=lambda: key, http_client=client, max_retries=0)
        with pytest.raises(AuthenticationFailed) as caught:
            model.invoke("x")
    shown = [str(caught.value), str(vars(caught.value)), repr(model), dumps(model)]
    shown += [model.model_dump_json(exclude={"profile"}), str(model._identifying_params)]
    assert not [one for one in shown if key in one]


def test_two_users_of_one_model_never_share_a_session() -> None:
    user: ContextVar[str] = ContextVar("user")
    service = Service(CHAT)
    for _ in range(3):
        service.answer("Hi")
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        model = service.model(client, api_key=user.get)
        history: list[Any] = [HumanMessage("x")]
        for name in ("key-of-ana", "key-of-ana", "key-of-bo"):
            user.set(name)
            history += [model.invoke(history), HumanMessage("y")]
    sessions = [request.headers.get("x-session-id") for request in service.requests]
    assert sessions[0] is None
    assert sessions[1] is not None
    assert sessions[2] is None


@pytest.mark.parametrize("given", [None, 5, "", "two words"])
def test_an_invalid_key_from_a_function_is_refused_at_the_call(given: Any) -> None:
    with pytest.raises(UsageError, match="`api_key`"):
        ChatSequrity("m", api_key=lambda: given).invoke("x")


def pay(euros: int) -> str:
    """Pay."""
    return f"paid {euros}"


def test_an_executor_and_a_policy_tool_refuse_a_key_function() -> None:
    model = ChatSequrity("m", api_key=lambda: "key-one-1")
    graph: Any = StateGraph(MessagesState)
    with pytest.raises(UsageError, match="`api_key` is a function"):
        LangGraphExecutor(graph.add_sequence([pay]).set_entry_point("pay"), model)
    with pytest.raises(UsageError, match="`api_key` is a function"):
        PolicyGenTool(model, tools=[pay])


# Profiles of upstream models

SHIPPED = {
    name: (found["max_input_tokens"], found["max_output_tokens"])
    for name, found in {**OPENAI, **ANTHROPIC}.items()
    if found.get("max_input_tokens") and found.get("max_output_tokens")
}


@pytest.mark.parametrize("form", ["{}", "openai/{}", "router/x/{}", "{}-2025-08-07", "{}-latest"])
def test_token_limits_equal_those_in_langchains_packages(form: str) -> None:
    found = {name: profile_of(form.format(name)) for name in SHIPPED}
    known = {name: one for name, one in found.items() if "max_input_tokens" in one}
    assert {"gpt-5-mini", "gpt-4o", "claude-sonnet-4-5", "claude-opus-4-5"} <= set(known)
    for name, one in known.items():
        assert (one["max_input_tokens"], one["max_output_tokens"]) == SHIPPED[name]


@pytest.mark.parametrize(
    ("name", "limit"),
    [("anthropic/claude-sonnet-4.5", 200_000), ("gpt-5-mini,gpt-4o-mini", 128_000),
     ("gpt-5-mini, any/model", None), ("gpt-5-mini-x", None), ("any/model", None)],
)  # fmt: skip
def test_a_limit_is_known_only_if_every_named_model_is_known(name: str, limit: int | None) -> None:
    assert profile_of(name).get("max_input_tokens") == limit


def test_summarization_can_start_at_a_fraction_of_the_input_limit() -> None:
    with LocalServer(script=[{"text": "Summary."}, {"text": "Answer."}] * 3) as server:
        model = ChatSequrity(
            "any/model", base_url=server.base_url, profile={"max_input_tokens": 40}
        )
        summary = SummarizationMiddleware(model, trigger=("fraction", 0.8), keep=("messages", 1))
        agent: Any = create_agent(model, middleware=[summary])
        said = [HumanMessage("word " * 50), AIMessage("word " * 50), HumanMessage("And now?")]
        found = agent.invoke({"messages": said})["messages"]
    assert len(found) < len(said) + 1
    SummarizationMiddleware(
        ChatSequrity("openai/gpt-5-mini", api_key="k"), trigger=("fraction", 0.8)
    )


# Mistakes

KEY = {"api_key": "sq-key"}
Model = type[ChatSequrity] | type[SequrityMessages]
MISTAKES: list[tuple[str, Callable[[], Any], str]] = []


def says(model: Model, given: dict[str, Any], text: str) -> None:
    """Add a row: arguments of a model, and the error that they cause."""
    arguments = {"model": "m", **KEY, **given}
    name = (
        f"{model.__name__}: {next(iter(given), 'nothing')}={next(iter(given.values()), '')!s:.20}"
    )
    MISTAKES.append((name, lambda: model(**arguments), text))


HAS_NO = "`ChatSequrity` has no argument"
says(
    ChatSequrity,
    {"model": None},
    '`ChatSequrity` needs the name of a model first: `ChatSequrity("openai/…")`.',
)
says(
    ChatSequrity,
    {"model": ""},
    '`ChatSequrity` needs the name of a model first: `ChatSequrity("openai/…")`.',
)
says(
    SequrityMessages,
    {"model": ""},
    '`SequrityMessages` needs the name of a model first: `SequrityMessages("openai/…")`.',
)
says(
    ChatSequrity,
    {"api_key": None},
    "There is no Sequrity key. Set the environment variable `SEQURITY_API_KEY`, or pass `api_key=`. (Only loopback addresses need no key; the address is `https://api.sequrity.ai`.)",
)
says(
    ChatSequrity,
    {"api_key": ""},
    "`api_key` is empty. Give the key, or leave `api_key` out to use the environment variable `SEQURITY_API_KEY`.",
)
says(
    ChatSequrity,
    {"llm_api_key": ""},
    "`llm_api_key` is empty. Give the key, or leave `llm_api_key` out to use the environment variable `SEQURITY_LLM_API_KEY`.",
)
says(
    ChatSequrity,
    {"api_key": "a b"},
    "`api_key` is not a key: one of its 3 characters is a space, a line break or not ASCII. Copy the key again, without the characters around it.",
)
says(
    ChatSequrity,
    {"api_key": "ab\n"},
    "`api_key` is not a key: one of its 3 characters is a space, a line break or not ASCII. Copy the key again, without the characters around it.",
)
says(
    ChatSequrity,
    {"api_key": 5},
    "api_key: Value error, expected the key as text or `SecretStr`, or a function that gives it; got `int`",
)
says(ChatSequrity, {"base_ur": "x"}, f"{HAS_NO} `base_ur`. Did you mean `base_url`?")
says(ChatSequrity, {"base_url": 5}, "base_url: Input should be a valid string")
says(
    ChatSequrity,
    {"base_url": "api.example"},
    "`base_url` must be an http(s) URL such as `https://api.sequrity.ai`; got 'api.example'.",
)
says(
    ChatSequrity,
    {"base_url": "http://api.example"},
    "Plain http to `http://api.example` would show keys to the network. Use https, or pass `allow_http=True` if the network is safe.",
)
says(
    ChatSequrity,
    {"base_url": "https://u:p@api.example"},
    "`base_url` must not hold credentials, a query or a fragment. Give the key as `api_key`.",
)
for name, near in {
    "polciy": "policy", "policies": "policy", "feature": "features", "openai_api_key": "llm_api_key",
    "anthropic_api_key": "llm_api_key", "sequrity_api_key": "api_key", "key": "api_key",
    "token": "api_key", "openai_api_base": "base_url", "endpoint": "base_url", "url": "base_url",
    "request_timeout": "timeout", "max_output_tokens": "max_tokens", "retries": "max_retries",
    "openai_organization": "organization", "openai_proxy": "proxy", "headers": "default_headers",
    "on_deny": "on_denied", "strict": "strict_policy", "temprature": "temperature",
    "use_response_api": "use_responses_api", "session_conf": "session_config",
}.items():  # fmt: skip
    says(ChatSequrity, {name: "x"}, f"{HAS_NO} `{name}`. Did you mean `{near}`?")
for name, advice in {
    "agent_arch": 'It is a field of `features`: `features={"agent_arch": …}`.',
    "fsm": 'It is a field of `session_config`: `session_config={"fsm": …}`.',
    "messages": "Give the messages to a call: `model.invoke(messages)`.",
    "response_format": "Use `model.with_structured_output(…)`.",
    "session_id": "Give it to a call: `model.invoke(…, session_id=…)`.",
    "system": "Put a `SystemMessage` before the other messages.",
    "tools": "Use `model.bind_tools([…])`.",
    "tool_choice": "Give it with the tools: `model.bind_tools([…], tool_choice=…)`.",
    "thinking": "`SequrityMessages` has it.",
    "betas": "`SequrityMessages` has it.",
    "zzz": "A field of the request's body goes into `model_kwargs`.",
}.items():
    says(ChatSequrity, {name: "x"}, f"{HAS_NO} `{name}`. {advice}")
for name in ("seed", "organization", "verbosity", "use_responses_api", "max_completion_tokens"):
    says(
        SequrityMessages,
        {name: 1},
        f"`SequrityMessages` has no argument `{name}`. `ChatSequrity` has it.",
    )
PAIRS = "Existing pairs (`None` is the service's default provider): chat/completions: None, openai, openrouter, sequrity_azure, llama; messages: None, anthropic; responses: None, openai, sequrity_azure."
says(
    ChatSequrity,
    {"provider": "antropic"},
    "provider: Input should be 'openai', 'openrouter', 'anthropic', 'sequrity_azure' or 'llama'",
)
says(
    ChatSequrity,
    {"provider": "anthropic"},
    f"Provider `anthropic` does not serve the format `chat/completions`. {PAIRS}",
)
says(
    SequrityMessages,
    {"provider": "openai"},
    f"Provider `openai` does not serve the format `messages`. {PAIRS}",
)
says(
    ChatSequrity,
    {"endpoint_type": "chats"},
    "endpoint_type: Input should be 'chat', 'code', 'agent' or 'lang-graph'",
)
says(
    ChatSequrity,
    {"on_denied": "ignore"},
    'on_denied: Value error, `on_denied` must be "raise", "message" or "interrupt" for chat models; got \'ignore\'.',
)
says(
    ChatSequrity,
    {"on_session_expired": "new"},
    "on_session_expired: Input should be 'raise' or 'restart'",
)
says(
    ChatSequrity,
    {"policy": Path("/nowhere/p.sqrt")},
    "The policy file `/nowhere/p.sqrt` cannot be read: No such file or directory. Check the path.",
)
says(ChatSequrity, {"temperature": 3}, "temperature: Input should be less than or equal to 2")
says(SequrityMessages, {"temperature": 2}, "temperature: Input should be less than or equal to 1")
says(ChatSequrity, {"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1")
says(
    ChatSequrity,
    {"max_tokens": 5, "max_completion_tokens": 5},
    "`max_tokens` and `max_completion_tokens` are the same limit. Give one of them.",
)
says(
    ChatSequrity,
    {"stop": ["a"], "stop_sequences": ["b"]},
    "`stop_sequences` and `stop` are the same argument. Give one of them.",
)
says(
    ChatSequrity,
    {"model": "m", "model_name": "n"},
    "`model` and `model_name` are the same argument. Give one of them.",
)
says(
    ChatSequrity,
    {"reasoning_effort": "much"},
    "reasoning_effort: Input should be 'none', 'minimal', 'low', 'medium', 'high' or 'xhigh'",
)
says(ChatSequrity, {"verbosity": "loud"}, "verbosity: Input should be 'low', 'medium' or 'high'")
for seconds in (0, -1, float("nan"), float("inf")):
    says(
        ChatSequrity,
        {"timeout": seconds},
        "timeout: Value error, expected a finite number of seconds above 0; the default is 600",
    )
for duration in ("30s", True, [5]):
    says(
        ChatSequrity,
        {"timeout": duration},
        f"timeout: Value error, expected a number of seconds, or an `httpx.Timeout`; got `{type(duration).__name__}`",
    )
says(
    ChatSequrity,
    {"default_headers": {"Authorization": "x"}},
    "The header `Authorization` is set by the package. Use `api_key`, `llm_api_key`, `session_id` (of a call) or `http_client` instead.",
)
says(ChatSequrity, {"default_headers": [1]}, "default_headers: Input should be a valid dictionary")
says(ChatSequrity, {"default_query": "a=b"}, "default_query: Input should be a valid dictionary")
for proxy in ("nowhere", "ftp://proxy", "http://", "http://proxy:x"):
    says(
        ChatSequrity,
        {"proxy": proxy},
        "`proxy` is not the address of a proxy, such as `http://proxy.example:8080`.",
    )
says(
    ChatSequrity,
    {"store": True},
    "`store` belongs to Responses (`use_responses_api=True`), and this model uses chat/completions. Leave it out.",
)
says(
    ChatSequrity,
    {"use_responses_api": True, "seed": 1},
    "`seed` belongs to chat/completions, and this model uses Responses. Leave it out.",
)
says(SequrityMessages, {"betas": "b"}, "betas: Input should be a valid list")
says(SequrityMessages, {"mcp_servers": {}}, "mcp_servers: Input should be a valid list")


@pytest.mark.parametrize(
    ("make", "text"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES]
)
def test_the_error_of_a_mistake_says_what_to_do(make: Callable[[], Any], text: str) -> None:
    with pytest.raises((UsageError, ValidationError)) as caught:
        make()
    if isinstance(caught.value, ValidationError):
        (told,) = caught.value.errors()
        assert f"{told['loc'][0]}: {told['msg']}" == text
    else:
        assert str(caught.value) == text


def test_the_table_has_at_least_fifty_mistakes() -> None:
    assert len({row[0] for row in MISTAKES}) >= 50
