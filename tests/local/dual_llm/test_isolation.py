"""A hundred simultaneous conversations on one server: none sees data of another.

Each has its own canary in its tool results, its labels and its policy. All run the same programs,
and half of them have the same policy, so the server uses everything that it shares or caches by
program or policy.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_sequrity import dual_llm_result, labeled_tool_result
from langchain_sequrity.errors import PolicyDenied
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.memory_sessions import MemorySessions
from langchain_sequrity.local.program_runs import PendingRuns
from langchain_sequrity.wire.exchange import ChatRequest
from tests.chat_models.formats import ROWS, added
from tests.local.api import Api, call_ids, result, said, session_of, tool
from tests.local.conftest import Serve
from tests.local.dual_llm.conversation import DUAL, enough, reads

CROWD = 100
TOGETHER = 5  # the first requests, which all conversations send at the same time
TOOLS = [
    {"type": "function", "function": {**tool(name)["function"], "parameters": {
        "type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}}}
    for name in ("fetch", "look_up", "send")
]  # fmt: skip
PROGRAMS = {
    "Begin": f"""\
secret = fetch(key="first")
kept = [secret, look_up(key="shared")]
kept.append({reads('f"Repeat: {secret}"')})
final_return_value = kept
""",
    "Go on": """\
kept.append("and")
kept.append(fetch(key="second"))
kept.append(look_up(key="shared"))
final_return_value = kept
""",
    "Send": """\
answer = send(key=kept[0])
final_return_value = {"answer": answer, "kept": kept}
""",
    "Guard": """\
set_policy(policy='tool "send" { must deny always; }')
final_return_value = send(key=kept[0])
""",
}
LABELS = 'tool "fetch" -> session after @tags |= @result.tags;'
CONFIG = {
    "fsm": {
        "force_to_cache": ["look_up"],
        "enabled_internal_tools": ["parse_with_ai", "set_policy"],
    },
    "response_format": {
        "include_program": True,
        "include_policy_check_history": True,
        "include_namespace_snapshot": True,
    },
}
_CANARY = re.compile(r"canary\d{3}")


def canary(number: int) -> str:
    return f"canary{number % CROWD:03}"


def canaries(*things: Any) -> set[str]:
    return set(_CANARY.findall(repr(things)))


class Backends:
    """The planner knows the programs, the data model repeats; both record the canaries they see."""

    def __init__(self) -> None:
        self.told: list[set[str]] = []

    def plan(self, request: ChatRequest) -> str:
        self.told.append(canaries(request.messages))
        words = str(request.messages[-1].text)
        return next(program for word, program in PROGRAMS.items() if f"{word}." in words)

    def read(self, request: ChatRequest) -> dict[str, Any]:
        self.told.append(canaries(request.messages))
        return enough(str(request.messages[-1].text).removeprefix("Repeat: "))

    @property
    def script(self) -> list[dict[str, Any]]:
        return [
            {"when": {"role": "planner"}, "answer": self.plan},
            {"when": {"role": "quarantined"}, "answer": self.read},
        ]


class Conversation:
    """One of the hundred conversations.

    There are four kinds. `common`: the shared policy allows it to send its secret. `own`: its own
    policy forbids that, by the label of the secret. `added`: its program forbids that. `other`: its
    policy forbids the label of another conversation's secret, which must not affect it.
    """

    def __init__(self, number: int, server: LocalServer, together: asyncio.Barrier) -> None:
        self.name = canary(number)
        self.sessions: set[str] = set()
        self.history: list[BaseMessage] = []
        self._kind = ("common", "own", "added", "other")[number % 4]
        self._streams = number % 2 == 0
        self._together = together
        self._requests = 0
        named = {"own": self.name, "other": canary(number + 1)}.get(self._kind)
        rule = f'tool "send" {{ must deny when key.tags overlaps {{"{named}"}}; }}' if named else ""
        self._model = (
            ROWS[number % 3]
            .make(
                model="any/planner,any/worker",
                base_url=server.base_url,
                features=DUAL,
                policy=f"{LABELS}\n{rule}",
                session_config=CONFIG,
                max_retries=0,
            )
            .bind_tools(TOOLS)
        )

    async def run(self) -> None:
        kept = [f"{self.name} first", f"{self.name} found", f"{self.name} first"]
        assert await self._turn("Begin", ["fetch", "look_up"]) == kept
        kept += ["and", f"{self.name} second", f"{self.name} found"]
        assert await self._turn("Go on", ["fetch"]) == kept
        if self._kind in {"own", "added"}:
            await self._denied("Guard" if self._kind == "added" else "Send")
        else:
            sent = {"answer": f"{self.name} sent", "kept": kept}
            assert await self._turn("Send", ["send"]) == sent

    async def _turn(self, word: str, tools: list[str]) -> Any:
        """Send a command; its program makes these calls, one at a time; returns the value."""
        reply = await self._say(HumanMessage(f"I am {self.name}. {word}."))
        for name in tools:
            [call] = reply.tool_calls
            assert call["name"] == name
            reply = await self._say(self._result(call))
        assert not reply.tool_calls
        result = dual_llm_result(reply)
        assert result is not None
        assert result.labels is not None
        assert result.labels.tags == {self.name, "__non_executable"}
        assert result.session_meta is not None
        assert canaries(result.session_meta) == {self.name}
        return result.value

    def _result(self, call: Any) -> ToolMessage:
        ends = {"fetch": call["args"]["key"], "look_up": "found", "send": "sent"}
        text = f"{self.name} {ends[call['name']]}"
        content, artifact = labeled_tool_result(text, tags=[self.name])
        return ToolMessage(content, artifact=artifact, tool_call_id=call["id"])

    async def _say(self, message: BaseMessage) -> AIMessage:
        self._requests += 1
        if self._requests <= TOGETHER:
            await self._together.wait()
        self.history.append(message)
        reply: AIMessage
        if self._streams:
            reply = added([chunk async for chunk in self._model.astream(self.history)])  # type: ignore[misc]
        else:
            reply = await self._model.ainvoke(self.history)
        assert canaries(reply) <= {self.name}
        self.sessions.add(reply.response_metadata["sequrity"]["session_id"])
        self.history.append(reply)
        return reply

    async def _denied(self, word: str) -> None:
        with pytest.raises(PolicyDenied) as caught:
            await self._say(HumanMessage(f"I am {self.name}. {word}."))
        denial = caught.value
        assert denial.tool == "send"
        assert canaries(denial, denial.checks, denial.arguments, denial.result) == {self.name}


@pytest.fixture(params=[256, 3], ids=["live runs", "replayed runs"])
def server(request: pytest.FixtureRequest, backends: Backends) -> Iterator[LocalServer]:
    """A server whose paused programs all stay live, and one that evicts nearly all of them."""
    made = LocalServer(script=backends.script)
    made._services = replace(made._services, runs=PendingRuns(max_live=request.param))
    with made:
        yield made


@pytest.fixture
def backends() -> Backends:
    return Backends()


@pytest.mark.long
async def test_a_hundred_conversations_see_no_data_of_each_other(
    server: LocalServer, backends: Backends
) -> None:
    together = asyncio.Barrier(CROWD)
    crowd = [Conversation(number, server, together) for number in range(CROWD)]
    async with asyncio.TaskGroup() as group:
        for one in crowd:
            group.create_task(one.run())
    assert {len(one.sessions) for one in crowd} == {1}
    assert len(set().union(*(one.sessions for one in crowd))) == CROWD
    assert isinstance(server.sessions, MemorySessions)
    stored = {session.id: canaries(session.messages, session.state) for session in server.sessions}
    assert stored == {session: {one.name} for one in crowd for session in one.sessions}
    # Three programs and one reading per conversation; each request has only its own canary.
    assert len(backends.told) == 4 * CROWD
    assert {len(told) for told in backends.told} == {1}


def test_a_result_with_the_call_id_of_another_session_is_404_and_reaches_no_session(
    serve: Serve,
) -> None:
    program = 'final_return_value = look_up(word="it")\n'
    api = serve(script=[{"program": program}])
    asked: Any = {"headers": {"X-Features": json.dumps(DUAL)}, "tools": [tool("look_up")]}
    mine, theirs = (api.chat("Look it up.", **asked) for _ in range(2))
    [my_call], [their_call] = call_ids(mine), call_ids(theirs)
    stray = result(their_call, "canary999")
    stranger = Api(api.server, api.http, key="sq-stranger")
    for client, session in (
        (api, session_of(mine)),
        (stranger, None),
        (stranger, session_of(theirs)),
    ):
        assert client.chat(stray, session=session, **asked).status_code == 404
    for call_id, found in ((my_call, "mine"), (their_call, "theirs")):
        ended = json.loads(said(api.chat(result(call_id, found), **asked))["content"])
        assert ended["final_return_value"]["value"] == found
    assert isinstance(api.server.sessions, MemorySessions)
    assert not canaries([(one.messages, one.state) for one in api.server.sessions])
