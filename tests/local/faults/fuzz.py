"""Random requests to a real server: bodies, headers and streams that are almost valid.

No reply has status 500, each error is JSON, and nothing but warnings is logged.

`python -m tests.local.faults.fuzz --count 50000` sends 50,000 requests, and prints each that fails.
"""

import argparse
import asyncio
import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
from langchain_core.messages import HumanMessage, ToolMessage
from langgraph.graph import START, StateGraph

from langchain_sequrity import ChatSequrity, LangGraphExecutor, SequrityMessages
from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.local import LocalServer
from langchain_sequrity.policy_generation import PolicyGenTool
from langchain_sequrity.wire.routes import (
    CHAT_ROUTES,
    COUNT_TOKENS_ROUTES,
    MODELS_ROUTES,
    POLICY_ROUTES,
    VALIDATE_HEADERS_PATH,
)
from tests.transport.faults.calls import State, pay
from tests.transport.faults.proxy import read_body

_AT_ONCE = 12
_PATIENCE = 120.0
"""Seconds within which a reply comes; most take a few milliseconds."""
_POLICY = 'tool "pay" { result { @tags |= {"paid"}; } must deny when "paid" in case.tags; }'
_FEATURES = {
    "agent_arch": "dual-llm",
    "content_classifiers": [{"name": "pii_redaction", "threshold": 0.5}],
}
_CONFIG = {"fsm": {"max_n_turns": 3}, "response_format": {"strip_response_content": False}}


@dataclass(frozen=True)
class Seed:
    """A valid request.

    Attributes:
        method: The method.
        path: The path.
        headers: The headers, without those of the connection.
        body: The body.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


_CONNECTION = {"host", "content-length", "connection", "accept-encoding", "idempotency-key"}


def seeds(base_url: str) -> list[Seed]:
    """What our own clients send to all kinds of endpoints."""
    seen: list[Seed] = []

    def note(request: httpx.Request) -> None:
        headers = {
            name: value for name, value in request.headers.items() if name not in _CONNECTION
        }
        path = request.url.raw_path.decode()
        seen.append(Seed(request.method, path, headers, request.read()))

    with httpx.Client(event_hooks={"request": [note]}, trust_env=False) as client:
        shared: dict[str, Any] = {"base_url": base_url, "http_client": client}
        models: list[Any] = [
            ChatSequrity("any/model", **shared),
            ChatSequrity("any/model", use_responses_api=True, **shared),
            SequrityMessages("any/model", **shared),
        ]
        for model in models:
            _converse(model, HumanMessage("Hello. pay, case='case-1.'"))
            _converse(
                model.model_copy(
                    update={"features": _FEATURES, "policy": _POLICY, "session_config": _CONFIG}
                ),
                HumanMessage("pay, case='case-1.'"),
            )
            list(model.stream("Hello"))
            with suppress(NotImplementedError):
                model.get_num_tokens_from_messages([HumanMessage("Hello")])
        schema = {"title": "A", "type": "object", "properties": {"a": {"type": "string"}}}
        models[0].with_structured_output(schema, method="json_schema").invoke("Hello")
        PolicyGenTool(models[0], [pay]).propose("Nothing is paid.")
        graph: Any = StateGraph(State)
        graph.add_node("read", lambda _: {"log": ["x"]}).add_edge(START, "read")
        LangGraphExecutor(graph, models[0]).invoke({"case": "a", "log": []})
    headers = {"content-type": "application/json", "authorization": "Bearer local"}
    checked = {"x_policy": _POLICY, "x_features": json.dumps(_FEATURES), "x_config": "{}"}
    seen.append(Seed("POST", VALIDATE_HEADERS_PATH, headers, json.dumps(checked).encode()))
    listed = MODELS_ROUTES[0].path
    paths = ("/", "/health", listed, f"{listed}/any/model")
    seen += [Seed("GET", path, headers, b"") for path in paths]
    counted = {"model": "any/model", "messages": [{"role": "user", "content": "Hello"}]}
    seen.append(Seed("POST", COUNT_TOKENS_ROUTES[0].path, headers, json.dumps(counted).encode()))
    return seen


def _converse(model: Any, question: HumanMessage) -> None:
    bound = model.bind_tools([pay])
    message = bound.invoke([question])
    results = [ToolMessage("paid", tool_call_id=call["id"]) for call in message.tool_calls]
    bound.invoke([question, message, *results])


# Mutations


_TEXTS = (
    "", "a", "\0", "\ud800", "é\u2028", "a" * 10_000, "[" * 3_000, "{" * 300, "${x}", "../..", "%00", "1",
    "null", "-1", "NaN", "tool", "assistant", "system", "pay", "auto", "any/model", "dual-llm", "data:",
    "(?:a+)+$", 'tool "pay" { must allow always; }', "final_return_value = 1", "import os", "x = [1] * 10**9",
    "while True: pass", "data:image/png;base64,AAAA", "http://[", "2020-02-30", "\r\nX-A: b", "{}", "[]",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 1.5, -0.0, 1e308, [], {}, [[]], [None],
    {"": ""}, [{}], {"type": "text"}, {"role": "tool"}, {"type": "function"}, {"$ref": "#"},
    {"type": "object", "properties": {"a": {"$ref": "#"}}}, {"anyOf": [{"$ref": "#/x"}]},
)  # fmt: skip


def _mutated(value: Any, dice: random.Random) -> Any:
    """A copy of a JSON value with one change somewhere."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        return _mutated_object(value, dice)
    if isinstance(value, list) and value and dice.random() < 0.85:
        return _mutated_list(value, dice)
    if isinstance(value, str) and dice.random() < 0.5:
        return _mutated_text(value, dice)
    return dice.choice([*_VALUES, *_TEXTS])


def _mutated_object(value: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    name, copy = dice.choice([*value]), dict(value)
    match dice.randrange(12):
        case 0:
            del copy[name]
        case 1:
            copy[dice.choice([*_TEXTS, *value])] = copy[name]
        case 2:
            copy[dice.choice(_TEXTS)] = dice.choice(_VALUES)
        case _:
            copy[name] = _mutated(copy[name], dice)
    return copy


def _mutated_list(value: list[Any], dice: random.Random) -> list[Any]:
    at, items = dice.randrange(len(value)), list(value)
    match dice.randrange(8):
        case 0:
            del items[at]
        case 1:
            items.insert(at, dice.choice(items))
        case 2:
            items *= dice.choice([2, 50])
        case 3:
            dice.shuffle(items)
        case _:
            items[at] = _mutated(items[at], dice)
    return items


def _mutated_text(text: str, dice: random.Random) -> str:
    if text[:1] in ("{", "[") and dice.random() < 0.8:
        with suppress(ValueError, RecursionError):
            return json.dumps(_mutated(json.loads(text), dice))
    at = dice.randint(0, len(text))
    return text[:at] + dice.choice(_TEXTS)[:50] + text[at + dice.randrange(3) :]


_HEADER_TEXTS = (
    "", "a", "{}", "[]", "null", "\xff", "a" * 9_000, "application/json", "text/plain", "Bearer", "Bearer ",
    "Bearer local", "Basic x", "1", "application/json; charset=utf-16", "multipart/form-data", "*/*", "true",
)  # fmt: skip
_HEADER_NAMES = (
    "X-Policy", "X-Features", "X-Config", "X-Session-ID", "Authorization", "X-Api-Key", "Content-Type",
    "Idempotency-Key", "Accept", "Accept-Encoding", "Content-Encoding", "Expect", "Origin", "Range", "Cookie",
    "X-Request-ID", "traceparent", "Upgrade", "TE", "Connection", "If-None-Match", "anthropic-version",
)  # fmt: skip
_PATHS = tuple(route.path for route in (*CHAT_ROUTES, *POLICY_ROUTES, *COUNT_TOKENS_ROUTES))


@dataclass(frozen=True)
class Sent:
    """A request as it is sent.

    Attributes:
        number: The number that made it.
        data: The bytes.
        pieces: Where they are cut.
        is_whole: Whether a reply must come.
        replies: How many replies come at most.
    """

    number: int
    data: bytes
    pieces: tuple[bytes, ...]
    is_whole: bool
    replies: int = 1


def request_of(number: int, known: Sequence[Seed]) -> Sent:
    """The request with this number."""
    dice = random.Random(number)  # noqa: S311 - cases, not secrets
    seed = dice.choice(known)
    body, headers, path, method = seed.body, dict(seed.headers), seed.path, seed.method
    for _ in range(dice.choice([0, 1, 1, 1, 2, 4])):
        body = _mutated_body(body, dice)
    if dice.random() < 0.3:
        name = dice.choice([*_HEADER_NAMES, *headers])
        headers[name.lower()] = (
            _mutated_text(headers[name.lower()], dice)
            if name.lower() in headers and dice.random() < 0.7
            else dice.choice(_HEADER_TEXTS)
        )
    if dice.random() < 0.1:
        path = dice.choice([*_PATHS, _mutated_text(path, dice), "*", "//", "/%ff", f"{path}?a=%zz"])
    if dice.random() < 0.05:
        method = dice.choice(
            ["GET", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE", "get", "A" * 50]
        )
    data = _written(method, path, headers, body, dice)
    is_whole, replies = True, 1
    match dice.randrange(40):
        case 0:
            data, is_whole = data[: dice.randrange(len(data))], False
        case 1:
            data, is_whole, replies = data * 3, False, 3
        case 2:
            at = dice.randrange(len(data))
            data, is_whole = data[:at] + dice.randbytes(dice.randint(1, 4)) + data[at + 1 :], False
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice([0, 0, 0, 2])))
    bounds = zip([0, *cuts], [*cuts, len(data)], strict=True)
    return Sent(number, data, tuple(data[a:b] for a, b in bounds), is_whole, replies)


def _mutated_body(body: bytes, dice: random.Random) -> bytes:
    if dice.random() < 0.9:
        with suppress(ValueError, RecursionError):
            return json.dumps(_mutated(json.loads(body), dice)).encode()
    at = dice.randint(0, len(body))
    return body[:at] + dice.randbytes(dice.randrange(4)) + body[at + dice.randrange(4) :]


def _written(
    method: str, path: str, headers: dict[str, str], body: bytes, dice: random.Random
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if dice.random() < 0.2:
        lines.append("Transfer-Encoding: chunked")
        cuts = sorted(dice.randrange(len(body) + 1) for _ in range(dice.randrange(4)))
        pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if a < b]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines).encode("utf-8", "surrogatepass")
    return head + b"\r\n\r\n" + body


# Replies


@dataclass
class Totals:
    """What came back.

    Attributes:
        statuses: Replies by status; 0 for none.
        problems: What must not be, with the number of its request.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


async def _talk(sent: Sent, port: int, totals: Totals) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**26)
    try:
        for piece in sent.pieces:
            writer.write(piece)
            await writer.drain()
        if not sent.is_whole:
            writer.write_eof()
        for _ in range(sent.replies):
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                has_no_body = sent.data.startswith(b"HEAD ") or b" 304 " in head[:13]
                _, body = (b"", b"") if has_no_body else await read_body(reader, head)
            totals.statuses[int(head[9:12])] += 1
            totals.problems += [f"{sent.number}: {one}" for one in _problems(head, body)]
    except TimeoutError:
        totals.problems.append(f"{sent.number}: no reply within {_PATIENCE:g} s")
    except (asyncio.IncompleteReadError, OSError):
        totals.statuses[0] += 1
        if sent.is_whole:
            totals.problems.append(f"{sent.number}: no whole reply")
    finally:
        writer.close()


def _problems(head: bytes, body: bytes) -> Iterator[str]:
    status = int(head[9:12])
    if status == 500:
        yield f"status 500: {body[:300]!r}"
    if status >= 400 and body:
        try:
            is_error = isinstance(json.loads(body).get("detail"), str | list)
        except (ValueError, AttributeError):
            is_error = False
        if not is_error:
            yield f"status {status} without JSON: {head!r} {body[:300]!r}"


class _Alarms(logging.Handler):
    """Collects what is logged as an error or with a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self.texts.append(self.format(record))


@contextmanager
def _alarms() -> Iterator[_Alarms]:
    alarms = _Alarms()
    loggers = [logging.getLogger(name) for name in ("langchain_sequrity", "uvicorn", "asyncio")]
    for logger in loggers:
        logger.addHandler(alarms)
    try:
        yield alarms
    finally:
        for logger in loggers:
            logger.removeHandler(alarms)


def run(numbers: Iterator[int], tell: Callable[[Totals], None] = lambda _totals: None) -> Totals:
    """Send the requests with these numbers.

    Args:
        numbers: The numbers.
        tell: Called after each request.
    """
    totals = Totals()
    with _alarms() as alarms, LocalServer() as server:
        port = urlsplit(server.base_url).port
        assert port
        known = seeds(server.base_url)

        async def work() -> None:
            for number in numbers:
                await _talk(request_of(number, known), port, totals)
                for text in alarms.texts:
                    totals.problems.append(f"logged at about {number}: {text}")
                alarms.texts.clear()
                tell(totals)

        async def work_all() -> None:
            await asyncio.gather(*[work() for _ in range(_AT_ONCE)])

        asyncio.run(work_all())
    totals.problems += alarms.texts
    return totals


def main(arguments: Sequence[str]) -> int:
    """Fuzz; returns 1 for any violation."""
    parser = argparse.ArgumentParser(description="Send random requests to a server.")
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first request")
    options = parser.parse_args(arguments)
    start, told = time.monotonic(), 0

    def tell(totals: Totals) -> None:
        nonlocal told
        for problem in totals.problems[told:]:
            hide()
            sys.stdout.write(problem + "\n")
        told = len(totals.problems)
        if totals.statuses.total() % 1_000 == 0:
            speed = totals.statuses.total() / (time.monotonic() - start)
            hide()
            sys.stdout.write(f"{dict(totals.statuses)}, {speed:.0f} a second\n")
            sys.stdout.flush()

    numbers = range(options.first, options.first + options.count)
    totals = run(tracked(numbers, "Sending", unit="requests"), tell)
    sys.stdout.write(
        f"{options.count} requests, replies {dict(sorted(totals.statuses.items()))}, "
        f"{time.monotonic() - start:.0f} s, {len(totals.problems)} problems\n"
    )
    return 1 if totals.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
