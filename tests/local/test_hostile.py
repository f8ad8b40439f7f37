"""Any request gets a reply that is never a 500; errors are JSON with the problem."""

import asyncio
import json
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langchain_sequrity.wire.routes import VALIDATE_HEADERS_PATH
from tests.local.api import CHAT, Api, call_ids, result, said, session_of, tool
from tests.local.conftest import Serve
from tests.local.stores import find

# The fixtures are a server and a client. Examples may share them: no state matters between them.
hostile = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
JSON = {"Content-Type": "application/json"}
SURE = {200, 400, 404, 409, 413, 415, 422, 431, 501}

texts = st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace").decode())
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
header_values = st.binary(max_size=60).map(
    lambda data: bytes(byte for byte in data if byte > 0x20 and byte != 0x7F)
)

VALID: dict[str, Any] = {
    "model": "any/model",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {
            "role": "user",
            "name": "ann",
            "content": [
                {"type": "text", "text": "Hi"},
                {
                    "type": "image_url",
                    "image_url": {"url": "https://example.com/a.png", "detail": "low"},
                },
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "look_up", "arguments": '{"word": "x"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ],
    "tools": [tool()],
    "tool_choice": "auto",
    "temperature": 0.5,
    "top_p": 1,
    "n": 1,
    "seed": 7,
    "stop": ["x"],
    "max_tokens": 50,
    "stream": False,
    "stream_options": {"include_usage": True},
    "logprobs": True,
    "top_logprobs": 2,
    "reasoning_effort": "low",
    "parallel_tool_calls": True,
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "n",
            "schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
        },
    },
    "user": "ann",
    "metadata": {"a": "b"},
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


def jsonable(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # orjson refuses integers beyond 64 bits
        return json.dumps(value).encode()


mutated = st.builds(
    lambda path, new: changed(VALID, path, new), st.sampled_from(places(VALID)), anything
)


def check(reply: httpx.Response) -> None:
    assert reply.status_code in SURE, reply.text
    assert reply.headers["x-request-id"]
    if reply.status_code == 200:
        return
    assert reply.headers["content-type"] == "application/json"
    problems = reply.json()["detail"]
    assert problems
    assert isinstance(problems, str) or all({"loc", "msg", "type"} <= set(one) for one in problems)


@hostile
@given(body=anything)
def test_any_json_body_gets_an_expected_status(api: Api, body: Any) -> None:
    for path in (CHAT, VALIDATE_HEADERS_PATH):
        check(api.post(path, content=jsonable(body), headers=JSON))


@hostile
@given(body=st.binary(max_size=200))
def test_any_bytes_as_body_get_an_expected_status(api: Api, body: bytes) -> None:
    for path in (CHAT, VALIDATE_HEADERS_PATH):
        check(api.post(path, content=body, headers=JSON))


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("mode", ["api", "documented"])
@settings(hostile, max_examples=250)
@given(body=mutated)
def test_a_valid_body_with_one_part_replaced_gets_an_expected_status(
    mode: str, request: pytest.FixtureRequest, body: Any
) -> None:
    api: Api = request.getfixturevalue(mode)
    check(api.post(content=jsonable(body), headers=JSON))


@hostile
@given(first=mutated, second=mutated)
def test_any_two_requests_in_one_session_get_an_expected_status(
    api: Api, first: Any, second: Any
) -> None:
    reply = api.post(content=jsonable(first), headers=JSON)
    check(reply)
    if "x-session-id" in reply.headers:
        headers = {**JSON, "X-Session-ID": session_of(reply)}
        check(api.post(content=jsonable(second), headers=headers))


@hostile
@given(
    name=st.sampled_from(
        [
            "X-Session-ID",
            "X-Features",
            "X-Policy",
            "X-Config",
            "X-Api-Key",
            "Idempotency-Key",
            "Content-Type",
            "Accept",
        ]
    ),
    value=header_values,
)
def test_any_value_of_a_header_gets_an_expected_status(api: Api, name: str, value: bytes) -> None:
    headers = {**JSON, name: value}
    check(
        api.post(
            content=orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}),
            headers=headers,
        )
    )


@hostile
@given(name=st.sampled_from(["X-Features", "X-Policy", "X-Config"]), value=anything)
def test_any_json_in_a_header_gets_an_expected_status(api: Api, name: str, value: Any) -> None:
    text = json.dumps(value)
    check(api.chat("Hi", headers={name: text}))
    key = name.lower().replace("-", "_")
    checked = api.request("POST", VALIDATE_HEADERS_PATH, json={key: text})
    assert checked.status_code == 200
    assert isinstance(checked.json()[key]["valid"], bool)


@hostile
@given(value=header_values)
def test_any_value_of_authorization_or_host_is_refused(api: Api, value: bytes) -> None:
    for name in ("Authorization", "Host"):
        reply = api.request("POST", CHAT, json={}, headers={name: value})
        assert reply.status_code in {401, 421, 422}
        assert reply.json()["detail"]


@hostile
@given(path=texts)
def test_any_path_gets_200_404_or_405(api: Api, path: str) -> None:
    reply = api.request("GET", "/" + quote(path))
    assert reply.status_code in {200, 404, 405}


BAD_ARGUMENTS = [
    "{",
    "[]",
    '{"a": NaN}',
    '{"a": 1e999}',
    '{"a": "\\ud800"}',
    '{"\\ud800": 1}',
    "[" * 10_000,
    '{"a": ' + "9" * 5000 + "}",
    "\x00",
]


@pytest.mark.parametrize("arguments", BAD_ARGUMENTS, ids=range(len(BAD_ARGUMENTS)))
@pytest.mark.parametrize("stream", [False, True])
def test_malformed_arguments_of_a_call_get_an_expected_status(
    api: Api, arguments: str, stream: bool
) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "look_up", "arguments": arguments},
    }
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    check(api.chat("Hi", message, result("call_1"), tools=[tool()], stream=stream))


async def test_a_hundred_simultaneous_conversations_do_not_mix(serve: Serve) -> None:
    """100 conversations of three turns each share eight connections."""
    server = serve().server
    limits = httpx.Limits(max_connections=8)
    headers = {"Authorization": "Bearer sq-test"}
    async with httpx.AsyncClient(base_url=server.base_url, limits=limits, headers=headers, timeout=600, trust_env=False) as client:  # fmt: skip

        async def converse(word: str) -> str:
            prompt = {"role": "user", "content": f"call look_up with '{word}'"}
            body = {"model": "any/model", "messages": [prompt], "tools": [tool()]}
            called = await client.post(CHAT, json=body)
            session = {"X-Session-ID": session_of(called)}
            body["messages"] = [result(call_ids(called)[0], f"result of {word}")]
            answered = await client.post(CHAT, json=body, headers=session)
            assert f"result of {word}" in said(answered)["content"]
            body = {"model": "any/model", "messages": [{"role": "user", "content": f"bye {word}"}]}
            ended = await client.post(CHAT, json=body, headers=session)
            assert f"bye {word}" in said(ended)["content"]
            assert {session_of(one) for one in (answered, ended)} == {session_of(called)}
            return session_of(called)

        words = [uuid4().hex for _ in range(100)]
        ids = await asyncio.gather(*map(converse, words))
    assert len(set(ids)) == 100
    for word, session_id in zip(words, ids, strict=True):
        texts = [str(message.content) for message in find(server.sessions, session_id).messages]  # type: ignore[union-attr] # it was just used
        assert not any(other in text for text in texts for other in words if other != word)


async def test_a_hundred_simultaneous_requests_on_eight_sessions_do_not_mix(serve: Serve) -> None:
    server = serve().server
    headers = {"Authorization": "Bearer sq-test"}
    async with httpx.AsyncClient(base_url=server.base_url, headers=headers, timeout=600, trust_env=False) as client:  # fmt: skip

        async def say(text: str, session: str | None = None) -> httpx.Response:
            named = {"X-Session-ID": session} if session else {}
            body = {"model": "m", "messages": [{"role": "user", "content": text}]}
            return await client.post(CHAT, json=body, headers=named)

        sessions = [session_of(await say(f"start {i}")) for i in range(8)]
        replies = await asyncio.gather(
            *(say(f"session {i % 8} request {i}", sessions[i % 8]) for i in range(100))
        )
    assert {reply.status_code for reply in replies} <= {200, 409}
    for i, reply in enumerate(replies):
        if reply.status_code == 200:
            assert session_of(reply) == sessions[i % 8]
            assert f"session {i % 8} request {i}" in said(reply)["content"]
    for number, session_id in enumerate(sessions):
        session = find(server.sessions, session_id)
        assert session is not None
        mine = [
            reply for i, reply in enumerate(replies) if i % 8 == number and reply.status_code == 200
        ]
        assert session.turns == 1 + len(mine)
        asked = [str(message.content) for message in session.messages if message.type == "human"]
        assert all(f"session {number} " in text for text in asked[1:])
