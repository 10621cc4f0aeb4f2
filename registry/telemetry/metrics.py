"""Counters and histograms of this replica, and the text a scraper reads."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

disable_created_metrics()  # type: ignore[no-untyped-call]

PROMETHEUS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From a batched heartbeat to the longest any call may take.
_DURATION_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """What this replica counts. `collector_registry` is where others add what they know."""

    def __init__(self) -> None:
        self.collector_registry = collectors = CollectorRegistry()
        self._started_at = time.monotonic()
        labels = ("method", "route", "status")
        self._requests = Counter(
            "mcp_registry_requests", "Requests answered by this replica", labels, registry=collectors
        )
        self._errors = Counter(
            "mcp_registry_errors", "Answers of 400 and above by this replica", labels[1:], registry=collectors
        )
        self._request_seconds = Histogram(
            "mcp_registry_request_duration_seconds",
            "Time from request to answer on this replica",
            ("route",),
            buckets=_DURATION_BUCKETS_S,
            registry=collectors,
        )
        self._script_seconds = Histogram(
            "mcp_registry_script_duration_seconds",
            "Time of one script call, or of the batch it left in, as this replica saw it",
            ("script",),
            buckets=_DURATION_BUCKETS_S,
            registry=collectors,
        )
        self._loop_errors = Counter(
            "mcp_registry_loop_errors",
            "Rounds of a background loop that failed",
            ("loop",),
            registry=collectors,
        )
        self._sweep_outcomes = Counter(
            "mcp_registry_swept",
            "Agents this replica moved on while it led",
            ("outcome",),
            registry=collectors,
        )
        self._response_counters: dict[tuple[str, str, int], Callable[[float], None]] = {}

    def add_gauge(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Show a number of this replica as it is at each scrape."""
        Gauge(name, description, registry=self.collector_registry).set_function(read)

    @property
    def uptime_seconds(self) -> float:
        """Seconds since this replica started."""
        return time.monotonic() - self._started_at

    def count_response(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer. `route` is the pattern of the path, so that the number of series stays small."""
        count = self._response_counters.get((method, route, status))
        if count is None:
            count = self._response_counters[method, route, status] = self._response_counter(method, route, status)
        count(seconds)

    def observe_script(self, name: str, seconds: float) -> None:
        """Note how long a script call took."""
        self._script_seconds.labels(name).observe(seconds)

    def count_loop_failure(self, name: str) -> None:
        """Count a round of a background loop that failed."""
        self._loop_errors.labels(name).inc()

    def count_sweep_outcome(self, outcome: str, agents: int) -> None:
        """Count agents a sweep moved on."""
        self._sweep_outcomes.labels(outcome).inc(agents)

    def render_prometheus(self) -> bytes:
        """Return everything in the text format of Prometheus."""
        # prometheus_client would add _total to a counter's name; this one is promised without.
        uptime = (
            "# HELP mcp_registry_uptime_seconds Seconds since this replica started\n"
            "# TYPE mcp_registry_uptime_seconds counter\n"
            f"mcp_registry_uptime_seconds {self.uptime_seconds:.3f}\n"
        )
        return generate_latest(self.collector_registry) + uptime.encode()

    def _response_counter(self, method: str, route: str, status: int) -> Callable[[float], None]:
        requests = self._requests.labels(method, route, str(status)).inc
        observe = self._request_seconds.labels(route).observe
        errors = self._errors.labels(route, str(status)).inc if status >= 400 else None  # noqa: PLR2004 - client errors on

        def count(seconds: float) -> None:
            requests()
            observe(seconds)
            if errors is not None:
                errors()

        return count
