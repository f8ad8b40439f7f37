"""The OpenAPI document matches the routes and what the server accepts."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from langchain_sequrity.local.openapi import document
from langchain_sequrity.wire.routes import (
    CHAT_ROUTES,
    COUNT_TOKENS_ROUTES,
    MODELS_ROUTES,
    POLICY_ROUTES,
    VALIDATE_HEADERS_PATH,
)
from tests.local.api import CHAT, Api, tool

ROUTES = (*CHAT_ROUTES, *COUNT_TOKENS_ROUTES, *MODELS_ROUTES, *POLICY_ROUTES)
DOCUMENT = document()
OPERATIONS = [(path, method) for path, item in DOCUMENT["paths"].items() for method in item]


def test_it_is_valid() -> None:
    validate(DOCUMENT)


def test_the_server_and_the_module_show_it(api: Api) -> None:
    command = [sys.executable, "-m", "langchain_sequrity.local.openapi"]
    printed = subprocess.run(command, capture_output=True, check=True)  # noqa: S603 - our own module
    assert api.request("GET", "/openapi.json").json() == json.loads(printed.stdout) == DOCUMENT


def test_each_route_is_documented() -> None:
    operated = {"/", "/control", "/control/", "/health", "/control/health", "/ready", "/metrics"}
    models = {f"{route.path}/{{model}}" for route in MODELS_ROUTES}
    paths = {route.path for route in ROUTES} | {VALIDATE_HEADERS_PATH, "/openapi.json"}
    assert DOCUMENT["paths"].keys() == operated | models | paths


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_each_documented_path_answers_with_a_documented_status(
    api: Api, path: str, method: str
) -> None:
    operation = DOCUMENT["paths"][path][method]
    url = path.replace("{model}", "deterministic")
    reply = api.request(
        method.upper(),
        url,
        headers=api.authorization(),
        **({"json": {}} if method == "post" else {}),
    )
    assert str(reply.status_code) in operation["responses"]
    assert reply.status_code not in {404, 405, 500}
    other = "GET" if method == "post" else "POST"
    assert api.request(other, url, headers=api.authorization()).status_code == 405


def accepts(name: str, body: Any) -> bool:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return bool(OAS31Validator(schema).is_valid(body))


HELLO = {"role": "user", "content": "Hi"}
CHATS: list[dict[str, Any]] = [
    {"model": "a/b", "messages": [HELLO]},
    {"model": "a/b", "messages": [HELLO], "tools": [tool()], "tool_choice": "auto", "n": 2},
    {"model": "a/b", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
    {"model": "a/b", "messages": [HELLO], "stop": ["x"], "temperature": 1.5, "seed": 1},
    {"messages": [HELLO]},
    {"model": 1, "messages": [HELLO]},
    {"model": "a/b"},
    {"model": "a/b", "messages": [{"role": "robot", "content": "Hi"}]},
    {"model": "a/b", "messages": [{"role": "user", "content": [{"type": "smell"}]}]},
    {"model": "a/b", "messages": [HELLO], "temperature": 3},
    {"model": "a/b", "messages": [HELLO], "n": 0},
    {"model": "a/b", "messages": "Hi"},
]


@pytest.mark.parametrize("body", CHATS, ids=json.dumps)
def test_its_form_of_a_chat_is_what_the_server_accepts(api: Api, body: dict[str, Any]) -> None:
    status = api.post(CHAT, json=body).status_code
    assert accepts("ChatCompletionsRequest", body) is (status == 200), status


def test_no_name_or_text_of_it_is_pythons() -> None:
    text = json.dumps(DOCUMENT)
    assert "langchain_sequrity__" not in text
    assert re.search(r'"title": "Object"', text) is None
