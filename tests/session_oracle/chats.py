"""Conversations with models, and with agents under `PolicyMiddleware`, as applications lead them."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware, before_model
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    ToolMessage,
)
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.prebuilt.chat_agent_executor import AgentState as PrebuiltState
from langgraph.types import Command
from langgraph_supervisor import create_supervisor
from langgraph_swarm import SwarmState, create_handoff_tool, create_swarm

from langchain_sequrity.chat_models.threads import forget_threads
from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.middleware import (
    PolicyEvent,
    PolicyMiddleware,
    SharedSessionState,
    guarded_subagents,
)
from tests.session_oracle.cases import FORMATS, THREADS, Call, Case, Turn
from tests.session_oracle.ledger import Ledger, ToolCrashed, tools_of
from tests.session_oracle.script import ScriptedModel, owner_of
from tests.session_oracle.stage import TITLE, Stage

_MOST_QUESTIONS = 20


class _GraphState(MessagesState, SharedSessionState):
    """The state of a graph whose agents share a session."""


class _SwarmState(SwarmState, SharedSessionState):
    """The state of a swarm whose agents share a session."""


class _SupervisedState(PrebuiltState, SharedSessionState):
    """The state of a supervisor whose agents share a session."""


def conversation_of(case: Case, stage: Stage, ledger: Ledger) -> "Conversation":
    """The conversation of a case."""
    if case.driver in THREADS:
        return ThreadConversation(case, stage, ledger)
    if case.driver == "history":
        return AgentHistory(case, stage, ledger)
    return ModelHistory(case, stage, ledger)


class Conversation:
    """A conversation as an application leads it.

    Args:
        case: The conversation.
        stage: The server and the event loop.
        ledger: What its tools do.

    Attributes:
        accepts_loss: Whether models and middleware accept that a session is lost.
        format: The API format of the next turn.
    """

    def __init__(self, case: Case, stage: Stage, ledger: Ledger) -> None:
        self.accepts_loss = False
        self._case = case
        self._stage = stage
        self._ledger = ledger
        self.format = case.format
        self._tools = tools_of(ledger)
        self._seen_denials = set[str]()
        self.build()

    def build(self) -> None:
        """Make new models and graphs."""
        raise NotImplementedError

    def send(self, turn: Turn) -> None:
        """Send the user's message, and see the turn through.

        Raises:
            Exception: As the model or the graph raises.
        """
        raise NotImplementedError

    @property
    def is_new(self) -> bool:
        """Whether nothing connects the next message with the conversation so far."""
        return False

    @property
    def is_known(self) -> bool:
        """Whether something other than the messages identifies the conversation."""
        return self._case.names_thread and self._case.way != "middleware"

    def change(self, turn: Turn) -> None:
        """Do what happens before a turn."""
        match turn.event:
            case "format":
                others = [name for name in FORMATS if name != self.format]
                goes_back = self.format != self._case.format and turn.where < 0.5
                self.format = self._case.format if goes_back else others[int(turn.where * 3)]
                self.build()
                if self._starts_with_user:
                    self._go_elsewhere(turn)
            case "model":
                self.build()
            case "expire":
                self._stage.forget_sessions()
            case "nothing":
                pass
            case _:
                self._go_elsewhere(turn)

    def _go_elsewhere(self, turn: Turn) -> None:
        """Change the history, or continue from another place of it."""
        raise NotImplementedError

    def after_error(self, turn: Turn, error: Exception) -> None:
        """Do what the application does after a turn that raised."""
        raise NotImplementedError

    # Parts

    def _changed(self, messages: Sequence[BaseMessage], turn: Turn) -> list[BaseMessage]:
        title = [self._model().invoke(TITLE)] if turn.event == "title" else []
        starts_with_user = self._starts_with_user
        return _changed(messages, turn, starts_with_user=starts_with_user, title=title)

    @property
    def _starts_with_user(self) -> bool:
        """Whether the API format refuses a history that begins with an answer."""
        return self.format == "messages"

    def _model(self) -> Any:
        if self._case.way == "middleware":
            return ScriptedModel(script=self._stage.script)
        return self._stage.model(self._case, self.format, accepts_loss=self.accepts_loss)

    def _policy(self) -> list[Any]:
        """The middleware with the policy, if it enforces this conversation's policy."""
        if self._case.way != "middleware":
            return []
        options: dict[str, Any] = {"on_session_lost": "restart"} if self.accepts_loss else {}
        return [
            PolicyMiddleware(
                self._case.policy,
                tools=None,
                on_denied=self._case.on_denied,  # type: ignore[arg-type]
                on_event=self._on_event,
                log_arguments=True,
                shared_session=self._case.shares_session,
                **options,
            )
        ]

    def _on_event(self, event: PolicyEvent) -> None:
        is_denial = event.outcome == "denied" and event.kind == "policy"
        if (is_denial or event.outcome == "rejected") and event.call_id not in self._seen_denials:
            self._seen_denials.add(event.call_id)
            self._denied(event.tool, event.arguments or {})

    def _denied(self, tool_name: str, arguments: Any) -> None:
        if tool_name in self._tools:
            default = 5 if tool_name == "pay" else ""
            self._ledger.denied(Call(tool_name, next(iter(arguments.values()), default)))

    def note_denial(self, outcome: Any) -> None:
        """Record the denial that an error or a message of a model reports."""
        if self._case.way == "middleware":
            return
        if isinstance(outcome, PolicyDenied):
            self._denied(outcome.tool, outcome.arguments)
        elif isinstance(outcome, AIMessage):
            denial = outcome.response_metadata.get("sequrity", {}).get("denial")
            if isinstance(denial, dict):
                self._denied(denial.get("tool", ""), denial.get("arguments") or {})


def _changed(
    messages: Sequence[BaseMessage],
    turn: Turn,
    *,
    starts_with_user: bool,
    title: Sequence[BaseMessage] = (),
) -> list[BaseMessage]:
    """A history after an application, or somebody else, changed it between two turns.

    Args:
        messages: The history.
        turn: The turn that follows.
        starts_with_user: Whether it must begin with a message of the user.
        title: What the model without tools wrote about the conversation.
    """
    starts = [n for n, message in enumerate(messages) if isinstance(message, HumanMessage)]
    changed = list(messages)
    if not starts:
        return changed
    has_answer = isinstance(messages[-1], AIMessage) and not messages[-1].tool_calls
    match turn.event:
        case "trim":
            keeps_answer = has_answer and not starts_with_user
            changed = [messages[-1] if keeps_answer else messages[starts[-1]]]
        case "texts":
            spoken = (m for m in messages if isinstance(m, HumanMessage | AIMessage) and m.text)
            changed = [type(m)(m.text) for m in spoken if not getattr(m, "tool_calls", None)]
        case "summary":
            summary = HumanMessage("The talk so far: mails and payments.")
            changed = [summary, messages[-1]] if has_answer else [summary]
        case "title":
            changed = [HumanMessage("So far?")] if turn.where < 0.4 else changed
            changed += title
        case "edit":
            changed[starts[0]] = messages[starts[0]].model_copy(
                update={"content": "Go on, please."}
            )
        case "go back":
            changed = changed[: starts[int(turn.where * len(starts))]]
        case "format" if starts_with_user:
            changed = changed[starts[0] :]
    return changed


def _kept_after_error(
    messages: Sequence[BaseMessage], turn: Turn, error: Exception
) -> list[BaseMessage]:
    """The messages of a failed turn that an application keeps."""
    if turn.after_error == "drop":
        return []
    complete = [*messages, *_missing_results(messages)]
    answer = getattr(error, "message", None)
    if turn.after_error == "append" and isinstance(answer, BaseMessage):
        complete.append(answer)
    return complete


def _request() -> HumanMessage:
    return HumanMessage("Go on.")


def _missing_results(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Results for the calls that have none, because the turn ended with an error."""
    calls = [call for m in messages if isinstance(m, AIMessage) for call in m.tool_calls]
    answered = {m.tool_call_id for m in messages if isinstance(m, ToolMessage)}
    missing = (call["id"] for call in calls if call["id"] not in answered)
    return [ToolMessage("Error: no result", tool_call_id=i, status="error") for i in missing]


# Histories that the application keeps


class AgentHistory(Conversation):
    """An agent without a checkpointer; the application passes the messages."""

    def __init__(self, case: Case, stage: Stage, ledger: Ledger) -> None:
        self._messages: list[BaseMessage] = []
        self._is_forgotten = False
        super().__init__(case, stage, ledger)

    @property
    def is_new(self) -> bool:
        has_begun = self._messages or (self._case.names_thread and not self._is_forgotten)
        return not has_begun

    def build(self) -> None:
        middleware = [*_history_middleware(self._case.history), *self._policy()]
        self._agent = create_agent(self._model(), list(self._tools.values()), middleware=middleware)

    def send(self, turn: Turn) -> None:
        config = thread_of(self._case) if self._case.names_thread else None
        value = {"messages": [*self._messages, _request()]}
        self._is_forgotten = False
        state = self._stage.run(self._agent, value, config, turn.style)
        self._messages = state["messages"]
        self.note_denial(self._messages[-1])

    def _go_elsewhere(self, turn: Turn) -> None:
        if turn.event == "restart":
            forget_threads()
            self._is_forgotten = not self._messages  # nothing is left of the conversation
            self.build()
        self._messages = self._changed(self._messages, turn)

    def after_error(self, turn: Turn, error: Exception) -> None:
        self._messages += _kept_after_error([_request()], turn, error)


class ModelHistory(AgentHistory):
    """A loop around a model that calls the tools itself, also with a stored message history."""

    @property
    def is_new(self) -> bool:
        is_named = self._case.driver == "message history"
        return super().is_new and (self._is_forgotten or not is_named)

    @property
    def is_known(self) -> bool:
        return super().is_known or self._case.driver == "message history"

    def build(self) -> None:
        self._chat = self._model().bind_tools(list(self._tools.values()))
        self._turn: list[BaseMessage] = []
        self._stored = InMemoryChatMessageHistory()
        if self._case.driver == "message history":
            self._chat = RunnableWithMessageHistory(self._chat, lambda session_id: self._stored)  # noqa: ARG005 - its signature

    def send(self, turn: Turn) -> None:
        self._is_forgotten = False
        self._turn = [_request()]
        is_stored = self._case.driver == "message history"
        names = {**thread_of(self._case)["configurable"]} if self._case.names_thread else {}
        if is_stored:
            names["session_id"] = str(self._case.seed)
        config = {"configurable": names} if names else None
        new = list(self._turn)
        while True:
            self._stored.messages = [*self._messages, *self._turn[: -len(new)]]
            sent = new if is_stored else [*self._messages, *self._turn]
            reply = self._stage.run(self._chat, sent, config, turn.style)
            self._turn.append(reply)
            if not reply.tool_calls:
                break
            new = [self._result(call) for call in reply.tool_calls]
            self._turn += new
        self.note_denial(reply)
        self._messages += self._turn

    def _result(self, call: Any) -> ToolMessage:
        try:
            message: ToolMessage = self._tools[call["name"]].invoke(call)
        except ToolCrashed as error:
            if not self._case.handles_tool_errors:
                raise
            return ToolMessage(f"Error: {error}", tool_call_id=call["id"], status="error")
        return message

    def after_error(self, turn: Turn, error: Exception) -> None:
        self._messages += _kept_after_error(self._turn, turn, error)


# Histories in checkpoints


class ThreadConversation(Conversation):
    """A graph with a checkpointer."""

    def __init__(self, case: Case, stage: Stage, ledger: Ledger) -> None:
        self._open_saver(case, stage)
        self._resumes = False
        self._at: Any = None  # the checkpoint from which the next run starts
        super().__init__(case, stage, ledger)

    @property
    def is_known(self) -> bool:
        if self._case.way == "middleware":
            return self._case.driver == "agent" or self._case.shares_session
        return self._case.driver in ("agent", "graph", "node", "node function", "executor")

    def _open_saver(self, case: Case, stage: Stage) -> None:
        self._saver: Any = InMemorySaver()
        if case.saver == "file":
            path = stage.file(f"{case.seed}.sqlite")
            self._saver = SqliteSaver(sqlite3.connect(path, check_same_thread=False))
            self._saver.conn.execute("PRAGMA synchronous=OFF")  # no test turns the machine off

    def close(self) -> None:
        """Close the file of checkpoints."""
        if self._case.saver == "file":
            self._saver.conn.close()

    def build(self) -> None:
        self._graph = _GRAPHS[self._case.driver](self)

    def send(self, turn: Turn) -> None:
        if self._resumes:
            self._resumes = False
            self._run(turn, None, thread_of(self._case))
        thread = self._at or thread_of(self._case)
        self._at = None
        if turn.event == "replay":
            self._run(turn, None, thread)
            thread = thread_of(self._case)
        self._run(turn, self._input(turn), thread)

    def _input(self, turn: Turn) -> dict[str, Any]:  # noqa: ARG002 - other conversations use it
        return {"messages": [_request()]}

    def _run(self, turn: Turn, value: Any, thread: Any) -> None:
        state = self._stage.run(self._graph, value, thread, turn.style)
        for _ in range(_MOST_QUESTIONS):
            if self._case.on_denied != "interrupt":
                break
            questions = self._graph.get_state(thread_of(self._case)).interrupts
            if not questions:
                break
            answers = {q.id: self._answer(q.value, approves=turn.approves) for q in questions}
            state = self._stage.run(
                self._graph, Command(resume=answers), thread_of(self._case), turn.style
            )
        if state and state.get("messages"):
            self.note_denial(state["messages"][-1])

    def _answer(self, question: Any, *, approves: bool) -> dict[str, Any]:
        requests = question["action_requests"]
        for call in map(self._call_of, requests) if approves else ():
            self._ledger.approved(call)
        decision = {"type": "approve" if approves else "reject"}
        return {"decisions": [decision for _ in requests]}

    def _call_of(self, request: Any) -> Call:
        """The call that a human is asked about."""
        return Call(request["name"], next(iter(request["args"].values())))

    def _go_elsewhere(self, turn: Turn) -> None:
        thread = thread_of(self._case)
        if turn.event in ("restart", "process"):
            self.close()
            self._open_saver(self._case, self._stage)
            self.build()
        elif turn.event in ("go back", "fork", "replay"):
            past = [
                state for state in self._graph.get_state_history(thread) if self._can_run(state)
            ]
            if past:
                self._at = past[int(turn.where * len(past))].config
        else:
            self._edit_history(turn)

    def _can_run(self, state: Any) -> bool:
        """Whether a run from a checkpoint asks the policy again.

        A model's policy decides when the model asks for a call. Whoever goes back between that
        decision and the tool runs the tool again, without asking anybody.
        """
        return self._case.way not in ("dual", "single") or "tools" not in state.next

    def _edit_history(self, turn: Turn) -> None:
        thread = thread_of(self._case)
        messages = self._graph.get_state(thread).values.get("messages", [])
        changed = self._changed(messages, turn)
        update = [RemoveMessage(REMOVE_ALL_MESSAGES), *changed]
        self._graph.update_state(thread, {"messages": update}, as_node=START)

    def after_error(self, turn: Turn, error: Exception) -> None:
        self._at = None
        self._resumes = turn.after_error == "resume" and self._can_run(
            self._graph.get_state(thread_of(self._case))
        )
        if self._resumes or self._case.way == "executor":
            return
        messages = self._graph.get_state(thread_of(self._case)).values.get("messages", [])
        added: list[BaseMessage] = []
        if self._case.way == "single":  # a model refuses a history that has a call without a result
            added += _missing_results(messages)
        answer = getattr(error, "message", None)
        if turn.after_error == "append" and isinstance(answer, BaseMessage):
            added.append(answer)
        if added:
            self._graph.update_state(thread_of(self._case), {"messages": added}, as_node=START)

    # Graphs

    def _agent(self, tools: Sequence[Any], *, saver: Any = None, name: str | None = None) -> Any:
        middleware = [*_history_middleware(self._case.history), *self._policy()]
        return create_agent(
            self._model(), list(tools), middleware=middleware, checkpointer=saver, name=name
        )

    def _plain_agent(self) -> Any:
        return self._agent(list(self._tools.values()), saver=self._saver)

    def _model_and_tool_node(self) -> Any:
        model = self._model().bind_tools(list(self._tools.values()))

        def call_model(state: MessagesState) -> dict[str, Any]:
            return {"messages": [model.invoke(state["messages"])]}

        graph = StateGraph(MessagesState)
        graph.add_node("model", call_model)
        handles = self._case.handles_tool_errors
        graph.add_node("tools", ToolNode(list(self._tools.values()), handle_tool_errors=handles))
        graph.add_edge(START, "model")
        graph.add_conditional_edges("model", tools_condition)
        graph.add_edge("tools", "model")
        return graph.compile(checkpointer=self._saver)

    def _agent_as_node(self) -> Any:
        return self._parent_of(self._agent(list(self._tools.values())))

    def _agent_in_node(self) -> Any:
        agent = self._agent(list(self._tools.values()))

        def call_agent(state: _GraphState) -> dict[str, Any]:
            result: dict[str, Any] = agent.invoke(state)
            return result if self._case.shares_session else {"messages": result["messages"]}

        return self._parent_of(call_agent)

    def _parent_of(self, node: Any) -> Any:
        state = _GraphState if self._case.shares_session else MessagesState
        graph: Any = StateGraph(state)
        graph.add_node("agent", node)
        graph.add_edge(START, "agent")
        return graph.compile(checkpointer=self._saver)

    def _agent_in_tool(self) -> Any:
        agent = self._agent(list(self._tools.values()))

        @tool
        def delegate(text: str) -> str:
            """Let a colleague work."""
            last = agent.invoke({"messages": [HumanMessage(text)]})["messages"][-1]
            return f"The colleague says: {last.text}"

        return self._agent([delegate], saver=self._saver)

    def _deep_agent(self) -> Any:
        tools = list(self._tools.values())
        clerk = {"name": "clerk", "description": "Reads.", "system_prompt": "Read.", "tools": tools}
        options: dict[str, Any] = {}
        if policy := self._policy():
            options = {"middleware": policy, "subagents": guarded_subagents(policy[0], [clerk])}
        return create_deep_agent(self._model(), tools, checkpointer=self._saver, **options)

    def _members(self, *more: Callable[[str], Any]) -> list[Any]:
        names = ("reader", "payer")
        return [
            self._agent(
                [
                    *(each for each in self._tools.values() if owner_of(each.name) == name),
                    *(make(other) for make in more for other in names if other != name),
                ],
                name=name,
            )
            for name in names
        ]

    def _supervisor(self) -> Any:
        mode: Any = "full_history" if self._case.returns_all else "last_message"
        graph = create_supervisor(
            self._members(),
            model=self._model(),
            output_mode=mode,
            supervisor_name="boss",
            state_schema=_SupervisedState if self._case.shares_session else None,
        )
        return graph.compile(checkpointer=self._saver)

    def _swarm(self) -> Any:
        members = self._members(lambda name: create_handoff_tool(agent_name=name))
        state = _SwarmState if self._case.shares_session else SwarmState
        graph = create_swarm(members, default_active_agent="reader", state_schema=state)
        return graph.compile(checkpointer=self._saver)


_GRAPHS: dict[str, Callable[[ThreadConversation], Any]] = {
    "agent": ThreadConversation._plain_agent,
    "graph": ThreadConversation._model_and_tool_node,
    "node": ThreadConversation._agent_as_node,
    "node function": ThreadConversation._agent_in_node,
    "tool": ThreadConversation._agent_in_tool,
    "supervisor": ThreadConversation._supervisor,
    "swarm": ThreadConversation._swarm,
    "deepagents": ThreadConversation._deep_agent,
}


def thread_of(case: Case) -> dict[str, Any]:
    return {"configurable": {"thread_id": f"thread {case.seed}"}}


def _history_middleware(change: str) -> list[Any]:
    """What changes the history while a turn runs."""
    if change == "summarize":
        writer = FakeListChatModel(responses=["The talk so far."])
        return [SummarizationMiddleware(writer, trigger=("messages", 4), keep=("messages", 1))]
    if change == "trim":

        @before_model
        def keep_the_last_turn(state: Any, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG001 - its signature
            messages = state["messages"]
            start = max(n for n, m in enumerate(messages) if isinstance(m, HumanMessage))
            if start == 0:
                return None
            return {"messages": [RemoveMessage(REMOVE_ALL_MESSAGES), *messages[start:]]}

        return [keep_the_last_turn]
    return []


__all__ = ["Conversation", "ThreadConversation", "conversation_of", "thread_of"]
