"""Sessions of every kind, as real requests leave them one after the other."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from langchain_sequrity.local import ApiKey, LocalServer, MemorySessions
from langchain_sequrity.local.sessions import Session
from tests.local.api import CHAT, Api, Message, call_ids, result, said, session_of, tool

GRAPH = "/control/lang-graph/v1/chat/completions"
TOOLS = [tool("look_up"), tool("send")]
DUAL = {"X-Features": json.dumps({"agent_arch": "dual-llm"})}
POLICY = """
tool "look_up" -> @tags |= {"web"};
tool "send" { must deny when word.tags overlaps {"web"}; should allow always; }
"""
WITH_POLICY = {"X-Policy": json.dumps({"codes": {"code": POLICY, "language": "sqrt"}})}
TWO_CALLS = """
word = look_up(word="a")
other = look_up(word=word)
final_return_value = word + other
"""
STEPS = {"fsm": {"enable_multistep_planning": True}}


@dataclass(frozen=True)
class Kind:
    """How sessions of a kind come about.

    Attributes:
        script: The script of the server.
        rounds: The messages of the user. After each, calls get results until there are no more.
        fields: Fields of the requests.
        headers: Headers of the requests.
        path: Their path.
        key: Settings of the key.
    """

    script: tuple[Mapping[str, Any], ...] = ()
    rounds: tuple[str, ...] = ("Hi", "And now?")
    fields: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = CHAT
    key: Mapping[str, Any] = field(default_factory=dict)


def _planner(*programs: str) -> tuple[Mapping[str, Any], ...]:
    rules = [{"when": {"role": "planner"}, "program": program, "times": 1} for program in programs]
    return (*rules, {"when": {"role": "planner"}, "program": "final_return_value = 'the end'"})


def _calling(word: str) -> Mapping[str, Any]:
    call = {"name": "look_up", "arguments": {"word": word}}
    return {"when": {"role": "chat"}, "tool_calls": [call], "times": 1}


_DUAL_TOOLS: dict[str, Any] = {"fields": {"tools": TOOLS}, "headers": DUAL}

KINDS: dict[str, Kind] = {
    "chat": Kind(rounds=("Hi", "zoë \U0001f375 \0 \u2028", "x" * 3_000, "bye")),
    "chat with a system message": Kind(fields={"temperature": 0.5}, rounds=("Hi",) * 4),
    "chat with tools": Kind(
        script=(_calling("a"), _calling("zoë")), fields={"tools": TOOLS}
    ),
    "single-LLM with a policy": Kind(
        script=(_calling("a"), _calling("b")), fields={"tools": TOOLS},
        headers={"X-Features": json.dumps({"agent_arch": "single-llm"}), **WITH_POLICY},
    ),
    "dual-LLM": Kind(headers=DUAL, script=_planner("final_return_value = [1.5, None, 10**60]")),
    "dual-LLM with calls": Kind(script=_planner(TWO_CALLS, TWO_CALLS), **_DUAL_TOOLS),
    "dual-LLM with a policy": Kind(
        script=_planner(TWO_CALLS, 'final_return_value = send(word=look_up(word="b"))'),
        fields={"tools": TOOLS}, headers={**DUAL, **WITH_POLICY},
    ),
    "dual-LLM with a failed program": Kind(
        script=_planner("word = look_up(word='a')\nfinal_return_value = word['x']", TWO_CALLS),
        **_DUAL_TOOLS,
    ),
    "dual-LLM in steps": Kind(
        script=_planner("word = look_up(word='a')", TWO_CALLS), fields={"tools": TOOLS},
        headers={**DUAL, "X-Config": json.dumps(STEPS)},
    ),
    "dual-LLM with a form of its answer": Kind(
        script=_planner("final_return_value = {'number': 1}"), headers=DUAL,
        fields={"response_format": {"type": "json_schema", "json_schema": {"name": "form", "schema": {
            "type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"],
        }}}},
    ),
    "program of a caller": Kind(
        path=GRAPH, rounds=("Hi",),
        fields={
            "tools": TOOLS, "user_provided_program": TWO_CALLS.replace('"a"', "start"),
            "context_vars": {"start": {"value": "zoë"}},
        },
    ),
    "key with settings": Kind(
        script=_planner(TWO_CALLS), fields={"tools": TOOLS}, key={"policy": {"codes": {"code": POLICY, "language": "sqrt"}}, "features": {"agent_arch": "dual-llm"}},
    ),
}  # fmt: skip


def play(name: str) -> Iterator[Session]:
    """The session of a kind after each of its requests."""
    kind = KINDS[name]
    store = MemorySessions()
    keys = [ApiKey.from_secret("sq-test", "a", **kind.key)] if kind.key else None
    with (
        LocalServer(script=kind.script, store=store, api_keys=keys) as server,
        httpx.Client(timeout=60, trust_env=False) as client,
    ):
        api = Api(server, client, "sq-test")
        session: str | None = None
        for text in kind.rounds:
            messages: list[str | Message] = [text]
            while messages:
                reply = api.chat(
                    *messages, session=session, path=kind.path, headers=kind.headers, **kind.fields
                )
                session = session_of(reply)
                yield store[session]
                is_calling = bool(said(reply).get("tool_calls"))
                messages = [result(call) for call in call_ids(reply)] if is_calling else []
