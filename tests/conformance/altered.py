"""A service that changes the reply of a local server to one request, or to all."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import httpx

Change = Callable[[httpx.Response, dict[str, Any]], httpx.Response]
OTHER = str(UUID(int=7))


class Altered(httpx.HTTPTransport):
    """Changes the reply to the n-th request, or to all requests.

    Args:
        change: Makes a reply from the real one and the request's body.
        at: Which request, counted from 1; 0 for all.
    """

    def __init__(self, change: Change, at: int = 0) -> None:
        super().__init__(trust_env=False)
        self._change, self._at = change, at
        self.count = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.count += 1
        reply = super().handle_request(request)
        content = reply.read()
        reply.close()
        headers = {name: one for name, one in reply.headers.items() if name != "content-length"}
        whole = httpx.Response(reply.status_code, headers=headers, content=content)
        if self._at not in (0, self.count):
            return whole
        try:
            body = json.loads(request.content)
        except ValueError:
            body = {}
        return self._change(whole, body if isinstance(body, dict) else {})


def _headers(reply: httpx.Response) -> dict[str, str]:
    return {"x-session-id": reply.headers.get("x-session-id", OTHER)}


def refused(status: int) -> Change:
    """An error that no probe expects."""
    return lambda reply, _: httpx.Response(
        status, headers=_headers(reply), json={"detail": "Altered."}
    )


def _message(message: dict[str, Any], finish: str = "stop") -> Change:
    """A reply of chat/completions with this message."""

    def change(reply: httpx.Response, _: dict[str, Any]) -> httpx.Response:
        body = {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "one",
            "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        }  # fmt: skip
        return httpx.Response(200, headers=_headers(reply), json=body)

    return change


def said(text: str, *, refusal: bool = False) -> Change:
    """An answer or a refusal of a model."""
    fields = {"content": "", "refusal": text} if refusal else {"content": text}
    return _message({"role": "assistant", **fields})


def envelope(**fields: Any) -> Change:
    return _message({"role": "assistant", "content": json.dumps(fields)}, finish="length")


META = {"producers": ["probe-altered", "other"], "consumers": ["x"], "tags": []}


def success(value: Any = "altered", meta: Any = None) -> Change:
    return envelope(status="success", final_return_value={"value": value, "meta": meta or META})


def failure() -> Change:
    error = {"code": "program_error", "message": "Something else went wrong."}
    return envelope(status="failure", final_return_value=None, error=error)


def denial() -> Change:
    """A denial whose checks have an unknown form."""
    said = "A policy denies this call. Context: {'text': 'probe-argument'}"
    history = [{"verdict": "medium", "because": []}, {"verdict": "medium"}]
    error = {"code": "policy_violation", "message": said}
    return envelope(
        status="failure", final_return_value=None, error=error, policy_check_history=history
    )


def asks(**arguments: Any) -> Change:
    call = {
        "id": "another-id", "type": "function",
        "function": {"name": "probe_send", "arguments": json.dumps(arguments, indent=1)},
    }  # fmt: skip
    return _message({"role": "assistant", "content": "", "tool_calls": [call]}, "tool_calls")


def plain_error(text: str) -> Change:
    return lambda reply, _: httpx.Response(400, headers=_headers(reply), text=text)


def events(*chunks: dict[str, Any]) -> Change:
    """A stream of these chunks without an end marker."""
    text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    kind = {"content-type": "text/event-stream"}
    return lambda reply, _: httpx.Response(200, headers={**_headers(reply), **kind}, text=text)


def streamed(*texts: str) -> Change:
    """A stream of events with these texts."""
    content = "".join(f"data: {text}\n\n" for text in texts)
    kind = {"content-type": "text/event-stream"}
    return lambda reply, _: httpx.Response(200, headers={**_headers(reply), **kind}, text=content)


def asks_twice(reply: httpx.Response, body: dict[str, Any]) -> httpx.Response:
    """A reply that asks for a tool twice."""
    altered = asks(text="x")(reply, body)
    completion = altered.json()
    message = completion["choices"][0]["message"]
    message["tool_calls"] *= 2
    return httpx.Response(200, headers=_headers(reply), json=completion)


def plain_json(value: Any) -> Change:
    return lambda reply, _: httpx.Response(200, headers=_headers(reply), json=value)


def nameless(reply: httpx.Response, _: dict[str, Any]) -> httpx.Response:
    """The real reply without its session and with another id."""
    body = {**reply.json(), "id": "other", "model": "one"}
    return httpx.Response(reply.status_code, json=body)


CHANGES: dict[str, Change] = {
    "refused": refused(418),
    "not found": refused(404),
    "success": success(),
    "success of a list": success([1]),
    "failure": failure(),
    "denial": denial(),
    "a denial with values": envelope(
        status="failure", error={"code": "x", "message": "A policy denies it: probe-argument"}
    ),
    "a call": asks(text="altered"),
    "a text": said("ready or not"),
    "a refusal": said("I would rather not.", refusal=True),
    "a broken stream": events(
        {
            "choices": [{"delta": {"content": "{"}, "finish_reason": "stop"}],
            "usage": {"total_tokens": 1},
        }
    ),
    "another object": plain_json({"policies": "", "more": {}, "content": [], "output": []}),
    "validation of nothing": plain_json({"x_features": None}),
    "nameless": nameless,
}  # fmt: skip


def changed_services() -> Iterator[tuple[str, Altered]]:
    for name, change in CHANGES.items():
        for at in (2, 3, 4, 0):  # the first request only looks whether the service answers
            yield f"{name} at {at}", Altered(change, at)
