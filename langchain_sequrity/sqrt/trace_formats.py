"""Runs of tools and models in exported traces: of LangSmith, and of OpenTelemetry.

Read are the runs of LangSmith as its SDK has them, flat or as trees; batches of OTLP as JSON; and
spans one by one, as OpenTelemetry's Python SDK writes them. The attributes of a span are those of
OpenInference (https://arize-ai.github.io/openinference/spec/attributes/semantic-conventions.html)
or of OpenTelemetry's conventions for GenAI
(https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/execute-tool.md).
All other runs only say to which conversation their trace belongs.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from langchain_sequrity.strict_json import loads
from langchain_sequrity.syntax_trees import parse

_NANOSECONDS = 1_000_000_000
_THREAD_KEYS = ("thread_id", "session_id", "conversation_id")
_THREAD_ATTRIBUTES = ("session.id", "gen_ai.conversation.id")
_MODEL_OPERATIONS = {"chat", "generate_content", "text_completion"}
_OUTPUT_CALL = re.compile(
    r"llm\.output_messages\.(\d+)\.message\.tool_calls\.(\d+)\.tool_call\.(.+)"
)
_INPUT_RESULT = re.compile(r"llm\.input_messages\.\d+\.message\.tool_call_id")
_REDACTED = "__REDACTED__"
"""What OpenInference writes in the place of hidden inputs."""
_MARKERS = (b'"run_type"', b'"resourceSpans"', b'"spanId"', b'"span_id"')

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RequestedCall:
    """A call that a model asked for.

    Attributes:
        tool: The tool.
        arguments: The arguments; `None` if they are not an object.
        id: The id of the call, or an empty text.
    """

    tool: str
    arguments: dict[str, Any] | None
    id: str = ""


@dataclass(frozen=True, slots=True)
class TracedRun:
    """A run in a trace.

    Attributes:
        id: Its id.
        trace: The id of its trace.
        thread: The id of its conversation, or an empty text.
        run_type: Whether a tool or a model ran; empty for all others.
        start: When it began, in nanoseconds since 1970.
        end: When it ended; its start if this is not known.
        tool: The tool.
        arguments: The arguments of the tool; `None` if they cannot be read.
        result: What the tool returned.
        is_error: Whether it failed.
        call_id: The id of the call, as the model gave it, or an empty text.
        requests: The calls that the model asked for.
        answered: The ids of calls whose results the model had before it.
    """

    id: str
    trace: str
    thread: str
    run_type: Literal["tool", "model", ""]
    start: int
    end: int
    tool: str = ""
    arguments: dict[str, Any] | None = None
    result: Any = None
    is_error: bool = False
    call_id: str = ""
    requests: tuple[RequestedCall, ...] = ()
    answered: frozenset[str] = frozenset()


def may_have_runs(line: bytes) -> bool:
    """Whether a line of JSON may be a part of a trace: a cheap test that is never wrongly false."""
    return any(marker in line for marker in _MARKERS)


def has_runs(data: object) -> bool:
    """Whether a JSON value is a part of a trace."""
    if not isinstance(data, Mapping) or "tool" in data:
        return False
    context = data.get("context")
    span = context if isinstance(context, Mapping) else data
    return (
        "run_type" in data
        or "resourceSpans" in data
        or ("traceId" in span and "spanId" in span)
        or ("trace_id" in span and "span_id" in span)
    )


def runs_in(data: Json) -> Iterator[TracedRun]:
    """The runs in a part of a trace.

    Args:
        data: A JSON value for which `has_runs` is true.

    Raises:
        ValueError: If it cannot be read; the message says why.
    """
    try:
        if "resourceSpans" in data:
            for batch in data["resourceSpans"]:
                for scope in batch.get("scopeSpans", ()):
                    yield from map(_run_of_span, scope.get("spans", ()))
        elif "run_type" in data:
            yield from _runs_of_tree(data)
        else:
            yield _run_of_span(data)
    except (AttributeError, KeyError, TypeError, OverflowError) as error:
        msg = f"a part is missing or has another type: {error}"
        raise ValueError(msg) from None


# LangSmith


def _runs_of_tree(root: Json) -> Iterator[TracedRun]:
    unread = [root]
    while unread:
        data = unread.pop()
        unread += data.get("child_runs") or ()
        yield _run_of_langsmith(data)


def _run_of_langsmith(data: Json) -> TracedRun:
    extra = data.get("extra") or {}
    # `session_id` of a run is its project; a conversation is named in the metadata.
    thread = _first(extra.get("metadata") or {}, _THREAD_KEYS)
    times = data["start_time"], data.get("end_time")
    run = _run(data["id"], data["trace_id"], thread, *times)
    inputs, outputs = data.get("inputs") or {}, data.get("outputs") or {}
    if data["run_type"] in {"llm", "chat_model"}:
        requests, answered = tuple(_requests_in(outputs)), frozenset(_answered_in(inputs))
        return replace(run, run_type="model", requests=requests, answered=answered)
    if data["run_type"] != "tool":
        return run
    result, status, call_id = _result(outputs.get("output", outputs) if outputs else None)
    error = data.get("error")
    return replace(
        run,
        run_type="tool",
        tool=_text(data["name"]),
        arguments=_arguments(inputs),
        result=error or result,
        is_error=bool(error) or status == "error",
        call_id=_text(extra.get("tool_call_id") or call_id),
    )


def _inner_objects(value: Any) -> Iterator[Json]:
    """The objects in a JSON value, from the outside and in order."""
    unread = [value]
    while unread:
        inner = unread.pop()
        if isinstance(inner, Mapping):
            yield inner
            unread += reversed([*inner.values()])
        elif isinstance(inner, list):
            unread += reversed(inner)


def _requests_in(outputs: Any) -> Iterator[RequestedCall]:
    """The calls in a message of LangChain, OpenAI or Anthropic, each once.

    LangChain's messages repeat the calls in the provider's own form.
    """
    seen: set[str] = set()
    for message in _inner_objects(outputs):
        blocks = message.get("content")
        listed = message.get("tool_calls") or [
            block
            for block in (blocks if isinstance(blocks, list) else ())
            if isinstance(block, Mapping) and block.get("type") == "tool_use"
        ]
        for call in listed if isinstance(listed, list) else ():
            request = _request(call)
            if request is None or request.id in seen:
                continue
            if request.id:
                seen.add(request.id)
            yield request


def _request(call: Any) -> RequestedCall | None:
    if not isinstance(call, Mapping):
        return None
    function = call.get("function")
    named = function if isinstance(function, Mapping) else call
    arguments = next((named[key] for key in ("args", "arguments", "input") if key in named), None)
    if not isinstance(named.get("name"), str):
        return None
    return RequestedCall(named["name"], _object(arguments), _text(call.get("id")))


def _answered_in(inputs: Any) -> Iterator[str]:
    for message in _inner_objects(inputs):
        if isinstance(message.get("tool_call_id"), str):
            yield message["tool_call_id"]
        elif message.get("type") == "tool_result":
            yield _text(message.get("tool_use_id"))


# OpenTelemetry


def _run_of_span(span: Json) -> TracedRun:
    attributes = _attributes(span.get("attributes") or {})
    context = span.get("context") or span
    run = _run(
        context.get("spanId") or context["span_id"],
        context.get("traceId") or context["trace_id"],
        _first(attributes, _THREAD_ATTRIBUTES),
        span.get("startTimeUnixNano") or span["start_time"],
        span.get("endTimeUnixNano") or span.get("end_time"),
    )
    span_kind = attributes.get("openinference.span.kind") or span.get("span_kind")
    operation = attributes.get("gen_ai.operation.name")
    if span_kind == "TOOL" or operation == "execute_tool":
        return _tool_of_span(run, span, attributes)
    if span_kind == "LLM" or operation in _MODEL_OPERATIONS:
        requests = (*_requests_of_openinference(attributes), *_requests_of_genai(attributes))
        answered = frozenset(_answered_before(attributes))
        return replace(run, run_type="model", requests=requests, answered=answered)
    return run


def _tool_of_span(run: TracedRun, span: Json, attributes: Json) -> TracedRun:
    written = _first(attributes, ("gen_ai.tool.call.arguments", "input.value"))
    arguments = _arguments(_parsed(written))
    if not written:
        # OpenInference means the definition of the parameters; some write the arguments here.
        parameters = _object(attributes.get("tool.parameters")) or {}
        arguments = None if parameters.keys() <= {"type", "properties", "required"} else parameters
    output = _first(attributes, ("gen_ai.tool.call.result", "output.value"))
    result, status, call_id = _result(_parsed(output))
    return replace(
        run,
        run_type="tool",
        tool=_text(_first(attributes, ("gen_ai.tool.name", "tool.name")) or span["name"]),
        arguments=arguments,
        result=result,
        is_error=status == "error" or _failed(span),
        call_id=_text(attributes.get("gen_ai.tool.call.id") or call_id),
    )


def _attributes(listed: Any) -> dict[str, Any]:
    """The attributes of a span, also in the form of OTLP: a list of keys and typed values."""
    if isinstance(listed, Mapping):
        return dict(listed)
    return {entry["key"]: _value(entry["value"]) for entry in listed}


def _value(typed: Json) -> Any:
    for key, value in typed.items():
        match key:
            case "arrayValue":
                return [*map(_value, value.get("values", ()))]
            case "kvlistValue":
                return _attributes(value.get("values", ()))
            case "intValue":
                return int(value)  # a text in JSON
        return value
    return None


def _failed(span: Json) -> bool:
    status = span.get("status") or {}
    code = status.get("code") or status.get("status_code") or span.get("status_code")
    return code in {2, "STATUS_CODE_ERROR", "ERROR"}


def _requests_of_openinference(attributes: Json) -> Iterator[RequestedCall]:
    calls: dict[tuple[int, int], dict[str, Any]] = {}
    for name, value in attributes.items():
        if parts := _OUTPUT_CALL.fullmatch(name):
            calls.setdefault((int(parts[1]), int(parts[2])), {})[parts[3]] = value
    for _, call in sorted(calls.items()):
        arguments = _object(call.get("function.arguments", {}))  # left out if there are none
        yield RequestedCall(_text(call.get("function.name")), arguments, _text(call.get("id")))


def _requests_of_genai(attributes: Json) -> Iterator[RequestedCall]:
    for part in _parts(attributes.get("gen_ai.output.messages"), "tool_call"):
        request = _request(part)
        if request is not None:
            yield request


def _answered_before(attributes: Json) -> Iterator[str]:
    for name, value in attributes.items():
        if _INPUT_RESULT.fullmatch(name):
            yield _text(value)
    for part in _parts(attributes.get("gen_ai.input.messages"), "tool_call_response"):
        yield _text(part.get("id"))


def _parts(messages: Any, part_type: str) -> Iterator[Json]:
    return (part for part in _inner_objects(_parsed(messages)) if part.get("type") == part_type)


# Fields of both


def _run(run_id: Any, trace: Any, thread: Any, start: Any, end: Any) -> TracedRun:
    """A run of which only the place and the time is known."""
    if not run_id or not trace:
        msg = "it has no id, or no trace"
        raise ValueError(msg)
    began = _time(start)
    ended = began if end is None else max(began, _time(end))
    return TracedRun(_text(run_id), _text(trace), _text(thread), "", began, ended)


def _first(values: Json, keys: Iterable[str]) -> Any:
    """The first value that is there and not empty."""
    return next((values[key] for key in keys if values.get(key)), None)


def _time(value: Any) -> int:
    """A time in nanoseconds."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        # LangSmith's SDK for JavaScript has milliseconds.
        return value if value > _NANOSECONDS**2 / 10 else value * 1_000_000
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)  # as LangSmith's API returns it
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    whole_seconds = since.days * 86_400 + since.seconds
    return whole_seconds * _NANOSECONDS + since.microseconds * 1_000


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _arguments(inputs: Any) -> dict[str, Any] | None:
    """The arguments in the inputs of a tool; older LangChain writes their `repr` as `input`."""
    if isinstance(inputs, str):
        inputs = None if inputs == _REDACTED else {"input": inputs}
    if not isinstance(inputs, Mapping):
        return None
    if [*inputs] != ["input"] or not isinstance(inputs["input"], str | Mapping):
        return dict(inputs)
    arguments = _object(inputs["input"])
    if arguments is not None or str(inputs["input"]).lstrip().startswith("{"):
        return arguments
    return dict(inputs)  # the one argument of a `Tool`


def _object(value: Any) -> dict[str, Any] | None:
    """An object, or the JSON or the `repr` of one."""
    parsed = _parsed(value)
    if isinstance(parsed, str):
        with suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            parsed = ast.literal_eval(parse(parsed.strip(), "eval"))
    return dict(parsed) if isinstance(parsed, Mapping) else None


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    with suppress(ValueError):
        return loads(value)
    return value


def _result(output: Any) -> tuple[Any, str, str]:
    """The value that a tool returned; the status and the call's id of a tool message.

    A message may be the plain data of the object, or in one of LangChain's two written forms. Its
    text is parsed if it is JSON, as in the middleware.
    """
    message = output
    for key in ("kwargs", "data"):
        if isinstance(message, Mapping) and isinstance(message.get(key), Mapping):
            message = message[key]
    if isinstance(message, Mapping) and "tool_call_id" in message and "content" in message:
        text, call_id = message["content"], message["tool_call_id"]
        return _parsed(text), _text(message.get("status")), _text(call_id)
    return _parsed(output), "", ""
