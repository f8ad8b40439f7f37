"""The table in README, "What each way enforces": each row is tested in all four ways."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph

from langchain_sequrity import ChatSequrity, LangGraphExecutor
from langchain_sequrity.errors import PolicyDenied, PolicyMismatch
from langchain_sequrity.local import LocalServer
from langchain_sequrity.middleware import PolicyMiddleware

README = Path(__file__).parents[1] / "README.md"
WAYS = ("PolicyMiddleware", "single-LLM", "dual-LLM", "LangGraphExecutor")


class Case:
    """A policy, and a call of `act` that follows a call of `look`.

    Args:
        policy: The text of the policy.
        to: The argument `to` of `act`.
        passes_on: Whether the argument `text` is the result of `look`.
    """

    def __init__(self, policy: str, *, to: str = "bo", passes_on: bool = True) -> None:
        self.policy = policy
        self.to = to
        self.text = "read" if passes_on else "hello"
        self.passes_on = passes_on
        self.ran: list[str] = []

    @property
    def calls(self) -> list[ToolCall]:
        """The calls, in the order in which a model writes them."""
        arguments = {"to": self.to, "text": self.text}
        return [
            ToolCall(name="look", args={}, id="1", type="tool_call"),
            ToolCall(name="act", args=arguments, id="2", type="tool_call"),
        ]

    def tools(self) -> list[Any]:
        """The tools. They record that they ran."""

        @tool
        def look() -> str:
            """Look outside."""
            self.ran.append("look")
            return "read"

        @tool
        def act(to: str, text: str) -> str:
            """Act."""
            self.ran.append("act")
            return f"{to}: {text}"

        return [look, act]


def by_middleware(case: Case) -> None:
    class Model(FakeMessagesListChatModel):
        def bind_tools(self, *_: Any, **__: Any) -> Any:
            return self

    said: list[BaseMessage] = [AIMessage("", tool_calls=[call]) for call in case.calls]
    model = Model(responses=[*said, AIMessage("done")])
    guard = PolicyMiddleware(case.policy)
    create_agent(model, case.tools(), middleware=[guard]).invoke({"messages": [HumanMessage("Go")]})


def by_service(case: Case, arch: str, script: list[dict[str, Any]]) -> None:
    tools = case.tools()
    with LocalServer(script=script) as server:
        model = ChatSequrity(
            "any/model",
            base_url=server.base_url,
            policy=case.policy,
            features={"agent_arch": arch},
        ).bind_tools(tools)
        messages: list[BaseMessage] = [HumanMessage("Go")]
        while True:
            answer = model.invoke(messages)
            messages.append(answer)
            if not answer.tool_calls:
                return
            [call] = answer.tool_calls
            messages.append(next(one for one in tools if one.name == call["name"]).invoke(call))


def by_single(case: Case) -> None:
    look, act = ({"name": call["name"], "arguments": call["args"]} for call in case.calls)
    script: list[dict[str, Any]] = [
        {"when": {"tool_result": "^bo|^eve"}, "text": "done"},
        {"when": {"tool_result": "read"}, "tool_calls": [act]},
        {"tool_calls": [look]},
    ]
    by_service(case, "single-llm", script)


def by_dual(case: Case) -> None:
    text = "page" if case.passes_on else repr(case.text)
    program = f"page = look()\nact(to={case.to!r}, text={text})\nfinal_return_value = 'done'"
    by_service(case, "dual-llm", [{"program": program}])


class State(TypedDict, total=False):
    to: str
    text: str
    page: str
    done: str


def by_executor(case: Case) -> None:
    def look(_: State) -> State:
        case.ran.append("look")
        return {"text": "read"}

    def look_aside(_: State) -> State:
        case.ran.append("look")
        return {"page": "read"}

    def act(state: State) -> State:
        case.ran.append("act")
        return {"done": f"{state['to']}: {state['text']}"}

    first: Any = look if case.passes_on else look_aside
    steps = StateGraph(State)
    steps.add_node("look", first)
    steps.add_node("act", act)
    steps.add_edge(START, "look")
    steps.add_edge("look", "act")
    with LocalServer() as server:
        model = ChatSequrity("any/model", base_url=server.base_url, policy=case.policy)
        LangGraphExecutor(steps, model).invoke({"to": case.to, "text": case.text})


RUNNERS: dict[str, Callable[[Case], None]] = dict(
    zip(WAYS, (by_middleware, by_single, by_dual, by_executor), strict=True)
)
LABEL = 'tool "look" -> @tags |= {"out"}; tool "act" { must deny when text.tags overlaps {"out"}; }'
ROWS: dict[str, tuple[str, dict[str, bool], Callable[[], Case]]] = {
    "value": (
        "values of arguments",
        dict.fromkeys(WAYS, True),
        lambda: Case('tool "act" { must deny when to.value == "eve"; }', to="eve"),
    ),
    "value that is allowed": (
        "values of arguments",
        dict.fromkeys(WAYS, False),
        lambda: Case('tool "act" { must deny when to.value == "eve"; }', to="bo"),
    ),
    "labels of arguments": (
        "labels of arguments",
        {**dict.fromkeys(WAYS, True), "single-LLM": False},
        lambda: Case(LABEL),
    ),
    "labels of an argument that has nothing to do with it": (
        "labels of arguments",
        {**dict.fromkeys(WAYS, False), "PolicyMiddleware": True},
        lambda: Case(LABEL, passes_on=False),
    ),
    "session": (
        "labels of the session",
        dict.fromkeys(WAYS, True),
        lambda: Case(
            'tool "look" -> session @tags |= {"seen"};'
            'tool "act" { must deny when "seen" in @session.tags; }',
            passes_on=False,
        ),
    ),
    "results": (
        "labels of results",
        dict.fromkeys(WAYS, True),
        lambda: Case(
            """
            tool "look" {
                result { @tags |= {"out"}; }
                session after { when @result.tags overlaps {"out"} { @tags |= {"seen"}; } }
            }
            tool "act" { must deny when "seen" in @session.tags; }
            """,
            passes_on=False,
        ),
    ),
}  # fmt: skip


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row", ROWS)
def test_each_way_enforces_what_the_table_says(row: str, way: str) -> None:
    _, denies, make = ROWS[row]
    case = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PolicyMismatch)  # single-LLM has no labels of arguments
        try:
            RUNNERS[way](case)
        except PolicyDenied as denied:
            assert denied.tool == "act"  # noqa: PT017 - two of the ways raise nothing
    assert case.ran == (["look"] if denies[way] else ["look", "act"])


def test_the_table_has_a_column_for_each_way_and_a_row_for_each_case() -> None:
    section = README.read_text("utf-8").partition("## What each way enforces")[2].partition("##")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert all(way in lines[0] for way in WAYS)
    for title, denies, _ in ROWS.values():
        [line] = [line for line in lines if line.startswith(f"| {title}")]
        cells = [cell.strip() for cell in line.replace("\\|", "").strip("|").split("|")[1:]]
        for way, cell in zip(WAYS, cells, strict=True):
            if title == "labels of arguments":
                assert cell.startswith("**no**") == (way == "single-LLM")
            else:
                assert cell.startswith("yes"), (title, way)
        assert set(denies) == set(WAYS)
