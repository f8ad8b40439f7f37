"""What a request costs the local server, beside a bare Starlette route that sends the same bytes.

Both run in processes of their own, behind uvicorn with h11 and TCP_NODELAY, which asyncio sets. The
figure is the processor time of the server and its workers, without the client. A chat is one answer
of a script. A dual-LLM step is one request of a turn whose program calls two tools: the question,
then a result for each call. The bare route reads the body as JSON and sends the bytes that the
local server sent for it.
"""

import json
import os
import socket
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.measure import Effort, interleaved, ratio
from benchmarks.report import Goal, Row

if TYPE_CHECKING:
    from langchain_sequrity.local import LocalServer

_ROOT = Path(__file__).parent.parent
_PATH = "/control/chat/v1/chat/completions"
_OURS, _BARE = "LocalServer", "Starlette"
_MICRO = 1e6
_CHAT_GOAL, _STEP_GOAL, _WORKERS_GOAL = 4, 8, 12
_PROGRAM = """
found = look_up(word="vase")
more = look_up(word=found)
final_return_value = more
"""
_POLICY = 'tool "look_up" { must deny when word.tags overlaps {"secret"}; must allow always; }'
_DUAL = {
    "X-Features": json.dumps({"agent_arch": "dual-llm"}),
    "X-Policy": json.dumps({"codes": {"code": _POLICY}}),
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}
_TURNS_IN_A_ROUND = 40


@dataclass(frozen=True)
class Exchange:
    """A request and its reply, as bytes."""

    request: bytes
    reply: bytes


class Connection:
    """A connection that is kept alive; it does not parse more of HTTP than it needs."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, request: bytes) -> bytes:
        """Send a request, and return the body of its reply."""
        self._socket.sendall(request)
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive()
        lines = bytes(received[:end]).lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        while len(received) < end + 4 + length:
            received += self._receive()
        assert received.startswith(b"HTTP/1.1 200"), received[:600]
        return bytes(received[end + 4 :])

    def _receive(self) -> bytes:
        data = self._socket.recv(1 << 16)
        assert data, "the server closed the connection"
        return data


class Server:
    """A server in another process, and the processor time that it has used."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())
        self.connection = Connection(self.port)

    def ask(self, line: str) -> str:
        """Send a line to the process, and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def seconds(self) -> float:
        """Processor time of the server and its workers so far."""
        return float(self.ask("cpu"))


@contextmanager
def running_server(kind: str, *store: str) -> Iterator[Server]:
    """A server in another process.

    Args:
        kind: `bare`, `in-process`, `without-console` or `workers`.
        store: The address of a Redis with its sessions.
    """
    command = [sys.executable, "-m", "benchmarks.gateway", kind, *store]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, text=True) as process:  # noqa: S603  # our own file
        try:
            yield Server(process)
        finally:
            process.terminate()


def _request(body: dict[str, Any], headers: dict[str, str]) -> bytes:
    content = json.dumps({"model": "any/model", **body}).encode()
    fields = {
        "Host": "127.0.0.1",
        "Authorization": "Bearer sq-benchmark",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": "benchmark",
        **headers,
        "Content-Length": str(len(content)),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {_PATH} HTTP/1.1\r\n{lines}\r\n".encode() + content


def chat(connection: Connection) -> list[Exchange]:
    body = {"messages": [{"role": "user", "content": "What is the weather in Aachen?"}]}
    request = _request(body, {})
    return [Exchange(request, connection.send(request))]


def turn(connection: Connection) -> list[Exchange]:
    """A turn of two calls: three requests."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Look up the vase."}]
    exchanges: list[Exchange] = []
    while True:
        request = _request({"messages": messages, "tools": [_TOOL]}, _DUAL)
        reply = connection.send(request)
        exchanges.append(Exchange(request, reply))
        message = json.loads(reply)["choices"][0]["message"]
        if not message.get("tool_calls"):
            assert "A vase." in message["content"], message
            return exchanges
        call = message["tool_calls"][0]["id"]
        messages += [message, {"role": "tool", "tool_call_id": call, "content": "A vase."}]


Work = Callable[[Connection], Sequence[Exchange]]


def measured(server: Server, work: Work) -> Callable[[], float]:
    """Seconds of the server's processor for one request."""

    def run() -> float:
        began, requests = server.seconds(), 0
        for _ in range(_TURNS_IN_A_ROUND):
            requests += len(work(server.connection))
        return (server.seconds() - began) / requests

    return run


def _again(exchanges: Sequence[Exchange], connection: Connection) -> Sequence[Exchange]:
    for exchange in exchanges:
        connection.send(exchange.request)
    return exchanges


def measure(_base_url: str, effort: Effort) -> list[Row]:
    rows = []
    cases: list[tuple[str, str, Work, float]] = [
        ("chat", "in-process", chat, _CHAT_GOAL),
        ("dual-LLM step", "in-process", turn, _STEP_GOAL),
        ("dual-LLM step, workers", "workers", turn, _WORKERS_GOAL),
    ]
    for name, kind, work, goal in cases:
        with ExitStack() as stack:
            ours, bare = (stack.enter_context(running_server(k)) for k in (kind, "bare"))
            exchanges = work(ours.connection)
            for exchange in exchanges:
                bare.ask(b64encode(exchange.reply).decode())
            samples = interleaved(
                {
                    _OURS: measured(ours, work),
                    _BARE: measured(bare, partial(_again, exchanges)),
                },
                effort,
            )
        figures = {peer: median(seconds) * _MICRO for peer, seconds in samples.items()}
        times = ratio(samples, _OURS, [_BARE])
        goal_row = Goal(f"/ {_BARE}", times, goal)
        rows.append(Row(f"server: {name}", figures, to_rival=times, goals=[goal_row]))
    return rows


# The servers


def _seconds_of_children() -> float:
    """Processor time of all processes below this one, of which each tells in ticks."""
    total, pending = 0, [os.getpid()]
    while pending:
        for tasks in Path(f"/proc/{pending.pop()}/task").iterdir():
            children = (tasks / "children").read_text().split()
            for child in children:
                fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
                pending.append(int(child))
    return total / os.sysconf("SC_CLK_TCK")


def _serve(kind: str, *store: str) -> None:
    replies: list[bytes] = []
    server = None if kind == "bare" else _start_ours(kind, *store)
    port = _start_bare(replies) if server is None else server.base_url.rpartition(":")[2]
    print(port, flush=True)
    for line in sys.stdin:
        if line.strip() == "cpu":
            print(time.process_time() + _seconds_of_children(), flush=True)
        elif line.strip() == "console" and server is not None:
            print(server.console_url, flush=True)
        else:
            replies.append(b64decode(line))
            print("added", flush=True)


def _start_ours(kind: str, *store: str) -> "LocalServer":
    from langchain_sequrity.local import LocalServer  # noqa: PLC0415 - not for the bare route

    sessions = None
    if store:
        from langchain_sequrity.local.redis_sessions import RedisSessions  # noqa: PLC0415 - too

        sessions = RedisSessions(*store, secret="the secret of all workers")  # noqa: S106 - no secret

    rules: list[dict[str, Any]] = [
        {"when": {"role": "planner"}, "program": _PROGRAM},
        {"text": "Sunny, 21 °C."},
    ]
    return LocalServer(
        script=rules,
        isolated_programs=kind == "workers",
        store=sessions,
        console=kind != "without-console",
    ).start()


def _start_bare(replies: list[bytes]) -> int:
    import asyncio  # noqa: PLC0415 - not for the other server
    import threading  # noqa: PLC0415
    from itertools import count  # noqa: PLC0415

    import orjson  # noqa: PLC0415
    import uvicorn  # noqa: PLC0415
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import Response  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    numbers = count()

    async def answer(request: Request) -> Response:
        orjson.loads(await request.body())
        return Response(replies[next(numbers) % len(replies)], media_type="application/json")

    app = Starlette(routes=[Route(_PATH, answer, methods=["POST"])])
    # asyncio sets TCP_NODELAY only on a socket whose protocol is named
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    config = uvicorn.Config(
        app, http="h11", ws="none", lifespan="off", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    serve = partial(asyncio.run, server.serve(sockets=[listener]))
    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


if __name__ == "__main__":
    _serve(*sys.argv[1:])
