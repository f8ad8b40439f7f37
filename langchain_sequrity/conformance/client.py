"""Requests of the probes: well-formed ones, and such as no client of this package would send.

They go through `Transport`, which bounds what comes back and keeps keys out of errors. An error
status is a reply like any other here, since what a service refuses is what most probes ask.

A probe as data: a question, what the package assumes, and which answers agree with it.
"""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from langchain_sequrity.connection import LOOPBACK_KEY, check_key
from langchain_sequrity.errors import BadReply, ConnectionFailed, ServiceError, UsageError
from langchain_sequrity.transport import HttpClient, RetryPolicy, Timeouts, Transport
from langchain_sequrity.wire.dual_llm import DualLLMResult, read_envelope
from langchain_sequrity.wire.exchange import Call, Event, Reply
from langchain_sequrity.wire.routes import (
    DEFAULT_BASE_URL,
    Format,
    chat_route,
    is_loopback,
    normalize_base_url,
)

DEFAULT_MODEL = "openai/gpt-5-mini"
WORDS = "Run the supplied program."
DUAL = {"agent_arch": "dual-llm"}
SINGLE = {"agent_arch": "single-llm"}
_FSM = {"disable_rllm": True, "min_num_tools_for_filtering": 100}
_OK, _REFUSED = 200, 400
# Replies that say nothing about the question: the key, its credit, or the service's own trouble.
_TROUBLE = frozenset({401, 402, 403, 408, 429, *range(500, 600)})


class NoAnswer(Exception):
    """The probe could not ask its question; the text says why."""


class Unreachable(NoAnswer):
    """There is no connection to the service."""


@dataclass(frozen=True)
class Target:
    """The service that is asked.

    Args:
        base_url: Its address.
        api_key: The Sequrity key. On a loopback address it may be left out.
        llm_api_key: The key at the LLM provider, or `None` for the service's own.
        second_key: Another Sequrity key, for the probe of foreign sessions; `None` leaves that
            probe without an answer.
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
        """Refuse what cannot be used, before anything is sent."""
        object.__setattr__(self, "base_url", normalize_base_url(self.base_url))
        for name in ("api_key", "llm_api_key", "second_key"):
            if (key := getattr(self, name)) is not None:
                check_key(name, key)
        if not self.is_local and self.api_key == LOOPBACK_KEY:
            msg = "The service asks for a key. Set the environment variable `SEQURITY_API_KEY`."
            raise UsageError(msg)
        is_open = urlsplit(self.base_url).scheme != "https"
        if is_open and not self.is_local and not self.allow_http:
            msg = f"Plain http to `{self.base_url}` would show keys to the network. Use https."
            raise UsageError(msg)
        chat_route("lang-graph", self.provider, "chat/completions")

    @property
    def is_local(self) -> bool:
        """Whether the service is on this machine, so that nothing is spent."""
        return is_loopback(urlsplit(self.base_url).hostname or "")

    @property
    def shown(self) -> str:
        """The address for a report: only the public one is named."""
        if self.base_url == DEFAULT_BASE_URL:
            return DEFAULT_BASE_URL
        return "a server on this machine" if self.is_local else "another address (not shown)"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The keys, which no report shows."""
        keys = (self.api_key, self.llm_api_key, self.second_key)
        return tuple(key for key in keys if key and key != LOOPBACK_KEY)


@dataclass(frozen=True)
class Seen:
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
        """Whether the status is that of an error."""
        return self.status >= _REFUSED

    @property
    def session(self) -> str:
        """The session that the reply names; `NoAnswer` if it names none."""
        found = self.headers.get("x-session-id")
        if not found:
            raise NoAnswer(self.unexpected("a session"))
        return found

    @property
    def choice(self) -> dict[str, Any]:
        """The one choice of a reply of chat/completions."""
        try:
            choice = self.body["choices"][0]
            message = choice["message"]
        except (TypeError, KeyError, IndexError):
            choice = message = None
        if not isinstance(choice, dict) or not isinstance(message, dict):
            raise NoAnswer(self.unexpected("a message"))
        return choice

    @property
    def message(self) -> dict[str, Any]:
        """The message of a reply of chat/completions."""
        found: dict[str, Any] = self.choice["message"]
        return found

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The tool calls of the message."""
        calls = self.message.get("tool_calls") or []
        if not all(
            isinstance(call, dict) and isinstance(call.get("function"), dict) for call in calls
        ):
            raise NoAnswer(self.unexpected("readable tool calls"))
        return list(calls)

    @property
    def call(self) -> dict[str, Any]:
        """The one tool call; `NoAnswer` if there is another number of them."""
        if len(self.calls) != 1:
            raise NoAnswer(self.unexpected("one tool call"))
        return self.calls[0]

    @property
    def envelope(self) -> DualLLMResult:
        """The verdict of a dual-LLM turn, read as the client reads it."""
        if (found := self._envelope()) is None:
            raise NoAnswer(self.unexpected("an envelope"))
        return found

    @property
    def outcome(self) -> str:
        """What the reply is, in a word or two: the answer of many probes."""
        if self.is_refused:
            return f"status {self.status}"
        try:
            return "asks for a tool" if self.calls else self.envelope.status
        except NoAnswer:
            return "something else"

    @property
    def value(self) -> Any:
        """The value of a turn that succeeded; `NoAnswer` if it did not."""
        if self.is_refused or self.outcome != "success":
            raise NoAnswer(self.unexpected("a turn that succeeds"))
        return self.envelope.value

    @property
    def said(self) -> str:
        """What an error or a failed turn says, for people; empty for other replies."""
        if self.is_refused:
            return self.body if isinstance(self.body, str) else json.dumps(self.body)
        found = self._envelope()
        return "" if found is None else found.error_message or ""

    def _envelope(self) -> DualLLMResult | None:
        try:
            content = self.body["choices"][0]["message"]["content"]
        except (TypeError, KeyError, IndexError):
            return None
        return read_envelope(content) if isinstance(content, str) else None

    def unexpected(self, wanted: str) -> str:
        """A sentence on a reply that is not what a probe needs to go on."""
        if self.is_refused:
            return f"Expected {wanted}, got status {self.status}: {self.said}"
        return f"Expected {wanted}; the reply of status {self.status} has none. {self.said}".strip()


class _Reader:
    """Keeps what comes, streamed or whole."""

    def __init__(self) -> None:
        self._head = Reply(_OK, {})
        self._events: list[str] = []
        self.done = False

    def start(self, head: Reply) -> None:
        self._head = head

    def feed(self, event: Event) -> Iterable[Seen]:
        self._events.append(event.data)
        return ()

    def end(self) -> Iterable[Seen]:
        head = self._head
        return (Seen(head.status, dict(head.headers), events=tuple(self._events)),)

    def whole(self, reply: Reply) -> Iterable[Seen]:
        try:
            body = json.loads(reply.body)
        except (ValueError, RecursionError):
            body = reply.body.decode(errors="replace")
        return (Seen(reply.status, dict(reply.headers), body),)


class Client:
    """Asks one service, and counts what it asks.

    Args:
        target: The service.
        http_client: As of `Transport`.

    Attributes:
        target: The service.
        requests: How many requests were sent.
        sessions: Session ids that were seen, for the report to leave out.
    """

    def __init__(self, target: Target, *, http_client: HttpClient | None = None) -> None:
        self.target = target
        self.requests = 0
        self.sessions: set[str] = set()
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
        if suffix == "messages":
            provider = "anthropic" if provider is None else provider
        elif suffix == "responses" and provider == "openrouter":
            provider = None
        try:
            return chat_route(endpoint_type, provider, suffix).path
        except UsageError as error:
            raise NoAnswer(str(error)) from None

    def ask(
        self,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str | None] | None = None,
        key: str | None = "",
        method: str = "POST",
        any_status: bool = False,
    ) -> Seen:
        """Send one request.

        Args:
            path: Path below the base URL.
            body: JSON, or bytes that are sent as they are.
            headers: Further headers; `None` takes one away.
            key: The Sequrity key; the target's by default, `None` for no `Authorization`.
            method: The HTTP method.
            any_status: Whether every status is an answer. Otherwise those that only tell of the
                key or of the service's own trouble are `NoAnswer`.

        Returns:
            The reply.

        Raises:
            NoAnswer: If there is no reply that can be read.
        """
        data = (
            b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        )
        sent = self._headers(headers or {}, self.target.api_key if key == "" else key)
        call = Call(path, sent, data, resend=False, method=method)
        self.requests += 1
        seen = self._seen(call)
        if session := seen.headers.get("x-session-id"):
            self.sessions.add(session)
        if seen.status in _TROUBLE and not any_status:
            raise NoAnswer(seen.unexpected("an answer"))
        return seen

    def _seen(self, call: Call) -> Seen:
        try:
            (seen,) = self._transport.stream(call, _Reader)
        except ConnectionFailed as error:
            raise Unreachable(str(error)) from None
        except ServiceError as error:
            if error.status is None or (isinstance(error, BadReply) and error.status < _REFUSED):
                raise NoAnswer(str(error)) from None
            return Seen(error.status, error.headers, error.body)
        return seen

    def _headers(
        self, given: Mapping[str, str | None], key: str | None
    ) -> tuple[tuple[bytes, bytes], ...]:
        headers: dict[str, str | None] = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Authorization": None if key is None else f"Bearer {key}",
            "X-Api-Key": None if key is None else self.target.llm_api_key,
        }
        headers.update(given)
        return tuple(
            (name.encode(), value.encode()) for name, value in headers.items() if value is not None
        )

    def chat(
        self,
        words: str,
        *,
        features: Mapping[str, Any] | None = None,
        policy: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        **body: Any,
    ) -> Seen:
        """Ask a model something: a chat of one message.

        Args:
            words: What the user says.
            features: X-Features.
            policy: X-Policy.
            config: X-Config.
            **body: Further fields of the body.

        Returns:
            The reply.
        """
        asked = [{"role": "user", "content": words}]
        full = {"model": self.target.model, "messages": asked, **body}
        return self.ask(self.path("chat"), full, headers=json_headers_of(features, policy, config))


def json_headers_of(
    features: Mapping[str, Any] | None = None,
    policy: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> dict[str, str | None]:
    """The three JSON headers, those that are given."""
    given = {"X-Features": features, "X-Policy": policy, "X-Config": config}
    return {name: None if value is None else json.dumps(value) for name, value in given.items()}


def sqrt(code: str, **more: Any) -> dict[str, Any]:
    """X-Policy of a text in SQRT."""
    return {"codes": {"language": "sqrt", "code": code}, **more}


def tool(name: str, **kinds: str) -> dict[str, Any]:
    """A function tool; all its arguments are required."""
    properties = {argument: {"type": kind} for argument, kind in kinds.items()}
    schema = {"type": "object", "properties": properties, "required": list(kinds)}
    function = {"name": name, "description": f"Part of a test: {name}.", "parameters": schema}
    return {"type": "function", "function": function}


READ = tool("probe_read", n="integer")
SEND = tool("probe_send", text="string")
TOOLS = (READ, SEND)


class Run:
    """One turn whose program the probe brings, so that no planner is paid.

    Args:
        client: Whom to ask.
        program: The program.
        tools: Its tools.
        fsm: Fields of `X-Config.fsm`.
        show: What the envelope is to include, such as `policy_check_history`.
        config: Further sections of X-Config.
        policy: X-Policy.
        variables: `context_vars`.
        path: Another path.
        body: Further fields of the body.

    Attributes:
        headers: The JSON headers of each request.
        body: What each request brings beside the messages.
        messages: The conversation.
        seen: The last reply.
    """

    def __init__(
        self,
        client: Client,
        program: str,
        tools: Sequence[Mapping[str, Any]] = TOOLS,
        *,
        fsm: Mapping[str, Any] | None = None,
        show: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
        policy: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        path: str | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        self._client = client
        self.path = path or client.path("lang-graph")
        shown = {f"include_{name}": True for name in show}
        whole: dict[str, Any] = {"fsm": {**_FSM, **(fsm or {})}, **(config or {})}
        if shown:
            whole["response_format"] = {**shown, **whole.get("response_format", {})}
        self.headers = json_headers_of(DUAL, policy, whole)
        self.body: dict[str, Any] = {
            "model": client.target.model,
            "tools": list(tools),
            "user_provided_program": program,
            **({} if variables is None else {"context_vars": variables}),
            **(body or {}),
        }
        self.messages: list[dict[str, Any]] = [{"role": "user", "content": WORDS}]
        self.seen = Seen(0, {})

    def ask(
        self, *, session: str | None = None, headers: Mapping[str, str | None] | None = None,
        messages: Sequence[Mapping[str, Any]] | None = None, **how: Any,
    ) -> Seen:  # fmt: skip
        """Send the conversation as it is now.

        Args:
            session: The session to name, or `None`.
            headers: Headers of this request alone.
            messages: What to send in the place of the conversation.
            **how: As of `Client.ask`.
        """
        sent = list(self.messages if messages is None else messages)
        self.seen = self._client.ask(
            how.pop("path", self.path),
            {**self.body, "messages": sent},
            headers={**self.headers, "X-Session-ID": session, **(headers or {})},
            **how,
        )
        return self.seen

    def begin(self, **how: Any) -> Seen:
        """Send the first request, and note what is said; `NoAnswer` if it is refused."""
        seen = self.ask(**how)
        if seen.is_refused:
            raise NoAnswer(seen.unexpected("a turn that begins"))
        if seen.events is None:
            self.messages.append(seen.message)
        return seen

    def result(self, content: str = "1") -> dict[str, Any]:
        """The message with the result of the call that the last reply asks for."""
        return {"role": "tool", "tool_call_id": self.seen.call["id"], "content": content}

    def answer(self, content: str = "1", **how: Any) -> Seen:
        """Send the result of the call that the last reply asks for, in its session."""
        session = self.seen.session
        self.messages.append(self.result(content))
        seen = self.ask(**{"session": session, **how})
        if not seen.is_refused:
            self.messages.append(seen.message)
        return seen


def unknown_session() -> str:
    """The id of a session that never was."""
    return str(uuid.uuid4())


Verdict = Literal["confirmed", "refuted", "no answer"]
Side = Literal["client", "local server", "both"]


@dataclass(frozen=True)
class Answer:
    """What a service answered.

    Attributes:
        found: The answer in a few words of the probe's own.
        detail: What was seen, for people.
    """

    found: str
    detail: str = ""


Ask = Callable[[Client], Answer | str]


@dataclass(frozen=True)
class Probe:
    """One question to a service.

    Attributes:
        id: Its name, for `--only` and reports.
        question: The question.
        choice: What the package assumes, as a sentence.
        relies: Where that is written: a page of `docs/` and a section of it.
        expected: Answers that agree with the choice.
        copes: Answers that do not, but with which the client works all the same.
        of: Whose choice it is.
        requests: How many requests it sends at most.
        models: How many calls of a model it costs at most.
        ask: Asks, and returns the answer; raises `NoAnswer` if the question could not be asked.
    """

    id: str
    question: str
    choice: str
    relies: tuple[str, ...]
    expected: frozenset[str]
    copes: frozenset[str]
    of: Side
    requests: int
    models: int
    ask: Ask = field(repr=False, compare=False)


@dataclass(frozen=True)
class Outcome:
    """What became of a probe.

    Attributes:
        probe: The probe.
        verdict: Whether the choice is confirmed, refuted, or neither.
        found: The answer, or why there is none.
        detail: What was seen.
        client_copes: Whether the client works with an answer that refutes the choice.
        requests: How many requests it took.
    """

    probe: Probe
    verdict: Verdict
    found: str
    detail: str = ""
    client_copes: bool = False
    requests: int = 0


PROBES: dict[str, Probe] = {}
"""All probes by their ids, in the order in which they are written."""


def probe(
    name: str,
    question: str,
    choice: str,
    *relies: str,
    expected: tuple[str, ...],
    copes: tuple[str, ...] = (),
    of: Side = "both",
    requests: int = 1,
    models: int = 0,
) -> Callable[[Ask], Ask]:
    """Put a probe into the table; for its arguments see `Probe`.

    Raises:
        ValueError: If there is one of that name.
    """

    def register(ask: Ask) -> Ask:
        if name in PROBES:
            msg = f"There are two probes named `{name}`."
            raise ValueError(msg)
        PROBES[name] = Probe(
            name, question, choice, relies, frozenset(expected), frozenset(copes),
            of, requests, models, ask,
        )  # fmt: skip
        return ask

    return register


def judged(probe: Probe, answer: Answer | str) -> Outcome:
    """Hold an answer against what the package assumes.

    Args:
        probe: The probe.
        answer: What it found.
    """
    one = Answer(answer) if isinstance(answer, str) else answer
    verdict: Verdict = "confirmed" if one.found in probe.expected else "refuted"
    copes = one.found in probe.copes or probe.of == "local server"
    return Outcome(
        probe, verdict, one.found, one.detail, client_copes=verdict == "refuted" and copes
    )
