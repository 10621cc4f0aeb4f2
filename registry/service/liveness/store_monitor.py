"""Monitoring of Redis: probes it, logs outages and self-preservation, and checks its configuration."""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from registry.config.settings import Settings
from registry.errors import StartupError, StoreUnavailable
from registry.model.encoding.agent_json import rfc3339
from registry.store.redis_health import MESH, ProbeResult, ServerHealth
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

# Seconds without a probe after which an outage is logged; the Lua script that records probes determines outages on its
# own.
_OUTAGE_AFTER_S = 5.0
_CONFIG_CHECK_INTERVAL_S = 60.0


class Outage(NamedTuple):
    """An outage: the last probe before it and its end, in ms of the Redis server.

    `is_lag` states that the event loops of the replicas were late, and Redis was reachable.
    """

    start: int
    end: int
    is_lag: bool = False

    @property
    def cause(self) -> Literal["clock_rollback", "lag", "no_probe"]:
        """Whether the clock of Redis went back, the replicas were late, or no replica reached Redis."""
        if self.is_lag:
            return "lag"
        return "clock_rollback" if self.start > self.end else "no_probe"


class StoreMonitor:
    """Probes Redis once a second and stores the last result in `last_probe`, and the last outage in `last_outage`.

    Every replica logs the start and the end of each outage and of self-preservation. A gap between two probes is an
    outage only if it is longer than `smallest_timeout`, the smallest timeout of an agent in ms, None while unknown:
    after a shorter one, such as a restart, no agent can be overdue because of it. One of the replicas themselves always
    is: a caller may have delayed them. After a clock rollback, each probe
    calls `on_clock_rollback` with the current time of Redis and the time that its clock went back to, until no stored
    time lies in the future. `clock` returns monotonic seconds; the times of a probe are the Redis server's.
    """

    def __init__(
        self,
        server_health: ServerHealth,
        settings: Settings,
        *,
        smallest_timeout: Callable[[], float | None] = lambda: 0,
        on_clock_rollback: Callable[[int, int], None] = lambda _now, _to: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.last_probe: ProbeResult | None = None
        self.last_outage: Outage | None = None
        self.config_warnings: tuple[str, ...] = ()
        self._server_health = server_health
        self._agent_timeout_ms = int(settings.agent_timeout.total_seconds() * 1000)
        self._smallest_timeout = smallest_timeout
        self._on_clock_rollback = on_clock_rollback
        self._clock = clock
        self._last_success_at = clock()
        self._unreachable = False
        self._in_grace_period = False
        self._last_gap: Outage | None = None
        self._last_lag: Outage | None = None
        self._config_checked_at = -math.inf

    async def tick(self) -> None:
        """Probe Redis once and log each change since the last probe."""
        try:
            probe = await self._server_health.probe()
        except StoreUnavailable as error:
            is_overdue = self._clock() - self._last_success_at > _OUTAGE_AFTER_S
            if is_overdue and not self._unreachable and error.reason != "auth":
                self._unreachable = True
                log.warning("redis_unreachable", seconds=round(_OUTAGE_AFTER_S))
            raise
        before, self.last_probe = self.last_probe, probe
        self._last_success_at = self._clock()
        if self._unreachable:
            self._unreachable = False
            log.warning("redis_reachable_again")
        went_back = before is not None and probe.now < before.now
        if probe.outage_end is not None and (
            went_back or probe.repairing_clock_rollback or (before is not None and before.repairing_clock_rollback)
        ):
            self._on_clock_rollback(probe.now, probe.outage_end)
        self._log_outage(probe)
        self._log_lag(probe)
        _log_self_preservation(before, probe)

    async def check_config(self) -> None:
        """Check the configuration of Redis once a minute, after a reconnect, and while it refuses commands.

        Logs each new warning.
        """
        due = self._clock() - self._config_checked_at >= _CONFIG_CHECK_INTERVAL_S
        if not due and not self._server_health.reconnected and not self._server_health.refused_commands:
            return
        messages = (await self._server_health.check_config()).messages
        self._config_checked_at = self._clock()
        for warning in messages:
            if warning not in self.config_warnings:
                log.warning("redis_misconfigured", warning=warning)
        self.config_warnings = messages

    async def require_supported_store(self) -> None:
        """Raise StartupError if the version of Redis is too old; skip the check if Redis is unreachable."""
        with contextlib.suppress(StoreUnavailable):
            check = await self._server_health.check_config()
            if check.unsupported_version:
                raise StartupError(check.unsupported_version)

    def _log_outage(self, probe: ProbeResult) -> None:
        """Log an outage and the end of its grace period, unless the probe found them long after."""
        if probe.outage_start is None or probe.outage_end is None:
            return  # the first probe of a mesh is the end of no outage
        gap = Outage(probe.outage_start, probe.outage_end)
        grace_until = gap.end + self._agent_timeout_ms
        if gap != self._last_gap:
            if (smallest_timeout := self._smallest_timeout()) is None:
                return
            self._last_gap = gap
            if gap.cause == "clock_rollback" or gap.end - gap.start > smallest_timeout:
                self.last_outage, self._in_grace_period = gap, probe.now < grace_until
                if self._in_grace_period:
                    times = {"since": rfc3339(gap.start), "until": rfc3339(gap.end)}
                    log.warning("outage_ended", cause=gap.cause, **times)
        elif self._in_grace_period and probe.now >= grace_until:
            self._in_grace_period = False
            log.info("outage_grace_period_ended", grace_granted=probe.grace_granted)

    def _log_lag(self, probe: ProbeResult) -> None:
        """Log an outage of the replicas themselves, unless the probe found it long after."""
        if probe.lag_start is None or probe.lag_end is None:
            return
        lag = Outage(probe.lag_start, probe.lag_end, is_lag=True)
        if lag == self._last_lag:
            return
        self._last_lag = lag
        if self.last_outage is None or lag.end >= self.last_outage.end:
            self.last_outage = lag
        if probe.now < lag.end + self._agent_timeout_ms:
            log.warning("outage_ended", cause=lag.cause, since=rfc3339(lag.start), until=rfc3339(lag.end))


def _log_self_preservation(before: ProbeResult | None, probe: ProbeResult) -> None:
    """Log each period of self-preservation that has started or ended since the last probe, of those that both read."""
    was_active = {(period.namespace, period.since): period for period in before.active_periods} if before else {}
    latest = {period.namespace: period for period in probe.self_preservation}
    for period in probe.active_periods:
        if was_active.pop((period.namespace, period.since), None) is None:
            log.warning(
                "self_preservation_started",
                namespace=period.namespace,
                since=rfc3339(period.since),
                until=rfc3339(period.until),
                overdue=period.overdue,
                healthy=period.healthy,
            )
    # With more namespaces than a probe returns, one may be missing although its period continues.
    is_complete = probe.protected_namespaces <= len(probe.active_periods)
    for namespace, since in was_active:
        if is_complete or namespace == MESH:
            now = latest.get(namespace)
            ended = now.ended if now is not None and now.since == since else None
            by_operator = now is not None and ended is not None and ended < now.until
            log.warning("self_preservation_ended", namespace=namespace, by_operator=by_operator, overdue=probe.overdue)
