"""Flood a server in a separate process and print its memory: `python -m tests.local.floods`.

During every flood the server's memory stays within 200 MB of the memory when idle, `/health`
answers, and every request gets a reply.
"""

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from langchain_sequrity.display.progress import hide, tracked
from langchain_sequrity.local import LocalServer
from tests.local.api import CHAT, Speaker

MB = 1_000_000
MOST = 200 * MB
PATIENCE = 300  # seconds; on an idle machine it takes milliseconds
# Statuses that are correct replies to a flood.
FINE = {200, 400, 409, 413, 422, 429, 502, 507}

MESSAGES = "/control/chat/v1/messages"
RESPONSES = "/control/chat/openai/v1/responses"
GRAPH = "/control/lang-graph/v1/chat/completions"
POLICY = "/control/policy-gen/openai/v1/generate"
CHECK = "/control/v1/validate-headers"


# The server


def serve(words: int) -> None:
    """Run a server until the standard input ends.

    If `words` is not 0, it has an endless model with so many words in each piece.
    """

    def without_end() -> Iterator[str]:
        return (f"word {number} " * words for number in count())

    model = Speaker(pieces=without_end) if words else None
    with LocalServer(model=model) as server:
        sys.stdout.write(f"{server.base_url}\n")
        sys.stdout.flush()
        sys.stdin.read()


class Flooded:
    """A server in a separate process, watched from outside.

    Args:
        words: As in `serve`.

    Attributes:
        base_url: Its address.
    """

    def __init__(self, words: int = 0) -> None:
        self._words = words

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.local.floods", "--serve", str(self._words)]
        self._process = subprocess.Popen(  # noqa: S603 - this module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().strip()
        # The first request imports all modules. An endless model gets a malformed one instead.
        first = {} if self._words else chat("Hi")
        httpx.post(self.base_url + CHAT, json=first, headers=headers(), timeout=PATIENCE)
        self._idle = self._memory("VmRSS")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate(timeout=PATIENCE)

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name))  # fmt: skip

    @property
    def grown(self) -> int:
        """The peak of its memory minus the memory when idle, in bytes."""
        return self._memory("VmHWM") - self._idle

    def stand(self, flood: "Flood") -> list[int]:
        """Send a flood and return the statuses of its replies."""
        over = threading.Event()
        with ThreadPoolExecutor(1) as watching, ThreadPoolExecutor(flood.at_once) as sending:
            health = watching.submit(self._watch, over)
            try:
                statuses = list(sending.map(lambda send: send(self), flood.requests()))
            finally:
                over.set()
            assert health.result() > 0
        return statuses

    def _watch(self, over: threading.Event) -> int:
        answered = 0
        with httpx.Client(timeout=PATIENCE, trust_env=False) as client:
            while not over.is_set() or not answered:
                assert client.get(self.base_url + "/health").json() == {"status": "ok"}
                answered += 1
        return answered


# Requests


Send = Callable[[Flooded], int]


@dataclass(frozen=True)
class Flood:
    """Requests that are sent together.

    Attributes:
        name: A description.
        requests: A function that makes them.
        at_once: How many are sent at the same time.
    """

    name: str
    requests: Callable[[], Sequence[Send]] = field(repr=False)
    at_once: int = 4


def headers(key: str = "flood", **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **more}


def chat(*messages: Any, **fields: Any) -> dict[str, Any]:
    spoken = [{"role": "user", "content": one} if isinstance(one, str) else one for one in messages]
    return {"model": "any/model", "messages": spoken, **fields}


def post(path: str, body: bytes, *, more: dict[str, str] | None = None) -> Send:
    def send(server: Flooded) -> int:
        url = server.base_url + path
        reply = httpx.post(
            url, content=body, headers=headers(**(more or {})), timeout=PATIENCE, trust_env=False
        )
        return reply.status_code

    return send


HOLE = "@hole@"


def around(body: Any) -> tuple[bytes, bytes]:
    """The JSON before and after the placeholder for the large value."""
    before, after = json.dumps(body).split(json.dumps(HOLE))
    return before.encode(), after.encode()


# Large JSON values: the beginning, the repeated part, the end.
SHAPES: dict[str, tuple[bytes, bytes, bytes]] = {
    "empty lists": (b"[", b"[],", b"1]"),
    "lists of one": (b"[", b"[1],", b"1]"),
    "nested lists": (b"[", b"[" * 40 + b"]" * 40 + b",", b"1]"),
    "empty objects": (b"[", b"{},", b"1]"),
    "small objects": (b"[", b'{"a":1},', b"1]"),
    "nested objects": (b"[", b'{"a":' * 30 + b"1" + b"}" * 30 + b",", b"1]"),
    "ones": (b"[", b"1,", b"1]"),
    "floats": (b"[", b"1e1,", b"1]"),
    "integers of many digits": (b"[", b"9" * 300 + b",", b"1]"),
    "nulls": (b"[", b"null,", b"1]"),
    "empty strings": (b"[", b'"",', b"1]"),
    "strings": (b"[", b'"ab",', b"1]"),
    "wide strings": (b"[", '"ä",'.encode(), b"1]"),
    "escapes": (b"[", b'"\\u00e4",', b"1]"),
    "text": (b'"', b"a", b'"'),
    "words": (b'"', b"a b ", b'"'),
    "white space": (b'"x', b" ", b'x"'),
    "text with one wide sign": ('"😀'.encode(), b"a", b'"'),
    "text with one escaped wide sign": (b'"\\ud83d\\ude00', b"a", b'"'),
    "wide signs": (b'"', "😀".encode(), b'"'),
    "quotes": (b'"', b'\\"', b'"'),
    "lists in a string": (b'"[', b"[],", b'1]"'),
    "objects in a string": (b'"[', b'{\\"a\\":1},', b'1]"'),
    "lists in a string, escaped": (b'"\\u005b', b"\\u005b],", b'1]"'),
    "messages": (b"[", b'{"role":"user","content":""},', b'{"role":"user","content":"x"}]'),
    "parts of text": (b"[", b'{"type":"text","text":""},', b'{"type":"text","text":"x"}]'),
    "parts with lists in them": (b'[{"type":"text","text":"["},', b'{"type":"text","text":",[],[],[]"},', b'{"type":"text","text":"]"}]'),
    "results of tools": (b"[", b'{"type":"tool_result","tool_use_id":"a","content":"[]"},', b'{"type":"text","text":"x"}]'),
    "broken": (b'"', b"a", b""),
    "broken and wide": ('["😀","'.encode(), b"a", b""),
    "broken lists": (b"[", b"[],", b""),
}  # fmt: skip
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
# Places of a large value in a request: path and body.
PLACES: dict[str, tuple[str, Any]] = {
    "the body": (CHAT, HOLE),
    "a field": (CHAT, chat("Hi", metadata=HOLE)),
    "the messages": (CHAT, {"model": "m", "messages": HOLE}),
    "what the user says": (CHAT, chat({"role": "user", "content": HOLE})),
    "the result of a tool": (CHAT, chat("Hi", CALLING, {"role": "tool", "tool_call_id": "c", "content": HOLE})),
    "arguments": (CHAT, chat("Hi", {**CALLING, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": HOLE}}]}, {"role": "tool", "tool_call_id": "c", "content": ""})),
    "tools": (CHAT, chat("Hi", tools=HOLE)),
    "a schema": (CHAT, chat("Hi", response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": HOLE}}})),
    "blocks": (MESSAGES, {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": HOLE}]}),
    "items": (RESPONSES, {"model": "m", "input": HOLE}),
    "variables": (GRAPH, chat("Hi", user_provided_program="final_return_value = 1", context_vars={"x": {"value": HOLE}})),
    "what a policy is for": (POLICY, {"type": "oai_chat_completion", "model": "m", "description": HOLE, "tools": []}),
    "tools of a policy": (POLICY, {"type": "oai_chat_completion", "model": "m", "description": "x", "tools": HOLE}),
    "a header to check": (CHECK, {"x_config": HOLE}),
}  # fmt: skip
LARGEST = {POLICY: 1 * MB, CHECK: 250_000}


def filled(place: str, shape: str, size: int) -> Send:
    """A request of this size with a value of this shape in this place."""
    path, body = PLACES[place]
    before, after = around(body)
    begin, part, end = SHAPES[shape]
    size = min(size, LARGEST.get(path, size))
    times = max(1, (size - len(before + begin + end + after)) // len(part))
    return post(path, b"".join((before, begin, part * times, end, after)))


def bodies(size: int, at_once: int) -> Iterator[Flood]:
    """Every shape in every place."""

    def one(place: str, shape: str) -> Callable[[], Sequence[Send]]:
        return lambda: [filled(place, shape, size)] * at_once

    for place in PLACES:
        for shape in SHAPES:
            yield Flood(f"{shape} as {place}", one(place, shape), at_once)


def sessions(size: int, number: int) -> Flood:
    """Many sessions, each with its own long text."""

    def requests() -> Sequence[Send]:
        return [post(CHAT, json.dumps(chat(f"{n} " + "x" * size)).encode()) for n in range(number)]

    return Flood(f"{number} sessions of {size} bytes", requests)


def replies(size: int, number: int) -> Flood:
    """Many stored replies with an `Idempotency-Key`; a constant in the schema makes them large."""

    def request(n: int) -> Send:
        schema = {"type": "object", "properties": {"a": {"const": f"{n}" + "x" * size}}, "required": ["a"]}  # fmt: skip
        body = chat("Hi", response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})  # fmt: skip
        return post(CHAT, json.dumps(body).encode(), more={"Idempotency-Key": str(n)})

    return Flood(f"{number} replies of {size} bytes", lambda: [request(n) for n in range(number)])


def programs(number: int) -> Flood:
    """Many different programs, each of the maximal length."""

    def request(n: int) -> Send:
        program = f"x{n} = [1, 2, 3]\n" * 2_000 + "final_return_value = 1\n"
        return post(GRAPH, json.dumps(chat("Hi", user_provided_program=program)).encode())

    return Flood(f"{number} programs", lambda: [request(n) for n in range(number)])


def endless(at_once: int) -> Iterator[Flood]:
    """Requests to an endless model, for every role in which a model streams."""
    dual = {"X-Features": json.dumps({"agent_arch": "dual-llm"})}
    code = 'tool "f" { must deny always; }'
    guarded = {"X-Policy": json.dumps({"codes": {"code": code, "language": "sqrt"}})}
    policy = {"type": "oai_chat_completion", "model": "m", "description": "x", "tools": []}
    for name, path, body, more in (
        ("stream under policy", CHAT, chat("Hi", stream=True), guarded),
        ("planner", CHAT, chat("Hi"), dual),
        ("stream", CHAT, chat("Hi", stream=True), {}),
        ("stream to be repeated", CHAT, chat("Hi", stream=True), {"Idempotency-Key": "k"}),
        ("stream of a planner", CHAT, chat("Hi", stream=True), dual),
        ("messages", MESSAGES, {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "x"}]}, {}),
        ("responses", RESPONSES, {"model": "m", "input": "x", "stream": True}, {}),
        ("policy", POLICY, policy, {}),
    ):  # fmt: skip
        send = post(path, json.dumps(body).encode(), more=more)
        yield Flood(f"without end: {name}", lambda send=send: [send] * at_once, at_once)  # type: ignore[misc]  # bound now


def everything(size: int, at_once: int) -> Iterator[Flood]:
    """All floods for a server with the default model."""
    yield from bodies(size, at_once)
    yield sessions(1 * MB, 150)
    yield sessions(20_000, 3_000)
    yield replies(500_000, 100)
    yield programs(300)


def tell(line: str) -> None:
    """Print a line and flush it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Send floods; returns 1 if one of them went wrong."""
    parser = argparse.ArgumentParser(description="Flood a server.")
    parser.add_argument("--serve", type=int, help="be the server, with so many words a piece")
    parser.add_argument("--size", type=int, default=31 * MB, help="bytes of a body")
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--name", default="", help="a part of the name of a flood")
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
        return 0
    chosen = [one for one in everything(options.size, options.at_once) if options.name in one.name]
    bad, most = flood_all(Flooded(), chosen)
    for words in (1, 1_000):
        chosen = [one for one in endless(options.at_once) if options.name in one.name]
        worse, more = flood_all(Flooded(words), chosen)
        bad, most = bad + worse, max(most, more)
    tell(f"{bad} floods not as they should be, {most / MB:.0f} MB at the most")
    return 1 if bad else 0


def flood_all(flooded: Flooded, floods: Sequence[Flood]) -> tuple[int, int]:
    """Send floods to a server; returns how many went wrong, and its memory."""
    bad = before = 0
    with flooded as server:
        for flood in tracked(floods, "Sending", unit="floods", waits=True):
            statuses, grown = set(server.stand(flood)), server.grown
            is_bad = not statuses <= FINE or before <= MOST < grown
            if is_bad or grown > before:
                hide()
                tell(f"{'BAD ' * is_bad}{grown / MB:5.0f} MB {sorted(statuses)} {flood.name}")
            bad, before = bad + is_bad, grown
    tell(f"{len(floods)} floods")
    return bad, before


if __name__ == "__main__":
    sys.exit(main())
