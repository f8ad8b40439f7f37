"""How the tests of the local server ask it things."""

from typing import Any

import httpx

CHAT = "/control/chat/v1/chat/completions"
KEY = {"Authorization": "Bearer sq-test"}
Json = dict[str, Any]

NUMBER = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}


def tool(name: str, parameters: Json | None = None) -> Json:
    return {"type": "function", "function": {"name": name, "parameters": parameters or NUMBER}}


def user(text: str = "Hello") -> Json:
    return {"role": "user", "content": text}


def result(call_id: str, text: str = "42") -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def calls(*ids: str, name: str = "look") -> Json:
    made = [
        {"id": one, "type": "function", "function": {"name": name, "arguments": '{"x":1}'}}
        for one in ids
    ]
    return {"role": "assistant", "content": None, "tool_calls": made}


def body(*messages: Json, **fields: Any) -> Json:
    return {"model": "any/model", "messages": list(messages) or [user()], **fields}


def ask(
    client: httpx.Client,
    *messages: Json,
    session: str | None = None,
    path: str = CHAT,
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> httpx.Response:
    """Send a chat request; messages default to one greeting."""
    named = {"X-Session-ID": session} if session is not None else {}
    return client.post(path, json=body(*messages, **fields), headers=named | (headers or {}))


def said(reply: httpx.Response) -> Json:
    """The message of a good reply."""
    assert reply.status_code == 200, reply.text
    message: Json = reply.json()["choices"][0]["message"]
    return message


def session_of(reply: httpx.Response) -> str:
    return reply.headers["x-session-id"]
