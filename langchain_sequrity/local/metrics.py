"""Metrics in Prometheus's format, in a registry of their own for each server.

Workers that serve one port write theirs into files of one folder, which each of them can read: the
multiprocess mode of prometheus-client, which `PROMETHEUS_MULTIPROC_DIR` turns on.

Clients choose the names of tools and models, and write the policies. So each label has a bounded
number of values, and the rest is counted as `other`.
"""

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from langchain_sequrity.local.observers import (
    CheckedCall,
    EndedTurn,
    Observer,
    RequestRecord,
)
from langchain_sequrity.wire.routes import (
    CHAT_ROUTES,
    COUNT_TOKENS_ROUTES,
    MODELS_ROUTES,
    POLICY_ROUTES,
    VALIDATE_HEADERS_PATH,
)

OTHER = "other"
_MOST_VALUES = 200
_LONGEST = 100
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_METHODS = {"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"}
_MODELS = re.compile(r"(.+/v1/models)/.+")
_ROUTES = CHAT_ROUTES + COUNT_TOKENS_ROUTES + MODELS_ROUTES + POLICY_ROUTES
_PATHS = frozenset(route.path for route in _ROUTES) | {
    "/", "/health", "/ready", "/metrics", "/openapi.json", "/control", "/control/",
    "/control/health", VALIDATE_HEADERS_PATH,
}  # fmt: skip


def route_of(path: str) -> str:
    """The path in the route table, or `other`."""
    if path in _PATHS:
        return path
    models = _MODELS.fullmatch(path)
    return f"{models[1]}/{{model}}" if models and models[1] in _PATHS else OTHER


class BoundedLabels:
    """The first values of a label, or of several together; `other` for the rest.

    Args:
        most: How many values.
    """

    def __init__(self, most: int = _MOST_VALUES) -> None:
        self._most = most
        self._values: set[tuple[str, ...]] = set()
        self._lock = threading.Lock()

    def __call__(self, *values: str) -> tuple[str, ...]:
        """The values, or `other` for each."""
        values = tuple(value[:_LONGEST].encode("utf-8", "replace").decode() for value in values)
        with self._lock:
            if values not in self._values:
                if len(self._values) >= self._most:
                    return (OTHER,) * len(values)
                self._values.add(values)
        return values


class Metrics(Observer):
    """The metrics of one server.

    Args:
        gauges: Functions that return the current value, by name and description.

    Attributes:
        are_of_all_workers: Whether this process is one of several workers.
    """

    name = "The metrics"
    are_of_all_workers: ClassVar[bool] = False

    def __init__(self, gauges: Mapping[tuple[str, str], Callable[[], float]]) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "sequrity_requests", "Answered requests.", ("route", "method", "status", "key"),
            registry=registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "sequrity_request_seconds", "Time until the end of the reply.", ("route",),
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self._turns = Counter(
            "sequrity_turns", "Requests to a model.", ("architecture", "outcome"),
            registry=registry,
        )  # fmt: skip
        self._verdicts = Counter(
            "sequrity_verdicts", "Checked calls, by the rule that decided.",
            ("tool", "rule", "verdict"), registry=registry,
        )  # fmt: skip
        self._denials = Counter(
            "sequrity_denials", "Denied calls.", ("tool", "key"), registry=registry
        )
        self._approvals = Counter(
            "sequrity_approvals", "Denied calls that a person approved or rejected.",
            ("tool", "decision"), registry=registry,
        )  # fmt: skip
        self._tokens = Counter(
            "sequrity_tokens", "Tokens of models.", ("model", "direction"), registry=registry
        )
        self._tools, self._models, self._keys = BoundedLabels(), BoundedLabels(), BoundedLabels()
        self._decisions = BoundedLabels()
        self._shared_gauges: _SharedGauges | None = None
        if self.are_of_all_workers:
            self._shared_gauges = _SharedGauges(gauges, registry)
        else:
            registry.register(_Gauges(gauges))

    def write(self) -> tuple[bytes, str]:
        """The metrics as text, and the content type."""
        registry = self._registry
        if self._shared_gauges is not None:
            self._shared_gauges.write()
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # it has no types
        return generate_latest(registry), CONTENT_TYPE_LATEST

    async def share(self) -> None:
        """Let the other workers read the current values."""
        if self._shared_gauges is not None:
            self._shared_gauges.write()

    def request_ended(self, record: RequestRecord, /) -> None:
        """Count a request."""
        route = route_of(record.path)
        method = record.method if record.method in _METHODS else OTHER
        (key,) = self._keys(record.key)
        self._requests.labels(route, method, str(record.status), key).inc()
        self._seconds.labels(route).observe(record.milliseconds / 1000)

    def turn_ended(self, ended: EndedTurn, /) -> None:
        """Count a turn."""
        self._turns.labels(ended.architecture, ended.outcome).inc()

    def call_checked(self, checked: CheckedCall, /) -> None:
        """Count a checked call, or the decision about one that was counted before."""
        if checked.decision is not None:
            (tool,) = self._tools(checked.call.tool)
            self._approvals.labels(tool, checked.decision).inc()
            return
        tool, rule = self._decisions(checked.call.tool, _rule(checked))
        self._verdicts.labels(tool, rule, checked.word).inc()
        if not checked.is_allowed:
            (tool,) = self._tools(checked.call.tool)
            (key,) = self._keys(checked.request.key)
            self._denials.labels(tool, key).inc()

    def tokens_used(self, model: str, input_tokens: int, output_tokens: int, /) -> None:
        """Count tokens."""
        (model,) = self._models(model)
        self._tokens.labels(model, "input").inc(max(input_tokens, 0))
        self._tokens.labels(model, "output").inc(max(output_tokens, 0))


def _rule(checked: CheckedCall) -> str:
    """The rule that decided: policy and line; `preset` for the built-in rules."""
    if checked.verdict is None:
        return "classifier"
    reason = checked.verdict.reasons[0]
    if reason.at is None:
        return "preset"
    policy = reason.policy or checked.policy[:8] or "program"
    return f"{policy}:{reason.at.line}"


class _Gauges(Collector):
    """Values that are read when the metrics are."""

    def __init__(self, gauges: Mapping[tuple[str, str], Callable[[], float]]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        """Read them."""
        for (name, description), value in self._gauges.items():
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield family(name, description, value())


class _SharedGauges:
    """The same of one of several workers, whose values the others read from files.

    Args:
        gauges: As for `Metrics`.
        registry: Where they are registered.
    """

    def __init__(
        self, gauges: Mapping[tuple[str, str], Callable[[], float]], registry: CollectorRegistry
    ) -> None:
        self._lock = threading.Lock()
        self._counters: list[tuple[Counter, Callable[[], float]]] = []
        self._gauges: list[tuple[Gauge, Callable[[], float]]] = []
        self._counted: Mapping[Counter, float] = {}
        for (name, description), value in gauges.items():
            if name.endswith("_total"):
                self._counters.append((Counter(name, description, registry=registry), value))
            else:
                # Of workers that have ended, counters stay, and current values do not.
                gauge = Gauge(name, description, multiprocess_mode="livesum", registry=registry)
                self._gauges.append((gauge, value))

    def write(self) -> None:
        """Write the current values."""
        for gauge, value in self._gauges:
            gauge.set(value())
        with self._lock:
            totals = {counter: value() for counter, value in self._counters}
            for counter, total in totals.items():
                counter.inc(max(0.0, total - self._counted.get(counter, 0.0)))
            self._counted = totals
