"""How a request is answered: by one model, or by a dual-LLM turn. `turn` knows only `Answering`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk

from langchain_sequrity.local.backends import BrainContext
from langchain_sequrity.local.configuration import Configuration
from langchain_sequrity.local.conversation import complete
from langchain_sequrity.local.dual_llm.calls import Context
from langchain_sequrity.local.dual_llm.history_diff import news_of
from langchain_sequrity.local.dual_llm.loop import Outcome
from langchain_sequrity.local.dual_llm.model_calls import Models, as_piece
from langchain_sequrity.local.dual_llm.state import DualState
from langchain_sequrity.local.dual_llm.turn import DualTurn, given_program
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.services import Services
from langchain_sequrity.local.sessions import Session
from langchain_sequrity.local.single_llm import SingleState, SingleTurn, without_wrappers
from langchain_sequrity.strict_json import dumps_like_service
from langchain_sequrity.wire.exchange import ChatRequest


class Answering(Protocol):
    """One way of answering.

    Attributes:
        request: What is asked, with the whole conversation.
        is_repetition: Whether the answer was given before; the session then stays as it is.
    """

    request: ChatRequest
    is_repetition: bool

    def chunks(self) -> Iterator[AIMessageChunk]:
        """The answer in pieces; ids of tool calls are the session's own."""

    def commit(self, message: AIMessage) -> None:
        """Put what the answer has changed into the session."""

    def close(self) -> None:
        """Give up what is not committed."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and what it is answered with.

    Attributes:
        request: The request as it came.
        session: Its session.
        configuration: What the session's headers decide.
        services: Brain, store and waiting programs.
        endpoint_type: First segment of the path.
        new_call_id: Makes the id of a tool call.
        added_policy: Whether it is this request that says what becomes of a differing history, and
            not the session.
    """

    request: ChatRequest
    session: Session
    configuration: Configuration
    services: Services
    endpoint_type: str
    new_call_id: Callable[[], str]
    added_policy: bool = False


class SingleAnswer:
    """One model answers, under policy where there is one.

    Args:
        asked: The request.

    Raises:
        StatusError: 400 for a history that no model can go on with, or for a program: this
            would not be run, nor checked.
    """

    is_repetition = False

    def __init__(self, asked: Asked) -> None:
        request, session, services = asked.request, asked.session, asked.services
        configuration = asked.configuration
        services.runs.sweep(services.store.find)
        given_program(request, endpoint_type=asked.endpoint_type)  # one is never ignored
        only_new = request.previous_reply is not None
        messages = complete(request.messages, session.messages, only_new=only_new)
        self.request = replace(request, messages=messages)
        self._session = session
        self._services = services
        self._context = BrainContext(endpoint_type=asked.endpoint_type)
        self._new_call_id = asked.new_call_id
        self._guarded: SingleTurn | None = None
        self._state = SingleState()
        if configuration.has_policy or configuration.screen.is_on:
            found = session.state
            self._state = found.copy() if isinstance(found, SingleState) else SingleState()
            models = Models(services.brain, asked.endpoint_type, request.model, {})
            tools = services.replacing_tools
            self._guarded = SingleTurn(self._state, configuration, models, tools)

    def chunks(self) -> Iterator[AIMessageChunk]:
        """The model's own pieces."""
        brain, named = self._services.brain, set[int | None]()
        if self._guarded is None:
            plain = replace(self.request, messages=without_wrappers(self.request.messages))
            pieces = brain.stream(plain, self._context)
        else:
            pieces = self._guarded.stream(self.request, brain, self._context)
        for chunk in pieces:
            calls = chunk.tool_call_chunks
            chunk.tool_call_chunks = [self._with_own_id(call, named) for call in calls]
            yield chunk

    def _with_own_id(self, call: ToolCallChunk, named: set[int | None]) -> ToolCallChunk:
        """A tool call id tells its session, and comes once; the brain's own does not leave."""
        if call["index"] in named:
            return ToolCallChunk(**{**call, "id": None})
        named.add(call["index"])
        return ToolCallChunk(**{**call, "id": self._new_call_id()})

    def commit(self, message: AIMessage) -> None:
        """Keep the conversation, and count the turn if it is over."""
        session = self._session
        session.messages = [*self.request.messages, message]
        session.turns += not (message.tool_calls or message.invalid_tool_calls)
        if self._guarded is not None:
            session.state = self._state

    def close(self) -> None:
        """There is nothing to give up."""


class DualAnswer:
    """A dual-LLM turn answers: with a tool call, or with the JSON object that ends it.

    Args:
        asked: The request.
        failed: Finish reason of a turn that failed.

    Raises:
        StatusError: 400 for a request that brings nothing to do, 409 for a history that differs
            from the session's.
    """

    def __init__(self, asked: Asked, *, failed: str) -> None:
        request, session, services = asked.request, asked.session, asked.services
        configuration = asked.configuration
        if (request.options.get("n") or 1) > 1:
            refuse(400, "A dual-LLM turn has one reply. Leave out `n`.")
        self._given = given_program(request, endpoint_type=asked.endpoint_type)
        found = session.state
        state = found.copy() if isinstance(found, DualState) else DualState()
        waiting = state.turn.waiting if state.turn else None
        self._news = news_of(
            request.messages,
            session.messages,
            open_call=waiting.id if waiting else None,
            only_new=request.previous_reply is not None,
            policy=configuration.fsm.history_mismatch_policy,
            added_policy=asked.added_policy,
        )
        if asked.endpoint_type == "lang-graph" and self._given is None and self._news.said:
            refuse(400, "`lang-graph` runs a program. Send `user_provided_program`.")
        self.is_repetition = self._news.repeated is not None
        self._session = session
        self._services = services
        self._configuration = configuration
        self._failed = failed
        self._models = Models(
            services.brain,
            asked.endpoint_type,
            request.model,
            configuration.max_output_tokens,
        )
        messages = [*self._news.system, *self._news.messages]
        self.request = replace(request, messages=messages, model=self._models.names)
        self._state = state
        services.programs.prepare()
        services.runs.sweep(services.store.find)
        run = services.runs.take(session.id)
        self._turn = DualTurn(
            Context(
                state,
                configuration,
                self._models,
                asked.new_call_id,
                services.programs,
                session.bearer,
                services.replacing_tools,
            ),
            run,
            turns_left=session.max_turns and session.max_turns - session.turns,
        )

    def chunks(self) -> Iterator[AIMessageChunk]:
        """What the planner thinks, where that is streamed, and then the answer."""
        if self._news.repeated is not None:
            yield as_piece(self._news.repeated)
            return
        outcome = yield from self._turn.work(self.request, self._news, self._given)
        yield self._piece(outcome)

    def _piece(self, outcome: Outcome) -> AIMessageChunk:
        usage = self._models.usage or UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0)
        metadata = {"model_name": self.request.model}
        if outcome.call is not None:
            values = {name: one.value for name, one in outcome.call.arguments.items()}
            call = tool_call_chunk(
                name=outcome.call.tool, args=dumps_like_service(values), id=outcome.call.id, index=0
            )
            metadata["finish_reason"] = "tool_calls"
            return AIMessageChunk(
                content="",
                tool_call_chunks=[call],
                response_metadata=metadata,
                usage_metadata=usage,
            )
        if outcome.end is None:  # pragma: no cover - a request has a call or an end
            msg = "The turn got nowhere."
            raise AssertionError(msg)
        strips = self._configuration.response.strip_response_content
        metadata["finish_reason"] = "stop"
        if outcome.end.error is not None:
            metadata |= {"finish_reason": self._failed, "failure": outcome.end.error[1]}
        return AIMessageChunk(
            content=outcome.end.stripped() if strips else outcome.end.text(),
            response_metadata=metadata,
            usage_metadata=usage,
        )

    def commit(self, message: AIMessage) -> None:
        """Keep the conversation, the state, and the program that waits."""
        session = self._session
        if not self.is_repetition:
            session.messages = [*self.request.messages, message]
            session.state = self._state
            session.turns += self._turn.turns
        # After a repetition too: runs keep the order in which their sessions were used.
        if self._turn.run is not None:
            self._services.runs.put(session.id, self._turn.run)
            self._turn.run = None

    def close(self) -> None:
        """End a program whose step is not kept; it is replayed when it is needed again."""
        if self._turn.run is not None:
            self._turn.run.close()
            self._turn.run = None
