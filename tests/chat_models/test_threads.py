"""A session belongs to its thread, not to what is left of its messages (behaviour.md P13)."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    AgentState,
    SummarizationMiddleware,
    before_model,
)
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.store.memory import InMemoryStore

from langchain_sequrity import ChatSequrity, SequrityMessages
from langchain_sequrity.chat_models import threads
from langchain_sequrity.chat_models.threads import forget_threads
from langchain_sequrity.errors import (
    InvalidRequest,
    PolicyDenied,
    ProgramFailed,
    SessionLost,
    UsageError,
)
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.conversation import text_of, tool_results
from tests.local.stores import remove

POLICY = """
tool "read_mail" { session after { @tags |= {"mail"}; } }
tool "send" {
    session before { when to.value == "nobody" { @tags |= {"tried"}; } }
    must deny when to.value == "nobody";
    must deny when "mail" in @session.tags or "tried" in @session.tags;
    should allow always;
}
"""
STATELESS = 'tool "send" { must deny when to.value == "nobody"; should allow always; }'
PLANS = {
    "read": 'mail = read_mail()\nfinal_return_value = "You have a mail."',
    "read and send": 'mail = read_mail()\nsend(to="boss", text=mail)\nfinal_return_value = "done"',
    "send to nobody": 'send(to="nobody", text="hello")\nfinal_return_value = "done"',
    "read and fail": "mail = read_mail()\nfinal_return_value = 1 / 0",
    "send": 'send(to="eve", text="hello")\nfinal_return_value = "sent"',
    "hello": 'final_return_value = "hello"',
}
CALLS: dict[str, list[dict[str, Any]]] = {
    "read": [{"name": "read_mail", "arguments": {}}],
    "read and send": [
        {"name": "read_mail", "arguments": {}},
        {"name": "send", "arguments": {"to": "boss", "text": "secret"}},
    ],
    "send to nobody": [{"name": "send", "arguments": {"to": "nobody", "text": "hello"}}],
    "send": [{"name": "send", "arguments": {"to": "eve", "text": "hello"}}],
}


def task_of(request: Any) -> str:
    """The task with which the user's last message ends."""
    texts = [text_of(message) for message in request.messages if message.type == "human"]
    tasks = sorted(PLANS, key=len, reverse=True)
    ends = (task for text in reversed(texts) for task in tasks if text.strip().endswith(task))
    return next(ends, "hello")


def plan(request: Any) -> str:
    """The program for the task."""
    return PLANS[task_of(request)]


def answer(request: Any) -> dict[str, Any]:
    """The calls for the task, one after the other, and then a text."""
    done = len(list(tool_results(request.messages)))
    calls = CALLS.get(task_of(request), [])[done : done + 1]
    return {"tool_calls": calls} if calls else {"text": "done"}


SCRIPT: list[dict[str, Any]] = [
    {"when": {"role": "planner"}, "answer": plan},
    {"when": {"role": "chat"}, "answer": answer},
]
FORMATS: dict[str, tuple[Any, dict[str, Any]]] = {
    "chat": (ChatSequrity, {}),
    "messages": (SequrityMessages, {}),
    "responses": (ChatSequrity, {"use_responses_api": True}),
    "previous-id": (ChatSequrity, {"use_responses_api": True, "use_previous_response_id": True}),
}
THREAD: Any = {"configurable": {"thread_id": "t"}}


class Office:
    """Two tools, and a record of the calls that ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def read_mail(self) -> str:
        """Read the newest mail."""
        self.ran.append("read_mail")
        return "secret"

    def send(self, to: str, text: str) -> str:  # noqa: ARG002 - the models give it
        """Send a text."""
        self.ran.append(f"send to {to}")
        return "sent"

    @property
    def tools(self) -> list[Any]:
        return [self.read_mail, self.send]


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with LocalServer(script=SCRIPT) as server:
        yield server.base_url


@pytest.fixture
def office() -> Office:
    forget_threads()  # tests have threads of the same names
    return Office()


def make_model(base_url: str, form: str = "chat", arch: str = "dual-llm", **fields: Any) -> Any:
    model_class, options = FORMATS[form]
    settings = {"features": {"agent_arch": arch}, "policy": POLICY, "max_retries": 0}
    return model_class("any/model", base_url=base_url, **{**settings, **options, **fields})


@before_model
def keep_last(state: AgentState[Any], runtime: Any) -> dict[str, Any]:  # noqa: ARG001
    """Keep the newest message only, between turns."""
    messages = state["messages"]
    if isinstance(messages[-1], HumanMessage):
        return {"messages": [RemoveMessage(REMOVE_ALL_MESSAGES), messages[-1]]}
    return {}


def make_summaries() -> AgentMiddleware[Any, Any, Any]:
    summaries = FakeListChatModel(responses=["They spoke."])
    return SummarizationMiddleware(summaries, trigger=("messages", 2), keep=("messages", 1))


def say(agent: Any, text: str, config: Any = THREAD) -> str:
    reply: str = agent.invoke({"messages": [HumanMessage(text)]}, config)["messages"][-1].text
    return reply


def stream(agent: Any, text: str) -> str:
    values = [*agent.stream({"messages": [HumanMessage(text)]}, THREAD, stream_mode="values")]
    reply: str = values[-1]["messages"][-1].text
    return reply


# A turn that fails


FAILING: list[tuple[str, type[Exception]]] = [
    ("read and send", PolicyDenied),
    ("send to nobody", PolicyDenied),
    ("read and fail", ProgramFailed),
]


@pytest.mark.long(sample=12)
@pytest.mark.parametrize("call", [say, stream], ids=["invoke", "stream"])
@pytest.mark.parametrize(("first", "error"), FAILING, ids=[text for text, _ in FAILING])
@pytest.mark.parametrize("form", FORMATS)
def test_a_turn_that_failed_stays_in_the_memory_of_its_thread(
    base_url: str, office: Office, form: str, first: str, error: type[Exception], call: Any
) -> None:
    model = make_model(base_url, form, streaming=call is stream)
    agent = create_agent(model, office.tools, checkpointer=InMemorySaver())
    with pytest.raises(error):
        call(agent, first)
    with pytest.raises(PolicyDenied, match="tried"):
        call(agent, "send")
    assert office.ran == (["read_mail"] if "read" in first else [])


@pytest.mark.parametrize(("first", "error"), FAILING[:2], ids=["read and send", "send to nobody"])
async def test_a_single_llm_thread_remembers_a_denied_turn(
    base_url: str, office: Office, first: str, error: type[Exception]
) -> None:
    agent = create_agent(
        make_model(base_url, arch="single-llm"), office.tools, checkpointer=InMemorySaver()
    )
    with pytest.raises(error):
        await agent.ainvoke({"messages": [HumanMessage(first)]}, THREAD)
    with pytest.raises(PolicyDenied, match="tried"):
        await agent.ainvoke({"messages": [HumanMessage("send")]}, THREAD)
    assert "send to eve" not in office.ran


@pytest.mark.parametrize("form", FORMATS)
def test_a_hand_made_loop_continues_the_session_after_a_denied_turn(
    base_url: str, office: Office, form: str
) -> None:
    model = make_model(base_url, form).bind_tools(office.tools)
    messages: list[BaseMessage] = [HumanMessage("read and send")]
    messages.append(model.invoke(messages))
    [call] = messages[-1].tool_calls  # type: ignore[attr-defined]
    messages.append(ToolMessage(office.read_mail(), tool_call_id=call["id"]))
    with pytest.raises(PolicyDenied) as denied:
        model.invoke(messages)
    with pytest.raises(PolicyDenied, match="tried"):
        model.invoke([*messages, HumanMessage("send")])
    assert denied.value.message is not None
    with pytest.raises(PolicyDenied, match="tried"):
        model.invoke([*messages, denied.value.message, HumanMessage("send")])


def test_a_loop_that_lost_its_first_turn_is_told_so(base_url: str, office: Office) -> None:
    model = make_model(base_url).bind_tools(office.tools)
    with pytest.raises(PolicyDenied) as denied:
        model.invoke([HumanMessage("send to nobody")])
    both = [HumanMessage("send to nobody"), HumanMessage("send")]
    with pytest.raises(SessionLost, match=r"earlier turns.*`error\.message`.*session_id=\"new\""):
        model.invoke(both)
    with pytest.raises(PolicyDenied, match="tried"):  # the session continues by its message
        model.invoke([both[0], denied.value.message, both[1]])
    assert model.invoke(both, session_id="new").tool_calls
    accepts = make_model(base_url, on_session_lost="restart").bind_tools(office.tools)
    assert accepts.invoke(both).tool_calls


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainDeprecationWarning")
def test_a_chain_with_message_history_remembers_a_denied_turn(
    base_url: str, office: Office
) -> None:
    histories: dict[str, InMemoryChatMessageHistory] = {}
    chain = RunnableWithMessageHistory(
        make_model(base_url).bind_tools(office.tools),
        lambda session_id: histories.setdefault(session_id, InMemoryChatMessageHistory()),
    )
    config: Any = {"configurable": {"session_id": "of a user"}}
    with pytest.raises(PolicyDenied):
        chain.invoke([HumanMessage("send to nobody")], config)
    with pytest.raises(PolicyDenied, match="tried"):
        chain.invoke([HumanMessage("send")], config)
    other: Any = {"configurable": {"session_id": "of another user"}}
    assert chain.invoke([HumanMessage("send")], other).tool_calls


# A call that ran, whose result the session never got


@pytest.mark.parametrize(
    ("arch", "way"),
    [
        *(("dual-llm", way) for way in ("stopped", "direct", "node")),
        *(("single-llm", way) for way in ("direct", "node")),  # its model needs a result in sight
    ],
)
@pytest.mark.parametrize("form", FORMATS)
async def test_a_call_whose_result_does_not_come_back_counts_for_the_session(
    base_url: str, office: Office, form: str, arch: str, way: str
) -> None:
    tools = [tool(office.read_mail, return_direct=way == "direct"), tool(office.send)]
    middleware: list[Any] = [] if way == "stopped" else [keep_last]
    model = make_model(base_url, form, arch)
    agent: Any = create_agent(model, tools, middleware=middleware, checkpointer=InMemorySaver())
    ask = {"messages": [HumanMessage("read")]}
    stream = agent.astream(ask, THREAD, stream_mode="updates")
    async for update in stream:
        if way != "direct" and "tools" in update:
            break
    await stream.aclose()
    with pytest.raises(PolicyDenied, match="tried"):
        await agent.ainvoke({"messages": [HumanMessage("send")]}, THREAD)
    assert office.ran == ["read_mail"]


# Histories that lose the messages of the session


@pytest.mark.parametrize("make", [make_summaries, lambda: keep_last], ids=["summary", "last"])
@pytest.mark.parametrize("arch", ["dual-llm", "single-llm"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_thread_keeps_its_session_when_its_messages_are_removed(
    base_url: str, office: Office, form: str, arch: str, make: Callable[[], Any]
) -> None:
    agent = create_agent(
        make_model(base_url, form, arch),
        office.tools,
        middleware=[make()],
        checkpointer=InMemorySaver(),
    )
    say(agent, "read")
    with pytest.raises(PolicyDenied, match="tried"):
        say(agent, "send")
    assert office.ran == ["read_mail"]


def test_an_application_that_stores_texts_keeps_the_session_by_its_thread(
    base_url: str, office: Office
) -> None:
    agent: Any = create_agent(make_model(base_url), office.tools)
    texts: list[BaseMessage] = [HumanMessage("read")]
    reply = agent.invoke({"messages": texts}, THREAD)["messages"][-1]
    texts += [AIMessage(reply.text), HumanMessage("send")]
    with pytest.raises(PolicyDenied, match="tried"):
        agent.invoke({"messages": texts}, THREAD)
    forget_threads()  # as after a restart
    with pytest.raises(SessionLost):
        agent.invoke({"messages": texts}, THREAD)
    with pytest.raises(SessionLost):  # without a thread there is no memory
        agent.invoke({"messages": texts})


def test_policies_without_rules_on_the_session_begin_anew_as_before(
    base_url: str, office: Office
) -> None:
    model = make_model(base_url, policy=STATELESS)
    agent = create_agent(model, office.tools, checkpointer=InMemorySaver())
    with pytest.raises(PolicyDenied):
        say(agent, "send to nobody")
    assert say(agent, "send") == "sent"
    assert (
        model.bind_tools(office.tools)
        .invoke([HumanMessage("hello"), AIMessage("hello"), HumanMessage("send")])
        .tool_calls
    )


def test_a_conversation_that_begins_is_fine(base_url: str, office: Office) -> None:
    agent = create_agent(
        make_model(base_url), office.tools, system_prompt="Help.", checkpointer=InMemorySaver()
    )
    assert say(agent, "send") == "sent"
    assert say(agent, "send", {"configurable": {"thread_id": "another"}}) == "sent"
    other = create_agent(make_model(base_url), office.tools, checkpointer=InMemorySaver())
    assert say(other, "send") == "sent"  # the same id of another checkpointer
    model = make_model(base_url).bind_tools(office.tools)
    assert model.invoke([SystemMessage("Help."), HumanMessage("send")]).tool_calls


def test_structured_output_by_a_tool_leaves_no_open_call(base_url: str, office: Office) -> None:
    schema = {"title": "send", "type": "object", "properties": {"to": {"type": "string"}}}
    policy = 'tool "send" { session before { @tags |= {"tried"}; } should allow always; }'
    model = make_model(base_url, arch="single-llm", policy=policy)
    router = model.with_structured_output(schema, method="function_calling")
    for _ in range(2):
        assert router.invoke([HumanMessage("send")], THREAD)["to"] == "eve"
    assert model.bind_tools([office.send]).invoke([HumanMessage("send")], THREAD).tool_calls


def test_a_call_without_tools_is_not_concerned(base_url: str) -> None:
    history = [HumanMessage("hello"), AIMessage("hello"), HumanMessage("hello")]
    assert make_model(base_url).invoke(history).text == "hello"


# Several sessions in the messages


def run_loop(model: Any, office: Office, messages: list[BaseMessage]) -> list[BaseMessage]:
    """The conversation after a turn of a hand-made loop."""
    tools: dict[str, Callable[..., str]] = {"read_mail": office.read_mail, "send": office.send}
    messages = [*messages, model.invoke(messages)]
    while calls := messages[-1].tool_calls:  # type: ignore[attr-defined]
        for call in calls:
            result = tools[call["name"]](**call["args"])
            messages.append(ToolMessage(result, tool_call_id=call["id"]))
        messages.append(model.invoke(messages))
    return messages


@pytest.mark.parametrize("arch", ["dual-llm", "single-llm"])
@pytest.mark.parametrize("form", FORMATS)
def test_messages_of_several_sessions_do_not_continue_the_last_one(
    base_url: str, office: Office, form: str, arch: str
) -> None:
    model = make_model(base_url, form, arch).bind_tools(office.tools)
    read = run_loop(model, office, [HumanMessage("read")])
    other = run_loop(model, office, [HumanMessage("hello")])
    for config in (None, THREAD):
        with pytest.raises(SessionLost, match="of several sessions") as lost:
            model.invoke([*read, *other, HumanMessage("send")], config)
        assert lost.value.session_id
    chosen = model.invoke([*read, *other, HumanMessage("hello")], session_id="new")
    assert model.invoke([*read, *other, chosen, HumanMessage("hello")]).text


@pytest.mark.long(sample=12)
@pytest.mark.parametrize("keeps", ["store", "checkpoints", "messages"])
@pytest.mark.parametrize("arch", ["dual-llm", "single-llm"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_title_by_the_same_model_does_not_take_the_place_of_the_session(
    base_url: str, office: Office, form: str, arch: str, keeps: str
) -> None:
    model = make_model(base_url, form, arch)
    title = model.invoke([HumanMessage("hello")])

    def add_title(state: MessagesState) -> dict[str, Any]:  # noqa: ARG001 - its signature
        return {"messages": [title]}

    builder = StateGraph(MessagesState)
    shortens: list[Any] = [] if keeps == "messages" else [keep_last]
    builder.add_node("agent", create_agent(model, office.tools, middleware=shortens))
    builder.add_node("title", add_title)
    builder.add_edge(START, "agent")
    builder.add_edge("agent", "title")
    store = InMemoryStore() if keeps == "store" else None
    graph = builder.compile(checkpointer=InMemorySaver(), store=store)
    say(graph, "read")
    forget_threads()
    with pytest.raises(PolicyDenied):
        say(graph, "send")
    with pytest.raises(SessionLost, match="unknown"):
        model.bind_tools(office.tools).invoke([HumanMessage("read"), title, HumanMessage("send")])


# Another model, format or agent in the thread


@pytest.mark.parametrize("change", [{"form": "messages"}, {"model": "other/model"}], ids=str)
@pytest.mark.parametrize("keeps", [True, False], ids=["whole", "last"])
def test_another_model_or_format_does_not_continue_the_thread(
    base_url: str, office: Office, change: dict[str, Any], keeps: bool
) -> None:
    saver = InMemorySaver()
    say(create_agent(make_model(base_url), office.tools, checkpointer=saver), "read")
    other = make_model(base_url, change.get("form", "chat"))
    if "model" in change:
        other = other.model_copy(update=change)
    middleware: list[Any] = [] if keeps else [keep_last]
    agent = create_agent(other, office.tools, middleware=middleware, checkpointer=saver)
    with pytest.raises(SessionLost, match="belongs to another model") as lost:
        say(agent, "send")
    assert lost.value.session_id
    accepts = other.model_copy(update={"on_session_lost": "restart"})
    agent = create_agent(accepts, office.tools, middleware=middleware, checkpointer=saver)
    assert say(agent, "send") == "sent"


@pytest.mark.parametrize("is_foreign", [True, False], ids=["other session", "other service"])
def test_a_conversation_that_went_on_elsewhere_does_not_come_back_to_its_old_session(
    base_url: str, office: Office, is_foreign: bool
) -> None:
    model = make_model(base_url).bind_tools(office.tools)
    other = make_model(base_url, "messages", on_session_lost="restart").bind_tools(office.tools)
    messages: list[BaseMessage] = [HumanMessage("hello")]
    messages += [model.invoke(messages), HumanMessage("read")]
    asks = other.invoke(messages)
    if not is_foreign:
        asks.response_metadata.clear()
    done = ToolMessage(office.read_mail(), tool_call_id=asks.tool_calls[0]["id"])
    said = AIMessage("You have a mail.")
    with pytest.raises(SessionLost):
        model.invoke([*messages, asks, done, said, HumanMessage("send")])
    answer = [
        *messages[:2],
        HumanMessage("hello"),
        AIMessage("A canned text."),
        HumanMessage("send"),
    ]
    assert model.invoke(answer).tool_calls  # the session continues


def test_an_agent_inside_a_tool_does_not_begin_a_session_of_its_own(
    base_url: str, office: Office
) -> None:
    inner = create_agent(make_model(base_url), office.tools)

    def read_mail() -> str:
        """Ask the clerk."""
        reply: str = inner.invoke({"messages": [HumanMessage("send")]})["messages"][-1].text
        return reply

    for saver, config in ((InMemorySaver(), THREAD), (None, {})):
        agent = create_agent(make_model(base_url), [read_mail, office.send], checkpointer=saver)
        with pytest.raises(SessionLost, match="within a call of another agent"):
            say(agent, "read", config)
    assert office.ran == []


def test_agents_of_a_graph_share_the_session_of_their_thread(base_url: str, office: Office) -> None:
    """Each sees only its own task, as agents of a supervisor may."""

    def run(task: str) -> Any:
        agent = create_agent(make_model(base_url), office.tools)

        def node(state: MessagesState) -> dict[str, Any]:  # noqa: ARG001
            return {"messages": agent.invoke({"messages": [HumanMessage(task)]})["messages"][-1:]}

        return node

    graph = StateGraph(MessagesState).add_sequence([("a", run("read")), ("b", run("send"))])
    app = graph.add_edge(START, "a").compile()
    with pytest.raises(PolicyDenied, match="tried"):
        app.invoke({"messages": [HumanMessage("Go")]})
    assert office.ran == ["read_mail"]


# Forks, and sessions that the service does not have


@pytest.mark.parametrize("form", FORMATS)
def test_a_fork_does_not_forget_what_ran_since(base_url: str, office: Office, form: str) -> None:
    agent = create_agent(make_model(base_url, form), office.tools, checkpointer=InMemorySaver())
    say(agent, "hello")
    before = agent.get_state(THREAD).config
    say(agent, "read")
    with pytest.raises(PolicyDenied, match="tried"):
        say(agent, "send", before)


def test_a_session_that_must_refuse_the_history_is_not_replaced(
    base_url: str, office: Office
) -> None:
    config = {"fsm": {"history_mismatch_policy": "reject"}}
    model = make_model(base_url, session_config=config)
    agent = create_agent(model, office.tools, checkpointer=InMemorySaver())
    with pytest.raises(PolicyDenied):
        say(agent, "read and send")
    with pytest.raises(InvalidRequest, match="differs"):
        say(agent, "send")
    assert office.ran == ["read_mail"]


def test_an_expired_session_is_not_replaced_unless_its_loss_is_accepted(office: Office) -> None:
    fields: dict[str, Any] = {"session_config": {"fsm": {"max_n_turns": 1}}}
    with LocalServer(script=SCRIPT) as server:
        for expired in ("raise", "restart"):
            model = make_model(server.base_url, **fields, on_session_expired=expired)
            agent = create_agent(model, office.tools, checkpointer=InMemorySaver())
            say(agent, "read")
            with pytest.raises(SessionLost, match="no longer knows the session"):
                say(agent, "send")
        model = make_model(server.base_url, **fields, on_session_lost="restart")
        agent = create_agent(model, office.tools, checkpointer=InMemorySaver())
        say(agent, "read")
        assert say(agent, "send") == "sent"


def test_a_session_that_expires_within_a_turn_is_lost_and_the_turn_is_not_planned_again(
    office: Office,
) -> None:
    with LocalServer(script=SCRIPT) as server:
        model = make_model(server.base_url, on_session_lost="restart").bind_tools(office.tools)
        messages: list[BaseMessage] = [HumanMessage("read and send")]
        messages.append(model.invoke(messages))
        for session in list(server.sessions):  # type: ignore[call-overload]
            remove(server.sessions, session.id)
        [call] = messages[-1].tool_calls  # type: ignore[attr-defined]
        messages.append(ToolMessage(office.read_mail(), tool_call_id=call["id"]))
        with pytest.raises(SessionLost, match="This turn has made calls"):
            model.invoke(messages)


# Another process


class BrokenStore(InMemoryStore):
    """A store that cannot write."""

    def put(self, *_: Any, **__: Any) -> None:
        raise ConnectionError


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_call_that_cannot_be_written_leaves_the_thread_free(
    base_url: str, office: Office, is_async: bool
) -> None:
    model = make_model(base_url).bind_tools(office.tools)
    for text, error in (("\ud800", UsageError), ("send to nobody", PolicyDenied)):
        with pytest.raises(error):
            await model.ainvoke(text, THREAD) if is_async else model.invoke(text, THREAD)


def test_a_store_that_fails_loses_no_reply_and_hides_no_denial(
    base_url: str, office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    saver, store = InMemorySaver(), BrokenStore()
    agent = create_agent(make_model(base_url), office.tools, checkpointer=saver, store=store)
    assert say(agent, "hello") == "hello"
    with pytest.raises(PolicyDenied):
        say(agent, "send to nobody")
    assert "does not have the session of thread t: ConnectionError" in caplog.text


class WriteOnlySaver(InMemorySaver):
    """A checkpointer without a list of its checkpoints."""

    def list(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


def test_a_checkpointer_that_cannot_be_read_is_an_error_that_says_so(
    base_url: str, office: Office
) -> None:
    agent = create_agent(make_model(base_url), office.tools, checkpointer=WriteOnlySaver())
    with pytest.raises(UsageError, match=r"NotImplementedError.*`list`"):
        say(agent, "send")


class BusySaver(InMemorySaver):
    """A checkpointer that another task writes to while it is read, the first few times."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def list(self, *args: Any, **kwargs: Any) -> Any:
        self.reads += 1
        if self.reads < 4:
            written = dict.fromkeys(range(3))
            for key in written:
                written.pop(key)
        return super().list(*args, **kwargs)


def test_a_checkpointer_that_is_written_to_while_it_is_read_is_read_again(
    base_url: str, office: Office
) -> None:
    saver = BusySaver()
    agent = create_agent(make_model(base_url), office.tools, checkpointer=saver)
    say(agent, "hello")
    assert saver.reads >= 4


def test_a_store_of_the_graph_keeps_the_session_for_another_process(
    base_url: str, office: Office
) -> None:
    saver, store = InMemorySaver(), InMemoryStore()
    agent = create_agent(
        make_model(base_url), office.tools, middleware=[keep_last], checkpointer=saver, store=store
    )
    with pytest.raises(PolicyDenied):
        say(agent, "send to nobody")
    forget_threads()
    with pytest.raises(PolicyDenied, match="tried"):
        say(agent, "send")


async def test_without_a_store_another_process_is_told_that_a_failed_first_turn_is_lost(
    base_url: str, office: Office
) -> None:
    agent = create_agent(
        make_model(base_url), office.tools, middleware=[keep_last], checkpointer=InMemorySaver()
    )
    with pytest.raises(PolicyDenied):
        say(agent, "send to nobody")
    forget_threads()
    with pytest.raises(SessionLost, match="earlier turns"):
        say(agent, "send")
    with pytest.raises(SessionLost, match="earlier turns"):
        await agent.ainvoke({"messages": [HumanMessage("send")]}, THREAD)


async def test_another_process_finds_the_session_in_the_checkpoints(
    base_url: str, office: Office
) -> None:
    agent = create_agent(
        make_model(base_url), office.tools, middleware=[keep_last], checkpointer=InMemorySaver()
    )
    say(agent, "read")
    forget_threads()
    with pytest.raises(PolicyDenied, match="mail"):
        await agent.ainvoke({"messages": [HumanMessage("send")]}, THREAD)


def test_a_graph_that_continues_in_another_process_has_the_session_of_its_first_agent(
    base_url: str, office: Office
) -> None:
    def run(task: str) -> Any:
        agent = create_agent(make_model(base_url), office.tools)

        def node(state: MessagesState) -> dict[str, Any]:  # noqa: ARG001
            agent.invoke({"messages": [HumanMessage(task)]})
            return {"messages": [AIMessage("done")]}

        return node

    graph = StateGraph(MessagesState).add_sequence([("a", run("read")), ("b", run("send"))])
    app: Any = graph.add_edge(START, "a").compile(InMemorySaver(), interrupt_before=["b"])
    app.invoke({"messages": [HumanMessage("Go")]}, THREAD)
    forget_threads()
    with pytest.raises(PolicyDenied, match="mail"):
        app.invoke(None, THREAD)
    assert office.ran == ["read_mail"]


SECOND_PROCESS = """
import sys
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from tests.chat_models.test_threads import Office, THREAD, keep_last, make_model, say
from langchain_sequrity.errors import PolicyDenied

url, file = sys.argv[1:]
with SqliteSaver.from_conn_string(file) as saver:
    office = Office()
    agent = create_agent(
        make_model(url), office.tools, middleware=[keep_last], checkpointer=saver
    )
    try:
        say(agent, "send")
    except PolicyDenied:
        print("denied", office.ran)
"""


def test_a_second_process_on_the_same_checkpoints_does_not_begin_anew(
    base_url: str, office: Office, tmp_path: Path
) -> None:
    file = str(tmp_path / "threads.sqlite")
    with SqliteSaver.from_conn_string(file) as saver:
        agent = create_agent(make_model(base_url), office.tools, checkpointer=saver)
        say(agent, "read")
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", SECOND_PROCESS, base_url, file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "denied []", done.stderr


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_the_checkpoints_tell_a_first_run_from_a_later_one(
    base_url: str, office: Office, durability: Any
) -> None:
    agent: Any = create_agent(
        make_model(base_url), office.tools, middleware=[keep_last], checkpointer=InMemorySaver()
    )
    with pytest.raises(PolicyDenied):
        agent.invoke({"messages": "send to nobody"}, THREAD, durability=durability)
    forget_threads()
    with pytest.raises(SessionLost):
        agent.invoke({"messages": "hello"}, THREAD, durability=durability)


# A session that was replaced


def greeter(model: Any, office: Office, name: str, saver: InMemorySaver) -> Any:
    """A graph whose only node, of this name, calls the model."""
    bound = model.bind_tools(office.tools)
    graph: Any = StateGraph(MessagesState)
    graph.add_node(name, lambda state: {"messages": [bound.invoke(state["messages"])]})
    return graph.add_edge(START, name).compile(checkpointer=saver)


@pytest.mark.parametrize("names", ["aa", "ab"], ids=["the same agent", "another agent"])
def test_a_session_that_was_replaced_is_not_continued(
    base_url: str, office: Office, names: str
) -> None:
    saver = InMemorySaver()
    replaces = make_model(base_url, "messages", on_session_lost="restart")
    first, second = (
        greeter(model, office, name, saver)
        for model, name in zip((make_model(base_url), replaces), names, strict=True)
    )
    for graph in (first, second):
        assert say(graph, "hello") == "hello"
    with pytest.raises(SessionLost, match="belongs to another model"):
        say(first, "hello")
    assert say(second, "hello") == "hello"


def test_a_replaced_session_is_not_continued_although_its_call_was_not_answered(
    base_url: str, office: Office
) -> None:
    model = make_model(base_url).bind_tools(office.tools)
    replaces = make_model(base_url, "messages", on_session_lost="restart")
    assert model.invoke([HumanMessage("read")], THREAD).tool_calls
    replaces.bind_tools(office.tools).invoke([HumanMessage("hello")], THREAD)
    with pytest.raises(SessionLost, match="belongs to another model"):
        model.invoke([HumanMessage("hello")], THREAD)


def test_an_agent_that_begins_a_session_within_a_call_leaves_that_of_the_call(
    base_url: str, office: Office
) -> None:
    restarts = make_model(base_url, on_session_lost="restart")
    inner = create_agent(restarts, office.tools)

    def read_mail() -> str:
        """Ask the clerk."""
        reply: str = inner.invoke({"messages": [HumanMessage("hello")]})["messages"][-1].text
        return reply

    tools: list[Any] = [read_mail, office.send]
    agent = create_agent(make_model(base_url), tools, checkpointer=InMemorySaver())
    assert say(agent, "read") == "You have a mail."


def test_the_thread_that_was_used_first_is_forgotten_if_there_are_too_many(
    base_url: str, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_MOST_THREADS", 2)
    model = make_model(base_url).bind_tools(office.tools)
    configs: list[Any] = [{"configurable": {"thread_id": name}} for name in "abc"]
    for config in configs:
        with pytest.raises(PolicyDenied):
            model.invoke([HumanMessage("send to nobody")], config)
    with pytest.raises(PolicyDenied, match="tried"):
        model.invoke([HumanMessage("send")], configs[2])
    assert model.invoke([HumanMessage("send")], configs[0]).tool_calls
