"""Dual-LLM conversations of this package's chat models, in every format and fidelity."""

import json
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import BaseModel

from langchain_sequrity import ChatSequrity, dual_llm_result
from langchain_sequrity.errors import BadReply, ForcedToolMissing, PolicyDenied
from langchain_sequrity.local import LocalServer
from tests.chat_models.formats import CHAT, MESSAGES, NAMES, RESPONSES, ROWS, Row, added
from tests.local.api import CHAT as CHAT_PATH
from tests.local.api import Api
from tests.local.api import tool as declared
from tests.local.dual_llm.conversation import DUAL, Stage, Teller, converse, enough, reads

FEATURES = {"X-Features": json.dumps(DUAL)}
REPORTING = {"response_format": {"include_program": True}}
ASK = f"""\
report = get_weather(city="Rome")
final_return_value = {reads('f"Is it sunny? {report}"')}
"""
AGAIN = 'final_return_value = f"As I said: {report}"\n'
BY_VALUE = """\
from pydantic import BaseModel

class Seen(BaseModel):
    city: str
    sunny: bool
    have_enough_info: bool

report = get_weather(city="Rome")
final_return_value = parse_with_ai(query=f"What is this about? {report}", output_schema=Seen.model_json_schema())
del final_return_value["have_enough_info"]
"""
BY_TOOL = """\
report = get_weather(city="Rome")
Weather(city="Rome", sunny="Sunny" in report)
"""
ANSWER = json.dumps(enough("A")["value"])
DENYING = 'tool "get_weather" { must deny always; }'


@tool
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"Sunny in {city}"


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    sunny: bool


ROME = Weather(city="Rome", sunny=True)


@pytest.fixture(params=ROWS, ids=NAMES)
def row(request: pytest.FixtureRequest) -> Row:
    row: Row = request.param
    return row


@pytest.fixture(scope="module")
def documented_stage() -> Iterator[Stage]:
    with Stage(fidelity="documented") as running:
        yield running


def make(stage: Stage, row: Row, *tellers: Teller, **fields: Any) -> Any:
    fields = {"session_config": REPORTING, **row.arguments, **fields}
    return stage.model(*tellers, of=row.model, **fields)


def session_of(message: Any) -> str:
    session: str = message.response_metadata["sequrity"]["session_id"]
    return session


def text_for(request: Any) -> dict[str, Any]:
    """The data model's answer; the request has to contain the tool's result."""
    assert "Sunny in Rome" in str(request.messages[-1].text)
    return enough("Yes.")


def weather_for(request: Any) -> dict[str, Any]:
    assert "Sunny in Rome" in str(request.messages[-1].text)
    properties = request.response_format["json_schema"]["schema"]["properties"]
    assert set(properties) == {"city", "sunny", "have_enough_info"}
    return {"value": {**ROME.model_dump(), "have_enough_info": True}}


class Reader(Teller):
    """The data model, with a function that answers."""

    def __init__(self, answer: Any) -> None:
        super().__init__("quarantined")
        self._answer = answer

    def __call__(self, request: Any) -> Any:
        self.requests.append(request)
        return self._answer(request)


# Agents


@pytest.mark.long(sample=8)
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream"])
@pytest.mark.parametrize("fidelity", ["full", "documented"])
async def test_an_agent_runs_a_program_to_its_end_and_a_later_turn_uses_its_variables(
    stage: Stage, documented_stage: Stage, row: Row, way: str, fidelity: str
) -> None:
    planner, reader = Teller("planner", ASK, AGAIN), Reader(text_for)
    server = stage if fidelity == "full" else documented_stage
    agent: Any = create_agent(make(server, row, planner, reader), [get_weather])

    async def run(messages: list[Any]) -> Any:
        if way == "ainvoke":
            return (await agent.ainvoke({"messages": messages}))["messages"]
        if way == "invoke":
            return agent.invoke({"messages": messages})["messages"]
        steps = agent.stream({"messages": messages}, stream_mode=["messages", "values"])
        return [step for mode, step in steps if mode == "values"][-1]["messages"]

    first = await run([HumanMessage("Is it sunny in Rome?")])
    assert [message.type for message in first] == ["human", "ai", "tool", "ai"]
    assert first[1].tool_calls[0]["args"] == {"city": "Rome"}
    assert first[-1].text == "Yes."
    result = dual_llm_result(first[-1])
    assert result is not None
    assert result.program == ASK
    assert result.labels is not None
    assert result.labels.producers == {"__tool/parse_with_ai"}
    second = await run([*first, HumanMessage("Say it again.")])
    assert second[-1].text == "As I said: Sunny in Rome"
    assert session_of(second[-1]) == session_of(first[1])


@pytest.mark.parametrize("of_strategy", [ProviderStrategy, ToolStrategy])
def test_an_agent_gets_its_structured_response_from_a_value_or_a_call(
    stage: Stage, row: Row, of_strategy: Any
) -> None:
    program = BY_VALUE if of_strategy is ProviderStrategy else BY_TOOL
    model = make(stage, row, Teller("planner", program), Reader(weather_for))
    agent: Any = create_agent(model, [get_weather], response_format=of_strategy(Weather))
    first = agent.invoke({"messages": [HumanMessage("How is Rome?")]})
    again = agent.invoke({"messages": [*first["messages"], HumanMessage("And now?")]})
    assert first["structured_response"] == again["structured_response"] == ROME
    replies = [one for one in again["messages"] if isinstance(one, AIMessage)]
    assert len({session_of(reply) for reply in replies}) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output_works_with_each_method(
    stage: Stage, row: Row, method: Any, stream: bool
) -> None:
    value = f"final_return_value = {ROME.model_dump()}\n"
    call = 'Weather(city="Rome", sunny=True)\n'
    planner = Teller("planner", call if method == "function_calling" else value)
    model = make(stage, row, planner).with_structured_output(Weather, method=method)
    found = list(model.stream("How is Rome?"))[-1] if stream else model.invoke("How is Rome?")
    assert found == ROME
    if method == "json_schema":
        assert '"sunny"' in planner.prompts[0]


def test_a_denial_is_not_parsed_as_a_structured_response(stage: Stage, row: Row) -> None:
    planner = Teller("planner", BY_VALUE)
    model = make(stage, row, planner, policy=DENYING)
    agent: Any = create_agent(model, [get_weather], response_format=ProviderStrategy(Weather))
    with pytest.raises(PolicyDenied, match="get_weather") as caught:
        agent.invoke({"messages": [HumanMessage("How is Rome?")]})
    assert caught.value.program == BY_VALUE


def test_a_graph_keeps_one_session_for_each_of_its_threads(stage: Stage, row: Row) -> None:
    keep = 'kept = get_weather(city="{}")\nfinal_return_value = "Noted."\n'
    planner = Teller(
        "planner", keep.format("Rome"), keep.format("Oslo"), "final_return_value = kept\n"
    )
    model = make(stage, row, planner).bind_tools([get_weather])
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([get_weather]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    app = graph.compile(checkpointer=InMemorySaver())

    def ask(thread: str, text: str) -> AIMessage:
        config: Any = {"configurable": {"thread_id": thread}}
        state: Any = {"messages": [HumanMessage(text)]}
        reply: AIMessage = app.invoke(state, config)["messages"][-1]
        return reply

    noted = [ask(city, f"Note the weather of {city}.") for city in ("Rome", "Oslo")]
    told = [ask(city, "What did you note?") for city in ("Oslo", "Rome")]
    assert [reply.text for reply in told] == ["Sunny in Oslo", "Sunny in Rome"]
    assert [session_of(reply) for reply in reversed(told)] == [session_of(one) for one in noted]
    assert len({session_of(reply) for reply in noted}) == 2


# Routes, names, usage


@pytest.mark.parametrize("endpoint_type", ["chat", "code", "agent"])
def test_every_endpoint_type_takes_dual_llm_sessions(
    stage: Stage, row: Row, endpoint_type: str
) -> None:
    model = make(
        stage, row, Teller("planner", ASK), Reader(text_for), endpoint_type=endpoint_type
    ).bind_tools([get_weather])
    history = converse(model, "Is it sunny in Rome?", {"get_weather": "Sunny in Rome"})
    assert history[-1].text == "Yes."


def test_each_role_gets_requests_under_its_own_model_name(stage: Stage, row: Row) -> None:
    planner, reader = Teller("planner", ASK), Reader(text_for)
    model = make(stage, row, planner, reader)
    history = converse(model.bind_tools([get_weather]), "Go", {"get_weather": "Sunny in Rome"})
    play = model.model_name.partition("/")[0]
    assert [request.model for request in planner.requests] == [f"{play}/planner"]
    assert [request.model for request in reader.requests] == [f"{play}/worker"]
    names = {one.response_metadata["model_name"] for one in history if isinstance(one, AIMessage)}
    assert names == {f"{play}/planner,{play}/worker"}


def test_a_single_model_name_is_used_for_both_roles(stage: Stage, row: Row) -> None:
    planner, reader = Teller("planner", ASK), Reader(text_for)
    play = stage.cast(planner, reader).partition("/")[0]
    model = row.make(model=f"{play}/one", base_url=stage.server.base_url, features=DUAL).bind_tools(
        [get_weather]
    )
    history = converse(model, "Go", {"get_weather": "Sunny in Rome"})
    asked = [request.model for request in (*planner.requests, *reader.requests)]
    assert asked == [f"{play}/one"] * 2
    assert isinstance(history[-1], AIMessage)
    assert history[-1].response_metadata["model_name"] == f"{play}/one,{play}/one"


@pytest.mark.parametrize("stream", [False, True])
def test_usage_is_the_sum_of_all_models(stage: Stage, row: Row, stream: bool) -> None:
    reading = reads("'Read: Go'")
    program = f"final_return_value = [{reading}, {reading}]\n"
    planner = Teller("planner", _using(program, 100, 20))
    reader = Teller("quarantined", _using(ANSWER, 7, 2), _using(ANSWER, 5, 1))
    model = make(stage, row, planner, reader)
    reply: Any = added(model.stream("Go")) if stream else model.invoke("Go")
    assert reply.text == '["A","A"]'
    usage = reply.usage_metadata
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (112, 23, 135)


def _using(text: str, inputs: int, outputs: int) -> dict[str, Any]:
    return {"text": text, "usage": {"input_tokens": inputs, "output_tokens": outputs}}


# Marks of a dual-LLM session (behaviour.md P2)


@pytest.mark.parametrize("stream", [False, True])
def test_without_features_only_chat_completions_recognises_a_dual_llm_session(
    stage: Stage, row: Row, stream: bool
) -> None:
    name = stage.cast(Teller("planner", 'final_return_value = "Hello."\n'))
    # This header, which the model does not see, stands for features that are stored with the key.
    with httpx.Client(headers=FEATURES) as client:
        model = row.make(model=name, base_url=stage.server.base_url, http_client=client)
        if row is not CHAT:
            with pytest.raises(BadReply, match="features="):
                list(model.stream("Hi")) if stream else model.invoke("Hi")
            return
        reply = added(model.stream("Hi")) if stream else model.invoke("Hi")
    assert reply.text == "Hello."
    assert reply.response_metadata["id"] == session_of(reply)
    assert reply.response_metadata["model_name"] == name
    assert dual_llm_result(reply) is not None


def test_a_single_llm_reply_has_no_mark_of_a_dual_llm_session(stage: Stage) -> None:
    model = ChatSequrity("any/model", base_url=stage.server.base_url)
    reply = model.bind(model=stage.cast(Teller("chat", '{"status": "success"}')).split(",")[0])
    message = reply.invoke("Hi")
    assert message.text == '{"status": "success"}'
    assert message.response_metadata["id"] != session_of(message)


# Fidelity


def denied(api: Api, path: str, **fields: Any) -> httpx.Response:
    policy = {"codes": {"code": DENYING, "language": "sqrt"}}
    headers = {**FEATURES, "X-Policy": json.dumps(policy)}
    return api.post(path, headers=headers, json={"model": "a/b", **fields})


@pytest.fixture(params=["full", "documented"])
def fidelity(request: pytest.FixtureRequest) -> Literal["full", "documented"]:
    value: Literal["full", "documented"] = request.param
    return value


@pytest.fixture
def api(
    fidelity: str, server: LocalServer, documented_server: LocalServer, http: httpx.Client
) -> Api:
    return Api(server if fidelity == "full" else documented_server, http, key="sq-formats")


SAID = {"messages": [{"role": "user", "content": "Get the weather of 'Rome'."}]}
CHAT_BODY = {**SAID, "tools": [declared("get_weather")]}


def test_the_finish_reason_of_a_failed_turn_depends_on_fidelity(api: Api, fidelity: str) -> None:
    [choice] = denied(api, CHAT_PATH, **CHAT_BODY).json()["choices"]
    assert choice["finish_reason"] == ("error" if fidelity == "documented" else "stop")
    assert json.loads(choice["message"]["content"])["status"] == "failure"


def test_the_id_of_a_reply_of_chat_completions_is_its_session(api: Api) -> None:
    reply = api.post(CHAT_PATH, headers=FEATURES, json={"model": "a/b", **CHAT_BODY})
    assert reply.json()["id"] == reply.headers["x-session-id"]


def test_a_failed_turn_of_responses_has_the_status_failed_and_its_text(api: Api) -> None:
    function = declared("get_weather")["function"]
    fields = {"input": "Get the weather of 'Rome'.", "tools": [{"type": "function", **function}]}
    body = denied(api, "/control/chat/v1/responses", **fields).json()
    assert body["status"] == "failed"
    assert body["error"]["message"]
    [item] = body["output"]
    assert json.loads(item["content"][0]["text"])["error"]["code"] == "policy_violation"


def test_a_failed_turn_of_messages_ends_with_end_turn(api: Api) -> None:
    function = declared("get_weather")["function"]
    used = {"name": "get_weather", "input_schema": function["parameters"]}
    body = denied(api, "/control/chat/v1/messages", max_tokens=99, tools=[used], **SAID).json()
    assert body["stop_reason"] == "end_turn"
    assert json.loads(body["content"][0]["text"])["status"] == "failure"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("of", [CHAT, RESPONSES, MESSAGES], ids=lambda of: of.format)
def test_a_denial_raises_policy_denied_with_every_fidelity(api: Api, of: Row, stream: bool) -> None:
    model: Any = of.make(
        base_url=api.server.base_url, features=DUAL, policy=DENYING, max_retries=0
    ).bind_tools([get_weather])
    shown: list[Any] = []
    with pytest.raises(PolicyDenied, match="get_weather"):
        shown += (
            model.stream("Get the weather of 'Rome'.")
            if stream
            else [model.invoke("Get the weather of 'Rome'.")]
        )
    assert "".join(str(chunk.text) for chunk in shown) == ""


def test_a_missing_forced_call_raises_forced_tool_missing(
    documented_server: LocalServer,
) -> None:
    model = ChatSequrity("a/b", base_url=documented_server.base_url, features=DUAL)
    with pytest.raises(ForcedToolMissing, match="Weather"):
        model.with_structured_output(Weather, method="function_calling").invoke("Hello")
