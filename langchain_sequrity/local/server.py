"""`LocalServer`: the ASGI app in its own thread."""

import asyncio
import math
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

import uvicorn
from langchain_core.language_models import BaseChatModel

from langchain_sequrity.errors import UsageError
from langchain_sequrity.local.answers import count_request
from langchain_sequrity.local.app import make_app
from langchain_sequrity.local.audit import AuditLog
from langchain_sequrity.local.auth import LOOPBACK_NAMES, host_names
from langchain_sequrity.local.backends import Backend, ModelBackend, Role, RoleBackend
from langchain_sequrity.local.connections import Connection, Connections
from langchain_sequrity.local.console.access import PATH as CONSOLE_PATH
from langchain_sequrity.local.console.access import Access
from langchain_sequrity.local.console.approvals import Approvals
from langchain_sequrity.local.console.pages import Console
from langchain_sequrity.local.console.recorder import Recorder
from langchain_sequrity.local.deterministic_model import DeterministicModel
from langchain_sequrity.local.dual_llm.prompts import PLANNER_PROMPT, check_planner_prompt
from langchain_sequrity.local.forwarded import networks
from langchain_sequrity.local.keys import ApiKey, Keyring, is_key
from langchain_sequrity.local.limits import (
    DEFAULTS,
    MemoryBudget,
    ServerLimits,
    give_back_large_blocks,
)
from langchain_sequrity.local.memory_sessions import MemorySessions
from langchain_sequrity.local.model_table import ModelTable, TableRole
from langchain_sequrity.local.observed_calls import ObservedBackend
from langchain_sequrity.local.observers import RequestRecord
from langchain_sequrity.local.operations import MetricsAccess, operate
from langchain_sequrity.local.program_runs import PendingRuns, ProgramRunner
from langchain_sequrity.local.script import Script, ScriptBackend
from langchain_sequrity.local.services import Fidelity, Services
from langchain_sequrity.local.store import SessionStore
from langchain_sequrity.wire.exchange import ChatRequest

_HIGHEST_PORT = 65_535
_GRACE_SECONDS = 1.0  # for unfinished replies when the server stops
_LAST_WORDS_SECONDS = 0.5  # for the 503 of cancelled requests
_LOOK_SECONDS = 0.02
_STOP_SECONDS = 1.5


class LocalServer:
    """Sequrity's REST API on this machine: no key, no network, the same client code.

    Args:
        model: The backend: any LangChain chat model. By default, a deterministic model answers from
            the request alone.
        models: Backends of single roles, instead of `model`: `planner` writes programs, `reader`
            reads data for them, `policy` writes policies.
        script: Rules that answer first: a `Script`, a path to a YAML or JSON file, or a list of
            rules.
        model_table: Models by the name that clients send, instead of `model` and `models`: for each
            name, chat models by role (`chat`, `planner`, `reader`, `policy`). Other names are
            refused.
        api_keys: Allowed keys: texts, or `ApiKey` objects with limits and settings. By default
            every non-empty key is allowed, and the server listens on loopback addresses only.
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
        allowed_hosts: Names that a request's `Host` may have besides those of loopback, such as
            those that a proxy in front of the server passes. By default a server on another
            address accepts every name, and one on loopback only names of loopback.
        trusted_proxies: Addresses and networks of proxies, such as `10.0.0.0/8`, whose
            `X-Forwarded-…` or `Forwarded` headers are believed. Those of others are ignored.
        audit_log: Where a line of JSON is written for each checked call: an `AuditLog`, or its
            path. A call is refused if its line cannot be written.
        metrics: Who may read `/metrics`, which needs the extra `gateway`: with `"loopback"`
            requests from this machine that no proxy has passed on, and others with a key; with
            `"key"` only those with a key; with `"off"` nobody.
        console: Whether it has a console, the page at `console_url` that shows what happens.
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
        model_table: Mapping[str, Mapping[TableRole, BaseChatModel]] | None = None,
        api_keys: Sequence[str | ApiKey] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        fidelity: Fidelity = "full",
        store: SessionStore | None = None,
        on_request: Callable[[RequestRecord], None] | None = None,
        replacing_tools: Collection[str] = (),
        planner_prompt: str = PLANNER_PROMPT,
        isolated_programs: bool | None = None,
        limits: ServerLimits | Mapping[str, Any] | None = None,
        allowed_hosts: Collection[str] = (),
        trusted_proxies: Sequence[str] = (),
        audit_log: AuditLog | str | Path | None = None,
        metrics: MetricsAccess = "loopback",
        console: bool = True,
        log_drops: Callable[[], int] | None = None,
    ) -> None:
        _check(host, port, api_keys, fidelity, isolated_programs)
        limits = ServerLimits.from_mapping(limits)
        table = None if model_table is None else _table(model_table, model, models)
        self.sessions: SessionStore = _sessions(limits) if store is None else store
        if isinstance(store, MemorySessions):
            _check_has_no_limits_of_sessions(limits)
        self._host = host
        self._port = port
        budget, programs = (
            MemoryBudget(limits.requests_bytes),
            ProgramRunner(
                isolated=isolated_programs, limits=limits.program, workers=limits.workers
            ),
        )
        recorder = Recorder(limits.console_bytes) if console else None
        operated = operate(
            self.sessions, budget, programs, recorder=recorder, on_request=on_request,
            audit_log=audit_log, metrics=metrics, log_drops=log_drops,
        )  # fmt: skip
        self._audit = operated.audit
        keys = Keyring(api_keys)
        self._console = None
        if recorder is not None:
            log_path = None if self._audit is None else self._audit.path
            self._console = Console(recorder, Access(keys), Approvals(), log_path)
        self._services = Services(
            store=self.sessions,
            backend=ObservedBackend(
                _backend(table or model, models or {}, script), operated.observers
            ),
            models=table.names if table else _names(model, models or {}, script),
            has_model_table=table is not None,
            count_tokens=_token_counter(table or model),
            keys=keys,
            hosts=_hosts(host, allowed_hosts),
            trusted_proxies=networks(trusted_proxies),
            fidelity=fidelity,
            observers=operated.observers,
            operation=operated.operation,
            replacing_tools=frozenset(replacing_tools),
            planner_prompt=check_planner_prompt(planner_prompt),
            limits=limits,
            programs=programs,
            runs=PendingRuns(limits.live_programs),
            budget=budget,
            console=self._console,
        )
        self._running: _Running | None = None
        self._stopping: _Running | None = None

    @property
    def base_url(self) -> str:
        """The URL for clients; raises `UsageError` if the server is not running."""
        if self._running is None:
            msg = "The server is not running. Use `with LocalServer() as server:`, or `start()` it."
            raise UsageError(msg)
        return url_of(self._host, self._running.port)

    @property
    def has_console(self) -> bool:
        """Whether it has a console."""
        return self._console is not None

    @property
    def console_url(self) -> str:
        """The URL of the console, for a browser. It has a token, so give it to nobody.

        Raises:
            UsageError: If the server is not running, or has no console.
        """
        if self._console is None:
            msg = "The server has no console. Use `LocalServer(console=True)`."
            raise UsageError(msg)
        return f"{self.base_url}{CONSOLE_PATH}?token={self._console.access.token}"

    def start(self, listener: socket.socket | None = None) -> Self:
        """Start the server and return once it accepts requests; does nothing if it is running.

        Args:
            listener: A socket that listens already, instead of one on `host` and `port`. Several
                processes can accept connections on it.

        Raises:
            UsageError: If it cannot listen on the address, or cannot start required workers.
        """
        if self._running is None:
            if self._audit is not None:
                self._audit.open()
            self._services.operation.is_draining = False
            try:
                self._services.programs.open()
                self._running = _Running(self._services, listener or listen(self._host, self._port))
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

    def replace_keys(self, api_keys: Sequence[str | ApiKey]) -> None:
        """Use other keys from now on. No session ends.

        A key that is not in the list is refused from the next request on. Running sessions keep
        the settings of their key with which they began.

        Args:
            api_keys: All keys, as for the constructor.

        Raises:
            UsageError: If the list is empty, or a key is invalid. The old keys then stay.
        """
        if not api_keys:
            msg = "Without keys the server would accept every key. Give at least one key."
            raise UsageError(msg)
        _check_keys(api_keys)
        self._services.keys.replace(api_keys)

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
    api_keys: Sequence[str | ApiKey] | None,
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
    _check_keys(api_keys or ())


def _check_keys(api_keys: Sequence[str | ApiKey]) -> None:
    if isinstance(api_keys, str):
        msg = "`api_keys` must be a list of keys; got a text. Write `[…]` around it."
        raise UsageError(msg)
    if not all(isinstance(key, ApiKey) or is_key(key) for key in api_keys):
        msg = "A key in `api_keys` has characters other than printable ASCII without spaces."
        raise UsageError(msg)


def _hosts(host: str, allowed: Collection[str]) -> frozenset[str] | None:
    names = host_names(allowed)
    return LOOPBACK_NAMES | names if names or not is_exposed(host) else None


# Arguments of `MemorySessions` by the names of the limits.
_LIMITS_OF_SESSIONS = {
    "sessions": "max_sessions",
    "session_seconds": "max_idle",
    "sessions_bytes": "max_bytes",
    "session_bytes": "max_session_bytes",
}


def _sessions(limits: ServerLimits) -> MemorySessions:
    options = {option: getattr(limits, name) for name, option in _LIMITS_OF_SESSIONS.items()}
    return MemorySessions(**options, limits=limits)


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


def _table(
    model_table: Mapping[str, Mapping[TableRole, BaseChatModel]], *others: object
) -> ModelTable:
    if any(others):
        msg = "`model_table` replaces `model` and `models`. Give only one of them."
        raise UsageError(msg)
    return ModelTable(model_table)


def _token_counter(model: BaseChatModel | ModelTable | None) -> Callable[[ChatRequest], int]:
    if isinstance(model, ModelTable):
        return model.count_tokens
    return ModelBackend(model).count_tokens if model else count_request


def _backend(
    model: BaseChatModel | ModelTable | None,
    models: Mapping[Role, BaseChatModel],
    script: Script | str | Path | Iterable[Mapping[str, Any]] | None,
) -> Backend:
    if model is not None and not isinstance(model, BaseChatModel | ModelTable):
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
    backend: Backend = DeterministicModel()
    if model is not None:
        backend = model if isinstance(model, ModelTable) else ModelBackend(model)
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


class _AcceptingServer(StoppableServer):
    """A server that accepts its connections itself, so that it can let clients wait.

    Args:
        config: uvicorn's configuration.
        connections: The connections of the server.
        store: Closed at the end.
    """

    def __init__(
        self, config: uvicorn.Config, connections: Connections, store: SessionStore
    ) -> None:
        super().__init__(config)
        self._connections = connections
        self._store = store
        self._tasks: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        await super().startup(sockets=[])
        new_connection = partial(
            Connection,
            self._connections,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        accepting = (self._connections.accept(socket, new_connection) for socket in sockets or ())
        self._tasks = [
            asyncio.create_task(work) for work in (self._connections.watch(), *accepting)
        ]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no further connections, and stop."""
        for task in self._tasks:
            task.cancel()
        await super().shutdown(sockets)
        await self._store.close()


class _Running:
    """A running server: its socket, thread and port."""

    def __init__(self, services: Services, listener: socket.socket) -> None:
        give_back_large_blocks()
        self._socket = listener
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            make_app(services),
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            # The edge middleware logs failures; uvicorn would log every stream that a stop cuts.
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # the edge middleware reads them
            timeout_keep_alive=math.ceil(services.limits.idle_seconds),
            callback_notify=services.operation.share_metrics,
            timeout_notify=0,  # with each tick
        )
        connections = Connections(services.limits, services.budget)
        self._server = _AcceptingServer(config, connections, services.store)
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


def url_of(host: str, port: int) -> str:
    """The URL for clients of a server on this address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address; raises `UsageError` if that is not possible."""
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
