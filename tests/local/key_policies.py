"""A key's policy and random clients: `python -m tests.local.key_policies [--count N] [--seed S]`.

Each case is a key with a random policy, and a client with a random policy, features and
configuration of its own. Two servers get the same requests: one has the key with its settings, and
the client sends its own headers; the other has no keys, and the client sends the key's settings as
headers. Every call that the first allows, the second allows too: nothing that a client sends makes
the server allow what the key's policy denies.

Headers that the server refuses are counted: a good share of the cases must be accepted.
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from langchain_sequrity.display.progress import tracked
from langchain_sequrity.headers import (
    ConfigHeader,
    FeaturesHeader,
    Header,
    PolicyHeader,
    from_wire,
    write_header,
)
from langchain_sequrity.labels import Labels
from langchain_sequrity.local import ApiKey, LocalServer
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.tool_results import write_labeled
from tests.local.api import Api, Message, tool
from tests.sqrt.agreement import ARGUMENTS, TOOLS
from tests.sqrt.combined import Scenario, with_block

SESSIONS = 3
LEAST_ACCEPTED, LEAST_DENIED = 0.3, 0.15
_MARK = "Calls: "
_SCHEMA = {"type": "object", "properties": {name: {} for name in ARGUMENTS}}
_TOOLS = [
    {"type": "function", "function": {**tool(name)["function"], "parameters": _SCHEMA}}
    for name in TOOLS
]
# Fields of X-Config that a client may set beside every key, and some that it may not.
_HARMLESS: tuple[dict[str, Any], ...] = (
    {"fsm": {"max_n_turns": 40}},
    {"fsm": {"max_pllm_steps": 3, "max_pllm_failed_steps": 1}},
    {"fsm": {"history_mismatch_policy": "restart_turn"}},
    {"fsm": {"disable_rllm": True, "clear_session_meta": "never"}},
    {"fsm": {"wrap_tool_result": False, "detect_tool_errors": "none"}},
    {"response_format": {"include_program": True, "include_policy_check_history": True}},
    {"prompt": {"pllm": {"debug_info_level": "minimal"}}},
    {"llm": {"pllm": {"temperature": 0.5}, "qllm": {"max_completion_tokens": 100}}},
)
_WEAKENING: tuple[dict[str, Any], ...] = (
    {"fsm": {"clear_session_meta": "every_turn"}},
    {"fsm": {"clear_session_meta": "every_attempt"}},
    {"fsm": {"enabled_internal_tools": ["set_policy"]}},
    {"fsm": {"force_to_cache": [".*"]}},
    {"fsm": {"wrap_tool_result": True}},
    {"fsm": {"retry_on_policy_violation": True}},
    {"prompt": {"pllm": {"query_include_tool_results": True}}},
)
# What a cleared session would forget.
_SESSION_RULES = """
tool r"^(scan|android)$" -> session @tags |= {"aa"};
tool r"^l.*$" { must deny when "aa" in @session.tags; }
"""
_BLOCKERS = ("url_blocker", "file_blocker")


@dataclass(frozen=True)
class PlannedCall:
    """A call of a session, and its result.

    Attributes:
        tool: The tool.
        arguments: The values of its arguments.
        results: Arguments that are results of earlier calls of the turn, by their index.
        value: The result.
        labels: The labels that come with it.
    """

    tool: str
    arguments: Mapping[str, Any]
    results: Mapping[str, int]
    value: Any
    labels: Labels


class Case:
    """A key, a client and their sessions.

    Attributes:
        arch: The architecture that the key states.
        policy: The key's policy.
        client: The headers of the client.
        sessions: Turns of calls.
    """

    def __init__(self, seed: object) -> None:
        self._random = random.Random(repr(seed))  # noqa: S311 - a test's own
        self._scenario = Scenario(seed)
        self.policy, client_policy = self._scenario.policies[:2]
        self.arch = self._random.choice(("single-llm", "dual-llm"))
        if self._random.random() < 0.3:
            self.policy = with_block(self.policy, _SESSION_RULES)
        self.client: dict[str, Header] = {}
        if self._random.random() < 0.9:
            self.client["X-Policy"] = self._client_policy(client_policy)
        if self._random.random() < 0.4:
            self.client["X-Features"] = self._features()
        if self._random.random() < 0.6:
            self.client["X-Config"] = self._config()
        self.sessions = [self._turns() for _ in range(SESSIONS)]

    def _client_policy(self, policy: PolicyHeader) -> PolicyHeader:
        settings: dict[str, Any] = self._random.choice(
            ({}, {}, {}, {"mode": "standard"}, {"mode": "strict"}, {"fail_fast": True})
        )
        return from_wire(PolicyHeader, {**policy.to_wire(), **settings})

    def _features(self) -> FeaturesHeader:
        features: dict[str, Any] = {}
        chance = self._random.random()
        if chance < 0.7:
            other = {"single-llm": "dual-llm", "dual-llm": "single-llm"}[self.arch]
            features["agent_arch"] = self.arch if chance < 0.6 else other
        names = self._random.sample(_BLOCKERS, self._random.randrange(3))
        features["content_blockers"] = [{"name": name} for name in names]
        return from_wire(FeaturesHeader, features)

    def _config(self) -> ConfigHeader:
        weakens = self._random.random() < 0.3
        return from_wire(ConfigHeader, self._random.choice(_WEAKENING if weakens else _HARMLESS))

    def _turns(self) -> list[list[PlannedCall]]:
        choices: list[tuple[int, ...]] = [(1, 1, 1), (2, 1), (1, 2), (3,)]
        sizes = self._random.choice(choices)
        if self.arch == "single-llm":
            sizes = (1,) * sum(sizes)
        return [[self._call(number) for number in range(size)] for size in sizes]

    def _call(self, number: int) -> PlannedCall:
        earlier = [str(index) for index in range(number)]
        name, arguments, uses = self._scenario.call(earlier)
        results = {argument: int(indices[0]) for argument, indices in uses.items()}
        return PlannedCall(
            name if name in TOOLS else "lend",
            {name: value for name, value in arguments.items() if name not in results},
            results,
            self._scenario.call(())[1].get("a", "x"),
            self._scenario.labels(),
        )


def request_text(calls: Sequence[PlannedCall]) -> str:
    """The user's text, which tells the scripted model what to do."""
    return _MARK + json.dumps([[c.tool, dict(c.arguments), dict(c.results)] for c in calls])


def answer(request: ChatRequest) -> dict[str, Any]:
    """The scripted chat model: the calls of the last user text one by one, and then a text."""
    last = max(n for n, message in enumerate(request.messages) if message.type == "human")
    calls = json.loads(str(request.messages[last].text).partition(_MARK)[2])
    results = sum(message.type == "tool" for message in request.messages[last:])
    if results >= len(calls):
        return {"text": "done"}
    name, arguments, _ = calls[results]
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


def program(request: ChatRequest) -> dict[str, Any]:
    """The scripted planner: a program with the calls of the last user text."""
    texts = [str(message.text) for message in request.messages if message.type == "human"]
    lines = []
    for number, (name, arguments, results) in enumerate(
        json.loads(texts[-1].partition(_MARK)[2].partition("\n")[0])
    ):
        values = [f"{argument}={value!r}" for argument, value in arguments.items()]
        values += [f"{argument}=r{index}" for argument, index in results.items()]
        lines.append(f"r{number} = {name}({', '.join(values)})")
    return {"program": "\n".join([*lines, "final_return_value = 'done'"])}


SCRIPT = [
    {"when": {"role": "planner"}, "answer": program},
    {"when": {"role": "chat"}, "answer": answer},
]


class Refused(Exception):
    """The server refused the headers; the text says why."""


def allowed_calls(
    api: Api, headers: Mapping[str, str], turns: Sequence[Sequence[PlannedCall]]
) -> list[Any]:
    """The calls of a session that the server allows, up to the first that it denies.

    Raises:
        Refused: If the headers are refused with 403.
    """
    allowed: list[Any] = []
    session = None
    messages: list[Message] = []
    for calls in turns:
        messages.append({"role": "user", "content": request_text(calls)})
        for call in [*calls, None]:
            reply = api.chat(
                *messages, session=session, headers={} if session else headers, tools=_TOOLS
            )
            if reply.status_code == 403:
                raise Refused(reply.json()["detail"])
            assert reply.status_code == 200, reply.text
            session = reply.headers["x-session-id"]
            message = reply.json()["choices"][0]["message"]
            if not message.get("tool_calls"):
                if call is not None:
                    return allowed
                messages.append(message)
                continue
            assert call is not None, message
            [made] = message["tool_calls"]
            function = made["function"]
            allowed.append([function["name"], json.loads(function["arguments"])])
            content = write_labeled(json.dumps(call.value), call.labels, "merge")
            messages += [
                message, {"role": "tool", "tool_call_id": made["id"], "content": content}
            ]  # fmt: skip
    return allowed


@dataclass
class Outcome:
    """Counts, and what went wrong."""

    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    sessions: int = 0
    calls: int = 0
    denied_by_key: int = 0
    denied_by_client: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def is_poor(self) -> bool:
        """Whether the sample says little: too few accepted cases, or too few denials of keys."""
        cases = self.accepted.total() + self.refused.total()
        few = self.accepted.total() < LEAST_ACCEPTED * cases
        return few or self.denied_by_key < LEAST_DENIED * self.sessions


class Servers:
    """A server with keys, and one without; to be used as a context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        http = self._stack.enter_context(httpx.Client(timeout=30, trust_env=False))
        options: dict[str, Any] = {"script": SCRIPT, "isolated_programs": False}
        keyed = self._stack.enter_context(LocalServer(**options, api_keys=["sq-first"]))
        alone = self._stack.enter_context(LocalServer(**options))
        self._keyed, self._alone = Api(keyed, http, "sq-client"), Api(alone, http, "sq-client")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def compare(self, case: Case, outcome: Outcome) -> None:
        """Compare the sessions of a case."""
        features = from_wire(FeaturesHeader, {"agent_arch": case.arch})
        key = ApiKey.from_secret("sq-client", "client", policy=case.policy, features=features)
        self._keyed.server.replace_keys([key])
        of_client = {name: write_header(header) for name, header in case.client.items()}
        of_key = {"X-Policy": write_header(case.policy), "X-Features": write_header(features)}
        for turns in case.sessions:
            try:
                allowed = allowed_calls(self._keyed, of_client, turns)
            except Refused as refusal:
                outcome.refused[_reason(str(refusal))] += 1
                return
            alone = allowed_calls(self._alone, of_key, turns)
            planned = sum(map(len, turns))
            outcome.sessions += 1
            outcome.calls += len(allowed)
            outcome.denied_by_key += len(alone) < planned
            outcome.denied_by_client += len(allowed) < len(alone)
            if allowed != alone[: len(allowed)]:
                texts = (
                    f"{case.arch}, the key's policy:\n{case.policy.codes}", f"client: {of_client}",
                    f"turns: {turns}", f"allowed: {allowed}", f"alone: {alone}",
                )  # fmt: skip
                outcome.failures.append("\n".join(texts))
        outcome.accepted[case.arch] += 1


def _reason(refusal: str) -> str:
    words = {
        "labels": "may allow what the policy",
        "settings": "contradict each other",
        "defaults": "relies on that default",
        "not one text": "cannot be",
    }
    if "is fixed by the settings" in refusal:
        return refusal.split("`")[1]
    return next((name for name, text in words.items() if text in refusal.partition(". ")[2]), "?")


def compare(seed: int, count: int) -> Outcome:
    """Compare random cases."""
    outcome = Outcome()
    with Servers() as servers:
        for number in tracked(range(count), "Comparing", unit="keys"):
            servers.compare(Case((seed, number)), outcome)
    return outcome


def main() -> int:
    """Compare, print the figures, and return 1 after a failure or for a poor sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="keys with a client each")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    outcome = compare(arguments.seed, arguments.count)
    accepted = ", ".join(f"{count} {arch}" for arch, count in outcome.accepted.items())
    refused = ", ".join(f"{count} for {why}" for why, count in outcome.refused.most_common())
    sys.stdout.write(
        f"accepted: {accepted}; refused: {refused}\n"
        f"{outcome.sessions} sessions, {outcome.calls} allowed calls; the key's policy ended "
        f"{outcome.denied_by_key} sessions, the client's {outcome.denied_by_client} more\n"
        f"allowed against the key's policy: {len(outcome.failures)}\n"
    )
    for text in outcome.failures[:3]:
        sys.stdout.write(f"{text}\n\n")
    return 1 if outcome.failures or outcome.is_poor else 0


if __name__ == "__main__":
    sys.exit(main())
