"""The OpenAPI document of the server: `python -m langchain_sequrity.local.openapi` prints it.

It is made from the route table, and from the forms that check bodies. So it cannot name a path that
the server does not have, or a field that it refuses. Checks that are code (base64, ids of calls
that match) are not in it.
"""

import json
from collections.abc import Iterator
from typing import Any, get_args

from langchain_sequrity._version import __version__
from langchain_sequrity.wire import policy_generation
from langchain_sequrity.wire.chat_completions import server as chat_completions
from langchain_sequrity.wire.checks import Body
from langchain_sequrity.wire.messages import server as messages
from langchain_sequrity.wire.responses import server as responses
from langchain_sequrity.wire.routes import (
    CHAT_ROUTES,
    COUNT_TOKENS_ROUTES,
    MODELS_ROUTES,
    POLICY_ROUTES,
    VALIDATE_HEADERS_PATH,
    Route,
)

Json = dict[str, Any]
_COMPONENTS = "#/components/schemas/"
_BODIES: dict[str, tuple[str, Body]] = {
    "chat/completions": ("ChatCompletionsRequest", chat_completions.BODY),
    "messages": ("MessagesRequest", messages.BODY),
    "responses": ("ResponsesRequest", responses.BODY),
    "generate": ("PolicyRequest", policy_generation.BODY),
}
_COUNTED = "CountTokensRequest"
_JSON = "application/json"
_EVENTS = "text/event-stream"
_KEY: list[Json] = [{"bearer": []}]
_ANTHROPIC_KEY = [*_KEY, {"x_api_key": []}]
_ERRORS = {
    "400": "The request is impossible: invalid JSON, an invalid header or policy, a history that a "
    "model cannot continue.",
    "401": "The key is missing or unknown.",
    "404": "The session is unknown or has ended, or there is nothing of this name.",
    "408": "The body did not arrive in time.",
    "409": "The session is in use, or the request does not fit its state.",
    "413": "The body, or the memory that it needs, is too large.",
    "415": "The body is not declared as JSON.",
    "421": "`Host` does not name this server.",
    "422": "The body has another form.",
    "429": "Too many requests; `Retry-After` says when to try again.",
    "431": "A header line is too long.",
    "500": "The server failed; its log has the reason, under the id in `X-Request-ID`.",
    "501": "The server does not have this feature.",
    "502": "The model behind the server failed.",
    "503": "The server is stopping, or cannot write its audit log.",
    "507": "There is no room for the session.",
}
_OPTIONAL_HEADERS = {
    "X-Session-ID": "The session to continue; a reply has it.",
    "X-Features": "JSON: the architecture, and what is redacted or withheld.",
    "X-Policy": "JSON: the policy.",
    "X-Config": "JSON: the configuration.",
    "Idempotency-Key": "A repeated request with the same key gets the same reply.",
    "X-Request-ID": "An id of the client's own, for the log; a reply has it.",
    "traceparent": "W3C Trace Context; the reply has `traceresponse`.",
    "tracestate": "W3C Trace Context.",
}


def document() -> Json:
    """The document, as plain data."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "langchain-sequrity",
            "version": __version__,
            "description": "The REST API of Sequrity Control, as the local server has it.",
        },
        "paths": dict(_paths()),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x_api_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
            "responses": {
                f"Error{status}": _error(status, description)
                for status, description in _ERRORS.items()
            },
            "headers": {
                "X-Request-ID": {"schema": {"type": "string"}, "description": "Id in the log."},
                "X-Session-ID": {"schema": {"type": "string"}, "description": "The session."},
            },
        },
    }


def _paths() -> Iterator[tuple[str, Json]]:
    yield "/", {"get": _get("The routes")}
    for path in ("/control", "/control/"):
        yield path, {"get": _get("The routes")}
    for path in ("/health", "/control/health"):
        yield path, {"get": _get("Whether the server is alive", host=False)}
    ready = _get("Whether the server is ready: models, workers, not stopping", host=False)
    ready["responses"]["503"] = _reply("Not ready, with the reasons", "NotReady")
    yield "/ready", {"get": ready}
    metrics = _get("Metrics, for this machine or with a key", "401", "501")
    metrics["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    yield "/metrics", {"get": {**metrics, "security": [*_KEY, {}]}}
    yield "/openapi.json", {"get": _get("This document")}
    validate = _operation("Check the three JSON headers", "HeadersToValidate", without=_TURN_ONLY)
    yield VALIDATE_HEADERS_PATH, {"post": validate}
    for route in CHAT_ROUTES:
        yield route.path, {"post": _chat(route)}
    for route in COUNT_TOKENS_ROUTES:
        counted = _operation("Count input tokens", _COUNTED, without={"409", "507"})
        yield (
            route.path,
            {"post": {**counted, "security": _ANTHROPIC_KEY, "parameters": _headers()}},
        )
    for route in POLICY_ROUTES:
        name, _ = _BODIES[route.suffix]
        written = _operation("Write a policy", name, without={"507"})
        yield route.path, {"post": {**written, "security": _KEY, "parameters": _headers()}}
    for route in MODELS_ROUTES:
        listed = _get("The models that answer", "401")
        yield route.path, {"get": {**listed, "security": _ANTHROPIC_KEY}}
        retrieve = _get("One model", "401", "404")
        parameter = {
            "name": "model", "in": "path", "required": True,
            "schema": {"type": "string", "minLength": 1},
        }  # fmt: skip
        yield (
            f"{route.path}/{{model}}",
            {"get": {**retrieve, "security": _ANTHROPIC_KEY, "parameters": [parameter]}},
        )


_TURN_ONLY = frozenset({"401", "404", "409", "502", "507"})


def _chat(route: Route) -> Json:
    name, _ = _BODIES[route.suffix]
    chat = _operation("A request to the models, single-LLM or dual-LLM", name, without=set())
    chat["responses"]["200"]["content"][_EVENTS] = {"schema": {"type": "string"}}
    chat["responses"]["200"]["headers"]["X-Session-ID"] = {
        "$ref": "#/components/headers/X-Session-ID"
    }
    security = _ANTHROPIC_KEY if route.suffix == "messages" else _KEY
    return {**chat, "security": security, "parameters": _headers()}


def _headers() -> list[Json]:
    return [
        {"name": name, "in": "header", "schema": {"type": "string"}, "description": description}
        for name, description in _OPTIONAL_HEADERS.items()
    ]


def _get(summary: str, *errors: str, host: bool = True) -> Json:
    always = ("400", "421", "431") if host else ("400", "431")
    replies = {"200": _reply("Success", "AnyObject")}
    return {"summary": summary, "responses": {**replies, **_errors(*always, *errors)}}


def _operation(summary: str, body: str, *, without: "set[str] | frozenset[str]") -> Json:
    schema = {"$ref": f"{_COMPONENTS}{body}"}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {_JSON: {"schema": schema}}},
        "responses": {
            "200": _reply("Success", "AnyObject"),
            **_errors(*(status for status in _ERRORS if status not in without)),
        },
    }


def _reply(description: str, schema: str) -> Json:
    return {
        "description": description,
        "headers": {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}},
        "content": {_JSON: {"schema": {"$ref": f"{_COMPONENTS}{schema}"}}},
    }


def _errors(*statuses: str) -> Json:
    return {status: {"$ref": f"#/components/responses/Error{status}"} for status in statuses}


def _error(status: str, description: str) -> Json:
    reply = _reply(description, "Error")
    if status in {"429", "503"}:
        seconds = {"schema": {"type": "number"}, "description": "Seconds to wait."}
        reply["headers"]["Retry-After"] = seconds
    return reply


def _schemas() -> Json:
    text: Json = {"type": "string"}
    schemas: Json = {
        "AnyObject": {"type": "object"},
        "Error": {
            "type": "object",
            "properties": {
                "message": text,
                "detail": {},
                "type": {"const": "error"},
                "error": {
                    "type": "object",
                    "properties": {
                        "message": text,
                        "type": text,
                        "code": {"type": ["string", "null"]},
                        "param": {"type": "null"},
                    },
                    "required": ["message", "type"],
                },
            },
            "required": ["message", "detail", "type", "error"],
        },
        "NotReady": {
            "type": "object",
            "properties": {"status": text, "not_ready": {"type": "array", "items": text}},
            "required": ["status", "not_ready"],
        },
        "HeadersToValidate": {
            "type": "object",
            "properties": {
                name: {"type": ["string", "null"]}
                for name in ("x_features", "x_policy", "x_config")
            },
            "additionalProperties": False,
        },
    }
    for name, body in _BODIES.values():
        schema = body.json_schema(f"{_COMPONENTS}{name}.{{model}}")
        definitions = schema.pop("$defs", {})
        schemas |= {f"{name}.{inner}": definitions[inner] for inner in definitions}
        schemas[name] = schema
    schemas["PolicyRequest"]["properties"]["tools"] = {"type": "array", "items": {"type": "object"}}
    schemas["PolicyRequest"]["properties"]["type"] = {
        "enum": [*get_args(policy_generation.Variant)]
    }
    whole = schemas["MessagesRequest"]
    required = [field for field in whole["required"] if field != "max_tokens"]
    schemas[_COUNTED] = {**whole, "required": required}
    return schemas


def main() -> None:
    """Print the document."""
    print(json.dumps(document(), indent=2))  # noqa: T201 - its purpose


if __name__ == "__main__":
    main()
