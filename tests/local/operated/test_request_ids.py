"""Ids of requests, and traces that go through to the models."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI
from opentelemetry import trace as otel
from pydantic import SecretStr

from langchain_sequrity.local.trace_context import read_traceparent, read_tracestate
from tests.local.api import Api, streamed_text, tool
from tests.local.conftest import Serve

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize("sent", ["mine", "a" * 128, "with spaces (1)", "~"])
def test_the_clients_id_is_kept_and_logged(serve: Serve, sent: str) -> None:
    records: list[Any] = []
    api = serve(on_request=records.append)
    reply = api.chat("Hi", headers={"X-Request-ID": sent})
    assert reply.headers["x-request-id"] == sent
    api.server.stop()
    assert [record.request_id for record in records] == [sent]
    assert records[0].client == "127.0.0.1"


@pytest.mark.parametrize("sent", ["a" * 129, "tab\there", "\u00e9".encode(), b"\x1b[31m", ""])
def test_another_id_is_replaced(api: Api, sent: Any) -> None:
    try:
        reply = api.chat("Hi", headers={"X-Request-ID": sent})
    except ValueError:
        pytest.skip("httpx does not send it")
    if reply.status_code == 200:
        assert re.fullmatch(r"[0-9a-f-]{36}", reply.headers["x-request-id"])
    else:
        assert reply.status_code == 400


def test_of_two_ids_neither_is_kept(api: Api) -> None:
    headers = [*api.authorization().items(), ("X-Request-ID", "a"), ("X-Request-ID", "b")]
    reply = api.request("GET", "/health", headers=headers)
    assert reply.headers["x-request-id"] not in {"a", "b"}


def test_errors_have_the_clients_id_too(api: Api) -> None:
    headers = {"X-Request-ID": "mine", "Host": "evil.example"}
    reply = api.request("GET", "/", headers=headers)
    assert (reply.status_code, reply.headers["x-request-id"]) == (421, "mine")


# Traces


def test_a_trace_is_continued_and_returned(api: Api) -> None:
    reply = api.chat("Hi", headers={"traceparent": PARENT})
    version, trace, span, flags = reply.headers["traceresponse"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != SPAN


def test_without_a_trace_none_is_returned(api: Api) -> None:
    assert "traceresponse" not in api.chat("Hi").headers


@pytest.mark.parametrize(
    "values",
    [
        [PARENT.upper()],
        [PARENT.replace("00-", "ff-", 1)],
        [f"{PARENT}-more"],
        [PARENT.replace(TRACE, "0" * 32)],
        [PARENT.replace(SPAN, "0" * 16)],
        [PARENT[:-1]],
        [PARENT, PARENT],
        [f"{PARENT},{PARENT}"],
        [""],
        [],
    ],
)
def test_an_invalid_trace_is_ignored(values: list[str]) -> None:
    assert read_traceparent(values) is None


def test_a_later_version_may_have_more_parts() -> None:
    parent = read_traceparent([f"01-{TRACE}-{SPAN}-03-more"])
    assert parent is not None
    assert (parent.trace_id, parent.span_id, parent.is_sampled) == (TRACE, SPAN, True)


@pytest.mark.parametrize(
    ("values", "state"),
    [
        (["a=1,b=2"], "a=1,b=2"),
        (["a=1", "b@c=2 , "], "a=1,b@c=2"),
        (["a=1,a=2"], ""),
        (["A=1"], ""),
        (["a=1=2"], ""),
        (["a="], ""),
        (["a=\u00e9"], ""),
        ([",".join(f"k{n}=1" for n in range(33))], ""),
        ([",".join(f"k{n}={'v' * 100}" for n in range(6))], ""),
    ],
)
def test_the_state_of_a_trace_is_read_strictly(values: list[str], state: str) -> None:
    assert read_tracestate(values) == state


def of_openai(url: str) -> Any:
    key = SecretStr("sq-test")
    return ChatOpenAI(
        model="a/b", base_url=f"{url}/control/chat/v1", api_key=key, max_retries=0,
        http_client=httpx.Client(trust_env=False),
    )  # fmt: skip


def of_anthropic(url: str) -> Any:
    headers = {"Authorization": "Bearer sq-test"}
    return ChatAnthropic(
        model_name="a/b", base_url=f"{url}/control/chat", api_key=SecretStr("x"), max_retries=0,
        default_headers=headers, timeout=10, stop=None,
    )  # fmt: skip


@pytest.mark.parametrize("make", [of_openai, of_anthropic])
@pytest.mark.parametrize("stream", [False, True])
def test_the_trace_goes_through_to_the_model(serve: Serve, make: Any, stream: bool) -> None:
    """The model behind the server is another server, which continues the trace, too."""
    seen: list[dict[str, str]] = []
    behind = serve(script=[{"text": "Hello."}])
    model = make(behind.server.base_url)
    client = model.root_client if make is of_openai else model._client
    client._client.event_hooks["request"].append(lambda request: seen.append(dict(request.headers)))
    api = serve(model=model)
    headers = {"traceparent": PARENT, "tracestate": "a=1"}
    try:
        if stream:
            with api.stream("Hi", headers=headers) as reply:
                assert streamed_text(reply.read()) == "Hello."
        else:
            reply = api.chat("Hi", headers=headers)
    finally:
        client.close()
    assert reply.status_code == 200
    assert seen[0]["traceparent"] == reply.headers["traceresponse"]
    assert seen[0]["tracestate"] == "a=1"


class Spans(otel.TracerProvider, otel.Tracer):
    """A provider that records the spans of OpenTelemetry's API."""

    def __init__(self) -> None:
        self.started: list[RecordedSpan] = []

    def get_tracer(self, *_: Any, **__: Any) -> otel.Tracer:
        return self

    def start_span(self, name: str, context: Any = None, *_: Any, **options: Any) -> otel.Span:
        parent = otel.get_current_span(context).get_span_context()
        self.started.append(RecordedSpan(name, parent, len(self.started) + 1, options))
        return self.started[-1]

    @contextmanager
    def start_as_current_span(  # type: ignore[override] # the API has its own decorator
        self, name: str, context: Any = None, **options: Any
    ) -> Iterator[otel.Span]:
        span = self.start_span(name, context, **options)
        with otel.use_span(span, end_on_exit=True):
            yield span


class RecordedSpan(otel.NonRecordingSpan):
    def __init__(self, name: str, parent: otel.SpanContext, number: int, options: Any) -> None:
        trace_id = parent.trace_id or number
        super().__init__(otel.SpanContext(trace_id, number, False, otel.TraceFlags(1)))
        self.name, self.parent, self.attributes = name, parent, dict(options["attributes"])
        self.is_ended = False

    def is_recording(self) -> bool:
        return not self.is_ended

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def end(self, end_time: int | None = None) -> None:
        del end_time
        self.is_ended = True


def test_spans_of_the_models_and_checks_are_children_of_the_request(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = Spans()
    monkeypatch.setattr(otel, "get_tracer_provider", lambda: spans)
    api = serve(script=[{"program": "look_up(word='a')"}])
    reply = api.chat(
        "Hi",
        tools=[tool()],
        headers={"X-Features": '{"agent_arch": "dual-llm"}', "traceparent": PARENT},
    )
    assert reply.status_code == 200
    api.server.stop()
    request, *children = spans.started
    assert (f"{request.parent.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE, SPAN)
    assert request.attributes["http.response.status_code"] == 200
    names = {span.name for span in children}
    assert {"planner model", "policy check"} <= names
    assert {span.parent.span_id for span in children} == {request.get_span_context().span_id}
    assert all(span.is_ended for span in spans.started)
