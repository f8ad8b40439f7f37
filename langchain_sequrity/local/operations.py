"""What a server answers about itself: `/health`, `/ready`, `/metrics`, `/openapi.json`."""

from collections.abc import Callable
from functools import cache, partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from langchain_sequrity.errors import UsageError
from langchain_sequrity.local import auth
from langchain_sequrity.local.audit import AuditLog, AuditWriter
from langchain_sequrity.local.http import json_response
from langchain_sequrity.local.limits import MemoryBudget
from langchain_sequrity.local.memory_sessions import MemorySessions
from langchain_sequrity.local.observers import (
    Observer,
    Observers,
    RequestCallback,
    RequestRecord,
)
from langchain_sequrity.local.openapi import document
from langchain_sequrity.local.program_runs import ProgramRunner
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.services import Operation, Services
from langchain_sequrity.local.store import SessionStore
from langchain_sequrity.strict_json import dumps

if TYPE_CHECKING:
    from langchain_sequrity.local.metrics import Metrics

MetricsAccess = Literal["loopback", "key", "off"]

FOR_ANY_HOST = frozenset({"/health", "/control/health", "/ready"})
"""Paths that also answer if `Host` names another server: probes do not know the server's name."""

METRICS_PATH = "/metrics"
_STOPPING = "The server is stopping."
# A request with one of these comes from a proxy, which may run on this machine.
_OF_PROXIES = ("forwarded", "via", "x-forwarded-for", "x-real-ip")
_LOOPBACK = ("127.", "::1", "::ffff:127.")


def operation_paths(services: Services) -> list[Route]:
    """The paths and their endpoints."""
    return [
        *(Route(path, _health, methods=["GET"]) for path in ("/health", "/control/health")),
        Route("/ready", partial(_ready, services), methods=["GET"]),
        Route(METRICS_PATH, partial(_metrics, services), methods=["GET"]),
        Route("/openapi.json", _openapi, methods=["GET"]),
    ]


# What watches a server


class Operated(NamedTuple):
    """What watches a server.

    Attributes:
        observers: Who gets its events.
        operation: What it answers about itself.
        audit: Its audit log.
    """

    observers: Observers
    operation: Operation
    audit: AuditWriter | None


def operate(
    sessions: SessionStore,
    budget: MemoryBudget,
    programs: ProgramRunner,
    *,
    recorder: Observer | None,
    on_request: Callable[[RequestRecord], None] | None,
    audit_log: AuditLog | str | PathLike[str] | None,
    metrics: MetricsAccess,
    log_drops: Callable[[], int] | None,
) -> Operated:
    """Make what watches a server, from its options.

    Args:
        sessions: Its sessions.
        budget: The memory of its requests.
        programs: Where its programs run.
        recorder: Keeps what the console shows.
        on_request: Called for each answered request.
        audit_log: The audit log, or its path.
        metrics: Who may read the metrics.
        log_drops: Returns how many entries of the log were dropped.

    Raises:
        UsageError: For an invalid option.
    """
    if metrics not in get_args(MetricsAccess):
        msg = f'`metrics` must be "loopback", "key" or "off"; got {metrics!r}.'
        raise UsageError(msg)
    if audit_log is not None and not isinstance(audit_log, AuditLog):
        audit_log = AuditLog(path=Path(audit_log))
    audit = None if audit_log is None else AuditWriter(audit_log)
    gauges = _gauges(sessions, budget, programs, log_drops)
    counted = None if metrics == "off" else _counted(gauges)
    callback = None if on_request is None else RequestCallback(on_request)
    problems = [programs.problem, *([] if audit is None else [lambda: audit.problem])]
    operation = Operation(
        problems=problems,
        metrics=None if counted is None else counted.write,
        share_metrics=None if counted is None else counted.share,
        metrics_need_key=metrics == "key",
    )
    watching = (audit, counted, recorder, callback)
    observers = [observer for observer in watching if observer is not None]
    return Operated(Observers(observers), operation, audit)


def _counted(gauges: "Gauges") -> "Metrics | None":
    """The metrics; `None` without their package."""
    try:
        from langchain_sequrity.local.metrics import Metrics  # noqa: PLC0415 - of an extra
    except ImportError:
        return None
    return Metrics(gauges)


Gauges = dict[tuple[str, str], Callable[[], float]]


def _gauges(
    sessions: SessionStore,
    budget: MemoryBudget,
    programs: ProgramRunner,
    log_drops: Callable[[], int] | None,
) -> Gauges:
    gauges: Gauges = {
        ("sequrity_request_memory_bytes", "Memory of requests under way."): lambda: budget.used,
        ("sequrity_workers", "Worker processes of programs."): lambda: programs.live_workers,
        ("sequrity_workers_started_total", "Worker processes that were started."): (
            lambda: programs.worker_counts.started
        ),
        ("sequrity_workers_killed_total", "Worker processes that reached a limit or crashed."): (
            lambda: programs.worker_counts.killed
        ),
    }
    if isinstance(sessions, MemorySessions):
        gauges["sequrity_sessions", "Sessions."] = sessions.__len__
        gauges["sequrity_sessions_bytes", "Memory of sessions."] = lambda: sessions.size
    if log_drops is not None:
        gauges["sequrity_log_dropped", "Entries of the log that were dropped."] = log_drops
    return gauges


# Endpoints


async def _health(_request: Request) -> Response:
    return json_response({"status": "ok"})


async def _ready(services: Services, _request: Request) -> Response:
    """200 if a request to a model would be answered, else 503 with the reasons."""
    operation, models = services.operation, services.models
    problems = [] if models else ["No model is configured."]
    if operation.is_draining:
        problems.append(_STOPPING)
    else:
        for problem in operation.problems:
            problems += filter(None, [await run_sync(problem)])
        problems += filter(None, [await services.store.problem()])
    if problems:
        return json_response({"status": "not ready", "not_ready": problems}, 503)
    # Names of other models may tell something about their owner.
    named = {"model": "deterministic"} if [*models] == ["deterministic"] else {}
    return json_response({"status": "ready", **named})


async def _metrics(services: Services, request: Request) -> Response:
    """The metrics in Prometheus's format: from this machine, or with a key."""
    operation = services.operation
    if operation.metrics is None:
        refuse(
            501,
            "The server has no metrics. Install the extra, `pip install "
            '"langchain-sequrity[gateway]"`, and do not turn them off.',
        )
    headers = request.scope["by_name"]
    if operation.metrics_need_key or not _is_from_this_machine(request):
        auth.bearer(headers, services.keys)
    body, content_type = await run_sync(operation.metrics)
    return Response(body, headers={"Content-Type": content_type})


def _is_from_this_machine(request: Request) -> bool:
    address = request.client.host if request.client else ""
    has_proxy = any(name in request.scope["by_name"] for name in _OF_PROXIES)
    return address.startswith(_LOOPBACK) and not has_proxy


async def _openapi(_request: Request) -> Response:
    return json_response(_document())


@cache
def _document() -> bytes:
    return dumps(document()).encode()
