"""Dual-LLM sessions over plain HTTP, for requests and replies that a chat model hides."""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import httpx

from langchain_sequrity.local import Session
from langchain_sequrity.local.dual_llm.state import DualState
from tests.local.api import Api, Message, result, said, session_of, tool
from tests.local.dual_llm.conversation import Teller

TOOLS = [tool("look_up"), tool("send")]
Json = Mapping[str, Any]


def headers(*, policy: str | Json | None = None, config: Json | None = None) -> dict[str, str]:
    """The three headers; `policy` is the text of a policy, or the whole object."""
    if isinstance(policy, str):
        policy = {"codes": {"code": policy, "language": "sqrt"}}
    sent = {"X-Features": {"agent_arch": "dual-llm"}, "X-Policy": policy, "X-Config": config}
    return {name: json.dumps(header) for name, header in sent.items() if header is not None}


def ended(reply: httpx.Response) -> dict[str, Any]:
    """The envelope at the end of a turn."""
    message = said(reply)
    assert not message.get("tool_calls"), message
    body: dict[str, Any] = json.loads(message["content"])
    return body


def value(reply: httpx.Response) -> Any:
    body = ended(reply)
    assert body["status"] == "success", body
    return body["final_return_value"]["value"]


def error(reply: httpx.Response) -> tuple[str, str]:
    body = ended(reply)
    assert (body["status"], body["final_return_value"]) == ("failure", None), body
    return body["error"]["code"], body["error"]["message"]


def calls(reply: httpx.Response) -> list[tuple[str, Any]]:
    """Names and arguments of the tools that a reply calls."""
    found = [call["function"] for call in said(reply).get("tool_calls") or []]
    return [(call["name"], json.loads(call["arguments"])) for call in found]


def words(text: str) -> Message:
    return {"role": "user", "content": text}


class Dialog:
    """One session. It sends only new messages, unless a test sends a history of its own.

    Args:
        api: The server.
        model: The model's name.
        planner: The scripted planner.
        policy: As in `headers`, and so is `config`.

    Attributes:
        history: All messages, as a client would keep them.
        session: Id of the session, after the first reply.
    """

    def __init__(
        self,
        api: Api,
        model: str,
        planner: Teller,
        *,
        policy: str | Json | None = None,
        config: Json | None = None,
    ) -> None:
        self.api = api
        self.planner = planner
        self.history: list[Message] = []
        self.session: str | None = None
        self._model = model
        self._headers = headers(policy=policy, config=config)

    @property
    def open_call(self) -> str:
        """Id of the call in the last reply."""
        call_id: str = self.history[-1]["tool_calls"][0]["id"]
        return call_id

    @property
    def stored(self) -> Session:
        """The session as the server has it."""
        sessions: Any = self.api.server.sessions
        found: Session = sessions[self.session]
        return found

    @property
    def state(self) -> DualState:
        found = self.stored.state
        assert isinstance(found, DualState)
        return found

    def remembered(self) -> tuple[Any, ...]:
        """A copy of what the session stores, for a later comparison."""
        found = self.stored
        return deepcopy((found.messages, found.state, found.turns, found.calls))

    def say(self, text: str = "Go") -> httpx.Response:
        """Send a message of the user."""
        return self.send(words(text))

    def answer(self, content: str = "1", *texts: str) -> httpx.Response:
        """Send the result of the open call, and messages of the user with it."""
        return self.send(result(self.open_call, content), *map(words, texts))

    def send(self, *messages: Message, **options: Any) -> httpx.Response:
        """Send messages; if that succeeds, add them and the reply to the history."""
        reply = self.post(*messages, **options)
        if reply.status_code == httpx.codes.OK:
            self.history += [*messages, said(reply)]
            self.session = session_of(reply)
        return reply

    def post(self, *messages: Message, **options: Any) -> httpx.Response:
        """Send messages; the history does not change."""
        return self.api.http.post(**self.arguments(*messages, **options))

    def arguments(self, *messages: Message, **options: Any) -> dict[str, Any]:
        defaults = {"session": self.session, "headers": self._headers, "model": self._model}
        return self.api.arguments(*messages, **{"tools": TOOLS, **defaults, **options})

    def until_end(self, content: str = "1") -> httpx.Response:
        """Answer each call with the same result until the turn ends."""
        reply = self.answer(content)
        while calls(reply):
            reply = self.answer(content)
        return reply


Begin = Callable[..., Dialog]
