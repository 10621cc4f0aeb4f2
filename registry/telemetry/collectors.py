"""Prometheus gauges and counters whose values are read at each scrape."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_MESH_WIDE = "; mesh-wide, equal on every replica: use max(), not sum()"

MetricsIterator = Iterator[Metric]


class FunctionCollector(Collector):
    """A Prometheus collector of the metrics that a function yields at each scrape."""

    def __init__(self, read: Callable[[], MetricsIterator]) -> None:
        self._read = read

    def collect(self) -> MetricsIterator:
        """Return the metrics that the function yields."""
        return self._read()


def gauge(name: str, help_text: str, value: float) -> Metric:
    """Return a gauge with a value of this replica."""
    return GaugeMetricFamily(f"mcp_registry_{name}", help_text, value=value)


def counter(name: str, help_text: str, value: float) -> Metric:
    """Return a counter with a value of this replica."""
    return CounterMetricFamily(f"mcp_registry_{name}", help_text, value=value)


def mesh_gauge(name: str, help_text: str, value: float) -> Metric:
    """Return a gauge with a value of the whole mesh, which every replica reports."""
    return gauge(name, help_text + _MESH_WIDE, value)


def mesh_counter(name: str, help_text: str, value: float) -> Metric:
    """Return a counter with a value of the whole mesh, which every replica reports."""
    return counter(name, help_text + _MESH_WIDE, value)


def mesh_timestamp(name: str, help_text: str, time_ms: int | None) -> Metric:
    """Return a gauge with the time of an event by the clock of Redis, 0 if there was no event."""
    return mesh_gauge(f"{name}_timestamp_seconds", f"{help_text}, by the clock of Redis", (time_ms or 0) / 1000)


def labelled_gauge(name: str, help_text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """Return a gauge of the whole mesh with labels; `values` has a number for each tuple of label values."""
    family = GaugeMetricFamily(f"mcp_registry_{name}", help_text + _MESH_WIDE, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family
