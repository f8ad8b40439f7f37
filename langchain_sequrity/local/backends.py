"""Backends, which answer chats: the protocol, and LangChain chat models as backends."""

import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.runnables import RunnableConfig
from langsmith.run_helpers import tracing_context

from langchain_sequrity.errors import SequrityError, StatusError, status_error
from langchain_sequrity.local import limits
from langchain_sequrity.local.answers import count_message, count_request, usage_of
from langchain_sequrity.local.fair_slots import waiting
from langchain_sequrity.local.limits import Charge
from langchain_sequrity.local.observers import current_request
from langchain_sequrity.local.refusals import how_to_raise, refuse
from langchain_sequrity.sizes import of_json, of_part, of_value
from langchain_sequrity.strict_json import dumps_like_service
from langchain_sequrity.wire.exchange import ChatRequest, ChunkSum
from langchain_sequrity.wire.policy_generation import PolicyRequest
from langchain_sequrity.wire.tools import parse_calls, unfinished_calls

# Otherwise the model would inherit the callbacks of a run around the server in the same thread.
_NO_CALLBACKS: RunnableConfig = {"callbacks": []}
_logger = logging.getLogger("langchain_sequrity.local")
_TOO_MANY_REQUESTS = 429
# Their invocation arguments go to `create` of the vendors' SDKs, which take `extra_headers`. Others
# have no documented argument for headers of a single call.
_WITH_EXTRA_HEADERS = frozenset({"BaseChatOpenAI", "ChatAnthropic"})
_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "stop",
    "refusal": "stop",  # the text of the refusal is sent separately
}


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What a backend gets besides the request.

    Attributes:
        role: The role that is asked: `chat`, `planner`, `quarantined`, `classifier` or `policy`.
        endpoint_type: First segment of the request's path, such as `chat`.
        plan: What a planner may use; the planner's prompt holds it, too, as text.
        classifier: The classifier's name.
        policy: The request to a policy writer; its prompt holds it, too, as text.
    """

    role: str = "chat"
    endpoint_type: str = "chat"
    plan: "PlanContext | None" = None
    classifier: str = ""
    policy: PolicyRequest | None = None


@dataclass(frozen=True, slots=True)
class PlanContext:
    """What a program may use, for backends that do not read prompts.

    Attributes:
        tools: The caller's tools, with the names that programs use.
        internal_tools: Enabled internal tools.
        tool_choice: Which tool to call, as in `ChatRequest`.
        response_format: The form of the answer, as in `ChatRequest`.
    """

    tools: Sequence[dict[str, Any]] = ()
    internal_tools: Sequence[str] = ()
    tool_choice: str | dict[str, str] | None = None
    response_format: dict[str, Any] | None = None


class Backend(Protocol):
    """Something that answers chats. Many threads call it at once."""

    def stream(self, request: ChatRequest, context: BackendContext) -> Iterator[AIMessageChunk]:
        """Answer in pieces.

        Args:
            request: The request.
            context: The role that is asked, and the endpoint.

        Returns:
            Chunks of one message: text as `content`; `reasoning_content`, `reasoning_signature`
            and `refusal` in `additional_kwargs`; tool call chunks with an integer `index`. Only
            the last chunk has `usage_metadata`, and `finish_reason` and `stop_sequence` in
            `response_metadata`.

        Raises:
            StatusError: To answer with an error status.
        """


class ModelBackend:
    """Any LangChain chat model as the backend.

    The options of a request become keyword arguments of the model. For options that the request
    does not have, the model keeps its own settings. A model without tool calling (one that does not
    override `bind_tools`, such as LangChain's fake models) is called without the tools. The model's
    runs are not traced, because the client already traces them.

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
        self._name = type(model).__name__
        self._takes_headers = any(
            cls.__name__ in _WITH_EXTRA_HEADERS for cls in type(model).__mro__
        )
        self._calls_tools = type(model).bind_tools is not BaseChatModel.bind_tools

    def stream(self, request: ChatRequest, context: BackendContext) -> Iterator[AIMessageChunk]:
        """Call the model, and bring its chunks into one form for all providers.

        Args:
            request: The request.
            context: Not used: a model answers in every role.

        Returns:
            The chunks. Usage is the model's own, or counted if the model reports none.

        Raises:
            StatusError: 429 if the model's provider answers with 429, and 502 for its other errors.
        """
        del context
        return _normalized(_without_tracing(self._ask(request)), request)

    def _ask(self, request: ChatRequest) -> Iterator[AIMessage]:
        kwargs = _arguments(request)
        runnable: Any = self._model
        trace = current_request.get().trace
        if trace is not None and self._takes_headers:
            kwargs["extra_headers"] = trace.headers
        streams = request.stream
        tools = [*request.tools, *request.server_tools]
        if tools and self._calls_tools:
            runnable = self._model.bind_tools(tools, **_tool_arguments(request))
        elif tools:
            streams = False  # LangChain's fake models lose tool calls in streams
        has_streamed = False
        try:
            if streams:
                for piece in runnable.stream(request.messages, _NO_CALLBACKS, **kwargs):
                    yield piece
                    has_streamed = True
            else:
                yield runnable.invoke(request.messages, _NO_CALLBACKS, **kwargs)
        except SequrityError:
            raise
        except Exception as error:  # noqa: BLE001 - a provider raises anything
            reason = _ENDS.get(type(error).__name__)
            if reason is None:
                # `from None`: whoever logs this error must not log the provider's, too.
                raise self._failure(error) from None
            yield _partial_answer(error, reason, has_streamed=has_streamed)

    def count_tokens(self, request: ChatRequest) -> int:
        """Count the input tokens of a request: the model counts, if its class can.

        Raises:
            StatusError: As for `stream`.
        """
        # LangChain's own function would load the tokenizer of GPT-2, whatever the model is.
        inherited = BaseChatModel.get_num_tokens_from_messages
        if type(self._model).get_num_tokens_from_messages is inherited:
            return count_request(request)
        tools = [*request.tools, *request.server_tools] or None
        try:
            with waiting():  # it may ask its provider
                return self._model.get_num_tokens_from_messages(request.messages, tools)
        except (NotImplementedError, ImportError):  # as of `ChatOpenAI` for names of other vendors
            return count_request(request)
        except Exception as error:  # noqa: BLE001 - a provider raises anything
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> StatusError:
        # A provider's exception can contain its key, so its text is not logged.
        _logger.error("The model `%s` failed%s", self._name, _describe_causes(error))
        is_limited = getattr(error, "status_code", None) == _TOO_MANY_REQUESTS
        status = _TOO_MANY_REQUESTS if is_limited else 502
        detail = (
            f"The model `{self._name}` behind this server failed with `{type(error).__name__}`. "
            "The server's log has the place."
        )
        return status_error(status)(detail, status=status, body={"detail": detail})


def _describe_causes(error: BaseException | None) -> str:
    """Describe an exception and its causes by type, HTTP status and place.

    Neither their texts nor lines of source code are shown: both can hold a key.
    """
    lines: list[str] = []
    seen_ids: set[int] = set()
    while error is not None and id(error) not in seen_ids:  # an exception can be its own cause
        seen_ids.add(id(error))
        status = getattr(error, "status_code", None)
        status_text = f" with status {status}" if isinstance(status, int) else ""
        lines.append(f"\n{type(error).__name__}{status_text}")
        frames = traceback.extract_tb(error.__traceback__)
        lines += [f"\n  {frame.filename}:{frame.lineno}, in {frame.name}" for frame in frames]
        error = error.__cause__
    return "".join(lines)


_ENDS = {"LengthFinishReasonError": "length", "ContentFilterFinishReasonError": "content_filter"}
"""Errors of OpenAI's package for an answer with a schema that was cut off, also in streams."""


def _partial_answer(error: Exception, reason: str, *, has_streamed: bool) -> AIMessageChunk:
    """The answer in an error of `_ENDS`; only its finish reason if the content was streamed."""
    # The provider's package is not imported here, because it is not a dependency.
    completion: Any = getattr(error, "completion", None)
    usage = completion and completion.usage
    message = None if has_streamed or not completion else completion.choices[0].message
    calls = enumerate((message and message.tool_calls) or ())
    return AIMessageChunk(
        content=(message and message.content) or "",
        tool_call_chunks=[
            tool_call_chunk(
                name=call.function.name, args=call.function.arguments, id=call.id, index=index
            )
            for index, call in calls
        ],
        usage_metadata=usage and usage_of(usage.prompt_tokens, usage.completion_tokens),
        response_metadata={"finish_reason": reason},
    )


def _arguments(request: ChatRequest) -> dict[str, Any]:
    shape = request.response_format
    kwargs = {
        "stop": request.stop or None,
        "max_tokens": request.max_tokens,
        "response_format": shape if shape and shape.get("type") != "text" else None,
    }
    return {name: value for name, value in kwargs.items() if value is not None}


def _tool_arguments(request: ChatRequest) -> dict[str, Any]:
    choice = request.tool_choice
    name = choice["name"] if isinstance(choice, dict) else choice
    kwargs = {} if choice is None else {"tool_choice": "any" if choice == "required" else name}
    return kwargs if request.parallel_tool_calls else {**kwargs, "parallel_tool_calls": False}


def _without_tracing(messages: Iterable[AIMessage]) -> Iterator[AIMessage]:
    """Run each step without tracing: the steps of a stream may run in different contexts."""
    steps = iter(messages)
    while True:
        with tracing_context(enabled=False), waiting():
            message = next(steps, None)
        if message is None:
            return
        yield message


Role = Literal["planner", "reader", "policy"]
_ROLES: Mapping[str, Role] = {
    "planner": "planner", "quarantined": "reader", "classifier": "reader", "policy": "policy",
}  # fmt: skip


class RoleBackend:
    """A backend for each role.

    Args:
        backends: Backends by role; `reader` is the data model, which also serves as classifier.
        otherwise: The backend for chats and for roles without a backend.
    """

    def __init__(self, backends: Mapping[Role, Backend], otherwise: Backend) -> None:
        self._backends = {name: backends[role] for name, role in _ROLES.items() if role in backends}
        self._otherwise = otherwise

    def stream(self, request: ChatRequest, context: BackendContext) -> Iterator[AIMessageChunk]:
        """Answer with the backend of the role."""
        return self._backends.get(context.role, self._otherwise).stream(request, context)


class BoundedBackend:
    """A backend whose answers are limited in size, because a model may write without end.

    Args:
        backend: The backend.
        charge: The memory that the request uses.
        most_bytes: Bytes that an answer may have (`ServerLimits.answer_bytes`).
    """

    def __init__(self, backend: Backend, charge: Charge, most_bytes: int) -> None:
        self._backend = backend
        self._charge = charge
        self._most_bytes = most_bytes

    def stream(self, request: ChatRequest, context: BackendContext) -> Iterator[AIMessageChunk]:
        """Answer in pieces, as the backend does.

        Raises:
            StatusError: Also 502 for an answer that is too long, 429 or 413 if there is too little
                memory for it.
        """
        remaining = self._most_bytes
        for number, chunk in enumerate(self._backend.stream(request, context)):
            size = _size(chunk)
            remaining -= size
            if remaining < 0:
                refuse(
                    502,
                    f"The model behind this server answered with more than {self._most_bytes} "
                    f"bytes. Set a token limit for it. {how_to_raise('answer_bytes')}",
                )
            # LangChain keeps every chunk of a stream until its end.
            overhead = limits.PIECE if number >= limits.FEW_PIECES else 0
            # Arguments are parsed, which takes more than their text.
            parsed = sum(of_json(call["args"] or "") for call in chunk.tool_call_chunks)
            self._charge.add(_TIMES_KEPT * size + parsed + overhead)
            yield chunk


# An answer is kept as chunks and as their sum, and in its reply as text, as bytes and as copies.
_TIMES_KEPT = 6


def _size(chunk: AIMessageChunk) -> int:
    """Bytes that a chunk adds to the answer; empty chunks have a size, too."""
    extras = [chunk.additional_kwargs, chunk.response_metadata.get("logprobs")]
    calls = chunk.tool_call_chunks
    if isinstance(chunk.content, str) and not any(extras) and not calls:
        return of_part(chunk.content)
    return of_value([chunk.content, *filter(None, extras), *calls])


def join_chunks(chunks: Iterable[AIMessageChunk]) -> AIMessage:
    """Join the chunks of an answer."""
    total = ChunkSum(chunks).total() or AIMessageChunk(content="")
    # Not `message_chunk_to_message`: LangChain repairs arguments that are not finished.
    calls = total.tool_call_chunks
    reason = total.response_metadata.get("finish_reason")
    are_unfinished = unfinished_calls([call["args"] for call in calls], reason)
    valid, invalid = parse_calls(
        (call["name"] or "", call["args"], call["id"], is_unfinished)
        for call, is_unfinished in zip(calls, are_unfinished, strict=True)
    )
    return AIMessage(
        content=total.content,
        additional_kwargs=total.additional_kwargs,
        response_metadata=total.response_metadata,
        usage_metadata=total.usage_metadata,
        id=total.id,
        tool_calls=valid,
        invalid_tool_calls=invalid,
    )


def message_as_chunk(message: AIMessage) -> AIMessageChunk:
    """A whole answer as one chunk."""
    return AIMessageChunk(
        content=message.content,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        tool_call_chunks=_call_pieces(message),
    )


def _normalized(messages: Iterable[AIMessage], request: ChatRequest) -> Iterator[AIMessageChunk]:
    """Bring messages of any provider into the form of chat/completions."""
    usage: UsageMetadata | None = None
    ending: dict[str, str] = {}
    last_index, output_tokens = -1, 0
    for message in messages:
        # Providers spread usage over a stream; in LangChain the chunks add up.
        if message.usage_metadata is not None:
            usage = add_usage(usage, message.usage_metadata)
        ending |= _ending(message.response_metadata)
        output_tokens += count_message(message)
        calls = [*_call_pieces(message)]
        for position, call in enumerate(calls):
            if isinstance(call["index"], int):
                last_index = max(last_index, call["index"])
                continue
            if call["id"] is not None or last_index < 0:
                last_index += 1
            calls[position] = ToolCallChunk(**{**call, "index": last_index})
        logprobs = message.response_metadata.get("logprobs")
        yield AIMessageChunk(
            content=str(message.text),
            additional_kwargs=_additional_kwargs(message),
            response_metadata={"logprobs": logprobs} if logprobs else {},
            tool_call_chunks=calls,
        )
    default = "tool_calls" if last_index >= 0 else "stop"
    yield AIMessageChunk(
        content="",
        usage_metadata=usage or usage_of(count_request(request), output_tokens),
        response_metadata={"finish_reason": default, "model_name": request.model, **ending},
    )


def _ending(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Finish reason and stop sequence of a message, if it has them."""
    stated = [metadata.get(key) for key in ("finish_reason", "stop_reason", "done_reason")]
    reason = next((reason.lower() for reason in stated if isinstance(reason, str)), "")
    ending = {
        "finish_reason": _FINISH_REASONS.get(reason, reason),
        "stop_sequence": metadata.get("stop_sequence"),
    }
    return {key: value for key, value in ending.items() if value}


def _additional_kwargs(message: AIMessage) -> dict[str, Any]:
    """Reasoning, its signature and a refusal, wherever the provider's package put them."""
    fields = {"reasoning_content": "", "reasoning_signature": "", "refusal": ""}
    if isinstance(message.content, list):
        for block in message.content_blocks:
            if block["type"] == "reasoning":
                fields["reasoning_content"] += block.get("reasoning", "")
                fields["reasoning_signature"] += str(block.get("extras", {}).get("signature", ""))
            elif block["type"] == "refusal":
                fields["refusal"] += block["refusal"]
    for key in ("reasoning_content", "refusal"):
        fields[key] = message.additional_kwargs.get(key) or fields[key]
    return {key: value for key, value in fields.items() if value}


def _call_pieces(message: AIMessage) -> list[ToolCallChunk]:
    if isinstance(message, AIMessageChunk):
        return message.tool_call_chunks
    valid = [(call, dumps_like_service(call["args"])) for call in message.tool_calls]
    calls = [*valid, *((call, call["args"]) for call in message.invalid_tool_calls)]
    return [
        tool_call_chunk(name=call["name"], args=args, id=call["id"], index=index)
        for index, (call, args) in enumerate(calls)
    ]
