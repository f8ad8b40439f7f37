"""A service as it may exist in the field: a proxy before a local server, with its own habits.

It stores the messages of a session as text, and its replies have its own ids and spelling. The
local server behind it decides, runs the programs and checks the policy.

| Habit | What the service does |
|---|---|
| `reruns` | has no state: each request runs the whole conversation again, in a new session of the server behind; clients see one session |
| `compares` | a history that differs in one byte from the stored one is a mismatch: 409, or with `restart_turn` the turn starts again |
| `dashless` | ids of tool calls are `tc` and 64 hex digits |
| `short` | ids of tool calls are `tc`, the last 12 hex digits of the session and 4 of a counter; all sessions of the server share the 12 digits, as UUIDs of one machine do |
| `denials` | denials are told in a recorded form (`recorded.py`), and checks by `checks` |
| `unknown_keys` | objects of replies have keys that nobody has documented |
| `null_content` | a message that calls tools has `content: null` |
| `caches` | the same call has the same result within a session, whatever `force_to_cache` says |
| `nan` | envelopes and arguments have NaN and infinities, as Python's `json.dumps` writes them |
| `ends` | the n-th request that names a session (counted from 1) is refused, and the session is gone; status 200 is a failed turn |
| `turns` | a session ends with this many turns, and the next request that names it is refused like that |
"""

import asyncio
import json
import re
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from langchain_sequrity.local.server import StoppableServer
from tests.field.recorded import HISTORIES, History, Message, recorded

_PIECE = 7  # characters of a text in one event
_PASSED_ON = ("authorization", "x-api-key", "x-features", "x-policy", "x-config")
_OF_CONNECTION = ("content-length", "transfer-encoding", "connection")
_HEX = r"[0-9a-f]"
_IDS = (
    re.compile(rf"tc-({_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}})-[0-9a-f-]+"),
    re.compile(rf"tc({_HEX}{{32}}){_HEX}{{32}}"),
)


@dataclass(frozen=True)
class Habits:
    reruns: bool = False
    compares: bool = False
    mismatch: Literal["reject", "restart_turn"] = "restart_turn"
    dashless: bool = False
    short: bool = False
    denials: Message | None = None
    checks: History = HISTORIES["all checks"]
    unknown_keys: bool = False
    null_content: bool = False
    nan: bool = False
    caches: bool = False
    turns: tuple[int, int, Any] | None = None
    ends: Mapping[int, tuple[int, Any]] = field(default_factory=dict)


@dataclass
class _Session:
    """One session in the view of clients."""

    id: str
    behind: str  # the session of the server behind
    told: list[str] = field(default_factory=list)  # the messages so far, as text
    turns: int = 0
    calls: int = 0
    first: dict[str, Any] = field(default_factory=dict)  # fields of the first request


class FieldServer:
    """Runs the proxy on a free port.

    Args:
        base_url: The local server behind.
        habits: How it behaves.
        most: The most requests of one test.

    Attributes:
        requests: Bodies of the clients' requests.
        headers: Their headers.
        passed: How many requests the server behind received.
        mismatches: How many histories differed from the stored one.
    """

    def __init__(self, base_url: str, habits: Habits, *, most: int = 30) -> None:
        self._behind, self._habits, self._most = base_url, habits, most
        self._sessions: dict[str, _Session] = {}
        self._ids: dict[str, str] = {}  # an id of clients → the id of the server behind
        self._meant: dict[
            str, dict[str, Any]
        ] = {}  # a message of clients → the one of the server behind
        self._shown: dict[str, str] = {}  # the contrary
        self._by_short: dict[str, str] = {}  # a short id → the session that used it last
        self._named = 0
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.passed = 0
        self.mismatches = 0
        # asyncio disables Nagle's algorithm (40 ms per reply) only if the protocol is named.
        self._socket = socket.socket(proto=socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(64)  # earlier connections wait until the server has started
        app = Starlette(
            routes=[Route("/{path:path}", self._answer, methods=["POST", "GET"])],
            lifespan=self._with_client,
        )
        config = uvicorn.Config(
            app,
            log_level="critical",
            lifespan="on",
            ws="none",
            loop="asyncio",
            timeout_graceful_shutdown=1,
        )
        self._server = StoppableServer(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._thread.join()
        self._socket.close()

    @asynccontextmanager
    async def _with_client(self, _app: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient(timeout=60, trust_env=False) as self._client:
            yield

    # One request

    async def _answer(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
        except ValueError:
            body = {}
        if not request.url.path.endswith("/chat/completions") or "messages" not in body:
            return await self._passed_through(request)
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        if len(self.requests) > self._most:
            return JSONResponse({"detail": "A turn that begins anew again and again."}, 400)
        found = self._session(body, request.headers)
        if isinstance(found, Response):
            return found
        messages = body["messages"]
        if found is not None and self._habits.compares:
            try:
                messages = self._compared(found, messages)
            except ValueError:
                said = {"type": "history_mismatch", "message": "The history is not the stored one."}
                return JSONResponse({"detail": said}, 409)
        if found is not None and not self._is_whole(found, messages):
            messages = [json.loads(one) for one in found.told] + messages
        whole = {**(found.first if found else {}), **body}
        ask = _Asking(self, self._client, request, {**whole, "messages": messages, "stream": False})
        reply = await (ask.again() if self._habits.reruns else ask.once(found))
        if reply.status_code != httpx.codes.OK:
            return Response(reply.content, reply.status_code, media_type="application/json")
        return self._told(reply, found, whole, messages)

    async def _passed_through(self, request: Request) -> Response:
        """The reply of the server behind to a request that is none of a chat."""
        dropped = ("host", "content-length")
        headers = {name: one for name, one in request.headers.items() if name not in dropped}
        reply = await self._client.request(
            request.method,
            f"{self._behind}{request.url.path}",
            content=await request.body(),
            headers=headers,
        )
        kept = {name: one for name, one in reply.headers.items() if name not in _OF_CONNECTION}
        return Response(reply.content, reply.status_code, kept)

    def _session(
        self, body: dict[str, Any], headers: Mapping[str, str]
    ) -> _Session | Response | None:
        """The session that a request names, by its header or by the ids of its tool results."""
        results = [one for one in body["messages"] if one["role"] == "tool"]
        by_ids = {self._named_by(one["tool_call_id"]) for one in results} - {None}
        name = headers.get("x-session-id")
        known = {one.replace("-", ""): one for one in self._sessions}
        found = {known[one] for one in by_ids if one in known} | ({name} - {None})
        if not found:
            return None
        self._named += 1
        if self._named in self._habits.ends:
            for one in found:
                self._sessions.pop(str(one), None)
            return _ended(*self._habits.ends[self._named])
        if len(found) > 1 or (one := found.pop()) not in self._sessions:
            return JSONResponse({"detail": "Session not found."}, 404)
        session = self._sessions[str(one)]
        if self._habits.turns is not None and session.turns >= self._habits.turns[0]:
            return _ended(*self._habits.turns[1:])
        return session

    def _named_by(self, call_id: str) -> str | None:
        """The session that an id of a call names, as hex digits."""
        if self._habits.short:
            return self._by_short.get(call_id)
        return named(call_id)

    # Histories as text

    def _is_whole(self, session: _Session, messages: list[dict[str, Any]]) -> bool:
        return not session.told or not all(one["role"] == "tool" for one in messages)

    def _compared(self, session: _Session, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages; after a mismatch, only those up to the last user message."""
        if not self._is_whole(session, messages):
            return messages
        sent = [as_text(one) for one in messages if one["role"] != "system"]
        if sent[: len(session.told)] == session.told:
            return messages
        self.mismatches += 1
        if self._habits.mismatch == "reject":
            raise ValueError
        last = max(n for n, one in enumerate(messages) if one["role"] == "user")
        session.behind = ""
        return messages[: last + 1]

    def meant(self, message: dict[str, Any]) -> dict[str, Any]:
        """The message of the server behind for a message of a client."""
        if message["role"] == "tool":
            call_id = message["tool_call_id"]
            return {**message, "tool_call_id": self._ids.get(call_id, call_id)}
        if message["role"] != "assistant":
            return message
        if as_text(message) in self._meant:
            return self._meant[as_text(message)]
        calls = [
            {**one, "id": self._ids.get(one["id"], one["id"])}
            for one in message.get("tool_calls") or ()
        ]
        return {**message, "tool_calls": calls} if calls else message

    # What clients see

    def _told(
        self, reply: httpx.Response, session: _Session | None, body: dict[str, Any],
        messages: list[dict[str, Any]],
    ) -> Response:  # fmt: skip
        behind = reply.headers["x-session-id"]
        if session is None:
            first = {name: body[name] for name in _BROUGHT if name in body}
            name = f"{behind[:-12]}{_NODE}" if self._habits.short else behind
            session = self._sessions.setdefault(name, _Session(name, behind, first=first))
        session.behind = behind
        answer = reply.json()
        (choice,) = answer["choices"]
        said = choice["message"]
        choice["message"] = shown = self._spelled(said, session)
        session.turns += not said.get("tool_calls")
        if answer["id"] == behind:
            answer["id"] = session.id
        self._meant[as_text(shown)] = said
        session.told = [as_text(one) for one in [*messages, shown] if one["role"] != "system"]
        headers = {"x-session-id": session.id}
        if self._habits.unknown_keys:
            answer = {**answer, "x_cost": {"cents": 1}, "service_tier": None}
            choice["x_rank"] = 1
        if not self.requests[-1].get("stream"):
            return JSONResponse(answer, headers=headers)
        events = _events(answer, choice)
        return StreamingResponse(events, headers=headers, media_type="text/event-stream")

    def _spelled(self, said: dict[str, Any], session: _Session) -> dict[str, Any]:
        """A message in the spelling of `json.dumps`, with the ids that clients see."""
        habits = self._habits
        more: dict[str, Any] = {"x_audio": None, "annotations": []} if habits.unknown_keys else {}
        shown = {**said, **more}
        if isinstance(content := said.get("content"), str) and content.startswith("{"):
            shown["content"] = json.dumps(self._envelope(json.loads(content)))
        calls = []
        for call in said.get("tool_calls") or ():
            arguments = json.loads(call["function"]["arguments"])
            call_id = self._call_id(call["id"], session)
            function = {**call["function"], "arguments": json.dumps(arguments)}
            calls.append({**call, **more, "id": call_id, "function": {**function, **more}})
        if calls and habits.null_content:
            shown["content"] = None
        return {**shown, "tool_calls": calls} if calls else shown

    def _call_id(self, behind: str, session: _Session) -> str:
        """The id of a call that clients see."""
        if behind in self._shown:
            return self._shown[behind]
        session.calls += 1
        call_id = f"tc-{session.id}-{uuid.uuid5(uuid.NAMESPACE_OID, behind)}"
        if self._habits.short:
            call_id = f"tc{_NODE}{session.calls:04x}"
            self._by_short[call_id] = session.id.replace("-", "")
        elif self._habits.dashless:
            call_id = call_id.replace("-", "")
        self._ids[call_id] = behind
        self._shown[behind] = call_id
        return call_id

    def _envelope(self, envelope: dict[str, Any]) -> dict[str, Any]:
        if self._habits.denials is not None:
            envelope = recorded(envelope, self._habits.denials, self._habits.checks)
        if self._habits.unknown_keys:
            envelope = {**envelope, "x_trace": {"spans": [1]}}
            for name in ("final_return_value", "error"):
                if envelope.get(name):
                    envelope[name] = {**envelope[name], "x_more": True}
            checks = envelope.get("policy_check_history") or ()
            envelope["policy_check_history"] = [{**check, "x_ms": 1} for check in checks]
            _mark_labels(envelope)
        if self._habits.nan:
            envelope["session_meta"] = {"score": float("nan"), "cost": float("-inf")}
        return envelope


_NODE = "0242ac120002"


def _mark_labels(data: Any) -> None:
    """Add keys to all labels, and to all values with labels."""
    parts = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    for part in parts:
        _mark_labels(part)
    if isinstance(data, dict) and data.keys() >= {"value", "meta"}:
        data["x_source"] = "field"
        if isinstance(data["meta"], dict):
            data["meta"]["x_score"] = [1]


def _ended(status: int, text: Any) -> Response:
    """A refusal because the session is over, or with status 200 a failed turn."""
    if status != httpx.codes.OK:
        return JSONResponse({"detail": text}, status)
    error = {"code": "session_error", "message": text}
    envelope = {"status": "failure", "final_return_value": None, "error": error}
    message = {"role": "assistant", "content": json.dumps(envelope)}
    choice = {"index": 0, "finish_reason": "error", "message": message}
    answer = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "a,b",
        "choices": [choice],
    }
    return JSONResponse(answer)


_BROUGHT = ("user_provided_program", "context_vars", "tools", "model")


class _Asking:
    """Sends one client request to the server behind."""

    def __init__(
        self, proxy: FieldServer, client: httpx.AsyncClient, request: Request, body: dict[str, Any]
    ) -> None:
        self._proxy, self._client, self._body = proxy, client, body
        self._url = f"{proxy._behind}{request.url.path}"
        self._headers = {name: one for name, one in request.headers.items() if name in _PASSED_ON}
        if proxy._habits.caches:
            config = json.loads(self._headers.get("x-config", "{}"))
            config["fsm"] = {**config.get("fsm", {}), "force_to_cache": ["."]}
            self._headers["x-config"] = json.dumps(config)

    async def _post(self, messages: list[dict[str, Any]], session: str | None) -> httpx.Response:
        self._proxy.passed += 1
        headers = self._headers if not session else {**self._headers, "x-session-id": session}
        body = {**self._body, "messages": messages}
        return await self._client.post(self._url, json=body, headers=headers)

    async def once(self, session: _Session | None) -> httpx.Response:
        """Send it in the existing session."""
        messages = [self._proxy.meant(one) for one in self._body["messages"]]
        return await self._post(messages, session.behind if session else None)

    async def again(self) -> httpx.Response:
        """Run the conversation again. New assistant messages replace those of the client."""
        done: list[dict[str, Any]] = []
        ids: dict[str, str] = {}
        behind = None
        for message in self._body["messages"]:
            if message["role"] != "assistant":
                call_id = message.get("tool_call_id")
                done.append(
                    message
                    if call_id is None
                    else {**message, "tool_call_id": ids.get(call_id, call_id)}
                )
                continue
            reply = await self._post(done, behind)
            if reply.status_code != httpx.codes.OK:
                return reply
            behind = reply.headers["x-session-id"]
            said = reply.json()["choices"][0]["message"]
            if not _is_same(said, message):
                return httpx.Response(
                    409, json={"detail": "The history is not what the program does."}
                )
            for new, old in zip(
                said.get("tool_calls") or (), message.get("tool_calls") or (), strict=True
            ):
                ids[old["id"]] = new["id"]
            done.append(said)
        return await self._post(done, behind)


def named(call_id: str) -> str | None:
    """The session that a tool call id names, as hex digits."""
    found = next((one for pattern in _IDS if (one := pattern.fullmatch(call_id))), None)
    return None if found is None else found[1].replace("-", "")


def as_text(message: Mapping[str, Any]) -> str:
    """A message as text. White space and escapes in arguments count, the order of keys does not."""
    calls = [
        {"id": one["id"], "type": "function", "function": {
            "name": one["function"]["name"], "arguments": one["function"]["arguments"]}}
        for one in message.get("tool_calls") or ()
    ]  # fmt: skip
    kept: dict[str, Any] = {"role": message["role"], "content": message.get("content") or ""}
    if calls:
        kept["tool_calls"] = calls
    if "tool_call_id" in message:
        kept["tool_call_id"] = message["tool_call_id"]
    return json.dumps(kept)


def _is_same(said: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    def calls(message: Mapping[str, Any]) -> list[tuple[str, Any]]:
        functions = [one["function"] for one in message.get("tool_calls") or ()]
        return [(one["name"], json.loads(one["arguments"])) for one in functions]

    return calls(said) == calls(told)


async def _events(answer: dict[str, Any], choice: dict[str, Any]) -> AsyncIterator[bytes]:
    """The reply in small pieces, as events."""
    message = choice["message"]
    head = {key: answer[key] for key in ("id", "created", "model")}
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]
    text = message.get("content") or ""
    deltas += [{"content": text[n : n + _PIECE]} for n in range(0, len(text), _PIECE)]
    if message.get("refusal"):
        deltas.append({"refusal": message["refusal"]})
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        begun = {**call, "index": index, "function": {"name": function["name"], "arguments": ""}}
        deltas.append({"tool_calls": [begun]})
        arguments = function["arguments"]
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": arguments[n : n + _PIECE]}}]}
            for n in range(0, len(arguments), _PIECE)
        ]
    ends = [(one, None) for one in deltas] + [({}, choice["finish_reason"])]
    for delta, finish in ends:
        one = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {**head, "object": "chat.completion.chunk", "choices": [one]}
        yield f"data: {json.dumps(chunk)}\n\n".encode()
        await asyncio.sleep(0)
    yield b"data: [DONE]\n\n"
