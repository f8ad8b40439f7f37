"""Functions of probes about formats: streams, bodies, headers, errors and other endpoints."""

import json
from collections.abc import Mapping
from typing import Any

from langchain_sequrity.conformance.client import (
    DUAL,
    SINGLE,
    TOOLS,
    Client,
    ProbeReply,
    ProgramTurn,
    Unanswered,
    sqrt,
)
from langchain_sequrity.conformance.probes import Answer, acceptance, asks, outcome, status
from langchain_sequrity.wire.dual_llm import read_envelope
from langchain_sequrity.wire.error_body import error_text
from langchain_sequrity.wire.routes import VALIDATE_HEADERS_PATH, policy_route

_CALL = "a = probe_send(text='x')\nfinal_return_value = a"
_ONE = "final_return_value = 1"
_MAX_TOKENS = 200
_WORDS = "Answer with the word: ready"


# Streams


def _streamed(client: Client, program: str = _ONE, **body: Any) -> ProbeReply:
    return ProgramTurn(client, program, body={"stream": True, **body}).ask(any_status=False)


def _chunks(reply: ProbeReply) -> list[dict[str, Any]]:
    """The chunks of a chat/completions stream."""
    if reply.is_refused:
        raise Unanswered(reply.unexpected("a stream"))
    found = []
    for data in reply.events or ():
        if data.strip() == "[DONE]":
            continue
        try:
            chunk = json.loads(data)
        except ValueError:
            chunk = None
        if not isinstance(chunk, dict):
            msg = "An event of the stream is not a JSON object."
            raise Unanswered(msg)
        found.append(chunk)
    return found


def _deltas(reply: ProbeReply) -> list[dict[str, Any]]:
    choices = [choice for chunk in _chunks(reply) for choice in chunk.get("choices") or []]
    return [choice.get("delta") or {} for choice in choices if isinstance(choice, dict)]


@asks("stream-of-envelope")
def _stream_of_envelope(client: Client) -> Answer:
    reply = _streamed(client)
    if reply.events is None:
        return Answer("plain JSON") if reply.outcome == "success" else outcome(reply)
    pieces = [delta["content"] for delta in _deltas(reply) if delta.get("content")]
    is_whole = read_envelope("".join(map(str, pieces))) is not None
    detail = f"{len(pieces)} pieces in {len(reply.events)} events"
    return Answer("pieces that are an envelope" if is_whole else "something else", detail)


@asks("stream-of-call")
def _stream_of_call(client: Client) -> Answer:
    reply = _streamed(client, _CALL)
    if reply.events is None:
        return Answer("plain JSON") if reply.outcome == "asks for a tool" else outcome(reply)
    calls = [one for delta in _deltas(reply) for one in delta.get("tool_calls") or []]
    functions = [one.get("function") or {} for one in calls]
    arguments = "".join(str(one.get("arguments") or "") for one in functions)
    names = [one["name"] for one in functions if one.get("name")]
    try:
        is_whole = names == ["probe_send"] and json.loads(arguments) == {"text": "x"}
    except ValueError:
        is_whole = False
    has_id = bool(calls) and bool(calls[0].get("id"))
    return Answer(
        "one call in deltas" if is_whole and has_id else "something else", f"{len(calls)} deltas"
    )


@asks("stream-ends")
def _stream_ends(client: Client) -> Answer:
    reply = _streamed(client)
    if reply.is_refused:
        raise Unanswered(reply.unexpected("a stream"))
    if reply.events is None:
        return Answer("plain JSON")
    is_marked = bool(reply.events) and reply.events[-1].strip() == "[DONE]"
    return Answer("[DONE]" if is_marked else "otherwise")


def _usage(reply: ProbeReply) -> Answer:
    if reply.is_refused:
        return outcome(reply)
    if reply.events is None:
        return Answer("plain JSON")
    count = sum(1 for chunk in _chunks(reply) if isinstance(chunk.get("usage"), Mapping))
    return Answer("usage" if count else "no usage", f"{count} chunks with usage")


@asks("stream-usage-unasked")
def _usage_unasked(client: Client) -> Answer:
    return _usage(ProgramTurn(client, _ONE, body={"stream": True}).ask())


@asks("stream-usage-asked")
def _usage_asked(client: Client) -> Answer:
    body = {"stream": True, "stream_options": {"include_usage": True}}
    return _usage(ProgramTurn(client, _ONE, body=body).ask())


# Chats


@asks("chat-single-llm")
def _single_llm(client: Client) -> Answer:
    reply = client.chat(_WORDS, features=SINGLE, max_tokens=_MAX_TOKENS)
    if reply.is_refused:
        return outcome(reply)
    own = "the session's id" if reply.body.get("id") == reply.session else "other id"
    usage = "usage" if isinstance(reply.body.get("usage"), Mapping) else "no usage"
    return Answer(f"session, {own}, {usage}")


@asks("chat-default-architecture")
def _default_architecture(client: Client) -> Answer:
    reply = client.chat(_WORDS, max_tokens=_MAX_TOKENS)
    if reply.is_refused:
        return outcome(reply)
    if reply.outcome not in ("success", "failure"):
        return Answer("single-LLM")
    is_marked = "," in str(reply.body.get("model")) or reply.body.get("id") == reply.session
    return Answer("dual-LLM, marked" if is_marked else "dual-LLM, without a mark")


@asks("chat-dual-llm")
def _dual_llm(client: Client) -> Answer:
    reply = client.chat(_WORDS, features=DUAL)
    if reply.is_refused:
        return outcome(reply)
    return Answer(f"{reply.outcome}, {reply.choice.get('finish_reason')}", reply.error_text)


@asks("chat-multi-step")
def _multi_step(client: Client) -> Answer:
    fsm = {"enable_multistep_planning": True, "disable_rllm": True, "max_pllm_steps": 3}
    return outcome(client.chat(_WORDS, features=DUAL, config={"fsm": fsm}))


@asks("chat-stripped")
def _stripped(client: Client) -> Answer:
    config = {"response_format": {"strip_response_content": True}}
    reply = ProgramTurn(client, "final_return_value = 'ready'", config=config).ask()
    if reply.is_refused:
        return Answer("refused", reply.error_text)
    if reply.outcome == "success":
        return Answer("an envelope")
    is_bare = reply.message.get("content") == "ready"
    return Answer("the bare value" if is_bare else "something else")


# The other formats


def _items(reply: ProbeReply, key: str) -> list[Mapping[str, Any]]:
    """The objects in a list of the body."""
    found = reply.body.get(key) if isinstance(reply.body, Mapping) else None
    items = found if isinstance(found, list) else []
    return [item for item in items if isinstance(item, Mapping)]


def _types(items: list[Mapping[str, Any]]) -> str:
    return ", ".join(str(item.get("type")) for item in items) or "something else"


@asks("messages-of-graph")
def _messages_of_graph(client: Client) -> Answer:
    functions = [tool["function"] for tool in TOOLS]
    tools = [{"name": one["name"], "input_schema": one["parameters"]} for one in functions]
    path = client.path("lang-graph", "messages")
    reply = ProgramTurn(client, _CALL, tools, path=path, body={"max_tokens": _MAX_TOKENS}).ask()
    return outcome(reply) if reply.is_refused else Answer(_types(_items(reply, "content")))


@asks("responses-of-graph")
def _responses_of_graph(client: Client) -> Answer:
    tools = [{"type": "function", **tool["function"]} for tool in TOOLS]
    path = client.path("lang-graph", "responses")
    turn = ProgramTurn(client, _CALL, tools, path=path, body={"input": "Run it."})
    reply = client.ask(path, turn.body, headers=turn.headers, any_status=True)
    if reply.is_refused:
        return outcome(reply)
    items = _items(reply, "output")
    call = next((item for item in items if item.get("type") == "function_call"), None)
    if call is None:
        return Answer(_types(items))
    form = "tc" if str(call.get("call_id")).startswith("tc") else "another id"
    return Answer(f"function_call, {form}")


@asks("policy-gen-reply")
def _policy_gen_reply(client: Client) -> Answer:
    provider = client.target.provider
    types = {
        None: "openrouter_chat_completion",
        "openrouter": "openrouter_chat_completion",
        "openai": "oai_chat_completion",
        "sequrity_azure": "sequrity_azure_chat_completion",
    }
    body = {
        "type": types[provider],
        "model": client.target.model,
        "tools": list(TOOLS),
        "description": "What `probe_read` returns is never sent.",
        "n_retries": 1,
    }
    reply = client.ask(policy_route(provider).path, body)
    if reply.is_refused or not isinstance(reply.body, dict):
        return outcome(reply)
    return Answer(", ".join(sorted(reply.body)))


# Keys and errors


@asks("key-missing")
def _key_missing(client: Client) -> Answer:
    return status(ProgramTurn(client, _ONE).ask(key=None))


@asks("key-wrong")
def _key_wrong(client: Client) -> Answer:
    if client.target.is_local and not client.target.secrets:
        msg = "No key was given, so the server accepts any key."
        raise Unanswered(msg)
    return status(ProgramTurn(client, _ONE).ask(key="probe-of-no-key"))


def _malformed(client: Client) -> ProbeReply:
    """Send a body that is not JSON."""
    turn = ProgramTurn(client, _ONE)
    return client.ask(turn.path, b"{", headers=turn.headers, any_status=True)


@asks("error-body")
def _error_body(client: Client) -> Answer:
    reply = _malformed(client)
    if not reply.is_refused:
        return outcome(reply)
    if not isinstance(reply.body, Mapping):
        return Answer("no JSON object", reply.error_text)
    if not error_text(reply.body):
        return Answer("nothing to read", reply.error_text)
    return Answer(", ".join(sorted(map(str, reply.body))), reply.error_text)


@asks("error-malformed-body")
def _malformed_body(client: Client) -> Answer:
    return status(_malformed(client))


@asks("error-missing-field")
def _missing_field(client: Client) -> Answer:
    turn = ProgramTurn(client, _ONE)
    reply = client.ask(turn.path, turn.body, headers=turn.headers, any_status=True)
    detail = reply.body.get("detail") if isinstance(reply.body, Mapping) else None
    is_list = isinstance(detail, list) and all(
        isinstance(one, Mapping) and {"loc", "msg"} <= one.keys() for one in detail
    )
    return Answer(f"status {reply.status}{', a list' if is_list else ''}", reply.error_text)


@asks("model-missing-in-body")
def _model_missing(client: Client) -> Answer:
    return _without(client, "model")


@asks("program-missing")
def _program_missing(client: Client) -> Answer:
    return _without(client, "user_provided_program")


def _without(client: Client, field: str) -> Answer:
    turn = ProgramTurn(client, _ONE)
    del turn.body[field]
    return outcome(turn.ask())


# Headers and other endpoints


def _with_header_line(client: Client, size: int) -> ProbeReply:
    """Send an `X-Policy` whose header line has that many bytes."""
    head = len(json.dumps(sqrt(""))) + len("X-Policy: \r\n")
    policy = json.dumps(sqrt("//" + "x" * (size - head - 2)))
    return ProgramTurn(client, _ONE).ask(headers={"X-Policy": policy})


@asks("header-of-8-kib")
def _header_of_8_kib(client: Client) -> Answer:
    return outcome(_with_header_line(client, 8192))


@asks("header-of-20-kib")
def _header_of_20_kib(client: Client) -> Answer:
    try:
        return acceptance(_with_header_line(client, 20_480))
    except Unanswered as error:  # some servers close the connection during the request
        return Answer("refused", str(error))


@asks("validate-headers")
def _validate_headers(client: Client) -> Answer:
    body = {"x_features": json.dumps(DUAL), "x_policy": "{"}
    reply = client.ask(VALIDATE_HEADERS_PATH, body, key=None, any_status=True)
    if reply.is_refused or not isinstance(reply.body, Mapping):
        return status(reply)
    rows = [reply.body.get(name) for name in body]
    found = [row.get("valid") if isinstance(row, Mapping) else None for row in rows]
    return Answer("true and false" if found == [True, False] else json.dumps(found))


@asks("health")
def _health(client: Client) -> Answer:
    paths = ("/health", "/control/health")
    found = [
        path for path in paths if not client.ask(path, method="GET", any_status=True).is_refused
    ]
    return Answer("both" if len(found) == len(paths) else "".join(found) or "neither")


@asks("routes")
def _routes(client: Client) -> Answer:
    return status(client.ask("/", method="GET", any_status=True))


@asks("unknown-path")
def _unknown_path(client: Client) -> Answer:
    return status(client.ask("/control/probe/v1/chat/completions", {}, any_status=True))
