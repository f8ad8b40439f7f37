"""What answers a chat: the protocol, and any LangChain chat model behind it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.runnables import RunnableConfig
from langsmith.run_helpers import tracing_context

from langchain_sequrity.errors import SequrityError, status_error
from langchain_sequrity.local import limits
from langchain_sequrity.local.limits import Charge
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.tokens import count_message, count_request, usage_of
from langchain_sequrity.sizes import of_json, of_part, of_value
from langchain_sequrity.strict_json import dumps_like_service
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.policy_generation import PolicyRequest

# Without this the callbacks of a run around the server, in the same thread, would be inherited.
_NO_CALLBACKS: RunnableConfig = {"callbacks": []}
_BAD_GATEWAY = 502
_TOO_MANY_REQUESTS = 429
_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "stop",
    "refusal": "stop",  # the refusal itself is said beside
}


@dataclass(frozen=True, slots=True)
class BrainContext:
    """What a brain is told beside the request.

    Attributes:
        role: Who is asked: `chat`, `planner`, `quarantined`, `classifier` or `policy`.
        endpoint_type: First segment of the path that the request came in on, such as `chat`.
        plan: What a planner may use; it is in the planner's prompt, too, as text.
        classifier: The classifier's name.
        policy: What a policy writer is asked for; it is in the writer's prompt, too, as text.
    """

    role: str = "chat"
    endpoint_type: str = "chat"
    plan: "PlanContext | None" = None
    classifier: str = ""
    policy: PolicyRequest | None = None


@dataclass(frozen=True, slots=True)
class PlanContext:
    """What a program may use, for brains that do not read prompts.

    Attributes:
        tools: The caller's tools, with the names that programs use.
        internal_tools: Internal tools that are enabled.
        tool_choice: Which tool is to be called, as in `ChatRequest`.
        response_format: What the answer must look like, as in `ChatRequest`.
    """

    tools: Sequence[dict[str, Any]] = ()
    internal_tools: Sequence[str] = ()
    tool_choice: str | dict[str, str] | None = None
    response_format: dict[str, Any] | None = None


class Brain(Protocol):
    """Something that answers chats. It is called from many threads at once."""

    def stream(self, request: ChatRequest, context: BrainContext) -> Iterator[AIMessageChunk]:
        """Answer in pieces.

        Args:
            request: What is asked.
            context: Who is asked, and where.

        Returns:
            Pieces of one message: text as `content`, `reasoning_content`, `reasoning_signature`
            and `refusal` in `additional_kwargs`, tool call pieces with an integer `index`.
            `usage_metadata`, and `finish_reason` and `stop_sequence` in `response_metadata`, are
            on the last one only.

        Raises:
            StatusError: To answer with an error status.
        """


class ModelBrain:
    """Any LangChain chat model as the brain.

    What the client asks for reaches the model as keyword arguments, and only if it was asked for:
    the model keeps its own settings otherwise. A model without tool calling (one that does not
    override `bind_tools`, such as LangChain's fake models) is asked without the tools. The model's
    runs are not traced: the client traces them already.

    Args:
        model: The model.

    Example:
        ```python
        from langchain_core.language_models import FakeListChatModel
        from langchain_sequrity.local import LocalServer

        server = LocalServer(model=FakeListChatModel(responses=["Hello!"]))
        ```
    """

    def __init__(self, model: BaseChatModel) -> None:
        self._model = model
        self._calls_tools = type(model).bind_tools is not BaseChatModel.bind_tools

    def stream(self, request: ChatRequest, context: BrainContext) -> Iterator[AIMessageChunk]:
        """Ask the model, and word its pieces alike whatever its provider.

        Args:
            request: What is asked.
            context: Not used: a model answers in every role.

        Yields:
            The pieces. Usage is the model's own, or counted where it gives none.

        Raises:
            StatusError: 429 if the model was, and 502 if it failed otherwise.
        """
        del context
        neutral = _Neutral()
        for message in _untraced(self._ask(request)):
            yield neutral.piece(message)
        yield neutral.last(request)

    def _ask(self, request: ChatRequest) -> Iterator[AIMessage]:
        kwargs = _arguments(request)
        runnable: Any = self._model
        streams = request.stream
        tools = [*request.tools, *request.server_tools]
        if tools and self._calls_tools:
            runnable = self._model.bind_tools(tools, **_tool_arguments(request))
        elif tools:
            streams = False  # LangChain's fake models lose tool calls in streams
        has_said = False
        try:
            if streams:
                for piece in runnable.stream(request.messages, _NO_CALLBACKS, **kwargs):
                    yield piece
                    has_said = True
            else:
                yield runnable.invoke(request.messages, _NO_CALLBACKS, **kwargs)
        except SequrityError:
            raise
        except Exception as error:
            cut = _cut_off(error, has_said=has_said)
            if cut is None:
                raise self._failure(error) from error
            yield cut

    def _failure(self, error: Exception) -> SequrityError:
        # The text of a provider's exception can hold its key: it stays in the server's log.
        limited = getattr(error, "status_code", None) == _TOO_MANY_REQUESTS
        status = _TOO_MANY_REQUESTS if limited else _BAD_GATEWAY
        detail = (
            f"The model `{type(self._model).__name__}` behind this server failed with "
            f"`{type(error).__name__}`. The server's log has the reason."
        )
        return status_error(status)(detail, status=status, body={"detail": detail})


_ENDS = {"LengthFinishReasonError": "length", "ContentFilterFinishReasonError": "content_filter"}
"""What OpenAI's package raises, also when it streams, where an answer with a schema was cut off."""


def _cut_off(error: Exception, *, has_said: bool) -> AIMessageChunk | None:
    """An answer that a provider's package raises as an error because it was cut off.

    Args:
        error: What was raised.
        has_said: Whether the answer was streamed before.

    Returns:
        The answer, or its end; nothing for another error.
    """
    reason = _ENDS.get(type(error).__name__)
    if reason is None:
        return None
    # The package is not imported here: whoever has such a model has it.
    completion = getattr(error, "completion", None)
    said, usage = None, getattr(completion, "usage", None)
    if not has_said and (choices := getattr(completion, "choices", None)):
        said = choices[0].message
    calls = enumerate(getattr(said, "tool_calls", None) or ())
    return AIMessageChunk(
        content=getattr(said, "content", None) or "",
        tool_call_chunks=[
            tool_call_chunk(
                name=call.function.name, args=call.function.arguments, id=call.id, index=index
            )
            for index, call in calls
        ],
        usage_metadata=usage
        and UsageMetadata(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
        ),
        response_metadata={"finish_reason": reason},
    )


def _arguments(request: ChatRequest) -> dict[str, Any]:
    kwargs: dict[str, Any] = {}
    if request.stop:
        kwargs["stop"] = request.stop
    if request.max_tokens is not None:
        kwargs["max_tokens"] = request.max_tokens
    if request.response_format and request.response_format.get("type") != "text":
        kwargs["response_format"] = request.response_format
    return kwargs


def _tool_arguments(request: ChatRequest) -> dict[str, Any]:
    kwargs: dict[str, Any] = {}
    choice = request.tool_choice
    if isinstance(choice, dict):
        kwargs["tool_choice"] = choice["name"]
    elif choice is not None:
        kwargs["tool_choice"] = "any" if choice == "required" else choice
    if not request.parallel_tool_calls:
        kwargs["parallel_tool_calls"] = False
    return kwargs


def _untraced(messages: Iterable[AIMessage]) -> Iterator[AIMessage]:
    """Take each step outside of tracing: the steps of a stream may run in different contexts."""
    steps = iter(messages)
    while True:
        with tracing_context(enabled=False):
            message = next(steps, None)
        if message is None:
            return
        yield message


Role = Literal["planner", "reader", "policy"]
_ROLES: Mapping[str, Role] = {
    "planner": "planner", "quarantined": "reader", "classifier": "reader", "policy": "policy",
}  # fmt: skip


class RoleBrain:
    """A brain for each role.

    Args:
        brains: By role; `reader` is who reads data, which classifiers do too.
        otherwise: Who answers the others, and chats.
    """

    def __init__(self, brains: Mapping[Role, Brain], otherwise: Brain) -> None:
        self._brains = brains
        self._otherwise = otherwise

    def stream(self, request: ChatRequest, context: BrainContext) -> Iterator[AIMessageChunk]:
        """Answer as the brain of the role does."""
        role = _ROLES.get(context.role)
        brain = self._otherwise if role is None else self._brains.get(role, self._otherwise)
        return brain.stream(request, context)


class BoundedBrain:
    """A brain that answers a request within its limits: a model may go on without end.

    Args:
        brain: The brain.
        charge: What the request takes of the memory of all.
    """

    def __init__(self, brain: Brain, charge: Charge) -> None:
        self._brain = brain
        self._charge = charge

    def stream(self, request: ChatRequest, context: BrainContext) -> Iterator[AIMessageChunk]:
        """Answer in pieces, as the brain does.

        Raises:
            StatusError: Also 502 for an answer that is too long, 429 or 413 where there is no
                memory for it.
        """
        left = limits.ANSWER
        for number, chunk in enumerate(self._brain.stream(request, context)):
            size = _said(chunk)
            left -= size
            if left < 0:
                refuse(
                    502,
                    f"The model behind this server answered with more than {limits.ANSWER} bytes. "
                    "Give it a limit of tokens.",
                )
            # LangChain keeps every piece of a model's stream until its end.
            piece = limits.PIECE if number >= limits.FEW_PIECES else 0
            self._charge.take(_TIMES_KEPT * size + _parsed(chunk) + piece)
            yield chunk


# As pieces and as their sum, in the session and as the reply.
_TIMES_KEPT = 2


def _said(chunk: AIMessageChunk) -> int:
    """Bytes that a piece adds to the answer; empty ones add up, too."""
    beside = [chunk.additional_kwargs, chunk.response_metadata.get("logprobs")]
    calls = chunk.tool_call_chunks
    if isinstance(chunk.content, str) and not any(beside) and not calls:
        return of_part(chunk.content)
    return of_value([chunk.content, *filter(None, beside), *calls])


def _parsed(chunk: AIMessageChunk) -> int:
    """Bytes that arguments take beyond their text, once they are parsed."""
    return sum(of_json(call["args"] or "") for call in chunk.tool_call_chunks)


class _Neutral:
    """Messages of any provider, as pieces in the words of chat/completions."""

    def __init__(self) -> None:
        self._usage: UsageMetadata | None = None
        self._finish_reason: str | None = None
        self._stop_sequence: str | None = None
        self._index = -1
        self._output_tokens = 0

    def piece(self, message: AIMessage) -> AIMessageChunk:
        # Providers spread usage over a stream; LangChain's rule is that the pieces add up.
        if message.usage_metadata is not None:
            self._usage = add_usage(self._usage, message.usage_metadata)
        self._finish_reason = _finish_reason(message.response_metadata) or self._finish_reason
        self._stop_sequence = message.response_metadata.get("stop_sequence") or self._stop_sequence
        self._output_tokens += count_message(message)
        logprobs = message.response_metadata.get("logprobs")
        return AIMessageChunk(
            content=str(message.text),
            additional_kwargs=_said_beside(message),
            response_metadata={"logprobs": logprobs} if logprobs else {},
            tool_call_chunks=[self._indexed(call) for call in _call_pieces(message)],
        )

    def _indexed(self, call: ToolCallChunk) -> ToolCallChunk:
        given = call["index"]
        if isinstance(given, int):
            self._index = max(self._index, given)
            return call
        if call["id"] is not None or self._index < 0:
            self._index += 1
        return ToolCallChunk(**{**call, "index": self._index})

    def last(self, request: ChatRequest) -> AIMessageChunk:
        usage = self._usage or usage_of(count_request(request), self._output_tokens)
        default = "tool_calls" if self._index >= 0 else "stop"
        metadata = {
            "finish_reason": self._finish_reason or default,
            "model_name": request.model,
        }
        if self._stop_sequence is not None:
            metadata["stop_sequence"] = self._stop_sequence
        return AIMessageChunk(content="", usage_metadata=usage, response_metadata=metadata)


def _finish_reason(metadata: Mapping[str, Any]) -> str | None:
    for key in ("finish_reason", "stop_reason", "done_reason"):
        found = metadata.get(key)
        if isinstance(found, str):
            return _FINISH_REASONS.get(found.lower(), found.lower())
    return None


def _said_beside(message: AIMessage) -> dict[str, Any]:
    """Reasoning, its signature and a refusal, from wherever the provider's package put them."""
    said = {"reasoning_content": "", "reasoning_signature": "", "refusal": ""}
    if isinstance(message.content, list):
        for block in message.content_blocks:
            if block["type"] == "reasoning":
                said["reasoning_content"] += block.get("reasoning", "")
                said["reasoning_signature"] += str(block.get("extras", {}).get("signature", ""))
            elif block["type"] == "refusal":
                said["refusal"] += block["refusal"]
    for key in ("reasoning_content", "refusal"):
        said[key] = message.additional_kwargs.get(key) or said[key]
    return {key: value for key, value in said.items() if value}


def _call_pieces(message: AIMessage) -> list[ToolCallChunk]:
    if isinstance(message, AIMessageChunk):
        return message.tool_call_chunks
    whole = [
        tool_call_chunk(name=call["name"], args=dumps_like_service(call["args"]), id=call["id"])
        for call in message.tool_calls
    ]
    broken = [
        tool_call_chunk(name=call["name"], args=call["args"], id=call["id"])
        for call in message.invalid_tool_calls
    ]
    return whole + broken
