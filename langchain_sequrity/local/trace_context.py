"""W3C Trace Context: the trace of a request, with spans of OpenTelemetry if it is installed.

A request with a valid `traceparent` continues its trace; an invalid one is ignored, and with it
`tracestate` (https://www.w3.org/TR/trace-context/, 3.2 and 3.3). OpenTelemetry is optional: without
its package, the ids are passed on, and no spans are recorded.
"""

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

try:
    from opentelemetry import trace as otel
except ImportError:  # optional
    otel = None  # type: ignore[assignment] # as above

_PARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<rest>-.*)?"
)
_INVALID_VERSION = "ff"
_SAMPLED = 1
_KEY = r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(rf"({_KEY})=({_VALUE})")
_MOST_MEMBERS = 32
_MOST_STATE = 512  # characters that everybody passes on


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The place of a request in a trace.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits: the span of this server.
        is_sampled: Whether the caller records the trace.
        state: `tracestate` of the caller, checked.
        is_continued: Whether the caller began the trace.
        context: The context of OpenTelemetry in which spans of the request are children.
    """

    trace_id: str
    span_id: str
    is_sampled: bool = False
    state: str = ""
    is_continued: bool = False
    context: Any = None

    @property
    def parent(self) -> str:
        """The value of `traceparent` for calls of this server, and of `traceresponse`."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers for calls that this request makes."""
        return {"traceparent": self.parent, **({"tracestate": self.state} if self.state else {})}


def read_traceparent(values: Sequence[str]) -> TraceContext | None:
    """Read a `traceparent`, strictly.

    Args:
        values: The values of all headers of this name.

    Returns:
        The caller's span; `None` if there is not exactly one valid header.
    """
    match = _PARENT.fullmatch(values[0].strip(" \t")) if len(values) == 1 else None
    if match is None or match["version"] == _INVALID_VERSION:
        return None
    if match["rest"] and match["version"] == "00":  # later versions may have further parts
        return None
    if not match["trace"].strip("0") or not match["span"].strip("0"):
        return None
    is_sampled = bool(int(match["flags"], 16) & _SAMPLED)
    return TraceContext(match["trace"], match["span"], is_sampled, is_continued=True)


def read_tracestate(values: Sequence[str]) -> str:
    """Read `tracestate`; an empty text if it is invalid, or longer than everybody passes on."""
    members = [member.strip(" \t") for value in values for member in value.split(",")]
    matches = [_MEMBER.fullmatch(member) for member in filter(None, members)]
    keys = [match[1] for match in matches if match]
    state = ",".join(match[0] for match in matches if match)
    is_valid = len(keys) == len(matches) <= _MOST_MEMBERS and len({*keys}) == len(keys)
    return state if is_valid and len(state) <= _MOST_STATE else ""


@contextmanager
def request_span(
    headers: Mapping[str, Sequence[str]], name: str, attributes: Mapping[str, Any]
) -> Iterator[tuple[TraceContext | None, Any]]:
    """Begin the span of a request, as a child of the caller's.

    Args:
        headers: The values of `traceparent` and `tracestate`, by name.
        name: The name of the span.
        attributes: Its attributes.

    Yields:
        The trace of the request, and OpenTelemetry's span. Both are `None` if the caller has no
        trace and nobody records spans.
    """
    caller = read_traceparent(headers.get("traceparent", ()))
    state = read_tracestate(headers.get("tracestate", ())) if caller else ""
    if not _has_provider():
        yield caller and replace(caller, span_id=secrets.token_hex(8), state=state), None
        return
    tracer = otel.get_tracer("langchain_sequrity")
    with tracer.start_as_current_span(
        name, _otel_parent(caller, state), kind=otel.SpanKind.SERVER, attributes=attributes
    ) as span:
        ids = span.get_span_context()
        yield (
            TraceContext(
                f"{ids.trace_id:032x}",
                f"{ids.span_id:016x}",
                bool(ids.trace_flags & _SAMPLED),
                state,
                caller is not None,
                otel.set_span_in_context(span),
            ),
            span if span.is_recording() else None,
        )


def _has_provider() -> bool:
    if otel is None:
        return False
    provider = otel.get_tracer_provider()
    return not isinstance(provider, otel.ProxyTracerProvider | otel.NoOpTracerProvider)


def _otel_parent(caller: TraceContext | None, state: str) -> Any:
    if caller is None:
        return None
    ids = otel.SpanContext(
        int(caller.trace_id, 16),
        int(caller.span_id, 16),
        is_remote=True,
        trace_flags=otel.TraceFlags(int(caller.is_sampled)),
        trace_state=otel.TraceState.from_header([state] if state else []),
    )
    return otel.set_span_in_context(otel.NonRecordingSpan(ids))


def start_span(trace: TraceContext | None, name: str, attributes: Mapping[str, Any]) -> Any:
    """Start a child of the request's span; `None` if nothing records it. The caller ends it."""
    if otel is None or trace is None or trace.context is None:
        return None
    if not otel.get_current_span(trace.context).is_recording():
        return None
    tracer = otel.get_tracer("langchain_sequrity")
    return tracer.start_span(name, trace.context, attributes=attributes)
