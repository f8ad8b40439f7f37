"""No middleware of LangChain or deepagents lets another model or tool act after a denial."""

import gc
import inspect
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent, middleware
from langchain.agents.middleware import (
    AgentMiddleware,
    AutoModeMiddleware,
    ContextEditingMiddleware,
    FilesystemFileSearchMiddleware,
    HostExecutionPolicy,
    HumanInTheLoopMiddleware,
    LLMToolEmulator,
    LLMToolSelectorMiddleware,
    ModelCallLimitMiddleware,
    ModelChoice,
    ModelFallbackMiddleware,
    ModelRefusalMiddleware,
    ModelRetryMiddleware,
    ModelRouterMiddleware,
    PIIMiddleware,
    ProviderToolSearchMiddleware,
    ShellToolMiddleware,
    SummarizationMiddleware,
    TodoListMiddleware,
    ToolCallLimitMiddleware,
    ToolErrorMiddleware,
    ToolRetryMiddleware,
)
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.decisions import (
    BaseDecisionModel,
    ChoiceAnswer,
    ClassifierResponse,
    NoulAnswer,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from langchain_sequrity import ChatSequrity, SequrityMessages
from langchain_sequrity.errors import PolicyDenied, UsageError
from langchain_sequrity.local import LocalServer
from langchain_sequrity.middleware import PolicyMiddleware
from tests.graph.apps.scripted import ScriptedModel, calling
from tests.middleware.agents import THREAD

pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.LangChainBetaWarning",
    # `ShellToolMiddleware` leaves the pipes of its shell open.
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)

POLICY = """
tool "read_diary" -> @tags |= {"private"};
tool "publish" {
    /// diaries stay at home
    must deny when text.tags overlaps {"private"};
}
"""
PROGRAM = """
page = read_diary()
publish(text=f"Today: {page}")
final_return_value = "published"
"""


class Press:
    """Tools that record what was published, and a model without a policy that would call them."""

    def __init__(self) -> None:
        self.published: list[str] = []
        self.asked = 0

    def read_diary(self) -> str:
        """Read my diary."""
        return "I water the beds."

    def publish(self, text: str) -> str:
        """Publish a text."""
        self.published.append(text)
        return "done"

    @property
    def unguarded(self) -> BaseChatModel:
        def answer(_: Sequence[BaseMessage]) -> str | AIMessage:
            self.asked += 1
            return "done" if self.published else calling(("publish", {"text": "my diary"}))

        return ScriptedModel(answer=answer)


class Classifier(BaseDecisionModel):
    """Lets everything pass, and routes to the guarded model."""

    @property
    def _provider(self) -> str:
        return "scripted"

    def _classify(self, state: Any, questions: Any) -> ClassifierResponse:  # noqa: ARG002 - LangChain's signature
        answers: dict[str, Any] = {
            name: ChoiceAnswer(
                type="choice", choice="guarded", confidence=1.0, probabilities={"guarded": 1.0}
            )
            if name == "model_route"
            else NoulAnswer(type="noul", noul=0.0)
            for name in questions
        }
        return ClassifierResponse(model="scripted", answers=answers)


class Selector(ScriptedModel):
    """Answers with names of tools, and otherwise with a text."""

    answer: Any = staticmethod(lambda _: "I water the beds.")

    def with_structured_output(self, *_: Any, **__: Any) -> Any:
        return RunnableLambda(lambda _: {"tools": ["read_diary", "publish"]})


Makes = Callable[[Press, BaseChatModel, Path], list[AgentMiddleware[Any, Any, Any]]]
BUILT_IN: dict[type[Any], Makes] = {
    AutoModeMiddleware: lambda *_: [
        AutoModeMiddleware(tools=["publish", "read_diary"], classifier=Classifier(model="scripted"))
    ],
    ContextEditingMiddleware: lambda *_: [ContextEditingMiddleware()],
    FilesystemFileSearchMiddleware: lambda _, __, path: [
        FilesystemFileSearchMiddleware(root_path=str(path), use_ripgrep=False)
    ],
    HumanInTheLoopMiddleware: lambda *_: [HumanInTheLoopMiddleware({"publish": True})],
    LLMToolEmulator: lambda *_: [LLMToolEmulator(tools=["read_diary"], model=Selector())],
    LLMToolSelectorMiddleware: lambda *_: [LLMToolSelectorMiddleware(model=Selector())],
    ModelCallLimitMiddleware: lambda *_: [ModelCallLimitMiddleware(run_limit=9)],
    ModelFallbackMiddleware: lambda press, *_: [ModelFallbackMiddleware(press.unguarded)],
    ModelRefusalMiddleware: lambda *_: [ModelRefusalMiddleware()],
    ModelRetryMiddleware: lambda *_: [
        ModelRetryMiddleware(retry_on=(Exception,), initial_delay=0, on_failure="continue")
    ],
    ModelRouterMiddleware: lambda press, guarded, _: [
        ModelRouterMiddleware(
            choices={
                "guarded": ModelChoice(guarded, "always"),
                "other": ModelChoice(press.unguarded, "never"),
            },
            instructions="Choose.",
            classifier=Classifier(model="scripted"),
        )
    ],
    PIIMiddleware: lambda *_: [
        PIIMiddleware("email", apply_to_output=True, apply_to_tool_results=True)
    ],
    ProviderToolSearchMiddleware: lambda *_: [ProviderToolSearchMiddleware()],
    ShellToolMiddleware: lambda _, __, path: [
        ShellToolMiddleware(path, execution_policy=HostExecutionPolicy())
    ],
    SummarizationMiddleware: lambda press, *_: [
        SummarizationMiddleware(press.unguarded, trigger=("messages", 50))
    ],
    TodoListMiddleware: lambda *_: [TodoListMiddleware()],
    ToolCallLimitMiddleware: lambda *_: [ToolCallLimitMiddleware(run_limit=9)],
    ToolErrorMiddleware: lambda *_: [ToolErrorMiddleware(on_error=lambda error, _: str(error))],
    ToolRetryMiddleware: lambda *_: [
        ToolRetryMiddleware(retry_on=(Exception,), initial_delay=0, on_failure="continue")
    ],
}  # fmt: skip
ROWS = pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.__name__)
ORDERS = pytest.mark.parametrize("order", [1, -1], ids=["inside a fallback", "around a fallback"])
ON_DENIED = pytest.mark.parametrize("on_denied", ["raise", "message"])
WAYS = pytest.mark.parametrize("way", ["invoke", "astream"])


def beside_a_fallback(
    kind: type[Any], order: int, press: Press, model: BaseChatModel, path: Path
) -> list[AgentMiddleware[Any, Any, Any]]:
    """A middleware inside or around one that lets another model answer after an error."""
    others = [
        m for m in BUILT_IN[kind](press, model, path) if type(m) is not ModelFallbackMiddleware
    ]
    return [ModelFallbackMiddleware(press.unguarded), *others][::order]


def test_every_middleware_that_langchain_ships_is_in_the_table() -> None:
    shipped = {
        one
        for name in middleware.__all__
        if inspect.isclass(one := getattr(middleware, name))
        and issubclass(one, AgentMiddleware)
        and one is not AgentMiddleware
    }
    assert shipped == set(BUILT_IN)


@pytest.fixture(scope="module")
def planner() -> Iterator[ChatSequrity]:
    with LocalServer(script=[{"program": PROGRAM}] * 1_000) as server:
        yield ChatSequrity(
            "any/planner",
            base_url=server.base_url,
            features={"agent_arch": "dual-llm"},
            policy=POLICY,
        )


@pytest.fixture(autouse=True)
def _shells_are_left_behind() -> Iterator[None]:
    """Their pipes are collected here, where the warnings are ignored."""
    yield
    gc.collect()


def question() -> Any:
    return {"messages": [HumanMessage("Publish today's page of my diary.")]}


async def run(agent: Any, way: str) -> Any:
    if way == "invoke":
        return agent.invoke(question(), THREAD)
    if way == "stream":
        return list(agent.stream(question(), THREAD, stream_mode="values"))
    if way == "astream":
        return [one async for one in agent.astream(question(), THREAD, stream_mode="values")]
    return await agent.ainvoke(question(), THREAD)


async def check_the_denial(agent: Any, press: Press, on_denied: str, way: str) -> None:
    """A denial is raised or is the last message, and nothing else acts."""
    if on_denied == "raise":
        with pytest.raises(PolicyDenied) as caught:
            await run(agent, way)
        assert caught.value.tool == "publish"
    else:
        found = await run(agent, way)
        message = (found[-1] if isinstance(found, list) else found)["messages"][-1]
        assert message.text.startswith("The policy denied the call of `publish`")
        assert message.response_metadata["sequrity"]["denial"]["tool"] == "publish"
    assert (press.published, press.asked) == ([], 0)


@pytest.mark.long(sample=12)
@ROWS
@ORDERS
@ON_DENIED
@WAYS
async def test_after_a_denial_of_the_model_nothing_else_acts(
    planner: ChatSequrity, tmp_path: Path, kind: type[Any], order: int, on_denied: str, way: str
) -> None:
    press = Press()
    model = planner.model_copy(update={"on_denied": on_denied})
    agent: Any = create_agent(
        model,
        [press.read_diary, press.publish],
        middleware=beside_a_fallback(kind, order, press, model, tmp_path),
        checkpointer=InMemorySaver(),
    )
    await check_the_denial(agent, press, on_denied, way)
    if on_denied == "raise":
        last = agent.get_state(THREAD).values["messages"][-1]
        assert last.type == "tool"  # no answer follows, not even an empty one


SINGLE = [
    ChatSequrity,
    SequrityMessages,
    lambda *args, **kwargs: ChatSequrity(*args, use_responses_api=True, **kwargs),
]


@pytest.mark.long(sample=5)
@ROWS
@ORDERS
@ON_DENIED
@pytest.mark.parametrize("single", SINGLE, ids=["chat/completions", "messages", "responses"])
async def test_after_a_denial_of_a_single_llm_session_nothing_else_acts(
    tmp_path: Path, kind: type[Any], order: int, on_denied: str, single: Any
) -> None:
    say = {"tool_calls": [{"name": "publish", "arguments": {"text": "x"}}]}
    with LocalServer(script=[say] * 5) as server:
        model = single(
            "any/model",
            base_url=server.base_url,
            features={"agent_arch": "single-llm"},
            policy='tool "publish" { must deny always; }',
            on_denied=on_denied,
        )
        for way in ("invoke", "astream"):
            press = Press()
            tools: list[Any] = [press.read_diary, press.publish]
            before = beside_a_fallback(kind, order, press, model, tmp_path)
            agent: Any = create_agent(model, tools, middleware=before)
            await check_the_denial(agent, press, on_denied, way)


@pytest.mark.parametrize("architecture", ["dual-llm", "single-llm"])
def test_a_denial_is_raised_where_an_agent_would_read_a_structured_answer(
    planner: ChatSequrity, architecture: str
) -> None:
    class Page(BaseModel):
        text: str

    press = Press()
    say = {"tool_calls": [{"name": "publish", "arguments": {"text": "x"}}]}
    with LocalServer(script=[say] * 5) as server:
        single = ChatSequrity(
            "any/model",
            base_url=server.base_url,
            features={"agent_arch": "single-llm"},
            policy='tool "publish" { must deny always; }',
        )
        model = planner if architecture == "dual-llm" else single
        agent: Any = create_agent(
            model.model_copy(update={"on_denied": "message"}),
            [press.read_diary, press.publish],
            middleware=[ModelFallbackMiddleware(press.unguarded)],
            response_format=ProviderStrategy(Page),
        )
        with pytest.raises(PolicyDenied):
            agent.invoke(question())
    assert (press.published, press.asked) == ([], 0)


@pytest.mark.long(sample=12)
@ROWS
@ON_DENIED
@pytest.mark.parametrize(
    "is_last", [True, False], ids=["the policy is last", "the policy is first"]
)
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_a_call_that_the_policy_middleware_denies_is_not_made(
    tmp_path: Path, kind: type[Any], on_denied: Any, is_last: bool, way: str
) -> None:
    press = Press()
    script = iter(
        [calling(("read_diary", {})), calling(("publish", {"text": "I water the beds."}))]
    )
    model = ScriptedModel(answer=lambda _: next(script, "It was denied."))
    guard = PolicyMiddleware('tool "publish" { must deny always; }', on_denied=on_denied)
    others = [
        one
        for one in BUILT_IN[kind](press, model, tmp_path)
        if not isinstance(one, HumanInTheLoopMiddleware)  # it would wait for a human
    ]
    around = [*others, guard] if is_last else [guard, *others]
    tools: list[Any] = [press.read_diary, press.publish]
    agent: Any = create_agent(model, tools, middleware=around, checkpointer=InMemorySaver())
    # Middleware that wraps tool calls inside the policy is refused at the first call.
    wraps = [type(m).wrap_tool_call is not AgentMiddleware.wrap_tool_call for m in others]
    if any(wraps) and not is_last:
        with pytest.raises(UsageError, match="must be the last item"):
            await run(agent, way)
    elif on_denied == "raise":
        with pytest.raises(PolicyDenied):
            await run(agent, way)
    else:
        assert (await run(agent, way))["messages"][-1].text == "It was denied."
    assert (press.published, press.asked) == ([], 0)


@pytest.mark.skipif(find_spec("deepagents") is None, reason="`deepagents` is not installed")
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_deep_agent_ends_with_the_denial(planner: ChatSequrity, way: str) -> None:
    from deepagents import create_deep_agent  # noqa: PLC0415 - may be missing

    press = Press()
    agent: Any = create_deep_agent(
        planner,
        [press.read_diary, press.publish],
        middleware=[ModelFallbackMiddleware(press.unguarded)],
        checkpointer=InMemorySaver(),
    )
    with pytest.raises(PolicyDenied):
        await run(agent, way)
    assert (press.published, press.asked) == ([], 0)


@pytest.mark.skipif(find_spec("deepagents") is None, reason="`deepagents` is not installed")
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_the_denial_of_a_subagent_is_raised_and_not_a_result_for_its_parent(
    planner: ChatSequrity, way: str
) -> None:
    from deepagents import create_deep_agent  # noqa: PLC0415 - may be missing

    press = Press()
    parent = ScriptedModel(
        answer=lambda messages: (
            "done"
            if any(one.type == "tool" for one in messages)
            else calling(("task", {"description": "Publish it.", "subagent_type": "writer"}))
        )
    )
    writer: Any = {
        "name": "writer",
        "description": "Writes.",
        "system_prompt": "Write.",
        "model": planner,
        "tools": [press.read_diary, press.publish],
        "middleware": [ModelFallbackMiddleware(press.unguarded)],
    }
    agent: Any = create_deep_agent(
        parent, [], subagents=[writer], middleware=[ToolRetryMiddleware(initial_delay=0)]
    )
    with pytest.raises(PolicyDenied):
        await run(agent, way)
    assert (press.published, press.asked) == ([], 0)
