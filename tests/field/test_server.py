"""The field server has its documented habits. The other tests in this folder rely on that."""

import json
from typing import Any

import httpx
import pytest

from langchain_sequrity.local import LocalServer
from tests.field.server import FieldServer, Habits, named

PATH = "/control/chat/v1/chat/completions"
TOOL = {"type": "function", "function": {"name": "pay", "parameters": {
    "type": "object", "properties": {"euros": {"type": "integer"}, "to": {"type": "string"}}}}}  # fmt: skip


class Client:
    """A minimal client."""

    def __init__(self, field: FieldServer) -> None:
        self._field = field
        self.messages: list[dict[str, Any]] = [{"role": "user", "content": "pay"}]
        self.session: str | None = None

    def ask(self) -> httpx.Response:
        headers = {"Authorization": "Bearer sq", "X-Features": '{"agent_arch": "dual-llm"}'}
        if self.session:
            headers["X-Session-ID"] = self.session
        body = {"model": "any/model", "messages": self.messages, "tools": [TOOL]}
        with httpx.Client(trust_env=False) as client:
            reply = client.post(f"{self._field.base_url}{PATH}", json=body, headers=headers)
        if reply.status_code == 200:
            self.session = reply.headers["x-session-id"]
            self.messages.append(reply.json()["choices"][0]["message"])
        return reply

    def answer(self, text: str = "paid") -> httpx.Response:
        call_id = self.call["id"]
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": text})
        return self.ask()

    @property
    def call(self) -> dict[str, Any]:
        (call,) = self.messages[-1]["tool_calls"]
        found: dict[str, Any] = call
        return found

    def respell(self) -> None:
        """Write the arguments again, as a client does that parsed them."""
        function = self.call["function"]
        function["arguments"] = json.dumps(json.loads(function["arguments"]), separators=(",", ":"))


def test_reruns_runs_the_whole_conversation_for_each_request(
    behind: LocalServer,
) -> None:
    with FieldServer(behind.base_url, Habits(reruns=True)) as field:
        client = Client(field)
        client.ask()
        session = client.session
        client.answer()
        assert client.answer().json()["choices"][0]["finish_reason"] == "stop"
        assert client.session == session
        assert field.passed == 1 + 2 + 3


@pytest.mark.parametrize("dashless", [False, True])
def test_ids_name_the_session_of_the_client(behind: LocalServer, *, dashless: bool) -> None:
    with FieldServer(behind.base_url, Habits(reruns=True, dashless=dashless)) as field:
        client = Client(field)
        client.ask()
        client.answer()
        assert ("-" in client.call["id"]) is not dashless
        assert named(client.call["id"]) == str(client.session).replace("-", "")


def test_arguments_and_envelopes_are_written_as_json_dumps_writes(behind: LocalServer) -> None:
    with FieldServer(behind.base_url, Habits()) as field:
        client = Client(field)
        client.ask()
        assert client.call["function"]["arguments"] == '{"euros": 5, "to": "Zo\\u00eb"}'
        client.answer()
        client.answer()
        assert client.messages[-1]["content"].startswith('{"status": "success", ')


def test_compares_restarts_the_turn_if_the_history_has_another_spelling(
    behind: LocalServer,
) -> None:
    with FieldServer(behind.base_url, Habits(compares=True)) as field:
        client = Client(field)
        client.ask()
        first = client.call["function"]["arguments"]
        client.respell()
        client.answer()
        assert (field.mismatches, client.call["function"]["arguments"]) == (1, first)


def test_compares_with_reject_refuses_a_history_with_another_spelling(behind: LocalServer) -> None:
    with FieldServer(behind.base_url, Habits(compares=True, mismatch="reject")) as field:
        client = Client(field)
        client.ask()
        client.respell()
        assert client.answer().status_code == 409


def test_ends_ends_the_session_at_the_given_request(behind: LocalServer) -> None:
    with FieldServer(behind.base_url, Habits(ends={2: (410, "The session is gone.")})) as field:
        client = Client(field)
        client.ask()
        assert client.answer().status_code == 200
        assert client.answer().status_code == 410
        assert client.ask().status_code == 404


def test_a_tool_call_id_of_another_session_is_not_found(behind: LocalServer) -> None:
    with FieldServer(behind.base_url, Habits(dashless=True)) as field:
        one, other = Client(field), Client(field)
        one.ask()
        other.ask()
        one.session = other.session
        assert one.answer().status_code == 404
