"""Records the spans that OpenInference makes of an agent under a policy.

`python -m tests.traces.record` writes the files in `recorded`. It needs the packages
`openinference-instrumentation-langchain` and `opentelemetry-sdk`, which the tests do not install.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver

from tests.traces import RECORDED
from tests.traces.agents import Watched, calls

TURNS = ("Read mail 1 and write to ana.", "Tell eve what it says.")
ANSWERS = (
    calls(("today", {}), ("read_page", {"url": "a.example"}), turn=0),
    calls(("read_page", {"url": "broken.example"}), ("read_mail", {"number": 1}), turn=1),
    calls(("send_mail", {"to": "ana", "text": 'it\'s "q"\n'}), turn=2),
    calls(("pay", {"euros": 5, "note": {"x": [None, True, 1.5]}}), turn=3),
)
LATER = (calls(("send_mail", {"to": "eve", "text": "Hi"}), ("read_mail", {"number": 2}), turn=4),)
_LONG = ("llm.input_messages.", "input.value", "output.value", "metadata")


def record() -> None:
    """Write the files."""
    # They are not installed where types are checked.
    sdk = import_module("opentelemetry.sdk.trace")
    export = import_module("opentelemetry.sdk.trace.export")
    memory = import_module("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    encoder = import_module("opentelemetry.exporter.otlp.proto.common.trace_encoder")
    protobuf = import_module("google.protobuf.json_format")
    instrumentation = import_module("openinference.instrumentation.langchain")

    exporter, provider = memory.InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    instrumentation.LangChainInstrumentor().instrument(tracer_provider=provider)
    watched = Watched(*ANSWERS, AIMessage("Done."), *LATER, checkpointer=InMemorySaver())
    for text in TURNS:
        watched.agent.invoke({"messages": text}, {"configurable": {"thread_id": "t"}})
    spans = exporter.get_finished_spans()
    RECORDED.mkdir(exist_ok=True)
    lines = [json.loads(span.to_json()) for span in spans]
    for line in lines:
        line["attributes"] = _kept(line["attributes"])
    batch = _otlp(protobuf.MessageToDict(encoder.encode_spans(spans)))
    (RECORDED / "spans.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (RECORDED / "otlp.json").write_text(f"{json.dumps(batch)}\n")
    (RECORDED / "decisions.json").write_text(f"{json.dumps(watched.decisions())}\n")


def _kept(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes without the long ones of runs that are no tools."""
    is_tool = attributes.get("openinference.span.kind") == "TOOL"
    return {
        name: value
        for name, value in attributes.items()
        if name != "metadata"
        and (is_tool or not name.startswith(_LONG) or name.endswith(".tool_call_id"))
    }


def _otlp(batches: dict[str, Any]) -> dict[str, Any]:
    """A request of OTLP in its JSON form, which has ids in hexadecimal digits."""
    for span in _spans(batches):
        for name in ("traceId", "spanId", "parentSpanId"):
            if name in span:
                span[name] = base64.b64decode(span[name]).hex()
        kept = _kept({one["key"]: next(iter(one["value"].values())) for one in span["attributes"]})
        span["attributes"] = [one for one in span["attributes"] if one["key"] in kept]
    return batches


def _spans(batches: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for batch in batches["resourceSpans"]:
        for scope in batch["scopeSpans"]:
            yield from scope["spans"]


if __name__ == "__main__":
    record()
