"""`LocalServer`: the ASGI app in its own thread, behind a strict reader of HTTP/1.1.

If a request has two framing headers, a proxy may use one of them and this server the other. Both
would then see different ends of the request: request smuggling (RFC 9112, section 11.2). h11
refuses most such requests, but it accepts `Transfer-Encoding` beside `Content-Length`, and bare
line feeds as line ends. So the server checks a head before h11 reads it. A refused request gets 400
(431 if its head is too long), and the connection is closed, because nobody knows where the next
request would begin.
"""

import asyncio
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

import h11
import orjson
import uvicorn
from langchain_core.language_models import BaseChatModel
from uvicorn.protocols.http.h11_impl import H11Protocol

from langchain_sequrity.errors import UsageError
from langchain_sequrity.local.answers import count_request
from langchain_sequrity.local.app import make_app
from langchain_sequrity.local.audit import AuditLog
from langchain_sequrity.local.auth import LOOPBACK_NAMES
from langchain_sequrity.local.backends import Backend, ModelBackend, Role, RoleBackend
from langchain_sequrity.local.deterministic_model import DeterministicModel
from langchain_sequrity.local.dual_llm.prompts import PLANNER_PROMPT, check_planner_prompt
from langchain_sequrity.local.limits import (
    DEFAULTS,
    MemoryBudget,
    ServerLimits,
    give_back_large_blocks,
)
from langchain_sequrity.local.observed_calls import ObservedBackend
from langchain_sequrity.local.observers import RequestRecord
from langchain_sequrity.local.operations import MetricsAccess, operate
from langchain_sequrity.local.program_runs import PendingRuns, ProgramRunner
from langchain_sequrity.local.refusals import how_to_raise
from langchain_sequrity.local.script import Script, ScriptBackend
from langchain_sequrity.local.services import Fidelity, Services
from langchain_sequrity.local.sessions import MemorySessions, SessionStore

_NOT_HTTP = "The request is not valid HTTP/1.1."
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CODING = re.compile(rb"chunked", re.IGNORECASE)
_REASONS = {400: b"Bad Request", 431: b"Request Header Fields Too Large"}
_V11 = b" HTTP/1.1"
_FOLDED = (b" ", b"\t")


class _StrictConnection(h11.Connection):
    """An HTTP connection that is read strictly.

    Args:
        limits: The limits of the server.

    Attributes:
        problem: The problem of the last refused request.
        is_too_long: Whether it is the length of its head.
    """

    def __init__(self, limits: ServerLimits) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self._limits = limits
        self.problem = ""
        self.is_too_long = False

    def next_event(self) -> Any:
        """The next event; raises `h11.RemoteProtocolError` for an ambiguous request."""
        if self.their_state is h11.IDLE:
            data, _ = self.trailing_data
            end = _HEAD_END.search(data)
            head = data[: end.end()] if end else data
            # h11 checks only incomplete heads, so its result would depend on the packets
            self.is_too_long = len(head) > self._limits.head_bytes
            self.problem = _problem(head, self._limits.header_lines) if end else ""
            if self.is_too_long:
                self.problem = (
                    f"The head of the request is longer than {self._limits.head_bytes} bytes. "
                    f"{how_to_raise('head_bytes')}"
                )
            if self.problem:
                raise h11.RemoteProtocolError(self.problem)
        return super().next_event()


def _problem(head: bytes, most_lines: int) -> str:
    """The first problem in a request's head, or an empty text."""
    request, *lines = head.strip(b"\r\n").split(b"\r\n")
    lengths, codings = (_values(lines, name) for name in (b"content-length", b"transfer-encoding"))
    problems = {
        "Not all of its lines end in CR LF.": _BARE_LINE_END.search(head),
        f"It has more than {most_lines} header lines. {how_to_raise('header_lines')}": (
            len(lines) > most_lines
        ),
        "A header continues in the next line.": any(line.startswith(_FOLDED) for line in lines),
        "It has both `Content-Length` and `Transfer-Encoding`.": lengths and codings,
        "Its `Content-Length` is not one number.": lengths and not _is_one(_LENGTH, lengths),
        "Its `Transfer-Encoding` is not `chunked`.": codings and not _is_one(_CODING, codings),
        "It has a `Transfer-Encoding` but is not HTTP/1.1.": codings and not request.endswith(_V11),
    }
    return next((problem for problem, applies in problems.items() if applies), "")


def _values(lines: Sequence[bytes], header: bytes) -> list[bytes]:
    pairs = (line.partition(b":") for line in lines)
    return [value.strip(b" \t") for name, _, value in pairs if name.strip().lower() == header]


def _is_one(form: re.Pattern[bytes], values: Sequence[bytes]) -> bool:
    return len(values) == 1 and form.fullmatch(values[0]) is not None


class StrictProtocol(H11Protocol):
    """uvicorn's protocol on a strict connection.

    Args:
        limits: The limits of the server; the other arguments are uvicorn's.
    """

    def __init__(self, limits: ServerLimits, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn: _StrictConnection = _StrictConnection(limits)

    def send_400_response(self, msg: str) -> None:
        """Answer in the JSON form of all errors, and close the connection."""
        del msg  # always the same text of uvicorn
        problem = self.conn.problem
        unclear = f"The request is ambiguous HTTP. {problem}" if problem else _NOT_HTTP
        status, detail = (431, problem) if self.conn.is_too_long else (400, unclear)
        body = orjson.dumps({"detail": detail, "message": detail})
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        head = h11.Response(status_code=status, headers=headers, reason=_REASONS[status])
        events = (head, h11.Data(data=body), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()


_HIGHEST_PORT = 65_535
_GRACE_SECONDS = 1.0  # for unfinished replies when the server stops
_LAST_WORDS_SECONDS = 0.5  # for the 503 of cancelled requests
_LOOK_SECONDS = 0.02
_STOP_SECONDS = 1.5
# A request is lost if it arrives while the server closes its idle connection. So clients must close
# idle connections first: our client after 55 s, others after 60 s at most.
_KEEP_ALIVE_SECONDS = 75


class LocalServer:
    """Sequrity's REST API on this machine: no key, no network, the same client code.

    Args:
        model: The backend: any LangChain chat model. By default, a deterministic model answers from
            the request alone.
        models: Backends of single roles, instead of `model`: `planner` writes programs, `reader`
            reads data for them, `policy` writes policies.
        script: Rules that answer first: a `Script`, a path to a YAML or JSON file, or a list of
            rules.
        api_keys: Allowed keys. By default every non-empty key is allowed, and the server listens on
            loopback addresses only.
        host: Address to listen on.
        port: Port, or 0 for a free one.
        fidelity: `"full"` honours every field of the OpenAI format. `"documented"` honours only
            fields that the service documents, and answers streams with plain JSON.
        store: Where sessions live; in memory by default. A store has its own limits.
        on_request: Called once for each answered request, on the server's thread.
        replacing_tools: Names of tools whose results may replace the labels of the arguments
            (`combine_meta: replace`).
        planner_prompt: Template of the planner's system prompt in dual-LLM mode
            (`docs/local-server.md`, "The planner's prompt").
        isolated_programs: Whether dual-LLM programs run in worker processes, which the system
            ends if they take too much time or memory. With `None`, the default, they do if this
            machine can start workers; otherwise a warning is logged. With `True` the server does
            not start without workers. With `False` programs run in this process, which is for
            tests; `docs/security.md`, rule 2, lists what this does not protect against.
        limits: Limits of requests, sessions and programs: `ServerLimits`, or a mapping of their
            names to numbers, such as `{"session_bytes": 64 * 2**20, "program": {"calls": 50_000}}`.
        audit_log: Where a line of JSON is written for each checked call: an `AuditLog`, or its
            path. A call is refused if its line cannot be written.
        metrics: Who may read `/metrics`, which needs the extra `gateway`: with `"loopback"`
            requests from this machine that no proxy has passed on, and others with a key; with
            `"key"` only those with a key; with `"off"` nobody.
        log_drops: Returns how many entries of a log were dropped, for the metrics.

    Attributes:
        PLANNER_PROMPT: The default of `planner_prompt`, with all placeholders.

    Raises:
        UsageError: If it would listen beyond loopback without keys, or if an option is invalid.

    Example:
        ```python
        from langchain_sequrity import ChatSequrity
        from langchain_sequrity.local import LocalServer

        with LocalServer(script=[{"when": {"user": "weather"}, "text": "Sunny."}]) as server:
            model = ChatSequrity("any/model", base_url=server.base_url)
            assert model.invoke("What is the weather?").text == "Sunny."
        ```
    """

    PLANNER_PROMPT: ClassVar[str] = PLANNER_PROMPT

    def __init__(
        self,
        model: BaseChatModel | None = None,
        script: "Script | str | Path | Iterable[Mapping[str, Any]] | None" = None,
        *,
        models: Mapping[Role, BaseChatModel] | None = None,
        api_keys: Sequence[str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        fidelity: Fidelity = "full",
        store: SessionStore | None = None,
        on_request: Callable[[RequestRecord], None] | None = None,
        replacing_tools: Collection[str] = (),
        planner_prompt: str = PLANNER_PROMPT,
        isolated_programs: bool | None = None,
        limits: ServerLimits | Mapping[str, Any] | None = None,
        audit_log: AuditLog | str | Path | None = None,
        metrics: MetricsAccess = "loopback",
        log_drops: Callable[[], int] | None = None,
    ) -> None:
        _check(host, port, api_keys, fidelity, isolated_programs)
        limits = ServerLimits.from_mapping(limits)
        self.sessions: SessionStore = _sessions(limits) if store is None else store
        if store is not None:
            _check_has_no_limits_of_sessions(limits)
        self._host = host
        self._port = port
        budget, programs = (
            MemoryBudget(limits.requests_bytes),
            ProgramRunner(isolated=isolated_programs, limits=limits.program),
        )
        operated = operate(
            self.sessions, budget, programs, on_request=on_request, audit_log=audit_log,
            metrics=metrics, log_drops=log_drops,
        )  # fmt: skip
        self._audit = operated.audit
        self._services = Services(
            store=self.sessions,
            backend=ObservedBackend(_backend(model, models or {}, script), operated.observers),
            models=_names(model, models or {}, script),
            count_tokens=ModelBackend(model).count_tokens if model else count_request,
            api_keys=api_keys,
            hosts=LOOPBACK_NAMES if host in LOOPBACK_NAMES else None,
            fidelity=fidelity,
            observers=operated.observers,
            operation=operated.operation,
            replacing_tools=frozenset(replacing_tools),
            planner_prompt=check_planner_prompt(planner_prompt),
            limits=limits,
            programs=programs,
            runs=PendingRuns(limits.live_programs),
            budget=budget,
        )
        self._running: _Running | None = None
        self._stopping: _Running | None = None

    @property
    def base_url(self) -> str:
        """The URL for clients; raises `UsageError` if the server is not running."""
        if self._running is None:
            msg = "The server is not running. Use `with LocalServer() as server:`, or `start()` it."
            raise UsageError(msg)
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._running.port}"

    def start(self) -> Self:
        """Start the server and return once it accepts requests; does nothing if it is running.

        Raises:
            UsageError: If it cannot listen on the address, or cannot start required workers.
        """
        if self._running is None:
            if self._audit is not None:
                self._audit.open()
            self._services.operation.is_draining = False
            try:
                self._services.programs.open()
                self._running = _Running(self._services, self._host, self._port)
            except BaseException:
                self._close()
                raise
        return self

    @property
    def is_busy(self) -> bool:
        """Whether requests are under way."""
        return self._running is not None and self._running.is_busy

    def stop(self, grace: float = _GRACE_SECONDS) -> None:
        """Stop the server and free its port; does nothing if it is stopped.

        It accepts no connections any more, and closes those that are idle. Requests under way may
        end; `/ready` answers 503 to them. Those that have not ended after `grace` get 503, and
        their streams are cut off.

        Args:
            grace: Seconds until then. A call while another one waits shortens its time, and returns
                at once.
        """
        running, self._running = self._running, None
        if running is None:
            if (stopping := self._stopping) is not None:
                stopping.shorten(grace)
            return
        self._services.operation.is_draining = True
        self._stopping = running
        running.stop(grace)
        self._stopping = None
        self._close()

    def _close(self) -> None:
        self._services.runs.close()
        self._services.programs.close()
        if self._audit is not None:
            self._audit.close()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the server has stopped, at most `timeout` seconds."""
        if self._running is not None:
            self._running.thread.join(timeout)

    def __enter__(self) -> Self:
        """Start the server."""
        return self.start()

    def __exit__(self, *_error: object) -> None:
        """Stop the server."""
        self.stop()

    def __repr__(self) -> str:
        """Show the URL of the server."""
        address = self.base_url if self._running else "stopped"
        return f"<LocalServer {address} fidelity={self._services.fidelity!r}>"


def _check(
    host: str,
    port: object,
    api_keys: Sequence[str] | None,
    fidelity: str,
    isolated_programs: object,
) -> None:
    if is_exposed(host) and not api_keys:
        msg = (
            f"`host={host!r}` is open to other machines, but no keys are required. Set "
            '`api_keys=[…]`, or leave `host` at "127.0.0.1".'
        )
        raise UsageError(msg)
    if fidelity not in get_args(Fidelity):
        msg = f'`fidelity` must be "full" or "documented"; got {fidelity!r}.'
        raise UsageError(msg)
    if isolated_programs not in (None, True, False):
        msg = f"`isolated_programs` must be `True`, `False` or `None`; got {isolated_programs!r}."
        raise UsageError(msg)
    if type(port) is not int or not 0 <= port <= _HIGHEST_PORT:
        msg = f"`port` must be a number from 0 to 65535, where 0 means any free port; got {port!r}."
        raise UsageError(msg)
    if isinstance(api_keys, str):
        msg = "`api_keys` must be a list of keys; got a text. Write `[…]` around it."
        raise UsageError(msg)
    if not all(map(is_key, api_keys or ())):
        msg = "A key in `api_keys` has characters other than printable ASCII without spaces."
        raise UsageError(msg)


# Arguments of `MemorySessions` by the names of the limits.
_LIMITS_OF_SESSIONS = {
    "sessions": "max_sessions",
    "session_seconds": "max_idle",
    "sessions_bytes": "max_bytes",
    "session_bytes": "max_session_bytes",
}


def _sessions(limits: ServerLimits) -> MemorySessions:
    options = {option: getattr(limits, name) for name, option in _LIMITS_OF_SESSIONS.items()}
    return MemorySessions(**options)


def _check_has_no_limits_of_sessions(limits: ServerLimits) -> None:
    for name, option in _LIMITS_OF_SESSIONS.items():
        if getattr(limits, name) != getattr(DEFAULTS, name):
            msg = (
                f"The limit `{name}` is that of the default store, and `store` is another one. "
                f"Give it to your store: `MemorySessions({option}=…)`."
            )
            raise UsageError(msg)


def is_exposed(host: str) -> bool:
    """Whether a server on this address can be reached from other machines."""
    return host not in LOOPBACK_NAMES


def is_key(key: object) -> bool:
    """Whether a client can send this as a key."""
    if not isinstance(key, str):
        return False
    return bool(key) and key.isascii() and key.isprintable() and " " not in key


def _backend(
    model: BaseChatModel | None,
    models: Mapping[Role, BaseChatModel],
    script: Script | str | Path | Iterable[Mapping[str, Any]] | None,
) -> Backend:
    if model is not None and not isinstance(model, BaseChatModel):
        msg = f"`model` must be a LangChain chat model; got {model!r}. Omit it for the default."
        raise UsageError(msg)
    if not isinstance(models, Mapping) or not models.keys() <= set(get_args(Role)):
        roles = ", ".join(f"`{role}`" for role in get_args(Role))
        got = [*models] if isinstance(models, Mapping) else type(models).__name__
        msg = f"`models` must be a dict of chat models by role: {roles}; got {got!r}."
        raise UsageError(msg)
    for role, role_model in models.items():
        if not isinstance(role_model, BaseChatModel):
            got = type(role_model).__name__
            msg = f"`models[{role!r}]` must be a LangChain chat model; got `{got}`."
            raise UsageError(msg)
    backend: Backend = DeterministicModel() if model is None else ModelBackend(model)
    if models:
        backend = RoleBackend({role: ModelBackend(m) for role, m in models.items()}, backend)
    if script is None:
        return backend
    if isinstance(script, str | Path):
        script = Script.from_file(script)
    elif not isinstance(script, Script):
        script = Script(script)
    return ScriptBackend(script, backend)


def _names(
    model: BaseChatModel | None, models: Mapping[Role, BaseChatModel], script: object
) -> dict[str, list[str]]:
    """The models that answer, by name, with the roles of each."""
    names: dict[str, list[str]] = {} if script is None else {"script": ["answers first"]}
    chat = "deterministic" if model is None else _name(model)
    names.setdefault(chat, []).append("chat")
    for role, role_model in models.items():
        names.setdefault(_name(role_model), []).append(role)
    return names


def _name(model: BaseChatModel) -> str:
    names = (getattr(model, field, None) for field in ("model_name", "model"))
    return next((name for name in names if isinstance(name, str) and name), type(model).__name__)


class StoppableServer(uvicorn.Server):
    """uvicorn's server, which stops as soon as it can.

    uvicorn looks ten times a second whether it should stop, and then waits a tenth of a second for
    its connections, even if it has none.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stop_event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ends_at = math.inf

    def stop(self, grace: float = _GRACE_SECONDS) -> None:
        """Stop, from any thread; does not wait for the end.

        Args:
            grace: Seconds for requests under way.
        """
        self._ends_at = time.monotonic() + grace
        self.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended meanwhile
                self._loop.call_soon_threadsafe(self._stop_event.set)

    def shorten(self, grace: float) -> None:
        """Leave requests less time, from any thread."""
        self._ends_at = min(self._ends_at, time.monotonic() + grace)

    async def main_loop(self) -> None:
        """Look once a second, or when `stop` is called."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):  # which also writes the `Date` of replies
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop_event.wait(), 1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close idle connections at once, and wait for requests under way."""
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        for connection in [*self.server_state.connections]:
            connection.shutdown()
        await asyncio.sleep(0)  # the event loop closes them
        state = self.server_state
        # uvicorn has no event for the end of its tasks.
        while (state.connections or state.tasks) and time.monotonic() < self._ends_at:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        for task in [*state.tasks]:
            task.cancel()
        # Cancelled requests still answer with 503.
        end = time.monotonic() + _LAST_WORDS_SECONDS
        while (state.connections or state.tasks) and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        await self.lifespan.shutdown()


class _Running:
    """A running server: its socket, thread and port."""

    def __init__(self, services: Services, host: str, port: int) -> None:
        give_back_large_blocks()
        self._socket = _listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            make_app(services),
            http=partial(StrictProtocol, services.limits),  # type: ignore[arg-type] # makes one
            ws="none",
            lifespan="off",
            log_config=None,
            # The edge middleware logs failures; uvicorn would log every stream that a stop cuts.
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        self._server = StoppableServer(config)
        sockets = {"sockets": [self._socket]}
        self.thread = threading.Thread(
            target=self._server.run, kwargs=sockets, name="LocalServer", daemon=True
        )
        # The socket already accepts: requests wait in its queue until the event loop runs.
        self.thread.start()

    @property
    def is_busy(self) -> bool:
        return bool(self._server.server_state.tasks)

    def stop(self, grace: float) -> None:
        self._server.stop(grace)
        # A backend that is still answering cannot be interrupted; its thread ends with its answer.
        self.thread.join(grace + _STOP_SECONDS)
        self._socket.close()

    def shorten(self, grace: float) -> None:
        self._server.shorten(grace)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm (40 ms per reply) only if the protocol is named.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        msg = f"Cannot listen on {host}:{port}: {reason}. Use another port, or 0 for any."
        raise UsageError(msg) from None
    return listener
