"""What a request requires of its answer comes, or there is an error (`docs/behaviour.md`, P4)."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import HumanMessage, ToolMessage

from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import ForcedToolMissing, PolicyDenied, ProgramFailed
from langchain_sequrity.local import LocalServer
from langchain_sequrity.wire.exchange import ChatRequest
from tests.chat_models.structured_responses import (
    ASK,
    DENYING,
    FORMATS,
    REPORT,
    WAYS,
    Report,
    failures,
    look_up,
)

DUAL = {"agent_arch": "dual-llm"}
LOOKS_UP = "x = look_up(word='bed')\n"
WITHOUT_CALL = f"{LOOKS_UP}final_return_value = 'published'"
Json = dict[str, Any]


class Planner:
    """Writes programs one after the other, and keeps what it was sent."""

    def __init__(self) -> None:
        self.programs: list[str] = []
        self.prompts: list[str] = []

    def __call__(self, request: ChatRequest) -> Json:
        self.prompts.append(str(request.messages[-1].text))
        return {"program": self.programs[min(len(self.prompts), len(self.programs)) - 1]}

    def begin(self, *programs: str) -> None:
        self.programs, self.prompts = [*programs], []


PLANNER = Planner()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    script: list[Any] = [
        {"when": {"role": "planner"}, "answer": PLANNER},
        {"when": {"user": "refuse"}, "refusal": "I will not."},
        {"when": {"user": "null"}, "text": "null"},
        {"text": "Hello."},
    ]
    with LocalServer(script=script, fidelity="full") as server:
        yield server.base_url


def dual(url: str, **options: Any) -> ChatSequrity:
    return ChatSequrity("any/model", base_url=url, features=DUAL, **options)


def test_an_agent_returns_an_instance_or_raises() -> None:
    kinds: Counter[str] = Counter()
    assert list(failures(range(40), kinds)) == []
    assert kinds.keys() >= {"ForcedToolMissing", "PolicyDenied", "Report"}


@pytest.mark.parametrize("way", WAYS)
def test_a_planner_that_ends_without_the_call_is_told_so_and_may_repair_its_program(
    url: str, way: str
) -> None:
    PLANNER.begin(WITHOUT_CALL, f"{LOOKS_UP}Report(text='bed')")
    agent: Any = create_agent(dual(url), [look_up], response_format=ToolStrategy(Report))
    state = WAYS[way](agent)
    assert state["structured_response"] == Report(text="bed")
    assert len(PLANNER.prompts) == 2
    assert "end with a call of `Report`" in PLANNER.prompts[-1]
    calls = [call["name"] for m in state["messages"] for call in getattr(m, "tool_calls", ())]
    assert calls == ["look_up", "Report"]


@pytest.mark.parametrize(
    "ending", ["final_return_value = None", "y = 1\ny", "final_return_value = {'text': 'bed'}"]
)
@pytest.mark.parametrize("lookups", [0, 1, 2])
def test_a_turn_without_the_call_fails_in_the_end(url: str, ending: str, lookups: int) -> None:
    made = "".join(f"x{n} = look_up(word='{n}')\n" for n in range(lookups))
    PLANNER.begin(made + ending)
    agent: Any = create_agent(dual(url), [look_up], response_format=ToolStrategy(Report))
    with pytest.raises(ProgramFailed, match="`Report`, which `tool_choice` requires") as caught:
        agent.invoke(ASK)
    assert caught.value.code == "forced_call_missing"
    assert len(PLANNER.prompts) == 3


def test_an_agent_can_be_asked_again_after_its_structured_response(url: str) -> None:
    program = f"{LOOKS_UP}Report(text='bed')\nkept = 7\nfinal_return_value = 'end'"
    PLANNER.begin(program)
    agent: Any = create_agent(dual(url), [look_up], response_format=ToolStrategy(Report))
    first = agent.invoke(ASK)
    PLANNER.begin("Report(text=f'{kept}')")
    again = agent.invoke({"messages": [*first["messages"], ("user", "Report what was kept.")]})
    assert again["structured_response"] == Report(text="7")
    assert len(PLANNER.prompts) == 1


def test_steps_of_a_turn_end_with_the_required_call(url: str) -> None:
    PLANNER.begin(LOOKS_UP, "final_return_value = x", "Report(text=x)")
    model = dual(url, session_config={"fsm": {"enable_multistep_planning": True}})
    agent: Any = create_agent(model, [look_up], response_format=ToolStrategy(Report))
    assert agent.invoke(ASK)["structured_response"] == Report(text="bed means 42")
    assert len(PLANNER.prompts) == 3


# The local server, for any client


def function(name: str) -> Json:
    parameters = {"type": "object", "properties": {"word": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


@pytest.mark.parametrize(
    ("choice", "program", "repaired", "calls"),
    [
        ("required", "final_return_value = 'hi'", "pay(word='a')", ["pay"]),
        ("required", "pay(word='a')", "", ["pay"]),
        ("required", "parse_with_ai(query='a')", "look_up(word='a')", ["look_up"]),
        (
            {"type": "function", "function": {"name": "pay"}},
            "final_return_value = 'hi'",
            "pay(word='a')",
            ["pay"],
        ),
        (
            {"type": "function", "function": {"name": "pay"}},
            "look_up(word='a')",
            "look_up(word='a')\npay(word='b')",
            ["look_up", "pay"],
        ),
        (
            {"type": "function", "function": {"name": "pay"}},
            "pay(word='a')\nfinal_return_value = 'paid'",
            "",
            ["pay"],
        ),
        ("auto", "final_return_value = 'hi'", "", []),
    ],
)
def test_the_local_server_enforces_tool_choice_on_programs(
    url: str, choice: Any, program: str, repaired: str, calls: list[str]
) -> None:
    PLANNER.begin(program, *filter(None, [repaired]))
    made: list[str] = []
    messages: list[Any] = [{"role": "user", "content": "Go."}]
    headers = {"X-Features": json.dumps(DUAL)}
    with openai.OpenAI(
        base_url=f"{url}/control/chat/v1", api_key="sq-test", default_headers=headers
    ) as client:
        # `required` holds for each reply, and a named tool has to be called in the turn.
        while len(made) < len(calls) or not made:
            ends = choice == "required" and bool(made)
            tools: Any = [function("look_up"), function("pay")]
            reply = client.chat.completions.create(
                model="any/m",
                messages=messages,
                tools=tools,
                tool_choice="auto" if ends else choice,
            )
            [message] = [row.message for row in reply.choices]
            if not message.tool_calls:
                break
            call: Any = message.tool_calls[0]
            made.append(call.function.name)
            messages += [
                message.model_dump(exclude_none=True),
                {"role": "tool", "tool_call_id": call.id, "content": "done"},
            ]
    assert made == calls
    assert len(PLANNER.prompts) == 1 + bool(repaired)


def test_after_the_first_reply_a_turn_without_required_calls_ends_as_ever(url: str) -> None:
    PLANNER.begin(WITHOUT_CALL)
    model = dual(url)
    first = model.bind_tools([look_up], tool_choice="any").invoke("Go.")
    result = ToolMessage("42", tool_call_id=first.tool_calls[0]["id"])
    answer = model.bind_tools([look_up]).invoke([HumanMessage("Go."), first, result])
    assert answer.text == "published"


def test_complete_turn_does_not_replace_the_required_call(url: str) -> None:
    PLANNER.begin("complete_turn(value='done')", "look_up(word='a')")
    fsm = {"enable_multistep_planning": True, "enabled_internal_tools": ["complete_turn"]}
    model = dual(url, session_config={"fsm": fsm}).bind_tools([look_up], tool_choice="any")
    assert [call["name"] for call in model.invoke("Go.").tool_calls] == ["look_up"]
    assert "end with a call of `look_up`" in PLANNER.prompts[-1]


# The client, with services that ignore `tool_choice`


@pytest.mark.parametrize("choice", ["any", "required", True])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_required_call_that_is_missing_raises(url: str, name: str, choice: Any, way: str) -> None:
    model = FORMATS[name]("any/m", base_url=url).bind_tools([look_up], tool_choice=choice)
    for text, words in (("hello", "has no call"), ("refuse", r"refusal \(I will not\)")):
        with pytest.raises(ForcedToolMissing, match=f"{words}.*`look_up`") as caught:
            list(model.stream(text)) if way == "stream" else model.invoke(text)
        assert caught.value.tool == "look_up"
        assert caught.value.message is not None


@pytest.mark.parametrize("choice", ["auto", None])
def test_a_call_that_is_not_required_may_be_missing(url: str, choice: Any) -> None:
    model = ChatSequrity("any/m", base_url=url).bind_tools([look_up], tool_choice=choice)
    assert model.invoke("hello").text == "Hello."


@pytest.mark.parametrize("way", WAYS)
def test_a_denial_is_raised_if_a_call_is_required_whatever_on_denied_says(
    url: str, way: str
) -> None:
    PLANNER.begin(WITHOUT_CALL)
    model = dual(url, policy=DENYING, on_denied="message")
    agent: Any = create_agent(model, [look_up], response_format=ToolStrategy(Report))
    with pytest.raises(PolicyDenied):
        WAYS[way](agent)


def test_null_is_not_an_answer_to_a_schema(url: str) -> None:
    model = ChatSequrity("any/m", base_url=url)
    agent: Any = create_agent(model, [], response_format=ProviderStrategy(REPORT))
    with pytest.raises(OutputParserException, match="not an object"):
        agent.invoke({"messages": [("user", "null")]})
    with pytest.raises(OutputParserException, match="`null`"):
        model.with_structured_output(REPORT).invoke("null")
    raw: Any = model.with_structured_output(REPORT, include_raw=True).invoke("null")
    assert raw["parsed"] is None
    assert isinstance(raw["parsing_error"], OutputParserException)


def test_a_structured_response_through_a_tool_needs_no_script() -> None:
    with LocalServer(fidelity="full") as server:
        for features in (DUAL, {"agent_arch": "single-llm"}):
            model = ChatSequrity("any/m", base_url=server.base_url, features=features)
            agent: Any = create_agent(model, [look_up], response_format=ToolStrategy(Report))
            response = agent.invoke({"messages": [("user", "look_up 'bed'")]})
            assert isinstance(response["structured_response"], Report)
