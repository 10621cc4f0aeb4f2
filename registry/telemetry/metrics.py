"""Counters and histograms of this replica, and their Prometheus text."""

import time
from collections.abc import Callable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from registry.telemetry.collectors import FunctionCollector, MetricsIterator

disable_created_metrics()  # type: ignore[no-untyped-call]

PROMETHEUS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From the duration of a batched heartbeat to the longest timeout of a call.
_DURATION_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """The counters and histograms of this replica, and functions that yield more metrics at each scrape."""

    def __init__(self) -> None:
        self._collectors = collectors = CollectorRegistry()
        self._started_at = time.monotonic()
        labels = ("method", "route", "status")
        counter = partial(Counter, registry=collectors)
        histogram = partial(Histogram, buckets=_DURATION_BUCKETS_S, registry=collectors)
        self._requests = counter("mcp_registry_requests", "Requests served by this replica", labels)
        self._errors = counter("mcp_registry_errors", "Responses with status 400 or above", labels[1:])
        self._request_seconds = histogram(
            "mcp_registry_request_duration_seconds", "Time from request to response", ("route",)
        )
        self._script_seconds = histogram(
            "mcp_registry_script_duration_seconds",
            "Duration of a script call, or of the batch it was part of",
            ("script",),
        )
        self._loop_errors = counter("mcp_registry_loop_errors", "Failed iterations of a background loop", ("loop",))
        outcomes = "Agents processed by sweeps of this replica, by outcome"
        self._sweep_outcomes = counter("mcp_registry_sweep_outcomes", outcomes, ("outcome",))
        conflicts = "Registrations by this replica whose id another living agent had, in another place"
        self._identity_conflicts = counter("mcp_registry_identity_conflicts", conflicts)
        refused = "Connections that this replica refused, by reason"
        self._refused_connections = counter("mcp_registry_refused_connections", refused, ("reason",))
        insecure = "1 if strangers may use this replica, by reason"
        self._insecure = Gauge("mcp_registry_insecure", insecure, ("reason",), registry=collectors)
        self._response_counters: dict[tuple[str, str, int], Callable[[float], None]] = {}

    def register(self, read: Callable[[], MetricsIterator]) -> None:
        """Register a function that yields more metrics at each scrape."""
        self._collectors.register(FunctionCollector(read))

    @property
    def uptime_seconds(self) -> float:
        """Seconds since this replica started."""
        return time.monotonic() - self._started_at

    def count_response(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one HTTP response. `route` is the pattern of the path, which limits the number of time series."""
        count = self._response_counters.get((method, route, status))
        if count is None:
            count = self._response_counters[method, route, status] = self._response_counter(method, route, status)
        count(seconds)

    def observe_script(self, name: str, seconds: float) -> None:
        """Record the duration of one call of a Lua script."""
        self._script_seconds.labels(name).observe(seconds)

    def count_loop_failure(self, name: str) -> None:
        """Count a failed iteration of a background loop."""
        self._loop_errors.labels(name).inc()

    def count_swept_agents(self, agents_by_outcome: Mapping[str, int]) -> None:
        """Count the agents that a sweep processed, by outcome."""
        for outcome, agents in agents_by_outcome.items():
            if agents:
                self._sweep_outcomes.labels(outcome).inc(agents)

    def count_identity_conflict(self) -> None:
        """Count a registration whose id another living agent had."""
        self._identity_conflicts.inc()

    def count_refused_connection(self, reason: str) -> None:
        """Count a connection that was refused, or closed because a limit or a deadline was exceeded."""
        self._refused_connections.labels(reason).inc()

    def set_insecure(self, applies_by_reason: Mapping[str, bool]) -> None:
        """Set why strangers may use this replica."""
        for reason, applies in applies_by_reason.items():
            self._insecure.labels(reason).set(applies)

    def render_prometheus(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        # prometheus_client would add _total to the name of a counter; this public name has no suffix.
        uptime = (
            "# HELP mcp_registry_uptime_seconds Seconds since this replica started\n"
            "# TYPE mcp_registry_uptime_seconds counter\n"
            f"mcp_registry_uptime_seconds {self.uptime_seconds:.3f}\n"
        )
        return generate_latest(self._collectors) + uptime.encode()

    def _response_counter(self, method: str, route: str, status: int) -> Callable[[float], None]:
        requests = self._requests.labels(method, route, str(status)).inc
        observe = self._request_seconds.labels(route).observe
        errors = self._errors.labels(route, str(status)).inc if status >= 400 else None  # noqa: PLR2004  client and server errors

        def count(seconds: float) -> None:
            requests()
            observe(seconds)
            if errors is not None:
                errors()

        return count
