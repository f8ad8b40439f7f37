"""Probes of the wire: streams, formats, errors, limits of headers, and what surrounds the chats."""

import json
from collections.abc import Mapping
from typing import Any

from langchain_sequrity.conformance.client import (
    DUAL,
    SINGLE,
    TOOLS,
    Answer,
    Client,
    NoAnswer,
    Run,
    Seen,
    probe,
    sqrt,
)
from langchain_sequrity.wire.dual_llm import read_envelope
from langchain_sequrity.wire.reply_body import error_text
from langchain_sequrity.wire.routes import VALIDATE_HEADERS_PATH, policy_route

_STREAM = "protocol.md, Streaming"
_ERRORS = "protocol.md, Errors"
_HEADERS = "protocol.md, The three JSON headers"
_CHOICES = "local-server.md, Choices"
_CALL = "a = probe_send(text='x')\nfinal_return_value = a"
_ONE = "final_return_value = 1"
_FEW = 200  # tokens of an answer
_SAY = "Answer with the word: ready"


def _told(seen: Seen) -> Answer:
    return Answer(seen.outcome, seen.said)


def _status(seen: Seen) -> Answer:
    """The status alone, with what the body says."""
    return Answer(f"status {seen.status}", seen.said)


# Streams


def _chunks(seen: Seen) -> list[dict[str, Any]]:
    """The chunks of a stream of chat/completions."""
    if seen.is_refused:
        raise NoAnswer(seen.unexpected("a stream"))
    found = []
    for data in seen.events or ():
        if data.strip() == "[DONE]":
            continue
        try:
            chunk = json.loads(data)
        except ValueError:
            chunk = None
        if not isinstance(chunk, dict):
            msg = "An event of the stream is not a JSON object."
            raise NoAnswer(msg)
        found.append(chunk)
    return found


def _deltas(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    choices = [choice for chunk in chunks for choice in chunk.get("choices") or []]
    return [choice.get("delta") or {} for choice in choices if isinstance(choice, dict)]


@probe(
    "stream-of-envelope",
    "How does an envelope come in a stream?",
    "In any number of pieces, or as plain JSON.",
    "behaviour.md, P3 Envelope before text", "protocol.md, Open questions",
    expected=("pieces that are an envelope", "plain JSON"),
)  # fmt: skip
def _of_envelope(client: Client) -> Answer:
    seen = Run(client, _ONE, body={"stream": True}).ask()
    if seen.events is None:
        return Answer("plain JSON" if seen.outcome == "success" else seen.outcome, seen.said)
    pieces = [delta["content"] for delta in _deltas(_chunks(seen)) if delta.get("content")]
    is_whole = read_envelope("".join(map(str, pieces))) is not None
    detail = f"{len(pieces)} pieces in {len(seen.events)} events"
    return Answer("pieces that are an envelope" if is_whole else "something else", detail)


@probe(
    "stream-of-call",
    "How does a tool call come in a stream?",
    "As deltas: id and name first, then pieces of the arguments; or as plain JSON.",
    _STREAM,
    expected=("one call in deltas", "plain JSON"),
)  # fmt: skip
def _of_call(client: Client) -> Answer:
    seen = Run(client, _CALL, body={"stream": True}).ask()
    if seen.events is None:
        return Answer(
            "plain JSON" if seen.outcome == "asks for a tool" else seen.outcome, seen.said
        )
    calls = [one for delta in _deltas(_chunks(seen)) for one in delta.get("tool_calls") or []]
    functions = [one.get("function") or {} for one in calls]
    arguments = "".join(str(one.get("arguments") or "") for one in functions)
    names = [one["name"] for one in functions if one.get("name")]
    try:
        is_whole = names == ["probe_send"] and json.loads(arguments) == {"text": "x"}
    except ValueError:
        is_whole = False
    is_named = bool(calls) and bool(calls[0].get("id"))
    return Answer(
        "one call in deltas" if is_whole and is_named else "something else", f"{len(calls)} deltas"
    )


@probe(
    "stream-ends",
    "Does a stream end with `data: [DONE]`?",
    "It does. Without it the client takes a stream for cut.",
    _STREAM,
    expected=("[DONE]", "plain JSON"),
)  # fmt: skip
def _ends(client: Client) -> str:
    seen = Run(client, _ONE, body={"stream": True}).ask()
    if seen.is_refused:
        raise NoAnswer(seen.unexpected("a stream"))
    if seen.events is None:
        return "plain JSON"
    return "[DONE]" if seen.events and seen.events[-1].strip() == "[DONE]" else "otherwise"


def _usage(seen: Seen) -> Answer:
    if seen.is_refused:
        return _told(seen)
    if seen.events is None:
        return Answer("plain JSON")
    count = sum(1 for chunk in _chunks(seen) if isinstance(chunk.get("usage"), Mapping))
    return Answer("usage" if count else "no usage", f"{count} chunks with usage")


@probe(
    "stream-usage-unasked",
    "Does a stream report usage without `stream_options`?",
    "It does not, as in OpenAI's API.",
    _STREAM, "behaviour.md, P4 Documented is less than OpenAI",
    expected=("no usage", "plain JSON"), copes=("usage",),
)  # fmt: skip
def _unasked(client: Client) -> Answer:
    return _usage(Run(client, _ONE, body={"stream": True}).ask(any_status=True))


@probe(
    "stream-usage-asked",
    "Does it with `stream_options: {include_usage: true}`?",
    "It does.",
    _STREAM, "behaviour.md, P4 Documented is less than OpenAI",
    expected=("usage", "plain JSON"), copes=("no usage", "status 400", "status 422"),
)  # fmt: skip
def _asked(client: Client) -> Answer:
    body = {"stream": True, "stream_options": {"include_usage": True}}
    return _usage(Run(client, _ONE, body=body).ask(any_status=True))


# Chats


@probe(
    "chat-single-llm",
    "What does a single-LLM reply bring: session, upstream's id, usage?",
    "A session in the header, another `id`, and usage.",
    "protocol.md, Sessions", "protocol.md, Chat completions",
    expected=("session, other id, usage",), copes=("session, other id, no usage",), models=1,
)  # fmt: skip
def _single_llm(client: Client) -> Answer:
    seen = client.chat(_SAY, features=SINGLE, max_tokens=_FEW)
    if seen.is_refused:
        return _told(seen)
    own = "the session's id" if seen.body.get("id") == seen.session else "other id"
    usage = "usage" if isinstance(seen.body.get("usage"), Mapping) else "no usage"
    return Answer(f"session, {own}, {usage}")


@probe(
    "chat-default-architecture",
    "Which architecture has a session without `X-Features`?",
    "Single-LLM, or what is stored for the key; the client tells by the marks of the reply.",
    "protocol.md, Configuration", "behaviour.md, P2 Which replies are dual-LLM", _CHOICES,
    expected=("single-LLM", "dual-LLM, marked"), models=2,
)  # fmt: skip
def _default_architecture(client: Client) -> Answer:
    seen = client.chat(_SAY, max_tokens=_FEW)
    if seen.is_refused:
        return _told(seen)
    if seen.outcome not in ("success", "failure"):
        return Answer("single-LLM")
    is_marked = "," in str(seen.body.get("model")) or seen.body.get("id") == seen.session
    return Answer("dual-LLM, marked" if is_marked else "dual-LLM, without a mark")


@probe(
    "chat-dual-llm",
    "Does a planned turn end with an envelope, and with `stop`?",
    "It does.",
    "protocol.md, Dual-LLM content", "behaviour.md, P8 How a turn ends",
    expected=("success, stop",), copes=("failure, stop", "failure, error"), models=3,
)  # fmt: skip
def _dual_llm(client: Client) -> Answer:
    seen = client.chat(_SAY, features=DUAL)
    if seen.is_refused:
        return _told(seen)
    return Answer(f"{seen.outcome}, {seen.choice.get('finish_reason')}", seen.said)


@probe(
    "chat-multi-step",
    "Does a turn with `enable_multistep_planning` end with an envelope as well?",
    "It does.",
    "protocol.md, X-Config", "local-server.md, Choices of dual-LLM",
    expected=("success",), copes=("failure",), models=5,
)  # fmt: skip
def _multi_step(client: Client) -> Answer:
    fsm = {"enable_multistep_planning": True, "disable_rllm": True, "max_pllm_steps": 3}
    return _told(client.chat(_SAY, features=DUAL, config={"fsm": fsm}))


@probe(
    "chat-unknown-field",
    "Is a field of the body an error that the service does not document, such as `max_tokens`?",
    "It is not.",
    "protocol.md, Chat completions", "behaviour.md, P4 Documented is less than OpenAI",
    expected=("success",), copes=("status 400", "status 422"),
)  # fmt: skip
def _unknown_field(client: Client) -> Answer:
    body = {"max_tokens": 200, "parallel_tool_calls": True, "user": "probe"}
    return _told(Run(client, _ONE, body=body).ask(any_status=True))


@probe(
    "chat-stripped",
    "What is the content with `strip_response_content: true`?",
    "The bare value. The client never asks for it in dual-LLM sessions.",
    "protocol.md, Dual-LLM content", "behaviour.md, P3 Envelope before text",
    expected=("the bare value", "refused"), copes=("an envelope",), of="local server",
)  # fmt: skip
def _stripped(client: Client) -> Answer:
    config = {"response_format": {"strip_response_content": True}}
    seen = Run(client, "final_return_value = 'ready'", config=config).ask(any_status=True)
    if seen.is_refused:
        return Answer("refused", seen.said)
    if seen.outcome == "success":
        return Answer("an envelope")
    content = seen.message.get("content")
    return Answer("the bare value" if content == "ready" else "something else")


# The other formats


@probe(
    "messages-of-graph",
    "Does a supplied program run in the format of Messages, at the provider `anthropic`?",
    "It does: a `tool_use` block asks for the tool.",
    "protocol.md, Messages", "protocol.md, LangGraph endpoint",
    expected=("tool_use",), copes=("status 404",),
)  # fmt: skip
def _messages(client: Client) -> Answer:
    tools = [
        {"name": one["function"]["name"], "input_schema": one["function"]["parameters"]}
        for one in TOOLS
    ]
    run = Run(
        client, _CALL, tools, path=client.path("lang-graph", "messages"), body={"max_tokens": 200}
    )
    seen = run.ask(any_status=True)
    if seen.is_refused:
        return _told(seen)
    content = seen.body.get("content") if isinstance(seen.body, Mapping) else None
    blocks = content if isinstance(content, list) else []
    kinds = [str(block.get("type")) for block in blocks if isinstance(block, Mapping)]
    return Answer("tool_use" if kinds == ["tool_use"] else ", ".join(kinds) or "something else")


@probe(
    "responses-of-graph",
    "Does a supplied program run in the format of Responses, and which form has `call_id`?",
    "It does, and `call_id` has the form of a tool call's id; or the request is refused, since no "
    "page lists that pair. Graphs use the other formats.",
    "protocol.md, Responses", "protocol.md, Endpoints",
    expected=("function_call, tc", "status 400", "status 404"),
    copes=("function_call, another id",),
)  # fmt: skip
def _responses(client: Client) -> Answer:
    tools = [{"type": "function", **one["function"]} for one in TOOLS]
    run = Run(
        client, _CALL, tools, path=client.path("lang-graph", "responses"), body={"input": "Run it."}
    )
    seen = client.ask(run.path, run.body, headers=run.headers, any_status=True)
    if seen.is_refused:
        return _told(seen)
    output = seen.body.get("output") if isinstance(seen.body, Mapping) else None
    items = [one for one in output or () if isinstance(one, Mapping)]
    call = next((one for one in items if one.get("type") == "function_call"), None)
    if call is None:
        return Answer(", ".join(str(one.get("type")) for one in items) or "something else")
    form = "tc" if str(call.get("call_id")).startswith("tc") else "another id"
    return Answer(f"function_call, {form}")


@probe(
    "policy-gen-reply",
    "What does a generated policy come in?",
    "In an object with exactly `policies` and `usage`.",
    "protocol.md, Policy generation",
    expected=("policies, usage",), models=4,
)  # fmt: skip
def _policy_gen(client: Client) -> Answer:
    provider = client.target.provider
    kinds = {
        None: "openrouter_chat_completion", "openrouter": "openrouter_chat_completion",
        "openai": "oai_chat_completion", "sequrity_azure": "sequrity_azure_chat_completion",
    }  # fmt: skip
    body = {
        "type": kinds[provider], "model": client.target.model, "tools": list(TOOLS),
        "description": "What `probe_read` returns is never sent.", "n_retries": 1,
    }  # fmt: skip
    seen = client.ask(policy_route(provider).path, body)
    if seen.is_refused or not isinstance(seen.body, dict):
        return _told(seen)
    return Answer(", ".join(sorted(seen.body)))


# Keys and errors


@probe(
    "key-missing",
    "What is the answer to a request without `Authorization`?",
    "The status is 401.",
    _ERRORS, _CHOICES,
    expected=("status 401",), copes=("status 403", "status 422"),
)  # fmt: skip
def _missing(client: Client) -> Answer:
    return _status(Run(client, _ONE).ask(key=None, any_status=True))


@probe(
    "key-wrong",
    "What is the answer to a key that does not exist?",
    "The status is 401.",
    _ERRORS,
    expected=("status 401",), copes=("status 403",),
)  # fmt: skip
def _wrong(client: Client) -> Answer:
    if client.target.is_local and not client.target.secrets:
        msg = "No key was given, so the server takes any."
        raise NoAnswer(msg)
    return _status(Run(client, _ONE).ask(key="probe-of-no-key", any_status=True))


@probe(
    "error-body",
    "What form has the body of an error?",
    "An object with `detail`, `message` or `error`, which the client reads.",
    _ERRORS,
    expected=("detail", "message", "error", "detail, message"),
)  # fmt: skip
def _error_body(client: Client) -> Answer:
    seen = client.ask(
        client.path("lang-graph"), b"{", headers=Run(client, _ONE).headers, any_status=True
    )
    if not seen.is_refused:
        return _told(seen)
    if not isinstance(seen.body, Mapping):
        return Answer("no JSON object", seen.said)
    if not error_text(seen.body):
        return Answer("nothing to read", seen.said)
    return Answer(", ".join(sorted(map(str, seen.body))), seen.said)


@probe(
    "error-malformed-body",
    "What is the answer to a body that is not JSON?",
    "The status is 400 or 422.",
    _ERRORS,
    expected=("status 400", "status 422"),
)  # fmt: skip
def _malformed(client: Client) -> Answer:
    headers = Run(client, _ONE).headers
    return _status(client.ask(client.path("lang-graph"), b"{", headers=headers, any_status=True))


@probe(
    "error-missing-field",
    "What is the answer to a body without `messages`?",
    "The status is 422, with a list of `{loc, msg, type}` as `detail`.",
    _ERRORS,
    expected=("status 422, a list",), copes=("status 400", "status 422"),
)  # fmt: skip
def _missing_field(client: Client) -> Answer:
    run = Run(client, _ONE)
    seen = client.ask(run.path, run.body, headers=run.headers, any_status=True)
    detail = seen.body.get("detail") if isinstance(seen.body, Mapping) else None
    is_list = isinstance(detail, list) and all(
        isinstance(one, Mapping) and {"loc", "msg"} <= one.keys() for one in detail
    )
    return Answer(f"status {seen.status}{', a list' if is_list else ''}", seen.said)


@probe(
    "error-header-not-json",
    "What is the answer to an `X-Policy` that is not JSON?",
    "The status is 400.",
    _ERRORS, _HEADERS,
    expected=("status 400",), copes=("status 422",), of="local server",
)  # fmt: skip
def _not_json(client: Client) -> Answer:
    return _status(Run(client, _ONE).ask(headers={"X-Policy": "{"}, any_status=True))


def _with_unknown(client: Client, policy: Mapping[str, Any]) -> Answer:
    seen = Run(client, _ONE, policy=policy).ask(any_status=True)
    return Answer("refused" if seen.is_refused else seen.outcome, f"{seen.status} {seen.said}")


@probe(
    "header-unknown-key",
    "Is an unknown key of `X-Policy` refused?",
    "It is.",
    _HEADERS,
    expected=("refused",), copes=("success",),
)  # fmt: skip
def _unknown_key(client: Client) -> Answer:
    return _with_unknown(client, {"probe": True})


@probe(
    "header-unknown-nested-key",
    "And one within `presets`?",
    "It is, too.",
    _HEADERS,
    expected=("refused",), copes=("success",), of="local server",
)  # fmt: skip
def _unknown_nested(client: Client) -> Answer:
    return _with_unknown(client, {"presets": {"probe": True}})


def _with_line_of(client: Client, size: int) -> Seen:
    head = len(json.dumps(sqrt(""))) + len("X-Policy: \r\n")
    policy = json.dumps(sqrt("//" + "x" * (size - head - 2)))
    return Run(client, _ONE).ask(headers={"X-Policy": policy}, any_status=True)


@probe(
    "header-of-8-kib",
    "Is a header line of 8 KiB taken?",
    "It is. The client sends none that is longer.",
    "behaviour.md, P9 Header size", "protocol.md, Open questions",
    expected=("success",),
)  # fmt: skip
def _of_8_kib(client: Client) -> Answer:
    return _told(_with_line_of(client, 8192))


@probe(
    "header-of-20-kib",
    "And one of 20 KiB?",
    "It is refused. If not, `max_header_bytes` may be raised.",
    "behaviour.md, P9 Header size",
    expected=("refused",), copes=("success",), of="local server",
)  # fmt: skip
def _of_20_kib(client: Client) -> Answer:
    try:
        seen = _with_line_of(client, 20_480)
    except NoAnswer as error:  # some servers close the connection while it comes
        return Answer("refused", str(error))
    return Answer("refused" if seen.is_refused else seen.outcome, f"{seen.status} {seen.said}")


@probe(
    "content-type-of-request",
    "Is a body taken that is not declared as JSON?",
    "It is refused.",
    "local-server.md, Safety",
    expected=("refused",), copes=("success",), of="local server",
)  # fmt: skip
def _content_type(client: Client) -> Answer:
    seen = Run(client, _ONE).ask(headers={"Content-Type": "text/plain"}, any_status=True)
    return Answer("refused" if seen.is_refused else seen.outcome, f"{seen.status} {seen.said}")


@probe(
    "validate-headers",
    "Does `validate-headers` tell a good header from a bad one, without a key?",
    "It answers 200 with `valid`, `normalized` and `errors` for each.",
    "protocol.md, Endpoints",
    expected=("true and false",), copes=("status 404", "status 401"),
)  # fmt: skip
def _validate(client: Client) -> Answer:
    body = {"x_features": json.dumps(DUAL), "x_policy": "{"}
    seen = client.ask(VALIDATE_HEADERS_PATH, body, key=None, any_status=True)
    if seen.is_refused or not isinstance(seen.body, Mapping):
        return _status(seen)
    rows = [seen.body.get(name) for name in body]
    found = [row.get("valid") if isinstance(row, Mapping) else None for row in rows]
    return Answer("true and false" if found == [True, False] else json.dumps(found))


@probe(
    "health",
    "Is there a health check at `/health` or `/control/health`?",
    "There is, at both.",
    "protocol.md, Endpoints",
    expected=("both",), copes=("/health", "/control/health", "neither"), of="local server",
    requests=2,
)  # fmt: skip
def _health(client: Client) -> str:
    paths = ("/health", "/control/health")
    found = [
        path for path in paths if not client.ask(path, method="GET", any_status=True).is_refused
    ]
    return "both" if len(found) == len(paths) else "".join(found) or "neither"


@probe(
    "routes",
    "Is there a list of routes at `/`?",
    "There is.",
    "protocol.md, Endpoints",
    expected=("status 200",), copes=("status 404",), of="local server",
)  # fmt: skip
def _routes(client: Client) -> Answer:
    return Answer(f"status {client.ask('/', method='GET', any_status=True).status}")


@probe(
    "unknown-path",
    "What is the answer at a path that does not exist?",
    "The status is 404.",
    _ERRORS,
    expected=("status 404",), copes=("status 405",),
)  # fmt: skip
def _unknown_path(client: Client) -> Answer:
    return _status(client.ask("/control/probe/v1/chat/completions", {}, any_status=True))


@probe(
    "model-missing-in-body",
    "What is the answer to a body without `model`?",
    "The status is 422.",
    "protocol.md, Chat completions", _ERRORS,
    expected=("status 422",), copes=("status 400", "success"), of="local server",
)  # fmt: skip
def _model_missing(client: Client) -> Answer:
    run = Run(client, _ONE)
    del run.body["model"]
    return _told(run.ask(any_status=True))


@probe(
    "program-missing",
    "What is the answer at `lang-graph` to a body without a program?",
    "The status is 400.",
    "local-server.md, Choices of dual-LLM",
    expected=("status 400",), copes=("status 422", "success", "failure"), of="local server",
    models=3,
)  # fmt: skip
def _program_missing(client: Client) -> Answer:
    run = Run(client, _ONE)
    del run.body["user_provided_program"]
    return _told(run.ask(any_status=True))
