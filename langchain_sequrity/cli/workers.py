"""`serve --workers`: processes that accept connections on one socket.

uvicorn's supervisor starts and watches them, and starts those again that have died. It runs ASGI
apps, so a worker is an app whose lifespan starts a `LocalServer`, and which gets no request itself.
"""

import asyncio
import inspect
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from rich.console import Console
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from langchain_sequrity.cli.log import SUPERVISOR_LOGGER, ServerLog
from langchain_sequrity.cli.serve import SWITCH_SECONDS, greeting
from langchain_sequrity.cli.services import Service
from langchain_sequrity.cli.worker_app import WorkerApp
from langchain_sequrity.errors import SequrityError, UsageError
from langchain_sequrity.local.server import listen, url_of

MakeService = Callable[[ServerLog], Service]
_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_logger = logging.getLogger("langchain_sequrity.cli")


def serve_with_workers(make: MakeService, service: Service, log: ServerLog) -> None:
    """Serve with several processes until SIGINT or SIGTERM.

    Args:
        make: Makes the server of each worker.
        service: The same server, which is not started, but reads its keys again first.
        log: Prints how to use it, and what happens.

    Raises:
        UsageError: If this system has no such processes, the server cannot listen on the address,
            the store is not safe, or a worker cannot start.
    """
    if sys.platform == "win32":
        msg = "Several workers need a system with `fork` and signals. Use `--workers 1`."
        raise UsageError(msg)
    log.is_shared = True
    with log.running(), TemporaryDirectory(prefix="langchain-sequrity-") as folder:
        service.check_store()
        os.environ[_METRICS_FOLDER] = folder
        listener = listen(service.host, service.port)
        with listener:
            config = uvicorn.Config(
                WorkerApp(partial(worker, make), listener),
                factory=True,
                workers=service.workers,
                lifespan="on",
                ws="none",
                log_config=None,
                log_level="critical",  # of workers, whose own log says it
            )
            logging.getLogger(SUPERVISOR_LOGGER).setLevel(logging.INFO)
            url = url_of(service.host, listener.getsockname()[1])
            log.add(greeting(url, with_keys=service.with_keys))
            supervisor = _supervisor(config, service, folder)
            supervisor.listener = listener
            supervisor.run()
        log.add("Stopped.")
    if not supervisor.was_stopped:
        msg = "A worker could not start; the log says why."
        raise UsageError(msg)


# The supervisor


class _Supervisor(Multiprocess):
    """uvicorn's supervisor, with a reload that ends no request, and an end at a second signal.

    Attributes:
        service: The server.
        folder: Where workers write their metrics.
        listener: The socket of all workers.
        was_stopped: Whether a signal has stopped it.
    """

    service: Service
    folder: str
    listener: socket.socket
    was_stopped = False

    def handle_hup(self) -> None:
        """Let all workers read the keys again.

        uvicorn's own answer, to replace the workers one after the other, would let a worker that
        has long turns accept a removed key until they end.
        """
        if self.service.reload is not None and self.service.reload():
            self._send(signal.SIGHUP)

    def handle_int(self) -> None:
        """Stop."""
        self.handle_term()

    def handle_term(self) -> None:
        """Stop; workers let turns under way end."""
        self.was_stopped = True
        _logger.warning(
            "Stopping: turns under way have %g s. A second signal ends them.", self.service.grace
        )
        self.should_exit.set()
        self.listener.close()  # or the system would still accept connections for it

    def join_all(self) -> None:
        """Wait for the workers; a second signal ends their turns."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._send(signal.SIGQUIT))
        super().join_all()

    def keep_subprocess_alive(self) -> None:
        """Start workers again that have died."""
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            _forget_current_values(pid, self.folder)

    def _send(self, number: signal.Signals) -> None:
        for process in self.processes:
            if process.process.is_alive() and process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)


def _supervisor(config: uvicorn.Config, service: Service, folder: str) -> _Supervisor:
    options: dict[str, Any] = {"sockets": []}
    if "target" in inspect.signature(Multiprocess).parameters:  # before uvicorn 0.51 or so
        options["target"] = uvicorn.Server(config).run
    supervisor = _Supervisor(config, **options)
    supervisor.service, supervisor.folder = service, folder
    return supervisor


def _forget_current_values(pid: int | None, folder: str) -> None:
    with suppress(ImportError):
        from prometheus_client.multiprocess import (  # noqa: PLC0415 - of an extra
            mark_process_dead,
        )

        mark_process_dead(pid, folder)  # type: ignore[no-untyped-call] # it has no types


# A worker


def worker(make: MakeService, listener: socket.socket) -> Starlette:
    """The app of a worker, made in its process."""
    return Starlette(lifespan=partial(_running, make, listener))


@asynccontextmanager
async def _running(
    make: MakeService, listener: socket.socket, _app: Starlette
) -> AsyncIterator[None]:
    sys.setswitchinterval(SWITCH_SECONDS)
    _share_metrics()
    log = ServerLog(Console())
    log.is_shared = True
    with log.running():
        try:
            service = make(log)
            process = _Worker(service)
            service.server.start(listener)
        except (SequrityError, OSError) as error:
            _logger.error("A worker cannot start: %s", error)  # noqa: TRY400 - the text says it all
            raise
        process.watch()
        try:
            yield
        finally:
            await process.stop()


def _share_metrics() -> None:
    with suppress(ImportError):
        from langchain_sequrity.local.metrics import Metrics  # noqa: PLC0415 - of an extra

        Metrics.are_of_all_workers = True


class _Worker:
    """A running server in the process of a worker, and its signals.

    SIGTERM and SIGINT stop it, however often they come: a terminal and systemd may send them to all
    processes, and so does the supervisor. SIGQUIT ends its turns.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._grace = service.grace
        self._is_stopping = False

    def watch(self) -> None:
        """Handle signals, and stop when the supervisor has gone."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGQUIT, self._end)
        if self._service.reload is not None:
            loop.add_signal_handler(signal.SIGHUP, self._service.reload)
        threading.Thread(target=_stop_with_supervisor, daemon=True).start()

    async def stop(self) -> None:
        """Stop the server; its turns may end."""
        self._is_stopping = True
        await asyncio.to_thread(self._service.server.stop, self._grace)

    def _end(self) -> None:
        self._grace = 0
        if self._is_stopping:
            self._service.server.stop(0)
        else:
            signal.raise_signal(signal.SIGTERM)


def _stop_with_supervisor() -> None:
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor.join()
        os.kill(os.getpid(), signal.SIGTERM)
