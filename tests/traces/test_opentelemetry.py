"""Spans of OpenTelemetry, tried: a policy decides as it did in the middleware.

The files in `recorded` are what OpenInference's instrumentation of LangChain wrote (`record.py`).
No library wrote the spans of the conventions for GenAI: they are as the conventions say.
"""

import json
from typing import Any

import pytest

from langchain_sequrity.sqrt import simulate, traced_calls
from tests.traces import RECORDED
from tests.traces.agents import POLICY, TOOLS, simulated

Json = dict[str, Any]
LINES = (RECORDED / "spans.jsonl").read_bytes().splitlines()
BATCH = json.loads((RECORDED / "otlp.json").read_bytes())
DECISIONS = [tuple(decision) for decision in json.loads((RECORDED / "decisions.json").read_bytes())]


@pytest.mark.parametrize(
    "spans", [LINES, [BATCH], [json.dumps(BATCH).encode()]], ids=["spans", "batch", "line"]
)
def test_a_policy_decides_on_spans_of_openinference_as_it_did_in_the_middleware(spans: Any) -> None:
    assert simulated(simulate(POLICY, spans, tools=TOOLS)) == DECISIONS


def test_the_runs_of_a_thread_are_one_session() -> None:
    found = traced_calls(LINES)
    assert {call.session for call in found} == {"t"}
    assert [call.tool for call in found if call.ended is None] == ["send_mail", "pay", "send_mail"]


def test_results_and_errors_are_those_of_the_tools() -> None:
    page, broken, mail = (call for call in traced_calls(LINES)[1:4])
    assert (page.result, page.is_error) == ('It\'s a "page"\n\u2028 of {braces}', False)
    assert (broken.result, broken.is_error) == ("no such page: broken.example", True)
    assert mail.result == {"from": "bo", "number": 1, "box": "in"}


# The conventions for GenAI


def span(span_id: str, at: int, attributes: Json, **fields: Any) -> Json:
    """A span of OTLP that begins at a second and ends half a second later."""
    start = 1_800_000_000 * 10**9 + at * 10**9
    return {
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": span_id, "name": "execute_tool x",
        "startTimeUnixNano": str(start), "endTimeUnixNano": str(start + 5 * 10**8),
        "attributes": [{"key": key, "value": typed(value)} for key, value in attributes.items()],
        **fields,
    }  # fmt: skip


def typed(value: Any) -> Json:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [*map(typed, value)]}}
        case dict():
            pairs = [{"key": key, "value": typed(inner)} for key, inner in value.items()]
            return {"kvlistValue": {"values": pairs}}
    return {"stringValue": value}


def tool(name: str, arguments: Any, result: Any, call_id: str = "") -> Json:
    return {
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name,
        "gen_ai.tool.call.arguments": arguments, "gen_ai.tool.call.result": result,
        **({"gen_ai.tool.call.id": call_id} if call_id else {}),
    }  # fmt: skip


def model(*wanted: Json, answered: tuple[str, ...] = ()) -> Json:
    asked = [{"role": "assistant", "parts": [{"type": "tool_call", **call} for call in wanted]}]
    had = [{"type": "tool_call_response", "id": call_id, "response": "…"} for call_id in answered]
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.output.messages": asked,
        "gen_ai.input.messages": [{"role": "tool", "parts": had}],
    }


@pytest.mark.parametrize("write", [json.dumps, lambda value: value], ids=["text", "structured"])
def test_spans_of_the_conventions_for_genai_are_read(write: Any) -> None:
    asks_for_both = model(
        {"id": "1", "name": "read_mail", "arguments": {"number": 1}},
        {"id": "2", "name": "send_mail", "arguments": {"to": "eve", "text": "Hi"}},
    )
    asks_later = model({"id": "3", "name": "send_mail", "arguments": {"to": "eve", "text": "x"}})
    spans = [
        span("a", 0, {name: write(v) if "." in name and name.endswith("messages") else v
                      for name, v in asks_for_both.items()}),
        span("b", 1, tool("read_mail", write({"number": 1}), write({"from": ["bo", True, 2, 0.5]}), "1")),
        span("c", 2, tool("send_mail", write({"to": "eve", "text": "Hi"}), "sent", "2")),
        span("d", 3, asks_later),
    ]  # fmt: skip
    found = traced_calls(spans)
    assert [(call.tool, call.arguments) for call in found] == [
        ("read_mail", {"number": 1}),
        ("send_mail", {"to": "eve", "text": "Hi"}),
        ("send_mail", {"to": "eve", "text": "x"}),
    ]
    assert found[0].result == {"from": ["bo", True, 2, 0.5]}
    verdicts = [call.final_verdict for call in simulate(POLICY, spans, tools=TOOLS)]
    assert verdicts == ["soft_allowed", "soft_allowed", "hard_denied"]


def test_a_conversation_goes_over_several_traces() -> None:
    first = span("a", 0, {**tool("read_mail", {"number": 1}, "Hi"), "gen_ai.conversation.id": "c"})
    wanted = {"id": "2", "name": "send_mail", "arguments": {"to": "eve", "text": "x"}}
    second = span("b", 5, {**model(wanted), "gen_ai.conversation.id": "c"}, traceId="other")
    assert [call.allowed for call in simulate(POLICY, [first, second])] == [True, False]


def test_a_failed_span_is_an_error() -> None:
    (call,) = traced_calls([span("a", 0, tool("pay", {}, "no money"), status={"code": 2})])
    assert (call.is_error, call.result) == (True, "no money")


def test_a_span_without_arguments_is_not_judged_unless_its_parameters_have_values() -> None:
    attributes = {"openinference.span.kind": "TOOL", "tool.name": "pay"}
    schema = '{"type": "object", "properties": {"euros": {}}}'
    for parameters, arguments in (('{"euros": 5}', {"euros": 5}), (schema, {}), ("", {})):
        (call,) = traced_calls([span("a", 0, {**attributes, "tool.parameters": parameters})])
        assert call.arguments == arguments
        assert bool(call.unjudged) is not bool(arguments)


def test_a_span_whose_arguments_are_redacted_is_not_judged() -> None:
    attributes = {
        "openinference.span.kind": "TOOL",
        "tool.name": "pay",
        "input.value": "__REDACTED__",
    }
    (call,) = traced_calls([span("a", 0, attributes)])
    assert call.unjudged
