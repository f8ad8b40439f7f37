"""The requests of probes, which may be malformed on purpose, and their replies.

Requests go through `Transport`, which limits the size of replies and keeps keys out of errors. An
error status is an ordinary reply here: many probes ask what a service refuses. Not an answer is
what says nothing about the API: a refused key, missing credit, a rate limit, an outage, the page of
a proxy, or a reply that was cut off.
"""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from langchain_sequrity.connection import LOOPBACK_KEY, Connection, check_key
from langchain_sequrity.errors import ConnectionFailed, ServiceError, UsageError
from langchain_sequrity.transport import HttpClient, RetryPolicy, Timeouts, Transport
from langchain_sequrity.wire.dual_llm import DualLLMResult, read_envelope
from langchain_sequrity.wire.exchange import Event, Reply, ServiceCall
from langchain_sequrity.wire.routes import (
    DEFAULT_BASE_URL,
    VALIDATE_HEADERS_PATH,
    Format,
    chat_route,
    is_loopback,
    normalize_base_url,
)

DEFAULT_MODEL = "openai/gpt-5-mini"
DUAL = {"agent_arch": "dual-llm"}
SINGLE = {"agent_arch": "single-llm"}
_FSM = {"disable_rllm": True, "min_num_tools_for_filtering": 100}
_OK, _REFUSED, _NOT_FOUND = 200, 400, 404
_NO_ACCESS = {
    401: "The service refuses the key",
    402: "The key has no credit",
    403: "The key has no permission",
}
_OUTAGE = frozenset({408, 425, 429, *range(500, 600)})
_PAGE = ("<!doctype html", "<html")


class Unanswered(Exception):
    """A probe got no usable answer; the text says why."""


class Unusable(Unanswered):
    """The service answers nothing at the moment, whatever is asked."""


class Unavailable(Unusable):
    """A rate limit or an outage.

    Attributes:
        wait: Seconds to wait, if the service says so.
    """

    def __init__(self, text: str, wait: float | None) -> None:
        super().__init__(text)
        self.wait = wait


@dataclass(frozen=True)
class Target:
    """The service under test.

    Args:
        base_url: Its address.
        api_key: The Sequrity key. On a loopback address it may be left out.
        llm_api_key: The key at the LLM provider, or `None` for the service's own.
        second_key: Another Sequrity key, for the probe that uses a session of the first key. With
            `None` that probe has no answer.
        model: The model for planner, data model and chats.
        provider: Provider segment of the paths, or `None` for the service's default.
        allow_http: Whether plain http may leave this machine.
        timeout: Seconds that one request may take.

    Raises:
        UsageError: For a bad address, key or route, or for plain http to another machine.

    Example:
        ```python
        from langchain_sequrity.conformance import Target

        assert Target("http://127.0.0.1:8787").is_local
        ```
    """

    base_url: str
    api_key: str = field(default=LOOPBACK_KEY, repr=False)
    llm_api_key: str | None = field(default=None, repr=False)
    second_key: str | None = field(default=None, repr=False)
    model: str = DEFAULT_MODEL
    provider: str | None = None
    allow_http: bool = False
    timeout: float = 120.0

    def __post_init__(self) -> None:
        """Check address, keys and route before anything is sent."""
        object.__setattr__(self, "base_url", normalize_base_url(self.base_url))
        if not self.is_local and self.api_key == LOOPBACK_KEY:
            msg = "The service asks for a key. Set the environment variable `SEQURITY_API_KEY`."
            raise UsageError(msg)
        if self.second_key is not None:
            check_key("second_key", self.second_key)
        Connection(
            self.base_url,
            self.api_key,
            self.llm_api_key,
            "lang-graph",
            self.provider,
            allow_http=self.allow_http,
        )

    @property
    def is_local(self) -> bool:
        """Whether the service is on this machine, where requests cost nothing."""
        return is_loopback(urlsplit(self.base_url).hostname or "")

    @property
    def shown(self) -> str:
        """The address for a report, which names only the public one."""
        if self.base_url == DEFAULT_BASE_URL:
            return DEFAULT_BASE_URL
        return "a server on this machine" if self.is_local else "another address (not shown)"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The keys, which reports must not show."""
        keys = (self.api_key, self.llm_api_key, self.second_key)
        return tuple(key for key in keys if key and key != LOOPBACK_KEY)


@dataclass(frozen=True)
class ProbeReply:
    """A reply, whatever its status.

    Attributes:
        status: The HTTP status.
        headers: Its headers, with names in lower case.
        body: The JSON, or the text where it is not JSON; `None` for a stream.
        events: The data of each event of a stream; `None` where the reply did not stream.
    """

    status: int
    headers: Mapping[str, str]
    body: Any = None
    events: tuple[str, ...] | None = None

    @property
    def is_refused(self) -> bool:
        """Whether the status is an error."""
        return self.status >= _REFUSED

    @property
    def is_page(self) -> bool:
        """Whether it is an HTML page, as proxies send them."""
        if self.headers.get("content-type", "").startswith("text/html"):
            return True
        return isinstance(self.body, str) and self.body.lstrip().lower().startswith(_PAGE)

    @property
    def session(self) -> str:
        """The session that the reply names; `Unanswered` without one."""
        session_id = self.headers.get("x-session-id")
        if not session_id:
            raise Unanswered(self.unexpected("a session"))
        return session_id

    @property
    def choice(self) -> dict[str, Any]:
        """The one choice of a reply of chat/completions."""
        try:
            choice = self.body["choices"][0]
            message = choice["message"]
        except (TypeError, KeyError, IndexError):
            choice = message = None
        if not isinstance(choice, dict) or not isinstance(message, dict):
            raise Unanswered(self.unexpected("a message"))
        return choice

    @property
    def message(self) -> dict[str, Any]:
        """The message of a reply of chat/completions."""
        message: dict[str, Any] = self.choice["message"]
        return message

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The tool calls of the message."""
        calls = self.message.get("tool_calls") or []
        if not all(
            isinstance(call, dict) and isinstance(call.get("function"), dict) for call in calls
        ):
            raise Unanswered(self.unexpected("readable tool calls"))
        return list(calls)

    @property
    def call(self) -> dict[str, Any]:
        """The tool call of the message; `Unanswered` unless there is exactly one."""
        if len(self.calls) != 1:
            raise Unanswered(self.unexpected("one tool call"))
        return self.calls[0]

    @property
    def envelope(self) -> DualLLMResult:
        """The result of a dual-LLM turn, as the client reads it."""
        if (envelope := self._envelope()) is None:
            raise Unanswered(self.unexpected("an envelope"))
        return envelope

    @property
    def outcome(self) -> str:
        """The kind of reply in a few words: the answer of many probes."""
        if self.is_refused:
            return f"status {self.status}"
        try:
            return "asks for a tool" if self.calls else self.envelope.status
        except Unanswered:
            return "something else"

    @property
    def value(self) -> Any:
        """The value of a successful turn; `Unanswered` after a failed one."""
        if self.is_refused or self.outcome != "success":
            raise Unanswered(self.unexpected("a turn that succeeds"))
        return self.envelope.value

    @property
    def error_text(self) -> str:
        """The message of an error or a failed turn; empty for other replies."""
        if self.is_refused:
            return self.body if isinstance(self.body, str) else json.dumps(self.body)
        envelope = self._envelope()
        return "" if envelope is None else envelope.error_message or ""

    def _envelope(self) -> DualLLMResult | None:
        try:
            content = self.body["choices"][0]["message"]["content"]
        except (TypeError, KeyError, IndexError):
            return None
        return read_envelope(content) if isinstance(content, str) else None

    def unexpected(self, expected: str) -> str:
        """Describe a reply with which a probe cannot continue."""
        if self.is_refused:
            return f"Expected {expected}, got status {self.status}: {self.error_text}"
        text = f"Expected {expected}; the reply of status {self.status} has none. {self.error_text}"
        return text.strip()


class _ProbeReplyReader:
    """Stores a reply, streamed or whole."""

    def __init__(self) -> None:
        self._head = Reply(_OK, {})
        self._events: list[str] = []
        self.done = False

    def start(self, head: Reply) -> None:
        self._head = head

    def feed(self, event: Event) -> Iterable[ProbeReply]:
        self._events.append(event.data)
        return ()

    def end(self) -> Iterable[ProbeReply]:
        head = self._head
        return (ProbeReply(head.status, dict(head.headers), events=tuple(self._events)),)

    def whole(self, reply: Reply) -> Iterable[ProbeReply]:
        try:
            body = json.loads(reply.body)
        except (ValueError, RecursionError):
            body = reply.body.decode(errors="replace")
        return (ProbeReply(reply.status, dict(reply.headers), body),)


class Client:
    """Sends requests to one service, and counts them.

    Args:
        target: The service.
        http_client: As for `Transport`.

    Attributes:
        target: The service.
        requests: How many requests were sent.
        sessions: Session ids in replies; reports mask them.
        missing: Paths that the service does not have, so that nothing is asked there.
    """

    def __init__(self, target: Target, *, http_client: HttpClient | None = None) -> None:
        self.target = target
        self.requests = 0
        self.sessions: set[str] = set()
        self.missing: set[str] = set()
        self._transport = Transport(
            target.base_url,
            timeouts=Timeouts.of(target.timeout),
            retry=RetryPolicy(max_retries=0),
            secrets=target.secrets,
            http_client=http_client,
        )

    def path(self, endpoint_type: str, suffix: Format = "chat/completions") -> str:
        """The path of an endpoint at the target's provider."""
        provider = self.target.provider
        if suffix == "messages" and provider is None:
            provider = "anthropic"
        try:
            return chat_route(endpoint_type, provider, suffix).path
        except UsageError as error:
            raise Unanswered(str(error)) from None

    def ask(
        self,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str | None] | None = None,
        key: str | None = "",
        method: str = "POST",
        any_page: bool = False,
    ) -> ProbeReply:
        """Send one request.

        Args:
            path: Path below the base URL.
            body: JSON, or bytes that are sent as they are.
            headers: More headers; `None` removes one.
            key: The Sequrity key; the target's by default, `None` for no `Authorization`.
            method: The HTTP method.
            any_page: Whether a reply that is not JSON is an answer, also the page of a proxy.

        Returns:
            The reply, of any status that says something about the API.

        Raises:
            Unanswered: If there is no such reply.
        """
        if path in self.missing:
            msg = f"The service has no endpoint `{path}` (status {_NOT_FOUND})."
            raise Unanswered(msg)
        if not isinstance(body, bytes):
            body = b"" if body is None else json.dumps(body).encode()
        header_lines = self._headers(headers or {}, self.target.api_key if key == "" else key)
        call = ServiceCall(path, header_lines, body, resend=False, method=method)
        self.requests += 1
        reply = self._send(call)
        if session := reply.headers.get("x-session-id"):
            self.sessions.add(session)
        if key == "" and (problem := _NO_ACCESS.get(reply.status)):
            msg = f"{problem} (status {reply.status}: {reply.error_text})."
            raise Unusable(msg)
        if not any_page and (
            reply.is_page or (isinstance(reply.body, str) and not reply.is_refused)
        ):
            form = "an HTML page" if reply.is_page else "text that is not JSON"
            msg = f"The answer is {form} with status {reply.status}, so it is not the API's."
            raise Unanswered(msg)
        return reply

    def _send(self, call: ServiceCall) -> ProbeReply:
        try:
            (reply,) = self._transport.stream(call, _ProbeReplyReader)
        except ConnectionFailed as error:
            raise Unusable(str(error)) from None
        except ServiceError as error:
            if error.status is None or error.status < _REFUSED:  # broken, or cut off
                raise Unanswered(str(error)) from None
            reply = ProbeReply(error.status, error.headers, error.body)
            if error.status in _OUTAGE:
                raise Unavailable(reply.unexpected("an answer"), error.retry_after) from None
        return reply

    def first_look(self) -> str:
        """Why the service answers nothing, in one or two sentences; empty if it answers.

        Raises:
            Unavailable: For a rate limit or an outage.
        """
        turn = ProgramTurn(self, "final_return_value = 1")
        try:
            reply = turn.ask()
            paths = (VALIDATE_HEADERS_PATH, self.path("chat"))
            if reply.status != _NOT_FOUND:
                return ""
            # A body without fields costs nothing.
            if all(self.ask(path, {}, any_page=True).status == _NOT_FOUND for path in paths):
                return f"The service knows none of its addresses (status {_NOT_FOUND})."
        except Unavailable:
            raise
        except Unanswered as error:
            return str(error)
        self.missing.add(turn.path)
        return ""

    def _headers(
        self, overrides: Mapping[str, str | None], key: str | None
    ) -> tuple[tuple[bytes, bytes], ...]:
        headers: dict[str, str | None] = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Authorization": None if key is None else f"Bearer {key}",
            "X-Api-Key": None if key is None else self.target.llm_api_key,
        }
        headers.update(overrides)
        return tuple(
            (name.encode(), value.encode()) for name, value in headers.items() if value is not None
        )

    def chat(
        self,
        text: str,
        *,
        features: Mapping[str, Any] | None = None,
        policy: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        **body: Any,
    ) -> ProbeReply:
        """Send a chat of one message to a model.

        Args:
            text: The user message.
            features: X-Features.
            policy: X-Policy.
            config: X-Config.
            **body: More fields of the body.

        Returns:
            The reply.
        """
        full = {"model": self.target.model, "messages": [user_message(text)], **body}
        return self.ask(self.path("chat"), full, headers=json_headers_of(features, policy, config))


def json_headers_of(
    features: Mapping[str, Any] | None = None,
    policy: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> dict[str, str | None]:
    """The three JSON headers; those that are `None` are not sent."""
    values = {"X-Features": features, "X-Policy": policy, "X-Config": config}
    return {name: None if value is None else json.dumps(value) for name, value in values.items()}


def sqrt(code: str, **fields: Any) -> dict[str, Any]:
    """X-Policy with a policy in SQRT."""
    return {"codes": {"language": "sqrt", "code": code}, **fields}


def user_message(text: str) -> dict[str, Any]:
    """A message of the user."""
    return {"role": "user", "content": text}


def tool(name: str, **types: str) -> dict[str, Any]:
    """A function tool whose arguments are all required."""
    properties = {argument: {"type": type_} for argument, type_ in types.items()}
    schema = {"type": "object", "properties": properties, "required": list(types)}
    function = {"name": name, "description": f"Part of a test: {name}.", "parameters": schema}
    return {"type": "function", "function": function}


READ = tool("probe_read", n="integer")
SEND = tool("probe_send", text="string")
TOOLS = (READ, SEND)


class ProgramTurn:
    """One turn with a program of the probe's own, so that no planner model is needed.

    Args:
        client: Sends the requests.
        program: The program.
        tools: Its tools.
        fsm: Fields of `X-Config.fsm`.
        show: What the envelope includes, such as `policy_check_history`.
        policy: X-Policy.
        variables: `context_vars`.
        path: Another path.
        body: More fields of the body.

    Attributes:
        headers: The JSON headers of each request.
        body: The body of each request without the messages.
        messages: The conversation.
        reply: The last reply.
    """

    def __init__(
        self,
        client: Client,
        program: str,
        tools: Sequence[Mapping[str, Any]] = TOOLS,
        *,
        fsm: Mapping[str, Any] | None = None,
        show: Sequence[str] = (),
        policy: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        path: str | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        self._client = client
        self.path = path or client.path("lang-graph")
        config: dict[str, Any] = {"fsm": {**_FSM, **(fsm or {})}}
        if show:
            config["response_format"] = {f"include_{name}": True for name in show}
        self.headers = json_headers_of(DUAL, policy, config)
        self.body: dict[str, Any] = {
            "model": client.target.model,
            "tools": list(tools),
            "user_provided_program": program,
            **({} if variables is None else {"context_vars": variables}),
            **(body or {}),
        }
        self.messages = [user_message("Run the supplied program.")]
        self.reply = ProbeReply(0, {})

    def ask(
        self,
        *,
        session: str | None = None,
        headers: Mapping[str, str | None] | None = None,
        messages: Sequence[Mapping[str, Any]] | None = None,
        key: str | None = "",
        any_page: bool = False,
    ) -> ProbeReply:
        """Send the conversation.

        Args:
            session: The session to name, or `None`.
            headers: More headers of this request.
            messages: Messages to send instead of the conversation.
            key: As for `Client.ask`.
            any_page: As for `Client.ask`.
        """
        self.reply = self._client.ask(
            self.path,
            {**self.body, "messages": self.messages if messages is None else messages},
            headers={**self.headers, "X-Session-ID": session, **(headers or {})},
            key=key,
            any_page=any_page,
        )
        return self.reply

    def begin(self) -> Self:
        """Send the first request, and add its reply to the conversation.

        Returns:
            This turn.

        Raises:
            Unanswered: If the service refuses the request.
        """
        reply = self.ask()
        if reply.is_refused:
            raise Unanswered(reply.unexpected("a turn that begins"))
        if reply.events is None:
            self.messages.append(reply.message)
        return self

    def ask_again(self, *messages: dict[str, Any], **options: Any) -> ProbeReply:
        """Add messages, and send the conversation in the session of the last reply."""
        session = self.reply.session
        self.messages += messages
        return self.ask(**{"session": session, **options})

    def result(self, content: str = "1") -> dict[str, Any]:
        """The message with the result of the call that the last reply asks for."""
        return {"role": "tool", "tool_call_id": self.reply.call["id"], "content": content}


def unknown_session() -> str:
    """The id of a session that does not exist."""
    return str(uuid.uuid4())
