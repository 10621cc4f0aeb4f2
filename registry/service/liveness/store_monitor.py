"""Pulse once a second, and tell of what keeps the sweep from moving agents on: outages, grace and holds."""

import time
from collections.abc import Callable
from typing import Any

from registry.config.settings import Settings
from registry.errors import StoreUnavailable
from registry.model.encoding.agent_json import rfc3339
from registry.store.server_health import ProbeResult, SelfPreservation, ServerHealth
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

# Seconds without a pulse of any replica that are an outage; lua/include/pulse.lua decides it, this one only tells.
_OUTAGE_AFTER_S = 5.0


class StoreMonitor:
    """One round of the pulse, and the signs it saw last.

    Every replica logs what begins and what ends, so that the log of any of them tells the story. `on_clock_rollback` is
    told
    the time and that to which Redis' clock went back, at each pulse until no time in Redis lies in the future. `clock`
    is monotonic seconds; the times in signs are the Redis server's.
    """

    def __init__(
        self,
        server_health: ServerHealth,
        settings: Settings,
        *,
        on_clock_rollback: Callable[[int, int], None] = lambda _now, _to: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.last_probe: ProbeResult | None = None
        self._server_health = server_health
        self._agent_timeout_ms = int(settings.agent_timeout.total_seconds() * 1000)
        self._on_clock_rollback = on_clock_rollback
        self._clock = clock
        self._reached_at = clock()
        self._unreachable = False
        self._in_grace_period = False

    async def tick(self) -> None:
        """Note that Redis is reachable for this replica, and log what is new since the last time."""
        try:
            signs = await self._server_health.probe()
        except StoreUnavailable:
            if not self._unreachable and self._clock() - self._reached_at > _OUTAGE_AFTER_S:
                self._unreachable = True
                log.warning("an outage: Redis is out of this replica's reach", seconds=round(_OUTAGE_AFTER_S))
            raise
        before, self.last_probe = self.last_probe, signs
        self._reached_at = self._clock()
        if self._unreachable:
            self._unreachable = False
            log.warning("Redis is within this replica's reach again")
        fell_back = before is not None and signs.now < before.now
        if signs.outage_end is not None and (
            fell_back or signs.repairing_clock_rollback or (before is not None and before.repairing_clock_rollback)
        ):
            self._on_clock_rollback(signs.now, signs.outage_end)
        self._log_outage(before, signs)
        self._log_self_preservation(before.self_preservation if before else None, signs)

    def _log_outage(self, before: ProbeResult | None, probe: ProbeResult) -> None:
        if probe.outage_end is None:
            return
        until = probe.outage_end + self._agent_timeout_ms
        if (before is None or before.outage_end != probe.outage_end) and probe.now < until:
            self._in_grace_period = True
            tell = log.info if probe.outage_start is None else log.warning
            tell(
                "an outage is over; agents that it kept from being heard have their own timeout from now",
                cause=outage_cause(probe),
                since=None if probe.outage_start is None else rfc3339(probe.outage_start),
                until=rfc3339(probe.outage_end),
            )
        elif self._in_grace_period and probe.now >= until:
            self._in_grace_period = False
            log.info(
                "the grace after the outage is over, but for agents with a longer timeout", graced=probe.grace_granted
            )

    def _log_self_preservation(self, before: SelfPreservation | None, probe: ProbeResult) -> None:
        now = probe.self_preservation
        if now is not None and in_self_preservation(probe) and (before is None or before.since != now.since):
            log.warning(
                "a hold begins: so many agents fell silent together that none is moved on",
                since=rfc3339(now.since),
                until=rfc3339(now.until),
                silent=now.overdue,
                healthy=now.healthy,
            )
        elif before is not None and before.ended is None and (now is None or now.ended is not None):
            released = now is not None and now.ended is not None and now.ended < now.until
            log.warning("the hold is over; all overdue agents go", released=released, overdue=probe.overdue)


def in_self_preservation(probe: ProbeResult) -> bool:
    """Tell whether a hold is on."""
    return probe.self_preservation is not None and probe.self_preservation.ended is None


def outage_cause(probe: ProbeResult) -> str:
    """Name what the last outage was, as far as the pulses tell."""
    if probe.outage_start is None or probe.outage_end is None:
        return "first_pulse"
    return "clock_went_back" if probe.outage_start > probe.outage_end else "no_pulse"


def outage_document(probe: ProbeResult | None) -> dict[str, Any]:
    """Return what `/health` shows of the last outage: all null where there was none, or none is known."""
    known = probe is not None and probe.outage_end is not None
    return {
        "cause": outage_cause(probe) if probe is not None and known else None,
        "since": _optional_rfc3339(probe.outage_start) if probe is not None else None,
        "until": _optional_rfc3339(probe.outage_end) if probe is not None else None,
        "graced": probe.grace_granted if probe is not None else 0,
        "rewinding": probe is not None and probe.repairing_clock_rollback,
    }


def self_preservation_document(probe: ProbeResult | None) -> dict[str, Any]:
    """Return what `/health` shows of a hold: all null where there is none and none is known."""
    hold = probe.self_preservation if probe is not None else None
    active = probe is not None and in_self_preservation(probe)
    return {
        "active": active,
        "since": _optional_rfc3339(hold.since) if hold else None,
        "until": _optional_rfc3339(hold.ended or hold.until) if hold else None,
        "silent": hold.overdue if hold else 0,
        "healthy": hold.healthy if hold else 0,
        "held": probe.overdue if probe is not None and active else 0,
        "holds": probe.self_preservation_activations if probe is not None else 0,
    }


def _optional_rfc3339(time_ms: int | None) -> str | None:
    return None if time_ms is None else rfc3339(time_ms)
