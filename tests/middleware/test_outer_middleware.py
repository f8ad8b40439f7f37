"""Other middleware around the policy: what it makes of results, and calls that it brings itself."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, hook_config, wrap_tool_call
from langchain.tools import tool
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send

from langchain_sequrity import labeled_tool_result, with_labels
from langchain_sequrity.errors import UsageError
from langchain_sequrity.middleware import PolicyMiddleware, SharedSessionState, thread_labels
from tests.middleware.agents import (
    NO_RULES,
    THREAD,
    Till,
    agent,
    ask,
    calling,
    kinds,
    results,
    turns,
)
from tests.middleware.session_oracle import in_another_process, new_saver
from tests.middleware.test_sessions import ONCE, PAYS, TWICE, last_kinds

Wraps = Callable[[Any, Callable[..., Any]], Any]


def message_of(result: Any) -> ToolMessage:
    update: Any = result.update if isinstance(result, Command) else {"messages": [result]}
    [message] = update["messages"]
    assert isinstance(message, ToolMessage)
    return message


def unwraps(request: Any, handler: Callable[..., Any]) -> Any:
    return message_of(handler(request))


def rebuilds(request: Any, handler: Callable[..., Any]) -> Any:
    text = f"Result: {message_of(handler(request)).text}"
    return ToolMessage(text, tool_call_id=request.tool_call["id"])


def updates(request: Any, handler: Callable[..., Any]) -> Any:
    return Command(update={"messages": [message_of(handler(request))]})


def repeats(request: Any, handler: Callable[..., Any]) -> Any:
    first = handler(request)
    handler(request)
    return message_of(first)


def hides_errors(request: Any, handler: Callable[..., Any]) -> Any:
    handler(request)
    return ToolMessage("It failed.", tool_call_id=request.tool_call["id"], status="error")


WRAPPERS = pytest.mark.parametrize("wraps", [unwraps, rebuilds, updates, repeats, hides_errors])


@WRAPPERS
@pytest.mark.parametrize("is_direct", [False, True], ids=["", "return_direct"])
@pytest.mark.parametrize("is_restarted", [False, True], ids=["same process", "another process"])
def test_a_call_counts_whatever_other_middleware_returns_for_it(
    wraps: Wraps, *, is_direct: bool, is_restarted: bool
) -> None:
    paid: list[int] = []

    @tool(return_direct=is_direct)
    def pay(euros: int) -> str:
        """Pay."""
        paid.append(euros)
        return "paid"

    saver, around = new_saver(), [wrap_tool_call(wraps)]
    script = (PAYS, PAYS) if is_direct else (PAYS, "done", PAYS)
    run = agent(ONCE, [pay], *script, middleware=around, checkpointer=saver)
    run.invoke(ask(), THREAD)
    if is_restarted:
        saver = in_another_process(saver)
        run = agent(ONCE, [pay], *script, middleware=around, checkpointer=saver)
    run.invoke(ask("again"), THREAD)
    assert paid == [5]


@pytest.mark.parametrize("wraps", [None, unwraps])
def test_a_call_counts_if_the_process_ends_right_after_it(wraps: Wraps | None) -> None:
    till, saver = Till(), new_saver()
    around: list[Any] = [wrap_tool_call(wraps)] if wraps else []
    stops = create_agent(
        turns(PAYS),
        [till.pay],
        middleware=[*around, PolicyMiddleware(ONCE)],
        checkpointer=saver,
        interrupt_after=["tools"],
    )
    stops.invoke(ask(), THREAD)
    run = agent(ONCE, [till.pay], PAYS, PAYS, checkpointer=in_another_process(saver))
    assert last_kinds(run, THREAD) == ["policy"]
    assert len(till.paid) == 1


@pytest.mark.parametrize("has_tags", [True, False])
def test_a_stored_call_that_changed_nothing_when_it_ended_counts_for_nothing_afterwards(
    has_tags: bool,
) -> None:
    code = """
        tool "pay" {
            must deny when "much" in @session.tags;
            session after { when @result.value == "much" { @tags |= {"much"}; } }
        }
    """
    policy = {"codes": code, "presets": {"enable_non_executable_memory": has_tags}}
    till, saver = Till(), new_saver()
    stops = create_agent(
        turns(PAYS),
        [till.pay],
        middleware=[PolicyMiddleware(policy)],
        checkpointer=saver,
        interrupt_after=["tools"],
    )
    stops.invoke(ask(), THREAD)
    run = agent(policy, [till.pay], PAYS, PAYS, checkpointer=in_another_process(saver))
    assert last_kinds(run, THREAD) == ["made"]


def test_a_denied_call_is_not_taken_for_one_that_was_made_in_another_process() -> None:
    policy = """
        tool "pay" {
            must deny when "paid" in @session.tags;
            must deny when euros.value == 7;
            session after { @tags |= {"paid"}; }
        }
    """

    @tool
    def pay(euros: Any) -> str:
        """Pay."""
        return f"paid {euros}"

    pay.args_schema = {"type": "object", "properties": {"euros": {}}, "required": ["euros"]}

    @wrap_tool_call
    def sevens(request: Any, handler: Callable[..., Any]) -> Any:
        return handler(request.override(tool_call={**request.tool_call, "args": {"euros": 7}}))

    saver = new_saver()
    stops = create_agent(
        turns(PAYS),
        [pay],
        middleware=[sevens, PolicyMiddleware(policy)],
        checkpointer=saver,
        interrupt_after=["tools"],
    )
    assert kinds(stops.invoke(ask(), THREAD)) == ["policy"]
    run = agent(policy, [pay], PAYS, PAYS, checkpointer=in_another_process(saver))
    assert last_kinds(run, THREAD) == ["made"]


@WRAPPERS
@pytest.mark.parametrize("is_direct", [False, True], ids=["", "return_direct"])
def test_labels_that_are_set_while_a_tool_runs_stay_whatever_other_middleware_returns(
    wraps: Wraps, *, is_direct: bool
) -> None:
    @tool(return_direct=is_direct)
    def web() -> str:
        """Read the web."""
        with_labels({"page": "page"}, tags=["web"])
        return "page"

    policy = 'tool "pay" { must deny when euros.tags overlaps {"web"}; }'
    till, saver = Till(), new_saver()
    around = [wrap_tool_call(wraps)]
    reads = calling(("web", {}))
    script = (reads, PAYS) if is_direct else (reads, PAYS, "done", PAYS)
    options: Any = {"middleware": around, "labels": ["web"]}
    run = agent(policy, [web, till.pay], *script, checkpointer=saver, **options)
    run.invoke(ask(), THREAD)
    saver = in_another_process(saver)
    run = agent(policy, [web, till.pay], *script, checkpointer=saver, **options)
    run.invoke(ask("again"), THREAD)
    assert till.paid == []


def test_labels_that_other_middleware_dropped_do_not_reach_another_run() -> None:
    tags = [["web"], []]

    @tool("web")
    def reads() -> str:
        """Read the web."""
        with_labels({"page": "page"}, tags=tags.pop(0))
        return "page"

    policy = 'tool "pay" { must deny when euros.tags overlaps {"web"}; }'
    script = (calling(("web", {})), PAYS)  # the model gives the same ids in each run
    till, around = Till(), [wrap_tool_call(unwraps)]
    run = agent(policy, [reads, till.pay], *script, middleware=around, labels=["web"])
    assert [kinds(run.invoke(ask()))[-1] for _ in range(2)] == ["policy", "made"]


@pytest.mark.parametrize(("policy", "most"), [(ONCE, 1), (TWICE, 1), (NO_RULES, 2)])
async def test_a_call_that_the_session_counts_does_not_run_twice_at_the_same_time(
    policy: str, most: int
) -> None:
    paid: list[int] = []

    @tool
    async def pay(euros: int) -> str:
        """Pay."""
        await asyncio.sleep(0)
        paid.append(euros)
        return "paid"

    class Hedges(AgentMiddleware[Any, Any, Any]):
        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            results = await asyncio.gather(handler(request), handler(request))
            return results[0]

    run = agent(policy, [pay], PAYS, PAYS, middleware=[Hedges()], checkpointer=InMemorySaver())
    await run.ainvoke(ask(), THREAD)
    assert len(paid) == most * (1 if policy == ONCE else 2)


def test_a_result_from_a_cache_brings_no_session_of_another_thread() -> None:
    cache: dict[str, Any] = {}

    @wrap_tool_call
    def caches(request: Any, handler: Callable[..., Any]) -> Any:
        name = request.tool_call["name"]
        if name == "pay" or name not in cache:
            cache[name] = handler(request)
        return cache[name]

    @tool
    def look() -> str:
        """Look."""
        return "x"

    policy = ONCE + 'tool "look" { session after { @tags |= {"looked"}; } }'
    till, saver = Till(), InMemorySaver()
    script = (PAYS, calling(("look", {})), PAYS)
    run = agent(policy, [till.pay, look], *script, middleware=[caches], checkpointer=saver)
    first: Any = {"configurable": {"thread_id": "1"}}
    looks = agent(policy, [till.pay, look], script[1], middleware=[caches], checkpointer=saver)
    looks.invoke(ask(), first)
    run.invoke(ask(), THREAD)
    assert len(till.paid) == 1
    session = thread_labels(run.get_state(THREAD).values).session
    assert session.tags == {"paid"}


# Calls that come without the model


class Jumps(AgentMiddleware[Any, Any, Any]):
    """Makes the pending calls of the conversation before the model is called."""

    @hook_config(can_jump_to=["tools"])
    def before_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002
        message = state["messages"][-1]
        is_pending = isinstance(message, AIMessage) and bool(message.tool_calls)
        return {"jump_to": "tools"} if is_pending else None


class JumpsFirst(AgentMiddleware[Any, Any, Any]):
    """As `Jumps`, even before the hooks that run once."""

    @hook_config(can_jump_to=["tools"])
    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        return Jumps().before_model(state, runtime)


class Writes(AgentMiddleware[Any, Any, Any]):
    """Writes a payment after each result of the web, in the place of the model."""

    @hook_config(can_jump_to=["tools"])
    def before_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002
        message = state["messages"][-1]
        if getattr(message, "name", "") != "web":
            return None
        return {"messages": [calling(("pay", {"euros": 5}))], "jump_to": "tools"}


@tool(response_format="content_and_artifact")
def web() -> Any:
    """Read the web."""
    return labeled_tool_result("page", tags=["web"])


@tool
def mail() -> str:
    """Read a mail."""
    return "page"


LABELS = """
    tool "mail" -> @tags |= {"mail"};
    tool "pay" { must deny when euros.tags overlaps {"mail", "web"}; }
"""
READ = {"name": "web", "args": {}, "id": "read", "type": "tool_call"}


@pytest.mark.parametrize("jumps", [Jumps, JumpsFirst])
@pytest.mark.parametrize(("reads", "kind"), [(web, "policy"), (mail, "policy"), (None, "made")])
async def test_a_pending_call_has_the_labels_of_the_results_before_it(
    jumps: Any, reads: Any, kind: str
) -> None:
    till, history = Till(), []
    if reads is not None:
        call: Any = {**READ, "name": reads.name}
        history = [AIMessage("", tool_calls=[call]), reads.invoke(call)]
    messages = {"messages": [HumanMessage("go"), *history, PAYS]}
    run = agent(LABELS, [web, mail, till.pay], "done", middleware=[jumps()])
    assert kinds(run.invoke(messages))[-1] == kind
    assert kinds(await run.ainvoke(messages))[-1] == kind
    assert till.paid == [(5, "shop")] * (2 * (kind == "made"))


@pytest.mark.parametrize("wraps", [None, unwraps, rebuilds])
def test_a_call_that_other_middleware_writes_has_the_labels_of_the_results_before_it(
    wraps: Wraps | None,
) -> None:
    @tool("web")
    def reads() -> str:
        """Read the web."""
        with_labels({"page": "page"}, tags=["web"])
        return "page"

    def named(request: Any, handler: Callable[..., Any]) -> Any:
        result = wraps(request, handler) if wraps else handler(request)
        message_of(result).name = request.tool_call["name"]
        return result

    till = Till()
    around = [wrap_tool_call(named), Writes()]
    run = agent(
        LABELS, [reads, mail, till.pay], calling(("web", {})), middleware=around, labels=["web"]
    )
    assert [message.name for message in results(run.invoke(ask()))] == ["web", "pay"]
    assert till.paid == []


@pytest.mark.parametrize("jumps", [Jumps, JumpsFirst])
async def test_a_pending_call_in_another_process_has_the_session_of_the_newest_checkpoint(
    jumps: Any,
) -> None:
    till, saver = Till(), new_saver()
    run = agent(ONCE, [till.pay], PAYS, checkpointer=saver)
    run.invoke(ask(), THREAD)
    oldest = list(run.get_state_history(THREAD))[-1].config
    saver = in_another_process(saver)
    run = agent(ONCE, [till.pay], "done", middleware=[jumps()], checkpointer=saver)
    state = run.invoke({"messages": [HumanMessage("go"), PAYS]}, oldest)
    assert kinds(state) == ["policy"]
    assert len(till.paid) == 1


class TeamState(MessagesState, SharedSessionState):
    """A state with the field of the middleware."""


@pytest.mark.parametrize("state", [MessagesState, TeamState])
async def test_without_the_other_hooks_a_call_is_an_error_that_says_what_to_do(state: Any) -> None:
    till, guard = Till(), PolicyMiddleware(LABELS, tools=None)
    node = ToolNode(
        [till.pay], wrap_tool_call=guard.wrap_tool_call, awrap_tool_call=guard.awrap_tool_call
    )
    graph = StateGraph(state).add_node("tools", node).add_edge(START, "tools").compile()
    messages: Any = {"messages": [HumanMessage("go"), PAYS]}
    with pytest.raises(UsageError, match="Construct the agent with `create_agent"):
        graph.invoke(messages)
    with pytest.raises(UsageError, match="Construct the agent with `create_agent"):
        await graph.ainvoke(messages)
    assert till.paid == []


def test_a_call_that_is_not_in_the_newest_message_is_not_made() -> None:
    till = Till()
    run = agent(LABELS, [web, mail, till.pay], "done", checkpointer=InMemorySaver())
    run.invoke(ask(), THREAD)
    state = run.invoke(Command(goto=Send("tools", [PAYS.tool_calls[0]])), THREAD)
    assert kinds(state) == ["failed"]
    assert till.paid == []
