"""People and agents use the tool with a local server."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolCall, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from langchain_sequrity import ChatSequrity, SequrityMessages
from langchain_sequrity.local import LocalServer
from langchain_sequrity.policy_generation import NoPolicy, PolicyGenTool, PolicyProposal
from langchain_sequrity.sqrt import check
from tests.graph.services import Noted
from tests.policy_generation.conftest import Generate
from tests.policy_generation.service import POLICY, read_page, send_mail

MODELS: list[tuple[Any, dict[str, Any]]] = [
    (ChatSequrity, {}),
    (ChatSequrity, {"provider": "openai"}),
    (ChatSequrity, {"provider": "openrouter"}),
    (ChatSequrity, {"provider": "sequrity_azure"}),
    (ChatSequrity, {"provider": "sequrity_azure", "use_responses_api": True}),
    (SequrityMessages, {}),
]
ASKED = "Nothing from the web goes out."
BAD = POLICY.replace("send_mail", "send_mial")


def script(policy: str = POLICY) -> list[dict[str, Any]]:
    """A script: the agent asks for a policy once and gets this one."""
    call = {"name": "generate_policy", "arguments": {"description": ASKED}}
    return [
        {"when": {"role": "policy"}, "policy": policy},
        {"when": {"tool_result": ""}, "text": "Here it is: {tool_result}"},
        {"when": {"user": "policy"}, "tool_calls": [call]},
        {"text": "Hello."},
    ]


@pytest.fixture(scope="module")
def scripted() -> Iterator[str]:
    with LocalServer(script=script()) as server:
        yield server.base_url


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Callable[[Any, Any], Any]:
    """Run an agent or a graph."""
    if request.param == "sync":
        return lambda agent, given: agent.invoke(given)
    return lambda agent, given: asyncio.run(agent.ainvoke(given))


@pytest.mark.parametrize(("kind", "options"), MODELS)
def test_every_variant_generates_policies_that_models_accept(
    base_url: str, generate: Generate, kind: Any, options: dict[str, Any]
) -> None:
    model = kind("any/model", base_url=base_url, **options)
    tool = PolicyGenTool(model.bind_tools([read_page, send_mail]), mode="single-llm")
    policy = generate(tool, ASKED)
    assert 'tool "send_mail"' in policy.codes.code
    assert check(policy.codes.code, tool.tools) == []
    guarded = model.model_copy(update={"policy": policy, "features": {"agent_arch": "single-llm"}})
    assert guarded.invoke("Hello").text


def test_a_model_name_and_connection_arguments_are_enough(
    scripted: str, generate: Generate
) -> None:
    tool = PolicyGenTool("any/model", [send_mail], base_url=scripted, provider="anthropic")
    assert generate(tool, ASKED).codes.code == POLICY


@pytest.mark.parametrize(("kind", "options"), MODELS)
def test_an_agent_gets_a_policy_from_the_tool_and_continues(
    scripted: str, run: Callable[[Any, Any], Any], kind: Any, options: dict[str, Any]
) -> None:
    model = kind("any/model", base_url=scripted, **options)
    agent = create_agent(model, [PolicyGenTool(model, [send_mail]), send_mail])
    messages = run(agent, {"messages": [HumanMessage("Write a policy.")]})["messages"]
    result = next(one for one in messages if isinstance(one, ToolMessage))
    assert (result.content, result.status) == (POLICY, "success")
    assert isinstance(result.artifact, PolicyProposal)
    assert messages[-1].text == f"Here it is: {POLICY}"


def test_an_agent_with_a_checkpointer_keeps_the_proposal(scripted: str) -> None:
    model = ChatSequrity("any/model", base_url=scripted)
    tool = PolicyGenTool(model, [send_mail])
    agent = create_agent(model, [tool], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    agent.invoke({"messages": [HumanMessage("Write a policy.")]}, config)
    kept = agent.get_state(config).values["messages"]
    (result,) = [one for one in kept if isinstance(one, ToolMessage)]
    assert result.artifact["text"] == POLICY
    assert agent.invoke({"messages": [HumanMessage("Thanks")]}, config)["messages"][-1].text


def test_a_tool_node_runs_the_tool(scripted: str, run: Callable[[Any, Any], Any]) -> None:
    tool = PolicyGenTool("any/model", [send_mail], base_url=scripted)
    node = ToolNode([tool])
    graph = StateGraph(MessagesState).add_node("tools", node).add_edge(START, "tools").compile()
    call = ToolCall(name=tool.name, args={"description": ASKED}, id="c1", type="tool_call")
    (result,) = run(graph, {"messages": [AIMessage("", tool_calls=[call])]})["messages"][1:]
    assert (result.content, result.tool_call_id) == (POLICY, "c1")


def test_several_agents_share_one_tool(scripted: str) -> None:
    tool = PolicyGenTool("any/model", [send_mail], base_url=scripted)

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(tool.agenerate(f"{ASKED} {i}") for i in range(20)))

    assert {policy.codes.code for policy in asyncio.run(all_at_once())} == {POLICY}
    assert tool.batch([{"description": ASKED}] * 20) == [POLICY] * 20


def test_handle_tool_error_gives_the_agent_the_reason_why_there_is_no_policy(
    run: Callable[[Any, Any], Any],
) -> None:
    given = {"messages": [HumanMessage("Write a policy.")]}
    with LocalServer(script=script(BAD)) as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        raising = PolicyGenTool(model, [send_mail], n_retries=0)
        with pytest.raises(NoPolicy, match="send_mial"):
            run(create_agent(model, [raising]), given)
        telling = raising.model_copy(update={"handle_tool_error": True})
        messages = run(create_agent(model, [telling]), given)["messages"]
        model.close()
    (result,) = [one for one in messages if isinstance(one, ToolMessage)]
    assert (result.status, result.artifact) == ("error", None)
    assert "There is no tool `send_mial`" in result.text
    assert messages[-1].text.startswith("Here it is: ")


def test_generating_a_policy_changes_neither_the_model_nor_its_session(scripted: str) -> None:
    sent = Noted()
    with httpx.Client(event_hooks={"request": [sent]}, trust_env=False) as client:
        model = ChatSequrity("any/model", base_url=scripted, http_client=client)
        before = repr(model)
        first = model.invoke("Hello")
        bound = model.bind_tools([send_mail])
        tool = PolicyGenTool(bound)
        policy = tool.generate(ASKED)
        assert tool.invoke({"description": ASKED}) == POLICY
        second = bound.invoke([HumanMessage("Hello"), first, HumanMessage("Hello again")])
    assert policy.codes is not None
    assert policy.codes.code == POLICY
    assert second.text == "Hello."
    assert repr(model) == before
    assert model.policy is None
    assert [name for one in sent.requests for name in one.headers if name == "x-policy"] == []
    session = first.response_metadata["sequrity"]["session_id"]
    assert sent.sessions() == [None, None, None, session]
