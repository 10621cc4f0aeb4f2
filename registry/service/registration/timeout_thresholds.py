"""The thresholds for missed heartbeats: how long until an agent is degraded, and until it is expired."""

from collections.abc import Mapping
from datetime import timedelta

from registry.config.value_types import Thresholds
from registry.model.registration.parse import Registration


def resolve_thresholds(
    registration: Registration,
    by_type: Mapping[str, Thresholds],
    default_timeout: timedelta,
    format_timeout: timedelta | None,
) -> tuple[timedelta, timedelta]:
    """Return how long an agent may miss heartbeats until it is degraded, and until it is expired.

    The registration's own thresholds come first, then those of its agent type, then the default. `format_timeout` is
    the shortest timeout that agents of this registration format expect, None for the native format.
    """
    type_thresholds = by_type.get(registration.agent_type)
    if registration.timeout_threshold is not None:
        timeout = timedelta(seconds=registration.timeout_threshold)
    elif type_thresholds:
        timeout = type_thresholds.timeout
    elif format_timeout is not None:
        timeout = min(default_timeout, format_timeout)
    else:
        timeout = max(default_timeout, 2 * timedelta(seconds=registration.health_interval or 0))
    if registration.eviction_threshold is not None:
        return timeout, timedelta(seconds=registration.eviction_threshold)
    if type_thresholds and registration.timeout_threshold is None:
        return timeout, type_thresholds.eviction
    return timeout, 2 * timeout
