"""Replies that end anywhere: a call or a value counts only if the reply has all of it.

Each case is one reply of one format, written as bytes and served over HTTP: a call, a structured
answer or an envelope, of which the reply has a part, or which is damaged. It is read in one of the
ways in which users read replies. What must come out follows from the bytes alone.

`python -m tests.chat_models.unfinished --count 5000` tries 5,000 cases and prints each that fails.
"""

import argparse
import asyncio
import json
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from langchain.agents import create_agent
from langchain_core.exceptions import OutputParserException
from langchain_core.tools import tool
from langchain_core.utils.json import parse_partial_json
from pydantic import BaseModel

from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.errors import SequrityError, StreamInterrupted
from langchain_sequrity.wire.sse import write_event
from tests.chat_models.formats import CHAT, MESSAGES, RESPONSES, ROWS, SESSION, Row
from tests.transport.transport_helpers import RawServer, http, says

Json = dict[str, Any]
Events = Iterator[tuple[str, Json]]

ENDS = ("finished", "length", "filtered", "no reason", "no end")
SHIPPINGS = ("whole", "streamed", "whole for a stream")
ARGUMENTS: tuple[Json, ...] = (
    {"to": "ada", "euros": 5, "notes": ['a "b"', "{c}", "\\", "zoë"], "urgent": True},
    {"to": "bob", "euros": 12.5, "deep": {"list": [[1, 2], {"x": None}]}},
    {"euros": 100, "to": "it's ]} ada"},
    {},
)
PERSON = {"name": "Ada", "age": 36, "likes": ["tea", "{}"]}
ENVELOPE = {
    "status": "success",
    "final_return_value": {
        "value": "forty-two",
        "meta": {"tags": ["a"], "producers": [], "consumers": ["*"]},
    },
}
DUAL = {"agent_arch": "dual-llm"}


class Person(BaseModel):
    """A person."""

    name: str = ""
    age: int = 0
    likes: list[str] = []


class PersonDict(TypedDict):
    """A person."""

    name: str
    age: int
    likes: list[str]


PAYMENTS: list[Json] = []


class Payment(BaseModel):
    """The arguments of a payment; all may be left out."""

    to: str = ""
    euros: float = 0
    notes: Any = None
    urgent: Any = None
    deep: Any = None


@tool(args_schema=Payment)
def pay(**arguments: Any) -> str:
    """Pay somebody."""
    PAYMENTS.append(arguments)
    return "paid"


@dataclass(frozen=True)
class Case:
    """One reply, and how it is read.

    Attributes:
        number: The number that made it.
        row: The format.
        content: `call`, `text`, `forced call` or `envelope`.
        sent: The part of the arguments or of the text that the reply has.
        is_whole: Whether that is all of it, and valid.
        end: How the reply ends.
        shipping: Whether it is streamed.
        reader: The way in which it is read.
        pieces: The pieces of `sent` in a stream.
        features: Features of the session.
        has_first: Whether a whole call comes before.
        says_status: Whether items of Responses have a status, and are repeated at the end.
    """

    number: int
    row: Row
    content: str
    sent: str
    is_whole: bool
    end: str
    shipping: str
    reader: str
    pieces: tuple[str, ...]
    features: Mapping[str, str] | None
    has_first: bool
    says_status: bool


CALL_READERS = (
    "invoke", "ainvoke", "stream", "astream", "stream at once", "stream v1", "v3", "events",
    "agent", "agent messages", "agent async",
)  # fmt: skip
VALUE_READERS = (
    "json_schema class", "json_schema dict", "json_mode class", "json_mode dict", "include_raw",
)  # fmt: skip


def case_of(number: int) -> Case:
    """The case with this number."""
    rng = random.Random(number)  # noqa: S311 - cases, not secrets
    content = rng.choice(["call", "call", "call", "text", "forced call", "envelope"])
    shipping = rng.choice(SHIPPINGS)
    end = rng.choice(ENDS if shipping == "streamed" else ENDS[:-1])
    row = rng.choice(ROWS)
    features = rng.choice([None, DUAL]) if content in ("call", "envelope") else None
    value: Any = {"call": rng.choice(ARGUMENTS), "envelope": ENVELOPE}.get(content, PERSON)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    sent = _damaged(text, rng) if rng.random() < 0.2 else text[: rng.randint(0, len(text))]
    if rng.random() < 0.1:
        sent = text
    readers: tuple[str, ...] = CALL_READERS
    if content == "text":
        readers = VALUE_READERS
    elif content == "forced call":
        readers = ("function_calling class", "function_calling dict", "include_raw")
    elif content == "envelope":
        readers = ("invoke", "ainvoke", "stream", "astream", "stream v1", "v3")
    cuts = sorted(rng.randint(0, len(sent)) for _ in range(rng.randint(0, 6)))
    bounds = zip([0, *cuts], [*cuts, len(sent)], strict=True)
    return Case(
        number, row, content, sent, _is_object(sent), end, shipping, rng.choice(readers),
        tuple(sent[start:stop] for start, stop in bounds if stop > start), features,
        has_first=content == "call" and rng.random() < 0.3, says_status=rng.random() < 0.5,
    )  # fmt: skip


def _damaged(text: str, rng: random.Random) -> str:
    place = rng.randrange(1, len(text))
    added = rng.choice(["", "]", "}", '"', ",", "\n", "NaN", "{", "\\"])
    return text[:place] + added + text[place + rng.randint(0, 1) :]


def _is_object(text: str) -> bool:
    def refuse(_: str) -> None:
        raise ValueError

    try:
        return isinstance(json.loads(text, parse_constant=refuse), dict)
    except ValueError:
        return False


# The reply as bytes


FIRST = {"to": "first", "euros": 1}
FINISH = {
    "finished": ("tool_calls", "tool_use"),
    "length": ("length", "max_tokens"),
    "filtered": ("content_filter", "model_context_window_exceeded"),
}


def body_of(case: Case) -> bytes:
    """The whole reply, or the stream, of a case."""
    if case.shipping == "streamed":
        written = b"".join(
            write_event(json.dumps(data), name) for name, data in _EVENTS[case.row.format](case)
        )
        if case.row is CHAT and case.end != "no end":
            written += write_event("[DONE]")
        return written
    return json.dumps(_WHOLE[case.row.format](case)).encode()


def _calls(case: Case) -> list[tuple[str, str, str]]:
    """Ids, names and arguments of the calls; the last is the one that may be unfinished."""
    name = "Person" if case.content == "forced call" else "pay"
    if case.reader.endswith("dict"):
        name += "Dict"
    first = [("c0", "pay", json.dumps(FIRST))] if case.has_first else []
    return [*first, ("c1", name, case.sent)]


def _is_finished(case: Case) -> bool:
    """Whether the reply says that it was finished; in a stream of Responses its last event does."""
    says = case.row is RESPONSES and case.shipping == "streamed" and case.end == "no reason"
    return says or case.end == "finished"


def _is_call(case: Case) -> bool:
    return case.content in ("call", "forced call")


def _finish(case: Case) -> tuple[str | None, str | None]:
    if case.end == "finished" and not _is_call(case):
        return "stop", "end_turn"
    return FINISH.get(case.end, (None, None))


def _chat(case: Case) -> Json:
    message: Json = {"role": "assistant", "content": None if _is_call(case) else case.sent}
    if _is_call(case):
        message["tool_calls"] = [
            {"id": i, "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, name, arguments in _calls(case)
        ]
    choice = {"index": 0, "finish_reason": _finish(case)[0], "message": message}
    return {**_chat_head(case), "choices": [choice]}


def _chat_head(case: Case) -> Json:
    model = "planner,worker" if case.content == "envelope" else "m"
    return {"id": "r1", "object": "chat.completion", "created": 1, "model": model}


def _chat_events(case: Case) -> Events:
    def event(delta: Json, reason: str | None = None) -> tuple[str, Json]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return "", {**_chat_head(case), "choices": [choice]}

    yield event({"role": "assistant", "content": ""})
    if not _is_call(case):
        for piece in case.pieces:
            yield event({"content": piece})
    for index, (call_id, name, arguments) in enumerate(_calls(case) if _is_call(case) else ()):
        function = {"name": name, "arguments": ""}
        yield event({"tool_calls": [{"index": index, "id": call_id, "function": function}]})
        for piece in case.pieces if call_id == "c1" else [arguments]:
            yield event({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    if case.end not in ("no end", "no reason"):
        yield event({}, _finish(case)[0])


def _message(case: Case) -> Json:
    content: list[Json] = [{"type": "text", "text": case.sent}]
    if _is_call(case):
        content = [
            {"type": "tool_use", "id": call_id, "name": name, "input": _input(text, case)}
            for call_id, name, text in _calls(case)
        ]
    return {"id": "m1", "type": "message", "role": "assistant", "model": "m", "content": content,
            "stop_reason": _finish(case)[1], "usage": {"input_tokens": 1, "output_tokens": 1}}  # fmt: skip


def _input(text: str, case: Case) -> Any:
    """The input: of a reply that was cut off, the API sends what it could read."""
    try:
        value = json.loads(text) if case.end == "finished" else parse_partial_json(text)
    except ValueError:
        return text
    return value if isinstance(value, dict) and _is_object(json.dumps(value)) else text


def _message_events(case: Case) -> Events:
    def event(kind: str, **fields: Any) -> tuple[str, Json]:
        return kind, {"type": kind, **fields}

    head = {**_message(case), "content": [], "stop_reason": None}
    yield event("message_start", message=head)
    blocks = _calls(case) if _is_call(case) else [("", "", "")]
    for index, (call_id, name, text) in enumerate(blocks):
        block: Json = {"type": "text", "text": ""}
        if _is_call(case):
            block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
        yield event("content_block_start", index=index, content_block=block)
        for piece in [text] if call_id == "c0" else case.pieces:
            delta: Json = {"type": "text_delta", "text": piece}
            if _is_call(case):
                delta = {"type": "input_json_delta", "partial_json": piece}
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    if case.end == "no end":
        return
    if case.end != "no reason":
        yield event(
            "message_delta", delta={"stop_reason": _finish(case)[1]}, usage={"output_tokens": 2}
        )
    yield event("message_stop")


_REASONS = {"length": "max_output_tokens", "filtered": "content_filter"}


def _response(case: Case) -> Json:
    reason = _REASONS.get(case.end)
    status = {"finished": "completed", "no reason": None}.get(case.end, "incomplete")
    found: Json = {"id": "resp_1", "object": "response", "model": "m", "output": _items(case)}
    if reason is not None:
        found["incomplete_details"] = {"reason": reason}
    return {**found, "status": status} if status else found


def _items(case: Case) -> list[Json]:
    """The items; the last one may say that it is incomplete."""
    last = "incomplete" if case.end in _REASONS else "completed"
    if not _is_call(case):
        part = {"type": "output_text", "text": case.sent, "annotations": []}
        return [
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "content": [part],
                "status": last,
            }
        ]
    items: list[Json] = [
        {"type": "function_call", "id": f"fc_{i}", "call_id": i, "name": name, "arguments": text}
        for i, name, text in _calls(case)
    ]
    if case.says_status:
        items = [{**item, "status": "completed"} for item in items]
        items[-1]["status"] = last
    return items


def _response_events(case: Case) -> Events:
    def event(kind: str, **fields: Any) -> tuple[str, Json]:
        return kind, {"type": kind, **fields}

    for index, item in enumerate(_items(case)):
        is_last = index == len(_items(case)) - 1
        empty: Json = {"content": []} if item["type"] == "message" else {"arguments": ""}
        added = {**item, **empty, "status": "in_progress"}
        yield event("response.output_item.added", output_index=index, item=added)
        for piece in case.pieces if is_last else [item["arguments"]]:
            if item["type"] == "message":
                yield event(
                    "response.output_text.delta", output_index=index, content_index=0, delta=piece
                )
            else:
                yield event(
                    "response.function_call_arguments.delta", output_index=index, delta=piece
                )
        if case.says_status and (case.end == "finished" or not is_last):
            yield event("response.output_item.done", output_index=index, item=item)
    if case.end == "no end":
        return
    response = _response(case)
    kind = "incomplete" if response.get("status") == "incomplete" else "completed"
    if not case.says_status:
        response["output"] = []
    yield event(f"response.{kind}", response=response)


_WHOLE: Mapping[str, Callable[[Case], Json]] = {
    CHAT.format: _chat, RESPONSES.format: _response, MESSAGES.format: _message
}  # fmt: skip
_EVENTS: Mapping[str, Callable[[Case], Events]] = {
    CHAT.format: _chat_events,
    RESPONSES.format: _response_events,
    MESSAGES.format: _message_events,
}


# Reading


@dataclass
class Service:
    """Answers the first request with the reply of a case, and later ones with a plain answer."""

    case: Case | None = None
    asked: int = 0

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve; yields the address."""
        with RawServer([self._answer]).running() as server:
            yield server.url

    def _answer(self, connection: Any) -> bool:
        assert self.case is not None
        self.asked += 1
        case, body = self.case, b""
        media = "application/json"
        if self.asked == 1:
            body = body_of(case)
            media = "text/event-stream" if case.shipping == "streamed" else media
        else:
            text = "Done." if case.features is None else json.dumps(ENVELOPE)
            done = replace(case, content="text", sent=text, pieces=(text,), end="finished")
            body = body_of(done)
            media = "text/event-stream" if case.shipping == "streamed" else media
        head, _, rest = http(body, media=media).partition(b"\r\n\r\n")
        session = f"\r\nX-Session-ID: {SESSION}\r\n\r\n".encode()
        return says(head + session + rest)(connection)


def check(case: Case, service: Service, url: str) -> str | None:
    """Read a reply; returns what is wrong, or `None`."""
    service.case, service.asked = case, 0
    PAYMENTS.clear()
    model: Any = case.row.make(
        base_url=url, max_retries=0, **({"features": case.features} if case.features else {})
    )
    try:
        if case.content == "call":
            return _check_call(case, model)
        if case.content == "envelope":
            return _check_envelope(case, model)
        return _check_value(case, model)
    finally:
        model.close()


def _streams(case: Case) -> bool:
    return case.shipping != "whole"


def _check_call(case: Case, model: Any) -> str | None:
    is_empty = not case.sent and _is_finished(case)  # a call without arguments
    value = json.loads(case.sent or "{}") if case.is_whole or is_empty else None
    first = [FIRST] if case.has_first else []
    expected = [*first, *([] if value is None else [value])]
    # A whole call at the very end of a reply that was cut off may count or not.
    allowed = [expected] if _is_finished(case) else [expected, first]
    bound = model.bind_tools([pay])
    if case.reader.startswith("agent"):
        return _check_agent(case, model, allowed)
    if case.end == "no end":
        with suppress(StreamInterrupted):
            return f"the stream had no end, and gave {read(bound, case)!r}"
        return None
    message = read(bound, case)
    return next(_wrong_calls(case, message, allowed), None)


def _wrong_calls(case: Case, message: Any, allowed: list[list[Json]]) -> Iterator[str]:
    calls = [call["args"] for call in message.tool_calls]
    if calls not in allowed:
        yield f"gave the calls {calls}; allowed was {allowed}"
    if len(message.invalid_tool_calls) != 1 + case.has_first - len(calls):
        yield f"gave the invalid calls {message.invalid_tool_calls} beside {calls}"
    shown = [b["args"] for b in message.content_blocks if b["type"] == "tool_call"]
    if any(args not in calls and "INVALID_JSON" not in args for args in shown):
        yield f"shows the calls {shown} as blocks, and has {calls}"


def _check_agent(case: Case, model: Any, allowed: list[list[Json]]) -> str | None:
    error = _run_agent(case, model)
    if case.end == "no end":
        return None if error is not None and not PAYMENTS else f"paid {PAYMENTS}, {error!r}"
    ran, *wanted = ([_payment(call) for call in calls] for calls in (PAYMENTS, *allowed))
    if error is None and any(sorted(ran) == sorted(calls) for calls in wanted):
        return None
    return f"the agent paid {ran}, with {error!r}; allowed was {wanted}"


def _payment(call: Json) -> tuple[str, float]:
    return call.get("to", ""), float(call.get("euros", 0))


def _run_agent(case: Case, model: Any) -> Exception | None:
    agent: Any = create_agent(model, [pay])
    given = {"messages": [("user", "Pay.")]}

    async def run() -> None:
        async for _ in agent.astream(given, stream_mode="messages"):
            pass

    try:
        if case.reader == "agent async":
            asyncio.run(run())
        elif case.reader == "agent messages" or _streams(case):
            for _ in agent.stream(given, stream_mode="messages"):
                pass
        else:
            agent.invoke(given)
    except SequrityError as error:
        return error
    return None


def read(model: Any, case: Case) -> Any:
    """Read a reply in the way of a case."""
    if not _streams(case) and not case.reader.startswith("a"):
        return model.invoke("Hi")
    readers: Mapping[str, Callable[[], Any]] = {
        "invoke": lambda: model.invoke("Hi", stream=True),
        "ainvoke": lambda: asyncio.run(model.ainvoke("Hi", stream=_streams(case))),
        "stream": lambda: _added(model.stream("Hi")),
        "astream": lambda: asyncio.run(_astream(model)),
        "stream at once": lambda: _added_at_once(model.stream("Hi")),
        "stream v1": lambda: _added(_with_v1(model).stream("Hi")),
        "v3": lambda: _v3(model),
        "events": lambda: asyncio.run(_events(model)),
    }
    return readers[case.reader]()


def _added(chunks: Any) -> Any:
    total = None
    for chunk in chunks:
        total = chunk if total is None else total + chunk
    return total


def _added_at_once(chunks: Any) -> Any:
    first, *others = chunks
    return first + others


def _with_v1(model: Any) -> Any:
    if hasattr(model, "bound"):
        return _with_v1(model.bound).bind(**model.kwargs)
    return model.model_copy(update={"output_version": "v1"})


async def _astream(model: Any) -> Any:
    return _added([chunk async for chunk in model.astream("Hi")])


def _v3(model: Any) -> Any:
    stream = model.stream_events("Hi", version="v3")
    for _ in stream:
        pass
    return stream.output


async def _events(model: Any) -> Any:
    async for event in model.astream_events("Hi", version="v2"):
        if event["event"] == "on_chat_model_end":
            return event["data"]["output"]
    return None


def _check_envelope(case: Case, model: Any) -> str | None:
    is_envelope = case.is_whole and json.loads(case.sent) == ENVELOPE
    is_doubtful = case.features is None and case.row is not CHAT
    try:
        message = read(model, case)
    except SequrityError as error:
        return (
            f"raised {error!r}" if is_envelope and not is_doubtful and _is_finished(case) else None
        )
    if is_envelope and not is_doubtful and message.text == "forty-two":
        return None
    is_other = case.sent not in json.dumps(ENVELOPE)  # damage may leave an ordinary answer
    if is_other and (case.is_whole or case.features is None):
        return None
    says_nothing = len(case.sent) < 2
    return None if case.features is None and says_nothing else f"gave {message.text!r}"


def _check_value(case: Case, model: Any) -> str | None:
    is_class = not case.reader.endswith("dict")
    method = case.reader.split()[0]
    if method == "include_raw":
        method = "function_calling" if case.content == "forced call" else "json_schema"
    shaped = model.with_structured_output(
        Person if is_class else PersonDict, method=method, include_raw=case.reader == "include_raw"
    )
    values: list[Any] = []
    error: Exception | None = None
    try:
        if _streams(case):
            values.extend(shaped.stream("Hi"))
        else:
            values.append(shaped.invoke("Hi"))
    except (OutputParserException, SequrityError, ValueError) as raised:
        error = raised
    if case.reader == "include_raw":
        parsed = [value["parsed"] for value in values if value.get("parsed") is not None]
        errors = [e for value in values if (e := value.get("parsing_error")) is not None]
        values, error = parsed, error or next(iter(errors), None)
    is_empty_call = case.content == "forced call" and not case.sent
    if (case.is_whole or (is_empty_call and is_class)) and case.end == "finished":
        return _check_whole_value(case, values, error, is_class=is_class)
    # Text after a value does not change it, and a reply need not say that it was finished.
    if (
        _value_before(case.sent)
        and case.content == "text"
        and case.end in ("finished", "no reason")
    ):
        return None
    if is_empty_call or (case.content == "forced call" and case.is_whole):
        return None  # a call without arguments, or one that is whole
    if error is None:
        return f"gave {values} without an error"
    return f"gave {values}, and then {error!r}" if is_class and values else None


def _check_whole_value(case: Case, values: list[Any], error: Any, *, is_class: bool) -> str | None:
    expected = json.loads(case.sent or "{}")
    try:
        wanted: Any = Person(**expected) if is_class else expected
    except ValueError:  # damaged, and still JSON
        return None if error is not None else f"gave {values} of another shape"
    if error is not None or not values or values[-1] != wanted:
        return f"gave {values} and {error!r} instead of {wanted!r}"
    return None


def _value_before(text: str) -> bool:
    try:
        json.JSONDecoder(strict=False).raw_decode(text)
    except ValueError:
        return False
    return True


def failures(numbers: range) -> Iterator[str]:
    """The failures of these cases, as text."""
    warnings.filterwarnings("ignore", category=UserWarning)
    service = Service()
    with service.running() as url:
        for number in tracked(numbers, "Trying", unit="replies"):
            case = case_of(number)
            try:
                problem = check(case, service, url)
            except Exception as error:  # noqa: BLE001 - a crash is a failure of the case
                problem = f"raised {error!r}"
            if problem is not None:
                yield f"{case}\n    {problem}"
            if number % 500 == 499:
                hide()
                sys.stderr.write(f"{number + 1} tried\n")


def main() -> int:
    """Try cases; return 1 if one fails."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chat_models.unfinished", description=__doc__
    )
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0, help="the first case")
    options = parser.parse_args()
    found = 0
    for text in failures(range(options.seed, options.seed + options.count)):
        found += 1
        hide()
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    sys.stdout.write(f"{options.count} replies, {found} failures\n")
    return found > 0


if __name__ == "__main__":
    sys.exit(main())
